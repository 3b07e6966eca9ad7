//! Blocks of IP addresses, and sets of them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use crate::endpoint::shown;
use crate::{Error, Result};

/// A block of IP addresses, `10.0.0.0/8` or `2001:db8::/32`; a bare address is a block of one.
///
/// IPv4 that is written as IPv6 (`::ffff:10.0.0.0/104`) is the IPv4 block that it stands for
/// (`10.0.0.0/8`).
///
/// ```
/// use onbytes::Prefix;
///
/// let private: Prefix = "10.0.0.0/8".parse()?;
/// assert!(private.contains("10.1.2.3".parse().unwrap()));
/// assert!(private.contains("::ffff:10.1.2.3".parse().unwrap()));
///
/// let error = "10.0.0.1/8".parse::<Prefix>().unwrap_err();
/// assert_eq!(error.to_string(), "10.0.0.1/8 has bits beyond its 8; write 10.0.0.0/8");
/// # Ok::<(), onbytes::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Prefix {
    /// Without bits beyond the length, and never IPv4 written as IPv6.
    address: IpAddr,
    length: u8,
}

/// The first and the last address of a block, as numbers.
enum Range {
    V4(u32, u32),
    V6(u128, u128),
}

impl Prefix {
    /// The block of all addresses that share the first `length` bits of `address`.
    ///
    /// Fails with [`ErrorKind::Configuration`](crate::ErrorKind::Configuration) if `address` has
    /// fewer bits than that, or has bits set beyond them.
    pub fn new(address: IpAddr, length: u8) -> Result<Self> {
        let refused =
            |problem: String| Error::configuration(format!("{address}/{length} {problem}"));
        if length > width(address) {
            return Err(refused(without_length(address)));
        }
        let canonical = address.to_canonical();
        // Where the address changes it is IPv4, with 96 bits before it that say so.
        let Some(rest) = length.checked_sub(width(address) - width(canonical)) else {
            return Err(refused(
                "is IPv4 written as IPv6, which has a length from 96 to 128; write the IPv4 block, \
                 such as 10.0.0.0/8"
                    .to_owned(),
            ));
        };
        let block = Self::around(canonical, rest);
        if block.address != canonical {
            return Err(refused(format!("has bits beyond its {length}; write {block}")));
        }
        Ok(block)
    }

    /// The block of that length that has `address` in it.
    fn around(address: IpAddr, length: u8) -> Self {
        let address = match address {
            IpAddr::V4(address) => IpAddr::V4((address.to_bits() & !beyond_v4(length)).into()),
            IpAddr::V6(address) => IpAddr::V6((address.to_bits() & !beyond_v6(length)).into()),
        };
        Self { address, length }
    }

    /// The first address of the block.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// How many leading bits the addresses of the block share.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Is `address` in the block?
    ///
    /// An IPv4 address that is written as IPv6 (`::ffff:10.0.0.1`) counts as IPv4, so that no block
    /// of IPv6, not even `::/0`, has it.
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.range(), address.to_canonical()) {
            (Range::V4(first, last), IpAddr::V4(address)) => {
                (first..=last).contains(&address.to_bits())
            }
            (Range::V6(first, last), IpAddr::V6(address)) => {
                (first..=last).contains(&address.to_bits())
            }
            _ => false,
        }
    }

    fn range(&self) -> Range {
        match self.address {
            IpAddr::V4(address) => {
                Range::V4(address.to_bits(), address.to_bits() | beyond_v4(self.length))
            }
            IpAddr::V6(address) => {
                Range::V6(address.to_bits(), address.to_bits() | beyond_v6(self.length))
            }
        }
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// The bits of an IPv4 address that lie beyond the first `length`.
fn beyond_v4(length: u8) -> u32 {
    u32::MAX.checked_shr(length.into()).unwrap_or(0)
}

/// The bits of an IPv6 address that lie beyond the first `length`.
fn beyond_v6(length: u8) -> u128 {
    u128::MAX.checked_shr(length.into()).unwrap_or(0)
}

fn without_length(address: IpAddr) -> String {
    format!("has no length from 0 to {}; give ADDRESS or ADDRESS/LENGTH", width(address))
}

impl FromStr for Prefix {
    type Err = Error;

    /// Reads `ADDRESS` or `ADDRESS/LENGTH`.
    fn from_str(text: &str) -> Result<Self> {
        let refused = |problem: &str| Error::configuration(format!("'{}' {problem}", shown(text)));
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(length)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| {
            refused(
                "is not a block of addresses; give ADDRESS or ADDRESS/LENGTH, such as 10.0.0.0/8 \
                 or 2001:db8::/32",
            )
        })?;
        let Some(length) = length else {
            return Ok(address.into());
        };
        let length = parse_length(length).ok_or_else(|| refused(&without_length(address)))?;
        Self::new(address, length)
    }
}

