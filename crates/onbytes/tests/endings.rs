//! The table of endings, row by row: what the peer sees, which callbacks run, what `on_close` is
//! told, and that it is told once.

mod support;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use onbytes::{
    Bytes, Caller, Close, CloseReason, ConnectionService, Drain, Error, ErrorKind, Event,
    ListenerConfiguration, Result, Service, Timeouts,
};
use support::{Echo, OnBytes, Peer, Script, Seen, Server, narrow, pattern, within};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

fn with(timeouts: Timeouts) -> ListenerConfiguration {
    ListenerConfiguration::new().timeouts(timeouts)
}

/// Stops the listener, so that nothing can follow, and checks that nothing did: one connection was
/// counted, with this reason, and no callback is left over.
async fn ended_once(mut server: Server, reason: CloseReason) {
    server.listener.graceful_stop(LONG).await;
    server.expect_no_more();
    let stats = server.listener.stats();
    for known in CloseReason::ALL {
        assert_eq!(stats.closed(known), u64::from(known == reason), "{known}");
    }
    assert_eq!((stats.accepted, stats.active), (1, 0));
}

fn bytes(data: &str) -> Seen {
    Seen::Bytes(data.as_bytes().to_vec())
}

// ---- Orderly ----

#[tokio::test]
async fn peer_closed_flushes_then_sends_fin() {
    let mut server = Server::start(OnBytes(|_: Bytes, caller: Caller| async move {
        caller.try_write_bytes(pattern(1, 500_000))?;
        Ok(Some(pattern(2, 500_000)))
    }))
    .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.finish().await;
    server.expect([Seen::Connect, bytes("x"), Seen::End]).await;
    peer.expect(pattern(1, 500_000)).await;
    peer.expect_end(pattern(2, 500_000)).await;
    server.expect([Seen::Close(CloseReason::PeerClosed)]).await;
    let close = server.close().await;
    assert!(close.error.is_none());
    let stats = close.stats;
    assert_eq!((stats.bytes_received, stats.chunks_received), (1, 1));
    assert_eq!((stats.bytes_sent, stats.chunks_sent), (1_000_000, 2));
    assert_eq!(stats.bytes_unsent, 0);
    ended_once(server, CloseReason::PeerClosed).await;
}

#[tokio::test]
async fn local_close_flushes_a_reply_of_any_size_then_sends_fin() {
    let mut server = Server::start(OnBytes(|_: Bytes, caller: Caller| async move {
        caller.try_write_bytes(pattern(1, 1_000_000))?;
        caller.close();
        Ok(Some(pattern(2, 9_000_000)))
    }))
    .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect(pattern(1, 1_000_000)).await;
    peer.expect_end(pattern(2, 9_000_000)).await;
    server.expect([Seen::Connect, bytes("x"), Seen::Close(CloseReason::LocalClose)]).await;
    let stats = server.close().await.stats;
    assert_eq!((stats.bytes_sent, stats.chunks_sent), (10_000_000, 2));
    drop(peer);
    ended_once(server, CloseReason::LocalClose).await;
}

#[tokio::test]
async fn an_idle_connection_ends_in_order() {
    let mut server = Server::with(with(Timeouts::new().idle(SHORT)), Echo).await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect_end("x").await;
    server.expect([Seen::Connect, bytes("x"), Seen::Close(CloseReason::IdleTimeout)]).await;
    assert!(server.close().await.stats.age >= SHORT);
    drop(peer);
    ended_once(server, CloseReason::IdleTimeout).await;
}

#[tokio::test]
async fn a_connection_with_a_running_callback_is_not_idle() {
    let mut server = Server::with(
        with(Timeouts::new().idle(SHORT)),
        OnBytes(|data: Bytes, _: Caller| async move {
            tokio::time::sleep(4 * SHORT).await;
            Ok(Some(data))
        }),
    )
    .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect_end("x").await;
    server.expect([Seen::Connect, bytes("x"), Seen::Close(CloseReason::IdleTimeout)]).await;
    assert!(server.close().await.stats.age >= 5 * SHORT);
}

#[tokio::test]
async fn a_connection_past_its_lifetime_ends_in_order() {
    let timeouts = Timeouts::new().max_lifetime(SHORT).max_lifetime_jitter(0.0);
    let mut server = Server::with(with(timeouts), Echo).await;
    let mut peer = server.connect().await;
    peer.expect_end("").await;
    server.expect([Seen::Connect, Seen::Close(CloseReason::MaxLifetime)]).await;
    assert!(server.close().await.stats.age >= SHORT);
    drop(peer);
    ended_once(server, CloseReason::MaxLifetime).await;
}

