//! What goes wrong between TLS peers, in words.

use rustls::{
    AlertDescription, CertificateError, Error as TlsError, ExtendedKeyPurpose, HandshakeType,
    InvalidMessage, PeerIncompatible,
};

use crate::{Error, ErrorKind};

/// What the peer did wrong, or says that we did.
#[allow(clippy::needless_pass_by_value)] // For `map_err`.
pub(super) fn of_peer(error: TlsError) -> Error {
    Error::of(ErrorKind::Tls, words(&error))
}

pub(super) fn truncated(is_handshaking: bool) -> Error {
    if is_handshaking {
        Error::of(ErrorKind::Tls, "the peer ended the connection in the middle of the handshake")
    } else {
        Error::of(
            ErrorKind::Truncated,
            "the peer ended the connection without saying so (close_notify); data may be missing",
        )
    }
}

pub(super) fn endless_handshake() -> Error {
    Error::of(ErrorKind::Tls, "the peer sends a handshake message without end")
}

pub(super) fn exhausted() -> Error {
    Error::of(ErrorKind::Tls, "the keys of this connection have been used as often as is safe")
}

fn words(error: &TlsError) -> String {
    match error {
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "the peer does not speak TLS".to_owned()
        }
        // What comes back is our own greeting.
        TlsError::InappropriateHandshakeMessage {
            got_type: HandshakeType::ClientHello, ..
        } => "the peer does not speak TLS: it sends back what it gets".to_owned(),
        TlsError::InvalidMessage(InvalidMessage::MessageTooLarge)
        | TlsError::PeerSentOversizedRecord => "the peer sent an oversize record".to_owned(),
        TlsError::InvalidMessage(
            InvalidMessage::HandshakePayloadTooLarge | InvalidMessage::CertificatePayloadTooLarge,
        ) => "the peer sent an oversize handshake message; 64 KiB are accepted".to_owned(),
        TlsError::DecryptError => {
            "a record from the peer does not decrypt: it is damaged, or was changed on its way"
                .to_owned()
        }
        TlsError::InvalidCertificate(error) => certificate(error),
        TlsError::NoCertificatesPresented => "the peer showed no certificate".to_owned(),
        TlsError::NoApplicationProtocol => {
            "the peer offers none of our application protocols (alpn)".to_owned()
        }
        TlsError::AlertReceived(alert) => alert_words(*alert),
        TlsError::PeerIncompatible(incompatible) => peer_incompatible(incompatible),
        TlsError::General(what) => format!("TLS failed: {what}"),
        TlsError::FailedToGetRandomBytes | TlsError::FailedToGetCurrentTime => {
            format!("TLS failed: {error}")
        }
        other => format!("the TLS protocol was violated: {other}"),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the peer's certificate has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the peer's certificate is not valid yet".to_owned()
        }
        CertificateError::UnknownIssuer => {
            "the peer's certificate is issued by nobody that is trusted; name its issuer, or the \
             certificate itself, in cert"
                .to_owned()
        }
        CertificateError::Revoked => "the peer's certificate is revoked".to_owned(),
        CertificateError::UnknownRevocationStatus => {
            "no list of revoked certificates tells of the peer's certificate".to_owned()
        }
        CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => {
            "the list of revoked certificates has expired".to_owned()
        }
        CertificateError::BadSignature => {
            "the peer does not have the key of the certificate it shows".to_owned()
        }
        CertificateError::NotValidForName => "the peer's certificate is for another name; with \
             server_name another one is looked for, and verify_hostname switches this off"
            .to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "the peer's certificate is not for '{}' but for {}; with server_name another name is \
             looked for, and verify_hostname switches this off",
            expected.to_str(),
            some_of(presented),
        ),
        CertificateError::InvalidPurpose => {
            "the peer's certificate is meant for another purpose".to_owned()
        }
        CertificateError::InvalidPurposeContext { required, .. } => match required {
            ExtendedKeyPurpose::ClientAuth => {
                "the peer's certificate is not meant for clients (clientAuth)".to_owned()
            }
            ExtendedKeyPurpose::ServerAuth => {
                "the peer's certificate is not meant for servers (serverAuth)".to_owned()
            }
            _ => "the peer's certificate is meant for another purpose".to_owned(),
        },
        CertificateError::BadEncoding => "the peer's certificate is malformed".to_owned(),
        CertificateError::Other(other) if is_authority(other) => {
            "the peer shows the certificate of an authority as its own; name that very \
             certificate in cert, or have the peer use another"
                .to_owned()
        }
        CertificateError::Other(other) if is_outdated(other) => {
            "the peer's certificate is of an old version of X.509, which is accepted only where it \
             stands in cert itself"
                .to_owned()
        }
        other => format!("the peer's certificate is not accepted: {other}"),
    }
}

