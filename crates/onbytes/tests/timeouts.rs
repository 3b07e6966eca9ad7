//! The time limits of a connection: what each one ends, what it must not end, and how.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onbytes::{
    Bytes, Caller, Close, CloseReason, ErrorKind, Framing, ListenerConfiguration, MinArrival,
    Result, SocketOptions, Timeouts,
};
use support::{Echo, EventNames, OnBytes, Peer, Script, Seen, Server, eventually, narrow, within};
use tokio::time::sleep;

const SHORT: Duration = Duration::from_millis(60);

fn with(timeouts: Timeouts) -> ListenerConfiguration {
    ListenerConfiguration::new().timeouts(timeouts)
}

// ---- write ----

#[tokio::test]
async fn a_peer_that_does_not_read_is_reset_after_the_write_timeout() {
    let script = OnBytes(|_: Bytes, _: Caller| async { Ok(Some(vec![7; 16 << 20].into())) });
    let config = narrow().timeouts(Timeouts::new().write(SHORT));
    let mut server = Server::with(config, script).await;
    let mut peer = Peer::connect_narrow(server.address).await;
    peer.send("x").await;
    server
        .expect([
            Seen::Connect,
            Seen::Bytes(b"x".to_vec()),
            Seen::Error(ErrorKind::Timeout),
            Seen::Close(CloseReason::WriteTimeout),
        ])
        .await;
    let close = server.close().await;
    assert!(close.error.unwrap().is_timeout());
    assert!(close.stats.bytes_unsent > 0);
    peer.expect_reset().await;
}

#[tokio::test]
async fn a_write_inside_a_callback_fails_after_the_write_timeout_and_is_told_once() {
    let script = OnBytes(|_: Bytes, caller: Caller| async move {
        caller.write_bytes(vec![7; 16 << 20]).await?;
        Ok(None)
    });
    let config = narrow().timeouts(Timeouts::new().write(SHORT));
    let mut server = Server::with(config, script).await;
    let mut peer = Peer::connect_narrow(server.address).await;
    peer.send("x").await;
    server
        .expect([
            Seen::Connect,
            Seen::Bytes(b"x".to_vec()),
            Seen::Error(ErrorKind::Timeout),
            Seen::Close(CloseReason::WriteTimeout),
        ])
        .await;
    within("the stop", server.listener.immediate_stop()).await;
    server.expect_no_more();
}

#[tokio::test]
async fn the_write_timeout_bounds_the_flush_at_the_end() {
    let script = OnBytes(|_: Bytes, caller: Caller| async move {
        caller.close();
        Ok(Some(vec![7; 16 << 20].into()))
    });
    let config = narrow().timeouts(Timeouts::new().write(SHORT));
    let mut server = Server::with(config, script).await;
    let mut peer = Peer::connect_narrow(server.address).await;
    peer.send("x").await;
    let close = server.close().await;
    assert_eq!(close.reason, CloseReason::LocalClose, "the first cause wins");
    assert!(close.stats.bytes_unsent > 0);
    peer.expect_reset().await;
}

#[tokio::test]
async fn a_slow_reader_is_not_cut_off_while_it_reads() {
    const LEN: usize = 600_000;
    let script = OnBytes(|_: Bytes, _: Caller| async { Ok(Some(vec![7; LEN].into())) });
    let config = narrow().timeouts(Timeouts::new().write(Duration::from_secs(1)));
    let server = Server::with(config, script).await;
    let mut peer = Peer::connect_narrow(server.address).await;
    peer.send("x").await;
    // Real time passes: more than the timeout, but never without progress for so long.
    for _ in 0..30 {
        peer.expect(vec![7; LEN / 30]).await;
        sleep(Duration::from_millis(50)).await;
    }
    peer.send("x").await;
    peer.expect(vec![7; LEN]).await;
}

// ---- idle ----

