//! The load generator: exercises an echo server over loopback and prints one line of JSON.
//!
//! `cargo run --release -p onbytes-benches --bin load -- 127.0.0.1:7000 --connections 50 --size 64`
//!
//! Closed loop: every connection keeps `--depth` messages in flight and sends the next one when a
//! reply is complete, so a slow server gets less load rather than a growing queue. With `--churn`
//! every message has a connection of its own: connect, one echo, close. Every reply is compared
//! with what was sent.
//!
//! Options:
//!
//! - `--connections N`: connections open at a time (default 1)
//! - `--size BYTES`: length of a message (default 64)
//! - `--framing FORM`: every message is a frame of this form, with `--size` bytes of text in it
//! - `--depth N`: messages in flight per connection (default 1)
//! - `--messages N`, `--seconds S`: when to stop, whichever comes first (default 5 seconds)
//! - `--churn`: a new connection for every message
//! - `--tls CERTIFICATE`: TLS, with a server that shows the certificate in this file. With `--churn`
//!   a message ends when the server has answered close_notify and ended the connection too
//! - `--resume`: with `--tls --churn`, every handshake resumes the session before it; it is an error
//!   if one does not, and without this option if one does
//! - `--spin`: never sleep. A server on the same machine pays, in its send call, for waking a
//!   sleeping peer; a peer on another machine would not cost it that
//! - `--barrier`: print `ready` once warmed up, start on a line from standard input, and keep the
//!   connections after the result until standard input ends

use onbytes_benches::frames::Frames;
use onbytes_benches::pattern::{LONGEST, Pattern};
use onbytes_benches::secure::{self, Stream};
use onbytes_benches::stats::Histogram;
use onbytes_benches::{cli, host};
use rustix::buffer::spare_capacity;
use rustix::event::{Timespec, epoll};
use rustix::net::{self, AddressFamily, SocketFlags, SocketType, sockopt};
use rustls::{ClientConfig, ClientConnection, HandshakeKind};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Without any reply for this long the run has failed.
const STALLED: Duration = Duration::from_secs(10);
/// How long to sleep at a time, to see in between whether the run has stalled.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
const NO_NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

fn main() -> ExitCode {
    cli::exit(Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)))
}

struct Options {
    target: SocketAddr,
    connections: usize,
    /// Of a message as it is sent, with what makes a frame of it.
    size: u64,
    pattern: Pattern,
    depth: u64,
    messages: u64,
    time: Duration,
    churn: bool,
    /// The certificate to trust, which means TLS.
    tls: Option<PathBuf>,
    resume: bool,
    spin: bool,
    barrier: bool,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let (mut target, mut messages, mut seconds) = (None, None, None);
        let (mut connections, mut size, mut depth) = (1, 64, 1);
        let (mut churn, mut spin, mut barrier) = (false, false, false);
        let (mut tls, mut resume) = (None, false);
        let mut framing = None;
        while let Some(word) = args.next() {
            match word.as_str() {
                "--connections" => connections = cli::count(&word, &mut args, 20_000)?,
                "--size" => size = cli::count(&word, &mut args, 1 << 26)?,
                "--depth" => depth = cli::count(&word, &mut args, 4_096)?,
                "--framing" => framing = Some(cli::value::<Frames>(&word, &mut args)?),
                "--messages" => messages = Some(cli::count(&word, &mut args, 1 << 40)?),
                "--seconds" => seconds = Some(cli::value::<f64>(&word, &mut args)?),
                "--churn" => churn = true,
                "--tls" => tls = Some(cli::value(&word, &mut args)?),
                "--resume" => resume = true,
                "--spin" => spin = true,
                "--barrier" => barrier = true,
                _ if target.is_none() && !word.starts_with('-') => {
                    target = Some(cli::loopback(&word)?);
                }
                _ => return Err(format!("{word}: unknown argument")),
            }
        }
        if churn && depth > 1 {
            return Err("--churn sends one message per connection: it excludes --depth".to_owned());
        }
        if resume && !(churn && tls.is_some()) {
            return Err("--resume needs --tls and --churn".to_owned());
        }
        if framing.is_some_and(|frames| frames.largest() < size as usize) {
            return Err(format!("--size {size}: that is too large for a frame"));
        }
        // A number of messages alone ends the run too, but a slow server could make it a long one.
        let seconds = seconds.unwrap_or(if messages.is_some() { 600.0 } else { 5.0 });
        if !(0.0..=3_600.0).contains(&seconds) {
            return Err(format!("--seconds {seconds}: must be 0 to 3600"));
        }
        Ok(Self {
            target: target.ok_or("the server's address is missing")?,
            connections: connections as usize,
            size: framing.map_or(size, |frames| frames.wire_len(size as usize) as u64),
            pattern: framing
                .map_or_else(Pattern::new, |frames| Pattern::framed(frames, size as usize)),
            depth,
            messages: messages.unwrap_or(u64::MAX),
            time: Duration::from_secs_f64(seconds),
            churn,
            tls,
            resume,
            spin,
            barrier,
        })
    }
}

