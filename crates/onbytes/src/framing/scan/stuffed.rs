//! Frames between marks that mean something wherever they stand, unless an escape takes it from them.

use super::{Step, Wrong};
use crate::framing::deframer::Content;
use crate::framing::{Blocks, Outside};

/// How frames are marked and escaped.
#[derive(Debug)]
pub(in crate::framing) struct Stuffing {
    pub(in crate::framing) marks: Marks,
    /// Without one, marks cannot be content.
    pub(in crate::framing) escape: Option<u8>,
    pub(in crate::framing) tail: Vec<u8>,
    /// Without an escape: what is sent before a message, and behind it.
    pub(in crate::framing) plain: Option<(Vec<u8>, Vec<u8>)>,
    outside: Outside,
}

/// What marks the start and the end.
#[derive(Debug, Clone, Copy)]
pub(in crate::framing) enum Marks {
    /// A byte each; what stands behind an escape was combined with `xor`.
    Bytes { start: u8, end: u8, xor: u8 },
    /// The escape and a byte each; an escape that is content is doubled.
    Led { start: u8, end: u8 },
    /// One byte between frames; empty ones are none. What stands behind an escape was combined with `xor`.
    Flag { flag: u8, xor: u8 },
    /// The same as SLIP has it.
    Slip,
}

/// SLIP's bytes (RFC 1055).
pub(in crate::framing) mod slip {
    pub(in crate::framing) const END: u8 = 0xC0;
    pub(in crate::framing) const ESC: u8 = 0xDB;
    pub(in crate::framing) const ESC_END: u8 = 0xDC;
    pub(in crate::framing) const ESC_ESC: u8 = 0xDD;
}

impl Stuffing {
    /// That of blocks that have an escape, or begin anew at a start, and were checked.
    pub(in crate::framing) fn of(blocks: &Blocks) -> Option<Self> {
        if blocks.escape.is_none() && !blocks.restart {
            return None;
        }
        let xor = blocks.escape.map_or(0, |escape| escape.xor);
        let marks = match (&blocks.start[..], &blocks.end[..]) {
            (&[start], &[end]) if start == end => Marks::Flag { flag: end, xor },
            (&[start], &[end]) => Marks::Bytes { start, end, xor },
            (&[_, start], &[_, end]) => Marks::Led { start, end },
            _ => return None,
        };
        let (escape, tail) = (blocks.escape.map(|escape| escape.byte), blocks.tail.clone());
        let plain = || (blocks.start.clone(), [&blocks.end[..], &blocks.tail].concat());
        let plain = escape.is_none().then(plain);
        Some(Self { marks, escape, tail, plain, outside: blocks.outside })
    }

    pub(in crate::framing) fn slip() -> Self {
        Self {
            marks: Marks::Slip,
            escape: Some(slip::ESC),
            tail: Vec::new(),
            plain: None,
            outside: Outside::default(),
        }
    }

    /// The byte that marks a start or an end, where one alone does.
    fn start(&self) -> Option<u8> {
        match self.marks {
            Marks::Bytes { start, .. } => Some(start),
            _ => None,
        }
    }

    fn end(&self) -> Option<u8> {
        match self.marks {
            Marks::Bytes { end, .. } | Marks::Flag { flag: end, .. } => Some(end),
            Marks::Slip => Some(slip::END),
            Marks::Led { .. } => None,
        }
    }

    /// Whether a frame begins where the last one ended, without a mark of its own.
    pub(in crate::framing) fn has_no_start(&self) -> bool {
        matches!(self.marks, Marks::Flag { .. } | Marks::Slip)
    }

    /// How many bytes of a message have to be written with an escape.
    pub(in crate::framing) fn escaped_in(&self, message: &[u8]) -> usize {
        let is_mark = |byte: &&u8| self.escape == Some(**byte) || self.marks_alone(**byte);
        message.iter().filter(is_mark).count()
    }

