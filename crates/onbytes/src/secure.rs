//! The records of secure connections: plain data, checked before a file is read or a port opened.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use crate::config::setters;
use crate::{Error, Result};

mod names;
#[cfg(feature = "serde")]
mod record;

pub use names::{CipherSuite, TlsVersion};

/// The shortest and the longest session time: a second, and the week that RFC 8446 allows.
const SESSION_TIMEOUT: std::ops::RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(7 * 24 * 3600);

/// How a [`Listener`](crate::Listener) speaks TLS.
///
/// ```no_run
/// use onbytes::{CertKey, ListenerConfiguration, ListenerSecureSocket};
///
/// let config = ListenerConfiguration::new()
///     .secure_socket(ListenerSecureSocket::new(CertKey::new("cert.pem", "key.pem")));
/// ```
///
/// Files are read when the listener starts, and again at
/// [`Listener::reload_tls`](crate::Listener::reload_tls).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, rename_all = "camelCase"))]
pub struct ListenerSecureSocket {
    /// The certificate and its private key: from a key store, or from two files.
    pub key: Key,
    /// Further certificates, each for the server names (SNI) that it holds. A client that names
    /// none of them, or nothing, gets `key`. Default: none.
    #[cfg_attr(feature = "serde", serde(default))]
    pub sni_keys: Vec<Key>,
    /// The protocol versions. Default: TLS 1.2 and TLS 1.3.
    #[cfg_attr(feature = "serde", serde(default))]
    pub protocol: Protocol,
    /// The cipher suites, the best first; empty means all that are served. Default: empty.
    #[cfg_attr(feature = "serde", serde(default))]
    pub ciphers: Vec<CipherSuite>,
    /// Whether our order of cipher suites decides rather than the client's. Default: `false`, so that
    /// a client whose first suite is one with ChaCha20-Poly1305 gets that, as those want who have no
    /// instructions for AES.
    ///
    /// Where `ciphers` is empty, a client that would rather have AES-GCM gets it with the shorter key,
    /// `AES_128_GCM_SHA256`, where it can: as safe in practice, and cheaper, most of all in handshakes.
    /// Whoever wants AES-256 wherever a client puts it first names the suites in `ciphers`: the
    /// client's order then decides among those. Where our own processor has no instructions for AES,
    /// the client's order decides in any case.
    #[cfg_attr(feature = "serde", serde(default))]
    pub prefer_server_ciphers: bool,
    /// The longest time for a handshake. Default: 10 s.
    #[cfg_attr(feature = "serde", serde(default = "handshake_timeout"))]
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub handshake_timeout: Option<Duration>,
    /// How long after a handshake a client may resume its session, 1 s to 7 days; `None` switches
    /// resumption off. Default: 2 hours.
    ///
    /// The time is kept exactly, for session ids and tickets of TLS 1.2 and for tickets of TLS 1.3.
    /// Each resumption hands out a new ticket, with the whole time before it. Tickets end with the
    /// process and are not shared between processes.
    #[cfg_attr(feature = "serde", serde(default = "session_timeout"))]
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub session_timeout: Option<Duration>,
    /// Whether clients show certificates, and which are trusted. Default: they are not asked.
    #[cfg_attr(feature = "serde", serde(default))]
    pub mutual_tls: Option<MutualTls>,
    /// The application protocols (ALPN, RFC 7301), the best first. A client that offers only others
    /// is refused; one that offers none is served. Default: none.
    #[cfg_attr(feature = "serde", serde(default))]
    pub alpn: Vec<String>,
    /// A file to append the secrets of every connection to, for tools such as Wireshark: whoever
    /// reads it can read the traffic. Default: none.
    #[cfg_attr(feature = "serde", serde(default))]
    pub key_log_file: Option<PathBuf>,
}

#[cfg(feature = "serde")]
#[expect(clippy::unnecessary_wraps, reason = "the default of an optional field")]
fn handshake_timeout() -> Option<Duration> {
    Some(HANDSHAKE_TIMEOUT)
}

#[cfg(feature = "serde")]
#[expect(clippy::unnecessary_wraps, reason = "the default of an optional field")]
fn session_timeout() -> Option<Duration> {
    Some(DEFAULT_SESSION_TIMEOUT)
}

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_SESSION_TIMEOUT: Duration = Duration::from_secs(2 * 3600);

