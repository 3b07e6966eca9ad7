//! The signature by which a peer shows that it has its certificate's key.
//!
//! rustls verifies it for every certificate that webpki can parse. A pinned certificate may be one
//! that it cannot (X.509 v1, or an unknown critical extension): then the bare key is used.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, DigitallySignedStruct, Error as TlsError, PeerMisbehaved};
use x509_parser::prelude::{FromDer, X509Certificate};

pub(super) fn verify_tls12(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, TlsError> {
    if ParsedCertificate::try_from(certificate).is_ok() {
        return verify_tls12_signature(message, certificate, signature, algorithms);
    }
    let key = bare_key(certificate)?;
    let key = webpki::RawPublicKeyEntity::try_from(&key).map_err(|_| malformed())?;
    // TLS 1.2 names the hash and the kind of key but not the curve, so each is tried.
    let candidates =
        algorithms.mapping.iter().find(|(scheme, _)| *scheme == signature.scheme).map(|(_, to)| to);
    let candidates = candidates.ok_or(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme)?;
    let is_valid = |algorithm: &&dyn rustls::pki_types::SignatureVerificationAlgorithm| {
        key.verify_signature(*algorithm, message, signature.signature()).is_ok()
    };
    if candidates.iter().any(is_valid) {
        return Ok(HandshakeSignatureValid::assertion());
    }
    Err(CertificateError::BadSignature.into())
}

pub(super) fn verify_tls13(
    message: &[u8],
    certificate: &CertificateDer<'_>,
    signature: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<HandshakeSignatureValid, TlsError> {
    if ParsedCertificate::try_from(certificate).is_ok() {
        return verify_tls13_signature(message, certificate, signature, algorithms);
    }
    let key = bare_key(certificate)?;
    verify_tls13_signature_with_raw_key(message, &key, signature, algorithms)
}

fn bare_key(
    certificate: &CertificateDer<'_>,
) -> Result<SubjectPublicKeyInfoDer<'static>, TlsError> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|_| malformed())?;
    Ok(SubjectPublicKeyInfoDer::from(parsed.public_key().raw.to_vec()))
}

fn malformed() -> TlsError {
    CertificateError::BadEncoding.into()
}