#[tokio::test]
async fn the_end_of_its_lifetime_wakes_a_callback_that_waits_for_the_end() {
    let mut server = Server::with(
        with(Timeouts::new().max_lifetime(SHORT)),
        OnBytes(|_: Bytes, caller: Caller| async move {
            caller.closed().await;
            Ok(Some(Bytes::from_static(b"woken")))
        }),
    )
    .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect_end("woken").await;
    server.expect([Seen::Connect, bytes("x"), Seen::Close(CloseReason::MaxLifetime)]).await;
}

#[tokio::test]
async fn a_service_error_flushes_then_sends_fin() {
    let mut server = Server::start(OnBytes(|_: Bytes, caller: Caller| async move {
        caller.try_write_bytes(pattern(1, 2_000_000))?;
        Err("enough".into())
    }))
    .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect_end(pattern(1, 2_000_000)).await;
    server
        .expect([
            Seen::Connect,
            bytes("x"),
            Seen::Error(ErrorKind::Service),
            Seen::Close(CloseReason::ServiceError),
        ])
        .await;
    let close = server.close().await;
    assert_eq!(close.error.unwrap().to_string(), "enough");
    drop(peer);
    ended_once(server, CloseReason::ServiceError).await;
}

/// Fails at the peer's end.
struct FailAtEnd;
impl Script for FailAtEnd {
    async fn end(&self, caller: &Caller) -> Result<Option<Bytes>> {
        caller.write_bytes("one thing more").await?;
        Err("at the end".into())
    }
}

#[tokio::test]
async fn an_error_of_on_end_goes_to_on_error_and_is_a_service_error() {
    let mut server = Server::start(FailAtEnd).await;
    let mut peer = server.connect().await;
    peer.finish().await;
    peer.expect_end("one thing more").await;
    server
        .expect([
            Seen::Connect,
            Seen::End,
            Seen::Error(ErrorKind::Service),
            Seen::Close(CloseReason::ServiceError),
        ])
        .await;
    ended_once(server, CloseReason::ServiceError).await;
}

#[tokio::test]
async fn a_drained_connection_delivers_what_has_arrived_then_sends_fin() {
    let leave = Arc::new(Notify::new());
    let gate = leave.clone();
    let mut server = Server::start(OnBytes(move |data: Bytes, _: Caller| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            Ok(Some(data))
        }
    }))
    .await;
    let mut peer = server.connect().await;
    peer.send("one ").await;
    server.expect([Seen::Connect, bytes("one ")]).await;
    peer.send("two").await;
    let (told, mut hear) = unbounded_channel();
    server.listener.on_event(move |event| {
        if let Event::Stopping { .. } = event {
            let _ = told.send(());
        }
    });
    let listener = server.listener.clone();
    let stop = tokio::spawn(async move { listener.graceful_stop(LONG).await });
    within("the stop", hear.recv()).await;
    leave.notify_one();
    server.expect([Seen::Drain, bytes("two")]).await;
    leave.notify_one();
    peer.expect_end("one two").await;
    drop(peer);
    assert_eq!(within("the stop", stop).await.unwrap().clean, 1);
    server.expect([Seen::Close(CloseReason::Drained)]).await;
    ended_once(server, CloseReason::Drained).await;
}

#[tokio::test]
async fn closing_over_unread_input_loses_no_reply() {
    for _ in 0..20 {
        let server = Server::start(OnBytes(|_: Bytes, caller: Caller| async move {
            caller.close();
            Ok(Some(pattern(1, 32_000)))
        }))
        .await;
        let peer = server.connect().await;
        let (reading, mut writing) = peer.stream.into_split();
        // The peer talks on and on; sooner or later nobody listens.
        let talking = tokio::spawn(async move {
            let data = pattern(2, 1 << 20);
            for _ in 0..16 {
                if writing.write_all(&data).await.is_err() {
                    break;
                }
            }
            writing
        });
        let mut reading = tokio::io::BufReader::new(reading);
        let mut got = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut got);
        within("the end of the reply", read).await.unwrap();
        assert!(got == pattern(1, 32_000));
        within("the end of talking", talking).await.unwrap();
    }
}

