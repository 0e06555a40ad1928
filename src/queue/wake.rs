//! The FIFO `wake`: a byte in it says that there is something new.
//!
//! The queue's owner can put anything under that name, and servers open it as root: what is no
//! FIFO is not used, so that no byte ever goes into somebody's file.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::fcntl::{OFlag, open};
use nix::sys::stat::{Mode, SFlag, fstat};

use crate::config::{Config, Wakeup};
use crate::sys::lock;

/// The open FIFO.
pub struct Wake(File);

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Wake {
    /// For whoever waits there, and for servers: open for both, so that it never ends and bytes
    /// wait for a runner that has not come yet.
    pub fn open(queue: &Path) -> io::Result<Self> {
        Self::open_as(queue, OFlag::O_RDWR)
    }

    /// For a server that makes entries, where this configuration wants anybody to be told. A FIFO
    /// that is missing costs no mail: the next run finds the message.
    pub fn wanted(config: &Config) -> Option<Self> {
        match config.queue.wakeup {
            Wakeup::None => None,
            Wakeup::Nudge | Wakeup::Spawn => Self::open(&config.paths.queue).ok(),
        }
    }

    /// For sendmail, which may only write; fails where nobody reads.
    pub fn open_to_write(queue: &Path) -> io::Result<Self> {
        Self::open_as(queue, OFlag::O_WRONLY)
    }

    fn open_as(queue: &Path, access: OFlag) -> io::Result<Self> {
        let flags = access | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let fd = open(&queue.join("wake"), flags, Mode::empty())?;
        let kind = SFlag::from_bits_truncate(fstat(&fd)?.st_mode) & SFlag::S_IFMT;
        if kind != SFlag::S_IFIFO {
            return Err(io::Error::other("wake is no FIFO"));
        }
        Ok(Self(File::from(fd)))
    }

    /// Says that there is something new. Whether anybody waits there, or so many bytes do that
    /// there is no room for another one, does not matter.
    pub fn nudge(&self) {
        let _ = nix::unistd::write(&self.0, b"!");
    }

    /// Tries to become the one process that answers it; for as long as it is open.
    pub fn claim(&self) -> bool {
        lock::try_flock(&self.0, lock::Kind::Exclusive).unwrap_or(false)
    }

    /// Takes the bytes that are there.
    pub fn drain(&self) {
        let mut bytes = [0; 4096];
        while nix::unistd::read(&self.0, &mut bytes).is_ok_and(|count| count == bytes.len()) {}
    }
}
