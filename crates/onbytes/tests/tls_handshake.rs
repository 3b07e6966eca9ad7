//! Handshakes that fail, stall or lie: they end their own connection and nothing else, no callback
//! hears of them, and the counters do.
#![cfg(any(feature = "tls", feature = "tls-ring"))]

mod support;

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use onbytes::{
    Client, ClientConfiguration, CloseReason, ErrorKind, Event, Limits, Listener,
    ListenerConfiguration, WhenFull,
};
use support::tls::{Site, connect_foreign};
use support::{Echo, EventNames, Peer, Server, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls;

/// Waits until so many connections have ended for `reason`.
async fn ended(listener: &Listener, reason: CloseReason, count: u64) {
    eventually("the end of the handshakes", || listener.stats().closed(reason) == count).await;
}

/// Whether a well-behaved client is served.
async fn is_served(site: &Site, address: SocketAddr) {
    let mut peer = connect_foreign(address, site.foreign()).await.unwrap();
    peer.write_all(b"still here").await.unwrap();
    let mut got = [0; 10];
    within("the echo", peer.read_exact(&mut got)).await.unwrap();
    assert_eq!(&got, b"still here");
    peer.shutdown().await.unwrap();
    let mut rest = Vec::new();
    within("the end", peer.read_to_end(&mut rest)).await.unwrap();
}

/// Tries until a well-behaved client is served.
async fn until_served(site: &Site, address: SocketAddr) {
    within("the service", async {
        while connect_foreign(address, site.foreign()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
}

/// What a peer gets that sends `bytes` in the place of a handshake, and the error that is told.
async fn answer_to(site: &Site, bytes: &[u8], then_ends: bool) -> (Vec<u8>, String) {
    let mut server = Server::with(site.listening(), Echo).await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    server.listener.on_event(move |event| {
        if let Event::Closed { close, .. } = event {
            let _ = tell.send((close.reason, close.error.clone().map(|error| error.to_string())));
        }
    });
    let mut peer = server.connect().await;
    peer.send(bytes).await;
    if then_ends {
        peer.finish().await;
    }
    let (answer, _) = peer.read_to_end().await;
    let (reason, error) = within("the end", told.recv()).await.unwrap();
    assert_eq!(reason, CloseReason::HandshakeFailed);
    server.listener.immediate_stop().await;
    server.expect_no_more();
    (answer, error.unwrap())
}

/// A fatal alert (RFC 8446, section 6).
fn alert(description: u8) -> Vec<u8> {
    vec![21, 3, 3, 0, 2, 2, description]
}

#[tokio::test]
async fn plain_text_is_answered_with_an_alert_and_told() {
    let site = Site::new();
    for text in ["GET / HTTP/1.1\r\n\r\n", "hello\n", "\0\0\0\0\0\0\0\0", "\u{16}\u{2}garbage"] {
        let (answer, error) = answer_to(&site, text.as_bytes(), false).await;
        assert_eq!(answer, alert(50), "{text:?}");
        assert!(error.contains("does not speak TLS") || error.contains("violated"), "{error}");
    }
    let (_, error) = answer_to(&site, b"GET / HTTP/1.1\r\n\r\n", false).await;
    assert_eq!(error, "the peer does not speak TLS");
}

#[tokio::test]
async fn oversize_records_and_lies_about_lengths_are_refused() {
    let site = Site::new();
    // A record of 0xffff bytes.
    let (answer, error) = answer_to(&site, &[22, 3, 1, 0xff, 0xff], false).await;
    assert_eq!(answer.first(), Some(&21));
    assert!(error.contains("oversize") || error.contains("violated"), "{error}");
    // A handshake message of 16 MiB, in a small record.
    let lie = [22, 3, 1, 0, 8, 1, 0xff, 0xff, 0xff, 3, 3, 0, 0];
    let (_, error) = answer_to(&site, &lie, false).await;
    assert!(error.contains("oversize"), "{error}");
}

#[tokio::test]
async fn a_cut_handshake_is_told_as_cut() {
    let site = Site::new();
    let hello = client_hello(&site);
    for cut in [0, 1, 4, 5, 6, 50, hello.len() - 1] {
        let (_, error) = answer_to(&site, &hello[..cut], true).await;
        let told = "the peer ended the connection in the middle of the handshake";
        assert_eq!(error, told, "cut at {cut}");
    }
}

#[tokio::test]
async fn a_message_that_is_fragmented_without_end_is_bounded() {
    let site = Site::new();
    // A handshake message of 64 KiB less one, in fragments of one byte each.
    let mut lie = vec![22, 3, 1, 0, 4, 1, 0, 0xff, 0xfe];
    for _ in 0..60_000 {
        lie.extend([22, 3, 1, 0, 1, 0]);
    }
    let (_, error) = answer_to(&site, &lie, false).await;
    assert_eq!(error, "the peer sends a handshake message without end");
}

fn client_hello(site: &Site) -> Vec<u8> {
    let config = std::sync::Arc::new(site.foreign());
    let mut client =
        rustls::ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn a_handshake_that_comes_byte_by_byte_succeeds() {
    let site = Site::new();
    let server = Server::with(site.listening(), Echo).await;
    let config = std::sync::Arc::new(site.foreign());
    let mut client =
        rustls::ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let mut tcp = within("connecting", TcpStream::connect(server.address)).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    while client.is_handshaking() {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        for byte in wire {
            tcp.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        if client.is_handshaking() && client.wants_read() {
            let mut buffer = [0; 4096];
            let count = within("the server", tcp.read(&mut buffer)).await.unwrap();
            assert!(count > 0, "the server gave up");
            let mut got = &buffer[..count];
            while !got.is_empty() {
                client.read_tls(&mut got).unwrap();
                client.process_new_packets().unwrap();
            }
        }
    }
    // The end of the handshake, and data in the same breath.
    io::Write::write_all(&mut client.writer(), b"in one go").unwrap();
    let mut wire = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut wire).unwrap();
    }
    tcp.write_all(&wire).await.unwrap();
    let mut echoed = Vec::new();
    while echoed.len() < 9 {
        let mut buffer = [0; 4096];
        let count = within("the echo", tcp.read(&mut buffer)).await.unwrap();
        assert!(count > 0);
        client.read_tls(&mut &buffer[..count]).unwrap();
        client.process_new_packets().unwrap();
        let mut piece = [0; 64];
        while let Ok(count @ 1..) = io::Read::read(&mut client.reader(), &mut piece) {
            echoed.extend_from_slice(&piece[..count]);
        }
    }
    assert_eq!(echoed, b"in one go");
}

#[tokio::test]
async fn messages_in_fragments_of_every_size_are_joined() {
    use onbytes::MutualTls;
    let site = Site::new();
    let billing = site.authority.client("billing");
    let secure = site.secure().mutual_tls(MutualTls::required(site.trust()));
    let server = Server::with(ListenerConfiguration::new().secure_socket(secure), Echo).await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        for size in [32, 33, 37, 40, 64, 100, 250, 1_000] {
            // The content of random parts differs from one to the next.
            for _ in 0..6 {
                let mut config = site
                    .foreign_builder(&[version])
                    .with_client_auth_cert(billing.chain(), billing.private_key())
                    .unwrap();
                config.max_fragment_size = Some(size);
                let mut peer = connect_foreign(server.address, config).await.unwrap();
                let data = support::pattern(size as u64, 3_000);
                peer.write_all(&data).await.unwrap();
                let mut got = vec![0; data.len()];
                within("the echo", peer.read_exact(&mut got)).await.unwrap();
                assert!(got == data, "{version:?}, {size}");
            }
        }
    }
    let stats = server.listener.stats();
    assert_eq!(stats.closed(CloseReason::Panicked), 0);
    assert_eq!(stats.closed(CloseReason::HandshakeFailed), 0);
}

#[tokio::test]
async fn a_server_that_fragments_its_messages_is_understood() {
    let site = Site::new();
    for size in [32, 37, 100, 1_000] {
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(site.server.chain(), site.server.private_key())
            .unwrap();
        config.max_fragment_size = Some(size);
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listening = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listening.local_addr().unwrap().port();
        let serving = tokio::spawn(async move {
            for _ in 0..6 {
                let (tcp, _) = listening.accept().await.unwrap();
                let mut tls = acceptor.accept(tcp).await.unwrap();
                tls.write_all(&support::pattern(1, 3_000)).await.unwrap();
                tls.shutdown().await.unwrap();
            }
        });
        for _ in 0..6 {
            let mut client = Client::connect("localhost", port, site.connecting()).await.unwrap();
            let mut got = Vec::new();
            while let Some(chunk) = within("reading", client.read_bytes()).await.unwrap() {
                got.extend_from_slice(&chunk);
            }
            assert!(got == support::pattern(1, 3_000), "{size}");
        }
        within("the server", serving).await.unwrap();
    }
}

#[tokio::test]
async fn a_hello_in_fragments_that_come_one_by_one_is_joined() {
    let site = Site::new();
    let server = Server::with(site.listening(), Echo).await;
    let hello = client_hello(&site);
    for size in [1, 2, 4, 5, 6, 10, 11, 50, 100, 700] {
        let mut peer = server.connect().await;
        peer.stream.set_nodelay(true).unwrap();
        for (number, piece) in hello[5..].chunks(size).enumerate() {
            let [high, low] = u16::try_from(piece.len()).unwrap().to_be_bytes();
            peer.send([&[22, 3, 1, high, low], piece].concat()).await;
            if number < 40 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
        // A server hello, not an alert.
        peer.expect([22, 3, 3]).await;
    }
    assert_eq!(server.listener.stats().closed(CloseReason::Panicked), 0);
}

#[tokio::test]
async fn a_stalled_handshake_ends_in_its_time() {
    let site = Site::new();
    let secure = site.secure().handshake_timeout(Duration::from_millis(150));
    let mut server = Server::with(ListenerConfiguration::new().secure_socket(secure), Echo).await;
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    server.listener.on_event(move |event| {
        if let Event::Closed { close, .. } = event {
            let _ = tell.send(onbytes::Close::clone(close));
        }
    });
    // One says nothing, one says half of its hello.
    let mut silent = server.connect().await;
    let mut slow = server.connect().await;
    slow.send(&client_hello(&site)[..100]).await;
    for _ in 0..2 {
        let close = within("the end", told.recv()).await.unwrap();
        assert_eq!(close.reason, CloseReason::HandshakeTimeout);
        let error = close.error.unwrap();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert_eq!(error.to_string(), "the TLS handshake was not complete after 150ms");
        assert!(close.stats.age >= Duration::from_millis(150));
    }
    let _ = silent.read_to_end().await;
    let _ = slow.read_to_end().await;
    is_served(&site, server.address).await;
    server.listener.immediate_stop().await;
    assert!(server.seen_so_far().len() >= 4, "the good one was seen, the others were not");
}

#[tokio::test]
async fn five_hundred_stalled_handshakes_do_not_keep_a_good_client_out() {
    let site = Site::new();
    let limits = Limits::new().max_handshakes(64).max_connections(2_000);
    let server = Server::with(site.listening().limits(limits), Echo).await;
    let hello = client_hello(&site);
    let mut stalled = Vec::new();
    for number in 0..500 {
        let mut peer = server.connect().await;
        peer.send(&hello[..number % hello.len()]).await;
        stalled.push(peer);
    }
    is_served(&site, server.address).await;
    // All but those that fit have given way.
    let listener = &server.listener;
    eventually("the others", || listener.stats().closed(CloseReason::HandshakeTimeout) >= 436)
        .await;
    is_served(&site, server.address).await;
    let report = server.listener.immediate_stop().await;
    assert_eq!(report.abandoned, 0);
}

#[tokio::test]
async fn places_that_are_full_of_handshakes_are_given_to_newcomers() {
    let site = Site::new();
    for when_full in [WhenFull::Queue, WhenFull::Refuse] {
        let limits = Limits::new().max_connections(3).when_full(when_full);
        let server = Server::with(site.listening().limits(limits), Echo).await;
        let mut stalled = Vec::new();
        for _ in 0..3 {
            stalled.push(server.connect().await);
        }
        eventually("the three", || server.listener.stats().active == 3).await;
        if when_full == WhenFull::Refuse {
            // Young ones do not give way, and nobody waits here: callers are turned away until then.
            until_served(&site, server.address).await;
        } else {
            is_served(&site, server.address).await;
        }
        ended(&server.listener, CloseReason::HandshakeTimeout, 1).await;
        // The oldest it was.
        let (_, end) = stalled[0].read_to_end().await;
        assert_eq!(end.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
        server.listener.immediate_stop().await;
    }
}

#[tokio::test]
async fn established_connections_do_not_give_way() {
    let site = Site::new();
    let limits = Limits::new().max_connections(1).when_full(WhenFull::Refuse);
    let server = Server::with(site.listening().limits(limits), Echo).await;
    let mut good = connect_foreign(server.address, site.foreign()).await.unwrap();
    good.write_all(b"a").await.unwrap();
    let mut got = [0];
    within("the echo", good.read_exact(&mut got)).await.unwrap();
    let mut other = server.connect().await;
    let (data, _) = other.read_to_end().await;
    assert!(data.is_empty());
    eventually("the refusal", || server.listener.stats().refused == 1).await;
    good.write_all(b"b").await.unwrap();
    within("the echo", good.read_exact(&mut got)).await.unwrap();
}

#[tokio::test]
async fn stops_end_handshakes_too() {
    let site = Site::new();
    let mut server = Server::with(site.listening(), Echo).await;
    let mut events = EventNames::of(&server.listener);
    let _stalled = server.connect().await;
    events.until("accepted").await;
    let report = within("the stop", server.listener.immediate_stop()).await;
    assert_eq!((report.forced, report.abandoned), (1, 0));
    server.expect_no_more();

    let mut server = Server::with(site.listening(), Echo).await;
    let mut events = EventNames::of(&server.listener);
    let _stalled = server.connect().await;
    events.until("accepted").await;
    // Nobody has begun to serve it: it is not waited for.
    let stop = server.listener.graceful_stop(Duration::from_secs(3600));
    let report = within("the stop", stop).await;
    assert_eq!((report.clean, report.forced, report.abandoned), (1, 0, 0));
    server.expect_no_more();
}

#[tokio::test]
async fn a_reset_in_the_middle_of_a_handshake_ends_it() {
    let site = Site::new();
    let mut server = Server::with(site.listening(), Echo).await;
    for _ in 0..20 {
        let mut peer = server.connect().await;
        peer.send(&client_hello(&site)[..60]).await;
        peer.reset();
    }
    ended(&server.listener, CloseReason::HandshakeFailed, 20).await;
    is_served(&site, server.address).await;
    server.listener.immediate_stop().await;
    assert!(server.seen_so_far().iter().all(|seen| !matches!(seen, support::Seen::Error(_))));
}

#[tokio::test]
async fn a_client_without_a_common_version_or_suite_is_told_so() {
    use onbytes::{Protocol, TlsVersion};
    let site = Site::new();
    let only = |version| Protocol::new().versions([version]);
    let secure = site.secure().protocol(only(TlsVersion::Tls13));
    let server = Server::with(ListenerConfiguration::new().secure_socket(secure), Echo).await;
    let old = site.foreign_builder(&[&rustls::version::TLS12]).with_no_client_auth();
    assert!(connect_foreign(server.address, old).await.is_err());
    ended(&server.listener, CloseReason::HandshakeFailed, 1).await;

    let client = site.trusting().protocol(only(TlsVersion::Tls12));
    let config = ClientConfiguration::new().secure_socket(client);
    let error = Client::connect("localhost", server.address.port(), config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls);
    let cause = error.to_string();
    assert!(cause.contains("no protocol version that both have"), "{cause}");

    let suite = |name: &str| [name.parse().unwrap()];
    let secure = site.secure().ciphers(suite("TLS_AES_128_GCM_SHA256"));
    let server = Server::with(ListenerConfiguration::new().secure_socket(secure), Echo).await;
    let client = site.trusting().ciphers(suite("TLS_AES_256_GCM_SHA384"));
    let config = ClientConfiguration::new().secure_socket(client);
    let error = Client::connect("localhost", server.address.port(), config).await.unwrap_err();
    let cause = error.to_string();
    assert!(cause.contains("no cipher suite that both have"), "{cause}");
}

#[tokio::test]
async fn a_server_that_does_not_speak_tls_or_says_nothing_is_told_by_the_client() {
    let site = Site::new();
    let listening = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listening.local_addr().unwrap().port();
    let speaking = tokio::spawn(async move {
        let (mut tcp, _) = listening.accept().await.unwrap();
        tcp.write_all(b"220 mail ready\r\n").await.unwrap();
        let (silent, _) = listening.accept().await.unwrap();
        (tcp, silent)
    });
    let error = Client::connect("localhost", port, site.connecting()).await.unwrap_err();
    let failed = format!("the TLS handshake with localhost:{port} failed");
    assert_eq!(error.to_string(), format!("{failed}: the peer does not speak TLS"));

    let impatient = site.trusting().handshake_timeout(Duration::from_millis(100));
    let config = ClientConfiguration::new().secure_socket(impatient);
    let error = Client::connect("localhost", port, config).await.unwrap_err();
    assert!(error.is_timeout());
    assert_eq!(error.to_string(), format!("{failed}: it was not complete after 100ms"));
    drop(within("the server", speaking).await);
}

#[tokio::test]
async fn hostile_bytes_of_every_kind_end_only_their_own_connection() {
    let site = Site::new();
    let secure = site.secure().handshake_timeout(Duration::from_secs(5));
    let server = Server::with(ListenerConfiguration::new().secure_socket(secure), Echo).await;
    let hello = client_hello(&site);
    let mut rng = support::Rng::new(7);
    let mut peers = Vec::new();
    for _ in 0..300 {
        let mut wire = hello.clone();
        for _ in 0..=rng.below(6) {
            let place = rng.below(wire.len());
            match rng.below(4) {
                0 => wire[place] = rng.next() as u8,
                1 => wire.truncate(place.max(1)),
                2 => wire.insert(place, rng.next() as u8),
                _ => drop(wire.remove(place)),
            }
            if wire.is_empty() {
                wire.push(0);
            }
        }
        let mut peer = Peer::connect(server.address).await;
        let _ = peer.stream.write_all(&wire).await;
        let _ = peer.stream.shutdown().await;
        peers.push(peer);
    }
    for mut peer in peers {
        let _ = peer.read_to_end().await;
    }
    is_served(&site, server.address).await;
    assert_eq!(server.listener.stats().closed(CloseReason::Panicked), 0);
    assert_eq!(within("the stop", server.listener.immediate_stop()).await.abandoned, 0);
}
