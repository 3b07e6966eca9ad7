//! The curve as a picture that stands alone: it needs no font, script or file, and suits light and dark.

use std::fmt::Write as _;
use std::time::Duration;

use super::super::latency::{Latencies, told};
use super::{Curve, logarithm};

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 480.0;

/// The place of the curve in the picture.
const LEFT: f64 = 90.0;
const RIGHT: f64 = 30.0;
const TOP: f64 = 70.0;
const BOTTOM: f64 = 70.0;

/// How many points the curve has.
const POINTS: u32 = 300;

const STYLE: &str = "\
svg { background: #ffffff; font: 13px system-ui, sans-serif; }
text { fill: #1f2328; }
.title { font-size: 16px; font-weight: 600; }
.quiet { fill: #59636e; }
.grid { stroke: #d1d9e0; stroke-width: 1; }
.axis { stroke: #59636e; stroke-width: 1; }
.curve { fill: none; stroke: #0969da; stroke-width: 2.5; stroke-linejoin: round; }
@media (prefers-color-scheme: dark) {
svg { background: #0d1117; }
text { fill: #e6edf3; }
.quiet { fill: #9198a1; }
.grid { stroke: #2f353d; }
.axis { stroke: #9198a1; }
.curve { stroke: #58a6ff; }
}
";

/// The picture, with what was run as its title.
pub(crate) fn svg(latencies: &Latencies, title: &str, subtitle: &str) -> String {
    let curve = Curve::of(latencies);
    let mut out = String::new();
    let _ = write!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
         aria-label=\"latency by percentile\">\n<style>\n{STYLE}</style>\n"
    );
    write_text(&mut out, (LEFT, 28.0), "class=\"title\"", title);
    write_text(&mut out, (LEFT, 48.0), "class=\"quiet\"", subtitle);
    write_axes(&mut out, &curve);
    match latencies.is_empty() {
        true => write_text(&mut out, (LEFT + 20.0, TOP + 40.0), "", "nothing was answered"),
        false => write_curve(&mut out, &curve, latencies),
    }
    out.push_str("</svg>\n");
    out
}

fn write_axes(out: &mut String, curve: &Curve) {
    let (left, right, top, bottom) = (LEFT, WIDTH - RIGHT, TOP, HEIGHT - BOTTOM);
    for (place, mark) in curve.marks() {
        let x = across(place);
        write_line(out, "grid", (x, top), (x, bottom));
        write_text(out, (x, bottom + 20.0), "text-anchor=\"middle\"", &mark);
    }
    for time in times(curve.range) {
        let y = up(curve.height_of(logarithm(time)));
        write_line(out, "grid", (left, y), (right, y));
        write_text(out, (left - 8.0, y + 4.0), "text-anchor=\"end\"", &short(time));
    }
    write_line(out, "axis", (left, top), (left, bottom));
    write_line(out, "axis", (left, bottom), (right, bottom));
    let middle = ((left + right) / 2.0, bottom + 46.0);
    let name = "share of the messages that took no longer";
    write_text(out, middle, "text-anchor=\"middle\" class=\"quiet\"", name);
    let y = (top + bottom) / 2.0;
    let turned =
        format!("transform=\"rotate(-90 22 {y:.1})\" text-anchor=\"middle\" class=\"quiet\"");
    write_text(out, (22.0, y), &turned, "latency");
}

fn write_curve(out: &mut String, curve: &Curve, latencies: &Latencies) {
    out.push_str("<polyline class=\"curve\" points=\"");
    for point in 0..=POINTS {
        let place = f64::from(point) / f64::from(POINTS);
        let height = curve.height(latencies, place);
        let _ = write!(out, "{:.1},{:.1} ", across(place), up(height));
    }
    out.push_str("\"/>\n");
}

fn write_line(out: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        out,
        "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
    );
}

fn write_text(out: &mut String, (x, y): (f64, f64), attributes: &str, text: &str) {
    let text = escaped(text);
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {attributes}>{text}</text>");
}

fn across(place: f64) -> f64 {
    LEFT + place * (WIDTH - LEFT - RIGHT)
}

fn up(height: f64) -> f64 {
    HEIGHT - BOTTOM - height * (HEIGHT - TOP - BOTTOM)
}

/// Round times in the range: 1, 2 and 5 of each power of ten, or less where that would be many.
fn times((least, most): (f64, f64)) -> Vec<Duration> {
    /// More powers of ten than this have one line each.
    const WIDE: f64 = 3.0;
    let steps: &[f64] = if most - least > WIDE { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let powers = least.floor() as i32..=most.ceil() as i32;
    let all = powers.flat_map(|power| steps.iter().map(move |step| step * 10f64.powi(power)));
    let within = all.filter(|nanos| (least..=most).contains(&nanos.log10()));
    let times: Vec<_> = within.map(|nanos| Duration::from_nanos(nanos.round() as u64)).collect();
    if times.len() >= 2 {
        return times;
    }
    // None of them may lie in a narrow range: then its ends.
    [least, most].map(|end| Duration::from_nanos(10f64.powf(end).round() as u64)).to_vec()
}

/// 10 ms rather than 10.0 ms.
fn short(time: Duration) -> String {
    let text = told(time);
    match text.split_once(' ') {
        Some((value, unit)) if value.contains('.') => {
            let value = value.trim_end_matches('0').trim_end_matches('.');
            format!("{value} {unit}")
        }
        _ => text,
    }
}

fn escaped(text: &str) -> String {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    text.replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::super::tests::latencies;
    use super::*;

    #[test]
    fn the_picture_has_a_curve_and_labelled_axes_and_suits_light_and_dark() {
        let picture = svg(&latencies(1000), "a <host> & \"more\"", "50 connections");
        for part in [
            "<polyline",
            ">1 ms<",
            ">100 ms<",
            ">99 %<",
            ">max<",
            ">latency<",
            "share of the messages",
            "prefers-color-scheme: dark",
            "a &lt;host&gt; &amp; &quot;more&quot;",
        ] {
            assert!(picture.contains(part), "{part}: {picture}");
        }
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }

    #[test]
    fn a_narrow_range_has_two_times_and_a_wide_one_not_many() {
        for range in [(3.0, 3.1), (3.3, 3.31), (0.0, 13.0), (2.0, 4.9), (0.0, 0.2)] {
            let count = times(range).len();
            assert!((2..=14).contains(&count), "{range:?}: {count}");
        }
        assert_eq!(short(Duration::from_millis(10)), "10 ms");
        assert_eq!(short(Duration::from_micros(1200)), "1.2 ms");
    }
}
