//! The task of a request client: makes connections, sends requests, and gives replies to who waits.

use std::future::{Future, poll_fn};
use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, sleep, sleep_until};

use super::config::Failures;
use super::slots::{Met, Slots, Verdict};
use super::{RequestConfiguration, Status, unanswered};
use crate::{Client, ClientReader, ClientWriter, Endpoint, Error, ErrorKind, Result};

/// A request on its way to be sent.
pub(super) struct Order {
    pub(super) frame: Bytes,
    pub(super) key: Option<Bytes>,
    pub(super) deadline: Instant,
    pub(super) answer: oneshot::Sender<Result<Bytes>>,
}

pub(super) struct Engine {
    endpoint: Endpoint,
    config: RequestConfiguration,
    orders: mpsc::Receiver<Order>,
    closing: watch::Receiver<bool>,
    status: watch::Sender<Status>,
}

/// How a conversation ended.
enum End {
    /// As it was asked for, or because nobody holds the client any more.
    Wanted,
    Lost {
        error: Error,
        /// A request was answered, so that the next connection is worth a try soon.
        was_of_use: bool,
    },
}

impl Engine {
    pub(super) fn new(
        endpoint: Endpoint,
        config: RequestConfiguration,
        orders: mpsc::Receiver<Order>,
        closing: watch::Receiver<bool>,
        status: watch::Sender<Status>,
    ) -> Self {
        Self { endpoint, config, orders, closing, status }
    }

    /// Lives until nobody wants it any more, or the connection is lost and is not to be made again.
    pub(super) async fn run(mut self, mut client: Option<Client>) {
        let mut failures = Failures::default();
        let last = loop {
            let connected = match client.take() {
                Some(client) => Ok(client),
                None => match self.connect().await {
                    Some(result) => result,
                    None => break None,
                },
            };
            let (error, was_of_use) = match connected {
                Ok(client) => {
                    self.status.send_replace(Status::Connected);
                    match Conversation::new(self.config.clone(), client).hold(&mut self).await {
                        End::Wanted => break None,
                        End::Lost { error, was_of_use } => (error, was_of_use),
                    }
                }
                Err(error) => (error, false),
            };
            let Some(backoff) = self.config.reconnect else { break Some(error) };
            self.status.send_replace(Status::Connecting(Some(error)));
            if !self.rest(failures.pause(&backoff, was_of_use, random_share())).await {
                break None;
            }
        };
        // Whoever waits hears of the end through this, so it comes first.
        self.status.send_replace(Status::Over(last));
        self.orders.close();
    }

    /// Takes no more requests, and fails those that were not sent yet.
    fn refuse_orders(&mut self) {
        self.orders.close();
        while let Ok(order) = self.orders.try_recv() {
            // Whoever waits for its answer hears that there will be none.
            drop(order);
        }
    }

    /// Tries to connect; `None` where nobody wants it any more.
    async fn connect(&mut self) -> Option<Result<Client>> {
        let connecting = Client::connect_to(self.endpoint.clone(), self.config.of_connection());
        tokio::select! {
            client = connecting => Some(client),
            () = until_closing(&mut self.closing) => None,
        }
    }

    /// Waits before the next try; tells whether there is to be one.
    async fn rest(&mut self, pause: Duration) -> bool {
        tokio::select! {
            () = sleep(pause) => true,
            () = until_closing(&mut self.closing) => false,
        }
    }
}

/// A number from 0 to 1 that looks random.
fn random_share() -> f64 {
    RandomState::new().hash_one(()) as f64 / u64::MAX as f64
}

/// Waits until the client is to end: it was asked for, or nobody holds it any more.
async fn until_closing(closing: &mut watch::Receiver<bool>) {
    let _ = closing.wait_for(|closing| *closing).await;
}

type Writing = Pin<Box<dyn Future<Output = Result<()>> + Send>>;

/// One connection, from when it is made until it is lost.
struct Conversation {
    config: RequestConfiguration,
    reader: ClientReader,
    writer: ClientWriter,
    slots: Slots,
    /// What is being sent, and which request it is.
    writing: Option<(Writing, Option<u64>)>,
    /// When something was sent or received last.
    active: Instant,
    is_closing: bool,
    has_answered: bool,
}

/// What happens next in a conversation.
enum Step {
    Received(Result<Option<Bytes>>),
    Sent(Result<()>),
    Overdue,
    Order(Option<Order>),
    HeartbeatDue,
    Closing,
}

impl Conversation {
    fn new(config: RequestConfiguration, client: Client) -> Self {
        let (reader, writer) = client.into_split();
        let slots = Slots::new(config.matching.clone());
        let active = Instant::now();
        Self {
            config,
            reader,
            writer,
            slots,
            writing: None,
            active,
            is_closing: false,
            has_answered: false,
        }
    }

    /// Converses until the connection is lost, or is not wanted any more.
    async fn hold(mut self, engine: &mut Engine) -> End {
        loop {
            if self.is_closing && self.slots.is_empty() && self.writing.is_none() {
                return End::Wanted;
            }
            // A server that sends without end does not keep this thread from others.
            consume_budget().await;
            let step = self.next(engine).await;
            if matches!(step, Step::Closing | Step::Order(None)) {
                self.is_closing = true;
                engine.refuse_orders();
            } else if let Err(error) = self.take(step).await {
                let lost = "the connection was lost before the reply came";
                self.slots.fail(&Error::caused(ErrorKind::Closed, lost, error.clone()));
                return End::Lost { error, was_of_use: self.has_answered };
            }
        }
    }

