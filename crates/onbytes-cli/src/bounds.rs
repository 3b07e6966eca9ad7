//! The flags of `serve` for everything that a stranger can make grow and everything that waits, and
//! the records that they make.

use std::time::Duration;

use clap::{Args, ValueEnum};
use onbytes::{KeepAlive, Limits, MinArrival, PerSource, Prefix, SocketOptions, Timeouts};

use crate::failure::Failure;
use crate::values::{
    Limit, OrOff, count, count_or_off, deadline, limit, min_arrival, prefix, rate, refused, share,
    size, size_or_off,
};

/// More than any system has.
const MOST: usize = u32::MAX as usize;

/// How much there may be.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits")]
pub(crate) struct LimitArgs {
    /// Connections at once [default: what the limit of open files, `ulimit -n`, leaves room for]
    #[arg(long, value_name = "N", value_parser = count(1..=MOST), allow_negative_numbers = true)]
    max_connections: Option<usize>,

    /// What becomes of callers beyond --max-connections, or while memory is short
    #[arg(long, value_name = "WHAT", default_value = "queue")]
    when_full: WhenFull,

    /// TLS handshakes at once; when there are more, the oldest gives way [default: 256 for each core]
    #[arg(long, value_name = "N", value_parser = count(1..=MOST), allow_negative_numbers = true)]
    max_handshakes: Option<usize>,

    /// Bytes that may wait to be sent to one peer; beyond them nothing more is read from it, and
    /// chat members are dropped
    #[arg(
        long, value_name = "BYTES", default_value = "64K",
        value_parser = size(1..=MOST), allow_negative_numbers = true
    )]
    max_queued_bytes: usize,

    /// Bytes that may wait to be sent to all peers together; beyond them the connection with the
    /// largest queue is reset: bytes, or off
    #[arg(
        long, value_name = "BYTES", default_value = "off",
        value_parser = size_or_off(1..=usize::MAX), allow_negative_numbers = true
    )]
    max_queued_bytes_total: OrOff<usize>,

    /// Memory for connections and what waits to be sent: from 70 % of it queues shrink, from 80 %
    /// those idle longest are closed, from 90 % nobody is accepted: bytes, at least 1M, or off
    /// [default: half of what the process may have]
    #[arg(
        long, value_name = "BYTES",
        value_parser = size_or_off(1 << 20..=usize::MAX), allow_negative_numbers = true
    )]
    max_memory: Option<OrOff<usize>>,

    #[command(flatten)]
    callers: CallerArgs,
}

/// Who may come in.
#[derive(Debug, Args)]
#[command(next_help_heading = "Callers (those beyond these are closed at once)")]
struct CallerArgs {
    /// Addresses that may connect, alone or with a prefix length: 192.0.2.7, 10.0.0.0/8,
    /// 2001:db8::/32; may be given many times, or with commas [default: all]
    #[arg(long, value_name = "PREFIX", value_parser = prefix, value_delimiter = ',')]
    allow: Vec<Prefix>,

    /// Addresses that may not connect, also where --allow has them [default: none]
    #[arg(long, value_name = "PREFIX", value_parser = prefix, value_delimiter = ',')]
    deny: Vec<Prefix>,

    /// Connections at once from one source: a number, or off
    #[arg(
        long, value_name = "N", default_value = "off",
        value_parser = count_or_off(1..=MOST), allow_negative_numbers = true
    )]
    source_max_connections: OrOff<usize>,

    /// New connections a second from one source, on average: a number, such as 5 or 0.5, or off
    #[arg(
        long, value_name = "RATE", default_value = "off",
        value_parser = rate, allow_negative_numbers = true
    )]
    source_accept_rate: OrOff<f64>,

    /// New connections that a source may bring at once before its rate counts [default: those of
    /// one second, at least 1]
    #[arg(long, value_name = "N", value_parser = count(1..=MOST), allow_negative_numbers = true)]
    source_accept_burst: Option<usize>,

    /// Leading bits of an IPv4 address that name a source, 1 to 32 [default: 32]
    #[arg(long, value_name = "BITS", value_parser = count(1..=32), allow_negative_numbers = true)]
    source_ipv4_prefix: Option<usize>,

    /// Leading bits of an IPv6 address that name a source, 1 to 128 [default: 64]
    #[arg(long, value_name = "BITS", value_parser = count(1..=128), allow_negative_numbers = true)]
    source_ipv6_prefix: Option<usize>,
}

