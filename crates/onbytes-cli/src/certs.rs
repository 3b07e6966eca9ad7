//! `onbytes certs`: makes certificates for trying TLS, and writes them to a folder.

mod args;
mod files;
mod host;
mod issue;
mod store;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use rcgen::{Certificate, KeyPair};

pub(crate) use args::CertsArgs;
use files::{Access, Folder, NewFile};
use host::Host;
use issue::{Authority, Identity, Press, Validity, fingerprint};

use crate::failure::Failure;
use crate::password::{Password, Sources, resolve};

/// The password of stores where none is given: Java's custom.
const CUSTOMARY: &str = "changeit";

/// The fewest characters that keytool takes.
const SHORTEST: usize = 6;

pub(crate) fn run(args: &CertsArgs) -> Result<ExitCode, Failure> {
    let given = given_password(args)?;
    let password = given.clone().unwrap_or_else(|| CUSTOMARY.to_owned().into());
    let validity = Validity::from_now(args.days)?;
    let press = Press { key_type: args.key_type, validity };
    let hosts = host::with_local(&args.hosts);
    let made =
        if args.ca { Made::with_authority(&press, &hosts)? } else { Made::alone(&press, &hosts)? };

    let files = made.files(&password)?;
    let folder = Folder::open(&args.out)?;
    folder.check(&files, args.force)?;
    folder.write(&files)?;

    let report = made.report(&args.out, &hosts, &validity.end()?, given.is_none());
    // Whoever has closed stdout does not want to know; the files are there.
    let mut stdout = io::stdout().lock();
    let _ = stdout.write_all(report.as_bytes()).and_then(|()| stdout.flush());
    Ok(ExitCode::SUCCESS)
}

/// The password that was given, if Java takes it.
fn given_password(args: &CertsArgs) -> Result<Option<Password>, Failure> {
    let found = resolve(&Sources {
        flag: ("--store-password", args.store_password.as_ref()),
        file: ("--store-password-file", args.store_password_file.as_deref()),
        variable: "ONBYTES_STORE_PASSWORD",
    })?;
    let Some((password, source)) = found else { return Ok(None) };
    let problem = if password.as_str().len() < SHORTEST {
        "is too short"
    } else if !password.as_str().bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        "has characters that Java refuses"
    } else {
        return Ok(Some(password));
    };
    let hint = format!("give at least {SHORTEST} characters, printable and of ASCII");
    Err(Failure::usage(format!("{source}: the password {problem}")).hint(&hint))
}

/// All that one run makes.
struct Made {
    server: Identity,
    /// The CA that has signed the server's certificate, and a client of the same CA.
    others: Option<(Authority, Identity)>,
}

impl Made {
    fn alone(press: &Press, hosts: &[Host]) -> Result<Self, Failure> {
        Ok(Self { server: press.self_signed_server(hosts)?, others: None })
    }

    fn with_authority(press: &Press, hosts: &[Host]) -> Result<Self, Failure> {
        let authority = press.authority()?;
        let server = press.server(hosts, &authority)?;
        let client = press.client(&authority)?;
        Ok(Self { server, others: Some((authority, client)) })
    }

    /// The files to write, in the order in which they are put in their places. A key and its
    /// certificate are neighbours, so that a server that reloads them hardly ever finds two that
    /// do not belong together.
    fn files(&self, password: &Password) -> Result<Vec<NewFile>, Failure> {
        let Self { server, others } = self;
        let (leaf, key) = (server.certificate(), server.key());
        let Some((authority, client)) = others else {
            return Ok(vec![
                certificate("cert.pem", leaf),
                private_key("key.pem", key),
                secret("keystore.p12", store::key_store("server", key, &[leaf], password)?),
                public("truststore.p12", store::trust_store("server", leaf, password)?),
            ]);
        };
        let root = authority.certificate();
        let (client_leaf, client_key) = (client.certificate(), client.key());
        let server_store = store::key_store("server", key, &[leaf, root], password)?;
        let client_store = store::key_store("client", client_key, &[client_leaf, root], password)?;
        Ok(vec![
            certificate("ca.pem", root),
            private_key("ca-key.pem", authority.key()),
            certificate("cert.pem", leaf),
            private_key("key.pem", key),
            secret("keystore.p12", server_store),
            certificate("client.pem", client_leaf),
            private_key("client-key.pem", client_key),
            secret("client.p12", client_store),
            public("truststore.p12", store::trust_store("ca", root, password)?),
        ])
    }

