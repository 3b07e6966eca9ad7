//! The pace of an open loop: messages become due by the clock, and whoever is free takes them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::sync::Notify;

use super::alarm::Alarm;
use super::schedule::Schedule;

/// What the connections of one thread share.
pub(crate) struct Pace {
    schedule: Schedule,
    state: Mutex<State>,
    /// Somebody has begun to wait.
    arrival: Notify,
}

struct State {
    /// Where the schedule begins, once it has begun.
    start: Option<Instant>,
    /// How many messages have been taken.
    taken: u64,
    has_ended: bool,
    /// The most that were due and not taken.
    longest_queue: u64,
    /// Who has waited for a message, in the order in which they came, each once.
    line: VecDeque<usize>,
    places: Vec<Place>,
}

/// A connection's place in the line.
#[derive(Default)]
struct Place {
    is_in_line: bool,
    /// Whom to wake; nobody where the connection does not wait any more.
    waker: Option<Waker>,
}

impl Pace {
    /// For so many connections.
    pub(crate) fn new(schedule: Schedule, connections: usize) -> Self {
        let state = State {
            start: None,
            taken: 0,
            has_ended: false,
            longest_queue: 0,
            line: VecDeque::with_capacity(connections),
            places: (0..connections).map(|_| Place::default()).collect(),
        };
        Self { schedule, state: Mutex::new(state), arrival: Notify::new() }
    }

    /// Lets messages become due from `start` on, and wakes those who wait for them, until it is over.
    pub(crate) async fn run(&self, start: Instant) -> std::io::Result<()> {
        let alarm = Alarm::new()?;
        self.lock().start = Some(start);
        loop {
            let due = self.due(Instant::now());
            self.wake(due);
            if due >= self.schedule.total() {
                return Ok(());
            }
            if self.lock().line.is_empty() {
                // Who is free sees by the clock what is due, so there is no need of an alarm.
                self.arrival.notified().await;
                continue;
            }
            let Some(next) = start.checked_add(self.schedule.due(due)) else {
                // It will never be.
                return std::future::pending().await;
            };
            alarm.wait_until(next).await?;
        }
    }

    fn due(&self, now: Instant) -> u64 {
        let start = self.lock().start;
        start.map_or(0, |start| self.schedule.due_by(now.saturating_duration_since(start)))
    }

    /// Wakes as many as there are messages for.
    fn wake(&self, due: u64) {
        let mut state = self.lock();
        let mut waiting = state.waiting(due, self.schedule.warm());
        while waiting > 0 {
            let Some(slot) = state.line.pop_front() else { return };
            let place = &mut state.places[slot];
            place.is_in_line = false;
            if let Some(waker) = place.waker.take() {
                waker.wake();
                waiting -= 1;
            }
        }
    }

    /// Takes messages that are due for the connection `slot`, at most `room`, and gives `begun` the times
    /// at which they were.
    pub(crate) fn take(
        &self,
        slot: usize,
        room: usize,
        now: Instant,
        begun: &mut VecDeque<Instant>,
    ) -> usize {
        let due = self.due(now);
        let mut state = self.lock();
        state.places[slot].waker = None;
        let Some(start) = state.start.filter(|_| !state.has_ended) else { return 0 };
        let waiting = state.waiting(due, self.schedule.warm());
        let count = waiting.min(room as u64);
        for number in state.taken..state.taken + count {
            begun.push_back(start + self.schedule.due(number));
        }
        state.taken += count;
        if state.taken >= self.schedule.total() {
            // Nothing more will come for those who wait.
            state.wake_everybody();
        }
        // No more than `room`.
        count as usize
    }

    /// Waits until there may be something to take for the connection `slot`, or nothing more will come.
    pub(crate) async fn wait(&self, slot: usize) {
        poll_fn(|cx| self.poll_wait(slot, cx)).await;
    }

    fn poll_wait(&self, slot: usize, cx: &mut Context<'_>) -> Poll<()> {
        let due = self.due(Instant::now());
        let mut state = self.lock();
        if state.has_ended || state.taken < due || state.taken >= self.schedule.total() {
            return Poll::Ready(());
        }
        let place = &mut state.places[slot];
        place.waker = Some(cx.waker().clone());
        if !std::mem::replace(&mut place.is_in_line, true) {
            state.line.push_back(slot);
            self.arrival.notify_one();
        }
        Poll::Pending
    }

    /// The connection `slot` does not wait any more. If it was woken for a message, another gets it.
    pub(crate) fn leave(&self, slot: usize) {
        self.lock().places[slot].waker = None;
        self.wake(self.due(Instant::now()));
    }

