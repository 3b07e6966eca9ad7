//! How a client connects and waits.

use std::time::Duration;

use super::limits::check_queued_bytes;
use super::{Limits, SocketOptions, check_local_host, not_zero};
use crate::Result;

/// How a [`Client`](crate::Client) connects and waits.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields, rename_all = "camelCase"))]
pub struct ClientConfiguration {
    /// The local host name or address to connect from. Default: the system chooses.
    pub local_host: Option<String>,
    /// The longest wait for bytes in `read_bytes`. Default: 300 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub timeout: Option<Duration>,
    /// Ends the connection when the kernel takes no queued byte for so long. Default: 300 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub write_timeout: Option<Duration>,
    /// The longest wait for the connection, name look-up and all addresses together. Default: 30 s.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::optional_seconds"))]
    pub connect_timeout: Option<Duration>,
    /// Room for bytes that wait to be sent. Above it writers wait; a single larger message enters
    /// when nothing is queued. Default: 65,536 bytes.
    #[cfg_attr(feature = "serde", serde(with = "crate::record::count"))]
    pub max_queued_bytes: usize,
    /// How the connection is secured. Default: it is not (plain TCP).
    #[cfg(feature = "_tls")]
    pub secure_socket: Option<crate::ClientSecureSocket>,
    /// How frames are told apart, so that `read_bytes` returns one frame and `write_bytes` sends one.
    /// Read as `AsyncRead`, such a client gives the content of the frames, and the time limit of a frame does
    /// not hold. Default: they are not.
    pub framing: Option<crate::Framing>,
    /// Options of the socket.
    pub socket: SocketOptions,
}

impl Default for ClientConfiguration {
    fn default() -> Self {
        Self {
            local_host: None,
            timeout: Some(Duration::from_secs(300)),
            write_timeout: Some(Duration::from_secs(300)),
            connect_timeout: Some(Duration::from_secs(30)),
            max_queued_bytes: Limits::QUEUED_BYTES,
            #[cfg(feature = "_tls")]
            secure_socket: None,
            framing: None,
            socket: SocketOptions::default(),
        }
    }
}

impl ClientConfiguration {
    /// The defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Tells whether all values can be; nothing is opened. [`Client::connect`](crate::Client::connect)
    /// does the same.
    ///
    /// # Errors
    ///
    /// `Configuration`, for the first value that cannot be, by name.
    pub fn check(&self) -> Result<()> {
        check_local_host(self.local_host.as_deref())?;
        not_zero("timeout", self.timeout)?;
        not_zero("write_timeout", self.write_timeout)?;
        not_zero("connect_timeout", self.connect_timeout)?;
        check_queued_bytes("max_queued_bytes", self.max_queued_bytes)?;
        #[cfg(feature = "_tls")]
        if let Some(secure) = &self.secure_socket {
            secure.check()?;
        }
        if let Some(framing) = &self.framing {
            framing.check()?;
        }
        self.socket.check()
    }
}

setters! { ClientConfiguration {
    framing: impl Into<Option<crate::Framing>> => framing.into();
    local_host: impl Into<String> => Some(local_host.into());
    timeout: impl Into<Option<Duration>> => timeout.into();
    write_timeout: impl Into<Option<Duration>> => write_timeout.into();
    connect_timeout: impl Into<Option<Duration>> => connect_timeout.into();
    max_queued_bytes: usize => max_queued_bytes;
    socket: SocketOptions => socket;
}}

#[cfg(feature = "_tls")]
setters! { ClientConfiguration {
    secure_socket: impl Into<Option<crate::ClientSecureSocket>> => secure_socket.into();
}}
