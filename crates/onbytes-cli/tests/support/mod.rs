//! The program as a child process, and peers. Every wait here is for an event, and ends in a panic
//! when the event does not come.
#![allow(dead_code)] // Each test file uses its own part of this.

use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

pub(crate) mod tls;

use rustix::net::{AddressFamily, SocketType, sockopt};
pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, kill_process, setrlimit};

/// How long anything may take before a test gives up; nothing here takes a fraction of it.
pub(crate) const WATCHDOG: Duration = Duration::from_secs(30);

/// The program, with an environment that says nothing about logs.
pub(crate) fn onbytes(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onbytes"));
    command.args(args);
    prepare(command)
}

/// The program, started by a shell line in which `"$@"` stands for it and its arguments.
pub(crate) fn onbytes_in_shell(line: &str, args: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", line, "sh", env!("CARGO_BIN_EXE_onbytes")]);
    command.args(args);
    prepare(command)
}

fn prepare(mut command: Command) -> Command {
    command
        .env_remove("RUST_LOG")
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// Runs a command to its end.
pub(crate) fn run(mut command: Command) -> Output {
    finish(command.spawn().unwrap())
}

/// Waits for the end of a program that was started.
pub(crate) fn finish(child: Child) -> Output {
    let pid = child.id();
    let (tell, done) = mpsc::channel();
    thread::spawn(move || tell.send(child.wait_with_output()));
    done.recv_timeout(WATCHDOG)
        .unwrap_or_else(|_| {
            signal(pid, Signal::KILL);
            panic!("the program did not end")
        })
        .unwrap()
}

pub(crate) fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

/// Waits until something is so that no event tells of.
#[track_caller]
pub(crate) fn until(what: &str, is_so: impl Fn() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < WATCHDOG, "never came: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// How many of the `wanted` connections this process and a server can have: as many as it may open
/// files, from now on as many as its hard limit allows. Where these are fewer, the test says so.
pub(crate) fn affordable(wanted: usize) -> usize {
    /// Files beside the connections.
    const OWN: usize = 200;
    let hard = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: hard, maximum: hard }).unwrap();
    let files = hard.map_or(usize::MAX, |files| usize::try_from(files).unwrap());
    // A server keeps a sixteenth of its files to itself.
    let possible = files.saturating_sub(OWN + files / 16);
    if possible < wanted {
        let _ = writeln!(
            std::io::stderr(),
            "FEWER: {possible} connections instead of {wanted}, because of `ulimit -Hn`"
        );
    }
    wanted.min(possible)
}

/// One crowd at a time: each takes most of the files that one process may open.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static CROWD: Mutex<()> = Mutex::new(());
    CROWD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A shell line that lets the program open as many files as it may.
pub(crate) const ALL_FILES: &str = "ulimit -n \"$(ulimit -Hn)\"; exec \"$@\"";

/// The flags under which a server on a free port logs JSON.
const LOGGING: [&str; 4] = ["--listen", "127.0.0.1:0", "--log-format", "json"];

/// The fields of a log line.
fn fields(line: &str) -> serde_json::Value {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    line["fields"].clone()
}

/// The value of a field of a log line: a count.
#[track_caller]
pub(crate) fn count(line: &str, name: &str) -> u64 {
    fields(line)[name].as_u64().unwrap_or_else(|| panic!("{name} is not in {line}"))
}

/// The value of a field of a log line: a time in seconds.
#[track_caller]
pub(crate) fn seconds(line: &str, name: &str) -> f64 {
    fields(line)[name].as_f64().unwrap_or_else(|| panic!("{name} is not in {line}"))
}

/// The value of a field of a log line: a text.
#[track_caller]
pub(crate) fn text(line: &str, name: &str) -> String {
    let fields = fields(line);
    fields[name].as_str().unwrap_or_else(|| panic!("{name} is not in {line}")).to_owned()
}

/// Asserts that stderr is one line of the program's own, and returns it.
#[track_caller]
pub(crate) fn one_line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let is_one_line = text.ends_with('\n') && text.matches('\n').count() == 1;
    assert!(text.starts_with("onbytes: ") && is_one_line, "{text}");
    assert!(text.len() < 500, "{text}");
    text.trim_end().to_owned()
}

