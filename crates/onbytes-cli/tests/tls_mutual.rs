//! Servers that ask their clients for certificates.

mod support;

use std::process::{Command, Stdio};

use support::tls::{CERT, Folder, VERSIONS, all_of, are_here, assert_parts, next_end};
use support::{Server, finish, onbytes, run};

#[test]
fn the_commands_that_certs_prints_make_a_server_and_a_client_that_know_each_other() {
    let folder = Folder::new();
    let output = run(folder.onbytes(&["certs", "--ca", "--out", "my certs"]));
    let report = String::from_utf8(output.stdout).unwrap();
    let (_, next) = report.split_once("next:\n").unwrap();
    let commands: Vec<_> = next.lines().map(str::trim).collect();
    let [serve, connect] = commands[..] else { panic!("{report}") };

    let shell = |line: String| {
        // Nothing of the program itself, but the environment that is its own in tests.
        let mut command = Command::new("sh");
        let program = onbytes(&[]).get_program().to_owned();
        let line = line.replacen("onbytes ", "exec \"$PROGRAM\" ", 1);
        command.args(["-c", &line]).env("PROGRAM", program).env_remove("RUST_LOG");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        folder.here(command)
    };
    let server = Server::ready(shell(format!("{serve} --listen 127.0.0.1:0")));
    let mut client = shell(connect.replace(" 3000 ", &format!(" {} ", server.port())));
    let mut client = client.spawn().unwrap();
    std::io::Write::write_all(&mut client.stdin.take().unwrap(), b"hello\n").unwrap();
    let output = finish(client);
    assert!(output.status.success() && all_of(&output) == "hello\n", "{}", all_of(&output));
    server.stop();
}

#[test]
fn a_client_with_no_certificate_or_one_of_another_authority_is_refused() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&["--ca"]);
    let other = Folder::with_certs(&["--ca"]);
    let stranger = Folder::new();
    stranger.openssl(
        "req -x509 -newkey rsa:2048 -nodes -subj /CN=stranger -addext keyUsage=digitalSignature \
         -addext basicConstraints=CA:FALSE -keyout key.pem -out cert.pem",
    );
    let server = folder.serve(&format!("{CERT} --client-ca ca.pem"));
    let shown = |folder: &Folder, name: &str, key: &str| {
        format!("-cert {} -key {}", folder.path(name), folder.path(key))
    };
    for (flag, _) in VERSIONS {
        for (certificate, problem) in [
            (String::new(), "showed no certificate"),
            // Of an authority of the same name, of none at all, and not for clients.
            (shown(&other, "client.pem", "client-key.pem"), "issued by nobody"),
            (shown(&stranger, "cert.pem", "key.pem"), "issued by nobody that is trusted"),
            (shown(&folder, "cert.pem", "key.pem"), "not meant for clients"),
        ] {
            let line = format!("{flag} -CAfile ca.pem {certificate}");
            let told = folder.s_client(&server, &line).failed();
            assert_parts(&told, &["SSL alert number"]);
            let (reason, error) = next_end(&server);
            assert!(reason == "handshake_failed" && error.contains(problem), "{problem}: {error}");
        }
        let line = format!("{flag} -CAfile ca.pem -cert client.pem -key client-key.pem");
        let mut client = folder.s_client(&server, &line);
        client.echo();
        client.finished();
        assert_eq!(next_end(&server).0, "peer_closed");
    }
    // The program as the client says what is missing.
    let parts = ["wants a certificate", "--client-cert"];
    folder.does_not_connect(&server.port(), "--cert ca.pem", &parts);
    server.stop();
}

#[test]
fn a_client_certificate_that_is_trusted_itself_needs_no_authority() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&["--ca"]);
    let line = "req -x509 -newkey rsa:2048 -nodes -subj /CN=me -days 30";
    folder.openssl(&format!("{line} -keyout me-key.pem -out me.pem"));
    let server = folder.serve(&format!("{CERT} --client-ca me.pem"));
    for (flag, _) in VERSIONS {
        let line = format!("{flag} -CAfile ca.pem -cert me.pem -key me-key.pem");
        let mut client = folder.s_client(&server, &line);
        client.echo();
        client.finished();
        let line = format!("{flag} -CAfile ca.pem -cert client.pem -key client-key.pem");
        folder.s_client(&server, &line).failed();
    }
    server.stop();
}

#[test]
fn where_certificates_are_optional_none_will_do_but_not_a_wrong_one() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&["--ca"]);
    let other = Folder::with_certs(&[]);
    let server = folder.serve(&format!("{CERT} --client-ca ca.pem --client-auth optional"));
    for (flag, _) in VERSIONS {
        for shown in ["", "-cert client.pem -key client-key.pem"] {
            let line = format!("{flag} -CAfile ca.pem {shown}");
            let mut client = folder.s_client(&server, &line);
            client.echo();
            client.finished();
            assert_eq!(next_end(&server).0, "peer_closed");
        }
        let (cert, key) = (other.path("cert.pem"), other.path("key.pem"));
        let line = format!("{flag} -CAfile ca.pem -cert {cert} -key {key}");
        folder.s_client(&server, &line).failed();
        assert_eq!(next_end(&server).0, "handshake_failed");
    }
    server.stop();
}

#[test]
fn a_revoked_certificate_is_refused() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&["--ca"]);
    folder.prepare_authority();
    folder.authority("-gencrl -out none.pem");
    folder.openssl(
        "req -new -newkey rsa:2048 -nodes -keyout two-key.pem -out two.csr -subj /CN=2 \
         -addext extendedKeyUsage=clientAuth",
    );
    folder.authority("-in two.csr -out two.pem -notext");
    folder.authority("-revoke client.pem");
    folder.authority("-gencrl -out one.pem");
    folder.openssl("crl -in one.pem -outform DER -out one.der");
    for (list, is_revoked) in [("none.pem", false), ("one.pem", true), ("one.der", true)] {
        let server = folder.serve(&format!("{CERT} --client-ca ca.pem --crl {list}"));
        for (flag, _) in VERSIONS {
            let line = format!("{flag} -CAfile ca.pem -cert two.pem -key two-key.pem");
            let mut client = folder.s_client(&server, &line);
            client.echo();
            client.finished();
            assert_eq!(next_end(&server).0, "peer_closed");

            let line = format!("{flag} -CAfile ca.pem -cert client.pem -key client-key.pem");
            let mut client = folder.s_client(&server, &line);
            if is_revoked {
                assert_parts(&client.failed(), &["SSL alert number 44"]);
                let (reason, error) = next_end(&server);
                assert!(reason == "handshake_failed" && error.contains("revoked"), "{error}");
            } else {
                client.echo();
                client.finished();
                assert_eq!(next_end(&server).0, "peer_closed");
            }
        }
        server.stop();
    }
}
