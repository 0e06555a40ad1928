//! One client: a socket, or a pipe or terminal.

mod relay;

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::socket::{
    MsgFlags, SockaddrStorage, getpeername, getsockopt, recv, send, setsockopt, sockopt,
};
use nix::sys::time::TimeValLike;
use rustls::ServerConfig;

use crate::net::tls::client_certificate::Shown;
use crate::net::tls::server::Stream;
use crate::net::{activation, proxy};
use crate::sys::fd;

/// Who the client is, as far as the network tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address; `None` for a pipe or a terminal, which somebody on this host holds.
    pub address: Option<IpAddr>,
    /// The version of TLS, where another process has it between the client and this one.
    pub tls: Option<&'static str>,
}

impl Peer {
    /// A client at an address.
    pub fn at(address: Option<IpAddr>) -> Self {
        Self { address, tls: None }
    }

    /// Its address, or this host's where there is none.
    pub fn address_or_local(&self) -> IpAddr {
        self.address.unwrap_or(IpAddr::from([127, 0, 0, 1]))
    }

    /// Its name where nobody need be asked for it: this host by its usual address.
    pub fn local_name(&self) -> Option<&'static str> {
        let address = self.address_or_local();
        let usual = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST)];
        usual.contains(&address).then_some("localhost")
    }

    /// Whether it is this host.
    pub fn is_loopback(&self) -> bool {
        self.address_or_local().is_loopback()
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.fmt(f)?,
            None => f.write_str("local")?,
        }
        self.tls.map_or(Ok(()), |version| write!(f, ", tls={version}"))
    }
}

/// What stands between the wire and the text: TLS, by its abilities, so that programs that never
/// begin it have nothing of it in them. As [`Stream`] has them.
trait Layer: Send {
    fn agreed(&self) -> (&'static str, String);
    fn exported(&self) -> Option<Vec<u8>>;
    fn client_certificate(&self) -> Option<Shown>;
    fn fill(&mut self, wire: &mut Wire, deadline: Deadline) -> io::Result<usize>;
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    fn write(&mut self, text: &[u8]) -> io::Result<usize>;
    fn finish(&mut self);
    fn output(&mut self) -> io::Result<Vec<u8>>;
}

impl Layer for Stream {
    fn agreed(&self) -> (&'static str, String) {
        self.agreed()
    }

    fn exported(&self) -> Option<Vec<u8>> {
        self.exported()
    }

    fn client_certificate(&self) -> Option<Shown> {
        self.client_certificate()
    }

    fn fill(&mut self, wire: &mut Wire, deadline: Deadline) -> io::Result<usize> {
        self.fill(|room| wire.receive(room, deadline.left()))
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.read(buffer)
    }

    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.write(text)
    }

    fn finish(&mut self) {
        self.finish();
    }

    fn output(&mut self) -> io::Result<Vec<u8>> {
        self.output()
    }
}

/// An open session's two directions.
pub struct Connection {
    wire: Wire,
    tls: Option<Box<dyn Layer>>,
    /// Who is there.
    pub peer: Peer,
}

impl Connection {
    /// A client that the listener has accepted, whose socket is as the listening one was.
    pub fn accepted(client: OwnedFd, address: Option<IpAddr>) -> Self {
        // Who was there before the listening socket was made ready has a socket that does not.
        let timeout = getsockopt(&client, sockopt::ReceiveTimeout);
        let gives_up = timeout.is_ok_and(|time| {
            (1..=activation::READ_TIMEOUT.into()).contains(&time.num_milliseconds())
        });
        let wire = Wire { input: client, output: None, is_socket: true, gives_up, ending: None };
        Self { wire, tls: None, peer: Peer::at(address) }
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
        let peer = Peer::at(address.map(|address| address.to_canonical()));
        let wire = Wire { input, output: Some(output), is_socket, gives_up: false, ending: None };
        Self { wire, tls: None, peer }
    }

    /// A client that another process has handed over, with both its descriptors.
    pub fn handed(input: OwnedFd, output: OwnedFd) -> Self {
        let is_same = |a: &OwnedFd, b: &OwnedFd| {
            let identity = |fd: &OwnedFd| nix::sys::stat::fstat(fd).map(|f| (f.st_dev, f.st_ino));
            matches!((identity(a), identity(b)), (Ok(a), Ok(b)) if a == b)
        };
        let is_socket = getsockopt(&input, sockopt::SockType).is_ok();
        if is_socket && is_same(&input, &output) {
            return Self::accepted(input, None);
        }
        Self::new(input, output)
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
        self.has_input_within(0)
    }

    /// Whether the client sends something, or goes away, within this time.
    pub fn has_input_within(&self, milliseconds: u32) -> bool {
        fd::wait_readable(&self.wire.input, milliseconds).unwrap_or(false)
    }

