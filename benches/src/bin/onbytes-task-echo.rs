//! `onbytes-echo` with a service that hands its bytes to another task, one for all connections, which writes them.
//!
//! `cargo run --release -p onbytes-benches --bin onbytes-task-echo -- 127.0.0.1:0`

use onbytes::{ListenerConfiguration, Result};
use onbytes_benches::{cli, echo};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    echo::serve_by_task(cli::listen_address()?, ListenerConfiguration::new()).await
}
