//! Frames: what a framing makes of what comes in, and of what goes out.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use tokio::time::Instant;

use super::{GATHER, Received, State, Wakes};
use crate::buffer;
use crate::close::CloseReason;
use crate::framing::{Compiled, Deframer, Fault, Found, Wrapping};
use crate::stream::Stream;
use crate::{Error, FrameMark, Result};

/// The frames of a connection that has a framing.
pub(super) struct Framer {
    pub(super) deframer: Deframer,
    /// The peer has ended its side, and that has to be told after its last frame.
    owes_end: bool,
    /// Frames that were skipped.
    pub(super) dropped: u64,
}

impl Framer {
    pub(super) fn new(compiled: Arc<Compiled>) -> Self {
        Self { deframer: Deframer::new(compiled), owes_end: false, dropped: 0 }
    }
}

impl State {
    fn framer(&mut self) -> Option<&mut Framer> {
        self.extras.as_mut()?.framer.as_deref_mut()
    }

    fn compiled(&self) -> Option<&Compiled> {
        let framer = self.extras.as_ref()?.framer.as_ref()?;
        Some(framer.deframer.compiled())
    }

    /// Whether the frame that was delivered last was whole.
    pub(crate) fn frame_mark(&self) -> FrameMark {
        let framer = self.extras.as_ref().and_then(|extras| extras.framer.as_deref());
        framer.map_or(FrameMark::Whole, |framer| framer.deframer.mark)
    }

    pub(super) fn frames_dropped(&self) -> u64 {
        let framer = self.extras.as_ref().and_then(|extras| extras.framer.as_deref());
        framer.map_or(0, |framer| framer.dropped)
    }

    /// Whether no frame is under way, and nothing is to be told of one.
    pub(super) fn frames_are_at_rest(&self) -> bool {
        let framer = self.extras.as_ref().and_then(|extras| extras.framer.as_deref());
        framer.is_none_or(|framer| !framer.owes_end && framer.deframer.is_at_rest())
    }

    // ---- In ----

    /// What has just come, as it is delivered: itself, or the first frame that it completes.
    pub(super) fn deliver(&mut self, chunk: Bytes, more: bool) -> Received {
        let read = chunk.len();
        let Some(framer) = self.framer() else {
            self.counts.chunks_received += 1;
            return Received::Data { data: chunk, more, read };
        };
        framer.deframer.feed(chunk);
        match self.next_frame() {
            Some(Received::Data { data, more: rest, .. }) => {
                Received::Data { data, more: more || rest, read }
            }
            Some(Received::Dropped { error, .. }) => Received::Dropped { error, read },
            Some(other) => other,
            None => Received::Piece { read },
        }
    }

    /// The next frame in what has come before, and what else is to be told before more is read.
    pub(super) fn next_frame(&mut self) -> Option<Received> {
        let framer = self.framer()?;
        if std::mem::take(&mut framer.owes_end) {
            self.end_seen = true;
            return Some(Received::End);
        }
        if let Some(fault) = framer.deframer.failure() {
            return Some(Received::Fault(fault.clone()));
        }
        if !framer.deframer.has_rest() {
            return None;
        }
        let found = framer.deframer.next();
        self.found(found)
    }

    /// The peer has ended its side: what is left of its last frame, or the end.
    pub(super) fn frames_end(&mut self) -> Received {
        if let Some(framer) = self.framer() {
            let found = framer.deframer.end();
            framer.owes_end = matches!(found, Ok(Some(_)));
            if let Some(received) = self.found(found) {
                self.end_seen = !matches!(received, Received::Data { .. });
                return received;
            }
        }
        self.end_seen = true;
        Received::End
    }

    fn found(&mut self, found: Result<Option<Found>, Fault>) -> Option<Received> {
        let framer = self.framer()?;
        match found {
            Ok(Some(Found::Frame(data, mark))) => {
                framer.deframer.mark = mark;
                let more = framer.deframer.has_rest();
                self.counts.chunks_received += 1;
                Some(Received::Data { data, more, read: 0 })
            }
            Ok(Some(Found::Dropped(fault))) => {
                framer.dropped += 1;
                Some(Received::Dropped { error: fault.into_error(), read: 0 })
            }
            Ok(None) => None,
            Err(fault) => Some(Received::Fault(fault)),
        }
    }

    /// When the frame under way has to be complete, if it is the peer that is waited for.
    pub(crate) fn frame_deadline(&mut self) -> Option<Instant> {
        let is_full = self.has_too_much_queued();
        let framer = self.framer()?;
        if is_full {
            framer.deframer.pause();
            return None;
        }
        framer.deframer.deadline()
    }

    /// The peer is not waited for at the moment.
    pub(crate) fn pause_frame(&mut self) {
        if let Some(framer) = self.framer() {
            framer.deframer.pause();
        }
    }

    /// The frame under way is not waited for any longer.
    pub(crate) fn give_up_frame(&mut self) -> Option<Fault> {
        Some(self.framer()?.deframer.give_up())
    }

    /// The first cause of an end that the service brings about now: a fault of the peer's frames of which it
    /// has heard, or that the peer has ended within one.
    pub(super) fn first_cause(
        &mut self,
        reason: CloseReason,
        error: Option<Error>,
    ) -> (CloseReason, Option<Error>) {
        if !matches!(reason, CloseReason::LocalClose | CloseReason::ServiceError) {
            return (reason, error);
        }
        let Some(Framer { deframer, .. }) = self.framer() else { return (reason, error) };
        match deframer.failure().cloned() {
            Some(fault) => (fault.reason, Some(fault.into_error())),
            None if deframer.mark == FrameMark::Partial => (CloseReason::PartialFrame, error),
            None => (reason, error),
        }
    }

