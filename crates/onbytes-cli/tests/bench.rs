//! `onbytes bench`: what it counts and what it finds wrong, against `onbytes serve` and against peers that
//! misbehave.

mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use support::tls::{CERT, Folder};
use support::{
    Server, Signal, assert_quiet, finish, onbytes, onbytes_in_shell, one_line, run, signal,
};

/// `onbytes bench` against a port of this machine; nothing is sent before it counts, unless flags say so.
fn bench(port: &str, line: &str) -> Command {
    let flags: Vec<_> = line.split_whitespace().collect();
    let warmup: &[_] = if line.contains("--warmup") { &[] } else { &["--warmup", "0"] };
    onbytes(&[&["bench", "127.0.0.1", port], warmup, &flags[..]].concat())
}

/// Runs it with `--json`; returns the exit code and the object.
#[track_caller]
fn measured(port: &str, line: &str) -> (Option<i32>, Value) {
    object(&run(bench(port, &format!("{line} --json"))))
}

#[track_caller]
fn object(output: &Output) -> (Option<i32>, Value) {
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(complaint, "");
    let text = String::from_utf8_lossy(&output.stdout);
    let object = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    (output.status.code(), object)
}

/// Runs it, and asserts that nothing went wrong.
#[track_caller]
fn good(port: &str, line: &str) -> Value {
    let (code, object) = measured(port, line);
    assert_eq!((code, &object["errors"]["count"]), (Some(0), &Value::from(0)), "{object}");
    object
}

#[track_caller]
fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("no number: {value}"))
}

/// A server on a thread: whatever connects is served by `serve`, each on a thread of its own.
fn peer(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (serve, stream) = (serve.clone(), stream.unwrap());
            thread::spawn(move || serve(stream));
        }
    });
    port.to_string()
}

/// Sends back what comes, as `change` leaves it; it is told how many bytes came before, and says whether to
/// go on.
fn echo(mut stream: TcpStream, mut change: impl FnMut(usize, &mut Vec<u8>) -> bool) {
    let (mut buffer, mut before) = ([0; 65536], 0);
    while let Ok(count) = stream.read(&mut buffer) {
        let mut data = buffer[..count].to_vec();
        if count == 0 || !change(before, &mut data) || stream.write_all(&data).is_err() {
            return;
        }
        before += count;
    }
}

// ---- What it measures ----

#[test]
fn so_many_messages_as_were_asked_for_are_answered_and_counted() {
    let server = Server::start(&["echo"]);
    let object = good(&server.port(), "--messages 1000 --connections 4 --size 1K");
    assert_eq!(object["messages"], 1000);
    assert_eq!(object["messages_sent"], 1000);
    assert_eq!(object["bytes_sent"], 1_024_000);
    assert_eq!(object["bytes_received"], 1_024_000);
    assert_eq!(object["connections"]["made"], 4);
    assert_eq!(object["load"]["size_bytes"], 1024);
    let latency = &object["latency_ns"];
    let steps = ["min", "p50", "p90", "p99", "p99_9", "p99_99", "max"];
    let times: Vec<_> = steps.iter().map(|step| number(&latency[step])).collect();
    assert!(times.is_sorted() && times[0] > 0, "{latency}");
    let pairs = object["histogram_ns"].as_array().unwrap();
    assert_eq!(pairs.iter().map(|pair| number(&pair[1])).sum::<u64>(), 1000);
    server.stop();
}

#[test]
fn a_duration_ends_it_and_what_was_sent_in_the_warmup_does_not_count() {
    let server = Server::start(&["echo"]);
    let object = good(&server.port(), "--duration 0.3 --warmup 0.1 --connections 2 --threads 2");
    assert!(number(&object["messages"]) > 0);
    assert_eq!(object["seconds"], 0.3);
    assert_eq!(object["generator"]["core_share"].as_array().unwrap().len(), 2);
    server.stop();
}

