//! A running listener under control: suspended and resumed, its connections listed and ended by name,
//! its limits and time limits changed in place.

mod support;

use std::time::Duration;

use onbytes::{
    Bytes, Caller, CloseReason, ConnectionId, ConnectionState, Framing, Limits, Listener,
    ListenerConfiguration, Timeouts, WhenFull,
};
use support::{Echo, EventNames, OnBytes, Peer, Seen, Server, eventually, narrow, within};

async fn round_trip(peer: &mut Peer) {
    peer.send("x").await;
    peer.expect("x").await;
}

/// The state of the only connection.
fn state(listener: &Listener) -> Option<ConnectionState> {
    let connections = listener.connections();
    assert!(connections.len() < 2);
    connections.first().map(|connection| connection.state)
}

// ---- Suspending ----

#[tokio::test]
async fn callers_wait_while_accepting_is_suspended_and_live_connections_go_on() {
    let server = Server::start(Echo).await;
    let mut events = EventNames::of(&server.listener);
    let mut live = server.connect().await;
    round_trip(&mut live).await;
    server.listener.suspend();
    server.listener.suspend();
    assert!(server.listener.is_suspended());
    let mut waiting = server.connect().await;
    waiting.send("waited").await;
    for _ in 0..50 {
        round_trip(&mut live).await;
    }
    assert_eq!(server.listener.stats().accepted, 1);
    server.listener.resume();
    waiting.expect("waited").await;
    round_trip(&mut live).await;
    assert!(!server.listener.is_suspended());
    events.until("suspended").await;
    events.until("resumed").await;
    assert!(!events.rest().contains(&"suspended"), "twice is the same as once");
}

#[tokio::test]
async fn a_listener_that_is_suspended_before_it_starts_accepts_nobody() {
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new()).unwrap();
    let _seen = Server::attach(&listener, Echo);
    listener.suspend();
    listener.start().await.unwrap();
    let mut peer = Peer::connect(listener.local_addr().unwrap()).await;
    peer.send("x").await;
    tokio::task::yield_now().await;
    assert_eq!(listener.stats().accepted, 0);
    listener.resume();
    peer.expect("x").await;
    // It outlives a stop.
    listener.suspend();
    listener.immediate_stop().await;
    assert!(listener.is_suspended());
}

#[tokio::test]
async fn a_suspended_listener_refuses_nobody() {
    let limits = Limits::new().max_connections(1).when_full(WhenFull::Refuse);
    let server = Server::with(ListenerConfiguration::new().limits(limits), Echo).await;
    let mut first = server.connect().await;
    round_trip(&mut first).await;
    server.listener.suspend();
    let mut second = server.connect().await;
    second.send("second").await;
    round_trip(&mut first).await;
    assert_eq!(server.listener.stats().refused, 0);
    first.finish().await;
    first.expect_end("").await;
    eventually("the end of the first", || server.listener.stats().active == 0).await;
    server.listener.resume();
    second.expect("second").await;
}

// ---- Connections ----

#[tokio::test]
async fn connections_are_listed_with_what_they_have_done() {
    let mut server = Server::start(Echo).await;
    assert!(server.listener.connections().is_empty());
    let mut peers = Vec::new();
    let mut callers = Vec::new();
    for count in 1..=3 {
        let mut peer = server.connect().await;
        for _ in 0..count {
            round_trip(&mut peer).await;
        }
        peers.push(peer);
        callers.push(server.caller().await);
    }
    let listed = server.listener.connections();
    assert_eq!(listed.len(), 3);
    for (count, ((connection, peer), caller)) in listed.iter().zip(&peers).zip(&callers).enumerate()
    {
        assert_eq!(connection.id, caller.id());
        assert_eq!(connection.remote_addr, peer.stream.local_addr().unwrap());
        assert_eq!(connection.local_addr, server.address);
        assert_eq!(connection.stats.bytes_received, count as u64 + 1);
        assert_eq!(connection.stats.bytes_sent, count as u64 + 1);
        assert_eq!(connection.queued_bytes, 0);
        assert!(!connection.is_secured);
        assert!(connection.idle <= connection.stats.age + Duration::from_millis(50));
    }
    drop(peers);
    eventually("the end of all", || server.listener.connections().is_empty()).await;
}

