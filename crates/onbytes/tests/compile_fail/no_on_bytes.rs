use onbytes::{Bytes, Caller, ConnectionService, Result};

struct Echo;

impl ConnectionService for Echo {
    async fn on_end(&mut self, _: &Caller) -> Result<Option<Bytes>> {
        Ok(None)
    }
}

fn main() {}