    /// Takes the header of the PROXY protocol off, and nothing else. `InvalidData` where there is
    /// none, `TimedOut` where it does not come.
    pub fn proxied(&mut self, milliseconds: u32) -> io::Result<proxy::Client> {
        let deadline = Deadline::after(milliseconds);
        let mut bytes = [0; proxy::MAX];
        loop {
            if !fd::wait_readable(&self.wire.input, deadline.left())? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let there = recv(self.wire.input.as_raw_fd(), &mut bytes, MsgFlags::MSG_PEEK)?;
            match proxy::header(bytes.get(..there).unwrap_or_default()) {
                proxy::Header::Whole(client, length) => {
                    // They are there: one read takes them all.
                    let room = bytes.get_mut(..length).unwrap_or_default();
                    return match nix::unistd::read(&self.wire.input, room)? {
                        taken if taken == length => Ok(client),
                        _ => Err(io::ErrorKind::InvalidData.into()),
                    };
                }
                // What is there already would not be waited for.
                proxy::Header::More if there > 0 && deadline.left() > 0 => {
                    std::thread::sleep(Duration::from_millis(10));
                }
                proxy::Header::More if there > 0 => return Err(io::ErrorKind::TimedOut.into()),
                proxy::Header::More => return Err(io::ErrorKind::UnexpectedEof.into()),
                proxy::Header::None => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// Whom the load balancer that has come says its client is, in no network where it does not know;
    /// `None` for itself. The error is what is wrong with it.
    pub fn client_behind(&mut self) -> Result<Option<IpAddr>, String> {
        match self.proxied(PROXY_TIMEOUT) {
            Ok(proxy::Client::Local) => Ok(None),
            Ok(proxy::Client::At(client)) => Ok(Some(client)),
            // In no network, so that it has no rights.
            Ok(proxy::Client::Unknown) => Ok(Some(Ipv4Addr::UNSPECIFIED.into())),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                Err("sends no PROXY header".into())
            }
            Err(error) => Err(format!("sends no PROXY header: {error}")),
        }
    }

    /// Shakes hands; from now on everything is encrypted. `TimedOut` when that takes longer.
    pub fn start_tls(&mut self, settings: Arc<ServerConfig>, milliseconds: u32) -> io::Result<()> {
        let deadline = Deadline::after(milliseconds);
        let mut tls = Box::new(Stream::new(settings)?);
        while tls.is_handshaking() {
            let advanced = tls.advance();
            // Also after an error: the client is told of it.
            let sent = self.wire.send(&tls.output()?, deadline.left());
            let advanced = advanced?;
            match sent {
                // Who has agreed and is gone then has gone from a session.
                Err(error) if tls.is_handshaking() || !is_gone(&error) => return Err(error),
                _ => {}
            }
            if !advanced && Layer::fill(&mut *tls, &mut self.wire, deadline)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        self.tls = Some(tls);
        Ok(())
    }

    /// The version of TLS, as `TLSv1.3`, and the cipher suite, where the session is encrypted.
    pub fn tls_agreed(&self) -> Option<(&'static str, String)> {
        self.tls.as_ref().map(|tls| tls.agreed())
    }

    /// What TLS gives to name this connection by, where it does.
    pub fn tls_exported(&self) -> Option<Vec<u8>> {
        self.tls.as_ref()?.exported()
    }

    /// The certificate that the client has shown, where it was asked for one.
    pub fn client_certificate(&self) -> Option<Shown> {
        self.tls.as_ref()?.client_certificate()
    }

    /// Receives what there is; 0 when the client has ended. `TimedOut` when it says nothing for so
    /// long.
    pub fn receive(&mut self, buffer: &mut [u8], milliseconds: u32) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else {
            return self.wire.receive(buffer, milliseconds);
        };
        let deadline = Deadline::after(milliseconds);
        loop {
            let read = tls.read(buffer);
            // What TLS itself has to say: alerts, new keys.
            self.wire.send(&tls.output()?, deadline.left())?;
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return read,
            }
            // Many clients end without a word of TLS. Nothing is lost by that: SMTP and POP3 say
            // themselves where a message or a session ends.
            if tls.fill(&mut self.wire, deadline)? == 0 {
                return Ok(0);
            }
        }
    }

    /// From now on what is being sent is cut off some seconds after `asked` can be read, which is
    /// when the process is asked to end: `ConnectionAborted`.
    pub fn heed(&mut self, asked: BorrowedFd<'_>) -> io::Result<()> {
        self.wire.ending = Some(Ending { asked: asked.try_clone_to_owned()?, at: None });
        Ok(())
    }

    /// Sends all of it. `TimedOut` when the client does not take it in so long.
    pub fn send(&mut self, mut bytes: &[u8], milliseconds: u32) -> io::Result<()> {
        let Some(tls) = &mut self.tls else {
            return self.wire.send(bytes, milliseconds);
        };
        while !bytes.is_empty() {
            let taken = tls.write(bytes)?;
            bytes = bytes.get(taken..).unwrap_or_default();
            self.wire.send(&tls.output()?, milliseconds)?;
        }
        Ok(())
    }

    /// Tells the client that nothing more comes, where TLS has a word for that.
    pub fn finish(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.finish();
            let _ = tls.output().and_then(|farewell| self.wire.send(&farewell, FAREWELL));
        }
    }