fn parse_length(text: &str) -> Option<u8> {
    // `u8::from_str` would take a sign, and zeros in front, which some read as octal.
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let is_padded = text.len() > 1 && text.starts_with('0');
    (is_plain && !is_padded).then(|| text.parse().ok())?
}

impl TryFrom<&str> for Prefix {
    type Error = Error;

    fn try_from(text: &str) -> Result<Self> {
        text.parse()
    }
}

impl From<IpAddr> for Prefix {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { address, length: width(address) }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.length == width(self.address) {
            return self.address.fmt(f);
        }
        write!(f, "{}/{}", self.address, self.length)
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Prefix({self})")
    }
}

/// A prefix is a text in files.
#[cfg(feature = "serde")]
mod text {
    use super::*;
    use serde::de::{self, Deserialize, Deserializer, Visitor};
    use serde::ser::{Serialize, Serializer};

    impl Serialize for Prefix {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            to.collect_str(self)
        }
    }

    impl<'de> Deserialize<'de> for Prefix {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            from.deserialize_str(Text)
        }
    }

    struct Text;

    impl Visitor<'_> for Text {
        type Value = Prefix;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an address or a block of addresses, such as \"10.0.0.0/8\"")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Prefix, E> {
            text.parse().map_err(E::custom)
        }
    }
}

/// Many prefixes, merged, to be asked for one address quickly.
pub(crate) struct PrefixSet {
    v4: Ranges<u32>,
    v6: Ranges<u128>,
}

impl PrefixSet {
    pub(crate) fn new(prefixes: &[Prefix]) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for prefix in prefixes {
            match prefix.range() {
                Range::V4(first, last) => v4.push((first, last)),
                Range::V6(first, last) => v6.push((first, last)),
            }
        }
        Self {
            v4: Ranges::new(v4, |last| last.checked_add(1)),
            v6: Ranges::new(v6, |last| last.checked_add(1)),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.v4.0.is_empty() && self.v6.0.is_empty()
    }

    /// Is `address` in one of the prefixes? As with them, IPv4 written as IPv6 counts as IPv4.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.contains(address.to_bits()),
            IpAddr::V6(address) => self.v6.contains(address.to_bits()),
        }
    }
}

/// The first and the last number of ranges, in order, that neither overlap nor touch.
struct Ranges<N>(Vec<(N, N)>);

impl<N: Ord + Copy> Ranges<N> {
    /// Merges `ranges`; `next` is the number after one, if there is one.
    fn new(mut ranges: Vec<(N, N)>, next: impl Fn(N) -> Option<N>) -> Self {
        ranges.sort_unstable();
        ranges.dedup_by(|later, earlier| {
            // After the last number of all nothing follows: whatever comes later is within.
            let joins = next(earlier.1).is_none_or(|next| later.0 <= next);
            if joins {
                earlier.1 = earlier.1.max(later.1);
            }
            joins
        });
        ranges.shrink_to_fit();
        Self(ranges)
    }

