//! What connections hold together: queued bytes and memory, and which connection has to go when it is
//! too much.

mod support;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use onbytes::{
    Bytes, Caller, CloseReason, ErrorKind, Event, Limits, Listener, ListenerConfiguration,
    Pressure, Refusal, WhenFull,
};
use support::{Echo, OnBytes, Peer, Seen, Server, eventually, narrow, within};

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Little room in the kernel, so that what is queued is queued here.
fn narrow_with(limits: Limits) -> ListenerConfiguration {
    narrow().limits(limits)
}

/// Peers that do not read, and their callers.
async fn stuck(server: &mut Server, count: usize) -> (Vec<Peer>, Vec<Caller>) {
    let (mut peers, mut callers) = (Vec::new(), Vec::new());
    for _ in 0..count {
        peers.push(Peer::connect_narrow(server.address).await);
        callers.push(server.caller().await);
        // The kernel is full from here on, and one byte is queued.
        while callers.last().unwrap().queued_bytes() == 0 {
            callers.last().unwrap().try_write_bytes(vec![0; 4 * KIB]).unwrap();
        }
    }
    (peers, callers)
}

/// Writes messages until so many bytes are queued.
fn fill(caller: &Caller, queued: usize) {
    while caller.queued_bytes() < queued {
        let len = (queued - caller.queued_bytes()).min(4 * KIB);
        caller.try_write_bytes(vec![1; len]).unwrap();
    }
}

/// The levels of pressure that were told, in their order.
#[derive(Clone, Default)]
struct Levels(Arc<Mutex<Vec<Pressure>>>);

impl Levels {
    fn of(listener: &Listener) -> Self {
        let levels = Self::default();
        let told = levels.clone();
        listener.on_event(move |event| {
            if let Event::Overload { pressure, before, memory, ceiling, .. } = event {
                assert!(before != pressure && ceiling > &0);
                if pressure > before {
                    assert!(memory > &0);
                }
                told.0.lock().unwrap().push(*pressure);
            }
        });
        levels
    }

    fn last(&self) -> Option<Pressure> {
        self.0.lock().unwrap().last().copied()
    }

    fn all(&self) -> Vec<Pressure> {
        self.0.lock().unwrap().clone()
    }
}

// ---- Queued bytes ----

#[tokio::test]
async fn a_queue_has_the_room_that_is_configured() {
    for room in [KIB, 10 * KIB, 256 * KIB] {
        let mut server =
            Server::with(narrow_with(Limits::new().max_queued_bytes(room)), Echo).await;
        let (_peers, callers) = stuck(&mut server, 1).await;
        let caller = &callers[0];
        while caller.try_write_bytes(vec![1; 100]).is_ok() {}
        assert!((room - 100..=room.max(4 * KIB)).contains(&caller.queued_bytes()), "{room}");
        let error = caller.try_write_bytes(vec![1; 100]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Full);
    }
}

#[tokio::test]
async fn the_largest_queue_goes_when_all_together_are_too_large() {
    let limits = Limits::new().max_queued_bytes_total(100 * KIB);
    let mut server = Server::with(narrow_with(limits), Echo).await;
    let (mut peers, callers) = stuck(&mut server, 3).await;
    fill(&callers[0], 20 * KIB);
    fill(&callers[1], 50 * KIB);
    fill(&callers[2], 29 * KIB);
    assert!(callers.iter().all(|caller| !caller.is_closed()));
    // The smallest one brings the sum over the limit, and the largest goes.
    callers[0].try_write_bytes(vec![1; 2 * KIB]).unwrap();
    assert!(callers[1].is_closed() && !callers[0].is_closed() && !callers[2].is_closed());
    assert!(server.listener.stats().queued_bytes <= 100 * KIB);
    let close = server.close().await;
    assert_eq!(close.reason, CloseReason::Limit);
    let error = close.error.unwrap();
    assert_eq!(error.kind(), ErrorKind::Limit);
    assert!(error.to_string().contains("max_queued_bytes_total"), "{error}");
    assert!(close.stats.bytes_unsent >= 50 * KIB as u64);
    peers.remove(1).expect_reset().await;
    // The others get everything.
    for (mut peer, caller) in peers.into_iter().zip([&callers[0], &callers[2]]) {
        caller.close();
        let (got, result) = peer.read_to_end().await;
        result.unwrap();
        assert_eq!(got.len() as u64, caller.stats().bytes_sent);
        assert_eq!(caller.stats().bytes_unsent, 0);
    }
}

