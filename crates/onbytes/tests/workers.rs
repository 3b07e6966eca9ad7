//! Where connections run: on threads of the listener's own, which begin and end with it.

mod support;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use onbytes::{Bytes, Caller, CloseReason, Listener, ListenerConfiguration, Workers, service_fn};
use support::{Echo, OnBytes, Peer, Seen, Server, eventually, pattern, within};
use tokio::runtime::{Builder, Runtime};

fn on_threads(count: usize) -> ListenerConfiguration {
    ListenerConfiguration::new().workers(count)
}

/// Answers with the name of the thread that it runs on.
fn told_name() -> impl support::Script {
    OnBytes(|_: Bytes, _: Caller| async {
        Ok(Some(thread::current().name().unwrap_or_default().to_owned().into()))
    })
}

async fn ask_for_name(peer: &mut Peer) -> String {
    use tokio::io::AsyncReadExt;
    peer.send("?").await;
    let mut name = [0; 16];
    let len = within("a name", peer.stream.read(&mut name)).await.unwrap();
    String::from_utf8(name[..len].to_vec()).unwrap()
}

#[tokio::test]
async fn connections_are_divided_between_the_threads_and_stay_where_they_are() {
    let server = Server::with(on_threads(2), told_name()).await;
    let mut names = BTreeSet::new();
    // That all go to one thread has a chance of 2 in 2^64.
    for _ in 0..64 {
        let mut peer = server.connect().await;
        let name = ask_for_name(&mut peer).await;
        for _ in 0..3 {
            assert_eq!(ask_for_name(&mut peer).await, name);
        }
        names.insert(name);
    }
    assert_eq!(names, BTreeSet::from(["onbytes-1".to_owned(), "onbytes-2".to_owned()]));
}

#[tokio::test]
async fn without_workers_connections_run_where_the_listener_was_started() {
    let own = thread::current().name().unwrap().to_owned();
    let server = Server::start(OnBytes(move |_: Bytes, _: Caller| {
        let is_here = thread::current().name() == Some(&own);
        async move { Ok(Some(is_here.to_string().into())) }
    }))
    .await;
    assert_eq!(ask_for_name(&mut server.connect().await).await, "true");
}

#[tokio::test]
async fn a_message_from_another_runtime_arrives_whole_also_where_it_has_to_wait() {
    let mut server = Server::with(on_threads(2), Echo).await;
    let mut peer = server.connect().await;
    let caller = server.caller().await;
    let message = pattern(7, 8 << 20);
    let writing = tokio::spawn({
        let message = message.clone();
        async move { caller.write_bytes(message).await }
    });
    peer.expect(&message).await;
    within("the write", writing).await.unwrap().unwrap();
    peer.send("and back").await;
    peer.expect("and back").await;
}

#[tokio::test]
async fn a_thread_that_a_callback_holds_up_holds_up_neither_the_others_nor_a_stop() {
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let script = OnBytes(move |data: Bytes, _: Caller| {
        let (held, tell) = (Arc::clone(&held), tell.clone());
        async move {
            if data == "block" {
                tell.send(thread::current().name().unwrap_or_default().to_owned()).unwrap();
                // Returns where the test has ended, too.
                let _ = held.lock().unwrap().recv();
            }
            Ok(Some(thread::current().name().unwrap_or_default().to_owned().into()))
        }
    });
    let server = Server::with(on_threads(2), script).await;
    // Peers on both threads.
    let mut peers = Vec::new();
    let mut names = BTreeSet::new();
    while names.len() < 2 {
        let mut peer = server.connect().await;
        let name = ask_for_name(&mut peer).await;
        names.insert(name.clone());
        peers.push((name, peer));
    }
    let (stuck, stuck_peer) = peers.last_mut().unwrap();
    stuck_peer.send("block").await;
    assert_eq!(within("the block", told.recv()).await.as_ref(), Some(&*stuck));
    let stuck = stuck.clone();
    for (name, peer) in &mut peers {
        if *name != stuck {
            assert_eq!(ask_for_name(peer).await, *name);
        }
    }
    let on_stuck = peers.iter().filter(|(name, _)| *name == stuck).count();
    let report = within("the stop", server.listener.immediate_stop()).await;
    assert_eq!((report.clean, report.forced), (0, peers.len() - on_stuck));
    assert_eq!(report.abandoned, on_stuck);
    std::net::TcpListener::bind(server.address).expect("the port is free");
    drop(release);
}

