//! Measures the memory of a server for each idle connection, before and after traffic.
//!
//! ```text
//! cargo build --release -p onbytes-benches
//! target/release/idle-memory [--tls] [--traffic BYTES]... [--watch SECONDS] [CONNECTIONS] [NAME=PATH]...
//! ```
//!
//! The figure is the growth of the server's anonymous resident memory (`RssAnon`), divided by the
//! number of connections (default 10,000): user memory alone, the kernel's sockets do not count. A
//! server is started without arguments, must print `listening on ADDRESS` first, and is killed
//! afterwards.
//!
//! - `--traffic BYTES`: what each connection sends and gets back before a further figure (default
//!   5,000); more than one follow each other on the same connections
//! - `--watch SECONDS`: what the server does in so many seconds in which nobody says anything: its CPU
//!   time, and how often it woke up (voluntary context switches of all its threads)
//! - `--tls`: the servers over TLS, which are given an address and the files of a certificate and
//!   its key; before the first figure all handshakes are complete

use onbytes_benches::host::CpuTime;
use onbytes_benches::secure::{self, Identity};
use onbytes_benches::{cli, host};
use rustls::{ClientConfig, StreamOwned};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

const PLAIN_SERVERS: &[&str] = &["epoll-echo", "tokio-echo", "onbytes-echo"];
const TLS_SERVERS: &[&str] = &["tokio-rustls-echo", "onbytes-tls-echo"];
/// The most that each connection sends and gets back: the kernel holds it for all at once.
const MOST_TRAFFIC: u64 = 64 * 1024;
/// Connections made and kept before measuring, so that what a server makes once is not counted.
const WARM_UP: usize = 100;
/// Lets a server finish what it does after its last reply.
const SETTLE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    cli::exit(Options::parse(std::env::args().skip(1)).and_then(|options| run(&options)))
}

struct Options {
    is_tls: bool,
    traffic: Vec<usize>,
    watch: Option<u64>,
    connections: usize,
    given: Vec<(String, PathBuf)>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut options = Self {
            is_tls: false,
            traffic: Vec::new(),
            watch: None,
            connections: 10_000,
            given: Vec::new(),
        };
        while let Some(word) = args.next() {
            match word.as_str() {
                "--tls" => options.is_tls = true,
                "--traffic" => {
                    options.traffic.push(cli::count(&word, &mut args, MOST_TRAFFIC)? as usize);
                }
                "--watch" => options.watch = Some(cli::count(&word, &mut args, 3600)?),
                _ => match word.split_once('=') {
                    Some((name, path)) => options.given.push((name.to_owned(), path.into())),
                    None => {
                        let wrong = |_| format!("'{word}' is not a number");
                        options.connections = word.parse().map_err(wrong)?;
                    }
                },
            }
        }
        if options.traffic.is_empty() {
            options.traffic.push(5_000);
        }
        Ok(options)
    }

    fn servers(&self) -> Result<Vec<(String, PathBuf)>, String> {
        let own = std::env::current_exe().map_err(|error| error.to_string())?;
        let folder = own.parent().ok_or("this program has no folder")?;
        let names = if self.is_tls { TLS_SERVERS } else { PLAIN_SERVERS };
        let defaults = names.iter().map(|&name| (name.to_owned(), folder.join(name)));
        Ok(defaults.chain(self.given.iter().cloned()).collect())
    }
}

fn run(options: &Options) -> Result<(), String> {
    let servers = options.servers()?;
    let identity = options.is_tls.then(Identity::make).transpose()?;
    host::raise_open_file_limit().map_err(|error| format!("the limit of open files: {error}"))?;
    println!("{}, {}, {} connections\n", host::kernel(), host::cpu_model(), options.connections);
    let after = options.traffic.iter().map(|bytes| format!(" after {bytes} bytes each way |"));
    let watch = options.watch.map(|time| format!(" CPU ms in {time} s | wake-ups |"));
    println!(
        "| bytes for each idle connection | before traffic |{}{}",
        after.collect::<String>(),
        watch.as_deref().unwrap_or_default()
    );
    let columns = options.traffic.len() + if watch.is_some() { 2 } else { 0 };
    println!("|---|---:|{}", "---:|".repeat(columns));
    for (name, path) in servers {
        let figures = measure(&path, identity.as_ref(), options)
            .map_err(|error| format!("{name}: {error}"))?;
        let cells = figures.iter().map(|figure| format!(" {figure:.0} |"));
        println!("| {name} |{}", cells.collect::<String>());
    }
    Ok(())
}

