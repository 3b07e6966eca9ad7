//! Stopping a listener: the port is free at once, connections finish or are cut off, the report
//! counts them, and nothing is left behind.

mod support;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use onbytes::{
    Bytes, Caller, Close, CloseReason, Drain, ErrorKind, Listener, ListenerConfiguration, Result,
    StopReport, Timeouts, service_fn,
};
use support::{Echo, EventNames, OnBytes, Peer, Script, Seen, Server, eventually, within};
use tokio::runtime::Handle;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::JoinHandle;

/// No stop in these tests comes near it, except where it says so.
const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(30);

/// Echoes, and stays when the listener stops.
struct Stays;
impl Script for Stays {
    async fn drain(&self, _: &Caller) -> Drain {
        Drain::Stay
    }
}

fn begin_stop(server: &Server, limit: Duration) -> JoinHandle<StopReport> {
    let listener = server.listener.clone();
    tokio::spawn(async move { listener.graceful_stop(limit).await })
}

async fn finished(stop: JoinHandle<StopReport>) -> (usize, usize, usize) {
    counts(within("the end of the stop", stop).await.unwrap())
}

/// Clean, forced, abandoned.
fn counts(report: StopReport) -> (usize, usize, usize) {
    (report.clean, report.forced, report.abandoned)
}

/// A peer whose connection the service has.
async fn connected(server: &mut Server) -> Peer {
    let peer = server.connect().await;
    server.expect([Seen::Connect]).await;
    peer
}

fn tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

fn is_free(address: SocketAddr) -> bool {
    std::net::TcpListener::bind(address).is_ok()
}

// ---- Gracefully ----

#[tokio::test]
async fn the_port_is_free_for_another_listener_while_the_drain_goes_on() {
    let mut server = Server::start(Stays).await;
    let mut peer = connected(&mut server).await;
    let mut events = EventNames::of(&server.listener);
    let stop = begin_stop(&server, LONG);
    events.until("stopping").await;

    let next = Listener::new(server.address, ListenerConfiguration::new()).unwrap();
    next.attach(service_fn(|_| async { Ok(|_: Bytes| async { Ok(Some("next".into())) }) }));
    within("the start", next.start()).await.unwrap();
    let mut new = server.connect().await;
    new.send("?").await;
    new.expect("next").await;

    // The old connection is still served by the old listener.
    peer.send("old").await;
    peer.expect("old").await;
    server.expect([Seen::Drain, Seen::Bytes(b"old".to_vec())]).await;
    peer.finish().await;
    peer.expect_end("").await;
    assert_eq!(finished(stop).await, (1, 0, 0));
}

#[tokio::test]
async fn a_stop_without_connections_ends_at_once_and_can_be_asked_for_again() {
    let server = Server::start(Echo).await;
    assert_eq!(finished(begin_stop(&server, LONG)).await, (0, 0, 0));
    assert!(is_free(server.address));
    assert_eq!(finished(begin_stop(&server, LONG)).await, (0, 0, 0));
    assert_eq!(server.listener.local_addr(), None);
}

#[tokio::test]
async fn a_listener_that_was_never_started_has_nothing_to_stop() {
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new()).unwrap();
    let graceful = within("the stop", listener.graceful_stop(LONG)).await;
    let immediate = within("the stop", listener.immediate_stop()).await;
    assert_eq!((counts(graceful), counts(immediate)), ((0, 0, 0), (0, 0, 0)));
}

#[tokio::test]
async fn a_running_callback_finishes_and_its_reply_is_received() {
    let go = Arc::new(Notify::new());
    let gate = go.clone();
    let script = OnBytes(move |_: Bytes, _: Caller| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            Ok(Some("reply".into()))
        }
    });
    let mut server = Server::start(script).await;
    let mut events = EventNames::of(&server.listener);
    let mut peer = connected(&mut server).await;
    peer.send("x").await;
    server.expect([Seen::Bytes(b"x".to_vec())]).await;
    let stop = begin_stop(&server, LONG);
    events.until("stopping").await;
    go.notify_one();
    peer.expect_end("reply").await;
    peer.finish().await;
    server.expect([Seen::Drain, Seen::Close(CloseReason::Drained)]).await;
    assert_eq!(finished(stop).await, (1, 0, 0));
}