    /// What has been made, and what to do with it.
    fn report(&self, out: &Path, hosts: &[Host], end: &str, is_customary: bool) -> String {
        let hosts: Vec<_> = hosts.iter().map(Host::to_string).collect();
        let hosts = hosts.join(", ");
        let fingerprint = colons(&fingerprint(self.server.certificate()));
        let password = if is_customary {
            format!("{CUSTOMARY} (Java's custom; --store-password sets another)")
        } else {
            "as given".to_owned()
        };
        let folder = for_shell(&out.to_string_lossy());
        let file = |name: &str| for_shell(&out.join(name).to_string_lossy());
        let (cert, key) = (file("cert.pem"), file("key.pem"));
        let names = match self.others {
            Some(_) => "\nclient.pem is for a client with the common name 'onbytes client'",
            None => "",
        };
        let (files, serve, connect) = if self.others.is_some() {
            let (ca, client) = (file("ca.pem"), file("client.pem"));
            (
                WITH_AUTHORITY,
                format!(" --client-ca {ca}"),
                format!("{ca} --client-cert {client} --client-key {}", file("client-key.pem")),
            )
        } else {
            (ALONE, String::new(), cert.clone())
        };
        format!(
            "\
made in {folder}:
{files}
cert.pem is for {hosts}{names}
its SHA-256 fingerprint: {fingerprint}
expires: {end}
password of the .p12 files: {password}

next:
  onbytes serve echo --cert-file {cert} --key-file {key}{serve}
  onbytes connect localhost 3000 --tls --cert {connect}
"
        )
    }
}

const ALONE: &str =
    "  cert.pem        the server's certificate, signed by itself; clients are to trust it
  key.pem         its private key
  keystore.p12    both
  truststore.p12  the certificate as a trusted one
";

const WITH_AUTHORITY: &str =
    "  ca.pem          the CA's certificate; servers and clients are to trust it
  ca-key.pem      its private key
  cert.pem        the server's certificate
  key.pem         its private key
  keystore.p12    both
  client.pem      the client's certificate
  client-key.pem  its private key
  client.p12      both
  truststore.p12  the CA's certificate as a trusted one
";

fn certificate(name: &'static str, certificate: &Certificate) -> NewFile {
    public(name, certificate.pem().into_bytes())
}

fn private_key(name: &'static str, key: &KeyPair) -> NewFile {
    secret(name, key.serialize_pem().into_bytes())
}

fn public(name: &'static str, content: Vec<u8>) -> NewFile {
    NewFile { name, content, access: Access::Public }
}

fn secret(name: &'static str, content: Vec<u8>) -> NewFile {
    NewFile { name, content, access: Access::Secret }
}

/// Bytes as fingerprints are written: `0A:FF`.
fn colons(bytes: &[u8]) -> String {
    let bytes: Vec<_> = bytes.iter().map(|byte| format!("{byte:02X}")).collect();
    bytes.join(":")
}

/// A word that a shell takes for one word.
fn for_shell(word: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:,@%".contains(&byte);
    if word.bytes().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_for_a_shell() {
        assert_eq!(for_shell("a/b-1.pem"), "a/b-1.pem");
        assert_eq!(for_shell("my certs/a"), "'my certs/a'");
        assert_eq!(for_shell("it's"), r"'it'\''s'");
        assert_eq!(for_shell("$HOME"), "'$HOME'");
    }

    #[test]
    fn fingerprints_are_pairs_of_digits() {
        assert_eq!(colons(&[0, 10, 255]), "00:0A:FF");
    }
}
