//! The frames in captured bytes, and the places that these have.
//!
//! A decoder tells no places. So it is given one byte at a time, and where a frame comes out, it ends.

use onbytes::{Bytes, FrameDecoder, FrameForm, FrameMark, Framing, OctetCounting};

use crate::notation::Notation;

/// What was found, from the first byte to the last.
pub(super) struct Capture {
    parts: Vec<Part>,
    len: usize,
    /// Why the bytes are not all frames, if they are not.
    pub(super) fault: Option<String>,
}

/// Some bytes that belong together.
struct Part {
    start: usize,
    end: usize,
    what: What,
    /// Of a frame its content, of anything else the bytes themselves.
    data: Bytes,
}

/// What bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Frame(FrameMark),
    /// They belong to no frame.
    Skipped,
    /// A frame that a rule says is not delivered.
    Dropped,
    /// The beginning of a frame.
    LeftOver,
    /// Nothing can be told of them any more.
    Unread,
}

/// The frames in `data`.
pub(super) fn frames_in(framing: &Framing, data: Bytes) -> Capture {
    let len = data.len();
    let mut walk = Walk { form: &framing.form, data, taken: 0, parts: Vec::new() };
    let fault = walk.through(framing).err();
    Capture { parts: walk.parts, len, fault }
}

struct Walk<'a> {
    form: &'a FrameForm,
    data: Bytes,
    /// So many bytes are told of.
    taken: usize,
    parts: Vec<Part>,
}

impl Walk<'_> {
    fn through(&mut self, framing: &Framing) -> Result<(), String> {
        let mut decoder = FrameDecoder::new(framing).map_err(|error| error.to_string())?;
        for place in 0..self.data.len() {
            let dropped = decoder.dropped();
            decoder.push(self.data.slice(place..=place));
            let found = decoder.next_frame();
            if decoder.dropped() > dropped {
                self.note_dropped(place + 1);
            }
            match found {
                Ok(Some(frame)) => self.note(place + 1, What::Frame(frame.mark), frame.data),
                Ok(None) => {}
                Err(error) => {
                    self.note_rest(What::Unread, place);
                    return Err(format!("at byte {place}: {error}"));
                }
            }
        }
        self.end(decoder)
    }

    /// What is behind the last frame.
    fn end(&mut self, decoder: FrameDecoder) -> Result<(), String> {
        match decoder.finish() {
            Ok(Some(frame)) => {
                self.note(self.data.len(), What::Frame(frame.mark), frame.data);
                Ok(())
            }
            Ok(None) => {
                self.skip_to(self.data.len());
                Ok(())
            }
            Err(error) => {
                self.note_rest(What::LeftOver, self.data.len());
                Err(error.to_string())
            }
        }
    }

    /// A frame ends before `end`; what is before it in the bytes at hand belongs to none.
    fn note(&mut self, end: usize, what: What, data: Bytes) {
        self.skip_to(self.taken + outside(self.form, &self.data[self.taken..end]));
        // Behind its end there may be more that belongs to it.
        let end = end + tail(self.form, &self.data[end..]);
        self.parts.push(Part { start: self.taken, end, what, data });
        self.taken = end;
    }

    fn note_dropped(&mut self, end: usize) {
        // Where the start of the next frame has cut it off, that is not a part of it.
        let cut = match self.form {
            FrameForm::Blocks(blocks) if blocks.start != blocks.end => {
                let has_next = self.data[self.taken..end].ends_with(&blocks.start);
                if has_next { blocks.start.len() } else { 0 }
            }
            _ => 0,
        };
        let begins = self.taken + outside(self.form, &self.data[self.taken..end]);
        let data = self.data.slice(begins.min(end - cut)..end - cut);
        self.note(end - cut, What::Dropped, data);
    }

    /// The rest holds no frame; what is before `begun` may be skipped.
    fn note_rest(&mut self, what: What, begun: usize) {
        let end = self.data.len();
        self.skip_to(self.taken + outside(self.form, &self.data[self.taken..begun]));
        let data = self.data.slice(self.taken..);
        self.parts.push(Part { start: self.taken, end, what, data });
        self.taken = end;
    }

    /// What is there before `end` belongs to no frame. Marks that stand between frames are not told of.
    fn skip_to(&mut self, end: usize) {
        let data = self.data.slice(self.taken..end);
        if !data.iter().all(|byte| is_mark(self.form, *byte)) {
            self.parts.push(Part { start: self.taken, end, what: What::Skipped, data });
        }
        self.taken = end;
    }
}

