//! Sessions that are resumed, and for how long; files that are read again while the listener runs.
#![cfg(any(feature = "tls", feature = "tls-ring"))]

mod support;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use onbytes::{
    Client, ClientConfiguration, ClientSecureSocket, Error, ListenerConfiguration,
    ListenerSecureSocket, MutualTls, Protocol, Result, TlsInfo, TlsVersion,
};
use support::tls::{Authority, Issued, Site};
use support::{Echo, EventNames, Server, within};

const BOTH: [TlsVersion; 2] = [TlsVersion::Tls12, TlsVersion::Tls13];

/// Connects, and reads something, so that tickets have arrived.
async fn connect(server: &Server, secure: &ClientSecureSocket) -> Result<TlsInfo> {
    let config = ClientConfiguration::new().secure_socket(secure.clone());
    let mut client =
        within("connecting", Client::connect("localhost", server.address.port(), config)).await?;
    client.write_bytes("x").await?;
    let echo = within("the echo", client.read_bytes()).await?;
    echo.ok_or_else(|| Error::new("the server said goodbye"))?;
    let info = client.tls().unwrap().clone();
    client.close().await?;
    Ok(info)
}

fn secured(secure: ListenerSecureSocket) -> ListenerConfiguration {
    ListenerConfiguration::new().secure_socket(secure)
}

fn only(version: TlsVersion) -> Protocol {
    Protocol::new().versions([version])
}

#[tokio::test]
async fn clones_of_a_record_resume_and_other_records_do_not() {
    let site = Site::new();
    for version in BOTH {
        let mut server = Server::with(site.listening(), Echo).await;
        let secure = site.trusting().protocol(only(version));
        assert!(!connect(&server, &secure).await.unwrap().resumed);
        for _ in 0..3 {
            assert!(connect(&server, &secure).await.unwrap().resumed, "{version}");
        }
        let other = site.trusting().protocol(only(version));
        assert!(!connect(&server, &other).await.unwrap().resumed);
        // Another server name is no other record, but another server.
        let renamed = secure.clone().server_name("127.0.0.1");
        assert!(!connect(&server, &renamed).await.unwrap().resumed);
        // A record whose other fields have changed is another.
        assert!(!connect(&server, &secure.clone().alpn(["x"])).await.unwrap().resumed);
        let seen: Vec<bool> = {
            let mut seen = Vec::new();
            for _ in 0..7 {
                seen.push(server.caller().await.tls().unwrap().resumed);
            }
            seen
        };
        assert_eq!(seen, [false, true, true, true, false, false, false]);
    }
}

#[tokio::test]
async fn a_session_is_not_resumed_after_its_time() {
    let site = Site::new();
    let time = Duration::from_secs(1);
    for version in BOTH {
        // The server's time, then the client's own.
        for (servers, clients) in [(time, Duration::from_secs(60)), (Duration::from_secs(60), time)]
        {
            let config = secured(site.secure().session_timeout(servers));
            let server = Server::with(config, Echo).await;
            let secure = site.trusting().protocol(only(version)).session_timeout(clients);
            let made = Instant::now();
            assert!(!connect(&server, &secure).await.unwrap().resumed);
            let resumed = connect(&server, &secure).await.unwrap().resumed;
            assert!(resumed || made.elapsed() >= time, "{version}: within its time");
            // Time itself has to pass, for the ticket of the second connection too.
            tokio::time::sleep(time + Duration::from_millis(50)).await;
            assert!(!connect(&server, &secure).await.unwrap().resumed, "{version}: after it");
        }
    }
}

#[tokio::test]
async fn resumption_can_be_switched_off_on_both_sides() {
    let site = Site::new();
    for version in BOTH {
        let never = Server::with(secured(site.secure().session_timeout(None)), Echo).await;
        let secure = site.trusting().protocol(only(version));
        for _ in 0..2 {
            assert!(!connect(&never, &secure).await.unwrap().resumed);
        }
        let willing = Server::with(site.listening(), Echo).await;
        let secure = secure.clone().session_timeout(None);
        for _ in 0..2 {
            assert!(!connect(&willing, &secure).await.unwrap().resumed);
        }
    }
}

