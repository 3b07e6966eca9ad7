use onbytes::{Bytes, Caller, Close, ConnectionService, Drain, Error, Result, Service};

struct Everything;

impl Service for Everything {
    type Connection = Connection;
    async fn on_connect(&self, _: &Caller) -> Result<Connection> {
        Ok(Connection { count: 0 })
    }
}

struct Connection {
    count: usize,
}

impl ConnectionService for Connection {
    async fn on_bytes(&mut self, data: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        self.count += std::str::from_utf8(&data)?.len();
        caller.write_bytes("got it").await?;
        Ok(Some(data))
    }
    async fn on_end(&mut self, _: &Caller) -> Result<Option<Bytes>> {
        Ok(None)
    }
    async fn on_error(&mut self, error: Error, _: &Caller) -> Result<()> {
        Err(error)
    }
    async fn on_drain(&mut self, _: &Caller) -> Drain {
        Drain::Stay
    }
    async fn on_close(&mut self, close: &Close) {
        let _ = close.reason;
    }
}

fn main() {
    fn is_service(_: impl Service) {}
    is_service(Everything);
}
