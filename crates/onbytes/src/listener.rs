//! The listener: the handle that starts, swaps services, stops, and tells what goes on.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::accept::{Attached, Gates, accept_loop};
use crate::bind;
use crate::close::CloseReason;
use crate::crew::Crew;
use crate::event::{Event, Events};
use crate::framing::Compiled;
use crate::run::{Counters, ListenerStats, Run, warning_of};
use crate::service::Service;
use crate::stop::{Running, StopReport};
use crate::{
    ConnectionId, ConnectionInfo, Endpoint, Error, ErrorKind, Limits, ListenerConfiguration,
    Result, Timeouts,
};

/// Accepts TCP connections and gives each to the attached [`Service`].
///
/// A `Listener` is a handle: clones are handles of the same listener, and dropping the last one
/// stops it at once. Connections run on the Tokio runtime that [`start`](Self::start) was called
/// on, which needs its `io` and `time` drivers (`enable_all`), or on threads of the listener's own
/// ([`Workers`](crate::Workers)).
///
/// ```
/// use onbytes::{Bytes, Client, ClientConfiguration, Listener, ListenerConfiguration, service_fn};
/// use std::time::Duration;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> onbytes::Result<()> {
/// let echo = service_fn(|_caller| async { Ok(|data: Bytes| async { Ok(Some(data)) }) });
///
/// let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new())?;
/// listener.attach(echo);
/// listener.start().await?;
/// let port = listener.local_addr().expect("it listens").port();
///
/// let mut client = Client::connect("127.0.0.1", port, ClientConfiguration::new()).await?;
/// client.write_bytes("hello").await?;
/// assert_eq!(client.read_bytes().await?.as_deref(), Some(&b"hello"[..]));
/// client.close().await?;
///
/// let report = listener.graceful_stop(Duration::from_secs(5)).await;
/// assert_eq!(report.forced, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Listener {
    owner: Arc<Owner>,
}

/// What all handles share; when it goes, the listener stops.
struct Owner {
    core: Arc<Core>,
}

struct Core {
    endpoint: Endpoint,
    config: Mutex<ListenerConfiguration>,
    events: Arc<Events>,
    counters: Arc<Counters>,
    attached: watch::Sender<Attached>,
    suspended: watch::Sender<bool>,
    current: AtomicU64,
    phase: Mutex<Phase>,
}

enum Phase {
    Stopped,
    /// Files are read and the port is opened; `false` where a stop came in between.
    Starting(bool),
    Running(Arc<Running>, SocketAddr),
}

/// Names an attached service, for [`Listener::detach`].
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct ServiceToken(u64);

impl Listener {
    /// Makes a listener for `endpoint`: a port, a host and a port, or a socket address.
    ///
    /// Nothing is opened yet. A port of 0 lets the system pick one; [`local_addr`](Self::local_addr)
    /// tells which.
    ///
    /// # Errors
    ///
    /// A value of the configuration that cannot be, by name.
    pub fn new(endpoint: impl Into<Endpoint>, config: ListenerConfiguration) -> Result<Self> {
        config.check()?;
        let core = Core {
            endpoint: bind::effective_endpoint(endpoint.into(), &config)?,
            config: Mutex::new(config),
            events: Arc::default(),
            counters: Arc::default(),
            attached: watch::Sender::new(None),
            suspended: watch::Sender::new(false),
            current: AtomicU64::new(0),
            phase: Mutex::new(Phase::Stopped),
        };
        Ok(Self { owner: Arc::new(Owner { core: Arc::new(core) }) })
    }

    /// Attaches `service` for connections accepted from now on, in the place of any other.
    ///
    /// It may be called while the listener runs: live connections keep the service they have.
    pub fn attach<S: Service>(&self, service: S) -> ServiceToken {
        let core = self.core();
        let mut token = 0;
        let mut replaced: Attached = Some(Arc::new(service));
        core.attached.send_modify(|attached| {
            token = core.current.fetch_add(1, Ordering::SeqCst) + 1;
            std::mem::swap(attached, &mut replaced);
        });
        // The old service may do anything when it is dropped, so that happens here and not under
        // the channel's lock.
        drop(replaced);
        ServiceToken(token)
    }

