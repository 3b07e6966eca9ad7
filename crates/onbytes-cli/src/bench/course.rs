//! The course of a run: connecting, running, ending, over; what all threads go by.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use onbytes::{Client, TlsInfo};
use tokio::sync::watch;

use super::tally::Window;

/// Where a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Connections are made, nothing is sent.
    Connecting,
    /// Messages go out, those of the warm-up first.
    Running,
    /// Nothing more is begun; what is under way is waited for.
    Ending,
    /// Nothing is waited for.
    Over,
}

/// What all threads go by.
pub(crate) struct Course {
    stage: watch::Sender<Stage>,
    /// The same as a stage of `Ending`, for those who look at it with every message.
    is_ending: AtomicBool,
    /// When the first message goes out, and when messages count.
    times: OnceLock<(Instant, Window)>,
    /// Messages that may still be begun, where there is a bound.
    left: Option<AtomicU64>,
    server: OnceLock<Server>,
    /// How many connections were begun.
    numbers: AtomicU64,
}

/// Who answered first.
#[derive(Debug, Clone)]
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    pub(crate) tls: Option<TlsInfo>,
}

impl Server {
    pub(crate) fn of(client: &Client) -> Self {
        Self { addr: client.remote_addr(), tls: client.tls().cloned() }
    }
}

impl Course {
    pub(crate) fn new(messages: Option<u64>) -> Self {
        Self {
            stage: watch::Sender::new(Stage::Connecting),
            is_ending: AtomicBool::new(false),
            times: OnceLock::new(),
            left: messages.map(AtomicU64::new),
            server: OnceLock::new(),
            numbers: AtomicU64::new(0),
        }
    }

    /// The number of a new connection.
    pub(crate) fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn found(&self, server: Server) {
        let _ = self.server.set(server);
    }

    pub(crate) fn server(&self) -> Option<&Server> {
        self.server.get()
    }

    /// Has messages go out from `start` on; they count after the warm-up, for `duration`.
    pub(crate) fn set_times(&self, start: Instant, warmup: Duration, duration: Option<Duration>) {
        let from = start + warmup;
        let until = duration.and_then(|duration| from.checked_add(duration));
        let _ = self.times.set((start, Window { from, until }));
    }

    /// Enters a later stage.
    pub(crate) fn enter(&self, stage: Stage) {
        self.is_ending.fetch_or(stage >= Stage::Ending, Ordering::Relaxed);
        self.stage.send_modify(|current| *current = stage.max(*current));
    }

    /// Waits until `stage` is reached.
    pub(crate) async fn reached(&self, stage: Stage) {
        // The sender is here, so there is no failure.
        let _ = self.stage.subscribe().wait_for(|current| *current >= stage).await;
    }

    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending.load(Ordering::Relaxed)
    }

    /// When the first message goes out, once that is known.
    pub(crate) fn started(&self) -> Option<Instant> {
        self.times.get().map(|(start, _)| *start)
    }

    /// When messages count, once that is known.
    pub(crate) fn window(&self) -> Option<Window> {
        self.times.get().map(|(_, window)| *window)
    }

    /// How many messages may be begun at `now`, at most `room`; they are then taken for begun.
    pub(crate) fn claim(&self, room: usize, now: Instant) -> usize {
        let Some(window) = self.window().filter(|_| !self.is_ending()) else { return 0 };
        if window.until.is_some_and(|until| now >= until) {
            return 0;
        }
        let Some(left) = self.left.as_ref().filter(|_| now >= window.from) else { return room };
        let take = |left: u64| Some(left.saturating_sub(room as u64));
        match left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take) {
            Ok(before) => usize::try_from(before).unwrap_or(usize::MAX).min(room),
            Err(_) => 0,
        }
    }

    /// Whether nothing more may be begun.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        let is_late = |window: Window| window.until.is_some_and(|until| now >= until);
        let is_done = self.left.as_ref().is_some_and(|left| left.load(Ordering::Relaxed) == 0);
        self.is_ending() || is_done || self.window().is_some_and(is_late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn messages_of_the_warmup_are_more_than_those_that_are_asked_for() {
        let course = Course::new(Some(5));
        let start = Instant::now();
        assert_eq!(course.claim(4, start), 0);
        course.set_times(start, SECOND, None);
        assert_eq!(course.claim(4, start), 4);
        assert_eq!(course.claim(4, start + SECOND), 4);
        assert_eq!(course.claim(4, start + SECOND), 1);
        assert_eq!(course.claim(4, start + SECOND), 0);
        assert!(course.is_over(start));
    }

    #[test]
    fn nothing_is_begun_after_the_time_or_at_the_end() {
        let course = Course::new(None);
        let start = Instant::now();
        course.set_times(start, Duration::ZERO, Some(SECOND));
        assert_eq!(course.claim(4, start), 4);
        assert_eq!(course.claim(4, start + SECOND), 0);
        assert!(course.is_over(start + SECOND) && !course.is_over(start));
        course.enter(Stage::Over);
        course.enter(Stage::Ending);
        assert_eq!(course.claim(4, start), 0);
        assert!(course.is_over(start) && *course.stage.borrow() == Stage::Over);
    }
}
