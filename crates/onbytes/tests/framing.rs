//! A listener with a framing: one call of `on_bytes` is one frame, a reply is one frame, and what is no
//! frame ends the connection, or is skipped, as the rules say.

mod support;

use std::future::{Future, poll_fn};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use onbytes::{
    Bytes, Caller, Client, ClientConfiguration, CloseReason, Error, ErrorKind, FrameMark, Framing,
    LengthField, Limits, ListenerConfiguration, Oversize, PartialFrame, Result,
};
use support::{
    Echo, EventNames, OnBytes, Peer, Script, Seen, Server, eventually, narrow, pattern, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

fn framed(framing: Framing) -> ListenerConfiguration {
    ListenerConfiguration::new().framing(framing)
}

fn form(text: &str) -> Framing {
    text.parse().unwrap()
}

fn bytes(data: &[u8]) -> Seen {
    Seen::Bytes(data.to_vec())
}

#[tokio::test]
async fn a_call_is_a_frame_and_a_reply_is_one_in_every_form() {
    let messages: [&[u8]; 3] = [b"first", b"x", b"the third message"];
    for text in [
        "lines",
        "delim:0d0a",
        "mllp",
        "stx-etx",
        "len:u16be",
        "len:varint",
        "len:dec4",
        "syslog",
        "netstring",
        "cobs",
        "slip",
        "block:1002:1003,escape=10",
        "iso8583:visa",
    ] {
        let framing = form(text);
        let wire: Vec<u8> =
            messages.iter().flat_map(|message| framing.encode(message).unwrap()).collect();
        let mut server = Server::with(framed(framing), Echo).await;
        let mut at_once = server.connect().await;
        at_once.send(&wire).await;
        at_once.expect(&wire).await;
        server.expect([Seen::Connect]).await;
        server.expect(messages.map(bytes)).await;
        at_once.finish().await;
        at_once.expect_end("").await;
        server.expect([Seen::End, Seen::Close(CloseReason::PeerClosed)]).await;

        let mut dribbled = server.connect().await;
        dribbled.stream.set_nodelay(true).unwrap();
        for byte in &wire {
            dribbled.send([*byte]).await;
            tokio::task::yield_now().await;
        }
        dribbled.expect(&wire).await;
        server.expect([Seen::Connect]).await;
        server.expect(messages.map(bytes)).await;
    }
}

#[tokio::test]
async fn an_empty_frame_is_delivered_and_sent() {
    let mut server = Server::with(framed(Framing::lines()), Echo).await;
    let mut peer = server.connect().await;
    peer.send("\n\r\n").await;
    peer.expect("\n\n").await;
    server.expect([Seen::Connect, bytes(b""), bytes(b"")]).await;
}

/// Answers an error with a word, before the connection ends.
struct Complains;
impl Script for Complains {
    async fn error(&self, error: Error, caller: &Caller) -> Result<()> {
        caller.write_bytes("bad").await?;
        Err(error)
    }
}

#[tokio::test]
async fn a_frame_that_is_too_long_is_told_to_the_service_which_may_answer_and_ends_in_order() {
    let mut server = Server::with(framed(Framing::lines().max_frame(4)), Complains).await;
    let mut peer = server.connect().await;
    peer.send("good\ntoo long\nnever\n").await;
    peer.expect_end("good\nbad\n").await;
    let faults = [Seen::Error(ErrorKind::Frame), Seen::Close(CloseReason::FrameTooLong)];
    server.expect([Seen::Connect, bytes(b"good")]).await;
    server.expect(faults).await;
    let close = server.close().await;
    assert_eq!(close.error.unwrap().kind(), ErrorKind::Frame);
}

#[tokio::test]
async fn a_length_that_is_too_much_is_refused_before_its_bytes_come() {
    let mut server = Server::with(framed(Framing::length(LengthField::u32_be())), Echo).await;
    let mut peer = server.connect().await;
    peer.send([0xff, 0xff, 0xff, 0xff]).await;
    peer.expect_end("").await;
    server.expect([Seen::Connect, Seen::Error(ErrorKind::Frame)]).await;
    server.expect([Seen::Close(CloseReason::FrameTooLong)]).await;
}

#[tokio::test]
async fn an_endless_frame_is_skipped_and_counted_where_the_rules_say_so() {
    let framing = Framing::lines().max_frame(10).oversize(Oversize::Skip);
    let mut server = Server::with(framed(framing), Echo).await;
    let mut events = EventNames::of(&server.listener);
    let mut peer = server.connect().await;
    peer.send("one\n").await;
    peer.send(vec![b'x'; 3_000_000]).await;
    peer.send("\ntwo\n").await;
    peer.expect("one\ntwo\n").await;
    events.until("frame_dropped").await;
    peer.finish().await;
    peer.expect_end("").await;
    let close = server.close().await;
    assert_eq!((close.reason, close.stats.frames_dropped), (CloseReason::PeerClosed, 1));
    assert_eq!(close.stats.chunks_received, 2);
    assert_eq!(close.stats.bytes_received, 3_000_009);
}

/// Answers each frame with how whole it is.
async fn tell_mark(data: Bytes, caller: Caller) -> Result<Option<Bytes>> {
    let mark = caller.frame_mark();
    Ok(Some(format!("{} {mark:?}", String::from_utf8_lossy(&data)).into()))
}

#[tokio::test]
async fn a_long_frame_is_cut_and_marked_where_the_rules_say_so() {
    let framing = Framing::lines().max_frame(3).oversize(Oversize::Truncate);
    let server = Server::with(framed(framing), OnBytes(tell_mark)).await;
    let mut peer = server.connect().await;
    peer.send("abc\nabcdef\nab\n").await;
    peer.expect("abc Whole\nabc Truncated(6)\nab Whole\n").await;
}

#[tokio::test]
async fn malformed_bytes_end_the_connection_or_are_skipped() {
    let mut server = Server::with(framed(form("netstring")), Echo).await;
    let mut peer = server.connect().await;
    peer.send("2:ok,GET / HTTP/1.1\r\n").await;
    peer.expect_end("2:ok,").await;
    server.expect([Seen::Connect, bytes(b"ok"), Seen::Error(ErrorKind::Frame)]).await;
    server.expect([Seen::Close(CloseReason::FrameMalformed)]).await;

    let mut server = Server::with(framed(form("cobs,malformed=skip")), Echo).await;
    let mut peer = server.connect().await;
    peer.send(b"\x05abc\0\x03ok\0").await;
    peer.expect(b"\x03ok\0").await;
    peer.finish().await;
    peer.expect_end("").await;
    assert_eq!(server.close().await.stats.frames_dropped, 1);
}

#[tokio::test]
async fn a_peer_that_never_begins_a_frame_is_not_listened_to_for_ever() {
    let mut server = Server::with(framed(Framing::stx_etx().max_frame(2000)), Echo).await;
    let mut peer = server.connect().await;
    peer.send(vec![b'x'; 3000]).await;
    peer.expect_end("").await;
    assert_eq!(server.close().await.reason, CloseReason::FrameMalformed);
}

#[tokio::test]
async fn half_a_frame_at_the_end_is_reported_and_not_delivered() {
    let mut server = Server::with(framed(Framing::mllp()), Complains).await;
    let mut peer = server.connect().await;
    peer.send("\x0bwhole\x1c\r\x0bhalf").await;
    peer.finish().await;
    peer.expect_end("\x0bwhole\x1c\r\x0bbad\x1c\r").await;
    server.expect([Seen::Connect, bytes(b"whole"), Seen::Error(ErrorKind::Frame)]).await;
    server.expect([Seen::Close(CloseReason::PartialFrame)]).await;
}

#[tokio::test]
async fn half_a_frame_at_the_end_is_delivered_and_marked_where_the_rules_say_so() {
    let framing = Framing::lines().partial(PartialFrame::Deliver);
    let mut server = Server::with(framed(framing), OnBytes(tell_mark)).await;
    let mut peer = server.connect().await;
    peer.send("one\ntw").await;
    peer.finish().await;
    peer.expect_end("one Whole\ntw Partial\n").await;
    server.expect([Seen::Connect, bytes(b"one"), bytes(b"tw"), Seen::End]).await;
    server.expect([Seen::Close(CloseReason::PartialFrame)]).await;
}

/// Closes at the peer's end.
struct Closes;
impl Script for Closes {
    async fn end(&self, caller: &Caller) -> Result<Option<Bytes>> {
        caller.close();
        Ok(None)
    }
}

#[tokio::test]
async fn half_a_frame_that_is_delivered_is_the_reason_though_the_service_closes() {
    let framing = Framing::lines().partial(PartialFrame::Deliver);
    let mut server = Server::with(framed(framing), Closes).await;
    let mut peer = server.connect().await;
    peer.send("ha").await;
    peer.finish().await;
    peer.expect_end("ha\n").await;
    assert_eq!(server.close().await.reason, CloseReason::PartialFrame);
}

#[tokio::test]
async fn the_room_of_the_queue_is_for_what_is_sent() {
    let mut server = Server::with(narrow().framing(form("slip")), Echo).await;
    let _peer = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    while caller.queued_bytes() < 30_000 {
        caller.try_write_bytes(vec![1; 1000]).unwrap();
    }
    // There is room for these bytes as they stand, and not as they are sent: each takes two.
    let most = 64 * 1024 - caller.queued_bytes() - 9;
    assert!(caller.try_write_bytes(vec![0xC0; most]).unwrap_err().is_full());
    caller.try_write_bytes(vec![1; most]).unwrap();
}

#[tokio::test]
async fn a_frame_that_does_not_become_complete_in_time_ends_the_connection() {
    let framing = Framing::lines().timeout(Duration::from_millis(50));
    let mut server = Server::with(framed(framing), Complains).await;
    let mut peer = server.connect().await;
    // Between frames a peer may take its time.
    tokio::time::sleep(Duration::from_millis(200)).await;
    peer.send("whole\nha").await;
    peer.expect("whole\n").await;
    peer.expect_end("bad\n").await;
    server.expect([Seen::Connect, bytes(b"whole"), Seen::Error(ErrorKind::Frame)]).await;
    server.expect([Seen::Close(CloseReason::FrameTimeout)]).await;
}

#[tokio::test]
async fn the_time_of_a_callback_is_not_the_peers() {
    let framing = Framing::lines().timeout(Duration::from_millis(100));
    let slow = OnBytes(|data: Bytes, _: Caller| async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        Ok(Some(data))
    });
    let server = Server::with(framed(framing), slow).await;
    let mut peer = server.connect().await;
    peer.send("one\ntw").await;
    peer.expect("one\n").await;
    peer.send("o\n").await;
    peer.expect("two\n").await;
}

