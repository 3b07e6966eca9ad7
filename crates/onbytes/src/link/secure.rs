//! What a TLS connection needs beside: its handshake, and what it came to.

use std::task::{Context, Poll, ready};

use super::{ConnectionState, Link, State};
use crate::tls::Session;
use crate::{Result, TlsInfo};

impl Link {
    /// From now on the connection is secured by `session`, which has its handshake before it.
    pub(crate) fn secure(&self, session: Session) {
        let mut state = self.lock();
        state.set_doing(ConnectionState::Handshake);
        if let Some(stream) = state.stream() {
            stream.secure(session);
        }
    }

    /// Drives the handshake. A failure is returned; whether it ends the connection is the caller's
    /// to say.
    pub(crate) fn poll_handshake(
        &self,
        state: &mut State,
        cx: &mut Context<'_>,
    ) -> Poll<Result<()>> {
        let Some(stream) = state.stream() else { return Poll::Ready(Err(crate::Error::closed())) };
        if let Some(info) = ready!(stream.poll_handshake(cx))? {
            let _ = self.tls.set(Box::new(info));
        }
        Poll::Ready(Ok(()))
    }

    pub(crate) fn tls(&self) -> Option<&TlsInfo> {
        self.tls.get()
    }
}

impl State {
    /// Nothing of the session is to be relied on any more: what it does next may be anything.
    pub(crate) fn abandon_session(&mut self) {
        self.broken = true;
        if let Some(stream) = &mut self.stream {
            stream.discard_output();
        }
    }
}
