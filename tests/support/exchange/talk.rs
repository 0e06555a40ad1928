//! One session of an exchange: it follows the commands, asks the script before each answer, and
//! writes down what it hears.

use std::cmp::Reverse;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::{Arc, OnceLock};

use memchr::memmem;
use nix::libc;
use nix::sys::socket::{MsgFlags, recv, setsockopt, sockopt};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Act, Message, Record, Shared, Step, Tls, Turn, verb_of};

enum Wire {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Wire {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }

    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes),
            Self::Tls(stream) => {
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }
}

/// Whether the session goes on.
type Going = io::Result<bool>;

/// One session.
pub(super) struct Talk {
    shared: Arc<Shared>,
    number: usize,
    wire: Wire,
    /// What was read and not yet looked at.
    buffer: Vec<u8>,
    /// Whether it still counts as open.
    counted: bool,
    /// Whether it ends with a reset.
    reset: bool,
    steps: Vec<Step>,
    /// Whether MAIL was accepted.
    begun: bool,
    sender: String,
    parameters: String,
    recipients: Vec<String>,
    pipelining: bool,
    /// Whether EHLO, and not HELO, was accepted.
    extended: bool,
}

impl Talk {
    pub(super) fn new(stream: TcpStream, number: usize, shared: Arc<Shared>) -> Self {
        Self {
            shared,
            number,
            wire: Wire::Plain(stream),
            buffer: Vec::new(),
            counted: true,
            reset: false,
            steps: Vec::new(),
            begun: false,
            sender: String::new(),
            parameters: String::new(),
            recipients: Vec::new(),
            pipelining: false,
            extended: false,
        }
    }

    /// The session from the greeting to its end.
    pub(super) fn hold(mut self) {
        // An error is the end of the connection.
        let _ = self.run();
        self.uncount();
        self.part();
    }

    fn run(&mut self) -> io::Result<()> {
        let greeting = format!("220 {} ESMTP", self.shared.script.name);
        let (_, mut going) = self.step(Step::Connect, "", &greeting)?;
        while going {
            let Some(line) = self.line()? else {
                return Ok(());
            };
            going = self.command(&line)?;
        }
        Ok(())
    }

    /// Ends the connection. Closed with input that nobody has read it would end with a reset, and
    /// the client might lose the last reply.
    fn part(&mut self) {
        let mine = self.wire.tcp().peer_addr().ok();
        if !self.reset {
            let _ = self.wire.tcp().shutdown(Shutdown::Write);
            let mut chunk = [0; 4096];
            while self.wire.tcp().read(&mut chunk).is_ok_and(|n| n > 0) {}
        }
        // The last handle besides our own.
        let mut streams = self.shared.streams.lock().unwrap();
        streams.retain(|stream| stream.peer_addr().ok() != mine);
    }

    fn command(&mut self, line: &str) -> Going {
        self.with(|record, number| record.sessions[number].commands.push(line.to_owned()));
        if line.len() > 510 && !verb_of(line).starts_with("MAIL") {
            self.complain("a command line that is too long", line);
        }
        let verb = verb_of(line);
        let early = self.is_heard_from();
        if verb != "BDAT"
            && (!self.pipelining || !matches!(verb.as_str(), "MAIL" | "RCPT" | "RSET"))
        {
            if early {
                self.complain("did not wait for the reply", line);
            }
        } else {
            self.with(|record, number| record.sessions[number].pipelined |= early);
        }
        match verb.as_str() {
            "EHLO" => self.hello(Step::Ehlo, line),
            "HELO" => self.hello(Step::Helo, line),
            "STARTTLS" => self.start_tls(line),
            "MAIL" => self.mail(line),
            "RCPT" => self.rcpt(line),
            "DATA" => self.data(line),
            "BDAT" => self.bdat(line),
            "RSET" => {
                self.forget();
                Ok(self.step(Step::Rset, line, "250 2.0.0 Ok")?.1)
            }
            "QUIT" => {
                self.uncount();
                self.step(Step::Quit, line, "221 2.0.0 Bye")?;
                Ok(false)
            }
            _ => {
                self.complain("an unknown command", line);
                self.say("500 5.5.2 What?")?;
                Ok(true)
            }
        }
    }

