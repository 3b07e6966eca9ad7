//! The life of a connection: which callbacks run, in which order, and what a caller of it is good
//! for during and after.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onbytes::{Bytes, Caller, Close, CloseReason, Error, ErrorKind, Result};
use support::{Echo, OnBytes, Script, Seen, Server, pattern, within};
use tokio::sync::{Notify, Semaphore};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn bytes_are_answered_and_the_peers_end_closes_in_order() {
    let mut server = Server::start(Echo).await;
    let mut peer = server.connect().await;
    peer.send("hello").await;
    peer.expect("hello").await;
    peer.finish().await;
    peer.expect_end("").await;
    server
        .expect([
            Seen::Connect,
            Seen::Bytes(b"hello".to_vec()),
            Seen::End,
            Seen::Close(CloseReason::PeerClosed),
        ])
        .await;
    let stats = server.close().await.stats;
    assert_eq!((stats.bytes_received, stats.bytes_sent), (5, 5));
    assert_eq!((stats.chunks_received, stats.chunks_sent), (1, 1));
    assert_eq!(stats.bytes_unsent, 0);
    server.listener.graceful_stop(LONG).await;
    server.expect_no_more();
}

#[tokio::test]
async fn a_reset_reaches_on_error_then_on_close() {
    let mut server = Server::start(Echo).await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect("x").await;
    peer.reset();
    server
        .expect([
            Seen::Connect,
            Seen::Bytes(b"x".to_vec()),
            Seen::Error(ErrorKind::Reset),
            Seen::Close(CloseReason::PeerReset),
        ])
        .await;
}

#[tokio::test]
async fn a_callbacks_error_closes_in_order_after_its_writes() {
    let mut server = Server::start(OnBytes(|_: Bytes, caller: Caller| async move {
        caller.write_bytes("sorry").await?;
        Err("no".into())
    }))
    .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect_end("sorry").await;
    server
        .expect([
            Seen::Connect,
            Seen::Bytes(b"x".to_vec()),
            Seen::Error(ErrorKind::Service),
            Seen::Close(CloseReason::ServiceError),
        ])
        .await;
}

// ---- on_connect ----

/// Greets in `on_connect`, and waits there for leave to go on.
struct Greeter {
    leave: Arc<Notify>,
    outcome: fn() -> Result<()>,
}

impl Script for Greeter {
    async fn connect(&self, caller: &Caller) -> Result<()> {
        caller.write_bytes("welcome ").await?;
        caller.try_write_bytes("in")?;
        self.leave.notified().await;
        (self.outcome)()
    }
}

#[tokio::test]
async fn what_on_connect_writes_reaches_the_peer_before_it_returns() {
    let leave = Arc::new(Notify::new());
    let outcome = || Ok(());
    let mut server = Server::start(Greeter { leave: leave.clone(), outcome }).await;
    let mut peer = server.connect().await;
    peer.expect("welcome in").await;
    leave.notify_one();
    peer.send("x").await;
    peer.expect("x").await;
    server.expect([Seen::Connect, Seen::Bytes(b"x".to_vec())]).await;
}

#[tokio::test]
async fn no_byte_is_read_before_on_connect_returns() {
    let leave = Arc::new(Notify::new());
    let outcome = || Ok(());
    let mut server = Server::start(Greeter { leave: leave.clone(), outcome }).await;
    let mut peer = server.connect().await;
    peer.send("early").await;
    peer.expect("welcome in").await;
    let caller = server.caller().await;
    // Another connection is served from its beginning to its end meanwhile.
    let mut other = server.connect().await;
    other.expect("welcome in").await;
    assert_eq!(caller.stats().bytes_received, 0);
    leave.notify_waiters();
    peer.expect("early").await;
    assert_eq!(caller.stats().bytes_received, 5);
}

#[tokio::test]
async fn a_rejected_peer_gets_what_was_written_then_fin_and_no_callback_runs() {
    let leave = Arc::new(Notify::new());
    leave.notify_one();
    let outcome = || Err("not you".into());
    let mut server = Server::start(Greeter { leave, outcome }).await;
    let mut peer = server.connect().await;
    peer.send("unread").await;
    peer.expect_end("welcome in").await;
    drop(peer);
    server.listener.graceful_stop(LONG).await;
    let stats = server.listener.stats();
    assert_eq!(stats.closed(CloseReason::Rejected), 1);
    assert_eq!((stats.accepted, stats.active), (1, 0));
    server.expect_no_more();
}

