//! What happens when connections hold too much together: a step at a time, and back again.

use std::cell::Cell;
use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use tokio::sync::watch;

use super::Run;
use crate::event::Event;
use crate::ledger::Relief;
use crate::link::{Link, Vitals};
use crate::timer::Ticks;
use crate::{Error, ErrorKind, Limits};

/// How short memory is, and so what the listener does about it; each does what those before it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Pressure {
    /// Less than 70 % of `limits.max_memory` is taken.
    #[default]
    None,
    /// From 70 % on: queues have a quarter of their room, so that writers wait and reading stops
    /// sooner, and are copied out of read buffers that they keep alive. It lasts for a second at
    /// least.
    Shrink,
    /// From 80 % on: connections on which nothing has moved for a second or longer end for reason
    /// `limit`, until 75 % are taken: first those whose peers do not read or do not go on with their
    /// TLS handshake, those that hold most before others, then those that are idle, the longest
    /// before others. One whose callback runs, and has nothing queued, stays; and idle ones stay where
    /// they hold too little to matter.
    CloseIdle,
    /// From 90 % on: nobody is accepted. Callers wait, or are refused where `limits.when_full` says
    /// so. When that lasts for two seconds, the connections that hold most end for reason `limit`, of
    /// those that hold as much the newest first, until 75 % are taken; at 100 % at once, until 95 %
    /// are.
    StopAccepting,
}

impl Pressure {
    const ALL: [Self; 4] = [Self::None, Self::Shrink, Self::CloseIdle, Self::StopAccepting];
    /// So much less has to be taken, in hundredths, before a level is left, so that it does not
    /// come and go with every connection.
    const SLACK: u64 = 10;

    /// The level as one word, the same in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Shrink => "shrink",
            Self::CloseIdle => "close_idle",
            Self::StopAccepting => "stop_accepting",
        }
    }

    /// What the listener does, in a few words.
    pub(crate) fn action(self) -> &'static str {
        match self {
            Self::None => "nothing",
            Self::Shrink => "queues have less room",
            Self::CloseIdle => "stuck and idle connections are ended",
            Self::StopAccepting => "nobody is accepted",
        }
    }

    /// Whether callers are accepted.
    pub(crate) fn is_accepting(self) -> bool {
        self < Self::StopAccepting
    }

    /// Where the level begins, in hundredths of the ceiling.
    fn mark(self) -> u64 {
        match self {
            Self::None => 0,
            Self::Shrink => 70,
            Self::CloseIdle => 80,
            Self::StopAccepting => 90,
        }
    }

    /// The level that follows `self` when so much is held.
    fn next(self, held: u64, ceiling: u64) -> Self {
        let is_on = |level: &Self| {
            let slack = if *level <= self { Self::SLACK } else { 0 };
            held >= share(ceiling, level.mark().saturating_sub(slack))
        };
        Self::ALL.into_iter().rev().find(is_on).unwrap_or(Self::None)
    }
}

impl fmt::Display for Pressure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// So many hundredths of `whole`.
fn share(whole: u64, hundredths: u64) -> u64 {
    whole / 100 * hundredths + whole % 100 * hundredths / 100
}

/// How short memory is now, and who is told.
pub(crate) struct Overload {
    /// Held by whoever does something about it.
    state: Mutex<State>,
    known: watch::Sender<Pressure>,
    /// Whether to look again though nothing has changed.
    is_watched: watch::Sender<bool>,
    /// The ceiling where none is configured.
    default_ceiling: u64,
}

#[derive(Default)]
struct State {
    pressure: Pressure,
    /// Since when nobody is accepted.
    closed_since: Option<Ticks>,
    /// Since when queues have less room.
    short_since: Option<Ticks>,
    /// How far peers had moved that are looked at, and since when they have not moved further.
    moved: HashMap<u64, (u64, Ticks)>,
}

