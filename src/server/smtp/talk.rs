//! The session child's conversation with a client. It makes queue entries in the one directory that
//! it keeps, and asks its monitor for what it can't see.

use std::cell::OnceCell;
use std::io;

use super::{Ask, MAX, Server, UNKNOWN, VERDICTS, ask};
use crate::message::Address;
use crate::message::received::{From, Received};
use crate::net::tls::identity::Identity;
use crate::net::tls::server::settings;
use crate::queue::{Draft, Envelope, Id, Inlet, Origin};
use crate::route::Verdict as Known;
use crate::server::Connection;
use crate::smtp::{Action, Dialect, Limits, Reply, Session, Transaction, Verdict};
use crate::sys::channel::Channel;
use crate::sys::{Exit, clock};
use crate::text::line::with_crlf;

/// How long a client may say nothing (RFC 5321 section 4.5.3.2.7), and take nothing; milliseconds.
const TIMEOUT: u32 = 300_000;

/// Refused commands that end a session.
const MAX_ERRORS: usize = 20;

/// The child's conversation.
pub(super) struct Talk<'a> {
    server: &'a Server<'a>,
    connection: Connection,
    identity: Option<&'a Identity>,
    /// The client's name, once it was needed.
    name: OnceCell<String>,
    inlet: &'a Inlet,
    monitor: &'a Channel,
    /// The last byte that a pipe or a terminal brought.
    last: u8,
}

/// How a conversation ended early.
enum Stop {
    /// The client has gone, or is silent.
    Client,
    /// The monitor has gone: nothing can be answered any more.
    Monitor,
}

impl<'a> Talk<'a> {
    /// With one client; `identity` where it is to be offered TLS.
    pub(super) fn new(
        server: &'a Server<'a>,
        connection: Connection,
        identity: Option<&'a Identity>,
        inlet: &'a Inlet,
        monitor: &'a Channel,
    ) -> Self {
        Self { server, connection, identity, name: OnceCell::new(), inlet, monitor, last: b'\n' }
    }

    /// Talks until either side ends it.
    pub(super) fn run(mut self) -> Exit {
        let config = self.server.config;
        let limits = Limits {
            message_size: config.smtp.max_message_size,
            recipients: config.smtp.max_recipients,
            errors: MAX_ERRORS,
        };
        let strict = self.connection.is_remote();
        let (name, origin) = (&config.hostname, config.origin());
        let mut session = Session::new(Dialect::Smtp, name, origin, limits, strict);
        // Not to a pipe or a terminal, where there is nobody to listen in.
        if strict && self.identity.is_some() {
            session.offer_tls();
        }
        if strict && self.connection.has_input() {
            session.output().clear();
            session.hang_up(&Reply::new(554, "5.5.0", "Error: wait for the greeting"));
        }
        let ended = self.talk(&mut session);
        self.connection.finish();
        match ended {
            Ok(()) | Err(Stop::Client) => Exit::Ok,
            Err(Stop::Monitor) => Exit::OsErr,
        }
    }

