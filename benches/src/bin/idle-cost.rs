//! Measures what the program `onbytes` costs before anybody says anything: its size, how long it takes to
//! start, and its CPU time with many idle connections.
//!
//! ```text
//! cargo build --release -p onbytes-cli && cargo build --release -p onbytes-benches --no-default-features
//! target/release/idle-cost [--starts N] [--idle N] [--seconds S] [--json FILE] [PATH]
//! ```
//!
//! `PATH` is the program, by default `onbytes` beside this one. It is started as
//! `onbytes serve echo --listen 127.0.0.1:0`, with `RUST_LOG=warn`, must print `listening on ADDRESS` first,
//! and is killed afterwards. Memory is told by `idle-memory`.
//!
//! - `--starts N` (default 30): how often it is started, after once that does not count. A start lasts from
//!   before the program is spawned until its first line is read
//! - `--idle N` (default 10,000): idle connections, all of them accepted before the clock starts. They are
//!   fewer, and that is said, where the limit of open files leaves no room
//! - `--seconds S` (default 10): the time in which its CPU time is taken
//! - `--json FILE`: writes the figures there, too

use onbytes_benches::program::{self, PATIENCE, Program, within};
use onbytes_benches::results::Spread;
use onbytes_benches::{cli, host};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};
use tokio::net::{TcpSocket, TcpStream};
use tokio::process::Command;

/// Connections from one address of this machine: well below the some 28,000 ports of the ephemeral range.
const FROM_ONE_ADDRESS: u64 = 10_000;
/// The most idle connections: those of a hundred addresses.
const MOST_IDLE: u64 = 100 * FROM_ONE_ADDRESS;
/// Connections that may wait to be accepted; the program's own queue has room for twice as many.
const TOGETHER: usize = 500;
/// Lets the server finish what it does after it has accepted the last connection.
const SETTLE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let outcome = Options::parse(std::env::args().skip(1))
        .and_then(|options| program::run_until_signal(run(&options)));
    cli::exit(outcome)
}

#[derive(Debug, PartialEq)]
struct Options {
    starts: u64,
    idle: u64,
    seconds: f64,
    json: Option<PathBuf>,
    path: Option<PathBuf>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { starts: 30, idle: 10_000, seconds: 10.0, json: None, path: None };
        while let Some(word) = args.next() {
            match word.as_str() {
                "--starts" => options.starts = cli::count(&word, &mut args, 10_000)?,
                "--idle" => options.idle = cli::count(&word, &mut args, MOST_IDLE)?,
                "--seconds" => options.seconds = cli::value(&word, &mut args)?,
                "--json" => options.json = Some(cli::value(&word, &mut args)?),
                _ if options.path.is_none() && !word.starts_with('-') => {
                    options.path = Some(word.into());
                }
                _ => return Err(format!("{word}: unknown argument")),
            }
        }
        if !(0.1..=3_600.0).contains(&options.seconds) {
            return Err(format!("--seconds {}: must be 0.1 to 3600", options.seconds));
        }
        Ok(options)
    }

    /// The program that is measured.
    fn program(&self) -> Result<PathBuf, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let path = self.path.clone().unwrap_or_else(|| own.with_file_name("onbytes"));
        if path.is_file() {
            return Ok(path);
        }
        let build = "build it (cargo build --release -p onbytes-cli) or give its path";
        Err(format!("{}: no such program; {build}", path.display()))
    }
}

async fn run(options: &Options) -> Result<(), String> {
    let path = options.program()?;
    let limit = host::raise_open_file_limit()
        .map_err(|error| format!("the limit of open files: {error}"))?;
    let idle = affordable(options.idle, limit)?;
    if idle < options.idle {
        eprintln!("LOWERED: {idle} idle connections: no more than {limit} files may be open");
    }
    if cfg!(debug_assertions) {
        eprintln!("This is not a release build: the numbers mean little.");
    }
    let figures = Figures {
        bytes: size(&path)?,
        stripped: stripped_size(&path).await?,
        starts: start_times(&path, options.starts).await?,
        idle,
        seconds: options.seconds,
        cpu: idle_cpu_time(&path, idle, Duration::from_secs_f64(options.seconds)).await?,
    };
    println!("Linux {}, {}, {}\n", host::kernel(), host::cpu_model(), path.display());
    print!("{}", figures.table());
    match &options.json {
        Some(file) => std::fs::write(file, format!("{:#}\n", figures.to_json()))
            .map_err(|error| format!("{}: {error}", file.display())),
        None => Ok(()),
    }
}

/// How many of the wanted connections each side can open, where so many files may be open. An eighth stays
/// free: either side has other files, and the server lets callers wait once it has few left.
fn affordable(wanted: u64, limit: u64) -> Result<u64, String> {
    let most = (limit - limit / 8).saturating_sub(32);
    match wanted.min(most) {
        0 => Err(format!("{limit} open files are too few (ulimit -n)")),
        idle => Ok(idle),
    }
}

