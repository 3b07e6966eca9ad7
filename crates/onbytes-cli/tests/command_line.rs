//! What a wrong command line leads to: exit code 2 and one line that names the flag and
//! the way out. What lies outside the command line: exit code 1 and one line.

mod support;

use std::ffi::OsStr;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt;

use support::{Server, onbytes, onbytes_in_shell, one_line, run};

/// Asserts that `args` are refused and that the one line has `parts` in it.
#[track_caller]
fn refused(args: &[&str], parts: &[&str]) {
    let output = run(onbytes(args));
    let line = one_line(&output);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {line}");
    assert!(output.stdout.is_empty(), "{args:?}");
    for part in parts {
        assert!(line.contains(part), "{args:?}: {line}");
    }
}

#[test]
fn impossible_values_are_refused_by_flag_with_the_way_out() {
    let times = ["--idle-timeout", "--write-timeout", "--max-lifetime"];
    let bad_times = ["0", "-1", "-0.5", "nan", "NaN", "inf", "1e300", "1e-300", "", " ", "10s"];
    for flag in times {
        for value in bad_times {
            let parts = [flag, &format!("'{value}'"), "such as 10 or 0.5", "or off"];
            refused(&["serve", "echo", flag, value], &parts);
        }
        refused(&["serve", "echo", &format!("{flag}=-inf")], &[flag, "'-inf'"]);
    }
    for value in ["-1", "nan", "inf", "1e300", "", "off"] {
        let parts = ["--shutdown-timeout", "0 for none"];
        refused(&["serve", "echo", "--shutdown-timeout", value], &parts);
    }
    for value in ["0", "0.5", "32768", "-1", "nan", ""] {
        let parts = ["--keep-alive", "from 1 to 32767"];
        refused(&["serve", "echo", "--keep-alive", value], &parts);
    }
    for flag in ["--max-connections", "--workers", "--backlog"] {
        for value in ["0", "-1", "1.5", "1e3", "+1", "", "99999999999999999999", "many"] {
            let parts = [flag, &format!("'{value}'"), "a whole number from 1 to"];
            refused(&["serve", "echo", flag, value], &parts);
        }
    }
    refused(&["serve", "echo", "--workers", "all"], &["--workers", "1 to 1024, or auto"]);
    refused(&["serve", "echo", "--worker-model", "x"], &["--worker-model", "own or shared"]);
    for flag in ["--timeout", "--connect-timeout"] {
        refused(&["connect", flag, "0", "localhost", "1"], &[flag, "'0'", "or off"]);
    }
    refused(&["serve", "echo", "--when-full", "explode"], &["--when-full", "queue or refuse"]);
    refused(&["serve", "echo", "--log-format", "xml"], &["--log-format", "text or json"]);
}

/// Asserts that each of `values` is refused by the flag, in words that have the value and the way out.
#[track_caller]
fn all_refused(flag: &str, values: &[&str], way_out: &str) {
    for value in values {
        let parts = [flag, &format!("'{value}'"), way_out];
        refused(&["serve", "echo", &format!("{flag}={value}")], &parts);
    }
}

/// What is no number that any flag takes.
const NO_NUMBERS: [&str; 10] =
    ["", " ", "-1", "nan", "-inf", "many", "1e300", "99999999999999999999999", "+1", "0x10"];

#[test]
fn impossible_bounds_are_refused_by_flag_with_the_way_out() {
    for (flag, beyond, way_out) in [
        ("--max-handshakes", &["0", "4294967296", "off"][..], "from 1 to 4294967295"),
        ("--max-queued-bytes", &["0", "4G", "off", "1T"], "such as 16777216 or 16M"),
        ("--max-queued-bytes-total", &["0", "0K", "1.5M"], "(K, M, G), or off"),
        (
            "--max-memory",
            &["0", "1048575", "1023K", "99999999999G"],
            "1048576 to 18446744073709551615",
        ),
        ("--source-max-connections", &["0", "4294967296", "0.5"], "from 1 to 4294967295, or off"),
        ("--source-accept-rate", &["0", "0.0009", "1000001"], "such as 5 or 0.5, or off"),
        ("--source-accept-burst", &["0", "4294967296", "0.5"], "from 1 to 4294967295"),
        ("--source-ipv4-prefix", &["0", "33", "/24"], "from 1 to 32"),
        ("--source-ipv6-prefix", &["0", "129", "/64"], "from 1 to 128"),
        ("--send-buffer", &["0", "1073741825", "2G", "off"], "such as 16777216 or 16M"),
        ("--receive-buffer", &["0", "1073741825", "2G", "off"], "such as 16777216 or 16M"),
    ] {
        all_refused(flag, &NO_NUMBERS, way_out);
        all_refused(flag, beyond, way_out);
        // Not taken for a flag.
        refused(&["serve", "echo", flag, "-1"], &[flag, "'-1'", way_out]);
    }
}

