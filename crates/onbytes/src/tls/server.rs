//! The listener's side: from its record to the sessions of its connections.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::server::NoServerSessionStorage;
use rustls::{ServerConfig, ServerConnection};

use super::choice::{self, Certificates, Spoken};
use super::hello::Answers;
use super::key_log::KeyLogFile;
use super::resumption::{SessionIds, Tickets};
use super::session::Session;
use super::trust::{self, ClientTrust};
use super::{material, provider};
use crate::{Error, ErrorKind, ListenerSecureSocket, MutualTls, Result};

/// Makes the sessions of accepted connections, always with the newest set of files that was good.
pub(crate) struct Acceptor {
    secure: ListenerSecureSocket,
    loaded: Mutex<Loaded>,
    /// Held while files are read again, so that what was read last is what is used.
    reloading: Mutex<()>,
}

#[derive(Clone)]
struct Loaded {
    answers: Arc<Answers>,
    /// Whom client certificates are measured by. Sessions of another set are not resumed.
    measure: Arc<Measure>,
}

/// The bytes of all authorities and lists of revoked certificates.
type Measure = Vec<Vec<u8>>;

impl Acceptor {
    /// Reads every file that `secure` names; returns what is worth a warning, too.
    pub(crate) fn load(secure: &ListenerSecureSocket) -> Result<(Self, Vec<String>)> {
        let (loaded, warnings) = load(secure, None)?;
        let acceptor = Self {
            secure: secure.clone(),
            loaded: Mutex::new(loaded),
            reloading: Mutex::default(),
        };
        Ok((acceptor, warnings))
    }

    /// Reads the files again. Handshakes from now on use what they hold; where one of them is bad,
    /// nothing changes.
    pub(crate) fn reload(&self) -> Result<Vec<String>> {
        let _one_at_a_time = self.reloading.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.lock().clone();
        let (loaded, warnings) = load(&self.secure, Some(&before))?;
        *self.lock() = loaded;
        Ok(warnings)
    }

    /// The session of a new connection.
    pub(crate) fn accept(&self) -> Session {
        Session::from(Arc::clone(&self.lock().answers))
    }

    pub(crate) fn handshake_timeout(&self) -> Option<Duration> {
        self.secure.handshake_timeout
    }

    fn lock(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn load(secure: &ListenerSecureSocket, before: Option<&Loaded>) -> Result<(Loaded, Vec<String>)> {
    let mut spoken = choice::spoken(&secure.protocol.versions, &secure.ciphers)?;
    if secure.ciphers.is_empty() {
        spoken.put_in_our_order();
    }
    let mut warnings = std::mem::take(&mut spoken.warnings);
    let mut keys = Vec::new();
    for key in std::iter::once(&secure.key).chain(&secure.sni_keys) {
        let identity = material::read_key(key)?;
        choice::check_key(&spoken, &identity.certified)?;
        warnings.extend(identity.warnings);
        keys.push(identity.certified);
    }
    let mut measure = Measure::new();
    let client_trust = match &secure.mutual_tls {
        Some(mutual) => Some(client_trust(mutual, &spoken, &mut measure, &mut warnings)?),
        None => None,
    };
    let certificates = Certificates::new(keys);
    warnings.extend(certificates.nameless().map(|subject| {
        format!("no server name chooses the certificate of '{subject}' (sni_keys): it has none")
    }));
    let mut config = assemble(&spoken, client_trust.clone(), certificates)?;
    config.ignore_client_order = secure.prefer_server_ciphers;
    config.alpn_protocols = secure.alpn.iter().map(|name| name.clone().into_bytes()).collect();
    if let Some(path) = &secure.key_log_file {
        let (log, warning) = KeyLogFile::open(path)?;
        config.key_log = Arc::new(log);
        warnings.push(warning);
    }
    match before.filter(|before| *before.measure == measure) {
        Some(Loaded { answers, .. }) => {
            config.ticketer = Arc::clone(&answers.usual.ticketer);
            config.session_storage = Arc::clone(&answers.usual.session_storage);
            config.send_tls13_tickets = answers.usual.send_tls13_tickets;
        }
        None => set_resumption(&mut config, secure.session_timeout)?,
    }
    // A set that no connection can be made with is found here rather than by every client.
    ServerConnection::new(Arc::new(config.clone())).map_err(unusable)?;
    let nobody_chose = secure.ciphers.is_empty() && !secure.prefer_server_ciphers;
    let aes = (nobody_chose && provider::aes_is_cheap()).then(|| {
        let mut config = config.clone();
        config.ignore_client_order = true;
        Arc::new(config)
    });
    let answers = Answers { usual: Arc::new(config), aes, client_trust };
    Ok((Loaded { answers: Arc::new(answers), measure: Arc::new(measure) }, warnings))
}

fn client_trust(
    mutual: &MutualTls,
    spoken: &Spoken,
    measure: &mut Measure,
    warnings: &mut Vec<String>,
) -> Result<Arc<ClientTrust>> {
    let certificates = material::read_trust(&mutual.cert)?;
    let revoked = material::read_crls(&mutual.crl_files)?;
    measure.extend(certificates.iter().map(|certificate| certificate.to_vec()));
    warnings.extend(trust::out_of_dates(&certificates, "mutual_tls.cert"));
    measure.extend(revoked.iter().map(|list| list.to_vec()));
    ClientTrust::new(certificates, revoked, mutual.mode, &spoken.provider).map(Arc::new)
}

fn assemble(
    spoken: &Spoken,
    client_trust: Option<Arc<ClientTrust>>,
    certificates: Certificates,
) -> Result<ServerConfig> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(&spoken.provider))
        .with_protocol_versions(&spoken.versions)
        .map_err(unusable)?;
    let builder = match client_trust {
        Some(trust) => builder.with_client_cert_verifier(trust),
        None => builder.with_no_client_auth(),
    };
    Ok(builder.with_cert_resolver(Arc::new(certificates)))
}

fn unusable(error: rustls::Error) -> Error {
    let message = "failed to initialize the TLS context";
    Error::caused(ErrorKind::Configuration, message, error)
}

fn set_resumption(config: &mut ServerConfig, session_timeout: Option<Duration>) -> Result<()> {
    let Some(lifetime) = session_timeout else {
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        return Ok(());
    };
    let tickets = Tickets::new(lifetime).ok_or_else(|| {
        Error::of(ErrorKind::Configuration, "the system has no random numbers for session tickets")
    })?;
    config.ticketer = Arc::new(tickets);
    config.session_storage = Arc::new(SessionIds::new(lifetime));
    Ok(())
}
