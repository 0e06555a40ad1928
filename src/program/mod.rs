//! The programs: one file each, with its arguments, its configuration, its wiring and its exit
//! status. No protocol words here.

mod access;
mod dotlock;
mod explain;
mod imapd;
mod local_deliver;
mod mailctl;
mod mta_queue;
mod popd;
mod queue_view;
mod sendmail;
mod smtpd;

use std::ffi::OsString;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{CommandFactory, Parser};

use crate::config::{self, Config};
use crate::net::activation::{self, Handed, Socket};
use crate::queue::Spool;
use crate::sys::{Account, Exit, privilege, process};

pub use dotlock::main as dotlock_main;
pub use imapd::main as imapd_main;
pub use local_deliver::main as local_deliver_main;
pub use mailctl::main as mailctl_main;
pub use mta_queue::main as mta_queue_main;
pub use popd::main as popd_main;
pub use sendmail::main as sendmail_main;
pub use smtpd::main as smtpd_main;

/// Descriptors that a listening parent needs besides one for each session.
const DESCRIPTORS: u64 = 64;

/// Every program's command line, for the tests that hold the man pages against it.
pub fn commands() -> Vec<clap::Command> {
    vec![
        dotlock::Args::command(),
        imapd::Args::command(),
        local_deliver::Args::command(),
        mailctl::Args::command(),
        mta_queue::Args::command(),
        popd::Args::command(),
        sendmail::Args::command(),
        smtpd::Args::command(),
    ]
}

/// The flag that all programs share.
#[derive(Debug, clap::Args)]
struct Common {
    /// Read FILE instead of the installed hikyaku.toml
    #[arg(short = 'C', long = "config", value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

/// Why a program ends early: what to say on stderr, and the exit status.
struct Failure {
    exit: Exit,
    what: String,
}

impl Failure {
    fn new(exit: Exit, what: impl std::fmt::Display) -> Self {
        Self { exit, what: what.to_string() }
    }
}

/// Runs a program's body: arguments in, exit status out, one line on stderr where it failed.
fn run<A: Parser>(
    arguments: impl IntoIterator<Item = OsString>,
    body: impl FnOnce(&A) -> Result<Exit, Failure>,
) -> Exit {
    let command = A::command().version(config::VERSION);
    let name = command.get_name().to_owned();
    let matches = command.try_get_matches_from(arguments);
    let arguments = match matches.and_then(|matches| A::from_arg_matches(&matches)) {
        Ok(arguments) => arguments,
        Err(error) => return usage(&name, &error),
    };
    match body(&arguments) {
        Ok(exit) => exit,
        Err(failure) => {
            complain(&name, &failure.what);
            failure.exit
        }
    }
}

/// Help and version go to stdout; a usage error is one line and exit status 64.
fn usage(name: &str, error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        return match write!(std::io::stdout(), "{}", error.render()) {
            Ok(()) => Exit::Ok,
            Err(_) => Exit::IoErr,
        };
    }
    let text = error.render().to_string();
    let first = text.lines().next().unwrap_or_default();
    let first = first.strip_prefix("error: ").unwrap_or(first);
    let missing: Vec<&str> =
        text.lines().skip(1).take_while(|line| line.starts_with("  <")).collect();
    let line = format!("{first}{}; try {name} --help", missing.concat());
    complain(name, &line);
    Exit::Usage
}

/// One diagnostic line on stderr.
fn complain(name: &str, what: &str) {
    let _ = writeln!(std::io::stderr(), "{name}: {}", crate::sys::log::escape(what));
}

/// Loads the configuration. A program that somebody runs with rights that are not theirs takes no
/// file from its caller.
fn load(common: &Common) -> Result<Config, Failure> {
    if common.config.is_some() && privilege::is_elevated() {
        return Err(Failure::new(Exit::NoPerm, "-C is not for a setuid or setgid program"));
    }
    config::load(common.config.as_deref()).map_err(|error| {
        let exit = if error.may_pass() { Exit::TempFail } else { Exit::Config };
        Failure::new(exit, error)
    })
}

/// What every program does first: 0, 1 and 2 are open, so that no file takes their place, a file
/// size limit fails a write instead of ending the process, and the ends of children are heard of.
fn start() -> Result<(), Failure> {
    crate::sys::fd::ensure_standard()
        .and_then(|()| crate::sys::signal::ignore_file_size_signal())
        .and_then(|()| crate::sys::signal::hear_of_children())
        .map_err(|error| Failure::new(Exit::OsErr, error))
}

/// What a server was handed; to be called before any file is opened.
fn handed(listen: &[SocketAddr]) -> Result<Handed, Failure> {
    let failed = |error| Failure::new(Exit::OsErr, error);
    start()?;
    activation::handed(listen).map_err(failed)
}

/// The service that is spoken on each socket: the name that systemd gave it, where it is one of
/// `known`, else the word of `--service`.
fn services(
    sockets: Vec<(Socket, Option<String>)>,
    word: &str,
    known: &[&str],
) -> Result<Vec<(Socket, String)>, Failure> {
    let named = sockets.into_iter().map(|(socket, name)| match name {
        Some(name) if known.contains(&name.as_str()) => Ok((socket, name)),
        // systemd's names for sockets that were given none.
        Some(name) if name != "unknown" && !name.ends_with(".socket") => Err(Failure::new(
            Exit::Config,
            format!("FileDescriptorName={name}: known services are {}", known.join(", ")),
        )),
        _ => Ok((socket, word.to_owned())),
    });
    named.collect()
}

/// Whom a login child becomes, with root.
fn login_account(config: &Config) -> Result<Option<Account>, Failure> {
    if !privilege::is_root() {
        return Ok(None);
    }
    let name = &config.users.login;
    match Account::by_name(name) {
        Ok(Some(account)) if !account.uid.is_root() => Ok(Some(account)),
        Ok(Some(_)) => Err(Failure::new(
            Exit::Config,
            format!("[users] login: {name} is root; an account without rights is wanted"),
        )),
        Ok(None) => Err(Failure::new(
            Exit::Config,
            format!(
                "[users] login: there is no account {name}; make it (useradd --system \
                 --no-create-home --shell /usr/sbin/nologin {name}) or name another one"
            ),
        )),
        Err(error) => Err(Failure::new(Exit::OsErr, format!("account {name}: {error}"))),
    }
}

/// Makes the queue's directories where they are missing, as their owner, and says who that is.
fn prepare_queue(spool: &Spool) -> Result<Account, Failure> {
    let broken = |error: std::io::Error| {
        Failure::new(Exit::OsFile, format!("{}: {error}", spool.root().display()))
    };
    let owner = spool.owner().map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Failure::new(
            Exit::OsFile,
            format!("{}: {error}: make it, as the queue's account", spool.root().display()),
        ),
        _ => broken(error),
    })?;
    if !privilege::is_root() {
        spool.prepare().map_err(broken)?;
        return Ok(owner);
    }
    // Root makes no file in a directory of somebody else's.
    let child = process::fork(|| {
        let done = privilege::become_account(&owner).and_then(|()| spool.prepare());
        if done.is_ok() { Exit::Ok } else { Exit::CantCreat }
    });
    match child.and_then(process::wait) {
        Ok(process::Ended::Exited(0)) => Ok(owner),
        Ok(_) => Err(Failure::new(
            Exit::CantCreat,
            format!("{}: its owner can't make the queue's directories", spool.root().display()),
        )),
        Err(error) => Err(broken(error)),
    }
}
