//! What can be asked of `onbytes bench`.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use onbytes::Framing;

use super::content::Expect;
use crate::bounds::SocketArgs;
use crate::framing::framing;
use crate::tls::ClientTls;
use crate::values::{count, deadline, host, per_second, port, refused, size, time};

/// The most connections that a number is taken for.
const MOST_CONNECTIONS: usize = 1_000_000;

/// The most messages under way on a connection.
const DEEPEST: usize = 65_536;

/// The largest message.
const LARGEST: usize = 256 << 20;

/// Measure a TCP server: how many messages it takes, and how long each takes to come back
///
/// Each connection sends a message, waits until all of it has come back, compares every byte, and sends the
/// next (a closed loop). With --rate messages are due at fixed times, whether or not replies have come (an
/// open loop), and their latency counts from the time at which they were due: a server that stalls
/// shows, with every message that was due meanwhile.
///
/// The report goes to stdout. On a terminal a line on stderr tells how it goes.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  onbytes bench 127.0.0.1 3000                        50 connections, 64 bytes, 10 seconds
  onbytes bench 127.0.0.1 3000 --size 1M --connections 8
  onbytes bench 127.0.0.1 3000 --rate 20000 --plot latency.svg
  onbytes bench localhost 3000 --tls --cert certs/cert.pem --churn
  onbytes bench 127.0.0.1 2575 --framing mllp --payload @adt.hl7 --expect frame
  onbytes bench 127.0.0.1 3000 --messages 100000 --json | jq .latency_ns.p99
      a server to try it with, in another terminal: onbytes serve echo

Exit status: 0 when every message was answered as it had to be, 1 if there was an error or no
reply, or the server cannot be reached, 2 if the command line is wrong.")]
pub(crate) struct BenchArgs {
    /// The server's name or address
    #[arg(value_parser = host)]
    pub(super) host: String,

    /// The server's port, 1 to 65535
    #[arg(value_parser = port, allow_negative_numbers = true)]
    pub(super) port: u16,

    #[command(flatten)]
    pub(super) load: LoadArgs,

    #[command(flatten)]
    pub(super) messages: MessageArgs,

    #[command(flatten)]
    pub(super) output: OutputArgs,

    #[command(flatten)]
    pub(super) socket: SocketArgs,

    #[command(flatten)]
    pub(super) tls: ClientTls,

    /// Do not resume TLS sessions: every handshake is a full one
    #[arg(long, help_heading = "TLS")]
    pub(super) no_resumption: bool,
}

/// How much, and for how long.
#[derive(Debug, Args)]
#[command(next_help_heading = "Load")]
pub(super) struct LoadArgs {
    /// Connections at a time
    #[arg(
        long, value_name = "N", default_value = "50",
        value_parser = count(1..=MOST_CONNECTIONS), allow_negative_numbers = true
    )]
    pub(super) connections: usize,

    /// Messages under way on each connection; those that may leave at once are written together
    #[arg(
        long, value_name = "N", default_value = "1",
        value_parser = count(1..=DEEPEST), allow_negative_numbers = true
    )]
    pub(super) depth: usize,

    /// How long messages are counted: seconds [default: 10, or with --messages until all are sent]
    #[arg(long, value_name = "SECS", value_parser = time, allow_negative_numbers = true)]
    pub(super) duration: Option<Duration>,

    /// How many messages are counted, of all connections together [default: as many as fit in the time]
    #[arg(
        long, value_name = "N",
        value_parser = count(1..=u32::MAX as usize), allow_negative_numbers = true
    )]
    pub(super) messages: Option<usize>,

    /// How long messages go out before they are counted: seconds; 0 for not at all
    #[arg(
        long, value_name = "SECS", default_value = "1",
        value_parser = deadline, allow_negative_numbers = true
    )]
    pub(super) warmup: Duration,

    /// Send so many messages a second, over all connections, at fixed times; those that cannot leave in
    /// time wait for their turn [default: the next as soon as a reply has come]
    #[arg(long, value_name = "RATE", value_parser = per_second, allow_negative_numbers = true)]
    pub(super) rate: Option<f64>,

    /// A new connection for each message: connect, shake hands, send, receive, close; latency has all of
    /// it, and --connections is how many do so at a time
    #[arg(long)]
    pub(super) churn: bool,

    /// Threads, each with its share of the connections, at most two for each core
    #[arg(
        long, value_name = "N", default_value = "1",
        value_parser = count(1..=1024), allow_negative_numbers = true
    )]
    pub(super) threads: usize,

    /// The longest wait for a connection, and for something to come while a reply is due: seconds. So long
    /// the last replies are waited for, too
    #[arg(
        long, value_name = "SECS", default_value = "5",
        value_parser = time, allow_negative_numbers = true
    )]
    pub(super) timeout: Duration,
}

/// What is sent, and what has to come back.
#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
pub(super) struct MessageArgs {
    /// The length of a message, without what makes a frame of it: bytes [default: 64]
    #[arg(
        long, value_name = "BYTES",
        value_parser = size(1..=LARGEST), allow_negative_numbers = true
    )]
    pub(super) size: Option<usize>,

    /// The message, again and again: text, in which \r, \n, \t, \\ and \xNN are bytes, or @FILE
    /// [default: generated, and different on each connection and each time]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub(super) payload: Option<String>,

    /// Each message is one frame of this form, such as mllp, lines or len:u16be; `onbytes framing` lists
    /// the forms [default: bytes without borders]
    #[arg(long, value_name = "FORM", value_parser = framing)]
    pub(super) framing: Option<Framing>,

    /// What counts as a reply
    #[arg(long, value_name = "WHAT", default_value = "echo")]
    pub(super) expect: Expect,
}

/// How the result is told.
#[derive(Debug, Args)]
#[command(next_help_heading = "Report")]
pub(super) struct OutputArgs {
    /// Print one JSON object in the place of the table
    #[arg(long)]
    pub(super) json: bool,

    /// Write a picture of latency by percentile: an SVG file
    #[arg(long, value_name = "FILE.svg", value_parser = file)]
    pub(super) plot: Option<PathBuf>,

    /// Draw the curve below the table also where stdout is no terminal
    #[arg(long)]
    pub(super) text_plot: bool,

    /// Do not draw the curve below the table
    #[arg(long)]
    pub(super) no_plot: bool,
}

fn file(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() || text.contains('\0') {
        return refused(text, "a file, such as latency.svg");
    }
    Ok(text.into())
}
