//! Framings as short texts: `mllp`, `len:u16be,offset=4`, `delim:0d0a,max=64K,oversize=skip`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use super::{
    Blocks, Delimiter, Escape, FrameForm, Framing, LengthField, LengthPrefix, LineEnding, Lines,
    Malformed, OctetCounting, Outside, Oversize, PartialFrame, wrong,
};
use crate::{Error, Result};

/// What a text begins with, for those who gave another word.
const FORMS: &str = "lines, delim:HEX, block:HEX:HEX, fixed:N, len:FIELD, octets, netstring, cobs, \
                     slip, or a protocol: mllp, iso8583, modbus-tcp, syslog, stx-etx, gelf";

const FIELDS: &str =
    "u8, u16be, u16le, u24be … u64le, dec1 … dec18, hex1 … hex15, bcd1 … bcd9, varint";

/// Reads a short text: the form or the protocol, then rules, all parted by commas.
///
/// ```
/// use onbytes::Framing;
///
/// let framing: Framing = "delim:0d0a,max=64K,oversize=skip,timeout=10".parse()?;
/// assert_eq!(framing.max_frame, 65_536);
/// assert_eq!(framing.to_string(), "delim:0d0a,max=64K,oversize=skip,timeout=10");
/// # Ok::<(), onbytes::Error>(())
/// ```
impl FromStr for Framing {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(',').map(str::trim);
        let mut framing = form(parts.next().unwrap_or_default())?;
        for part in parts {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            if !framing.set_rule(key, value)? && !framing.form.set_option(key, value)? {
                let known = framing.form.options();
                return Err(wrong(format!(
                    "unknown rule '{}'; this form takes {known}max, oversize, malformed, partial and \
                     timeout",
                    shown(part)
                )));
            }
        }
        framing.check()?;
        Ok(framing)
    }
}

/// Writes the text that [`FromStr`] reads; the rules that are the default are left out.
impl fmt::Display for Framing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.form.fmt(f)?;
        let standard = match self.form {
            FrameForm::Fixed(len) => Self::fixed(len),
            // It is written by the name of the protocol, which has a bound of its own.
            FrameForm::OctetCounting(OctetCounting { detect_lines: true, .. }) => Self::syslog(),
            _ => Self::lines(),
        };
        if self.max_frame != standard.max_frame {
            write!(f, ",max={}", Size(self.max_frame))?;
        }
        match self.oversize {
            Oversize::Close => {}
            Oversize::Skip => f.write_str(",oversize=skip")?,
            Oversize::Truncate => f.write_str(",oversize=truncate")?,
        }
        if self.malformed == Malformed::Skip {
            f.write_str(",malformed=skip")?;
        }
        if self.partial == PartialFrame::Deliver {
            f.write_str(",partial=deliver")?;
        }
        match self.timeout {
            Some(Self::TIMEOUT) => Ok(()),
            Some(timeout) => write!(f, ",timeout={}", Seconds(timeout)),
            None => f.write_str(",timeout=off"),
        }
    }
}

impl Framing {
    /// Sets a rule that every form has; tells whether there is one of this name.
    fn set_rule(&mut self, key: &str, value: &str) -> Result<bool> {
        match key {
            "max" => self.max_frame = size(value)?,
            "oversize" => {
                self.oversize = word(
                    key,
                    value,
                    &[
                        ("close", Oversize::Close),
                        ("skip", Oversize::Skip),
                        ("truncate", Oversize::Truncate),
                    ],
                )?;
            }
            "malformed" => {
                self.malformed =
                    word(key, value, &[("close", Malformed::Close), ("skip", Malformed::Skip)])?;
            }
            "partial" => {
                self.partial = word(
                    key,
                    value,
                    &[("report", PartialFrame::Report), ("deliver", PartialFrame::Deliver)],
                )?;
            }
            "timeout" => self.timeout = timeout(value)?,
            _ => return Ok(false),
        }
        Ok(true)
    }
}

