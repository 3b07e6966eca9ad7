//! Making keys and certificates.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::signature::Ed25519KeyPair;
use aws_lc_rs::{digest, rand};
use clap::ValueEnum;
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    PKCS_ECDSA_P384_SHA384, SanType, SerialNumber,
};
use time::OffsetDateTime;

use super::host::Host;
use crate::failure::Failure;

const HOUR: i64 = 60 * 60;
const DAY: i64 = 24 * HOUR;

/// The most days from a certificate's first second to its last.
pub(super) const MOST_DAYS: u16 = 366;

/// The longest common name that RFC 5280 has room for.
const LONGEST_COMMON_NAME: usize = 64;

/// What kind of key a certificate is for.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum KeyType {
    /// ECDSA on NIST P-256
    P256,
    /// ECDSA on NIST P-384
    P384,
    /// Ed25519; Java 15 and newer, and few browsers
    Ed25519,
}

/// From when to when certificates are valid, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    from: i64,
    until: i64,
}

impl Validity {
    /// So many days from now on.
    pub(super) fn from_now(days: u16) -> Result<Self, Failure> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let validity = Self::at(i64::try_from(now).unwrap_or(i64::MAX / 2), days);
        date(validity.until)?;
        Ok(validity)
    }

    fn at(now: i64, days: u16) -> Self {
        // Some clocks are behind ours.
        let from = now - HOUR;
        let wanted = now + i64::from(days) * DAY;
        let last = from + i64::from(MOST_DAYS) * DAY;
        // Both ends are part of the time, RFC 5280 says.
        Self { from, until: wanted.min(last) - 1 }
    }

    /// The last second, for people.
    pub(super) fn end(&self) -> Result<String, Failure> {
        let end = date(self.until)?;
        let (hours, minutes, seconds) = end.to_hms();
        Ok(format!("{} {hours:02}:{minutes:02}:{seconds:02} UTC", end.date()))
    }
}

fn date(seconds: i64) -> Result<OffsetDateTime, Failure> {
    OffsetDateTime::from_unix_timestamp(seconds)
        .map_err(|_| Failure::outside("this machine's clock is thousands of years off; set it"))
}

/// A certificate and the key that belongs to it.
pub(super) struct Identity {
    key: KeyPair,
    certificate: Certificate,
}

impl Identity {
    pub(super) fn key(&self) -> &KeyPair {
        &self.key
    }

    pub(super) fn certificate(&self) -> &Certificate {
        &self.certificate
    }
}

/// A CA: a certificate and a key that sign others.
pub(super) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(super) fn key(&self) -> &KeyPair {
        self.0.key()
    }

    pub(super) fn certificate(&self) -> &Certificate {
        self.0.as_ref()
    }
}

/// What all keys and certificates of one run have in common.
pub(super) struct Press {
    pub(super) key_type: KeyType,
    pub(super) validity: Validity,
}

impl Press {
    /// A server's certificate for `hosts`, signed by itself.
    pub(super) fn self_signed_server(&self, hosts: &[Host]) -> Result<Identity, Failure> {
        let key = self.key()?;
        let certificate = self.server_params(hosts)?.self_signed(&key).map_err(failed)?;
        Ok(Identity { key, certificate })
    }

    /// A CA that signs certificates of servers and clients, and of no further CAs.
    pub(super) fn authority(&self) -> Result<Authority, Failure> {
        let mut params = self.params("onbytes CA")?;
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        CertifiedIssuer::self_signed(params, self.key()?).map(Authority).map_err(failed)
    }

    /// A server's certificate for `hosts`, signed by `authority`.
    pub(super) fn server(
        &self,
        hosts: &[Host],
        authority: &Authority,
    ) -> Result<Identity, Failure> {
        self.signed(&self.server_params(hosts)?, authority)
    }

    /// A client's certificate, signed by `authority`.
    pub(super) fn client(&self, authority: &Authority) -> Result<Identity, Failure> {
        let mut params = self.leaf_params("onbytes client", ExtendedKeyUsagePurpose::ClientAuth)?;
        params.subject_alt_names = vec![dns_name("client")?];
        self.signed(&params, authority)
    }

    fn signed(
        &self,
        params: &CertificateParams,
        authority: &Authority,
    ) -> Result<Identity, Failure> {
        let key = self.key()?;
        let certificate = params.signed_by(&key, &authority.0).map_err(failed)?;
        Ok(Identity { key, certificate })
    }

