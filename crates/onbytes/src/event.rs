//! What happens to a listener and its connections, told to the log and to whoever counts it.

use std::fmt;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::{Close, ConnectionId, Error, ErrorKind, Pressure, Refusal, StopReport};

/// One thing that happened; every kind has one [`name`](Self::name) and one set of fields.
///
/// Every event is logged through [`tracing`] with target `onbytes`, its name as the field `event`,
/// and its fields under their names here. [`Listener::on_event`](crate::Listener::on_event) gets
/// the same events, for metrics. Lines that peers can cause are limited to ten of a kind in ten
/// seconds, and the next one says how many were left out; the hook gets them all.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The listener accepts connections. Logged as info.
    #[non_exhaustive]
    Listening {
        /// Where it listens, with the real port.
        local_addr: SocketAddr,
    },
    /// A connection was accepted. Logged as debug.
    #[non_exhaustive]
    Accepted {
        /// The connection.
        id: ConnectionId,
        /// Its peer.
        remote_addr: SocketAddr,
        /// Our address that the peer connected to.
        local_addr: SocketAddr,
    },
    /// A caller was turned away before it became a connection. Logged as warning.
    #[non_exhaustive]
    Refused {
        /// The caller, where the system tells.
        remote_addr: Option<SocketAddr>,
        /// Why.
        cause: Refusal,
    },
    /// A connection has ended; its descriptor is closed or about to be. Logged as debug; as warning
    /// for `service_error`, `rejected` and `limit`; as info for `handshake_failed`, `handshake_timeout` and what ends
    /// a connection because of its frames. The
    /// log has the parts of `close` as `reason`, `error`,
    /// `bytes_received`, `bytes_sent`, `bytes_unsent`, `chunks_received`, `chunks_sent`, `frames_dropped` and `age` (in
    /// seconds).
    #[non_exhaustive]
    Closed {
        /// The connection.
        id: ConnectionId,
        /// Its peer.
        remote_addr: SocketAddr,
        /// Why it ended, and what it did.
        close: &'a Close,
    },
    /// A frame was skipped, because it was too long or malformed. Logged as warning.
    #[non_exhaustive]
    FrameDropped {
        /// The connection.
        id: ConnectionId,
        /// Its peer.
        remote_addr: SocketAddr,
        /// What is wrong with the frame.
        error: &'a Error,
    },
    /// A callback panicked; its connection ends. Logged as error.
    #[non_exhaustive]
    Panicked {
        /// The connection.
        id: ConnectionId,
        /// The callback.
        callback: &'static str,
        /// What the panic said.
        panic: &'a str,
    },
    /// `on_close` took longer than its budget and was dropped. Logged as warning.
    #[non_exhaustive]
    CloseOverran {
        /// The connection.
        id: ConnectionId,
    },
    /// A connection failed before it was accepted; others are not concerned. Logged as debug.
    #[non_exhaustive]
    AcceptFailed {
        /// What the system said.
        error: &'a Error,
    },
    /// The process is out of descriptors or memory, so callers wait; told at most once in ten
    /// seconds. Logged as error.
    #[non_exhaustive]
    Starved {
        /// What the system said.
        error: &'a Error,
    },
    /// Accepting works again after starvation. Logged as info.
    #[non_exhaustive]
    Recovered {},
    /// Connections take so much memory together that the listener does something about it, or so much
    /// less that it does not any more. Logged as warning where the pressure grows, as info where it
    /// falls.
    #[non_exhaustive]
    Overload {
        /// What the listener does from now on.
        pressure: Pressure,
        /// What it did before.
        before: Pressure,
        /// The memory taken, in bytes.
        memory: u64,
        /// `limits.max_memory`, in bytes.
        ceiling: u64,
    },
    /// The configuration works, but not as may be meant: a limit that the system does not allow.
    /// Told at the start and when limits change. Logged as warning.
    #[non_exhaustive]
    LimitsWarning {
        /// What is to be looked at.
        warning: &'a str,
    },
    /// Limits or time limits were changed. Logged as info.
    #[non_exhaustive]
    LimitsChanged {},
    /// [`Listener::suspend`](crate::Listener::suspend): callers wait. Logged as info.
    #[non_exhaustive]
    Suspended {},
    /// [`Listener::resume`](crate::Listener::resume): callers are accepted. Logged as info.
    #[non_exhaustive]
    Resumed {},
    /// The listening socket is gone; the listener accepts nothing more. Logged as error.
    #[non_exhaustive]
    Lost {
        /// What the system said.
        error: &'a Error,
    },
    /// The files of `secure_socket` were read again and are in use. Logged as info.
    #[cfg(feature = "_tls")]
    #[non_exhaustive]
    Reloaded {},
    /// The files of `secure_socket` were read again, and one of them is bad: those of before stay in
    /// use. Logged as error.
    #[cfg(feature = "_tls")]
    #[non_exhaustive]
    ReloadFailed {
        /// Which one, and why.
        error: &'a Error,
    },
    /// The configuration of `secure_socket` works, but not as may be meant: a certificate that has
    /// expired, a cipher suite that is not served. Told at the start and at each reload. Logged as
    /// warning.
    #[cfg(feature = "_tls")]
    #[non_exhaustive]
    TlsWarning {
        /// What is to be looked at.
        warning: &'a str,
    },
    /// A stop has begun. Logged as info.
    #[non_exhaustive]
    Stopping {
        /// Connections that are live.
        connections: usize,
    },
    /// A stop is complete. Logged as info.
    #[non_exhaustive]
    Stopped {
        /// How the connections ended.
        report: &'a StopReport,
    },
}

