//! How connections end: the list of reasons, what each leads to, and what is told of it.

use std::fmt;
use std::time::Duration;

use crate::Error;

/// Why a connection ended; the first cause wins.
///
/// The same words serve the callback, the logs and the metrics: [`as_str`](Self::as_str).
///
/// | reasons | what happens |
/// |---|---|
/// | `peer_closed`, `local_close`, `idle_timeout`, `too_slow`, `max_lifetime`, `service_error`, `panicked`, `drained` | orderly: what is queued is sent (bounded by the write timeout), then FIN |
/// | `truncated` | `on_error` once, then orderly |
/// | `frame_too_long`, `frame_malformed`, `frame_timeout`, `partial_frame` | `on_error` once, which may still write; then orderly |
/// | `peer_reset`, `io_error`, `tls_error`, `write_timeout` | `on_error` once, nothing is sent any more, reset |
/// | `local_abort`, `limit`, `stop_forced`, `stopped` | no `on_error`, nothing is sent any more, reset |
/// | `rejected` | `on_connect` failed: what is queued is sent, then FIN; no callback |
/// | `handshake_failed`, `handshake_timeout` | no callback at all; the peer is told by a TLS alert, or reset |
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum CloseReason {
    /// The peer sent FIN and everything before it was served.
    PeerClosed,
    /// [`Caller::close`](crate::Caller::close) was called.
    LocalClose,
    /// Nothing came from the peer for `timeouts.idle`.
    IdleTimeout,
    /// The connection reached the age of `timeouts.max_lifetime`.
    MaxLifetime,
    /// A callback failed, and `on_error` did not say that it is handled.
    ServiceError,
    /// A callback panicked.
    Panicked,
    /// A graceful stop, and the connection had nothing more to do.
    Drained,
    /// The peer reset the connection.
    PeerReset,
    /// The socket failed in another way.
    IoError,
    /// The kernel took no queued byte for `timeouts.write`: the peer does not read.
    WriteTimeout,
    /// [`Caller::abort`](crate::Caller::abort) was called.
    LocalAbort,
    /// A graceful stop reached its deadline.
    StopForced,
    /// An immediate stop, or the last listener handle was dropped.
    Stopped,
    /// [`Service::on_connect`](crate::Service::on_connect) returned an error.
    Rejected,
    /// The peer ended a TLS connection without saying so (close_notify): data may be missing.
    Truncated,
    /// The peer broke the TLS protocol: a record that does not decrypt, a message out of place.
    TlsError,
    /// The TLS handshake failed.
    HandshakeFailed,
    /// The TLS handshake took longer than `secure_socket.handshake_timeout`, or gave way to a newer
    /// one because `limits.max_handshakes` or `limits.max_connections` was reached.
    HandshakeTimeout,
    /// Less came from the peer than `timeouts.min_arrival`.
    TooSlow,
    /// A bound of the whole listener was reached, `limits.max_queued_bytes_total` or
    /// `limits.max_memory`, and this connection was the one to go: [`Close::error`] says which.
    Limit,
    /// A frame was longer than [`Framing::max_frame`](crate::Framing::max_frame).
    FrameTooLong,
    /// What came cannot be a frame.
    FrameMalformed,
    /// A frame took longer than [`Framing::timeout`](crate::Framing::timeout) to become complete.
    FrameTimeout,
    /// The peer ended its side within a frame.
    PartialFrame,
}

/// How the socket is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parting {
    /// Send what is queued, then FIN, then discard what the peer still sends for a moment.
    Orderly,
    /// Send nothing more; the peer sees a reset.
    Reset,
}

impl CloseReason {
    /// Every reason.
    pub const ALL: [Self; 24] = [
        Self::PeerClosed,
        Self::LocalClose,
        Self::IdleTimeout,
        Self::MaxLifetime,
        Self::ServiceError,
        Self::Panicked,
        Self::Drained,
        Self::PeerReset,
        Self::IoError,
        Self::WriteTimeout,
        Self::LocalAbort,
        Self::StopForced,
        Self::Stopped,
        Self::Rejected,
        Self::Truncated,
        Self::TlsError,
        Self::HandshakeFailed,
        Self::HandshakeTimeout,
        Self::TooSlow,
        Self::Limit,
        Self::FrameTooLong,
        Self::FrameMalformed,
        Self::FrameTimeout,
        Self::PartialFrame,
    ];

