//! Values at the edge and beyond, in Rust and in files: refused in a sentence or served, never a
//! panic and never a hang.

mod support;

use std::time::Duration;

use onbytes::{
    Client, ClientConfiguration, Endpoint, Error, KeepAlive, Limits, Listener,
    ListenerConfiguration, SocketOptions, Timeouts, service_fn,
};
use support::{Echo, Server, within};

const NANO: Duration = Duration::from_nanos(1);
const HUGE: usize = usize::MAX;

/// Messages are in lower case, in one line, without a full stop, and not empty.
#[track_caller]
fn assert_is_a_sentence(error: &Error) {
    let text = error.to_string();
    let start = text.chars().next().expect("a message says something");
    assert!(!start.is_uppercase(), "{text}");
    assert!(!text.contains('\n') && text.len() < 400, "{text}");
    // A strange name may itself end in dots.
    assert!(!text.ends_with('.') || text.ends_with(" .") || text.ends_with(" .."), "{text}");
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        assert!(!text.contains(&error.to_string()), "it repeats its cause: {text}");
        cause = error.source();
    }
}

#[track_caller]
fn refused(config: ListenerConfiguration, names: &str) {
    let error = Listener::new(0, config).unwrap_err();
    assert!(error.is_configuration(), "{error:?}");
    assert!(error.to_string().contains(names), "{error}");
    assert_is_a_sentence(&error);
}

fn with(timeouts: Timeouts) -> ListenerConfiguration {
    ListenerConfiguration::new().timeouts(timeouts)
}

// ---- In Rust ----

#[test]
fn a_time_of_zero_is_refused_by_name_with_the_way_out() {
    let zero = Duration::ZERO;
    refused(with(Timeouts::new().write(zero)), "timeouts.write");
    refused(with(Timeouts::new().idle(zero)), "timeouts.idle");
    refused(with(Timeouts::new().max_lifetime(zero)), "timeouts.max_lifetime");
    refused(with(Timeouts::new().on_close(zero)), "timeouts.on_close");
    refused(with(Timeouts::new().write(zero)), "None");
}

/// `on_close` cannot be switched off, so the way out must not be to do that.
#[test]
fn the_way_out_of_an_impossible_on_close_is_possible() {
    let error = Listener::new(0, with(Timeouts::new().on_close(Duration::ZERO))).unwrap_err();
    assert!(!error.to_string().contains("switch it off"), "{error}");
}

#[test]
fn a_count_beyond_its_range_is_refused_with_the_range() {
    let config = ListenerConfiguration::new;
    for count in [0, HUGE] {
        let limits = Limits::new().max_connections(count);
        refused(config().limits(limits), "limits.max_connections");
        refused(config().workers(count), "workers");
        refused(config().socket(SocketOptions::new().backlog(count)), "socket.backlog");
        refused(config().socket(SocketOptions::new().send_buffer(count)), "socket.send_buffer");
        let options = SocketOptions::new().receive_buffer(count);
        refused(config().socket(options), "socket.receive_buffer");
        let options = SocketOptions::new().keep_alive(KeepAlive::new().probes(count));
        refused(config().socket(options), "socket.keep_alive.probes");
    }
    for time in [Duration::ZERO, NANO, Duration::from_secs(32_768), Duration::MAX] {
        let options = SocketOptions::new().keep_alive(KeepAlive::new().idle(time));
        refused(config().socket(options), "socket.keep_alive.idle");
        let options = SocketOptions::new().keep_alive(KeepAlive::new().interval(time));
        refused(config().socket(options), "socket.keep_alive.interval");
    }
}

#[tokio::test]
async fn the_greatest_values_are_served() {
    let keep_alive = KeepAlive::new()
        .idle(Duration::from_secs(32_767))
        .interval(Duration::from_secs(32_767))
        .probes(127);
    let socket = SocketOptions::new()
        .backlog(i32::MAX as usize)
        .send_buffer(1 << 30)
        .receive_buffer(1 << 30)
        .keep_alive(keep_alive);
    let config = ListenerConfiguration::new()
        .socket(socket.clone())
        .limits(Limits::new().max_connections(u32::MAX as usize));
    let server = Server::with(config, Echo).await;
    expect_echo(&server, ClientConfiguration::new().socket(socket)).await;
}

