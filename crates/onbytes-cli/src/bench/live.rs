//! How it goes, each second, on a terminal.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::latency::{Latencies, told};
use super::load::Tallies;
use super::report::{grouped, mebibytes};
use super::tally::Tally;

const EACH: Duration = Duration::from_secs(1);

/// Back to the beginning of the line, and behind it nothing.
const LINE_START: &str = "\r";
const LINE_END: &str = "\x1b[K";

/// The line that tells how it goes, where there is a terminal.
pub(crate) struct Live(Option<(Sender<()>, JoinHandle<()>)>);

impl Live {
    /// Starts a thread that writes the line: a terminal that takes nothing holds up that thread alone.
    pub(crate) fn start(tallies: Arc<Tallies>) -> Self {
        if !io::stderr().is_terminal() {
            return Self(None);
        }
        let (end, ended) = mpsc::channel();
        let write = move || {
            let mut before = Moment::of(&tallies.sum());
            while ended.recv_timeout(EACH) == Err(RecvTimeoutError::Timeout) {
                let tally = tallies.sum();
                let now = Moment::of(&tally);
                write(&line(&tally, &before, &now));
                before = now;
            }
            write("");
        };
        // Without it nothing but the line is missing.
        let thread = thread::Builder::new().name("live".into()).spawn(write);
        Self(thread.ok().map(|thread| (end, thread)))
    }

    /// Ends it, and takes the line away.
    pub(crate) fn end(self) {
        if let Some((end, thread)) = self.0 {
            drop(end);
            let _ = thread.join();
        }
    }
}

fn write(line: &str) {
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{LINE_START}{line}{LINE_END}").and_then(|()| stderr.flush());
}

/// What there was at a time.
struct Moment {
    time: Instant,
    messages: u64,
    bytes: u64,
}

impl Moment {
    fn of(tally: &Tally) -> Self {
        let bytes = tally.bytes_sent + tally.bytes_received;
        Self { time: Instant::now(), messages: tally.latencies.count(), bytes }
    }
}

fn line(tally: &Tally, before: &Moment, now: &Moment) -> String {
    let errors = grouped(tally.error_count());
    if now.messages == 0 {
        let connections = grouped(tally.connections);
        return format!("{connections} connections, nothing counted yet, errors {errors}");
    }
    let seconds = (now.time - before.time).as_secs_f64();
    let messages = grouped(((now.messages - before.messages) as f64 / seconds) as u64);
    let bytes = mebibytes((now.bytes - before.bytes) as f64 / seconds);
    let at = |quantile| told(Latencies::at(&tally.latencies, quantile));
    let (p50, p99) = (at(0.5), at(0.99));
    format!("{messages} messages/s, {bytes}/s both ways, p50 {p50}, p99 {p99}, errors {errors}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::tally::Window;

    #[test]
    fn the_line_tells_what_came_since_the_last() {
        let mut tally = Tally::new();
        let start = Instant::now();
        let moment = |tally: &Tally, seconds| Moment {
            time: start + Duration::from_secs(seconds),
            ..Moment::of(tally)
        };
        let before = moment(&tally, 0);
        assert!(line(&tally, &before, &moment(&tally, 1)).contains("nothing counted"));
        tally.window = Some(Window { from: start, until: None });
        (0..3000).for_each(|_| tally.answered(start, start + Duration::from_micros(100)));
        tally.bytes_sent = 4 << 20;
        let line = line(&tally, &before, &moment(&tally, 2));
        assert!(
            line.starts_with("1,500 messages/s, 2.00 MiB/s both ways, p50 100 µs, p99 100"),
            "{line}"
        );
    }
}
