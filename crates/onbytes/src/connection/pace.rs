//! When a connection reads, rests and gives up.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::{Next, Rare};
use crate::close::CloseReason;
use crate::framing::Fault;
use crate::link::{ConnectionState, Link, Received, State, Wakes};
use crate::run::Membership;
use crate::stream::Stream;
use crate::timer::{Timer, later};
use crate::{Error, ErrorKind, MinArrival, Timeouts};

/// When to read, when to rest, and which deadline is next.
// Small, because every idle connection keeps it: what most do without is boxed.
#[derive(Default)]
pub(super) struct Pace {
    turn: Turn,
    pub(super) timer: Timer,
    /// How far sending had come when it was last seen to move, as one number, and when that was.
    stall: Option<(u64, Instant)>,
    watch: Option<Box<Watch>>,
}

/// What is only kept where there is a limit, or a drain, that asks for it.
#[derive(Default)]
struct Watch {
    idle: Option<Idle>,
    // Boxed apart, because few have one.
    arrival: Option<Box<Arrival>>,
    drain: Option<Draining>,
}

/// The service has agreed to close when what has arrived is delivered.
enum Draining {
    /// So many bytes had arrived and are not delivered yet.
    Left(usize),
    Done,
}

/// What a connection has done since it last let others have their turn.
#[derive(Default)]
struct Turn {
    bytes: u32,
    /// Frames that came with others in one chunk.
    frames: u16,
    chunks: u8,
    /// Whether more is likely to be at hand behind what was delivered last.
    more: bool,
}

impl Turn {
    const CHUNKS: u8 = 32;
    const BYTES: u32 = 256 * 1024;

    /// So many, because the replies to frames of one chunk should leave together.
    const FRAMES: u16 = 1024;

    fn note(&mut self, read: usize) {
        match read {
            0 => self.frames += 1,
            _ => self.chunks += 1,
        }
        self.bytes = self.bytes.saturating_add(u32::try_from(read).unwrap_or(u32::MAX));
    }

    fn is_spent(&self) -> bool {
        self.chunks >= Self::CHUNKS || self.bytes >= Self::BYTES || self.frames >= Self::FRAMES
    }
}

/// Since when the peer has been silent, and how much it had acknowledged when last looked at.
struct Idle {
    since: Instant,
    /// What had come by then. Over TLS a record may come slowly before any of it is delivered.
    heard: u64,
    acknowledged: u64,
    looked: bool,
}

/// How much has come since a point in time, and how long the peer was waited for since then.
struct Arrival {
    arrived_before: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
}

impl Arrival {
    fn begin(arrived: u64) -> Self {
        Self { arrived_before: arrived, waited: Duration::ZERO, waiting_since: None }
    }

    /// The peer is not waited for any more: a callback runs, or something is queued.
    fn pause(&mut self, now: Instant) {
        if let Some(since) = self.waiting_since.take() {
            self.waited += now.saturating_duration_since(since);
        }
    }

    /// The peer is waited for; returns when it has to have sent enough.
    fn deadline(&mut self, least: MinArrival, arrived: u64, now: Instant) -> Option<Instant> {
        if arrived.saturating_sub(self.arrived_before) >= least.bytes as u64 {
            *self = Self::begin(arrived);
        }
        let since = *self.waiting_since.get_or_insert(now);
        later(since, Some(least.within.saturating_sub(self.waited)))
    }
}

