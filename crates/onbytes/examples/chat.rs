//! `cargo run --example chat`: a room in which every line reaches every member, on port 3000 or the
//! one given.
//!
//! Try it with two or three times `nc 127.0.0.1 3000`. A member that does not read is dropped when
//! its queue is full, and stops nobody.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use onbytes::{
    Bytes, Caller, Close, ConnectionId, ConnectionService, Event, Listener, ListenerConfiguration,
    Result, Service,
};

/// The longest line that a member may send.
const LONGEST: usize = 4096;

#[derive(Clone, Default)]
struct Room {
    members: Arc<Mutex<HashMap<ConnectionId, Caller>>>,
}

impl Room {
    /// Gives `line` to every member. The lock makes the order the same for all; it is held for
    /// writes that never wait.
    fn say(&self, line: &Bytes) {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        for member in members.values() {
            if member.try_write_bytes(line.clone()).is_err_and(|error| error.is_full()) {
                member.abort();
            }
        }
    }

    /// Welcomes a member. Under the lock, so that who is welcome hears all that is said from then on.
    fn enter(&self, member: &Caller) -> Result<()> {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        member.try_write_bytes("welcome; what you say is heard by all\n")?;
        members.insert(member.id(), member.clone());
        Ok(())
    }

    fn leave(&self, id: ConnectionId) {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
    }
}

/// One member: what it has said of its next line so far.
struct Member {
    room: Room,
    id: ConnectionId,
    line: Vec<u8>,
}

impl Service for Room {
    type Connection = Member;

    async fn on_connect(&self, caller: &Caller) -> Result<Member> {
        self.enter(caller)?;
        Ok(Member { room: self.clone(), id: caller.id(), line: Vec::new() })
    }
}

impl ConnectionService for Member {
    async fn on_bytes(&mut self, data: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        // A chunk may hold part of a line, or many.
        for part in data.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if self.line.ends_with(b"\n") {
                let name = format!("{}: ", caller.remote_port());
                self.room.say(&[name.as_bytes(), &self.line].concat().into());
                self.line.clear();
            } else if self.line.len() > LONGEST {
                return Err("a line is too long".into());
            }
        }
        Ok(None)
    }

    async fn on_close(&mut self, _: &Close) {
        self.room.leave(self.id);
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
    listener.serve(Room::default()).await?;
    Ok(())
}
