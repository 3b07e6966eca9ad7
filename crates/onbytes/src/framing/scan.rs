//! Finding frames in bytes that come in any pieces: one scanner for each form.
//!
//! A scanner is shown the bytes that it has not taken yet and takes some in each step. What it has taken
//! it is never shown again, so it remembers what it needs: that is why pieces make no difference.

use super::compiled::Form;
use super::deframer::Content;

mod cobs;
mod counted;
mod delimited;
mod length;
pub(super) mod stuffed;

pub(super) use stuffed::Stuffing;

/// What one step takes from the front of the bytes at hand, in this order.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Step {
    /// Bytes between frames.
    pub(super) outside: usize,
    /// Bytes of the frame that are not delivered.
    pub(super) before: usize,
    /// Bytes of the frame that are.
    pub(super) content: usize,
    /// More bytes of the frame that are not.
    pub(super) after: usize,
    /// Whether the frame ends here.
    pub(super) ends: bool,
}

impl Step {
    /// The bytes that it takes.
    pub(super) fn len(&self) -> usize {
        self.outside + self.before + self.content + self.after
    }

    fn ends(self) -> Self {
        Self { ends: true, ..self }
    }

    fn outside(outside: usize) -> Self {
        Self { outside, ..Self::default() }
    }

    fn before(before: usize) -> Self {
        Self { before, ..Self::default() }
    }

    fn content(content: usize) -> Self {
        Self { content, ..Self::default() }
    }

    fn after(after: usize) -> Self {
        Self { after, ..Self::default() }
    }
}

/// Why bytes cannot be a frame.
pub(super) type Wrong = std::borrow::Cow<'static, str>;

/// How far the frame under way has come.
#[derive(Debug)]
pub(super) enum Scanner {
    Lines(delimited::Line),
    Delimiter(delimited::Delimited),
    Blocks(delimited::Block),
    Stuffed(stuffed::Stuffed),
    Fixed { left: usize },
    Length(length::Prefixed),
    OctetCounting(counted::Octets),
    Netstring(counted::Netstring),
    Cobs(cobs::Cobs),
}

impl Scanner {
    pub(super) fn new(form: &Form) -> Self {
        match form {
            Form::Lines { .. } => Self::Lines(delimited::Line::default()),
            Form::Delimiter { .. } => Self::Delimiter(delimited::Delimited::default()),
            Form::Blocks { .. } => Self::Blocks(delimited::Block::default()),
            Form::Stuffed(_) => Self::Stuffed(stuffed::Stuffed::default()),
            Form::Fixed(len) => Self::Fixed { left: *len },
            Form::Length(_) => Self::Length(length::Prefixed::default()),
            Form::OctetCounting(_) => Self::OctetCounting(counted::Octets::default()),
            Form::Netstring => Self::Netstring(counted::Netstring::default()),
            Form::Cobs => Self::Cobs(cobs::Cobs::default()),
        }
    }

    /// Takes the next step into `fresh`, which is not empty. Content that is not in there, because it came
    /// before or was written in another way, goes to `content`.
    ///
    /// After an error it goes on behind the bytes that are no frame, where the form lets it find that.
    pub(super) fn step(
        &mut self,
        form: &Form,
        fresh: &[u8],
        content: &mut Content,
    ) -> Result<Step, Wrong> {
        match (self, form) {
            (Self::Lines(line), Form::Lines { .. }) => Ok(line.step(fresh, content)),
            (Self::Delimiter(delimited), Form::Delimiter { sequence, keep, .. }) => {
                Ok(delimited.step(sequence, *keep, fresh, content))
            }
            (Self::Blocks(block), Form::Blocks { start, end, tail, outside, .. }) => {
                block.step(start, end, tail, *outside, fresh, content)
            }
            (Self::Stuffed(stuffed), Form::Stuffed(stuffing)) => {
                stuffed.step(stuffing, fresh, content)
            }
            (Self::Fixed { left }, Form::Fixed(len)) => Ok(fixed(left, *len, fresh)),
            (Self::Length(prefixed), Form::Length(prefix)) => prefixed.step(prefix, fresh, content),
            (Self::OctetCounting(octets), Form::OctetCounting(counting)) => {
                octets.step(counting.detect_lines, fresh, content)
            }
            (Self::Netstring(netstring), Form::Netstring) => netstring.step(fresh, content),
            (Self::Cobs(cobs), Form::Cobs) => cobs.step(fresh, content),
            _ => unreachable!("a scanner is made for its form"),
        }
    }

    /// At the end of the stream: gives what was taken as the beginning of an end to `content`.
    pub(super) fn give_back(&self, form: &Form, content: &mut Content) {
        match (self, form) {
            (Self::Lines(line), _) => line.give_back(content),
            (Self::OctetCounting(octets), _) => octets.give_back(content),
            (Self::Delimiter(delimited), Form::Delimiter { sequence, .. }) => {
                delimited.give_back(sequence, content);
            }
            (Self::Blocks(block), Form::Blocks { end, .. }) => block.give_back(end, content),
            (Self::Length(prefixed), Form::Length(prefix)) => prefixed.give_back(prefix, content),
            _ => {}
        }
    }
}

fn fixed(left: &mut usize, len: usize, fresh: &[u8]) -> Step {
    let taken = (*left).min(fresh.len());
    *left -= taken;
    if *left > 0 {
        return Step::content(taken);
    }
    *left = len;
    Step::content(taken).ends()
}
