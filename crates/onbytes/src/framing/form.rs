//! The forms that frames have: plain data, and which of it cannot be.

use super::wrong;
use crate::Result;

/// The longest delimiter, start, end or tail, in bytes.
const LONGEST_MARK: usize = 32;

/// The longest header of a length prefix: what comes before the length, and the length itself.
pub(super) const LONGEST_HEADER: usize = 64;

/// How frames are told apart on the wire.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FrameForm {
    /// Lines of text.
    Lines(Lines),
    /// Frames that end with certain bytes.
    Delimiter(Delimiter),
    /// Frames between a start and an end.
    Blocks(Blocks),
    /// Frames of so many bytes each.
    Fixed(usize),
    /// Frames that carry their length.
    Length(LengthPrefix),
    /// Octet counting of syslog over TCP (RFC 6587, 3.4.1).
    OctetCounting(OctetCounting),
    /// Netstrings: the length in decimal digits, `:`, the frame, `,`
    /// ([cr.yp.to](https://cr.yp.to/proto/netstrings.txt)).
    Netstring,
    /// Consistent Overhead Byte Stuffing, with a zero byte after each frame
    /// (Cheshire and Baker, IEEE/ACM Transactions on Networking 7(2), 1999).
    Cobs,
    /// SLIP (RFC 1055): the byte 0xC0 after each frame, and before it when sent.
    Slip,
}

/// Lines of text, which end with LF or CRLF.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct Lines {
    /// What is sent at the end of a line. Default: LF.
    pub ending: LineEnding,
    /// Whether a line is delivered with its end; then one that is sent may have its own, too.
    /// Default: `false`.
    pub keep: bool,
}

/// The end of a line that is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum LineEnding {
    /// 0x0A.
    #[default]
    Lf,
    /// 0x0D 0x0A.
    CrLf,
}

/// Frames that end with certain bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Delimiter {
    /// These bytes, in this order: 1 to 32.
    pub bytes: Vec<u8>,
    /// Whether a frame is delivered with them; then one that is sent may have its own, too.
    /// Default: `false`.
    pub keep: bool,
}

/// Frames between a start and an end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Blocks {
    /// What a frame begins with: 1 to 32 bytes, which are not delivered.
    pub start: Vec<u8>,
    /// What it ends with: 1 to 32 bytes, which are not delivered.
    pub end: Vec<u8>,
    /// What is sent after the end, and may follow it or be missing when received. Default: nothing.
    pub tail: Vec<u8>,
    /// How start and end are written inside of a frame. Default: they cannot be.
    pub escape: Option<Escape>,
    /// Whether a start within a frame begins a new one, and what came of the one before is malformed:
    /// for marks of one byte each that no content holds. Default: `false`, and it is content.
    pub restart: bool,
    /// What is done with bytes between frames. Default: they are dropped.
    pub outside: Outside,
}

/// A byte that takes the meaning from the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Escape {
    /// The byte, such as DLE (0x10).
    pub byte: u8,
    /// What the byte behind it was combined with (exclusive or); 0 where it stands as it is.
    pub xor: u8,
}

/// What is done with bytes that come between frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Outside {
    /// They are dropped, up to `max_frame` of them at a time; more are malformed.
    #[default]
    Skip,
    /// They are malformed, but for what may follow an end.
    Malformed,
}

/// Frames that carry their length in a header.
///
/// The whole frame on the wire has as many bytes as come before the length, as the length itself has, and
/// as the length says, with `adjust` added.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct LengthPrefix {
    /// How the length is written.
    pub field: LengthField,
    /// Bytes before the length. Default: 0.
    pub offset: usize,
    /// What is to be added to the length to have the number of bytes behind it. Default: 0; for a length
    /// that counts itself it is minus the size of the length.
    pub adjust: i64,
    /// Bytes at the beginning that are not delivered, and are zeros (and the length) when sent; `None`:
    /// up to the end of the length. With 0 a frame is delivered with its header, and in one that is sent
    /// the length is filled in.
    pub strip: Option<usize>,
}

/// How a length is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LengthField {
    /// A binary number of 1 to 8 bytes, the high byte first.
    BigEndian(u8),
    /// A binary number of 1 to 8 bytes, the low byte first.
    LittleEndian(u8),
    /// So many decimal digits, 1 to 18, in ASCII.
    Decimal(u8),
    /// So many hexadecimal digits, 1 to 15, in ASCII; capital ones are sent.
    Hexadecimal(u8),
    /// So many bytes of two decimal digits each (BCD), 1 to 9.
    Bcd(u8),
    /// Seven bits in each byte, the low ones first (unsigned LEB128, as in Protocol Buffers).
    Varint,
}

