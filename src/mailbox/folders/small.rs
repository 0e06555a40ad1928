//! The small files beside the folders: the lock of whoever changes something, and what is replaced
//! as a whole.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use std::time::Instant;

use super::Folders;
use super::error::Error;
use crate::mailbox::dotlock::{Dotlock, Tried};
use crate::mailbox::lock::pause;
use crate::mailbox::moment::moment;
use crate::sys::lock::{Kind, try_flock};
use crate::sys::signal;

/// The lock; what it holds is [`super::rename`]'s.
pub(super) const LOCK: &str = ".folders";

/// So large a small file may be.
const MOST: u64 = 16 * 1024 * 1024;

/// The folders while nobody else of ours changes them.
#[derive(Debug)]
pub(super) struct Lock {
    pub file: File,
}

impl Folders {
    /// Keeps others out, and finishes what a killed process left. The directory of folders is made
    /// where it is missing.
    pub(super) fn lock(&self) -> Result<Lock, Error> {
        self.root.make_root()?;
        let file = self.root.file_to_write(LOCK)?;
        self.patiently(LOCK, || try_flock(&file, Kind::Exclusive).map(|got| got.then_some(())))?;
        let lock = Lock { file };
        self.recover(&lock)?;
        self.root.clean()?;
        Ok(lock)
    }

    /// Tries until it is done or the time is over.
    fn patiently<T>(
        &self,
        name: &str,
        mut action: impl FnMut() -> io::Result<Option<T>>,
    ) -> Result<T, Error> {
        let started = Instant::now();
        let mut tries = 0_u32;
        loop {
            match action() {
                Ok(Some(done)) => return Ok(done),
                Ok(None) => {}
                Err(error) => return Err(self.root.fail(Path::new(name), "be locked", &error)),
            }
            if started.elapsed() >= self.inbox.lock_timeout || signal::is_end_asked_for() {
                let path = self.root.path.join(name);
                let text = format!("{} is locked by another program", path.display());
                return Err(Error::InUse(text));
            }
            tries = tries.saturating_add(1);
            std::thread::sleep(pause(tries));
        }
    }

    /// Reads a small file; a missing one is empty.
    pub(super) fn read_small(&self, name: &str) -> Result<Vec<u8>, Error> {
        match self.root.file(name)? {
            Some(file) => self.read_open(&file, name),
            None => Ok(Vec::new()),
        }
    }

    pub(super) fn read_open(&self, file: &File, name: &str) -> Result<Vec<u8>, Error> {
        let fail = |error| self.root.fail(Path::new(name), "be read", &error);
        let mut bytes = Vec::new();
        file.take(MOST.saturating_add(1)).read_to_end(&mut bytes).map_err(fail)?;
        if bytes.len() as u64 > MOST {
            let text = format!("{} is too large", self.root.path.join(name).display());
            return Err(Error::Failed(text));
        }
        Ok(bytes)
    }

    /// Changes a small file: all of it, durably, or not at all. Dovecot, which writes one of them, too,
    /// takes the dot lock.
    pub(super) fn change_small(
        &self,
        _lock: &Lock,
        name: &str,
        change: impl FnOnce(Vec<u8>) -> Option<Vec<u8>>,
    ) -> Result<(), Error> {
        let Some(dir) = self.root.dir(Path::new(""))? else {
            return Ok(());
        };
        let _dotlock = self.patiently(name, || match Dotlock::try_make(&dir, name.as_ref())? {
            Tried::Made(lock) => Ok(Some(lock)),
            Tried::Held(_) => Ok(None),
        })?;
        let Some(bytes) = change(self.read_small(name)?) else {
            return Ok(());
        };
        let hidden = self.root.hidden()?;
        let mut file = self.root.make_file(&hidden)?;
        moment();
        let written = file.write_all(&bytes).and_then(|()| file.sync_all());
        written.map_err(|error| self.root.fail(Path::new(name), "be written", &error))?;
        self.root.replace(&hidden, name)
    }
}
