//! The callbacks: what a user of the crate implements.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

use crate::{Caller, Close, Error, Result};

/// Is asked once for each connection who will serve it; one value for all connections.
///
/// Implement it for a type, with a plain `async fn`, or make one of a closure with [`service_fn`].
pub trait Service: Send + Sync + 'static {
    /// What serves one connection.
    type Connection: ConnectionService;

    /// Runs when a peer has connected; the value returned serves that connection alone.
    ///
    /// No byte is read from the peer before this returns. What is written inside reaches the peer.
    ///
    /// # Errors
    ///
    /// An error refuses the connection: what was written is sent, the socket is closed, no callback
    /// runs, and the log and the counters see a connection `rejected`.
    fn on_connect(&self, caller: &Caller) -> impl Future<Output = Result<Self::Connection>> + Send;
}

/// Serves one connection. Only [`on_bytes`](Self::on_bytes) is required.
///
/// The callbacks of one connection come in order and never overlap, so they may use `&mut self`
/// freely. A callback that has started is never cancelled by the end of its connection: its writes
/// fail with `Closed` and [`Caller::closed`] wakes it. Only an immediate stop of the listener, and
/// the deadline of a graceful one, drop a running callback, at its next await point.
///
/// Callbacks run on the threads of the Tokio runtime, so they must not block: work that does belongs
/// in `tokio::task::spawn_blocking`. A callback that panics ends its own connection only, with
/// reason `panicked`.
pub trait ConnectionService: Send + 'static {
    /// Runs when bytes have arrived; the bytes returned are sent back, in order.
    ///
    /// `data` is a *chunk*: TCP has no messages, so chunk borders mean nothing. With a
    /// [`Framing`](crate::Framing) it is one whole frame, and what is returned is sent as one. While this
    /// runs nothing more is read from the peer. `data` is a slice of a read buffer that many connections
    /// share, and what is kept of it keeps all of that alive: 16 KiB where at most 4 KiB were read, else
    /// 256 KiB. So copy what you keep for long (`Bytes::copy_from_slice`).
    ///
    /// # Errors
    ///
    /// An error goes to [`on_error`](Self::on_error), which decides whether the connection ends, unless
    /// it only repeats how the connection is ending already. The chunk counts as delivered and has no
    /// reply, so an error of the protocol that the peer should hear of, and that others may follow in
    /// the same chunk, is better answered with `Ok(Some(reply))`.
    fn on_bytes(
        &mut self,
        data: Bytes,
        caller: &Caller,
    ) -> impl Future<Output = Result<Option<Bytes>>> + Send;

    /// Runs when the peer has sent everything it will send (FIN) and all of it has been delivered;
    /// the bytes returned are sent, then the connection closes.
    ///
    /// With `allow_half_open` the connection stays, for writing, until the service closes it.
    ///
    /// # Errors
    ///
    /// As for [`on_bytes`](Self::on_bytes).
    fn on_end(&mut self, caller: &Caller) -> impl Future<Output = Result<Option<Bytes>>> + Send {
        let _ = caller;
        async { Ok(None) }
    }

    /// Runs when a callback has returned an error, and once when the transport has failed or what came is
    /// no frame.
    ///
    /// `Ok(())` means "handled, go on"; it cannot revive a connection whose transport has failed, or whose
    /// peer has sent what is no frame. The latter may still be told so: what is written here is sent.
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

    /// Runs once when a graceful stop of the listener has begun and no other callback runs.
    ///
    /// The default is [`Drain::CloseWhenIdle`].
    fn on_drain(&mut self, caller: &Caller) -> impl Future<Output = Drain> + Send {
        let _ = caller;
        async { Drain::CloseWhenIdle }
    }

    /// Runs last, exactly once for each `on_connect` that returned a service, whatever ended the
    /// connection. The socket takes no more writes.
    ///
    /// It has a budget, `timeouts.on_close` (1 s), after which its future is dropped.
    fn on_close(&mut self, close: &Close) -> impl Future<Output = ()> + Send {
        let _ = close;
        async {}
    }
}

/// What a connection service wants when the listener stops gracefully.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Drain {
    /// Deliver what has already arrived, send what is queued, and close.
    #[default]
    CloseWhenIdle,
    /// In the middle of something: go on until the service closes the connection, or the deadline.
    Stay,
}

/// A [`Service`] made of a closure that gets the [`Caller`] and returns the connection service.
///
/// A closure `FnMut(Bytes) -> Future` is a connection service itself, so an echo service is one
/// line:
///
/// ```
/// use onbytes::{Bytes, service_fn};
///
/// let echo = service_fn(|_caller| async { Ok(|data: Bytes| async { Ok(Some(data)) }) });
/// # fn is_service(_: impl onbytes::Service) {}
/// # is_service(echo);
/// ```
pub fn service_fn<F, Fut, C>(on_connect: F) -> ServiceFn<F>
where
    F: Fn(Caller) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<C>> + Send,
    C: ConnectionService,
{
    ServiceFn { on_connect }
}