#[test]
fn messages_of_any_size_and_depth_come_back() {
    let server = Server::start(&["echo"]);
    for (line, messages) in [
        ("--size 1 --depth 100 --connections 3 --messages 5000", 5000),
        ("--size 1000 --depth 1000 --connections 1 --messages 3000", 3000),
        // More than the system's buffers hold, so that it comes back while it is still being sent.
        ("--size 24M --depth 2 --connections 2 --messages 6", 6),
        ("--size 300K --depth 5 --connections 2 --messages 50", 50),
    ] {
        let object = good(&server.port(), line);
        assert_eq!(object["messages"], messages, "{line}");
        assert_eq!(object["bytes_sent"], object["bytes_received"], "{line}");
    }
    server.stop();
}

#[test]
fn each_message_is_a_frame_where_there_is_a_framing() {
    for form in ["len:u16be", "lines", "mllp", "slip"] {
        let server = Server::start(&["echo", "--framing", form]);
        let line = format!("--framing {form} --depth 8 --connections 3 --messages 2000");
        let object = good(&server.port(), &line);
        assert_eq!(object["messages"], 2000, "{form}");
        assert!(number(&object["bytes_sent"]) > 2000 * 64, "{form}");
        server.stop();
    }
}

#[test]
fn a_reply_of_another_content_will_do_where_a_frame_is_expected() {
    // Upper case is another content, and the lines' ends stay.
    let port = peer(|stream| {
        echo(stream, |_, data| {
            data.make_ascii_uppercase();
            true
        });
    });
    let line = "--framing lines --payload hello --messages 100 --connections 2";
    let object = good(&port, &format!("{line} --expect frame"));
    assert_eq!(object["messages"], 100);
    let (code, object) = measured(&port, &format!("{line} --duration 5 --timeout 1"));
    assert_eq!(code, Some(1));
    assert!(number(&object["errors"]["kinds"]["wrong_reply"]["count"]) > 0, "{object}");
}

#[test]
fn a_message_of_ones_own_is_what_the_server_gets() {
    let (tell, heard) = mpsc::channel();
    let port = peer(move |stream| {
        let tell = tell.clone();
        echo(stream, move |_, data| tell.send(data.clone()).is_ok());
    });
    let got = |heard: &Receiver<Vec<u8>>| heard.try_iter().collect::<Vec<_>>().concat();
    good(&port, "--payload a\\x00b\\n --messages 3 --connections 1");
    assert_eq!(got(&heard), b"a\0b\na\0b\na\0b\n");
    let folder = Folder::new();
    folder.write("message", b"\xff\xfe");
    let payload = format!("@{}", folder.path("message"));
    let object = good(&port, &format!("--payload {payload} --messages 2 --connections 1"));
    assert_eq!(got(&heard), b"\xff\xfe\xff\xfe");
    assert_eq!(object["load"]["size_bytes"], 2);
}

#[test]
fn everything_arrives_where_no_reply_is_waited_for() {
    let (tell, heard) = mpsc::channel();
    let port = peer(move |mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        tell.send(all.len()).unwrap();
    });
    let object =
        good(&port, "--expect nothing --messages 500 --size 1000 --connections 1 --depth 7");
    assert_eq!((&object["messages"], &object["bytes_received"]), (&500.into(), &0.into()));
    assert_eq!(heard.recv_timeout(support::WATCHDOG), Ok(500_000));
    // What a server says all the same is no reason to get stuck, nor an error.
    let server = Server::start(&["echo"]);
    good(&server.port(), "--expect nothing --messages 2000 --size 100K --connections 2");
    server.stop();
}

