//! Serving in messages: what a codec and a message service make of bytes, and what they do not.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onbytes::{
    BoxConnectionService, Bytes, Caller, Close, CloseReason, Drain, Error, ErrorKind, Listener,
    ListenerConfiguration, MessageService, Messages, Result, service_fn,
};
use support::{Peer, eventually, narrow, within};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio_util::bytes::{Buf, BufMut, BytesMut};
use tokio_util::codec::{Decoder, Encoder, LengthDelimitedCodec, LinesCodec};

/// One callback of a message service, as it was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Message(String),
    End,
    Error(ErrorKind, String),
    Drain,
    Close(CloseReason),
}

fn message(text: &str) -> Seen {
    Seen::Message(text.into())
}

fn failure(text: &str) -> Seen {
    Seen::Error(ErrorKind::Service, text.into())
}

/// Does what the messages say, records it, and sends back those that say nothing.
struct Obeying {
    seen: UnboundedSender<Seen>,
    forgives: bool,
}

impl MessageService<String> for Obeying {
    type Reply = String;

    async fn on_message(&mut self, message: String, caller: &Caller) -> Result<Option<String>> {
        let _ = self.seen.send(Seen::Message(message.clone()));
        match &message[..] {
            "close" => caller.close(),
            "abort" => caller.abort(),
            "fail" => return Err("told to fail".into()),
            "close and fail" => {
                caller.close();
                return Err("told to fail".into());
            }
            "write" => caller.write_bytes("written\n").await?,
            "panic" => panic!("told to panic"),
            "wait for the end" => caller.closed().await,
            "nothing" => return Ok(None),
            _ => {}
        }
        Ok(Some(message))
    }

    async fn on_end(&mut self, _: &Caller) -> Result<Option<String>> {
        let _ = self.seen.send(Seen::End);
        Ok(Some("bye".into()))
    }

    async fn on_error(&mut self, error: Error, caller: &Caller) -> Result<()> {
        let _ = self.seen.send(Seen::Error(error.kind(), error.to_string()));
        if !self.forgives {
            return Err(error);
        }
        let _ = caller.write_bytes(format!("({error})\n")).await;
        Ok(())
    }

    async fn on_drain(&mut self, _: &Caller) -> Drain {
        let _ = self.seen.send(Seen::Drain);
        Drain::Stay
    }

    async fn on_close(&mut self, close: &Close) {
        let _ = self.seen.send(Seen::Close(close.reason));
    }
}

/// A listener, the callers of its connections, and what an `Obeying` service has seen.
struct Server {
    listener: Listener,
    callers: UnboundedReceiver<Caller>,
    seen: UnboundedReceiver<Seen>,
}

impl Server {
    /// Serves each connection with what `make` makes.
    async fn with<C: onbytes::ConnectionService>(
        config: ListenerConfiguration,
        make: impl Fn(UnboundedSender<Seen>) -> C + Send + Sync + 'static,
    ) -> Self {
        let (called, callers) = unbounded_channel();
        let (seen_by, seen) = unbounded_channel();
        let service = service_fn(move |caller| {
            let _ = called.send(caller);
            let service = make(seen_by.clone());
            async move { Ok(service) }
        });
        let listener = Listener::new(("127.0.0.1", 0), config).unwrap();
        listener.attach(service);
        listener.start().await.unwrap();
        Self { listener, callers, seen }
    }

    async fn serve<C: onbytes::ConnectionService>(
        make: impl Fn(UnboundedSender<Seen>) -> C + Send + Sync + 'static,
    ) -> Self {
        Self::with(ListenerConfiguration::new(), make).await
    }

    /// Serves lines as they say; its `on_error` says that the connection goes on.
    async fn forgiving() -> Self {
        Self::serve(|seen| Messages::new(LinesCodec::new(), Obeying { seen, forgives: true })).await
    }

    /// The same; its `on_error` says that the connection ends.
    async fn strict() -> Self {
        Self::serve(|seen| Messages::new(LinesCodec::new(), Obeying { seen, forgives: false }))
            .await
    }

