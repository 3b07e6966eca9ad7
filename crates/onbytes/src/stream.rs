//! The byte stream of one connection: a session of bytes in, bytes out, over a wire.
//!
//! Above this module a connection knows plain bytes only. Where it has a TLS session, [`secure`]
//! transforms them between these methods and the wire. All of them run under the lock of the
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
#[cfg(feature = "_tls")]
use crate::tls::Session;

/// Calls a method of whichever wire there is.
macro_rules! wire {
    ($of:expr, $wire:ident => $call:expr) => {
        match $of {
            Wire::Tcp($wire) => $call,
            #[cfg(test)]
            Wire::Simulated($wire) => $call,
        }
    };
}

#[cfg(feature = "_tls")]
mod secure;

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
    // Boxed, because a plain connection has none and should not keep room for it.
    #[cfg(feature = "_tls")]
    session: Option<Box<Session>>,
}

enum Wire {
    Tcp(Socket),
    #[cfg(test)]
    Simulated(crate::simulation::Socket),
}

impl From<Socket> for Stream {
    fn from(socket: Socket) -> Self {
        Self::over(Wire::Tcp(socket))
    }
}

#[cfg(test)]
impl From<crate::simulation::Socket> for Stream {
    fn from(socket: crate::simulation::Socket) -> Self {
        Self::over(Wire::Simulated(socket))
    }
}

impl Stream {
    fn over(wire: Wire) -> Self {
        Self {
            wire,
            #[cfg(feature = "_tls")]
            session: None,
        }
    }

    /// Takes the next bytes from the peer, or waits for them.
    pub(crate) fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Input>> {
        #[cfg(feature = "_tls")]
        if let Some(session) = &mut self.session {
            return secure::poll_input(session, &mut self.wire, cx);
        }
        buffer::with_block(|block| {
            let received = ready!(wire!(&mut self.wire, wire => wire.poll_recv(cx, block)))?;
            Poll::Ready(Ok(input(block, received)))
        })
    }

