//! Pictures of what was measured, as SVG text: bars of CPU time relative to the yardstick, and latencies.

use crate::results::{Results, Sample, Spread, ratios, values};
use std::fmt::Write as _;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 520.0;
/// The area between the axes.
const LEFT: f64 = 64.0;
const RIGHT: f64 = WIDTH - 24.0;
const TOP: f64 = 118.0;
const BOTTOM: f64 = 420.0;
/// Bars that are taller are cut off: one slow server must not press all others flat.
const TALLEST: f64 = 2.5;
/// What a group of bars leaves free on both sides together, as a share of its width.
const GAP: f64 = 0.16;
const WIDEST_BAR: f64 = 40.0;
/// Characters in a line below a group.
const LABEL_LENGTH: usize = 16;
const FONT: &str = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', sans-serif";

/// The colours of a picture.
pub struct Theme {
    /// What its files have in their name.
    pub name: &'static str,
    background: &'static str,
    text: &'static str,
    faint_text: &'static str,
    grid: &'static str,
    /// Of the servers that are built with onbytes, the one with the plain name first.
    ours: [&'static str; 4],
    tokio: &'static str,
    ntex: &'static str,
    by_hand: &'static str,
    others: [&'static str; 3],
}

/// For white pages and for dark ones.
pub static THEMES: [Theme; 2] = [
    Theme {
        name: "light",
        background: "#ffffff",
        text: "#1f2328",
        faint_text: "#59636e",
        grid: "#d8dee4",
        ours: ["#0a7f5a", "#4fb38f", "#8ccfb4", "#b9e3d1"],
        tokio: "#3b6fd4",
        ntex: "#c77416",
        by_hand: "#8b949e",
        others: ["#8250df", "#bf3989", "#9a6700"],
    },
    Theme {
        name: "dark",
        background: "#0d1117",
        text: "#e6edf3",
        faint_text: "#9da7b1",
        grid: "#30363d",
        ours: ["#3fcf9b", "#2a9d76", "#1f7457", "#17553f"],
        tokio: "#6ea0ff",
        ntex: "#eca04d",
        by_hand: "#8b949e",
        others: ["#b795ff", "#f27fc0", "#d9b44a"],
    },
];

impl Theme {
    /// A colour for each server, so that relatives look alike in all pictures.
    fn colors(&self, servers: &[String]) -> Vec<&'static str> {
        let mut ours = self.ours.iter().cycle();
        let mut others = self.others.iter().cycle();
        let color = |name: &String| match name.split('-').next() {
            Some("onbytes") => ours.next(),
            Some("tokio") => Some(&self.tokio),
            Some("ntex") => Some(&self.ntex),
            Some("epoll") => Some(&self.by_hand),
            _ => others.next(),
        };
        servers.iter().filter_map(color).copied().collect()
    }
}

/// From numbers to places on an axis.
#[derive(Clone, Copy, Debug)]
struct Scale {
    low: f64,
    high: f64,
    is_logarithmic: bool,
}

impl Scale {
    /// From zero to a round number above all of these, or to [`TALLEST`].
    fn linear(values: impl Iterator<Item = f64>) -> Self {
        let most = values.fold(1.0, f64::max);
        let high = ((most * 1.05 / 0.5).ceil() * 0.5).clamp(1.5, TALLEST);
        Self { low: 0.0, high, is_logarithmic: false }
    }

    /// Round numbers around all of these.
    fn logarithmic(values: impl Iterator<Item = f64>) -> Self {
        let (low, high) = values
            .fold((f64::INFINITY, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)));
        // Room for what is written above and below.
        let (low, high) = (low / 1.2, high * 1.2);
        let round = || round_numbers(10_f64.powf(low.log10().floor()));
        Self {
            low: round().take_while(|number| *number <= low).last().unwrap_or(low),
            high: round().find(|number| *number >= high).unwrap_or(high),
            is_logarithmic: true,
        }
    }

