//! Opening a mailbox: only a regular file with one name that is its owner's.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, fstat, fstatat};
use nix::unistd::Uid;

use super::error::Error;
use crate::mailbox::directory;
use crate::mailbox::moment::moment;

/// So often a file with a lease is tried to be opened, a millisecond apart.
const LEASE_TRIES: u32 = 1000;

/// A mailbox's place: its directory, held open, and its name there.
#[derive(Debug)]
pub(super) struct Spool {
    pub dir: OwnedFd,
    pub name: OsString,
    pub path: PathBuf,
    owner: Uid,
}

impl Spool {
    /// Opens the directory; `None` where there is none.
    pub fn open(path: &Path, owner: Uid) -> Result<Option<Self>, Error> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(refused(path, "is no name of a file"));
        };
        let dir = match directory::open_directory(parent) {
            Ok(dir) => dir,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::io(parent, "be opened", error)),
        };
        let mode =
            fstat(&dir).map_err(|error| Error::io(parent, "be looked at", error.into()))?.st_mode;
        if !directory::is_safe_directory(mode) {
            let why = "is writable for all without the sticky bit: anybody could replace mailboxes";
            return Err(refused(parent, why));
        }
        Ok(Some(Self { dir, name: name.to_owned(), path: path.to_owned(), owner }))
    }

    /// Opens the mailbox; `None` where there is none.
    ///
    /// That we read does not show in its times: shells and mutt tell by them whether the user has.
    pub fn mailbox(&self, write: bool) -> Result<Option<File>, Error> {
        let access = if write { OFlag::O_RDWR } else { OFlag::O_RDONLY };
        let flags = access | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let open = |more| openat(&self.dir, self.name.as_os_str(), flags | more, Mode::empty());
        let open = || match open(OFlag::O_NOATIME) {
            // It is somebody else's.
            Err(nix::Error::EPERM) => open(OFlag::empty()),
            opened => opened,
        };
        let mut opened = open();
        let mut tries = 0..LEASE_TRIES;
        // One of ours is just asking whether it has the file for itself.
        while matches!(opened, Err(nix::Error::EWOULDBLOCK)) && tries.next().is_some() {
            std::thread::sleep(Duration::from_millis(1));
            opened = open();
        }
        match opened {
            Ok(fd) => {
                let file = File::from(fd);
                self.check(&file)?;
                Ok(Some(file))
            }
            Err(nix::Error::ENOENT) => Ok(None),
            Err(nix::Error::ELOOP) => Err(refused(&self.path, "is a symbolic link")),
            Err(nix::Error::EISDIR) => Err(refused(&self.path, "is a directory")),
            Err(nix::Error::ENXIO) => Err(refused(&self.path, "is not a regular file")),
            Err(error) => Err(Error::io(&self.path, "be opened", error.into())),
        }
    }

    /// Makes an empty mailbox, if there is none.
    pub fn create(&self) -> Result<(), Error> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR;
        moment();
        match openat(&self.dir, self.name.as_os_str(), flags, mode) {
            Ok(_) => {
                self.sync_directory();
                Ok(())
            }
            Err(nix::Error::EEXIST) => Ok(()),
            Err(error) => Err(Error::io(&self.path, "be made", error.into())),
        }
    }

    /// Makes the mailbox's name durable. A directory that can't be read can't be synced: then the
    /// file's own fsync must do (it does on the usual file systems).
    pub fn sync_directory(&self) {
        let _ = nix::unistd::fsync(&self.dir);
    }

    /// Whether the name still leads to this file, and the file still is what it may be: to be
    /// asked when the locks are held.
    pub fn still(&self, file: &File) -> Result<bool, Error> {
        let ours = self.check(file)?;
        match fstatat(&self.dir, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(found) => Ok((found.st_dev, found.st_ino) == ours),
            Err(nix::Error::ENOENT) => Ok(false),
            Err(error) => Err(Error::io(&self.path, "be looked at", error.into())),
        }
    }

    fn check(&self, file: &File) -> Result<(u64, u64), Error> {
        let found =
            file.metadata().map_err(|error| Error::io(&self.path, "be looked at", error))?;
        let why = if !found.is_file() {
            "is not a regular file"
        } else if found.uid() != self.owner.as_raw() {
            return Err(refused(
                &self.path,
                format!("belongs to uid {}, not to its user (uid {})", found.uid(), self.owner),
            ));
        } else if found.nlink() > 1 {
            "has a second name (a hard link)"
        } else {
            return Ok((found.dev(), found.ino()));
        };
        Err(refused(&self.path, why))
    }
}

fn refused(path: &Path, why: impl Into<String>) -> Error {
    Error::Refused { path: path.to_owned(), why: why.into() }
}