    /// The first byte of `data` that means something here, and its place.
    pub(in crate::framing) fn next_mark(&self, data: &[u8]) -> Option<(usize, u8)> {
        let place = match (self.start(), self.end(), self.escape) {
            (Some(start), Some(end), Some(escape)) => memchr::memchr3(start, end, escape, data),
            (Some(start), Some(end), None) => memchr::memchr2(start, end, data),
            (None, Some(end), Some(escape)) => memchr::memchr2(end, escape, data),
            (_, _, Some(escape)) => memchr::memchr(escape, data),
            // A form has marks of its own, or an escape that leads them.
            _ => None,
        }?;
        Some((place, data[place]))
    }

    /// What a byte behind an escape means.
    fn meaning(&self, byte: u8) -> Meaning {
        match self.marks {
            // A mark in its place is no content but an escape that was cut off by it.
            Marks::Bytes { xor, .. } | Marks::Flag { xor, .. } => {
                if xor != 0 && self.marks_alone(byte) {
                    return Meaning::Nothing;
                }
                Meaning::Content(byte ^ xor)
            }
            Marks::Led { start, .. } if byte == start => Meaning::Start,
            Marks::Led { end, .. } if byte == end => Meaning::End,
            Marks::Led { .. } if self.escape == Some(byte) => Meaning::Content(byte),
            Marks::Slip if byte == slip::ESC_END => Meaning::Content(slip::END),
            Marks::Slip if byte == slip::ESC_ESC => Meaning::Content(slip::ESC),
            Marks::Led { .. } | Marks::Slip => Meaning::Nothing,
        }
    }

    fn marks_alone(&self, byte: u8) -> bool {
        self.start() == Some(byte) || self.end() == Some(byte)
    }
}

enum Meaning {
    Content(u8),
    Start,
    End,
    Nothing,
}

/// A frame under way.
#[derive(Debug, Default)]
pub(in crate::framing) struct Stuffed {
    /// A start was seen, or content where none is needed.
    is_inside: bool,
    /// The last byte was an escape.
    is_escaped: bool,
    /// It is none, and a new one begins here.
    is_aborted: bool,
    /// How many bytes of the tail may still come, from its end.
    tail: usize,
}

impl Stuffed {
    pub(super) fn step(
        &mut self,
        stuffing: &Stuffing,
        fresh: &[u8],
        content: &mut Content,
    ) -> Result<Step, Wrong> {
        if std::mem::take(&mut self.is_aborted) {
            // What came before the new start ends here; whoever dropped it hears of it.
            self.is_inside = matches!(stuffing.marks, Marks::Led { .. });
            let led = usize::from(self.is_inside);
            return Ok(Step::after(led).ends());
        }
        if self.is_inside {
            return self.inside(stuffing, fresh, content);
        }
        match stuffing.marks {
            Marks::Flag { .. } | Marks::Slip => self.between_flags(stuffing, fresh, content),
            Marks::Bytes { start, .. } => self.outside(stuffing, &[start], fresh, content),
            Marks::Led { start, .. } => {
                let escape = stuffing.escape.unwrap_or_default();
                self.outside(stuffing, &[escape, start], fresh, content)
            }
        }
    }

    /// Looks for the start of the next frame.
    fn outside(
        &mut self,
        stuffing: &Stuffing,
        start: &[u8],
        fresh: &[u8],
        content: &mut Content,
    ) -> Result<Step, Wrong> {
        // A start of two bytes may come in two pieces.
        if std::mem::take(&mut self.is_escaped) {
            if fresh[0] == start[start.len() - 1] {
                self.is_inside = true;
                return Ok(Step::before(1));
            }
            if stuffing.outside == Outside::Malformed {
                return Err(stray(start[0]));
            }
        }
        if fresh.starts_with(start) {
            return self.begin(stuffing, start.len(), fresh, content);
        }
        if self.tail > 0 && fresh[0] == stuffing.tail[stuffing.tail.len() - self.tail] {
            self.tail -= 1;
            return Ok(Step::outside(1));
        }
        self.tail = 0;
        let between = match memchr::memmem::find(fresh, start) {
            Some(place) => place,
            None => {
                self.is_escaped = start.len() == 2 && fresh.ends_with(&start[..1]);
                fresh.len()
            }
        };
        let others = between - usize::from(self.is_escaped);
        if others > 0 && stuffing.outside == Outside::Malformed {
            return Err(stray(fresh[0]));
        }
        Ok(Step::outside(between))
    }

