//! The command line: what can be asked for.

use std::ffi::OsString;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use onbytes::{Endpoint, Framing};

use crate::bench::BenchArgs;
use crate::bounds::{LimitArgs, SocketArgs, TimeoutArgs};
use crate::certs::CertsArgs;
use crate::failure::Failure;
use crate::framing::{FramingArgs, framing};
use crate::mistake;
use crate::notation::Notation;
use crate::tls::{ClientTls, ServerTls};
use crate::values::{Limit, address, count, host, limit, port, workers};

/// What the command line asks for.
pub(crate) enum Request {
    Serve(Box<ServeArgs>),
    Connect(Box<ConnectArgs>),
    Bench(Box<BenchArgs>),
    Framing(Box<FramingArgs>),
    Certs(CertsArgs),
    /// The help or the version.
    Show(clap::Error),
}

/// Reads the command line, the program's name first.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Request, Failure> {
    let args = mistake::all_utf8(args)?;
    let error = match Cli::try_parse_from(&args) {
        Ok(Cli { command: Command::Serve(args) }) => return Ok(Request::Serve(args)),
        Ok(Cli { command: Command::Connect(args) }) => return Ok(Request::Connect(args)),
        Ok(Cli { command: Command::Bench(args) }) => return Ok(Request::Bench(args)),
        Ok(Cli { command: Command::Framing(args) }) => return Ok(Request::Framing(args)),
        Ok(Cli { command: Command::Certs(args) }) => return Ok(Request::Certs(args)),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Request::Show(error)),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = Cli::command().print_help();
            Err(Failure::usage("no command is given; give serve, connect, bench, framing or certs"))
        }
        _ => Err(mistake::told(&error, &args)),
    }
}

/// TCP servers, a TCP client and a load generator at the command line
#[derive(Debug, Parser)]
#[command(
    name = "onbytes",
    version,
    arg_required_else_help = true,
    after_help = "\
Try it:
  onbytes serve echo              in one terminal; Ctrl-C stops it
  onbytes connect 127.0.0.1 3000  in another; type a line, and it comes back
  onbytes bench 127.0.0.1 3000    how many messages it takes, and how long each takes to come back
  onbytes framing                 how messages are told apart: mllp, iso8583, lines, len:u16be, ...

`onbytes COMMAND --help` tells everything of a command: serve, connect, bench, framing or certs."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<ServeArgs>),
    Connect(Box<ConnectArgs>),
    Bench(Box<BenchArgs>),
    Framing(Box<FramingArgs>),
    Certs(CertsArgs),
}

/// Run a TCP server: echo, discard or chat
///
/// When it is ready its first line on stdout says where: `listening on 127.0.0.1:3000`. Ctrl-C
/// (SIGINT) or SIGTERM stops it gracefully: it accepts nothing more, and connections finish what
/// they are at. A second signal stops it at once. With TLS, SIGHUP makes it read its certificates,
/// keys and lists again: new connections get the new ones; a bad file changes nothing and is logged.
/// Without TLS, SIGHUP ends it at once.
#[derive(Debug, Args)]
#[command(after_help = "\
Chat:
  All members get the same lines in the same order; nobody is told who joins or leaves.
  A line ends with LF or CR LF, or with its sender's end (FIN). Whoever sends one of more than
  8 KiB is told so and disconnected; whoever does not read is reset once the queue is full.
  Control characters other than tab, and bytes that are not UTF-8, show as U+FFFD.

Examples:
  onbytes serve echo
      then in another terminal: onbytes connect 127.0.0.1 3000   (or: nc 127.0.0.1 3000)
  onbytes serve chat --listen 0.0.0.0:4000 --idle-timeout 600
      then, for each member: onbytes connect HOST 4000
  onbytes serve discard --listen '[::1]:0' --max-connections 100 --when-full refuse
  onbytes serve echo --framing mllp
      whole frames, each sent back as one: onbytes connect --framing mllp 127.0.0.1 3000
  onbytes certs --out certs       makes certificates for trying TLS, and says what to type then

Exit status: 0 after a stop by signal, 1 if a file cannot be used, or the port cannot be had or is
lost, 2 if the command line is wrong.")]
pub(crate) struct ServeArgs {
    /// What to do with the bytes that arrive
    pub(crate) service: ServiceName,

