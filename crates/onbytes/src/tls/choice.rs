//! Which certificate a client is shown, which suites and versions are spoken.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{SignatureAlgorithm, SupportedCipherSuite, SupportedProtocolVersion};

use super::certificate::{Certificate, SubjectAltName};
use super::provider::{aes_is_cheap, provider};
use crate::{CipherSuite, Error, Result, TlsVersion};

// ---- Certificates by server name ----

/// The certificates of a listener, by the server names that they hold.
pub(super) struct Certificates {
    all: Vec<Arc<CertifiedKey>>,
    by_name: HashMap<String, Vec<usize>>,
}

impl Certificates {
    /// The first is for whoever names no server, or none that the others hold.
    pub(super) fn new(all: Vec<Arc<CertifiedKey>>) -> Self {
        let mut by_name: HashMap<_, Vec<_>> = HashMap::new();
        for (place, certified) in all.iter().enumerate() {
            for name in names_of(certified) {
                by_name.entry(name).or_default().push(place);
            }
        }
        Self { all, by_name }
    }

    /// The subjects of those beside the first that no server name leads to.
    pub(super) fn nameless(&self) -> impl Iterator<Item = String> {
        let nameless = self.all.iter().skip(1).filter(|certified| names_of(certified).is_empty());
        nameless.filter_map(|certified| Some(Certificate::new(certified.cert.first()?).subject()))
    }

    fn places(&self, name: &str) -> Option<&Vec<usize>> {
        let name = name.to_ascii_lowercase();
        self.by_name.get(&name).or_else(|| {
            let (_, parent) = name.split_once('.')?;
            self.by_name.get(&format!("*.{parent}"))
        })
    }
}

fn names_of(certified: &CertifiedKey) -> Vec<String> {
    let Some(own) = certified.cert.first() else { return Vec::new() };
    let names = Certificate::new(own).subject_alt_names();
    let dns = names.into_iter().filter_map(|name| match name {
        SubjectAltName::Dns(name) => Some(name.to_ascii_lowercase()),
        _ => None,
    });
    dns.collect()
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        super::hello::note_server_name(hello.server_name());
        let named = hello.server_name().and_then(|name| self.places(name));
        let schemes = hello.signature_schemes();
        let suits = |place: &&usize| self.all[**place].key.choose_scheme(schemes).is_some();
        // Where one name has keys of several kinds, the first that the client can verify.
        let place = match named {
            Some(places) => places.iter().find(suits).or(places.first()).copied(),
            None => (0..self.all.len()).find(|place| suits(&place)),
        };
        self.all.get(place.unwrap_or(0)).cloned()
    }
}

impl fmt::Debug for Certificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificates").field("names", &self.by_name.keys()).finish_non_exhaustive()
    }
}

// ---- Versions and suites ----

/// What is spoken, and what is worth a warning.
pub(super) struct Spoken {
    pub(super) provider: Arc<CryptoProvider>,
    pub(super) versions: Vec<&'static SupportedProtocolVersion>,
    pub(super) warnings: Vec<String>,
}

/// Makes versions and suites out of what was asked for; empty means all.
pub(super) fn spoken(versions: &[TlsVersion], ciphers: &[CipherSuite]) -> Result<Spoken> {
    let mut warnings = Vec::new();
    let asked = versions;
    let versions = usable_versions(asked, &mut warnings)?;
    let suites = usable_suites(ciphers, &mut warnings)?;
    let speaks = |version: &TlsVersion| suites.iter().any(|suite| version_of(*suite) == *version);
    let spoken: Vec<_> = versions.iter().copied().filter(speaks).collect();
    if spoken.is_empty() {
        return Err(Error::configuration(format!(
            "none of the ciphers can be used with the protocol versions; {} has: {}",
            versions.first().map_or("TLS", |version| version.as_str()),
            names(provider().cipher_suites.iter().copied().filter(|suite| {
                versions.first().is_some_and(|version| version_of(*suite) == *version)
            })),
        )));
    }
    // Whoever names suites of one version and no version means that one.
    for version in asked.iter().filter(|asked| versions.contains(asked) && !spoken.contains(asked))
    {
        warnings.push(format!("no cipher of {version} is given, so it is not spoken"));
    }
    let suites = suites.into_iter().filter(|suite| spoken.contains(&version_of(*suite))).collect();
    let provider = CryptoProvider { cipher_suites: suites, ..(*provider()).clone() };
    let versions = spoken.into_iter().filter_map(of_rustls).collect();
    Ok(Spoken { provider: Arc::new(provider), versions, warnings })
}

impl Spoken {
    /// Puts the suites in our order; for whoever has not said which.
    pub(super) fn put_in_our_order(&mut self) {
        let provider = Arc::make_mut(&mut self.provider);
        provider.cipher_suites = in_our_order(&provider.cipher_suites);
    }
}

