//! Stopping a listener: a trigger, a deadline and a report.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::close::CloseReason;
use crate::crew::Crew;
use crate::event::Event;
use crate::run::Run;
use crate::socket::ListeningSocket;
use crate::timer::later;
use crate::{Error, ErrorKind, Result};

/// How long a thread may be busy before a stop goes on without its accept loop.
const PATIENCE: Duration = Duration::from_millis(250);

/// How the connections ended that were live when a stop began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct StopReport {
    /// Connections that ended in order, or on their own: by a reset of the peer, say, or at their write
    /// timeout.
    pub clean: usize,
    /// Connections that the deadline, or an immediate stop, cut off.
    pub forced: usize,
    /// Connections that could not be stopped, because a callback of theirs never yields.
    pub abandoned: usize,
}

/// A listener that has been started: its accept tasks, its run, and its stop.
pub(crate) struct Running {
    pub(crate) run: Arc<Run>,
    /// Where connections run, and where the listener is stopped.
    crew: Crew,
    /// The listening sockets, which belong to the accept loops.
    listening: Mutex<Vec<Weak<ListeningSocket>>>,
    accepting: Mutex<Vec<JoinHandle<Error>>>,
    /// Sees to it that connections stay within their bounds, also while they finish.
    watching: JoinHandle<()>,
    order: watch::Sender<Option<Order>>,
    report: watch::Sender<Option<StopReport>>,
    /// What ended accepting, where nobody asked for it.
    lost: watch::Sender<Option<Error>>,
}

/// What was asked for. A later order can only be stricter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    /// Let connections finish until then; `None` is never.
    By(Option<Instant>),
    Now,
}

impl Order {
    fn stricter(self, other: Self) -> Self {
        match (self, other) {
            (Self::By(Some(one)), Self::By(Some(two))) => Self::By(Some(one.min(two))),
            (Self::By(None), Self::By(limit)) | (Self::By(limit), Self::By(None)) => {
                Self::By(limit)
            }
            _ => Self::Now,
        }
    }
}

impl Running {
    pub(crate) fn new(run: Arc<Run>, crew: Crew) -> Self {
        let watching = Run::keep_watch(Arc::downgrade(&run), run.is_watched());
        Self {
            run,
            watching: crew.office().spawn(watching),
            crew,
            listening: Mutex::default(),
            accepting: Mutex::default(),
            order: watch::Sender::new(None),
            report: watch::Sender::new(None),
            lost: watch::Sender::new(None),
        }
    }

    /// Registers the sockets, one for each accept loop, where these are to run.
    pub(crate) fn register(&self, fds: Vec<OwnedFd>) -> Result<Vec<Arc<ListeningSocket>>> {
        let runtimes = self.crew.runtimes().iter();
        let register = |(fd, runtime): (OwnedFd, &Handle)| {
            let _inside = runtime.enter();
            ListeningSocket::register(fd).map(Arc::new)
        };
        let cannot = |error| Error::caused(ErrorKind::Bind, "cannot accept on the port", error);
        let sockets = fds.into_iter().zip(runtimes).map(register);
        let sockets = sockets.collect::<io::Result<Vec<_>>>().map_err(cannot)?;
        *self.lock_listening() = sockets.iter().map(Arc::downgrade).collect();
        Ok(sockets)
    }

    fn lock_listening(&self) -> MutexGuard<'_, Vec<Weak<ListeningSocket>>> {
        self.listening.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs the accept loop of a number until the listener stops.
    pub(crate) fn accept(
        self: &Arc<Self>,
        number: usize,
        accept_loop: impl Future<Output = Error> + Send + 'static,
    ) {
        let mut accepting = self.lock_accepting();
        // Under the lock: a stop that comes later finds the task.
        if self.is_stopping() {
            return;
        }
        let lost = self.lost.clone();
        let task = self.crew.runtimes()[number].spawn(async move {
            let error = accept_loop.await;
            lost.send_replace(Some(error.clone()));
            error
        });
        accepting.push(task);
    }

