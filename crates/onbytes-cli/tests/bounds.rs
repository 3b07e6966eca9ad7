//! Every bound that the flags of `serve` set: a peer beyond it goes, for the reason that the log
//! tells, and all others stay.

mod support;

use std::io::{ErrorKind, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use support::{
    Peer, Server, WATCHDOG, affordable, alone, assert_pattern, count, onbytes, seconds, text, until,
};

/// A server that is told things by a line of flags.
fn echo(flags: &str) -> Server {
    let flags: Vec<_> = flags.split_whitespace().collect();
    Server::logging(&[&["echo"], &flags[..]].concat())
}

/// The line of the log about the next caller who was turned away.
fn refusal(server: &Server) -> (String, String) {
    let line = server.log().find(r#""event":"refused""#);
    (text(&line, "remote_addr"), text(&line, "cause"))
}

/// Asserts that a caller from `source` is closed at once, and that the log says why.
#[track_caller]
fn assert_refused(server: &Server, source: [u8; 4], cause: &str) {
    let mut caller = Peer::connect_from(source, server.addr);
    assert!(caller.rest().is_empty());
    assert_eq!(refusal(server), (caller.name(), cause.to_owned()));
}

/// A caller who is served.
#[track_caller]
fn served(server: &Server, source: [u8; 4]) -> Peer {
    let mut caller = Peer::connect_from(source, server.addr);
    caller.assert_served();
    caller
}

// ---- Who may come in ----

#[test]
fn those_who_are_not_allowed_and_those_who_are_denied_are_closed_at_once() {
    let server = echo("--allow 127.0.0.2,127.0.1.0/24 --deny 127.0.1.7");
    let first = served(&server, [127, 0, 0, 2]);
    for stranger in [[127, 0, 0, 1], [127, 0, 0, 3], [127, 0, 2, 1], [127, 0, 1, 7]] {
        assert_refused(&server, stranger, "denied");
    }
    let last = served(&server, [127, 0, 1, 255]);
    drop((first, last));
    server.stop();
}

#[test]
fn on_a_listener_of_both_families_ipv4_callers_are_known_by_their_ipv4_address() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        let _ = writeln!(std::io::stderr(), "SKIPPED: there is no IPv6 here");
        return;
    }
    let flags = ["--allow", "127.0.0.2,::1", "--source-max-connections", "1"];
    let args = [&["serve", "echo", "--listen", "[::]:0", "--log-format", "json"], &flags[..]];
    let mut server = Server::ready(onbytes(&args.concat()));
    let port = server.addr.port();
    // As IPv6 callers and IPv4 callers reach it.
    server.addr = (Ipv6Addr::LOCALHOST, port).into();
    let mut sixth = server.connect();
    sixth.assert_served();
    server.addr = (Ipv4Addr::LOCALHOST, port).into();
    let fourth = served(&server, [127, 0, 0, 2]);
    assert_refused(&server, [127, 0, 0, 2], "source_full");
    assert_refused(&server, [127, 0, 0, 1], "denied");
    drop((fourth, sixth));
    server.stop();
}

#[test]
fn a_source_has_so_many_connections_at_once_and_others_have_their_own() {
    let server = echo("--source-max-connections 2");
    let first = served(&server, [127, 0, 0, 2]);
    let mut second = served(&server, [127, 0, 0, 2]);
    assert_refused(&server, [127, 0, 0, 2], "source_full");
    let other = served(&server, [127, 0, 0, 3]);
    drop(first);
    until("a place for the source", || Peer::connect_from([127, 0, 0, 2], server.addr).is_served());
    second.assert_served();
    drop((second, other));
    server.stop();
}

#[test]
fn addresses_that_share_a_prefix_are_one_source() {
    let server = echo("--source-max-connections 2 --source-ipv4-prefix 24");
    let first = served(&server, [127, 0, 1, 1]);
    let second = served(&server, [127, 0, 1, 200]);
    assert_refused(&server, [127, 0, 1, 3], "source_full");
    let other = served(&server, [127, 0, 2, 3]);
    drop((first, second, other));
    server.stop();
}

#[test]
fn a_source_that_comes_too_often_is_closed_until_its_time_has_come() {
    let server = echo("--source-accept-rate 0.5 --source-accept-burst 3");
    for _ in 0..3 {
        served(&server, [127, 0, 0, 2]);
    }
    assert_refused(&server, [127, 0, 0, 2], "source_rate");
    served(&server, [127, 0, 0, 3]);
    // Trying does not cost it what it regains.
    until("its rate", || Peer::connect_from([127, 0, 0, 2], server.addr).is_served());
    server.stop();
}

