//! What an echoed chunk, or frame, costs in the steady state: no allocation, and two system calls besides the
//! poll. Counted, not timed.
//!
//! The server runs on a thread of its own, and only what that thread does counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use onbytes::{
    Bytes, Caller, ConnectionService, Framing, Limits, Listener, ListenerConfiguration, MinArrival,
    PerSource, Result, Service, Timeouts,
};

/// Counts the allocations of threads that ask for it.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
/// Bytes allocated less bytes freed.
static HELD: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

impl Counting {
    fn note(allocations: u64, taken: usize, given: usize) {
        if IS_COUNTED.try_with(Cell::get).unwrap_or(false) {
            ALLOCATIONS.fetch_add(allocations, Ordering::SeqCst);
            HELD.fetch_add(taken as i64 - given as i64, Ordering::SeqCst);
        }
    }
}

#[allow(unsafe_code)]
// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note(1, layout.size(), 0);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        Self::note(0, 0, layout.size());
        // SAFETY: the caller keeps the contract of `dealloc`; the memory is the system's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::note(1, size, layout.size());
        // SAFETY: the caller keeps the contract of `realloc`; the memory is the system's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// How the service answers.
#[derive(Clone, Copy)]
enum Answer {
    Returned,
    Written,
}

impl Service for Answer {
    type Connection = Self;

    async fn on_connect(&self, _: &Caller) -> Result<Self> {
        Ok(*self)
    }
}

impl ConnectionService for Answer {
    async fn on_bytes(&mut self, data: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        match self {
            Self::Returned => Ok(Some(data)),
            Self::Written => {
                caller.write_bytes(data).await?;
                Ok(None)
            }
        }
    }
}

/// Serves on a counted thread of its own until the process ends; returns the address.
fn serve(service: impl Service, config: ListenerConfiguration) -> SocketAddr {
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = Listener::new(("127.0.0.1", 0), config).unwrap();
            listener.attach(service);
            listener.start().await.unwrap();
            send.send(listener.local_addr().unwrap()).unwrap();
            IS_COUNTED.set(true);
            std::future::pending::<()>().await;
        });
    });
    receive.recv().unwrap()
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn echo(stream: &mut (impl Read + Write), size: usize, rounds: usize) {
    echo_message(stream, &vec![7; size], rounds);
}

fn echo_message(stream: &mut (impl Read + Write), message: &[u8], rounds: usize) {
    let mut got = vec![0; message.len()];
    for _ in 0..rounds {
        stream.write_all(message).unwrap();
        stream.flush().unwrap();
        stream.read_exact(&mut got).unwrap();
        assert_eq!(got, message);
    }
}

/// A listener's configuration over TLS, and a way to connect to it.
#[cfg(any(feature = "tls", feature = "tls-ring"))]
mod secured {
    use std::net::{SocketAddr, TcpStream};
    use std::sync::Arc;

    use onbytes::{CertKey, ListenerConfiguration, ListenerSecureSocket};
    use tokio_rustls::rustls::crypto::aws_lc_rs;
    use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

    pub(super) struct Site {
        trusted: RootCertStore,
        folder: tempfile::TempDir,
    }

    impl Site {
        pub(super) fn new() -> Self {
            let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("cert.pem"), made.cert.pem()).unwrap();
            std::fs::write(folder.path().join("key.pem"), made.signing_key.serialize_pem())
                .unwrap();
            let mut trusted = RootCertStore::empty();
            trusted.add(made.cert.der().clone()).unwrap();
            Self { trusted, folder }
        }

        pub(super) fn config(&self) -> ListenerConfiguration {
            let file = |name: &str| self.folder.path().join(name);
            let key = CertKey::new(file("cert.pem"), file("key.pem"));
            ListenerConfiguration::new().secure_socket(ListenerSecureSocket::new(key))
        }

