//! Values on the command line. A parser's message tells the value and what would do.

use std::ops::RangeInclusive;
use std::time::Duration;

use onbytes::{Endpoint, Listener, ListenerConfiguration, MinArrival, Prefix};

use crate::failure::shown;

/// Something that may be switched off.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct OrOff<T>(pub(crate) Option<T>);

/// A time limit, which may be switched off.
pub(crate) type Limit = OrOff<Duration>;

const OFF: &str = "off";

/// The longest time that is taken for meant, in seconds: some thirty years.
const LONGEST: f64 = 1e9;

pub(crate) fn limit(text: &str) -> Result<Limit, String> {
    if text == OFF {
        return Ok(OrOff(None));
    }
    match seconds(text) {
        Some(time) if !time.is_zero() => Ok(OrOff(Some(time))),
        _ => refused(text, "seconds, such as 10 or 0.5, at most 1000000000, or off"),
    }
}

/// A time that is not nothing.
pub(crate) fn time(text: &str) -> Result<Duration, String> {
    match seconds(text) {
        Some(time) if !time.is_zero() => Ok(time),
        _ => refused(text, "seconds, such as 10 or 0.5, at most 1000000000"),
    }
}

pub(crate) fn deadline(text: &str) -> Result<Duration, String> {
    match seconds(text) {
        Some(time) => Ok(time),
        None => refused(text, "seconds, such as 10 or 0.5, at most 1000000000, or 0 for none"),
    }
}

pub(crate) fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = number(text)?;
    // The range leaves out what is not a number, too.
    (0.0..=LONGEST).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

/// A plain decimal number: `f64::from_str` alone would take `inf` and `+1`, too.
fn number(text: &str) -> Option<f64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit() || b".eE-".contains(&byte));
    text.parse().ok().filter(|_| is_plain)
}

/// A parser of whole numbers in `range`.
pub(crate) fn count(
    range: RangeInclusive<usize>,
) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        // `usize::from_str` would take a sign.
        let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
        match text.parse() {
            Ok(count) if is_plain && range.contains(&count) => Ok(count),
            _ => {
                let (least, most) = (range.start(), range.end());
                refused(text, &format!("a whole number from {least} to {most}"))
            }
        }
    }
}

/// Reads how many threads serve connections.
pub(crate) fn workers(text: &str) -> Result<usize, String> {
    const MOST: usize = 1024;
    if text == "auto" {
        let cores = std::thread::available_parallelism();
        return Ok(cores.map_or(1, std::num::NonZero::get).min(MOST));
    }
    count(1..=MOST)(text).map_err(|refused| format!("{refused}, or auto"))
}

/// A parser of whole numbers in `range`, or `off`.
pub(crate) fn count_or_off(
    range: RangeInclusive<usize>,
) -> impl Fn(&str) -> Result<OrOff<usize>, String> + Clone {
    or_off(count(range))
}

/// A parser of sizes in `range`, in bytes.
pub(crate) fn size(range: RangeInclusive<usize>) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| match bytes(text) {
        Some(size) if range.contains(&size) => Ok(size),
        _ => {
            let (least, most) = (range.start(), range.end());
            refused(text, &format!("bytes, {least} to {most}, such as 16777216 or 16M (K, M, G)"))
        }
    }
}

/// A parser of sizes in `range`, or `off`.
pub(crate) fn size_or_off(
    range: RangeInclusive<usize>,
) -> impl Fn(&str) -> Result<OrOff<usize>, String> + Clone {
    or_off(size(range))
}

fn or_off<T>(
    parse: impl Fn(&str) -> Result<T, String> + Clone,
) -> impl Fn(&str) -> Result<OrOff<T>, String> + Clone {
    move |text| match text {
        OFF => Ok(OrOff(None)),
        _ => match parse(text) {
            Ok(value) => Ok(OrOff(Some(value))),
            Err(message) => Err(format!("{message}, or off")),
        },
    }
}

/// Bytes, or with a letter KiB, MiB or GiB.
fn bytes(text: &str) -> Option<usize> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" | "B" => 1,
        "K" | "k" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        _ => return None,
    };
    let is_plain = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse::<usize>().ok().filter(|_| is_plain)?.checked_mul(unit)
}

/// So many in a second, or `off`.
pub(crate) fn rate(text: &str) -> Result<OrOff<f64>, String> {
    if text == OFF {
        return Ok(OrOff(None));
    }
    match number(text) {
        Some(rate) if (0.001..=1e6).contains(&rate) => Ok(OrOff(Some(rate))),
        _ => refused(text, "so many a second, 0.001 to 1000000, such as 5 or 0.5, or off"),
    }
}

/// So many in a second.
pub(crate) fn per_second(text: &str) -> Result<f64, String> {
    match number(text) {
        Some(rate) if (0.001..=1e8).contains(&rate) => Ok(rate),
        _ => refused(text, "so many a second, 0.001 to 100000000, such as 5000 or 0.5"),
    }
}

/// A share of something.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    match number(text) {
        Some(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => refused(text, "a number from 0 to 1, such as 0.1"),
    }
}

/// So many bytes in so many seconds, or `off`.
pub(crate) fn min_arrival(text: &str) -> Result<OrOff<MinArrival>, String> {
    if text == OFF {
        return Ok(OrOff(None));
    }
    let read = || {
        let (bytes, within) = text.split_once('/')?;
        let bytes = size(1..=u32::MAX as usize)(bytes).ok()?;
        let within = seconds(within).filter(|within| !within.is_zero())?;
        Some(OrOff(Some(MinArrival::new(bytes, within))))
    };
    match read() {
        Some(min_arrival) => Ok(min_arrival),
        None => refused(
            text,
            "BYTES/SECS, 1 to 4294967295 bytes in at most 1000000000 seconds, such as 100/10, or off",
        ),
    }
}