    /// Where a value is, from the bottom; never beyond the top.
    fn place(&self, value: f64) -> f64 {
        let part = if self.is_logarithmic {
            (value / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        BOTTOM - part.clamp(0.0, 1.0) * (BOTTOM - TOP)
    }

    /// The values that lines are drawn at.
    fn ticks(&self) -> Vec<f64> {
        // A little more than the end, for what rounding has added up.
        let is_within = |value: &f64| *value <= self.high * 1.001;
        if self.is_logarithmic {
            let decade = 10_f64.powf(self.low.log10().floor());
            let all = round_numbers(decade).skip_while(|value| *value < self.low * 0.999);
            return all.take_while(is_within).collect();
        }
        let steps = std::iter::successors(Some(self.low), |value| Some(value + 0.5));
        steps.take_while(is_within).collect()
    }
}

/// 1, 2, 5, 10, 20 and so on, times this.
fn round_numbers(decade: f64) -> impl Iterator<Item = f64> {
    let decades = std::iter::successors(Some(decade), |decade| Some(decade * 10.0));
    decades.flat_map(|decade| [decade, 2.0 * decade, 5.0 * decade])
}

/// The places of groups, one for each cell, and in each of so many things side by side.
struct Groups {
    count: usize,
    members: usize,
}

impl Groups {
    fn width(&self) -> f64 {
        (RIGHT - LEFT) / self.count as f64
    }

    /// How wide the place of one member is.
    fn slot(&self) -> f64 {
        (self.width() * (1.0 - GAP) / self.members as f64).min(WIDEST_BAR)
    }

    fn middle(&self, group: usize) -> f64 {
        LEFT + self.width() * (group as f64 + 0.5)
    }

    /// The middle of a member.
    fn member(&self, group: usize, member: usize) -> f64 {
        let from_middle = member as f64 - (self.members as f64 - 1.0) / 2.0;
        self.middle(group) + from_middle * self.slot()
    }
}

/// CPU time per message: bars relative to the yardstick, which is the line at 1.
#[must_use]
pub fn cpu(results: &Results, theme: &Theme) -> String {
    let cpu = |sample: &Sample| sample.cpu;
    let spreads = spreads(results, |column, row| ratios(column, row, cpu));
    let scale = Scale::linear(spreads.iter().flatten().map(|spread| spread.high));
    let yardstick = &results.servers[0];
    let title = format!("CPU time per message, relative to {yardstick} (less is better)");
    let mut picture =
        Picture::new(results, theme, &title, "median of all rounds; lines: their range");
    picture.legend(true);
    picture.grid(&scale, |value| format!("{value:.1}"));
    let groups = Groups { count: results.cells.len(), members: results.servers.len() - 1 };
    let bars = spreads.iter().enumerate().flat_map(|(cell, column)| {
        let others = column.iter().enumerate().skip(1);
        others.map(move |(row, spread)| (cell, row, *spread))
    });
    for (cell, row, spread) in bars.clone() {
        picture.bar(groups.member(cell, row - 1), groups.slot() * 0.82, &scale, spread, row);
    }
    picture.baseline(scale.place(1.0));
    // After the line, which must not run through them.
    for (cell, row, spread) in bars {
        picture.bar_value(groups.member(cell, row - 1), &scale, spread);
    }
    for cell in 0..groups.count {
        let own = Spread::of(&values(&results.samples[cell][0], cpu)).median;
        picture.group_label(&groups, cell, &format!("1.0 is {}", time(own)));
    }
    picture.finish()
}

/// Latencies: for each server a line from the median to what one message in a hundred exceeds.
#[must_use]
pub fn latency(results: &Results, theme: &Theme) -> String {
    let medians = |of: fn(&Sample) -> f64| {
        let all = spreads(results, |column, row| values(&column[row], of));
        all.into_iter().map(|column| column.iter().map(|spread| spread.median).collect::<Vec<_>>())
    };
    let p50: Vec<_> = medians(|sample| sample.p50).collect();
    let p99: Vec<_> = medians(|sample| sample.p99).collect();
    let scale = Scale::logarithmic(p50.iter().chain(&p99).flatten().copied());
    let mut picture = Picture::new(
        results,
        theme,
        "Latency of a message, p50 to p99 (less is better)",
        "dot: p50, bar: p99, medians of all rounds; in µs, with m in ms; logarithmic",
    );
    picture.legend(false);
    picture.grid(&scale, time);
    let groups = Groups { count: results.cells.len(), members: results.servers.len() };
    for cell in 0..groups.count {
        for row in 0..groups.members {
            let middle = groups.member(cell, row);
            picture.latency(middle, &scale, [p50[cell][row], p99[cell][row]], row);
        }
        picture.group_label(&groups, cell, "");
    }
    picture.finish()
}

/// By cell, then server.
fn spreads(results: &Results, of: impl Fn(&[Vec<Sample>], usize) -> Vec<f64>) -> Vec<Vec<Spread>> {
    let rows = 0..results.servers.len();
    let column = |column: &Vec<Vec<Sample>>| {
        rows.clone().map(|row| Spread::of(&of(column, row))).collect::<Vec<_>>()
    };
    results.samples.iter().map(column).collect()
}

/// An SVG text under way.
struct Picture<'a> {
    theme: &'a Theme,
    results: &'a Results,
    colors: Vec<&'static str>,
    text: String,
}

impl<'a> Picture<'a> {
    fn new(results: &'a Results, theme: &'a Theme, title: &str, what: &str) -> Self {
        let colors = theme.colors(&results.servers);
        let mut picture = Self { theme, results, colors, text: String::new() };
        picture.add(&format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{HEIGHT}\" \
             viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"{FONT}\" role=\"img\">\n\
             <title>{}</title>\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" rx=\"8\" fill=\"{}\"/>",
            escape(title),
            theme.background,
        ));
        picture.label(LEFT - 40.0, 34.0, title, &Style::new(theme.text, 19.0).start().bold());
        picture.label(LEFT - 40.0, 56.0, what, &Style::new(theme.faint_text, 13.0).start());
        picture.footer();
        picture
    }