#[tokio::test]
async fn a_resumed_session_still_tells_the_clients_certificate() {
    let site = Site::new();
    for version in BOTH {
        let mutual = MutualTls::required(site.trust());
        let mut server = Server::with(secured(site.secure().mutual_tls(mutual)), Echo).await;
        let billing = site.authority.client("billing");
        let secure = site.trusting().protocol(only(version)).key(billing.cert_key());
        for resumed in [false, true] {
            connect(&server, &secure).await.unwrap();
            let info = server.caller().await.tls().unwrap().clone();
            assert_eq!(info.resumed, resumed, "{version}");
            assert_eq!(info.peer_certificate().unwrap().common_name().unwrap(), "billing");
        }
    }
}

/// Writes what another certificate has over the files of one.
fn replace(old: &Issued, new: &Issued) {
    copy(&new.cert, &old.cert);
    copy(&new.key, &old.key);
}

/// Replaces a file at once, as one does with files that others read.
fn copy(from: &Path, to: &Path) {
    let beside = to.with_extension("new");
    std::fs::copy(from, &beside).unwrap();
    std::fs::rename(&beside, to).unwrap();
}

#[tokio::test]
async fn new_handshakes_get_the_new_certificate_and_live_connections_go_on() {
    let site = Site::new();
    let server = Server::with(site.listening(), Echo).await;
    let mut events = EventNames::of(&server.listener);
    let mut old =
        Client::connect("localhost", server.address.port(), site.connecting()).await.unwrap();
    let renewed = site.authority.server(&["localhost", "renewed.example"]);
    replace(&site.server, &renewed);
    server.listener.reload_tls().await.unwrap();
    events.until("reloaded").await;
    let info = connect(&server, &site.trusting()).await.unwrap();
    assert_eq!(info.peer_certificate().unwrap().der(), &renewed.chain()[0][..]);
    old.write_bytes("still here").await.unwrap();
    assert_eq!(old.read_bytes().await.unwrap().as_deref(), Some(&b"still here"[..]));
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_told() {
    let site = Site::new();
    let server = Server::with(site.listening(), Echo).await;
    let mut events = EventNames::of(&server.listener);
    let before = site.server.chain();
    for bad in ["", "no certificate at all", "-----BEGIN CERTIFICATE-----\nAAAA\n"] {
        let good = std::fs::read(&site.server.cert).unwrap();
        std::fs::write(&site.server.cert, bad).unwrap();
        let error = server.listener.reload_tls().await.unwrap_err();
        assert!(error.is_configuration() && error.to_string().contains("cert"), "{error}");
        events.until("reload_failed").await;
        let info = connect(&server, &site.trusting()).await.unwrap();
        assert_eq!(info.peer_certificate().unwrap().der(), &before[0][..]);
        std::fs::write(&site.server.cert, good).unwrap();
    }
    // The key of another certificate.
    let other = site.authority.server(&["localhost"]);
    copy(&other.key, &site.server.key);
    let error = server.listener.reload_tls().await.unwrap_err();
    assert!(error.to_string().contains("do not belong together"), "{error}");
    connect(&server, &site.trusting()).await.unwrap();
}

#[tokio::test]
async fn no_handshake_fails_while_certificates_are_reloaded() {
    let site = Site::new();
    let server = Server::with(site.listening(), Echo).await;
    let others = [
        site.authority.server(&["localhost", "one.example"]),
        site.authority.server(&["localhost", "two.example"]),
    ];
    let is_over = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (port, over) = (server.address.port(), Arc::clone(&is_over));
        let trusting = site.trusting().session_timeout(None);
        tasks.push(tokio::spawn(async move {
            let mut count = 0;
            while !over.load(Ordering::SeqCst) {
                let config = ClientConfiguration::new().secure_socket(trusting.clone());
                let mut client = Client::connect("localhost", port, config).await.unwrap();
                client.write_bytes("x").await.unwrap();
                client.read_bytes().await.unwrap().unwrap();
                client.close().await.unwrap();
                count += 1;
            }
            count
        }));
    }
    for round in 0..40 {
        replace(&site.server, &others[round % 2]);
        server.listener.reload_tls().await.unwrap();
        tokio::task::yield_now().await;
    }
    is_over.store(true, Ordering::SeqCst);
    for task in tasks {
        assert!(within("the handshakes", task).await.unwrap() > 0);
    }
}