    fn talk(&mut self, session: &mut Session) -> Result<(), Stop> {
        let server = self.server;
        let mut buffer = vec![0; 64 * 1024];
        let mut length = 0;
        let mut taken = 0;
        // The message being received; an error to write it is told at its end.
        let mut draft: Option<io::Result<Draft<'a>>> = None;
        loop {
            let mut input = buffer.get(taken..length).unwrap_or_default();
            let action = session.step(&mut input);
            taken = length - input.len();
            match action {
                Action::Read => {
                    self.flush(session)?;
                    taken = 0;
                    length = match self.receive(&mut buffer) {
                        Ok(0) => return Err(Stop::Client),
                        Ok(length) => length,
                        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                            session.hang_up(&Reply::new(421, "4.4.2", "Error: timeout exceeded"));
                            0
                        }
                        Err(error) => {
                            if error.kind() == io::ErrorKind::InvalidData {
                                self.log_tls("session", &error)?;
                            }
                            return Err(Stop::Client);
                        }
                    };
                }
                Action::StartTls => self.start_tls(session)?,
                Action::CheckRecipient(address) => {
                    let verdict = self.check(&address)?;
                    if let Verdict::Refuse(reply) = &verdict {
                        self.log_refusal(session, &address, reply)?;
                    }
                    session.recipient(verdict);
                }
                Action::Open => match self.open(self.client()?, session) {
                    Ok(opened) => {
                        draft = Some(Ok(opened));
                        session.opened(Ok(()));
                    }
                    Err(error) => {
                        self.say(Ask::Error, &format!("can't make a queue entry: {error}"))?;
                        session.opened(Err(no_space()));
                    }
                },
                Action::Store(text) => {
                    if let Some(Ok(open)) = &mut draft
                        && let Err(error) = open.write(text)
                    {
                        draft = Some(Err(error));
                    }
                }
                Action::Discard => draft = None,
                Action::Commit => {
                    let committed = match draft.take() {
                        Some(Ok(draft)) => draft.commit(),
                        Some(Err(error)) => Err(error),
                        None => Err(io::ErrorKind::NotFound.into()),
                    };
                    let reply = match committed {
                        Ok(id) => {
                            if let Some(wake) = &server.wake {
                                wake.nudge();
                            }
                            self.log_accepted(session, &id)?;
                            Reply::new(250, "2.0.0", format!("Ok: queued as {id}"))
                        }
                        Err(error) => {
                            self.say(Ask::Error, &format!("can't keep a message: {error}"))?;
                            no_space()
                        }
                    };
                    session.stored(&[reply]);
                }
                Action::Close => return self.flush(session),
            }
        }
    }

    /// Reads what there is. A pipe or a terminal may end its lines as this host does.
    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.connection.is_remote() {
            return self.connection.receive(buffer, TIMEOUT);
        }
        let mut raw = [0; 8 * 1024];
        let length = self.connection.receive(&mut raw, TIMEOUT)?;
        let mut lines = Vec::with_capacity(2 * raw.len());
        with_crlf(&mut self.last, raw.get(..length).unwrap_or_default(), &mut lines);
        let room = buffer.get_mut(..lines.len()).ok_or(io::ErrorKind::InvalidData)?;
        room.copy_from_slice(&lines);
        Ok(lines.len())
    }

    fn flush(&mut self, session: &mut Session) -> Result<(), Stop> {
        let output = std::mem::take(session.output());
        self.connection.send(&output, TIMEOUT).map_err(|_| Stop::Client)
    }

    /// What the client is called; waits for that where it has to.
    fn client(&self) -> Result<&str, Stop> {
        if let Some(name) = self.connection.peer.local_name() {
            return Ok(name);
        }
        if self.name.get().is_none() {
            self.say(Ask::Name, "")?;
            let mut name = [0; MAX];
            let length = self.monitor.receive(&mut name).map_err(|_| Stop::Monitor)?;
            let name = std::str::from_utf8(name.get(..length).unwrap_or_default());
            let name = name.ok().filter(|name| !name.is_empty()).ok_or(Stop::Monitor)?;
            let _ = self.name.set(name.to_owned());
        }
        Ok(self.name.get().map_or(UNKNOWN, String::as_str))
    }

    /// The client in log lines: `localhost[127.0.0.1]`, `unknown[192.0.2.1]`.
    fn shown_client(&self) -> Result<String, Stop> {
        Ok(format!("{}[{}]", self.client()?, self.connection.peer.address_or_local()))
    }

    fn say(&self, kind: Ask, text: &str) -> Result<(), Stop> {
        ask(self.monitor, kind, text).map_err(|_| Stop::Monitor)
    }

    /// Begins TLS, or says why not.
    fn start_tls(&mut self, session: &mut Session) -> Result<(), Stop> {
        // What has come by now was not meant for TLS, which the client does not know to be ready.
        if self.connection.has_input() {
            session.hang_up(&Reply::new(503, "5.5.0", "Error: wait for the reply to STARTTLS"));
            return Ok(());
        }
        let refusal = || Reply::new(454, "4.7.0", "TLS not available now");
        let settings = match self.identity.map(settings) {
            Some(Ok(settings)) => settings,
            Some(Err(error)) => {
                self.say(Ask::Error, &error.to_string())?;
                session.start_tls(Err(refusal()));
                return Ok(());
            }
            None => {
                session.start_tls(Err(refusal()));
                return Ok(());
            }
        };
        session.start_tls(Ok(()));
        self.flush(session)?;
        if let Err(error) = self.connection.start_tls(settings, TIMEOUT) {
            self.log_tls("handshake", &error)?;
            return Err(Stop::Client);
        }
        Ok(())
    }

    /// Is this recipient ours, or may this client send elsewhere through us?
    fn check(&self, address: &Address) -> Result<Verdict, Stop> {
        let config = self.server.config;
        let peer = self.connection.peer;
        let known = if self.server.knows_users {
            self.say(Ask::Recipient, &address.to_string())?;
            let mut answer = [0];
            let length = self.monitor.receive(&mut answer).map_err(|_| Stop::Monitor)?;
            let verdict = VERDICTS.get(usize::from(answer[0])).filter(|_| length == 1);
            *verdict.ok_or(Stop::Monitor)?
        } else if config.is_local_domain(address.domain()) {
            Known::Ok
        } else {
            Known::Foreign
        };
        let refuse = |code, enhanced, what: &str| {
            Ok(Verdict::Refuse(Reply::new(code, enhanced, format!("<{address}>: {what}"))))
        };
        match known {
            Known::Ok | Known::Relay => Ok(Verdict::Accept),
            Known::Foreign if peer.address.is_none_or(|client| config.may_relay(client)) => {
                Ok(Verdict::Accept)
            }
            Known::Foreign => refuse(554, "5.7.1", "Relay access denied"),
            Known::Unknown => refuse(550, "5.1.1", "Recipient address rejected: User unknown"),
            Known::TempFail => refuse(451, "4.3.0", "Temporary lookup failure"),
        }
    }

    /// Begins a queue entry, with our Received field on top.
    fn open(&self, client: &str, session: &Session) -> io::Result<Draft<'a>> {
        let transaction: &Transaction = session.transaction().ok_or(io::ErrorKind::NotFound)?;
        let arrived = clock::seconds();
        let envelope = Envelope {
            arrived,
            origin: Origin::Smtp,
            sender: transaction.sender.clone(),
            eight_bit: transaction.eight_bit,
            recipients: transaction.recipients.iter().map(|to| to.address.clone()).collect(),
        };
        let mut draft = self.inlet.create(Id::new()?, &envelope)?;
        let peer = self.connection.peer;
        let received = Received {
            from: From::Host {
                helo: session.helo(),
                name: Some(client),
                address: peer.address_or_local(),
            },
            by: &self.server.config.hostname,
            with: Some(session.protocol()),
            id: draft.id().as_str(),
            recipient: envelope.only_recipient(),
            time: &clock::now(),
        };
        let field = received.field();
        draft.write(field.as_bytes())?;
        Ok(draft)
    }

    fn log_accepted(&self, session: &Session, id: &Id) -> Result<(), Stop> {
        let Some(transaction) = session.transaction() else {
            return Ok(());
        };
        let tls = self.connection.tls_version();
        let tls = tls.map(|version| format!(" tls={version}")).unwrap_or_default();
        let recipients = transaction.recipients.iter().take(20);
        let to: Vec<String> = recipients.map(|to| format!("<{}>", to.address)).collect();
        self.say(
            Ask::Info,
            &format!(
                "{id}: client={} helo=<{}> from=<{}> to={} nrcpt={} size={} proto={}{tls} \
                 status=accepted",
                self.shown_client()?,
                session.helo(),
                crate::queue::entry::Path(transaction.sender.as_ref()),
                to.join(","),
                transaction.recipients.len(),
                session.size(),
                session.protocol(),
            ),
        )
    }

    /// What broke TLS.
    fn log_tls(&self, what: &str, error: &io::Error) -> Result<(), Stop> {
        let client = self.shown_client()?;
        self.say(Ask::Warning, &format!("NOQUEUE: TLS {what} with {client} failed: {error}"))
    }

    fn log_refusal(&self, session: &Session, to: &Address, reply: &Reply) -> Result<(), Stop> {
        let from = session.transaction().and_then(|transaction| transaction.sender.as_ref());
        self.say(
            Ask::Warning,
            &format!(
                "NOQUEUE: reject: RCPT from {}: {reply}; from=<{}> to=<{to}> proto={} helo=<{}>",
                self.shown_client()?,
                crate::queue::entry::Path(from),
                session.protocol(),
                session.helo(),
            ),
        )
    }
}

/// What is said when a message can't be kept; why is in the log.
fn no_space() -> Reply {
    Reply::new(452, "4.3.1", "Error: the message can't be stored now, try again later")
}
