//! The yardstick for frames: `epoll-echo` with frames of one form, taken apart and put together by hand.
//!
//! One receive buffer for each connection, in which the frames of one read are found where they lie; what is
//! left of the last one is moved to its front. The replies to one read are gathered in one buffer for all
//! connections, and leave in one call.
//!
//! `cargo run --release -p onbytes-benches --bin epoll-framed-echo -- 127.0.0.1:7000 lines`

use onbytes_benches::cli;
use onbytes_benches::epoll::{self, Connections, Epoll, Unsent};
use onbytes_benches::frames::Frames;
use std::io;
use std::process::ExitCode;

/// Room for the largest frame, and a good deal behind it.
const BUFFER_SIZE: usize = 128 * 1024;

fn main() -> ExitCode {
    cli::exit(cli::framed_server::<Frames>().and_then(|(address, frames)| {
        let mut server = Server { frames, connections: Vec::new(), replies: Vec::new() };
        epoll::serve(address, &mut server).map_err(|error| error.to_string())
    }))
}

struct Server {
    frames: Frames,
    /// Indexed by file descriptor.
    connections: Vec<Connection>,
    /// The replies to what was received last.
    replies: Vec<u8>,
}

#[derive(Default)]
struct Connection {
    buffer: Box<[u8]>,
    /// How much of it is the beginning of a frame.
    begun: usize,
    unsent: Unsent,
}

impl Connections for Server {
    fn open(&mut self, socket: usize) {
        if self.connections.len() <= socket {
            self.connections.resize_with(socket + 1, Connection::default);
        }
        self.connections[socket].buffer = vec![0; BUFFER_SIZE].into_boxed_slice();
    }

    /// Receives once, and answers all frames that are whole at once.
    fn receive(&mut self, socket: usize, epoll: &Epoll) -> io::Result<()> {
        let Connection { buffer, begun, unsent } = &mut self.connections[socket];
        let Some(length) = epoll::receive(socket, &mut buffer[*begun..])? else { return Ok(()) };
        let end = *begun + length;
        let mut start = 0;
        self.replies.clear();
        while let Some((message, taken)) = self.frames.first(&buffer[start..end]) {
            self.frames.write(message, &mut self.replies);
            start += taken;
        }
        buffer.copy_within(start..end, 0);
        *begun = end - start;
        if *begun == buffer.len() {
            return Err(io::Error::other("a frame that is too large"));
        }
        if self.replies.is_empty() {
            return Ok(());
        }
        unsent.send(socket, &self.replies, epoll)
    }

    fn unsent(&mut self, socket: usize) -> &mut Unsent {
        &mut self.connections[socket].unsent
    }

    fn close(&mut self, socket: usize) {
        self.connections[socket] = Connection::default();
    }
}
