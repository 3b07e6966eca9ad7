//! What the behaviour tests share: a listener whose service records what happens to it, and peers
//! that speak raw TCP.
// Each test file is a crate of its own and uses its own part of this.
#![allow(dead_code, unreachable_pub)]

pub mod examples;
#[cfg(any(feature = "tls", feature = "tls-ring"))]
pub mod tls;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use onbytes::{
    Bytes, Caller, Close, CloseReason, ConnectionService, Drain, Error, ErrorKind, Listener,
    ListenerConfiguration, Result, Service,
};
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Bounds every wait of a test, so that a failure is a message and not a hang. Nothing waits for it
/// when the test passes.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Awaits `future`, or fails the test by name.
#[track_caller]
pub fn within<T>(what: &str, future: impl Future<Output = T>) -> impl Future<Output = T> {
    let place = std::panic::Location::caller();
    async move {
        match tokio::time::timeout(PATIENCE, future).await {
            Ok(value) => value,
            Err(_) => panic!("{what} did not happen within {PATIENCE:?} (at {place})"),
        }
    }
}

/// One callback of a connection, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Connect,
    Bytes(Vec<u8>),
    End,
    Error(ErrorKind),
    Drain,
    Close(CloseReason),
}

/// What a recording service does in its callbacks, beside recording them.
pub trait Script: Send + Sync + 'static {
    fn connect(&self, caller: &Caller) -> impl Future<Output = Result<()>> + Send {
        let _ = caller;
        async { Ok(()) }
    }
    fn bytes(
        &self,
        data: Bytes,
        caller: &Caller,
    ) -> impl Future<Output = Result<Option<Bytes>>> + Send {
        let _ = caller;
        async { Ok(Some(data)) }
    }
    fn end(&self, caller: &Caller) -> impl Future<Output = Result<Option<Bytes>>> + Send {
        let _ = caller;
        async { Ok(None) }
    }
    fn error(&self, error: Error, caller: &Caller) -> impl Future<Output = Result<()>> + Send {
        let _ = caller;
        async { Err(error) }
    }
    fn drain(&self, caller: &Caller) -> impl Future<Output = Drain> + Send {
        let _ = caller;
        async { Drain::CloseWhenIdle }
    }
    fn close(&self, close: &Close) -> impl Future<Output = ()> + Send {
        let _ = close;
        async {}
    }
}

/// Sends back what it gets, and nothing else.
pub struct Echo;
impl Script for Echo {}

/// A script made of a closure for `on_bytes` that gets the caller too.
pub struct OnBytes<F>(pub F);
impl<F, Fut> Script for OnBytes<F>
where
    F: Fn(Bytes, Caller) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Option<Bytes>>> + Send,
{
    fn bytes(
        &self,
        data: Bytes,
        caller: &Caller,
    ) -> impl Future<Output = Result<Option<Bytes>>> + Send {
        (self.0)(data, caller.clone())
    }
}

struct Recording<S> {
    script: std::sync::Arc<S>,
    seen: UnboundedSender<Seen>,
    callers: UnboundedSender<Caller>,
    closes: UnboundedSender<Close>,
}

struct RecordingConnection<S> {
    script: std::sync::Arc<S>,
    seen: UnboundedSender<Seen>,
    closes: UnboundedSender<Close>,
}

impl<S: Script> Service for Recording<S> {
    type Connection = RecordingConnection<S>;

    async fn on_connect(&self, caller: &Caller) -> Result<Self::Connection> {
        let _ = self.callers.send(caller.clone());
        self.script.connect(caller).await?;
        let _ = self.seen.send(Seen::Connect);
        Ok(RecordingConnection {
            script: self.script.clone(),
            seen: self.seen.clone(),
            closes: self.closes.clone(),
        })
    }
}

impl<S: Script> ConnectionService for RecordingConnection<S> {
    async fn on_bytes(&mut self, data: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        let _ = self.seen.send(Seen::Bytes(data.to_vec()));
        self.script.bytes(data, caller).await
    }

    async fn on_end(&mut self, caller: &Caller) -> Result<Option<Bytes>> {
        let _ = self.seen.send(Seen::End);
        self.script.end(caller).await
    }

    async fn on_error(&mut self, error: Error, caller: &Caller) -> Result<()> {
        let _ = self.seen.send(Seen::Error(error.kind()));
        self.script.error(error, caller).await
    }

    async fn on_drain(&mut self, caller: &Caller) -> Drain {
        let _ = self.seen.send(Seen::Drain);
        self.script.drain(caller).await
    }

