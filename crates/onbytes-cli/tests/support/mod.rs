//! The program as a child process, and peers. Every wait here is for an event, and ends in a panic
//! when the event does not come.
#![allow(dead_code)] // Each test file uses its own part of this.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

pub(crate) mod tls;

pub(crate) use rustix::process::Signal;
use rustix::process::{Pid, kill_process};

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

/// A connection to a server, which waits for nothing longer than the watchdog allows.
pub(crate) struct Peer {
    pub(crate) stream: BufReader<TcpStream>,
}

impl Peer {
    pub(crate) fn connect(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&addr, WATCHDOG).unwrap();
        stream.set_read_timeout(Some(WATCHDOG)).unwrap();
        stream.set_write_timeout(Some(WATCHDOG)).unwrap();
        Self { stream: BufReader::new(stream) }
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

    /// What comes until the server ends its side.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        self.stream.read_to_end(&mut rest).unwrap();
        rest
    }
}
