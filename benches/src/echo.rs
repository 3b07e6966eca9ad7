//! The echo service of the servers that are built with onbytes: what a user would write.

use onbytes::{Bytes, Caller, ConnectionService, Listener, ListenerConfiguration, Result, Service};
use std::net::SocketAddr;

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

/// Serves echo until a signal, after telling the runner where.
pub async fn serve(address: SocketAddr, config: ListenerConfiguration) -> Result<()> {
    let listener = Listener::new(address, config)?;
    listener.on_event(|event| {
        if let onbytes::Event::Listening { local_addr, .. } = event {
            crate::cli::announce(*local_addr);
        }
    });
    listener.serve(Echo).await?;
    Ok(())
}
