//! `cargo run --example messages`: adds up the numbers that it gets, on port 3000 or the one given.
//!
//! Try it with `nc 127.0.0.1 3000` and a number on each line. A codec makes numbers of what comes, so
//! the service knows nothing of bytes; it stands on tokio-util's codec for lines.

use onbytes::{
    Caller, Error, Event, Listener, ListenerConfiguration, MessageService, Messages, Result,
    service_fn,
};
use tokio_util::bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder, LinesCodec};

struct Numbers(LinesCodec);

impl Decoder for Numbers {
    // What is no number is an item too: an error would end the connection.
    type Item = Result<i64, String>;
    type Error = Error;

    fn decode(&mut self, received: &mut BytesMut) -> Result<Option<Self::Item>> {
        let line = self.0.decode(received).map_err(|error| error.to_string())?;
        Ok(line.map(|line| line.parse().map_err(|_| line)))
    }
}

impl Encoder<Result<i64, String>> for Numbers {
    type Error = Error;

    fn encode(&mut self, reply: Result<i64, String>, replies: &mut BytesMut) -> Result<()> {
        let line = reply.map_or_else(|line| format!("no number: {line}"), |sum| sum.to_string());
        self.0.encode(line, replies).map_err(|error| error.to_string().into())
    }
}

/// The sum of one connection's numbers.
struct Sum(i64);

impl MessageService<Result<i64, String>> for Sum {
    type Reply = Result<i64, String>;

    async fn on_message(
        &mut self,
        number: Result<i64, String>,
        _: &Caller,
    ) -> Result<Option<Self::Reply>> {
        self.0 = self.0.wrapping_add(*number.as_ref().unwrap_or(&0));
        Ok(Some(number.map(|_| self.0)))
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let port = std::env::args().nth(1).map_or(3000, |port| port.parse().expect("a port"));
    let listener = Listener::new(port, ListenerConfiguration::new().local_host("127.0.0.1"))?;
    listener.on_event(|event| {
        if let Event::Listening { local_addr, .. } = event {
            println!("listening on {local_addr}");
        }
    });
    let adder = service_fn(|_caller| async {
        let numbers = Numbers(LinesCodec::new_with_max_length(100));
        Ok(Messages::new(numbers, Sum(0)))
    });
    listener.serve(adder).await?;
    Ok(())
}
