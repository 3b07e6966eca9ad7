//! What the servers on a hand-written epoll loop share: the loop, and the system calls in it.
//!
//! One thread, level-triggered, as a C programmer writes it.

// System calls are the very thing measured here, so they are made without a layer in between.
#![allow(unsafe_code)]

use libc::{c_int, c_void};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

const EVENTS: usize = 1024;
const BACKLOG: c_int = 4096;

/// What a server does with its connections.
pub trait Connections {
    /// A connection was accepted. File descriptors make good indices: the kernel gives out the lowest free one.
    fn open(&mut self, socket: usize);

    /// Receives from a connection and answers. An error says that the connection is to be closed.
    fn receive(&mut self, socket: usize, epoll: &Epoll) -> io::Result<()>;

    /// What a connection's socket did not take.
    fn unsent(&mut self, socket: usize) -> &mut Unsent;

    /// A connection was closed.
    fn close(&mut self, socket: usize);
}

/// Serves until something fails that is not one connection's own.
pub fn serve(address: SocketAddr, connections: &mut impl Connections) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    // SAFETY: takes integers only. A second `listen` replaces the short queue of the first.
    check(unsafe { libc::listen(listener.as_raw_fd(), BACKLOG) })?;
    crate::cli::announce(listener.local_addr()?);
    let epoll = Epoll::new()?;
    let listener = listener.as_raw_fd();
    epoll.watch(libc::EPOLL_CTL_ADD, listener, libc::EPOLLIN)?;
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
    loop {
        let ready = epoll.wait(&mut events)?;
        for event in &events[..ready] {
            let socket = event.u64 as RawFd;
            if socket == listener {
                accept_all(listener, &epoll, connections)?;
            } else if progress(socket, event.events as c_int, &epoll, connections).is_err() {
                connections.close(socket as usize);
                // SAFETY: the descriptor came from `accept4`, and nothing uses it after this.
                // Closing it also takes it out of the epoll set.
                unsafe { libc::close(socket) };
            }
        }
    }
}

/// Accepts until no connection waits any more.
fn accept_all(
    listener: RawFd,
    epoll: &Epoll,
    connections: &mut impl Connections,
) -> io::Result<()> {
    loop {
        // SAFETY: null pointers say that the peer's address is not wanted.
        let accepted = check(unsafe {
            libc::accept4(
                listener,
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
        connections.open(socket as usize);
        set_nodelay(socket)?;
        epoll.watch(libc::EPOLL_CTL_ADD, socket, libc::EPOLLIN)?;
    }
}

/// Handles an event of a connection. An error says that the connection is to be closed.
fn progress(
    socket: RawFd,
    events: c_int,
    epoll: &Epoll,
    connections: &mut impl Connections,
) -> io::Result<()> {
    // Only one of the two directions is watched at a time.
    if events & libc::EPOLLOUT != 0 {
        connections.unsent(socket as usize).flush(socket as usize, epoll)
    } else {
        connections.receive(socket as usize, epoll)
    }
}

/// What a connection's socket did not take yet; empty most of the time.
#[derive(Default)]
pub struct Unsent {
    bytes: Vec<u8>,
    start: usize,
}

impl Unsent {
    /// Sends `bytes`; what the socket does not take is kept, and until it is gone nothing is received.
    pub fn send(&mut self, socket: usize, bytes: &[u8], epoll: &Epoll) -> io::Result<()> {
        let sent = send(socket as RawFd, bytes)?;
        if sent < bytes.len() {
            self.bytes.extend_from_slice(&bytes[sent..]);
            epoll.watch(libc::EPOLL_CTL_MOD, socket as RawFd, libc::EPOLLOUT)?;
        }
        Ok(())
    }

    /// Sends more of what was kept; once it is gone, the connection receives again.
    fn flush(&mut self, socket: usize, epoll: &Epoll) -> io::Result<()> {
        self.start += send(socket as RawFd, &self.bytes[self.start..])?;
        if self.start == self.bytes.len() {
            self.bytes.clear();
            self.start = 0;
            epoll.watch(libc::EPOLL_CTL_MOD, socket as RawFd, libc::EPOLLIN)?;
        }
        Ok(())
    }
}

/// An epoll set.
pub struct Epoll(RawFd);

impl Epoll {
    fn new() -> io::Result<Self> {
        // SAFETY: takes an integer only.
        Ok(Self(check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?))
    }

    /// Waits for events; returns how many there are.
    fn wait(&self, events: &mut [libc::epoll_event]) -> io::Result<usize> {
        loop {
            // SAFETY: `events` outlives the call and is as long as the call is told.
            let ready = check(unsafe {
                libc::epoll_wait(self.0, events.as_mut_ptr(), events.len() as c_int, -1)
            });
            match ready {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                ready => return Ok(ready? as usize),
            }
        }
    }

    fn watch(&self, operation: c_int, socket: RawFd, events: c_int) -> io::Result<()> {
        let mut event = libc::epoll_event { events: events as u32, u64: socket as u64 };
        // SAFETY: the kernel copies `event` during the call.
        check(unsafe { libc::epoll_ctl(self.0, operation, socket, &raw mut event) })?;
        Ok(())
    }
}

/// Receives what is there, at most as much as `buffer` has room for: how many bytes, or `None` if there
/// are none now. The peer's end is an error.
pub fn receive(socket: usize, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: the buffer outlives the call and is as long as the call is told.
    let received = count(unsafe {
        libc::recv(socket as RawFd, buffer.as_mut_ptr().cast::<c_void>(), buffer.len(), 0)
    })?;
    match received {
        Some(0) => Err(io::ErrorKind::UnexpectedEof.into()),
        received => Ok(received),
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
