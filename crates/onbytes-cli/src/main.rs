//! The `onbytes` program: TCP servers, a TCP client, a load generator, framings and certificates at the command line.
//!
//! Exit code 0: all went well. 1: something outside failed, such as a port or a peer. 2: the
//! command line is wrong. With 1 and 2 one line on stderr says what is the matter.

mod args;
mod bench;
mod bounds;
mod certs;
mod chat;
mod connect;
mod failure;
mod framing;
mod logging;
mod mistake;
mod notation;
mod password;
mod serve;
mod tls;
mod values;

use std::fs::File;
use std::process::ExitCode;

use args::Request;
use failure::Failure;

fn main() -> ExitCode {
    run().unwrap_or_else(|failure| failure.tell())
}

fn run() -> Result<ExitCode, Failure> {
    match args::parse(std::env::args_os())? {
        Request::Serve(args) => {
            check_files()?;
            serve::run(&args)
        }
        Request::Connect(args) => {
            check_files()?;
            connect::run(&args)
        }
        Request::Bench(args) => {
            check_files()?;
            bench::run(&args)
        }
        Request::Framing(args) => framing::run(&args),
        Request::Certs(args) => certs::run(&args),
        Request::Show(text) => {
            // A reader that has gone has seen what it wanted.
            let _ = text.print();
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// Whether the files that a runtime opens at its start can be had. Tokio panics where they cannot.
fn check_files() -> Result<(), Failure> {
    const NEEDED: usize = 8;
    let opened: Result<Vec<_>, _> = (0..NEEDED).map(|_| File::open("/dev/null")).collect();
    opened.map(drop).map_err(|error| {
        Failure::outside(format!("cannot open the {NEEDED} files that it takes to start: {error}"))
            .hint("raise the limit of open files (ulimit -n) to 32 or more")
    })
}
