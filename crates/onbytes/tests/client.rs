//! The client: connecting, reading to a clean end or a failure, writing from many tasks, the two
//! halves, the `tokio::io` traits, and every way to end.

mod support;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use onbytes::{
    Bytes, Client, ClientConfiguration, ClientReader, ErrorKind, Listener, ListenerConfiguration,
    SocketOptions, service_fn,
};
use support::{Echo, Peer, Server, pattern, poll_once, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

const SHORT: Duration = Duration::from_millis(60);

/// A raw server: the test itself plays it.
async fn raw() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn connect(address: SocketAddr, config: ClientConfiguration) -> Client {
    within("connecting", Client::connect_to(address, config)).await.unwrap()
}

/// A client and the raw socket of its server.
async fn pair(config: ClientConfiguration) -> (Client, Peer) {
    let (listener, address) = raw().await;
    let client = connect(address, config).await;
    let (stream, _) = within("the accept", listener.accept()).await.unwrap();
    (client, Peer { stream })
}

/// As [`pair`], with buffers that are soon full.
async fn narrow_pair(config: ClientConfiguration) -> (Client, Peer) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(8).unwrap();
    let config = config.socket(SocketOptions::new().send_buffer(4096));
    let client = connect(listener.local_addr().unwrap(), config).await;
    let (stream, _) = within("the accept", listener.accept()).await.unwrap();
    (client, Peer { stream })
}

fn plain() -> ClientConfiguration {
    ClientConfiguration::new()
}

async fn read(client: &mut Client) -> onbytes::Result<Option<Bytes>> {
    within("the read", client.read_bytes()).await
}

async fn read_len(reader: &mut ClientReader, len: usize) -> Vec<u8> {
    let mut got = Vec::new();
    while got.len() < len {
        let data = within("the read", reader.read_bytes()).await.unwrap();
        got.extend_from_slice(&data.expect("more data"));
    }
    got
}

// ---- Connecting ----

#[tokio::test]
async fn it_connects_to_a_name_and_to_an_address_and_knows_both_ends() {
    let server = Server::start(Echo).await;
    for host in ["localhost", "127.0.0.1"] {
        let connecting = Client::connect(host, server.address.port(), plain());
        let mut client = within("connecting", connecting).await.unwrap();
        assert_eq!(client.remote_addr(), server.address);
        assert!(client.local_addr().ip().is_loopback());
        within("the write", client.write_bytes("hello")).await.unwrap();
        assert_eq!(read(&mut client).await.unwrap().unwrap(), "hello");
    }
}

#[tokio::test]
async fn it_connects_over_ipv6_with_or_without_brackets() {
    let listener = Listener::new(("::1", 0), ListenerConfiguration::new()).unwrap();
    listener.attach(service_fn(|_| async { Ok(|data: Bytes| async { Ok(Some(data)) }) }));
    listener.start().await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for host in ["::1", "[::1]"] {
        let connecting = Client::connect(host, port, plain());
        let mut client = within("connecting", connecting).await.unwrap();
        within("the write", client.write_bytes("x")).await.unwrap();
        assert_eq!(read(&mut client).await.unwrap().unwrap(), "x");
    }
}

