//! Serving in messages: a connection service made of a codec and of a service of its messages.

use std::fmt;
use std::future::Future;

use bytes::{Bytes, BytesMut};
use tokio::task::coop::consume_budget;
use tokio_util::codec::{Decoder, Encoder};

use crate::{Caller, Close, CloseReason, ConnectionService, Drain, Error, ErrorKind, Result};

mod received;
mod replies;
mod spare;

use received::Received;
use replies::Replies;

/// Serves one connection in messages of its own types. Only [`on_message`](Self::on_message) is
/// required.
///
/// [`Messages`] makes a [`ConnectionService`] of it and a codec. The callbacks are those of the
/// connection service, with messages in the place of bytes, and keep what it promises: they come in
/// order, never overlap, and are not cancelled by the end of the connection.
///
/// A closure `FnMut(M) -> Future` is a message service itself.
pub trait MessageService<M>: Send + 'static {
    /// What is sent back; the codec has to be an `Encoder` of it.
    type Reply: Send;

    /// Runs for each message; the reply returned is sent back, in order.
    ///
    /// While this runs no other message is delivered. A message may share its memory with others
    /// that came with it, as the codec makes it: copy what you keep for long.
    ///
    /// The replies to the messages of one chunk leave together, behind the last of these. What is
    /// written through `caller` leaves at once, and so before them.
    ///
    /// # Errors
    ///
    /// An error goes to [`on_error`](Self::on_error), which decides whether the connection ends, unless
    /// it only repeats how the connection is ending already. The replies to earlier messages are sent
    /// before; where the connection goes on, so do the messages behind.
    fn on_message(
        &mut self,
        message: M,
        caller: &Caller,
    ) -> impl Future<Output = Result<Option<Self::Reply>>> + Send;

    /// Runs when the peer has sent everything it will send (FIN) and all of its messages have been
    /// delivered; the reply returned is sent, then the connection closes.
    ///
    /// With `allow_half_open` the connection stays, for writing, until the service closes it. It does
    /// not run where the peer's end was an error to the codec.
    ///
    /// # Errors
    ///
    /// As for [`on_message`](Self::on_message).
    fn on_end(
        &mut self,
        caller: &Caller,
    ) -> impl Future<Output = Result<Option<Self::Reply>>> + Send {
        let _ = caller;
        async { Ok(None) }
    }

    /// Runs when a callback has returned an error or its reply could not be encoded, and once when the
    /// transport has failed, or the codec, or too much came without a message.
    ///
    /// `Ok(())` means "handled, go on"; it cannot revive a connection whose transport or codec has
    /// failed.
    ///
    /// # Errors
    ///
    /// An error ends the connection with reason `service_error`: what is queued is sent, then FIN.
    /// The default returns the error it was given.
    fn on_error(
        &mut self,
        error: Error,
        caller: &Caller,
    ) -> impl Future<Output = Result<()>> + Send {
        let _ = caller;
        async { Err(error) }
    }

    /// Runs once when a graceful stop of the listener has begun and no other callback runs; see
    /// [`ConnectionService::on_drain`].
    ///
    /// The default is [`Drain::CloseWhenIdle`], also in the middle of a message.
    fn on_drain(&mut self, caller: &Caller) -> impl Future<Output = Drain> + Send {
        let _ = caller;
        async { Drain::CloseWhenIdle }
    }

    /// Runs last, exactly once, whatever ended the connection; see [`ConnectionService::on_close`].
    fn on_close(&mut self, close: &Close) -> impl Future<Output = ()> + Send {
        let _ = close;
        async {}
    }
}

/// A closure that takes a message and returns the reply is a message service.
impl<F, M, Fut, R> MessageService<M> for F
where
    F: FnMut(M) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Option<R>>> + Send,
    R: Send,
{
    type Reply = R;

    fn on_message(
        &mut self,
        message: M,
        _: &Caller,
    ) -> impl Future<Output = Result<Option<R>>> + Send {
        self(message)
    }
}

