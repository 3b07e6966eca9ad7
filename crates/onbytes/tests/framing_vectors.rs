//! The same bytes through the decoder, a server and a client come to the same frames: those of the
//! file of vectors, which the program's tests read, too.

mod support;

use onbytes::{
    Bytes, Caller, Client, ClientConfiguration, CloseReason, ErrorKind, FrameDecoder, FrameMark,
    Framing, ListenerConfiguration, Result,
};
use support::{OnBytes, Server, within};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

/// What a stream of bytes comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Outcome {
    /// Each as the file writes it.
    frames: Vec<String>,
    end: &'static str,
    skipped: u64,
}

struct Vector {
    line: &'static str,
    framing: Framing,
    bytes: Vec<u8>,
    expected: Outcome,
}

const ENDS: [&str; 4] = ["end", "too_long", "malformed", "partial"];

fn vectors() -> Vec<Vector> {
    let lines = include_str!("framing_vectors.txt").lines();
    lines.filter(|line| !line.is_empty() && !line.starts_with('#')).map(vector).collect()
}

fn vector(line: &'static str) -> Vector {
    let fields: Vec<_> = line.split(';').map(str::trim).collect();
    let [form, bytes, frames, end] = fields[..] else { panic!("{line}") };
    let (end, skipped) = end.split_once(" x").unwrap_or((end, "0"));
    let expected = Outcome {
        frames: frames.split_whitespace().map(str::to_owned).collect(),
        end: ENDS.into_iter().find(|known| *known == end).expect(line),
        skipped: skipped.parse().expect(line),
    };
    let framing = form.parse().expect(line);
    Vector { line, framing, bytes: unhex(bytes), expected }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn written(data: &[u8], mark: FrameMark) -> String {
    let hex = match data {
        [] => "-".to_owned(),
        data => data.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    let mark = match mark {
        FrameMark::Truncated(_) => "*",
        FrameMark::Partial => "~",
        _ => "",
    };
    hex + mark
}

fn end_of(reason: CloseReason) -> &'static str {
    match reason {
        CloseReason::PeerClosed => "end",
        CloseReason::FrameTooLong => "too_long",
        CloseReason::FrameMalformed => "malformed",
        CloseReason::PartialFrame => "partial",
        other => panic!("ended by {other}"),
    }
}

/// What a message of a fault is about.
fn end_told(error: &onbytes::Error) -> &'static str {
    assert_eq!(error.kind(), ErrorKind::Frame, "{error}");
    let text = error.to_string();
    match () {
        () if text.contains("is the most") => "too_long",
        () if text.contains("ended within a frame") => "partial",
        () => "malformed",
    }
}

fn decoded(vector: &Vector, piece: usize) -> Outcome {
    let mut decoder = FrameDecoder::new(&vector.framing).unwrap();
    let mut outcome = Outcome { end: "end", ..Outcome::default() };
    let mut last = FrameMark::Whole;
    for piece in vector.bytes.chunks(piece) {
        decoder.push(Bytes::copy_from_slice(piece));
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => outcome.frames.push(written(&frame.data, frame.mark)),
                Ok(None) => break,
                Err(error) => {
                    return Outcome {
                        end: end_told(&error),
                        skipped: decoder.dropped(),
                        ..outcome
                    };
                }
            }
        }
    }
    outcome.skipped = decoder.dropped();
    match decoder.finish() {
        Ok(Some(frame)) => {
            last = frame.mark;
            outcome.frames.push(written(&frame.data, frame.mark));
        }
        Ok(None) => {}
        Err(error) => outcome.end = end_told(&error),
    }
    if last == FrameMark::Partial {
        outcome.end = "partial";
    }
    outcome
}

#[test]
fn a_decoder_finds_the_frames_however_they_are_cut() {
    for vector in vectors() {
        for piece in 1..=vector.bytes.len() {
            assert_eq!(decoded(&vector, piece), vector.expected, "{} in {piece}", vector.line);
        }
    }
}

#[tokio::test]
async fn a_server_delivers_the_frames() {
    for vector in vectors() {
        let (seen, mut frames) = tokio::sync::mpsc::unbounded_channel();
        let script = OnBytes(move |data: Bytes, caller: Caller| {
            let _ = seen.send(written(&data, caller.frame_mark()));
            async { Result::Ok(None) }
        });
        let config = ListenerConfiguration::new().framing(vector.framing.clone());
        let mut server = Server::with(config, script).await;
        let mut peer = server.connect().await;
        for piece in vector.bytes.chunks(5) {
            // The server may have had enough already.
            let _ = peer.stream.write_all(piece).await;
        }
        let _ = peer.stream.shutdown().await;
        let close = server.close().await;
        let mut outcome = Outcome {
            end: end_of(close.reason),
            skipped: close.stats.frames_dropped,
            ..Outcome::default()
        };
        while let Ok(frame) = frames.try_recv() {
            outcome.frames.push(frame);
        }
        assert_eq!(outcome, vector.expected, "{}", vector.line);
    }
}

#[tokio::test]
async fn a_client_reads_the_frames() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for vector in vectors() {
        let config = ClientConfiguration::new().framing(vector.framing.clone());
        let mut client = Client::connect("127.0.0.1", port, config).await.unwrap();
        let mut server = listener.accept().await.unwrap().0;
        server.write_all(&vector.bytes).await.unwrap();
        server.shutdown().await.unwrap();
        let mut outcome = Outcome { end: "end", ..Outcome::default() };
        loop {
            match within("a frame", client.read_bytes()).await {
                Ok(Some(frame)) => {
                    outcome.frames.push(written(&frame, client.frame_mark()));
                    if client.frame_mark() == FrameMark::Partial {
                        outcome.end = "partial";
                    }
                }
                Ok(None) => break,
                Err(error) => break outcome.end = end_told(&error),
            }
        }
        outcome.skipped = client.stats().frames_dropped;
        assert_eq!(outcome, vector.expected, "{}", vector.line);
    }
}
