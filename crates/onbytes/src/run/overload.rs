//! What happens when connections hold too much together: a step at a time, and back again.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};

use tokio::sync::watch;

use super::Run;
use crate::close::CloseReason;
use crate::event::Event;
use crate::ledger::Relief;
use crate::link::{Link, Vitals};
use crate::timer::Ticks;
use crate::{Error, ErrorKind, Limits};

/// How short memory is, and so what the listener does about it; each does what those before it do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Pressure {
    /// Less than 70 % of `limits.max_memory` is taken.
    None,
    /// From 70 % on: queues have a quarter of their room, so that writers wait and reading stops
    /// sooner; they are copied out of read buffers that they keep alive; and the kernel's buffers
    /// for peers that do not read grow no more.
    Shrink,
    /// From 80 % on: the connections that have been idle longest (for a second at least, while no
    /// callback runs and nothing is queued) end for reason `limit`, until 75 % are taken.
    CloseIdle,
    /// From 90 % on: nobody is accepted. Callers wait, or are refused where `limits.when_full` says
    /// so. At 100 % the connections that hold most end for reason `limit`, until 95 % are taken.
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
    pressure: Mutex<Pressure>,
    accepting: watch::Sender<bool>,
    /// The ceiling where none is configured.
    default_ceiling: u64,
}

impl Overload {
    pub(super) fn new() -> Self {
        let default_ceiling = crate::memory::available().map_or(u64::MAX, |bytes| bytes / 2);
        let accepting = watch::Sender::new(true);
        Self { pressure: Mutex::new(Pressure::None), accepting, default_ceiling }
    }

    /// Whether callers are accepted, and every change of it.
    pub(crate) fn accepting(&self) -> watch::Receiver<bool> {
        self.accepting.subscribe()
    }

    pub(crate) fn is_accepting(&self) -> bool {
        *self.accepting.borrow()
    }

    pub(crate) fn ceiling(&self, limits: &Limits) -> u64 {
        limits.max_memory.map_or(self.default_ceiling, |bytes| bytes as u64)
    }

