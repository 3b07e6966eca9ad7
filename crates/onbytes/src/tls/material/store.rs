//! Key stores and trust stores, of either format: what they hold, and how one entry is chosen.

use rustls::pki_types::CertificateDer;

use super::chain::{self, Chain};
use super::der::Der;
use super::encryption::{Effort, Locked, Refusal};
use super::files::Source;
use super::{Signer, jks, pem, pkcs12, private_key};
use crate::endpoint::shown;
use crate::{KeyStore, Password, Result, TrustStore};

/// A store with a crafted crowd of useless entries shall not keep us busy for long.
const MOST_TRIED: usize = 16;

/// What a store holds, in its own order.
pub(super) struct Store {
    pub(super) keys: Vec<KeyEntry>,
    /// The certificates that belong to no key entry of their own.
    pub(super) certificates: Vec<StoredCertificate>,
    /// Whether a digest over the whole store was checked with the password.
    pub(super) has_integrity: bool,
}

/// A private key, still as the store keeps it.
pub(super) struct KeyEntry {
    pub(super) alias: Option<String>,
    pub(super) id: Option<Vec<u8>>,
    pub(super) key: StoredKey,
    /// Its chain, where the store keeps one for each key.
    pub(super) chain: Vec<CertificateDer<'static>>,
}

pub(super) enum StoredKey {
    /// PKCS#8 as it is.
    Open(Vec<u8>),
    /// PKCS#8 under a password.
    Locked(Vec<u8>),
    /// What JKS has under its own encryption, in the frame of encrypted PKCS#8.
    Jks(Vec<u8>),
}

pub(super) struct StoredCertificate {
    pub(super) alias: Option<String>,
    pub(super) id: Option<Vec<u8>>,
    /// Whether the store itself says that it is an authority to trust.
    pub(super) trusted: bool,
    pub(super) der: CertificateDer<'static>,
}

/// The key that `wanted` names, with its chain, and what is worth a warning.
pub(super) fn parse_key_store(
    data: &[u8],
    wanted: &KeyStore,
    source: &Source<'_>,
) -> Result<(Signer, Chain, Vec<String>)> {
    let mut effort = Effort::new();
    let store = parse(data, wanted.password.reveal(), source, &mut effort)?;
    if store.keys.is_empty() {
        return Err(source.is("holds no private key"));
    }
    let mut warnings = Vec::new();
    if !store.has_integrity {
        warnings.push(format!(
            "{source} has no integrity digest: nothing shows whether it was changed"
        ));
    }
    let (entry, (signer, chain)) = match &wanted.alias {
        Some(alias) => {
            let entry = store.entry(alias).ok_or_else(|| {
                let (alias, names) = (shown(alias), store.names());
                source.is(format_args!("has no key entry '{alias}' (it has: {names})"))
            })?;
            (entry, store.identity(entry, wanted, source, &mut effort)?)
        }
        None => store.first_usable(wanted, source, &mut effort)?,
    };
    if wanted.alias.is_none() && store.keys.len() > 1 {
        warnings.push(format!(
            "{source} has several key entries, of which '{}' is used; to choose, give alias (it has: {})",
            store.name(entry),
            store.names()
        ));
    }
    Ok((signer, chain, warnings))
}

/// The certificates that a trust store trusts. In one without any key these are all, marked as
/// trusted or not: Java does not see those that OpenSSL exported, and people wonder why.
pub(super) fn parse_trust_store(
    data: &[u8],
    wanted: &TrustStore,
    source: &Source<'_>,
) -> Result<Vec<CertificateDer<'static>>> {
    let store = parse(data, wanted.password.reveal(), source, &mut Effort::new())?;
    let takes_all = store.keys.is_empty();
    let trusted = store.certificates.into_iter().filter(|stored| takes_all || stored.trusted);
    let mut trusted: Vec<_> = trusted.map(|stored| stored.der).collect();
    chain::drop_repeated(&mut trusted);
    if trusted.is_empty() {
        return Err(source.is("holds no trusted certificate"));
    }
    Ok(trusted)
}

