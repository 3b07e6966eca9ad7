//! The programs that a benchmark starts: it talks with them, and leaves none behind.

use crate::cli;
use crate::host::CpuTime;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::signal::unix::{SignalKind, signal};

/// How long a program may take for anything but what is measured.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Runs `action` on a runtime of one thread; on a signal gives it up, which drops, and by that kills, the
/// programs that it started.
pub fn run_until_signal(action: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())?
        .block_on(until_signal(action))
}

async fn until_signal(action: impl Future<Output = Result<(), String>>) -> Result<(), String> {
    let listen = |kind| signal(kind).map_err(|error| error.to_string());
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let mut hang_up = listen(SignalKind::hangup())?;
    tokio::select! {
        outcome = action => outcome,
        _ = interrupt.recv() => Err("interrupted".to_owned()),
        _ = terminate.recv() => Err("terminated".to_owned()),
        _ = hang_up.recv() => Err("hung up".to_owned()),
    }
}

/// A child process. It is killed and waited for when this is dropped, so on every way out of this
/// program but its own being killed.
pub struct Program {
    /// For messages.
    name: String,
    child: Child,
    /// Kept to the end: a program that prints to nobody may fail.
    output: Lines<BufReader<ChildStdout>>,
}

impl Program {
    /// Starts it, with its standard output for [`Program::line`].
    pub fn start(command: &mut Command) -> Result<Self, String> {
        command.stdout(Stdio::piped()).kill_on_drop(true);
        let path = Path::new(command.as_std().get_program());
        let name = path.file_name().unwrap_or_default().display().to_string();
        let mut child = command.spawn().map_err(|error| format!("{name}: {error}"))?;
        let output = child.stdout.take().expect("standard output is piped");
        Ok(Self { name, child, output: BufReader::new(output).lines() })
    }

    /// The next line it prints.
    pub async fn line(&mut self, patience: Duration) -> Result<String, String> {
        within(patience, self.output.next_line())
            .await?
            .ok_or_else(|| format!("{} ended early", self.name))
    }

    /// Where it listens, which a server's first line says.
    pub async fn address(&mut self) -> Result<SocketAddr, String> {
        let line = self.line(PATIENCE).await?;
        let address = line
            .strip_prefix("listening on ")
            .ok_or_else(|| format!("says {line:?} instead of where it listens"))?;
        cli::loopback(address)
    }

    /// Writes to its standard input, which must be piped.
    pub async fn tell(&mut self, text: &str) -> Result<(), String> {
        let input = self.child.stdin.as_mut().expect("standard input is piped");
        within(PATIENCE, input.write_all(text.as_bytes())).await
    }

    /// The CPU time it has used so far.
    pub fn cpu_time(&self) -> Result<CpuTime, String> {
        CpuTime::read(self.id()?).map_err(|error| format!("its CPU time: {error}"))
    }

    /// How many files and sockets it has open.
    pub fn open_files(&mut self) -> Result<usize, String> {
        self.check_running()?;
        let files = std::fs::read_dir(format!("/proc/{}/fd", self.id()?));
        files.map(Iterator::count).map_err(|error| format!("its open files: {error}"))
    }

    /// Ends its standard input and waits until it exits by itself.
    pub async fn end(&mut self) -> Result<(), String> {
        drop(self.child.stdin.take());
        let status = within(PATIENCE, self.child.wait()).await?;
        if status.success() { Ok(()) } else { Err(format!("{} ended with {status}", self.name)) }
    }

    /// Kills it and waits for that. It is an error if it has ended before.
    pub async fn kill(&mut self) -> Result<(), String> {
        self.check_running()?;
        within(PATIENCE, self.child.kill()).await
    }

    fn id(&self) -> Result<u32, String> {
        self.child.id().ok_or_else(|| format!("{} ended early", self.name))
    }

    fn check_running(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(format!("{} ended by itself with {status}", self.name)),
            _ => Ok(()),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Does nothing to a child that has been waited for. One that has not is dead within
        // moments, and must not still use a core when this program is seen to have ended.
        let _ = self.child.start_kill();
        for _ in 0..200 {
            match self.child.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(5)),
                _ => return,
            }
        }
    }
}

/// Awaits `action` for a limited time.
pub async fn within<T>(
    patience: Duration,
    action: impl Future<Output = io::Result<T>>,
) -> Result<T, String> {
    tokio::time::timeout(patience, action)
        .await
        .map_err(|_| format!("nothing happened for {patience:?}"))?
        .map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_does_not_listen_is_told() {
        let mut talker = Program::start(Command::new("echo").arg("hello")).unwrap();
        let error = talker.address().await.unwrap_err();
        assert_eq!(error, "says \"hello\" instead of where it listens");
        let mut silent = Program::start(&mut Command::new("true")).unwrap();
        assert_eq!(silent.address().await.unwrap_err(), "true ended early");
        assert!(Program::start(&mut Command::new("/nowhere/x")).is_err());
    }

    #[tokio::test]
    async fn a_program_is_gone_once_it_is_dropped() {
        let mut server = Program::start(Command::new("sleep").arg("1000")).unwrap();
        assert!(server.open_files().unwrap() > 0);
        let folder = format!("/proc/{}", server.id().unwrap());
        assert!(Path::new(&folder).exists());
        drop(server);
        assert!(!Path::new(&folder).exists());
    }

    #[test]
    fn a_signal_gives_up() {
        let action = async {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::HUP)
                .map_err(|error| error.to_string())?;
            std::future::pending().await
        };
        assert_eq!(run_until_signal(action), Err("hung up".to_owned()));
    }
}
