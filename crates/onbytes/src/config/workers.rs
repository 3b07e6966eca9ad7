//! Where the connections of a listener run.

use std::num::NonZeroUsize;

use super::in_range;
use crate::Result;

/// Where the connections of a listener run.
///
/// * [`Current`](Self::Current), the default: wherever the rest of the program runs. Right for one
///   thread (a `current_thread` runtime, which serves tens of thousands of connections), and for a program
///   that has a multi-threaded runtime for other reasons: that moves connections from busy threads to idle
///   ones, and pays for it with every wake-up.
/// * [`Threads`](Self::Threads): for a server that is to use several cores. Nothing is shared between
///   threads on the way of a message, so each does what a server with one thread does.
/// * [`AcceptLoops`](Self::AcceptLoops): for a multi-threaded runtime under a storm of new connections.
///
/// BENCHMARKS.md has what was measured. In a file it is `"current"`, a number of threads, or
/// `{"acceptLoops": N}`.
///
/// ```
/// use onbytes::{ListenerConfiguration, Workers};
///
/// let config = ListenerConfiguration::new().workers(Workers::one_per_core());
/// # let _ = config;
/// assert_eq!(Workers::from(4), Workers::Threads(4));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Workers {
    /// On the Tokio runtime of whoever starts the listener, where one task accepts.
    #[default]
    Current,
    /// On that runtime too, where so many tasks accept from one listening socket: 1 to 1024.
    AcceptLoops(usize),
    /// On so many threads of the listener's own, 1 to 1024, each with a single-threaded Tokio runtime and,
    /// on Linux, a listening socket of its own (`SO_REUSEPORT`), elsewhere a share of one.
    ///
    /// The kernel divides new connections by their addresses; each stays on its thread. With many
    /// connections that is even, with a handful it need not be.
    ///
    /// The threads end with the listener's stop, and with them what callbacks have spawned there
    /// (`tokio::spawn`) and the clients that they have made. What is to live longer is spawned through a
    /// `tokio::runtime::Handle` of another runtime. A callback that blocks holds up the connections of
    /// its thread, new ones as well.
    ///
    /// The threads, and one more that stops the listener and watches its bounds, serve until the listener is
    /// stopped or its last handle dropped, even where the runtime that started it has ended.
    Threads(usize),
}

impl Workers {
    /// As many threads as the process may use cores ([`std::thread::available_parallelism`]).
    pub fn one_per_core() -> Self {
        Self::Threads(std::thread::available_parallelism().map_or(1, NonZeroUsize::get).min(MOST))
    }

    pub(super) fn check(self) -> Result<()> {
        match self {
            Self::Current => Ok(()),
            Self::AcceptLoops(count) | Self::Threads(count) => in_range("workers", count, 1, MOST),
        }
    }
}

/// So many threads of the listener's own.
impl From<usize> for Workers {
    fn from(count: usize) -> Self {
        Self::Threads(count)
    }
}

/// More threads than any machine has use for.
const MOST: usize = 1024;

#[cfg(feature = "serde")]
mod file {
    use std::fmt;

    use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, Visitor};
    use serde::ser::{Serialize, SerializeMap, Serializer};

    use super::Workers;
    use crate::record::count;

    const CURRENT: &str = "current";
    const ACCEPT_LOOPS: &str = "acceptLoops";

    impl Serialize for Workers {
        fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
            match self {
                Self::Current => to.serialize_str(CURRENT),
                Self::Threads(threads) => count::serialize(threads, to),
                Self::AcceptLoops(loops) => {
                    let mut map = to.serialize_map(Some(1))?;
                    map.serialize_entry(ACCEPT_LOOPS, loops)?;
                    map.end()
                }
            }
        }
    }

    impl<'de> Deserialize<'de> for Workers {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            from.deserialize_any(OneOfThree)
        }
    }

    struct OneOfThree;

    impl<'de> Visitor<'de> for OneOfThree {
        type Value = Workers;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a whole number of threads, \"{CURRENT}\" or {{\"{ACCEPT_LOOPS}\": N}}")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Workers, E> {
            match text {
                CURRENT => Ok(Workers::Current),
                other => Err(E::invalid_value(de::Unexpected::Str(other), &self)),
            }
        }

        fn visit_u64<E: de::Error>(self, number: u64) -> Result<Workers, E> {
            count::deserialize(number.into_deserializer()).map(Workers::Threads)
        }

        fn visit_i64<E: de::Error>(self, number: i64) -> Result<Workers, E> {
            count::deserialize(number.into_deserializer()).map(Workers::Threads)
        }

        fn visit_f64<E: de::Error>(self, number: f64) -> Result<Workers, E> {
            count::deserialize(number.into_deserializer()).map(Workers::Threads)
        }

        fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Workers, M::Error> {
            let wrong = || de::Error::invalid_type(de::Unexpected::Map, &self);
            // Not all formats have keys that can be borrowed.
            if map.next_key::<String>()?.as_deref() != Some(ACCEPT_LOOPS) {
                return Err(wrong());
            }
            let Count(loops) = map.next_value()?;
            match map.next_key::<String>()? {
                None => Ok(Workers::AcceptLoops(loops)),
                Some(_) => Err(wrong()),
            }
        }
    }

    /// A whole number of at least 1.
    struct Count(usize);

    impl<'de> Deserialize<'de> for Count {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            count::deserialize(from).map(Self)
        }
    }

    #[cfg(test)]
    mod tests {
        use super::Workers;

        #[test]
        fn workers_are_a_word_a_number_or_a_number_of_loops() {
            for (text, workers) in [
                ("\"current\"", Workers::Current),
                ("4", Workers::Threads(4)),
                ("{\"acceptLoops\":2}", Workers::AcceptLoops(2)),
            ] {
                assert_eq!(serde_json::from_str::<Workers>(text).unwrap(), workers);
                assert_eq!(
                    serde_json::from_reader::<_, Workers>(text.as_bytes()).unwrap(),
                    workers
                );
                assert_eq!(serde_json::to_string(&workers).unwrap(), text);
            }
            for text in ["\"threads\"", "{}", "{\"threads\":1}", "{\"acceptLoops\":1,\"x\":1}"] {
                let error = serde_json::from_str::<Workers>(text).unwrap_err().to_string();
                let way_out = "a whole number of threads, \"current\" or {\"acceptLoops\": N}";
                assert!(error.contains(way_out), "{text}: {error}");
            }
        }
    }
}
