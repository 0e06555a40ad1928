//! The session child's conversation with a client. It makes queue entries in the one directory that
//! it keeps, and asks its monitor for what it can't see.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::incoming::{Incoming, Trouble};
use super::{Server, Service, UNKNOWN};
use crate::auth::certificates;
use crate::message::received::{From, Received};
use crate::net::tls::identity::Identity;
use crate::net::tls::server::{Settings, settings};
use crate::queue::{Draft, Envelope, Id, Origin};
use crate::sasl::Binding;
use crate::sasl::scram::Hash;
use crate::server::Connection;
use crate::server::ask::Ask;
use crate::server::login;
use crate::server::policy::Line;
use crate::smtp::{Action, Dialect, Limits, Reply, Session, Transaction, Verdict};
use crate::sys::channel::Channel;
use crate::sys::{Exit, clock};
use crate::text::line::with_crlf;

/// Refused commands that end a session.
const MAX_ERRORS: usize = 20;

/// Refused commands that cost nothing; for each one more a stranger waits so much longer.
const SOFT_ERRORS: usize = 10;
const PENALTY: Duration = Duration::from_millis(200);

/// What sessions are born with: what is made of files, and need not be made for each.
pub struct Kit {
    /// Whether TLS is offered; there are no settings where nothing is right with the files.
    offers_tls: bool,
    /// The settings of those who can't log in, and of those who may, perhaps by a certificate.
    settings: [Option<Settings>; 2],
    scram: Vec<Hash>,
}

impl Kit {
    /// Parses certificates and keys, which is done in a cell. What is wrong with them is told.
    pub(super) fn new(
        server: &Server<'_>,
        identity: Option<&Identity>,
        scram: Vec<Hash>,
    ) -> (Self, Vec<String>) {
        let asks = !server.config.smtp.tls.client_certificates.as_os_str().is_empty();
        let parse = |asks| identity.map(|identity| settings(identity, asks)).unwrap_or_default();
        let ((plain, errors), (asking, _)) = (parse(false), parse(asks));
        let kit = Self { offers_tls: identity.is_some(), settings: [plain, asking], scram };
        (kit, errors.iter().map(ToString::to_string).collect())
    }
}

/// The child's conversation.
pub(super) struct Talk<'a> {
    pub(super) server: &'a Server<'a>,
    pub(super) connection: Connection,
    kit: &'a Kit,
    /// Whether clients may log in.
    offers_login: bool,
    pub(super) policy: Line,
    /// The client's name, once it was needed.
    pub(super) name: Option<String>,
    pub(super) monitor: &'a Channel,
    /// The last byte that a pipe or a terminal brought.
    last: u8,
    /// When the session has lasted long enough.
    end: Instant,
    /// Refused commands that the client has waited for.
    errors: usize,
}

/// How a conversation ended early.
pub(super) enum Stop {
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
    /// With one client.
    pub(super) fn new(
        server: &'a Server<'a>,
        connection: Connection,
        kit: &'a Kit,
        policy: Line,
        monitor: &'a Channel,
    ) -> Self {
        let most = Duration::from_secs(server.config.smtp.session_time_limit.seconds());
        Self {
            server,
            connection,
            kit,
            offers_login: false,
            policy,
            name: None,
            monitor,
            last: b'\n',
            end: Instant::now() + most,
            errors: 0,
        }
    }

    /// Talks until either side ends it, and says so.
    pub(super) fn run(mut self, service: Service) -> Exit {
        let exit = self.converse(service);
        let _ = self.say(Ask::End, "");
        exit
    }

    fn converse(&mut self, service: Service) -> Exit {
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
        let offers_tls = strict && self.kit.offers_tls;
        if offers_tls && service != Service::Submissions {
            session.offer_tls();
        }
        if let Some(mut offer) = self.server.login(service, &self.kit.scram) {
            // Not that of a load balancer on this host.
            offer.without_tls |= self.connection.peer.is_loopback();
            session.offer_login(offer);
            self.offers_login = true;
        }
        session.offer_lookups(config.smtp.vrfy, config.smtp.expn);
        if self.may_claim() {
            session.offer_xclient();
        }
        if offers_tls && service == Service::Submissions {
            match self.shake_hands() {
                Ok((bindings, user)) => session.begin_encrypted(bindings, user),
                Err(stop) => return stop.exit(),
            }
        } else if strict && self.speaks_first(service) {
            session.output().clear();
            session.hang_up(&Reply::new(554, "5.5.0", "Error: wait for the greeting"));
        }
        let ended = self.talk(&mut session);
        self.connection.finish();
        ended.map_or_else(Stop::exit, |()| Exit::Ok)
    }

