//! Peers of a TLS server that do not mean to speak TLS, and those that never get to the point.

mod support;

use std::io::Read;
use std::net::{Shutdown, TcpStream};

use support::tls::{CERT, Folder, next_end};
use support::{Peer, Server, onbytes_in_shell, one_line, run};

/// Asserts that a client that means well gets its echo.
fn assert_serves(folder: &Folder, server: &Server) {
    folder.connects_to_echo(&server.port(), "--cert cert.pem");
}

/// How a TLS peer ends: what it sends, which is an alert at most.
fn ending(stream: &mut TcpStream) -> Vec<u8> {
    let mut told = Vec::new();
    // A reset is an end as good as any.
    let _ = stream.read_to_end(&mut told);
    told
}

#[test]
fn a_client_that_speaks_no_tls_to_a_tls_server_is_told_to() {
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(CERT);
    let mut client =
        onbytes_in_shell("echo hello | \"$@\"", &["connect", "localhost", &server.port()]);
    client.stdin(std::process::Stdio::null());
    let output = run(client);
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).ends_with("answered with an alert; give --tls"), "{output:?}");
}

#[test]
fn plain_text_and_garbage_are_answered_with_an_alert_and_disturb_nobody() {
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(CERT);
    let garbage = [
        &b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"[..],
        b"hello\n",
        b"\n\n\n\n\n",
        b"\x80\x2e\x01\x00\x02\x00\x15\x00\x00\x00\x10",
        b"\x16\x03\x01\xff\xff\x01",
        b"\x16\x03\x01\x00\x00\x16\x03\x01\x00\x00",
        b"\x17\x03\x03\x00\x05hello",
        b"\x14\x03\x03\x00\x01\x01",
        b"\x18\x03\x03\x00\x03\x01\x40\x00",
        b"\x15\x03\x01\x00\x02\x02\x28",
        b"\x16\x03\x03\x00\x04\x02\x00\x00\x00",
        b"\x16\x03\x01\x00\x04\x01\xff\xff\xff",
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        &[0; 20_000],
        &[0xff; 20_000],
    ];
    for (i, garbage) in garbage.into_iter().enumerate() {
        let mut peer = Peer::connect(server.addr);
        peer.send(garbage);
        let _ = peer.stream.get_ref().shutdown(Shutdown::Write);
        let told = ending(peer.stream.get_mut());
        // A record of the type alert, and nothing else.
        assert!(told.is_empty() || (told[0] == 21 && told.len() == 7), "{garbage:x?}: {told:x?}");
        // The log tells of so many and no more, lest it be filled in this way.
        if i < 10 {
            assert_eq!(next_end(&server).0, "handshake_failed", "{garbage:x?}");
        }
    }
    assert_serves(&folder, &server);
    server.stop();
}

#[test]
fn handshakes_that_stall_keep_nobody_out_and_end_after_their_time() {
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(&format!("{CERT} --handshake-timeout 0.5"));
    // Some say nothing, some are in the middle of a record.
    let stalled: Vec<_> = (0..200)
        .map(|i| {
            let mut peer = Peer::connect(server.addr);
            if i % 2 == 0 {
                peer.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03");
            }
            peer
        })
        .collect();
    assert_serves(&folder, &server);
    for mut peer in stalled {
        ending(peer.stream.get_mut());
    }
    let error = loop {
        let (reason, error) = next_end(&server);
        // The good client's end is among them.
        if reason != "peer_closed" {
            assert_eq!(reason, "handshake_timeout");
            break error;
        }
    };
    assert!(error.contains("500ms") || error.contains("0.5"), "{error}");
    assert_serves(&folder, &server);
    server.stop();
}

#[test]
fn a_handshake_in_drops_ends_after_its_time_too() {
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(&format!("{CERT} --handshake-timeout 0.3"));
    let mut peer = Peer::connect(server.addr);
    let mut stream = peer.stream.get_ref().try_clone().unwrap();
    let dropping = std::thread::spawn(move || {
        // Each byte is progress, and none of them is worth a second more.
        let hello = [b"\x16\x03\x01\x40\x00\x01\x00\x3f\xfc".as_slice(), &[3; 16_000]].concat();
        for byte in hello.chunks(1) {
            if std::io::Write::write_all(&mut stream, byte).is_err() {
                return true;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        false
    });
    ending(peer.stream.get_mut());
    assert_eq!(next_end(&server).0, "handshake_timeout");
    assert!(dropping.join().unwrap(), "it could send everything");
    server.stop();
}

#[test]
fn more_handshakes_than_are_allowed_push_out_the_oldest() {
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(&format!("{CERT} --max-handshakes 10 --handshake-timeout off"));
    let mut stalled: Vec<_> = (0..10).map(|_| Peer::connect(server.addr)).collect();
    for _ in 0..3 {
        assert_serves(&folder, &server);
    }
    let mut oldest = stalled.remove(0);
    ending(oldest.stream.get_mut());
    assert_eq!(next_end(&server).0, "handshake_timeout");
    // Those that are left have all the time there is, and keep a server no longer than they live.
    drop(stalled);
    server.stop();
}

#[test]
fn a_record_that_is_too_long_is_refused_with_an_alert() {
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(CERT);
    // The length that a record may have, and one more, and far more.
    for len in [18_432_u16, 18_433, 20_000, u16::MAX] {
        let [high, low] = len.to_be_bytes();
        let mut peer = Peer::connect(server.addr);
        peer.send([&[22, 3, 3, high, low][..], &vec![1; len.into()]].concat());
        let _ = peer.stream.get_ref().shutdown(Shutdown::Write);
        let told = ending(peer.stream.get_mut());
        let (reason, error) = next_end(&server);
        assert_eq!((reason.as_str(), told.first()), ("handshake_failed", Some(&21)), "{error}");
    }
    assert_serves(&folder, &server);
    server.stop();
}