    fn hello(&mut self, step: Step, line: &str) -> Going {
        self.forget();
        let script = &self.shared.script;
        let mut lines = vec![script.name.clone()];
        if step == Step::Ehlo {
            lines.extend(script.extensions.iter().cloned());
            let encrypted = matches!(self.wire, Wire::Tls(_));
            lines.extend((script.tls.is_some() && !encrypted).then(|| "STARTTLS".to_owned()));
        }
        let (reply, going) = self.step(step, line, &reply_of(250, &lines))?;
        if reply.starts_with('2') {
            self.extended = step == Step::Ehlo;
            self.pipelining = offers(&reply, "PIPELINING");
        }
        Ok(going)
    }

    fn start_tls(&mut self, line: &str) -> Going {
        let Some(tls) = self.shared.script.tls else {
            self.complain("STARTTLS was not offered", line);
            return self.say("502 5.5.1 No").map(|()| true);
        };
        let go = match tls {
            Tls::Injects => "220 2.0.0 Go\n250-exchange.test\n250 SIZE 1",
            _ => "220 2.0.0 Go",
        };
        let (reply, going) = self.step(Step::StartTls, line, go)?;
        if !going || !reply.starts_with('2') {
            return Ok(going);
        }
        match tls {
            Tls::HangsUp => return Ok(false),
            Tls::Broken => {
                // Behind the beginning of the client's handshake, so that it belongs to that.
                self.raw_bytes()?;
                self.wire.write(b"\x15\x03\x01\x00\x02\x02\x28 no TLS here\r\n")?;
                return Ok(false);
            }
            Tls::SelfSigned | Tls::Injects => {}
        }
        if !self.buffer.is_empty() {
            self.complain("bytes behind STARTTLS", line);
            self.buffer.clear();
        }
        let connection = ServerConnection::new(server_config()).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(connection, self.wire.tcp().try_clone()?);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        self.wire = Wire::Tls(Box::new(stream));
        (self.pipelining, self.extended) = (false, false);
        self.with(|record, number| record.sessions[number].tls = true);
        Ok(true)
    }

    fn mail(&mut self, line: &str) -> Going {
        self.forget();
        let (path, parameters) = path_of(line);
        for parameter in parameters.split_whitespace() {
            let (word, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let extension = match word {
                "BODY" if value == "BINARYMIME" => "BINARYMIME",
                "BODY" => "8BITMIME",
                "RET" | "ENVID" => "DSN",
                word => word,
            };
            let script = &self.shared.script;
            let offered = script.extensions.iter().any(|line| verb_of(line) == extension);
            if !(self.extended && offered) {
                self.complain("a parameter that was not offered", line);
            }
        }
        let (reply, going) = self.step(Step::Mail, line, "250 2.1.0 Ok")?;
        if reply.starts_with('2') {
            (self.begun, self.sender, self.parameters) = (true, path, parameters);
        }
        Ok(going)
    }

    fn rcpt(&mut self, line: &str) -> Going {
        let (path, parameters) = path_of(line);
        let script = &self.shared.script;
        let knows_dsn = script.extensions.iter().any(|line| verb_of(line) == "DSN");
        if !parameters.is_empty() && !knows_dsn {
            self.complain("a parameter that was not offered", line);
        }
        let polite = if self.begun { "250 2.1.5 Ok" } else { "503 5.5.1 MAIL first" };
        let (reply, going) = self.step(Step::Rcpt, line, polite)?;
        if reply.starts_with('2') {
            self.recipients.push(path);
        }
        Ok(going)
    }

    fn data(&mut self, line: &str) -> Going {
        let polite =
            if self.recipients.is_empty() { "554 5.5.1 No valid recipients" } else { "354 Go on" };
        let (reply, going) = self.step(Step::Data, line, polite)?;
        if !going || !reply.starts_with('3') {
            return Ok(going);
        }
        if self.parameters.contains("BINARYMIME") {
            self.complain("DATA for what has no lines", line);
        }
        let lenient = !self.shared.script.ends.is_empty();
        let text = if lenient { self.lenient_text()? } else { self.text()? };
        self.keep(text)
    }

    /// One chunk, the last one (RFC 3030); the client is polite and sends no other.
    fn bdat(&mut self, line: &str) -> Going {
        let words: Vec<&str> = line.split(' ').collect();
        let ["BDAT", size, "LAST"] = words[..] else {
            self.complain("a chunk that is not the last", line);
            return Ok(false);
        };
        if self.recipients.is_empty() {
            self.complain("a chunk for nobody", line);
        }
        let size: usize = size.parse().map_err(io::Error::other)?;
        let mut text = std::mem::take(&mut self.buffer);
        while text.len() < size {
            let mut chunk = [0; 8 * 1024];
            match self.wire.read(&mut chunk)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => text.extend_from_slice(&chunk[..n]),
            }
        }
        self.buffer = text.split_off(size);
        self.keep(text)
    }

