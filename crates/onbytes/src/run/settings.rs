//! The settings that may change while connections live.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;

use crate::admission::Admission;
use crate::{Limits, Timeouts};

/// One state of the settings. A connection holds the one it saw last.
pub(crate) struct Current {
    generation: u64,
    pub(crate) limits: Limits,
    pub(crate) timeouts: Timeouts,
    pub(crate) admission: Admission,
}

/// The settings, and a number that tells whether they have changed at the price of one load.
pub(crate) struct Settings {
    generation: AtomicU64,
    current: watch::Sender<Arc<Current>>,
}

impl Settings {
    pub(super) fn new(limits: Limits, timeouts: Timeouts) -> Self {
        let admission = Admission::new(&limits);
        let current = Current { generation: 0, limits, timeouts, admission };
        Self { generation: AtomicU64::new(0), current: watch::Sender::new(Arc::new(current)) }
    }

    pub(crate) fn get(&self) -> Arc<Current> {
        Arc::clone(&self.current.borrow())
    }

    /// Waits until the settings are others than `seen`.
    pub(crate) async fn changed_from(&self, seen: &Current) {
        let mut current = self.current.subscribe();
        // The sender lives as long as `self`.
        let _ = current.wait_for(|current| current.generation != seen.generation).await;
    }

    /// Makes `seen` the settings of now; tells whether it was not.
    pub(crate) fn refresh(&self, seen: &mut Arc<Current>) -> bool {
        let has_changed = seen.generation != self.generation.load(Ordering::Acquire);
        if has_changed {
            *seen = self.get();
        }
        has_changed
    }

    /// Whether these are the settings of now.
    pub(super) fn are(&self, limits: &Limits, timeouts: &Timeouts) -> bool {
        let current = self.current.borrow();
        current.limits == *limits && current.timeouts == *timeouts
    }

    /// Changes the settings. `apply` is called before anybody else can change them again.
    pub(super) fn change(&self, limits: Limits, timeouts: Timeouts, apply: impl FnOnce(&Current)) {
        self.current.send_modify(|current| {
            let next = Current {
                generation: current.generation + 1,
                admission: current.admission.changed(&current.limits, &limits),
                limits,
                timeouts,
            };
            self.generation.store(next.generation, Ordering::Release);
            apply(&next);
            *current = Arc::new(next);
        });
    }
}