/// A [`Service`] made of a closure: [`service_fn`].
#[derive(Clone, Copy)]
pub struct ServiceFn<F> {
    on_connect: F,
}

impl<F> fmt::Debug for ServiceFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceFn").finish_non_exhaustive()
    }
}

impl<F, Fut, C> Service for ServiceFn<F>
where
    F: Fn(Caller) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<C>> + Send,
    C: ConnectionService,
{
    type Connection = C;

    fn on_connect(&self, caller: &Caller) -> impl Future<Output = Result<C>> + Send {
        (self.on_connect)(caller.clone())
    }
}

/// A closure that takes a chunk and returns the reply is a connection service.
impl<F, Fut> ConnectionService for F
where
    F: FnMut(Bytes) -> Fut + Send + 'static,
    Fut: Future<Output = Result<Option<Bytes>>> + Send,
{
    fn on_bytes(
        &mut self,
        data: Bytes,
        _: &Caller,
    ) -> impl Future<Output = Result<Option<Bytes>>> + Send {
        self(data)
    }
}

/// A connection service of any kind, for services that return different kinds.
///
/// Each callback costs one allocation more than that of a plain type.
///
/// ```
/// use onbytes::{BoxConnectionService, Bytes, service_fn};
///
/// let service = service_fn(|caller| async move {
///     Ok(if caller.remote_port() % 2 == 0 {
///         BoxConnectionService::new(|data: Bytes| async { Ok(Some(data)) })
///     } else {
///         BoxConnectionService::new(|_: Bytes| async { Ok(None) })
///     })
/// });
/// # fn is_service(_: impl onbytes::Service) {}
/// # is_service(service);
/// ```
pub struct BoxConnectionService(Box<dyn AnyConnectionService>);

impl BoxConnectionService {
    /// Boxes `service`.
    pub fn new(service: impl ConnectionService) -> Self {
        Self(Box::new(service))
    }
}

impl fmt::Debug for BoxConnectionService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxConnectionService").finish_non_exhaustive()
    }
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`ConnectionService`] with boxed futures, so that it can be a trait object.
trait AnyConnectionService: Send + 'static {
    fn bytes<'a>(&'a mut self, data: Bytes, at: &'a Caller) -> Boxed<'a, Result<Option<Bytes>>>;
    fn end<'a>(&'a mut self, at: &'a Caller) -> Boxed<'a, Result<Option<Bytes>>>;
    fn error<'a>(&'a mut self, error: Error, at: &'a Caller) -> Boxed<'a, Result<()>>;
    fn drain<'a>(&'a mut self, at: &'a Caller) -> Boxed<'a, Drain>;
    fn close<'a>(&'a mut self, close: &'a Close) -> Boxed<'a, ()>;
}

impl<C: ConnectionService> AnyConnectionService for C {
    fn bytes<'a>(&'a mut self, data: Bytes, at: &'a Caller) -> Boxed<'a, Result<Option<Bytes>>> {
        Box::pin(self.on_bytes(data, at))
    }

    fn end<'a>(&'a mut self, at: &'a Caller) -> Boxed<'a, Result<Option<Bytes>>> {
        Box::pin(self.on_end(at))
    }

    fn error<'a>(&'a mut self, error: Error, at: &'a Caller) -> Boxed<'a, Result<()>> {
        Box::pin(self.on_error(error, at))
    }

    fn drain<'a>(&'a mut self, at: &'a Caller) -> Boxed<'a, Drain> {
        Box::pin(self.on_drain(at))
    }

    fn close<'a>(&'a mut self, close: &'a Close) -> Boxed<'a, ()> {
        Box::pin(self.on_close(close))
    }
}

impl ConnectionService for BoxConnectionService {
    async fn on_bytes(&mut self, data: Bytes, caller: &Caller) -> Result<Option<Bytes>> {
        self.0.bytes(data, caller).await
    }

    async fn on_end(&mut self, caller: &Caller) -> Result<Option<Bytes>> {
        self.0.end(caller).await
    }

    async fn on_error(&mut self, error: Error, caller: &Caller) -> Result<()> {
        self.0.error(error, caller).await
    }

    async fn on_drain(&mut self, caller: &Caller) -> Drain {
        self.0.drain(caller).await
    }

    async fn on_close(&mut self, close: &Close) {
        self.0.close(close).await;
    }
}
