//! A server under valgrind's callgrind: how many instructions it executes from its start to its end.

use crate::cli;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::io::{self, BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long a server may take to end after it was told to.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whether valgrind can be started here.
#[must_use]
pub fn is_installed() -> bool {
    let version = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// A server that is counted. It is killed when this is dropped before it has ended.
pub struct Counted {
    child: Child,
    address: SocketAddr,
    /// Kept to the end: a program that prints to nobody may fail.
    _output: BufReader<ChildStdout>,
    /// Where callgrind writes its file.
    folder: TempDir,
}

impl Counted {
    /// Starts the server at `path` with `arguments`, and waits until it says where it listens.
    pub fn start<S: AsRef<OsStr>>(path: &Path, arguments: &[S]) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| format!("a temporary folder: {error}"))?;
        let mut command = Command::new("valgrind");
        command.args(["--tool=callgrind", "--quiet", "--dump-line=no"]);
        command.arg(format!("--callgrind-out-file={}", out_file(&folder).display()));
        command.arg(path).args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        // Valgrind has remarks that are no failures; what is one is told by the server's standard output.
        command.stderr(Stdio::null());
        let mut child = command.spawn().map_err(|error| format!("valgrind: {error}"))?;
        let mut output = BufReader::new(child.stdout.take().expect("standard output is piped"));
        let mut line = String::new();
        output.read_line(&mut line).map_err(|error| error.to_string())?;
        match line.trim().strip_prefix("listening on ").map(cli::loopback) {
            Some(Ok(address)) => Ok(Self { child, address, _output: output, folder }),
            _ => {
                abandon(&mut child);
                Err(format!("says {line:?} instead of where it listens"))
            }
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until all its threads sleep. A server that valgrind slows down would else find the next message
    /// of a quick peer there already, and the one after, and how often it does so would be chance.
    pub fn wait_until_asleep(&self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        while !self.is_asleep()? {
            if Instant::now() > deadline {
                return Err(io::Error::other(format!("was busy for {PATIENCE:?}")));
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    fn is_asleep(&self) -> io::Result<bool> {
        for thread in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            // A thread that has ended meanwhile has no file any more.
            let stat = std::fs::read_to_string(thread?.path().join("stat")).unwrap_or_default();
            if !stat.is_empty() && state_in(&stat) != Some("S") {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Ends the server and tells how many instructions it executed in all.
    pub fn end(mut self) -> Result<u64, String> {
        // Valgrind writes its file on the way out, whether the server catches the signal or not.
        kill_process(Pid::from_child(&self.child), Signal::TERM)
            .map_err(|error| format!("ending it: {error}"))?;
        self.wait()?;
        let file = out_file(&self.folder);
        let text = std::fs::read_to_string(&file)
            .map_err(|error| format!("callgrind's file {}: {error}", file.display()))?;
        total_in(&text).ok_or_else(|| format!("callgrind's file {} has no total", file.display()))
    }

    fn wait(&mut self) -> Result<ExitStatus, String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.child.try_wait().map_err(|error| error.to_string())? {
                Some(status) => return Ok(status),
                None if Instant::now() > deadline => {
                    return Err(format!("has not ended within {PATIENCE:?}"));
                }
                None => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        abandon(&mut self.child);
    }
}

fn out_file(folder: &TempDir) -> std::path::PathBuf {
    folder.path().join("callgrind.out")
}

/// Does nothing to a child that has been waited for.
fn abandon(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

/// What a thread does, in the text of its `stat` file.
fn state_in(stat: &str) -> Option<&str> {
    // The name before it, in parentheses, may hold spaces and parentheses itself.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().next()
}

/// The instructions that a callgrind file counts in all.
fn total_in(text: &str) -> Option<u64> {
    let totals = text.lines().find_map(|line| line.strip_prefix("totals:"))?;
    // One number for each kind of event; instructions are the first, and here the only one.
    totals.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_total_of_a_callgrind_file_is_found() {
        let text = "# callgrind format\nevents: Ir\nsummary: 12\n\nfn=(1) main\n16 400\n\ntotals: 1234567\n";
        assert_eq!(total_in(text), Some(1_234_567));
        assert_eq!(total_in("totals: 7 8 9"), Some(7));
        assert_eq!(total_in("events: Ir\nfn=(1) main\n"), None);
        assert_eq!(total_in("totals: many"), None);
        assert_eq!(total_in(""), None);
    }

    #[test]
    fn the_state_of_a_thread_is_found_behind_any_name() {
        assert_eq!(state_in("42 (a (b) c) S 1 2 3"), Some("S"));
        assert_eq!(state_in("42 (memcheck-amd64-) R 1"), Some("R"));
        assert_eq!(state_in(""), None);
    }

    #[test]
    fn a_program_that_does_not_listen_is_told() {
        if is_installed() {
            let outcome = Counted::start(Path::new("/bin/true"), &["x"]).map(drop);
            assert!(outcome.unwrap_err().contains("instead of where it listens"));
        } else {
            eprintln!("SKIPPED: valgrind is missing");
        }
    }
}
