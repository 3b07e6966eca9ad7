//! The ways to make a service, and what attaching, replacing and detaching one means for callers.

mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use onbytes::{
    BoxConnectionService, Bytes, Caller, Close, CloseReason, ConnectionService, Drain, Error,
    ErrorKind, Limits, Listener, ListenerConfiguration, Result, Service, service_fn,
};
use support::{Echo, EventNames, Peer, Seen, Server, eventually, within};
use tokio::sync::{mpsc, oneshot};

fn says(text: &'static str) -> impl Service {
    service_fn(move |_| async move {
        Ok(move |_: Bytes| async move { Ok(Some(Bytes::from_static(text.as_bytes()))) })
    })
}

async fn started(service: impl Service) -> Listener {
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new()).unwrap();
    listener.attach(service);
    listener.start().await.unwrap();
    listener
}

async fn peer_of(listener: &Listener) -> Peer {
    let address = listener.local_addr().unwrap();
    within("connecting", Peer::connect(address)).await
}

/// Asks a peer's service who it is.
async fn expect_answer(peer: &mut Peer, answer: &str) {
    peer.send("?").await;
    peer.expect(answer).await;
}

// ---- Closures and boxes ----

#[tokio::test]
async fn a_closure_is_a_connection_service_with_a_state_of_its_own() {
    let listener = started(service_fn(|_| async {
        let mut count = 0;
        Ok(move |data: Bytes| {
            count += data.len();
            let reply = format!("{count} ");
            async move { Ok(Some(Bytes::from(reply))) }
        })
    }))
    .await;
    let (mut one, mut two) = (peer_of(&listener).await, peer_of(&listener).await);
    one.send("abc").await;
    one.expect("3 ").await;
    two.send("x").await;
    two.expect("1 ").await;
    one.send("de").await;
    one.expect("5 ").await;
}

#[tokio::test]
async fn the_closure_of_a_service_gets_the_caller_and_may_refuse_it() {
    let listener = started(service_fn(|caller: Caller| async move {
        caller.write_bytes("no ").await?;
        if caller.remote_host() == "127.0.0.1" {
            return Err("not from here".into());
        }
        Ok(|data: Bytes| async move { Ok(Some(data)) })
    }))
    .await;
    peer_of(&listener).await.expect_end("no ").await;
    eventually("the count", || listener.stats().closed(CloseReason::Rejected) == 1).await;
}

