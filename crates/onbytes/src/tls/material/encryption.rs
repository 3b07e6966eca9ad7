//! Keys under a password: PBES2, and the forms of PKCS#12 before it.
//!
//! Digests, HMAC and PBKDF2 are the cryptographic library's, the ciphers are those of RustCrypto.

use std::num::NonZeroU32;

use aes::{Aes128, Aes192, Aes256};
use cbc::cipher::block_padding::Pkcs7;
use cbc::cipher::{BlockCipherDecrypt, BlockModeDecrypt as _, KeyInit, KeyIvInit as _};
use des::{TdesEde2, TdesEde3};
use rc2::Rc2;

use super::super::provider::primitives::{digest, pbkdf2};
use super::der::{self, Der};

/// Why something encrypted stays closed.
#[derive(Debug, PartialEq)]
pub(super) enum Refusal {
    /// The password does not fit, or what is encrypted was changed: nothing tells these apart.
    Password,
    /// Opening it would keep this process busy for too long.
    Work,
    /// It is encrypted in a way that is not known here.
    Unsupported(String),
    /// It says in no sensible way how it is encrypted.
    Damaged,
}

/// How much work a file may still ask for. Every password guess costs what the file demands, and the
/// file may be anybody's: without an end to it, starting could take days.
pub(super) struct Effort(u64);

impl Effort {
    /// The most iterations of one password, and what a whole file may ask for.
    const EACH: u64 = 10_000_000;
    const ALL: u64 = 30_000_000;

    pub(super) fn new() -> Self {
        Self(Self::ALL)
    }

    pub(super) fn spend(&mut self, iterations: u64) -> Result<(), Refusal> {
        if iterations > Self::EACH {
            return Err(Refusal::Work);
        }
        self.0 = self.0.checked_sub(iterations).ok_or(Refusal::Work)?;
        Ok(())
    }
}

/// Something encrypted, with what says how.
#[derive(Debug, Clone, Copy)]
pub(super) struct Locked<'a> {
    /// The content of an `AlgorithmIdentifier`.
    pub(super) algorithm: Der<'a>,
    pub(super) data: &'a [u8],
}

impl<'a> Locked<'a> {
    /// From an `EncryptedPrivateKeyInfo` of PKCS#8.
    pub(super) fn key(info: &'a [u8]) -> Option<Self> {
        let mut info = Der::only_sequence(info)?;
        let locked = Self { algorithm: info.sequence()?, data: info.octets()? };
        info.is_empty().then_some(locked)
    }

    pub(super) fn unlock(&self, password: &str, effort: &mut Effort) -> Result<Vec<u8>, Refusal> {
        let mut algorithm = self.algorithm;
        let oid = algorithm.oid().ok_or(Refusal::Damaged)?;
        let parameters = algorithm.sequence();
        let how = match oid {
            PBES2 => return self.unlock_pbes2(parameters, password, effort),
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x0c, 0x01, number @ 1..=6] => {
                match number {
                    3 => (24, decrypt::<TdesEde3> as Decrypt),
                    4 => (16, decrypt::<TdesEde2> as Decrypt),
                    5 => (16, decrypt::<Rc2> as Decrypt),
                    6 => (5, decrypt::<Rc2> as Decrypt),
                    _ => return Err(Refusal::Unsupported("RC4".to_owned())),
                }
            }
            _ => return Err(Refusal::Unsupported(scheme_name(oid))),
        };
        self.unlock_pkcs12(how, parameters, password, effort)
    }

    /// RFC 7292, appendix C.
    fn unlock_pkcs12(
        &self,
        (key_length, decrypt): (usize, Decrypt),
        parameters: Option<Der<'_>>,
        password: &str,
        effort: &mut Effort,
    ) -> Result<Vec<u8>, Refusal> {
        let mut parameters = parameters.ok_or(Refusal::Damaged)?;
        let salt = parameters.octets().ok_or(Refusal::Damaged)?;
        let iterations = iterations(parameters.number())?;
        effort.spend(u64::from(iterations.get()))?;
        let derive = |purpose, length| {
            pkcs12_key(
                &digest::SHA1_FOR_LEGACY_USE_ONLY,
                purpose,
                password,
                salt,
                iterations,
                length,
            )
        };
        decrypt(&derive(Purpose::Encryption, key_length), &derive(Purpose::Vector, 8), self.data)
    }

    /// RFC 8018, appendix A.4.
    fn unlock_pbes2(
        &self,
        parameters: Option<Der<'_>>,
        password: &str,
        effort: &mut Effort,
    ) -> Result<Vec<u8>, Refusal> {
        let mut parameters = parameters.ok_or(Refusal::Damaged)?;
        let derivation = parameters.sequence().ok_or(Refusal::Damaged)?;
        let mut cipher = parameters.sequence().ok_or(Refusal::Damaged)?;
        let oid = cipher.oid().ok_or(Refusal::Damaged)?;
        let (key_length, decrypt) = match oid {
            [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x02] => {
                (16, decrypt::<Aes128> as Decrypt)
            }
            [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x16] => {
                (24, decrypt::<Aes192> as Decrypt)
            }
            [0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a] => {
                (32, decrypt::<Aes256> as Decrypt)
            }
            TRIPLE_DES => (24, decrypt::<TdesEde3> as Decrypt),
            _ => return Err(Refusal::Unsupported(cipher_name(oid))),
        };
        let vector = cipher.octets().ok_or(Refusal::Damaged)?;
        let key = derived(derivation, password, key_length, effort)?;
        decrypt(&key, vector, self.data)
    }
}

