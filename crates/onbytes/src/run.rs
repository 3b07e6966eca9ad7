//! One period of listening, from start to stop: its settings, its places and its connections.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::close::{CloseReason, Parting};
use crate::event::{Event, Events};
use crate::framing::Compiled;
use crate::ledger::{Ledger, Relief};
use crate::link::Link;
use crate::sources::SourcePlace;
#[cfg(feature = "_tls")]
use crate::tls::{Acceptor, Session};
use crate::{Close, ConnectionId, Limits, ListenerConfiguration, Timeouts};

mod counters;
#[cfg(feature = "_tls")]
mod handshakes;
mod overload;
mod places;
mod registry;
mod settings;

pub(crate) use counters::Counters;
pub use counters::ListenerStats;
#[cfg(feature = "_tls")]
use handshakes::Handshakes;
use overload::Overload;
pub use overload::Pressure;
pub(crate) use places::Place;
use places::{Places, default_max_connections};
use registry::Registry;
pub(crate) use settings::Current;
use settings::Settings;

/// What all connections of one period of listening share.
pub(crate) struct Run {
    /// What does not change while the listener runs: all but the limits and the time limits.
    pub(crate) config: ListenerConfiguration,
    pub(crate) settings: Settings,
    pub(crate) events: Arc<Events>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) places: Arc<Places>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) overload: Overload,
    /// Makes frames, where there is a framing.
    pub(crate) framing: Option<Arc<Compiled>>,
    /// Makes TLS sessions, where connections are secured.
    #[cfg(feature = "_tls")]
    pub(crate) acceptor: Option<Acceptor>,
    #[cfg(feature = "_tls")]
    pub(crate) handshakes: Handshakes,
    pub(crate) registry: Registry,
    stopping: AtomicBool,
    alive: AtomicUsize,
    clean: AtomicUsize,
    forced: AtomicUsize,
    emptied: Notify,
}

impl Run {
    pub(crate) fn new(
        config: ListenerConfiguration,
        events: Arc<Events>,
        counters: Arc<Counters>,
    ) -> Self {
        let limits = &config.limits;
        Self {
            settings: Settings::new(limits.clone(), config.timeouts.clone()),
            places: Arc::new(Places::new(most_connections(limits))),
            ledger: Arc::new(Ledger::new(limits.max_queued_bytes)),
            overload: Overload::new(),
            framing: None,
            #[cfg(feature = "_tls")]
            handshakes: Handshakes::new(most_handshakes(limits)),
            config,
            events,
            counters,
            #[cfg(feature = "_tls")]
            acceptor: None,
            registry: Registry::default(),
            stopping: AtomicBool::new(false),
            alive: AtomicUsize::new(0),
            clean: AtomicUsize::new(0),
            forced: AtomicUsize::new(0),
            emptied: Notify::new(),
        }
    }

    pub(crate) fn with_framing(self, framing: Option<Arc<Compiled>>) -> Self {
        Self { framing, ..self }
    }

    #[cfg(feature = "_tls")]
    pub(crate) fn with_acceptor(self, acceptor: Option<Acceptor>) -> Self {
        Self { acceptor, ..self }
    }

    /// The memory that a connection takes beside its own until its TLS handshake is complete.
    pub(crate) fn weight_of_handshake(&self) -> u64 {
        #[cfg(feature = "_tls")]
        if self.acceptor.is_some() {
            return Session::WEIGHT_IN_HANDSHAKE;
        }
        0
    }

    /// Whether a TLS handshake may give way to a caller who finds no place.
    pub(crate) fn may_give_way(&self) -> bool {
        #[cfg(feature = "_tls")]
        return self.handshakes.has_due();
        #[cfg(not(feature = "_tls"))]
        return false;
    }

    /// Shares the run; from now on it keeps its connections within their bounds.
    pub(crate) fn shared(self) -> Arc<Self> {
        let run = Arc::new(self);
        let relief: Arc<dyn Relief> = Arc::clone(&run) as _;
        run.ledger.appoint(Arc::downgrade(&relief));
        run.reconsider_pressure();
        run
    }

    /// Changes limits and time limits; tells whether they are others than before. Then
    /// [`apply_settings`](Self::apply_settings) has to follow.
    pub(crate) fn change_settings(&self, limits: Limits, timeouts: Timeouts) -> bool {
        if self.settings.are(&limits, &timeouts) {
            return false;
        }
        self.settings.change(limits, timeouts, |current| {
            self.places.set_limit(most_connections(&current.limits));
            #[cfg(feature = "_tls")]
            self.handshakes.set_limit(most_handshakes(&current.limits));
        });
        true
    }

    /// Makes changed settings felt by all that is live.
    pub(crate) fn apply_settings(&self) {
        self.reconsider_pressure();
        self.registry.each(|link| {
            self.enrol(link);
            link.reconsider();
        });
    }

    /// Counts a connection for its source, as the settings of now say.
    fn enrol(&self, link: &Link) {
        link.set_source(|before| {
            // Asked for under the connection's lock, so that the last change is the one that stays.
            let current = self.settings.get();
            current.admission.enrol(link.remote.ip(), before)
        });
    }

    pub(crate) fn alive(&self) -> usize {
        self.alive.load(Ordering::SeqCst)
    }

    /// Connections that ended on their own terms, and those that a stop cut off.
    pub(crate) fn ended(&self) -> (usize, usize) {
        (self.clean.load(Ordering::SeqCst), self.forced.load(Ordering::SeqCst))
    }

