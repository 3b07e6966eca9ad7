//! The client for request and reply: every request gets its own reply or an error, whatever the server and
//! the network do, and whichever futures are dropped.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onbytes::{
    Backoff, Bytes, ClientConfiguration, Error, ErrorKind, Framing, Heartbeat, Listener,
    ListenerConfiguration, Matching, RequestClient, RequestConfiguration, service_fn,
};
use support::{Rng, eventually, within};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

fn lines() -> RequestConfiguration {
    let backoff = Backoff::new().first(Duration::from_millis(5)).longest(Duration::from_millis(20));
    let client = ClientConfiguration::new().framing(Framing::lines());
    RequestConfiguration::new(client).reconnect(backoff)
}

/// Under a time limit that is waited for, and yet long enough for what has to happen within it.
fn short(config: RequestConfiguration) -> RequestConfiguration {
    config.timeout(Duration::from_secs(1))
}

/// The key of a line is its first word, in requests and replies.
fn by_first_word() -> Matching {
    let word = |line: &Bytes| {
        let end = line.iter().position(|byte| *byte == b' ')?;
        Some(line.slice(..end))
    };
    Matching::by_key(word, word)
}

/// A server whose part the test plays: each connection is given out.
struct Played {
    listener: TcpListener,
}

impl Played {
    async fn new() -> Self {
        Self { listener: TcpListener::bind("127.0.0.1:0").await.unwrap() }
    }

    fn client(&self, config: RequestConfiguration) -> RequestClient {
        RequestClient::new(self.listener.local_addr().unwrap(), config).unwrap()
    }

    /// Asks a request of a client that is not connected, and hears it.
    async fn is_asked(&self, client: &RequestClient, frame: &'static str) -> (Asked, Server) {
        let asked = asked(client, frame);
        let mut server = self.accept().await;
        assert_eq!(server.hears().await, frame);
        (asked, server)
    }

    async fn accept(&self) -> Server {
        let accepted = within("a connection", self.listener.accept()).await;
        Server(BufReader::new(accepted.unwrap().0))
    }
}

struct Server(BufReader<TcpStream>);

impl Server {
    /// The next request.
    async fn hears(&mut self) -> String {
        let mut line = String::new();
        within("a request", self.0.read_line(&mut line)).await.unwrap();
        line.trim_end().to_owned()
    }

    async fn says(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).await.unwrap();
    }

    /// Fails unless the client closes the connection without another request.
    async fn expect_left(mut self) {
        assert_eq!(self.hears().await, "");
    }
}

/// A request in a task of its own.
fn asked(client: &RequestClient, frame: &'static str) -> Asked {
    let client = client.clone();
    Asked(tokio::spawn(async move { client.request(frame).await }))
}

struct Asked(tokio::task::JoinHandle<onbytes::Result<Bytes>>);

impl Asked {
    async fn answer(self) -> onbytes::Result<Bytes> {
        within("an answer", self.0).await.unwrap()
    }

    async fn error(self) -> Error {
        self.answer().await.unwrap_err()
    }
}

#[tokio::test]
async fn a_request_gets_its_reply_though_it_comes_in_pieces() {
    let played = Played::new().await;
    let client = played.client(lines());
    let (asked, mut server) = played.is_asked(&client, "one").await;
    server.says("ON").await;
    tokio::task::yield_now().await;
    server.says("E\n").await;
    assert_eq!(asked.answer().await.unwrap(), "ONE");
    assert!(client.is_connected());
}

#[tokio::test]
async fn one_at_a_time_the_next_request_waits_for_the_reply() {
    let played = Played::new().await;
    let client = played.client(lines());
    let (first, mut server) = played.is_asked(&client, "one").await;
    let second = asked(&client, "two");
    server.says("1\n").await;
    assert_eq!(first.answer().await.unwrap(), "1");
    assert_eq!(server.hears().await, "two");
    server.says("2\n").await;
    assert_eq!(second.answer().await.unwrap(), "2");
}

#[tokio::test]
async fn a_late_reply_is_never_given_to_the_next_request() {
    let played = Played::new().await;
    let client = played.client(short(lines()));
    let (late, mut first) = played.is_asked(&client, "slow").await;
    let error = late.error().await;
    assert!(error.is_timeout() && error.to_string().contains("no reply came"), "{error}");
    let next = asked(&client, "quick");
    // The late reply, on the connection that was given up.
    let _ = first.0.get_mut().write_all(b"SLOW\n").await;
    let mut second = played.accept().await;
    assert_eq!(second.hears().await, "quick");
    second.says("QUICK\n").await;
    assert_eq!(next.answer().await.unwrap(), "QUICK");
    first.expect_left().await;
}