#[tokio::test]
async fn a_reply_that_is_no_frame_is_the_services_error() {
    let mut server = Server::with(
        framed(Framing::lines()),
        OnBytes(|_: Bytes, caller: Caller| async move {
            let refused = caller.write_bytes("two\nlines").await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::Frame);
            assert_eq!(caller.try_write_bytes("a\nb").unwrap_err().kind(), ErrorKind::Frame);
            caller.write_bytes("fine").await?;
            Ok(Some(Bytes::from_static(b"two\nlines")))
        }),
    )
    .await;
    let mut peer = server.connect().await;
    peer.send("go\n").await;
    peer.expect_end("fine\n").await;
    server.expect([Seen::Connect, bytes(b"go"), Seen::Error(ErrorKind::Frame)]).await;
    server.expect([Seen::Close(CloseReason::ServiceError)]).await;
}

#[tokio::test]
async fn close_in_a_callback_drops_the_frames_behind() {
    let script = OnBytes(|data: Bytes, caller: Caller| async move {
        caller.close();
        Ok(Some(data))
    });
    let mut server = Server::with(framed(Framing::lines()), script).await;
    let mut peer = server.connect().await;
    peer.send("one\ntwo\nthree\n").await;
    peer.expect_end("one\n").await;
    server.expect([Seen::Connect, bytes(b"one"), Seen::Close(CloseReason::LocalClose)]).await;
}