/// The lines of a stream, as they come.
pub(crate) struct Lines(Receiver<String>);

impl Lines {
    pub(crate) fn of(stream: impl Read + Send + 'static) -> Self {
        let (tell, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut stream = BufReader::new(stream);
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let text = String::from_utf8_lossy(&line).trim_end().to_owned();
                if tell.send(text).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Self(lines)
    }

    /// The next line, or `None` at the end.
    pub(crate) fn next(&self) -> Option<String> {
        match self.0.recv_timeout(WATCHDOG) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("no line came"),
        }
    }

    /// The first line from now on that has `part` in it.
    pub(crate) fn find(&self, part: &str) -> String {
        loop {
            let line = self.next().unwrap_or_else(|| panic!("no line has {part:?}"));
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Whether a line with `part` in it has come by now; others are passed over.
    pub(crate) fn has_come(&self, part: &str) -> bool {
        self.0.try_iter().any(|line| line.contains(part))
    }

    pub(crate) fn rest(&self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// A server that is ready.
pub(crate) struct Server {
    pub(crate) addr: SocketAddr,
    /// Whether its ready line says that it speaks TLS.
    pub(crate) is_secured: bool,
    pub(crate) child: Child,
    /// Lines of stderr, where it is read at all.
    pub(crate) log: Option<Lines>,
}

impl Server {
    /// Starts `onbytes serve` with `args` on a free port.
    pub(crate) fn start(args: &[&str]) -> Self {
        let all = [&["serve"], args, &["--listen", "127.0.0.1:0"]].concat();
        Self::ready(onbytes(&all))
    }

    /// Starts `onbytes serve` with `args` on a free port; it logs every connection as JSON.
    pub(crate) fn logging(args: &[&str]) -> Self {
        Self::logging_in_shell("exec \"$@\"", args)
    }

    /// The same, started by a shell line.
    pub(crate) fn logging_in_shell(line: &str, args: &[&str]) -> Self {
        let mut command = onbytes_in_shell(line, &[&["serve"], args, &LOGGING].concat());
        command.env("RUST_LOG", "debug");
        Self::ready(command)
    }

    /// Starts a command and waits for its ready line.
    pub(crate) fn ready(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = child.stderr.take().map(Lines::of);
        let (addr, is_secured) = ready_line(&mut child);
        Self { addr, is_secured, child, log }
    }

    /// Starts a command whose stderr nobody reads.
    pub(crate) fn ready_unheard(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (addr, is_secured) = ready_line(&mut child);
        Self { addr, is_secured, child, log: None }
    }

    /// Starts a command that logs JSON, and learns the address from there.
    pub(crate) fn ready_by_log(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let log = Lines::of(child.stderr.take().unwrap());
        let line = log.find(r#""event":"listening""#);
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        let addr = line["fields"]["local_addr"].as_str().unwrap();
        Self { addr: addr.parse().unwrap(), is_secured: false, child, log: Some(log) }
    }

    pub(crate) fn port(&self) -> String {
        self.addr.port().to_string()
    }

    pub(crate) fn connect(&self) -> Peer {
        Peer::connect(self.addr)
    }

    pub(crate) fn signal(&self, number: Signal) {
        signal(self.child.id(), number);
    }

    /// Has the server answer somebody who comes now.
    #[track_caller]
    pub(crate) fn assert_serves(&self) {
        self.connect().assert_served();
    }

    /// The end of the next connection that the log tells of.
    pub(crate) fn closed(&self) -> String {
        self.log().find(r#""event":"closed""#)
    }

    /// Asks it to stop, asserts that it does so in order, and returns the rest of the log.
    pub(crate) fn stopped(mut self) -> Vec<String> {
        self.signal(Signal::TERM);
        assert_eq!(self.exit_code(), Some(0));
        self.log().rest()
    }

    /// How many files it has open.
    pub(crate) fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).unwrap().count()
    }

    /// A number from what the system tells of the process: `VmRSS`, in KiB.
    pub(crate) fn status(&self, name: &str) -> u64 {
        number(&fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap(), name)
    }

    /// How often its threads have gone to sleep.
    pub(crate) fn rests(&self) -> u64 {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        let status = |task: fs::DirEntry| fs::read_to_string(task.path().join("status"));
        // A thread may be gone by now.
        let texts = tasks.filter_map(|task| status(task.unwrap()).ok());
        texts.map(|text| number(&text, "voluntary_ctxt_switches")).sum()
    }

    /// The work it has done, in hundredths of a second of a processor: unlike time, this does not
    /// depend on what else the machine is at.
    pub(crate) fn work(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let (_, behind_the_name) = stat.rsplit_once(')').unwrap();
        let fields = behind_the_name.split_whitespace().skip(11).take(2);
        fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    pub(crate) fn log(&self) -> &Lines {
        self.log.as_ref().unwrap()
    }

    /// Waits for the program's end and returns its exit code.
    pub(crate) fn exit_code(&mut self) -> Option<i32> {
        let started = Instant::now();
        while started.elapsed() < WATCHDOG {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(2));
        }
        panic!("the server did not end");
    }

    /// Asks it to stop, and asserts that it does so in order.
    pub(crate) fn stop(mut self) {
        self.signal(Signal::TERM);
        assert_eq!(self.exit_code(), Some(0));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ready_line(child: &mut Child) -> (SocketAddr, bool) {
    let lines = Lines::of(child.stdout.take().unwrap());
    let line = lines.next().unwrap_or_default();
    let addr = line.strip_prefix("listening on ").unwrap_or_else(|| panic!("not ready: {line:?}"));
    match addr.strip_suffix(" (TLS)") {
        Some(addr) => (addr.parse().unwrap(), true),
        None => (addr.parse().unwrap(), false),
    }
}

/// The number behind a name, in a file of /proc.
fn number(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim_start_matches(':').split_whitespace().next().unwrap().parse().unwrap()
}

/// A connection to a server, which waits for nothing longer than the watchdog allows.
pub(crate) struct Peer {
    pub(crate) stream: BufReader<TcpStream>,
    /// A failure that writing has met; the system tells it only once.
    failure: Option<ErrorKind>,
}

impl Peer {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        Self::of(TcpStream::connect_timeout(&addr, WATCHDOG).unwrap())
    }

    /// Connects from one of the addresses of this machine: 127.0.0.0/8 is all its own.
    pub(crate) fn connect_from(source: [u8; 4], addr: SocketAddr) -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        let source = SocketAddr::new(IpAddr::V4(Ipv4Addr::from(source)), 0);
        rustix::net::bind(&socket, &source).unwrap();
        rustix::net::connect(&socket, &addr).unwrap();
        Self::of(socket.into())
    }

    /// Connects with little room for what comes from the server: some 64 KiB.
    pub(crate) fn connect_narrow(addr: SocketAddr) -> Self {
        let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
        sockopt::set_socket_recv_buffer_size(&socket, 32 * 1024).unwrap();
        rustix::net::connect(&socket, &addr).unwrap();
        Self::of(socket.into())
    }

    fn of(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        stream.set_write_timeout(Some(WATCHDOG)).unwrap();
        Self { stream: BufReader::new(stream), failure: None }
    }

    pub(crate) fn name(&self) -> String {
        self.stream.get_ref().local_addr().unwrap().to_string()
    }

    pub(crate) fn send(&mut self, data: impl AsRef<[u8]>) {
        self.stream.get_ref().write_all(data.as_ref()).unwrap();
    }

    /// Ends this side.
    pub(crate) fn finish(&self) {
        let stream = self.stream.get_ref();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }

    #[track_caller]
    pub(crate) fn expect(&mut self, data: impl AsRef<[u8]>) {
        let mut got = vec![0; data.as_ref().len()];
        self.stream.read_exact(&mut got).unwrap();
        assert!(got == data.as_ref(), "{}", String::from_utf8_lossy(&got));
    }

    /// The next line, without its LF; `None` at the end.
    pub(crate) fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        self.stream.read_until(b'\n', &mut line).unwrap();
        let text = String::from_utf8(line).unwrap();
        text.strip_suffix('\n').map(str::to_owned)
    }

    /// Whether the server answers; if not, it ends this connection or has done so.
    #[track_caller]
    pub(crate) fn is_served(&mut self) -> bool {
        let mut answer = [0; 4];
        let asked = self.stream.get_ref().write_all(b"ping");
        match asked.and_then(|()| self.stream.read_exact(&mut answer)) {
            Ok(()) => answer == *b"ping",
            Err(error) => {
                assert_heard(&error);
                false
            }
        }
    }

    #[track_caller]
    pub(crate) fn assert_served(&mut self) {
        self.send("ping");
        self.expect("ping");
    }

    /// Sends, without reading anything, until nothing has moved for a while, or `most` bytes are
    /// sent; returns how many that were. A reset ends it too.
    pub(crate) fn send_until_stuck(&mut self, most: usize) -> usize {
        // A whole number of periods, so that it can be sent again and again.
        let data = pattern(0..PERIOD * 4096);
        let mut stream = self.stream.get_ref();
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let mut sent = 0;
        while sent < most {
            let rest = &data[sent % data.len()..];
            match stream.write(&rest[..rest.len().min(most - sent)]) {
                Ok(n) => sent += n,
                Err(error) => {
                    self.failure = Some(error.kind()).filter(|it| *it != ErrorKind::WouldBlock);
                    break;
                }
            }
        }
        stream.set_write_timeout(Some(WATCHDOG)).unwrap();
        sent
    }

    /// How the connection ends or has ended, after whatever else comes; `None` is in order.
    #[track_caller]
    pub(crate) fn ending(&mut self) -> Option<ErrorKind> {
        let failed = self.stream.read_to_end(&mut Vec::new()).err();
        failed.iter().for_each(assert_heard);
        self.failure.or(failed.map(|error| error.kind()))
    }

    /// Leaves with a reset.
    pub(crate) fn reset(self) {
        sockopt::set_socket_linger(self.stream.get_ref(), Some(Duration::ZERO)).unwrap();
    }

    /// What comes until the server ends its side.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        rest
    }
}

/// Starts a client with an open stdin.
pub(crate) fn client(args: &[&str], port: u16) -> Child {
    let port = port.to_string();
    let mut command = onbytes(&[&["connect"], args, &["127.0.0.1", &port]].concat());
    command.stdin(Stdio::piped()).spawn().unwrap()
}

/// A server for one connection, and its port.
pub(crate) fn serve_one<T: Send + 'static>(
    serve: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> (u16, JoinHandle<T>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        serve(stream)
    });
    (port, serving)
}

#[track_caller]
pub(crate) fn assert_quiet(output: &Output) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), &*complaint), (Some(0), ""));
}

/// Asserts that a failure is not that of a server which says nothing.
#[track_caller]
fn assert_heard(error: &std::io::Error) {
    assert_ne!(error.kind(), ErrorKind::WouldBlock, "the server neither answers nor ends this");
}

/// After so many bytes a [`pattern`] comes again. A prime number, so that no block of a power of two
/// is like the next.
const PERIOD: usize = 251;

/// A part of an endless stream, of a kind that shows when some of it is missing.
pub(crate) fn pattern(range: Range<usize>) -> Vec<u8> {
    let period: Vec<_> =
        (range.start..range.start + PERIOD).map(|at| (at % PERIOD) as u8).collect();
    let mut data = period.repeat(range.len() / PERIOD + 1);
    data.truncate(range.len());
    data
}

/// Asserts that what came is [`pattern`], from its beginning.
#[track_caller]
pub(crate) fn assert_pattern(data: &[u8]) {
    let expected = pattern(0..data.len());
    let wrong = || data.iter().zip(&expected).position(|(one, other)| one != other);
    assert!(data == expected, "at {:?} of {} bytes", wrong(), data.len());
}
