//! How requests are matched with their replies, and how long anything may take.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::config::{in_range, not_zero, setters};
use crate::{
    ClientConfiguration, Error, ErrorKind, Framing, Malformed, Oversize, PartialFrame, Result,
};

/// How a [`RequestClient`](crate::RequestClient) connects, matches and waits.
#[derive(Clone)]
#[non_exhaustive]
pub struct RequestConfiguration {
    /// How each connection is made. It needs a `framing`. Its `timeout` is not used: the connection may be
    /// quiet, requests have a time limit of their own.
    pub client: ClientConfiguration,
    /// Which frame answers which request. Default: one request at a time.
    pub matching: Matching,
    /// The longest wait for a reply, from when the request is made. Default: 30 s.
    pub timeout: Duration,
    /// When a connection is tried again; `None`: never, and the client is over when its connection is.
    /// Default: after 100 ms, then at longer and longer times up to 30 s, until a request was answered.
    pub reconnect: Option<Backoff>,
    /// What is sent when nothing else was sent or received for a while. Default: nothing.
    pub heartbeat: Option<Heartbeat>,
    /// How many requests may wait for a connection, or for their turn. Default: 1024.
    pub max_waiting: usize,
    /// Gets the frames that answer nothing: notifications, and replies that came too late.
    pub on_unmatched: Option<Hook>,
}

type Hook = Arc<dyn Fn(Bytes) + Send + Sync>;
type KeyOf = Arc<dyn Fn(&Bytes) -> Option<Bytes> + Send + Sync>;

/// Which frame answers which request.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum Matching {
    /// One request is in flight at a time, and the next frame answers it.
    #[default]
    OneAtATime,
    /// Up to so many requests are in flight, and are answered in their order.
    InOrder(usize),
    /// A request is answered by the frame that has its key: [`Matching::by_key`].
    ByKey(Keys),
}

/// How the keys of requests and replies are found.
#[derive(Clone)]
pub struct Keys {
    of_request: KeyOf,
    of_reply: KeyOf,
}

/// When a lost connection is tried again: after a time that doubles with each failure, up to a longest one.
/// Each time is shortened by up to a half at random, so that many clients do not all come at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Backoff {
    /// The first time. Default: 100 ms.
    pub first: Duration,
    /// The longest time. Default: 30 s.
    pub longest: Duration,
}

/// A frame that keeps a connection alive, or shows that it is dead.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Heartbeat {
    /// The frame.
    pub frame: Bytes,
    /// It is sent when nothing was sent or received for so long.
    pub every: Duration,
    /// Whether it is answered, as a request is. Where the answer does not come in `timeout`, the connection
    /// is given up. Default: `false`.
    pub expects_reply: bool,
}

impl RequestConfiguration {
    /// The defaults, for connections as `client` says.
    pub fn new(client: ClientConfiguration) -> Self {
        Self {
            client,
            matching: Matching::default(),
            timeout: Duration::from_secs(30),
            reconnect: Some(Backoff::default()),
            heartbeat: None,
            max_waiting: 1024,
            on_unmatched: None,
        }
    }

    /// Calls `hook` for each frame that answers nothing. It runs on the client's task, so it should be quick
    /// and must not block.
    #[must_use]
    pub fn on_unmatched(mut self, hook: impl Fn(Bytes) + Send + Sync + 'static) -> Self {
        self.on_unmatched = Some(Arc::new(hook));
        self
    }

    /// Tells whether all values can be; nothing is opened.
    ///
    /// # Errors
    ///
    /// `Configuration`, for the first value that cannot be, by name.
    pub fn check(&self) -> Result<()> {
        self.client.check()?;
        let Some(framing) = &self.client.framing else { return Err(without_framing()) };
        self.check_replies(framing)?;
        if let Matching::InOrder(most) = &self.matching {
            in_range("matching: requests in flight", *most, 1, MOST_IN_FLIGHT)?;
        }
        not_zero("timeout", Some(self.timeout))?;
        in_range("max_waiting", self.max_waiting, 1, MOST_WAITING)?;
        if let Some(backoff) = &self.reconnect {
            not_zero("reconnect.first", Some(backoff.first))?;
            if backoff.longest < backoff.first {
                return Err(Error::configuration("reconnect.longest must not be below first"));
            }
        }
        let Some(heartbeat) = &self.heartbeat else { return Ok(()) };
        not_zero("heartbeat.every", Some(heartbeat.every))?;
        let wrong = |error: Error| Error::configuration(format!("heartbeat.frame: {error}"));
        framing.encode(&heartbeat.frame).map_err(wrong)?;
        if heartbeat.expects_reply {
            self.matching.key_of_request(&heartbeat.frame).map_err(wrong)?;
        }
        Ok(())
    }