/// Syslog's octet counting: the length in decimal digits, a space, the frame.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub struct OctetCounting {
    /// Whether a frame that does not begin with a digit is taken as a line that ends with LF or CRLF
    /// (RFC 6587, 3.4.2), each frame anew. Empty lines are dropped. Default: `false`.
    pub detect_lines: bool,
    /// Whether frames are sent as lines rather than counted. Default: `false`.
    pub send_lines: bool,
}

impl Lines {
    /// Lines that are delivered without their end and sent with LF.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Delimiter {
    /// Frames that end with `bytes`, which are not delivered.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Self {
        Self { bytes: bytes.into(), keep: false }
    }
}

impl Blocks {
    /// Frames between `start` and `end`.
    pub fn new(start: impl Into<Vec<u8>>, end: impl Into<Vec<u8>>) -> Self {
        Self {
            start: start.into(),
            end: end.into(),
            tail: Vec::new(),
            escape: None,
            restart: false,
            outside: Outside::default(),
        }
    }
}

impl Escape {
    /// A byte behind which the next one stands as it is.
    pub fn with(byte: u8) -> Self {
        Self { byte, xor: 0 }
    }
}

impl LengthPrefix {
    /// Frames that begin with their length, which is not delivered.
    pub fn new(field: LengthField) -> Self {
        Self { field, offset: 0, adjust: 0, strip: None }
    }

    /// Bytes up to the end of the length; 0 where the length's own size varies.
    pub(super) fn header(&self) -> usize {
        self.offset.saturating_add(self.field.size().unwrap_or(0))
    }
}

impl OctetCounting {
    /// Counted frames only.
    pub fn new() -> Self {
        Self::default()
    }
}

impl LengthField {
    /// One byte.
    pub fn u8() -> Self {
        Self::BigEndian(1)
    }

    /// Two bytes, the high one first.
    pub fn u16_be() -> Self {
        Self::BigEndian(2)
    }

    /// Two bytes, the low one first.
    pub fn u16_le() -> Self {
        Self::LittleEndian(2)
    }

    /// Four bytes, the high one first.
    pub fn u32_be() -> Self {
        Self::BigEndian(4)
    }

    /// Four bytes, the low one first.
    pub fn u32_le() -> Self {
        Self::LittleEndian(4)
    }

    /// The bytes that it takes, where that does not depend on the length.
    pub fn size(self) -> Option<usize> {
        match self {
            Self::BigEndian(size)
            | Self::LittleEndian(size)
            | Self::Decimal(size)
            | Self::Hexadecimal(size)
            | Self::Bcd(size) => Some(usize::from(size)),
            Self::Varint => None,
        }
    }

    /// The greatest length that it can say.
    pub(super) fn greatest(self) -> u64 {
        match self {
            Self::BigEndian(size) | Self::LittleEndian(size) => u64::MAX >> (64 - 8 * size),
            Self::Decimal(digits) => 10u64.pow(digits.into()) - 1,
            Self::Hexadecimal(digits) => u64::MAX >> (64 - 4 * digits),
            Self::Bcd(bytes) => 100u64.pow(bytes.into()) - 1,
            Self::Varint => u64::MAX,
        }
    }

    fn check(self) -> Result<()> {
        let (size, most, what) = match self {
            Self::BigEndian(size) | Self::LittleEndian(size) => (size, 8, "bytes"),
            Self::Decimal(size) => (size, 18, "decimal digits"),
            Self::Hexadecimal(size) => (size, 15, "hexadecimal digits"),
            Self::Bcd(size) => (size, 9, "bytes of BCD"),
            Self::Varint => return Ok(()),
        };
        if (1..=most).contains(&size) {
            return Ok(());
        }
        Err(wrong(format!("a length has from 1 to {most} {what}, not {size}")))
    }
}

impl FrameForm {
    /// Whether the beginning of the next frame can be found behind bytes that are no frame.
    pub(super) fn finds_next(&self) -> bool {
        match self {
            Self::Cobs | Self::Slip => true,
            Self::Blocks(blocks) => blocks.escape.is_some() || blocks.restart,
            _ => false,
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        match self {
            Self::Delimiter(delimiter) => check_mark("a delimiter", &delimiter.bytes),
            Self::Blocks(blocks) => blocks.check(),
            Self::Fixed(0) => Err(wrong("frames of 0 bytes never end; give 1 or more")),
            Self::Length(prefix) => prefix.check(),
            Self::OctetCounting(OctetCounting { detect_lines: false, send_lines: true }) => {
                Err(wrong("frames cannot be sent as lines where lines are not detected"))
            }
            _ => Ok(()),
        }
    }
}

impl Blocks {
    fn check(&self) -> Result<()> {
        check_mark("a start", &self.start)?;
        check_mark("an end", &self.end)?;
        if !self.tail.is_empty() {
            self.check_tail()?;
        }
        if self.restart && self.escape.is_some() {
            return Err(wrong("with an escape a start within a frame begins a new one anyway"));
        }
        if self.restart && (self.start.len() != 1 || self.end.len() != 1 || self.start == self.end)
        {
            return Err(wrong("restart is for a start and an end of one byte each, which differ"));
        }
        match self.escape {
            Some(escape) => self.check_escape(escape),
            None => Ok(()),
        }
    }