fn run(options: &Options) -> Result<(), String> {
    host::raise_open_file_limit().map_err(|error| format!("limit of open files: {error}"))?;
    let mut load = Load::new(options)?;
    load.warm_up()?;
    if options.barrier && !wait_for_start().map_err(|error| error.to_string())? {
        return Ok(());
    }
    let start = Instant::now();
    let messages = load.measure(options.messages, start + options.time)?;
    let seconds = start.elapsed().as_secs_f64();
    let result = serde_json::json!({
        "messages": messages,
        "seconds": seconds,
        "p50_us": load.latencies.percentile(0.5),
        "p99_us": load.latencies.percentile(0.99),
        "p999_us": load.latencies.percentile(0.999),
        "tls": load.agreed(),
    });
    println!("{result}");
    if options.barrier {
        // The runner reads the server's CPU time before the connections close.
        io::copy(&mut io::stdin(), &mut io::sink()).map_err(|error| error.to_string())?;
    }
    Ok(())
}

/// Says `ready` and waits for a line; `false` if the other side has gone.
fn wait_for_start() -> io::Result<bool> {
    println!("ready");
    Ok(io::stdin().read_line(&mut String::new())? > 0)
}

/// One connection and how far it is, in bytes of its stream.
struct Link {
    stream: Stream,
    /// Tells the streams apart; see [`Pattern`].
    number: usize,
    sent: u64,
    received: u64,
    /// End of the last message that may be sent so far.
    allowed: u64,
    /// End of the message whose reply is being received.
    boundary: u64,
    /// When each message in flight was allowed.
    begun: VecDeque<Instant>,
    /// Whether the socket was full, so that its being writable again is watched too.
    full: bool,
    /// Whether we have said goodbye, so that the server's end is what is waited for.
    closing: bool,
}

struct Load<'a> {
    options: &'a Options,
    /// With TLS, one for each slot: each has the sessions of its own connections.
    clients: Vec<Arc<ClientConfig>>,
    epoll: OwnedFd,
    links: Vec<Link>,
    buffer: Box<[u8]>,
    latencies: Histogram,
    /// Connections made so far.
    made: usize,
    in_flight: u64,
    /// Messages that may still be begun, and until when.
    budget: u64,
    deadline: Instant,
}

