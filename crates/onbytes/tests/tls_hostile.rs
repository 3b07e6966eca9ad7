//! Peers that keep to TLS as far as they like: parts of messages, records out of place, damage at the
//! worst moment. What they do ends their own connection, with a reason and without a panic.
#![cfg(any(feature = "tls", feature = "tls-ring"))]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use onbytes::{Client, CloseReason, ErrorKind, Event, Limits};
use support::tls::{Site, connect_foreign};
use support::{Echo, Server, eventually, within};
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_rustls::rustls;
use tokio_rustls::rustls::crypto::aws_lc_rs::cipher_suite;
use tokio_rustls::rustls::crypto::cipher::{AeadKey, Iv, MessageEncrypter, OutboundPlainMessage};
use tokio_rustls::rustls::{
    ConnectionTrafficSecrets, ContentType, ProtocolVersion, SupportedCipherSuite,
};

/// Why the connections of a server end; a panic fails the test.
fn reasons(server: &Server) -> UnboundedReceiver<CloseReason> {
    let (tell, told) = unbounded_channel();
    server.listener.on_event(move |event| match event {
        Event::Closed { close, .. } => drop(tell.send(close.reason)),
        Event::Panicked { callback, panic, .. } => panic!("{callback}: {panic}"),
        _ => {}
    });
    told
}

/// Seals records of any type, as a peer's own TLS library would never do.
struct Sealer {
    encrypter: Box<dyn MessageEncrypter>,
    sequence: u64,
}

impl Sealer {
    fn of((sequence, secrets): (u64, ConnectionTrafficSecrets)) -> Self {
        let encrypter = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => {
                encrypter(cipher_suite::TLS13_AES_128_GCM_SHA256, key, iv)
            }
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => {
                encrypter(cipher_suite::TLS13_AES_256_GCM_SHA384, key, iv)
            }
            _ => panic!("neither side prefers this suite"),
        };
        Self { encrypter, sequence }
    }

    fn seal(&mut self, typ: ContentType, data: &[u8]) -> Vec<u8> {
        let version = ProtocolVersion::TLSv1_3;
        let message = OutboundPlainMessage { typ, version, payload: data.into() };
        let sealed = self.encrypter.encrypt(message, self.sequence).unwrap();
        self.sequence += 1;
        sealed.encode()
    }
}

fn encrypter(suite: SupportedCipherSuite, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
    suite.tls13().unwrap().aead_alg.encrypter(key, iv)
}

const HANDSHAKE: ContentType = ContentType::Handshake;
const DATA: ContentType = ContentType::ApplicationData;

/// A record's type and content.
type Record = (ContentType, Vec<u8>);

fn handshake(data: &[u8]) -> Record {
    (HANDSHAKE, data.to_vec())
}

fn data(data: &[u8]) -> Record {
    (DATA, data.to_vec())
}