/// A server, killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
    /// How to speak TLS with it, if it does.
    client: Option<Arc<ClientConfig>>,
}

/// A connection, with or without TLS.
trait Peer: Read + Write {}

impl<T: Read + Write> Peer for T {}

impl Server {
    fn start(path: &Path, identity: Option<&Identity>) -> Result<Self, String> {
        let mut command = Command::new(path);
        let mut client = None;
        if let Some(identity) = identity {
            command.arg("127.0.0.1:0").arg(identity.certificate()).arg(identity.key());
            client = Some(secure::client(&identity.certificate(), false)?);
        }
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", path.display()))?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
        let address = line.trim().rsplit(' ').next().unwrap_or_default();
        let address = cli::loopback(address)?;
        Ok(Self { child, address, client })
    }

    /// Anonymous resident memory in bytes.
    fn memory(&self) -> Result<f64, String> {
        std::thread::sleep(SETTLE);
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
        kilobytes.map(|kilobytes| kilobytes * 1024.0).ok_or_else(|| "no RssAnon".to_owned())
    }

    /// What the server does while nobody says anything: CPU time in milliseconds, and wake-ups.
    fn rest(&self, time: Duration) -> Result<[f64; 2], String> {
        let failed = |error: std::io::Error| error.to_string();
        let before = (CpuTime::read(self.child.id()).map_err(failed)?, self.wake_ups()?);
        std::thread::sleep(time);
        let after = (CpuTime::read(self.child.id()).map_err(failed)?, self.wake_ups()?);
        Ok([after.0.since(&before.0).as_secs_f64() * 1000.0, after.1 - before.1])
    }

    fn wake_ups(&self) -> Result<f64, String> {
        let tasks = format!("/proc/{}/task", self.child.id());
        let mut count = 0.0;
        for task in std::fs::read_dir(tasks).map_err(|error| error.to_string())? {
            let status = task.map_err(|error| error.to_string())?.path().join("status");
            let status = std::fs::read_to_string(status).map_err(|error| error.to_string())?;
            let line =
                status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            count += line.and_then(|line| line.trim().parse::<f64>().ok()).unwrap_or_default();
        }
        Ok(count)
    }

    fn connect(&self, count: usize) -> Result<Vec<Box<dyn Peer>>, String> {
        (0..count).map(|_| self.connect_one()).collect()
    }

    fn connect_one(&self) -> Result<Box<dyn Peer>, String> {
        let failed = |error: std::io::Error| error.to_string();
        let socket = TcpStream::connect(self.address).map_err(failed)?;
        socket.set_read_timeout(Some(Duration::from_secs(30))).map_err(failed)?;
        let Some(client) = &self.client else {
            return Ok(Box::new(socket));
        };
        let mut stream = StreamOwned::new(secure::session(client)?, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock).map_err(failed)?;
        }
        Ok(Box::new(stream))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The figures of a server: before traffic, and after each amount.
fn measure(
    path: &Path,
    identity: Option<&Identity>,
    options: &Options,
) -> Result<Vec<f64>, String> {
    let server = Server::start(path, identity)?;
    let _warm = server.connect(WARM_UP)?;
    let base = server.memory()?;
    let mut streams = server.connect(options.connections)?;
    let mut figures = vec![server.memory()? - base];
    for &bytes in &options.traffic {
        exchange(&mut streams, bytes).map_err(|error| error.to_string())?;
        figures.push(server.memory()? - base);
    }
    for growth in &mut figures {
        *growth /= options.connections as f64;
    }
    if let Some(seconds) = options.watch {
        figures.extend(server.rest(Duration::from_secs(seconds))?);
    }
    Ok(figures)
}

fn exchange(streams: &mut [Box<dyn Peer>], bytes: usize) -> std::io::Result<()> {
    let sent = vec![7; bytes];
    let mut got = vec![0; bytes];
    for stream in &mut *streams {
        stream.write_all(&sent)?;
        stream.flush()?;
    }
    for stream in streams {
        stream.read_exact(&mut got)?;
    }
    Ok(())
}