#[tokio::test]
async fn a_silent_peer_is_sent_fin_after_the_idle_timeout_without_on_error() {
    let mut server = Server::with(with(Timeouts::new().idle(SHORT)), Echo).await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect_end("x").await;
    peer.finish().await;
    server
        .expect([Seen::Connect, Seen::Bytes(b"x".to_vec()), Seen::Close(CloseReason::IdleTimeout)])
        .await;
}

#[tokio::test]
async fn a_peer_that_never_sends_is_idle_too() {
    let mut server = Server::with(with(Timeouts::new().idle(SHORT)), Echo).await;
    let mut peer = server.connect().await;
    peer.expect_end("").await;
    server.expect([Seen::Connect, Seen::Close(CloseReason::IdleTimeout)]).await;
}

#[tokio::test]
async fn a_running_callback_is_not_idle() {
    let script = OnBytes(|data: Bytes, _: Caller| async move {
        sleep(SHORT * 5).await;
        Ok(Some(data))
    });
    let mut server = Server::with(with(Timeouts::new().idle(SHORT)), script).await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect_end("x").await;
    server
        .expect([Seen::Connect, Seen::Bytes(b"x".to_vec()), Seen::Close(CloseReason::IdleTimeout)])
        .await;
}

#[tokio::test]
async fn a_slow_on_connect_is_not_idle() {
    struct Slow;
    impl Script for Slow {
        async fn connect(&self, caller: &Caller) -> Result<()> {
            sleep(SHORT * 5).await;
            caller.write_bytes("hello").await
        }
    }
    let mut server = Server::with(with(Timeouts::new().idle(SHORT)), Slow).await;
    let mut peer = server.connect().await;
    peer.expect_end("hello").await;
    server.expect([Seen::Connect, Seen::Close(CloseReason::IdleTimeout)]).await;
}

#[tokio::test]
async fn a_peer_that_sends_now_and_then_is_not_idle() {
    let idle = Duration::from_secs(1);
    let mut server = Server::with(with(Timeouts::new().idle(idle)), Echo).await;
    let mut peer = server.connect().await;
    // Real time passes: more than the timeout.
    for _ in 0..15 {
        peer.send("x").await;
        peer.expect("x").await;
        sleep(idle / 10).await;
    }
    peer.finish().await;
    peer.expect_end("").await;
    assert_eq!(server.close().await.reason, CloseReason::PeerClosed);
}

#[tokio::test]
async fn a_connection_with_something_queued_is_not_idle() {
    const LEN: usize = 1 << 20;
    let script = OnBytes(|_: Bytes, _: Caller| async { Ok(Some(vec![7; LEN].into())) });
    let config = narrow().timeouts(Timeouts::new().idle(SHORT).write(None));
    let mut server = Server::with(config, script).await;
    let mut peer = Peer::connect_narrow(server.address).await;
    peer.send("x").await;
    let caller = server.caller().await;
    eventually("a queue", || caller.queued_bytes() > 0).await;
    sleep(SHORT * 5).await;
    assert!(!caller.is_closed());
    peer.expect_end(vec![7; LEN]).await;
    assert_eq!(server.close().await.reason, CloseReason::IdleTimeout);
}

#[tokio::test]
async fn a_download_that_still_moves_is_not_idle() {
    const LEN: usize = 200_000;
    // All of it fits into the kernel's send buffer, so nothing is queued here.
    let script = OnBytes(|_: Bytes, _: Caller| async { Ok(Some(vec![7; LEN].into())) });
    let socket = SocketOptions::new().send_buffer(1 << 20);
    let idle = Duration::from_millis(500);
    let config = with(Timeouts::new().idle(idle)).socket(socket);
    let mut server = Server::with(config, script).await;
    let mut peer = Peer::connect_narrow(server.address).await;
    peer.send("x").await;
    // Real time passes: more than the timeout.
    for _ in 0..25 {
        peer.expect(vec![7; LEN / 25]).await;
        sleep(idle / 10).await;
    }
    peer.expect_end("").await;
    let close = server.close().await;
    assert_eq!((close.reason, close.stats.bytes_unsent), (CloseReason::IdleTimeout, 0));
}