#[test]
fn impossible_times_and_shares_are_refused_by_flag_with_the_way_out() {
    for (flag, beyond, way_out) in [
        ("--max-lifetime-jitter", &["-0.1", "1.1", "10%", "off"][..], "from 0 to 1"),
        ("--min-arrival", &["0", "100", "/", "0/10", "100/0", "1/-1", "-1/1"], "such as 100/10"),
        ("--min-arrival", &["100/10/1", "1/nan", "1/1e300", "4G/1", " 1/1"], "or off"),
        ("--keep-alive", &["0", "32768", "LAN", "lan,mobile"], "lan, mobile or off"),
        ("--keep-alive-interval", &["0", "0.5", "32768", "off", "lan"], "from 1 to 32767"),
        ("--keep-alive-probes", &["0", "128", "1.5", "off"], "from 1 to 127"),
        ("--user-timeout", &["0", "0.0009", "2147483.648"], "from 0.001 to 2147483.647, or off"),
    ] {
        all_refused(flag, &NO_NUMBERS, way_out);
        all_refused(flag, beyond, way_out);
        // Not taken for a flag.
        refused(&["serve", "echo", flag, "-1"], &[flag, "'-1'", way_out]);
    }
}

#[test]
fn impossible_blocks_of_addresses_are_refused_with_the_way_out() {
    let way_out = "give ADDRESS or ADDRESS/LENGTH";
    for flag in ["--allow", "--deny"] {
        all_refused(flag, &NO_NUMBERS, way_out);
        let bad = ["0", "localhost", "10.0.0", "010.0.0.1", "10.0.0.0/", "10.0.0.0/-1", "/8"];
        all_refused(flag, &bad, way_out);
        for value in ["10.0.0.0/33", "::/129"] {
            refused(&["serve", "echo", flag, value], &[flag, value, way_out]);
        }
        let value = "10.0.0.1/8";
        refused(&["serve", "echo", flag, value], &[flag, value, "write 10.0.0.0/8"]);
        // One of several.
        refused(&["serve", "echo", flag, "10.0.0.0/8,"], &[flag, "''", way_out]);
        refused(&["serve", "echo", flag, "::1,words"], &[flag, "'words'", way_out]);
    }
}

#[test]
fn flags_of_probes_are_refused_where_there_are_none() {
    for (flag, value) in
        [("--keep-alive-interval", "5"), ("--keep-alive-probes", "5"), ("--user-timeout", "5")]
    {
        let args = ["serve", "echo", "--keep-alive", "off", flag, value];
        refused(&args, &[flag, "--keep-alive off", "one of the two"]);
    }
}

#[test]
fn flags_that_would_do_nothing_are_refused() {
    for (flags, parts) in [
        (
            "--source-accept-burst 5",
            &["--source-accept-burst", "--source-accept-rate", "give both"][..],
        ),
        ("--max-lifetime-jitter 0.5", &["--max-lifetime-jitter", "--max-lifetime", "give both"]),
        ("--max-handshakes 5", &["--max-handshakes", "without TLS", "leave it out"]),
        (
            "--source-ipv4-prefix 24",
            &["--source-ipv4-prefix", "--source-max-connections", "give one"],
        ),
        ("--source-ipv6-prefix 48", &["--source-ipv6-prefix", "--source-accept-rate", "give one"]),
    ] {
        let args: Vec<_> = ["serve", "echo"].into_iter().chain(flags.split(' ')).collect();
        refused(&args, parts);
    }
}

