//! A server with TLS, as `openssl s_client` sees it.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;

use support::Signal;
use support::tls::{CERT, Folder, VERSIONS, are_here, assert_parts, next_end};

/// What makes s_client as strict as a client should be.
const STRICT: &str = "-verify_return_error -verify_hostname localhost -CAfile";

#[test]
fn s_client_verifies_the_server_gets_its_echo_and_both_end_in_order() {
    if !are_here(&["openssl"]) {
        return;
    }
    for (ca, kind) in [("ca.pem", &["--ca"][..]), ("cert.pem", &[])] {
        let folder = Folder::with_certs(kind);
        let server = folder.serve(CERT);
        assert!(server.is_secured, "the ready line does not say that this is TLS");
        for (flag, version) in VERSIONS {
            let mut client = folder.s_client(&server, &format!("{flag} {STRICT} {ca}"));
            client.echo();
            let told = client.finished();
            assert_parts(&told, &["Verification: OK", &format!("New, {version}, Cipher is ")]);
            assert_eq!(next_end(&server), ("peer_closed".to_owned(), String::new()));
        }
        server.stop();
    }
}

#[test]
fn a_server_that_stops_says_so_before_it_closes() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&[]);
    for (flag, _) in VERSIONS {
        let mut server = folder.serve(CERT);
        let mut client = folder.s_client(&server, &format!("{flag} -msg {STRICT} cert.pem"));
        client.echo();
        server.signal(Signal::TERM);
        let (code, told) = client.ended();
        assert_eq!(code, Some(0), "{told}");
        let (_, end) = told.rsplit_once("ping-pong").unwrap();
        let (from_server, _) = end.split_once("warning close_notify").unwrap();
        assert!(from_server.contains("<<<") && !from_server.contains(", Alert >>>"), "{end}");
        assert!(end.contains("closed") && !end.contains("unexpected eof"), "{end}");
        assert_eq!(server.exit_code(), Some(0));
        assert_eq!(next_end(&server).0, "drained");
    }
}

#[test]
fn a_client_that_is_cut_off_is_told_apart_from_one_that_ends() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(CERT);
    for (flag, _) in VERSIONS {
        let mut client = folder.s_client(&server, &format!("{flag} {STRICT} cert.pem"));
        client.echo();
        client.kill();
        let (reason, error) = next_end(&server);
        assert_eq!(reason, "truncated", "{error}");
        assert!(error.contains("close_notify"), "{error}");
    }
    server.stop();
}

#[test]
fn much_data_comes_back_whole() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(CERT);
    for (flag, _) in VERSIONS {
        let mut client = folder.s_client(&server, &format!("{flag} {STRICT} cert.pem"));
        let line = format!("{}\n", "0123456789abcdef".repeat(500));
        for _ in 0..100 {
            client.send(&line);
        }
        client.send("the end\n");
        client.until("the end");
        let told = client.finished();
        assert_eq!(told.matches("0123456789abcdef").count(), 50_000);
    }
    server.stop();
}

#[test]
fn the_key_log_has_the_form_that_wireshark_reads_and_is_the_owners_alone() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(&format!("{CERT} --key-log-file keys.log"));
    let warning = server.log().find(r#""event":"tls_warning""#);
    assert_parts(&warning, &["keys.log", "read"]);
    for (flag, _) in VERSIONS {
        let line = format!("{flag} -keylogfile theirs.log {STRICT} cert.pem");
        let mut client = folder.s_client(&server, &line);
        client.echo();
        client.finished();
    }
    let mode = fs::metadata(folder.path("keys.log")).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode, 0o600);
    let (ours, theirs) = (folder.read("keys.log"), folder.read("theirs.log"));
    for line in ours.lines() {
        let words: Vec<_> = line.split(' ').collect();
        let is_hex = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit());
        assert!(words.len() == 3 && words[1].len() == 64, "{line}");
        assert!(is_hex(words[1]) && is_hex(words[2]), "{line}");
    }
    for label in ["CLIENT_RANDOM ", "CLIENT_TRAFFIC_SECRET_0 ", "SERVER_TRAFFIC_SECRET_0 "] {
        let of = |log: &str| {
            let line = log.lines().find(|line| line.starts_with(label));
            line.unwrap_or_else(|| panic!("{label}: {log}")).to_ascii_lowercase()
        };
        assert_eq!(of(&ours), of(&theirs));
    }
    server.stop();
}

#[test]
fn a_protocol_that_both_have_is_agreed_on_and_none_in_common_is_refused() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(&format!("{CERT} --alpn second/1,first/1"));
    for (flag, _) in VERSIONS {
        for (offered, agreed) in [("first/1", "first/1"), ("first/1,second/1", "second/1")] {
            let line = format!("{flag} -alpn {offered} {STRICT} cert.pem");
            let mut client = folder.s_client(&server, &line);
            client.echo();
            assert_parts(&client.finished(), &[&format!("ALPN protocol: {agreed}\n")]);
            next_end(&server);
        }
        let line = format!("{flag} -alpn other/1 {STRICT} cert.pem");
        let told = folder.s_client(&server, &line).failed();
        assert_parts(&told, &["no application protocol", "SSL alert number 120"]);
        let (reason, error) = next_end(&server);
        assert!(reason == "handshake_failed" && error.contains("alpn"), "{reason}: {error}");
        // Who offers none at all has no wish, and is served.
        let mut client = folder.s_client(&server, &format!("{flag} {STRICT} cert.pem"));
        client.echo();
        assert_parts(&client.finished(), &["No ALPN negotiated"]);
        next_end(&server);
    }
    server.stop();
}

