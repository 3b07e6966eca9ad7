//! A certificate as users see it: a peer's, after a handshake.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer as _, X509Certificate};
use x509_parser::time::ASN1Time;
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use super::provider::primitives::digest;

/// An X.509 certificate.
///
/// It shows what the certificate says of itself. Whether that is true is decided by the handshake: a
/// peer's certificate is handed out only after it was verified. Nothing here fails: a part that
/// cannot be read is left empty, and is in [`der`](Self::der) still.
#[derive(Clone, PartialEq, Eq)]
pub struct Certificate(Arc<[u8]>);

impl Certificate {
    pub(crate) fn new(der: &[u8]) -> Self {
        Self(Arc::from(der))
    }

    /// The certificate in DER, for other libraries.
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// Whom the certificate is for, such as `CN=client, O=Acme`.
    ///
    /// The text is that of RFC 4514 (the last part of the name comes first, special and control
    /// characters are escaped by `\`, values that are no text are `#` and their DER), with a space
    /// after each comma. To compare names, prefer [`common_name`](Self::common_name),
    /// [`subject_alt_names`](Self::subject_alt_names) or the
    /// [fingerprint](Self::sha256_fingerprint).
    pub fn subject(&self) -> String {
        self.parsed().map_or_else(String::new, |parsed| name(parsed.subject()))
    }

    /// The common name (CN) in the subject; if there are several, the last, which is the most
    /// specific.
    ///
    /// It is the bare value, with nothing escaped.
    pub fn common_name(&self) -> Option<String> {
        let parsed = self.parsed()?;
        let last = parsed.subject().iter_common_name().last()?;
        text(last.attr_value()).map(Cow::into_owned)
    }

    /// Who issued the certificate, written like [`subject`](Self::subject).
    pub fn issuer(&self) -> String {
        self.parsed().map_or_else(String::new, |parsed| name(parsed.issuer()))
    }

    /// The names that the certificate is for, in its order.
    ///
    /// Kinds of names that [`SubjectAltName`] does not have, and malformed ones, are left out.
    pub fn subject_alt_names(&self) -> Vec<SubjectAltName> {
        let names = |parsed: &X509Certificate<'_>| {
            let extension = parsed.subject_alternative_name().ok()??;
            Some(extension.value.general_names.iter().filter_map(SubjectAltName::parse).collect())
        };
        self.parsed().as_ref().and_then(names).unwrap_or_default()
    }

    /// The SHA-256 digest of the certificate: what identifies it among all others.
    pub fn sha256_fingerprint(&self) -> Fingerprint {
        let digest = digest::digest(&digest::SHA256, &self.0);
        Fingerprint(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The first moment at which the certificate is valid.
    pub fn not_before(&self) -> Option<SystemTime> {
        system_time(self.parsed()?.validity().not_before)
    }

    /// The last second at which the certificate is valid.
    pub fn not_after(&self) -> Option<SystemTime> {
        system_time(self.parsed()?.validity().not_after)
    }

    /// The serial number in hexadecimal, as `openssl x509 -serial` prints it: `0A1B`.
    pub fn serial(&self) -> String {
        let Some(parsed) = self.parsed() else {
            return String::new();
        };
        // The zero before a leading one-bit belongs to the encoding, not to the number.
        let bytes = match parsed.raw_serial() {
            [0, rest @ ..] if !rest.is_empty() => rest,
            bytes => bytes,
        };
        bytes.iter().map(|byte| format!("{byte:02X}")).collect()
    }

    fn parsed(&self) -> Option<X509Certificate<'_>> {
        X509Certificate::from_der(&self.0).ok().map(|(_, parsed)| parsed)
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate")
            .field("subject", &self.subject())
            .field("sha256_fingerprint", &format_args!("{}", self.sha256_fingerprint()))
            .finish()
    }
}

/// A name that a certificate is for.
///
/// `Display` writes it as openssl does, with its kind: `DNS:localhost`, `IP:127.0.0.1`,
/// `email:ann@example.org`, `URI:spiffe://example.org/a`; control characters are escaped.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SubjectAltName {
    /// The name of a host, which may begin with `*.`.
    Dns(String),
    /// An address.
    Ip(IpAddr),
    /// An e-mail address.
    Email(String),
    /// A URI, such as the identity of a workload (SPIFFE).
    Uri(String),
}

