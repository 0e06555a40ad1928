//! The directory of a mailbox's journals: small files of the owner, one directory of the owner.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};
use sha2::{Digest, Sha256};

use super::error::Error;
use crate::mailbox::directory;

/// The directory, opened when a journal is asked for, and the mailbox whose journals are meant.
#[derive(Debug)]
pub(in crate::mailbox) struct Index {
    pub path: PathBuf,
    mailbox: PathBuf,
    owner: Uid,
    dir: OnceCell<OwnedFd>,
    /// What the names of its journals begin with.
    stem: OnceCell<OsString>,
}

impl Index {
    pub fn new(path: &Path, mailbox: &Path, owner: Uid) -> Self {
        Self {
            path: path.to_owned(),
            mailbox: mailbox.to_owned(),
            owner,
            dir: OnceCell::new(),
            stem: OnceCell::new(),
        }
    }

    /// The open directory; `None` where it is missing.
    fn dir(&self) -> Result<Option<&OwnedFd>, Error> {
        if let Some(dir) = self.dir.get() {
            return Ok(Some(dir));
        }
        let dir = match directory::open_directory(&self.path) {
            Ok(dir) => dir,
            // A home like /dev/null has no journals either.
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(self.unusable("can't be opened", Some(error))),
        };
        let found =
            fstat(&dir).map_err(|error| self.unusable("can't be opened", Some(error.into())))?;
        if found.st_uid != self.owner.as_raw() || found.st_mode & 0o022 != 0 {
            let why = "must belong to the mailbox's user and be writable for nobody else";
            return Err(self.unusable(why, None));
        }
        Ok(Some(self.dir.get_or_init(|| dir)))
    }

    /// The open directory, made (0700, with its parents) where it is missing.
    pub fn make(&self) -> Result<&OwnedFd, Error> {
        if let Some(dir) = self.dir()? {
            return Ok(dir);
        }
        let fail = |error| self.unusable("can't be made", Some(error));
        directory::make(&self.path).map_err(fail)?;
        self.dir()?.ok_or_else(|| fail(io::ErrorKind::NotADirectory.into()))
    }

    fn unusable(&self, why: &str, source: Option<io::Error>) -> Error {
        Error::Index { path: self.path.clone(), why: why.into(), source }
    }

    /// The file name for the mailbox with this ending.
    fn name(&self, ending: &str) -> OsString {
        let mut name = self.stem.get_or_init(|| stem(&self.mailbox)).clone();
        name.push(ending);
        name
    }

    /// Opens a journal for reading and writing; `None` where there is none.
    pub fn file(&self, ending: &str, create: bool) -> Result<Option<File>, Error> {
        let mut flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let dir = if create {
            flags |= OFlag::O_CREAT;
            self.make()?
        } else {
            match self.dir()? {
                Some(dir) => dir,
                None => return Ok(None),
            }
        };
        let name = self.name(ending);
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = match openat(dir, name.as_os_str(), flags, mode) {
            Ok(fd) => File::from(fd),
            Err(nix::Error::ENOENT) if !create => return Ok(None),
            Err(error) => return Err(self.error(ending, "can't be opened", Some(error.into()))),
        };
        let found =
            file.metadata().map_err(|error| self.error(ending, "can't be opened", Some(error)))?;
        if !found.is_file() || found.nlink() > 1 || found.uid() != self.owner.as_raw() {
            let why = "is not a regular file of the mailbox's user with one name";
            return Err(self.error(ending, why, None));
        }
        Ok(Some(file))
    }

    /// Whether there is a file with this ending.
    pub fn has(&self, ending: &str) -> Result<bool, Error> {
        let Some(dir) = self.dir()? else {
            return Ok(false);
        };
        let name = self.name(ending);
        match fstatat(dir, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(nix::Error::ENOENT) => Ok(false),
            Err(error) => Err(self.error(ending, "can't be looked at", Some(error.into()))),
        }
    }

    /// Gives a file another ending, durably.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let dir = self.make()?;
        let (old, new) = (self.name(from), self.name(to));
        renameat(dir, old.as_os_str(), dir, new.as_os_str())
            .map_err(|error| self.error(from, "can't be renamed", Some(error.into())))?;
        self.sync()
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, ending: &str) -> Result<(), Error> {
        let Some(dir) = self.dir()? else {
            return Ok(());
        };
        let name = self.name(ending);
        match unlinkat(dir, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
            Err(error) => Err(self.error(ending, "can't be removed", Some(error.into()))),
        }
    }

    /// Makes the names in the directory durable.
    pub fn sync(&self) -> Result<(), Error> {
        nix::unistd::fsync(self.make()?)
            .map_err(|error| self.unusable("can't be made durable", Some(error.into())))
    }

    pub fn error(&self, ending: &str, why: &str, source: Option<io::Error>) -> Error {
        Error::Index { path: self.path.join(self.name(ending)), why: why.into(), source }
    }
}

/// `NAME-DIGITS`: mailboxes of the same name (of several domains, in several folders) may share
/// the directory, so the digits are of the whole path.
pub(in crate::mailbox) fn stem(mailbox: &Path) -> OsString {
    let digest = Sha256::digest(mailbox.as_os_str().as_bytes());
    let mut stem = mailbox.file_name().unwrap_or_default().to_owned();
    stem.push("-");
    for byte in digest.iter().take(8) {
        stem.push(format!("{byte:02x}"));
    }
    stem
}
