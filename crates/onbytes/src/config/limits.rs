//! Bounds on what strangers can make a listener hold, and on who may come in.

use super::in_range;
use crate::{Error, Prefix, Result};

/// Bounds on what peers can make a listener hold, and on who may come in.
///
/// [`Listener::set_limits`](crate::Listener::set_limits) changes them while the listener runs. What
/// happens at each of them, in a table: the [page of bounds](crate::_guide::bounds).
#[derive(Debug, Clone, PartialEq)]
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
    /// Bounds for each source of connections: an address, or a block of addresses. Default: off.
    pub per_source: PerSource,
    /// Who may come in: callers from any other address are closed as soon as they are looked at, which
    /// with `WhenFull::Queue` is when there is a place. Default: empty, which means everybody.
    pub allow: Vec<Prefix>,
    /// Who may not come in, also where `allow` has them. Connections that are live when the list
    /// changes go on. Default: nobody. (`::/0` is all of IPv6; IPv4 is `0.0.0.0/0`.)
    pub deny: Vec<Prefix>,
    /// Room for bytes that wait to be sent to one peer. Above it writers wait, and nothing is read
    /// from that peer; a single larger message enters when nothing is queued, and a returned reply
    /// always. Default: 65,536 bytes.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::count"))]
    pub max_queued_bytes: usize,
    /// Bytes that wait to be sent to all peers together. Above it the connection with the largest
    /// queue is reset, for reason `limit`, then the next, until 95 % are left. Default: off;
    /// `max_memory` bounds them too.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::count_or_off"))]
    pub max_queued_bytes_total: Option<usize>,
    /// The memory that connections and their queues may take, in bytes, as the listener counts it: from
    /// 70 % on it does more and more about it, see [`Pressure`](crate::Pressure); below it resumes, and
    /// each change is one [`Event`](crate::Event). Default: half of the memory that
    /// the process may have (of its control group, or of the machine), where the system tells (Linux).
    /// `usize::MAX`, in files `"off"`, switches it off.
    ///
    /// What services keep, and what the kernel holds for sockets, is not counted; a message that
    /// waits in many queues is counted once when it matters.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::ceiling"))]
    pub max_memory: Option<usize>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: None,
            when_full: WhenFull::default(),
            #[cfg(feature = "_tls")]
            max_handshakes: None,
            per_source: PerSource::default(),
            allow: Vec::new(),
            deny: Vec::new(),
            max_queued_bytes: Self::QUEUED_BYTES,
            max_queued_bytes_total: None,
            max_memory: None,
        }
    }
}

impl Limits {
    /// Room in the queue of one connection, unless it is configured.
    pub(crate) const QUEUED_BYTES: usize = 64 * 1024;
    /// With less a listener could not serve anybody.
    const LEAST_MEMORY: usize = 1024 * 1024;

    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    pub(super) fn check(&self) -> Result<()> {
        /// More would not change anything, but could not be counted.
        const MOST_CONNECTIONS: usize = u32::MAX as usize;
        if let Some(count) = self.max_connections {
            in_range("limits.max_connections", count, 1, MOST_CONNECTIONS)?;
        }
        #[cfg(feature = "_tls")]
        if let Some(count) = self.max_handshakes {
            in_range("limits.max_handshakes", count, 1, MOST_CONNECTIONS)?;
        }
        check_queued_bytes("limits.max_queued_bytes", self.max_queued_bytes)?;
        if let Some(bytes) = self.max_queued_bytes_total {
            in_range("limits.max_queued_bytes_total", bytes, 1, usize::MAX)?;
        }
        if let Some(bytes) = self.max_memory {
            in_range("limits.max_memory", bytes, Self::LEAST_MEMORY, usize::MAX)?;
        }
        self.per_source.check()
    }
}

/// Whether a queue can have room for so many bytes.
pub(super) fn check_queued_bytes(name: &str, bytes: usize) -> Result<()> {
    in_range(name, bytes, 1, u32::MAX as usize)
}