type Decrypt = fn(&[u8], &[u8], &[u8]) -> Result<Vec<u8>, Refusal>;

/// One way for all ciphers; a key or vector of the wrong length is told from a wrong password.
fn decrypt<C: BlockCipherDecrypt + KeyInit>(
    key: &[u8],
    vector: &[u8],
    data: &[u8],
) -> Result<Vec<u8>, Refusal> {
    cbc::Decryptor::<C>::new_from_slices(key, vector)
        .map_err(|_| Refusal::Damaged)?
        .decrypt_padded_vec::<Pkcs7>(data)
        .map_err(|_| Refusal::Password)
}

/// The key that PBKDF2 or scrypt makes of a password.
fn derived(
    mut derivation: Der<'_>,
    password: &str,
    length: usize,
    effort: &mut Effort,
) -> Result<Vec<u8>, Refusal> {
    let oid = derivation.oid().ok_or(Refusal::Damaged)?;
    let parameters = derivation.sequence().ok_or(Refusal::Damaged)?;
    match oid {
        PBKDF2 => pbkdf2_key(parameters, password, length, effort),
        SCRYPT => scrypt_key(parameters, password, length, effort),
        _ => Err(Refusal::Unsupported(format!("key derivation {}", der::dotted(oid)))),
    }
}

/// RFC 8018, appendix A.2.
pub(super) fn pbkdf2_key(
    mut parameters: Der<'_>,
    password: &str,
    length: usize,
    effort: &mut Effort,
) -> Result<Vec<u8>, Refusal> {
    let salt = parameters.octets().ok_or(Refusal::Damaged)?;
    let iterations = iterations(parameters.number())?;
    must_be(length, parameters.number())?;
    let algorithm = match parameters.sequence() {
        None => pbkdf2::PBKDF2_HMAC_SHA1,
        Some(mut function) => match function.oid().ok_or(Refusal::Damaged)? {
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 7] => pbkdf2::PBKDF2_HMAC_SHA1,
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 9] => pbkdf2::PBKDF2_HMAC_SHA256,
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 10] => pbkdf2::PBKDF2_HMAC_SHA384,
            [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x02, 11] => pbkdf2::PBKDF2_HMAC_SHA512,
            other => {
                let name = format!("pseudorandom function {}", der::dotted(other));
                return Err(Refusal::Unsupported(name));
            }
        },
    };
    effort.spend(u64::from(iterations.get()))?;
    let mut key = vec![0; length];
    pbkdf2::derive(algorithm, iterations, salt, password.as_bytes(), &mut key);
    Ok(key)
}