    /// Which machine, and how much of it.
    fn footer(&mut self) {
        let results = self.results;
        let text = format!(
            "{}, {} cores, Linux {}, {}; {} rounds of {} s for each bar; server and load on one core each",
            results.cpu_model,
            results.cores,
            results.kernel,
            results.compiler.split(" (").next().unwrap_or_default(),
            results.rounds(),
            results.seconds,
        );
        self.label(
            LEFT - 40.0,
            HEIGHT - 18.0,
            &text,
            &Style::new(self.theme.faint_text, 11.0).start(),
        );
    }

    /// The servers and their colours; where the yardstick is a line, it is one here, too.
    fn legend(&mut self, is_line: bool) {
        let mut x = LEFT - 40.0;
        let style = Style::new(self.theme.text, 13.0).start();
        for (row, server) in self.results.servers.iter().enumerate() {
            if row == 0 && is_line {
                self.line([x - 4.0, 78.0, x + 2.0, 78.0], self.colors[row], 2.0);
                self.line([x + 6.0, 78.0, x + 12.0, 78.0], self.colors[row], 2.0);
            } else {
                self.rectangle([x, 72.0, 12.0, 12.0], self.colors[row], 2.0);
            }
            self.label(x + 18.0, 83.0, server, &style);
            x += 46.0 + 7.2 * server.chars().count() as f64;
        }
    }

    /// Horizontal lines with what they stand for.
    fn grid(&mut self, scale: &Scale, name: impl Fn(f64) -> String) {
        let style = Style::new(self.theme.faint_text, 12.0).end();
        for value in scale.ticks() {
            let y = scale.place(value);
            self.line([LEFT, y, RIGHT, y], self.theme.grid, 1.0);
            self.label(LEFT - 8.0, y + 4.0, &name(value), &style);
        }
    }

