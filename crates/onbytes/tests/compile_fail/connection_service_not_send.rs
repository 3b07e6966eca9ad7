use std::rc::Rc;

use onbytes::{Bytes, Caller, ConnectionService, Result};

struct Counter {
    count: Rc<u64>,
}

impl ConnectionService for Counter {
    async fn on_bytes(&mut self, _: Bytes, _: &Caller) -> Result<Option<Bytes>> {
        Ok(Some(self.count.to_string().into()))
    }
}

fn main() {}
