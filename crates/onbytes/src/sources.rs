//! How many connections each source has, and how fast it brings new ones. A source is an address,
//! or all addresses that share a prefix.

use std::collections::HashMap;
use std::collections::hash_map::{Entry, RandomState};
use std::convert::Infallible;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What one source may have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SourceLimits {
    /// Connections at once.
    pub(crate) connections: Option<usize>,
    /// New connections in a second, more than 0.
    pub(crate) rate: Option<f64>,
    /// New connections at once before the rate counts, at least 1.
    pub(crate) burst: f64,
    /// How many leading bits of an IPv4 address name a source.
    pub(crate) ipv4_prefix: u8,
    /// How many leading bits of an IPv6 address name a source.
    pub(crate) ipv6_prefix: u8,
}

/// What a source has too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Excess {
    Connections,
    Rate,
}

/// All sources that have connections, or had some lately.
///
/// A source without connections is remembered until its bucket is full again, because from then on
/// it is like one that was never seen. At most 64 Ki of them are remembered: beyond that those whose
/// buckets are nearest to being full are forgiven what they lack. So strangers cannot fill the
/// memory, and whoever wants to be forgiven needs tens of thousands of addresses, which would bring
/// more connections without.
pub(crate) struct Sources {
    limits: SourceLimits,
    bucket: Option<Bucket>,
    /// The beginning of time.
    epoch: Instant,
    /// Keyed, because strangers choose the addresses.
    hasher: RandomState,
    shards: [Mutex<Shard>; Sources::SHARDS],
}

impl Sources {
    const SHARDS: usize = 16;

    pub(crate) fn new(limits: SourceLimits) -> Self {
        let hasher = RandomState::new();
        Self {
            limits,
            bucket: limits.rate.map(|rate| Bucket::new(rate, limits.burst)),
            epoch: Instant::now(),
            shards: std::array::from_fn(|_| Mutex::new(Shard::new(hasher.clone()))),
            hasher,
        }
    }

    /// Counts a new connection, unless its source has too many or brings them too fast. A refused
    /// one counts for nothing: it takes no token and no place.
    pub(crate) fn admit(
        self: &Arc<Self>,
        from: IpAddr,
        now: Instant,
    ) -> Result<SourcePlace, Excess> {
        let key = self.key(from);
        let now = self.ticks(now);
        self.shard(key).add(key, now, |source, now| self.one_more(source, now))?;
        Ok(SourcePlace { sources: Arc::clone(self), key })
    }

    /// Counts a connection that is there already, whatever the limits say; it takes no token.
    pub(crate) fn enrol(self: &Arc<Self>, from: IpAddr) -> SourcePlace {
        let key = self.key(from);
        // The time plays no part in it.
        let Ok(()) = self.shard(key).add(key, 0, |source, _| Ok::<_, Infallible>(source.full_at));
        SourcePlace { sources: Arc::clone(self), key }
    }

    /// When the bucket of `source` is full again after one more connection, if it may have one.
    fn one_more(&self, source: Source, now: u64) -> Result<u64, Excess> {
        let most = self.limits.connections.unwrap_or(usize::MAX);
        if source.connections as usize >= most {
            return Err(Excess::Connections);
        }
        match &self.bucket {
            Some(bucket) => bucket.take(source.full_at, now).ok_or(Excess::Rate),
            None => Ok(source.full_at),
        }
    }

    fn key(&self, from: IpAddr) -> Key {
        // IPv4 is written as IPv6, with 96 bits in front. No IPv6 key is like it: an address that
        // is not IPv4 differs in these bits, or has zeros in the last of them once it is cut.
        let (bits, length) = match from.to_canonical() {
            IpAddr::V4(from) => {
                (from.to_ipv6_mapped().to_bits(), 96 + u32::from(self.limits.ipv4_prefix))
            }
            IpAddr::V6(from) => (from.to_bits(), u32::from(self.limits.ipv6_prefix)),
        };
        let bits = bits & !u128::MAX.checked_shr(length).unwrap_or(0);
        Key { high: (bits >> 64) as u64, low: bits as u64 }
    }