    /// Behind an end a tail and a start must be told apart by each byte alone.
    fn check_tail(&self) -> Result<()> {
        check_mark("a tail", &self.tail)?;
        if self.tail.contains(&self.start[0]) {
            return Err(wrong("a tail must not hold the byte that a start begins with"));
        }
        Ok(())
    }

    /// With an escape a start and an end are one byte, or the escape and one byte (DLE STX, DLE ETX).
    fn check_escape(&self, escape: Escape) -> Result<()> {
        let is_led = |mark: &[u8]| mark.len() == 2 && mark[0] == escape.byte;
        let (start, end) = (&self.start[..], &self.end[..]);
        if is_led(start) && is_led(end) {
            if start[1] == escape.byte || end[1] == escape.byte || start == end {
                return Err(wrong("start, end and a doubled escape must be told apart"));
            }
            if escape.xor != 0 {
                return Err(wrong(
                    "an escape that leads start and end stands for itself, without ^",
                ));
            }
            return Ok(());
        }
        if start == end && !self.tail.is_empty() {
            return Err(wrong(
                "where one mark is start and end, what follows it is the next frame",
            ));
        }
        if start.len() != 1 || end.len() != 1 {
            return Err(wrong(
                "with an escape, start and end are one byte each, or the escape and one byte each",
            ));
        }
        let special = [start[0], end[0], escape.byte];
        if special[..2].contains(&escape.byte) {
            return Err(wrong("the escape must differ from start and end"));
        }
        // What stands behind an escape must not be taken for an end, by those who look for one alone.
        if escape.xor != 0 && special.iter().any(|byte| special.contains(&(byte ^ escape.xor))) {
            return Err(wrong("what ^ makes of start, end or escape must be none of them"));
        }
        Ok(())
    }
}

impl LengthPrefix {
    fn check(&self) -> Result<()> {
        self.field.check()?;
        let strip = self.strip.unwrap_or(self.header());
        if self.field == LengthField::Varint {
            if self.offset != 0 || self.strip.is_some() {
                return Err(wrong("a varint is the first in its frame, and is not delivered"));
            }
        } else if self.header() > LONGEST_HEADER {
            return Err(wrong(format!(
                "the length must end within the first {LONGEST_HEADER} bytes"
            )));
        }
        if strip > LONGEST_HEADER {
            return Err(wrong(format!("strip must be at most {LONGEST_HEADER}, not {strip}")));
        }
        // So that a length and what is added to it can be reckoned with.
        if self.adjust.unsigned_abs() > u64::from(u32::MAX) {
            return Err(wrong(format!("adjust must be within 32 bits, not {}", self.adjust)));
        }
        Ok(())
    }
}

fn check_mark(what: &str, bytes: &[u8]) -> Result<()> {
    match bytes.len() {
        1..=LONGEST_MARK => Ok(()),
        len => Err(wrong(format!("{what} has from 1 to {LONGEST_MARK} bytes, not {len}"))),
    }
}

macro_rules! into_form {
    ($($record:ident => $form:ident;)*) => {
        $(
            impl From<$record> for FrameForm {
                fn from(form: $record) -> Self {
                    Self::$form(form)
                }
            }
        )*
    };
}

into_form! {
    Lines => Lines;
    Delimiter => Delimiter;
    Blocks => Blocks;
    LengthPrefix => Length;
    OctetCounting => OctetCounting;
}

crate::config::setters! { Lines {
    ending: LineEnding => ending;
    keep: bool => keep;
}}

crate::config::setters! { Delimiter {
    keep: bool => keep;
}}

crate::config::setters! { Blocks {
    tail: impl Into<Vec<u8>> => tail.into();
    escape: impl Into<Option<Escape>> => escape.into();
    restart: bool => restart;
    outside: Outside => outside;
}}

crate::config::setters! { Escape {
    xor: u8 => xor;
}}

crate::config::setters! { LengthPrefix {
    offset: usize => offset;
    adjust: i64 => adjust;
    strip: impl Into<Option<usize>> => strip.into();
}}

crate::config::setters! { OctetCounting {
    detect_lines: bool => detect_lines;
    send_lines: bool => send_lines;
}}
