//! Frames by hand: how a program that knows one form finds and writes them, as a yardstick.

use std::fmt;
use std::str::FromStr;

/// A form of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frames {
    /// Lines that end with LF or CRLF, and are sent with LF.
    Lines,
    /// Two bytes of length, the high one first.
    Length,
    /// A byte before, two bytes behind.
    Mllp,
    /// A length of as many bytes as it needs, seven bits in each.
    Varint,
}

impl Frames {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lines, Self::Length, Self::Mllp, Self::Varint];

    /// The text by which onbytes, and the command line, know it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Lines => "lines",
            Self::Length => "len:u16be",
            Self::Mllp => "mllp",
            Self::Varint => "len:varint",
        }
    }

    /// The largest message that one can hold, as the hand-written server has room for it.
    #[must_use]
    pub fn largest(self) -> usize {
        usize::from(u16::MAX)
    }

    /// The first frame in `data`, and how many bytes it takes with what surrounds it; `None` where it is not
    /// whole, or is none.
    #[inline]
    #[must_use]
    pub fn first(self, data: &[u8]) -> Option<(&[u8], usize)> {
        match self {
            Self::Lines => first_line(data),
            Self::Length => first_length(data),
            Self::Mllp => first_block(data),
            Self::Varint => first_varint(data),
        }
    }

    /// Adds the frame of `message` to `out`.
    #[inline]
    pub fn write(self, message: &[u8], out: &mut Vec<u8>) {
        match self {
            Self::Lines => write_line(message, out),
            Self::Length => write_length(message, out),
            Self::Mllp => write_block(message, out),
            Self::Varint => write_varint(message, out),
        }
    }

    /// How many bytes the frame of a message of `size` bytes takes.
    #[must_use]
    pub fn wire_len(self, size: usize) -> usize {
        let mut frame = Vec::new();
        self.write(&vec![b' '; size], &mut frame);
        frame.len()
    }
}

impl fmt::Display for Frames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl FromStr for Frames {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|frames| frames.text() == text);
        known.ok_or_else(|| format!("must be one of {}", Self::ALL.map(Self::text).join(", ")))
    }
}

/// [`Frames::first`] for lines.
#[inline]
#[must_use]
pub fn first_line(data: &[u8]) -> Option<(&[u8], usize)> {
    let end = memchr::memchr(b'\n', data)?;
    let line = &data[..end];
    Some((line.strip_suffix(b"\r").unwrap_or(line), end + 1))
}

/// [`Frames::first`] behind a length of two bytes.
#[inline]
#[must_use]
pub fn first_length(data: &[u8]) -> Option<(&[u8], usize)> {
    let (head, rest) = data.split_first_chunk()?;
    let length = usize::from(u16::from_be_bytes(*head));
    Some((rest.get(..length)?, 2 + length))
}

/// [`Frames::first`] for MLLP.
#[inline]
#[must_use]
pub fn first_block(data: &[u8]) -> Option<(&[u8], usize)> {
    let (b'\x0b', rest) = data.split_first()? else { return None };
    let end = memchr::memchr(b'\x1c', rest)?;
    (rest.get(end + 1) == Some(&b'\r')).then_some((&rest[..end], 1 + end + 2))
}

/// [`Frames::first`] behind a varint.
#[inline]
#[must_use]
pub fn first_varint(data: &[u8]) -> Option<(&[u8], usize)> {
    let (mut length, mut head) = (0, 0);
    loop {
        let byte = *data.get(head)?;
        length |= usize::from(byte & 0x7f) << (7 * head);
        head += 1;
        if byte & 0x80 == 0 {
            return Some((data.get(head..head + length)?, head + length));
        }
        if head == 4 {
            return None;
        }
    }
}

/// [`Frames::write`] for lines.
#[inline]
pub fn write_line(message: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(message);
    out.push(b'\n');
}

/// [`Frames::write`] behind a length of two bytes.
#[inline]
pub fn write_length(message: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(message.len() as u16).to_be_bytes());
    out.extend_from_slice(message);
}

/// [`Frames::write`] for MLLP.
#[inline]
pub fn write_block(message: &[u8], out: &mut Vec<u8>) {
    out.push(b'\x0b');
    out.extend_from_slice(message);
    out.extend_from_slice(b"\x1c\r");
}

/// [`Frames::write`] behind a varint.
#[inline]
pub fn write_varint(message: &[u8], out: &mut Vec<u8>) {
    let mut length = message.len();
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
    out.extend_from_slice(message);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found_and_only_when_it_is_whole() {
        for frames in Frames::ALL {
            for size in [0, 1, 64, 127, 128, 300, 20_000] {
                let message = vec![b'x'; size];
                let mut wire = Vec::new();
                frames.write(&message, &mut wire);
                let len = wire.len();
                assert_eq!(len, frames.wire_len(size));
                frames.write(b"next", &mut wire);
                assert_eq!(frames.first(&wire), Some((&message[..], len)), "{frames}");
                assert_eq!(frames.first(&wire[..len - 1]), None, "{frames}");
            }
        }
    }

    #[test]
    fn they_are_the_frames_of_onbytes() {
        for frames in Frames::ALL {
            let framing: onbytes::Framing = frames.text().parse().unwrap();
            let mut wire = Vec::new();
            frames.write(b"a message", &mut wire);
            assert_eq!(framing.encode(b"a message").unwrap(), wire, "{frames}");
            assert_eq!(frames.text().parse(), Ok(frames));
        }
        assert!("len".parse::<Frames>().is_err());
    }
}
