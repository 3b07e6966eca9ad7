//! Out of descriptors: the listener neither dies nor spins, says so once, turns callers away where
//! it was told to, and serves everybody who has waited as soon as it can.
//!
//! The limit of open files belongs to a process, so each listener here runs in one of its own: this
//! test binary again, with the test's name. Its callers are in the test, where there is no limit.

mod support;

use std::process::Stdio;
use std::time::Duration;

use onbytes::{Bytes, Limits, Listener, ListenerConfiguration, WhenFull, Workers, service_fn};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use support::{Peer, within};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

const FILES: u64 = 64;
const CALLERS: usize = 200;
const CHILD: &str = "ONBYTES_STARVED_LISTENER";

/// A listener in a process with few descriptors, and what it prints.
struct Starved {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
    port: u16,
    events: Vec<String>,
}

impl Starved {
    async fn start(test: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(CHILD, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut starved = Self { process, lines, port: 0, events: Vec::new() };
        starved.port = starved.told("port ").await.parse().unwrap();
        starved
    }

    /// What follows `start` in the next line that has it; the events before it are kept.
    async fn told(&mut self, start: &str) -> String {
        loop {
            let line = within(start, self.lines.next_line()).await.unwrap();
            let line = line.expect("the listener's process goes on");
            if let Some((_, event)) = line.split_once("event ") {
                self.events.push(event.to_owned());
            }
            if let Some((_, rest)) = line.split_once(start) {
                return rest.to_owned();
            }
        }
    }

    fn count(&self, event: &str) -> usize {
        self.events.iter().filter(|seen| *seen == event).count()
    }

    /// The processor time used so far.
    fn cpu(&self) -> Duration {
        let path = format!("/proc/{}/stat", self.process.id().unwrap());
        let stat = std::fs::read_to_string(path).unwrap();
        let fields: Vec<_> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
        Duration::from_millis(ticks * 10) // Linux tells 100 ticks a second.
    }

    async fn connect(&self) -> Peer {
        within("connecting", Peer::connect(([127, 0, 0, 1], self.port).into())).await
    }

    /// Ends the process in order and returns its counts: accepted and refused.
    async fn finish(mut self) -> (usize, usize, Vec<String>) {
        self.process.stdin.take().unwrap().write_all(b"stop\n").await.unwrap();
        let counts = self.told("counts ").await;
        let (accepted, refused) = counts.split_once(' ').unwrap();
        let (accepted, refused) = (accepted.parse().unwrap(), refused.parse().unwrap());
        assert!(within("the exit", self.process.wait()).await.unwrap().success());
        (accepted, refused, self.events)
    }
}

/// The child's side: serves until it is told to stop, and prints its events.
async fn listen(limits: Limits, workers: Workers) {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(FILES), maximum }).unwrap();
    let config = ListenerConfiguration::new().limits(limits).workers(workers);
    let listener = Listener::new(("127.0.0.1", 0), config).unwrap();
    listener.on_event(|event| match event.name() {
        "accepted" | "closed" | "refused" => {}
        name => println!("event {name}"),
    });
    listener.attach(service_fn(|_| async { Ok(|data: Bytes| async { Ok(Some(data)) }) }));
    listener.start().await.unwrap();
    println!("port {}", listener.local_addr().unwrap().port());
    // On a thread of its own: standard input is not the runtime's.
    let (told, stop) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        let _ = told.send(());
    });
    let _ = stop.await;
    listener.immediate_stop().await;
    println!("counts {} {}", listener.stats().accepted, listener.stats().refused);
}

fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

async fn round_trip(peer: &mut Peer) {
    peer.send("x").await;
    peer.expect("x").await;
}

/// All callers connect and ask; whoever is answered leaves; all are answered in the end.
async fn expect_all_served(starved: &Starved) {
    let mut callers = Vec::new();
    for _ in 0..CALLERS {
        let mut peer = starved.connect().await;
        peer.send("x").await;
        callers.push(peer);
    }
    // They wait for about a second, starved or queued, and nothing must spin meanwhile.
    let before = starved.cpu();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = starved.cpu().saturating_sub(before);
    assert!(used < Duration::from_millis(500), "{used:?} of processor time in a second");
    for mut peer in callers {
        peer.expect("x").await;
    }
}

