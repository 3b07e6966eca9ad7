//! The curve in a terminal.

use std::fmt::Write as _;
use std::time::Duration;

use super::super::latency::{Latencies, told};
use super::Curve;

const COLUMNS: usize = 64;
const ROWS: usize = 12;

/// The room for a time at the left.
const LABEL: usize = 9;

/// A character that is filled up to so many eighths.
const EIGHTHS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// The curve, filled below.
pub(crate) fn text(latencies: &Latencies) -> String {
    let curve = Curve::of(latencies);
    let place = |column| column as f64 / (COLUMNS - 1) as f64;
    let heights: Vec<_> =
        (0..COLUMNS).map(|column| eighths(curve.height(latencies, place(column)))).collect();
    let mut text = "latency by percentile, both on a logarithmic scale\n".to_owned();
    for row in (0..ROWS).rev() {
        let line: String = heights.iter().map(|height| cell(*height, row)).collect();
        let _ = writeln!(text, "{:>LABEL$} ┤{}", label(&curve, row), line.trim_end());
    }
    let _ = writeln!(text, "{:LABEL$} └{}", "", "─".repeat(COLUMNS));
    let _ = writeln!(text, "{:LABEL$}  {}", "", marks(&curve));
    text
}

/// A height in eighths of a row; the lowest is seen, too.
fn eighths(height: f64) -> usize {
    1 + (height * (ROWS * 8 - 1) as f64).round() as usize
}

fn cell(height: usize, row: usize) -> char {
    EIGHTHS[height.saturating_sub(row * 8).min(8)]
}

/// The time at a row: at its upper end, so that the highest has the longest.
fn label(curve: &Curve, row: usize) -> String {
    const EACH: usize = 4;
    if row == 0 {
        return of_height(curve, 0.0);
    }
    if (row + 1).is_multiple_of(EACH) {
        return of_height(curve, (row + 1) as f64 / ROWS as f64);
    }
    String::new()
}

fn of_height(curve: &Curve, height: f64) -> String {
    let (least, most) = curve.range;
    let nanos = 10f64.powf(least + height * (most - least));
    told(Duration::from_secs_f64(nanos / 1e9))
}

/// The percentiles below, those that there is room for.
fn marks(curve: &Curve) -> String {
    let mut line = String::new();
    let mut end = 0;
    for (place, mark) in curve.marks() {
        let length = mark.chars().count();
        let center = (place * (COLUMNS - 1) as f64).round() as usize;
        let start = center.saturating_sub(length / 2).min(COLUMNS - length);
        if start >= end {
            let _ = write!(line, "{:1$}{mark}", "", start - line.chars().count());
            end = start + length + 1;
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::super::tests::latencies;
    use super::*;

    #[test]
    fn the_curve_is_flat_up_to_the_last_message_and_full_there() {
        let text = text(&latencies(1000));
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), ROWS + 3, "{text}");
        assert!(lines[1].starts_with("   100 ms ┤") && lines[1].ends_with('█'), "{text}");
        let lowest = lines[ROWS];
        assert!(lowest.starts_with("  1.00 ms ┤▁▁▁▁▁") && lowest.ends_with('█'), "{text}");
        assert!(lines.iter().all(|line| line.chars().count() <= 78), "{text}");
        let marks = lines[ROWS + 2];
        assert!(marks.trim_start().starts_with("min") && marks.ends_with("max"), "{text}");
        assert!(marks.contains("90 %") && marks.contains("99 %"), "{text}");
    }

    #[test]
    fn many_messages_have_their_marks_apart() {
        let mut many = Latencies::new();
        (1..2_000_000u64).for_each(|nanos| many.record(Duration::from_nanos(nanos)));
        let text = text(&many);
        assert!(text.contains("99.999 %") && !text.contains("%99"), "{text}");
    }
}
