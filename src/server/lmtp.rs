//! `local-deliver --lmtp`: the LMTP server (RFC 2033).
//!
//! Started for one user, the process is that user already, speaks and delivers ([`serve_user`]).
//! Started for everybody, a session has a monitor (root), a jailed child that speaks, and an agent
//! for each user who gets mail ([`everybody`]). What both have in common is the conversation here:
//! it obeys the protocol and leaves messages to a `Desk`.

pub mod everybody;

use std::rc::Rc;

use super::Connection;
use crate::config::Config;
use crate::delivery::Failure;
use crate::delivery::local::{Agent, Delivered, Envelope, Receipt, Wish};
use crate::mailbox::{Staged, Stager};
use crate::message::Address;
use crate::message::binary::Downgrade;
use crate::queue::entry::Path;
use crate::route::{self, Route};
use crate::sasl::Answer;
use crate::smtp::{Action, Body, Dialect, Limits, Recipient, Reply, Session, Verdict};
use crate::sys::signal::Hold;
use crate::sys::{Account, Exit, Log};

/// How long a client may say nothing; milliseconds.
const TIMEOUT: u32 = 600_000;

/// Refused commands that end a session.
const MAX_ERRORS: usize = 100;

/// What is read at once: messages that came whole with one read are delivered together.
const BUFFER: usize = 256 * 1024;

/// The most deliveries that wait for each other.
const MAX_BATCH: usize = 64;

/// Where the messages of a conversation go. `Err(Gone)` ends the conversation: there is nobody who
/// could deliver any more.
trait Desk {
    /// Whether there is such a recipient.
    fn check(&mut self, address: &Address) -> Result<Verdict, Gone>;
    /// A message begins.
    fn open(&mut self) -> Result<(), Gone>;
    /// A piece of its text.
    fn store(&mut self, piece: &[u8]);
    /// The message will not become whole.
    fn discard(&mut self);
    /// The message is whole, for these recipients.
    fn commit(&mut self, envelopes: Vec<Envelope>) -> Result<(), Gone>;
    /// Delivers what was committed: a reply for each recipient, in their order.
    fn deliver(&mut self) -> Result<Vec<Reply>, Gone>;
}

/// Nobody is there who could deliver.
struct Gone;

/// Serves one session as `account`, which this process is. Messages that the queue sends without
/// waiting are made to last together, before the replies to them go out.
pub fn serve_user(
    config: &Config,
    log: &Log,
    account: &Account,
    wish: Wish,
    mut connection: Connection,
) -> Exit {
    let anybody = wish.aliases;
    let agent = Agent::new(config, account, wish);
    let mut desk =
        OneUser { config, account, agent, anybody, text: None, waiting: Vec::new(), log };
    converse(config, &mut connection, &mut desk)
}

fn converse(config: &Config, connection: &mut Connection, desk: &mut impl Desk) -> Exit {
    let limits = Limits {
        message_size: config.smtp.max_message_size,
        recipients: config.smtp.max_recipients,
        errors: MAX_ERRORS,
    };
    let mut session = Session::new(Dialect::Lmtp, &config.hostname, config.origin(), limits, false);
    talk(&mut session, connection, desk).unwrap_or_else(|Gone| {
        session.hang_up(&Reply::new(421, "4.3.0", "Error: delivery is not possible now"));
        let output = std::mem::take(session.output());
        let _ = connection.send(&output, TIMEOUT);
        Exit::OsErr
    })
}

