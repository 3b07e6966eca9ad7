//! What a connection is doing, as it is seen from outside.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::{Link, State};
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
    /// Since when nothing has moved in either direction, where it is the peer that is waited for.
    pub(crate) idle_since: Option<Ticks>,
    pub(crate) queued: u64,
    /// The memory that goes with the connection, what others hold too not counted.
    pub(crate) weight: u64,
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
            is_secured: state.stream.as_ref().is_some_and(crate::stream::Stream::is_secured),
        }
    }

    /// What decides whether it has to go. Messages that others hold too are given to `visit`, each as
    /// where it lies and how it was counted.
    pub(crate) fn vitals(&self, mut visit: impl FnMut(usize, u64)) -> Vitals {
        let state = self.lock();
        let status = state.status();
        let waits = matches!(
            status,
            ConnectionState::Waiting | ConnectionState::HalfClosed | ConnectionState::Handshake
        );
        let has_backlog = state.has_backlog();
        let ending = state.ending.as_ref();
        let is_leaving = ending.is_some_and(|ending| ending.cut.is_some() || !has_backlog);
        let mut shared = 0;
        for (place, held) in state.outbox.shared() {
            visit(place, held);
            shared += held;
        }
        let load = state.load();
        // Whoever has something queued waits for the peer too, also in the middle of a callback.
        let is_idle = !is_leaving && (waits || has_backlog);
        Vitals {
            is_leaving,
            is_stuck: has_backlog || status == ConnectionState::Handshake,
            idle_since: is_idle.then_some(state.active_at),
            queued: load.queued,
            weight: u64::from(state.weight) + load.held - shared,
        }
    }
}

impl State {
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