#[test]
fn each_message_has_a_connection_of_its_own_with_churn() {
    let server = Server::logging(&["echo"]);
    let object = good(&server.port(), "--churn --messages 200 --connections 5");
    assert_eq!(object["messages"], 200);
    assert_eq!(object["messages_sent"], 200);
    assert_eq!(object["connections"]["made"], 200);
    let log = server.stopped();
    let served = |line: &&String| {
        line.contains(r#""event":"closed""#) && line.contains(r#""bytes_received":64"#)
    };
    assert_eq!(log.iter().filter(served).count(), 200);
}

// ---- TLS ----

#[test]
fn sessions_are_resumed_with_churn_unless_that_is_off() {
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(CERT);
    let measured = |line: &str| {
        let line = format!("--tls --cert cert.pem --churn --messages 400 --connections 40 {line}");
        let command = bench(&server.port(), &format!("{line} --json"));
        let (code, object) = object(&run(folder.here(command)));
        assert_eq!(code, Some(0), "{object}");
        let tls = &object["tls"];
        (number(&tls["full_handshakes"]), number(&tls["resumed_handshakes"]))
    };
    let (full, resumed) = measured("");
    assert_eq!(full + resumed, 400);
    // Only who comes first has nothing to resume.
    assert!(full <= 40, "{full} full");
    assert_eq!(measured("--no-resumption"), (400, 0));
    server.stop();
}

#[test]
fn messages_come_back_over_tls() {
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(CERT);
    let line = "--tls --cert cert.pem --connections 3 --depth 4 --size 100K --messages 100";
    let output = run(folder.here(bench(&server.port(), line)));
    assert_quiet(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("TLSv1.3") && text.contains("handshakes   "), "{text}");
    let line = "--tls --messages 1 --connections 1";
    let output = run(folder.here(bench(&server.port(), line)));
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("certificate"));
    server.stop();
}

// ---- The open loop ----

#[test]
fn messages_leave_at_the_rate_that_was_asked_for() {
    let server = Server::start(&["echo"]);
    for line in ["", "--churn", "--threads 2"] {
        let line = format!("--rate 500 --messages 100 --connections 10 {line}");
        let object = good(&server.port(), &line);
        assert_eq!((&object["messages"], &object["messages_sent"]), (&100.into(), &100.into()));
        // The last is due then.
        assert!(object["seconds"].as_f64().unwrap() >= 99.0 / 500.0, "{object}");
        assert_eq!(object["schedule"]["rate_per_second"], 500.0);
        assert_eq!(object["schedule"]["unsent_messages"], 0);
    }
    server.stop();
}

#[test]
fn a_queue_that_grew_in_the_warmup_does_not_hold_up_what_counts() {
    // It is asked for twenty times as much as the server takes, and some of that counts all the same.
    let port = peer(|stream| {
        echo(stream, |_, _| {
            thread::sleep(Duration::from_millis(20));
            true
        });
    });
    let object = good(&port, "--rate 1000 --warmup 0.5 --duration 0.5 --connections 1");
    assert!(number(&object["messages"]) > 0, "{object}");
    assert!(object["generator"]["cpu_seconds"].as_f64().unwrap() > 0.0, "{object}");
}

#[test]
fn a_stall_shows_in_all_messages_that_were_due_meanwhile() {
    const STALL: Duration = Duration::from_millis(500);
    const BEFORE: usize = 20 * 64;
    let port = peer(|stream| {
        echo(stream, |before, data| {
            if (before..before + data.len()).contains(&BEFORE) {
                thread::sleep(STALL);
            }
            true
        });
    });
    let object = good(&port, "--rate 200 --messages 200 --connections 1");
    let stall = STALL.as_nanos() as u64;
    assert!(number(&object["latency_ns"]["max"]) >= stall, "{object}");
    // One each 5 ms was due; those of the first half waited half of the stall at least.
    let pairs = object["histogram_ns"].as_array().unwrap();
    let slow = pairs.iter().filter(|pair| number(&pair[0]) >= stall / 2);
    let slow: u64 = slow.map(|pair| number(&pair[1])).sum();
    assert!(slow >= 45, "{slow} were slow");
    assert!(number(&object["schedule"]["late_messages"]) >= 45, "{object}");
    assert!(number(&object["schedule"]["longest_queue_messages"]) >= 45, "{object}");
}

