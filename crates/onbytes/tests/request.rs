//! The request client: whoever asks gets its own answer or an error, whatever the server, the connection
//! and other askers do. The servers are played by hand.

mod support;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use onbytes::{
    Backoff, Bytes, ClientConfiguration, Error, ErrorKind, Framing, Heartbeat, Matching,
    RequestClient, RequestConfiguration, Result,
};
use support::{PATIENCE, Rng, eventually, poll_once, within};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

/// A time limit that is meant to pass.
const SHORT: Duration = Duration::from_millis(100);
/// One that is meant to pass once, and not when the server answers at once.
const AMPLE: Duration = Duration::from_secs(1);

/// A server that the test plays, by lines.
struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    async fn accept(&self) -> Side {
        let (stream, _) = within("the accept", self.listener.accept()).await.unwrap();
        Side { stream: BufReader::new(stream) }
    }
}

/// The server's side of one connection.
struct Side {
    stream: BufReader<TcpStream>,
}

impl Side {
    /// The next line; `None` at the end, however it comes.
    async fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        match within("a line", self.stream.read_line(&mut line)).await {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(line.trim_end().to_owned()),
        }
    }

    async fn expect(&mut self, line: &str) {
        assert_eq!(self.line().await.as_deref(), Some(line));
    }

    /// Fails unless the client has ended the connection and sent no more lines.
    async fn expect_end(&mut self) {
        assert_eq!(self.line().await, None);
    }

    async fn say(&mut self, text: &str) {
        within("sending", self.stream.get_mut().write_all(text.as_bytes())).await.unwrap();
    }

    fn reset(self) {
        let stream = self.stream.into_inner();
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    }
}

/// Lines, and a client that does not wait long before it connects again.
fn lines() -> RequestConfiguration {
    with(Framing::lines())
}

fn with(framing: Framing) -> RequestConfiguration {
    let backoff = Backoff::new().first(Duration::from_millis(5)).longest(Duration::from_millis(50));
    RequestConfiguration::new(ClientConfiguration::new().framing(framing)).reconnect(backoff)
}

/// What stands before the colon belongs together: `7:question`, `7:answer`.
fn by_number() -> Matching {
    Matching::by_key(number_of, number_of)
}

fn number_of(frame: &Bytes) -> Option<Bytes> {
    let end = frame.iter().position(|byte| *byte == b':')?;
    Some(frame.slice(..end))
}

fn all_matchings() -> [Matching; 3] {
    [Matching::OneAtATime, Matching::InOrder(16), by_number()]
}

/// A client, its server, and the server's side of their first connection.
async fn pair(config: RequestConfiguration) -> (RequestClient, Server, Side) {
    let server = Server::new().await;
    let connecting = RequestClient::connect(server.address, config);
    let client = within("connecting", connecting).await.unwrap();
    let side = server.accept().await;
    (client, server, side)
}

/// Hands a request over now and waits for its reply elsewhere.
fn ask(client: &RequestClient, frame: impl Into<Bytes>) -> Asked {
    let (client, frame) = (client.clone(), frame.into());
    let mut request = Box::pin(async move { client.request(frame).await });
    match poll_once(&mut request) {
        Poll::Ready(result) => Asked(tokio::spawn(async { result })),
        Poll::Pending => Asked(tokio::spawn(request)),
    }
}

struct Asked(tokio::task::JoinHandle<Result<Bytes>>);

impl Asked {
    async fn reply(self) -> Result<Bytes> {
        within("the reply", self.0).await.unwrap()
    }

    async fn expect(self, reply: &str) {
        assert_eq!(self.reply().await.unwrap(), reply);
    }

    async fn error(self) -> Error {
        self.reply().await.unwrap_err()
    }

    async fn expect_error(self, kind: ErrorKind) {
        let error = self.error().await;
        assert_eq!(error.kind(), kind, "{error}");
    }
}

/// A configuration whose unmatched frames go into a channel.
fn noting(config: RequestConfiguration) -> (RequestConfiguration, UnboundedReceiver<Bytes>) {
    let (notes, noted) = unbounded_channel();
    let config = config.on_unmatched(move |frame| {
        let _ = notes.send(frame);
    });
    (config, noted)
}

async fn next(noted: &mut UnboundedReceiver<Bytes>) -> Bytes {
    within("an unmatched frame", noted.recv()).await.expect("the client is there")
}

