//! The TLS flags of `serve` and `connect`, and the records that they make.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use onbytes::{
    CertKey, CipherSuite, ClientCertificates, ClientSecureSocket, Key, KeyStore,
    ListenerSecureSocket, MutualTls, Protocol, TlsVersion, Trust, TrustStore,
};

use crate::failure::Failure;
use crate::password::{Password, Sources, resolve};
use crate::values::{Limit, OrOff, limit, refused};

/// What a server needs for TLS.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS (with --cert-file and --key-file, or with --key-store)")]
pub(crate) struct ServerTls {
    /// The certificate and its chain: PEM, or one certificate in DER [default: none]
    #[arg(long, value_name = "FILE", value_parser = file)]
    cert_file: Option<PathBuf>,

    /// The private key of --cert-file: PKCS#8, PKCS#1 or SEC1, in PEM or DER [default: none]
    #[arg(long, value_name = "FILE", value_parser = file)]
    key_file: Option<PathBuf>,

    /// The password of an encrypted --key-file, or of the entry in --key-store where it differs
    /// [default: none]
    // Whatever follows is taken for the password, so that no message about it can show it.
    #[arg(long, value_name = "PASSWORD", allow_hyphen_values = true)]
    key_password: Option<Password>,

    /// A file whose first line is that password; or set ONBYTES_KEY_PASSWORD [default: none]
    #[arg(long, value_name = "FILE")]
    key_password_file: Option<PathBuf>,

    /// A key store with certificate and key: PKCS#12 (.p12, .pfx) or JKS [default: none]
    #[arg(long, value_name = "FILE", value_parser = file)]
    key_store: Option<PathBuf>,

    /// The password of --key-store [default: none]
    #[arg(long, value_name = "PASSWORD", allow_hyphen_values = true)]
    key_store_password: Option<Password>,

    /// A file whose first line is that password; or set ONBYTES_KEY_STORE_PASSWORD [default: none]
    #[arg(long, value_name = "FILE")]
    key_store_password_file: Option<PathBuf>,

    /// The entry of --key-store to use [default: the first with a private key]
    #[arg(long, value_name = "NAME")]
    key_alias: Option<String>,

    /// A further certificate and its key, for clients that ask for a server name that it holds; may
    /// be given many times [default: none]
    #[arg(long = "sni-cert", value_name = "CERT_FILE,KEY_FILE", value_parser = pair)]
    sni_certs: Vec<(PathBuf, PathBuf)>,

    /// Ask clients for a certificate issued by one of these, or standing here itself (PEM)
    /// [default: none]
    #[arg(long, value_name = "FILE", value_parser = file)]
    client_ca: Option<PathBuf>,

    /// Whether clients without a certificate are refused [default: required]
    #[arg(long, value_name = "WHAT")]
    client_auth: Option<ClientAuth>,

    /// A list of revoked client certificates (PEM or DER); may be given many times [default: none]
    #[arg(long = "crl", value_name = "FILE", value_parser = file)]
    crls: Vec<PathBuf>,

    /// Protocol versions [default: TLSv1.2,TLSv1.3]
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = version)]
    tls_versions: Vec<TlsVersion>,

    /// Cipher suites by their IANA or OpenSSL names, the best first [default: all that are served]
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = suite)]
    ciphers: Vec<CipherSuite>,

    /// Let the order of --ciphers decide rather than the client's; without --ciphers AES-128 comes
    /// before AES-256 and ChaCha20 [default: the client's order, and without --ciphers AES-128-GCM
    /// where a client puts AES-GCM first]
    #[arg(long)]
    prefer_server_ciphers: bool,

    /// The longest time for a handshake: seconds, or off [default: 10]
    #[arg(long, value_name = "SECS", value_parser = limit, allow_negative_numbers = true)]
    handshake_timeout: Option<Limit>,

    /// How long a session may be resumed: seconds, 1 to 604800, or off [default: 7200]
    #[arg(long, value_name = "SECS", value_parser = session, allow_negative_numbers = true)]
    session_timeout: Option<Limit>,

    /// Application protocols (ALPN), the best first [default: none]
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    alpn: Vec<String>,

    /// An OCSP response (DER) to show along with the certificate [default: none]
    #[arg(long, value_name = "FILE", value_parser = file)]
    ocsp_file: Option<PathBuf>,

    /// Append the secrets of all connections to a file, for Wireshark and its like: whoever reads it
    /// can read the traffic [default: none]
    #[arg(long, value_name = "FILE", value_parser = file)]
    key_log_file: Option<PathBuf>,
}

