//! One period of listening, from start to stop: its settings, its places and its connections.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::close::{CloseReason, Parting};
use crate::event::{Event, Events};
use crate::link::Link;
use crate::{Close, ConnectionId, ListenerConfiguration};
#[cfg(feature = "_tls")]
use {
    crate::tls::Acceptor,
    crate::{Error, ErrorKind},
    std::collections::BTreeMap,
    std::time::Duration,
    tokio::time::Instant,
};

/// What all connections of one period of listening share.
pub(crate) struct Run {
    pub(crate) config: ListenerConfiguration,
    pub(crate) events: Arc<Events>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) places: Arc<Places>,
    /// Makes TLS sessions, where connections are secured.
    #[cfg(feature = "_tls")]
    pub(crate) acceptor: Option<Acceptor>,
    #[cfg(feature = "_tls")]
    pub(crate) handshakes: Handshakes,
    registry: Registry,
    stopping: AtomicBool,
    alive: AtomicUsize,
    clean: AtomicUsize,
    forced: AtomicUsize,
    emptied: Notify,
}

impl Run {
    pub(crate) fn new(
        config: ListenerConfiguration,
        events: Arc<Events>,
        counters: Arc<Counters>,
    ) -> Self {
        let places = config.limits.max_connections.unwrap_or_else(default_max_connections);
        #[cfg(feature = "_tls")]
        let handshakes = config.limits.max_handshakes.unwrap_or_else(default_max_handshakes);
        Self {
            config,
            events,
            counters,
            places: Arc::new(Places::new(places)),
            #[cfg(feature = "_tls")]
            acceptor: None,
            #[cfg(feature = "_tls")]
            handshakes: Handshakes::new(handshakes),
            registry: Registry::default(),
            stopping: AtomicBool::new(false),
            alive: AtomicUsize::new(0),
            clean: AtomicUsize::new(0),
            forced: AtomicUsize::new(0),
            emptied: Notify::new(),
        }
    }

    #[cfg(feature = "_tls")]
    pub(crate) fn with_acceptor(self, acceptor: Option<Acceptor>) -> Self {
        Self { acceptor, ..self }
    }