    /// Detaches a service: nothing is accepted until the next [`attach`](Self::attach), and callers
    /// wait. Live connections go on.
    ///
    /// # Errors
    ///
    /// `State` where another service has been attached since, which stays, or none is attached.
    #[allow(clippy::needless_pass_by_value)] // A token is good for one detach.
    pub fn detach(&self, token: ServiceToken) -> Result<()> {
        let core = self.core();
        let mut detached: Attached = None;
        core.attached.send_if_modified(|attached| {
            if core.current.load(Ordering::SeqCst) == token.0 {
                detached = attached.take();
            }
            detached.is_some()
        });
        if detached.is_some() {
            return Ok(());
        }
        Err(Error::of(ErrorKind::State, "this service is not attached any more"))
    }

    /// Calls `hook` for every [`Event`] of the listener and its connections, in the place of any
    /// hook set before.
    ///
    /// It runs on the task that the event happens on, so it should be quick and must not block.
    ///
    /// ```
    /// # use onbytes::{Event, Listener, ListenerConfiguration};
    /// # let listener = Listener::new(0, ListenerConfiguration::new())?;
    /// listener.on_event(|event| match event {
    ///     Event::Closed { close, .. } => println!("closed: {}", close.reason),
    ///     other => println!("{}", other.name()),
    /// });
    /// # Ok::<(), onbytes::Error>(())
    /// ```
    pub fn on_event(&self, hook: impl Fn(&Event<'_>) + Send + Sync + 'static) {
        self.core().events.set_hook(Arc::new(hook));
    }

    /// Opens the port and accepts connections from now on.
    ///
    /// # Errors
    ///
    /// `State` where no service is attached, the listener is started already, or there is no Tokio
    /// runtime, or a thread of its own cannot be started; `Configuration` where a file of `secure_socket`
    /// cannot be used, before the port is opened; `Bind` where the address cannot be had.
    ///
    /// # Panics
    ///
    /// If the runtime has no `io` or no `time` driver.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the listener is not started.
    pub async fn start(&self) -> Result<()> {
        let core = self.core();
        let starting = core.begin_start()?;
        let config = core.config().clone();
        // Files are read, and every mistake in them is found, before the port is opened.
        #[cfg(feature = "_tls")]
        let acceptor = core.load_acceptor(&config).await?;
        let framing = config.framing.as_ref().map(Compiled::new).transpose()?;
        let (fds, local) = bind::listen(&core.endpoint, &config).await?;
        core.warn_of_limits(warning_of(&config.limits).as_deref());
        let workers = config.workers;
        let run = Run::new(config, Arc::clone(&core.events), Arc::clone(&core.counters))
            .with_framing(framing);
        #[cfg(feature = "_tls")]
        let run = run.with_acceptor(acceptor);
        let run = run.shared();
        let crew = Crew::start(workers, &run).await?;
        let running = Arc::new(Running::new(run, crew));
        let sockets = running.register(fds)?;
        // Before anybody is accepted, so that whoever hears of a connection finds it with its listener.
        if !starting.complete(&running, local) {
            running.stop_now(|| {});
            running.report().await;
            return Err(Error::of(ErrorKind::State, "the listener was stopped while it started"));
        }
        core.events.emit(&Event::Listening { local_addr: crate::endpoint::canonical(local) });
        for (number, socket) in sockets.into_iter().enumerate() {
            let run = Arc::clone(&running.run);
            let gates = Gates::new(core.attached.subscribe(), core.suspended.subscribe(), &run);
            running.accept(number, accept_loop(socket, local, run, gates));
        }
        // Where limits were changed while files were read, the run has those of before.
        core.change(|_| {});
        Ok(())
    }

    /// Accepts nobody from now on: callers wait in the kernel's backlog. Live connections go on, and
    /// so do TLS handshakes under way.
    ///
    /// It holds until [`resume`](Self::resume), over stops and starts too: a listener may be
    /// suspended before it is started. Doing it twice is the same as once.
    pub fn suspend(&self) {
        if !self.core().suspended.send_replace(true) {
            self.core().events.emit(&Event::Suspended {});
        }
    }

    /// Accepts callers again after [`suspend`](Self::suspend), those who have waited first.
    pub fn resume(&self) {
        if self.core().suspended.send_replace(false) {
            self.core().events.emit(&Event::Resumed {});
        }
    }

    /// Is accepting suspended?
    pub fn is_suspended(&self) -> bool {
        *self.core().suspended.borrow()
    }

    /// The limits in force.
    pub fn limits(&self) -> Limits {
        self.core().config().limits.clone()
    }

    /// Changes the limits, also while the listener runs; they stay for later starts.
    ///
    /// They hold at once, for live connections too: writers that wait for room look again, and callers
    /// that wait for a place. Where `max_connections` is lowered nobody is sent away: nobody is accepted
    /// until fewer are live. Connections of a source that has more than it may have now, or that is
    /// denied now, go on.
    ///
    /// ```
    /// # use onbytes::{Listener, ListenerConfiguration};
    /// # let listener = Listener::new(0, ListenerConfiguration::new())?;
    /// listener.set_limits(listener.limits().max_connections(100))?;
    /// # assert_eq!(listener.limits().max_connections, Some(100));
    /// # Ok::<(), onbytes::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// A value that cannot be, by name; nothing is changed then.
    pub fn set_limits(&self, limits: Limits) -> Result<()> {
        ListenerConfiguration::new().limits(limits.clone()).check()?;
        let warning = warning_of(&limits);
        self.core().change(|config| config.limits = limits);
        self.core().warn_of_limits(warning.as_deref());
        Ok(())
    }

    /// The time limits in force.
    pub fn timeouts(&self) -> Timeouts {
        self.core().config().timeouts.clone()
    }

    /// Changes the time limits, also while the listener runs; they stay for later starts.
    ///
    /// They hold at once, for live connections too. An age counts from accept; a wait that no limit
    /// bounded before counts from now.
    ///
    /// # Errors
    ///
    /// A value that cannot be, by name; nothing is changed then.
    pub fn set_timeouts(&self, timeouts: Timeouts) -> Result<()> {
        ListenerConfiguration::new().timeouts(timeouts.clone()).check()?;
        self.core().change(|config| config.timeouts = timeouts);
        Ok(())
    }

    /// The live connections, in the order in which they were accepted.
    ///
    /// Each is looked at in turn, so the list is no snapshot of one instant; the counts of
    /// [`stats`](Self::stats) cost less.
    ///
    /// ```
    /// # use onbytes::{Listener, ListenerConfiguration};
    /// # let listener = Listener::new(0, ListenerConfiguration::new())?;
    /// for connection in listener.connections() {
    ///     println!("{} {} {}", connection.id, connection.remote_addr, connection.state);
    /// }
    /// # Ok::<(), onbytes::Error>(())
    /// ```
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        let Some(running) = self.core().running() else { return Vec::new() };
        let mut connections = Vec::with_capacity(running.run.alive());
        running.run.registry.each(|link| connections.push(link.info()));
        connections.sort_unstable_by_key(|connection| connection.id);
        connections
    }