impl Event<'_> {
    /// The name of this kind of event, the same in logs and metrics.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Listening { .. } => "listening",
            Self::Accepted { .. } => "accepted",
            Self::Refused { .. } => "refused",
            Self::Closed { .. } => "closed",
            Self::FrameDropped { .. } => "frame_dropped",
            Self::Panicked { .. } => "panicked",
            Self::CloseOverran { .. } => "close_overran",
            Self::AcceptFailed { .. } => "accept_failed",
            Self::Starved { .. } => "starved",
            Self::Recovered {} => "recovered",
            Self::Overload { .. } => "overload",
            Self::LimitsWarning { .. } => "limits_warning",
            Self::LimitsChanged {} => "limits_changed",
            Self::Suspended {} => "suspended",
            Self::Resumed {} => "resumed",
            Self::Lost { .. } => "lost",
            #[cfg(feature = "_tls")]
            Self::Reloaded {} => "reloaded",
            #[cfg(feature = "_tls")]
            Self::ReloadFailed { .. } => "reload_failed",
            #[cfg(feature = "_tls")]
            Self::TlsWarning { .. } => "tls_warning",
            Self::Stopping { .. } => "stopping",
            Self::Stopped { .. } => "stopped",
        }
    }
}

pub(crate) type Hook = Arc<dyn Fn(&Event<'_>) + Send + Sync>;

/// Where the events of a listener go.
#[derive(Default)]
pub(crate) struct Events {
    hook: Mutex<Option<Hook>>,
    quota: Mutex<[Quota; Line::COUNT]>,
    starvation: Mutex<Starvation>,
}

/// What was said of accepting being impossible, for all accept loops of a listener together.
#[derive(Default)]
struct Starvation {
    last_told: Option<Instant>,
    is_on: bool,
}

/// After starvation was told, it is not told again for so long.
const STARVATION_SILENCE: Duration = Duration::from_secs(10);

impl Events {
    pub(crate) fn set_hook(&self, hook: Hook) {
        let mut current = self.hook.lock().unwrap_or_else(PoisonError::into_inner);
        let replaced = current.replace(hook);
        // The old hook is dropped outside the lock: what it owns may do anything then.
        drop(current);
        drop(replaced);
    }

    pub(crate) fn emit(&self, event: &Event<'_>) {
        self.log(event);
        let hook = self.hook.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(hook) = hook {
            // A hook that panics must not end the accept loop; the panic itself has been reported.
            let _ = catch_unwind(AssertUnwindSafe(|| hook(event)));
        }
    }

    /// Accepting is impossible for want of something.
    pub(crate) fn starved(&self, error: std::io::Error) {
        let mut starvation = self.starvation.lock().unwrap_or_else(PoisonError::into_inner);
        if starvation.last_told.is_some_and(|told| told.elapsed() < STARVATION_SILENCE) {
            return;
        }
        *starvation = Starvation { last_told: Some(Instant::now()), is_on: true };
        drop(starvation);
        let error = Error::caused(ErrorKind::Io, "cannot accept", error);
        self.emit(&Event::Starved { error: &error });
    }

    /// Accepting is possible. Where starvation comes and goes, its end is told as seldom as its
    /// beginning.
    pub(crate) fn recovered(&self) {
        let mut starvation = self.starvation.lock().unwrap_or_else(PoisonError::into_inner);
        let was_on = std::mem::take(&mut starvation.is_on);
        drop(starvation);
        if was_on {
            self.emit(&Event::Recovered {});
        }
    }

    fn log(&self, event: &Event<'_>) {
        let name = event.name();
        match event {
            Event::Listening { local_addr } => {
                tracing::info!(target: "onbytes", event = name, %local_addr, "listening");
            }
            Event::Accepted { id, remote_addr, local_addr } => tracing::debug!(
                target: "onbytes", event = name, %id, %remote_addr, %local_addr, "accepted"
            ),
            Event::Refused { remote_addr, cause } => {
                let Some(left_out) = self.admit(Line::Refused(*cause)) else {
                    return;
                };
                let remote_addr = remote_addr.map(tracing::field::display);
                tracing::warn!(
                    target: "onbytes", event = name, remote_addr, %cause, left_out, "refused"
                );
            }
            Event::Overload { pressure, before, memory, ceiling } => {
                let Some(left_out) = self.admit(Line::Overload) else {
                    return;
                };
                let action = pressure.action();
                if pressure > before {
                    tracing::warn!(
                        target: "onbytes", event = name, %pressure, %before, action, memory, ceiling,
                        left_out, "memory is short"
                    );
                } else {
                    tracing::info!(
                        target: "onbytes", event = name, %pressure, %before, action, memory, ceiling,
                        left_out, "memory is less short"
                    );
                }
            }
            Event::LimitsWarning { warning } => {
                tracing::warn!(target: "onbytes", event = name, warning, "limits");
            }
            Event::LimitsChanged {} => {
                tracing::info!(target: "onbytes", event = name, "limits are changed");
            }
            Event::Suspended {} => {
                tracing::info!(target: "onbytes", event = name, "accepting is suspended");
            }
            Event::Resumed {} => {
                tracing::info!(target: "onbytes", event = name, "accepting is resumed");
            }
            Event::Closed { id, remote_addr, close } => {
                self.log_closed(name, *id, *remote_addr, close);
            }
            Event::FrameDropped { id, remote_addr, error } => {
                let Some(left_out) = self.admit(Line::FrameDropped) else {
                    return;
                };
                tracing::warn!(
                    target: "onbytes", event = name, %id, %remote_addr, error = %Chain(error), left_out,
                    "a frame was skipped"
                );
            }
            Event::Panicked { id, callback, panic } => {
                let Some(left_out) = self.admit(Line::Panicked) else {
                    return;
                };
                tracing::error!(
                    target: "onbytes", event = name, %id, callback, panic, left_out,
                    "a callback panicked"
                );
            }
            Event::CloseOverran { id } => {
                let Some(left_out) = self.admit(Line::CloseOverran) else {
                    return;
                };
                tracing::warn!(
                    target: "onbytes", event = name, %id, left_out,
                    "on_close took too long and was dropped"
                );
            }
            Event::AcceptFailed { error } => tracing::debug!(
                target: "onbytes", event = name, error = %Chain(error),
                "a connection failed before it was accepted"
            ),
            Event::Starved { error } => tracing::error!(
                target: "onbytes", event = name, error = %Chain(error),
                "out of descriptors or memory; callers wait"
            ),
            Event::Recovered {} => {
                tracing::info!(target: "onbytes", event = name, "accepting works again");
            }
            Event::Lost { error } => tracing::error!(
                target: "onbytes", event = name, error = %Chain(error),
                "the listening socket is gone"
            ),
            #[cfg(feature = "_tls")]
            Event::Reloaded {} => {
                tracing::info!(target: "onbytes", event = name, "certificates are reloaded");
            }
            #[cfg(feature = "_tls")]
            Event::ReloadFailed { error } => tracing::error!(
                target: "onbytes", event = name, error = %Chain(error),
                "certificates are not reloaded; those of before stay in use"
            ),
            #[cfg(feature = "_tls")]
            Event::TlsWarning { warning } => {
                tracing::warn!(target: "onbytes", event = name, warning, "TLS");
            }
            Event::Stopping { connections } => {
                tracing::info!(target: "onbytes", event = name, connections, "stopping");
            }
            Event::Stopped { report } => tracing::info!(
                target: "onbytes", event = name,
                clean = report.clean, forced = report.forced, abandoned = report.abandoned,
                "stopped"
            ),
        }
    }

    fn log_closed(&self, name: &str, id: ConnectionId, remote_addr: SocketAddr, close: &Close) {
        let Close { reason, stats, error } = close;
        let error = error.as_ref().map(|error| tracing::field::display(Chain(error)));
        macro_rules! closed {
            ($level:ident, $left_out:expr) => {
                tracing::$level!(
                    target: "onbytes", event = name, %id, %remote_addr, %reason, error,
                    bytes_received = stats.bytes_received, bytes_sent = stats.bytes_sent,
                    bytes_unsent = stats.bytes_unsent, chunks_received = stats.chunks_received,
                    chunks_sent = stats.chunks_sent, frames_dropped = stats.frames_dropped, age = stats.age.as_secs_f64(),
                    left_out = $left_out, "closed"
                )
            };
        }
        match reason {
            crate::CloseReason::ServiceError | crate::CloseReason::Rejected => {
                let Some(left_out) = self.admit(Line::NotServed) else {
                    return;
                };
                closed!(warn, left_out);
            }
            crate::CloseReason::HandshakeFailed | crate::CloseReason::HandshakeTimeout => {
                let Some(left_out) = self.admit(Line::Handshake) else {
                    return;
                };
                closed!(info, left_out);
            }
            crate::CloseReason::Limit => {
                let Some(left_out) = self.admit(Line::Limit) else {
                    return;
                };
                closed!(warn, left_out);
            }
            crate::CloseReason::FrameTooLong
            | crate::CloseReason::FrameMalformed
            | crate::CloseReason::FrameTimeout
            | crate::CloseReason::PartialFrame => {
                let Some(left_out) = self.admit(Line::Fault) else {
                    return;
                };
                closed!(info, left_out);
            }
            _ => closed!(debug, None::<u64>),
        }
    }

    /// Whether a line of the given kind may be logged now; if so, how many were left out before.
    fn admit(&self, line: Line) -> Option<Option<u64>> {
        let mut quota = self.quota.lock().unwrap_or_else(PoisonError::into_inner);
        quota[line.index()].admit(Instant::now()).map(|left_out| (left_out > 0).then_some(left_out))
    }
}

/// The kinds of lines that peers can cause in any number.
#[derive(Clone, Copy)]
enum Line {
    Overload,
    Panicked,
    CloseOverran,
    /// A connection that its service did not want, or could not serve.
    NotServed,
    Handshake,
    Limit,
    FrameDropped,
    /// A connection whose peer sent what is no frame.
    Fault,
    /// Each cause by itself, so that a flood of one does not hide another.
    Refused(Refusal),
}

impl Line {
    const COUNT: usize = 8 + Refusal::ALL.len();

    fn index(self) -> usize {
        match self {
            Self::Overload => 0,
            Self::Panicked => 1,
            Self::CloseOverran => 2,
            Self::NotServed => 3,
            Self::Handshake => 4,
            Self::Limit => 5,
            Self::FrameDropped => 6,
            Self::Fault => 7,
            Self::Refused(cause) => 8 + cause as usize,
        }
    }
}

/// Ten lines in ten seconds, and a count of those left out.
#[derive(Default)]
struct Quota {
    since: Option<Instant>,
    admitted: u32,
    left_out: u64,
}

impl Quota {
    const LINES: u32 = 10;
    const PERIOD: Duration = Duration::from_secs(10);

    fn admit(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= Self::PERIOD) {
            self.since = Some(now);
            self.admitted = 0;
        }
        if self.admitted == Self::LINES {
            self.left_out += 1;
            return None;
        }
        self.admitted += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// An error with its causes, in one line.
struct Chain<'a>(&'a Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = std::error::Error::source(self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_in_ten_seconds_and_the_rest_is_counted() {
        let mut quota = Quota::default();
        let start = Instant::now();
        let admitted = (0..100).filter(|_| quota.admit(start).is_some()).count();
        assert_eq!(admitted, 10);
        assert_eq!(quota.admit(start + Duration::from_secs(10)), Some(90));
        assert_eq!(quota.admit(start + Duration::from_secs(10)), Some(0));
    }

    #[test]
    fn a_panicking_hook_harms_nobody() {
        let events = Events::default();
        events.set_hook(Arc::new(|_| panic!("the hook")));
        events.emit(&Event::Recovered {});
    }

    /// Fails on an event whose line would name a field twice.
    struct UniqueFields {
        lines: std::sync::atomic::AtomicUsize,
    }

    impl tracing::Subscriber for UniqueFields {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn event(&self, event: &tracing::Event<'_>) {
            let names: Vec<_> =
                event.metadata().fields().iter().map(|field| field.name()).collect();
            let unique: std::collections::HashSet<_> = names.iter().collect();
            assert_eq!(unique.len(), names.len(), "{names:?}");
            assert!(unique.contains(&"event") && unique.contains(&"message"), "{names:?}");
            self.lines.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        }

        fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
            tracing::span::Id::from_u64(1)
        }

        fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
        fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
        fn enter(&self, _: &tracing::span::Id) {}
        fn exit(&self, _: &tracing::span::Id) {}
    }

    #[test]
    fn every_event_is_one_line_that_names_no_field_twice() {
        let (id, address) = (ConnectionId::of(1), "127.0.0.1:1".parse().unwrap());
        let error = &Error::new("an error");
        let close = |reason| Close { reason, stats: Default::default(), error: None };
        let orderly = &close(crate::CloseReason::PeerClosed);
        let rejected = &close(crate::CloseReason::Rejected);
        let limited = &close(crate::CloseReason::Limit);
        let overload =
            |before, pressure| Event::Overload { pressure, before, memory: 1, ceiling: 2 };
        #[cfg(feature = "_tls")]
        let unshaken = &close(crate::CloseReason::HandshakeFailed);
        let all = [
            Event::Listening { local_addr: address },
            Event::Accepted { id, remote_addr: address, local_addr: address },
            Event::Refused { remote_addr: Some(address), cause: Refusal::Denied },
            Event::Closed { id, remote_addr: address, close: limited },
            overload(Pressure::None, Pressure::Shrink),
            overload(Pressure::Shrink, Pressure::None),
            Event::LimitsWarning { warning: "a warning" },
            Event::LimitsChanged {},
            Event::Suspended {},
            Event::Resumed {},
            Event::Closed { id, remote_addr: address, close: orderly },
            Event::Closed { id, remote_addr: address, close: rejected },
            Event::Panicked { id, callback: "on_bytes", panic: "boom" },
            Event::CloseOverran { id },
            Event::AcceptFailed { error },
            Event::Starved { error },
            Event::Recovered {},
            Event::Lost { error },
            #[cfg(feature = "_tls")]
            Event::Closed { id, remote_addr: address, close: unshaken },
            #[cfg(feature = "_tls")]
            Event::Reloaded {},
            #[cfg(feature = "_tls")]
            Event::ReloadFailed { error },
            #[cfg(feature = "_tls")]
            Event::TlsWarning { warning: "a warning" },
            Event::Stopping { connections: 1 },
            Event::Stopped { report: &StopReport::default() },
        ];
        let lines = Arc::new(UniqueFields { lines: 0.into() });
        tracing::subscriber::with_default(Arc::clone(&lines), || {
            let events = Events::default();
            all.iter().for_each(|event| events.emit(event));
            // Another test may have met one of these for the first time just now, and found that nobody listens.
            tracing::callsite::rebuild_interest_cache();
            lines.lines.store(0, std::sync::atomic::Ordering::SeqCst);
            all.iter().for_each(|event| events.emit(event));
        });
        assert_eq!(lines.lines.load(std::sync::atomic::Ordering::SeqCst), all.len());
    }
}
