//! Certificates made on the spot, and TLS peers that are not ours (tokio-rustls).
#![allow(dead_code, unreachable_pub)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use onbytes::{CertKey, ClientConfiguration, ClientSecureSocket, ListenerConfiguration};
use onbytes::{ListenerSecureSocket, Trust};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, RevocationReason,
    RevokedCertParams, SerialNumber,
};
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};

use super::within;

/// Who issues certificates in a test.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub cert: PathBuf,
    pub pem: String,
    folder: TempDir,
    serial: std::sync::atomic::AtomicU64,
}

/// A certificate that was issued, in files.
pub struct Issued {
    pub cert: PathBuf,
    pub key: PathBuf,
    pub serial: u64,
}

impl Issued {
    pub fn cert_key(&self) -> CertKey {
        CertKey::new(&self.cert, &self.key)
    }

    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_file_iter(&self.cert).unwrap().map(Result::unwrap).collect()
    }

    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_file(&self.key).unwrap()
    }
}

pub fn params(common_name: &str, names: &[&str]) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params.is_ca = IsCa::ExplicitNoCa;
    params
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = params(name, &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let cert = folder.path().join("ca.pem");
        std::fs::write(&cert, certificate.pem()).unwrap();
        Self {
            pem: certificate.pem(),
            issuer: Issuer::new(params, key),
            cert,
            folder,
            serial: 1.into(),
        }
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A certificate for a server with these names.
    pub fn server(&self, names: &[&str]) -> Issued {
        let mut params = params(names[0], names);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    /// A certificate for a client.
    pub fn client(&self, name: &str) -> Issued {
        let mut params = params(name, &[name]);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue(params)
    }

    pub fn issue(&self, mut params: CertificateParams) -> Issued {
        let serial = self.serial.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        params.serial_number = Some(SerialNumber::from(serial));
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        self.write(serial, &certificate.pem(), &key.serialize_pem())
    }

    fn write(&self, serial: u64, cert_pem: &str, key_pem: &str) -> Issued {
        let file = |name: &str| self.folder.path().join(format!("{serial}-{name}.pem"));
        let issued = Issued { cert: file("cert"), key: file("key"), serial };
        std::fs::write(&issued.cert, cert_pem).unwrap();
        std::fs::write(&issued.key, key_pem).unwrap();
        issued
    }

    /// A list of revoked certificates, in a file.
    pub fn revoke(&self, serials: &[u64]) -> PathBuf {
        let now = OffsetDateTime::now_utc();
        let revoked = |serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: now,
            reason_code: Some(RevocationReason::KeyCompromise),
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: now - Duration::from_secs(3600),
            next_update: now + Duration::from_secs(3600),
            crl_number: SerialNumber::from(1u64),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let path = self.folder.path().join("revoked.pem");
        let pem = list.signed_by(&self.issuer).unwrap().pem().unwrap();
        std::fs::write(&path, pem).unwrap();
        path
    }
}

/// A certificate that nobody but itself has signed, in files.
pub fn self_signed(folder: &Path, name: &str, params: &CertificateParams) -> Issued {
    let key = KeyPair::generate().unwrap();
    self_signed_with(folder, name, params, &key)
}

pub fn self_signed_with(
    folder: &Path,
    name: &str,
    params: &CertificateParams,
    key: &KeyPair,
) -> Issued {
    let issued = Issued {
        cert: folder.join(format!("{name}-cert.pem")),
        key: folder.join(format!("{name}-key.pem")),
        serial: 0,
    };
    std::fs::write(&issued.cert, params.self_signed(key).unwrap().pem()).unwrap();
    std::fs::write(&issued.key, key.serialize_pem()).unwrap();
    issued
}

/// An authority and a server of its for localhost.
pub struct Site {
    pub authority: Authority,
    pub server: Issued,
}

impl Site {
    pub fn new() -> Self {
        let authority = Authority::new("Test CA");
        let server = authority.server(&["localhost", "127.0.0.1"]);
        Self { authority, server }
    }

    pub fn secure(&self) -> ListenerSecureSocket {
        ListenerSecureSocket::new(self.server.cert_key())
    }

    pub fn listening(&self) -> ListenerConfiguration {
        ListenerConfiguration::new().secure_socket(self.secure())
    }

    /// What a client of ours needs to trust the server.
    pub fn trusting(&self) -> ClientSecureSocket {
        ClientSecureSocket::new().cert(self.authority.cert.as_path())
    }

    pub fn connecting(&self) -> ClientConfiguration {
        ClientConfiguration::new().secure_socket(self.trusting())
    }

    pub fn trust(&self) -> Trust {
        self.authority.cert.as_path().into()
    }

    /// The configuration of a client that is not ours.
    pub fn foreign(&self) -> ClientConfig {
        self.foreign_builder(rustls::ALL_VERSIONS).with_no_client_auth()
    }

    pub fn foreign_builder(
        &self,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> rustls::ConfigBuilder<ClientConfig, rustls::client::WantsClientCert> {
        let mut roots = RootCertStore::empty();
        let authorities = CertificateDer::pem_file_iter(&self.authority.cert).unwrap();
        roots.add_parsable_certificates(authorities.map(Result::unwrap));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
    }
}

/// Connects a client that is not ours.
pub async fn connect_foreign(
    address: std::net::SocketAddr,
    config: ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from("localhost").unwrap();
    let stream = within("connecting", TcpStream::connect(address)).await?;
    within("the handshake", TlsConnector::from(Arc::new(config)).connect(name, stream)).await
}