    /// Whether the client does not wait for the greeting, which those who only pretend to speak
    /// SMTP seldom do.
    fn speaks_first(&self, service: Service) -> bool {
        let delay = self.server.config.smtp.greet_delay.seconds().saturating_mul(1000);
        let spared = service != Service::Smtp || self.may_relay();
        let delay = if spared { 0 } else { delay };
        self.connection.has_input_within(u32::try_from(delay).unwrap_or(u32::MAX))
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
        // Memory is only touched as far as a client sends much at once.
        let most = 128 * 1024;
        let mut buffer = vec![0; if self.connection.is_remote() { 8 * 1024 } else { most }];
        let mut length = 0;
        let mut taken = 0;
        // The message being received; what keeps it from the queue is told at its end.
        let mut incoming: Option<Result<Incoming<'a>, Trouble>> = None;
        // A command may not trickle in for ever: what counts is that it has its reply.
        let mut silent = Instant::now();
        loop {
            let mut input = buffer.get(taken..length).unwrap_or_default();
            let action = session.step(&mut input);
            taken = length - input.len();
            match action {
                Action::Read => {
                    if session.is_amid_text() || !session.output().is_empty() {
                        silent = Instant::now();
                    }
                    self.slow_down(session);
                    self.flush(session)?;
                    taken = 0;
                    if length == buffer.len() && length < most {
                        buffer = vec![0; most];
                    }
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
                Action::StartTls => {
                    self.start_tls(session)?;
                    silent = Instant::now();
                }
                Action::Authenticate(mechanism, question) => {
                    self.flush(session)?;
                    let answer = login::ask(self.monitor, mechanism, question);
                    session.authenticate(answer.map_err(|_| Stop::Monitor)?);
                }
                Action::LookUp(what) => {
                    let found = self.look_up(session, &what)?;
                    session.looked_up(found.as_deref().map_err(Clone::clone));
                }
                Action::Claim(claim) => {
                    self.claim(&claim)?;
                    session.claimed();
                }
                Action::CheckRecipient(address) => {
                    let verdict = self.check(session, &address)?;
                    if let Verdict::Refuse(reply) = &verdict {
                        self.log_refusal(session, Some(&address), reply)?;
                    }
                    session.recipient(verdict);
                }
                Action::Open => match self.open(session) {
                    Ok(draft) => {
                        incoming = Some(Ok(Incoming::new(draft, session.user().is_some())));
                        session.opened(Ok(()));
                    }
                    Err(error) => {
                        self.say_broken("make a queue entry", &error)?;
                        session.opened(Err(no_space()));
                    }
                },
                Action::Store(text) => {
                    if let Some(Ok(message)) = &mut incoming
                        && let Err(trouble) =
                            self.submitter(session, |submitter| message.write(text, submitter))
                    {
                        incoming = Some(Err(trouble));
                    }
                }
                Action::Discard => incoming = None,
                Action::Commit => {
                    let mut logged = Ok(());
                    let committed = match incoming.take() {
                        Some(Ok(message)) => {
                            self.submitter(session, |submitter| message.commit(submitter))
                        }
                        Some(Err(trouble)) => Err(trouble),
                        None => Err(io::Error::from(io::ErrorKind::NotFound).into()),
                    };
                    let reply = match committed {
                        Ok(id) => {
                            if let Some(wake) = &server.wake {
                                wake.nudge();
                            }
                            logged = self.log_accepted(session, &id);
                            Reply::new(250, "2.0.0", format!("Ok: queued as {id}"))
                        }
                        Err(Trouble::Refused(reply)) => {
                            self.log_refusal(session, None, &reply)?;
                            reply
                        }
                        Err(Trouble::Io(error)) => {
                            self.say_broken("keep a message", &error)?;
                            no_space()
                        }
                    };
                    session.stored(&[reply]);
                    // What is accepted is told, whoever is gone.
                    if logged.is_err() {
                        self.flush(session)?;
                        return logged;
                    }
                }
                Action::Close => return self.flush(session),
            }
        }
    }

    /// How long the client may still take that has been waited for since then; milliseconds.
    fn patience(&self, since: Instant) -> u32 {
        let limit = self.server.config.smtp.command_time_limit.seconds();
        let mut end = since + Duration::from_secs(limit);
        if self.connection.is_remote() {
            end = end.min(self.end);
        }
        let left = end.saturating_duration_since(Instant::now()).as_millis();
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// Reads what there is. A pipe or a terminal may end its lines as this host does.
    fn receive(&mut self, buffer: &mut [u8], silent: Instant) -> io::Result<usize> {
        let patience = self.patience(silent);
        if self.connection.is_remote() {
            return self.connection.receive(buffer, patience);
        }
        let mut raw = vec![0; 8 * 1024];
        let length = self.connection.receive(&mut raw, patience)?;
        let mut lines = Vec::with_capacity(2 * raw.len());
        with_crlf(&mut self.last, raw.get(..length).unwrap_or_default(), &mut lines);
        let room = buffer.get_mut(..lines.len()).ok_or(io::ErrorKind::InvalidData)?;
        room.copy_from_slice(&lines);
        Ok(lines.len())
    }

    fn flush(&mut self, session: &mut Session) -> Result<(), Stop> {
        let output = std::mem::take(session.output());
        let patience = self.patience(Instant::now());
        self.connection.send(&output, patience).map_err(|_| Stop::Client)
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
    pub(super) fn shown_client(&mut self) -> String {
        let address = self.connection.peer.address_or_local();
        format!("{}[{address}]", self.client())
    }

    pub(super) fn say(&self, kind: Ask, text: &str) -> Result<(), Stop> {
        kind.say(self.monitor, text).map_err(|_| Stop::Monitor)
    }

    /// Why a message is not taken, for the operator.
    fn say_broken(&self, what: &str, error: &io::Error) -> Result<(), Stop> {
        let queue = self.server.config.paths.queue.display();
        self.say(Ask::Error, &format!("can't {what} in {queue}: {error}"))
    }

    /// Begins TLS, or says why not.
    fn start_tls(&mut self, session: &mut Session) -> Result<(), Stop> {
        // What has come by now was not meant for TLS, which the client does not know to be ready.
        if self.connection.has_input() {
            session.hang_up(&Reply::new(503, "5.5.0", "Error: wait for the reply to STARTTLS"));
            return Ok(());
        }
        let Some(settings) = self.tls_settings() else {
            session.start_tls(Err(Reply::new(454, "4.7.0", "TLS not available now")));
            return Ok(());
        };
        session.start_tls(Ok(()));
        self.flush(session)?;
        let (bindings, user) = self.handshake(settings)?;
        session.bind(bindings, user);
        Ok(())
    }

    /// TLS from the first byte on.
    fn shake_hands(&mut self) -> Result<(Vec<Binding>, Option<String>), Stop> {
        // There is no way to say what is wrong but in the log.
        let settings = self.tls_settings().ok_or(Stop::Client)?;
        self.handshake(settings)
    }

    fn tls_settings(&self) -> Option<&'a Settings> {
        let [plain, asking] = &self.kit.settings;
        if self.offers_login { asking.as_ref() } else { plain.as_ref() }
    }

    /// Shakes hands: what names the connection, and whose certificate the client has shown.
    fn handshake(&mut self, settings: &Settings) -> Result<(Vec<Binding>, Option<String>), Stop> {
        let patience = self.patience(Instant::now());
        if let Err(error) = self.connection.start_tls(Arc::clone(&settings.config), patience) {
            self.log_tls("handshake", &error)?;
            return Err(Stop::Client);
        }
        let bindings = settings.bindings(self.connection.tls_exported());
        Ok((bindings, self.certified()?))
    }

    /// Whose certificate the client has shown. Of one that is nobody's the log tells what to write
    /// into the file.
    fn certified(&mut self) -> Result<Option<String>, Stop> {
        let Some(shown) = self.connection.client_certificate() else {
            return Ok(None);
        };
        let is_good = shown.validity.is_some_and(|when| when.contains(clock::seconds()));
        let owner = if is_good {
            login::owner(self.monitor, &shown.fingerprint).map_err(|_| Stop::Monitor)?
        } else {
            None
        };
        if owner.is_none() {
            let what = if is_good { "is nobody's" } else { "has expired, or is not yet good" };
            let fingerprint = certificates::shown(&shown.fingerprint);
            let client = self.shown_client();
            let line = format!("NOQUEUE: certificate {fingerprint} of {client} {what}");
            self.say(Ask::Info, &line)?;
        }
        Ok(owner)
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
        let mut draft = self.server.inlet.create(Id::new()?, &envelope)?;
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
}

/// What is said when a message can't be kept; why is in the log.
fn no_space() -> Reply {
    Reply::new(452, "4.3.1", "Error: the message can't be stored now, try again later")
}
