//! An echo server in plain Tokio, as its documentation would have it: one thread, one task and one
//! 8 KiB buffer per connection, read, then write everything.
//!
//! `cargo run --release -p onbytes-benches --bin tokio-echo -- 127.0.0.1:7000`

use onbytes_benches::cli;
use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

fn main() -> ExitCode {
    cli::exit(cli::listen_address().and_then(|address| run(address).map_err(|e| e.to_string())))
}

fn run(address: SocketAddr) -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(serve(address))
}

async fn serve(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    cli::announce(listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        // A connection that fails ends alone; its peer notices by itself.
        tokio::spawn(async move { echo(stream).await.ok() });
    }
}

async fn echo(mut stream: TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; 8 * 1024];
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            length => stream.write_all(&buffer[..length]).await?,
        }
    }
}
