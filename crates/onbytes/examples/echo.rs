//! `cargo run --example echo`: sends back what it gets, on port 3000 or the one given.
//!
//! Try it with `nc 127.0.0.1 3000`; Ctrl-C stops it gracefully.

use onbytes::{Bytes, Event, Listener, ListenerConfiguration, Result, service_fn};

#[tokio::main]
async fn main() -> Result<()> {
    let port = std::env::args().nth(1).map_or(3000, |port| port.parse().expect("a port"));
    let echo = service_fn(|_caller| async { Ok(|data: Bytes| async { Ok(Some(data)) }) });

    let listener = Listener::new(port, ListenerConfiguration::new().local_host("127.0.0.1"))?;
    listener.on_event(|event| {
        if let Event::Listening { local_addr, .. } = event {
            println!("listening on {local_addr}");
        }
    });
    listener.serve(echo).await?;
    Ok(())
}