#[tokio::test]
async fn a_download_that_has_stalled_is_idle() {
    const LEN: usize = 200_000;
    let script = OnBytes(|_: Bytes, _: Caller| async { Ok(Some(vec![7; LEN].into())) });
    let socket = SocketOptions::new().send_buffer(1 << 20);
    let config = with(Timeouts::new().idle(SHORT)).socket(socket);
    let mut server = Server::with(config, script).await;
    let mut peer = Peer::connect_narrow(server.address).await;
    peer.send("x").await;
    assert_eq!(server.close().await.reason, CloseReason::IdleTimeout);
    // Its end is orderly: what the kernel has is not destroyed.
    peer.expect_end(vec![7; LEN]).await;
}

#[tokio::test]
async fn a_half_open_connection_can_be_idle() {
    let config = with(Timeouts::new().idle(SHORT)).allow_half_open(true);
    let mut server = Server::with(config, Echo).await;
    let mut peer = server.connect().await;
    peer.finish().await;
    peer.expect_end("").await;
    server.expect([Seen::Connect, Seen::End, Seen::Close(CloseReason::IdleTimeout)]).await;
}

// ---- min_arrival ----

fn at_least(bytes: usize, within: Duration) -> ListenerConfiguration {
    with(Timeouts::new().min_arrival(MinArrival::new(bytes, within)))
}

#[tokio::test]
async fn a_peer_that_sends_too_little_ends_in_order_though_it_is_never_idle() {
    let mut server = Server::with(at_least(100, 5 * SHORT), Echo).await;
    let Peer { stream } = server.connect().await;
    let (read, mut write) = stream.into_split();
    let dripping = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        while write.write_all(b"x").await.is_ok() {
            sleep(SHORT / 6).await;
        }
    });
    let close = server.close().await;
    assert_eq!(close.reason, CloseReason::TooSlow);
    assert!(close.error.is_none() && close.reason.is_orderly());
    assert!((1..100).contains(&close.stats.bytes_received), "{close:?}");
    assert!(close.stats.age >= 5 * SHORT);
    assert!(!server.seen_so_far().iter().any(|seen| matches!(seen, Seen::Error(_))));
    drop(read);
    within("the end of dripping", dripping).await.unwrap();
}

#[tokio::test]
async fn a_peer_that_says_nothing_at_all_is_too_slow() {
    let mut server = Server::with(at_least(1, SHORT), Echo).await;
    let mut peer = server.connect().await;
    peer.expect_end("").await;
    server.expect([Seen::Connect, Seen::Close(CloseReason::TooSlow)]).await;
}

#[tokio::test]
async fn a_peer_that_sends_enough_stays_for_as_long_as_it_does() {
    let mut server = Server::with(at_least(10, 4 * SHORT), Echo).await;
    let mut peer = server.connect().await;
    for _ in 0..6 {
        peer.send([7; 10]).await;
        peer.expect([7; 10]).await;
        sleep(SHORT).await;
    }
    peer.finish().await;
    peer.expect_end("").await;
    assert_eq!(server.close().await.reason, CloseReason::PeerClosed);
}

#[tokio::test]
async fn the_time_of_a_callback_is_not_the_peers() {
    let script = OnBytes(|data: Bytes, _: Caller| async move {
        sleep(4 * SHORT).await;
        Ok(Some(data))
    });
    let mut server = Server::with(at_least(2, 2 * SHORT), script).await;
    let mut peer = server.connect().await;
    for _ in 0..2 {
        // One byte before and one after the callback: enough in the time that was waited.
        peer.send("x").await;
        peer.expect("x").await;
    }
    peer.finish().await;
    peer.expect_end("").await;
    assert_eq!(server.close().await.reason, CloseReason::PeerClosed);
}

