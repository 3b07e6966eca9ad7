//! The yardstick: an echo server as a C programmer would write it with level-triggered epoll.
//!
//! One thread, one receive buffer for all connections, the received bytes sent back at once. Only
//! what the socket does not take is kept, per connection, and while something is kept nothing more
//! is received from that connection.
//!
//! `cargo run --release -p onbytes-benches --bin epoll-echo -- 127.0.0.1:7000 64K`
//!
//! The second argument is the size of the receive buffer in bytes, or with `K` or `M` in KiB or MiB (default
//! 256 KiB).

use onbytes_benches::cli;
use onbytes_benches::epoll::{self, Connections, Epoll, Unsent};
use std::io;
use std::process::ExitCode;

const BUFFER_SIZE: usize = 256 * 1024;

fn main() -> ExitCode {
    cli::exit(run())
}

fn run() -> Result<(), String> {
    let address = cli::listen_address()?;
    let size = std::env::args().nth(2).map_or(Ok(BUFFER_SIZE), |text| cli::bytes(&text))?;
    let mut server = Server { buffer: vec![0; size].into_boxed_slice(), unsent: Vec::new() };
    epoll::serve(address, &mut server).map_err(|error| error.to_string())
}

struct Server {
    buffer: Box<[u8]>,
    /// Indexed by file descriptor.
    unsent: Vec<Unsent>,
}

impl Connections for Server {
    fn open(&mut self, socket: usize) {
        if self.unsent.len() <= socket {
            self.unsent.resize_with(socket + 1, Unsent::default);
        }
    }

    /// Receives once and sends it back at once.
    fn receive(&mut self, socket: usize, epoll: &Epoll) -> io::Result<()> {
        let Some(length) = epoll::receive(socket, &mut self.buffer)? else { return Ok(()) };
        self.unsent[socket].send(socket, &self.buffer[..length], epoll)
    }

    fn unsent(&mut self, socket: usize) -> &mut Unsent {
        &mut self.unsent[socket]
    }

    fn close(&mut self, socket: usize) {
        self.unsent[socket] = Unsent::default();
    }
}
