//! The load: threads, each with its share of the connections, from the first connection to the last reply.

mod exchange;
mod slot;

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use onbytes::{Client, Error};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::Signal;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::course::{Course, Server, Stage};
use super::pace::Pace;
use super::plan::Plan;
use super::schedule::Schedule;
use super::tally::{Fault, Kind, Tally, Window};
use super::usage::{Meter, Usage};
use crate::failure::Failure;
use slot::{Failures, Slot};

/// How many connections of a thread are on their way at a time, so that a server's line is not overrun.
const CONNECTING: usize = 128;

/// What the end of the last connections may take beyond the wait for replies.
const FAREWELL: Duration = Duration::from_secs(1);

/// A load that is running.
pub(crate) struct Load {
    plan: Arc<Plan>,
    course: Arc<Course>,
    threads: Vec<JoinHandle<Usage>>,
    tallies: Arc<Tallies>,
    news: mpsc::UnboundedReceiver<News>,
    tell: mpsc::UnboundedSender<News>,
    /// How many threads are ready, and how many have ended.
    ready: usize,
    done: usize,
}

/// What became of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) tally: Tally,
    pub(crate) server: Server,
    /// The time in which messages counted.
    pub(crate) elapsed: Duration,
    /// Of each thread, in that time.
    pub(crate) usage: Vec<Usage>,
    pub(crate) was_interrupted: bool,
}

/// The tallies of all threads.
#[derive(Default)]
pub(crate) struct Tallies(Mutex<Vec<Arc<Mutex<Tally>>>>);

impl Tallies {
    fn new_one(&self) -> Arc<Mutex<Tally>> {
        let tally = Arc::new(Mutex::new(Tally::new()));
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&tally));
        tally
    }

    /// Tells all from when on messages count.
    fn open(&self, window: Option<Window>) {
        for tally in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            tally.lock().unwrap_or_else(PoisonError::into_inner).window = window;
        }
    }

    /// What all have counted so far.
    pub(crate) fn sum(&self) -> Tally {
        let mut sum = Tally::new();
        for tally in self.0.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            sum.add(&tally.lock().unwrap_or_else(PoisonError::into_inner));
        }
        sum
    }
}

/// What threads tell.
enum News {
    /// The first connection was made, or was not.
    Reached(Result<Server, Error>),
    /// A thread has tried to make its connections.
    Ready,
    /// A thread has ended.
    Done,
}

impl Load {
    /// Makes the first connection.
    ///
    /// # Errors
    ///
    /// The error of that connection; or a thread cannot be started.
    pub(crate) async fn start(plan: Arc<Plan>) -> Result<Self, StartError> {
        // An open loop counts by its schedule.
        let messages = plan.messages.filter(|_| plan.rate.is_none());
        let (tell, news) = mpsc::unbounded_channel();
        let course = Arc::new(Course::new(messages));
        let (threads, tallies) = (Vec::new(), Arc::default());
        let mut load = Self { plan, course, threads, tallies, news, tell, ready: 0, done: 0 };
        load.spawn(0)?;
        match load.news.recv().await {
            Some(News::Reached(Ok(server))) => load.course.found(server),
            Some(News::Reached(Err(error))) => return Err(StartError::Connection(error)),
            _ => return Err(Failure::outside("a thread has ended early").into()),
        }
        (1..load.plan.threads).try_for_each(|number| load.spawn(number))?;
        Ok(load)
    }

    fn spawn(&mut self, number: usize) -> Result<(), Failure> {
        let cannot = |error: std::io::Error| {
            Failure::outside(format!("cannot start a thread: {error}")).hint("give fewer --threads")
        };
        let runtime = Builder::new_current_thread().enable_all().build().map_err(cannot)?;
        let share = Share {
            number,
            plan: Arc::clone(&self.plan),
            course: Arc::clone(&self.course),
            tally: self.tallies.new_one(),
            tell: self.tell.clone(),
        };
        let thread = thread::Builder::new().name(format!("load-{number}"));
        self.threads.push(thread.spawn(move || share.work(runtime)).map_err(cannot)?);
        Ok(())
    }

    pub(crate) fn tallies(&self) -> Arc<Tallies> {
        Arc::clone(&self.tallies)
    }