/// Rejects after a large greeting.
struct LongRefusal;
impl Script for LongRefusal {
    async fn connect(&self, caller: &Caller) -> Result<()> {
        caller.try_write_bytes(pattern(1, 600_000))?;
        Err("no".into())
    }
}

#[tokio::test]
async fn a_rejected_peer_that_reads_slowly_gets_all_that_was_queued() {
    let server = Server::with(support::narrow(), LongRefusal).await;
    let mut peer = server.connect().await;
    peer.expect_end(pattern(1, 600_000)).await;
    drop(peer);
    server.listener.graceful_stop(LONG).await;
    assert_eq!(server.listener.stats().closed(CloseReason::Rejected), 1);
}

/// Closes in `on_connect`, which then returns a service all the same.
struct CloseInConnect;
impl Script for CloseInConnect {
    async fn connect(&self, caller: &Caller) -> Result<()> {
        caller.try_write_bytes("bye")?;
        caller.close();
        Ok(())
    }
}

#[tokio::test]
async fn a_close_inside_on_connect_leads_straight_to_on_close() {
    let mut server = Server::start(CloseInConnect).await;
    let mut peer = server.connect().await;
    peer.send("never delivered").await;
    peer.expect_end("bye").await;
    server.expect([Seen::Connect, Seen::Close(CloseReason::LocalClose)]).await;
    drop(peer);
    server.listener.graceful_stop(LONG).await;
    server.expect_no_more();
}

// ---- on_error ----

/// Fails in `on_bytes` and calls it handled.
struct Forgiving;
impl Script for Forgiving {
    async fn bytes(&self, data: Bytes, _: &Caller) -> Result<Option<Bytes>> {
        match &data[..] {
            b"bad" => Err("bad".into()),
            _ => Ok(Some(data)),
        }
    }
    async fn error(&self, _: Error, caller: &Caller) -> Result<()> {
        // The connection may be gone; then there is nobody to tell.
        let _ = caller.write_bytes("forgiven").await;
        Ok(())
    }
    async fn end(&self, _: &Caller) -> Result<Option<Bytes>> {
        Err("bad end".into())
    }
}

#[tokio::test]
async fn an_error_that_on_error_handles_does_not_end_the_connection() {
    let mut server = Server::start(Forgiving).await;
    let mut peer = server.connect().await;
    for _ in 0..3 {
        peer.send("bad").await;
        peer.expect("forgiven").await;
        peer.send("good").await;
        peer.expect("good").await;
    }
    peer.finish().await;
    peer.expect_end("forgiven").await;
    server.expect([Seen::Connect]).await;
    for _ in 0..3 {
        server
            .expect([
                Seen::Bytes(b"bad".to_vec()),
                Seen::Error(ErrorKind::Service),
                Seen::Bytes(b"good".to_vec()),
            ])
            .await;
    }
    server
        .expect([Seen::End, Seen::Error(ErrorKind::Service), Seen::Close(CloseReason::PeerClosed)])
        .await;
}

#[tokio::test]
async fn on_error_cannot_revive_a_dead_transport() {
    let mut server = Server::start(Forgiving).await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect("x").await;
    peer.reset();
    server
        .expect([
            Seen::Connect,
            Seen::Bytes(b"x".to_vec()),
            Seen::Error(ErrorKind::Reset),
            Seen::Close(CloseReason::PeerReset),
        ])
        .await;
    server.listener.graceful_stop(LONG).await;
    server.expect_no_more();
}

#[tokio::test]
async fn a_write_that_fails_inside_a_callback_is_one_failure() {
    let mut server = Server::with(
        support::narrow(),
        OnBytes(|_: Bytes, caller: Caller| async move {
            loop {
                caller.write_bytes(vec![7; 10_000]).await?;
            }
        }),
    )
    .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect(vec![7; 100_000]).await;
    peer.reset();
    server
        .expect([
            Seen::Connect,
            Seen::Bytes(b"x".to_vec()),
            Seen::Error(ErrorKind::Reset),
            Seen::Close(CloseReason::PeerReset),
        ])
        .await;
    let close = server.close().await;
    assert_eq!(close.error.unwrap().kind(), ErrorKind::Reset);
    server.listener.graceful_stop(LONG).await;
    server.expect_no_more();
}

#[tokio::test]
async fn a_closed_error_after_the_peer_is_gone_is_one_failure() {
    let mut server = Server::start(OnBytes(|_: Bytes, caller: Caller| async move {
        caller.closed().await;
        caller.write_bytes("too late").await?;
        Ok(None)
    }))
    .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    server.expect([Seen::Connect, Seen::Bytes(b"x".to_vec())]).await;
    peer.reset();
    server.expect([Seen::Error(ErrorKind::Reset), Seen::Close(CloseReason::PeerReset)]).await;
    server.listener.graceful_stop(LONG).await;
    server.expect_no_more();
}