fn talk(
    session: &mut Session,
    connection: &mut Connection,
    desk: &mut impl Desk,
) -> Result<Exit, Gone> {
    let mut late = Late::default();
    let mut buffer = vec![0; BUFFER];
    let (mut taken, mut length) = (0, 0);
    // What was delivered is said before a signal may end us.
    let mut hold: Option<Hold> = None;
    // Mailboxes keep lines: a text without any is converted as it comes.
    let mut downgrade: Option<Downgrade> = None;
    loop {
        let mut input = buffer.get(taken..length).unwrap_or_default();
        let action = session.step(&mut input);
        taken = length - input.len();
        match action {
            Action::Read | Action::Close => {
                let hold = hold.take().or_else(|| Hold::begin().ok());
                late.fill_in(desk.deliver()?, session.output());
                let output = std::mem::take(session.output());
                if connection.send(&output, TIMEOUT).is_err() {
                    return Ok(Exit::IoErr);
                }
                drop(hold);
                if action == Action::Close {
                    return Ok(Exit::Ok);
                }
                taken = 0;
                length = match connection.receive(&mut buffer, TIMEOUT) {
                    // What is not committed was never acknowledged: the client still has it.
                    Ok(0) => return Ok(Exit::Ok),
                    Ok(length) => length,
                    Err(_) => return Ok(Exit::IoErr),
                };
            }
            Action::CheckRecipient(address) => {
                let verdict = desk.check(&address)?;
                session.recipient(verdict);
            }
            // Not offered: the client is on this host.
            Action::StartTls => session.start_tls(Err(Reply::new(454, "4.7.0", "no TLS here"))),
            // Not offered either.
            Action::LookUp(_) => session.looked_up(Ok(&[])),
            Action::Claim(_) => session.claimed(),
            Action::Authenticate(..) => session.authenticate(Answer::Refused),
            Action::Open => {
                let message = session.transaction();
                let is_binary = message.is_some_and(|message| message.body == Body::BinaryMime);
                downgrade = is_binary.then(Downgrade::default);
                desk.open()?;
                session.opened(Ok(()));
            }
            Action::Store(piece) => match &mut downgrade {
                None => desk.store(piece),
                Some(downgrade) => {
                    let mut text = Vec::new();
                    downgrade.push(piece, &mut text);
                    desk.store(&text);
                }
            },
            Action::Discard => desk.discard(),
            Action::Commit => {
                if let Some(downgrade) = downgrade.take() {
                    let mut text = Vec::new();
                    downgrade.finish(&mut text);
                    desk.store(&text);
                }
                let envelopes = envelopes(session);
                late.expect(session.output().len(), envelopes.len());
                desk.commit(envelopes)?;
                session.stored(&[]);
                if late.count >= MAX_BATCH {
                    hold = hold.or_else(|| Hold::begin().ok());
                    late.fill_in(desk.deliver()?, session.output());
                }
            }
        }
    }
}

fn envelopes(session: &Session) -> Vec<Envelope> {
    let Some(transaction) = session.transaction() else {
        return Vec::new();
    };
    let sender = Path(transaction.sender.as_ref()).to_string();
    let to = |to: &Recipient| Envelope {
        sender: sender.clone(),
        recipient: to.address.to_string(),
        extension: String::new(),
        receipt: to.notify.as_ref().filter(|notify| notify.success).map(|_| Receipt {
            envelope_id: transaction.envelope_id.as_ref().map(|id| id.as_str().to_owned()),
            original: to.original.as_ref().map(|to| format!("{};{}", to.kind(), to.address())),
        }),
    };
    transaction.recipients.iter().map(to).collect()
}

/// Replies that are not known yet, each with the place in the output where it belongs.
#[derive(Default)]
struct Late {
    places: Vec<(usize, usize)>,
    count: usize,
}

impl Late {
    fn expect(&mut self, place: usize, count: usize) {
        self.places.push((place, count));
        self.count += count;
    }

    fn fill_in(&mut self, replies: Vec<Reply>, output: &mut Vec<u8>) {
        if self.places.is_empty() {
            return;
        }
        let said = std::mem::take(output);
        let mut replies = replies.into_iter();
        let mut from = 0;
        for (place, count) in self.places.drain(..) {
            output.extend_from_slice(said.get(from..place).unwrap_or_default());
            from = place;
            for reply in replies.by_ref().take(count) {
                output.extend_from_slice(format!("{reply}\r\n").as_bytes());
            }
        }
        output.extend_from_slice(said.get(from..).unwrap_or_default());
        self.count = 0;
    }
}

