//! The write queue of one connection and its marks, without sockets.
//!
//! Every byte accepted for sending has a position in the stream of all bytes accepted so far. A
//! message is known by its *mark*, the position behind its last byte: it is sent when `sent` has
//! reached the mark. So a writer needs to remember one number, and the queue needs no entry for a
//! message that the kernel took at once.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use crate::buffer::{BLOCK as READ_BLOCK, is_part_of_a_block};

/// Entries up to this size are copied when they are queued, so that a small reply that is a slice
/// of a large read buffer does not keep that buffer alive while the peer is slow.
pub(crate) const COPIED: usize = 16 * 1024;

/// The smallest block that copied entries share.
const BLOCK: usize = 1024;

/// The queue of one connection: what was accepted, what was sent, and what lies between.
#[derive(Default)]
pub(crate) struct Outbox {
    taken: u64,
    sent: u64,
    // Boxed, because nearly always nothing is queued.
    backlog: Option<Box<Backlog>>,
}

/// What is queued.
#[derive(Default)]
struct Backlog {
    entries: VecDeque<Entry>,
    /// The memory that the entries take.
    held: u64,
    /// What has left the queue and was not let go yet.
    spent: Spent,
}

/// Messages that are not needed any more. Letting one go may run code of its owner, so that happens where
/// no lock is held.
#[derive(Default)]
pub(crate) struct Spent {
    // One is the rule, and costs no allocation.
    one: Option<Bytes>,
    // Boxed, because nearly always there are none, and looking at nothing is done for every message.
    #[expect(clippy::box_collection, reason = "a null pointer is quicker to make and to drop")]
    others: Option<Box<Vec<Bytes>>>,
}

impl Spent {
    pub(crate) fn push(&mut self, data: Bytes) {
        match self.one {
            None => self.one = Some(data),
            Some(_) => self.others.get_or_insert_default().push(data),
        }
    }

    fn append(&mut self, mut other: Self) {
        if let Some(data) = other.one.take() {
            self.push(data);
        }
        if let Some(mut others) = other.others.take() {
            self.others.get_or_insert_default().append(&mut others);
        }
    }
}

/// What a queue weighs: bytes to be sent, and the memory that they take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Load {
    pub(crate) queued: u64,
    pub(crate) held: u64,
}

/// Which messages are copied when they are queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keeping {
    /// Small ones only.
    Large,
    /// All that may be a part of a read buffer: memory is short.
    Nothing,
}

struct Entry {
    data: Data,
    /// The memory that it takes, as it was counted when it came.
    held: usize,
}

enum Data {
    /// A block of copied small messages, with room for more.
    Copied(BytesMut),
    /// A message kept as it was given.
    Kept(Bytes),
    /// The same, of one that is a part of a read buffer, and perhaps the last that keeps it alive.
    Pinning(Bytes),
}

impl Entry {
    /// A copy of `data`; of a small one with room for more of its kind.
    fn copied(data: &[u8]) -> Self {
        let held = match data.len() {
            len if len > COPIED => len,
            len => len.next_power_of_two().max(BLOCK),
        };
        let mut block = BytesMut::with_capacity(held);
        block.extend_from_slice(data);
        Self { data: Data::Copied(block), held }
    }

    /// What was given, where it is kept as it was.
    fn into_given(self) -> Option<Bytes> {
        match self.data {
            Data::Copied(_) => None,
            Data::Kept(data) | Data::Pinning(data) => Some(data),
        }
    }

    /// `data` as it is, or a copy where it would keep more alive than memory allows.
    fn of_large(data: Bytes, keeping: Keeping, spent: &mut Spent) -> Self {
        if data.len() > READ_BLOCK || !is_part_of_a_block(&data) {
            let held = data.len();
            return Self { data: Data::Kept(data), held };
        }
        match keeping {
            Keeping::Large => Self { data: Data::Pinning(data), held: READ_BLOCK },
            Keeping::Nothing => {
                let copy = Self::copied(&data);
                spent.push(data);
                copy
            }
        }
    }

    fn as_slice(&self) -> &[u8] {
        match &self.data {
            Data::Copied(block) => block,
            Data::Kept(data) | Data::Pinning(data) => data,
        }
    }

    fn advance(&mut self, count: usize) {
        match &mut self.data {
            Data::Copied(block) => block.advance(count),
            Data::Kept(data) | Data::Pinning(data) => data.advance(count),
        }
    }

    /// Takes `data` in where it is a block with room for it.
    fn admits(&mut self, data: &[u8]) -> bool {
        match &mut self.data {
            Data::Copied(block) if block.capacity() - block.len() >= data.len() => {
                block.extend_from_slice(data);
                true
            }
            _ => false,
        }
    }
}