// ---- Callbacks never overlap ----

/// Notices callbacks of a connection that overlap.
struct Alone {
    inside: AtomicUsize,
    steps: Arc<Semaphore>,
}

impl Alone {
    async fn enter(&self) {
        assert_eq!(self.inside.fetch_add(1, Ordering::SeqCst), 0, "an overlap");
        self.steps.acquire().await.unwrap().forget();
        self.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Script for Alone {
    async fn connect(&self, _: &Caller) -> Result<()> {
        self.enter().await;
        Ok(())
    }
    async fn bytes(&self, _: Bytes, _: &Caller) -> Result<Option<Bytes>> {
        self.enter().await;
        Err("to on_error".into())
    }
    async fn error(&self, _: Error, _: &Caller) -> Result<()> {
        self.enter().await;
        Ok(())
    }
    async fn end(&self, _: &Caller) -> Result<Option<Bytes>> {
        self.enter().await;
        Ok(Some(Bytes::from_static(b"end")))
    }
    async fn close(&self, _: &Close) {
        self.enter().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_callbacks_of_a_connection_never_overlap() {
    let steps = Arc::new(Semaphore::new(0));
    let mut server =
        Server::start(Alone { inside: AtomicUsize::new(0), steps: steps.clone() }).await;
    let mut peer = server.connect().await;
    let mut pace = 0;
    for part in ["a", "b", "c"] {
        peer.send(part).await;
        steps.add_permits(1);
        pace += 1;
        tokio::task::yield_now().await;
    }
    peer.finish().await;
    let feeding = tokio::spawn(async move {
        for _ in pace..100 {
            steps.add_permits(1);
            tokio::task::yield_now().await;
        }
    });
    peer.expect_end("end").await;
    let mut seen = Vec::new();
    while !matches!(seen.last(), Some(Seen::Close(_))) {
        seen.push(server.next().await);
    }
    assert_eq!(seen[0], Seen::Connect);
    assert_eq!(seen[seen.len() - 2..], [Seen::End, Seen::Close(CloseReason::PeerClosed)]);
    feeding.await.unwrap();
}

// ---- The caller ----

#[tokio::test]
async fn a_caller_tells_both_addresses_in_numbers_and_a_name_of_its_own() {
    let mut server = Server::start(Echo).await;
    let (one, two) = (server.connect().await, server.connect().await);
    let (first, second) = (server.caller().await, server.caller().await);
    assert_ne!(first.id(), second.id());
    for (peer, caller) in [(one, first), (two, second)] {
        assert_eq!(caller.remote_addr(), peer.stream.local_addr().unwrap());
        assert_eq!(caller.local_addr(), server.address);
        assert_eq!(caller.remote_host(), "127.0.0.1");
        assert_eq!(caller.local_host(), "127.0.0.1");
        assert_eq!(caller.remote_port(), caller.remote_addr().port());
        assert_eq!(caller.local_port(), server.address.port());
        assert_eq!(caller.clone().id(), caller.id());
    }
}

/// The kernel's number of the server's socket towards `peer`.
#[cfg(target_os = "linux")]
fn inode(server: std::net::SocketAddr, peer: std::net::SocketAddr) -> String {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let (ours, theirs) = (format!(":{:04X}", server.port()), format!(":{:04X}", peer.port()));
    let line = table
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .find(|line| line[1].ends_with(&ours) && line[2].ends_with(&theirs))
        .expect("the kernel lists the connection");
    line[9].to_owned()
}

#[cfg(target_os = "linux")]
fn is_open(inode: &str) -> bool {
    let name = format!("socket:[{inode}]");
    std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .any(|link| link.as_os_str() == name.as_str())
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn the_descriptor_is_closed_at_the_end_whatever_clones_live() {
    let mut server = Server::start(Echo).await;
    let mut peer = server.connect().await;
    let caller = server.caller().await;
    let clones = vec![caller.clone(); 10];
    let inode = inode(server.address, peer.stream.local_addr().unwrap());
    assert!(is_open(&inode));
    assert!(!caller.is_closed());
    peer.send("x").await;
    peer.expect("x").await;
    peer.finish().await;
    peer.expect_end("").await;
    server.listener.graceful_stop(LONG).await;
    assert!(!is_open(&inode));
    for caller in clones {
        assert!(caller.is_closed());
        within("closed", caller.closed()).await;
        assert_eq!(caller.queued_bytes(), 0);
        assert_eq!(caller.stats().bytes_sent, 1);
        assert!(caller.write_bytes("y").await.unwrap_err().is_closed());
        assert!(caller.try_write_bytes("y").unwrap_err().is_closed());
        caller.close();
        caller.abort();
    }
    server
        .expect([
            Seen::Connect,
            Seen::Bytes(b"x".to_vec()),
            Seen::End,
            Seen::Close(CloseReason::PeerClosed),
        ])
        .await;
    server.expect_no_more();
}

#[tokio::test]
async fn closed_wakes_every_task_that_waits_for_it() {
    let mut server = Server::start(Echo).await;
    let mut peer = server.connect().await;
    let caller = server.caller().await;
    let waits: Vec<_> = (0..20)
        .map(|_| {
            let caller = caller.clone();
            tokio::spawn(async move { caller.closed().await })
        })
        .collect();
    // A future that was polled and dropped must not disturb the others.
    assert!(support::poll_once(&mut caller.closed()).is_pending());
    peer.send("x").await;
    peer.expect("x").await;
    peer.finish().await;
    for wait in waits {
        within("closed", wait).await.unwrap();
    }
}

#[tokio::test]
async fn a_close_from_another_task_ends_a_silent_connection() {
    let mut server = Server::start(Echo).await;
    let mut peer = server.connect().await;
    server.expect([Seen::Connect]).await;
    let caller = server.caller().await;
    tokio::spawn(async move {
        caller.try_write_bytes("last words").unwrap();
        caller.close();
        caller.close();
    });
    peer.expect_end("last words").await;
    server.expect([Seen::Close(CloseReason::LocalClose)]).await;
}

#[tokio::test]
async fn after_close_the_running_callbacks_reply_is_sent_and_undelivered_chunks_are_dropped() {
    let go_on = Arc::new(Notify::new());
    let gate = go_on.clone();
    let mut server = Server::start(OnBytes(move |data: Bytes, caller: Caller| {
        let gate = gate.clone();
        async move {
            caller.close();
            assert!(caller.is_closed());
            assert!(caller.try_write_bytes("no").unwrap_err().is_closed());
            assert!(caller.write_bytes("no").await.unwrap_err().is_closed());
            gate.notified().await;
            Ok(Some(data))
        }
    }))
    .await;
    let mut peer = server.connect().await;
    peer.send("first").await;
    server.expect([Seen::Connect, Seen::Bytes(b"first".to_vec())]).await;
    peer.send("second").await;
    go_on.notify_one();
    peer.expect_end("first").await;
    server.expect([Seen::Close(CloseReason::LocalClose)]).await;
    drop(peer);
    server.listener.graceful_stop(LONG).await;
    server.expect_no_more();
}

#[tokio::test]
async fn a_reset_wakes_and_fails_what_a_callback_that_never_returns_waits_for() {
    let (told, mut hear) = tokio::sync::mpsc::unbounded_channel();
    let mut server = Server::start(OnBytes(move |_: Bytes, caller: Caller| {
        let told = told.clone();
        async move {
            caller.closed().await;
            let error = caller.write_bytes("x").await.unwrap_err();
            told.send((error.kind(), caller.is_closed())).unwrap();
            std::future::pending().await
        }
    }))
    .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    server.expect([Seen::Connect, Seen::Bytes(b"x".to_vec())]).await;
    peer.reset();
    let (kind, is_closed) = within("closed", hear.recv()).await.unwrap();
    assert!(is_closed);
    assert!(matches!(kind, ErrorKind::Closed | ErrorKind::Reset));
    // Only a stop ends such a callback.
    within("the stop", server.listener.immediate_stop()).await;
    assert!(matches!(server.next().await, Seen::Close(_)));
    server.expect_no_more();
}

#[tokio::test]
async fn requests_to_end_wake_a_callback_that_waits_for_the_end() {
    for abort in [false, true] {
        let mut server = Server::start(OnBytes(|_: Bytes, caller: Caller| async move {
            caller.closed().await;
            Ok(Some(Bytes::from_static(b"woken")))
        }))
        .await;
        let mut peer = server.connect().await;
        peer.send("x").await;
        server.expect([Seen::Connect, Seen::Bytes(b"x".to_vec())]).await;
        let caller = server.caller().await;
        if abort {
            caller.abort();
            peer.expect_reset().await;
            server.expect([Seen::Close(CloseReason::LocalAbort)]).await;
        } else {
            caller.close();
            peer.expect_end("woken").await;
            server.expect([Seen::Close(CloseReason::LocalClose)]).await;
        }
    }
}