#[tokio::test]
async fn one_task_that_writes_to_many_cannot_go_beyond_the_total() {
    let limits = Limits::new().max_queued_bytes_total(200 * KIB);
    let mut server = Server::with(narrow_with(limits), Echo).await;
    let (_peers, callers) = stuck(&mut server, 20).await;
    // Without a single await between: nobody else gets a turn to put things right.
    for caller in &callers {
        let _ = caller.try_write_bytes(vec![1; 30 * KIB]);
        assert!(server.listener.stats().queued_bytes <= 200 * KIB);
    }
    let closed = callers.iter().filter(|caller| caller.is_closed()).count();
    assert!((13..20).contains(&closed), "{closed} of 20 had to go");
    eventually("their end", || server.listener.stats().closed(CloseReason::Limit) == closed as u64)
        .await;
}

#[tokio::test]
async fn a_limit_lowered_below_what_is_queued_holds_at_once() {
    let mut server = Server::with(narrow_with(Limits::new()), Echo).await;
    let (_peers, callers) = stuck(&mut server, 4).await;
    callers.iter().for_each(|caller| fill(caller, 40 * KIB));
    server.listener.set_limits(Limits::new().max_queued_bytes_total(100 * KIB)).unwrap();
    assert_eq!(callers.iter().filter(|caller| caller.is_closed()).count(), 2);
    assert!(server.listener.stats().queued_bytes <= 100 * KIB);
}

#[tokio::test]
async fn no_callback_hears_of_a_limit_as_of_a_failure() {
    let limits = Limits::new().max_queued_bytes_total(KIB);
    let mut server = Server::with(narrow_with(limits), Echo).await;
    let _peer = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    let error = within("the write", caller.write_bytes(vec![1; MIB])).await.unwrap_err();
    assert!(error.is_closed(), "{error}");
    server.expect([Seen::Connect, Seen::Close(CloseReason::Limit)]).await;
}

// ---- Memory ----

/// As many idle connections as there is room for.
async fn crowd(server: &Server, count: usize) -> Vec<Peer> {
    let mut peers = Vec::with_capacity(count);
    for _ in 0..count {
        peers.push(server.connect().await);
    }
    peers
}

#[tokio::test]
async fn what_connections_take_is_counted_and_given_back() {
    let server = Server::start(Echo).await;
    assert_eq!(server.listener.stats().memory, 0);
    let peers = crowd(&server, 20).await;
    eventually("all", || server.listener.stats().active == 20).await;
    let memory = server.listener.stats().memory;
    assert!((20 * 700..20 * 16 * KIB).contains(&memory), "{memory} bytes for 20");
    drop(peers);
    eventually("nobody", || server.listener.stats().active == 0).await;
    assert_eq!(server.listener.stats().memory, 0);
}

#[tokio::test]
async fn those_idle_longest_go_when_memory_is_short_and_newcomers_are_served() {
    let server =
        Server::with(ListenerConfiguration::new().limits(Limits::new().max_memory(MIB)), Echo)
            .await;
    let levels = Levels::of(&server.listener);
    let each = {
        let _peer = server.connect().await;
        eventually("one", || server.listener.stats().active == 1).await;
        server.listener.stats().memory
    };
    eventually("nobody", || server.listener.stats().active == 0).await;
    // Up to 78 %, and none of them has been idle for a second yet.
    let count = MIB * 78 / 100 / each;
    let mut early = crowd(&server, count).await;
    eventually("all", || server.listener.stats().active == count).await;
    assert_eq!(levels.all(), [Pressure::Shrink]);
    // Time itself has to pass here: one that answered a moment ago is not taken for idle.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let first = &mut early[0];
    first.send("x").await;
    first.expect("x").await;
    let mut late = crowd(&server, MIB * 8 / 100 / each).await;
    let limit = || server.listener.stats().closed(CloseReason::Limit);
    eventually("room", || limit() > 0 && server.listener.stats().memory < MIB * 82 / 100).await;
    assert!(levels.all().contains(&Pressure::CloseIdle));
    // Who was in use a moment ago stays; the oldest of the others went first.
    for peer in std::iter::once(&mut early[0]).chain(&mut late) {
        peer.send("y").await;
        peer.expect("y").await;
    }
    let mut second = early.remove(1);
    second.expect_reset().await;
    // When they leave all is well again.
    drop((early, late));
    eventually("calm", || levels.last() == Some(Pressure::None)).await;
    eventually("nothing", || server.listener.stats().memory == 0).await;
}