        pub(super) fn connect(
            &self,
            address: SocketAddr,
        ) -> StreamOwned<ClientConnection, TcpStream> {
            let provider = Arc::new(aws_lc_rs::default_provider());
            let config = ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(self.trusted.clone())
                .with_no_client_auth();
            let name = "localhost".try_into().unwrap();
            let connection = ClientConnection::new(Arc::new(config), name).unwrap();
            StreamOwned::new(connection, super::connect(address))
        }
    }
}

/// rustls 0.23 keeps each received record and each sent one in a vector of its own; nothing else may
/// be allocated.
#[cfg(any(feature = "tls", feature = "tls-ring"))]
#[test]
fn an_echoed_record_over_tls_allocates_what_rustls_does_and_no_more() {
    let _counts = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let site = secured::Site::new();
    for answer in [Answer::Returned, Answer::Written] {
        for size in [1, 64, 16 * 1024] {
            let mut stream = site.connect(serve(answer, site.config()));
            echo(&mut stream, size, 100);
            let before = ALLOCATIONS.load(Ordering::SeqCst);
            echo(&mut stream, size, 1_000);
            let count = ALLOCATIONS.load(Ordering::SeqCst) - before;
            assert!(count <= 2_000, "{size} bytes: {count} allocations in 1000 echoes");
        }
    }
}

/// The count is one number for the whole process, so one test counts at a time.
static COUNTING: Mutex<()> = Mutex::new(());

#[test]
fn an_echoed_chunk_allocates_nothing() {
    let _counts = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let timeouts =
        Timeouts::new().idle(Duration::from_secs(60)).max_lifetime(Duration::from_secs(3600));
    for (what, answer, config) in [
        ("a returned reply", Answer::Returned, ListenerConfiguration::new()),
        ("a written reply", Answer::Written, ListenerConfiguration::new()),
        (
            "a reply under every timeout",
            Answer::Returned,
            ListenerConfiguration::new().timeouts(timeouts),
        ),
    ] {
        for size in [1, 64, 16 * 1024] {
            let mut stream = connect(serve(answer, config.clone()));
            echo(&mut stream, size, 100);
            let before = ALLOCATIONS.load(Ordering::SeqCst);
            echo(&mut stream, size, 2_000);
            let count = ALLOCATIONS.load(Ordering::SeqCst) - before;
            assert_eq!(count, 0, "{what} of {size} bytes: {count} allocations in 2000 echoes");
        }
    }
}

#[test]
fn an_echoed_frame_allocates_nothing() {
    let _counts = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    for text in [
        "lines",
        "delim:0d0a",
        "mllp",
        "len:u32be",
        "len:varint",
        "netstring",
        "syslog",
        "block:1002:1003,escape=10",
        "cobs",
        "slip",
        "fixed:64",
    ] {
        let framing: Framing = text.parse().unwrap();
        let frame = framing.encode(&[7; 64]).unwrap();
        for answer in [Answer::Returned, Answer::Written] {
            let config = ListenerConfiguration::new().framing(framing.clone());
            let mut stream = connect(serve(answer, config));
            echo_message(&mut stream, &frame, 100);
            let before = ALLOCATIONS.load(Ordering::SeqCst);
            echo_message(&mut stream, &frame, 2_000);
            let count = ALLOCATIONS.load(Ordering::SeqCst) - before;
            assert_eq!(count, 0, "{text}: {count} allocations in 2000 echoes");
        }
    }
}

/// Those that gather the replies remain: the queue, and its blocks.
#[test]
fn many_frames_in_one_read_allocate_for_their_replies_together() {
    let _counts = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let config = ListenerConfiguration::new().framing(Framing::lines());
    let mut stream = connect(serve(Answer::Returned, config));
    let batch = b"a line of text\n".repeat(100);
    echo_message(&mut stream, &batch, 100);
    let before = ALLOCATIONS.load(Ordering::SeqCst);
    echo_message(&mut stream, &batch, 1_000);
    let count = ALLOCATIONS.load(Ordering::SeqCst) - before;
    assert!(count <= 6 * 1_000, "{count} allocations for 1000 batches of 100 frames");
}

