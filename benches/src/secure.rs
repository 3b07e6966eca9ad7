//! TLS for the programs: the certificate that servers show, and the client's side of a connection.

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs::Ticketer;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// The name in the certificate, which clients ask for.
const NAME: &str = "localhost";

/// A new certificate (ECDSA, P-256) and its key, in a folder that goes when this is dropped.
pub struct Identity {
    folder: TempDir,
}

impl Identity {
    /// Makes them.
    pub fn make() -> Result<Self, String> {
        let made = rcgen::generate_simple_self_signed([NAME.to_owned()])
            .map_err(|error| format!("making a certificate: {error}"))?;
        let failed = |error: io::Error| format!("keeping the certificate: {error}");
        let identity = Self { folder: tempfile::tempdir().map_err(failed)? };
        std::fs::write(identity.certificate(), made.cert.pem()).map_err(failed)?;
        std::fs::write(identity.key(), made.signing_key.serialize_pem()).map_err(failed)?;
        Ok(identity)
    }

    /// The certificate's file. It signs itself, so clients trust this file too.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.pem")
    }

    /// The file of the private key.
    #[must_use]
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }
}

/// How a server that is not built with onbytes speaks TLS: with this certificate, and session tickets.
pub fn server(certificate: &Path, key: &Path) -> Result<ServerConfig, String> {
    let failed =
        |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain = CertificateDer::from_pem_file(certificate);
    let chain = vec![chain.map_err(|error| failed(certificate, &error))?];
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| failed(key, &error))?;
    let builder = ServerConfig::builder().with_no_client_auth();
    let mut config = builder.with_single_cert(chain, key).map_err(|error| error.to_string())?;
    config.ticketer = Ticketer::new().map_err(|error| error.to_string())?;
    Ok(config)
}

/// How a client speaks TLS: it trusts one certificate, and resumes its own sessions only.
pub fn client(certificate: &Path, resume: bool) -> Result<Arc<ClientConfig>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", certificate.display());
    let trusted = CertificateDer::from_pem_file(certificate).map_err(|error| failed(&error))?;
    let mut roots = RootCertStore::empty();
    roots.add(trusted).map_err(|error| failed(&error))?;
    let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.resumption =
        if resume { Resumption::in_memory_sessions(8) } else { Resumption::disabled() };
    Ok(Arc::new(config))
}

/// A client's side of a connection before its handshake.
pub fn session(config: &Arc<ClientConfig>) -> Result<ClientConnection, String> {
    let name = ServerName::try_from(NAME).map_err(|error| error.to_string())?;
    ClientConnection::new(Arc::clone(config), name).map_err(|error| error.to_string())
}

/// A non-blocking connection, with or without TLS.
pub enum Stream {
    /// Without.
    Plain(TcpStream),
    /// With.
    Secure(Box<Secure>),
}

/// A TLS session over a non-blocking socket.
pub struct Secure {
    session: ClientConnection,
    socket: TcpStream,
    /// Whether the server has said goodbye.
    ended: bool,
}

impl Stream {
    /// TLS over `socket`; the handshake is made by reading and writing.
    #[must_use]
    pub fn secure(session: ClientConnection, socket: TcpStream) -> Self {
        Self::Secure(Box::new(Secure { session, socket, ended: false }))
    }

    /// The socket below.
    #[must_use]
    pub fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Secure(secure) => &secure.socket,
        }
    }

    /// The TLS session, if there is one.
    #[must_use]
    pub fn session(&self) -> Option<&ClientConnection> {
        match self {
            Self::Plain(_) => None,
            Self::Secure(secure) => Some(&secure.session),
        }
    }

    /// Says, over TLS, that nothing more will be sent (close_notify).
    pub fn say_goodbye(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Secure(secure) => {
                secure.session.send_close_notify();
                secure.push()
            }
        }
    }
}

impl Read for Stream {
    /// Reads what is at hand; with TLS the buffer has to have room for [`Secure::MOST`], and
    /// nothing stays behind that the socket's readiness would not tell of. The end of a TLS
    /// connection is an error unless the server has said goodbye before.
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.read(buffer),
            Self::Secure(secure) => secure.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(data),
            Self::Secure(secure) => secure.write(data),
        }
    }

    /// Sends what a TLS session has sealed; `WouldBlock` while the socket does not take all.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Secure(secure) => secure.push(),
        }
    }
}

impl Secure {
    /// The most plain bytes that one read of the socket makes ready: rustls takes in two records
    /// at most, each of 16 KiB and a little more.
    pub const MOST: usize = 64 * 1024;

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return self.socket.read(buffer);
        }
        let mut filled = 0;
        while !self.ended && buffer.len() - filled >= Self::MOST {
            match self.session.read_tls(&mut self.socket) {
                Ok(0) if filled == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                // It is told again by the next read, and so is any error.
                Ok(0) => break,
                Ok(_) => filled += self.take_apart(&mut buffer[filled..])?,
                Err(error) if filled == 0 => return Err(error),
                Err(_) => break,
            }
        }
        if filled == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(filled) }
    }

    /// Takes apart what was read, answers a handshake, and copies out the plain bytes.
    fn take_apart(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let state = self.session.process_new_packets().map_err(io::Error::other)?;
        self.ended = state.peer_has_closed();
        match self.push() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            _ => {}
        }
        match self.session.reader().read(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.push()?;
        match self.session.writer().write(data)? {
            // Only before the handshake is complete can there be no room for more.
            0 => Err(io::ErrorKind::WouldBlock.into()),
            length => Ok(length),
        }
    }

    fn push(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut self.socket)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_trusts_the_certificate_that_was_made() {
        let identity = Identity::make().unwrap();
        assert!(session(&client(&identity.certificate(), true).unwrap()).is_ok());
        assert!(client(&identity.key(), true).is_err());
        assert!(server(&identity.certificate(), &identity.key()).is_ok());
        assert!(server(&identity.key(), &identity.certificate()).is_err());
        let folder = identity.folder.path().to_owned();
        drop(identity);
        assert!(!folder.exists());
    }
}