/// All callers connect and ask; each is answered, or turned away. Returns those answered.
async fn expect_served_or_refused(starved: &Starved) -> Vec<Peer> {
    let mut served = Vec::new();
    for _ in 0..CALLERS {
        let mut peer = starved.connect().await;
        let _ = peer.stream.write_all(b"x").await;
        let answer = within("an answer", peer.stream.read(&mut [0])).await;
        if matches!(answer, Ok(1)) {
            served.push(peer);
        }
    }
    served
}

#[tokio::test]
async fn by_default_the_limit_leaves_room_and_all_who_wait_are_served() {
    if is_child() {
        return listen(Limits::new(), Workers::Current).await;
    }
    let starved =
        Starved::start("by_default_the_limit_leaves_room_and_all_who_wait_are_served").await;
    expect_all_served(&starved).await;
    let (accepted, refused, events) = starved.finish().await;
    assert_eq!((accepted, refused), (CALLERS, 0));
    assert!(!events.iter().any(|event| event == "starved"), "there was room for all accepted");
}

#[tokio::test]
async fn by_default_those_beyond_the_limit_are_refused_without_starvation() {
    if is_child() {
        return listen(Limits::new().when_full(WhenFull::Refuse), Workers::Current).await;
    }
    let starved =
        Starved::start("by_default_those_beyond_the_limit_are_refused_without_starvation").await;
    let mut served = expect_served_or_refused(&starved).await;
    assert!(!served.is_empty() && served.len() < FILES as usize);
    for peer in &mut served {
        round_trip(peer).await;
    }
    let count = served.len();
    let (accepted, refused, events) = starved.finish().await;
    assert_eq!((accepted, refused), (count, CALLERS - count));
    assert!(!events.iter().any(|event| event == "starved"), "there was room for all accepted");
}

#[tokio::test]
async fn starved_callers_wait_and_are_all_served_and_it_is_told_once() {
    if is_child() {
        return listen(Limits::new().max_connections(10_000), Workers::Current).await;
    }
    let mut starved =
        Starved::start("starved_callers_wait_and_are_all_served_and_it_is_told_once").await;
    let served = expect_all_served(&starved);
    served.await;
    starved.told("recovered").await;
    assert_eq!(starved.count("starved"), 1);
    round_trip(&mut starved.connect().await).await;
    let (accepted, refused, events) = starved.finish().await;
    assert_eq!((accepted, refused), (CALLERS + 1, 0));
    assert_eq!(events.iter().filter(|event| *event == "starved").count(), 1, "{events:?}");
    assert_eq!(events.iter().filter(|event| *event == "lost").count(), 0, "{events:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_starved_accept_loops_tell_it_once_between_them() {
    if is_child() {
        return listen(Limits::new().max_connections(10_000), Workers::AcceptLoops(4)).await;
    }
    let starved = Starved::start("several_starved_accept_loops_tell_it_once_between_them").await;
    expect_all_served(&starved).await;
    let (accepted, _, events) = starved.finish().await;
    assert_eq!(accepted, CALLERS);
    assert_eq!(events.iter().filter(|event| *event == "starved").count(), 1, "{events:?}");
}

#[tokio::test]
async fn a_starved_listener_that_refuses_turns_callers_away_at_once() {
    if is_child() {
        let limits = Limits::new().max_connections(10_000).when_full(WhenFull::Refuse);
        return listen(limits, Workers::Current).await;
    }
    let starved =
        Starved::start("a_starved_listener_that_refuses_turns_callers_away_at_once").await;
    let mut served = expect_served_or_refused(&starved).await;
    assert!(!served.is_empty() && served.len() < FILES as usize);
    for peer in &mut served {
        round_trip(peer).await;
    }
    let before = starved.cpu();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let used = starved.cpu().saturating_sub(before);
    assert!(used < Duration::from_millis(500), "{used:?} of processor time in a second");
    let count = served.len();
    // It recovers by itself, with the first descriptor that is free.
    drop(served);
    within("a place", async {
        loop {
            let mut peer = starved.connect().await;
            let _ = peer.stream.write_all(b"x").await;
            if matches!(peer.stream.read(&mut [0]).await, Ok(1)) {
                break;
            }
        }
    })
    .await;
    let (accepted, refused, events) = starved.finish().await;
    assert_eq!(accepted, count + 1);
    assert!(refused >= CALLERS - count);
    assert_eq!(events.iter().filter(|event| *event == "starved").count(), 1, "{events:?}");
    assert_eq!(events.iter().filter(|event| *event == "recovered").count(), 1, "{events:?}");
}