/// What is asked of the allocator, which takes more: it works in steps (BENCHMARKS.md has what is resident).
#[test]
fn an_idle_connection_takes_little_more_than_a_kibibyte() {
    let _counts = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    let plain = ListenerConfiguration::new;
    let counted = Limits::new().per_source(PerSource::new().max_connections(1 << 20));
    let limited = Timeouts::new().idle(Duration::from_secs(3600));
    let least = MinArrival::new(1, Duration::from_secs(3600));
    for (config, most) in [
        (plain(), 1_152),
        (plain().limits(counted.clone()), 1_184),
        (plain().limits(counted.clone()).timeouts(limited.clone()), 1_344),
        (plain().limits(counted).timeouts(limited.min_arrival(least)), 1_392),
    ] {
        let held = held_by_an_idle_connection(config);
        assert!((1..=most).contains(&held), "{held} bytes for each connection, not {most}");
    }
}

fn held_by_an_idle_connection(config: ListenerConfiguration) -> i64 {
    const COUNT: usize = 400;
    let address = serve(Answer::Returned, config);
    let connected = || {
        let mut stream = connect(address);
        echo(&mut stream, 64, 1);
        stream
    };
    // What grows by doubling has grown.
    let _warm: Vec<_> = (0..COUNT / 2).map(|_| connected()).collect();
    let before = HELD.load(Ordering::SeqCst);
    let _idle: Vec<_> = (0..COUNT).map(|_| connected()).collect();
    (HELD.load(Ordering::SeqCst) - before) / COUNT as i64
}

/// Echoes all chunks, and keeps one in a hundred for ever.
struct Hoard(u32, Vec<Bytes>);

impl Service for Hoard {
    type Connection = Self;

    async fn on_connect(&self, _: &Caller) -> Result<Self> {
        Ok(Self(0, Vec::with_capacity(1_000)))
    }
}

impl ConnectionService for Hoard {
    async fn on_bytes(&mut self, data: Bytes, _: &Caller) -> Result<Option<Bytes>> {
        self.0 += 1;
        if self.0.is_multiple_of(100) {
            self.1.push(data.clone());
        }
        Ok(Some(data))
    }
}

#[test]
fn a_small_chunk_that_a_service_keeps_keeps_no_large_buffer_alive() {
    const KEPT: i64 = 50;
    let _counts = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    for size in [64, 4 * 1024] {
        let mut stream = connect(serve(Hoard(0, Vec::new()), ListenerConfiguration::new()));
        echo(&mut stream, size, 10);
        let before = HELD.load(Ordering::SeqCst);
        echo(&mut stream, size, 100 * KEPT as usize);
        let held = HELD.load(Ordering::SeqCst) - before;
        // Each its block of 16 KiB, with what counts those who share it, and one that is begun.
        let most = (KEPT + 1) * (16 * 1024 + 64);
        assert!(held > KEPT * size as i64 && held <= most, "{size} bytes: {held} bytes are held");
    }
}

#[cfg(feature = "codec")]
#[test]
fn an_echoed_message_allocates_nothing_besides_what_its_codec_does() {
    use onbytes::{Messages, service_fn};
    use tokio_util::bytes::BytesMut;
    use tokio_util::codec::LengthDelimitedCodec;
    let _counts = COUNTING.lock().unwrap_or_else(PoisonError::into_inner);
    for messages in [1usize, 10] {
        let echoes = service_fn(|_| async {
            let codec = LengthDelimitedCodec::new();
            Ok(Messages::new(codec, |frame: BytesMut| async { Ok(Some(frame.freeze())) }))
        });
        let mut stream = connect(serve(echoes, ListenerConfiguration::new()));
        let frames = b"\0\0\0\x03abc".repeat(messages);
        let mut exchange = |rounds: usize| {
            let mut got = vec![0; frames.len()];
            for _ in 0..rounds {
                stream.write_all(&frames).unwrap();
                stream.read_exact(&mut got).unwrap();
                assert_eq!(got, frames);
            }
        };
        exchange(100);
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        exchange(2_000);
        let count = ALLOCATIONS.load(Ordering::SeqCst) - before;
        assert_eq!(count, 0, "{messages} together: {count} allocations in 2000 echoes");
    }
}

