//! Sockets before and beside the ring: listening, connecting, options, addresses. These calls are the kernel's and do
//! not block, but for [`connect`], which is for tools.

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// Connections that may wait to be accepted.
pub const BACKLOG: i32 = 1024;

/// Options of a data connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ConnectionOptions {
    /// The kernel's buffer for receiving, where it shall not tune that itself; bytes.
    pub receive_buffer_bytes: Option<usize>,
    /// The kernel's buffer for sending, where it shall not tune that itself; bytes.
    pub send_buffer_bytes: Option<usize>,
    /// Silence after which the kernel asks whether the peer is there; three missed answers end the connection.
    pub keepalive: Option<Duration>,
}

/// A listening TCP socket at `address`; port 0 takes a free one ([`local_address`] tells). An IPv6 socket serves IPv6
/// only, so that both families can listen on one port.
///
/// # Errors
/// `AddrInUse` where another process listens there, and what else the kernel says.
pub fn listen(address: SocketAddr) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Connections that are accepted here have it too: a last, short segment does not wait for the peer's acknowledgement.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// A connection to `address`, made within `timeout`, for tools: this blocks.
///
/// # Errors
/// What the kernel says.
pub fn connect(address: SocketAddr, timeout: Duration) -> io::Result<OwnedFd> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.cloexec(), Some(Protocol::TCP))?;
    socket.connect_timeout(&address.into(), timeout)?;
    socket.set_nonblocking(false)?;
    configure(&socket, ConnectionOptions::default())?;
    Ok(socket.into())
}

/// Makes a connection fit for data: no delay (TCP_NODELAY), and `options`.
///
/// # Errors
/// What the kernel says.
pub fn configure(socket: &impl AsFd, options: ConnectionOptions) -> io::Result<()> {
    let socket = SockRef::from(socket);
    socket.set_tcp_nodelay(true)?;
    if let Some(bytes) = options.receive_buffer_bytes {
        socket.set_recv_buffer_size(bytes)?;
    }
    if let Some(bytes) = options.send_buffer_bytes {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(silence) = options.keepalive {
        let keepalive = TcpKeepalive::new().with_time(silence).with_interval(silence / 3).with_retries(3);
        socket.set_tcp_keepalive(&keepalive)?;
    }
    Ok(())
}

/// The address of this end.
///
/// # Errors
/// What the kernel says, or `InvalidData` where it is no IP socket.
pub fn local_address(socket: &impl AsFd) -> io::Result<SocketAddr> {
    SockRef::from(socket).local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The address of the other end.
///
/// # Errors
/// `NotConnected` where there is none any more, or `InvalidData` where it is no IP socket.
pub fn peer_address(socket: &impl AsFd) -> io::Result<SocketAddr> {
    SockRef::from(socket).peer_addr()?.as_socket().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn port_0_takes_a_free_port_and_both_ends_know_each_other() {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address = local_address(&listener).unwrap();
        assert_ne!(address.port(), 0);
        let client = connect(address, Duration::from_secs(5)).unwrap();
        assert_eq!(peer_address(&client).unwrap(), address);
        assert!(SockRef::from(&client).tcp_nodelay().unwrap());
        let (accepted, _) = std::net::TcpListener::from(listener).accept().unwrap();
        assert!(accepted.nodelay().unwrap(), "as the socket that it was accepted at");
    }

    #[test]
    fn a_port_that_somebody_holds_is_refused() {
        let holder = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let refused = listen(local_address(&holder).unwrap()).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn both_families_can_hold_one_port() {
        let Ok(six) = listen((Ipv6Addr::LOCALHOST, 0).into()) else { return };
        let port = local_address(&six).unwrap().port();
        listen((Ipv4Addr::LOCALHOST, port).into()).unwrap();
    }

    #[test]
    fn options_are_set() {
        let listener = listen((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let client = connect(local_address(&listener).unwrap(), Duration::from_secs(5)).unwrap();
        let options = ConnectionOptions {
            receive_buffer_bytes: Some(64 << 10),
            send_buffer_bytes: Some(32 << 10),
            keepalive: Some(Duration::from_secs(30)),
        };
        configure(&client, options).unwrap();
        let socket = SockRef::from(&client);
        assert!(socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
        // The kernel doubles what it is asked for, for its own needs.
        assert_eq!(socket.send_buffer_size().unwrap(), 2 * (32 << 10));
    }
}