    async fn on_close(&mut self, close: &Close) {
        let _ = self.seen.send(Seen::Close(close.reason));
        let _ = self.closes.send(close.clone());
        self.script.close(close).await;
    }
}

/// A started listener on a port of 127.0.0.1, and what its connections have seen so far.
pub struct Server {
    pub listener: Listener,
    pub address: SocketAddr,
    seen: UnboundedReceiver<Seen>,
    callers: UnboundedReceiver<Caller>,
    closes: UnboundedReceiver<Close>,
}

impl Server {
    /// Starts with the default configuration.
    pub async fn start(script: impl Script) -> Self {
        Self::with(ListenerConfiguration::new(), script).await
    }

    pub async fn with(config: ListenerConfiguration, script: impl Script) -> Self {
        let listener = Listener::new(("127.0.0.1", 0), config).unwrap();
        let (seen, callers, closes) = Self::attach(&listener, script);
        listener.start().await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address, seen, callers, closes }
    }

    /// Attaches a recording service to `listener`.
    pub fn attach(
        listener: &Listener,
        script: impl Script,
    ) -> (UnboundedReceiver<Seen>, UnboundedReceiver<Caller>, UnboundedReceiver<Close>) {
        let (seen, seen_by) = unbounded_channel();
        let (callers, called) = unbounded_channel();
        let (closes, closed) = unbounded_channel();
        listener.attach(Recording { script: std::sync::Arc::new(script), seen, callers, closes });
        (seen_by, called, closed)
    }

    /// Connects a peer.
    pub async fn connect(&self) -> Peer {
        within("connecting", Peer::connect(self.address)).await
    }

    /// The next callback.
    #[track_caller]
    pub fn next(&mut self) -> impl Future<Output = Seen> + '_ {
        let seen = within("a callback", self.seen.recv());
        async move { seen.await.expect("the service is gone") }
    }

    /// Fails unless the next callbacks are these, in this order.
    pub async fn expect(&mut self, expected: impl IntoIterator<Item = Seen>) {
        for expected in expected {
            assert_eq!(self.next().await, expected);
        }
    }

    /// The caller of the next connection that has not been asked for.
    pub async fn caller(&mut self) -> Caller {
        within("a connection", self.callers.recv()).await.expect("the service is gone")
    }

    /// What the next `on_close` that has not been asked for was told.
    pub async fn close(&mut self) -> Close {
        within("a close", self.closes.recv()).await.expect("the service is gone")
    }

    /// The callbacks that were seen and have not been asked for.
    pub fn seen_so_far(&mut self) -> Vec<Seen> {
        std::iter::from_fn(|| self.seen.try_recv().ok()).collect()
    }

    /// Fails if a callback was seen that has not been asked for. Only for use after the listener
    /// has stopped, when none can follow.
    pub fn expect_no_more(&mut self) {
        if let Ok(seen) = self.seen.try_recv() {
            panic!("unexpected callback: {seen:?}");
        }
    }
}

/// A raw TCP peer.
pub struct Peer {
    pub stream: TcpStream,
}