#[tokio::test]
async fn nobody_is_accepted_at_ninety_percent_and_then_again() {
    let limits = Limits::new().max_memory(MIB);
    let mut server = Server::with(narrow_with(limits), Echo).await;
    let levels = Levels::of(&server.listener);
    let _peer = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    // A service's own message, which nobody else holds, counts as it is.
    let mut write = Box::pin(caller.write_bytes(vec![1; MIB * 93 / 100]));
    assert!(support::poll_once(&mut write).is_pending());
    assert_eq!(levels.last(), Some(Pressure::StopAccepting));
    let mut waiting = server.connect().await;
    waiting.send("waited").await;
    tokio::task::yield_now().await;
    assert_eq!(server.listener.stats().active, 1);
    // The one that holds it goes, and who waits comes in.
    drop(write);
    caller.abort();
    waiting.expect("waited").await;
    assert_eq!(levels.last(), Some(Pressure::None));
    assert_eq!(server.listener.stats().closed(CloseReason::Limit), 0);
}

#[tokio::test]
async fn a_listener_that_refuses_does_so_for_want_of_memory_too() {
    let limits = Limits::new().max_memory(MIB).when_full(WhenFull::Refuse);
    let mut server = Server::with(narrow_with(limits), Echo).await;
    let _peer = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    let mut write = Box::pin(caller.write_bytes(vec![1; MIB * 93 / 100]));
    assert!(support::poll_once(&mut write).is_pending());
    let mut refused = server.connect().await;
    assert_eq!(refused.read_to_end().await.0, b"");
    assert_eq!(server.listener.stats().refused_for(Refusal::Overload), 1);
    drop(write);
    caller.abort();
    eventually("room", || server.listener.stats().memory == 0).await;
    let mut served = server.connect().await;
    served.send("x").await;
    served.expect("x").await;
}

#[tokio::test]
async fn whoever_holds_most_goes_when_the_ceiling_itself_is_reached() {
    let limits = Limits::new().max_memory(MIB);
    let mut server = Server::with(narrow_with(limits), Echo).await;
    let (_peers, callers) = stuck(&mut server, 3).await;
    let write = |caller: &Caller, len: usize| {
        let caller = caller.clone();
        let mut write = Box::pin(async move { caller.write_bytes(vec![1; len]).await });
        // A larger message enters an empty queue only; these have room for one more.
        let _ = support::poll_once(&mut write);
        write
    };
    let _one = write(&callers[0], 40 * KIB);
    let _two = write(&callers[1], 50 * KIB);
    let _three = write(&callers[2], 30 * KIB);
    // A fourth one that needs more than there is.
    let _peer = Peer::connect_narrow(server.address).await;
    let greedy = server.caller().await;
    let _four = write(&greedy, 2 * MIB);
    assert!(greedy.is_closed());
    assert!(callers.iter().all(|caller| !caller.is_closed()));
    let close = server.close().await;
    assert_eq!(close.reason, CloseReason::Limit);
    assert!(close.error.unwrap().to_string().contains("max_memory"));
}

#[tokio::test]
async fn queues_have_less_room_while_memory_is_short() {
    let limits = Limits::new().max_memory(MIB);
    let mut server = Server::with(narrow_with(limits), Echo).await;
    let levels = Levels::of(&server.listener);
    let (_peers, callers) = stuck(&mut server, 1).await;
    let _peer = Peer::connect_narrow(server.address).await;
    let greedy = server.caller().await;
    let mut write = Box::pin(greedy.write_bytes(vec![1; MIB * 74 / 100]));
    assert!(support::poll_once(&mut write).is_pending());
    assert_eq!(levels.last(), Some(Pressure::Shrink));
    while callers[0].try_write_bytes(vec![1; KIB]).is_ok() {}
    assert!(callers[0].queued_bytes() <= 16 * KIB, "a quarter of 64 KiB");
    drop(write);
    greedy.abort();
    eventually("calm", || levels.last() == Some(Pressure::None)).await;
    callers[0].try_write_bytes(vec![1; 32 * KIB]).unwrap();
}