fn parse(data: &[u8], password: &str, source: &Source<'_>, effort: &mut Effort) -> Result<Store> {
    let store = match Format::of(data) {
        Format::Pkcs12 => pkcs12::parse(data, password, effort),
        Format::Jks => jks::parse(data, password),
        Format::Jceks => {
            return Err(source.is(
                "is a JCEKS store; convert it with keytool -importkeystore -deststoretype PKCS12",
            ));
        }
        Format::Pem => {
            return Err(source.is(format_args!("is a PEM file; {}", instead_of_store(source))));
        }
        Format::Ber => {
            return Err(source.is(
                "is a PKCS#12 store in BER rather than DER; convert it with openssl pkcs12 to PEM \
                 and back with openssl pkcs12 -export",
            ));
        }
        Format::Der | Format::Other => return Err(source.is("is neither PKCS#12 nor JKS")),
    };
    let store = store.map_err(|refusal| match refusal {
        Refusal::Password => source.fails("wrong password, or the file is damaged"),
        other => source.is(refused(&other)),
    })?;
    for certificate in store.all_certificates() {
        if !chain::is_certificate(certificate) {
            return Err(source.fails("a certificate in it is damaged"));
        }
    }
    Ok(store)
}

fn instead_of_store(source: &Source<'_>) -> &'static str {
    if source.is_trust_store() { "give its path as cert" } else { "use cert_file and key_file" }
}

/// Why a store cannot be opened, other than by its password.
fn refused(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Password | Refusal::Damaged => "is damaged".to_owned(),
        Refusal::Work => TOO_MUCH_WORK.to_owned(),
        Refusal::Unsupported(how) => format!(
            "is protected with {how}, which is not supported; convert it with \
             keytool -importkeystore -deststoretype PKCS12"
        ),
    }
}

pub(super) const TOO_MUCH_WORK: &str =
    "asks for too much work to be opened: more than 10000000 iterations, or 1 GiB for scrypt";

impl Store {
    fn all_certificates(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        let of_keys = self.keys.iter().flat_map(|entry| &entry.chain);
        of_keys.chain(self.certificates.iter().map(|stored| &stored.der))
    }

    /// Java has written aliases in lower case whatever was asked for, so case does not matter.
    fn entry(&self, alias: &str) -> Option<&KeyEntry> {
        let alias = alias.to_lowercase();
        self.keys.iter().find(|entry| self.alias(entry).is_some_and(|a| a.to_lowercase() == alias))
    }

    /// The first entry that can be used, or why the very first cannot.
    fn first_usable(
        &self,
        wanted: &KeyStore,
        source: &Source<'_>,
        effort: &mut Effort,
    ) -> Result<(&KeyEntry, (Signer, Chain))> {
        let mut first = None;
        for entry in self.keys.iter().take(MOST_TRIED) {
            match self.identity(entry, wanted, source, effort) {
                Ok(identity) => return Ok((entry, identity)),
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| source.is("holds no private key")))
    }

    fn identity(
        &self,
        entry: &KeyEntry,
        wanted: &KeyStore,
        source: &Source<'_>,
        effort: &mut Effort,
    ) -> Result<(Signer, Chain)> {
        let fails =
            |why: &str| source.fails(format_args!("key entry '{}': {why}", self.name(entry)));
        let passwords = [wanted.key_password.as_ref(), Some(&wanted.password)];
        let key = entry.key.unlock(passwords, effort).map_err(|refusal| match refusal {
            Refusal::Password if wanted.key_password.is_some() => {
                fails("wrong key_password, or the file is damaged")
            }
            Refusal::Password if self.has_integrity => {
                fails("its password differs from the store's; give key_password")
            }
            Refusal::Password => source.fails("wrong password, or the file is damaged"),
            other => fails(&refused(&other)),
        })?;
        let signer = private_key::signer(&key).map_err(|problem| match problem {
            private_key::Problem::NotAKey => source.fails("wrong password, or the file is damaged"),
            private_key::Problem::Unusable(why) => fails(&why),
        })?;
        let chain = chain::link(self.candidates(entry), &signer)
            .ok_or_else(|| fails("the store has no certificate for this key"))?;
        Ok((signer, chain))
    }