impl Overload {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            known: watch::Sender::default(),
            is_watched: watch::Sender::default(),
            default_ceiling: crate::memory::available().map_or(u64::MAX, |bytes| bytes / 2),
        }
    }

    /// The pressure, and every change of it.
    pub(crate) fn known(&self) -> watch::Receiver<Pressure> {
        self.known.subscribe()
    }

    pub(crate) fn pressure(&self) -> Pressure {
        *self.known.borrow()
    }

    fn ceiling(&self, limits: &Limits) -> u64 {
        limits.max_memory.map_or(self.default_ceiling, |bytes| bytes as u64)
    }

    /// `None` where somebody else is at it.
    fn try_lock(&self) -> Option<MutexGuard<'_, State>> {
        match self.state.try_lock() {
            Ok(state) => Some(state),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A connection that may have to go.
struct Candidate {
    link: Arc<Link>,
    vitals: Vitals,
    /// The memory that goes with it; of what several queues hold, its share.
    weight: u64,
    /// Since when its peer has not moved, as far as is known.
    rests_since: Option<Ticks>,
}

/// All connections, looked at for what they hold.
#[derive(Default)]
struct Census {
    candidates: Vec<Candidate>,
    /// What those hold that go by themselves.
    leaving: u64,
    /// What was counted once too often, because several queues hold the same message.
    repeated: u64,
}

impl Relief for Run {
    fn relieve(&self) {
        let mut before = None;
        while self.ledger.is_pressed() {
            let now = (self.ledger.queued(), self.ledger.held());
            let Some(state) = self.turn_to_relieve() else { return };
            if before.replace(now) == Some(now) {
                // Nothing more can be done now; the watch looks again.
                return;
            }
            self.put_right(state);
        }
    }
}

thread_local! {
    /// Whether this thread is putting something right: what it ends on the way calls for relief, too.
    static IS_AT_IT: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as putting something right, for as long as this lives: through a panic, too.
struct AtIt {
    was_at_it: bool,
}

impl AtIt {
    fn begin() -> Self {
        Self { was_at_it: IS_AT_IT.replace(true) }
    }
}

impl Drop for AtIt {
    fn drop(&mut self) {
        IS_AT_IT.set(self.was_at_it);
    }
}

impl Run {
    /// The turn to put things right; `None` where somebody else is at it, who looks again when it is done.
    ///
    /// While bounds are overstepped whoever comes waits for it, for a moment: else the threads that serve
    /// would add more than the one that relieves can take away.
    fn turn_to_relieve(&self) -> Option<MutexGuard<'_, State>> {
        const PATIENCE: u32 = 200;
        if IS_AT_IT.get() {
            return None;
        }
        for _ in 0..PATIENCE {
            let state = self.overload.try_lock();
            if state.is_some() || !self.ledger.is_beyond_bounds() {
                return state;
            }
            // Not for ever: whoever is at it may wait, in some way, for what this thread holds.
            std::thread::sleep(Duration::from_micros(500));
        }
        None
    }

    /// New limits: looks at everything anew.
    pub(super) fn reconsider_pressure(&self) {
        self.put_right(self.overload.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.relieve();
    }

    /// Looks again now and then while there is a reason to, though nothing may move any more: with
    /// time there are connections that have been idle for long enough, and what several queues held
    /// may be held by one.
    pub(crate) async fn keep_watch(run: Weak<Self>, mut is_watched: watch::Receiver<bool>) {
        const INTERVAL: Duration = Duration::from_millis(500);
        while is_watched.wait_for(|is_watched| *is_watched).await.is_ok() {
            tokio::time::sleep(INTERVAL).await;
            let Some(run) = run.upgrade() else { return };
            if let Some(state) = run.overload.try_lock() {
                run.put_right(state);
                run.relieve();
            }
        }
    }

    pub(crate) fn is_watched(&self) -> watch::Receiver<bool> {
        self.overload.is_watched.subscribe()
    }

    /// Brings queues and memory within their bounds, as far as connections can be ended for it now.
    fn put_right(&self, mut state: MutexGuard<'_, State>) {
        let at_it = AtIt::begin();
        let limits = self.settings.get().limits.clone();
        let ceiling = self.overload.ceiling(&limits);
        self.ledger.set_most_queued(limits.max_queued_bytes_total);
        if let Some(most) = limits.max_queued_bytes_total
            && self.ledger.has_too_much_queued()
        {
            self.relieve_queues(&mut state, most as u64);
        }
        let before = state.pressure;
        let memory = self.relieve_memory(&mut state, ceiling, &limits);
        let pressure = state.pressure;
        drop(state);
        drop(at_it);
        // Outside the lock: it wakes tasks, and whoever hears of it may ask or change the listener.
        if pressure < Pressure::Shrink && before >= Pressure::Shrink {
            self.registry.each(|link| link.reconsider());
        }
        if pressure != before {
            self.events.emit(&Event::Overload { pressure, before, memory, ceiling });
        }
    }

    /// Ends the connections with the largest queues until all queues together are within the limit,
    /// with a little to spare: each look goes through all connections.
    fn relieve_queues(&self, state: &mut State, most: u64) {
        let mut census = self.take_census(state);
        census.candidates.sort_by_key(|candidate| Reverse(candidate.vitals.queued));
        for Candidate { vitals, link, .. } in &census.candidates {
            if vitals.queued == 0 || self.ledger.queued() <= share(most, 95) {
                break;
            }
            link.cut_off(Error::of(
                ErrorKind::Limit,
                "limits.max_queued_bytes_total is reached, and this queue was the largest",
            ));
        }
    }

    /// Goes to the level that fits what is held, and does what is done there. Returns what is held.
    fn relieve_memory(&self, state: &mut State, ceiling: u64, limits: &Limits) -> u64 {
        let counted = self.ledger.held();
        let is_much =
            state.pressure > Pressure::None || counted >= share(ceiling, Pressure::Shrink.mark());
        // What is counted is never too little, so as long as it is little it need not be exact.
        let mut census = if is_much { self.take_census(state) } else { Census::default() };
        let before = state.pressure;
        state.pressure = before.next(counted.saturating_sub(census.repeated), ceiling);
        let now = Ticks::now();
        if before == Pressure::Shrink && state.pressure == Pressure::None {
            // Copying queues has made room by itself; it is not taken for calm at once.
            let since = state.short_since.unwrap_or(now);
            if now.since(since) < Duration::from_secs(1) {
                state.pressure = Pressure::Shrink;
            }
        }
        self.ledger.set_short(state.pressure >= Pressure::Shrink);
        self.ledger.set_room(room(limits.max_queued_bytes, state.pressure));
        if state.pressure >= Pressure::Shrink && before < Pressure::Shrink {
            self.registry.each(|link| link.compact());
            census = self.take_census(state);
            let held = self.ledger.held().saturating_sub(census.repeated);
            state.pressure = state.pressure.next(held, ceiling).max(Pressure::Shrink);
        }
        state.short_since = match state.pressure {
            Pressure::None => None,
            _ => Some(state.short_since.unwrap_or(now)),
        };
        state.closed_since = match state.pressure {
            Pressure::StopAccepting => Some(state.closed_since.unwrap_or(now)),
            _ => None,
        };
        let closed_for = state.closed_since.map_or(Duration::ZERO, |since| now.since(since));
        self.end_connections(&census, state.pressure, closed_for, ceiling);
        self.set_marks(state.pressure, ceiling, census.repeated);
        self.overload
            .known
            .send_if_modified(|known| std::mem::replace(known, state.pressure) != state.pressure);
        counted.saturating_sub(census.repeated)
    }

    /// Ends connections where the pressure asks for it.
    fn end_connections(
        &self,
        census: &Census,
        pressure: Pressure,
        closed_for: Duration,
        ceiling: u64,
    ) {
        /// How long accepting may rest before those in use have to go too.
        const PATIENCE: Duration = Duration::from_secs(2);
        let held = self.ledger.held().saturating_sub(census.repeated);
        let excess = |hundredths| {
            let target = share(ceiling, hundredths) + census.leaving;
            held.saturating_sub(target)
        };
        if held >= ceiling {
            end_largest(&census.candidates, excess(95));
        } else if closed_for >= PATIENCE {
            end_largest(&census.candidates, excess(75));
        } else if pressure >= Pressure::CloseIdle
            && held >= share(ceiling, Pressure::CloseIdle.mark())
        {
            end_idle(&census.candidates, excess(75));
        }
    }

    fn take_census(&self, state: &mut State) -> Census {
        let mut census = Census::default();
        let mut holders = HashMap::<usize, u64>::new();
        let mut moved = HashMap::new();
        let now = Ticks::now();
        self.registry.each(|link| {
            let vitals = link.vitals();
            for (place, held) in &vitals.shared {
                let count = holders.entry(*place).or_default();
                census.repeated += if *count > 0 { *held } else { 0 };
                *count += 1;
            }
            if vitals.is_leaving {
                census.leaving += vitals.own;
                return;
            }
            let mut rests_since = vitals.idle_since;
            if let Some(mark) = vitals.moved {
                let known = state.moved.get(&link.number).filter(|(known, _)| *known == mark);
                let since = known.map_or(now, |(_, since)| *since);
                moved.insert(link.number, (mark, since));
                rests_since = rests_since.max(Some(since));
            }
            census.candidates.push(Candidate {
                link: Arc::clone(link),
                vitals,
                weight: 0,
                rests_since,
            });
        });
        state.moved = moved;
        for Candidate { vitals, weight, .. } in &mut census.candidates {
            let share = |(place, held): &(usize, u64)| held / holders[place].max(1);
            *weight = vitals.own + vitals.shared.iter().map(share).sum::<u64>();
        }
        census
    }

    /// Sets when to look again, given how much is counted too often.
    fn set_marks(&self, pressure: Pressure, ceiling: u64, repeated: u64) {
        let mark = |hundredths| share(ceiling, hundredths).saturating_add(repeated);
        // While connections are ended, the next look is taken when one hundredth more is held: each
        // look goes through all connections.
        let soon = self.ledger.held().saturating_add(share(ceiling, 1).max(1));
        let high = match pressure {
            Pressure::None => mark(Pressure::Shrink.mark()).max(soon),
            Pressure::Shrink => mark(Pressure::CloseIdle.mark()).max(soon),
            Pressure::CloseIdle | Pressure::StopAccepting => soon,
        };
        let low = pressure.mark().saturating_sub(Pressure::SLACK);
        // Not nearer than one hundredth either, or each queue that drains would cost a look.
        let lower = self.ledger.held().saturating_sub(share(ceiling, 1));
        let low = (pressure > Pressure::None).then(|| mark(low).min(lower));
        self.ledger.set_ceiling(mark(100));
        self.ledger.set_held_marks(low, Some(high));
        let is_watched =
            pressure > Pressure::None || repeated > 0 || self.ledger.has_too_much_queued();
        self.overload
            .is_watched
            .send_if_modified(|was| std::mem::replace(was, is_watched) != is_watched);
    }
}

/// Ends those on which nothing has moved for a while, until so much less is held: those whose peers keep
/// them waiting, then those that are idle, unless all of them together do not hold so much.
fn end_idle(candidates: &[Candidate], excess: u64) {
    /// One that moved a moment ago is in use.
    const LEAST: Duration = Duration::from_secs(1);
    let now = Ticks::now();
    let rests = |candidate: &&Candidate| {
        candidate.rests_since.is_some_and(|since| now.since(since) >= LEAST)
    };
    let (mut stuck, mut idle): (Vec<_>, Vec<_>) =
        candidates.iter().filter(rests).partition(|candidate| candidate.vitals.is_stuck);
    stuck.sort_by_key(|candidate| (Reverse(candidate.weight), Reverse(candidate.link.number)));
    idle.sort_by_key(|candidate| (candidate.vitals.idle_since, candidate.link.number));
    let left = end_until(stuck, excess, "this connection's peer kept it waiting");
    let all: u64 = idle.iter().map(|candidate| candidate.weight).sum();
    if left > 0 && all >= left {
        end_until(idle, left, "this connection was idle longest");
    }
}

/// Ends those that hold most until so much less is held.
fn end_largest(candidates: &[Candidate], excess: u64) {
    let mut all: Vec<_> = candidates.iter().collect();
    // Of those that hold as much the newest goes first: a flood does not drive out who was there.
    all.sort_by_key(|candidate| (Reverse(candidate.weight), Reverse(candidate.link.number)));
    end_until(all, excess, "this connection held most");
}

/// Ends connections in their order until so much less is held; returns what is lacking.
fn end_until(candidates: Vec<&Candidate>, mut excess: u64, why: &str) -> u64 {
    for Candidate { link, weight, .. } in candidates {
        if excess == 0 {
            break;
        }
        let message = format!("limits.max_memory is nearly reached, and {why}");
        link.cut_off(Error::of(ErrorKind::Limit, message));
        excess = excess.saturating_sub(*weight);
    }
    excess
}

/// Room in each queue under `pressure`.
fn room(configured: usize, pressure: Pressure) -> u64 {
    /// With less, a peer that reads slowly would hardly be served.
    const LEAST: u64 = 4 * 1024;
    let configured = configured as u64;
    match pressure {
        Pressure::None => configured,
        _ => (configured / 4).max(LEAST.min(configured)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_come_at_their_marks_and_go_with_some_slack() {
        use Pressure::*;
        let steps = [
            (69, None),
            (70, Shrink),
            (79, Shrink),
            (80, CloseIdle),
            (70, CloseIdle),
            (69, Shrink),
            (60, Shrink),
            (59, None),
            (95, StopAccepting),
            (80, StopAccepting),
            (79, CloseIdle),
            (10, None),
        ];
        let mut pressure = None;
        for (held, expected) in steps {
            pressure = pressure.next(held * 10, 1000);
            assert_eq!(pressure, expected, "at {held} %");
        }
    }

    #[test]
    fn shares_are_exact_and_do_not_overflow() {
        assert_eq!(share(1000, 70), 700);
        assert_eq!(share(99, 50), 49);
        assert_eq!(share(u64::MAX, 100), u64::MAX);
    }

    #[test]
    fn queues_keep_some_room_under_pressure() {
        assert_eq!(room(65_536, Pressure::None), 65_536);
        assert_eq!(room(65_536, Pressure::Shrink), 16_384);
        assert_eq!(room(8192, Pressure::Shrink), 4096);
        assert_eq!(room(10, Pressure::StopAccepting), 10);
    }
}
