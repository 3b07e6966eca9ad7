//! What is wrong with certificates, keys, stores and the flags about them: one line that names the
//! flag, the file and the way out, before a port is opened.

mod support;

use support::tls::{CERT, Folder, SECRET, are_here, assert_parts};
use support::{one_line, run};

/// Asserts that a command line of the program's fails with `code`, and returns its one line.
#[track_caller]
fn fails(folder: &Folder, args: &str, code: i32, parts: &[&str]) -> String {
    let args: Vec<_> = args.split(' ').map(|arg| if arg == "''" { "" } else { arg }).collect();
    let output = run(folder.onbytes(&args));
    assert!(output.stdout.is_empty(), "{args:?}: it was ready");
    let line = one_line_of(&output);
    assert_eq!(output.status.code(), Some(code), "{args:?}: {line}");
    assert_parts(&line, parts);
    assert!(!line.contains(SECRET) && !line.contains("changeit"), "{line}");
    for word in ["panicked", "cert_file", "key_file", "key_password", "crl_files", "ocsp_file"] {
        assert!(!line.contains(word), "{line}");
    }
    line
}

/// A list of all suites is longer than other messages.
fn one_line_of(output: &std::process::Output) -> String {
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("TLS_ECDHE_RSA") {
        assert!(text.starts_with("onbytes: ") && text.matches('\n').count() == 1, "{text}");
        return text.trim_end().to_owned();
    }
    one_line(output)
}

/// A port that is taken. That it is would be told, if it came to that.
struct Taken(std::net::TcpListener);

impl Taken {
    fn new() -> Self {
        Self(std::net::TcpListener::bind("127.0.0.1:0").unwrap())
    }

    fn serve(&self, flags: &str) -> String {
        format!("serve echo --listen {} {flags}", self.0.local_addr().unwrap())
    }
}

