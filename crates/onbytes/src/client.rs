//! The client: a connection that we make, with the same write side as a connection we accept.

use std::fmt;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::coop;
use tokio::time::Instant;

use crate::caller::next_number;
use crate::close::{CloseReason, Parting};
use crate::endpoint::{Endpoint, canonical};
use crate::framing::Compiled;
use crate::ledger::Ledger;
use crate::link::{Ending, LINGER, LINGER_BYTES, Link, Received, State, Wakes, WriteStep};
use crate::socket::Socket;
use crate::timer::{Timer, later};
use crate::{
    ClientConfiguration, ConnectionId, ConnectionStats, Error, ErrorKind, FrameMark, Result,
};

mod connecting;
mod io;

/// A TCP connection to a server.
///
/// It reads and writes whole chunks with [`read_bytes`](Self::read_bytes) and
/// [`write_bytes`](Self::write_bytes), and it is also `AsyncRead + AsyncWrite`. Dropping it closes
/// the connection; [`close`](Self::close) does so in order and tells how it went.
///
/// ```no_run
/// use onbytes::{Client, ClientConfiguration};
///
/// # async fn example() -> onbytes::Result<()> {
/// let mut client = Client::connect("localhost", 3000, ClientConfiguration::new()).await?;
/// client.write_bytes("hello").await?;
/// while let Some(data) = client.read_bytes().await? {
///     println!("{} bytes", data.len());
/// }
/// client.close().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Client {
    reader: ClientReader,
    writer: ClientWriter,
}

/// The reading half of a [`Client`]: [`Client::into_split`].
pub struct ClientReader {
    connection: Arc<Connection>,
    timer: Timer,
    /// What `AsyncRead` took from the connection and nobody has read yet.
    rest: Bytes,
    has_ended: bool,
    /// The wait for the end of the connection, which the write side may bring about.
    watch: Option<u64>,
}

/// The writing half of a [`Client`]: [`Client::into_split`]. Clones write to the same connection.
pub struct ClientWriter {
    connection: Arc<Connection>,
    /// What `AsyncWrite` waits for: that everything accepted is sent.
    flush: WriteStep,
}

/// What the halves share; when it goes, the connection is closed.
struct Connection {
    link: Arc<Link>,
    runtime: Handle,
    timeout: Option<Duration>,
    write_timeout: Option<Duration>,
}

impl Client {
    /// Connects to `host`, a name or an address, at `port`.
    ///
    /// Every address of the name is tried in turn, within `connect_timeout` (30 s) for all of them
    /// together.
    ///
    /// # Errors
    ///
    /// `Configuration` for a value that cannot be, and for a file of `secure_socket` that cannot be
    /// used; `Connect` where the name is unknown or no address answers; `Timeout` where that, or the
    /// TLS handshake, takes too long; `Tls` where the handshake fails. A server of TLS 1.3 that
    /// refuses our certificate says so later: the first read fails then.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no connection is made, or it is closed.
    pub async fn connect(host: &str, port: u16, config: ClientConfiguration) -> Result<Self> {
        Self::connect_to((host, port), config).await
    }

    /// Connects to an [`Endpoint`], which needs a host: as [`connect`](Self::connect).
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no connection is made, or it is closed.
    pub async fn connect_to(
        endpoint: impl Into<Endpoint>,
        config: ClientConfiguration,
    ) -> Result<Self> {
        config.check()?;
        let endpoint = endpoint.into();
        // Files are read before anything is asked of the network.
        #[cfg(feature = "_tls")]
        let connector = connecting::prepare(&config).await?;
        let deadline = later(Instant::now(), config.connect_timeout);
        let (fd, remote, local) = connecting::connect(&endpoint, &config, deadline).await?;
        let failed = |error| Error::caused(ErrorKind::Connect, "cannot use the socket", error);
        let socket = Socket::register(fd).map_err(failed)?;
        let ledger = Arc::new(Ledger::new(config.max_queued_bytes));
        let link = Link::new(next_number(), canonical(remote), canonical(local), socket, ledger);
        #[cfg(feature = "_tls")]
        if let Some(connector) = connector {
            connecting::shake_hands(&link, &connector, &endpoint, &config).await?;
        }
        if let Some(framing) = &config.framing {
            link.frame(&Compiled::new(framing)?);
        }
        let connection = Arc::new(Connection {
            link: Arc::new(link),
            runtime: Handle::current(),
            timeout: config.timeout,
            write_timeout: config.write_timeout,
        });
        Ok(Self {
            reader: ClientReader {
                connection: Arc::clone(&connection),
                timer: Timer::default(),
                rest: Bytes::new(),
                has_ended: false,
                watch: None,
            },
            writer: ClientWriter { connection, flush: WriteStep::Done },
        })
    }

