//! The echo server of `workers`: on several threads, with some work for each message.
//!
//! `cargo run --release -p onbytes-benches --bin onbytes-workers-echo -- 127.0.0.1:0 own 2 50`
//!
//! The arguments: where to listen; `own` (each thread with a runtime of its own) or `shared` (one runtime
//! for all); the number of threads; microseconds of work for each chunk.

use onbytes::{Bytes, Caller, ConnectionService, ListenerConfiguration, Result, Service, Workers};
use onbytes_benches::{cli, echo};
use std::hint::black_box;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::runtime::{Builder, Runtime};

fn main() -> ExitCode {
    cli::exit(run())
}

fn run() -> std::result::Result<(), String> {
    let address = cli::listen_address()?;
    let mut args = std::env::args().skip(2);
    let model = args.next().ok_or("give own or shared behind the address")?;
    let threads = cli::count("the number of threads:", &mut args, 1024)?;
    let work = cli::value("the microseconds of work:", &mut args)?;
    let (runtime, workers) = on_threads(&model, threads as usize)?;
    let service = Working { turns: turns_in(Duration::from_micros(work)) };
    let serving = echo::serve_with(address, ListenerConfiguration::new().workers(workers), service);
    runtime.block_on(serving).map_err(|error| error.to_string())
}

fn on_threads(model: &str, threads: usize) -> std::result::Result<(Runtime, Workers), String> {
    let (mut builder, workers) = match model {
        "own" => (Builder::new_current_thread(), Workers::Threads(threads)),
        "shared" => (Builder::new_multi_thread(), Workers::Current),
        other => return Err(format!("{other}: own or shared")),
    };
    let runtime = builder.worker_threads(threads).enable_all().build();
    runtime.map(|runtime| (runtime, workers)).map_err(|error| error.to_string())
}

/// Echoes after so many turns of work.
#[derive(Clone)]
struct Working {
    turns: u64,
}

impl Service for Working {
    type Connection = Self;

    async fn on_connect(&self, _: &Caller) -> Result<Self> {
        Ok(self.clone())
    }
}

impl ConnectionService for Working {
    async fn on_bytes(&mut self, data: Bytes, _: &Caller) -> Result<Option<Bytes>> {
        black_box(turn(self.turns));
        Ok(Some(data))
    }
}

/// How many turns this machine makes in a time. The work is counted rather than timed, so that a thread that
/// is interrupted still owes all of it.
fn turns_in(time: Duration) -> u64 {
    const TURNS: u64 = 20_000_000;
    let begun = Instant::now();
    black_box(turn(black_box(TURNS)));
    (TURNS as f64 * time.as_secs_f64() / begun.elapsed().as_secs_f64()) as u64
}

fn turn(turns: u64) -> u64 {
    (0..turns).fold(1, |hash: u64, turn| (hash ^ turn).wrapping_mul(0x0000_0100_0000_01B3))
}
