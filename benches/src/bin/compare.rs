//! The runner: measures the CPU time per message of echo servers, relative to `epoll-echo`, of echo
//! servers over TLS, relative to `tokio-rustls-echo`, or of echo servers of frames, relative to
//! `epoll-framed-echo`.
//!
//! ```text
//! cargo build --release -p onbytes-benches
//! target/release/compare --rounds 5 --seconds 2
//! target/release/compare --rounds 5 --seconds 2 --tls
//! target/release/compare --rounds 5 --seconds 2 --framing lines
//! ```
//!
//! Each measurement is a fresh server bound to one core and the load generator bound to another.
//! Rounds are interleaved (every server once per round, in rotating order), so that a change of
//! the machine's state meets all servers alike, and ratios are taken within a round. The report
//! goes to standard output, progress to standard error.
//!
//! Options:
//!
//! - `--rounds N` (default 5), `--seconds S` per measurement (default 2)
//! - `--tls`: the servers over TLS, with columns of their own and a certificate made for the run
//! - `--framing FORM`: the servers of frames, with columns of their own. Forms: `lines`, `len:u16be`,
//!   and with `--servers onbytes-framed-echo` also `mllp` and `len:varint`
//! - `--only TEXT`: only the columns whose name contains `TEXT`; may be repeated
//! - `--cells 0,3`: only these columns, counted from 0
//! - `--servers A,B`: only these servers; the yardstick is measured in any case
//! - `--all`: also `epoll-echo-64k` (`epoll-echo` with a buffer of 64 KiB), `onbytes-write-echo`,
//!   `onbytes-task-echo` and `onbytes-bounded-echo`; with `--tls` `tokio-rustls-echo-8k` (buffers of 8 KiB)
//! - `--json FILE`: writes all rounds there, too; `plot` draws such files
//! - `NAME=PATH`: another server, or another binary for a name. It is started with an
//!   address (with `--tls` also the files of a certificate and its key; with `--framing` the form), must
//!   print `listening on ADDRESS` first and is killed afterwards

use onbytes_benches::frames::Frames;
use onbytes_benches::host;
use onbytes_benches::program::{self, PATIENCE, Program};
use onbytes_benches::results::{Results, Sample, Spread, ratios, values};
use onbytes_benches::secure::Identity;
use onbytes_benches::{cli, stats};
use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;
use tokio::process::Command;

/// Lets a server finish what it does after its last reply, and go to sleep.
const SETTLE: Duration = Duration::from_millis(20);

/// Servers that do the same, and what is measured of them.
struct Suite {
    /// The yardstick first.
    servers: &'static [&'static str],
    others: &'static [Other],
    workloads: &'static [Workload],
    is_tls: bool,
}

/// A server that is measured only where it is asked for.
struct Other {
    name: &'static str,
    program: &'static str,
    /// What it is told behind where to listen.
    arguments: &'static [&'static str],
}

impl Other {
    const fn new(name: &'static str) -> Self {
        Self { name, program: name, arguments: &[] }
    }
}

/// A column of the report.
struct Workload {
    name: &'static str,
    connections: u32,
    size: u32,
    /// Further arguments of the load generator.
    options: &'static [&'static str],
}

impl Workload {
    const fn new(name: &'static str, connections: u32, size: u32) -> Self {
        Self { name, connections, size, options: &[] }
    }

    const fn with(self, options: &'static [&'static str]) -> Self {
        Self { options, ..self }
    }
}

static PLAIN: Suite = Suite {
    servers: &["epoll-echo", "tokio-echo", "ntex-echo", "onbytes-echo"],
    others: &[
        // With the buffer that most C programs have.
        Other { name: "epoll-echo-64k", program: "epoll-echo", arguments: &["64K"] },
        Other::new("onbytes-write-echo"),
        Other::new("onbytes-task-echo"),
        Other::new("onbytes-bounded-echo"),
    ],
    workloads: &[
        Workload::new("64 B x 50", 50, 64),
        Workload::new("64 B x 1000", 1_000, 64),
        Workload::new("64 B x 100, 16 in flight", 100, 64).with(&["--depth", "16"]),
        Workload::new("16 KiB x 50", 50, 16 << 10),
        Workload::new("1 MiB x 8", 8, 1 << 20),
        Workload::new("connect-echo-close", 16, 64).with(&["--churn"]),
    ],
    is_tls: false,
};