    /// The text is there: what is said to it.
    fn keep(&mut self, text: Vec<u8>) -> Going {
        let message = Message {
            sender: self.sender.clone(),
            parameters: self.parameters.clone(),
            recipients: self.recipients.clone(),
            text,
            reply: String::new(),
            session: self.number,
            tls: matches!(self.wire, Wire::Tls(_)),
        };
        let index = self.with(|record, _| {
            record.messages.push(message);
            record.messages.len() - 1
        });
        let polite = format!("250 2.0.0 Ok: queued as T{index}");
        let act = self.ask(Step::End, ".");
        // Counted before the client knows: whoever has seen the client's end sees the message.
        let promised = promise(&act, &polite);
        self.with(|record, _| record.messages[index].reply = promised);
        let (_, going) = self.act(act, &polite)?;
        self.forget();
        Ok(going)
    }

    /// The text up to the lone dot, without dot transparency.
    fn text(&mut self) -> io::Result<Vec<u8>> {
        let mut text = Vec::new();
        loop {
            let Some(line) = self.raw_line()? else {
                return Err(io::ErrorKind::UnexpectedEof.into());
            };
            if line == b".\r\n" {
                return Ok(text);
            }
            if !line.ends_with(b"\r\n") || line[..line.len() - 2].contains(&b'\r') {
                self.complain("a bare CR or LF in the text", &line.escape_ascii().to_string());
            }
            text.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        }
    }

    /// The text up to the first end that the script knows, dots and all. That is looked for in all
    /// that the client sent before it waits, which is behind the right end, and what stands behind
    /// it are commands.
    fn lenient_text(&mut self) -> io::Result<Vec<u8>> {
        const END: &[u8] = b"\r\n.\r\n";
        // The line end of DATA may begin an end.
        let mut text = b"\r\n".to_vec();
        while !text.ends_with(END) {
            let more = self.raw_bytes()?;
            if more.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            text.extend_from_slice(&more);
        }
        let known = self.shared.script.ends.iter().map(String::as_bytes).chain([END]);
        let found = known.filter_map(|end| Some((memmem::find(&text, end)?, end)));
        // Of two with the same dot the one that goes on longer: CRLF dot CR begins the right end.
        let dot = |end: &[u8]| end.iter().position(|byte| *byte == b'.');
        let (at, length) = found
            .map(|(at, end)| (at + dot(end).unwrap(), at, end.len()))
            .min_by_key(|(dot, at, length)| (*dot, Reverse(at + length)))
            .map(|(_, at, length)| (at, length))
            .unwrap();
        self.buffer = text.split_off(at + length);
        text.truncate(at);
        Ok(text)
    }

    /// Asks the script and does what it says; the reply (empty where there was none).
    fn step(&mut self, step: Step, line: &str, polite: &str) -> io::Result<(String, bool)> {
        let act = self.ask(step, line);
        self.act(act, polite)
    }

    fn ask(&mut self, step: Step, line: &str) -> Act {
        let nth = self.steps.iter().filter(|before| **before == step).count();
        self.steps.push(step);
        (self.shared.script.rule)(&Turn {
            step,
            line,
            session: self.number,
            nth,
            tls: matches!(self.wire, Wire::Tls(_)),
            sender: &self.sender,
            recipients: &self.recipients,
        })
    }

    fn act(&mut self, act: Act, polite: &str) -> io::Result<(String, bool)> {
        let nothing = String::new();
        match act {
            Act::Polite => {
                self.say(polite)?;
                Ok((polite.to_owned(), true))
            }
            Act::Reply(reply) => {
                self.say(&reply)?;
                Ok((reply, true))
            }
            Act::Last(reply) => {
                self.uncount();
                self.say(&reply)?;
                Ok((reply, false))
            }
            Act::HangUp => Ok((nothing, false)),
            Act::Reset => {
                let linger = libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(self.wire.tcp(), sockopt::Linger, &linger)?;
                self.reset = true;
                Ok((nothing, false))
            }
            Act::Silence => {
                let mut chunk = [0; 4096];
                while self.wire.read(&mut chunk)? > 0 {}
                Ok((nothing, false))
            }
            Act::Raw(bytes) => {
                self.wire.write(&bytes)?;
                Ok((polite.to_owned(), true))
            }
            Act::Flood(bytes) => loop {
                self.wire.write(&bytes)?;
            },
            Act::After(pause, act) => {
                std::thread::sleep(pause);
                self.act(*act, polite)
            }
        }
    }

