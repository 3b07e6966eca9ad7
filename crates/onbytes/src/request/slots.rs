//! The requests of one connection that wait for their replies.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use bytes::Bytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Matching;
use crate::{Error, Result};

/// The one who waits for a reply; nobody, where the reply of a heartbeat is awaited.
pub(super) type Answer = Option<oneshot::Sender<Result<Bytes>>>;

/// Requests in flight, in the order in which they were sent.
pub(super) struct Slots {
    matching: Matching,
    /// By number. In order of sending, which is the order of the numbers.
    slots: BTreeMap<u64, Slot>,
    /// Those to be answered in order.
    line: VecDeque<u64>,
    /// Those to be answered by key.
    keys: HashMap<Bytes, u64>,
    /// Keys of requests that were not answered in time, and may still be.
    lost: HashSet<Bytes>,
    /// When each has to be answered, and its number.
    deadlines: BTreeSet<(Instant, u64)>,
    next: u64,
}

struct Slot {
    key: Option<Bytes>,
    deadline: Instant,
    answer: Answer,
    /// All of it has left, so that a reply may come.
    is_sent: bool,
}

/// What a frame turned out to be.
pub(super) enum Met {
    Reply,
    Unmatched(Bytes),
}

/// What becomes of the connection when requests were not answered in time.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    GoesOn,
    /// It cannot be told any more whose reply comes next.
    GiveUp,
}

/// So many keys may be lost before the connection is given up.
const MOST_LOST: usize = 1024;

impl Slots {
    pub(super) fn new(matching: Matching) -> Self {
        Self {
            matching,
            slots: BTreeMap::new(),
            line: VecDeque::new(),
            keys: HashMap::new(),
            lost: HashSet::new(),
            deadlines: BTreeSet::new(),
            next: 0,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        self.slots.len() < self.matching.most()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Why a request with this key cannot be sent now, if it cannot.
    pub(super) fn why_not(&self, key: Option<&Bytes>) -> Option<&'static str> {
        let key = key?;
        if self.keys.contains_key(key) {
            return Some("a request with this key is in flight already");
        }
        self.lost.contains(key).then_some(
            "an earlier request with this key was not answered in time, and may still be; use another key",
        )
    }

    /// Notes a request that is about to be sent.
    pub(super) fn insert(&mut self, key: Option<Bytes>, deadline: Instant, answer: Answer) -> u64 {
        let number = self.next;
        self.next += 1;
        match &key {
            Some(key) => {
                self.keys.insert(key.clone(), number);
            }
            None => self.line.push_back(number),
        }
        self.deadlines.insert((deadline, number));
        self.slots.insert(number, Slot { key, deadline, answer, is_sent: false });
        number
    }

    /// All of a request has left.
    pub(super) fn note_sent(&mut self, number: u64) {
        if let Some(slot) = self.slots.get_mut(&number) {
            slot.is_sent = true;
        }
    }

    /// Gives a frame to whom it answers.
    pub(super) fn meet(&mut self, frame: Bytes) -> Met {
        let number = match &self.matching {
            Matching::ByKey(keys) => {
                let key = keys.of_reply(&frame);
                // Answered late, and not any more.
                if let Some(key) = &key {
                    self.lost.remove(key);
                }
                key.and_then(|key| self.keys.get(&key).copied())
            }
            _ => self.line.front().copied(),
        };
        // What comes before a request has left cannot answer it.
        let is_due = |number: &u64| self.slots.get(number).is_some_and(|slot| slot.is_sent);
        let Some(slot) = number.filter(is_due).and_then(|number| self.remove(number)) else {
            return Met::Unmatched(frame);
        };
        if let Some(answer) = slot.answer {
            // Where the future was dropped meanwhile nobody wants it.
            let _ = answer.send(Ok(frame));
        }
        Met::Reply
    }

    fn remove(&mut self, number: u64) -> Option<Slot> {
        let slot = self.slots.remove(&number)?;
        self.deadlines.remove(&(slot.deadline, number));
        match &slot.key {
            Some(key) => {
                self.keys.remove(key);
            }
            // The first one, but where a later one is overdue before it.
            None if self.line.front() == Some(&number) => drop(self.line.pop_front()),
            None => self.line.retain(|other| *other != number),
        }
        Some(slot)
    }

    /// When the next one has to be answered.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Fails those that were not answered by `now`.
    pub(super) fn expire(&mut self, now: Instant, error: &Error) -> Verdict {
        let mut verdict = Verdict::GoesOn;
        while let Some(number) = self.overdue(now) {
            let Some(slot) = self.remove(number) else { break };
            let is_heartbeat = slot.answer.is_none();
            if let Some(answer) = slot.answer {
                let _ = answer.send(Err(error.clone()));
            }
            match slot.key {
                Some(key) if !is_heartbeat && slot.is_sent && self.lost.len() < MOST_LOST => {
                    self.lost.insert(key);
                }
                _ => verdict = Verdict::GiveUp,
            }
        }
        verdict
    }

    fn overdue(&self, now: Instant) -> Option<u64> {
        let (deadline, number) = self.deadlines.first()?;
        (*deadline <= now).then_some(*number)
    }

    /// The connection is gone: nobody is answered any more.
    pub(super) fn fail(&mut self, error: &Error) {
        for (_, slot) in std::mem::take(&mut self.slots) {
            if let Some(answer) = slot.answer {
                let _ = answer.send(Err(error.clone()));
            }
        }
    }
}