static TLS: Suite = Suite {
    servers: &["tokio-rustls-echo", "ntex-tls-echo", "onbytes-tls-echo"],
    // With the buffer of `tokio-echo`, into which a whole record does not fit.
    others: &[Other {
        name: "tokio-rustls-echo-8k",
        program: "tokio-rustls-echo",
        arguments: &["8K"],
    }],
    workloads: &[
        Workload::new("TLS 1 KiB x 50", 50, 1 << 10),
        Workload::new("TLS 16 KiB x 8", 8, 16 << 10),
        Workload::new("TLS 16 KiB x 50", 50, 16 << 10),
        Workload::new("TLS 1 MiB x 8", 8, 1 << 20),
        Workload::new("TLS full handshake", 16, 64).with(&["--churn"]),
        Workload::new("TLS resumed", 16, 64).with(&["--churn", "--resume"]),
    ],
    is_tls: true,
};

static FRAMED: Suite = Suite {
    servers: &["epoll-framed-echo", "tokio-util-framed-echo", "onbytes-framed-echo"],
    others: &[],
    workloads: &[
        Workload::new("64 B x 50", 50, 64),
        Workload::new("64 B x 50, 100 in flight", 50, 64).with(&["--depth", "100"]),
        Workload::new("16 KiB x 50", 50, 16 << 10),
    ],
    is_tls: false,
};

fn main() -> ExitCode {
    let outcome = Options::parse(std::env::args().skip(1))
        .and_then(|options| program::run_until_signal(run(&options)));
    cli::exit(outcome)
}

struct Options {
    suite: &'static Suite,
    /// What makes frames of the messages.
    framing: Option<Frames>,
    rounds: u64,
    seconds: f64,
    only: Vec<String>,
    cells: Option<Vec<usize>>,
    with_others: bool,
    json: Option<PathBuf>,
    selected: Option<Vec<String>>,
    given: Vec<Server>,
}

#[derive(Clone, Debug, PartialEq)]
struct Server {
    name: String,
    path: PathBuf,
    /// What it is told behind where to listen.
    arguments: &'static [&'static str],
}