#[tokio::test]
async fn while_something_is_queued_it_is_the_peers_turn_to_read() {
    let script = OnBytes(|_: Bytes, _: Caller| async { Ok(Some(vec![7; 4 << 20].into())) });
    let timeouts = Timeouts::new().min_arrival(MinArrival::new(1, 2 * SHORT));
    let mut server = Server::with(narrow().timeouts(timeouts), script).await;
    let mut peer = Peer::connect_narrow(server.address).await;
    peer.send("x").await;
    let caller = server.caller().await;
    eventually("a queue", || caller.queued_bytes() > 0).await;
    sleep(4 * SHORT).await;
    assert!(!caller.is_closed());
    peer.expect(vec![7; 4 << 20]).await;
    assert_eq!(server.close().await.reason, CloseReason::TooSlow, "from now on it is waited for");
}

#[tokio::test]
async fn a_peer_that_has_ended_its_side_owes_nothing() {
    let config = at_least(10, SHORT).allow_half_open(true);
    let mut server = Server::with(config, Echo).await;
    let mut peer = server.connect().await;
    peer.finish().await;
    let caller = server.caller().await;
    server.expect([Seen::Connect, Seen::End]).await;
    sleep(3 * SHORT).await;
    caller.write_bytes("still here").await.unwrap();
    caller.close();
    peer.expect_end("still here").await;
    assert_eq!(server.close().await.reason, CloseReason::LocalClose);
}

// ---- max_lifetime ----

#[tokio::test]
async fn connections_that_came_together_do_not_all_end_together() {
    let lifetime = Duration::from_millis(400);
    let timeouts = Timeouts::new().max_lifetime(lifetime).max_lifetime_jitter(1.0);
    let mut server = Server::with(with(timeouts), Echo).await;
    let mut peers = Vec::new();
    for _ in 0..40 {
        peers.push(server.connect().await);
    }
    let mut early = 0;
    for _ in &peers {
        let close = server.close().await;
        assert_eq!(close.reason, CloseReason::MaxLifetime);
        early += usize::from(close.stats.age < lifetime / 2);
    }
    // Of 40 each with even chances; all on one side would be once in a hundred thousand million.
    assert!((1..40).contains(&early), "{early} of 40 in the first half");
}

#[tokio::test]
async fn a_busy_connection_ends_in_order_at_its_greatest_age() {
    let lifetime = Duration::from_millis(200);
    let timeouts = Timeouts::new().max_lifetime(lifetime).max_lifetime_jitter(0.0);
    let mut server = Server::with(with(timeouts), Echo).await;
    let Peer { stream } = server.connect().await;
    let (mut read, mut write) = stream.into_split();
    let writing = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        while write.write_all(&[7; 1000]).await.is_ok() {}
    });
    let reading =
        tokio::spawn(async move { tokio::io::copy(&mut read, &mut tokio::io::sink()).await });
    let close = server.close().await;
    assert_eq!(close.reason, CloseReason::MaxLifetime);
    assert!(close.error.is_none());
    assert!(close.stats.age >= lifetime);
    let _ = within("the end of reading", reading).await.unwrap();
    within("the end of writing", writing).await.unwrap();
}

#[tokio::test]
async fn an_idle_connection_ends_in_order_at_its_greatest_age() {
    let mut server = Server::with(with(Timeouts::new().max_lifetime(SHORT)), Echo).await;
    let mut peer = server.connect().await;
    peer.expect_end("").await;
    server.expect([Seen::Connect, Seen::Close(CloseReason::MaxLifetime)]).await;
}