    async fn connect(&mut self) -> (Peer, Caller) {
        let address = self.listener.local_addr().unwrap();
        let peer = within("connecting", Peer::connect(address)).await;
        peer.stream.set_nodelay(true).unwrap();
        let caller = within("a connection", self.callers.recv()).await.unwrap();
        (peer, caller)
    }

    /// Fails unless these are all callbacks until, and with, the close.
    async fn expect(&mut self, expected: impl IntoIterator<Item = Seen>) {
        let mut seen = Vec::new();
        while !matches!(seen.last(), Some(Seen::Close(_))) {
            seen.push(within("a callback", self.seen.recv()).await.unwrap());
        }
        assert_eq!(seen, expected.into_iter().collect::<Vec<_>>());
    }
}

// ---- From bytes to messages and back ----

/// A conversation whose every cut makes the same of it.
async fn expect_the_same_at_every_cut(mut server: Server, sent: &[u8], answer: &[u8]) {
    let (mut peer, caller) = server.connect().await;
    for cut in 1..sent.len() {
        let before = caller.stats().bytes_received;
        peer.send(&sent[..cut]).await;
        eventually("the first part", || caller.stats().bytes_received == before + cut as u64).await;
        peer.send(&sent[cut..]).await;
        peer.expect(answer).await;
    }
    // And at all of them together.
    for byte in sent {
        let before = caller.stats().bytes_received;
        peer.send([*byte]).await;
        eventually("a byte", || caller.stats().bytes_received == before + 1).await;
    }
    peer.expect(answer).await;
}

#[tokio::test]
async fn lines_are_the_same_wherever_their_stream_is_cut() {
    let server = Server::serve(|_| {
        Messages::new(
            LinesCodec::new(),
            |line: String| async move { Ok(Some(line.to_uppercase())) },
        )
    })
    .await;
    expect_the_same_at_every_cut(server, b"one\r\n\ntwo\nthree\n", b"ONE\n\nTWO\nTHREE\n").await;
}

#[tokio::test]
async fn delimited_frames_are_the_same_wherever_their_stream_is_cut() {
    let server = Server::serve(|_| {
        Messages::new(LengthDelimitedCodec::new(), |frame: BytesMut| async move {
            Ok((!frame.is_empty()).then(|| frame.freeze()))
        })
    })
    .await;
    let sent = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x05defgh";
    let answer = b"\0\0\0\x03abc\0\0\0\x05defgh";
    expect_the_same_at_every_cut(server, sent, answer).await;
}

/// Sums to be done, of up to 255 numbers, and their results.
struct Sums;

#[derive(Debug, PartialEq)]
enum Done {
    Sum(u32),
    /// Cannot be encoded.
    TooLarge,
    /// Panics when it is encoded.
    Odd,
}

impl Decoder for Sums {
    type Item = Vec<u8>;
    type Error = Error;

    fn decode(&mut self, received: &mut BytesMut) -> Result<Option<Vec<u8>>> {
        let Some(count) = received.first().copied() else { return Ok(None) };
        if count == 255 {
            return Err("nobody adds 255 numbers".into());
        }
        if received.len() <= count.into() {
            return Ok(None);
        }
        received.advance(1);
        Ok(Some(received.split_to(count.into()).to_vec()))
    }
}

impl Encoder<Done> for Sums {
    type Error = std::io::Error;

    fn encode(&mut self, done: Done, replies: &mut BytesMut) -> std::io::Result<()> {
        // Half a reply is written before it is known to fail.
        replies.put_slice(b"=");
        match done {
            Done::Sum(sum) => replies.put_u32(sum),
            Done::TooLarge => return Err(std::io::Error::other("it has no room for that")),
            Done::Odd => panic!("told to panic"),
        }
        Ok(())
    }
}

fn add(numbers: &[u8]) -> Done {
    match numbers.iter().copied().map(u32::from).sum() {
        251.. => Done::TooLarge,
        250 => Done::Odd,
        sum => Done::Sum(sum),
    }
}

/// Adds, and records errors.
struct Adding(UnboundedSender<Seen>);

impl MessageService<Vec<u8>> for Adding {
    type Reply = Done;