    /// The line of the yardstick.
    fn baseline(&mut self, y: f64) {
        let color = self.colors[0];
        self.add(&format!(
            "<line x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{RIGHT}\" y2=\"{y:.1}\" stroke=\"{color}\" \
             stroke-width=\"2\" stroke-dasharray=\"6 4\"/>",
        ));
    }

    fn bar(&mut self, middle: f64, width: f64, scale: &Scale, spread: Spread, row: usize) {
        let top = scale.place(spread.median);
        let left = middle - width / 2.0;
        self.rectangle([left, top, width, BOTTOM - top], self.colors[row], 2.0);
        if spread.median > scale.high {
            self.tear(left, width);
        }
    }

    /// The value of a bar, above the range of its rounds.
    fn bar_value(&mut self, middle: f64, scale: &Scale, spread: Spread) {
        // Of a bar that is cut off the range is not to be seen.
        if spread.median <= scale.high {
            self.whisker(middle, scale, spread);
        }
        let style = Style::new(self.theme.text, 12.0).bold();
        let value = format!("{:.2}", spread.median);
        self.label(middle, scale.place(spread.high) - 6.0, &value, &style);
    }

    fn whisker(&mut self, middle: f64, scale: &Scale, spread: Spread) {
        let (high, low) = (scale.place(spread.high), scale.place(spread.low));
        self.line([middle, high, middle, low], self.theme.text, 1.2);
        self.line([middle - 4.0, low, middle + 4.0, low], self.theme.text, 1.2);
        // One that goes on beyond the top has no end there.
        if spread.high <= scale.high {
            self.line([middle - 4.0, high, middle + 4.0, high], self.theme.text, 1.2);
        }
    }

    /// Marks a bar that is cut off.
    fn tear(&mut self, left: f64, width: f64) {
        for y in [TOP + 16.0, TOP + 22.0] {
            let ends = [left - 3.0, y + 4.0, left + width + 3.0, y - 4.0];
            self.line(ends, self.theme.background, 2.5);
        }
    }

    /// A line from the median, a dot, to the tail, a bar.
    fn latency(&mut self, middle: f64, scale: &Scale, [p50, p99]: [f64; 2], row: usize) {
        let color = self.colors[row];
        let (low, high) = (scale.place(p50), scale.place(p99));
        self.line([middle, low, middle, high], color, 3.0);
        self.line([middle - 8.0, high, middle + 8.0, high], color, 4.0);
        self.add(&format!(
            "<circle cx=\"{middle:.1}\" cy=\"{low:.1}\" r=\"5.5\" fill=\"{color}\"/>"
        ));
        let style = Style::new(self.theme.text, 11.0);
        self.label(middle, high - 7.0, &short_time(p99), &style);
        self.label(middle, low + 19.0, &short_time(p50), &style);
    }

    /// The name of a cell, in as many lines as it takes, and a remark.
    fn group_label(&mut self, groups: &Groups, group: usize, remark: &str) {
        let x = groups.middle(group);
        let name = self.results.cells[group].replace(" x ", " × ");
        let lines = wrap(name.strip_prefix("TLS ").unwrap_or(&name), LABEL_LENGTH);
        let style = Style::new(self.theme.text, 13.0).bold();
        for (number, line) in lines.iter().enumerate() {
            self.label(x, BOTTOM + 20.0 + 16.0 * number as f64, line, &style);
        }
        let below = BOTTOM + 20.0 + 16.0 * lines.len() as f64;
        self.label(x, below, remark, &Style::new(self.theme.faint_text, 11.0));
    }

