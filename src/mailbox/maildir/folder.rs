//! The files of a Maildir: which there are, and how one is found again that others renamed.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::dir::{Dir, Type};
use nix::fcntl::{AtFlags, OFlag, RenameFlags, renameat, renameat2};
use nix::sys::stat::{Mode, fstat, fstatat};

use super::keywords::Keywords;
use super::name;
use super::parts::Parts;
use crate::mailbox::index::{Base, MOST_MESSAGES};
use crate::mailbox::moment::moment;
use crate::mailbox::{Error, Place};

/// What a message is known again by.
pub(super) type Digest = [u8; 16];

/// Clocks of file systems tick this slowly, at worst.
const TICK: Duration = Duration::from_millis(10);

/// A message's file.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub name: Box<[u8]>,
    /// It is in `new/`.
    pub is_new: bool,
}

impl Entry {
    /// The directory that it is in.
    pub fn part<'a>(&self, parts: &'a Parts) -> &'a OwnedFd {
        if self.is_new { &parts.new } else { &parts.cur }
    }
}

/// A Maildir and the files that were found in it.
#[derive(Debug)]
pub(super) struct Folder {
    pub place: Place,
    pub parts: Parts,
    pub keywords: Keywords,
    files: HashMap<Digest, Entry>,
    /// Whether `files` was filled.
    is_listed: bool,
}

impl Folder {
    /// Opens the Maildir at this place; it is made where it is missing.
    pub fn open(place: Place) -> Result<Self, Error> {
        let parts = Parts::open(&place)?;
        let (keywords, files) = (Keywords::default(), HashMap::new());
        Ok(Self { place, parts, keywords, files, is_listed: false })
    }

    /// Names the Maildir in an error.
    pub fn fail(&self, doing: &'static str, error: impl Into<io::Error>) -> Error {
        Error::io(&self.place.path, doing, error.into())
    }

    /// That the Maildir still has its name, by which its index is called. Another one may be called
    /// so by now, whose index is no business of who has this one open.
    pub fn still(&self) -> Result<(), Error> {
        let fail = |error| self.fail("be looked at", error);
        let there = std::fs::metadata(&self.place.path).map_err(fail)?;
        let ours = fstat(&self.parts.root).map_err(|error| fail(error.into()))?;
        if (there.dev(), there.ino()) == (ours.st_dev, ours.st_ino) {
            return Ok(());
        }
        Err(fail(io::ErrorKind::NotFound.into()))
    }

    /// How the directories look; and whether each later change will show in that.
    pub fn look(&self) -> Result<(Base, bool), Error> {
        self.still()?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let mut base = Base::default();
        let mut is_settled = true;
        for (part, places) in [&self.parts.new, &self.parts.cur].iter().zip(base.chunks_mut(4)) {
            let found = fstat(part).map_err(|error| self.fail("be looked at", error))?;
            if found.st_nlink == 0 {
                return Err(self.fail("be looked at", io::Error::from(io::ErrorKind::NotFound)));
            }
            let seconds = u64::try_from(found.st_mtime).unwrap_or(0);
            let nanos = u32::try_from(found.st_mtime_nsec).unwrap_or(0);
            let age = now.checked_sub(Duration::new(seconds, nanos));
            is_settled &= age.is_some_and(|age| age > TICK);
            let numbers = [seconds, nanos.into(), found.st_ino, found.st_dev];
            places.copy_from_slice(&numbers);
        }
        Ok((base, is_settled))
    }