    /// Waits until no connection is left.
    pub(crate) async fn emptied(&self) {
        loop {
            let notified = self.emptied.notified();
            if self.alive() == 0 {
                return;
            }
            notified.await;
        }
    }

    /// How long connections may take to end that were cut off, before they count as abandoned: the budget
    /// of `on_close`, and a little more.
    pub(crate) fn time_to_cut_off(&self) -> Duration {
        const GRACE: Duration = Duration::from_millis(500);
        self.settings.get().timeouts.on_close.saturating_add(GRACE)
    }

    /// Lets every service finish.
    pub(crate) fn drain(&self) {
        self.registry.each(|link| link.request_drain());
    }

    /// Cuts every connection off, also one that is being accepted at this moment.
    pub(crate) fn force(&self, reason: CloseReason) {
        self.stopping.store(true, Ordering::SeqCst);
        self.registry.each(|link| link.end(reason, None));
    }
}

/// A connection's membership in its run. Whatever ends the connection's task, dropping it closes
/// the descriptor and gives the place back, in this order.
pub(crate) struct Membership {
    pub(crate) link: Arc<Link>,
    pub(crate) run: Arc<Run>,
    /// The settings as the connection saw them last.
    pub(crate) current: Arc<Current>,
    /// Whether a stop cut the connection off, as it was when the end was announced.
    was_forced: Option<bool>,
}

/// What a caller was given on its way in.
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) source: Option<SourcePlace>,
    /// The settings under which it was let in.
    pub(crate) current: Arc<Current>,
}

impl Membership {
    pub(crate) fn new(run: Arc<Run>, mut link: Link, entry: Entry) -> Self {
        let Entry { place, source, mut current } = entry;
        run.ledger.note_held(0, link.enter(source));
        let link = Arc::new(link);
        run.alive.fetch_add(1, Ordering::SeqCst);
        run.registry.insert(&link);
        #[cfg(feature = "_tls")]
        if run.acceptor.is_some() {
            run.handshakes.begin(&link);
        }
        // Looked at after the insertion, so that no change of the settings misses a connection.
        if run.settings.refresh(&mut current) {
            run.enrol(&link);
        }
        // For the same reason: no stop misses one.
        if run.stopping.load(Ordering::SeqCst) {
            link.end(CloseReason::Stopped, None);
        }
        run.counters.accepted.fetch_add(1, Ordering::Relaxed);
        run.events.emit(&Event::Accepted {
            id: ConnectionId::of(link.number),
            remote_addr: link.remote,
            local_addr: link.local,
        });
        // The run is known here anyway, so a word less is kept for each connection.
        place.keep();
        Self { link, run, current, was_forced: None }
    }

    /// Looks whether the settings have changed.
    pub(crate) fn refresh(&mut self) {
        self.run.settings.refresh(&mut self.current);
    }

    /// The TLS handshake is complete: the connection takes less memory from now on.
    #[cfg(feature = "_tls")]
    pub(crate) fn note_secured(&self) {
        let before = self.link.weight();
        let after = before - Session::WEIGHT_IN_HANDSHAKE + Session::WEIGHT_AT_REST;
        self.link.set_weight(after);
        self.run.ledger.note_held(before, after);
    }

    /// Tells everybody who counts that the connection has ended, and how.
    pub(crate) fn announce(&mut self, close: &Close) {
        self.was_forced = Some(self.link.lock().is_forced());
        self.run.counters.closed[close.reason as usize].fetch_add(1, Ordering::Relaxed);
        self.run.events.emit(&Event::Closed {
            id: ConnectionId::of(self.link.number),
            remote_addr: self.link.remote,
            close,
        });
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        if self.was_forced.is_none() {
            // The task did not come to its end: its runtime was shut down.
            self.link.end(CloseReason::Stopped, None);
            let close = self.link.close_of(CloseReason::Stopped);
            self.announce(&close);
        }
        self.link.close_socket(Parting::Orderly);
        let weight = self.link.leave();
        // A stop that cuts short the wait for the peer's FIN cuts off nothing.
        let forced = self.was_forced == Some(true);
        let run = &self.run;
        run.registry.remove(self.link.number);
        run.ledger.note_held(weight, 0);
        #[cfg(feature = "_tls")]
        if run.acceptor.is_some() {
            run.handshakes.complete(&self.link);
        }
        (if forced { &run.forced } else { &run.clean }).fetch_add(1, Ordering::SeqCst);
        if run.alive.fetch_sub(1, Ordering::SeqCst) == 1 {
            run.emptied.notify_waiters();
        }
        run.places.give_back();
    }
}

/// What is to be told of limits that are possible, but not as may be meant.
pub(crate) fn warning_of(limits: &Limits) -> Option<String> {
    let possible = default_max_connections();
    let wanted = limits.max_connections.filter(|wanted| *wanted > possible)?;
    Some(format!(
        "max_connections is {wanted}, but the limit of open files (RLIMIT_NOFILE, `ulimit -n`) leaves \
         room for {possible}; raise that, or callers beyond it meet an exhausted process"
    ))
}

fn most_connections(limits: &Limits) -> usize {
    limits.max_connections.unwrap_or_else(default_max_connections)
}

#[cfg(feature = "_tls")]
fn most_handshakes(limits: &Limits) -> usize {
    limits.max_handshakes.unwrap_or_else(handshakes::default_max_handshakes)
}