    /// Where to listen: HOST:PORT, [IPV6]:PORT, or PORT for all interfaces; port 0 picks a free one
    #[arg(
        long, value_name = "ADDRESS", default_value = "127.0.0.1:3000",
        value_parser = address, allow_negative_numbers = true, help_heading = "Listening"
    )]
    pub(crate) listen: Endpoint,

    /// Callers that may wait to be accepted; the system may allow fewer
    #[arg(
        long, value_name = "N", default_value = "1024",
        value_parser = count(1..=i32::MAX as usize), allow_negative_numbers = true,
        help_heading = "Listening"
    )]
    pub(crate) backlog: usize,

    /// Threads that serve connections, 1 to 1024, or auto for one on each core
    #[arg(
        long, value_name = "N", default_value = "1",
        value_parser = workers, allow_negative_numbers = true, help_heading = "Listening"
    )]
    pub(crate) workers: usize,

    /// What several workers have in common
    #[arg(long, value_name = "MODEL", default_value = "own", help_heading = "Listening")]
    pub(crate) worker_model: WorkerModel,

    /// Keep a connection open for sending after the peer has ended its side (FIN), until the peer
    /// is gone or a time limit ends it [default: send what is due, then close]
    #[arg(long, help_heading = "Listening")]
    pub(crate) half_open: bool,

    /// Take and send whole frames of this form, such as mllp, lines or len:u16be, for echo and
    /// discard; `onbytes framing` lists the forms [default: bytes as they come]
    #[arg(long, value_name = "FORM", value_parser = framing, help_heading = "Listening")]
    pub(crate) framing: Option<Framing>,

    #[command(flatten)]
    pub(crate) limits: LimitArgs,

    #[command(flatten)]
    pub(crate) timeouts: TimeoutArgs,

    #[command(flatten)]
    pub(crate) socket: SocketArgs,

    /// How log lines look. They go to stderr; the environment variable RUST_LOG chooses which:
    /// error, warn, info (the default), debug (each connection) or trace
    #[arg(long, value_name = "FORMAT", default_value = "text", help_heading = "Logging")]
    pub(crate) log_format: LogFormat,

    #[command(flatten)]
    pub(crate) tls: ServerTls,
}

/// Connect to a TCP server: stdin goes there, what it sends goes to stdout
///
/// At the end of stdin it ends its side of the connection (FIN) and goes on printing until the
/// server ends its own. When the server ends first, it is over at once.
///
/// With --framing each line of stdin is one frame, and each frame that comes is printed as one line,
/// so that what is printed can be piped in again. In text \r, \n, \t, \\ and \xNN stand for what would
/// break a line or a terminal; --show hex makes lines hexadecimal.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  onbytes connect 127.0.0.1 3000
  printf 'hello\\n' | onbytes connect localhost 3000
  onbytes connect --timeout 5 ::1 3000 < request > reply
  onbytes connect --framing mllp 127.0.0.1 3000
  printf '00ff 10\\n' | onbytes connect --framing len:u16be --show hex 127.0.0.1 3000
  onbytes connect --tls example.org 443
  onbytes connect --tls --cert certs/cert.pem localhost 3000

Exit status: 0 when the server has ended the connection in order, 1 if connecting or the
connection failed, or with --framing if a line or what the server sends is no frame, 2 if the
command line is wrong, 130 after Ctrl-C.")]
pub(crate) struct ConnectArgs {
    /// The server's name or address
    #[arg(value_parser = host)]
    pub(crate) host: String,

    /// The server's port, 1 to 65535
    #[arg(value_parser = port, allow_negative_numbers = true)]
    pub(crate) port: u16,

    /// The longest wait for the connection, look-up included: seconds, or off
    #[arg(
        long, value_name = "SECS", default_value = "30",
        value_parser = limit, allow_negative_numbers = true
    )]
    pub(crate) connect_timeout: Limit,

    /// The longest wait for the server to send something: seconds, or off
    #[arg(
        long, value_name = "SECS", default_value = "off",
        value_parser = limit, allow_negative_numbers = true
    )]
    pub(crate) timeout: Limit,

    /// Give up after so long in which the system took nothing of what is due to the server; its
    /// buffers take megabytes before that: seconds, or off
    #[arg(
        long, value_name = "SECS", default_value = "off",
        value_parser = limit, allow_negative_numbers = true
    )]
    pub(crate) write_timeout: Limit,

    /// The local address, or its name, to connect from [default: the system chooses]
    #[arg(
        long, value_name = "HOST",
        value_parser = host
    )]
    pub(crate) local_host: Option<String>,

    /// Send and print whole frames of this form, one a line, such as mllp, lines or len:u16be;
    /// `onbytes framing` lists the forms [default: bytes as they come]
    #[arg(long, value_name = "FORM", value_parser = framing)]
    pub(crate) framing: Option<Framing>,

    /// How frames are written, on stdin and stdout [default: text]
    #[arg(long, value_name = "HOW")]
    pub(crate) show: Option<Notation>,

    #[command(flatten)]
    pub(crate) socket: SocketArgs,

    #[command(flatten)]
    pub(crate) tls: ClientTls,
}

/// What a server does with its bytes.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum ServiceName {
    /// Send every byte back
    Echo,
    /// Drop every byte
    Discard,
    /// Send each line to every member, its sender too, as `ADDRESS: text`
    Chat,
}

/// What several workers have in common.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum WorkerModel {
    /// Nothing: the system divides new connections between them, and each stays where it is
    Own,
    /// All connections: whichever has time serves one, which costs more for each message; for a few
    /// connections that ask for very different amounts of work
    Shared,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people; coloured on a terminal, unless NO_COLOR is set
    Text,
    /// One JSON object a line
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