#[tokio::test]
async fn closing_over_unread_input_loses_no_reply_that_is_read_later() {
    let server = Server::start(OnBytes(|_: Bytes, caller: Caller| async move {
        caller.close();
        Ok(Some(pattern(1, 1_500_000)))
    }))
    .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    let _ = within("sending", peer.stream.write_all(&pattern(2, 900_000))).await;
    peer.expect_end(pattern(1, 1_500_000)).await;
}

// ---- Panics ----

/// Panics in one callback.
struct PanicIn(&'static str);

impl PanicIn {
    fn reach(&self, callback: &str) {
        assert!(self.0 != callback, "a wanted panic in {callback}");
    }
}

impl Script for PanicIn {
    async fn connect(&self, caller: &Caller) -> Result<()> {
        caller.try_write_bytes("hello ")?;
        self.reach("on_connect");
        Ok(())
    }
    async fn bytes(&self, data: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        caller.write_bytes("before").await?;
        tokio::task::yield_now().await;
        self.reach("on_bytes");
        match self.0 {
            "on_error" => Err("to on_error".into()),
            _ => Ok(Some(data)),
        }
    }
    async fn end(&self, _: &Caller) -> Result<Option<Bytes>> {
        self.reach("on_end");
        Ok(None)
    }
    async fn error(&self, error: Error, _: &Caller) -> Result<()> {
        self.reach("on_error");
        Err(error)
    }
    async fn drain(&self, _: &Caller) -> Drain {
        self.reach("on_drain");
        Drain::Stay
    }
    async fn close(&self, _: &Close) {
        self.reach("on_close");
    }
}

/// A server that panics in `callback`, with the callbacks whose panics its events tell of.
async fn panicking(callback: &'static str) -> (Server, UnboundedReceiver<&'static str>) {
    let (told, hear) = unbounded_channel();
    let server = Server::start(PanicIn(callback)).await;
    tell_panics(&server, told);
    (server, hear)
}

fn tell_panics(server: &Server, told: UnboundedSender<&'static str>) {
    server.listener.on_event(move |event| {
        if let Event::Panicked { callback, .. } = event {
            let _ = told.send(callback);
        }
    });
}

#[tokio::test]
async fn a_panic_in_on_connect_flushes_and_ends_that_connection_only() {
    let (server, mut hear) = panicking("on_connect").await;
    let mut peer = server.connect().await;
    peer.expect_end("hello ").await;
    drop(peer);
    assert_eq!(within("the event", hear.recv()).await, Some("on_connect"));
    ended_once(server, CloseReason::Panicked).await;
}

#[tokio::test]
async fn a_panic_in_on_bytes_flushes_and_reaches_on_close() {
    let (mut server, mut hear) = panicking("on_bytes").await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect_end("hello before").await;
    assert_eq!(within("the event", hear.recv()).await, Some("on_bytes"));
    server.expect([Seen::Connect, bytes("x"), Seen::Close(CloseReason::Panicked)]).await;
    drop(peer);
    ended_once(server, CloseReason::Panicked).await;
}

#[tokio::test]
async fn a_panic_in_on_end_reaches_on_close() {
    let (mut server, mut hear) = panicking("on_end").await;
    let mut peer = server.connect().await;
    peer.finish().await;
    peer.expect_end("hello ").await;
    assert_eq!(within("the event", hear.recv()).await, Some("on_end"));
    server.expect([Seen::Connect, Seen::End, Seen::Close(CloseReason::Panicked)]).await;
    ended_once(server, CloseReason::Panicked).await;
}

#[tokio::test]
async fn a_panic_in_on_error_reaches_on_close() {
    let (mut server, mut hear) = panicking("on_error").await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect_end("hello before").await;
    assert_eq!(within("the event", hear.recv()).await, Some("on_error"));
    server
        .expect([
            Seen::Connect,
            bytes("x"),
            Seen::Error(ErrorKind::Service),
            Seen::Close(CloseReason::Panicked),
        ])
        .await;
    drop(peer);
    ended_once(server, CloseReason::Panicked).await;
}

#[tokio::test]
async fn a_panic_in_on_error_after_a_transport_failure_leaves_the_first_cause() {
    let (mut server, mut hear) = panicking("on_error").await;
    let mut peer = server.connect().await;
    peer.expect("hello ").await;
    peer.reset();
    assert_eq!(within("the event", hear.recv()).await, Some("on_error"));
    server
        .expect([Seen::Connect, Seen::Error(ErrorKind::Reset), Seen::Close(CloseReason::PeerReset)])
        .await;
    ended_once(server, CloseReason::PeerReset).await;
}

#[tokio::test]
async fn a_panic_in_on_drain_reaches_on_close() {
    let (mut server, mut hear) = panicking("on_drain").await;
    let mut peer = server.connect().await;
    peer.expect("hello ").await;
    let listener = server.listener.clone();
    tokio::spawn(async move { listener.graceful_stop(LONG).await });
    peer.expect_end("").await;
    assert_eq!(within("the event", hear.recv()).await, Some("on_drain"));
    server.expect([Seen::Connect, Seen::Drain, Seen::Close(CloseReason::Panicked)]).await;
    drop(peer);
    ended_once(server, CloseReason::Panicked).await;
}

#[tokio::test]
async fn a_panic_in_on_close_keeps_the_reason_and_is_told() {
    let (mut server, mut hear) = panicking("on_close").await;
    let mut peer = server.connect().await;
    peer.finish().await;
    peer.expect_end("hello ").await;
    assert_eq!(within("the event", hear.recv()).await, Some("on_close"));
    server.expect([Seen::Connect, Seen::End, Seen::Close(CloseReason::PeerClosed)]).await;
    ended_once(server, CloseReason::PeerClosed).await;
}

/// Panics when a callback is called, before there is a future of it to poll.
struct Eager {
    callback: &'static str,
    closed: UnboundedSender<CloseReason>,
}

impl Eager {
    fn reach<T>(&self, callback: &str, value: T) -> T {
        assert!(self.callback != callback, "a wanted panic in {callback}");
        value
    }
}

impl Service for Eager {
    type Connection = Self;

    fn on_connect(&self, _: &Caller) -> impl Future<Output = Result<Self>> + Send {
        let connection = Self { callback: self.callback, closed: self.closed.clone() };
        std::future::ready(Ok(self.reach("on_connect", connection)))
    }
}

impl ConnectionService for Eager {
    fn on_bytes(
        &mut self,
        data: Bytes,
        _: &Caller,
    ) -> impl Future<Output = Result<Option<Bytes>>> + Send {
        let reply = match self.callback {
            "on_error" => Err("to on_error".into()),
            _ => Ok(Some(data)),
        };
        std::future::ready(self.reach("on_bytes", reply))
    }

    fn on_end(&mut self, _: &Caller) -> impl Future<Output = Result<Option<Bytes>>> + Send {
        std::future::ready(self.reach("on_end", Ok(None)))
    }

    fn on_error(&mut self, error: Error, _: &Caller) -> impl Future<Output = Result<()>> + Send {
        std::future::ready(self.reach("on_error", Err(error)))
    }

    fn on_close(&mut self, close: &Close) -> impl Future<Output = ()> + Send {
        self.closed.send(close.reason).unwrap();
        self.reach("on_close", ());
        std::future::ready(())
    }
}

#[tokio::test]
async fn a_panic_before_a_callbacks_future_exists_is_a_panic_of_that_callback() {
    for callback in ["on_connect", "on_bytes", "on_error", "on_end", "on_close"] {
        let server = Server::start(Echo).await;
        let (closed, mut closes) = unbounded_channel();
        let (told, mut hear) = unbounded_channel();
        tell_panics(&server, told);
        server.listener.attach(Eager { callback, closed });
        let mut peer = server.connect().await;
        if callback == "on_bytes" || callback == "on_error" {
            peer.send("x").await;
        } else {
            peer.finish().await;
        }
        peer.expect_end("").await;
        drop(peer);
        let reason = match callback {
            "on_close" => CloseReason::PeerClosed,
            _ => CloseReason::Panicked,
        };
        within("the stop", server.listener.graceful_stop(LONG)).await;
        assert_eq!(hear.try_recv(), Ok(callback));
        if callback != "on_connect" {
            assert_eq!(closes.try_recv(), Ok(reason), "{callback}");
        }
        assert!(closes.try_recv().is_err(), "{callback}: on_close once");
        assert_eq!(server.listener.stats().closed(reason), 1, "{callback}");
    }
}

// ---- Failures of the transport ----

#[tokio::test]
async fn a_peer_reset_drops_what_is_queued_and_counts_it() {
    let mut server = Server::with(
        narrow(),
        OnBytes(|_: Bytes, _: Caller| async move { Ok(Some(pattern(1, 2_000_000))) }),
    )
    .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect(pattern(1, 2_000_000).slice(..10_000)).await;
    peer.reset();
    server
        .expect([
            Seen::Connect,
            bytes("x"),
            Seen::Error(ErrorKind::Reset),
            Seen::Close(CloseReason::PeerReset),
        ])
        .await;
    let close = server.close().await;
    assert_eq!(close.error.unwrap().kind(), ErrorKind::Reset);
    assert!(close.stats.bytes_unsent > 0);
    assert_eq!(close.stats.bytes_sent + close.stats.bytes_unsent, 2_000_000);
    ended_once(server, CloseReason::PeerReset).await;
}

#[tokio::test]
async fn a_peer_that_takes_nothing_is_reset_after_the_write_timeout() {
    let mut server = Server::with(
        narrow().timeouts(Timeouts::new().write(SHORT)),
        OnBytes(|_: Bytes, _: Caller| async move { Ok(Some(pattern(1, 8_000_000))) }),
    )
    .await;
    let mut peer = Peer::connect_narrow(server.address).await;
    peer.send("x").await;
    server
        .expect([
            Seen::Connect,
            bytes("x"),
            Seen::Error(ErrorKind::Timeout),
            Seen::Close(CloseReason::WriteTimeout),
        ])
        .await;
    peer.expect_reset().await;
    let stats = server.close().await.stats;
    assert_eq!(stats.bytes_sent + stats.bytes_unsent, 8_000_000);
    ended_once(server, CloseReason::WriteTimeout).await;
}

#[tokio::test]
async fn the_write_timeout_reaches_a_callback_that_waits_for_its_write() {
    let mut server = Server::with(
        narrow().timeouts(Timeouts::new().write(SHORT)),
        OnBytes(|_: Bytes, caller: Caller| async move {
            caller.write_bytes(pattern(1, 8_000_000)).await?;
            Ok(None)
        }),
    )
    .await;
    let mut peer = Peer::connect_narrow(server.address).await;
    peer.send("x").await;
    server
        .expect([
            Seen::Connect,
            bytes("x"),
            Seen::Error(ErrorKind::Timeout),
            Seen::Close(CloseReason::WriteTimeout),
        ])
        .await;
    peer.expect_reset().await;
    ended_once(server, CloseReason::WriteTimeout).await;
}

#[tokio::test]
async fn the_flush_of_an_orderly_end_is_bounded_by_the_write_timeout() {
    let mut server = Server::with(
        narrow().timeouts(Timeouts::new().write(SHORT)),
        OnBytes(|_: Bytes, caller: Caller| async move {
            caller.close();
            Ok(Some(pattern(1, 8_000_000)))
        }),
    )
    .await;
    let mut peer = Peer::connect_narrow(server.address).await;
    peer.send("x").await;
    server.expect([Seen::Connect, bytes("x"), Seen::Close(CloseReason::LocalClose)]).await;
    peer.expect_reset().await;
    let stats = server.close().await.stats;
    assert_eq!(stats.bytes_sent + stats.bytes_unsent, 8_000_000);
    ended_once(server, CloseReason::LocalClose).await;
}

/// A second descriptor of the server's socket towards `peer`; `None` where the system lends none.
#[cfg(target_os = "linux")]
fn borrow_socket(peer: &Peer) -> Option<std::os::fd::OwnedFd> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let remote = peer.stream.local_addr().unwrap();
    let process = pidfd_open(getpid(), PidfdFlags::empty()).ok()?;
    let entries = std::fs::read_dir("/proc/self/fd").ok()?;
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|number| pidfd_getfd(&process, number, PidfdGetfdFlags::empty()).ok())
        .find(|fd| {
            let address = rustix::net::getpeername(fd).ok().flatten();
            address.and_then(|address| address.try_into().ok()) == Some(remote)
        })
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_connection_that_the_kernel_gives_up_is_an_io_error() {
    let mut server = Server::with(
        narrow(),
        OnBytes(|_: Bytes, _: Caller| async move { Ok(Some(pattern(1, 8_000_000))) }),
    )
    .await;
    let mut peer = Peer::connect_narrow(server.address).await;
    let Some(socket) = borrow_socket(&peer) else {
        return;
    };
    // The kernel's own patience with a peer that takes nothing.
    rustix::net::sockopt::set_tcp_user_timeout(&socket, 100).unwrap();
    drop(socket);
    peer.send("x").await;
    server
        .expect([
            Seen::Connect,
            bytes("x"),
            Seen::Error(ErrorKind::Timeout),
            Seen::Close(CloseReason::IoError),
        ])
        .await;
    ended_once(server, CloseReason::IoError).await;
}

