//! TLS below the life of a connection: rustls, driven as bytes in and bytes out.
//!
//! `server` and `client` make sessions out of records; `session` is one connection's; `choice` is
//! which certificate, suites and versions; `hello` is a client's first message; `trust` is whether a peer's certificate is accepted, with
//! `signature` for its key; `resumption` is sessions that are resumed; `material` reads files;
//! `failure` has the words for what goes wrong. rustls is named here and nowhere else.

mod certificate;
mod choice;
mod client;
mod failure;
mod hello;
mod info;
mod key_log;
mod material;
mod provider;
mod resumption;
mod server;
mod session;
mod signature;
mod trust;

pub use certificate::{Certificate, Fingerprint, SubjectAltName};
pub(crate) use choice::check_spoken;
pub(crate) use client::{Connector, Prepared, server_name};
pub use info::TlsInfo;
#[cfg(fuzzing)]
pub(crate) use material::parse_any;
#[cfg(test)]
pub(crate) use provider::provider;
pub(crate) use server::Acceptor;
pub(crate) use session::{AtHand, Session};
