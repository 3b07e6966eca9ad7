//! The life of one connection, from top to bottom: [`live`].

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

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
        if life.membership.run.acceptor.is_some() {
            let outcome = catching(Box::pin(life.shake_hands()).as_mut()).await;
            life.unless_panicked(outcome);
        }
        let outcome = catching(pin!(life.connect(service, &caller))).await;
        let mut handler = life.unless_panicked(outcome).flatten();
        if let Some(handler) = &mut handler {
            let outcome = catching(pin!(life.exchange(handler, &caller))).await;
            life.unless_panicked(outcome);
            if life.has_failed() {
                // Boxed for the same reason.
                let outcome =
                    catching(Box::pin(life.report_failure(handler, &caller)).as_mut()).await;
                life.unless_panicked(outcome);
            }
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
fn catching<T>(
    mut part: Pin<&mut impl Future<Output = T>>,
) -> impl Future<Output = Result<T, Panic>> {
    poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| part.as_mut().poll(cx))) {
        Ok(poll) => poll.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
}

/// A connection on its way through [`live`].
pub(crate) struct Life {
    membership: Membership,
    pace: Pace,
    /// The callback that was called last, or what is done between, to be named if it panics.
    calling: Calling,
}

/// What a connection's task is at: a callback, or what is done between.
// One byte, because every idle connection keeps it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Calling {
    #[cfg(feature = "_tls")]
    Handshake,
    Reading,
    Parting,
    OnConnect,
    OnBytes,
    OnEnd,
    OnError,
    OnDrain,
    OnClose,
}

impl Calling {
    fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "_tls")]
            Self::Handshake => "the TLS handshake",
            Self::Reading => "reading",
            Self::Parting => "closing",
            Self::OnConnect => "on_connect",
            Self::OnBytes => "on_bytes",
            Self::OnEnd => "on_end",
            Self::OnError => "on_error",
            Self::OnDrain => "on_drain",
            Self::OnClose => "on_close",
        }
    }

    /// Whether it is not the service that is at work.
    #[cfg(feature = "_tls")]
    fn is_ours(self) -> bool {
        matches!(self, Self::Handshake | Self::Reading | Self::Parting)
    }
}

/// What a connection does next.
enum Next {
    Deliver(Bytes),
    Rare(Rare),
    Over,
}

/// What is done after a callback that was given bytes, or told of their end.
enum After {
    /// The next frame, which had come with this one, is delivered.
    Frame(Bytes),
    /// Nothing but to wait for the peer.
    Rest,
    /// It has to be looked at.
    Look,
    Rare(Rare),
    /// The callback has failed, or its reply cannot be sent.
    Failed(Error),
}

impl After {
    /// The next frame, if that is what comes.
    fn into_frame(self) -> std::result::Result<Bytes, Self> {
        match self {
            Self::Frame(frame) => Ok(frame),
            other => Err(other),
        }
    }
}

/// What is not done for every chunk.
enum Rare {
    /// The peer has ended its side.
    End,
    Drain,
    /// A frame was skipped.
    Dropped(Error),
    /// What the peer sends is no frame.
    Fault(Fault),
}

impl Life {
    pub(crate) fn new(membership: Membership) -> Self {
        Self { pace: Pace::default(), membership, calling: Calling::OnConnect }
    }

