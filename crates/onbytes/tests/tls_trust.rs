//! Whom a client trusts: a chain for the name it asked for, or the very certificate that it was
//! given, and nobody who only shows that certificate without having its key.
#![cfg(any(feature = "tls", feature = "tls-ring"))]

mod support;

use onbytes::{
    CertKey, Client, ClientConfiguration, ClientSecureSocket, Error, ErrorKind,
    ListenerConfiguration, ListenerSecureSocket, Protocol, Result, TlsVersion,
};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use support::tls::{Authority, Issued, Site, params, self_signed, self_signed_with};
use support::{Echo, Server, within};
use time::OffsetDateTime;
use tokio::io::AsyncReadExt;
use tokio_rustls::rustls;

async fn serve(key: CertKey) -> Server {
    let secure = ListenerSecureSocket::new(key);
    Server::with(ListenerConfiguration::new().secure_socket(secure), Echo).await
}

async fn connect(port: u16, secure: ClientSecureSocket) -> Result<()> {
    let config = ClientConfiguration::new().secure_socket(secure);
    let client = within("connecting", Client::connect("localhost", port, config)).await?;
    client.close().await
}

fn told(result: Result<()>) -> String {
    let error = result.expect_err("it was trusted");
    assert_eq!(error.kind(), ErrorKind::Tls);
    error.to_string()
}

const BOTH: [TlsVersion; 2] = [TlsVersion::Tls12, TlsVersion::Tls13];

fn expired(mut params: CertificateParams) -> CertificateParams {
    let now = OffsetDateTime::now_utc();
    params.not_before = now - std::time::Duration::from_secs(20 * 86_400);
    params.not_after = now - std::time::Duration::from_secs(10 * 86_400);
    params
}

#[tokio::test]
async fn a_self_signed_certificate_is_trusted_as_itself_whatever_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let mut authority = params("localhost", &["localhost"]);
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut for_clients = params("localhost", &["localhost"]);
    for_clients.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut critical = params("localhost", &["localhost"]);
    let mut unknown =
        rcgen::CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 99999, 1], vec![5, 0]);
    unknown.set_criticality(true);
    critical.custom_extensions = vec![unknown];
    for (name, params) in [
        ("plain", params("localhost", &["localhost"])),
        ("authority", authority),
        ("without-a-name", params("localhost", &[])),
        ("another-name", params("other", &["other.example"])),
        ("expired", expired(params("localhost", &["localhost"]))),
        ("for-clients", for_clients),
        ("unknown-critical-extension", critical),
    ] {
        let own = self_signed(folder.path(), name, &params);
        let server = serve(own.cert_key()).await;
        for version in BOTH {
            let protocol = Protocol::new().versions([version]);
            let secure = ClientSecureSocket::new().protocol(protocol).cert(own.cert.as_path());
            connect(server.address.port(), secure)
                .await
                .unwrap_or_else(|error| panic!("{name}, {version}: {error:?}"));
        }
    }
}

#[tokio::test]
async fn strict_validity_refuses_an_expired_one_even_where_it_is_trusted_as_itself() {
    let folder = tempfile::tempdir().unwrap();
    let old = self_signed(folder.path(), "old", &expired(params("localhost", &["localhost"])));
    let server = serve(old.cert_key()).await;
    let secure = ClientSecureSocket::new().cert(old.cert.as_path()).strict_validity(true);
    let message = told(connect(server.address.port(), secure).await);
    assert!(message.ends_with(": the peer's certificate has expired"), "{message}");
}

/// A server that shows a certificate and signs with a key that is not its.
struct Impostor {
    port: u16,
}

impl Impostor {
    async fn new(shown: &Issued) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = self_signed(folder.path(), "own", &params("localhost", &["localhost"]));
        let key = rustls::crypto::aws_lc_rs::sign::any_supported_type(&own.private_key()).unwrap();
        let certified = rustls::sign::CertifiedKey::new(shown.chain(), key);
        let provider = std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_cert_resolver(std::sync::Arc::new(rustls::sign::SingleCertAndKey::from(
                certified,
            )));
        let acceptor = tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config));
        let listening = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listening.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listening.accept().await {
                let accepting = acceptor.accept(tcp);
                tokio::spawn(async move {
                    if let Ok(mut tls) = accepting.await {
                        let _ = tls.read(&mut [0]).await;
                    }
                });
            }
        });
        Self { port }
    }
}