#[test]
fn what_could_not_leave_is_told() {
    // A reply takes 20 ms, so one connection takes no more than 50 messages a second.
    let port = peer(|stream| {
        echo(stream, |_, _| {
            thread::sleep(Duration::from_millis(20));
            true
        });
    });
    let line = "--rate 1000 --duration 0.5 --connections 1";
    let object = good(&port, line);
    let schedule = &object["schedule"];
    assert_eq!(schedule["was_kept"], false);
    assert!(number(&schedule["unsent_messages"]) >= 475, "{schedule}");
    let output = run(bench(&port, line));
    assert_quiet(&output);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.contains("were never sent") && text.contains("note: the rate was not kept"),
        "{text}"
    );
}

// ---- Peers that misbehave ----

#[test]
fn a_wrong_byte_is_told_with_connection_and_offset() {
    let port = peer(|stream| {
        echo(stream, |before, data| {
            if (before..before + data.len()).contains(&1000) {
                data[1000 - before] ^= 0x20;
            }
            true
        });
    });
    let line = "--connections 1 --messages 20 --timeout 1";
    let (code, object) = measured(&port, line);
    assert_eq!(code, Some(1));
    let wrong = &object["errors"]["kinds"]["wrong_reply"];
    assert_eq!(wrong["count"], 1, "{object}");
    let first = wrong["first"].as_str().unwrap();
    assert!(first.contains("connection 0") && first.contains("offset 1000"), "{first}");
    // 15 messages before it were right, the connection was replaced, and the rest went on there.
    assert_eq!((&object["messages"], &object["messages_lost"]), (&19.into(), &1.into()));
    assert_eq!(object["connections"]["made"], 2);
    let output = run(bench(&port, line));
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("1 × wrong reply: connection 0: the byte at offset 1000"), "{text}");
}

#[test]
fn more_than_was_sent_is_wrong() {
    let port = peer(|stream| {
        echo(stream, |_, data| {
            data.push(0);
            true
        });
    });
    let (code, object) = measured(&port, "--connections 1 --messages 1");
    assert_eq!(code, Some(1));
    let first = object["errors"]["kinds"]["wrong_reply"]["first"].as_str().unwrap();
    assert!(first.contains("more came than was asked for"), "{first}");
}

#[test]
fn a_connection_that_ends_in_the_middle_is_an_error_and_is_replaced() {
    let port = peer(|mut stream| {
        let mut message = [0; 64];
        stream.read_exact(&mut message).unwrap();
        stream.write_all(&message).unwrap();
        stream.read_exact(&mut message).unwrap();
        stream.write_all(&message[..32]).unwrap();
    });
    let (code, object) = measured(&port, "--connections 1 --messages 6 --timeout 1");
    assert_eq!(code, Some(1));
    let kinds = &object["errors"]["kinds"];
    let ends: u64 = ["ended", "reset"].iter().filter_map(|it| kinds[it]["count"].as_u64()).sum();
    assert_eq!(ends, number(&object["errors"]["count"]), "{object}");
    // Each connection answers one message, and loses the next.
    assert_eq!((&object["messages"], &object["messages_lost"]), (&3.into(), &3.into()), "{object}");
    assert_eq!(object["connections"]["broken"], 3);
}

#[test]
fn a_server_that_never_answers_does_not_hold_it_up() {
    let port = peer(|mut stream| {
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    for line in
        ["--duration 0.2", "--messages 1000", "--duration 0.2 --rate 100", "--messages 9 --churn"]
    {
        let (code, object) = measured(&port, &format!("{line} --timeout 0.2 --connections 3"));
        assert_eq!((code, &object["messages"]), (Some(1), &0.into()), "{object}");
        let errors = &object["errors"]["kinds"]["no_reply"];
        assert!(number(&errors["count"]) >= 3, "{object}");
        assert!(
            errors["first"].as_str().unwrap().contains("no reply came within 0.2 s"),
            "{errors}"
        );
        assert!(object["latency_ns"].is_null());
    }
}

#[test]
fn a_server_that_goes_away_does_not_hold_up_a_number_of_messages() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let serving = thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        drop(listener);
        echo(stream, |before, _| before < 640);
    });
    let (code, object) = measured(&port, "--messages 1000000 --connections 1 --timeout 0.3");
    assert_eq!(code, Some(1));
    assert!(number(&object["messages"]) >= 10);
    assert!(number(&object["errors"]["kinds"]["not_connected"]["count"]) >= 1, "{object}");
    serving.join().unwrap();
}

