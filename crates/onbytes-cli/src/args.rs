//! The command line: what can be asked for.

use std::ffi::OsString;
use std::ops::RangeInclusive;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use onbytes::{Endpoint, Listener, ListenerConfiguration};

use crate::certs::CertsArgs;
use crate::failure::{Failure, shown};
use crate::mistake;
use crate::tls::{ClientTls, ServerTls};

/// What the command line asks for.
pub(crate) enum Request {
    Serve(Box<ServeArgs>),
    Connect(Box<ConnectArgs>),
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
        Ok(Cli { command: Command::Certs(args) }) => return Ok(Request::Certs(args)),
        Err(error) => error,
    };
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Ok(Request::Show(error)),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = Cli::command().print_help();
            Err(Failure::usage("no command is given; give serve, connect or certs"))
        }
        _ => Err(mistake::told(&error, &args)),
    }
}

/// TCP servers and a TCP client at the command line
#[derive(Debug, Parser)]
#[command(
    name = "onbytes",
    version,
    arg_required_else_help = true,
    after_help = "\
Try it:
  onbytes serve echo              in one terminal; Ctrl-C stops it
  onbytes connect 127.0.0.1 3000  in another; type a line, and it comes back

`onbytes serve --help`, `onbytes connect --help` and `onbytes certs --help` tell everything."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Serve(Box<ServeArgs>),
    Connect(Box<ConnectArgs>),
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

    /// Threads that serve connections, 1 to 1024
    #[arg(
        long, value_name = "N", default_value = "1",
        value_parser = count(1..=1024), allow_negative_numbers = true, help_heading = "Listening"
    )]
    pub(crate) workers: usize,

    /// Connections at once [default: what the limit of open files, `ulimit -n`, leaves room for]
    #[arg(
        long, value_name = "N",
        value_parser = count(1..=u32::MAX as usize), allow_negative_numbers = true,
        help_heading = "Limits"
    )]
    pub(crate) max_connections: Option<usize>,

    /// TLS handshakes at once; when there are more, the oldest gives way [default: 256 for each core]
    #[arg(
        long, value_name = "N",
        value_parser = count(1..=u32::MAX as usize), allow_negative_numbers = true,
        help_heading = "Limits"
    )]
    pub(crate) max_handshakes: Option<usize>,

    /// What becomes of callers beyond --max-connections
    #[arg(long, value_name = "WHAT", default_value = "queue", help_heading = "Limits")]
    pub(crate) when_full: WhenFull,

    /// Keep a connection open for sending after the peer has ended its side (FIN), until the peer
    /// is gone or a time limit ends it [default: send what is due, then close]
    #[arg(long, help_heading = "Limits")]
    pub(crate) half_open: bool,

    /// Close a connection after so long without a byte from the peer: seconds, or off
    #[arg(
        long, value_name = "SECS", default_value = "off",
        value_parser = limit, allow_negative_numbers = true, help_heading = "Timeouts"
    )]
    pub(crate) idle_timeout: Limit,

    /// Reset a connection after so long in which the peer took none of what is due to it: seconds,
    /// or off
    #[arg(
        long, value_name = "SECS", default_value = "30",
        value_parser = limit, allow_negative_numbers = true, help_heading = "Timeouts"
    )]
    pub(crate) write_timeout: Limit,

    /// Close a connection at this age, whatever it does: seconds, or off
    #[arg(
        long, value_name = "SECS", default_value = "off",
        value_parser = limit, allow_negative_numbers = true, help_heading = "Timeouts"
    )]
    pub(crate) max_lifetime: Limit,

    /// Probe a silent peer after so long (TCP keep-alive): seconds, 1 to 32767, or off
    #[arg(
        long, value_name = "SECS", default_value = "60",
        value_parser = keep_alive, allow_negative_numbers = true, help_heading = "Timeouts"
    )]
    pub(crate) keep_alive: Limit,

    /// The time that connections have to finish after the first signal: seconds; 0 for none
    #[arg(
        long, value_name = "SECS", default_value = "30",
        value_parser = deadline, allow_negative_numbers = true, help_heading = "Timeouts"
    )]
    pub(crate) shutdown_timeout: Duration,

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
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  onbytes connect 127.0.0.1 3000
  printf 'hello\\n' | onbytes connect localhost 3000
  onbytes connect --timeout 5 ::1 3000 < request > reply
  onbytes connect --tls example.org 443
  onbytes connect --tls --cert certs/cert.pem localhost 3000

Exit status: 0 when the server has ended the connection in order, 1 if connecting or the
connection failed, 2 if the command line is wrong, 130 after Ctrl-C.")]
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

    /// The local address, or its name, to connect from [default: the system chooses]
    #[arg(
        long, value_name = "HOST",
        value_parser = host
    )]
    pub(crate) local_host: Option<String>,

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