#[tokio::test]
async fn an_impostor_with_the_right_certificate_and_another_key_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let pinned = self_signed(folder.path(), "pinned", &params("localhost", &["localhost"]));
    let site = Site::new();
    for (shown, trusted) in [(&pinned, &pinned.cert), (&site.server, &site.authority.cert)] {
        let impostor = Impostor::new(shown).await;
        for version in BOTH {
            let protocol = Protocol::new().versions([version]);
            let secure = ClientSecureSocket::new().protocol(protocol).cert(trusted.as_path());
            let message = told(connect(impostor.port, secure).await);
            assert!(message.contains("does not have the key of the certificate"), "{message}");
        }
    }
}

#[tokio::test]
async fn another_certificate_with_the_same_key_is_not_the_pinned_one() {
    let folder = tempfile::tempdir().unwrap();
    let key = KeyPair::generate().unwrap();
    let one = self_signed_with(folder.path(), "one", &params("localhost", &["localhost"]), &key);
    let two = self_signed_with(folder.path(), "two", &params("two", &["two.example"]), &key);
    let server = serve(two.cert_key()).await;
    let message = told(
        connect(server.address.port(), ClientSecureSocket::new().cert(one.cert.as_path())).await,
    );
    assert!(!message.is_empty());
}

#[tokio::test]
async fn a_chain_is_for_the_name_unless_that_is_switched_off() {
    let authority = Authority::new("Test CA");
    let server = serve(authority.server(&["other.example"]).cert_key()).await;
    let port = server.address.port();
    let trusting = || ClientSecureSocket::new().cert(authority.cert.as_path());
    let message = told(connect(port, trusting()).await);
    assert!(message.contains("not for 'localhost' but for"), "{message}");
    assert!(message.contains("other.example"), "{message}");
    assert!(message.contains("server_name") && message.contains("verify_hostname"), "{message}");
    connect(port, trusting().server_name("other.example")).await.unwrap();
    connect(port, trusting().verify_hostname(false)).await.unwrap();
    // Switched off, the chain is verified all the same.
    let stranger = Authority::new("Another CA");
    let secure = ClientSecureSocket::new().cert(stranger.cert.as_path()).verify_hostname(false);
    assert!(told(connect(port, secure).await).contains("issued by nobody that is trusted"));
}

#[tokio::test]
async fn a_certificate_without_any_name_is_refused_in_a_chain() {
    let authority = Authority::new("Test CA");
    let mut nameless = params("localhost", &[]);
    nameless.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let server = serve(authority.issue(nameless).cert_key()).await;
    let secure = ClientSecureSocket::new().cert(authority.cert.as_path());
    let message = told(connect(server.address.port(), secure).await);
    assert!(message.contains("for no name at all"), "{message}");
}

#[tokio::test]
async fn every_failure_of_a_chain_has_its_own_text() {
    let authority = Authority::new("Test CA");
    let server_auth = |mut params: CertificateParams| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params
    };
    let mut early = server_auth(params("localhost", &["localhost"]));
    early.not_before = OffsetDateTime::now_utc() + std::time::Duration::from_secs(86_400);
    let mut for_clients = params("localhost", &["localhost"]);
    for_clients.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let mut as_authority = server_auth(params("localhost", &["localhost"]));
    as_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    for (params, expected) in [
        (expired(server_auth(params("localhost", &["localhost"]))), "certificate has expired"),
        (early, "not valid yet"),
        (for_clients, "not meant for servers"),
        (as_authority, "shows the certificate of an authority as its own"),
    ] {
        let server = serve(authority.issue(params).cert_key()).await;
        let secure = ClientSecureSocket::new().cert(authority.cert.as_path());
        let message = told(connect(server.address.port(), secure).await);
        assert!(message.contains(expected), "{message} / {expected}");
    }
}

#[tokio::test]
async fn the_systems_authorities_do_not_know_ours() {
    let site = Site::new();
    let server = serve(site.server.cert_key()).await;
    let result = connect(server.address.port(), ClientSecureSocket::new()).await;
    let error: Error = result.unwrap_err();
    // A machine without any authorities says so before it connects.
    match error.kind() {
        ErrorKind::Configuration => {
            assert!(error.to_string().contains("no trusted root certificates found"), "{error}");
        }
        _ => assert!(told(Err(error)).contains("issued by nobody that is trusted")),
    }
}

#[tokio::test]
async fn an_address_can_be_the_name() {
    let site = Site::new();
    let server = serve(site.server.cert_key()).await;
    let config = site.connecting();
    let client = Client::connect("127.0.0.1", server.address.port(), config).await.unwrap();
    assert_eq!(client.tls().unwrap().server_name, None);
}