#[test]
fn the_server_name_chooses_the_certificate() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&["--host", "default.example"]);
    for host in ["one.example", "*.many.example"] {
        let name = host.trim_start_matches("*.");
        let args = ["certs", "--out", name, "--host", host];
        assert!(support::run(folder.onbytes(&args)).status.success());
    }
    let server = folder.serve(&format!(
        "{CERT} --sni-cert one.example/cert.pem,one.example/key.pem \
         --sni-cert many.example/cert.pem,many.example/key.pem"
    ));
    for (asked, file) in [
        ("-servername one.example", "one.example/cert.pem"),
        ("-servername ONE.example", "one.example/cert.pem"),
        ("-servername a.many.example", "many.example/cert.pem"),
        ("-servername default.example", "cert.pem"),
        ("-servername other.example", "cert.pem"),
        ("-noservername", "cert.pem"),
    ] {
        for (flag, _) in VERSIONS {
            // With no other certificate than the expected one does verification succeed.
            let line = format!("{flag} {asked} -verify_return_error -CAfile {file}");
            let mut client = folder.s_client(&server, &line);
            client.echo();
            assert_parts(&client.finished(), &["Verification: OK"]);
        }
    }
    server.stop();
}

#[test]
fn the_cipher_suites_and_versions_that_are_given_are_served_and_no_others() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&[]);
    let agreed = |args: &str, asked: &str| {
        let server = folder.serve(&format!("{CERT} {args}"));
        let mut client = folder.s_client(&server, &format!("{asked} {STRICT} cert.pem"));
        client.echo();
        let told = client.finished();
        let line = told.lines().find(|line| line.starts_with("New, ")).unwrap().to_owned();
        server.stop();
        line
    };
    let gcm = "New, TLSv1.2, Cipher is ECDHE-ECDSA-AES128-GCM-SHA256";
    for name in ["ECDHE-ECDSA-AES128-GCM-SHA256", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"] {
        assert_eq!(agreed(&format!("--ciphers {name}"), ""), gcm);
    }
    let two = "ECDHE-ECDSA-AES128-GCM-SHA256,ECDHE-ECDSA-AES256-GCM-SHA384";
    let theirs = "-cipher ECDHE-ECDSA-AES256-GCM-SHA384:ECDHE-ECDSA-AES128-GCM-SHA256";
    let theirs_first = "New, TLSv1.2, Cipher is ECDHE-ECDSA-AES256-GCM-SHA384";
    assert_eq!(agreed(&format!("--ciphers {two}"), theirs), theirs_first);
    assert_eq!(agreed(&format!("--ciphers {two} --prefer-server-ciphers"), theirs), gcm);
    let line = agreed("--ciphers TLS_CHACHA20_POLY1305_SHA256", "");
    assert_eq!(line, "New, TLSv1.3, Cipher is TLS_CHACHA20_POLY1305_SHA256");

    for (versions, good, bad) in [("TLSv1.2", 0, 1), ("TLSv1.3", 1, 0)] {
        let server = folder.serve(&format!("{CERT} --tls-versions {versions}"));
        let mut client = folder.s_client(&server, VERSIONS[good].0);
        client.echo();
        assert_parts(&client.finished(), &[&format!("New, {versions}, ")]);
        next_end(&server);
        let told = folder.s_client(&server, VERSIONS[bad].0).failed();
        assert_parts(&told, &["alert protocol version"]);
        let (reason, error) = next_end(&server);
        assert!(reason == "handshake_failed" && error.contains("version"), "{reason}: {error}");
        server.stop();
    }

    let server = folder.serve(&format!("{CERT} --ciphers ECDHE-ECDSA-AES128-GCM-SHA256"));
    let line = "-tls1_2 -cipher ECDHE-ECDSA-AES256-GCM-SHA384";
    assert_parts(&folder.s_client(&server, line).failed(), &["alert handshake failure"]);
    let (reason, error) = next_end(&server);
    assert!(reason == "handshake_failed" && error.contains("cipher suite"), "{reason}: {error}");
    for old in ["-tls1", "-tls1_1"] {
        let line = format!("{old} -cipher ALL:@SECLEVEL=0");
        assert_parts(&folder.s_client(&server, &line).failed(), &["SSL alert number"]);
        assert_eq!(next_end(&server).0, "handshake_failed");
    }
    server.stop();
}

#[test]
fn an_ocsp_response_is_stapled() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&["--ca"]);
    folder.prepare_authority();
    folder.authority("-valid cert.pem");
    folder.openssl("ocsp -issuer ca.pem -cert cert.pem -reqout asked.der");
    folder.openssl(
        "ocsp -index index.txt -CA ca.pem -rsigner ca.pem -rkey ca-key.pem -ndays 7 \
         -reqin asked.der -respout answer.der",
    );
    for (ocsp, parts) in [
        ("--ocsp-file answer.der", &["OCSP Response Status: successful", "Cert Status: good"][..]),
        ("", &["OCSP response: no response sent"]),
    ] {
        let server = folder.serve(&format!("{CERT} {ocsp}"));
        for (flag, _) in VERSIONS {
            let line = format!("{flag} -status {STRICT} ca.pem");
            let mut client = folder.s_client(&server, &line);
            client.echo();
            assert_parts(&client.finished(), parts);
        }
        server.stop();
    }
}