    /// Nothing is read for a while: keeps no read buffer.
    pub(crate) fn compact_input(&mut self) {
        if let Some(framer) = self.framer() {
            framer.deframer.compact();
        }
    }

    /// Nothing more is delivered.
    pub(crate) fn discard_frames(&mut self) {
        if let Some(framer) = self.framer() {
            framer.deframer.discard();
        }
    }

    /// The memory that frames under way take.
    pub(super) fn held_by_frames(&self) -> u64 {
        let framer = self.extras.as_ref().and_then(|extras| extras.framer.as_deref());
        framer.map_or(0, |framer| framer.deframer.held())
    }

    // ---- Out ----

    /// Tells whether `data` can be sent, as one frame where there is a framing.
    pub(super) fn check_message(&self, data: &[u8]) -> Result<()> {
        self.compiled().map_or(Ok(()), |compiled| compiled.check_message(data))
    }

    /// The bytes that `data` is sent as.
    pub(super) fn sent_len(&self, data: &[u8]) -> usize {
        self.compiled().map_or(data.len(), |compiled| compiled.frame_len(data))
    }

    pub(super) fn is_framed(&self) -> bool {
        self.compiled().is_some()
    }

    /// Accepts a message that was checked, as one frame. `gathers`: a small one, that the connection's own
    /// task replies, may wait for its like.
    pub(super) fn accept_frame(&mut self, data: Bytes, gathers: bool, wakes: &mut Wakes) {
        self.counts.chunks_sent += 1;
        if self.goes_out_in_parts(&data) {
            self.enqueue_parts(&data, wakes);
            wakes.spent.push(data);
            if !gathers {
                self.send_queue_now(wakes);
            }
            return;
        }
        buffer::with_frame(|frame| {
            if let Some(compiled) = self.compiled() {
                compiled.encode(&data, frame);
            }
            let sent = if gathers { 0 } else { self.send_directly(frame, wakes) };
            let rest = &frame[sent..];
            if self.broken {
                self.counts.bytes_unsent += rest.len() as u64;
            } else if !rest.is_empty() {
                if !gathers {
                    wakes.driver.clone_from(&self.driver);
                }
                self.outbox.push_copy(rest);
            }
        });
        wakes.spent.push(data);
    }

    /// Whether a message is so large that it is worth not to copy it. Over TLS each part would be a record
    /// of its own.
    fn goes_out_in_parts(&self, data: &Bytes) -> bool {
        let is_secured = self.stream.as_ref().is_some_and(Stream::is_secured);
        let is_wrapped =
            |compiled: &Compiled| matches!(compiled.wrapping(data), Wrapping::Around { .. });
        data.len() > GATHER && !is_secured && self.compiled().is_some_and(is_wrapped)
    }

    fn enqueue_parts(&mut self, data: &Bytes, wakes: &mut Wakes) {
        if self.broken {
            self.counts.bytes_unsent += data.len() as u64;
            return;
        }
        let Some(extras) = &self.extras else { return };
        let Some(framer) = &extras.framer else { return };
        if let Wrapping::Around { head, skip, tail } = framer.deframer.compiled().wrapping(data) {
            let keeping = self.ledger.keeping();
            self.outbox.push_copy(head.as_slice());
            self.outbox.push(data.slice(skip..), keeping, &mut wakes.spent);
            self.outbox.push_copy(tail);
        }
        wakes.driver.clone_from(&self.driver);
    }

    /// Sends from the queue what the kernel takes now; the rest is the task's.
    fn send_queue_now(&mut self, wakes: &mut Wakes) {
        let Some(stream) = self.stream.as_mut().filter(|_| !self.broken) else { return };
        let mut nobody = Context::from_waker(Waker::noop());
        if let Poll::Ready(result) = stream.poll_send(&mut nobody, &mut self.outbox) {
            self.note_activity();
            self.wake_sent(wakes);
            if let Err(error) = result {
                self.fail(Error::transport("writing", error), wakes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Framing;
    use crate::ledger::Ledger;
    use crate::link::Link;
    use crate::simulation;

    #[test]
    fn what_is_read_is_told_whatever_comes_of_it() {
        let (socket, _peer) = simulation::connection(usize::MAX / 2);
        let address = "127.0.0.1:1".parse().unwrap();
        let link = Link::new(1, address, address, socket, Arc::new(Ledger::new(64 * 1024)));
        let framing: Framing = "lines,max=3,oversize=skip".parse().unwrap();
        link.frame(&Compiled::new(&framing).unwrap());
        let read_of = |chunk: &'static str| {
            let mut state = link.lock();
            match state.deliver(chunk.into(), false) {
                Received::Data { read, .. }
                | Received::Piece { read }
                | Received::Dropped { read, .. } => read,
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(read_of("a\n"), 2);
        assert_eq!(read_of("half a "), 7);
        assert_eq!(read_of("frame\n"), 6);
        assert_eq!(read_of("too long\n"), 9);
        assert_eq!(link.lock().frames_dropped(), 2);
    }
}
