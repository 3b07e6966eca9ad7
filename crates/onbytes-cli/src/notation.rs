//! Bytes in one line: as text in which what would break the line is escaped, or in hexadecimal.
//!
//! What is written can be read back, in both.

use clap::ValueEnum;

use crate::failure::shown;

/// How bytes are shown, and read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub(crate) enum Notation {
    /// Text; \r \n \t \\ and \xNN stand for what would break a line or a terminal
    #[default]
    Text,
    /// Two hexadecimal digits for each byte
    Hex,
}

impl Notation {
    /// The bytes in one line.
    pub(crate) fn write(self, data: &[u8]) -> String {
        match self {
            Self::Text => text(data),
            Self::Hex => hex(data),
        }
    }

    /// The bytes that `line` stands for.
    pub(crate) fn read(self, line: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Self::Text => from_text(line),
            Self::Hex => from_hex(line),
        }
    }
}

/// Lower-case digits, two for each byte.
pub(crate) fn hex(data: &[u8]) -> String {
    let mut line = String::with_capacity(data.len() * 2);
    for byte in data {
        line.extend([digit(byte >> 4), digit(byte & 15)]);
    }
    line
}

fn digit(value: u8) -> char {
    char::from_digit(value.into(), 16).unwrap_or('0')
}

fn text(data: &[u8]) -> String {
    let mut line = String::with_capacity(data.len());
    for chunk in data.utf8_chunks() {
        chunk.valid().chars().for_each(|c| write_character(c, &mut line));
        chunk.invalid().iter().for_each(|byte| write_escaped(*byte, &mut line));
    }
    line
}

fn write_character(c: char, line: &mut String) {
    match c {
        '\r' => line.push_str("\\r"),
        '\n' => line.push_str("\\n"),
        '\t' => line.push_str("\\t"),
        '\\' => line.push_str("\\\\"),
        c if is_harmful(c) => {
            c.encode_utf8(&mut [0; 4]).bytes().for_each(|byte| write_escaped(byte, line));
        }
        c => line.push(c),
    }
}

fn write_escaped(byte: u8, line: &mut String) {
    line.push_str("\\x");
    line.extend([digit(byte >> 4), digit(byte & 15)]);
}

/// Whether a character breaks lines, commands terminals, or turns the direction of what follows it.
fn is_harmful(c: char) -> bool {
    const LINE_AND_PARAGRAPH: std::ops::RangeInclusive<char> = '\u{2028}'..='\u{2029}';
    const DIRECTIONS: std::ops::RangeInclusive<char> = '\u{202a}'..='\u{202e}';
    const ISOLATES: std::ops::RangeInclusive<char> = '\u{2066}'..='\u{2069}';
    c.is_control() || [LINE_AND_PARAGRAPH, DIRECTIONS, ISOLATES].iter().any(|it| it.contains(&c))
}

/// Bytes that are not escaped stand for themselves, whatever they are.
fn from_text(line: &[u8]) -> Result<Vec<u8>, String> {
    let mut data = Vec::with_capacity(line.len());
    let mut rest = line;
    while let [byte, after @ ..] = rest {
        let (byte, taken) = match (byte, after) {
            (b'\\', [b'r', ..]) => (b'\r', 2),
            (b'\\', [b'n', ..]) => (b'\n', 2),
            (b'\\', [b't', ..]) => (b'\t', 2),
            (b'\\', [b'\\', ..]) => (b'\\', 2),
            (b'\\', [b'x', high, low, ..]) => match pair(*high, *low) {
                Some(byte) => (byte, 4),
                None => return Err(no_escape(line, rest)),
            },
            (b'\\', _) => return Err(no_escape(line, rest)),
            (byte, _) => (*byte, 1),
        };
        data.push(byte);
        rest = &rest[taken..];
    }
    Ok(data)
}

fn no_escape(line: &[u8], rest: &[u8]) -> String {
    let most = if rest.get(1) == Some(&b'x') { 4 } else { 2 };
    let column = String::from_utf8_lossy(&line[..line.len() - rest.len()]).chars().count() + 1;
    let given = String::from_utf8_lossy(rest);
    let given: String = given.chars().take(most).collect();
    format!("'{given}' at column {column} is no escape; give \\r, \\n, \\t, \\\\ or \\xNN")
}

