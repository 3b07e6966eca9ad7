//! The handle by which a service, and any other task, speaks to one connected peer.

use std::fmt;
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::close::CloseReason;
use crate::link::{Link, WriteStep};
use crate::{ConnectionStats, Error, Result};

/// The peer of one connection: who it is, and the way to write to it or to end it.
///
/// A `Caller` is one pointer, cheap to clone, and usable from any task, also while a callback of
/// the same connection runs. It may outlive its connection: the descriptor is closed at the
/// connection's end whatever clones live, and writes then fail with `Closed`.
#[derive(Clone)]
pub struct Caller {
    link: Arc<Link>,
}

impl Caller {
    pub(crate) fn new(link: Arc<Link>) -> Self {
        Self { link }
    }

    #[cfg(feature = "codec")]
    pub(crate) fn link(&self) -> &Link {
        &self.link
    }

    /// The name of this connection, unique across connections and restarts of the process.
    pub fn id(&self) -> ConnectionId {
        ConnectionId::of(self.link.number)
    }

    /// The peer's address in numbers; never the result of a reverse look-up.
    ///
    /// An IPv4 peer of a dual-stack listener shows as IPv4 (`127.0.0.1`, not `::ffff:127.0.0.1`).
    pub fn remote_host(&self) -> String {
        self.link.remote.ip().to_string()
    }

    /// The peer's port.
    pub fn remote_port(&self) -> u16 {
        self.link.remote.port()
    }

    /// Our own address that the peer connected to, in numbers.
    pub fn local_host(&self) -> String {
        self.link.local.ip().to_string()
    }

    /// Our own port that the peer connected to.
    pub fn local_port(&self) -> u16 {
        self.link.local.port()
    }

    /// The peer's address and port.
    pub fn remote_addr(&self) -> SocketAddr {
        self.link.remote
    }

    /// Our own address and port that the peer connected to.
    pub fn local_addr(&self) -> SocketAddr {
        self.link.local
    }

    /// Sends `data` to the peer, waiting while the peer does not read.
    ///
    /// With a [`Framing`](crate::Framing) it is sent as one frame. `Ok` means that the kernel has taken every
    /// byte; it does not mean received. Messages go out whole, in the order in which their futures were first polled, and may be written by any
    /// number of tasks. The write queue has room for `limits.max_queued_bytes` (64 KiB); a writer beyond that waits for room,
    /// and a single larger message enters when the queue is empty. The line is kept in order, so a
    /// future that waits for room has to be polled on or dropped: those behind it wait for it.
    ///
    /// # Errors
    ///
    /// `Closed` at once when the connection is closed or closing; the failure of the transport when
    /// this write ran into it; `Frame` where `data` cannot be one frame.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, `data` goes out whole or not at all: not at all while it still
    /// waits for room in the queue, whole once it is in the queue.
    pub fn write_bytes(&self, data: impl Into<Bytes>) -> WriteBytes<'_> {
        WriteBytes { link: &self.link, step: WriteStep::New(data.into()) }
    }

    /// Queues `data` for the peer without ever waiting.
    ///
    /// `Ok` means accepted: it goes out whole unless the connection ends before.
    ///
    /// # Errors
    ///
    /// `Full` when the queue has no room for it, or others wait for room; `Closed` when the
    /// connection is closed or closing; the failure of the transport when this write ran into it; `Frame`
    /// where `data` cannot be one frame.
    pub fn try_write_bytes(&self, data: impl Into<Bytes>) -> Result<()> {
        self.link.try_write(data.into())
    }

    /// Asks for an orderly end: what is queued is sent, then FIN.
    ///
    /// Returns at once and may be called from any task, any number of times. The reply of a
    /// callback that is running is still sent; later writes fail with `Closed`; chunks that were
    /// not delivered yet are dropped.
    pub fn close(&self) {
        self.link.end(CloseReason::LocalClose, None);
    }

    /// Asks for an end at once: nothing more is sent and the peer sees a reset.
    ///
    /// Returns at once and may be called from any task, any number of times.
    pub fn abort(&self) {
        self.link.end(CloseReason::LocalAbort, None);
    }

    /// Is the connection closed, or closing, for writes?
    pub fn is_closed(&self) -> bool {
        self.link.is_closed()
    }

    /// Waits until the connection is closed, or closing, for writes, whatever the cause.
    ///
    /// # Cancel safety
    ///
    /// The future may be dropped at any time without effect.
    pub fn closed(&self) -> Closed<'_> {
        Closed { link: &self.link, ticket: None }
    }

    /// Bytes accepted for sending that the kernel has not taken yet.
    pub fn queued_bytes(&self) -> usize {
        usize::try_from(self.link.queued()).unwrap_or(usize::MAX)
    }

    /// Whether the frame that is being handled, the last one delivered, is whole: with a
    /// [`Framing`](crate::Framing) whose rules deliver others, too.
    pub fn frame_mark(&self) -> crate::FrameMark {
        self.link.frame_mark()
    }

    /// What the connection has done so far.
    pub fn stats(&self) -> ConnectionStats {
        self.link.stats()
    }

    /// What was agreed on with the peer over TLS, its certificates among it; `None` on a plain
    /// connection.
    ///
    /// It is complete when `on_connect` is called, which can refuse a peer by its certificate:
    ///
    /// ```
    /// # use onbytes::{Caller, Error, Result};
    /// async fn on_connect(caller: &Caller) -> Result<()> {
    ///     let certificate = caller.tls().and_then(|tls| tls.peer_certificate());
    ///     match certificate.and_then(|certificate| certificate.common_name()) {
    ///         Some(name) if name == "billing" => Ok(()),
    ///         _ => Err(Error::new("only billing may connect")),
    ///     }
    /// }
    /// ```
    #[cfg(feature = "_tls")]
    pub fn tls(&self) -> Option<&crate::TlsInfo> {
        self.link.tls()
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("id", &self.id())
            .field("remote", &self.link.remote)
            .field("local", &self.link.local)
            .finish_non_exhaustive()
    }
}

