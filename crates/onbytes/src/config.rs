//! The configuration records: plain data that can grow.
//!
//! With the `serde` feature every record is read and written in the connector's camelCase, with
//! times in decimal seconds; unknown fields are refused with the accepted names.

use std::time::Duration;

use crate::{Error, Result};

/// Writes the consuming setters of a record.
macro_rules! setters {
    ($record:ident { $($field:ident: $type:ty => $value:expr;)* }) => {
        impl $record {
            $(
                #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
                #[must_use]
                pub fn $field(mut self, $field: $type) -> Self {
                    self.$field = $value;
                    self
                }
            )*
        }
    };
}
pub(crate) use setters;

mod client;
mod limits;
mod socket;
mod timeouts;
mod workers;

pub use client::ClientConfiguration;
pub use limits::{Limits, PerSource, WhenFull};
pub use socket::{KeepAlive, SocketOptions};
pub use timeouts::{MinArrival, Timeouts};
pub use workers::Workers;

/// How a [`Listener`](crate::Listener) listens and treats its connections.
///
/// ```
/// use std::time::Duration;
/// use onbytes::{Limits, ListenerConfiguration, Timeouts};
///
/// let config = ListenerConfiguration::new()
///     .local_host("127.0.0.1")
///     .limits(Limits::new().max_connections(10_000))
///     .timeouts(Timeouts::new().idle(Duration::from_secs(300)));
/// assert_eq!(config.timeouts.idle, Some(Duration::from_secs(300)));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, rename_all = "camelCase"))]
pub struct ListenerConfiguration {
    /// The host name or address to listen on, for an endpoint that names only a port. A name means
    /// its first address that can be had. Default: all interfaces, IPv4 and IPv6.
    pub local_host: Option<String>,
    /// Whether a connection stays open for writing after the peer has sent FIN, until the service
    /// closes it. Default: `false`.
    pub allow_half_open: bool,
    /// How connections are secured. Default: they are not (plain TCP).
    #[cfg(feature = "_tls")]
    pub secure_socket: Option<crate::ListenerSecureSocket>,
    /// How frames are told apart, so that one call of `on_bytes` is one frame. Default: they are not, and
    /// a call is a chunk.
    pub framing: Option<crate::Framing>,
    /// Bounds on what peers can make the listener hold, and on who may come in.
    pub limits: Limits,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Options of the sockets.
    pub socket: SocketOptions,
    /// Where connections run. A number means so many threads of the listener's own. Default: on the
    /// runtime of whoever starts the listener.
    pub workers: Workers,
}

impl Default for ListenerConfiguration {
    fn default() -> Self {
        Self {
            local_host: None,
            allow_half_open: false,
            #[cfg(feature = "_tls")]
            secure_socket: None,
            framing: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            socket: SocketOptions::default(),
            workers: Workers::Current,
        }
    }
}

impl ListenerConfiguration {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells whether all values can be; nothing is opened. [`Listener::new`](crate::Listener::new)
    /// does the same.
    ///
    /// # Errors
    ///
    /// `Configuration`, for the first value that cannot be, by name.
    pub fn check(&self) -> Result<()> {
        check_local_host(self.local_host.as_deref())?;
        #[cfg(feature = "_tls")]
        if let Some(secure) = &self.secure_socket {
            secure.check()?;
        }
        if let Some(framing) = &self.framing {
            framing.check()?;
        }
        self.limits.check()?;
        self.timeouts.check()?;
        self.socket.check()?;
        self.workers.check()
    }
}

setters! { ListenerConfiguration {
    framing: impl Into<Option<crate::Framing>> => framing.into();
    local_host: impl Into<String> => Some(local_host.into());
    allow_half_open: bool => allow_half_open;
    limits: Limits => limits;
    timeouts: Timeouts => timeouts;
    socket: SocketOptions => socket;
    workers: impl Into<Workers> => workers.into();
}}

#[cfg(feature = "_tls")]
setters! { ListenerConfiguration {
    secure_socket: impl Into<Option<crate::ListenerSecureSocket>> => secure_socket.into();
}}

pub(crate) fn not_zero(name: &str, time: Option<Duration>) -> Result<()> {
    if time == Some(Duration::ZERO) {
        return Err(Error::configuration(format!(
            "{name} must be more than 0 s; to switch it off, use None (\"off\" in files)"
        )));
    }
    Ok(())
}

