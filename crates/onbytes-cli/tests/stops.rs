//! What a stop means for peers in every state: those who mean well get what is due to them, nobody
//! holds it up for longer than the flags say, and it ends with exit code 0.

mod support;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, Stdio};
use std::thread;

use support::tls::{CERT, Folder};
use support::{
    Peer, Server, Signal, assert_pattern, count, finish, onbytes, pattern, signal, until,
};

/// Waits for the end of a server that has been told to stop: how many of its connections ended in
/// order, and how many were cut off.
#[track_caller]
fn report(mut server: Server) -> (u64, u64) {
    let stopped = server.log().find(r#""event":"stopped""#);
    assert_eq!(server.exit_code(), Some(0));
    assert_eq!(count(&stopped, "abandoned"), 0, "{stopped}");
    (count(&stopped, "clean"), count(&stopped, "forced"))
}

/// Tells a server to stop, and waits until it has begun.
fn stop(server: &Server) {
    server.signal(Signal::TERM);
    server.log().find(r#""event":"stopping""#);
}

/// Waits until the server's kernel has all that a peer has sent, and its FIN.
fn wait_until_arrived(peer: &Peer, server: &Server) {
    /// FIN_WAIT2: our FIN is acknowledged, and theirs has not come.
    const STATE: &str = "05";
    let port = |addr: SocketAddr| format!(":{:04X}", addr.port());
    let local = port(peer.stream.get_ref().local_addr().unwrap());
    let remote = port(server.addr);
    let has_arrived = |line: &str| match line.split_whitespace().collect::<Vec<_>>()[..] {
        [_, ours, theirs, state, ..] => {
            ours.ends_with(&local) && theirs.ends_with(&remote) && state == STATE
        }
        _ => false,
    };
    until("the peer's FIN", || {
        fs::read_to_string("/proc/net/tcp").unwrap().lines().any(has_arrived)
    });
}

#[test]
fn a_peer_that_has_ended_its_side_gets_all_that_it_waits_for() {
    /// More than the kernel takes for a peer that does not read.
    const SIZE: usize = 4 << 20;
    for half_open in [&[][..], &["--half-open"]] {
        let flags = ["echo", "--max-queued-bytes", "8M", "--send-buffer", "64K"];
        let server = Server::logging(&[&flags, half_open].concat());
        let mut peer = Peer::connect_narrow(server.addr);
        peer.send(pattern(0..SIZE));
        peer.finish();
        wait_until_arrived(&peer, &server);
        stop(&server);
        let all = peer.rest();
        assert_eq!(all.len(), SIZE);
        assert_pattern(&all);
        assert_eq!(report(server), (1, 0));
    }
}

#[test]
fn a_peer_that_never_stops_sending_gets_a_prefix_of_what_it_sends() {
    let server = Server::logging(&["echo"]);
    let mut peer = server.connect();
    let mut stream = peer.stream.get_ref().try_clone().unwrap();
    let sending = thread::spawn(move || {
        // A whole number of periods.
        let data = pattern(0..251 * 1024);
        while stream.write_all(&data).is_ok() {}
    });
    let mut all = vec![0; 1 << 20];
    peer.stream.read_exact(&mut all).unwrap();
    stop(&server);
    // Its end is in order, or a reset, because there is always something behind it.
    let _ = peer.stream.read_to_end(&mut all);
    assert_pattern(&all);
    let closed = server.closed();
    assert_eq!(count(&closed, "bytes_sent"), count(&closed, "bytes_received"), "{closed}");
    assert_eq!(count(&closed, "bytes_unsent"), 0, "{closed}");
    assert!(all.len() as u64 <= count(&closed, "bytes_sent"), "{} of {closed}", all.len());
    drop(peer);
    sending.join().unwrap();
    assert_eq!(report(server), (1, 0));
}

#[test]
fn a_peer_that_never_reads_is_cut_off_at_the_shutdown_timeout_and_counted() {
    let times = ["--write-timeout", "off", "--shutdown-timeout", "0.1"];
    let server = Server::logging(&[&["echo"][..], &times].concat());
    let mut good = server.connect();
    good.assert_served();
    let mut stuck = server.connect();
    stuck.send_until_stuck(256 << 20);
    stop(&server);
    assert_eq!(good.ending(), None);
    drop(good);
    assert_eq!(report(server), (1, 1));
    assert_eq!(stuck.ending(), Some(ErrorKind::ConnectionReset));
}

#[test]
fn many_idle_peers_all_see_an_end_in_order() {
    let server = Server::logging(&["echo"]);
    let mut peers: Vec<_> = (0..500).map(|_| server.connect()).collect();
    // The last one's answer shows that all before it are connections by now.
    peers.last_mut().unwrap().assert_served();
    stop(&server);
    for peer in &mut peers {
        assert_eq!(peer.ending(), None);
    }
    drop(peers);
    assert_eq!(report(server), (500, 0));
}

#[test]
fn callers_who_wait_for_a_place_are_turned_away() {
    let server = Server::logging(&["echo", "--max-connections", "1"]);
    let mut first = server.connect();
    first.assert_served();
    let mut waiting: Vec<_> = (0..10).map(|_| server.connect()).collect();
    waiting[0].send("ping");
    stop(&server);
    for caller in &mut waiting {
        assert!(!caller.is_served());
    }
    assert_eq!(first.ending(), None);
    drop(first);
    assert_eq!(report(server), (1, 0));
}

#[test]
fn a_starved_server_stops() {
    let flags = ["echo", "--max-connections", "1000"];
    let server = Server::logging_in_shell("ulimit -n 64; exec \"$@\"", &flags);
    let callers: Vec<_> = (0..100).map(|_| server.connect()).collect();
    server.log().find(r#""event":"starved""#);
    stop(&server);
    drop(callers);
    let (clean, forced) = report(server);
    assert!(clean > 0 && clean < 64 && forced == 0, "{clean} in order, {forced} not");
}

#[test]
fn peers_in_their_tls_handshake_hold_up_nothing() {
    let folder = Folder::with_certs(&[]);
    let times = "--handshake-timeout off --shutdown-timeout 1000";
    let server = folder.serve(&format!("{CERT} {times}"));
    let mut silent = server.connect();
    let mut halfway = server.connect();
    halfway.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03half of what is due");
    for _ in 0..2 {
        server.log().find(r#""event":"accepted""#);
    }
    stop(&server);
    // An alert, or nothing; in any case an end.
    silent.ending();
    halfway.ending();
    drop((silent, halfway));
    let (clean, forced) = report(server);
    assert_eq!(clean + forced, 2);
}

/// A client that has had an answer and is frozen since, with its output as far as it was not read.
fn frozen_client(server: &Server) -> Child {
    let mut command = onbytes(&["connect", "127.0.0.1", &server.port()]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.as_ref().unwrap().write_all(b"ping").unwrap();
    let mut answer = [0; 4];
    child.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
    signal(child.id(), Signal::STOP);
    child
}

#[test]
fn a_frozen_client_holds_up_nothing_and_finds_the_end_when_it_thaws() {
    let server = Server::logging(&["echo", "--shutdown-timeout", "1000"]);
    let mut client = frozen_client(&server);
    // Its kernel takes the end for it.
    let stdin = client.stdin.take();
    stop(&server);
    assert_eq!(report(server), (1, 0));
    signal(client.id(), Signal::CONT);
    let output = finish(client);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    drop(stdin);
}

#[test]
fn a_frozen_client_that_owes_reading_is_cut_off() {
    let times = ["--write-timeout", "off", "--shutdown-timeout", "0.3"];
    let server = Server::logging(&[&["echo"][..], &times].concat());
    let mut command = onbytes(&["connect", "127.0.0.1", &server.port()]);
    let mut client = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = client.stdin.take().unwrap();
    let feeding = thread::spawn(move || {
        let data = pattern(0..251 * 1024);
        while stdin.write_all(&data).is_ok() {}
    });
    let mut byte = [0];
    client.stdout.as_mut().unwrap().read_exact(&mut byte).unwrap();
    signal(client.id(), Signal::STOP);
    stop(&server);
    // Whether the kernel takes what is left for it depends on the moment; the end does not.
    let (clean, forced) = report(server);
    assert_eq!(clean + forced, 1);
    signal(client.id(), Signal::KILL);
    client.wait().unwrap();
    feeding.join().unwrap();
}