/// What becomes of callers beyond the greatest number of connections.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum WhenFull {
    /// They wait for a place
    Queue,
    /// They are accepted and closed at once
    Refuse,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people; coloured on a terminal, unless NO_COLOR is set
    Text,
    /// One JSON object a line
    Json,
}

/// A time limit, which may be switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limit(pub(crate) Option<Duration>);

// ---- Values: a parser's message tells the value and what would do ----

const OFF: &str = "off";

/// The longest time that is taken for meant, in seconds: some thirty years.
const LONGEST: f64 = 1e9;

pub(crate) fn limit(text: &str) -> Result<Limit, String> {
    if text == OFF {
        return Ok(Limit(None));
    }
    match seconds(text) {
        Some(time) if !time.is_zero() => Ok(Limit(Some(time))),
        _ => refused(text, "seconds, such as 10 or 0.5, at most 1000000000, or off"),
    }
}

fn keep_alive(text: &str) -> Result<Limit, String> {
    // What Linux takes, and so the library.
    let possible = Duration::from_secs(1)..=Duration::from_secs(32_767);
    match limit(text) {
        Ok(Limit(time)) if time.is_none_or(|time| possible.contains(&time)) => Ok(Limit(time)),
        _ => refused(text, "seconds from 1 to 32767, or off"),
    }
}

fn deadline(text: &str) -> Result<Duration, String> {
    match seconds(text) {
        Some(time) => Ok(time),
        None => refused(text, "seconds, such as 10 or 0.5, at most 1000000000, or 0 for none"),
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    // The range leaves out what is not a number, too.
    (0.0..=LONGEST).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// A parser of whole numbers in `range`.
pub(crate) fn count(
    range: RangeInclusive<usize>,
) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        // `usize::from_str` would take a sign.
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(count) if is_plain && range.contains(&count) => Ok(count),
            _ => {
                let (least, most) = (range.start(), range.end());
                refused(text, &format!("a whole number from {least} to {most}"))
            }
        }
    }
}

fn port(text: &str) -> Result<u16, String> {
    let port = count(1..=usize::from(u16::MAX))(text)?;
    Ok(u16::try_from(port).unwrap_or(u16::MAX))
}

fn address(text: &str) -> Result<Endpoint, String> {
    let endpoint: Endpoint = text.parse().map_err(message)?;
    possible(endpoint)
}

pub(crate) fn host(text: &str) -> Result<String, String> {
    possible((text, 0).into())?;
    Ok(text.to_owned())
}

/// Whether the host can be one at all. A listener that is only made opens nothing and asks nobody.
fn possible(endpoint: Endpoint) -> Result<Endpoint, String> {
    Listener::new(endpoint.clone(), ListenerConfiguration::new()).map_err(message)?;
    Ok(endpoint)
}

#[allow(clippy::needless_pass_by_value)] // For `map_err`.
fn message(error: onbytes::Error) -> String {
    error.to_string()
}

pub(crate) fn refused<T>(text: &str, possible: &str) -> Result<T, String> {
    Err(format!("'{}' is not accepted; give {possible}", shown(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn times_are_decimal_seconds_or_off() {
        let some = |seconds| Ok(Limit(Some(Duration::from_secs_f64(seconds))));
        assert_eq!(limit("0.25"), some(0.25));
        assert_eq!(limit("1000000000"), some(1e9));
        assert_eq!(limit("off"), Ok(Limit(None)));
        for text in [
            "", "0", "-0", "0.0", "1e-300", "-1", "nan", "inf", "-inf", "1e300", "1e10", "10s",
            "1,5", " 1", "OFF",
        ] {
            let message = limit(text).expect_err(text);
            assert!(message.contains("such as 10 or 0.5"), "{message}");
        }
        assert_eq!(deadline("0"), Ok(Duration::ZERO));
        assert!(deadline("-1").is_err() && deadline("off").is_err());
        assert!(keep_alive("0.5").is_err() && keep_alive("32768").is_err());
    }

    #[test]
    fn counts_are_plain_whole_numbers_in_range() {
        let count = count(1..=1024);
        assert_eq!(count("1024"), Ok(1024));
        for text in ["", "0", "1025", "-1", "+1", "1.0", "1e3", "99999999999999999999"] {
            assert!(count(text).is_err(), "{text}");
        }
        assert!(port("65536").is_err() && port("0").is_err() && port("65535") == Ok(65535));
    }

    #[test]
    fn hosts_that_cannot_be_are_refused_without_asking_anybody() {
        assert!(host("localhost").is_ok() && host("::1").is_ok() && host("[::1]").is_ok());
        for text in ["", "a b", "a\nb"] {
            assert!(host(text).is_err(), "{text:?}");
        }
        let message = host(&"a".repeat(5_000)).unwrap_err();
        assert!(message.len() < 300, "{message}");
        assert!(address("127.0.0.1:65536").is_err() && address("").is_err());
    }
}
