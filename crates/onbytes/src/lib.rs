//! An event-driven TCP connector: you write the callbacks, onbytes does the rest.
//!
//! A [`Listener`] accepts connections. A [`Service`] is asked once for each connection who will serve
//! it. A [`ConnectionService`] then receives that connection's bytes, errors and end, and speaks to
//! the peer through its [`Caller`]. A [`Client`] makes connections. What lies between (the accept
//! loop, back-pressure, half-close, time limits, draining, counting) is done once, here.
//!
//! # A service
//!
//! ```
//! use std::time::Duration;
//! use onbytes::{
//!     Bytes, Caller, Client, ClientConfiguration, Close, CloseReason, ConnectionService, Listener,
//!     ListenerConfiguration, Result, Service,
//! };
//!
//! /// Counts the bytes of each connection; one value for all connections.
//! struct Count;
//!
//! /// The state of one connection.
//! struct Counter {
//!     total: usize,
//! }
//!
//! impl Service for Count {
//!     type Connection = Counter;
//!
//!     async fn on_connect(&self, caller: &Caller) -> Result<Counter> {
//!         caller.write_bytes(format!("hello {}\n", caller.remote_host())).await?;
//!         Ok(Counter { total: 0 })
//!     }
//! }
//!
//! impl ConnectionService for Counter {
//!     async fn on_bytes(&mut self, data: Bytes, _: &Caller) -> Result<Option<Bytes>> {
//!         self.total += data.len(); // chunk borders mean nothing: TCP has no messages
//!         Ok(None)
//!     }
//!
//!     async fn on_end(&mut self, _: &Caller) -> Result<Option<Bytes>> {
//!         Ok(Some(format!("{} bytes\n", self.total).into()))
//!     }
//!
//!     async fn on_close(&mut self, close: &Close) {
//!         assert_eq!(close.reason, CloseReason::PeerClosed);
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<()> {
//! let listener = Listener::new(("127.0.0.1", 0), ListenerConfiguration::new())?;
//! listener.attach(Count);
//! listener.start().await?;
//! let port = listener.local_addr().expect("it listens").port();
//!
//! let mut client = Client::connect("127.0.0.1", port, ClientConfiguration::new()).await?;
//! client.write_bytes("twelve bytes").await?;
//! client.finish().await?; // our end; we go on reading
//! let mut answer = Vec::new();
//! while let Some(data) = client.read_bytes().await? {
//!     answer.extend_from_slice(&data);
//! }
//! assert_eq!(answer, b"hello 127.0.0.1\n12 bytes\n");
//!
//! listener.graceful_stop(Duration::from_secs(10)).await;
//! # Ok(())
//! # }
//! ```
//!
//! The short way, for a program that only serves, is `Listener::new(3000, config)?.serve(Count)`:
//! attach, start, run until SIGINT or SIGTERM, stop gracefully. Closures are services too, see
//! [`service_fn`].
//!
//! # The life of a connection
//!
//! ```text
//! accept ─► [ TLS handshake ] ─► on_connect ─► ( on_bytes )* ─► [ on_end ] ─► [ on_error ] ─► flush, FIN ─► on_close
//!                                    │                 │              │                            or reset
//!                                    └ Err: rejected   └──────────────┴ Err ─► on_error ─► Ok: go on
//!                                                                                        ─► Err: service_error
//! ```
//!
//! * Callbacks of one connection come in order and never overlap. Different connections share
//!   nothing but the `Service` that made their connection services.
//! * While a callback runs nothing more is read from that peer. That is the back-pressure: a peer
//!   that sends faster than it is served is slowed down by TCP itself.
//! * A panic in a callback ends that connection only.
//! * [`on_close`](ConnectionService::on_close) runs last, exactly once for each `on_connect` that
//!   returned a service, whatever ended the connection, and is told why.
//!
//! # How connections end
//!
//! Every end is one [`CloseReason`]; the first cause wins.
//!
//! | reasons | what happens |
//! |---|---|
//! | `peer_closed`, `local_close`, `idle_timeout`, `too_slow`, `max_lifetime`, `service_error`, `panicked`, `drained` | orderly: what is queued is sent (bounded by the write timeout), close_notify where it is TLS, FIN |
//! | `truncated` | a TLS peer's FIN without close_notify: `on_error` once, then orderly |
//! | `frame_too_long`, `frame_malformed`, `frame_timeout`, `partial_frame` | with a framing: `on_error` once, which may still write, then orderly |
//! | `peer_reset`, `io_error`, `tls_error`, `write_timeout` | `on_error` once, nothing more is sent, reset |
//! | `local_abort`, `limit` (a bound of the whole listener), `stop_forced` (deadline), `stopped` (immediate stop) | no `on_error`, nothing more is sent, reset |
//! | `rejected` | `on_connect` failed: what is queued is sent, FIN; no callback; logged and counted |
//! | `handshake_failed`, `handshake_timeout` | before `on_connect`: no callback; logged and counted |
//!
//! When a peer takes nothing of what an orderly end has to send for the write timeout, the
//! connection is reset; the reason stays, and [`ConnectionStats::bytes_unsent`] tells how much was
//! lost. After our FIN what the peer still sends is discarded until its own FIN, for at most 2 s and
//! 1 MiB: closing a socket over unread input would make the kernel reset the connection, and
//! destroy replies on their way.
//!
//! # Writing
//!
//! A reply returned by a callback, [`Caller::write_bytes`] and [`Caller::try_write_bytes`] share one
//! queue for each connection. Messages go out whole and in order; any task may write, also while a
//! callback of the same connection runs.
//!
//! * `write_bytes`: `Ok` means that the kernel has taken every byte. If the peer does not read, it
//!   waits; the queue has room for `limits.max_queued_bytes` (64 KiB), and a writer beyond it waits for room.
//! * `try_write_bytes` never waits: the message is accepted, or the queue is `Full`.
//! * No byte taken by the kernel for `timeouts.write` (30 s) while some are queued ends the
//!   connection with `write_timeout`. While more than `limits.max_queued_bytes` are queued, nothing is read from the
//!   peer.
//!
//! # Framing
//!
//! Chunk borders mean nothing. One field more makes messages of them: `framing`, for lines, delimiters,
//! blocks, lengths and the protocols that are made of these. Then a call of `on_bytes` is one frame, and what
//! it returns is sent as one. A [`RequestClient`] gives each request its own reply. The [page on framing](_guide::framing) leads from a protocol to its setting.
//!
//! # Bounds
//!
//! Whatever a stranger can make grow has a bound, and whatever waits has a time limit: connections, in all
//! and from each source; queued bytes, of one peer and of all; memory; silence and slowness. The
//! [page of bounds](_guide::bounds) has them all, with defaults, units and what happens at each. Most can be
//! changed while the listener runs ([`Listener::set_limits`], [`Listener::set_timeouts`]), accepting can be
//! [suspended](Listener::suspend), and live connections [listed](Listener::connections) and ended one by one.
//!
//! # Threads
//!
//! Connections run on the runtime that the listener was started on, or, with one field more (`workers`), on
//! threads of the listener's own, each with a single-threaded runtime: see [`Workers`] for when to use which.
//!
//! # TLS
//!
//! One field secures a listener or a client: `secure_socket`. The [TLS page](_guide::tls) has the rest:
//! keys and stores, whom to trust, client certificates in three commands, sessions, reloading while
//! connections live on, and what differs from the connector.
//!
//! # Stopping
//!
//! [`Listener::graceful_stop`] releases the port at once. A callback that is running finishes; then
//! each service hears [`on_drain`](ConnectionService::on_drain) once:
//! [`Drain::CloseWhenIdle`] (the default) delivers what has already arrived, sends what is queued,
//! and closes; [`Drain::Stay`] goes on until the service closes the connection. At the deadline the
//! rest is reset, and running callbacks are dropped at their next await point. The [`StopReport`]
//! counts what ended cleanly, what was forced, and what was abandoned because a callback never
//! yields. [`Listener::immediate_stop`] resets everything, also in the middle of a graceful stop.
//! Dropping the last `Listener` handle is an immediate stop. The [page of stops](_guide::stops) says what
//! a peer in each state sees.
//!
//! # Cancel safety
//!
//! Every future of this crate may be dropped at any time. A dropped write sends its message whole
//! (once it is in the queue) or not at all (while it waits for room). A dropped read loses nothing.
//! A dropped stop goes on. A callback is never dropped by the end of its own connection, only by a
//! stop that does not wait for it.
//!
//! # Coming from the connector
//!
//! | `ballerina/tcp` | onbytes |
//! |---|---|
//! | `listener tcp:Listener l = new (3000)` | [`Listener::new(3000, config)`](Listener::new) |
//! | `tcp:Service`, `onConnect` | [`Service`], [`on_connect`](Service::on_connect): one for all connections, `&self` |
//! | `tcp:ConnectionService`, `onBytes`, `onError`, `onClose` | [`ConnectionService`], `on_bytes`, `on_error`, `on_close`, and besides `on_end`, `on_drain`: one for each connection, `&mut self` |
//! | `tcp:Caller`, `remoteHost`, `remotePort`, `localHost`, `localPort`, `id` | [`Caller`], `remote_host()`, `remote_port()`, `local_host()`, `local_port()`, `id()` |
//! | `caller->writeBytes(data)`, `caller->close()` | [`caller.write_bytes(data).await`](Caller::write_bytes), [`caller.close()`](Caller::close) |
//! | `tcp:Client`, `writeBytes`, `readBytes`, `close` | [`Client`], `write_bytes`, `read_bytes`, `close` |
//! | `tcp:Error` | [`Error`] with [`kind()`](Error::kind) |
//! | `ListenerConfiguration`, `ClientConfiguration`, `ListenerSecureSocket`, `ClientSecureSocket`, `CertKey`, `crypto:KeyStore`, `crypto:TrustStore` | the same names; fields in snake case here, in camelCase in files |
//!
//! What differs on purpose: each connection has its own connection service (the connector's listener
//! keeps one for all), `on_error` decides whether a connection goes on, and every time limit can be
//! set apart.
//!
//! # Logs and metrics
//!
//! Every event is given to [`tracing`](https://docs.rs/tracing) with target `onbytes`, under one name
//! and with one set of fields, and to the hook of [`Listener::on_event`]: see [`Event`].
//! [`Listener::stats`] counts.
//!
//! # Features
//!
//! * `serde` (on by default): the configuration records can be read from and written to files.
//! * `tls` (on by default): TLS by rustls, with aws-lc-rs, which needs a C compiler.
//! * `tls-ring`: TLS with ring in the place of aws-lc-rs; for use without the default features.
//! * `codec`: `Messages` and `MessageService`, by which a service gets and returns messages of its own
//!   types, made by any codec of tokio-util's.
//!
//! # What it is not
//!
//! It does not speak UDP, and it runs on Unix only, on Tokio.

#[cfg(not(unix))]
compile_error!("onbytes needs a Unix: it works on descriptors and their readiness");

mod accept;
mod admission;
mod bind;
mod buffer;
mod caller;
mod client;
mod close;
mod config;
mod connection;
mod crew;
mod endpoint;
mod error;
mod event;
mod framing;
mod ledger;
mod link;
mod listener;
mod memory;
#[cfg(feature = "codec")]
mod messages;
mod outbox;
mod prefix;
#[cfg(feature = "serde")]
mod record;
mod request;
mod run;
#[cfg(feature = "_tls")]
mod secure;
mod service;
#[cfg(test)]
mod simulation;
mod socket;
mod sources;
mod stop;
mod stream;
mod timer;
#[cfg(feature = "_tls")]
mod tls;

pub use admission::Refusal;
pub use bytes::Bytes;
pub use caller::{Caller, Closed, ConnectionId, WriteBytes};
pub use client::{Client, ClientReader, ClientWriter};
pub use close::{Close, CloseReason, ConnectionStats};
pub use config::{
    ClientConfiguration, KeepAlive, Limits, ListenerConfiguration, MinArrival, PerSource,
    SocketOptions, Timeouts, WhenFull, Workers,
};
pub use endpoint::Endpoint;
pub use error::{Error, ErrorKind, Result};
pub use event::Event;
pub use framing::{
    Blocks, Delimiter, Escape, Frame, FrameDecoder, FrameForm, FrameMark, Framing, LengthField,
    LengthPrefix, LineEnding, Lines, Malformed, OctetCounting, Outside, Oversize, PartialFrame,
};
pub use link::{ConnectionInfo, ConnectionState};
pub use listener::{Listener, ServiceToken};
#[cfg(feature = "codec")]
pub use messages::{MessageService, Messages};
pub use prefix::Prefix;
pub use request::{Backoff, Heartbeat, Keys, Matching, RequestClient, RequestConfiguration};
pub use run::{ListenerStats, Pressure};
#[cfg(feature = "_tls")]
pub use secure::{
    CertKey, CipherSuite, ClientCertificates, ClientSecureSocket, Key, KeyStore,
    ListenerSecureSocket, MutualTls, Password, Protocol, ProtocolName, TlsVersion, Trust,
    TrustStore,
};
pub use service::{BoxConnectionService, ConnectionService, Drain, Service, ServiceFn, service_fn};
pub use stop::StopReport;
#[cfg(feature = "_tls")]
pub use tls::{Certificate, Fingerprint, SubjectAltName, TlsInfo};

/// Gives some bytes to every reader of keys, certificates and stores. Not part of the interface.
#[cfg(all(fuzzing, feature = "_tls"))]
#[doc(hidden)]
pub fn __fuzz_material(data: &[u8]) {
    tls::parse_any(data);
}

/// Longer pages of the documentation.
#[cfg(any(doc, doctest))]
pub mod _guide {
    // For the links of the pages, here and below.
    #[allow(unused_imports)]
    use crate::*;

    #[doc = include_str!("../docs/bounds.md")]
    pub mod bounds {
        #[allow(unused_imports)]
        use crate::*;
    }

    #[doc = include_str!("../docs/framing.md")]
    pub mod framing {
        #[allow(unused_imports)]
        use crate::*;
    }

    #[doc = include_str!("../docs/stops.md")]
    pub mod stops {
        #[allow(unused_imports)]
        use crate::*;
    }

    #[cfg(feature = "_tls")]
    #[doc = include_str!("../docs/tls.md")]
    pub mod tls {
        #[allow(unused_imports)]
        use crate::*;
    }
}

/// The README's examples are compiled with the documentation's.
#[cfg(doctest)]
#[doc = include_str!("../../../README.md")]
struct Readme;
