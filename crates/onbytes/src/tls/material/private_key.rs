//! Private keys: PKCS#8, PKCS#1 and SEC1, in PEM or DER, PKCS#8 also encrypted.

use rustls::pki_types::PrivateKeyDer;

use super::super::provider::provider;
use super::algorithm::{Algorithm, modulus_bits, unsupported};
use super::der::{self, Der};
use super::encryption::{Effort, Locked, Refusal};
use super::files::Source;
use super::store::{Format, TOO_MUCH_WORK};
use super::{Signer, chain, pem};
use crate::{Password, Result};

/// Why some bytes are no key for TLS.
pub(super) enum Problem {
    NotAKey,
    /// It is one, but of a kind that cannot be used.
    Unusable(String),
}

/// The one private key of a key file. A password is used where the key is encrypted, and does not
/// matter otherwise.
pub(super) fn parse(
    data: &[u8],
    password: Option<&Password>,
    source: &Source<'_>,
) -> Result<Signer> {
    let format = Format::of(data);
    if let Some(store) = format.store_name() {
        return Err(source.is(format_args!(
            "is a {store} store; give it as a key store, with path and password"
        )));
    }
    match format {
        Format::Pem => parse_der(&only_block(data, source)?, password, source),
        _ if chain::is_certificate(data) => {
            Err(source.is("holds no private key, but a certificate"))
        }
        Format::Der => parse_der(data, password, source),
        _ => Err(source.is("holds no private key: it is neither PEM nor DER")),
    }
}

/// The bytes of the only private key among the blocks of a PEM file.
fn only_block(data: &[u8], source: &Source<'_>) -> Result<Vec<u8>> {
    let text = pem::text(data);
    let blocks = pem::blocks(&text).map_err(|why| source.fails(why))?;
    let keys: Vec<_> = blocks.iter().filter(|block| block.is_private_key()).collect();
    let key = match keys[..] {
        [key] => key,
        [] => {
            let what =
                blocks.first().map_or_else(String::new, |b| format!(", but {}", b.content()));
            return Err(source.is(format_args!("holds no private key{what}")));
        }
        _ => {
            return Err(source.is(format_args!("holds {} private keys; leave one", keys.len())));
        }
    };
    if key.encrypted {
        let form = "the traditional encryption of OpenSSL";
        return Err(source.is(refused(&Refusal::Unsupported(form.to_owned()))));
    }
    if key.label == "OPENSSH PRIVATE KEY" {
        return Err(source.is("is a key of OpenSSH; convert a copy with ssh-keygen -p -m PKCS8 -f"));
    }
    key.der().map_err(|why| source.fails(why))
}

fn parse_der(der: &[u8], password: Option<&Password>, source: &Source<'_>) -> Result<Signer> {
    let Some(locked) = Locked::key(der) else {
        return signer(der).map_err(|problem| match problem {
            Problem::NotAKey => source.fails("the private key is damaged, or of an unknown form"),
            Problem::Unusable(why) => source.fails(why),
        });
    };
    let Some(password) = password else {
        return Err(source.is("is encrypted; give key_password"));
    };
    let wrong =
        || source.error(format_args!("wrong key_password for {source}, or the file is damaged"));
    let key = locked.unlock(password.reveal(), &mut Effort::new()).map_err(|why| match why {
        Refusal::Password => wrong(),
        other => source.is(refused(&other)),
    })?;
    signer(&key).map_err(|problem| match problem {
        // A wrong password can leave a padding that looks right by chance.
        Problem::NotAKey => wrong(),
        Problem::Unusable(why) => source.fails(why),
    })
}

/// Why an encrypted key cannot be opened, other than by its password.
fn refused(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Password | Refusal::Damaged => "is damaged".to_owned(),
        Refusal::Work => TOO_MUCH_WORK.to_owned(),
        Refusal::Unsupported(how) => format!(
            "is encrypted with {how}, which is not supported; convert it with \
             openssl pkcs8 -topk8 -v2 aes-256-cbc"
        ),
    }
}

