//! The places of `max_connections`, counted exactly.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// The places of `max_connections`.
pub(crate) struct Places {
    limit: AtomicUsize,
    taken: AtomicUsize,
    freed: Notify,
}

/// One place, given back when dropped.
pub(crate) struct Place {
    /// `None` once it is given back otherwise.
    places: Option<Arc<Places>>,
}

impl Places {
    /// A place that is free is told to the first in line, which may be one that a callback holds up, with its
    /// thread. So the others look for themselves after such a time.
    const LOOK_AGAIN: Duration = Duration::from_millis(250);

    pub(super) fn new(limit: usize) -> Self {
        Self { limit: AtomicUsize::new(limit), taken: AtomicUsize::new(0), freed: Notify::new() }
    }

    /// Changes how many there are. Those that are taken stay taken, also where they are more.
    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::SeqCst);
        // Whoever waits looks again.
        self.freed.notify_waiters();
    }

    /// Takes a place if one is free.
    pub(crate) fn try_take(self: &Arc<Self>) -> Option<Place> {
        let one_more = |taken| (taken < self.limit.load(Ordering::SeqCst)).then_some(taken + 1);
        self.taken.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
        Some(Place { places: Some(Arc::clone(self)) })
    }

    /// A place that was [kept](Place::keep) is free again.
    pub(super) fn give_back(&self) {
        self.taken.fetch_sub(1, Ordering::SeqCst);
        self.freed.notify_one();
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
            let _ = timeout(Self::LOOK_AGAIN, freed).await;
        }
    }
}

impl Place {
    /// The place stays taken, without this value; whoever keeps it owes [`Places::give_back`].
    pub(super) fn keep(mut self) {
        self.places = None;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(places) = &self.places {
            places.give_back();
        }
    }
}

/// What the limit of open files leaves room for, beside what the program itself keeps open.
pub(crate) fn default_max_connections() -> usize {
    use rustix::process::{Resource, getrlimit};
    /// More than any system lets one process open; where there is no limit at all.
    const MOST: u64 = 1 << 20;
    /// Files of the program itself: standard streams, the runtime, the listener, logs, look-ups.
    const OWN: u64 = 32;
    let files = getrlimit(Resource::Nofile).current.unwrap_or(MOST).min(MOST);
    let own = OWN.max(files / 16);
    usize::try_from(files.saturating_sub(own).max(1)).unwrap_or(1)
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

    #[tokio::test(start_paused = true)]
    async fn a_place_is_found_though_the_first_in_line_is_held_up() {
        let places = Arc::new(Places::new(1));
        let only = places.take().await;
        let mut held_up = std::pin::pin!(places.take());
        // In line, and never asked again.
        assert!(asked_once(held_up.as_mut()).await.is_none());
        let next = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take().await }
        });
        tokio::task::yield_now().await;
        drop(only);
        let _place = timeout(Duration::from_secs(20), next).await.unwrap().unwrap();
    }

    /// What a future has if it is asked once.
    async fn asked_once<T>(mut future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
        std::future::poll_fn(|cx| match future.as_mut().poll(cx) {
            std::task::Poll::Ready(value) => std::task::Poll::Ready(Some(value)),
            std::task::Poll::Pending => std::task::Poll::Ready(None),
        })
        .await
    }

    #[tokio::test]
    async fn a_raised_limit_is_seen_by_who_waits_and_a_lowered_one_takes_nothing_away() {
        let places = Arc::new(Places::new(1));
        let first = places.take().await;
        let waiting = tokio::spawn({
            let places = Arc::clone(&places);
            async move { places.take().await }
        });
        tokio::task::yield_now().await;
        places.set_limit(2);
        let second = waiting.await.unwrap();
        assert!(places.try_take().is_none());
        places.set_limit(1);
        drop(first);
        assert!(places.try_take().is_none());
        drop(second);
        assert!(places.try_take().is_some());
    }

    #[test]
    fn some_connections_fit_whatever_the_limit_of_files() {
        assert!(default_max_connections() >= 1);
    }
}