// ---- Cut off ----

#[tokio::test]
async fn an_abort_flushes_nothing_and_resets() {
    let mut server = Server::with(
        narrow(),
        OnBytes(|_: Bytes, caller: Caller| async move {
            caller.try_write_bytes(pattern(1, 2_000_000))?;
            caller.abort();
            assert!(caller.try_write_bytes("no").unwrap_err().is_closed());
            Ok(Some(Bytes::from_static(b"never sent")))
        }),
    )
    .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect_reset().await;
    server.expect([Seen::Connect, bytes("x"), Seen::Close(CloseReason::LocalAbort)]).await;
    let stats = server.close().await.stats;
    assert!(stats.bytes_unsent > 0);
    ended_once(server, CloseReason::LocalAbort).await;
}

#[tokio::test]
async fn an_abort_cuts_an_orderly_end_short_and_the_first_cause_stays() {
    let mut server = Server::with(
        narrow(),
        OnBytes(|_: Bytes, caller: Caller| async move {
            caller.close();
            Ok(Some(pattern(1, 8_000_000)))
        }),
    )
    .await;
    let mut peer = Peer::connect_narrow(server.address).await;
    peer.send("x").await;
    server.expect([Seen::Connect, bytes("x")]).await;
    let caller = server.caller().await;
    within("closing", caller.closed()).await;
    caller.abort();
    peer.expect_reset().await;
    server.expect([Seen::Close(CloseReason::LocalClose)]).await;
    ended_once(server, CloseReason::LocalClose).await;
}