    fn shard(&self, key: Key) -> MutexGuard<'_, Shard> {
        // The maps take the lowest and the highest bits of the same hash, so these are other ones:
        // with bits in common the keys of a shard would crowd in one part of its map.
        let shard = (self.hasher.hash_one(key) >> 48) as usize % Self::SHARDS;
        self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ticks(&self, now: Instant) -> u64 {
        let nanos = now.saturating_duration_since(self.epoch).as_nanos();
        u64::try_from(nanos * TICKS_PER_NANO).unwrap_or(u64::MAX)
    }
}

/// A connection counted for its source, given back when dropped.
pub(crate) struct SourcePlace {
    sources: Arc<Sources>,
    key: Key,
}

impl SourcePlace {
    /// Whether it is a place of this table.
    pub(crate) fn is_of(&self, sources: &Arc<Sources>) -> bool {
        Arc::ptr_eq(&self.sources, sources)
    }
}

impl Drop for SourcePlace {
    fn drop(&mut self) {
        self.sources.shard(self.key).leave(self.key);
    }
}

/// The address of a source, its prefix only.
// Two words rather than one of 128 bits, whose alignment would make places larger.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Key {
    high: u64,
    low: u64,
}

/// Time is counted in sixteenths of a nanosecond since the epoch, which last for 36 years: the time
/// of one token is a whole number of them, and of nanoseconds it would be too rough for high rates.
const TICKS_PER_NANO: u128 = 16;

/// The token bucket of each source, told by the time at which it is full again: that is one number,
/// and says when the source can be forgotten.
struct Bucket {
    /// The time that brings one token, rounded down: who waits for a second has a second's tokens.
    token: u64,
    /// How far off the full bucket may be while it has one token to give.
    most: u64,
}

impl Bucket {
    fn new(rate: f64, burst: f64) -> Self {
        let token = (1e9 * TICKS_PER_NANO as f64 / rate) as u64;
        // Conversions of floats stop at the greatest number: a burst that takes longer than that
        // to regain is never used up.
        Self { token, most: (token as f64 * (burst - 1.0)) as u64 }
    }

