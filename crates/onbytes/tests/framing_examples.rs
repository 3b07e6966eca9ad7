//! The examples that speak in frames, run as a user runs them, with peers that are not ours.

use std::io::Write;
use std::net::TcpStream;

mod support;

use support::examples::{Running, read_line, spoilt};

// ---- Keys and values ----

fn ask(mut stream: &TcpStream, line: impl AsRef<[u8]>) -> String {
    stream.write_all(&[line.as_ref(), b"\n"].concat()).unwrap();
    read_line(stream).trim_end().to_owned()
}

#[test]
fn kv_keeps_values_for_all_who_connect() {
    let server = Running::start("kv");
    let (one, two) = (server.connect(), server.connect());
    assert_eq!(ask(&one, "GET colour"), "NONE");
    assert_eq!(ask(&one, "SET colour dark green\r"), "OK");
    assert_eq!(ask(&two, "get colour"), "VALUE dark green");
    assert_eq!(ask(&two, "SET size \u{221e}"), "OK");
    assert_eq!(ask(&one, "COUNT"), "2");
    assert_eq!(ask(&one, "DEL colour"), "OK");
    assert_eq!(ask(&one, "DEL colour"), "NONE");
    assert_eq!(ask(&two, "COUNT"), "1");
    for wrong in ["", "SET", "SET key", "GET", "GET a b", "COUNT all", "QUIT now", "HELLO"] {
        let hint = "ERR give SET key value, GET key, DEL key, COUNT or QUIT";
        assert_eq!(ask(&one, wrong), hint, "{wrong}");
    }
    assert_eq!(ask(&one, b"SET key \xFF"), "ERR a line is UTF-8");
    assert_eq!(ask(&one, "QUIT"), "BYE");
    assert_eq!(read_line(&one), "", "the connection ends");
    assert_eq!(ask(&two, "GET size"), "VALUE \u{221e}");
    drop((one, two));
    server.stop();
}

#[test]
fn kv_answers_a_line_that_is_too_long_and_goes_on() {
    let server = Running::start("kv");
    let stream = server.connect();
    let longest = format!("SET key {}", "x".repeat(4096 - 8));
    assert_eq!(ask(&stream, &longest), "OK");
    assert_eq!(ask(&stream, longest + "x"), "ERR 4097 bytes; a line has up to 4096");
    let millions = "y".repeat(3_000_000);
    assert_eq!(ask(&stream, millions), "ERR 3000000 bytes; a line has up to 4096");
    assert_eq!(ask(&stream, "COUNT"), "1");
    drop(stream);
    server.stop();
}

#[test]
fn kv_does_not_do_what_is_cut_off_by_the_end() {
    let server = Running::start("kv");
    let answers = server.converse(b"SET key whole\nSET key wh");
    assert_eq!(answers, b"OK\nERR the last line has no end; it is not done\n");
    assert_eq!(server.converse(b"GET key\nCOUNT\r\nQUIT\nGET key\n"), b"VALUE whole\n1\nBYE\n");
    server.stop();
}

#[test]
fn kv_survives_lines_without_sense_and_answers_each() {
    let server = Running::start("kv");
    for sample in ["SET key value", "GET key", "DEL key", "SET key value\r\r"] {
        for line in spoilt(sample.as_bytes()) {
            let lines = line.split(|byte| *byte == b'\n').count();
            let answers = server.converse(&[&line[..], b"\n"].concat());
            let count = answers.iter().filter(|byte| **byte == b'\n').count();
            assert_eq!(count, lines, "{} for {}", answers.escape_ascii(), line.escape_ascii());
        }
    }
    server.stop();
}
