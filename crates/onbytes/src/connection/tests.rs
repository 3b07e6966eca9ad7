//! The life of a connection over a simulated socket and a paused clock: every schedule of peer,
//! service and other tasks that the generator thinks of, without a network; in the clear, in frames and
//! over TLS.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;
use tokio::runtime::Builder;

use super::*;
use crate::close::CloseReason;
use crate::framing::Compiled;
use crate::link::Link;
use crate::run::{Entry, Run};
use crate::simulation::{self, End, Peer};
use crate::{Framing, ListenerConfiguration, MinArrival, StopReport, Timeouts};

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
    /// The peer's FIN, over TLS without a word before.
    Cut,
    Reset,
    Close,
    Abort,
    Drain,
    Force,
    /// Its listener has no memory left for it.
    CutOff,
    /// Memory is short: its queue is copied, and has less room from then on.
    Shrink,
    /// Time limits are changed: they are short from then on.
    Hurry,
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
        1 => Just(Step::Cut),
        1 => Just(Step::Reset),
        1 => Just(Step::Close),
        1 => Just(Step::Abort),
        1 => Just(Step::Drain),
        1 => Just(Step::Force),
        1 => Just(Step::CutOff),
        1 => Just(Step::Shrink),
        1 => Just(Step::Hurry),
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
    is_framed: bool,
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
        if self.is_framed {
            assert_eq!(messages(&data), [PEER], "one call is one frame");
        }
        Ok(Some(message(u32::MAX, data.len())))
    }

    async fn on_close(&mut self, close: &Close) {
        self.observed.note(|journal| journal.closes.push(close.clone()));
    }
}

/// What it saw, whether it is slow, and whether it gets frames.
struct Answers(Observed, bool, bool);

impl Service for Answers {
    type Connection = Answering;

