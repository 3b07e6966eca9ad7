//! From received chunks to frames, without a socket: what a framing's rules make of what its scanner finds.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::time::Instant;

use super::scan::{Scanner, Step};
use super::{Compiled, Framing, Malformed, Oversize, PartialFrame};
use crate::close::CloseReason;
use crate::{Error, ErrorKind, Result};

/// Whether a frame is delivered whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum FrameMark {
    /// It is all there.
    #[default]
    Whole,
    /// It is the beginning of one that was larger than [`Framing::max_frame`]: so many bytes.
    Truncated(u64),
    /// It is what came of one before the peer ended its side.
    Partial,
}

/// What ends a connection, or is dropped, because it is no frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) reason: CloseReason,
    message: Cow<'static, str>,
}

impl Fault {
    fn of(reason: CloseReason, message: impl Into<Cow<'static, str>>) -> Self {
        Self { reason, message: message.into() }
    }

    pub(crate) fn into_error(self) -> Error {
        Error::of(ErrorKind::Frame, self.message)
    }
}

/// What comes next of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Frame(Bytes, FrameMark),
    /// A frame that is not delivered, and why.
    Dropped(Fault),
}

/// What has come of the frame under way and is to be delivered.
#[derive(Debug, Default)]
pub(super) struct Content {
    bytes: BytesMut,
    /// How much there was of it, kept or not.
    len: u64,
    /// How much there will be, where that is known.
    declared: u64,
    /// The most that is kept.
    most: usize,
    /// Why it is not delivered.
    dropped: Option<Fault>,
}

impl Content {
    /// Adds content that does not lie in what has just come.
    pub(super) fn push(&mut self, data: &[u8]) {
        self.len += data.len() as u64;
        self.keep(data);
    }

    /// Tells how many bytes the frame will have, of which `strip` are not delivered.
    pub(super) fn declare(&mut self, total: u64, strip: usize) {
        self.declared = total.saturating_sub(strip as u64);
    }

    /// Keeps what there is room for.
    fn keep(&mut self, data: &[u8]) {
        if self.dropped.is_none() {
            let room = self.most.saturating_sub(self.bytes.len());
            self.bytes.extend_from_slice(&data[..data.len().min(room)]);
        }
    }

    /// Whether nothing of the frame has come yet.
    fn is_untouched(&self) -> bool {
        self.len == 0 && self.bytes.is_empty() && self.dropped.is_none()
    }

    fn full_len(&self) -> u64 {
        self.len.max(self.declared)
    }

    /// From now on nothing of this frame is kept.
    fn drop_for(&mut self, fault: Fault) {
        self.bytes = BytesMut::new();
        self.dropped.get_or_insert(fault);
    }

    fn clear(&mut self) {
        *self = Self { most: self.most, ..Self::default() };
    }
}

/// How long the end of the frame under way has been waited for.
#[derive(Debug, Default)]
struct Wait {
    /// Since when, if it is now.
    since: Option<Instant>,
    /// How long before that.
    before: Duration,
}

/// Makes frames of one connection's chunks.
#[derive(Debug)]
pub(crate) struct Deframer {
    compiled: Arc<Compiled>,
    scanner: Scanner,
    /// What has come and was not looked at yet.
    rest: Bytes,
    /// The size of the copy that it is a part of; 0 where it is a part of a read buffer, which others may
    /// want.
    copied: usize,
    content: Content,
    /// Something of a frame has come, and not its end.
    is_under_way: bool,
    wait: Wait,
    /// Bytes since the last frame that belong to none.
    outside: u64,
    /// Why nothing more is delivered: what came was no frame.
    failure: Option<Fault>,
    /// Nothing more is delivered.
    is_over: bool,
    pub(crate) mark: FrameMark,
}

impl Deframer {
    pub(crate) fn new(compiled: Arc<Compiled>) -> Self {
        let most = compiled.framing.max_frame;
        Self {
            scanner: Scanner::new(&compiled.form),
            compiled,
            rest: Bytes::new(),
            copied: 0,
            content: Content { most, ..Content::default() },
            is_under_way: false,
            wait: Wait::default(),
            outside: 0,
            failure: None,
            is_over: false,
            mark: FrameMark::Whole,
        }
    }