#[tokio::test]
async fn a_connection_is_busy_with_the_second_frame_of_a_read_too() {
    let (go, gone) = tokio::sync::watch::channel(false);
    let config = ListenerConfiguration::new().framing(Framing::lines());
    let server = Server::with(
        config,
        OnBytes(move |data: Bytes, _| {
            let mut gone = gone.clone();
            async move {
                if data == "large" {
                    // Sent at once, so that nothing waits in the queue.
                    return Ok(Some(Bytes::from(vec![b'x'; 20_000])));
                }
                let _ = gone.wait_for(|gone| *gone).await;
                Ok(Some(data))
            }
        }),
    )
    .await;
    let mut peer = server.connect().await;
    peer.send("large\nwaits\n").await;
    peer.expect(format!("{}\n", "x".repeat(20_000))).await;
    eventually("busy", || state(&server.listener) == Some(ConnectionState::Busy)).await;
    go.send_replace(true);
    peer.expect("waits\n").await;
    eventually("waiting", || state(&server.listener) == Some(ConnectionState::Waiting)).await;
}

#[tokio::test]
async fn a_connection_is_listed_in_the_state_it_is_in() {
    let (go, gone) = tokio::sync::watch::channel(0);
    let config = narrow().allow_half_open(true);
    let mut server = Server::with(
        config,
        OnBytes(move |data: Bytes, caller: Caller| {
            let mut gone = gone.clone();
            async move {
                let _ = gone.wait_for(|step| *step > 0).await;
                if data == "flood" {
                    // More than the kernel takes: this waits for a peer that does not read.
                    let _ = caller.write_bytes(vec![1; 4 << 20]).await;
                }
                Ok(None)
            }
        }),
    )
    .await;
    let mut peer = Peer::connect_narrow(server.address).await;
    server.expect([Seen::Connect]).await;
    eventually("waiting", || state(&server.listener) == Some(ConnectionState::Waiting)).await;
    peer.send("flood").await;
    eventually("busy", || state(&server.listener) == Some(ConnectionState::Busy)).await;
    go.send_replace(1);
    eventually("a queue", || server.listener.connections()[0].queued_bytes > 0).await;
    assert_eq!(state(&server.listener), Some(ConnectionState::Busy));
    let stats = server.listener.stats();
    assert!(stats.queued_bytes > 0 && stats.memory >= stats.queued_bytes, "{stats:?}");
    let mut flood = vec![0; 4 << 20];
    use tokio::io::AsyncReadExt;
    within("the flood", peer.stream.read_exact(&mut flood)).await.unwrap();
    peer.finish().await;
    eventually("half closed", || state(&server.listener) == Some(ConnectionState::HalfClosed))
        .await;
    server.caller().await.close();
    peer.expect_end("").await;
    eventually("the end", || state(&server.listener).is_none()).await;
    assert_eq!(server.listener.stats().queued_bytes, 0);
    assert_eq!(server.listener.stats().memory, 0);
}

#[tokio::test]
async fn a_connection_whose_on_connect_runs_is_connecting() {
    struct Never;
    impl support::Script for Never {
        async fn connect(&self, _: &Caller) -> onbytes::Result<()> {
            std::future::pending().await
        }
    }
    let server = Server::start(Never).await;
    let _peer = server.connect().await;
    eventually("it", || state(&server.listener) == Some(ConnectionState::Connecting)).await;
    server.listener.immediate_stop().await;
}

#[tokio::test]
async fn one_connection_is_closed_by_its_name_and_another_reset() {
    let mut server = Server::start(Echo).await;
    let (mut one, mut two, mut three) =
        (server.connect().await, server.connect().await, server.connect().await);
    for peer in [&mut one, &mut two, &mut three] {
        round_trip(peer).await;
    }
    let listed = server.listener.connections();
    // As an admin view has it: as text.
    let name = |index: usize| listed[index].id.to_string().parse::<ConnectionId>().unwrap();
    assert!(server.listener.close_connection(name(0)));
    assert!(server.listener.abort_connection(name(1)));
    one.expect_end("").await;
    two.expect_reset().await;
    round_trip(&mut three).await;
    let mut reasons = [server.close().await.reason, server.close().await.reason];
    reasons.sort_unstable();
    assert_eq!(reasons, [CloseReason::LocalClose, CloseReason::LocalAbort]);
    drop(one);
    eventually("the end of two", || server.listener.stats().active == 1).await;
    assert!(!server.listener.close_connection(name(0)), "it is gone");
    assert!(
        !server.listener.abort_connection("0123456789abcdef-1".parse().unwrap()),
        "of another process"
    );
}

