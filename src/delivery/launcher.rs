//! Who may become a recipient, and who may not.
//!
//! The launcher (root) knows four requests, records of bounded size. For a recipient's name it looks
//! the account up, forks a child that becomes it for good, executes `local-deliver --lmtp` there,
//! and hands the other end of the socket to the worker, which never has any rights. The commands and
//! files of aliases have an agent of their own: the owner of the alias file, or `[delivery]
//! alias_user` where that is root. For a courier it forks a child that becomes an account without
//! rights and speaks to other hosts. And it says whether there is an account.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::unistd::{Gid, Uid};

use super::local;
use super::remote::{self, Courier};
use crate::config::Config;
use crate::route;
use crate::sys::channel::Channel;
use crate::sys::{Account, Exit, Log, privilege, process};

/// The longest name of a request.
const MAX_NAME: usize = 255;
/// Requests begin with what is wanted: a delivery agent for the name that follows,
const AGENT: u8 = b'a';
/// the agent for what aliases have in commands and files,
const PROGRAMS: u8 = b'p';
/// whether there is an account of the name that follows,
const KNOWN: u8 = b'k';
/// or a courier.
const COURIER: u8 = b'c';
/// The longest file of credentials.
const MAX_CREDENTIALS: u64 = 4096;

/// What came of a request.
#[derive(Debug)]
pub enum Launched {
    /// A delivery agent for this user waits at the other end.
    Started(OwnedFd),
    /// There is no such user here.
    NoUser,
    /// Not now; the log says why.
    Unavailable,
}

/// Asks for a delivery agent, from the worker's side.
pub fn request(launcher: &Channel, name: &str) -> io::Result<Launched> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Ok(Launched::NoUser);
    }
    launcher.send(&[&[AGENT], name.as_bytes()].concat())?;
    answer(launcher)
}

/// Asks for the agent for the commands and files of aliases, from the worker's side.
pub fn request_programs(launcher: &Channel) -> io::Result<Launched> {
    launcher.send(&[PROGRAMS])?;
    answer(launcher)
}

/// Whether there is an account that a local-part leads to, from the worker's side.
pub fn is_known(launcher: &Channel, name: &str) -> io::Result<bool> {
    if name.is_empty() || name.len() > MAX_NAME {
        return Ok(false);
    }
    launcher.send(&[&[KNOWN], name.as_bytes()].concat())?;
    let mut answer = [0];
    match (launcher.receive(&mut answer)?, answer) {
        (0, _) => Err(io::ErrorKind::BrokenPipe.into()),
        (_, [b'y']) => Ok(true),
        (_, [b'n']) => Ok(false),
        _ => Err(io::Error::other("can't be looked up now")),
    }
}

/// Asks for a courier, from the worker's side; `None` where there can be none now.
pub fn request_courier(launcher: &Channel) -> io::Result<Option<Courier>> {
    launcher.send(&[COURIER])?;
    match answer(launcher)? {
        Launched::Started(socket) => Courier::new(socket.into()).map(Some),
        Launched::NoUser | Launched::Unavailable => Ok(None),
    }
}

fn answer(launcher: &Channel) -> io::Result<Launched> {
    let mut answer = [0];
    match launcher.receive_with(&mut answer)? {
        (0, _) => Err(io::ErrorKind::BrokenPipe.into()),
        (_, Some(socket)) => Ok(Launched::Started(socket)),
        _ if answer == *b"n" => Ok(Launched::NoUser),
        _ => Ok(Launched::Unavailable),
    }
}

/// The launcher's side.
pub struct Launcher<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The `-C` that local-deliver is given.
    pub config_file: Option<PathBuf>,
    /// The account that a courier becomes, with root; or why there is none. Looked up where there
    /// is mail for other hosts only.
    pub stranger: &'a dyn Fn() -> io::Result<Option<Account>>,
    /// The log.
    pub log: &'a Log,
}