/// How long things may take.
#[derive(Debug, Args)]
#[command(next_help_heading = "Timeouts")]
pub(crate) struct TimeoutArgs {
    /// Close a connection after so long without a byte from the peer, while nothing waits to be sent to
    /// it; one that has taken some of what it was sent meanwhile gets the time again: seconds, or off
    #[arg(
        long, value_name = "SECS", default_value = "off",
        value_parser = limit, allow_negative_numbers = true
    )]
    idle_timeout: Limit,

    /// Close a connection when fewer than BYTES come from the peer in SECS in which it is waited
    /// for: such as 100/10, or off
    #[arg(
        long, value_name = "BYTES/SECS", default_value = "off",
        value_parser = min_arrival, allow_negative_numbers = true
    )]
    min_arrival: OrOff<MinArrival>,

    /// Reset a connection after so long in which the system took nothing of what is due to the
    /// peer; its buffers take megabytes before that: seconds, or off
    #[arg(
        long, value_name = "SECS", default_value = "30",
        value_parser = limit, allow_negative_numbers = true
    )]
    write_timeout: Limit,

    /// Close a connection at this age at the latest, whatever it does; what waits to be sent is sent
    /// first, within --write-timeout: seconds, or off
    #[arg(
        long, value_name = "SECS", default_value = "off",
        value_parser = limit, allow_negative_numbers = true
    )]
    max_lifetime: Limit,

    /// The share of --max-lifetime by which each life is shortened at most, at random: 0 to 1
    /// [default: 0.1]
    #[arg(long, value_name = "SHARE", value_parser = share, allow_negative_numbers = true)]
    max_lifetime_jitter: Option<f64>,

    /// The time that connections have to finish after the first signal: seconds; 0 for none
    #[arg(
        long, value_name = "SECS", default_value = "30",
        value_parser = deadline, allow_negative_numbers = true
    )]
    pub(crate) shutdown_timeout: Duration,
}

/// How peers that have vanished are noticed, and what the system may hold.
#[derive(Debug, Args)]
#[command(next_help_heading = "Vanished peers, and the system's buffers")]
pub(crate) struct SocketArgs {
    /// Probe a silent peer after so long (TCP keep-alive): seconds, 1 to 32767; or off; or a preset:
    /// lan (10 s, 3 probes each 3 s, user timeout 19 s), mobile (240 s, 4 each 30 s, 360 s)
    #[arg(
        long, value_name = "SECS", default_value = "60",
        value_parser = keep_alive, allow_negative_numbers = true
    )]
    keep_alive: KeepAliveArg,

    /// Time between probes: seconds, 1 to 32767 [default: 10, or the preset's]
    #[arg(
        long, value_name = "SECS",
        value_parser = whole_seconds, allow_negative_numbers = true
    )]
    keep_alive_interval: Option<Duration>,

    /// Unanswered probes after which a peer is gone, 1 to 127 [default: 3, or the preset's]
    #[arg(long, value_name = "N", value_parser = count(1..=127), allow_negative_numbers = true)]
    keep_alive_probes: Option<usize>,

    /// The longest time that sent data may stay unacknowledged (TCP user timeout): seconds, or off
    /// [default: off, which is some 15 minutes; or the preset's]
    #[arg(long, value_name = "SECS", value_parser = user_timeout, allow_negative_numbers = true)]
    user_timeout: Option<Limit>,

    /// The system's send buffer for each connection: bytes [default: the system sizes it]
    #[arg(
        long, value_name = "BYTES",
        value_parser = size(1..=1 << 30), allow_negative_numbers = true
    )]
    send_buffer: Option<usize>,

    /// The system's receive buffer for each connection: bytes [default: the system sizes it]
    #[arg(
        long, value_name = "BYTES",
        value_parser = size(1..=1 << 30), allow_negative_numbers = true
    )]
    receive_buffer: Option<usize>,
}

/// What becomes of callers beyond the greatest number of connections.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum WhenFull {
    /// They wait for a place
    Queue,
    /// They are accepted and closed at once
    Refuse,
}

impl LimitArgs {
    /// The record, of a server that is secured or not.
    pub(crate) fn record(&self, is_secured: bool) -> Result<Limits, Failure> {
        if self.max_handshakes.is_some() && !is_secured {
            return Err(Failure::usage("--max-handshakes does nothing without TLS")
                .hint("give a certificate and its key, or leave it out"));
        }
        let when_full = match self.when_full {
            WhenFull::Queue => onbytes::WhenFull::Queue,
            WhenFull::Refuse => onbytes::WhenFull::Refuse,
        };
        let callers = &self.callers;
        Ok(Limits::new()
            .max_connections(self.max_connections)
            .when_full(when_full)
            .max_handshakes(self.max_handshakes)
            .max_queued_bytes(self.max_queued_bytes)
            .max_queued_bytes_total(self.max_queued_bytes_total.0)
            .max_memory(self.max_memory.map(|bytes| bytes.0.unwrap_or(usize::MAX)))
            .allow(callers.allow.clone())
            .deny(callers.deny.clone())
            .per_source(callers.per_source()?))
    }
}