    /// When the bucket is full again if one token is taken now, if it has one.
    fn take(&self, full_at: u64, now: u64) -> Option<u64> {
        let full_at = full_at.max(now);
        (full_at - now <= self.most).then(|| full_at.saturating_add(self.token))
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Source {
    /// When its bucket is full again.
    full_at: u64,
    connections: u32,
}

impl Source {
    fn is_idle(&self) -> bool {
        self.connections == 0
    }
}

struct Shard {
    sources: HashMap<Key, Source, RandomState>,
    /// How many of them have no connections.
    idle: usize,
    /// How many new connections there may be until the next purge.
    until_purge: usize,
    /// The latest time that anybody told. To forget by it needs no clock, and forgets a little late
    /// at most.
    latest: u64,
}

impl Shard {
    /// The most sources without connections that a shard remembers.
    const MOST_IDLE: usize = 64 * 1024 / Sources::SHARDS;
    /// Room for so many sources is kept, and so many connections go by without a purge.
    const FEW: usize = 64;

    fn new(hasher: RandomState) -> Self {
        Self { sources: HashMap::with_hasher(hasher), idle: 0, until_purge: Self::FEW, latest: 0 }
    }

    /// Counts one more connection if `may` says when the source's bucket is full again then. Where
    /// somebody has told a later time than `now` it is that: a source that was forgotten by the later
    /// one has not become new by the earlier one.
    fn add<E>(
        &mut self,
        key: Key,
        now: u64,
        may: impl FnOnce(Source, u64) -> Result<u64, E>,
    ) -> Result<(), E> {
        self.latest = self.latest.max(now);
        match self.sources.entry(key) {
            Entry::Occupied(mut entry) => {
                let source = entry.get_mut();
                source.full_at = may(*source, self.latest)?;
                self.idle -= usize::from(source.is_idle());
                source.connections += 1;
            }
            Entry::Vacant(entry) => {
                let full_at = may(Source::default(), self.latest)?;
                entry.insert(Source { full_at, connections: 1 });
            }
        }
        self.until_purge -= 1;
        if self.until_purge == 0 {
            self.purge();
        }
        Ok(())
    }

    fn leave(&mut self, key: Key) {
        let Some(source) = self.sources.get_mut(&key) else { return };
        source.connections -= 1;
        if !source.is_idle() {
            return;
        }
        if source.full_at <= self.latest {
            self.sources.remove(&key);
            self.shrink();
            return;
        }
        self.idle += 1;
        if self.idle > Self::MOST_IDLE {
            self.purge();
        }
    }

    /// Forgets the sources that are as if they had never been seen.
    // It looks at all sources after as many connections as there were sources, so for each
    // connection at one or two of them; and no shard grows to more than twice what was left.
    fn purge(&mut self) {
        self.sources.retain(|_, source| !source.is_idle() || source.full_at > self.latest);
        self.idle = self.sources.values().filter(|source| source.is_idle()).count();
        if self.idle > Self::MOST_IDLE {
            self.forgive();
        }
        self.shrink();
        self.until_purge = self.sources.len().max(Self::FEW);
    }

    /// Forgets the sources without connections whose buckets are nearest to being full: half of
    /// those that may be remembered are left, so that this is seldom done.
    fn forgive(&mut self) {
        let idle = self.sources.iter().filter(|(_, source)| source.is_idle());
        let mut idle: Vec<_> = idle.map(|(key, source)| (source.full_at, *key)).collect();
        let surplus = idle.len() - Self::MOST_IDLE / 2;
        idle.select_nth_unstable(surplus);
        for (_, key) in &idle[..surplus] {
            self.sources.remove(key);
        }
        self.idle -= surplus;
    }

    /// After a crowd has left, its memory is given back.
    fn shrink(&mut self) {
        let (few, len) = (Self::FEW, self.sources.len());
        if self.sources.capacity() > few && len * 4 < self.sources.capacity() {
            self.sources.shrink_to(len * 2);
            self.until_purge = self.until_purge.min(len.max(few));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    const NONE: SourceLimits = SourceLimits {
        connections: None,
        rate: None,
        burst: 1.0,
        ipv4_prefix: 32,
        ipv6_prefix: 64,
    };

    fn at_most(connections: usize) -> Arc<Sources> {
        Arc::new(Sources::new(SourceLimits { connections: Some(connections), ..NONE }))
    }

    fn at_rate(rate: f64, burst: f64) -> Arc<Sources> {
        Arc::new(Sources::new(SourceLimits { rate: Some(rate), burst, ..NONE }))
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// One of many addresses.
    fn numbered(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    impl Sources {
        fn sum(&self, of: impl Fn(&Shard) -> usize) -> usize {
            self.shards.iter().map(|shard| of(&shard.lock().unwrap())).sum()
        }

        fn remembered(&self) -> usize {
            self.sum(|shard| shard.sources.len())
        }

        fn capacity(&self) -> usize {
            self.sum(|shard| shard.sources.capacity())
        }

        /// How many connections `from` may bring at this moment.
        fn free(self: &Arc<Self>, from: &str, now: Instant) -> usize {
            std::iter::repeat_with(|| self.admit(address(from), now))
                .take_while(Result::is_ok)
                .count()
        }
    }

    #[test]
    fn a_source_has_as_many_places_as_its_limit_and_gets_them_back() {
        let (sources, now) = (at_most(2), Instant::now());
        let first = sources.admit(address("10.0.0.1"), now).unwrap();
        let second = sources.admit(address("10.0.0.1"), now).unwrap();
        assert_eq!(sources.admit(address("10.0.0.1"), now).err(), Some(Excess::Connections));
        let _other = sources.admit(address("10.0.0.2"), now).unwrap();
        drop(first);
        let _third = sources.admit(address("10.0.0.1"), now).unwrap();
        assert_eq!(sources.admit(address("10.0.0.1"), now).err(), Some(Excess::Connections));
        drop((second, _third, _other));
        assert_eq!(sources.remembered(), 0);
    }

    #[test]
    fn addresses_that_share_a_prefix_are_one_source() {
        let limits = SourceLimits { connections: Some(1), ipv4_prefix: 24, ..NONE };
        let (sources, now) = (Arc::new(Sources::new(limits)), Instant::now());
        let admit = |from| sources.admit(address(from), now);
        let _v4 = admit("10.0.0.1").unwrap();
        assert!(admit("10.0.0.255").is_err() && admit("::ffff:10.0.0.7").is_err());
        let _next = admit("::ffff:10.0.1.1").unwrap();
        assert!(admit("10.0.1.2").is_err());
        let _v6 = admit("2001:db8::1").unwrap();
        assert!(admit("2001:db8::ffff:0:0:1").is_err());
        assert!(admit("2001:db8:0:1::1").is_ok());
    }

    #[test]
    fn ipv4_and_ipv6_are_never_one_source() {
        for (ipv4_prefix, ipv6_prefix) in [(0, 0), (1, 1), (32, 128), (32, 96), (8, 95), (0, 97)] {
            let limits = SourceLimits { ipv4_prefix, ipv6_prefix, ..NONE };
            let sources = Sources::new(limits);
            for v4 in ["0.0.0.0", "10.0.0.1", "255.255.255.255"] {
                for v6 in ["::", "::10.0.0.1", "::fffe:a00:1", "::1:ffff:a00:1", "ffff::"] {
                    assert_ne!(sources.key(address(v4)), sources.key(address(v6)), "{v4} {v6}");
                }
            }
        }
    }

    #[test]
    fn a_source_brings_its_burst_at_once_and_then_so_many_in_a_second() {
        for (rate, burst) in [(4.0, 10.0), (3.0, 3.0), (0.8, 1.0), (1e6, 5.0), (300.0, 300.0)] {
            let (sources, start) = (at_rate(rate, burst), Instant::now());
            assert_eq!(sources.free("::1", start), burst as usize, "{rate}");
            let per_token = Duration::from_secs_f64(1.0 / rate);
            let early = start + per_token.mul_f64(0.999);
            assert_eq!(sources.admit(address("::1"), early).err(), Some(Excess::Rate), "{rate}");
            for tokens in 1..1000 {
                let passed = Duration::from_secs_f64(f64::from(tokens) / rate);
                let now = start + passed + Duration::from_nanos(1);
                assert_eq!(sources.free("::1", now), 1, "{rate}");
            }
            assert_eq!(sources.free("::1", start + Duration::from_secs(36_000)), burst as usize);
        }
    }

    #[test]
    fn who_waits_for_a_second_has_the_tokens_of_a_second() {
        for rate in [1.0, 3.0, 7.0, 11.0, 999.0] {
            let (sources, start) = (at_rate(rate, rate), Instant::now());
            for seconds in 0..10 {
                let now = start + Duration::from_secs(seconds);
                assert_eq!(sources.free("::1", now), rate as usize, "{rate}");
            }
        }
    }

    #[test]
    fn a_part_of_a_token_is_kept() {
        let (sources, start) = (at_rate(1.0, 2.5), Instant::now());
        assert_eq!(sources.free("::1", start), 2);
        assert_eq!(sources.free("::1", start + Duration::from_millis(499)), 0);
        assert_eq!(sources.free("::1", start + Duration::from_millis(500)), 1);
    }

    #[test]
    fn a_refused_connection_takes_no_token_and_no_place() {
        let limits = SourceLimits { connections: Some(1), rate: Some(1.0), burst: 2.0, ..NONE };
        let (sources, now) = (Arc::new(Sources::new(limits)), Instant::now());
        let admit = || sources.admit(address("::1"), now);
        let place = admit().unwrap();
        for _ in 0..1000 {
            assert_eq!(admit().err(), Some(Excess::Connections));
        }
        drop(place);
        // The second token is still there, the third never was.
        drop(admit().unwrap());
        for _ in 0..1000 {
            assert_eq!(admit().err(), Some(Excess::Rate));
        }
        let later = now + Duration::from_secs(1);
        let _place = sources.admit(address("::1"), later).unwrap();
        assert_eq!(sources.admit(address("::1"), later).err(), Some(Excess::Connections));
    }

    #[test]
    fn a_clock_that_stands_or_goes_back_does_no_harm() {
        let (sources, start) = (at_rate(1.0, 2.0), Instant::now());
        let later = start + Duration::from_secs(100);
        assert_eq!(sources.free("::1", later), 2);
        assert_eq!(sources.free("::1", start), 0);
        assert_eq!(sources.free("::1", later), 0);
        assert_eq!(sources.free("::1", later + Duration::from_secs(1)), 1);
        // Before the epoch, and beyond the end of time.
        assert_eq!(sources.free("2001:db8::1", start - Duration::from_millis(1)), 2);
        let end = start + Duration::from_secs(100 * 365 * 24 * 3600);
        let places: Vec<_> =
            (0..3).map(|_| sources.admit(address("2001:db8:0:1::1"), end)).collect();
        assert!(places.iter().all(Result::is_ok));
    }

    #[test]
    fn numbers_beyond_reason_do_not_overflow() {
        let now = Instant::now();
        for (rate, burst) in [(0.001, 4e9), (1e300, 1.0), (1e-300, 2.0), (f64::INFINITY, f64::MAX)]
        {
            let sources = at_rate(rate, burst);
            assert!(sources.admit(address("::1"), now).is_ok(), "{rate} {burst}");
            let _ = sources.admit(address("::1"), now + Duration::from_secs(1));
        }
    }

    #[test]
    fn those_that_are_there_already_count_beyond_the_limits() {
        let limits = SourceLimits { connections: Some(2), rate: Some(1.0), burst: 1.0, ..NONE };
        let (sources, now) = (Arc::new(Sources::new(limits)), Instant::now());
        let mut there: Vec<_> = (0..3).map(|_| sources.enrol(address("::1"))).collect();
        assert_eq!(sources.admit(address("::1"), now).err(), Some(Excess::Connections));
        there.pop();
        assert_eq!(sources.admit(address("::1"), now).err(), Some(Excess::Connections));
        there.pop();
        assert!(sources.admit(address("::1"), now).is_ok());
    }

    #[test]
    fn a_source_is_remembered_until_its_bucket_is_full() {
        let (sources, start) = (at_rate(1.0, 1.0), Instant::now());
        for number in 0..500 {
            drop(sources.admit(numbered(number), start));
        }
        let later = start + Duration::from_secs(1);
        assert_eq!(sources.remembered(), 500);
        assert!((0..500).all(|number| sources.admit(numbered(number), start).is_err()));
        // Another source's connections are what makes the shards look.
        for number in 1000..10_000 {
            drop(sources.admit(numbered(number), later));
            assert!(sources.remembered() <= 2 * (number as usize - 999) + 500);
        }
        let keys = (0..500).map(|number| sources.key(numbered(number)));
        assert!(keys.into_iter().all(|key| !sources.shard(key).sources.contains_key(&key)));
    }

    #[test]
    fn a_million_sources_take_bounded_memory_and_give_it_back() {
        let (sources, start) = (at_rate(1.0, 1.0), Instant::now());
        let day = Duration::from_secs(24 * 3600);
        for number in 0..1_000_000 {
            let now = start + day + Duration::from_micros(u64::from(number) / 10);
            drop(sources.admit(numbered(number), now));
        }
        assert!(sources.remembered() <= 64 * 1024, "{}", sources.remembered());
        assert!(sources.remembered() >= 16 * 1024, "{}", sources.remembered());
        assert!(sources.capacity() <= 4 * 64 * 1024, "{}", sources.capacity());
        // The first were nearest to being full; the last are remembered.
        assert!(sources.admit(numbered(0), start + day).is_ok());
        assert!(sources.admit(numbered(999_999), start + day).is_err());
        // A day later a few connections are enough.
        for number in 0..100_000 {
            drop(sources.admit(numbered(number % 1000), start + 2 * day + day * number / 1000));
        }
        assert!(sources.capacity() <= 16 * 4 * Shard::FEW.max(1000 / 16), "{}", sources.capacity());
    }

    #[test]
    fn a_crowd_that_leaves_gives_its_memory_back() {
        let (sources, now) = (at_most(1), Instant::now());
        let crowd: Vec<_> =
            (0..100_000).map(|number| sources.admit(numbered(number), now)).collect();
        assert!(crowd.iter().all(Result::is_ok));
        assert_eq!(sources.remembered(), 100_000);
        drop(crowd);
        assert_eq!(sources.remembered(), 0);
        assert!(sources.capacity() <= 16 * 2 * Shard::FEW, "{}", sources.capacity());
    }

    #[test]
    fn many_threads_at_once_keep_the_count_exact() {
        const LIMIT: usize = 5;
        let (sources, now) = (at_most(LIMIT), Instant::now());
        let held = [AtomicUsize::new(0), AtomicUsize::new(0)];
        let admitted = AtomicUsize::new(0);
        let churn = |thread: usize| {
            for step in 0..20_000 {
                let which = (thread + step) % 2;
                let Ok(place) = sources.admit(numbered(which as u32), now) else { continue };
                admitted.fetch_add(1, Ordering::Relaxed);
                assert!(held[which].fetch_add(1, Ordering::SeqCst) < LIMIT);
                if step % 3 == 0 {
                    std::thread::yield_now();
                }
                held[which].fetch_sub(1, Ordering::SeqCst);
                drop(place);
            }
        };
        std::thread::scope(|scope| {
            (0..8).for_each(|thread| drop(scope.spawn(move || churn(thread))));
        });
        assert!(admitted.load(Ordering::Relaxed) > 0);
        assert_eq!(sources.remembered(), 0);
        let all: Vec<_> =
            std::iter::repeat_with(|| sources.admit(numbered(0), now)).take(LIMIT + 1).collect();
        assert_eq!(all.iter().filter(|place| place.is_ok()).count(), LIMIT);
    }

    #[test]
    fn a_place_is_small() {
        assert!(size_of::<SourcePlace>() <= 3 * size_of::<u64>());
        assert!(size_of::<(Key, Source)>() <= 32);
    }

    /// Against counts and buckets that are never purged. Times are eighths of a second and the rate
    /// is 4 in a second, so that all numbers are exact.
    #[derive(Default, Clone, Copy)]
    struct Model {
        connections: usize,
        missing: f64,
        seen: u32,
    }

    proptest! {
        #[test]
        fn sources_are_told_apart_whatever_is_purged(
            steps in proptest::collection::vec((0u32..300, 0u32..3, any::<bool>()), 1..3000),
        ) {
            let limits = SourceLimits { connections: Some(2), rate: Some(4.0), burst: 3.0, ..NONE };
            let (sources, start) = (Arc::new(Sources::new(limits)), Instant::now());
            let mut models = vec![Model::default(); 300];
            let mut places: Vec<(usize, SourcePlace)> = Vec::new();
            let mut eighths = 0;
            for (number, passed, leaves) in steps {
                eighths += passed;
                // Some come much more often than others.
                let number = if number < 150 { number % 3 } else { number };
                let model = &mut models[number as usize];
                let now = start + Duration::from_millis(125) * eighths;
                model.missing = (model.missing - f64::from(eighths - model.seen) * 0.5).max(0.0);
                model.seen = eighths;
                let expected = if model.connections == 2 {
                    Some(Excess::Connections)
                } else {
                    (model.missing > 2.0).then_some(Excess::Rate)
                };
                match sources.admit(numbered(number), now) {
                    Ok(place) => {
                        assert_eq!(expected, None);
                        model.connections += 1;
                        model.missing += 1.0;
                        places.push((number as usize, place));
                    }
                    Err(excess) => assert_eq!(expected, Some(excess)),
                }
                if leaves && !places.is_empty() {
                    let (number, place) = places.swap_remove(eighths as usize % places.len());
                    models[number].connections -= 1;
                    drop(place);
                }
            }
        }
    }
}