    async fn on_message(&mut self, numbers: Vec<u8>, _: &Caller) -> Result<Option<Done>> {
        Ok(Some(add(&numbers)))
    }

    async fn on_error(&mut self, error: Error, _: &Caller) -> Result<()> {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}"));
        let text = format!("{error}{}", cause.unwrap_or_default());
        let _ = self.0.send(Seen::Error(error.kind(), text));
        Ok(())
    }

    async fn on_close(&mut self, close: &Close) {
        let _ = self.0.send(Seen::Close(close.reason));
    }
}

#[tokio::test]
async fn messages_of_own_types_are_the_same_wherever_their_stream_is_cut() {
    let server = Server::serve(|seen| Messages::new(Sums, Adding(seen))).await;
    expect_the_same_at_every_cut(
        server,
        b"\x02\x03\x04\0\x01\x09",
        b"=\0\0\0\x07=\0\0\0\0=\0\0\0\x09",
    )
    .await;
}

#[tokio::test]
async fn a_box_of_messages_serves() {
    let mut server = Server::serve(|seen| {
        BoxConnectionService::new(Messages::new(
            LinesCodec::new(),
            Obeying { seen, forgives: false },
        ))
    })
    .await;
    let (mut peer, _) = server.connect().await;
    peer.send("a\n").await;
    peer.expect("a\n").await;
    peer.finish().await;
    peer.expect_end("bye\n").await;
    server.expect([message("a"), Seen::End, Seen::Close(CloseReason::PeerClosed)]).await;
}

#[tokio::test]
async fn each_connection_has_a_codec_of_its_own() {
    let mut server = Server::strict().await;
    let ((mut one, caller), (mut two, _)) = (server.connect().await, server.connect().await);
    one.send("half of a ").await;
    eventually("the half", || caller.stats().bytes_received == 10).await;
    two.send("whole line\n").await;
    two.expect("whole line\n").await;
    one.send("line\n").await;
    one.expect("half of a line\n").await;
}

// ---- Replies ----

#[tokio::test]
async fn replies_to_many_messages_of_one_chunk_leave_in_one_write() {
    let mut server = Server::strict().await;
    let (mut peer, caller) = server.connect().await;
    let lines: String = (0..1000).map(|number| format!("{number}\n")).collect();
    peer.send(&lines).await;
    peer.expect(&lines).await;
    let stats = caller.stats();
    assert!(stats.chunks_received < 10, "the lines did not come together");
    assert_eq!(stats.chunks_sent, stats.chunks_received);
}

#[tokio::test]
async fn messages_without_a_reply_send_nothing() {
    let mut server = Server::strict().await;
    let (mut peer, caller) = server.connect().await;
    peer.send("nothing\nnothing\n").await;
    eventually("the chunk", || caller.stats().chunks_received == 1).await;
    peer.send("a\n").await;
    peer.expect("a\n").await;
    assert_eq!(caller.stats().chunks_sent, 1);
}

#[tokio::test]
async fn a_flood_of_requests_from_a_peer_that_does_not_read_is_held_up_by_its_replies() {
    const REPLY: usize = 1024;
    const FLOOD: usize = 20_000;
    let answered = Arc::new(AtomicUsize::new(0));
    let counter = answered.clone();
    let mut server = Server::with(narrow(), move |_| {
        let counter = counter.clone();
        Messages::new(LinesCodec::new(), move |_: String| {
            counter.fetch_add(1, Ordering::SeqCst);
            async { Ok(Some("x".repeat(REPLY - 1))) }
        })
    })
    .await;
    let address = server.listener.local_addr().unwrap();
    let mut peer = Peer::connect_narrow(address).await;
    let caller = within("a connection", server.callers.recv()).await.unwrap();
    let (mut reading, mut writing) = peer.stream.split();
    let flood = vec![b'\n'; FLOOD];
    let writer = tokio::io::AsyncWriteExt::write_all(&mut writing, &flood);
    tokio::pin!(writer);
    let mut is_written = false;
    // The kernel has no room left, so the service is held up.
    let held_up = eventually("a queue", || caller.queued_bytes() > 0);
    tokio::pin!(held_up);
    loop {
        tokio::select! {
            () = &mut held_up => break,
            written = &mut writer, if !is_written => {
                written.unwrap();
                is_written = true;
            }
        }
    }
    // Some may be queued while as many as gather wait for room.
    let sent = usize::try_from(caller.stats().bytes_sent).unwrap();
    let held = answered.load(Ordering::SeqCst) * REPLY - sent;
    assert!(held <= 2 * (64 * 1024 + REPLY), "{held} bytes of replies wait");
    assert!(answered.load(Ordering::SeqCst) < FLOOD / 10);

    // Now it reads, and nothing is missing.
    let mut got = vec![0; FLOOD * REPLY];
    let reader = tokio::io::AsyncReadExt::read_exact(&mut reading, &mut got);
    let both = async {
        if is_written { reader.await.unwrap() } else { tokio::join!(reader, writer).0.unwrap() }
    };
    within("all replies", both).await;
    assert_eq!(answered.load(Ordering::SeqCst), FLOOD);
}

