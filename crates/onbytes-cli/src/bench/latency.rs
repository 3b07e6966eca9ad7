//! How long messages took: a histogram of nanoseconds with three digits.

use std::time::Duration;

use hdrhistogram::Histogram;

/// The longest time that is told apart from longer ones.
const LONGEST: u64 = 3_600_000_000_000;

/// Latencies of messages.
#[derive(Debug, Clone)]
pub(crate) struct Latencies {
    histogram: Histogram<u64>,
    /// Exact, unlike what the histogram has.
    ends: Option<(Duration, Duration)>,
}

impl Latencies {
    pub(crate) fn new() -> Self {
        let histogram = Histogram::new_with_bounds(1, LONGEST, 3);
        Self { histogram: histogram.expect("the bounds are possible"), ends: None }
    }

    pub(crate) fn record(&mut self, latency: Duration) {
        let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX);
        self.histogram.saturating_record(nanos);
        self.widen(latency, latency);
    }

    fn widen(&mut self, least: Duration, most: Duration) {
        let (known_least, known_most) = self.ends.unwrap_or((least, most));
        self.ends = Some((known_least.min(least), known_most.max(most)));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        // All have the same bounds.
        let _ = self.histogram.add(&other.histogram);
        if let Some((least, most)) = other.ends {
            self.widen(least, most);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    pub(crate) fn min(&self) -> Duration {
        self.ends.unwrap_or_default().0
    }

    pub(crate) fn max(&self) -> Duration {
        self.ends.unwrap_or_default().1
    }

    pub(crate) fn mean(&self) -> Duration {
        Duration::from_nanos(self.histogram.mean() as u64)
    }

    /// The time that `quantile` of all messages did not exceed, such as 0.99.
    pub(crate) fn at(&self, quantile: f64) -> Duration {
        let found = Duration::from_nanos(self.histogram.value_at_quantile(quantile));
        found.clamp(self.min(), self.max())
    }

    /// How many messages there are.
    pub(crate) fn count(&self) -> u64 {
        self.histogram.len()
    }

    /// The nanoseconds that came up, each with how often it did.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (u64, u64)> {
        let recorded = self.histogram.iter_recorded();
        recorded.map(|step| (step.value_iterated_to(), step.count_at_value()))
    }
}

/// A time in the unit that suits it, with three digits.
pub(crate) fn told(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (value, unit) = match seconds {
        _ if seconds < 1e-6 => (seconds * 1e9, "ns"),
        _ if seconds < 1e-3 => (seconds * 1e6, "µs"),
        _ if seconds < 1.0 => (seconds * 1e3, "ms"),
        _ => (seconds, "s"),
    };
    format!("{} {unit}", three_digits(value))
}

/// A number with three digits, or more where it is larger.
pub(crate) fn three_digits(value: f64) -> String {
    match value {
        _ if value < 9.995 => format!("{value:.2}"),
        _ if value < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_have_three_digits_and_the_ends_are_exact() {
        let mut latencies = Latencies::new();
        (1..=100_000).for_each(|micros| latencies.record(Duration::from_micros(micros)));
        assert_eq!(latencies.min(), Duration::from_micros(1));
        assert_eq!(latencies.max(), Duration::from_micros(100_000));
        assert_eq!(latencies.at(1.0), latencies.max());
        for (quantile, micros) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.9999, 99_990.0)] {
            let found = latencies.at(quantile).as_secs_f64() * 1e6;
            assert!((found / micros - 1.0).abs() < 0.001, "{quantile}: {found}");
        }
        assert_eq!(latencies.pairs().map(|(_, count)| count).sum::<u64>(), 100_000);
    }

    #[test]
    fn those_of_two_threads_add_up() {
        let (mut one, mut other) = (Latencies::new(), Latencies::new());
        one.record(Duration::from_millis(1));
        other.record(Duration::from_secs(100_000));
        one.add(&other);
        one.add(&Latencies::new());
        assert_eq!(one.count(), 2);
        assert_eq!(one.max(), Duration::from_secs(100_000));
    }

    #[test]
    fn times_are_told_in_the_unit_that_suits_them() {
        for (nanos, text) in [
            (0, "0.00 ns"),
            (999, "999 ns"),
            (1_000, "1.00 µs"),
            (45_600, "45.6 µs"),
            (9_996_000, "10.0 ms"),
            (123_456_789, "123 ms"),
            (2_500_000_000, "2.50 s"),
        ] {
            assert_eq!(told(Duration::from_nanos(nanos)), text);
        }
    }
}