/// What signs with this key.
pub(super) fn signer(der: &[u8]) -> std::result::Result<Signer, Problem> {
    let shape = Shape::of(der).ok_or(Problem::NotAKey)?;
    shape.check().map_err(Problem::Unusable)?;
    let key = match shape {
        Shape::Pkcs8(_) => PrivateKeyDer::Pkcs8(der.to_vec().into()),
        Shape::Pkcs1 { .. } => PrivateKeyDer::Pkcs1(der.to_vec().into()),
        Shape::Sec1 { .. } => PrivateKeyDer::Sec1(der.to_vec().into()),
        Shape::Dsa => return Err(Problem::NotAKey),
    };
    provider().key_provider.load_private_key(key).map_err(|_| {
        if cfg!(not(feature = "tls")) && lacks_public_half(der) {
            return Problem::Unusable(NO_PUBLIC_HALF.to_owned());
        }
        Problem::NotAKey
    })
}

const NO_PUBLIC_HALF: &str = "the key lacks its public half, which ring needs (as Java writes keys); \
                              add it with openssl pkey -in key.pem -out key.pem";

/// Is it an EC key without its public half? aws-lc-rs works that out, ring does not.
fn lacks_public_half(pkcs8: &[u8]) -> bool {
    let inner = || {
        let mut outer = Der::only_sequence(pkcs8)?;
        outer.number()?;
        outer.sequence()?;
        let mut key = Der::only_sequence(outer.octets()?)?;
        key.number()?;
        key.octets()?;
        key.bytes(der::context(0));
        Some(key.bytes(der::context(1)).is_none())
    };
    inner().unwrap_or(false)
}

pub(super) fn looks_like_pkcs8(der: &[u8]) -> bool {
    matches!(Shape::of(der), Some(Shape::Pkcs8(_)))
}

/// The forms of private keys, which tell themselves apart, whatever label they are under.
enum Shape<'a> {
    Pkcs8(Algorithm<'a>),
    Pkcs1 {
        bits: usize,
    },
    /// Its curve, which is left to be guessed where none is named.
    Sec1 {
        curve: Option<Option<&'a [u8]>>,
    },
    Dsa,
}

impl<'a> Shape<'a> {
    fn of(der: &'a [u8]) -> Option<Self> {
        let mut key = Der::only_sequence(der)?;
        let version = key.number()?;
        let second = key.element()?;
        match second.tag {
            der::SEQUENCE => {
                let algorithm = Algorithm::parse(Der::new(second.content), key.octets()?)?;
                // Version 3 would be a PKCS#12 store.
                (version <= 1).then_some(Self::Pkcs8(algorithm))
            }
            der::OCTET_STRING => {
                let parameters = key.inner(der::context(0));
                Some(Self::Sec1 { curve: parameters.map(|mut parameters| parameters.oid()) })
            }
            der::INTEGER => {
                let mut numbers = 2;
                while key.bytes(der::INTEGER).is_some() {
                    numbers += 1;
                }
                match numbers {
                    6 => Some(Self::Dsa),
                    9 => Some(Self::Pkcs1 { bits: modulus_bits(der)? }),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn check(&self) -> std::result::Result<(), String> {
        match self {
            Self::Pkcs8(algorithm) => algorithm.check(),
            Self::Pkcs1 { bits } => Algorithm::Rsa { bits: *bits }.check(),
            Self::Sec1 { curve: Some(curve) } => Algorithm::Curve(*curve).check(),
            Self::Sec1 { curve: None } => Ok(()),
            Self::Dsa => Err(unsupported("DSA keys")),
        }
    }
}

/// Is it a private key in DER, of any form, encrypted or not?
pub(super) fn is_key(der: &[u8]) -> bool {
    Shape::of(der).is_some() || Locked::key(der).is_some()
}
