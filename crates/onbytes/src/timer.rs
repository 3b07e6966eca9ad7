//! One timer for all deadlines of a connection, which exists only while one is set.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use crate::socket::coarse_time;

/// A deadline that may move often and passes seldom.
///
/// A deadline that moves later is not re-armed: the timer fires at the old time, sees that it is
/// early, and sets itself again. So traffic on a connection with an idle timeout re-arms nothing.
#[derive(Default)]
pub(crate) struct Timer {
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    /// Has `deadline` passed? If not, the task is woken when it has.
    pub(crate) fn poll_passed(&mut self, cx: &mut Context<'_>, deadline: Option<Instant>) -> bool {
        let Some(deadline) = deadline else {
            self.disarm();
            return false;
        };
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            sleep.as_mut().reset(deadline);
        }
        // Without asking the task's budget: where that is used up a timer is not even set, and answers as one
        // that is. Nobody is kept from their turn by a look at a clock.
        while let Poll::Ready(()) = Pin::new(&mut unconstrained(sleep.as_mut())).poll(cx) {
            if Instant::now() >= deadline {
                self.sleep = None;
                return true;
            }
            sleep.as_mut().reset(deadline);
        }
        false
    }

    /// The same for a deadline that is always asked for by one task: a timer that is set is not told again
    /// whom to wake.
    pub(crate) fn poll_passed_in_task(
        &mut self,
        cx: &mut Context<'_>,
        deadline: Option<Instant>,
    ) -> bool {
        match (&self.sleep, deadline) {
            (Some(sleep), Some(deadline))
                if sleep.deadline() <= deadline && !sleep.is_elapsed() =>
            {
                false
            }
            _ => self.poll_passed(cx, deadline),
        }
    }

    /// Has so much time passed since this was asked first, or since the timer was disarmed? The clock is
    /// asked by nobody who does not come here.
    pub(crate) fn poll_elapsed(&mut self, cx: &mut Context<'_>, limit: Duration) -> bool {
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(limit)));
        sleep.as_mut().poll(cx).is_ready()
    }

    /// There is no deadline any more.
    #[inline]
    pub(crate) fn disarm(&mut self) {
        if self.sleep.is_some() {
            self.sleep = None;
        }
    }
}

/// A point in time to a tenth of a second, which costs next to nothing to take and to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ticks(u32);

impl Ticks {
    pub(crate) fn now() -> Self {
        let now = coarse_time();
        let tenths = now.as_secs() * 10 + u64::from(now.subsec_millis() / 100);
        // After thirteen years of one machine time stands still here.
        Self(u32::try_from(tenths).unwrap_or(u32::MAX))
    }

    pub(crate) fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(100) * self.0.saturating_sub(earlier.0)
    }
}

/// The point in time `after` a given one; `None` (never) where it lies beyond what clocks count.
pub(crate) fn later(from: Instant, after: Option<Duration>) -> Option<Instant> {
    from.checked_add(after?)
}
