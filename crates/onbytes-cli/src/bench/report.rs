//! What came of a load: as a table for people, as one object for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::content::Expect;
use super::latency::{Latencies, three_digits, told};
use super::load::Outcome;
use super::plan::Plan;
use super::plot;
use super::tally::{Lateness, Tally};
use super::usage::Usage;

/// From this share of the rate that was asked for on it counts as kept.
const KEPT: f64 = 0.99;

/// From this share of the time on it is told that the generator waited for a core.
const WORTH_TELLING: f64 = 0.05;

/// Percentiles that are told: as they are written, as they are named in JSON, and as quantiles.
const PERCENTILES: [(&str, &str, f64); 5] = [
    ("p50", "p50", 0.5),
    ("p90", "p90", 0.9),
    ("p99", "p99", 0.99),
    ("p99.9", "p99_9", 0.999),
    ("p99.99", "p99_99", 0.9999),
];

/// What came of a load.
pub(crate) struct Report<'a> {
    plan: &'a Plan,
    outcome: &'a Outcome,
    tally: &'a Tally,
}

impl<'a> Report<'a> {
    pub(crate) fn new(plan: &'a Plan, outcome: &'a Outcome) -> Self {
        Self { plan, outcome, tally: &outcome.tally }
    }

    /// Whether there were replies, and nothing went wrong.
    pub(crate) fn is_good(&self) -> bool {
        self.tally.error_count() == 0 && !self.tally.latencies.is_empty()
    }

    // ---- As a table ----

    /// The table, with a curve below it where that is wanted.
    pub(crate) fn text(&self, draws: bool) -> String {
        let mut rows = Rows(format!("{}\n{}\n{}\n\n", self.target(), self.who(), self.what()));
        rows.row("messages", &self.messages());
        rows.row("throughput", &self.throughput());
        self.tell_schedule(&mut rows);
        rows.row("connections", &self.connections());
        if self.outcome.server.tls.is_some() {
            rows.row("handshakes", &self.handshakes());
        }
        self.tell_errors(&mut rows);
        self.tell_latency(&mut rows);
        rows.row("generator", &self.generator());
        self.notes().iter().for_each(|note| rows.note(note));
        if draws && !self.tally.latencies.is_empty() {
            let _ = write!(rows.0, "\n{}", plot::text(&self.tally.latencies));
        }
        rows.0
    }

    fn target(&self) -> String {
        let addr = self.outcome.server.addr;
        let Plan { host, port, .. } = self.plan;
        let name = match addr.ip().to_string() == host.trim_matches(['[', ']']) {
            true => addr.to_string(),
            false => format!("{host}:{port} ({addr})"),
        };
        match &self.outcome.server.tls {
            Some(tls) => format!("{name}, {} with {}", tls.version, tls.cipher_suite),
            None => name,
        }
    }

    /// Who sends.
    fn who(&self) -> String {
        let connections = counted(self.plan.connections as u64, "connection");
        let threads = counted(self.plan.threads as u64, "thread");
        match (self.plan.churn, self.plan.depth) {
            (true, _) => format!("{connections} at a time, a new one for each message, {threads}"),
            (false, 1) => format!("{connections}, {threads}"),
            (false, depth) => {
                format!("{connections}, {depth} messages under way on each, {threads}")
            }
        }
    }

    /// What is sent, and what has to come back.
    fn what(&self) -> String {
        let unit = if self.plan.is_framed { "frames" } else { "messages" };
        let pace = match self.plan.rate {
            Some(rate) => format!("open loop at {}/s", number(rate)),
            None => "closed loop".to_owned(),
        };
        let expect = match self.plan.expect {
            Expect::Echo => "every byte compared",
            Expect::Frame => "one frame back for each, not looked at",
            Expect::Nothing => "no reply waited for",
        };
        format!("{unit} of {}, {pace}, {expect}", length(self.plan.size))
    }

    fn messages(&self) -> String {
        let count = grouped(self.tally.latencies.count());
        let seconds = three_digits(self.outcome.elapsed.as_secs_f64());
        let each = grouped(self.per_second(self.tally.answered_in_time) as u64);
        let answered = if self.plan.expect == Expect::Nothing { "sent" } else { "answered" };
        let mut line = format!("{count} {answered} in {seconds} s: {each}/s");
        if self.tally.lost > 0 {
            let _ = write!(line, "; {} lost", grouped(self.tally.lost));
        }
        line
    }

