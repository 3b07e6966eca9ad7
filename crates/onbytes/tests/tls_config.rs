//! Each field of the secure-socket records does what it says, and a callback sees what was agreed.
#![cfg(any(feature = "tls", feature = "tls-ring"))]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::time::SystemTime;

use onbytes::{
    Caller, CertKey, CipherSuite, Client, ClientConfiguration, ClientSecureSocket, CloseReason,
    Error, ErrorKind, Listener, ListenerConfiguration, ListenerSecureSocket, MutualTls, Protocol,
    Result, SubjectAltName, TlsInfo, TlsVersion,
};
use support::tls::{Authority, Site};
use support::{Echo, Script, Seen, Server, eventually, within};

/// Connects to `server` and returns what the client and the listener's service see.
async fn agreed(server: &mut Server, client: ClientSecureSocket) -> (TlsInfo, TlsInfo) {
    let connected = connect(server, client).await.unwrap();
    let seen = server.caller().await.tls().unwrap().clone();
    (connected.tls().unwrap().clone(), seen)
}

async fn connect(server: &Server, client: ClientSecureSocket) -> Result<Client> {
    let config = ClientConfiguration::new().secure_socket(client);
    let mut client =
        within("connecting", Client::connect("localhost", server.address.port(), config)).await?;
    // In TLS 1.3 a client hears only afterwards that its certificate is refused.
    client.write_bytes("x").await?;
    within("the echo", client.read_bytes()).await?;
    Ok(client)
}

fn secured(secure: ListenerSecureSocket) -> ListenerConfiguration {
    ListenerConfiguration::new().secure_socket(secure)
}

fn cause(error: &Error) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_else(|| error.to_string())
}

#[tokio::test]
async fn versions_and_suites_are_those_that_were_asked_for() {
    let site = Site::new();
    let suites: Vec<CipherSuite> = CipherSuite::supported().collect();
    assert_eq!(suites.len(), 9);
    // The suites of RSA need a key of RSA, which the program's tests have.
    for suite in suites.iter().filter(|suite| !suite.as_str().contains("ECDHE_RSA")) {
        let version = if suite.code() < 0x1400 { TlsVersion::Tls13 } else { TlsVersion::Tls12 };
        let secure = site.secure().ciphers([*suite]);
        let mut server = Server::with(secured(secure), Echo).await;
        let (client, service) = agreed(&mut server, site.trusting()).await;
        for info in [client, service] {
            assert_eq!((info.version, info.cipher_suite), (version, *suite));
        }
    }
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let client = site.trusting().protocol(Protocol::new().versions([version]));
        let mut server = Server::with(site.listening(), Echo).await;
        let (client, service) = agreed(&mut server, client).await;
        assert_eq!((client.version, service.version), (version, version));
    }
}

#[tokio::test]
async fn the_order_of_suites_is_the_clients_or_where_asked_for_the_servers() {
    let site = Site::new();
    let order = |names: [&str; 2]| names.map(|name| name.parse::<CipherSuite>().unwrap());
    let ours = order(["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"]);
    let theirs = order(["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384"]);
    for (prefers, expected) in [(false, theirs[0]), (true, ours[0])] {
        let secure = site.secure().ciphers(ours).prefer_server_ciphers(prefers);
        let mut server = Server::with(secured(secure), Echo).await;
        let (client, _) = agreed(&mut server, site.trusting().ciphers(theirs)).await;
        assert_eq!(client.cipher_suite, expected);
    }
}

#[tokio::test]
async fn who_would_rather_have_aes_gets_the_cheaper_one_where_nobody_has_chosen() {
    let site = Site::new();
    let parse = |name: &&str| name.parse::<CipherSuite>().unwrap();
    let [large, small, other] =
        ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"];
    let [large_1_2, small_1_2, other_1_2] = [
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    ];
    for (offered, expected) in [
        (&[large, other, small][..], small),
        (&[large, other], large),
        (&[other, large, small], other),
        (&[large_1_2, other_1_2, small_1_2], small_1_2),
        (&[other_1_2, small_1_2], other_1_2),
    ] {
        let mut server = Server::with(site.listening(), Echo).await;
        let client = site.trusting().ciphers(offered.iter().map(parse));
        let (client, service) = agreed(&mut server, client).await;
        // Without instructions for AES nothing of it is cheap.
        let expected = if has_aes() { expected } else { offered[0] };
        assert_eq!(client.cipher_suite.as_str(), expected, "{offered:?}");
        assert_eq!(service.cipher_suite, client.cipher_suite);
    }
}

fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}

