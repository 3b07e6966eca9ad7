//! The echo server over TLS that is built with onbytes: `onbytes-echo` with one setting more.
//!
//! `cargo run --release -p onbytes-benches --bin onbytes-tls-echo -- 127.0.0.1:0 cert.pem key.pem`

use onbytes::{CertKey, ListenerConfiguration, ListenerSecureSocket, Result};
use onbytes_benches::{cli, echo};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (address, certificate, key) = cli::secure_server()?;
    let secure = ListenerSecureSocket::new(CertKey::new(certificate, key));
    echo::serve(address, ListenerConfiguration::new().secure_socket(secure)).await
}