// ---- Asking ----

#[tokio::test]
async fn a_reply_is_whole_in_whatever_pieces_it_comes() {
    let (client, _server, mut side) = pair(lines()).await;
    for reply in ["one", "", "three of them"] {
        let asked = ask(&client, "request");
        side.expect("request").await;
        for byte in format!("{reply}\n").chars() {
            side.say(&byte.to_string()).await;
            tokio::task::yield_now().await;
        }
        asked.expect(reply).await;
    }
}

#[tokio::test]
async fn two_replies_in_one_piece_are_two() {
    let (client, _server, mut side) = pair(lines().matching(Matching::InOrder(2))).await;
    let (first, second) = (ask(&client, "first"), ask(&client, "second"));
    side.expect("first").await;
    side.expect("second").await;
    side.say("1\n2\n").await;
    first.expect("1").await;
    second.expect("2").await;
}

#[tokio::test]
async fn by_key_replies_may_come_in_any_order() {
    let (client, _server, mut side) = pair(lines().matching(by_number())).await;
    let asked: Vec<_> = (0..10).map(|number| ask(&client, format!("{number}:question"))).collect();
    for number in 0..10 {
        side.expect(&format!("{number}:question")).await;
    }
    for number in (0..10).rev() {
        side.say(&format!("{number}:answer\n")).await;
    }
    for (number, asked) in asked.into_iter().enumerate() {
        asked.expect(&format!("{number}:answer")).await;
    }
}

#[tokio::test]
async fn one_at_a_time_sends_nothing_before_the_reply() {
    let (client, _server, mut side) = pair(lines()).await;
    let first = ask(&client, "first");
    let mut second = Box::pin(client.request("second"));
    assert!(poll_once(&mut second).is_pending());
    side.expect("first").await;
    // It was not sent, so it never is.
    drop(second);
    let third = ask(&client, "third");
    side.say("1\n").await;
    first.expect("1").await;
    side.expect("third").await;
    side.say("3\n").await;
    third.expect("3").await;
}

#[tokio::test]
async fn no_more_than_the_most_are_sent_before_a_reply() {
    let (client, _server, mut side) = pair(lines().matching(Matching::InOrder(2))).await;
    let asked = [ask(&client, "1"), ask(&client, "2")];
    let mut unsent = Box::pin(client.request("unsent"));
    assert!(poll_once(&mut unsent).is_pending());
    side.expect("1").await;
    side.expect("2").await;
    drop(unsent);
    let last = ask(&client, "3");
    side.say("one\n").await;
    side.expect("3").await;
    side.say("two\nthree\n").await;
    for (asked, reply) in asked.into_iter().zip(["one", "two"]) {
        asked.expect(reply).await;
    }
    last.expect("three").await;
}

#[tokio::test]
async fn thousands_of_requests_of_two_tasks_get_their_own_answers_each() {
    for matching in all_matchings() {
        let reorders = matches!(matching, Matching::ByKey(_));
        let server = Server::new().await;
        let config = lines().matching(matching);
        let client = RequestClient::new(server.address, config).unwrap();
        let tasks = [0, 1].map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                for round in 0..100 {
                    let mut asked = JoinSet::new();
                    for place in 0..10 {
                        let client = client.clone();
                        let question = format!("{task}.{round}.{place}:question");
                        let answer = format!("{task}.{round}.{place}:answer to question");
                        asked.spawn(async move {
                            assert_eq!(client.request(question).await.unwrap(), answer);
                        });
                    }
                    while let Some(done) = asked.join_next().await {
                        done.unwrap();
                    }
                }
            })
        });
        let answering = tokio::spawn(answer_all(server.accept().await, reorders));
        for task in tasks {
            within("the answers", task).await.unwrap();
        }
        answering.abort();
    }
}

