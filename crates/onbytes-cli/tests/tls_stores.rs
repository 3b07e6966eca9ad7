//! Key stores, trust stores and encrypted keys that other programs have made.

mod support;

use std::process::Command;
use std::thread;

use support::tls::{CERT, Folder, SECRET, are_here};
use support::{Server, onbytes};

/// The program serving in a folder, with its secrets where `prepare` puts them.
fn serve(folder: &Folder, line: &str, prepare: impl Fn(&mut Command)) -> Server {
    let args = ["serve", "echo", "--listen", "127.0.0.1:0"];
    let args: Vec<_> = args.into_iter().chain(line.split_whitespace()).collect();
    let mut command = folder.here(onbytes(&args));
    prepare(&mut command);
    Server::ready(command)
}

/// Asserts that a server with these flags shows exactly `certificate`, and has its key.
#[track_caller]
fn serves(folder: &Folder, line: &str, certificate: &str) {
    assert_serves(folder, &serve(folder, line, |_| {}), certificate);
}

#[track_caller]
fn assert_serves(folder: &Folder, server: &Server, certificate: &str) {
    let line = format!("-verify_return_error -partial_chain -CAfile {certificate}");
    let mut client = folder.s_client(server, &line);
    client.echo();
    client.finished();
}

/// The keys of keytool: what to ask for, and under which name.
const KEYS: [(&str, &str); 4] = [
    ("rsa", "-keyalg RSA -keysize 2048"),
    ("p256", "-keyalg EC -groupname secp256r1"),
    ("p384", "-keyalg EC -groupname secp384r1"),
    ("ed25519", "-keyalg Ed25519"),
];

/// The stores of keytool.
const STORES: [(&str, &str); 3] = [
    ("p12", "-deststoretype PKCS12"),
    ("legacy.p12", "-J-Dkeystore.pkcs12.legacy -deststoretype PKCS12"),
    ("jks", "-deststoretype JKS"),
];

#[test]
fn stores_of_keytool_serve_each_entry_whatever_the_form_and_the_key() {
    if !are_here(&["keytool", "openssl"]) {
        return;
    }
    let folder = Folder::new();
    let made = "-storetype PKCS12 -keystore store.p12 -storepass changeit";
    for (key, algorithm) in KEYS {
        folder.keytool(&format!(
            "-genkeypair {made} -alias {key} {algorithm} -dname CN={key} -validity 30"
        ));
    }
    // What keytool shows of each is what openssl is to see.
    let shown = folder.keytool(&format!("-list -rfc {made}"));
    for entry in shown.split("Alias name: ").skip(1) {
        let (name, certificate) = entry.split_once('\n').unwrap();
        folder.write(&format!("{name}.pem"), certificate);
    }
    let import = "-importkeystore -srckeystore store.p12 -srcstorepass changeit";
    thread::scope(|scope| {
        for (form, store) in STORES.into_iter().skip(1) {
            let folder = &folder;
            let line = format!("{import} {store} -destkeystore store.{form}");
            scope.spawn(move || folder.keytool(&format!("{line} -deststorepass changeit")));
        }
    });
    folder.keytool(&format!(
        "{import} -srcalias p256 -destkeypass key-password -deststoretype JKS \
         -destkeystore other.jks -deststorepass changeit"
    ));
    for (key, _) in KEYS {
        for (form, _) in STORES {
            let flags = format!("--key-store store.{form} --key-store-password changeit");
            serves(&folder, &format!("{flags} --key-alias {key}"), &format!("{key}.pem"));
        }
    }
    let flags = "--key-store other.jks --key-store-password changeit --key-password key-password";
    serves(&folder, flags, "p256.pem");
}

/// What openssl needs for the old algorithms.
const OLD: &str = "-legacy -provider legacy -provider default";

/// Whether this OpenSSL has the old algorithms.
fn has_old(folder: &Folder) -> bool {
    let mut list = folder.tool("openssl", "list -providers -provider legacy -provider default");
    let has_old = list.output().is_ok_and(|output| output.status.success());
    if !has_old {
        eprintln!("SKIPPED: openssl has no legacy provider");
    }
    has_old
}

#[test]
fn stores_of_openssl_serve() {
    if !are_here(&["openssl"]) {
        return;
    }
    for kind in ["p256", "ed25519"] {
        let folder = Folder::with_certs(&["--key-type", kind]);
        let made = "-inkey key.pem -in cert.pem -passout pass:changeit";
        let mut forms = vec![
            "",
            "-name named",
            "-keypbe AES-128-CBC -certpbe AES-128-CBC -macalg SHA512",
            "-nomac",
            "-keypbe NONE -certpbe NONE",
        ];
        if has_old(&folder) {
            forms.push(OLD);
            forms.push("-legacy -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-RC2-40 -macalg SHA1");
        }
        for form in forms {
            folder.openssl(&format!("pkcs12 -export {made} -out store.p12 {form}"));
            serves(&folder, "--key-store store.p12 --key-store-password changeit", "cert.pem");
        }
    }
}