#[test]
fn a_file_that_cannot_be_used_is_told_with_exit_code_1() {
    let folder = Folder::with_certs(&[]);
    let other = Folder::with_certs(&[]);
    let (cert, key) = (folder.read("cert.pem"), folder.read("key.pem"));
    folder.write("empty", "");
    folder.write("garbage", "garbage");
    folder.write("cut.pem", &cert[..cert.len() / 2]);
    folder.write("bent.pem", cert.replacen("MII", "MIJ", 1));
    folder.write("no-base64.pem", cert.replacen("MII", "M?I", 1));
    folder.write("cut-key.pem", &key[..key.len() / 2]);
    folder.write("two-keys.pem", key.repeat(2));
    folder.write("other-key.pem", other.read("key.pem"));
    folder.write("old.pem", OLD_KEY);
    let store = std::fs::read(folder.path("keystore.p12")).unwrap();
    folder.write("cut.p12", &store[..store.len() / 2]);
    folder.write("java.jceks", b"\xce\xce\xce\xce\0\0\0\x02\0\0\0\0");
    let taken = Taken::new();

    for (name, problem) in [
        ("missing", "does not exist"),
        (".", "is a directory"),
        ("empty", "is empty"),
        ("garbage", "holds no certificate: it is neither PEM nor DER"),
        ("cut.pem", "the end of its CERTIFICATE block is missing"),
        ("bent.pem", "damaged"),
        ("no-base64.pem", ""),
        ("key.pem", "holds no certificate, but a private key"),
        ("keystore.p12", "is a PKCS#12 store; give it to --key-store"),
        ("/dev/zero", ""),
    ] {
        let flags = format!("--cert-file {name} --key-file key.pem");
        let line = fails(&folder, &taken.serve(&flags), 1, &["--cert-file", name, problem]);
        assert!(line.contains("; give "), "no way out: {line}");
        // The same file and the same words, under other flags.
        let flags = format!("--cert-file cert.pem --key-file key.pem --client-ca {name}");
        let problem = problem.split(';').next().unwrap();
        let line = fails(&folder, &taken.serve(&flags), 1, &["--client-ca", name, problem]);
        assert!(line.contains("; give "), "no way out: {line}");
        let args = format!("connect localhost 1 --tls --cert {name}");
        let line = fails(&folder, &args, 1, &["--cert", name, problem]);
        assert!(line.contains("; give "), "no way out: {line}");
    }
    for (name, problem) in [
        ("missing", "does not exist"),
        ("empty", "is empty"),
        ("garbage", "holds no private key: it is neither PEM nor DER"),
        ("cert.pem", "holds no private key, but a certificate"),
        ("cut-key.pem", "the end of its PRIVATE KEY block is missing"),
        ("two-keys.pem", "2 private keys"),
        ("other-key.pem", "do not belong together; give the key of that certificate"),
        ("old.pem", "openssl pkcs8 -topk8"),
        ("keystore.p12", "is a PKCS#12 store; give it to --key-store"),
    ] {
        let flags = format!("--cert-file cert.pem --key-file {name}");
        let line = fails(&folder, &taken.serve(&flags), 1, &["--key-file", name, problem]);
        assert!(line.contains("; "), "no way out: {line}");
        let flags = format!("--client-cert cert.pem --client-key {name}");
        let args = format!("connect localhost 1 --tls --cert cert.pem {flags}");
        let problem = problem.split(';').next().unwrap();
        let line = fails(&folder, &args, 1, &["--client-key", name, problem]);
        assert!(line.contains("; "), "no way out: {line}");
    }
    let password = format!("--key-store-password {SECRET}");
    for (name, problem) in [
        ("missing", "does not exist"),
        ("empty", "is empty"),
        ("garbage", "is neither PKCS#12 nor JKS"),
        ("cert.pem", "is a PEM file; use --cert-file and --key-file"),
        ("cut.p12", "is damaged"),
        ("keystore.p12", "wrong password, or the file is damaged"),
        ("java.jceks", "JCEKS"),
    ] {
        let flags = format!("--key-store {name} {password}");
        let line = fails(&folder, &taken.serve(&flags), 1, &["--key-store", name, problem]);
        assert!(line.contains("; "), "no way out: {line}");
    }
    for (flags, parts) in [
        ("--key-store truststore.p12", &["truststore.p12", "holds no private key"][..]),
        ("--key-store keystore.p12 --key-alias nobody", &["'nobody'", "it has: server"]),
    ] {
        let mut command = folder.onbytes(&taken.serve(flags).split(' ').collect::<Vec<_>>());
        command.env("ONBYTES_KEY_STORE_PASSWORD", "changeit");
        let output = run(command);
        let line = one_line(&output);
        assert_eq!(output.status.code(), Some(1), "{line}");
        assert_parts(&line, &[&["--key-store"], parts, &["; give "]].concat());
    }
    for (flags, parts) in [
        ("--client-ca cert.pem --crl missing", &["--crl", "missing"][..]),
        ("--client-ca cert.pem --crl garbage", &["--crl", "garbage"]),
        ("--client-ca cert.pem --crl cert.pem", &["--crl", "cert.pem", "but a certificate"]),
        ("--ocsp-file missing", &["--ocsp-file", "missing"]),
        ("--ocsp-file garbage", &["--ocsp-file", "garbage", "no OCSP response"]),
        ("--sni-cert missing,key.pem", &["missing", "does not exist"]),
        ("--sni-cert cert.pem,other-key.pem", &["other-key.pem", "do not belong together"]),
        ("--key-log-file missing/log", &["--key-log-file", "missing/log"]),
        ("--key-log-file .", &["--key-log-file", "irectory"]),
        ("--ciphers ECDHE-RSA-AES128-GCM-SHA256", &["--ciphers", "ECDSA"]),
    ] {
        let line = fails(&folder, &taken.serve(&format!("{CERT} {flags}")), 1, parts);
        assert!(line.contains("; give "), "no way out: {line}");
    }
    let flags = "--key-store keystore.p12 --key-store-password-file missing";
    fails(&folder, &taken.serve(flags), 1, &["--key-store-password-file", "missing", "first line"]);
}

/// What OpenSSL wrote before it had PKCS#8.
const OLD_KEY: &str = "-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,C5A1B2B7D1F4F0BFD4FC0B1C7F0F1D2E

