//! `cargo run --example swap`: swaps the service of a running listener.
//!
//! The first client keeps the service it has; the second one gets the new one.

use onbytes::{
    Bytes, Client, ClientConfiguration, Listener, ListenerConfiguration, Result, Service,
    service_fn,
};

/// A service that answers everything with `greeting`.
fn greeter(greeting: &'static str) -> impl Service {
    service_fn(move |_caller| async move {
        Ok(move |_: Bytes| async move { Ok(Some(Bytes::from_static(greeting.as_bytes()))) })
    })
}

async fn ask(client: &mut Client) -> Result<String> {
    client.write_bytes("?").await?;
    let answer = client.read_bytes().await?.unwrap_or_default();
    Ok(String::from_utf8(answer.to_vec())?)
}

#[tokio::main]
async fn main() -> Result<()> {
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new())?;
    listener.attach(greeter("the old service"));
    listener.start().await?;
    let port = listener.local_addr().expect("it listens").port();

    let mut first = Client::connect("127.0.0.1", port, ClientConfiguration::new()).await?;
    println!("first client: {}", ask(&mut first).await?);

    listener.attach(greeter("the new service"));
    let mut second = Client::connect("127.0.0.1", port, ClientConfiguration::new()).await?;
    println!("second client: {}", ask(&mut second).await?);
    println!("first client: {}", ask(&mut first).await?);
    Ok(())
}