#[tokio::test]
async fn a_drain_delivers_the_frames_that_have_arrived() {
    let gate = Arc::new(Notify::new());
    let open = gate.clone();
    let script = OnBytes(move |data: Bytes, _: Caller| {
        let gate = gate.clone();
        async move {
            if data == "one" {
                gate.notified().await;
            }
            Ok(Some(data))
        }
    });
    let mut server = Server::with(framed(Framing::lines()), script).await;
    let mut peer = server.connect().await;
    peer.send("one\ntwo\nthree\nha").await;
    server.expect([Seen::Connect, bytes(b"one")]).await;
    let listener = server.listener.clone();
    let stopping =
        tokio::spawn(async move { listener.graceful_stop(Duration::from_secs(60)).await });
    eventually("the stop", || server.listener.local_addr().is_none()).await;
    open.notify_one();
    peer.expect_end("one\ntwo\nthree\n").await;
    let report = within("the stop", stopping).await.unwrap();
    assert_eq!((report.clean, report.forced), (1, 0));
    server.expect([Seen::Drain, bytes(b"two"), bytes(b"three")]).await;
    server.expect([Seen::Close(CloseReason::Drained)]).await;
}

#[tokio::test]
async fn large_frames_pass_whole_both_ways_through_small_buffers() {
    for text in
        ["len:u32be,max=8M", "netstring,max=8M", "slip,max=8M", "len:u32le,offset=4,strip=0,max=8M"]
    {
        let framing = form(text);
        let server = Server::with(narrow().framing(framing.clone()), Echo).await;
        let config = ClientConfiguration::new().framing(framing.clone());
        let port = server.address.port();
        let mut client = Client::connect("127.0.0.1", port, config).await.unwrap();
        for (seed, len) in [(1, 20_000), (2, 3_000_000), (3, 9), (4, 16 * 1024), (5, 100_000)] {
            let message = pattern(seed, len);
            let expected = framing.encode(&message).unwrap();
            within("the write", client.write_bytes(message)).await.unwrap();
            let reply = within("the reply", client.read_bytes()).await.unwrap().unwrap();
            assert!(framing.encode(&reply).unwrap() == expected, "{text} {len}");
        }
    }
}

