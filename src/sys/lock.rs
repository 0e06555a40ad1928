//! Kernel file locks: fcntl(2) on open file descriptions, and flock(2).
//!
//! Open-file-description locks conflict with the POSIX locks of the neighbours, and, unlike those,
//! are not dropped when another descriptor of the same file is closed.

use std::fs::File;
use std::io;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

/// Whether others may hold the same lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Many readers.
    Shared,
    /// One writer.
    Exclusive,
}

/// Tries the whole-file fcntl lock; false when another process holds it.
pub fn try_fcntl(file: &File, kind: Kind) -> io::Result<bool> {
    let kind = match kind {
        Kind::Shared => libc::F_RDLCK,
        Kind::Exclusive => libc::F_WRLCK,
    };
    match fcntl(file, FcntlArg::F_OFD_SETLK(&whole(kind))) {
        Ok(_) => Ok(true),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Tries the flock; false when another process holds it.
pub fn try_flock(file: &File, kind: Kind) -> io::Result<bool> {
    // Called in full: std's methods of the same names would shadow them.
    let tried = match kind {
        Kind::Shared => fs2::FileExt::try_lock_shared(file),
        Kind::Exclusive => fs2::FileExt::try_lock_exclusive(file),
    };
    match tried {
        Ok(()) => Ok(true),
        Err(error) if error.raw_os_error() == fs2::lock_contended_error().raw_os_error() => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// Takes the flock, alone; waits for it.
pub fn flock(file: &File) -> io::Result<()> {
    fs2::FileExt::lock_exclusive(file)
}

/// Gives the flock back.
pub fn unlock_flock(file: &File) -> io::Result<()> {
    fs2::FileExt::unlock(file)
}

/// Bytes free for an unprivileged writer on the file system of `path`.
pub fn free_space(path: &std::path::Path) -> io::Result<u64> {
    fs2::available_space(path)
}

#[allow(clippy::cast_possible_truncation, reason = "the constants are small")]
fn whole(kind: i32) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}
