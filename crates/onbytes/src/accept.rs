//! Accepting connections, without ever ending and without ever spinning.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::coop::consume_budget;

use crate::caller::next_number;
use crate::connection::{Life, live};
use crate::endpoint::canonical;
use crate::event::Event;
use crate::link::Link;
use crate::run::{Current, Entry, Membership, Place, Run};
use crate::service::Service;
use crate::socket::{ListeningSocket, Socket};
use crate::{Error, ErrorKind, Pressure, Refusal, WhenFull};

/// The service that new connections are for; `None` while nothing is attached.
pub(crate) type Attached = Option<Arc<dyn Attachment>>;

/// A service of any type, reduced to what the accept loop does with it. So nothing on a connection's
/// way is boxed.
pub(crate) trait Attachment: Send + Sync {
    fn serve(self: Arc<Self>, membership: Membership);

    /// The memory that one connection of this service takes, beside its queue.
    fn weight(&self) -> usize;
}

impl<S: Service> Attachment for S {
    fn serve(self: Arc<Self>, membership: Membership) {
        tokio::spawn(live(self, Life::new(membership)));
    }

    fn weight(&self) -> usize {
        /// What the runtime keeps for a task and a socket, and the listener to find them: what an idle
        /// connection was measured to take (BENCHMARKS.md) less the two sizes below.
        const OVERHEAD: usize = 640;
        /// What the kernel keeps for a socket without its buffers, which a control group pays for as well:
        /// 1.2 KiB were measured.
        const KERNEL: usize = 1536;
        size_of_result(live::<S>) + size_of::<Link>() + OVERHEAD + KERNEL
    }
}

/// The size of what a function of two arguments returns.
fn size_of_result<A, B, R>(_: impl FnOnce(A, B) -> R) -> usize {
    size_of::<R>()
}

/// What has to be so before anybody is accepted.
pub(crate) struct Gates {
    attached: watch::Receiver<Attached>,
    suspended: watch::Receiver<bool>,
    /// How short memory is.
    pressure: watch::Receiver<Pressure>,
}

impl Gates {
    pub(crate) fn new(
        attached: watch::Receiver<Attached>,
        suspended: watch::Receiver<bool>,
        run: &Run,
    ) -> Self {
        Self { attached, suspended, pressure: run.overload.known() }
    }

    /// Waits until callers may be accepted.
    async fn open(&mut self, when_full: WhenFull) {
        while self.service(when_full).is_none() {
            let Self { attached, suspended, pressure } = self;
            let all_open = async {
                attached.wait_for(Option::is_some).await.is_ok()
                    && suspended.wait_for(|suspended| !suspended).await.is_ok()
                    && (when_full == WhenFull::Refuse
                        || pressure.wait_for(|it| it.is_accepting()).await.is_ok())
            };
            if !all_open.await {
                // The listener itself is gone; it aborts this task.
                std::future::pending::<()>().await;
            }
        }
    }

    /// The service for a caller who is accepted now; `None` where nobody is to be accepted.
    fn service(&self, when_full: WhenFull) -> Attached {
        // Who is refused for want of memory has to be accepted for that.
        let has_memory = when_full == WhenFull::Refuse || self.pressure.borrow().is_accepting();
        if !has_memory || *self.suspended.borrow() {
            return None;
        }
        self.attached.borrow().clone()
    }
}

/// Accepts until the task is aborted or the listening socket is gone, which it returns.
pub(crate) async fn accept_loop(
    socket: Arc<ListeningSocket>,
    local: SocketAddr,
    run: Arc<Run>,
    mut gates: Gates,
) -> Error {
    let mut backoff = Backoff::default();
    let mut reserve = Reserve::default();
    let mut current = run.settings.get();
    loop {
        run.settings.refresh(&mut current);
        reserve.keep(current.limits.when_full);
        let caller = tokio::select! {
            biased;
            caller = next_caller(&socket, &run, &current, &mut gates) => caller,
            () = run.settings.changed_from(&current) => continue,
        };
        // Whoever comes in does so under the settings of now.
        run.settings.refresh(&mut current);
        let (error, trouble) = match caller {
            Ok(caller) => match admit(caller, local, &run, &current).await {
                Ok(()) => {
                    backoff = Backoff::default();
                    run.events.recovered();
                    continue;
                }
                Err(error) => {
                    let trouble = triage(&error).of_one_connection();
                    (error, trouble)
                }
            },
            Err(error) => {
                let trouble = triage(&error);
                (error, trouble)
            }
        };
        match trouble {
            Trouble::ThisConnection => {
                let error = Error::caused(ErrorKind::Io, "accepting failed", error);
                run.events.emit(&Event::AcceptFailed { error: &error });
            }
            Trouble::Starved => {
                run.events.starved(error);
                if !reserve.turn_away(&socket, &run) {
                    backoff.pause().await;
                }
            }
            Trouble::ListenerGone => {
                let error = Error::caused(ErrorKind::Bind, "the listening socket is gone", error);
                run.events.emit(&Event::Lost { error: &error });
                return error;
            }
        }
    }
}

