//! What is counted while a load runs: one tally for each thread, and their sum.

use std::time::{Duration, Instant};

use onbytes::TlsInfo;

use super::latency::Latencies;

/// What can go wrong with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    NotConnected,
    NoPortLeft,
    Handshake,
    Wrong,
    Ended,
    Reset,
    Silent,
    Other,
}

impl Kind {
    pub(crate) const ALL: [Self; 8] = [
        Self::NotConnected,
        Self::NoPortLeft,
        Self::Handshake,
        Self::Wrong,
        Self::Ended,
        Self::Reset,
        Self::Silent,
        Self::Other,
    ];

    /// In a table, for people.
    pub(crate) fn told(self) -> &'static str {
        match self {
            Self::NotConnected => "not connected",
            Self::NoPortLeft => "no local port left",
            Self::Handshake => "handshake failed",
            Self::Wrong => "wrong reply",
            Self::Ended => "ended by the server",
            Self::Reset => "reset by the server",
            Self::Silent => "no reply in time",
            Self::Other => "other",
        }
    }

    /// In JSON, for programs.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NotConnected => "not_connected",
            Self::NoPortLeft => "no_local_port",
            Self::Handshake => "handshake",
            Self::Wrong => "wrong_reply",
            Self::Ended => "ended",
            Self::Reset => "reset",
            Self::Silent => "no_reply",
            Self::Other => "other",
        }
    }
}

/// Something that went wrong with a connection.
#[derive(Debug, Clone)]
pub(crate) struct Fault {
    pub(crate) kind: Kind,
    pub(crate) line: String,
}

impl Fault {
    pub(crate) fn new(kind: Kind, line: impl Into<String>) -> Self {
        Self { kind, line: line.into() }
    }
}

/// How often something went wrong, and the first time in words.
#[derive(Debug, Clone, Default)]
pub(crate) struct Errors {
    pub(crate) count: u64,
    pub(crate) first: Option<String>,
}

/// The time in which messages count: from its start, and until its end where that is known.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Window {
    pub(crate) from: Instant,
    pub(crate) until: Option<Instant>,
}

impl Window {
    /// Whether something that happened at `time` is within.
    pub(crate) fn has(&self, time: Instant) -> bool {
        time >= self.from && self.until.is_none_or(|until| time < until)
    }
}

/// The counts of a thread, or of all.
#[derive(Debug, Clone)]
pub(crate) struct Tally {
    /// Until it is known nothing counts.
    pub(crate) window: Option<Window>,
    pub(crate) latencies: Latencies,
    /// Messages that were begun within the window.
    pub(crate) sent: u64,
    /// Replies that came within the window, to messages that were begun there.
    pub(crate) answered_in_time: u64,
    /// Messages that were given up.
    pub(crate) lost: u64,
    pub(crate) bytes_sent: u64,
    pub(crate) bytes_received: u64,
    /// When the last reply came.
    pub(crate) last: Option<Instant>,
    pub(crate) connections: u64,
    pub(crate) full_handshakes: u64,
    pub(crate) resumed_handshakes: u64,
    errors: [Errors; Kind::ALL.len()],
    pub(crate) lateness: Lateness,
}

/// How well an open loop kept to its schedule.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lateness {
    /// Messages that left late.
    pub(crate) late: u64,
    /// The most that were due and not sent yet.
    pub(crate) longest_queue: u64,
    /// Messages that were due and never sent.
    pub(crate) unsent: u64,
}

impl Lateness {
    /// What leaves later than so long after it was due is late.
    pub(crate) const TOLERANCE: Duration = Duration::from_millis(1);
}

impl Tally {
    pub(crate) fn new() -> Self {
        Self {
            window: None,
            latencies: Latencies::new(),
            sent: 0,
            answered_in_time: 0,
            lost: 0,
            bytes_sent: 0,
            bytes_received: 0,
            last: None,
            connections: 0,
            full_handshakes: 0,
            resumed_handshakes: 0,
            errors: Default::default(),
            lateness: Lateness::default(),
        }
    }

    /// Whether a message that was begun at `time` counts.
    pub(crate) fn counts(&self, begun: Instant) -> bool {
        self.window.is_some_and(|window| window.has(begun))
    }

    pub(crate) fn connected(&mut self, tls: Option<&TlsInfo>) {
        self.connections += 1;
        match tls {
            Some(tls) if tls.resumed => self.resumed_handshakes += 1,
            Some(_) => self.full_handshakes += 1,
            None => {}
        }
    }

