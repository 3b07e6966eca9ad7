//! The life of a connection over a simulated socket and a paused clock: every schedule of peer,
//! service and other tasks that the generator thinks of, without a network.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio::runtime::Builder;

use super::*;
use crate::close::CloseReason;
use crate::link::Link;
use crate::run::Run;
use crate::simulation::{self, End, Peer};
use crate::{ListenerConfiguration, StopReport, Timeouts};

/// Something that happens to a connection from outside.
#[derive(Debug, Clone)]
enum Step {
    /// The peer sends so many bytes.
    Send(usize),
    /// The peer's kernel makes room for so many bytes.
    Take(usize),
    /// Another task writes a message of so many bytes and waits for it.
    Write(usize),
    /// Another task writes a message, and drops the future after so many polls.
    WriteAndDrop(usize, usize),
    TryWrite(usize),
    Finish,
    Reset,
    Close,
    Abort,
    Drain,
    Force,
    /// So many milliseconds pass.
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let size = prop_oneof![1usize..200, 1usize..100_000];
    prop_oneof![
        4 => size.clone().prop_map(Step::Send),
        6 => size.clone().prop_map(Step::Take),
        4 => size.clone().prop_map(Step::Write),
        4 => (size.clone(), 1usize..4).prop_map(|(size, polls)| Step::WriteAndDrop(size, polls)),
        2 => size.prop_map(Step::TryWrite),
        1 => Just(Step::Finish),
        1 => Just(Step::Reset),
        1 => Just(Step::Close),
        1 => Just(Step::Abort),
        1 => Just(Step::Drain),
        1 => Just(Step::Force),
        3 => (1u64..2_000).prop_map(Step::Pass),
    ]
}

/// What is known of one run of a schedule.
#[derive(Default)]
struct Journal {
    /// Messages whose write said `Ok`, in that order.
    confirmed: Vec<u32>,
    closes: Vec<Close>,
    callbacks_after_close: usize,
}

#[derive(Clone)]
struct Observed {
    journal: Arc<Mutex<Journal>>,
}

/// Answers each chunk with a framed message of the same length.
struct Answering {
    observed: Observed,
    slow: bool,
}

impl Observed {
    fn note(&self, note: impl FnOnce(&mut Journal)) {
        note(&mut self.journal.lock().unwrap());
    }
}

impl ConnectionService for Answering {
    async fn on_bytes(&mut self, data: Bytes, _: &Caller) -> Result<Option<Bytes>> {
        if self.slow {
            tokio::time::sleep(Duration::from_millis(data.len() as u64 % 7)).await;
        }
        self.observed.note(|journal| journal.callbacks_after_close += journal.closes.len());
        Ok(Some(message(u32::MAX, data.len())))
    }

    async fn on_close(&mut self, close: &Close) {
        self.observed.note(|journal| journal.closes.push(close.clone()));
    }
}

struct Answers(Observed, bool);

impl Service for Answers {
    type Connection = Answering;

    async fn on_connect(&self, _: &Caller) -> Result<Answering> {
        Ok(Answering { observed: self.0.clone(), slow: self.1 })
    }
}

/// A message that can be told from all others: its name, its length, and a byte repeated.
fn message(name: u32, len: usize) -> Bytes {
    let mut data = Vec::with_capacity(8 + len);
    data.extend_from_slice(&name.to_be_bytes());
    data.extend_from_slice(&(len as u32).to_be_bytes());
    data.resize(8 + len, name as u8);
    data.into()
}

/// Reads messages back; the last may be cut. Panics where anything else was sent.
fn messages(mut data: &[u8]) -> Vec<u32> {
    let mut names = Vec::new();
    while data.len() >= 8 {
        let name = u32::from_be_bytes(data[..4].try_into().unwrap());
        let len = u32::from_be_bytes(data[4..8].try_into().unwrap()) as usize;
        let body = &data[8..data.len().min(8 + len)];
        assert!(body.iter().all(|byte| *byte == name as u8), "message {name} is torn");
        data = &data[8 + body.len()..];
        if body.len() == len {
            names.push(name);
        }
    }
    names
}