#[tokio::test]
async fn an_abort_while_a_callback_runs_resets_without_waiting_for_it() {
    let mut server =
        Server::start(OnBytes(|_: Bytes, _: Caller| async move { std::future::pending().await }))
            .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    server.expect([Seen::Connect, bytes("x")]).await;
    server.caller().await.abort();
    peer.expect_reset().await;
}

#[tokio::test]
async fn the_deadline_of_a_graceful_stop_drops_the_callback_and_resets() {
    let mut server =
        Server::start(OnBytes(|_: Bytes, _: Caller| async move { std::future::pending().await }))
            .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    server.expect([Seen::Connect, bytes("x")]).await;
    let report = within("the stop", server.listener.graceful_stop(SHORT)).await;
    assert_eq!((report.clean, report.forced, report.abandoned), (0, 1, 0));
    peer.expect_reset().await;
    server.expect([Seen::Close(CloseReason::StopForced)]).await;
    ended_once(server, CloseReason::StopForced).await;
}

#[tokio::test]
async fn an_immediate_stop_drops_the_callback_and_resets() {
    let mut server = Server::start(OnBytes(|_: Bytes, caller: Caller| async move {
        caller.write_bytes("begun").await?;
        std::future::pending().await
    }))
    .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect("begun").await;
    within("the stop", server.listener.immediate_stop()).await;
    peer.expect_reset().await;
    server.expect([Seen::Connect, bytes("x"), Seen::Close(CloseReason::Stopped)]).await;
    ended_once(server, CloseReason::Stopped).await;
}