#[test]
fn the_ends_of_every_range_are_possible() {
    for flags in [
        "--max-connections 1 --max-queued-bytes 1 --max-queued-bytes-total 1 \
         --max-memory 1M --source-max-connections 1 --source-accept-rate 0.001 \
         --source-accept-burst 1 --source-ipv4-prefix 1 --source-ipv6-prefix 1 --send-buffer 1 \
         --receive-buffer 1 --max-lifetime 1000 --max-lifetime-jitter 0 --min-arrival 1/0.001 --keep-alive 1 \
         --keep-alive-interval 1 --keep-alive-probes 1 --user-timeout 0.001 --allow 0.0.0.0/0 \
         --deny ::1/128",
        "--max-connections 4294967295 --max-queued-bytes 4294967295 \
         --max-queued-bytes-total 18446744073709551615 --max-memory 18446744073709551615 \
         --source-max-connections 4294967295 --source-accept-rate 1000000 \
         --source-accept-burst 4294967295 --source-ipv4-prefix 32 --source-ipv6-prefix 128 \
         --send-buffer 1G --receive-buffer 1G --max-lifetime 1000000000 --max-lifetime-jitter 1 \
         --min-arrival 4294967295/1000000000 --keep-alive 32767 --keep-alive-interval 32767 \
         --keep-alive-probes 127 --user-timeout 2147483.647 --allow ::/0,127.0.0.0/8 \
         --deny 10.0.0.0/8",
    ] {
        let flags: Vec<_> = flags.split_whitespace().collect();
        let server = Server::start(&[&["echo"], &flags[..]].concat());
        drop(server.connect());
        server.stop();
    }
}

#[test]
fn impossible_addresses_are_refused() {
    for value in ["", ":", "host:", ":80", "host:65536", "host:-1", "::1:80", "-1", "65536"] {
        let parts = ["--listen", "give HOST:PORT, [IPV6]:PORT or PORT"];
        refused(&["serve", "echo", "--listen", value], &parts);
    }
    let long = "a".repeat(5_000);
    let parts = ["--listen", "(5000 characters)", "253"];
    refused(&["serve", "echo", "--listen", &format!("{long}:80")], &parts);
    refused(&["serve", "echo", "--listen", "a\nb:80"], &["--listen", "control character"]);
    refused(&["connect", &long, "80"], &["HOST", "(5000 characters)"]);
    refused(&["connect", "", "80"], &["HOST", "is empty"]);
    refused(&["connect", "--local-host", "", "localhost", "80"], &["--local-host", "is empty"]);
    for port in ["0", "65536", "-1", "http", ""] {
        refused(&["connect", "localhost", port], &["PORT", "from 1 to 65535"]);
    }
}

#[test]
fn what_does_not_parse_is_refused_with_a_way_to_the_help() {
    let serve_help = "see onbytes serve --help";
    refused(&["serve"], &["missing SERVICE", serve_help]);
    refused(&["serve", "ecko"], &["'ecko'", "echo, discard or chat", serve_help]);
    refused(&["serve", "echo", "chat"], &["unknown argument 'chat'", serve_help]);
    refused(&["serve", "echo", "--frob"], &["unknown flag '--frob'", serve_help]);
    refused(&["serve", "echo", "--listn", "1"], &["'--listn'", "did you mean --listen?"]);
    refused(&["serve", "echo", "--listen"], &["--listen has no value", serve_help]);
    refused(&["serve", "echo", "--when-full"], &["--when-full has no value", "queue or refuse"]);
    refused(
        &["serve", "echo", "--idle-timeout", "--workers", "2"],
        &["--idle-timeout has no value"],
    );
    refused(&["serve", "echo", "--workers", "2", "--workers", "3"], &["--workers is given twice"]);
    refused(&["connect"], &["missing HOST and PORT", "see onbytes connect --help"]);
    refused(&["connect", "localhost"], &["missing PORT"]);
    refused(
        &["frob"],
        &[
            "unknown command 'frob'",
            "serve, connect, bench, framing or certs",
            "see onbytes --help",
        ],
    );
    refused(&["--frob"], &["unknown flag '--frob'"]);
    let long = "a".repeat(5_000);
    refused(&[&long], &["(5000 characters)"]);
    refused(&["serve", &long], &["(5000 characters)"]);
    refused(&["serve", "echo", &format!("--{long}")], &["(5002 characters)"]);
    refused(&["serve", "\u{1b}[31m\n"], &["\\u{1b}[31m\\n"]);
}