#[test]
fn stores_and_key_files_of_a_client_are_read_alike() {
    if !are_here(&["openssl", "keytool"]) {
        return;
    }
    let folder = Folder::with_certs(&["--ca"]);
    folder.keytool(
        "-importkeystore -srckeystore client.p12 -srcstorepass changeit -srcstoretype PKCS12 \
         -destkeystore client.jks -deststorepass changeit -deststoretype JKS",
    );
    folder.openssl("pkcs8 -topk8 -in client-key.pem -passout pass:changeit -out enc.pem");
    folder.write("password", "changeit\n");
    let server = folder.serve(&format!("{CERT} --client-ca ca.pem"));
    for flags in [
        "--client-key-store client.p12 --client-key-store-password changeit",
        "--client-key-store client.jks --client-key-store-password-file password",
        "--client-cert client.pem --client-key enc.pem --client-key-password changeit",
        "--client-cert client.pem --client-key enc.pem --client-key-password-file password",
    ] {
        let port = server.port();
        let line = format!("connect localhost {port} --tls --cert ca.pem {flags}");
        let line: Vec<_> = line.split_whitespace().collect();
        // It has nothing to send, and is told in the end whether it was let in.
        let output = support::run(folder.onbytes(&line));
        assert!(output.status.success(), "{flags}: {}", String::from_utf8_lossy(&output.stderr));
    }
    server.stop();
}

#[test]
fn trust_stores_of_keytool_and_openssl_are_believed() {
    if !are_here(&["openssl", "keytool"]) {
        return;
    }
    let folder = Folder::with_certs(&["--ca"]);
    let import = "-importcert -noprompt -alias ca -file ca.pem -storepass changeit";
    for (form, store) in STORES {
        let store = store.replace("-dest", "-");
        folder.keytool(&format!("{import} {store} -keystore trust.{form}"));
    }
    let export = "pkcs12 -export -nokeys -in ca.pem -passout pass:changeit";
    folder.openssl(&format!("{export} -out openssl.p12"));
    let mut stores = vec!["trust.p12", "trust.legacy.p12", "trust.jks", "openssl.p12"];
    if has_old(&folder) {
        folder.openssl(&format!("{export} -out old.p12 {OLD}"));
        stores.push("old.p12");
    }
    let (_server, port) = folder.s_server("-rev -cert cert.pem -key key.pem");
    for store in stores {
        let flags = format!("--trust-store {store} --trust-store-password");
        folder.connects(&port, &format!("{flags} changeit"));
        let parts = ["--trust-store", store, "wrong password"];
        let line = folder.does_not_connect(&port, &format!("{flags} {SECRET}"), &parts);
        assert!(!line.contains(SECRET), "{line}");
    }
}

#[test]
fn encrypted_keys_of_every_form_are_opened() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&[]);
    let mut forms = vec![
        "",
        "-v2 aes-128-cbc",
        "-v2 des3",
        "-v2 aes-256-cbc -v2prf hmacWithSHA1",
        "-v2 aes-256-cbc -v2prf hmacWithSHA512",
        "-scrypt",
        "-outform DER",
    ];
    if has_old(&folder) {
        forms.push("-v1 PBE-SHA1-3DES -provider legacy -provider default");
        forms.push("-v1 PBE-SHA1-RC2-40 -provider legacy -provider default");
    }
    for form in forms {
        folder.openssl(&format!(
            "pkcs8 -topk8 -in key.pem -passout pass:{SECRET} -out encrypted.pem {form}"
        ));
        let flags = "--cert-file cert.pem --key-file encrypted.pem --key-password";
        serves(&folder, &format!("{flags} {SECRET}"), "cert.pem");
    }
}

#[test]
fn a_password_may_come_from_a_file_or_from_the_environment() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&["--store-password", SECRET]);
    folder.openssl(&format!("pkcs8 -topk8 -in key.pem -passout pass:{SECRET} -out encrypted.pem"));
    folder.write("password", format!("{SECRET}\nmore"));
    let key = "--cert-file cert.pem --key-file encrypted.pem";
    let store = "--key-store keystore.p12";
    for (flags, flag, variable) in [
        (key, "--key-password-file password", "ONBYTES_KEY_PASSWORD"),
        (store, "--key-store-password-file password", "ONBYTES_KEY_STORE_PASSWORD"),
    ] {
        serves(&folder, &format!("{flags} {flag}"), "cert.pem");
        let server = serve(&folder, flags, |command| {
            command.env(variable, SECRET);
        });
        assert_serves(&folder, &server, "cert.pem");
        // What is said at the command line goes before what is in the environment.
        let server = serve(&folder, &format!("{flags} {flag}"), |command| {
            command.env(variable, "another-one");
        });
        assert_serves(&folder, &server, "cert.pem");
    }
    // Nobody sees a password that was not typed.
    let server = serve(&folder, key, |command| {
        command.env("ONBYTES_KEY_PASSWORD", SECRET);
    });
    if let Ok(line) = std::fs::read_to_string(format!("/proc/{}/cmdline", server.child.id())) {
        assert!(line.contains("encrypted.pem") && !line.contains(SECRET), "{line}");
    }
}
