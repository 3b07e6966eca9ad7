//! What all connections of a listener hold together, and who is called when it is too much.
//!
//! Connections note every change of their queue here, under their own lock; this takes no other. The
//! sums are compared with marks, and where one is crossed the [`Relief`] decides what follows.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{OnceLock, Weak};

use crate::outbox::{Keeping, Load};

/// Who acts when a mark is crossed.
pub(crate) trait Relief: Send + Sync {
    /// Brings what is held to where no mark is crossed, as far as that is possible.
    fn relieve(&self);
}

/// The sums over all connections of a listener. A client has one for itself.
pub(crate) struct Ledger {
    /// Room for queued bytes of one connection.
    room: AtomicU64,
    /// Memory is short: queues keep nothing that they can copy into less.
    is_short: AtomicBool,
    // Signed, because what one thread takes away may be noted before what another adds.
    queued: AtomicI64,
    held: AtomicI64,
    most_queued: AtomicI64,
    /// What may be held at the most.
    ceiling: AtomicI64,
    /// Relief is called when less is held than this, or this much or more.
    held_marks: (AtomicI64, AtomicI64),
    relief: OnceLock<Weak<dyn Relief>>,
}

impl Ledger {
    /// One on which nothing but the room of each connection is bounded.
    pub(crate) fn new(room: usize) -> Self {
        Self {
            room: AtomicU64::new(room as u64),
            is_short: AtomicBool::new(false),
            queued: AtomicI64::new(0),
            held: AtomicI64::new(0),
            most_queued: AtomicI64::new(i64::MAX),
            ceiling: AtomicI64::new(i64::MAX),
            held_marks: (AtomicI64::new(i64::MIN), AtomicI64::new(i64::MAX)),
            relief: OnceLock::new(),
        }
    }

    /// From now on `relief` is called when a mark is crossed.
    pub(crate) fn appoint(&self, relief: Weak<dyn Relief>) {
        let _ = self.relief.set(relief);
    }

    // ---- What connections ask and note ----

    /// Room for queued bytes of one connection. Writers beyond it wait; reading stops above it.
    pub(crate) fn room(&self) -> u64 {
        self.room.load(Ordering::Relaxed)
    }

    pub(crate) fn keeping(&self) -> Keeping {
        if self.is_short.load(Ordering::Relaxed) { Keeping::Nothing } else { Keeping::Large }
    }

    /// A queue has changed. Where that [presses](Self::is_pressed), relief has to be called after all
    /// locks are released.
    pub(crate) fn note(&self, before: Load, after: Load) {
        add(&self.queued, before.queued, after.queued);
        add(&self.held, before.held, after.held);
    }

    /// Memory of another kind has come or gone; relief is called where that crosses a mark.
    pub(crate) fn note_held(&self, before: u64, after: u64) {
        add(&self.held, before, after);
        if self.is_pressed() {
            self.call_relief();
        }
    }

    pub(crate) fn call_relief(&self) {
        if let Some(relief) = self.relief.get().and_then(Weak::upgrade) {
            relief.relieve();
        }
    }

    // ---- What relief asks and sets ----

    pub(crate) fn queued(&self) -> u64 {
        self.queued.load(Ordering::Relaxed).max(0).unsigned_abs()
    }

    pub(crate) fn held(&self) -> u64 {
        self.held.load(Ordering::Relaxed).max(0).unsigned_abs()
    }

    /// The sums as they are, to be seen not to drift.
    #[cfg(test)]
    pub(crate) fn sums(&self) -> (i64, i64) {
        (self.queued.load(Ordering::SeqCst), self.held.load(Ordering::SeqCst))
    }

    pub(crate) fn is_pressed(&self) -> bool {
        let held = self.held.load(Ordering::SeqCst);
        self.has_too_much_queued()
            || held < self.held_marks.0.load(Ordering::SeqCst)
            || held >= self.held_marks.1.load(Ordering::SeqCst)
    }

    /// Whether so much is held or queued that nobody should add to it before it is less.
    pub(crate) fn is_beyond_bounds(&self) -> bool {
        self.has_too_much_queued()
            || self.held.load(Ordering::SeqCst) >= self.ceiling.load(Ordering::SeqCst)
    }

    pub(crate) fn has_too_much_queued(&self) -> bool {
        self.queued.load(Ordering::SeqCst) > self.most_queued.load(Ordering::SeqCst)
    }

    pub(crate) fn set_room(&self, room: u64) {
        self.room.store(room, Ordering::Relaxed);
    }

    pub(crate) fn set_short(&self, is_short: bool) {
        self.is_short.store(is_short, Ordering::Relaxed);
    }

    pub(crate) fn set_most_queued(&self, most: Option<usize>) {
        let most = most.and_then(|most| i64::try_from(most).ok()).unwrap_or(i64::MAX);
        self.most_queued.store(most, Ordering::SeqCst);
    }

    pub(crate) fn set_ceiling(&self, ceiling: u64) {
        self.ceiling.store(i64::try_from(ceiling).unwrap_or(i64::MAX), Ordering::SeqCst);
    }

    /// Calls relief below `low` and from `high` on; `None` is never.
    pub(crate) fn set_held_marks(&self, low: Option<u64>, high: Option<u64>) {
        // A mark beyond what can be counted is one that is never reached.
        let mark = |mark: u64| i64::try_from(mark).unwrap_or(i64::MAX);
        self.held_marks.0.store(low.map_or(i64::MIN, mark), Ordering::SeqCst);
        self.held_marks.1.store(high.map_or(i64::MAX, mark), Ordering::SeqCst);
    }
}

fn add(sum: &AtomicI64, before: u64, after: u64) {
    if before != after {
        // Wrapping is exact: the difference of two sizes fits.
        sum.fetch_add(after.wrapping_sub(before).cast_signed(), Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn load(queued: u64, held: u64) -> Load {
        Load { queued, held }
    }

    #[test]
    fn sums_follow_the_queues_in_any_order() {
        let ledger = Ledger::new(1);
        ledger.note(load(10, 100), load(0, 0));
        assert!(!ledger.is_pressed(), "noted before what it takes away");
        assert_eq!((ledger.queued(), ledger.held()), (0, 0));
        ledger.note(load(0, 0), load(10, 100));
        ledger.note(load(5, 0), load(7, 0));
        assert_eq!((ledger.queued(), ledger.held()), (2, 0));
    }

    #[test]
    fn relief_is_called_beyond_the_marks_and_not_between() {
        struct Count(AtomicI64);
        impl Relief for Count {
            fn relieve(&self) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let ledger = Ledger::new(1);
        let count = Arc::new(Count(AtomicI64::new(0)));
        let relief: Arc<dyn Relief> = count.clone();
        ledger.appoint(Arc::downgrade(&relief));
        ledger.set_held_marks(Some(10), Some(20));
        let called = || count.0.swap(0, Ordering::SeqCst);
        ledger.note_held(0, 10);
        ledger.note_held(10, 19);
        assert_eq!(called(), 0);
        ledger.note_held(19, 20);
        assert_eq!(called(), 1);
        ledger.note_held(20, 9);
        assert_eq!(called(), 1);
        ledger.set_most_queued(Some(5));
        ledger.note(load(0, 0), load(5, 5));
        assert!(!ledger.is_pressed());
        ledger.note(load(5, 0), load(6, 0));
        assert!(ledger.is_pressed());
    }
}
