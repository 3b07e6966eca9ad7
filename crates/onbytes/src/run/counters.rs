//! What a listener has seen, counted.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{Pressure, Run};
use crate::admission::Refusal;
use crate::close::CloseReason;

/// What a listener has seen since it was made.
#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) accepted: AtomicU64,
    pub(crate) refused: [AtomicU64; Refusal::ALL.len()],
    pub(crate) closed: [AtomicU64; CloseReason::ALL.len()],
}

/// Counts of what a listener has seen since it was made, over all its starts and stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ListenerStats {
    /// Connections accepted.
    pub accepted: u64,
    /// Callers turned away, whatever the cause; [`refused_for`](Self::refused_for) tells them apart.
    pub refused: u64,
    /// Connections that are live now.
    pub active: usize,
    /// TLS handshakes under way now.
    #[cfg(feature = "_tls")]
    pub handshakes: usize,
    /// Bytes that wait to be sent now, to all peers together.
    pub queued_bytes: usize,
    /// The memory that connections and their queues take now, in bytes, as `limits.max_memory` counts
    /// it; a message that waits in several queues is counted in each.
    pub memory: usize,
    /// What the listener does now because memory is short.
    pub pressure: Pressure,
    refused_for: [u64; Refusal::ALL.len()],
    closed: [u64; CloseReason::ALL.len()],
}

impl ListenerStats {
    pub(crate) fn of(counters: &Counters, run: Option<&Run>) -> Self {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let refused_for = std::array::from_fn(|cause| read(&counters.refused[cause]));
        let size = |bytes| usize::try_from(bytes).unwrap_or(usize::MAX);
        Self {
            accepted: read(&counters.accepted),
            refused: refused_for.iter().sum(),
            active: run.map_or(0, Run::alive),
            #[cfg(feature = "_tls")]
            handshakes: run.map_or(0, |run| run.handshakes.count()),
            queued_bytes: run.map_or(0, |run| size(run.ledger.queued())),
            memory: run.map_or(0, |run| size(run.ledger.held())),
            pressure: run.map_or(Pressure::None, |run| run.overload.pressure()),
            refused_for,
            closed: std::array::from_fn(|reason| read(&counters.closed[reason])),
        }
    }

    /// Connections that ended for `reason`.
    pub fn closed(&self, reason: CloseReason) -> u64 {
        self.closed[reason as usize]
    }

    /// Callers turned away for `cause`.
    pub fn refused_for(&self, cause: Refusal) -> u64 {
        self.refused_for[cause as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_and_causes_index_their_counters() {
        for (index, reason) in CloseReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index);
        }
        for (index, cause) in Refusal::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
        }
    }
}
