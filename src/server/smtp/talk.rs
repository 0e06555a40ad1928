//! The session child's conversation with a client. It makes queue entries in the one directory that
//! it keeps, and asks its monitor for what it can't see.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Answer, Ask, Server, UNKNOWN, ask, login};
use crate::message::Address;
use crate::message::received::{From, Received};
use crate::net::proxy;
use crate::net::tls::identity::Identity;
use crate::net::tls::server::settings;
use crate::queue::{Draft, Envelope, Id, Inlet, Origin};
use crate::server::Connection;
use crate::server::policy::{self, Line, Mail};
use crate::server::pop3::shown;
use crate::smtp::{Action, Dialect, Limits, Login, Reply, Session, Transaction, Verdict};
use crate::sys::channel::Channel;
use crate::sys::{Exit, clock};
use crate::text::line::with_crlf;

/// How long a client may say nothing (RFC 5321 section 4.5.3.2.7), and take nothing; milliseconds.
const TIMEOUT: u32 = 300_000;

/// Refused commands that end a session.
const MAX_ERRORS: usize = 20;

/// Refused commands that cost nothing; for each one more a stranger waits so much longer.
const SOFT_ERRORS: usize = 10;
const PENALTY: Duration = Duration::from_millis(200);

/// How long a load balancer may take to say who its client is, in milliseconds.
const PROXY_TIMEOUT: u32 = 10_000;

/// The child's conversation.
pub(super) struct Talk<'a> {
    server: &'a Server<'a>,
    connection: Connection,
    identity: Option<&'a Identity>,
    policy: Line,
    /// The client's name, once it was needed.
    name: Option<String>,
    inlet: &'a Inlet,
    monitor: &'a Channel,
    /// The last byte that a pipe or a terminal brought.
    last: u8,
    /// When the session has lasted long enough.
    end: Instant,
    /// Refused commands that the client has waited for.
    errors: usize,
}

/// How a conversation ended early.
enum Stop {
    /// The client has gone, or is silent.
    Client,
    /// The monitor has gone: nothing can be answered any more.
    Monitor,
}

impl Stop {
    fn exit(self) -> Exit {
        match self {
            Self::Client => Exit::Ok,
            Self::Monitor => Exit::OsErr,
        }
    }
}

impl<'a> Talk<'a> {
    /// With one client; `identity` where it is to be offered TLS.
    pub(super) fn new(
        server: &'a Server<'a>,
        connection: Connection,
        identity: Option<&'a Identity>,
        policy: Line,
        inlet: &'a Inlet,
        monitor: &'a Channel,
    ) -> Self {
        let most = Duration::from_secs(server.config.smtp.session_time_limit.seconds());
        Self {
            server,
            connection,
            identity,
            policy,
            name: None,
            inlet,
            monitor,
            last: b'\n',
            end: Instant::now() + most,
            errors: 0,
        }
    }

    /// Talks until either side ends it.
    pub(super) fn run(mut self, offer: Option<Login>) -> Exit {
        let config = self.server.config;
        let limits = Limits {
            message_size: config.smtp.max_message_size,
            recipients: config.smtp.max_recipients,
            errors: MAX_ERRORS,
        };
        if let Err(stop) = self.learn_client() {
            return stop.exit();
        }
        let strict = self.connection.is_remote();
        let (name, origin) = (&config.hostname, config.origin());
        let mut session = Session::new(Dialect::Smtp, name, origin, limits, strict);
        // Not to a pipe or a terminal, where there is nobody to listen in.
        if strict && self.identity.is_some() {
            session.offer_tls();
        }
        if let Some(mut offer) = offer {
            // Not that of a load balancer on this host.
            offer.without_tls |= self.connection.peer.is_loopback();
            session.offer_login(offer);
        }
        if strict && self.speaks_first() {
            session.output().clear();
            session.hang_up(&Reply::new(554, "5.5.0", "Error: wait for the greeting"));
        }
        let ended = self.talk(&mut session);
        self.connection.finish();
        ended.map_or_else(Stop::exit, |()| Exit::Ok)
    }

    /// Who the client is, where a load balancer stands before it.
    fn learn_client(&mut self) -> Result<(), Stop> {
        let Some(balancer) = self.connection.peer.address else {
            return Ok(());
        };
        if !self.server.config.smtp.is_proxy(balancer) {
            return Ok(());
        }
        let client = match self.connection.proxied(PROXY_TIMEOUT) {
            Ok(proxy::Client::Local) => return Ok(()),
            Ok(proxy::Client::At(client)) => client,
            // In no network, so that it has no rights.
            Ok(proxy::Client::Unknown) => Ipv4Addr::UNSPECIFIED.into(),
            Err(error) => {
                let what = match error.kind() {
                    io::ErrorKind::InvalidData => "sends no PROXY header".to_owned(),
                    _ => format!("sends no PROXY header: {error}"),
                };
                let hint = "it is among [smtp] proxies";
                self.say(Ask::Error, &format!("load balancer [{balancer}] {what}; {hint}"))?;
                return Err(Stop::Client);
            }
        };
        self.connection.peer.address = Some(client);
        self.policy.client(client);
        self.say(Ask::Client, &client.to_string())?;
        Ok(())
    }