    /// A message that was begun at `begun` is on its way at `now`.
    pub(crate) fn sent(&mut self, begun: Instant, now: Instant) {
        if self.counts(begun) {
            self.sent += 1;
            let delay = now.saturating_duration_since(begun);
            self.lateness.late += u64::from(delay > Lateness::TOLERANCE);
        }
    }

    pub(crate) fn sent_bytes(&mut self, count: usize, now: Instant) {
        if self.counts(now) {
            self.bytes_sent += count as u64;
        }
    }

    pub(crate) fn received_bytes(&mut self, count: usize, now: Instant) {
        if self.counts(now) {
            self.bytes_received += count as u64;
        }
    }

    /// The message that was begun at `begun` is complete at `now`.
    pub(crate) fn answered(&mut self, begun: Instant, now: Instant) {
        if !self.counts(begun) {
            return;
        }
        self.latencies.record(now.saturating_duration_since(begun));
        self.answered_in_time += u64::from(self.counts(now));
        self.last = Some(now);
    }

    /// The message that was begun at `begun` is given up.
    pub(crate) fn lost(&mut self, begun: Instant) {
        self.lost += u64::from(self.counts(begun));
    }

    pub(crate) fn failed(&mut self, fault: Fault) {
        let errors = &mut self.errors[fault.kind as usize];
        errors.count += 1;
        errors.first.get_or_insert(fault.line);
    }

    /// What went wrong, by kind; only what did.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (Kind, &Errors)> {
        Kind::ALL.into_iter().zip(&self.errors).filter(|(_, errors)| errors.count > 0)
    }

    pub(crate) fn error_count(&self) -> u64 {
        self.errors.iter().map(|errors| errors.count).sum()
    }

    /// How often connecting failed, and how often a connection that was made.
    pub(crate) fn failed_and_broken(&self) -> (u64, u64) {
        let is_first =
            |kind| matches!(kind, Kind::NotConnected | Kind::NoPortLeft | Kind::Handshake);
        let failed = self.errors().filter(|(kind, _)| is_first(*kind));
        let failed = failed.map(|(_, errors)| errors.count).sum();
        (failed, self.error_count() - failed)
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.window = self.window.or(other.window);
        self.latencies.add(&other.latencies);
        self.sent += other.sent;
        self.answered_in_time += other.answered_in_time;
        self.lost += other.lost;
        self.bytes_sent += other.bytes_sent;
        self.bytes_received += other.bytes_received;
        self.last = self.last.max(other.last);
        self.connections += other.connections;
        self.full_handshakes += other.full_handshakes;
        self.resumed_handshakes += other.resumed_handshakes;
        self.lateness.late += other.lateness.late;
        self.lateness.unsent += other.lateness.unsent;
        self.lateness.longest_queue += other.lateness.longest_queue;
        for (own, errors) in self.errors.iter_mut().zip(&other.errors) {
            own.count += errors.count;
            own.first = own.first.take().or_else(|| errors.first.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_messages_that_were_begun_within_the_window_count() {
        let mut tally = Tally::new();
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        tally.answered(at(0), at(1));
        assert!(tally.latencies.is_empty());
        tally.window = Some(Window { from: at(10), until: Some(at(20)) });
        for (begun, done) in [(9, 11), (10, 12), (19, 25), (20, 21)] {
            tally.sent(at(begun), at(begun));
            tally.answered(at(begun), at(done));
        }
        assert_eq!((tally.sent, tally.latencies.count()), (2, 2));
        assert_eq!(tally.answered_in_time, 1);
        assert_eq!(tally.latencies.max(), Duration::from_millis(6));
    }

    #[test]
    fn errors_add_up_by_kind_and_the_first_is_told() {
        let (mut one, mut other) = (Tally::new(), Tally::new());
        one.failed(Fault::new(Kind::Wrong, "first"));
        one.failed(Fault::new(Kind::Wrong, "second"));
        other.failed(Fault::new(Kind::NotConnected, "refused"));
        other.add(&one);
        let told: Vec<_> = other
            .errors()
            .map(|(kind, errors)| (kind, errors.count, errors.first.as_deref().unwrap()))
            .collect();
        assert_eq!(told, [(Kind::NotConnected, 1, "refused"), (Kind::Wrong, 2, "first")]);
        assert_eq!(other.failed_and_broken(), (1, 2));
    }
}