    fn throughput(&self) -> String {
        let each = |bytes| mebibytes(self.per_second(bytes));
        let (sent, received) = (each(self.tally.bytes_sent), each(self.tally.bytes_received));
        format!("{sent}/s sent, {received}/s received")
    }

    fn tell_schedule(&self, rows: &mut Rows) {
        let Some(rate) = self.plan.rate else { return };
        let Lateness { late, longest_queue, unsent } = self.tally.lateness;
        let (asked, sent) = (number(rate), grouped(self.per_second(self.tally.sent) as u64));
        let kept = if late + unsent == 0 { ", all in time" } else { "" };
        rows.row("schedule", &format!("{asked}/s asked for, {sent}/s sent{kept}"));
        if late > 0 {
            let share = three_digits(100.0 * late as f64 / self.tally.sent.max(1) as f64);
            let (late, millis) = (grouped(late), Lateness::TOLERANCE.as_millis());
            let queue = grouped(longest_queue);
            let how = format!("{late} ({share} %) left more than {millis} ms late");
            rows.row("", &format!("{how}, at most {queue} waited at a time"));
        }
        if unsent > 0 {
            rows.row("", &format!("{} were never sent", grouped(unsent)));
        }
    }

    fn connections(&self) -> String {
        let made = grouped(self.tally.connections);
        let (failed, broken) = self.tally.failed_and_broken();
        let all = if self.plan.churn { ", those of the warm-up too" } else { "" };
        format!("{made} made{all}, {} failed, {} broken", grouped(failed), grouped(broken))
    }

    fn handshakes(&self) -> String {
        let Tally { full_handshakes, resumed_handshakes, .. } = self.tally;
        format!("{} full, {} resumed", grouped(*full_handshakes), grouped(*resumed_handshakes))
    }

    fn tell_errors(&self, rows: &mut Rows) {
        if self.tally.error_count() == 0 {
            rows.row("errors", "none");
        }
        for (at, (kind, errors)) in self.tally.errors().enumerate() {
            let first = errors.first.as_deref().unwrap_or_default();
            let which = if errors.count > 1 { "the first: " } else { "" };
            let line = format!("{} × {}: {which}{first}", grouped(errors.count), kind.told());
            rows.row(if at == 0 { "errors" } else { "" }, &line);
        }
    }

    fn tell_latency(&self, rows: &mut Rows) {
        let latencies = &self.tally.latencies;
        if latencies.is_empty() {
            rows.row("latency", "none, because nothing was answered");
            return;
        }
        let ends = [("min", latencies.min()), ("mean", latencies.mean())];
        let percentiles = PERCENTILES.map(|(label, _, quantile)| (label, latencies.at(quantile)));
        let all = ends.into_iter().chain(percentiles).chain([("max", latencies.max())]);
        for (at, (label, time)) in all.enumerate() {
            let (value, unit) = told(time).split_once(' ').map(own).unwrap_or_default();
            let name = if at == 0 { "latency" } else { "" };
            rows.row(name, &format!("{label:<7}{value:>7} {unit}"));
        }
    }

    fn generator(&self) -> String {
        let usage = &self.outcome.usage;
        let each = |share: fn(Usage) -> f64| {
            let shares = usage.iter().map(|usage| percent(share(*usage)));
            shares.collect::<Vec<_>>().join(", ")
        };
        let busy = format!("{} of a core", each(Usage::share));
        match usage.iter().any(|usage| usage.waiting_share() >= WORTH_TELLING) {
            true => format!("{busy}, waited for one {} of the time", each(Usage::waiting_share)),
            false => busy,
        }
    }

