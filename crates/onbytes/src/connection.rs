//! The life of one connection, from top to bottom: [`live`].

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::time::Instant;

#[cfg(feature = "_tls")]
use crate::ErrorKind;
use crate::close::{CloseReason, Parting};
use crate::event::Event;
use crate::framing::Fault;
#[cfg(feature = "_tls")]
use crate::link::ConnectionState;
use crate::link::{Ending, LINGER, LINGER_BYTES, State};
use crate::run::Membership;
use crate::service::{ConnectionService, Drain, Service};
use crate::timer::later;
use crate::{Caller, Close, Error, Result};

mod pace;

use pace::Pace;

/// Lives a connection.
///
/// Everything that ends it, wherever it happens, sets the link's ending, and the first cause stays;
/// the waits below look at it. What the ending leads to is decided by its reason and done here.
#[expect(clippy::manual_async_fn, reason = "an `async fn` keeps room for each argument twice")]
pub(crate) fn live<S: Service>(service: Arc<S>, mut life: Life) -> impl Future<Output = ()> + Send {
    async move {
        let caller = Caller::new(Arc::clone(&life.membership.link));

        // Boxed, as all that is rare: a long-lived connection does not keep room for it.
        #[cfg(feature = "_tls")]
        {
            let outcome = catching(Box::pin(life.shake_hands()).as_mut()).await;
            life.unless_panicked(outcome);
        }
        let outcome = catching(pin!(life.connect(service, &caller))).await;
        let mut handler = life.unless_panicked(outcome).flatten();
        if let Some(handler) = &mut handler {
            let outcome = catching(pin!(life.exchange(handler, &caller))).await;
            life.unless_panicked(outcome);
            // Boxed for the same reason.
            let outcome = catching(Box::pin(life.report_failure(handler, &caller)).as_mut()).await;
            life.unless_panicked(outcome);
        }
        let outcome = catching(pin!(life.part())).await;
        life.unless_panicked(outcome);
        {
            // In a block, because what lives on here takes room from the beginning.
            let close = life.membership.link.close_of(CloseReason::LocalClose);
            if let Some(handler) = handler {
                let outcome = catching(pin!(life.say_goodbye(handler, &close))).await;
                life.unless_panicked(outcome);
            }
            life.membership.announce(&close);
        }
        life.linger().await;
    }
}

type Panic = Box<dyn Any + Send>;