impl<'a> Load<'a> {
    fn new(options: &'a Options) -> Result<Self, String> {
        let client = |certificate| secure::client(certificate, options.resume);
        let certificates = std::iter::repeat_n(options.tls.as_ref(), options.connections).flatten();
        Ok(Self {
            options,
            clients: certificates.map(|path| client(path)).collect::<Result<_, _>>()?,
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC).map_err(|error| error.to_string())?,
            links: Vec::with_capacity(options.connections),
            buffer: vec![0; LONGEST].into_boxed_slice(),
            latencies: Histogram::new(),
            made: 0,
            in_flight: 0,
            budget: 0,
            deadline: Instant::now(),
        })
    }

    /// Opens the connections one after the other, with one echo on each: the server has accepted
    /// them all then and has set up what it sets up late, and its queue has not overflown.
    fn warm_up(&mut self) -> Result<(), String> {
        self.deadline = Instant::now() + Duration::from_secs(60);
        for slot in 0..self.options.connections {
            // One message: in a run with churn its end must not open another connection.
            self.budget = 1;
            let link = self.connect(slot)?;
            self.links.push(link);
            self.begin(slot, Instant::now());
            self.send(slot)?;
            self.finish()?;
        }
        self.latencies.clear();
        Ok(())
    }

    /// Runs until `messages` are echoed or, at `deadline`, those in flight are. Returns how many.
    fn measure(&mut self, messages: u64, deadline: Instant) -> Result<u64, String> {
        self.budget = messages;
        self.deadline = deadline;
        for slot in 0..self.links.len() {
            let now = Instant::now();
            if self.options.churn {
                self.renew(slot)?;
            } else {
                for _ in 0..self.options.depth {
                    self.begin(slot, now);
                }
                self.send(slot)?;
            }
        }
        self.finish()?;
        Ok(messages - self.budget)
    }

    /// Handles events until nothing is in flight.
    fn finish(&mut self) -> Result<(), String> {
        let mut events = Vec::with_capacity(1_024);
        let nap = if self.options.spin { NO_NAP } else { NAP };
        let mut quiet_since = None;
        while self.in_flight > 0 {
            events.clear();
            match epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&nap)) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(format!("epoll: {error}")),
            }
            if events.is_empty() {
                if quiet_since.get_or_insert_with(Instant::now).elapsed() > STALLED {
                    return Err(format!("no reply for {STALLED:?}"));
                }
                continue;
            }
            quiet_since = None;
            for event in &events {
                self.handle(event.data.u64() as usize, event.flags)?;
            }
        }
        Ok(())
    }

    fn handle(&mut self, slot: usize, flags: epoll::EventFlags) -> Result<(), String> {
        // A socket that is only writable has nothing to read; one in error tells it on reading.
        if flags == epoll::EventFlags::OUT {
            self.send(slot)
        } else {
            self.receive(slot)?;
            if self.links[slot].full { self.send(slot) } else { Ok(()) }
        }
    }

    /// Allows one more message on a connection, unless the run is at its end.
    fn begin(&mut self, slot: usize, now: Instant) {
        if self.budget > 0 && now < self.deadline {
            self.budget -= 1;
            self.in_flight += 1;
            let link = &mut self.links[slot];
            link.allowed += self.options.size;
            link.begun.push_back(now);
        }
    }

    /// Sends what is allowed, as far as the socket takes it.
    fn send(&mut self, slot: usize) -> Result<(), String> {
        let link = &mut self.links[slot];
        let was_full = std::mem::take(&mut link.full);
        while link.sent < link.allowed {
            let most = usize::try_from(link.allowed - link.sent).unwrap_or(usize::MAX);
            match link.stream.write(self.options.pattern.run(link.number, link.sent, most)) {
                Ok(length) => link.sent += length as u64,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    link.full = true;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(format!("sending: {error}")),
            }
        }
        match link.stream.flush() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => link.full = true,
            Err(error) => return Err(format!("sending: {error}")),
        }
        if link.full != was_full {
            let flags = if link.full {
                epoll::EventFlags::IN | epoll::EventFlags::OUT
            } else {
                epoll::EventFlags::IN
            };
            let data = epoll::EventData::new_u64(slot as u64);
            epoll::modify(&self.epoll, link.stream.socket(), data, flags)
                .map_err(|error| format!("epoll: {error}"))?;
        }
        Ok(())
    }

    /// Receives once, checks it, and begins a message for every one that it completes.
    fn receive(&mut self, slot: usize) -> Result<(), String> {
        let link = &mut self.links[slot];
        let received = match link.stream.read(&mut self.buffer) {
            Ok(0) if link.closing => return self.closed(slot),
            Ok(0) => return Err("the server closed a connection".to_owned()),
            Ok(length) => &self.buffer[..length],
            Err(error) => match error.kind() {
                // A handshake may have gone on all the same.
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => return self.send(slot),
                _ => return Err(format!("receiving: {error}")),
            },
        };
        let now = Instant::now();
        if link.received + received.len() as u64 > link.sent {
            return Err("the server sent more than it was sent".to_owned());
        }
        if !self.options.pattern.matches(link.number, link.received, received) {
            let (number, position) = (link.number, link.received);
            return Err(format!("wrong bytes on connection {number} after byte {position}"));
        }
        link.received += received.len() as u64;
        while self.links[slot].received >= self.links[slot].boundary {
            self.links[slot].boundary += self.options.size;
            if self.options.churn {
                return self.close(slot);
            }
            self.complete(slot, now);
            self.begin(slot, now);
        }
        // A full socket is written to when it is writable again.
        if self.links[slot].full { Ok(()) } else { self.send(slot) }
    }

    /// Counts the oldest message of a connection as done.
    fn complete(&mut self, slot: usize, now: Instant) {
        let link = &mut self.links[slot];
        let begun = link.begun.pop_front().expect("a message that was sent has begun");
        self.latencies.record(now - begun);
        self.in_flight -= 1;
    }

    /// With churn, ends a connection that has its reply; with TLS, by saying goodbye first.
    fn close(&mut self, slot: usize) -> Result<(), String> {
        let link = &mut self.links[slot];
        let Some(session) = link.stream.session() else {
            self.complete(slot, Instant::now());
            return self.renew(slot);
        };
        let is_first = link.number < self.options.connections;
        check_handshake(session, self.options.resume && !is_first)?;
        link.closing = true;
        link.stream.say_goodbye().map_err(|error| format!("saying goodbye: {error}"))
    }

    /// The server has ended a connection too.
    fn closed(&mut self, slot: usize) -> Result<(), String> {
        // It may be the last on this slot, and its socket would go on telling of its end.
        epoll::delete(&self.epoll, self.links[slot].stream.socket())
            .map_err(|error| format!("epoll: {error}"))?;
        self.complete(slot, Instant::now());
        self.renew(slot)
    }

    /// With churn, replaces a connection by a new one with one message, unless at the end.
    fn renew(&mut self, slot: usize) -> Result<(), String> {
        let now = Instant::now();
        if self.budget > 0 && now < self.deadline {
            // Assigning closes the old connection.
            self.links[slot] = self.connect(slot)?;
            self.begin(slot, now);
            self.send(slot)?;
        }
        Ok(())
    }

    /// What TLS was agreed on, with the first connection; every other has the same.
    fn agreed(&self) -> Option<String> {
        let session = self.links[0].stream.session()?;
        let version = session.protocol_version()?;
        let suite = session.negotiated_cipher_suite()?.suite();
        let group = session.negotiated_key_exchange_group()?.name();
        Some(format!("{version:?}, {suite:?}, {group:?}"))
    }

    /// Opens a connection, without waiting until it is established: a socket that is not yet is
    /// like a full one.
    fn connect(&mut self, slot: usize) -> Result<Link, String> {
        let socket = self.open(slot).map_err(|error| format!("connecting: {error}"))?;
        let stream = match self.clients.get(slot) {
            Some(client) => Stream::secure(secure::session(client)?, socket),
            None => Stream::Plain(socket),
        };
        let number = self.made;
        self.made += 1;
        Ok(Link {
            stream,
            number,
            sent: 0,
            received: 0,
            allowed: 0,
            boundary: self.options.size,
            begun: VecDeque::with_capacity(self.options.depth as usize),
            full: false,
            closing: false,
        })
    }

    fn open(&self, slot: usize) -> rustix::io::Result<TcpStream> {
        let family = match self.options.target {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        // Closing resets the connection. A closing handshake would leave every port unusable for a
        // while, and with churn they would run out; and the kernel's work of tidying up after one
        // run would fall into the next.
        sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
        match net::connect(&socket, &self.options.target) {
            Ok(()) | Err(rustix::io::Errno::INPROGRESS) => {}
            Err(error) => return Err(error),
        }
        let data = epoll::EventData::new_u64(slot as u64);
        epoll::add(&self.epoll, &socket, data, epoll::EventFlags::IN)?;
        Ok(TcpStream::from(socket))
    }
}