    async fn next(&mut self, engine: &mut Engine) -> Step {
        let may_send = self.writing.is_none() && self.slots.has_room() && !self.is_closing;
        let overdue = self.slots.deadline();
        let heartbeat = self.heartbeat_due();
        let Self { reader, writing, is_closing, .. } = self;
        tokio::select! {
            frame = reader.read_bytes() => Step::Received(frame),
            result = sent(writing), if writing.is_some() => Step::Sent(result),
            () = at(overdue), if overdue.is_some() => Step::Overdue,
            order = engine.orders.recv(), if may_send => Step::Order(order),
            () = at(heartbeat), if heartbeat.is_some() => Step::HeartbeatDue,
            () = until_closing(&mut engine.closing), if !*is_closing => Step::Closing,
        }
    }

    /// Does what a step asks for; an error is the end of the connection.
    async fn take(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Received(Ok(Some(frame))) => self.receive(frame).await?,
            Step::Received(Ok(None)) => {
                return Err(Error::of(ErrorKind::Closed, "the server ended the connection"));
            }
            Step::Received(Err(error)) => return Err(error),
            Step::Sent(result) => {
                result?;
                self.note_sent();
            }
            Step::Overdue => return self.expire(),
            Step::Order(Some(order)) => self.send(order),
            Step::HeartbeatDue => self.send_heartbeat(),
            Step::Order(None) | Step::Closing => {}
        }
        Ok(())
    }

    async fn receive(&mut self, frame: Bytes) -> Result<()> {
        self.active = Instant::now();
        // What answers a request may be read before it is noted that all of that has left.
        if let Some((writing, _)) = &mut self.writing {
            let polled = poll_fn(|cx| Poll::Ready(writing.as_mut().poll(cx))).await;
            if let Poll::Ready(result) = polled {
                result?;
                self.note_sent();
            }
        }
        // The functions that find keys, and the hook, are the user's.
        let meeting = catch_unwind(AssertUnwindSafe(|| self.meet(frame)));
        meeting.map_err(|_| Error::new("a function that was given to the client panicked"))
    }

    fn meet(&mut self, frame: Bytes) {
        match self.slots.meet(frame) {
            Met::Reply => self.has_answered = true,
            Met::Unmatched(frame) => {
                if let Some(hook) = &self.config.on_unmatched {
                    hook(frame);
                }
            }
        }
    }

    fn note_sent(&mut self) {
        self.active = Instant::now();
        if let Some((_, Some(number))) = self.writing.take() {
            self.slots.note_sent(number);
        }
    }

    fn expire(&mut self) -> Result<()> {
        match self.slots.expire(Instant::now(), &unanswered(self.config.timeout)) {
            Verdict::GoesOn => Ok(()),
            Verdict::GiveUp => {
                // What was not sent yet of a request that nobody waits for is not to be served any more.
                self.writer.abort();
                let message =
                    "an earlier request was not answered in time, so the connection was given up";
                Err(Error::of(ErrorKind::Timeout, message))
            }
        }
    }

    fn send(&mut self, order: Order) {
        let Order { frame, key, deadline, answer } = order;
        // One that nobody waits for any more is not sent.
        if answer.is_closed() || deadline <= Instant::now() {
            return;
        }
        if let Some(why) = self.slots.why_not(key.as_ref()) {
            let _ = answer.send(Err(Error::of(ErrorKind::State, why)));
            return;
        }
        let number = self.slots.insert(key, deadline, Some(answer));
        self.write(frame, Some(number));
    }

    fn write(&mut self, frame: Bytes, number: Option<u64>) {
        let writer = self.writer.clone();
        self.writing = Some((Box::pin(async move { writer.write_bytes(frame).await }), number));
    }

    /// When the next heartbeat is due. One that is answered waits for its turn, as a request does.
    fn heartbeat_due(&self) -> Option<Instant> {
        let heartbeat = self.config.heartbeat.as_ref()?;
        let has_turn = !heartbeat.expects_reply || self.slots.has_room();
        if self.writing.is_some() || self.is_closing || !has_turn {
            return None;
        }
        crate::timer::later(self.active, Some(heartbeat.every))
    }

    fn send_heartbeat(&mut self) {
        let Some(heartbeat) = self.config.heartbeat.clone() else { return };
        self.active = Instant::now();
        let mut number = None;
        if heartbeat.expects_reply {
            // It was found to have a key, where one is needed, when the client was made.
            let key = self.config.matching.key_of_request(&heartbeat.frame).unwrap_or_default();
            if self.slots.why_not(key.as_ref()).is_some() {
                return;
            }
            let deadline = self.config.deadline();
            number = Some(self.slots.insert(key, deadline, None));
        }
        self.write(heartbeat.frame, number);
    }
}

async fn sent(writing: &mut Option<(Writing, Option<u64>)>) -> Result<()> {
    match writing {
        Some((writing, _)) => writing.await,
        None => Ok(()),
    }
}

async fn at(instant: Option<Instant>) {
    if let Some(instant) = instant {
        sleep_until(instant).await;
    }
}
