//! Messages that a user had already, by their Message-IDs.
//!
//! `duplicates` in the index directory is a ring of records of fixed size: a digest of the
//! recipient and the Message-ID, and the time of delivery. It is held locked from the look at it to
//! the record of the delivery, so that of two copies that come at once one is dropped. It is
//! written behind the delivery and not synced: a crash lets a copy through, and never loses one.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::config::Interval;
use crate::mailbox::{LOCK_TIMEOUT, directory};
use crate::sys::clock;
use crate::sys::lock::{Kind, try_flock};
use crate::sys::signal;

const NAME: &str = "duplicates";

/// Sixteen bytes of the digest, then the time in seconds since 1970, little-endian.
const RECORD: usize = 24;
const DIGEST: usize = 16;

/// So many messages are remembered.
const RECORDS: u64 = 4096;

/// The locked memory of one user, with a question about one message.
pub struct Duplicates {
    file: File,
    digest: [u8; DIGEST],
    /// Where the next record stands: in the place of the oldest.
    next: u64,
    known: bool,
}

impl Duplicates {
    /// Looks for the message among those that were delivered to `recipient` within `memory`.
    pub fn look(
        index: &Path,
        recipient: &str,
        message_id: &[u8],
        memory: Interval,
    ) -> io::Result<Self> {
        let file = open(index)?;
        let mut hash = Sha256::new();
        hash.update(recipient.as_bytes());
        hash.update([0]);
        hash.update(message_id);
        let mut digest = [0; DIGEST];
        for (place, byte) in digest.iter_mut().zip(hash.finalize()) {
            *place = byte;
        }
        let mut records = Vec::new();
        (&file).take(RECORDS * RECORD as u64).read_to_end(&mut records)?;
        let now = clock::seconds();
        let (mut known, mut next, mut oldest) = (false, 0, u64::MAX);
        for (number, record) in (0..).zip(records.chunks_exact(RECORD)) {
            let (digest_there, time) = record.split_at(DIGEST);
            let time = time.try_into().map_or(0, u64::from_le_bytes);
            known |= digest_there == digest && now.saturating_sub(time) <= memory.seconds();
            if time < oldest {
                (oldest, next) = (time, number);
            }
        }
        let full = records.len() as u64 / RECORD as u64;
        if full < RECORDS {
            next = full;
        }
        Ok(Self { file, digest, next, known })
    }

    /// Whether it was delivered before.
    pub fn is_known(&self) -> bool {
        self.known
    }

    /// Remembers that it has been delivered.
    pub fn remember(self) -> io::Result<()> {
        let mut record = self.digest.to_vec();
        record.extend_from_slice(&clock::seconds().to_le_bytes());
        self.file.write_all_at(&record, self.next * RECORD as u64)
    }
}

fn open(index: &Path) -> io::Result<File> {
    if !index.is_dir() {
        directory::make(index)?;
    }
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(flags)
        .open(index.join(NAME))?;
    let found = file.metadata()?;
    if !found.is_file() || found.nlink() > 1 {
        return Err(io::Error::other("is not a regular file with one name"));
    }
    let started = Instant::now();
    while !try_flock(&file, Kind::Exclusive)? {
        if started.elapsed() > LOCK_TIMEOUT || signal::is_end_asked_for() {
            return Err(io::Error::other("is locked by another delivery"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::{Duplicates, RECORDS};
    use crate::config::Interval;

    #[test]
    fn a_message_is_known_to_the_recipient_who_had_it_and_for_its_time_only() {
        let place = tempfile::tempdir().unwrap();
        let index = place.path().join("mail/.index");
        let look = |recipient: &str, id: &str, seconds| {
            let memory = Interval::from_seconds(seconds);
            Duplicates::look(&index, recipient, id.as_bytes(), memory).unwrap()
        };
        assert!(!look("u@c", "<1@b>", 60).is_known());
        look("u@c", "<1@b>", 60).remember().unwrap();
        look("u@c", "<2@b>", 60).remember().unwrap();
        assert!(look("u@c", "<1@b>", 60).is_known() && look("u@c", "<2@b>", 60).is_known());
        assert!(!look("u+x@c", "<1@b>", 60).is_known());
        assert!(!look("u@c", "<3@b>", 60).is_known());
        std::thread::sleep(std::time::Duration::from_millis(2100));
        assert!(!look("u@c", "<1@b>", 1).is_known());
        for number in 0..RECORDS {
            look("u@c", &format!("<x{number}@b>"), 60).remember().unwrap();
        }
        let file = index.join("duplicates");
        assert_eq!(std::fs::metadata(&file).unwrap().len(), RECORDS * 24);
        assert!(!look("u@c", "<1@b>", 60).is_known(), "the oldest is forgotten");
        assert!(look("u@c", "<x9@b>", 60).is_known());
        std::fs::write(&file, b"rubbish").unwrap();
        assert!(!look("u@c", "<x9@b>", 60).is_known());
    }
}