setters! { Limits {
    max_connections: impl Into<Option<usize>> => max_connections.into();
    when_full: WhenFull => when_full;
    per_source: PerSource => per_source;
    allow: impl Into<Vec<Prefix>> => allow.into();
    deny: impl Into<Vec<Prefix>> => deny.into();
    max_queued_bytes: usize => max_queued_bytes;
    max_queued_bytes_total: impl Into<Option<usize>> => max_queued_bytes_total.into();
    max_memory: impl Into<Option<usize>> => max_memory.into();
}}

#[cfg(feature = "_tls")]
setters! { Limits {
    max_handshakes: impl Into<Option<usize>> => max_handshakes.into();
}}

/// Bounds for each source of connections: all addresses that share a prefix.
///
/// Callers beyond them are closed as soon as they are looked at, whatever `when_full` says. Where callers
/// wait because there is no place (`WhenFull::Queue`), these wait among them until then. Changing any of
/// these bounds while the listener runs gives every source its whole burst again. IPv4 addresses that come as IPv6 (`::ffff:10.0.0.1`) count as IPv4.
///
/// ```
/// use onbytes::{Limits, PerSource};
///
/// // At most 20 connections, and 5 new ones a second (20 at once), from each address.
/// let per_source = PerSource::new().max_connections(20).accept_rate(5.0).accept_burst(20);
/// let limits = Limits::new().per_source(per_source);
/// # assert_eq!(limits.per_source.accept_rate, Some(5.0));
/// ```
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, rename_all = "camelCase"))]
pub struct PerSource {
    /// Connections at once from one source. Default: off.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::count_or_off"))]
    pub max_connections: Option<usize>,
    /// New connections from one source in a second, on average; less than 1 is possible. Default:
    /// off.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::rate_or_off"))]
    pub accept_rate: Option<f64>,
    /// New connections that a source may bring at once before its rate counts, which it regains at
    /// that rate. Default: those of one second, at least 1.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_count"))]
    pub accept_burst: Option<usize>,
    /// How many leading bits of an IPv4 address name a source, 1 to 32. Default: 32, each address.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::bits"))]
    pub ipv4_prefix: u8,
    /// How many leading bits of an IPv6 address name a source, 1 to 128. Default: 64, since a single
    /// host commonly has such a block of addresses to itself.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::bits"))]
    pub ipv6_prefix: u8,
}

impl Default for PerSource {
    fn default() -> Self {
        Self {
            max_connections: None,
            accept_rate: None,
            accept_burst: None,
            ipv4_prefix: 32,
            ipv6_prefix: 64,
        }
    }
}

impl PerSource {
    /// The defaults: no bounds.
    pub fn new() -> Self {
        Self::default()
    }

    fn check(&self) -> Result<()> {
        if let Some(count) = self.max_connections {
            in_range("limits.per_source.max_connections", count, 1, u32::MAX as usize)?;
        }
        if let Some(rate) = self.accept_rate {
            // The range leaves out what is not a number, too.
            if !(0.001..=1e6).contains(&rate) {
                return Err(Error::configuration(format!(
                    "limits.per_source.accept_rate must be from 0.001 to 1000000 a second, not {rate}"
                )));
            }
        }
        if let Some(count) = self.accept_burst {
            in_range("limits.per_source.accept_burst", count, 1, u32::MAX as usize)?;
            if self.accept_rate.is_none() {
                return Err(Error::configuration(
                    "limits.per_source.accept_burst does nothing without accept_rate; give both",
                ));
            }
        }
        in_range("limits.per_source.ipv4_prefix", self.ipv4_prefix.into(), 1, 32)?;
        in_range("limits.per_source.ipv6_prefix", self.ipv6_prefix.into(), 1, 128)
    }
}

setters! { PerSource {
    max_connections: impl Into<Option<usize>> => max_connections.into();
    accept_rate: impl Into<Option<f64>> => accept_rate.into();
    accept_burst: impl Into<Option<usize>> => accept_burst.into();
    ipv4_prefix: u8 => ipv4_prefix;
    ipv6_prefix: u8 => ipv6_prefix;
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
    /// They are accepted and closed at once. A descriptor is kept in reserve, so that this is
    /// possible also when the process has no other left.
    Refuse,
}
