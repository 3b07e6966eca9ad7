//! For how long a session may be resumed, as `openssl s_client` sees it.

mod support;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use support::Server;
use support::tls::{CERT, Folder, are_here};

/// How a session is remembered, in the words of s_client.
const KINDS: [(&str, &str); 3] =
    [("ticket12", "-tls1_2"), ("id12", "-tls1_2 -no_ticket"), ("ticket13", "-tls1_3")];

/// Connects, stores the session that comes of it if `out` is there, and returns what is told.
#[track_caller]
fn connect(folder: &Folder, server: &Server, args: &str) -> String {
    let args = format!("{args} -verify_return_error -CAfile cert.pem");
    let mut client = folder.s_client(server, &args);
    // Sessions of TLS 1.3 come along with what the server sends first.
    client.echo();
    client.finished()
}

fn is_reused(told: &str) -> bool {
    let line = told.lines().find(|line| line.starts_with("New, ") || line.starts_with("Reused, "));
    line.unwrap_or_else(|| panic!("{told}")).starts_with("Reused")
}

#[test]
fn a_session_is_resumed_until_its_time_is_over() {
    if !are_here(&["openssl"]) {
        return;
    }
    const SECONDS: u64 = 4;
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(&format!("{CERT} --session-timeout {SECONDS}"));
    for (name, flags) in KINDS {
        let told = connect(&folder, &server, &format!("{flags} -sess_out {name}"));
        assert!(!is_reused(&told), "{told}");
        if name != "id12" {
            let hint = format!("lifetime hint: {SECONDS} (seconds)");
            assert!(told.contains(&hint), "{told}");
        }
    }
    let last_made = Instant::now();
    for (name, flags) in KINDS {
        let made = Instant::now();
        let told = connect(&folder, &server, &format!("{flags} -sess_in {name}"));
        let is_in_time = made.elapsed() < Duration::from_secs(1);
        assert!(is_reused(&told) || !is_in_time, "{name}: {told}");
    }
    // What has to pass is the time itself: the server's clock is the only event.
    let over = last_made + Duration::from_millis(SECONDS * 1000 + 200);
    thread::sleep(over.saturating_duration_since(Instant::now()));
    for (name, flags) in KINDS {
        // Without its own idea of the lifetime s_client goes on offering the session.
        let told = connect(&folder, &server, &format!("{flags} -sess_in {name}"));
        assert!(!is_reused(&told), "{name}: {told}");
    }
    server.stop();
}

#[test]
fn no_session_is_resumed_where_that_is_off() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(&format!("{CERT} --session-timeout off"));
    for (name, flags) in KINDS {
        let told = connect(&folder, &server, &format!("{flags} -sess_out {name}"));
        assert!(!is_reused(&told) && !told.contains("lifetime hint"), "{told}");
        // There may not even be a session that s_client could store.
        if !Path::new(&folder.path(name)).exists() {
            continue;
        }
        let told = connect(&folder, &server, &format!("{flags} -sess_in {name}"));
        assert!(!is_reused(&told), "{name}: {told}");
    }
    server.stop();
}

#[test]
fn a_session_is_resumed_by_default_and_no_other_server_takes_it() {
    if !are_here(&["openssl"]) {
        return;
    }
    let folder = Folder::with_certs(&[]);
    let server = folder.serve(CERT);
    let other = folder.serve(CERT);
    for (name, flags) in KINDS {
        let told = connect(&folder, &server, &format!("{flags} -sess_out {name}"));
        assert!(name == "id12" || told.contains("lifetime hint: 7200 (seconds)"), "{told}");
        let told = connect(&folder, &server, &format!("{flags} -sess_in {name}"));
        assert!(is_reused(&told), "{name}: {told}");
        let told = connect(&folder, &other, &format!("{flags} -sess_in {name}"));
        assert!(!is_reused(&told), "{name}: {told}");
    }
    server.stop();
    other.stop();
}
