//! `local-deliver`: the delivery agent.
//!
//! As root it becomes the recipient before anything of the message is looked at; for several it
//! forks once a recipient. Root itself copies bytes at most.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use clap::Parser;
use nix::unistd::{Uid, getuid};

use super::{Common, Failure, complain, handed, load, login_account, run, services, start};
use crate::auth::is_name;
use crate::config::{Config, LogTarget};
use crate::delivery;
use crate::delivery::local::{self, Agent, Delivered, Envelope, Wish};
use crate::mailbox::folders::Wanted;
use crate::mailbox::mbox::piped;
use crate::mailbox::{StageError, Staged};
use crate::net::activation::Handed;
use crate::net::limits::{Connections, Most};
use crate::route;
use crate::server::listener::{Forked, Listener};
use crate::server::lmtp::everybody;
use crate::server::{self, Connection};
use crate::sys::jail::Jail;
use crate::sys::log::Level;
use crate::sys::process::Ended;
use crate::sys::signal::{Foreman, Hold};
use crate::sys::{Account, Exit, Log, privilege};

/// Delivery agent: puts the message on stdin into users' mailboxes.
#[derive(Debug, Parser)]
#[command(name = "local-deliver", version, disable_help_subcommand = true)]
pub(super) struct Args {
    #[command(flatten)]
    common: Common,
    /// Deliver for USER (repeatable; default: the caller)
    #[arg(short = 'd', long = "deliver-to", value_name = "USER")]
    deliver_to: Vec<String>,
    /// The envelope's sender, for Return-Path; empty or <> for none
    #[arg(
        short = 'f',
        long = "from",
        value_name = "SENDER",
        visible_short_alias = 'r',
        allow_hyphen_values = true
    )]
    from: Option<String>,
    /// The extension of the address, as in USER+EXT
    #[arg(short = 'a', long, value_name = "EXT", default_value = "", allow_hyphen_values = true)]
    extension: String,
    /// Deliver into the user's FOLDER; with a / at its end, a Maildir
    #[arg(short = 'm', long, value_name = "FOLDER", value_parser = Wanted::parse)]
    folder: Option<Wanted>,
    /// Do not look into the user's .forward
    #[arg(long)]
    no_forward: bool,
    /// Fail softly: let the caller try again whatever is wrong
    #[arg(short = 't', long = "temporary")]
    soft: bool,
    /// Deliver nothing, say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,
    /// Say what is done
    #[arg(short, long)]
    verbose: bool,
    /// Speak LMTP, for USER or, as root, for everybody
    #[arg(short = 'l', long)]
    lmtp: bool,
    /// Speak LMTP for aliases: run their commands and write their files, as who runs this
    #[arg(long, hide = true)]
    alias: bool,
    /// More recipients
    #[arg(value_name = "USER")]
    users: Vec<String>,
}

const NAME: &str = "local-deliver";

/// Runs the program.
pub fn main() -> Exit {
    run(std::env::args_os(), local_deliver)
}

fn local_deliver(arguments: &Args) -> Result<Exit, Failure> {
    let handed = if arguments.lmtp || arguments.alias { Some(handed(&[])?) } else { None };
    start()?;
    let config = load(&arguments.common)?;
    let log = Log::open(NAME, config.log.into());
    let wish = Wish {
        folder: arguments.folder.clone(),
        ignore_forward: arguments.no_forward,
        aliases: arguments.alias,
    };
    let mut names = [arguments.deliver_to.as_slice(), &arguments.users].concat();
    if let Some(handed) = handed {
        if arguments.alias {
            return aliases(&config, &log, wish, &names, handed);
        }
        return lmtp(&config, &log, wish, &names, handed);
    }
    if names.is_empty() {
        names.push(login_name(getuid())?);
    }
    let sender = arguments.from.as_deref().map(sender).transpose()?;
    // Before the process becomes somebody else.
    let delivery = Delivery { config, log, sender, caller: getuid(), arguments, wish };
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    let exit = delivery.to_all(&names)?;
    Ok(if arguments.soft && exit != Exit::Ok { Exit::TempFail } else { exit })
}

