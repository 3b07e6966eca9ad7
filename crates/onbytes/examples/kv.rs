//! `cargo run --example kv`: keeps values by key for all who connect, on port 3000 or the one given.
//!
//! Try it with `nc 127.0.0.1 3000`; type `SET key value`, `GET key`, `DEL key`, `COUNT` or `QUIT`. Each
//! line has one line of answer, also one that is too long.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use onbytes::{
    Bytes, Caller, ConnectionService, Event, FrameMark, Framing, Listener, ListenerConfiguration,
    Oversize, PartialFrame, Result, Service,
};

/// The longest line, in bytes.
const LONGEST: usize = 4096;

/// The most keys that are kept.
const MOST_KEYS: usize = 10_000;

/// What all connections share.
#[derive(Clone, Default)]
struct Store {
    values: Arc<Mutex<HashMap<String, String>>>,
}

impl Service for Store {
    type Connection = Self;

    async fn on_connect(&self, _: &Caller) -> Result<Self> {
        Ok(self.clone())
    }
}

impl ConnectionService for Store {
    async fn on_bytes(&mut self, line: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        let answer = match caller.frame_mark() {
            FrameMark::Whole if line.trim_ascii().eq_ignore_ascii_case(b"QUIT") => {
                caller.close();
                Ok("BYE".to_owned())
            }
            FrameMark::Whole => self.answer(&line),
            FrameMark::Truncated(len) => Err(format!("{len} bytes; a line has up to {LONGEST}")),
            // The beginning of a value must not pass for the value.
            _ => Err("the last line has no end; it is not done".to_owned()),
        };
        Ok(Some(answer.unwrap_or_else(|error| format!("ERR {error}")).into()))
    }
}

impl Store {
    /// Does what a line says.
    fn answer(&self, line: &[u8]) -> Result<String, String> {
        let line = std::str::from_utf8(line).map_err(|_| "a line is UTF-8")?.trim();
        let mut words = line.splitn(3, ' ');
        let (command, key, value) = (words.next().unwrap_or_default(), words.next(), words.next());
        let mut values = self.values.lock().unwrap_or_else(PoisonError::into_inner);
        match (command.to_ascii_uppercase().as_str(), key, value) {
            ("SET", Some(key), Some(_))
                if values.len() >= MOST_KEYS && !values.contains_key(key) =>
            {
                Err("no more keys can be kept".to_owned())
            }
            ("SET", Some(key), Some(value)) => {
                values.insert(key.to_owned(), value.to_owned());
                Ok("OK".to_owned())
            }
            ("GET", Some(key), None) => {
                Ok(values.get(key).map_or("NONE".to_owned(), |value| format!("VALUE {value}")))
            }
            ("DEL", Some(key), None) => Ok(values.remove(key).map_or("NONE", |_| "OK").to_owned()),
            ("COUNT", None, None) => Ok(values.len().to_string()),
            _ => Err("give SET key value, GET key, DEL key, COUNT or QUIT".to_owned()),
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let port = std::env::args().nth(1).map_or(3000, |port| port.parse().expect("a port"));
    // A line that is cut off by its length or by the end of the stream is delivered, marked, so that it
    // can be answered. With `Oversize::Skip` nothing would be heard of a long one, and who waits for its
    // answer would wait for ever.
    let framing = Framing::lines()
        .max_frame(LONGEST)
        .oversize(Oversize::Truncate)
        .partial(PartialFrame::Deliver);
    let listener =
        Listener::new(("127.0.0.1", port), ListenerConfiguration::new().framing(framing))?;
    listener.on_event(|event| {
        if let Event::Listening { local_addr, .. } = event {
            println!("listening on {local_addr}");
        }
    });
    listener.serve(Store::default()).await?;
    Ok(())
}
