//! One connection to a mail exchange: the driver of [`Client`].

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::fate::{Fate, Remote};
use super::super::report::Action;
use super::hosts::Host;
use crate::net::tls;
use crate::queue::{Entry, Outcome};
use crate::route::mx::Unroutable;
use crate::smtp::Recipient;
use crate::smtp::client::{Client, Credentials, Event, Message, Tls};
use crate::smtp::reply::{Answer, Meaning};

/// How long a host may take to be reached. (RFC 5321 names no limit; a host that is there answers
/// in a few seconds.)
const DIAL: Duration = Duration::from_secs(30);
/// How long all may take from the greeting until a message can be sent.
const HELLO: Duration = Duration::from_mins(10);
/// How long an envelope may take, and the reply to the text.
const DIALOGUE: Duration = Duration::from_mins(20);
/// The least that a host must take of a text, bytes a second.
const SLOWEST: u64 = 4096;
/// How long the words of a host that hangs up are waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_mins(2);
/// Text is read from the queue in pieces of this size.
const CHUNK: usize = 64 * 1024;

/// How this host introduces itself.
pub struct Caller<'a> {
    /// Its name.
    pub hostname: &'a str,
    /// Calls that may be made at once.
    pub dialing: &'a Semaphore,
    /// What it needs for TLS.
    pub tls: &'a tls::client::Client,
    /// How it logs in; then only over TLS, to the host whose certificate is right.
    pub credentials: Option<&'a Credentials>,
    /// It calls the smarthost: a host that the operator has named.
    pub to_smarthost: bool,
    /// TLS begins before the first word (RFC 8314 section 3.3).
    pub implicit_tls: bool,
}

/// Why a host did not take mail, or not any more. No recipient's own fault.
#[derive(Debug)]
pub struct Trouble {
    /// What is to be said of the recipients that wait for it.
    pub fate: Fate,
    /// Whether the text was sent, so that the message may have arrived all the same.
    pub unsure: bool,
}

/// What is spoken over.
enum Stream {
    Plain(TcpStream),
    Secure(Box<TlsStream<TcpStream>>),
}

trait Wire: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Wire for T {}

impl Stream {
    fn wire(&mut self) -> Pin<&mut dyn Wire> {
        match self {
            Self::Plain(stream) => Pin::new(stream),
            Self::Secure(stream) => Pin::new(stream),
        }
    }
}

/// An open connection.
pub struct Connection {
    host: Host,
    client: Client,
    /// `None` once a TLS handshake has failed.
    stream: Option<Stream>,
    /// What is being sent, and how much of it was.
    output: Vec<u8>,
    sent: usize,
    /// When what is under way must be over, however the host spreads its lines.
    limit: Instant,
    tls: String,
}

impl Connection {
    /// Calls a host and introduces ourselves, until a message can be sent. Where TLS is offered but
    /// fails, it calls again without.
    pub async fn open(host: &Host, caller: &Caller<'_>) -> Result<Self, Trouble> {
        let policy = match caller.credentials {
            _ if caller.implicit_tls => Tls::Unneeded,
            Some(_) => Tls::Required,
            None => Tls::Opportunistic,
        };
        let mut connection = Self::dial(host, caller, policy).await?;
        let failed = |what| Trouble::new(host, "4.7.5", &format!("TLS with {host}: {what}"));
        if caller.implicit_tls {
            connection.start_tls(caller).await.map_err(failed)?;
        }
        match connection.hello().await? {
            Event::Ready => return Ok(connection),
            Event::StartTls => {}
            event => return Err(connection.end(event).await),
        }
        // By TLS 1.3 a server may object after our side of the handshake is done.
        let event = match connection.start_tls(caller).await.map_err(failed) {
            Ok(()) => connection.hello().await,
            Err(trouble) => Err(trouble),
        };
        let event = match event {
            Err(_) if policy == Tls::Opportunistic => {
                connection = Self::dial(host, caller, Tls::Never).await?;
                connection.hello().await
            }
            event => event,
        };
        match event? {
            Event::Ready => Ok(connection),
            event => Err(connection.end(event).await),
        }
    }

    async fn dial(host: &Host, caller: &Caller<'_>, policy: Tls) -> Result<Self, Trouble> {
        let address = SocketAddr::new(host.address, host.port);
        let permit = caller.dialing.acquire().await;
        let dialed = timeout(DIAL, TcpStream::connect(address)).await;
        // One who is there but does not greet keeps no other waiting.
        drop(permit);
        let stream =
            dialed.map_err(io::Error::from).and_then(|dialed| dialed).map_err(|error| {
                let mut trouble =
                    Trouble::new(host, "4.4.1", &format!("connect to {host}: {}", cause(&error)));
                // Our own want of descriptors is not the host's fault.
                let number = error.raw_os_error().map(nix::Error::from_raw);
                trouble.fate.untried =
                    matches!(number, Some(nix::Error::EMFILE | nix::Error::ENFILE));
                trouble
            })?;
        // Commands are written whole; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        let mut client = Client::new(caller.hostname, policy, caller.credentials.cloned());
        // The second is what hosts are called that were given no name.
        if caller.to_smarthost || caller.hostname == "localhost" {
            client.expect_own_name();
        }
        Ok(Self {
            host: host.clone(),
            client,
            stream: Some(Stream::Plain(stream)),
            output: Vec::new(),
            sent: 0,
            limit: Instant::now() + HELLO,
            tls: String::new(),
        })
    }

