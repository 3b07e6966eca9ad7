//! `onbytes-echo` with a service that writes its bytes within the callback rather than returning them.
//!
//! `cargo run --release -p onbytes-benches --bin onbytes-write-echo -- 127.0.0.1:0`

use onbytes::{ListenerConfiguration, Result};
use onbytes_benches::{cli, echo};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    echo::serve_by_writing(cli::listen_address()?, ListenerConfiguration::new()).await
}
