//! A small internet on the loopback addresses: a name server, and hosts 127.0.0.x which all use
//! the same port, so that one `[delivery] port` is right for every one of them.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Mutex;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, connect, listen, socket,
};

use super::dns::Dns;
use super::exchange::{Exchange, Script};
use super::site::{Plan, Site};

/// How many hosts there are at most: 127.0.0.1 to 127.0.0.40.
const HOSTS: u8 = 40;

/// The small internet.
pub struct Network {
    pub dns: Dns,
    port: u16,
    /// A socket for each host, bound so that nobody else can take its port. It refuses
    /// connections until it is told to listen.
    reserved: Mutex<Vec<Option<OwnedFd>>>,
}

impl Network {
    pub fn new() -> Self {
        for _ in 0..50 {
            if let Some(network) = Self::on_some_port() {
                return network;
            }
        }
        panic!("no port is free on 127.0.0.1 to 127.0.0.{HOSTS}");
    }

    fn on_some_port() -> Option<Self> {
        let first = bound(1, 0).ok()?;
        let own: SockaddrIn = nix::sys::socket::getsockname(first.as_raw_fd()).ok()?;
        let mut reserved = vec![None, Some(first)];
        for host in 2..=HOSTS {
            reserved.push(Some(bound(host, own.port()).ok()?));
        }
        Some(Self { dns: Dns::start(), port: own.port(), reserved: Mutex::new(reserved) })
    }

    /// The port of every host.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where the host 127.0.0.`host` is called.
    pub fn address(&self, host: u8) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, host], self.port))
    }

    /// The site that is tested: it asks this name server and calls this port.
    pub fn plan(&self) -> Plan {
        Site::plan().set("dns", "servers", &format!("[\"{}\"]", self.dns.address())).set(
            "delivery",
            "port",
            &self.port.to_string(),
        )
    }

    /// The listening socket of a host, for a server. A host has one only.
    #[track_caller]
    pub fn listen(&self, host: u8) -> TcpListener {
        let socket = self.take(host);
        listen(&socket, Backlog::MAXCONN).unwrap();
        TcpListener::from(socket)
    }

    /// Gives the port of a host up, for a program that binds it by itself.
    #[track_caller]
    pub fn release(&self, host: u8) {
        drop(self.take(host));
    }

    /// Starts a mail exchange on a host.
    #[track_caller]
    pub fn exchange(&self, host: u8, script: Script) -> Exchange {
        Exchange::start(self.listen(host), script)
    }

    /// Lets a host be one that swallows what is sent to it: connecting to it takes for ever.
    #[track_caller]
    pub fn blackhole(&self, host: u8) -> Blackhole {
        let socket = self.take(host);
        listen(&socket, Backlog::new(0).unwrap()).unwrap();
        // Once the queue of those that wait to be accepted is full, the system drops what comes.
        let waiting = (0..8).map(|_| begin_to_connect(self.address(host))).collect();
        Blackhole { _socket: socket, _waiting: waiting }
    }

    #[track_caller]
    fn take(&self, host: u8) -> OwnedFd {
        let socket = self.reserved.lock().unwrap()[usize::from(host)].take();
        socket.unwrap_or_else(|| panic!("127.0.0.{host} is in use already"))
    }
}

/// A host that never answers, as long as this lives.
pub struct Blackhole {
    _socket: OwnedFd,
    _waiting: Vec<OwnedFd>,
}

/// Whether connecting to this address is not answered.
pub fn is_silent(address: SocketAddr) -> bool {
    let limit = std::time::Duration::from_millis(300);
    TcpStream::connect_timeout(&address, limit)
        .is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut)
}

fn stream(flags: SockFlag) -> nix::Result<OwnedFd> {
    socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC | flags, None)
}

fn bound(host: u8, port: u16) -> nix::Result<OwnedFd> {
    let socket = stream(SockFlag::empty())?;
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, host, port))?;
    Ok(socket)
}

fn begin_to_connect(address: SocketAddr) -> OwnedFd {
    let SocketAddr::V4(address) = address else {
        panic!("no IPv4 address: {address}");
    };
    let socket = stream(SockFlag::SOCK_NONBLOCK).unwrap();
    match connect(socket.as_fd().as_raw_fd(), &SockaddrIn::from(address)) {
        Ok(()) | Err(Errno::EINPROGRESS) => socket,
        Err(error) => panic!("{address}: {error}"),
    }
}