    /// What has to be known to read the figures right.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.outcome.was_interrupted {
            notes.push("it was interrupted before its end".to_owned());
        }
        if self.plan.expect == Expect::Nothing {
            notes.push("latency ends when the system has taken a message".to_owned());
        }
        let is_late = self.is_rate_missed();
        if self.is_generator_busy() {
            notes.push(
                "the generator had no time left, so the server may be faster than this: give more \
                 --threads, or run it where it has cores of its own"
                    .to_owned(),
            );
        } else if is_late {
            notes.push(
                "the rate was not kept: all connections waited for the server; more --connections or \
                 --depth may help"
                    .to_owned(),
            );
        }
        if self.tally.lateness.unsent > 0 {
            notes.push(
                "what was never sent has no latency; it would be longer than these".to_owned(),
            );
        }
        if self.tally.lost > 0 {
            notes.push("messages that were lost have no latency".to_owned());
        }
        notes
    }

    fn is_generator_busy(&self) -> bool {
        self.outcome.usage.iter().any(|usage| usage.is_full())
    }

    fn is_rate_missed(&self) -> bool {
        let sent = self.per_second(self.tally.sent);
        self.plan.rate.is_some_and(|rate| sent < KEPT * rate && self.tally.lateness.unsent > 0)
    }

    fn per_second(&self, count: u64) -> f64 {
        match self.outcome.elapsed.as_secs_f64() {
            seconds if seconds > 0.0 => count as f64 / seconds,
            _ => 0.0,
        }
    }

    // ---- As an object ----

    /// One line with one object. Times are in seconds or nanoseconds, sizes in bytes; the names say so.
    pub(crate) fn json(&self) -> String {
        let tally = self.tally;
        let (failed, broken) = tally.failed_and_broken();
        let object = json!({
            "target": {
                "host": self.plan.host,
                "port": self.plan.port,
                "address": self.outcome.server.addr.to_string(),
            },
            "load": self.load_object(),
            "seconds": self.outcome.elapsed.as_secs_f64(),
            "interrupted": self.outcome.was_interrupted,
            "messages": tally.latencies.count(),
            "messages_per_second": self.per_second(tally.answered_in_time),
            "messages_sent": tally.sent,
            "messages_lost": tally.lost,
            "bytes_sent": tally.bytes_sent,
            "bytes_received": tally.bytes_received,
            "bytes_sent_per_second": self.per_second(tally.bytes_sent),
            "bytes_received_per_second": self.per_second(tally.bytes_received),
            "connections": { "made": tally.connections, "failed": failed, "broken": broken },
            "tls": self.tls_object(),
            "errors": self.error_object(),
            "latency_ns": self.latency_object(),
            "schedule": self.schedule_object(),
            "generator": {
                "core_share": self.outcome.usage.iter().map(|usage| usage.share()).collect::<Vec<_>>(),
                "cpu_seconds": self.outcome.usage.iter().map(cpu_seconds).sum::<f64>(),
                "core_wait_share": self.outcome.usage.iter().map(|usage| usage.waiting_share())
                    .collect::<Vec<_>>(),
                "was_bottleneck": self.is_generator_busy(),
            },
            "histogram_ns": tally.latencies.pairs().map(|(time, count)| json!([time, count]))
                .collect::<Vec<_>>(),
        });
        format!("{object}\n")
    }

    fn load_object(&self) -> Value {
        let plan = self.plan;
        json!({
            "connections": plan.connections,
            "threads": plan.threads,
            "depth": plan.depth,
            "size_bytes": plan.size,
            "framed": plan.is_framed,
            "churn": plan.churn,
            "expect": match plan.expect {
                Expect::Echo => "echo",
                Expect::Frame => "frame",
                Expect::Nothing => "nothing",
            },
            "rate_per_second": plan.rate,
            "warmup_seconds": plan.warmup.as_secs_f64(),
            "duration_seconds": plan.duration.map(|duration| duration.as_secs_f64()),
            "messages": plan.messages,
            "timeout_seconds": plan.timeout.as_secs_f64(),
        })
    }

    fn tls_object(&self) -> Value {
        let Some(tls) = &self.outcome.server.tls else { return Value::Null };
        json!({
            "version": tls.version.to_string(),
            "cipher_suite": tls.cipher_suite.to_string(),
            "full_handshakes": self.tally.full_handshakes,
            "resumed_handshakes": self.tally.resumed_handshakes,
        })
    }

    fn error_object(&self) -> Value {
        let kinds = self.tally.errors().map(|(kind, errors)| {
            (kind.name().to_owned(), json!({ "count": errors.count, "first": errors.first }))
        });
        let kinds: Map<_, _> = kinds.collect();
        json!({ "count": self.tally.error_count(), "kinds": kinds })
    }

    fn latency_object(&self) -> Value {
        let latencies = &self.tally.latencies;
        if latencies.is_empty() {
            return Value::Null;
        }
        let ends = [("min", latencies.min()), ("mean", latencies.mean()), ("max", latencies.max())];
        let percentiles = PERCENTILES.map(|(_, name, quantile)| (name, latencies.at(quantile)));
        let all = ends.into_iter().chain(percentiles);
        all.map(|(name, time)| (name.to_owned(), nanos(time))).collect::<Map<_, _>>().into()
    }

    fn schedule_object(&self) -> Value {
        let Some(rate) = self.plan.rate else { return Value::Null };
        let Lateness { late, longest_queue, unsent } = self.tally.lateness;
        json!({
            "rate_per_second": rate,
            "sent_per_second": self.per_second(self.tally.sent),
            "late_messages": late,
            "late_after_ns": nanos(Lateness::TOLERANCE),
            "longest_queue_messages": longest_queue,
            "unsent_messages": unsent,
            "was_kept": !self.is_rate_missed(),
        })
    }

    // ---- As a picture ----

    /// An SVG of latency by percentile.
    pub(crate) fn picture(&self) -> String {
        let latencies: &Latencies = &self.tally.latencies;
        plot::svg(latencies, &self.target(), &format!("{}, {}", self.who(), self.what()))
    }
}