/// What an LMTP client is told of a delivery.
fn reply(fate: &Result<Delivered, Failure>) -> Reply {
    match fate {
        Ok(delivered) => Reply::new(250, "2.0.0", delivered.to_string()),
        Err(failure) if failure.is_temporary() => Reply::new(451, failure.code(), failure.text()),
        Err(failure) if failure.code() == "5.2.2" => {
            Reply::new(552, failure.code(), failure.text())
        }
        Err(failure) => Reply::new(550, failure.code(), failure.text()),
    }
}

fn log_failure(log: &Log, recipient: &str, failure: &Failure) {
    let status = if failure.is_temporary() { "deferred" } else { "failed" };
    log.warning(&format!("to=<{recipient}> status={status} {failure}"));
}

/// The desk of a process that is its one user.
struct OneUser<'a> {
    config: &'a Config,
    account: &'a Account,
    agent: Result<Agent<'a>, Failure>,
    /// The agent takes every address: it does what aliases say.
    anybody: bool,
    text: Option<Result<Stager, Failure>>,
    waiting: Vec<(Result<Rc<Staged>, Failure>, Envelope)>,
    log: &'a Log,
}

impl Desk for OneUser<'_> {
    fn check(&mut self, address: &Address) -> Result<Verdict, Gone> {
        let (config, name) = (self.config, &self.account.name);
        Ok(match route::route(config, address) {
            _ if self.anybody => Verdict::Accept,
            Route::Local(local) if route::extension(config, name, local).is_some() => {
                Verdict::Accept
            }
            _ => Verdict::Refuse(Reply::new(
                550,
                "5.1.1",
                format!("<{address}>: this agent delivers to {name} only"),
            )),
        })
    }

    fn open(&mut self) -> Result<(), Gone> {
        self.text = Some(match &self.agent {
            Ok(agent) => Ok(agent.stage()),
            Err(failure) => Err(failure.clone()),
        });
        Ok(())
    }

    fn store(&mut self, piece: &[u8]) {
        if let Some(Ok(stager)) = &mut self.text
            && let Err(error) = stager.push(piece)
        {
            self.text = Some(Err(error.into()));
        }
    }

    fn discard(&mut self) {
        self.text = None;
    }

    fn commit(&mut self, envelopes: Vec<Envelope>) -> Result<(), Gone> {
        let lost = || Err(Failure::temporary("4.3.0", "no message was begun"));
        let text = self.text.take().unwrap_or_else(lost);
        let text = text.and_then(|stager| Ok(Rc::new(stager.finish()?)));
        self.waiting.extend(envelopes.into_iter().map(|mut envelope| {
            let local = envelope.recipient.rsplit_once('@').map_or("", |(local, _)| local);
            let extension = route::extension(self.config, &self.account.name, local);
            envelope.extension = extension.unwrap_or_default().to_owned();
            (text.clone(), envelope)
        }));
        Ok(())
    }

    fn deliver(&mut self) -> Result<Vec<Reply>, Gone> {
        let waiting = std::mem::take(&mut self.waiting);
        let recipients: Vec<String> = waiting.iter().map(|(_, e)| e.recipient.clone()).collect();
        let fates = match &mut self.agent {
            Ok(agent) => agent.deliver_all(waiting),
            Err(failure) => waiting.iter().map(|_| Err(failure.clone())).collect(),
        };
        if let Ok(agent) = &mut self.agent {
            for warning in agent.take_warnings() {
                self.log.warning(&warning);
            }
        }
        let told = fates.iter().zip(&recipients).map(|(fate, recipient)| {
            if let Err(failure) = fate {
                log_failure(self.log, recipient, failure);
            }
            reply(fate)
        });
        Ok(told.collect())
    }
}
