//! An open queue file: how it is opened, taken, read and written on.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use super::entry::{self, Envelope, Event, HEAD, Head, MAX_ENVELOPE, MAX_HISTORY, Outcome};
use super::spool::Error;
use super::{Draft, Id, Place};
use crate::sys::lock;

/// Opens a queue file without following links or waiting for a FIFO's other end.
pub(super) fn open_entry(path: &Path, write: bool) -> Result<File, Error> {
    let opened = fs::OpenOptions::new()
        .read(true)
        .write(write)
        .custom_flags(nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK)
        .open(path);
    let file = match opened {
        Err(error) if error.raw_os_error() == Some(nix::libc::ELOOP) => {
            return Err(Error::Damaged("is a symbolic link"));
        }
        Err(error) if error.kind() == io::ErrorKind::IsADirectory => {
            return Err(Error::Damaged("is a directory"));
        }
        opened => opened?,
    };
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(Error::Damaged("is no regular file"));
    }
    if metadata.nlink() > 1 {
        return Err(Error::Damaged("has more than one name"));
    }
    Ok(file)
}

/// Locks a queue file for this runner, and looks again that the name still leads to it.
pub(super) fn take(file: &File, path: &Path) -> Result<(), Error> {
    if !lock::try_flock(file, lock::Kind::Exclusive)? {
        return Err(Error::Taken);
    }
    let (held, named) = (file.metadata()?, fs::symlink_metadata(path)?);
    if (held.dev(), held.ino()) == (named.dev(), named.ino()) { Ok(()) } else { Err(Error::Taken) }
}

/// An open queue file.
#[derive(Debug)]
pub struct Entry {
    file: File,
    pub(super) place: Place,
    head: Head,
    /// Who sends what to whom.
    pub envelope: Envelope,
    /// What happened so far.
    pub history: Vec<Event>,
    /// Where the next line of history goes.
    end: u64,
}

impl Entry {
    /// Reads head, envelope and history; the content is not touched.
    pub(super) fn read(file: File, place: Place) -> Result<Self, Error> {
        let mut line = [0; HEAD];
        read_exact(&file, &mut line, 0)?;
        let head = Head::parse(&line).ok_or(Error::Damaged("has no valid first line"))?;
        let length = usize::try_from(head.envelope_length).unwrap_or(usize::MAX);
        if length > MAX_ENVELOPE {
            return Err(Error::Damaged("has an envelope past the limit"));
        }
        let mut envelope = vec![0; length];
        read_exact(&file, &mut envelope, HEAD as u64)?;
        if crc32fast::hash(&envelope) != head.envelope_crc {
            return Err(Error::Damaged("has a damaged envelope"));
        }
        let envelope =
            Envelope::parse(&envelope).ok_or(Error::Damaged("has an envelope without sense"))?;
        let start = (HEAD as u64 + u64::from(head.envelope_length))
            .checked_add(head.content_length)
            .ok_or(Error::Damaged("has an impossible length"))?;
        let size = file.metadata()?.len();
        let length = size.checked_sub(start).ok_or(Error::Damaged("is cut off"))?;
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > MAX_HISTORY {
            return Err(Error::Damaged("has a history past the limit"));
        }
        let mut bytes = vec![0; length];
        read_exact(&file, &mut bytes, start)?;
        let (history, valid) = entry::history(&bytes);
        if history.iter().any(|event| event.recipient >= envelope.recipients.len()) {
            return Err(Error::Damaged("has a history of somebody else"));
        }
        Ok(Self { file, place, head, envelope, history, end: start + valid as u64 })
    }

    /// The same file for a process that may only read it: another open file description, without
    /// our lock and without our right to write.
    pub fn share(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        Ok(File::open(path)?.into())
    }

    /// What [`Entry::share`] gave, in that process.
    pub fn shared(file: OwnedFd, id: Id) -> Result<Self, Error> {
        Self::read(file.into(), Place::Work(id))
    }

    /// Where it stands.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its id.
    pub fn id(&self) -> &Id {
        self.place.id()
    }

    /// Bytes of the message's text.
    pub fn size(&self) -> u64 {
        self.head.content_length
    }

    /// Who owns the file: for drop/, the user who called sendmail.
    pub fn owner(&self) -> io::Result<u32> {
        Ok(self.file.metadata()?.uid())
    }

    /// Reads text of the message at `offset`; 0 bytes at its end.
    pub fn read_content(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.head.content_length.saturating_sub(offset);
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let start = HEAD as u64 + u64::from(self.head.envelope_length);
        let buffer = buffer.get_mut(..most).unwrap_or_default();
        if buffer.is_empty() {
            return Ok(0);
        }
        match self.file.read_at(buffer, start + offset)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }

    /// Compares the content with its checksum.
    pub(super) fn verify(&self) -> Result<(), Error> {
        self.each_piece(|_| Ok(()))
    }

    /// Writes all of the content into another message, which must not be committed after an error.
    pub fn copy_content(&self, draft: &mut Draft<'_>) -> Result<(), Error> {
        self.each_piece(|piece| draft.write(piece))
    }

    /// Goes through the content, and compares it with its checksum.
    fn each_piece(&self, mut look: impl FnMut(&[u8]) -> io::Result<()>) -> Result<(), Error> {
        let mut crc = crc32fast::Hasher::new();
        let mut buffer = vec![0; 128 * 1024];
        let mut offset = 0;
        loop {
            let count = self.read_content(offset, &mut buffer)?;
            if count == 0 {
                break;
            }
            let piece = buffer.get(..count).unwrap_or_default();
            crc.update(piece);
            look(piece)?;
            offset += count as u64;
        }
        if crc.finalize() == self.head.content_crc {
            Ok(())
        } else {
            Err(Error::Damaged("has a damaged content"))
        }
    }

    /// Appends to the history, and makes it last.
    pub fn record(&mut self, events: &[Event]) -> io::Result<()> {
        // A history past the limit could not be read any more. What was put off again and again is
        // news, but what was done must be known.
        let start = HEAD as u64 + u64::from(self.head.envelope_length) + self.head.content_length;
        let length = usize::try_from(self.end.saturating_sub(start)).unwrap_or(usize::MAX);
        let (mut lines, mut written) = (String::new(), Vec::new());
        for event in events {
            let full = length.saturating_add(lines.len()) >= MAX_HISTORY / 2;
            if !full || event.outcome != Outcome::Deferred {
                lines.push_str(&event.encode());
                written.push(event.clone());
            }
        }
        // Whatever a killed writer left behind the last valid line goes first.
        self.file.set_len(self.end)?;
        self.file.write_all_at(lines.as_bytes(), self.end)?;
        self.file.sync_data()?;
        self.end += lines.len() as u64;
        self.history.append(&mut written);
        Ok(())
    }

    /// Recipients that have neither got the message nor were given up.
    pub fn pending(&self) -> Vec<usize> {
        (0..self.envelope.recipients.len())
            .filter(|index| {
                !self
                    .history
                    .iter()
                    .any(|event| event.recipient == *index && event.outcome.is_final())
            })
            .collect()
    }

    /// How often delivery to this recipient was tried and put off.
    pub fn attempts(&self, recipient: usize) -> usize {
        self.history
            .iter()
            .filter(|event| event.recipient == recipient && event.outcome == Outcome::Deferred)
            .count()
    }
}

fn read_exact(file: &File, buffer: &mut [u8], offset: u64) -> Result<(), Error> {
    file.read_exact_at(buffer, offset).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => Error::Damaged("is cut off"),
        _ => Error::Io(error),
    })
}
