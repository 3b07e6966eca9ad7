//! `idle-cost` as its user runs it, with an echo server in the place of the program.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// A program that takes any arguments, and notes its process id before it becomes `onbytes-echo`.
struct Noted {
    folder: TempDir,
}

impl Noted {
    /// Written by a process of its own: a script that this one has open, or one that another test starts
    /// just now, cannot be run.
    fn make() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let noted = Self { folder };
        let (ids, server) = (noted.ids_file(), env!("CARGO_BIN_EXE_onbytes-echo"));
        let text =
            format!("#!/bin/sh\necho $$ >> '{}'\nexec '{server}' 127.0.0.1:0\n", ids.display());
        let draft = noted.folder.path().join("draft");
        fs::write(&draft, text).unwrap();
        let copied = Command::new("cp").arg(&draft).arg(noted.path()).status().unwrap();
        assert!(copied.success());
        fs::set_permissions(noted.path(), Permissions::from_mode(0o755)).unwrap();
        noted
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("program")
    }

    fn ids_file(&self) -> PathBuf {
        self.folder.path().join("ids")
    }

    /// Of all processes that were started.
    fn ids(&self) -> Vec<String> {
        let text = fs::read_to_string(self.ids_file()).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    fn assert_all_are_gone(&self) {
        for id in self.ids() {
            assert!(!Path::new("/proc").join(&id).exists(), "{id} is still there");
        }
    }
}

fn idle_cost(program: &Noted, words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_idle-cost"));
    command.args(words.split_whitespace()).arg(program.path());
    command
}

#[test]
fn every_figure_is_told_and_no_server_stays() {
    let program = Noted::make();
    let json = program.folder.path().join("figures.json");
    let words = format!("--starts 3 --idle 20 --seconds 0.1 --json {}", json.display());
    let output = idle_cost(&program, &words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("| start, ms: median of 3 (min–max) | "), "{table}");
    assert!(table.contains("| CPU ms in 0.1 s, 20 idle connections | "), "{table}");
    // A script has no symbols to strip.
    let notes = String::from_utf8(output.stderr).unwrap();
    assert!(notes.contains("SKIPPED: no stripped size"), "{notes}");
    let figures: Value = serde_json::from_slice(&fs::read(json).unwrap()).unwrap();
    assert_eq!(figures["bytes"], fs::metadata(program.path()).unwrap().len());
    assert!(figures["start_ms"]["min"].as_f64().unwrap() > 0.0);
    assert_eq!(figures["idle"]["connections"], 20);
    // One start that does not count, three that do, and the one with connections.
    assert_eq!(program.ids().len(), 5);
    program.assert_all_are_gone();
}

#[test]
fn no_server_stays_after_a_signal() {
    let program = Noted::make();
    let mut command = idle_cost(&program, "--starts 1 --idle 20 --seconds 600");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while program.ids().len() < 3 {
        assert!(child.try_wait().unwrap().is_none(), "it has ended early");
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    assert!(!child.wait().unwrap().success());
    program.assert_all_are_gone();
}