#[tokio::test]
async fn the_smallest_sizes_are_served() {
    let socket = SocketOptions::new().backlog(1).send_buffer(1).receive_buffer(1);
    let config = ListenerConfiguration::new().socket(socket.clone());
    let server = Server::with(config, Echo).await;
    expect_echo(&server, ClientConfiguration::new().socket(socket)).await;
}

async fn expect_echo(server: &Server, config: ClientConfiguration) {
    let connecting = Client::connect_to(server.address, config);
    let mut client = within("connecting", connecting).await.unwrap();
    within("the write", client.write_bytes("x")).await.unwrap();
    assert_eq!(within("the read", client.read_bytes()).await.unwrap().unwrap(), "x");
    within("the close", client.close()).await.unwrap();
}

#[tokio::test]
async fn times_without_end_are_served_and_stopped() {
    let max = Duration::MAX;
    let timeouts =
        Timeouts::new().write(max).idle(max).max_lifetime(max).on_close(max).shutdown(max);
    let server = Server::with(with(timeouts), Echo).await;
    let config = ClientConfiguration::new().timeout(max).write_timeout(max).connect_timeout(max);
    expect_echo(&server, config).await;
    let mut peer = server.connect().await;
    peer.send("x").await;
    peer.expect("x").await;
    let stop = server.listener.graceful_stop(max);
    within("the stop", async { tokio::join!(stop, peer.expect_end("")) }).await;
}

#[tokio::test]
async fn a_nanosecond_is_a_time_like_any_other() {
    type Change = fn(Timeouts) -> Timeouts;
    let changes: [Change; 5] = [
        |timeouts| timeouts.write(NANO),
        |timeouts| timeouts.idle(NANO),
        |timeouts| timeouts.max_lifetime(NANO),
        |timeouts| timeouts.on_close(NANO),
        |timeouts| timeouts.shutdown(NANO),
    ];
    for change in changes {
        let mut server = Server::with(with(change(Timeouts::new())), Echo).await;
        let mut peer = server.connect().await;
        use tokio::io::AsyncWriteExt;
        let _ = peer.stream.write_all(b"x").await;
        peer.finish().await;
        let _ = peer.read_to_end().await;
        let _ = server.close().await;
        within("the stop", server.listener.graceful_stop(NANO)).await;
    }
}

