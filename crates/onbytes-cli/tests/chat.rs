//! `onbytes serve chat`: every line reaches every member once, in one order, whatever others do.

mod support;

use std::io::{ErrorKind, Read};
use std::thread;

use support::{Peer, Server};

/// A member who is in the room: it has heard itself.
fn member(server: &Server) -> Peer {
    let mut peer = server.connect();
    peer.send("hello\n");
    let own = said(&peer, "hello");
    while peer.line().unwrap() != own {}
    peer
}

/// Members who have heard the same beginning, so that they hear the same from now on.
fn members(server: &Server, count: usize) -> Vec<Peer> {
    let mut members: Vec<_> = (0..count).map(|_| member(server)).collect();
    members[0].send("ready\n");
    let ready = said(&members[0], "ready");
    for member in &mut members {
        while member.line().unwrap() != ready {}
    }
    members
}

/// A line as everybody hears it.
fn said(speaker: &Peer, text: &str) -> String {
    format!("{}: {text}", speaker.name())
}

#[test]
fn all_members_hear_all_lines_once_and_in_the_same_order() {
    for (workers, count, lines) in [("1", 5, 200), ("4", 5, 200), ("2", 50, 10)] {
        let server = Server::start(&["chat", "--workers", workers]);
        let members = members(&server, count);
        let speakers: Vec<_> = members.iter().map(Peer::name).collect();
        let members: Vec<_> = members
            .into_iter()
            .map(|mut member| {
                let mut mouth = member.stream.get_ref().try_clone().unwrap();
                thread::spawn(move || {
                    use std::io::Write;
                    for number in 0..lines {
                        mouth.write_all(format!("{number}\n").as_bytes()).unwrap();
                    }
                });
                let total = count * lines;
                thread::spawn(move || -> Vec<_> {
                    (0..total).map(|_| member.line().unwrap()).collect()
                })
            })
            .collect();
        let transcripts: Vec<_> =
            members.into_iter().map(|member| member.join().unwrap()).collect();
        for transcript in &transcripts {
            assert_eq!(transcript, &transcripts[0]);
        }
        for speaker in speakers {
            let prefix = format!("{speaker}: ");
            let own = transcripts[0].iter().filter_map(|line| line.strip_prefix(&prefix));
            assert!(own.eq((0..lines).map(|number| number.to_string())), "lines of {speaker}");
        }
        server.stop();
    }
}

#[test]
fn a_member_that_does_not_read_is_dropped_and_the_others_go_on() {
    let server = Server::start(&["chat"]);
    let mut stuck = server.connect();
    stuck.send("hello\n");
    let mut members = members(&server, 3);
    // The others hear each line before the next, until the kernel keeps no more for the stuck one.
    let text = "x".repeat(8_000);
    let line = said(&members[0], &text);
    while !server.log().has_come("dropped a member whose queue is full") {
        members[0].send(format!("{text}\n"));
        for member in &mut members {
            assert!(member.line().unwrap() == line);
        }
    }
    let error = stuck.stream.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    server.stop();
}

#[test]
fn a_member_with_an_endless_line_is_told_so_and_closed_and_the_others_go_on() {
    let server = Server::start(&["chat"]);
    let mut members = members(&server, 2);
    let mut endless = member(&server);
    let hello = said(&endless, "hello");
    endless.send(format!("fine\n{}", "x".repeat(8 * 1024 + 1)));
    let fine = said(&endless, "fine");
    assert_eq!(endless.line().unwrap(), fine);
    assert_eq!(endless.line().unwrap(), "your line is longer than 8192 bytes; goodbye");
    assert_eq!(endless.line(), None);
    members[1].send("after\n");
    let after = said(&members[1], "after");
    for member in &mut members {
        for line in [&hello, &fine, &after] {
            assert_eq!(&member.line().unwrap(), line);
        }
    }
    server.stop();
}

#[test]
fn a_line_of_8_kib_reaches_everybody() {
    let server = Server::start(&["chat"]);
    let mut members = members(&server, 2);
    let text = "x".repeat(8 * 1024);
    members[0].send(format!("{text}\n"));
    let line = said(&members[0], &text);
    for member in &mut members {
        assert_eq!(member.line().unwrap(), line);
    }
    server.stop();
}

#[test]
fn a_last_line_without_its_end_counts() {
    let server = Server::start(&["chat"]);
    let mut members = members(&server, 2);
    let mut leaver = members.remove(0);
    leaver.send("one\ntwo");
    leaver.finish();
    for text in ["one", "two"] {
        let line = said(&leaver, text);
        assert_eq!(leaver.line().unwrap(), line);
        assert_eq!(members[0].line().unwrap(), line);
    }
    assert_eq!(leaver.line(), None, "a member that has ended is let go");
    members[0].send("alone\n");
    let line = said(&members[0], "alone");
    assert_eq!(members[0].line().unwrap(), line);
    server.stop();
}

#[test]
fn lines_in_pieces_and_many_at_once_come_out_whole() {
    let server = Server::start(&["chat"]);
    let mut member = member(&server);
    for piece in ["a", "b\r", "\n\nc", "d\ne\r\r\nf\n"] {
        member.send(piece);
    }
    for text in ["ab", "", "cd", "e\u{fffd}", "f"] {
        let line = said(&member, text);
        assert_eq!(member.line().unwrap(), line);
    }
    server.stop();
}

#[test]
fn nothing_that_a_terminal_obeys_and_nothing_but_text_reaches_others() {
    let server = Server::start(&["chat"]);
    let mut member = member(&server);
    member.send(b"tab\there \xffend \x1b[2J \r1.2.3.4:5: forged \xc2\x9b0m \xc3\xa4\n");
    let shown = "tab\there \u{fffd}end \u{fffd}[2J \u{fffd}1.2.3.4:5: forged \u{fffd}0m ä";
    let line = said(&member, shown);
    assert_eq!(member.line().unwrap(), line);
    server.stop();
}

#[test]
fn members_that_come_and_go_are_heard_to_their_last_word() {
    let server = Server::start(&["chat"]);
    let mut stays = member(&server);
    for _ in 0..100 {
        let mut guest = member(&server);
        guest.send("unfinished");
        guest.finish();
        assert_eq!(stays.line().unwrap(), said(&guest, "hello"));
        assert_eq!(stays.line().unwrap(), said(&guest, "unfinished"));
    }
    server.stop();
}
