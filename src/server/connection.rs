//! One client: a socket, or a pipe or terminal.

use std::io;
use std::net::{IpAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{SockaddrStorage, getpeername, setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

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
        self.address_or_local()
            .to_canonical()
            .is_loopback()
            .then_some("localhost")
    }

    /// Whether it is this host.
    pub fn is_loopback(&self) -> bool {
        self.address_or_local().to_canonical().is_loopback()
    }
}

/// An open session's two directions.
pub struct Connection {
    input: OwnedFd,
    output: OwnedFd,
    /// Who is there.
    pub peer: Peer,
    timeout: Duration,
    is_socket: bool,
}

impl Connection {
    /// A client that the listener has accepted.
    pub fn accepted(stream: TcpStream, address: IpAddr, timeout: Duration) -> io::Result<Self> {
        stream.set_nonblocking(false)?;
        let output = OwnedFd::from(stream.try_clone()?);
        let peer = Peer {
            address: Some(address.to_canonical()),
        };
        Self {
            input: stream.into(),
            output,
            peer,
            timeout,
            is_socket: true,
        }
        .prepared()
    }

    /// A session that this process was started with.
    pub fn handed(input: OwnedFd, output: OwnedFd, timeout: Duration) -> io::Result<Self> {
        use std::os::fd::AsRawFd;
        let name = getpeername::<SockaddrStorage>(input.as_raw_fd()).ok();
        let address = name.as_ref().and_then(|name| {
            let v4 = name.as_sockaddr_in().map(|v4| IpAddr::from(v4.ip()));
            v4.or_else(|| name.as_sockaddr_in6().map(|v6| IpAddr::from(v6.ip())))
        });
        let peer = Peer {
            address: address.map(|address| address.to_canonical()),
        };
        Self {
            input,
            output,
            peer,
            timeout,
            is_socket: name.is_some(),
        }
        .prepared()
    }

    /// Timeouts in the kernel, where there is a socket to have them: one system call a read.
    fn prepared(self) -> io::Result<Self> {
        if self.is_socket {
            let seconds = i64::try_from(self.timeout.as_secs()).unwrap_or(i64::MAX);
            let limit = TimeVal::seconds(seconds);
            setsockopt(&self.input, sockopt::ReceiveTimeout, &limit)?;
            setsockopt(&self.input, sockopt::SendTimeout, &limit)?;
            // Replies are written whole; waiting for more would only delay them.
            let _ = setsockopt(&self.input, sockopt::TcpNoDelay, &true);
        }
        Ok(self)
    }

    /// Whether the client is on the network.
    pub fn is_socket(&self) -> bool {
        self.is_socket
    }

    /// Whether the client has sent something that was not read yet.
    pub fn has_input(&self) -> bool {
        fd::wait_readable(&self.input, 0).unwrap_or(false)
    }

    /// Reads what there is; 0 when the client has closed, `TimedOut` when it said nothing for long.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if !self.is_socket {
            let limit = u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX);
            if !fd::wait_readable(&self.input, limit)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
        loop {
            match nix::unistd::read(&self.input, buffer) {
                Ok(count) => return Ok(count),
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Writes all of it; `TimedOut` when the client takes nothing for long.
    pub fn write_all(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match nix::unistd::write(&self.output, bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return Err(io::ErrorKind::TimedOut.into()),
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
