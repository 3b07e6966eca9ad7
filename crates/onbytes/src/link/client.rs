//! What only a client needs: it has no task of its own, except to send what is queued.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{State, Wakes, WriteStep};
use crate::close::CloseReason;
use crate::stream::Stream;
use crate::{Error, ErrorKind, Result};

impl State {
    /// Why nothing can be read: the failure, or that the connection is closed.
    pub(crate) fn failure(&self) -> Error {
        let error = self.ending.as_ref().and_then(|ending| ending.error.clone());
        error.unwrap_or_else(Error::closed)
    }

    /// The wait for everything accepted so far, which fails where some of it is lost already.
    pub(crate) fn everything(&self) -> Result<WriteStep> {
        if self.broken {
            return Err(self.failure());
        }
        Ok(WriteStep::Accepted(self.outbox.sent() + self.outbox.queued(), None))
    }

    /// Whether a task has to be started that sends what is queued; it is then taken for started.
    pub(crate) fn claim_backlog(&mut self) -> bool {
        let is_needed = (self.has_backlog() || self.lingers()) && !self.has_sender;
        self.has_sender |= is_needed;
        is_needed
    }

    /// The task that sends what is queued ends; tells whether it has to close the descriptor,
    /// because nobody else is left.
    pub(crate) fn release_backlog(&mut self) -> bool {
        self.has_sender = false;
        self.driver = None;
        self.is_orphan
    }

    /// The client is gone; tells whether to close the descriptor now, because nothing is left to
    /// send.
    pub(crate) fn orphan(&mut self, wakes: &mut Wakes) -> bool {
        self.is_orphan = true;
        self.end(CloseReason::LocalClose, None, wakes);
        if !self.has_sender && !self.broken && self.outbox.is_empty() {
            self.say_end_now();
        }
        !self.has_sender && !self.has_backlog() && !self.lingers()
    }

    /// Whether the descriptor has to stay for a while after the client is gone. Over TLS a server
    /// sends tickets that nobody asked for; a socket that is closed before they are read resets the
    /// connection, and what was sent last may be lost.
    fn lingers(&self) -> bool {
        let is_secured = self.stream.as_ref().is_some_and(Stream::is_secured);
        self.is_orphan && is_secured && !self.broken && !self.fin_seen()
    }

    /// Behind what was queued: our FIN, and what the server still sends until its own. `Ready` also
    /// where there is no reason to wait for that.
    pub(crate) fn poll_linger(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        if !self.lingers() {
            return Poll::Ready(());
        }
        if !self.fin_sent {
            self.fin_sent = true;
            if self.stream.as_mut().is_none_or(|stream| stream.finish().is_err()) {
                return Poll::Ready(());
            }
        }
        self.poll_discard(cx, left)
    }

    /// What the task that sends has to send: what is queued and, where nobody else is left, the end.
    pub(crate) fn poll_backlog(&mut self, cx: &mut Context<'_>, wakes: &mut Wakes) -> Poll<()> {
        if self.is_orphan { self.poll_farewell(cx, wakes) } else { self.poll_flush(cx, wakes) }
    }

    /// Says that this is the end, as far as the kernel takes it now. The queue is empty.
    fn say_end_now(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.say_end();
            // A failure shows with whatever is done next.
            let _ = stream.send_output_now();
        }
    }

    /// Accepts nothing more for sending; returns the wait for everything accepted before.
    pub(crate) fn refuse_writes(&mut self, wakes: &mut Wakes) -> Result<WriteStep> {
        if !self.finishing {
            self.finishing = true;
            self.wake_everybody_not_accepted(wakes);
        }
        self.everything()
    }

    /// Ends our direction, once, after everything accepted was sent. Waits for the task that sends
    /// where the kernel does not take at once what has to be said before.
    pub(crate) fn poll_send_fin(
        &mut self,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Result<()>> {
        if self.fin_sent {
            return Poll::Ready(Ok(()));
        }
        if self.broken || self.stream.is_none() {
            return Poll::Ready(Err(self.failure()));
        }
        self.say_end_now();
        if self.has_backlog() {
            self.watch_room(cx);
            return Poll::Pending;
        }
        if let Some(Err(error)) = self.stream.as_mut().map(Stream::finish) {
            self.fail(Error::transport("closing", error), wakes);
            return Poll::Ready(Err(self.failure()));
        }
        self.fin_sent = true;
        // Others may wait for the same.
        self.wake_everybody_not_accepted(wakes);
        Poll::Ready(Ok(()))
    }

    /// Notes whom to wake when the kernel has taken something.
    fn watch_room(&mut self, cx: &Context<'_>) {
        let any_room = &mut self.waiting.get_or_insert_default().any_room;
        if !any_room.iter().any(|waker| waker.will_wake(cx.waker())) {
            any_room.push(cx.waker().clone());
        }
    }

    /// Accepts some of `data`, as `AsyncWrite` does, or waits for room. It keeps no place in the
    /// line, because its future may be forgotten without a word.
    pub(crate) fn poll_write_some(
        &mut self,
        data: &[u8],
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Result<usize>> {
        self.check_open()?;
        if self.is_framed() {
            let message = "a client with a framing sends frames, not a stream of bytes";
            return Poll::Ready(Err(Error::of(ErrorKind::State, message)));
        }
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = self.ledger.room().saturating_sub(self.outbox.queued());
        let some = &data[..data.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        if some.is_empty() || !self.may_enter(some.len()) {
            self.watch_room(cx);
            return Poll::Pending;
        }
        let sent = self.send_directly(some, wakes);
        self.check_sound()?;
        self.counts.chunks_sent += 1;
        if sent > 0 {
            return Poll::Ready(Ok(sent));
        }
        self.enqueue(Bytes::copy_from_slice(some), wakes);
        wakes.driver.clone_from(&self.driver);
        Poll::Ready(Ok(some.len()))
    }
}