/// A [`ConnectionService`] made of a codec and a [`MessageService`].
///
/// It is for listeners without a [`Framing`](crate::Framing), which makes frames already. The codec is any
/// `Decoder` and `Encoder` of tokio-util's (0.7), one value for each connection; add
/// `tokio-util` with its feature `codec` to your own manifest.
///
/// ```
/// use futures_util::{SinkExt, StreamExt};
/// use onbytes::{Client, ClientConfiguration, Listener, ListenerConfiguration, Messages, service_fn};
/// use tokio_util::codec::{Framed, LinesCodec};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let shout = service_fn(|_caller| async {
///     let lines = LinesCodec::new_with_max_length(1024);
///     Ok(Messages::new(lines, |line: String| async move { Ok(Some(line.to_uppercase())) }))
/// });
/// let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new())?;
/// listener.attach(shout);
/// listener.start().await?;
///
/// // A client is `AsyncRead` and `AsyncWrite`, which is all that tokio-util's `Framed` asks for.
/// let port = listener.local_addr().expect("it listens").port();
/// let client = Client::connect("127.0.0.1", port, ClientConfiguration::new()).await?;
/// let mut lines = Framed::new(client, LinesCodec::new());
/// lines.send("hello").await?;
/// assert_eq!(lines.next().await.expect("a line")?, "HELLO");
/// # Ok(())
/// # }
/// ```
///
/// # Replies
///
/// The replies to the messages of one chunk leave together, in one write. When more than 64 KiB of
/// them have gathered they are sent before the next message is delivered, and the messages behind
/// wait while the peer does not read: a flood of requests gathers no flood of replies. Nothing is
/// lost of them when a later message fails or panics.
///
/// # Errors
///
/// Each error is told to [`MessageService::on_error`] once.
///
/// * One that a callback returned, and a reply that cannot be encoded (nothing of it is sent): as
///   `on_error` decides, the connection ends or goes on with the next message.
/// * One of the decoder: the connection ends, whatever `on_error` says, because nobody knows any more
///   where the next message begins. A codec that does know makes what it cannot read an item
///   (`type Item = Result<…>`).
/// * Too much without a message ([`max_undecoded_bytes`](Self::max_undecoded_bytes)): the same.
///
/// Their kind is [`ErrorKind::Service`], with the codec's own error as the cause; a codec whose error
/// is [`Error`] has it passed on as it is.
///
/// # Ends
///
/// Once the connection is ending (by [`Caller::close`], say) no further message is delivered; replies
/// that have gathered are still sent where the end is orderly. At the peer's FIN the codec is asked
/// for what is left (`decode_eof`), and takes it for messages, for nothing, or for an error.
pub struct Messages<C, S> {
    codec: C,
    service: S,
    received: Received,
    max_undecoded_bytes: usize,
}

impl<C, S> Messages<C, S> {
    /// Serves one connection with `service`, in messages as `codec` makes them.
    pub fn new(codec: C, service: S) -> Self {
        Self { codec, service, received: Received::default(), max_undecoded_bytes: 1024 * 1024 }
    }

    /// Bytes that may wait for the rest of their message. Default 1 MiB.
    ///
    /// More than that without a message is an error that ends the connection. It bounds what a peer
    /// can make the connection keep, not the messages: one that arrives as a whole may be larger, by
    /// up to a chunk (256 KiB). What the codec itself keeps or reserves is not counted. For an exact
    /// limit see the codec, such as `LinesCodec::new_with_max_length`.
    #[must_use]
    pub fn max_undecoded_bytes(mut self, bytes: usize) -> Self {
        self.max_undecoded_bytes = bytes;
        self
    }
}

impl<C, S> fmt::Debug for Messages<C, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