/// LMTP for one user, whom this process becomes; or for everybody, as root.
fn lmtp(
    config: &Config,
    log: &Log,
    wish: Wish,
    names: &[String],
    handed: Handed,
) -> Result<Exit, Failure> {
    let failed = |error: io::Error| Failure::new(Exit::OsErr, error);
    let refused = |failure: delivery::Failure| Failure::new(failure.exit(), failure);
    let everybody =
        names.is_empty() && (privilege::is_root() || matches!(handed, Handed::Listeners(_)));
    if everybody {
        let server = everybody::Server {
            config,
            log,
            jail: Jail::prepare().map_err(failed)?,
            stranger: login_account(config)?,
            wish,
        };
        return match handed {
            Handed::Session { input, output } => Ok(server.session(Connection::new(input, output))),
            Handed::Listeners(sockets) => {
                let most = config.lmtp.max_connections;
                Listener {
                    sockets: services(sockets, "lmtp", &["lmtp"])?,
                    connections: Connections::new(Most {
                        sessions: most,
                        per_address: most,
                        per_minute: 0,
                        proxies: Vec::new(),
                    }),
                    busy: server::smtp::busy(&config.hostname).as_bytes(),
                    spawner: None,
                    log,
                }
                .serve(Forked::new(|connection| server.session(connection)))
                .map_err(failed)
            }
        };
    }
    let name = match names {
        [] => login_name(getuid())?,
        [name] => name.clone(),
        _ => return Err(Failure::new(Exit::Usage, "--lmtp serves one USER, or everybody")),
    };
    let Handed::Session { input, output } = handed else {
        return Err(Failure::new(Exit::Usage, "on a listening socket --lmtp serves everybody"));
    };
    let account = account(config, &name).map_err(refused)?;
    local::become_recipient(config, &account).map_err(refused)?;
    let connection = Connection::new(input, output);
    Ok(server::lmtp::serve_user(config, log, &account, wish, connection))
}

/// LMTP for the commands and files of aliases, as whoever this process is already.
fn aliases(
    config: &Config,
    log: &Log,
    wish: Wish,
    names: &[String],
    handed: Handed,
) -> Result<Exit, Failure> {
    if privilege::is_root() {
        let what = "--alias is not for root: aliases run their commands without its rights";
        return Err(Failure::new(Exit::NoPerm, what));
    }
    let Handed::Session { input, output } = handed else {
        return Err(Failure::new(Exit::Usage, "--alias serves stdin and stdout"));
    };
    let own = Account::by_uid(getuid()).ok().flatten();
    let name = names.first().map_or("alias", String::as_str);
    let account = own.unwrap_or_else(|| Account::own(name));
    Ok(server::lmtp::serve_user(config, log, &account, wish, Connection::new(input, output)))
}

fn login_name(uid: Uid) -> Result<String, Failure> {
    match Account::by_uid(uid) {
        Ok(Some(account)) => Ok(account.name),
        Ok(None) => Err(Failure::new(
            Exit::NoUser,
            format!("uid {uid} has no account: name a USER and a sender (-f)"),
        )),
        Err(error) => Err(Failure::new(Exit::TempFail, error)),
    }
}

/// A reverse-path, without its angle brackets.
fn sender(from: &str) -> Result<String, Failure> {
    if from.contains(char::is_control) {
        let what = "a sender (-f) has no control characters";
        return Err(Failure::new(Exit::Usage, what));
    }
    Ok(piped::bare(from).to_owned())
}

/// The account of this name that the caller may become.
pub(super) fn account(config: &Config, name: &str) -> Result<Account, delivery::Failure> {
    use delivery::Failure;
    let look_up = |error: io::Error| {
        Failure::temporary("4.3.0", format!("{name} can't be looked up: {error}"))
    };
    match route::account(config, local_part(config, name)) {
        Ok(Some(account)) => return Ok(account),
        Ok(None) => {}
        // The users file holds passwords: it is not for the users. Whoever started us knew who
        // we are to be, and we can act as nobody else: by our own name, if that is what is meant.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && is_name(name) => {
            let local = local_part(config, name);
            let is_own = |own: &String| route::extension(config, own, local).is_some();
            let own = login_name(getuid()).ok().filter(is_own);
            return Ok(Account::own(own.as_deref().unwrap_or(name)));
        }
        Err(error) => return Err(look_up(error)),
    }
    let elsewhere = Account::by_name(name).map_err(look_up)?.is_some();
    Err(if elsewhere && !privilege::is_root() {
        let text = format!("only root has to do with other users' mail: {name} is not you");
        Failure::permanent("5.7.1", text)
    } else if elsewhere {
        let text = format!("{name} has no mailbox here ([users] min_uid)");
        Failure::permanent("5.1.1", text)
    } else {
        Failure::permanent("5.1.1", format!("there is no user {name}"))
    })
}