#[test]
fn more_connections_than_files_are_warned_of() {
    let args = ["echo", "--max-connections", "1000"];
    let server = Server::logging_in_shell("ulimit -n 64; exec \"$@\"", &args);
    let line = server.log().find(r#""event":"limits_warning""#);
    let warning = text(&line, "warning");
    assert!(warning.contains("1000") && warning.contains("ulimit -n"), "{warning}");
    assert!(line.contains(r#""level":"WARN""#), "{line}");
    server.stop();
    let server = echo("--max-connections 10");
    let log = server.stopped();
    assert!(!log.iter().any(|line| line.contains("limits_warning")), "{log:?}");
}

// ---- What may be queued ----

/// How much was left in the queue of a peer that does not read.
fn unsent(most_queued: &str) -> u64 {
    let server = echo(&format!("--max-queued-bytes {most_queued} --write-timeout 1"));
    let mut peer = server.connect();
    peer.send_until_stuck(256 << 20);
    let line = server.closed();
    assert_eq!(text(&line, "reason"), "write_timeout");
    server.stop();
    count(&line, "bytes_unsent")
}

#[test]
fn so_much_is_queued_for_a_peer_and_a_reply_at_the_most_beyond_it() {
    /// What is read at once is answered at once, and its answer enters whole.
    const REPLY: u64 = 256 * 1024;
    let few = unsent("4K");
    assert!(few > 0 && few <= 4 * 1024 + REPLY, "{few}");
    let many = unsent("4M");
    assert!(many > 1024 * 1024 && many <= 4 * 1024 * 1024 + REPLY, "{many}");
}

#[test]
fn beyond_the_total_of_all_queues_the_largest_one_goes_and_no_other() {
    /// More than the kernel's buffers hold here, and less than the queues may.
    const SMALL: usize = 3 << 20;
    let server = echo(
        "--max-queued-bytes 64M --max-queued-bytes-total 8M --write-timeout off --send-buffer 64K",
    );
    let mut good = server.connect();
    good.assert_served();
    let mut small = Peer::connect_narrow(server.addr);
    assert_eq!(small.send_until_stuck(SMALL), SMALL);
    let mut large = Peer::connect_narrow(server.addr);
    large.send_until_stuck(256 << 20);
    let line = server.closed();
    assert_eq!((text(&line, "reason"), text(&line, "remote_addr")), ("limit".into(), large.name()));
    assert!(text(&line, "error").contains("max_queued_bytes_total"), "{line}");
    assert!(line.contains(r#""level":"WARN""#), "{line}");
    assert_eq!(large.ending(), Some(ErrorKind::ConnectionReset));
    good.assert_served();
    small.finish();
    let answer = small.rest();
    assert_eq!(answer.len(), SMALL);
    assert_pattern(&answer);
    assert_eq!(text(&server.closed(), "reason"), "peer_closed");
    good.assert_served();
    drop((good, small));
    server.stop();
}

// ---- How long things may take ----

/// Has `good` answered again and again, until the log tells of an end, which it returns.
fn served_until_an_end(server: &Server, good: &mut Peer) -> String {
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let serving = scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                good.assert_served();
            }
        });
        let line = server.closed();
        is_over.store(true, Ordering::SeqCst);
        serving.join().unwrap();
        line
    })
}

/// Sends a byte now and then, until the server has had enough of it.
fn trickle(peer: &Peer) -> thread::JoinHandle<()> {
    let mut stream = peer.stream.get_ref().try_clone().unwrap();
    thread::spawn(move || {
        let started = Instant::now();
        while started.elapsed() < WATCHDOG && stream.write_all(b"x").is_ok() {
            thread::sleep(Duration::from_millis(150));
        }
    })
}

#[test]
fn a_peer_that_sends_too_little_is_closed_in_order_and_one_that_sends_enough_is_not() {
    let server = echo("--min-arrival 100/1");
    let mut good = server.connect();
    let mut slow = server.connect();
    let trickling = trickle(&slow);
    let line = served_until_an_end(&server, &mut good);
    assert_eq!(
        (text(&line, "reason"), text(&line, "remote_addr")),
        ("too_slow".into(), slow.name())
    );
    assert!(seconds(&line, "age") >= 1.0, "{line}");
    assert!(count(&line, "bytes_received") < 100, "{line}");
    assert_eq!(slow.ending(), None);
    drop((good, slow));
    trickling.join().unwrap();
    server.stop();
}