impl ListenerSecureSocket {
    /// TLS with this key, and the defaults.
    pub fn new(key: impl Into<Key>) -> Self {
        Self {
            key: key.into(),
            sni_keys: Vec::new(),
            protocol: Protocol::default(),
            ciphers: Vec::new(),
            prefer_server_ciphers: false,
            handshake_timeout: Some(HANDSHAKE_TIMEOUT),
            session_timeout: Some(DEFAULT_SESSION_TIMEOUT),
            mutual_tls: None,
            alpn: Vec::new(),
            key_log_file: None,
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        self.key.check()?;
        self.sni_keys.iter().try_for_each(Key::check)?;
        check_times(self.handshake_timeout, self.session_timeout)?;
        check_alpn(&self.alpn)?;
        crate::tls::check_spoken(&self.protocol.versions, &self.ciphers)?;
        match &self.mutual_tls {
            Some(mutual) => mutual.check(),
            None => Ok(()),
        }
    }
}

setters! { ListenerSecureSocket {
    key: impl Into<Key> => key.into();
    sni_keys: impl IntoIterator<Item = Key> => sni_keys.into_iter().collect();
    protocol: Protocol => protocol;
    ciphers: impl IntoIterator<Item = CipherSuite> => ciphers.into_iter().collect();
    prefer_server_ciphers: bool => prefer_server_ciphers;
    handshake_timeout: impl Into<Option<Duration>> => handshake_timeout.into();
    session_timeout: impl Into<Option<Duration>> => session_timeout.into();
    mutual_tls: impl Into<Option<MutualTls>> => mutual_tls.into();
    alpn: impl IntoIterator<Item = impl Into<String>> => alpn.into_iter().map(Into::into).collect();
    key_log_file: impl Into<PathBuf> => Some(key_log_file.into());
}}

/// How a [`Client`](crate::Client) speaks TLS.
///
/// By default the server's certificate has to be issued by an authority that the system trusts, for
/// the host that is connected to. Clones of one record share what was read from its files and the
/// sessions of earlier connections, so that later ones resume: keep the record and clone it for
/// each connection. Files are read at the first connection; a new record reads them again.
///
/// ```no_run
/// # async fn example() -> onbytes::Result<()> {
/// use onbytes::{Client, ClientConfiguration, ClientSecureSocket};
///
/// let config = ClientConfiguration::new().secure_socket(ClientSecureSocket::new().cert("ca.pem"));
/// let client = Client::connect("example.org", 3000, config.clone()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, rename_all = "camelCase"))]
pub struct ClientSecureSocket {
    /// `false` means plain TCP, whatever the other fields say. Default: `true`.
    pub enable: bool,
    /// Whom to trust. Default: the system's authorities.
    pub cert: Trust,
    /// A client certificate and its key, for servers that ask for one. Default: none.
    pub key: Option<Key>,
    /// The protocol versions. Default: TLS 1.2 and TLS 1.3.
    pub protocol: Protocol,
    /// The cipher suites, the best first; empty means all that are served. Default: empty.
    pub ciphers: Vec<CipherSuite>,
    /// The longest time for a handshake. Default: 10 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub handshake_timeout: Option<Duration>,
    /// How long after a handshake its session may be resumed, 1 s to 7 days, if the server allows
    /// it; `None` switches resumption off. Default: 2 hours.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub session_timeout: Option<Duration>,
    /// Whether the certificate has to be for the host that is connected to (or for `server_name`).
    /// A certificate that stands in `cert` itself is trusted as it is and needs no name. Switched
    /// off, the chain is still verified. Default: `true`.
    pub verify_hostname: bool,
    /// The name to send (SNI) and to look for in the certificate, in the place of the host that is
    /// connected to. Default: that host.
    pub server_name: Option<String>,
    /// Whether a certificate that stands in `cert` itself must be within its dates too; otherwise
    /// an expired one is trusted with a warning, as in the connector. Default: `false`.
    pub strict_validity: bool,
    /// The application protocols to offer (ALPN, RFC 7301), the best first. Default: none.
    pub alpn: Vec<String>,
    /// A file to append the secrets of every connection to, for tools such as Wireshark: whoever
    /// reads it can read the traffic. Default: none.
    pub key_log_file: Option<PathBuf>,
    /// What was made of the fields above at the first connection.
    #[cfg_attr(feature = "serde", serde(skip))]
    pub(crate) prepared: crate::tls::Prepared,
}

impl Default for ClientSecureSocket {
    fn default() -> Self {
        Self {
            enable: true,
            cert: Trust::System,
            key: None,
            protocol: Protocol::default(),
            ciphers: Vec::new(),
            handshake_timeout: Some(HANDSHAKE_TIMEOUT),
            session_timeout: Some(DEFAULT_SESSION_TIMEOUT),
            verify_hostname: true,
            server_name: None,
            strict_validity: false,
            alpn: Vec::new(),
            key_log_file: None,
            prepared: crate::tls::Prepared::default(),
        }
    }
}

impl ClientSecureSocket {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !self.enable {
            return Ok(());
        }
        self.cert.check()?;
        if let Some(key) = &self.key {
            key.check()?;
        }
        if let Some(name) = &self.server_name {
            crate::tls::server_name(name)
                .map_err(|error| Error::configuration(format!("server_name: {error}")))?;
        }
        check_times(self.handshake_timeout, self.session_timeout)?;
        check_alpn(&self.alpn)?;
        crate::tls::check_spoken(&self.protocol.versions, &self.ciphers)
    }
}