/// What was measured.
struct Figures {
    /// The size of the program.
    bytes: u64,
    /// Without its symbols, where `strip` could tell.
    stripped: Option<u64>,
    /// How long each start took.
    starts: Vec<Duration>,
    idle: u64,
    seconds: f64,
    /// The CPU time of the server while all connections were idle.
    cpu: Duration,
}

impl Figures {
    fn starts_in_ms(&self) -> Spread {
        let times: Vec<_> = self.starts.iter().copied().map(milliseconds).collect();
        Spread::of(&times)
    }

    fn table(&self) -> String {
        let stripped = self.stripped.map_or_else(|| "–".to_owned(), |bytes| bytes.to_string());
        let Spread { low, median, high } = self.starts_in_ms();
        let start = format!("{median:.2} ({low:.2}–{high:.2})");
        let cpu = format!("{:.2}", milliseconds(self.cpu));
        let rows = [
            ("size, bytes".to_owned(), self.bytes.to_string()),
            ("size stripped, bytes".to_owned(), stripped),
            (format!("start, ms: median of {} (min–max)", self.starts.len()), start),
            (format!("CPU ms in {} s, {} idle connections", self.seconds, self.idle), cpu),
        ];
        let mut table = "| what | figure |\n|---|---:|\n".to_owned();
        for (what, figure) in rows {
            writeln!(table, "| {what} | {figure} |").expect("a String takes everything");
        }
        table
    }