#[tokio::test]
async fn what_is_not_served_is_refused_with_a_sentence_or_left_out_with_a_warning() {
    let site = Site::new();
    let refused = |secure: ListenerSecureSocket| {
        let error = Listener::new(0, secured(secure)).unwrap_err();
        assert!(error.is_configuration());
        error.to_string()
    };
    let suite = |name: &str| name.parse::<CipherSuite>().unwrap();
    let cbc = suite("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA");
    let versions = |versions: &[TlsVersion]| Protocol::new().versions(versions.iter().copied());
    let old = versions(&[TlsVersion::Tls11]);
    let message = refused(site.secure().ciphers([cbc]));
    assert!(message.contains("ciphers: not served"), "{message}");
    assert!(message.contains("TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA; accepted: TLS_"), "{message}");
    let message = refused(site.secure().protocol(old));
    assert!(message.contains("TLSv1.1; give TLSv1.2") && message.contains("TLSv1.3"), "{message}");
    let gcm = suite("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256");
    let newest = versions(&[TlsVersion::Tls13]);
    let message = refused(site.secure().ciphers([gcm]).protocol(newest));
    assert!(message.contains("none of the ciphers can be used with the protocol"), "{message}");

    // The connector's own sample, with something usable beside.
    let secure = site
        .secure()
        .ciphers([cbc, suite("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")])
        .protocol(versions(&[TlsVersion::Tls12, TlsVersion::Tls11]));
    let listener = Listener::new(("127.0.0.1", 0), secured(secure)).unwrap();
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    listener.on_event(move |event| {
        if let onbytes::Event::TlsWarning { warning, .. } = event {
            let _ = tell.send((*warning).to_owned());
        }
    });
    drop(Server::attach(&listener, Echo));
    listener.start().await.unwrap();
    assert!(told.recv().await.unwrap().contains("left out: protocol versions TLSv1.1"));
    assert!(
        told.recv().await.unwrap().contains("left out: ciphers TLS_ECDHE_RSA_WITH_AES_128_CBC")
    );
}

#[tokio::test]
async fn suites_that_no_key_of_ours_can_use_are_found_before_a_port_opens() {
    let site = Site::new();
    let rsa = "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256".parse().unwrap();
    let listener = Listener::new(("127.0.0.1", 0), secured(site.secure().ciphers([rsa]))).unwrap();
    drop(Server::attach(&listener, Echo));
    let error = listener.start().await.unwrap_err();
    assert!(error.is_configuration() && listener.local_addr().is_none());
    assert!(error.to_string().contains("a key of the kind ECDSA"), "{error}");
}

#[tokio::test]
async fn the_certificate_is_chosen_by_the_server_name() {
    let site = Site::new();
    let one = site.authority.server(&["one.example", "uno.example"]);
    let wild = site.authority.server(&["*.two.example"]);
    let secure = site.secure().sni_keys([one.cert_key().into(), wild.cert_key().into()]);
    let mut server = Server::with(secured(secure), Echo).await;
    for (asked, shown) in [
        ("one.example", "one.example"),
        ("UNO.example", "one.example"),
        ("a.two.example", "*.two.example"),
        ("localhost", "localhost"),
    ] {
        let (client, service) = agreed(&mut server, site.trusting().server_name(asked)).await;
        let certificate = client.peer_certificate().unwrap();
        assert_eq!(certificate.common_name().unwrap(), shown, "{asked}");
        assert_eq!(service.server_name.unwrap(), asked.to_lowercase());
    }
    // Whoever asks for a name that nobody here has, or for none, gets the first.
    for (asked, seen) in [("nobody.example", Some("nobody.example")), ("127.0.0.1", None)] {
        let client = site.trusting().server_name(asked).verify_hostname(false);
        let (client, service) = agreed(&mut server, client).await;
        assert_eq!(client.peer_certificate().unwrap().common_name().unwrap(), "localhost");
        assert_eq!(service.server_name.as_deref(), seen);
    }
}

#[tokio::test]
async fn application_protocols_are_agreed_on_or_refused() {
    let site = Site::new();
    let mut server = Server::with(secured(site.secure().alpn(["mqtt", "x-echo"])), Echo).await;
    let (client, service) = agreed(&mut server, site.trusting().alpn(["x-echo", "other"])).await;
    assert_eq!(client.alpn.as_deref(), Some("x-echo"));
    assert_eq!(service.alpn.as_deref(), Some("x-echo"));
    let (client, service) = agreed(&mut server, site.trusting()).await;
    assert!(client.alpn.is_none() && service.alpn.is_none());
    let error = connect(&server, site.trusting().alpn(["http/1.1"])).await.unwrap_err();
    assert!(cause(&error).contains("no_application_protocol"), "{}", cause(&error));
}

