//! `local-deliver`: the delivery agent.
//!
//! As root it forks once a recipient; the child becomes the recipient before anything of the
//! message is looked at. Root itself copies bytes at most.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::process::ExitCode;

use clap::Parser;
use nix::unistd::getuid;

use super::{Common, Failure, complain, load, run, start};
use crate::auth::{find_account, is_name};
use crate::config::{Config, LogTarget};
use crate::delivery::{self, local};
use crate::server::{self, Connection};
use crate::sys::log::Level;
use crate::sys::process::{self, Ended};
use crate::sys::{Account, Exit, Log, privilege};

/// Delivery agent: appends the message on stdin to users' mailboxes.
#[derive(Debug, Parser)]
#[command(name = "local-deliver", version, disable_help_subcommand = true)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Deliver for USER (repeatable; default: the caller)
    #[arg(short = 'd', long = "deliver-to", value_name = "USER")]
    deliver_to: Vec<String>,
    /// The envelope's sender, for Return-Path; empty or <> for none
    #[arg(short = 'f', long = "from", value_name = "SENDER")]
    from: Option<String>,
    /// Speak LMTP on stdin and stdout, for one USER
    #[arg(short = 'l', long)]
    lmtp: bool,
    /// More recipients
    #[arg(value_name = "USER")]
    users: Vec<String>,
}

const NAME: &str = "local-deliver";

/// Runs the program.
pub fn main() -> ExitCode {
    run(std::env::args_os(), local_deliver)
}

fn local_deliver(arguments: &Args) -> Result<Exit, Failure> {
    start()?;
    let config = load(&arguments.common)?;
    let log = Log::open(NAME, config.log.into());
    let mut names = [arguments.deliver_to.as_slice(), &arguments.users].concat();
    if names.is_empty() {
        names.push(caller()?);
    }
    if arguments.lmtp {
        return match names.as_slice() {
            [name] => lmtp(config, log, name),
            _ => Err(Failure::new(Exit::Usage, "--lmtp serves one USER")),
        };
    }
    let delivery = Delivery { log, sender: sender(arguments.from.as_deref())?, config };
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    delivery.to_all(&names)
}

/// One user's LMTP session, on stdin and stdout.
fn lmtp(config: Config, log: Log, name: &str) -> Result<Exit, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::OsErr, error);
    let delivery = Delivery { config, log, sender: Vec::new() };
    let refused = |failure: delivery::Failure| Failure::new(failure.exit(), failure);
    let account = delivery.account(name).map_err(refused)?;
    let Delivery { config, log, .. } = delivery;
    local::become_recipient(&config, &account).map_err(refused)?;
    let connection = Connection::on_stdin_and_stdout().map_err(failed)?;
    Ok(server::lmtp::serve(&config, &log, &account, connection))
}

/// The login name of whoever runs us.
fn caller() -> Result<String, Failure> {
    let uid = getuid();
    match Account::by_uid(uid) {
        Ok(Some(account)) => Ok(account.name),
        Ok(None) => Err(Failure::new(
            Exit::NoUser,
            format!("uid {uid} has no account: name a USER and a sender (-f)"),
        )),
        Err(error) => Err(Failure::new(Exit::TempFail, error)),
    }
}

/// The reverse-path, without its angle brackets; the caller's login name where none is given.
fn sender(from: Option<&str>) -> Result<Vec<u8>, Failure> {
    let sender = match from {
        None => caller()?,
        Some(from) => match from.strip_prefix('<').and_then(|s| s.strip_suffix('>')) {
            Some(bare) => bare.to_owned(),
            None => from.to_owned(),
        },
    };
    if sender.contains(|c: char| c.is_control()) {
        let what = "a sender (-f) has no control characters";
        return Err(Failure::new(Exit::Usage, what));
    }
    Ok(sender.into_bytes())
}

/// What all recipients share.
struct Delivery {
    config: Config,
    log: Log,
    sender: Vec<u8>,
}

/// The message: what is left of stdin, or a copy of it.
enum Source {
    Stdin,
    Copy(File),
}

impl Delivery {
    fn to_all(&self, names: &[String]) -> Result<Exit, Failure> {
        let mut exit = Exit::Ok;
        let mut accounts = Vec::new();
        for name in names {
            match self.account(name) {
                Ok(account) => accounts.push(account),
                Err(failure) => exit = worse(exit, self.refuse(name, &failure)),
            }
        }
        let source = match accounts.as_slice() {
            [] => return Ok(exit),
            [_] => Source::Stdin,
            _ => Source::Copy(self.copy_of_stdin()?),
        };
        for account in &accounts {
            exit = worse(exit, self.to_one(account, &source));
        }
        Ok(exit)
    }

