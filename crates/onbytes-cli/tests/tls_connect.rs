//! `onbytes connect --tls` towards `openssl s_server`, and whom it trusts.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use support::tls::{Folder, Talk, VERSIONS, are_here, assert_parts};

/// A server that sends lines back the other way round.
fn mirror(folder: &Folder, line: &str) -> (Talk, String) {
    folder.s_server(&format!("-rev {line}"))
}

#[test]
fn a_server_of_another_make_is_talked_to_in_both_versions() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&["--ca"]);
    for (flag, version) in VERSIONS {
        let (_server, port) = mirror(&folder, &format!("{flag} -cert cert.pem -key key.pem"));
        folder.connects(&port, "--cert ca.pem");
        folder.connects(&port, &format!("--cert ca.pem --tls-versions {version}"));
        let other = if version == "TLSv1.2" { "TLSv1.3" } else { "TLSv1.2" };
        let line = format!("--cert ca.pem --tls-versions {other}");
        folder.does_not_connect(&port, &line, &["TLS handshake", &port, "protocol version"]);
    }
}

#[test]
fn the_suites_and_protocols_that_are_given_are_offered() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&[]);
    let key = "-cert cert.pem -key key.pem -alpn h2,http/1.1 -naccept 2";
    let (server, port) = mirror(&folder, key);
    let suite = "ECDHE-ECDSA-CHACHA20-POLY1305";
    folder.connects(&port, &format!("--cert cert.pem --ciphers {suite} --alpn http/1.1"));
    folder.does_not_connect(&port, "--cert cert.pem --alpn other", &["application protocols"]);
    let (_, told) = server.ended();
    let suite = format!("Ciphersuite: {suite}\n");
    assert_parts(&told, &["ALPN protocols selected: http/1.1\n", &suite]);
}

#[test]
fn a_server_that_wants_a_certificate_gets_one() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&["--ca"]);
    for (flag, _) in VERSIONS {
        let asking = "-Verify 1 -verify_return_error -CAfile ca.pem";
        let (_server, port) =
            mirror(&folder, &format!("{flag} -cert cert.pem -key key.pem {asking}"));
        let files = "--client-cert client.pem --client-key client-key.pem";
        folder.connects(&port, &format!("--cert ca.pem {files}"));
        let store = "--client-key-store client.p12 --client-key-store-password changeit";
        folder.connects(&port, &format!("--cert ca.pem {store}"));
        let line = folder.does_not_connect(&port, "--cert ca.pem", &["the peer says"]);
        if flag == "-tls1_3" {
            assert_parts(&line, &["wants a certificate", "give --client-cert and --client-key"]);
        }
    }
}

#[test]
fn a_server_of_another_authority_or_another_name_is_refused_with_the_way_out() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&["--ca"]);
    let other = Folder::new();
    other.openssl(&format!("req -x509 {P256} -keyout key.pem -out ca.pem -subj /CN=other"));
    // One that bears the same name, as a CA does that was made anew.
    let namesake = Folder::with_certs(&["--ca"]);
    for (flag, _) in VERSIONS {
        let (_server, port) = mirror(&folder, &format!("{flag} -cert cert.pem -key key.pem"));
        let line = format!("--cert {}", other.path("ca.pem"));
        folder.does_not_connect(&port, &line, &["issued by nobody that is trusted", "in --cert"]);
        folder.does_not_connect(&port, "", &["issued by nobody that is trusted", "in --cert"]);
        let line = format!("--cert {}", namesake.path("ca.pem"));
        folder.does_not_connect(&port, &line, &["issued by nobody that is trusted"]);

        let named = "--cert ca.pem --server-name other.example";
        folder.does_not_connect(
            &port,
            named,
            &["other.example", "localhost", "--server-name", "--no-verify-hostname"],
        );
        folder.connects(&port, &format!("{named} --no-verify-hostname"));
        // Whatever the name, the issuer still counts.
        let line = format!("--cert {} --no-verify-hostname", other.path("ca.pem"));
        folder.does_not_connect(&port, &line, &["issued by nobody that is trusted"]);
    }
}

#[test]
fn the_server_name_is_asked_for_and_looked_for() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&["--ca", "--host", "named.example"]);
    // Who does not ask for the second name gets a certificate that nobody trusts.
    let other = Folder::with_certs(&[]);
    let (cert, key) = (other.path("cert.pem"), other.path("key.pem"));
    let (_server, port) = mirror(
        &folder,
        &format!("-cert {cert} -key {key} -servername named.example -cert2 cert.pem -key2 key.pem"),
    );
    folder.connects(&port, "--cert ca.pem --server-name named.example");
    folder.does_not_connect(&port, "--cert ca.pem", &["issued by nobody that is trusted"]);
}

#[test]
fn a_chain_that_has_expired_is_refused() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&["--ca"]);
    folder.prepare_authority();
    request(&folder, "old", "-addext subjectAltName=DNS:localhost");
    folder.authority(&format!("-in old.csr -out old.pem {EXPIRED}"));
    for (flag, _) in VERSIONS {
        let (_server, port) = mirror(&folder, &format!("{flag} -cert old.pem -key old-key.pem"));
        folder.does_not_connect(&port, "--cert ca.pem", &["has expired"]);
        folder.does_not_connect(&port, "--cert ca.pem --no-verify-hostname", &["has expired"]);
    }
}

