//! Key stores and trust stores: PKCS#12, as Java and OpenSSL read them.

use p12_keystore::error::Error;
use p12_keystore::{
    Certificate as Trusted, EncryptionAlgorithm, KeyStore, KeyStoreEntry, MacAlgorithm, PrivateKey,
    PrivateKeyChain,
};
use rcgen::{Certificate, KeyPair};

use super::issue::fingerprint;
use crate::failure::Failure;
use crate::password::Password;

/// How often a password is hashed to make guessing slow: Java's own number.
const ITERATIONS: u32 = 10_000;

/// A store of `key` with its `chain`: its own certificate first, then the one that has signed it.
pub(super) fn key_store(
    alias: &str,
    key: &KeyPair,
    chain: &[&Certificate],
    password: &Password,
) -> Result<Vec<u8>, Failure> {
    // Any number that only this key has: it tells which certificate belongs to it.
    let id = chain.first().map(|certificate| fingerprint(certificate)).unwrap_or_default();
    let entry = || {
        let key = PrivateKey::from_der(key.serialized_der())?;
        let chain = chain.iter().copied().map(trusted).collect::<Result<Vec<_>, _>>()?;
        Ok(KeyStoreEntry::PrivateKeyChain(PrivateKeyChain::new(id, key, chain)))
    };
    entry().and_then(|entry| written(alias, entry, password)).map_err(failed)
}

/// A store of a certificate that is to be trusted.
pub(super) fn trust_store(
    alias: &str,
    certificate: &Certificate,
    password: &Password,
) -> Result<Vec<u8>, Failure> {
    trusted(certificate)
        .and_then(|trusted| written(alias, KeyStoreEntry::Certificate(trusted), password))
        .map_err(failed)
}

fn trusted(certificate: &Certificate) -> Result<Trusted, Error> {
    Trusted::from_der(certificate.der())
}

fn written(alias: &str, entry: KeyStoreEntry, password: &Password) -> Result<Vec<u8>, Error> {
    let mut store = KeyStore::new();
    store.add_entry(alias, entry);
    store
        .writer(password.as_str())
        .encryption_algorithm(EncryptionAlgorithm::PbeWithHmacSha256AndAes256)
        .encryption_iterations(ITERATIONS)
        .mac_algorithm(MacAlgorithm::HmacSha256)
        .mac_iterations(ITERATIONS)
        .write()
}

#[allow(clippy::needless_pass_by_value)] // For `map_err`.
fn failed(error: Error) -> Failure {
    Failure::outside(format!("cannot make a key store: {error}"))
}