/// The name of a connection: small, `Copy`, and text when displayed.
///
/// It is unique across the connections of a process and, by a random part that each process draws
/// at its start, across processes and restarts.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    process: u64,
    number: u64,
}

impl ConnectionId {
    pub(crate) fn of(number: u64) -> Self {
        static PROCESS: LazyLock<u64> =
            LazyLock::new(|| RandomState::new().hash_one(std::process::id()));
        Self { process: *PROCESS, number }
    }

    /// The connection's number in this process; `None` for one of another process.
    pub(crate) fn number(self) -> Option<u64> {
        (self == Self::of(self.number)).then_some(self.number)
    }
}

impl FromStr for ConnectionId {
    type Err = Error;

    /// Reads the text that an id displays as.
    fn from_str(text: &str) -> Result<Self> {
        let read = || {
            let (process, number) = text.split_once('-')?;
            let process = u64::from_str_radix(process, 16).ok()?;
            let id = Self { process, number: number.parse().ok()? };
            // What reads otherwise is not what was displayed: a sign, capitals, fewer digits.
            (id.to_string() == text).then_some(id)
        };
        read().ok_or_else(|| {
            let shown = crate::endpoint::shown(text);
            Error::configuration(format!(
                "'{shown}' is no connection id; give one as it is logged, such as {}",
                Self { process: 0x0123_4567_89ab_cdef, number: 1 }
            ))
        })
    }
}

/// The number of a new connection, unique in this process.
pub(crate) fn next_number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{}", self.process, self.number)
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionId({self})")
    }
}

/// The future of [`Caller::write_bytes`].
#[must_use = "nothing is written until the future is awaited"]
pub struct WriteBytes<'a> {
    link: &'a Link,
    step: WriteStep,
}

impl fmt::Debug for WriteBytes<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriteBytes").finish_non_exhaustive()
    }
}

impl Future for WriteBytes<'_> {
    type Output = Result<()>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        this.link.poll_write(&mut this.step, cx)
    }
}

impl Drop for WriteBytes<'_> {
    fn drop(&mut self) {
        self.link.abandon_write(&self.step);
    }
}

/// The future of [`Caller::closed`].
#[must_use = "nothing is waited for until the future is awaited"]
pub struct Closed<'a> {
    link: &'a Link,
    ticket: Option<u64>,
}

impl fmt::Debug for Closed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Closed").finish_non_exhaustive()
    }
}

impl Future for Closed<'_> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.link.poll_closed(&mut this.ticket, cx)
    }
}

impl Drop for Closed<'_> {
    fn drop(&mut self) {
        self.link.abandon_closed(self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_ids_are_text_and_differ() {
        let (one, two) = (ConnectionId::of(1), ConnectionId::of(2));
        assert_ne!(one, two);
        assert!(one.to_string().ends_with("-1"));
        assert_eq!(one.process, two.process);
    }

    #[test]
    fn an_id_is_read_back_from_its_text_and_nothing_else_is() {
        let id = ConnectionId::of(17);
        assert_eq!(id.to_string().parse::<ConnectionId>().unwrap(), id);
        assert_eq!(id.number(), Some(17));
        let foreign: ConnectionId = "0123456789abcdef-17".parse().unwrap();
        assert_eq!(foreign.number(), None);
        for text in
            ["", "-", "1-1", "0123456789ABCDEF-1", "0123456789abcdef-+1", "x", "0123456789abcdef-"]
        {
            assert!(text.parse::<ConnectionId>().unwrap_err().is_configuration(), "{text}");
        }
    }

    #[test]
    fn a_caller_is_one_pointer_and_may_go_anywhere() {
        fn anywhere<T: Send + Sync + Clone + 'static>() {}
        anywhere::<Caller>();
        assert_eq!(size_of::<Caller>(), size_of::<usize>());
    }
}
