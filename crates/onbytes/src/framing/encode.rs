//! From a message to the bytes of its frame.

use bytes::Bytes;

use super::compiled::{Compiled, Form};
use super::form::LONGEST_HEADER;
use super::scan::Stuffing;
use super::scan::stuffed::{Marks, slip};
use super::{Framing, LengthField, LengthPrefix, LineEnding, OctetCounting};
use crate::{Error, ErrorKind, Result};

/// What a message is sent with.
pub(crate) enum Wrapping<'a> {
    /// `head` in the place of the first `skip` bytes of the message, the rest of it, and `tail`.
    Around { head: Head, skip: usize, tail: &'a [u8] },
    /// Some of its bytes are written in another way.
    Rewritten,
}

/// The few bytes before a message.
pub(crate) struct Head {
    bytes: [u8; Self::LONGEST],
    len: usize,
}

impl Head {
    const LONGEST: usize = LONGEST_HEADER + 32;

    fn new(bytes: &[u8]) -> Self {
        let mut head = Self { bytes: [0; Self::LONGEST], len: bytes.len() };
        head.bytes[..bytes.len()].copy_from_slice(bytes);
        head
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Framing {
    /// The bytes that `message` is sent as.
    ///
    /// A connection with this framing does so itself; this is for other ways to send them.
    ///
    /// ```
    /// use onbytes::Framing;
    ///
    /// assert_eq!(Framing::stx_etx().encode(b"abc")?, "\x02abc\x03");
    /// assert!(Framing::stx_etx().encode(b"a\x03c").is_err());
    /// # Ok::<(), onbytes::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `Frame` where the message cannot be sent as one frame: it holds the bytes that end one, or is too
    /// long for its length to be written. `Configuration`, where the framing has a value that cannot be.
    pub fn encode(&self, message: &[u8]) -> Result<Bytes> {
        let compiled = Compiled::new(self)?;
        compiled.check_message(message)?;
        let mut frame = Vec::with_capacity(message.len() + 16);
        compiled.encode(message, &mut frame);
        Ok(frame.into())
    }
}

impl Compiled {
    /// Tells whether `message` can be sent as one frame.
    pub(crate) fn check_message(&self, message: &[u8]) -> Result<()> {
        match &self.form {
            Form::Lines { .. } => check_line(message),
            Form::Delimiter { sequence, keep, .. } => {
                let own =
                    if *keep && message.ends_with(&sequence.bytes) { sequence.len() } else { 0 };
                // The end of a message and the beginning of the delimiter may make one together.
                let body = &message[..message.len() - own];
                let early = sequence.find(body).or_else(|| overlapping(sequence, body));
                match early {
                    Some(place) => Err(holds("the delimiter", place)),
                    None => Ok(()),
                }
            }
            Form::Blocks { end, .. } => {
                match end.find(message).or_else(|| overlapping(end, message)) {
                    Some(place) => Err(holds("what ends a frame", place)),
                    None => Ok(()),
                }
            }
            Form::Fixed(len) if message.len() != *len => {
                let have = message.len();
                Err(unsendable(format!("a message of {have} bytes where a frame has {len}")))
            }
            Form::Length(prefix) => length_of(prefix, message).map(drop),
            Form::OctetCounting(OctetCounting { send_lines: true, .. }) => check_sent_line(message),
            Form::OctetCounting(_) if message.is_empty() => {
                Err(unsendable("an empty message, which octet counting cannot say"))
            }
            Form::Stuffed(Stuffing {
                escape: None,
                marks: Marks::Bytes { start, end, .. },
                ..
            }) => match memchr::memchr2(*start, *end, message) {
                Some(place) => Err(holds("what begins or ends a frame", place)),
                None => Ok(()),
            },
            Form::Stuffed(stuffing) if message.is_empty() && stuffing.has_no_start() => {
                Err(unsendable("an empty message, which this form cannot say"))
            }
            _ => Ok(()),
        }
    }

    /// About how many bytes the frame of `message` has: all that is content, also where it is written in
    /// another way.
    pub(crate) fn frame_len(&self, message: &[u8]) -> usize {
        match &self.form {
            Form::Stuffed(stuffing) => message.len() + stuffing.escaped_in(message),
            _ => message.len(),
        }
    }

    /// Writes the frame of `message`, which was checked, to `out`.
    pub(crate) fn encode(&self, message: &[u8], out: &mut Vec<u8>) {
        match self.wrapping(message) {
            Wrapping::Around { head, skip, tail } => {
                out.extend_from_slice(head.as_slice());
                out.extend_from_slice(&message[skip..]);
                out.extend_from_slice(tail);
            }
            Wrapping::Rewritten => self.rewrite(message, out),
        }
    }

    /// What `message`, which was checked, is sent with.
    pub(crate) fn wrapping(&self, message: &[u8]) -> Wrapping<'_> {
        let around = |head: &[u8], tail| Wrapping::Around { head: Head::new(head), skip: 0, tail };
        match &self.form {
            Form::Lines { ending } => around(&[], line_end(*ending, message)),
            Form::Delimiter { sequence, keep: true, .. } if message.ends_with(&sequence.bytes) => {
                around(&[], &[])
            }
            Form::Delimiter { sent, .. } => around(&[], sent),
            Form::Blocks { start, sent, .. } => around(&start.bytes, sent),
            Form::Fixed(_) => around(&[], &[]),
            Form::Length(prefix) => prefixed(prefix, message),
            Form::OctetCounting(OctetCounting { send_lines: true, .. }) => {
                around(&[], line_end(LineEnding::Lf, message))
            }
            Form::OctetCounting(_) => around(format_len(message.len(), b' ').as_slice(), &[]),
            Form::Netstring => around(format_len(message.len(), b':').as_slice(), b","),
            Form::Stuffed(Stuffing { plain: Some((start, sent)), .. }) => around(start, sent),
            Form::Stuffed(_) | Form::Cobs => Wrapping::Rewritten,
        }
    }

    fn rewrite(&self, message: &[u8], out: &mut Vec<u8>) {
        match &self.form {
            Form::Stuffed(stuffing) => stuff(stuffing, message, out),
            _ => cobs(message, out),
        }
    }
}

fn unsendable(what: impl std::fmt::Display) -> Error {
    Error::of(ErrorKind::Frame, format!("cannot be sent as one frame: {what}"))
}

fn holds(what: &str, place: usize) -> Error {
    unsendable(format!("at byte {place} it holds {what}"))
}

/// Where an end begins within `message` that is complete only with the end behind it, and before that.
fn overlapping(sequence: &super::compiled::Sequence, message: &[u8]) -> Option<usize> {
    let begun = sequence.begun_at_end(message);
    if begun == 0 {
        return None;
    }
    let mut both = message[message.len() - begun..].to_vec();
    both.extend_from_slice(&sequence.bytes);
    let found = sequence.find(&both)?;
    (found < begun).then(|| message.len() - begun + found)
}

fn check_line(message: &[u8]) -> Result<()> {
    if let Some(place) = memchr::memchr(b'\n', message) {
        return Err(unsendable(format!(
            "at byte {place} it holds a line end (LF), which is added"
        )));
    }
    Ok(())
}

/// The end of a line. One that ends with a CR of its own needs both bytes, or that CR would be taken for a
/// part of the end.
fn line_end(ending: LineEnding, line: &[u8]) -> &'static [u8] {
    if line.ends_with(b"\r") { LineEnding::CrLf.bytes() } else { ending.bytes() }
}