#[tokio::test]
async fn a_refused_connection_names_the_address_and_keeps_the_cause() {
    // Bound and not listening: refused, and nobody else can have the port meanwhile.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let connecting = Client::connect("127.0.0.1", address.port(), plain());
    let error = within("the refusal", connecting).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
    let source = std::error::Error::source(&error).unwrap();
    let source = source.downcast_ref::<io::Error>().unwrap();
    assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_name_that_does_not_resolve_is_named() {
    let connecting = Client::connect("nobody.invalid", 80, plain());
    let error = within("the error", connecting).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    assert!(error.to_string().contains("nobody.invalid"), "{error}");
}

#[tokio::test]
async fn an_address_that_does_not_answer_is_given_up_after_the_timeout() {
    // A full backlog: the kernel drops further callers without a word.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    let mut fillers = Vec::new();
    while let Ok(Ok(filler)) = tokio::time::timeout(SHORT * 4, TcpStream::connect(address)).await {
        fillers.push(filler);
    }
    let connecting = Client::connect_to(address, plain().connect_timeout(SHORT));
    let error = within("the timeout", connecting).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn the_local_host_is_where_it_connects_from() {
    let mut server = Server::start(Echo).await;
    let config = plain().local_host("127.0.0.2");
    let client = connect(server.address, config).await;
    assert_eq!(client.local_addr().ip().to_string(), "127.0.0.2");
    let caller = server.caller().await;
    assert_eq!(caller.remote_addr(), client.local_addr());
    assert_eq!(caller.remote_host(), "127.0.0.2");
}

#[tokio::test]
async fn a_local_host_that_cannot_be_had_is_an_error() {
    let server = Server::start(Echo).await;
    for (host, kind) in [
        ("192.0.2.1", ErrorKind::Connect),
        ("::1", ErrorKind::Connect),
        ("nobody.invalid", ErrorKind::Connect),
        ("", ErrorKind::Configuration),
    ] {
        let connecting = Client::connect_to(server.address, plain().local_host(host));
        let error = within("the error", connecting).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{host}: {error}");
    }
}

#[tokio::test]
async fn many_clients_at_once_each_have_their_own_stream() {
    let server = Server::start(Echo).await;
    let address = server.address;
    let clients: Vec<_> = (0..100u64)
        .map(|number| {
            tokio::spawn(async move {
                let data = pattern(number, 10_000);
                let (mut reader, writer) = connect(address, plain()).await.into_split();
                writer.write_bytes(data.clone()).await.unwrap();
                assert_eq!(read_len(&mut reader, data.len()).await, data);
            })
        })
        .collect();
    for client in clients {
        within("a client", client).await.unwrap();
    }
}

#[tokio::test]
async fn ids_of_clients_and_accepted_connections_all_differ() {
    let mut server = Server::start(Echo).await;
    let (one, two) =
        (connect(server.address, plain()).await, connect(server.address, plain()).await);
    let callers = [server.caller().await.id(), server.caller().await.id()];
    let all: std::collections::HashSet<_> = [one.id(), two.id(), callers[0], callers[1]].into();
    assert_eq!(all.len(), 4);
}

// ---- Reading ----

#[tokio::test]
async fn after_a_read_timeout_the_connection_is_usable_and_no_byte_is_lost() {
    let (mut client, mut peer) = pair(plain().timeout(SHORT)).await;
    for round in ["one", "two"] {
        let error = read(&mut client).await.unwrap_err();
        assert!(error.is_timeout(), "{error:?}");
        assert!(error.to_string().contains("60ms"), "{error}");
        within("the write", client.write_bytes(round)).await.unwrap();
        peer.expect(round).await;
        peer.send(round).await;
        assert_eq!(read(&mut client).await.unwrap().unwrap(), round);
    }
}

#[tokio::test]
async fn the_end_is_none_after_every_byte_and_none_again() {
    let (mut client, mut peer) = pair(plain()).await;
    peer.send("last").await;
    peer.finish().await;
    assert_eq!(read(&mut client).await.unwrap().unwrap(), "last");
    for _ in 0..3 {
        assert_eq!(read(&mut client).await.unwrap(), None);
    }
    // The other direction is still open.
    within("the write", client.write_bytes("reply")).await.unwrap();
    drop(client);
    peer.expect_end("reply").await;
}

#[tokio::test]
async fn a_reset_is_an_error_and_never_becomes_a_clean_end() {
    let (mut client, peer) = pair(plain()).await;
    peer.reset();
    for _ in 0..3 {
        let error = read(&mut client).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Reset, "{error:?}");
    }
}

#[tokio::test]
async fn a_reset_that_a_write_ran_into_is_no_clean_end_for_the_reader() {
    let (mut client, peer) = pair(plain()).await;
    peer.reset();
    within("a failing write", async {
        while client.write_bytes("x").await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let error = read(&mut client).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Reset, "{error:?}");
}

#[tokio::test]
async fn a_dropped_read_loses_nothing() {
    let (mut client, mut peer) = pair(plain()).await;
    assert!(poll_once(&mut Box::pin(client.read_bytes())).is_pending());
    peer.send("whole").await;
    let (mut reader, _writer) = client.into_split();
    assert_eq!(read_len(&mut reader, 5).await, b"whole");
}

// ---- Writing and ending ----

#[tokio::test]
async fn finish_is_the_half_close_and_reading_goes_on() {
    let (mut client, mut peer) = pair(plain()).await;
    within("the write", client.write_bytes("question")).await.unwrap();
    within("the end", client.finish()).await.unwrap();
    peer.expect_end("question").await;
    peer.send("answer").await;
    assert_eq!(read(&mut client).await.unwrap().unwrap(), "answer");
    let error = within("the write", client.write_bytes("more")).await.unwrap_err();
    assert!(error.is_closed(), "{error:?}");
    within("the second end", client.finish()).await.unwrap();
    peer.finish().await;
    assert_eq!(read(&mut client).await.unwrap(), None);
}

#[tokio::test]
async fn close_sends_everything_and_waits_for_the_servers_end() {
    let (client, mut peer) = pair(plain()).await;
    let data = pattern(1, 3 << 20);
    let expected = data.clone();
    let serving = tokio::spawn(async move {
        peer.expect_end(expected).await;
        // Unread input of the client must not turn its end into a reset.
        peer.send("too late").await;
        peer.finish().await;
    });
    within("the write", client.write_bytes(data)).await.unwrap();
    within("the close", client.close()).await.unwrap();
    within("the server", serving).await.unwrap();
}

#[tokio::test]
async fn dropping_a_client_closes_its_connection() {
    let (client, mut peer) = pair(plain()).await;
    within("the write", client.write_bytes("bye")).await.unwrap();
    drop(client);
    peer.expect_end("bye").await;
}

#[tokio::test]
async fn the_connection_lives_as_long_as_one_of_its_halves() {
    let (client, mut peer) = pair(plain()).await;
    let (reader, writer) = client.into_split();
    let clone = writer.clone();
    drop(reader);
    drop(writer);
    within("the write", clone.write_bytes("still here")).await.unwrap();
    peer.expect("still here").await;
    drop(clone);
    peer.expect_end("").await;
}

#[tokio::test]
async fn a_write_that_is_dropped_goes_out_whole_and_in_its_place() {
    let (client, mut peer) = narrow_pair(plain()).await;
    let big = pattern(1, 1 << 20);
    let mut write = Box::pin(client.write_bytes(big.clone()));
    assert!(poll_once(&mut write).is_pending(), "more than the kernel takes");
    drop(write);
    let reading = tokio::spawn(async move {
        peer.expect([&big[..], b"next"].concat()).await;
        peer
    });
    within("the next write", client.write_bytes("next")).await.unwrap();
    within("reading", reading).await.unwrap();
}

#[tokio::test]
async fn the_rest_of_a_dropped_write_is_sent_without_any_further_call() {
    let (client, mut peer) = narrow_pair(plain()).await;
    let big = pattern(2, 1 << 20);
    assert!(poll_once(&mut Box::pin(client.write_bytes(big.clone()))).is_pending());
    peer.expect(big).await;
    drop(client);
    peer.expect_end("").await;
}

#[tokio::test]
async fn the_rest_of_a_dropped_write_is_sent_though_the_client_is_dropped_too() {
    let (client, mut peer) = narrow_pair(plain()).await;
    let big = pattern(3, 1 << 20);
    assert!(poll_once(&mut Box::pin(client.write_bytes(big.clone()))).is_pending());
    drop(client);
    peer.expect_end(big).await;
}

#[tokio::test]
async fn a_write_dropped_while_it_waits_for_room_sends_nothing() {
    let (client, mut peer) = narrow_pair(plain()).await;
    let big = pattern(4, 1 << 20);
    assert!(poll_once(&mut Box::pin(client.write_bytes(big.clone()))).is_pending());
    assert!(poll_once(&mut Box::pin(client.write_bytes("never"))).is_pending());
    let reading = tokio::spawn(async move {
        peer.expect([&big[..], b"after"].concat()).await;
        peer.expect_end("").await;
    });
    within("the write", client.write_bytes("after")).await.unwrap();
    drop(client);
    within("reading", reading).await.unwrap();
}

#[tokio::test]
async fn a_write_all_that_is_given_up_does_not_block_later_writes() {
    let (mut client, mut peer) = narrow_pair(plain()).await;
    let big = vec![7; 1 << 20];
    let given_up = tokio::time::timeout(SHORT, client.write_all(&big)).await;
    assert!(given_up.is_err(), "more than the kernel takes");
    let reading = tokio::spawn(async move {
        let (got, end) = peer.read_to_end().await;
        end.unwrap();
        got
    });
    within("the next write", client.write_bytes("next")).await.unwrap();
    within("the close", client.finish()).await.unwrap();
    let got = within("reading", reading).await.unwrap();
    assert!(got.ends_with(b"next"));
    assert!(got[..got.len() - 4].iter().all(|byte| *byte == 7));
}

#[tokio::test]
async fn a_server_that_never_reads_ends_the_write_with_a_timeout() {
    let (client, _peer) = narrow_pair(plain().write_timeout(SHORT)).await;
    let error = within("the timeout", client.write_bytes(vec![7; 8 << 20])).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    let error = within("the write", client.write_bytes("x")).await.unwrap_err();
    assert!(error.is_closed() || error.is_timeout(), "{error:?}");
}

#[tokio::test]
async fn a_write_timeout_wakes_the_reader_too() {
    let (client, _peer) = narrow_pair(plain().write_timeout(SHORT)).await;
    let (mut reader, writer) = client.into_split();
    let reading = tokio::spawn(async move { reader.read_bytes().await });
    let error = within("the timeout", writer.write_bytes(vec![7; 8 << 20])).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    within("the reader", reading).await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_write_timeout_holds_for_a_dropped_write_too() {
    let (client, mut peer) = narrow_pair(plain().write_timeout(SHORT)).await;
    assert!(poll_once(&mut Box::pin(client.write_bytes(vec![7; 8 << 20]))).is_pending());
    drop(client);
    // Real time passes without a read, then the server finds a reset and not a clean end.
    tokio::time::sleep(SHORT * 5).await;
    let (_, end) = peer.read_to_end().await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_server_that_never_reads_does_not_hold_up_close_beyond_the_write_timeout() {
    let (client, _peer) = narrow_pair(plain().write_timeout(SHORT)).await;
    assert!(poll_once(&mut Box::pin(client.write_bytes(vec![7; 8 << 20]))).is_pending());
    within("the close", client.close()).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn writers_in_many_tasks_never_mix_their_messages() {
    let (client, peer) = narrow_pair(plain()).await;
    let (_reader, writer) = client.into_split();
    const LEN: usize = 5_000;
    let writers: Vec<_> = (0..8u8)
        .map(|number| {
            let writer = writer.clone();
            tokio::spawn(async move {
                for _ in 0..20 {
                    writer.write_bytes(vec![number; LEN]).await.unwrap();
                }
            })
        })
        .collect();
    drop(writer);
    drop(_reader);
    let Peer { mut stream } = peer;
    let mut got = Vec::new();
    within("reading", stream.read_to_end(&mut got)).await.unwrap();
    assert_eq!(got.len(), 8 * 20 * LEN);
    for message in got.chunks(LEN) {
        assert!(message.iter().all(|byte| *byte == message[0]), "whole messages");
    }
    for writer in writers {
        within("a writer", writer).await.unwrap();
    }
}

// ---- tokio::io ----

#[tokio::test]
async fn big_data_goes_both_ways_through_the_io_traits() {
    let server = Server::start(Echo).await;
    let client = connect(server.address, plain()).await;
    let data = pattern(5, 8 << 20);
    let (mut reader, mut writer) = tokio::io::split(client);
    let sent = data.clone();
    let writing = tokio::spawn(async move {
        tokio::io::copy(&mut &sent[..], &mut writer).await.unwrap();
        writer.shutdown().await.unwrap();
    });
    let mut got = Vec::new();
    within("reading", reader.read_to_end(&mut got)).await.unwrap();
    within("writing", writing).await.unwrap();
    assert!(got == data, "{} bytes of {}", got.len(), data.len());
}

#[tokio::test]
async fn two_clients_can_be_joined_with_copy_bidirectional() {
    let (mut left, mut left_peer) = pair(plain()).await;
    let (mut right, mut right_peer) = pair(plain()).await;
    let joined =
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut left, &mut right).await });
    left_peer.send("to the right").await;
    right_peer.expect("to the right").await;
    right_peer.send("to the left").await;
    left_peer.expect("to the left").await;
    left_peer.finish().await;
    right_peer.expect_end("").await;
    right_peer.finish().await;
    left_peer.expect_end("").await;
    assert_eq!(within("the end", joined).await.unwrap().unwrap(), (12, 11));
}

#[tokio::test]
async fn partial_reads_and_chunks_share_one_stream() {
    let (mut client, mut peer) = pair(plain()).await;
    peer.send("abcdef").await;
    let mut two = [0; 2];
    within("the read", client.read_exact(&mut two)).await.unwrap();
    assert_eq!(&two, b"ab");
    within("an empty read", client.read(&mut [])).await.unwrap();
    let mut rest = Vec::new();
    while rest.len() < 4 {
        rest.extend_from_slice(&read(&mut client).await.unwrap().unwrap());
    }
    assert_eq!(rest, b"cdef");
    peer.finish().await;
    assert_eq!(within("the end", client.read(&mut two)).await.unwrap(), 0);
}

#[tokio::test]
async fn a_reset_through_the_io_traits_has_its_kind_and_its_cause() {
    let (mut client, peer) = pair(plain()).await;
    peer.reset();
    let error = within("the read", client.read(&mut [0])).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(onbytes::Error::from(error).kind(), ErrorKind::Reset, "the same error again");
}

#[tokio::test]
async fn a_flush_waits_until_the_kernel_has_every_byte() {
    let (mut client, mut peer) = narrow_pair(plain()).await;
    let data = pattern(6, 300_000);
    let expected = data.clone();
    let reading = tokio::spawn(async move {
        peer.expect(expected).await;
        peer
    });
    within("writing", client.write_all(&data)).await.unwrap();
    within("the flush", client.flush()).await.unwrap();
    assert_eq!(client.stats().bytes_sent, 300_000);
    within("reading", reading).await.unwrap();
}

/// Tokio gives each turn of a task a budget; whoever goes on reading beyond it holds up all others.
#[tokio::test]
async fn a_read_leaves_the_turn_to_others_however_much_is_at_hand() {
    let (mut client, mut peer) = pair(ClientConfiguration::new()).await;
    let (mut other, mut other_peer) = pair(ClientConfiguration::new()).await;
    peer.send("at hand").await;
    // When the runtime has heard of what came later, it has heard of that, too.
    other_peer.send("later").await;
    assert!(within("the other", other.read_bytes()).await.unwrap().is_some());
    let reading = tokio::spawn(async move {
        let mut read = std::pin::pin!(client.read_bytes());
        let is_held_back = std::future::poll_fn(|cx| {
            while tokio::task::coop::has_budget_remaining() {
                if let std::task::Poll::Ready(used) = tokio::task::coop::poll_proceed(cx) {
                    used.made_progress();
                }
            }
            std::task::Poll::Ready(read.as_mut().poll(cx).is_pending())
        });
        let is_held_back = is_held_back.await;
        (is_held_back, read.await)
    });
    let (is_held_back, read) = within("the read", reading).await.unwrap();
    assert!(is_held_back);
    assert_eq!(read.unwrap().as_deref(), Some(&b"at hand"[..]));
}
