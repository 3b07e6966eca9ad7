//! The echo server of frames that is built with onbytes: `onbytes-echo` with one setting more.
//!
//! `cargo run --release -p onbytes-benches --bin onbytes-framed-echo -- 127.0.0.1:0 lines`

use onbytes::{Framing, ListenerConfiguration, Result};
use onbytes_benches::{cli, echo};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let (address, framing) = cli::framed_server::<Framing>()?;
    echo::serve(address, ListenerConfiguration::new().framing(framing)).await
}