#[tokio::test]
async fn a_clients_nanosecond_is_a_timeout_and_no_hang() {
    let server = Server::start(Echo).await;
    let config = ClientConfiguration::new().connect_timeout(NANO);
    match within("connecting", Client::connect_to(server.address, config)).await {
        Ok(_) => {}
        Err(error) => {
            assert!(error.is_timeout(), "{error:?}");
            assert_is_a_sentence(&error);
        }
    }
    let config = ClientConfiguration::new().timeout(NANO).write_timeout(NANO);
    let connecting = Client::connect_to(server.address, config);
    let mut client = within("connecting", connecting).await.unwrap();
    let error = within("the read", client.read_bytes()).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
    assert_is_a_sentence(&error);
    within("the write", client.write_bytes("x")).await.unwrap();
    within("the answer", async {
        while client.read_bytes().await.is_err_and(|error| error.is_timeout()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_clients_impossible_values_are_refused_by_name() {
    let config = ClientConfiguration::new;
    let zero = Duration::ZERO;
    for (config, name) in [
        (config().timeout(zero), "timeout"),
        (config().write_timeout(zero), "write_timeout"),
        (config().connect_timeout(zero), "connect_timeout"),
        (config().socket(SocketOptions::new().send_buffer(0)), "socket.send_buffer"),
        (config().local_host("a b"), "local_host"),
    ] {
        let connecting = Client::connect("127.0.0.1", 9, config);
        let error = within("the refusal", connecting).await.unwrap_err();
        assert!(error.is_configuration(), "{error:?}");
        assert!(error.to_string().contains(name), "{error}");
        assert_is_a_sentence(&error);
    }
    let error = Client::connect("127.0.0.1", 0, config()).await.unwrap_err();
    assert!(error.is_configuration(), "{error:?}");
    assert!(error.to_string().contains("port 0"), "{error}");
}

// ---- Host names and addresses ----

fn strange_hosts() -> Vec<String> {
    let mut hosts: Vec<String> = [
        "",
        " ",
        ".",
        "..",
        "-",
        "a b",
        "a\0b",
        "\0",
        "a\nb",
        "\u{202e}x",
        "höst",
        "日本",
        "🦀",
        "[",
        "]",
        "[]",
        "[[::1]]",
        "[localhost]",
        "[::1",
        "::1]",
        ":::",
        "1.2.3.4.5",
        "%",
        "%s",
        "256.256.256.256",
        "a..b",
        "localhost:80",
        "http://localhost",
        "*",
        "::1%nowhere",
    ]
    .map(str::to_owned)
    .into();
    hosts.push("a".repeat(64));
    hosts.push("a".repeat(5_000));
    hosts.push("a.".repeat(2_500));
    hosts.push(".".repeat(5_000));
    hosts.push("é".repeat(5_000));
    hosts
}

#[tokio::test]
async fn a_strange_host_is_refused_or_served_by_a_listener() {
    for host in strange_hosts() {
        let by_endpoint = Listener::new((host.as_str(), 0), ListenerConfiguration::new());
        let by_record = Listener::new(0, ListenerConfiguration::new().local_host(&host));
        for made in [by_endpoint, by_record] {
            let listener = match made {
                Ok(listener) => listener,
                Err(error) => {
                    assert!(error.is_configuration(), "{error:?}");
                    assert_is_a_sentence(&error);
                    continue;
                }
            };
            listener.attach(service_fn(|_| async {
                Ok(|data: onbytes::Bytes| async { Ok(Some(data)) })
            }));
            if let Err(error) = within("the start", listener.start()).await {
                assert_is_a_sentence(&error);
            }
        }
    }
}

#[tokio::test]
async fn a_strange_host_is_refused_or_served_by_a_client() {
    let server = Server::start(Echo).await;
    let port = server.address.port();
    for host in strange_hosts() {
        let connecting = Client::connect(&host, port, ClientConfiguration::new());
        if let Err(error) = within("connecting", connecting).await {
            assert_is_a_sentence(&error);
        }
        let config = ClientConfiguration::new().local_host(&host);
        if let Err(error) = within("connecting", Client::connect("127.0.0.1", port, config)).await {
            assert_is_a_sentence(&error);
        }
    }
}

#[test]
fn a_strange_address_text_is_an_endpoint_or_a_sentence() {
    let mut texts = strange_hosts();
    texts.extend(strange_hosts().iter().map(|host| format!("{host}:80")));
    texts.extend(strange_hosts().iter().map(|host| format!("[{host}]:80")));
    for port in ["65535", "65536", "-1", "+1", "1e3", " 1", "00080", "99999999999999999999"] {
        texts.push(port.into());
        texts.push(format!("127.0.0.1:{port}"));
    }
    for text in texts {
        if let Err(error) = text.parse::<Endpoint>() {
            assert!(error.is_configuration());
            assert_is_a_sentence(&error);
        }
    }
}

#[tokio::test]
async fn the_greatest_port_is_a_port() {
    let listener = Listener::new(("127.0.0.1", u16::MAX), ListenerConfiguration::new()).unwrap();
    listener.attach(service_fn(|_| async { Ok(|data: onbytes::Bytes| async { Ok(Some(data)) }) }));
    match within("the start", listener.start()).await {
        Ok(()) => assert_eq!(listener.local_addr().unwrap().port(), u16::MAX),
        Err(error) => assert_eq!(error.kind(), onbytes::ErrorKind::Bind, "somebody has it"),
    }
}

// ---- In files ----

#[cfg(feature = "serde")]
mod files {
    use super::*;

    /// Reads a listener's file, and makes the listener.
    fn made(text: &str) -> Result<(), String> {
        let config: ListenerConfiguration =
            serde_json::from_str(text).map_err(|error| error.to_string())?;
        Listener::new(0, config).map(drop).map_err(|error| error.to_string())
    }

    const TIMES: [&str; 5] = ["write", "idle", "maxLifetime", "onClose", "shutdown"];
    const COUNTS: [(&str, &str); 6] = [
        ("limits", "maxConnections"),
        ("socket", "backlog"),
        ("socket", "sendBuffer"),
        ("socket", "receiveBuffer"),
        ("keepAlive", "probes"),
        ("", "workers"),
    ];

    fn count_file(part: &str, field: &str, value: &str) -> String {
        match part {
            "" => format!(r#"{{"{field}": {value}}}"#),
            "keepAlive" => format!(r#"{{"socket": {{"keepAlive": {{"{field}": {value}}}}}}}"#),
            part => format!(r#"{{"{part}": {{"{field}": {value}}}}}"#),
        }
    }

    #[test]
    fn a_time_that_cannot_be_is_refused_in_every_field() {
        for field in TIMES {
            for value in [
                "-1", "-0.001", "-1e300", "1e300", "1e20", "\"-1\"", "\"1\"", "\"\"", "\"OFF\"",
                "\"NaN\"", "\"inf\"", "null", "true", "[]", "{}",
            ] {
                let text = format!(r#"{{"timeouts": {{"{field}": {value}}}}}"#);
                let message = made(&text).expect_err(&text);
                assert!(message.contains("seconds"), "{text}: {message}");
            }
        }
    }

    #[test]
    fn a_time_of_zero_is_refused_in_a_file_as_in_rust() {
        for field in ["write", "idle", "maxLifetime", "onClose"] {
            for value in ["0", "0.0", "-0.0", "1e-300"] {
                let text = format!(r#"{{"timeouts": {{"{field}": {value}}}}}"#);
                let message = made(&text).expect_err(&text);
                assert!(message.contains("more than 0 s"), "{text}: {message}");
            }
        }
    }

    #[test]
    fn great_and_small_times_are_read() {
        for field in TIMES {
            for value in ["1e-9", "0.001", "1", "1e9", "1e19", "18446744073709551615"] {
                let text = format!(r#"{{"timeouts": {{"{field}": {value}}}}}"#);
                made(&text).unwrap_or_else(|message| panic!("{text}: {message}"));
            }
        }
    }

    #[test]
    fn a_count_that_cannot_be_is_refused_in_every_field() {
        for (part, field) in COUNTS {
            for value in [
                "-1",
                "0",
                "0.5",
                "1.5",
                "-0.0",
                "1e300",
                "18446744073709551616",
                "\"1\"",
                "\"off\"",
                "true",
                "[]",
                "18446744073709551615",
            ] {
                let text = count_file(part, field, value);
                let message = made(&text).expect_err(&text);
                let is_told = message.contains("whole number") || message.contains("must be from");
                assert!(is_told, "{text}: {message}");
            }
            made(&count_file(part, field, "1")).unwrap();
        }
    }

    fn expect_round_trip(time: Duration) {
        let config = with(Timeouts::new().idle(time).on_close(time));
        let text = serde_json::to_string(&config).unwrap();
        serde_json::from_str::<ListenerConfiguration>(&text)
            .unwrap_or_else(|error| panic!("{time:?} was written as {text}: {error}"));
    }

    #[test]
    fn records_with_extreme_times_survive_writing_and_reading() {
        for time in [NANO, Duration::from_millis(1), Duration::from_secs(1 << 53)] {
            expect_round_trip(time);
        }
    }

    #[test]
    fn a_record_with_the_greatest_time_survives_writing_and_reading() {
        expect_round_trip(Duration::MAX);
    }

    #[test]
    fn a_clients_file_is_read_with_the_same_care() {
        for text in [
            r#"{"timeout": -1}"#,
            r#"{"timeout": "never"}"#,
            r#"{"connectTimeout": 1e300}"#,
            r#"{"writeTimeout": null}"#,
            r#"{"time_out": 1}"#,
            r#"{"localHost": 5}"#,
            "",
        ] {
            serde_json::from_str::<ClientConfiguration>(text).expect_err(text);
        }
        let text = r#"{"timeout": "off", "writeTimeout": 0.5, "connectTimeout": "off"}"#;
        let config: ClientConfiguration = serde_json::from_str(text).unwrap();
        assert_eq!((config.timeout, config.connect_timeout), (None, None));
        assert_eq!(config.write_timeout, Some(Duration::from_millis(500)));
    }
}
