//! A framing that has been checked and made ready: one value for all connections.

use std::sync::Arc;

use memchr::memmem;

use super::scan::Stuffing;
use super::{FrameForm, Framing, LengthPrefix, LineEnding, OctetCounting, Outside};
use crate::Result;

/// A framing with what its scanners and its writer need to have at hand.
#[derive(Debug)]
pub(crate) struct Compiled {
    pub(super) framing: Framing,
    pub(super) form: Form,
}

/// A form, made ready.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for a whole listener")]
pub(super) enum Form {
    Lines {
        ending: LineEnding,
    },
    Delimiter {
        sequence: Sequence,
        keep: bool,
        sent: Vec<u8>,
    },
    /// `sent` is the end and the tail.
    Blocks {
        start: Sequence,
        end: Sequence,
        tail: Vec<u8>,
        sent: Vec<u8>,
        outside: Outside,
    },
    Stuffed(Stuffing),
    Fixed(usize),
    Length(LengthPrefix),
    OctetCounting(OctetCounting),
    Netstring,
    Cobs,
}

impl Compiled {
    pub(crate) fn new(framing: &Framing) -> Result<Arc<Self>> {
        framing.check()?;
        let form = match framing.form.clone() {
            FrameForm::Lines(lines) if lines.keep => Form::Delimiter {
                sequence: Sequence::new(b"\n"),
                keep: true,
                sent: lines.ending.bytes().to_vec(),
            },
            FrameForm::Lines(lines) => Form::Lines { ending: lines.ending },
            FrameForm::Delimiter(delimiter) => Form::Delimiter {
                sequence: Sequence::new(&delimiter.bytes),
                keep: delimiter.keep,
                sent: delimiter.bytes,
            },
            FrameForm::Blocks(blocks) => match Stuffing::of(&blocks) {
                Some(stuffing) => Form::Stuffed(stuffing),
                None => Form::Blocks {
                    start: Sequence::new(&blocks.start),
                    end: Sequence::new(&blocks.end),
                    sent: [&blocks.end[..], &blocks.tail].concat(),
                    tail: blocks.tail,
                    outside: blocks.outside,
                },
            },
            FrameForm::Fixed(len) => Form::Fixed(len),
            FrameForm::Length(prefix) => Form::Length(prefix),
            FrameForm::OctetCounting(counting) => Form::OctetCounting(counting),
            FrameForm::Netstring => Form::Netstring,
            FrameForm::Cobs => Form::Cobs,
            FrameForm::Slip => Form::Stuffed(Stuffing::slip()),
        };
        Ok(Arc::new(Self { framing: framing.clone(), form }))
    }
}

impl LineEnding {
    pub(super) fn bytes(self) -> &'static [u8] {
        match self {
            Self::Lf => b"\n",
            Self::CrLf => b"\r\n",
        }
    }
}

/// Some bytes that are looked for, also where they come in pieces.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) bytes: Box<[u8]>,
    /// For each of its beginnings: how long the longest beginning is that it ends with.
    falls: Box<[usize]>,
    finder: memmem::Finder<'static>,
}

/// How a sequence that has begun goes on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Went {
    /// It is complete, with so many bytes more.
    Complete(usize),
    /// All these bytes belong to it, and it is not complete.
    On(usize),
    /// So many bytes belonged to it or to what was given back; the next one begins something else.
    Astray(usize),
}

impl Sequence {
    pub(super) fn new(bytes: &[u8]) -> Self {
        Self {
            bytes: bytes.into(),
            falls: (1..=bytes.len()).map(|len| longest_fall(&bytes[..len])).collect(),
            finder: memmem::Finder::new(bytes).into_owned(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether `data` begins with it.
    pub(super) fn begins(&self, data: &[u8]) -> bool {
        begins(data, &self.bytes)
    }

    /// Where it stands in `data` first.
    pub(super) fn find(&self, data: &[u8]) -> Option<usize> {
        match &*self.bytes {
            [byte] => memchr::memchr(*byte, data),
            _ => self.finder.find(data),
        }
    }

    /// How much of it `data`, in which it does not stand, ends with.
    pub(super) fn begun_at_end(&self, data: &[u8]) -> usize {
        let most = (self.len() - 1).min(data.len());
        (0..=most).rev().find(|len| data.ends_with(&self.bytes[..*len])).unwrap_or(0)
    }

    /// Goes on with one of which `matched` bytes have come. What turns out not to belong to it is
    /// `given_back`.
    pub(super) fn go_on(
        &self,
        matched: &mut usize,
        data: &[u8],
        mut given_back: impl FnMut(&[u8]),
    ) -> Went {
        for (place, byte) in data.iter().enumerate() {
            while *matched > 0 && self.bytes[*matched] != *byte {
                let fall = self.falls[*matched - 1];
                given_back(&self.bytes[..*matched - fall]);
                *matched = fall;
            }
            if self.bytes[*matched] != *byte {
                return Went::Astray(place);
            }
            *matched += 1;
            if *matched == self.len() {
                *matched = 0;
                return Went::Complete(place + 1);
            }
        }
        Went::On(data.len())
    }
}

/// Whether `data` begins with `mark`, which mostly is a single byte: no call for that.
pub(super) fn begins(data: &[u8], mark: &[u8]) -> bool {
    match mark {
        [byte] => data.first() == Some(byte),
        _ => data.starts_with(mark),
    }
}

/// The length of the longest beginning of `bytes`, shorter than all of it, that it also ends with.
fn longest_fall(bytes: &[u8]) -> usize {
    (0..bytes.len()).rev().find(|len| bytes.ends_with(&bytes[..*len])).unwrap_or(0)
}
