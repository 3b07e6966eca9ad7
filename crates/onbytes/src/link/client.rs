//! What only a client needs: it has no task of its own, except to send what is queued.

use std::task::{Context, Poll};

use bytes::Bytes;

use super::{QUEUE_CAP, State, Wakes, WriteStep};
use crate::close::CloseReason;
use crate::{Error, Result};

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
        let is_needed = !self.outbox.is_empty() && !self.has_sender;
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

    /// The client is gone; tells whether to close the descriptor now, because no task is sending.
    pub(crate) fn orphan(&mut self, wakes: &mut Wakes) -> bool {
        self.is_orphan = true;
        self.end(CloseReason::LocalClose, None, wakes);
        !self.has_sender
    }

    /// Accepts nothing more for sending; returns the wait for everything accepted before.
    pub(crate) fn refuse_writes(&mut self, wakes: &mut Wakes) -> Result<WriteStep> {
        if !self.finishing {
            self.finishing = true;
            self.wake_everybody_not_accepted(wakes);
        }
        self.everything()
    }

    /// Ends our direction, once, after everything accepted was sent.
    pub(crate) fn send_fin(&mut self, wakes: &mut Wakes) -> Result<()> {
        if self.fin_sent {
            return Ok(());
        }
        let Some(stream) = self.stream.as_mut().filter(|_| !self.broken) else {
            return Err(self.failure());
        };
        if let Err(error) = stream.finish() {
            self.fail(Error::transport("closing", error), wakes);
            return Err(self.failure());
        }
        self.fin_sent = true;
        Ok(())
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
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = QUEUE_CAP.saturating_sub(self.outbox.queued());
        let some = &data[..data.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        if some.is_empty() || !self.may_enter(some.len()) {
            let any_room = &mut self.waiting.get_or_insert_default().any_room;
            if !any_room.iter().any(|waker| waker.will_wake(cx.waker())) {
                any_room.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let sent = self.send_directly(some, wakes);
        self.check_sound()?;
        self.counts.chunks_sent += 1;
        if sent > 0 {
            return Poll::Ready(Ok(sent));
        }
        self.outbox.push(Bytes::copy_from_slice(some));
        wakes.driver.clone_from(&self.driver);
        Poll::Ready(Ok(some.len()))
    }
}