/// Set in the process that the test starts under strace.
const ROUNDS: &str = "ONBYTES_TEST_ROUNDS";

/// Not a test by itself: the process whose system calls are counted. It serves one connection, and
/// its peer is a thread of the same process, told apart by its thread id.
#[test]
fn traced_process() {
    let Ok(rounds) = std::env::var(ROUNDS) else { return };
    let address = serve(Answer::Returned, ListenerConfiguration::new());
    echo(&mut connect(address), 64, rounds.parse().unwrap());
}

/// The same, of many frames at once.
#[test]
fn traced_process_of_frames() {
    let Ok(rounds) = std::env::var(ROUNDS) else { return };
    let config = ListenerConfiguration::new().framing(Framing::lines());
    let batch = b"a line of text\n".repeat(100);
    let address = serve(Answer::Returned, config);
    echo_message(&mut connect(address), &batch, rounds.parse().unwrap());
}

/// The same over TLS.
#[cfg(any(feature = "tls", feature = "tls-ring"))]
#[test]
fn traced_process_over_tls() {
    let Ok(rounds) = std::env::var(ROUNDS) else { return };
    let site = secured::Site::new();
    let address = serve(Answer::Returned, site.config());
    echo(&mut site.connect(address), 64, rounds.parse().unwrap());
}

/// System calls of the thread that serves in `process` for so many echoes, by name.
fn system_calls(process: &str, rounds: usize) -> std::collections::BTreeMap<String, i64> {
    let folder =
        std::env::temp_dir().join(format!("onbytes-{process}-{}-{rounds}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let status = Command::new("strace")
        .args(["-ff", "-qq", "-o"])
        .arg(folder.join("trace"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", process, "--test-threads=1"])
        .env(ROUNDS, rounds.to_string())
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success(), "the traced process failed");
    let traces: Vec<String> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|file| std::fs::read_to_string(file.unwrap().path()).unwrap())
        .collect();
    std::fs::remove_dir_all(&folder).unwrap();
    // The serving thread is the one that polls.
    let served = traces.iter().find(|trace| trace.contains("epoll_wait(")).expect("it polled");
    let mut calls = std::collections::BTreeMap::new();
    for line in served.lines() {
        if let Some((name, _)) = line.split_once('(') {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    calls
}

#[test]
fn an_echoed_chunk_costs_two_system_calls_besides_the_poll() {
    count_system_calls("traced_process");
}

#[test]
fn a_hundred_frames_in_one_read_cost_one_read_and_one_write() {
    count_system_calls("traced_process_of_frames");
}

#[cfg(any(feature = "tls", feature = "tls-ring"))]
#[test]
fn an_echoed_record_over_tls_costs_two_system_calls_besides_the_poll() {
    count_system_calls("traced_process_over_tls");
}

fn count_system_calls(process: &str) {
    let can_trace = Command::new("strace")
        .args(["-qq", "-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status();
    if !can_trace.is_ok_and(|status| status.success()) {
        eprintln!("SKIPPED: strace is missing, or may not trace here");
        return;
    }
    let (few, many) = (100, 1_100);
    let base = system_calls(process, few);
    let mut calls = system_calls(process, many);
    for (name, count) in base {
        *calls.entry(name).or_default() -= count;
    }
    let polls = calls.remove("epoll_wait").unwrap_or_default();
    let others: i64 = calls.values().sum();
    let echoes = (many - few) as i64;
    // A few more or less: the peer's bytes may be seen together with something else.
    assert!(others <= 2 * echoes + 20, "{others} system calls for {echoes} echoes: {calls:?}");
    assert!(polls <= echoes + 20, "{polls} polls for {echoes} echoes");
}
