//! Draws what `compare --json` wrote.
//!
//! ```text
//! target/release/compare --json plain.json
//! target/release/compare --tls --json tls.json
//! target/release/plot --out docs/plots plain.json tls.json
//! ```
//!
//! For each file two pictures, each for light and for dark pages: `cpu-light.svg`, `cpu-dark.svg`,
//! `latency-light.svg` and `latency-dark.svg`; over TLS `tls-light.svg`, `tls-latency-light.svg` and so on, and
//! with frames the same with their form. `--out` is `docs/plots` by default.

use onbytes_benches::results::Results;
use onbytes_benches::{chart, cli};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    cli::exit(run(std::env::args().skip(1)))
}

fn run(mut args: impl Iterator<Item = String>) -> Result<(), String> {
    let (mut out, mut files) = (PathBuf::from("docs/plots"), Vec::new());
    while let Some(word) = args.next() {
        match word.as_str() {
            "--out" => out = cli::value(&word, &mut args)?,
            _ if word.starts_with('-') => return Err(format!("{word}: unknown argument")),
            _ => files.push(PathBuf::from(word)),
        }
    }
    if files.is_empty() {
        return Err("give files that compare --json wrote".to_owned());
    }
    std::fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    files.iter().try_for_each(|file| {
        let results = read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        draw(&results, &out)
    })
}

fn read(file: &Path) -> Result<Results, String> {
    let text = std::fs::read_to_string(file).map_err(|error| error.to_string())?;
    let results = Results::from_json(&text)?;
    if results.servers.len() < 2 || results.samples.iter().flatten().any(Vec::is_empty) {
        return Err("needs two servers at least, and a round of each in each cell".to_owned());
    }
    Ok(results)
}

fn draw(results: &Results, out: &Path) -> Result<(), String> {
    let [cpu, latency] = names(&results.suite);
    for theme in &chart::THEMES {
        let pictures =
            [(&cpu, chart::cpu(results, theme)), (&latency, chart::latency(results, theme))];
        for (name, text) in pictures {
            let path = out.join(format!("{name}-{}.svg", theme.name));
            std::fs::write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
            println!("{}", path.display());
        }
    }
    Ok(())
}

/// What the pictures of CPU times and of latencies are called.
fn names(suite: &str) -> [String; 2] {
    match suite {
        "plain" => ["cpu".to_owned(), "latency".to_owned()],
        // A form of frames may have a colon, which some systems want in no file name.
        suite => [suite.replace(':', "-"), format!("{}-latency", suite.replace(':', "-"))],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onbytes_benches::results::Sample;

    fn results() -> Results {
        let sample = Sample { cpu: 1.0, p50: 1.0, p99: 2.0, p999: 3.0, ..Sample::default() };
        Results {
            suite: "len:u16be".to_owned(),
            cells: vec!["64 B".to_owned()],
            servers: vec!["a".to_owned(), "b".to_owned()],
            samples: vec![vec![vec![sample.clone()], vec![sample]]],
            ..Results::default()
        }
    }

    fn run_with(words: &[&Path]) -> Result<(), String> {
        run(words.iter().map(|word| word.display().to_string()))
    }

    #[test]
    fn a_file_of_results_becomes_four_pictures() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("results.json");
        std::fs::write(&file, results().to_json()).unwrap();
        let out = folder.path().join("a/b");
        run_with(&[Path::new("--out"), &out, &file]).unwrap();
        for name in ["-light", "-dark", "-latency-light", "-latency-dark"] {
            let text = std::fs::read_to_string(out.join(format!("len-u16be{name}.svg"))).unwrap();
            assert!(text.starts_with("<svg") && text.ends_with("</svg>\n"), "{name}");
        }
    }

    #[test]
    fn pictures_are_called_after_what_was_measured() {
        assert_eq!(names("plain"), ["cpu", "latency"]);
        assert_eq!(names("tls"), ["tls", "tls-latency"]);
    }

    #[test]
    fn what_cannot_be_drawn_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("results.json");
        let alone = Results {
            servers: vec!["a".to_owned()],
            samples: vec![vec![vec![Sample::default()]]],
            ..results()
        };
        std::fs::write(&file, alone.to_json()).unwrap();
        let out = folder.path();
        assert!(run_with(&[Path::new("--out"), out, &file]).unwrap_err().contains("two servers"));
        assert!(run_with(&[Path::new("--out"), out, &folder.path().join("none")]).is_err());
        assert!(run_with(&[Path::new("--fast")]).is_err());
        assert!(run_with(&[]).is_err());
    }
}