#[test]
fn an_argument_that_is_not_utf8_is_refused() {
    let mut command = onbytes(&["serve", "echo", "--listen"]);
    command.arg(OsStr::from_bytes(b"\xff\xfe:80"));
    let output = run(command);
    assert_eq!(output.status.code(), Some(2));
    assert!(one_line(&output).contains("argument 4"));
}

#[test]
fn without_arguments_the_help_is_shown_and_the_exit_code_is_2() {
    let output = run(onbytes(&[]));
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stdout).contains("Usage: onbytes"));
    assert!(one_line(&output).contains("give serve, connect, bench, framing or certs"));
}

#[test]
fn help_and_version_go_to_stdout_also_when_it_is_closed() {
    for args in [
        &["--help"][..],
        &["-h"],
        &["--version"],
        &["help", "serve"],
        &["serve", "--help"],
        &["connect", "-h"],
        &["certs", "--help"],
        &["framing", "--help"],
    ] {
        let output = run(onbytes(args));
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{args:?}");
        for line in ["exec \"$@\" >&-", "exec \"$@\" >/dev/full"] {
            let output = run(onbytes_in_shell(line, args));
            assert_eq!(output.status.code(), Some(0), "{args:?} {line}");
            assert!(output.stderr.is_empty(), "{args:?} {line}");
        }
    }
}

#[test]
fn the_help_of_serve_tells_every_flag_with_its_default() {
    let output = run(onbytes(&["serve", "--help"]));
    let help = String::from_utf8(output.stdout).unwrap();
    for heading in ["Listening:", "Limits:", "Timeouts:", "Logging:", "TLS (", "Chat:", "Examples:"]
    {
        assert!(help.contains(heading), "{heading}");
    }
    for flag in help.lines().filter(|line| line.trim_start().starts_with("--")) {
        let (_, description) = help.split_once(flag).unwrap();
        let end = description.find("\n      --").unwrap_or(description.len());
        // A line may be broken in the middle of it.
        let words: Vec<_> = description[..end].split_whitespace().collect();
        assert!(words.join(" ").contains("[default: "), "{flag}");
    }
}

#[test]
fn a_port_in_use_is_told_by_flag_and_address_with_exit_code_1() {
    let user = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = user.local_addr().unwrap().to_string();
    let output = run(onbytes(&["serve", "echo", "--listen", &address]));
    assert_eq!(output.status.code(), Some(1));
    let line = one_line(&output);
    for part in ["--listen", &address, "in use", "choose another"] {
        assert!(line.contains(part), "{line}");
    }
    assert!(output.stdout.is_empty());
}

#[test]
fn a_second_server_on_the_same_port_is_refused_and_the_first_goes_on() {
    let first = Server::start(&["echo"]);
    let address = first.addr.to_string();
    let output = run(onbytes(&["serve", "echo", "--listen", &address]));
    assert_eq!(output.status.code(), Some(1));
    one_line(&output);
    let mut peer = first.connect();
    peer.send("still here");
    peer.expect("still here");
    first.stop();
}

#[test]
fn a_host_that_is_unknown_is_told_with_exit_code_1() {
    for args in [
        &["serve", "echo", "--listen", "no-such-host.invalid:0"][..],
        &["connect", "no-such-host.invalid", "80"],
    ] {
        let output = run(onbytes(args));
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert!(one_line(&output).contains("no-such-host.invalid"));
    }
}

#[test]
fn an_address_of_another_machine_is_told_with_exit_code_1() {
    let output = run(onbytes(&["serve", "echo", "--listen", "203.0.113.1:0"]));
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("no interface here has that address"));
}