    /// Whether the client does not wait for the greeting, which those who only pretend to speak
    /// SMTP seldom do.
    fn speaks_first(&self) -> bool {
        let delay = self.server.config.smtp.greet_delay.seconds().saturating_mul(1000);
        let delay = if self.may_relay() { 0 } else { delay };
        self.connection.has_input_within(u32::try_from(delay).unwrap_or(u32::MAX))
    }

    fn may_relay(&self) -> bool {
        let address = self.connection.peer.address;
        address.is_none_or(|client| self.server.config.smtp.may_relay(client))
    }

    /// Lets a stranger wait who makes error after error.
    fn slow_down(&mut self, session: &Session) {
        let over = session.errors().saturating_sub(SOFT_ERRORS);
        let has_more = session.errors() > self.errors;
        self.errors = session.errors();
        if has_more && over > 0 && !self.may_relay() {
            std::thread::sleep(PENALTY.saturating_mul(u32::try_from(over).unwrap_or(u32::MAX)));
        }
    }

    fn talk(&mut self, session: &mut Session) -> Result<(), Stop> {
        let server = self.server;
        let mut buffer = vec![0; 64 * 1024];
        let mut length = 0;
        let mut taken = 0;
        // The message being received; an error to write it is told at its end.
        let mut draft: Option<io::Result<Draft<'a>>> = None;
        // A command may not trickle in for ever: what counts is that it has its reply.
        let mut silent = Instant::now();
        let mut stored = false;
        loop {
            let mut input = buffer.get(taken..length).unwrap_or_default();
            let action = session.step(&mut input);
            taken = length - input.len();
            match action {
                Action::Read => {
                    if std::mem::take(&mut stored) || !session.output().is_empty() {
                        silent = Instant::now();
                    }
                    self.slow_down(session);
                    self.flush(session)?;
                    taken = 0;
                    length = match self.receive(&mut buffer, silent) {
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
                Action::Authenticate(mechanism, question) => {
                    self.flush(session)?;
                    let answer = login::ask(self.monitor, mechanism, question);
                    session.authenticate(answer.map_err(|_| Stop::Monitor)?);
                }
                Action::CheckRecipient(address) => {
                    let verdict = self.check(session, &address)?;
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
                    stored = true;
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
    fn receive(&mut self, buffer: &mut [u8], silent: Instant) -> io::Result<usize> {
        if self.connection.is_remote() {
            let end = self.end.min(silent + Duration::from_millis(TIMEOUT.into()));
            let left = end.saturating_duration_since(Instant::now()).as_millis();
            let left = u32::try_from(left).unwrap_or(TIMEOUT);
            return self.connection.receive(buffer, left);
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
    fn client(&mut self) -> &str {
        if let Some(name) = self.connection.peer.local_name() {
            return name;
        }
        let policy = &mut self.policy;
        self.name.get_or_insert_with(|| policy.name().unwrap_or_else(|| UNKNOWN.into()))
    }

    /// The client in log lines: `localhost[127.0.0.1]`, `unknown[192.0.2.1]`.
    fn shown_client(&mut self) -> String {
        let address = self.connection.peer.address_or_local();
        format!("{}[{address}]", self.client())
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
        let (settings, errors) = self.identity.map(settings).unwrap_or_default();
        for error in errors {
            self.say(Ask::Error, &error.to_string())?;
        }
        let Some(settings) = settings else {
            session.start_tls(Err(refusal()));
            return Ok(());
        };
        session.start_tls(Ok(()));
        self.flush(session)?;
        if let Err(error) = self.connection.start_tls(Arc::clone(&settings.config), TIMEOUT) {
            self.log_tls("handshake", &error)?;
            return Err(Stop::Client);
        }
        session.bind(settings.bindings(self.connection.tls_exported()));
        Ok(())
    }

    /// Is this recipient ours, or may this client, or this user, send elsewhere through us?
    fn check(&mut self, session: &Session, address: &Address) -> Result<Verdict, Stop> {
        let config = self.server.config;
        if !self.server.knows_users {
            let is_ours = config.is_local_domain(address.domain()) || self.may_relay();
            let denied = || Reply::new(554, "5.7.1", format!("<{address}>: Relay access denied"));
            return Ok(if is_ours { Verdict::Accept } else { Verdict::Refuse(denied()) });
        }
        let mail = Mail {
            helo: session.helo(),
            sender: session.transaction().and_then(|transaction| transaction.sender.as_ref()),
            recipient: address,
            is_trusted: session.user().is_some() || self.may_relay(),
        };
        let known = match self.policy.recipient(&mail) {
            Ok(policy::Verdict::Accept) => Ok(true),
            Ok(policy::Verdict::Account) => self.has_account(address.local())?,
            Ok(policy::Verdict::Refuse(reply)) => return Ok(Verdict::Refuse(reply)),
            Err(what) => Err(what),
        };
        match known {
            Ok(true) => {}
            Ok(false) => return Ok(Verdict::Refuse(Reply::unknown_user(address))),
            Err(what) => {
                self.say(Ask::Error, &format!("looking up {address}: {what}"))?;
                let text = format!("<{address}>: Temporary lookup failure");
                return Ok(Verdict::Refuse(Reply::new(451, "4.3.0", text)));
            }
        }
        let greylists = config.greylist.is_on() && !mail.is_trusted;
        let later = if greylists { self.policy.greylisted(&mail) } else { None };
        Ok(later.map_or(Verdict::Accept, Verdict::Refuse))
    }

    /// Whether a local-part leads to an account; the monitor logs why it can't tell.
    fn has_account(&self, local: &str) -> Result<Result<bool, String>, Stop> {
        self.say(Ask::User, local)?;
        let mut answer = [0];
        let length = self.monitor.receive(&mut answer).map_err(|_| Stop::Monitor)?;
        match answer {
            _ if length != 1 => Err(Stop::Monitor),
            [yes] if yes == Answer::Yes as u8 => Ok(Ok(true)),
            [no] if no == Answer::No as u8 => Ok(Ok(false)),
            _ => Ok(Err("the account can't be looked up now".into())),
        }
    }

    /// Begins a queue entry, with our Received field on top.
    fn open(&mut self, session: &Session) -> io::Result<Draft<'a>> {
        let transaction: &Transaction = session.transaction().ok_or(io::ErrorKind::NotFound)?;
        let arrived = clock::seconds();
        let envelope = Envelope {
            arrived,
            origin: Origin::Smtp,
            sender: transaction.sender.clone(),
            body: transaction.body,
            utf8: transaction.utf8,
            ret: transaction.ret,
            envelope_id: transaction.envelope_id.clone(),
            recipients: transaction.recipients.clone(),
        };
        let mut draft = self.inlet.create(Id::new()?, &envelope)?;
        let (server, peer) = (self.server, self.connection.peer);
        let received = Received {
            from: From::Host {
                helo: session.helo(),
                name: Some(self.client()),
                address: peer.address_or_local(),
            },
            by: &server.config.hostname,
            with: Some(session.protocol()),
            id: draft.id().as_str(),
            recipient: envelope.only_recipient(),
            time: &clock::now(),
        };
        let field = received.field();
        draft.write(field.as_bytes())?;
        Ok(draft)
    }

    fn log_accepted(&mut self, session: &Session, id: &Id) -> Result<(), Stop> {
        let Some(transaction) = session.transaction() else {
            return Ok(());
        };
        let tls = self.connection.tls_version();
        let tls = tls.map(|version| format!(" tls={version}")).unwrap_or_default();
        let auth = session.user().map(|user| format!(" auth={}", shown(user.as_bytes())));
        let auth = auth.unwrap_or_default();
        let recipients = transaction.recipients.iter().take(20);
        let to: Vec<String> = recipients.map(|to| format!("<{}>", to.address)).collect();
        let client = self.shown_client();
        self.say(
            Ask::Info,
            &format!(
                "{id}: client={} helo=<{}> from=<{}> to={} nrcpt={} size={} proto={}{tls}{auth} \
                 status=accepted",
                client,
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
    fn log_tls(&mut self, what: &str, error: &io::Error) -> Result<(), Stop> {
        let client = self.shown_client();
        self.say(Ask::Warning, &format!("NOQUEUE: TLS {what} with {client} failed: {error}"))
    }

    fn log_refusal(&mut self, session: &Session, to: &Address, reply: &Reply) -> Result<(), Stop> {
        let from = session.transaction().and_then(|transaction| transaction.sender.as_ref());
        let client = self.shown_client();
        self.say(
            Ask::Warning,
            &format!(
                "NOQUEUE: reject: RCPT from {}: {reply}; from=<{}> to=<{to}> proto={} helo=<{}>",
                client,
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