    /// Closes one live connection in order, as [`Caller::close`](crate::Caller::close) does; tells
    /// whether there is one of this name, which there is while it closes, too.
    pub fn close_connection(&self, id: ConnectionId) -> bool {
        self.end(id, CloseReason::LocalClose)
    }

    /// Resets one live connection, as [`Caller::abort`](crate::Caller::abort) does; tells whether
    /// there is one of this name.
    pub fn abort_connection(&self, id: ConnectionId) -> bool {
        self.end(id, CloseReason::LocalAbort)
    }

    fn end(&self, id: ConnectionId, reason: CloseReason) -> bool {
        let link = id.number().and_then(|number| self.core().running()?.run.registry.find(number));
        link.is_some_and(|link| {
            link.end(reason, None);
            true
        })
    }

    /// Reads the files of `secure_socket` again: certificates, keys, the authorities of client
    /// certificates and lists of revoked ones.
    ///
    /// Handshakes from now on use what the files hold; connections that are live stay as they are.
    /// Where authorities or lists have changed, sessions of before are not resumed any more. Where
    /// one of the files is bad nothing changes. On a listener that is not started, or not secured,
    /// this does nothing: files are read at the start.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start): which file is bad, and why.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the files may or may not have been taken over, all or none.
    #[cfg(feature = "_tls")]
    pub async fn reload_tls(&self) -> Result<()> {
        let core = self.core();
        let Some(running) = core.running() else { return Ok(()) };
        if running.run.acceptor.is_none() {
            return Ok(());
        }
        let run = Arc::clone(&running.run);
        // Files are read, and keys perhaps derived from passwords.
        let reloading = tokio::task::spawn_blocking(move || match &run.acceptor {
            Some(acceptor) => acceptor.reload(),
            None => Ok(Vec::new()),
        });
        match reloading.await.unwrap_or_else(|error| Err(Error::new(error.to_string()))) {
            Ok(warnings) => {
                core.events.emit(&Event::Reloaded {});
                core.warn(&warnings);
                Ok(())
            }
            Err(error) => {
                core.events.emit(&Event::ReloadFailed { error: &error });
                Err(error)
            }
        }
    }