impl Server {
    fn new(name: &str, path: PathBuf) -> Self {
        Self { name: name.to_owned(), path, arguments: &[] }
    }
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            suite: &PLAIN,
            framing: None,
            rounds: 5,
            seconds: 2.0,
            only: Vec::new(),
            cells: None,
            with_others: false,
            json: None,
            selected: None,
            given: Vec::new(),
        };
        let mut is_tls = false;
        while let Some(word) = args.next() {
            match word.as_str() {
                "--rounds" => options.rounds = cli::count(&word, &mut args, 1_000)?,
                "--seconds" => options.seconds = cli::value(&word, &mut args)?,
                "--tls" => is_tls = true,
                "--framing" => options.framing = Some(cli::value(&word, &mut args)?),
                "--only" => options.only.push(cli::value(&word, &mut args)?),
                "--cells" => options.cells = Some(numbers(&word, &mut args)?),
                "--all" => options.with_others = true,
                "--json" => options.json = Some(cli::value(&word, &mut args)?),
                "--servers" => {
                    let names: String = cli::value(&word, &mut args)?;
                    options.selected = Some(names.split(',').map(str::to_owned).collect());
                }
                _ => match word.split_once('=') {
                    Some((name, path)) if !word.starts_with('-') => {
                        options.given.push(Server::new(name, path.into()));
                    }
                    _ => return Err(format!("{word}: unknown argument")),
                },
            }
        }
        options.suite = match (is_tls, options.framing) {
            (false, None) => &PLAIN,
            (true, None) => &TLS,
            (false, Some(_)) => &FRAMED,
            (true, Some(_)) => return Err("--tls and --framing exclude each other".to_owned()),
        };
        if !(0.01..=600.0).contains(&options.seconds) {
            return Err(format!("--seconds {}: must be 0.01 to 600", options.seconds));
        }
        Ok(options)
    }

    /// The columns to measure.
    fn workloads(&self) -> Result<Vec<&'static Workload>, String> {
        let all = self.suite.workloads;
        let is_unknown = |&&cell: &&usize| cell >= all.len();
        if let Some(cell) = self.cells.iter().flatten().find(is_unknown) {
            return Err(format!("--cells {cell}: the last one is {}", all.len() - 1));
        }
        let wanted = |(number, workload): &(usize, &Workload)| {
            self.cells.as_ref().is_none_or(|cells| cells.contains(number))
                && (self.only.is_empty()
                    || self.only.iter().any(|text| workload.name.contains(text)))
        };
        let workloads: Vec<_> = all.iter().enumerate().filter(wanted).map(|(_, all)| all).collect();
        if workloads.is_empty() {
            return Err(format!("no column has {} in its name", self.only.join(" or ")));
        }
        Ok(workloads)
    }

    /// The servers to measure, the yardstick first: the defaults in `directory` and those given,
    /// restricted to those selected. Whether the binaries exist is not looked at.
    fn servers(&self, directory: &Path) -> Result<Vec<Server>, String> {
        let defaults = self.suite.servers.iter();
        let mut servers: Vec<_> =
            defaults.map(|name| Server::new(name, directory.join(name))).collect();
        let others = self.suite.others.iter().filter(|other| self.asks_for(other));
        servers.extend(others.map(|other| Server {
            arguments: other.arguments,
            ..Server::new(other.name, directory.join(other.program))
        }));
        for given in &self.given {
            match servers.iter_mut().find(|server| server.name == given.name) {
                Some(server) => server.path.clone_from(&given.path),
                None => servers.push(given.clone()),
            }
        }
        let Some(selected) = &self.selected else {
            return Ok(servers);
        };
        for name in selected {
            if !servers.iter().any(|server| server.name == *name) {
                return Err(format!("--servers: there is no {name}"));
            }
        }
        let yardstick = self.suite.servers[0];
        servers.retain(|server| server.name == yardstick || selected.contains(&server.name));
        Ok(servers)
    }

    fn asks_for(&self, other: &Other) -> bool {
        let selected = self.selected.iter().flatten();
        let given = self.given.iter().map(|server| &server.name);
        self.with_others || selected.chain(given).any(|name| name == other.name)
    }

    /// Takes out the default servers that are not built; anything else must be there.
    fn keep_built(&self, servers: &mut Vec<Server>) -> Result<(), String> {
        for server in &*servers {
            let given = self.given.iter().any(|given| given.name == server.name);
            if !server.path.is_file() && (given || server.name == self.suite.servers[0]) {
                return Err(format!("{}: no such binary", server.path.display()));
            }
        }
        servers.retain(|server| {
            let built = server.path.is_file();
            if !built {
                println!("Skipping {}: {} is not built.\n", server.name, server.path.display());
            }
            built
        });
        Ok(())
    }
}

/// The whole numbers, with commas between them, that follow `option`.
fn numbers(option: &str, args: &mut impl Iterator<Item = String>) -> Result<Vec<usize>, String> {
    let text: String = cli::value(option, args)?;
    let numbers = text.split(',').map(str::parse).collect::<Result<_, _>>();
    numbers.map_err(|_| format!("{option} {text}: must be numbers such as 0,3"))
}

/// Where the two sides of a measurement run.
#[derive(Clone, Copy)]
struct Cores {
    server: usize,
    load: usize,
}

impl Cores {
    /// The first two cores this process may use.
    fn choose() -> Result<Self, String> {
        match host::usable_cores().map_err(|error| format!("usable cores: {error}"))?[..] {
            [server, load, ..] => Ok(Self { server, load }),
            _ => Err("two cores are needed, one for each side".to_owned()),
        }
    }
}

