//! Accepting connections, without ever ending and without ever spinning.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;

use crate::caller::next_number;
use crate::connection::{Life, live};
use crate::endpoint::canonical;
use crate::event::Event;
use crate::link::Link;
use crate::run::{Membership, Place, Run};
use crate::service::Service;
use crate::socket::{ListeningSocket, Socket};
use crate::{Error, ErrorKind, WhenFull};

/// The service that new connections are for; `None` while nothing is attached.
pub(crate) type Attached = Option<Arc<dyn Attachment>>;

/// A service of any type, reduced to the one thing that the accept loop does with it. So nothing
/// on a connection's way is boxed.
pub(crate) trait Attachment: Send + Sync {
    fn serve(self: Arc<Self>, membership: Membership);
}

impl<S: Service> Attachment for S {
    fn serve(self: Arc<Self>, membership: Membership) {
        tokio::spawn(live(self, Life::new(membership)));
    }
}

/// Accepts until the task is aborted or the listening socket is gone, which it returns.
pub(crate) async fn accept_loop(
    socket: ListeningSocket,
    local: SocketAddr,
    run: Arc<Run>,
    mut attached: watch::Receiver<Attached>,
) -> Error {
    let mut backoff = Backoff::default();
    let mut reserve = Reserve::of(run.config.limits.when_full);
    loop {
        // The place is taken before accept, so excess callers wait in the backlog.
        let place = match run.config.limits.when_full {
            WhenFull::Queue => Some(place_for_next(&socket, &run).await),
            WhenFull::Refuse => None,
        };
        let (error, trouble) = match next_caller(&socket, &mut attached).await {
            Ok(caller) => match admit(caller, local, &run, place).await {
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

/// Waits for a place. Where all are taken, a caller who waits for one is worth more than a TLS
/// handshake that does not come to its end: the oldest gives way, if it has had its time.
#[cfg(feature = "_tls")]
async fn place_for_next(socket: &ListeningSocket, run: &Run) -> Place {
    loop {
        let due_and_wanted = async {
            run.handshakes.oldest_is_due().await;
            // A listening socket that is gone shows at the next accept.
            let _ = socket.has_caller().await;
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
async fn place_for_next(_: &ListeningSocket, run: &Run) -> Place {
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

/// A caller, and the service it is for.
struct NewCaller {
    fd: OwnedFd,
    remote: Option<SocketAddr>,
    service: Arc<dyn Attachment>,
}

/// Waits for a caller and for a service to give it to.
async fn next_caller(
    socket: &ListeningSocket,
    attached: &mut watch::Receiver<Attached>,
) -> io::Result<NewCaller> {
    loop {
        if attached.wait_for(Option::is_some).await.is_err() {
            // The listener itself is gone; it aborts this task.
            std::future::pending::<()>().await;
        }
        socket.readable().await?;
        // The service may have been detached meanwhile: then the caller goes on waiting.
        let Some(service) = attached.borrow().clone() else { continue };
        match socket.accept() {
            Ok((fd, remote)) => return Ok(NewCaller { fd, remote, service }),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

/// Gives a caller to its service, or turns it away where there is no place.
async fn admit(
    caller: NewCaller,
    listening: SocketAddr,
    run: &Arc<Run>,
    place: Option<Place>,
) -> io::Result<()> {
    let NewCaller { fd, remote, service } = caller;
    let place = match place.or_else(|| run.places.try_take()) {
        Some(place) => Some(place),
        None => place_of_handshake(run).await,
    };
    let Some(place) = place else {
        refuse(remote, run);
        return Ok(());
    };
    // A caller without an address has gone already.
    let remote = remote.ok_or(io::ErrorKind::ConnectionAborted)?;
    let local = local_address(&fd, listening)?;
    crate::bind::inherit(&fd, &run.config.socket)?;
    let link = Link::new(next_number(), canonical(remote), local, Socket::register(fd)?);
    service.serve(Membership::new(Arc::clone(run), link, place));
    Ok(())
}

fn refuse(remote: Option<SocketAddr>, run: &Run) {
    run.counters.refused.fetch_add(1, Ordering::Relaxed);
    run.events.emit(&Event::Refused { remote_addr: remote.map(canonical) });
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
struct Reserve {
    spare: Option<File>,
    is_wanted: bool,
}

impl Reserve {
    fn of(when_full: WhenFull) -> Self {
        let mut reserve = Self { spare: None, is_wanted: when_full == WhenFull::Refuse };
        reserve.refill();
        reserve
    }

    fn refill(&mut self) {
        if self.is_wanted && self.spare.is_none() {
            self.spare = File::open("/dev/null").ok();
        }
    }

    /// Turns one caller away with the spare descriptor, if one waits; `false` where there is no
    /// spare one.
    fn turn_away(&mut self, socket: &ListeningSocket, run: &Run) -> bool {
        self.refill();
        if self.spare.take().is_none() {
            return false;
        }
        let result = socket.accept();
        let is_possible = match &result {
            Ok(_) => true,
            // Nobody waits: the next one is waited for, not slept for.
            Err(error) => error.kind() == io::ErrorKind::WouldBlock,
        };
        if let Ok((fd, remote)) = result {
            drop(fd);
            refuse(remote, run);
        }
        self.refill();
        is_possible
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
