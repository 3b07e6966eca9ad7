//! What has come from a peer and is not decoded yet.

use bytes::BytesMut;

use super::spare::{RECEIVED, give_back, lend};

/// Room beside a chunk for what a codec reserves ahead, such as the head of the next message.
const AHEAD: usize = 1024;

/// The undecoded bytes of a connection: in a worker's buffer while there is work to do, in memory of
/// their own size while they wait for more, and in none while there are none.
#[derive(Default)]
pub(super) struct Received {
    bytes: BytesMut,
    is_lent: bool,
    /// How many there were when the last chunk had been taken in.
    before: usize,
}

impl Received {
    /// Takes a copy of `chunk`, which is a part of a large read buffer.
    pub(super) fn take_in(&mut self, chunk: &[u8]) {
        if self.bytes.is_empty() {
            self.bytes = lend(&RECEIVED, chunk.len() + AHEAD);
            self.is_lent = true;
        }
        self.bytes.extend_from_slice(chunk);
        self.before = self.bytes.len();
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The bytes for the codec, which takes from them what it has decoded.
    pub(super) fn bytes(&mut self) -> &mut BytesMut {
        &mut self.bytes
    }

    /// Holds no buffer without need while a message is served.
    pub(super) fn let_go_if_empty(&mut self) {
        if self.bytes.is_empty() {
            self.discard();
        }
    }

    /// Keeps what waits for more, in no more memory than it needs.
    pub(super) fn keep_rest(&mut self) {
        // A part that just grows stays where it is, or it would be copied with each chunk.
        if self.is_lent || self.bytes.len() < self.before {
            let rest = BytesMut::from(&self.bytes[..]);
            self.discard();
            self.bytes = rest;
        }
    }

    /// Forgets all of it.
    pub(super) fn discard(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        if self.is_lent {
            give_back(&RECEIVED, bytes);
        }
        self.is_lent = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rest_is_kept_in_memory_of_its_size_and_nothing_in_none() {
        let mut received = Received::default();
        received.take_in(&[1; 10_000]);
        drop(received.bytes().split_to(9_990));
        received.keep_rest();
        assert_eq!((received.len(), received.bytes.capacity()), (10, 10));
        // What a codec reserves for the rest of a large message is not kept either.
        received.take_in(&[1; 100]);
        drop(received.bytes().split_to(105));
        received.bytes().reserve(1 << 20);
        received.keep_rest();
        assert_eq!((received.len(), received.bytes.capacity()), (5, 5));
        drop(received.bytes().split_to(5));
        received.keep_rest();
        assert_eq!((received.len(), received.bytes.capacity()), (0, 0));
    }

    #[test]
    fn a_part_that_grows_is_not_copied_with_each_chunk() {
        let mut received = Received::default();
        let mut moves = 0;
        let mut place = std::ptr::null();
        for count in 1..=1000 {
            received.take_in(&[1; 100]);
            received.keep_rest();
            assert_eq!(received.len(), 100 * count);
            if received.bytes.as_ptr() != place {
                moves += 1;
                place = received.bytes.as_ptr();
            }
        }
        assert!(moves <= 20, "moved {moves} times");
    }
}