#[tokio::test]
async fn a_client_certificate_is_required_and_seen() {
    let site = Site::new();
    let billing = site.authority.client("billing");
    let secure = site.secure().mutual_tls(MutualTls::required(site.trust()));
    for version in [TlsVersion::Tls12, TlsVersion::Tls13] {
        let protocol = Protocol::new().versions([version]);
        let mut server = Server::with(secured(secure.clone()), Echo).await;
        let client = site.trusting().protocol(protocol.clone());
        let (_, service) = agreed(&mut server, client.clone().key(billing.cert_key())).await;
        assert!(!service.resumed);
        let certificate = service.peer_certificate().unwrap();
        assert_eq!(certificate.subject(), "CN=billing");
        assert_eq!(certificate.subject_alt_names(), [SubjectAltName::Dns("billing".into())]);
        assert_eq!(certificate.der(), &billing.chain()[0][..]);
        let fingerprint = certificate.sha256_fingerprint().to_string();
        assert_eq!(fingerprint.len(), 64 + 31, "{fingerprint}");
        let now = SystemTime::now();
        assert!(certificate.not_before().unwrap() < now && certificate.not_after().unwrap() > now);

        let error = connect(&server, client.clone()).await.unwrap_err();
        assert!(cause(&error).contains("certificate"), "{version}: {}", cause(&error));
        let another = Authority::new("Another CA");
        let stranger = another.client("billing");
        let error = connect(&server, client.clone().key(stranger.cert_key())).await.unwrap_err();
        assert!(cause(&error).contains("unknown_ca"), "{version}: {}", cause(&error));
        // A server's certificate in the place of a client's.
        let error = connect(&server, client.key(site.server.cert_key())).await.unwrap_err();
        assert!(cause(&error).contains("certificate"), "{version}: {}", cause(&error));
        let listener = &server.listener;
        eventually("three failures", || listener.stats().closed(CloseReason::HandshakeFailed) == 3)
            .await;
        assert_eq!(listener.stats().accepted, 4);
    }
}

#[tokio::test]
async fn an_optional_client_certificate_may_be_missing_but_not_wrong() {
    let site = Site::new();
    let secure = site.secure().mutual_tls(MutualTls::optional(site.trust()));
    let mut server = Server::with(secured(secure), Echo).await;
    let (_, service) = agreed(&mut server, site.trusting()).await;
    assert!(service.peer_certificates.is_empty());
    let known = site.authority.client("known");
    let (_, service) = agreed(&mut server, site.trusting().key(known.cert_key())).await;
    assert_eq!(service.peer_certificate().unwrap().common_name().unwrap(), "known");
    let another = Authority::new("Another CA");
    let stranger = another.client("known");
    assert!(connect(&server, site.trusting().key(stranger.cert_key())).await.is_err());
}

#[tokio::test]
async fn a_client_certificate_that_is_trusted_as_itself_is_accepted_even_a_self_signed_one() {
    use support::tls::{params, self_signed};
    let site = Site::new();
    let folder = tempfile::tempdir().unwrap();
    let mut strange = params("device 17", &[]);
    // What `openssl req -x509` makes is an authority's, which no chain would accept.
    strange.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let device = self_signed(folder.path(), "device", &strange);
    let other = self_signed(folder.path(), "other", &strange);
    let secure = site.secure().mutual_tls(MutualTls::required(device.cert.as_path()));
    let mut server = Server::with(secured(secure), Echo).await;
    let (_, service) = agreed(&mut server, site.trusting().key(device.cert_key())).await;
    assert_eq!(service.peer_certificate().unwrap().common_name().unwrap(), "device 17");
    assert!(connect(&server, site.trusting().key(other.cert_key())).await.is_err());
    // Its certificate without its key is worth nothing.
    let impostor = CertKey::new(&device.cert, &other.key);
    let error = connect(&server, site.trusting().key(impostor)).await.unwrap_err();
    assert!(error.is_configuration(), "{error}");
}

