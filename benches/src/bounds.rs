//! Counts for each server and cell: written to a file as bounds, and compared with such a file.

use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// What was counted, or may be counted at most: by server, then by cell.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Counts(BTreeMap<String, BTreeMap<String, u64>>);

impl Counts {
    /// Notes one count.
    pub fn set(&mut self, server: &str, cell: &str, count: u64) {
        self.0.entry(server.to_owned()).or_default().insert(cell.to_owned(), count);
    }

    /// The count of a cell, if there is one.
    #[must_use]
    pub fn get(&self, server: &str, cell: &str) -> Option<u64> {
        self.0.get(server)?.get(cell).copied()
    }

    /// All of them: server, cell, count.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, u64)> {
        self.0.iter().flat_map(|(server, cells)| {
            cells.iter().map(move |(cell, &count)| (server.as_str(), cell.as_str(), count))
        })
    }

    /// Bounds that leave some room above these counts: `percent` more, rounded up to three digits.
    #[must_use]
    pub fn with_room(&self, percent: u64) -> Self {
        let mut bounds = Self::default();
        for (server, cell, count) in self.iter() {
            let most = count + (count * percent).div_ceil(100);
            let step = 10_u64.pow(most.max(1).ilog10().saturating_sub(2));
            bounds.set(server, cell, most.div_ceil(step) * step);
        }
        bounds
    }

    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let servers = self.0.iter().map(|(server, cells)| {
            let cells = cells.iter().map(|(cell, &count)| (cell.clone(), Value::from(count)));
            (server.clone(), Value::Object(cells.collect()))
        });
        let all: Map<String, Value> = servers.collect();
        format!("{:#}\n", Value::Object(all))
    }

    /// Reads what [`Counts::to_json`] wrote.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let all: Map<String, Value> =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut counts = Self::default();
        for (server, cells) in &all {
            let cells = cells.as_object().ok_or_else(|| format!("{server}: not a set of cells"))?;
            for (cell, count) in cells {
                let wrong = || format!("{server}, {cell}: {count} is not a whole number");
                counts.set(server, cell, count.as_u64().ok_or_else(wrong)?);
            }
        }
        Ok(counts)
    }

    /// What is above its bound, in one line; bounds of what was not counted are not looked at.
    pub fn check(&self, bounds: &Self) -> Result<(), String> {
        let exceeded: Vec<_> = self
            .iter()
            .filter_map(|(server, cell, count)| {
                let most = bounds.get(server, cell).filter(|&most| count > most)?;
                let above = 100.0 * (count as f64 / most as f64 - 1.0);
                Some(format!("{server}, {cell}: {count} (at most {most}, {above:.1} % above)"))
            })
            .collect();
        if exceeded.is_empty() {
            return Ok(());
        }
        Err(format!("more instructions than allowed: {}", exceeded.join("; ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(of: &[(&str, &str, u64)]) -> Counts {
        let mut counts = Counts::default();
        of.iter().for_each(|(server, cell, count)| counts.set(server, cell, *count));
        counts
    }

    #[test]
    fn what_is_written_is_read_again() {
        let written = counts(&[("b", "64 B", 10), ("a", "64 B", 7), ("a", "16 KiB", 1 << 40)]);
        assert_eq!(Counts::from_json(&written.to_json()), Ok(written));
    }

    #[test]
    fn a_file_that_is_no_set_of_bounds_is_refused() {
        for text in ["", "[]", "{\"a\": 1}", "{\"a\": {\"x\": -1}}", "{\"a\": {\"x\": \"many\"}}"] {
            assert!(Counts::from_json(text).is_err(), "{text}");
        }
    }

    #[test]
    fn bounds_have_room_and_few_digits() {
        let bounds = counts(&[("a", "x", 1_234), ("a", "y", 98_765), ("a", "z", 0)]).with_room(10);
        assert_eq!(bounds, counts(&[("a", "x", 1_360), ("a", "y", 109_000), ("a", "z", 0)]));
    }

    #[test]
    fn each_count_above_its_bound_is_named_in_one_line() {
        let bounds = counts(&[("a", "x", 100), ("a", "y", 100), ("b", "x", 1)]);
        assert_eq!(counts(&[("a", "x", 100), ("c", "x", 9)]).check(&bounds), Ok(()));
        let line = counts(&[("a", "x", 101), ("a", "y", 150)]).check(&bounds).unwrap_err();
        assert!(line.contains("a, x: 101 (at most 100, 1.0 % above)"), "{line}");
        assert!(line.contains("a, y: 150 (at most 100, 50.0 % above)"), "{line}");
        assert!(!line.contains('\n'));
    }
}