/// Whether clients have to show a certificate.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum ClientAuth {
    /// Without one they are refused
    Required,
    /// They are asked, and served without one
    Optional,
}

/// The names of flags in the place of the fields of the listener's record.
const SERVER_FLAGS: &[(&str, &str)] = &[
    ("cert_file", "--cert-file"),
    ("key_file", "--key-file"),
    ("key_password", "--key-password"),
    ("it as a key store, with path and password", "it to --key-store"),
    ("key store", "--key-store"),
    ("crl_files", "--crl"),
    ("ocsp_file", "--ocsp-file"),
    ("key_log_file", "--key-log-file"),
    ("it as a trust store, with path and password", "a file in PEM"),
    ("cert", "--client-ca"),
    ("the protocol versions", "--tls-versions"),
    ("protocol versions", "--tls-versions"),
    ("ciphers", "--ciphers"),
    ("alpn", "--alpn"),
];

/// The way out where the library's words tell none.
const SERVER_HINTS: &[(&str, &str)] = &[
    ("do not belong together", "give the key of that certificate"),
    ("wrong --key-password", "give the right one"),
    ("wrong password", "give the right one to --key-store-password"),
    ("has no key entry", "give one that it has to --key-alias, or leave that out"),
    ("--cert-file", "give a file with the certificate, in PEM or DER"),
    ("--key-file", "give a file with the certificate's key, in PEM or DER"),
    ("--key-store", "give a PKCS#12 or JKS store with a private key"),
    ("--client-ca", "give a file with the certificates to trust, in PEM or DER"),
    ("--crl", "give a file with a list of revoked certificates, in PEM or DER"),
    ("--ocsp-file", "give a file with an OCSP response, in DER"),
    ("--key-log-file", "give a file that can be written to"),
    ("--alpn", "give names such as h2,http/1.1"),
];

impl ServerTls {
    /// The record that the flags make; `None` where they ask for plain TCP.
    pub(crate) fn record(&self) -> Result<Option<ListenerSecureSocket>, Failure> {
        let Some(key) = self.key()? else {
            return match self.first_without_key() {
                Some(flag) => Err(Failure::usage(format!("{flag} needs a certificate and a key"))
                    .hint("give --cert-file and --key-file, or --key-store")),
                None => Ok(None),
            };
        };
        let sni = self.sni_certs.iter().map(|(cert, key)| CertKey::new(cert, key).into());
        let mut secure = ListenerSecureSocket::new(key)
            .sni_keys(sni)
            .protocol(Protocol::new().versions(self.tls_versions.iter().copied()))
            .ciphers(self.ciphers.iter().copied())
            .prefer_server_ciphers(self.prefer_server_ciphers)
            .mutual_tls(self.mutual_tls()?)
            .alpn(&self.alpn);
        secure.key_log_file.clone_from(&self.key_log_file);
        if let Some(OrOff(time)) = self.handshake_timeout {
            secure.handshake_timeout = time;
        }
        if let Some(OrOff(time)) = self.session_timeout {
            secure.session_timeout = time;
        }
        Ok(Some(secure))
    }

    fn key(&self) -> Result<Option<Key>, Failure> {
        let key_password = || {
            resolve(&Sources {
                flag: ("--key-password", self.key_password.as_ref()),
                file: ("--key-password-file", self.key_password_file.as_deref()),
                variable: "ONBYTES_KEY_PASSWORD",
            })
        };
        match (&self.cert_file, &self.key_file, &self.key_store) {
            (None, None, None) => Ok(None),
            (Some(cert), Some(key), None) => {
                let mut files = CertKey::new(cert, key);
                files.key_password = key_password()?.map(|(word, _)| word.as_str().into());
                files.ocsp_file.clone_from(&self.ocsp_file);
                if let Some(flag) = self.first_of_store() {
                    return Err(Failure::usage(format!("{flag} goes with --key-store"))
                        .hint("leave it out, or give --key-store"));
                }
                Ok(Some(files.into()))
            }
            (None, None, Some(path)) => {
                let mut store = KeyStore::new(path, self.store_password()?.as_str());
                store.alias.clone_from(&self.key_alias);
                store.key_password = key_password()?.map(|(word, _)| word.as_str().into());
                store.ocsp_file.clone_from(&self.ocsp_file);
                Ok(Some(store.into()))
            }
            (Some(_), None, None) => {
                Err(Failure::usage("--cert-file needs --key-file").hint("give the file of its key"))
            }
            (None, Some(_), None) => Err(Failure::usage("--key-file needs --cert-file")
                .hint("give the file of its certificate")),
            _ => Err(Failure::usage("--key-store is given beside --cert-file or --key-file")
                .hint("give the one or the others")),
        }
    }

