//! One form in detail: its rules as they are in force, and an example.

use std::fmt::{self, Write};

use onbytes::{FrameDecoder, FrameForm, FrameMark, Framing, Malformed, Oversize, PartialFrame};

use super::table;
use crate::notation::{Notation, hex};

/// The longest fixed frame of which an example is shown.
const LONGEST: usize = 64;

/// All that there is to tell of `framing`.
pub(super) fn text(framing: &Framing, notation: Notation) -> String {
    let mut text = format!("{framing}\n");
    for (form, what) in table::uses(framing) {
        let _ = writeln!(text, "  {form}: {what}");
    }
    text.push('\n');
    rules(framing).iter().for_each(|(rule, value, what)| {
        let _ = writeln!(text, "  {rule:<10} {value:<9} {what}");
    });
    let example = samples(framing).iter().find_map(|message| Example::of(framing, message));
    let _ = match example {
        Some(example) => writeln!(
            text,
            "\n  message    {}\n  frame      {}",
            notation.write(&example.message),
            hex(&example.frame)
        ),
        None => writeln!(text, "\n  There is no short message that it can carry."),
    };
    text
}

/// The name, the value and the meaning of each rule.
pub(super) fn rules(framing: &Framing) -> [(&'static str, String, &'static str); 5] {
    let (oversize, of_oversize) = oversize(framing.oversize);
    let (malformed, of_malformed) = malformed(framing.malformed);
    let (partial, of_partial) = partial(framing.partial);
    let timeout = framing.timeout.map_or("off".to_owned(), |it| it.as_secs_f64().to_string());
    [
        ("max", size(framing.max_frame), "bytes in the largest frame that is received"),
        ("oversize", oversize.to_owned(), of_oversize),
        ("malformed", malformed.to_owned(), of_malformed),
        ("partial", partial.to_owned(), of_partial),
        ("timeout", timeout, "seconds from the first byte of a frame to its last"),
    ]
}

fn oversize(rule: Oversize) -> (&'static str, &'static str) {
    match rule {
        Oversize::Skip => ("skip", "a larger frame is dropped, and the next one is delivered"),
        Oversize::Truncate => ("truncate", "the beginning of a larger frame is delivered"),
        _ => ("close", "a larger frame ends the connection"),
    }
}

fn malformed(rule: Malformed) -> (&'static str, &'static str) {
    match rule {
        Malformed::Skip => ("skip", "bytes that are no frame are dropped, up to the next one"),
        _ => ("close", "bytes that are no frame end the connection"),
    }
}

fn partial(rule: PartialFrame) -> (&'static str, &'static str) {
    match rule {
        PartialFrame::Deliver => {
            ("deliver", "a frame that the end of the stream cuts off is delivered")
        }
        _ => ("report", "a frame that the end of the stream cuts off is an error"),
    }
}

/// A size with the greatest unit that says it exactly.
pub(super) fn size(bytes: usize) -> String {
    let units = [(1 << 30, "G"), (1 << 20, "M"), (1 << 10, "K")];
    match units.iter().find(|(unit, _)| bytes.is_multiple_of(*unit)) {
        Some((unit, letter)) => format!("{}{letter}", bytes / unit),
        None => bytes.to_string(),
    }
}

/// A message, and the frame that it is sent as.
pub(super) struct Example {
    message: Vec<u8>,
    frame: Vec<u8>,
}

impl Example {
    /// That of a message, if it can be one: what is received of its frame. That differs from `message`
    /// where the end or the length is delivered, too.
    pub(super) fn of(framing: &Framing, message: &[u8]) -> Option<Self> {
        let frame = framing.encode(message).ok()?;
        let mut decoder = FrameDecoder::new(framing).ok()?;
        decoder.push(frame.clone());
        let received = decoder.next_frame().ok()??;
        let is_the_same = framing.encode(&received.data).is_ok_and(|again| again == frame);
        let is_whole = received.mark == FrameMark::Whole && is_the_same;
        is_whole.then(|| Self { message: received.data.to_vec(), frame: frame.to_vec() })
    }
}

/// The message, then its frame; the message in hexadecimal where that is easier to read.
impl fmt::Display for Example {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Notation::Text.write(&self.message);
        if text.contains("\\x") {
            write!(f, "0x{} -> {}", hex(&self.message), hex(&self.frame))
        } else {
            write!(f, "{text} -> {}", hex(&self.frame))
        }
    }
}

/// Messages of which one may do.
fn samples(framing: &Framing) -> Vec<Vec<u8>> {
    if let FrameForm::Fixed(len) = framing.form {
        let letters = b"hello, ".iter().copied().cycle();
        return if len > LONGEST { Vec::new() } else { vec![letters.take(len).collect()] };
    }
    let header = match &framing.form {
        FrameForm::Length(prefix) => {
            let header = prefix.offset + prefix.field.size().unwrap_or(0);
            header.saturating_sub(prefix.strip.unwrap_or(header))
        }
        _ => 0,
    };
    let bodies = [&b"hello"[..], b"hi", b"x", b"0", b"\x01", b""];
    bodies.iter().map(|body| [&vec![0; header], *body].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_that_can_carry_something_short_has_an_example() {
        for form in [
            "lines",
            "lines,keep",
            "delim:68",
            "delim:6868",
            "delim:68,keep",
            "block:02:78",
            "fixed:1",
            "fixed:64",
            "len:u8,max=1",
            "len:u16be,offset=4,strip=0",
            "len:u8,offset=3,strip=1",
            "len:u8,strip=9",
            "len:u16be,adjust=-2",
            "len:u8,adjust=3",
            "octets",
            "syslog:lf",
            "cobs",
            "cobs,max=1",
            "slip",
            "block:7e:7e,escape=7d^20",
            "netstring,max=2",
            "modbus-tcp",
        ] {
            let text = text(&form.parse().unwrap(), Notation::Hex);
            assert!(text.contains("  frame      "), "{form}: {text}");
        }
        let text = text(&"fixed:65".parse().unwrap(), Notation::Text);
        assert!(text.contains("no short message"), "{text}");
    }

    #[test]
    fn a_size_is_written_as_the_framing_reads_it() {
        for bytes in [1, 1023, 1024, 1536, 65_536, 1 << 20, 3 << 30, (1 << 30) + 1] {
            let framing: Framing = format!("lines,max={}", size(bytes)).parse().unwrap();
            assert_eq!(framing.max_frame, bytes);
        }
    }
}
