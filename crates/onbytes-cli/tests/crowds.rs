//! Crowds: thousands of peers that say nothing, leave with a reset, stall in their handshake or do
//! not read. Whoever means well is served among them, and when they have gone nothing is left.

mod support;

use std::io::Write;
use std::thread;
use std::time::Duration;

use support::tls::{CERT, Folder};
use support::{ALL_FILES, Peer, Server, affordable, alone, assert_pattern, count, pattern, until};

/// An echo server with as many files as it may have, which logs what deserves a line.
fn echo(flags: &[&str]) -> Server {
    let args = [&["serve", "echo", "--listen", "127.0.0.1:0", "--log-format", "json"], flags];
    Server::ready(support::onbytes_in_shell(ALL_FILES, &args.concat()))
}

/// Waits until a server has no more open than those `files`, and asserts that it ends in order, has
/// nobody left, and has not filled its log.
#[track_caller]
fn assert_empty(server: Server, files: usize) {
    until("the end of all", || server.files() <= files);
    let log = server.stopped();
    let stopping = log.iter().find(|line| line.contains(r#""event":"stopping""#)).unwrap();
    assert_eq!(count(stopping, "connections"), 0, "{stopping}");
    let is_bad = |line: &&String| !line.contains(r#""level":"INFO""#);
    let bad: Vec<_> = log.iter().filter(is_bad).collect();
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn thousands_of_silent_peers_keep_nobody_out_and_go_when_their_time_is_over() {
    let _alone = alone();
    let server = echo(&["--idle-timeout", "2"]);
    let before = server.files();
    let mut silent: Vec<_> = (0..affordable(5000)).map(|_| server.connect()).collect();
    server.assert_serves();
    for peer in &mut silent {
        assert_eq!(peer.ending(), None);
    }
    drop(silent);
    until("the end of all", || server.files() <= before);
    server.assert_serves();
    assert_empty(server, before);
}

#[test]
fn thousands_of_resets_at_once_disturb_nobody() {
    let _alone = alone();
    let server = echo(&[]);
    let before = server.files();
    let mut good = server.connect();
    for has_data in [false, true] {
        let mut crowd: Vec<_> = (0..affordable(2000)).map(|_| server.connect()).collect();
        good.assert_served();
        if has_data {
            // Some of it comes back and is not read, so there is data both ways.
            crowd.iter_mut().for_each(|peer| peer.send([7; 16 * 1024]));
        }
        crowd.into_iter().for_each(Peer::reset);
        good.assert_served();
        until("the end of all", || server.files() <= before + 1);
        server.assert_serves();
    }
    drop(good);
    assert_empty(server, before);
}

/// The beginning of a ClientHello that announces some hundred bytes more.
const HALF_A_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03half of what is due";

#[test]
fn hundreds_of_stalled_handshakes_keep_no_client_out() {
    let _alone = alone();
    let folder = Folder::with_certs(&[]);
    for bounds in ["", "--max-connections 100 --max-handshakes 50", "--max-memory 2M"] {
        let server = folder.serve(&format!("{CERT} --handshake-timeout off {bounds}"));
        let before = server.files();
        let mut stalled: Vec<_> = (0..500).map(|_| server.connect()).collect();
        for peer in stalled.iter_mut().step_by(2) {
            // It may have given way by now.
            let _ = peer.stream.get_mut().write_all(HALF_A_HELLO);
        }
        folder.connects_to_echo(&server.port(), "--cert cert.pem");
        drop(stalled);
        until("the end of all", || server.files() <= before);
        folder.connects_to_echo(&server.port(), "--cert cert.pem");
        server.stop();
    }
}

/// Has a stuck peer read everything to its end, while what is left of `total` bytes follows those
/// that it has sent; returns what came.
fn read_all_with_the_rest(mut peer: Peer, sent: usize, total: usize) -> Vec<u8> {
    let mut stream = peer.stream.get_ref().try_clone().unwrap();
    let sending = thread::spawn(move || {
        stream.write_all(&pattern(sent..total)).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let all = peer.rest();
    sending.join().unwrap();
    all
}

#[test]
fn peers_that_do_not_read_cost_the_server_little_and_lose_nothing() {
    /// What each would like to have outstanding.
    const MOST: usize = 64 << 20;
    const PEERS: usize = 20;
    /// For each peer the server may hold 64 KiB in its queue and one answer of 256 KiB beyond it, which
    /// keeps a block of that size alive: 20 times 320 KiB are 6.25 MiB. The allocator may take twice
    /// what it gives out; all beyond that would be growth.
    const MOST_GROWN: u64 = 2 * PEERS as u64 * 320;
    let _alone = alone();
    let server = echo(&["--write-timeout", "off"]);
    let files = server.files();
    // What the first answers take stays taken.
    server.assert_serves();
    let before = server.status("VmRSS");
    let stuck: Vec<_> = (0..PEERS)
        .map(|_| {
            let mut peer = server.connect();
            thread::spawn(move || (peer.send_until_stuck(MOST), peer))
        })
        .collect();
    let stuck: Vec<_> = stuck.into_iter().map(|peer| peer.join().unwrap()).collect();
    server.assert_serves();
    let grown = server.status("VmRSS").saturating_sub(before);
    assert!(grown <= MOST_GROWN, "by {grown} KiB");
    for (number, (sent, peer)) in stuck.into_iter().enumerate() {
        // For the others it is enough to get what they have sent.
        let total = if number == 0 { MOST } else { sent };
        let all = read_all_with_the_rest(peer, sent, total);
        assert_eq!(all.len(), total);
        assert_pattern(&all);
    }
    server.assert_serves();
    assert_empty(server, files);
}

#[test]
fn thousands_of_idle_connections_let_the_server_sleep() {
    /// A timer's wheel may turn now and then, and some of what runs beside the connections; a thousandth
    /// of the crowd waking up would be more.
    const HANDFUL: u64 = 8;
    let _alone = alone();
    let limits = "--idle-timeout 600 --min-arrival 1/600 --write-timeout 600 --max-lifetime 3600 \
                  --keep-alive lan --max-queued-bytes-total 1G --max-memory 1G \
                  --source-max-connections 100000 --source-accept-rate 1000000 --allow 127.0.0.0/8";
    let limits: Vec<_> = limits.split_whitespace().collect();
    let server = echo(&[&limits[..], &["--workers", "2"]].concat());
    let crowd: Vec<_> = (0..affordable(10_000)).map(|_| server.connect()).collect();
    server.assert_serves();
    let before = server.rests();
    // Not a wait for something: this is the time in which nothing happens.
    thread::sleep(Duration::from_secs(2));
    let rests = server.rests() - before;
    assert!(rests <= HANDFUL, "{rests} times for {} connections", crowd.len());
    server.assert_serves();
    drop(crowd);
    server.stop();
}
