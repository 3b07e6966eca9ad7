//! What a connection's task, its callers and its listener share: one value under one lock.
//!
//! The lock is held for a system call, and over TLS the cryptography of one turn, at most, and never
//! across an await. Whoever changes something that others wait for collects their wakers and wakes
//! them after the lock is released.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::close::{Close, CloseReason, ConnectionStats, Parting};
use crate::framing::Compiled;
use crate::ledger::Ledger;
use crate::outbox::{Load, Outbox};
use crate::sources::SourcePlace;
use crate::stream::Stream;
use crate::timer::Ticks;
use crate::{Error, ErrorKind, FrameMark, Result};

mod client;
mod framing;
mod receiving;
#[cfg(feature = "_tls")]
mod secure;
mod status;
mod waiting;
mod writing;

use framing::Framer;
pub(crate) use receiving::Received;
pub(crate) use status::Vitals;
pub use status::{ConnectionInfo, ConnectionState};
use waiting::{Ticket, Waiting, new_ticket};
pub(crate) use waiting::{Wakes, WriteStep};

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
    /// What was agreed on with a TLS peer.
    // Boxed, because a plain connection has none and should not keep room for it.
    #[cfg(feature = "_tls")]
    tls: once_cell::race::OnceBox<crate::TlsInfo>,
    state: Mutex<State>,
}