fn form(text: &str) -> Result<Framing> {
    let (name, rest) = text.split_once(':').unwrap_or((text, ""));
    if let Some(preset) = Framing::preset(name, rest) {
        return Ok(preset);
    }
    Ok(match (name, rest) {
        ("delim", hex) => Framing::delimited_by(bytes("delim", hex)?),
        ("block", marks) => {
            let (start, end) = marks.split_once(':').ok_or_else(|| {
                wrong("block takes a start and an end in hexadecimal, such as block:02:03")
            })?;
            Framing::new(Blocks::new(bytes("block", start)?, bytes("block", end)?))
        }
        ("fixed", len) => Framing::fixed(number("fixed", len)?),
        ("len", name) => Framing::length(field(name)?),
        ("octets", "") => Framing::new(OctetCounting::new()),
        ("netstring", "") => Framing::new(FrameForm::Netstring),
        ("cobs", "") => Framing::new(FrameForm::Cobs),
        ("slip", "") => Framing::new(FrameForm::Slip),
        ("iso8583", _) => {
            return Err(wrong(
                "iso8583 is written as iso8583 or iso8583:binary, inclusive, ascii, bcd, visa or u32",
            ));
        }
        _ => return Err(wrong(format!("unknown form '{}'; give {FORMS}", shown(text)))),
    })
}

impl FrameForm {
    /// The names of the options that it takes, for a message.
    fn options(&self) -> &'static str {
        match self {
            Self::Lines(_) | Self::Delimiter(_) => "keep, ",
            Self::Blocks(_) => "tail, escape, restart, outside, ",
            Self::Length(_) => "offset, adjust, strip, ",
            _ => "",
        }
    }

    /// Sets an option of this form; tells whether there is one of this name.
    fn set_option(&mut self, key: &str, value: &str) -> Result<bool> {
        match (self, key) {
            (Self::Lines(Lines { keep, .. }) | Self::Delimiter(Delimiter { keep, .. }), "keep") => {
                if !value.is_empty() {
                    return Err(wrong("keep takes no value"));
                }
                *keep = true;
            }
            (Self::Blocks(blocks), "tail") => blocks.tail = bytes(key, value)?,
            (Self::Blocks(blocks), "escape") => blocks.escape = Some(escape(value)?),
            (Self::Blocks(blocks), "restart") => {
                if !value.is_empty() {
                    return Err(wrong("restart takes no value"));
                }
                blocks.restart = true;
            }
            (Self::Blocks(blocks), "outside") => {
                blocks.outside = word(
                    key,
                    value,
                    &[("skip", Outside::Skip), ("malformed", Outside::Malformed)],
                )?;
            }
            (Self::Length(prefix), "offset") => prefix.offset = number(key, value)?,
            (Self::Length(prefix), "adjust") => prefix.adjust = number(key, value)?,
            (Self::Length(prefix), "strip") => prefix.strip = Some(number(key, value)?),
            _ => return Ok(false),
        }
        Ok(true)
    }
}

impl fmt::Display for FrameForm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lines(lines) => lines.fmt(f),
            Self::Delimiter(Delimiter { bytes, keep }) => {
                write!(f, "delim:{}{}", Hex(bytes), if *keep { ",keep" } else { "" })
            }
            Self::Blocks(blocks) => blocks.fmt(f),
            Self::Fixed(len) => write!(f, "fixed:{len}"),
            Self::Length(prefix) => prefix.fmt(f),
            Self::OctetCounting(OctetCounting { detect_lines: false, .. }) => f.write_str("octets"),
            Self::OctetCounting(OctetCounting { send_lines: true, .. }) => f.write_str("syslog:lf"),
            Self::OctetCounting(_) => f.write_str("syslog"),
            Self::Netstring => f.write_str("netstring"),
            Self::Cobs => f.write_str("cobs"),
            Self::Slip => f.write_str("slip"),
        }
    }
}

impl fmt::Display for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.ending {
            LineEnding::Lf => "lines",
            LineEnding::CrLf => "lines:crlf",
        })?;
        f.write_str(if self.keep { ",keep" } else { "" })
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "block:{}:{}", Hex(&self.start), Hex(&self.end))?;
        if !self.tail.is_empty() {
            write!(f, ",tail={}", Hex(&self.tail))?;
        }
        match self.escape {
            Some(Escape { byte, xor: 0 }) => write!(f, ",escape={byte:02x}")?,
            Some(Escape { byte, xor }) => write!(f, ",escape={byte:02x}^{xor:02x}")?,
            None => {}
        }
        f.write_str(if self.restart { ",restart" } else { "" })?;
        match self.outside {
            Outside::Skip => Ok(()),
            Outside::Malformed => f.write_str(",outside=malformed"),
        }
    }
}