/// The names of a certificate, which may have any number of them.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let names: Vec<_> = names.iter().map(|name| bare(name)).collect();
    match &names[..] {
        [] => "no name at all".to_owned(),
        [some @ .., _] if some.len() >= SHOWN => {
            format!("{} and {} more", names[..SHOWN].join(", "), names.len() - SHOWN)
        }
        all => all.join(", "),
    }
}

/// A name as rustls shows it, `DnsName("localhost")` or `IpAddress(127.0.0.1)`, without the kind.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    let inner = inner.unwrap_or(name).trim_matches('"');
    // rustls writes `0::1`.
    inner.parse::<std::net::IpAddr>().map_or_else(|_| inner.to_owned(), |ip| ip.to_string())
}

/// Whether webpki refused an authority's certificate in the place of a server's or client's.
fn is_authority(error: &rustls::OtherError) -> bool {
    error.0.downcast_ref::<webpki::Error>() == Some(&webpki::Error::CaUsedAsEndEntity)
}

/// Whether webpki refused a certificate that is not of version 3.
fn is_outdated(error: &rustls::OtherError) -> bool {
    error.0.downcast_ref::<webpki::Error>() == Some(&webpki::Error::UnsupportedCertVersion)
}

fn alert_words(alert: AlertDescription) -> String {
    let says = match alert {
        AlertDescription::HandshakeFailure => {
            "that nothing it can do suits it (handshake_failure): often there is no cipher suite \
             that both have, or it wants a certificate from us"
        }
        AlertDescription::ProtocolVersion => {
            "that there is no protocol version that both have (protocol_version)"
        }
        AlertDescription::UnknownCA => {
            "that our certificate is issued by nobody that it trusts (unknown_ca)"
        }
        AlertDescription::CertificateRequired => {
            "that it wants a certificate from us (certificate_required)"
        }
        AlertDescription::BadCertificate => {
            "that our certificate is not acceptable (bad_certificate)"
        }
        AlertDescription::UnsupportedCertificate => {
            "that our certificate is of the wrong kind (unsupported_certificate)"
        }
        AlertDescription::CertificateUnknown => {
            "that our certificate is not acceptable (certificate_unknown)"
        }
        AlertDescription::CertificateExpired => {
            "that our certificate has expired (certificate_expired)"
        }
        AlertDescription::CertificateRevoked => {
            "that our certificate is revoked (certificate_revoked)"
        }
        AlertDescription::UnrecognisedName => "that it has no such server name (unrecognized_name)",
        AlertDescription::NoApplicationProtocol => {
            "that it has none of our application protocols (no_application_protocol)"
        }
        AlertDescription::DecryptError => {
            "that a signature does not fit (decrypt_error): it may trust another certificate of \
             the same name"
        }
        AlertDescription::CloseNotify => "that it ends the connection (close_notify)",
        AlertDescription::UserCanceled => "that its user has cancelled (user_canceled)",
        _ => return format!("the peer says (TLS alert): {alert:?}"),
    };
    format!("the peer says {says}")
}

fn peer_incompatible(incompatible: &PeerIncompatible) -> String {
    match incompatible {
        PeerIncompatible::NoCipherSuitesInCommon => {
            "there is no cipher suite that both have".to_owned()
        }
        PeerIncompatible::NoSignatureSchemesInCommon
        | PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon => {
            "the peer accepts no signature of our kind of key".to_owned()
        }
        PeerIncompatible::NoKxGroupsInCommon | PeerIncompatible::NamedGroupsExtensionRequired => {
            "there is no key exchange group that both have".to_owned()
        }
        PeerIncompatible::Tls12NotOffered
        | PeerIncompatible::Tls12NotOfferedOrEnabled
        | PeerIncompatible::Tls13RequiredForQuic
        | PeerIncompatible::ServerDoesNotSupportTls12Or13
        | PeerIncompatible::SupportedVersionsExtensionRequired
        // Without it a client knows no version after TLS 1.1.
        | PeerIncompatible::SignatureAlgorithmsExtensionRequired => {
            "there is no protocol version that both have".to_owned()
        }
        other => format!("the peer and we have too little in common: {other:?}"),
    }
}
