//! What a connection is doing, as it is seen from outside.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Ending, Link, State};
use crate::outbox::Load;
use crate::stream::Stream;
use crate::timer::Ticks;
use crate::{ConnectionId, ConnectionStats};

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum ConnectionState {
    /// It shakes hands over TLS.
    Handshake,
    /// `on_connect` runs, or is about to.
    Connecting,
    /// It waits for its peer: for bytes, or for room to send what is queued.
    Waiting,
    /// A callback runs.
    Busy,
    /// The peer has ended its side (FIN), and the service may still send (`allow_half_open`).
    HalfClosed,
    /// It is ending: what is queued is sent, `on_close` runs, or the peer's FIN is waited for.
    Closing,
}

impl ConnectionState {
    /// The state as one word, the same in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Handshake => "handshake",
            Self::Connecting => "connecting",
            Self::Waiting => "waiting",
            Self::Busy => "busy",
            Self::HalfClosed => "half_closed",
            Self::Closing => "closing",
        }
    }
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One live connection of a listener: [`Listener::connections`](crate::Listener::connections).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ConnectionInfo {
    /// The connection, for [`Listener::close_connection`](crate::Listener::close_connection).
    pub id: ConnectionId,
    /// Its peer.
    pub remote_addr: SocketAddr,
    /// Our address that the peer connected to.
    pub local_addr: SocketAddr,
    /// What it is doing.
    pub state: ConnectionState,
    /// What it has done: bytes and chunks each way, and its age.
    pub stats: ConnectionStats,
    /// Bytes that wait to be sent to the peer.
    pub queued_bytes: usize,
    /// Time since anything moved: a callback ended, or something was sent; to a tenth of a second. It is
    /// not what `timeouts.idle` measures, which looks at the peer alone.
    pub idle: Duration,
    /// Whether it is over TLS.
    pub is_secured: bool,
}

/// What decides which connection has to go when not all can stay.
pub(crate) struct Vitals {
    /// It goes by itself, and soon: it is being reset, or has nothing left to send.
    pub(crate) is_leaving: bool,
    /// Whether the peer owes something: to read what waits for it, or to go on with its handshake.
    pub(crate) is_stuck: bool,
    /// Since when no callback has ended and nothing was sent, where it is the peer that is waited for.
    pub(crate) idle_since: Option<Ticks>,
    /// Something that is another with everything that the peer sends or acknowledges, where it may do so
    /// without a callback being called.
    pub(crate) moved: Option<u64>,
    pub(crate) queued: u64,
    /// The memory that goes with the connection, what others hold too not counted.
    pub(crate) own: u64,
    /// Messages that others hold too: where each lies, and how it is counted.
    pub(crate) shared: Vec<(usize, u64)>,
}

impl Link {
    pub(crate) fn info(&self) -> ConnectionInfo {
        let stats = self.stats();
        let state = self.lock();
        ConnectionInfo {
            id: ConnectionId::of(self.number),
            remote_addr: self.remote,
            local_addr: self.local,
            state: state.status(),
            stats,
            queued_bytes: usize::try_from(state.outbox.queued()).unwrap_or(usize::MAX),
            idle: Ticks::now().since(state.active_at),
            is_secured: state.stream.as_ref().is_some_and(Stream::is_secured),
        }
    }

    /// What decides whether it has to go.
    pub(crate) fn vitals(&self) -> Vitals {
        let mut state = self.lock();
        let doing = state.status();
        let has_backlog = state.has_backlog();
        let is_stuck = has_backlog || doing == ConnectionState::Handshake;
        let waits = matches!(doing, ConnectionState::Waiting | ConnectionState::HalfClosed);
        let is_leaving = state.is_leaving();
        // Whoever has something queued waits for the peer too, also in the middle of a callback.
        let is_idle = !is_leaving && (waits || is_stuck);
        let is_secured = state.stream.as_ref().is_some_and(Stream::is_secured);
        let moved = (is_idle && (is_stuck || is_secured)).then(|| state.moved());
        let shared: Vec<_> = state.outbox.shared().collect();
        let Load { queued, held } = state.load();
        let held_by_others = shared.iter().map(|(_, held)| held).sum::<u64>();
        Vitals {
            is_leaving,
            is_stuck,
            idle_since: is_idle.then_some(state.active_at),
            moved,
            queued,
            own: u64::from(state.weight) + held - held_by_others,
            shared,
        }
    }
}

impl State {
    /// Whether the connection is on its way out and nobody but its own task is waited for. A callback that
    /// still runs may take as long as it likes.
    fn is_leaving(&self) -> bool {
        let runs = matches!(self.doing, ConnectionState::Busy | ConnectionState::Connecting);
        let goes = |ending: &Ending| ending.cut.is_some() || !self.has_backlog();
        !runs && self.ending.as_ref().is_some_and(goes)
    }

    fn moved(&mut self) -> u64 {
        let taken = self.taken();
        let owed = self.stream.as_mut().and_then(Stream::unacknowledged).unwrap_or(0);
        self.arrived().wrapping_add(taken.saturating_sub(owed))
    }

    fn status(&self) -> ConnectionState {
        match self.doing {
            _ if self.ending.is_some() || self.stream.is_none() => ConnectionState::Closing,
            ConnectionState::Waiting if self.end_seen => ConnectionState::HalfClosed,
            doing => doing,
        }
    }

    /// Notes what the connection is about to do.
    pub(crate) fn set_doing(&mut self, doing: ConnectionState) {
        if doing == ConnectionState::Waiting && self.doing != doing {
            // A callback has ended.
            self.note_activity();
        }
        self.doing = doing;
    }

    /// Notes that something has moved between the service and the peer.
    pub(crate) fn note_activity(&mut self) {
        self.active_at = Ticks::now();
    }
}
