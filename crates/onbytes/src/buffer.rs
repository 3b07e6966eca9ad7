//! The buffers that all connections of a worker share.
//!
//! A connection that waits holds no buffer at all. When bytes are at hand they are read into the
//! worker's block. What is large is split off as a chunk; what is small is copied to a smaller block, and is a
//! part of that, so that a service that keeps a few bytes keeps no more than a few KiB alive. When a
//! chunk has been dropped by the time of the next read, which is the rule, the same memory is used again.

use std::cell::RefCell;
use std::sync::{Mutex, PoisonError};

use bytes::{Bytes, BytesMut};

/// The size of a worker's block, and so of the largest chunk.
pub(crate) const BLOCK: usize = 256 * 1024;

/// With less room than this a new block is begun, so that bulk data arrives in large chunks.
const LEAST_ROOM: usize = 128 * 1024;

/// Up to this size a chunk is copied, and is no part of the large block.
const SMALL: usize = 4 * 1024;

/// The size of the block that small chunks are parts of: what the smallest of them may keep alive.
const SMALL_BLOCK: usize = 16 * 1024;

thread_local! {
    static SHARED: RefCell<BytesMut> = RefCell::new(BytesMut::new());
    static SMALL_ONES: RefCell<BytesMut> = RefCell::new(BytesMut::new());
}

/// Gives `read` the worker's block, with room for at least 128 KiB behind its end.
pub(crate) fn with_block<T>(read: impl FnOnce(&mut BytesMut) -> T) -> T {
    SHARED.with_borrow_mut(|block| {
        // Every read takes what it received, unless it panicked: then what it left must not
        // reach another connection.
        block.clear();
        // Where nobody holds an earlier chunk any more this moves back to the start of the block,
        // which is still in the processor's cache.
        if !block.try_reclaim(BLOCK) && block.capacity() < LEAST_ROOM {
            *block = BytesMut::with_capacity(BLOCK);
            RECENT.lock().unwrap_or_else(PoisonError::into_inner).note(block);
        }
        read(block)
    })
}

/// Makes a chunk of all that was read into a worker's block.
pub(crate) fn take_chunk(block: &mut BytesMut) -> Bytes {
    if block.len() > SMALL {
        return block.split().freeze();
    }
    let chunk = SMALL_ONES.with_borrow_mut(|small| {
        if !small.try_reclaim(SMALL_BLOCK) && small.capacity() < block.len() {
            *small = BytesMut::with_capacity(SMALL_BLOCK);
        }
        small.extend_from_slice(block);
        small.split().freeze()
    });
    block.clear();
    chunk
}

thread_local! {
    static FRAME: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Gives `write` the worker's empty buffer for a frame that is to be sent.
pub(crate) fn with_frame<T>(write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    FRAME.with_borrow_mut(|frame| {
        if frame.capacity() > BLOCK {
            // One large frame does not cost the worker memory for ever.
            *frame = Vec::new();
        }
        frame.clear();
        write(frame)
    })
}

/// Whether `data` is a part of a block that was begun lately, and so may be the last that keeps all
/// of it alive. Where that block has gone, and its place is another's, the answer may be a wrong yes.
pub(crate) fn is_part_of_a_block(data: &[u8]) -> bool {
    RECENT.lock().unwrap_or_else(PoisonError::into_inner).has(data)
}

/// Where the blocks of all workers lie that were begun last.
struct Recent {
    starts: [usize; Recent::COUNT],
    next: usize,
}

static RECENT: Mutex<Recent> = Mutex::new(Recent { starts: [0; Recent::COUNT], next: 0 });

impl Recent {
    const COUNT: usize = 1024;

    fn note(&mut self, block: &BytesMut) {
        self.starts[self.next] = block.as_ptr().addr();
        self.next = (self.next + 1) % self.starts.len();
    }

    fn has(&self, data: &[u8]) -> bool {
        let address = data.as_ptr().addr();
        self.starts.iter().any(|start| (*start..start + BLOCK).contains(&address))
    }
}

/// The most wire bytes that are sealed, or read to be taken apart, at once. What is made of them has
/// room in a block; beyond this little is gained (BENCHMARKS.md).
#[cfg(feature = "_tls")]
pub(crate) const WIRE: usize = LEAST_ROOM;

#[cfg(feature = "_tls")]
thread_local! {
    static RECEIVED: RefCell<BytesMut> = RefCell::new(BytesMut::new());
    static SEALED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Gives `read` the worker's empty buffer for wire bytes that are to be taken apart.
#[cfg(feature = "_tls")]
pub(crate) fn with_wire<T>(read: impl FnOnce(&mut BytesMut) -> T) -> T {
    RECEIVED.with_borrow_mut(|wire| {
        if wire.capacity() > 2 * WIRE {
            // One connection's long handshake does not cost the worker memory for ever.
            *wire = BytesMut::new();
        }
        wire.clear();
        read(wire)
    })
}

/// Gives `seal` the worker's buffer for wire bytes that are to be sent; it holds anything.
#[cfg(feature = "_tls")]
pub(crate) fn with_sealed<T>(seal: impl FnOnce(&mut Vec<u8>) -> T) -> T {
    SEALED.with_borrow_mut(seal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(len: usize) -> bytes::Bytes {
        with_block(|block| {
            block.resize(len, 1);
            take_chunk(block)
        })
    }

    #[test]
    fn a_dropped_chunk_gives_its_memory_to_the_next() {
        for len in [100, 100_000] {
            let first = chunk(len);
            let address = first.as_ptr();
            drop(first);
            assert_eq!(chunk(len).as_ptr(), address);
        }
    }

    #[test]
    fn a_chunk_is_known_to_be_a_part_of_a_block_and_others_are_not() {
        let chunk = chunk(20_000);
        assert!(is_part_of_a_block(&chunk) && is_part_of_a_block(&chunk[19_999..]));
        assert!(!is_part_of_a_block(&vec![1; 20_000]));
        static TEXT: &[u8] = b"a service's own";
        assert!(!is_part_of_a_block(TEXT));
    }

    #[test]
    fn a_small_chunk_that_is_kept_keeps_no_large_block() {
        let _kept = chunk(SMALL);
        let first = chunk(SMALL + 1);
        let address = first.as_ptr();
        drop(first);
        assert_eq!(chunk(SMALL + 1).as_ptr(), address);
    }

    #[test]
    fn a_kept_chunk_is_never_overwritten() {
        for len in [100, 3_000, 5_000] {
            let kept = chunk(len);
            for _ in 0..10_000 {
                with_block(|block| {
                    block.resize(len, 2);
                    drop(take_chunk(block));
                });
            }
            assert!(kept.iter().all(|byte| *byte == 1));
        }
    }
}
