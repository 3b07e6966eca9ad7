//! What the finding and writing of frames costs by itself, in memory: the CPU time for each frame.
//!
//! ```text
//! cargo build --release -p onbytes-benches
//! target/release/frames --rounds 15
//! ```
//!
//! A stream of frames is copied, 64 KiB at a time and regardless of where frames end, to where a read would
//! have put it, and taken apart from there; `copying alone` is what that takes without any frames in it, for
//! as many bytes as a frame of lines has. Writing puts frames into a buffer that is emptied when it has
//! 64 KiB; `Framing::encode` makes a buffer of its own for each.
//!
//! Rounds are interleaved: every cell once in each, beginning with another one each time. The table shows the
//! medians. Options:
//!
//! - `--rounds N` (default 15), `--milliseconds N` for each cell of a round (default 10)
//! - `--only TEXT`: only the rows whose name contains `TEXT`

use bytes::{Bytes, BytesMut};
use onbytes::{FrameDecoder, Framing};
use onbytes_benches::frames::{self, Frames};
use onbytes_benches::pattern::Pattern;
use onbytes_benches::{cli, host, stats};
use rustix::time::{ClockId, clock_gettime};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::Duration;
use tokio_util::codec::{AnyDelimiterCodec, Decoder, Encoder, LengthDelimitedCodec, LinesCodec};

/// What one read brings.
const READ: usize = 64 * 1024;
/// How many reads one stream has.
const READS: usize = 16;
/// The block of memory that reads go to, as in a listener.
const BLOCK: usize = 256 * 1024;
/// Bytes in a message, for each column.
const SIZES: [usize; 3] = [16, 64, 1024];

fn main() -> ExitCode {
    cli::exit(Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)))
}

struct Options {
    rounds: u64,
    time: Duration,
    only: String,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut rounds, mut milliseconds, mut only) = (15, 10, String::new());
        while let Some(word) = args.next() {
            match word.as_str() {
                "--rounds" => rounds = cli::count(&word, &mut args, 1_000)?,
                "--milliseconds" => milliseconds = cli::count(&word, &mut args, 10_000)?,
                "--only" => only = cli::value(&word, &mut args)?,
                _ => return Err(format!("{word}: unknown argument")),
            }
        }
        Ok(Self { rounds, time: Duration::from_millis(milliseconds), only })
    }
}

/// A stream of frames of one form and size.
struct Wire {
    frames: Frames,
    bytes: Vec<u8>,
    /// Whole frames in it.
    count: u64,
    /// A message like those in it.
    message: Vec<u8>,
}

impl Wire {
    fn new(frames: Frames, size: usize) -> Self {
        let pattern = Pattern::framed(frames, size);
        let position = |read: usize| (read * READ) as u64;
        let bytes = (0..READS).flat_map(|read| pattern.run(0, position(read), READ)).copied();
        let bytes: Vec<u8> = bytes.collect();
        let count = (bytes.len() / frames.wire_len(size)) as u64;
        let message = frames.first(&bytes).map_or_else(Vec::new, |(first, _)| first.to_vec());
        Self { frames, bytes, count, message }
    }

    fn reads(&self) -> impl Iterator<Item = &[u8]> {
        self.bytes.chunks(READ)
    }

    fn framing(&self) -> Framing {
        self.frames.text().parse().expect("onbytes knows the form")
    }
}

/// Deals with a stream once; returns how many frames that were.
type Action = fn(&Wire) -> u64;

/// A row of the table.
struct Row {
    name: &'static str,
    frames: Frames,
    action: Action,
}

const fn row(frames: Frames, name: &'static str, action: Action) -> Row {
    Row { name, frames, action }
}

