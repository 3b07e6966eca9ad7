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
    /// Bounds on what peers can make the listener hold.
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

/// Bounds on what peers can make a listener hold.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, rename_all = "camelCase"))]
pub struct Limits {
    /// Connections at once, counted exactly, from accept until the descriptor is closed. Default:
    /// what the process's limit of open files (RLIMIT_NOFILE) leaves room for.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_count"))]
    pub max_connections: Option<usize>,
    /// What happens to callers beyond `max_connections`. Default: they wait.
    pub when_full: WhenFull,
    /// TLS handshakes under way at once. When there are more, the oldest unfinished one gives way.
    /// When `max_connections` is reached, the oldest that has had a second gives way to a caller
    /// who waits. Default: 256 for each core.
    #[cfg(feature = "_tls")]
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_count"))]
    pub max_handshakes: Option<usize>,
}

impl Limits {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    fn check(&self) -> Result<()> {
        if let Some(count) = self.max_connections {
            in_range("limits.max_connections", count, 1, u32::MAX as usize)?;
        }
        #[cfg(feature = "_tls")]
        if let Some(count) = self.max_handshakes {
            in_range("limits.max_handshakes", count, 1, u32::MAX as usize)?;
        }
        Ok(())
    }
}

setters! { Limits {
    max_connections: impl Into<Option<usize>> => max_connections.into();
    when_full: WhenFull => when_full;
}}

#[cfg(feature = "_tls")]
setters! { Limits {
    max_handshakes: impl Into<Option<usize>> => max_handshakes.into();
}}

/// What happens to callers beyond the greatest number of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "camelCase"))]
pub enum WhenFull {
    /// They wait in the kernel's backlog until a place is free.
    #[default]
    Queue,
    /// They are accepted and closed at once.
    Refuse,
}

/// Time limits of a listener's connections.
///
/// A limit of `None` is switched off; in files that is written `"off"`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, rename_all = "camelCase"))]
pub struct Timeouts {
    /// Ends a connection when the kernel takes no queued byte for so long. Default: 30 s.
    ///
    /// The kernel has buffers of its own, up to megabytes, and what they take counts as progress.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub write: Option<Duration>,
    /// Ends a connection when no byte has come from the peer for so long while no callback runs and
    /// nothing is queued. Default: off.
    ///
    /// A download that still moves is not idle: where the peer still owes acknowledgements when the
    /// time is over, it is given the same time again, as often as it has acknowledged some since.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub idle: Option<Duration>,
    /// Ends a connection, in order, at this age. Default: off.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub max_lifetime: Option<Duration>,
    /// The time that `on_close` may take before it is dropped. Default: 1 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::seconds"))]
    pub on_close: Duration,
    /// The deadline of the graceful stop that ends `serve` and `serve_until`. Default: 30 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::seconds"))]
    pub shutdown: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            write: Some(Duration::from_secs(30)),
            idle: None,
            max_lifetime: None,
            on_close: Duration::from_secs(1),
            shutdown: Duration::from_secs(30),
        }
    }
}

impl Timeouts {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    fn check(&self) -> Result<()> {
        not_zero("timeouts.write", self.write)?;
        not_zero("timeouts.idle", self.idle)?;
        not_zero("timeouts.max_lifetime", self.max_lifetime)?;
        if self.on_close.is_zero() {
            return Err(Error::configuration("timeouts.on_close must be more than 0 s"));
        }
        Ok(())
    }
}

setters! { Timeouts {
    write: impl Into<Option<Duration>> => write.into();
    idle: impl Into<Option<Duration>> => idle.into();
    max_lifetime: impl Into<Option<Duration>> => max_lifetime.into();
    on_close: Duration => on_close;
    shutdown: Duration => shutdown;
}}

/// Options of a listener's or a client's sockets.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, rename_all = "camelCase"))]
pub struct SocketOptions {
    /// Sends small messages at once (TCP_NODELAY) rather than gathering them. Default: `true`.
    pub no_delay: bool,
    /// Probes of silent peers, so that one that has vanished is noticed; `None` is off. Default: on.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_keep_alive"))]
    pub keep_alive: Option<KeepAlive>,
    /// Callers that may wait in the kernel for being accepted; the system may allow fewer
    /// (`net.core.somaxconn`). Only for listeners. Default: 1024.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::count"))]
    pub backlog: usize,
    /// The kernel's send buffer in bytes (SO_SNDBUF). Default: the kernel sizes it as needed.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_count"))]
    pub send_buffer: Option<usize>,
    /// The kernel's receive buffer in bytes (SO_RCVBUF). Default: the kernel sizes it as needed.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_count"))]
    pub receive_buffer: Option<usize>,
}

