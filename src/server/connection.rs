//! One client: a socket, or a pipe or terminal.

use std::fmt;
use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{
    MsgFlags, SockaddrStorage, getpeername, getsockopt, send, setsockopt, sockopt,
};

use crate::sys::fd;

/// Who the client is, as far as the network tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address; `None` for a pipe or a terminal, which somebody on this host holds.
    pub address: Option<IpAddr>,
}

impl Peer {
    /// Its address, or this host's where there is none.
    pub fn address_or_local(&self) -> IpAddr {
        self.address.unwrap_or(IpAddr::from([127, 0, 0, 1]))
    }

    /// Its name without asking DNS: only this host's own is known.
    pub fn name(&self) -> Option<&'static str> {
        self.is_loopback().then_some("localhost")
    }

    /// Whether it is this host.
    pub fn is_loopback(&self) -> bool {
        self.address_or_local().is_loopback()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f),
            None => f.write_str("local"),
        }
    }
}

/// An open session's two directions.
#[derive(Debug)]
pub struct Connection {
    input: OwnedFd,
    output: OwnedFd,
    is_socket: bool,
    /// Who is there.
    pub peer: Peer,
}

impl Connection {
    /// A client that the listener has accepted.
    pub fn accepted(stream: TcpStream, address: IpAddr) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        let output = OwnedFd::from(stream.try_clone()?);
        let mut connection = Self::new(stream.into(), output);
        connection.peer.address = Some(address.to_canonical());
        Ok(connection)
    }

    /// A client that speaks by `input` and listens to `output`: the session that this process was
    /// started with.
    pub fn new(input: OwnedFd, output: OwnedFd) -> Self {
        let is_socket = getsockopt(&input, sockopt::SockType).is_ok();
        if is_socket {
            // Replies are written whole; waiting for more would only delay them.
            let _ = setsockopt(&input, sockopt::TcpNoDelay, &true);
        }
        let name = getpeername::<SockaddrStorage>(input.as_raw_fd()).ok();
        let address = name.as_ref().and_then(|name| {
            let v4 = name.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| name.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        });
        let peer = Peer { address: address.map(|address| address.to_canonical()) };
        Self { input, output, is_socket, peer }
    }

    /// A client on stdin and stdout, which stay open as well.
    pub fn on_stdin_and_stdout() -> io::Result<Self> {
        let input = io::stdin().as_fd().try_clone_to_owned()?;
        let output = io::stdout().as_fd().try_clone_to_owned()?;
        Ok(Self::new(input, output))
    }

    /// Whether the client is on the network.
    pub fn is_remote(&self) -> bool {
        self.peer.address.is_some()
    }

    /// Whether the client has sent something that was not read yet.
    pub fn has_input(&self) -> bool {
        fd::wait_readable(&self.input, 0).unwrap_or(false)
    }

    /// Receives what there is; 0 when the client has ended. `TimedOut` when it says nothing for so
    /// long.
    pub fn receive(&mut self, buffer: &mut [u8], milliseconds: u32) -> io::Result<usize> {
        loop {
            if !fd::wait_readable(&self.input, milliseconds)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match nix::unistd::read(&self.input, buffer) {
                Err(nix::Error::EINTR | nix::Error::EAGAIN) => {}
                read => return Ok(read?),
            }
        }
    }

    /// Sends all of it. `TimedOut` when the client takes nothing for so long.
    pub fn send(&mut self, mut bytes: &[u8], milliseconds: u32) -> io::Result<()> {
        // A socket is tried first: it nearly always has room. A pipe would block.
        let mut wait = !self.is_socket;
        while !bytes.is_empty() {
            if wait && !fd::wait_writable(&self.output, milliseconds)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let sent = if self.is_socket {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(self.output.as_raw_fd(), bytes, flags)
            } else {
                nix::unistd::write(&self.output, bytes)
            };
            match sent {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => wait = true,
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The two descriptors, for a child that keeps nothing else.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.input.as_fd(), self.output.as_fd()]
    }
}