impl Pace {
    pub(super) fn poll_next(
        &mut self,
        state: &mut State,
        membership: &Membership,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Next> {
        state.attach_driver(cx);
        state.set_doing(ConnectionState::Waiting);
        let next = self.poll_whats_next(state, membership, cx, wakes);
        if next.is_ready() {
            if !matches!(next, Poll::Ready(Next::Over)) {
                state.set_doing(ConnectionState::Busy);
            }
            state.pause_frame();
            if let Some(arrival) = self.watch.as_mut().and_then(|watch| watch.arrival.as_mut()) {
                arrival.pause(Instant::now());
            }
        }
        next
    }

    fn poll_whats_next(
        &mut self,
        state: &mut State,
        membership: &Membership,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Next> {
        if state.ending().is_some() {
            return Poll::Ready(Next::Over);
        }
        if state.take_drain_request() {
            return Poll::Ready(Next::Rare(Rare::Drain));
        }
        if !self.turn.is_spent()
            && let Poll::Ready(next) = self.poll_read(state, cx, wakes)
        {
            return Poll::Ready(next);
        }
        let rests = self.turn.is_spent();
        state.compact_input();
        // Nothing is at hand, so what was gathered leaves now.
        if state.poll_flush(cx, wakes).is_ready() && state.end_seen() {
            self.watch_half_open(state, cx, wakes);
        }
        if let Some(fault) = self.check_deadlines(state, membership, cx, wakes) {
            return Poll::Ready(Next::Rare(Rare::Fault(fault)));
        }
        if state.ending().is_some() {
            return Poll::Ready(Next::Over);
        }
        self.turn = Turn::default();
        if rests {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// The next frame of what has been read, if that is all that is to be done now.
    pub(super) fn frame_at_hand(&mut self, state: &mut State) -> Option<Next> {
        if !self.turn.more || self.turn.is_spent() || self.is_draining() {
            return None;
        }
        self.next_of(Some(state.frame_at_hand()?))
    }

    /// Begins to wait for the peer where there is nothing else that could be done or waited for; tells
    /// whether it does. The task is woken as if [`poll_next`](Self::poll_next) had found nothing.
    pub(super) fn rests(
        &mut self,
        state: &mut State,
        membership: &Membership,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> bool {
        let has_nothing_else = !self.turn.more && !self.is_draining() && state.is_at_rest();
        if !has_nothing_else || !state.poll_quiet(cx) {
            return false;
        }
        state.set_doing(ConnectionState::Waiting);
        self.turn = Turn::default();
        if !self.is_bounded(membership) {
            self.forget_deadlines();
            return true;
        }
        let fault = self.check_all_deadlines(state, membership, cx, wakes);
        debug_assert!(fault.is_none(), "no frame is under way");
        state.ending().is_none()
    }

    /// Whether a connection at rest may have a deadline.
    fn is_bounded(&self, membership: &Membership) -> bool {
        self.watch.is_some() || membership.current.timeouts.bound_the_peer()
    }

    fn forget_deadlines(&mut self) {
        self.stall = None;
        self.timer.disarm();
    }

    fn is_draining(&self) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.drain.is_some())
    }

    /// From now on only what has arrived is delivered.
    pub(super) fn drain(&mut self, link: &Link) {
        let arrived = link.lock().stream().map_or(0, Stream::arrived);
        self.watch().drain = Some(Draining::Left(arrived));
    }

    /// Whether more is likely to be at hand behind what was delivered last.
    pub(super) fn has_more_at_hand(&self) -> bool {
        self.turn.more
    }

    fn watch(&mut self) -> &mut Watch {
        self.watch.get_or_insert_default()
    }

    /// The peer was heard.
    fn end_idleness(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.idle = None;
        }
    }

    fn poll_read(
        &mut self,
        state: &mut State,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Next> {
        loop {
            if state.has_too_much_queued() {
                let _ = state.poll_flush(cx, wakes);
            }
            if state.ending().is_some() {
                return Poll::Ready(Next::Over);
            }
            let received = ready!(self.poll_received(state, cx, wakes));
            if let Some(next) = self.next_of(received) {
                return Poll::Ready(next);
            }
            if self.turn.is_spent() {
                return Poll::Pending;
            }
        }
    }

    /// What was received, as what is to be done; nothing where it is not enough for anything.
    fn next_of(&mut self, received: Option<Received>) -> Option<Next> {
        let (next, read) = match received {
            Some(Received::Data { data, more, read }) => {
                self.turn.more = more;
                (Some(Next::Deliver(data)), read)
            }
            Some(Received::Piece { read }) => (None, read),
            Some(Received::Dropped { error, read }) => {
                (Some(Next::Rare(Rare::Dropped(error))), read)
            }
            Some(Received::Fault(fault)) => return Some(Next::Rare(Rare::Fault(fault))),
            Some(Received::End) => {
                self.turn.more = false;
                return Some(Next::Rare(Rare::End));
            }
            // A failed read, or the end of draining, has set the ending.
            None => return Some(Next::Over),
        };
        self.turn.note(read);
        self.end_idleness();
        next
    }

    fn poll_received(
        &mut self,
        state: &mut State,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Poll<Option<Received>> {
        // A peer that does not take its replies is not asked for more work.
        let may_read = !state.end_seen() && !state.has_too_much_queued();
        let drain = self.watch.as_ref().and_then(|watch| watch.drain.as_ref());
        match drain {
            None if may_read => state.poll_input(cx, wakes),
            Some(Draining::Left(_)) if may_read => {
                Poll::Ready(self.input_while_draining(state, wakes))
            }
            Some(_) if state.end_seen() || may_read => {
                state.end(CloseReason::Drained, None, wakes);
                Poll::Ready(None)
            }
            _ => Poll::Pending,
        }
    }

    /// The next of what had arrived when draining began, and what else came with it.
    fn input_while_draining(&mut self, state: &mut State, wakes: &mut Wakes) -> Option<Received> {
        let input = state.input_now(wakes);
        let read = match &input {
            Some(
                Received::Data { read, .. }
                | Received::Piece { read }
                | Received::Dropped { read, .. },
            ) => Some(*read),
            _ => None,
        };
        let drain = &mut self.watch().drain;
        *drain = match (&*drain, read) {
            // One more look behind the last byte, because the peer's end may be there. What takes
            // nothing from the peer came before.
            (Some(Draining::Left(left)), Some(read)) if *left > 0 || read == 0 => {
                Some(Draining::Left(left.saturating_sub(read)))
            }
            _ => Some(Draining::Done),
        };
        if input.is_none() && state.ending().is_none() {
            state.end(CloseReason::Drained, None, wakes);
        }
        input
    }

    /// After the peer's FIN reading tells nothing more, so the end of the connection is looked for.
    fn watch_half_open(&mut self, state: &mut State, cx: &mut Context<'_>, wakes: &mut Wakes) {
        if state.poll_broken(cx, wakes) {
            state.fail(Error::of(ErrorKind::Reset, "the peer reset the connection"), wakes);
        }
    }

    // ---- Deadlines ----

    #[inline]
    fn check_deadlines(
        &mut self,
        state: &mut State,
        membership: &Membership,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Option<Fault> {
        if !self.is_bounded(membership) && state.is_at_rest() {
            self.forget_deadlines();
            return None;
        }
        self.check_all_deadlines(state, membership, cx, wakes)
    }

    #[inline(never)]
    fn check_all_deadlines(
        &mut self,
        state: &mut State,
        membership: &Membership,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) -> Option<Fault> {
        let timeouts = &membership.current.timeouts;
        let frame = state.frame_deadline();
        let stall = self.stall_deadline(state, timeouts);
        let idle = self.idle_deadline(state, timeouts);
        let arrival = self.arrival_deadline(state, timeouts);
        let lifetime = lifetime_ends(membership);
        let next = [stall, idle, arrival, lifetime, frame].into_iter().flatten().min();
        if !self.timer.poll_passed_in_task(cx, next) {
            return None;
        }
        let now = Instant::now();
        let has_passed = |deadline: Option<Instant>| deadline.is_some_and(|at| at <= now);
        if has_passed(stall) {
            fail_stalled(state, timeouts, wakes);
        } else if has_passed(lifetime) {
            state.end(CloseReason::MaxLifetime, None, wakes);
        } else if has_passed(arrival) {
            state.end(CloseReason::TooSlow, None, wakes);
        } else if has_passed(frame) {
            return state.give_up_frame();
        } else if has_passed(idle) && !self.download_moves(state, now) {
            state.end(CloseReason::IdleTimeout, None, wakes);
        } else {
            // Not the end yet: look again, with the new deadline armed.
            cx.waker().wake_by_ref();
        }
        None
    }

    /// While a callback waits: the deadlines that do not depend on what the peer sends.
    pub(super) fn check_own_deadlines(
        &mut self,
        state: &mut State,
        membership: &Membership,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) {
        let timeouts = &membership.current.timeouts;
        let stall = self.stall_deadline(state, timeouts);
        let lifetime = lifetime_ends(membership).filter(|_| state.ending().is_none());
        let next = [stall, lifetime].into_iter().flatten().min();
        // Where there is none the timer is left alone: it may be armed for the idle limit.
        if next.is_none() || !self.timer.poll_passed(cx, next) {
            return;
        }
        if stall.is_some_and(|at| at <= Instant::now()) {
            fail_stalled(state, timeouts, wakes);
        } else {
            state.end(CloseReason::MaxLifetime, None, wakes);
            // For the other deadline the timer has to be armed again.
            cx.waker().wake_by_ref();
        }
    }

    /// While the connection ends: only a peer that does not read counts.
    pub(super) fn check_stall(
        &mut self,
        state: &mut State,
        membership: &Membership,
        cx: &mut Context<'_>,
        wakes: &mut Wakes,
    ) {
        let timeouts = &membership.current.timeouts;
        let deadline = self.stall_deadline(state, timeouts);
        if self.timer.poll_passed(cx, deadline) {
            fail_stalled(state, timeouts, wakes);
        }
    }

    fn stall_deadline(&mut self, state: &State, timeouts: &Timeouts) -> Option<Instant> {
        if !state.has_backlog() {
            self.stall = None;
            return None;
        }
        let progress = state.progress();
        let (_, since) = match self.stall {
            Some(stall) if stall.0 == progress => stall,
            _ => *self.stall.insert((progress, Instant::now())),
        };
        later(since, timeouts.write)
    }

    fn idle_deadline(&mut self, state: &State, timeouts: &Timeouts) -> Option<Instant> {
        if timeouts.idle.is_none() || state.has_backlog() {
            self.end_idleness();
            return None;
        }
        let (heard, acknowledged) = (state.heard(), state.taken());
        let idle = &mut self.watch().idle;
        let since = match idle {
            Some(idle) if idle.heard == heard => idle.since,
            _ => {
                let since = Instant::now();
                *idle = Some(Idle { since, heard, acknowledged, looked: false });
                since
            }
        };
        later(since, timeouts.idle)
    }

    fn arrival_deadline(&mut self, state: &State, timeouts: &Timeouts) -> Option<Instant> {
        let Some(least) = timeouts.min_arrival.filter(|_| !state.end_seen()) else {
            if let Some(watch) = &mut self.watch {
                watch.arrival = None;
            }
            return None;
        };
        let (arrived, now) = (state.arrived(), Instant::now());
        let arrival = self.watch().arrival.get_or_insert_with(|| Box::new(Arrival::begin(arrived)));
        if state.has_backlog() {
            // It is the peer's turn to read.
            arrival.pause(now);
            return None;
        }
        arrival.deadline(least, arrived, now)
    }

    /// Whether the peer has acknowledged data since the last look, or may have done so before the
    /// first; then it has the idle time again.
    fn download_moves(&mut self, state: &mut State, now: Instant) -> bool {
        let Some(owed) = state.stream().and_then(Stream::unacknowledged) else {
            return false;
        };
        let Some(idle) = self.watch.as_mut().and_then(|watch| watch.idle.as_mut()) else {
            return false;
        };
        let acknowledged = state.taken().saturating_sub(owed);
        let moves = acknowledged > idle.acknowledged || (owed > 0 && !idle.looked);
        if moves {
            *idle = Idle { since: now, heard: idle.heard, acknowledged, looked: true };
        }
        moves
    }
}

fn lifetime_ends(membership: &Membership) -> Option<Instant> {
    let Membership { link, current, .. } = membership;
    later(link.accepted(), current.timeouts.lifetime_of(link.number))
}

fn fail_stalled(state: &mut State, timeouts: &Timeouts, wakes: &mut Wakes) {
    let limit = timeouts.write.unwrap_or_default();
    let message = format!("the peer took no data for {limit:?}");
    state.fail_with(CloseReason::WriteTimeout, Error::of(ErrorKind::Timeout, message), wakes);
}