    pub(crate) fn compiled(&self) -> &Arc<Compiled> {
        &self.compiled
    }

    /// Takes what has come. What came before was looked at, down to nothing.
    pub(crate) fn feed(&mut self, chunk: Bytes) {
        debug_assert!(self.rest.is_empty(), "a chunk is taken when the last one is used up");
        if !self.is_over {
            self.rest = chunk;
            self.copied = 0;
        }
    }

    /// Whether there is something that was not looked at yet.
    pub(crate) fn has_rest(&self) -> bool {
        !self.rest.is_empty()
    }

    /// Whether it waits for the beginning of a frame.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.rest.is_empty() && !self.is_under_way && self.failure.is_none()
    }

    /// The memory that it keeps: a copy counts as a whole. A read buffer counts as what is left in it, for it
    /// is copied before the connection waits for anything.
    pub(crate) fn held(&self) -> u64 {
        let rest = if self.rest.is_empty() { 0 } else { self.rest.len().max(self.copied) };
        (self.content.bytes.capacity() + rest) as u64
    }

    /// Keeps no read buffer alive for long, and no copy of which little is left: copies what there is.
    pub(crate) fn compact(&mut self) {
        // Each copy is less than half of the one before, so that all of them cost little.
        let is_tight = self.copied > 0 && self.rest.len() >= self.copied / 2;
        if is_tight || self.rest.is_empty() {
            return;
        }
        self.rest = Bytes::copy_from_slice(&self.rest);
        self.copied = self.rest.len();
    }

    /// Lets go of everything: nothing is delivered any more.
    pub(crate) fn discard(&mut self) {
        self.rest = Bytes::new();
        self.content.clear();
        self.is_over = true;
    }

    /// What ended the frames before the stream did.
    pub(crate) fn failure(&self) -> Option<&Fault> {
        self.failure.as_ref()
    }

    /// When the frame under way has to be complete, if the peer is waited for from now on.
    pub(crate) fn deadline(&mut self) -> Option<Instant> {
        if !self.is_under_way || self.is_over {
            return None;
        }
        let since = *self.wait.since.get_or_insert_with(Instant::now);
        let left = self.compiled.framing.timeout?.saturating_sub(self.wait.before);
        crate::timer::later(since, Some(left))
    }

    /// The peer is not waited for at the moment.
    pub(crate) fn pause(&mut self) {
        if let Some(since) = self.wait.since.take() {
            self.wait.before += since.elapsed();
        }
    }

    /// Gives up the frame under way, because that deadline has passed.
    pub(crate) fn give_up(&mut self) -> Fault {
        let limit = self.compiled.framing.timeout.unwrap_or_default();
        let have = self.content.len;
        let message =
            format!("a frame was not complete in {limit:?}: {} of it came", bytes_of(have));
        self.fail(Fault::of(CloseReason::FrameTimeout, message))
    }

    /// The next frame in what has come; `None` if more has to come.
    pub(crate) fn next(&mut self) -> Result<Option<Found>, Fault> {
        // A scanner that finds the same wrong twice takes no step any more.
        let mut is_stuck = false;
        while !self.rest.is_empty() {
            match self.scanner.step(&self.compiled.form, &self.rest, &mut self.content) {
                Ok(step) => {
                    is_stuck = false;
                    if let Some(found) = self.take(&step)? {
                        return Ok(Some(found));
                    }
                }
                Err(wrong) => {
                    let fault = Fault::of(CloseReason::FrameMalformed, wrong);
                    if is_stuck || self.compiled.framing.malformed == Malformed::Close {
                        return Err(self.fail(fault));
                    }
                    is_stuck = true;
                    self.is_under_way = true;
                    self.content.drop_for(fault);
                }
            }
        }
        Ok(None)
    }

    /// Does what a step says.
    #[inline]
    fn take(&mut self, step: &Step) -> Result<Option<Found>, Fault> {
        if step.ends
            && step.outside == 0
            && step.content <= self.content.most
            && self.content.is_untouched()
        {
            // The rule: a frame lies whole in what has just come.
            return Ok(Some(self.take_whole(step)));
        }
        self.note_outside(step)?;
        if step.before + step.content + step.after > 0 {
            self.is_under_way = true;
            self.outside = 0;
        }
        self.content.len += step.content as u64;
        if self.content.full_len() > self.content.most as u64 {
            self.note_oversize()?;
        }
        let raw = self.take_content(step);
        if step.ends {
            return Ok(Some(self.complete(raw)));
        }
        self.content.keep(&raw);
        Ok(None)
    }

    /// Takes a frame that lies whole at the front.
    #[inline(always)]
    fn take_whole(&mut self, step: &Step) -> Found {
        self.is_under_way = false;
        self.wait = Wait::default();
        self.outside = 0;
        self.content.declared = 0;
        Found::Frame(self.take_content(step), FrameMark::Whole)
    }

    /// Takes what a step says from the front, and returns what there is of content in it.
    #[inline(always)]
    fn take_content(&mut self, step: &Step) -> Bytes {
        let start = step.outside + step.before;
        let end = start + step.content;
        if step.len() == self.rest.len() {
            // The last ones are taken without anything that would keep them alive.
            let mut content = std::mem::take(&mut self.rest);
            content.truncate(end);
            content.advance(start);
            return content;
        }
        self.rest.advance(start);
        let content = self.rest.split_to(step.content);
        self.rest.advance(step.after);
        content
    }

    /// The frame ends with `last`.
    fn complete(&mut self, mut last: Bytes) -> Found {
        self.is_under_way = false;
        self.wait = Wait::default();
        let most = self.content.most;
        let found = if let Some(fault) = self.content.dropped.take() {
            Found::Dropped(fault)
        } else {
            let mark = match self.content.len {
                len if len > most as u64 => FrameMark::Truncated(len),
                _ => FrameMark::Whole,
            };
            let data = if self.content.bytes.is_empty() {
                // The rule: it lies whole in what has just come.
                last.truncate(most);
                last
            } else {
                self.content.keep(&last);
                std::mem::take(&mut self.content.bytes).freeze()
            };
            Found::Frame(data, mark)
        };
        self.content.clear();
        found
    }

    fn note_outside(&mut self, step: &Step) -> Result<(), Fault> {
        if step.outside == 0 {
            return Ok(());
        }
        self.outside += step.outside as u64;
        let most = self.content.most.max(LEAST_OUTSIDE);
        if self.outside <= most as u64 {
            return Ok(());
        }
        let message = format!("no frame begins within {most} bytes");
        Err(self.fail(Fault::of(CloseReason::FrameMalformed, message)))
    }

    #[cold]
    fn note_oversize(&mut self) -> Result<(), Fault> {
        let most = self.content.most;
        let len = self.content.full_len();
        let fault = || {
            let what = match self.content.declared {
                0 => "or more ",
                _ => "",
            };
            let message = format!("a frame of {len} bytes {what}where {most} is the most");
            Fault::of(CloseReason::FrameTooLong, message)
        };
        match self.compiled.framing.oversize {
            Oversize::Close => {
                let fault = fault();
                Err(self.fail(fault))
            }
            Oversize::Skip => {
                if self.content.dropped.is_none() {
                    let fault = fault();
                    self.content.drop_for(fault);
                }
                Ok(())
            }
            Oversize::Truncate => Ok(()),
        }
    }

    fn fail(&mut self, fault: Fault) -> Fault {
        self.discard();
        self.failure = Some(fault.clone());
        fault
    }

    /// The stream has ended: what is left of it.
    pub(crate) fn end(&mut self) -> Result<Option<Found>, Fault> {
        if !std::mem::take(&mut self.is_under_way) || self.is_over {
            return Ok(None);
        }
        self.scanner.give_back(&self.compiled.form, &mut self.content);
        let have = self.content.len;
        if self.compiled.framing.partial == PartialFrame::Deliver && self.content.dropped.is_none()
        {
            let data = std::mem::take(&mut self.content.bytes).freeze();
            self.discard();
            return Ok(Some(Found::Frame(data, FrameMark::Partial)));
        }
        let message = format!("the stream ended within a frame: {} of it came", bytes_of(have));
        Err(self.fail(Fault::of(CloseReason::PartialFrame, message)))
    }
}