pub(crate) fn prefix(text: &str) -> Result<Prefix, String> {
    text.parse().map_err(message)
}

pub(crate) fn port(text: &str) -> Result<u16, String> {
    let port = count(1..=usize::from(u16::MAX))(text)?;
    Ok(u16::try_from(port).unwrap_or(u16::MAX))
}

pub(crate) fn address(text: &str) -> Result<Endpoint, String> {
    let endpoint: Endpoint = text.parse().map_err(message)?;
    possible(endpoint)
}

pub(crate) fn host(text: &str) -> Result<String, String> {
    possible((text, 0).into())?;
    Ok(text.to_owned())
}

/// Whether the host can be one at all. A listener that is only made opens nothing and asks nobody.
fn possible(endpoint: Endpoint) -> Result<Endpoint, String> {
    Listener::new(endpoint.clone(), ListenerConfiguration::new()).map_err(message)?;
    Ok(endpoint)
}

#[allow(clippy::needless_pass_by_value)] // For `map_err`.
fn message(error: onbytes::Error) -> String {
    error.to_string()
}

pub(crate) fn refused<T>(text: &str, possible: &str) -> Result<T, String> {
    Err(format!("'{}' is not accepted; give {possible}", shown(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_decimal_seconds_or_off() {
        let some = |seconds| Ok(OrOff(Some(Duration::from_secs_f64(seconds))));
        assert_eq!(limit("0.25"), some(0.25));
        assert_eq!(limit("1000000000"), some(1e9));
        assert_eq!(limit("off"), Ok(OrOff(None)));
        for text in [
            "", "0", "-0", "0.0", "1e-300", "-1", "nan", "inf", "-inf", "1e300", "1e10", "10s",
            "1,5", " 1", "OFF", "+1", "infinity",
        ] {
            let message = limit(text).expect_err(text);
            assert!(message.contains("such as 10 or 0.5"), "{message}");
        }
        assert_eq!(deadline("0"), Ok(Duration::ZERO));
        assert!(deadline("-1").is_err() && deadline("off").is_err());
        assert_eq!(time("0.5"), Ok(Duration::from_millis(500)));
        assert!(time("0").is_err() && time("off").is_err() && time("").is_err());
    }

    #[test]
    fn counts_are_plain_whole_numbers_in_range() {
        let count = count(1..=1024);
        assert_eq!(count("1024"), Ok(1024));
        for text in ["", "0", "1025", "-1", "+1", "1.0", "1e3", "99999999999999999999"] {
            assert!(count(text).is_err(), "{text}");
        }
        assert!(port("65536").is_err() && port("0").is_err() && port("65535") == Ok(65535));
    }

    #[test]
    fn sizes_may_have_a_unit() {
        let size = size(1..=usize::MAX);
        for (text, bytes) in [
            ("1", 1),
            ("65536", 65_536),
            ("64K", 65_536),
            ("64KiB", 65_536),
            ("16M", 16 << 20),
            ("2GiB", 2 << 30),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "K",
            "0",
            "0K",
            "-1K",
            "+1K",
            "1.5M",
            "1T",
            "64 K",
            "99999999999G",
            "1KB",
            "K1",
            "ä",
        ] {
            let message = size(text).expect_err(text);
            assert!(message.contains("such as 16777216 or 16M"), "{message}");
        }
        let or_off = size_or_off(1..=usize::MAX);
        assert_eq!(or_off("off"), Ok(OrOff(None)));
        assert!(or_off("0").unwrap_err().ends_with(", or off"));
    }

    #[test]
    fn rates_and_shares_are_decimal_numbers_in_range() {
        assert_eq!(rate("0.5"), Ok(OrOff(Some(0.5))));
        assert_eq!(rate("off"), Ok(OrOff(None)));
        for text in ["", "0", "-1", "nan", "inf", "1e7", "0.0001", "5/s"] {
            assert!(rate(text).is_err(), "{text}");
        }
        assert_eq!(per_second("20000"), Ok(20_000.0));
        assert!(per_second("0").is_err() && per_second("off").is_err());
        assert_eq!(share("0"), Ok(0.0));
        assert_eq!(share("1"), Ok(1.0));
        for text in ["", "-0.1", "1.1", "nan", "10%"] {
            assert!(share(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_least_arrival_is_bytes_in_seconds() {
        let ten = MinArrival::new(100, Duration::from_secs(10));
        assert_eq!(min_arrival("100/10"), Ok(OrOff(Some(ten))));
        assert_eq!(min_arrival("off"), Ok(OrOff(None)));
        for text in ["", "100", "/", "0/10", "100/0", "100/", "/10", "100/10/1", "-1/10", "1/nan"] {
            let message = min_arrival(text).expect_err(text);
            assert!(message.contains("BYTES/SECS"), "{message}");
        }
    }

    #[test]
    fn hosts_that_cannot_be_are_refused_without_asking_anybody() {
        assert!(host("localhost").is_ok() && host("::1").is_ok() && host("[::1]").is_ok());
        for text in ["", "a b", "a\nb"] {
            assert!(host(text).is_err(), "{text:?}");
        }
        let message = host(&"a".repeat(5_000)).unwrap_err();
        assert!(message.len() < 300, "{message}");
        assert!(address("127.0.0.1:65536").is_err() && address("").is_err());
    }
}
