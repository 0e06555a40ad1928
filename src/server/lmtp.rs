//! `local-deliver --lmtp`: one user's delivery agent, many messages on one connection.
//!
//! The process is the user already, and delivers to that user only, one recipient a message.

use super::Connection;
use crate::config::Config;
use crate::delivery::Failure;
use crate::delivery::local::{Agent, Staged, Stager};
use crate::message::Address;
use crate::queue::entry::Path;
use crate::route::{self, Route};
use crate::smtp::{Action, Dialect, Limits, Reply, Session, Verdict};
use crate::sys::{Account, Exit, Log};

/// How long the queue may say nothing; milliseconds.
const TIMEOUT: u32 = 600_000;

/// Refused commands that end a session.
const MAX_ERRORS: usize = 100;

/// What is read at once: messages that came whole with one read are delivered together.
const BUFFER: usize = 256 * 1024;

/// The most messages that are delivered together.
const MAX_BATCH: usize = 64;

/// Serves one session as `account`. Messages that the queue sends without waiting are made to last
/// together, before the replies to them go out.
pub fn serve(config: &Config, log: &Log, account: &Account, mut connection: Connection) -> Exit {
    let limits =
        Limits { message_size: config.smtp.max_message_size, recipients: 1, errors: MAX_ERRORS };
    let mut session = Session::new(Dialect::Lmtp, &config.hostname, config.origin(), limits, false);
    let mut batch = Batch { agent: Agent::new(config, account), waiting: Vec::new(), log };
    let mut text: Option<Result<Stager, Failure>> = None;
    let mut buffer = vec![0; BUFFER];
    let (mut taken, mut length) = (0, 0);
    loop {
        let mut input = buffer.get(taken..length).unwrap_or_default();
        let action = session.step(&mut input);
        taken = length - input.len();
        match action {
            Action::Read | Action::Close => {
                batch.deliver(session.output());
                let output = std::mem::take(session.output());
                if connection.send(&output, TIMEOUT).is_err() {
                    return Exit::IoErr;
                }
                if action == Action::Close {
                    return Exit::Ok;
                }
                taken = 0;
                length = match connection.receive(&mut buffer, TIMEOUT) {
                    // What is not committed was never acknowledged: the queue still has it.
                    Ok(0) => return Exit::Ok,
                    Ok(length) => length,
                    Err(_) => return Exit::IoErr,
                };
            }
            Action::CheckRecipient(address) => {
                session.recipient(check(config, account, &address));
            }
            // Not offered: the queue is on this host.
            Action::StartTls => session.start_tls(Err(Reply::new(454, "4.7.0", "no TLS here"))),
            Action::Open => {
                text = Some(match &batch.agent {
                    Ok(agent) => Ok(agent.stage()),
                    Err(failure) => Err(failure.clone()),
                });
                session.opened(Ok(()));
            }
            Action::Store(piece) => {
                if let Some(Ok(stager)) = &mut text
                    && let Err(failure) = stager.push(piece)
                {
                    text = Some(Err(failure));
                }
            }
            Action::Discard => text = None,
            Action::Commit => {
                let text = text.take();
                let lost = || Err(Failure::temporary("4.3.0", "no message was begun"));
                let transaction = session.transaction();
                let recipient = transaction.and_then(|t| t.recipients.first());
                let staged = Staged {
                    text: text.unwrap_or_else(lost),
                    sender: Path(transaction.and_then(|t| t.sender.as_ref())).to_string(),
                    recipient: recipient.map(|to| to.address.to_string()).unwrap_or_default(),
                };
                batch.waiting.push((session.output().len(), staged));
                session.stored(&[]);
                if batch.waiting.len() >= MAX_BATCH {
                    batch.deliver(session.output());
                }
            }
        }
    }
}

/// Messages that are whole but not delivered yet.
struct Batch<'a> {
    agent: Result<Agent, Failure>,
    /// Each with the place in the output where its reply belongs.
    waiting: Vec<(usize, Staged)>,
    log: &'a Log,
}

impl Batch<'_> {
    /// Delivers them, and puts the replies where they belong.
    fn deliver(&mut self, output: &mut Vec<u8>) {
        let (places, batch): (Vec<usize>, Vec<Staged>) = self.waiting.drain(..).unzip();
        if batch.is_empty() {
            return;
        }
        let recipients: Vec<String> = batch.iter().map(|one| one.recipient.clone()).collect();
        let fates = match &mut self.agent {
            Ok(agent) => agent.deliver_all(batch),
            Err(failure) => batch.iter().map(|_| Err(failure.clone())).collect(),
        };
        for warning in self.agent.iter_mut().flat_map(Agent::take_warnings) {
            self.log.warning(&warning);
        }
        let said = std::mem::take(output);
        let mut from = 0;
        for ((place, fate), recipient) in places.into_iter().zip(fates).zip(recipients) {
            output.extend_from_slice(said.get(from..place).unwrap_or_default());
            from = place;
            let reply = match fate {
                Ok(delivered) => {
                    let mailbox = delivered.mailbox.display();
                    Reply::new(250, "2.0.0", format!("delivered to {mailbox}"))
                }
                Err(failure) => {
                    let status = if failure.is_temporary() { "deferred" } else { "failed" };
                    self.log.warning(&format!("to=<{recipient}> status={status} {failure}"));
                    let code = if failure.is_temporary() { 451 } else { 550 };
                    Reply::new(code, failure.code(), failure.text())
                }
            };
            output.extend_from_slice(format!("{reply}\r\n").as_bytes());
        }
        output.extend_from_slice(said.get(from..).unwrap_or_default());
    }
}

fn check(config: &Config, account: &Account, address: &Address) -> Verdict {
    match route::route(config, address) {
        // As route::account compares them.
        Route::Local(name) if name == account.name => Verdict::Accept,
        Route::Local(name) if name.to_ascii_lowercase() == account.name => Verdict::Accept,
        _ => Verdict::Refuse(Reply::new(
            550,
            "5.1.1",
            format!("<{address}>: this agent delivers to {} only", account.name),
        )),
    }
}