    /// The address it listens on, with the real port; `None` before the start, and from the beginning
    /// of a stop, when the port is released.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match &*self.core().lock() {
            Phase::Running(running, local) if !running.is_stopping() => Some(*local),
            _ => None,
        }
    }

    /// Counts of what the listener has seen.
    pub fn stats(&self) -> ListenerStats {
        let running = self.core().running();
        ListenerStats::of(&self.core().counters, running.as_ref().map(|running| &*running.run))
    }

    /// Serves until SIGINT or SIGTERM, then stops gracefully: attach, start, run, stop.
    ///
    /// The graceful stop has `timeouts.shutdown` (30 s); a second signal makes it immediate.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start), and where the listening socket is lost.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped and this was the last handle, the listener stops at once.
    pub async fn serve<S: Service>(self, service: S) -> Result<StopReport> {
        let mut signals = Signals::new()?;
        self.attach(service);
        self.start().await?;
        self.run_until(signals.next()).await?;
        let graceful = self.graceful_stop(self.timeouts().shutdown);
        tokio::select! {
            report = graceful => Ok(report),
            () = signals.next() => Ok(self.immediate_stop().await),
        }
    }

    /// Serves until `shutdown` completes, then stops gracefully within `timeouts.shutdown` (30 s).
    ///
    /// The same as [`serve`](Self::serve), without touching the signals of the process.
    ///
    /// # Errors
    ///
    /// As for [`start`](Self::start), and where the listening socket is lost.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped and this was the last handle, the listener stops at once.
    pub async fn serve_until<S: Service>(
        self,
        service: S,
        shutdown: impl Future<Output = ()>,
    ) -> Result<StopReport> {
        self.attach(service);
        self.start().await?;
        self.run_until(shutdown).await?;
        Ok(self.graceful_stop(self.timeouts().shutdown).await)
    }

    /// Waits for `shutdown`, unless the listening socket is lost before.
    async fn run_until(&self, shutdown: impl Future<Output = ()>) -> Result<()> {
        let Some(running) = self.core().running() else {
            return Ok(());
        };
        tokio::select! {
            () = shutdown => Ok(()),
            // Somebody else has stopped it: there is nothing left to wait for.
            _ = running.report() => Ok(()),
            error = running.lost() => {
                self.immediate_stop().await;
                Err(error)
            }
        }
    }

    /// Stops: releases the port at once, lets every connection finish, and cuts off at the deadline
    /// what has not.
    ///
    /// Callbacks that are running finish; then each service hears
    /// [`on_drain`](crate::ConnectionService::on_drain) once and decides whether its connection
    /// closes as soon as what has arrived is delivered and answered, or stays. After the stop the
    /// listener can be started again. On a listener that is not started this does nothing.
    ///
    /// # Cancel safety
    ///
    /// The stop goes on if the future is dropped. Calling it again waits for the same stop, and
    /// brings its deadline forward where `within` ends earlier.
    pub async fn graceful_stop(&self, within: Duration) -> StopReport {
        match self.core().take_running() {
            Some(running) => {
                running.stop_within(within, self.core().after_stop(&running));
                running.report().await
            }
            None => StopReport::default(),
        }
    }

    /// Stops at once: every connection is reset, and a running callback is dropped at its next await
    /// point; `on_close` still runs. It works during a graceful stop too.
    ///
    /// # Cancel safety
    ///
    /// The stop goes on if the future is dropped.
    pub async fn immediate_stop(&self) -> StopReport {
        match self.core().take_running() {
            Some(running) => {
                running.stop_now(self.core().after_stop(&running));
                running.report().await
            }
            None => StopReport::default(),
        }
    }

    fn core(&self) -> &Arc<Core> {
        &self.owner.core
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener")
            .field("endpoint", &self.core().endpoint)
            .field("local_addr", &self.local_addr())
            .finish_non_exhaustive()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if let Some(running) = self.core.take_running() {
            running.stop_now(self.core.after_stop(&running));
        }
    }
}