impl SubjectAltName {
    fn parse(name: &GeneralName<'_>) -> Option<Self> {
        match name {
            GeneralName::DNSName(name) => Some(Self::Dns((*name).to_owned())),
            GeneralName::RFC822Name(name) => Some(Self::Email((*name).to_owned())),
            GeneralName::URI(name) => Some(Self::Uri((*name).to_owned())),
            GeneralName::IPAddress(bytes) => ip(bytes).map(Self::Ip),
            _ => None,
        }
    }
}

impl fmt::Display for SubjectAltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dns(name) => write!(f, "DNS:{}", name.escape_debug()),
            Self::Ip(address) => write!(f, "IP:{address}"),
            Self::Email(address) => write!(f, "email:{}", address.escape_debug()),
            Self::Uri(uri) => write!(f, "URI:{}", uri.escape_debug()),
        }
    }
}

/// The SHA-256 digest of a certificate.
///
/// `Display` writes it as `openssl x509 -fingerprint -sha256` does, in pairs of upper-case digits
/// with colons between; `{:x}` writes the 64 lower-case digits of `sha256sum`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The bytes of the digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.0.iter().enumerate() {
            let colon = if index == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02X}")?;
        }
        Ok(())
    }
}

impl fmt::LowerHex for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

fn ip(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn system_time(time: ASN1Time) -> Option<SystemTime> {
    let seconds = time.timestamp();
    let distance = Duration::from_secs(seconds.unsigned_abs());
    if seconds < 0 { UNIX_EPOCH.checked_sub(distance) } else { UNIX_EPOCH.checked_add(distance) }
}

/// A name after RFC 4514, section 2.
fn name(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = name
        .iter_rdn()
        .map(|part| part.iter().map(attribute).collect::<Vec<_>>().join("+"))
        .collect();
    parts.reverse();
    parts.join(", ")
}

fn attribute(attribute: &AttributeTypeAndValue<'_>) -> String {
    let oid = attribute.attr_type().to_id_string();
    let kind = short_name(&oid).unwrap_or(&oid);
    let value = attribute.attr_value();
    match text(value) {
        Some(text) => format!("{kind}={}", escaped(&text)),
        None => format!("{kind}=#{}", hex(value.data)),
    }
}

/// The names of RFC 4514, section 3, and the two that everybody uses besides.
fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.6" => "C",
        "2.5.4.9" => "STREET",
        "0.9.2342.19200300.100.1.25" => "DC",
        "0.9.2342.19200300.100.1.1" => "UID",
        "2.5.4.5" => "serialNumber",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// The text of a value, if it is one of the kinds of text.
fn text<'a>(value: &'a Any<'_>) -> Option<Cow<'a, str>> {
    let data = value.data;
    match value.tag() {
        Tag::Utf8String | Tag::PrintableString | Tag::Ia5String | Tag::NumericString => {
            std::str::from_utf8(data).ok().map(Cow::Borrowed)
        }
        // It is Latin-1 in practice, whatever the standard says.
        Tag::T61String => Some(data.iter().map(|byte| char::from(*byte)).collect()),
        Tag::BmpString if data.len().is_multiple_of(2) => {
            let units = data.chunks_exact(2).map(|unit| u16::from_be_bytes([unit[0], unit[1]]));
            char::decode_utf16(units).collect::<Result<String, _>>().ok().map(Cow::Owned)
        }
        _ => None,
    }
}

/// RFC 4514, section 2.4; besides, whatever does not print is escaped too.
fn escaped(text: &str) -> String {
    let last = text.chars().count().saturating_sub(1);
    let mut out = String::with_capacity(text.len());
    for (index, c) in text.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', c]),
            '#' if index == 0 => out.push_str("\\#"),
            ' ' if index == 0 || index == last => out.push_str("\\ "),
            '\'' => out.push(c),
            // The standard library knows which characters show themselves.
            _ if c.escape_debug().len() == 1 => out.push(c),
            _ => {
                for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                    out.push_str(&format!("\\{byte:02X}"));
                }
            }
        }
    }
    out
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, KeyPair, SanType, SerialNumber};

    use super::*;

    fn made(change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        Certificate::new(params.self_signed(&KeyPair::generate().unwrap()).unwrap().der())
    }

    #[test]
    fn a_name_is_written_with_its_last_part_first() {
        let certificate = made(|params| {
            params.distinguished_name.push(DnType::CountryName, "DE");
            params.distinguished_name.push(DnType::OrganizationName, "Acme");
            params.distinguished_name.push(DnType::CommonName, "client");
        });
        assert_eq!(certificate.subject(), "CN=client, O=Acme, C=DE");
        assert_eq!(certificate.issuer(), certificate.subject());
        assert_eq!(certificate.common_name().as_deref(), Some("client"));
        let debug = format!("{certificate:?}");
        assert!(debug.starts_with("Certificate { subject: \"CN=client, O=Acme, C=DE\", sha256_"));
    }

    #[test]
    fn special_and_invisible_characters_are_escaped() {
        for (name, shown) in [
            ("a,b+c\"d\\e<f>g;h=i", "a\\,b\\+c\\\"d\\\\e\\<f\\>g\\;h=i"),
            ("#a ", "\\#a\\ "),
            (" ", "\\ "),
            ("O'Brien Jürgen 东", "O'Brien Jürgen 东"),
            ("a\nb\0\u{1b}\u{202e}", "a\\0Ab\\00\\1B\\E2\\80\\AE"),
        ] {
            let certificate =
                made(|params| params.distinguished_name.push(DnType::CommonName, name));
            assert_eq!(certificate.subject(), format!("CN={shown}"));
            assert_eq!(certificate.common_name().as_deref(), Some(name));
        }
        let certificate = made(|params| {
            params.distinguished_name.push(
                DnType::CustomDnType(vec![1, 2, 3]),
                DnValue::BmpString("grün".try_into().unwrap()),
            );
        });
        assert_eq!(certificate.subject(), "1.2.3=grün");
        assert_eq!(certificate.common_name(), None);
    }

    #[test]
    fn alternative_names_come_in_order_with_their_kinds() {
        let certificate = made(|params| {
            params.subject_alt_names = vec![
                SanType::DnsName("*.example.org".try_into().unwrap()),
                SanType::IpAddress("127.0.0.1".parse().unwrap()),
                SanType::IpAddress("::1".parse().unwrap()),
                SanType::Rfc822Name("ann@example.org".try_into().unwrap()),
                SanType::URI("spiffe://example.org/a".try_into().unwrap()),
                SanType::DnsName("a\nb".try_into().unwrap()),
            ];
        });
        let names = certificate.subject_alt_names();
        assert_eq!(names[0], SubjectAltName::Dns("*.example.org".to_owned()));
        let shown: Vec<_> = names.iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "DNS:*.example.org",
                "IP:127.0.0.1",
                "IP:::1",
                "email:ann@example.org",
                "URI:spiffe://example.org/a",
                "DNS:a\\nb",
            ]
        );
    }

    #[test]
    fn dates_and_serial_are_those_of_the_certificate() {
        let certificate = made(|params| {
            params.not_before = rcgen::date_time_ymd(1960, 1, 1);
            params.not_after = rcgen::date_time_ymd(2000, 1, 1);
            params.serial_number = Some(SerialNumber::from_slice(&[0xfa, 0x0b]));
        });
        let before = UNIX_EPOCH - Duration::from_secs(3653 * 24 * 3600);
        assert_eq!(certificate.not_before(), Some(before));
        assert_eq!(certificate.not_after(), Some(UNIX_EPOCH + Duration::from_secs(946_684_800)));
        assert_eq!(certificate.serial(), "FA0B");
    }

    #[test]
    fn what_is_no_certificate_has_empty_parts() {
        for der in [&b""[..], b"0", b"hello", &[0x30, 0x82, 0xff, 0xff]] {
            let certificate = Certificate::new(der);
            assert_eq!(certificate.der(), der);
            assert_eq!(
                (certificate.subject(), certificate.issuer()),
                (String::new(), String::new())
            );
            assert_eq!((certificate.common_name(), certificate.serial()), (None, String::new()));
            assert_eq!((certificate.not_before(), certificate.not_after()), (None, None));
            assert_eq!(certificate.subject_alt_names(), []);
        }
    }

    #[test]
    fn a_fingerprint_is_written_as_openssl_and_sha256sum_write_it() {
        let print = Certificate::new(b"abc").sha256_fingerprint();
        assert!(print.to_string().starts_with("BA:78:16:BF:"));
        assert_eq!(print.to_string().len(), 95);
        assert!(format!("{print:x}").starts_with("ba7816bf"));
        assert_eq!(print.as_bytes()[0], 0xba);
        assert!(format!("{print:?}").starts_with("Fingerprint(BA:78"));
    }
}