    /// Waits for bytes and returns what has arrived, at least one; `None` when the server has ended
    /// its side (FIN) and everything before it was read. With a [`Framing`](crate::Framing) it returns one
    /// whole frame, which may be empty.
    ///
    /// # Errors
    ///
    /// `Timeout` where nothing came within `timeout` (300 s); the connection stays usable. `Frame` where what
    /// came is no frame, which ends the connection. The
    /// failure of the connection where it failed; `Closed` after it.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no data is lost.
    pub async fn read_bytes(&mut self) -> Result<Option<Bytes>> {
        self.reader.read_bytes().await
    }

    /// Sends `data` to the server, waiting while it does not read.
    ///
    /// `Ok` means that the kernel has taken every byte; it does not mean received. With a
    /// [`Framing`](crate::Framing) it is sent as one frame.
    ///
    /// # Errors
    ///
    /// `Frame` where `data` cannot be one frame. The failure of the connection, among them `Timeout` where the kernel took no byte for
    /// `write_timeout` (300 s), which ends the connection; `Closed` after it, and after
    /// [`finish`](Self::finish).
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, `data` goes out whole or not at all: not at all while it still
    /// waits for room in the queue (`max_queued_bytes`, 64 KiB), whole once it is in the queue.
    pub async fn write_bytes(&self, data: impl Into<Bytes>) -> Result<()> {
        self.writer.write_bytes(data).await
    }

    /// Ends our side (FIN) after everything written has been sent; reading goes on.
    ///
    /// # Errors
    ///
    /// The failure of the connection.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, later writes still fail with `Closed`, and FIN may not be sent
    /// before the client is dropped.
    pub async fn finish(&self) -> Result<()> {
        self.writer.finish().await
    }

    /// Closes in order: sends everything written and FIN, and discards what the server still sends
    /// until its FIN, for at most 2 s and 1 MiB.
    ///
    /// # Errors
    ///
    /// The failure of the connection, where something written could not be sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the client is dropped.
    pub async fn close(mut self) -> Result<()> {
        self.writer.finish().await?;
        if !self.reader.has_ended {
            self.reader.discard().await;
        }
        Ok(())
    }

    /// Splits into a reader and a writer that can be cloned, for use by different tasks.
    ///
    /// The connection is closed when all of them are dropped.
    pub fn into_split(self) -> (ClientReader, ClientWriter) {
        (self.reader, self.writer)
    }

    /// The name of this connection, unique across connections and restarts of the process.
    pub fn id(&self) -> ConnectionId {
        ConnectionId::of(self.link().number)
    }

    /// The server's address and port.
    pub fn remote_addr(&self) -> SocketAddr {
        self.link().remote
    }

    /// Our own address and port.
    pub fn local_addr(&self) -> SocketAddr {
        self.link().local
    }

    /// Whether the frame that was read last is whole: with a [`Framing`](crate::Framing) whose rules
    /// deliver others, too.
    pub fn frame_mark(&self) -> FrameMark {
        self.link().frame_mark()
    }

    /// What the connection has done so far.
    pub fn stats(&self) -> ConnectionStats {
        self.link().stats()
    }

    /// What was agreed on with the server over TLS; `None` on a plain connection.
    #[cfg(feature = "_tls")]
    pub fn tls(&self) -> Option<&crate::TlsInfo> {
        self.link().tls()
    }

    fn link(&self) -> &Link {
        &self.writer.connection.link
    }
}

/// Takes what can be given to the reader, or waits for it.
fn poll_received(
    state: &mut State,
    cx: &mut Context<'_>,
    wakes: &mut Wakes,
) -> Poll<Option<Received>> {
    /// So many pieces of frames are taken before others get their turn.
    const TURN: usize = 32;
    for _ in 0..TURN {
        match ready!(state.poll_input(cx, wakes)) {
            Some(Received::Piece { .. } | Received::Dropped { .. }) => {}
            received => {
                // The reader may take its time for the next one.
                state.compact_input();
                return Poll::Ready(received);
            }
        }
    }
    cx.waker().wake_by_ref();
    Poll::Pending
}

