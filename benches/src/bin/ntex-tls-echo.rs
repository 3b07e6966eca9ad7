//! An echo server over TLS that is built with ntex on Tokio and rustls: `ntex-echo` behind its acceptor. Session
//! tickets are on.
//!
//! `cargo run --release -p onbytes-benches --bin ntex-tls-echo -- 127.0.0.1:0 cert.pem key.pem`

use ntex::server::rustls::TlsAcceptor;
use ntex::service::{chain_factory, fn_service};
use onbytes_benches::{cli, ntex_echo, secure};
use std::io;

#[ntex::main]
async fn main() -> io::Result<()> {
    let (address, certificate, key) = cli::secure_server().map_err(io::Error::other)?;
    let config = secure::server(&certificate, &key).map_err(io::Error::other)?;
    let listener = ntex_echo::listen(address)?;
    ntex::server::ServerBuilder::new()
        .listen("echo", listener, async move |_| {
            chain_factory(TlsAcceptor::from(config.clone())).and_then(fn_service(ntex_echo::echo))
        })?
        .workers(1)
        .run()
        .await
}
