//! `max_connections`: exact from accept to the closed descriptor, for callers that wait and for
//! callers that are refused, and whatever ends a connection gives its place back.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use onbytes::{
    Bytes, Caller, CloseReason, Event, Limits, Listener, ListenerConfiguration, WhenFull, Workers,
    service_fn,
};
use support::{Echo, EventNames, OnBytes, Peer, Seen, Server, eventually, within};

fn queueing(count: usize) -> ListenerConfiguration {
    ListenerConfiguration::new().limits(Limits::new().max_connections(count))
}

fn refusing(count: usize) -> ListenerConfiguration {
    let limits = Limits::new().max_connections(count).when_full(WhenFull::Refuse);
    ListenerConfiguration::new().limits(limits)
}

async fn round_trip(peer: &mut Peer) {
    peer.send("x").await;
    peer.expect("x").await;
}

/// Whether a peer was turned away: its stream ends, by FIN or reset, without a byte.
async fn expect_refused(peer: &mut Peer) {
    let (got, _) = peer.read_to_end().await;
    assert_eq!(got, b"", "a refused caller gets nothing");
}

#[tokio::test]
async fn the_next_caller_waits_and_is_served_when_a_place_is_free() {
    let server = Server::with(queueing(2), Echo).await;
    let (mut one, mut two) = (server.connect().await, server.connect().await);
    round_trip(&mut one).await;
    round_trip(&mut two).await;
    let mut third = server.connect().await;
    third.send("third").await;
    // Round trips of the others: time enough for an accept that must not happen.
    for _ in 0..50 {
        round_trip(&mut one).await;
        round_trip(&mut two).await;
    }
    let stats = server.listener.stats();
    assert_eq!((stats.accepted, stats.active, stats.refused), (2, 2, 0));
    one.finish().await;
    one.expect_end("").await;
    third.expect("third").await;
    round_trip(&mut two).await;
}

#[tokio::test]
async fn callers_that_wait_are_served_in_the_order_in_which_they_came() {
    let mut server = Server::with(queueing(1), Echo).await;
    let mut peers = Vec::new();
    for _ in 0..10 {
        peers.push(server.connect().await);
    }
    let ports: Vec<_> = peers.iter().map(|peer| peer.stream.local_addr().unwrap().port()).collect();
    for (mut peer, port) in peers.into_iter().zip(ports) {
        round_trip(&mut peer).await;
        assert_eq!(server.caller().await.remote_port(), port);
        peer.finish().await;
        peer.expect_end("").await;
    }
}

#[tokio::test]
async fn a_caller_beyond_the_limit_is_refused_at_once_and_counted() {
    let mut server = Server::with(refusing(1), Echo).await;
    let mut events = EventNames::of(&server.listener);
    let mut one = server.connect().await;
    round_trip(&mut one).await;
    for count in 1..=3 {
        let mut two = server.connect().await;
        expect_refused(&mut two).await;
        events.until("refused").await;
        assert_eq!(server.listener.stats().refused, count);
    }
    round_trip(&mut one).await;
    assert_eq!(server.listener.stats().accepted, 1);
    one.finish().await;
    one.expect_end("").await;
    eventually("a free place", || server.listener.stats().active == 0).await;
    round_trip(&mut server.connect().await).await;
    let bytes = || Seen::Bytes(b"x".to_vec());
    server
        .expect([
            Seen::Connect,
            bytes(),
            bytes(),
            Seen::End,
            Seen::Close(CloseReason::PeerClosed),
            Seen::Connect,
            bytes(),
        ])
        .await;
}

#[tokio::test]
async fn the_event_of_a_refusal_names_the_caller() {
    let server = Server::with(refusing(1), Echo).await;
    let mut one = server.connect().await;
    round_trip(&mut one).await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    server.listener.on_event(move |event| {
        if let Event::Refused { remote_addr, .. } = event {
            let _ = tell.send(*remote_addr);
        }
    });
    let mut two = server.connect().await;
    let address = two.stream.local_addr().unwrap();
    expect_refused(&mut two).await;
    assert_eq!(within("the event", told.recv()).await, Some(Some(address)));
}