impl ClientReader {
    /// Waits for bytes: [`Client::read_bytes`].
    ///
    /// # Errors
    ///
    /// As for [`Client::read_bytes`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, no data is lost.
    pub async fn read_bytes(&mut self) -> Result<Option<Bytes>> {
        if !self.rest.is_empty() {
            return Ok(Some(std::mem::take(&mut self.rest)));
        }
        let deadline = later(Instant::now(), self.connection.timeout);
        let mut read = Read { reader: self, deadline, has_waited: false };
        poll_fn(|cx| read.poll(cx)).await
    }

    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        if self.has_ended {
            return Poll::Ready(Ok(None));
        }
        // However much there is to read, others on this thread get their turn.
        let turn = ready!(coop::poll_proceed(cx));
        let Self { connection, watch, .. } = self;
        let received = connection.link.change(|state, wakes| {
            // What arrived before a failure of the write side can still be read.
            match poll_received(state, cx, wakes) {
                Poll::Ready(None) => Poll::Ready(Err(state.failure())),
                Poll::Ready(Some(Received::Fault(fault))) => {
                    let (reason, error) = (fault.reason, fault.into_error());
                    state.end(reason, Some(error.clone()), wakes);
                    Poll::Ready(Err(error))
                }
                Poll::Ready(Some(received)) => Poll::Ready(Ok(received)),
                Poll::Pending if state.ending().is_some() => Poll::Ready(Err(state.failure())),
                Poll::Pending => {
                    state.watch_end(watch, cx);
                    Poll::Pending
                }
            }
        });
        // What was read may ask for an answer (a change of keys).
        connection.see_to_backlog();
        let received = ready!(received);
        turn.made_progress();
        if let Received::Data { data, .. } = received? {
            return Poll::Ready(Ok(Some(data)));
        }
        self.has_ended = true;
        Poll::Ready(Ok(None))
    }

    /// What the connection has done so far: [`Client::stats`].
    pub fn stats(&self) -> ConnectionStats {
        self.connection.link.stats()
    }

    fn give_up_frame(&self) -> Error {
        self.connection.link.change(|state, wakes| {
            let Some(fault) = state.give_up_frame() else { return state.failure() };
            let (reason, error) = (fault.reason, fault.into_error());
            state.end(reason, Some(error.clone()), wakes);
            error
        })
    }

    /// Whether the frame that was read last is whole: [`Client::frame_mark`].
    pub fn frame_mark(&self) -> FrameMark {
        self.connection.link.frame_mark()
    }

    async fn discard(&mut self) {
        let until = later(Instant::now(), Some(LINGER));
        let mut left = LINGER_BYTES;
        poll_fn(|cx| {
            let over = self.connection.link.lock().poll_discard(cx, &mut left).is_ready()
                || self.timer.poll_passed(cx, until);
            if over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// One read under way. When it is over, or dropped, the server is not waited for any more.
struct Read<'a> {
    reader: &'a mut ClientReader,
    deadline: Option<Instant>,
    has_waited: bool,
}

impl Read<'_> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>>> {
        if let Poll::Ready(result) = self.reader.poll_chunk(cx) {
            return Poll::Ready(result);
        }
        self.has_waited = true;
        let connection = &self.reader.connection;
        let frame = connection.link.lock().frame_deadline();
        let next = [self.deadline, frame].into_iter().flatten().min();
        if !self.reader.timer.poll_passed(cx, next) {
            return Poll::Pending;
        }
        if frame.is_some_and(|frame| next == Some(frame)) {
            return Poll::Ready(Err(self.reader.give_up_frame()));
        }
        let limit = connection.timeout.unwrap_or_default();
        let message = format!("no data came within {limit:?}");
        Poll::Ready(Err(Error::of(ErrorKind::Timeout, message)))
    }
}

impl Drop for Read<'_> {
    fn drop(&mut self) {
        if self.has_waited {
            self.reader.connection.link.lock().pause_frame();
        }
    }
}

impl ClientWriter {
    /// Sends `data`: [`Client::write_bytes`].
    ///
    /// # Errors
    ///
    /// As for [`Client::write_bytes`].
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, `data` goes out whole or not at all.
    pub async fn write_bytes(&self, data: impl Into<Bytes>) -> Result<()> {
        let mut write = Write { connection: &self.connection, step: WriteStep::New(data.into()) };
        poll_fn(|cx| write.connection.poll_write(&mut write.step, cx)).await
    }

    /// Ends our side: [`Client::finish`].
    ///
    /// # Errors
    ///
    /// The failure of the connection.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, later writes still fail with `Closed`, and FIN may not be sent
    /// before the client is dropped.
    pub async fn finish(&self) -> Result<()> {
        let step = self.connection.link.change(State::refuse_writes)?;
        let mut wait = Write { connection: &self.connection, step };
        poll_fn(|cx| wait.connection.poll_write(&mut wait.step, cx)).await?;
        poll_fn(|cx| self.connection.poll_send_fin(cx)).await
    }
}