#[tokio::test]
async fn a_ceiling_that_is_raised_or_switched_off_ends_the_pressure() {
    let limits = Limits::new().max_memory(MIB);
    let mut server = Server::with(narrow_with(limits), Echo).await;
    let levels = Levels::of(&server.listener);
    let _peer = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    let mut write = Box::pin(caller.write_bytes(vec![1; MIB * 95 / 100]));
    assert!(support::poll_once(&mut write).is_pending());
    assert_eq!(levels.last(), Some(Pressure::StopAccepting));
    server.listener.set_limits(Limits::new().max_memory(usize::MAX)).unwrap();
    assert_eq!(levels.last(), Some(Pressure::None));
    let mut served = server.connect().await;
    served.send("x").await;
    served.expect("x").await;
    // And the other way round.
    server.listener.set_limits(Limits::new().max_memory(MIB)).unwrap();
    assert_eq!(levels.last(), Some(Pressure::StopAccepting));
}

#[tokio::test]
async fn a_message_that_many_share_is_not_counted_for_each() {
    let limits = Limits::new().max_memory(4 * MIB);
    let mut server = Server::with(narrow_with(limits), Echo).await;
    let levels = Levels::of(&server.listener);
    let shared = Bytes::from(vec![1; MIB]);
    let (mut peers, mut writes) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        peers.push(Peer::connect_narrow(server.address).await);
        let (caller, shared) = (server.caller().await, shared.clone());
        let mut write = Box::pin(async move { caller.write_bytes(shared).await });
        assert!(support::poll_once(&mut write).is_pending());
        writes.push(write);
    }
    assert!(levels.all().is_empty(), "20 MiB are queued, and 1 MiB is held");
    assert!(server.listener.stats().queued_bytes > 19 * MIB);
}

#[tokio::test]
async fn parts_of_read_buffers_are_let_go_when_memory_is_short() {
    // Every echo of 20 KiB may keep a read buffer of 256 KiB alive.
    let limits = Limits::new().max_memory(2 * MIB);
    let server =
        Server::with(narrow_with(limits), OnBytes(|data: Bytes, _| async move { Ok(Some(data)) }))
            .await;
    let levels = Levels::of(&server.listener);
    let mut peers = Vec::new();
    for _ in 0..12 {
        let mut peer = Peer::connect_narrow(server.address).await;
        let sending = async {
            use tokio::io::AsyncWriteExt;
            let _ = peer.stream.write_all(&vec![7; 256 * KIB]).await;
        };
        // It sends until nothing more is taken from it.
        let _ = tokio::time::timeout(Duration::from_millis(50), sending).await;
        peers.push(peer);
    }
    let stats = server.listener.stats();
    assert_eq!(stats.closed(CloseReason::Limit), 0, "{:?}", levels.all());
    assert!(stats.memory < 2 * MIB, "{stats:?}");
    assert_eq!(stats.active, 12);
}

#[tokio::test]
async fn a_burst_does_not_shut_the_door_for_good() {
    // So many that 90 % are reached before anybody has been idle for a second.
    let server =
        Server::with(ListenerConfiguration::new().limits(Limits::new().max_memory(MIB)), Echo)
            .await;
    let levels = Levels::of(&server.listener);
    let mut burst = Vec::new();
    while server.listener.stats().pressure != Pressure::StopAccepting {
        burst.push(server.connect().await);
        tokio::task::yield_now().await;
    }
    // Nothing moves from here on, and yet there is room again.
    let mut newcomer = server.connect().await;
    newcomer.send("x").await;
    newcomer.expect("x").await;
    assert!(levels.all().contains(&Pressure::StopAccepting));
    assert!(server.listener.stats().closed(CloseReason::Limit) > 0);
}

