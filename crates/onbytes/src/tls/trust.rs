//! Whether a peer's certificate is trusted.
//!
//! A certificate is trusted if it is itself one of the trusted ones (a *pin*), or if one of them that
//! is an authority's has issued it (a *chain*). A pin is one exact key, so it needs no name, no purpose
//! and, unless validity is strict, no date. A chain has to be valid for its purpose and, in a client,
//! for the name. That the peer has the certificate's key is verified in every case.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error as TlsError, RootCertStore,
    SignatureScheme,
};

use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::{FromDer as _, X509Version};
use x509_parser::revocation_list::{CertificateRevocationList, RevokedCertificate};

use super::certificate::Certificate;
use super::signature;
use crate::{ClientCertificates, Error, ErrorKind, Result};

/// The certificates that are trusted.
#[derive(Debug)]
struct Trusted {
    pins: HashSet<CertificateDer<'static>>,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Trusted {
    /// What somebody named: every certificate as itself, and those of authorities as such.
    fn named(certificates: Vec<CertificateDer<'static>>, provider: &CryptoProvider) -> Self {
        let mut roots = RootCertStore::empty();
        let authorities = certificates.iter().filter(|certificate| is_authority(certificate));
        roots.add_parsable_certificates(authorities.cloned());
        Self { pins: certificates.into_iter().collect(), ..Self::of(roots, provider) }
    }

    /// What the system trusts: authorities, and nobody as itself.
    fn of_system(certificates: Vec<CertificateDer<'static>>, provider: &CryptoProvider) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(certificates);
        Self::of(roots, provider)
    }

    fn of(roots: RootCertStore, provider: &CryptoProvider) -> Self {
        Self {
            pins: HashSet::new(),
            roots: Arc::new(roots),
            algorithms: provider.signature_verification_algorithms,
        }
    }

    fn has(&self, certificate: &CertificateDer<'_>) -> bool {
        self.pins.contains(certificate)
    }
}

/// The part of a verifier that is the same for servers and clients: that the peer has the key of the
/// certificate it shows.
macro_rules! verifies_signatures {
    () => {
        fn verify_tls12_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, TlsError> {
            signature::verify_tls12(message, certificate, signature, &self.trusted.algorithms)
        }

        fn verify_tls13_signature(
            &self,
            message: &[u8],
            certificate: &CertificateDer<'_>,
            signature: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, TlsError> {
            signature::verify_tls13(message, certificate, signature, &self.trusted.algorithms)
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            self.trusted.algorithms.supported_schemes()
        }
    };
}

/// A client's view of servers.
#[derive(Debug)]
pub(super) struct ServerTrust {
    trusted: Trusted,
    verify_hostname: bool,
    strict_validity: bool,
}

impl ServerTrust {
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        are_pins: bool,
        secure: &crate::ClientSecureSocket,
        provider: &CryptoProvider,
    ) -> Self {
        let trusted = if are_pins {
            Trusted::named(certificates, provider)
        } else {
            Trusted::of_system(certificates, provider)
        };
        Self {
            trusted,
            verify_hostname: secure.verify_hostname,
            strict_validity: secure.strict_validity,
        }
    }
}