    /// `None` where somebody else is at it.
    fn try_lock(&self) -> Option<MutexGuard<'_, Pressure>> {
        match self.pressure.try_lock() {
            Ok(pressure) => Some(pressure),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl Relief for Run {
    fn relieve(&self) {
        while self.ledger.is_pressed() {
            // Whoever is at it looks again when it is done; it may be this very thread.
            let Some(mut pressure) = self.overload.try_lock() else { return };
            let before = *pressure;
            let has_done_something = self.relieve_queues();
            self.relieve_memory(&mut pressure);
            let now = *pressure;
            drop(pressure);
            if now != before {
                self.tell(before, now);
            } else if !has_done_something && self.ledger.has_too_much_queued() {
                return;
            }
        }
    }
}

impl Run {
    /// New limits: marks are set anew.
    pub(super) fn reconsider_pressure(&self) {
        let pressure = self.overload.pressure.lock().unwrap_or_else(PoisonError::into_inner);
        self.set_marks(*pressure);
        drop(pressure);
        self.relieve();
    }

    fn set_marks(&self, pressure: Pressure) {
        let ledger = &self.ledger;
        let limits = &self.settings.get().limits;
        let ceiling = self.overload.ceiling(limits);
        ledger.set_most_queued(limits.max_queued_bytes_total);
        ledger.set_short(pressure >= Pressure::Shrink);
        ledger.set_room(room(limits.max_queued_bytes, pressure));
        let held = ledger.held();
        // While connections are ended one by one, the next look is taken when one hundredth more is
        // held: each look goes through all connections.
        let soon = held + share(ceiling, 1).max(1);
        let high = match pressure {
            Pressure::None => share(ceiling, Pressure::Shrink.mark()),
            Pressure::Shrink => share(ceiling, Pressure::CloseIdle.mark()),
            Pressure::CloseIdle => soon.min(share(ceiling, Pressure::StopAccepting.mark())),
            Pressure::StopAccepting => soon,
        };
        let low = pressure.mark().saturating_sub(Pressure::SLACK);
        let low = (pressure > Pressure::None).then(|| share(ceiling, low));
        ledger.set_held_marks(low, Some(high));
    }

    /// Ends the connections with the largest queues until all queues together are within the limit;
    /// tells whether there was one.
    fn relieve_queues(&self) -> bool {
        let Some(most) = self.settings.get().limits.max_queued_bytes_total else { return false };
        let mut queues = Vec::new();
        self.registry.each(|link| match link.vitals().load.queued {
            0 => {}
            queued => queues.push((queued, Arc::clone(link))),
        });
        queues.sort_unstable_by_key(|(queued, _)| std::cmp::Reverse(*queued));
        for (_, link) in &queues {
            if self.ledger.queued() <= most as u64 {
                break;
            }
            let message =
                "limits.max_queued_bytes_total is reached, and this queue was the largest";
            link.cut_off(Error::of(ErrorKind::Limit, message));
        }
        !queues.is_empty()
    }

    /// Goes to the level that fits what is held, and does what is done there.
    fn relieve_memory(&self, pressure: &mut Pressure) {
        let ceiling = self.overload.ceiling(&self.settings.get().limits);
        let held = self.ledger.held();
        let before = std::mem::replace(pressure, pressure.next(held, ceiling));
        self.set_marks(*pressure);
        if *pressure >= Pressure::Shrink && before < Pressure::Shrink {
            self.registry.each(|link| link.shrink());
        }
        if held >= share(ceiling, Pressure::CloseIdle.mark()) {
            self.end_until(share(ceiling, 75), idle_longest, |link| {
                let message =
                    "limits.max_memory is nearly reached, and this connection was idle longest";
                link.end(CloseReason::Limit, Some(Error::of(ErrorKind::Limit, message)));
            });
        }
        if held >= ceiling {
            self.end_until(share(ceiling, 95), largest, |link| {
                let message = "limits.max_memory is reached, and this connection held most";
                link.cut_off(Error::of(ErrorKind::Limit, message));
            });
        }
        // Ending connections has changed what is held.
        self.set_marks(*pressure);
        let accepting = *pressure < Pressure::StopAccepting;
        self.overload
            .accepting
            .send_if_modified(|was| std::mem::replace(was, accepting) != accepting);
    }

    /// Ends connections, those of the least `order` first, until no more than `target` will be held.
    /// What holds nothing of itself (`None`) stays.
    fn end_until(&self, target: u64, order: impl Fn(&Vitals) -> Option<u64>, end: impl Fn(&Link)) {
        let mut candidates = Vec::new();
        let mut leaving = 0;
        self.registry.each(|link| {
            let vitals = link.vitals();
            if vitals.is_ending {
                leaving += vitals.weight();
            } else if let Some(order) = order(&vitals) {
                candidates.push((order, vitals.weight(), Arc::clone(link)));
            }
        });
        // Of those that are equal the oldest goes first.
        candidates.sort_unstable_by_key(|(order, _, link)| (*order, link.number));
        let mut excess = self.ledger.held().saturating_sub(leaving).saturating_sub(target);
        for (_, weight, link) in &candidates {
            if excess == 0 {
                break;
            }
            end(link);
            excess = excess.saturating_sub(*weight);
        }
    }

    fn tell(&self, before: Pressure, pressure: Pressure) {
        let ceiling = self.overload.ceiling(&self.settings.get().limits);
        let memory = self.ledger.held();
        self.events.emit(&Event::Overload { pressure, before, memory, ceiling });
    }
}

/// The order of connections by how long they have been idle.
fn idle_longest(vitals: &Vitals) -> Option<u64> {
    /// One that answered a moment ago is in use.
    const LEAST: u64 = 1000;
    let since = vitals.idle_since?;
    (Ticks::now().milliseconds_since(since) >= LEAST).then_some(since.order())
}

/// The order of connections by how much they hold.
fn largest(vitals: &Vitals) -> Option<u64> {
    Some(u64::MAX - vitals.weight())
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