async fn run(options: &Options) -> Result<(), String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let directory = program.parent().ok_or("this program has no directory")?;
    let workloads = options.workloads()?;
    let mut servers = options.servers(directory)?;
    options.keep_built(&mut servers)?;
    let bench = Bench::new(options, directory)?;
    host::raise_open_file_limit().map_err(|error| format!("limit of open files: {error}"))?;
    if cfg!(debug_assertions) {
        eprintln!("This is not a release build: the numbers mean little.");
    }

    // By column, then server, then round.
    let mut samples = vec![vec![Vec::new(); servers.len()]; workloads.len()];
    for round in 0..options.rounds {
        for (column, workload) in workloads.iter().enumerate() {
            for row in rotation(servers.len(), round) {
                let server = &servers[row];
                let sample = bench
                    .measure(server, workload)
                    .await
                    .map_err(|error| format!("{}, {}: {error}", server.name, workload.name))?;
                eprintln!(
                    "round {}/{}, {}, {}: {} messages, {:.2} us CPU each, {:.0} % busy, \
                     p50 {:.0} us, p99 {:.0} us",
                    round + 1,
                    options.rounds,
                    workload.name,
                    server.name,
                    sample.messages,
                    sample.cpu,
                    100.0 * sample.busy,
                    sample.p50,
                    sample.p99,
                );
                samples[column][row].push(sample);
            }
        }
    }
    let results = results(options, &workloads, &servers, samples);
    print!("{}", header(options, &results, bench.cores));
    print!("{}", Report(&results));
    match &options.json {
        Some(path) => std::fs::write(path, results.to_json())
            .map_err(|error| format!("{}: {error}", path.display())),
        None => Ok(()),
    }
}

fn results(
    options: &Options,
    workloads: &[&Workload],
    servers: &[Server],
    samples: Vec<Vec<Vec<Sample>>>,
) -> Results {
    let suite = if options.suite.is_tls { "tls" } else { "plain" };
    Results {
        suite: options.framing.map_or(suite, Frames::text).to_owned(),
        kernel: host::kernel(),
        cpu_model: host::cpu_model(),
        cores: host::usable_cores().map_or(0, |cores| cores.len() as u64),
        compiler: host::compiler(),
        seconds: options.seconds,
        cells: workloads.iter().map(|workload| workload.name.to_owned()).collect(),
        servers: servers.iter().map(|server| server.name.clone()).collect(),
        samples,
    }
}

/// The order in which `servers` servers are measured in a round: each starts in turn.
fn rotation(servers: usize, round: u64) -> impl Iterator<Item = usize> {
    let first = (round % servers as u64) as usize;
    (first..servers).chain(0..first)
}

/// What all measurements have in common.
struct Bench {
    load: PathBuf,
    cores: Cores,
    seconds: f64,
    framing: Option<Frames>,
    /// With TLS, what the servers show.
    identity: Option<Identity>,
}

impl Bench {
    fn new(options: &Options, directory: &Path) -> Result<Self, String> {
        Ok(Self {
            load: directory.join("load"),
            cores: Cores::choose()?,
            seconds: options.seconds,
            framing: options.framing,
            identity: options.suite.is_tls.then(Identity::make).transpose()?,
        })
    }

    async fn measure(&self, server: &Server, workload: &Workload) -> Result<Sample, String> {
        let mut echo = start_on(self.cores.server, &mut self.server_command(server))?;
        let address = echo.address().await?.to_string();

        let mut load = start_on(self.cores.load, &mut self.load_command(&address, workload))?;
        match load.line(PATIENCE).await?.as_str() {
            "ready" => {}
            other => {
                return Err(format!("the load generator says {other:?} instead of ready"));
            }
        }

        tokio::time::sleep(SETTLE).await;
        let before = echo.cpu_time()?;
        load.tell("go\n").await?;
        let line = load.line(Duration::from_secs_f64(self.seconds) + PATIENCE).await?;
        tokio::time::sleep(SETTLE).await;
        let cpu = echo.cpu_time()?.since(&before);

        load.end().await?;
        echo.kill().await?;
        sample(&line, cpu)
    }

