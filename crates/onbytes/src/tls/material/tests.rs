//! Against files made on the spot: by rcgen, by openssl and by keytool, and by breaking those.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use rustls::SignatureScheme;
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::*;

mod broken;
mod keys;
mod mutations;
mod revoked;
mod stores;

/// A directory of a test's own, which goes when the test does.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name =
            format!("onbytes-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    fn write(&self, name: &str, data: impl AsRef<[u8]>) -> PathBuf {
        std::fs::write(self.path(name), data).unwrap();
        self.path(name)
    }

    /// Runs a command line in this directory; it has to succeed. An argument `''` is empty, and `~`
    /// in an argument is a space.
    fn run(&self, line: &str) {
        let mut words = line.split_whitespace();
        let mut command = Command::new(words.next().unwrap());
        command.args(words.map(|word| word.replace("''", "").replace('~', " ")));
        command.current_dir(&self.0).env("LC_ALL", "C.UTF-8").stdin(Stdio::null());
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{line}: {}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// A text with this directory taken out of its paths.
    fn local(&self, text: &dyn ToString) -> String {
        text.to_string().replace(&format!("{}/", self.0.display()), "")
    }

    fn cert_key(&self, cert_file: &str, key_file: &str) -> CertKey {
        CertKey::new(self.path(cert_file), self.path(key_file))
    }

    fn store(&self, path: &str, password: &str) -> KeyStore {
        KeyStore::new(self.path(path), password)
    }

    fn trust_store(&self, path: &str, password: &str) -> Trust {
        crate::TrustStore::new(self.path(path), password).into()
    }

    /// Why a key cannot be had, with local paths.
    fn refusal(&self, key: impl Into<Key>) -> String {
        match read_key(&key.into()) {
            Ok(_) => "(it was read)".to_owned(),
            Err(error) => {
                assert!(error.is_configuration());
                self.local(&error)
            }
        }
    }

    fn trust_refusal(&self, trust: impl Into<Trust>) -> String {
        match read_trust(&trust.into()) {
            Ok(_) => "(it was read)".to_owned(),
            Err(error) => self.local(&error),
        }
    }

    /// The warnings of a key that has to be usable, with local paths.
    fn usable(&self, key: impl Into<Key>) -> Vec<String> {
        let identity = usable(&key.into());
        identity.warnings.into_iter().map(|warning| self.local(&warning)).collect()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The key has to be there, to belong to the first certificate, and to sign.
fn usable(key: &Key) -> Identity {
    use SignatureScheme as Scheme;
    let identity = match read_key(key) {
        Ok(identity) => identity,
        Err(error) => panic!("{key:?}: {error}"),
    };
    let schemes = [
        Scheme::RSA_PSS_SHA256,
        Scheme::ECDSA_NISTP256_SHA256,
        Scheme::ECDSA_NISTP384_SHA384,
        Scheme::ECDSA_NISTP521_SHA512,
        Scheme::ED25519,
    ];
    let certified = &identity.certified;
    let (_, leaf) = X509Certificate::from_der(&certified.cert[0]).unwrap();
    assert_eq!(certified.key.public_key().unwrap().as_ref(), leaf.public_key().raw);
    certified.key.choose_scheme(&schemes).unwrap().sign(b"data").unwrap();
    identity
}

/// A self-signed certificate for `localhost`, as DER of the certificate and PKCS#8 of its key.
fn self_signed() -> (Vec<u8>, Vec<u8>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    (made.cert.der().to_vec(), made.signing_key.serialize_der())
}

/// base64 in lines of 64, between the two lines of the label.
fn to_pem(label: &str, der: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut body = String::new();
    for three in der.chunks(3) {
        let bits = three.iter().fold(0_u32, |bits, byte| bits << 8 | u32::from(*byte));
        let bits = bits << (8 * (3 - three.len()));
        for place in 0..4 {
            let digit = DIGITS[(bits >> (18 - 6 * place)) as usize & 63];
            body.push(if place <= three.len() { char::from(digit) } else { '=' });
        }
    }
    let lines: Vec<_> = body.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

/// An element of DER.
fn element(tag: u8, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let length = match u16::try_from(content.len()).unwrap().to_be_bytes() {
        [0, short @ ..0x80] => vec![short],
        [high, low] => vec![0x82, high, low],
    };
    [&[tag], &length[..], content].concat()
}

/// Says so where a test cannot be run for want of a program.
fn skipped(programs: &[&str]) -> bool {
    let missing = programs.iter().find(|program| {
        let found = std::env::var_os("PATH").is_some_and(|path| {
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        });
        !found
    });
    if let Some(program) = missing {
        eprintln!("SKIPPED: there is no {program} on this machine");
    }
    missing.is_some()
}

/// Every certificate must be one that rustls takes as an authority.
fn anchors(certificates: &[CertificateDer<'static>]) -> usize {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(certificates.iter().cloned()).0
}

#[test]
fn the_system_has_authorities_or_says_what_to_do() {
    match read_trust(&Trust::System) {
        Ok(certificates) => assert!(anchors(&certificates) > 0),
        Err(error) => assert_eq!(
            error.to_string(),
            "no trusted root certificates found on this system: give cert"
        ),
    }
}
