//! Connections share nothing: no byte, no value, no fate.

mod support;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onbytes::{
    Bytes, Caller, Close, CloseReason, ConnectionService, Event, Listener, Result, Service,
};
use support::{OnBytes, Peer, Rng, Seen, Server, pattern, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

/// Gives every connection a service of its own, which counts what it alone has seen.
struct Counting {
    made: AtomicUsize,
    ended: UnboundedSender<Ended>,
}

/// What one connection service saw in its life.
#[derive(Debug)]
struct Ended {
    serial: usize,
    bytes: usize,
    callers: HashSet<String>,
    close: Close,
}

struct CountingConnection {
    serial: usize,
    bytes: usize,
    callers: HashSet<String>,
    ended: UnboundedSender<Ended>,
}

impl Service for Counting {
    type Connection = CountingConnection;

    async fn on_connect(&self, caller: &Caller) -> Result<CountingConnection> {
        Ok(CountingConnection {
            serial: self.made.fetch_add(1, Ordering::SeqCst),
            bytes: 0,
            callers: HashSet::from([caller.id().to_string()]),
            ended: self.ended.clone(),
        })
    }
}

impl ConnectionService for CountingConnection {
    async fn on_bytes(&mut self, data: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        self.bytes += data.len();
        self.callers.insert(caller.id().to_string());
        if data.len().is_multiple_of(2) {
            tokio::task::yield_now().await;
        }
        Ok(Some(data))
    }

    async fn on_close(&mut self, close: &Close) {
        let ended = Ended {
            serial: self.serial,
            bytes: self.bytes,
            callers: std::mem::take(&mut self.callers),
            close: close.clone(),
        };
        self.ended.send(ended).unwrap();
    }
}

async fn two_hundred_at_once() {
    const PEERS: usize = 200;
    let (ended, mut ends) = unbounded_channel();
    let listener = Listener::new(("127.0.0.1", 0), Default::default()).unwrap();
    listener.attach(Counting { made: AtomicUsize::new(0), ended });
    listener.start().await.unwrap();
    let address = listener.local_addr().unwrap();
    // All of them are connected before the first one speaks.
    let mut peers = Vec::new();
    for _ in 0..PEERS {
        peers.push(within("connecting", Peer::connect(address)).await);
    }
    let tasks: Vec<_> = peers
        .into_iter()
        .enumerate()
        .map(|(seed, peer)| {
            tokio::spawn(async move {
                let data = pattern(seed as u64, 20_000 + seed);
                let (mut reading, mut writing) = peer.stream.into_split();
                let sent = data.clone();
                let sending = tokio::spawn(async move {
                    let (mut rng, mut at) = (Rng::new(seed as u64), 0);
                    while at < sent.len() {
                        let end = sent.len().min(at + 1 + rng.below(3_000));
                        writing.write_all(&sent[at..end]).await.unwrap();
                        at = end;
                        tokio::task::yield_now().await;
                    }
                    writing.shutdown().await.unwrap();
                    writing
                });
                let mut got = Vec::new();
                reading.read_to_end(&mut got).await.unwrap();
                assert!(got == data, "bytes of another connection");
                within("the end of sending", sending).await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        within("the echoes", task).await.unwrap();
    }
    let (mut serials, mut sizes, mut ids) = (HashSet::new(), HashSet::new(), HashSet::new());
    for _ in 0..PEERS {
        let end = within("on_close", ends.recv()).await.unwrap();
        assert_eq!(end.close.reason, CloseReason::PeerClosed);
        assert_eq!(end.close.stats.bytes_received, end.bytes as u64);
        assert_eq!(end.close.stats.bytes_sent, end.bytes as u64);
        assert_eq!(end.callers.len(), 1, "one caller each");
        assert!(serials.insert(end.serial), "a service of its own");
        assert!(sizes.insert(end.bytes));
        ids.extend(end.callers);
    }
    assert_eq!(ids.len(), PEERS);
    let expected: HashSet<_> = (20_000..20_000 + PEERS).collect();
    assert_eq!(sizes, expected);
}

#[tokio::test]
async fn two_hundred_connections_get_their_own_bytes_and_their_own_service() {
    two_hundred_at_once().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_connections_on_two_threads_get_their_own_bytes_and_their_own_service() {
    two_hundred_at_once().await;
}

#[tokio::test]
async fn a_kept_chunk_does_not_change_while_others_receive() {
    let kept = Arc::new(std::sync::Mutex::new(Vec::new()));
    let keep = kept.clone();
    let server = Server::start(OnBytes(move |data: Bytes, _: Caller| {
        keep.lock().unwrap().push((data.to_vec(), data.clone()));
        async move { Ok(Some(data)) }
    }))
    .await;
    for round in 0..300 {
        let mut peer = Peer::connect(server.address).await;
        peer.send(pattern(round, 1_500)).await;
        peer.expect(pattern(round, 1_500)).await;
    }
    let kept = kept.lock().unwrap();
    assert!(kept.iter().all(|(copy, chunk)| copy == chunk));
}

#[tokio::test]
async fn callbacks_that_hang_fail_or_panic_harm_their_own_connection_only() {
    let server = Server::start(OnBytes(|data: Bytes, caller: Caller| async move {
        match &data[..] {
            b"hang" => std::future::pending().await,
            b"fail" => Err("wanted".into()),
            b"panic" => panic!("a wanted panic"),
            b"abort" => {
                caller.abort();
                Ok(None)
            }
            _ => Ok(Some(data)),
        }
    }))
    .await;
    let mut good = server.connect().await;
    let mut others = Vec::new();
    for round in 0..20 {
        for request in ["hang", "fail", "panic", "abort"] {
            let mut peer = server.connect().await;
            peer.send(request).await;
            others.push(peer);
        }
        good.send([round; 100]).await;
        good.expect([round; 100]).await;
    }
    within("the stop", server.listener.immediate_stop()).await;
}

#[tokio::test]
async fn a_flood_on_one_connection_leaves_others_their_turn() {
    let mut server = Server::start(OnBytes(|data: Bytes, _: Caller| async move {
        Ok((data.len() == 1).then_some(data))
    }))
    .await;
    let flood = server.connect().await;
    let caller = server.caller().await;
    let (mut hearing, mut talking) = flood.stream.into_split();
    let flooding = tokio::spawn(async move {
        let data = vec![0; 1 << 20];
        while talking.write_all(&data).await.is_ok() {}
    });
    let mut peer = server.connect().await;
    peer.stream.set_nodelay(true).unwrap();
    for round in 0..200 {
        peer.send([round]).await;
        peer.expect([round]).await;
    }
    assert!(caller.stats().bytes_received > 0);
    caller.abort();
    let mut rest = Vec::new();
    let _ = within("the reset", hearing.read_to_end(&mut rest)).await;
    within("the end of the flood", flooding).await.unwrap();
    // The recorder saw the whole flood; the peer's own end comes last.
    peer.finish().await;
    peer.expect_end("").await;
    within("the last close", async {
        while server.next().await != Seen::Close(CloseReason::PeerClosed) {}
    })
    .await;
    server.listener.graceful_stop(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn a_storm_of_callers_leaves_connections_their_turn() {
    const CALLERS: usize = 300;
    let accepted = Arc::new(AtomicUsize::new(0));
    let (tell, mut told) = unbounded_channel();
    let service = OnBytes({
        let accepted = Arc::clone(&accepted);
        move |data: Bytes, _| {
            let _ = tell.send(accepted.load(Ordering::SeqCst));
            async move { Ok(Some(data)) }
        }
    });
    let server = Server::start(service).await;
    server.listener.on_event(move |event| {
        if matches!(event, Event::Accepted { .. }) {
            accepted.fetch_add(1, Ordering::SeqCst);
        }
    });
    let mut live = server.connect().await;
    live.send("first").await;
    live.expect("first").await;
    within("the first", told.recv()).await.unwrap();
    server.listener.suspend();
    // All are there, and what the connection is sent, before the listener's thread gets its turn.
    let _storm: Vec<_> =
        (0..CALLERS).map(|_| std::net::TcpStream::connect(server.address).unwrap()).collect();
    live.send("second").await;
    server.listener.resume();
    live.expect("second").await;
    let before = within("the second", told.recv()).await.unwrap();
    assert!(before < CALLERS, "all of them, {before}, came before what was there already");
}