    fn server_command(&self, server: &Server) -> Command {
        let mut command = Command::new(&server.path);
        command.stdin(Stdio::null()).arg("127.0.0.1:0");
        if let Some(identity) = &self.identity {
            command.arg(identity.certificate()).arg(identity.key());
        }
        if let Some(frames) = self.framing {
            command.arg(frames.text());
        }
        command.args(server.arguments);
        command
    }

    fn load_command(&self, address: &str, workload: &Workload) -> Command {
        let mut command = Command::new(&self.load);
        command.stdin(Stdio::piped());
        command.arg(address).args(["--barrier", "--spin"]);
        command.args(["--connections", &workload.connections.to_string()]);
        command.args(["--size", &workload.size.to_string()]);
        command.args(["--seconds", &self.seconds.to_string()]);
        command.args(workload.options);
        if let Some(identity) = &self.identity {
            command.arg("--tls").arg(identity.certificate());
        }
        if let Some(frames) = self.framing {
            command.arg("--framing").arg(frames.text());
        }
        command
    }
}

/// Starts a program that stays on one core.
fn start_on(core: usize, command: &mut Command) -> Result<Program, String> {
    host::on_core(core, || Program::start(command))
        .map_err(|error| format!("binding to core {core}: {error}"))?
}

/// Combines the load generator's result with the server's CPU time.
fn sample(line: &str, cpu: Duration) -> Result<Sample, String> {
    let result: serde_json::Value =
        serde_json::from_str(line).map_err(|error| format!("{line:?}: {error}"))?;
    let number = |name: &str| {
        result[name].as_f64().ok_or_else(|| format!("the load generator's result has no {name}"))
    };
    let messages = number("messages")?;
    if messages == 0.0 {
        return Err("not one message was echoed".to_owned());
    }
    let cpu = cpu.as_secs_f64();
    Ok(Sample {
        messages: messages as u64,
        cpu: cpu * 1e6 / messages,
        busy: cpu / number("seconds")?,
        p50: number("p50_us")?,
        p99: number("p99_us")?,
        p999: number("p999_us")?,
        tls: result["tls"].as_str().map(str::to_owned),
    })
}

fn header(options: &Options, results: &Results, cores: Cores) -> String {
    let frames = options.framing.map_or(String::new(), |frames| format!("Frames: {frames}\n"));
    format!(
        "{frames}Linux {} ({}), {}, {}, server on core {}, load on core {}, {} rounds of {} s per cell\n",
        results.kernel,
        host::congestion_control(),
        results.cpu_model,
        results.compiler,
        cores.server,
        cores.load,
        options.rounds,
        options.seconds,
    )
}

/// The tables of what was measured.
struct Report<'a>(&'a Results);

impl fmt::Display for Report<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.agreed(out)?;
        self.cpu_table(out)?;
        self.latency_table(out)?;
        self.tail_table(out)
    }
}

