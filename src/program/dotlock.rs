//! `dotlock`: the setgid helper that makes and removes a mailbox's dot lock.
//!
//! It runs with a group that its caller does not have, and does one thing with it: make and remove
//! `FILE.lock` where the caller, with nothing but their own rights, may write `FILE`. It takes no
//! configuration and no environment. Everything is looked at with the real group id; the effective
//! one is used around the lock file only, in a directory that is held open.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use clap::Parser;
use nix::fcntl::{OFlag, openat};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, fstat};
use nix::unistd::{Gid, getegid, geteuid, getgid, getuid, setegid};

use super::{Failure, run};
use crate::mailbox::directory::{is_safe_directory, open_directory};
use crate::mailbox::dotlock::{Dotlock, TOUCH, Tried};
use crate::sys::{Exit, fd, signal};

/// Dot lock helper: makes and removes FILE.lock beside a spool file that its caller may write.
///
/// Reads orders from stdin, one byte each: l lock, u unlock; the end of input unlocks.
#[derive(Debug, Parser)]
#[command(name = "dotlock", version, disable_help_subcommand = true)]
pub(super) struct Args {
    /// The mailbox
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs the program.
pub fn main() -> Exit {
    run(std::env::args_os(), dotlock)
}

fn dotlock(arguments: &Args) -> Result<Exit, Failure> {
    let os = |error: io::Error| Failure::new(Exit::OsErr, error);
    fd::ensure_standard().map_err(os)?;
    if getuid() != geteuid() {
        return Err(Failure::new(Exit::NoPerm, "must be setgid, never setuid"));
    }
    let group = getegid();
    setegid(getgid()).map_err(|error| os(error.into()))?;
    // The caller's end, however it comes, is the end of our input: until then the lock is kept.
    let _signals =
        signal::Signals::take(&[Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM])
            .map_err(os)?;
    let mailbox =
        Mailbox::new(&arguments.file, group).map_err(|why| Failure::new(Exit::Usage, why))?;
    serve(&mailbox).map_err(|error| Failure::new(Exit::IoErr, error)).map(|()| Exit::Ok)
}

/// Obeys orders until they end; the lock goes with the end.
fn serve(mailbox: &Mailbox) -> io::Result<()> {
    let mut held: Option<Dotlock> = None;
    let (mut orders, mut answers) = (io::stdin().lock(), io::stdout().lock());
    let mut order = [0];
    let minute = u32::try_from(TOUCH.as_millis()).unwrap_or(60_000);
    let served = loop {
        match fd::wait_readable(io::stdin(), minute) {
            Ok(true) => {}
            Ok(false) => {
                held.as_mut().map(Dotlock::touch);
                continue;
            }
            Err(error) => break Err(error),
        }
        match orders.read(&mut order) {
            Ok(0) => break Ok(()),
            Ok(_) => {}
            Err(error) => break Err(error),
        }
        let answer = match order {
            [b'l'] if held.is_some() => "y".to_owned(),
            [b'l'] => match mailbox.lock() {
                Ok(Tried::Made(lock)) => {
                    held = Some(lock);
                    "y".to_owned()
                }
                Ok(Tried::Held(_)) => "n".to_owned(),
                Err(why) => format!("e{}\n", why.replace('\n', " ")),
            },
            [b'u'] => {
                mailbox.unlock(held.take());
                "y".to_owned()
            }
            _ => "eunknown order\n".to_owned(),
        };
        let told = answers.write_all(answer.as_bytes());
        if let Err(error) = told.and_then(|()| answers.flush()) {
            break Err(error);
        }
    };
    mailbox.unlock(held);
    served
}

/// The mailbox: its name in a directory that was opened with the caller's own rights.
struct Mailbox {
    dir: OwnedFd,
    name: OsString,
    group: Gid,
}

impl Mailbox {
    fn new(file: &Path, group: Gid) -> Result<Self, String> {
        let (Some(parent), Some(name), true) =
            (file.parent(), file.file_name(), file.is_absolute())
        else {
            return Err(format!("{} is no absolute path of a file", file.display()));
        };
        let dir = open_directory(parent)
            .map_err(|error| format!("{} can't be opened: {error}", parent.display()))?;
        Ok(Self { dir, name: name.to_owned(), group })
    }

    /// Tries the lock once, if the caller may write the mailbox.
    fn lock(&self) -> Result<Tried, String> {
        self.may_write()?;
        self.with_group(|| Dotlock::try_make(&self.dir, &self.name))
            .and_then(|tried| tried)
            .map_err(|error| format!("the lock file can't be made: {error}"))
    }

    fn unlock(&self, held: Option<Dotlock>) {
        let _ = self.with_group(|| drop(held));
    }

    fn may_write(&self) -> Result<(), String> {
        let parent = fstat(&self.dir).map_err(|error| error.to_string())?;
        if !is_safe_directory(parent.st_mode) {
            return Err("the directory is writable for all without the sticky bit".into());
        }
        let flags = OFlag::O_WRONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(&self.dir, self.name.as_os_str(), flags, Mode::empty())
            .map(File::from)
            .map_err(|error| format!("you may not write the mailbox: {error}"))?;
        let found = file.metadata().map_err(|error| error.to_string())?;
        if !found.is_file() || found.nlink() != 1 || found.uid() != getuid().as_raw() {
            return Err("the mailbox is not a regular file of yours with one name".into());
        }
        Ok(())
    }

    fn with_group<T>(&self, action: impl FnOnce() -> T) -> io::Result<T> {
        setegid(self.group)?;
        let result = action();
        setegid(getgid())?;
        Ok(result)
    }
}