#[tokio::test]
async fn what_has_arrived_is_delivered_and_answered_before_the_end() {
    let go = Arc::new(Semaphore::new(0));
    let gate = go.clone();
    let script = OnBytes(move |data: Bytes, _: Caller| {
        let gate = gate.clone();
        async move {
            gate.acquire().await.unwrap().forget();
            Ok(Some(data))
        }
    });
    let mut server = Server::start(script).await;
    let mut events = EventNames::of(&server.listener);
    let mut peer = connected(&mut server).await;
    peer.send("first ").await;
    server.expect([Seen::Bytes(b"first ".to_vec())]).await;
    // Arrives while the callback runs, so it lies in the socket when the stop begins.
    let more = vec![b'm'; 20_000];
    peer.send(&more).await;
    let stop = begin_stop(&server, LONG);
    events.until("stopping").await;
    go.add_permits(1_000);
    peer.expect_end([b"first ".to_vec(), more].concat()).await;
    peer.finish().await;
    server.expect([Seen::Drain]).await;
    let close = server.close().await;
    assert_eq!((close.reason, close.stats.bytes_unsent), (CloseReason::Drained, 0));
    assert_eq!(finished(stop).await, (1, 0, 0));
}

#[tokio::test]
async fn on_drain_comes_once_however_often_the_stop_is_asked_for() {
    let mut server = Server::start(Stays).await;
    let mut peer = connected(&mut server).await;
    let stops: Vec<_> = (0..3).map(|_| begin_stop(&server, LONG)).collect();
    server.expect([Seen::Drain]).await;
    let late = begin_stop(&server, LONG);
    peer.send("x").await;
    peer.expect("x").await;
    peer.finish().await;
    server
        .expect([Seen::Bytes(b"x".to_vec()), Seen::End, Seen::Close(CloseReason::PeerClosed)])
        .await;
    for stop in stops.into_iter().chain([late]) {
        assert_eq!(finished(stop).await, (1, 0, 0));
    }
    server.expect_no_more();
}

#[tokio::test]
async fn a_connection_that_stays_goes_on_until_its_service_closes_it() {
    let mut server = Server::start(Stays).await;
    let mut peer = connected(&mut server).await;
    let stop = begin_stop(&server, LONG);
    server.expect([Seen::Drain]).await;
    for _ in 0..10 {
        peer.send("x").await;
        peer.expect("x").await;
    }
    server.caller().await.close();
    peer.expect_end("").await;
    peer.finish().await;
    assert_eq!(server.close().await.reason, CloseReason::LocalClose);
    assert_eq!(finished(stop).await, (1, 0, 0));
}

#[tokio::test]
async fn a_connection_that_stays_is_reset_at_the_deadline() {
    let mut server = Server::start(Stays).await;
    let mut peer = connected(&mut server).await;
    let stop = begin_stop(&server, SHORT);
    peer.expect_reset().await;
    server.expect([Seen::Drain, Seen::Close(CloseReason::StopForced)]).await;
    assert_eq!(finished(stop).await, (0, 1, 0));
    server.expect_no_more();
}

#[tokio::test]
async fn at_the_deadline_a_running_callback_is_dropped_at_its_await_point() {
    let (script, dropped) = Waits::script();
    let mut server = Server::start(script).await;
    let mut peer = connected(&mut server).await;
    peer.send("x").await;
    server.expect([Seen::Bytes(b"x".to_vec())]).await;
    let stop = begin_stop(&server, SHORT);
    server.expect([Seen::Close(CloseReason::StopForced)]).await;
    peer.expect_reset().await;
    assert_eq!(finished(stop).await, (0, 1, 0));
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    server.expect_no_more();
}