/// So many bytes, in words.
fn bytes_of(count: u64) -> String {
    if count == 1 { "1 byte".to_owned() } else { format!("{count} bytes") }
}

/// So many bytes between frames are always taken.
const LEAST_OUTSIDE: usize = 1024;

/// Makes frames of bytes, wherever they come from: what a connection with a [`Framing`] does, without one.
///
/// ```
/// use onbytes::{FrameDecoder, FrameMark, Framing};
///
/// let mut decoder = FrameDecoder::new(&Framing::mllp())?;
/// decoder.push("\x0bMSH|one\x1c\x0d\x0bMSH|");
/// let frame = decoder.next_frame()?.expect("one is complete");
/// assert_eq!(frame.data, "MSH|one");
/// assert!(decoder.next_frame()?.is_none());
/// decoder.push("two\x1c\x0d");
/// assert_eq!(decoder.next_frame()?.expect("so is the other").data, "MSH|two");
/// assert!(decoder.finish()?.is_none());
/// # Ok::<(), onbytes::Error>(())
/// ```
#[derive(Debug)]
pub struct FrameDecoder {
    deframer: Deframer,
    /// What was pushed and not looked at yet.
    chunks: VecDeque<Bytes>,
    dropped: u64,
}

/// A frame, as a [`FrameDecoder`] finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Frame {
    /// Its content, without what surrounds it.
    pub data: Bytes,
    /// Whether that is all of it.
    pub mark: FrameMark,
}

