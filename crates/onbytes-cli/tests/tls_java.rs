//! A server with TLS, as Java's own TLS (JSSE) sees it.

mod support;

use support::tls::{CERT, Folder, Talk, are_here, next_end};

/// Runs the client of Java with all that it is told, and returns its lines.
fn java(folder: &Folder, args: &str) -> Vec<String> {
    folder.write("EchoClient.java", include_str!("java/EchoClient.java"));
    let client = Talk::start(folder.tool("java", &format!("EchoClient.java {args}")));
    client.finished().lines().map(str::to_owned).collect()
}

#[test]
fn java_trusts_the_store_gets_its_echo_resumes_and_ends_in_order() {
    if !are_here(&["java"]) {
        return;
    }
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(CERT);
    let lines = java(&folder, &format!("{} changeit truststore.p12", server.port()));
    let line = |version, how| format!("{version}: {version}, echo, {how}, ended in order");
    assert_eq!(
        lines,
        [
            line("TLSv1.2", "new"),
            line("TLSv1.2", "resumed"),
            line("TLSv1.3", "new"),
            line("TLSv1.3", "resumed"),
        ]
    );
    for _ in 0..4 {
        assert_eq!(next_end(&server).0, "peer_closed");
    }
    server.stop();
}

#[test]
fn java_shows_the_certificate_of_its_store_and_is_refused_without_one() {
    if !are_here(&["java"]) {
        return;
    }
    let folder = Folder::with_certs(&["--ca"]);
    let store = "--key-store keystore.p12 --key-store-password changeit --client-ca ca.pem";
    let server = folder.serve(store);
    let args = format!("{} changeit truststore.p12", server.port());
    let lines = java(&folder, &format!("{args} client.p12"));
    assert!(lines.len() == 4 && lines.iter().all(|line| line.contains(", echo, ")), "{lines:?}");
    let lines = java(&folder, &args);
    assert!(lines.len() == 4 && lines.iter().all(|line| line.contains("failed: ")), "{lines:?}");
    server.stop();
}
