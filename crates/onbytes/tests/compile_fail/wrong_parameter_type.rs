use onbytes::{Bytes, Caller, ConnectionService, Result};

struct Echo;

impl ConnectionService for Echo {
    async fn on_bytes(&mut self, data: Vec<u8>, _: &Caller) -> Result<Option<Bytes>> {
        Ok(Some(data.into()))
    }
}

fn main() {}
