//! Receiving: what comes from the peer, its end and its failures.

use std::task::{Context, Poll, ready};

use super::{ConnectionState, State, Wakes};
use crate::close::CloseReason;
use bytes::Bytes;

use crate::framing::Fault;
use crate::stream::{Input, Stream};
use crate::{Error, ErrorKind};

/// What comes next from the peer.
#[derive(Debug)]
pub(crate) enum Received {
    /// A chunk, or a frame where there is a framing.
    Data {
        data: Bytes,
        /// Whether more is likely to be at hand.
        more: bool,
        /// How many bytes were read from the peer for it now.
        read: usize,
    },
    /// Bytes that complete no frame.
    Piece { read: usize },
    /// A frame was skipped.
    Dropped { error: Error, read: usize },
    /// What the peer sends is no frame, and nothing more is delivered.
    Fault(Fault),
    /// The peer will send no more.
    End,
}

impl State {
    /// Takes the next input, or waits for it. A failure becomes the connection's ending.
    pub(crate) fn poll_input(
        &mut self,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Option<Received>> {
        if self.extras.is_some()
            && let Some(received) = self.next_frame()
        {
            return Poll::Ready(Some(received));
        }
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(None);
        };
        let result = ready!(stream.poll_input(cx));
        Poll::Ready(self.received(result.map(Some), wakes))
    }

    /// Whether nothing but the peer is waited for and nothing of it is at hand. Then the task is woken when
    /// something is.
    pub(crate) fn poll_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        self.ending.is_none()
            && !self.end_seen
            && !self.has_drain_request()
            && self.stream.as_mut().is_some_and(|stream| stream.poll_quiet(cx))
    }

    /// Takes the next frame of what has been read, where there is nothing to see to before that.
    pub(crate) fn frame_at_hand(&mut self) -> Option<Received> {
        let comes_first = self.ending.is_some()
            || self.end_seen
            || self.has_drain_request()
            || self.has_too_much_queued();
        if comes_first || !self.is_framed() {
            return None;
        }
        // A callback has ended, and another one begins.
        self.note_activity();
        self.set_doing(ConnectionState::Busy);
        self.next_frame()
    }

    /// Takes the next input if there is any now.
    pub(crate) fn input_now(&mut self, wakes: &mut Wakes) -> Option<Received> {
        if let Some(received) = self.next_frame() {
            return Some(received);
        }
        let result = self.stream.as_mut()?.input_now();
        self.received(result, wakes)
    }

    pub(super) fn received(
        &mut self,
        result: std::io::Result<Option<Input>>,
        wakes: &mut Wakes,
    ) -> Option<Received> {
        match result {
            // The kernel tells of a failure once; after that the stream seems to end well.
            Ok(Some(Input::End)) if self.broken && !self.end_is_vouched_for() => {
                self.fail(Error::of(ErrorKind::Reset, "the peer reset the connection"), wakes);
                None
            }
            Ok(Some(Input::Chunk(data, more))) => {
                self.counts.bytes_received += data.len() as u64;
                Some(self.deliver(data, more))
            }
            Ok(Some(Input::End)) => Some(self.frames_end()),
            Ok(None) => None,
            Err(error) => {
                let error = Error::transport("reading", error);
                if error.kind() == ErrorKind::Truncated {
                    // What we have to say can still be said.
                    self.end_seen = true;
                    self.end(CloseReason::Truncated, Some(error), wakes);
                } else {
                    // A TLS peer is told what it did wrong, as far as the kernel takes it now.
                    if let Some(stream) = self.stream.as_mut() {
                        let _ = stream.send_output_now();
                    }
                    self.fail(error, wakes);
                }
                None
            }
        }
    }

    /// Over TLS a peer says that its stream ends, and a reset behind that takes nothing from it. (One
    /// that nobody has acted on yet still becomes the ending, as that of a plain stream does.)
    fn end_is_vouched_for(&self) -> bool {
        self.ending.is_some() && self.stream.as_ref().is_some_and(Stream::is_secured)
    }

    /// Something that is another with everything that comes from the peer.
    pub(crate) fn heard(&self) -> u64 {
        self.stream.as_ref().map_or(0, Stream::heard)
    }

    /// Bytes that have come from the peer: over TLS those on the wire.
    pub(crate) fn arrived(&self) -> u64 {
        match &self.stream {
            Some(stream) if stream.is_secured() => stream.heard(),
            _ => self.counts.bytes_received,
        }
    }

    /// While nothing is read and nothing is queued: notices that the peer is gone for good, so that
    /// whoever waits for the end of the connection hears of it.
    pub(crate) fn poll_broken(&mut self, cx: &mut Context<'_>, wakes: &mut Wakes) -> bool {
        if let Some(stream) = self.stream.as_mut().filter(|_| !self.broken)
            && stream.poll_broken(cx).is_ready()
        {
            self.broken = true;
            self.wake_everybody_not_accepted(wakes);
        }
        self.broken
    }

    /// Reads and drops what the peer still sends; `Ready` when it has ended, failed, or sent more
    /// than `left` bytes.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(());
        };
        loop {
            match ready!(stream.poll_discard(cx)) {
                Ok(count) if (1..*left).contains(&count) => *left -= count,
                _ => return Poll::Ready(()),
            }
        }
    }
}
