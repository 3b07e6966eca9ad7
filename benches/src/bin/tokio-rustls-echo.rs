//! An echo server over TLS in plain Tokio with tokio-rustls, as its documentation would have it: one
//! thread, one task and one 16 KiB buffer per connection, read, write everything, flush. Session
//! tickets are on.
//!
//! `cargo run --release -p onbytes-benches --bin tokio-rustls-echo -- 127.0.0.1:0 cert.pem key.pem`

use onbytes_benches::{cli, secure};
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

fn main() -> ExitCode {
    cli::exit(cli::secure_server().and_then(|(address, certificate, key)| {
        let config = secure::server(&certificate, &key)?;
        run(address, TlsAcceptor::from(Arc::new(config))).map_err(|error| error.to_string())
    }))
}

fn run(address: SocketAddr, acceptor: TlsAcceptor) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(serve(address, acceptor))
}

async fn serve(address: SocketAddr, acceptor: TlsAcceptor) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    cli::announce(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        // A connection that fails ends alone; its peer notices by itself.
        tokio::spawn(async move { echo(stream, acceptor).await.ok() });
    }
}

async fn echo(stream: TcpStream, acceptor: TlsAcceptor) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    let mut buffer = vec![0; 16 * 1024];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return stream.shutdown().await,
            length => {
                stream.write_all(&buffer[..length]).await?;
                stream.flush().await?;
            }
        }
    }
}