    pub(crate) fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }

    /// Connections that ended on their own terms, and those that a stop cut off.
    pub(crate) fn ended(&self) -> (usize, usize) {
        (self.clean.load(Ordering::SeqCst), self.forced.load(Ordering::SeqCst))
    }

    /// Waits until no connection is left.
    pub(crate) async fn emptied(&self) {
        loop {
            let notified = self.emptied.notified();
            if self.alive() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// Lets every service finish.
    pub(crate) fn drain(&self) {
        self.registry.each(Link::request_drain);
    }

    /// Cuts every connection off, also one that is being accepted at this moment.
    pub(crate) fn force(&self, reason: CloseReason) {
        self.stopping.store(true, Ordering::SeqCst);
        self.registry.each(|link| link.end(reason, None));
    }
}

/// A connection's membership in its run. Whatever ends the connection's task, dropping it closes
/// the descriptor and gives the place back, in this order.
pub(crate) struct Membership {
    pub(crate) link: Arc<Link>,
    pub(crate) run: Arc<Run>,
    /// Whether a stop cut the connection off, as it was when the end was announced.
    was_forced: Option<bool>,
    _place: Place,
}

impl Membership {
    pub(crate) fn new(run: Arc<Run>, link: Link, place: Place) -> Self {
        let link = Arc::new(link);
        run.alive.fetch_add(1, Ordering::SeqCst);
        run.registry.insert(&link);
        #[cfg(feature = "_tls")]
        if run.acceptor.is_some() {
            run.handshakes.begin(&link);
        }
        // Looked at after the insertion, so that no stop misses a connection.
        if run.stopping.load(Ordering::SeqCst) {
            link.end(CloseReason::Stopped, None);
        }
        run.counters.accepted.fetch_add(1, Ordering::Relaxed);
        run.events.emit(&Event::Accepted {
            id: ConnectionId::of(link.number),
            remote_addr: link.remote,
            local_addr: link.local,
        });
        Self { link, run, was_forced: None, _place: place }
    }

    /// Tells everybody who counts that the connection has ended, and how.
    pub(crate) fn announce(&mut self, close: &Close) {
        self.was_forced = Some(self.link.lock().is_forced());
        self.run.counters.closed[close.reason as usize].fetch_add(1, Ordering::Relaxed);
        self.run.events.emit(&Event::Closed {
            id: ConnectionId::of(self.link.number),
            remote_addr: self.link.remote,
            close,
        });
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if self.was_forced.is_none() {
            // The task did not come to its end: its runtime was shut down.
            self.link.end(CloseReason::Stopped, None);
            let close = self.link.close_of(CloseReason::Stopped);
            self.announce(&close);
        }
        self.link.close_socket(Parting::Orderly);
        self.link.detach_driver();
        // A stop that cuts short the wait for the peer's FIN cuts off nothing.
        let forced = self.was_forced == Some(true);
        let run = &self.run;
        run.registry.remove(self.link.number);
        #[cfg(feature = "_tls")]
        run.handshakes.complete(&self.link);
        (if forced { &run.forced } else { &run.clean }).fetch_add(1, Ordering::SeqCst);
        if run.alive.fetch_sub(1, Ordering::SeqCst) == 1 {
            run.emptied.notify_waiters();
        }
    }
}

/// The live connections of a run, in shards so that workers seldom meet.
struct Registry {
    shards: [Mutex<HashMap<u64, Arc<Link>>>; Registry::SHARDS],
}

impl Default for Registry {
    fn default() -> Self {
        Self { shards: std::array::from_fn(|_| Mutex::default()) }
    }
}

impl Registry {
    const SHARDS: usize = 16;

    fn shard(&self, number: u64) -> MutexGuard<'_, HashMap<u64, Arc<Link>>> {
        let shard = &self.shards[(number % Self::SHARDS as u64) as usize];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, link: &Arc<Link>) {
        self.shard(link.number).insert(link.number, Arc::clone(link));
    }

    fn remove(&self, number: u64) {
        let mut shard = self.shard(number);
        shard.remove(&number);
        // After a crowd has left, its memory is given back.
        if shard.len() * 4 < shard.capacity() {
            let keep = shard.len() * 2;
            shard.shrink_to(keep);
        }
    }

    fn each(&self, mut visit: impl FnMut(&Link)) {
        for shard in 0..Self::SHARDS as u64 {
            // Collected first: a visit may wake tasks, which must not happen under the lock.
            let links: Vec<_> = self.shard(shard).values().cloned().collect();
            links.iter().for_each(|link| visit(link));
        }
    }
}

/// The places of `max_connections`, counted exactly.
pub(crate) struct Places {
    limit: usize,
    taken: AtomicUsize,
    freed: Notify,
}

/// One place, given back when dropped.
pub(crate) struct Place {
    places: Arc<Places>,
}

impl Places {
    fn new(limit: usize) -> Self {
        Self { limit, taken: AtomicUsize::new(0), freed: Notify::new() }
    }

    /// Takes a place if one is free.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Place> {
        let one_more = |taken| (taken < self.limit).then_some(taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some(Place { places: Arc::clone(self) })
    }

    /// Waits for a place.
    pub(crate) async fn take(self: &Arc<Self>) -> Place {
        loop {
            let mut freed = std::pin::pin!(self.freed.notified());
            // In line from here on, so that a place freed between the two is not missed.
            freed.as_mut().enable();
            if let Some(place) = self.try_take() {
                return place;
            }
            freed.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::SeqCst);
        self.places.freed.notify_one();
    }
}

/// The connections that are not through with their TLS handshake, in the order in which they were
/// accepted. One whose handshake has failed stays until its socket is closed.
#[cfg(feature = "_tls")]
pub(crate) struct Handshakes {
    limit: usize,
    under_way: Mutex<BTreeMap<u64, Arc<Link>>>,
    began: Notify,
}

#[cfg(feature = "_tls")]
impl Handshakes {
    /// A handshake that is younger holds no place against a caller who waits for one.
    const YOUNG: Duration = Duration::from_secs(1);