impl Core {
    fn lock(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn config(&self) -> MutexGuard<'_, ListenerConfiguration> {
        self.config.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes limits or time limits, for later starts and for what runs.
    fn change(&self, change: impl FnOnce(&mut ListenerConfiguration)) {
        let mut config = self.config();
        let before = (config.limits.clone(), config.timeouts.clone());
        change(&mut config);
        let (limits, timeouts) = (config.limits.clone(), config.timeouts.clone());
        let has_changed = before != (limits.clone(), timeouts.clone());
        // Under the lock, so that the last change is the one in force.
        let running =
            self.running().filter(|running| running.run.change_settings(limits, timeouts));
        drop(config);
        if let Some(running) = running {
            running.run.apply_settings();
        }
        if has_changed {
            self.events.emit(&Event::LimitsChanged {});
        }
    }

    fn warn_of_limits(&self, warning: Option<&str>) {
        if let Some(warning) = warning {
            self.events.emit(&Event::LimitsWarning { warning });
        }
    }

    fn running(&self) -> Option<Arc<Running>> {
        match &*self.lock() {
            Phase::Running(running, _) => Some(Arc::clone(running)),
            _ => None,
        }
    }

    /// What a stop has to stop; a start that is under way will not be completed.
    fn take_running(&self) -> Option<Arc<Running>> {
        match &mut *self.lock() {
            Phase::Running(running, _) => Some(Arc::clone(running)),
            Phase::Starting(goes_on) => {
                *goes_on = false;
                None
            }
            Phase::Stopped => None,
        }
    }

    /// What the stop of `running` does last: the listener may be started again.
    fn after_stop(self: &Arc<Self>, running: &Arc<Running>) -> impl FnOnce() + Send + 'static {
        let (core, running) = (Arc::clone(self), Arc::clone(running));
        move || {
            let mut phase = core.lock();
            if matches!(&*phase, Phase::Running(current, _) if Arc::ptr_eq(current, &running)) {
                *phase = Phase::Stopped;
            }
        }
    }

    /// What makes TLS sessions, where connections are to be secured.
    #[cfg(feature = "_tls")]
    async fn load_acceptor(
        &self,
        config: &ListenerConfiguration,
    ) -> Result<Option<crate::tls::Acceptor>> {
        let Some(secure) = config.secure_socket.clone() else { return Ok(None) };
        let loading = tokio::task::spawn_blocking(move || crate::tls::Acceptor::load(&secure));
        let loaded = loading.await.unwrap_or_else(|error| Err(Error::new(error.to_string())));
        let (acceptor, warnings) = loaded?;
        self.warn(&warnings);
        Ok(Some(acceptor))
    }

    #[cfg(feature = "_tls")]
    fn warn(&self, warnings: &[String]) {
        for warning in warnings {
            self.events.emit(&Event::TlsWarning { warning });
        }
    }

    fn begin_start(self: &Arc<Self>) -> Result<Starting> {
        let refused = |message| Err(Error::of(ErrorKind::State, message));
        if Handle::try_current().is_err() {
            return refused("a listener is started from within a Tokio runtime");
        }
        if self.attached.borrow().is_none() {
            return refused("no service is attached; call attach before start");
        }
        let mut phase = self.lock();
        if !matches!(&*phase, Phase::Stopped) {
            return refused("the listener is already started");
        }
        *phase = Phase::Starting(true);
        Ok(Starting { core: Arc::clone(self), is_complete: false })
    }
}

/// A start under way; dropped before it is complete, the listener is not started.
struct Starting {
    core: Arc<Core>,
    is_complete: bool,
}

impl Starting {
    /// The listener is started now, unless it was stopped meanwhile.
    fn complete(mut self, running: &Arc<Running>, local: SocketAddr) -> bool {
        let mut phase = self.core.lock();
        self.is_complete = matches!(&*phase, Phase::Starting(true));
        if self.is_complete {
            *phase = Phase::Running(Arc::clone(running), local);
        }
        drop(phase);
        self.is_complete
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if !self.is_complete {
            *self.core.lock() = Phase::Stopped;
        }
    }
}

/// The signals that end a program.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn new() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Error::caused(ErrorKind::State, "cannot listen for signals", error)
            })
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
