//! Measures what a second worker brings, in both models: messages per second of two threads to those
//! of one, CPU time and latency.
//!
//! ```text
//! cargo build --release -p onbytes-benches
//! target/release/workers [--rounds N] [--seconds S] [--work MICROSECONDS] [--connections N]
//! ```
//!
//! Server and load generator may use all cores, so that the generator does not hide what the server gains
//! each message costs the server some work (default 100 microseconds) that the generator does not have. With
//! `--work 0` the report is of the cost of the models alone. Rounds are interleaved.

use onbytes_benches::host::{self, CpuTime};
use onbytes_benches::{cli, stats};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

/// The models, and the threads of each.
const SERVERS: [(&str, u64); 4] = [("own", 1), ("own", 2), ("shared", 1), ("shared", 2)];

fn main() -> ExitCode {
    cli::exit(Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)))
}

struct Options {
    rounds: u64,
    seconds: f64,
    work: u64,
    connections: u64,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self { rounds: 5, seconds: 2.0, work: 100, connections: 100 };
        while let Some(word) = args.next() {
            match word.as_str() {
                "--rounds" => options.rounds = cli::count(&word, &mut args, 1_000)?,
                "--seconds" => options.seconds = cli::value(&word, &mut args)?,
                "--work" => options.work = cli::value(&word, &mut args)?,
                "--connections" => options.connections = cli::count(&word, &mut args, 20_000)?,
                other => return Err(format!("{other}: unknown argument")),
            }
        }
        Ok(options)
    }
}

/// What one server did in one round.
struct Sample {
    per_second: f64,
    /// CPU time for each message, in microseconds.
    cpu: f64,
    /// Latencies, in microseconds.
    p50: f64,
    p99: f64,
}

fn run(options: &Options) -> Result<(), String> {
    host::raise_open_file_limit().map_err(|error| format!("the limit of open files: {error}"))?;
    let mut samples: [Vec<Sample>; SERVERS.len()] = Default::default();
    for round in 0..options.rounds {
        for place in 0..SERVERS.len() {
            let server = (place + round as usize) % SERVERS.len();
            samples[server].push(measure(SERVERS[server], options)?);
        }
    }
    report(options, &samples);
    Ok(())
}

fn report(options: &Options, samples: &[Vec<Sample>; SERVERS.len()]) {
    let Options { rounds, seconds, work, connections } = options;
    println!("{}, {}", host::kernel(), host::cpu_model());
    println!("{connections} connections, {work} us of work, {rounds} rounds of {seconds} s\n");
    println!(
        "| model | threads | messages/s | to one thread, median (min-max) | CPU us per message | p50 / p99 us |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    for (index, (model, threads)) in SERVERS.iter().enumerate() {
        let one = SERVERS.iter().position(|other| *other == (*model, 1)).unwrap_or(index);
        let rounds = samples[index].iter().zip(&samples[one]);
        let ratios: Vec<f64> =
            rounds.map(|(sample, one)| sample.per_second / one.per_second).collect();
        let of = |figure: fn(&Sample) -> f64| {
            stats::median(&samples[index].iter().map(figure).collect::<Vec<_>>())
        };
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        println!(
            "| {model} | {threads} | {:.0} | {:.2} ({least:.2}-{most:.2}) | {:.2} | {:.0} / {:.0} |",
            of(|sample| sample.per_second),
            stats::median(&ratios),
            of(|sample| sample.cpu),
            of(|sample| sample.p50),
            of(|sample| sample.p99),
        );
    }
}

/// A server, killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start((model, threads): (&str, u64), work: u64) -> Result<Self, String> {
        let mut child = Command::new(beside("onbytes-workers-echo")?)
            .args(["127.0.0.1:0", model, &threads.to_string(), &work.to_string()])
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start onbytes-workers-echo: {error}"))?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
        let address = cli::loopback(line.trim().rsplit(' ').next().unwrap_or_default())?;
        Ok(Self { child, address })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn measure(server: (&str, u64), options: &Options) -> Result<Sample, String> {
    let server = Server::start(server, options.work)?;
    let before = CpuTime::read(server.child.id()).map_err(|error| error.to_string())?;
    let output = Command::new(beside("load")?)
        .arg(server.address.to_string())
        .args(["--size", "64", "--connections", &options.connections.to_string()])
        .args(["--seconds", &options.seconds.to_string()])
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| format!("cannot start load: {error}"))?;
    let after = CpuTime::read(server.child.id()).map_err(|error| error.to_string())?;
    let result: serde_json::Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("load: {error}"))?;
    let figure = |name: &str| result[name].as_f64().ok_or(format!("load told no {name}"));
    let messages = figure("messages")?;
    Ok(Sample {
        per_second: messages / figure("seconds")?,
        cpu: after.since(&before).as_secs_f64() * 1e6 / messages,
        p50: figure("p50_us")?,
        p99: figure("p99_us")?,
    })
}

/// Another program of this build.
fn beside(name: &str) -> Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    Ok(own.with_file_name(name))
}
