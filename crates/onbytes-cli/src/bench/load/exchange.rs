//! What goes to and fro on one connection, until there is nothing more to send or something is wrong.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use onbytes::{Bytes, Client, ClientReader, ClientWriter, Error, ErrorKind};

use super::super::content::{Checker, Expect, Place, Wrong};
use super::super::course::Course;
use super::super::pace::Pace;
use super::super::plan::Plan;
use super::super::tally::{Fault, Kind, Tally};

/// How long a server may take to end a connection that is not needed any more.
const FAREWELL: Duration = Duration::from_secs(1);

/// After so many turns of one connection the others get theirs.
const TURNS: u32 = 64;

/// Where a connection's messages come from.
#[derive(Clone, Copy)]
pub(super) enum Supply<'a> {
    /// Whenever there is room for one: a closed loop.
    Closed(&'a Course),
    /// When they are due: an open loop. With the connection's place among those of its thread.
    Paced(&'a Pace, usize),
    /// One, which was begun before.
    Once,
}

impl Supply<'_> {
    /// Waits until there may be another message.
    async fn wait(&self) {
        match self {
            Self::Paced(pace, slot) => pace.wait(*slot).await,
            Self::Closed(_) | Self::Once => pending().await,
        }
    }
}

/// The messages that are under way. What is not complete when this goes is lost, and counted.
pub(super) struct Flight {
    begun: VecDeque<Instant>,
    tally: Arc<Mutex<Tally>>,
    /// Whether it is known why messages are lost.
    pub(super) is_explained: bool,
    /// Whether any message was answered.
    pub(super) has_worked: bool,
}

impl Flight {
    pub(super) fn new(tally: &Arc<Mutex<Tally>>, depth: usize) -> Self {
        let begun = VecDeque::with_capacity(depth);
        Self { begun, tally: Arc::clone(tally), is_explained: false, has_worked: false }
    }

    pub(super) fn of_one(tally: &Arc<Mutex<Tally>>, begun: Instant) -> Self {
        Self {
            begun: [begun].into(),
            tally: Arc::clone(tally),
            is_explained: false,
            has_worked: false,
        }
    }

    pub(super) fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last `count` messages are on their way.
    fn sent(&mut self, count: usize, now: Instant) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        let first = self.begun.len() - count;
        self.begun.iter().skip(first).for_each(|begun| tally.sent(*begun, now));
    }

    /// The first `count` messages are complete.
    pub(super) fn complete(&mut self, count: u64, now: Instant) {
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        self.has_worked |= count > 0;
        for _ in 0..count {
            let Some(begun) = self.begun.pop_front() else { return };
            tally.answered(begun, now);
        }
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.begun.is_empty() {
            return;
        }
        let mut tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        self.begun.iter().for_each(|begun| tally.lost(*begun));
        if !self.is_explained {
            tally.failed(Fault::new(Kind::Silent, "the run was over before a reply had come"));
        }
    }
}

/// One connection's messages.
pub(super) struct Exchange<'a> {
    plan: &'a Plan,
    supply: Supply<'a>,
    /// The connection's number, among all.
    number: u64,
    place: Place,
    checker: Checker,
    sent: u64,
    done: u64,
    /// Since when a reply is waited for without anything coming.
    quiet_since: Instant,
}

impl<'a> Exchange<'a> {
    pub(super) fn new(plan: &'a Plan, supply: Supply<'a>, number: u64) -> Result<Self, Fault> {
        let checker = Checker::new(&plan.content, plan.expect, number)
            .map_err(|error| Fault::new(Kind::Other, error.to_string()))?;
        let place = plan.content.start(number);
        let quiet_since = Instant::now();
        Ok(Self { plan, supply, number, place, checker, sent: 0, done: 0, quiet_since })
    }

    /// Sends and receives until nothing more is to be sent and everything is answered, then ends the
    /// connection.
    ///
    /// A message is sent while replies are read: a large one comes back before all of it is gone.
    pub(super) async fn run(mut self, client: Client, flight: &mut Flight) -> Result<(), Fault> {
        let (mut reader, writer) = client.into_split();
        let mut write = pin!(None);
        let mut alarm = pin!(tokio::time::sleep(self.plan.timeout));
        let mut turns = 0;
        loop {
            if write.is_none() {
                match self.next(flight) {
                    Some(messages) => write.set(Some(writer.write_bytes(messages))),
                    None if self.is_over() => break,
                    None => {}
                }
            }
            let may_send = write.is_none() && self.room() > 0;
            tokio::select! {
                // Reading goes first: writing alone could go on for ever.
                biased;
                read = reader.read_bytes() => self.received(read, flight)?,
                written = finished(write.as_mut()) => {
                    write.set(None);
                    self.written(written, flight)?;
                }
                () = self.supply.wait(), if may_send => {}
                () = alarm.as_mut() => {
                    let next = self.check_patience(write.is_some())?;
                    alarm.as_mut().reset(next.into());
                }
            }
            turns += 1;
            if turns % TURNS == 0 {
                tokio::task::yield_now().await;
            }
        }
        self.farewell(reader, &writer).await
    }

