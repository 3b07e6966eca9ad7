//! What kind a key is, and whether TLS can work with it: rustls says only that it does not
//! understand a key, whatever the matter is.

use super::der::{self, Der};

/// The public half of a key, as it stands in a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PublicKey<'a> {
    pub(super) algorithm: Algorithm<'a>,
    bits: &'a [u8],
}

impl<'a> PublicKey<'a> {
    /// From the content of a `SubjectPublicKeyInfo`.
    pub(super) fn parse(mut info: Der<'a>) -> Option<Self> {
        let identifier = info.sequence()?;
        let bits = info.bits()?;
        Some(Self { algorithm: Algorithm::parse(identifier, bits)?, bits })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm<'a> {
    /// RSA, with the length of its modulus.
    Rsa { bits: usize },
    /// ECDSA on a curve; none where its parameters are written out in the place of a name.
    Curve(Option<&'a [u8]>),
    /// Any other.
    Other(&'a [u8]),
}

impl<'a> Algorithm<'a> {
    /// From the content of an `AlgorithmIdentifier`, and a key of PKCS#1 where it is RSA.
    pub(super) fn parse(mut identifier: Der<'a>, key: &[u8]) -> Option<Self> {
        let oid = identifier.oid()?;
        Some(match oid {
            RSA => Self::Rsa { bits: modulus_bits(key)? },
            EC => Self::Curve(identifier.oid()),
            _ => Self::Other(oid),
        })
    }

    /// Can TLS use it? If not, why.
    pub(super) fn check(&self) -> Result<(), String> {
        let name = match self {
            Self::Rsa { bits } if *bits < 2048 => {
                return Err(format!("RSA key of {bits} bits is too short; 2048 at least"));
            }
            Self::Rsa { .. } | Self::Other(ED25519) | Self::Curve(Some(P256 | P384)) => {
                return Ok(());
            }
            Self::Curve(Some(P521)) if P521_IS_SERVED => return Ok(()),
            Self::Curve(None) => "elliptic curve keys with explicit parameters".to_owned(),
            Self::Curve(Some(curve)) => format!("{} keys", name(curve)),
            Self::Other(oid) => format!("{} keys", name(oid)),
        };
        Err(unsupported(&name))
    }
}

pub(super) fn unsupported(keys: &str) -> String {
    format!("{keys} are not supported; supported: {SUPPORTED}")
}

/// The length of the modulus of a private or a public key of PKCS#1.
pub(super) fn modulus_bits(key: &[u8]) -> Option<usize> {
    let mut key = Der::only_sequence(key)?;
    let first = key.bytes(der::INTEGER)?;
    // A private key begins with its version, and has seven numbers after the modulus.
    let mut rest = key;
    let modulus = match (key.bytes(der::INTEGER)?, rest.bytes(der::INTEGER)) {
        (second, Some(_)) if !key.is_empty() => second,
        _ => first,
    };
    let leading = modulus.iter().take_while(|byte| **byte == 0).count();
    let digits = &modulus[leading..];
    Some(digits.len() * 8 - digits.first()?.leading_zeros() as usize)
}

#[cfg(feature = "tls")]
const P521_IS_SERVED: bool = true;
#[cfg(not(feature = "tls"))]
const P521_IS_SERVED: bool = false;

#[cfg(feature = "tls")]
const SUPPORTED: &str = "RSA from 2048 bits, P-256, P-384, P-521, Ed25519";
#[cfg(not(feature = "tls"))]
const SUPPORTED: &str = "RSA from 2048 bits, P-256, P-384, Ed25519";

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const P521: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x23];

/// What people call the algorithm or the curve.
fn name(oid: &[u8]) -> String {
    let name = match oid {
        P521 => "P-521",
        [0x2a, 0x86, 0x48, 0xce, 0x38, 0x04, 0x01] => "DSA",
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a] => "RSASSA-PSS",
        [0x2b, 0x65, 0x6e] => "X25519",
        [0x2b, 0x65, 0x6f] => "X448",
        [0x2b, 0x65, 0x71] => "Ed448",
        [0x2b, 0x81, 0x04, 0x00, 0x0a] => "secp256k1",
        [0x2b, 0x81, 0x04, 0x00, 0x21] => "P-224",
        [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x01] => "P-192",
        [0x2b, 0x24, 0x03, 0x03, 0x02, 0x08, 0x01, 0x01, ..] => "Brainpool",
        _ => return format!("{} (an algorithm or curve)", der::dotted(oid)),
    };
    name.to_owned()
}
