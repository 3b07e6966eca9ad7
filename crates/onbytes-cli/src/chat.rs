//! `onbytes serve chat`: every line of every member goes to all members.
//!
//! A line ends with LF, before which one CR is dropped; what follows the last LF counts as a line
//! when the member ends its side. Each reaches every member once, its sender too, as
//! `ADDRESS: text`, in one order for all.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use onbytes::{Caller, ConnectionId, ConnectionService, Result, Service};

/// The longest line, without its LF.
const LONGEST: usize = 8 * 1024;

/// Lines that arrived together leave together, up to about so many bytes: one write for each member
/// instead of one for each member and line.
const BATCH: usize = 16 * 1024;

/// The chat: one room.
#[derive(Default)]
pub(crate) struct Chat {
    room: Arc<Room>,
}

impl Service for Chat {
    type Connection = Member;

    async fn on_connect(&self, caller: &Caller) -> Result<Member> {
        self.room.lock().insert(caller.id(), caller.clone());
        Ok(Member { room: Arc::clone(&self.room), id: caller.id(), lines: Lines::default() })
    }
}

/// Those who are present.
#[derive(Default)]
struct Room {
    members: Mutex<HashMap<ConnectionId, Caller>>,
}

impl Room {
    /// Sends `text` to everybody.
    ///
    /// The lock makes one order for all. It is held for attempts only, so nobody can hold up the
    /// others: whoever has no room for the text has not read for long, and is dropped.
    fn send(&self, text: Vec<u8>) {
        let text = Bytes::from(text);
        self.lock().retain(|_, member| {
            let Err(error) = member.try_write_bytes(text.clone()) else {
                return true;
            };
            if error.is_full() {
                tracing::info!(
                    id = %member.id(), remote_addr = %member.remote_addr(),
                    "dropped a member whose queue is full: it does not read, or not fast enough"
                );
                member.abort();
            }
            false
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ConnectionId, Caller>> {
        self.members.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One member; dropping it leaves the room.
pub(crate) struct Member {
    room: Arc<Room>,
    id: ConnectionId,
    lines: Lines,
}

impl ConnectionService for Member {
    async fn on_bytes(&mut self, data: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        let mut data = &data[..];
        let mut batch = Vec::new();
        let outcome = loop {
            match self.lines.next(&mut data) {
                Ok(Some(line)) => say(&mut batch, caller, &line),
                end => break end,
            }
            if batch.len() >= BATCH {
                self.room.send(std::mem::take(&mut batch));
                // The others get their turn to send what is queued for them.
                tokio::task::yield_now().await;
            }
        };
        if !batch.is_empty() {
            self.room.send(batch);
        }
        if outcome.is_ok() {
            return Ok(None);
        }
        caller.close();
        let farewell = format!("your line is longer than {LONGEST} bytes; goodbye\n");
        Ok(Some(farewell.into()))
    }

    async fn on_end(&mut self, caller: &Caller) -> Result<Option<Bytes>> {
        if let Some(line) = self.lines.rest() {
            let mut text = Vec::new();
            say(&mut text, caller, &line);
            self.room.send(text);
        }
        Ok(None)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.room.lock().remove(&self.id);
    }
}

/// Appends a line as everybody sees it.
///
/// Terminals obey control characters, so none of a member's reaches another's, but tab.
fn say(text: &mut Vec<u8>, caller: &Caller, line: &[u8]) {
    let line: String = String::from_utf8_lossy(line)
        .chars()
        .map(|c| match c {
            '\t' => c,
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        })
        .collect();
    // Writing to memory does not fail.
    let _ = writeln!(text, "{}: {line}", caller.remote_addr());
}

/// Finds lines in a stream of chunks.
#[derive(Default)]
struct Lines {
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
}

/// A line is longer than [`LONGEST`].
#[derive(Debug, PartialEq, Eq)]
struct TooLong;

impl Lines {
    /// Takes the next line off the front of `data`; `None` where `data` has no more line's end.
    fn next(&mut self, data: &mut &[u8]) -> Result<Option<Vec<u8>>, TooLong> {
        let end = data.iter().position(|byte| *byte == b'\n');
        let (front, rest) = match end {
            Some(end) => (&data[..end], &data[end + 1..]),
            None => (*data, &data[data.len()..]),
        };
        if self.begun.len() + front.len() > LONGEST {
            return Err(TooLong);
        }
        self.begun.extend_from_slice(front);
        *data = rest;
        Ok(end.map(|_| self.take()))
    }

    /// The line that was begun and not ended, if any.
    fn rest(&mut self) -> Option<Vec<u8>> {
        (!self.begun.is_empty()).then(|| self.take())
    }

    fn take(&mut self) -> Vec<u8> {
        let mut line = std::mem::take(&mut self.begun);
        if line.last() == Some(&b'\r') {
            line.pop();
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Found = (Vec<Vec<u8>>, Option<Vec<u8>>);

    /// The lines of a stream that comes in chunks of `size`, and what was left at its end.
    fn lines(stream: &[u8], size: usize) -> Result<Found, TooLong> {
        let (mut splitter, mut found) = (Lines::default(), Vec::new());
        for mut chunk in stream.chunks(size) {
            while let Some(line) = splitter.next(&mut chunk)? {
                found.push(line);
            }
        }
        Ok((found, splitter.rest()))
    }

    #[test]
    fn lines_do_not_depend_on_the_borders_of_chunks() {
        let stream = b"one\ntwo\r\n\n\r\n a\rb \r\r\nlast\r";
        let expected: Vec<Vec<u8>> =
            [&b"one"[..], b"two", b"", b"", b" a\rb \r"].map(<[u8]>::to_vec).into();
        for size in 1..=stream.len() {
            let (found, rest) = lines(stream, size).unwrap();
            assert_eq!(found, expected, "chunks of {size}");
            assert_eq!(rest.as_deref(), Some(&b"last"[..]));
        }
    }

    #[test]
    fn a_line_of_8_kib_is_taken_and_a_longer_one_is_not_whatever_the_chunks() {
        let longest = [vec![b'x'; LONGEST], vec![b'\n']].concat();
        let longer = [vec![b'x'; LONGEST + 1], vec![b'\n']].concat();
        for size in [1, 7, 4096, LONGEST, 100_000] {
            assert_eq!(lines(&longest, size).unwrap().0.len(), 1);
            assert_eq!(lines(&longer, size), Err(TooLong));
        }
    }
}
