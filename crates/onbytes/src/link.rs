//! What a connection's task, its callers and its listener share: one value under one lock.
//!
//! The lock is held for a system call at most and never across an await. Whoever changes something
//! that others wait for collects their wakers and wakes them after the lock is released.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::close::{Close, CloseReason, ConnectionStats, Parting};
use crate::outbox::Outbox;
use crate::stream::{Input, Stream};
use crate::{Error, ErrorKind, Result};

/// Room for queued bytes of one connection. Writers beyond it wait; reading stops above it.
pub(crate) const QUEUE_CAP: u64 = 64 * 1024;

/// How long, and for how many bytes, input is discarded after our FIN.
pub(crate) const LINGER: Duration = Duration::from_secs(2);
pub(crate) const LINGER_BYTES: usize = 1024 * 1024;

/// Replies up to this size wait for more of their kind while received data is at hand.
const GATHER: usize = 16 * 1024;

/// One connection, as everybody who has to do with it sees it.
pub(crate) struct Link {
    pub(crate) number: u64,
    pub(crate) remote: SocketAddr,
    pub(crate) local: SocketAddr,
    accepted: Instant,
    state: Mutex<State>,
}

/// The state under the lock.
pub(crate) struct State {
    // Taken at the end, so that the descriptor closes whatever clones of the caller live on.
    stream: Option<Stream>,
    outbox: Outbox,
    ending: Option<Ending>,
    /// The peer is gone for good: nothing can be sent, what it sent before may still be read.
    broken: bool,
    /// The peer has sent FIN.
    end_seen: bool,
    /// We have announced our own end: nothing new is accepted for sending. Clients only.
    finishing: bool,
    fin_sent: bool,
    /// A task sends what is queued. Clients only: an accepted connection always has one.
    has_sender: bool,
    /// Nobody holds the client any more. Clients only.
    is_orphan: bool,
    drain: Drain,
    counts: Counts,
    driver: Option<Waker>,
    // Boxed, because nearly always nobody waits.
    waiting: Option<Box<Waiting>>,
}

/// Why the connection ends; the first cause stays.
#[derive(Clone)]
pub(crate) struct Ending {
    pub(crate) reason: CloseReason,
    pub(crate) error: Option<Error>,
    /// What makes the end a reset: the reason itself, or a later one that cut an orderly end short.
    pub(crate) cut: Option<CloseReason>,
}

impl Ending {
    fn of(reason: CloseReason, error: Option<Error>) -> Self {
        let mut ending = Self { reason, error, cut: None };
        ending.note(reason);
        ending
    }

    /// Takes note of a further reason to end.
    fn note(&mut self, reason: CloseReason) {
        let resets = reason.parting() == Parting::Reset;
        if resets && (self.cut.is_none() || reason.is_forced()) {
            self.cut = Some(reason);
        }
    }

    /// How the socket is left.
    pub(crate) fn parting(&self) -> Parting {
        if self.cut.is_some() { Parting::Reset } else { self.reason.parting() }
    }

    /// Whether a stop cut the connection off, so that not even a running callback is waited for.
    pub(crate) fn is_forced(&self) -> bool {
        self.cut.is_some_and(CloseReason::is_forced)
    }
}

/// How far a request to finish has come.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Drain {
    No,
    Requested,
    Told,
}

#[derive(Default)]
struct Counts {
    bytes_received: u64,
    chunks_received: u64,
    chunks_sent: u64,
    bytes_unsent: u64,
}

/// Those who wait, and for what.
#[derive(Default)]
struct Waiting {
    /// For room in the queue, in the order of arrival; the first alone may enter.
    room: VecDeque<(Ticket, Waker)>,
    /// For room in the queue, without a place in the line: woken whenever there may be some.
    any_room: Vec<Waker>,
    /// For a mark to be sent, in the order of the marks.
    sent: VecDeque<(u64, Ticket, Waker)>,
    /// For the end of the connection.
    closed: Vec<(Ticket, Waker)>,
}

/// Names a wait. No two waits ever have the same, so a late goodbye can meet nobody else's.
type Ticket = u64;