qnqWQEDCsA==
-----END EC PRIVATE KEY-----
";

#[test]
fn a_key_that_does_not_open_or_is_too_weak_is_told_and_the_password_is_not() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&[]);
    let taken = Taken::new();
    folder.openssl("pkcs8 -topk8 -in key.pem -passout pass:changeit -out encrypted.pem");
    let flags = "--cert-file cert.pem --key-file encrypted.pem";
    let parts = ["--key-file", "encrypted.pem", "is encrypted; give --key-password"];
    fails(&folder, &taken.serve(flags), 1, &parts);
    let parts = ["wrong --key-password", "encrypted.pem", "give the right one"];
    fails(&folder, &taken.serve(&format!("{flags} --key-password {SECRET}")), 1, &parts);

    let flags = "--tls --client-cert cert.pem --client-key encrypted.pem";
    let connect = format!("connect localhost 1 {flags}");
    let parts = ["--client-key", "encrypted.pem", "is encrypted; give --client-key-password"];
    fails(&folder, &connect, 1, &parts);
    let parts = ["wrong --client-key-password", "encrypted.pem", "give the right one"];
    fails(&folder, &format!("{connect} --client-key-password {SECRET}"), 1, &parts);

    folder.openssl(
        "req -x509 -newkey rsa:1024 -nodes -subj /CN=localhost -keyout short.pem -out short-cert.pem",
    );
    let parts = ["--key-file", "short.pem", "1024 bits is too short", "2048"];
    fails(&folder, &taken.serve("--cert-file short-cert.pem --key-file short.pem"), 1, &parts);
    folder.openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:secp256k1 -nodes -subj /CN=localhost \
         -keyout curve.pem -out curve-cert.pem",
    );
    let parts = ["--key-file", "curve.pem", "secp256k1"];
    fails(&folder, &taken.serve("--cert-file curve-cert.pem --key-file curve.pem"), 1, &parts);
}

#[test]
fn a_value_that_cannot_be_is_told_with_exit_code_2() {
    let folder = Folder::with_certs(&[]);
    let taken = Taken::new();
    let long = "a".repeat(256);
    for (flags, parts) in [
        ("--ciphers FOO", &["--ciphers", "'FOO'", "TLS_AES_128_GCM_SHA256"][..]),
        ("--ciphers AES128-SHA", &["--ciphers", "TLS_RSA_WITH_AES_128_CBC_SHA", "accepted: "]),
        ("--ciphers ''", &["--ciphers", "accepted: "]),
        ("--tls-versions TLSv1.4", &["--tls-versions", "'TLSv1.4'", "TLSv1.2, TLSv1.3"]),
        ("--tls-versions SSLv3", &["--tls-versions", "'SSLv3'", "TLSv1.2, TLSv1.3"]),
        ("--tls-versions TLSv1.1", &["--tls-versions", "TLSv1.1", "give TLSv1.2, TLSv1.3"]),
        (
            "--tls-versions TLSv1.2 --ciphers TLS_AES_128_GCM_SHA256",
            &["--ciphers", "--tls-versions", "TLSv1.2 has: "],
        ),
        ("--handshake-timeout 0", &["--handshake-timeout", "'0'", "or off"]),
        ("--handshake-timeout never", &["--handshake-timeout", "'never'", "or off"]),
        ("--alpn ''", &["--alpn", "1 to 255 bytes"]),
        ("--alpn a,,b", &["--alpn", "1 to 255 bytes"]),
        (&format!("--alpn {long}"), &["--alpn", "1 to 255 bytes"]),
        ("--key-log-file ''", &["--key-log-file", "give a file"]),
    ] {
        let line = fails(&folder, &taken.serve(&format!("{CERT} {flags}")), 2, parts);
        assert!(line.contains("; ") || line.contains("accepted: "), "no way out: {line}");
        let args = format!("connect localhost 1 --tls --cert cert.pem {flags}");
        fails(&folder, &args, 2, parts);
    }
    for (flags, parts) in [
        ("--session-timeout 0", &["--session-timeout", "'0'", "1 to 604800"][..]),
        ("--session-timeout 604801", &["--session-timeout", "'604801'", "1 to 604800"]),
        ("--client-ca cert.pem --client-auth maybe", &["--client-auth", "required or optional"]),
        ("--sni-cert cert.pem", &["--sni-cert", "'cert.pem'", "a.pem,a-key.pem"]),
        ("--sni-cert ,key.pem", &["--sni-cert", "a.pem,a-key.pem"]),
        ("--max-handshakes 0", &["--max-handshakes", "'0'", "from 1 to"]),
    ] {
        fails(&folder, &taken.serve(&format!("{CERT} {flags}")), 2, parts);
    }
    for name in ["''", "a\tb", &"a".repeat(300)] {
        let args = format!("connect localhost 1 --tls --server-name {name}");
        fails(&folder, &args, 2, &["--server-name"]);
    }
}