#[tokio::test]
async fn a_stopped_listener_has_no_connections() {
    let server = Server::start(Echo).await;
    let mut peer = server.connect().await;
    round_trip(&mut peer).await;
    let id = server.listener.connections()[0].id;
    server.listener.immediate_stop().await;
    assert!(server.listener.connections().is_empty() && !server.listener.close_connection(id));
}

// ---- Limits changed in place ----

fn at_most(count: usize) -> Limits {
    Limits::new().max_connections(count)
}

#[tokio::test]
async fn raising_the_limit_of_connections_lets_those_in_who_wait() {
    let config = ListenerConfiguration::new().limits(at_most(1));
    let server = Server::with(config, Echo).await;
    let mut events = EventNames::of(&server.listener);
    let mut first = server.connect().await;
    round_trip(&mut first).await;
    let mut second = server.connect().await;
    second.send("second").await;
    round_trip(&mut first).await;
    assert_eq!(server.listener.stats().accepted, 1);
    server.listener.set_limits(at_most(2)).unwrap();
    second.expect("second").await;
    events.until("limits_changed").await;
    assert_eq!(server.listener.limits().max_connections, Some(2));
}

#[tokio::test]
async fn lowering_the_limit_of_connections_sends_nobody_away_and_holds_exactly() {
    let config = ListenerConfiguration::new().limits(at_most(3));
    let server = Server::with(config, Echo).await;
    let mut peers = Vec::new();
    for _ in 0..2 {
        let mut peer = server.connect().await;
        round_trip(&mut peer).await;
        peers.push(peer);
    }
    server.listener.set_limits(at_most(1)).unwrap();
    let mut waiting = server.connect().await;
    waiting.send("waited").await;
    for peer in &mut peers {
        round_trip(peer).await;
    }
    assert_eq!(server.listener.stats().accepted, 2);
    // One of two leaves: still as many as there may be.
    let mut one = peers.pop().unwrap();
    one.finish().await;
    one.expect_end("").await;
    drop(one);
    eventually("the end of one", || server.listener.stats().active == 1).await;
    round_trip(&mut peers[0]).await;
    assert_eq!(server.listener.stats().accepted, 2);
    peers.clear();
    waiting.expect("waited").await;
}

#[tokio::test]
async fn whether_callers_wait_or_are_refused_can_change() {
    let config = ListenerConfiguration::new().limits(at_most(1));
    let server = Server::with(config, Echo).await;
    let mut first = server.connect().await;
    round_trip(&mut first).await;
    let mut second = server.connect().await;
    server.listener.set_limits(at_most(1).when_full(WhenFull::Refuse)).unwrap();
    // It has waited until now; from now on nobody waits.
    assert_eq!(second.read_to_end().await.0, b"");
    assert_eq!(server.listener.stats().refused_for(onbytes::Refusal::Full), 1);
    server.listener.set_limits(at_most(1)).unwrap();
    let mut third = server.connect().await;
    third.send("third").await;
    round_trip(&mut first).await;
    drop(first);
    third.expect("third").await;
}

#[tokio::test]
async fn more_room_in_the_queue_lets_a_waiting_writer_go_on() {
    let config = narrow().limits(Limits::new().max_queued_bytes(16 * 1024));
    let mut server = Server::with(config, Echo).await;
    let _peer = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    let len = 8 * 1024;
    eventually("a full queue", || caller.try_write_bytes(vec![1; len]).is_err()).await;
    assert!(caller.queued_bytes() <= 16 * 1024);
    let writing = tokio::spawn({
        let caller = caller.clone();
        async move { caller.write_bytes(vec![2; len]).await }
    });
    tokio::task::yield_now().await;
    let before = caller.queued_bytes();
    server.listener.set_limits(Limits::new().max_queued_bytes(64 * 1024)).unwrap();
    eventually("room", || caller.queued_bytes() == before + len).await;
    caller.abort();
    assert!(within("the write", writing).await.unwrap().is_err());
}

