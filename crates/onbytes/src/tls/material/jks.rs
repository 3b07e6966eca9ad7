//! JKS, Java's own store before PKCS#12.
//!
//! The digest over the whole file is checked before anything in it is believed. Everything is a
//! slice of the file, and each entry takes some of it, so a crafted count costs nothing either.

use rustls::pki_types::CertificateDer;

use super::super::provider::primitives::digest::{Context, Digest, SHA1_FOR_LEGACY_USE_ONLY};
use super::encryption::{Locked, Refusal};
use super::store::{KeyEntry, Store, StoredCertificate, StoredKey};

const DIGEST: usize = 20;

pub(super) fn parse(data: &[u8], password: &str) -> Result<Store, Refusal> {
    let (content, digest) =
        data.len().checked_sub(DIGEST).map(|end| data.split_at(end)).ok_or(Refusal::Damaged)?;
    if sha1(&[&utf16(password), b"Mighty Aphrodite", content]).as_ref() != digest {
        return Err(Refusal::Password);
    }
    entries(Reader(content)).ok_or(Refusal::Damaged)
}

fn entries(mut reader: Reader<'_>) -> Option<Store> {
    let mut store = Store { keys: Vec::new(), certificates: Vec::new(), has_integrity: true };
    reader.number()?;
    let version = reader.number().filter(|version| matches!(version, 1 | 2))?;
    for _ in 0..reader.number()? {
        let kind = reader.number()?;
        let alias = Some(String::from_utf8_lossy(reader.short()?).into_owned());
        let _creation_date = reader.take(8)?;
        if kind == 1 {
            let key = StoredKey::Jks(reader.long()?.to_vec());
            let mut chain = Vec::new();
            for _ in 0..reader.number()? {
                chain.push(reader.certificate(version)?);
            }
            store.keys.push(KeyEntry { alias, id: None, key, chain });
        } else if kind == 2 {
            let der = reader.certificate(version)?;
            store.certificates.push(StoredCertificate { alias, id: None, trusted: true, der });
        } else {
            return None;
        }
    }
    Some(store)
}

/// What is left of the file. All numbers are big-endian.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    /// Bytes with their count, in two bytes.
    fn short(&mut self) -> Option<&'a [u8]> {
        let count = self.take(2)?;
        self.take(usize::from(count[0]) << 8 | usize::from(count[1]))
    }

    /// Bytes with their count, in four bytes.
    fn long(&mut self) -> Option<&'a [u8]> {
        let count = self.number()?;
        self.take(usize::try_from(count).ok()?)
    }

    fn certificate(&mut self, version: u32) -> Option<CertificateDer<'static>> {
        if version == 2 {
            let _type = self.short()?;
        }
        Some(CertificateDer::from(self.long()?.to_vec()))
    }
}

/// A private key is XORed with a stream of digests, and has a digest of its own.
pub(super) fn unlock(info: &[u8], password: &str) -> Result<Vec<u8>, Refusal> {
    let locked = Locked::key(info).ok_or(Refusal::Damaged)?;
    let (salt, rest) = locked.data.split_at_checked(DIGEST).ok_or(Refusal::Damaged)?;
    let end = rest.len().checked_sub(DIGEST).ok_or(Refusal::Damaged)?;
    let (sealed, check) = rest.split_at(end);
    let password = utf16(password);
    let mut stream = sha1(&[&password, salt]);
    let mut key = Vec::with_capacity(sealed.len());
    for part in sealed.chunks(DIGEST) {
        key.extend(part.iter().zip(stream.as_ref()).map(|(byte, mask)| byte ^ mask));
        stream = sha1(&[&password, stream.as_ref()]);
    }
    if sha1(&[&password, &key]).as_ref() != check {
        return Err(Refusal::Password);
    }
    Ok(key)
}

fn utf16(password: &str) -> Vec<u8> {
    password.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

fn sha1(parts: &[&[u8]]) -> Digest {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    for part in parts {
        context.update(part);
    }
    context.finish()
}
