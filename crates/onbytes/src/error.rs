//! The one error type of the crate and its kinds.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::sync::Arc;

/// The result type of every fallible call and callback of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, in one line, with its kind and its cause.
///
/// An `Error` is one word wide and cheap to clone. Its `Display` names the step and the thing, in
/// lower case, without repeating the cause; the cause is [`source`](std::error::Error::source).
///
/// In callbacks `?` works on `io::Error`, UTF-8 errors, a boxed error and plain strings, which turn
/// into an `Error` of kind [`ErrorKind::Service`]; any other error is boxed or worded first.
///
/// ```
/// use onbytes::{Error, ErrorKind};
///
/// fn decode(data: &[u8]) -> onbytes::Result<&str> {
///     Ok(std::str::from_utf8(data)?)
/// }
///
/// let error: Error = decode(b"\xff").unwrap_err();
/// assert_eq!(error.kind(), ErrorKind::Service);
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kinds of [`Error`], grouped by who can do something about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// You: a configured value is impossible, or a file it names cannot be used.
    Configuration,
    /// You: a call came at the wrong time, such as starting a listener twice.
    State,
    /// You: the listener cannot have its address (in use, not local, not permitted, unknown name).
    Bind,
    /// The network: no address of the peer could be reached.
    Connect,
    /// The connection is closed, or closing, for writes.
    Closed,
    /// The connection's write queue has no room now.
    Full,
    /// A bound of the whole listener was reached, and this connection had to go.
    Limit,
    /// A time limit passed.
    Timeout,
    /// The peer: it reset the connection.
    Reset,
    /// The peer: it ended a TLS connection without saying so (close_notify), so what it sent last
    /// may be missing.
    Truncated,
    /// The peer and we do not come together over TLS, or it does not keep to the protocol.
    Tls,
    /// The peer: what it sent is no frame of the [`Framing`](crate::Framing). Or your service: what it
    /// wants to send cannot be one.
    Frame,
    /// The network or the system: any other failure of the socket.
    Io,
    /// Your service: an error that a callback returned.
    Service,
}

impl Error {
    /// Makes an error of kind [`ErrorKind::Service`] with a message of your own.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self::of(ErrorKind::Service, message)
    }

    pub(crate) fn of(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), source: None }))
    }

    pub(crate) fn caused(
        kind: ErrorKind,
        message: impl Into<Cow<'static, str>>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), source: Some(source.into()) }))
    }

    pub(crate) fn configuration(message: impl Into<Cow<'static, str>>) -> Self {
        Self::of(ErrorKind::Configuration, message)
    }

    pub(crate) fn closed() -> Self {
        Self::of(ErrorKind::Closed, "the connection is closed")
    }

    /// The error for a transport that failed while `step` (reading, writing) was under way.
    pub(crate) fn transport(step: &'static str, error: io::Error) -> Self {
        // What TLS has found wrong is told in its own words.
        let error = match error.downcast::<Self>() {
            Ok(told) => return told,
            Err(error) => error,
        };
        match error.kind() {
            io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::BrokenPipe => {
                Self::caused(ErrorKind::Reset, "the peer reset the connection", error)
            }
            io::ErrorKind::TimedOut => {
                Self::caused(ErrorKind::Timeout, "the peer stopped answering", error)
            }
            _ => Self::caused(ErrorKind::Io, format!("{step} failed"), error),
        }
    }

    /// The kind of this error.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Is this a time limit that passed?
    pub fn is_timeout(&self) -> bool {
        self.kind() == ErrorKind::Timeout
    }

    /// Did the call fail because the connection is closed or closing?
    pub fn is_closed(&self) -> bool {
        self.kind() == ErrorKind::Closed
    }

    /// Did the call fail because the write queue had no room?
    pub fn is_full(&self) -> bool {
        self.kind() == ErrorKind::Full
    }

    /// Is a configured value, or a file that it names, to blame?
    pub fn is_configuration(&self) -> bool {
        self.kind() == ErrorKind::Configuration
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.0.source {
            Some(source) => Some(source.as_ref()),
            None => None,
        }
    }
}

impl From<Box<dyn std::error::Error + Send + Sync>> for Error {
    fn from(error: Box<dyn std::error::Error + Send + Sync>) -> Self {
        // An `Error` that travelled in a box is still the same error.
        match error.downcast::<Self>() {
            Ok(error) => *error,
            Err(error) => Self::caused(ErrorKind::Service, "the service failed", error),
        }
    }
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        // An `Error` that went through an `io` trait is still the same error.
        match error.downcast::<Self>() {
            Ok(error) => error,
            Err(error) => Self::caused(ErrorKind::Service, "the service failed", error),
        }
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Configuration => io::ErrorKind::InvalidInput,
            ErrorKind::Closed => io::ErrorKind::BrokenPipe,
            ErrorKind::Full => io::ErrorKind::WouldBlock,
            ErrorKind::Timeout => io::ErrorKind::TimedOut,
            ErrorKind::Reset => io::ErrorKind::ConnectionReset,
            ErrorKind::Truncated => io::ErrorKind::UnexpectedEof,
            ErrorKind::Tls => io::ErrorKind::InvalidData,
            _ => io::ErrorKind::Other,
        };
        io::Error::new(kind, error)
    }
}

impl From<std::str::Utf8Error> for Error {
    fn from(error: std::str::Utf8Error) -> Self {
        Self::caused(ErrorKind::Service, "the data is not UTF-8", error)
    }
}

impl From<std::string::FromUtf8Error> for Error {
    fn from(error: std::string::FromUtf8Error) -> Self {
        Self::caused(ErrorKind::Service, "the data is not UTF-8", error)
    }
}

impl From<&'static str> for Error {
    fn from(message: &'static str) -> Self {
        Self::new(message)
    }
}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self::new(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::error::Error as _;

    #[test]
    fn is_one_word_wide() {
        assert_eq!(size_of::<Option<Error>>(), size_of::<usize>());
    }

    #[test]
    fn keeps_its_identity_through_a_box_and_through_io() {
        let error = Error::closed();
        let boxed: Box<dyn std::error::Error + Send + Sync> = Box::new(error.clone());
        assert!(Arc::ptr_eq(&Error::from(boxed).0, &error.0));
        assert!(Arc::ptr_eq(&Error::from(io::Error::from(error.clone())).0, &error.0));
    }

    #[test]
    fn message_does_not_repeat_its_cause() {
        let error = Error::transport("reading", io::Error::other("boom"));
        assert_eq!(error.to_string(), "reading failed");
        assert_eq!(error.source().unwrap().to_string(), "boom");
    }

    #[test]
    fn transport_failures_are_told_apart() {
        let kind = |kind| Error::transport("reading", io::Error::from(kind)).kind();
        assert_eq!(kind(io::ErrorKind::ConnectionReset), ErrorKind::Reset);
        assert_eq!(kind(io::ErrorKind::BrokenPipe), ErrorKind::Reset);
        assert_eq!(kind(io::ErrorKind::TimedOut), ErrorKind::Timeout);
        assert_eq!(kind(io::ErrorKind::OutOfMemory), ErrorKind::Io);
    }
}