    /// Whether nothing is at hand, and the task is woken when something is.
    pub(crate) fn poll_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        #[cfg(feature = "_tls")]
        if self.session.as_ref().is_some_and(|session| session.has_at_hand()) {
            return false;
        }
        wire!(&mut self.wire, wire => wire.poll_quiet(cx))
    }

    /// Takes the next bytes from the peer if there are any now; `None` if there are not.
    pub(crate) fn input_now(&mut self) -> io::Result<Option<Input>> {
        #[cfg(feature = "_tls")]
        if let Some(session) = &mut self.session {
            return secure::input_now(session, &mut self.wire);
        }
        buffer::with_block(|block| match wire!(&mut self.wire, wire => wire.recv_now(block)) {
            Ok(received) => Ok(Some(input(block, received))),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        })
    }

    /// Drops the next bytes from the peer, whatever they are, or waits for them; returns how many
    /// they were, 0 at its FIN.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        buffer::with_block(|block| {
            let received = ready!(wire!(&mut self.wire, wire => wire.poll_recv(cx, block)))?;
            block.clear();
            #[cfg(feature = "_tls")]
            if let Some(session) = self.session.as_mut().filter(|_| received.len == 0) {
                session.note_discarded_fin();
            }
            Poll::Ready(Ok(received.len))
        })
    }

    /// Sends as much of `data` as the kernel takes now, at most one turn; returns how much. The
    /// queue is empty, and what is not sent has to be put there.
    pub(crate) fn send_now(&mut self, data: &[u8]) -> io::Result<usize> {
        #[cfg(feature = "_tls")]
        if let Some(session) = &mut self.session {
            return secure::send_now(session, &mut self.wire, data);
        }
        let turn = &data[..data.len().min(SEND_TURN)];
        match wire!(&mut self.wire, wire => wire.send_now(turn)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// Sends one turn from the queue, or waits until the kernel has room. Where the queue is empty,
    /// the session [has output](Self::has_output) of its own.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        outbox: &mut Outbox,
    ) -> Poll<io::Result<()>> {
        #[cfg(feature = "_tls")]
        if let Some(session) = &mut self.session {
            return secure::poll_send(session, &mut self.wire, cx, outbox);
        }
        let mut slices = [io::IoSlice::new(&[]); GATHERED];
        let used = outbox.front(&mut slices, SEND_TURN);
        let sent = wire!(&mut self.wire, wire => wire.poll_send(cx, &slices[..used]));
        outbox.advance(ready!(sent)?);
        Poll::Ready(Ok(()))
    }

    /// Bytes that wait to be sent beside those in the queue, or in their place: TLS records that
    /// the kernel has not taken whole, and messages of the protocol itself.
    pub(crate) fn output(&self) -> usize {
        #[cfg(feature = "_tls")]
        if let Some(session) = &self.session {
            return session.outgoing().len();
        }
        0
    }

    /// The memory that a TLS session takes for parts of records.
    pub(crate) fn held(&self) -> u64 {
        #[cfg(feature = "_tls")]
        if let Some(session) = &self.session {
            return session.held() as u64;
        }
        0
    }

    /// Whether a TLS session transforms what is sent and received.
    pub(crate) fn is_secured(&self) -> bool {
        #[cfg(feature = "_tls")]
        return self.session.is_some();
        #[cfg(not(feature = "_tls"))]
        return false;
    }

    /// Sends what the kernel takes now of that output.
    pub(crate) fn send_output_now(&mut self) -> io::Result<()> {
        #[cfg(feature = "_tls")]
        if let Some(session) = &mut self.session {
            return secure::send_output_now(session, &mut self.wire);
        }
        Ok(())
    }

    /// Forgets that output, because it cannot be sent any more.
    pub(crate) fn discard_output(&mut self) {
        #[cfg(feature = "_tls")]
        if let Some(session) = &mut self.session {
            session.discard_outgoing();
        }
    }

    /// Something that is another with everything that comes from the peer, also where it is no whole
    /// record yet.
    pub(crate) fn heard(&self) -> u64 {
        #[cfg(feature = "_tls")]
        if let Some(session) = &self.session {
            return session.heard();
        }
        0
    }

    /// Bytes that the kernel has taken, given how many of the queue it has.
    pub(crate) fn taken(&self, sent: u64) -> u64 {
        #[cfg(feature = "_tls")]
        if let Some(session) = &self.session {
            return session.taken();
        }
        sent
    }

    /// Waits until the connection is broken, for use while nothing is read and nothing is queued.
    pub(crate) fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        wire!(&mut self.wire, wire => wire.poll_broken(cx))
    }

    /// Says, after all else, that we send no more, where there is a way to say it (close_notify).
    /// Tells whether that has to be sent now.
    pub(crate) fn say_end(&mut self) -> bool {
        #[cfg(feature = "_tls")]
        if let Some(session) = &mut self.session {
            return session.end();
        }
        false
    }

    /// Ends our direction of the stream.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        wire!(&mut self.wire, wire => wire.send_fin())
    }

    /// Whether the peer's FIN has been read, given whether its end has.
    pub(crate) fn fin_seen(&self, end_seen: bool) -> bool {
        #[cfg(feature = "_tls")]
        if let Some(session) = &self.session {
            return session.fin_seen();
        }
        end_seen
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
        wire!(&mut self.wire, wire => wire.arrived())
    }

    /// Bytes that the kernel took and the peer has not acknowledged, where the system tells.
    pub(crate) fn unacknowledged(&mut self) -> Option<u64> {
        wire!(&mut self.wire, wire => wire.unacknowledged())
    }
}

fn input(block: &mut BytesMut, received: Received) -> Input {
    match received.len {
        0 => Input::End,
        _ => Input::Chunk(buffer::take_chunk(block), received.more),
    }
}
