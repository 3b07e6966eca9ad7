//! Connecting: from an endpoint to a connected socket.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use tokio::net::TcpSocket;
use tokio::time::{Instant, timeout_at};
#[cfg(feature = "_tls")]
use {
    crate::link::Link,
    crate::tls::Connector,
    std::future::poll_fn,
    std::task::{Poll, ready},
    tokio::time::timeout,
};

use crate::endpoint::{Endpoint, Target, check_name};
use crate::{ClientConfiguration, Error, ErrorKind, Result};

/// Connects to the first address of `endpoint` that answers.
pub(super) async fn connect(
    endpoint: &Endpoint,
    config: &ClientConfiguration,
    deadline: Option<Instant>,
) -> Result<(OwnedFd, SocketAddr, SocketAddr)> {
    let addresses = before(deadline, addresses(endpoint), endpoint).await??;
    let local = match &config.local_host {
        Some(host) => before(deadline, addresses_of_host(host), endpoint).await??,
        None => Vec::new(),
    };
    let mut last = None;
    for (tried, remote) in addresses.iter().enumerate() {
        // One address that does not answer must not use up the time of the others.
        let share = share_of(deadline, addresses.len() - tried);
        let attempt = connect_one(*remote, &local, config);
        match before(share, attempt, endpoint).await {
            Ok(Ok(connected)) => return Ok(connected),
            Ok(Err(error)) => {
                let message = format!("cannot connect to {endpoint}");
                last = Some(Error::caused(ErrorKind::Connect, message, error));
            }
            Err(timeout) => last = Some(timeout),
        }
    }
    let nothing = || Error::of(ErrorKind::Connect, format!("{endpoint} has no address"));
    Err(last.unwrap_or_else(nothing))
}

/// What is needed for TLS, where the connection is to be secured.
#[cfg(feature = "_tls")]
pub(super) async fn prepare(config: &ClientConfiguration) -> Result<Option<Connector>> {
    let Some(secure) = config.secure_socket.clone().filter(|secure| secure.enable) else {
        return Ok(None);
    };
    if let Some(connector) = Connector::loaded(&secure) {
        return Ok(Some(connector));
    }
    // Files are read, and keys perhaps derived from passwords.
    let loading = tokio::task::spawn_blocking(move || Connector::load(&secure));
    loading.await.unwrap_or_else(|error| Err(Error::new(error.to_string()))).map(Some)
}

/// Shakes hands over TLS, in its own time.
#[cfg(feature = "_tls")]
pub(super) async fn shake_hands(
    link: &Link,
    connector: &Connector,
    endpoint: &Endpoint,
    config: &ClientConfiguration,
) -> Result<()> {
    let host = match endpoint.target() {
        Target::Named(name) => name,
        _ => link.remote.ip().to_string(),
    };
    link.secure(connector.connect(&host)?);
    let within = config.secure_socket.as_ref().and_then(|secure| secure.handshake_timeout);
    let handshake = poll_fn(|cx| {
        link.change(|state, _| {
            let result = ready!(link.poll_handshake(state, cx));
            if let (Err(_), Some(stream)) = (&result, state.stream()) {
                // The server is told why, if the kernel takes it now.
                let _ = stream.send_output_now();
            }
            Poll::Ready(result)
        })
    });
    let result = match within {
        Some(within) => timeout(within, handshake).await.unwrap_or_else(|_| {
            Err(Error::of(ErrorKind::Timeout, format!("it was not complete after {within:?}")))
        }),
        None => handshake.await,
    };
    // In one sentence: why a certificate is refused is what everybody wants to read.
    result.map_err(|error| {
        let message = format!("the TLS handshake with {endpoint} failed: {error}");
        match (error.kind(), std::error::Error::source(&error)) {
            (ErrorKind::Timeout, _) => Error::of(ErrorKind::Timeout, message),
            (_, Some(cause)) => Error::of(ErrorKind::Tls, format!("{message}: {cause}")),
            (_, None) => Error::of(ErrorKind::Tls, message),
        }
    })
}

async fn before<T>(
    deadline: Option<Instant>,
    step: impl Future<Output = T>,
    endpoint: &Endpoint,
) -> Result<T> {
    let Some(deadline) = deadline else {
        return Ok(step.await);
    };
    timeout_at(deadline, step).await.map_err(|_| {
        Error::of(ErrorKind::Timeout, format!("connecting to {endpoint} took too long"))
    })
}

fn share_of(deadline: Option<Instant>, tries_left: usize) -> Option<Instant> {
    let now = Instant::now();
    let left = deadline?.saturating_duration_since(now);
    now.checked_add(left / u32::try_from(tries_left).unwrap_or(u32::MAX))
}

async fn addresses(endpoint: &Endpoint) -> Result<Vec<SocketAddr>> {
    let found = match endpoint.target() {
        Target::Known(address) => vec![address],
        Target::Named(name) => look_up(&name, endpoint.port()).await?,
        Target::Any => {
            return Err(Error::configuration(format!("{endpoint} has no host to connect to")));
        }
    };
    if endpoint.port() == 0 {
        return Err(Error::configuration("port 0 cannot be connected to; give 1 to 65535"));
    }
    Ok(found)
}

async fn addresses_of_host(host: &str) -> Result<Vec<SocketAddr>> {
    let endpoint = Endpoint::from((host, 0));
    match endpoint.target() {
        Target::Known(address) => Ok(vec![address]),
        _ => look_up(host, 0).await,
    }
}

async fn look_up(name: &str, port: u16) -> Result<Vec<SocketAddr>> {
    check_name(name)?;
    match tokio::net::lookup_host((name, port)).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(error) => {
            let message = format!("cannot find the address of '{}'", crate::endpoint::shown(name));
            Err(Error::caused(ErrorKind::Connect, message, error))
        }
    }
}

async fn connect_one(
    remote: SocketAddr,
    local: &[SocketAddr],
    config: &ClientConfiguration,
) -> io::Result<(OwnedFd, SocketAddr, SocketAddr)> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    crate::bind::apply(&socket, &config.socket)?;
    if !local.is_empty() {
        let same_family = local.iter().find(|local| local.is_ipv4() == remote.is_ipv4());
        let local = same_family.ok_or_else(|| {
            io::Error::other(format!("local_host has no address of the same family as {remote}"))
        })?;
        socket.bind(*local).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot use local_host {}: {error}", local.ip()))
        })?;
    }
    let stream = socket.connect(remote).await?;
    let local = stream.local_addr()?;
    Ok((stream.into_std()?.into(), remote, local))
}