/// Whether anything can be spoken at all.
pub(crate) fn check_spoken(versions: &[TlsVersion], ciphers: &[CipherSuite]) -> Result<()> {
    spoken(versions, ciphers).map(drop)
}

fn usable_versions(asked: &[TlsVersion], warnings: &mut Vec<String>) -> Result<Vec<TlsVersion>> {
    if asked.is_empty() {
        return Ok(vec![TlsVersion::Tls12, TlsVersion::Tls13]);
    }
    let (usable, unusable): (Vec<_>, Vec<_>) =
        asked.iter().copied().partition(|version| version.is_supported());
    if usable.is_empty() {
        return Err(Error::configuration(format!(
            "protocol versions: not served, because not safe (RFC 8996): {}; give TLSv1.2, TLSv1.3",
            list(&unusable)
        )));
    }
    if !unusable.is_empty() {
        warnings.push(format!("not served, and left out: protocol versions {}", list(&unusable)));
    }
    Ok(usable)
}

fn usable_suites(
    asked: &[CipherSuite],
    warnings: &mut Vec<String>,
) -> Result<Vec<SupportedCipherSuite>> {
    let all = &provider().cipher_suites;
    if asked.is_empty() {
        return Ok(all.clone());
    }
    let find = |suite: &CipherSuite| all.iter().find(|known| code_of(**known) == suite.code());
    let usable: Vec<_> = asked.iter().filter_map(find).copied().collect();
    let unusable: Vec<_> = asked.iter().copied().filter(|suite| find(suite).is_none()).collect();
    if usable.is_empty() {
        return Err(Error::configuration(format!(
            "ciphers: not served (no CBC, no RSA key exchange and nothing older): {}; accepted: {}",
            list(&unusable),
            names(in_our_order(all).into_iter())
        )));
    }
    if !unusable.is_empty() {
        warnings.push(format!("not served, and left out: ciphers {}", list(&unusable)));
    }
    Ok(usable)
}

/// The suites of the newer version first, and of these the cheaper ones. AES with 128 bits is safe for
/// as long as anybody can tell, and costs a connection less, most of all its handshake: SHA-256 is in
/// the instructions of processors, SHA-384 in those of few.
fn in_our_order(all: &[SupportedCipherSuite]) -> Vec<SupportedCipherSuite> {
    let mut suites = all.to_vec();
    if aes_is_cheap() {
        suites.sort_by_key(|suite| (Reverse(version_of(*suite)), cost_of(*suite)));
    }
    suites
}

fn cost_of(suite: SupportedCipherSuite) -> u8 {
    match suite.suite() {
        rustls::CipherSuite::TLS13_AES_128_GCM_SHA256
        | rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | rustls::CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 0,
        rustls::CipherSuite::TLS13_AES_256_GCM_SHA384
        | rustls::CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384
        | rustls::CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 => 1,
        _ => 2,
    }
}

fn list(names: &[impl ToString]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn names(suites: impl Iterator<Item = SupportedCipherSuite>) -> String {
    let known = suites.filter_map(|suite| CipherSuite::of_code(code_of(suite)));
    list(&known.collect::<Vec<_>>())
}

fn code_of(suite: SupportedCipherSuite) -> u16 {
    u16::from(suite.suite())
}

/// The suite, under our name for it.
pub(super) fn named(suite: SupportedCipherSuite) -> Option<CipherSuite> {
    CipherSuite::of_code(code_of(suite))
}

fn version_of(suite: SupportedCipherSuite) -> TlsVersion {
    match suite {
        SupportedCipherSuite::Tls13(_) => TlsVersion::Tls13,
        SupportedCipherSuite::Tls12(_) => TlsVersion::Tls12,
    }
}

fn of_rustls(version: TlsVersion) -> Option<&'static SupportedProtocolVersion> {
    match version {
        TlsVersion::Tls12 => Some(&rustls::version::TLS12),
        TlsVersion::Tls13 => Some(&rustls::version::TLS13),
        TlsVersion::Tls10 | TlsVersion::Tls11 => None,
    }
}

/// Whether a suite of `spoken` can be used with `key`. In TLS 1.2 a suite is for one kind of key.
pub(super) fn check_key(spoken: &Spoken, key: &CertifiedKey) -> Result<()> {
    let is_usable = spoken.provider.cipher_suites.iter().any(|suite| match suite {
        SupportedCipherSuite::Tls13(_) => true,
        SupportedCipherSuite::Tls12(suite) => key.key.choose_scheme(suite.sign).is_some(),
    });
    if is_usable {
        return Ok(());
    }
    Err(Error::configuration(format!(
        "none of the ciphers can be used with a key of the kind {:?}; give {}, or a suite of TLS 1.3",
        key.key.algorithm(),
        if key.key.algorithm() == SignatureAlgorithm::RSA {
            "TLS_ECDHE_RSA_…"
        } else {
            "TLS_ECDHE_ECDSA_…"
        }
    )))
}
