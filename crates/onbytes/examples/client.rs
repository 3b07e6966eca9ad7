//! `cargo run --example client`: says hello to an echo server on port 3000, or the one given.
//!
//! Start one with `cargo run --example echo` in another terminal.

use std::time::Duration;

use onbytes::{Client, ClientConfiguration, Result};

#[tokio::main]
async fn main() -> Result<()> {
    let port = std::env::args().nth(1).map_or(3000, |port| port.parse().expect("a port"));
    let config = ClientConfiguration::new()
        .connect_timeout(Duration::from_secs(5))
        .timeout(Duration::from_secs(5));

    let mut client = Client::connect("127.0.0.1", port, config).await?;
    client.write_bytes("hello from a client\n").await?;
    // Half-close: the server sees our end and answers everything before it ends its side.
    client.finish().await?;
    while let Some(data) = client.read_bytes().await? {
        print!("{}", String::from_utf8_lossy(&data));
    }
    client.close().await
}
