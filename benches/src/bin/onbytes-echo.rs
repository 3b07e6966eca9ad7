//! The echo server of the comparison that is built with onbytes: what a user would write, on one
//! thread.
//!
//! `cargo run --release -p onbytes-benches --bin onbytes-echo -- 127.0.0.1:0`

use std::net::SocketAddr;

use onbytes::{Bytes, Caller, ConnectionService, Listener, ListenerConfiguration, Result, Service};

struct Echo;

impl Service for Echo {
    type Connection = Self;

    async fn on_connect(&self, _: &Caller) -> Result<Self> {
        Ok(Self)
    }
}

impl ConnectionService for Echo {
    async fn on_bytes(&mut self, data: Bytes, _: &Caller) -> Result<Option<Bytes>> {
        Ok(Some(data))
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:0".to_owned());
    let address: SocketAddr = address.parse().map_err(|_| "give an address such as 127.0.0.1:0")?;
    let listener = Listener::new(address, ListenerConfiguration::new())?;
    listener.on_event(|event| {
        if let onbytes::Event::Listening { local_addr, .. } = event {
            println!("listening on {local_addr}");
        }
    });
    listener.serve(Echo).await?;
    Ok(())
}
