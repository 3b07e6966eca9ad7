//! What the runner measured: every round of every server and cell, as a file that can be drawn or compared later.

use crate::stats;
use serde_json::{Value, json};

/// One measurement of one server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Sample {
    /// Messages that were echoed.
    pub messages: u64,
    /// The server's CPU time per message, in microseconds.
    pub cpu: f64,
    /// The share of the time in which the server was on its core.
    pub busy: f64,
    /// The median latency, in microseconds.
    pub p50: f64,
    /// The latency that one message in a hundred exceeds, in microseconds.
    pub p99: f64,
    /// The latency that one message in a thousand exceeds, in microseconds.
    pub p999: f64,
    /// What TLS was agreed on, if any.
    pub tls: Option<String>,
}

/// All measurements of a run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results {
    /// What kind of messages: `plain`, `tls`, or the form of their frames.
    pub suite: String,
    /// The release of the kernel.
    pub kernel: String,
    /// The CPU's model name.
    pub cpu_model: String,
    /// Cores that the run could use.
    pub cores: u64,
    /// The version of the compiler.
    pub compiler: String,
    /// How long each measurement took, in seconds.
    pub seconds: f64,
    /// The columns of the report.
    pub cells: Vec<String>,
    /// Its rows. The first is the yardstick.
    pub servers: Vec<String>,
    /// By cell, then server, then round.
    pub samples: Vec<Vec<Vec<Sample>>>,
}

impl Results {
    /// The file's text.
    #[must_use]
    pub fn to_json(&self) -> String {
        let mut rounds = Vec::new();
        for (cell, column) in self.cells.iter().zip(&self.samples) {
            for (server, samples) in self.servers.iter().zip(column) {
                rounds.extend(samples.iter().map(|sample| sample.to_json(server, cell)));
            }
        }
        let machine = json!({
            "kernel": self.kernel,
            "cpu": self.cpu_model,
            "cores": self.cores,
            "rustc": self.compiler,
        });
        let head = [
            ("suite", json!(self.suite)),
            ("machine", machine),
            ("seconds", json!(self.seconds)),
            ("cells", json!(self.cells)),
            ("servers", json!(self.servers)),
        ];
        let head = head.map(|(name, value)| format!("  \"{name}\": {value},\n")).concat();
        // One line for each round.
        let rounds: Vec<_> = rounds.iter().map(|round| format!("    {round}")).collect();
        format!("{{\n{head}  \"rounds\": [\n{}\n  ]\n}}\n", rounds.join(",\n"))
    }

    /// Reads what [`Results::to_json`] wrote.
    pub fn from_json(text: &str) -> Result<Self, String> {
        let all: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let cells = strings(&all, "cells")?;
        let servers = strings(&all, "servers")?;
        let mut samples = vec![vec![Vec::new(); servers.len()]; cells.len()];
        for round in array(&all, "rounds")? {
            let place = |names: &[String], key| {
                let name = string(round, key)?;
                let place = names.iter().position(|known| *known == name);
                place.ok_or_else(|| format!("a round of {name}, which is not in the list"))
            };
            let (cell, server) = (place(&cells, "cell")?, place(&servers, "server")?);
            samples[cell][server].push(Sample::from_json(round)?);
        }
        let machine = &all["machine"];
        Ok(Self {
            suite: string(&all, "suite")?,
            kernel: string(machine, "kernel")?,
            cpu_model: string(machine, "cpu")?,
            cores: number(machine, "cores")? as u64,
            compiler: string(machine, "rustc")?,
            seconds: number(&all, "seconds")?,
            cells,
            servers,
            samples,
        })
    }

    /// How many rounds there were.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.samples.iter().flatten().map(Vec::len).max().unwrap_or(0)
    }
}

impl Sample {
    fn to_json(&self, server: &str, cell: &str) -> Value {
        // As exact as anybody can measure.
        let rounded = |value: f64| (value * 10_000.0).round() / 10_000.0;
        json!({
            "server": server,
            "cell": cell,
            "messages": self.messages,
            "cpu_us": rounded(self.cpu),
            "busy": rounded(self.busy),
            "p50_us": rounded(self.p50),
            "p99_us": rounded(self.p99),
            "p999_us": rounded(self.p999),
            "tls": self.tls,
        })
    }