impl fmt::Display for LengthPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "len:{}", self.field)?;
        if self.offset != 0 {
            write!(f, ",offset={}", self.offset)?;
        }
        if self.adjust != 0 {
            write!(f, ",adjust={}", self.adjust)?;
        }
        match self.strip {
            Some(strip) => write!(f, ",strip={strip}"),
            None => Ok(()),
        }
    }
}

/// Writes the field as in a short text: `u16be`, `dec4`.
impl fmt::Display for LengthField {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BigEndian(1) => f.write_str("u8"),
            Self::BigEndian(size) => write!(f, "u{}be", u32::from(*size) * 8),
            Self::LittleEndian(size) => write!(f, "u{}le", u32::from(*size) * 8),
            Self::Decimal(digits) => write!(f, "dec{digits}"),
            Self::Hexadecimal(digits) => write!(f, "hex{digits}"),
            Self::Bcd(bytes) => write!(f, "bcd{bytes}"),
            Self::Varint => f.write_str("varint"),
        }
    }
}

// ---- Reading values ----

fn field(text: &str) -> Result<LengthField> {
    let unknown = || wrong(format!("unknown length '{}'; give one of {FIELDS}", shown(text)));
    let sized = |digits: &str| digits.parse::<u8>().ok().filter(|_| is_plain(digits));
    let bits = |digits| sized(digits).filter(|bits| bits % 8 == 0).map(|bits| bits / 8);
    let found = if text == "varint" {
        Some(LengthField::Varint)
    } else if text == "u8" {
        Some(LengthField::u8())
    } else if let Some(digits) = text.strip_prefix('u').and_then(|text| text.strip_suffix("be")) {
        bits(digits).map(LengthField::BigEndian)
    } else if let Some(digits) = text.strip_prefix('u').and_then(|text| text.strip_suffix("le")) {
        bits(digits).map(LengthField::LittleEndian)
    } else if let Some(digits) = text.strip_prefix("dec") {
        sized(digits).map(LengthField::Decimal)
    } else if let Some(digits) = text.strip_prefix("hex") {
        sized(digits).map(LengthField::Hexadecimal)
    } else if let Some(digits) = text.strip_prefix("bcd") {
        sized(digits).map(LengthField::Bcd)
    } else {
        None
    };
    found.ok_or_else(unknown)
}

fn escape(text: &str) -> Result<Escape> {
    let (byte, xor) = text.split_once('^').unwrap_or((text, "00"));
    match (&bytes("escape", byte)?[..], &bytes("escape", xor)?[..]) {
        (&[byte], &[xor]) => Ok(Escape::with(byte).xor(xor)),
        _ => Err(wrong("escape takes one byte, such as 10, or one and what it combines, 7d^20")),
    }
}

/// Bytes in hexadecimal.
fn bytes(key: &str, hex: &str) -> Result<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let read = |pair: &[u8]| match *pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    };
    let bytes: Option<Vec<u8>> = hex.as_bytes().chunks(2).map(read).collect();
    bytes.filter(|bytes| !bytes.is_empty()).ok_or_else(|| {
        wrong(format!(
            "{key} takes bytes in hexadecimal, two digits each, such as 0d0a, not '{}'",
            shown(hex)
        ))
    })
}