impl Default for SocketOptions {
    fn default() -> Self {
        Self {
            no_delay: true,
            keep_alive: Some(KeepAlive::default()),
            backlog: 1024,
            send_buffer: None,
            receive_buffer: None,
        }
    }
}

impl SocketOptions {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    fn check(&self) -> Result<()> {
        if let Some(keep_alive) = &self.keep_alive {
            keep_alive.check()?;
        }
        in_range("socket.backlog", self.backlog, 1, i32::MAX as usize)?;
        for (name, size) in [
            ("socket.send_buffer", self.send_buffer),
            ("socket.receive_buffer", self.receive_buffer),
        ] {
            if let Some(size) = size {
                in_range(name, size, 1, 1 << 30)?;
            }
        }
        Ok(())
    }
}

setters! { SocketOptions {
    no_delay: bool => no_delay;
    keep_alive: impl Into<Option<KeepAlive>> => keep_alive.into();
    backlog: usize => backlog;
    send_buffer: impl Into<Option<usize>> => send_buffer.into();
    receive_buffer: impl Into<Option<usize>> => receive_buffer.into();
}}

/// TCP keep-alive: how a silent peer is probed. The system counts in whole seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, rename_all = "camelCase"))]
pub struct KeepAlive {
    /// Silence before the first probe, 1 s to 32,767 s. Default: 60 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::seconds"))]
    pub idle: Duration,
    /// Time between probes, 1 s to 32,767 s. Default: 10 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::seconds"))]
    pub interval: Duration,
    /// Unanswered probes after which the peer counts as gone, 1 to 127. Default: 3.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::count"))]
    pub probes: usize,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self { idle: Duration::from_secs(60), interval: Duration::from_secs(10), probes: 3 }
    }
}

impl KeepAlive {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    fn check(&self) -> Result<()> {
        // Linux refuses more: MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL, MAX_TCP_KEEPCNT.
        for (name, time) in
            [("socket.keep_alive.idle", self.idle), ("socket.keep_alive.interval", self.interval)]
        {
            let range = Duration::from_secs(1)..=Duration::from_secs(32_767);
            if !range.contains(&time) {
                return Err(Error::configuration(format!(
                    "{name} must be between 1 s and 32767 s, not {time:?}"
                )));
            }
        }
        in_range("socket.keep_alive.probes", self.probes, 1, 127)
    }
}

setters! { KeepAlive {
    idle: Duration => idle;
    interval: Duration => interval;
    probes: usize => probes;
}}

/// How a [`Client`](crate::Client) connects and waits.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, rename_all = "camelCase"))]
pub struct ClientConfiguration {
    /// The local host name or address to connect from. Default: the system chooses.
    pub local_host: Option<String>,
    /// The longest wait for bytes in `read_bytes`. Default: 300 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub timeout: Option<Duration>,
    /// Ends the connection when the kernel takes no queued byte for so long. Default: 300 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub write_timeout: Option<Duration>,
    /// The longest wait for the connection, name look-up and all addresses together. Default: 30 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub connect_timeout: Option<Duration>,
    /// How the connection is secured. Default: it is not (plain TCP).
    #[cfg(feature = "_tls")]
    pub secure_socket: Option<crate::ClientSecureSocket>,
    /// Options of the socket.
    pub socket: SocketOptions,
}

impl Default for ClientConfiguration {
    fn default() -> Self {
        Self {
            local_host: None,
            timeout: Some(Duration::from_secs(300)),
            write_timeout: Some(Duration::from_secs(300)),
            connect_timeout: Some(Duration::from_secs(30)),
            #[cfg(feature = "_tls")]
            secure_socket: None,
            socket: SocketOptions::default(),
        }
    }
}

impl ClientConfiguration {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells whether all values can be; nothing is opened. [`Client::connect`](crate::Client::connect)
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
        not_zero("timeout", self.timeout)?;
        not_zero("write_timeout", self.write_timeout)?;
        not_zero("connect_timeout", self.connect_timeout)?;
        #[cfg(feature = "_tls")]
        if let Some(secure) = &self.secure_socket {
            secure.check()?;
        }
        self.socket.check()
    }
}

setters! { ClientConfiguration {
    local_host: impl Into<String> => Some(local_host.into());
    timeout: impl Into<Option<Duration>> => timeout.into();
    write_timeout: impl Into<Option<Duration>> => write_timeout.into();
    connect_timeout: impl Into<Option<Duration>> => connect_timeout.into();
    socket: SocketOptions => socket;
}}

#[cfg(feature = "_tls")]
setters! { ClientConfiguration {
    secure_socket: impl Into<Option<crate::ClientSecureSocket>> => secure_socket.into();
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
    Err(Error::configuration(format!("{name} must be from {least} to {most}, not {count}")))
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
