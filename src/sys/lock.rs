//! Kernel file locks: fcntl(2) on open file descriptions, and flock(2).
//!
//! Open-file-description locks conflict with the POSIX locks of the neighbours, and, unlike those,
//! are not dropped when another descriptor of the same file is closed.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

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

/// Whether somebody else has this file open, one that is ours and open for writing. False also where
/// the file system can't tell.
///
/// It is asked by a lease, held for no longer than that: who opens the file meanwhile waits, or gets
/// EWOULDBLOCK if he would not.
#[allow(unsafe_code, reason = "nix has no F_SETLEASE")]
pub fn is_open_elsewhere(file: &File) -> bool {
    let fcntl = |command: i32, argument: i32| {
        // SAFETY: both commands take an int, and nothing of ours is written to.
        unsafe { libc::fcntl(file.as_raw_fd(), command, argument) == 0 }
    };
    // The usual signal to the holder of a lease that is wanted back, SIGIO, would kill us.
    if !fcntl(F_SETSIG, libc::SIGURG) {
        return false;
    }
    let is_alone = fcntl(libc::F_SETLEASE, libc::F_WRLCK);
    let is_refused = !is_alone && nix::Error::last() == nix::Error::EAGAIN;
    if is_alone {
        fcntl(libc::F_SETLEASE, libc::F_UNLCK);
    }
    is_refused
}

/// As Linux has it on all machines; libc leaves it out.
const F_SETSIG: i32 = 10;

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
