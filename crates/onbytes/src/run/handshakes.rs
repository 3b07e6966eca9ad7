//! The TLS handshakes under way, and which of them gives way to a newer one.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::close::CloseReason;
use crate::link::Link;
use crate::{Error, ErrorKind};

/// The connections that are not through with their TLS handshake, in the order in which they were
/// accepted. One whose handshake has failed stays until its socket is closed.
pub(crate) struct Handshakes {
    limit: AtomicUsize,
    under_way: Mutex<BTreeMap<u64, Arc<Link>>>,
    began: Notify,
}

impl Handshakes {
    /// A handshake that is younger holds no place against a caller who waits for one.
    const YOUNG: Duration = Duration::from_secs(1);

    pub(super) fn new(limit: usize) -> Self {
        Self { limit: AtomicUsize::new(limit), under_way: Mutex::default(), began: Notify::new() }
    }

    /// Changes how many there may be. Those under way are not concerned, until one more begins.
    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Link>>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins one; where there are too many then, the oldest give way.
    pub(super) fn begin(&self, link: &Arc<Link>) {
        self.lock().insert(link.number, Arc::clone(link));
        while let Some(oldest) = self.take_excess() {
            give_way(&oldest, "limits.max_handshakes");
        }
        self.began.notify_waiters();
    }

    /// The oldest one, where there are too many.
    fn take_excess(&self) -> Option<Arc<Link>> {
        let mut under_way = self.lock();
        let are_too_many = under_way.len() > self.limit.load(Ordering::Relaxed);
        are_too_many.then(|| under_way.pop_first()).flatten().map(|(_, oldest)| oldest)
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

    /// Whether the oldest one has had its time.
    pub(crate) fn has_due(&self) -> bool {
        let under_way = self.lock();
        under_way
            .first_key_value()
            .is_some_and(|(_, link)| link.accepted().elapsed() >= Self::YOUNG)
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
fn give_way(oldest: &Link, limit: &str) {
    let message = format!("the TLS handshake gave way to a newer one: {limit} is reached");
    oldest.end(CloseReason::HandshakeTimeout, Some(Error::of(ErrorKind::Timeout, message)));
}

/// Enough for any burst that the cores can work off within the time of a handshake.
pub(super) fn default_max_handshakes() -> usize {
    256 * std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}
