//! An echo server over TLS in plain Tokio with tokio-rustls, as its documentation would have it: one
//! thread, one task and one buffer per connection, read, write everything, flush. Session tickets are on.
//!
//! `cargo run --release -p onbytes-benches --bin tokio-rustls-echo -- 127.0.0.1:0 cert.pem key.pem 8K`
//!
//! The last argument is the size of each buffer in bytes, or with `K` or `M` in KiB or MiB (default 16 KiB,
//! the plain bytes of one record).

use onbytes_benches::{cli, secure};
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

fn main() -> ExitCode {
    cli::exit(run())
}

fn run() -> Result<(), String> {
    let (address, certificate, key) = cli::secure_server()?;
    let size = std::env::args().nth(4).map_or(Ok(16 * 1024), |text| cli::bytes(&text))?;
    let acceptor = TlsAcceptor::from(Arc::new(secure::server(&certificate, &key)?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build();
    let serving = runtime.and_then(|runtime| runtime.block_on(serve(address, acceptor, size)));
    serving.map_err(|error| error.to_string())
}

async fn serve(address: SocketAddr, acceptor: TlsAcceptor, size: usize) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    cli::announce(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        let acceptor = acceptor.clone();
        // A connection that fails ends alone; its peer notices by itself.
        tokio::spawn(async move { echo(stream, acceptor, size).await.ok() });
    }
}

async fn echo(stream: TcpStream, acceptor: TlsAcceptor, size: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = acceptor.accept(stream).await?;
    let mut buffer = vec![0; size];
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
