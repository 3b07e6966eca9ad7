//! Who may come in, before there is a connection: lists of addresses, and bounds for each source.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use crate::prefix::PrefixSet;
use crate::sources::{Excess, SourceLimits, SourcePlace, Sources};
use crate::{Limits, PerSource};

/// Why a caller was turned away before it became a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Refusal {
    /// `limits.max_connections` is reached, and `limits.when_full` says to refuse.
    Full,
    /// `limits.deny` has its address, or `limits.allow` has not.
    Denied,
    /// Its source has `limits.per_source.max_connections` already.
    SourceFull,
    /// Its source brings connections faster than `limits.per_source.accept_rate`.
    SourceRate,
    /// `limits.max_memory` is nearly reached, and `limits.when_full` says to refuse.
    Overload,
    /// The process is out of descriptors or memory, and `limits.when_full` says to refuse.
    Starved,
}

impl Refusal {
    /// Every cause.
    pub const ALL: [Self; 6] = [
        Self::Full,
        Self::Denied,
        Self::SourceFull,
        Self::SourceRate,
        Self::Overload,
        Self::Starved,
    ];

    /// The cause as one word, the same in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Denied => "denied",
            Self::SourceFull => "source_full",
            Self::SourceRate => "source_rate",
            Self::Overload => "overload",
            Self::Starved => "starved",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The lists and the table of sources, made ready to be asked for one address.
pub(crate) struct Admission {
    allow: PrefixSet,
    deny: PrefixSet,
    sources: Option<Arc<Sources>>,
}

impl Admission {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            allow: PrefixSet::new(&limits.allow),
            deny: PrefixSet::new(&limits.deny),
            sources: source_limits(&limits.per_source).map(|limits| Arc::new(Sources::new(limits))),
        }
    }

    /// The same with other lists and, where the bounds for each source have stayed, the same table.
    pub(crate) fn changed(&self, from: &Limits, to: &Limits) -> Self {
        let next = Self::new(to);
        let has_stayed = from.per_source == to.per_source;
        Self { sources: if has_stayed { self.sources.clone() } else { next.sources }, ..next }
    }

    /// Whether the lists let a caller in.
    pub(crate) fn check_lists(&self, from: IpAddr) -> Result<(), Refusal> {
        let is_listed = self.allow.is_empty() || self.allow.contains(from);
        if is_listed && !self.deny.contains(from) { Ok(()) } else { Err(Refusal::Denied) }
    }

    /// Counts a caller for its source, until what is returned is dropped, unless that has too many.
    pub(crate) fn admit(&self, from: IpAddr) -> Result<Option<SourcePlace>, Refusal> {
        let Some(sources) = &self.sources else { return Ok(None) };
        match sources.admit(from, Instant::now()) {
            Ok(place) => Ok(Some(place)),
            Err(Excess::Connections) => Err(Refusal::SourceFull),
            Err(Excess::Rate) => Err(Refusal::SourceRate),
        }
    }

    /// Counts a connection that is there already; `before` is where it has counted.
    pub(crate) fn enrol(&self, from: IpAddr, before: Option<SourcePlace>) -> Option<SourcePlace> {
        let sources = self.sources.as_ref()?;
        let is_counted = |place: &SourcePlace| place.is_of(sources);
        Some(before.filter(is_counted).unwrap_or_else(|| sources.enrol(from)))
    }
}

/// What each source may have; `None` where it may have anything.
fn source_limits(of: &PerSource) -> Option<SourceLimits> {
    if of.max_connections.is_none() && of.accept_rate.is_none() {
        return None;
    }
    let one_second = of.accept_rate.unwrap_or_default().max(1.0);
    Some(SourceLimits {
        connections: of.max_connections,
        rate: of.accept_rate,
        burst: of.accept_burst.map_or(one_second, |burst| burst as f64),
        ipv4_prefix: of.ipv4_prefix,
        ipv6_prefix: of.ipv6_prefix,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Prefix;

    fn list(prefixes: &[&str]) -> Vec<Prefix> {
        prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect()
    }

    fn may_come(limits: &Limits, from: &str) -> bool {
        Admission::new(limits).check_lists(from.parse().unwrap()).is_ok()
    }

    #[test]
    fn an_empty_list_admits_everybody_and_denial_wins() {
        assert!(may_come(&Limits::new(), "192.0.2.1") && may_come(&Limits::new(), "2001:db8::1"));
        let limits = Limits::new().allow(list(&["10.0.0.0/8", "::1"])).deny(list(&["10.1.0.0/16"]));
        for (from, may) in [
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("10.1.2.3", false),
            ("11.0.0.1", false),
            ("::1", true),
            ("::2", false),
        ] {
            assert_eq!(may_come(&limits, from), may, "{from}");
        }
    }

    #[test]
    fn sources_are_counted_only_where_a_bound_is_set() {
        let from = "192.0.2.1".parse().unwrap();
        assert!(Admission::new(&Limits::new()).admit(from).unwrap().is_none());
        let limits = Limits::new().per_source(PerSource::new().max_connections(1));
        let admission = Admission::new(&limits);
        let place = admission.admit(from).unwrap();
        assert!(place.is_some());
        assert_eq!(admission.admit(from).err(), Some(Refusal::SourceFull));
        // Other lists, the same bounds: the same count.
        let more = limits.clone().deny(list(&["192.0.2.2"]));
        assert_eq!(admission.changed(&limits, &more).admit(from).err(), Some(Refusal::SourceFull));
        let wider = limits.clone().per_source(PerSource::new().max_connections(2));
        assert!(admission.changed(&limits, &wider).admit(from).is_ok());
        drop(place);
        assert!(admission.admit(from).is_ok());
    }

    #[test]
    fn a_rate_without_a_burst_admits_those_of_one_second_at_once() {
        let per_source = PerSource::new().accept_rate(3.0);
        assert_eq!(source_limits(&per_source).unwrap().burst, 3.0);
        let slow = PerSource::new().accept_rate(0.1);
        assert_eq!(source_limits(&slow).unwrap().burst, 1.0);
        let limits = Limits::new().per_source(slow);
        let admission = Admission::new(&limits);
        let from = "192.0.2.1".parse().unwrap();
        assert!(admission.admit(from).is_ok());
        assert_eq!(admission.admit(from).err(), Some(Refusal::SourceRate));
    }
}