/// Answers every line; where it may, in another order.
async fn answer_all(mut side: Side, reorders: bool) {
    let mut rest = Vec::new();
    loop {
        if side.stream.read_buf(&mut rest).await.unwrap_or(0) == 0 {
            return;
        }
        let whole = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        let text = String::from_utf8(rest.drain(..whole).collect()).unwrap();
        let mut answers: Vec<_> =
            text.lines().map(|line| line.replace(':', ":answer to ") + "\n").collect();
        if reorders {
            answers.reverse();
        }
        if side.stream.get_mut().write_all(answers.concat().as_bytes()).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn a_message_that_cannot_be_a_frame_concerns_nobody_else() {
    let (client, _server, mut side) = pair(lines().matching(Matching::InOrder(8))).await;
    let before = ask(&client, "before");
    ask(&client, "two\nlines").expect_error(ErrorKind::Frame).await;
    let after = ask(&client, "after");
    side.expect("before").await;
    side.expect("after").await;
    side.say("1\n2\n").await;
    before.expect("1").await;
    after.expect("2").await;
}

#[tokio::test]
async fn a_request_without_a_key_is_refused_before_anything_is_sent() {
    let (client, _server, mut side) = pair(lines().matching(by_number())).await;
    ask(&client, "no key").expect_error(ErrorKind::State).await;
    let asked = ask(&client, "1:question");
    side.expect("1:question").await;
    side.say("1:answer\n").await;
    asked.expect("1:answer").await;
}

#[tokio::test]
async fn a_key_that_is_under_way_is_refused() {
    let (client, _server, mut side) = pair(lines().matching(by_number())).await;
    let first = ask(&client, "1:first");
    ask(&client, "1:second").expect_error(ErrorKind::State).await;
    side.expect("1:first").await;
    side.say("1:answer\n").await;
    first.expect("1:answer").await;
    let third = ask(&client, "1:third");
    side.expect("1:third").await;
    side.say("1:another answer\n").await;
    third.expect("1:another answer").await;
}

// ---- Timeouts, and callers that leave ----

#[tokio::test]
async fn a_late_reply_in_order_answers_nothing_because_the_connection_is_replaced() {
    for matching in [Matching::OneAtATime, Matching::InOrder(4)] {
        let config = lines().matching(matching).timeout(AMPLE);
        let (client, server, mut side) = pair(config).await;
        let late = ask(&client, "late");
        side.expect("late").await;
        late.expect_error(ErrorKind::Timeout).await;
        // The reply comes now, if it still can.
        let _ = side.stream.get_mut().write_all(b"the late reply\n").await;
        side.expect_end().await;
        let mut side = server.accept().await;
        let asked = ask(&client, "next");
        side.expect("next").await;
        side.say("the next reply\n").await;
        asked.expect("the next reply").await;
    }
}

#[tokio::test]
async fn a_late_reply_by_key_is_unmatched_and_frees_its_key() {
    let (config, mut noted) = noting(lines().matching(by_number()).timeout(AMPLE));
    let (client, _server, mut side) = pair(config).await;
    let late = ask(&client, "1:late");
    side.expect("1:late").await;
    late.expect_error(ErrorKind::Timeout).await;
    ask(&client, "1:again").expect_error(ErrorKind::State).await;
    // The same connection serves others.
    let other = ask(&client, "2:other");
    side.expect("2:other").await;
    side.say("1:late answer\n2:answer\n").await;
    other.expect("2:answer").await;
    assert_eq!(next(&mut noted).await, "1:late answer");
    let again = ask(&client, "1:again");
    side.expect("1:again").await;
    side.say("1:answer\n").await;
    again.expect("1:answer").await;
}

#[tokio::test]
async fn whoever_leaves_keeps_the_place_and_nobody_gets_the_reply() {
    for matching in [Matching::OneAtATime, Matching::InOrder(4), by_number()] {
        let (config, mut noted) = noting(lines().matching(matching));
        let (client, _server, mut side) = pair(config).await;
        let mut gone = Box::pin(client.request("1:gone"));
        assert!(poll_once(&mut gone).is_pending());
        side.expect("1:gone").await;
        drop(gone);
        let stays = ask(&client, "2:stays");
        side.say("1:for the one who left\n").await;
        side.expect("2:stays").await;
        side.say("2:for the one who stays\n3:unasked\n").await;
        stays.expect("2:for the one who stays").await;
        assert_eq!(next(&mut noted).await, "3:unasked");
    }
}

#[tokio::test]
async fn requests_time_out_while_the_server_talks_without_end() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counting = Arc::clone(&seen);
    let config = lines().timeout(SHORT).matching(by_number()).on_unmatched(move |_| {
        counting.fetch_add(1, Ordering::Relaxed);
    });
    let (client, server, mut side) = pair(config).await;
    let flood = tokio::spawn(async move {
        let noise = "noise without a key\n".repeat(1000);
        while side.stream.get_mut().write_all(noise.as_bytes()).await.is_ok() {}
    });
    eventually("the flood", || seen.load(Ordering::Relaxed) > 1000).await;
    ask(&client, "1:question").expect_error(ErrorKind::Timeout).await;
    drop(client);
    within("the end of the flood", flood).await.unwrap();
    drop(server);
}

#[tokio::test]
async fn frames_that_answer_nothing_are_told_in_their_order() {
    for matching in all_matchings() {
        let (config, mut noted) = noting(lines().matching(matching));
        let (client, _server, mut side) = pair(config).await;
        let talk: String = (0..20_000).map(|number| format!("news {number}\n")).collect();
        let telling = tokio::spawn(async move {
            side.say(&talk).await;
            side
        });
        for number in 0..20_000 {
            assert_eq!(next(&mut noted).await, format!("news {number}"));
        }
        let mut side = within("the talk", telling).await.unwrap();
        let asked = ask(&client, "1:question");
        side.expect("1:question").await;
        side.say("1:answer\n").await;
        asked.expect("1:answer").await;
        assert!(noted.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_greeting_on_a_new_connection_is_told() {
    let (config, mut noted) = noting(lines());
    let server = Server::new().await;
    let _client = RequestClient::new(server.address, config).unwrap();
    server.accept().await.say("220 ready\n").await;
    assert_eq!(next(&mut noted).await, "220 ready");
}

#[tokio::test]
async fn a_request_that_the_server_does_not_read_holds_up_nobody_for_longer_than_its_time() {
    for matching in all_matchings() {
        let (client, server, mut side) = pair(lines().matching(matching).timeout(AMPLE)).await;
        // More than all buffers between take.
        let unread = ask(&client, format!("1:{}", "much".repeat(4 << 20)));
        unread.expect_error(ErrorKind::Timeout).await;
        let mut next = server.accept().await;
        let mut rest = Vec::new();
        let end = within("the reset", side.stream.read_to_end(&mut rest)).await;
        assert!(end.is_err() && rest.len() < 16 << 20, "all of it was sent");
        let asked = ask(&client, "2:question");
        next.expect("2:question").await;
        next.say("2:answer\n").await;
        asked.expect("2:answer").await;
    }
}

// ---- Lost connections ----

/// What the server does to a connection with a request under way, and what the request fails with.
type Fate = (fn(Side) -> BoxedFuture, ErrorKind);
type BoxedFuture = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

const FATES: [Fate; 4] = [
    (|side| Box::pin(async { drop(side) }), ErrorKind::Closed),
    (|side| Box::pin(async { side.reset() }), ErrorKind::Reset),
    (|mut side| Box::pin(async move { side.say("half a rep").await }), ErrorKind::Frame),
    (
        |mut side| {
            Box::pin(async move {
                side.say(&"too long".repeat(1000)).await;
                side.expect_end().await;
            })
        },
        ErrorKind::Frame,
    ),
];

/// Why the connection of a request was lost.
fn cause_of(error: &Error) -> &Error {
    std::error::Error::source(error).unwrap().downcast_ref().unwrap()
}

#[tokio::test]
async fn a_framing_under_which_a_reply_may_be_cut_or_missing_is_refused() {
    for (text, matching) in [
        ("lines,oversize=truncate", by_number()),
        ("lines,partial=deliver", Matching::OneAtATime),
        ("lines,oversize=skip", Matching::OneAtATime),
        ("cobs,malformed=skip", Matching::InOrder(2)),
    ] {
        let config = with(text.parse().unwrap()).matching(matching);
        let error = config.check().unwrap_err();
        assert!(error.is_configuration() && error.to_string().contains("framing"), "{error}");
    }
    assert!(with("lines,oversize=skip".parse().unwrap()).matching(by_number()).check().is_ok());
}

#[tokio::test]
async fn with_the_connection_those_under_way_fail_and_those_unsent_go_over_the_next_one() {
    for (fate, kind) in FATES {
        let config = with(Framing::lines().max_frame(4096));
        let (client, server, mut side) = pair(config).await;
        let (under_way, unsent) = (ask(&client, "under way"), ask(&client, "unsent"));
        side.expect("under way").await;
        within("the fate", fate(side)).await;
        let error = under_way.error().await;
        assert_eq!(error.kind(), ErrorKind::Closed, "{error}");
        assert_eq!(cause_of(&error).kind(), kind, "{error:?}");
        let mut side = server.accept().await;
        // Nothing is sent twice.
        side.expect("unsent").await;
        side.say("answer\n").await;
        unsent.expect("answer").await;
        eventually("a connection", || client.is_connected()).await;
    }
}

#[tokio::test]
async fn with_the_connection_all_under_way_fail() {
    for matching in [Matching::InOrder(16), by_number()] {
        let (client, _server, mut side) = pair(lines().matching(matching)).await;
        let asked: Vec<_> = (0..10).map(|number| ask(&client, format!("{number}:"))).collect();
        for number in 0..10 {
            side.expect(&format!("{number}:")).await;
        }
        side.say("0:answer\n").await;
        let mut asked = asked.into_iter();
        asked.next().unwrap().expect("0:answer").await;
        drop(side);
        for asked in asked {
            asked.expect_error(ErrorKind::Closed).await;
        }
    }
}

#[tokio::test]
async fn replies_that_came_before_the_end_are_delivered() {
    for matching in [Matching::InOrder(16), by_number()] {
        let (client, _server, mut side) = pair(lines().matching(matching)).await;
        let asked = [ask(&client, "1:"), ask(&client, "2:")];
        side.expect("1:").await;
        side.expect("2:").await;
        side.say("1:a\n2:b\n").await;
        drop(side);
        for (asked, reply) in asked.into_iter().zip(["1:a", "2:b"]) {
            asked.expect(reply).await;
        }
    }
}

/// A port that nobody listens on, and that nobody else can have: `listen` makes a server of it.
fn silent() -> (TcpSocket, SocketAddr) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

#[tokio::test]
async fn a_server_that_comes_later_is_found_without_being_asked_for() {
    let (socket, address) = silent();
    let client = RequestClient::new(address, lines().timeout(AMPLE)).unwrap();
    // That there was an attempt is told by the cause.
    let error = loop {
        let error = ask(&client, "too early").error().await;
        assert_eq!(error.kind(), ErrorKind::Timeout);
        if std::error::Error::source(&error).is_some() {
            break error;
        }
    };
    let cause = std::error::Error::source(&error).unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!(cause.kind(), ErrorKind::Connect);
    assert!(!client.is_connected());
    let server = Server { listener: socket.listen(8).unwrap(), address };
    let mut side = server.accept().await;
    eventually("the connection", || client.is_connected()).await;
    let asked = ask(&client, "in time");
    side.expect("in time").await;
    side.say("answer\n").await;
    asked.expect("answer").await;
}

#[tokio::test]
async fn requests_wait_for_a_connection_up_to_their_number() {
    let (socket, address) = silent();
    let client = RequestClient::new(address, lines().max_waiting(2)).unwrap();
    let asked = [ask(&client, "1"), ask(&client, "2")];
    ask(&client, "3").expect_error(ErrorKind::Full).await;
    let mut leaves = Box::pin(client.request("4"));
    let error = within("the refusal", &mut leaves).await.unwrap_err();
    assert!(error.is_full() && error.to_string().contains("max_waiting"), "{error}");
    let server = Server { listener: socket.listen(8).unwrap(), address };
    let mut side = server.accept().await;
    for (asked, text) in asked.into_iter().zip(["1", "2"]) {
        side.expect(text).await;
        side.say("answer\n").await;
        asked.expect("answer").await;
    }
}

#[tokio::test]
async fn a_server_that_hangs_up_at_once_is_called_again_and_again() {
    let server = Server::new().await;
    let backoff = Backoff::new().first(Duration::from_millis(20));
    let config = lines().reconnect(backoff);
    let _client = RequestClient::new(server.address, config).unwrap();
    for _ in 0..4 {
        // Even where it greets before. How long the pauses are is looked at where they are reckoned.
        server.accept().await.say("hello and goodbye\n").await;
    }
}

#[tokio::test]
async fn without_reconnecting_the_client_is_over_when_its_connection_is() {
    let (client, server, mut side) = pair(lines().reconnect(None)).await;
    let (under_way, unsent) = (ask(&client, "under way"), ask(&client, "unsent"));
    side.expect("under way").await;
    drop(side);
    under_way.expect_error(ErrorKind::Closed).await;
    unsent.expect_error(ErrorKind::Closed).await;
    ask(&client, "later").expect_error(ErrorKind::Closed).await;
    assert!(!client.is_connected());
    // It is over already.
    within("closing", client.close()).await;
    drop(client);
    let again = tokio::time::timeout(SHORT, server.listener.accept()).await;
    assert!(again.is_err(), "it connected again");
}

#[tokio::test]
async fn without_reconnecting_a_connection_that_cannot_be_made_is_told_to_those_who_wait() {
    let (_socket, address) = silent();
    let client = RequestClient::new(address, lines().reconnect(None)).unwrap();
    ask(&client, "request").expect_error(ErrorKind::Connect).await;
    let error = RequestClient::connect(address, lines()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Connect);
}

// ---- What the user's functions do ----

#[tokio::test]
async fn a_panic_in_a_function_of_the_user_ends_the_connection_and_no_more() {
    let reply_key = |frame: &Bytes| {
        assert!(frame != "1:bad", "this panic belongs to the test");
        number_of(frame)
    };
    let config = lines().matching(Matching::by_key(number_of, reply_key)).on_unmatched(|frame| {
        assert!(frame != "9:worse", "this panic belongs to the test");
    });
    let (client, server, mut side) = pair(config).await;
    for said in ["1:bad\n", "9:worse\n"] {
        let asked = ask(&client, "1:question");
        side.expect("1:question").await;
        side.say(said).await;
        let error = asked.error().await;
        assert_eq!(cause_of(&error).kind(), ErrorKind::Service, "{error:?}");
        side = server.accept().await;
    }
    let asked = ask(&client, "1:question");
    side.expect("1:question").await;
    side.say("1:answer\n").await;
    asked.expect("1:answer").await;
}

// ---- Heartbeats ----

#[tokio::test]
async fn heartbeats_are_sent_in_silence_and_their_replies_are_given_to_nobody() {
    for matching in [Matching::OneAtATime, Matching::InOrder(4), by_number()] {
        let beat = Heartbeat::new("0:ping", Duration::from_millis(20)).expects_reply(true);
        let (config, mut noted) = noting(lines().matching(matching).heartbeat(beat));
        let (client, _server, mut side) = pair(config).await;
        for _ in 0..3 {
            side.expect("0:ping").await;
            side.say("0:pong\n").await;
        }
        let asked = ask(&client, "1:question");
        loop {
            match side.line().await.expect("the connection stays").as_str() {
                "0:ping" => side.say("0:pong\n").await,
                other => break assert_eq!(other, "1:question"),
            }
        }
        side.say("1:answer\n").await;
        asked.expect("1:answer").await;
        assert!(noted.try_recv().is_err());
    }
}

#[tokio::test]
async fn a_heartbeat_that_nobody_answers_takes_no_place() {
    let beat = Heartbeat::new("ping", Duration::from_millis(20));
    let (client, _server, mut side) = pair(lines().heartbeat(beat)).await;
    let asked = ask(&client, "slow");
    side.expect("slow").await;
    // Also while a request is under way.
    side.expect("ping").await;
    side.expect("ping").await;
    side.say("answer\n").await;
    asked.expect("answer").await;
}

#[tokio::test]
async fn a_heartbeat_that_is_not_answered_replaces_the_connection() {
    for matching in [Matching::OneAtATime, by_number()] {
        // By far longer than the timeout, which has to be noticed by itself.
        let beat = Heartbeat::new("0:ping", 3 * SHORT).expects_reply(true);
        let config = lines().matching(matching).timeout(SHORT).heartbeat(beat);
        let (_client, server, mut side) = pair(config).await;
        side.expect("0:ping").await;
        let mut next = server.accept().await;
        side.expect_end().await;
        if let Some(line) = next.line().await {
            assert_eq!(line, "0:ping");
        }
    }
}

// ---- The end ----

#[tokio::test]
async fn closing_waits_for_replies_and_fails_what_was_not_sent() {
    let (client, _server, mut side) = pair(lines()).await;
    let (under_way, unsent) = (ask(&client, "under way"), ask(&client, "unsent"));
    side.expect("under way").await;
    let closing = client.clone();
    let mut closing = Box::pin(async move { closing.close().await });
    assert!(poll_once(&mut closing).is_pending());
    let closing = tokio::spawn(closing);
    unsent.expect_error(ErrorKind::Closed).await;
    ask(&client, "later").expect_error(ErrorKind::Closed).await;
    side.say("answer\n").await;
    under_way.expect("answer").await;
    side.expect_end().await;
    drop(side);
    within("closing", closing).await.unwrap();
    assert!(!client.is_connected());
    within("closing again", client.close()).await;
}

#[tokio::test]
async fn closing_does_not_wait_for_a_connection() {
    let (_socket, address) = silent();
    let client = RequestClient::new(address, lines()).unwrap();
    let waiting = ask(&client, "waiting");
    within("closing", client.close()).await;
    waiting.expect_error(ErrorKind::Closed).await;
}

#[tokio::test]
async fn a_close_that_nobody_waits_for_goes_on() {
    let (client, _server, mut side) = pair(lines()).await;
    let mut closing = Box::pin(client.close());
    assert!(poll_once(&mut closing).is_pending());
    drop(closing);
    side.expect_end().await;
}

#[tokio::test]
async fn dropping_the_last_handle_closes_the_connection() {
    let (client, server, mut side) = pair(lines()).await;
    let other = client.clone();
    drop(client);
    let asked = ask(&other, "request");
    side.expect("request").await;
    side.say("answer\n").await;
    asked.expect("answer").await;
    drop(other);
    side.expect_end().await;
    let again = tokio::time::timeout(SHORT, server.listener.accept()).await;
    assert!(again.is_err(), "it connected again");
}

#[test]
fn with_its_runtime_the_client_is_over_and_nobody_waits_for_ever() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (own, others) = (runtime(), runtime());
    let server = others.block_on(Server::new());
    let client = own.block_on(RequestClient::connect(server.address, lines())).unwrap();
    // The server's side stays open: the client is over with its runtime, not because the server has gone.
    let (_side, under_way, unsent) = others.block_on(async {
        let mut side = server.accept().await;
        let (under_way, unsent) = (ask(&client, "under way"), ask(&client, "unsent"));
        side.expect("under way").await;
        (side, under_way, unsent)
    });
    assert!(client.is_connected());
    own.shutdown_timeout(PATIENCE);
    assert!(!client.is_connected());
    others.block_on(async {
        under_way.expect_error(ErrorKind::Closed).await;
        unsent.expect_error(ErrorKind::Closed).await;
        ask(&client, "later").expect_error(ErrorKind::Closed).await;
        within("closing", client.close()).await;
    });
}

#[test]
fn without_a_runtime_there_is_no_client() {
    let error = RequestClient::new(("127.0.0.1", 9), lines()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::State);
}

#[tokio::test]
async fn what_cannot_be_connected_to_is_refused() {
    for endpoint in [onbytes::Endpoint::from(3000), ("127.0.0.1", 0).into()] {
        assert!(RequestClient::new(endpoint.clone(), lines()).unwrap_err().is_configuration());
        let connecting = RequestClient::connect(endpoint, lines());
        assert!(connecting.await.unwrap_err().is_configuration());
    }
    let unframed = RequestConfiguration::new(ClientConfiguration::new());
    assert!(RequestClient::new(("127.0.0.1", 9), unframed).unwrap_err().is_configuration());
}

// ---- Everything at once ----

/// A server that is slow, silent, late and torn at random, and never wrong.
async fn play_badly(mut side: Side, mut rng: Rng, is_ordered: bool) {
    let mut held: Vec<String> = Vec::new();
    while let Some(line) = side.line().await {
        let answer = line.replace(':', ":answer to ") + "\n";
        match rng.below(40) {
            0 => return side.reset(),
            1 => return side.say(&answer[..rng.below(answer.len())]).await,
            // By order it may be silent for good, and by key now and then.
            2 if is_ordered => while side.line().await.is_some() {},
            2 | 3 if !is_ordered => {}
            4 => {
                tokio::time::sleep(Duration::from_millis(rng.below(40) as u64)).await;
                held.push(answer);
            }
            5..=9 => held.push(answer),
            _ => {
                let place = if is_ordered { held.len() } else { rng.below(held.len() + 1) };
                held.insert(place, answer);
                let all = std::mem::take(&mut held).concat();
                let (start, end) = all.split_at(rng.below(all.len()));
                for part in [start, end] {
                    if side.stream.get_mut().write_all(part.as_bytes()).await.is_err() {
                        return;
                    }
                    tokio::task::yield_now().await;
                }
            }
        }
    }
}

/// Asks once, and perhaps loses patience; an answer has to be the right one.
async fn ask_somehow(client: RequestClient, number: usize, patience: usize, kinds: Kinds) {
    let question = format!("{number}:question");
    let mut request = Box::pin(client.request(question));
    let result = match patience {
        0 => return,
        1 => match poll_once(&mut request) {
            Poll::Ready(result) => result,
            Poll::Pending => return,
        },
        _ => {
            let patience = Duration::from_millis(patience as u64);
            match tokio::time::timeout(patience, request).await {
                Ok(result) => result,
                Err(_) => return,
            }
        }
    };
    match result {
        Ok(answer) => assert_eq!(answer, format!("{number}:answer to question")),
        Err(error) => {
            *kinds.lock().unwrap().entry(error.kind()).or_default() += 1;
            let possible = [
                ErrorKind::Timeout,
                ErrorKind::Closed,
                ErrorKind::Reset,
                ErrorKind::Frame,
                ErrorKind::Full,
            ];
            assert!(possible.contains(&error.kind()), "{error:?}");
            return;
        }
    }
    *kinds.lock().unwrap().entry(ErrorKind::Service).or_default() += 1;
}

/// How often each came; an answer counts as `Service`.
type Kinds = Arc<std::sync::Mutex<HashMap<ErrorKind, usize>>>;

#[tokio::test]
async fn whatever_is_dropped_late_or_lost_an_answer_is_the_right_one() {
    for (seed, matching) in (0..2).flat_map(|seed| all_matchings().map(|one| (seed, one))) {
        let is_ordered = !matches!(matching, Matching::ByKey(_));
        let server = Server::new().await;
        let config = lines().matching(matching.clone()).timeout(SHORT);
        let client = RequestClient::new(server.address, config).unwrap();
        let playing = tokio::spawn(async move {
            let mut sides = JoinSet::new();
            for connection in 0.. {
                let side = server.accept().await;
                sides.spawn(play_badly(side, Rng::new(seed * 1000 + connection), is_ordered));
            }
        });
        let mut rng = Rng::new(seed + 77);
        let kinds = Kinds::default();
        let mut asking = JoinSet::new();
        for number in 0..600 {
            let patience = [0, 1, 1, 5, 30, 1000, 1000, 1000, 1000, 1000][rng.below(10)];
            asking.spawn(ask_somehow(client.clone(), number, patience, Arc::clone(&kinds)));
            if rng.below(8) == 0 {
                tokio::time::sleep(Duration::from_millis(rng.below(4) as u64)).await;
            }
        }
        while let Some(done) = within("the answers", asking.join_next()).await {
            done.unwrap();
        }
        within("closing", client.close()).await;
        playing.abort();
        let kinds = kinds.lock().unwrap();
        let answers = kinds.get(&ErrorKind::Service).copied().unwrap_or_default();
        assert!(answers > 0, "{matching:?}: no answer at all: {kinds:?}");
    }
}

#[tokio::test]
async fn nothing_is_ever_sent_twice() {
    let server = Server::new().await;
    let config = lines().matching(Matching::InOrder(4));
    let client = RequestClient::new(server.address, config).unwrap();
    let asked: Vec<_> = (0..200).map(|number| ask(&client, format!("{number}"))).collect();
    let (notes, mut noted) = unbounded_channel();
    let playing = tokio::spawn(async move {
        let mut rng = Rng::new(5);
        loop {
            let mut side = server.accept().await;
            for _ in 0..=rng.below(6) {
                let Some(line) = side.line().await else { break };
                let _ = side.stream.get_mut().write_all(format!("{line}\n").as_bytes()).await;
                let _ = notes.send(line);
            }
            // What was sent and is not answered counts as sent.
            let _ = side.stream.get_mut().shutdown().await;
            while let Some(line) = side.line().await {
                let _ = notes.send(line);
            }
        }
    });
    for (number, asked) in asked.into_iter().enumerate() {
        match asked.reply().await {
            Ok(reply) => assert_eq!(reply, format!("{number}")),
            Err(error) => {
                let possible = [ErrorKind::Closed, ErrorKind::Reset];
                assert!(possible.contains(&error.kind()), "{error}");
            }
        }
    }
    playing.abort();
    let mut seen = HashSet::new();
    while let Some(line) = within("the lines", noted.recv()).await {
        assert!(seen.insert(line.clone()), "{line} was sent twice");
    }
    assert!(seen.len() > 50, "{}", seen.len());
}
