//! System calls on sockets, and the readiness that says when to make them; and a cheap clock.
//!
//! This is the only module with `unsafe` code: four blocks, each with its proof.
#![allow(unsafe_code)]

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::task::{Context, Poll, ready};

use bytes::{BufMut, BytesMut};
use rustix::net::{RecvFlags, SendFlags, Shutdown, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The most that one turn of sending hands to the kernel, so that one connection with a large
/// message does not hold a worker.
pub(crate) const SEND_TURN: usize = 256 * 1024;

/// What one read brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Received {
    /// Bytes appended to the buffer; 0 is the end of the stream.
    pub(crate) len: usize,
    /// Whether the buffer was filled, so that more is likely to be at hand.
    pub(crate) more: bool,
}

/// A connected, non-blocking stream socket, registered with the runtime.
pub(crate) struct Socket {
    fd: AsyncFd<OwnedFd>,
    /// Whether the kernel took all of the last write, or none was made yet. While that is so a
    /// write is tried without looking at readiness; after a short write the kernel owes an event.
    may_send: bool,
    /// Whether a read has found that the peer has reset the connection.
    is_reset: bool,
    /// Whether a read is tried without looking at readiness, which knows nothing yet of a connection that
    /// was just accepted: whoever speaks first has often done so by then.
    may_have_come: bool,
}

impl Socket {
    /// Registers `fd`, which must be non-blocking, with the current runtime.
    pub(crate) fn register(fd: OwnedFd) -> io::Result<Self> {
        let fd = register(fd, interest())?;
        Ok(Self { fd, may_send: true, is_reset: false, may_have_come: false })
    }