#[tokio::test]
async fn writes_of_many_tasks_are_whole_frames() {
    let script = OnBytes(|_: Bytes, caller: Caller| async move {
        for writer in 0..8u8 {
            let caller = caller.clone();
            tokio::spawn(async move {
                for len in (0..40_000).step_by(977) {
                    caller.write_bytes(vec![writer; len]).await.unwrap();
                }
            });
        }
        Ok(None)
    });
    let framing = Framing::length(LengthField::u32_be());
    let server = Server::with(narrow().framing(framing.clone()), script).await;
    let config = ClientConfiguration::new().framing(framing);
    let mut client = Client::connect("127.0.0.1", server.address.port(), config).await.unwrap();
    client.write_bytes("go").await.unwrap();
    let mut next = [0usize; 8];
    for _ in 0..8 * (0..40_000).step_by(977).count() {
        let frame = within("a frame", client.read_bytes()).await.unwrap().unwrap();
        // An empty one does not say whose it is.
        let Some(writer) = frame.first().map(|writer| usize::from(*writer)) else { continue };
        next[writer] += 977;
        assert_eq!(frame.len(), next[writer]);
        assert!(frame.iter().all(|byte| usize::from(*byte) == writer));
    }
}

#[tokio::test]
async fn a_peer_that_floods_frames_and_reads_nothing_does_not_fill_the_queue() {
    let big: &'static [u8] = &[7; 10_000];
    let script =
        OnBytes(move |_: Bytes, _: Caller| async move { Ok(Some(Bytes::from_static(big))) });
    let mut server =
        Server::with(narrow().framing(Framing::length(LengthField::u16_be())), script).await;
    let mut peer = Peer::connect_narrow(server.address).await;
    // A thousand frames of no byte in one write.
    peer.send([0, 0].repeat(1000)).await;
    let caller = server.caller().await;
    eventually("a full queue", || caller.queued_bytes() > 60_000).await;
    let most = caller.queued_bytes();
    assert!(most < 64 * 1024 + 2 * 10_000, "{most} bytes are queued");
    let mut left = 1000 * 10_002;
    let mut buffer = vec![0; 100_000];
    while left > 0 {
        left -= within("replies", peer.stream.read(&mut buffer)).await.unwrap();
        assert!(caller.queued_bytes() < 64 * 1024 + 2 * 10_000);
    }
}

