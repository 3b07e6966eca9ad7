//! onbytes
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(not(unix))]
compile_error!("onbytes needs a Unix: it works on descriptors and their readiness");

mod accept;
mod bind;
mod buffer;
mod caller;
mod client;
mod close;
mod config;
mod connection;
mod endpoint;
mod error;
mod event;
mod link;
mod listener;
mod outbox;
#[cfg(feature = "serde")]
mod record;
mod run;
mod service;
#[cfg(test)]
mod simulation;
mod socket;
mod stop;
mod stream;
mod timer;

pub use bytes::Bytes;
pub use caller::{Caller, Closed, ConnectionId, WriteBytes};
pub use client::{Client, ClientReader, ClientWriter};
pub use close::{Close, CloseReason, ConnectionStats};
pub use config::{
    ClientConfiguration, KeepAlive, Limits, ListenerConfiguration, SocketOptions, Timeouts,
    WhenFull,
};
pub use endpoint::Endpoint;
pub use error::{Error, ErrorKind, Result};
pub use event::Event;
pub use listener::{Listener, ServiceToken};
pub use run::ListenerStats;
pub use service::{BoxConnectionService, ConnectionService, Drain, Service, ServiceFn, service_fn};
pub use stop::StopReport;
