//! `cargo run --example http_like`: answers HTTP-like requests, on port 3000 or the one given.
//!
//! Try it with `curl http://127.0.0.1:3000/hello`. A request may come in any number of chunks, and a
//! chunk may hold several requests: what is incomplete is kept until the rest arrives.

use onbytes::{
    Bytes, Caller, ConnectionService, Event, Listener, ListenerConfiguration, Result, Service,
};

/// The longest head of a request.
const LONGEST: usize = 16 * 1024;

struct Requests;

/// One connection: the part of a request that has arrived.
#[derive(Default)]
struct Conversation {
    received: Vec<u8>,
}

impl Service for Requests {
    type Connection = Conversation;

    async fn on_connect(&self, _: &Caller) -> Result<Conversation> {
        Ok(Conversation::default())
    }
}

impl ConnectionService for Conversation {
    async fn on_bytes(&mut self, data: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        self.received.extend_from_slice(&data);
        let mut replies = Vec::new();
        while let Some(end) = find(&self.received, b"\r\n\r\n") {
            let head = String::from_utf8(self.received.drain(..end + 4).collect())?;
            replies.extend_from_slice(&answer(&head));
        }
        if self.received.len() > LONGEST {
            caller.write_bytes(reply("431 Request Header Fields Too Large", "too long\n")).await?;
            caller.close();
        }
        Ok((!replies.is_empty()).then(|| replies.into()))
    }
}

fn find(data: &[u8], pattern: &[u8]) -> Option<usize> {
    data.windows(pattern.len()).position(|window| window == pattern)
}

fn answer(head: &str) -> Vec<u8> {
    let mut words = head.split_whitespace();
    match (words.next(), words.next()) {
        (Some("GET"), Some(path)) => reply("200 OK", &format!("you asked for {path}\n")),
        _ => reply("405 Method Not Allowed", "only GET\n"),
    }
}

fn reply(status: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n{body}").into_bytes()
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
    listener.serve(Requests).await?;
    Ok(())
}
