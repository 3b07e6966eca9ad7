//! PKCS#12 (RFC 7292): stores as OpenSSL, Java and Windows write them.
//!
//! Keys stay locked until one is chosen, so opening a store costs its integrity check and one
//! decryption for each of its safes; all of it is counted ([`Effort`]).

use rustls::pki_types::CertificateDer;

use super::super::provider::primitives::{digest, hmac};
use super::der::{self, Der};
use super::encryption::{Effort, Locked, Purpose, Refusal, iterations, pbkdf2_key, pkcs12_key};
use super::store::{KeyEntry, Store, StoredCertificate, StoredKey};

type Result<T, E = Refusal> = std::result::Result<T, E>;

/// Does a sequence that goes on like this begin with version 3, as PKCS#12 and no other file does?
/// The rest may be missing: a store that was cut short is a damaged store.
pub(super) fn has_version(after_tag: &[u8]) -> bool {
    const VERSION: [u8; 3] = [0x02, 0x01, 0x03];
    let header = match after_tag {
        [0..=0x7f, ..] => 1,
        [long @ 0x81..=0x84, ..] => usize::from(long & 0x7f) + 1,
        _ => return false,
    };
    after_tag.get(header..).is_some_and(|content| content.starts_with(&VERSION))
}

pub(super) fn parse(data: &[u8], password: &str, effort: &mut Effort) -> Result<Store> {
    let mut pfx = Der::new(data).sequence().ok_or(Refusal::Damaged)?;
    pfx.number().ok_or(Refusal::Damaged)?;
    let safes = authenticated_safes(pfx.sequence().ok_or(Refusal::Damaged)?)?;
    let has_integrity = match pfx.sequence() {
        Some(mac) => check_integrity(mac, safes, password, effort).map(|()| true)?,
        None => false,
    };
    let mut store = Store { keys: Vec::new(), certificates: Vec::new(), has_integrity };
    let mut safes = Der::new(safes).sequence().ok_or(Refusal::Damaged)?;
    while !safes.is_empty() {
        read_safe(safes.sequence().ok_or(Refusal::Damaged)?, password, effort, &mut store)?;
    }
    Ok(store)
}

/// The octets under the integrity digest.
fn authenticated_safes(mut info: Der<'_>) -> Result<&[u8]> {
    match info.oid().ok_or(Refusal::Damaged)? {
        DATA => content(&mut info).and_then(|mut data| data.octets()).ok_or(Refusal::Damaged),
        SIGNED_DATA => Err(Refusal::Unsupported("a signature rather than a password".to_owned())),
        _ => Err(Refusal::Damaged),
    }
}

fn content<'a>(info: &mut Der<'a>) -> Option<Der<'a>> {
    info.inner(der::context(0))
}

/// `MacData`: RFC 7292, section 4, and RFC 9879 for PBMAC1.
fn check_integrity(
    mut mac: Der<'_>,
    data: &[u8],
    password: &str,
    effort: &mut Effort,
) -> Result<()> {
    let mut info = mac.sequence().ok_or(Refusal::Damaged)?;
    let mut algorithm = info.sequence().ok_or(Refusal::Damaged)?;
    let expected = info.octets().ok_or(Refusal::Damaged)?;
    let salt = mac.octets().ok_or(Refusal::Damaged)?;
    let rounds = iterations(if mac.is_empty() { Some(1) } else { mac.number() })?;
    let oid = algorithm.oid().ok_or(Refusal::Damaged)?;
    if oid == PBMAC1 {
        let parameters = algorithm.sequence().ok_or(Refusal::Damaged)?;
        return check_pbmac1(parameters, expected, data, password, effort);
    }
    let (digest, hmac): (&'static digest::Algorithm, _) = match oid {
        [0x2b, 0x0e, 0x03, 0x02, 0x1a] => {
            (&digest::SHA1_FOR_LEGACY_USE_ONLY, hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY)
        }
        [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 1] => (&digest::SHA256, hmac::HMAC_SHA256),
        [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 2] => (&digest::SHA384, hmac::HMAC_SHA384),
        [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 3] => (&digest::SHA512, hmac::HMAC_SHA512),
        _ => return Err(Refusal::Unsupported(format!("digest {}", der::dotted(oid)))),
    };
    effort.spend(u64::from(rounds.get()))?;
    let length = digest.output_len();
    let key = pkcs12_key(digest, Purpose::Integrity, password, salt, rounds, length);
    verify(hmac, &key, data, expected)
}