/// A line that must not be taken for a counted frame, or for nothing.
fn check_sent_line(message: &[u8]) -> Result<()> {
    match message {
        [] => Err(unsendable("an empty message, which is not taken for a line")),
        [b'0'..=b'9' | b'\r', ..] => Err(unsendable(
            "a line that begins with a digit or CR would be taken for something else",
        )),
        _ => check_line(message),
    }
}

/// The length to be written for `message`.
fn length_of(prefix: &LengthPrefix, message: &[u8]) -> Result<u64> {
    let have = message.len();
    let header = prefix.header();
    let whole = have + prefix.strip.unwrap_or(header);
    if whole < header {
        return Err(unsendable(format!(
            "a message of {have} bytes, of which the first {header} are the header"
        )));
    }
    let length = (whole - header) as i128 - i128::from(prefix.adjust);
    match u64::try_from(length) {
        Ok(length) if length <= prefix.field.greatest() => Ok(length),
        _ => Err(unsendable(format!(
            "a message of {have} bytes, for which a length of {length} would have to be written"
        ))),
    }
}

fn prefixed(prefix: &LengthPrefix, message: &[u8]) -> Wrapping<'static> {
    let length = length_of(prefix, message).unwrap_or_default();
    let mut head = Head::new(&[]);
    let Some(size) = prefix.field.size() else {
        head.len = write_varint(length, &mut head.bytes);
        return Wrapping::Around { head, skip: 0, tail: &[] };
    };
    let header = prefix.offset + size;
    let strip = prefix.strip.unwrap_or(header);
    head.len = header.max(strip);
    // What was not delivered is zeros; what was comes from the message.
    let skip = head.len - strip;
    head.bytes[strip..head.len].copy_from_slice(&message[..skip]);
    write_length(prefix.field, length, &mut head.bytes[prefix.offset..header]);
    Wrapping::Around { head, skip, tail: &[] }
}

