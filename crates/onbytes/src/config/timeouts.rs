//! Time limits of connections.

use std::time::Duration;

use super::{in_range, not_zero};
use crate::{Error, Result};

/// Time limits of a listener's connections.
///
/// A limit of `None` is switched off; in files that is written `"off"`.
/// [`Listener::set_timeouts`](crate::Listener::set_timeouts) changes them while the listener runs.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, rename_all = "camelCase"))]
pub struct Timeouts {
    /// Ends a connection when the kernel takes no queued byte for so long. Default: 30 s.
    ///
    /// This measures progress, not the peer: the kernel has buffers of its own, up to megabytes, and
    /// what they take counts. So a peer that has stopped reading is noticed only after they are full.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub write: Option<Duration>,
    /// Ends a connection when no byte has come from the peer for so long while no callback runs and
    /// nothing is queued. Default: off.
    ///
    /// A download that still moves is not idle: where the peer still owes acknowledgements when the
    /// time is over, it is given the same time again, as often as it has acknowledged some since.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub idle: Option<Duration>,
    /// Ends a connection when fewer bytes than this come from the peer while it is waited for.
    /// Default: off.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_min_arrival"))]
    pub min_arrival: Option<MinArrival>,
    /// Ends a connection, in order, at this age at the latest. Default: off.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub max_lifetime: Option<Duration>,
    /// The share of `max_lifetime`, 0 to 1, by which the life of each connection is shortened at
    /// most, at random, so that many that came together do not all come back together. Default: 0.1.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::share"))]
    pub max_lifetime_jitter: f64,
    /// The time that `on_close` may take before it is dropped. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::seconds"))]
    pub on_close: Duration,
    /// The deadline of the graceful stop that ends `serve` and `serve_until`. Default: 30 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::seconds"))]
    pub shutdown: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            write: Some(Duration::from_secs(30)),
            idle: None,
            min_arrival: None,
            max_lifetime: None,
            max_lifetime_jitter: 0.1,
            on_close: Duration::from_secs(1),
            shutdown: Duration::from_secs(30),
        }
    }
}

impl Timeouts {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn check(&self) -> Result<()> {
        not_zero("timeouts.write", self.write)?;
        not_zero("timeouts.idle", self.idle)?;
        not_zero("timeouts.max_lifetime", self.max_lifetime)?;
        if let Some(min_arrival) = &self.min_arrival {
            min_arrival.check()?;
        }
        // The range leaves out what is not a number, too.
        if !(0.0..=1.0).contains(&self.max_lifetime_jitter) {
            return Err(Error::configuration(format!(
                "timeouts.max_lifetime_jitter must be from 0 to 1, not {}",
                self.max_lifetime_jitter
            )));
        }
        if self.on_close.is_zero() {
            return Err(Error::configuration("timeouts.on_close must be more than 0 s"));
        }
        Ok(())
    }

    /// Whether anything but reading what it is sent is asked of a peer that stays connected.
    pub(crate) fn bound_the_peer(&self) -> bool {
        self.idle.is_some() || self.min_arrival.is_some() || self.max_lifetime.is_some()
    }

    /// The memory that a connection takes for what these limits need (BENCHMARKS.md, "Bounds").
    pub(crate) fn weight(&self) -> u64 {
        let arrival = if self.min_arrival.is_some() { 48 } else { 0 };
        if self.bound_the_peer() { 176 + arrival } else { 0 }
    }

    /// How long the connection named by `number` may live.
    pub(crate) fn lifetime_of(&self, number: u64) -> Option<Duration> {
        let lifetime = self.max_lifetime?;
        let shortened = lifetime.as_secs_f64() * self.max_lifetime_jitter * share_of(number);
        // The greatest time is more than can be counted in this way; it never ends either way.
        let shortened = Duration::try_from_secs_f64(shortened).unwrap_or_default();
        Some(lifetime.saturating_sub(shortened))
    }
}

/// A number from 0 to 1 that looks random and is the same for the same connection at each look.
fn share_of(number: u64) -> f64 {
    // The finaliser of SplitMix64, which spreads numbers that follow one another.
    let mut mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ (mixed >> 31)) as f64 / u64::MAX as f64
}

setters! { Timeouts {
    write: impl Into<Option<Duration>> => write.into();
    idle: impl Into<Option<Duration>> => idle.into();
    min_arrival: impl Into<Option<MinArrival>> => min_arrival.into();
    max_lifetime: impl Into<Option<Duration>> => max_lifetime.into();
    max_lifetime_jitter: f64 => max_lifetime_jitter;
    on_close: Duration => on_close;
    shutdown: Duration => shutdown;
}}

/// The fewest bytes that have to come from a peer while it is waited for.
///
/// The idle limit is content with any byte, so a peer that sends one now and then can hold a
/// connection for ever. This one counts: in each `within` of waiting at least `bytes` have to come,
/// or the connection ends in order, for reason `too_slow`. The time counts from accept (over TLS
/// from the end of the handshake), does not count while a callback runs or something is queued for
/// the peer, and begins anew as soon as enough has come. It is for protocols whose peers always have
/// something to say; one that rests between messages needs the idle limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, rename_all = "camelCase"))]
pub struct MinArrival {
    /// How many bytes, at least 1. Over TLS these are bytes on the wire.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::count"))]
    pub bytes: usize,
    /// In how much time.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::seconds"))]
    pub within: Duration,
}

impl MinArrival {
    /// At least `bytes` in each `within`.
    pub fn new(bytes: usize, within: Duration) -> Self {
        Self { bytes, within }
    }

    fn check(&self) -> Result<()> {
        in_range("timeouts.min_arrival.bytes", self.bytes, 1, u32::MAX as usize)?;
        not_zero("timeouts.min_arrival.within", Some(self.within))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_a_connection_keeps_something_for_is_weighed() {
        let none = Timeouts::new();
        let write = Timeouts::new().write(Duration::from_secs(1));
        let idle = Timeouts::new().idle(Duration::from_secs(1));
        assert_eq!((none.weight(), write.weight()), (0, 0));
        assert!(idle.weight() > 0);
    }

    #[test]
    fn lives_are_spread_below_the_longest_one() {
        let hour = Duration::from_secs(3600);
        let timeouts = Timeouts::new().max_lifetime(hour).max_lifetime_jitter(0.25);
        let lives: Vec<_> = (1..=1000).filter_map(|number| timeouts.lifetime_of(number)).collect();
        assert!(lives.iter().all(|life| (hour * 3 / 4..=hour).contains(life)));
        let early = lives.iter().filter(|life| **life < hour * 7 / 8).count();
        assert!((400..600).contains(&early), "{early} of 1000 in the earlier half");
        assert_eq!(timeouts.lifetime_of(7), timeouts.lifetime_of(7));
    }

    #[test]
    fn without_jitter_the_lifetime_is_exact_and_off_stays_off() {
        let day = Duration::from_secs(86_400);
        let timeouts = Timeouts::new().max_lifetime(day).max_lifetime_jitter(0.0);
        assert_eq!(timeouts.lifetime_of(1), Some(day));
        assert_eq!(Timeouts::new().lifetime_of(1), None);
        // Nothing overflows at the ends of the range.
        let endless = Timeouts::new().max_lifetime(Duration::MAX).max_lifetime_jitter(1.0);
        assert!((0..1000).all(|number| endless.lifetime_of(number).is_some()));
    }
}