fn new_ticket() -> Ticket {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Waiting {
    fn is_idle(&self) -> bool {
        self.room.is_empty()
            && self.any_room.is_empty()
            && self.sent.is_empty()
            && self.closed.is_empty()
    }

    /// Where the wait for `mark` with `ticket` stands, or belongs.
    fn find_mark(&self, mark: u64, ticket: Ticket) -> Result<usize, usize> {
        self.sent.binary_search_by_key(&(mark, ticket), |(mark, ticket, _)| (*mark, *ticket))
    }
}

/// Wakers collected under the lock, to be woken after it.
#[derive(Default)]
#[must_use]
pub(crate) struct Wakes {
    driver: Option<Waker>,
    others: Vec<Waker>,
}

impl Wakes {
    fn wake(self) {
        for waker in self.driver.into_iter().chain(self.others) {
            waker.wake();
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

impl Link {
    pub(crate) fn new(
        number: u64,
        remote: SocketAddr,
        local: SocketAddr,
        stream: impl Into<Stream>,
    ) -> Self {
        let state = State {
            stream: Some(stream.into()),
            outbox: Outbox::default(),
            ending: None,
            broken: false,
            end_seen: false,
            finishing: false,
            fin_sent: false,
            has_sender: false,
            is_orphan: false,
            drain: Drain::No,
            counts: Counts::default(),
            driver: None,
            waiting: None,
        };
        Self { number, remote, local, accepted: Instant::now(), state: Mutex::new(state) }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock runs code of others, so a poisoned state is still whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then wakes whoever the change concerns.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State, &mut Wakes) -> T) -> T {
        let mut wakes = Wakes::default();
        let result = change(&mut self.lock(), &mut wakes);
        wakes.wake();
        result
    }

    pub(crate) fn accepted(&self) -> Instant {
        self.accepted
    }

    /// What is told of the connection at its end; `otherwise` where no reason is known.
    pub(crate) fn close_of(&self, otherwise: CloseReason) -> Close {
        let stats = self.stats();
        let state = self.lock();
        let ending = state.ending.as_ref();
        Close {
            reason: ending.map_or(otherwise, |ending| ending.reason),
            stats,
            error: ending.and_then(|ending| ending.error.clone()),
        }
    }

    pub(crate) fn stats(&self) -> ConnectionStats {
        let state = self.lock();
        ConnectionStats {
            bytes_received: state.counts.bytes_received,
            bytes_sent: state.outbox.sent(),
            bytes_unsent: state.counts.bytes_unsent,
            chunks_received: state.counts.chunks_received,
            chunks_sent: state.counts.chunks_sent,
            age: self.accepted.elapsed(),
        }
    }

    // ---- Requests, from anywhere, at any time ----

    /// Ends the connection for `reason`, unless it is ending already; a reason that resets cuts
    /// even an orderly end short.
    pub(crate) fn end(&self, reason: CloseReason, error: Option<Error>) {
        self.change(|state, wakes| state.end(reason, error, wakes));
    }

    /// Asks the connection's task to let the service finish.
    pub(crate) fn request_drain(&self) {
        self.change(|state, wakes| {
            if state.drain == Drain::No {
                state.drain = Drain::Requested;
                wakes.driver.clone_from(&state.driver);
            }
        });
    }

    // ---- Writing, from any task ----

    /// Drives one write; see [`WriteStep`].
    pub(crate) fn poll_write(
        &self,
        step: &mut WriteStep,
        cx: &mut Context<'_>,
    ) -> Poll<Result<()>> {
        self.change(|state, wakes| {
            let result = state.poll_write(step, cx, wakes);
            if result.is_ready() {
                *step = WriteStep::Done;
            }
            result
        })
    }

    /// A write whose future is dropped before it was accepted leaves the line; one that was accepted
    /// is waited for by nobody.
    pub(crate) fn abandon_write(&self, step: &WriteStep) {
        match step {
            WriteStep::InLine(_, ticket) => {
                self.change(|state, wakes| state.leave_line(*ticket, wakes));
            }
            WriteStep::Accepted(mark, Some(ticket)) => {
                let waker = self.lock().forget_mark(*mark, *ticket);
                drop(waker);
            }
            WriteStep::New(_) | WriteStep::Accepted(_, None) | WriteStep::Done => {}
        }
    }

    /// Accepts `data` if there is room and nobody waits for it; never waits.
    pub(crate) fn try_write(&self, data: Bytes) -> Result<()> {
        self.change(|state, wakes| {
            state.check_open()?;
            if !state.may_enter(data.len()) {
                return Err(Error::of(ErrorKind::Full, "the write queue is full"));
            }
            state.accept(data, wakes);
            state.check_sound()
        })
    }

    pub(crate) fn queued(&self) -> u64 {
        self.lock().outbox.queued()
    }

    // ---- Waiting for the end ----

    pub(crate) fn is_closed(&self) -> bool {
        self.lock().is_closed()
    }

    /// Waits until the connection is closed for writes; `ticket` is kept between polls.
    pub(crate) fn poll_closed(&self, ticket: &mut Option<Ticket>, cx: &Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.is_closed() {
            return Poll::Ready(());
        }
        state.watch_end(ticket, cx);
        Poll::Pending
    }

    pub(crate) fn abandon_closed(&self, ticket: Option<Ticket>) {
        let Some(ticket) = ticket else { return };
        let waker = self.lock().forget_watch(ticket);
        drop(waker);
    }

    // ---- The end of the socket ----

    /// The connection's task ends: nobody is to wake it, or to keep its memory, any more.
    pub(crate) fn detach_driver(&self) {
        let driver = self.lock().driver.take();
        drop(driver);
    }

    /// Closes the descriptor, in the given manner, and answers everybody who still waits.
    pub(crate) fn close_socket(&self, parting: Parting) {
        let stream = self.change(|state, wakes| {
            state.counts.bytes_unsent += state.outbox.discard();
            let stream = state.stream.take();
            state.wake_everybody(wakes);
            stream
        });
        // Outside the lock: closing is a system call that nobody needs to wait for.
        match (stream, parting) {
            (Some(stream), Parting::Reset) => stream.reset(),
            (stream, _) => drop(stream),
        }
    }
}

impl State {
    pub(crate) fn ending(&self) -> Option<&Ending> {
        self.ending.as_ref()
    }

    /// Whether a stop of the listener cut the connection off.
    pub(crate) fn is_forced(&self) -> bool {
        self.ending.as_ref().is_some_and(Ending::is_forced)
    }

    pub(crate) fn end_seen(&self) -> bool {
        self.end_seen
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The stream, while the descriptor is open.
    pub(crate) fn stream(&mut self) -> Option<&mut Stream> {
        self.stream.as_mut()
    }

    /// Notes whom to wake when there is something to do for the connection's task.
    pub(crate) fn attach_driver(&mut self, cx: &Context<'_>) {
        match &mut self.driver {
            Some(driver) => driver.clone_from(cx.waker()),
            None => self.driver = Some(cx.waker().clone()),
        }
    }

    /// Whether the service has to be told now that it should finish; says so once.
    pub(crate) fn take_drain_request(&mut self) -> bool {
        let requested = self.drain == Drain::Requested;
        if requested {
            self.drain = Drain::Told;
        }
        requested
    }

    // ---- The ending ----

    pub(crate) fn end(&mut self, reason: CloseReason, error: Option<Error>, wakes: &mut Wakes) {
        match &mut self.ending {
            Some(ending) => ending.note(reason),
            None => self.ending = Some(Ending::of(reason, error)),
        }
        wakes.driver.clone_from(&self.driver);
        self.wake_everybody_not_accepted(wakes);
    }

    /// Ends the connection because the peer has ended its side and all of it was delivered.
    pub(crate) fn end_with_peer(&mut self, wakes: &mut Wakes) {
        if self.broken {
            self.fail(Error::of(ErrorKind::Reset, "the peer reset the connection"), wakes);
        } else {
            self.end(CloseReason::PeerClosed, None, wakes);
        }
    }

    /// Ends the connection because its transport failed.
    pub(crate) fn fail(&mut self, error: Error, wakes: &mut Wakes) {
        self.fail_with(CloseReason::of_failure(&error), error, wakes);
    }

    pub(crate) fn fail_with(&mut self, reason: CloseReason, error: Error, wakes: &mut Wakes) {
        self.broken = true;
        self.end(reason, Some(error), wakes);
        self.counts.bytes_unsent += self.outbox.discard();
        self.wake_everybody(wakes);
    }

    fn is_closed(&self) -> bool {
        self.ending.is_some() || self.broken || self.finishing || self.stream.is_none()
    }

    /// Notes whom to wake when the connection ends, or is closed for writes.
    pub(crate) fn watch_end(&mut self, ticket: &mut Option<Ticket>, cx: &Context<'_>) {
        let waiting = self.waiting.get_or_insert_default();
        let ticket = *ticket.get_or_insert_with(new_ticket);
        match waiting.closed.iter_mut().find(|(known, _)| *known == ticket) {
            Some((_, waker)) => waker.clone_from(cx.waker()),
            None => waiting.closed.push((ticket, cx.waker().clone())),
        }
    }

    fn forget_watch(&mut self, ticket: Ticket) -> Option<Waker> {
        let waiting = self.waiting.as_mut()?;
        let place = waiting.closed.iter().position(|(known, _)| *known == ticket)?;
        let (_, waker) = waiting.closed.swap_remove(place);
        self.tidy();
        Some(waker)
    }

    fn check_open(&self) -> Result<()> {
        if self.is_closed() { Err(Error::closed()) } else { Ok(()) }
    }

    /// Whether a callback's error only repeats what is known of the connection's end, so that it is
    /// no news for `on_error`.
    pub(crate) fn explains(&self, error: &Error) -> bool {
        match &self.ending {
            Some(ending) => {
                ending.reason.is_transport_failure()
                    || ending.parting() == Parting::Reset
                    || error.is_closed()
            }
            // The failure itself is found, and told, by the next read.
            None => self.broken && error.is_closed(),
        }
    }

    /// The failure that a write just ran into, if any: told as it is, once, to whom it hit.
    fn check_sound(&self) -> Result<()> {
        match &self.ending {
            Some(Ending { reason, error: Some(error), .. }) if reason.is_transport_failure() => {
                Err(error.clone())
            }
            _ => Ok(()),
        }
    }

    // ---- Writing ----

    fn poll_write(
        &mut self,
        step: &mut WriteStep,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Result<()>> {
        match std::mem::replace(step, WriteStep::Done) {
            WriteStep::New(data) => {
                self.check_open()?;
                if !self.may_enter(data.len()) {
                    *step = WriteStep::InLine(data, self.join_line(cx));
                    return Poll::Pending;
                }
                self.accept_and_wait(data, step, cx, wakes)
            }
            WriteStep::InLine(data, ticket) => {
                if let Err(error) = self.check_open() {
                    self.leave_line(ticket, wakes);
                    return Poll::Ready(Err(error));
                }
                if !self.is_first_in_line(ticket) || !self.outbox.has_room(data.len(), QUEUE_CAP) {
                    self.stay_in_line(ticket, cx);
                    *step = WriteStep::InLine(data, ticket);
                    return Poll::Pending;
                }
                self.leave_line(ticket, wakes);
                self.accept_and_wait(data, step, cx, wakes)
            }
            WriteStep::Accepted(mark, ticket) => self.poll_mark(mark, ticket, step, cx),
            WriteStep::Done => panic!("a finished write was polled again"),
        }
    }

    fn accept_and_wait(
        &mut self,
        data: Bytes,
        step: &mut WriteStep,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Result<()>> {
        let mark = self.accept(data, wakes);
        self.check_sound()?;
        self.poll_mark(mark, None, step, cx)
    }

    fn poll_mark(
        &mut self,
        mark: u64,
        ticket: Option<Ticket>,
        step: &mut WriteStep,
        cx: &mut Context<'_>,
    ) -> Poll<Result<()>> {
        if self.outbox.sent() >= mark {
            return Poll::Ready(Ok(()));
        }
        if self.broken || self.stream.is_none() {
            self.check_sound()?;
            return Poll::Ready(Err(Error::closed()));
        }
        let waiting = self.waiting.get_or_insert_default();
        let ticket = ticket.unwrap_or_else(new_ticket);
        match waiting.find_mark(mark, ticket) {
            Ok(place) => waiting.sent[place].2.clone_from(cx.waker()),
            Err(place) => waiting.sent.insert(place, (mark, ticket, cx.waker().clone())),
        }
        *step = WriteStep::Accepted(mark, Some(ticket));
        Poll::Pending
    }

    fn forget_mark(&mut self, mark: u64, ticket: Ticket) -> Option<Waker> {
        let waiting = self.waiting.as_mut()?;
        let place = waiting.find_mark(mark, ticket).ok()?;
        let (_, _, waker) = waiting.sent.remove(place)?;
        self.tidy();
        Some(waker)
    }

    /// Whether a new message of `len` bytes may enter: there is room and nobody was here before.
    fn may_enter(&self, len: usize) -> bool {
        let line_is_empty = self.waiting.as_ref().is_none_or(|waiting| waiting.room.is_empty());
        line_is_empty && self.outbox.has_room(len, QUEUE_CAP)
    }

    /// Accepts a message: what the kernel takes now goes there, the rest is queued for the
    /// connection's task. Returns the mark that tells when all of it is sent.
    fn accept(&mut self, mut data: Bytes, wakes: &mut Wakes) -> u64 {
        self.counts.chunks_sent += 1;
        let sent = self.send_directly(&data, wakes);
        bytes::Buf::advance(&mut data, sent);
        if data.is_empty() || self.broken {
            self.counts.bytes_unsent += data.len() as u64;
            return self.outbox.sent();
        }
        wakes.driver.clone_from(&self.driver);
        self.outbox.push(data)
    }

    /// Hands bytes straight to the kernel if nothing is queued before them.
    fn send_directly(&mut self, data: &[u8], wakes: &mut Wakes) -> usize {
        let Some(stream) = self.stream.as_mut().filter(|_| self.outbox.is_empty()) else {
            return 0;
        };
        if data.is_empty() {
            return 0;
        }
        match stream.send_now(data) {
            Ok(count) => {
                self.outbox.passed(count);
                count
            }
            Err(error) => {
                self.fail(Error::transport("writing", error), wakes);
                0
            }
        }
    }

    /// Accepts a callback's reply. It always enters; with more received data at hand a small one
    /// waits for its like, so that many leave in one call.
    pub(crate) fn reply(&mut self, data: Bytes, more_at_hand: bool, wakes: &mut Wakes) {
        let may_be_sent = self.ending.as_ref().is_none_or(|ending| ending.cut.is_none());
        if data.is_empty() || !may_be_sent || self.broken {
            return;
        }
        if more_at_hand && data.len() <= GATHER {
            self.counts.chunks_sent += 1;
            self.outbox.push(data);
        } else {
            self.accept(data, wakes);
        }
    }

    // ---- The line for room ----

    fn join_line(&mut self, cx: &Context<'_>) -> Ticket {
        let waiting = self.waiting.get_or_insert_default();
        let ticket = new_ticket();
        waiting.room.push_back((ticket, cx.waker().clone()));
        ticket
    }

    fn is_first_in_line(&self, ticket: Ticket) -> bool {
        let first = self.waiting.as_ref().and_then(|waiting| waiting.room.front());
        first.is_some_and(|(first, _)| *first == ticket)
    }

    fn stay_in_line(&mut self, ticket: Ticket, cx: &Context<'_>) {
        let line = self.waiting.iter_mut().flat_map(|waiting| waiting.room.iter_mut());
        if let Some((_, waker)) = line.into_iter().find(|(known, _)| *known == ticket) {
            waker.clone_from(cx.waker());
        }
    }

    fn leave_line(&mut self, ticket: Ticket, wakes: &mut Wakes) {
        if let Some(waiting) = &mut self.waiting {
            waiting.room.retain(|(known, _)| *known != ticket);
            // Whoever is first now may fit where the one who left did not.
            wakes.others.extend(waiting.room.front().map(|(_, waker)| waker.clone()));
            wakes.others.append(&mut waiting.any_room);
        }
        self.tidy();
    }

    fn tidy(&mut self) {
        if self.waiting.as_ref().is_some_and(|waiting| waiting.is_idle()) {
            self.waiting = None;
        }
    }

    // ---- Sending what is queued: the connection's task ----

    /// Sends what is queued, one turn of it at a time. `Ready` when nothing is left, also because
    /// the transport failed; then the ending says so.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>, wakes: &mut Wakes) -> Poll<()> {
        let start = self.outbox.sent();
        while !self.outbox.is_empty() {
            let Some(stream) = &mut self.stream else {
                return Poll::Ready(());
            };
            if self.outbox.sent() - start >= crate::socket::SEND_TURN as u64 {
                // Others get their turn.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let result = ready!(stream.poll_send(cx, &mut self.outbox));
            self.wake_sent(wakes);
            if let Err(error) = result {
                self.fail(Error::transport("writing", error), wakes);
            }
        }
        Poll::Ready(())
    }

    fn wake_sent(&mut self, wakes: &mut Wakes) {
        let Some(waiting) = &mut self.waiting else { return };
        while waiting.sent.front().is_some_and(|(mark, _, _)| *mark <= self.outbox.sent()) {
            wakes.others.extend(waiting.sent.pop_front().map(|(_, _, waker)| waker));
        }
        if self.outbox.queued() < QUEUE_CAP {
            wakes.others.extend(waiting.room.front().map(|(_, waker)| waker.clone()));
            wakes.others.append(&mut waiting.any_room);
        }
        self.tidy();
    }

    fn wake_everybody_not_accepted(&mut self, wakes: &mut Wakes) {
        if let Some(waiting) = &mut self.waiting {
            wakes.others.extend(waiting.closed.drain(..).map(|(_, waker)| waker));
            wakes.others.extend(waiting.room.iter().map(|(_, waker)| waker.clone()));
            wakes.others.append(&mut waiting.any_room);
        }
    }

    fn wake_everybody(&mut self, wakes: &mut Wakes) {
        self.wake_everybody_not_accepted(wakes);
        if let Some(waiting) = &mut self.waiting {
            wakes.others.extend(waiting.sent.drain(..).map(|(_, _, waker)| waker));
        }
    }

    // ---- Receiving: the connection's task ----

    /// Takes the next input, or waits for it. A failure becomes the connection's ending.
    pub(crate) fn poll_input(
        &mut self,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Option<Input>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(None);
        };
        let result = ready!(stream.poll_input(cx));
        Poll::Ready(self.received(result.map(Some), wakes))
    }

    /// Takes the next input if there is any now.
    pub(crate) fn input_now(&mut self, wakes: &mut Wakes) -> Option<Input> {
        let result = self.stream.as_mut()?.input_now();
        self.received(result, wakes)
    }

    fn received(
        &mut self,
        result: std::io::Result<Option<Input>>,
        wakes: &mut Wakes,
    ) -> Option<Input> {
        match result {
            // The kernel tells of a failure once; after that the stream seems to end well.
            Ok(Some(Input::End)) if self.broken => {
                self.fail(Error::of(ErrorKind::Reset, "the peer reset the connection"), wakes);
                None
            }
            Ok(input) => {
                match &input {
                    Some(Input::Chunk(data, _)) => {
                        self.counts.bytes_received += data.len() as u64;
                        self.counts.chunks_received += 1;
                    }
                    Some(Input::End) => self.end_seen = true,
                    None => {}
                }
                input
            }
            Err(error) => {
                self.fail(Error::transport("reading", error), wakes);
                None
            }
        }
    }

    /// While nothing is read and nothing is queued: notices that the peer is gone for good, so that
    /// whoever waits for the end of the connection hears of it.
    pub(crate) fn poll_broken(&mut self, cx: &mut Context<'_>, wakes: &mut Wakes) -> bool {
        if let Some(stream) = self.stream.as_mut().filter(|_| !self.broken)
            && stream.poll_broken(cx).is_ready()
        {
            self.broken = true;
            self.wake_everybody_not_accepted(wakes);
        }
        self.broken
    }

    /// Reads and drops what the peer still sends; `Ready` when it has ended, failed, or sent more
    /// than `left` bytes.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>, left: &mut usize) -> Poll<()> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(());
        };
        loop {
            match ready!(stream.poll_input(cx)) {
                Ok(Input::Chunk(data, _)) if data.len() < *left => *left -= data.len(),
                _ => return Poll::Ready(()),
            }
        }
    }
}

/// What only a client needs: it has no task of its own, except to send what is queued.
impl State {
    /// Why nothing can be read: the failure, or that the connection is closed.
    pub(crate) fn failure(&self) -> Error {
        let error = self.ending.as_ref().and_then(|ending| ending.error.clone());
        error.unwrap_or_else(Error::closed)
    }

    /// The wait for everything accepted so far, which fails where some of it is lost already.
    pub(crate) fn everything(&self) -> Result<WriteStep> {
        if self.broken {
            return Err(self.failure());
        }
        Ok(WriteStep::Accepted(self.outbox.sent() + self.outbox.queued(), None))
    }

    /// Whether a task has to be started that sends what is queued; it is then taken for started.
    pub(crate) fn claim_backlog(&mut self) -> bool {
        let is_needed = !self.outbox.is_empty() && !self.has_sender;
        self.has_sender |= is_needed;
        is_needed
    }

    /// The task that sends what is queued ends; tells whether it has to close the descriptor,
    /// because nobody else is left.
    pub(crate) fn release_backlog(&mut self) -> bool {
        self.has_sender = false;
        self.driver = None;
        self.is_orphan
    }

    /// The client is gone; tells whether to close the descriptor now, because no task is sending.
    pub(crate) fn orphan(&mut self, wakes: &mut Wakes) -> bool {
        self.is_orphan = true;
        self.end(CloseReason::LocalClose, None, wakes);
        !self.has_sender
    }

    /// Accepts nothing more for sending; returns the wait for everything accepted before.
    pub(crate) fn refuse_writes(&mut self, wakes: &mut Wakes) -> Result<WriteStep> {
        if !self.finishing {
            self.finishing = true;
            self.wake_everybody_not_accepted(wakes);
        }
        self.everything()
    }

    /// Ends our direction, once, after everything accepted was sent.
    pub(crate) fn send_fin(&mut self, wakes: &mut Wakes) -> Result<()> {
        if self.fin_sent {
            return Ok(());
        }
        let Some(stream) = self.stream.as_mut().filter(|_| !self.broken) else {
            return Err(self.failure());
        };
        if let Err(error) = stream.finish() {
            self.fail(Error::transport("closing", error), wakes);
            return Err(self.failure());
        }
        self.fin_sent = true;
        Ok(())
    }

    /// Accepts some of `data`, as `AsyncWrite` does, or waits for room. It keeps no place in the
    /// line, because its future may be forgotten without a word.
    pub(crate) fn poll_write_some(
        &mut self,
        data: &[u8],
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Result<usize>> {
        self.check_open()?;
        if data.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let room = QUEUE_CAP.saturating_sub(self.outbox.queued());
        let some = &data[..data.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
        if some.is_empty() || !self.may_enter(some.len()) {
            let any_room = &mut self.waiting.get_or_insert_default().any_room;
            if !any_room.iter().any(|waker| waker.will_wake(cx.waker())) {
                any_room.push(cx.waker().clone());
            }
            return Poll::Pending;
        }
        let sent = self.send_directly(some, wakes);
        self.check_sound()?;
        self.counts.chunks_sent += 1;
        if sent > 0 {
            return Poll::Ready(Ok(sent));
        }
        self.outbox.push(Bytes::copy_from_slice(some));
        wakes.driver.clone_from(&self.driver);
        Poll::Ready(Ok(some.len()))
    }
}
