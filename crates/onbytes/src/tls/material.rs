//! Keys, certificates and lists of revoked ones: from files to what rustls takes.
//!
//! Files are anybody's, so nothing in them is believed before it was checked: all reading goes over
//! checked slices, files are bounded ([`files`]), and so is the work of opening what is encrypted
//! ([`encryption`]).

use std::path::PathBuf;
use std::sync::Arc;

use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::sign::{CertifiedKey, SigningKey};

use self::chain::Chain;
use self::files::Source;
use self::store::Format;
use crate::{CertKey, Error, ErrorKind, Key, KeyStore, Result, Trust};

mod algorithm;
mod chain;
mod der;
mod encryption;
mod files;
mod jks;
mod pem;
mod pkcs12;
mod private_key;
mod revocation;
mod store;
#[cfg(test)]
mod tests;

type Signer = Arc<dyn SigningKey>;

/// A certificate chain with its private key, ready for rustls, and what is worth a warning.
pub(super) struct Identity {
    pub(super) certified: Arc<CertifiedKey>,
    /// Each is one line.
    pub(super) warnings: Vec<String>,
}

/// Reads what a key record names. The certificate is not held against rustls' own idea of one: of
/// version 1, or with extensions unknown to rustls, it serves as well.
pub(super) fn read_key(key: &Key) -> Result<Identity> {
    let ((signer, chain, mut warnings), ocsp_file) = match key {
        Key::KeyStore(store) => (read_key_store(store)?, &store.ocsp_file),
        Key::CertKey(files) => (read_cert_key(files)?, &files.ocsp_file),
    };
    let mut certified = CertifiedKey::new(chain.certificates, signer);
    if let Some(path) = ocsp_file {
        let source = Source::new("ocsp_file", path);
        let (response, more) = revocation::parse_ocsp(source.read()?, &source)?;
        certified.ocsp = Some(response);
        warnings.extend(more);
    }
    Ok(Identity { certified: Arc::new(certified), warnings })
}

fn read_key_store(wanted: &KeyStore) -> Result<(Signer, Chain, Vec<String>)> {
    let source = Source::key_store(&wanted.path);
    let (signer, chain, mut warnings) = store::parse_key_store(&source.read()?, wanted, &source)?;
    warnings.extend(chain::date_warnings(&chain, &source));
    Ok((signer, chain, warnings))
}

fn read_cert_key(files: &CertKey) -> Result<(Signer, Chain, Vec<String>)> {
    let cert_file = Source::new("cert_file", &files.cert_file);
    let key_file = Source::new("key_file", &files.key_file);
    let certificates = parse_certificates(&cert_file.read()?, &cert_file)?;
    let signer = private_key::parse(&key_file.read()?, files.key_password.as_ref(), &key_file)?;
    let chain =
        chain::link(certificates.iter().collect(), &signer).ok_or_else(
            || match chain::unusable(&certificates[0]) {
                Some(why) => cert_file.fails(why),
                None => cert_file.is(format_args!("and {key_file} do not belong together")),
            },
        )?;
    let mut warnings = chain::date_warnings(&chain, &cert_file);
    if chain.left_out > 0 {
        warnings.push(format!(
            "{cert_file} holds certificates that are not of the key's chain; left out: {}",
            chain.left_out
        ));
    }
    Ok((signer, chain, warnings))
}

/// Reads the certificates to trust: those of a file or a store, or the system's authorities.
pub(super) fn read_trust(trust: &Trust) -> Result<Vec<CertificateDer<'static>>> {
    match trust {
        Trust::System => system_roots(),
        Trust::File(path) => {
            let source = Source::new("cert", path);
            let mut certificates = parse_certificates(&source.read()?, &source)?;
            chain::drop_repeated(&mut certificates);
            Ok(certificates)
        }
        Trust::TrustStore(wanted) => {
            let source = Source::trust_store(&wanted.path);
            store::parse_trust_store(&source.read()?, wanted, &source)
        }
    }
}

