//! The way in: smtpd, sendmail, pickup and bounces all make entries here, and only here.
//!
//! An [`Inlet`] is a directory that entries can be made in, and all that a session process keeps of
//! the file system. A [`Draft`] is a message being written. Killed at any moment before the link,
//! an unnamed file is gone without a trace; after it, the entry is whole.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::Id;
use super::entry::{Envelope, HEAD, Head};
use crate::sys::{fd, jail, lock};

/// Text is written in pieces of about this size; a message that is shorter costs one write.
const BUFFER: usize = 128 * 1024;

/// A piece of this size is written as it comes: that costs less than to gather it.
const PIECE: usize = 32 * 1024;

/// When so much is written, the disk begins with it while the rest comes in.
const STRIDE: u64 = 1024 * 1024;

/// A directory of the queue into which messages enter.
pub struct Inlet {
    directory: OwnedFd,
    proc: Option<OwnedFd>,
    unnamed: bool,
    mode: u32,
    readable: bool,
}

impl Inlet {
    /// Opens `incoming/` or `drop/`. Entries get `mode`.
    pub fn open(directory: &Path, mode: u32) -> io::Result<Self> {
        let fd = fd::open_directory(directory)?;
        let unnamed = match fd::unnamed_file(&fd, mode) {
            Ok(_) => true,
            Err(error) if error.raw_os_error() == Some(nix::libc::EOPNOTSUPP) => false,
            // Old kernels know the flag only as O_DIRECTORY.
            Err(error) if error.kind() == io::ErrorKind::IsADirectory => false,
            // A full disk is told to the client whose message does not fit.
            Err(error)
                if matches!(error.raw_os_error(), Some(nix::libc::ENOSPC | nix::libc::EDQUOT)) =>
            {
                true
            }
            Err(error) => return Err(error),
        };
        let flags =
            OFlag::from_bits_truncate(nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFL)?);
        Ok(Self {
            directory: fd,
            proc: fd::open_proc().ok(),
            unnamed,
            mode,
            readable: !flags.contains(OFlag::O_PATH),
        })
    }

    /// The descriptors it needs.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [Some(&self.directory), self.proc.as_ref()].into_iter().flatten().map(AsFd::as_fd)
    }

    /// The directory, and what a jailed process needs to do in it.
    pub fn grant(&self) -> (&OwnedFd, jail::Grant) {
        let grant = if self.unnamed { jail::Grant::Create } else { jail::Grant::CreateAndRemove };
        (&self.directory, grant)
    }

    /// Begins a message. Nothing of it can be seen before [`Draft::commit`].
    pub fn create(&self, id: Id, envelope: &Envelope) -> io::Result<Draft<'_>> {
        let file = if self.unnamed {
            fd::unnamed_file(&self.directory, self.mode)?
        } else {
            let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
            let name = draft_name(&id);
            let mode = Mode::from_bits_truncate(self.mode);
            let file = File::from(openat(&self.directory, name.as_str(), flags, mode)?);
            // Held while it is written: without its lock, a draft's writer is dead.
            lock::try_flock(&file, lock::Kind::Exclusive)?;
            file
        };
        // Whatever the caller's umask is: the queue's owner reads what sendmail wrote by its group.
        if self.mode & 0o077 != 0 {
            fchmod(&file, Mode::from_bits_truncate(self.mode))?;
        }
        let envelope = envelope.encode();
        let mut buffer = Vec::with_capacity(8 * 1024);
        buffer.resize(HEAD, 0);
        buffer.extend_from_slice(envelope.as_bytes());
        Ok(Draft {
            inlet: self,
            id,
            file,
            envelope_length: envelope.len(),
            envelope_crc: crc32fast::hash(envelope.as_bytes()),
            crc: crc32fast::Hasher::new(),
            buffer,
            written: 0,
            begun: 0,
            committed: false,
        })
    }
}

/// The name of an entry that is being written where files can't do without a name.
pub(super) fn draft_name(id: &Id) -> String {
    format!(".{id}")
}

/// A message that is being written; dropped before it was committed, it is gone.
pub struct Draft<'a> {
    inlet: &'a Inlet,
    id: Id,
    file: File,
    envelope_length: usize,
    envelope_crc: u32,
    crc: crc32fast::Hasher,
    buffer: Vec<u8>,
    /// Bytes of the file that are written, and that the disk has begun with.
    written: u64,
    begun: u64,
    committed: bool,
}

impl Draft<'_> {
    /// Its id.
    pub fn id(&self) -> &Id {
        &self.id
    }

    /// Adds text of the message; line ends must be CRLF.
    pub fn write(&mut self, text: &[u8]) -> io::Result<()> {
        self.crc.update(text);
        let is_piece = text.len() >= PIECE;
        if is_piece || self.buffer.len() + text.len() > BUFFER {
            self.flush()?;
        }
        if is_piece {
            return self.put(text);
        }
        self.buffer.extend_from_slice(text);
        Ok(())
    }

    /// Bytes of the message's text so far.
    pub fn size(&self) -> u64 {
        let before = (HEAD + self.envelope_length) as u64;
        (self.written + self.buffer.len() as u64).saturating_sub(before)
    }

    /// Makes the message last: content and envelope are on stable storage, and so is their name,
    /// when this returns `Ok`. After `Err` there is no message.
    pub fn commit(mut self) -> io::Result<Id> {
        let head = Head {
            envelope_length: u32::try_from(self.envelope_length).map_err(io::Error::other)?,
            envelope_crc: self.envelope_crc,
            content_length: self.size(),
            content_crc: self.crc.clone().finalize(),
        };
        let head = head.encode();
        if self.written == 0 {
            if let Some(room) = self.buffer.get_mut(..HEAD) {
                room.copy_from_slice(head.as_bytes());
            }
            self.flush()?;
        } else {
            self.flush()?;
            self.file.write_all_at(head.as_bytes(), 0)?;
        }
        self.file.sync_all()?;
        let Inlet { directory, proc, unnamed, readable, .. } = self.inlet;
        if *unnamed {
            fd::link(&self.file, directory, self.id.as_str(), proc.as_ref())?;
        } else {
            let (draft, name) = (draft_name(&self.id), self.id.as_str());
            fd::rename_new(directory, draft.as_str(), name)?;
        }
        self.committed = true;
        let synced = if *readable {
            nix::unistd::fsync(directory)
        } else {
            // A directory that may not be read (drop/, for the setgid sendmail) can't be fsynced;
            // its whole file system can.
            nix::unistd::syncfs(&self.file)
        };
        if let Err(error) = synced {
            // The name may or may not last; the sender is told no, so it should not.
            if unlinkat(directory, self.id.as_str(), UnlinkatFlags::NoRemoveDir).is_err() {
                // A session in its cell may remove none: then what is behind it is no message.
                let _ = self.file.write_all_at(&[0; HEAD], 0);
            }
            return Err(error.into());
        }
        Ok(self.id.clone())
    }

    fn flush(&mut self) -> io::Result<()> {
        let buffer = std::mem::take(&mut self.buffer);
        let done = self.put(&buffer);
        self.buffer = buffer;
        self.buffer.clear();
        done
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.written)?;
        self.written += bytes.len() as u64;
        let waiting = self.written - self.begun;
        if waiting >= STRIDE {
            fd::begin_sync(&self.file, self.begun, waiting)?;
            self.begun = self.written;
        }
        Ok(())
    }
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        if !self.committed && !self.inlet.unnamed {
            let name = draft_name(&self.id);
            let _ = unlinkat(&self.inlet.directory, name.as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }
}