/// The state under the lock.
pub(crate) struct State {
    // Taken at the end, so that the descriptor closes whatever clones of the caller live on.
    stream: Option<Stream>,
    outbox: Outbox,
    /// What is held by this connection and all others of its listener.
    ledger: Arc<Ledger>,
    // Boxed, because most connections have none and should not keep room for it.
    extras: Option<Box<Extras>>,
    doing: ConnectionState,
    /// When something moved last.
    active_at: Ticks,
    /// The memory that the connection takes, beside its queue.
    weight: u32,
    ending: Option<Ending>,
    /// The peer is gone for good: nothing can be sent, what it sent before may still be read.
    broken: bool,
    /// The peer has ended its side: FIN, or over TLS close_notify.
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

/// What only some connections have.
#[derive(Default)]
struct Extras {
    /// Its place among the connections of its source, where these are bounded.
    source: Option<SourcePlace>,
    /// What makes frames of its bytes.
    // Boxed apart, because one that only counts for its source should not keep room for it.
    framer: Option<Box<Framer>>,
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

impl Link {
    pub(crate) fn new(
        number: u64,
        remote: SocketAddr,
        local: SocketAddr,
        stream: impl Into<Stream>,
        ledger: Arc<Ledger>,
    ) -> Self {
        let state = State {
            stream: Some(stream.into()),
            outbox: Outbox::default(),
            ledger,
            extras: None,
            doing: ConnectionState::Connecting,
            active_at: Ticks::now(),
            weight: 0,
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
        Self {
            number,
            remote,
            local,
            accepted: Instant::now(),
            #[cfg(feature = "_tls")]
            tls: once_cell::race::OnceBox::new(),
            state: Mutex::new(state),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        // Nothing under the lock runs code of others but rustls'. Where that panics the state is whole
        // all the same, but for the session, which is then abandoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then wakes whoever the change concerns. What it does to the memory held is
    /// noted in the ledger.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State, &mut Wakes) -> T) -> T {
        let mut wakes = Wakes::default();
        let mut noted = Noted::new(self.lock());
        let result = change(&mut noted.state, &mut wakes);
        noted.state.outbox.take_spent(&mut wakes.spent);
        let ledger = noted.note().then(|| Arc::clone(&noted.state.ledger));
        drop(noted);
        wakes.wake();
        if let Some(ledger) = ledger
            && ledger.is_pressed()
        {
            ledger.call_relief();
        }
        result
    }

    pub(crate) fn accepted(&self) -> Instant {
        self.accepted
    }

    /// What is told of the connection at its end; `otherwise` where no reason is known.
    pub(crate) fn close_of(&self, otherwise: CloseReason) -> Close {
        let state = self.lock();
        let ending = state.ending.as_ref();
        Close {
            reason: ending.map_or(otherwise, |ending| ending.reason),
            stats: self.stats_of(&state),
            error: ending.and_then(|ending| ending.error.clone()),
        }
    }

    pub(crate) fn stats(&self) -> ConnectionStats {
        self.stats_of(&self.lock())
    }

    fn stats_of(&self, state: &State) -> ConnectionStats {
        ConnectionStats {
            bytes_received: state.counts.bytes_received,
            bytes_sent: state.outbox.sent(),
            bytes_unsent: state.counts.bytes_unsent,
            chunks_received: state.counts.chunks_received,
            chunks_sent: state.counts.chunks_sent,
            frames_dropped: state.frames_dropped(),
            age: self.accepted.elapsed(),
        }
    }

    // ---- Requests, from anywhere, at any time ----

    /// Ends the connection for `reason`, unless it is ending already; a reason that resets cuts
    /// even an orderly end short.
    pub(crate) fn end(&self, reason: CloseReason, error: Option<Error>) {
        self.change(|state, wakes| state.end(reason, error, wakes));
    }

    /// Ends the connection at once for reason `limit`, and frees what it holds.
    pub(crate) fn cut_off(&self, error: Error) {
        self.change(|state, wakes| state.fail_with(CloseReason::Limit, error, wakes));
    }

    /// Memory is short: keeps no read buffer alive.
    pub(crate) fn compact(&self) {
        self.change(|state, _| {
            state.outbox.compact();
            state.compact_input();
        });
    }

    /// Limits have changed, or memory is less short: whoever waits looks again.
    pub(crate) fn reconsider(&self) {
        self.change(|state, wakes| {
            wakes.driver.clone_from(&state.driver);
            state.wake_for_room(wakes);
        });
    }

    // ---- What only some connections have ----

    /// From now on what comes and goes is frames. To be called before anything has come or gone.
    pub(crate) fn frame(&self, compiled: &Arc<Compiled>) {
        let framer = Box::new(Framer::new(Arc::clone(compiled)));
        self.lock().extras.get_or_insert_default().framer = Some(framer);
    }

    /// Whether the frame that was delivered last was whole.
    pub(crate) fn frame_mark(&self) -> FrameMark {
        self.lock().frame_mark()
    }

    /// Counts the connection where it belongs now, given where it has counted. One whose descriptor is
    /// closed counts nowhere.
    pub(crate) fn set_source(
        &self,
        source: impl FnOnce(Option<SourcePlace>) -> Option<SourcePlace>,
    ) {
        let mut state = self.lock();
        if state.stream.is_some() {
            let before = state.extras.as_mut().and_then(|extras| extras.source.take());
            if let Some(place) = source(before) {
                state.extras.get_or_insert_default().source = Some(place);
            }
        }
    }

    // ---- Its place in a run ----

    /// Begins to count, before anybody else knows of it; returns the memory that it takes.
    pub(crate) fn enter(&mut self, source: Option<SourcePlace>) -> u64 {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        if source.is_some() {
            state.extras.get_or_insert_default().source = source;
        }
        state.weight.into()
    }

    /// Counts no more, and nobody drives it, its descriptor being closed; returns the memory that it took.
    pub(crate) fn leave(&self) -> u64 {
        let mut state = self.lock();
        let driver = state.driver.take();
        if let Some(extras) = &mut state.extras {
            extras.source = None;
        }
        let weight = state.weight.into();
        drop(state);
        // What a task's waker does when it is dropped is not for under the lock.
        drop(driver);
        weight
    }

    #[cfg(feature = "_tls")]
    pub(crate) fn weight(&self) -> u64 {
        self.lock().weight.into()
    }

    pub(crate) fn set_weight(&self, weight: u64) {
        self.lock().weight = u32::try_from(weight).unwrap_or(u32::MAX);
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
            let may_enter = state
                .check_open()
                .and_then(|()| state.check_message(&data))
                .map(|()| state.may_enter(state.sent_len(&data)));
            if !matches!(may_enter, Ok(true)) {
                wakes.spent.push(data);
                may_enter?;
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

    /// Closes the descriptor, in the given manner, and answers everybody who still waits. The first call
    /// does it.
    pub(crate) fn close_socket(&self, parting: Parting) {
        let stream = self.change(|state, wakes| {
            let stream = state.stream.take()?;
            state.discard_queue();
            state.discard_frames();
            state.wake_everybody(wakes);
            Some(stream)
        });
        // Outside the lock: closing is a system call that nobody needs to wait for.
        match (stream, parting) {
            (Some(stream), Parting::Reset) => stream.reset(),
            (stream, _) => drop(stream),
        }
    }
}

/// The state under its lock; what has changed of the memory held is noted whatever happens.
struct Noted<'a> {
    state: MutexGuard<'a, State>,
    before: Load,
}

impl<'a> Noted<'a> {
    fn new(state: MutexGuard<'a, State>) -> Self {
        Self { before: state.load(), state }
    }

    /// Notes what has changed; tells whether anything has.
    fn note(&mut self) -> bool {
        let now = self.state.load();
        let has_changed = now != self.before;
        if has_changed {
            self.state.ledger.note(self.before, now);
            self.before = now;
        }
        has_changed
    }
}

impl Drop for Noted<'_> {
    fn drop(&mut self) {
        // Where something has panicked.
        if std::thread::panicking() {
            self.note();
        }
    }
}

impl State {
    /// What is queued, and the memory that goes with it.
    fn load(&self) -> Load {
        if self.is_plain_and_empty() {
            return Load::default();
        }
        let Load { queued, held } = self.outbox.load();
        let held_by_stream = self.stream.as_ref().map_or(0, Stream::held);
        Load { queued, held: held + held_by_stream + self.held_by_frames() }
    }

    /// Whether there is nothing that could weigh anything, as is the rule.
    fn is_plain_and_empty(&self) -> bool {
        self.extras.is_none()
            && self.outbox.has_no_backlog()
            && self.stream.as_ref().is_none_or(|stream| !stream.is_secured())
    }

    /// Whether nothing is queued, and nothing has come that is not delivered.
    pub(crate) fn is_at_rest(&self) -> bool {
        !self.has_backlog() && self.frames_are_at_rest()
    }

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

    /// Whether the peer has ended the TCP connection's direction to us, so that nothing can be
    /// unread.
    pub(crate) fn fin_seen(&self) -> bool {
        self.stream.as_ref().is_none_or(|stream| stream.fin_seen(self.end_seen))
    }

    /// Whether something may be unread when the descriptor is closed, or come then, which would make of the
    /// close a reset.
    pub(crate) fn may_have_unread(&mut self) -> bool {
        if self.fin_seen() {
            return false;
        }
        // Behind its close_notify a TLS peer sends nothing but FIN.
        let is_all_read = |stream: &mut Stream| stream.arrived() == 0;
        !(self.end_seen && self.stream.as_mut().is_none_or(is_all_read))
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

    fn has_drain_request(&self) -> bool {
        self.drain == Drain::Requested
    }

    /// Whether the service has to be told now that it should finish; says so once.
    pub(crate) fn take_drain_request(&mut self) -> bool {
        let requested = self.has_drain_request();
        if requested {
            self.drain = Drain::Told;
        }
        requested
    }

    // ---- The ending ----

    pub(crate) fn end(&mut self, reason: CloseReason, error: Option<Error>, wakes: &mut Wakes) {
        match &mut self.ending {
            Some(ending) => ending.note(reason),
            None => {
                let (reason, error) = self.first_cause(reason, error);
                self.ending = Some(Ending::of(reason, error));
            }
        }
        if self.ending.as_ref().is_some_and(|ending| ending.cut.is_some()) {
            // Nothing is sent or delivered any more, and what is held for it is let go at once.
            self.discard_queue();
            self.discard_frames();
        }
        wakes.driver.clone_from(&self.driver);
        self.wake_everybody_not_accepted(wakes);
    }

    /// Ends the connection because the peer has ended its side and all of it was delivered.
    pub(crate) fn end_with_peer(&mut self, wakes: &mut Wakes) {
        if self.broken {
            self.fail(Error::of(ErrorKind::Reset, "the peer reset the connection"), wakes);
        } else if self.frame_mark() == FrameMark::Partial {
            self.end(CloseReason::PartialFrame, None, wakes);
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
        self.discard_queue();
        self.wake_everybody(wakes);
    }

    fn discard_queue(&mut self) {
        self.counts.bytes_unsent += self.outbox.discard();
        if let Some(stream) = &mut self.stream {
            stream.discard_output();
        }
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
}