/// The reason for which a connection ends whose peer sends these records at once, and then perhaps
/// FIN.
async fn reason_for(records: Vec<Record>, ends: bool) -> CloseReason {
    let site = Site::new();
    let server = Server::with(site.listening(), Echo).await;
    let mut told = reasons(&server);
    let mut config = site.foreign_builder(&[&rustls::version::TLS13]).with_no_client_auth();
    config.enable_secret_extraction = true;
    let address = server.address;
    let peer = tokio::task::spawn_blocking(move || {
        let mut tcp = TcpStream::connect(address).unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let name = "localhost".try_into().unwrap();
        let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut tcp).unwrap();
        }
        let mut sealer = Sealer::of(tls.dangerous_extract_secrets().unwrap().tx);
        let wire: Vec<u8> =
            records.iter().flat_map(|(typ, data)| sealer.seal(*typ, data)).collect();
        tcp.write_all(&wire).unwrap();
        if ends {
            tcp.shutdown(std::net::Shutdown::Write).unwrap();
        }
        // Whatever comes, until the end.
        let _ = tcp.read_to_end(&mut Vec::new());
    });
    let reason = within("the end", told.recv()).await.unwrap();
    within("the peer", peer).await.unwrap();
    reason
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_of_a_message_and_then_the_end_is_a_cut() {
    for records in [vec![handshake(&[24, 0])], vec![data(b"hi"), handshake(&[24])]] {
        assert_eq!(reason_for(records, true).await, CloseReason::Truncated);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_in_the_middle_of_a_message_is_an_error() {
    let records = vec![data(b"hi"), handshake(&[24, 0]), data(b"ho")];
    assert_eq!(reason_for(records, false).await, CloseReason::TlsError);
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_belong_to_no_connection_are_errors() {
    for record in [
        // Of an unknown type; a client hello after the handshake; a change of keys that asks for
        // something unknown; an alert of one byte.
        handshake(&[99, 0, 0, 1, 0]),
        handshake(&[1, 0, 0, 1, 0]),
        handshake(&[24, 0, 0, 1, 7]),
        (ContentType::Alert, vec![2]),
    ] {
        let shown = format!("{record:?}");
        assert_eq!(reason_for(vec![record], false).await, CloseReason::TlsError, "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_records_without_end_are_an_error() {
    assert_eq!(reason_for(vec![data(b""); 100], false).await, CloseReason::TlsError);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_keys_is_taken() {
    // After it the peer would have to use new keys, so nothing but the end can follow here.
    let records = vec![data(b"x"), handshake(&[24, 0, 0, 1, 1])];
    assert_eq!(reason_for(records, true).await, CloseReason::Truncated);
}

#[tokio::test]
async fn damaged_records_of_every_length_are_errors() {
    let site = Site::new();
    let server = Server::with(site.listening(), Echo).await;
    let mut told = reasons(&server);
    for len in [0usize, 1, 16, 17, 16_384, 16_640, 16_641, 18_430, 18_431, 18_432, 18_433, 65_535] {
        let mut peer = connect_foreign(server.address, site.foreign()).await.unwrap();
        let [high, low] = u16::try_from(len).unwrap().to_be_bytes();
        let mut record = vec![23, 3, 3, high, low];
        record.resize(5 + len, 7);
        // It may be reset before all of it is sent.
        let _ = peer.get_mut().0.write_all(&record).await;
        let reason = within("the end", told.recv()).await.unwrap();
        assert_eq!(reason, CloseReason::TlsError, "{len} bytes");
    }
}

#[tokio::test]
async fn a_long_message_in_parts_is_waited_for_and_not_taken_for_the_end() {
    let site = Site::new();
    let server = Server::with(site.listening(), Echo).await;
    let mut told = reasons(&server);
    let mut peer = server.connect().await;
    // A client hello of nearly 64 KiB, of which more than 64 KiB of records come.
    let mut wire = vec![22, 3, 1, 0, 4, 1, 0, 0xff, 0xf0];
    while wire.len() < 66_000 {
        wire.extend([22, 3, 1, 0, 100]);
        wire.extend([0; 100]);
    }
    peer.send(&wire[..66_000]).await;
    eventually("the server to read it", || server.listener.stats().active == 1).await;
    // The last byte of a record makes the server look at all of it; nothing has ended yet.
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(told.try_recv().is_err(), "the peer has not ended anything");
    peer.finish().await;
    let reason = within("the end", told.recv()).await.unwrap();
    assert_eq!(reason, CloseReason::HandshakeFailed);
}

/// A server that is not ours, that does something at the wrong moment; returns its port.
fn hostile_server(
    site: &Site,
    then: impl FnOnce(&mut TcpStream, Sealer) + Send + 'static,
) -> (u16, std::thread::JoinHandle<()>) {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(site.server.chain(), site.server.private_key())
        .unwrap();
    config.enable_secret_extraction = true;
    config.send_tls13_tickets = 0;
    let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listening.local_addr().unwrap().port();
    let serving = std::thread::spawn(move || {
        let (mut tcp, _) = listening.accept().unwrap();
        tcp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut tls = rustls::ServerConnection::new(Arc::new(config)).unwrap();
        while tls.is_handshaking() || tls.wants_write() {
            tls.complete_io(&mut tcp).unwrap();
        }
        then(&mut tcp, Sealer::of(tls.dangerous_extract_secrets().unwrap().tx));
        let _ = tcp.read_to_end(&mut Vec::new());
    });
    (port, serving)
}

#[tokio::test]
async fn a_client_survives_a_part_of_a_message_and_then_the_end() {
    let site = Site::new();
    let (port, serving) = hostile_server(&site, |tcp, mut sealer| {
        tcp.write_all(&sealer.seal(HANDSHAKE, &[4, 0])).unwrap();
        tcp.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut client = Client::connect("localhost", port, site.connecting()).await.unwrap();
    let error = within("the end", client.read_bytes()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Truncated);
    drop(client);
    tokio::task::spawn_blocking(|| serving.join().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_client_survives_a_damaged_record_after_its_own_end() {
    let site = Site::new();
    let (port, serving) = hostile_server(&site, |tcp, _| {
        // The client's goodbye comes first.
        let _ = tcp.read(&mut [0; 1024]).unwrap();
        let record: Vec<u8> = [23, 3, 3, 0, 30].into_iter().chain([7; 30]).collect();
        tcp.write_all(&record).unwrap();
    });
    let mut client = Client::connect("localhost", port, site.connecting()).await.unwrap();
    client.finish().await.unwrap();
    let error = within("the end", client.read_bytes()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Tls);
    drop(client);
    tokio::task::spawn_blocking(|| serving.join().unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_burst_of_silent_peers_gives_way() {
    let site = Site::new();
    let config = site.listening().limits(Limits::new().max_connections(4));
    let server = Server::with(config, Echo).await;
    // All at once, so that none of them has begun before the last is accepted.
    let silent: Vec<_> = (0..4).map(|_| TcpStream::connect(server.address).unwrap()).collect();
    let port = server.address.port();
    let client = within("connecting", Client::connect("localhost", port, site.connecting())).await;
    client.unwrap().close().await.unwrap();
    assert_eq!(server.listener.stats().closed(CloseReason::HandshakeTimeout), 1);
    drop(silent);
}

#[tokio::test]
async fn failed_handshakes_give_way_too() {
    let site = Site::new();
    let config = site.listening().limits(Limits::new().max_connections(4));
    let server = Server::with(config, Echo).await;
    let mut held = Vec::new();
    for _ in 0..4 {
        let mut peer = server.connect().await;
        // Each is refused, and lingers, because it does not close its side.
        peer.send(b"GET / HTTP/1.1\r\n\r\n").await;
        held.push(peer);
    }
    let port = server.address.port();
    let client = within("connecting", Client::connect("localhost", port, site.connecting())).await;
    client.unwrap().close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn good_clients_beyond_the_places_wait_and_are_all_served() {
    let site = Site::new();
    let config = site.listening().limits(Limits::new().max_connections(2));
    let server = Server::with(config, Echo).await;
    let mut tasks = Vec::new();
    for _ in 0..12 {
        let (config, port) = (site.connecting(), server.address.port());
        tasks.push(tokio::spawn(async move {
            let mut client = Client::connect("localhost", port, config).await?;
            client.write_bytes("x").await?;
            client.read_bytes().await?;
            client.close().await
        }));
    }
    for task in tasks {
        within("a client", task).await.unwrap().unwrap();
    }
}