#[tokio::test]
async fn boxed_services_of_different_kinds_keep_every_callback() {
    struct Whole(mpsc::UnboundedSender<&'static str>);
    impl ConnectionService for Whole {
        async fn on_bytes(&mut self, data: Bytes, _: &Caller) -> Result<Option<Bytes>> {
            let _ = self.0.send("bytes");
            match &data[..] {
                b"fail" => Err("told to".into()),
                _ => Ok(Some(data)),
            }
        }
        async fn on_end(&mut self, _: &Caller) -> Result<Option<Bytes>> {
            let _ = self.0.send("end");
            Ok(Some("bye".into()))
        }
        async fn on_error(&mut self, _: Error, _: &Caller) -> Result<()> {
            let _ = self.0.send("error");
            Ok(())
        }
        async fn on_drain(&mut self, _: &Caller) -> Drain {
            let _ = self.0.send("drain");
            Drain::Stay
        }
        async fn on_close(&mut self, _: &Close) {
            let _ = self.0.send("close");
        }
    }
    let (seen_by, mut seen) = mpsc::unbounded_channel();
    let next = AtomicUsize::new(0);
    let listener = started(service_fn(move |_| {
        let kind = match next.fetch_add(1, Ordering::SeqCst) {
            0 => BoxConnectionService::new(Whole(seen_by.clone())),
            _ => BoxConnectionService::new(|_: Bytes| async { Ok(Some("plain".into())) }),
        };
        async { Ok(kind) }
    }))
    .await;
    let mut whole = peer_of(&listener).await;
    whole.send("hello").await;
    whole.expect("hello").await;
    let mut plain = peer_of(&listener).await;
    expect_answer(&mut plain, "plain").await;
    drop(plain);
    whole.send("fail").await;
    let mut names = vec![];
    while names.last() != Some(&"error") {
        names.push(within("a callback", seen.recv()).await.unwrap());
    }
    let stop = tokio::spawn({
        let listener = listener.clone();
        async move { listener.graceful_stop(Duration::from_secs(20)).await }
    });
    names.push(within("the drain", seen.recv()).await.unwrap());
    whole.finish().await;
    whole.expect_end("bye").await;
    within("the stop", stop).await.unwrap();
    while let Ok(name) = seen.try_recv() {
        names.push(name);
    }
    assert_eq!(
        names,
        ["bytes", "bytes", "error", "drain", "end", "close"],
        "each callback of the boxed service"
    );
}

#[tokio::test]
async fn a_box_of_a_box_serves() {
    let listener = started(service_fn(|_| async {
        let echo = BoxConnectionService::new(|data: Bytes| async { Ok(Some(data)) });
        Ok(BoxConnectionService::new(echo))
    }))
    .await;
    let mut peer = peer_of(&listener).await;
    peer.send("x").await;
    peer.expect("x").await;
}

#[tokio::test]
async fn a_closure_that_panics_before_it_makes_its_future_ends_only_its_connection() {
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new()).unwrap();
    let mut events = EventNames::of(&listener);
    listener.attach(service_fn(|_| async {
        Ok(|data: Bytes| {
            assert_ne!(&data[..], b"panic", "as told");
            async { Ok(Some(data)) }
        })
    }));
    listener.start().await.unwrap();
    let (mut one, mut two) = (peer_of(&listener).await, peer_of(&listener).await);
    one.send("panic").await;
    let _ = one.read_to_end().await;
    events.until("panicked").await;
    events.until("closed").await;
    assert_eq!(listener.stats().closed(CloseReason::Panicked), 1);
    two.send("x").await;
    two.expect("x").await;
}

#[tokio::test]
async fn on_close_runs_though_a_callback_panicked_before_it_made_its_future() {
    struct Panics(Option<oneshot::Sender<CloseReason>>);
    impl ConnectionService for Panics {
        fn on_bytes(
            &mut self,
            data: Bytes,
            _: &Caller,
        ) -> impl Future<Output = Result<Option<Bytes>>> + Send {
            assert!(data.is_empty(), "as told");
            async { Ok(None) }
        }
        async fn on_close(&mut self, close: &Close) {
            let _ = self.0.take().unwrap().send(close.reason);
        }
    }
    let (closed, reason) = oneshot::channel();
    let closed = std::sync::Mutex::new(Some(closed));
    let listener = started(service_fn(move |_| {
        let service = Panics(closed.lock().unwrap().take());
        async { Ok(service) }
    }))
    .await;
    let mut peer = peer_of(&listener).await;
    peer.send("x").await;
    let reason = within("on_close", reason).await;
    assert_eq!(reason.expect("on_close runs"), CloseReason::Panicked);
}

#[tokio::test]
async fn an_on_connect_that_panics_before_it_makes_its_future_is_counted() {
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new()).unwrap();
    let mut events = EventNames::of(&listener);
    let calls = AtomicUsize::new(0);
    listener.attach(service_fn(move |_| {
        let call = calls.fetch_add(1, Ordering::SeqCst);
        assert!(call > 0, "as told");
        async { Ok(|data: Bytes| async { Ok(Some(data)) }) }
    }));
    listener.start().await.unwrap();
    let mut first = peer_of(&listener).await;
    let _ = first.read_to_end().await;
    let mut second = peer_of(&listener).await;
    second.send("x").await;
    second.expect("x").await;
    events.until("panicked").await;
    assert_eq!(listener.stats().closed(CloseReason::Panicked), 1);
}