const EXPIRED: &str = "-startdate 200101000000Z -enddate 210101000000Z";
const P256: &str = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";

/// Makes a key and a request for a certificate.
fn request(folder: &Folder, name: &str, more: &str) {
    folder.openssl(&format!(
        "req -new {P256} -keyout {name}-key.pem -out {name}.csr -subj /CN=localhost {more}"
    ));
}

/// Makes certificates signed by themselves, each with something that a chain would not be let
/// off.
fn odd_certificates(folder: &Folder) -> Vec<&'static str> {
    let own = |name: &str, subject: &str, extension: &str| {
        folder.openssl(&format!(
            "req -x509 {P256} -keyout {name}-key.pem -out {name}.pem -days 30 -subj /CN={subject} \
             -addext {extension}"
        ));
    };
    let localhost = "subjectAltName=DNS:localhost";
    own("authority", "localhost", localhost);
    own("common-name", "localhost", "keyUsage=digitalSignature");
    own("other-name", "other.example", "subjectAltName=DNS:other.example,IP:192.0.2.1");
    own("for-clients", "localhost", "extendedKeyUsage=clientAuth");

    request(folder, "expired", &format!("-addext {localhost}"));
    folder.prepare_authority();
    folder.openssl(&format!(
        "ca -batch -config ca.cnf -selfsign -keyfile expired-key.pem -in expired.csr \
         -out expired.pem -notext {EXPIRED}"
    ));
    request(folder, "version-1", "");
    folder.openssl("x509 -req -in version-1.csr -signkey version-1-key.pem -out version-1.pem");

    for (name, what) in [
        ("authority", "CA:TRUE"),
        ("for-clients", "TLS Web Client Authentication"),
        ("version-1", "Version: 1 "),
    ] {
        let text = folder.openssl(&format!("x509 -in {name}.pem -noout -text"));
        assert!(text.contains(what), "{text}");
    }
    vec!["authority", "common-name", "other-name", "for-clients", "expired", "version-1"]
}

#[test]
fn a_certificate_that_is_trusted_itself_is_taken_as_it_is_and_no_other_of_its_kind() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&[]);
    let names = odd_certificates(&folder);
    for (i, name) in names.iter().enumerate() {
        let other = names[(i + 1) % names.len()];
        for (flag, _) in VERSIONS {
            let key = format!("{flag} -cert {name}.pem -key {name}-key.pem");
            let (_server, port) = mirror(&folder, &key);
            folder.connects(&port, &format!("--cert {name}.pem"));
            folder.does_not_connect(&port, &format!("--cert {other}.pem"), &["TLS handshake"]);
            folder.does_not_connect(&port, "--cert cert.pem", &["TLS handshake"]);
            if *name == "expired" {
                let strict = format!("--cert {name}.pem --strict-validity");
                folder.does_not_connect(&port, &strict, &["has expired"]);
            }
        }
    }
}

#[test]
fn a_server_that_does_not_have_the_key_of_the_trusted_certificate_is_refused() {
    if !are_here(&["openssl", "java", "keytool"]) {
        return;
    }
    let folder = Folder::with_certs(&[]);
    let thief = Folder::with_certs(&[]);
    folder.write("Impostor.java", include_str!("java/Impostor.java"));
    // Java lets a server show whatever certificate it likes, whichever key it has.
    let (own, shown) = (thief.path("cert.pem"), folder.path("cert.pem"));
    let line = format!("Impostor.java {} changeit {own} {shown}", thief.path("keystore.p12"));
    let mut server = Talk::start(folder.tool("java", &line));
    for _version in ["TLSv1.2", "TLSv1.3"] {
        for (certificate, is_honest) in [(&own, true), (&shown, false)] {
            let ready = server.until("listening on ");
            let port = ready.strip_prefix("listening on ").unwrap();
            let trusted = format!("--cert {certificate}");
            if is_honest {
                folder.connects(port, &trusted);
            } else {
                let problem = "does not have the key of the certificate";
                folder.does_not_connect(port, &trusted, &[problem]);
            }
        }
    }
}

#[test]
fn a_server_that_speaks_no_tls_is_told() {
    let folder = Folder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"220 mail.example greets you\r\n").unwrap();
        // Until the client has gone.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    folder.does_not_connect(&port, "", &["TLS handshake", "does not speak TLS"]);
    server.join().unwrap();

    // Which gets its own greeting back.
    let server = support::Server::start(&["echo"]);
    folder.does_not_connect(&server.port(), "", &["TLS handshake", &server.port()]);
    server.stop();
}

#[test]
fn a_server_that_does_not_answer_is_given_up_and_the_flag_is_named() {
    let folder = Folder::new();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port().to_string();
    let line = "--handshake-timeout 0.2 --connect-timeout 20";
    folder.does_not_connect(&port, line, &["TLS handshake", "--handshake-timeout"]);
}
