use std::rc::Rc;

use onbytes::{Bytes, Caller, ConnectionService, Result};

struct Echo;

impl ConnectionService for Echo {
    async fn on_bytes(&mut self, data: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        let shared = Rc::new(data.clone());
        caller.write_bytes(data).await?;
        Ok(Some(Bytes::clone(&shared)))
    }
}

fn main() {}
