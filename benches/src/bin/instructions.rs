//! Counts the instructions that a server executes in user space for each echoed message: a figure that
//! neither the machine's speed nor its other programs change.
//!
//! ```text
//! cargo build --release -p onbytes-benches --no-default-features
//! target/release/instructions
//! ```
//!
//! A server runs under valgrind's callgrind twice, and gets few messages and many. The difference of the
//! two totals, divided by the difference of the messages, is what one message costs, without the start
//! and the end of the server. What the kernel does is not counted. Without valgrind nothing is measured,
//! and that is no failure. Options:
//!
//! - `--servers A,B`: only these servers; else all that are built
//! - `NAME=PATH`: another server, or another binary for a name. It is started with an address, must print
//!   `listening on ADDRESS` first, and ends at SIGTERM. One with `framed` in its name gets `lines` for its
//!   second argument, and frames
//! - `--only TEXT`: only the cells whose name contains `TEXT`; may be repeated
//! - `--runs N` (default 1): count so often; the least is told, and how far apart they were
//! - `--json`: a JSON text rather than a table
//! - `--check FILE`: only the servers and cells in this file; fails if one is above its bound there
//! - `--write FILE`: writes the bounds for `--check`: what was counted, and a tenth more

use onbytes_benches::bounds::Counts;
use onbytes_benches::callgrind::{self, Counted};
use onbytes_benches::cli;
use onbytes_benches::frames::Frames;
use onbytes_benches::pattern::Pattern;
use std::fmt::Write as _;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// Without any reply for this long the run has failed.
const STALLED: Duration = Duration::from_secs(30);
/// Room between what was counted and the bound that is written: other compilers and C libraries differ.
const ROOM_PERCENT: u64 = 10;

const PLAIN_SERVERS: &[&str] = &[
    "epoll-echo",
    "tokio-echo",
    "ntex-echo",
    "onbytes-echo",
    "onbytes-write-echo",
    "onbytes-task-echo",
    "onbytes-bounded-echo",
];
const FRAMED_SERVERS: &[&str] =
    &["epoll-framed-echo", "tokio-util-framed-echo", "onbytes-framed-echo"];

/// A kind of messages.
struct Cell {
    name: &'static str,
    /// The servers that it is for.
    servers: &'static [&'static str],
    framing: Option<Frames>,
    connections: usize,
    size: usize,
    /// Messages that are written at once, as a peer does that does not wait for replies.
    together: usize,
    /// Whether every message has a connection of its own.
    churn: bool,
    /// Messages in the two runs.
    messages: [u64; 2],
}

impl Cell {
    const fn plain(name: &'static str, size: usize) -> Self {
        Self {
            name,
            servers: PLAIN_SERVERS,
            framing: None,
            connections: 1,
            size,
            together: 1,
            churn: false,
            messages: [1_000, 6_000],
        }
    }
}

impl Cell {
    /// Whether a server of a name that is not known has to do with these messages.
    fn is_for(&self, name: &str) -> bool {
        let is_known = PLAIN_SERVERS.contains(&name) || FRAMED_SERVERS.contains(&name);
        !is_known && self.framing.is_some() == name.contains("framed")
    }
}

static CELLS: &[Cell] = &[
    Cell::plain("64 B", 64),
    Cell::plain("16 KiB", 16 << 10),
    Cell { connections: 16, messages: [1_600, 8_000], ..Cell::plain("64 B x 16", 64) },
    Cell { churn: true, messages: [200, 1_000], ..Cell::plain("connect-echo-close", 64) },
    Cell {
        servers: FRAMED_SERVERS,
        framing: Some(Frames::Lines),
        ..Cell::plain("a line of 64 B", 64)
    },
    Cell {
        servers: FRAMED_SERVERS,
        framing: Some(Frames::Lines),
        together: 100,
        messages: [5_000, 30_000],
        ..Cell::plain("100 lines of 64 B", 64)
    },
];

fn main() -> ExitCode {
    if !callgrind::is_installed() {
        eprintln!("SKIPPED: valgrind is missing, so no instructions are counted");
        return ExitCode::SUCCESS;
    }
    cli::exit(Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)))
}