    /// The certificates among which the key's and its chain are: those that the store itself ties
    /// to the key come first.
    fn candidates<'a>(&'a self, entry: &'a KeyEntry) -> Vec<&'a CertificateDer<'static>> {
        let tied = |stored: &StoredCertificate| stored.id.is_some() && stored.id == entry.id;
        let (first, rest): (Vec<_>, Vec<_>) = self.certificates.iter().partition(|s| tied(s));
        entry.chain.iter().chain(first.into_iter().chain(rest).map(|stored| &stored.der)).collect()
    }

    /// The alias of a key; where it has none, that of its certificate.
    fn alias<'a>(&'a self, entry: &'a KeyEntry) -> Option<&'a str> {
        let tied = || self.certificate_of(entry)?.alias.as_deref();
        entry.alias.as_deref().or_else(tied)
    }

    fn certificate_of(&self, entry: &KeyEntry) -> Option<&StoredCertificate> {
        let id = entry.id.as_ref()?;
        self.certificates.iter().find(|stored| stored.id.as_ref() == Some(id))
    }

    /// An entry's alias, or else its certificate's subject, for a message.
    fn name(&self, entry: &KeyEntry) -> String {
        if let Some(alias) = self.alias(entry) {
            return shown(alias);
        }
        let subject = self.certificate_of(entry).map(|stored| chain::subject(&stored.der));
        subject.filter(|subject| !subject.is_empty()).unwrap_or_else(|| "(no alias)".to_owned())
    }

    fn names(&self) -> String {
        const MOST: usize = 10;
        let names = self.keys.iter().take(MOST).map(|entry| self.name(entry));
        let mut names = names.collect::<Vec<_>>().join(", ");
        if self.keys.len() > MOST {
            names.push_str(&format!(" and {} more", self.keys.len() - MOST));
        }
        names
    }
}

impl StoredKey {
    /// The key as PKCS#8, by the first of these passwords that opens it.
    fn unlock(
        &self,
        passwords: [Option<&Password>; 2],
        effort: &mut Effort,
    ) -> std::result::Result<Vec<u8>, Refusal> {
        let mut last = Refusal::Password;
        for password in passwords.into_iter().flatten() {
            match self.unlock_with(password.reveal(), effort) {
                // By chance a wrong password can leave a padding that looks right, but not a key.
                Ok(key) if private_key::looks_like_pkcs8(&key) => return Ok(key),
                Ok(_) => last = Refusal::Password,
                Err(refusal) => last = refusal,
            }
        }
        Err(last)
    }

    fn unlock_with(
        &self,
        password: &str,
        effort: &mut Effort,
    ) -> std::result::Result<Vec<u8>, Refusal> {
        match self {
            Self::Open(key) => Ok(key.clone()),
            Self::Locked(info) => {
                Locked::key(info).ok_or(Refusal::Damaged)?.unlock(password, effort)
            }
            Self::Jks(info) => jks::unlock(info, password),
        }
    }
}

/// What a file is, by its first bytes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Format {
    Pem,
    Jks,
    Jceks,
    Pkcs12,
    /// PKCS#12 whose outermost length is not written down.
    Ber,
    /// Some other DER, or what was left of it.
    Der,
    Other,
}

impl Format {
    pub(super) fn of(data: &[u8]) -> Self {
        match data {
            [0xfe, 0xed, 0xfe, 0xed, ..] => Self::Jks,
            [0xce, 0xce, 0xce, 0xce, ..] => Self::Jceks,
            [0x30, 0x80, 0x02, 0x01, 0x03, ..] => Self::Ber,
            [0x30, rest @ ..] if pkcs12::has_version(rest) => Self::Pkcs12,
            // Text may begin with the digit 0, which is the tag of a sequence.
            _ if Der::only_sequence(data).is_some() => Self::Der,
            _ if pem::is_pem(data) => Self::Pem,
            [0x30, ..] => Self::Der,
            _ => Self::Other,
        }
    }

    /// What to say where a store was given for a file of its own field.
    pub(super) fn store_name(self) -> Option<&'static str> {
        match self {
            Self::Pkcs12 | Self::Ber => Some("PKCS#12"),
            Self::Jks => Some("JKS"),
            Self::Jceks => Some("JCEKS"),
            _ => None,
        }
    }
}
