//! `onbytes framing`, and `--framing` of `serve` and `connect`.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::process::{Output, Stdio};
use std::str::FromStr;

use onbytes::Framing;
use rustix::net::{AddressFamily, SocketType};
use support::tls::{CERT, Folder};
use support::{
    Server, assert_quiet, client, finish, onbytes, onbytes_in_shell, one_line, run, serve_one, text,
};

/// What the program prints, which goes well.
#[track_caller]
fn printed(args: &[&str]) -> String {
    let output = run(onbytes(args));
    assert_quiet(&output);
    String::from_utf8(output.stdout).unwrap()
}

/// What the program prints when `input` is its stdin.
fn piped(args: &[&str], input: &[u8]) -> Output {
    let mut child = onbytes(args).stdin(Stdio::piped()).spawn().unwrap();
    // It may have ended by now.
    let _ = child.stdin.take().unwrap().write_all(input);
    finish(child)
}

/// Asserts how a run ends, and that its one line has `parts` in it.
#[track_caller]
fn assert_fails(output: &Output, code: i32, parts: &[&str]) {
    let line = one_line(output);
    assert_eq!(output.status.code(), Some(code), "{line}");
    for part in parts {
        assert!(line.contains(part), "{line}");
    }
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

// ---- The table ----

/// A row: the form, the message as it is shown, and the frame.
struct Row {
    form: String,
    message: String,
    frame: String,
}

fn rows(table: &str) -> Vec<Row> {
    let rows = table.lines().skip(1).filter_map(|line| line.split_once(" -> "));
    rows.map(|(before, frame)| {
        let (form, rest) = before.trim_start().split_once("  ").unwrap();
        let (_, message) = rest.rsplit_once("  ").unwrap();
        Row { form: form.into(), message: message.into(), frame: frame.into() }
    })
    .collect()
}

#[test]
fn every_form_of_the_table_is_taken_and_finds_the_message_in_the_frame_beside_it() {
    let rows = rows(&printed(&["framing"]));
    assert!(rows.len() > 35, "only {} rows", rows.len());
    // A port that is taken, and on which nobody listens.
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = TcpListener::from(socket.try_clone().unwrap()).local_addr().unwrap().port();
    for Row { form, message, frame } in &rows {
        Framing::from_str(form).unwrap_or_else(|error| panic!("{form}: {error}"));
        let (show, message) = match message.strip_prefix("0x") {
            Some(hex) => ("hex", hex),
            None => ("text", &**message),
        };
        let shown = printed(&["framing", form, frame, "--show", show]);
        let expected = format!("  frame      {message}\n");
        let (places, _) = shown.split_once(&expected).unwrap_or_else(|| panic!("{form}: {shown}"));
        assert!(places.ends_with(&(frame.len() / 2).to_string()), "{form}: {shown}");
        let encoded = printed(&["framing", form, "--encode", "--show", show, "--", message]);
        assert_eq!(encoded, format!("{frame}\n"), "{form}");

        let connect = ["connect", "--framing", form, "127.0.0.1", &port.to_string()];
        assert_fails(&run(onbytes(&connect)), 1, &["refused"]);
    }
}

#[test]
fn the_table_has_every_protocol_and_form_in_its_group_and_fits_a_hundred_columns() {
    let table = printed(&["framing"]);
    for line in table.lines() {
        assert!(line.chars().count() <= 100, "{line}");
        assert!(line.is_ascii() && line.trim_end() == line, "{line}");
    }
    let headings: Vec<_> =
        table.lines().skip(1).filter(|line| line.starts_with(char::is_alphabetic)).collect();
    let groups = ["Protocols", "Text", "Marks", "Lengths", "Serial lines"];
    assert_eq!(headings[..5], groups);
    assert!(headings[5].starts_with("Rules, ") && headings[6] == "Use:", "{headings:?}");

    // What the library tells of itself where a form is unknown.
    let error = Framing::from_str("?").unwrap_err().to_string();
    let (_, names) = error.split_once("give ").unwrap();
    let names = names.replace("or a protocol: ", "");
    let rows = rows(&table);
    for name in names.split(", ") {
        let (name, _) = name.split_once(':').unwrap_or((name, ""));
        let is_it = |row: &Row| row.form.split([':', ',']).next() == Some(name);
        assert!(rows.iter().any(is_it), "{name} is missing");
    }
    for variant in ["inclusive", "ascii", "bcd", "visa", "u32"] {
        assert!(rows.iter().any(|row| row.form == format!("iso8583:{variant}")), "{variant}");
    }
    for rule in ["max=SIZE", "oversize=close|skip|truncate", "malformed=", "partial=", "timeout="] {
        assert!(table.contains(&format!("\n  {rule}")), "{rule}");
    }
    for default in [" 1M ", " 60 ", " report ", "mllp 16M", "syslog 64K", "modbus-tcp 260"] {
        assert!(table.contains(default), "{default}");
    }
}

#[test]
fn the_table_goes_to_a_reader_that_has_gone_and_not_to_a_disk_that_is_full() {
    let output = run(onbytes_in_shell("exec \"$@\" >&-", &["framing"]));
    assert_quiet(&output);
    let output = run(onbytes_in_shell("exec \"$@\" >/dev/full", &["framing"]));
    assert_fails(&output, 1, &["cannot write to stdout"]);
}

// ---- One form ----

#[test]
fn a_form_is_told_with_its_text_its_rules_and_an_example() {
    for (form, parts) in [
        (
            "mllp",
            &[
                "block:0b:1c,tail=0d,restart,max=16M\n  mllp: HL7 v2",
                "  max        16M ",
                "  oversize   close ",
                "  malformed  close ",
                "  partial    report ",
                "  timeout    60 ",
                "  message    hello\n  frame      0b68656c6c6f1c0d\n",
            ][..],
        ),
        (
            "slip, max=3, oversize=truncate, malformed=skip, partial=deliver, timeout=off",
            &[
                "slip,max=3,oversize=truncate,malformed=skip,partial=deliver,timeout=off\n  slip: ",
                "  max        3 ",
                "  oversize   truncate ",
                "  malformed  skip ",
                "  partial    deliver ",
                "  timeout    off ",
                "  message    hi\n  frame      c06869c0\n",
            ],
        ),
        ("fixed:2000", &["fixed:2000\n", "no short message"]),
        ("len:u16be", &["len:u16be\n", "  iso8583: ISO 8583", "  len:u16be: 2 bytes"]),
    ] {
        let told = printed(&["framing", form]);
        for part in parts {
            assert!(told.contains(part), "{form}: {part:?} is not in {told}");
        }
    }
    let told = printed(&["framing", "lines", "--show", "hex"]);
    assert!(told.contains("  message    68656c6c6f\n"), "{told}");
}

#[test]
fn captured_bytes_may_be_written_in_every_usual_way() {
    let expected = "0 4  frame      hi\n4 9  frame      abc\n";
    for words in
        ["00 02 68 69 00 03 61 62 63", "000268690003616263", "0x0002,0x6869 00:03:61:62:63"]
    {
        let words: Vec<_> = words.split(' ').collect();
        let args = [&["framing", "len:u16be"], &words[..]].concat();
        assert_eq!(printed(&args), expected, "{words:?}");
    }
    let output = piped(&["framing", "len:u16be", "-"], b"00:02:68\n:69\r\n 0003\n616263\n");
    assert_quiet(&output);
    assert_eq!(stdout(&output), expected);
    assert_eq!(
        printed(&["framing", "len:u16be", "0002 fF0a", "--show", "hex"]),
        "0 4  frame      ff0a\n"
    );
    assert_eq!(printed(&["framing", "len:u16be", "0002 fF0a"]), "0 4  frame      \\xff\\n\n");
    assert_eq!(printed(&["framing", "len:u16be", ""]), "");
}

#[test]
fn what_is_skipped_dropped_or_cut_is_shown_in_its_place() {
    for (form, bytes, expected) in [
        (
            "mllp",
            "6a 0b41 1c0d 0a 0b42 1c 0b43 1c0d",
            " 0  1  skipped    j\n 1  5  frame      A\n 5  6  skipped    \\n\n \
             6  9  frame      B\n 9 13  frame      C\n",
        ),
        (
            "syslog",
            "3220 6869 0d0a 3c313e 0a",
            " 0  4  frame      hi\n 4  6  skipped    \\r\\n\n 6 10  frame      <1>\n",
        ),
        (
            "cobs,max=3,oversize=skip",
            "0000 0261026200 056162636400 0261 00",
            " 2  7  frame      a\\x00b\n 7 13  dropped    \\x05abcd\\x00\n13 16  frame      a\n",
        ),
        (
            "slip,malformed=skip",
            "c0 61 c0 c0 db00 41 c0 c0 42 c0",
            " 1  3  frame      a\n 4  8  dropped    \\xdb\\x00A\\xc0\n 9 11  frame      B\n",
        ),
        (
            "block:02:03,escape=1b,malformed=skip",
            "02 41 02 42 03 55",
            "0 2  dropped    \\x02A\n2 5  frame      B\n5 6  skipped    U\n",
        ),
        (
            "block:1002:1003,escape=10,malformed=skip",
            "1002 41 1002 10 10 1003",
            "0 3  dropped    \\x10\\x02A\n3 9  frame      \\x10\n",
        ),
        (
            "block:7e:7e,escape=7d^20",
            "7e7e 7d5e 7e 41 7e",
            "2 5  frame      ~\n5 7  frame      A\n",
        ),
        (
            "len:u8,max=2,oversize=truncate",
            "03616263 0161",
            "0 4  truncated  ab\n4 6  frame      a\n",
        ),
        ("lines,partial=deliver", "61 0d0a 62", "0 3  frame      a\n3 4  partial    b\n"),
        ("block:0203:03", "02 02 0203 41 03", "0 2  skipped    \\x02\\x02\n2 6  frame      A\n"),
        ("lines", "0a 20 0a", "0 1  frame      \n1 3  frame       \n"),
    ] {
        assert_eq!(printed(&["framing", form, bytes]), expected, "{form}");
    }
}

#[test]
fn bytes_that_do_not_fit_are_told_with_the_frames_before_and_exit_code_1() {
    for (form, bytes, expected, parts) in [
        (
            "len:u16be",
            "0002 6869 0005 61",
            "0 4  frame      hi\n4 7  left over  \\x00\\x05a\n",
            &["ended within a frame"][..],
        ),
        (
            "len:u16be,max=10",
            "0002 6869 7f03 616263",
            "0 4  frame      hi\n4 9  not read   \\x7f\\x03abc\n",
            &["at byte 5", "10 is the most"],
        ),
        (
            "netstring",
            "323a68692c 78",
            "0 5  frame      hi\n5 6  not read   x\n",
            &["at byte 5", "'x'"],
        ),
        (
            "block:02:03,outside=malformed",
            "0241 03 58 0242 03",
            "0 3  frame      A\n3 7  not read   X\\x02B\\x03\n",
            &["at byte 3", "0x58"],
        ),
    ] {
        let output = run(onbytes(&["framing", form, bytes]));
        assert_eq!(stdout(&output), expected, "{form}");
        assert_fails(&output, 1, parts);
    }
    // Of what is no frame only the beginning is shown.
    let output = run(onbytes(&["framing", "delim:00", &"61".repeat(1000)]));
    assert!(stdout(&output).ends_with("a… (1000 bytes)\n") && output.stdout.len() < 150);
}

#[test]
fn messages_are_encoded_from_arguments_and_from_lines() {
    let args = ["framing", "--encode", "mllp", "MSH|one\\r", "", "\\x5c-"];
    assert_eq!(printed(&args), "0b4d53487c6f6e650d1c0d\n0b1c0d\n0b5c2d1c0d\n");
    let args = ["framing", "len:u8", "--encode", "--show", "hex", "00 ff", ""];
    assert_eq!(printed(&args), "0200ff\n00\n");
    let output = piped(&["framing", "len:u8", "--encode", "-"], b"hi\n\nno end");
    assert_quiet(&output);
    assert_eq!(stdout(&output), "026869\n00\n066e6f20656e64\n");
    let output = piped(&["framing", "len:u8", "--encode", "-"], b"");
    assert_quiet(&output);
    assert_eq!(stdout(&output), "");

    let output = run(onbytes(&["framing", "stx-etx", "--encode", "ok", "a\\x03"]));
    assert_fails(&output, 1, &["message 2", "at byte 1", "ends a frame"]);
    assert_eq!(stdout(&output), "026f6b03\n");
    let output = piped(&["framing", "stx-etx", "--encode", "-"], b"ok\n\\q\n");
    assert_fails(&output, 1, &["line 2", "'\\q'"]);
}

#[test]
fn a_wrong_command_line_is_told_in_one_line_with_exit_code_2() {
    let forms = ["unknown form", "lines, delim:HEX", "mllp, iso8583", "see onbytes framing"];
    for args in [
        &["framing", "linez"][..],
        &["serve", "echo", "--framing", "linez"],
        &["connect", "--framing", "linez", "localhost", "1"],
        &["connect", "--framing", "a\nb\u{1b}", "localhost", "1"],
        &["connect", "--framing", "", "localhost", "1"],
    ] {
        let name =
            if args[0] == "framing" { "onbytes: FORM: unknown" } else { "--framing: unknown" };
        assert_fails(&run(onbytes(args)), 2, &[&[name], &forms[..]].concat());
    }
    for (args, parts) in [
        ("serve echo --framing mllp,max=0", &["--framing: max_frame", "see onbytes framing"][..]),
        ("serve discard --framing lines,tail=0d", &["--framing: ", "'tail=0d'", "keep, max"]),
        ("serve echo --framing", &["--framing has no value"]),
        ("serve chat --framing lines", &["--framing", "chat has lines of its own", "leave it out"]),
        ("connect --show hex localhost 1", &["--show", "without --framing", "give both"]),
        ("connect --framing lines --show octal localhost 1", &["--show", "'octal'", "text or hex"]),
        ("framing --encode", &["--encode", "FORM"]),
        ("framing --encode mllp", &["--encode", "no message"]),
        ("framing --encode mllp \\q", &["message 1", "'\\q' at column 1", "\\xNN"]),
        ("framing mllp 0b4", &["BYTES", "'0b4'", "two digits for each byte"]),
        ("framing mllp 0b --frob", &["'--frob'", "see onbytes framing --help"]),
    ] {
        let args: Vec<_> = args.split(' ').collect();
        assert_fails(&run(onbytes(&args)), 2, parts);
    }
    let long = "z".repeat(5_000);
    assert_fails(&run(onbytes(&["framing", "mllp", &long])), 2, &["(5000 characters)"]);
    assert_fails(&run(onbytes(&["framing", &long])), 2, &["unknown form"]);
    assert_fails(&piped(&["framing", "mllp", "-"], b"0b\nxy"), 1, &["stdin: 'xy'"]);
}

// ---- Servers ----

#[test]
fn echo_sends_each_frame_back_as_one_also_when_it_comes_byte_by_byte() {
    let server = Server::start(&["echo", "--framing", "mllp"]);
    let mut peer = server.connect();
    // What is between frames does not come back, and what is missing is added.
    for byte in b"noise\x0bMSH|one\x1c\x0b\x1c\x0d\x0d\x0bMSH|two\x1c\x0d" {
        peer.send([*byte]);
    }
    peer.expect("\x0bMSH|one\x1c\x0d\x0b\x1c\x0d\x0bMSH|two\x1c\x0d");
    peer.finish();
    assert!(peer.rest().is_empty());
    server.stop();
}

#[test]
fn echo_keeps_frames_apart_that_come_together() {
    let server = Server::start(&["echo", "--framing", "lines:crlf,max=10,oversize=skip"]);
    let mut peer = server.connect();
    peer.send("one\ntwo\r\n\nthis is too long\nthree\n");
    peer.expect("one\r\ntwo\r\n\r\nthree\r\n");
    peer.finish();
    assert!(peer.rest().is_empty());
    server.stop();
}

#[test]
fn a_peer_that_does_not_keep_to_the_form_is_left_and_the_others_are_served() {
    for (framing, bytes, ends, reason) in [
        ("len:u16be,max=100", &b"\x00\x65"[..], false, "frame_too_long"),
        ("netstring", b"x", false, "frame_malformed"),
        ("lines", b"half", true, "partial_frame"),
        ("lines,timeout=0.05", b"half", false, "frame_timeout"),
    ] {
        for service in ["echo", "discard"] {
            let server = Server::logging(&[service, "--framing", framing]);
            let mut peer = server.connect();
            peer.send(bytes);
            if ends {
                peer.finish();
            }
            assert!(peer.rest().is_empty(), "{framing}");
            drop(peer);
            assert_eq!(text(&server.closed(), "reason"), reason, "{framing}");
            server.connect();
            server.stop();
        }
    }
}

#[test]
fn discard_takes_frames_and_sends_none() {
    let server = Server::logging(&["discard", "--framing", "len:u8"]);
    let mut peer = server.connect();
    peer.send(b"\x02hi\x00\x03abc");
    peer.finish();
    assert!(peer.rest().is_empty());
    assert_eq!(support::count(&server.closed(), "chunks_received"), 3);
    server.stop();
}

// ---- The client ----

/// Connects to a server that sends `bytes`, reads until our end and goes; returns what it has read, too.
fn fed(args: &[&str], bytes: &[u8], input: &[u8]) -> (Output, Vec<u8>) {
    let bytes = bytes.to_vec();
    let (port, serving) = serve_one(move |mut stream| {
        let mut read = Vec::new();
        stream.read_to_end(&mut read).unwrap();
        // It may have gone because of what it was sent.
        let _ = stream.write_all(&bytes);
        read
    });
    let port = port.to_string();
    let output = piped(&[&["connect"], args, &["127.0.0.1", &port]].concat(), input);
    (output, serving.join().unwrap())
}

#[test]
fn each_line_is_sent_as_one_frame_and_each_frame_is_printed_as_one_line() {
    let (output, read) = fed(
        &["--framing", "mllp"],
        b"\x0bMSH|a\rPID|b\r\x1c\x0d\x0b\xff\x07\\\tend\x1c\x0d\x0b\x1c\x0d",
        b"MSH|one\\rPID|two\\r\n\nraw \xff, \\x0d and \\\\r\nno end",
    );
    assert_quiet(&output);
    assert_eq!(stdout(&output), "MSH|a\\rPID|b\\r\n\\xff\\x07\\\\\\tend\n\n");
    let expected = b"\x0bMSH|one\rPID|two\r\x1c\x0d\x0b\x1c\x0d\
        \x0braw \xff, \r and \\r\x1c\x0d\x0bno end\x1c\x0d";
    assert_eq!(read, expected);
}

#[test]
fn in_hexadecimal_lines_may_have_spaces_and_what_is_printed_has_none() {
    let (output, read) = fed(
        &["--framing", "len:u16be", "--show", "hex"],
        b"\x00\x03a\xff\x00\x00\x00",
        b"00 ff  0A\r\n\n 41 42",
    );
    assert_quiet(&output);
    assert_eq!(stdout(&output), "61ff00\n\n");
    assert_eq!(read, b"\x00\x03\x00\xff\x0a\x00\x00\x00\x02AB");
}

#[test]
fn what_is_printed_can_be_piped_in_again() {
    let framing: Framing = "len:u16le".parse().unwrap();
    let all: Vec<u8> = (0..=u8::MAX).collect();
    let mut messages: Vec<Vec<u8>> = all.iter().map(|byte| vec![*byte]).collect();
    messages.extend([all.clone(), [&all[..], &all].concat(), Vec::new()]);
    messages.push("\u{9b}ä\u{2028}€\u{202e}\u{10ffff}\\x41".as_bytes().to_vec());
    let frames: Vec<u8> = messages.iter().flat_map(|it| framing.encode(it).unwrap()).collect();
    for show in ["text", "hex"] {
        let args = ["--framing", "len:u16le", "--show", show];
        let (output, _) = fed(&args, &frames, b"");
        assert_quiet(&output);
        let lines = stdout(&output).to_owned();
        assert_eq!(lines.matches('\n').count(), messages.len(), "{show}");
        assert!(!lines.replace('\n', "").contains(char::is_control), "{show}");
        let (output, read) = fed(&args, b"", lines.as_bytes());
        assert_quiet(&output);
        assert!(read == frames, "{show}: other frames were sent");
        // Also through a server.
        let server = Server::start(&["echo", "--framing", "len:u16le"]);
        let port = server.port();
        let args = [&["connect"], &args[..], &["127.0.0.1", &port]].concat();
        let output = piped(&args, lines.as_bytes());
        assert_quiet(&output);
        assert!(stdout(&output) == lines, "{show}: other frames came back");
        server.stop();
    }
}

#[test]
fn a_frame_is_printed_at_once_and_when_its_last_byte_has_come() {
    let (port, serving) = serve_one(|mut stream| {
        let mut line = [0; 4];
        for _ in 0..3 {
            stream.read_exact(&mut line).unwrap();
            assert_eq!(&line, b"\x03ask");
            for byte in b"\x06answer" {
                stream.write_all(&[*byte]).unwrap();
            }
        }
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    let mut child = client(&["--framing", "len:u8"], port);
    let (mut stdin, mut stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    for _ in 0..3 {
        stdin.write_all(b"ask\n").unwrap();
        let mut answer = [0; 7];
        stdout.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"answer\n");
    }
    drop(stdin);
    assert_quiet(&finish(child));
    serving.join().unwrap();
}

#[test]
fn a_server_that_ends_first_ends_the_client_though_stdin_is_open() {
    let (port, serving) = serve_one(|mut stream| stream.write_all(b"bye\r\n").unwrap());
    let mut child = client(&["--framing", "lines"], port);
    let stdin = child.stdin.take();
    let output = finish(child);
    assert_quiet(&output);
    assert_eq!(stdout(&output), "bye\n");
    drop(stdin);
    serving.join().unwrap();
}

#[test]
fn a_frame_that_is_not_whole_is_printed_and_a_note_on_stderr_says_so() {
    for (framing, bytes, printed, note) in [
        (
            "len:u8,max=4,oversize=truncate",
            &b"\x02hi\x06abcdef\x01x"[..],
            "hi\nabcd\nx\n",
            "frame 2 is cut: the first 4 of its 6 bytes are shown",
        ),
        ("lines,partial=deliver", b"one\nha", "one\nha\n", "frame 2 is not whole"),
    ] {
        let (output, _) = fed(&["--framing", framing], bytes, b"");
        assert_eq!((output.status.code(), stdout(&output)), (Some(0), printed));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(note) && told.lines().count() == 1, "{told}");
    }
}

#[test]
fn what_is_no_frame_from_the_server_is_told_in_one_line_with_exit_code_1() {
    for (framing, bytes, printed, parts) in [
        (
            "len:u16be,max=100",
            &b"\x00\x02hi\xff\xff"[..],
            "hi\n",
            &["65535 bytes where 100 is the most", "max and oversize in --framing"][..],
        ),
        ("lines,max=10", &[b'x'; 1000], "", &["10 is the most", "max and oversize"]),
        ("netstring", b"2:hi,oops", "hi\n", &["'o'", "the form that the server uses?"]),
        ("mllp", b"\x0bhi\x1c\x0d\x0bha", "hi\n", &["ended within a frame", "see onbytes framing"]),
        ("mllp", b"\x0b", "", &["ended within a frame"]),
    ] {
        let (output, _) = fed(&["--framing", framing], bytes, b"");
        assert_eq!(stdout(&output), printed, "{framing}");
        assert_fails(&output, 1, &[&["connection to 127.0.0.1:"], parts].concat());
    }
}

#[test]
fn a_frame_that_does_not_become_complete_is_given_up() {
    let (port, serving) = serve_one(|mut stream| {
        stream.write_all(b"half").unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let mut child = client(&["--framing", "lines,timeout=0.05"], port);
    let stdin = child.stdin.take();
    let output = finish(child);
    assert_fails(&output, 1, &["4 bytes of it came", "not complete in 50ms"]);
    drop(stdin);
    serving.join().unwrap();
}

#[test]
fn a_line_that_is_no_frame_is_told_by_number_with_exit_code_1() {
    for (args, input, parts) in [
        ("lines", &b"one\ntwo\n\\q\nfour\n"[..], &["line 3 of stdin", "'\\q' at column 1"][..]),
        ("lines --show hex", b"00\n0\n", &["line 2 of stdin", "'0'", "two digits"]),
        ("lines --show hex", b"text", &["line 1 of stdin", "'text'"]),
        ("delim:2c", b"ab\na,b\n", &["line 2 of stdin", "at byte 1 it holds the delimiter"]),
        ("stx-etx", b"\\x03\n", &["line 1 of stdin", "what begins or ends a frame"]),
        ("len:u8", &[b'x'; 256], &["line 1 of stdin", "a message of 256 bytes"]),
        ("fixed:3", b"abc\n\n", &["line 2 of stdin", "0 bytes where a frame has 3"]),
        ("octets", b"\n", &["line 1 of stdin", "an empty message"]),
    ] {
        let flags: Vec<_> = args.split(' ').collect();
        let server = Server::start(&["discard"]);
        let port = server.port();
        let command = [&["connect", "--framing"], &flags[..], &["127.0.0.1", &port]].concat();
        assert_fails(&piped(&command, input), 1, parts);
        server.stop();
    }
}

#[test]
fn a_line_without_an_end_does_not_fill_the_memory() {
    let line = vec![b'x'; 16 * 1024 * 1024 + 1];
    let server = Server::start(&["discard"]);
    let port = server.port();
    let connect = |framing| piped(&["connect", "--framing", framing, "127.0.0.1", &port], &line);
    assert_fails(&connect("lines"), 1, &["line 1 of stdin", "16777216 bytes", "greater max"]);
    assert_quiet(&connect("lines,max=5M"));
    server.stop();
}

#[test]
fn frames_go_through_tls() {
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(&format!("{CERT} --framing lines:crlf"));
    let line = format!("connect localhost {} --tls --cert cert.pem --framing cobs", server.port());
    // The server knows another form: what it sends back is no frame of this one.
    let args: Vec<_> = line.split(' ').collect();
    let mut child = folder.onbytes(&args).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"a\\nb\n").unwrap();
    let output = finish(child);
    assert_eq!(output.status.code(), Some(1), "{output:?}");

    let line = line.replace("cobs", "mllp");
    let mllp = folder.serve(&format!("{CERT} --framing mllp"));
    let line = line.replace(&server.port(), &mllp.port());
    let args: Vec<_> = line.split(' ').collect();
    let mut child = folder.onbytes(&args).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"MSH|one\\r\n\nMSH|two\\r").unwrap();
    let output = finish(child);
    assert_quiet(&output);
    assert_eq!(stdout(&output), "MSH|one\\r\n\nMSH|two\\r\n");
    assert_eq!(support::count(&mllp.closed(), "chunks_received"), 3);
    mllp.stop();
    server.stop();
}

#[test]
fn without_a_framing_bytes_go_through_as_they_are() {
    let (output, read) = fed(&[], b"\\x41\r\n\xff", b"\\x42\nno end");
    assert_quiet(&output);
    assert_eq!((&output.stdout[..], &read[..]), (&b"\\x41\r\n\xff"[..], &b"\\x42\nno end"[..]));
}

#[test]
fn the_helps_tell_of_framing() {
    for (args, parts) in [
        (&["--help"][..], &["framing  ", "onbytes framing"][..]),
        (&["serve", "--help"], &["--framing <FORM>", "onbytes serve echo --framing mllp"]),
        (
            &["connect", "--help"],
            &["--framing <FORM>", "--show <HOW>", "--framing len:u16be --show hex"],
        ),
        (&["framing", "--help"], &["[FORM]", "[BYTES]", "--encode", "--show <HOW>"]),
    ] {
        let help = printed(args);
        for part in parts {
            assert!(help.contains(part), "{args:?}: {part}");
        }
    }
}