#[tokio::test]
async fn time_limits_hold_for_live_connections_too() {
    let mut server = Server::start(Echo).await;
    let mut idle = server.connect().await;
    round_trip(&mut idle).await;
    server.listener.set_timeouts(Timeouts::new().idle(Duration::from_millis(50))).unwrap();
    idle.expect_end("").await;
    assert_eq!(server.close().await.reason, CloseReason::IdleTimeout);
    let old = Timeouts::new().max_lifetime(Duration::from_millis(1));
    server.listener.set_timeouts(Timeouts::new()).unwrap();
    let mut peer = server.connect().await;
    round_trip(&mut peer).await;
    server.listener.set_timeouts(old).unwrap();
    peer.expect_end("").await;
    assert_eq!(server.close().await.reason, CloseReason::MaxLifetime);
}

#[tokio::test]
async fn impossible_limits_change_nothing() {
    let server = Server::start(Echo).await;
    let mut events = EventNames::of(&server.listener);
    let error = server.listener.set_limits(Limits::new().max_connections(0)).unwrap_err();
    assert!(error.is_configuration() && error.to_string().contains("max_connections"));
    let error = server.listener.set_timeouts(Timeouts::new().idle(Duration::ZERO)).unwrap_err();
    assert!(error.is_configuration() && error.to_string().contains("idle"));
    assert_eq!(server.listener.limits(), Limits::new());
    assert_eq!(server.listener.timeouts(), Timeouts::new());
    assert!(!events.rest().contains(&"limits_changed"));
}

#[tokio::test]
async fn changed_limits_stay_for_the_next_start() {
    let mut server = Server::start(Echo).await;
    server.listener.set_limits(at_most(1)).unwrap();
    server.listener.set_timeouts(Timeouts::new().idle(Duration::from_millis(50))).unwrap();
    server.listener.immediate_stop().await;
    server.listener.start().await.unwrap();
    let mut peer = Peer::connect(server.listener.local_addr().unwrap()).await;
    peer.expect_end("").await;
    assert_eq!(server.close().await.reason, CloseReason::IdleTimeout);
    assert_eq!(server.listener.limits().max_connections, Some(1));
}

#[tokio::test]
async fn a_hook_may_ask_and_change_the_listener_that_calls_it() {
    let server = Server::start(Echo).await;
    let listener = server.listener.clone();
    // A clone in the hook would keep the listener alive for ever.
    let (done, seen) = std::sync::mpsc::channel();
    server.listener.on_event(move |event| {
        if event.name() == "accepted" {
            let _ = listener.set_limits(listener.limits().max_connections(7));
            listener.suspend();
            listener.resume();
            let _ = done.send((listener.connections().len(), listener.stats().active));
        }
    });
    let mut peer = server.connect().await;
    round_trip(&mut peer).await;
    assert_eq!(seen.recv().unwrap(), (1, 1));
    assert_eq!(server.listener.limits().max_connections, Some(7));
    server.listener.on_event(|_| {});
}

#[tokio::test]
async fn a_limit_beyond_what_the_process_may_open_is_told() {
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new()).unwrap();
    let (tell, told) = std::sync::mpsc::channel();
    listener.on_event(move |event| {
        if let onbytes::Event::LimitsWarning { warning, .. } = event {
            let _ = tell.send((*warning).to_owned());
        }
    });
    listener.set_limits(at_most(u32::MAX as usize)).unwrap();
    assert!(told.recv().unwrap().contains("ulimit -n"));
    listener.set_limits(at_most(1)).unwrap();
    assert!(told.try_recv().is_err());
}

#[tokio::test]
async fn a_time_limit_that_is_set_while_a_callback_waits_holds_as_soon_as_it_is_done() {
    let (go_on, waited_for) = tokio::sync::watch::channel(false);
    let script = OnBytes(move |data: Bytes, _: Caller| {
        let mut waited_for = waited_for.clone();
        async move {
            let _ = waited_for.wait_for(|done| *done).await;
            Ok(Some(data))
        }
    });
    let mut server = Server::start(script).await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    server.expect([Seen::Connect, Seen::Bytes(b"x".to_vec())]).await;
    // Both in one turn of the runtime, so that the connection wakes up once for the two.
    server.listener.set_timeouts(Timeouts::new().idle(Duration::from_millis(50))).unwrap();
    go_on.send_replace(true);
    peer.expect("x").await;
    assert_eq!(server.close().await.reason, CloseReason::IdleTimeout);
}