    /// Waits for the end: the time is over, all messages are sent, or there was an interrupt. A second
    /// interrupt ends the wait for replies.
    pub(crate) async fn finish(mut self, interrupt: &mut Signal) -> Outcome {
        let was_interrupted = tokio::select! {
            () = self.run() => false,
            _ = interrupt.recv() => true,
        };
        let end = Instant::now();
        self.course.enter(Stage::Ending);
        let patience = self.plan.timeout + FAREWELL;
        tokio::select! {
            () = self.all_done() => {}
            () = tokio::time::sleep(patience) => {}
            _ = interrupt.recv() => {}
        }
        self.course.enter(Stage::Over);
        let usage =
            self.threads.drain(..).map(|thread| thread.join().unwrap_or_default()).collect();
        self.outcome(end, usage, was_interrupted)
    }

    /// Until nothing more is to be sent.
    async fn run(&mut self) {
        while self.ready < self.threads.len() {
            self.hear().await;
        }
        self.course.set_times(Instant::now(), self.plan.warmup, self.plan.duration);
        // Before the first message goes out.
        self.tallies.open(self.course.window());
        self.course.enter(Stage::Running);
        match self.course.window().and_then(|window| window.until) {
            Some(until) => drop(tokio::time::timeout_at(until.into(), self.all_done()).await),
            None => self.all_done().await,
        }
    }

    async fn all_done(&mut self) {
        while self.done < self.threads.len() {
            self.hear().await;
        }
    }

    async fn hear(&mut self) {
        match self.news.recv().await {
            Some(News::Ready) => self.ready += 1,
            Some(News::Done) => self.done += 1,
            Some(News::Reached(_)) | None => {}
        }
    }

    fn outcome(self, end: Instant, usage: Vec<Usage>, was_interrupted: bool) -> Outcome {
        let tally = self.tallies.sum();
        let elapsed = match self.course.window() {
            None => Duration::ZERO,
            Some(window) => {
                let until = match window.until {
                    Some(until) if until <= end => until,
                    _ if was_interrupted => end,
                    // All messages were sent; what counts is when the last of them came back.
                    _ => tally.last.unwrap_or(end),
                };
                until.saturating_duration_since(window.from)
            }
        };
        let server = self.course.server().cloned().expect("the first connection was made");
        Outcome { tally, server, elapsed, usage, was_interrupted }
    }
}

/// Why a load did not start.
pub(crate) enum StartError {
    Connection(Error),
    Other(Failure),
}

impl From<Failure> for StartError {
    fn from(failure: Failure) -> Self {
        Self::Other(failure)
    }
}

/// What one thread does.
struct Share {
    number: usize,
    plan: Arc<Plan>,
    course: Arc<Course>,
    tally: Arc<Mutex<Tally>>,
    tell: mpsc::UnboundedSender<News>,
}

impl Share {
    fn work(self, runtime: Runtime) -> Usage {
        let usage = runtime.block_on(self.serve());
        // Not waited for: a look-up of a name may take its time.
        runtime.shutdown_background();
        let _ = self.tell.send(News::Done);
        usage
    }

    async fn serve(&self) -> Usage {
        let first = match self.number {
            0 => match self.first_connection().await {
                Ok(first) => first,
                Err(()) => return Usage::default(),
            },
            _ => None,
        };
        let connections = self.connections();
        let pace = self.pace(connections).map(Arc::new);
        let mut slots = self.fill(connections, pace.as_ref(), first).await;
        let _ = self.tell.send(News::Ready);
        tokio::select! {
            () = self.course.reached(Stage::Running) => {}
            () = self.course.reached(Stage::Over) => {}
        }
        let usage = self.watch(&mut slots, pace.as_deref()).await;
        while slots.join_next().await.is_some() {}
        usage
    }

    /// Makes the first connection of all, and tells how that went.
    async fn first_connection(&self) -> Result<Option<(u64, Client)>, ()> {
        let number = self.course.number();
        match slot::connect(&self.plan, &self.course).await {
            Ok(client) => {
                let server = Server::of(&client);
                // Known to this thread before the others are told.
                self.course.found(server.clone());
                let first = self.keep_first(number, client).await;
                let _ = self.tell.send(News::Reached(Ok(server)));
                Ok(first)
            }
            Err(error) => {
                let _ = self.tell.send(News::Reached(Err(error)));
                Err(())
            }
        }
    }

