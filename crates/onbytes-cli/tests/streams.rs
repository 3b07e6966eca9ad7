//! A server does its work whatever has become of stdout and stderr.

mod support;

use std::io::{ErrorKind, PipeReader, PipeWriter, Write};
use std::process::Output;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use support::{Server, onbytes, onbytes_in_shell, one_line, run};

const SERVE: [&str; 6] = ["serve", "echo", "--listen", "127.0.0.1:0", "--log-format", "json"];

/// A pipe that takes no byte more. Whoever writes to it waits, as long as the reader is kept.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    let flags = fcntl_getfl(&writer).unwrap();
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).unwrap();
    let full = loop {
        if let Err(error) = writer.write(&[b'x'; 4096]) {
            break error;
        }
    };
    assert_eq!(full.kind(), ErrorKind::WouldBlock);
    fcntl_setfl(&writer, flags).unwrap();
    (reader, writer)
}

/// Some connections, each of which leaves lines in a log that leaves nothing out.
fn keep_busy(server: &Server, connections: usize) {
    for _ in 0..connections {
        let mut peer = server.connect();
        peer.send("hello");
        peer.expect("hello");
    }
}

#[test]
fn a_server_works_without_stderr() {
    let mut command = onbytes_in_shell("exec \"$@\" 2>&-", &SERVE);
    command.env("RUST_LOG", "trace");
    let server = Server::ready(command);
    keep_busy(&server, 100);
    server.stop();
}

#[test]
fn a_server_works_when_the_reader_of_stderr_has_gone() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = onbytes(&SERVE);
    command.env("RUST_LOG", "trace").stderr(writer);
    let server = Server::ready(command);
    keep_busy(&server, 100);
    server.stop();
}

#[test]
fn a_server_works_while_nobody_reads_stderr() {
    let mut command = onbytes(&SERVE);
    command.env("RUST_LOG", "trace");
    // The pipe is kept, unread, until the end.
    let server = Server::ready_unheard(command);
    keep_busy(&server, 5_000);
    server.stop();
}

#[test]
fn a_server_works_without_stdout() {
    let server = Server::ready_by_log(onbytes_in_shell("exec \"$@\" >&-", &SERVE));
    keep_busy(&server, 10);
    server.stop();
}

#[test]
fn a_server_works_when_the_reader_of_stdout_has_gone() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = onbytes(&SERVE);
    command.stdout(writer);
    let server = Server::ready_by_log(command);
    keep_busy(&server, 10);
    server.stop();
}

#[test]
fn a_server_works_while_stdout_is_full() {
    let (_reader, writer) = full_pipe();
    let mut command = onbytes(&SERVE);
    command.stdout(writer);
    let server = Server::ready_by_log(command);
    keep_busy(&server, 10);
    server.stop();
}

#[test]
fn lines_that_stderr_did_not_take_are_counted_when_it_takes_some_again() {
    let (reader, writer) = full_pipe();
    let mut command = onbytes(&SERVE);
    command.env("RUST_LOG", "trace").stderr(writer);
    let server = Server::ready(command);
    // Over a mebibyte of lines, which is what waits for stderr at most.
    keep_busy(&server, 5_000);
    let lines = support::Lines::of(reader);
    let told = lines.find("log lines were dropped");
    let told: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert!(told["fields"]["dropped"].as_u64().unwrap() > 0);
    server.stop();
}

#[test]
fn a_failure_ends_the_program_also_while_stderr_is_full() {
    let (_reader, writer) = full_pipe();
    let mut command = onbytes(&["serve", "nothing"]);
    command.stderr(writer);
    assert_eq!(run(command).status.code(), Some(2));
}

#[test]
fn json_logs_are_one_object_a_line() {
    let mut command = onbytes(&SERVE);
    command.env("RUST_LOG", "trace");
    let server = Server::ready(command);
    keep_busy(&server, 20);
    server.signal(support::Signal::TERM);
    let lines = server.log().rest();
    let mut events = Vec::new();
    for line in &lines {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["timestamp"].is_string() && line["level"].is_string(), "{line}");
        events.extend(line["fields"]["event"].as_str().map(str::to_owned));
    }
    for event in ["listening", "accepted", "closed", "stopping", "stopped"] {
        assert!(events.iter().any(|known| known == event), "{event}: {events:?}");
    }
}

#[test]
fn text_logs_have_no_colours_where_stderr_is_no_terminal() {
    let server = Server::start(&["echo"]);
    server.signal(support::Signal::TERM);
    let lines = server.log().rest();
    assert!(lines.iter().any(|line| line.contains("listening")), "{lines:?}");
    assert!(lines.iter().all(|line| !line.contains('\u{1b}')), "{lines:?}");
}

#[test]
fn rust_log_chooses_the_lines_and_a_mistake_in_it_is_told_and_stops_nothing() {
    let lines_with = |wish: &str| {
        let mut command = onbytes(&SERVE);
        command.env("RUST_LOG", wish);
        let server = Server::ready(command);
        server.signal(support::Signal::TERM);
        server.log().rest()
    };
    assert!(lines_with("off").is_empty());
    assert!(!lines_with("").is_empty());
    assert!(!lines_with("INFO").is_empty() && !lines_with("onbytes").is_empty());
    // A misspelt level would be taken for a target, and silence everything else.
    for mistake in ["onbytes=loud", "inof", "inof,onbytes=info"] {
        let lines = lines_with(mistake);
        let complaint = format!("RUST_LOG='{mistake}' is not understood");
        assert!(lines[0].contains(&complaint), "{lines:?}");
        assert!(lines[1].contains("listening"), "{lines:?}");
    }
}

#[test]
fn a_client_whose_stdout_nobody_reads_any_more_ends_quietly() {
    let server = Server::start(&["echo"]);
    let mut command = onbytes(&["connect", "127.0.0.1", &server.port()]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    command.stdin(std::process::Stdio::piped()).stdout(writer);
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"hello").unwrap();
    let Output { status, stderr, .. } = support::finish(child);
    assert_eq!(status.code(), Some(0));
    assert!(stderr.is_empty());
    drop(stdin);
    server.stop();
}

#[test]
fn a_client_whose_stdout_has_no_room_fails_with_one_line() {
    let server = Server::start(&["echo"]);
    let args = ["connect", "127.0.0.1", &server.port()];
    let mut command = onbytes_in_shell("exec \"$@\" >/dev/full", &args);
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello").unwrap();
    let output = support::finish(child);
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("stdout"));
    server.stop();
}
