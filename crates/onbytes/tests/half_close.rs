//! The peer's FIN: everything before it is delivered and answered, then `on_end`; with
//! `allow_half_open` the connection stays until the service closes it.

mod support;

use std::sync::Arc;
use std::time::Duration;

use onbytes::{Bytes, Caller, CloseReason, ErrorKind, ListenerConfiguration, Result, Timeouts};
use support::{Echo, OnBytes, Peer, Script, Seen, Server, narrow, pattern, within};
use tokio::io::AsyncWriteExt;
use tokio::sync::Notify;

const LONG: Duration = Duration::from_secs(60);

fn half_open() -> ListenerConfiguration {
    ListenerConfiguration::new().allow_half_open(true)
}

/// Echoes slowly, and says goodbye at the end.
struct Polite;
impl Script for Polite {
    async fn bytes(&self, data: Bytes, _: &Caller) -> Result<Option<Bytes>> {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        Ok(Some(data))
    }
    async fn end(&self, caller: &Caller) -> Result<Option<Bytes>> {
        caller.write_bytes("good").await?;
        Ok(Some(Bytes::from_static(b"bye")))
    }
}

#[tokio::test]
async fn every_byte_before_fin_is_delivered_and_answered_then_on_end_has_its_say() {
    for len in [1, 1_000, 100_000, 3_000_000] {
        let mut server = Server::with(narrow(), Polite).await;
        let peer = server.connect().await;
        let (mut reading, mut writing) = peer.stream.into_split();
        let sending = tokio::spawn(async move {
            writing.write_all(&pattern(1, len)).await.unwrap();
            writing.shutdown().await.unwrap();
            writing
        });
        let mut expected = pattern(1, len).to_vec();
        expected.extend_from_slice(b"goodbye");
        let mut got = Vec::new();
        let read = tokio::io::AsyncReadExt::read_to_end(&mut reading, &mut got);
        within("the end", read).await.unwrap();
        assert!(got == expected);
        within("the end of sending", sending).await.unwrap();
        let close = server.close().await;
        assert_eq!(close.reason, CloseReason::PeerClosed);
        assert_eq!(close.stats.bytes_received, len as u64);
        assert_eq!(close.stats.bytes_sent, len as u64 + 7);
        let seen = server.seen_so_far();
        let ends = seen.iter().filter(|seen| **seen == Seen::End).count();
        assert_eq!(ends, 1);
        assert_eq!(seen[seen.len() - 2..], [Seen::End, Seen::Close(CloseReason::PeerClosed)]);
    }
}

#[tokio::test]
async fn fin_waits_for_the_running_callback_and_its_writes() {
    let leave = Arc::new(Notify::new());
    let gate = leave.clone();
    let mut server = Server::start(OnBytes(move |_: Bytes, caller: Caller| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            caller.write_bytes(pattern(1, 1_000_000)).await?;
            Ok(Some(Bytes::from_static(b"!")))
        }
    }))
    .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.finish().await;
    server.expect([Seen::Connect, Seen::Bytes(b"x".to_vec())]).await;
    leave.notify_one();
    peer.expect(pattern(1, 1_000_000)).await;
    peer.expect_end("!").await;
    server.expect([Seen::End, Seen::Close(CloseReason::PeerClosed)]).await;
}

#[tokio::test]
async fn fin_at_once_is_an_end_without_bytes() {
    let mut server = Server::start(Polite).await;
    let mut peer = server.connect().await;
    peer.finish().await;
    peer.expect_end("goodbye").await;
    server.expect([Seen::Connect, Seen::End, Seen::Close(CloseReason::PeerClosed)]).await;
}

#[tokio::test]
async fn a_half_open_connection_stays_until_the_service_closes_it() {
    let mut server = Server::with(half_open(), Polite).await;
    let mut peer = server.connect().await;
    let caller = server.caller().await;
    peer.send("x").await;
    peer.finish().await;
    peer.expect("xgoodbye").await;
    server.expect([Seen::Connect, Seen::Bytes(b"x".to_vec()), Seen::End]).await;
    for round in 0..20 {
        assert!(!caller.is_closed());
        caller.write_bytes(pattern(round, 50_000)).await.unwrap();
        peer.expect(pattern(round, 50_000)).await;
    }
    caller.try_write_bytes(pattern(1, 2_000_000)).unwrap();
    caller.close();
    peer.expect_end(pattern(1, 2_000_000)).await;
    server.expect([Seen::Close(CloseReason::LocalClose)]).await;
    server.listener.graceful_stop(LONG).await;
    server.expect_no_more();
}

