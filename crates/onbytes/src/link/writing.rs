//! Writing: how a message enters the queue, is waited for, and leaves.

use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;

use super::waiting::{Ticket, new_ticket};
use super::{ConnectionState, GATHER, State, Wakes, WriteStep};
use crate::stream::Stream;
use crate::{Error, Result};

impl State {
    pub(super) fn poll_write(
        &mut self,
        step: &mut WriteStep,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Result<()>> {
        match std::mem::replace(step, WriteStep::Done) {
            WriteStep::New(data) => {
                if let Err(error) = self.check_open().and_then(|()| self.check_message(&data)) {
                    wakes.spent.push(data);
                    return Poll::Ready(Err(error));
                }
                if !self.may_enter(self.sent_len(&data)) {
                    *step = WriteStep::InLine(data, self.join_line(cx));
                    return Poll::Pending;
                }
                self.accept_and_wait(data, step, cx, wakes)
            }
            WriteStep::InLine(data, ticket) => {
                if let Err(error) = self.check_open() {
                    self.leave_line(ticket, wakes);
                    wakes.spent.push(data);
                    return Poll::Ready(Err(error));
                }
                if !self.is_first_in_line(ticket) || !self.has_room(self.sent_len(&data)) {
                    self.stay_in_line(ticket, cx);
                    *step = WriteStep::InLine(data, ticket);
                    return Poll::Pending;
                }
                self.leave_line(ticket, wakes);
                self.accept_and_wait(data, step, cx, wakes)
            }
            WriteStep::Accepted(mark, ticket) => self.poll_mark(mark, ticket, step, cx),
            WriteStep::Done => panic!("a finished write was polled again"),
        }
    }

    pub(super) fn accept_and_wait(
        &mut self,
        data: Bytes,
        step: &mut WriteStep,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Result<()>> {
        let mark = self.accept(data, wakes);
        self.check_sound()?;
        self.poll_mark(mark, None, step, cx)
    }

    pub(super) fn poll_mark(
        &mut self,
        mark: u64,
        ticket: Option<Ticket>,
        step: &mut WriteStep,
        cx: &mut Context<'_>,
    ) -> Poll<Result<()>> {
        if self.outbox.sent() >= mark {
            return Poll::Ready(Ok(()));
        }
        if self.broken || self.stream.is_none() {
            self.check_sound()?;
            return Poll::Ready(Err(Error::closed()));
        }
        let waiting = self.waiting.get_or_insert_default();
        let ticket = ticket.unwrap_or_else(new_ticket);
        match waiting.find_mark(mark, ticket) {
            Ok(place) => waiting.sent[place].2.clone_from(cx.waker()),
            Err(place) => waiting.sent.insert(place, (mark, ticket, cx.waker().clone())),
        }
        *step = WriteStep::Accepted(mark, Some(ticket));
        Poll::Pending
    }

    pub(super) fn forget_mark(&mut self, mark: u64, ticket: Ticket) -> Option<Waker> {
        let waiting = self.waiting.as_mut()?;
        let place = waiting.find_mark(mark, ticket).ok()?;
        let (_, _, waker) = waiting.sent.remove(place)?;
        self.tidy();
        Some(waker)
    }

    /// Whether a new message of `len` bytes may enter: there is room and nobody was here before.
    pub(super) fn may_enter(&self, len: usize) -> bool {
        let line_is_empty = self.waiting.as_ref().is_none_or(|waiting| waiting.room.is_empty());
        line_is_empty && self.has_room(len)
    }

    fn has_room(&self, len: usize) -> bool {
        // An empty queue needs no look at how much room there is.
        self.outbox.is_empty() || self.outbox.has_room(len, self.ledger.room())
    }

    /// Accepts a message: what the kernel takes now goes there, the rest is queued for the
    /// connection's task. Returns the mark that tells when all of it is sent.
    pub(super) fn accept(&mut self, mut data: Bytes, wakes: &mut Wakes) -> u64 {
        if self.is_framed() {
            self.accept_frame(data, false, wakes);
            return self.outbox.sent() + self.outbox.queued();
        }
        self.counts.chunks_sent += 1;
        let sent = self.send_directly(&data, wakes);
        bytes::Buf::advance(&mut data, sent);
        if data.is_empty() || self.broken {
            self.counts.bytes_unsent += data.len() as u64;
            wakes.spent.push(data);
            return self.outbox.sent();
        }
        wakes.driver.clone_from(&self.driver);
        self.enqueue(data, wakes)
    }

    pub(super) fn enqueue(&mut self, data: Bytes, wakes: &mut Wakes) -> u64 {
        self.outbox.push(data, self.ledger.keeping(), &mut wakes.spent)
    }

    /// Hands bytes straight to the kernel if nothing is queued before them.
    pub(super) fn send_directly(&mut self, data: &[u8], wakes: &mut Wakes) -> usize {
        let Some(stream) = self.stream.as_mut().filter(|_| self.outbox.is_empty()) else {
            return 0;
        };
        if data.is_empty() {
            return 0;
        }
        match stream.send_now(data) {
            Ok(count) => {
                self.outbox.passed(count);
                self.note_activity();
                count
            }
            Err(error) => {
                self.fail(Error::transport("writing", error), wakes);
                0
            }
        }
    }

    /// Accepts a callback's reply. It always enters; with more received data at hand a small one
    /// waits for its like, so that many leave in one call.
    pub(crate) fn reply(
        &mut self,
        data: Bytes,
        more_at_hand: bool,
        wakes: &mut Wakes,
    ) -> Result<()> {
        let may_be_sent = self.ending.as_ref().is_none_or(|ending| ending.cut.is_none());
        // An empty frame is a frame.
        let is_nothing = data.is_empty() && !self.is_framed();
        if is_nothing || !may_be_sent || self.broken {
            wakes.spent.push(data);
            return Ok(());
        }
        if let Err(error) = self.check_message(&data) {
            wakes.spent.push(data);
            return Err(error);
        }
        let gathers = more_at_hand && data.len() <= GATHER;
        if self.is_framed() {
            self.accept_frame(data, gathers, wakes);
        } else if gathers {
            self.counts.chunks_sent += 1;
            self.enqueue(data, wakes);
        } else {
            self.accept(data, wakes);
        }
        if self.outbox.is_empty() {
            // The callback has ended, and sending has just noted when: no need to ask for the time again.
            self.doing = ConnectionState::Waiting;
        }
        Ok(())
    }

    // ---- The line for room ----

    pub(super) fn join_line(&mut self, cx: &Context<'_>) -> Ticket {
        let waiting = self.waiting.get_or_insert_default();
        let ticket = new_ticket();
        waiting.room.push_back((ticket, cx.waker().clone()));
        ticket
    }

    pub(super) fn is_first_in_line(&self, ticket: Ticket) -> bool {
        let first = self.waiting.as_ref().and_then(|waiting| waiting.room.front());
        first.is_some_and(|(first, _)| *first == ticket)
    }

    pub(super) fn stay_in_line(&mut self, ticket: Ticket, cx: &Context<'_>) {
        let line = self.waiting.iter_mut().flat_map(|waiting| waiting.room.iter_mut());
        if let Some((_, waker)) = line.into_iter().find(|(known, _)| *known == ticket) {
            waker.clone_from(cx.waker());
        }
    }

    pub(super) fn leave_line(&mut self, ticket: Ticket, wakes: &mut Wakes) {
        if let Some(waiting) = &mut self.waiting {
            waiting.room.retain(|(known, _)| *known != ticket);
            // Whoever is first now may fit where the one who left did not.
            wakes.add(waiting.room.front().map(|(_, waker)| waker.clone()));
            wakes.add(waiting.any_room.drain(..));
        }
        self.tidy();
    }

    pub(super) fn tidy(&mut self) {
        if self.waiting.as_ref().is_some_and(|waiting| waiting.is_idle()) {
            self.waiting = None;
        }
    }

    // ---- Sending what is queued: the connection's task ----

    /// Sends what is queued, one turn of it at a time. `Ready` when nothing is left, also because
    /// the transport failed; then the ending says so.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>, wakes: &mut Wakes) -> Poll<()> {
        let start = self.outbox.sent();
        while self.has_backlog() {
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(());
            };
            if self.outbox.sent() - start >= crate::socket::SEND_TURN as u64 {
                // Others get their turn.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let result = ready!(stream.poll_send(cx, &mut self.outbox));
            self.note_activity();
            self.wake_sent(wakes);
            if let Err(error) = result {
                self.fail(Error::transport("writing", error), wakes);
            }
        }
        Poll::Ready(())
    }

    /// Sends what is queued and says, where there is a way to say it, that this is the end. `Ready`
    /// when nothing is left to send.
    pub(crate) fn poll_farewell(&mut self, cx: &mut Context<'_>, wakes: &mut Wakes) -> Poll<()> {
        loop {
            ready!(self.poll_flush(cx, wakes));
            if self.broken || !self.stream.as_mut().is_some_and(Stream::say_end) {
                return Poll::Ready(());
            }
        }
    }

    /// Whether so much is queued that nothing more is read from the peer.
    pub(crate) fn has_too_much_queued(&self) -> bool {
        let queued = self.outbox.queued();
        queued > 0 && queued > self.ledger.room()
    }

    /// Whether anything waits for the kernel to take it.
    pub(crate) fn has_backlog(&self) -> bool {
        !self.outbox.is_empty() || self.stream.as_ref().is_some_and(|stream| stream.output() > 0)
    }

    /// Bytes that the kernel has taken, as it counts them.
    pub(crate) fn taken(&self) -> u64 {
        let sent = self.outbox.sent();
        self.stream.as_ref().map_or(sent, |stream| stream.taken(sent))
    }

    /// Something that is another with every byte that the kernel takes of what waits.
    pub(crate) fn progress(&self) -> u64 {
        // Two numbers in one, whose parts that move do not meet: so a connection keeps a word less.
        let left = self.stream.as_ref().map_or(0, Stream::output) as u64;
        self.outbox.sent().rotate_left(32) ^ left
    }

    pub(super) fn wake_sent(&mut self, wakes: &mut Wakes) {
        let Some(waiting) = &mut self.waiting else { return };
        while waiting.sent.front().is_some_and(|(mark, _, _)| *mark <= self.outbox.sent()) {
            wakes.add(waiting.sent.pop_front().map(|(_, _, waker)| waker));
        }
        self.wake_for_room(wakes);
        self.tidy();
    }

    /// Wakes whoever waits for room, where there is some.
    pub(super) fn wake_for_room(&mut self, wakes: &mut Wakes) {
        let Some(waiting) = &mut self.waiting else { return };
        if self.outbox.queued() < self.ledger.room() {
            wakes.add(waiting.room.front().map(|(_, waker)| waker.clone()));
            wakes.add(waiting.any_room.drain(..));
        }
    }

    pub(super) fn wake_everybody_not_accepted(&mut self, wakes: &mut Wakes) {
        if let Some(waiting) = &mut self.waiting {
            wakes.add(waiting.closed.drain(..).map(|(_, waker)| waker));
            wakes.add(waiting.room.iter().map(|(_, waker)| waker.clone()));
            wakes.add(waiting.any_room.drain(..));
        }
    }

    pub(super) fn wake_everybody(&mut self, wakes: &mut Wakes) {
        self.wake_everybody_not_accepted(wakes);
        if let Some(waiting) = &mut self.waiting {
            wakes.add(waiting.sent.drain(..).map(|(_, _, waker)| waker));
        }
    }
}
