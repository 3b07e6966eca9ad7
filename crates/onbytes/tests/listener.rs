//! Starting a listener: what `new` checks, what `start` opens and refuses, which addresses it
//! answers on, and that it can be started again.

mod support;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use onbytes::{
    Bytes, Caller, ConnectionService, Error, ErrorKind, Limits, Listener, ListenerConfiguration,
    Service, Workers, service_fn,
};
use support::{Echo, Peer, Server, within};

/// Answers every chunk with `text`.
fn says(text: &'static str) -> impl Service {
    service_fn(move |_| async move {
        Ok(move |_: Bytes| async move { Ok(Some(Bytes::from_static(text.as_bytes()))) })
    })
}

fn on_loopback(port: u16) -> Listener {
    Listener::new(("127.0.0.1", port), ListenerConfiguration::new()).unwrap()
}

async fn start(listener: &Listener) -> Result<(), Error> {
    within("the start", listener.start()).await
}

async fn expect_answer(address: SocketAddr, answer: &str) {
    let mut peer = within("connecting", Peer::connect(address)).await;
    peer.send("?").await;
    peer.expect(answer).await;
}

/// Polls once, as a runtime would that then drops the future.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn new_needs_no_runtime_and_opens_nothing() {
    let user = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listener = on_loopback(user.local_addr().unwrap().port());
    assert_eq!(listener.local_addr(), None);
    assert_eq!(listener.stats().accepted, 0);
}

#[test]
fn new_refuses_a_value_that_cannot_be_by_its_name() {
    let config = ListenerConfiguration::new().limits(Limits::new().max_connections(0));
    let error = Listener::new(0, config).unwrap_err();
    assert!(error.is_configuration());
    assert!(error.to_string().contains("limits.max_connections"), "{error}");
}

#[test]
fn new_refuses_two_hosts_that_differ() {
    let config = ListenerConfiguration::new().local_host("::1");
    let error = Listener::new(("127.0.0.1", 0), config).unwrap_err();
    assert!(error.is_configuration());
    let message = error.to_string();
    assert!(message.contains("127.0.0.1") && message.contains("::1"), "{message}");
}

#[test]
fn start_outside_a_runtime_is_an_error_and_not_a_panic() {
    let listener = on_loopback(0);
    listener.attach(says("x"));
    let Poll::Ready(Err(error)) = poll_once(pin!(listener.start())) else {
        panic!("a start without a runtime waits, or succeeds");
    };
    assert_eq!(error.kind(), ErrorKind::State);
    assert!(error.to_string().contains("runtime"), "{error}");
}

#[tokio::test]
async fn start_without_a_service_says_what_to_call_first() {
    let listener = on_loopback(0);
    let error = start(&listener).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::State);
    assert!(error.to_string().contains("attach"), "{error}");
    assert_eq!(listener.local_addr(), None);
    // It is only too early.
    listener.attach(says("x"));
    start(&listener).await.unwrap();
}

#[tokio::test]
async fn a_second_start_is_refused_and_the_first_goes_on() {
    let listener = on_loopback(0);
    listener.attach(says("x"));
    start(&listener).await.unwrap();
    let address = listener.local_addr().unwrap();
    let error = start(&listener).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::State);
    assert!(error.to_string().contains("already started"), "{error}");
    assert_eq!(listener.local_addr(), Some(address));
    expect_answer(address, "x").await;
}

#[tokio::test]
async fn a_used_port_is_named_with_the_way_out_and_may_be_tried_again() {
    let user = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = user.local_addr().unwrap();
    let listener = on_loopback(address.port());
    listener.attach(says("x"));
    let error = start(&listener).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Bind);
    let message = error.to_string();
    assert!(message.contains("cannot listen"), "{message}");
    assert!(message.contains(&address.to_string()), "{message}");
    assert!(message.contains("in use"), "{message}");
    let source = std::error::Error::source(&error).expect("the system's error is kept");
    let source = source.downcast_ref::<std::io::Error>().expect("as it was");
    assert_eq!(source.kind(), std::io::ErrorKind::AddrInUse);

    drop(user);
    start(&listener).await.unwrap();
    expect_answer(address, "x").await;
}

#[tokio::test]
async fn two_listeners_of_this_library_do_not_share_a_port() {
    let first = on_loopback(0);
    first.attach(says("first"));
    start(&first).await.unwrap();
    let port = first.local_addr().unwrap().port();
    for endpoint in [Some("127.0.0.1"), None] {
        let mut config = ListenerConfiguration::new();
        config.local_host = endpoint.map(str::to_owned);
        let second = Listener::new(port, config).unwrap();
        second.attach(says("second"));
        assert_eq!(start(&second).await.unwrap_err().kind(), ErrorKind::Bind);
    }
}

