//! Frames behind their length in decimal digits of any number: octet counting and netstrings.

use super::delimited::Line;
use super::{Step, Wrong};
use crate::framing::deframer::Content;

/// A length of more digits is none.
const MOST_DIGITS: usize = 10;

/// A number that comes digit by digit.
#[derive(Debug, Default)]
pub(in crate::framing) struct Number {
    digits: usize,
    value: u64,
}

impl Number {
    /// Takes digits from the front of `fresh`; returns how many, and whether another byte follows them.
    fn take(&mut self, fresh: &[u8]) -> Result<(usize, bool), Wrong> {
        for (place, byte) in fresh.iter().enumerate() {
            if !byte.is_ascii_digit() {
                return Ok((place, true));
            }
            if self.digits == MOST_DIGITS {
                return Err(format!("a length of more than {MOST_DIGITS} digits").into());
            }
            if self.digits > 0 && self.value == 0 {
                return Err("a length that begins with 0".into());
            }
            self.digits += 1;
            self.value = self.value * 10 + u64::from(byte - b'0');
        }
        Ok((fresh.len(), false))
    }
}

/// The length, a byte, and so many bytes.
#[derive(Debug)]
pub(in crate::framing) enum Counted {
    Length(Number),
    Body { left: u64 },
}

impl Default for Counted {
    fn default() -> Self {
        Self::Length(Number::default())
    }
}

impl Counted {
    /// Takes the length, what follows it, and what is there of the body.
    fn step(&mut self, mark: u8, fresh: &[u8], content: &mut Content) -> Result<Step, Wrong> {
        let before = match self {
            Self::Body { .. } => 0,
            Self::Length(number) => match number.take(fresh)? {
                (digits, false) => return Ok(Step::before(digits)),
                (digits, true) if number.digits > 0 && fresh[digits] == mark => {
                    content.declare(number.value, 0);
                    *self = Self::Body { left: number.value };
                    digits + 1
                }
                (digits, true) => {
                    let byte = fresh[digits].escape_ascii();
                    let mark = char::from(mark);
                    return Err(format!("'{byte}' instead of a length and '{mark}'").into());
                }
            },
        };
        Ok(Step { before, ..self.body(&fresh[before..]) })
    }

    fn body(&mut self, fresh: &[u8]) -> Step {
        let Self::Body { left } = self else { return Step::default() };
        let taken = usize::try_from(*left).map_or(fresh.len(), |left| left.min(fresh.len()));
        *left -= taken as u64;
        Step { ends: *left == 0, ..Step::content(taken) }
    }
}

/// A frame of syslog over TCP.
#[derive(Debug, Default)]
pub(in crate::framing) enum Octets {
    #[default]
    Unknown,
    Counted(Counted),
    Line(Line),
}

impl Octets {
    pub(super) fn step(
        &mut self,
        detect_lines: bool,
        fresh: &[u8],
        content: &mut Content,
    ) -> Result<Step, Wrong> {
        let step = match self {
            Self::Unknown => return self.begin(detect_lines, fresh, content),
            Self::Counted(counted) => counted.step(b' ', fresh, content)?,
            Self::Line(line) => line.step(fresh, content),
        };
        if step.ends {
            *self = Self::Unknown;
        }
        Ok(step)
    }

    /// The first byte of a frame tells what it is.
    fn begin(
        &mut self,
        detect_lines: bool,
        fresh: &[u8],
        content: &mut Content,
    ) -> Result<Step, Wrong> {
        *self = match fresh[0] {
            b'1'..=b'9' => Self::Counted(Counted::default()),
            b'\r' | b'\n' if detect_lines => return Ok(Step::outside(1)),
            _ if detect_lines => Self::Line(Line::default()),
            byte => {
                let byte = byte.escape_ascii();
                return Err(format!("'{byte}' where a length is to begin, with 1 to 9").into());
            }
        };
        self.step(detect_lines, fresh, content)
    }

    pub(super) fn give_back(&self, content: &mut Content) {
        if let Self::Line(line) = self {
            line.give_back(content);
        }
    }
}

/// A netstring.
#[derive(Debug, Default)]
pub(in crate::framing) struct Netstring {
    counted: Counted,
    /// All is there but the comma.
    is_whole: bool,
}

impl Netstring {
    pub(super) fn step(&mut self, fresh: &[u8], content: &mut Content) -> Result<Step, Wrong> {
        let step = match self.is_whole {
            true => Step::default(),
            false => self.counted.step(b':', fresh, content)?,
        };
        self.is_whole |= step.ends;
        let taken = step.len();
        let step = Step { ends: false, ..step };
        match fresh.get(taken) {
            Some(b',') if self.is_whole => {
                *self = Self::default();
                Ok(Step { after: 1, ..step }.ends())
            }
            // Up to it first, so that what is wrong is at the front.
            Some(byte) if self.is_whole && taken == 0 => {
                Err(format!("'{}' instead of ',' after a netstring", byte.escape_ascii()).into())
            }
            _ => Ok(step),
        }
    }
}
