//! SIGHUP: a server reads its certificates, keys and lists again.

mod support;

use std::fs;
use std::thread;

use support::tls::{CERT, Folder, Talk, VERSIONS, are_here, assert_parts, next_end};
use support::{Server, Signal};

/// Puts the certificate of `from` in the place of that of `to`.
fn replace(to: &Folder, from: &Folder) {
    for name in ["cert.pem", "key.pem"] {
        // At once, as a careful administrator does it.
        fs::copy(from.path(name), to.path("new")).unwrap();
        fs::rename(to.path("new"), to.path(name)).unwrap();
    }
}

fn strict(flags: &str, certificate: &str) -> String {
    format!("{flags} -verify_return_error -CAfile {certificate}")
}

/// Starts a client that takes no other certificate than `certificate`.
fn client(folder: &Folder, server: &Server, flags: &str, certificate: &str) -> Talk {
    folder.s_client(server, &strict(flags, certificate))
}

#[test]
fn new_connections_get_the_new_certificate_and_old_ones_live_on() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&[]);
    let (first, second) = (Folder::with_certs(&[]), Folder::with_certs(&[]));
    replace(&folder, &first);
    let server = folder.serve(CERT);
    let mut old: Vec<_> = VERSIONS
        .iter()
        .map(|(flag, _)| client(&folder, &server, flag, &first.path("cert.pem")))
        .collect();
    old.iter_mut().for_each(Talk::echo);

    replace(&folder, &second);
    // Nothing is read before the signal.
    let mut before = client(&folder, &server, "", &first.path("cert.pem"));
    before.echo();
    server.signal(Signal::HUP);
    server.log().find(r#""event":"reloaded""#);
    for (flag, _) in VERSIONS {
        let mut new = client(&folder, &server, flag, &second.path("cert.pem"));
        new.echo();
        new.finished();
        client(&folder, &server, flag, &first.path("cert.pem")).failed();
    }
    for mut client in old.into_iter().chain([before]) {
        client.echo();
        client.finished();
    }
    server.stop();
}

#[test]
fn a_bad_file_changes_nothing_and_is_told() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&["--ca"]);
    let other = Folder::with_certs(&[]);
    let (certificate, key) = (folder.read("cert.pem"), folder.read("key.pem"));
    folder.write("good.pem", &certificate);
    let server = folder.serve(&format!("{CERT} --client-ca ca.pem --client-auth optional"));
    for (file, content, part) in [
        ("cert.pem", &certificate[..100], "CERTIFICATE"),
        ("cert.pem", "", "is empty"),
        ("key.pem", "no key", "no private key"),
        ("key.pem", &other.read("key.pem"), "do not belong together"),
        ("ca.pem", &key, "no certificate"),
    ] {
        let good = folder.read(file);
        folder.write(file, content);
        server.signal(Signal::HUP);
        let line = server.log().find(r#""event":"reload_failed""#);
        assert_parts(&line, &[r#""level":"ERROR""#, file, part]);
        assert!(!line.contains("no key"), "{line}");
        let mut client = client(&folder, &server, "", "good.pem -partial_chain");
        client.echo();
        client.finished();
        folder.write(file, good);
    }
    fs::remove_file(folder.path("key.pem")).unwrap();
    server.signal(Signal::HUP);
    server.log().find(r#""event":"reload_failed""#);
    folder.write("key.pem", key);
    server.signal(Signal::HUP);
    server.log().find(r#""event":"reloaded""#);
    server.stop();
}

#[test]
fn no_handshake_fails_while_certificates_change() {
    if !are_here(&["openssl"]) {
        return;
    }
    const RELOADS: usize = 20;
    const HANDSHAKES: usize = 200;
    let folder = Folder::with_certs(&[]);
    let kinds = [Folder::with_certs(&[]), Folder::with_certs(&["--key-type", "p384"])];
    let both: String = kinds.iter().map(|folder| folder.read("cert.pem")).collect();
    folder.write("both.pem", both);
    replace(&folder, &kinds[0]);
    let server = folder.serve(CERT);
    thread::scope(|scope| {
        let handshakes = |version: &'static str| {
            let (folder, addr) = (&folder, server.addr);
            scope.spawn(move || {
                for _ in 0..HANDSHAKES / 2 {
                    // It ends as soon as the handshake is done, and fails where that fails.
                    folder.s_client_to(addr, &strict(version, "both.pem")).finished();
                }
            })
        };
        let running = VERSIONS.map(|(version, _)| handshakes(version));
        let mut count = 0;
        while running.iter().any(|thread| !thread.is_finished()) || count < RELOADS {
            count += 1;
            replace(&folder, &kinds[count % 2]);
            server.signal(Signal::HUP);
            // Bad files would be told before good ones.
            let line = server.log().find(r#""event":"reload"#);
            assert_parts(&line, &[r#""event":"reloaded""#]);
        }
    });
    let mut last = client(&folder, &server, "", "both.pem");
    last.echo();
    last.finished();
    server.stop();
}

#[test]
fn a_session_of_before_is_not_resumed_once_other_clients_are_trusted() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&["--ca"]);
    let other = Folder::with_certs(&["--ca"]);
    folder.write("trusted.pem", folder.read("ca.pem"));
    let server = folder.serve(&format!("{CERT} --client-ca trusted.pem"));
    let kinds = [("a", "-tls1_2"), ("b", "-tls1_2 -no_ticket"), ("c", "-tls1_3")];
    let files = "ca.pem -cert client.pem -key client-key.pem";
    for (name, flags) in kinds {
        for (file, result) in [("-sess_out", "New, "), ("-sess_in", "Reused, ")] {
            let mut client = client(&folder, &server, &format!("{flags} {file} {name}"), files);
            client.echo();
            assert_parts(&client.finished(), &[&format!("\n{result}")]);
            next_end(&server);
        }
    }
    folder.write("trusted.pem", other.read("ca.pem"));
    server.signal(Signal::HUP);
    server.log().find(r#""event":"reloaded""#);
    for (name, flags) in kinds {
        let told = client(&folder, &server, &format!("{flags} -sess_in {name}"), files).failed();
        assert!(!told.contains("Reused, "), "{told}");
        assert_eq!(next_end(&server).0, "handshake_failed");
    }
    server.stop();
}

#[test]
fn a_session_of_before_is_not_resumed_once_its_certificate_is_revoked() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&["--ca"]);
    folder.prepare_authority();
    folder.authority("-gencrl -out crl.pem");
    let server = folder.serve(&format!("{CERT} --client-ca ca.pem --crl crl.pem"));
    let files = "ca.pem -cert client.pem -key client-key.pem";
    let mut first = client(&folder, &server, "-tls1_3 -sess_out session", files);
    first.echo();
    first.finished();
    next_end(&server);
    folder.authority("-revoke client.pem");
    folder.authority("-gencrl -out crl.pem");
    server.signal(Signal::HUP);
    server.log().find(r#""event":"reloaded""#);
    client(&folder, &server, "-tls1_3 -sess_in session", files).failed();
    let (reason, error) = next_end(&server);
    assert!(reason == "handshake_failed" && error.contains("revoked"), "{reason}: {error}");
    server.stop();
}
