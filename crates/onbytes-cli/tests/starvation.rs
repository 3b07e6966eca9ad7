//! More callers than the process may open files: they are told so or wait, and the server neither
//! spins nor fills its log, and needs nobody to recover.

mod support;

use std::thread;
use std::time::Duration;

use support::{Peer, Server, count, onbytes_in_shell, one_line, run, text, until};

/// More than the server has files.
const CALLERS: usize = 200;

/// An echo server that may open 64 files.
fn echo(flags: &[&str]) -> Server {
    Server::logging_in_shell("ulimit -n 64; exec \"$@\"", &[&["echo"], flags].concat())
}

/// Asserts that the server does next to nothing for a while.
#[track_caller]
fn assert_rests(server: &Server) {
    /// Hundredths of a second of a processor; one that spins takes some hundred if it gets them.
    const LITTLE: u64 = 20;
    let (work, rests) = (server.work(), server.rests());
    // Not a wait for something: this is the time in which there is nothing to do.
    thread::sleep(Duration::from_secs(2));
    let (work, rests) = (server.work() - work, server.rests() - rests);
    assert!(work <= LITTLE && rests <= 100, "{work} ticks, {rests} times asleep");
}

/// How many lines of the log are about an event.
fn lines_about(log: &[String], event: &str) -> usize {
    let part = format!(r#""event":"{event}""#);
    log.iter().filter(|line| line.contains(&part)).count()
}

/// Callers who come all at once: those who are served, and how many were turned away.
fn come(server: &Server) -> (Vec<Peer>, usize) {
    let callers: Vec<_> = (0..CALLERS).map(|_| server.connect()).collect();
    // Each of them hears something, or this ends with the watchdog's panic.
    let (served, refused): (Vec<_>, Vec<_>) = callers
        .into_iter()
        .map(|mut caller| (caller.is_served(), caller))
        .partition(|(is_served, _)| *is_served);
    (served.into_iter().map(|(_, caller)| caller).collect(), refused.len())
}

#[test]
fn with_refuse_callers_beyond_the_files_are_turned_away_at_once() {
    for (flags, cause) in [(&[][..], "full"), (&["--max-connections", "1000"], "starved")] {
        let server = echo(&[&["--when-full", "refuse"], flags].concat());
        let (mut served, refused) = come(&server);
        assert!(!served.is_empty() && served.len() < 64, "{} served, {refused} not", served.len());
        let refusal = server.log().find(r#""event":"refused""#);
        assert_eq!(text(&refusal, "cause"), cause);
        assert_rests(&server);
        for caller in &mut served {
            caller.assert_served();
        }
        drop(served);
        until("a place", || server.connect().is_served());
        let log = server.stopped();
        assert!(lines_about(&log, "refused") < 10, "{log:?}");
        assert!(lines_about(&log, "starved") <= 1, "{log:?}");
    }
}

#[test]
fn with_queue_callers_beyond_the_files_wait_until_others_leave() {
    let server = echo(&["--max-connections", "1000"]);
    let mut callers: Vec<_> = (0..CALLERS).map(|_| server.connect()).collect();
    callers[0].assert_served();
    let line = server.log().find(r#""event":"starved""#);
    assert!(line.contains(r#""level":"ERROR""#) && text(&line, "error").contains("open files"));
    assert_rests(&server);
    callers[0].assert_served();
    // Whoever has been served makes room for the next.
    for mut caller in callers {
        caller.assert_served();
    }
    server.assert_serves();
    let log = server.stopped();
    assert_eq!(lines_about(&log, "recovered"), 1, "{log:?}");
    // As many as there may be in the time that this takes.
    assert!(lines_about(&log, "starved") <= 1, "{log:?}");
    assert_eq!(lines_about(&log, "refused"), 0, "{log:?}");
    let stopped = log.iter().find(|line| line.contains(r#""event":"stopped""#)).unwrap();
    assert_eq!(count(stopped, "forced"), 0, "{stopped}");
}

#[test]
fn too_few_files_to_start_are_told_in_a_line() {
    for limit in 5..=9 {
        for command in [&["serve", "echo", "--listen", "127.0.0.1:0"][..], &["connect", "::1", "9"]]
        {
            let output = run(onbytes_in_shell(&format!("ulimit -n {limit}; exec \"$@\""), command));
            assert_eq!(output.status.code(), Some(1), "{limit}: {output:?}");
            assert!(one_line(&output).contains("ulimit -n"), "{limit}: {output:?}");
        }
    }
}

#[test]
fn too_few_files_for_the_workers_are_told_in_a_line() {
    let command = ["serve", "echo", "--listen", "127.0.0.1:0", "--workers", "8"];
    let output = run(onbytes_in_shell("ulimit -n 20; exec \"$@\"", &command));
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let line = one_line(&output);
    assert!(
        line.contains("--workers: cannot start thread") && line.contains("give fewer"),
        "{line}"
    );
}