impl FrameDecoder {
    /// A decoder at the beginning of a stream.
    ///
    /// # Errors
    ///
    /// `Configuration`, where the framing has a value that cannot be.
    pub fn new(framing: &Framing) -> Result<Self> {
        let deframer = Deframer::new(Compiled::new(framing)?);
        Ok(Self { deframer, chunks: VecDeque::new(), dropped: 0 })
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, data: impl Into<Bytes>) {
        self.chunks.push_back(data.into());
    }

    /// The next frame that is complete; `None` if more has to come. One that lies in one piece is a slice
    /// of it. What is to be skipped is skipped and [counted](Self::dropped).
    ///
    /// # Errors
    ///
    /// `Frame` where a frame is too long or malformed and the rules say that this is the end; after that
    /// there is nothing more.
    pub fn next_frame(&mut self) -> Result<Option<Frame>> {
        loop {
            match self.deframer.next().map_err(Fault::into_error)? {
                Some(Found::Frame(data, mark)) => return Ok(Some(Frame { data, mark })),
                Some(Found::Dropped(_)) => self.dropped += 1,
                None => match self.chunks.pop_front() {
                    Some(chunk) => self.deframer.feed(chunk),
                    None => return Ok(None),
                },
            }
        }
    }

    /// The stream has ended: returns what came of a last frame where the rules say that it is delivered. To be
    /// called when [`next_frame`](Self::next_frame) has found no more: frames that were not taken are dropped.
    ///
    /// # Errors
    ///
    /// `Frame` where the stream ended within a frame.
    pub fn finish(mut self) -> Result<Option<Frame>> {
        match self.deframer.end().map_err(Fault::into_error)? {
            Some(Found::Frame(data, mark)) => Ok(Some(Frame { data, mark })),
            Some(Found::Dropped(_)) | None => Ok(None),
        }
    }

    /// How many frames were skipped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_copy_counts_as_all_of_it_until_it_is_copied_again() {
        let mut deframer = Deframer::new(Compiled::new(&Framing::lines()).unwrap());
        deframer.feed(b"x\n".repeat(50_000).into());
        deframer.compact();
        assert_eq!(deframer.held(), 100_000);
        for _ in 0..49_990 {
            assert!(matches!(deframer.next(), Ok(Some(Found::Frame(..)))));
        }
        assert_eq!(deframer.rest.len(), 20);
        assert_eq!(deframer.held(), 100_000, "the copy is alive as a whole");
        deframer.compact();
        assert_eq!(deframer.held(), 20);
        for _ in 0..10 {
            assert!(matches!(deframer.next(), Ok(Some(Found::Frame(..)))));
        }
        assert_eq!(deframer.held(), 0);
    }
}
