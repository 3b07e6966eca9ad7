//! The `onbytes` program: TCP servers, a TCP client and certificates at the command line.
//!
//! Exit code 0: all went well. 1: something outside failed, such as a port or a peer. 2: the
//! command line is wrong. With 1 and 2 one line on stderr says what is the matter.

mod args;
mod bounds;
mod certs;
mod chat;
mod connect;
mod failure;
mod logging;
mod mistake;
mod password;
mod serve;
mod tls;
mod values;

use std::process::ExitCode;

use args::Request;
use failure::Failure;

fn main() -> ExitCode {
    run().unwrap_or_else(|failure| failure.tell())
}

fn run() -> Result<ExitCode, Failure> {
    match args::parse(std::env::args_os())? {
        Request::Serve(args) => serve::run(&args),
        Request::Connect(args) => connect::run(&args),
        Request::Certs(args) => certs::run(&args),
        Request::Show(text) => {
            // A reader that has gone has seen what it wanted.
            let _ = text.print();
            Ok(ExitCode::SUCCESS)
        }
    }
}