#[test]
fn an_idle_peer_is_closed_in_order_and_a_busy_one_is_not() {
    let server = echo("--idle-timeout 1");
    let mut good = server.connect();
    let mut idle = server.connect();
    let line = served_until_an_end(&server, &mut good);
    assert_eq!(
        (text(&line, "reason"), text(&line, "remote_addr")),
        ("idle_timeout".into(), idle.name())
    );
    assert!(seconds(&line, "age") >= 1.0, "{line}");
    assert_eq!(idle.ending(), None);
    drop((good, idle));
    server.stop();
}

#[test]
fn a_peer_that_does_not_read_is_reset_and_one_that_does_is_not() {
    let server = echo("--write-timeout 0.5");
    let mut good = server.connect();
    good.assert_served();
    let mut stuck = server.connect();
    stuck.send_until_stuck(256 << 20);
    let line = server.closed();
    assert_eq!(
        (text(&line, "reason"), text(&line, "remote_addr")),
        ("write_timeout".into(), stuck.name())
    );
    assert!(count(&line, "bytes_unsent") > 0 && seconds(&line, "age") >= 0.5, "{line}");
    assert_eq!(stuck.ending(), Some(ErrorKind::ConnectionReset));
    good.assert_served();
    drop(good);
    server.stop();
}

/// The ages at which connections ended that came together.
fn ages(jitter: &str) -> Vec<f64> {
    let server = echo(&format!("--max-lifetime 2 --max-lifetime-jitter {jitter}"));
    let mut peers: Vec<_> = (0..40).map(|_| server.connect()).collect();
    for peer in &mut peers {
        assert_eq!(peer.ending(), None);
    }
    let lines: Vec<_> = peers.iter().map(|_| server.closed()).collect();
    assert!(lines.iter().all(|line| text(line, "reason") == "max_lifetime"), "{lines:?}");
    drop(peers);
    server.stop();
    lines.iter().map(|line| seconds(line, "age")).collect()
}

#[test]
fn without_jitter_nobody_goes_before_the_end_of_its_life() {
    let ages = ages("0");
    assert!(ages.iter().all(|age| *age >= 2.0), "{ages:?}");
}

#[test]
fn with_jitter_those_who_came_together_do_not_go_together() {
    let ages = ages("0.5");
    assert!(ages.iter().all(|age| *age >= 1.0), "{ages:?}");
    let (first, last) = ages
        .iter()
        .fold((f64::MAX, 0.0), |(first, last): (f64, f64), age| (first.min(*age), last.max(*age)));
    assert!(last - first > 0.2, "{ages:?}");
}

// ---- How much memory there may be ----

/// Callers enough to fill 1 MiB: those who come beyond that wait. Nobody is idle for so long yet that
/// it has to go.
fn crowd(server: &Server) -> Vec<Peer> {
    (0..affordable(800)).map(|_| server.connect()).collect()
}