    /// Shakes hands with a TLS peer, for a limited time. A failure ends the connection.
    #[cfg(feature = "_tls")]
    async fn shake_hands(&mut self) {
        let Self { membership: Membership { run, link, .. }, pace, calling } = self;
        *calling = Calling::Handshake;
        let Some(acceptor) = &run.acceptor else { return };
        link.secure(acceptor.accept());
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
        self.calling = Calling::OnConnect;
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
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps room for each argument twice")]
    fn exchange<C: ConnectionService>(
        &mut self,
        handler: &mut C,
        caller: &Caller,
    ) -> impl Future<Output = ()> + Send {
        async move {
            let mut rests = false;
            loop {
                let Some(mut data) = self.next_chunk(handler, caller, rests).await else { return };
                self.calling = Calling::OnBytes;
                let seeing = loop {
                    let after = self.answer(pin!(handler.on_bytes(data, caller))).await;
                    match after.into_frame() {
                        Ok(frame) => data = frame,
                        Err(after) => {
                            rests = matches!(after, After::Rest);
                            break self.seeing_to(after, handler, caller);
                        }
                    }
                };
                if let Some(seeing) = seeing {
                    seeing.await;
                }
            }
        }
    }

    /// Waits for what is to be delivered next, and sees to what comes before; `None` is the end. `rests`
    /// tells that it is known already that there is nothing now.
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps room for each argument twice")]
    fn next_chunk<C: ConnectionService>(
        &mut self,
        handler: &mut C,
        caller: &Caller,
        mut rests: bool,
    ) -> impl Future<Output = Option<Bytes>> + Send {
        async move {
            loop {
                self.calling = Calling::Reading;
                match self.next(std::mem::take(&mut rests)).await {
                    Next::Deliver(data) => return Some(data),
                    Next::Rare(rare) => Box::pin(self.see_to(rare, handler, caller)).await,
                    Next::Over => return None,
                }
            }
        }
    }

    /// What is to be done after a callback, if that is more than to go on. Boxed, because it is rare: a
    /// long-lived connection does not keep room for it.
    fn seeing_to<C: ConnectionService>(
        &mut self,
        after: After,
        handler: &mut C,
        caller: &Caller,
    ) -> Option<Pin<Box<impl Future<Output = ()> + Send>>> {
        matches!(after, After::Rare(_) | After::Failed(_)).then(|| {
            Box::pin(async move {
                match after {
                    After::Rare(rare) => self.see_to(rare, handler, caller).await,
                    After::Failed(error) => self.raise(handler, caller, error).await,
                    After::Frame(_) | After::Rest | After::Look => {}
                }
            })
        })
    }

    /// Sees to what happens seldom, or once, in a connection's life.
    async fn see_to<C: ConnectionService>(&mut self, rare: Rare, handler: &mut C, caller: &Caller) {
        match rare {
            Rare::End => {
                self.calling = Calling::OnEnd;
                let after = self.answer(pin!(handler.on_end(caller))).await;
                if let After::Failed(error) = after {
                    self.raise(handler, caller, error).await;
                }
                if !self.membership.run.config.allow_half_open {
                    self.membership.link.change(State::end_with_peer);
                }
            }
            Rare::Drain => {
                self.calling = Calling::OnDrain;
                let deciding = pin!(handler.on_drain(caller));
                if self.callback(deciding).await == Some(Drain::CloseWhenIdle) {
                    self.pace.drain(&self.membership.link);
                }
            }
            Rare::Dropped(error) => {
                let Membership { run, link, .. } = &self.membership;
                let id = crate::ConnectionId::of(link.number);
                let remote_addr = link.remote;
                run.events.emit(&Event::FrameDropped { id, remote_addr, error: &error });
            }
            Rare::Fault(fault) => self.end_for_fault(handler, caller, fault).await,
        }
    }

    /// Whether the transport has failed; nothing can revive it.
    fn has_failed(&self) -> bool {
        let state = self.membership.link.lock();
        state.ending().is_some_and(|ending| ending.reason.is_transport_failure())
    }

    /// Tells the service, once, what has failed.
    async fn report_failure<C: ConnectionService>(&mut self, handler: &mut C, caller: &Caller) {
        let error = self.membership.link.lock().ending().and_then(|ending| ending.error.clone());
        if let Some(error) = error {
            self.calling = Calling::OnError;
            let hearing = pin!(handler.on_error(error, caller));
            let _ = self.callback(hearing).await;
        }
    }

    /// Leaves the peer as the ending says: sends what is queued and FIN, or resets.
    async fn part(&mut self) {
        self.calling = Calling::Parting;
        // Nothing more is delivered, and the peer may take long to read what it is sent.
        self.membership.link.change(|state, _| state.discard_frames());
        poll_fn(|cx| self.poll_sent(cx)).await;
        let link = &self.membership.link;
        let mut state = link.lock();
        let parting = state.ending().map_or(Parting::Orderly, Ending::parting);
        if parting == Parting::Orderly && state.may_have_unread() {
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
    #[expect(clippy::manual_async_fn, reason = "an `async fn` keeps room for each argument twice")]
    fn say_goodbye<C: ConnectionService>(
        &mut self,
        mut handler: C,
        close: &Close,
    ) -> impl Future<Output = ()> + Send {
        async move {
            self.membership.refresh();
            self.calling = Calling::OnClose;
            let mut goodbye = pin!(handler.on_close(close));
            self.pace.timer.disarm();
            let overran = poll_fn(|cx| match goodbye.as_mut().poll(cx) {
                Poll::Ready(()) => Poll::Ready(false),
                Poll::Pending => {
                    let limit = self.membership.current.timeouts.on_close;
                    let is_over = self.pace.timer.poll_elapsed(cx, limit);
                    if is_over { Poll::Ready(true) } else { Poll::Pending }
                }
            });
            if overran.await {
                let Membership { run, link, .. } = &self.membership;
                let id = crate::ConnectionId::of(link.number);
                run.events.emit(&Event::CloseOverran { id });
            }
        }
    }

    /// After our FIN: discards what the peer still sends, until its FIN, for a limited time.
    async fn linger(&mut self) {
        if self.membership.link.lock().stream().is_none() {
            return;
        }
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
    fn callback<T>(
        &mut self,
        mut callback: Pin<&mut impl Future<Output = T>>,
    ) -> impl Future<Output = Option<T>> {
        let mut has_waited = false;
        poll_fn(move |cx| self.poll_callback(callback.as_mut(), &mut has_waited, cx))
    }

    /// Runs a callback that returns a reply, sends that, and tells what is to be done then.
    fn answer(
        &mut self,
        mut callback: Pin<&mut impl Future<Output = Result<Option<Bytes>>>>,
    ) -> impl Future<Output = After> {
        let mut has_waited = false;
        poll_fn(move |cx| {
            Poll::Ready(match ready!(self.poll_callback(callback.as_mut(), &mut has_waited, cx)) {
                Some(Ok(reply)) => self.settle(reply, cx).unwrap_or_else(After::Failed),
                Some(Err(error)) => After::Failed(error),
                None => After::Look,
            })
        })
    }

    fn poll_callback<T>(
        &mut self,
        callback: Pin<&mut impl Future<Output = T>>,
        has_waited: &mut bool,
        cx: &mut Context<'_>,
    ) -> Poll<Option<T>> {
        if *has_waited && self.membership.link.lock().is_forced() {
            return Poll::Ready(None);
        }
        if let Poll::Ready(value) = callback.poll(cx) {
            return Poll::Ready(Some(value));
        }
        *has_waited = true;
        if self.attend(cx) { Poll::Ready(None) } else { Poll::Pending }
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
        let (id, callback) = (crate::ConnectionId::of(link.number), self.calling.name());
        run.events.emit(&Event::Panicked { id, callback, panic: &message });
        let error = Error::new(format!("{callback} panicked: {message}"));
        link.end(CloseReason::Panicked, Some(error));
        #[cfg(feature = "_tls")]
        if self.calling.is_ours() {
            // Not the service: what is left of the session is nothing to send a goodbye with.
            link.change(|state, _| state.abandon_session());
            link.close_socket(Parting::Reset);
        }
        // What was thrown may itself panic when it is dropped.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(panic)));
        None
    }

    /// Sends what `on_bytes` or `on_end` returned. In the same breath it takes the next frame of what was
    /// read, or else, since nearly always there is nothing more, it begins to wait for the peer.
    fn settle(&mut self, reply: Option<Bytes>, cx: &mut Context<'_>) -> Result<After> {
        let Self { membership, pace, .. } = self;
        // The callback may have waited, and limits of now decide whether there is a deadline to wait for.
        membership.refresh();
        membership.link.change(|state, wakes| {
            if let Some(reply) = reply {
                state.reply(reply, pace.has_more_at_hand(), wakes)?;
            }
            Ok(match pace.frame_at_hand(state) {
                Some(Next::Deliver(frame)) => After::Frame(frame),
                Some(Next::Rare(rare)) => After::Rare(rare),
                None if pace.rests(state, membership, cx, wakes) => After::Rest,
                _ => After::Look,
            })
        })
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
        self.calling = Calling::OnError;
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
        self.calling = Calling::OnError;
        let deciding = pin!(handler.on_error(error, caller));
        let outcome = self.callback(deciding).await;
        if let Some(Err(error)) = outcome {
            self.membership.link.end(CloseReason::ServiceError, Some(error));
        }
    }

    /// Waits for what comes next. Where it `rests` already it looks again when it is woken.
    fn next(&mut self, mut rests: bool) -> impl Future<Output = Next> {
        poll_fn(move |cx| {
            if std::mem::take(&mut rests) {
                return Poll::Pending;
            }
            let Self { membership, pace, .. } = self;
            membership.refresh();
            membership.link.change(|state, wakes| pace.poll_next(state, membership, cx, wakes))
        })
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
