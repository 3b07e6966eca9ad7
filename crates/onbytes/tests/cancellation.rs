//! Dropping the future of `write_bytes` at any point: the peer gets whole messages only, and every
//! message whose future said `Ok`.

mod support;

use std::collections::HashSet;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use onbytes::{Bytes, Caller, CloseReason, ListenerConfiguration};
use support::{
    Echo, OnBytes, Peer, Rng, Seen, Server, message, messages, narrow, poll_once, within,
};
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;

const LONG: Duration = Duration::from_secs(60);

/// What became of one message, as far as its writer knows.
#[derive(Default)]
struct Sent {
    ok: Vec<(u32, u32)>,
    dropped: usize,
}

/// Writes `count` messages and drops the futures of some of them, each in one of several ways.
async fn write_fickly(caller: Caller, writer: u32, count: u32, largest: usize) -> Sent {
    let mut rng = Rng::new(u64::from(writer) + 77);
    let mut sent = Sent::default();
    // Rings from time to time, so that what it races has a chance as well.
    let bell = Arc::new(Notify::new());
    for number in 0..count {
        let mut write = pin!(caller.write_bytes(message(writer, number, rng.below(largest))));
        let result = match rng.below(5) {
            // Never polled.
            0 => None,
            // Polled a few times for nobody.
            1 => {
                let polls = 1 + rng.below(3);
                (0..polls).find_map(|_| match poll_once(&mut write) {
                    Poll::Ready(result) => Some(result),
                    Poll::Pending => None,
                })
            }
            // Polled a few times for this task, which is woken in between.
            2 => {
                let mut polls = rng.below(4);
                poll_fn(|cx| match write.as_mut().poll(cx) {
                    Poll::Ready(result) => Poll::Ready(Some(result)),
                    Poll::Pending if polls == 0 => Poll::Ready(None),
                    Poll::Pending => {
                        polls -= 1;
                        cx.waker().wake_by_ref();
                        Poll::Pending
                    }
                })
                .await
            }
            // Against an event of another task.
            3 => {
                let (ringing, turns) = (bell.clone(), rng.below(20));
                tokio::spawn(async move {
                    for _ in 0..turns {
                        tokio::task::yield_now().await;
                    }
                    ringing.notify_one();
                });
                tokio::select! {
                    biased;
                    result = &mut write => Some(result),
                    () = bell.notified() => None,
                }
            }
            _ => Some(write.await),
        };
        match result {
            Some(result) => {
                result.unwrap();
                sent.ok.push((writer, number));
            }
            None => sent.dropped += 1,
        }
    }
    sent
}

/// Several writers, a reader of one pace or another, and what must have arrived at the end.
async fn cancel(config: ListenerConfiguration, seed: u64, largest: usize) {
    let mut server = Server::with(config, Echo).await;
    let mut peer = Peer::connect(server.address).await;
    let caller = server.caller().await;
    let writers: Vec<_> = (0..4)
        .map(|writer| tokio::spawn(write_fickly(caller.clone(), writer, 60, largest)))
        .collect();
    let reading = tokio::spawn(async move {
        let mut rng = Rng::new(seed);
        let (mut stream, mut part) = (Vec::new(), vec![0; 20_000]);
        loop {
            let limit = 1 + rng.below(part.len());
            match peer.stream.read(&mut part[..limit]).await.unwrap() {
                0 => return stream,
                count => stream.extend_from_slice(&part[..count]),
            }
            for _ in 0..rng.below(4) {
                tokio::task::yield_now().await;
            }
        }
    });
    let (mut ok, mut dropped) = (Vec::new(), 0);
    for writer in writers {
        let sent = within("a writer", writer).await.unwrap();
        ok.extend(sent.ok);
        dropped += sent.dropped;
    }
    assert!(dropped > 0);
    caller.close();
    let stream = within("the end of the stream", reading).await.unwrap();
    let (found, torn) = messages(&stream);
    assert!(torn.is_empty(), "a torn message");
    let mut next = [0; 4];
    for (writer, number) in &found {
        let next = &mut next[*writer as usize];
        assert!(number >= next, "out of order");
        *next = number + 1;
    }
    let found: HashSet<_> = found.into_iter().collect();
    let lost = ok.iter().find(|sent| !found.contains(sent));
    assert_eq!(lost, None, "it was Ok and is lost");
    let close = server.close().await;
    assert_eq!(close.reason, CloseReason::LocalClose);
    assert_eq!(close.stats.chunks_sent, found.len() as u64);
    assert_eq!(close.stats.bytes_sent, stream.len() as u64);
}

#[tokio::test]
async fn dropped_writes_of_small_messages_tear_nothing() {
    for seed in 0..10 {
        cancel(narrow(), seed, 500).await;
    }
}