/// A name may be given as an address of this host.
fn local_part<'a>(config: &Config, name: &'a str) -> &'a str {
    match name.rsplit_once('@') {
        Some((local, domain)) if config.is_local_domain(domain) => local,
        _ => name,
    }
}

/// What all recipients share.
struct Delivery<'a> {
    config: Config,
    log: Log,
    /// As the caller names it.
    sender: Option<String>,
    /// Who runs us, and is the sender where nothing else names one.
    caller: Uid,
    arguments: &'a Args,
    wish: Wish,
}

/// The message: what is left of stdin, or a copy of it.
enum Source {
    Stdin,
    Copy(File),
}

impl Delivery<'_> {
    fn to_all(&self, names: &[String]) -> Result<Exit, Failure> {
        let mut exit = Exit::Ok;
        let mut accounts = Vec::new();
        for name in names {
            match account(&self.config, name) {
                Ok(account) => accounts.push((name.as_str(), account)),
                Err(failure) => exit = worse(exit, self.refuse(name, &failure)),
            }
        }
        let source = match accounts.as_slice() {
            [] => return Ok(exit),
            [_] => Source::Stdin,
            _ => Source::Copy(self.copy_of_stdin()?),
        };
        // For one recipient, as root, this process can become them itself.
        if !privilege::is_root() || accounts.len() == 1 {
            for (name, account) in &accounts {
                exit = worse(exit, self.as_recipient(name, account, &source));
            }
            return Ok(exit);
        }
        let mut foreman = Foreman::begin().map_err(|error| Failure::new(Exit::OsErr, error))?;
        for (name, account) in &accounts {
            let ended = foreman.let_do(|| self.as_recipient(name, account, &source));
            exit = worse(exit, self.judge(account, ended));
        }
        Ok(exit)
    }

    /// Reads stdin into a file without a name, byte for byte, for more than one reader.
    fn copy_of_stdin(&self) -> Result<File, Failure> {
        let unwritten = |error| Failure::new(Exit::TempFail, StageError::Spool(error));
        let mut file = tempfile::tempfile().map_err(unwritten)?;
        // One byte more shows that there is more; the recipients refuse it then.
        let most = self.config.smtp.max_message_size.saturating_add(1);
        let mut input = io::stdin().lock().take(most);
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match input.read(&mut buffer) {
                Ok(0) => return Ok(file),
                Ok(n) => {
                    let piece = buffer.get(..n).unwrap_or_default();
                    file.write_all(piece).map_err(unwritten)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let what = format!("the message can't be read: {error}");
                    return Err(Failure::new(Exit::IoErr, what));
                }
            }
        }
    }

    /// What a child's end says of its delivery.
    fn judge(&self, account: &Account, ended: io::Result<Ended>) -> Exit {
        match ended {
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
    fn as_recipient(&self, given: &str, account: &Account, source: &Source) -> Exit {
        let done = local::become_recipient(&self.config, account)
            .and_then(|()| Agent::new(&self.config, account, self.wish.clone()))
            .map_err(Stop::from)
            .and_then(|mut agent| {
                let (text, beginning) = self.stage(&agent, source)?;
                let envelope = self.envelope(given, account, &beginning)?;
                // Until it ends: what was delivered is told by the exit status, whatever signal has
                // come meanwhile.
                Hold::for_good().map_err(|error| delivery::Failure::temporary("4.3.0", error))?;
                let done = self.deliver(&mut agent, text, envelope);
                for warning in agent.take_warnings() {
                    self.log.warning(&warning);
                }
                done
            });
        let name = &account.name;
        match done {
            Ok(()) => Exit::Ok,
            Err(Stop::Failure(failure)) => self.refuse(name, &failure),
            Err(Stop::Input(exit, what)) => {
                self.tell(Level::Error, name, &format!("status=failed {what}"), &what);
                exit
            }
        }
    }

    fn envelope(&self, given: &str, account: &Account, beginning: &[u8]) -> Result<Envelope, Stop> {
        let local = local_part(&self.config, given);
        let named = route::extension(&self.config, &account.name, local).unwrap_or_default();
        let extension = match self.arguments.extension.as_str() {
            "" => named.to_owned(),
            extension => extension.to_owned(),
        };
        let recipient = local::address_of(&self.config, account, &extension);
        let sender = match self.sender.clone().or_else(|| piped::sender(beginning)) {
            Some(sender) => sender,
            None => login_name(self.caller)
                .map_err(|failure| Stop::Input(failure.exit, failure.what))?,
        };
        Ok(Envelope { sender, recipient, extension, receipt: None })
    }

    /// Reads the message: all of it, and its beginning as it came.
    fn stage(&self, agent: &Agent<'_>, source: &Source) -> Result<(Rc<Staged>, Vec<u8>), Stop> {
        let mut stager = agent.stage();
        // Most messages are short, and memory that is not touched costs nothing.
        let mut buffer = vec![0; 16 * 1024];
        let mut at = 0_u64;
        let mut beginning = Vec::new();
        // A line end that may be the last byte.
        let mut held: &[u8] = b"";
        let failed = delivery::Failure::from;
        loop {
            let read = match source {
                Source::Stdin => io::stdin().lock().read(&mut buffer),
                Source::Copy(file) => file.read_at(&mut buffer, at),
            };
            match read {
                Ok(0) => break,
                Ok(n) => {
                    let piece = buffer.get(..n).unwrap_or_default();
                    let room = piped::BEGINNING.saturating_sub(beginning.len()).min(n);
                    beginning.extend_from_slice(piece.get(..room).unwrap_or_default());
                    stager.push(held).map_err(failed)?;
                    let rest = piece.strip_suffix(b"\n");
                    held = if rest.is_some() { b"\n" } else { b"" };
                    stager.push(rest.unwrap_or(piece)).map_err(failed)?;
                    at = at.saturating_add(n as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let what = format!("the message can't be read: {error}");
                    return Err(Stop::Input(Exit::IoErr, what));
                }
            }
        }
        if at == 0 && !self.arguments.dry_run {
            let what = "there is no message on stdin".to_owned();
            return Err(Stop::Input(Exit::DataErr, what));
        }
        if !piped::has_separator(&beginning, at) {
            stager.push(held).map_err(failed)?;
        }
        let staged = stager.finish().map_err(failed)?;
        Ok((Rc::new(staged), beginning))
    }

    fn deliver(
        &self,
        agent: &mut Agent<'_>,
        text: Rc<Staged>,
        envelope: Envelope,
    ) -> Result<(), Stop> {
        let address = envelope.recipient.clone();
        if self.arguments.dry_run {
            let plan = agent.plan(&text, &envelope)?;
            let line = format!("<{address}>, {} bytes: {plan}\n", text.length());
            return io::stdout().write_all(line.as_bytes()).map_err(|error| {
                Stop::Input(Exit::IoErr, format!("the answer can't be written: {error}"))
            });
        }
        if self.arguments.verbose {
            complain(NAME, &format!("<{address}>: {}", agent.plan(&text, &envelope)?));
        }
        let Delivered { size, how } = agent.deliver(text, envelope)?;
        self.log.info(&format!("to=<{address}> status=delivered size={size} {how}"));
        if self.arguments.verbose {
            complain(NAME, &format!("<{address}>: delivered, {size} bytes: {how}"));
        }
        Ok(())
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
    let known = [
        Exit::Ok,
        Exit::DataErr,
        Exit::NoUser,
        Exit::Unavailable,
        Exit::CantCreat,
        Exit::IoErr,
        Exit::NoPerm,
    ];
    known.into_iter().find(|exit| i32::from(*exit as u8) == status).unwrap_or(Exit::TempFail)
}