impl Report<'_> {
    fn yardstick(&self) -> &str {
        &self.0.servers[0]
    }

    /// What TLS was agreed on. More than one line means that the servers did not do the same.
    fn agreed(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all = self.0.samples.iter().flatten().flatten();
        let agreed: BTreeSet<_> = all.filter_map(|sample| sample.tls.as_deref()).collect();
        agreed.iter().try_for_each(|tls| writeln!(out, "Agreed on: {tls}"))
    }

    /// CPU time per message: the yardstick's own, then every server's as a ratio to it.
    fn cpu_table(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpu = |sample: &Sample| sample.cpu;
        self.table_head(out, "CPU per message: median (min–max)")?;
        self.table_row(out, &format!("{}, µs", self.yardstick()), |column| {
            with_spread(&values(&column[0], cpu))
        })?;
        self.server_rows(out, |column, row| with_spread(&ratios(column, row, cpu)))
    }

    /// Latencies: the yardstick's own, then every server's as a ratio to it.
    fn latency_table(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (p50, p99) = (|sample: &Sample| sample.p50, |sample: &Sample| sample.p99);
        self.table_head(out, "Latency p50 / p99: medians")?;
        self.table_row(out, &format!("{}, µs", self.yardstick()), |column| {
            let median = |of: fn(&Sample) -> f64| stats::median(&values(&column[0], of));
            format!("{:.0} / {:.0}", median(p50), median(p99))
        })?;
        self.server_rows(out, |column, row| {
            let median = |of: fn(&Sample) -> f64| stats::median(&ratios(column, row, of));
            format!("{:.2} / {:.2}", median(p50), median(p99))
        })
    }

    /// How evenly a server treats its messages: the longest latencies relative to its own median.
    fn tail_table(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table_head(out, "Latency p99.9 relative to p50 of the same server: median")?;
        for (row, server) in self.0.servers.iter().enumerate() {
            self.table_row(out, server, |column| {
                let tails = values(&column[row], |sample| sample.p999 / sample.p50);
                format!("{:.1}", stats::median(&tails))
            })?;
        }
        Ok(())
    }

    fn table_head(&self, out: &mut fmt::Formatter<'_>, title: &str) -> fmt::Result {
        let names = self.0.cells.join(" | ");
        writeln!(out, "\n| {title} | {names} |\n|---|{}", "---:|".repeat(self.0.cells.len()))
    }

    fn server_rows(
        &self,
        out: &mut fmt::Formatter<'_>,
        cell: impl Fn(&[Vec<Sample>], usize) -> String,
    ) -> fmt::Result {
        self.0.servers.iter().enumerate().try_for_each(|(row, server)| {
            self.table_row(out, server, |column| {
                // The yardstick is the first row, and there is nothing to say about 1 to itself.
                if row == 0 { "1.00".to_owned() } else { cell(column, row) }
            })
        })
    }

    fn table_row(
        &self,
        out: &mut fmt::Formatter<'_>,
        name: &str,
        cell: impl Fn(&[Vec<Sample>]) -> String,
    ) -> fmt::Result {
        let cells: Vec<_> = self.0.samples.iter().map(|column| cell(column)).collect();
        writeln!(out, "| {name} | {} |", cells.join(" | "))
    }
}

