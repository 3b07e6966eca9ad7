//! What the tests of several programs share: an echo server that may be wrong.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Serves echo on threads until the process ends; returns where. On each connection that gets that far, the
/// byte at the position `spoil` is changed.
pub fn serve_echo(spoil: Option<usize>) -> io::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A connection that fails is its peer's to notice.
            thread::spawn(move || echo(stream, spoil).ok());
        }
    });
    Ok(address)
}

fn echo(mut stream: TcpStream, spoil: Option<usize>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (mut buffer, mut seen) = ([0; 1_000], 0);
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(());
        }
        let spoiled = spoil.and_then(|at| at.checked_sub(seen)).filter(|&at| at < length);
        if let Some(at) = spoiled {
            buffer[at] ^= 1;
        }
        seen += length;
        stream.write_all(&buffer[..length])?;
    }
}
