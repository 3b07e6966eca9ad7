//! `cargo run --example echo`: sends back what it gets, on port 3000.
//!
//! Try it with `nc 127.0.0.1 3000`; Ctrl-C stops it gracefully.

use onbytes::{Bytes, Listener, ListenerConfiguration, Result, service_fn};

#[tokio::main]
async fn main() -> Result<()> {
    let echo = service_fn(|_caller| async { Ok(|data: Bytes| async { Ok(Some(data)) }) });
    Listener::new(3000, ListenerConfiguration::new())?
        .serve(echo)
        .await?;
    Ok(())
}