    fn label(&mut self, x: f64, y: f64, text: &str, style: &Style) {
        if text.is_empty() {
            return;
        }
        let Style { color, size, anchor, weight } = style;
        // Keeps lines that run behind a text away from its letters.
        let background = self.theme.background;
        self.add(&format!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" fill=\"{color}\" font-size=\"{size}\" \
             text-anchor=\"{anchor}\" font-weight=\"{weight}\" stroke=\"{background}\" \
             stroke-width=\"3\" paint-order=\"stroke\">{}</text>",
            escape(text),
        ));
    }

    fn line(&mut self, [x1, y1, x2, y2]: [f64; 4], color: &str, width: f64) {
        self.add(&format!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{color}\" \
             stroke-width=\"{width}\"/>",
        ));
    }

    fn rectangle(&mut self, [x, y, width, height]: [f64; 4], color: &str, round: f64) {
        self.add(&format!(
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" \
             rx=\"{round}\" fill=\"{color}\"/>",
        ));
    }

    fn add(&mut self, element: &str) {
        writeln!(self.text, "{element}").expect("a String takes everything");
    }

    fn finish(mut self) -> String {
        self.add("</svg>");
        self.text
    }
}

/// How a text looks.
struct Style {
    color: &'static str,
    size: f64,
    anchor: &'static str,
    weight: u32,
}

impl Style {
    /// Around its place, and not bold.
    const fn new(color: &'static str, size: f64) -> Self {
        Self { color, size, anchor: "middle", weight: 400 }
    }

    const fn start(self) -> Self {
        Self { anchor: "start", ..self }
    }

    const fn end(self) -> Self {
        Self { anchor: "end", ..self }
    }

    const fn bold(self) -> Self {
        Self { weight: 600, ..self }
    }
}

/// Microseconds, with a unit that suits them.
fn time(microseconds: f64) -> String {
    let (value, unit) = in_unit(microseconds);
    format!("{value} {unit}")
}

/// The same in as few characters as can be told apart.
fn short_time(microseconds: f64) -> String {
    let (value, unit) = in_unit(microseconds);
    if unit == "ms" { format!("{value}m") } else { value }
}

fn in_unit(microseconds: f64) -> (String, &'static str) {
    let (value, unit) =
        if microseconds < 1_000.0 { (microseconds, "µs") } else { (microseconds / 1_000.0, "ms") };
    let digits = match value {
        ..1.0 => 2,
        1.0..10.0 if unit == "ms" || value.fract() != 0.0 => 1,
        _ => 0,
    };
    let text = format!("{value:.digits$}");
    (text.strip_suffix(".0").map(str::to_owned).unwrap_or(text), unit)
}