impl ServerCertVerifier for ServerTrust {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if self.trusted.has(end_entity) {
            if self.strict_validity {
                check_dates(end_entity, now)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        let parsed = ParsedCertificate::try_from(end_entity)?;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.trusted.roots,
            intermediates,
            now,
            self.trusted.algorithms.all,
        )
        .map_err(of_chain)?;
        if self.verify_hostname {
            verify_server_name(&parsed, server_name)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    verifies_signatures!();
}

/// A listener's view of clients.
#[derive(Debug)]
pub(super) struct ClientTrust {
    trusted: Trusted,
    chain: Option<Arc<dyn ClientCertVerifier>>,
    /// Issuers and serial numbers that stand in a list, for certificates that are trusted as
    /// themselves. Those of a chain are webpki's to look up.
    revoked: HashSet<(Vec<u8>, Vec<u8>)>,
    mode: ClientCertificates,
    subjects: Vec<DistinguishedName>,
}

impl ClientTrust {
    pub(super) fn new(
        certificates: Vec<CertificateDer<'static>>,
        revoked: Vec<CertificateRevocationListDer<'static>>,
        mode: ClientCertificates,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Self> {
        let trusted = Trusted::named(certificates, provider);
        let revoked_serials = revoked.iter().flat_map(|list| revoked_in(list)).collect();
        // Clients take these for all that will do, so they are told only where they are.
        let are_all = trusted.pins.len() == trusted.roots.len();
        let subjects = if are_all { trusted.roots.subjects() } else { Vec::new() };
        let chain = if trusted.roots.is_empty() {
            None
        } else {
            let roots = Arc::clone(&trusted.roots);
            let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(provider))
                .with_crls(revoked)
                .only_check_end_entity_revocation()
                .enforce_revocation_expiration();
            let failed = |error| {
                Error::caused(ErrorKind::Configuration, "mutual_tls cannot be set up", error)
            };
            Some(builder.build().map_err(failed)?)
        };
        Ok(Self { trusted, chain, revoked: revoked_serials, mode, subjects })
    }
}

impl ClientTrust {
    fn is_revoked(&self, certificate: &CertificateDer<'_>) -> bool {
        let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
        let name = (parsed.issuer().as_raw().to_vec(), parsed.raw_serial().to_vec());
        self.revoked.contains(&name)
    }
}

impl ClientCertVerifier for ClientTrust {
    fn client_auth_mandatory(&self) -> bool {
        self.mode == ClientCertificates::Required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.subjects
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, TlsError> {
        if self.trusted.has(end_entity) {
            // What was revoked is not trusted for being named.
            if self.is_revoked(end_entity) {
                return Err(CertificateError::Revoked.into());
            }
            return Ok(ClientCertVerified::assertion());
        }
        match &self.chain {
            Some(chain) => {
                chain.verify_client_cert(end_entity, intermediates, now).map_err(of_chain)
            }
            None => Err(CertificateError::UnknownIssuer.into()),
        }
    }

    verifies_signatures!();
}

/// An authority that was made anew, under its old name and with another key (of another kind,
/// perhaps), is another authority.
#[allow(clippy::needless_pass_by_value)] // For `map_err`.
fn of_chain(error: TlsError) -> TlsError {
    match error {
        TlsError::InvalidCertificate(
            CertificateError::BadSignature
            | CertificateError::UnsupportedSignatureAlgorithmForPublicKeyContext { .. },
        ) => CertificateError::UnknownIssuer.into(),
        other => other,
    }
}

/// Whether a certificate is that of an authority, so that what it has issued is trusted too. One of
/// version 1 cannot say so: it is, if it has issued itself.
fn is_authority(certificate: &CertificateDer<'_>) -> bool {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else { return false };
    if parsed.version() == X509Version::V1 {
        return parsed.subject().as_raw() == parsed.issuer().as_raw();
    }
    let may_sign = match parsed.key_usage() {
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Ok(None) => true,
        Err(_) => false,
    };
    may_sign && parsed.is_ca()
}

/// The issuer and the serial numbers that a list of revoked certificates has.
fn revoked_in(list: &CertificateRevocationListDer<'_>) -> Vec<(Vec<u8>, Vec<u8>)> {
    // Lists were parsed when they were read; one that is not one revokes nothing.
    let Ok((_, list)) = CertificateRevocationList::from_der(list) else { return Vec::new() };
    let issuer = list.issuer().as_raw();
    let serials = list.iter_revoked_certificates().map(RevokedCertificate::raw_serial);
    serials.map(|serial| (issuer.to_vec(), serial.to_vec())).collect()
}

/// Warnings for certificates that are trusted as themselves, and are out of their dates.
pub(super) fn out_of_dates(certificates: &[CertificateDer<'_>], field: &str) -> Vec<String> {
    // A store of many is one of authorities, some of which are always past their time.
    const FEW: usize = 8;
    if certificates.len() > FEW {
        return Vec::new();
    }
    let now = UnixTime::now();
    let is_out = |der: &&CertificateDer<'_>| check_dates(der, now).is_err();
    let warning = |der: &CertificateDer<'_>| {
        let subject = Certificate::new(der).subject();
        format!("'{subject}' in {field} is out of its dates; as itself it is trusted all the same")
    };
    certificates.iter().filter(is_out).map(warning).collect()
}

fn check_dates(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), TlsError> {
    let certificate = Certificate::new(certificate);
    let now = UNIX_EPOCH + Duration::from_secs(now.as_secs());
    match (certificate.not_before(), certificate.not_after()) {
        (Some(start), _) if now < start => Err(CertificateError::NotValidYet.into()),
        (_, Some(end)) if end < now => Err(CertificateError::Expired.into()),
        (Some(_), Some(_)) => Ok(()),
        _ => Err(CertificateError::BadEncoding.into()),
    }
}