async fn take_step(
    step: Step,
    name: u32,
    peer: &Peer,
    link: &Arc<Link>,
    run: &Run,
    seen: &Observed,
) {
    let caller = Caller::new(Arc::clone(link));
    match step {
        Step::Send(size) => peer.send(&vec![1; size]),
        Step::Take(size) => peer.take(size),
        Step::Write(size) => {
            let seen = seen.clone();
            tokio::spawn(async move {
                if caller.write_bytes(message(name, size)).await.is_ok() {
                    seen.note(|journal| journal.confirmed.push(name));
                }
            });
        }
        Step::WriteAndDrop(size, polls) => {
            let mut write = Box::pin(caller.write_bytes(message(name, size)));
            for _ in 0..polls {
                let poll = poll_fn(|cx| Poll::Ready(write.as_mut().poll(cx))).await;
                if let Poll::Ready(result) = poll {
                    if result.is_ok() {
                        seen.note(|journal| journal.confirmed.push(name));
                    }
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        Step::TryWrite(size) => {
            let _ = caller.try_write_bytes(message(name, size));
        }
        Step::Finish => peer.finish(),
        Step::Reset => peer.reset(),
        Step::Close => caller.close(),
        Step::Abort => caller.abort(),
        Step::Drain => run.drain(),
        Step::Force => run.force(CloseReason::StopForced),
        Step::Pass(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
    }
}

async fn play(steps: Vec<Step>, room: usize, slow: bool) -> (Journal, Peer, StopReport) {
    let timeouts = Timeouts::new()
        .write(Duration::from_secs(5))
        .idle(Duration::from_secs(60))
        .max_lifetime(Duration::from_secs(600));
    let config = ListenerConfiguration::new().timeouts(timeouts);
    let run = Arc::new(Run::new(config, Arc::default(), Arc::default()));
    let (socket, peer) = simulation::connection(room);
    let address = "127.0.0.1:1".parse().unwrap();
    let link = Link::new(1, address, address, socket);
    let place = run.places.try_take().unwrap();
    let membership = Membership::new(Arc::clone(&run), link, place);
    let link = Arc::clone(&membership.link);
    let seen = Observed { journal: Arc::default() };
    let life = tokio::spawn(live(Arc::new(Answers(seen.clone(), slow)), Life::new(membership)));
    for (name, step) in steps.into_iter().enumerate() {
        take_step(step, name as u32, &peer, &link, &run, &seen).await;
        tokio::task::yield_now().await;
    }
    // Whatever happened, the connection ends by itself: the clock runs on by itself, too.
    life.await.unwrap();
    assert_eq!(run.alive(), 0);
    let (clean, forced) = run.ended();
    // The writers hear of the end.
    while Arc::strong_count(&seen.journal) > 1 {
        tokio::task::yield_now().await;
    }
    let journal = std::mem::take(&mut *seen.journal.lock().unwrap());
    (journal, peer, StopReport { clean, forced, abandoned: 0 })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn every_schedule_keeps_the_promises(
        steps in proptest::collection::vec(step(), 1..40),
        room in prop_oneof![Just(0usize), 1usize..300_000, Just(usize::MAX / 2)],
        slow: bool,
    ) {
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (journal, peer, report) = runtime.block_on(play(steps, room, slow));

        // `on_close` runs exactly once, and last.
        prop_assert_eq!(journal.closes.len(), 1);
        prop_assert_eq!(journal.callbacks_after_close, 0);
        let close = &journal.closes[0];
        prop_assert_eq!(report.clean + report.forced, 1);

        // Nothing is torn, and nothing confirmed is missing.
        let received = peer.received();
        let arrived = messages(&received);
        for name in &journal.confirmed {
            prop_assert!(arrived.contains(name), "confirmed message {} is missing", name);
        }
        prop_assert_eq!(received.len() as u64, close.stats.bytes_sent);

        // The socket is left as the reason says, unless the end was cut short.
        let whole = messages(&received).len() as u64 == close.stats.chunks_sent;
        match peer.end() {
            Some(End::Reset) => prop_assert!(
                !close.reason.is_orderly() || close.stats.bytes_unsent > 0 || whole
            ),
            Some(End::Fin | End::Dropped) => {
                prop_assert!(close.reason.is_orderly(), "{} must reset", close.reason);
                prop_assert!(whole, "an orderly end sends everything");
                prop_assert_eq!(close.stats.bytes_unsent, 0);
            }
            None => prop_assert!(false, "the descriptor is still open"),
        }
    }
}
