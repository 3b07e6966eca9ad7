//! The life of a connection: which callbacks run, in which order, and how it ends.

mod support;

use onbytes::{Bytes, CloseReason, ErrorKind};
use support::{Echo, OnBytes, Seen, Server};

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
    let mut server = Server::start(OnBytes(|_: Bytes, caller: onbytes::Caller| async move {
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
