//! The other side of a connection, polite or not: sends what bytes it is told, when it is told,
//! half-closes, resets, and reads replies.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, setsockopt, socket, sockopt,
};
use rustls::{ClientConnection, StreamOwned};

use super::PATIENCE;

/// The kinds of connections there are.
pub enum Stream {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        Self::Tcp(stream)
    }
}

impl From<UnixStream> for Stream {
    fn from(stream: UnixStream) -> Self {
        Self::Unix(stream)
    }
}

impl Stream {
    fn read(&mut self, buffer: &mut [u8], limit: Duration) -> io::Result<usize> {
        let limit = Some(limit.max(Duration::from_millis(1)));
        match self {
            Self::Tcp(stream) => {
                stream.set_read_timeout(limit)?;
                stream.read(buffer)
            }
            Self::Tls(stream) => {
                stream.sock.set_read_timeout(limit)?;
                stream.read(buffer)
            }
            Self::Unix(stream) => {
                stream.set_read_timeout(limit)?;
                stream.read(buffer)
            }
        }
    }

    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => {
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.write_all(bytes)
            }
            Self::Tls(stream) => {
                stream.sock.set_write_timeout(Some(PATIENCE))?;
                stream.write_all(bytes)
            }
            Self::Unix(stream) => {
                stream.set_write_timeout(Some(PATIENCE))?;
                stream.write_all(bytes)
            }
        }
    }
}

/// What came next from the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// A line, without its line end.
    Line(Vec<u8>),
    /// The end of the connection, and what stood before it without a line end.
    Closed(Vec<u8>),
    /// Nothing, in the time given.
    Silence,
}

/// A peer of a server.
pub struct Peer {
    stream: Stream,
    buffer: Vec<u8>,
    closed: bool,
    /// Whether a line of the other side ended in LF alone.
    pub bare_lf: bool,
    /// What strace calls the end that the server has, where that is known.
    pub other_end: String,
    /// Everything said and heard, for the message of a test that fails.
    dialogue: String,
}

