//! When the messages of an open loop are due, without a clock.

use std::time::Duration;

/// The share of one thread in a fixed schedule: of all messages, one each `1 / rate` seconds, the thread
/// has every `threads`-th.
#[derive(Debug, Clone)]
pub(crate) struct Schedule {
    rate: f64,
    thread: u64,
    threads: u64,
    /// How many of the thread's are due in the warm-up.
    warm: u64,
    /// How many the thread has in all.
    total: u64,
}

impl Schedule {
    /// The share of `thread` (from 0) of `threads`. Messages due before `warmup` are more than `messages`,
    /// which are all that are due from then on.
    pub(crate) fn new(
        rate: f64,
        thread: usize,
        threads: usize,
        warmup: Duration,
        messages: Option<u64>,
    ) -> Self {
        let (thread, threads) = (thread as u64, threads as u64);
        let all = Self { rate, thread: 0, threads: 1, warm: 0, total: u64::MAX };
        let total = match messages {
            Some(messages) => {
                let last = all.due_before(warmup).saturating_add(messages);
                last.saturating_sub(thread).div_ceil(threads)
            }
            None => u64::MAX,
        };
        let schedule = Self { thread, threads, total, ..all };
        Self { warm: schedule.due_before(warmup), ..schedule }
    }

    /// How many of this thread's messages are due in the warm-up.
    pub(crate) fn warm(&self) -> u64 {
        self.warm
    }

    /// When message `number` of this thread's is due, from the beginning.
    pub(crate) fn due(&self, number: u64) -> Duration {
        let number = self.thread.saturating_add(number.saturating_mul(self.threads));
        Duration::try_from_secs_f64(number as f64 / self.rate).unwrap_or(Duration::MAX)
    }

    /// How many of this thread's messages are due once `passed` has passed.
    pub(crate) fn due_by(&self, passed: Duration) -> u64 {
        self.count(passed, |due| due <= passed)
    }

    /// How many of this thread's messages are due before `time`.
    pub(crate) fn due_before(&self, time: Duration) -> u64 {
        self.count(time, |due| due < time)
    }

    fn count(&self, time: Duration, is_in: impl Fn(Duration) -> bool) -> u64 {
        let all = time.as_secs_f64() * self.rate - self.thread as f64;
        // A negative number becomes 0 by the cast.
        let mut count = (all / self.threads as f64) as u64;
        // The number may be off by one, because decimal fractions are not exact.
        while count > 0 && !is_in(self.due(count - 1)) {
            count -= 1;
        }
        while count < self.total && is_in(self.due(count)) {
            count += 1;
        }
        count.min(self.total)
    }

    /// How many messages this thread has in all.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn schedule(rate: f64, thread: usize, threads: usize, messages: Option<u64>) -> Schedule {
        Schedule::new(rate, thread, threads, Duration::ZERO, messages)
    }

    #[test]
    fn messages_are_due_at_equal_distances_from_the_beginning() {
        let schedule = schedule(1000.0, 0, 1, None);
        assert_eq!(schedule.due(0), Duration::ZERO);
        assert_eq!(schedule.due(2500), Duration::from_millis(2500));
        assert_eq!(schedule.due_by(Duration::ZERO), 1);
        assert_eq!(schedule.due_by(SECOND), 1001);
        assert_eq!(schedule.due_before(SECOND), 1000);
    }

    #[test]
    fn what_is_due_by_a_time_agrees_with_when_it_is_due() {
        for rate in [0.3, 7.0, 1000.0 / 3.0, 99_999.9] {
            for thread in 0..3 {
                let schedule = schedule(rate, thread, 3, None);
                for step in 0..500 {
                    let passed = Duration::from_nanos(step * 7_654_321);
                    let count = schedule.due_by(passed);
                    assert!(schedule.due(count) > passed, "{rate} {passed:?}");
                    assert!(count == 0 || schedule.due(count - 1) <= passed, "{rate} {passed:?}");
                }
            }
        }
    }

    #[test]
    fn threads_share_the_schedule_without_gap_or_overlap() {
        let mut dues: Vec<_> = (0..3)
            .flat_map(|thread| {
                let schedule = schedule(10.0, thread, 3, None);
                (0..schedule.due_before(SECOND)).map(move |number| schedule.due(number))
            })
            .collect();
        dues.sort();
        let whole = schedule(10.0, 0, 1, None);
        assert_eq!(dues, (0..10).map(|number| whole.due(number)).collect::<Vec<_>>());
    }

    #[test]
    fn a_number_of_messages_is_counted_from_the_end_of_the_warmup_on() {
        let shares = |messages| {
            (0..3).map(move |thread| Schedule::new(10.0, thread, 3, SECOND, Some(messages)).total())
        };
        assert_eq!(shares(7).sum::<u64>(), 10 + 7);
        assert_eq!(shares(7).collect::<Vec<_>>(), [6, 6, 5]);
        let warm = |thread| Schedule::new(10.0, thread, 3, SECOND, None).warm();
        assert_eq!([warm(0), warm(1), warm(2)], [4, 3, 3]);
        let one = Schedule::new(10.0, 0, 1, Duration::ZERO, Some(7));
        assert_eq!(one.due_by(100 * SECOND), 7);
    }

    #[test]
    fn a_schedule_without_end_does_not_overflow() {
        let schedule = schedule(0.001, 3, 4, None);
        assert_eq!(schedule.due(u64::MAX), Duration::MAX);
        assert_eq!(schedule.due_by(SECOND), 0);
    }
}