    fn store_password(&self) -> Result<Password, Failure> {
        let found = resolve(&Sources {
            flag: ("--key-store-password", self.key_store_password.as_ref()),
            file: ("--key-store-password-file", self.key_store_password_file.as_deref()),
            variable: "ONBYTES_KEY_STORE_PASSWORD",
        })?;
        needed(found, "--key-store", "--key-store-password", "ONBYTES_KEY_STORE_PASSWORD")
    }

    fn mutual_tls(&self) -> Result<Option<MutualTls>, Failure> {
        let Some(authorities) = &self.client_ca else {
            let alone =
                [("--client-auth", self.client_auth.is_some()), ("--crl", !self.crls.is_empty())];
            return match alone.into_iter().find(|(_, is_given)| *is_given) {
                Some((flag, _)) => Err(Failure::usage(format!("{flag} needs --client-ca"))
                    .hint("give the file of whom to trust")),
                None => Ok(None),
            };
        };
        let mode = match self.client_auth {
            Some(ClientAuth::Optional) => ClientCertificates::Optional,
            Some(ClientAuth::Required) | None => ClientCertificates::Required,
        };
        let mutual = MutualTls::required(authorities.as_path()).mode(mode).crl_files(&self.crls);
        Ok(Some(mutual))
    }

    fn first_of_store(&self) -> Option<&'static str> {
        let given = [
            ("--key-store-password", self.key_store_password.is_some()),
            ("--key-store-password-file", self.key_store_password_file.is_some()),
            ("--key-alias", self.key_alias.is_some()),
        ];
        first_given(given)
    }

    /// The first flag that means nothing without a certificate.
    fn first_without_key(&self) -> Option<&'static str> {
        let given = [
            ("--key-password", self.key_password.is_some()),
            ("--key-password-file", self.key_password_file.is_some()),
            ("--sni-cert", !self.sni_certs.is_empty()),
            ("--client-ca", self.client_ca.is_some()),
            ("--client-auth", self.client_auth.is_some()),
            ("--crl", !self.crls.is_empty()),
            ("--tls-versions", !self.tls_versions.is_empty()),
            ("--ciphers", !self.ciphers.is_empty()),
            ("--prefer-server-ciphers", self.prefer_server_ciphers),
            ("--handshake-timeout", self.handshake_timeout.is_some()),
            ("--session-timeout", self.session_timeout.is_some()),
            ("--alpn", !self.alpn.is_empty()),
            ("--ocsp-file", self.ocsp_file.is_some()),
            ("--key-log-file", self.key_log_file.is_some()),
        ];
        self.first_of_store().or_else(|| first_given(given))
    }

    /// A failure of the library's, in the names of the flags.
    pub(crate) fn told(error: &onbytes::Error) -> Failure {
        Failure::from(error).renamed(SERVER_FLAGS).hinted(SERVER_HINTS)
    }
}

/// What a client needs for TLS.
#[derive(Debug, Args)]
#[command(next_help_heading = "TLS")]
pub(crate) struct ClientTls {
    /// Speak TLS. The server's certificate has to be issued by an authority that the system trusts,
    /// for HOST, unless the flags below say otherwise
    #[arg(long)]
    tls: bool,

    /// Trust the certificates in this file in the place of the system's (PEM, or one in DER). One that
    /// the server shows itself is trusted as it is, whatever its name; one of an authority is trusted
    /// for those that it has issued, and they have to be for HOST
    #[arg(long, value_name = "FILE", value_parser = file)]
    cert: Option<PathBuf>,