#[tokio::test]
async fn dropped_writes_of_large_messages_tear_nothing() {
    for seed in 0..4 {
        cancel(narrow(), seed, 40_000).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropped_writes_on_several_threads_tear_nothing() {
    for seed in 0..6 {
        cancel(narrow(), seed, 30_000).await;
        cancel(ListenerConfiguration::new(), seed, 200_000).await;
    }
}

#[tokio::test]
async fn a_write_that_was_never_polled_sends_nothing() {
    let mut server = Server::start(Echo).await;
    let mut peer = server.connect().await;
    let caller = server.caller().await;
    drop(caller.write_bytes("never"));
    caller.write_bytes("ever").await.unwrap();
    caller.close();
    peer.expect_end("ever").await;
    assert_eq!(server.close().await.stats.chunks_sent, 1);
}

#[tokio::test]
async fn writers_that_leave_the_line_at_any_place_leave_the_others_in_order() {
    for leaving in 0..8u32 {
        let mut server = Server::with(narrow(), Echo).await;
        let mut peer = Peer::connect_narrow(server.address).await;
        let caller = server.caller().await;
        // Larger than the queue: everybody else has to stand in line.
        let mut first = caller.write_bytes(message(9, 0, 1_000_000));
        assert!(poll_once(&mut first).is_pending());
        let mut line: Vec<_> =
            (0..8).map(|number| Some(caller.write_bytes(message(0, number, 100_000)))).collect();
        for write in line.iter_mut().flatten() {
            assert!(poll_once(write).is_pending());
        }
        // One after the other, from somewhere in the middle to one before.
        for step in 0..=leaving {
            line[((leaving + step * 3) % 8) as usize] = None;
        }
        let left: Vec<_> = (0..8)
            .filter(|number| line[*number as usize].is_some())
            .map(|number| (0, number))
            .collect();
        let writing = async {
            first.await.unwrap();
            for write in line.into_iter().flatten() {
                write.await.unwrap();
            }
            caller.close();
        };
        let ((), (stream, result)) =
            within("the writes", async { tokio::join!(writing, peer.read_to_end()) }).await;
        result.unwrap();
        let (found, torn) = messages(&stream);
        assert!(torn.is_empty());
        assert_eq!(found[0], (9, 0));
        assert_eq!(found[1..], left);
    }
}

#[tokio::test]
async fn a_callback_may_give_up_a_write_and_go_on() {
    let mut server = Server::with(
        narrow(),
        OnBytes(|data: Bytes, caller: Caller| async move {
            let mut large = caller.write_bytes(message(1, 0, 1_000_000));
            assert!(poll_once(&mut large).is_pending());
            let mut waiting = caller.write_bytes(message(1, 1, 10));
            assert!(poll_once(&mut waiting).is_pending());
            drop(waiting);
            drop(large);
            caller.close();
            Ok(Some(message(1, 2, data.len())))
        }),
    )
    .await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    let (stream, result) = peer.read_to_end().await;
    result.unwrap();
    let (found, torn) = messages(&stream);
    assert_eq!((found, torn.len()), (vec![(1, 0), (1, 2)], 0));
    server
        .expect([Seen::Connect, Seen::Bytes(b"x".to_vec()), Seen::Close(CloseReason::LocalClose)])
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writes_that_are_dropped_while_the_connection_ends_leave_nothing_behind() {
    for round in 0..60u32 {
        let mut server = Server::with(narrow(), Echo).await;
        let mut peer = Some(server.connect().await);
        let caller = server.caller().await;
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let caller = caller.clone();
                tokio::spawn(async move {
                    let mut rng = Rng::new(u64::from(round * 4 + writer));
                    for number in 0.. {
                        let mut write = caller.write_bytes(message(writer, number, 5_000));
                        for _ in 0..rng.below(3) {
                            match poll_once(&mut write) {
                                Poll::Ready(Err(_)) => return,
                                Poll::Ready(Ok(())) => break,
                                Poll::Pending => tokio::task::yield_now().await,
                            }
                        }
                        drop(write);
                        if caller.is_closed() {
                            return;
                        }
                        tokio::task::yield_now().await;
                    }
                })
            })
            .collect();
        for _ in 0..round % 20 {
            tokio::task::yield_now().await;
        }
        match round % 3 {
            0 => caller.close(),
            1 => caller.abort(),
            _ => peer.take().unwrap().reset(),
        }
        for writer in writers {
            within("a writer", writer).await.unwrap();
        }
        caller.abort();
        drop(peer);
        within("the stop", server.listener.graceful_stop(LONG)).await;
        assert_eq!(caller.queued_bytes(), 0);
    }
}
