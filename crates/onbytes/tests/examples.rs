//! The examples, run as a user runs them.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

mod support;

use support::examples::{Running, read_line, run};

#[test]
fn echo_serves_the_client_example_and_stops_on_ctrl_c() {
    let echo = Running::start("echo");
    let output = run("client", &[&echo.port.to_string()]);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "hello from a client\n");
    echo.stop();
}

#[cfg(any(feature = "tls", feature = "tls-ring"))]
#[test]
fn tls_echo_serves_a_client_that_trusts_its_certificate() {
    use onbytes::{Client, ClientConfiguration, ClientSecureSocket};
    let folder = tempfile::tempdir().unwrap();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    let files = [cert.to_str().unwrap(), key.to_str().unwrap()];
    let echo = Running::start_with("tls_echo", &files);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let secure = ClientSecureSocket::new().cert(cert.as_path());
        let config = ClientConfiguration::new().secure_socket(secure);
        let mut client = Client::connect("localhost", echo.port, config).await.unwrap();
        client.write_bytes("hello").await.unwrap();
        assert_eq!(client.read_bytes().await.unwrap().as_deref(), Some(&b"hello"[..]));
        client.close().await.unwrap();
    });
    echo.stop();
}

#[test]
fn chat_gives_every_line_to_every_member() {
    let chat = Running::start("chat");
    let (mut one, two) = (chat.connect(), chat.connect());
    for member in [&one, &two] {
        assert!(read_line(member).starts_with("welcome"));
    }
    one.write_all(b"hel").unwrap();
    one.write_all(b"lo\n").unwrap();
    let expected = format!("{}: hello\n", one.local_addr().unwrap().port());
    assert_eq!(read_line(&one), expected);
    assert_eq!(read_line(&two), expected);
    drop((one, two));
    chat.stop();
}

#[test]
fn http_like_answers_requests_that_come_in_pieces_or_together() {
    let server = Running::start("http_like");
    let mut stream = server.connect();
    for byte in b"GET /one HTTP/1.1\r\n\r\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    stream.write_all(b"GET /two HTTP/1.1\r\n\r\nPOST / HTTP/1.1\r\n\r\n").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    let expected = ["you asked for /one", "you asked for /two", "405"];
    let found: Vec<_> = expected.iter().map(|text| answers.find(text)).collect();
    assert!(found.iter().all(Option::is_some) && found.is_sorted(), "{answers}");
    server.stop();
}

#[test]
fn messages_adds_numbers_that_come_in_pieces_or_together() {
    let adder = Running::start("messages");
    let mut stream = adder.connect();
    for byte in b"17\n" {
        stream.write_all(&[*byte]).unwrap();
    }
    assert_eq!(read_line(&stream), "17\n");
    stream.write_all(b"20\nten\n5").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answers = String::new();
    stream.read_to_string(&mut answers).unwrap();
    assert_eq!(answers, "37\nno number: ten\n");
    adder.stop();
}

#[test]
fn admin_lists_limits_and_ends_connections() {
    let mut server = Running::spawn("admin", &[]);
    let admin_port = server.told_port("admin on ");
    server.port = server.told_port("listening on ");
    let mut admin = TcpStream::connect(("127.0.0.1", admin_port)).unwrap();
    admin.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let mut ask = |command: &str| {
        writeln!(admin, "{command}").unwrap();
        read_line(&admin)
    };

    let mut peer = server.connect();
    peer.write_all(b"x").unwrap();
    peer.read_exact(&mut [0]).unwrap();
    assert_eq!(ask("stats"), "1 live, 1 accepted, 0 bytes queued\n");
    let listed = ask("list");
    let peer_address = peer.local_addr().unwrap().to_string();
    assert!(listed.contains(&peer_address) && listed.contains(" waiting for "), "{listed}");
    assert_eq!(ask("limit 1"), "done\n");
    let mut waiting = server.connect();
    waiting.write_all(b"y").unwrap();
    let id = listed.split(' ').next().unwrap();
    assert_eq!(ask(&format!("kick {id}")), "done\n");
    assert_eq!(peer.read(&mut [0]).unwrap(), 0, "it is closed in order");
    drop(peer);
    waiting.read_exact(&mut [0]).unwrap();
    assert_eq!(ask(&format!("kick {id}")), "error: there is no such connection\n");
    assert!(ask("kick x").starts_with("error: 'x' is no connection id"));
    assert!(ask("limit 0").starts_with("error: limits.max_connections"));
    drop(waiting);
    server.stop();
}

#[test]
fn swap_shows_that_live_connections_keep_their_service() {
    let output = run("swap", &[]);
    let expected = "first client: the old service\n\
                    second client: the new service\n\
                    first client: the old service\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
}

#[test]
fn graceful_ends_two_in_order_and_one_at_the_deadline() {
    let output = run("graceful", &[]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("2 ended in order, 1 at the deadline"), "{text}");
    assert!(text.ends_with("the answer still came: the answer\n"), "{text}");
}