    /// Greeting and introduction.
    async fn hello(&mut self) -> Result<Event, Trouble> {
        self.event().await.map_err(|error| self.lost("the greeting", &error))
    }

    async fn start_tls(&mut self, caller: &Caller<'_>) -> io::Result<()> {
        let Some(Stream::Plain(stream)) = self.stream.take() else {
            return Err(io::ErrorKind::NotConnected.into());
        };
        let strict = caller.credentials.is_some();
        let config = caller.tls.config(strict).ok_or_else(|| {
            io::Error::other("this host knows no certificate authorities to verify it with")
        })?;
        let name = tls::client::server_name(&self.host.name, self.host.address);
        let handshake = TlsConnector::from(config).connect(name.clone(), stream);
        let stream = timeout(HANDSHAKE, handshake).await??;
        let (_, state) = stream.get_ref();
        let version = tls::version(state.protocol_version());
        let certificates = state.peer_certificates().unwrap_or_default();
        let verified = caller.tls.is_verified(certificates, &name);
        self.tls = format!("{version}/{}", if verified { "verified" } else { "unverified" });
        self.stream = Some(Stream::Secure(Box::new(stream)));
        self.client.tls_started();
        Ok(())
    }

    /// Sends a message to some of its recipients; `report` is told each one's fate. After trouble,
    /// those that it was told nothing of have none, and the connection is of no more use.
    pub async fn deliver(
        &mut self,
        entry: &Entry,
        recipients: &[usize],
        mut report: impl FnMut(usize, Fate),
    ) -> Result<(), Trouble> {
        let mut tell = |connection: &Self, recipient: usize, answer: &Answer| {
            if let Some(number) = recipients.get(recipient) {
                report(*number, connection.fate(answer));
            }
        };
        let envelope = &entry.envelope;
        self.limit = Instant::now() + DIALOGUE;
        let wanted: Vec<&Recipient> =
            recipients.iter().filter_map(|number| envelope.recipients.get(*number)).collect();
        self.client.start(&Message {
            sender: envelope.sender.as_ref(),
            recipients: &wanted,
            body: envelope.body,
            utf8: envelope.utf8,
            ret: envelope.ret,
            envelope_id: envelope.envelope_id.as_ref(),
            size: entry.size(),
        });
        loop {
            match self.event().await.map_err(|error| self.lost("a message", &error))? {
                Event::SendText => {
                    if let Err(error) = self.send_text(entry).await {
                        // What the host said before it hung up counts.
                        let _ = self.exchange(Instant::now() + LAST_WORDS).await;
                        while let Some(Event::Outcome { recipient, answer }) = self.client.event() {
                            tell(self, recipient, &answer);
                        }
                        return Err(self.lost("the text", &error));
                    }
                }
                Event::Outcome { recipient, answer } => tell(self, recipient, &answer),
                Event::Ready => return Ok(()),
                event => return Err(self.end(event).await),
            }
        }
    }

    /// Takes leave.
    pub async fn quit(mut self) {
        self.client.quit();
        let _ = self.exchange(Instant::now() + self.client.patience()).await;
    }

    /// What a recipient's answer means.
    fn fate(&self, answer: &Answer) -> Fate {
        let (outcome, text) = match answer.meaning() {
            Meaning::Done => (Outcome::Done, answer.to_string()),
            Meaning::Never => (Outcome::Failed, self.said(answer)),
            Meaning::Later | Meaning::GoOn | Meaning::Nothing => {
                (Outcome::Deferred, self.said(answer))
            }
        };
        Fate {
            outcome,
            code: answer.enhanced(),
            text,
            untried: false,
            receipt: (!self.client.offers("DSN")).then_some(Action::Relayed),
            relay: self.host.to_string(),
            tls: self.tls.clone(),
            remote: Some(Remote { host: self.host.name.clone(), reply: answer.to_string() }),
        }
    }

    fn said(&self, answer: &Answer) -> String {
        format!("host {} said: {answer}", self.host)
    }

    /// Ends a connection that is of no more use; a last word goes out where it can at once.
    async fn end(&mut self, event: Event) -> Trouble {
        self.output.append(self.client.output());
        let _ = timeout(Duration::ZERO, poll_fn(|context| self.poll_write(context))).await;
        self.unexpected(event)
    }