/// A caller, the service it is for, and its place if it has one already.
struct NewCaller {
    fd: OwnedFd,
    remote: Option<SocketAddr>,
    service: Arc<dyn Attachment>,
    place: Option<Place>,
}

/// Waits for a caller. Where callers are to wait, the place is taken before the caller, so that those
/// beyond it stay in the backlog; but not before there is one, who may come to another loop's socket.
async fn next_caller(
    socket: &ListeningSocket,
    run: &Run,
    current: &Current,
    gates: &mut Gates,
) -> io::Result<NewCaller> {
    let when_full = current.limits.when_full;
    loop {
        gates.open(when_full).await;
        // In a storm of callers somebody is always there, and connections have to get their turn as well.
        consume_budget().await;
        socket.readable().await?;
        let place = match when_full {
            WhenFull::Queue => Some(place_for_next(socket, run, gates).await),
            WhenFull::Refuse => None,
        };
        // A gate may have been closed meanwhile: then the caller goes on waiting.
        let Some(service) = gates.service(when_full) else { continue };
        match socket.accept() {
            Ok((fd, remote)) => return Ok(NewCaller { fd, remote, service, place }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Waits for a place. Where all are taken, a caller who waits for one is worth more than a TLS
/// handshake that does not come to its end: the oldest gives way, if it has had its time.
#[cfg(feature = "_tls")]
async fn place_for_next(socket: &ListeningSocket, run: &Run, gates: &mut Gates) -> Place {
    if let Some(place) = run.places.try_take() {
        return place;
    }
    loop {
        let due_and_wanted = async {
            run.handshakes.oldest_is_due().await;
            // Readiness may be left over from a caller whom another loop has accepted. A listening
            // socket that is gone shows at the next accept.
            let _ = socket.has_caller().await;
            // Nobody gives way to a caller who is not let in.
            gates.open(WhenFull::Queue).await;
        };
        tokio::select! {
            biased;
            place = run.places.take() => return place,
            () = due_and_wanted => {
                if let Some(place) = place_of_handshake(run).await {
                    return place;
                }
            }
        }
    }
}

#[cfg(not(feature = "_tls"))]
async fn place_for_next(_: &ListeningSocket, run: &Run, _: &mut Gates) -> Place {
    run.places.take().await
}

/// The place of the oldest handshake under way, if there is one that has had its time.
#[cfg(feature = "_tls")]
async fn place_of_handshake(run: &Run) -> Option<Place> {
    /// Its task closes the socket at once, unless the machine is very busy; and another accept loop
    /// may be quicker to take the place.
    const PATIENCE: Duration = Duration::from_secs(1);
    if !run.handshakes.end_oldest() {
        return None;
    }
    tokio::time::timeout(PATIENCE, run.places.take()).await.ok()
}

#[cfg(not(feature = "_tls"))]
async fn place_of_handshake(_: &Run) -> Option<Place> {
    None
}

/// Gives a caller to its service, or turns it away.
async fn admit(
    caller: NewCaller,
    listening: SocketAddr,
    run: &Arc<Run>,
    current: &Arc<Current>,
) -> io::Result<()> {
    let NewCaller { fd, remote, service, place } = caller;
    // A caller without an address has gone already.
    let remote = canonical(remote.ok_or(io::ErrorKind::ConnectionAborted)?);
    let entry = match let_in(remote, place, run, current).await {
        Ok(entry) => entry,
        Err(cause) => {
            drop(fd);
            refuse(Some(remote), cause, run);
            return Ok(());
        }
    };
    let local = local_address(&fd, listening)?;
    crate::bind::inherit(&fd, &run.config.socket)?;
    let socket = Socket::register_accepted(fd)?;
    let link = Link::new(next_number(), remote, local, socket, Arc::clone(&run.ledger));
    if let Some(framing) = &run.framing {
        link.frame(framing);
    }
    // Limits that are set later are not counted for whoever is here already.
    let weight = service.weight() as u64 + run.weight_of_handshake() + current.timeouts.weight();
    link.set_weight(weight);
    service.serve(Membership::new(Arc::clone(run), link, entry));
    Ok(())
}

/// What a caller needs to become a connection, or why it cannot.
async fn let_in(
    remote: SocketAddr,
    place: Option<Place>,
    run: &Run,
    current: &Arc<Current>,
) -> Result<Entry, Refusal> {
    current.admission.check_lists(remote.ip())?;
    if place.is_none() && !run.overload.pressure().is_accepting() {
        return Err(Refusal::Overload);
    }
    let place = place.or_else(|| run.places.try_take());
    // Counted last, so that whoever is refused otherwise has not used up anything of its source.
    if place.is_none() && !run.may_give_way() {
        return Err(Refusal::Full);
    }
    let source = current.admission.admit(remote.ip())?;
    let place = match place {
        Some(place) => Some(place),
        None => place_of_handshake(run).await,
    };
    let place = place.ok_or(Refusal::Full)?;
    Ok(Entry { place, source, current: Arc::clone(current) })
}

fn refuse(remote_addr: Option<SocketAddr>, cause: Refusal, run: &Run) {
    run.counters.refused[cause as usize].fetch_add(1, Ordering::Relaxed);
    run.events.emit(&Event::Refused { remote_addr, cause });
}

/// Our address of a connection. Only a listener on all interfaces has to ask for it.
fn local_address(fd: &OwnedFd, listening: SocketAddr) -> io::Result<SocketAddr> {
    if !listening.ip().is_unspecified() {
        return Ok(canonical(listening));
    }
    let address = SocketAddr::try_from(rustix::net::getsockname(fd)?)?;
    Ok(canonical(address))
}

/// Whose trouble a failed accept is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The one connection's: it was aborted before it was accepted. The next one is not concerned.
    ThisConnection,
    /// The process's or the system's: out of descriptors or memory. It passes.
    Starved,
    /// The listening socket's: nothing will ever be accepted again.
    ListenerGone,
}

impl Trouble {
    /// The same failure with a connection that was accepted: it says nothing of the listener.
    fn of_one_connection(self) -> Self {
        match self {
            Self::ListenerGone => Self::ThisConnection,
            other => other,
        }
    }
}

/// Classifies a failure to accept: `accept(2)`, sections "Errors" and "Error handling".
pub(crate) fn triage(error: &io::Error) -> Trouble {
    use rustix::io::Errno;
    let Some(errno) = Errno::from_io_error(error) else {
        // Not from a system call: of the runtime's own errors, none but its end lasts.
        return match error.kind() {
            io::ErrorKind::ConnectionAborted => Trouble::ThisConnection,
            _ => Trouble::ListenerGone,
        };
    };
    match errno {
        Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP => Trouble::ListenerGone,
        Errno::CONNABORTED
        | Errno::CONNRESET
        | Errno::INTR
        | Errno::PROTO
        | Errno::PERM
        | Errno::NETDOWN
        | Errno::NETUNREACH
        | Errno::HOSTDOWN
        | Errno::HOSTUNREACH
        | Errno::NOPROTOOPT
        | Errno::NOTCONN
        | Errno::TIMEDOUT => Trouble::ThisConnection,
        #[cfg(any(target_os = "linux", target_os = "android"))]
        Errno::NONET => Trouble::ThisConnection,
        // MFILE, NFILE, NOBUFS, NOMEM, NOSPC (registrations), and what nobody has thought of: a
        // pause costs little and keeps the loop from spinning.
        _ => Trouble::Starved,
    }
}

/// How long to wait before the next try.
#[derive(Default)]
struct Backoff {
    pause: Duration,
}

impl Backoff {
    const SHORTEST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_secs(1);

    async fn pause(&mut self) {
        self.pause = (self.pause * 2).clamp(Self::SHORTEST, Self::LONGEST);
        tokio::time::sleep(self.pause).await;
    }
}

/// A descriptor kept so that, when there is no other, callers can still be turned away.
#[derive(Default)]
struct Reserve {
    spare: Option<File>,
}

impl Reserve {
    /// Has a descriptor in reserve where callers beyond a bound are refused. Where they wait, they wait
    /// for descriptors too.
    fn keep(&mut self, when_full: WhenFull) {
        match when_full {
            WhenFull::Queue => self.spare = None,
            WhenFull::Refuse if self.spare.is_some() => {}
            WhenFull::Refuse => self.spare = File::open("/dev/null").ok(),
        }
    }

    /// Turns one caller away with the spare descriptor, if one waits; `false` where there is no
    /// spare one. Afterwards there is none until the next [`keep`](Self::keep).
    fn turn_away(&mut self, socket: &ListeningSocket, run: &Run) -> bool {
        if self.spare.take().is_none() {
            return false;
        }
        match socket.accept() {
            Ok((fd, remote)) => {
                drop(fd);
                refuse(remote.map(canonical), Refusal::Starved, run);
                true
            }
            // Nobody waits: the next one is waited for, not slept for.
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn every_failure_to_accept_has_its_class() {
        let class = |errno: Errno| triage(&errno.into());
        for errno in [Errno::CONNABORTED, Errno::CONNRESET, Errno::PROTO, Errno::PERM] {
            assert_eq!(class(errno), Trouble::ThisConnection, "{errno}");
        }
        for errno in [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::NOSPC] {
            assert_eq!(class(errno), Trouble::Starved, "{errno}");
        }
        for errno in [Errno::BADF, Errno::INVAL, Errno::NOTSOCK] {
            assert_eq!(class(errno), Trouble::ListenerGone, "{errno}");
        }
        assert_eq!(class(Errno::DEADLK), Trouble::Starved, "the unknown is waited out");
    }
}
