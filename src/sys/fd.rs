//! Descriptors that a process is handed, and the few calls on descriptors that std lacks.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::NixPath;
use nix::fcntl::{AtFlags, FcntlArg, FdFlag, OFlag, RenameFlags, fcntl, open, openat, renameat2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::linkat;

/// Takes ownership of a descriptor that the process was started with (systemd's `LISTEN_FDS`,
/// inetd's 0), close-on-exec from now on. `None` where it is not open.
///
/// To be called once for each number, at the start of the program.
#[allow(unsafe_code, reason = "a descriptor inherited by number has no other way into an OwnedFd")]
pub fn inherited(number: RawFd) -> Option<OwnedFd> {
    // SAFETY: fcntl on any number is harmless; it tells whether the descriptor is open.
    let borrowed = unsafe { BorrowedFd::borrow_raw(number) };
    fcntl(borrowed, FcntlArg::F_GETFD).ok()?;
    // SAFETY: the descriptor is open, and by the contract above nobody else owns it.
    let owned = unsafe { OwnedFd::from_raw_fd(number) };
    if number > 2 {
        set_close_on_exec(&owned, true).ok()?;
    }
    Some(owned)
}

/// Sets or clears close-on-exec.
pub fn set_close_on_exec(fd: impl AsFd, on: bool) -> io::Result<()> {
    let flag = if on { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(fd, FcntlArg::F_SETFD(flag))?;
    Ok(())
}

/// Sets or clears `O_NONBLOCK` on the open file description.
pub fn set_nonblocking(fd: impl AsFd, on: bool) -> io::Result<()> {
    let flags = OFlag::from_bits_truncate(fcntl(&fd, FcntlArg::F_GETFL)?);
    let wanted = if on { flags | OFlag::O_NONBLOCK } else { flags - OFlag::O_NONBLOCK };
    fcntl(&fd, FcntlArg::F_SETFL(wanted))?;
    Ok(())
}

/// Makes sure that 0, 1 and 2 are open, so that no later file takes their place.
pub fn ensure_standard() -> io::Result<()> {
    loop {
        let null = open("/dev/null", OFlag::O_RDWR, Mode::empty())?;
        if null.as_raw_fd() > 2 {
            return Ok(());
        }
        // Stays open for good: it is one of the three now.
        std::mem::forget(null);
    }
}

/// Waits until `fd` can be read (or has ended), at most `milliseconds`; false when time ran out.
pub fn wait_readable(fd: impl AsFd, milliseconds: u32) -> io::Result<bool> {
    wait(fd, PollFlags::POLLIN, milliseconds)
}

/// Waits until `fd` can be written, at most `milliseconds`; false when time ran out.
pub fn wait_writable(fd: impl AsFd, milliseconds: u32) -> io::Result<bool> {
    wait(fd, PollFlags::POLLOUT, milliseconds)
}

/// Waits until `fd` can be written, or `other` read, at most `milliseconds`; which of them can.
pub fn wait_writable_or(
    fd: impl AsFd,
    other: impl AsFd,
    milliseconds: u32,
) -> io::Result<[bool; 2]> {
    let fd = PollFd::new(fd.as_fd(), PollFlags::POLLOUT);
    poll_all([fd, PollFd::new(other.as_fd(), PollFlags::POLLIN)], milliseconds)
}

/// Waits until one of these can be read (or has ended), at most `milliseconds`; which of them can.
pub fn wait_for_any<const N: usize>(
    fds: [BorrowedFd<'_>; N],
    milliseconds: u32,
) -> io::Result<[bool; N]> {
    poll_all(fds.map(|fd| PollFd::new(fd, PollFlags::POLLIN)), milliseconds)
}

fn poll_all<const N: usize>(mut all: [PollFd<'_>; N], milliseconds: u32) -> io::Result<[bool; N]> {
    let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut all, timeout) {
            Ok(_) => return Ok(all.map(|fd| fd.any().unwrap_or(true))),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn wait(fd: impl AsFd, what: PollFlags, milliseconds: u32) -> io::Result<bool> {
    let timeout = PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX);
    loop {
        match poll(&mut [PollFd::new(fd.as_fd(), what)], timeout) {
            Ok(ready) => return Ok(ready > 0),
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// A new file, for writing only, without a name in `directory` (`O_TMPFILE`); [`link`] names it once it is
/// whole. Fails with `EOPNOTSUPP` where the file system has no such files.
pub fn unnamed_file(directory: impl AsFd, mode: u32) -> io::Result<File> {
    let flags = OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    Ok(File::from(openat(directory, ".", flags, Mode::from_bits_truncate(mode))?))
}

/// Has the system begin to write a part of a file to the disk: fsync(2) then has less to wait for. An
/// error is that of a write; a file system that can't do it is none.
#[allow(unsafe_code, reason = "nix and rustix have no sync_file_range")]
pub fn begin_sync(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let offset = i64::try_from(offset).map_err(io::Error::other)?;
    let length = i64::try_from(length).map_err(io::Error::other)?;
    let flags = nix::libc::SYNC_FILE_RANGE_WRITE;
    // SAFETY: the call takes numbers only, and the descriptor is open.
    let code = unsafe { nix::libc::sync_file_range(file.as_raw_fd(), offset, length, flags) };
    match nix::errno::Errno::result(code) {
        Ok(_) | Err(nix::Error::ENOSYS | nix::Error::EINVAL | nix::Error::ESPIPE) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// /proc, for [`link`], where a process finds its own descriptors. To be opened before it loses
/// sight of it.
pub fn open_proc() -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open("/proc", flags, Mode::empty())?)
}

/// Names an unnamed file `name` in `directory`; `EEXIST` where the name is taken.
///
/// Kernels since 6.10 let its opener link a descriptor directly; older ones ask for the way
/// through /proc, which is [`open_proc`], where it was opened in advance.
pub fn link(
    file: &File,
    directory: impl AsFd,
    name: &str,
    proc: Option<&OwnedFd>,
) -> io::Result<()> {
    match linkat(file, "", &directory, name, AtFlags::AT_EMPTY_PATH) {
        Err(nix::Error::ENOENT) => {}
        done => return Ok(done?),
    }
    match proc {
        Some(proc) => link_by_number(file, directory, name, proc),
        None => link_by_number(file, directory, name, &open_proc()?),
    }
}

fn link_by_number(file: &File, directory: impl AsFd, name: &str, proc: &OwnedFd) -> io::Result<()> {
    let path = format!("self/fd/{}", file.as_raw_fd());
    linkat(proc, path.as_str(), directory, name, AtFlags::AT_SYMLINK_FOLLOW)?;
    Ok(())
}

/// Renames within `directory`; `EEXIST` where the new name is taken. File systems that can't promise
/// that (NFS) are asked first; our names have so much chance in them that nobody comes in between.
pub fn rename_new(
    directory: impl AsFd,
    from: &(impl NixPath + ?Sized),
    to: &(impl NixPath + ?Sized),
) -> nix::Result<()> {
    match renameat2(&directory, from, &directory, to, RenameFlags::RENAME_NOREPLACE) {
        Err(nix::Error::EINVAL) => {}
        done => return done,
    }
    match fstatat(&directory, to, AtFlags::AT_SYMLINK_NOFOLLOW) {
        Err(nix::Error::ENOENT) => {
            renameat2(&directory, from, &directory, to, RenameFlags::empty())
        }
        Err(error) => Err(error),
        Ok(_) => Err(nix::Error::EEXIST),
    }
}

/// Opens a directory for the calls that end in `at`, and for fsync where it may be read.
pub fn open_directory(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    match open(path, flags | OFlag::O_RDONLY, Mode::empty()) {
        // A directory that may be written but not read, such as the queue's drop/.
        Err(nix::Error::EACCES) => Ok(open(path, flags | OFlag::O_PATH, Mode::empty())?),
        opened => Ok(opened?),
    }
}
