//! How records are written in files: times in decimal seconds, counts as whole numbers, and
//! `"off"` for a limit that is switched off. Values that cannot be are refused in one sentence.

use std::fmt;
use std::time::Duration;

use serde::de::{self, Deserializer, Visitor};
use serde::ser::Serializer;

const OFF: &str = "off";

/// Writes a value as `write` does, or `"off"`.
fn or_off<T, S: Serializer>(
    value: &Option<T>,
    to: S,
    write: impl FnOnce(&T, S) -> Result<S::Ok, S::Error>,
) -> Result<S::Ok, S::Error> {
    match value {
        Some(value) => write(value, to),
        None => to.serialize_str(OFF),
    }
}

/// A time in decimal seconds.
pub(crate) mod seconds {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(time: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(time.as_secs_f64())
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        from.deserialize_any(Seconds { may_be_off: false })?
            .ok_or_else(|| de::Error::custom("this time cannot be switched off"))
    }
}

/// A time in decimal seconds, or `"off"`.
pub(crate) mod optional_seconds {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        or_off(time, to, seconds::serialize)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        from.deserialize_any(Seconds { may_be_off: true })
    }
}

/// A whole number of at least 1.
pub(crate) mod count {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(count: &usize, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(*count as u64)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<usize, D::Error> {
        from.deserialize_any(Count)
    }
}

/// A whole number of at least 1, or null for the default.
pub(crate) mod optional_count {
    use super::*;
    use serde::Deserialize;