/// The level of pressure that the log tells of next, after the one before.
fn next_pressure(server: &Server) -> [String; 2] {
    let line = server.log().find(r#""event":"overload""#);
    assert!(count(&line, "memory") > 0 && count(&line, "ceiling") == 1 << 20, "{line}");
    [text(&line, "before"), text(&line, "pressure")]
}

/// Callers who come and are served, until a line of the log has `part` in it.
fn served_until(server: &Server, part: &str) -> Vec<Peer> {
    let most = affordable(800);
    let mut callers = Vec::new();
    while !server.log().has_come(part) {
        let mut caller = server.connect();
        caller.assert_served();
        callers.push(caller);
        assert!(callers.len() < most, "never came: {part}");
    }
    callers
}

#[test]
fn when_memory_is_short_those_idle_longest_go_and_newcomers_are_served() {
    let _alone = alone();
    let server = echo("--max-memory 1M");
    let mut old = served_until(&server, r#""pressure":"shrink","before":"none""#);
    // One that was served less than a second ago does not count as idle.
    thread::sleep(Duration::from_millis(1100));
    let mut new = served_until(&server, r#""pressure":"close_idle","before":"shrink""#);
    let line = server.closed();
    assert_eq!(text(&line, "reason"), "limit");
    assert!(text(&line, "error").contains("max_memory"), "{line}");
    assert!(line.contains(r#""level":"WARN""#), "{line}");
    // Those of the same few milliseconds go in any order.
    let ended = old.iter().position(|peer| peer.name() == text(&line, "remote_addr"));
    assert!(ended.is_some_and(|number| number < old.len() / 2), "{ended:?} of {}", old.len());
    assert_eq!(old[ended.unwrap()].ending(), Some(ErrorKind::ConnectionReset));
    for _ in 0..200 {
        server.connect().assert_served();
    }
    old.last_mut().unwrap().assert_served();
    new.last_mut().unwrap().assert_served();
    // When they leave, all is as before.
    drop((old, new));
    server.log().find(r#""pressure":"none""#);
    server.assert_serves();
    server.stop();
}

#[test]
fn the_levels_of_pressure_come_one_by_one_and_go() {
    let _alone = alone();
    let server = echo("--max-memory 1M");
    let callers = crowd(&server);
    let levels = ["none", "shrink", "close_idle", "stop_accepting"];
    for pair in levels.windows(2) {
        assert_eq!(next_pressure(&server), pair);
    }
    // The way down is seen by who is served again: the log has ten lines of a kind in ten seconds.
    drop(callers);
    server.assert_serves();
    server.stop();
}

/// While nobody is accepted, nothing ends those who have become idle since.
#[test]
fn those_who_filled_memory_within_a_second_keep_others_out_no_longer_than_that() {
    let _alone = alone();
    let server = echo("--max-memory 1M");
    let mut first = server.connect();
    let callers = crowd(&server);
    server.log().find(r#""pressure":"stop_accepting""#);
    server.assert_serves();
    assert_eq!(first.ending(), Some(ErrorKind::ConnectionReset));
    drop(callers);
    server.stop();
}

#[test]
fn with_refuse_callers_are_closed_at_once_while_memory_is_short() {
    let _alone = alone();
    let server = echo("--max-memory 1M --when-full refuse");
    let callers = crowd(&server);
    let (_, cause) = refusal(&server);
    assert_eq!(cause, "overload");
    drop(callers);
    until("memory", || server.connect().is_served());
    server.stop();
}

// ---- Peers that have vanished ----

/// The server's end of a connection, where the system lets us have it.
fn other_end(server: &Server, peer: &Peer) -> Option<OwnedFd> {
    let pid = Pid::from_raw(server.child.id().try_into().unwrap()).unwrap();
    let process = pidfd_open(pid, PidfdFlags::empty()).ok()?;
    let address: SocketAddr = peer.name().parse().unwrap();
    // Its descriptors are few and have low numbers.
    let files = (0..64).map(|file| pidfd_getfd(&process, file, PidfdGetfdFlags::empty()));
    let has_peer = |file: &OwnedFd| {
        let remote = rustix::net::getpeername(file).ok().flatten();
        remote.is_some_and(|remote| SocketAddr::try_from(remote) == Ok(address))
    };
    files.filter_map(Result::ok).find(has_peer)
}

/// Keep-alive's time, interval and probes, and the user timeout in milliseconds, as the kernel has
/// them for a connection.
fn probing(flags: &str) -> Option<(u64, u64, u32, u32)> {
    let server = echo(flags);
    let mut peer = server.connect();
    peer.assert_served();
    let Some(end) = other_end(&server, &peer) else {
        let _ =
            writeln!(std::io::stderr(), "SKIPPED: the system shows no socket of another process");
        return None;
    };
    let user_timeout = sockopt::tcp_user_timeout(&end).unwrap();
    let probing = match sockopt::socket_keepalive(&end).unwrap() {
        true => (
            sockopt::tcp_keepidle(&end).unwrap().as_secs(),
            sockopt::tcp_keepintvl(&end).unwrap().as_secs(),
            sockopt::tcp_keepcnt(&end).unwrap(),
            user_timeout,
        ),
        false => (0, 0, 0, user_timeout),
    };
    drop((end, peer));
    server.stop();
    Some(probing)
}

#[test]
fn silent_peers_are_probed_as_the_flags_say() {
    for (flags, expected) in [
        ("", (60, 10, 3, 0)),
        ("--keep-alive off", (0, 0, 0, 0)),
        ("--keep-alive lan", (10, 3, 3, 19_000)),
        ("--keep-alive mobile", (240, 30, 4, 360_000)),
        ("--keep-alive lan --user-timeout off", (10, 3, 3, 0)),
        ("--keep-alive mobile --keep-alive-interval 7 --keep-alive-probes 9", (240, 7, 9, 360_000)),
        ("--keep-alive 7 --user-timeout 1.5", (7, 10, 3, 1500)),
    ] {
        let Some(probing) = probing(flags) else { return };
        assert_eq!(probing, expected, "{flags}");
    }
}
