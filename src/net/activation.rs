//! How a server is started: what it is handed decides (sd_listen_fds(3), inetd(8)).

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;

use nix::sys::socket::{
    AddressFamily, Backlog, SockaddrLike, SockaddrStorage, getsockname, getsockopt, setsockopt,
    sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::sys::fd;

/// What there is to serve.
pub enum Handed {
    /// Listening sockets, each with the name that systemd gave it.
    Listeners(Vec<(Socket, Option<String>)>),
    /// One session, on one socket, or on stdin and stdout.
    Session {
        /// What the client says.
        input: OwnedFd,
        /// What it is told.
        output: OwnedFd,
    },
}

/// How long a read from a client of a TCP socket waits, in milliseconds: then it is `EAGAIN`.
pub const READ_TIMEOUT: u32 = 60_000;

/// A listening socket.
pub enum Socket {
    /// Of the network.
    Tcp(TcpListener),
    /// Of this host.
    Unix(UnixListener),
}

impl Socket {
    fn new(fd: OwnedFd) -> Self {
        let name = getsockname::<SockaddrStorage>(fd.as_raw_fd());
        match name.ok().and_then(|name| name.family()) {
            Some(AddressFamily::Unix) => Self::Unix(fd.into()),
            _ => Self::Tcp(fd.into()),
        }
    }

    /// Gets ready to be polled. Clients' sockets block all the same, for [`READ_TIMEOUT`], and send
    /// what they are given at once: replies are written whole, and waiting for more would only delay
    /// them. (Linux has the sockets of those who connect from now on inherit that.)
    pub fn prepare(&self) -> io::Result<()> {
        if let Self::Tcp(socket) = self {
            setsockopt(socket, sockopt::TcpNoDelay, &true)?;
            let timeout = TimeVal::milliseconds(READ_TIMEOUT.into());
            setsockopt(socket, sockopt::ReceiveTimeout, &timeout)?;
        }
        fd::set_nonblocking(self, true)
    }

    /// The next client, and its address where it is of the network.
    pub fn accept(&self) -> io::Result<(OwnedFd, Option<IpAddr>)> {
        match self {
            Self::Tcp(socket) => {
                let (client, address) = socket.accept()?;
                Ok((client.into(), Some(address.ip().to_canonical())))
            }
            Self::Unix(socket) => Ok((socket.accept()?.0.into(), None)),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(socket) => socket.as_fd(),
            Self::Unix(socket) => socket.as_fd(),
        }
    }
}

/// Listens where as many clients may wait to be accepted as the system lets wait. std has room for
/// 128: of more that come at once the rest would be dropped, and try again after whole seconds.
fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = TcpListener::bind(address)?;
    nix::sys::socket::listen(&listener, Backlog::MAXALLOWABLE)?;
    Ok(listener)
}

/// Binds `--listen`'s addresses; else takes `LISTEN_FDS`; else stdin and stdout are the session.
///
/// To be called once, before any other descriptor is opened.
pub fn handed(listen: &[SocketAddr]) -> io::Result<Handed> {
    if !listen.is_empty() {
        let bound = listen.iter().map(|address| match bind(*address) {
            Ok(listener) => Ok((Socket::Tcp(listener), None)),
            Err(error) => Err(io::Error::new(error.kind(), format!("{address}: {error}"))),
        });
        return Ok(Handed::Listeners(bound.collect::<Result<_, _>>()?));
    }
    let mut listeners = Vec::new();
    let (count, names) = announced();
    for number in 0..count {
        let Some(socket) = fd::inherited(3 + number) else {
            return Err(io::Error::other(format!(
                "LISTEN_FDS: descriptor {} is not open",
                3 + number
            )));
        };
        if getsockopt(&socket, sockopt::AcceptConn).unwrap_or(false) {
            let name = usize::try_from(number)
                .ok()
                .and_then(|number| names.get(number).cloned())
                .filter(|name| !name.is_empty());
            listeners.push((Socket::new(socket), name));
        } else if count == 1 {
            // Accept=yes: the one descriptor is the connection.
            let output = socket.try_clone()?;
            return Ok(Handed::Session { input: socket, output });
        } else {
            return Err(io::Error::other("LISTEN_FDS: a connected socket among several"));
        }
    }
    if !listeners.is_empty() {
        return Ok(Handed::Listeners(listeners));
    }
    let closed = || io::Error::other("stdin or stdout is closed");
    let input = fd::inherited(0).ok_or_else(closed)?;
    let output = fd::inherited(1).ok_or_else(closed)?;
    Ok(Handed::Session { input, output })
}

/// How many descriptors systemd announces to this very process, and their names.
fn announced() -> (i32, Vec<String>) {
    let variable = |name| std::env::var(name).ok();
    let ours = variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) == Some(std::process::id());
    let count = variable("LISTEN_FDS").and_then(|count| count.parse().ok()).unwrap_or(0);
    if !ours || !(1..=64).contains(&count) {
        return (0, Vec::new());
    }
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    (
        count,
        // An empty name is one, too, or else the next ones would be their neighbours'.
        names.split(':').map(str::to_owned).collect(),
    )
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpStream};

    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use nix::sys::socket::{getsockopt, sockopt};
    use nix::sys::time::TimeValLike;

    use super::{READ_TIMEOUT, Socket, bind};

    #[test]
    fn a_client_blocks_and_is_sent_what_there_is_at_once() {
        let listener = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = listener.local_addr().unwrap();
        let socket = Socket::Tcp(listener);
        socket.prepare().unwrap();
        assert_eq!(socket.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        let _client = TcpStream::connect(address).unwrap();
        let (client, from) = socket.accept().unwrap();
        assert_eq!(from, Some([127, 0, 0, 1].into()));
        assert!(getsockopt(&client, sockopt::TcpNoDelay).unwrap());
        let timeout = getsockopt(&client, sockopt::ReceiveTimeout).unwrap();
        assert_eq!(timeout.num_milliseconds(), READ_TIMEOUT.into());
        let flags = OFlag::from_bits_retain(fcntl(&client, FcntlArg::F_GETFL).unwrap());
        assert!(!flags.contains(OFlag::O_NONBLOCK));
    }
}
