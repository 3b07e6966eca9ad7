//! Frames that carry their length in a header.

use super::{Step, Wrong};
use crate::framing::deframer::Content;
use crate::framing::form::LONGEST_HEADER;
use crate::framing::{LengthField, LengthPrefix};

/// A frame of which the header is awaited, or so many bytes behind it.
#[derive(Debug)]
pub(in crate::framing) enum Prefixed {
    /// So many bytes of the header have come.
    Header { bytes: [u8; LONGEST_HEADER], len: usize },
    /// `left` bytes are to come, of which the first are not delivered.
    Body { strip: usize, left: u64 },
}

impl Default for Prefixed {
    fn default() -> Self {
        Self::Header { bytes: [0; LONGEST_HEADER], len: 0 }
    }
}

/// The greatest number of bytes in a varint.
const LONGEST_VARINT: usize = 10;

impl Prefixed {
    pub(super) fn step(
        &mut self,
        prefix: &LengthPrefix,
        fresh: &[u8],
        content: &mut Content,
    ) -> Result<Step, Wrong> {
        match self {
            Self::Body { .. } => Ok(self.body(0, fresh)),
            Self::Header { len: 0, .. } => match header_in(prefix, fresh)? {
                // The rule: the header is there whole, and perhaps the frame.
                Some(header) => {
                    let behind = behind(prefix, &fresh[..header])?;
                    let strip = prefix.strip.unwrap_or(header);
                    content.declare((header as u64).saturating_add(behind), strip);
                    *self = Self::Body { strip, left: (header as u64).saturating_add(behind) };
                    Ok(self.body(0, fresh))
                }
                None => self.collect(prefix, fresh, content),
            },
            Self::Header { .. } => self.collect(prefix, fresh, content),
        }
    }

    /// Takes one more byte of a header that comes in pieces.
    fn collect(
        &mut self,
        prefix: &LengthPrefix,
        fresh: &[u8],
        content: &mut Content,
    ) -> Result<Step, Wrong> {
        let Self::Header { bytes, len } = self else {
            unreachable!("the header is collected before the body");
        };
        bytes[*len] = fresh[0];
        *len += 1;
        let Some(header) = header_in(prefix, &bytes[..*len])? else {
            return Ok(Step::before(1));
        };
        let behind = behind(prefix, &bytes[..header])?;
        let strip = prefix.strip.unwrap_or(header);
        content.declare((header as u64).saturating_add(behind), strip);
        content.push(&bytes[strip.min(header)..header]);
        *self = Self::Body { strip: strip.saturating_sub(header), left: behind };
        Ok(self.body(1, &fresh[1..]))
    }

    /// Takes what is there of the frame, behind `before` bytes that were taken already.
    fn body(&mut self, before: usize, fresh: &[u8]) -> Step {
        let Self::Body { strip, left } = self else {
            unreachable!("the length is known");
        };
        let taken = usize::try_from(*left).map_or(fresh.len(), |left| left.min(fresh.len()));
        let stripped = taken.min(*strip);
        *strip -= stripped;
        *left -= taken as u64;
        let ends = *left == 0;
        if ends {
            *self = Self::default();
        }
        Step { before: before + stripped, content: taken - stripped, ends, ..Step::default() }
    }

    pub(super) fn give_back(&self, prefix: &LengthPrefix, content: &mut Content) {
        if let Self::Header { bytes, len } = self {
            let strip = prefix.strip.unwrap_or(*len);
            content.push(&bytes[strip.min(*len)..*len]);
        }
    }
}

/// The length of the header at the front of `data`, if all of it is there.
fn header_in(prefix: &LengthPrefix, data: &[u8]) -> Result<Option<usize>, Wrong> {
    if prefix.field != LengthField::Varint {
        let header = prefix.header();
        return Ok((data.len() >= header).then_some(header));
    }
    let most = data.len().min(LONGEST_VARINT);
    match data[..most].iter().position(|byte| byte & 0x80 == 0) {
        Some(last) => Ok(Some(last + 1)),
        None if data.len() >= LONGEST_VARINT => Err("a varint of more than 64 bits".into()),
        None => Ok(None),
    }
}

/// How many bytes come behind this header.
fn behind(prefix: &LengthPrefix, header: &[u8]) -> Result<u64, Wrong> {
    let length = read(prefix.field, &header[prefix.offset..])?;
    let behind = i128::from(length) + i128::from(prefix.adjust);
    let least = prefix.strip.map_or(0, |strip| strip.saturating_sub(header.len()));
    if behind < least as i128 {
        return Err(format!("a length of {length}, which is too little for a frame").into());
    }
    Ok(u64::try_from(behind).unwrap_or(u64::MAX))
}

fn read(field: LengthField, bytes: &[u8]) -> Result<u64, Wrong> {
    let digits = |radix| {
        bytes.iter().try_fold(0u64, |length, byte| {
            let digit = char::from(*byte).to_digit(radix)?;
            Some(length * u64::from(radix) + u64::from(digit))
        })
    };
    let number = match field {
        LengthField::BigEndian(_) => {
            Some(bytes.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)))
        }
        LengthField::LittleEndian(_) => {
            Some(bytes.iter().rev().fold(0, |length, byte| length << 8 | u64::from(*byte)))
        }
        LengthField::Decimal(_) => digits(10),
        LengthField::Hexadecimal(_) => digits(16),
        LengthField::Bcd(_) => bytes.iter().try_fold(0, |length, byte| {
            let (high, low) = (u64::from(byte >> 4), u64::from(byte & 15));
            (high < 10 && low < 10).then_some(length * 100 + high * 10 + low)
        }),
        LengthField::Varint => return read_varint(bytes),
    };
    number.ok_or_else(|| format!("a length written as {}", bytes.escape_ascii()).into())
}

fn read_varint(bytes: &[u8]) -> Result<u64, Wrong> {
    let mut length = 0u64;
    for (place, byte) in bytes.iter().enumerate() {
        let bits = u64::from(byte & 0x7f);
        if place == LONGEST_VARINT - 1 && bits > 1 {
            return Err("a varint of more than 64 bits".into());
        }
        length |= bits << (7 * place);
    }
    Ok(length)
}
