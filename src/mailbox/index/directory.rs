//! The directory of what belongs to mailboxes and is none: journals, indexes. Small files of the
//! owner, one directory of the owner.

use std::cell::OnceCell;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::unistd::{Uid, UnlinkatFlags, unlinkat};
use sha2::{Digest, Sha256};

use crate::mailbox::moment::moment;
use crate::mailbox::{Error, directory};
use crate::sys::{clock, lock};

/// Mailboxes are told apart by their UIDVALIDITY: the last one that was given.
const UID_VALIDITY: &str = "uidvalidity";

/// Ten digits and a line end: always written over whole, in one sector.
const UID_VALIDITY_BYTES: usize = 11;

/// The directory, opened when a file is asked for, and the mailbox whose files are meant.
#[derive(Debug)]
pub struct Directory {
    /// Its path.
    pub path: PathBuf,
    mailbox: PathBuf,
    owner: Uid,
    dir: OnceCell<OwnedFd>,
    /// What the names of its files begin with.
    stem: OnceCell<OsString>,
}

impl Directory {
    /// The directory at `path`, for the files of `mailbox`; neither need exist yet.
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
        let fail = |error| self.unusable("can't be opened", Some(error));
        let Some(dir) = directory::open_if_there(&self.path).map_err(fail)? else {
            return Ok(None);
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

    /// Where the file with this ending is, or would be.
    pub fn path_of(&self, ending: &str) -> PathBuf {
        self.path.join(self.name(ending))
    }

    /// Opens a file for reading and writing; `None` where there is none.
    pub fn file(&self, ending: &str, create: bool) -> Result<Option<File>, Error> {
        self.open(&self.name(ending), create)
    }

    fn open(&self, name: &OsStr, create: bool) -> Result<Option<File>, Error> {
        let fail = |why, source| self.unusable_file(name, why, source);
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
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = match openat(dir, name, flags, mode) {
            Ok(fd) => File::from(fd),
            Err(nix::Error::ENOENT) if !create => return Ok(None),
            Err(error) => return Err(fail("can't be opened", Some(error.into()))),
        };
        let found = file.metadata().map_err(|error| fail("can't be opened", Some(error)))?;
        // One that was replaced between the two calls has no name any more.
        if !found.is_file() || found.nlink() > 1 || found.uid() != self.owner.as_raw() {
            let why = "is not a regular file of the mailbox's user with one name";
            return Err(fail(why, None));
        }
        Ok(Some(file))
    }

    /// Which file the name with this ending leads to, and how large it is.
    pub fn look(&self, ending: &str) -> Result<Option<Entry>, Error> {
        let Some(dir) = self.dir()? else {
            return Ok(None);
        };
        match fstatat(dir, self.name(ending).as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(Some(Entry {
                dev: found.st_dev,
                ino: found.st_ino,
                size: u64::try_from(found.st_size).unwrap_or(0),
            })),
            Err(nix::Error::ENOENT) => Ok(None),
            Err(error) => Err(self.error(ending, "can't be looked at", Some(error.into()))),
        }
    }

    /// Whether there is a file with this ending.
    pub fn has(&self, ending: &str) -> Result<bool, Error> {
        Ok(self.look(ending)?.is_some())
    }

    /// Gives a file another ending, durably.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        self.replace(from, to)?;
        self.sync()
    }

    /// Gives a file another ending.
    pub fn replace(&self, from: &str, to: &str) -> Result<(), Error> {
        let dir = self.make()?;
        let (old, new) = (self.name(from), self.name(to));
        renameat(dir, old.as_os_str(), dir, new.as_os_str())
            .map_err(|error| self.error(from, "can't be renamed", Some(error.into())))
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

    /// What is wrong with the file with this ending.
    pub fn error(&self, ending: &str, why: &str, source: Option<io::Error>) -> Error {
        self.unusable_file(&self.name(ending), why, source)
    }

    fn unusable_file(&self, name: &OsStr, why: &str, source: Option<io::Error>) -> Error {
        Error::Index { path: self.path.join(name), why: why.into(), source }
    }

    /// Looks for the directory anew at the next call: it was removed with all that was in it.
    pub(super) fn forget(&mut self) {
        self.dir.take();
    }

    /// A UIDVALIDITY that no mailbox of the user has had. (Where it can't be written down, it is
    /// the time: this can't give one twice but within a second.)
    pub fn new_uid_validity(&self) -> u32 {
        let now = u32::try_from(clock::seconds()).unwrap_or(u32::MAX);
        self.next_uid_validity(now).unwrap_or(now)
    }

    fn next_uid_validity(&self, now: u32) -> Result<u32, Error> {
        let name = OsStr::new(UID_VALIDITY);
        let fail = |error| self.unusable_file(name, "can't be written", Some(error));
        let Some(file) = self.open(name, true)? else {
            return Err(fail(io::ErrorKind::NotFound.into()));
        };
        // Given back when the file is closed.
        lock::flock(&file).map_err(fail)?;
        let mut text = [0; UID_VALIDITY_BYTES];
        let is_new = file.read_at(&mut text, 0).map_err(fail)? == 0;
        let last = str::from_utf8(&text).ok().and_then(|text| text.trim_ascii().parse().ok());
        let next = now.max(last.unwrap_or(0_u32).saturating_add(1));
        moment();
        file.write_all_at(format!("{next:010}\n").as_bytes(), 0).map_err(fail)?;
        moment();
        file.sync_data().map_err(fail)?;
        if is_new {
            moment();
            self.sync()?;
        }
        Ok(next)
    }
}

/// What a name led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The device.
    pub dev: u64,
    /// The file on it.
    pub ino: u64,
    /// Its bytes.
    pub size: u64,
}

/// `NAME-DIGITS`: mailboxes of the same name (of several domains, in several folders) may share
/// the directory, so the digits are of the whole path. A Maildir is the same one with and without a
/// slash at its end.
pub fn stem(mailbox: &Path) -> OsString {
    let path: PathBuf = mailbox.components().collect();
    let digest = Sha256::digest(path.as_os_str().as_bytes());
    let mut stem = mailbox.file_name().unwrap_or_default().to_owned();
    stem.push("-");
    for byte in digest.iter().take(8) {
        stem.push(format!("{byte:02x}"));
    }
    stem
}
