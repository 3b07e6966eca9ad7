//! What two TLS peers have agreed on, as a service sees it.

use rustls::HandshakeKind;

use super::certificate::Certificate;
use super::choice;
use super::session::Session;
use crate::{CipherSuite, TlsVersion};

/// What was agreed with the peer of a TLS connection: [`Caller::tls`](crate::Caller::tls),
/// [`Client::tls`](crate::Client::tls).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TlsInfo {
    /// The protocol version.
    pub version: TlsVersion,
    /// The cipher suite.
    pub cipher_suite: CipherSuite,
    /// The application protocol (ALPN), where one was agreed on.
    pub alpn: Option<String>,
    /// The server name (SNI) that the client asked for, in lower case, where it did.
    pub server_name: Option<String>,
    /// Whether an earlier session was resumed, so that no certificates were exchanged. Those of the
    /// earlier handshake then still count.
    pub resumed: bool,
    /// The certificates that the peer showed, its own first; empty where it showed none. They have
    /// been verified.
    pub peer_certificates: Vec<Certificate>,
}

impl TlsInfo {
    /// The peer's own certificate, where it showed one.
    pub fn peer_certificate(&self) -> Option<&Certificate> {
        self.peer_certificates.first()
    }

    /// `None` where the handshake is not complete.
    pub(super) fn of(session: &Session, server_name: Option<String>) -> Option<Self> {
        let common = session.common()?;
        let version = match common.protocol_version()? {
            rustls::ProtocolVersion::TLSv1_3 => TlsVersion::Tls13,
            _ => TlsVersion::Tls12,
        };
        let certificates = common.peer_certificates().unwrap_or_default();
        Some(Self {
            version,
            cipher_suite: choice::named(common.negotiated_cipher_suite()?)?,
            alpn: common.alpn_protocol().map(|name| String::from_utf8_lossy(name).into_owned()),
            server_name,
            resumed: common.handshake_kind() == Some(HandshakeKind::Resumed),
            peer_certificates: certificates.iter().map(|der| Certificate::new(der)).collect(),
        })
    }
}