    fn from_json(round: &Value) -> Result<Self, String> {
        Ok(Self {
            messages: number(round, "messages")? as u64,
            cpu: number(round, "cpu_us")?,
            busy: number(round, "busy")?,
            p50: number(round, "p50_us")?,
            p99: number(round, "p99_us")?,
            p999: number(round, "p999_us")?,
            tls: round["tls"].as_str().map(str::to_owned),
        })
    }
}

fn number(value: &Value, key: &str) -> Result<f64, String> {
    value[key].as_f64().ok_or_else(|| format!("no number '{key}'"))
}

fn string(value: &Value, key: &str) -> Result<String, String> {
    value[key].as_str().map(str::to_owned).ok_or_else(|| format!("no text '{key}'"))
}

fn array<'a>(value: &'a Value, key: &str) -> Result<&'a [Value], String> {
    value[key].as_array().map(Vec::as_slice).ok_or_else(|| format!("no list '{key}'"))
}

fn strings(value: &Value, key: &str) -> Result<Vec<String>, String> {
    let text = |item: &Value| item.as_str().map(str::to_owned);
    let texts = array(value, key)?.iter().map(text).collect::<Option<Vec<_>>>();
    texts.ok_or_else(|| format!("'{key}' is not a list of texts"))
}

/// One number of each round.
pub fn values(rounds: &[Sample], of: impl Fn(&Sample) -> f64) -> Vec<f64> {
    rounds.iter().map(of).collect()
}

/// One number of each round, relative to the yardstick's of the same round.
pub fn ratios(column: &[Vec<Sample>], row: usize, of: impl Fn(&Sample) -> f64) -> Vec<f64> {
    let rounds = column[row].iter().zip(&column[0]);
    rounds.map(|(sample, yardstick)| of(sample) / of(yardstick)).collect()
}

/// The middle of several numbers, and how far they reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The least.
    pub low: f64,
    /// The median.
    pub median: f64,
    /// The greatest.
    pub high: f64,
}

impl Spread {
    /// Of these numbers.
    #[must_use]
    pub fn of(values: &[f64]) -> Self {
        let (low, high) = stats::spread(values);
        Self { low, median: stats::median(values), high }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(cpu: f64) -> Sample {
        Sample { messages: 9, cpu, busy: 0.5, p50: 2.0, p99: 3.0, p999: 4.5, tls: None }
    }

    fn results() -> Results {
        let with_tls = Sample { tls: Some("TLSv1_3".to_owned()), ..sample(4.0) };
        Results {
            suite: "plain".to_owned(),
            kernel: "6.1".to_owned(),
            cpu_model: "a CPU".to_owned(),
            cores: 2,
            compiler: "rustc 1.0".to_owned(),
            seconds: 0.3,
            cells: vec!["64 B".to_owned(), "1 MiB".to_owned()],
            servers: vec!["yardstick".to_owned(), "other".to_owned()],
            samples: vec![
                vec![vec![sample(1.0), sample(2.0)], vec![sample(1.5), sample(4.0)]],
                vec![vec![sample(8.0)], vec![with_tls]],
            ],
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        assert_eq!(Results::from_json(&results().to_json()), Ok(results()));
        assert_eq!(results().rounds(), 2);
    }

    #[test]
    fn what_is_missing_is_named() {
        let text = results().to_json();
        let cases = [
            ("\"suite\"", "suite"),
            ("\"p999_us\"", "p999_us"),
            ("\"kernel\"", "kernel"),
            ("\"rounds\"", "rounds"),
            ("\"servers\"", "servers"),
        ];
        for (key, name) in cases {
            let error = Results::from_json(&text.replace(key, "\"x\"")).unwrap_err();
            assert!(error.contains(name), "{error}");
        }
        let stranger = text.replacen("\"server\":\"other\"", "\"server\":\"stranger\"", 1);
        assert!(Results::from_json(&stranger).unwrap_err().contains("stranger"));
        assert!(Results::from_json("[").is_err());
    }

    #[test]
    fn ratios_are_within_rounds() {
        let cpu = |sample: &Sample| sample.cpu;
        let all = results();
        assert_eq!(ratios(&all.samples[0], 1, cpu), [1.5, 2.0]);
        assert_eq!(values(&all.samples[0][1], cpu), [1.5, 4.0]);
        let spread = Spread { low: 1.5, median: 1.75, high: 2.0 };
        assert_eq!(Spread::of(&ratios(&all.samples[0], 1, cpu)), spread);
    }
}
