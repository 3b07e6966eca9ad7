//! Getting a listening socket: from an endpoint and its options to an open port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::endpoint::{Endpoint, Target, check_name};
use crate::{Error, ErrorKind, ListenerConfiguration, Result, SocketOptions, Workers};

/// The endpoint that a listener really has: a host in the configuration completes a bare port.
pub(crate) fn effective_endpoint(
    endpoint: Endpoint,
    config: &ListenerConfiguration,
) -> Result<Endpoint> {
    let Some(host) = &config.local_host else {
        return check_endpoint(endpoint);
    };
    let configured = endpoint.with_host(host);
    if endpoint.host().is_some() && endpoint.host() != configured.host() {
        return Err(Error::configuration(format!(
            "the endpoint {endpoint} and local_host {configured} name different hosts; give one"
        )));
    }
    check_endpoint(configured)
}

fn check_endpoint(endpoint: Endpoint) -> Result<Endpoint> {
    if let Target::Named(name) = endpoint.target() {
        check_name(&name)?;
    }
    Ok(endpoint)
}

/// Opens the port of `endpoint` and listens on it: one socket for each accept loop, and their address.
pub(crate) async fn listen(
    endpoint: &Endpoint,
    config: &ListenerConfiguration,
) -> Result<(Vec<OwnedFd>, SocketAddr)> {
    let failed = |error: io::Error| {
        let way_out = match Errno::from_io_error(&error) {
            Some(Errno::ADDRINUSE) => ": the port is in use; choose another, or stop its user",
            Some(Errno::ACCESS) => ": the port is not permitted to this user",
            Some(Errno::ADDRNOTAVAIL) => ": no interface here has that address",
            // The look-up's errors are not the system's.
            None => ": the name has no address; check it, or give an address",
            _ => "",
        };
        Error::caused(ErrorKind::Bind, format!("cannot listen on {endpoint}{way_out}"), error)
    };
    let candidates = candidates(endpoint).await.map_err(failed)?;
    let mut last = io::Error::from(Errno::ADDRNOTAVAIL);
    for address in candidates {
        match listen_on(address, &config.socket, config.workers) {
            Ok(listening) => return Ok(listening),
            Err(error) => last = error,
        }
        // Without IPv6 the unspecified address of IPv4 is as good; a port in use stays in use.
        if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED)
            && Errno::from_io_error(&last) == Some(Errno::ADDRINUSE)
        {
            break;
        }
    }
    Err(failed(last))
}

async fn candidates(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    let port = endpoint.port();
    Ok(match endpoint.target() {
        Target::Any => vec![
            SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)),
            SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)),
        ],
        Target::Known(address) => vec![address],
        Target::Named(name) => tokio::net::lookup_host((name, port)).await?.collect(),
    })
}

fn listen_on(
    address: SocketAddr,
    options: &SocketOptions,
    workers: Workers,
) -> io::Result<(Vec<OwnedFd>, SocketAddr)> {
    let first = listening(address, options, false)?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&first)?)?;
    let sockets = match workers {
        Workers::Current | Workers::Threads(1) => vec![first],
        Workers::AcceptLoops(count) => shared(first, count)?,
        Workers::Threads(count) => split(first, count, address, options)?,
    };
    Ok((sockets, address))
}

fn listening(address: SocketAddr, options: &SocketOptions, is_split: bool) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let fd = new_socket(family)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if is_split {
        split_port_of(&fd)?;
    }
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        sockopt::set_ipv6_v6only(&fd, false)?;
    }
    apply(&fd, options)?;
    rustix::net::bind(&fd, &address)?;
    rustix::net::listen(&fd, i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(fd)
}

/// So many descriptors of one socket, so that whoever has time takes the next caller.
fn shared(first: OwnedFd, count: usize) -> io::Result<Vec<OwnedFd>> {
    let mut sockets = (1..count).map(|_| first.try_clone()).collect::<io::Result<Vec<_>>>()?;
    sockets.push(first);
    Ok(sockets)
}

/// So many sockets of one port, between which the kernel divides the callers.
///
/// The first one listens alone before the port is divided, so a port that somebody else listens on is in
/// use as ever, also where that is divided too: else two servers of one user would share it, and neither
/// would be told.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn split(
    first: OwnedFd,
    count: usize,
    address: SocketAddr,
    options: &SocketOptions,
) -> io::Result<Vec<OwnedFd>> {
    split_port_of(&first)?;
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(listening(address, options, true)?);
    }
    Ok(sockets)
}