    /// Lists the files. A file may be missed while others rename it: where one of `expected` is not
    /// there, a second look tells.
    pub fn list<'a>(
        &mut self,
        expected: impl IntoIterator<Item = &'a Digest>,
    ) -> Result<(), Error> {
        self.files = self.read()?;
        self.is_listed = true;
        if expected.into_iter().any(|digest| !self.files.contains_key(digest)) {
            let again = self.read()?;
            self.files.extend(again);
        }
        if self.files.len() > MOST_MESSAGES {
            return Err(Error::TooMany(MOST_MESSAGES));
        }
        Ok(())
    }

    fn read(&self) -> Result<HashMap<Digest, Entry>, Error> {
        let mut files = HashMap::new();
        // In this order: who moves a file moves it to where it is still seen.
        for (part, is_new) in [(&self.parts.new, true), (&self.parts.cur, false)] {
            self.each_in(part, |name| {
                files.insert(name::digest(name), Entry { name: name.into(), is_new });
                ControlFlow::Continue(())
            })?;
        }
        Ok(files)
    }

    /// Whether there is a file that no session has seen.
    pub fn any_new(&self) -> Result<bool, Error> {
        let mut any = false;
        self.each_in(&self.parts.new, |_| {
            any = true;
            ControlFlow::Break(())
        })?;
        Ok(any)
    }

    /// Gives the names of the files of a part to `each`, as long as it goes on.
    fn each_in(
        &self,
        part: &OwnedFd,
        mut each: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), Error> {
        let fail = |error| self.fail("be listed", error);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut entries = Dir::openat(part, ".", flags, Mode::empty()).map_err(fail)?;
        for entry in entries.iter() {
            let entry = entry.map_err(fail)?;
            let file = entry.file_name().to_bytes();
            let is_other = entry.file_type().is_some_and(|kind| !matches!(kind, Type::File));
            if !file.starts_with(b".") && !is_other && each(file).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The files, as they were listed last.
    pub fn files(&self) -> &HashMap<Digest, Entry> {
        &self.files
    }

    /// Whether they were listed.
    pub fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// A file that was made.
    pub fn add(&mut self, entry: Entry) {
        self.files.insert(name::digest(&entry.name), entry);
    }

    /// Does something with the file of a message; `None` where there is none any more. It may have
    /// another name than we know: then all are listed again, if there are `looks` left.
    pub fn with<T>(
        &mut self,
        digest: &Digest,
        looks: &mut Looks,
        action: impl Fn(&Parts, &Entry) -> nix::Result<T>,
    ) -> Result<Option<T>, Error> {
        let mut was_listed = false;
        loop {
            if let Some(entry) = self.files.get(digest) {
                match action(&self.parts, entry) {
                    Ok(done) => return Ok(Some(done)),
                    Err(nix::Error::ENOENT) => {}
                    Err(error) => return Err(self.fail("be used", error)),
                }
            }
            if was_listed || looks.0 == 0 {
                self.files.remove(digest);
                return Ok(None);
            }
            was_listed = true;
            looks.0 -= 1;
            self.list([digest])?;
        }
    }

    /// Gives a message's file another name in `cur/`; false where it is gone.
    pub fn rename(
        &mut self,
        digest: &Digest,
        looks: &mut Looks,
        new_name: impl Fn(&Entry) -> Vec<u8>,
    ) -> Result<bool, Error> {
        let renamed = self.with(digest, looks, |parts, entry| {
            let name = new_name(entry);
            if entry.is_new || *name != *entry.name {
                move_to(entry.part(parts), &entry.name, &parts.cur, &name)?;
            } else {
                // Others may have renamed it since we listed it.
                fstatat(&parts.cur, &*name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            }
            Ok(name)
        })?;
        let Some(name) = renamed else { return Ok(false) };
        self.files.insert(*digest, Entry { name: name.into(), is_new: false });
        Ok(true)
    }

    /// A message's file is gone.
    pub fn forget(&mut self, digest: &Digest) {
        self.files.remove(digest);
    }
}

/// How often one operation may list all files because one is not where it was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Looks(u8);

impl Default for Looks {
    fn default() -> Self {
        Self(3)
    }
}

/// Renames without putting anything in another file's place, where the file system can. Where there
/// is one it says the same of the same message.
fn move_to(from: &OwnedFd, old: &[u8], to: &OwnedFd, new: &[u8]) -> nix::Result<()> {
    moment();
    match renameat2(from, old, to, new, RenameFlags::RENAME_NOREPLACE) {
        Err(nix::Error::EINVAL | nix::Error::ENOSYS) => renameat(from, old, to, new),
        Err(nix::Error::EEXIST) => Ok(()),
        renamed => renamed,
    }
}