setters! { ClientSecureSocket {
    enable: bool => enable;
    cert: impl Into<Trust> => cert.into();
    key: impl Into<Key> => Some(key.into());
    protocol: Protocol => protocol;
    ciphers: impl IntoIterator<Item = CipherSuite> => ciphers.into_iter().collect();
    handshake_timeout: impl Into<Option<Duration>> => handshake_timeout.into();
    session_timeout: impl Into<Option<Duration>> => session_timeout.into();
    verify_hostname: bool => verify_hostname;
    server_name: impl Into<String> => Some(server_name.into());
    strict_validity: bool => strict_validity;
    alpn: impl IntoIterator<Item = impl Into<String>> => alpn.into_iter().map(Into::into).collect();
    key_log_file: impl Into<PathBuf> => Some(key_log_file.into());
}}

/// A certificate with its private key.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Key {
    /// From a key store.
    KeyStore(KeyStore),
    /// From a certificate file and a key file.
    CertKey(CertKey),
}

impl Key {
    fn check(&self) -> Result<()> {
        match self {
            Self::KeyStore(store) => store.check(),
            Self::CertKey(files) => files.check(),
        }
    }
}

impl From<KeyStore> for Key {
    fn from(store: KeyStore) -> Self {
        Self::KeyStore(store)
    }
}

impl From<CertKey> for Key {
    fn from(files: CertKey) -> Self {
        Self::CertKey(files)
    }
}

/// A key store with a private key and its certificate: PKCS#12 (`.p12`, `.pfx`) or JKS.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, rename_all = "camelCase"))]
pub struct KeyStore {
    /// Where the store is.
    pub path: PathBuf,
    /// The password of the store.
    pub password: Password,
    /// The entry to use. Default: the first with a private key, with a warning where there are more.
    #[cfg_attr(feature = "serde", serde(default))]
    pub alias: Option<String>,
    /// The password of the entry, which in a JKS store may be another. Default: the store's.
    #[cfg_attr(feature = "serde", serde(default))]
    pub key_password: Option<Password>,
    /// A file with an OCSP response (DER) that is shown along with the certificate. It is read when
    /// the key is, and nobody else refreshes it. Default: none.
    #[cfg_attr(feature = "serde", serde(default))]
    pub ocsp_file: Option<PathBuf>,
}

impl KeyStore {
    /// The key store at `path`.
    pub fn new(path: impl Into<PathBuf>, password: impl Into<Password>) -> Self {
        Self {
            path: path.into(),
            password: password.into(),
            alias: None,
            key_password: None,
            ocsp_file: None,
        }
    }

    fn check(&self) -> Result<()> {
        must_have(!is_blank(&self.path), "KeyStore file location")?;
        must_have(!self.password.is_blank(), "KeyStore password")
    }
}

setters! { KeyStore {
    path: impl Into<PathBuf> => path.into();
    password: impl Into<Password> => password.into();
    alias: impl Into<String> => Some(alias.into());
    key_password: impl Into<Password> => Some(key_password.into());
    ocsp_file: impl Into<PathBuf> => Some(ocsp_file.into());
}}

/// A trust store with certificates to trust: PKCS#12 (`.p12`, `.pfx`) or JKS.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, rename_all = "camelCase"))]
pub struct TrustStore {
    /// Where the store is.
    pub path: PathBuf,
    /// The password of the store.
    pub password: Password,
}

impl TrustStore {
    /// The trust store at `path`.
    pub fn new(path: impl Into<PathBuf>, password: impl Into<Password>) -> Self {
        Self { path: path.into(), password: password.into() }
    }

    fn check(&self) -> Result<()> {
        must_have(!is_blank(&self.path), "TrustStore file location")?;
        must_have(!self.password.is_blank(), "TrustStore password")
    }
}

setters! { TrustStore {
    path: impl Into<PathBuf> => path.into();
    password: impl Into<Password> => password.into();
}}

