//! A socket that exists only in tests: its peer decides how much is taken, when, and how it ends.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};

use bytes::{BufMut, BytesMut};

use crate::socket::Received;

/// Our end of a simulated connection.
pub(crate) struct Socket {
    shared: Arc<Mutex<Shared>>,
}

/// The other end, which a test holds.
#[derive(Clone)]
pub(crate) struct Peer {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    /// What the peer has sent and we have not read.
    incoming: VecDeque<u8>,
    peer_has_ended: bool,
    is_reset: bool,
    /// Bytes that "the kernel" takes before it is full.
    room: usize,
    /// What we have sent.
    outgoing: Vec<u8>,
    end: Option<End>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

/// How our end of the connection was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Fin,
    Reset,
    Dropped,
}

/// A connection whose kernel buffer has `room` bytes.
pub(crate) fn connection(room: usize) -> (Socket, Peer) {
    let shared = Arc::new(Mutex::new(Shared { room, ..Shared::default() }));
    (Socket { shared: Arc::clone(&shared) }, Peer { shared })
}

impl Socket {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    pub(crate) fn poll_recv(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<Received>> {
        match self.recv_now(buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.lock().reader = Some(cx.waker().clone());
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }

    pub(crate) fn poll_quiet(&mut self, cx: &mut Context<'_>) -> bool {
        let mut shared = self.lock();
        let is_quiet = shared.incoming.is_empty() && !shared.is_reset && !shared.peer_has_ended;
        if is_quiet {
            shared.reader = Some(cx.waker().clone());
        }
        is_quiet
    }

    pub(crate) fn recv_now(&mut self, buffer: &mut BytesMut) -> io::Result<Received> {
        let mut shared = self.lock();
        let len = shared.incoming.len();
        if len > 0 {
            let data: Vec<u8> = shared.incoming.drain(..).collect();
            buffer.put_slice(&data);
            return Ok(Received { len, more: false });
        }
        if shared.is_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if shared.peer_has_ended {
            return Ok(Received { len: 0, more: true });
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    pub(crate) fn send_now(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut shared = self.lock();
        if shared.is_reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        let count = data.len().min(shared.room);
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        shared.room -= count;
        shared.outgoing.extend_from_slice(&data[..count]);
        Ok(count)
    }

    pub(crate) fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        match self.send_now(&all) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.lock().writer = Some(cx.waker().clone());
                Poll::Pending
            }
            result => Poll::Ready(result),
        }
    }

    pub(crate) fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let mut shared = self.lock();
        if shared.is_reset {
            return Poll::Ready(());
        }
        shared.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    pub(crate) fn send_fin(&mut self) -> io::Result<()> {
        self.lock().end.get_or_insert(End::Fin);
        Ok(())
    }

    pub(crate) fn reset(self) {
        self.lock().end = Some(End::Reset);
    }

    pub(crate) fn arrived(&self) -> usize {
        self.lock().incoming.len()
    }

    pub(crate) fn unacknowledged(&self) -> Option<u64> {
        None
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.lock().end.get_or_insert(End::Dropped);
    }
}

impl Peer {
    fn change(&self, change: impl FnOnce(&mut Shared)) {
        let mut shared = self.shared.lock().unwrap();
        change(&mut shared);
        let wakers = [shared.reader.take(), shared.writer.take()];
        drop(shared);
        wakers.into_iter().flatten().for_each(Waker::wake);
    }

    pub(crate) fn send(&self, data: &[u8]) {
        self.change(|shared| shared.incoming.extend(data));
    }

    pub(crate) fn finish(&self) {
        self.change(|shared| shared.peer_has_ended = true);
    }

    pub(crate) fn reset(&self) {
        self.change(|shared| shared.is_reset = true);
    }

    /// Leaves room for so many bytes from now on.
    pub(crate) fn narrow_to(&self, room: usize) {
        self.shared.lock().unwrap().room = room;
    }

    /// Makes room for `count` more bytes.
    pub(crate) fn take(&self, count: usize) {
        self.change(|shared| shared.room += count);
    }

    /// What was sent and not read yet.
    #[cfg(feature = "_tls")]
    pub(crate) fn unread(&self) -> usize {
        self.shared.lock().unwrap().incoming.len()
    }

    pub(crate) fn received(&self) -> Vec<u8> {
        self.shared.lock().unwrap().outgoing.clone()
    }

    pub(crate) fn end(&self) -> Option<End> {
        self.shared.lock().unwrap().end
    }
}