const ROWS: &[Row] = &[
    row(Frames::Lines, "copying alone", copy),
    row(Frames::Lines, "read lines: by hand", |wire| read_by_hand(wire, frames::first_line)),
    row(Frames::Lines, "read lines: onbytes", read_with_onbytes),
    row(Frames::Lines, "read lines: AnyDelimiterCodec", |wire| {
        read_with_codec(wire, AnyDelimiterCodec::new(b"\n".to_vec(), b"\n".to_vec()))
    }),
    row(Frames::Lines, "read lines: LinesCodec", |wire| read_with_codec(wire, LinesCodec::new())),
    row(Frames::Length, "read len:u16be: by hand", |wire| read_by_hand(wire, frames::first_length)),
    row(Frames::Length, "read len:u16be: onbytes", read_with_onbytes),
    row(Frames::Length, "read len:u16be: LengthDelimitedCodec", |wire| {
        read_with_codec(wire, length_codec())
    }),
    row(Frames::Mllp, "read mllp: by hand", |wire| read_by_hand(wire, frames::first_block)),
    row(Frames::Mllp, "read mllp: onbytes", read_with_onbytes),
    row(Frames::Varint, "read len:varint: by hand", |wire| {
        read_by_hand(wire, frames::first_varint)
    }),
    row(Frames::Varint, "read len:varint: onbytes", read_with_onbytes),
    row(Frames::Lines, "write lines: by hand", |wire| write_by_hand(wire, frames::write_line)),
    row(Frames::Lines, "write lines: Framing::encode", write_with_onbytes),
    row(Frames::Lines, "write lines: LinesCodec", |wire| {
        let text = std::str::from_utf8(&wire.message).expect("messages are text");
        write_with_codec(wire, LinesCodec::new(), || text)
    }),
    row(Frames::Length, "write len:u16be: by hand", |wire| {
        write_by_hand(wire, frames::write_length)
    }),
    row(Frames::Length, "write len:u16be: Framing::encode", write_with_onbytes),
    row(Frames::Length, "write len:u16be: LengthDelimitedCodec", |wire| {
        let message = Bytes::copy_from_slice(&wire.message);
        write_with_codec(wire, length_codec(), || message.clone())
    }),
    row(Frames::Mllp, "write mllp: by hand", |wire| write_by_hand(wire, frames::write_block)),
    row(Frames::Mllp, "write mllp: Framing::encode", write_with_onbytes),
    row(Frames::Varint, "write len:varint: by hand", |wire| {
        write_by_hand(wire, frames::write_varint)
    }),
    row(Frames::Varint, "write len:varint: Framing::encode", write_with_onbytes),
];

fn length_codec() -> LengthDelimitedCodec {
    LengthDelimitedCodec::builder().length_field_type::<u16>().new_codec()
}

// ---- Reading ----

/// Looks at a message, as little as one can.
#[inline]
fn see(message: &[u8]) {
    black_box((message.first(), message.len()));
}

fn copy(wire: &Wire) -> u64 {
    let mut buffer = vec![0; READ];
    for read in wire.reads() {
        buffer.copy_from_slice(read);
        see(&buffer);
    }
    wire.count
}

/// As in `epoll-framed-echo`: in one buffer, in which the beginning of a frame moves to the front.
fn read_by_hand(wire: &Wire, first: impl Fn(&[u8]) -> Option<(&[u8], usize)>) -> u64 {
    let mut buffer = vec![0; 2 * READ];
    let (mut begun, mut count) = (0, 0);
    for read in wire.reads() {
        let end = begun + read.len();
        buffer[begun..end].copy_from_slice(read);
        let mut start = 0;
        while let Some((message, taken)) = first(&buffer[start..end]) {
            see(message);
            count += 1;
            start += taken;
        }
        buffer.copy_within(start..end, 0);
        begun = end - start;
    }
    count
}

/// As a connection does: what was read is split off a block, which is used again when nothing of it is kept.
fn read_with_onbytes(wire: &Wire) -> u64 {
    let mut decoder = FrameDecoder::new(&wire.framing()).expect("the framing is sound");
    let mut block = BytesMut::with_capacity(BLOCK);
    let mut count = 0;
    for read in wire.reads() {
        if !block.try_reclaim(BLOCK) {
            block = BytesMut::with_capacity(BLOCK);
        }
        block.extend_from_slice(read);
        decoder.push(block.split().freeze());
        while let Some(frame) = decoder.next_frame().expect("all frames are sound") {
            see(&frame.data);
            count += 1;
        }
    }
    count
}