    /// The first connection is used like any other, unless each message is to have its own.
    async fn keep_first(&self, number: u64, client: Client) -> Option<(u64, Client)> {
        if self.plan.churn {
            // It has shown that the server is there.
            let _ = client.close().await;
            return None;
        }
        self.tally().connected(client.tls());
        Some((number, client))
    }

    /// How many of the connections are this thread's.
    fn connections(&self) -> usize {
        let Plan { connections, threads, .. } = *self.plan;
        connections / threads + usize::from(self.number < connections % threads)
    }

    fn pace(&self, connections: usize) -> Option<Pace> {
        let Plan { threads, warmup, messages, .. } = *self.plan;
        let schedule = Schedule::new(self.plan.rate?, self.number, threads, warmup, messages);
        Some(Pace::new(schedule, connections))
    }

    /// Starts what fills the slots, and waits until each was tried once.
    async fn fill(
        &self,
        connections: usize,
        pace: Option<&Arc<Pace>>,
        mut first: Option<(u64, Client)>,
    ) -> JoinSet<()> {
        let (is_ready, mut ready) = mpsc::channel(1);
        let at_once = if self.plan.churn { connections } else { CONNECTING };
        let permits = Arc::new(Semaphore::new(at_once));
        let mut slots = JoinSet::new();
        for index in 0..connections {
            let slot = Slot {
                index,
                plan: Arc::clone(&self.plan),
                course: Arc::clone(&self.course),
                tally: Arc::clone(&self.tally),
                pace: pace.cloned(),
                permits: Arc::clone(&permits),
                is_ready: Some(is_ready.clone()),
                first: first.take(),
                failures: Failures::default(),
            };
            slots.spawn(slot.live());
        }
        drop(is_ready);
        // Nothing is ever sent: it ends when all have let go of it.
        let _ = ready.recv().await;
        slots
    }

    /// Sees a run through until it ends, and measures how much of a core it takes.
    async fn watch(&self, slots: &mut JoinSet<()>, pace: Option<&Pace>) -> Usage {
        let (Some(window), Some(start)) = (self.course.window(), self.course.started()) else {
            return Usage::default();
        };
        let usage = tokio::select! {
            usage = self.measure(slots, window) => usage,
            usage = self.keep_pace(pace, start) => usage,
        };
        if let Some(pace) = pace {
            self.end_pace(pace, window.until);
        }
        usage
    }

    /// Waits for the end, and measures what this thread uses from the end of the warm-up on.
    async fn measure(&self, slots: &mut JoinSet<()>, window: Window) -> Usage {
        let mut ending = pin!(self.course.reached(Stage::Ending));
        tokio::select! {
            () = &mut ending => return Usage::default(),
            () = tokio::time::sleep_until(window.from.into()) => {}
        }
        let meter = Meter::start();
        tokio::select! {
            () = ending => {}
            () = until_all_end(slots) => {}
        }
        meter.read()
    }

    /// Lets messages become due; never ends.
    async fn keep_pace(&self, pace: Option<&Pace>, start: Instant) -> Usage {
        if let Some(pace) = pace
            && let Err(error) = pace.run(start).await
        {
            let line = format!("the system's timer failed, so nothing was due any more: {error}");
            self.tally().failed(Fault::new(Kind::Other, line));
        }
        std::future::pending().await
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn end_pace(&self, pace: &Pace, until: Option<Instant>) {
        pace.end();
        let now = Instant::now();
        let until = until.map_or(now, |until| until.min(now));
        let (unsent, longest_queue) = pace.unsent(until);
        let mut tally = self.tally();
        tally.lateness.unsent = unsent;
        tally.lateness.longest_queue = longest_queue;
    }
}

async fn until_all_end(slots: &mut JoinSet<()>) {
    while slots.join_next().await.is_some() {}
}

/// An error with its causes, in one line.
fn told(error: &Error) -> String {
    Failure::from(error).into_line()
}
