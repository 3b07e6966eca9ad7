//! Who may come in: lists of addresses, and bounds for each source. Peers call from addresses of
//! 127.0.0.0/8, which are all this machine's.

mod support;

use std::net::{IpAddr, SocketAddr};

use onbytes::{Limits, ListenerConfiguration, PerSource, Prefix, Refusal};
use support::{Echo, Peer, Server, eventually, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn list(prefixes: &[&str]) -> Vec<Prefix> {
    prefixes.iter().map(|prefix| prefix.parse().unwrap()).collect()
}

async fn with(limits: Limits) -> Server {
    Server::with(ListenerConfiguration::new().limits(limits), Echo).await
}

async fn call_from(server: &Server, from: &str) -> Peer {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.parse::<IpAddr>().unwrap(), 0)).unwrap();
    Peer { stream: within("connecting", socket.connect(server.address)).await.unwrap() }
}

async fn expect_served(peer: &mut Peer) {
    peer.send("x").await;
    peer.expect("x").await;
}

/// A caller that is turned away sees its end, by FIN or reset, without a byte.
async fn expect_refused(mut peer: Peer) {
    assert_eq!(peer.read_to_end().await.0, b"");
}

fn refused(server: &Server, cause: Refusal) -> u64 {
    server.listener.stats().refused_for(cause)
}

#[tokio::test]
async fn only_those_who_are_allowed_and_not_denied_come_in() {
    let limits = Limits::new()
        .allow(list(&["127.0.0.1", "127.0.1.0/24", "::1"]))
        .deny(list(&["127.0.1.128/25"]));
    let server = with(limits).await;
    for (from, may) in [
        ("127.0.0.1", true),
        ("127.0.0.2", false),
        ("127.0.1.1", true),
        ("127.0.1.127", true),
        ("127.0.1.128", false),
        ("127.0.2.1", false),
    ] {
        let mut peer = call_from(&server, from).await;
        if may { expect_served(&mut peer).await } else { expect_refused(peer).await }
    }
    assert_eq!(refused(&server, Refusal::Denied), 3);
    assert_eq!(server.listener.stats().accepted, 3);
}

#[tokio::test]
async fn a_denied_caller_takes_no_place() {
    let server = with(Limits::new().max_connections(1).deny(list(&["127.0.0.2"]))).await;
    for _ in 0..20 {
        expect_refused(call_from(&server, "127.0.0.2").await).await;
    }
    expect_served(&mut call_from(&server, "127.0.0.1").await).await;
}

#[tokio::test]
async fn a_list_that_changes_concerns_those_who_come_after() {
    let server = with(Limits::new()).await;
    let mut early = call_from(&server, "127.0.0.2").await;
    expect_served(&mut early).await;
    server.listener.set_limits(Limits::new().deny(list(&["127.0.0.2"]))).unwrap();
    expect_refused(call_from(&server, "127.0.0.2").await).await;
    expect_served(&mut early).await;
    server.listener.set_limits(Limits::new()).unwrap();
    expect_served(&mut call_from(&server, "127.0.0.2").await).await;
}

#[tokio::test]
async fn a_dual_stack_listener_takes_ipv4_for_what_it_is() {
    let limits = Limits::new().deny(list(&["127.0.0.2"]));
    let config = ListenerConfiguration::new().limits(limits);
    let listener = onbytes::Listener::new(0, config).unwrap();
    let _seen = Server::attach(&listener, Echo);
    listener.start().await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let call = async |from: &str| {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(from.parse::<IpAddr>().unwrap(), 0)).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        Peer { stream: within("connecting", socket.connect(to)).await.unwrap() }
    };
    expect_refused(call("127.0.0.2").await).await;
    expect_served(&mut call("127.0.0.3").await).await;
}

#[tokio::test]
async fn a_source_has_so_many_connections_and_others_are_not_concerned() {
    let server = with(Limits::new().per_source(PerSource::new().max_connections(2))).await;
    let mut one = call_from(&server, "127.0.0.2").await;
    let mut two = call_from(&server, "127.0.0.2").await;
    expect_served(&mut one).await;
    expect_served(&mut two).await;
    expect_refused(call_from(&server, "127.0.0.2").await).await;
    expect_served(&mut call_from(&server, "127.0.0.3").await).await;
    assert_eq!(refused(&server, Refusal::SourceFull), 1);
    // A place comes back with the descriptor.
    one.finish().await;
    one.expect_end("").await;
    drop(one);
    eventually("the end of all but one", || server.listener.stats().active == 1).await;
    let mut third = call_from(&server, "127.0.0.2").await;
    expect_served(&mut third).await;
    expect_refused(call_from(&server, "127.0.0.2").await).await;
}

#[tokio::test]
async fn whatever_ends_a_connection_gives_its_source_a_place_back() {
    let mut server = with(Limits::new().per_source(PerSource::new().max_connections(1))).await;
    for round in 0..30 {
        let mut peer = call_from(&server, "127.0.0.2").await;
        expect_served(&mut peer).await;
        let caller = server.caller().await;
        match round % 3 {
            0 => peer.reset(),
            1 => caller.abort(),
            _ => {
                caller.close();
                peer.expect_end("").await;
                drop(peer);
            }
        }
        // The clone that lives on holds nothing.
        eventually("the end", || server.listener.stats().active == 0).await;
    }
}

#[tokio::test]
async fn addresses_that_share_a_prefix_are_one_source() {
    let per_source = PerSource::new().max_connections(1).ipv4_prefix(24);
    let server = with(Limits::new().per_source(per_source)).await;
    let mut one = call_from(&server, "127.0.1.1").await;
    expect_served(&mut one).await;
    expect_refused(call_from(&server, "127.0.1.2").await).await;
    expect_served(&mut call_from(&server, "127.0.2.1").await).await;
}