/// How many bytes there are before the frame in `data`.
fn outside(form: &FrameForm, data: &[u8]) -> usize {
    let while_true = |is_outside: &dyn Fn(u8) -> bool| {
        data.iter().position(|byte| !is_outside(*byte)).unwrap_or(data.len())
    };
    match form {
        FrameForm::Blocks(blocks) if blocks.start == blocks.end && blocks.escape.is_some() => {
            while_true(&|byte| is_mark(form, byte))
        }
        FrameForm::Blocks(blocks) => {
            let mut places = data.windows(blocks.start.len());
            places.position(|place| place == blocks.start).unwrap_or(data.len())
        }
        FrameForm::OctetCounting(OctetCounting { detect_lines: true, .. }) => {
            while_true(&|byte| matches!(byte, b'\r' | b'\n'))
        }
        FrameForm::Cobs | FrameForm::Slip => while_true(&|byte| is_mark(form, byte)),
        _ => 0,
    }
}

/// Whether a byte is one that stands between frames by rights.
fn is_mark(form: &FrameForm, byte: u8) -> bool {
    /// SLIP's mark (RFC 1055).
    const END: u8 = 0xC0;
    match form {
        FrameForm::Cobs => byte == 0,
        FrameForm::Slip => byte == END,
        FrameForm::Blocks(blocks) => {
            blocks.start == blocks.end && blocks.escape.is_some() && blocks.start == [byte]
        }
        _ => false,
    }
}

/// How much of what may follow a frame `rest` begins with, up to where the next frame begins.
fn tail(form: &FrameForm, rest: &[u8]) -> usize {
    match form {
        FrameForm::Blocks(blocks) if blocks.start != blocks.end => {
            let same = rest.iter().zip(&blocks.tail).take_while(|(one, other)| one == other);
            same.count().min(outside(form, rest))
        }
        _ => 0,
    }
}

impl Capture {
    /// One line for each part.
    pub(super) fn text(&self, notation: Notation) -> String {
        let width = self.len.to_string().len();
        let line = |part: &Part| {
            let Part { start, end, .. } = part;
            let what = part.what.word();
            format!("{start:>width$} {end:>width$}  {what:<9}  {}\n", part.shown(notation))
        };
        self.parts.iter().map(line).collect()
    }
}

impl What {
    fn word(self) -> &'static str {
        match self {
            Self::Frame(FrameMark::Truncated(_)) => "truncated",
            Self::Frame(FrameMark::Partial) => "partial",
            Self::Frame(_) => "frame",
            Self::Skipped => "skipped",
            Self::Dropped => "dropped",
            Self::LeftOver => "left over",
            Self::Unread => "not read",
        }
    }
}

impl Part {
    /// The most bytes that are shown of what is no frame.
    const MOST: usize = 64;