#[tokio::test]
async fn an_address_of_somebody_else_is_refused_with_the_reason() {
    // From TEST-NET-1: no interface has it.
    let listener = Listener::new(("192.0.2.1", 0), ListenerConfiguration::new()).unwrap();
    listener.attach(says("x"));
    let error = start(&listener).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Bind);
    assert!(error.to_string().contains("192.0.2.1"), "{error}");
    assert!(error.to_string().contains("no interface"), "{error}");
}

#[tokio::test]
async fn a_host_that_does_not_resolve_is_refused_by_name_and_may_be_tried_again() {
    let listener = Listener::new(("nobody.invalid", 0), ListenerConfiguration::new()).unwrap();
    listener.attach(says("x"));
    for _ in 0..2 {
        let error = start(&listener).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Bind, "{error}");
        assert!(error.to_string().contains("nobody.invalid"), "{error}");
        assert!(std::error::Error::source(&error).is_some());
    }
}

#[tokio::test]
async fn after_a_stop_it_starts_again_on_the_same_port_with_another_service() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    drop(free);
    let listener = on_loopback(address.port());
    for (round, answer) in ["one", "two", "three"].into_iter().enumerate() {
        listener.attach(says(answer));
        start(&listener).await.unwrap();
        expect_answer(address, answer).await;
        if round % 2 == 0 {
            within("the stop", listener.graceful_stop(Duration::from_secs(20))).await;
        } else {
            within("the stop", listener.immediate_stop()).await;
        }
        assert_eq!(listener.local_addr(), None);
    }
    assert_eq!(listener.stats().accepted, 3, "counts go on over the starts");
}

#[tokio::test]
async fn the_service_stays_attached_over_a_stop() {
    let listener = on_loopback(0);
    listener.attach(says("x"));
    for _ in 0..2 {
        start(&listener).await.unwrap();
        expect_answer(listener.local_addr().unwrap(), "x").await;
        within("the stop", listener.immediate_stop()).await;
    }
}

#[tokio::test]
async fn port_0_picks_a_port_and_local_addr_tells_which() {
    let (one, two) = (on_loopback(0), on_loopback(0));
    for listener in [&one, &two] {
        listener.attach(says("x"));
        start(listener).await.unwrap();
        expect_answer(listener.local_addr().unwrap(), "x").await;
    }
    assert_ne!(one.local_addr().unwrap().port(), 0);
    assert_ne!(one.local_addr(), two.local_addr());
}

/// Answers with both addresses, as the service sees them.
fn says_addresses() -> impl Service {
    struct Addresses;
    impl ConnectionService for Addresses {
        async fn on_bytes(&mut self, _: Bytes, caller: &Caller) -> onbytes::Result<Option<Bytes>> {
            let (host, port) = (caller.local_host(), caller.local_port());
            let text = format!("{} at {host} {port}", caller.remote_host());
            assert_eq!(caller.remote_addr().ip().to_string(), caller.remote_host());
            assert_eq!(caller.remote_addr().port(), caller.remote_port());
            Ok(Some(text.into()))
        }
    }
    service_fn(|_| async { Ok(Addresses) })
}

#[tokio::test]
async fn an_ipv6_address_is_served_with_or_without_brackets() {
    for host in ["::1", "[::1]"] {
        let listener = Listener::new((host, 0), ListenerConfiguration::new()).unwrap();
        listener.attach(says_addresses());
        start(&listener).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(address.is_ipv6());
        expect_answer(address, &format!("::1 at ::1 {}", address.port())).await;
    }
}

#[tokio::test]
async fn without_a_host_both_families_reach_it_and_ipv4_peers_show_as_ipv4() {
    let listener = Listener::new(0, ListenerConfiguration::new()).unwrap();
    listener.attach(says_addresses());
    start(&listener).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    expect_answer(
        SocketAddr::from(([127, 0, 0, 1], port)),
        &format!("127.0.0.1 at 127.0.0.1 {port}"),
    )
    .await;
    let v6 = format!("[::1]:{port}").parse().unwrap();
    expect_answer(v6, &format!("::1 at ::1 {port}")).await;
}

