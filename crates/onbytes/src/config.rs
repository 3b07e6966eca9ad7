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
#[cfg(feature = "_tls")]
pub(crate) use setters;

mod client;
mod limits;
mod socket;
mod timeouts;

pub use client::ClientConfiguration;
pub use limits::{Limits, PerSource, WhenFull};
pub use socket::{KeepAlive, SocketOptions};
pub use timeouts::{MinArrival, Timeouts};

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
    /// Bounds on what peers can make the listener hold, and on who may come in.
    pub limits: Limits,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Options of the sockets.
    pub socket: SocketOptions,
    /// Accept loops that share the listening socket, on the runtime of whoever starts the listener:
    /// 1 to 1024. More than one helps only a multi-threaded runtime under a storm of new
    /// connections. Default: 1.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::count"))]
    pub workers: usize,
}

impl Default for ListenerConfiguration {
    fn default() -> Self {
        Self {
            local_host: None,
            allow_half_open: false,
            #[cfg(feature = "_tls")]
            secure_socket: None,
            limits: Limits::default(),
            timeouts: Timeouts::default(),
            socket: SocketOptions::default(),
            workers: 1,
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
        if let Some(host) = &self.local_host {
            crate::endpoint::check_name(host)
                .map_err(|error| Error::configuration(format!("local_host: {error}")))?;
        }
        #[cfg(feature = "_tls")]
        if let Some(secure) = &self.secure_socket {
            secure.check()?;
        }
        self.limits.check()?;
        self.timeouts.check()?;
        self.socket.check()?;
        in_range("workers", self.workers, 1, 1024)
    }
}

setters! { ListenerConfiguration {
    local_host: impl Into<String> => Some(local_host.into());
    allow_half_open: bool => allow_half_open;
    limits: Limits => limits;
    timeouts: Timeouts => timeouts;
    socket: SocketOptions => socket;
    workers: usize => workers;
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

fn in_range(name: &str, count: usize, least: usize, most: usize) -> Result<()> {
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
    fn huge_times_are_served() {
        let timeouts = Timeouts::new().idle(Duration::MAX).write(Duration::MAX);
        assert!(ListenerConfiguration::new().timeouts(timeouts).check().is_ok());
    }
}
