//! What a server's certificate is for: names and addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::values::refused;

/// A name or an address that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Host {
    /// In lower case and without a dot at its end.
    Name(String),
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// The wanted hosts in their order, then this machine's own names, each once.
pub(super) fn with_local(wanted: &[Host]) -> Vec<Host> {
    let local = [
        Host::Name("localhost".into()),
        Host::Address(Ipv4Addr::LOCALHOST.into()),
        Host::Address(Ipv6Addr::LOCALHOST.into()),
    ];
    let mut hosts = Vec::new();
    for host in wanted.iter().chain(&local) {
        if !hosts.contains(host) {
            hosts.push(host.clone());
        }
    }
    hosts
}

/// Reads the value of `--host`.
pub(super) fn parse(text: &str) -> Result<Host, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    if let Ok(address) = bare.parse() {
        return Ok(Host::Address(address));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if is_name(&name) {
        return Ok(Host::Name(name));
    }
    let possible = if text.contains('*') {
        "* as the first label alone and with two behind it, such as *.example.org"
    } else if !text.is_ascii() {
        "a name in ASCII, as in xn--bcher-kva.example"
    } else {
        "a name such as example.org or *.example.org, or an address such as 192.0.2.1 or 2001:db8::1"
    };
    refused(text, possible)
}

/// Whether certificates may have the name, and clients find it in them.
fn is_name(name: &str) -> bool {
    // RFC 1035, section 2.3.4: 255 octets on the wire are 253 characters of text.
    const LONGEST: usize = 253;
    let (name, is_wildcard) = match name.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (name, false),
    };
    // Clients take no wildcard for a whole top-level domain.
    let labels_needed = if is_wildcard { 2 } else { 1 };
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= LONGEST - if is_wildcard { 2 } else { 0 }
        && name.split('.').count() >= labels_needed
        && name.split('.').all(is_label)
        // With a number at its end it is an address that somebody has mistyped.
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_label(label: &str) -> bool {
    // The underscore is no part of a host's name, but of many a container's.
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=63).contains(&label.len())
        && label.bytes().all(is_allowed)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_addresses_are_told_apart() {
        for (text, host) in [
            ("Example.ORG", Host::Name("example.org".into())),
            ("example.org.", Host::Name("example.org".into())),
            ("*.example.org", Host::Name("*.example.org".into())),
            ("my_service", Host::Name("my_service".into())),
            ("xn--bcher-kva.example", Host::Name("xn--bcher-kva.example".into())),
            ("3com.com", Host::Name("3com.com".into())),
            ("192.0.2.1", Host::Address([192, 0, 2, 1].into())),
            ("2001:DB8::1", Host::Address("2001:db8::1".parse().unwrap())),
            ("[::1]", Host::Address(Ipv6Addr::LOCALHOST.into())),
        ] {
            assert_eq!(parse(text), Ok(host), "{text}");
        }
        let longest = format!("{}.{}", ["a".repeat(63).as_str(); 3].join("."), "b".repeat(61));
        assert_eq!((longest.len(), parse(&longest).is_ok()), (253, true));
        assert!(parse(&format!("{longest}b")).is_err());
    }

    #[test]
    fn what_no_certificate_can_name_is_refused_with_the_way_out() {
        let long_label = "a".repeat(64);
        for text in [
            "",
            " ",
            "a b",
            "a..b",
            ".a",
            "-a.b",
            "a-.b",
            ".",
            "..",
            "a/b",
            "a:80",
            "[a]",
            "a@b",
            "300.1.1.1",
            "1.2.3",
            "fe80::1%eth0",
            "a\nb",
            "\0",
            &long_label,
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains("example.org"), "{error}");
        }
        for text in ["*", "*.org", "a.*.org", "*a.example.org", "*.*.org", "*.1.2"] {
            assert!(parse(text).expect_err(text).contains("such as *.example.org"), "{text}");
        }
        assert!(parse("bücher.example").unwrap_err().contains("xn--"));
        assert!(parse(&"a".repeat(5_000)).unwrap_err().len() < 300);
    }

    #[test]
    fn the_local_names_come_last_and_nothing_twice() {
        let shown = |wanted: &[&str]| {
            let wanted: Vec<_> = wanted.iter().map(|text| parse(text).unwrap()).collect();
            let hosts: Vec<_> = with_local(&wanted).iter().map(Host::to_string).collect();
            hosts.join(" ")
        };
        assert_eq!(shown(&[]), "localhost 127.0.0.1 ::1");
        assert_eq!(
            shown(&["a.example", "[::1]", "A.example", "LOCALHOST"]),
            "a.example ::1 localhost 127.0.0.1"
        );
    }
}