#[tokio::test]
async fn a_host_of_ipv4_is_not_reached_by_ipv6() {
    let listener = on_loopback(0);
    listener.attach(says("x"));
    start(&listener).await.unwrap();
    let v6 =
        SocketAddr::from((std::net::Ipv6Addr::LOCALHOST, listener.local_addr().unwrap().port()));
    let refused = within("connecting", tokio::net::TcpStream::connect(v6)).await;
    assert_eq!(refused.unwrap_err().kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_host_name_means_its_first_address_that_binds() {
    let by_endpoint = Listener::new(("localhost", 0), ListenerConfiguration::new()).unwrap();
    let by_record = Listener::new(0, ListenerConfiguration::new().local_host("localhost")).unwrap();
    for listener in [by_endpoint, by_record] {
        listener.attach(says("x"));
        start(&listener).await.unwrap();
        let address = listener.local_addr().unwrap();
        assert!(address.ip().is_loopback(), "{address}");
        expect_answer(address, "x").await;
    }
}

#[tokio::test]
async fn of_two_starts_at_once_one_is_refused() {
    let listener = Listener::new(("localhost", 0), ListenerConfiguration::new()).unwrap();
    listener.attach(says("x"));
    let (one, two) = tokio::join!(start(&listener), start(&listener));
    assert!(one.is_ok(), "{one:?}");
    assert_eq!(two.unwrap_err().kind(), ErrorKind::State);
    expect_answer(listener.local_addr().unwrap(), "x").await;
}

#[tokio::test]
async fn a_start_that_is_dropped_half_way_leaves_the_listener_not_started() {
    // The look-up of a name is where a start waits.
    let listener = Listener::new(("localhost", 0), ListenerConfiguration::new()).unwrap();
    listener.attach(says("x"));
    for _ in 0..20 {
        {
            let mut start = pin!(listener.start());
            let _ = poll_once(start.as_mut());
        }
        if listener.local_addr().is_some() {
            within("the stop", listener.immediate_stop()).await;
        }
    }
    start(&listener).await.unwrap();
    expect_answer(listener.local_addr().unwrap(), "x").await;
}

#[tokio::test]
async fn a_stop_ends_a_start_under_way() {
    let listener = Listener::new(("localhost", 0), ListenerConfiguration::new()).unwrap();
    listener.attach(says("x"));
    let mut starting = Box::pin(listener.start());
    assert!(poll_once(starting.as_mut()).is_pending(), "it looks up");
    within("the stop", listener.graceful_stop(Duration::ZERO)).await;
    let error = within("the start", starting).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::State);
    assert!(error.to_string().contains("stopped"), "{error}");
    assert_eq!(listener.local_addr(), None);
    start(&listener).await.unwrap();
    expect_answer(listener.local_addr().unwrap(), "x").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn starts_and_stops_from_many_tasks_leave_a_listener_that_works() {
    let listener = on_loopback(0);
    listener.attach(says("x"));
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let listener = listener.clone();
            tokio::spawn(async move {
                for round in 0..40 {
                    match (task + round) % 3 {
                        0 => drop(listener.immediate_stop().await),
                        1 => drop(listener.graceful_stop(Duration::from_secs(20)).await),
                        _ => match listener.start().await {
                            Ok(()) => {}
                            Err(error) => assert_eq!(error.kind(), ErrorKind::State, "{error}"),
                        },
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        within("a task", task).await.unwrap();
    }
    within("the stop", listener.immediate_stop()).await;
    assert_eq!(listener.local_addr(), None);
    start(&listener).await.unwrap();
    expect_answer(listener.local_addr().unwrap(), "x").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn several_accept_loops_serve_every_caller_once_and_release_the_port_together() {
    for workers in [Workers::AcceptLoops(4), Workers::Threads(4)] {
        serve_every_caller_once_and_release_the_port(workers).await;
    }
}

async fn serve_every_caller_once_and_release_the_port(workers: Workers) {
    let config = ListenerConfiguration::new().workers(workers);
    let server = Server::with(config, Echo).await;
    let address = server.address;
    let peers: Vec<_> = (0..200)
        .map(|number: u32| {
            tokio::spawn(async move {
                let mut peer = Peer::connect(address).await;
                let text = format!("number {number}");
                peer.send(&text).await;
                peer.expect(&text).await;
                peer.finish().await;
                peer.expect_end("").await;
            })
        })
        .collect();
    for peer in peers {
        within("a peer", peer).await.unwrap();
    }
    assert_eq!(server.listener.stats().accepted, 200);
    let stop = server.listener.graceful_stop(Duration::from_secs(20));
    within("the stop", stop).await;
    std::net::TcpListener::bind(address).expect("the port is free");
}

#[tokio::test]
async fn a_clone_is_a_handle_of_the_same_listener() {
    let listener = on_loopback(0);
    let clone = listener.clone();
    clone.attach(says("x"));
    start(&listener).await.unwrap();
    let address = clone.local_addr().unwrap();
    assert_eq!(listener.local_addr(), Some(address));
    drop(listener);
    expect_answer(address, "x").await;
    assert_eq!(clone.stats().accepted, 1);
}