impl Outbox {
    /// Bytes accepted but not yet taken by the kernel.
    pub(crate) fn queued(&self) -> u64 {
        self.taken - self.sent
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.taken == self.sent
    }

    /// Bytes that the kernel has taken so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Whether a message of `len` bytes may enter a queue with room for `cap` bytes. A message
    /// larger than the whole queue may enter when it is empty, or it could never be sent.
    pub(crate) fn has_room(&self, len: usize, cap: u64) -> bool {
        self.is_empty() || self.queued() + len as u64 <= cap
    }

    /// Records `count` bytes that the kernel took without having been queued.
    pub(crate) fn passed(&mut self, count: usize) {
        debug_assert!(self.is_empty(), "bytes may not overtake the queue");
        self.taken += count as u64;
        self.sent += count as u64;
    }

    /// What the queue weighs.
    pub(crate) fn load(&self) -> Load {
        Load {
            queued: self.queued(),
            held: self.backlog.as_ref().map_or(0, |backlog| backlog.held),
        }
    }

    /// Whether nothing is queued, nor kept of what was.
    pub(crate) fn has_no_backlog(&self) -> bool {
        self.backlog.is_none()
    }

    /// Queues `data` behind everything else and returns its mark. What is copied is given to `spent`.
    pub(crate) fn push(&mut self, data: Bytes, keeping: Keeping, spent: &mut Spent) -> u64 {
        self.taken += data.len() as u64;
        if data.is_empty() {
            spent.push(data);
            return self.taken;
        }
        let backlog = self.backlog.get_or_insert_default();
        if data.len() > COPIED {
            backlog.insert(Entry::of_large(data, keeping, spent));
        } else {
            if !backlog.entries.back_mut().is_some_and(|last| last.admits(&data)) {
                backlog.insert(Entry::copied(&data));
            }
            spent.push(data);
        }
        self.taken
    }

    /// Queues a copy of `data` behind everything else.
    pub(crate) fn push_copy(&mut self, data: &[u8]) {
        self.taken += data.len() as u64;
        if data.is_empty() {
            return;
        }
        let backlog = self.backlog.get_or_insert_default();
        if !backlog.entries.back_mut().is_some_and(|last| last.admits(data)) {
            backlog.insert(Entry::copied(data));
        }
    }

    /// Gives what has left the queue to `spent`.
    #[inline]
    pub(crate) fn take_spent(&mut self, spent: &mut Spent) {
        if let Some(backlog) = &mut self.backlog {
            spent.append(std::mem::take(&mut backlog.spent));
            if self.taken == self.sent {
                // An idle connection holds no queue memory.
                self.backlog = None;
            }
        }
    }

    /// Copies what may keep a read buffer alive, so that the queue takes no more memory than it has to.
    pub(crate) fn compact(&mut self) {
        if let Some(backlog) = &mut self.backlog {
            backlog.compact();
        }
    }

    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.backlog.iter().flat_map(|backlog| &backlog.entries)
    }

    /// The messages that others hold too, each as where it lies and how it was counted.
    pub(crate) fn shared(&self) -> impl Iterator<Item = (usize, u64)> {
        self.entries().filter_map(|entry| match &entry.data {
            // Where it ends does not change while it is sent.
            Data::Kept(data) if !data.is_unique() => {
                Some((data.as_ptr_range().end.addr(), entry.held as u64))
            }
            _ => None,
        })
    }

    /// Fills `slices` with the front of the queue, at most `limit` bytes of it, and returns how
    /// many slices are in use.
    pub(crate) fn front<'a>(&'a self, slices: &mut [IoSlice<'a>], limit: usize) -> usize {
        let mut left = limit;
        let mut used = 0;
        for (slot, entry) in slices.iter_mut().zip(self.entries()) {
            let data = entry.as_slice();
            let data = &data[..data.len().min(left)];
            if data.is_empty() {
                break;
            }
            *slot = IoSlice::new(data);
            left -= data.len();
            used += 1;
        }
        used
    }

    /// Removes `count` bytes that the kernel took from the front of the queue.
    pub(crate) fn advance(&mut self, count: usize) {
        debug_assert!(count as u64 <= self.queued(), "more was sent than was queued");
        self.sent += count as u64;
        if let Some(backlog) = &mut self.backlog {
            backlog.advance(count);
        }
    }

    /// Forgets what is queued and returns how many bytes that were.
    pub(crate) fn discard(&mut self) -> u64 {
        let lost = self.queued();
        self.taken = self.sent;
        if let Some(backlog) = &mut self.backlog {
            backlog.clear();
        }
        lost
    }
}

