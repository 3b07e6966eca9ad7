//! Frames: whatever a framing and whatever a stream, its frames are the same however it is cut, and what can be
//! sent comes back.
//!
//! The first line of an input is a framing, as a text; the bytes of the second are the lengths of the pieces, in
//! turn; the rest is the stream.
#![no_main]

use libfuzzer_sys::fuzz_target;
use onbytes::{Bytes, Frame, FrameDecoder, FrameMark, Framing, Result};

fuzz_target!(|data: &[u8]| {
    let Some((text, data)) = split_line(data) else { return };
    let Some((lengths, stream)) = split_line(data) else { return };
    let Some(framing) = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()) else {
        return;
    };
    check_text(&framing);
    check_pieces(&framing, lengths, stream);
    check_sending(&framing, stream, lengths);
});

fn split_line(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = data.iter().position(|byte| *byte == b'\n')?;
    Some((&data[..end], &data[end + 1..]))
}

/// A framing is written as a text that means the same.
fn check_text(framing: &Framing) {
    let text = framing.to_string();
    assert_eq!(text.parse::<Framing>().expect("what was written is read"), *framing, "{text}");
}

/// A stream comes to the same in one piece, in these pieces and byte by byte.
fn check_pieces(framing: &Framing, lengths: &[u8], stream: &[u8]) {
    let Some(whole) = decode(framing, [stream]) else { return };
    for frame in &whole.frames {
        assert!(frame.data.len() <= framing.max_frame, "{framing}: {frame:?}");
    }
    for pieces in [cut(stream, lengths), stream.chunks(1).collect()] {
        let pieces = decode(framing, pieces);
        assert!(
            pieces.as_ref().is_some_and(|pieces| pieces.is_like(&whole)),
            "{framing}: {whole:?} {pieces:?}"
        );
    }
}

/// What can be sent is received, and would be sent as the same frame again.
fn check_sending(framing: &Framing, message: &[u8], lengths: &[u8]) {
    let Ok(frame) = framing.encode(message) else { return };
    if frame.len() > framing.max_frame {
        return;
    }
    let Some(received) = decode(framing, cut(&frame, lengths)) else {
        panic!("{framing}: it can be sent with, and not received");
    };
    let [Frame { data, mark: FrameMark::Whole, .. }] = &received.frames[..] else {
        panic!("{framing}: {message:?} is sent as {frame:?} and received as {received:?}");
    };
    assert_eq!((received.dropped, &received.failure), (0, &None), "{framing}: {message:?}");
    assert_eq!(framing.encode(data).expect("it was sent before"), frame, "{framing}");
}

/// What a stream comes to: its frames, how many were skipped, and what ended it.
#[derive(Debug)]
struct Outcome {
    frames: Vec<Frame>,
    dropped: u64,
    failure: Option<String>,
}

impl Outcome {
    /// What is told of a failure must not depend on pieces, but for how much had come by then, and which byte
    /// of several is named.
    fn is_like(&self, other: &Self) -> bool {
        let kind = |outcome: &Self| {
            let text = outcome.failure.as_deref()?;
            Some(text.chars().filter(|char| !char.is_ascii_hexdigit()).collect::<String>())
        };
        self.frames == other.frames && self.dropped == other.dropped && kind(self) == kind(other)
    }
}

/// Decodes pieces one after the other, and then the end; `None` where the framing has a value that cannot be.
fn decode<'a>(framing: &Framing, pieces: impl IntoIterator<Item = &'a [u8]>) -> Option<Outcome> {
    let mut decoder = FrameDecoder::new(framing).ok()?;
    let mut frames = Vec::new();
    for piece in pieces {
        decoder.push(Bytes::copy_from_slice(piece));
        if let Err(error) = take_all(&mut decoder, &mut frames) {
            let dropped = decoder.dropped();
            return Some(Outcome { frames, dropped, failure: Some(error.to_string()) });
        }
    }
    let dropped = decoder.dropped();
    let last = decoder.finish();
    let failure = last.as_ref().err().map(ToString::to_string);
    frames.extend(last.ok().flatten());
    Some(Outcome { frames, dropped, failure })
}

fn take_all(decoder: &mut FrameDecoder, frames: &mut Vec<Frame>) -> Result<()> {
    while let Some(frame) = decoder.next_frame()? {
        frames.push(frame);
    }
    Ok(())
}

/// Cuts `data` into pieces of these lengths, and what is left.
fn cut<'a>(mut data: &'a [u8], lengths: &[u8]) -> Vec<&'a [u8]> {
    let mut pieces = Vec::new();
    for length in lengths {
        let (piece, rest) = data.split_at(data.len().min(usize::from(*length)));
        pieces.push(piece);
        data = rest;
    }
    pieces.push(data);
    pieces
}
