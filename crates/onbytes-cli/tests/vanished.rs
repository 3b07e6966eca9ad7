//! Peers that vanish: their network is taken away, and the server has to find out by itself. Each test
//! makes two network namespaces with a cable between them, and removes them; that takes root and `ip`
//! (iproute2), without which these tests are skipped.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use support::{Server, onbytes_in_shell};

/// Two hosts of our own, `10.99.0.1` and `10.99.0.2`, which see nobody but each other.
struct Cable {
    name: String,
}

impl Cable {
    /// `None` where namespaces cannot be made here.
    fn new() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("onb{:x}{number}", std::process::id());
        let cable = Self { name };
        let (server, peer) = (cable.host("s"), cable.host("p"));
        let is_made = ip(&["netns", "add", &server])
            && ip(&["netns", "add", &peer])
            && ip(&[
                "-n", &server, "link", "add", "c", "type", "veth", "peer", "c", "netns", &peer,
            ])
            && ip(&["-n", &server, "addr", "add", "10.99.0.1/24", "dev", "c"])
            && ip(&["-n", &peer, "addr", "add", "10.99.0.2/24", "dev", "c"])
            && ip(&["-n", &server, "link", "set", "c", "up"])
            && ip(&["-n", &server, "link", "set", "lo", "up"])
            && ip(&["-n", &peer, "link", "set", "c", "up"]);
        if !is_made {
            eprintln!("SKIPPED: network namespaces cannot be made here (they need root and `ip`)");
            return None;
        }
        Some(cable)
    }

    fn host(&self, end: &str) -> String {
        format!("{}{end}", self.name)
    }

    /// A server at one end.
    fn server(&self, args: &[&str]) -> Server {
        let line = format!("exec ip netns exec {} \"$@\"", self.host("s"));
        let listen = ["--listen", "10.99.0.1:3000", "--log-format", "json"];
        let mut command = onbytes_in_shell(&line, &[&["serve"], args, &listen].concat());
        command.env("RUST_LOG", "debug");
        Server::ready(command)
    }

    /// A peer at one end. A socket belongs to the namespace that it was made in.
    fn connect_from(&self, end: &str) -> TcpStream {
        let path = format!("/run/netns/{}", self.host(end));
        let connecting = std::thread::spawn(move || {
            let there = std::fs::File::open(path).unwrap();
            // This thread alone goes there, and ends.
            rustix::thread::move_into_link_name_space(
                std::os::fd::AsFd::as_fd(&there),
                Some(rustix::thread::LinkNameSpaceType::Network),
            )
            .unwrap();
            TcpStream::connect("10.99.0.1:3000").unwrap()
        });
        connecting.join().unwrap()
    }

    /// From now on no packet arrives anywhere, and nobody is told.
    fn cut(&self) {
        assert!(ip(&["-n", &self.host("p"), "link", "set", "c", "down"]));
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for end in ["s", "p"] {
            ip(&["netns", "del", &self.host(end)]);
        }
    }
}

fn ip(args: &[&str]) -> bool {
    let quiet = || Stdio::null();
    Command::new("ip")
        .args(args)
        .stdout(quiet())
        .stderr(quiet())
        .status()
        .is_ok_and(|status| status.success())
}

/// What the log says of the end of the peer at the other end.
fn expect_noticed(server: &Server) {
    let closed = server.log().find(r#""event":"closed""#);
    assert!(closed.contains(r#""remote_addr":"10.99.0.2:"#), "{closed}");
    assert!(closed.contains(r#""reason":"io_error""#), "{closed}");
}

#[test]
fn a_silent_peer_that_has_vanished_is_noticed_by_keep_alive() {
    let Some(cable) = Cable::new() else { return };
    let probes = ["--keep-alive", "1", "--keep-alive-interval", "1", "--keep-alive-probes", "1"];
    let server = cable.server(&[&["discard"], &probes[..]].concat());
    let _peer = cable.connect_from("p");
    server.log().find(r#""event":"accepted""#);
    cable.cut();
    expect_noticed(&server);
}

#[test]
fn a_peer_that_vanishes_before_it_has_its_data_is_noticed_by_the_user_timeout() {
    let Some(cable) = Cable::new() else { return };
    // The probes alone would take hours.
    let server = cable.server(&["chat", "--keep-alive", "9999", "--user-timeout", "1"]);
    let mut vanishing = cable.connect_from("p");
    server.log().find(r#""event":"accepted""#);
    // Known to the server as a member, or it would not get the line below.
    vanishing.write_all(b"here\n").unwrap();
    vanishing.read_exact(&mut [0; 5]).unwrap();
    cable.cut();
    let mut other = cable.connect_from("s");
    other.write_all(b"is anybody there?\n").unwrap();
    expect_noticed(&server);
    // Who is still there is not concerned.
    other.read_exact(&mut [0; 10]).unwrap();
}