    /// The reason as one word, the same in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PeerClosed => "peer_closed",
            Self::LocalClose => "local_close",
            Self::IdleTimeout => "idle_timeout",
            Self::MaxLifetime => "max_lifetime",
            Self::ServiceError => "service_error",
            Self::Panicked => "panicked",
            Self::Drained => "drained",
            Self::PeerReset => "peer_reset",
            Self::IoError => "io_error",
            Self::WriteTimeout => "write_timeout",
            Self::LocalAbort => "local_abort",
            Self::StopForced => "stop_forced",
            Self::Stopped => "stopped",
            Self::Rejected => "rejected",
            Self::Truncated => "truncated",
            Self::TlsError => "tls_error",
            Self::HandshakeFailed => "handshake_failed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::TooSlow => "too_slow",
            Self::Limit => "limit",
            Self::FrameTooLong => "frame_too_long",
            Self::FrameMalformed => "frame_malformed",
            Self::FrameTimeout => "frame_timeout",
            Self::PartialFrame => "partial_frame",
        }
    }

    /// Did queued data go out and did the peer get a FIN, as far as it let us?
    pub fn is_orderly(self) -> bool {
        self.parting() == Parting::Orderly
    }

    pub(crate) fn parting(self) -> Parting {
        match self {
            Self::PeerClosed
            | Self::LocalClose
            | Self::IdleTimeout
            | Self::MaxLifetime
            | Self::ServiceError
            | Self::Panicked
            | Self::Drained
            | Self::Rejected
            | Self::Truncated
            | Self::HandshakeFailed
            | Self::TooSlow
            | Self::FrameTooLong
            | Self::FrameMalformed
            | Self::FrameTimeout
            | Self::PartialFrame => Parting::Orderly,
            Self::PeerReset
            | Self::IoError
            | Self::WriteTimeout
            | Self::LocalAbort
            | Self::StopForced
            | Self::Stopped
            | Self::TlsError
            | Self::HandshakeTimeout
            | Self::Limit => Parting::Reset,
        }
    }

    /// Whether the transport itself failed, so that `on_error` hears of it.
    pub(crate) fn is_transport_failure(self) -> bool {
        matches!(
            self,
            Self::PeerReset | Self::IoError | Self::TlsError | Self::WriteTimeout | Self::Truncated
        )
    }

    /// Whether a stop of the listener cut the connection off.
    pub(crate) fn is_forced(self) -> bool {
        matches!(self, Self::StopForced | Self::Stopped)
    }

    /// The reason that a failed transport leads to.
    pub(crate) fn of_failure(error: &Error) -> Self {
        match error.kind() {
            crate::ErrorKind::Reset => Self::PeerReset,
            crate::ErrorKind::Tls => Self::TlsError,
            _ => Self::IoError,
        }
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What [`ConnectionService::on_close`](crate::ConnectionService::on_close) is told: why the
/// connection ended, and what it did.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Close {
    /// Why the connection ended.
    pub reason: CloseReason,
    /// What the connection did.
    pub stats: ConnectionStats,
    /// The error behind the reason, where there is one: the failure of the transport, or the error
    /// that a callback returned.
    pub error: Option<Error>,
}

/// What one connection did in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ConnectionStats {
    /// Bytes that arrived from the peer: those handed to `on_bytes`, and with a framing those around
    /// them, too.
    pub bytes_received: u64,
    /// Bytes that the kernel took for the peer; it does not say that they arrived.
    pub bytes_sent: u64,
    /// Bytes that were accepted for sending but never reached the kernel.
    pub bytes_unsent: u64,
    /// Chunks, or with a framing frames, handed to `on_bytes`.
    pub chunks_received: u64,
    /// Messages accepted for sending: returned replies and writes.
    pub chunks_sent: u64,
    /// Frames that were skipped, because they were too long or malformed.
    pub frames_dropped: u64,
    /// Time since the connection was accepted.
    pub age: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_a_word_of_its_own() {
        let words: HashSet<_> = CloseReason::ALL.iter().map(|reason| reason.as_str()).collect();
        assert_eq!(words.len(), CloseReason::ALL.len());
    }

    #[test]
    fn the_table_of_endings_is_the_documented_one() {
        use CloseReason::*;
        for reason in CloseReason::ALL {
            let orderly = matches!(
                reason,
                PeerClosed
                    | LocalClose
                    | IdleTimeout
                    | MaxLifetime
                    | ServiceError
                    | Panicked
                    | Drained
                    | Rejected
                    | Truncated
                    | HandshakeFailed
                    | TooSlow
                    | FrameTooLong
                    | FrameMalformed
                    | FrameTimeout
                    | PartialFrame
            );
            assert_eq!(reason.is_orderly(), orderly, "{reason}");
            // A failed transport is flushed only where just the peer's side of it has ended, and a
            // forced end is never reported as one.
            let may_be_flushed = !reason.is_transport_failure() || reason == Truncated;
            assert!(may_be_flushed || !orderly, "{reason}");
            assert!(!(reason.is_transport_failure() && reason.is_forced()), "{reason}");
        }
    }
}
