//! Latency by percentile as a curve: percentiles spread so that each nine has the same room, and times by
//! their logarithm.

mod characters;
mod svg;

use super::latency::Latencies;

pub(crate) use characters::text;
pub(crate) use svg::svg;

/// The most nines that are drawn.
const MOST_NINES: u32 = 6;

/// What both pictures show.
struct Curve {
    /// How many nines there are room for: 3 is up to 99.9 %.
    nines: u32,
    /// The least and the greatest time, as logarithms of nanoseconds, not the same.
    range: (f64, f64),
}

impl Curve {
    fn of(latencies: &Latencies) -> Self {
        // With fewer messages than that a further nine would show the longest one alone.
        let nines = latencies.count().max(1).ilog10().clamp(1, MOST_NINES);
        let (least, most) = (logarithm(latencies.min()), logarithm(latencies.max()));
        let range = if most - least < 0.1 { (least - 0.1, most + 0.1) } else { (least, most) };
        Self { nines, range }
    }

    /// The height of the curve, from 0 to 1, at a place from 0 (the shortest) to 1 (the longest).
    fn height(&self, latencies: &Latencies, place: f64) -> f64 {
        let time = match place {
            _ if place <= 0.0 => latencies.min(),
            _ if place >= 1.0 => latencies.max(),
            _ => latencies.at(1.0 - 10f64.powf(-place * f64::from(self.nines))),
        };
        self.height_of(logarithm(time))
    }

    fn height_of(&self, logarithm: f64) -> f64 {
        let (least, most) = self.range;
        ((logarithm - least) / (most - least)).clamp(0.0, 1.0)
    }

    /// The places of the nines, with what is written there.
    fn marks(&self) -> impl Iterator<Item = (f64, String)> {
        let nines = f64::from(self.nines);
        let middle = (2f64.log10() / nines, "50 %".to_owned());
        let others = (1..self.nines).map(move |nine| (f64::from(nine) / nines, percent(nine)));
        let ends = [(0.0, "min".to_owned()), (1.0, "max".to_owned())];
        [ends[0].clone(), middle].into_iter().chain(others).chain([ends[1].clone()])
    }
}

/// 90 %, 99 %, 99.9 % and so on.
fn percent(nines: u32) -> String {
    match nines {
        1 => "90 %".to_owned(),
        2 => "99 %".to_owned(),
        nines => format!("99.{} %", "9".repeat(nines as usize - 2)),
    }
}

fn logarithm(time: std::time::Duration) -> f64 {
    (time.as_nanos().max(1) as f64).log10()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// So many latencies of 1 ms, and one of 100 ms.
    pub(super) fn latencies(count: u64) -> Latencies {
        let mut latencies = Latencies::new();
        (1..count).for_each(|_| latencies.record(Duration::from_millis(1)));
        latencies.record(Duration::from_millis(100));
        latencies
    }

    #[test]
    fn the_curve_rises_from_the_shortest_to_the_longest() {
        let latencies = latencies(1000);
        let curve = Curve::of(&latencies);
        assert_eq!(curve.nines, 3);
        assert_eq!(curve.height(&latencies, 0.0), 0.0);
        assert!(curve.height(&latencies, 0.6) < 0.01);
        assert_eq!(curve.height(&latencies, 1.0), 1.0);
        assert!((curve.height_of(7.0) - 0.5).abs() < 1e-9);
    }

    #[test]
    fn one_message_and_many_equal_ones_have_a_curve_too() {
        for latencies in [latencies(1), {
            let mut equal = Latencies::new();
            (0..1000).for_each(|_| equal.record(Duration::ZERO));
            equal
        }] {
            let curve = Curve::of(&latencies);
            let height = curve.height(&latencies, 0.5);
            assert!((0.0..=1.0).contains(&height), "{height}");
        }
    }

    #[test]
    fn marks_are_at_each_nine() {
        let curve = Curve::of(&latencies(1000));
        let marks: Vec<_> = curve.marks().map(|(_, mark)| mark).collect();
        assert_eq!(marks, ["min", "50 %", "90 %", "99 %", "max"]);
        assert_eq!(percent(4), "99.99 %");
    }
}
