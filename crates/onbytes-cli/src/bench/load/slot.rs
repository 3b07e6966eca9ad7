//! One place for a connection: it is filled at the start, and again when a connection is lost.

use std::error::Error as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use onbytes::{Client, Error, ErrorKind};
use tokio::sync::{Semaphore, mpsc};

use super::super::course::{Course, Stage};
use super::super::pace::Pace;
use super::super::plan::Plan;
use super::super::tally::{Fault, Kind, Tally};
use super::exchange::{Exchange, Flight, Supply};

/// The pause after a failure; it doubles with each that follows.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A place for a connection.
pub(super) struct Slot {
    /// Among those of the thread.
    pub(super) index: usize,
    pub(super) plan: Arc<Plan>,
    pub(super) course: Arc<Course>,
    pub(super) tally: Arc<Mutex<Tally>>,
    pub(super) pace: Option<Arc<Pace>>,
    /// How many may be on their way to the server at a time.
    pub(super) permits: Arc<Semaphore>,
    /// Dropped once connecting was tried.
    pub(super) is_ready: Option<mpsc::Sender<()>>,
    /// A connection that was made before.
    pub(super) first: Option<(u64, Client)>,
    pub(super) failures: Failures,
}

/// How long nothing has worked, and how long to rest after the next failure.
pub(super) struct Failures {
    pause: Duration,
    since: Option<Instant>,
}

impl Default for Failures {
    fn default() -> Self {
        Self { pause: FIRST_PAUSE, since: None }
    }
}

impl Slot {
    /// Lives until the run is over.
    pub(super) async fn live(mut self) {
        let course = Arc::clone(&self.course);
        tokio::select! {
            biased;
            () = course.reached(Stage::Over) => {}
            () = self.serve() => {}
        }
        if let Some(pace) = &self.pace {
            pace.leave(self.index);
        }
    }

    async fn serve(&mut self) {
        if !self.plan.churn {
            return self.keep().await;
        }
        self.is_ready = None;
        self.course.reached(Stage::Running).await;
        self.churn().await;
    }

    // ---- One connection for many messages ----

    async fn keep(&mut self) {
        while !self.is_over() && !self.is_hopeless() {
            let Err(fault) = self.keep_one().await else { return };
            self.tally().failed(fault);
            self.rest().await;
        }
    }

    fn is_over(&self) -> bool {
        let is_sent = self.pace.as_ref().is_some_and(|pace| pace.is_over());
        is_sent || self.course.is_over(Instant::now())
    }

    /// Connects and exchanges messages, until there is nothing more to send.
    async fn keep_one(&mut self) -> Result<(), Fault> {
        let connected = self.connect_unless_over().await;
        // However that went, nobody has to wait for it.
        self.is_ready = None;
        let Some((number, client)) = connected? else { return Ok(()) };
        self.course.reached(Stage::Running).await;
        let mut flight = Flight::new(&self.tally, self.plan.depth);
        let supply = match &self.pace {
            Some(pace) => Supply::Paced(pace, self.index),
            None => Supply::Closed(&self.course),
        };
        let result = match Exchange::new(&self.plan, supply, number) {
            Ok(exchange) => exchange.run(client, &mut flight).await,
            Err(fault) => Err(fault),
        };
        flight.is_explained = true;
        if let Some(pace) = &self.pace {
            pace.leave(self.index);
        }
        if flight.has_worked {
            self.failures = Failures::default();
        }
        result
    }

    /// A connection; none where the run ends before there is one.
    async fn connect_unless_over(&mut self) -> Result<Option<(u64, Client)>, Fault> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let course = Arc::clone(&self.course);
        tokio::select! {
            biased;
            () = course.reached(Stage::Ending) => Ok(None),
            connected = self.connect() => connected.map(Some),
        }
    }

    // ---- A connection for each message ----

    async fn churn(&mut self) {
        while !self.is_hopeless() {
            let Some(begun) = self.next_message().await else { return };
            let mut flight = Flight::of_one(&self.tally, begun);
            let result = self.exchange_one(begun, &mut flight).await;
            flight.is_explained = true;
            match result {
                Ok(()) => {
                    flight.complete(1, Instant::now());
                    self.failures = Failures::default();
                }
                Err(fault) => {
                    flight.tally().failed(fault);
                    drop(flight);
                    self.rest().await;
                }
            }
        }
    }

    /// When the next message is begun; `None` where there is none any more.
    async fn next_message(&self) -> Option<Instant> {
        let Some(pace) = &self.pace else {
            let now = Instant::now();
            return (self.course.claim(1, now) == 1).then_some(now);
        };
        let mut begun = std::collections::VecDeque::new();
        while !pace.is_over() {
            if pace.take(self.index, 1, Instant::now(), &mut begun) == 1 {
                return begun.pop_front();
            }
            pace.wait(self.index).await;
        }
        None
    }

    async fn exchange_one(&self, begun: Instant, flight: &mut Flight) -> Result<(), Fault> {
        self.tally().sent(begun, Instant::now());
        let (number, client) = self.connect().await?;
        Exchange::new(&self.plan, Supply::Once, number)?.run(client, flight).await
    }

    // ---- Connecting ----

    async fn connect(&self) -> Result<(u64, Client), Fault> {
        let _permit = self.permits.acquire().await;
        let number = self.course.number();
        let client = connect(&self.plan, &self.course).await;
        let client = client.map_err(|error| not_connected(&error, number))?;
        self.tally().connected(client.tls());
        Ok((number, client))
    }

    /// Waits for a moment after a failure, or until the run ends.
    async fn rest(&mut self) {
        let pause = self.failures.pause;
        self.failures.since.get_or_insert_with(Instant::now);
        self.failures.pause = (pause * 2).min(LONGEST_PAUSE);
        tokio::select! {
            () = self.course.reached(Stage::Ending) => {}
            () = tokio::time::sleep(pause) => {}
        }
    }

    /// Whether there is no use in going on: nothing has worked for long, and no time ends the run.
    fn is_hopeless(&self) -> bool {
        let is_long = |since: Instant| since.elapsed() > self.plan.timeout;
        self.plan.duration.is_none() && self.failures.since.is_some_and(is_long)
    }

    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connects to the address that has answered before, so that nobody asks for it again and again.
pub(super) async fn connect(plan: &Plan, course: &Course) -> onbytes::Result<Client> {
    let config = plan.config.clone();
    match course.server() {
        Some(server) => Client::connect_to(server.addr, config).await,
        None => Client::connect(&plan.host, plan.port, config).await,
    }
}

fn not_connected(error: &Error, number: u64) -> Fault {
    let is_of_handshake =
        error.kind() == ErrorKind::Tls || error.to_string().starts_with("the TLS handshake");
    let kind = match system_error(error) {
        _ if is_of_handshake => Kind::Handshake,
        Some(io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse) => Kind::NoPortLeft,
        _ => Kind::NotConnected,
    };
    Fault::new(kind, format!("connection {number}: {}", super::told(error)))
}

fn system_error(error: &Error) -> Option<io::ErrorKind> {
    Some(error.source()?.downcast_ref::<io::Error>()?.kind())
}