#[tokio::test]
async fn sessions_outlive_a_renewed_certificate_but_not_changed_authorities() {
    for version in BOTH {
        let site = Site::new();
        let clients = site.authority.folder().join("clients.pem");
        copy(&site.authority.cert, &clients);
        let mutual = MutualTls::required(clients.as_path());
        let server = Server::with(secured(site.secure().mutual_tls(mutual)), Echo).await;
        let billing = site.authority.client("billing");
        let secure = site.trusting().protocol(only(version)).key(billing.cert_key());
        assert!(!connect(&server, &secure).await.unwrap().resumed);

        replace(&site.server, &site.authority.server(&["localhost", "renewed.example"]));
        server.listener.reload_tls().await.unwrap();
        assert!(connect(&server, &secure).await.unwrap().resumed, "{version}");

        // One more authority: whoever was let in is asked anew.
        let another = Authority::new("Another CA");
        std::fs::write(&clients, [site.authority.pem.as_str(), &another.pem].concat()).unwrap();
        server.listener.reload_tls().await.unwrap();
        assert!(!connect(&server, &secure).await.unwrap().resumed, "{version}");

        // Another authority: whoever was let in is not any more, ticket or not.
        copy(&another.cert, &clients);
        server.listener.reload_tls().await.unwrap();
        connect(&server, &secure).await.unwrap_err();
    }
}

#[tokio::test]
async fn a_revoked_client_does_not_resume() {
    for version in BOTH {
        let site = Site::new();
        let billing = site.authority.client("billing");
        let list = site.authority.revoke(&[]);
        let mutual = MutualTls::required(site.trust()).crl_files([list]);
        let server = Server::with(secured(site.secure().mutual_tls(mutual)), Echo).await;
        let secure = site.trusting().protocol(only(version)).key(billing.cert_key());
        connect(&server, &secure).await.unwrap();
        assert!(connect(&server, &secure).await.unwrap().resumed, "{version}");
        site.authority.revoke(&[billing.serial]);
        server.listener.reload_tls().await.unwrap();
        let error = connect(&server, &secure).await.unwrap_err();
        assert!(format!("{error:?}").contains("revoked"), "{version}: {error:?}");
    }
}

#[tokio::test]
async fn a_client_whose_certificate_has_expired_does_not_resume() {
    let site = Site::new();
    let mutual = MutualTls::required(site.trust());
    let server = Server::with(secured(site.secure().mutual_tls(mutual)), Echo).await;
    let mut short = support::tls::params("short", &["short"]);
    let life = Duration::from_secs(3);
    short.not_after = time::OffsetDateTime::now_utc() + life;
    let short = site.authority.issue(short);
    let secures = BOTH.map(|version| site.trusting().protocol(only(version)).key(short.cert_key()));
    for secure in &secures {
        connect(&server, secure).await.unwrap();
        assert!(connect(&server, secure).await.unwrap().resumed);
    }
    // Time itself has to pass; certificates know whole seconds only.
    tokio::time::sleep(life + Duration::from_millis(1_100)).await;
    for secure in &secures {
        connect(&server, secure).await.unwrap_err();
    }
}

#[tokio::test]
async fn reloading_a_listener_that_has_nothing_to_reload_is_no_failure() {
    let plain = Server::start(Echo).await;
    plain.listener.reload_tls().await.unwrap();
    plain.listener.immediate_stop().await;
    plain.listener.reload_tls().await.unwrap();
}
