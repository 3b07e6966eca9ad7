//! `onbytes connect`: stdin goes to the server, what it sends goes to stdout, until it ends.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;

use support::{Server, assert_quiet, client, finish, onbytes, one_line, run, serve_one};

#[test]
fn what_is_piped_in_comes_back_from_echo() {
    let server = Server::start(&["echo"]);
    let mut child = client(&[], server.addr.port());
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let output = finish(child);
    assert_quiet(&output);
    assert_eq!(output.stdout, b"hello\n");
    server.stop();
}

#[test]
fn sixty_four_mebibytes_come_back_from_echo() {
    let server = Server::start(&["echo"]);
    let mut child = client(&[], server.addr.port());
    let mut stdin = child.stdin.take().unwrap();
    // The length of the pattern is no multiple of anything, so that a byte too few shows.
    let pattern: Vec<u8> = (0..1_000_003u32).map(|i| (i ^ (i >> 9)) as u8).collect();
    let data = pattern.repeat(68);
    assert!(data.len() > 64 * 1024 * 1024);
    let sent = data.clone();
    let sending = thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = finish(child);
    assert_quiet(&output);
    assert!(output.stdout == data, "{} other bytes came back", output.stdout.len());
    sending.join().unwrap();
    server.stop();
}

#[test]
fn a_line_is_answered_while_stdin_stays_open() {
    let server = Server::start(&["echo"]);
    let mut child = client(&[], server.addr.port());
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    for _ in 0..10 {
        stdin.write_all(b"ping without a line's end").unwrap();
        let mut answer = [0; 25];
        stdout.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"ping without a line's end");
    }
    drop(stdin);
    assert_quiet(&finish(child));
    server.stop();
}

#[test]
fn the_end_of_stdin_is_passed_on_and_what_comes_then_is_printed() {
    let (port, serving) = serve_one(|mut stream| {
        let mut request = String::new();
        stream.read_to_string(&mut request).unwrap();
        stream.write_all(format!("got {request}").as_bytes()).unwrap();
    });
    let mut child = client(&[], port);
    child.stdin.take().unwrap().write_all(b"request").unwrap();
    let output = finish(child);
    assert_quiet(&output);
    assert_eq!(output.stdout, b"got request");
    serving.join().unwrap();
}

#[test]
fn a_server_that_ends_first_ends_the_client_though_stdin_is_open() {
    let (port, serving) = serve_one(|mut stream| stream.write_all(b"bye").unwrap());
    let mut child = client(&[], port);
    let stdin = child.stdin.take();
    let output = finish(child);
    assert_quiet(&output);
    assert_eq!(output.stdout, b"bye");
    drop(stdin);
    serving.join().unwrap();
}

#[test]
fn a_server_that_ends_first_ends_the_client_though_it_is_still_sending() {
    // The server ends its side, then reads what comes until the client has gone.
    let (port, serving) = serve_one(|mut stream| {
        stream.write_all(b"bye").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let mut child = client(&[], port);
    let mut stdin = child.stdin.take().unwrap();
    let sending = thread::spawn(move || while stdin.write_all(&[1; 65536]).is_ok() {});
    let output = finish(child);
    assert_quiet(&output);
    assert_eq!(output.stdout, b"bye");
    sending.join().unwrap();
    serving.join().unwrap();
}

#[test]
fn discard_takes_everything_and_says_nothing() {
    let server = Server::start(&["discard"]);
    let mut child = client(&[], server.addr.port());
    child.stdin.take().unwrap().write_all(&vec![1; 1_000_000]).unwrap();
    let output = finish(child);
    assert_quiet(&output);
    assert!(output.stdout.is_empty());
    server.stop();
}

#[test]
fn an_empty_stdin_is_an_end_too() {
    let server = Server::start(&["echo"]);
    let output = run(onbytes(&["connect", "localhost", &server.port()]));
    assert_quiet(&output);
    assert!(output.stdout.is_empty());
    server.stop();
}

#[test]
fn a_port_that_nobody_listens_on_is_told_with_exit_code_1() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let output = run(onbytes(&["connect", "127.0.0.1", &address.port().to_string()]));
    assert_eq!(output.status.code(), Some(1));
    let line = one_line(&output);
    assert!(line.contains(&address.to_string()) && line.contains("refused"), "{line}");
}

#[test]
fn a_reset_is_told_with_exit_code_1() {
    // Closing over a byte that was not read makes the kernel reset the connection.
    let (port, serving) = serve_one(|stream| {
        stream.peek(&mut [0]).unwrap();
    });
    let mut child = client(&[], port);
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"x").unwrap();
    let output = finish(child);
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("reset"));
    drop(stdin);
    serving.join().unwrap();
}

#[test]
fn a_silent_server_is_given_up_after_the_timeout() {
    let (port, serving) = serve_one(|mut stream| stream.read_to_end(&mut Vec::new()));
    let mut child = client(&["--timeout", "0.1"], port);
    let stdin = child.stdin.take();
    let output = finish(child);
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("--timeout"));
    drop(stdin);
    let _ = serving.join().unwrap();
}

#[test]
fn the_local_host_is_where_the_connection_comes_from() {
    let (port, serving) = serve_one(|stream| stream.peer_addr().unwrap());
    let child = client(&["--local-host", "127.0.0.2"], port);
    assert_quiet(&finish(child));
    assert_eq!(serving.join().unwrap().ip().to_string(), "127.0.0.2");

    let args = ["connect", "--local-host", "203.0.113.1", "127.0.0.1", "1"];
    let output = run(onbytes(&args));
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("--local-host"));
}

#[test]
fn a_stdin_that_cannot_be_read_is_told_with_exit_code_1() {
    let server = Server::start(&["echo"]);
    let mut command = onbytes(&["connect", "127.0.0.1", &server.port()]);
    command.stdin(std::fs::File::open("/").unwrap());
    let output = run(command);
    assert_eq!(output.status.code(), Some(1));
    assert!(one_line(&output).contains("cannot read stdin"));
    server.stop();
}
