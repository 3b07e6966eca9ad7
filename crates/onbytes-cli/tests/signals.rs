//! The first signal stops a server gracefully, the second one at once; either way it exits with 0.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::Stdio;
use std::thread;

use support::{Peer, Server, Signal, count, onbytes, signal};

#[test]
fn either_signal_stops_an_idle_server() {
    for number in [Signal::TERM, Signal::INT] {
        let mut server = Server::logging(&["echo"]);
        let mut peer = server.connect();
        peer.send("x");
        peer.expect("x");
        server.signal(number);
        assert!(peer.rest().is_empty(), "the peer sees an end, not a reset");
        drop(peer);
        assert_eq!(server.exit_code(), Some(0));
        let stopped = server.log().find(r#""event":"stopped""#);
        assert_eq!((count(&stopped, "clean"), count(&stopped, "forced")), (1, 0));
    }
}

#[test]
fn replies_in_flight_survive_a_graceful_stop() {
    let mut server = Server::logging(&["echo"]);
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
    assert_eq!(count(&closed, "bytes_received"), count(&closed, "bytes_sent"));
    assert_eq!(count(&closed, "bytes_unsent"), 0);
    assert_eq!(received, count(&closed, "bytes_sent"));
    sending.join().unwrap().unwrap();
    drop(peer);
    assert_eq!(server.exit_code(), Some(0));
}

/// A peer that has sent until nothing moved any more, and has read nothing.
fn stuck_peer(server: &Server) -> Peer {
    let mut peer = server.connect();
    peer.send_until_stuck(256 << 20);
    peer
}

#[test]
fn a_second_signal_cuts_off_what_does_not_end() {
    for (first, second) in [(Signal::TERM, Signal::TERM), (Signal::INT, Signal::TERM)] {
        let times = ["--write-timeout", "off", "--shutdown-timeout", "1000"];
        let mut server = Server::logging(&[&["echo"][..], &times].concat());
        let mut stuck = stuck_peer(&server);
        server.signal(first);
        server.log().find(r#""event":"stopping""#);
        assert!(TcpStream::connect(server.addr).is_err(), "the port is still open");
        server.signal(second);
        assert_eq!(server.exit_code(), Some(0));
        let stopped = server.log().find(r#""event":"stopped""#);
        assert_eq!((count(&stopped, "clean"), count(&stopped, "forced")), (0, 1));
        assert_eq!(stuck.ending(), Some(ErrorKind::ConnectionReset));
    }
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