    fn server_params(&self, hosts: &[Host]) -> Result<CertificateParams, Failure> {
        let name = common_name(hosts);
        let mut params = self.leaf_params(&name, ExtendedKeyUsagePurpose::ServerAuth)?;
        params.subject_alt_names = hosts.iter().map(alt_name).collect::<Result<_, _>>()?;
        Ok(params)
    }

    fn leaf_params(
        &self,
        name: &str,
        purpose: ExtendedKeyUsagePurpose,
    ) -> Result<CertificateParams, Failure> {
        let mut params = self.params(name)?;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![purpose];
        Ok(params)
    }

    fn params(&self, name: &str) -> Result<CertificateParams, Failure> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        params.serial_number = Some(serial_number()?);
        params.not_before = date(self.validity.from)?;
        params.not_after = date(self.validity.until)?;
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    fn key(&self) -> Result<KeyPair, Failure> {
        match self.key_type {
            KeyType::P256 => KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(failed),
            KeyType::P384 => KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).map_err(failed),
            KeyType::Ed25519 => {
                // rcgen's own would be of PKCS#8 version 2, which OpenSSL 3.0 does not read.
                let key = Ed25519KeyPair::generate().map_err(failed)?;
                let key = key.to_pkcs8v1().map_err(failed)?;
                KeyPair::try_from(key.as_ref()).map_err(failed)
            }
        }
    }
}

/// The first host, where there is room for it. Clients look at the alternative names.
fn common_name(hosts: &[Host]) -> String {
    let first = hosts.first().map(Host::to_string).unwrap_or_default();
    if (1..=LONGEST_COMMON_NAME).contains(&first.len()) {
        first
    } else {
        "onbytes server".to_owned()
    }
}

fn alt_name(host: &Host) -> Result<SanType, Failure> {
    match host {
        Host::Name(name) => dns_name(name),
        Host::Address(address) => Ok(SanType::IpAddress(*address)),
    }
}

fn dns_name(name: &str) -> Result<SanType, Failure> {
    name.try_into().map(SanType::DnsName).map_err(failed)
}

/// A random number of 127 bits: positive, and never with a byte too few.
fn serial_number() -> Result<SerialNumber, Failure> {
    let mut bytes = random_bytes::<16>()?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Ok(SerialNumber::from_slice(&bytes))
}

pub(super) fn random_bytes<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).map_err(|_| Failure::outside("the system gives no random numbers"))?;
    Ok(bytes)
}

/// The SHA-256 of a certificate.
pub(super) fn fingerprint(certificate: &Certificate) -> Vec<u8> {
    digest::digest(&digest::SHA256, certificate.der()).as_ref().to_vec()
}

#[allow(clippy::needless_pass_by_value)] // For `map_err`.
fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::outside(format!("cannot make a certificate: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_800_000_000;

    #[test]
    fn certificates_are_valid_from_an_hour_ago_for_the_wanted_days() {
        for days in [1, 30, 365] {
            let validity = Validity::at(NOW, days);
            assert_eq!(validity.from, NOW - 3_600);
            assert_eq!(validity.until, NOW + i64::from(days) * 86_400 - 1);
        }
    }

    #[test]
    fn no_certificate_is_valid_for_more_than_366_days() {
        for days in 1..=366 {
            let Validity { from, until } = Validity::at(NOW, days);
            // The last second counts.
            assert!(until - from < 366 * 86_400, "{days}");
        }
        assert_eq!(Validity::at(NOW, 366).until, NOW - 3_600 + 366 * 86_400 - 1);
    }

    #[test]
    fn the_end_is_told_in_utc() {
        let validity = Validity { from: 0, until: 1_800_000_005 };
        assert_eq!(validity.end().unwrap(), "2027-01-15 08:00:05 UTC");
        assert!(Validity { from: 0, until: i64::MAX }.end().is_err());
    }

    #[test]
    fn serial_numbers_are_positive_and_differ() {
        let serials: Vec<_> = (0..100).map(|_| serial_number().unwrap().to_bytes()).collect();
        for (n, serial) in serials.iter().enumerate() {
            assert!(serial.len() == 16 && (0x40..0x80).contains(&serial[0]), "{serial:?}");
            assert!(!serials[..n].contains(serial));
        }
    }

    #[test]
    fn a_name_too_long_for_a_common_name_is_an_alternative_name_only() {
        let host = |length: usize| [Host::Name("a".repeat(length))];
        assert_eq!(common_name(&host(64)).len(), 64);
        assert_eq!(common_name(&host(65)), "onbytes server");
    }
}