#[tokio::test]
async fn a_certificate_that_is_trusted_as_itself_is_no_authority() {
    use rcgen::{ExtendedKeyUsagePurpose, Issuer, KeyPair};
    use support::tls::{params, self_signed_with};
    let site = Site::new();
    let folder = tempfile::tempdir().unwrap();
    let for_clients = |name: &str| {
        let mut params = params(name, &[name]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
    };
    let key = KeyPair::generate().unwrap();
    let device = self_signed_with(folder.path(), "device", &for_clients("device"), &key);
    // What the device's owner signs with the device's key is nobody's business.
    let (cert, own) = (folder.path().join("billing.pem"), folder.path().join("billing-key.pem"));
    let own_key = KeyPair::generate().unwrap();
    let issuer = Issuer::new(for_clients("device"), key);
    let forged = for_clients("billing").signed_by(&own_key, &issuer).unwrap();
    std::fs::write(&cert, forged.pem()).unwrap();
    std::fs::write(&own, own_key.serialize_pem()).unwrap();
    let secure = site.secure().mutual_tls(MutualTls::required(device.cert.as_path()));
    let server = Server::with(secured(secure), Echo).await;
    connect(&server, site.trusting().key(device.cert_key())).await.unwrap();
    let error = connect(&server, site.trusting().key(CertKey::new(cert, own))).await.unwrap_err();
    assert!(cause(&error).contains("unknown_ca"), "{}", cause(&error));
}

#[tokio::test]
async fn a_certificate_that_is_trusted_as_itself_can_be_revoked_whatever_else_is_wrong_with_it() {
    use support::tls::params;
    let site = Site::new();
    let mut old = params("old", &["old"]);
    old.not_before = time::OffsetDateTime::now_utc() - std::time::Duration::from_secs(7200);
    old.not_after = time::OffsetDateTime::now_utc() - std::time::Duration::from_secs(3600);
    let old = site.authority.issue(old);
    let both = site.authority.folder().join("both.pem");
    let own = std::fs::read_to_string(&old.cert).unwrap();
    std::fs::write(&both, [site.authority.pem.as_str(), &own].concat()).unwrap();
    for (revoked, is_let_in) in [(vec![], true), (vec![old.serial], false)] {
        let list = site.authority.revoke(&revoked);
        let mutual = MutualTls::required(both.as_path()).crl_files([list]);
        let server = Server::with(secured(site.secure().mutual_tls(mutual)), Echo).await;
        let result = connect(&server, site.trusting().key(old.cert_key())).await;
        assert_eq!(result.is_ok(), is_let_in, "{result:?}");
    }
}

#[tokio::test]
async fn revoked_client_certificates_are_refused() {
    let site = Site::new();
    let (good, bad) = (site.authority.client("good"), site.authority.client("bad"));
    let list = site.authority.revoke(&[bad.serial]);
    let mutual = MutualTls::required(site.trust()).crl_files([list]);
    let mut server = Server::with(secured(site.secure().mutual_tls(mutual)), Echo).await;
    agreed(&mut server, site.trusting().key(good.cert_key())).await;
    let error = connect(&server, site.trusting().key(bad.cert_key())).await.unwrap_err();
    assert!(cause(&error).contains("certificate_revoked"), "{}", cause(&error));
    // A list of another authority tells nothing of ours.
    let foreign = Authority::new("Another CA");
    let mutual = MutualTls::required(site.trust()).crl_files([foreign.revoke(&[])]);
    let server = Server::with(secured(site.secure().mutual_tls(mutual)), Echo).await;
    assert!(connect(&server, site.trusting().key(good.cert_key())).await.is_err());
}

/// Lets nobody in but billing.
struct OnlyBilling;

impl Script for OnlyBilling {
    async fn connect(&self, caller: &Caller) -> Result<()> {
        let certificate = caller.tls().and_then(TlsInfo::peer_certificate);
        match certificate.and_then(onbytes::Certificate::common_name) {
            Some(name) if name == "billing" => Ok(()),
            _ => Err(Error::new("only billing may connect")),
        }
    }
}

#[tokio::test]
async fn on_connect_can_refuse_a_peer_by_its_certificate() {
    let site = Site::new();
    let secure = site.secure().mutual_tls(MutualTls::required(site.trust()));
    let mut server = Server::with(secured(secure), OnlyBilling).await;
    let billing = site.authority.client("billing");
    connect(&server, site.trusting().key(billing.cert_key())).await.unwrap();
    server.expect([Seen::Connect, Seen::Bytes(b"x".to_vec())]).await;
    let sales = site.authority.client("sales");
    let config = ClientConfiguration::new().secure_socket(site.trusting().key(sales.cert_key()));
    let mut client = Client::connect("localhost", server.address.port(), config).await.unwrap();
    assert_eq!(within("the end", client.read_bytes()).await.unwrap(), None);
    let listener = &server.listener;
    eventually("the refusal", || listener.stats().closed(CloseReason::Rejected) == 1).await;
}

#[tokio::test]
async fn the_key_log_is_written_for_its_owner_alone() {
    let site = Site::new();
    let path = site.authority.folder().join("keys.log");
    let mut server = Server::with(secured(site.secure().key_log_file(&path)), Echo).await;
    agreed(&mut server, site.trusting()).await;
    let log = std::fs::read_to_string(&path).unwrap();
    assert!(log.lines().any(|line| line.starts_with("CLIENT_TRAFFIC_SECRET_0 ")), "{log}");
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
}

#[tokio::test]
async fn files_are_read_at_the_start_before_a_port_opens() {
    let site = Site::new();
    let missing = CertKey::new("/no/such/cert.pem", &site.server.key);
    let listener =
        Listener::new(("127.0.0.1", 0), secured(ListenerSecureSocket::new(missing))).unwrap();
    let (_, _, _) = Server::attach(&listener, Echo);
    let error = listener.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(
        error.to_string().contains("cert_file") && error.to_string().contains("/no/such/cert.pem")
    );
    assert!(listener.local_addr().is_none());

    // The client, before it asks anything of the network: nobody listens on port 1.
    let config =
        ClientConfiguration::new().secure_socket(ClientSecureSocket::new().cert("/no/such/ca.pem"));
    let error = Client::connect("127.0.0.1", 1, config).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration, "{error}");
    assert!(error.to_string().contains("/no/such/ca.pem"), "{error}");
}