    /// The same for a connection that was accepted.
    pub(crate) fn register_accepted(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { may_have_come: true, ..Self::register(fd)? })
    }

    /// Reads once into the spare room of `buffer`, or waits until that is possible.
    ///
    /// A read that does not fill the room has emptied the socket, so it withdraws the readiness
    /// itself and the next call needs no system call to find the socket empty. There is one
    /// exception: the kernel also stops short at TCP's urgent mark, with more bytes behind it. It
    /// announces urgent data as priority readiness, which is never withdrawn here: a connection
    /// that has seen it reads until the socket says that it is empty, for ever.
    pub(crate) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<Received>> {
        loop {
            // Without the runtime's book-keeping for a wait, which is not needed where there is something.
            let received =
                if self.may_have_come { self.recv_first(buffer) } else { self.try_recv(buffer) };
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => {
                    let kind = result.as_ref().err().map(io::Error::kind);
                    self.is_reset = kind == Some(io::ErrorKind::ConnectionReset);
                    return Poll::Ready(result);
                }
            }
            ready!(self.fd.poll_read_ready(cx))?.retain_ready();
        }
    }

    /// Reads once, and from then on by readiness, once there is no more: the event for what is there or
    /// comes later is still before us.
    fn recv_first(&mut self, buffer: &mut BytesMut) -> io::Result<Received> {
        let received = recv(self.fd.get_ref(), buffer);
        self.may_have_come = matches!(received, Ok(Received { more: true, .. }));
        received
    }

    /// Reads once if the socket is ready for that, as far as the runtime knows.
    fn try_recv(&self, buffer: &mut BytesMut) -> io::Result<Received> {
        let mut received = None;
        let tried = self.fd.try_io(Interest::READABLE, |fd| {
            let Received { len, more } = *received.insert(recv(fd, buffer)?);
            // What withdraws the readiness.
            let is_emptied = len > 0 && !more && !saw_urgent(&self.fd);
            if is_emptied { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
        });
        match (received, tried) {
            (Some(received), _) => Ok(received),
            (None, tried) => Err(tried.err().unwrap_or(io::ErrorKind::WouldBlock.into())),
        }
    }

    /// Whether there is nothing to read as far as the runtime knows. Then the task is woken when there is.
    pub(crate) fn poll_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        match self.fd.poll_read_ready(cx) {
            Poll::Pending => true,
            Poll::Ready(ready) => {
                ready.into_iter().for_each(|mut guard| guard.retain_ready());
                false
            }
        }
    }

    /// Reads what is at hand now, whatever the runtime knows of it yet.
    pub(crate) fn recv_now(&mut self, buffer: &mut BytesMut) -> io::Result<Received> {
        recv(self.fd.get_ref(), buffer)
    }

    /// Sends what the kernel takes now of one message.
    pub(crate) fn send_now(&mut self, data: &[u8]) -> io::Result<usize> {
        if !self.may_send {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let result = send(self.fd.get_ref(), data);
        self.note_sent(&result, data.len());
        result
    }

    /// Sends from several messages in one call, or waits until the kernel has room.
    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = slices.iter().map(|slice| slice.len()).sum();
        loop {
            if self.may_send {
                let result = send_gathered(self.fd.get_ref(), slices);
                self.note_sent(&result, total);
                match result {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => return Poll::Ready(result),
                }
            }
            let mut guard = ready!(self.fd.poll_write_ready(cx))?;
            // What this readiness stands for is tried once; the next one is waited for.
            guard.clear_ready();
            self.may_send = true;
        }
    }

    fn note_sent(&mut self, result: &io::Result<usize>, wanted: usize) {
        self.may_send = matches!(result, Ok(count) if *count == wanted);
    }

    /// Waits until the connection is broken: reset by the peer, or given up by the kernel.
    ///
    /// For use while nothing is read and nothing is queued.
    pub(crate) fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            let Ok(mut guard) = ready!(self.fd.poll_write_ready(cx)) else {
                return Poll::Ready(());
            };
            if guard.ready().is_write_closed() {
                return Poll::Ready(());
            }
            // "There is room" is not what is waited for. Withdrawing it loses nothing: a sender
            // tries before it looks at readiness.
            guard.clear_ready();
            self.may_send = true;
        }
    }

    /// Sends FIN behind everything sent so far.
    pub(crate) fn send_fin(&mut self) -> io::Result<()> {
        Ok(rustix::net::shutdown(self.fd.get_ref(), Shutdown::Write)?)
    }

    /// Closes the socket so that the peer sees a reset.
    pub(crate) fn reset(self) {
        if self.is_reset {
            // There is no connection any more.
            return;
        }
        // A socket that cannot linger for no time at all is closed in the ordinary way.
        let _ = sockopt::set_socket_linger(self.fd.get_ref(), Some(std::time::Duration::ZERO));
    }

    /// Bytes that have arrived and were not read yet.
    pub(crate) fn arrived(&self) -> usize {
        let count = rustix::io::ioctl_fionread(self.fd.get_ref()).unwrap_or(0);
        usize::try_from(count).unwrap_or(usize::MAX)
    }

    /// Bytes sent that the peer has not acknowledged yet, where the system tells.
    pub(crate) fn unacknowledged(&self) -> Option<u64> {
        unacknowledged(self.fd.get_ref())
    }
}