#[tokio::test]
async fn at_its_greatest_age_a_running_callback_finishes_and_its_reply_is_sent() {
    let script = OnBytes(|data: Bytes, _: Caller| async move {
        sleep(SHORT * 4).await;
        Ok(Some(data))
    });
    let mut server = Server::with(with(Timeouts::new().max_lifetime(SHORT)), script).await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    let (got, end) = peer.read_to_end().await;
    end.unwrap();
    // On a slow machine the connection may have grown too old before the byte came.
    let seen = server.seen_so_far();
    assert_eq!(got.len(), seen.iter().filter(|seen| matches!(seen, Seen::Bytes(_))).count());
    assert_eq!(server.close().await.reason, CloseReason::MaxLifetime);
}

// ---- on_close ----

struct NeverCloses(Arc<AtomicUsize>);
struct CountsDrop(Arc<AtomicUsize>);
impl Drop for CountsDrop {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}
impl Script for NeverCloses {
    async fn close(&self, _: &Close) {
        let _guard = CountsDrop(self.0.clone());
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn an_on_close_beyond_its_budget_is_dropped_and_told_of() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let config = with(Timeouts::new().on_close(SHORT));
    let server = Server::with(config, NeverCloses(dropped.clone())).await;
    let mut events = EventNames::of(&server.listener);
    let mut peer = server.connect().await;
    peer.finish().await;
    peer.expect_end("").await;
    events.until("close_overran").await;
    events.until("closed").await;
    eventually("the drop", || dropped.load(Ordering::SeqCst) == 1).await;
    eventually("a free place", || server.listener.stats().active == 0).await;
}

#[tokio::test]
async fn the_peer_does_not_wait_for_on_close() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let config = with(Timeouts::new().on_close(Duration::from_secs(3600)));
    let mut server = Server::with(config, NeverCloses(dropped.clone())).await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect("x").await;
    server.caller().await.close();
    peer.expect_end("").await;
    assert_eq!(dropped.load(Ordering::SeqCst), 0);
}

// ---- Time limits and tasks that have used up their turn ----

/// Uses up what the runtime lets a task do before others get their turn.
async fn use_up_the_turn() {
    while tokio::task::coop::has_budget_remaining() {
        tokio::task::coop::consume_budget().await;
    }
}

#[tokio::test]
async fn a_lifetime_ends_a_connection_whose_on_connect_used_up_its_turn() {
    struct Busy;
    impl Script for Busy {
        async fn connect(&self, _: &Caller) -> Result<()> {
            use_up_the_turn().await;
            // Waits, and the timer is set meanwhile.
            tokio::task::yield_now().await;
            Ok(())
        }
    }
    let timeouts = Timeouts::new().max_lifetime(SHORT).idle(Duration::from_secs(60));
    let mut server = Server::with(with(timeouts), Busy).await;
    let _peer = Peer::connect(server.address).await;
    assert_eq!(server.close().await.reason, CloseReason::MaxLifetime);
}

#[tokio::test]
async fn an_idle_connection_ends_though_its_callback_used_up_its_turn() {
    let script = OnBytes(|data: Bytes, _: Caller| async move {
        use_up_the_turn().await;
        Ok(Some(data))
    });
    let mut server = Server::with(with(Timeouts::new().idle(SHORT)), script).await;
    let mut peer = Peer::connect(server.address).await;
    peer.send("x").await;
    assert_eq!(server.close().await.reason, CloseReason::IdleTimeout);
}

#[tokio::test]
async fn an_idle_connection_ends_however_many_frames_of_it_were_sent_on() {
    for count in 124..=132 {
        let (tell, _told) = tokio::sync::mpsc::channel::<Bytes>(1000);
        let script = OnBytes(move |data: Bytes, _: Caller| {
            let tell = tell.clone();
            async move {
                let _ = tell.send(data).await;
                Ok(None)
            }
        });
        let config = with(Timeouts::new().idle(SHORT)).framing(Framing::lines());
        let mut server = Server::with(config, script).await;
        let mut peer = Peer::connect(server.address).await;
        peer.send("x\n".repeat(count)).await;
        assert_eq!(server.close().await.reason, CloseReason::IdleTimeout, "{count} frames");
    }
}