#[test]
fn a_server_that_cannot_be_reached_is_told_in_one_line() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    drop(listener);
    let output = run(bench(&port, "--json"));
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let line = one_line(&output);
    assert!(line.contains(&port) && line.contains("refused"), "{line}");
    assert!(line.contains("does a server listen there?"), "{line}");
}

// ---- How it is told ----

#[test]
fn the_table_is_quiet_and_has_a_curve_only_where_that_is_asked_for() {
    let server = Server::start(&["echo"]);
    let text = |line: &str| {
        let output = run(bench(&server.port(), &format!("--messages 100 --connections 2 {line}")));
        assert_quiet(&output);
        String::from_utf8(output.stdout).unwrap()
    };
    let plain = text("");
    for part in ["messages     100 answered", "errors       none", "p99.9 ", "2 made, 0 failed"] {
        assert!(plain.contains(part), "{part}: {plain}");
    }
    assert!(!plain.contains('█') && !plain.contains('\x1b'), "{plain}");
    assert!(text("--text-plot").contains('█'));
    server.stop();
}

#[test]
fn the_picture_takes_the_place_of_the_file_and_is_well_formed() {
    let server = Server::start(&["echo"]);
    let folder = Folder::new();
    folder.write("latency.svg", "old ".repeat(100_000));
    let plot = folder.path("latency.svg");
    good(&server.port(), &format!("--messages 100 --connections 2 --plot {plot}"));
    let picture = fs::read_to_string(&plot).unwrap();
    assert_well_formed(&picture);
    for part in ["<svg ", "prefers-color-scheme", "<polyline", "latency"] {
        assert!(picture.contains(part), "{part}: {picture}");
    }
    server.stop();
}

/// Asserts that each element ends, in the order of XML.
#[track_caller]
fn assert_well_formed(text: &str) {
    let mut open = Vec::new();
    for tag in text.split('<').skip(1) {
        let (tag, content) = tag.split_once('>').unwrap_or_else(|| panic!("no end of <{tag}"));
        assert!(!content.contains('>') && tag.matches('"').count().is_multiple_of(2), "<{tag}");
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split_whitespace().next().unwrap()),
        }
        assert!(!open.is_empty() || content.trim().is_empty(), "{content}");
    }
    assert!(open.is_empty() && text.starts_with("<svg "), "{open:?}");
}

#[test]
fn a_picture_that_cannot_be_written_is_told_before_the_run() {
    let server = Server::start(&["echo"]);
    let output = run(bench(&server.port(), "--duration 1000 --plot /no/such/folder/latency.svg"));
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("--plot: cannot write"));
    server.stop();
}

#[test]
fn an_interrupt_ends_it_with_the_report() {
    let (tell, heard) = mpsc::channel();
    let port = peer(move |stream| {
        let tell = tell.clone();
        echo(stream, move |_, _| tell.send(()).is_ok());
    });
    let mut command = bench(&port, "--duration 1000 --connections 1 --json");
    let child = command.stdout(Stdio::piped()).spawn().unwrap();
    // The second message comes when the first was answered.
    (0..3).for_each(|_| heard.recv_timeout(support::WATCHDOG).unwrap());
    signal(child.id(), Signal::INT);
    let (code, object) = object(&finish(child));
    assert_eq!((code, &object["interrupted"]), (Some(0), &true.into()), "{object}");
    assert!(number(&object["messages"]) >= 2);
}

// ---- What it cannot do ----