impl<C, S> ConnectionService for Messages<C, S>
where
    C: Decoder<Item: Send, Error: Into<Cause>> + Send + 'static,
    C: Encoder<S::Reply, Error: Into<Cause>>,
    S: MessageService<<C as Decoder>::Item>,
{
    fn on_bytes(
        &mut self,
        data: Bytes,
        caller: &Caller,
    ) -> impl Future<Output = Result<Option<Bytes>>> + Send {
        // Copied, and let go, before anything is waited for.
        self.received.take_in(&data);
        drop(data);
        async move {
            let mut replies = Replies::to(caller);
            self.deliver(C::decode, &mut replies).await;
            if self.received.len() > self.max_undecoded_bytes {
                let error = too_much(self.max_undecoded_bytes);
                Box::pin(self.give_up(error, &mut replies)).await;
            }
            self.received.keep_rest();
            Ok(replies.into_returned())
        }
    }

    async fn on_end(&mut self, caller: &Caller) -> Result<Option<Bytes>> {
        let mut replies = Replies::to(caller);
        self.deliver(C::decode_eof, &mut replies).await;
        self.received.discard();
        if !is_ending(caller) {
            let outcome = self.service.on_end(caller).await;
            if let Err(error) = self.gather(outcome, &mut replies) {
                Box::pin(self.raise(error, &mut replies)).await;
            }
        }
        Ok(replies.into_returned())
    }

    /// Of a transport that has failed: errors of messages have been told where they came up.
    async fn on_error(&mut self, error: Error, caller: &Caller) -> Result<()> {
        self.service.on_error(error, caller).await
    }

    async fn on_drain(&mut self, caller: &Caller) -> Drain {
        self.service.on_drain(caller).await
    }

    async fn on_close(&mut self, close: &Close) {
        self.service.on_close(close).await;
    }
}

