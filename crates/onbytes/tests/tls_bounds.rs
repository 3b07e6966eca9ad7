//! The bounds of a listener over TLS: what is counted, what gives way, and what is seen from outside.
#![cfg(any(feature = "tls", feature = "tls-ring"))]

mod support;

use std::time::Duration;

use onbytes::{
    Caller, CloseReason, ConnectionState, Limits, ListenerConfiguration, MinArrival, Prefix,
    Refusal, Timeouts,
};
use support::tls::{Site, connect_foreign};
use support::{Echo, Peer, Server, eventually, narrow, poll_once, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const MIB: usize = 1024 * 1024;

async fn is_served(site: &Site, server: &Server) {
    let mut peer = connect_foreign(server.address, site.foreign()).await.unwrap();
    peer.write_all(b"hello").await.unwrap();
    let mut got = [0; 5];
    within("the echo", peer.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"hello");
}

#[tokio::test]
async fn a_connection_is_listed_in_its_handshake_and_secured_after_it() {
    let site = Site::new();
    let server = Server::with(site.listening(), Echo).await;
    let stalled = server.connect().await;
    eventually("the handshake", || server.listener.stats().handshakes == 1).await;
    let listed = server.listener.connections();
    assert_eq!(listed[0].state, ConnectionState::Handshake);
    assert!(server.listener.close_connection(listed[0].id));
    eventually("its end", || server.listener.stats().closed(CloseReason::LocalClose) == 1).await;
    drop(stalled);
    eventually("nobody", || server.listener.connections().is_empty()).await;
    let peer = connect_foreign(server.address, site.foreign()).await.unwrap();
    eventually("its service", || {
        let connections = server.listener.connections();
        connections.iter().any(|it| it.state == ConnectionState::Waiting && it.is_secured)
    })
    .await;
    assert_eq!(server.listener.stats().handshakes, 0);
    drop(peer);
    eventually("nothing", || server.listener.stats().memory == 0).await;
}

#[tokio::test]
async fn a_denied_caller_does_not_even_shake_hands() {
    let site = Site::new();
    let deny: Prefix = "127.0.0.0/8".parse().unwrap();
    let config = site.listening().limits(Limits::new().deny([deny]));
    let server = Server::with(config, Echo).await;
    assert!(connect_foreign(server.address, site.foreign()).await.is_err());
    let stats = server.listener.stats();
    assert_eq!((stats.refused_for(Refusal::Denied), stats.accepted), (1, 0));
}

#[tokio::test]
async fn a_peer_that_says_too_little_after_its_handshake_is_too_slow() {
    let site = Site::new();
    let least = MinArrival::new(1000, Duration::from_millis(200));
    let config = site.listening().timeouts(Timeouts::new().min_arrival(least));
    let mut server = Server::with(config, Echo).await;
    let mut peer = connect_foreign(server.address, site.foreign()).await.unwrap();
    peer.write_all(b"x").await.unwrap();
    let mut got = Vec::new();
    // An orderly end: close_notify, or this would be an error.
    within("the end", peer.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got, b"x");
    assert_eq!(server.close().await.reason, CloseReason::TooSlow);
}

#[tokio::test]
async fn bytes_of_a_record_that_is_not_whole_yet_have_arrived() {
    let site = Site::new();
    let least = MinArrival::new(1000, Duration::from_millis(300));
    let config = site.listening().timeouts(Timeouts::new().min_arrival(least));
    let mut server = Server::with(config, Echo).await;
    let mut peer = connect_foreign(server.address, site.foreign()).await.unwrap();
    // A record of 16 KiB, which comes so slowly that nothing is delivered for long.
    let (tcp, session) = peer.get_mut();
    let mut record = Vec::new();
    std::io::Write::write_all(&mut session.writer(), &[7; 16_000]).unwrap();
    session.write_tls(&mut record).unwrap();
    for part in record.chunks(record.len() / 8) {
        tcp.write_all(part).await.unwrap();
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let mut got = vec![0; 16_000];
    within("the echo", peer.read_exact(&mut got)).await.unwrap();
    assert_eq!(server.close().await.reason, CloseReason::TooSlow, "it says nothing any more");
}

#[tokio::test]
async fn parts_of_records_are_counted_as_memory() {
    let site = Site::new();
    let server = Server::with(site.listening(), Echo).await;
    let mut peer = connect_foreign(server.address, site.foreign()).await.unwrap();
    eventually("its service", || server.listener.stats().handshakes == 0).await;
    let before = server.listener.stats().memory;
    let (tcp, session) = peer.get_mut();
    let mut record = Vec::new();
    std::io::Write::write_all(&mut session.writer(), &[7; 16_000]).unwrap();
    session.write_tls(&mut record).unwrap();
    let (last, most) = record.split_last().unwrap();
    tcp.write_all(most).await.unwrap();
    eventually("its part", || server.listener.stats().memory >= before + most.len()).await;
    tcp.write_all(&[*last]).await.unwrap();
    let mut got = vec![0; 16_000];
    within("the echo", peer.read_exact(&mut got)).await.unwrap();
    eventually("as before", || server.listener.stats().memory == before).await;
}

#[tokio::test]
async fn handshakes_that_stall_give_way_when_memory_is_short() {
    let site = Site::new();
    let secure = site.secure().handshake_timeout(None);
    let config = ListenerConfiguration::new().secure_socket(secure);
    let server = Server::with(config.limits(Limits::new().max_memory(MIB)), Echo).await;
    let mut stalled = Vec::new();
    for _ in 0..200 {
        stalled.push(Peer::connect(server.address).await);
    }
    is_served(&site, &server).await;
    assert!(server.listener.stats().closed(CloseReason::Limit) > 0);
}

#[tokio::test]
async fn a_queue_over_tls_is_let_go_with_its_connection() {
    let site = Site::new();
    let config = narrow().secure_socket(site.secure()).limits(Limits::new().max_memory(2 * MIB));
    let mut server = Server::with(config, Echo).await;
    let peer = connect_foreign(server.address, site.foreign()).await.unwrap();
    let caller: Caller = server.caller().await;
    let mut write = Box::pin(caller.write_bytes(vec![1; 8 * MIB]));
    assert!(poll_once(&mut write).is_pending());
    assert!(caller.is_closed(), "it held more than there is");
    assert_eq!(server.close().await.reason, CloseReason::Limit);
    drop((write, peer));
    eventually("nothing", || server.listener.stats().memory == 0).await;
}