    fn to_json(&self) -> Value {
        let Spread { low, median, high } = self.starts_in_ms();
        json!({
            "machine": {
                "kernel": host::kernel(),
                "cpu": host::cpu_model(),
                "cores": host::usable_cores().map_or(0, |cores| cores.len()),
                "rustc": host::compiler(),
            },
            "bytes": self.bytes,
            "stripped_bytes": self.stripped,
            "start_ms": {
                "starts": self.starts.len(),
                "median": rounded(median),
                "min": rounded(low),
                "max": rounded(high),
            },
            "idle": {
                "connections": self.idle,
                "seconds": self.seconds,
                "cpu_ms": rounded(milliseconds(self.cpu)),
            },
        })
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

/// As exact as anybody can measure.
fn rounded(value: f64) -> f64 {
    (value * 10_000.0).round() / 10_000.0
}

fn size(path: &Path) -> Result<u64, String> {
    let data = std::fs::metadata(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(data.len())
}

/// The size of a copy without symbols; `None`, and that is said, where `strip` makes none.
async fn stripped_size(path: &Path) -> Result<Option<u64>, String> {
    let folder = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
    let copy = folder.path().join("stripped");
    let mut command = Command::new("strip");
    command.arg("-o").arg(&copy).arg(path).stdin(Stdio::null()).kill_on_drop(true);
    let failure = match command.output().await {
        Ok(output) if output.status.success() => return size(&copy).map(Some),
        Ok(output) => String::from_utf8_lossy(&output.stderr).trim().to_owned(),
        Err(error) => format!("strip: {error}"),
    };
    eprintln!("SKIPPED: no stripped size: {failure}");
    Ok(None)
}

/// How long each of so many starts takes.
async fn start_times(path: &Path, starts: u64) -> Result<Vec<Duration>, String> {
    // The first one reads the program from the disk.
    start_time(path).await?;
    let mut times = Vec::new();
    for _ in 0..starts {
        times.push(start_time(path).await?);
    }
    Ok(times)
}

/// From before the program is spawned until its first line is here.
async fn start_time(path: &Path) -> Result<Duration, String> {
    let start = Instant::now();
    let mut server = Program::start(&mut server_command(path))?;
    server.address().await?;
    let time = start.elapsed();
    server.kill().await?;
    Ok(time)
}

fn server_command(path: &Path) -> Command {
    let mut command = Command::new(path);
    command.args(["serve", "echo", "--listen", "127.0.0.1:0"]);
    command.env("RUST_LOG", "warn").stdin(Stdio::null());
    command
}

/// The CPU time that a server uses while so many connections are open and nobody says anything.
async fn idle_cpu_time(path: &Path, idle: u64, time: Duration) -> Result<Duration, String> {
    let mut server = Program::start(&mut server_command(path))?;
    let address = server.address().await?;
    let streams = connect(&mut server, address, idle).await?;
    tokio::time::sleep(SETTLE).await;
    let before = server.cpu_time()?;
    tokio::time::sleep(time).await;
    let cpu = server.cpu_time()?.since(&before);
    check_silent(&streams)?;
    server.kill().await?;
    Ok(cpu)
}

/// Opens connections, all of which the server has accepted.
async fn connect(
    server: &mut Program,
    address: SocketAddr,
    count: u64,
) -> Result<Vec<TcpStream>, String> {
    let own_files = server.open_files()?;
    let mut streams = Vec::new();
    for number in 0..count {
        let stream = within(PATIENCE, connect_from(source(number), address));
        streams.push(stream.await.map_err(|error| format!("connection {number}: {error}"))?);
        if streams.len() % TOGETHER == 0 {
            wait_for_files(server, own_files + streams.len()).await?;
        }
    }
    wait_for_files(server, own_files + streams.len()).await?;
    Ok(streams)
}

/// Whether nothing has come on any connection, nor its end.
fn check_silent(streams: &[TcpStream]) -> Result<(), String> {
    let is_silent = |stream: &TcpStream| {
        stream.try_read(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
    };
    match streams.iter().filter(|stream| !is_silent(stream)).count() {
        0 => Ok(()),
        some => Err(format!("the server has closed {some} connections meanwhile, or sent on them")),
    }
}

async fn connect_from(source: SocketAddr, target: SocketAddr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    // Closing resets the connection: its port is free again at once.
    socket.set_zero_linger()?;
    socket.bind(source)?;
    socket.connect(target).await
}

/// Where a connection comes from: one address has not enough ports for all.
fn source(number: u64) -> SocketAddr {
    let address = Ipv4Addr::LOCALHOST.to_bits() + (number / FROM_ONE_ADDRESS) as u32;
    SocketAddr::from((Ipv4Addr::from_bits(address), 0))
}

/// Waits until the server has so many files open, as each connection that it accepts is one.
async fn wait_for_files(server: &mut Program, count: usize) -> Result<(), String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let open = server.open_files()?;
        if open >= count {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("the server accepts no more: {open} of {count} files are open"));
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &str) -> Result<Options, String> {
        Options::parse(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_have_defaults_and_limits() {
        let defaults = Options { starts: 30, idle: 10_000, seconds: 10.0, json: None, path: None };
        assert_eq!(parse(""), Ok(defaults));
        let all = Options {
            starts: 5,
            idle: 50_000,
            seconds: 0.5,
            json: Some("f.json".into()),
            path: Some("/bin/x".into()),
        };
        let words = "--starts 5 --idle 50000 /bin/x --seconds 0.5 --json f.json";
        assert_eq!(parse(words), Ok(all));
        for words in [
            "--starts 0",
            "--idle 0",
            "--idle 1000001",
            "--seconds 0",
            "--seconds NaN",
            "--json",
            "--fast",
            "/bin/x /bin/y",
        ] {
            assert!(parse(words).is_err(), "{words}");
        }
    }

    #[test]
    fn a_program_that_is_not_built_is_named() {
        let error = parse("/nowhere/onbytes").unwrap().program().unwrap_err();
        assert!(error.starts_with("/nowhere/onbytes: no such program"), "{error}");
    }

    #[test]
    fn connections_are_as_many_as_the_limit_of_open_files_leaves_room_for() {
        assert_eq!(affordable(10_000, 20_000), Ok(10_000));
        assert_eq!(affordable(10_000, 1_024), Ok(864));
        assert_eq!(affordable(10_000, u64::MAX), Ok(10_000));
        assert!(affordable(1, 32).is_err());
    }

    #[test]
    fn many_connections_come_from_several_addresses() {
        let text = |number| source(number).to_string();
        assert_eq!(text(9_999), "127.0.0.1:0");
        assert_eq!(text(10_000), "127.0.0.2:0");
        assert_eq!(text(MOST_IDLE - 1), "127.0.0.100:0");
    }

    #[tokio::test]
    async fn a_connection_that_is_closed_meanwhile_is_noticed() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut streams = Vec::new();
        for _ in 0..2 {
            streams.push(connect_from(source(0), address).await.unwrap());
        }
        let (closed, _) = listener.accept().await.unwrap();
        assert_eq!(check_silent(&streams), Ok(()));
        drop(closed);
        streams[0].readable().await.unwrap();
        assert!(check_silent(&streams).unwrap_err().contains("closed 1 connections"));
    }

    fn figures(stripped: Option<u64>) -> Figures {
        Figures {
            bytes: 9_000,
            stripped,
            starts: [2, 9, 4].map(Duration::from_millis).to_vec(),
            idle: 100,
            seconds: 0.5,
            cpu: Duration::from_micros(1_250),
        }
    }

    #[test]
    fn a_table_has_what_was_measured() {
        let expected = "| what | figure |\n|---|---:|\n\
                        | size, bytes | 9000 |\n\
                        | size stripped, bytes | 7000 |\n\
                        | start, ms: median of 3 (min–max) | 4.00 (2.00–9.00) |\n\
                        | CPU ms in 0.5 s, 100 idle connections | 1.25 |\n";
        assert_eq!(figures(Some(7_000)).table(), expected);
        assert!(figures(None).table().contains("| size stripped, bytes | – |\n"));
    }

    #[test]
    fn a_file_has_the_same_figures() {
        let all = figures(None).to_json();
        assert_eq!((&all["bytes"], &all["stripped_bytes"]), (&json!(9_000), &Value::Null));
        let start = json!({"starts": 3, "median": 4.0, "min": 2.0, "max": 9.0});
        assert_eq!(all["start_ms"], start);
        assert_eq!(all["idle"], json!({"connections": 100, "seconds": 0.5, "cpu_ms": 1.25}));
    }
}
