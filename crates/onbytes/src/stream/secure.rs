//! A TLS session over a wire: what comes is taken apart in the worker's buffers, what goes is sealed
//! in them, and only what has to wait is kept with the session.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, ready};

use bytes::BytesMut;

use super::{Input, Stream, Wire};
use crate::buffer::{WIRE, take_chunk, with_block, with_sealed, with_wire};
use crate::outbox::Outbox;
use crate::socket::Received;
use crate::tls::{AtHand, Session, TlsInfo};
use crate::{Error, Result};

/// Reads of one call that bring no plain bytes. A peer that sends nothing else does not hold a
/// worker.
const FRUITLESS_READS: usize = 8;

/// The same where what has arrived is to be delivered before a drain: it cannot be waited for.
const LAST_FRUITLESS_READS: usize = 256;

// ---- The handshake ----

impl Stream {
    /// From now on the stream is secured by `session`, which has its handshake before it.
    pub(crate) fn secure(&mut self, session: Session) {
        let mut session = Box::new(session);
        session.shake_hands(&mut []);
        self.session = Some(session);
    }

    /// Drives the handshake; `Ready` when it is complete and all that belongs to it was sent.
    pub(crate) fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<TlsInfo>>> {
        let Self { wire, session } = self;
        let Some(session) = session else { return Poll::Ready(Ok(None)) };
        loop {
            let failed = |error| Error::transport("the TLS handshake", error);
            if let Some(error) = session.failure().filter(|_| session.is_handshaking()) {
                // The alert that tells the peer so leaves with the end of the connection.
                return Poll::Ready(Err(error.clone()));
            }
            ready!(poll_output(session, wire, cx)).map_err(failed)?;
            if !session.is_handshaking() {
                return Poll::Ready(session.complete());
            }
            ready!(poll_shake(session, wire, cx)).map_err(failed)?;
        }
    }
}

/// Reads once and lets the session have it.
fn poll_shake(
    session: &mut Session,
    wire: &mut Wire,
    cx: &mut Context<'_>,
) -> Poll<io::Result<()>> {
    with_wire(|received| {
        session.lay_out_pending(received, WIRE);
        match ready!(wire!(wire, wire => wire.poll_recv(cx, received)))? {
            Received { len: 0, .. } => session.note_fin(),
            _ => session.shake_hands(received),
        }
        Poll::Ready(Ok(()))
    })
}

// ---- Input ----

pub(super) fn poll_input(
    session: &mut Session,
    wire: &mut Wire,
    cx: &mut Context<'_>,
) -> Poll<io::Result<Input>> {
    for _ in 0..FRUITLESS_READS {
        let read =
            |received: &mut BytesMut| wire!(&mut *wire, wire => wire.poll_recv(cx, received));
        if let Some(input) = ready!(take(session, read))? {
            return Poll::Ready(Ok(input));
        }
    }
    // Others get their turn.
    cx.waker().wake_by_ref();
    Poll::Pending
}

pub(super) fn input_now(session: &mut Session, wire: &mut Wire) -> io::Result<Option<Input>> {
    for _ in 0..LAST_FRUITLESS_READS {
        let read = |received: &mut BytesMut| match wire!(&mut *wire, wire => wire.recv_now(received))
        {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
            result => Poll::Ready(result),
        };
        match take(session, read) {
            Poll::Ready(Ok(None)) => {}
            Poll::Ready(result) => return result,
            Poll::Pending => return Ok(None),
        }
    }
    Ok(None)
}

/// What is at hand, or else what one read brings; `None` where that says nothing to us.
fn take(
    session: &mut Session,
    read: impl FnOnce(&mut BytesMut) -> Poll<io::Result<Received>>,
) -> Poll<io::Result<Option<Input>>> {
    if let Some(at_hand) = session.take_at_hand() {
        return Poll::Ready(at_hand.map(of_session).map_err(io::Error::other));
    }
    with_wire(|received| {
        session.lay_out_pending(received, WIRE);
        let Received { len, more } = ready!(read(received))?;
        if len == 0 {
            session.note_fin();
            return Poll::Ready(Ok(None));
        }
        with_block(|plain| {
            session.take_in(received, plain);
            // The end, or a failure, that came behind these bytes is at hand with the next call.
            let input = (!plain.is_empty()).then(|| Input::Chunk(take_chunk(plain), more));
            Poll::Ready(Ok(input))
        })
    })
}

fn of_session(at_hand: AtHand) -> Option<Input> {
    Some(match at_hand {
        AtHand::Plain(data) => Input::Chunk(data, true),
        AtHand::End => Input::End,
    })
}

// ---- Output ----

pub(super) fn send_now(session: &mut Session, wire: &mut Wire, data: &[u8]) -> io::Result<usize> {
    if !session.outgoing().is_empty() {
        return Ok(0);
    }
    let turn = &data[..data.len().min(WIRE)];
    let send = |sealed: &[u8]| match wire!(wire, wire => wire.send_now(sealed)) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        result => result,
    };
    seal_and_send(session, turn, send)
}

pub(super) fn poll_send(
    session: &mut Session,
    wire: &mut Wire,
    cx: &mut Context<'_>,
    outbox: &mut Outbox,
) -> Poll<io::Result<()>> {
    if session.outgoing().is_empty() {
        let mut slices = [IoSlice::new(&[])];
        outbox.front(&mut slices, WIRE);
        let send = |sealed: &[u8]| match wire!(&mut *wire, wire => wire.poll_send(cx, &[IoSlice::new(sealed)]))
        {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(0),
        };
        let done = seal_and_send(session, &slices[0], send)?;
        outbox.advance(done);
        if session.outgoing().is_empty() {
            return Poll::Ready(Ok(()));
        }
    }
    outbox.advance(ready!(poll_output(session, wire, cx))?);
    Poll::Ready(Ok(()))
}

/// Seals `data` and sends it with `send`. Returns how much of `data` is done: all of it, or, where
/// the kernel does not take all, nothing yet.
fn seal_and_send(
    session: &mut Session,
    data: &[u8],
    send: impl FnOnce(&[u8]) -> io::Result<usize>,
) -> io::Result<usize> {
    with_sealed(|sealed| {
        let len = session.seal(data, sealed).map_err(io::Error::other)?;
        let taken = send(&sealed[..len])?;
        Ok(session.keep(&sealed[..len], taken, data.len()))
    })
}

/// Sends what the kernel takes now of what is outgoing. The queue is empty.
pub(super) fn send_output_now(session: &mut Session, wire: &mut Wire) -> io::Result<()> {
    if session.outgoing().is_empty() {
        return Ok(());
    }
    match wire!(wire, wire => wire.send_now(session.outgoing())) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        result => drop(session.took(result?)),
    }
    Ok(())
}

/// Sends what is outgoing, to its end; returns how many bytes of the queue are done by that.
fn poll_output(
    session: &mut Session,
    wire: &mut Wire,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let mut done = 0;
    while !session.outgoing().is_empty() {
        let outgoing = [IoSlice::new(session.outgoing())];
        let taken = ready!(wire!(&mut *wire, wire => wire.poll_send(cx, &outgoing)))?;
        done += session.took(taken);
    }
    Poll::Ready(Ok(done))
}
