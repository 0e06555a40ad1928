//! `local-deliver --lmtp`: one user's delivery agent, many messages on one connection.
//!
//! The process is the user already, and delivers to that user only, one recipient a message.

use std::io;

use super::Connection;
use crate::config::Config;
use crate::delivery::Failure;
use crate::delivery::local::{Agent, Stager};
use crate::message::Address;
use crate::queue::entry::Path;
use crate::route::{self, Route};
use crate::smtp::{Action, Dialect, Limits, Reply, Session, Verdict};
use crate::sys::{Account, Exit, Log};

/// How long the queue may say nothing; milliseconds.
const TIMEOUT: u32 = 600_000;

/// Refused commands that end a session.
const MAX_ERRORS: usize = 100;

/// Serves one session as `account`.
pub fn serve(config: &Config, log: &Log, account: &Account, mut connection: Connection) -> Exit {
    let limits = Limits {
        message_size: config.smtp.max_message_size,
        recipients: 1,
        errors: MAX_ERRORS,
    };
    let mut session = Session::new(
        Dialect::Lmtp,
        &config.hostname,
        config.origin(),
        limits,
        false,
    );
    let mut agent = Agent::new(config, account);
    let mut staged: Option<Result<Stager, Failure>> = None;
    let mut buffer = vec![0; 64 * 1024];
    let (mut taken, mut length) = (0, 0);
    loop {
        let mut input = buffer.get(taken..length).unwrap_or_default();
        let action = session.step(&mut input);
        taken = length - input.len();
        match action {
            Action::Read => {
                let output = std::mem::take(session.output());
                if connection.send(&output, TIMEOUT).is_err() {
                    return Exit::IoErr;
                }
                taken = 0;
                length = match connection.receive(&mut buffer, TIMEOUT) {
                    // What is not committed was never acknowledged: the queue still has it.
                    Ok(0) => return Exit::Ok,
                    Ok(length) => length,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                    Err(_) => return Exit::IoErr,
                };
            }
            Action::CheckRecipient(address) => {
                session.recipient(check(config, account, &address));
            }
            Action::Open => {
                staged = Some(match &agent {
                    Ok(agent) => Ok(agent.stage()),
                    Err(failure) => Err(failure.clone()),
                });
                session.opened(Ok(()));
            }
            Action::Store(text) => {
                if let Some(Ok(stager)) = &mut staged
                    && let Err(failure) = stager.push(text)
                {
                    staged = Some(Err(failure));
                }
            }
            Action::Discard => staged = None,
            Action::Commit => {
                let reply = match (staged.take(), &mut agent) {
                    (Some(Ok(stager)), Ok(agent)) => deliver(log, &session, agent, stager),
                    (Some(Err(failure)), _) => refusal(&failure),
                    (_, Err(failure)) => refusal(failure),
                    (None, Ok(_)) => Reply::new(451, "4.3.0", "Error: no message was begun"),
                };
                session.stored(&[reply]);
            }
            Action::Close => {
                let output = std::mem::take(session.output());
                let sent = connection.send(&output, TIMEOUT);
                return if sent.is_ok() { Exit::Ok } else { Exit::IoErr };
            }
        }
    }
}

fn check(config: &Config, account: &Account, address: &Address) -> Verdict {
    let unknown = || {
        Verdict::Refuse(Reply::new(
            550,
            "5.1.1",
            format!("<{address}>: this agent delivers to {} only", account.name),
        ))
    };
    let Route::Local(name) = route::route(config, address) else {
        return unknown();
    };
    match route::account(config, name) {
        Ok(Some(found)) if found.name == account.name => Verdict::Accept,
        Ok(_) => unknown(),
        Err(error) => Verdict::Refuse(Reply::new(
            451,
            "4.3.0",
            format!("<{address}>: can't be looked up: {error}"),
        )),
    }
}

fn deliver(log: &Log, session: &Session, agent: &mut Agent, stager: Stager) -> Reply {
    let Some(transaction) = session.transaction() else {
        return Reply::new(451, "4.3.0", "Error: no message was begun");
    };
    let sender = Path(transaction.sender.as_ref()).to_string();
    let recipient = transaction
        .recipients
        .first()
        .map(Address::to_string)
        .unwrap_or_default();
    let delivered = agent.deliver(stager, sender.as_bytes(), recipient.as_bytes());
    for warning in agent.take_warnings() {
        log.warning(&warning);
    }
    match delivered {
        Ok(delivered) => Reply::new(
            250,
            "2.0.0",
            format!("delivered to {}", delivered.mailbox.display()),
        ),
        Err(failure) => {
            log.warning(&format!("to=<{recipient}> status=failed {failure}"));
            refusal(&failure)
        }
    }
}

fn refusal(failure: &Failure) -> Reply {
    let code = if failure.is_temporary() { 451 } else { 550 };
    Reply::new(code, failure.code(), failure.text())
}