fn check_pbmac1(
    mut parameters: Der<'_>,
    expected: &[u8],
    data: &[u8],
    password: &str,
    effort: &mut Effort,
) -> Result<()> {
    let mut derivation = parameters.sequence().ok_or(Refusal::Damaged)?;
    let mut scheme = parameters.sequence().ok_or(Refusal::Damaged)?;
    derivation.oid().ok_or(Refusal::Damaged)?;
    let derivation = derivation.sequence().ok_or(Refusal::Damaged)?;
    let oid = scheme.oid().ok_or(Refusal::Damaged)?;
    let (length, hmac) = match oid {
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 9] => (32, hmac::HMAC_SHA256),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 10] => (48, hmac::HMAC_SHA384),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 11] => (64, hmac::HMAC_SHA512),
        _ => return Err(Refusal::Unsupported(format!("digest {}", der::dotted(oid)))),
    };
    verify(hmac, &pbkdf2_key(derivation, password, length, effort)?, data, expected)
}

fn verify(algorithm: hmac::Algorithm, key: &[u8], data: &[u8], expected: &[u8]) -> Result<()> {
    let key = hmac::Key::new(algorithm, key);
    hmac::verify(&key, data, expected).map_err(|_| Refusal::Password)
}

/// One safe, whose content may be encrypted as a whole.
fn read_safe(
    mut info: Der<'_>,
    password: &str,
    effort: &mut Effort,
    store: &mut Store,
) -> Result<()> {
    match info.oid().ok_or(Refusal::Damaged)? {
        DATA => {
            let bags = content(&mut info).and_then(|mut data| data.octets());
            read_bags(bags.ok_or(Refusal::Damaged)?, store).ok_or(Refusal::Damaged)
        }
        ENCRYPTED_DATA => {
            let locked = content(&mut info).and_then(encrypted).ok_or(Refusal::Damaged)?;
            let bags = locked.unlock(password, effort)?;
            // By chance a wrong password can leave a padding that looks right.
            read_bags(&bags, store).ok_or(Refusal::Password)
        }
        _ => Err(Refusal::Unsupported("a public key rather than a password".to_owned())),
    }
}

/// `EncryptedData` of CMS: RFC 5652, section 8.
fn encrypted(mut data: Der<'_>) -> Option<Locked<'_>> {
    let mut data = data.sequence()?;
    data.number()?;
    let mut info = data.sequence()?;
    info.oid()?;
    Some(Locked { algorithm: info.sequence()?, data: info.bytes(0x80)? })
}

fn read_bags(bags: &[u8], store: &mut Store) -> Option<()> {
    let mut bags = Der::only_sequence(bags)?;
    while !bags.is_empty() {
        read_bag(bags.sequence()?, store)?;
    }
    Some(())
}

fn read_bag(mut bag: Der<'_>, store: &mut Store) -> Option<()> {
    let kind = bag.oid()?;
    let mut value = bag.inner(der::context(0))?;
    let Attributes { alias, id, trusted } = attributes(bag)?;
    match kind {
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, kind @ 1..=2] => {
            let key = value.element()?.whole.to_vec();
            let key = if *kind == 1 { StoredKey::Open(key) } else { StoredKey::Locked(key) };
            store.keys.push(KeyEntry { alias, id, key, chain: Vec::new() });
        }
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x0a, 0x01, 3] => {
            let mut value = value.sequence()?;
            if value.oid()? == X509 {
                let der = CertificateDer::from(value.inner(der::context(0))?.octets()?.to_vec());
                store.certificates.push(StoredCertificate { alias, id, trusted, der });
            }
        }
        // Secrets and lists of revoked certificates are not for us.
        _ => {}
    }
    Some(())
}

#[derive(Default)]
struct Attributes {
    alias: Option<String>,
    id: Option<Vec<u8>>,
    trusted: bool,
}

fn attributes(mut bag: Der<'_>) -> Option<Attributes> {
    let mut found = Attributes::default();
    let Some(mut attributes) = bag.inner(der::SET) else {
        return Some(found);
    };
    while !attributes.is_empty() {
        let mut attribute = attributes.sequence()?;
        let kind = attribute.oid()?;
        let mut values = attribute.inner(der::SET)?;
        match kind {
            FRIENDLY_NAME => found.alias = values.bytes(BMP_STRING).map(utf16),
            LOCAL_KEY_ID => found.id = values.octets().map(<[u8]>::to_vec),
            // Java's mark of a trusted certificate; its value only says for what.
            ORACLE_TRUSTED => found.trusted = true,
            _ => {}
        }
    }
    Some(found)
}

fn utf16(text: &[u8]) -> String {
    let units = text.chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
    char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}

const BMP_STRING: u8 = 0x1e;
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
const SIGNED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02];
const ENCRYPTED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x06];
const PBMAC1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0e];
const FRIENDLY_NAME: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x14];
const LOCAL_KEY_ID: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x15];
const X509: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x16, 0x01];
// 2.16.840.1.113894.746875.1.1
const ORACLE_TRUSTED: &[u8] =
    &[0x60, 0x86, 0x48, 0x01, 0x86, 0xf9, 0x66, 0xad, 0xca, 0x7b, 0x01, 0x01];