fn is_plain(digits: &str) -> bool {
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

fn number<T: FromStr>(key: &str, text: &str) -> Result<T> {
    let plain = text.strip_prefix('-').unwrap_or(text);
    text.parse()
        .ok()
        .filter(|_| is_plain(plain))
        .ok_or_else(|| wrong(format!("{key} takes a whole number, not '{}'", shown(text))))
}

/// A number of bytes, which may end with K, M or G.
fn size(text: &str) -> Result<usize> {
    let (digits, unit) = match text.as_bytes() {
        [.., b'K'] => (&text[..text.len() - 1], 1 << 10),
        [.., b'M'] => (&text[..text.len() - 1], 1 << 20),
        [.., b'G'] => (&text[..text.len() - 1], 1 << 30),
        _ => (text, 1),
    };
    let count = digits.parse::<usize>().ok().filter(|_| is_plain(digits));
    count.and_then(|count| count.checked_mul(unit)).ok_or_else(|| {
        wrong(format!("max takes a number of bytes, such as 65536 or 64K, not '{}'", shown(text)))
    })
}

/// Writes a size with the greatest unit that says it exactly.
struct Size(usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
        let fits = |(unit, _): &&(usize, &str)| self.0 != 0 && self.0.is_multiple_of(*unit);
        match units.iter().find(fits) {
            Some((unit, letter)) => write!(f, "{}{letter}", self.0 / unit),
            None => write!(f, "{}", self.0),
        }
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn timeout(text: &str) -> Result<Option<Duration>> {
    if text == "off" {
        return Ok(None);
    }
    seconds(text).map(Some).ok_or_else(|| {
        wrong(format!("timeout takes a number of seconds, or off, not '{}'", shown(text)))
    })
}

/// A number of seconds: to the nanosecond where it is written in plain digits.
fn seconds(text: &str) -> Option<Duration> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    if is_plain(whole) && is_plain(part) && part.len() <= 9 {
        let nanoseconds = format!("{part:0<9}").parse().ok()?;
        return Some(Duration::new(whole.parse().ok()?, nanoseconds));
    }
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}

/// Writes a time so that the same is read again: a floating-point number has too few digits for some.
struct Seconds(Duration);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_secs())?;
        match self.0.subsec_nanos() {
            0 => Ok(()),
            part => write!(f, ".{}", format!("{part:09}").trim_end_matches('0')),
        }
    }
}

fn word<T: Copy>(key: &str, value: &str, words: &[(&str, T)]) -> Result<T> {
    match words.iter().find(|(word, _)| *word == value) {
        Some((_, meaning)) => Ok(*meaning),
        None => {
            let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            let known = known.join(" or ");
            Err(wrong(format!("{key} takes {known}, not '{}'", shown(value))))
        }
    }
}

/// What was given, for a message: of a long text the beginning.
fn shown(text: &str) -> String {
    const MOST: usize = 40;
    let start: String = text.chars().take(MOST).flat_map(char::escape_default).collect();
    if text.chars().count() > MOST { format!("{start}…") } else { start }
}

#[cfg(feature = "serde")]
mod record {
    //! In files: the text, or a record of the form's text and the rules.

    use serde::de::{self, Deserializer, Visitor};
    use serde::ser::Serializer;

    use super::*;

    impl serde::Serialize for Framing {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.collect_str(self)
        }
    }

    impl<'de> serde::Deserialize<'de> for Framing {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            from.deserialize_any(TextOrRecord)
        }
    }

    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Record {
        form: String,
        #[serde(default, with = "crate::record::optional_count")]
        max_frame: Option<usize>,
        oversize: Option<String>,
        malformed: Option<String>,
        partial: Option<String>,
        #[serde(default)]
        timeout: Option<Timeout>,
    }

    /// A time limit that was given, which may be `"off"`.
    #[derive(serde::Deserialize)]
    struct Timeout(#[serde(with = "crate::record::optional_seconds")] Option<Duration>);

    impl Record {
        fn read(self) -> Result<Framing> {
            let mut framing: Framing = self.form.parse()?;
            framing.max_frame = self.max_frame.unwrap_or(framing.max_frame);
            let rules = [
                ("oversize", self.oversize),
                ("malformed", self.malformed),
                ("partial", self.partial),
            ];
            for (key, value) in rules {
                if let Some(value) = value {
                    framing.set_rule(key, &value)?;
                }
            }
            if let Some(Timeout(timeout)) = self.timeout {
                framing.timeout = timeout;
            }
            framing.check()?;
            Ok(framing)
        }
    }

    struct TextOrRecord;

    impl<'de> Visitor<'de> for TextOrRecord {
        type Value = Framing;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a framing such as \"mllp\", or a record with form and its rules")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Framing, E> {
            text.parse().map_err(E::custom)
        }

        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Framing, A::Error> {
            use serde::Deserialize;
            let record = Record::deserialize(de::value::MapAccessDeserializer::new(map))?;
            record.read().map_err(de::Error::custom)
        }
    }
}