fn write_length(field: LengthField, length: u64, place: &mut [u8]) {
    let size = place.len();
    match field {
        LengthField::BigEndian(_) => place.copy_from_slice(&length.to_be_bytes()[8 - size..]),
        LengthField::LittleEndian(_) => place.copy_from_slice(&length.to_le_bytes()[..size]),
        LengthField::Decimal(_) => write_digits(length, 10, place),
        LengthField::Hexadecimal(_) => write_digits(length, 16, place),
        LengthField::Bcd(_) => {
            let mut left = length;
            for byte in place.iter_mut().rev() {
                *byte = (((left / 10 % 10) << 4) | (left % 10)) as u8;
                left /= 100;
            }
        }
        LengthField::Varint => {}
    }
}

fn write_digits(length: u64, radix: u32, place: &mut [u8]) {
    let mut left = length;
    for byte in place.iter_mut().rev() {
        let digit = (left % u64::from(radix)) as u32;
        let digit = char::from_digit(digit, radix).unwrap_or('0').to_ascii_uppercase();
        *byte = digit as u8;
        left /= u64::from(radix);
    }
}

/// Returns how many bytes it took.
fn write_varint(mut length: u64, place: &mut [u8]) -> usize {
    let mut used = 0;
    loop {
        let bits = (length & 0x7f) as u8;
        length >>= 7;
        place[used] = if length > 0 { bits | 0x80 } else { bits };
        used += 1;
        if length == 0 {
            return used;
        }
    }
}

/// The length in decimal digits, and a mark.
fn format_len(len: usize, mark: u8) -> Head {
    let mut head = Head::new(&[]);
    let digits = len.checked_ilog10().unwrap_or(0) as usize + 1;
    write_digits(len as u64, 10, &mut head.bytes[..digits]);
    head.bytes[digits] = mark;
    head.len = digits + 1;
    head
}

fn stuff(stuffing: &Stuffing, message: &[u8], out: &mut Vec<u8>) {
    let Some(escape) = stuffing.escape else { return };
    match stuffing.marks {
        Marks::Bytes { start, end, xor } => {
            out.push(start);
            escape_into(message, stuffing, escape, |byte| byte ^ xor, out);
            out.push(end);
        }
        Marks::Led { start, end } => {
            out.extend_from_slice(&[escape, start]);
            escape_into(message, stuffing, escape, |byte| byte, out);
            out.extend_from_slice(&[escape, end]);
        }
        Marks::Flag { flag, xor } => {
            out.push(flag);
            escape_into(message, stuffing, escape, |byte| byte ^ xor, out);
            out.push(flag);
        }
        Marks::Slip => {
            let meaning = |byte| if byte == slip::END { slip::ESC_END } else { slip::ESC_ESC };
            out.push(slip::END);
            escape_into(message, stuffing, escape, meaning, out);
            out.push(slip::END);
        }
    }
    out.extend_from_slice(&stuffing.tail);
}

fn escape_into(
    message: &[u8],
    stuffing: &Stuffing,
    escape: u8,
    written: impl Fn(u8) -> u8,
    out: &mut Vec<u8>,
) {
    let mut rest = message;
    while let Some((place, byte)) = stuffing.next_mark(rest) {
        out.extend_from_slice(&rest[..place]);
        out.extend_from_slice(&[escape, written(byte)]);
        rest = &rest[place + 1..];
    }
    out.extend_from_slice(rest);
}

fn cobs(message: &[u8], out: &mut Vec<u8>) {
    const FULL: usize = 254;
    let mut groups = message.split(|byte| *byte == 0).peekable();
    while let Some(mut group) = groups.next() {
        let is_last = groups.peek().is_none();
        while group.len() > FULL || (group.len() == FULL && is_last) {
            out.push(0xFF);
            out.extend_from_slice(&group[..FULL]);
            group = &group[FULL..];
            if group.is_empty() && is_last {
                out.push(0);
                return;
            }
        }
        // At most 254 bytes are left, and 254 where a zero follows.
        if group.len() == FULL {
            out.push(0xFF);
            out.extend_from_slice(group);
            out.push(1);
        } else {
            out.push(group.len() as u8 + 1);
            out.extend_from_slice(group);
        }
    }
    out.push(0);
}