#[test]
fn a_flag_that_misses_its_companion_or_has_one_too_many_is_told_with_exit_code_2() {
    let folder = Folder::with_certs(&[]);
    let taken = Taken::new();
    let password = format!("--key-store-password {SECRET}");
    for (flags, parts) in [
        ("--cert-file cert.pem", &["--cert-file needs --key-file"][..]),
        ("--key-file key.pem", &["--key-file needs --cert-file"]),
        ("--key-store keystore.p12", &["--key-store-password", "ONBYTES_KEY_STORE_PASSWORD"]),
        (&password, &["--key-store-password needs a certificate"]),
        (
            &format!("{CERT} --key-store keystore.p12 {password}"),
            &["--key-store is given beside --cert-file"],
        ),
        (&format!("{CERT} {password}"), &["--key-store-password goes with --key-store"]),
        (&format!("{CERT} --key-alias a"), &["--key-alias goes with --key-store"]),
        (&format!("{CERT} --crl a.pem"), &["--crl needs --client-ca"]),
        (&format!("{CERT} --client-auth optional"), &["--client-auth needs --client-ca"]),
        ("--client-ca cert.pem", &["--client-ca needs a certificate"]),
        ("--sni-cert cert.pem,key.pem", &["--sni-cert needs a certificate"]),
        ("--tls-versions TLSv1.3", &["--tls-versions needs a certificate"]),
        ("--alpn h2", &["--alpn needs a certificate"]),
        ("--session-timeout off", &["--session-timeout needs a certificate"]),
        ("--handshake-timeout 5", &["--handshake-timeout needs a certificate"]),
        ("--prefer-server-ciphers", &["--prefer-server-ciphers needs a certificate"]),
    ] {
        let line = fails(&folder, &taken.serve(flags), 2, parts);
        assert!(line.contains("; give ") || line.contains("; leave "), "no way out: {line}");
    }
    let password = format!("--client-key-store-password {SECRET}");
    for (flags, parts) in [
        ("--cert cert.pem", &["--cert needs --tls"][..]),
        ("--no-verify-hostname", &["--no-verify-hostname needs --tls"]),
        (&password, &["--client-key-store-password needs --tls"]),
        ("--tls --client-cert cert.pem", &["--client-cert needs --client-key"]),
        ("--tls --client-key key.pem", &["--client-key needs --client-cert"]),
        (
            "--tls --client-key-store keystore.p12",
            &["--client-key-store-password", "ONBYTES_CLIENT_KEY_STORE_PASSWORD"],
        ),
        (
            "--tls --trust-store truststore.p12",
            &["--trust-store-password", "ONBYTES_TRUST_STORE_PASSWORD"],
        ),
        (
            "--tls --cert cert.pem --trust-store truststore.p12",
            &["--cert and --trust-store are both given"],
        ),
        (
            &format!(
                "--tls --client-cert cert.pem --client-key key.pem --client-key-store a {password}"
            ),
            &["--client-key-store is given beside --client-cert"],
        ),
    ] {
        let line = fails(&folder, &format!("connect localhost 1 {flags}"), 2, parts);
        assert!(line.contains("; give "), "no way out: {line}");
    }
}
