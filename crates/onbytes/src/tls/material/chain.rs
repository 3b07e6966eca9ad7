//! Certificates and how they hang together: the one that belongs to a key, then its issuers.

use std::collections::HashSet;
use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;

use super::Signer;
use super::algorithm::PublicKey;
use super::der::{self, Der};
use crate::tls::certificate::Certificate;

/// No chain of honest length comes near it; a crafted store has certificates without end.
const MOST: usize = 16;

/// A certificate with the others that lead to its authority, in that order.
pub(super) struct Chain {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// How many of those that were at hand do not belong to it.
    pub(super) left_out: usize,
}

/// The chain of the certificate that belongs to this key, from among `candidates`, however they are
/// ordered; none if there is no such certificate.
pub(super) fn link(candidates: Vec<&CertificateDer<'static>>, signer: &Signer) -> Option<Chain> {
    let info = signer.public_key()?;
    let key = PublicKey::parse(Der::only_sequence(&info)?)?;
    let parsed = candidates.into_iter().filter_map(|der| Some((der, Parts::parse(der)?)));
    let mut rest: Vec<_> = parsed.collect();
    let leaf = rest.iter().position(|(_, parts)| parts.key == Some(key))?;
    let mut chain = vec![rest.remove(leaf)];
    let mut next = 0;
    while next < chain.len() && chain.len() < MOST {
        let issuer = chain[next].1.issuer;
        let (issuers, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|(_, parts)| parts.subject == issuer);
        rest = others;
        for candidate in issuers {
            if chain.len() < MOST && !chain.iter().any(|(der, _)| *der == candidate.0) {
                chain.push(candidate);
            }
        }
        next += 1;
    }
    rest.retain(|(der, _)| !chain.iter().any(|(used, _)| used == der));
    let certificates = chain.into_iter().map(|(der, _)| der.clone()).collect();
    Some(Chain { certificates, left_out: rest.len() })
}

/// Is it built like a certificate?
pub(super) fn is_certificate(der: &[u8]) -> bool {
    Parts::parse(der).is_some()
}

/// Why TLS cannot work with this certificate's kind of key.
pub(super) fn unusable(der: &[u8]) -> Option<String> {
    Parts::parse(der)?.key?.algorithm.check().err()
}

pub(super) fn subject(der: &CertificateDer<'_>) -> String {
    Certificate::new(der).subject()
}

pub(super) fn drop_repeated(certificates: &mut Vec<CertificateDer<'static>>) {
    let mut seen = HashSet::new();
    certificates.retain(|der| seen.insert(der.clone()));
}

/// What a chain's dates are worth a warning for. They stop nothing: clients judge them, and some do
/// not look.
pub(super) fn date_warnings(chain: &Chain, source: &dyn fmt::Display) -> Vec<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let mut warnings = Vec::new();
    for (index, der) in chain.certificates.iter().enumerate() {
        if let Some(trouble) = date_trouble(der, now.try_into().unwrap_or(i64::MAX)) {
            let issuer = if index == 0 { "" } else { "issuer's " };
            warnings.push(format!("{issuer}certificate of {source} {trouble}"));
        }
    }
    warnings
}

fn date_trouble(der: &[u8], now: i64) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let validity = certificate.validity();
    if validity.not_after.timestamp() < now {
        return Some(format!("expired on {}", day(validity.not_after)));
    }
    (validity.not_before.timestamp() > now)
        .then(|| format!("is not valid before {}", day(validity.not_before)))
}

pub(super) fn day(time: ASN1Time) -> String {
    time.to_datetime().date().to_string()
}

/// The parts of a certificate by which they are put together (RFC 5280, section 4.1). Everything
/// else in it is the peers' to judge.
struct Parts<'a> {
    issuer: &'a [u8],
    subject: &'a [u8],
    /// None where the key is of no known form.
    key: Option<PublicKey<'a>>,
}

impl<'a> Parts<'a> {
    fn parse(certificate: &'a [u8]) -> Option<Self> {
        let mut certificate = Der::only_sequence(certificate)?;
        let mut body = certificate.sequence()?;
        let _signature_algorithm = certificate.sequence()?;
        let _signature = certificate.bits()?;
        let _version = body.bytes(der::context(0));
        let _serial_number = body.bytes(der::INTEGER)?;
        let _signature_algorithm = body.sequence()?;
        let issuer = body.bytes(der::SEQUENCE)?;
        let _validity = body.sequence()?;
        let subject = body.bytes(der::SEQUENCE)?;
        let key = PublicKey::parse(body.sequence()?);
        certificate.is_empty().then_some(Self { issuer, subject, key })
    }
}