    /// A start of `before` bytes is at the front.
    fn begin(
        &mut self,
        stuffing: &Stuffing,
        before: usize,
        fresh: &[u8],
        content: &mut Content,
    ) -> Result<Step, Wrong> {
        self.is_inside = true;
        // A second start is an error of its own, behind this one.
        let is_next_start = fresh.get(before).is_some_and(|byte| stuffing.start() == Some(*byte));
        if fresh.len() == before || is_next_start {
            return Ok(Step::before(before));
        }
        let step = self.inside(stuffing, &fresh[before..], content)?;
        Ok(Step { before, ..step })
    }

    /// Between frames that have no start: the next one begins with anything but the flag.
    fn between_flags(
        &mut self,
        stuffing: &Stuffing,
        fresh: &[u8],
        content: &mut Content,
    ) -> Result<Step, Wrong> {
        let flags = fresh.iter().take_while(|byte| stuffing.end() == Some(**byte)).count();
        if flags == fresh.len() {
            return Ok(Step::outside(flags));
        }
        self.is_inside = true;
        let step = self.inside(stuffing, &fresh[flags..], content)?;
        Ok(Step { outside: flags, ..step })
    }

    fn inside(
        &mut self,
        stuffing: &Stuffing,
        fresh: &[u8],
        content: &mut Content,
    ) -> Result<Step, Wrong> {
        if std::mem::take(&mut self.is_escaped) {
            return self.escaped(stuffing, fresh, content);
        }
        let Some((place, byte)) = stuffing.next_mark(fresh) else {
            return Ok(Step::content(fresh.len()));
        };
        let step = Step::content(place);
        if stuffing.escape == Some(byte) {
            return Ok(self.escape(stuffing, place, fresh));
        }
        if stuffing.start() == Some(byte) {
            if place > 0 {
                // Up to it first, so that what is wrong is at the front.
                return Ok(step);
            }
            self.is_aborted = true;
            return Err("a frame begins before the last one has ended".into());
        }
        let tail = self.end(stuffing, &fresh[place + 1..]);
        Ok(Step { after: 1 + tail, ..step }.ends())
    }

    /// An escape stands at `place`.
    fn escape(&mut self, stuffing: &Stuffing, place: usize, fresh: &[u8]) -> Step {
        let step = Step::content(place);
        // The end of a frame without any escape in it, which is the rule.
        if let Some(next) = fresh.get(place + 1)
            && matches!(stuffing.meaning(*next), Meaning::End)
        {
            let tail = self.end(stuffing, &fresh[place + 2..]);
            return Step { after: 2 + tail, ..step }.ends();
        }
        self.is_escaped = true;
        Step { after: 1, ..step }
    }

    /// The byte behind an escape.
    fn escaped(
        &mut self,
        stuffing: &Stuffing,
        fresh: &[u8],
        content: &mut Content,
    ) -> Result<Step, Wrong> {
        match stuffing.meaning(fresh[0]) {
            Meaning::Content(byte) => {
                content.push(&[byte]);
                Ok(Step::after(1))
            }
            Meaning::End => {
                let tail = self.end(stuffing, &fresh[1..]);
                Ok(Step::after(1 + tail).ends())
            }
            Meaning::Start => {
                self.is_aborted = true;
                Err("a frame begins before the last one has ended".into())
            }
            Meaning::Nothing => {
                // A start is no second error: what came before ends there, and the next frame begins.
                self.is_aborted = stuffing.start() == Some(fresh[0]);
                let (escape, byte) = (stuffing.escape.unwrap_or_default(), fresh[0]);
                Err(format!("0x{byte:02x} behind the escape 0x{escape:02x}").into())
            }
        }
    }

    /// The frame has ended. Returns how much follows of the tail where it is there whole, which is the rule.
    fn end(&mut self, stuffing: &Stuffing, behind: &[u8]) -> usize {
        let tail = stuffing.tail.len();
        let is_there = behind.starts_with(&stuffing.tail);
        *self = Self { tail: if is_there { 0 } else { tail }, ..Self::default() };
        if is_there { tail } else { 0 }
    }
}

fn stray(byte: u8) -> Wrong {
    format!("0x{byte:02x} where a frame is to begin").into()
}