#[tokio::test]
async fn a_connection_service_that_panics_when_dropped_is_still_counted() {
    struct Bomb;
    impl ConnectionService for Bomb {
        async fn on_bytes(&mut self, data: Bytes, _: &Caller) -> Result<Option<Bytes>> {
            Ok(Some(data))
        }
    }
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("in drop");
        }
    }
    let config = ListenerConfiguration::new().limits(Limits::new().max_connections(1));
    let listener = Listener::new(("127.0.0.1", 0), config).unwrap();
    listener.attach(service_fn(|_| async { Ok(Bomb) }));
    listener.start().await.unwrap();
    for _ in 0..2 {
        let mut peer = peer_of(&listener).await;
        peer.send("x").await;
        peer.expect("x").await;
        peer.finish().await;
        let _ = peer.read_to_end().await;
    }
    eventually("the counts", || {
        CloseReason::ALL.into_iter().map(|reason| listener.stats().closed(reason)).sum::<u64>() == 2
    })
    .await;
}

/// Fails, with `?` or `into`, in whatever way the chunk asks for.
fn fails(data: &Bytes) -> Result<Option<Bytes>> {
    type Boxed = Box<dyn std::error::Error + Send + Sync>;
    match &data[..] {
        b"io" => Err(std::io::Error::other("io cause"))?,
        b"\xff str" => Ok(Some(std::str::from_utf8(data)?.to_owned().into())),
        b"\xff string" => Ok(Some(String::from_utf8(data.to_vec())?.into())),
        b"box" => Err(Boxed::from("boxed cause"))?,
        b"str" => Err("a str")?,
        b"string" => Err(format!("a {}", "string"))?,
        _ => Ok(None),
    }
}

#[tokio::test]
async fn every_error_that_callbacks_meet_reaches_on_error_with_its_cause() {
    struct Reports;
    impl ConnectionService for Reports {
        async fn on_bytes(&mut self, data: Bytes, _: &Caller) -> Result<Option<Bytes>> {
            fails(&data)
        }
        async fn on_error(&mut self, error: Error, caller: &Caller) -> Result<()> {
            let is_other = error.is_timeout() || error.is_closed() || error.is_configuration();
            assert!(error.kind() == ErrorKind::Service && !is_other);
            let cause = std::error::Error::source(&error);
            let cause = cause.map_or("nothing".into(), ToString::to_string);
            caller.write_bytes(format!("{error}, of {cause};")).await
        }
    }
    let listener = started(service_fn(|_| async { Ok(Reports) })).await;
    let mut peer = peer_of(&listener).await;
    for (order, told) in [
        ("io", "the service failed, of io cause;"),
        ("box", "the service failed, of boxed cause;"),
        ("str", "a str, of nothing;"),
        ("string", "a string, of nothing;"),
    ] {
        peer.send(order).await;
        peer.expect(told).await;
    }
    for order in [&b"\xff str"[..], b"\xff string"] {
        peer.send(order).await;
        peer.expect("the data is not UTF-8, of invalid utf-8 sequence").await;
        peer.expect(" of 1 bytes from index 0;").await;
    }
}

// ---- Attach, replace, detach ----

#[tokio::test]
async fn a_service_attached_while_running_gets_new_connections_and_live_ones_keep_theirs() {
    let listener = started(says("old")).await;
    let mut old = peer_of(&listener).await;
    expect_answer(&mut old, "old").await;
    listener.attach(says("new"));
    let mut new = peer_of(&listener).await;
    expect_answer(&mut new, "new").await;
    expect_answer(&mut old, "old").await;
}

#[tokio::test]
async fn a_replaced_service_is_dropped_once_its_last_connection_has_it() {
    struct Counted {
        _alive: Arc<()>,
    }
    impl Service for Counted {
        type Connection = BoxConnectionService;
        async fn on_connect(&self, _: &Caller) -> Result<BoxConnectionService> {
            Ok(BoxConnectionService::new(|data: Bytes| async { Ok(Some(data)) }))
        }
    }
    let alive = Arc::new(());
    let listener = started(Counted { _alive: alive.clone() }).await;
    let mut peer = peer_of(&listener).await;
    peer.send("x").await;
    peer.expect("x").await;
    listener.attach(says("new"));
    eventually("the drop", || Arc::strong_count(&alive) == 1).await;
}