#[tokio::test]
async fn half_frames_count_as_memory() {
    let limits = Limits::new().max_memory(8 * 1024 * 1024);
    let framing = Framing::lines().max_frame(4 * 1024 * 1024).timeout(None);
    let server = Server::with(framed(framing).limits(limits), Echo).await;
    let mut events = EventNames::of(&server.listener);
    let mut peers = Vec::new();
    let mut writers = Vec::new();
    for _ in 0..16 {
        let (reading, mut writing) = server.connect().await.stream.into_split();
        peers.push(reading);
        writers.push(tokio::spawn(async move {
            // Some of these are reset on the way.
            let _ = writing.write_all(&vec![b'x'; 2 * 1024 * 1024]).await;
            writing
        }));
    }
    events.until("overload").await;
    for writer in writers {
        let _ = within("the peers", writer).await;
    }
    eventually("no more memory than is allowed", || {
        server.listener.stats().memory <= 8 * 1024 * 1024
    })
    .await;
    assert!(server.listener.stats().closed(CloseReason::Limit) > 0);
}

static LAST_REPLY: &[u8] = &[b'x'; 8 * 1024 * 1024];

struct ClosesAtOnce {
    gate: Arc<Notify>,
}

impl Script for ClosesAtOnce {
    async fn connect(&self, _: &Caller) -> Result<()> {
        self.gate.notified().await;
        Ok(())
    }

    async fn bytes(&self, _: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        caller.close();
        Ok(Some(Bytes::from_static(LAST_REPLY)))
    }
}

#[tokio::test]
async fn frames_that_are_not_delivered_are_not_held_while_the_peer_takes_the_last_reply() {
    let gate = Arc::new(Notify::new());
    let script = ClosesAtOnce { gate: gate.clone() };
    let mut server = Server::with(framed(Framing::lines()), script).await;
    let mut peer = server.connect().await;
    peer.send("x\n".repeat(25_000)).await;
    let caller = server.caller().await;
    gate.notify_one();
    eventually("a reply that waits", || caller.queued_bytes() > 0).await;
    // The reply counts as a whole until all of it is sent.
    let reply = LAST_REPLY.len();
    eventually("nothing held but the reply", || {
        (reply..reply + 20_000).contains(&server.listener.stats().memory)
    })
    .await;
    assert!(caller.queued_bytes() > 0, "the peer has read nothing");
}

// ---- The client ----

async fn played() -> (Client, tokio::net::TcpStream) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let framing = Framing::lines().max_frame(100);
    let config = ClientConfiguration::new().framing(framing);
    let client = Client::connect("127.0.0.1", port, config).await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

#[tokio::test]
async fn a_client_reads_frames_and_its_end() {
    let (mut client, mut server) = played().await;
    server.write_all(b"one\ntwo\r\n\n").await.unwrap();
    drop(server);
    for expected in ["one", "two", ""] {
        assert_eq!(within("a frame", client.read_bytes()).await.unwrap().unwrap(), expected);
    }
    assert_eq!(within("the end", client.read_bytes()).await.unwrap(), None);
    assert_eq!(client.frame_mark(), FrameMark::Whole);
}

#[tokio::test]
async fn a_client_is_told_of_half_a_frame_and_goes_on_being_told() {
    let (mut client, mut server) = played().await;
    server.write_all(b"one\ntw").await.unwrap();
    drop(server);
    assert_eq!(within("a frame", client.read_bytes()).await.unwrap().unwrap(), "one");
    for _ in 0..3 {
        let error = within("the end", client.read_bytes()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Frame);
        assert!(error.to_string().contains("within a frame"), "{error}");
    }
}