struct Options {
    selected: Option<Vec<String>>,
    given: Vec<(String, PathBuf)>,
    only: Vec<String>,
    runs: u64,
    is_json: bool,
    check: Option<PathBuf>,
    write: Option<PathBuf>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            selected: None,
            given: Vec::new(),
            only: Vec::new(),
            runs: 1,
            is_json: false,
            check: None,
            write: None,
        };
        while let Some(word) = args.next() {
            match word.as_str() {
                "--servers" => {
                    let names: String = cli::value(&word, &mut args)?;
                    options.selected = Some(names.split(',').map(str::to_owned).collect());
                }
                "--only" => options.only.push(cli::value(&word, &mut args)?),
                "--runs" => options.runs = cli::count(&word, &mut args, 100)?,
                "--json" => options.is_json = true,
                "--check" => options.check = Some(cli::value(&word, &mut args)?),
                "--write" => options.write = Some(cli::value(&word, &mut args)?),
                _ => match word.split_once('=') {
                    Some((name, path)) if !word.starts_with('-') => {
                        options.given.push((name.to_owned(), path.into()));
                    }
                    _ => return Err(format!("{word}: unknown argument")),
                },
            }
        }
        Ok(options)
    }

    /// What is to be counted, in the order of the table.
    fn plan(&self, directory: &Path, bounds: Option<&Counts>) -> Result<Vec<Task>, String> {
        let mut plan = Vec::new();
        for cell in CELLS {
            let given = self.given.iter().map(|(name, _)| name.as_str());
            let defaults = cell.servers.iter().copied();
            let others = given.filter(|name| !cell.servers.contains(name) && cell.is_for(name));
            for name in defaults.chain(others) {
                if self.wants(name, cell, bounds) {
                    plan.push(Task {
                        cell,
                        server: name.to_owned(),
                        path: self.path(name, directory),
                    });
                }
            }
        }
        if let Some(bounds) = bounds {
            let is_planned = |(server, cell, _): &(&str, &str, u64)| {
                plan.iter().any(|task| task.server == *server && task.cell.name == *cell)
            };
            let is_wanted = self.selected.is_none() && self.only.is_empty();
            if let Some((server, cell, _)) =
                bounds.iter().find(|bound| is_wanted && !is_planned(bound))
            {
                return Err(format!("{server}, {cell}: has a bound, but there is no such cell"));
            }
        } else {
            plan.retain(|task| self.is_asked_for(&task.server) || task.path.is_file());
        }
        match plan.iter().find(|task| !task.path.is_file()) {
            Some(task) => Err(format!("{}: no such binary", task.path.display())),
            None if plan.is_empty() => {
                Err("nothing to count: no such server, or no such cell".into())
            }
            None => Ok(plan),
        }
    }

    fn wants(&self, name: &str, cell: &Cell, bounds: Option<&Counts>) -> bool {
        let is_selected =
            self.selected.as_ref().is_none_or(|names| names.iter().any(|n| n == name));
        let is_in_only = |text: &String| cell.name.contains(text.as_str());
        let is_bounded = bounds.is_none_or(|bounds| bounds.get(name, cell.name).is_some());
        is_selected && is_bounded && (self.only.is_empty() || self.only.iter().any(is_in_only))
    }

    /// Whether a missing binary is an error.
    fn is_asked_for(&self, name: &str) -> bool {
        let mut asked =
            self.selected.iter().flatten().chain(self.given.iter().map(|(name, _)| name));
        asked.any(|asked| asked == name)
    }

    fn path(&self, name: &str, directory: &Path) -> PathBuf {
        let given = self.given.iter().find(|(given, _)| given == name);
        given.map_or_else(|| directory.join(name), |(_, path)| path.clone())
    }
}

/// One cell of one server.
struct Task {
    cell: &'static Cell,
    server: String,
    path: PathBuf,
}

fn run(options: &Options) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let directory = program.parent().ok_or("this program has no directory")?;
    let bounds = options.check.as_deref().map(read_bounds).transpose()?;
    let mut counts = Counts::default();
    for task in options.plan(directory, bounds.as_ref())? {
        let count = count_best(&task, options.runs)
            .map_err(|error| format!("{}, {}: {error}", task.server, task.cell.name))?;
        counts.set(&task.server, task.cell.name, count);
    }
    if let Some(path) = &options.write {
        std::fs::write(path, counts.with_room(ROOM_PERCENT).to_json())
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    print!("{}", if options.is_json { counts.to_json() } else { table(&counts) });
    bounds.map_or(Ok(()), |bounds| counts.check(&bounds))
}

fn read_bounds(path: &Path) -> Result<Counts, String> {
    std::fs::read_to_string(path)
        .map_err(|error| error.to_string())
        .and_then(|text| Counts::from_json(&text))
        .map_err(|error| format!("{}: {error}", path.display()))
}

