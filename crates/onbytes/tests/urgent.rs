//! TCP urgent data: the urgent byte is dropped, every other byte arrives in order, and nothing
//! stalls behind it.
#![cfg(target_os = "linux")]

mod support;

use onbytes::{CloseReason, ListenerConfiguration};
use support::{Echo, Peer, Rng, Server, narrow, pattern, within};
use tokio::io::AsyncReadExt;

#[tokio::test]
async fn an_urgent_byte_in_front_is_dropped() {
    let server = Server::start(Echo).await;
    let mut peer = server.connect().await;
    peer.send_urgent(b'!').await;
    peer.send("after").await;
    peer.expect("after").await;
    peer.finish().await;
    peer.expect_end("").await;
}

#[tokio::test]
async fn an_urgent_byte_in_the_middle_is_dropped() {
    let server = Server::start(Echo).await;
    let mut peer = server.connect().await;
    peer.send("before ").await;
    peer.send_urgent(b'!').await;
    peer.send("after").await;
    peer.expect("before after").await;
    peer.finish().await;
    peer.expect_end("").await;
}

#[tokio::test]
async fn an_urgent_byte_at_the_end_is_dropped() {
    let mut server = Server::start(Echo).await;
    let mut peer = server.connect().await;
    peer.send("before").await;
    peer.send_urgent(b'!').await;
    peer.finish().await;
    peer.expect_end("before").await;
    let close = server.close().await;
    assert_eq!(close.reason, CloseReason::PeerClosed);
    assert_eq!(close.stats.bytes_received, 6);
}

#[tokio::test]
async fn an_urgent_byte_alone_is_no_data() {
    let mut server = Server::start(Echo).await;
    let mut peer = server.connect().await;
    peer.send_urgent(b'!').await;
    peer.finish().await;
    peer.expect_end("").await;
    assert_eq!(server.close().await.stats.bytes_received, 0);
}

#[tokio::test]
async fn urgent_bytes_one_after_the_other_stall_nothing() {
    let server = Server::start(Echo).await;
    let mut peer = server.connect().await;
    for round in 0..200u8 {
        peer.send([round, 1]).await;
        peer.send_urgent(b'!').await;
        peer.send([round, 2]).await;
        // All of it has been read before the next urgent byte: the kernel keeps one mark only.
        peer.expect([round, 1, round, 2]).await;
    }
    peer.finish().await;
    peer.expect_end("").await;
}

#[tokio::test]
async fn urgent_bytes_at_the_border_of_a_message_stall_nothing() {
    let server = Server::start(Echo).await;
    let mut peer = server.connect().await;
    for round in 0..100u8 {
        // Everything before has been read: the urgent byte comes to an empty socket.
        peer.send_urgent(b'!').await;
        peer.send([round]).await;
        peer.expect([round]).await;
        // And now it is the last thing there is for a while.
        peer.send([round]).await;
        peer.send_urgent(b'!').await;
        peer.expect([round]).await;
        peer.send([round]).await;
        peer.expect([round]).await;
    }
    peer.finish().await;
    peer.expect_end("").await;
}

/// Ordinary data of random sizes, an urgent byte somewhere in each part, and an echo to wait for.
async fn mix(config: ListenerConfiguration, seed: u64, rounds: usize, largest: usize) {
    let server = Server::with(config, Echo).await;
    let peer = server.connect().await;
    let mut rng = Rng::new(seed);
    let (mut reading, writing) = peer.stream.into_split();
    for round in 0..rounds {
        let data = pattern(round as u64, 1 + rng.below(largest));
        let cut = rng.below(data.len() + 1);
        let mut got = vec![0; data.len()];
        let writing: &tokio::net::TcpStream = writing.as_ref();
        let send = async {
            send_all(writing, &data[..cut]).await;
            send_urgent(writing).await;
            send_all(writing, &data[cut..]).await;
        };
        let ((), read) =
            within("the echo", async { tokio::join!(send, reading.read_exact(&mut got)) }).await;
        read.unwrap();
        assert!(got == data);
    }
}

async fn send_all(stream: &tokio::net::TcpStream, mut data: &[u8]) {
    while !data.is_empty() {
        stream.writable().await.unwrap();
        if let Ok(count) = stream.try_write(data) {
            data = &data[count..];
        }
    }
}

async fn send_urgent(stream: &tokio::net::TcpStream) {
    let send = || {
        let flags = rustix::net::SendFlags::OOB;
        Ok(rustix::net::send(stream, b"!", flags)?)
    };
    let sent = stream.async_io(tokio::io::Interest::WRITABLE, send).await;
    assert_eq!(sent.unwrap(), 1);
}

#[tokio::test]
async fn urgent_bytes_among_small_data_stall_nothing() {
    mix(ListenerConfiguration::new(), 1, 300, 100).await;
}

#[tokio::test]
async fn urgent_bytes_among_large_data_stall_nothing() {
    mix(ListenerConfiguration::new(), 2, 20, 2_000_000).await;
}

#[tokio::test]
async fn urgent_bytes_under_back_pressure_stall_nothing() {
    mix(narrow(), 3, 20, 50_000).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn urgent_bytes_on_several_threads_stall_nothing() {
    mix(ListenerConfiguration::new(), 4, 200, 5_000).await;
}

#[tokio::test]
async fn urgent_data_on_one_connection_does_not_disturb_another() {
    let server = Server::start(Echo).await;
    let mut urgent = server.connect().await;
    let mut plain = Peer::connect(server.address).await;
    for round in 0..50u8 {
        urgent.send([round]).await;
        urgent.send_urgent(b'!').await;
        plain.send([round; 1_000]).await;
        plain.expect([round; 1_000]).await;
        urgent.send([round]).await;
        urgent.expect([round, round]).await;
    }
}