    pub(crate) fn serialize<S: Serializer>(
        count: &Option<usize>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match count {
            Some(count) => count::serialize(count, to),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<usize>, D::Error> {
        #[derive(Deserialize)]
        struct Inner(#[serde(with = "super::count")] usize);
        Ok(Option::<Inner>::deserialize(from)?.map(|inner| inner.0))
    }
}

/// A whole number of at least 1, or `"off"`.
pub(crate) mod count_or_off {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        count: &Option<usize>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        or_off(count, to, count::serialize)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<usize>, D::Error> {
        from.deserialize_any(OrOff(Count))
    }
}

/// A whole number of at least 1; `"off"` for the greatest, or null for the default.
pub(crate) mod ceiling {
    use super::*;
    use serde::Deserialize;

    pub(crate) fn serialize<S: Serializer>(
        count: &Option<usize>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match count {
            Some(usize::MAX) => to.serialize_str(OFF),
            count => optional_count::serialize(count, to),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<usize>, D::Error> {
        #[derive(Deserialize)]
        struct Inner(#[serde(with = "super::count_or_off")] Option<usize>);
        let ceiling = Option::<Inner>::deserialize(from)?;
        Ok(ceiling.map(|inner| inner.0.unwrap_or(usize::MAX)))
    }
}

/// So many in a second, with decimals, or `"off"`.
pub(crate) mod rate_or_off {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(rate: &Option<f64>, to: S) -> Result<S::Ok, S::Error> {
        or_off(rate, to, share::serialize)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        from.deserialize_any(OrOff(Number("a number of more than 0 in a second")))
    }
}

/// A share from 0 to 1.
pub(crate) mod share {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(share: &f64, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_f64(*share)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<f64, D::Error> {
        from.deserialize_any(Number("a number from 0 to 1"))
    }
}

/// So many leading bits of an address.
pub(crate) mod bits {
    use super::*;

    pub(crate) fn serialize<S: Serializer>(bits: &u8, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8(*bits)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<u8, D::Error> {
        let bits = from.deserialize_any(Count)?;
        u8::try_from(bits).map_err(|_| {
            let unexpected = de::Unexpected::Unsigned(bits as u64);
            de::Error::invalid_value(unexpected, &"so many bits as an address has, 1 to 128")
        })
    }
}

/// The record of the fewest bytes to come, or `"off"`.
pub(crate) mod optional_min_arrival {
    use super::*;
    use crate::MinArrival;
    use serde::{Deserialize, Serialize};

    pub(crate) fn serialize<S: Serializer>(
        min_arrival: &Option<MinArrival>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        or_off(min_arrival, to, MinArrival::serialize)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<MinArrival>, D::Error> {
        from.deserialize_any(OrOff(Fields))
    }

    struct Fields;

    impl<'de> Visitor<'de> for Fields {
        type Value = MinArrival;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a record with bytes and within")
        }

        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<MinArrival, A::Error> {
            MinArrival::deserialize(de::value::MapAccessDeserializer::new(map))
        }
    }
}

/// The keep-alive record, the name of a preset, or `"off"`.
pub(crate) mod optional_keep_alive {
    use super::*;
    use crate::KeepAlive;
    use serde::{Deserialize, Serialize};

    pub(crate) fn serialize<S: Serializer>(
        keep_alive: &Option<KeepAlive>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        or_off(keep_alive, to, KeepAlive::serialize)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<KeepAlive>, D::Error> {
        from.deserialize_any(KeepAliveOrOff)
    }

    struct KeepAliveOrOff;

    impl<'de> Visitor<'de> for KeepAliveOrOff {
        type Value = Option<KeepAlive>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a record with idle, interval, probes and userTimeout, \"lan\", \"mobile\" or \"off\"")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
            match text {
                OFF => Ok(None),
                "lan" => Ok(Some(KeepAlive::lan())),
                "mobile" => Ok(Some(KeepAlive::mobile())),
                _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
            }
        }

        fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
            KeepAlive::deserialize(de::value::MapAccessDeserializer::new(map)).map(Some)
        }
    }
}

struct Seconds {
    may_be_off: bool,
}

impl Visitor<'_> for Seconds {
    type Value = Option<Duration>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of seconds, 0 or more")?;
        if self.may_be_off { f.write_str(", or \"off\"") } else { Ok(()) }
    }

    fn visit_f64<E: de::Error>(self, seconds: f64) -> Result<Self::Value, E> {
        // The greatest time is written as the nearest number, which lies a little beyond it.
        if seconds == Duration::MAX.as_secs_f64() {
            return Ok(Some(Duration::MAX));
        }
        match Duration::try_from_secs_f64(seconds) {
            Ok(time) => Ok(Some(time)),
            Err(_) => Err(E::invalid_value(de::Unexpected::Float(seconds), &self)),
        }
    }

    fn visit_u64<E: de::Error>(self, seconds: u64) -> Result<Self::Value, E> {
        Ok(Some(Duration::from_secs(seconds)))
    }

    fn visit_i64<E: de::Error>(self, seconds: i64) -> Result<Self::Value, E> {
        match u64::try_from(seconds) {
            Ok(seconds) => self.visit_u64(seconds),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(seconds), &self)),
        }
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        match text {
            OFF if self.may_be_off => Ok(None),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

struct Count;

impl Visitor<'_> for Count {
    type Value = usize;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a whole number of at least 1")
    }

    fn visit_u64<E: de::Error>(self, count: u64) -> Result<usize, E> {
        match usize::try_from(count) {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(E::invalid_value(de::Unexpected::Unsigned(count), &self)),
        }
    }

    fn visit_i64<E: de::Error>(self, count: i64) -> Result<usize, E> {
        match u64::try_from(count) {
            Ok(count) => self.visit_u64(count),
            Err(_) => Err(E::invalid_value(de::Unexpected::Signed(count), &self)),
        }
    }
}

/// A number with decimals, described by a word of what it may be.
struct Number(&'static str);

impl Visitor<'_> for Number {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<f64, E> {
        Ok(number)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<f64, E> {
        Ok(number as f64)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<f64, E> {
        Ok(number as f64)
    }
}

/// What the inner visitor takes, or `"off"`.
struct OrOff<V>(V);

impl<'de, V: Visitor<'de>> Visitor<'de> for OrOff<V> {
    type Value = Option<V::Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)?;
        f.write_str(", or \"off\"")
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Self::Value, E> {
        self.0.visit_f64(number).map(Some)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Self::Value, E> {
        self.0.visit_u64(number).map(Some)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Self::Value, E> {
        self.0.visit_i64(number).map(Some)
    }

    fn visit_map<A: de::MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
        self.0.visit_map(map).map(Some)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Self::Value, E> {
        match text {
            OFF => Ok(None),
            _ => Err(E::invalid_value(de::Unexpected::Str(text), &self)),
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        ClientConfiguration, KeepAlive, Limits, ListenerConfiguration, MinArrival, PerSource,
        Prefix, Timeouts, WhenFull,
    };
    use std::time::Duration;

    fn refused(text: &str) -> String {
        serde_json::from_str::<ListenerConfiguration>(text).unwrap_err().to_string()
    }

    #[test]
    fn a_file_reads_as_it_is_documented() {
        let config: ListenerConfiguration = serde_json::from_str(
            r#"{
                "localHost": "127.0.0.1",
                "allowHalfOpen": true,
                "limits": {"maxConnections": 500, "whenFull": "refuse"},
                "timeouts": {"write": 2.5, "idle": "off", "maxLifetime": 3600},
                "socket": {"noDelay": false, "keepAlive": {"idle": 30}, "backlog": 64}
            }"#,
        )
        .unwrap();
        assert_eq!(config.local_host.as_deref(), Some("127.0.0.1"));
        assert_eq!(config.limits.max_connections, Some(500));
        assert_eq!(config.limits.when_full, WhenFull::Refuse);
        assert_eq!(config.timeouts.write, Some(Duration::from_millis(2500)));
        assert_eq!(config.timeouts.idle, None);
        let keep_alive = KeepAlive::new().idle(Duration::from_secs(30));
        assert_eq!(config.socket.keep_alive, Some(keep_alive));
    }

    #[test]
    fn bounds_read_as_they_are_documented() {
        let config: ListenerConfiguration = serde_json::from_str(
            r#"{
                "limits": {
                    "perSource": {"maxConnections": 20, "acceptRate": 0.5, "acceptBurst": 10,
                                  "ipv4Prefix": 24, "ipv6Prefix": 56},
                    "allow": ["10.0.0.0/8", "::1"],
                    "deny": ["10.1.0.0/16"],
                    "maxQueuedBytes": 1000, "maxQueuedBytesTotal": 1000000, "maxMemory": 100000000
                },
                "timeouts": {"minArrival": {"bytes": 100, "within": 2.5}, "maxLifetimeJitter": 0},
                "socket": {"keepAlive": "lan"}
            }"#,
        )
        .unwrap();
        let per_source = PerSource::new()
            .max_connections(20)
            .accept_rate(0.5)
            .accept_burst(10)
            .ipv4_prefix(24)
            .ipv6_prefix(56);
        let list = |prefixes: &[&str]| -> Vec<Prefix> {
            prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect()
        };
        let limits = Limits::new()
            .per_source(per_source)
            .allow(list(&["10.0.0.0/8", "::1"]))
            .deny(list(&["10.1.0.0/16"]))
            .max_queued_bytes(1000)
            .max_queued_bytes_total(1_000_000)
            .max_memory(100_000_000);
        let timeouts = Timeouts::new()
            .min_arrival(MinArrival::new(100, Duration::from_millis(2500)))
            .max_lifetime_jitter(0.0);
        assert_eq!(config.limits, limits);
        assert_eq!(config.timeouts, timeouts);
        assert_eq!(config.socket.keep_alive, Some(KeepAlive::lan()));
        let text = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<ListenerConfiguration>(&text).unwrap(), config);
    }

    #[test]
    fn bounds_are_switched_off_by_a_word() {
        let text = r#"{"limits": {"perSource": {"maxConnections": "off", "acceptRate": "off"},
            "maxQueuedBytesTotal": "off"}, "timeouts": {"minArrival": "off"},
            "socket": {"keepAlive": {"userTimeout": "off"}}}"#;
        let config: ListenerConfiguration = serde_json::from_str(text).unwrap();
        assert_eq!(config, ListenerConfiguration::new());
        let text = r#"{"limits": {"maxMemory": "off"}}"#;
        let config: ListenerConfiguration = serde_json::from_str(text).unwrap();
        assert_eq!(config.limits.max_memory, Some(usize::MAX));
        assert!(serde_json::to_string(&config).unwrap().contains(r#""maxMemory":"off""#));
        assert!(refused(r#"{"limits": {"maxMemory": 0}}"#).contains("at least 1"));
        assert!(refused(r#"{"limits": {"maxQueuedBytesTotal": "on"}}"#).contains("or \"off\""));
        assert!(
            refused(r#"{"limits": {"perSource": {"acceptRate": "5/s"}}}"#).contains("in a second")
        );
        assert!(refused(r#"{"limits": {"allow": ["10.0.0.1/8"]}}"#).contains("10.0.0.0/8"));
        assert!(refused(r#"{"timeouts": {"minArrival": {"bytes": 1}}}"#).contains("`within`"));
        assert!(refused(r#"{"timeouts": {"minArrival": 5}}"#).contains("bytes and within"));
        assert!(refused(r#"{"timeouts": {"maxLifetimeJitter": "off"}}"#).contains("from 0 to 1"));
        assert!(refused(r#"{"socket": {"keepAlive": "wan"}}"#).contains("\"lan\", \"mobile\""));
    }

    #[test]
    fn records_survive_writing_and_reading() {
        let config = ListenerConfiguration::new()
            .timeouts(Timeouts::new().write(None).idle(Duration::from_millis(1500)));
        let text = serde_json::to_string(&config).unwrap();
        assert!(text.contains(r#""write":"off""#) && text.contains(r#""idle":1.5"#), "{text}");
        assert_eq!(serde_json::from_str::<ListenerConfiguration>(&text).unwrap(), config);
        let text = serde_json::to_string(&ClientConfiguration::new()).unwrap();
        assert_eq!(
            serde_json::from_str::<ClientConfiguration>(&text).unwrap(),
            ClientConfiguration::new()
        );
    }

    #[test]
    fn unknown_fields_are_refused_with_the_accepted_names() {
        let message = refused(r#"{"localhost": "::1"}"#);
        assert!(message.contains("`localhost`") && message.contains("`localHost`"), "{message}");
        let message = refused(r#"{"timeouts": {"wirte": 1}}"#);
        assert!(message.contains("`maxLifetime`"), "{message}");
        let message = refused(r#"{"socket": {"keepAlive": {"idel": 1}}}"#);
        assert!(message.contains("`probes`"), "{message}");
    }

    #[test]
    fn impossible_numbers_are_refused_in_a_sentence() {
        for value in ["-1", "-0.5", "1e300", "\"1\"", "null", "true"] {
            let message = refused(&format!(r#"{{"timeouts": {{"idle": {value}}}}}"#));
            assert!(message.contains("a number of seconds, 0 or more, or \"off\""), "{message}");
        }
        for value in ["-1", "0", "1.5", "1e300", "99999999999999999999"] {
            let message = refused(&format!(r#"{{"limits": {{"maxConnections": {value}}}}}"#));
            assert!(message.contains("a whole number of at least 1"), "{message}");
        }
        assert!(refused(r#"{"timeouts": {"onClose": "off"}}"#).contains("0 or more"));
        assert!(refused(r#"{"limits": {"whenFull": "explode"}}"#).contains("`refuse`"));
    }

    #[test]
    fn numbers_that_only_other_formats_have_are_refused_too() {
        use serde::de::IntoDeserializer;
        use serde::de::value::{Error, F64Deserializer};
        for value in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -1.0] {
            let from: F64Deserializer<Error> = value.into_deserializer();
            assert!(super::optional_seconds::deserialize(from).is_err(), "{value}");
        }
    }
}