impl Launcher<'_> {
    /// Answers one request; false when the worker has gone.
    pub fn serve(&self, worker: &Channel) -> io::Result<bool> {
        let mut record = [0; 1 + MAX_NAME];
        let length = worker.receive(&mut record)?;
        match record.get(..length).unwrap_or_default().split_first() {
            None => return Ok(false),
            Some((&AGENT, name)) => self.serve_agent(worker, name)?,
            Some((&KNOWN, name)) => self.serve_known(worker, name)?,
            Some((&PROGRAMS, _)) => {
                let launched = self.alias_account().and_then(|account| {
                    self.launch(&account, "--alias", privilege::become_account)
                });
                self.hand_over(worker, launched)?;
            }
            Some(_) => match self.launch_courier() {
                Ok(socket) => worker.send_with(b"s", &[socket.as_fd()])?,
                Err(error) => {
                    self.log.error(&format!("can't send mail to other hosts: {error}"));
                    worker.send(b"u")?;
                }
            },
        }
        Ok(true)
    }

    fn serve_agent(&self, worker: &Channel, name: &[u8]) -> io::Result<()> {
        let name = std::str::from_utf8(name).ok();
        match name.map_or(Ok(None), |name| route::account(self.config, name)) {
            Ok(None) => worker.send(b"n"),
            Ok(Some(account)) => {
                let become_recipient = |account: &Account| {
                    local::become_recipient(self.config, account).map_err(io::Error::other)
                };
                self.hand_over(worker, self.launch(&account, "--lmtp", become_recipient))
            }
            Err(error) => {
                self.log.error(&format!("looking up user {name:?}: {error}"));
                worker.send(b"u")
            }
        }
    }

    fn hand_over(&self, worker: &Channel, launched: io::Result<OwnedFd>) -> io::Result<()> {
        match launched {
            Ok(socket) => worker.send_with(b"s", &[socket.as_fd()]),
            Err(error) => {
                self.log.error(&format!("can't start local-deliver: {error}"));
                worker.send(b"u")
            }
        }
    }

    fn serve_known(&self, worker: &Channel, name: &[u8]) -> io::Result<()> {
        let name = std::str::from_utf8(name).ok();
        match name.map_or(Ok(None), |name| route::account(self.config, name)) {
            Ok(found) => worker.send(if found.is_some() { b"y" } else { b"n" }),
            Err(error) => {
                self.log.error(&format!("looking up user {name:?}: {error}"));
                worker.send(b"u")
            }
        }
    }

    /// Who runs the commands of aliases: never root.
    fn alias_account(&self) -> io::Result<Account> {
        if !privilege::is_root() {
            return Ok(Account::own("alias"));
        }
        let file = &self.config.paths.aliases;
        let found = std::fs::metadata(file)
            .map_err(|error| io::Error::other(format!("{}: {error}", file.display())))?;
        let (uid, gid) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
        if !uid.is_root() {
            let shell = PathBuf::from("/bin/sh");
            let name = format!("uid{uid}");
            let bare = || Account { name, uid, gid, home: "/nonexistent".into(), shell };
            return Ok(Account::by_uid(uid)?.unwrap_or_else(bare));
        }
        let name = &self.config.delivery.alias_user;
        match Account::by_name(name)? {
            Some(account) if !account.uid.is_root() => Ok(account),
            Some(_) => Err(io::Error::other(format!(
                "[delivery] alias_user: {name} is root; an account without rights is wanted"
            ))),
            None => Err(io::Error::other(format!(
                "[delivery] alias_user: there is no account {name}; make it or name another one"
            ))),
        }
    }

    fn launch_courier(&self) -> io::Result<Channel> {
        let account = (self.stranger)()?;
        let credentials = self.read_credentials()?;
        let (ours, theirs) = Channel::pair()?;
        let mut ours = Some(ours);
        process::fork(|| {
            // The worker's end, or else nobody would notice that the worker has gone.
            ours = None;
            let ready = process::leave_terminal()
                .and_then(|()| process::close_others(&[theirs.as_fd()]))
                .and_then(|()| account.as_ref().map_or(Ok(()), privilege::become_account));
            let log = Log::open("mta-queue", self.config.log.into());
            if let Err(error) = ready {
                log.error(&format!("delivery to other hosts: {error}"));
                return Exit::OsErr;
            }
            match remote::courier::run(self.config, credentials.as_deref(), theirs, log) {
                Ok(()) => Exit::Ok,
                Err(_) => Exit::OsErr,
            }
        })?;
        ours.ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// The bytes of the smarthost's credentials; who parses them has no rights.
    fn read_credentials(&self) -> io::Result<Option<Vec<u8>>> {
        let path = &self.config.delivery.credentials;
        if path.as_os_str().is_empty() {
            return Ok(None);
        }
        let named = |error: io::Error| io::Error::other(format!("{}: {error}", path.display()));
        let file = File::open(path).map_err(named)?;
        let mode = file.metadata().map_err(named)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(named(io::Error::other("others may read it: chmod 600 it")));
        }
        let mut text = Vec::new();
        file.take(MAX_CREDENTIALS).read_to_end(&mut text).map_err(named)?;
        Ok(Some(text))
    }

    /// Starts a local-deliver in this `mode`, which is the account by `change`.
    fn launch(
        &self,
        account: &Account,
        mode: &str,
        change: impl Fn(&Account) -> io::Result<()>,
    ) -> io::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
        process::fork(|| {
            if let Err(error) = process::leave_terminal() {
                self.log.error(&format!("leaving the terminal: {error}"));
                return Exit::OsErr;
            }
            if let Err(failure) = change(account) {
                self.log.error(&format!("becoming {}: {failure}", account.name));
                return Exit::OsErr;
            }
            let program = self.config.paths.libexec.join("local-deliver");
            let error = self.execute(&program, mode, account, &theirs);
            self.log.error(&format!(
                "{}: can't be run: {error}; is [paths] libexec right?",
                program.display()
            ));
            Exit::OsFile
        })?;
        Ok(ours)
    }

    fn execute(
        &self,
        program: &Path,
        mode: &str,
        account: &Account,
        socket: &OwnedFd,
    ) -> io::Error {
        let mut arguments = ["local-deliver", mode, "-d", &account.name].map(OsStr::new).to_vec();
        if let Some(config) = &self.config_file {
            arguments.extend([OsStr::new("-C"), config.as_os_str()]);
        }
        let environment = [
            ("HOME", account.home.as_os_str()),
            ("USER", OsStr::new(&account.name)),
            ("LOGNAME", OsStr::new(&account.name)),
            ("SHELL", account.shell.as_os_str()),
        ];
        process::exec(program, &arguments, &environment, socket, socket)
    }
}