    /// The next messages to send, if there are any.
    fn next(&mut self, flight: &mut Flight) -> Option<Bytes> {
        let room = self.room();
        if room == 0 {
            return None;
        }
        let now = Instant::now();
        let count = match self.supply {
            Supply::Closed(course) => {
                let count = course.claim(room, now);
                flight.begun.extend(std::iter::repeat_n(now, count));
                count
            }
            Supply::Paced(pace, slot) => pace.take(slot, room, now, &mut flight.begun),
            Supply::Once => usize::from(self.sent == 0),
        };
        if count == 0 {
            return None;
        }
        if self.sent == self.done {
            self.quiet_since = now;
        }
        self.sent += count as u64;
        let messages = self.plan.content.next(&mut self.place, count);
        if !matches!(self.supply, Supply::Once) {
            flight.sent(count, now);
        }
        flight.tally().sent_bytes(messages.len(), now);
        Some(messages)
    }

    /// How many messages more may be under way, as far as they fit in one write.
    fn room(&self) -> usize {
        // No more than the depth.
        let under_way = (self.sent - self.done) as usize;
        (self.plan.depth - under_way).min(self.plan.content.most())
    }

    fn is_over(&self) -> bool {
        self.sent == self.done
            && match self.supply {
                Supply::Closed(course) => course.is_over(Instant::now()),
                Supply::Paced(pace, _) => pace.is_over(),
                Supply::Once => true,
            }
    }

    fn written(&mut self, written: onbytes::Result<()>, flight: &mut Flight) -> Result<(), Fault> {
        written.map_err(|error| self.broken(&error))?;
        self.quiet_since = Instant::now();
        if self.plan.expect == Expect::Nothing {
            self.complete(self.sent - self.done, self.quiet_since, flight);
        }
        Ok(())
    }

    fn received(
        &mut self,
        read: onbytes::Result<Option<Bytes>>,
        flight: &mut Flight,
    ) -> Result<(), Fault> {
        let chunk = read.map_err(|error| self.broken(&error))?;
        let Some(chunk) = chunk else {
            return Err(self.fault(Kind::Ended, "the server ended it"));
        };
        let now = Instant::now();
        self.quiet_since = now;
        flight.tally().received_bytes(chunk.len(), now);
        let done = self.checker.take(&self.plan.content, chunk, self.sent);
        self.complete(done.map_err(|wrong| self.wrong(&wrong))?, now, flight);
        Ok(())
    }

    fn complete(&mut self, count: u64, now: Instant, flight: &mut Flight) {
        self.done += count;
        // What was begun before the connection was is complete after its end.
        if !matches!(self.supply, Supply::Once) {
            flight.complete(count, now);
        }
    }

    /// When to look again whether the server has been silent for too long, unless it has.
    fn check_patience(&self, is_writing: bool) -> Result<Instant, Fault> {
        let now = Instant::now();
        // How long writing may take has a time limit of its own.
        if self.sent == self.done || is_writing || self.plan.expect == Expect::Nothing {
            return Ok(now + self.plan.timeout);
        }
        let end = self.quiet_since + self.plan.timeout;
        if now < end {
            return Ok(end);
        }
        let line = format!("no reply came within {} s", self.plan.timeout.as_secs_f64());
        Err(self.fault(Kind::Silent, line))
    }

    /// Ends the connection in order. Where each message has its own, the server has to end it, too.
    async fn farewell(&self, mut reader: ClientReader, writer: &ClientWriter) -> Result<(), Fault> {
        let is_part = matches!(self.supply, Supply::Once);
        let within = if is_part { self.plan.timeout } else { FAREWELL };
        let ended = tokio::time::timeout(within, self.end(&mut reader, writer)).await;
        match ended {
            _ if !is_part => Ok(()),
            Ok(ended) => ended,
            Err(_) => {
                let line = format!("the server did not end it within {} s", within.as_secs_f64());
                Err(self.fault(Kind::Silent, line))
            }
        }
    }

    async fn end(&self, reader: &mut ClientReader, writer: &ClientWriter) -> Result<(), Fault> {
        writer.finish().await.map_err(|error| self.broken(&error))?;
        // A connection that fails now, behind the last reply, has done its work.
        while let Ok(Some(_)) = reader.read_bytes().await {
            if self.plan.expect != Expect::Nothing {
                return Err(self.wrong(&Wrong::Surplus { offset: self.sent }));
            }
        }
        Ok(())
    }

    fn wrong(&self, wrong: &Wrong) -> Fault {
        self.fault(Kind::Wrong, wrong.to_string())
    }

    fn broken(&self, error: &Error) -> Fault {
        let kind = match error.kind() {
            ErrorKind::Reset => Kind::Reset,
            ErrorKind::Timeout => Kind::Silent,
            ErrorKind::Closed | ErrorKind::Truncated => Kind::Ended,
            _ => Kind::Other,
        };
        self.fault(kind, super::told(error))
    }

    fn fault(&self, kind: Kind, line: impl std::fmt::Display) -> Fault {
        Fault::new(kind, format!("connection {}: {line}", self.number))
    }
}

/// Waits for a write that is under way; for ever where none is.
async fn finished<F: Future>(write: Pin<&mut Option<F>>) -> F::Output {
    match write.as_pin_mut() {
        Some(write) => write.await,
        None => pending().await,
    }
}