/// A row for each server, a column for each cell.
fn table(counts: &Counts) -> String {
    let cells = CELLS.iter().map(|cell| cell.name);
    let cells: Vec<_> =
        cells.filter(|name| counts.iter().any(|(_, cell, _)| cell == *name)).collect();
    let mut servers: Vec<_> = PLAIN_SERVERS.iter().chain(FRAMED_SERVERS).copied().collect();
    let mut table = format!("| instructions for each message | {} |\n", cells.join(" | "));
    writeln!(table, "|---|{}", "---:|".repeat(cells.len())).expect("a String takes everything");
    for (server, _, _) in counts.iter() {
        if !servers.contains(&server) {
            servers.push(server);
        }
    }
    servers.retain(|name| counts.iter().any(|(server, _, _)| server == *name));
    for server in servers {
        let figures = cells.iter().map(|cell| {
            counts.get(server, cell).map_or_else(|| "–".to_owned(), |count| count.to_string())
        });
        let figures: Vec<_> = figures.collect();
        writeln!(table, "| {server} | {} |", figures.join(" | "))
            .expect("a String takes everything");
    }
    table
}

/// The least of several counts: what disturbs a run adds instructions, and takes none away.
fn count_best(task: &Task, runs: u64) -> Result<u64, String> {
    let counts: Vec<_> = (0..runs).map(|_| count(task)).collect::<Result<_, _>>()?;
    let (least, most) = (*counts.iter().min().unwrap_or(&0), *counts.iter().max().unwrap_or(&0));
    let apart = 100.0 * (most as f64 / least as f64 - 1.0);
    eprintln!("{}, {}: {least}, runs {apart:.2} % apart", task.server, task.cell.name);
    Ok(least)
}

/// The instructions for each message.
fn count(task: &Task) -> Result<u64, String> {
    let [few, many] = task.cell.messages;
    let base = total(task, few)?;
    let more = total(task, many)?.checked_sub(base);
    more.map(|more| more / (many - few))
        .ok_or_else(|| "more messages took fewer instructions".to_owned())
}

/// The instructions of a server from its start to its end, with so many messages in between.
fn total(task: &Task, messages: u64) -> Result<u64, String> {
    let form = task.cell.framing.map(Frames::text);
    let arguments: Vec<_> = std::iter::once("127.0.0.1:0").chain(form).collect();
    let server = Counted::start(&task.path, &arguments)?;
    exchange(task.cell, server.address(), messages, &|| server.wait_until_asleep())
        .map_err(|error| error.to_string())?;
    server.end()
}

/// Waits until the server has nothing to do.
type Rest<'a> = dyn Fn() -> io::Result<()> + 'a;

/// Exchanges so many messages with a server, and compares all that comes back with what was sent.
///
/// The server rests before each turn, as it does where messages come one at a time.
fn exchange(cell: &Cell, address: SocketAddr, messages: u64, rest: &Rest<'_>) -> io::Result<()> {
    let pattern =
        cell.framing.map_or_else(Pattern::new, |frames| Pattern::framed(frames, cell.size));
    let length =
        cell.framing.map_or(cell.size, |frames| frames.wire_len(cell.size)) * cell.together;
    let turns = messages / (cell.connections * cell.together) as u64;
    if cell.churn {
        return (0..turns).try_for_each(|turn| {
            let mut peer = Peer::connect(address, turn as usize)?;
            peer.send(&pattern, length)?;
            peer.receive(&pattern, length)?;
            rest()?;
            peer.close()?;
            rest()
        });
    }
    let peers = (0..cell.connections).map(|number| Peer::connect(address, number));
    let mut peers: Vec<_> = peers.collect::<io::Result<_>>()?;
    for _ in 0..turns {
        rest()?;
        peers.iter_mut().try_for_each(|peer| peer.send(&pattern, length))?;
        peers.iter_mut().try_for_each(|peer| peer.receive(&pattern, length))?;
    }
    peers.into_iter().try_for_each(Peer::close)
}

/// One connection, and how far it is in its stream.
struct Peer {
    stream: TcpStream,
    number: usize,
    sent: u64,
    received: u64,
    buffer: Vec<u8>,
}