#[tokio::test]
async fn a_chunk_of_many_messages_does_not_keep_others_waiting() {
    let turns = Arc::new(AtomicUsize::new(0));
    let taken = turns.clone();
    // On this one thread it has turns only while nothing else has.
    let other = tokio::spawn(async move {
        loop {
            taken.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
        }
    });
    let mut server = Server::serve(move |_| {
        let turns = turns.clone();
        Messages::new(LinesCodec::new(), move |_: String| {
            let turn = turns.load(Ordering::SeqCst);
            async move { Ok(Some(turn.to_string())) }
        })
    })
    .await;
    let (mut peer, caller) = server.connect().await;
    peer.send("\n".repeat(500)).await;
    peer.finish().await;
    let (answers, _) = peer.read_to_end().await;
    other.abort();
    let answers = String::from_utf8(answers).unwrap();
    let mut turns: Vec<&str> = answers.lines().collect();
    assert_eq!((turns.len(), caller.stats().chunks_received), (500, 1));
    turns.dedup();
    assert!(turns.len() > 1, "500 messages were served in one turn");
}

#[tokio::test]
async fn replies_larger_than_what_gathers_arrive_whole() {
    let mut server = Server::serve(|_| {
        Messages::new(LengthDelimitedCodec::new(), |frame: BytesMut| async move {
            let len = u32::from_be_bytes(frame[..].try_into().unwrap());
            Ok(Some(support::pattern(len.into(), len as usize)))
        })
    })
    .await;
    let (mut peer, _) = server.connect().await;
    let sizes = [10u32, 70_000, 300, 65_536, 20_000, 1 << 20, 1];
    let mut requests = BytesMut::new();
    let mut expected = BytesMut::new();
    for size in sizes {
        requests.put_u32(4);
        requests.put_u32(size);
        expected.put_u32(size);
        expected.put(support::pattern(size.into(), size as usize));
    }
    peer.send(&requests).await;
    peer.expect(&expected).await;
}

// ---- Errors of a service ----

#[tokio::test]
async fn an_error_is_told_behind_earlier_replies_and_the_messages_behind_it_are_still_delivered() {
    let mut server = Server::forgiving().await;
    let (mut peer, _) = server.connect().await;
    peer.send("a\nb\nfail\nc\nfail\nfail\nd\n").await;
    peer.expect("a\nb\n(told to fail)\nc\n(told to fail)\n(told to fail)\nd\n").await;
    peer.finish().await;
    peer.expect_end("bye\n").await;
    let failed = failure("told to fail");
    server
        .expect([
            message("a"),
            message("b"),
            message("fail"),
            failed.clone(),
            message("c"),
            message("fail"),
            failed.clone(),
            message("fail"),
            failed,
            message("d"),
            Seen::End,
            Seen::Close(CloseReason::PeerClosed),
        ])
        .await;
}

#[tokio::test]
async fn an_error_that_on_error_does_not_handle_is_told_once_and_ends_the_connection() {
    let mut server = Server::strict().await;
    let (mut peer, _) = server.connect().await;
    peer.send("a\nb\nfail\nc\n").await;
    peer.expect_end("a\nb\n").await;
    server
        .expect([
            message("a"),
            message("b"),
            message("fail"),
            failure("told to fail"),
            Seen::Close(CloseReason::ServiceError),
        ])
        .await;
}