#[tokio::test]
async fn an_ending_that_its_peer_does_not_let_us_finish_holds_nothing_for_long() {
    let server = Server::with(
        narrow_with(Limits::new().max_memory(MIB)),
        OnBytes(|_: Bytes, caller: Caller| async move {
            caller.close();
            Ok(Some(vec![1; 8 * MIB].into()))
        }),
    )
    .await;
    let mut peer = Peer::connect_narrow(server.address).await;
    peer.send("x").await;
    eventually("its end", || server.listener.stats().closed(CloseReason::LocalClose) == 1).await;
    eventually("room", || server.listener.stats().memory < MIB).await;
}

#[tokio::test]
async fn whoever_does_not_read_goes_before_those_who_are_only_idle() {
    let mut server = Server::with(narrow_with(Limits::new().max_memory(MIB)), Echo).await;
    let mut idle = crowd(&server, 20).await;
    for peer in &mut idle {
        peer.send("x").await;
        peer.expect("x").await;
        server.caller().await;
    }
    let _hog = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    let mut write = Box::pin(caller.write_bytes(vec![1; MIB * 85 / 100]));
    assert!(support::poll_once(&mut write).is_pending());
    within("the end of the hog", caller.closed()).await;
    for peer in &mut idle {
        peer.send("y").await;
        peer.expect("y").await;
    }
    assert_eq!(server.listener.stats().closed(CloseReason::Limit), 1);
}

#[tokio::test]
async fn a_message_that_only_the_queue_holds_any_more_is_counted() {
    let mut server = Server::with(narrow_with(Limits::new().max_memory(MIB)), Echo).await;
    let _peer = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    let body = Bytes::from(vec![1; 2 * MIB]);
    let part = body.slice(..MIB * 85 / 100);
    let mut write = Box::pin(caller.write_bytes(part));
    assert!(support::poll_once(&mut write).is_pending());
    drop(body);
    assert!(server.listener.stats().memory > MIB * 80 / 100);
    assert!(server.listener.stats().pressure >= Pressure::CloseIdle);
}

#[tokio::test]
async fn a_ceiling_lowered_below_what_is_held_holds_at_once() {
    let mut server = Server::with(narrow_with(Limits::new().max_memory(8 * MIB)), Echo).await;
    let _peer = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    let mut write = Box::pin(caller.write_bytes(vec![1; MIB * 76 / 10]));
    assert!(support::poll_once(&mut write).is_pending());
    assert_eq!(server.listener.stats().pressure, Pressure::StopAccepting);
    server.listener.set_limits(Limits::new().max_memory(MIB)).unwrap();
    assert!(caller.is_closed());
}

#[tokio::test]
async fn writers_who_wait_go_on_when_memory_is_less_short() {
    let mut server = Server::with(narrow_with(Limits::new().max_memory(MIB)), Echo).await;
    let (_peers, callers) = stuck(&mut server, 1).await;
    let _peer = Peer::connect_narrow(server.address).await;
    let greedy = server.caller().await;
    let mut write = Box::pin(greedy.write_bytes(vec![1; MIB * 74 / 100]));
    assert!(support::poll_once(&mut write).is_pending());
    while callers[0].try_write_bytes(vec![1; KIB]).is_ok() {}
    let before = callers[0].queued_bytes();
    let waiting = callers[0].clone();
    let waits = tokio::spawn(async move { waiting.write_bytes(vec![2; KIB]).await });
    tokio::task::yield_now().await;
    assert_eq!(callers[0].queued_bytes(), before);
    drop(write);
    greedy.abort();
    // Its peer takes nothing meanwhile.
    eventually("room", || callers[0].queued_bytes() == before + KIB).await;
    callers[0].abort();
    assert!(within("the write", waits).await.unwrap().is_err());
}

// ---- What may not happen ----

#[tokio::test]
async fn bytes_of_a_connection_that_was_reset_count_no_more() {
    let mut server = Server::with(narrow_with(Limits::new()), Echo).await;
    let (_peers, callers) = stuck(&mut server, 3).await;
    fill(&callers[0], 60 * KIB);
    let before = server.listener.stats().queued_bytes;
    callers[0].abort();
    // At once, though its task has had no turn yet.
    assert!(server.listener.stats().queued_bytes <= before - 60 * KIB);
    // Neither is there anything to be brought back now, nor anybody to go for it.
    let rest = server.listener.stats().queued_bytes;
    server.listener.set_limits(Limits::new().max_queued_bytes_total(rest)).unwrap();
    assert!(!callers[1].is_closed() && !callers[2].is_closed());
}

