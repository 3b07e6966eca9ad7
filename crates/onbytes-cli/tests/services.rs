//! `onbytes serve`: the ready line, each service, and the limits.

mod support;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::thread;

use support::{Lines, Peer, Server, onbytes, onbytes_in_shell};

#[test]
fn the_ready_line_names_the_real_port_and_the_port_is_open() {
    let server = Server::start(&["echo"]);
    assert_ne!(server.addr.port(), 0);
    server.connect();
    server.stop();
}

#[test]
fn a_bare_port_listens_on_all_interfaces() {
    let server = Server::ready(onbytes(&["serve", "echo", "--listen", "0"]));
    assert!(server.addr.ip().is_unspecified());
    let mut peer = Peer::connect(([127, 0, 0, 1], server.addr.port()).into());
    peer.send("hello");
    peer.expect("hello");
    server.stop();
}

#[test]
fn echo_returns_every_byte() {
    for workers in ["1", "4", "auto", "4 --worker-model shared"] {
        let workers = workers.split(' ');
        let args: Vec<_> = ["echo", "--workers"].into_iter().chain(workers).collect();
        let server = Server::start(&args);
        let data: Vec<u8> = (0..3_000_000u32).map(|i| ((i * 7) >> 3) as u8).collect();
        let mut peer = server.connect();
        let mut sender = peer.stream.get_ref().try_clone().unwrap();
        let sent = data.clone();
        let sending = thread::spawn(move || {
            sender.write_all(&sent).unwrap();
            sender.shutdown(std::net::Shutdown::Write).unwrap();
        });
        assert!(peer.rest() == data, "other bytes came back");
        sending.join().unwrap();
        server.stop();
    }
}

#[test]
fn discard_sends_nothing_back() {
    let server = Server::start(&["discard"]);
    let mut peer = server.connect();
    peer.send(vec![7; 1_000_000]);
    peer.finish();
    assert!(peer.rest().is_empty());
    server.stop();
}

#[test]
fn with_refuse_a_caller_too_many_is_closed_at_once() {
    let server = Server::start(&["echo", "--max-connections", "1", "--when-full", "refuse"]);
    let mut first = server.connect();
    first.send("x");
    first.expect("x");
    // The kernel ends it with FIN or with a reset; nothing is served either way.
    let mut second = server.connect();
    let mut byte = [0];
    assert!(!matches!(second.stream.read(&mut byte), Ok(1)));
    first.send("y");
    first.expect("y");
    server.stop();
}

#[test]
fn with_queue_a_caller_too_many_waits_for_its_turn() {
    let server = Server::start(&["echo", "--max-connections", "1"]);
    let mut first = server.connect();
    first.send("x");
    first.expect("x");
    let mut second = server.connect();
    second.send("z");
    drop(first);
    second.expect("z");
    server.stop();
}

#[test]
fn an_idle_connection_is_closed_in_order() {
    let server = Server::start(&["echo", "--idle-timeout", "0.05"]);
    assert!(server.connect().rest().is_empty());
    server.stop();
}

#[test]
fn an_old_connection_is_closed_in_order() {
    let server = Server::start(&["discard", "--max-lifetime", "0.05"]);
    assert!(server.connect().rest().is_empty());
    server.stop();
}

#[test]
fn with_half_open_a_member_that_has_ended_its_side_goes_on_hearing() {
    let server = Server::start(&["chat", "--half-open"]);
    let mut listener = server.connect();
    listener.send("one\n");
    listener.finish();
    let name = listener.name();
    assert_eq!(listener.line().unwrap(), format!("{name}: one"));
    let mut speaker = server.connect();
    speaker.send("two\n");
    let name = speaker.name();
    assert_eq!(listener.line().unwrap(), format!("{name}: two"));
    server.stop();
}

#[test]
fn two_hundred_callers_are_served_with_sixty_four_descriptors() {
    for service in [&["echo"][..], &["echo", "--max-connections", "1000"]] {
        let args = [&["serve"], service, &["--listen", "127.0.0.1:0"]].concat();
        let server = Server::ready(onbytes_in_shell("ulimit -n 64; exec \"$@\"", &args));
        let callers: Vec<_> = (0..200)
            .map(|number| {
                let mut peer = server.connect();
                thread::spawn(move || {
                    let text = format!("caller {number}");
                    peer.send(&text);
                    peer.expect(&text);
                })
            })
            .collect();
        callers.into_iter().for_each(|caller| caller.join().unwrap());
        server.stop();
    }
}

#[test]
fn netcat_talks_to_echo() {
    let server = Server::start(&["echo"]);
    let started = Command::new("nc")
        .args(["127.0.0.1", &server.port()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut nc) = started else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: there is no `nc` here");
        return;
    };
    nc.stdin.as_ref().unwrap().write_all(b"hello\n").unwrap();
    let lines = Lines::of(nc.stdout.take().unwrap());
    assert_eq!(lines.next().as_deref(), Some("hello"));
    nc.kill().unwrap();
    nc.wait().unwrap();
    server.stop();
}

#[test]
fn a_listener_on_ipv6_is_reached() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: there is no IPv6 here");
        return;
    }
    let server = Server::ready(onbytes(&["serve", "echo", "--listen", "[::1]:0"]));
    let mut peer = server.connect();
    assert!(peer.name().starts_with("[::1]:"));
    peer.send("six");
    peer.expect("six");
    server.stop();
}
