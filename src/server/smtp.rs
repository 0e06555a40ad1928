//! smtpd's two processes of a session.
//!
//! The monitor (root, or the account that runs everything) answers two questions of bounded size:
//! is there such a user, and write this line into the log. The session child, jailed, speaks to
//! the client and makes queue entries in the one directory that it keeps.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::Connection;
use super::listener::{Visit, client_name};
use crate::config::Config;
use crate::message::Address;
use crate::message::received::{From, Received};
use crate::net::tls::identity::Identity;
use crate::net::tls::server::settings;
use crate::queue::{Draft, Envelope, Id, Inlet, Origin, Wake};
use crate::route::{self, Route};
use crate::smtp::{Action, Dialect, Limits, Reply, Session, Transaction, Verdict};
use crate::sys::channel::Channel;
use crate::sys::jail::Jail;
use crate::sys::log::Level;
use crate::sys::{Account, Exit, Log, clock, process};
use crate::text::line::with_crlf;

/// How long a client may say nothing (RFC 5321 section 4.5.3.2.7), and take nothing; milliseconds.
const TIMEOUT: u32 = 300_000;

/// Refused commands that end a session.
const MAX_ERRORS: usize = 20;

/// What every session of a server shares.
pub struct Server<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The log.
    pub log: &'a Log,
    /// Where messages enter.
    pub inlet: Inlet,
    /// Who is told of them.
    pub wake: Option<Wake>,
    /// The cell of the session children.
    pub jail: Jail,
    /// Whether this process can tell who is a user here. sendmail's caller may not look; what it
    /// hands in to nobody comes back to it.
    pub knows_users: bool,
    /// The queue's owner, whom session children become, with root.
    pub owner: Option<Account>,
}

/// A question of the session child to its monitor: one byte of kind, then at most `MAX` of text.
#[derive(Clone, Copy)]
enum Ask {
    User = 0,
    Info = 1,
    Warning = 2,
    Error = 3,
}

/// The monitor's answer to [`Ask::User`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    No = 0,
    Yes = 1,
    Unknown = 2,
}

/// Longest text of a question.
const MAX: usize = 2048;

impl Server<'_> {
    /// One session: forks the child that speaks, and is its monitor.
    pub fn session(&self, visit: Visit<'_>) -> Exit {
        let Visit { connection, identity, .. } = visit;
        let peer = connection.peer;
        let (monitor, session) = match Channel::pair() {
            Ok(pair) => pair,
            Err(error) => return self.fail(&format!("can't make a channel: {error}")),
        };
        // Read, at the latest, before the child loses sight of /etc/localtime.
        clock::zone();
        let forked = process::fork(|| {
            let inlet = self.inlet.for_this_process().and_then(|inlet| {
                self.lock_up(&inlet, &connection, &session)?;
                Ok(inlet)
            });
            match inlet {
                Ok(inlet) => Talk {
                    server: self,
                    connection,
                    identity,
                    inlet: &inlet,
                    monitor: &session,
                    last: b'\n',
                }
                .run(),
                Err(error) => {
                    let _ = ask(&session, Ask::Error, &format!("can't lock a session up: {error}"));
                    Exit::OsErr
                }
            }
        });
        let child = match forked {
            Ok(child) => child,
            Err(error) => return self.fail(&format!("can't fork: {error}")),
        };
        drop(session);
        self.monitor(&monitor);
        match process::wait(child) {
            Ok(process::Ended::Exited(0)) => Exit::Ok,
            Ok(how) => self.fail(&format!("session of {} ended by {how:?}", client_name(peer))),
            Err(error) => self.fail(&format!("wait: {error}")),
        }
    }

    fn fail(&self, what: &str) -> Exit {
        self.log.error(what);
        Exit::OsErr
    }

    /// Answers until the child is gone. Nothing here looks into a text but to log it.
    fn monitor(&self, session: &Channel) {
        let mut buffer = [0; MAX + 1];
        loop {
            let record = match session.receive(&mut buffer) {
                Ok(0) => return,
                Ok(length) => buffer.get(..length).unwrap_or_default(),
                Err(error) => {
                    self.log.error(&format!("monitor: {error}"));
                    return;
                }
            };
            let Some((kind, text)) = record.split_first() else {
                return;
            };
            let text = String::from_utf8_lossy(text);
            match *kind {
                kind if kind == Ask::User as u8 => {
                    let answer = match route::account(self.config, &text) {
                        Ok(Some(_)) => Answer::Yes,
                        Ok(None) => Answer::No,
                        Err(error) => {
                            self.log.error(&format!("looking up user {text:?}: {error}"));
                            Answer::Unknown
                        }
                    };
                    if session.send(&[answer as u8]).is_err() {
                        return;
                    }
                }
                kind if kind == Ask::Info as u8 => self.log.line(Level::Info, &text),
                kind if kind == Ask::Warning as u8 => self.log.line(Level::Warning, &text),
                _ => self.log.line(Level::Error, &text),
            }
        }
    }

    /// The child gives everything up but the client, the channel, the wake FIFO and incoming/.
    fn lock_up(&self, inlet: &Inlet, connection: &Connection, channel: &Channel) -> io::Result<()> {
        let mut keep: Vec<BorrowedFd<'_>> = connection.descriptors().into();
        keep.push(channel.as_fd());
        keep.extend(self.wake.as_ref().map(AsFd::as_fd));
        keep.extend(self.jail.descriptor());
        keep.extend(inlet.descriptors());
        process::close_others(&keep)?;
        self.jail.enter(self.owner.as_ref(), Some(inlet.grant()))
    }
}