/// Runs a part of a connection's life in which callbacks are made, run and dropped; a panic in any
/// of these is caught.
async fn catching<T>(mut part: Pin<&mut impl Future<Output = T>>) -> Result<T, Panic> {
    poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| part.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// A connection on its way through [`live`].
pub(crate) struct Life {
    membership: Membership,
    pace: Pace,
    /// The callback that was called last, or what is done between, to be named if it panics.
    calling: &'static str,
}

/// What is done between callbacks, to be named if it panics.
const READING: &str = "reading";
const PARTING: &str = "closing";
#[cfg(feature = "_tls")]
const SHAKING_HANDS: &str = "the TLS handshake";

/// What a connection does next.
enum Next {
    Deliver(Bytes, bool),
    DeliverEnd,
    /// A frame was skipped.
    Dropped(Error),
    /// What the peer sends is no frame.
    Fault(Fault),
    Drain,
    Over,
}

impl Life {
    pub(crate) fn new(membership: Membership) -> Self {
        Self { pace: Pace::default(), membership, calling: "on_connect" }
    }

    /// Shakes hands with a TLS peer, for a limited time. A failure ends the connection.
    #[cfg(feature = "_tls")]
    async fn shake_hands(&mut self) {
        let Self { membership: Membership { run, link, .. }, pace, calling } = self;
        *calling = SHAKING_HANDS;
        let Some(acceptor) = &run.acceptor else { return };
        match acceptor.accept() {
            Ok(session) => link.secure(session),
            Err(error) => return link.end(CloseReason::HandshakeFailed, Some(error)),
        }
        let within = acceptor.handshake_timeout();
        let until = later(link.accepted(), within);
        let ended = poll_fn(|cx| {
            link.change(|state, _| {
                state.attach_driver(cx);
                if state.ending().is_some() {
                    return Poll::Ready(None);
                }
                if state.take_drain_request() {
                    // Nobody has begun to serve it yet.
                    return Poll::Ready(Some((CloseReason::Drained, None)));
                }
                match link.poll_handshake(state, cx) {
                    Poll::Ready(Ok(())) => Poll::Ready(None),
                    Poll::Ready(Err(error)) => {
                        Poll::Ready(Some((CloseReason::HandshakeFailed, Some(error))))
                    }
                    Poll::Pending if pace.timer.poll_passed(cx, until) => {
                        let limit = within.unwrap_or_default();
                        let message = format!("the TLS handshake was not complete after {limit:?}");
                        let error = Error::of(ErrorKind::Timeout, message);
                        Poll::Ready(Some((CloseReason::HandshakeTimeout, Some(error))))
                    }
                    Poll::Pending => Poll::Pending,
                }
            })
        });
        match ended.await {
            Some((reason, error)) => link.end(reason, error),
            // One that has given way meanwhile is ended by whoever it gave way to.
            None if !run.handshakes.complete(link) => {
                link.end(CloseReason::HandshakeTimeout, None);
            }
            None => self.membership.note_secured(),
        }
    }

    /// Asks the service who serves this connection; `None` where nobody does, or where it has ended
    /// before.
    async fn connect<S: Service>(
        &mut self,
        service: Arc<S>,
        caller: &Caller,
    ) -> Option<S::Connection> {
        #[cfg(feature = "_tls")]
        if self.membership.run.acceptor.is_some() {
            let mut state = self.membership.link.lock();
            if state.ending().is_some() {
                return None;
            }
            state.set_doing(ConnectionState::Connecting);
        }
        self.calling = "on_connect";
        // Boxed, so that a long-lived connection does not keep room for it.
        let mut asking = Box::pin(service.on_connect(caller));
        match self.callback(asking.as_mut()).await? {
            Ok(handler) => Some(handler),
            Err(error) => {
                self.membership.link.end(CloseReason::Rejected, Some(error));
                None
            }
        }
    }

    /// Delivers what the peer sends until something ends the connection.
    async fn exchange<C: ConnectionService>(&mut self, handler: &mut C, caller: &Caller) {
        loop {
            self.calling = READING;
            let next = self.next().await;
            let is_end = matches!(next, Next::DeliverEnd);
            let failed = match next {
                Next::Deliver(data, more) => {
                    self.calling = "on_bytes";
                    let answering = pin!(handler.on_bytes(data, caller));
                    let outcome = self.callback(answering).await;
                    self.settle(outcome, more)
                }
                Next::DeliverEnd => {
                    self.calling = "on_end";
                    let answering = pin!(handler.on_end(caller));
                    let outcome = self.callback(answering).await;
                    self.settle(outcome, false)
                }
                Next::Drain => {
                    self.calling = "on_drain";
                    let deciding = pin!(handler.on_drain(caller));
                    if self.callback(deciding).await == Some(Drain::CloseWhenIdle) {
                        self.pace.drain(&self.membership.link);
                    }
                    None
                }
                Next::Dropped(error) => {
                    let Membership { run, link, .. } = &self.membership;
                    let id = crate::ConnectionId::of(link.number);
                    let remote_addr = link.remote;
                    run.events.emit(&Event::FrameDropped { id, remote_addr, error: &error });
                    None
                }
                Next::Fault(fault) => {
                    // Boxed, because it is rare: a long-lived connection does not keep room for it.
                    Box::pin(self.end_for_fault(handler, caller, fault)).await;
                    None
                }
                Next::Over => return,
            };
            if let Some(error) = failed {
                Box::pin(self.raise(handler, caller, error)).await;
            }
            if is_end && !self.membership.run.config.allow_half_open {
                self.membership.link.change(State::end_with_peer);
            }
        }
    }

    /// Tells the service, once, that the transport has failed; nothing can revive it.
    async fn report_failure<C: ConnectionService>(&mut self, handler: &mut C, caller: &Caller) {
        let ending = self.membership.link.lock().ending().cloned();
        if let Some(ending) = ending
            && ending.reason.is_transport_failure()
            && let Some(error) = ending.error
        {
            self.calling = "on_error";
            let hearing = pin!(handler.on_error(error, caller));
            let _ = self.callback(hearing).await;
        }
    }

    /// Leaves the peer as the ending says: sends what is queued and FIN, or resets.
    async fn part(&mut self) {
        self.calling = PARTING;
        // Nothing more is delivered, and the peer may take long to read what it is sent.
        self.membership.link.change(|state, _| state.discard_frames());
        poll_fn(|cx| self.poll_sent(cx)).await;
        let link = &self.membership.link;
        let mut state = link.lock();
        let parting = state.ending().map_or(Parting::Orderly, Ending::parting);
        if parting == Parting::Orderly && !state.fin_seen() {
            // The descriptor stays: closing it over unread input would destroy what was just sent.
            if let Some(stream) = state.stream()
                && stream.finish().is_ok()
            {
                return;
            }
        }
        drop(state);
        link.close_socket(parting);
    }

    /// Says goodbye to the service, which has a limited time for it.
    async fn say_goodbye<C: ConnectionService>(&mut self, mut handler: C, close: &Close) {
        self.membership.refresh();
        let Membership { run, link, current, .. } = &self.membership;
        let budget = later(Instant::now(), Some(current.timeouts.on_close));
        self.calling = "on_close";
        let mut goodbye = pin!(handler.on_close(close));
        let timer = &mut self.pace.timer;
        let overran = poll_fn(|cx| match goodbye.as_mut().poll(cx) {
            Poll::Ready(()) => Poll::Ready(false),
            Poll::Pending if timer.poll_passed(cx, budget) => Poll::Ready(true),
            Poll::Pending => Poll::Pending,
        });
        if overran.await {
            let id = crate::ConnectionId::of(link.number);
            run.events.emit(&Event::CloseOverran { id });
        }
    }

    /// After our FIN: discards what the peer still sends, until its FIN, for a limited time.
    async fn linger(&mut self) {
        let until = later(Instant::now(), Some(LINGER));
        let mut left = LINGER_BYTES;
        let Self { membership, pace, .. } = self;
        poll_fn(|cx| {
            let mut state = membership.link.lock();
            state.attach_driver(cx);
            let over = state.ending().is_some_and(|ending| ending.cut.is_some())
                || state.poll_discard(cx, &mut left).is_ready()
                || pace.timer.poll_passed(cx, until);
            if over { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let link = &membership.link;
        let parting = link.lock().ending().map_or(Parting::Orderly, Ending::parting);
        link.close_socket(parting);
    }

    // ---- Parts of the above ----

    /// Runs one callback to its end, sending what is queued beside it. `None` if a stop could not
    /// wait for it.
    async fn callback<T>(&mut self, mut callback: Pin<&mut impl Future<Output = T>>) -> Option<T> {
        let mut has_waited = false;
        poll_fn(|cx| {
            if has_waited && self.membership.link.lock().is_forced() {
                return Poll::Ready(None);
            }
            if let Poll::Ready(value) = callback.as_mut().poll(cx) {
                return Poll::Ready(Some(value));
            }
            has_waited = true;
            if self.attend(cx) { Poll::Ready(None) } else { Poll::Pending }
        })
        .await
    }

    /// While a callback waits: sends what is queued, watches the deadlines that do not depend on the
    /// peer, and notices when the peer is gone. Tells whether a stop cut the connection off.
    fn attend(&mut self, cx: &mut Context<'_>) -> bool {
        let Self { membership, pace, .. } = self;
        membership.refresh();
        let (is_cut, is_forced) = membership.link.change(|state, wakes| {
            state.attach_driver(cx);
            state.compact_input();
            if state.ending().is_none_or(|ending| ending.cut.is_none()) {
                if state.poll_flush(cx, wakes).is_ready() {
                    state.poll_broken(cx, wakes);
                }
                pace.check_own_deadlines(state, membership, cx, wakes);
            }
            (state.ending().is_some_and(|ending| ending.cut.is_some()), state.is_forced())
        });
        if is_cut {
            // A reset does not wait for the callback.
            membership.link.close_socket(Parting::Reset);
        }
        is_forced
    }

    /// What a part of the connection's life came to, unless a callback panicked in it.
    fn unless_panicked<T>(&mut self, outcome: Result<T, Panic>) -> Option<T> {
        let panic = match outcome {
            Ok(value) => return Some(value),
            Err(panic) => panic,
        };
        let Membership { run, link, .. } = &self.membership;
        let message = panic_message(&*panic);
        let (id, callback) = (crate::ConnectionId::of(link.number), self.calling);
        run.events.emit(&Event::Panicked { id, callback, panic: &message });
        let error = Error::new(format!("{callback} panicked: {message}"));
        link.end(CloseReason::Panicked, Some(error));
        #[cfg(feature = "_tls")]
        if matches!(callback, READING | SHAKING_HANDS | PARTING) {
            // Not the service: what is left of the session is nothing to send a goodbye with.
            link.change(|state, _| state.abandon_session());
            link.close_socket(Parting::Reset);
        }
        // What was thrown may itself panic when it is dropped.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
        None
    }

    /// Sends what `on_bytes` or `on_end` returned; an error is the caller's to raise.
    fn settle(&mut self, outcome: Option<Result<Option<Bytes>>>, more: bool) -> Option<Error> {
        match outcome? {
            Ok(Some(reply)) => {
                let link = &self.membership.link;
                link.change(|state, wakes| state.reply(reply, more, wakes)).err()
            }
            Ok(None) => None,
            Err(error) => Some(error),
        }
    }

    /// Ends the connection because what the peer sends is no frame. The service hears of it first, and may
    /// still say so to the peer.
    async fn end_for_fault<C: ConnectionService>(
        &mut self,
        handler: &mut C,
        caller: &Caller,
        fault: Fault,
    ) {
        let (reason, error) = (fault.reason, fault.into_error());
        self.calling = "on_error";
        let hearing = pin!(handler.on_error(error.clone(), caller));
        let _ = self.callback(hearing).await;
        self.membership.link.end(reason, Some(error));
    }

    /// Gives a callback's error to `on_error`, which decides whether the connection goes on.
    async fn raise<C: ConnectionService>(
        &mut self,
        handler: &mut C,
        caller: &Caller,
        error: Error,
    ) {
        if self.membership.link.lock().explains(&error) {
            return;
        }
        self.calling = "on_error";
        let deciding = pin!(handler.on_error(error, caller));
        let outcome = self.callback(deciding).await;
        if let Some(Err(error)) = outcome {
            self.membership.link.end(CloseReason::ServiceError, Some(error));
        }
    }

    /// Waits for what comes next.
    async fn next(&mut self) -> Next {
        let Self { membership, pace, .. } = self;
        poll_fn(|cx| {
            membership.refresh();
            membership.link.change(|state, wakes| pace.poll_next(state, membership, cx, wakes))
        })
        .await
    }

    /// Waits until everything queued is sent, and the end said, or cannot be any more.
    fn poll_sent(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Self { membership, pace, .. } = self;
        membership.refresh();
        membership.link.change(|state, wakes| {
            state.attach_driver(cx);
            let is_cut = |state: &State| state.ending().is_some_and(|end| end.cut.is_some());
            if is_cut(state) || state.poll_farewell(cx, wakes).is_ready() {
                return Poll::Ready(());
            }
            pace.check_stall(state, membership, cx, wakes);
            if is_cut(state) { Poll::Ready(()) } else { Poll::Pending }
        })
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    if let Some(message) = panic.downcast_ref::<&str>() {
        (*message).to_owned()
    } else if let Some(message) = panic.downcast_ref::<String>() {
        message.clone()
    } else {
        "(no message)".to_owned()
    }
}

#[cfg(test)]
mod tests;