    /// Whether nothing more will come.
    pub(crate) fn is_over(&self) -> bool {
        let state = self.lock();
        state.has_ended || state.taken >= self.schedule.total()
    }

    /// Ends it: what is due and not taken stays unsent.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.has_ended = true;
        state.wake_everybody();
    }

    /// How many were due before `until` and were not taken, without those of the warm-up; and the most that
    /// waited at a time.
    pub(crate) fn unsent(&self, until: Instant) -> (u64, u64) {
        let state = self.lock();
        let passed = state.start.map(|start| until.saturating_duration_since(start));
        let due = passed.map_or(0, |passed| self.schedule.due_before(passed));
        let done = state.taken.max(self.schedule.warm());
        (due.saturating_sub(done), state.longest_queue)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// How many of the `due` messages wait. Once there are others, those of the warm-up are let go: a queue
    /// that has grown before does not count.
    fn waiting(&mut self, due: u64, warm: u64) -> u64 {
        if due <= warm {
            return due.saturating_sub(self.taken);
        }
        self.taken = self.taken.max(warm);
        let waiting = due.saturating_sub(self.taken);
        self.longest_queue = self.longest_queue.max(waiting);
        waiting
    }

    fn wake_everybody(&mut self) {
        self.places.iter_mut().filter_map(|place| place.waker.take()).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pace(rate: f64, messages: Option<u64>, start: Instant) -> Pace {
        warmed(rate, Duration::ZERO, messages, start)
    }

    fn warmed(rate: f64, warmup: Duration, messages: Option<u64>, start: Instant) -> Pace {
        let schedule = Schedule::new(rate, 0, 1, warmup, messages);
        let pace = Pace::new(schedule, 2);
        pace.lock().start = Some(start);
        pace
    }

    #[test]
    fn what_was_not_taken_in_time_is_taken_later_with_the_time_at_which_it_was_due() {
        let start = Instant::now();
        let pace = pace(10.0, None, start);
        let at = |millis| start + Duration::from_millis(millis);
        let mut begun = VecDeque::new();
        assert_eq!(pace.take(0, 8, at(0), &mut begun), 1);
        assert_eq!(pace.take(0, 8, at(99), &mut begun), 0);
        assert_eq!(pace.take(0, 2, at(350), &mut begun), 2);
        assert_eq!(pace.take(0, 2, at(350), &mut begun), 1);
        assert_eq!(begun, [at(0), at(100), at(200), at(300)]);
        assert_eq!(pace.unsent(at(500)), (1, 3));
    }

    #[test]
    fn what_was_not_taken_in_the_warmup_is_let_go() {
        let start = Instant::now();
        let pace = warmed(10.0, Duration::from_millis(500), None, start);
        let at = |millis| start + Duration::from_millis(millis);
        let mut begun = VecDeque::new();
        assert_eq!(pace.take(0, 2, at(450), &mut begun), 2);
        assert_eq!(pace.unsent(at(450)), (0, 0));
        assert_eq!(pace.take(0, 8, at(650), &mut begun), 2);
        assert_eq!(begun, [at(0), at(100), at(500), at(600)]);
        assert_eq!(pace.unsent(at(800)), (1, 2));
    }

    #[test]
    fn who_waits_is_woken_once_there_is_a_message_or_the_end() {
        let later = Instant::now() + Duration::from_secs(100);
        let pace = pace(1.0, None, later);
        let mut cx = Context::from_waker(Waker::noop());
        pace.lock().taken = 1;
        assert!(pace.poll_wait(0, &mut cx).is_pending());
        assert!(pace.poll_wait(1, &mut cx).is_pending());
        assert!(pace.poll_wait(1, &mut cx).is_pending());
        assert_eq!(pace.lock().line, [0, 1]);
        pace.leave(0);
        pace.wake(2);
        assert!(pace.lock().line.is_empty());
        assert!(pace.lock().places.iter().all(|place| place.waker.is_none()));
        assert!(pace.poll_wait(1, &mut cx).is_pending());
        pace.end();
        assert!(pace.poll_wait(1, &mut cx).is_ready() && pace.is_over());
        assert_eq!(pace.take(0, 1, later + Duration::from_secs(5), &mut VecDeque::new()), 0);
    }

    #[test]
    fn a_number_of_messages_ends_it() {
        let start = Instant::now();
        let pace = pace(1000.0, Some(3), start);
        assert!(!pace.is_over());
        let end = start + Duration::from_secs(1);
        pace.lock().places[1].waker = Some(Waker::noop().clone());
        assert_eq!(pace.take(0, 8, end, &mut VecDeque::new()), 3);
        assert!(pace.is_over() && pace.lock().places[1].waker.is_none());
        assert_eq!(pace.unsent(end).0, 0);
    }
}
