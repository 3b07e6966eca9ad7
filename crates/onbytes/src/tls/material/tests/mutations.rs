//! Files that are nearly right, by the thousand: none makes a reader panic, hang or eat memory.
//!
//! Memory is bounded by how the readers are made: they work on slices of the file, which is at most
//! 16 MiB, and copy each part of it into at most one value; what a file says about sizes leads to no
//! allocation. Only scrypt takes memory by its parameters, at most 1 GiB of it, and only where the
//! password is at hand.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::super::super::provider::primitives::digest;
use super::*;

/// xorshift: the same inputs in every run, for the same files.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// One to four changes: a bit, a byte, a cut, an insertion, a piece copied elsewhere.
fn mutated(data: &[u8], random: &mut Random) -> Vec<u8> {
    let mut data = data.to_vec();
    for _ in 0..=random.below(4) {
        let at = random.below(data.len().max(1));
        match random.below(7) {
            _ if data.is_empty() => data.push(0x30),
            0 => data[at] ^= 1 << random.below(8),
            1 => data[at] = random.below(256) as u8,
            2 => data[at] = [0, 1, 0x7f, 0x80, 0x82, 0x84, 0xff][random.below(7)],
            3 => data.truncate(at),
            4 => data.insert(at, random.below(256) as u8),
            5 => {
                data.remove(at);
            }
            _ => {
                let length = random.below(16).min(data.len() - at);
                let piece = data[at..at + length].to_vec();
                let to = random.below(data.len());
                data.splice(to..to, piece);
            }
        }
    }
    data
}

/// Gives a store of JKS the digest that it should have, so that its reader looks further.
pub(super) fn sign_jks(content: &mut Vec<u8>, password: &str) {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    context.update(&password.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>());
    context.update(b"Mighty Aphrodite");
    context.update(content);
    content.extend_from_slice(context.finish().as_ref());
}

/// Every mutation goes to every reader.
fn survive(name: &str, seed: u64, count: usize, data: &[u8], finish: impl Fn(&mut Vec<u8>)) {
    let mut random = Random(seed);
    for _ in 0..count {
        let mut input = mutated(data, &mut random);
        finish(&mut input);
        let outcome = catch_unwind(AssertUnwindSafe(|| parse_any(&input)));
        assert!(outcome.is_ok(), "{name} panics with {input:02x?}");
    }
}

fn as_it_is(_: &mut Vec<u8>) {}

#[test]
fn mutated_certificates_and_keys_are_survived() {
    let [_, issuer, leaf] = keys::chain_of_three();
    let (cert, key) = self_signed();
    survive("certificate", 1, 1500, &cert, as_it_is);
    survive("key", 2, 1500, &key, as_it_is);
    survive("PEM", 3, 1500, [leaf.0, issuer.0, leaf.1].concat().as_bytes(), as_it_is);
}

#[test]
fn mutated_stores_and_encrypted_keys_of_openssl_are_survived() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    let (cert, key) = self_signed();
    dir.write("c.pem", to_pem("CERTIFICATE", &cert));
    dir.write("k.pem", to_pem("PRIVATE KEY", &key));
    let export =
        "openssl pkcs12 -export -in c.pem -inkey k.pem -name a -passout pass:password -iter 1";
    let encrypt = "openssl pkcs8 -topk8 -in k.pem -passout pass:password -iter 1 -outform DER";
    for (seed, command) in [
        (10, export.to_owned()),
        (11, format!("{export} -nomac")),
        (12, format!("{export} -nomac -keypbe NONE -certpbe NONE")),
        (13, format!("{export} -nomac -keypbe PBE-SHA1-3DES -certpbe PBE-SHA1-3DES")),
        (14, format!("{export} -nomac -keypbe des-ede3-cbc -certpbe NONE")),
        (15, encrypt.to_owned()),
        (16, format!("{encrypt} -v2 des3")),
        (17, format!("{encrypt} -v1 PBE-SHA1-3DES")),
    ] {
        dir.run(&format!("{command} -out s"));
        survive(&command, seed, 1000, &dir.read("s"), as_it_is);
    }
}

#[test]
fn mutated_stores_of_java_are_survived() {
    if skipped(&["keytool"]) {
        return;
    }
    let dir = Dir::new();
    let keytool = "keytool -keystore s.jks -storetype JKS -storepass password -noprompt";
    dir.run(&format!("{keytool} -genkeypair -keyalg Ed25519 -alias k -dname CN=k"));
    dir.write("t.pem", to_pem("CERTIFICATE", &self_signed().0));
    dir.run(&format!("{keytool} -importcert -file t.pem -alias t"));
    let store = dir.read("s.jks");
    let content = &store[..store.len() - 20];
    let mut again = content.to_vec();
    sign_jks(&mut again, "password");
    assert_eq!(again, store);
    survive("JKS", 20, 3000, content, |input| sign_jks(input, "password"));
}

#[test]
fn mutated_lists_and_responses_are_survived() {
    if skipped(&["openssl"]) {
        return;
    }
    let dir = Dir::new();
    revoked::authority(&dir);
    survive("CRL", 30, 1000, &dir.read("crl.pem"), as_it_is);
    dir.run("openssl crl -in crl.pem -outform DER -out crl.der");
    survive("CRL", 31, 1000, &dir.read("crl.der"), as_it_is);
    survive("OCSP", 32, 1000, &dir.read("ocsp.der"), as_it_is);
}

#[test]
fn nonsense_is_survived() {
    let mut random = Random(40);
    for length in (0..600).chain([4096]) {
        let mut data: Vec<u8> = (0..length).map(|_| random.below(256) as u8).collect();
        parse_any(&data);
        if let Some(first) = data.first_mut() {
            *first = 0x30;
        }
        parse_any(&data);
    }
    // A million nested sequences, none of which ends.
    parse_any(&[0x30, 0x80].repeat(1_000_000));
    parse_any("-----BEGIN ".repeat(100_000).as_bytes());
    parse_any("-----BEGIN X-----\n".repeat(100_000).as_bytes());
}