    fn account(&self, name: &str) -> Result<Account, delivery::Failure> {
        use delivery::Failure;
        let look_up = |error: io::Error| {
            Failure::temporary("4.3.0", format!("{name} can't be looked up: {error}"))
        };
        match find_account(&self.config, name) {
            Ok(Some(account)) => return Ok(account),
            Ok(None) => {}
            // The users file holds passwords: it is not for the users. Whoever started us knew who
            // we are to be, and we can act as nobody else.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_name(name) => {
                return Ok(Account::own(name));
            }
            Err(error) => return Err(look_up(error)),
        }
        let elsewhere = Account::by_name(name).map_err(look_up)?.is_some();
        Err(if elsewhere && !privilege::is_root() {
            let text = format!("only root delivers to other users: {name} is not you");
            Failure::permanent("5.7.1", text)
        } else if elsewhere {
            let text = format!("{name} has no mailbox here ([users] min_uid)");
            Failure::permanent("5.1.1", text)
        } else {
            Failure::permanent("5.1.1", format!("there is no user {name}"))
        })
    }

    /// Reads stdin into a file without a name, byte for byte, for more than one reader.
    fn copy_of_stdin(&self) -> Result<File, Failure> {
        let limit = self.config.smtp.max_message_size;
        let copy = || -> io::Result<(File, u64)> {
            let mut file = tempfile::tempfile()?;
            // One byte more shows that there is more; the recipients refuse it then.
            let mut input = io::stdin().lock().take(limit.saturating_add(1));
            let length = io::copy(&mut input, &mut file)?;
            Ok((file, length))
        };
        match copy() {
            Ok((file, _)) => Ok(file),
            Err(error) => {
                Err(Failure::new(Exit::IoErr, format!("the message can't be read: {error}")))
            }
        }
    }

    fn to_one(&self, account: &Account, source: &Source) -> Exit {
        if !privilege::is_root() {
            return self.as_recipient(account, source);
        }
        let child = process::fork(|| self.as_recipient(account, source));
        match child.and_then(process::wait) {
            Ok(Ended::Exited(status)) => exit_of(status),
            Ok(Ended::Killed(signal)) => {
                let text = format!("the delivery was killed by signal {signal}");
                self.refuse(&account.name, &delivery::Failure::temporary("4.3.0", text))
            }
            Err(error) => {
                let failure = delivery::Failure::temporary("4.3.0", error);
                self.refuse(&account.name, &failure)
            }
        }
    }

    /// Becomes the recipient, reads the message and delivers it.
    fn as_recipient(&self, account: &Account, source: &Source) -> Exit {
        let delivered = local::become_recipient(&self.config, account)
            .and_then(|()| local::Agent::new(&self.config, account))
            .map_err(Stop::from)
            .and_then(|mut agent| {
                let delivered = self.deliver(&mut agent, account, source);
                for warning in agent.take_warnings() {
                    self.log.warning(&warning);
                }
                delivered
            });
        let name = &account.name;
        match delivered {
            Ok(local::Delivered { size, mailbox }) => {
                let mailbox = mailbox.display();
                self.log
                    .info(&format!("to=<{name}> status=delivered size={size} mailbox={mailbox}"));
                Exit::Ok
            }
            Err(Stop::Failure(failure)) => self.refuse(name, &failure),
            Err(Stop::Input(exit, what)) => {
                self.tell(Level::Error, name, &format!("status=failed {what}"), &what);
                exit
            }
        }
    }

    fn deliver(
        &self,
        agent: &mut local::Agent,
        account: &Account,
        source: &Source,
    ) -> Result<local::Delivered, Stop> {
        let mut staged = agent.stage();
        let mut buffer = vec![0; 64 * 1024];
        let mut at = 0;
        loop {
            let read = match source {
                Source::Stdin => io::stdin().lock().read(&mut buffer),
                Source::Copy(file) => file.read_at(&mut buffer, at),
            };
            match read {
                Ok(0) => break,
                Ok(n) => {
                    staged.push(buffer.get(..n).unwrap_or_default())?;
                    at = at.saturating_add(n as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let what = format!("the message can't be read: {error}");
                    return Err(Stop::Input(Exit::IoErr, what));
                }
            }
        }
        if staged.is_empty() {
            let what = "there is no message on stdin".to_owned();
            return Err(Stop::Input(Exit::DataErr, what));
        }
        let address = local::address_of(&self.config, account);
        Ok(agent.deliver(staged, &self.sender, address.as_bytes())?)
    }

    fn refuse(&self, name: &str, failure: &delivery::Failure) -> Exit {
        let (level, status) = if failure.is_temporary() {
            (Level::Warning, "deferred")
        } else {
            (Level::Error, "failed")
        };
        self.tell(level, name, &format!("status={status} {failure}"), failure.text());
        failure.exit()
    }

    /// Tells the log, and the caller where that is not the same.
    fn tell(&self, level: Level, name: &str, line: &str, text: &str) {
        self.log.line(level, &format!("to=<{name}> {line}"));
        if self.config.log != LogTarget::Stderr {
            complain(NAME, text);
        }
    }
}

/// Why one delivery ended.
enum Stop {
    /// The delivery failed.
    Failure(delivery::Failure),
    /// There is nothing that could be delivered.
    Input(Exit, String),
}

impl From<delivery::Failure> for Stop {
    fn from(failure: delivery::Failure) -> Self {
        Self::Failure(failure)
    }
}

/// One exit status for several recipients: one that may be tried again wins, so that no caller
/// gives up; then the first that failed.
fn worse(one: Exit, other: Exit) -> Exit {
    match (one, other) {
        (Exit::TempFail, _) | (_, Exit::TempFail) => Exit::TempFail,
        (Exit::Ok, other) => other,
        (one, _) => one,
    }
}

/// The status of a child of ours.
fn exit_of(status: i32) -> Exit {
    [Exit::Ok, Exit::DataErr, Exit::NoUser, Exit::CantCreat, Exit::IoErr, Exit::NoPerm]
        .into_iter()
        .find(|exit| i32::from(*exit as u8) == status)
        .unwrap_or(Exit::TempFail)
}