impl CallerArgs {
    fn per_source(&self) -> Result<PerSource, Failure> {
        if self.source_accept_burst.is_some() && self.source_accept_rate.0.is_none() {
            let line = "--source-accept-burst does nothing without --source-accept-rate";
            return Err(Failure::usage(line).hint("give both"));
        }
        let is_bounded =
            self.source_max_connections.0.is_some() || self.source_accept_rate.0.is_some();
        let prefixes = [
            ("--source-ipv4-prefix", self.source_ipv4_prefix),
            ("--source-ipv6-prefix", self.source_ipv6_prefix),
        ];
        let given = prefixes.iter().find(|(_, bits)| bits.is_some());
        if let Some((flag, _)) = given.filter(|_| !is_bounded) {
            let others = "--source-max-connections or --source-accept-rate";
            let line = format!("{flag} does nothing without {others}");
            return Err(Failure::usage(line).hint("give one of these, too"));
        }
        let bounds = PerSource::new()
            .max_connections(self.source_max_connections.0)
            .accept_rate(self.source_accept_rate.0)
            .accept_burst(self.source_accept_burst);
        // The parsers have seen to it that these fit.
        let bits = |given: Option<usize>, usual| {
            given.map_or(usual, |bits| u8::try_from(bits).unwrap_or(u8::MAX))
        };
        let ipv4 = bits(self.source_ipv4_prefix, bounds.ipv4_prefix);
        let ipv6 = bits(self.source_ipv6_prefix, bounds.ipv6_prefix);
        Ok(bounds.ipv4_prefix(ipv4).ipv6_prefix(ipv6))
    }
}

impl TimeoutArgs {
    pub(crate) fn record(&self) -> Result<Timeouts, Failure> {
        if self.max_lifetime_jitter.is_some() && self.max_lifetime.0.is_none() {
            let line = "--max-lifetime-jitter does nothing without --max-lifetime";
            return Err(Failure::usage(line).hint("give both"));
        }
        let defaults = Timeouts::new();
        let jitter = self.max_lifetime_jitter.unwrap_or(defaults.max_lifetime_jitter);
        Ok(defaults
            .idle(self.idle_timeout.0)
            .min_arrival(self.min_arrival.0)
            .write(self.write_timeout.0)
            .max_lifetime(self.max_lifetime.0)
            .max_lifetime_jitter(jitter)
            .shutdown(self.shutdown_timeout))
    }
}

impl SocketArgs {
    pub(crate) fn record(&self) -> Result<SocketOptions, Failure> {
        Ok(SocketOptions::new()
            .keep_alive(self.keep_alive()?)
            .send_buffer(self.send_buffer)
            .receive_buffer(self.receive_buffer))
    }

    fn keep_alive(&self) -> Result<Option<KeepAlive>, Failure> {
        let Some(mut keep_alive) = self.keep_alive.0.clone() else {
            let useless = [
                ("--keep-alive-interval", self.keep_alive_interval.is_some()),
                ("--keep-alive-probes", self.keep_alive_probes.is_some()),
                ("--user-timeout", self.user_timeout.is_some_and(|limit| limit.0.is_some())),
            ];
            return match useless.iter().find(|(_, is_given)| *is_given) {
                Some((flag, _)) => {
                    let line = format!("{flag} does nothing with --keep-alive off");
                    Err(Failure::usage(line).hint("give one of the two"))
                }
                None => Ok(None),
            };
        };
        keep_alive.interval = self.keep_alive_interval.unwrap_or(keep_alive.interval);
        keep_alive.probes = self.keep_alive_probes.unwrap_or(keep_alive.probes);
        keep_alive.user_timeout = self.user_timeout.map_or(keep_alive.user_timeout, |it| it.0);
        Ok(Some(keep_alive))
    }
}

/// How silent peers are probed, if they are.
#[derive(Debug, Clone)]
struct KeepAliveArg(Option<KeepAlive>);

fn keep_alive(text: &str) -> Result<KeepAliveArg, String> {
    let keep_alive = match text {
        "lan" => Some(KeepAlive::lan()),
        "mobile" => Some(KeepAlive::mobile()),
        "off" => None,
        _ => match whole_seconds(text) {
            Ok(idle) => Some(KeepAlive::new().idle(idle)),
            Err(_) => return refused(text, "seconds from 1 to 32767, lan, mobile or off"),
        },
    };
    Ok(KeepAliveArg(keep_alive))
}

/// What Linux takes, and so the library.
fn whole_seconds(text: &str) -> Result<Duration, String> {
    let possible = Duration::from_secs(1)..=Duration::from_secs(32_767);
    match limit(text) {
        Ok(OrOff(Some(time))) if possible.contains(&time) => Ok(time),
        _ => refused(text, "seconds from 1 to 32767"),
    }
}

fn user_timeout(text: &str) -> Result<Limit, String> {
    let possible = Duration::from_millis(1)..=Duration::from_millis(i32::MAX as u64);
    match limit(text) {
        Ok(OrOff(time)) if time.is_none_or(|time| possible.contains(&time)) => Ok(OrOff(time)),
        _ => refused(text, "seconds from 0.001 to 2147483.647, or off"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_probed_as_the_system_can() {
        for text in ["0.5", "32768", "", "LAN", "nan"] {
            assert!(keep_alive(text).unwrap_err().contains("lan, mobile or off"), "{text}");
        }
        assert_eq!(keep_alive("lan").unwrap().0, Some(KeepAlive::lan()));
        assert!(keep_alive("off").unwrap().0.is_none());
        assert!(user_timeout("0.0001").is_err() && user_timeout("2147484").is_err());
        assert!(user_timeout("2147483.647").is_ok() && user_timeout("off").is_ok());
        assert!(whole_seconds("off").is_err());
    }
}
