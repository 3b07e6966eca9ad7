//! The replies to the messages of one chunk, which leave together.

use bytes::{Bytes, BytesMut};

use super::is_ending;
use super::spare::{REPLIES, give_back, lend};
use crate::Caller;
use crate::link::{State, Wakes};
use crate::outbox::COPIED;

/// More than this is sent before the next message is delivered.
const MANY: usize = 64 * 1024;

/// Room for a small reply, at least.
const ROOM: usize = 256;

/// Encoded replies that have not left yet.
pub(super) struct Replies<'a> {
    caller: &'a Caller,
    encoded: BytesMut,
    /// Where the last whole reply ends.
    whole: usize,
}

impl<'a> Replies<'a> {
    pub(super) fn to(caller: &'a Caller) -> Self {
        Self { caller, encoded: BytesMut::new(), whole: 0 }
    }

    pub(super) fn caller(&self) -> &'a Caller {
        self.caller
    }

    /// Adds the reply that `encode` writes to the end of the buffer, or nothing where it fails.
    pub(super) fn add<E>(
        &mut self,
        encode: impl FnOnce(&mut BytesMut) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.encoded.capacity() == 0 {
            self.encoded = lend(&REPLIES, ROOM);
        }
        let result = encode(&mut self.encoded);
        match result {
            Ok(()) => self.whole = self.encoded.len(),
            Err(_) => self.encoded.truncate(self.whole),
        }
        result
    }

    /// Whether so much has gathered that it is sent before more is added.
    pub(super) fn are_many(&self) -> bool {
        self.encoded.len() > MANY
    }

    /// Sends what has gathered, and waits until the peer has room for it.
    pub(super) async fn send(&mut self) {
        let Some(gathered) = self.take() else { return };
        let sent = self.caller.write_bytes(gathered.clone()).await;
        if sent.is_err() && is_ending(self.caller) {
            // What a callback returns is still sent at an orderly end, what it writes then is not.
            self.whole = gathered.len();
            self.encoded = gathered.into();
        }
    }

    /// What has gathered, to be returned by the callback.
    pub(super) fn into_returned(mut self) -> Option<Bytes> {
        let returned = if self.whole > COPIED {
            // It may be queued as it is, and is not to keep a larger buffer alive then.
            let copy = Bytes::copy_from_slice(&self.encoded);
            self.whole = 0;
            Some(copy)
        } else {
            self.take()
        };
        give_back(&REPLIES, std::mem::take(&mut self.encoded));
        returned
    }

    fn take(&mut self) -> Option<Bytes> {
        self.encoded.truncate(self.whole);
        self.whole = 0;
        (!self.encoded.is_empty()).then(|| self.encoded.split().freeze())
    }
}

impl Drop for Replies<'_> {
    /// A message that panics costs those before it nothing: their replies leave all the same.
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(gathered) = self.take()
        {
            let reply = |state: &mut State, wakes: &mut Wakes| state.reply(gathered, false, wakes);
            // It fails only where there is a framing, too, and then nobody is left to hear of it.
            let _ = self.caller.link().change(reply);
        }
    }
}