fn system_roots() -> Result<Vec<CertificateDer<'static>>> {
    const NONE: &str = "no trusted root certificates found on this system: give cert";
    let mut found = rustls_native_certs::load_native_certs();
    match (found.certs.is_empty(), found.errors.pop()) {
        (false, _) => Ok(found.certs),
        (true, None) => Err(Error::configuration(NONE)),
        (true, Some(error)) => Err(Error::caused(ErrorKind::Configuration, NONE, error)),
    }
}

/// Reads lists of revoked certificates, PEM (several in a file) or DER.
pub(super) fn read_crls(paths: &[PathBuf]) -> Result<Vec<CertificateRevocationListDer<'static>>> {
    let mut lists = Vec::new();
    for path in paths {
        let source = Source::new("crl_files", path);
        lists.extend(revocation::parse_crls(&source.read()?, &source)?);
    }
    Ok(lists)
}

/// The certificates in a file, in its order: at least one.
fn parse_certificates(data: &[u8], source: &Source<'_>) -> Result<Vec<CertificateDer<'static>>> {
    let format = Format::of(data);
    if let Some(store) = format.store_name() {
        let what = source.store_instead();
        return Err(source.is(format_args!("is a {store} store; {what}, with path and password")));
    }
    match format {
        Format::Pem => certificate_blocks(data, source),
        _ if chain::is_certificate(data) => Ok(vec![CertificateDer::from(data.to_vec())]),
        _ if private_key::is_key(data) => Err(source.is("holds no certificate, but a private key")),
        Format::Der => Err(source.is("holds no certificate, or a damaged one")),
        _ => Err(source.is("holds no certificate: it is neither PEM nor DER")),
    }
}

fn certificate_blocks(data: &[u8], source: &Source<'_>) -> Result<Vec<CertificateDer<'static>>> {
    let text = pem::text(data);
    let blocks = pem::blocks(&text).map_err(|why| source.fails(why))?;
    let mut certificates = Vec::new();
    for block in blocks.iter().filter(|block| block.is_certificate()) {
        let block = block.der().map_err(|why| source.fails(why))?;
        // In a TRUSTED CERTIFICATE block OpenSSL's own remarks follow the certificate.
        let der = der::Der::new(&block).element().map_or(&block[..], |first| first.whole);
        if !chain::is_certificate(der) {
            let number = certificates.len() + 1;
            return Err(source.fails(format_args!("certificate {number} is damaged")));
        }
        certificates.push(CertificateDer::from(der.to_vec()));
    }
    if certificates.is_empty() {
        let what = blocks.first().map_or_else(String::new, |b| format!(", but {}", b.content()));
        return Err(source.is(format_args!("holds no certificate{what}")));
    }
    Ok(certificates)
}

/// Tries every reader on some bytes, with the password "password": for fuzzing.
#[cfg(any(test, fuzzing))]
pub(crate) fn parse_any(data: &[u8]) {
    let path = std::path::Path::new("fuzzed");
    let source = Source::new("file", path);
    let password = crate::Password::from("password");
    let _ = parse_certificates(data, &source).map(|certificates| {
        for der in certificates {
            let certificate = crate::tls::certificate::Certificate::new(&der);
            let _ = (certificate.subject(), certificate.issuer(), certificate.serial());
            let _ = (certificate.not_before(), certificate.not_after());
            let _ = (certificate.common_name(), certificate.subject_alt_names());
        }
    });
    let _ = private_key::parse(data, Some(&password), &source);
    let _ = revocation::parse_crls(data, &source);
    let _ = revocation::parse_ocsp(data.to_vec(), &source);
    let _ = store::parse_key_store(data, &KeyStore::new(path, "password"), &source)
        .map(|(_, chain, _)| chain::date_warnings(&chain, &source));
    let _ = store::parse_trust_store(data, &crate::TrustStore::new(path, "password"), &source);
}