#[tokio::test]
async fn the_report_tells_clean_ends_from_forced_ones() {
    let mut server = Server::start(Mixed).await;
    let mut stubborn = connected(&mut server).await;
    stubborn.send("stay").await;
    stubborn.expect("stay").await;
    let mut willing = Vec::new();
    for _ in 0..3 {
        let mut peer = server.connect().await;
        peer.send("go").await;
        peer.expect("go").await;
        willing.push(peer);
    }
    let stop = begin_stop(&server, Duration::from_millis(500));
    for peer in &mut willing {
        peer.expect_end("").await;
        peer.finish().await;
    }
    stubborn.expect_reset().await;
    assert_eq!(finished(stop).await, (3, 1, 0));
}

/// Stays if it is the first connection.
struct Mixed;
impl Script for Mixed {
    async fn drain(&self, caller: &Caller) -> Drain {
        match caller.stats().bytes_received {
            4 => Drain::Stay,
            _ => Drain::CloseWhenIdle,
        }
    }
}

/// Whoever reads the report must not find a connection in it as cut off that its own `on_close`
/// was told had drained: its peer merely keeps its side open.
#[tokio::test]
async fn a_drained_connection_counts_as_clean_though_its_peer_keeps_its_side_open() {
    let mut server = Server::start(Echo).await;
    let mut peer = connected(&mut server).await;
    let stop = begin_stop(&server, Duration::from_millis(300));
    peer.expect_end("").await;
    server.expect([Seen::Drain, Seen::Close(CloseReason::Drained)]).await;
    assert_eq!(finished(stop).await, (1, 0, 0));
    drop(peer);
}