#[tokio::test]
async fn a_half_open_connection_may_be_closed_in_on_end() {
    let mut server = Server::with(half_open(), CloseAtEnd).await;
    let mut peer = server.connect().await;
    peer.finish().await;
    peer.expect_end("bye").await;
    server.expect([Seen::Connect, Seen::End, Seen::Close(CloseReason::LocalClose)]).await;
}

/// Closes when the peer has ended.
struct CloseAtEnd;
impl Script for CloseAtEnd {
    async fn end(&self, caller: &Caller) -> Result<Option<Bytes>> {
        caller.close();
        Ok(Some(Bytes::from_static(b"bye")))
    }
}

#[tokio::test]
async fn the_reset_of_a_half_open_peer_is_noticed() {
    let mut server = Server::with(half_open(), Echo).await;
    let mut peer = server.connect().await;
    let caller = server.caller().await;
    peer.send("x").await;
    peer.finish().await;
    peer.expect("x").await;
    server.expect([Seen::Connect, Seen::Bytes(b"x".to_vec()), Seen::End]).await;
    peer.reset();
    server.expect([Seen::Error(ErrorKind::Reset), Seen::Close(CloseReason::PeerReset)]).await;
    within("closed", caller.closed()).await;
    assert_eq!(server.listener.stats().active, 0);
}

#[tokio::test]
async fn the_reset_of_a_half_open_peer_is_noticed_while_something_is_queued() {
    let mut server = Server::with(narrow().allow_half_open(true), Echo).await;
    let mut peer = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    peer.finish().await;
    server.expect([Seen::Connect, Seen::End]).await;
    caller.try_write_bytes(pattern(1, 4_000_000)).unwrap();
    peer.reset();
    server.expect([Seen::Error(ErrorKind::Reset), Seen::Close(CloseReason::PeerReset)]).await;
    let stats = server.close().await.stats;
    assert_eq!(stats.bytes_sent + stats.bytes_unsent, 4_000_000);
}

#[tokio::test]
async fn a_half_open_connection_is_drained_by_a_graceful_stop() {
    let mut server = Server::with(half_open(), Echo).await;
    let mut peer = server.connect().await;
    peer.finish().await;
    server.expect([Seen::Connect, Seen::End]).await;
    let report = within("the stop", server.listener.graceful_stop(LONG)).await;
    assert_eq!((report.clean, report.forced), (1, 0));
    peer.expect_end("").await;
    server.expect([Seen::Drain, Seen::Close(CloseReason::Drained)]).await;
}

#[tokio::test]
async fn a_silent_half_open_connection_is_idle() {
    let timeouts = Timeouts::new().idle(Duration::from_millis(50));
    let mut server = Server::with(half_open().timeouts(timeouts), Echo).await;
    let mut peer = server.connect().await;
    peer.finish().await;
    peer.expect_end("").await;
    server.expect([Seen::Connect, Seen::End, Seen::Close(CloseReason::IdleTimeout)]).await;
}

#[tokio::test]
async fn a_reply_lost_to_a_reset_behind_fin_is_a_failure_of_the_transport() {
    let leave = Arc::new(Notify::new());
    let gate = leave.clone();
    let mut server = Server::start(OnBytes(move |_: Bytes, caller: Caller| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            // By now the peer is gone, and this is how the service would know.
            caller.closed().await;
            Ok(Some(Bytes::from_static(b"lost")))
        }
    }))
    .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.finish().await;
    server.expect([Seen::Connect, Seen::Bytes(b"x".to_vec())]).await;
    peer.reset();
    leave.notify_one();
    let mut seen = vec![server.next().await];
    while !matches!(seen.last(), Some(Seen::Close(_))) {
        seen.push(server.next().await);
    }
    // Whether the end is delivered as well is left open; the failure is not.
    seen.retain(|seen| *seen != Seen::End);
    assert_eq!(seen, [Seen::Error(ErrorKind::Reset), Seen::Close(CloseReason::PeerReset)]);
}