/// What is open from the hook's `accepted` to its `closed`, and the most that ever was.
#[derive(Default)]
struct Gauge {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Gauge {
    fn of(listener: &Listener) -> Arc<Self> {
        let gauge = Arc::new(Self::default());
        let hook = gauge.clone();
        listener.on_event(move |event| match event {
            Event::Accepted { .. } => {
                let now = hook.now.fetch_add(1, Ordering::SeqCst) + 1;
                hook.most.fetch_max(now, Ordering::SeqCst);
            }
            Event::Closed { .. } => {
                hook.now.fetch_sub(1, Ordering::SeqCst);
            }
            _ => {}
        });
        gauge
    }
}

async fn churn(config: ListenerConfiguration, limit: usize) {
    let is_queue = config.limits.when_full == WhenFull::Queue;
    let listener = Listener::new(("127.0.0.1", 0), config).unwrap();
    let gauge = Gauge::of(&listener);
    listener.attach(service_fn(|_| async { Ok(|data: Bytes| async { Ok(Some(data)) }) }));
    listener.start().await.unwrap();
    let address = listener.local_addr().unwrap();
    let peers: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn(async move {
                let mut served = 0;
                for _ in 0..20 {
                    let mut peer = Peer::connect(address).await;
                    if is_queue {
                        round_trip(&mut peer).await;
                        served += 1;
                        peer.finish().await;
                        peer.expect_end("").await;
                    } else {
                        use tokio::io::{AsyncReadExt, AsyncWriteExt};
                        let _ = peer.stream.write_all(b"x").await;
                        let mut byte = [0];
                        let read = within("an end", peer.stream.read(&mut byte)).await;
                        served += u64::from(matches!(read, Ok(1)));
                    }
                }
                served
            })
        })
        .collect();
    let mut served = 0;
    for peer in peers {
        served += within("a peer", peer).await.unwrap();
    }
    let stats = listener.stats();
    assert!(gauge.most.load(Ordering::SeqCst) <= limit, "never more than the limit");
    assert_eq!(stats.accepted + stats.refused, 400, "every caller is one or the other");
    if is_queue {
        assert_eq!((served, stats.refused), (400, 0));
    } else {
        assert!(served <= stats.accepted);
    }
    eventually("no connection", || listener.stats().active == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_churn_there_are_never_more_than_the_limit_and_all_who_wait_are_served() {
    churn(queueing(3), 3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_accept_loops_share_one_limit_whoever_a_caller_comes_to() {
    for workers in [Workers::AcceptLoops(4), Workers::Threads(4)] {
        churn(queueing(3).workers(workers), 3).await;
        churn(queueing(1).workers(workers), 1).await;
        churn(refusing(3).workers(workers), 3).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_churn_every_caller_is_accepted_or_refused() {
    churn(refusing(3), 3).await;
}

#[tokio::test]
async fn a_place_is_held_until_the_descriptor_is_closed() {
    let mut server = Server::with(refusing(1), Echo).await;
    let mut one = server.connect().await;
    round_trip(&mut one).await;
    let began = Instant::now();
    server.caller().await.close();
    one.expect_end("").await;
    assert_eq!(server.close().await.reason, CloseReason::LocalClose);
    // `on_close` has run, but the peer's side is still open, and so is the descriptor.
    let mut two = server.connect().await;
    let (got, _) = two.read_to_end().await;
    if began.elapsed() < Duration::from_millis(1500) {
        assert_eq!((got, server.listener.stats().refused), (vec![], 1));
    }
    one.finish().await;
    eventually("a free place", || server.listener.stats().active == 0).await;
    round_trip(&mut server.connect().await).await;
}

#[tokio::test]
async fn whatever_ends_a_connection_its_place_comes_back() {
    let script = OnBytes(|data: Bytes, caller: Caller| async move {
        match &data[..] {
            b"panic" => panic!("as told"),
            b"error" => return Err("as told".into()),
            b"close" => caller.close(),
            b"abort" => caller.abort(),
            _ => {}
        }
        Ok(Some(data))
    });
    let server = Server::with(queueing(1), script).await;
    for order in ["panic", "error", "close", "abort", "finish", "reset", "drop"] {
        let mut peer = server.connect().await;
        round_trip(&mut peer).await;
        match order {
            "finish" => peer.finish().await,
            "reset" => {
                peer.reset();
                continue;
            }
            "drop" => continue,
            order => peer.send(order).await,
        }
        let _ = peer.read_to_end().await;
    }
    round_trip(&mut server.connect().await).await;
}

#[tokio::test]
async fn a_rejected_connection_gives_its_place_back() {
    let listener = Listener::new(("127.0.0.1", 0), queueing(1)).unwrap();
    let calls = AtomicUsize::new(0);
    listener.attach(service_fn(move |_| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        async move {
            match call {
                0 => Err("not you".into()),
                1 => panic!("as told"),
                _ => Ok(|data: Bytes| async { Ok(Some(data)) }),
            }
        }
    }));
    listener.start().await.unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..2 {
        expect_refused(&mut Peer::connect(address).await).await;
    }
    round_trip(&mut Peer::connect(address).await).await;
}

#[tokio::test]
async fn a_full_listener_stops_with_callers_waiting() {
    let server = Server::with(queueing(1), Echo).await;
    let mut one = server.connect().await;
    round_trip(&mut one).await;
    let mut waiting = server.connect().await;
    within("the stop", server.listener.immediate_stop()).await;
    one.expect_reset().await;
    expect_refused(&mut waiting).await;
    assert_eq!(server.listener.stats().accepted, 1);
}

#[tokio::test]
async fn two_thousand_callers_that_reset_at_once_leave_a_listener_that_serves() {
    let server = Server::start(Echo).await;
    for _ in 0..2_000 {
        server.connect().await.reset();
    }
    round_trip(&mut server.connect().await).await;
    let stats = || server.listener.stats();
    eventually("the end of the others", || stats().active <= 1).await;
    eventually("all counts", || {
        let closed: u64 = CloseReason::ALL.iter().map(|reason| stats().closed(*reason)).sum();
        closed + stats().active as u64 == stats().accepted
    })
    .await;
}