    fn new(limit: usize) -> Self {
        Self { limit, under_way: Mutex::default(), began: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Link>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one; where there are too many then, the oldest gives way.
    fn begin(&self, link: &Arc<Link>) {
        let mut under_way = self.lock();
        under_way.insert(link.number, Arc::clone(link));
        let gives_way = under_way.len() > self.limit;
        let oldest = gives_way.then(|| under_way.pop_first()).flatten();
        drop(under_way);
        if let Some((_, oldest)) = oldest {
            give_way(&oldest, "limits.max_handshakes");
        }
        self.began.notify_waiters();
    }

    /// One is complete, or its connection is gone; tells whether it had not given way before.
    pub(crate) fn complete(&self, link: &Link) -> bool {
        self.lock().remove(&link.number).is_some()
    }

    /// Ends the oldest one if it has had its time; tells whether there was one.
    pub(crate) fn end_oldest(&self) -> bool {
        let oldest = {
            let mut under_way = self.lock();
            match under_way.first_entry() {
                Some(oldest) if oldest.get().accepted().elapsed() >= Self::YOUNG => oldest.remove(),
                _ => return false,
            }
        };
        give_way(&oldest, "limits.max_connections");
        true
    }

    /// Waits until the oldest one has had its time.
    pub(crate) async fn oldest_is_due(&self) {
        loop {
            let mut began = std::pin::pin!(self.began.notified());
            // From here on, so that one that begins now is not missed.
            began.as_mut().enable();
            let due = self.lock().first_key_value().map(|(_, link)| link.accepted() + Self::YOUNG);
            match due {
                Some(due) if due <= Instant::now() => return,
                Some(due) => tokio::time::sleep_until(due).await,
                None => began.await,
            }
        }
    }
}

/// Ends a handshake so that a newer one can have what it holds.
// Outside the lock of all handshakes: it wakes the task.
#[cfg(feature = "_tls")]
fn give_way(oldest: &Link, limit: &str) {
    let message = format!("the TLS handshake gave way to a newer one: {limit} is reached");
    oldest.end(CloseReason::HandshakeTimeout, Some(Error::of(ErrorKind::Timeout, message)));
}

/// Enough for any burst that the cores can work off within the time of a handshake.
#[cfg(feature = "_tls")]
fn default_max_handshakes() -> usize {
    256 * std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// What the limit of open files leaves room for, beside what the program itself keeps open.
fn default_max_connections() -> usize {
    use rustix::process::{Resource, getrlimit};
    /// More than any system lets one process open; where there is no limit at all.
    const MOST: u64 = 1 << 20;
    /// Files of the program itself: standard streams, the runtime, the listener, logs, look-ups.
    const OWN: u64 = 32;
    let files = getrlimit(Resource::Nofile).current.unwrap_or(MOST).min(MOST);
    let own = OWN.max(files / 16);
    usize::try_from(files.saturating_sub(own).max(1)).unwrap_or(1)
}

/// What a listener has seen since it was made.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) closed: [AtomicU64; CloseReason::ALL.len()],
}

/// Counts of what a listener has seen since it was made, over all its starts and stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ListenerStats {
    /// Connections accepted.
    pub accepted: u64,
    /// Callers turned away because `max_connections` was reached.
    pub refused: u64,
    /// Connections that are live now.
    pub active: usize,
    closed: [u64; CloseReason::ALL.len()],
}

impl ListenerStats {
    pub(crate) fn of(counters: &Counters, active: usize) -> Self {
        Self {
            accepted: counters.accepted.load(Ordering::Relaxed),
            refused: counters.refused.load(Ordering::Relaxed),
            active,
            closed: std::array::from_fn(|reason| counters.closed[reason].load(Ordering::Relaxed)),
        }
    }

    /// Connections that ended for `reason`.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn places_are_exact_and_come_back() {
        let places = Arc::new(Places::new(2));
        let first = places.take().await;
        let _second = places.take().await;
        assert!(places.try_take().is_none());
        let third = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take().await }
        });
        drop(first);
        let _third = third.await.unwrap();
        assert!(places.try_take().is_none());
    }

    #[test]
    fn reasons_index_their_counters() {
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
    }

    #[test]
    fn some_connections_fit_whatever_the_limit_of_files() {
        assert!(default_max_connections() >= 1);
    }
}