#[tokio::test]
async fn detached_nothing_is_accepted_and_waiting_callers_are_served_by_the_next_service() {
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new()).unwrap();
    let token = listener.attach(says("old"));
    listener.start().await.unwrap();
    let mut live = peer_of(&listener).await;
    expect_answer(&mut live, "old").await;
    listener.detach(token).unwrap();

    let mut waiting = Vec::new();
    for _ in 0..5 {
        let mut peer = peer_of(&listener).await;
        peer.send("?").await;
        waiting.push(peer);
    }
    // Round trips of a live connection: time enough for an accept that must not happen.
    for _ in 0..50 {
        expect_answer(&mut live, "old").await;
    }
    assert_eq!(listener.stats().accepted, 1);

    listener.attach(says("new"));
    for peer in &mut waiting {
        peer.expect("new").await;
    }
    expect_answer(&mut live, "old").await;
    assert_eq!(listener.stats().accepted, 6);
}

#[tokio::test]
async fn a_stale_token_is_refused_and_the_newer_service_stays() {
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new()).unwrap();
    let stale = listener.attach(says("old"));
    let fresh = listener.attach(says("new"));
    listener.start().await.unwrap();
    let error = listener.detach(stale).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::State);
    assert!(error.to_string().contains("not attached"), "{error}");
    expect_answer(&mut peer_of(&listener).await, "new").await;
    listener.detach(fresh).unwrap();
}

#[tokio::test]
async fn a_listener_whose_service_is_detached_does_not_start() {
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new()).unwrap();
    let token = listener.attach(says("x"));
    listener.detach(token).unwrap();
    let error = listener.start().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::State);
}

#[tokio::test]
async fn a_detached_listener_stops_and_its_waiting_callers_are_let_go() {
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new()).unwrap();
    let token = listener.attach(says("x"));
    listener.start().await.unwrap();
    listener.detach(token).unwrap();
    let mut waiting = peer_of(&listener).await;
    let stop = listener.graceful_stop(Duration::from_secs(20));
    within("the stop", stop).await;
    let (got, _) = waiting.read_to_end().await;
    assert_eq!(got, b"");
    assert_eq!(listener.stats().accepted, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn callers_are_never_dropped_however_often_services_are_detached_and_attached() {
    let config = ListenerConfiguration::new().workers(2);
    let listener = Listener::new(("127.0.0.1", 0), config).unwrap();
    let mut token = listener.attach(says("x"));
    listener.start().await.unwrap();
    let address = listener.local_addr().unwrap();
    let peers: Vec<_> = (0..4)
        .map(|_| {
            tokio::spawn(async move {
                for _ in 0..300 {
                    let mut peer = Peer::connect(address).await;
                    peer.send("?").await;
                    peer.expect("x").await;
                    peer.reset();
                }
            })
        })
        .collect();
    let all_done = || peers.iter().all(tokio::task::JoinHandle::is_finished);
    within("all peers", async {
        while !all_done() {
            listener.detach(token).unwrap();
            token = listener.attach(says("x"));
            tokio::task::yield_now().await;
        }
    })
    .await;
    for peer in peers {
        peer.await.expect("every caller is served");
    }
}

// ---- The short way ----

#[tokio::test]
async fn serve_until_serves_then_stops_gracefully_and_reports() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let listener = Listener::new(address, ListenerConfiguration::new()).unwrap();
    let mut events = EventNames::of(&listener);
    let (finish, finished) = oneshot::channel();
    let serving = tokio::spawn(listener.serve_until(says("x"), async {
        let _ = finished.await;
    }));
    events.until("listening").await;
    let mut peer = Peer::connect(address).await;
    expect_answer(&mut peer, "x").await;
    finish.send(()).unwrap();
    peer.expect_end("").await;
    peer.finish().await;
    let report = within("the end", serving).await.unwrap().unwrap();
    assert_eq!((report.clean, report.forced, report.abandoned), (1, 0, 0));
}

#[tokio::test]
async fn serve_until_tells_why_it_cannot_start() {
    let user = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = Listener::new(user.local_addr().unwrap(), ListenerConfiguration::new()).unwrap();
    let result = listener.serve_until(says("x"), std::future::pending());
    let error = within("the error", result).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Bind);
}

