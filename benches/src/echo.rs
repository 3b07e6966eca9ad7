//! The echo services of the servers that are built with onbytes: what a user would write.

use onbytes::{Bytes, Caller, ConnectionService, Listener, ListenerConfiguration, Result, Service};
use std::net::SocketAddr;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// Chunks that may wait for the task of [`serve_by_task`] before those who bring more wait themselves.
const WAITING: usize = 1_024;

/// Returns what it gets.
pub struct Returned;

impl Service for Returned {
    type Connection = Self;

    async fn on_connect(&self, _: &Caller) -> Result<Self> {
        Ok(Self)
    }
}

impl ConnectionService for Returned {
    async fn on_bytes(&mut self, data: Bytes, _: &Caller) -> Result<Option<Bytes>> {
        Ok(Some(data))
    }
}

/// Writes what it gets within the callback, and returns nothing.
pub struct Written;

impl Service for Written {
    type Connection = Self;

    async fn on_connect(&self, _: &Caller) -> Result<Self> {
        Ok(Self)
    }
}

impl ConnectionService for Written {
    async fn on_bytes(&mut self, data: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        caller.write_bytes(data).await?;
        Ok(None)
    }
}

/// Hands what it gets to a task that writes it.
#[derive(Clone)]
struct Handed(Sender<(Caller, Bytes)>);

impl Service for Handed {
    type Connection = Self;

    async fn on_connect(&self, _: &Caller) -> Result<Self> {
        Ok(self.clone())
    }
}

impl ConnectionService for Handed {
    async fn on_bytes(&mut self, data: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        // The task ends with the program.
        let _ = self.0.send((caller.clone(), data)).await;
        Ok(None)
    }
}

/// Writes to all connections, one chunk after the other.
async fn write(mut chunks: Receiver<(Caller, Bytes)>) {
    while let Some((caller, data)) = chunks.recv().await {
        // A connection that has ended meanwhile is no matter of the others.
        let _ = caller.write_bytes(data).await;
    }
}

/// Serves echo until a signal, after telling the runner where.
pub async fn serve(address: SocketAddr, config: ListenerConfiguration) -> Result<()> {
    serve_with(address, config, Returned).await
}

/// The same with a service that writes the bytes rather than returning them.
pub async fn serve_by_writing(address: SocketAddr, config: ListenerConfiguration) -> Result<()> {
    serve_with(address, config, Written).await
}

/// The same with one task that all connections hand their bytes to, and that writes them.
pub async fn serve_by_task(address: SocketAddr, config: ListenerConfiguration) -> Result<()> {
    let (sender, receiver) = mpsc::channel(WAITING);
    tokio::spawn(write(receiver));
    serve_with(address, config, Handed(sender)).await
}

/// The same with any service.
pub async fn serve_with(
    address: SocketAddr,
    config: ListenerConfiguration,
    service: impl Service,
) -> Result<()> {
    let listener = Listener::new(address, config)?;
    listener.on_event(|event| {
        if let onbytes::Event::Listening { local_addr, .. } = event {
            crate::cli::announce(*local_addr);
        }
    });
    listener.serve(service).await?;
    Ok(())
}