impl Backlog {
    fn insert(&mut self, entry: Entry) {
        self.held += entry.held as u64;
        self.entries.push_back(entry);
    }

    fn advance(&mut self, mut left: usize) {
        while let Some(entry) = self.entries.front_mut() {
            let len = entry.as_slice().len();
            if left < len {
                entry.advance(left);
                return;
            }
            left -= len;
            self.remove_front();
        }
    }

    fn clear(&mut self) {
        while !self.entries.is_empty() {
            self.remove_front();
        }
    }

    fn remove_front(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.held -= entry.held as u64;
        if let Some(data) = entry.into_given() {
            self.spent.push(data);
        }
    }

    fn compact(&mut self) {
        for entry in &mut self.entries {
            if let Data::Pinning(data) = &entry.data {
                let copy = BytesMut::from(&data[..]);
                let copy = Entry { held: copy.len(), data: Data::Copied(copy) };
                self.held = self.held - entry.held as u64 + copy.held as u64;
                if let Some(data) = std::mem::replace(entry, copy).into_given() {
                    self.spent.push(data);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(outbox: &Outbox) -> Vec<u8> {
        let mut slices = [IoSlice::new(&[]); 64];
        let used = outbox.front(&mut slices, usize::MAX);
        slices[..used].iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn marks_are_positions_in_the_stream() {
        let mut outbox = Outbox::default();
        outbox.passed(10);
        assert_eq!(
            outbox.push(Bytes::from_static(b"hello"), Keeping::Large, &mut Spent::default()),
            15
        );
        assert_eq!(
            outbox.push(Bytes::from_static(b"!"), Keeping::Large, &mut Spent::default()),
            16
        );
        outbox.advance(5);
        assert_eq!((outbox.sent(), outbox.queued()), (15, 1));
    }

    #[test]
    fn small_messages_share_a_block_and_large_ones_are_kept_as_they_are() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"a"), Keeping::Large, &mut Spent::default());
        outbox.push(Bytes::from_static(b"b"), Keeping::Large, &mut Spent::default());
        let large = Bytes::from(vec![7; COPIED + 1]);
        outbox.push(large.clone(), Keeping::Large, &mut Spent::default());
        let entries: Vec<_> = outbox.entries().collect();
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1].as_slice().as_ptr(), large.as_ptr());
    }

    #[test]
    fn a_queued_small_message_does_not_pin_the_buffer_it_came_from() {
        let mut buffer = BytesMut::zeroed(256 * 1024);
        let chunk = buffer.split_to(64).freeze();
        let mut outbox = Outbox::default();
        outbox.push(chunk, Keeping::Large, &mut Spent::default());
        buffer.clear();
        assert!(buffer.try_reclaim(256 * 1024), "the buffer is free again");
    }