    fn contains(&self, number: N) -> bool {
        let begun = self.0.partition_point(|(first, _)| *first <= number);
        self.0[..begun].last().is_some_and(|(_, last)| number <= *last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn message(text: &str) -> String {
        let error = text.parse::<Prefix>().unwrap_err();
        assert!(error.is_configuration());
        error.to_string()
    }

    fn set(texts: &[&str]) -> PrefixSet {
        PrefixSet::new(&texts.iter().map(|text| prefix(text)).collect::<Vec<_>>())
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in
            ["10.0.0.0/8", "0.0.0.0/0", "::/0", "2001:db8::/32", "10.1.2.3", "::1", "128.0.0.0/1"]
        {
            assert_eq!(prefix(text).to_string(), text);
            assert_eq!(format!("{:?}", prefix(text)), format!("Prefix({text})"));
            assert_eq!(Prefix::try_from(text).unwrap(), prefix(text));
        }
        assert_eq!(prefix("10.1.2.3/32").to_string(), "10.1.2.3");
        assert_eq!(prefix("::1/128"), Prefix::from(address("::1")));
        assert_eq!(prefix("10.0.0.0/8").address(), address("10.0.0.0"));
        assert_eq!(prefix("10.0.0.0/8").length(), 8);
    }

    #[test]
    fn a_prefix_has_its_addresses_and_no_others() {
        let ten = prefix("10.0.0.0/8");
        assert!(ten.contains(address("10.0.0.0")) && ten.contains(address("10.255.255.255")));
        assert!(!ten.contains(address("9.255.255.255")) && !ten.contains(address("11.0.0.0")));
        assert!(!ten.contains(address("::10.0.0.1")));
        let one = prefix("2001:db8::1");
        assert!(one.contains(address("2001:db8::1")) && !one.contains(address("2001:db8::2")));
        assert!(prefix("0.0.0.0/0").contains(address("255.255.255.255")));
        assert!(prefix("255.255.255.255").contains(address("255.255.255.255")));
        assert!(prefix("::/0").contains(IpAddr::V6(u128::MAX.into())));
    }

    #[test]
    fn ipv4_written_as_ipv6_is_ipv4() {
        assert_eq!(prefix("::ffff:10.0.0.0/104"), prefix("10.0.0.0/8"));
        assert_eq!(prefix("::ffff:0:0/96"), prefix("0.0.0.0/0"));
        assert_eq!(prefix("::ffff:10.0.0.1/128"), prefix("10.0.0.1"));
        assert_eq!(Prefix::from(address("::ffff:10.0.0.1")), prefix("10.0.0.1"));
        assert!(prefix("10.0.0.0/8").contains(address("::ffff:10.1.2.3")));
        // What merely has the mapped addresses in it is IPv6, and stays it.
        assert_eq!(prefix("::/0").to_string(), "::/0");
        assert_eq!(prefix("::fffe:0:0/95").to_string(), "::fffe:0:0/95");
        for text in ["10.1.2.3", "::ffff:10.1.2.3"] {
            assert!(!prefix("::/0").contains(address(text)), "{text}");
            assert!(!set(&["::/0", "::fffe:0:0/95"]).contains(address(text)), "{text}");
        }
    }

    #[test]
    fn impossible_text_is_refused_with_the_way_out() {
        for text in
            ["", "/", "/8", "10/8", "10.0.0.0.0", "a.example", "[::1]", "fe80::1%lo", " ::1"]
        {
            assert!(message(text).contains("give ADDRESS or ADDRESS/LENGTH"), "{}", message(text));
        }
        for text in
            ["10.0.0.0/", "10.0.0.0/+8", "10.0.0.0/08", "10.0.0.0/8/8", "10.0.0.0/255.0.0.0"]
        {
            assert!(message(text).contains("no length from 0 to 32;"), "{}", message(text));
        }
        assert!(message("10.0.0.0/33").starts_with("10.0.0.0/33 has no length from 0 to 32;"));
        assert!(message("10.0.0.0/999").starts_with("'10.0.0.0/999' has no length from 0 to 32;"));
        assert!(message("::/129").starts_with("::/129 has no length from 0 to 128;"));
    }

    #[test]
    fn bits_beyond_the_length_are_refused_with_the_block_that_was_meant() {
        assert_eq!(message("10.0.0.1/8"), "10.0.0.1/8 has bits beyond its 8; write 10.0.0.0/8");
        assert_eq!(message("1.0.0.0/0"), "1.0.0.0/0 has bits beyond its 0; write 0.0.0.0/0");
        assert_eq!(message("::1/127"), "::1/127 has bits beyond its 127; write ::/127");
        assert_eq!(
            message("::ffff:10.0.0.1/104"),
            "::ffff:10.0.0.1/104 has bits beyond its 104; write 10.0.0.0/8"
        );
        for text in ["::ffff:10.0.0.0/8", "::ffff:0:0/95", "::ffff:0:0/0"] {
            assert!(message(text).contains("write the IPv4 block"), "{}", message(text));
        }
    }

    #[test]
    fn an_absurd_text_is_cut_in_the_message() {
        for text in ["a".repeat(5_000), format!("10.0.0.0/{}", "1".repeat(5_000))] {
            assert!(message(&text).len() < 300, "{}", message(&text));
        }
        assert!(!message("10.0.0.0\n/8").contains('\n'));
    }

    #[cfg(feature = "serde")]
    #[test]
    fn a_file_has_it_as_text() {
        let read = |text: &str| serde_json::from_str::<Prefix>(text);
        assert_eq!(serde_json::to_string(&prefix("10.0.0.0/8")).unwrap(), r#""10.0.0.0/8""#);
        assert_eq!(read(r#""10.0.0.0/8""#).unwrap(), prefix("10.0.0.0/8"));
        let refused = read(r#""10.0.0.1/8""#).unwrap_err().to_string();
        assert!(refused.starts_with(&message("10.0.0.1/8")), "{refused}");
        let refused = read("8").unwrap_err().to_string();
        assert!(refused.contains("an address or a block of addresses"), "{refused}");
    }

    #[test]
    fn ranges_that_overlap_or_touch_are_one() {
        let touching = set(&["10.0.1.0/24", "10.0.0.0/24", "10.0.0.7", "10.0.2.0/24"]);
        assert_eq!(touching.v4.0.len(), 1);
        assert!(touching.contains(address("10.0.0.0")) && touching.contains(address("10.0.2.255")));
        assert!(!touching.contains(address("9.255.255.255")));
        assert!(!touching.contains(address("10.0.3.0")));
        let apart = set(&["10.0.0.0/24", "10.0.2.0/24", "::/128", "::2/128"]);
        assert_eq!((apart.v4.0.len(), apart.v6.0.len()), (2, 2));
        assert!(!apart.contains(address("10.0.1.0")) && !apart.contains(address("::1")));
    }

    #[test]
    fn a_set_reaches_to_both_ends_of_the_address_space() {
        let all = set(&["255.255.255.255", "0.0.0.0/0", "255.0.0.0/8", "::/0", "8000::/1"]);
        assert_eq!((all.v4.0.len(), all.v6.0.len()), (1, 1));
        let ends = set(&["255.255.255.255", "255.255.255.254", "0.0.0.0", "::"]);
        for set in [&all, &ends] {
            assert!(set.contains(address("255.255.255.255")) && set.contains(address("0.0.0.0")));
            assert!(set.contains(address("::")));
        }
        assert!(all.contains(IpAddr::V6(u128::MAX.into())) && !ends.contains(address("::1")));
        assert!(set(&[]).is_empty() && !set(&[]).contains(address("::")));
        assert!(!ends.is_empty() && !set(&["::/0"]).contains(address("0.0.0.0")));
    }

    /// Addresses close together, at both ends and in the mapped range, so that blocks meet.
    fn any_address() -> impl Strategy<Value = IpAddr> {
        let v4 = prop_oneof![0u32..64, (0u32..64).prop_map(|back| u32::MAX - back), any::<u32>()];
        let v4 = v4.prop_map(Ipv4Addr::from_bits).boxed();
        let mapped = v4.clone().prop_map(|address| IpAddr::V6(address.to_ipv6_mapped()));
        let v6 = prop_oneof![0u128..64, (0u128..64).prop_map(|back| u128::MAX - back)];
        let v6 = v6.prop_map(|bits| IpAddr::V6(Ipv6Addr::from_bits(bits)));
        prop_oneof![v4.prop_map(IpAddr::V4), mapped, v6]
    }

    fn any_prefix() -> impl Strategy<Value = Prefix> {
        let beyond = prop_oneof![0u8..8, 0u8..129];
        (any_address(), beyond).prop_map(|(address, beyond)| {
            let address = address.to_canonical();
            Prefix::around(address, width(address).saturating_sub(beyond))
        })
    }

    proptest! {
        #[test]
        fn a_set_answers_like_a_loop_over_its_prefixes(
            prefixes in proptest::collection::vec(any_prefix(), 0..20),
            others in proptest::collection::vec(any_address(), 1..50),
        ) {
            let set = PrefixSet::new(&prefixes);
            assert_eq!(set.is_empty(), prefixes.is_empty());
            let own = prefixes.iter().map(Prefix::address);
            for address in others.into_iter().chain(own) {
                let expected = prefixes.iter().any(|prefix| prefix.contains(address));
                assert_eq!(set.contains(address), expected, "{address}");
            }
        }

        #[test]
        fn any_prefix_survives_its_text(prefix in any_prefix()) {
            assert_eq!(prefix.to_string().parse::<Prefix>().unwrap(), prefix);
        }
    }
}