/// Rows of a table with a name each.
struct Rows(String);

impl Rows {
    fn row(&mut self, name: &str, line: &str) {
        let _ = writeln!(self.0, "{name:<13}{line}");
    }

    fn note(&mut self, note: &str) {
        let _ = writeln!(self.0, "note: {note}");
    }
}

fn own((value, unit): (&str, &str)) -> (String, String) {
    (value.to_owned(), unit.to_owned())
}

fn nanos(time: Duration) -> Value {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).into()
}

fn cpu_seconds(usage: &Usage) -> f64 {
    usage.busy.as_secs_f64()
}

fn percent(share: f64) -> String {
    format!("{:.0} %", 100.0 * share)
}

fn counted(count: u64, what: &str) -> String {
    format!("{} {what}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// Bytes in the largest unit in which they are a whole number.
fn length(bytes: usize) -> String {
    match bytes {
        _ if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => format!("{} MiB", bytes >> 20),
        _ if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => format!("{} KiB", bytes >> 10),
        _ => counted(bytes as u64, "byte"),
    }
}

/// A number as it was given, with groups where it is a whole one.
fn number(value: f64) -> String {
    if value.fract() == 0.0 { grouped(value as u64) } else { value.to_string() }
}

/// A whole number with its digits in groups of three.
pub(crate) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Bytes in MiB.
pub(crate) fn mebibytes(bytes: f64) -> String {
    format!("{} MiB", three_digits(bytes / (1 << 20) as f64))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::bench::course::Server;
    use crate::bench::plan::tests::plan;
    use crate::bench::tally::{Fault, Kind, Window};

    fn outcome(messages: u64) -> Outcome {
        let mut tally = Tally::new();
        let from = Instant::now();
        let until = from + Duration::from_secs(10);
        tally.window = Some(Window { from, until: Some(until) });
        tally.connections = 50;
        for number in 0..messages {
            tally.sent(from, from);
            tally.answered(from, from + Duration::from_micros(100 + number));
        }
        tally.bytes_sent = 20 << 20;
        Outcome {
            tally,
            server: Server { addr: "127.0.0.1:3000".parse().unwrap(), tls: None },
            elapsed: Duration::from_secs(10),
            usage: vec![Usage {
                busy: Duration::from_secs(4),
                waiting: Duration::ZERO,
                elapsed: Duration::from_secs(10),
            }],
            was_interrupted: false,
        }
    }

    fn assert_lines(text: &str, lines: &[&str]) {
        lines
            .iter()
            .for_each(|line| assert!(text.lines().any(|it| it == *line), "{line}:\n{text}"));
    }

    #[test]
    fn the_table_tells_what_was_run_and_what_came_of_it() {
        let (plan, outcome) = (plan(&[]), outcome(10_000));
        let report = Report::new(&plan, &outcome);
        assert!(report.is_good());
        let text = report.text(false);
        assert_lines(
            &text,
            &[
                "127.0.0.1:3000",
                "50 connections, 1 thread",
                "messages of 64 bytes, closed loop, every byte compared",
                "messages     10,000 answered in 10.0 s: 1,000/s",
                "throughput   2.00 MiB/s sent, 0.00 MiB/s received",
                "connections  50 made, 0 failed, 0 broken",
                "errors       none",
                "latency      min        100 µs",
                "             max       10.1 ms",
                "generator    40 % of a core",
            ],
        );
        assert!(!text.contains("note:"), "{text}");
        assert!(report.text(true).len() > text.len() + 500);
    }

    #[test]
    fn what_went_wrong_is_told_by_kind_and_makes_the_run_a_bad_one() {
        let (plan, mut outcome) = (plan(&[]), outcome(10));
        outcome.tally.failed(Fault::new(Kind::Wrong, "connection 3: the byte at offset 7"));
        outcome.tally.failed(Fault::new(Kind::Ended, "connection 4: the server ended it"));
        outcome.tally.failed(Fault::new(Kind::Ended, "connection 5: the server ended it"));
        outcome.tally.lost = 3;
        let report = Report::new(&plan, &outcome);
        assert!(!report.is_good());
        assert_lines(
            &report.text(false),
            &[
                "errors       1 × wrong reply: connection 3: the byte at offset 7",
                "             2 × ended by the server: the first: connection 4: the server ended it",
                "messages     10 answered in 10.0 s: 1/s; 3 lost",
            ],
        );
    }

    #[test]
    fn a_run_without_any_reply_is_a_bad_one() {
        let (plan, outcome) = (plan(&[]), outcome(0));
        let report = Report::new(&plan, &outcome);
        assert!(!report.is_good());
        assert!(report.text(true).contains("none, because nothing was answered"));
        let object: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!(object["latency_ns"], Value::Null);
        assert!(report.picture().contains("</svg>"));
    }

    #[test]
    fn a_rate_that_was_not_kept_is_told_with_whose_fault_it_was() {
        let (plan, mut outcome) = (plan(&["--rate", "2000"]), outcome(10_000));
        outcome.tally.lateness = Lateness { late: 9_000, longest_queue: 10_000, unsent: 10_000 };
        let text = Report::new(&plan, &outcome).text(false);
        assert_lines(
            &text,
            &[
                "schedule     2,000/s asked for, 1,000/s sent",
                "             9,000 (90.0 %) left more than 1 ms late, at most 10,000 waited at a time",
                "             10,000 were never sent",
            ],
        );
        assert!(text.contains("all connections waited for the server"), "{text}");
        outcome.usage[0].waiting = Duration::from_secs(6);
        let text = Report::new(&plan, &outcome).text(false);
        assert!(text.contains("the generator had no time left"), "{text}");
        assert!(!text.contains("waited for the server"), "{text}");
        assert_lines(&text, &["generator    40 % of a core, waited for one 60 % of the time"]);
    }

    #[test]
    fn the_object_has_base_units_and_the_whole_histogram() {
        let (plan, outcome) = (plan(&["--rate", "1000"]), outcome(10_000));
        let text = Report::new(&plan, &outcome).json();
        assert!(text.ends_with("}\n") && text.matches('\n').count() == 1);
        let object: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(object["messages"], 10_000);
        assert_eq!(object["messages_per_second"], 1000.0);
        assert_eq!(object["latency_ns"]["min"], 100_000);
        assert_eq!(object["latency_ns"]["max"], 10_099_000);
        assert_eq!(object["schedule"]["was_kept"], true);
        assert_eq!(object["tls"], Value::Null);
        let pairs = object["histogram_ns"].as_array().unwrap();
        let sum: u64 = pairs.iter().map(|pair| pair[1].as_u64().unwrap()).sum();
        assert_eq!(sum, 10_000);
    }

    #[test]
    fn numbers_are_grouped() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(count), text);
        }
        assert_eq!(number(0.5), "0.5");
        for (bytes, text) in
            [(1, "1 byte"), (1000, "1,000 bytes"), (1024, "1 KiB"), (3 << 20, "3 MiB")]
        {
            assert_eq!(length(bytes), text);
        }
    }
}