#[tokio::test]
async fn a_stop_goes_on_though_its_future_is_dropped() {
    let mut server = Server::start(Stays).await;
    let mut events = EventNames::of(&server.listener);
    let mut peer = connected(&mut server).await;
    {
        let mut stop = pin!(server.listener.graceful_stop(LONG));
        assert!(stop.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    server.expect([Seen::Drain]).await;
    assert!(is_free(server.address));
    peer.finish().await;
    peer.expect_end("").await;
    events.until("stopped").await;
    // And it can be started again.
    within("the start", server.listener.start()).await.unwrap();
}

#[tokio::test]
async fn a_second_stop_with_a_nearer_deadline_brings_the_first_one_forward() {
    let mut server = Server::start(Stays).await;
    let mut peer = connected(&mut server).await;
    let first = begin_stop(&server, LONG);
    server.expect([Seen::Drain]).await;
    let second = begin_stop(&server, SHORT);
    peer.expect_reset().await;
    assert_eq!(finished(first).await, (0, 1, 0));
    assert_eq!(finished(second).await, (0, 1, 0));
}

#[tokio::test]
async fn a_second_stop_with_a_later_deadline_does_not_put_the_first_one_off() {
    let mut server = Server::start(Stays).await;
    let mut peer = connected(&mut server).await;
    let first = begin_stop(&server, Duration::from_millis(200));
    server.expect([Seen::Drain]).await;
    let second = begin_stop(&server, LONG);
    peer.expect_reset().await;
    assert_eq!(finished(first).await, (0, 1, 0));
    assert_eq!(finished(second).await, (0, 1, 0));
}

#[tokio::test]
async fn a_deadline_of_zero_and_one_without_end_are_both_obeyed() {
    let mut server = Server::start(Stays).await;
    let mut peer = connected(&mut server).await;
    let stop = begin_stop(&server, Duration::ZERO);
    peer.expect_reset().await;
    assert_eq!(finished(stop).await, (0, 1, 0));

    let mut server = Server::start(Stays).await;
    let mut peer = connected(&mut server).await;
    let stop = begin_stop(&server, Duration::MAX);
    server.expect([Seen::Drain]).await;
    peer.finish().await;
    peer.expect_end("").await;
    assert_eq!(finished(stop).await, (1, 0, 0));
}

// ---- Immediately ----

/// Waits for ever in `on_bytes`, and counts how often its future was dropped.
struct Waits(Arc<AtomicUsize>);

impl Waits {
    fn script() -> (Self, Arc<AtomicUsize>) {
        let dropped = Arc::new(AtomicUsize::new(0));
        (Self(dropped.clone()), dropped)
    }
}

struct CountsDrop(Arc<AtomicUsize>);
impl Drop for CountsDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

impl Script for Waits {
    async fn bytes(&self, _: Bytes, _: &Caller) -> Result<Option<Bytes>> {
        let _guard = CountsDrop(self.0.clone());
        std::future::pending().await
    }
}

#[tokio::test]
async fn an_immediate_stop_resets_peers_and_drops_running_callbacks() {
    let (script, dropped) = Waits::script();
    let mut server = Server::start(script).await;
    let mut busy = connected(&mut server).await;
    busy.send("x").await;
    server.expect([Seen::Bytes(b"x".to_vec())]).await;
    let mut idle = connected(&mut server).await;
    within("the stop", server.listener.immediate_stop()).await;
    assert_eq!(dropped.load(Ordering::SeqCst), 1);
    server.expect([Seen::Close(CloseReason::Stopped), Seen::Close(CloseReason::Stopped)]).await;
    server.expect_no_more();
    busy.expect_reset().await;
    idle.expect_reset().await;
    assert!(is_free(server.address));
}

#[tokio::test]
async fn the_report_of_an_immediate_stop_counts_what_it_cut_off() {
    let mut server = Server::start(Echo).await;
    let _peers = [connected(&mut server).await, connected(&mut server).await];
    let report = within("the stop", server.listener.immediate_stop()).await;
    assert_eq!(counts(report), (0, 2, 0));
}

#[tokio::test]
async fn an_immediate_stop_ends_a_graceful_one() {
    let mut server = Server::start(Stays).await;
    let mut peer = connected(&mut server).await;
    let graceful = begin_stop(&server, LONG);
    server.expect([Seen::Drain]).await;
    let report = within("the stop", server.listener.immediate_stop()).await;
    assert_eq!(counts(report), (0, 1, 0));
    assert_eq!(finished(graceful).await, (0, 1, 0));
    server.expect([Seen::Close(CloseReason::Stopped)]).await;
    peer.expect_reset().await;
}

#[tokio::test]
async fn an_immediate_stop_sends_nothing_that_was_queued() {
    let script = OnBytes(|_: Bytes, caller: Caller| async move {
        caller.write_bytes(vec![7; 32 << 20]).await?;
        Ok(None)
    });
    let mut server = Server::start(script).await;
    let mut peer = Peer::connect_narrow(server.address).await;
    server.expect([Seen::Connect]).await;
    peer.send("x").await;
    server.expect([Seen::Bytes(b"x".to_vec())]).await;
    let caller = server.caller().await;
    eventually("a queue", || caller.queued_bytes() > 0).await;
    within("the stop", server.listener.immediate_stop()).await;
    let close = server.close().await;
    assert_eq!(close.reason, CloseReason::Stopped);
    assert!(close.stats.bytes_unsent > 0);
    assert_eq!(close.stats.bytes_unsent + close.stats.bytes_sent, 32 << 20);
    peer.expect_reset().await;
}

#[tokio::test]
async fn dropping_the_last_handle_is_an_immediate_stop_and_an_earlier_one_is_not() {
    let (script, dropped) = Waits::script();
    let mut server = Server::start(script).await;
    let (address, clone) = (server.address, server.listener.clone());
    let mut peer = connected(&mut server).await;
    peer.send("x").await;
    server.expect([Seen::Bytes(b"x".to_vec())]).await;
    drop(clone);
    let _second = connected(&mut server).await;
    drop(server);
    peer.expect_reset().await;
    eventually("the drop of the callback", || dropped.load(Ordering::SeqCst) == 1).await;
    eventually("a free port", || is_free(address)).await;
}

#[tokio::test]
async fn the_last_handle_may_be_dropped_on_a_thread_without_a_runtime() {
    let mut server = Server::start(Echo).await;
    let mut peer = connected(&mut server).await;
    std::thread::spawn(move || drop(server)).join().unwrap();
    peer.expect_reset().await;
}

#[tokio::test]
async fn a_service_may_stop_its_own_listener() {
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new()).unwrap();
    let handle = listener.clone();
    listener.attach(service_fn(move |_| {
        let handle = handle.clone();
        async move {
            Ok(move |_: Bytes| {
                let handle = handle.clone();
                async move {
                    handle.immediate_stop().await;
                    unreachable!("this callback is dropped by the stop");
                }
            })
        }
    }));
    listener.start().await.unwrap();
    let mut events = EventNames::of(&listener);
    let mut peer = Peer::connect(listener.local_addr().unwrap()).await;
    peer.send("x").await;
    peer.expect_reset().await;
    events.until("stopped").await;
}

// ---- Connections that are hard to stop ----

/// Never returns from `on_connect`.
struct NeverConnects(mpsc::UnboundedSender<()>);
impl Script for NeverConnects {
    async fn connect(&self, _: &Caller) -> Result<()> {
        self.0.send(()).unwrap();
        std::future::pending().await
    }
}

#[tokio::test]
async fn an_on_connect_that_never_returns_does_not_hold_up_a_stop() {
    for immediate in [true, false] {
        let (called, mut calls) = mpsc::unbounded_channel();
        let mut server = Server::start(NeverConnects(called)).await;
        let mut peer = server.connect().await;
        within("on_connect", calls.recv()).await.unwrap();
        let reason = if immediate {
            within("the stop", server.listener.immediate_stop()).await;
            CloseReason::Stopped
        } else {
            assert_eq!(finished(begin_stop(&server, SHORT)).await, (0, 1, 0));
            CloseReason::StopForced
        };
        peer.expect_reset().await;
        assert_eq!(server.listener.stats().closed(reason), 1);
        // There was no connection service yet, so nobody to tell.
        server.expect_no_more();
    }
}

/// Blocks its thread in `on_bytes` until it is released.
struct Blocks(Mutex<std::sync::mpsc::Receiver<()>>);
impl Script for Blocks {
    async fn bytes(&self, data: Bytes, _: &Caller) -> Result<Option<Bytes>> {
        if &data[..] == b"block" {
            let _ = self.0.lock().unwrap().recv();
        }
        Ok(Some(data))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_callback_that_blocks_its_thread_is_reported_as_abandoned() {
    let before = tasks();
    let (release, released) = std::sync::mpsc::channel();
    let timeouts = Timeouts::new().on_close(SHORT);
    let config = ListenerConfiguration::new().timeouts(timeouts);
    let mut server = Server::with(config, Blocks(Mutex::new(released))).await;
    let mut other = connected(&mut server).await;
    let mut blocked = connected(&mut server).await;
    blocked.send("block").await;
    server.expect([Seen::Bytes(b"block".to_vec())]).await;
    // Nothing is waited for before this has woken another worker: the blocked one may be the one
    // that watches the sockets for all.
    let stop = begin_stop(&server, SHORT);
    other.expect_end("").await;
    other.finish().await;
    assert_eq!(finished(stop).await, (1, 0, 1));
    assert!(is_free(server.address));

    // Its task is the one that is left, until it yields at last.
    release.send(()).unwrap();
    blocked.expect_reset().await;
    eventually("the end of the task", || tasks() == before).await;
    within("the start", server.listener.start()).await.unwrap();
}

#[tokio::test]
async fn an_on_close_that_never_returns_is_dropped_after_its_budget() {
    struct Lingers;
    impl Script for Lingers {
        async fn close(&self, _: &Close) {
            std::future::pending::<()>().await;
        }
    }
    let timeouts = Timeouts::new().on_close(SHORT);
    let mut server = Server::with(ListenerConfiguration::new().timeouts(timeouts), Lingers).await;
    let mut events = EventNames::of(&server.listener);
    let _peer = connected(&mut server).await;
    let report = within("the stop", server.listener.immediate_stop()).await;
    assert_eq!(report.abandoned, 0);
    events.until("close_overran").await;
}

#[tokio::test]
async fn thousands_of_connections_drain_and_none_is_lost_in_the_report() {
    const COUNT: usize = 2_000;
    let mut server = Server::start(Echo).await;
    let mut peers = Vec::new();
    for _ in 0..COUNT {
        peers.push(connected(&mut server).await);
    }
    let stop = begin_stop(&server, LONG);
    for peer in &mut peers {
        peer.expect_end("").await;
        peer.finish().await;
    }
    assert_eq!(finished(stop).await, (COUNT, 0, 0));
    assert_eq!(server.listener.stats().closed(CloseReason::Drained), COUNT as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn thousands_of_connections_are_reset_while_others_still_arrive() {
    let before = tasks();
    let server = Server::with(ListenerConfiguration::new().workers(2), Echo).await;
    let address = server.address;
    let mut peers = Vec::new();
    for _ in 0..1_000 {
        peers.push(server.connect().await);
    }
    let arriving = tokio::spawn(async move {
        let mut peers = Vec::new();
        while let Ok(stream) = tokio::net::TcpStream::connect(address).await {
            peers.push(Peer { stream });
        }
        peers
    });
    within("the stop", server.listener.immediate_stop()).await;
    peers.extend(within("the end of arrivals", arriving).await.unwrap());
    for peer in &mut peers {
        // One that the kernel dropped when the backlog was full learns of its end by saying something:
        // the server never knew it, and nobody else tells it.
        let _ = peer.stream.try_write(b"x");
        let (got, _) = peer.read_to_end().await;
        assert_eq!(got, b"");
    }
    let stats = server.listener.stats();
    let closed: u64 = CloseReason::ALL.iter().map(|reason| stats.closed(*reason)).sum();
    assert_eq!(stats.accepted, closed);
    eventually("the end of all tasks", || tasks() == before).await;
}

#[tokio::test]
async fn no_task_is_left_behind_by_any_stop() {
    let before = tasks();
    for immediate in [true, false] {
        let (script, _) = Waits::script();
        let mut server = Server::start(script).await;
        let mut peers = Vec::new();
        for _ in 0..20 {
            let mut peer = connected(&mut server).await;
            peer.send("x").await;
            server.expect([Seen::Bytes(b"x".to_vec())]).await;
            peers.push(peer);
        }
        if immediate {
            within("the stop", server.listener.immediate_stop()).await;
        } else {
            let _ = finished(begin_stop(&server, SHORT)).await;
        }
        eventually("the end of all tasks", || tasks() == before).await;
    }
    drop(Server::start(Echo).await);
    eventually("the end of all tasks", || tasks() == before).await;
}

/// The runtime that a listener was started on may go before the listener does.
#[test]
fn a_listener_whose_runtime_is_gone_can_be_stopped_and_started_on_another() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new()).unwrap();
    listener.attach(service_fn(|_| async { Ok(|data: Bytes| async { Ok(Some(data)) }) }));
    let first = runtime();
    first.block_on(listener.start()).unwrap();
    drop(first);
    runtime().block_on(async {
        within("the stop", listener.graceful_stop(SHORT)).await;
        within("the start", listener.start()).await.unwrap();
        let mut peer = Peer::connect(listener.local_addr().unwrap()).await;
        peer.send("x").await;
        peer.expect("x").await;
    });
}

#[tokio::test]
async fn after_a_stop_writes_of_a_kept_caller_fail_as_closed() {
    let mut server = Server::start(Echo).await;
    let _peer = connected(&mut server).await;
    let caller = server.caller().await;
    within("the stop", server.listener.immediate_stop()).await;
    assert!(caller.is_closed());
    within("the end", caller.closed()).await;
    let error = within("the write", caller.write_bytes("x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}