    #[test]
    fn what_a_queue_holds_is_counted_until_it_is_sent() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"a"), Keeping::Large, &mut Spent::default());
        assert_eq!(outbox.load(), Load { queued: 1, held: BLOCK as u64 });
        outbox.push(Bytes::from_static(b"b"), Keeping::Large, &mut Spent::default());
        assert_eq!(outbox.load(), Load { queued: 2, held: BLOCK as u64 }, "they share a block");
        let own = Bytes::from(vec![1; 300_000]);
        outbox.push(own, Keeping::Large, &mut Spent::default());
        assert_eq!(outbox.load().held, (BLOCK + 300_000) as u64);
        outbox.advance(2);
        assert_eq!(outbox.load(), Load { queued: 300_000, held: 300_000 });
        outbox.advance(1);
        assert_eq!(outbox.load().held, 300_000, "a part that is sent frees nothing");
        outbox.discard();
        assert_eq!(outbox.load(), Load::default());
    }

    /// A part of a read buffer of its own.
    fn part_of_a_read_buffer(len: usize) -> (Bytes, BytesMut) {
        use crate::buffer::with_block;
        with_block(|block| *block = BytesMut::new());
        let mut whole = with_block(|block| {
            block.resize(READ_BLOCK, 7);
            block.split()
        });
        // The worker begins another one.
        with_block(|block| *block = BytesMut::new());
        (whole.split_to(len).freeze(), whole)
    }

    #[test]
    fn a_part_of_a_read_buffer_weighs_the_buffer_until_it_is_compacted() {
        let (part, mut rest) = part_of_a_read_buffer(COPIED + 1);
        let mut outbox = Outbox::default();
        outbox.push(part, Keeping::Large, &mut Spent::default());
        assert_eq!(outbox.load().held, READ_BLOCK as u64);
        outbox.advance(1);
        let before = contents(&outbox);
        outbox.compact();
        outbox.take_spent(&mut Spent::default());
        assert_eq!(outbox.load(), Load { queued: COPIED as u64, held: COPIED as u64 });
        assert_eq!(contents(&outbox), before);
        rest.clear();
        assert!(rest.try_reclaim(READ_BLOCK), "the buffer is free again");
    }

    #[test]
    fn where_memory_is_short_parts_of_read_buffers_are_copied_and_others_messages_are_not() {
        let mut outbox = Outbox::default();
        outbox.push(part_of_a_read_buffer(COPIED + 1).0, Keeping::Nothing, &mut Spent::default());
        assert_eq!(outbox.load().held, COPIED as u64 + 1);
        // Larger than any part of a read buffer, wherever it lies.
        let own = Bytes::from(vec![1; READ_BLOCK + 1]);
        outbox.push(own.clone(), Keeping::Nothing, &mut Spent::default());
        outbox.compact();
        assert_eq!(outbox.entries().nth(1).unwrap().as_slice().as_ptr(), own.as_ptr());
        assert_eq!(outbox.load().held, (COPIED + READ_BLOCK + 2) as u64);
    }

    #[test]
    fn what_others_hold_too_is_told_wherever_sending_has_come_to() {
        let message = Bytes::from(vec![1; 300_000]);
        let (mut one, mut two) = (Outbox::default(), Outbox::default());
        one.push(message.clone(), Keeping::Large, &mut Spent::default());
        two.push(message.clone(), Keeping::Large, &mut Spent::default());
        two.advance(5);
        let shared = |outbox: &Outbox| outbox.shared().collect::<Vec<_>>();
        assert_eq!(shared(&one), shared(&two));
        assert_eq!(shared(&one)[0].1, 300_000);
        drop((two, message));
        assert!(shared(&one).is_empty(), "nobody else holds it any more");
    }

    #[test]
    fn one_turn_takes_no_more_than_its_limit() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from(vec![1; 100_000]), Keeping::Large, &mut Spent::default());
        outbox.push(Bytes::from(vec![2; 100_000]), Keeping::Large, &mut Spent::default());
        let mut slices = [IoSlice::new(&[]); 4];
        assert_eq!(outbox.front(&mut slices, 150_000), 2);
        assert_eq!(slices[0].len() + slices[1].len(), 150_000);
        assert_eq!(outbox.front(&mut slices, 100_000), 1);
    }

    #[test]
    fn an_emptied_queue_gives_its_memory_back() {
        let mut outbox = Outbox::default();
        outbox.push(Bytes::from_static(b"x"), Keeping::Large, &mut Spent::default());
        outbox.advance(1);
        outbox.take_spent(&mut Spent::default());
        assert!(outbox.backlog.is_none());
        outbox.push(Bytes::from_static(b"x"), Keeping::Large, &mut Spent::default());
        assert_eq!(outbox.discard(), 1);
        outbox.take_spent(&mut Spent::default());
        assert!(outbox.backlog.is_none() && outbox.is_empty());
    }

    #[test]
    fn a_message_larger_than_the_queue_enters_only_when_it_is_empty() {
        let mut outbox = Outbox::default();
        assert!(outbox.has_room(1000, 10));
        outbox.push(Bytes::from_static(b"x"), Keeping::Large, &mut Spent::default());
        assert!(!outbox.has_room(1000, 10));
        assert!(outbox.has_room(9, 10));
        assert!(!outbox.has_room(10, 10));
    }

    proptest::proptest! {
        /// Against a plain vector: any sequence of pushes and partial sends keeps every byte, in
        /// order, and the marks true.
        #[test]
        fn keeps_every_byte_in_order(
            steps in proptest::collection::vec((0usize..40_000, 0usize..60_000, 0..4), 1..40),
        ) {
            let mut outbox = Outbox::default();
            let mut model: Vec<u8> = Vec::new();
            let mut position = 0u64;
            for (index, (push, send, other)) in steps.into_iter().enumerate() {
                let message = vec![index as u8; push];
                model.extend_from_slice(&message);
                position += push as u64;
                let keeping = if other == 0 { Keeping::Nothing } else { Keeping::Large };
                assert_eq!(outbox.push(message.into(), keeping, &mut Spent::default()), position);
                if other == 1 {
                    outbox.compact();
                }
                let all = contents(&outbox);
                assert_eq!(all, model[..all.len()]);
                let count = send.min(all.len());
                model.drain(..count);
                outbox.advance(count);
                assert_eq!(outbox.queued(), model.len() as u64);
                let held: usize = outbox.entries().map(|entry| entry.held).sum();
                assert_eq!(outbox.load().held, held as u64);
                assert!(held >= model.len());
            }
        }
    }
}
