//! An echo server that is built with ntex on Tokio: one worker, and for each connection a dispatcher with the
//! codec of plain bytes and a service that returns what it gets.
//!
//! `cargo run --release -p onbytes-benches --bin ntex-echo -- 127.0.0.1:7000`

use ntex::service::fn_service;
use onbytes_benches::{cli, ntex_echo};
use std::io;

#[ntex::main]
async fn main() -> io::Result<()> {
    let listener = ntex_echo::listen(cli::listen_address().map_err(io::Error::other)?)?;
    ntex::server::ServerBuilder::new()
        .listen("echo", listener, async |_| fn_service(ntex_echo::echo))?
        .workers(1)
        .run()
        .await
}
