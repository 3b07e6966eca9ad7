//! The echo server of the comparison that is built with onbytes, on one thread.
//!
//! `cargo run --release -p onbytes-benches --bin onbytes-echo -- 127.0.0.1:0`

use onbytes::{ListenerConfiguration, Result};
use onbytes_benches::{cli, echo};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    echo::serve(cli::listen_address()?, ListenerConfiguration::new()).await
}
