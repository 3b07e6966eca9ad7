//! How much of a core a thread uses, and for how much longer it would have liked one.

use std::fs;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// From this share of the time on a thread had none left.
const FULL: f64 = 0.95;

/// What a thread has used in some time.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// The time that it had a core.
    pub(crate) busy: Duration,
    /// The time that it could have used a core, and others had them all. Nothing where the system does
    /// not tell.
    pub(crate) waiting: Duration,
    pub(crate) elapsed: Duration,
}

impl Usage {
    /// The share of one core, from 0 to 1.
    pub(crate) fn share(self) -> f64 {
        self.share_of(self.busy)
    }

    /// The share of the time in which it waited for a core, from 0 to 1.
    pub(crate) fn waiting_share(self) -> f64 {
        self.share_of(self.waiting)
    }

    /// Whether it had no time left, so that more work would have waited.
    pub(crate) fn is_full(self) -> bool {
        self.share() + self.waiting_share() >= FULL
    }

    fn share_of(self, time: Duration) -> f64 {
        match self.elapsed.is_zero() {
            true => 0.0,
            false => time.as_secs_f64() / self.elapsed.as_secs_f64(),
        }
    }
}

/// The beginning of a time in which this thread is watched.
pub(crate) struct Meter {
    busy: Duration,
    waiting: Duration,
    start: Instant,
}

impl Meter {
    pub(crate) fn start() -> Self {
        Self { busy: busy(), waiting: waiting(), start: Instant::now() }
    }

    /// What this thread has used since the start.
    pub(crate) fn read(&self) -> Usage {
        Usage {
            busy: busy().saturating_sub(self.busy),
            waiting: waiting().saturating_sub(self.waiting),
            elapsed: self.start.elapsed(),
        }
    }
}

/// The time that this thread has had of a core.
fn busy() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}

/// The time that this thread has waited for a core: Linux tells it as the second number of this file.
fn waiting() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().nth(1).and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_and_waits_for_a_core_are_measured_and_sleep_is_not() {
        let meter = Meter::start();
        while busy() < meter.busy + Duration::from_millis(20) {}
        let usage = meter.read();
        assert!(usage.busy >= Duration::from_millis(20) && usage.share() > 0.0, "{usage:?}");
        let meter = Meter::start();
        std::thread::sleep(Duration::from_millis(50));
        let usage = meter.read();
        assert!(usage.busy < Duration::from_millis(50) && !usage.is_full(), "{usage:?}");
    }

    #[test]
    fn a_thread_that_waits_for_a_core_has_no_time_left_either() {
        let of = |busy, waiting| Usage {
            busy: Duration::from_millis(busy),
            waiting: Duration::from_millis(waiting),
            elapsed: Duration::from_secs(1),
        };
        assert!(of(970, 0).is_full() && of(500, 480).is_full());
        assert!(!of(500, 400).is_full() && !Usage::default().is_full());
    }
}
