//! `cargo run --example graceful`: a graceful shutdown with a deadline.
//!
//! Three clients are connected when the stop begins: one is idle, one waits for an answer that takes
//! a moment, and one is in the middle of something that takes too long.

use std::time::Duration;

use onbytes::{
    Bytes, Caller, Client, ClientConfiguration, Close, ConnectionService, Drain, Listener,
    ListenerConfiguration, Result, Service,
};

struct Work;

impl Service for Work {
    type Connection = Worker;

    async fn on_connect(&self, caller: &Caller) -> Result<Worker> {
        caller.write_bytes("ready").await?;
        Ok(Worker { in_the_middle: false })
    }
}

struct Worker {
    in_the_middle: bool,
}

impl ConnectionService for Worker {
    async fn on_bytes(&mut self, data: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        match &data[..] {
            b"answer" => {
                caller.write_bytes("working").await?;
                tokio::time::sleep(Duration::from_millis(300)).await;
                Ok(Some("the answer".into()))
            }
            _ => {
                self.in_the_middle = true;
                Ok(Some("begun".into()))
            }
        }
    }

    async fn on_drain(&mut self, _: &Caller) -> Drain {
        if self.in_the_middle { Drain::Stay } else { Drain::CloseWhenIdle }
    }

    async fn on_close(&mut self, close: &Close) {
        println!("a connection ends: {}", close.reason);
    }
}

/// A client that has sent `request`, if any, and knows that the server has begun with it.
async fn client(port: u16, request: &'static str) -> Result<Client> {
    let mut client = Client::connect("127.0.0.1", port, ClientConfiguration::new()).await?;
    client.read_bytes().await?;
    if !request.is_empty() {
        client.write_bytes(request).await?;
        client.read_bytes().await?;
    }
    Ok(client)
}

#[tokio::main]
async fn main() -> Result<()> {
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new())?;
    listener.attach(Work);
    listener.start().await?;
    let port = listener.local_addr().expect("it listens").port();

    let _idle = client(port, "").await?;
    let mut waiting = client(port, "answer").await?;
    let _busy = client(port, "something long").await?;

    let report = listener.graceful_stop(Duration::from_secs(1)).await;
    println!("{} ended in order, {} at the deadline", report.clean, report.forced);
    let answer = waiting.read_bytes().await?.unwrap_or_default();
    println!("the answer still came: {}", String::from_utf8_lossy(&answer));
    Ok(())
}
