use onbytes::{BoxConnectionService, Service};

struct Echo;

impl Service for Echo {
    type Connection = BoxConnectionService;
}

fn main() {}
