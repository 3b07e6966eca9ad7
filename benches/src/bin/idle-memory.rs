//! Measures the memory of a server for each idle connection, before and after traffic.
//!
//! ```text
//! cargo build --release -p onbytes-benches
//! target/release/idle-memory [CONNECTIONS [NAME=PATH]...]
//! ```
//!
//! The figure is the growth of the server's anonymous resident memory (`RssAnon`), divided by the
//! number of connections (default 10,000): user memory alone, the kernel's sockets do not count. A
//! server is started without arguments, must print `listening on ADDRESS` first, and is killed
//! afterwards.

use onbytes_benches::{cli, host};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::Duration;

const DEFAULT_SERVERS: [&str; 3] = ["epoll-echo", "tokio-echo", "onbytes-echo"];
/// What each connection sends and gets back for the second figure.
const TRAFFIC: usize = 5_000;
/// Connections made and kept before measuring, so that what a server makes once is not counted.
const WARM_UP: usize = 100;
/// Lets a server finish what it does after its last reply.
const SETTLE: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    cli::exit(run())
}

fn run() -> Result<(), String> {
    let mut args = std::env::args().skip(1).peekable();
    let count = match args.next_if(|first| !first.contains('=')) {
        Some(count) => count.parse().map_err(|_| format!("'{count}' is not a number"))?,
        None => 10_000,
    };
    let mut servers = default_servers()?;
    for server in args {
        let (name, path) = server.split_once('=').ok_or("a server is NAME=PATH")?;
        servers.push((name.to_owned(), path.into()));
    }
    host::raise_open_file_limit().map_err(|error| format!("the limit of open files: {error}"))?;
    println!("{}, {}, {count} connections\n", host::kernel(), host::cpu_model());
    println!(
        "| bytes for each idle connection | before traffic | after {TRAFFIC} bytes each way |"
    );
    println!("|---|---:|---:|");
    for (name, path) in servers {
        let (before, after) = measure(&path, count).map_err(|error| format!("{name}: {error}"))?;
        println!("| {name} | {before:.0} | {after:.0} |");
    }
    Ok(())
}

fn default_servers() -> Result<Vec<(String, PathBuf)>, String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let folder = own.parent().ok_or("this program has no folder")?;
    Ok(DEFAULT_SERVERS.map(|name| (name.to_owned(), folder.join(name))).into())
}

/// A server, killed when dropped.
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn start(path: &Path) -> Result<Self, String> {
        let mut child = Command::new(path)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", path.display()))?;
        let stdout = child.stdout.take().ok_or("no stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line).map_err(|error| error.to_string())?;
        let address = line.trim().rsplit(' ').next().unwrap_or_default();
        let address = cli::loopback(address)?;
        Ok(Self { child, address })
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

    fn connect(&self, count: usize) -> std::io::Result<Vec<TcpStream>> {
        (0..count)
            .map(|_| {
                let stream = TcpStream::connect(self.address)?;
                stream.set_read_timeout(Some(Duration::from_secs(30)))?;
                Ok(stream)
            })
            .collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn measure(path: &Path, count: usize) -> Result<(f64, f64), String> {
    let failed = |error: std::io::Error| error.to_string();
    let server = Server::start(path)?;
    let _warm = server.connect(WARM_UP).map_err(failed)?;
    let base = server.memory()?;
    let mut streams = server.connect(count).map_err(failed)?;
    let idle = server.memory()?;
    exchange(&mut streams).map_err(failed)?;
    let after = server.memory()?;
    Ok(((idle - base) / count as f64, (after - base) / count as f64))
}

fn exchange(streams: &mut [TcpStream]) -> std::io::Result<()> {
    let sent = vec![7; TRAFFIC];
    let mut got = vec![0; TRAFFIC];
    for stream in &mut *streams {
        stream.write_all(&sent)?;
    }
    for stream in streams {
        stream.read_exact(&mut got)?;
    }
    Ok(())
}