    /// A reply that is cut, or one that is missing in a row, would be a wrong answer.
    fn check_replies(&self, framing: &Framing) -> Result<()> {
        let may_be_cut =
            framing.oversize == Oversize::Truncate || framing.partial == PartialFrame::Deliver;
        if may_be_cut {
            return Err(Error::configuration(
                "client.framing: a reply must not be cut; take oversize=close and partial=report",
            ));
        }
        let may_be_missing =
            framing.oversize == Oversize::Skip || framing.malformed == Malformed::Skip;
        if may_be_missing && !matches!(self.matching, Matching::ByKey(_)) {
            return Err(Error::configuration(
                "client.framing: replies in order must not be skipped; take oversize=close and \
                 malformed=close",
            ));
        }
        Ok(())
    }

    /// When a request that is made now has to be answered.
    pub(super) fn deadline(&self) -> Instant {
        /// What lies beyond what clocks count is taken for this, 30 years.
        const NEVER: Duration = Duration::from_secs(30 * 365 * 86_400);
        Instant::now() + self.timeout.min(NEVER)
    }

    /// How a connection is made: it may be quiet.
    pub(super) fn of_connection(&self) -> ClientConfiguration {
        self.client.clone().timeout(None)
    }
}

/// The most requests in flight.
const MOST_IN_FLIGHT: usize = 1 << 20;

const MOST_WAITING: usize = 1 << 20;

pub(super) fn without_framing() -> Error {
    Error::configuration("client.framing: requests and replies are frames; say which")
}

impl Matching {
    /// How many requests are in flight at most, where replies are matched by key.
    const BY_KEY: usize = 1024;

    /// A request is answered by the frame that has its key, such as Modbus' transaction identifier or HL7's
    /// control id; up to 1024 are in flight.
    ///
    /// `of_request` finds the key of a request; one that has none is an error. `of_reply` finds the key that
    /// a frame answers; one that answers nothing goes to
    /// [`on_unmatched`](RequestConfiguration::on_unmatched). A key may be used again when its request was
    /// answered.
    ///
    /// ```
    /// use onbytes::Matching;
    ///
    /// // Modbus/TCP: the first two bytes of both.
    /// let matching = Matching::by_key(
    ///     |request| (request.len() >= 2).then(|| request.slice(..2)),
    ///     |reply| (reply.len() >= 2).then(|| reply.slice(..2)),
    /// );
    /// # drop(matching);
    /// ```
    pub fn by_key(
        of_request: impl Fn(&Bytes) -> Option<Bytes> + Send + Sync + 'static,
        of_reply: impl Fn(&Bytes) -> Option<Bytes> + Send + Sync + 'static,
    ) -> Self {
        Self::ByKey(Keys { of_request: Arc::new(of_request), of_reply: Arc::new(of_reply) })
    }

    /// How many requests may be in flight.
    pub(super) fn most(&self) -> usize {
        match self {
            Self::OneAtATime => 1,
            Self::InOrder(most) => *most,
            Self::ByKey(_) => Self::BY_KEY,
        }
    }

    pub(super) fn key_of_request(&self, request: &Bytes) -> Result<Option<Bytes>> {
        let Self::ByKey(keys) = self else { return Ok(None) };
        match (keys.of_request)(request) {
            // A copy, because it may be kept longer than the request.
            Some(key) => Ok(Some(Bytes::copy_from_slice(&key))),
            None => Err(Error::of(ErrorKind::State, "the request has no key to know its reply by")),
        }
    }
}