fn read_with_codec<C: Decoder<Item: AsRef<[u8]>>>(wire: &Wire, mut codec: C) -> u64 {
    let mut buffer = BytesMut::with_capacity(BLOCK);
    let mut count = 0;
    for read in wire.reads() {
        buffer.extend_from_slice(read);
        while let Ok(Some(frame)) = codec.decode(&mut buffer) {
            see(frame.as_ref());
            count += 1;
        }
    }
    count
}

// ---- Writing ----

fn write_by_hand(wire: &Wire, write: impl Fn(&[u8], &mut Vec<u8>)) -> u64 {
    let mut out = Vec::with_capacity(2 * READ);
    for _ in 0..wire.count {
        write(black_box(&wire.message), &mut out);
        if out.len() >= READ {
            see(&out);
            out.clear();
        }
    }
    wire.count
}

fn write_with_onbytes(wire: &Wire) -> u64 {
    let framing = wire.framing();
    for _ in 0..wire.count {
        see(&framing.encode(black_box(&wire.message)).expect("the message can be sent"));
    }
    wire.count
}

fn write_with_codec<M, C: Encoder<M>>(wire: &Wire, mut codec: C, message: impl Fn() -> M) -> u64 {
    let mut out = BytesMut::with_capacity(2 * READ);
    for _ in 0..wire.count {
        if codec.encode(black_box(message()), &mut out).is_err() {
            return 0;
        }
        if out.len() >= READ {
            see(&out);
            out.clear();
        }
    }
    wire.count
}

// ---- Measuring ----

fn run(options: &Options) -> Result<(), String> {
    let rows: Vec<_> = ROWS.iter().filter(|row| row.name.contains(&options.only)).collect();
    if rows.is_empty() {
        return Err(format!("no row has {} in its name", options.only));
    }
    if cfg!(debug_assertions) {
        eprintln!("This is not a release build: the numbers mean little.");
    }
    let cells: Vec<(Action, Wire)> = rows
        .iter()
        .flat_map(|row| SIZES.map(|size| (row.action, Wire::new(row.frames, size))))
        .collect();
    let mut samples = vec![Vec::new(); cells.len()];
    for round in 0..options.rounds as usize {
        for place in 0..cells.len() {
            // Another one is the first in each round.
            let cell = (place + round) % cells.len();
            let (action, wire) = &cells[cell];
            samples[cell].push(measure(*action, wire, options.time)?);
        }
    }
    print_table(options, &rows, &samples);
    Ok(())
}

/// Repeats an action for a while; returns the nanoseconds for each frame.
fn measure(action: Action, wire: &Wire, time: Duration) -> Result<f64, String> {
    let start = cpu_time();
    let mut count = 0;
    loop {
        let dealt_with = action(wire);
        if dealt_with != wire.count {
            return Err(format!("{} frames of {}: {dealt_with}", wire.count, wire.frames));
        }
        count += dealt_with;
        let used = cpu_time() - start;
        if used >= time {
            return Ok(used.as_nanos() as f64 / count as f64);
        }
    }
}

/// The CPU time of this thread.
fn cpu_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn print_table(options: &Options, rows: &[&Row], samples: &[Vec<f64>]) {
    let (kernel, cpu, rounds) = (host::kernel(), host::cpu_model(), options.rounds);
    println!("Linux {kernel}, {cpu}, {rounds} rounds of {:?} per cell\n", options.time);
    println!(
        "| CPU for each frame: median, ns (millions per second) | {} |",
        SIZES.map(|size| format!("{size} B")).join(" | ")
    );
    println!("|---|{}", "---:|".repeat(SIZES.len()));
    for (row, cells) in rows.iter().zip(samples.chunks(SIZES.len())) {
        let cells: Vec<_> = cells
            .iter()
            .map(|rounds| stats::median(rounds))
            .map(|median| format!("{median:.1} ({:.1})", 1_000.0 / median))
            .collect();
        println!("| {} | {} |", row.name, cells.join(" | "));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_finds_or_writes_every_frame() {
        for row in ROWS {
            for size in SIZES {
                let wire = Wire::new(row.frames, size);
                assert_eq!((row.action)(&wire), wire.count, "{}", row.name);
            }
        }
    }
}
