//! Percentiles of latencies and the few statistics of the report.

use std::time::Duration;

/// Each power of two is divided into this many buckets, so a percentile is off by 0.4 % at most.
const SUB_BUCKETS: usize = 256;
const SUB_BITS: u32 = SUB_BUCKETS.trailing_zeros();

/// Counts of durations in buckets of growing width: recording takes constant time and memory
/// whatever the number of messages, so that a long run is not slower at its end.
pub struct Histogram {
    buckets: Box<[u64]>,
    count: u64,
}

impl Histogram {
    /// An empty histogram for any number of nanoseconds in a `u64`.
    #[must_use]
    pub fn new() -> Self {
        let buckets = bucket_of(u64::MAX) + 1;
        Self { buckets: vec![0; buckets].into_boxed_slice(), count: 0 }
    }

    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(nanoseconds)] += 1;
        self.count += 1;
    }

    /// Forgets everything recorded.
    pub fn clear(&mut self) {
        self.buckets.fill(0);
        self.count = 0;
    }

    /// The duration, in microseconds, that the share `quantile` (0 to 1) of all does not exceed;
    /// zero when nothing was recorded.
    #[must_use]
    pub fn percentile(&self, quantile: f64) -> f64 {
        let rank = ((quantile * self.count as f64).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (bucket, count) in self.buckets.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return middle_of(bucket) / 1_000.0;
            }
        }
        0.0
    }
}

impl Default for Histogram {
    fn default() -> Self {
        Self::new()
    }
}

/// The bucket of a value: exact below [`SUB_BUCKETS`], then by its leading bits.
fn bucket_of(value: u64) -> usize {
    if value < SUB_BUCKETS as u64 {
        return value as usize;
    }
    let shift = value.ilog2() - SUB_BITS;
    shift as usize * SUB_BUCKETS + (value >> shift) as usize
}

/// The value in the middle of a bucket.
fn middle_of(bucket: usize) -> f64 {
    if bucket < SUB_BUCKETS {
        return bucket as f64;
    }
    let shift = bucket / SUB_BUCKETS - 1;
    let low = (SUB_BUCKETS + bucket % SUB_BUCKETS) as f64;
    let width = (shift as f64).exp2();
    low * width + (width - 1.0) / 2.0
}

/// The median; NaN of nothing.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => f64::midpoint(sorted[even / 2 - 1], sorted[even / 2]),
    }
}

/// The smallest and the largest value; infinities of nothing.
#[must_use]
pub fn spread(values: &[f64]) -> (f64, f64) {
    values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &value| {
        (low.min(value), high.max(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_contiguous_and_ordered() {
        for value in 0..100_000_u64 {
            let step = bucket_of(value + 1) - bucket_of(value);
            assert!(step <= 1, "{value}");
        }
        assert_eq!(bucket_of(255), 255);
        assert_eq!(bucket_of(256), 256);
        assert_eq!(bucket_of(511), 511);
        assert_eq!(bucket_of(512), 512);
        assert_eq!(bucket_of(513), 512);
    }

    #[test]
    fn the_middle_of_a_bucket_is_near_its_values() {
        for value in [0, 1, 255, 256, 1_000, 123_456, 10_000_000_000, u64::MAX] {
            let off = (middle_of(bucket_of(value)) - value as f64).abs();
            assert!(off <= value as f64 * 0.004, "{value}: {off}");
        }
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.percentile(0.5), 0.0);
        for nanoseconds in 1..=100 {
            histogram.record(Duration::from_nanos(nanoseconds));
        }
        assert_eq!(histogram.percentile(0.5), 0.050);
        assert_eq!(histogram.percentile(0.99), 0.099);
        assert_eq!(histogram.percentile(0.999), 0.100);
        assert_eq!(histogram.percentile(0.0), 0.001);
        assert_eq!(histogram.percentile(1.0), 0.100);
        histogram.clear();
        assert_eq!(histogram.percentile(1.0), 0.0);
    }

    #[test]
    fn median_and_spread() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
        assert_eq!(spread(&[3.0, 1.0, 2.0]), (1.0, 3.0));
    }
}