impl Keys {
    pub(super) fn of_reply(&self, reply: &Bytes) -> Option<Bytes> {
        (self.of_reply)(reply)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl fmt::Debug for RequestConfiguration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestConfiguration")
            .field("client", &self.client)
            .field("matching", &self.matching)
            .field("timeout", &self.timeout)
            .field("reconnect", &self.reconnect)
            .field("heartbeat", &self.heartbeat)
            .field("max_waiting", &self.max_waiting)
            .field("on_unmatched", &self.on_unmatched.is_some())
            .finish()
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self { first: Duration::from_millis(100), longest: Duration::from_secs(30) }
    }
}

impl Backoff {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// The time after so many failures, given a number from 0 to 1 that looks random.
    fn after(&self, failures: u32, share: f64) -> Duration {
        let doubled = self.first.saturating_mul(1u32.checked_shl(failures).unwrap_or(u32::MAX));
        doubled.min(self.longest).mul_f64(1.0 - share / 2.0)
    }
}

/// How often there was no connection that was of use, one after the other.
#[derive(Debug, Default)]
pub(super) struct Failures(u32);

impl Failures {
    /// There is no connection any more; tells how long to wait before the next try. One that answered
    /// nothing was as good as none, so that a server that greets and hangs up is not called without a pause.
    pub(super) fn pause(&mut self, backoff: &Backoff, was_of_use: bool, share: f64) -> Duration {
        if was_of_use {
            self.0 = 0;
        }
        let pause = backoff.after(self.0, share);
        self.0 = self.0.saturating_add(1);
        pause
    }
}

impl Heartbeat {
    /// Sends `frame` when nothing was sent or received for `every`.
    pub fn new(frame: impl Into<Bytes>, every: Duration) -> Self {
        Self { frame: frame.into(), every, expects_reply: false }
    }
}

setters! { RequestConfiguration {
    client: ClientConfiguration => client;
    matching: Matching => matching;
    timeout: Duration => timeout;
    reconnect: impl Into<Option<Backoff>> => reconnect.into();
    heartbeat: impl Into<Option<Heartbeat>> => heartbeat.into();
    max_waiting: usize => max_waiting;
}}

setters! { Backoff {
    first: Duration => first;
    longest: Duration => longest;
}}

setters! { Heartbeat {
    expects_reply: bool => expects_reply;
}}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed() -> RequestConfiguration {
        RequestConfiguration::new(ClientConfiguration::new().framing(Framing::lines()))
    }

    #[test]
    fn times_between_tries_double_and_end_at_the_longest() {
        let backoff = Backoff::new();
        let times: Vec<_> = (0..12).map(|failures| backoff.after(failures, 0.0)).collect();
        assert_eq!(times[0], Duration::from_millis(100));
        assert_eq!(times[3], Duration::from_millis(800));
        assert_eq!(times[11], Duration::from_secs(30));
        assert_eq!(backoff.after(u32::MAX, 1.0), Duration::from_secs(15));
    }

    #[test]
    fn a_connection_that_was_of_no_use_counts_as_a_failure() {
        let (backoff, mut failures) = (Backoff::new(), Failures::default());
        let mut pause = |was_of_use| failures.pause(&backoff, was_of_use, 0.0).as_millis();
        assert_eq!([pause(false), pause(false), pause(false)], [100, 200, 400]);
        assert_eq!([pause(true), pause(false), pause(true)], [100, 200, 100]);
    }

    #[test]
    fn values_that_cannot_be_are_refused_by_name() {
        let refused = |config: RequestConfiguration| config.check().unwrap_err().to_string();
        assert!(framed().check().is_ok());
        let bare = RequestConfiguration::new(ClientConfiguration::new());
        assert!(refused(bare).contains("client.framing"));
        assert!(refused(framed().matching(Matching::InOrder(0))).contains("in flight"));
        assert!(refused(framed().timeout(Duration::ZERO)).contains("timeout"));
        assert!(refused(framed().max_waiting(0)).contains("max_waiting"));
        assert!(
            refused(framed().reconnect(Backoff::new().first(Duration::ZERO))).contains("first")
        );
        let never = Heartbeat::new("x", Duration::ZERO);
        assert!(refused(framed().heartbeat(never)).contains("heartbeat.every"));
        let two = Heartbeat::new("a\nb", Duration::from_secs(1));
        assert!(refused(framed().heartbeat(two)).contains("heartbeat.frame"));
    }
}
