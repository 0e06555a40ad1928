//! One client: a socket, or a pipe or terminal.

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
}

impl Peer {
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
            Some(address) => address.fmt(f),
            None => f.write_str("local"),
        }
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
        let wire = Wire { input: client, output: None, is_socket: true, gives_up };
        Self { wire, tls: None, peer: Peer { address } }
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
        let wire = Wire { input, output: Some(output), is_socket, gives_up: false };
        Self { wire, tls: None, peer }
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

    /// Shakes hands; from now on everything is encrypted. `TimedOut` when that takes longer.
    pub fn start_tls(&mut self, settings: Arc<ServerConfig>, milliseconds: u32) -> io::Result<()> {
        let deadline = Deadline::after(milliseconds);
        let mut tls = Box::new(Stream::new(settings)?);
        while tls.is_handshaking() {
            let advanced = tls.advance();
            // Also after an error: the client is told of it.
            self.wire.send(&tls.output()?, deadline.left())?;
            if !advanced? && Layer::fill(&mut *tls, &mut self.wire, deadline)? == 0 {
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

/// How long a client that takes nothing is waited for at the end, in milliseconds.
const FAREWELL: u32 = 1000;

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
                let deadline = deadline.get_or_insert_with(|| Deadline::after(milliseconds));
                if !fd::wait_writable(self.output(), deadline.left())? {
                    return Err(io::ErrorKind::TimedOut.into());
                }
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
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConfig};

    use super::Connection;
    use crate::config::Tls;
    use crate::net::activation::Socket;
    use crate::net::tls::identity::Identity;
    use crate::net::tls::server::settings;

    const TIMEOUT: u32 = 10_000;

    /// A server's settings, and a client that trusts it.
    fn pair() -> (Arc<ServerConfig>, ClientConnection) {
        let place = tempfile::tempdir().unwrap();
        let made = rcgen::generate_simple_self_signed(vec!["mx.example".into()]).unwrap();
        let (chain, key) = (place.path().join("chain"), place.path().join("key"));
        std::fs::write(&chain, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let tls = Tls { certificate: chain.into(), key: key.into(), ..Tls::default() };
        let mut identity = Identity::of(&tls).unwrap();
        identity.refresh().unwrap();
        let settings = settings(&identity, false).0.unwrap().config;
        let mut roots = RootCertStore::empty();
        let certificate = CertificateDer::from_pem_slice(made.cert.pem().as_bytes()).unwrap();
        roots.add(certificate).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("mx.example").unwrap();
        (settings, ClientConnection::new(Arc::new(client), name).unwrap())
    }

    fn connection() -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Connection::new(ours.try_clone().unwrap().into(), ours.into()), theirs)
    }

    #[test]
    fn a_handshake_that_stops_half_way_is_given_up() {
        let (settings, mut client) = pair();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();
        for part in [0, 1, hello.len() / 2, hello.len()] {
            let (mut connection, mut peer) = connection();
            peer.write_all(&hello[..part]).unwrap();
            let error = connection.start_tls(Arc::clone(&settings), 50).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{part}");
            assert_eq!(connection.tls_agreed(), None);
        }
        let (mut connection, mut peer) = connection();
        peer.write_all(&hello[..50]).unwrap();
        peer.shutdown(Shutdown::Write).unwrap();
        let error = connection.start_tls(settings, TIMEOUT).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn what_is_no_handshake_is_an_error_and_the_client_is_told() {
        let (settings, _) = pair();
        let text = &b"EHLO client.example\r\nMAIL FROM:<a@b>\r\n"[..];
        let short_hello = &[0x16, 3, 1, 0, 5, 1, 0, 0, 1, 0];
        for noise in [text, short_hello] {
            let (mut connection, mut peer) = connection();
            peer.write_all(noise).unwrap();
            let error = connection.start_tls(Arc::clone(&settings), TIMEOUT).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
            drop(connection);
            let mut heard = Vec::new();
            let _ = peer.read_to_end(&mut heard);
            // An alert, and a fatal one.
            assert_eq!((heard.first(), heard.get(5)), (Some(&21), Some(&2)), "{heard:?}");
        }
    }

    #[test]
    fn bytes_go_both_ways_whatever_the_two_sides_take_at_once() {
        let (settings, mut client) = pair();
        let (mut connection, mut peer) = connection();
        let text: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_be_bytes()[3]).collect();
        let sent = text.clone();
        let other = std::thread::spawn(move || {
            let mut stream = rustls::Stream::new(&mut client, &mut peer);
            stream.write_all(&sent).unwrap();
            stream.flush().unwrap();
            // The server writes while nobody reads: its sends are partial ones.
            std::thread::sleep(std::time::Duration::from_millis(50));
            let mut heard = vec![0; sent.len()];
            stream.read_exact(&mut heard).unwrap();
            // The end is said in TLS, and not by a connection that breaks off.
            assert_eq!(stream.read(&mut [0]).unwrap(), 0);
            heard
        });
        connection.start_tls(settings, TIMEOUT).unwrap();
        let (version, cipher) = connection.tls_agreed().unwrap();
        assert_eq!((version, cipher.as_str()), ("TLSv1.3", "TLS_AES_256_GCM_SHA384"));
        let (mut heard, mut buffer) = (Vec::new(), [0; 1000]);
        while heard.len() < text.len() {
            let length = connection.receive(&mut buffer, TIMEOUT).unwrap();
            assert!(length > 0);
            heard.extend_from_slice(&buffer[..length]);
        }
        assert!(heard == text);
        connection.send(&text, TIMEOUT).unwrap();
        connection.finish();
        assert!(other.join().unwrap() == text);
    }

    #[test]
    fn a_client_that_came_before_the_listener_was_ready_is_no_more_patiently_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _early = TcpStream::connect(address).unwrap();
        let socket = Socket::Tcp(listener);
        socket.prepare().unwrap();
        let _late = TcpStream::connect(address).unwrap();
        for gives_up in [false, true] {
            let (client, from) = socket.accept().unwrap();
            assert_eq!(Connection::accepted(client, from).wire.gives_up, gives_up);
        }
    }

    #[test]
    fn who_takes_all_of_it_too_slowly_is_given_up_whatever_it_takes() {
        let (mut connection, mut peer) = connection();
        let other = std::thread::spawn(move || {
            let (mut heard, mut buffer) = (0, vec![0; 32 * 1024]);
            while let Ok(length @ 1..) = peer.read(&mut buffer) {
                heard += length;
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            heard
        });
        // It would take more than a second, of which it never misses much.
        let error = connection.send(&vec![0; 10_000_000], 300).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        drop(connection);
        assert!(other.join().unwrap() > 0);
    }

    #[test]
    fn a_client_ends_with_a_word_of_tls_or_without() {
        for polite in [true, false] {
            let (settings, mut client) = pair();
            let (mut connection, mut peer) = connection();
            let other = std::thread::spawn(move || {
                let mut stream = rustls::Stream::new(&mut client, &mut peer);
                stream.write_all(b"QUIT").unwrap();
                if polite {
                    client.send_close_notify();
                    client.write_tls(&mut peer).unwrap();
                }
                peer.shutdown(Shutdown::Write).unwrap();
                peer
            });
            connection.start_tls(settings, TIMEOUT).unwrap();
            let mut buffer = [0; 10];
            assert_eq!(connection.receive(&mut buffer, TIMEOUT).unwrap(), 4);
            assert_eq!(connection.receive(&mut buffer, TIMEOUT).unwrap(), 0);
            drop(other.join());
        }
    }
}