    async fn on_connect(&self, _: &Caller) -> Result<Answering> {
        Ok(Answering { observed: self.0.clone(), slow: self.1, is_framed: self.2 })
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

/// The peer, as it speaks: in the clear, or through a TLS session of its own.
trait Speaker {
    /// What comes before the first word, cut into pieces of so many bytes.
    async fn begin(&mut self, peer: &Peer, cut: usize);
    fn say(&mut self, peer: &Peer, data: &[u8]);
    fn finish(&mut self, peer: &Peer);
    /// What it can make of all that it has received.
    fn understood(&mut self, peer: &Peer) -> Vec<u8>;
}

struct InTheClear;

/// The name of all messages of a peer that speaks in frames.
const PEER: u32 = 77;

/// Speaks in frames, of which the end of one leaves with the next.
#[derive(Default)]
struct InFrames {
    held: Vec<u8>,
}

impl Speaker for InFrames {
    async fn begin(&mut self, _: &Peer, _: usize) {}

    fn say(&mut self, peer: &Peer, data: &[u8]) {
        self.held.extend_from_slice(&message(PEER, data.len()));
        let rest = self.held.split_off(self.held.len() - data.len() % 5);
        peer.send(&std::mem::replace(&mut self.held, rest));
    }

    fn finish(&mut self, peer: &Peer) {
        // Sometimes the last frame is left half.
        if self.held.len() != 3 {
            peer.send(&std::mem::take(&mut self.held));
        }
        peer.finish();
    }

    fn understood(&mut self, peer: &Peer) -> Vec<u8> {
        peer.received()
    }
}

impl Speaker for InTheClear {
    async fn begin(&mut self, _: &Peer, _: usize) {}

    fn say(&mut self, peer: &Peer, data: &[u8]) {
        peer.send(data);
    }

    fn finish(&mut self, peer: &Peer) {
        peer.finish();
    }

    fn understood(&mut self, peer: &Peer) -> Vec<u8> {
        peer.received()
    }
}

async fn take_step(
    step: Step,
    name: u32,
    peer: &Peer,
    speaker: &mut impl Speaker,
    link: &Arc<Link>,
    run: &Run,
    seen: &Observed,
) {
    let caller = Caller::new(Arc::clone(link));
    match step {
        Step::Send(size) => speaker.say(peer, &vec![1; size]),
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
        Step::Finish => speaker.finish(peer),
        Step::Cut => peer.finish(),
        Step::Reset => peer.reset(),
        Step::Close => caller.close(),
        Step::Abort => caller.abort(),
        Step::Drain => run.drain(),
        Step::Force => run.force(CloseReason::StopForced),
        Step::CutOff => link.cut_off(Error::new("no memory")),
        Step::Shrink => {
            link.compact();
            run.ledger.set_short(true);
            run.ledger.set_room(1024);
        }
        Step::Hurry => {
            let timeouts = Timeouts::new()
                .idle(Duration::from_secs(3))
                .min_arrival(MinArrival::new(10, Duration::from_secs(2)))
                .max_lifetime(Duration::from_secs(20));
            let _ = run.change_settings(run.settings.get().limits.clone(), timeouts);
            run.apply_settings();
        }
        Step::Pass(millis) => tokio::time::sleep(Duration::from_millis(millis)).await,
    }
}

fn configuration() -> ListenerConfiguration {
    let timeouts = Timeouts::new()
        .write(Duration::from_secs(5))
        .idle(Duration::from_secs(60))
        .max_lifetime(Duration::from_secs(600));
    ListenerConfiguration::new().timeouts(timeouts)
}

fn run_in_the_clear() -> Arc<Run> {
    Run::new(configuration(), Arc::default(), Arc::default()).shared()
}

/// What came of a schedule: what is known of it, the peer, and what the peer understood.
struct Outcome {
    journal: Journal,
    peer: Peer,
    understood: Vec<u8>,
    report: StopReport,
}

/// A schedule: what happens, how much the peer's kernel takes at first, in which pieces the handshake
/// comes, and whether the service takes its time.
#[derive(Debug, Clone)]
struct Schedule {
    steps: Vec<Step>,
    room: usize,
    cut: usize,
    slow: bool,
}

fn schedule() -> impl Strategy<Value = Schedule> {
    let steps = proptest::collection::vec(step(), 1..40);
    let room = prop_oneof![Just(0usize), 1usize..300_000, Just(usize::MAX / 2)];
    let cut = prop_oneof![Just(100_000usize), 1usize..600];
    (steps, room, cut, any::<bool>()).prop_map(|(steps, room, cut, slow)| Schedule {
        steps,
        room,
        cut,
        slow,
    })
}

/// A connection that was just accepted, and its peer.
fn accepted(run: &Arc<Run>) -> (Membership, Peer) {
    let (socket, peer) = simulation::connection(usize::MAX / 2);
    let address = "127.0.0.1:1".parse().unwrap();
    let link = Link::new(1, address, address, socket, Arc::clone(&run.ledger));
    if let Some(framing) = &run.framing {
        link.frame(framing);
    }
    let place = run.places.try_take().unwrap();
    link.set_weight(run.weight_of_handshake());
    let entry = Entry { place, source: None, current: run.settings.get() };
    (Membership::new(Arc::clone(run), link, entry), peer)
}

async fn play(run: Arc<Run>, mut speaker: impl Speaker, schedule: Schedule) -> Outcome {
    let Schedule { steps, room, cut, slow } = schedule;
    let (membership, peer) = accepted(&run);
    let link = Arc::clone(&membership.link);
    let seen = Observed { journal: Arc::default() };
    let answers = Answers(seen.clone(), slow, run.framing.is_some());
    let life = tokio::spawn(live(Arc::new(answers), Life::new(membership)));
    speaker.begin(&peer, cut).await;
    peer.narrow_to(room);
    for (name, step) in steps.into_iter().enumerate() {
        take_step(step, name as u32, &peer, &mut speaker, &link, &run, &seen).await;
        tokio::task::yield_now().await;
    }
    // Whatever happened, the connection ends by itself: the clock runs on by itself, too.
    life.await.unwrap();
    assert_eq!(run.alive(), 0);
    assert_eq!(run.ledger.sums(), (0, 0), "nothing is held any more");
    let (clean, forced) = run.ended();
    // The writers hear of the end.
    while Arc::strong_count(&seen.journal) > 1 {
        tokio::task::yield_now().await;
    }
    let journal = std::mem::take(&mut *seen.journal.lock().unwrap());
    let understood = speaker.understood(&peer);
    Outcome { journal, peer, understood, report: StopReport { clean, forced, abandoned: 0 } }
}

fn check(outcome: &Outcome, is_secured: bool) -> Result<(), TestCaseError> {
    let Outcome { journal, peer, understood, report } = outcome;
    // `on_close` runs exactly once, and last.
    prop_assert_eq!(journal.closes.len(), 1);
    prop_assert_eq!(journal.callbacks_after_close, 0);
    let close = &journal.closes[0];
    prop_assert_eq!(report.clean + report.forced, 1);

    // Nothing is torn, and nothing confirmed is missing.
    let arrived = messages(understood);
    for name in &journal.confirmed {
        prop_assert!(arrived.contains(name), "confirmed message {} is missing", name);
    }
    if is_secured {
        // Records are done together, so one that has left may count with a later one that has not.
        prop_assert!(understood.len() as u64 >= close.stats.bytes_sent);
    } else {
        prop_assert_eq!(understood.len() as u64, close.stats.bytes_sent);
    }

    // The socket is left as the reason says, unless the end was cut short.
    let whole = arrived.len() as u64 == close.stats.chunks_sent;
    match peer.end() {
        Some(End::Reset) => {
            // Over TLS there is a goodbye to be sent after the last byte, which may be cut short too.
            prop_assert!(!close.reason.is_orderly() || close.stats.bytes_unsent > 0 || whole);
        }
        Some(End::Fin | End::Dropped) => {
            prop_assert!(close.reason.is_orderly(), "{} must reset", close.reason);
            prop_assert!(whole, "an orderly end sends everything");
            prop_assert_eq!(close.stats.bytes_unsent, 0);
        }
        None => prop_assert!(false, "the descriptor is still open"),
    }
    Ok(())
}

/// So many cases, or what `PROPTEST_CASES` says.
fn cases(usual: u32) -> ProptestConfig {
    let config = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { config.cases } else { usual };
    ProptestConfig { cases, ..config }
}

fn paused() -> tokio::runtime::Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

proptest! {
    #![proptest_config(cases(400))]

    #[test]
    fn every_schedule_keeps_the_promises(schedule in schedule()) {
        let outcome = paused().block_on(play(run_in_the_clear(), InTheClear, schedule));
        check(&outcome, false)?;
    }

    #[test]
    fn every_schedule_keeps_the_promises_in_frames(schedule in schedule()) {
        // The frames of this form are the messages themselves.
        let framing = "len:u32be,offset=4,strip=0,timeout=20".parse::<Framing>().unwrap();
        let framing = Compiled::new(&framing).unwrap();
        let run = Run::new(configuration(), Arc::default(), Arc::default());
        let run = run.with_framing(Some(framing));
        let outcome = paused().block_on(play(run.shared(), InFrames::default(), schedule));
        check(&outcome, false)?;
    }
}

#[cfg(feature = "_tls")]
mod secured {
    use std::io::{Read, Write};
    use std::sync::LazyLock;

    use rustls::pki_types::CertificateDer;
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::*;
    use crate::tls::Acceptor;
    use crate::{CertKey, ListenerSecureSocket};

    /// The same files for all cases.
    struct Site {
        secure: ListenerSecureSocket,
        client: Arc<ClientConfig>,
        _folder: tempfile::TempDir,
    }

    static SITE: LazyLock<Site> = LazyLock::new(|| {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
        std::fs::write(&cert, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let mut trusted = RootCertStore::empty();
        trusted.add(CertificateDer::from(made.cert.der().to_vec())).unwrap();
        let client = ClientConfig::builder_with_provider(crate::tls::provider())
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(trusted)
            .with_no_client_auth();
        let secure = ListenerSecureSocket::new(CertKey::new(cert, key));
        Site { secure, client: Arc::new(client), _folder: folder }
    });

    fn run() -> Arc<Run> {
        let (acceptor, _) = Acceptor::load(&SITE.secure).unwrap();
        let run = Run::new(configuration(), Arc::default(), Arc::default());
        Arc::new(run.with_acceptor(Some(acceptor)))
    }

    /// A peer's TLS session.
    struct Secured {
        session: ClientConnection,
        /// How much of what was received it has had.
        had: usize,
        said: Vec<u8>,
    }

    impl Secured {
        fn new() -> Self {
            let name = "localhost".try_into().unwrap();
            let mut session = ClientConnection::new(Arc::clone(&SITE.client), name).unwrap();
            session.set_buffer_limit(None);
            Self { session, had: 0, said: Vec::new() }
        }

        fn send(&mut self, peer: &Peer) {
            let mut wire = Vec::new();
            while self.session.wants_write() {
                self.session.write_tls(&mut wire).unwrap();
            }
            peer.send(&wire);
        }

        fn receive(&mut self, peer: &Peer) {
            let all = peer.received();
            let mut new = &all[self.had..];
            while !new.is_empty() {
                self.session.read_tls(&mut new).unwrap();
                self.session.process_new_packets().unwrap();
                let mut piece = [0; 20_000];
                while let Ok(count @ 1..) = self.session.reader().read(&mut piece) {
                    self.said.extend_from_slice(&piece[..count]);
                }
            }
            self.had = all.len();
        }
    }

    impl Speaker for Secured {
        async fn begin(&mut self, peer: &Peer, cut: usize) {
            while self.session.is_handshaking() {
                let mut wire = Vec::new();
                while self.session.wants_write() {
                    self.session.write_tls(&mut wire).unwrap();
                }
                for piece in wire.chunks(cut) {
                    peer.send(piece);
                    tokio::task::yield_now().await;
                }
                self.receive(peer);
                tokio::task::yield_now().await;
            }
            self.send(peer);
            while peer.unread() > 0 {
                tokio::task::yield_now().await;
            }
        }

        fn say(&mut self, peer: &Peer, data: &[u8]) {
            self.session.writer().write_all(data).unwrap();
            self.send(peer);
        }

        fn finish(&mut self, peer: &Peer) {
            self.session.send_close_notify();
            self.send(peer);
            peer.finish();
        }

        fn understood(&mut self, peer: &Peer) -> Vec<u8> {
            self.receive(peer);
            std::mem::take(&mut self.said)
        }
    }

    proptest! {
        #![proptest_config(cases(200))]

        #[test]
        fn every_schedule_keeps_the_promises_over_tls(schedule in schedule()) {
            let outcome = paused().block_on(play(run(), Secured::new(), schedule));
            check(&outcome, true)?;
        }
    }

    /// How long, as the connection's clock goes, one lives whose peer says goodbye over TLS, sends `behind`,
    /// and leaves its side open.
    fn life_after_goodbye(behind: &[u8]) -> Duration {
        paused().block_on(async {
            let run = run();
            let (membership, peer) = accepted(&run);
            let answers = Answers(Observed { journal: Arc::default() }, false, false);
            let life = tokio::spawn(live(Arc::new(answers), Life::new(membership)));
            let mut speaker = Secured::new();
            speaker.begin(&peer, 100_000).await;
            let began = tokio::time::Instant::now();
            // Our goodbye has to wait until theirs is read and more has come.
            peer.narrow_to(0);
            speaker.session.send_close_notify();
            speaker.send(&peer);
            while peer.unread() > 0 {
                tokio::task::yield_now().await;
            }
            peer.send(behind);
            peer.take(100_000);
            life.await.unwrap();
            began.elapsed()
        })
    }

    #[test]
    fn a_peer_that_has_said_goodbye_is_not_waited_for_unless_it_says_more() {
        assert_eq!(life_after_goodbye(b""), Duration::ZERO);
        assert!(life_after_goodbye(b"more") >= crate::link::LINGER);
    }
}
