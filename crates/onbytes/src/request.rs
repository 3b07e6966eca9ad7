//! A client for request and reply: each request gets its own reply, or an error, and never another's.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot, watch};

use crate::endpoint::Target;
use crate::framing::Compiled;
use crate::{Client, Endpoint, Error, ErrorKind, Result};

mod config;
mod engine;
mod slots;

pub use config::{Backoff, Heartbeat, Keys, Matching, RequestConfiguration};
use engine::{Engine, Order};

/// A connection on which requests are answered, made anew where it is lost.
///
/// Each [`request`](Self::request) is one frame, and gets the frame that answers it. Which one that is says
/// [`Matching`]: one request at a time, many in their order, or by a key that request and reply have in
/// common. A `RequestClient` is a handle: clones use the same connection, from any task. Dropping the last
/// one closes it.
///
/// ```
/// use onbytes::{
///     Bytes, ClientConfiguration, Framing, Listener, ListenerConfiguration, RequestClient,
///     RequestConfiguration, service_fn,
/// };
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> onbytes::Result<()> {
/// let listener =
///     Listener::new(("127.0.0.1", 0), ListenerConfiguration::new().framing(Framing::lines()))?;
/// listener.attach(service_fn(|_caller| async {
///     Ok(|line: Bytes| async move { Ok(Some(Bytes::from(line.to_ascii_uppercase()))) })
/// }));
/// listener.start().await?;
/// let address = listener.local_addr().expect("it listens");
///
/// let client = ClientConfiguration::new().framing(Framing::lines());
/// let client = RequestClient::connect(address, RequestConfiguration::new(client)).await?;
/// assert_eq!(client.request("one").await?, "ONE");
/// let (two, three) = tokio::join!(client.request("two"), client.request("three"));
/// assert_eq!((two?, three?), ("TWO".into(), "THREE".into()));
/// client.close().await;
/// # Ok(())
/// # }
/// ```
///
/// # What is promised
///
/// * A reply is never given to another request. Where one is not answered in time, and replies come in the
///   order of the requests, nobody can tell any more whose reply the next one is: then the connection is
///   given up, what else is in flight fails, and a new one is made.
/// * A request is sent once at most. One that is in flight when the connection is lost fails; one that was
///   not sent yet waits for the next connection, as long as its time allows.
/// * Whatever waits has a time limit, and there is a bound on how many wait.
#[derive(Clone)]
pub struct RequestClient {
    shared: Arc<Shared>,
}

/// What all handles share. When it goes, the task that serves them closes the connection.
struct Shared {
    config: RequestConfiguration,
    compiled: Arc<Compiled>,
    orders: mpsc::Sender<Order>,
    /// Asks for an orderly end.
    closing: watch::Sender<bool>,
    status: watch::Receiver<Status>,
}

/// How the connection does.
#[derive(Debug, Clone)]
enum Status {
    Connected,
    /// There is none at the moment, and what was said when it was tried last.
    Connecting(Option<Error>),
    /// There will be none any more.
    Over(Option<Error>),
}

impl RequestClient {
    /// Makes a client that connects to `endpoint` in the background, as often as it takes.
    ///
    /// # Errors
    ///
    /// `Configuration` for a value that cannot be, such as an endpoint without a host; `State` without a
    /// Tokio runtime.
    pub fn new(endpoint: impl Into<Endpoint>, config: RequestConfiguration) -> Result<Self> {
        Self::start(endpoint.into(), config, None)
    }

    /// Makes a client and waits for its first connection.
    ///
    /// # Errors
    ///
    /// `Configuration` for a value that cannot be; as [`Client::connect`] where the first connection cannot
    /// be made: later ones are tried again and again.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, there is no client.
    pub async fn connect(
        endpoint: impl Into<Endpoint>,
        config: RequestConfiguration,
    ) -> Result<Self> {
        let endpoint = endpoint.into();
        config.check()?;
        let client = Client::connect_to(endpoint.clone(), config.of_connection()).await?;
        Self::start(endpoint, config, Some(client))
    }

    fn start(
        endpoint: Endpoint,
        config: RequestConfiguration,
        client: Option<Client>,
    ) -> Result<Self> {
        config.check()?;
        check_target(&endpoint)?;
        let Some(framing) = &config.client.framing else { return Err(config::without_framing()) };
        let compiled = Compiled::new(framing)?;
        let runtime = Handle::try_current()
            .map_err(|_| Error::of(ErrorKind::State, "a client needs a Tokio runtime"))?;
        let (orders, taken) = mpsc::channel(config.max_waiting);
        let (closing, hears_closing) = watch::channel(false);
        let first = if client.is_some() { Status::Connected } else { Status::Connecting(None) };
        let (tells_status, status) = watch::channel(first);
        let engine = Engine::new(endpoint, config.clone(), taken, hears_closing, tells_status);
        runtime.spawn(engine.run(client));
        let shared = Shared { config, compiled, orders, closing, status };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Sends `frame` and waits for its reply.
    ///
    /// The time limit, `timeout` (30 s), counts from the first poll: waiting for a connection or for its
    /// turn takes part of it.
    ///
    /// # Errors
    ///
    /// `Timeout` where no reply came in time; where there was no connection meanwhile its source tells why.
    /// `Closed` where the connection was lost, or had to be given up, before the reply came, and after the
    /// end of the client; its source tells why. `Frame` where `frame` cannot be sent as one frame. `Full` where
    /// `max_waiting` requests wait already. `State` where it has no key, or one that another request has
    /// that may still be answered.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, a request that was not sent yet is never sent; the reply of one that was
    /// is dropped when it comes.
    pub async fn request(&self, frame: impl Into<Bytes>) -> Result<Bytes> {
        let Shared { config, compiled, orders, .. } = &*self.shared;
        let frame = frame.into();
        compiled.check_message(&frame)?;
        let key = config.matching.key_of_request(&frame)?;
        let (answer, reply) = oneshot::channel();
        let deadline = config.deadline();
        orders.try_send(Order { frame, key, deadline, answer }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => {
                let message =
                    format!("as many requests wait as max_waiting, {}", config.max_waiting);
                Error::of(ErrorKind::Full, message)
            }
            mpsc::error::TrySendError::Closed(_) => self.over(),
        })?;
        match tokio::time::timeout_at(deadline, reply).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(self.over()),
            Err(_) => Err(self.timed_out()),
        }
    }

    /// Is there a connection at the moment?
    pub fn is_connected(&self) -> bool {
        // What the client's task said last holds only while there is one.
        let has_task = self.shared.status.has_changed().is_ok();
        has_task && matches!(*self.shared.status.borrow(), Status::Connected)
    }

    /// Ends the client, for all of its handles: requests that were not sent yet fail with `Closed`, those in
    /// flight are waited for until their time is over; then the connection is closed in order.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the end goes on.
    pub async fn close(&self) {
        self.shared.closing.send_replace(true);
        let mut status = self.shared.status.clone();
        // It fails when the task has ended otherwise, which is an end as well.
        let _ = status.wait_for(|status| matches!(status, Status::Over(_))).await;
    }

    fn over(&self) -> Error {
        match &*self.shared.status.borrow() {
            Status::Over(Some(error)) if error.kind() == ErrorKind::Connect => error.clone(),
            Status::Over(Some(error)) => {
                Error::caused(ErrorKind::Closed, "the connection was lost", error.clone())
            }
            _ => Error::closed(),
        }
    }

    fn timed_out(&self) -> Error {
        let limit = self.shared.config.timeout;
        match &*self.shared.status.borrow() {
            Status::Connecting(Some(error)) => {
                let message = format!("no connection within {limit:?}");
                Error::caused(ErrorKind::Timeout, message, error.clone())
            }
            Status::Connecting(None) => {
                Error::of(ErrorKind::Timeout, format!("no connection within {limit:?}"))
            }
            _ => unanswered(limit),
        }
    }
}

fn check_target(endpoint: &Endpoint) -> Result<()> {
    if endpoint.target() == Target::Any {
        return Err(Error::configuration(format!("{endpoint}: give a host to connect to, too")));
    }
    if endpoint.port() == 0 {
        return Err(Error::configuration("port 0 cannot be connected to; give 1 to 65535"));
    }
    Ok(())
}

fn unanswered(limit: std::time::Duration) -> Error {
    Error::of(ErrorKind::Timeout, format!("no reply came within {limit:?}"))
}

impl fmt::Debug for RequestClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestClient").field("status", &*self.shared.status.borrow()).finish()
    }
}
