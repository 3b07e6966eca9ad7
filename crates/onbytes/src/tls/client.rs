//! The client's side: from its record to the session of a connection.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::ClientConfig;
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::pki_types::ServerName;

use super::key_log::KeyLogFile;
use super::resumption::ClientSessions;
use super::session::Session;
use super::trust::{self, ServerTrust};
use super::{choice, failure, material};
use crate::{ClientSecureSocket, Error, ErrorKind, Result, Trust};

/// What was made of a [`ClientSecureSocket`], shared by the clones of the record.
#[derive(Clone, Default)]
pub(crate) struct Prepared {
    shared: Arc<Mutex<Option<Made>>>,
}

struct Made {
    /// The record as it was. Its fields may be changed between two connections.
    of: ClientSecureSocket,
    config: Arc<ClientConfig>,
}

/// Two records are equal if their fields are.
impl PartialEq for Prepared {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl fmt::Debug for Prepared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Prepared")
    }
}

/// Makes the sessions of connections to servers.
pub(crate) struct Connector {
    config: Arc<ClientConfig>,
    server_name: Option<String>,
}

impl Connector {
    /// What a clone of the record has read already.
    pub(crate) fn loaded(secure: &ClientSecureSocket) -> Option<Self> {
        // Whoever is reading holds the lock, and is not waited for here.
        let made = secure.prepared.shared.try_lock().ok()?;
        let made = made.as_ref().filter(|made| is_made_of(&made.of, secure))?;
        Some(Self { config: Arc::clone(&made.config), server_name: secure.server_name.clone() })
    }

    /// Reads every file that `secure` names, unless a clone of the record has done so.
    pub(crate) fn load(secure: &ClientSecureSocket) -> Result<Self> {
        let mut made = secure.prepared.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let config = match &*made {
            Some(made) if is_made_of(&made.of, secure) => Arc::clone(&made.config),
            _ => {
                let config = Arc::new(load(secure)?);
                // Without its own share of this, which would keep itself alive.
                let of = ClientSecureSocket { prepared: Prepared::default(), ..secure.clone() };
                *made = Some(Made { of, config: Arc::clone(&config) });
                config
            }
        };
        Ok(Self { config, server_name: secure.server_name.clone() })
    }

    /// The session of a new connection to `host`.
    pub(crate) fn connect(&self, host: &str) -> Result<Session> {
        let name = self.server_name.as_deref().unwrap_or(host);
        let server_name = server_name(name).map_err(|error| {
            Error::configuration(format!("{error}; give another in server_name"))
        })?;
        // An address is no server name that could be sent (RFC 6066, section 3).
        let asked = match &server_name {
            ServerName::DnsName(name) => Some(name.as_ref().to_ascii_lowercase()),
            _ => None,
        };
        let connection = UnbufferedClientConnection::new(Arc::clone(&self.config), server_name)
            .map_err(failure::of_peer)?;
        Ok(Session::from(connection).with_server_name(asked))
    }
}

/// A name as certificates hold it.
pub(crate) fn server_name(name: &str) -> Result<ServerName<'static>> {
    let bare = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
    ServerName::try_from(bare.trim_end_matches('.').to_owned()).map_err(|_| {
        let name = crate::endpoint::shown(name);
        Error::configuration(format!("'{name}' is no name that a certificate can hold"))
    })
}

/// Whether two records differ only in what is no part of rustls' configuration.
fn is_made_of(one: &ClientSecureSocket, other: &ClientSecureSocket) -> bool {
    one.cert == other.cert
        && one.key == other.key
        && one.protocol == other.protocol
        && one.ciphers == other.ciphers
        && one.session_timeout == other.session_timeout
        && one.verify_hostname == other.verify_hostname
        && one.strict_validity == other.strict_validity
        && one.alpn == other.alpn
        && one.key_log_file == other.key_log_file
}

fn load(secure: &ClientSecureSocket) -> Result<ClientConfig> {
    let mut spoken = choice::spoken(&secure.protocol.versions, &secure.ciphers)?;
    let mut warnings = std::mem::take(&mut spoken.warnings);
    let are_pins = secure.cert != Trust::System;
    let certificates = material::read_trust(&secure.cert)?;
    if are_pins && !secure.strict_validity {
        warnings.extend(trust::out_of_dates(&certificates, "cert"));
    }
    let trust = ServerTrust::new(certificates, are_pins, secure, &spoken.provider);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&spoken.provider))
        .with_protocol_versions(&spoken.versions)
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(trust));
    let mut config = match &secure.key {
        Some(key) => {
            let identity = material::read_key(key)?;
            warnings.extend(identity.warnings);
            let own = rustls::sign::SingleCertAndKey::from(identity.certified);
            builder.with_client_cert_resolver(Arc::new(own))
        }
        None => builder.with_no_client_auth(),
    };
    config.resumption = match secure.session_timeout {
        Some(lifetime) => Resumption::store(Arc::new(ClientSessions::new(lifetime))),
        None => Resumption::disabled(),
    };
    config.alpn_protocols = secure.alpn.iter().map(|name| name.clone().into_bytes()).collect();
    if let Some(path) = &secure.key_log_file {
        let (log, warning) = KeyLogFile::open(path)?;
        config.key_log = Arc::new(log);
        warnings.push(warning);
    }
    for warning in warnings {
        tracing::warn!(target: "onbytes", warning, "TLS");
    }
    Ok(config)
}

fn unusable(error: rustls::Error) -> Error {
    let message = "failed to initialize the TLS context";
    Error::caused(ErrorKind::Configuration, message, error)
}