impl ClientWriter {
    /// Resets the connection: nothing more is sent, and what is queued is let go.
    pub(crate) fn abort(&self) {
        self.connection.link.end(CloseReason::LocalAbort, None);
        self.connection.link.close_socket(Parting::Reset);
    }
}

impl Drop for ClientReader {
    fn drop(&mut self) {
        self.connection.link.abandon_closed(self.watch);
    }
}

impl Clone for ClientWriter {
    fn clone(&self) -> Self {
        Self { connection: Arc::clone(&self.connection), flush: WriteStep::Done }
    }
}

impl Drop for ClientWriter {
    fn drop(&mut self) {
        self.connection.link.abandon_write(&self.flush);
    }
}

/// One write under way, which leaves the line for room when it is dropped.
struct Write<'a> {
    connection: &'a Connection,
    step: WriteStep,
}

impl Drop for Write<'_> {
    fn drop(&mut self) {
        self.connection.link.abandon_write(&self.step);
    }
}

impl Connection {
    fn poll_write(&self, step: &mut WriteStep, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let result = self.link.poll_write(step, cx);
        self.see_to_backlog();
        result
    }

    fn poll_send_fin(&self, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let result = self.link.change(|state, wakes| state.poll_send_fin(cx, wakes));
        self.see_to_backlog();
        result
    }

    /// A connection that was accepted has a task that sends what is queued. A client has one only
    /// while something is.
    fn see_to_backlog(&self) {
        if self.link.lock().claim_backlog() {
            // Made here, so that it is missed nowhere even if the task never runs.
            let link = Arc::clone(&self.link);
            let sender = Sender { link, is_done: false, is_last: false };
            self.runtime.spawn(send_backlog(sender, self.write_timeout));
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // If something is still queued, the task that sends it closes the descriptor afterwards.
        if self.link.change(State::orphan) {
            self.link.close_socket(Parting::Orderly);
        } else {
            self.see_to_backlog();
        }
    }
}

/// Sends what is queued, until nothing is, or the server takes nothing for `write_timeout`. Where
/// nobody holds the client any more, it sees the connection to its end.
async fn send_backlog(mut sender: Sender, write_timeout: Option<Duration>) {
    let mut timer = Timer::default();
    let mut stall = (0, Instant::now());
    let (mut left, mut linger_until) = (LINGER_BYTES, None);
    poll_fn(|cx| {
        sender.link.change(|state, wakes| {
            state.attach_driver(cx);
            if state.poll_backlog(cx, wakes).is_pending() {
                if state.progress() != stall.0 {
                    stall = (state.progress(), Instant::now());
                }
                if !timer.poll_passed(cx, later(stall.1, write_timeout)) {
                    return Poll::Pending;
                }
                let limit = write_timeout.unwrap_or_default();
                let message = format!("the server took no data for {limit:?}");
                let error = Error::of(ErrorKind::Timeout, message);
                state.fail_with(CloseReason::WriteTimeout, error, wakes);
            }
            if state.poll_linger(cx, &mut left).is_pending() {
                let until =
                    *linger_until.get_or_insert_with(|| later(Instant::now(), Some(LINGER)));
                if !timer.poll_passed(cx, until) {
                    return Poll::Pending;
                }
            }
            // Under the same lock that found nothing left, so that nothing can slip in between.
            sender.is_done = true;
            sender.is_last = state.release_backlog();
            Poll::Ready(())
        })
    })
    .await;
}

/// The task that sends what is queued. When it goes, so does what only it could do.
struct Sender {
    link: Arc<Link>,
    is_done: bool,
    /// Nobody holds the client any more.
    is_last: bool,
}

impl Drop for Sender {
    fn drop(&mut self) {
        if !self.is_done {
            // The runtime was shut down with data still queued.
            self.is_last = self.link.change(|state, wakes| {
                let message = "the runtime ended before everything was sent";
                state.fail(Error::of(ErrorKind::Io, message), wakes);
                state.release_backlog()
            });
        }
        if self.is_last {
            let parting = self.link.lock().ending().map_or(Parting::Orderly, Ending::parting);
            self.link.close_socket(parting);
        }
    }
}

impl fmt::Debug for ClientReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remote = &self.connection.link.remote;
        f.debug_struct("ClientReader").field("remote", remote).finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let remote = &self.connection.link.remote;
        f.debug_struct("ClientWriter").field("remote", remote).finish_non_exhaustive()
    }
}