    /// Waits until accepting has ended though nobody asked for it.
    pub(crate) async fn lost(&self) -> Error {
        let mut lost = self.lost.subscribe();
        match lost.wait_for(Option::is_some).await.map(|error| error.clone()) {
            Ok(Some(error)) => error,
            // The sender lives as long as `self`.
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    fn lock_accepting(&self) -> MutexGuard<'_, Vec<JoinHandle<Error>>> {
        self.accepting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a graceful stop, or brings the deadline of one forward.
    pub(crate) fn stop_within(
        self: &Arc<Self>,
        within: Duration,
        done: impl FnOnce() + Send + 'static,
    ) {
        self.give(Order::By(later(Instant::now(), Some(within))), done);
    }

    /// Begins an immediate stop, also in the middle of a graceful one.
    pub(crate) fn stop_now(self: &Arc<Self>, done: impl FnOnce() + Send + 'static) {
        self.give(Order::Now, done);
    }

    /// Gives an order; the first one starts the task that carries it out, so that nobody has to
    /// wait for the stop to go on.
    fn give(self: &Arc<Self>, order: Order, done: impl FnOnce() + Send + 'static) {
        let mut is_first = false;
        let mut before = Before::default();
        self.order.send_modify(|given| {
            is_first = given.is_none();
            if is_first {
                before = Before::of(&self.run);
            }
            *given = Some(given.map_or(order, |given| given.stricter(order)));
        });
        if order == Order::Now {
            // At once, so that it holds even if the runtime never gets to the task below.
            self.abort_accepting();
            self.run.force(CloseReason::Stopped);
        }
        if is_first {
            let stop = Stop { running: Arc::clone(self), before, done: Some(done) };
            self.crew.office().spawn(stop.carry_out());
        }
    }

    fn abort_accepting(&self) {
        self.lock_accepting().iter().for_each(JoinHandle::abort);
    }

    /// Ends the accept loops and by that releases the port.
    async fn end_accepting(&self) {
        self.abort_accepting();
        let accepting = std::mem::take(&mut *self.lock_accepting());
        let all_ended = async {
            for task in accepting {
                let _ = task.await;
            }
        };
        if timeout(PATIENCE, all_ended).await.is_ok() {
            return;
        }
        // A callback that never yields is in the way of a loop: its socket stays, but listens no more.
        let sockets: Vec<_> = self.lock_listening().iter().filter_map(Weak::upgrade).collect();
        sockets.iter().for_each(|socket| socket.stop_listening());
    }

    /// Waits for the end of a stop that has begun.
    pub(crate) async fn report(&self) -> StopReport {
        let mut report = self.report.subscribe();
        match report.wait_for(Option::is_some).await.map(|report| *report) {
            Ok(Some(report)) => report,
            Ok(None) | Err(_) => std::future::pending().await,
        }
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.order.borrow().is_some()
    }

    fn is_now(&self) -> bool {
        *self.order.borrow() == Some(Order::Now)
    }

    /// Waits until the deadline in force has passed, or waiting is over.
    async fn deadline(&self) {
        let mut order = self.order.subscribe();
        loop {
            let now = *order.borrow_and_update();
            let wait = async {
                match now {
                    Some(Order::By(Some(deadline))) => tokio::time::sleep_until(deadline).await,
                    Some(Order::By(None)) => std::future::pending().await,
                    Some(Order::Now) | None => {}
                }
            };
            tokio::select! {
                () = wait => return,
                _ = order.changed() => {}
            }
        }
    }
}

/// What there was when the stop began.
#[derive(Clone, Copy, Default)]
struct Before {
    connections: usize,
    clean: usize,
    forced: usize,
}

impl Before {
    fn of(run: &Run) -> Self {
        let (clean, forced) = run.ended();
        Self { connections: run.alive(), clean, forced }
    }
}

/// A stop under way. When it goes, whether it was carried out or its runtime has ended, its report
/// is given.
struct Stop<F: FnOnce()> {
    running: Arc<Running>,
    before: Before,
    done: Option<F>,
}

impl<F: FnOnce()> Stop<F> {
    async fn carry_out(self) {
        let Running { run, .. } = &*self.running;
        self.running.end_accepting().await;
        run.events.emit(&Event::Stopping { connections: self.before.connections });

        if !self.running.is_now() {
            run.drain();
            tokio::select! {
                () = run.emptied() => {}
                () = self.running.deadline() => {}
            }
        }
        let is_now = self.running.is_now();
        run.force(if is_now { CloseReason::Stopped } else { CloseReason::StopForced });
        let _ = timeout(run.time_to_cut_off(), run.emptied()).await;
    }
}

impl<F: FnOnce()> Drop for Stop<F> {
    fn drop(&mut self) {
        let Running { run, report, .. } = &*self.running;
        let (clean, forced) = run.ended();
        let result = StopReport {
            clean: clean - self.before.clean,
            forced: forced - self.before.forced,
            abandoned: run.alive(),
        };
        self.running.watching.abort();
        self.running.crew.dismiss();
        run.events.emit(&Event::Stopped { report: &result });
        if let Some(done) = self.done.take() {
            done();
        }
        report.send_replace(Some(result));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_order_can_only_be_stricter() {
        let now = Instant::now();
        let soon = Order::By(Some(now + Duration::from_secs(1)));
        let late = Order::By(Some(now + Duration::from_secs(9)));
        assert_eq!(soon.stricter(late), soon);
        assert_eq!(late.stricter(soon), soon);
        assert_eq!(Order::By(None).stricter(late), late);
        assert_eq!(soon.stricter(Order::Now), Order::Now);
        assert_eq!(Order::Now.stricter(late), Order::Now);
    }
}