#[tokio::test]
async fn an_immediate_stop_reports_the_connections_it_cut_off() {
    let mut server = Server::start(Echo).await;
    let _peers = [server.connect().await, server.connect().await];
    server.expect([Seen::Connect, Seen::Connect]).await;
    let report = within("the stop", server.listener.immediate_stop()).await;
    assert_eq!((report.clean, report.forced, report.abandoned), (0, 2, 0));
}

// ---- on_close has a budget ----

/// Never returns from `on_close`.
struct NeverGone;
impl Script for NeverGone {
    async fn bytes(&self, data: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        match &data[..] {
            b"close" => caller.close(),
            b"abort" => caller.abort(),
            b"error" => return Err("wanted".into()),
            b"panic" => panic!("a wanted panic"),
            b"flood" => return Ok(Some(pattern(1, 8_000_000))),
            b"hang" => std::future::pending().await,
            _ => {}
        }
        Ok(Some(data))
    }
    async fn close(&self, _: &Close) {
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn an_on_close_that_never_returns_is_bounded_in_every_ending() {
    for (request, reason) in [
        ("fin", CloseReason::PeerClosed),
        ("close", CloseReason::LocalClose),
        ("idle", CloseReason::IdleTimeout),
        ("age", CloseReason::MaxLifetime),
        ("error", CloseReason::ServiceError),
        ("panic", CloseReason::Panicked),
        ("drain", CloseReason::Drained),
        ("reset", CloseReason::PeerReset),
        ("flood", CloseReason::WriteTimeout),
        ("abort", CloseReason::LocalAbort),
        ("hang", CloseReason::StopForced),
        ("stop", CloseReason::Stopped),
    ] {
        let mut timeouts = Timeouts::new().on_close(SHORT).write(SHORT);
        match request {
            "idle" => timeouts = timeouts.idle(SHORT),
            "age" => timeouts = timeouts.max_lifetime(SHORT),
            _ => {}
        }
        let mut server = Server::with(narrow().timeouts(timeouts), NeverGone).await;
        let (told, mut hear) = unbounded_channel();
        server.listener.on_event(move |event| {
            if let Event::CloseOverran { .. } = event {
                let _ = told.send(());
            }
        });
        let mut peer = Peer::connect_narrow(server.address).await;
        server.expect([Seen::Connect]).await;
        if !matches!(request, "fin" | "idle" | "age") {
            peer.send(request).await;
            server.expect([bytes(request)]).await;
        }
        let mut peer = Some(peer);
        match request {
            "fin" => peer.as_mut().unwrap().finish().await,
            "reset" => peer.take().unwrap().reset(),
            _ => {}
        }
        let listener = server.listener.clone();
        match request {
            "drain" => drop(tokio::spawn(async move { listener.graceful_stop(LONG).await })),
            "hang" => drop(tokio::spawn(async move { listener.graceful_stop(SHORT).await })),
            "stop" => drop(tokio::spawn(async move { listener.immediate_stop().await })),
            _ => {}
        }
        while server.next().await != Seen::Close(reason) {}
        within("the end of on_close's budget", hear.recv()).await;
        // The connection's task is gone once its peer is.
        drop(peer);
        let report = within("the stop", server.listener.graceful_stop(LONG)).await;
        assert_eq!(report.abandoned, 0, "{request}");
        server.expect_no_more();
        assert_eq!(server.listener.stats().closed(reason), 1, "{request}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_close_is_the_last_callback_and_runs_once_however_causes_race() {
    for round in 0..100u32 {
        let mut server = Server::start(OnBytes(|data: Bytes, _: Caller| async move {
            tokio::task::yield_now().await;
            if data.starts_with(b"e") {
                return Err("wanted".into());
            }
            Ok(Some(data))
        }))
        .await;
        let mut peer = server.connect().await;
        let caller = server.caller().await;
        let others: Vec<_> = (0..3)
            .map(|which| {
                let (caller, listener) = (caller.clone(), server.listener.clone());
                tokio::spawn(async move {
                    for _ in 0..(round * (which + 1)) % 7 {
                        tokio::task::yield_now().await;
                    }
                    match (round + which) % 4 {
                        0 => caller.close(),
                        1 => caller.abort(),
                        2 => drop(listener.graceful_stop(LONG).await),
                        _ => drop(listener.immediate_stop().await),
                    }
                })
            })
            .collect();
        let _ = peer.stream.write_all(b"e1").await;
        match round % 3 {
            0 => peer.reset(),
            1 => drop(peer),
            _ => {
                let _ = peer.stream.shutdown().await;
            }
        }
        for other in others {
            within("a request", other).await.unwrap();
        }
        within("the stop", server.listener.graceful_stop(LONG)).await;
        // A connection that was cut off before it was served sees nothing at all.
        let seen: Vec<_> = server.seen_so_far();
        let closes = |seen: &Seen| matches!(seen, Seen::Close(_));
        match seen.split_last() {
            Some((last, before)) => {
                assert_eq!(before.first(), Some(&Seen::Connect));
                assert!(closes(last) && !before.iter().any(closes), "{seen:?}");
                let errors = before.iter().filter(|s| **s == Seen::Error(ErrorKind::Reset));
                assert!(errors.count() <= 1, "{seen:?}");
            }
            None => assert_eq!(server.listener.stats().accepted, 0),
        }
    }
}