#[tokio::test]
async fn an_error_of_on_end_is_told_like_one_of_a_message() {
    struct Failing(UnboundedSender<Seen>);
    impl MessageService<String> for Failing {
        type Reply = String;
        async fn on_message(&mut self, message: String, _: &Caller) -> Result<Option<String>> {
            Ok(Some(message))
        }
        async fn on_end(&mut self, _: &Caller) -> Result<Option<String>> {
            Err("no end".into())
        }
        async fn on_error(&mut self, error: Error, _: &Caller) -> Result<()> {
            let _ = self.0.send(failure(&error.to_string()));
            Err("worse".into())
        }
        async fn on_close(&mut self, close: &Close) {
            let _ = self.0.send(failure(&close.error.as_ref().unwrap().to_string()));
            let _ = self.0.send(Seen::Close(close.reason));
        }
    }
    let mut server = Server::serve(|seen| Messages::new(LinesCodec::new(), Failing(seen))).await;
    let (mut peer, _) = server.connect().await;
    peer.send("a\nlast").await;
    peer.finish().await;
    peer.expect_end("a\nlast\n").await;
    let ended = Seen::Close(CloseReason::ServiceError);
    server.expect([failure("no end"), failure("worse"), ended]).await;
}

#[tokio::test]
async fn a_reply_that_cannot_be_encoded_is_an_error_and_nothing_of_it_is_sent() {
    let mut server = Server::serve(|seen| Messages::new(Sums, Adding(seen))).await;
    let (mut peer, _) = server.connect().await;
    peer.send(b"\x01\x01\x02\xff\xff\x01\x02").await;
    peer.finish().await;
    peer.expect_end(b"=\0\0\0\x01=\0\0\0\x02").await;
    server
        .expect([
            failure("encoding a reply failed: it has no room for that"),
            Seen::Close(CloseReason::PeerClosed),
        ])
        .await;
}

#[tokio::test]
async fn a_failed_transport_is_told_once() {
    let mut server = Server::strict().await;
    let (mut peer, _) = server.connect().await;
    peer.send("a\n").await;
    peer.expect("a\n").await;
    peer.reset();
    let told = Seen::Error(ErrorKind::Reset, "the peer reset the connection".into());
    server.expect([message("a"), told, Seen::Close(CloseReason::PeerReset)]).await;
}

#[tokio::test]
async fn what_a_peer_sent_before_its_reset_is_delivered() {
    let mut server = Server::strict().await;
    let (mut peer, _) = server.connect().await;
    peer.send("wait for the end\nb\nwrite\nc\n").await;
    assert_eq!(within("a message", server.seen.recv()).await, Some(message("wait for the end")));
    peer.reset();
    let told = Seen::Error(ErrorKind::Reset, "the peer reset the connection".into());
    server
        .expect([
            message("b"),
            // The write fails because of the end, which is no news for `on_error`.
            message("write"),
            message("c"),
            told,
            Seen::Close(CloseReason::PeerReset),
        ])
        .await;
}

// ---- Errors of a codec ----

#[tokio::test]
async fn a_decoder_that_fails_ends_the_connection_though_on_error_says_go_on() {
    let mut server = Server::serve(|seen| {
        let lines = LinesCodec::new_with_max_length(5);
        Messages::new(lines, Obeying { seen, forgives: true })
    })
    .await;
    let (mut peer, _) = server.connect().await;
    peer.send("a\nb\ntoo long\nc\n").await;
    peer.expect_end("a\nb\n(decoding a message failed)\n").await;
    server
        .expect([
            message("a"),
            message("b"),
            failure("decoding a message failed"),
            Seen::Close(CloseReason::ServiceError),
        ])
        .await;
}

#[tokio::test]
async fn an_error_of_this_crate_passes_through_a_codec_as_it_is() {
    let mut server = Server::serve(|seen| Messages::new(Sums, Adding(seen))).await;
    let (mut peer, _) = server.connect().await;
    peer.send(b"\x01\x01\xff\x01\x01").await;
    peer.expect_end(b"=\0\0\0\x01").await;
    let ended = Seen::Close(CloseReason::ServiceError);
    server.expect([failure("nobody adds 255 numbers"), ended]).await;
}

