//! Who may become a recipient, and who may not.
//!
//! The launcher (root) knows one request: a recipient's name, a record of bounded size. It looks
//! the account up, forks a child that becomes it for good, executes `local-deliver --lmtp` there,
//! and hands the other end of the socket to the worker, which never has any rights.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use super::local;
use crate::config::Config;
use crate::route;
use crate::sys::channel::Channel;
use crate::sys::{Account, Exit, Log, process};

/// The longest name of a request.
const MAX_NAME: usize = 255;

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
    launcher.send(name.as_bytes())?;
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
    /// The log.
    pub log: &'a Log,
}

impl Launcher<'_> {
    /// Answers one request; false when the worker has gone.
    pub fn serve(&self, worker: &Channel) -> io::Result<bool> {
        let mut record = [0; MAX_NAME];
        let length = worker.receive(&mut record)?;
        if length == 0 {
            return Ok(false);
        }
        let name = record.get(..length).and_then(|name| std::str::from_utf8(name).ok());
        match name.map_or(Ok(None), |name| route::account(self.config, name)) {
            Ok(None) => worker.send(b"n")?,
            Ok(Some(account)) => match self.launch(&account) {
                Ok(socket) => worker.send_with(b"s", Some(socket.as_fd()))?,
                Err(error) => {
                    self.log.error(&format!("can't start local-deliver: {error}"));
                    worker.send(b"u")?;
                }
            },
            Err(error) => {
                self.log.error(&format!("looking up user {name:?}: {error}"));
                worker.send(b"u")?;
            }
        }
        Ok(true)
    }

    fn launch(&self, account: &Account) -> io::Result<OwnedFd> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::Stream, None, flags)?;
        process::fork(|| {
            if let Err(error) = process::leave_terminal() {
                self.log.error(&format!("leaving the terminal: {error}"));
                return Exit::OsErr;
            }
            if let Err(failure) = local::become_recipient(self.config, account) {
                self.log.error(&format!("becoming {}: {failure}", account.name));
                return Exit::OsErr;
            }
            let program = self.config.paths.libexec.join("local-deliver");
            let error = self.execute(&program, account, &theirs);
            self.log.error(&format!(
                "{}: can't be run: {error}; is [paths] libexec right?",
                program.display()
            ));
            Exit::OsFile
        })?;
        Ok(ours)
    }

    fn execute(&self, program: &Path, account: &Account, socket: &OwnedFd) -> io::Error {
        let mut arguments =
            ["local-deliver", "--lmtp", "-d", &account.name].map(OsStr::new).to_vec();
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
