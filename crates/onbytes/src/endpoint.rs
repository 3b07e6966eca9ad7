//! Where a listener listens or a client connects to.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use crate::{Error, Result};

/// The address of a listener or a client: a port, a host and a port, or a socket address.
///
/// ```
/// use onbytes::Endpoint;
///
/// let all_interfaces: Endpoint = 3000.into();
/// let by_name: Endpoint = ("localhost", 3000).into();
/// let by_text: Endpoint = "[::1]:3000".parse()?;
/// # Ok::<(), onbytes::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: Option<Host>,
    port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Host {
    Address(IpAddr),
    /// With its scope, which an address alone does not carry.
    Scoped(SocketAddr),
    Name(String),
}

/// What an endpoint's host part resolves to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// No host: all interfaces for a listener.
    Any,
    /// One known address.
    Known(SocketAddr),
    /// A name to look up.
    Named(String),
}

impl Endpoint {
    /// The port; 0 lets the system pick one for a listener.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host as text, where one was given.
    pub fn host(&self) -> Option<String> {
        match self.host.as_ref()? {
            Host::Address(address) => Some(address.to_string()),
            Host::Scoped(address) => Some(address.ip().to_string()),
            Host::Name(name) => Some(name.clone()),
        }
    }

    pub(crate) fn target(&self) -> Target {
        match &self.host {
            None => Target::Any,
            Some(Host::Address(address)) => Target::Known(SocketAddr::new(*address, self.port)),
            Some(Host::Scoped(address)) => Target::Known(*address),
            Some(Host::Name(name)) => Target::Named(name.clone()),
        }
    }

    /// The endpoint with `host` in the place of a missing one.
    pub(crate) fn with_host(&self, host: &str) -> Self {
        Self { host: Some(parse_host(host)), port: self.port }
    }
}

fn parse_host(host: &str) -> Host {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    match bare.parse() {
        Ok(address) => Host::Address(address),
        // With a zone (`fe80::1%eth0`) it is an address that only the system can read.
        Err(_) if bare.contains(':') => Host::Name(bare.to_owned()),
        Err(_) => Host::Name(host.to_owned()),
    }
}

/// A name or an address that is put into a message: cut where it is absurdly long.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 100;
    if text.chars().count() <= MOST {
        return text.escape_debug().to_string();
    }
    let start: String = text.chars().take(MOST).collect();
    format!("{}… ({} characters)", start.escape_debug(), text.chars().count())
}

/// An IPv4 address that came through a dual-stack socket, as the IPv4 address that it is.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// Why `name` cannot be a host name, where that can be told without asking the network.
pub(crate) fn check_name(name: &str) -> Result<()> {
    // RFC 1035, section 2.3.4: 255 octets on the wire are 253 characters of text.
    const LONGEST: usize = 253;
    let problem = if name.is_empty() {
        "is empty"
    } else if name.trim_end_matches('.').len() > LONGEST {
        "is longer than the 253 characters a host name may have"
    } else if name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        "has a space or a control character in it"
    } else {
        return Ok(());
    };
    Err(Error::configuration(format!("host name '{}' {problem}", shown(name))))
}

impl From<u16> for Endpoint {
    fn from(port: u16) -> Self {
        Self { host: None, port }
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { host: Some(Host::Scoped(address)), port: address.port() }
    }
}

impl From<(IpAddr, u16)> for Endpoint {
    fn from((address, port): (IpAddr, u16)) -> Self {
        Self { host: Some(Host::Address(address)), port }
    }
}

impl From<(&str, u16)> for Endpoint {
    fn from((host, port): (&str, u16)) -> Self {
        Self { host: Some(parse_host(host)), port }
    }
}

impl From<(String, u16)> for Endpoint {
    fn from((host, port): (String, u16)) -> Self {
        Self::from((host.as_str(), port))
    }
}

impl FromStr for Endpoint {
    type Err = Error;

    /// Reads `HOST:PORT`, `[IPV6]:PORT` or `PORT`.
    fn from_str(text: &str) -> Result<Self> {
        let refused = |problem: &str| {
            Error::configuration(format!(
                "address '{}' {problem}; give HOST:PORT, [IPV6]:PORT or PORT",
                shown(text)
            ))
        };
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) => (Some(host), port),
            None => (None, text),
        };
        let port = parse_port(port).ok_or_else(|| refused("has no port from 0 to 65535"))?;
        let Some(host) = host else {
            return Ok(Self::from(port));
        };
        if host.is_empty() {
            return Err(refused("has an empty host"));
        }
        if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) {
            return Err(refused("has an IPv6 address without brackets"));
        }
        Ok(Self::from((host, port)))
    }
}

fn parse_port(text: &str) -> Option<u16> {
    // `u16::from_str` would take a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            None => write!(f, "port {}", self.port),
            Some(Host::Address(address)) => SocketAddr::new(*address, self.port).fmt(f),
            Some(Host::Scoped(address)) => address.fmt(f),
            Some(Host::Name(name)) => write!(f, "{}:{}", shown(name), self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(text: &str) -> String {
        text.parse::<Endpoint>().unwrap_err().to_string()
    }

    #[test]
    fn text_forms_are_read() {
        let known = |text: &str| text.parse::<Endpoint>().unwrap().target();
        assert_eq!(known("3000"), Target::Any);
        assert_eq!(known("127.0.0.1:3000"), Target::Known("127.0.0.1:3000".parse().unwrap()));
        assert_eq!(known("[::1]:0"), Target::Known("[::1]:0".parse().unwrap()));
        assert_eq!(known("localhost:1"), Target::Named("localhost".into()));
        assert_eq!(known("[fe80::1%lo]:1"), Target::Named("fe80::1%lo".into()));
    }

    #[test]
    fn impossible_text_is_refused_with_the_way_out() {
        for text in ["", ":", "host:", ":3000", "host:65536", "host:-1", "host:+1", "::1:80", "a b"]
        {
            assert!(message(text).contains("give HOST:PORT"), "{text}: {}", message(text));
        }
    }

    #[test]
    fn an_absurd_name_is_refused_and_cut_in_the_message() {
        let error = check_name(&"a".repeat(5_000)).unwrap_err().to_string();
        assert!(error.contains("(5000 characters)") && error.len() < 300, "{error}");
        assert!(
            check_name("").is_err() && check_name("a\0b").is_err() && check_name("a b").is_err()
        );
        assert!(check_name("localhost").is_ok());
    }

    #[test]
    fn a_mapped_address_shows_as_ipv4() {
        let mapped: SocketAddr = "[::ffff:10.1.2.3]:80".parse().unwrap();
        assert_eq!(canonical(mapped), "10.1.2.3:80".parse().unwrap());
        let native: SocketAddr = "[2001:db8::1]:80".parse().unwrap();
        assert_eq!(canonical(native), native);
    }
}
