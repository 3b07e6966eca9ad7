//! Buffers that the connections of a worker lend each other, so that one at rest has none.

use std::cell::Cell;
use std::thread::LocalKey;

use bytes::BytesMut;

use crate::buffer::BLOCK;

/// The size of a new buffer, where no more is asked for.
const USUAL: usize = 8 * 1024;

/// The largest buffer that is kept when nobody needs it: room for the largest chunk, or for replies
/// to it.
const LARGEST: usize = 2 * BLOCK;

/// A worker's buffer for one purpose.
pub(super) type Spare = LocalKey<Cell<BytesMut>>;

thread_local! {
    /// For received bytes while they are decoded.
    pub(super) static RECEIVED: Cell<BytesMut> = Cell::default();
    /// For replies while they are gathered.
    pub(super) static REPLIES: Cell<BytesMut> = Cell::default();
}

/// An empty buffer with room for at least `room` bytes.
pub(super) fn lend(spare: &'static Spare, room: usize) -> BytesMut {
    let mut buffer = spare.take();
    // Where nobody holds a part of it any more, this moves back to its start.
    if buffer.try_reclaim(room.max(USUAL)) || buffer.capacity() >= room {
        return buffer;
    }
    BytesMut::with_capacity(room.max(USUAL))
}

/// Keeps `buffer` for whoever needs one next, unless there is one, or this one is too large to keep.
pub(super) fn give_back(spare: &'static Spare, mut buffer: BytesMut) {
    buffer.clear();
    let other = spare.take();
    let is_better = other.capacity() == 0 && !buffer.try_reclaim(LARGEST + 1);
    spare.set(if is_better { buffer } else { other });
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        static SPARE: Cell<BytesMut> = Cell::default();
    }

    #[test]
    fn a_buffer_given_back_is_lent_again_empty_and_from_its_start() {
        let mut buffer = lend(&SPARE, 100);
        let start = buffer.as_ptr();
        buffer.extend_from_slice(&[1; 100]);
        drop(buffer.split_to(60));
        give_back(&SPARE, buffer);
        let again = lend(&SPARE, 100);
        assert!(again.is_empty() && again.capacity() >= USUAL);
        assert_eq!(again.as_ptr(), start);
    }

    #[test]
    fn what_is_held_of_a_lent_buffer_is_never_overwritten() {
        let mut buffer = lend(&SPARE, 100);
        buffer.extend_from_slice(&[1; 100]);
        let kept = buffer.split_to(100);
        give_back(&SPARE, buffer);
        for _ in 0..1000 {
            let mut buffer = lend(&SPARE, 100);
            buffer.extend_from_slice(&[2; 100]);
            give_back(&SPARE, buffer);
        }
        assert!(kept.iter().all(|byte| *byte == 1));
    }

    #[test]
    fn a_buffer_that_has_grown_too_large_is_let_go() {
        let mut buffer = lend(&SPARE, 100);
        buffer.reserve(LARGEST + 1);
        drop(buffer.split_to(0));
        give_back(&SPARE, buffer);
        assert_eq!(SPARE.take().capacity(), 0);
    }
}
