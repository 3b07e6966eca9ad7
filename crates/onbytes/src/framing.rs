//! From a stream of bytes to messages, by configuration: [`Framing`].

use std::time::Duration;

use crate::{Error, Result};

mod compiled;
mod deframer;
mod encode;
mod form;
mod presets;
mod scan;
mod text;

pub(crate) use compiled::Compiled;
pub(crate) use deframer::{Deframer, Fault, Found};
pub use deframer::{Frame, FrameDecoder, FrameMark};
pub(crate) use encode::Wrapping;
pub use form::{
    Blocks, Delimiter, Escape, FrameForm, LengthField, LengthPrefix, LineEnding, Lines,
    OctetCounting, Outside,
};

/// Where one message ends and the next begins: what makes *frames* of a stream of bytes.
///
/// A listener or a client that is given one delivers whole frames: one call of
/// [`on_bytes`](crate::ConnectionService::on_bytes), or one result of
/// [`read_bytes`](crate::Client::read_bytes), is one frame without what surrounds it, and every reply and
/// every write is sent as one frame.
///
/// It is made by one of the functions below, from a form with rules of your own, or from a short text, as
/// in configuration files and at the command line:
///
/// ```
/// use onbytes::{Framing, LengthField, LengthPrefix, Oversize};
///
/// let hl7 = Framing::mllp();
/// let ours = Framing::new(LengthPrefix::new(LengthField::u32_le())).max_frame(4096);
/// let same: Framing = "len:u32le,max=4K".parse()?;
/// assert_eq!(ours, same);
/// let lines = Framing::lines().oversize(Oversize::Skip);
/// # Ok::<(), onbytes::Error>(())
/// ```
///
/// In files it is that text, or a record: `{"form": "len:u32le", "maxFrame": 4096, "oversize": "skip",
/// "malformed": "close", "partial": "report", "timeout": 30}`. The page on [framing](crate::_guide::framing)
/// leads from a protocol to its setting.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Framing {
    /// How frames are told apart.
    pub form: FrameForm,
    /// The largest frame, in bytes as they are delivered. Default: 1 MiB; presets of protocols that have a
    /// bound of their own have that. It bounds what is received, not what is sent.
    pub max_frame: usize,
    /// What happens to a larger one. Default: the connection ends.
    pub oversize: Oversize,
    /// What happens where the bytes cannot be a frame. Default: the connection ends.
    pub malformed: Malformed,
    /// What happens to the beginning of a frame at the end of the stream. Default: it is reported.
    pub partial: PartialFrame,
    /// The time that a frame may take from its first byte to its last while the peer is waited for;
    /// `None`: any. A longer one ends the connection, for reason `frame_timeout`. Default: 60 s.
    pub timeout: Option<Duration>,
}

/// What happens to a frame of more than [`Framing::max_frame`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Oversize {
    /// The connection ends in order, for reason `frame_too_long`; the service hears of it in `on_error`
    /// before.
    #[default]
    Close,
    /// The frame is dropped, however long it is, and counted; the next one is delivered. The service hears
    /// nothing of it, so it is not for protocols in which each request has a reply.
    Skip,
    /// The first `max_frame` bytes are delivered when the frame is complete, marked as
    /// [`FrameMark::Truncated`].
    Truncate,
}

/// What happens where bytes cannot be a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Malformed {
    /// The connection ends in order, for reason `frame_malformed`; the service hears of it in `on_error`
    /// before.
    #[default]
    Close,
    /// The frame is dropped and counted, and the next one is looked for: only for forms in which it can
    /// be found (COBS, SLIP, and blocks with an escape, or with `restart`).
    Skip,
}

/// What happens to the beginning of a frame that the peer's end cuts off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum PartialFrame {
    /// It is not delivered. The service hears of it in `on_error`, and the connection ends in order, for
    /// reason `partial_frame`.
    #[default]
    Report,
    /// It is delivered, marked as [`FrameMark::Partial`], and then the end as always; the reason is
    /// `partial_frame` all the same.
    Deliver,
}

impl Framing {
    /// The largest frame where nothing else is said: 1 MiB.
    pub const MAX_FRAME: usize = 1024 * 1024;

    /// The time in which a frame has to become complete where nothing else is said.
    pub const TIMEOUT: Duration = Duration::from_secs(60);

    /// Frames of a form, with the default rules.
    pub fn new(form: impl Into<FrameForm>) -> Self {
        Self {
            form: form.into(),
            max_frame: Self::MAX_FRAME,
            oversize: Oversize::default(),
            malformed: Malformed::default(),
            partial: PartialFrame::default(),
            timeout: Some(Self::TIMEOUT),
        }
    }

    /// Lines that end with LF or CRLF, which is not delivered, and that are sent with LF.
    pub fn lines() -> Self {
        Self::new(Lines::new())
    }

    /// Frames that end with `delimiter`, which is not delivered.
    pub fn delimited_by(delimiter: impl Into<Vec<u8>>) -> Self {
        Self::new(Delimiter::new(delimiter))
    }

    /// Frames of `len` bytes each.
    pub fn fixed(len: usize) -> Self {
        Self { max_frame: len.max(Self::MAX_FRAME), ..Self::new(FrameForm::Fixed(len)) }
    }

    /// Frames that begin with their length, which is not delivered.
    pub fn length(field: LengthField) -> Self {
        Self::new(LengthPrefix::new(field))
    }

    /// Tells whether all values can be.
    ///
    /// # Errors
    ///
    /// `Configuration`, for the first value that cannot be, by name.
    pub fn check(&self) -> Result<()> {
        const LARGEST: usize = u32::MAX as usize;
        if !(1..=LARGEST).contains(&self.max_frame) {
            let max = self.max_frame;
            return Err(wrong(format!("max_frame must be from 1 to {LARGEST} bytes, not {max}")));
        }
        if self.timeout.is_some_and(|timeout| timeout.is_zero()) {
            return Err(wrong("timeout must be more than 0 s, or off"));
        }
        if self.malformed == Malformed::Skip && !self.form.finds_next() {
            return Err(wrong(
                "malformed frames cannot be skipped: nothing in this form tells where the next one \
                 begins",
            ));
        }
        if let FrameForm::Blocks(Blocks { outside: Outside::Malformed, .. }) = self.form
            && self.malformed == Malformed::Skip
        {
            return Err(wrong("bytes between frames cannot be both malformed and skipped"));
        }
        if let FrameForm::Fixed(len) = self.form
            && len > self.max_frame
        {
            return Err(wrong(format!("frames of {len} bytes are more than max_frame")));
        }
        self.form.check()
    }
}

/// The error of a value that cannot be.
fn wrong(what: impl std::fmt::Display) -> Error {
    Error::configuration(format!("framing: {what}"))
}

crate::config::setters! { Framing {
    max_frame: usize => max_frame;
    oversize: Oversize => oversize;
    malformed: Malformed => malformed;
    partial: PartialFrame => partial;
    timeout: impl Into<Option<Duration>> => timeout.into();
}}