    /// Sends a reply, its lines parted by `\n`.
    fn say(&mut self, reply: &str) -> io::Result<()> {
        let reply = format!("{}\r\n", reply.replace('\n', "\r\n"));
        self.wire.write(reply.as_bytes())
    }

    /// A command line without its end; `None` at the end of the connection.
    fn line(&mut self) -> io::Result<Option<String>> {
        let Some(mut line) = self.raw_line()? else {
            return Ok(None);
        };
        if line.ends_with(b"\r\n") {
            line.truncate(line.len() - 2);
        } else {
            line.pop();
            self.complain("a command line that ends in LF", &line.escape_ascii().to_string());
        }
        Ok(Some(String::from_utf8_lossy(&line).into_owned()))
    }

    /// What comes next, whatever it is.
    fn raw_bytes(&mut self) -> io::Result<Vec<u8>> {
        if self.buffer.is_empty() {
            let mut chunk = [0; 8 * 1024];
            let n = self.wire.read(&mut chunk)?;
            self.buffer.extend_from_slice(&chunk[..n]);
        }
        Ok(std::mem::take(&mut self.buffer))
    }

    /// A line with its end.
    fn raw_line(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut searched = 0;
        loop {
            if let Some(end) = memchr::memchr(b'\n', &self.buffer[searched..]) {
                return Ok(Some(self.buffer.drain(..=searched + end).collect()));
            }
            searched = self.buffer.len();
            let mut chunk = [0; 8 * 1024];
            match self.wire.read(&mut chunk)? {
                0 => return Ok(None),
                n => self.buffer.extend_from_slice(&chunk[..n]),
            }
        }
    }

    /// Whether there is more of the client to be read already.
    fn is_heard_from(&self) -> bool {
        let mut next = [0];
        let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
        let waits = match &self.wire {
            Wire::Plain(stream) => recv(stream.as_raw_fd(), &mut next, flags).is_ok_and(|n| n > 0),
            Wire::Tls(_) => false,
        };
        waits || !self.buffer.is_empty()
    }

    fn complain(&self, what: &str, line: &str) {
        let complaint = format!("{what}: {line}");
        self.with(|record, _| record.complaints.push(complaint));
    }

    fn with<T>(&self, look: impl FnOnce(&mut Record, usize) -> T) -> T {
        look(&mut self.shared.record.lock().unwrap(), self.number)
    }

    /// Counts as open no longer, from before the client can know it.
    fn uncount(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.with(|record, _| record.open -= 1);
        }
    }

    fn forget(&mut self) {
        self.begun = false;
        self.sender.clear();
        self.parameters.clear();
        self.recipients.clear();
    }
}

/// What the client will be told, as far as it is a reply.
fn promise(act: &Act, polite: &str) -> String {
    match act {
        Act::Polite => polite.to_owned(),
        Act::Reply(reply) | Act::Last(reply) => reply.clone(),
        Act::After(_, act) => promise(act, polite),
        Act::Raw(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Act::HangUp | Act::Reset | Act::Silence | Act::Flood(_) => String::new(),
    }
}

fn offers(reply: &str, extension: &str) -> bool {
    let mut lines = reply.lines().skip(1);
    lines.any(|line| line.get(4..).is_some_and(|rest| verb_of(rest) == extension))
}

/// The path in `MAIL FROM:<path> parameters`, and those parameters.
fn path_of(line: &str) -> (String, String) {
    let (_, rest) = line.split_once('<').unwrap_or(("", ""));
    let (path, parameters) = rest.rsplit_once('>').unwrap_or((rest, ""));
    (path.to_owned(), parameters.trim().to_owned())
}

fn reply_of(code: u16, lines: &[String]) -> String {
    let last = lines.len() - 1;
    let line = |(number, text): (usize, &String)| {
        format!("{code}{}{text}", if number == last { ' ' } else { '-' })
    };
    lines.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

/// TLS with a certificate that is made once for all exchanges of a test run.
fn server_config() -> Arc<ServerConfig> {
    static CONFIG: OnceLock<Arc<ServerConfig>> = OnceLock::new();
    let make = || {
        let made = rcgen::generate_simple_self_signed(vec!["exchange.test".to_owned()]).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key);
        Arc::new(config.unwrap())
    };
    Arc::clone(CONFIG.get_or_init(make))
}
