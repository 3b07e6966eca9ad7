//! The first signal stops a server gracefully, the second one at once; either way it exits with 0.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::thread;
use std::time::Duration;

use support::{Server, Signal, onbytes, signal};

/// A server that logs every connection as JSON.
fn server(args: &[&str]) -> Server {
    let logging = ["--listen", "127.0.0.1:0", "--log-format", "json"];
    let mut command = onbytes(&[&["serve"], args, &logging].concat());
    command.env("RUST_LOG", "debug");
    Server::ready(command)
}

/// The value of a field of a log line.
fn field(line: &str, name: &str) -> u64 {
    let line: serde_json::Value = serde_json::from_str(line).unwrap();
    line["fields"][name].as_u64().unwrap_or_else(|| panic!("{name} is not in {line}"))
}

#[test]
fn either_signal_stops_an_idle_server() {
    for number in [Signal::TERM, Signal::INT] {
        let mut server = server(&["echo"]);
        let mut peer = server.connect();
        peer.send("x");
        peer.expect("x");
        server.signal(number);
        assert!(peer.rest().is_empty(), "the peer sees an end, not a reset");
        assert_eq!(server.exit_code(), Some(0));
        let stopped = server.log().find(r#""event":"stopped""#);
        assert_eq!((field(&stopped, "clean"), field(&stopped, "forced")), (1, 0));
    }
}

#[test]
fn replies_in_flight_survive_a_graceful_stop() {
    let mut server = server(&["echo"]);
    let mut peer = server.connect();
    let mut sender = peer.stream.get_ref().try_clone().unwrap();
    // Less than the server discards behind its end before it loses patience and resets.
    let sending = thread::spawn(move || sender.write_all(&[1; 768 * 1024]));
    peer.expect([1]);
    server.signal(Signal::TERM);
    server.log().find(r#""event":"stopping""#);
    // What the server had read when it closed is answered to the last byte, and then comes FIN.
    let received = 1 + peer.rest().len() as u64;
    let closed = server.log().find(r#""event":"closed""#);
    assert_eq!(field(&closed, "bytes_received"), field(&closed, "bytes_sent"));
    assert_eq!(field(&closed, "bytes_unsent"), 0);
    assert_eq!(received, field(&closed, "bytes_sent"));
    sending.join().unwrap().unwrap();
    drop(peer);
    assert_eq!(server.exit_code(), Some(0));
}

/// A peer that has sent until nothing moved any more, and has read nothing.
fn stuck_peer(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.addr).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(1))).unwrap();
    let data = vec![1; 1024 * 1024];
    while stream.write(&data).is_ok() {}
    stream.set_read_timeout(Some(support::WATCHDOG)).unwrap();
    stream
}

/// How a stream ends, after whatever else comes.
fn ending(mut stream: TcpStream) -> Option<ErrorKind> {
    stream.read_to_end(&mut Vec::new()).err().map(|error| error.kind())
}

#[test]
fn a_second_signal_cuts_off_what_does_not_end() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let times = ["--write-timeout", "off", "--shutdown-timeout", "1000"];
        let mut server = server(&[&["echo"][..], &times].concat());
        let stuck = stuck_peer(&server);
        server.signal(first);
        server.log().find(r#""event":"stopping""#);
        assert!(TcpStream::connect(server.addr).is_err(), "the port is still open");
        server.signal(second);
        assert_eq!(server.exit_code(), Some(0));
        let stopped = server.log().find(r#""event":"stopped""#);
        assert_eq!((field(&stopped, "clean"), field(&stopped, "forced")), (0, 1));
        assert_eq!(ending(stuck), Some(ErrorKind::ConnectionReset));
    }
}

#[test]
fn the_shutdown_timeout_cuts_off_what_does_not_end() {
    let times = ["--write-timeout", "off", "--shutdown-timeout", "0.1"];
    let mut server = server(&[&["echo"][..], &times].concat());
    let stuck = stuck_peer(&server);
    server.signal(Signal::TERM);
    assert_eq!(server.exit_code(), Some(0));
    assert_eq!(ending(stuck), Some(ErrorKind::ConnectionReset));
}

#[test]
fn ctrl_c_ends_a_client_with_130() {
    let server = Server::start(&["echo"]);
    let mut command = onbytes(&["connect", "127.0.0.1", &server.port()]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    // An answer shows that it has come as far as hearing signals.
    child.stdin.as_ref().unwrap().write_all(b"x").unwrap();
    let mut byte = [0];
    child.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    let stdin = child.stdin.take();
    signal(child.id(), Signal::INT);
    let output = support::finish(child);
    assert_eq!(output.status.code(), Some(130));
    assert!(output.stderr.is_empty());
    drop(stdin);
    server.stop();
}