    fn shown(&self, notation: Notation) -> String {
        let len = self.data.len();
        if matches!(self.what, What::Frame(_)) || len <= Self::MOST {
            return notation.write(&self.data);
        }
        format!("{}… ({len} bytes)", notation.write(&self.data[..Self::MOST]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All frames that a decoder finds in `data`, and whether that went well.
    fn decoded(framing: &Framing, data: &[u8]) -> (Vec<Bytes>, bool) {
        let mut decoder = FrameDecoder::new(framing).unwrap();
        decoder.push(data.to_vec());
        let mut frames = Vec::new();
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => frames.push(frame.data),
                Ok(None) => break,
                Err(_) => return (frames, false),
            }
        }
        match decoder.finish() {
            Ok(last) => {
                frames.extend(last.map(|frame| frame.data));
                (frames, true)
            }
            Err(_) => (frames, false),
        }
    }

    #[track_caller]
    fn assert_told_as_it_is(framing: &Framing, data: &[u8]) {
        let found = frames_in(framing, data.to_vec().into());
        let is_frame = |part: &&Part| matches!(part.what, What::Frame(_));
        let frames: Vec<_> =
            found.parts.iter().filter(is_frame).map(|part| part.data.clone()).collect();
        let is_well = found.fault.is_none();
        assert_eq!((frames, is_well), decoded(framing, data), "{framing} {data:02x?}");
        let mut told = 0;
        for part in &found.parts {
            let between = &data[told..part.start];
            assert!(
                between.iter().all(|byte| is_mark(&framing.form, *byte)),
                "{framing} {data:02x?}"
            );
            assert!(part.start < part.end, "{framing} {data:02x?}");
            told = part.end;
            if matches!(part.what, What::Frame(_)) {
                // Its bytes are those of this frame and of nothing else.
                let (frames, _) = decoded(framing, &data[part.start..part.end]);
                assert_eq!(frames, std::slice::from_ref(&part.data), "{framing} {data:02x?}");
            }
        }
        assert!(
            data[told..].iter().all(|byte| is_mark(&framing.form, *byte)),
            "{framing} {data:02x?}"
        );
    }

    /// Bytes out of `alphabet` that look like no order, and are the same each time.
    fn scattered(alphabet: &[u8], len: usize, state: &mut u64) -> Vec<u8> {
        let mut next = || {
            *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            alphabet[(*state >> 33) as usize % alphabet.len()]
        };
        (0..len).map(|_| next()).collect()
    }

    #[test]
    fn places_hold_the_frames_that_are_there_whatever_comes() {
        for (form, alphabet) in [
            ("mllp", &b"\x0b\x1c\x0dab"[..]),
            ("mllp,partial=deliver", b"\x0b\x1c\x0da"),
            ("block:0203:03,tail=0d0a", b"\x02\x03\x0d\x0aa"),
            ("block:02:03,outside=malformed,tail=0d", b"\x02\x03\x0d"),
            ("block:02:03,escape=1b,malformed=skip", b"\x02\x03\x1ba"),
            ("block:02:03,escape=1b,tail=0d0d,malformed=skip", b"\x02\x03\x1b\x0d"),
            ("block:1002:1003,escape=10,malformed=skip", b"\x10\x02\x03a"),
            ("block:1002:1003,escape=10", b"\x10\x02\x03a"),
            ("block:7e:7e,escape=7d^20,malformed=skip", b"\x7e\x7d\x5ea"),
            ("slip", b"\xc0\xdb\xdca"),
            ("slip,malformed=skip,max=2,oversize=skip", b"\xc0\xdb\xdca"),
            ("cobs,malformed=skip,max=2,oversize=truncate", b"\0\x01\x02\x03a"),
            ("syslog", b"12 \r\na"),
            ("octets", b"12 a"),
            ("netstring", b"12:,"),
            ("lines,max=2,oversize=skip", b"\r\na"),
            ("lines,keep", b"\r\na"),
            ("delim:0d0a", b"\r\na"),
            ("fixed:3,partial=deliver", b"a"),
            ("len:u8,max=3,oversize=skip", b"\0\x01\x02\x04a"),
            ("len:u8,offset=1,strip=0,adjust=-1", b"\0\x01\x02\x04a"),
            ("len:varint,partial=deliver", b"\0\x01\x02\x80"),
        ] {
            let framing: Framing = form.parse().unwrap();
            let mut state = 7;
            for len in (0..12).cycle().take(3000) {
                assert_told_as_it_is(&framing, &scattered(alphabet, len, &mut state));
            }
        }
    }

    #[test]
    fn a_tail_that_looks_like_a_part_of_a_frame_confuses_but_does_no_harm() {
        let mut state = 7;
        for form in ["block:0241:03,tail=4103", "block:02:0303,tail=03"] {
            let framing: Framing = form.parse().unwrap();
            for len in (0..12).cycle().take(3000) {
                let data = scattered(b"\x02\x03A", len, &mut state);
                let found = frames_in(&framing, data.into());
                assert!(found.parts.is_sorted_by_key(|part| part.start), "{form}");
            }
        }
    }
}
