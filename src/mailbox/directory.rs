//! The directories that mailboxes and their journals stand in.

use std::fs::{DirBuilder, File, metadata};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

/// Opens a directory in which a mailbox stands. Symbolic links on the way are the operator's
/// (/var/spool/mail leads to /var/mail on many hosts).
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    match open(path, flags | OFlag::O_RDONLY, Mode::empty()) {
        // Not readable, but names in it can be used.
        Err(nix::Error::EACCES) => Ok(open(path, flags | OFlag::O_PATH, Mode::empty())?),
        opened => Ok(opened?),
    }
}

/// The same; `None` where there is none, as below a home like /dev/null.
pub fn open_if_there(path: &Path) -> io::Result<Option<OwnedFd>> {
    match open_directory(path) {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            Ok(None)
        }
        opened => opened.map(Some),
    }
}

/// Whether a directory of this mode may hold mailboxes: one that all may write needs the sticky
/// bit, or anybody could put their own file in a mailbox's place.
pub fn is_safe_directory(mode: u32) -> bool {
    mode & 0o002 == 0 || mode & 0o1000 != 0
}

/// Makes a directory (0700) and those above it, each durably: what stands there must not be lost
/// with its directory.
pub fn make(path: &Path) -> io::Result<()> {
    let parent = path.parent().unwrap_or(Path::new("/"));
    if let Err(error) = metadata(parent)
        && error.kind() == io::ErrorKind::NotFound
    {
        make(parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // One that may be written and not read can't be synced.
    match File::open(parent) {
        Ok(parent) => parent.sync_all(),
        Err(_) => Ok(()),
    }
}