impl Peer {
    fn connect(address: SocketAddr, number: usize) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(STALLED))?;
        stream.set_write_timeout(Some(STALLED))?;
        Ok(Self { stream, number, sent: 0, received: 0, buffer: Vec::new() })
    }

    fn send(&mut self, pattern: &Pattern, length: usize) -> io::Result<()> {
        self.stream.write_all(pattern.run(self.number, self.sent, length))?;
        self.sent += length as u64;
        Ok(())
    }

    fn receive(&mut self, pattern: &Pattern, length: usize) -> io::Result<()> {
        self.buffer.resize(length, 0);
        self.stream.read_exact(&mut self.buffer)?;
        if !pattern.matches(self.number, self.received, &self.buffer) {
            return Err(io::Error::other("the server sent wrong bytes"));
        }
        self.received += length as u64;
        Ok(())
    }

    /// Ends the stream, and waits until the server has ended its own.
    fn close(mut self) -> io::Result<()> {
        self.stream.shutdown(Shutdown::Write)?;
        match self.stream.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::Error::other("the server sent more than it was sent")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onbytes_benches::testing::serve_echo;

    fn parse(words: &[&str]) -> Options {
        Options::parse(words.iter().map(ToString::to_string)).unwrap()
    }

    /// What is planned where the binaries are in `directory`, as servers and cells.
    fn plan(words: &[&str], directory: &Path, bounds: Option<&str>) -> Result<Vec<String>, String> {
        let bounds = bounds.map(|text| Counts::from_json(text).unwrap());
        let plan = parse(words).plan(directory, bounds.as_ref())?;
        Ok(plan.iter().map(|task| format!("{}: {}", task.server, task.cell.name)).collect())
    }

    fn built(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        names.iter().for_each(|name| std::fs::write(folder.path().join(name), "").unwrap());
        folder
    }

    #[test]
    fn what_is_built_is_counted_and_what_is_asked_for_has_to_be_built() {
        let folder = built(&["epoll-echo", "onbytes-framed-echo"]);
        let found = plan(&["--only", "16 KiB", "--only", "line"], folder.path(), None).unwrap();
        let expected = [
            "epoll-echo: 16 KiB",
            "onbytes-framed-echo: a line of 64 B",
            "onbytes-framed-echo: 100 lines of 64 B",
        ];
        assert_eq!(found, expected);
        let mine =
            [&format!("mine={}", folder.path().join("epoll-echo").display()), "--only", "16"];
        let expected =
            ["epoll-echo: 16 KiB", "mine: 16 KiB", "epoll-echo: 64 B x 16", "mine: 64 B x 16"];
        assert_eq!(plan(&mine, folder.path(), None).unwrap(), expected);
        for missing in [&["--servers", "tokio-echo"][..], &["x=/nowhere/x"], &["--only", "2 GiB"]] {
            assert!(plan(missing, folder.path(), None).is_err(), "{missing:?}");
        }
    }

    #[test]
    fn a_check_counts_what_has_a_bound_and_nothing_else() {
        let folder = built(&["epoll-echo", "onbytes-echo"]);
        let bounds = Some(r#"{"onbytes-echo": {"64 B": 1}}"#);
        assert_eq!(plan(&[], folder.path(), bounds).unwrap(), ["onbytes-echo: 64 B"]);
        let unknown = Some(r#"{"onbytes-echo": {"65 B": 1}}"#);
        assert!(plan(&[], folder.path(), unknown).is_err());
        let missing = Some(r#"{"tokio-echo": {"64 B": 1}}"#);
        assert!(plan(&[], folder.path(), missing).unwrap_err().contains("no such binary"));
    }

    #[test]
    fn nonsense_is_refused() {
        for words in [&["--runs", "0"][..], &["--fast"], &["-x=y"], &["--check"], &["epoll-echo"]] {
            assert!(Options::parse(words.iter().map(ToString::to_string)).is_err(), "{words:?}");
        }
    }

    #[test]
    fn a_table_has_what_was_counted() {
        let mut counts = Counts::default();
        counts.set("mine", "64 B", 9);
        counts.set("epoll-echo", "16 KiB", 7);
        let expected = "| instructions for each message | 64 B | 16 KiB |\n|---|---:|---:|\n\
                        | epoll-echo | – | 7 |\n| mine | 9 | – |\n";
        assert_eq!(table(&counts), expected);
    }

    #[test]
    fn every_cell_is_echoed_and_a_changed_byte_is_noticed() {
        let (right, wrong) = (serve_echo(None).unwrap(), serve_echo(Some(50)).unwrap());
        for cell in CELLS {
            exchange(cell, right, 200, &|| Ok(())).unwrap();
            let error = exchange(cell, wrong, 200, &|| Ok(())).unwrap_err();
            assert_eq!(error.to_string(), "the server sent wrong bytes", "{}", cell.name);
        }
    }
}
