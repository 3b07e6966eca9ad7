//! What a listener tells through `on_event` and `stats`: every kind of event, its name, its fields
//! and its place in the order.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use onbytes::{
    Bytes, Caller, Close, CloseReason, ConnectionId, Event, Limits, Listener,
    ListenerConfiguration, Timeouts, WhenFull,
};
use support::{Echo, OnBytes, Peer, Script, Server, eventually, within};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// An event with its fields, kept.
#[derive(Debug, Clone, PartialEq)]
enum Told {
    Listening(SocketAddr),
    Accepted(ConnectionId, SocketAddr, SocketAddr),
    Refused(Option<SocketAddr>),
    Closed(ConnectionId, SocketAddr, CloseReason),
    Panicked(ConnectionId, &'static str, String),
    CloseOverran(ConnectionId),
    Stopping(usize),
    Stopped(usize, usize, usize),
    Other(&'static str),
}

struct Events(UnboundedReceiver<(&'static str, Told)>);

impl Events {
    fn of(listener: &Listener) -> Self {
        let (tell, told) = unbounded_channel();
        listener.on_event(move |event| {
            let kept = match event {
                Event::Listening { local_addr, .. } => Told::Listening(*local_addr),
                Event::Accepted { id, remote_addr, local_addr, .. } => {
                    Told::Accepted(*id, *remote_addr, *local_addr)
                }
                Event::Refused { remote_addr, .. } => Told::Refused(*remote_addr),
                Event::Closed { id, remote_addr, close, .. } => {
                    Told::Closed(*id, *remote_addr, close.reason)
                }
                Event::Panicked { id, callback, panic, .. } => {
                    Told::Panicked(*id, callback, (*panic).to_owned())
                }
                Event::CloseOverran { id, .. } => Told::CloseOverran(*id),
                Event::Stopping { connections, .. } => Told::Stopping(*connections),
                Event::Stopped { report, .. } => {
                    Told::Stopped(report.clean, report.forced, report.abandoned)
                }
                other => Told::Other(other.name()),
            };
            let _ = tell.send((event.name(), kept));
        });
        Self(told)
    }

    async fn next(&mut self) -> (&'static str, Told) {
        within("an event", self.0.recv()).await.expect("the listener is gone")
    }

    async fn expect(&mut self, name: &str, expected: Told) {
        let (got, told) = self.next().await;
        assert_eq!((got, told), (name, expected));
    }

    async fn accepted(&mut self) -> (ConnectionId, SocketAddr, SocketAddr) {
        match self.next().await {
            ("accepted", Told::Accepted(id, remote, local)) => (id, remote, local),
            other => panic!("not accepted but {other:?}"),
        }
    }
}

fn listener(config: ListenerConfiguration) -> (Listener, Events) {
    let listener = Listener::new(("127.0.0.1", 0), config).unwrap();
    let events = Events::of(&listener);
    (listener, events)
}

#[tokio::test]
async fn a_connections_events_come_in_order_with_its_id_and_addresses() {
    let (listener, mut events) = listener(ListenerConfiguration::new());
    let (_, mut callers, _) = Server::attach(&listener, Echo);
    listener.start().await.unwrap();
    let address = listener.local_addr().unwrap();
    events.expect("listening", Told::Listening(address)).await;

    let mut peer = Peer::connect(address).await;
    let remote = peer.stream.local_addr().unwrap();
    let accepted = events.accepted().await;
    let id = within("on_connect", callers.recv()).await.unwrap().id();
    assert_eq!(accepted, (id, remote, address));
    peer.finish().await;
    peer.expect_end("").await;
    events.expect("closed", Told::Closed(id, remote, CloseReason::PeerClosed)).await;

    within("the stop", listener.graceful_stop(Duration::from_secs(20))).await;
    events.expect("stopping", Told::Stopping(0)).await;
    events.expect("stopped", Told::Stopped(0, 0, 0)).await;
}

#[tokio::test]
async fn a_stop_tells_how_many_were_live_and_how_they_ended() {
    let (listener, mut events) = listener(ListenerConfiguration::new());
    let _kept = Server::attach(&listener, Echo);
    listener.start().await.unwrap();
    events.next().await;
    let mut peers = Vec::new();
    for _ in 0..3 {
        peers.push(Peer::connect(listener.local_addr().unwrap()).await);
        events.accepted().await;
    }
    let stop = tokio::spawn({
        let listener = listener.clone();
        async move { listener.graceful_stop(Duration::from_secs(3600)).await }
    });
    events.expect("stopping", Told::Stopping(3)).await;
    for peer in &mut peers {
        peer.expect_end("").await;
        peer.finish().await;
        let (name, told) = events.next().await;
        assert!(matches!(told, Told::Closed(_, _, CloseReason::Drained)), "{name} {told:?}");
    }
    within("the stop", stop).await.unwrap();
    events.expect("stopped", Told::Stopped(3, 0, 0)).await;
}

#[tokio::test]
async fn an_immediate_stop_tells_how_many_were_live_and_how_they_ended() {
    let (listener, mut events) = listener(ListenerConfiguration::new());
    let _kept = Server::attach(&listener, Echo);
    listener.start().await.unwrap();
    events.next().await;
    let _peer = Peer::connect(listener.local_addr().unwrap()).await;
    let (id, remote, _) = events.accepted().await;
    within("the stop", listener.immediate_stop()).await;
    let mut told = vec![events.next().await.1, events.next().await.1, events.next().await.1];
    let closed = Told::Closed(id, remote, CloseReason::Stopped);
    assert_eq!(told.pop(), Some(Told::Stopped(0, 1, 0)));
    // The connection may be gone before the stop itself is told of.
    assert!(told.contains(&closed), "{told:?}");
    assert!(told.contains(&Told::Stopping(1)), "{told:?}");
}

#[tokio::test]
async fn a_refusal_names_the_caller() {
    let limits = Limits::new().max_connections(1).when_full(WhenFull::Refuse);
    let (listener, mut events) = listener(ListenerConfiguration::new().limits(limits));
    let _kept = Server::attach(&listener, Echo);
    listener.start().await.unwrap();
    events.next().await;
    let _first = Peer::connect(listener.local_addr().unwrap()).await;
    events.accepted().await;
    let second = Peer::connect(listener.local_addr().unwrap()).await;
    let remote = second.stream.local_addr().unwrap();
    events.expect("refused", Told::Refused(Some(remote))).await;
    assert_eq!(listener.stats().refused, 1);
}

#[tokio::test]
async fn a_panic_names_the_connection_the_callback_and_the_message() {
    struct Panics;
    impl Script for Panics {
        async fn bytes(&self, data: Bytes, _: &Caller) -> onbytes::Result<Option<Bytes>> {
            panic!("got {} bytes", data.len());
        }
        async fn close(&self, _: &Close) {
            panic!("and again");
        }
    }
    let (listener, mut events) = listener(ListenerConfiguration::new());
    let _kept = Server::attach(&listener, Panics);
    listener.start().await.unwrap();
    events.next().await;
    let mut peer = Peer::connect(listener.local_addr().unwrap()).await;
    let (id, remote, _) = events.accepted().await;
    peer.send("abc").await;
    let first = Told::Panicked(id, "on_bytes", "got 3 bytes".into());
    events.expect("panicked", first).await;
    let second = Told::Panicked(id, "on_close", "and again".into());
    events.expect("panicked", second).await;
    events.expect("closed", Told::Closed(id, remote, CloseReason::Panicked)).await;
}

#[tokio::test]
async fn an_on_close_that_overran_is_told_before_the_end() {
    struct Lingers;
    impl Script for Lingers {
        async fn close(&self, _: &Close) {
            std::future::pending::<()>().await;
        }
    }
    let timeouts = Timeouts::new().on_close(Duration::from_millis(20));
    let (listener, mut events) = listener(ListenerConfiguration::new().timeouts(timeouts));
    let _kept = Server::attach(&listener, Lingers);
    listener.start().await.unwrap();
    events.next().await;
    let mut peer = Peer::connect(listener.local_addr().unwrap()).await;
    let (id, remote, _) = events.accepted().await;
    peer.finish().await;
    events.expect("close_overran", Told::CloseOverran(id)).await;
    events.expect("closed", Told::Closed(id, remote, CloseReason::PeerClosed)).await;
}

#[tokio::test]
async fn a_rejected_connection_is_told_with_its_error() {
    struct Rejects;
    impl Script for Rejects {
        async fn connect(&self, _: &Caller) -> onbytes::Result<()> {
            Err("not you".into())
        }
    }
    let server = Server::start(Rejects).await;
    let (tell, mut told) = unbounded_channel();
    server.listener.on_event(move |event| {
        if let Event::Closed { close, .. } = event {
            let _ = tell.send((*close).clone());
        }
    });
    server.connect().await.expect_end("").await;
    let close = within("the event", told.recv()).await.unwrap();
    assert_eq!(close.reason, CloseReason::Rejected);
    assert_eq!(close.error.unwrap().to_string(), "not you");
    assert_eq!(server.listener.stats().closed(CloseReason::Rejected), 1);
}

#[tokio::test]
async fn the_event_of_an_end_has_the_same_close_as_the_callback() {
    let mut server = Server::start(Echo).await;
    let (tell, mut told) = unbounded_channel();
    server.listener.on_event(move |event| {
        if let Event::Closed { close, .. } = event {
            let _ = tell.send((*close).clone());
        }
    });
    let mut peer = server.connect().await;
    peer.send("12345").await;
    peer.expect("12345").await;
    peer.finish().await;
    let (by_event, by_callback) =
        (within("the event", told.recv()).await.unwrap(), server.close().await);
    assert_eq!(by_event.reason, by_callback.reason);
    assert_eq!(by_event.stats, by_callback.stats);
}

#[tokio::test]
async fn a_hook_that_panics_harms_nobody() {
    let mut server = Server::start(Echo).await;
    server.listener.on_event(|event| panic!("in the hook, at {}", event.name()));
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect("x").await;
    peer.finish().await;
    peer.expect_end("").await;
    assert_eq!(server.close().await.reason, CloseReason::PeerClosed);
    let mut next = server.connect().await;
    next.send("y").await;
    next.expect("y").await;
    within("the stop", server.listener.immediate_stop()).await;
    within("the start", server.listener.start()).await.unwrap();
}

#[tokio::test]
async fn a_hook_may_use_its_listener() {
    let server = Server::start(Echo).await;
    let (tell, mut told) = unbounded_channel();
    // Weak would be better manners; the clone is dropped with the next hook.
    let handle = server.listener.clone();
    server.listener.on_event(move |event| {
        let _ = tell.send((event.name(), handle.stats().accepted, handle.local_addr()));
    });
    let mut peer = server.connect().await;
    let address = Some(server.address);
    assert_eq!(within("an event", told.recv()).await, Some(("accepted", 1, address)));
    peer.finish().await;
    peer.expect_end("").await;
    assert_eq!(within("an event", told.recv()).await, Some(("closed", 1, address)));
    server.listener.on_event(|_| {});
}

#[tokio::test]
async fn a_new_hook_takes_the_place_of_the_old_one() {
    let server = Server::start(Echo).await;
    let mut old = Events::of(&server.listener);
    let mut new = Events::of(&server.listener);
    let _peer = server.connect().await;
    new.accepted().await;
    assert!(within("the end of the old hook", old.0.recv()).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn counts_add_up_over_many_connections_and_all_ways_to_end() {
    let script = OnBytes(|data: Bytes, caller: Caller| async move {
        match &data[..] {
            b"panic" => panic!("as told"),
            b"error" => return Err("as told".into()),
            b"close" => caller.close(),
            b"abort" => caller.abort(),
            _ => {}
        }
        Ok(Some(data))
    });
    let server = Server::with(ListenerConfiguration::new().workers(2), script).await;
    let orders = ["panic", "error", "close", "abort", "finish"];
    for _ in 0..20 {
        for order in orders {
            let mut peer = server.connect().await;
            match order {
                "finish" => peer.finish().await,
                order => peer.send(order).await,
            }
            let _ = peer.read_to_end().await;
        }
    }
    eventually("no connection", || server.listener.stats().active == 0).await;
    let stats = server.listener.stats();
    assert_eq!(stats.accepted, 100);
    for reason in CloseReason::ALL {
        let expected = match reason {
            CloseReason::Panicked
            | CloseReason::ServiceError
            | CloseReason::LocalClose
            | CloseReason::LocalAbort
            | CloseReason::PeerClosed => 20,
            _ => 0,
        };
        assert_eq!(stats.closed(reason), expected, "{reason}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn listening_is_told_before_any_connection() {
    for _ in 0..50 {
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let listener = Listener::new(address, ListenerConfiguration::new().workers(4)).unwrap();
        let mut events = Events::of(&listener);
        let _kept = Server::attach(&listener, Echo);
        let knocking = tokio::spawn(async move {
            while tokio::net::TcpStream::connect(address).await.is_err() {
                tokio::task::yield_now().await;
            }
        });
        listener.start().await.unwrap();
        within("a connection", knocking).await.unwrap();
        assert_eq!(events.next().await.0, "listening");
        within("the stop", listener.immediate_stop()).await;
    }
}

#[tokio::test]
async fn whoever_hears_of_a_listener_finds_it_listening() {
    let listener =
        onbytes::Listener::new(("127.0.0.1", 0), onbytes::ListenerConfiguration::new()).unwrap();
    listener.attach(onbytes::service_fn(|_| async {
        Ok(|data: onbytes::Bytes| async { Ok(Some(data)) })
    }));
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let handle = listener.clone();
    listener.on_event(move |event| {
        if let onbytes::Event::Listening { local_addr, .. } = event {
            let _ = tell.send(handle.local_addr() == Some(*local_addr));
        }
    });
    listener.start().await.unwrap();
    assert_eq!(told.recv().await, Some(true));
    listener.immediate_stop().await;
    // The hook holds a handle.
    listener.on_event(|_| {});
}