#[tokio::test]
async fn a_source_that_calls_too_fast_is_refused_and_others_are_not() {
    // So slow that nothing comes back during the test.
    let per_source = PerSource::new().accept_rate(0.001).accept_burst(3);
    let server = with(Limits::new().per_source(per_source)).await;
    for _ in 0..3 {
        expect_served(&mut call_from(&server, "127.0.0.2").await).await;
    }
    for _ in 0..3 {
        expect_refused(call_from(&server, "127.0.0.2").await).await;
    }
    expect_served(&mut call_from(&server, "127.0.0.3").await).await;
    assert_eq!(refused(&server, Refusal::SourceRate), 3);
}

#[tokio::test]
async fn a_source_regains_what_its_rate_gives() {
    let per_source = PerSource::new().accept_rate(5.0).accept_burst(1);
    let server = with(Limits::new().per_source(per_source)).await;
    // First it has used up what it has, then it has some again.
    while is_served(&server).await {}
    assert!(server.listener.stats().refused_for(Refusal::SourceRate) > 0);
    while !is_served(&server).await {}
}

/// Whether one more caller of the source is served.
async fn is_served(server: &Server) -> bool {
    let mut peer = call_from(server, "127.0.0.2").await;
    // One that is refused may be gone by now.
    let _ = peer.stream.write_all(b"x").await;
    let mut got = [0; 1];
    matches!(within("an answer", peer.stream.read(&mut got)).await, Ok(1))
}

#[tokio::test]
async fn a_bound_that_is_set_while_connections_live_counts_them() {
    let server = with(Limits::new()).await;
    let mut peers = Vec::new();
    for _ in 0..3 {
        let mut peer = call_from(&server, "127.0.0.2").await;
        expect_served(&mut peer).await;
        peers.push(peer);
    }
    let bounded = Limits::new().per_source(PerSource::new().max_connections(2));
    server.listener.set_limits(bounded.clone()).unwrap();
    expect_refused(call_from(&server, "127.0.0.2").await).await;
    for peer in &mut peers {
        expect_served(peer).await;
    }
    // Two of three have to go before another may come.
    peers.truncate(2);
    eventually("the end of one", || server.listener.stats().active == 2).await;
    expect_refused(call_from(&server, "127.0.0.2").await).await;
    peers.truncate(1);
    eventually("the end of two", || server.listener.stats().active == 1).await;
    expect_served(&mut call_from(&server, "127.0.0.2").await).await;
    // Switched off, it is forgotten.
    server.listener.set_limits(Limits::new()).unwrap();
    for _ in 0..5 {
        expect_served(&mut call_from(&server, "127.0.0.2").await).await;
    }
}

#[tokio::test]
async fn every_refusal_is_an_event_with_its_cause() {
    let server = with(Limits::new().deny(list(&["127.0.0.2"]))).await;
    let (tell, told) = std::sync::mpsc::channel();
    server.listener.on_event(move |event| {
        if let onbytes::Event::Refused { remote_addr, cause, .. } = event {
            let _ = tell.send((*remote_addr, *cause));
        }
    });
    let peer = call_from(&server, "127.0.0.2").await;
    let from = peer.stream.local_addr().unwrap();
    expect_refused(peer).await;
    assert_eq!(told.recv().unwrap(), (Some(from), Refusal::Denied));
}

#[tokio::test]
async fn a_change_holds_for_the_very_next_caller() {
    let server = with(Limits::new()).await;
    for _ in 0..20 {
        server.listener.set_limits(Limits::new().deny(list(&["127.0.0.2"]))).unwrap();
        expect_refused(call_from(&server, "127.0.0.2").await).await;
        server.listener.set_limits(Limits::new()).unwrap();
        expect_served(&mut call_from(&server, "127.0.0.2").await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_other_settings_refuse_nobody() {
    let server = with(Limits::new().per_source(PerSource::new().max_connections(3))).await;
    let mut live = Vec::new();
    for _ in 0..2 {
        let mut peer = call_from(&server, "127.0.0.2").await;
        expect_served(&mut peer).await;
        live.push(peer);
    }
    let listener = server.listener.clone();
    let changing = std::thread::spawn(move || {
        for _ in 0..2000 {
            listener.set_timeouts(listener.timeouts()).unwrap();
        }
    });
    while !changing.is_finished() {
        let mut third = call_from(&server, "127.0.0.2").await;
        expect_served(&mut third).await;
        drop(third);
        eventually("its end", || server.listener.stats().active == 2).await;
    }
    changing.join().unwrap();
    assert_eq!(refused(&server, Refusal::SourceFull), 0);
}

#[tokio::test]
async fn who_finds_the_listener_full_has_used_up_nothing_of_its_rate() {
    let per_source = PerSource::new().accept_rate(0.001).accept_burst(2);
    let limits = Limits::new().max_connections(1).when_full(onbytes::WhenFull::Refuse);
    let server = with(limits.per_source(per_source)).await;
    let mut first = call_from(&server, "127.0.0.2").await;
    expect_served(&mut first).await;
    for _ in 0..5 {
        expect_refused(call_from(&server, "127.0.0.2").await).await;
    }
    assert_eq!(refused(&server, Refusal::Full), 5);
    drop(first);
    eventually("its end", || server.listener.stats().active == 0).await;
    expect_served(&mut call_from(&server, "127.0.0.2").await).await;
}