fn ask(monitor: &Channel, kind: Ask, text: &str) -> io::Result<()> {
    let mut record = vec![kind as u8];
    record.extend(text.bytes().take(MAX));
    monitor.send(&record)
}

/// The child's conversation.
struct Talk<'a> {
    server: &'a Server<'a>,
    connection: Connection,
    identity: Option<&'a Identity>,
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
    fn run(mut self) -> Exit {
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
                Action::Open => match self.open(session) {
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
        match route::route(config, address) {
            Route::Remote(_) if peer.address.is_none_or(|client| config.may_relay(client)) => {
                Ok(Verdict::Accept)
            }
            Route::Remote(_) => Ok(Verdict::Refuse(Reply::new(
                554,
                "5.7.1",
                format!("<{address}>: Relay access denied"),
            ))),
            // RFC 5321 section 4.5.1: always taken, whether or not there is such an account.
            Route::Local(name) if name.eq_ignore_ascii_case("postmaster") => Ok(Verdict::Accept),
            Route::Local(_) if !self.server.knows_users => Ok(Verdict::Accept),
            Route::Local(name) => {
                self.say(Ask::User, name)?;
                let mut answer = [0];
                let length = self.monitor.receive(&mut answer).map_err(|_| Stop::Monitor)?;
                match answer {
                    _ if length != 1 => Err(Stop::Monitor),
                    [yes] if yes == Answer::Yes as u8 => Ok(Verdict::Accept),
                    [no] if no == Answer::No as u8 => Ok(Verdict::Refuse(Reply::new(
                        550,
                        "5.1.1",
                        format!("<{address}>: Recipient address rejected: User unknown"),
                    ))),
                    _ => Ok(Verdict::Refuse(Reply::new(
                        451,
                        "4.3.0",
                        format!("<{address}>: Temporary lookup failure"),
                    ))),
                }
            }
        }
    }

    /// Begins a queue entry, with our Received field on top.
    fn open(&self, session: &Session) -> io::Result<Draft<'a>> {
        let transaction: &Transaction = session.transaction().ok_or(io::ErrorKind::NotFound)?;
        let arrived = clock::seconds();
        let envelope = Envelope {
            arrived,
            origin: Origin::Smtp,
            sender: transaction.sender.clone(),
            eight_bit: transaction.eight_bit,
            recipients: transaction.recipients.clone(),
        };
        let mut draft = self.inlet.create(Id::new()?, &envelope)?;
        let peer = self.connection.peer;
        let received = Received {
            from: From::Host {
                helo: session.helo(),
                name: peer.name(),
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
        let to: Vec<String> =
            transaction.recipients.iter().take(20).map(|to| format!("<{to}>")).collect();
        self.say(
            Ask::Info,
            &format!(
                "{id}: client={} helo=<{}> from=<{}> to={} nrcpt={} size={} proto={}{tls} \
                 status=accepted",
                client_name(self.connection.peer),
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
        let client = client_name(self.connection.peer);
        self.say(Ask::Warning, &format!("NOQUEUE: TLS {what} with {client} failed: {error}"))
    }

    fn log_refusal(&self, session: &Session, to: &Address, reply: &Reply) -> Result<(), Stop> {
        let from = session.transaction().and_then(|transaction| transaction.sender.as_ref());
        self.say(
            Ask::Warning,
            &format!(
                "NOQUEUE: reject: RCPT from {}: {reply}; from=<{}> to=<{to}> proto={} helo=<{}>",
                client_name(self.connection.peer),
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

/// Turns a client away when there are too many.
pub fn busy(hostname: &str) -> String {
    format!("421 4.3.2 {hostname} Error: too many connections\r\n")
}