impl<C, S> Messages<C, S>
where
    C: Decoder<Item: Send, Error: Into<Cause>> + Send + 'static,
    C: Encoder<S::Reply, Error: Into<Cause>>,
    S: MessageService<<C as Decoder>::Item>,
{
    /// Delivers the messages that `decode` finds, one after another, until there are no more or the
    /// connection is ending.
    async fn deliver<D>(&mut self, decode: D, replies: &mut Replies<'_>)
    where
        D: Fn(&mut C, &mut BytesMut) -> Result<Option<C::Item>, <C as Decoder>::Error> + Send,
    {
        let caller = replies.caller();
        // A peer that is just gone is another matter: what it has sent is delivered all the same, as
        // later chunks will be, and the codec must not miss a part.
        while !is_ending(caller) {
            if replies.are_many() {
                // Boxed, as all that is rare: a long-lived connection does not keep room for it.
                Box::pin(replies.send()).await;
                continue;
            }
            // A chunk may hold very many messages: others get their turn meanwhile.
            consume_budget().await;
            let message = match self.decode(&decode) {
                Ok(Some(message)) => message,
                Ok(None) => return,
                Err(error) => {
                    Box::pin(self.give_up(error, replies)).await;
                    continue;
                }
            };
            self.received.let_go_if_empty();
            let outcome = self.service.on_message(message, caller).await;
            if let Err(error) = self.gather(outcome, replies) {
                Box::pin(self.raise(error, replies)).await;
            }
        }
        self.received.discard();
    }

    fn decode<D>(&mut self, decode: &D) -> Result<Option<C::Item>>
    where
        D: Fn(&mut C, &mut BytesMut) -> Result<Option<C::Item>, <C as Decoder>::Error>,
    {
        let decoded = decode(&mut self.codec, self.received.bytes());
        decoded.map_err(|error| failure("decoding a message failed", error))
    }

    /// Adds what a callback returned to the replies.
    fn gather(
        &mut self,
        outcome: Result<Option<S::Reply>>,
        replies: &mut Replies<'_>,
    ) -> Result<()> {
        let Some(reply) = outcome? else { return Ok(()) };
        let encoded = replies.add(|buffer| self.codec.encode(reply, buffer));
        encoded.map_err(|error| failure("encoding a reply failed", error))
    }

    /// Gives an error to `on_error`, behind the replies to earlier messages; it decides whether the
    /// connection goes on.
    ///
    /// The connection is ended here, rather than by returning the error to the connection's task: that
    /// would tell it to `on_error` a second time, and without the messages behind it.
    async fn raise(&mut self, error: Error, replies: &mut Replies<'_>) {
        replies.send().await;
        let caller = replies.caller();
        if caller.link().lock().explains(&error) {
            return;
        }
        if let Err(error) = self.service.on_error(error, caller).await {
            caller.link().end(CloseReason::ServiceError, Some(error));
        }
    }

    /// Does the same with an error after which no message can be told from another: the connection
    /// ends whatever `on_error` says.
    async fn give_up(&mut self, error: Error, replies: &mut Replies<'_>) {
        self.raise(error.clone(), replies).await;
        replies.caller().link().end(CloseReason::ServiceError, Some(error));
    }
}

/// Whether nothing more is delivered.
fn is_ending(caller: &Caller) -> bool {
    caller.link().lock().ending().is_some()
}

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// The error of a codec that could not do `step`.
fn failure(step: &'static str, cause: impl Into<Cause>) -> Error {
    match cause.into().downcast::<Error>() {
        Ok(error) => *error,
        Err(cause) => Error::caused(ErrorKind::Service, step, cause),
    }
}

fn too_much(most: usize) -> Error {
    Error::new(format!(
        "more than {most} bytes came without a whole message; \
         Messages::max_undecoded_bytes sets how many may"
    ))
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};

    use tokio_util::codec::LengthDelimitedCodec;

    use super::*;
    use crate::ledger::Ledger;
    use crate::link::Link;
    use crate::simulation;

    /// The outcome of a callback that has nothing to wait for.
    fn now<T>(callback: impl Future<Output = T>) -> T {
        match pin!(callback).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => outcome,
            Poll::Pending => panic!("it waits"),
        }
    }

    fn caller() -> Caller {
        let (socket, _) = simulation::connection(usize::MAX / 2);
        let ledger = Arc::new(Ledger::new(64 * 1024));
        let address = "127.0.0.1:1".parse().unwrap();
        Caller::new(Arc::new(Link::new(1, address, address, socket, ledger)))
    }

    #[test]
    fn a_connection_at_rest_holds_no_buffer_and_one_amid_a_message_what_it_has_of_it() {
        let caller = caller();
        let codec = LengthDelimitedCodec::new();
        let mut messages =
            Messages::new(codec, |frame: BytesMut| async { Ok(Some(frame.freeze())) });
        let reply = now(messages.on_bytes(b"\0\0\0\x03abc"[..].into(), &caller));
        assert_eq!(reply.unwrap().unwrap(), &b"\0\0\0\x03abc"[..]);
        assert_eq!(messages.received.capacity(), 0);

        // The codec reserves a mebibyte for the second.
        let reply = now(messages.on_bytes(b"\0\0\0\x01a\0\x10\0\0begin"[..].into(), &caller));
        assert_eq!(reply.unwrap().unwrap(), &b"\0\0\0\x01a"[..]);
        assert_eq!(messages.received.capacity(), 5);
    }

    #[test]
    fn a_message_that_is_served_holds_no_buffer_unless_others_are_behind_it() {
        let caller = caller();
        let codec = LengthDelimitedCodec::new();
        let mut messages =
            Messages::new(codec, |_: BytesMut| std::future::pending::<Result<Option<Bytes>>>());
        for (data, holds) in [(&b"\0\0\0\x01a"[..], false), (b"\0\0\0\x01a\0", true)] {
            {
                let mut serving = pin!(messages.on_bytes(data.into(), &caller));
                let poll = serving.as_mut().poll(&mut Context::from_waker(Waker::noop()));
                assert!(poll.is_pending());
            }
            assert_eq!(messages.received.capacity() > 0, holds);
        }
    }
}
