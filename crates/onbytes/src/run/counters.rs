//! What a listener has seen, counted.

use std::fmt;
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
#[derive(Clone, Copy, PartialEq, Eq, Default)]
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

impl fmt::Debug for ListenerStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("ListenerStats");
        out.field("accepted", &self.accepted).field("refused", &self.refused);
        out.field("active", &self.active);
        #[cfg(feature = "_tls")]
        out.field("handshakes", &self.handshakes);
        out.field("queued_bytes", &self.queued_bytes).field("memory", &self.memory);
        out.field("pressure", &self.pressure);
        // By name, and only those that there were.
        for cause in Refusal::ALL.into_iter().filter(|cause| self.refused_for(*cause) > 0) {
            out.field(cause.as_str(), &self.refused_for(cause));
        }
        for reason in CloseReason::ALL.into_iter().filter(|reason| self.closed(*reason) > 0) {
            out.field(reason.as_str(), &self.closed(reason));
        }
        out.finish()
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