    /// What an end means: nobody's fault but the host's, and so never for good.
    fn unexpected(&self, event: Event) -> Trouble {
        let host = &self.host;
        let mut trouble = match event {
            Event::Refused(answer) => {
                let code = answer.enhanced();
                let code = format!("4{}", code.get(1..).unwrap_or(".3.0"));
                let mut trouble = Trouble::new(host, &code, &self.said(&answer));
                let reply = answer.to_string();
                trouble.fate.remote = Some(Remote { host: host.name.clone(), reply });
                trouble
            }
            Event::Ourselves => {
                let why = Unroutable::Loop(host.to_string());
                let mut trouble = Trouble::new(host, why.code(), &why.to_string());
                trouble.fate.outcome = Outcome::Failed;
                trouble
            }
            Event::Broken(what) => {
                Trouble::new(host, "4.5.0", &format!("host {host} does not speak SMTP: {what}"))
            }
            _ => Trouble::new(host, "4.5.0", &format!("host {host} answers out of order")),
        };
        trouble.unsure = self.client.is_in_doubt();
        trouble
    }

    fn lost(&self, what: &str, error: &io::Error) -> Trouble {
        let host = &self.host;
        let text = format!("connection with {host} was lost during {what}: {}", cause(error));
        let mut trouble = Trouble::new(host, "4.4.2", &text);
        trouble.unsure = self.client.is_in_doubt();
        trouble
    }

    /// What happens next. Each line of the host has its time, so that one who drips is not waited
    /// for without end: a reply has a bounded number of lines.
    async fn event(&mut self) -> io::Result<Event> {
        let mut deadline = None;
        loop {
            // Also in the middle of a line: the client ends with one that is too long.
            if let Some(event) = self.client.event() {
                return Ok(event);
            }
            let until = *deadline.get_or_insert_with(|| Instant::now() + self.client.patience());
            let until = until.min(self.limit);
            if self.exchange(until).await? {
                deadline = None;
            }
        }
    }

    /// Sends what is to be sent while reading what comes, so that neither side waits for the
    /// other's buffers (RFC 2920 section 3.1). True once a line has ended.
    async fn exchange(&mut self, deadline: Instant) -> io::Result<bool> {
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
        }
        self.output.append(self.client.output());
        let mut space = [0; 4096];
        let mut buffer = ReadBuf::new(&mut space);
        timeout_at(deadline, poll_fn(|context| self.poll_exchange(context, &mut buffer))).await??;
        self.client.push(buffer.filled());
        Ok(buffer.filled().contains(&b'\n'))
    }

    fn poll_exchange(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // What was said before the end counts, whether or not our words still went out.
        let written = self.poll_write(context);
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        match (stream.wire().poll_read(context, buffer), written) {
            (Poll::Ready(Ok(())), _) if buffer.filled().is_empty() => {
                Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()))
            }
            (Poll::Pending, Poll::Ready(Err(error))) => Poll::Ready(Err(error)),
            (read, _) => read,
        }
    }

    /// Writes until all is out.
    fn poll_write(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(stream) = &mut self.stream else {
            return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
        };
        while let Some(rest) = self.output.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match ready!(stream.wire().poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count => self.sent += count,
            }
        }
        // What a TLS record holds back goes out, too.
        stream.wire().poll_flush(context)
    }

    /// Sends the text.
    async fn send_text(&mut self, entry: &Entry) -> io::Result<()> {
        let time = Duration::from_secs(entry.size().div_euclid(SLOWEST));
        let limit = Instant::now() + DIALOGUE + time;
        let mut piece = vec![0; CHUNK.min(usize::try_from(entry.size()).unwrap_or(CHUNK))];
        let mut offset = 0;
        loop {
            let count = entry.read_content(offset, &mut piece)?;
            if count == 0 {
                self.client.end_text();
                self.limit = Instant::now() + DIALOGUE;
                return Ok(());
            }
            offset += count as u64;
            self.client.text(piece.get(..count).unwrap_or_default());
            self.output.drain(..self.sent);
            self.sent = 0;
            self.output.append(self.client.output());
            // A message of one piece goes out with its final dot.
            if offset < entry.size() {
                let deadline = limit.min(Instant::now() + self.client.patience());
                timeout_at(deadline, poll_fn(|context| self.poll_write(context))).await??;
            }
        }
    }
}

impl Trouble {
    fn new(host: &Host, code: &str, text: &str) -> Self {
        let fate = Fate { relay: host.to_string(), ..Fate::ours(Outcome::Deferred, code, text) };
        Self { fate, unsure: false }
    }
}

/// What happened, in the words that people know.
fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::TimedOut => "timed out".into(),
        io::ErrorKind::UnexpectedEof => "closed by the other side".into(),
        _ => match error.raw_os_error() {
            Some(number) => nix::Error::from_raw(number).desc().into(),
            None => error.to_string(),
        },
    }
}
