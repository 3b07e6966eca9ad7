//! The examples as programs, built by `cargo test` next to the tests.
#![allow(dead_code, unreachable_pub)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, Write};
use std::net::{Shutdown, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use super::{PATIENCE, Rng};

/// An example that serves, on a port of its own, until it is dropped.
pub struct Running {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: File,
    pub port: u16,
}

fn program(example: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().and_then(|deps| deps.parent()).unwrap().join("examples");
    let program = folder.join(example);
    assert!(program.exists(), "{program:?} is not built; run `cargo build --examples`");
    program
}

/// Runs one that ends by itself.
pub fn run(example: &str, arguments: &[&str]) -> Output {
    let output = Command::new(program(example)).args(arguments).output().unwrap();
    assert!(output.status.success(), "{example}: {output:?}");
    output
}

impl Running {
    pub fn start(example: &str) -> Self {
        Self::start_with(example, &[])
    }

    pub fn start_with(example: &str, arguments: &[&str]) -> Self {
        let mut running = Self::spawn(example, arguments);
        running.port = running.told_port("listening on ");
        running
    }

    /// Starts one whose port is not known yet.
    pub fn spawn(example: &str, arguments: &[&str]) -> Self {
        let stderr = tempfile::tempfile().unwrap();
        let mut command = Command::new(program(example));
        command.arg("0").args(arguments).stdout(Stdio::piped()).stderr(stderr.try_clone().unwrap());
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        Self { child, stdout, stderr, port: 0 }
    }

    /// The port in the next line that it prints, behind `what`.
    pub fn told_port(&mut self, what: &str) -> u16 {
        let line = self.printed();
        let address = line.strip_prefix(what).unwrap_or_else(|| panic!("'{line}'"));
        address.rsplit(':').next().unwrap().parse().unwrap()
    }

    /// The next line that it prints.
    pub fn printed(&mut self) -> String {
        let mut line = String::new();
        self.stdout.read_line(&mut line).unwrap();
        assert_eq!(line.pop(), Some('\n'), "it prints no more");
        line
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Sends `data` and then the end, from a peer of its own; returns all that is answered. An example
    /// may end the connection before it has read everything.
    pub fn converse(&self, data: &[u8]) -> Vec<u8> {
        let mut stream = self.connect();
        let _ = stream.write_all(data).and_then(|()| stream.shutdown(Shutdown::Write));
        let mut answers = Vec::new();
        match stream.read_to_end(&mut answers) {
            Err(error) if error.kind() != std::io::ErrorKind::ConnectionReset => {
                panic!("the connection does not end: {error}")
            }
            _ => answers,
        }
    }

    /// Ends it as Ctrl-C does; it has to end well, and no callback may have panicked.
    pub fn stop(mut self) {
        let id = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(id, rustix::process::Signal::INT).unwrap();
        assert!(self.child.wait().unwrap().success());
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).unwrap();
        assert_eq!(rest, "", "nothing but the expected lines is printed");
        assert!(!self.complaints().contains("panicked"), "a callback panicked");
    }

    /// What it has printed to its standard error.
    fn complaints(&mut self) -> String {
        let mut complaints = Vec::new();
        self.stderr.rewind().unwrap();
        self.stderr.read_to_end(&mut complaints).unwrap();
        String::from_utf8_lossy(&complaints).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("the example said:\n{}", self.complaints());
        }
    }
}

pub fn read_line(stream: &TcpStream) -> String {
    let mut line = String::new();
    let mut reader = BufReader::with_capacity(1, stream);
    reader.read_line(&mut line).unwrap();
    line
}

/// What somebody may send instead of `sample`: nothing, each of its beginnings, it with some bytes changed
/// or left out, and bytes without any sense.
pub fn spoilt(sample: &[u8]) -> Vec<Vec<u8>> {
    let mut rng = Rng::new(sample.len() as u64);
    let mut frames: Vec<_> = (0..sample.len()).map(|len| sample[..len].to_vec()).collect();
    for _ in 0..150 {
        let mut changed = sample.to_vec();
        for _ in 0..=rng.below(3) {
            let place = rng.below(changed.len());
            changed[place] = rng.next() as u8;
        }
        frames.push(changed);
        let mut shortened = sample.to_vec();
        shortened.remove(rng.below(sample.len()));
        frames.push(shortened);
        let random = (0..rng.below(2 * sample.len())).map(|_| rng.next() as u8).collect();
        frames.push(random);
    }
    frames
}