/// A certificate file and the file of its private key.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, rename_all = "camelCase"))]
pub struct CertKey {
    /// The certificate, then the others of its chain: PEM, or one certificate in DER.
    pub cert_file: PathBuf,
    /// The private key: PKCS#8, PKCS#1 or SEC1, in PEM or DER; PKCS#8 may be encrypted. It may be
    /// the same PEM file as `cert_file`.
    pub key_file: PathBuf,
    /// The password of an encrypted key. Default: none.
    #[cfg_attr(feature = "serde", serde(default))]
    pub key_password: Option<Password>,
    /// A file with an OCSP response (DER) that is shown along with the certificate. It is read when
    /// the key is, and nobody else refreshes it. Default: none.
    #[cfg_attr(feature = "serde", serde(default))]
    pub ocsp_file: Option<PathBuf>,
}

impl CertKey {
    /// The certificate in `cert_file`, with the key in `key_file`.
    pub fn new(cert_file: impl Into<PathBuf>, key_file: impl Into<PathBuf>) -> Self {
        Self {
            cert_file: cert_file.into(),
            key_file: key_file.into(),
            key_password: None,
            ocsp_file: None,
        }
    }

    fn check(&self) -> Result<()> {
        must_have(!is_blank(&self.cert_file), "certificate file location")?;
        must_have(!is_blank(&self.key_file), "private key file location")
    }
}

setters! { CertKey {
    cert_file: impl Into<PathBuf> => cert_file.into();
    key_file: impl Into<PathBuf> => key_file.into();
    key_password: impl Into<Password> => Some(key_password.into());
    ocsp_file: impl Into<PathBuf> => Some(ocsp_file.into());
}}

/// Whom to trust.
///
/// Every certificate of a file or store is trusted as itself. Those of authorities (CA:TRUE) are
/// trusted for the certificates that they have issued, too.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub enum Trust {
    /// The authorities that the system trusts.
    #[default]
    System,
    /// The certificates in a file: PEM, or one in DER.
    File(PathBuf),
    /// The trusted certificates of a store.
    TrustStore(TrustStore),
}

impl Trust {
    fn check(&self) -> Result<()> {
        match self {
            Self::System => Ok(()),
            Self::File(path) => must_have(!is_blank(path), "certificate file location"),
            Self::TrustStore(store) => store.check(),
        }
    }
}

impl From<TrustStore> for Trust {
    fn from(store: TrustStore) -> Self {
        Self::TrustStore(store)
    }
}

macro_rules! trust_from_path {
    ($($path:ty),*) => {$(
        impl From<$path> for Trust {
            fn from(path: $path) -> Self {
                Self::File(path.into())
            }
        }
    )*};
}

trust_from_path!(&str, String, PathBuf, &std::path::Path);

/// Client certificates: whether clients have to show one, and which are trusted.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(deny_unknown_fields, rename_all = "camelCase"))]
pub struct MutualTls {
    /// The authorities, or the very certificates, that are trusted.
    pub cert: Trust,
    /// Whether a client without a certificate is refused. Default: it is.
    #[cfg_attr(feature = "serde", serde(default))]
    pub mode: ClientCertificates,
    /// Lists of revoked certificates (CRL, RFC 5280), PEM or DER. Where there are any, a client
    /// certificate has to be covered by a current list of its authority, unless it stands in `cert`
    /// itself; and one that is in a list of its issuer is refused in any case. Default: none.
    #[cfg_attr(feature = "serde", serde(default))]
    pub crl_files: Vec<PathBuf>,
}

impl MutualTls {
    /// Every client has to show a certificate that is trusted.
    pub fn required(cert: impl Into<Trust>) -> Self {
        Self { cert: cert.into(), mode: ClientCertificates::Required, crl_files: Vec::new() }
    }

    /// A client may show a certificate; one that is not trusted is refused.
    pub fn optional(cert: impl Into<Trust>) -> Self {
        Self { mode: ClientCertificates::Optional, ..Self::required(cert) }
    }

    fn check(&self) -> Result<()> {
        if self.cert == Trust::System {
            return Err(Error::configuration(
                "mutual_tls.cert must name the authorities of client certificates; the system's \
                 would let in everybody with a certificate of any public authority",
            ));
        }
        self.cert.check()
    }
}

setters! { MutualTls {
    cert: impl Into<Trust> => cert.into();
    mode: ClientCertificates => mode;
    crl_files: impl IntoIterator<Item = impl Into<PathBuf>> =>
        crl_files.into_iter().map(Into::into).collect();
}}

/// Whether clients have to show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase"))]
pub enum ClientCertificates {
    /// They are asked for one, and served without it.
    Optional,
    /// Without one they are refused.
    #[default]
    Required,
}