#[cfg(feature = "serde")]
#[test]
fn a_file_in_the_connectors_own_form_is_read() {
    let config: ListenerConfiguration = serde_json::from_str(
        r#"{
            "localHost": "127.0.0.1",
            "secureSocket": {
                "key": {"certFile": "server.crt", "keyFile": "server.key", "keyPassword": "sesame"},
                "protocol": {"name": "TLS", "versions": ["TLSv1.3", "TLSv1.2", "TLSv1.1"]},
                "ciphers": ["TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA", "ECDHE-RSA-AES128-GCM-SHA256"],
                "handshakeTimeout": 2.5,
                "sessionTimeout": "off",
                "mutualTls": {"cert": {"path": "t.p12", "password": "word"}, "mode": "optional"}
            }
        }"#,
    )
    .unwrap();
    let text = serde_json::to_string(&config).unwrap();
    assert_eq!(serde_json::from_str::<ListenerConfiguration>(&text).unwrap(), config);
    let secure = config.secure_socket.unwrap();
    assert_eq!(secure.session_timeout, None);
    assert_eq!(secure.handshake_timeout, Some(std::time::Duration::from_millis(2500)));

    let client: ClientConfiguration = serde_json::from_str(
        r#"{"secureSocket": {"cert": "ca.pem", "verifyHostname": false, "key": {"path": "k.p12", "password": "p"}}}"#,
    )
    .unwrap();
    let secure = client.secure_socket.clone().unwrap();
    assert!(secure.enable && !secure.verify_hostname);
    let text = serde_json::to_string(&client).unwrap();
    assert_eq!(serde_json::from_str::<ClientConfiguration>(&text).unwrap(), client);
}

#[cfg(feature = "serde")]
#[test]
fn mistakes_in_files_are_told_in_a_sentence_without_secrets() {
    let refused = |secure: &str| {
        let text = format!(r#"{{"secureSocket": {secure}}}"#);
        serde_json::from_str::<ListenerConfiguration>(&text).unwrap_err().to_string()
    };
    let key = r#""key": {"certFile": "c", "keyFile": "k"}"#;
    assert!(refused(r#"{"key": {"certFile": "c"}}"#).contains("keyFile"));
    assert!(refused(r#"{"key": {"path": "c"}}"#).contains("password"));
    assert!(refused(r#"{"key": {}}"#).contains("a key is a key store"));
    assert!(refused(r#"{"key": {"certFile": "c", "keyFlie": "k"}}"#).contains("`keyFlie`"));
    assert!(refused(&format!(r#"{{{key}, "ciphers": ["FOO"]}}"#)).contains("accepted: TLS_AES"));
    let versions = format!(r#"{{{key}, "protocol": {{"versions": ["TLSv1.4"]}}}}"#);
    assert!(refused(&versions).contains("known: TLSv1.2, TLSv1.3"));
    assert!(refused(&format!(r#"{{{key}, "handshakeTimeout": -1}}"#)).contains("0 or more"));
    assert!(refused(r#"{}"#).contains("`key`"));
    let secret = refused(r#"{"key": {"path": "c", "password": 31337}}"#);
    assert!(secret.contains("put it in quotes") && !secret.contains("31337"), "{secret}");
}