#[tokio::test]
async fn what_callbacks_have_spawned_ends_with_the_stop() {
    struct Guard(tokio::sync::mpsc::UnboundedSender<()>);
    impl Drop for Guard {
        fn drop(&mut self) {
            let _ = self.0.send(());
        }
    }
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let script = OnBytes(move |data: Bytes, _: Caller| {
        let guard = Guard(tell.clone());
        tokio::spawn(async move {
            let _guard = guard;
            std::future::pending::<()>().await;
        });
        async { Ok(Some(data)) }
    });
    let server = Server::with(on_threads(2), script).await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect("x").await;
    let stop = server.listener.graceful_stop(Duration::from_secs(20));
    assert_eq!(within("the stop", stop).await.clean, 1);
    within("the end of what was spawned", told.recv()).await.unwrap();
}

#[tokio::test]
async fn a_listener_can_be_started_again_on_new_threads() {
    let listener = Listener::new(("127.0.0.1", 0), on_threads(3)).unwrap();
    let _kept = Server::attach(&listener, Echo);
    for _ in 0..5 {
        listener.start().await.unwrap();
        let mut peer = Peer::connect(listener.local_addr().unwrap()).await;
        peer.send("x").await;
        peer.expect("x").await;
        let report = within("the stop", listener.immediate_stop()).await;
        assert_eq!((report.clean, report.forced, report.abandoned), (0, 1, 0));
        peer.expect_reset().await;
    }
}

/// Starts the listener on a runtime that is gone then; returns another one, for its peers.
fn start_on_a_runtime_that_ends(listener: &Listener) -> Runtime {
    let runtime = || Builder::new_current_thread().enable_all().build().unwrap();
    runtime().block_on(listener.start()).unwrap();
    runtime()
}

#[test]
fn its_threads_serve_on_where_the_runtime_of_the_start_has_ended_until_the_last_handle_goes() {
    let listener = Listener::new(("127.0.0.1", 0), on_threads(2)).unwrap();
    let (_seen, _callers, mut closes) = Server::attach(&listener, Echo);
    let outside = start_on_a_runtime_that_ends(&listener);
    outside.block_on(async {
        let mut peer = Peer::connect(listener.local_addr().unwrap()).await;
        peer.send("x").await;
        peer.expect("x").await;
        drop(listener);
        peer.expect_reset().await;
        let close = within("on_close", closes.recv()).await.unwrap();
        assert_eq!(close.reason, CloseReason::Stopped);
    });
}

#[test]
fn a_graceful_stop_is_carried_out_where_the_runtime_of_the_start_has_ended() {
    let listener = Listener::new(("127.0.0.1", 0), on_threads(2)).unwrap();
    let (mut seen, _callers, mut closes) = Server::attach(&listener, Echo);
    let outside = start_on_a_runtime_that_ends(&listener);
    outside.block_on(async {
        let mut peer = Peer::connect(listener.local_addr().unwrap()).await;
        peer.send("x").await;
        peer.expect("x").await;
        let stop = listener.graceful_stop(Duration::from_secs(20));
        let report = within("the stop", stop).await;
        assert_eq!((report.clean, report.forced, report.abandoned), (1, 0, 0));
        peer.expect_end("").await;
        let close = within("on_close", closes.recv()).await.unwrap();
        assert_eq!(close.reason, CloseReason::Drained);
        let asked = std::iter::from_fn(|| seen.try_recv().ok());
        assert!(asked.into_iter().any(|seen| seen == Seen::Drain));
    });
}

#[tokio::test]
async fn a_port_that_several_threads_listen_on_is_in_use_for_everybody_else() {
    let server = Server::with(on_threads(2), Echo).await;
    for workers in [Workers::Threads(2), Workers::Current] {
        let config = ListenerConfiguration::new().workers(workers);
        let second = Listener::new(server.address, config).unwrap();
        second.attach(service_fn(|_| async { Ok(|data: Bytes| async { Ok(Some(data)) }) }));
        let error = second.start().await.unwrap_err().to_string();
        assert!(error.contains("the port is in use"), "{error}");
    }
}

#[tokio::test]
async fn many_peers_on_many_threads_are_counted_together() {
    let server = Server::with(on_threads(4), Echo).await;
    let mut peers = Vec::new();
    for _ in 0..100 {
        let mut peer = server.connect().await;
        peer.send("x").await;
        peer.expect("x").await;
        peers.push(peer);
    }
    assert_eq!(server.listener.stats().active, 100);
    assert_eq!(server.listener.connections().len(), 100);
    for peer in &mut peers {
        peer.finish().await;
        peer.expect_end("").await;
    }
    eventually("no connection", || server.listener.stats().active == 0).await;
    assert_eq!(server.listener.stats().closed(CloseReason::PeerClosed), 100);
}