#[test]
fn more_connections_than_files_are_told_and_a_soft_limit_is_raised() {
    let server = Server::start(&["echo"]);
    let args = |connections| {
        ["bench", "127.0.0.1", "PORT", "--messages", "300", "--connections", connections]
            .map(|word| if word == "PORT" { server.port() } else { word.to_owned() })
    };
    let run_in = |limit: &str, connections| {
        let args = args(connections);
        let words: Vec<_> = args.iter().map(String::as_str).collect();
        run(onbytes_in_shell(&format!("ulimit {limit}; exec \"$@\""), &words))
    };
    let output = run_in("-n 100", "1000");
    assert_eq!(output.status.code(), Some(1));
    let line = one_line(&output);
    assert!(line.contains("--connections 1000") && line.contains("may have 100"), "{line}");
    assert_quiet(&run_in("-Sn 100", "150"));
    server.stop();
}

/// Asserts that flags are refused with exit code 2 and one line that has `parts`.
#[track_caller]
fn refused(line: &str, parts: &[&str]) {
    let output = run(bench("1", line));
    let told = one_line(&output);
    assert_eq!(output.status.code(), Some(2), "{line}: {told}");
    assert!(output.stdout.is_empty(), "{line}");
    parts.iter().for_each(|part| assert!(told.contains(part), "{line}: {told}"));
}

#[test]
fn values_that_cannot_be_are_refused_with_the_way_out() {
    for (flag, values, way_out) in [
        ("--connections", &["0", "-1", "1000001", "many"][..], "from 1 to 1000000"),
        ("--size", &["0", "1T", "257M", "1.5K"], "such as 16777216 or 16M"),
        ("--depth", &["0", "65537"], "from 1 to 65536"),
        ("--duration", &["0", "-1", "10s", "off"], "such as 10 or 0.5"),
        ("--messages", &["0", "-1", "1e6"], "from 1 to 4294967295"),
        ("--warmup", &["-1", "off"], "0 for none"),
        ("--threads", &["0", "1025"], "from 1 to 1024"),
        ("--rate", &["0", "off", "nan", "1e9"], "such as 5000 or 0.5"),
        ("--timeout", &["0", "off"], "such as 10 or 0.5"),
        ("--expect", &["echoes"], "give echo, frame or nothing"),
        ("--framing", &["u99"], "see onbytes framing"),
    ] {
        for value in values {
            refused(&format!("{flag}={value}"), &[flag, value, way_out]);
        }
    }
    refused("--payload", &["--payload has no value", "see onbytes bench --help"]);
    refused("--plot=", &["--plot", "such as latency.svg"]);
}

#[test]
fn flags_that_do_not_go_together_are_refused_with_the_way_out() {
    for (line, parts) in [
        ("--churn --depth 2", &["--churn", "--depth", "one of the two"][..]),
        ("--threads 3 --connections 2", &["--threads 3", "--connections 2"]),
        ("--expect frame", &["--framing"]),
        ("--payload x --size 10", &["--payload", "--size"]),
        ("--payload a\\q", &["--payload", "'\\q'", "is no escape"]),
        ("--no-resumption", &["--no-resumption", "--tls"]),
        ("--cert x.pem", &["--cert needs --tls"]),
        ("--no-plot --text-plot", &["--text-plot", "--no-plot"]),
        ("--json --text-plot", &["--text-plot", "--json"]),
        ("--framing fixed:10", &["--size", "--framing", "64 bytes"]),
        ("--framing lines --payload a\\nb", &["--payload", "--framing"]),
    ] {
        refused(line, parts);
    }
    let output = run(bench("1", "--payload @/no/such/file"));
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("--payload: cannot read \"/no/such/file\""));
}

#[test]
fn its_help_has_all_headings() {
    let output = run(onbytes(&["bench", "--help"]));
    assert_quiet(&output);
    let help = String::from_utf8(output.stdout).unwrap();
    for heading in ["Load:", "Messages:", "Report:", "TLS:", "Examples:", "Exit status:"] {
        assert!(help.contains(heading), "{heading}");
    }
}

#[test]
fn a_reader_that_has_gone_is_no_failure() {
    let server = Server::start(&["echo"]);
    let args = ["bench", "127.0.0.1", &server.port(), "--messages", "10", "--connections", "1"];
    let output = run(onbytes_in_shell("\"$@\" | true", &args));
    assert_quiet(&output);
    server.stop();
}
