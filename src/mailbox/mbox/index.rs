//! The directory of a mailbox's journals: small files of the owner, one directory of the owner.

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

/// The open directory, and the mailbox whose journals are meant.
#[derive(Debug)]
pub(super) struct Index {
    pub dir: OwnedFd,
    pub path: PathBuf,
    /// What the names of its journals begin with.
    stem: OsString,
    owner: Uid,
}

impl Index {
    /// Opens the directory, making it (0700, with its parents) where `create`; `None` where it is
    /// missing and was not to be made.
    pub fn open(
        path: &Path,
        mailbox: &Path,
        owner: Uid,
        create: bool,
    ) -> Result<Option<Self>, Error> {
        let fail = |why: &str, source: Option<io::Error>| Error::Index {
            path: path.to_owned(),
            why: why.into(),
            source,
        };
        let opened = match directory::open_directory(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && create => {
                directory::make(path).map_err(|error| fail("can't be made", Some(error)))?;
                directory::open_directory(path)
            }
            opened => opened,
        };
        let dir = match opened {
            Ok(dir) => dir,
            // A home like /dev/null has no journals either.
            Err(error)
                if !create
                    && matches!(
                        error.kind(),
                        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
                    ) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(fail("can't be opened", Some(error))),
        };
        let found = fstat(&dir).map_err(|error| fail("can't be opened", Some(error.into())))?;
        if found.st_uid != owner.as_raw() || found.st_mode & 0o022 != 0 {
            return Err(fail(
                "must belong to the mailbox's user and be writable for nobody else",
                None,
            ));
        }
        Ok(Some(Self { dir, path: path.to_owned(), stem: stem(mailbox), owner }))
    }

    /// The file name for the mailbox with this ending.
    fn name(&self, ending: &str) -> OsString {
        let mut name = self.stem.clone();
        name.push(ending);
        name
    }

    /// Opens a journal for reading and writing; `None` where there is none.
    pub fn file(&self, ending: &str, create: bool) -> Result<Option<File>, Error> {
        let mut flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        if create {
            flags |= OFlag::O_CREAT;
        }
        let name = self.name(ending);
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        let file = match openat(&self.dir, name.as_os_str(), flags, mode) {
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
        let name = self.name(ending);
        match fstatat(&self.dir, name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(_) => Ok(true),
            Err(nix::Error::ENOENT) => Ok(false),
            Err(error) => Err(self.error(ending, "can't be looked at", Some(error.into()))),
        }
    }

    /// Gives a file another ending, durably.
    pub fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        let (old, new) = (self.name(from), self.name(to));
        renameat(&self.dir, old.as_os_str(), &self.dir, new.as_os_str())
            .map_err(|error| self.error(from, "can't be renamed", Some(error.into())))?;
        self.sync().map_err(|error| self.error(to, "can't be made durable", Some(error)))
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, ending: &str) -> Result<(), Error> {
        let name = self.name(ending);
        match unlinkat(&self.dir, name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
            Err(error) => Err(self.error(ending, "can't be removed", Some(error.into()))),
        }
    }

    /// Makes the names in the directory durable.
    pub fn sync(&self) -> io::Result<()> {
        Ok(nix::unistd::fsync(&self.dir)?)
    }

    pub fn error(&self, ending: &str, why: &str, source: Option<io::Error>) -> Error {
        Error::Index { path: self.path.join(self.name(ending)), why: why.into(), source }
    }
}

/// `NAME-DIGITS`: mailboxes of the same name (of several domains, in several folders) may share
/// the directory, so the digits are of the whole path.
pub(super) fn stem(mailbox: &Path) -> OsString {
    let digest = Sha256::digest(mailbox.as_os_str().as_bytes());
    let mut stem = mailbox.file_name().unwrap_or_default().to_owned();
    stem.push("-");
    for byte in digest.iter().take(8) {
        stem.push(format!("{byte:02x}"));
    }
    stem
}