#[tokio::test]
async fn in_order_a_timeout_gives_up_those_behind_it_with_an_error_of_their_own() {
    let played = Played::new().await;
    let client = played.client(short(lines()).matching(Matching::InOrder(10)));
    let (first, mut server) = played.is_asked(&client, "one").await;
    // The one behind it has to have some time left when the first has none.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let second = asked(&client, "two");
    assert_eq!(server.hears().await, "two");
    assert!(first.error().await.is_timeout());
    let error = second.error().await;
    assert!(error.is_closed(), "{error:?}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("not answered in time"), "{cause}");
    server.expect_left().await;
}

#[tokio::test]
async fn many_requests_are_in_flight_and_answered_in_their_order() {
    let played = Played::new().await;
    let client = played.client(lines().matching(Matching::InOrder(3)));
    let mut server = None;
    let mut asks = Vec::new();
    for name in ["a", "b", "c", "d"] {
        asks.push(asked(&client, name));
        if server.is_none() {
            server = Some(played.accept().await);
        }
        if name != "d" {
            assert_eq!(server.as_mut().unwrap().hears().await, name);
        }
    }
    let mut server = server.unwrap();
    server.says("A\nB\n").await;
    assert_eq!(server.hears().await, "d");
    server.says("C\nD\n").await;
    for (ask, expected) in asks.into_iter().zip(["A", "B", "C", "D"]) {
        assert_eq!(ask.answer().await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_dropped_request_keeps_its_place_until_its_reply_has_come() {
    let played = Played::new().await;
    let client = played.client(lines().matching(Matching::InOrder(10)));
    let (dropped, mut server) = played.is_asked(&client, "one").await;
    let kept = asked(&client, "two");
    assert_eq!(server.hears().await, "two");
    dropped.0.abort();
    assert!(dropped.0.await.unwrap_err().is_cancelled());
    server.says("1\n2\n").await;
    assert_eq!(kept.answer().await.unwrap(), "2");
}

#[tokio::test]
async fn a_request_that_is_dropped_before_its_turn_is_never_sent() {
    let played = Played::new().await;
    let client = played.client(lines());
    let (first, mut server) = played.is_asked(&client, "one").await;
    let mut dropped = Box::pin(client.request("never"));
    assert!(support::poll_once(&mut dropped).is_pending());
    drop(dropped);
    let last = asked(&client, "last");
    server.says("1\n").await;
    assert_eq!(first.answer().await.unwrap(), "1");
    assert_eq!(server.hears().await, "last");
    server.says("3\n").await;
    assert_eq!(last.answer().await.unwrap(), "3");
}

#[tokio::test]
async fn by_key_replies_come_in_any_order_and_late_ones_answer_nothing() {
    let played = Played::new().await;
    let (tell, mut unmatched) = mpsc::unbounded_channel();
    let config = short(lines()).matching(by_first_word());
    let client = played.client(config.on_unmatched(move |frame| drop(tell.send(frame))));
    let (late, mut server) = played.is_asked(&client, "1 slow").await;
    assert!(late.error().await.is_timeout());
    // The connection stays, and so do others' requests; the lost key is not used again.
    let refused = asked(&client, "1 again").error().await;
    assert_eq!(refused.kind(), ErrorKind::State);
    assert!(refused.to_string().contains("use another key"), "{refused}");
    let two = asked(&client, "2 x");
    assert_eq!(server.hears().await, "2 x");
    let three = asked(&client, "3 y");
    assert_eq!(server.hears().await, "3 y");
    let twin = asked(&client, "3 twin").error().await;
    assert_eq!(twin.kind(), ErrorKind::State);
    server.says("news for all\n3 Y\n1 SLOW\n2 X\n").await;
    assert_eq!(two.answer().await.unwrap(), "2 X");
    assert_eq!(three.answer().await.unwrap(), "3 Y");
    for expected in ["news for all", "1 SLOW"] {
        assert_eq!(within("what answers nothing", unmatched.recv()).await.unwrap(), expected);
    }
    // Now it was answered, so its key is free.
    let again = asked(&client, "1 again");
    assert_eq!(server.hears().await, "1 again");
    server.says("1 AGAIN\n").await;
    assert_eq!(again.answer().await.unwrap(), "1 AGAIN");
}

#[tokio::test]
async fn a_request_without_a_key_or_that_is_no_frame_is_refused_alone() {
    let played = Played::new().await;
    let client = played.client(lines().matching(by_first_word()));
    assert_eq!(client.request("nokey").await.unwrap_err().kind(), ErrorKind::State);
    assert_eq!(client.request("two\nlines").await.unwrap_err().kind(), ErrorKind::Frame);
    let (asked, mut server) = played.is_asked(&client, "1 fine").await;
    server.says("1 FINE\n").await;
    assert_eq!(asked.answer().await.unwrap(), "1 FINE");
}

#[tokio::test]
async fn what_comes_unasked_is_no_reply_to_a_later_request() {
    let played = Played::new().await;
    let (tell, mut unmatched) = mpsc::unbounded_channel();
    let client = played.client(lines().on_unmatched(move |frame| drop(tell.send(frame))));
    let mut server = played.accept().await;
    server.says("welcome\nnotice\n").await;
    assert_eq!(within("it", unmatched.recv()).await.unwrap(), "welcome");
    assert_eq!(within("it", unmatched.recv()).await.unwrap(), "notice");
    let asked = asked(&client, "one");
    assert_eq!(server.hears().await, "one");
    server.says("1\n").await;
    assert_eq!(asked.answer().await.unwrap(), "1");
}

#[tokio::test]
async fn requests_in_flight_fail_with_their_connection_and_others_take_the_next() {
    let played = Played::new().await;
    let client = played.client(lines());
    let (lost, mut server) = played.is_asked(&client, "one").await;
    let waiting = asked(&client, "two");
    server.says("half a rep").await;
    drop(server);
    let error = lost.error().await;
    assert!(error.is_closed(), "{error:?}");
    let mut server = played.accept().await;
    assert_eq!(server.hears().await, "two", "what was in flight is not sent again");
    server.says("2\n").await;
    assert_eq!(waiting.answer().await.unwrap(), "2");
}

#[tokio::test]
async fn a_server_that_sends_no_frames_is_left_and_tried_again() {
    let played = Played::new().await;
    let client = ClientConfiguration::new().framing(Framing::lines().max_frame(10));
    let client = played.client(
        RequestConfiguration::new(client).reconnect(Backoff::new().first(Duration::from_millis(5))),
    );
    let (lost, mut server) = played.is_asked(&client, "one").await;
    server.says("much too long a line\n").await;
    let error = lost.error().await;
    assert!(error.is_closed(), "{error:?}");
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("is the most"), "{cause}");
    let (again, mut server) = played.is_asked(&client, "two").await;
    server.says("2\n").await;
    assert_eq!(again.answer().await.unwrap(), "2");
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    // A port that nobody listens on.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let client = RequestClient::new(address, short(lines())).unwrap();
    let error = within("the time", client.request("one")).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert!(error.to_string().contains("no connection within"), "{error}");
    assert!(std::error::Error::source(&error).is_some(), "it says why");
    let listener = socket.listen(8).unwrap();
    let played = Played { listener };
    let client = RequestClient::new(address, lines()).unwrap();
    let asked = asked(&client, "two");
    let mut server = played.accept().await;
    // The other client has come, too, perhaps first.
    let mut line = server.hears().await;
    while line.is_empty() {
        server = played.accept().await;
        line = server.hears().await;
    }
    server.says("2\n").await;
    assert_eq!(asked.answer().await.unwrap(), "2");
}

#[tokio::test]
async fn connect_tells_why_the_first_connection_cannot_be_made() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    let error = within("it", RequestClient::connect(address, lines())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
    let bare = RequestConfiguration::new(ClientConfiguration::new());
    let error = RequestClient::new(address, bare).unwrap_err();
    assert!(error.is_configuration() && error.to_string().contains("framing"), "{error}");
}

#[tokio::test]
async fn without_reconnecting_the_client_is_over_with_its_connection() {
    let played = Played::new().await;
    let client = played.client(lines().reconnect(None));
    let server = played.accept().await;
    drop(server);
    eventually("the end", || !client.is_connected()).await;
    let error = within("it", client.request("one")).await.unwrap_err();
    assert!(error.is_closed(), "{error:?}");
}

#[tokio::test]
async fn more_requests_than_may_wait_are_refused_at_once() {
    let played = Played::new().await;
    let client = played.client(lines().max_waiting(2));
    let (first, mut server) = played.is_asked(&client, "one").await;
    let waiting = [asked(&client, "two"), asked(&client, "three")];
    let full = loop {
        // The two are on their way to the line.
        match tokio::time::timeout(Duration::from_millis(1), client.request("four")).await {
            Ok(result) => break result.unwrap_err(),
            Err(_) => tokio::task::yield_now().await,
        }
    };
    assert!(full.is_full(), "{full:?}");
    server.says("1\n").await;
    assert_eq!(first.answer().await.unwrap(), "1");
    drop(waiting);
}

#[tokio::test]
async fn heartbeats_are_sent_in_silence_and_tell_of_a_dead_connection() {
    let played = Played::new().await;
    let heartbeat = Heartbeat::new("ping", Duration::from_millis(20)).expects_reply(true);
    let client = played.client(short(lines()).heartbeat(heartbeat));
    let mut server = played.accept().await;
    for _ in 0..3 {
        assert_eq!(server.hears().await, "ping");
        server.says("pong\n").await;
    }
    // A request between heartbeats is answered by its own reply.
    let asked = asked(&client, "one");
    loop {
        match server.hears().await.as_str() {
            "ping" => server.says("pong\n").await,
            other => {
                assert_eq!(other, "one");
                break server.says("1\n").await;
            }
        }
    }
    assert_eq!(asked.answer().await.unwrap(), "1");
    // Now it says nothing any more, and is left for a new connection.
    let mut second = played.accept().await;
    assert_eq!(second.hears().await, "ping");
}

#[tokio::test]
async fn a_heartbeat_without_reply_takes_no_turn() {
    let played = Played::new().await;
    let client =
        played.client(lines().heartbeat(Heartbeat::new("still here", Duration::from_millis(20))));
    let mut server = played.accept().await;
    assert_eq!(server.hears().await, "still here");
    assert_eq!(server.hears().await, "still here");
    let asked = asked(&client, "one");
    while server.hears().await != "one" {}
    server.says("1\n").await;
    assert_eq!(asked.answer().await.unwrap(), "1");
}

#[tokio::test]
async fn close_waits_for_what_is_in_flight_and_refuses_the_rest() {
    let played = Played::new().await;
    let client = played.client(lines());
    let (first, mut server) = played.is_asked(&client, "one").await;
    let second = asked(&client, "two");
    let closing = tokio::spawn({
        let client = client.clone();
        async move { client.close().await }
    });
    assert!(second.error().await.is_closed());
    assert!(client.request("three").await.unwrap_err().is_closed());
    server.says("1\n").await;
    assert_eq!(first.answer().await.unwrap(), "1");
    within("the end", closing).await.unwrap();
    server.expect_left().await;
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_connection() {
    let played = Played::new().await;
    let client = played.client(lines());
    let server = played.accept().await;
    let other = client.clone();
    drop(client);
    drop(other);
    server.expect_left().await;
}

#[test]
fn requests_of_another_runtime_fail_when_the_clients_has_gone() {
    let own = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let own = own.unwrap();
    let (played, client) = own.block_on(async {
        let played = Played::new().await;
        let client = played.client(lines());
        (played, client)
    });
    let other = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    other.block_on(async {
        let mut asked = Box::pin(client.request("one"));
        assert!(support::poll_once(&mut asked).is_pending());
        own.shutdown_background();
        assert!(within("the end", asked).await.unwrap_err().is_closed());
    });
    drop(played);
}

/// Serves lines; those of other words than `slow` are echoed in capitals at once.
async fn echo() -> Listener {
    let config = ListenerConfiguration::new().framing(Framing::lines());
    let listener = Listener::new(("127.0.0.1", 0), config).unwrap();
    listener.attach(service_fn(|_| async {
        Ok(|line: Bytes| async move { Ok(Some(Bytes::from(line.to_ascii_uppercase()))) })
    }));
    listener.start().await.unwrap();
    listener
}

#[tokio::test]
async fn thousands_of_requests_of_several_tasks_get_their_own_replies_though_many_are_dropped() {
    for matching in [Matching::OneAtATime, Matching::InOrder(50), by_first_word()] {
        let listener = echo().await;
        let config = lines().matching(matching).max_waiting(5_000);
        let client = RequestClient::connect(listener.local_addr().unwrap(), config).await.unwrap();
        let answered = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..4u64)
            .map(|task| {
                let (client, answered) = (client.clone(), answered.clone());
                tokio::spawn(async move {
                    let mut rng = Rng::new(task);
                    for number in 0..500 {
                        let name = format!("{task}-{number} x");
                        let mut asking = Box::pin(client.request(name.clone()));
                        if rng.below(4) == 0 {
                            for _ in 0..rng.below(4) {
                                if support::poll_once(&mut asking).is_ready() {
                                    break;
                                }
                                tokio::task::yield_now().await;
                            }
                            continue;
                        }
                        assert_eq!(asking.await.unwrap(), name.to_uppercase());
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        for task in tasks {
            within("the requests", task).await.unwrap();
        }
        assert!(answered.load(Ordering::Relaxed) > 1_000);
    }
}

#[tokio::test]
async fn a_flood_that_nobody_asked_for_does_not_keep_requests_from_their_time_limit() {
    let played = Played::new().await;
    let client = played.client(short(lines()).matching(by_first_word()));
    let (asked, mut server) = played.is_asked(&client, "1 x").await;
    let flooding = tokio::spawn(async move {
        loop {
            if server.0.get_mut().write_all(&b"noise\n".repeat(1000)).await.is_err() {
                break;
            }
        }
    });
    assert!(asked.error().await.is_timeout());
    drop(client);
    within("the end", flooding).await.unwrap();
}
