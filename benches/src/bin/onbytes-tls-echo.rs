//! The echo server over TLS that is built with onbytes: `onbytes-echo` with one setting more.
//!
//! `cargo run --release -p onbytes-benches --bin onbytes-tls-echo -- 127.0.0.1:0 cert.pem key.pem`

use onbytes::{
    Bytes, Caller, CertKey, ConnectionService, Listener, ListenerConfiguration,
    ListenerSecureSocket, Result, Service,
};
use onbytes_benches::cli;

struct Echo;

impl Service for Echo {
    type Connection = Self;

    async fn on_connect(&self, _: &Caller) -> Result<Self> {
        Ok(Self)
    }
}

impl ConnectionService for Echo {
    async fn on_bytes(&mut self, data: Bytes, _: &Caller) -> Result<Option<Bytes>> {
        Ok(Some(data))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (address, certificate, key) = cli::secure_server()?;
    let secure = ListenerSecureSocket::new(CertKey::new(certificate, key));
    let listener = Listener::new(address, ListenerConfiguration::new().secure_socket(secure))?;
    listener.on_event(|event| {
        if let onbytes::Event::Listening { local_addr, .. } = event {
            cli::announce(*local_addr);
        }
    });
    listener.serve(Echo).await?;
    Ok(())
}