/// Cuts a text into lines, behind commas, and between words where it would be longer than `length` characters.
fn wrap(text: &str, length: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line)
                if !line.ends_with(',')
                    && line.chars().count() + 1 + word.chars().count() <= length =>
            {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn results(factors: &[f64]) -> Results {
        let rounds = |factor: f64| {
            let sample = |cpu: f64| Sample {
                cpu,
                p50: 100.0 * factor,
                p99: 300.0 * factor,
                ..Sample::default()
            };
            vec![sample(5.0 * factor), sample(5.0 * factor)]
        };
        Results {
            cells: vec!["64 B x 100, 16 in flight".to_owned(), "a < b".to_owned()],
            servers: (0..factors.len()).map(|number| format!("server-{number}")).collect(),
            samples: vec![factors.iter().map(|&factor| rounds(factor)).collect(); 2],
            ..Results::default()
        }
    }

    fn count(text: &str, part: &str) -> usize {
        text.matches(part).count()
    }

    #[test]
    fn a_linear_scale_begins_at_zero_and_is_cut_off() {
        let scale = Scale::linear([0.9, 1.2].into_iter());
        assert_eq!((scale.high, scale.ticks()), (1.5, vec![0.0, 0.5, 1.0, 1.5]));
        assert_eq!(scale.place(0.0), BOTTOM);
        assert_eq!(scale.place(1.5), TOP);
        assert_eq!(scale.place(0.75), f64::midpoint(TOP, BOTTOM));
        assert_eq!(Scale::linear([9.0].into_iter()).high, TALLEST);
        assert_eq!(scale.place(99.0), TOP);
    }

    #[test]
    fn a_logarithmic_scale_ends_at_round_numbers() {
        let scale = Scale::logarithmic([20.0, 700.0].into_iter());
        assert_eq!((scale.low, scale.high), (10.0, 1000.0));
        assert_eq!(scale.ticks(), [10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0]);
        assert_eq!(scale.place(100.0), f64::midpoint(TOP, BOTTOM));
        assert_eq!(Scale::logarithmic([50.0].into_iter()).ticks(), [20.0, 50.0, 100.0]);
        assert_eq!(
            Scale::logarithmic([300.0, 900.0].into_iter()).ticks(),
            [200.0, 500.0, 1000.0, 2000.0]
        );
    }

    #[test]
    fn groups_lie_between_the_axes_and_their_members_do_not_overlap() {
        for (count, members) in [(1, 1), (6, 3), (6, 7)] {
            let groups = Groups { count, members };
            let first = groups.member(0, 0) - groups.slot() / 2.0;
            let last = groups.member(count - 1, members - 1) + groups.slot() / 2.0;
            assert!(first >= LEFT && last <= RIGHT);
            let middle = f64::midpoint(groups.member(0, 0), groups.member(0, members - 1));
            assert!((middle - groups.middle(0)).abs() < 1e-9);
        }
    }

    #[test]
    fn each_server_but_the_yardstick_has_a_bar_with_its_value() {
        let text = cpu(&results(&[1.0, 1.25, 0.5]), &THEMES[0]);
        assert_eq!(count(&text, ">1.25</text>"), 2);
        assert_eq!(count(&text, ">0.50</text>"), 2);
        assert_eq!(count(&text, ">1.0 is 5 µs</text>"), 2);
        // Two in each of two cells, two in the legend, and the background; the yardstick is a line.
        assert_eq!(count(&text, "<rect"), 2 * 2 + 2 + 1);
        assert_eq!(count(&text, "stroke-dasharray"), 1);
        assert!(text.contains("a &lt; b"));
    }

    #[test]
    fn a_bar_that_is_too_tall_is_cut_off_and_keeps_its_value() {
        let text = cpu(&results(&[1.0, 4.0]), &THEMES[1]);
        let height = BOTTOM - TOP;
        assert_eq!(count(&text, &format!("height=\"{height:.1}\"")), 2);
        assert_eq!(count(&text, ">4.00</text>"), 2);
    }

    #[test]
    fn each_server_has_its_latencies() {
        let text = latency(&results(&[1.0, 20.0]), &THEMES[0]);
        assert_eq!(count(&text, "<circle"), 2 * 2);
        for value in ["100", "300", "2m", "6m"] {
            assert_eq!(count(&text, &format!(">{value}</text>")), 2, "{value}");
        }
        assert!(text.contains(">1 ms</text>"));
    }

    #[test]
    fn relatives_have_a_colour_of_their_own() {
        let names = ["epoll-echo", "onbytes-echo", "onbytes-task-echo", "mine"];
        let servers: Vec<_> = names.iter().map(ToString::to_string).collect();
        let theme = &THEMES[0];
        let expected = [theme.by_hand, theme.ours[0], theme.ours[1], theme.others[0]];
        assert_eq!(theme.colors(&servers), expected);
    }

    #[test]
    fn times_have_a_unit_that_suits_them() {
        for (microseconds, text) in [
            (0.34, "0.34 µs"),
            (5.16, "5.2 µs"),
            (10.0, "10 µs"),
            (483.0, "483 µs"),
            (9978.0, "10 ms"),
        ] {
            assert_eq!(time(microseconds), text);
        }
    }

    #[test]
    fn lines_are_cut_behind_commas_and_between_words() {
        assert_eq!(wrap("64 B × 100, 16 in flight", 16), ["64 B × 100,", "16 in flight"]);
        assert_eq!(wrap("one two three", 8), ["one two", "three"]);
        assert_eq!(wrap("connect-echo-close", 16), ["connect-echo-close"]);
    }
}
