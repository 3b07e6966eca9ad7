//! Writing: every byte arrives, in order and whole, whatever its size and whoever else writes; the
//! queue is bounded, and a peer that does not read is felt.

mod support;

use std::collections::HashSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use onbytes::{Bytes, Caller, CloseReason, Listener};
use support::{
    Echo, OnBytes, Peer, Rng, Seen, Server, message, messages, narrow, pattern, poll_once, within,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

const LONG: Duration = Duration::from_secs(60);
const CAP: usize = 64 * 1024;

// ---- Sizes ----

#[tokio::test]
async fn eight_million_and_one_bytes_reach_a_slow_reader_whole() {
    let server =
        Server::start(OnBytes(
            |_: Bytes, _: Caller| async move { Ok(Some(pattern(1, 8_000_001))) },
        ))
        .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.finish().await;
    let mut rng = Rng::new(1);
    let (mut got, mut part) = (Vec::new(), vec![0; 64 * 1024]);
    loop {
        let limit = 1 + rng.below(part.len());
        let read = peer.stream.read(&mut part[..limit]);
        match within("reading", read).await.unwrap() {
            0 => break,
            count => got.extend_from_slice(&part[..count]),
        }
        for _ in 0..rng.below(3) {
            tokio::task::yield_now().await;
        }
    }
    assert!(got == pattern(1, 8_000_001));
}

/// Sends `rounds` times a block that repeats nothing, and compares what comes back.
async fn echo_blocks(peer: Peer, seed: u64, rounds: usize) {
    let block = pattern(seed, 1_000_003);
    let (mut reading, mut writing) = peer.stream.into_split();
    let sent = block.clone();
    let sending = tokio::spawn(async move {
        for _ in 0..rounds {
            writing.write_all(&sent).await.unwrap();
        }
        writing.shutdown().await.unwrap();
    });
    let mut got = vec![0; block.len()];
    for _ in 0..rounds {
        within("an echo", reading.read_exact(&mut got)).await.unwrap();
        assert!(got == block);
    }
    assert_eq!(within("the end", reading.read(&mut got)).await.unwrap(), 0);
    within("the end of sending", sending).await.unwrap();
}

#[tokio::test]
async fn sixty_four_mebibytes_come_back_unchanged() {
    let server = Server::start(Echo).await;
    let peers = futures(4, |seed| {
        let peer = Peer::connect(server.address);
        async move { echo_blocks(peer.await, seed, 17).await }
    });
    for peer in peers {
        within("the echo", peer).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulk_data_comes_back_unchanged_from_several_threads() {
    let server = Server::start(Echo).await;
    let peers = futures(8, |seed| {
        let peer = Peer::connect(server.address);
        async move { echo_blocks(peer.await, seed, 4).await }
    });
    for peer in peers {
        within("the echo", peer).await.unwrap();
    }
}

/// Starts `count` tasks.
fn futures<F: Future<Output = ()> + Send + 'static>(
    count: u64,
    make: impl Fn(u64) -> F,
) -> Vec<tokio::task::JoinHandle<()>> {
    (0..count).map(|seed| tokio::spawn(make(seed))).collect()
}

#[tokio::test]
async fn single_bytes_come_back_in_order() {
    let server = Server::start(Echo).await;
    let peer = server.connect().await;
    peer.stream.set_nodelay(true).unwrap();
    let (mut reading, mut writing) = peer.stream.into_split();
    let sending = tokio::spawn(async move {
        for byte in pattern(3, 3_000).iter() {
            writing.write_all(&[*byte]).await.unwrap();
        }
        writing
    });
    let mut got = vec![0; 3_000];
    within("the echo", reading.read_exact(&mut got)).await.unwrap();
    assert!(got == pattern(3, 3_000));
    within("the end of sending", sending).await.unwrap();
}

#[tokio::test]
async fn single_bytes_written_one_by_one_arrive_in_order() {
    let server = Server::with(
        narrow(),
        OnBytes(|data: Bytes, caller: Caller| async move {
            for at in 0..data.len() {
                caller.write_bytes(data.slice(at..=at)).await?;
            }
            Ok(None)
        }),
    )
    .await;
    let mut peer = server.connect().await;
    peer.send(pattern(3, 3_000)).await;
    peer.expect(pattern(3, 3_000)).await;
}

#[tokio::test]
async fn many_small_pipelined_messages_are_answered_in_order() {
    let rest = std::sync::Mutex::new(Vec::new());
    // Answers every line with its number, so that a lost or doubled one shows.
    let count = AtomicUsize::new(0);
    let answer = Arc::new(move |data: Bytes| {
        let mut rest = rest.lock().unwrap();
        rest.extend_from_slice(&data);
        let mut reply = Vec::new();
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = rest.drain(..=end).collect();
            let number = count.fetch_add(1, Ordering::SeqCst);
            assert_eq!(line, format!("{number}\n").into_bytes());
            reply.extend_from_slice(&line);
        }
        Bytes::from(reply)
    });
    let server = Server::start(OnBytes(move |data: Bytes, _: Caller| {
        let answer = answer.clone();
        async move { Ok(Some(answer(data))) }
    }))
    .await;
    let peer = server.connect().await;
    let text: String = (0..20_000).map(|number| format!("{number}\n")).collect();
    let (mut reading, mut writing) = peer.stream.into_split();
    let sent = text.clone();
    let sending = tokio::spawn(async move {
        for part in sent.as_bytes().chunks(1_000) {
            writing.write_all(part).await.unwrap();
        }
        writing
    });
    let mut got = vec![0; text.len()];
    within("the answers", reading.read_exact(&mut got)).await.unwrap();
    assert!(got == text.as_bytes());
    within("the end of sending", sending).await.unwrap();
}

#[tokio::test]
async fn chunks_of_any_size_are_answered_in_order() {
    // Replies go three ways: returned, written, tried.
    let server = Server::start(OnBytes(|data: Bytes, caller: Caller| async move {
        match data.len() % 3 {
            0 => Ok(Some(data)),
            1 => caller.write_bytes(data).await.map(|()| None),
            _ => match caller.try_write_bytes(data.clone()) {
                Err(error) if error.is_full() => Ok(Some(data)),
                result => result.map(|()| None),
            },
        }
    }))
    .await;
    for seed in 0..4 {
        let peer = server.connect().await;
        let (mut reading, mut writing) = peer.stream.into_split();
        let sending = tokio::spawn(async move {
            let (data, mut rng, mut at) = (pattern(seed, 2_000_000), Rng::new(seed), 0);
            while at < data.len() {
                let most = 1 << rng.below(18);
                let end = data.len().min(at + 1 + rng.below(most));
                writing.write_all(&data[at..end]).await.unwrap();
                at = end;
                if rng.below(4) == 0 {
                    tokio::task::yield_now().await;
                }
            }
            writing
        });
        let mut got = vec![0; 2_000_000];
        within("the echo", reading.read_exact(&mut got)).await.unwrap();
        assert!(got == pattern(seed, 2_000_000));
        within("the end of sending", sending).await.unwrap();
    }
}

// ---- A peer that does not read ----

/// A connection whose peer does not read, with a full queue: the caller, the peer, and how many
/// bytes were accepted.
async fn full_queue(server: &mut Server) -> (Caller, Peer, usize) {
    let peer = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    let mut accepted = 0;
    // Until the kernel takes no more either.
    within("a full queue", async {
        loop {
            match caller.try_write_bytes(vec![b'.'; 1_000]) {
                Ok(()) => accepted += 1_000,
                Err(error) => {
                    assert!(error.is_full());
                    let before = caller.stats().bytes_sent;
                    for _ in 0..100 {
                        tokio::task::yield_now().await;
                    }
                    if caller.stats().bytes_sent == before {
                        break;
                    }
                }
            }
        }
    })
    .await;
    let queued = caller.queued_bytes();
    assert!(queued <= CAP && queued + 1_000 > CAP, "{queued}");
    (caller, peer, accepted)
}

/// Reads the dots of [`full_queue`], then exactly `expected`.
async fn expect_after_dots(peer: &mut Peer, dots: usize, expected: impl AsRef<[u8]>) {
    peer.expect(vec![b'.'; dots]).await;
    peer.expect(expected).await;
}

#[tokio::test]
async fn writers_enter_in_the_order_of_their_first_polls() {
    let mut server = Server::with(narrow(), Echo).await;
    let (caller, mut peer, dots) = full_queue(&mut server).await;
    let mut first = caller.write_bytes(vec![b'1'; 2_000]);
    let mut second = caller.write_bytes(vec![b'2'; 2_000]);
    let mut third = caller.write_bytes(vec![b'3'; 2_000]);
    // Made in one order, first polled in another, polled again in a third.
    assert!(poll_once(&mut third).is_pending());
    assert!(poll_once(&mut first).is_pending());
    assert!(poll_once(&mut second).is_pending());
    assert!(poll_once(&mut first).is_pending());
    let writing = async {
        let (first, second, third) = tokio::join!(first, second, third);
        first.and(second).and(third).unwrap();
    };
    let reading = async {
        expect_after_dots(&mut peer, dots, vec![b'3'; 2_000]).await;
        peer.expect(vec![b'1'; 2_000]).await;
        peer.expect(vec![b'2'; 2_000]).await;
    };
    within("the writes", async { tokio::join!(writing, reading) }).await;
}

#[tokio::test]
async fn a_small_message_does_not_overtake_a_large_one_that_waits_for_room() {
    let mut server = Server::with(narrow(), Echo).await;
    let (caller, mut peer, dots) = full_queue(&mut server).await;
    let mut large = caller.write_bytes(pattern(1, 1 << 20));
    assert!(poll_once(&mut large).is_pending());
    let mut small = caller.write_bytes("small");
    assert!(poll_once(&mut small).is_pending());
    // There is room for one byte, but others were here before.
    assert!(caller.try_write_bytes("!").unwrap_err().is_full());
    let writing = async { tokio::join!(small, large) };
    let reading = async {
        expect_after_dots(&mut peer, dots, pattern(1, 1 << 20)).await;
        peer.expect("small").await;
    };
    let ((small, large), ()) = within("the writes", async { tokio::join!(writing, reading) }).await;
    small.and(large).unwrap();
}

#[tokio::test]
async fn a_writer_that_leaves_the_line_sends_nothing_and_lets_the_next_one_in() {
    let mut server = Server::with(narrow(), Echo).await;
    let (caller, mut peer, dots) = full_queue(&mut server).await;
    let mut large = caller.write_bytes(pattern(1, 1 << 20));
    assert!(poll_once(&mut large).is_pending());
    let next = {
        let caller = caller.clone();
        tokio::spawn(async move { caller.write_bytes("next").await })
    };
    tokio::task::yield_now().await;
    drop(large);
    expect_after_dots(&mut peer, dots, "next").await;
    within("the write", next).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_message_larger_than_the_queue_is_admitted_when_it_is_empty() {
    let mut server = Server::with(narrow(), Echo).await;
    let mut peer = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    let mut large = caller.write_bytes(pattern(1, 1 << 20));
    assert!(poll_once(&mut large).is_pending());
    assert!(caller.queued_bytes() > CAP);
    assert!(caller.try_write_bytes("x").unwrap_err().is_full());
    let (result, ()) =
        within("the write", async { tokio::join!(large, peer.expect(pattern(1, 1 << 20))) }).await;
    result.unwrap();
    assert_eq!(caller.queued_bytes(), 0);
}

#[tokio::test]
async fn an_admitted_message_goes_out_whole_though_its_future_is_dropped() {
    let mut server = Server::with(narrow(), Echo).await;
    let mut peer = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    let mut large = caller.write_bytes(pattern(1, 1 << 20));
    assert!(poll_once(&mut large).is_pending());
    drop(large);
    caller.close();
    peer.expect_end(pattern(1, 1 << 20)).await;
}

#[tokio::test]
async fn the_queue_stays_bounded_and_others_are_served_while_a_peer_does_not_read() {
    let largest = Arc::new(AtomicUsize::new(0));
    let seen = largest.clone();
    let mut server = Server::with(
        narrow(),
        OnBytes(move |data: Bytes, _: Caller| {
            let reply = pattern(1, data.len() * 10);
            seen.fetch_max(reply.len(), Ordering::SeqCst);
            async move { Ok(Some(reply)) }
        }),
    )
    .await;
    let deaf = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    let (mut _hearing, mut talking) = deaf.stream.into_split();
    let talk = tokio::spawn(async move {
        let data = vec![0; 1_000];
        while talking.write_all(&data).await.is_ok() {}
    });
    let mut writers: Vec<_> = (0..4)
        .map(|_| {
            let caller = caller.clone();
            tokio::spawn(async move { while caller.write_bytes(vec![1; 5_000]).await.is_ok() {} })
        })
        .collect();
    for round in 0..200 {
        let mut peer = Peer::connect(server.address).await;
        peer.send([round; 3]).await;
        peer.expect(pattern(1, 30)).await;
        // A returned reply always enters.
        assert!(caller.queued_bytes() <= CAP + largest.load(Ordering::SeqCst));
    }
    talk.abort();
    caller.abort();
    for writer in writers.drain(..) {
        within("the writers", writer).await.unwrap();
    }
}

#[tokio::test]
async fn writers_alone_never_fill_the_queue_beyond_its_cap() {
    let mut server = Server::with(narrow(), Echo).await;
    let mut peer = Peer::connect(server.address).await;
    let caller = server.caller().await;
    let done = Arc::new(AtomicUsize::new(0));
    let writers = futures(8, |writer| {
        let (caller, done) = (caller.clone(), done.clone());
        async move {
            for round in 0..40 {
                let message = vec![1; 1 + (round * 997 + writer as usize * 4_001) % 20_000];
                caller.write_bytes(message).await.unwrap();
            }
            if done.fetch_add(1, Ordering::SeqCst) == 7 {
                caller.close();
            }
        }
    });
    let mut part = vec![0; 5_000];
    while within("reading", peer.stream.read(&mut part)).await.unwrap() > 0 {
        assert!(caller.queued_bytes() <= CAP);
    }
    for writer in writers {
        within("a writer", writer).await.unwrap();
    }
}

const MUCH: usize = 64 << 20;

/// Writes `data` again and again, until the kernel takes nothing for a while, or `MUCH` was taken.
async fn write_until_stalled(peer: &Peer, data: &[u8], check: impl Fn()) -> usize {
    let mut sent = 0;
    within("a stall", async {
        while sent < MUCH {
            match peer.stream.try_write(&data[sent % data.len()..]) {
                Ok(count) => sent += count,
                Err(error) => {
                    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                    let room = peer.stream.writable();
                    if tokio::time::timeout(Duration::from_millis(100), room).await.is_err() {
                        break;
                    }
                }
            }
            check();
        }
    })
    .await;
    sent
}

#[tokio::test]
async fn a_peer_is_not_read_while_a_callback_runs() {
    let leave = Arc::new(Notify::new());
    let gate = leave.clone();
    let is_open = Arc::new(AtomicBool::new(false));
    let opened = is_open.clone();
    let mut server = Server::with(
        narrow(),
        OnBytes(move |_: Bytes, _: Caller| {
            let (gate, opened) = (gate.clone(), opened.clone());
            async move {
                if !opened.load(Ordering::SeqCst) {
                    gate.notified().await;
                }
                Ok(None)
            }
        }),
    )
    .await;
    let mut peer = server.connect().await;
    let caller = server.caller().await;
    peer.send("first").await;
    server.expect([Seen::Connect, Seen::Bytes(b"first".to_vec())]).await;
    // A server that went on reading would take it all.
    let sent = write_until_stalled(&peer, &vec![0; 64 * 1024], || ()).await;
    assert!(sent < MUCH, "the peer's writes stall");
    assert_eq!(caller.stats().bytes_received, 5);
    is_open.store(true, Ordering::SeqCst);
    leave.notify_one();
    peer.finish().await;
    peer.expect_end("").await;
    assert_eq!(caller.stats().bytes_received, 5 + sent as u64);
}

#[tokio::test]
async fn a_peer_that_does_not_take_its_replies_is_not_read() {
    let mut server = Server::with(narrow(), Echo).await;
    let mut peer = Peer::connect_narrow(server.address).await;
    let caller = server.caller().await;
    let data = pattern(5, 64 << 10);
    let sent = write_until_stalled(&peer, &data, || {
        assert!(caller.queued_bytes() <= CAP + 256 * 1024);
    })
    .await;
    assert!(sent < MUCH, "the peer's writes stall");
    // Nothing of it is lost.
    let mut at = 0;
    while at < sent {
        let part = data.slice(at % data.len()..data.len().min(at % data.len() + sent - at));
        peer.expect(&part).await;
        at += part.len();
    }
    peer.finish().await;
    peer.expect_end("").await;
    server.expect([Seen::Connect]).await;
}

// ---- try_write_bytes ----

#[tokio::test]
async fn trying_is_ok_or_full_or_closed_and_never_waits() {
    let mut server = Server::with(narrow(), Echo).await;
    let (caller, mut peer, dots) = full_queue(&mut server).await;
    assert!(caller.try_write_bytes(vec![0; 2_000]).unwrap_err().is_full());
    caller.close();
    assert!(caller.try_write_bytes("x").unwrap_err().is_closed());
    assert!(caller.try_write_bytes("").unwrap_err().is_closed());
    peer.expect_end(vec![b'.'; dots]).await;
    assert!(caller.try_write_bytes("x").unwrap_err().is_closed());
    let close = server.close().await;
    assert_eq!(close.reason, CloseReason::LocalClose);
    assert_eq!(close.stats.bytes_sent, dots as u64);
}

#[tokio::test]
async fn an_empty_message_is_sent_at_once() {
    let mut server = Server::start(Echo).await;
    let mut peer = server.connect().await;
    let caller = server.caller().await;
    assert!(matches!(poll_once(&mut caller.write_bytes("")), Poll::Ready(Ok(()))));
    caller.try_write_bytes("").unwrap();
    caller.close();
    peer.expect_end("").await;
}

// ---- Writers and the end ----

/// What ends the connection while others write to it.
#[derive(Clone, Copy, PartialEq, Debug)]
enum End {
    Close,
    Abort,
    Graceful,
    Immediate,
    PeerFin,
    PeerReset,
}

impl End {
    async fn come(self, caller: &Caller, listener: &Listener) {
        match self {
            Self::Close => caller.close(),
            Self::Abort => caller.abort(),
            Self::Graceful => drop(listener.graceful_stop(LONG).await),
            Self::Immediate => drop(listener.immediate_stop().await),
            Self::PeerFin | Self::PeerReset => {}
        }
    }

    fn is_orderly(self) -> bool {
        matches!(self, Self::Close | Self::Graceful | Self::PeerFin)
    }
}

/// Three tasks write while the connection ends; checks what the peer gets.
async fn race(end: End, round: u64) {
    let mut rng = Rng::new(round);
    let config = if round.is_multiple_of(2) { narrow() } else { Default::default() };
    let mut server = Server::with(config, Echo).await;
    let mut peer = server.connect().await;
    let caller = server.caller().await;
    let largest = [40, 3_000, 80_000][rng.below(3)];
    let writers: Vec<_> = (0..3)
        .map(|writer| {
            let (caller, mut rng) = (caller.clone(), Rng::new(round * 3 + u64::from(writer)));
            tokio::spawn(async move {
                let mut sent = Vec::new();
                for number in 0.. {
                    let message = message(writer, number, rng.below(largest));
                    let result = match rng.below(3) {
                        0 => caller.try_write_bytes(message),
                        _ => caller.write_bytes(message).await,
                    };
                    match result {
                        Ok(()) => sent.push((writer, number)),
                        Err(error) if error.is_full() => tokio::task::yield_now().await,
                        Err(_) => break,
                    }
                    if rng.below(8) == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                sent
            })
        })
        .collect();
    let ending = {
        let (caller, listener, pause) = (caller.clone(), server.listener.clone(), rng.below(30));
        tokio::spawn(async move {
            for _ in 0..pause {
                tokio::task::yield_now().await;
            }
            end.come(&caller, &listener).await;
        })
    };
    if end == End::PeerReset {
        let mut part = vec![0; rng.below(5_000)];
        let read = peer.stream.read_exact(&mut part);
        within("reading", read).await.unwrap();
        peer.reset();
        for writer in writers {
            within("a writer", writer).await.unwrap();
        }
    } else {
        if end == End::PeerFin {
            peer.finish().await;
        }
        let (stream, result) = peer.read_to_end().await;
        drop(peer);
        let (found, torn) = messages(&stream);
        let mut next = [0; 3];
        for (writer, number) in &found {
            let next = &mut next[*writer as usize];
            assert!(number >= next, "{end:?}: out of order");
            *next = number + 1;
        }
        let found: HashSet<_> = found.into_iter().collect();
        let mut sent = Vec::new();
        for writer in writers {
            sent.extend(within("a writer", writer).await.unwrap());
        }
        if end.is_orderly() {
            result.expect("an orderly end");
            assert!(torn.is_empty(), "{end:?}: a torn message at the end");
            let lost = sent.iter().find(|sent| !found.contains(sent));
            assert_eq!(lost, None, "{end:?}: it was Ok and is lost");
        }
    }
    within("the end", ending).await.unwrap();
    within("the stop", server.listener.graceful_stop(LONG)).await;
}

async fn races(end: End) {
    for round in 0..40 {
        race(end, round).await;
    }
}

#[tokio::test]
async fn writers_racing_a_close_lose_no_message_that_was_ok() {
    races(End::Close).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_racing_a_close_on_other_threads_lose_no_message_that_was_ok() {
    races(End::Close).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_racing_a_graceful_stop_lose_no_message_that_was_ok() {
    races(End::Graceful).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_racing_the_peers_end_lose_no_message_that_was_ok() {
    races(End::PeerFin).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_racing_an_abort_stop_and_tear_no_message_but_the_last() {
    races(End::Abort).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_racing_an_immediate_stop_stop_and_tear_no_message_but_the_last() {
    races(End::Immediate).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_racing_the_peers_reset_stop() {
    races(End::PeerReset).await;
}

#[tokio::test]
async fn a_write_may_be_polled_by_one_task_and_then_by_another() {
    let mut server = Server::with(narrow(), Echo).await;
    let (caller, mut peer, dots) = full_queue(&mut server).await;
    let caller: &'static Caller = Box::leak(Box::new(caller));
    let mut write: Pin<Box<onbytes::WriteBytes<'static>>> = Box::pin(caller.write_bytes("moved"));
    // Its first waker is never heard of again.
    assert!(poll_once(&mut write).is_pending());
    let moved = tokio::spawn(async move {
        std::future::poll_fn(|cx| {
            let _ = write.as_mut().poll(cx);
            Poll::Ready(())
        })
        .await;
        tokio::spawn(write).await.unwrap()
    });
    expect_after_dots(&mut peer, dots, "moved").await;
    within("the write", moved).await.unwrap().unwrap();
}

/// A message whose owner asks its connection something when it is let go.
struct Asking {
    data: Vec<u8>,
    caller: Caller,
}

impl AsRef<[u8]> for Asking {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _ = (self.caller.queued_bytes(), self.caller.is_closed());
    }
}

#[tokio::test]
async fn a_message_may_ask_its_connection_when_it_is_let_go() {
    let mut server = Server::with(narrow(), Echo).await;
    let asking = |caller: &Caller, len: usize| {
        Bytes::from_owner(Asking { data: vec![1; len], caller: caller.clone() })
    };
    // Sent at once, queued and sent, refused, and discarded.
    for end in 0..3 {
        let mut peer = Peer::connect_narrow(server.address).await;
        let caller = server.caller().await;
        caller.write_bytes(asking(&caller, 10)).await.unwrap();
        let mut large = Box::pin(caller.write_bytes(asking(&caller, 1 << 20)));
        assert!(support::poll_once(&mut large).is_pending());
        assert!(caller.try_write_bytes(asking(&caller, 100_000)).is_err());
        match end {
            0 => peer.expect(vec![1; 10 + (1 << 20)]).await,
            1 => caller.abort(),
            _ => peer.reset(),
        }
        let _ = within("the write", large).await;
        caller.abort();
        assert!(caller.try_write_bytes(asking(&caller, 10)).unwrap_err().is_closed());
    }
}