#[tokio::test]
async fn a_message_that_its_service_keeps_too_makes_its_queue_the_largest() {
    let mut server = Server::with(narrow_with(Limits::new().max_memory(MIB)), Echo).await;
    let mut others = crowd(&server, 30).await;
    for peer in &mut others {
        peer.send("x").await;
        peer.expect("x").await;
        server.caller().await;
    }
    // A file that is cached, and one peer that does not read it.
    let cached = Bytes::from(vec![1; 2 * MIB]);
    let _hog = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    let mut write = Box::pin(caller.write_bytes(cached.clone()));
    assert!(support::poll_once(&mut write).is_pending());
    assert!(caller.is_closed(), "it held most");
    for peer in &mut others {
        peer.send("y").await;
        peer.expect("y").await;
    }
    assert_eq!(server.listener.stats().closed(CloseReason::Limit), 1);
}

#[tokio::test]
async fn a_slow_peer_that_reads_is_not_taken_for_one_that_does_not() {
    let mut server = Server::with(narrow_with(Limits::new().max_memory(MIB)), Echo).await;
    let mut slow = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    let mut write = Box::pin(caller.write_bytes(vec![1; MIB * 85 / 100]));
    assert!(support::poll_once(&mut write).is_pending());
    assert!(server.listener.stats().pressure >= Pressure::CloseIdle);
    // Far less than the kernel's buffers hold at a time, but again and again.
    let until = tokio::time::Instant::now() + Duration::from_secs(3);
    while tokio::time::Instant::now() < until {
        slow.expect(vec![1; 512]).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(!caller.is_closed());
}

#[tokio::test]
async fn a_flood_does_not_drive_out_who_was_there() {
    let server =
        Server::with(ListenerConfiguration::new().limits(Limits::new().max_memory(MIB)), Echo)
            .await;
    let mut established = crowd(&server, 20).await;
    for peer in &mut established {
        peer.send("x").await;
        peer.expect("x").await;
    }
    let mut flood = Vec::new();
    while server.listener.stats().pressure != Pressure::StopAccepting {
        flood.push(server.connect().await);
        tokio::task::yield_now().await;
    }
    // Everybody says something all the time, so nobody is idle, until it has lasted for too long.
    let limit = || server.listener.stats().closed(CloseReason::Limit);
    while limit() == 0 {
        for peer in flood.iter_mut().chain(&mut established) {
            let _ = peer.stream.try_write(b"y");
            let _ = peer.stream.try_read(&mut [0; 64]);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for peer in &mut established {
        while peer.stream.try_read(&mut [0; 64]).is_ok() {}
        peer.send("z").await;
        let mut got = Vec::new();
        use tokio::io::AsyncReadExt;
        while !got.ends_with(b"z") {
            let mut part = [0; 64];
            let count = within("the echo", peer.stream.read(&mut part)).await.unwrap();
            assert!(count > 0, "it was driven out");
            got.extend_from_slice(&part[..count]);
        }
    }
}

#[tokio::test]
async fn callbacks_that_wait_do_not_stand_for_memory_that_is_about_to_be_free() {
    let script = OnBytes(|_: Bytes, _: Caller| async { std::future::pending().await });
    let server =
        Server::with(ListenerConfiguration::new().limits(Limits::new().max_memory(MIB)), script)
            .await;
    // Half of the memory is with callbacks that wait for ever, and whose peers have gone.
    let mut waiting = Vec::new();
    while server.listener.stats().memory < MIB / 2 {
        let mut peer = server.connect().await;
        peer.send("x").await;
        waiting.push(peer);
        tokio::task::yield_now().await;
    }
    waiting.into_iter().for_each(Peer::reset);
    // The other half fills with idle ones, which have to go for the next caller.
    let mut idle = Vec::new();
    while server.listener.stats().pressure != Pressure::StopAccepting {
        idle.push(server.connect().await);
        tokio::task::yield_now().await;
    }
    eventually("room", || server.listener.stats().pressure < Pressure::StopAccepting).await;
    server.listener.immediate_stop().await;
}