/// Whether a local host, where one is given, can be one.
fn check_local_host(host: Option<&str>) -> Result<()> {
    let Some(host) = host else { return Ok(()) };
    crate::endpoint::check_name(host)
        .map_err(|error| Error::configuration(format!("local_host: {error}")))
}

pub(crate) fn in_range(name: &str, count: usize, least: usize, most: usize) -> Result<()> {
    if (least..=most).contains(&count) {
        return Ok(());
    }
    let possible = match most {
        usize::MAX => format!("at least {least}"),
        _ => format!("from {least} to {most}"),
    };
    Err(Error::configuration(format!("{name} must be {possible}, not {count}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(config: &ListenerConfiguration) -> String {
        let error = config.check().unwrap_err();
        assert!(error.is_configuration());
        error.to_string()
    }

    #[test]
    fn impossible_values_are_refused_by_name() {
        let zero = Timeouts::new().idle(Duration::ZERO);
        let config = ListenerConfiguration::new();
        assert!(refused(&config.clone().timeouts(zero)).starts_with("timeouts.idle"));
        assert!(
            refused(&config.clone().limits(Limits::new().max_connections(0)))
                .starts_with("limits.max_connections must be from 1 to")
        );
        let short = KeepAlive::new().idle(Duration::from_millis(10));
        assert!(
            refused(&config.clone().socket(SocketOptions::new().keep_alive(short)))
                .contains("socket.keep_alive.idle")
        );
        assert!(refused(&config.clone().workers(0)).starts_with("workers"));
        assert!(refused(&config.clone().local_host("x".repeat(5_000))).starts_with("local_host"));
        assert!(refused(&config.socket(SocketOptions::new().backlog(0))).contains("backlog"));
    }

    #[test]
    fn impossible_bounds_are_refused_by_name() {
        let limits = |limits: Limits| refused(&ListenerConfiguration::new().limits(limits));
        let per_source = |per_source| limits(Limits::new().per_source(per_source));
        assert!(limits(Limits::new().max_queued_bytes(0)).contains("max_queued_bytes"));
        assert!(limits(Limits::new().max_queued_bytes_total(0)).contains("at least 1, not 0"));
        assert!(limits(Limits::new().max_memory(1000)).contains("max_memory"));
        assert!(per_source(PerSource::new().max_connections(0)).contains("max_connections"));
        assert!(per_source(PerSource::new().ipv4_prefix(33)).contains("from 1 to 32"));
        assert!(per_source(PerSource::new().ipv6_prefix(0)).contains("from 1 to 128"));
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, 1e9] {
            assert!(
                per_source(PerSource::new().accept_rate(rate)).contains("accept_rate"),
                "{rate}"
            );
        }
        assert!(per_source(PerSource::new().accept_burst(5)).contains("without accept_rate"));
        let timeouts = |timeouts| refused(&ListenerConfiguration::new().timeouts(timeouts));
        for jitter in [-0.1, 1.1, f64::NAN] {
            let message = timeouts(Timeouts::new().max_lifetime_jitter(jitter));
            assert!(message.contains("from 0 to 1"), "{message}");
        }
        let none = MinArrival::new(0, Duration::from_secs(1));
        assert!(timeouts(Timeouts::new().min_arrival(none)).contains("min_arrival.bytes"));
        let never = MinArrival::new(1, Duration::ZERO);
        assert!(timeouts(Timeouts::new().min_arrival(never)).contains("min_arrival.within"));
        let keep_alive = KeepAlive::new().user_timeout(Duration::from_micros(1));
        let socket = SocketOptions::new().keep_alive(keep_alive);
        assert!(refused(&ListenerConfiguration::new().socket(socket)).contains("user_timeout"));
        let client = ClientConfiguration::new().max_queued_bytes(0);
        assert!(client.check().unwrap_err().to_string().contains("max_queued_bytes"));
    }

    #[test]
    fn the_presets_can_be() {
        for keep_alive in [KeepAlive::lan(), KeepAlive::mobile()] {
            let socket = SocketOptions::new().keep_alive(keep_alive);
            assert!(ListenerConfiguration::new().socket(socket).check().is_ok());
        }
    }

    #[test]
    fn huge_times_are_served() {
        let timeouts = Timeouts::new().idle(Duration::MAX).write(Duration::MAX);
        assert!(ListenerConfiguration::new().timeouts(timeouts).check().is_ok());
    }
}