#[tokio::test]
async fn serve_until_returns_when_somebody_else_stops_the_listener() {
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new()).unwrap();
    let mut events = EventNames::of(&listener);
    let handle = listener.clone();
    let serving = tokio::spawn(listener.serve_until(says("x"), std::future::pending()));
    events.until("listening").await;
    within("the stop", handle.immediate_stop()).await;
    within("the end", serving).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_dropped_serve_until_stops_the_listener_at_once() {
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new()).unwrap();
    let mut events = EventNames::of(&listener);
    let serving = tokio::spawn(listener.serve_until(says("x"), std::future::pending()));
    events.until("listening").await;
    serving.abort();
    events.until("stopped").await;
}

#[tokio::test]
async fn services_share_nothing_but_themselves() {
    let mut server = Server::start(Echo).await;
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(server.connect().await);
        server.expect([Seen::Connect]).await;
    }
    for (number, peer) in peers.iter_mut().enumerate() {
        let text = format!("{number}");
        peer.send(&text).await;
        peer.expect(&text).await;
        server.expect([Seen::Bytes(text.into())]).await;
    }
    let ids: std::collections::HashSet<_> =
        [server.caller().await.id(), server.caller().await.id(), server.caller().await.id()].into();
    assert_eq!(ids.len(), 3);
}

/// Runs the named test of this file in a process of its own, with `role` in its environment.
fn child(test: &str) -> tokio::process::Child {
    tokio::process::Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("ONBYTES_TEST_CHILD", test)
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn serve_ends_gracefully_at_a_signal_and_at_once_at_the_second() {
    const NAME: &str = "serve_ends_gracefully_at_a_signal_and_at_once_at_the_second";
    if std::env::var_os("ONBYTES_TEST_CHILD").is_some() {
        return serve_in_child().await;
    }
    use rustix::process::{Pid, Signal, kill_process};
    use tokio::io::{AsyncBufReadExt, BufReader};
    for signals in [vec![Signal::TERM], vec![Signal::INT, Signal::TERM]] {
        let mut process = child(NAME);
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let mut told = async |what: &str| loop {
            let line = within(what, lines.next_line()).await.unwrap();
            let line = line.expect("the child goes on");
            if let Some((_, rest)) = line.split_once(what) {
                return rest.to_owned();
            }
        };
        let port = told("listening on ").await.parse().unwrap();
        let pid = Pid::from_raw(process.id().unwrap().try_into().unwrap()).unwrap();
        let mut peer = Peer::connect(SocketAddr::from(([127, 0, 0, 1], port))).await;
        peer.send("?").await;
        peer.expect("stay").await;
        kill_process(pid, signals[0]).unwrap();
        told("drain").await;
        if signals.len() == 1 {
            // The service stays until its peer has finished.
            peer.send("?").await;
            peer.expect("stay").await;
            peer.finish().await;
            peer.expect_end("").await;
            assert_eq!(told("report ").await, "1 0 0");
        } else {
            kill_process(pid, signals[1]).unwrap();
            peer.expect_reset().await;
            assert_eq!(told("report ").await, "0 1 0");
        }
        assert!(within("the exit", process.wait()).await.unwrap().success());
    }
}

async fn serve_in_child() {
    struct Stays;
    impl ConnectionService for Stays {
        async fn on_bytes(&mut self, _: Bytes, _: &Caller) -> Result<Option<Bytes>> {
            Ok(Some("stay".into()))
        }
        async fn on_drain(&mut self, _: &Caller) -> Drain {
            println!("drain");
            Drain::Stay
        }
    }
    let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new()).unwrap();
    listener.on_event(|event| {
        if let onbytes::Event::Listening { local_addr, .. } = event {
            println!("listening on {}", local_addr.port());
        }
    });
    let report = listener.serve(service_fn(|_| async { Ok(Stays) })).await.unwrap();
    println!("report {} {} {}", report.clean, report.forced, report.abandoned);
}
