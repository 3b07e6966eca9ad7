use onbytes::{Bytes, Caller, ConnectionService, Result};

struct Echo;

impl ConnectionService for Echo {
    async fn on_bytes(&mut self, data: Bytes, _: &Caller) -> Result<Bytes> {
        Ok(data)
    }
}

fn main() {}