impl Peer {
    pub fn new(stream: impl Into<Stream>) -> Self {
        Self {
            stream: stream.into(),
            buffer: Vec::new(),
            closed: false,
            bare_lf: false,
            other_end: String::new(),
            dialogue: String::new(),
        }
    }

    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect(address).unwrap())
    }

    /// Connects from an address of this machine, 127.0.0.2 for one.
    #[track_caller]
    pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let SocketAddr::V4(address) = address else {
            panic!("no IPv4 address: {address}");
        };
        let flags = SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Inet, SockType::Stream, flags, None).unwrap();
        let [a, b, c, d] = source.octets();
        bind(socket.as_raw_fd(), &SockaddrIn::new(a, b, c, d, 0)).unwrap();
        connect(socket.as_raw_fd(), &SockaddrIn::from(address)).unwrap();
        Self::new(TcpStream::from(socket))
    }

    /// Where it comes from.
    pub fn address(&self) -> SocketAddr {
        match &self.stream {
            Stream::Tcp(stream) => stream.local_addr().unwrap(),
            Stream::Tls(stream) => stream.sock.local_addr().unwrap(),
            Stream::Unix(_) => panic!("a local socket has no address"),
        }
    }

    /// Sends bytes as they are. A connection that is gone is no error here: what the server said
    /// before it went is what a test looks at.
    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let bytes = bytes.as_ref();
        self.note("C", bytes);
        self.stream.write_all(bytes).is_ok()
    }

    /// Sends the bytes in pieces, with a pause behind each.
    pub fn dribble(&mut self, bytes: &[u8], piece: usize, pause: Duration) -> bool {
        bytes.chunks(piece).all(|piece| {
            let sent = self.send(piece);
            std::thread::sleep(pause);
            sent
        })
    }

    /// Says that nothing more will be sent, and goes on listening.
    pub fn half_close(&mut self) {
        self.note("C", b"<end of input>");
        let _ = match &mut self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(stream) => {
                stream.conn.send_close_notify();
                stream.conn.write_tls(&mut stream.sock).map(drop)
            }
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
        };
    }

    /// Shakes hands for TLS, after the server has said that it is ready.
    pub fn start_tls(&mut self, mut client: ClientConnection) -> io::Result<()> {
        assert!(self.buffer.is_empty(), "said before TLS: {}", self.dialogue);
        let Stream::Tcp(stream) = &self.stream else {
            panic!("no TCP connection in the clear");
        };
        let mut stream = stream.try_clone()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        while client.is_handshaking() {
            client.complete_io(&mut stream)?;
        }
        self.note("C", b"<TLS>");
        self.stream = Stream::Tls(Box::new(StreamOwned::new(client, stream)));
        Ok(())
    }

    /// Whether TLS went on from an earlier session, by a ticket.
    pub fn is_resumed(&self) -> bool {
        let Stream::Tls(stream) = &self.stream else {
            return false;
        };
        stream.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed)
    }

    /// What TLS gives to name this connection by (RFC 9266).
    pub fn exported(&self) -> Vec<u8> {
        let Stream::Tls(stream) = &self.stream else {
            panic!("no TLS");
        };
        let label = b"EXPORTER-Channel-Binding";
        stream.conn.export_keying_material(vec![0; 32], label, Some(b"")).unwrap()
    }

    /// Drops the connection with a reset, as a host that has crashed does.
    pub fn reset(self) {
        if let Stream::Tcp(stream) = &self.stream {
            let linger = libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(stream, sockopt::Linger, &linger).unwrap();
        }
    }

    /// Hears one line.
    pub fn hear(&mut self) -> Heard {
        self.hear_within(PATIENCE)
    }

    pub fn hear_within(&mut self, limit: Duration) -> Heard {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(end) = self.buffer.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                match line.last() {
                    Some(b'\r') => drop(line.pop()),
                    _ => self.bare_lf = true,
                }
                self.note("S", &line);
                return Heard::Line(line);
            }
            if self.closed {
                let rest = std::mem::take(&mut self.buffer);
                self.note("S", b"<closed>");
                return Heard::Closed(rest);
            }
            let mut chunk = [0; 16 * 1024];
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stream.read(&mut chunk, left) {
                Ok(0) => self.closed = true,
                Ok(n) => self.buffer.extend_from_slice(&chunk[..n]),
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock
                            | io::ErrorKind::TimedOut
                            | io::ErrorKind::Interrupted
                    ) =>
                {
                    if Instant::now() >= deadline {
                        return Heard::Silence;
                    }
                }
                // A reset: they have gone.
                Err(_) => self.closed = true,
            }
        }
    }

    /// So many bytes, whatever they are; none where the connection ends before them.
    pub fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        while self.buffer.len() < length {
            let mut chunk = vec![0; 64 * 1024];
            let left = deadline.saturating_duration_since(Instant::now());
            match self.stream.read(&mut chunk, left) {
                Ok(n @ 1..) => self.buffer.extend_from_slice(&chunk[..n]),
                _ => return None,
            }
        }
        self.note("S", format!("<{length} bytes>").as_bytes());
        Some(self.buffer.drain(..length).collect())
    }

    /// One line as text; the end of the connection is an empty one.
    pub fn line(&mut self) -> String {
        match self.hear() {
            Heard::Line(line) => String::from_utf8_lossy(&line).into_owned(),
            Heard::Closed(rest) => String::from_utf8_lossy(&rest).into_owned(),
            Heard::Silence => panic!("no answer:\n{}", self.dialogue),
        }
    }

    /// One SMTP reply, all of its lines; empty where the connection has ended.
    pub fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let line = self.line();
            let more = line.as_bytes().get(3) == Some(&b'-');
            reply.push_str(&line);
            if !more {
                return reply;
            }
            reply.push('\n');
        }
    }

    /// Everything until the end of the connection.
    pub fn rest(&mut self) -> String {
        let mut all = String::new();
        loop {
            match self.hear() {
                Heard::Line(line) => {
                    all.push_str(&String::from_utf8_lossy(&line));
                    all.push('\n');
                }
                Heard::Closed(rest) => {
                    all.push_str(&String::from_utf8_lossy(&rest));
                    return all;
                }
                Heard::Silence => panic!("the connection does not end:\n{}", self.dialogue),
            }
        }
    }

    /// Sends an SMTP command, and gives its reply.
    pub fn command(&mut self, command: impl AsRef<[u8]>) -> String {
        let mut line = command.as_ref().to_vec();
        line.extend_from_slice(b"\r\n");
        self.send(line);
        self.reply()
    }

    /// The beginning of an SMTP session.
    #[track_caller]
    pub fn greet(&mut self) {
        let greeting = self.reply();
        assert!(greeting.starts_with("220 "), "{greeting:?}");
        let reply = self.command("EHLO client.example");
        assert!(reply.starts_with("250-"), "{reply:?}");
    }

    /// One mail transaction; the reply to its last command, or to the first that was refused.
    pub fn mail(&mut self, from: &str, to: &[&str], message: &[u8]) -> String {
        let reply = self.command(format!("MAIL FROM:<{from}>"));
        if !reply.starts_with("250 ") {
            return reply;
        }
        for to in to {
            let reply = self.command(format!("RCPT TO:<{to}>"));
            if !reply.starts_with("250 ") {
                return reply;
            }
        }
        let reply = self.command("DATA");
        if !reply.starts_with("354 ") {
            return reply;
        }
        self.send(stuffed(message));
        self.reply()
    }

    /// Sends a POP3 command, and gives the one line of its answer.
    pub fn pop(&mut self, command: &str) -> String {
        self.send(format!("{command}\r\n"));
        self.line()
    }

    /// What an IMAP server says to a command, up to the line that ends its answer.
    #[track_caller]
    pub fn imap(&mut self, command: &str) -> String {
        let tag = command.split(' ').next().unwrap().to_owned();
        self.send(format!("{command}\r\n"));
        let mut said = String::new();
        loop {
            let line = self.line();
            let is_last = line.starts_with(&format!("{tag} ")) || line.starts_with('+');
            said.push_str(&line);
            said.push('\n');
            if is_last || line.is_empty() {
                return said;
            }
        }
    }

    /// The rest of a POP3 answer of many lines, without dot transparency, with LF line ends.
    #[track_caller]
    pub fn pop_body(&mut self) -> Vec<u8> {
        let mut body = Vec::new();
        loop {
            match self.hear() {
                Heard::Line(line) if line == b"." => return body,
                Heard::Line(line) => {
                    body.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
                    body.push(b'\n');
                }
                other => panic!("{other:?} inside a message:\n{}", self.dialogue),
            }
        }
    }

    /// What was said and heard until now.
    pub fn dialogue(&self) -> &str {
        &self.dialogue
    }

    fn note(&mut self, who: &str, bytes: &[u8]) {
        let text = bytes.escape_ascii().to_string();
        self.dialogue.push_str(who);
        self.dialogue.push_str(": ");
        match text.char_indices().nth(400) {
            Some((cut, _)) => {
                self.dialogue.push_str(&text[..cut]);
                self.dialogue.push_str(" … and more");
            }
            None => self.dialogue.push_str(&text),
        }
        self.dialogue.push('\n');
    }
}

/// A message as DATA sends it: CRLF line ends, dots doubled, and the end.
pub fn stuffed(message: &[u8]) -> Vec<u8> {
    let mut all = Vec::with_capacity(message.len() + message.len() / 16 + 5);
    let message = message.strip_suffix(b"\n").unwrap_or(message);
    for line in message.split(|b| *b == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if line.first() == Some(&b'.') {
            all.push(b'.');
        }
        all.extend_from_slice(line);
        all.extend_from_slice(b"\r\n");
    }
    all.extend_from_slice(b".\r\n");
    all
}
