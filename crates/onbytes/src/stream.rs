//! The byte stream of one connection: a session of bytes in, bytes out, over a wire.
//!
//! Above this module a connection knows plain bytes only. A session that transforms them (TLS)
//! belongs here, between [`Stream`]'s methods and its wire: all of them run under the lock of the
//! connection, so both directions may share state, and no other module needs to know.
//!
//! The wire is a socket. In tests it may be a simulated one; in a build for use the choice has one
//! variant and costs nothing.

use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use crate::buffer;
use crate::outbox::Outbox;
use crate::socket::{Received, SEND_TURN, Socket};

/// Entries of the queue that leave in one system call.
const GATHERED: usize = 16;

/// What one read brought.
#[derive(Debug)]
pub(crate) enum Input {
    /// Bytes, and whether more are likely to be at hand.
    Chunk(Bytes, bool),
    /// The peer will send no more.
    End,
}

/// One connection's stream; dropping it closes the descriptor.
pub(crate) struct Stream {
    wire: Wire,
}

enum Wire {
    Tcp(Socket),
    #[cfg(test)]
    Simulated(crate::simulation::Socket),
}

/// Calls a method of whichever wire there is.
macro_rules! wire {
    ($stream:expr, $wire:ident => $call:expr) => {
        match &mut $stream.wire {
            Wire::Tcp($wire) => $call,
            #[cfg(test)]
            Wire::Simulated($wire) => $call,
        }
    };
}

impl From<Socket> for Stream {
    fn from(socket: Socket) -> Self {
        Self { wire: Wire::Tcp(socket) }
    }
}

#[cfg(test)]
impl From<crate::simulation::Socket> for Stream {
    fn from(socket: crate::simulation::Socket) -> Self {
        Self { wire: Wire::Simulated(socket) }
    }
}

impl Stream {
    /// Takes the next bytes from the peer, or waits for them.
    pub(crate) fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Input>> {
        buffer::with_block(|block| {
            let received = ready!(wire!(self, wire => wire.poll_recv(cx, block)))?;
            Poll::Ready(Ok(input(block, received)))
        })
    }

    /// Takes the next bytes from the peer if there are any now; `None` if there are not.
    pub(crate) fn input_now(&mut self) -> io::Result<Option<Input>> {
        buffer::with_block(|block| match wire!(self, wire => wire.recv_now(block)) {
            Ok(received) => Ok(Some(input(block, received))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// Sends as much of `data` as the kernel takes now, at most one turn; returns how much.
    pub(crate) fn send_now(&mut self, data: &[u8]) -> io::Result<usize> {
        let turn = &data[..data.len().min(SEND_TURN)];
        match wire!(self, wire => wire.send_now(turn)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// Sends one turn from the queue, or waits until the kernel has room. The queue is not empty.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &mut Outbox,
    ) -> Poll<io::Result<()>> {
        let mut slices = [io::IoSlice::new(&[]); GATHERED];
        let used = outbox.front(&mut slices, SEND_TURN);
        let count = ready!(wire!(self, wire => wire.poll_send(cx, &slices[..used])))?;
        outbox.advance(count);
        Poll::Ready(Ok(()))
    }

    /// Waits until the connection is broken, for use while nothing is read and nothing is queued.
    pub(crate) fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        wire!(self, wire => wire.poll_broken(cx))
    }

    /// Ends our direction of the stream.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        wire!(self, wire => wire.send_fin())
    }

    /// Closes the connection so that the peer sees a reset.
    pub(crate) fn reset(self) {
        match self.wire {
            Wire::Tcp(socket) => socket.reset(),
            #[cfg(test)]
            Wire::Simulated(socket) => socket.reset(),
        }
    }

    /// Bytes that have arrived and were not taken yet.
    pub(crate) fn arrived(&mut self) -> usize {
        wire!(self, wire => wire.arrived())
    }

    /// Bytes that the kernel took and the peer has not acknowledged, where the system tells.
    pub(crate) fn unacknowledged(&mut self) -> Option<u64> {
        wire!(self, wire => wire.unacknowledged())
    }
}

fn input(block: &mut BytesMut, received: Received) -> Input {
    match received.len {
        0 => Input::End,
        _ => Input::Chunk(block.split().freeze(), received.more),
    }
}
