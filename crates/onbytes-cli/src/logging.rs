//! The log: lines on stderr that never hold up whoever writes them.
//!
//! Lines go to a queue of bounded size, and a thread of its own writes them out. While stderr takes
//! nothing the queue fills, and then lines are dropped and counted.

use std::env::{self, VarError};
use std::io::{self, IsTerminal, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::args::LogFormat;
use crate::failure::{Failure, shown};

/// What is logged unless `RUST_LOG` says otherwise.
const DEFAULT_FILTER: &str = "info";

/// The most bytes that wait for stderr.
const QUEUE: usize = 1024 * 1024;

/// The time that waiting lines have at the program's end.
const FAREWELL: Duration = Duration::from_secs(1);

/// Starts logging. Dropping what it returns waits a moment for lines that are still queued.
pub(crate) fn start(format: LogFormat) -> Result<Log, Failure> {
    let queue = Arc::new(Queue::default());
    let writer = Arc::clone(&queue);
    thread::Builder::new()
        .name("log".into())
        .spawn(move || writer.write_out(io::stderr()))
        .map_err(|error| Failure::outside(format!("cannot start the log's thread: {error}")))?;

    let (filter, complaint) = filter(env::var("RUST_LOG"));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(Entrance(Arc::clone(&queue)))
        .with_ansi(wants_colour())
        // It would tell of its own trouble with `eprintln!`, which panics on a closed stderr.
        .log_internal_errors(false);
    match format {
        LogFormat::Text => subscriber.init(),
        LogFormat::Json => subscriber.json().init(),
    }
    // The default hook writes to stderr itself, and waits for it.
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("{}", panic.to_string().replace('\n', " "));
    }));
    if let Some(complaint) = complaint {
        tracing::warn!("{complaint}");
    }
    Ok(Log { queue })
}

/// A log that is being written.
pub(crate) struct Log {
    queue: Arc<Queue>,
}

impl Drop for Log {
    fn drop(&mut self) {
        self.queue.wait_until_written(FAREWELL);
    }
}

/// What to log, and what is wrong with `RUST_LOG`: a mistake there is told but stops nothing, since
/// the variable is often meant for other programs too.
fn filter(wish: Result<String, VarError>) -> (EnvFilter, Option<String>) {
    let default = || EnvFilter::new(DEFAULT_FILTER);
    let wish = match wish {
        Ok(wish) if wish.trim().is_empty() => return (default(), None),
        Ok(wish) => match EnvFilter::builder().parse(&wish) {
            Ok(filter) if !wish.split(',').any(is_misspelt_level) => return (filter, None),
            _ => wish,
        },
        Err(VarError::NotPresent) => return (default(), None),
        Err(VarError::NotUnicode(wish)) => wish.to_string_lossy().into_owned(),
    };
    let complaint = format!(
        "RUST_LOG='{}' is not understood, so this is the log at {DEFAULT_FILTER}; \
         give a level (error, warn, info, debug, trace) or target=level",
        shown(&wish)
    );
    (default(), Some(complaint))
}

/// Whether a directive is a bare word that is neither a level nor a target of this program. The
/// filter would take it for the name of a target, and log nothing at all.
fn is_misspelt_level(directive: &str) -> bool {
    let word = directive.trim();
    let is_level = word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    let is_bare = !word.contains(['=', ':', '[']);
    is_bare && !is_level && !word.is_empty() && !word.starts_with("onbytes")
}

fn wants_colour() -> bool {
    let is_refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    !is_refused && io::stderr().is_terminal()
}

/// Lines on their way to stderr.
#[derive(Default)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    is_writing: bool,
    dropped: u64,
}

impl Queue {
    /// Queues a line, or drops it where there is no room; never waits for stderr.
    fn push(&self, line: &[u8]) {
        let mut state = self.lock();
        if state.waiting.len() + line.len() > QUEUE {
            state.dropped += 1;
            return;
        }
        state.waiting.extend_from_slice(line);
        drop(state);
        self.changed.notify_all();
    }

    /// Writes lines out, for ever.
    fn write_out(&self, mut out: impl Write) {
        let mut lines = Vec::new();
        loop {
            let dropped = self.take(&mut lines);
            // A stderr that is closed or broken is no reason to end; nobody could be told.
            let _ = out.write_all(&lines);
            self.lock().is_writing = false;
            self.changed.notify_all();
            if dropped > 0 {
                tracing::warn!(dropped, "log lines were dropped, because stderr took none");
            }
        }
    }

    /// Waits for lines and swaps them into `lines`; tells how many were dropped meanwhile.
    fn take(&self, lines: &mut Vec<u8>) -> u64 {
        lines.clear();
        let mut state = self
            .changed
            .wait_while(self.lock(), |state| state.waiting.is_empty())
            .unwrap_or_else(PoisonError::into_inner);
        std::mem::swap(&mut state.waiting, lines);
        state.is_writing = true;
        std::mem::take(&mut state.dropped)
    }

    fn wait_until_written(&self, within: Duration) {
        let is_busy = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        let _ = self.changed.wait_timeout_while(self.lock(), within, is_busy);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the formatter puts its lines: each comes in one call.
#[derive(Clone)]
struct Entrance(Arc<Queue>);

impl Write for Entrance {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Entrance {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn complaint(wish: &str) -> Option<String> {
        filter(Ok(wish.to_owned())).1
    }

    #[test]
    fn a_bad_filter_is_told_and_the_default_is_used() {
        for wish in ["onbytes=loud", "a=b=c", "[{"] {
            let complaint = complaint(wish).unwrap_or_else(|| panic!("{wish} was taken"));
            assert!(complaint.contains("the log at info"), "{complaint}");
            assert_eq!(complaint.lines().count(), 1, "{complaint}");
        }
        let none = Err(VarError::NotPresent);
        assert!(filter(none).1.is_none() && complaint("").is_none());
        assert!(complaint("onbytes=debug,warn").is_none());
    }

    #[test]
    fn a_full_queue_drops_lines_and_counts_them() {
        let queue = Queue::default();
        let line = vec![b'x'; QUEUE / 2 + 1];
        queue.push(&line);
        queue.push(&line);
        queue.push(b"short");
        let mut taken = Vec::new();
        assert_eq!(queue.take(&mut taken), 1);
        assert_eq!(taken.len(), line.len() + 5);
    }

    #[test]
    fn waiting_for_a_stuck_stderr_ends() {
        let queue = Queue::default();
        queue.push(b"never written");
        queue.wait_until_written(Duration::from_millis(1));
    }
}