    /// Trust the certificates in this store: PKCS#12 (.p12, .pfx) or JKS
    #[arg(long, value_name = "FILE", value_parser = file)]
    trust_store: Option<PathBuf>,

    /// The password of --trust-store
    // Whatever follows is taken for the password, so that no message about it can show it.
    #[arg(long, value_name = "PASSWORD", allow_hyphen_values = true)]
    trust_store_password: Option<Password>,

    /// A file whose first line is that password; or set ONBYTES_TRUST_STORE_PASSWORD
    #[arg(long, value_name = "FILE")]
    trust_store_password_file: Option<PathBuf>,

    /// The name to ask for (SNI), and to look for in a certificate that an authority has issued
    /// [default: HOST]
    #[arg(long, value_name = "NAME", value_parser = crate::values::host)]
    server_name: Option<String>,

    /// Take any name in the certificate; its chain is still verified
    #[arg(long)]
    no_verify_hostname: bool,

    /// Refuse a certificate that is out of its dates even where --cert names that very one
    #[arg(long)]
    strict_validity: bool,

    /// The certificate to show to a server that asks for one, and its chain
    #[arg(long, value_name = "FILE", value_parser = file)]
    client_cert: Option<PathBuf>,

    /// The private key of --client-cert
    #[arg(long, value_name = "FILE", value_parser = file)]
    client_key: Option<PathBuf>,

    /// The password of an encrypted --client-key
    #[arg(long, value_name = "PASSWORD", allow_hyphen_values = true)]
    client_key_password: Option<Password>,

    /// A file whose first line is that password; or set ONBYTES_CLIENT_KEY_PASSWORD
    #[arg(long, value_name = "FILE")]
    client_key_password_file: Option<PathBuf>,

    /// A key store to show a certificate from, in the place of --client-cert and --client-key
    #[arg(long, value_name = "FILE", value_parser = file)]
    client_key_store: Option<PathBuf>,

    /// The password of --client-key-store
    #[arg(long, value_name = "PASSWORD", allow_hyphen_values = true)]
    client_key_store_password: Option<Password>,

    /// A file whose first line is that password; or set ONBYTES_CLIENT_KEY_STORE_PASSWORD
    #[arg(long, value_name = "FILE")]
    client_key_store_password_file: Option<PathBuf>,

    /// Protocol versions [default: TLSv1.2,TLSv1.3]
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = version)]
    tls_versions: Vec<TlsVersion>,

    /// Cipher suites by their IANA or OpenSSL names, the best first [default: all that are served]
    #[arg(long, value_name = "A,B", value_delimiter = ',', value_parser = suite)]
    ciphers: Vec<CipherSuite>,

    /// The longest time for a handshake: seconds, or off [default: 10]
    #[arg(long, value_name = "SECS", value_parser = limit, allow_negative_numbers = true)]
    handshake_timeout: Option<Limit>,

    /// Application protocols (ALPN) to offer, the best first [default: none]
    #[arg(long, value_name = "A,B", value_delimiter = ',')]
    alpn: Vec<String>,

    /// Append the secrets of the connection to a file, for Wireshark and its like: whoever reads it
    /// can read the traffic
    #[arg(long, value_name = "FILE", value_parser = file)]
    key_log_file: Option<PathBuf>,
}

/// The names of flags in the place of the fields of the client's record.
const CLIENT_FLAGS: &[(&str, &str)] = &[
    ("cert_file", "--client-cert"),
    ("key_file", "--client-key"),
    ("key_password", "--client-key-password"),
    ("it as a key store, with path and password", "it to --client-key-store"),
    ("key store", "--client-key-store"),
    ("key_log_file", "--key-log-file"),
    ("it as a trust store, with path and password", "it to --trust-store"),
    ("trust store", "--trust-store"),
    ("cert", "--cert"),
    ("the protocol versions", "--tls-versions"),
    ("protocol versions", "--tls-versions"),
    ("ciphers", "--ciphers"),
    ("alpn", "--alpn"),
    ("server_name", "--server-name"),
    ("verify_hostname", "--no-verify-hostname"),
];

