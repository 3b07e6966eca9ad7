//! The life of a connection over TLS: everything that holds over plain TCP holds here too, and every
//! orderly end says so (close_notify).
#![cfg(any(feature = "tls", feature = "tls-ring"))]

mod support;

use std::io;
use std::time::Duration;

use onbytes::{
    Bytes, Caller, Client, CloseReason, Drain, Error, ErrorKind, ListenerConfiguration, Result,
    TlsVersion,
};
use support::tls::{Site, connect_foreign};
use support::{Echo, OnBytes, Script, Seen, Server, narrow, pattern, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;

/// A peer that is not ours, on a connection of the given version.
async fn peer(site: &Site, server: &Server, version: TlsVersion) -> TlsStream<TcpStream> {
    let versions: &[_] = match version {
        TlsVersion::Tls12 => &[&rustls::version::TLS12],
        _ => &[&rustls::version::TLS13],
    };
    let config = site.foreign_builder(versions).with_no_client_auth();
    connect_foreign(server.address, config).await.unwrap()
}

/// What comes until the end: whether it ended with close_notify (`Ok`) or not.
async fn rest(peer: &mut TlsStream<TcpStream>) -> (Vec<u8>, io::Result<()>) {
    let mut data = Vec::new();
    let result = within("the end", peer.read_to_end(&mut data)).await;
    (data, result.map(drop))
}

async fn expect(peer: &mut TlsStream<TcpStream>, expected: &[u8]) {
    let mut data = vec![0; expected.len()];
    within("reading", peer.read_exact(&mut data)).await.unwrap();
    assert!(data == expected, "got something else");
}

const BOTH: [TlsVersion; 2] = [TlsVersion::Tls12, TlsVersion::Tls13];

#[tokio::test]
async fn bytes_are_echoed_and_both_ends_say_goodbye() {
    let site = Site::new();
    for version in BOTH {
        let mut server = Server::with(site.listening(), Echo).await;
        let mut peer = peer(&site, &server, version).await;
        peer.write_all(b"hello").await.unwrap();
        expect(&mut peer, b"hello").await;
        assert_eq!(server.caller().await.tls().unwrap().version, version);
        peer.shutdown().await.unwrap();
        let (data, end) = rest(&mut peer).await;
        assert!(data.is_empty());
        end.expect("the server says goodbye");
        let bytes = Seen::Bytes(b"hello".to_vec());
        let closed = Seen::Close(CloseReason::PeerClosed);
        server.expect([Seen::Connect, bytes, Seen::End, closed]).await;
    }
}

#[tokio::test]
async fn sixteen_mebibytes_come_back_whole() {
    let site = Site::new();
    let server = Server::with(site.listening(), Echo).await;
    for version in BOTH {
        let data = pattern(1, 16 << 20);
        let (mut reader, mut writer) = tokio::io::split(peer(&site, &server, version).await);
        let sent = data.clone();
        let sending = tokio::spawn(async move {
            writer.write_all(&sent).await.unwrap();
            writer.shutdown().await.unwrap();
        });
        let mut got = Vec::new();
        within("the echo", reader.read_to_end(&mut got)).await.unwrap();
        assert!(got == data, "{version}: something is missing or changed");
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn a_large_reply_to_a_slow_reader_arrives_whole() {
    let site = Site::new();
    let reply = pattern(2, 8_000_001);
    let answer = reply.clone();
    let script = OnBytes(move |_, _| {
        let answer = answer.clone();
        async move { Ok(Some(answer)) }
    });
    let mut server = Server::with(narrow().secure_socket(site.secure()), script).await;
    let mut peer = peer(&site, &server, TlsVersion::Tls13).await;
    peer.write_all(b"go").await.unwrap();
    peer.shutdown().await.unwrap();
    let mut got = Vec::new();
    let mut piece = [0; 1021];
    // Slow because it takes little at a time, and lets the others run between.
    while got.len() < 100_000 {
        let count = within("reading", peer.read(&mut piece)).await.unwrap();
        got.extend_from_slice(&piece[..count]);
        tokio::task::yield_now().await;
    }
    let (data, end) = rest(&mut peer).await;
    got.extend_from_slice(&data);
    end.unwrap();
    assert!(got == reply, "something is missing or changed");
    let close = server.close().await;
    assert_eq!((close.reason, close.stats.bytes_unsent), (CloseReason::PeerClosed, 0));
    assert_eq!(close.stats.bytes_sent, reply.len() as u64);
}

#[tokio::test]
async fn ok_of_a_write_means_that_the_kernel_has_all_of_it() {
    let site = Site::new();
    let message = pattern(3, 3 << 20);
    let server = {
        let script = OnBytes(|_, _| async { Ok(None) });
        Server::with(narrow().secure_socket(site.secure()), script).await
    };
    let mut server = server;
    let mut peer = peer(&site, &server, TlsVersion::Tls13).await;
    let caller = server.caller().await;
    let writing = tokio::spawn({
        let (caller, message) = (caller.clone(), message.clone());
        async move { caller.write_bytes(message).await }
    });
    expect(&mut peer, &message[..message.len() / 2]).await;
    assert!(!writing.is_finished(), "half of it cannot be in such small buffers");
    expect(&mut peer, &message[message.len() / 2..]).await;
    within("the write", writing).await.unwrap().unwrap();
    assert_eq!(caller.queued_bytes(), 0);
}

#[tokio::test]
async fn messages_of_many_tasks_stay_whole_whatever_is_cancelled() {
    use support::{message, messages, poll_once};
    let site = Site::new();
    let script = OnBytes(|_, _| async { Ok(None) });
    let mut server = Server::with(narrow().secure_socket(site.secure()), script).await;
    let mut peer = peer(&site, &server, TlsVersion::Tls13).await;
    let caller = server.caller().await;
    let mut tasks = Vec::new();
    for writer in 0..4u32 {
        let caller = caller.clone();
        tasks.push(tokio::spawn(async move {
            let mut done = Vec::new();
            for number in 0..60u32 {
                let len = (number as usize * 977) % 40_000;
                let mut write = Box::pin(caller.write_bytes(message(writer, number, len)));
                if number % 3 == 0 {
                    let _ = poll_once(&mut write);
                    tokio::task::yield_now().await;
                } else if write.await.is_ok() {
                    done.push((writer, number));
                }
            }
            done
        }));
    }
    let reading = tokio::spawn(async move { rest(&mut peer).await });
    let mut done = Vec::new();
    for task in tasks {
        done.extend(within("writing", task).await.unwrap());
    }
    caller.close();
    let (data, end) = within("reading", reading).await.unwrap();
    end.unwrap();
    let (arrived, torn) = messages(&data);
    assert!(torn.is_empty(), "the last message is torn");
    assert!(done.iter().all(|name| arrived.contains(name)), "a confirmed message is missing");
}

#[tokio::test]
async fn two_hundred_connections_share_nothing() {
    let site = Site::new();
    let server = Server::with(site.listening(), Echo).await;
    let config = site.foreign();
    let mut tasks = Vec::new();
    for number in 0..200u64 {
        let (config, address) = (config.clone(), server.address);
        tasks.push(tokio::spawn(async move {
            let mut peer = connect_foreign(address, config).await.unwrap();
            for round in 0..5 {
                let data = pattern(number * 100 + round, 1 + (number as usize * 53) % 5_000);
                peer.write_all(&data).await.unwrap();
                expect(&mut peer, &data).await;
            }
        }));
    }
    for task in tasks {
        within("a peer", task).await.unwrap();
    }
}

#[tokio::test]
async fn an_end_without_goodbye_is_told_as_truncated() {
    let site = Site::new();
    for version in BOTH {
        let mut server = Server::with(site.listening(), Echo).await;
        let mut peer = peer(&site, &server, version).await;
        peer.write_all(b"half a mess").await.unwrap();
        expect(&mut peer, b"half a mess").await;
        // FIN alone, beneath TLS.
        peer.get_mut().0.shutdown().await.unwrap();
        let (_, end) = rest(&mut peer).await;
        end.expect("the server says goodbye all the same");
        server.expect([Seen::Connect, Seen::Bytes(b"half a mess".to_vec())]).await;
        let truncated = Seen::Close(CloseReason::Truncated);
        server.expect([Seen::Error(ErrorKind::Truncated), truncated]).await;
        let close = server.close().await;
        assert!(close.error.unwrap().to_string().contains("close_notify"));
        server.listener.immediate_stop().await;
        server.expect_no_more();
    }
}

/// Ends each connection in one way.
struct Ending(&'static str);

impl Script for Ending {
    async fn connect(&self, caller: &Caller) -> Result<()> {
        caller.write_bytes("welcome").await?;
        if self.0 == "rejected" { Err(Error::new("no")) } else { Ok(()) }
    }

    async fn bytes(&self, _: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        match self.0 {
            "local_close" => caller.close(),
            "service_error" => return Err(Error::new("no more")),
            "panicked" => panic!("as the test wants it"),
            _ => {}
        }
        Ok(Some(Bytes::from_static(b" and farewell")))
    }
}

#[tokio::test]
async fn every_orderly_end_says_goodbye() {
    use onbytes::Timeouts;
    let site = Site::new();
    let soon = Duration::from_millis(50);
    for reason in [
        "local_close",
        "service_error",
        "panicked",
        "rejected",
        "idle_timeout",
        "max_lifetime",
        "drained",
    ] {
        let timeouts = match reason {
            "idle_timeout" => Timeouts::new().idle(soon),
            "max_lifetime" => Timeouts::new().max_lifetime(Duration::from_millis(400)),
            _ => Timeouts::new(),
        };
        let server = Server::with(site.listening().timeouts(timeouts), Ending(reason)).await;
        let mut peer = peer(&site, &server, TlsVersion::Tls13).await;
        expect(&mut peer, b"welcome").await;
        if reason != "rejected" {
            peer.write_all(b"x").await.unwrap();
        }
        if reason == "drained" {
            expect(&mut peer, b" and farewell").await;
            let listener = server.listener.clone();
            tokio::spawn(async move { listener.graceful_stop(Duration::from_secs(20)).await });
        }
        let (_, end) = rest(&mut peer).await;
        end.unwrap_or_else(|error| panic!("{reason}: {error}"));
        drop(peer);
        let listener = server.listener.clone();
        support::eventually("the count", || {
            let stats = listener.stats();
            let counted = CloseReason::ALL.into_iter().find(|known| stats.closed(*known) == 1);
            counted.is_some_and(|counted| {
                assert_eq!(counted.as_str(), reason);
                true
            })
        })
        .await;
    }
}

#[tokio::test]
async fn a_forced_end_says_nothing() {
    let site = Site::new();
    let mut server = Server::with(site.listening(), Echo).await;
    let mut peer = peer(&site, &server, TlsVersion::Tls13).await;
    server.caller().await.abort();
    let (_, end) = rest(&mut peer).await;
    assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    server.expect([Seen::Connect, Seen::Close(CloseReason::LocalAbort)]).await;
}

#[tokio::test]
async fn after_the_peers_goodbye_the_replies_still_go_out() {
    /// Answers at the end, and after it.
    struct AtTheEnd;
    impl Script for AtTheEnd {
        async fn bytes(&self, _: Bytes, _: &Caller) -> Result<Option<Bytes>> {
            Ok(None)
        }
        async fn end(&self, caller: &Caller) -> Result<Option<Bytes>> {
            caller.write_bytes(pattern(5, 300_000)).await?;
            Ok(Some(Bytes::from_static(b"the end")))
        }
    }
    let site = Site::new();
    for version in BOTH {
        let server = Server::with(site.listening(), AtTheEnd).await;
        let mut peer = peer(&site, &server, version).await;
        peer.write_all(b"question").await.unwrap();
        peer.shutdown().await.unwrap();
        let (data, end) = rest(&mut peer).await;
        end.unwrap();
        assert!(data == [&pattern(5, 300_000)[..], b"the end"].concat(), "{version}");
    }
}

#[tokio::test]
async fn a_half_open_connection_stays_open_for_writing() {
    let site = Site::new();
    let mut server = Server::with(site.listening().allow_half_open(true), Echo).await;
    let mut peer = peer(&site, &server, TlsVersion::Tls13).await;
    peer.write_all(b"x").await.unwrap();
    peer.shutdown().await.unwrap();
    let caller = server.caller().await;
    server.expect([Seen::Connect, Seen::Bytes(b"x".to_vec()), Seen::End]).await;
    caller.write_bytes(" late news").await.unwrap();
    caller.close();
    let (data, end) = rest(&mut peer).await;
    end.unwrap();
    assert_eq!(data, b"x late news");
}

#[tokio::test]
async fn a_damaged_record_ends_the_connection_with_an_error() {
    let site = Site::new();
    let mut server = Server::with(site.listening(), Echo).await;
    let mut peer = peer(&site, &server, TlsVersion::Tls13).await;
    peer.write_all(b"good").await.unwrap();
    expect(&mut peer, b"good").await;
    // A record that nobody sealed, beneath TLS.
    peer.get_mut()
        .0
        .write_all(&[23, 3, 3, 0, 32].into_iter().chain([7; 32]).collect::<Vec<_>>())
        .await
        .unwrap();
    let _ = rest(&mut peer).await;
    server.expect([Seen::Connect, Seen::Bytes(b"good".to_vec())]).await;
    server.expect([Seen::Error(ErrorKind::Tls), Seen::Close(CloseReason::TlsError)]).await;
    assert!(server.close().await.error.unwrap().to_string().contains("does not decrypt"));
}

#[tokio::test]
async fn good_bytes_before_a_damaged_record_are_delivered() {
    let site = Site::new();
    let mut server = Server::with(site.listening(), Echo).await;
    let peer = peer(&site, &server, TlsVersion::Tls13).await;
    let (mut tcp, mut tls) = peer.into_inner();
    let mut wire = Vec::new();
    io::Write::write_all(&mut tls.writer(), b"good").unwrap();
    tls.write_tls(&mut wire).unwrap();
    wire.extend([23, 3, 3, 0, 32].into_iter().chain([7; 32]));
    tcp.write_all(&wire).await.unwrap();
    server.expect([Seen::Connect, Seen::Bytes(b"good".to_vec())]).await;
    server.expect([Seen::Error(ErrorKind::Tls), Seen::Close(CloseReason::TlsError)]).await;
}

#[tokio::test]
async fn a_peer_that_reads_slowly_is_not_taken_for_stalled() {
    use onbytes::Timeouts;
    let site = Site::new();
    let reply = pattern(9, 400_000);
    let answer = reply.clone();
    let script = OnBytes(move |_, _| {
        let answer = answer.clone();
        async move { Ok(Some(answer)) }
    });
    let config = narrow()
        .secure_socket(site.secure())
        .timeouts(Timeouts::new().write(Duration::from_millis(1_000)));
    let server = Server::with(config, script).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(1).unwrap();
    let tcp = socket.connect(server.address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(std::sync::Arc::new(site.foreign()));
    let mut peer = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    peer.write_all(b"go").await.unwrap();
    let mut got = Vec::new();
    let mut piece = [0; 20_000];
    while got.len() < reply.len() {
        let count = within("reading", peer.read(&mut piece)).await.unwrap();
        assert!(count > 0, "it was cut off after {} bytes", got.len());
        got.extend_from_slice(&piece[..count]);
        // Slower than a turn of records would take within the limit, but it moves.
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
    assert!(got == reply);
}

#[tokio::test]
async fn a_peer_that_does_not_read_ends_at_the_write_timeout() {
    use onbytes::Timeouts;
    let site = Site::new();
    let script = OnBytes(|_, _| async { Ok(Some(pattern(9, 4 << 20))) });
    let config = narrow()
        .secure_socket(site.secure())
        .timeouts(Timeouts::new().write(Duration::from_millis(200)));
    let mut server = Server::with(config, script).await;
    let mut peer = peer(&site, &server, TlsVersion::Tls13).await;
    peer.write_all(b"go").await.unwrap();
    server.expect([Seen::Connect, Seen::Bytes(b"go".to_vec())]).await;
    server.expect([Seen::Error(ErrorKind::Timeout), Seen::Close(CloseReason::WriteTimeout)]).await;
}

#[tokio::test]
async fn draining_delivers_what_had_arrived() {
    /// Lets the stop begin while more has arrived.
    struct Slow(tokio::sync::Semaphore);
    impl Script for Slow {
        async fn bytes(&self, data: Bytes, _: &Caller) -> Result<Option<Bytes>> {
            self.0.acquire().await.unwrap().forget();
            Ok(Some(data))
        }
        async fn drain(&self, _: &Caller) -> Drain {
            Drain::CloseWhenIdle
        }
    }
    let site = Site::new();
    let gate = std::sync::Arc::new(Slow(tokio::sync::Semaphore::new(0)));
    struct Shared(std::sync::Arc<Slow>);
    impl Script for Shared {
        async fn bytes(&self, data: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
            self.0.bytes(data, caller).await
        }
    }
    let mut server = Server::with(site.listening(), Shared(gate.clone())).await;
    let mut peer = peer(&site, &server, TlsVersion::Tls13).await;
    peer.write_all(b"one").await.unwrap();
    server.expect([Seen::Connect, Seen::Bytes(b"one".to_vec())]).await;
    peer.write_all(b"two").await.unwrap();
    let listener = server.listener.clone();
    let stop = tokio::spawn(async move { listener.graceful_stop(Duration::from_secs(20)).await });
    support::eventually("the stop", || server.listener.local_addr().is_none()).await;
    gate.0.add_permits(10);
    let (data, end) = rest(&mut peer).await;
    end.unwrap();
    assert_eq!(data, b"onetwo");
    drop(peer);
    assert_eq!(within("the stop", stop).await.unwrap().clean, 1);
}

#[tokio::test]
async fn a_client_of_ours_speaks_with_a_listener_of_ours() {
    let site = Site::new();
    let server = Server::with(site.listening(), Echo).await;
    let port = server.address.port();
    let mut client =
        within("connecting", Client::connect("localhost", port, site.connecting())).await.unwrap();
    let tls = client.tls().unwrap().clone();
    assert_eq!((tls.version, tls.server_name.as_deref()), (TlsVersion::Tls13, Some("localhost")));
    let data = pattern(4, 2 << 20);
    let (mut reader, writer) = {
        client.write_bytes("first").await.unwrap();
        assert_eq!(client.read_bytes().await.unwrap().as_deref(), Some(&b"first"[..]));
        client.into_split()
    };
    let sent = data.clone();
    let sending = tokio::spawn(async move {
        writer.write_bytes(sent).await.unwrap();
        writer.finish().await.unwrap();
    });
    let mut got = Vec::new();
    while let Some(chunk) = within("reading", reader.read_bytes()).await.unwrap() {
        got.extend_from_slice(&chunk);
    }
    assert!(got == data);
    within("sending", sending).await.unwrap();
}

/// The server's side of TLS in a library that is not ours.
fn foreign_acceptor(site: &Site) -> tokio_rustls::TlsAcceptor {
    tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(
        rustls::ServerConfig::builder_with_provider(std::sync::Arc::new(
            rustls::crypto::aws_lc_rs::default_provider(),
        ))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(site.server.chain(), site.server.private_key())
        .unwrap(),
    ))
}

#[tokio::test]
async fn a_client_hears_of_an_end_without_goodbye() {
    let site = Site::new();
    let listening = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listening.local_addr().unwrap().port();
    let acceptor = foreign_acceptor(&site);
    let serving = tokio::spawn(async move {
        let (tcp, _) = listening.accept().await.unwrap();
        let mut tls = acceptor.accept(tcp).await.unwrap();
        tls.write_all(b"cut here").await.unwrap();
        tls.flush().await.unwrap();
        tls.into_inner().0.shutdown().await.unwrap();
    });
    let mut client = Client::connect("localhost", port, site.connecting()).await.unwrap();
    assert_eq!(client.read_bytes().await.unwrap().as_deref(), Some(&b"cut here"[..]));
    let error = within("the end", client.read_bytes()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated);
    serving.await.unwrap();
}

#[tokio::test]
async fn a_goodbye_is_the_end_though_a_reset_comes_behind_it() {
    let site = Site::new();
    let listening = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listening.local_addr().unwrap().port();
    let acceptor = foreign_acceptor(&site);
    let (said, hear) = tokio::sync::oneshot::channel();
    let serving = tokio::spawn(async move {
        let (tcp, _) = listening.accept().await.unwrap();
        let mut tls = acceptor.accept(tcp).await.unwrap();
        tls.read_exact(&mut [0; 4]).await.unwrap();
        tls.write_all(b"pong").await.unwrap();
        tls.get_mut().1.send_close_notify();
        tls.flush().await.unwrap();
        said.send(()).unwrap();
        // What is left unread makes the kernel reset the connection when it is closed.
        let tcp = tls.into_inner().0;
        within("what is not read", tcp.peek(&mut [0])).await.unwrap();
    });
    let mut client = Client::connect("localhost", port, site.connecting()).await.unwrap();
    client.write_bytes("ping").await.unwrap();
    hear.await.unwrap();
    client.write_bytes("nobody reads this").await.unwrap();
    serving.await.unwrap();
    // Whoever writes first hears of the reset; the one who reads has everything all the same.
    let _ = client.finish().await;
    assert_eq!(client.read_bytes().await.unwrap().as_deref(), Some(&b"pong"[..]));
    assert_eq!(within("the end", client.read_bytes()).await.unwrap(), None);
}

#[tokio::test]
async fn a_dropped_client_says_goodbye() {
    let site = Site::new();
    let mut server = Server::with(site.listening(), Echo).await;
    let port = server.address.port();
    let client = Client::connect("localhost", port, site.connecting()).await.unwrap();
    client.write_bytes("x").await.unwrap();
    drop(client);
    server.expect([Seen::Connect, Seen::Bytes(b"x".to_vec()), Seen::End]).await;
    server.expect([Seen::Close(CloseReason::PeerClosed)]).await;
}

#[tokio::test]
async fn a_client_that_is_dropped_with_data_queued_sends_it_and_says_goodbye() {
    let site = Site::new();
    let mut server = {
        let gate = OnBytes(|_, _| async { Ok(None) });
        Server::with(narrow().secure_socket(site.secure()), gate).await
    };
    let port = server.address.port();
    let config = site.connecting().socket(onbytes::SocketOptions::new().send_buffer(4096));
    let client = Client::connect("localhost", port, config).await.unwrap();
    let data = pattern(8, 1 << 20);
    let mut write = Box::pin(client.write_bytes(data.clone()));
    let _ = std::future::poll_fn(|cx| {
        let poll = std::future::Future::poll(write.as_mut(), cx);
        std::task::Poll::Ready(poll)
    })
    .await;
    drop(write);
    drop(client);
    server.expect([Seen::Connect]).await;
    let mut got = Vec::new();
    loop {
        match server.next().await {
            Seen::Bytes(chunk) => got.extend_from_slice(&chunk),
            other => {
                assert_eq!(other, Seen::End);
                break;
            }
        }
    }
    assert!(got == data);
    server.expect([Seen::Close(CloseReason::PeerClosed)]).await;
}

#[tokio::test]
async fn a_client_is_async_read_and_write_over_tls_too() {
    let site = Site::new();
    let server = Server::with(site.listening(), Echo).await;
    let port = server.address.port();
    let mut client = Client::connect("localhost", port, site.connecting()).await.unwrap();
    client.write_all(b"through the traits").await.unwrap();
    client.flush().await.unwrap();
    client.shutdown().await.unwrap();
    let mut got = String::new();
    within("reading", client.read_to_string(&mut got)).await.unwrap();
    assert_eq!(got, "through the traits");
}

#[tokio::test]
async fn plain_connections_have_no_tls_and_a_client_that_is_switched_off_is_plain() {
    let mut server = Server::with(ListenerConfiguration::new(), Echo).await;
    let secure = onbytes::ClientSecureSocket::new().enable(false).cert("/no/such/file");
    let config = onbytes::ClientConfiguration::new().secure_socket(secure);
    let client = Client::connect("127.0.0.1", server.address.port(), config).await.unwrap();
    assert!(client.tls().is_none());
    client.write_bytes("plain").await.unwrap();
    server.expect([Seen::Connect, Seen::Bytes(b"plain".to_vec())]).await;
    assert!(server.caller().await.tls().is_none());
}

#[tokio::test]
async fn frames_are_frames_over_tls_of_any_size_and_in_any_records() {
    let site = Site::new();
    let framing: onbytes::Framing = "len:u32be,max=4M".parse().unwrap();
    let mut server = Server::with(site.listening().framing(framing.clone()), Echo).await;
    let config = site.connecting().framing(framing.clone());
    let port = server.address.port();
    let mut client = Client::connect("localhost", port, config).await.unwrap();
    for (seed, len) in [(1, 0), (2, 5), (3, 20_000), (4, 3_000_000), (5, 16_384)] {
        let message = pattern(seed, len);
        within("the write", client.write_bytes(message.clone())).await.unwrap();
        let reply = within("the reply", client.read_bytes()).await.unwrap().unwrap();
        assert!(reply == message, "{len}");
    }
    // A peer that is not ours, of which each record has a piece of one frame and of the next.
    let mut peer = peer(&site, &server, TlsVersion::Tls13).await;
    let wire: Vec<u8> =
        (0..50).flat_map(|seed| framing.encode(&pattern(seed, 33)).unwrap()).collect();
    for piece in wire.chunks(7) {
        peer.write_all(piece).await.unwrap();
        peer.flush().await.unwrap();
    }
    expect(&mut peer, &wire).await;
    // Cut off without a word in the middle of a frame: that is the first cause.
    peer.write_all(&[0, 0, 0, 9, 1]).await.unwrap();
    let (socket, _) = peer.get_mut();
    socket.shutdown().await.unwrap();
    let close = loop {
        let close = server.close().await;
        if close.reason != CloseReason::LocalClose {
            break close;
        }
    };
    assert_eq!(close.reason, CloseReason::Truncated);
}