/// Digits may stand in groups, with spaces, line breaks, commas or colons between them, and each group
/// may begin with 0x.
pub(crate) fn from_hex(line: &[u8]) -> Result<Vec<u8>, String> {
    let is_between = |byte: &u8| byte.is_ascii_whitespace() || matches!(byte, b':' | b',');
    let mut data = Vec::with_capacity(line.len() / 2);
    for group in line.split(is_between).filter(|group| !group.is_empty()) {
        let digits = group.strip_prefix(b"0x").or(group.strip_prefix(b"0X")).unwrap_or(group);
        let bytes: Option<Vec<u8>> = digits.chunks(2).map(whole_pair).collect();
        match bytes {
            Some(bytes) if !bytes.is_empty() => data.extend(bytes),
            _ => {
                let group = shown(&String::from_utf8_lossy(group));
                return Err(format!(
                    "'{group}' is not hexadecimal; give two digits for each byte, such as 0d0a"
                ));
            }
        }
    }
    Ok(data)
}

fn whole_pair(digits: &[u8]) -> Option<u8> {
    match *digits {
        [high, low] => pair(high, low),
        _ => None,
    }
}

fn pair(high: u8, low: u8) -> Option<u8> {
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| value.try_into().ok());
    let (high, low): (u8, u8) = (value(high)?, value(low)?);
    Some(high << 4 | low)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assert_comes_back(data: &[u8]) {
        for notation in [Notation::Text, Notation::Hex] {
            let line = notation.write(data);
            assert!(!line.chars().any(is_harmful), "{line:?}");
            assert_eq!(notation.read(line.as_bytes()).as_deref(), Ok(data), "{line}");
        }
    }

    #[test]
    fn every_byte_comes_back_alone_and_before_and_behind_every_other() {
        assert_comes_back(b"");
        for one in 0..=u8::MAX {
            assert_comes_back(&[one]);
            (0..=u8::MAX).for_each(|other| assert_comes_back(&[one, other]));
        }
    }

    #[test]
    fn every_character_comes_back_and_so_does_each_cut_off() {
        let others = ('\u{10000}'..=char::MAX).step_by(61);
        for c in ('\0'..='\u{ffff}').chain(others) {
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes).as_bytes();
            assert_comes_back(bytes);
            assert_comes_back(&bytes[..bytes.len() - 1]);
            assert_comes_back(&[bytes, b"x41\\"].concat());
        }
    }

    #[test]
    fn text_shows_what_can_be_shown_and_escapes_the_rest() {
        for (data, line) in [
            (&b"plain text, \"quoted\""[..], "plain text, \"quoted\""),
            ("ä €".as_bytes(), "ä €"),
            (b"\r\n\t\\", "\\r\\n\\t\\\\"),
            (b"\0\x0b\x1c\x1b[2J\x7f", "\\x00\\x0b\\x1c\\x1b[2J\\x7f"),
            (b"\xff\xc3(", "\\xff\\xc3("),
            ("\u{9b}\u{2028}\u{202e}".as_bytes(), "\\xc2\\x9b\\xe2\\x80\\xa8\\xe2\\x80\\xae"),
        ] {
            assert_eq!(Notation::Text.write(data), line);
        }
    }

    #[test]
    fn text_that_is_not_escaped_stands_for_itself() {
        for data in [&b"tab\there"[..], b"\xff\xfe", b"cr\r", "\u{202e}".as_bytes()] {
            assert_eq!(Notation::Text.read(data).as_deref(), Ok(data));
        }
        assert_eq!(Notation::Text.read(b"\\x4A\\x4a").as_deref(), Ok(&b"JJ"[..]));
    }

    #[test]
    fn what_is_no_escape_is_told_with_its_place() {
        for (line, parts) in [
            (&b"\\"[..], ["'\\'", "column 1"]),
            (b"ab\\q", ["'\\q'", "column 3"]),
            ("ää\\x4".as_bytes(), ["'\\x4'", "column 3"]),
            (b"\\\\\\xg0", ["'\\xg0'", "column 3"]),
            (b"\\X41", ["'\\X'", "column 1"]),
            (b"\\\xff", ["'\\\u{fffd}'", "column 1"]),
        ] {
            let message = Notation::Text.read(line).unwrap_err();
            assert!(parts.iter().all(|part| message.contains(part)), "{message}");
            assert!(message.contains("\\xNN"), "{message}");
        }
    }

    #[test]
    fn hexadecimal_may_be_written_in_every_usual_way() {
        for line in
            ["0b4D1c", "0b 4d 1C", " 0b\t4d1c\r\n", "0B:4D:1C", "0x0b, 0x4d,0X1c", "0x0b4d1c"]
        {
            assert_eq!(from_hex(line.as_bytes()).as_deref(), Ok(&b"\x0bM\x1c"[..]), "{line}");
        }
        for line in ["b", "0b4", "0 b", "0x", "0xb", "gg", "0b-4d", "+1", "ää", "0b0x4d"] {
            let message = from_hex(line.as_bytes()).unwrap_err();
            assert!(message.contains("two digits for each byte"), "{message}");
        }
        let message = from_hex(&[b'z'; 5_000]).unwrap_err();
        assert!(message.len() < 300, "{message}");
    }
}