/// The protocol and its versions.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, rename_all = "camelCase"))]
pub struct Protocol {
    /// The name, which has no effect: what is spoken is TLS, under either name. Default: TLS.
    pub name: ProtocolName,
    /// The versions; empty means TLS 1.2 and TLS 1.3. Default: empty.
    pub versions: Vec<TlsVersion>,
}

impl Protocol {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }
}

setters! { Protocol {
    name: ProtocolName => name;
    versions: impl IntoIterator<Item = TlsVersion> => versions.into_iter().collect();
}}

/// The name of the protocol, as the connector has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "UPPERCASE"))]
pub enum ProtocolName {
    /// TLS.
    #[default]
    Tls,
    /// TLS under the name of its forerunner.
    Ssl,
}

/// A password, which shows in no message, no log and no `Debug` output.
///
/// It is written out where a record is written to a file.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(String);

impl Password {
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }

    fn is_blank(&self) -> bool {
        self.0.trim().is_empty()
    }
}

impl From<&str> for Password {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Password {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

fn is_blank(path: &std::path::Path) -> bool {
    path.to_str().is_some_and(|path| path.trim().is_empty())
}

/// The connector's own words for what is left out.
fn must_have(is_there: bool, what: &str) -> Result<()> {
    if is_there {
        return Ok(());
    }
    Err(Error::configuration(format!("{what} must be provided for secure connection")))
}

fn check_times(handshake: Option<Duration>, session: Option<Duration>) -> Result<()> {
    crate::config::not_zero("handshake_timeout", handshake)?;
    match session {
        Some(time) if !SESSION_TIMEOUT.contains(&time) => Err(Error::configuration(format!(
            "session_timeout must be between 1 s and 7 days, not {time:?}; to switch resumption \
             off, use None (\"off\" in files)"
        ))),
        _ => Ok(()),
    }
}

fn check_alpn(names: &[String]) -> Result<()> {
    match names.iter().find(|name| !(1..=255).contains(&name.len())) {
        Some(name) => Err(Error::configuration(format!(
            "alpn: a protocol name has 1 to 255 bytes, not {}",
            name.len()
        ))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(secure: &ListenerSecureSocket) -> String {
        secure.check().unwrap_err().to_string()
    }

    #[test]
    fn what_is_left_out_is_told_in_the_connectors_words() {
        let with = |key: Key| refused(&ListenerSecureSocket::new(key));
        let must = " must be provided for secure connection";
        let told = |what: &str| format!("{what}{must}");
        assert_eq!(with(CertKey::new("", "k").into()), told("certificate file location"));
        assert_eq!(with(CertKey::new("c", " ").into()), told("private key file location"));
        assert_eq!(with(KeyStore::new("", "p").into()), told("KeyStore file location"));
        assert_eq!(with(KeyStore::new("s", " ").into()), told("KeyStore password"));
        let client = |trust: Trust| ClientSecureSocket::new().cert(trust).check().unwrap_err();
        let store = |path, password| client(TrustStore::new(path, password).into()).to_string();
        assert_eq!(store("", "p"), told("TrustStore file location"));
        assert_eq!(store("s", ""), told("TrustStore password"));
        assert_eq!(client("".into()).to_string(), told("certificate file location"));
    }

    #[test]
    fn a_client_that_is_switched_off_is_not_looked_at() {
        assert!(ClientSecureSocket::new().enable(false).cert("").check().is_ok());
    }

    #[test]
    fn impossible_times_and_names_are_refused() {
        let secure = ListenerSecureSocket::new(CertKey::new("c", "k"));
        let zero = secure.clone().handshake_timeout(Duration::ZERO);
        assert!(refused(&zero).starts_with("handshake_timeout must be more than 0 s"));
        for time in [Duration::ZERO, Duration::from_millis(999), Duration::MAX] {
            assert!(refused(&secure.clone().session_timeout(time)).contains("1 s and 7 days"));
        }
        assert!(secure.clone().session_timeout(None).handshake_timeout(None).check().is_ok());
        assert!(refused(&secure.clone().alpn([""])).starts_with("alpn"));
        let mutual = secure.mutual_tls(MutualTls::required(Trust::System));
        assert!(refused(&mutual).starts_with("mutual_tls.cert"));
    }

    #[test]
    fn no_password_shows() {
        let store = KeyStore::new("s", "sesame").key_password("sesame");
        let secure = ListenerSecureSocket::new(store)
            .mutual_tls(MutualTls::required(TrustStore::new("t", "sesame")));
        assert!(!format!("{secure:?}").contains("sesame"));
    }
}
