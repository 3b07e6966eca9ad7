//! The echo service of the servers that are built with ntex, and where they listen.

use ntex::codec::BytesCodec;
use ntex::io::{DispatchItem, Dispatcher, Filter, Io};
use ntex::service::fn_service;
use std::io;
use std::net::{SocketAddr, TcpListener};

/// As many connections wait to be accepted as ntex has by default; the library of Rust has fewer.
const BACKLOG: i32 = 2048;

/// Listens there, after telling the runner where: ntex has no other way to tell a port that was chosen.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    rustix::net::listen(&listener, BACKLOG)?;
    crate::cli::announce(listener.local_addr()?);
    Ok(listener)
}

/// Sends back what is received until the peer ends.
pub async fn echo<F: Filter>(io: Io<F>) -> io::Result<()> {
    let answer = fn_service(async |item: DispatchItem<BytesCodec>| match item {
        DispatchItem::Item(bytes) => Ok::<_, io::Error>(Some(bytes)),
        _ => Ok(None),
    });
    Dispatcher::new(io, BytesCodec, answer).await
}