/// The way out where the library's words tell none.
const CLIENT_HINTS: &[(&str, &str)] = &[
    ("(certificate_required)", "give --client-cert and --client-key, or --client-key-store"),
    ("do not belong together", "give the key of that certificate"),
    ("wrong --client-key-password", "give the right one"),
    (
        "--client-key-store \"",
        "give the right file, and its password to --client-key-store-password",
    ),
    ("--trust-store \"", "give the right file, and its password to --trust-store-password"),
    ("--client-cert \"", "give a file with the client's certificate, in PEM or DER"),
    ("--client-key \"", "give a file with the certificate's key, in PEM or DER"),
    ("--cert \"", "give a file with the certificates to trust, in PEM or DER"),
    ("to --key-log-file", "give a file that can be written to"),
    ("--alpn:", "give names such as h2,http/1.1"),
];

impl ClientTls {
    /// The record that the flags make; `None` where they ask for plain TCP.
    pub(crate) fn record(&self) -> Result<Option<ClientSecureSocket>, Failure> {
        if !self.tls {
            return match self.first_without_tls() {
                Some(flag) => {
                    Err(Failure::usage(format!("{flag} needs --tls")).hint("give --tls too"))
                }
                None => Ok(None),
            };
        }
        let mut secure = ClientSecureSocket::new()
            .cert(self.trust()?)
            .protocol(Protocol::new().versions(self.tls_versions.iter().copied()))
            .ciphers(self.ciphers.iter().copied())
            .verify_hostname(!self.no_verify_hostname)
            .strict_validity(self.strict_validity)
            .alpn(&self.alpn);
        secure.key = self.key()?;
        secure.server_name.clone_from(&self.server_name);
        secure.key_log_file.clone_from(&self.key_log_file);
        if let Some(OrOff(time)) = self.handshake_timeout {
            secure.handshake_timeout = time;
        }
        Ok(Some(secure))
    }

    fn trust(&self) -> Result<Trust, Failure> {
        match (&self.cert, &self.trust_store) {
            (None, None) => Ok(Trust::System),
            (Some(path), None) => Ok(path.as_path().into()),
            (None, Some(path)) => {
                let found = resolve(&Sources {
                    flag: ("--trust-store-password", self.trust_store_password.as_ref()),
                    file: (
                        "--trust-store-password-file",
                        self.trust_store_password_file.as_deref(),
                    ),
                    variable: "ONBYTES_TRUST_STORE_PASSWORD",
                })?;
                let variable = "ONBYTES_TRUST_STORE_PASSWORD";
                let word = needed(found, "--trust-store", "--trust-store-password", variable)?;
                Ok(TrustStore::new(path, word.as_str()).into())
            }
            (Some(_), Some(_)) => Err(Failure::usage("--cert and --trust-store are both given")
                .hint("give the one or the other")),
        }
    }

    fn key(&self) -> Result<Option<Key>, Failure> {
        match (&self.client_cert, &self.client_key, &self.client_key_store) {
            (None, None, None) => Ok(None),
            (Some(cert), Some(key), None) => {
                let password = resolve(&Sources {
                    flag: ("--client-key-password", self.client_key_password.as_ref()),
                    file: ("--client-key-password-file", self.client_key_password_file.as_deref()),
                    variable: "ONBYTES_CLIENT_KEY_PASSWORD",
                })?;
                let mut files = CertKey::new(cert, key);
                files.key_password = password.map(|(word, _)| word.as_str().into());
                Ok(Some(files.into()))
            }
            (None, None, Some(path)) => {
                let variable = "ONBYTES_CLIENT_KEY_STORE_PASSWORD";
                let found = resolve(&Sources {
                    flag: ("--client-key-store-password", self.client_key_store_password.as_ref()),
                    file: (
                        "--client-key-store-password-file",
                        self.client_key_store_password_file.as_deref(),
                    ),
                    variable,
                })?;
                let flag = "--client-key-store-password";
                let word = needed(found, "--client-key-store", flag, variable)?;
                Ok(Some(KeyStore::new(path, word.as_str()).into()))
            }
            (Some(_), None, None) => {
                Err(Failure::usage("--client-cert needs --client-key")
                    .hint("give the file of its key"))
            }
            (None, Some(_), None) => Err(Failure::usage("--client-key needs --client-cert")
                .hint("give the file of its certificate")),
            _ => Err(Failure::usage(
                "--client-key-store is given beside --client-cert or --client-key",
            )
            .hint("give the one or the others")),
        }
    }