/// Elsewhere the option exists, but does not divide callers evenly, so the socket is shared.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn split(
    first: OwnedFd,
    count: usize,
    _: SocketAddr,
    _: &SocketOptions,
) -> io::Result<Vec<OwnedFd>> {
    shared(first, count)
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn split_port_of(fd: &OwnedFd) -> io::Result<()> {
    Ok(sockopt::set_socket_reuseport(fd, true)?)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn split_port_of(_: &OwnedFd) -> io::Result<()> {
    Ok(())
}

#[cfg(not(target_vendor = "apple"))]
fn new_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    use rustix::net::SocketFlags;
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    Ok(rustix::net::socket_with(family, SocketType::STREAM, flags, None)?)
}

#[cfg(target_vendor = "apple")]
fn new_socket(family: AddressFamily) -> io::Result<OwnedFd> {
    let fd = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(fd)
}

/// Sets the options of a socket that is not connected yet.
pub(crate) fn apply(fd: impl std::os::fd::AsFd, options: &SocketOptions) -> io::Result<()> {
    let fd = fd.as_fd();
    sockopt::set_tcp_nodelay(fd, options.no_delay)?;
    if let Some(keep_alive) = &options.keep_alive {
        sockopt::set_socket_keepalive(fd, true)?;
        #[cfg(not(any(target_os = "openbsd", target_vendor = "apple")))]
        sockopt::set_tcp_keepidle(fd, keep_alive.idle)?;
        #[cfg(not(target_os = "openbsd"))]
        sockopt::set_tcp_keepintvl(fd, keep_alive.interval)?;
        #[cfg(not(target_os = "openbsd"))]
        sockopt::set_tcp_keepcnt(fd, u32::try_from(keep_alive.probes).unwrap_or(u32::MAX))?;
        #[cfg(any(target_os = "linux", target_os = "android"))]
        if let Some(time) = keep_alive.user_timeout {
            sockopt::set_tcp_user_timeout(fd, u32::try_from(time.as_millis()).unwrap_or(u32::MAX))?;
        }
    }
    if let Some(size) = options.send_buffer {
        sockopt::set_socket_send_buffer_size(fd, size)?;
    }
    if let Some(size) = options.receive_buffer {
        sockopt::set_socket_recv_buffer_size(fd, size)?;
    }
    Ok(())
}

/// Gives an accepted socket the listener's options. Linux does that itself.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn inherit(_: &OwnedFd, _: &SocketOptions) -> io::Result<()> {
    Ok(())
}

/// Gives an accepted socket the listener's options.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn inherit(fd: &OwnedFd, options: &SocketOptions) -> io::Result<()> {
    apply(fd, options)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

    fn endpoint(endpoint: impl Into<Endpoint>, host: Option<&str>) -> Result<Endpoint> {
        let mut config = ListenerConfiguration::new();
        config.local_host = host.map(str::to_owned);
        effective_endpoint(endpoint.into(), &config)
    }

    #[test]
    fn a_configured_host_completes_a_bare_port() {
        let complete = endpoint(3000, Some("127.0.0.1")).unwrap();
        assert_eq!(complete.to_string(), "127.0.0.1:3000");
        assert_eq!(endpoint(3000, None).unwrap().to_string(), "port 3000");
    }

    /// Linux hands the options of a listening socket on; elsewhere they are set again.
    #[test]
    fn accepted_sockets_have_the_options_of_the_listener() {
        use crate::KeepAlive;
        let keep_alive = KeepAlive::lan();
        let options = SocketOptions::new().keep_alive(keep_alive.clone()).send_buffer(8192);
        let (sockets, address) = listen_on(LOOPBACK, &options, Workers::Current).unwrap();
        let _peer = std::net::TcpStream::connect(address).unwrap();
        let accepted = rustix::net::accept(&sockets[0]).unwrap();
        inherit(&accepted, &options).unwrap();
        assert!(sockopt::tcp_nodelay(&accepted).unwrap());
        assert!(sockopt::socket_keepalive(&accepted).unwrap());
        assert!(sockopt::socket_send_buffer_size(&accepted).unwrap() <= 2 * 8192);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        {
            assert_eq!(sockopt::tcp_keepidle(&accepted).unwrap(), keep_alive.idle);
            assert_eq!(sockopt::tcp_keepintvl(&accepted).unwrap(), keep_alive.interval);
            assert_eq!(sockopt::tcp_keepcnt(&accepted).unwrap() as usize, keep_alive.probes);
            let user_timeout = sockopt::tcp_user_timeout(&accepted).unwrap();
            assert_eq!(
                Some(std::time::Duration::from_millis(user_timeout.into())),
                keep_alive.user_timeout
            );
        }
    }

    #[test]
    fn two_hosts_that_differ_are_refused() {
        assert!(endpoint(("::1", 1), Some("127.0.0.1")).unwrap_err().is_configuration());
        assert!(endpoint(("127.0.0.1", 1), Some("127.0.0.1")).is_ok());
    }

    #[test]
    fn the_sockets_of_a_split_port_have_one_address_and_nobody_else_gets_it() {
        let options = SocketOptions::new();
        let (sockets, address) = listen_on(LOOPBACK, &options, Workers::Threads(3)).unwrap();
        assert_eq!(sockets.len(), 3);
        for socket in &sockets {
            let own = SocketAddr::try_from(rustix::net::getsockname(socket).unwrap()).unwrap();
            assert_eq!(own, address);
        }
        for workers in [Workers::Threads(3), Workers::Current] {
            let error = listen_on(address, &options, workers).unwrap_err();
            assert_eq!(Errno::from_io_error(&error), Some(Errno::ADDRINUSE), "{workers:?}");
        }
    }

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    fn callers_of_a_split_port_are_divided_between_its_sockets() {
        let (sockets, address) =
            listen_on(LOOPBACK, &SocketOptions::new(), Workers::Threads(2)).unwrap();
        let _callers: Vec<_> =
            (0..64).map(|_| std::net::TcpStream::connect(address).unwrap()).collect();
        let taken = sockets
            .iter()
            .map(|socket| std::iter::from_fn(|| rustix::net::accept(socket).ok()).count());
        let taken: Vec<_> = taken.collect();
        assert_eq!(taken.iter().sum::<usize>(), 64);
        // That all go to one has a chance of 2 in 2^64.
        assert!(taken.iter().all(|count| *count > 0), "{taken:?}");
    }
}
