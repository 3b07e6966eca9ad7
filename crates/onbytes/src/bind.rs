//! Getting a listening socket: from an endpoint and its options to an open port.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType, sockopt};

use crate::endpoint::{Endpoint, Target, check_name};
use crate::{Error, ErrorKind, ListenerConfiguration, Result, SocketOptions};

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

/// Opens the port of `endpoint` and listens on it.
pub(crate) async fn listen(
    endpoint: &Endpoint,
    config: &ListenerConfiguration,
) -> Result<(OwnedFd, SocketAddr)> {
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
        match listen_on(address, &config.socket) {
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

fn listen_on(address: SocketAddr, options: &SocketOptions) -> io::Result<(OwnedFd, SocketAddr)> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let fd = new_socket(family)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if address.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        sockopt::set_ipv6_v6only(&fd, false)?;
    }
    apply(&fd, options)?;
    rustix::net::bind(&fd, &address)?;
    rustix::net::listen(&fd, i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    let address = SocketAddr::try_from(rustix::net::getsockname(&fd)?)?;
    Ok((fd, address))
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
        let (fd, address) = listen_on(SocketAddr::from(([127, 0, 0, 1], 0)), &options).unwrap();
        let _peer = std::net::TcpStream::connect(address).unwrap();
        let accepted = rustix::net::accept(&fd).unwrap();
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
}