/// RFC 7914, section 7.1. The memory is 128·N·r bytes, and the work p times that: both stay under
/// 1 GiB, which is what [`Effort`] allows for N·r·p.
fn scrypt_key(
    mut parameters: Der<'_>,
    password: &str,
    length: usize,
    effort: &mut Effort,
) -> Result<Vec<u8>, Refusal> {
    let salt = parameters.octets().ok_or(Refusal::Damaged)?;
    let mut number = || parameters.number().ok_or(Refusal::Damaged);
    let (cost, block, lanes) = (number()?, number()?, number()?);
    must_be(length, parameters.number())?;
    if !cost.is_power_of_two() || cost < 2 {
        return Err(Refusal::Damaged);
    }
    let work = cost.checked_mul(block).and_then(|work| work.checked_mul(lanes));
    let work = work.filter(|work| *work <= 1 << 23).ok_or(Refusal::Work)?;
    effort.spend(work)?;
    let small = |number: u64| u32::try_from(number).map_err(|_| Refusal::Work);
    let cost = u8::try_from(cost.ilog2()).map_err(|_| Refusal::Work)?;
    let parameters =
        scrypt::Params::new(cost, small(block)?, small(lanes)?).map_err(|_| Refusal::Damaged)?;
    let mut key = vec![0; length];
    scrypt::scrypt(password.as_bytes(), salt, &parameters, &mut key)
        .map_err(|_| Refusal::Damaged)?;
    Ok(key)
}

/// A length that is given must be the cipher's.
fn must_be(length: usize, given: Option<u64>) -> Result<(), Refusal> {
    match given {
        Some(given) if given != length as u64 => Err(Refusal::Damaged),
        _ => Ok(()),
    }
}

pub(super) fn iterations(number: Option<u64>) -> Result<NonZeroU32, Refusal> {
    let number = number.ok_or(Refusal::Damaged)?;
    let number = u32::try_from(number).map_err(|_| Refusal::Work)?;
    NonZeroU32::new(number).ok_or(Refusal::Damaged)
}

/// What a key of PKCS#12 is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose {
    Encryption = 1,
    Vector = 2,
    Integrity = 3,
}

/// The key derivation of PKCS#12: RFC 7292, appendix B.2, with its names. The caller has bounded the
/// iterations.
pub(super) fn pkcs12_key(
    algorithm: &'static digest::Algorithm,
    purpose: Purpose,
    password: &str,
    salt: &[u8],
    iterations: NonZeroU32,
    length: usize,
) -> Vec<u8> {
    let block = algorithm.block_len();
    let mut password: Vec<u8> = password.encode_utf16().flat_map(u16::to_be_bytes).collect();
    password.extend([0, 0]);
    let mut i = filled(salt, block);
    i.extend(filled(&password, block));
    let mut key = Vec::new();
    loop {
        let mut a = digest::Context::new(algorithm);
        a.update(&vec![purpose as u8; block]);
        a.update(&i);
        let mut a = a.finish();
        for _ in 1..iterations.get() {
            a = digest::digest(algorithm, a.as_ref());
        }
        key.extend_from_slice(a.as_ref());
        if key.len() >= length {
            key.truncate(length);
            return key;
        }
        for part in i.chunks_exact_mut(block) {
            add(part, a.as_ref());
        }
    }
}

/// `data` over and over, up to a whole number of blocks.
fn filled(data: &[u8], block: usize) -> Vec<u8> {
    data.iter().copied().cycle().take(data.len().next_multiple_of(block)).collect()
}

/// Adds `a`, over and over, and one to `part`, as big-endian numbers that wrap around.
fn add(part: &mut [u8], a: &[u8]) {
    let mut carry = 1;
    for index in (0..part.len()).rev() {
        carry += u16::from(part[index]) + u16::from(a[index % a.len()]);
        part[index] = carry as u8;
        carry >>= 8;
    }
}

const PBES2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0d];
const PBKDF2: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, 0x0c];
const SCRYPT: &[u8] = &[0x2b, 0x06, 0x01, 0x04, 0x01, 0xda, 0x47, 0x04, 0x0b];
const TRIPLE_DES: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x03, 0x07];

/// What a scheme is called that is not unlocked here.
fn scheme_name(oid: &[u8]) -> String {
    match oid {
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x05, number] => match number {
            1 => "PBES1 with MD2 and DES".to_owned(),
            3 => "PBES1 with MD5 and DES".to_owned(),
            4 => "PBES1 with MD2 and RC2".to_owned(),
            6 => "PBES1 with MD5 and RC2".to_owned(),
            10 => "PBES1 with SHA-1 and DES".to_owned(),
            11 => "PBES1 with SHA-1 and RC2".to_owned(),
            _ => der::dotted(oid),
        },
        _ => der::dotted(oid),
    }
}

fn cipher_name(oid: &[u8]) -> String {
    match oid {
        [0x2b, 0x0e, 0x03, 0x02, 0x07] => "DES".to_owned(),
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x03, 0x02] => "RC2".to_owned(),
        _ => format!("cipher {}", der::dotted(oid)),
    }
}
