//! Options of sockets, and how a peer that has vanished is noticed.

use std::time::Duration;

use super::in_range;
use crate::{Error, Result};

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

    pub(super) fn check(&self) -> Result<()> {
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

/// How a peer that has vanished is noticed: TCP keep-alive, and TCP's user timeout.
///
/// A peer that has lost its power or its network says nothing, so the system has to find out. While
/// nothing is on its way to the peer it is probed (keep-alive, counted in whole seconds); while
/// something is, the system sends it again, and gives up after the user timeout. Either way the
/// connection ends for reason `io_error`, with an error of kind `Timeout`.
///
/// [`lan`](Self::lan) and [`mobile`](Self::mobile) are presets; in files they are written by name:
/// `"keepAlive": "lan"`.
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
    /// Unanswered probes after which the peer counts as gone, 1 to 127. Default: 3. Where there is a
    /// user timeout, Linux lets that decide in its place.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::count"))]
    pub probes: usize,
    /// The longest time that sent data may stay unacknowledged (TCP_USER_TIMEOUT, RFC 5482), 1 ms to
    /// about 24 days. It also ends a connection whose peer is there but has had no room for so long.
    /// Linux only. Default: the system's, which is some 15 minutes of sending again, and no limit
    /// where the peer has no room.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub user_timeout: Option<Duration>,
}

impl Default for KeepAlive {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            probes: 3,
            user_timeout: None,
        }
    }
}

impl KeepAlive {
    /// The longest user timeout, in milliseconds: the system keeps it in an `int`.
    const MOST_MILLISECONDS: u128 = i32::MAX as u128;

    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// For a network of one's own: a peer that has vanished is noticed within 20 s.
    ///
    /// First probe after 10 s, then one each 3 s, 3 of them; user timeout 19 s, where the system has
    /// one.
    pub fn lan() -> Self {
        Self {
            idle: Duration::from_secs(10),
            interval: Duration::from_secs(3),
            probes: 3,
            user_timeout: user_timeout(19),
        }
    }

    /// For devices on mobile networks, which may be out of reach for minutes and pay for each probe:
    /// a peer that has vanished is noticed within 6 minutes.
    ///
    /// First probe after 240 s (networks forget silent connections after some 5 minutes), then one
    /// each 30 s, 4 of them; user timeout 360 s.
    pub fn mobile() -> Self {
        Self {
            idle: Duration::from_secs(240),
            interval: Duration::from_secs(30),
            probes: 4,
            user_timeout: user_timeout(360),
        }
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
        in_range("socket.keep_alive.probes", self.probes, 1, 127)?;
        self.user_timeout.map_or(Ok(()), check_user_timeout)
    }
}

/// The user timeout of a preset, where the system has such a thing.
fn user_timeout(seconds: u64) -> Option<Duration> {
    HAS_USER_TIMEOUT.then(|| Duration::from_secs(seconds))
}

const HAS_USER_TIMEOUT: bool = cfg!(any(target_os = "linux", target_os = "android"));

fn check_user_timeout(time: Duration) -> Result<()> {
    if !HAS_USER_TIMEOUT {
        return Err(Error::configuration(
            "socket.keep_alive.user_timeout: this system has no such thing; leave it out",
        ));
    }
    if !(1..=KeepAlive::MOST_MILLISECONDS).contains(&time.as_millis()) {
        return Err(Error::configuration(format!(
            "socket.keep_alive.user_timeout must be between 0.001 s and 2147483.647 s, not {time:?}"
        )));
    }
    Ok(())
}

setters! { KeepAlive {
    idle: Duration => idle;
    interval: Duration => interval;
    probes: usize => probes;
    user_timeout: impl Into<Option<Duration>> => user_timeout.into();
}}