    /// The two descriptors, for a child that keeps nothing else.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.wire.input.as_fd(), self.wire.output()]
    }
}

/// How long a load balancer may take to say who its client is, in milliseconds.
const PROXY_TIMEOUT: u32 = 10_000;

/// How long a client that takes nothing is waited for at the end, in milliseconds.
const FAREWELL: u32 = 1000;

/// So long, in milliseconds, goes on what is being sent when the process is asked to end.
const LAST: u32 = 3000;

/// The moment at which a client has been waited for long enough, however it has trickled.
#[derive(Clone, Copy)]
struct Deadline(Instant);

impl Deadline {
    fn after(milliseconds: u32) -> Self {
        Self(Instant::now() + Duration::from_millis(milliseconds.into()))
    }

    /// What is left, in milliseconds.
    fn left(self) -> u32 {
        let left = self.0.saturating_duration_since(Instant::now());
        u32::try_from(left.as_millis()).unwrap_or(u32::MAX)
    }
}

/// The descriptors, without TLS.
struct Wire {
    input: OwnedFd,
    /// Where it is another one: a socket needs one only.
    output: Option<OwnedFd>,
    is_socket: bool,
    /// Whether a read ends by itself, after [`activation::READ_TIMEOUT`].
    gives_up: bool,
    /// Where the process may be asked to end meanwhile.
    ending: Option<Ending>,
}

/// The end of a process that is sending.
struct Ending {
    /// Can be read when it is asked for.
    asked: OwnedFd,
    /// When what is being sent is cut off.
    at: Option<Deadline>,
}

impl Wire {
    fn output(&self) -> BorrowedFd<'_> {
        self.output.as_ref().unwrap_or(&self.input).as_fd()
    }

    fn receive(&mut self, buffer: &mut [u8], milliseconds: u32) -> io::Result<usize> {
        let deadline = Deadline::after(milliseconds);
        let mut left = milliseconds;
        loop {
            // Who need not be asked to wait just reads: half as many calls.
            let waits = self.gives_up && left >= activation::READ_TIMEOUT;
            if !waits && !fd::wait_readable(&self.input, left)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let read = nix::unistd::read(&self.input, buffer);
            left = deadline.left();
            match read {
                Err(nix::Error::EINTR | nix::Error::EAGAIN) => {}
                read => return Ok(read?),
            }
        }
    }

    fn send(&mut self, mut bytes: &[u8], milliseconds: u32) -> io::Result<()> {
        // A socket is tried first: it nearly always has room. A pipe would block.
        let mut wait = !self.is_socket;
        // Of all of it: who takes a byte now and then holds nobody up.
        let mut deadline = None;
        while !bytes.is_empty() {
            if wait {
                let deadline = *deadline.get_or_insert_with(|| Deadline::after(milliseconds));
                self.wait_for_room(deadline)?;
            }
            let sent = if self.is_socket {
                let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
                send(self.output().as_raw_fd(), bytes, flags)
            } else {
                nix::unistd::write(self.output(), bytes)
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

    fn wait_for_room(&mut self, deadline: Deadline) -> io::Result<()> {
        let output = self.output.as_ref().unwrap_or(&self.input);
        let cut_off = match &mut self.ending {
            Some(Ending { asked, at: at @ None }) => {
                let [has_room, is_asked] = fd::wait_writable_or(output, asked, deadline.left())?;
                if !is_asked {
                    return if has_room { Ok(()) } else { Err(io::ErrorKind::TimedOut.into()) };
                }
                *at.insert(Deadline::after(LAST))
            }
            Some(Ending { at: Some(at), .. }) => *at,
            None if fd::wait_writable(output, deadline.left())? => return Ok(()),
            None => return Err(io::ErrorKind::TimedOut.into()),
        };
        // Also who takes a little now and then is not waited for any longer.
        if cut_off.left() > 0 && fd::wait_writable(output, cut_off.left())? {
            return Ok(());
        }
        Err(io::ErrorKind::ConnectionAborted.into())
    }
}

/// Whether an error says that the client has closed the connection.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

#[cfg(test)]
mod tests;
