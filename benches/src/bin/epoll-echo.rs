//! The yardstick: an echo server as a C programmer would write it with level-triggered epoll.
//!
//! One thread, one receive buffer for all connections, the received bytes sent back at once. Only
//! what the socket does not take is kept, per connection, and while something is kept nothing more
//! is received from that connection.
//!
//! `cargo run --release -p onbytes-benches --bin epoll-echo -- 127.0.0.1:7000`

// System calls are the very thing measured here, so they are made without a layer in between.
#![allow(unsafe_code)]

use libc::{c_int, c_void};
use onbytes_benches::cli;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::process::ExitCode;
use std::ptr;

const BUFFER_SIZE: usize = 256 * 1024;
const EVENTS: usize = 1024;
const BACKLOG: c_int = 4096;

fn main() -> ExitCode {
    cli::exit(cli::listen_address().and_then(|address| run(address).map_err(|e| e.to_string())))
}

fn run(address: SocketAddr) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // SAFETY: takes integers only. A second `listen` replaces the short queue of the first.
    check(unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) })?;
    cli::announce(listener.local_addr()?);
    Server::new(listener)?.serve()
}

/// What a connection's socket did not take yet; empty most of the time.
#[derive(Default)]
struct Unsent {
    bytes: Vec<u8>,
    start: usize,
}

struct Server {
    listener: TcpListener,
    epoll: RawFd,
    buffer: Box<[u8]>,
    /// Indexed by file descriptor: the kernel gives out the lowest free one.
    unsent: Vec<Unsent>,
}

impl Server {
    fn new(listener: TcpListener) -> io::Result<Self> {
        // SAFETY: takes an integer only.
        let epoll = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
        let buffer = vec![0; BUFFER_SIZE].into_boxed_slice();
        Ok(Self { listener, epoll, buffer, unsent: Vec::new() })
    }

    fn serve(&mut self) -> io::Result<()> {
        let listener = self.listener.as_raw_fd();
        self.watch(libc::EPOLL_CTL_ADD, listener, libc::EPOLLIN)?;
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        loop {
            // SAFETY: `events` outlives the call and is as long as the call is told.
            let ready = check(unsafe {
                libc::epoll_wait(self.epoll, events.as_mut_ptr(), EVENTS as c_int, -1)
            });
            let ready = match ready {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                ready => ready? as usize,
            };
            for event in &events[..ready] {
                let socket = event.u64 as RawFd;
                if socket == listener {
                    self.accept_all()?;
                } else if let Err(_lost) = self.progress(socket, event.events as c_int) {
                    self.close(socket);
                }
            }
        }
    }

    /// Accepts until no connection waits any more.
    fn accept_all(&mut self) -> io::Result<()> {
        loop {
            // SAFETY: null pointers say that the peer's address is not wanted.
            let accepted = check(unsafe {
                libc::accept4(
                    self.listener.as_raw_fd(),
                    ptr::null_mut(),
                    ptr::null_mut(),
                    libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
                )
            });
            let socket = match accepted {
                Ok(socket) => socket,
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    // The peer gave up while it waited.
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => continue,
                    _ => return Err(error),
                },
            };
            if self.unsent.len() <= socket as usize {
                self.unsent.resize_with(socket as usize + 1, Unsent::default);
            }
            set_nodelay(socket)?;
            self.watch(libc::EPOLL_CTL_ADD, socket, libc::EPOLLIN)?;
        }
    }

    /// Handles an event of a connection. An error says that the connection is to be closed.
    fn progress(&mut self, socket: RawFd, events: c_int) -> io::Result<()> {
        // Only one of the two directions is watched at a time.
        if events & libc::EPOLLOUT != 0 { self.flush(socket) } else { self.echo(socket) }
    }

    /// Receives once and sends it back at once.
    fn echo(&mut self, socket: RawFd) -> io::Result<()> {
        // SAFETY: the buffer outlives the call and is as long as the call is told.
        let received = count(unsafe {
            libc::recv(socket, self.buffer.as_mut_ptr().cast::<c_void>(), BUFFER_SIZE, 0)
        })?;
        let received = match received {
            Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Some(length) => &self.buffer[..length],
            None => return Ok(()),
        };
        let sent = send(socket, received)?;
        if sent < received.len() {
            self.unsent[socket as usize].bytes.extend_from_slice(&received[sent..]);
            self.watch(libc::EPOLL_CTL_MOD, socket, libc::EPOLLOUT)?;
        }
        Ok(())
    }

    /// Sends more of what was kept; once it is gone, receives again.
    fn flush(&mut self, socket: RawFd) -> io::Result<()> {
        let unsent = &mut self.unsent[socket as usize];
        unsent.start += send(socket, &unsent.bytes[unsent.start..])?;
        if unsent.start == unsent.bytes.len() {
            unsent.bytes.clear();
            unsent.start = 0;
            self.watch(libc::EPOLL_CTL_MOD, socket, libc::EPOLLIN)?;
        }
        Ok(())
    }

    fn close(&mut self, socket: RawFd) {
        self.unsent[socket as usize] = Unsent::default();
        // SAFETY: the descriptor came from `accept4`, and nothing uses it after this.
        // Closing it also takes it out of the epoll set.
        unsafe { libc::close(socket) };
    }

    fn watch(&self, operation: c_int, socket: RawFd, events: c_int) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: socket as u64 };
        // SAFETY: the kernel copies `event` during the call.
        check(unsafe { libc::epoll_ctl(self.epoll, operation, socket, &raw mut event) })?;
        Ok(())
    }
}

/// Sends what the socket takes now, which may be nothing.
fn send(socket: RawFd, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: `bytes` outlives the call and is as long as the call is told.
    let sent = count(unsafe {
        libc::send(socket, bytes.as_ptr().cast::<c_void>(), bytes.len(), libc::MSG_NOSIGNAL)
    })?;
    Ok(sent.unwrap_or(0))
}

fn set_nodelay(socket: RawFd) -> io::Result<()> {
    let on: c_int = 1;
    // SAFETY: the option's value is an int that outlives the call.
    check(unsafe {
        libc::setsockopt(
            socket,
            libc::IPPROTO_TCP,
            libc::TCP_NODELAY,
            (&raw const on).cast::<c_void>(),
            size_of::<c_int>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// The result of a call that gives -1 for an error.
fn check(result: c_int) -> io::Result<c_int> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// The result of a transfer: the number of bytes, or `None` if the socket is not ready.
fn count(result: isize) -> io::Result<Option<usize>> {
    if let Ok(length) = usize::try_from(result) {
        return Ok(Some(length));
    }
    let error = io::Error::last_os_error();
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
        _ => Err(error),
    }
}