/// Whether a handshake was the kind that is to be measured.
fn check_handshake(session: &ClientConnection, resumed: bool) -> Result<(), String> {
    let expected = if resumed { HandshakeKind::Resumed } else { HandshakeKind::Full };
    match session.handshake_kind() {
        Some(kind) if kind == expected => Ok(()),
        other => Err(format!("a handshake was {other:?}, not {expected:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onbytes_benches::testing::serve_echo;

    fn parse(words: &str) -> Result<Options, String> {
        Options::parse(words.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn options_have_defaults_and_limits() {
        let options = parse("127.0.0.1:7000").unwrap();
        assert_eq!((options.connections, options.size, options.depth), (1, 64, 1));
        assert_eq!(options.time, Duration::from_secs(5));
        assert!(parse("127.0.0.1:7000 --messages 10").unwrap().messages == 10);
        assert!(parse("").is_err());
        assert!(parse("192.0.2.1:7000").is_err());
        assert!(parse("127.0.0.1:7000 --seconds 1e9").is_err());
        assert!(parse("127.0.0.1:7000 --seconds NaN").is_err());
        assert!(parse("127.0.0.1:7000 --size 0").is_err());
        assert_eq!(parse("127.0.0.1:7000 --framing len:u16be").unwrap().size, 66);
        assert!(parse("127.0.0.1:7000 --framing lines --size 100000").is_err());
        assert!(parse("127.0.0.1:7000 --framing nothing").is_err());
        assert!(parse("127.0.0.1:7000 --churn --depth 2").is_err());
        assert!(parse("127.0.0.1:7000 --churn --resume").is_err());
        assert!(parse("127.0.0.1:7000 --unknown").is_err());
    }

    fn echoed(address: SocketAddr, words: &str) -> Result<u64, String> {
        let options = parse(&format!("{address} {words}")).unwrap();
        let mut load = Load::new(&options).unwrap();
        load.warm_up()?;
        load.measure(options.messages, Instant::now() + options.time)
    }

    #[test]
    fn all_messages_are_echoed() {
        let address = serve_echo(None).unwrap();
        assert_eq!(echoed(address, "--connections 3 --messages 50 --depth 4"), Ok(50));
        assert_eq!(echoed(address, "--connections 2 --messages 3 --size 3000000"), Ok(3));
        assert_eq!(echoed(address, "--connections 3 --messages 50 --churn"), Ok(50));
        assert_eq!(echoed(address, "--messages 5000 --depth 100 --framing lines"), Ok(5000));
        assert!(echoed(address, "--connections 2 --seconds 0.05 --spin").unwrap() > 0);
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let address = serve_echo(Some(200)).unwrap();
        assert!(echoed(address, "--messages 2").is_ok());
        assert!(echoed(address, "--messages 9").unwrap_err().starts_with("wrong bytes"));
    }
}