fn register(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` owns an open descriptor until it is dropped, always answers `as_raw_fd`
    // with the same one, and is neither replaced nor given away while the `AsyncFd` holds it: this
    // module hands out no `&mut` to it and never takes it back.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn interest() -> Interest {
    Interest::READABLE | Interest::WRITABLE | Interest::PRIORITY
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn interest() -> Interest {
    Interest::READABLE | Interest::WRITABLE
}

/// Whether the runtime has ever reported urgent data on this socket: one atomic load.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn saw_urgent(fd: &AsyncFd<OwnedFd>) -> bool {
    fd.try_io(Interest::PRIORITY, |_| Ok(())).is_ok()
}

/// Elsewhere a read is never taken for the last one, at the price of one more call.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn saw_urgent(_: &AsyncFd<OwnedFd>) -> bool {
    true
}

fn recv(fd: &OwnedFd, buffer: &mut BytesMut) -> io::Result<Received> {
    let room = buffer.spare_capacity_mut();
    let wanted = room.len();
    let len = loop {
        match rustix::net::recv(fd, &mut *room, RecvFlags::empty()) {
            Ok(((filled, _), _)) => break filled.len(),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    };
    // SAFETY: `recv` returned the initialised front of the buffer's spare capacity, `len` bytes of
    // it, so these bytes are initialised and lie within the capacity.
    unsafe { buffer.advance_mut(len) };
    Ok(Received { len, more: len == wanted })
}

fn send(fd: &OwnedFd, data: &[u8]) -> io::Result<usize> {
    // Without NOSIGNAL a program that has not switched SIGPIPE off would die of a reset.
    retry(|| rustix::net::send(fd, data, SendFlags::NOSIGNAL))
}

fn send_gathered(fd: &OwnedFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    if let [only] = slices {
        return send(fd, only);
    }
    let mut control = rustix::net::SendAncillaryBuffer::default();
    retry(|| rustix::net::sendmsg(fd, slices, &mut control, SendFlags::NOSIGNAL))
}

fn retry<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn unacknowledged(fd: &OwnedFd) -> Option<u64> {
    let mut count: libc::c_int = 0;
    // SAFETY: TIOCOUTQ (SIOCOUTQ on sockets) writes one `int` to the given address, which is that
    // of a live, exclusively borrowed `int`; the descriptor is open as long as `fd` is borrowed.
    let result = unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    (result == 0).then_some(count.unsigned_abs().into())
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn unacknowledged(_: &OwnedFd) -> Option<u64> {
    None
}

/// The time since some point in the past, to some milliseconds, without a system call.
// Not asked through rustix, which looks for the kernel's fast path itself, where valgrind has hidden it.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn coarse_time() -> std::time::Duration {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the call writes one `timespec` to the given address, which is that of a live, exclusively
    // borrowed one. It cannot fail: every Linux that Rust supports has this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC_COARSE, &raw mut now) };
    std::time::Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn coarse_time() -> std::time::Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    std::time::Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32)
}

/// A bound, listening, non-blocking socket, registered with the runtime.
pub(crate) struct ListeningSocket {
    fd: AsyncFd<OwnedFd>,
}

impl ListeningSocket {
    pub(crate) fn register(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self { fd: register(fd, Interest::READABLE)? })
    }

    /// Waits until a connection is (or seems to be) waiting to be accepted.
    pub(crate) async fn readable(&self) -> io::Result<()> {
        if self.fd.try_io(Interest::READABLE, |_| Ok(())).is_ok() {
            return Ok(());
        }
        self.fd.readable().await.map(|mut guard| guard.retain_ready())
    }

    /// Waits until a connection is waiting to be accepted, without accepting it.
    #[cfg(feature = "_tls")]
    pub(crate) async fn has_caller(&self) -> io::Result<()> {
        loop {
            let mut guard = self.fd.readable().await?;
            // Readiness may be left over from a connection that was accepted since.
            if is_readable(self.fd.get_ref())? {
                return Ok(());
            }
            guard.clear_ready();
        }
    }

    /// Nobody can connect any more, though the socket is open. (So it is on Linux; elsewhere nothing happens.)
    pub(crate) fn stop_listening(&self) {
        let _ = rustix::net::shutdown(self.fd.get_ref(), Shutdown::Read);
    }

    /// Accepts one connection; `WouldBlock` when none is waiting.
    pub(crate) fn accept(&self) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
        self.fd.try_io(Interest::READABLE, accept)
    }
}

#[cfg(feature = "_tls")]
fn is_readable(fd: &OwnedFd) -> io::Result<bool> {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&at_once)) {
        Err(rustix::io::Errno::INTR) => Ok(false),
        ready => Ok(ready? > 0),
    }
}

#[cfg(not(target_vendor = "apple"))]
fn accept(fd: &OwnedFd) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    use rustix::net::{SocketFlags, acceptfrom_with};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let (fd, peer) = acceptfrom_with(fd, flags)?;
    Ok((fd, peer.and_then(|peer| SocketAddr::try_from(peer).ok())))
}

#[cfg(target_vendor = "apple")]
fn accept(fd: &OwnedFd) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let (fd, peer) = rustix::net::acceptfrom(fd)?;
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok((fd, peer.and_then(|peer| SocketAddr::try_from(peer).ok())))
}