#[tokio::test]
async fn a_client_whose_server_sends_no_frame_takes_nothing_more() {
    let (mut client, mut server) = played().await;
    server.write_all(&[b'x'; 200]).await.unwrap();
    let error = within("the fault", client.read_bytes()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Frame);
    server.write_all(b"\nfine\n").await.unwrap();
    assert_eq!(client.read_bytes().await.unwrap_err().kind(), ErrorKind::Frame);
    assert!(client.write_bytes("more").await.unwrap_err().is_closed());
}

#[tokio::test]
async fn a_read_of_a_client_that_times_out_loses_no_part_of_a_frame() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config =
        ClientConfiguration::new().framing(Framing::lines()).timeout(Duration::from_millis(20));
    let mut client = Client::connect("127.0.0.1", port, config).await.unwrap();
    let mut server = listener.accept().await.unwrap().0;
    server.write_all(b"ha").await.unwrap();
    assert!(client.read_bytes().await.unwrap_err().is_timeout());
    server.write_all(b"lf\n").await.unwrap();
    loop {
        match within("the rest", client.read_bytes()).await {
            Ok(frame) => break assert_eq!(frame.unwrap(), "half"),
            Err(error) => assert!(error.is_timeout()),
        }
    }
}

#[tokio::test]
async fn a_client_with_a_framing_is_no_stream_to_write_to() {
    let (mut client, mut server) = played().await;
    let error = AsyncWriteExt::write_all(&mut client, b"pieces").await.unwrap_err();
    assert!(error.to_string().contains("frames"), "{error}");
    // What is read is the frames' content.
    server.write_all(b"one\ntwo\n").await.unwrap();
    let mut content = [0; 6];
    within("content", AsyncReadExt::read_exact(&mut client, &mut content)).await.unwrap();
    assert_eq!(&content, b"onetwo");
}

#[tokio::test]
async fn an_empty_frame_is_not_the_end_for_who_reads_the_content_as_a_stream() {
    let (mut client, mut server) = played().await;
    server.write_all(&b"\n".repeat(5_000)).await.unwrap();
    server.write_all(b"one\n\ntwo\n\n").await.unwrap();
    drop(server);
    let mut content = Vec::new();
    within("the end", client.read_to_end(&mut content)).await.unwrap();
    assert_eq!(content, b"onetwo");
}

/// A client of which one read has been given up when half a frame had come.
async fn half_read() -> (Client, tokio::net::TcpStream) {
    let (mut client, mut server) = played().await;
    server.write_all(b"ha").await.unwrap();
    while client.stats().bytes_received < 2 {
        let read = tokio::time::timeout(Duration::from_millis(1), client.read_bytes()).await;
        assert!(read.is_err(), "half a frame is none");
    }
    tokio::time::pause();
    (client, server)
}

#[tokio::test]
async fn the_time_in_which_a_client_does_not_read_is_not_the_servers() {
    let (mut client, mut server) = half_read().await;
    tokio::time::advance(2 * Framing::TIMEOUT).await;
    let mut read = Box::pin(client.read_bytes());
    let first = poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await;
    assert!(first.is_pending(), "{first:?}");
    tokio::time::resume();
    server.write_all(b"lf\n").await.unwrap();
    assert_eq!(within("the rest", read).await.unwrap().unwrap(), "half");
}

#[tokio::test]
async fn the_times_of_reads_that_are_given_up_add_up() {
    let (mut client, _server) = half_read().await;
    for _ in 0..2 {
        let mut read = Box::pin(client.read_bytes());
        let first = poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await;
        assert!(first.is_pending(), "{first:?}");
        tokio::time::advance(Framing::TIMEOUT / 2).await;
    }
    let mut read = Box::pin(client.read_bytes());
    match poll_fn(|cx| Poll::Ready(read.as_mut().poll(cx))).await {
        Poll::Ready(Err(error)) => assert_eq!(error.kind(), ErrorKind::Frame),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_framing_that_cannot_be_is_refused_by_name() {
    let config = framed(Framing::fixed(0));
    let error = onbytes::Listener::new(0, config).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Configuration);
    assert!(error.to_string().starts_with("framing: "), "{error}");
    let config = ClientConfiguration::new().framing(Framing::lines().max_frame(0));
    assert!(config.check().unwrap_err().to_string().contains("max_frame"));
}
