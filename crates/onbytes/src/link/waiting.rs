//! Those who wait for something of a connection, and how they are woken.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Waker;

use bytes::Bytes;

use crate::outbox::Spent;

/// Those who wait, and for what.
#[derive(Default)]
pub(super) struct Waiting {
    /// For room in the queue, in the order of arrival; the first alone may enter.
    pub(super) room: VecDeque<(Ticket, Waker)>,
    /// For room in the queue, without a place in the line: woken whenever there may be some.
    pub(super) any_room: Vec<Waker>,
    /// For a mark to be sent, in the order of the marks.
    pub(super) sent: VecDeque<(u64, Ticket, Waker)>,
    /// For the end of the connection.
    pub(super) closed: Vec<(Ticket, Waker)>,
}

/// Names a wait. No two waits ever have the same, so a late goodbye can meet nobody else's.
pub(super) type Ticket = u64;

pub(super) fn new_ticket() -> Ticket {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Waiting {
    pub(super) fn is_idle(&self) -> bool {
        self.room.is_empty()
            && self.any_room.is_empty()
            && self.sent.is_empty()
            && self.closed.is_empty()
    }

    /// Where the wait for `mark` with `ticket` stands, or belongs.
    pub(super) fn find_mark(&self, mark: u64, ticket: Ticket) -> Result<usize, usize> {
        self.sent.binary_search_by_key(&(mark, ticket), |(mark, ticket, _)| (*mark, *ticket))
    }
}

/// What is to be done after the lock: wakers that were collected under it are woken, and messages that are
/// not needed any more are let go.
#[derive(Default)]
#[must_use]
pub(crate) struct Wakes {
    pub(super) driver: Option<Waker>,
    // Boxed, because nearly always there are none, and looking at nothing is done for every message.
    #[expect(clippy::box_collection, reason = "a null pointer is quicker to make and to drop")]
    others: Option<Box<Vec<Waker>>>,
    pub(super) spent: Spent,
}

impl Wakes {
    /// Adds others than the connection's task.
    pub(super) fn add(&mut self, others: impl IntoIterator<Item = Waker>) {
        let mut others = others.into_iter().peekable();
        if others.peek().is_some() {
            self.others.get_or_insert_default().extend(others);
        }
    }

    pub(super) fn wake(self) {
        if let Some(driver) = self.driver {
            driver.wake();
        }
        if let Some(others) = self.others {
            others.into_iter().for_each(Waker::wake);
        }
    }
}

/// The state of one write, from its first poll to its end.
pub(crate) enum WriteStep {
    /// Not polled yet.
    New(Bytes),
    /// In line for room in the queue: nothing of the message has been accepted.
    InLine(Bytes, Ticket),
    /// Accepted, up to this mark: it goes out whole, whatever becomes of the future.
    Accepted(u64, Option<Ticket>),
    Done,
}

impl WriteStep {
    /// Whether `other` waits for the same mark.
    pub(crate) fn is_the_wait_of(&self, other: &Self) -> bool {
        matches!((self, other), (Self::Accepted(one, _), Self::Accepted(two, _)) if one == two)
    }
}