impl Peer {
    pub async fn connect(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap() }
    }

    /// Connects with a receive buffer as small as the kernel makes it, so that it is full soon.
    pub async fn connect_narrow(address: SocketAddr) -> Self {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(1).unwrap();
        Self { stream: within("connecting", socket.connect(address)).await.unwrap() }
    }

    pub async fn send(&mut self, data: impl AsRef<[u8]>) {
        within("sending", self.stream.write_all(data.as_ref())).await.unwrap();
    }

    /// Sends FIN.
    pub async fn finish(&mut self) {
        within("the FIN", self.stream.shutdown()).await.unwrap();
    }

    /// Closes with a reset.
    pub fn reset(self) {
        sockopt::set_socket_linger(&self.stream, Some(Duration::ZERO)).unwrap();
    }

    /// Sends one byte of TCP urgent data.
    pub async fn send_urgent(&mut self, byte: u8) {
        use rustix::net::SendFlags;
        let stream = &self.stream;
        let sent = stream.async_io(tokio::io::Interest::WRITABLE, || {
            Ok(rustix::net::send(stream, &[byte], SendFlags::OOB)?)
        });
        assert_eq!(within("sending", sent).await.unwrap(), 1);
    }

    /// Reads exactly what is expected.
    #[track_caller]
    pub fn expect(&mut self, expected: impl AsRef<[u8]>) -> impl Future<Output = ()> + '_ {
        let expected = expected.as_ref().to_vec();
        let mut got = vec![0; expected.len()];
        let read =
            within("reading", async move { self.stream.read_exact(&mut got).await.map(|_| got) });
        async move {
            let got = read.await.unwrap();
            assert!(got == expected, "got {:?}, not {:?}", Bytes::from(got), Bytes::from(expected));
        }
    }

    /// Reads to the end: what came, and whether it ended with FIN (`Ok`) or with an error.
    #[track_caller]
    pub fn read_to_end(&mut self) -> impl Future<Output = (Vec<u8>, io::Result<()>)> + '_ {
        let mut got = Vec::new();
        within("the end of the stream", async move {
            let result = self.stream.read_to_end(&mut got).await;
            (got, result.map(|_| ()))
        })
    }

    /// Fails unless the stream ends with FIN after exactly `expected`.
    #[track_caller]
    pub fn expect_end(&mut self, expected: impl AsRef<[u8]>) -> impl Future<Output = ()> + '_ {
        let expected = expected.as_ref().to_vec();
        let read = self.read_to_end();
        async move {
            let (got, result) = read.await;
            assert!(got == expected, "got {:?}, not {:?}", Bytes::from(got), Bytes::from(expected));
            result.expect("the stream ends with FIN");
        }
    }

    /// Fails unless the connection ends with a reset.
    pub async fn expect_reset(&mut self) {
        let (_, result) = self.read_to_end().await;
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

/// Waits until `holds` does, for what is seen only by looking: counters, tasks, ports.
pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    within(what, async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

/// The names of a listener's events, in their order.
pub struct EventNames(UnboundedReceiver<&'static str>);

impl EventNames {
    /// Listens to the events of `listener` from now on.
    pub fn of(listener: &Listener) -> Self {
        let (names, seen) = unbounded_channel();
        listener.on_event(move |event| {
            let _ = names.send(event.name());
        });
        Self(seen)
    }

    /// Waits until an event of this name has been seen; those before it are skipped.
    pub async fn until(&mut self, name: &str) {
        within(name, async { while self.0.recv().await.expect("the listener is gone") != name {} })
            .await;
    }

    /// The names that were seen and not asked for.
    pub fn rest(&mut self) -> Vec<&'static str> {
        std::iter::from_fn(|| self.0.try_recv().ok()).collect()
    }
}

/// Numbers that look random, the same for the same seed.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }
}

/// `len` bytes of which no part repeats another, different for each seed.
pub fn pattern(seed: u64, len: usize) -> Bytes {
    let mut rng = Rng::new(seed.wrapping_add(1));
    let mut data = Vec::with_capacity(len + 8);
    while data.len() < len {
        data.extend_from_slice(&rng.next().to_le_bytes());
    }
    data.truncate(len);
    data.into()
}

/// A configuration under which little fits into the kernel's buffers, so that a peer that does not
/// read is felt soon.
pub fn narrow() -> ListenerConfiguration {
    use onbytes::SocketOptions;
    let socket = SocketOptions::new().send_buffer(4096).receive_buffer(4096);
    ListenerConfiguration::new().socket(socket)
}

/// Polls a future once, for nobody.
pub fn poll_once<F: Future + Unpin>(future: &mut F) -> std::task::Poll<F::Output> {
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::Pin::new(future).poll(&mut cx)
}

/// A message that can be recognised whole: length, writer, number, and a body that depends on both.
pub fn message(writer: u32, number: u32, len: usize) -> Bytes {
    let mut data = Vec::with_capacity(16 + len);
    data.extend_from_slice(&u32::try_from(len).unwrap().to_be_bytes());
    data.extend_from_slice(&writer.to_be_bytes());
    data.extend_from_slice(&number.to_be_bytes());
    let body = pattern(u64::from(writer) << 32 | u64::from(number), len);
    let sum =
        body.iter().fold(17u32, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(*byte)));
    data.extend_from_slice(&sum.to_be_bytes());
    data.extend_from_slice(&body);
    data.into()
}

/// Takes a stream of [`message`]s apart into (writer, number), and what is left of an unfinished one.
pub fn messages(stream: &[u8]) -> (Vec<(u32, u32)>, &[u8]) {
    let mut found = Vec::new();
    let mut rest = stream;
    while let Some((head, tail)) = rest.split_at_checked(16) {
        let field = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().unwrap());
        let (len, writer, number) = (field(0) as usize, field(4), field(8));
        assert!(len < 16 << 20, "a torn stream: a message of {len} bytes");
        if tail.len() < len {
            break;
        }
        let whole = &rest[..16 + len];
        assert!(whole == message(writer, number, len), "a torn message {writer}/{number}");
        found.push((writer, number));
        rest = &tail[len..];
    }
    (found, rest)
}