#[tokio::test]
async fn more_undecoded_bytes_than_may_wait_end_the_connection() {
    let mut server = Server::serve(|seen| {
        let service = Obeying { seen, forgives: true };
        Messages::new(LinesCodec::new(), service).max_undecoded_bytes(1000)
    })
    .await;
    let (mut peer, caller) = server.connect().await;
    // Whole messages may be larger, and the bound is for what waits, not for all that came.
    let long = "l".repeat(1500);
    peer.send(format!("{long}\n")).await;
    peer.expect(format!("{long}\n")).await;
    peer.send("x".repeat(1000)).await;
    eventually("the bytes", || caller.stats().bytes_received == 2501).await;
    peer.send("\na\n").await;
    peer.expect(format!("{}\na\n", "x".repeat(1000))).await;
    peer.send("x".repeat(1000)).await;
    eventually("the bytes", || caller.stats().bytes_received == 3504).await;
    peer.send("x").await;
    let told = "more than 1000 bytes came without a whole message; \
                Messages::max_undecoded_bytes sets how many may";
    peer.expect_end(format!("({told})\n")).await;
    server
        .expect([
            message(&long),
            message(&"x".repeat(1000)),
            message("a"),
            failure(told),
            Seen::Close(CloseReason::ServiceError),
        ])
        .await;
}

#[tokio::test]
async fn a_mebibyte_may_wait_where_nothing_else_is_said() {
    let mut server = Server::serve(|_| {
        Messages::new(
            LinesCodec::new(),
            |line: String| async move { Ok(Some(line.len().to_string())) },
        )
    })
    .await;
    let (mut peer, caller) = server.connect().await;
    peer.send(vec![b'x'; 1 << 20]).await;
    eventually("the bytes", || caller.stats().bytes_received == 1 << 20).await;
    peer.send("\n").await;
    peer.expect("1048576\n").await;
    peer.send(vec![b'x'; (1 << 20) + 1]).await;
    peer.expect_end("").await;
}

// ---- Ends ----

#[tokio::test]
async fn at_the_peers_end_the_codec_makes_what_it_can_of_the_rest() {
    let mut server = Server::strict().await;
    let (mut peer, _) = server.connect().await;
    peer.send("a\nno newline").await;
    peer.finish().await;
    peer.expect_end("a\nno newline\nbye\n").await;
    let ended = Seen::Close(CloseReason::PeerClosed);
    server.expect([message("a"), message("no newline"), Seen::End, ended]).await;
}

#[tokio::test]
async fn replies_to_the_last_messages_leave_with_that_of_on_end() {
    let mut server = Server::strict().await;
    let (mut peer, caller) = server.connect().await;
    peer.send("no newline").await;
    eventually("the line", || caller.stats().bytes_received == 10).await;
    peer.finish().await;
    peer.expect_end("no newline\nbye\n").await;
    assert_eq!(caller.stats().chunks_sent, 1);
}

#[tokio::test]
async fn a_rest_that_the_codec_refuses_is_an_error_and_on_end_does_not_run() {
    struct Telling(UnboundedSender<Seen>);
    impl MessageService<BytesMut> for Telling {
        type Reply = Bytes;
        async fn on_message(&mut self, frame: BytesMut, _: &Caller) -> Result<Option<Bytes>> {
            Ok(Some(frame.freeze()))
        }
        async fn on_end(&mut self, _: &Caller) -> Result<Option<Bytes>> {
            let _ = self.0.send(Seen::End);
            Ok(None)
        }
        async fn on_error(&mut self, error: Error, _: &Caller) -> Result<()> {
            let cause = std::error::Error::source(&error).unwrap();
            let _ = self.0.send(failure(&format!("{error}: {cause}")));
            Ok(())
        }
        async fn on_close(&mut self, close: &Close) {
            let _ = self.0.send(Seen::Close(close.reason));
        }
    }
    let mut server =
        Server::serve(|seen| Messages::new(LengthDelimitedCodec::new(), Telling(seen))).await;
    let (mut peer, _) = server.connect().await;
    peer.send(b"\0\0\0\x02ab\0\0\0\x02a").await;
    peer.finish().await;
    peer.expect_end(b"\0\0\0\x02ab").await;
    let told = failure("decoding a message failed: bytes remaining on stream");
    server.expect([told, Seen::Close(CloseReason::ServiceError)]).await;
}

