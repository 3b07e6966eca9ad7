//! A client as `AsyncRead` and `AsyncWrite`.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Client, ClientReader, ClientWriter};
use crate::Result;
use crate::link::{State, WriteStep};

impl AsyncRead for ClientReader {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if buffer.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        if this.rest.is_empty() {
            this.rest = ready!(this.poll_content(cx))?;
        }
        let count = this.rest.len().min(buffer.remaining());
        buffer.put_slice(&this.rest[..count]);
        this.rest.advance(count);
        if this.rest.is_empty() {
            // Lets go of the read buffer at once.
            this.rest = Bytes::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl ClientReader {
    /// What is read next, or nothing at the end. An empty frame is passed over, because nothing read would
    /// mean the end.
    fn poll_content(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes>> {
        /// So many empty frames are passed over before others get their turn.
        const TURN: usize = 1024;
        for _ in 0..TURN {
            match ready!(self.poll_chunk(cx))? {
                Some(data) if data.is_empty() => {}
                data => return Poll::Ready(Ok(data.unwrap_or_default())),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl AsyncWrite for ClientWriter {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        let connection = &self.connection;
        let result = connection.link.change(|state, wakes| state.poll_write_some(data, cx, wakes));
        connection.see_to_backlog();
        result.map_err(io::Error::from)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let everything = this.connection.link.lock().everything()?;
        this.poll_sent(everything, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let everything = this.connection.link.change(State::refuse_writes)?;
        ready!(this.poll_sent(everything, cx))?;
        this.connection.poll_send_fin(cx).map_err(io::Error::from)
    }
}

impl ClientWriter {
    /// Waits for `everything`, with the place that an earlier poll has for the same.
    fn poll_sent(&mut self, everything: WriteStep, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !everything.is_the_wait_of(&self.flush) {
            self.connection.link.abandon_write(&self.flush);
            self.flush = everything;
        }
        self.connection.poll_write(&mut self.flush, cx).map_err(io::Error::from)
    }
}

impl AsyncRead for Client {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.reader).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Client {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.writer).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.writer).poll_shutdown(cx)
    }
}