fn with_spread(values: &[f64]) -> String {
    let Spread { low, median, high } = Spread::of(values);
    format!("{median:.2} ({low:.2}–{high:.2})")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Result<Options, String> {
        Options::parse(words.iter().map(ToString::to_string))
    }

    fn names(words: &[&str]) -> Result<Vec<String>, String> {
        let servers = parse(words)?.servers(Path::new("/bin"))?;
        Ok(servers.into_iter().map(|server| server.name).collect())
    }

    #[test]
    fn servers_are_selected_and_added_and_the_yardstick_stays() {
        assert_eq!(names(&[]).unwrap(), PLAIN.servers);
        assert_eq!(names(&["--tls"]).unwrap(), TLS.servers);
        assert_eq!(names(&["--framing", "lines"]).unwrap(), FRAMED.servers);
        assert_eq!(names(&["--servers", "tokio-echo"]).unwrap(), ["epoll-echo", "tokio-echo"]);
        let added = ["mine=/tmp/mine", "--servers", "mine"];
        assert_eq!(names(&added).unwrap(), ["epoll-echo", "mine"]);
        assert!(names(&["--servers", "nobody"]).is_err());
        let replaced = parse(&["tokio-echo=/tmp/t"]).unwrap().servers(Path::new("/bin")).unwrap();
        assert_eq!(names(&["--all"]).unwrap().len(), PLAIN.servers.len() + PLAIN.others.len());
        let other = ["--servers", "onbytes-task-echo"];
        assert_eq!(names(&other).unwrap(), ["epoll-echo", "onbytes-task-echo"]);
        assert_eq!(replaced[1], Server::new("tokio-echo", "/tmp/t".into()));
    }

    #[test]
    fn the_loop_with_a_small_buffer_is_the_same_binary() {
        let last =
            |words: &[&str]| parse(words)?.servers(Path::new("/bin")).map(|mut all| all.pop());
        let small = Server {
            arguments: &["64K"],
            ..Server::new("epoll-echo-64k", "/bin/epoll-echo".into())
        };
        assert_eq!(last(&["--servers", "epoll-echo-64k"]), Ok(Some(small.clone())));
        let given = Server { path: "/tmp/e".into(), ..small };
        assert_eq!(last(&["epoll-echo-64k=/tmp/e"]), Ok(Some(given)));
    }

    #[test]
    fn columns_are_selected_by_a_part_of_their_name_or_by_number() {
        let count = |words| parse(words).unwrap().workloads().map(|w| w.len());
        assert_eq!(count(&[]), Ok(6));
        assert_eq!(count(&["--only", "64 B"]), Ok(3));
        assert_eq!(count(&["--tls"]), Ok(6));
        assert_eq!(count(&["--only", "MiB", "--only", "close"]), Ok(2));
        assert!(count(&["--only", "2 GiB"]).is_err());
        assert_eq!(count(&["--cells", "0,5"]), Ok(2));
        assert_eq!(count(&["--cells", "0,5", "--only", "64 B"]), Ok(1));
        assert!(count(&["--cells", "6"]).is_err());
    }

    #[test]
    fn nonsense_is_refused() {
        for words in [
            &["--rounds", "0"][..],
            &["--seconds", "NaN"],
            &["--fast"],
            &["-x=y"],
            &["--cells", "first"],
            &["--framing", "x"],
            &["--tls", "--framing", "lines"],
            &["--framing", "lines", "--tls"],
        ] {
            assert!(parse(words).is_err(), "{words:?}");
        }
    }

    #[test]
    fn every_server_is_first_in_turn() {
        let order = |round| rotation(3, round).collect::<Vec<_>>();
        assert_eq!([order(0), order(1), order(2)], [[0, 1, 2], [1, 2, 0], [2, 0, 1]]);
        assert_eq!(order(3), order(0));
    }

    #[test]
    fn a_sample_is_per_message() {
        let line = r#"{"messages":1000,"seconds":0.5,"p50_us":10.0,"p99_us":20.0,"p999_us":30.0,"tls":"x"}"#;
        let sample = sample(line, Duration::from_millis(250)).unwrap();
        let tls = Some("x".to_owned());
        let expected = Sample {
            messages: 1_000,
            cpu: 250.0,
            busy: 0.5,
            p50: 10.0,
            p99: 20.0,
            p999: 30.0,
            tls,
        };
        assert_eq!(sample, expected);
        assert!(super::sample(r#"{"messages":0}"#, Duration::ZERO).is_err());
        assert!(super::sample("oh no", Duration::ZERO).is_err());
    }

    #[test]
    fn ratios_are_within_rounds() {
        let rounds = |values: [f64; 3]| {
            values
                .map(|cpu| Sample { cpu, p50: 1.0, p99: 1.0, p999: 3.0, ..Sample::default() })
                .to_vec()
        };
        let results = Results {
            cells: vec!["64 B".to_owned()],
            servers: vec!["epoll-echo".to_owned(), "other".to_owned()],
            samples: vec![vec![rounds([1.0, 2.0, 4.0]), rounds([2.0, 3.0, 4.0])]],
            ..Results::default()
        };
        let report = Report(&results).to_string();
        for line in [
            "| epoll-echo, µs | 2.00 (1.00–4.00) |",
            "| epoll-echo | 1.00 |",
            "| other | 1.50 (1.00–2.00) |",
            "| other | 1.00 / 1.00 |",
            "| other | 3.0 |",
        ] {
            assert!(report.contains(line), "{line} is not in {report}");
        }
    }
}