#[tokio::test]
async fn after_a_close_no_message_is_delivered_and_the_replies_so_far_are_sent() {
    let mut server = Server::strict().await;
    let (mut peer, _) = server.connect().await;
    peer.send("a\nclose\nb\nc").await;
    peer.finish().await;
    peer.expect_end("a\nclose\n").await;
    let ended = Seen::Close(CloseReason::LocalClose);
    server.expect([message("a"), message("close"), ended]).await;
}

#[tokio::test]
async fn an_error_after_a_close_costs_no_reply() {
    let mut server = Server::strict().await;
    let (mut peer, _) = server.connect().await;
    peer.send("a\nclose and fail\nb\n").await;
    peer.expect_end("a\n").await;
    let failed = failure("told to fail");
    let ended = Seen::Close(CloseReason::LocalClose);
    server.expect([message("a"), message("close and fail"), failed, ended]).await;
}

#[tokio::test]
async fn after_an_abort_no_message_is_delivered() {
    let mut server = Server::strict().await;
    let (mut peer, _) = server.connect().await;
    peer.send("a\nabort\nb\n").await;
    peer.expect_reset().await;
    let ended = Seen::Close(CloseReason::LocalAbort);
    server.expect([message("a"), message("abort"), ended]).await;
}

#[tokio::test]
async fn a_close_from_elsewhere_ends_the_delivery_too() {
    let mut server = Server::strict().await;
    let (mut peer, caller) = server.connect().await;
    peer.send("a\nwait for the end\nb\n").await;
    assert_eq!(within("a message", server.seen.recv()).await, Some(message("a")));
    assert_eq!(within("a message", server.seen.recv()).await, Some(message("wait for the end")));
    caller.close();
    peer.expect_end("a\nwait for the end\n").await;
    server.expect([Seen::Close(CloseReason::LocalClose)]).await;
}

#[tokio::test]
async fn a_service_hears_of_the_drain_and_may_go_on() {
    let mut server = Server::strict().await;
    let (mut peer, _) = server.connect().await;
    peer.send("a\n").await;
    peer.expect("a\n").await;
    let listener = server.listener.clone();
    let stop = tokio::spawn(async move { listener.graceful_stop(Duration::from_secs(20)).await });
    assert_eq!(within("a message", server.seen.recv()).await, Some(message("a")));
    assert_eq!(within("the drain", server.seen.recv()).await, Some(Seen::Drain));
    peer.send("b\nclose\n").await;
    peer.expect_end("b\nclose\n").await;
    assert_eq!(within("the stop", stop).await.unwrap().clean, 1);
}

// ---- Panics ----

#[tokio::test]
async fn a_message_that_panics_ends_the_connection_and_earlier_replies_are_sent() {
    let mut server = Server::strict().await;
    let (mut peer, _) = server.connect().await;
    peer.send("a\nb\npanic\nc\n").await;
    peer.expect_end("a\nb\n").await;
    let ended = Seen::Close(CloseReason::Panicked);
    server.expect([message("a"), message("b"), message("panic"), ended]).await;
    // Others live on.
    let (mut other, _) = server.connect().await;
    other.send("a\n").await;
    other.expect("a\n").await;
}

#[tokio::test]
async fn of_a_reply_whose_encoder_panics_nothing_is_sent() {
    let mut server = Server::serve(|seen| Messages::new(Sums, Adding(seen))).await;
    let (mut peer, _) = server.connect().await;
    peer.send(b"\x01\x01\x01\xfa\x01\x01").await;
    peer.expect_end(b"=\0\0\0\x01").await;
    server.expect([Seen::Close(CloseReason::Panicked)]).await;
}