    fn first_without_tls(&self) -> Option<&'static str> {
        let given = [
            ("--cert", self.cert.is_some()),
            ("--trust-store", self.trust_store.is_some()),
            ("--trust-store-password", self.trust_store_password.is_some()),
            ("--trust-store-password-file", self.trust_store_password_file.is_some()),
            ("--server-name", self.server_name.is_some()),
            ("--no-verify-hostname", self.no_verify_hostname),
            ("--strict-validity", self.strict_validity),
            ("--client-cert", self.client_cert.is_some()),
            ("--client-key", self.client_key.is_some()),
            ("--client-key-password", self.client_key_password.is_some()),
            ("--client-key-password-file", self.client_key_password_file.is_some()),
            ("--client-key-store", self.client_key_store.is_some()),
            ("--client-key-store-password", self.client_key_store_password.is_some()),
            ("--client-key-store-password-file", self.client_key_store_password_file.is_some()),
            ("--tls-versions", !self.tls_versions.is_empty()),
            ("--ciphers", !self.ciphers.is_empty()),
            ("--handshake-timeout", self.handshake_timeout.is_some()),
            ("--alpn", !self.alpn.is_empty()),
            ("--key-log-file", self.key_log_file.is_some()),
        ];
        first_given(given)
    }

    /// A failure of the library's, in the names of the flags.
    pub(crate) fn told(error: &onbytes::Error) -> Failure {
        Failure::from(error).renamed(CLIENT_FLAGS).hinted(CLIENT_HINTS)
    }
}

fn first_given<const N: usize>(flags: [(&'static str, bool); N]) -> Option<&'static str> {
    flags.into_iter().find(|(_, is_given)| *is_given).map(|(flag, _)| flag)
}

/// A password without which `of` cannot be opened.
fn needed(
    found: Option<(Password, &'static str)>,
    of: &str,
    flag: &str,
    variable: &str,
) -> Result<Password, Failure> {
    match found {
        Some((password, _)) => Ok(password),
        None => Err(Failure::usage(format!("{of} needs its password"))
            .hint(&format!("give {flag} or {flag}-file, or set {variable}"))),
    }
}

// ---- Values ----

fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return refused(text, "a file");
    }
    Ok(text.into())
}

fn pair(text: &str) -> Result<(PathBuf, PathBuf), String> {
    match text.split_once(',') {
        Some((cert, key)) if !cert.is_empty() && !key.is_empty() => {
            Ok((Path::new(cert).into(), Path::new(key).into()))
        }
        _ => refused(text, "two files with a comma between, such as a.pem,a-key.pem"),
    }
}

fn version(text: &str) -> Result<TlsVersion, String> {
    text.parse().map_err(|error: onbytes::Error| error.to_string())
}

fn suite(text: &str) -> Result<CipherSuite, String> {
    text.parse().map_err(|error: onbytes::Error| error.to_string())
}

fn session(text: &str) -> Result<Limit, String> {
    let possible = Duration::from_secs(1)..=Duration::from_secs(604_800);
    match limit(text) {
        Ok(OrOff(time)) if time.is_none_or(|time| possible.contains(&time)) => Ok(OrOff(time)),
        _ => refused(text, "seconds from 1 to 604800 (a week), or off"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_told_by_their_flags() {
        let error = onbytes::Error::new("cert_file \"/x/cert/y\" is bad; trust it with cert");
        let told = format!("{:?}", ClientTls::told(&error));
        assert!(told.contains("--client-cert") && told.contains("with --cert\""), "{told}");
        assert!(told.contains("/x/cert/y"), "{told}");
        let error = onbytes::Error::new("key store \"cert store\" is empty");
        let told = format!("{:?}", ServerTls::told(&error));
        let told = told.replace('\\', "");
        assert!(told.contains("--key-store \"cert store\" is empty; give a PKCS#12"), "{told}");
    }

    #[test]
    fn session_times_have_a_range() {
        assert_eq!(session("off"), Ok(OrOff(None)));
        assert_eq!(session("1"), Ok(OrOff(Some(Duration::from_secs(1)))));
        for text in ["0", "0.5", "604801", "-1", "nan", ""] {
            assert!(session(text).unwrap_err().contains("604800"), "{text}");
        }
    }
}
