//! Folders get other names.
//!
//! A folder is up to three things on the disk: its messages, the directories of what is below it, and
//! the small files of each mailbox among these. No system call renames all of that, so what is to be
//! done is written, durably, into the file `NAME.folders` before the first step:
//!
//! ```text
//! hikyaku-folders 1
//! name FROM TAB TO        names, for what is remembered by name
//! part FROM TAB TO        paths to rename, below the directory of folders
//! mailbox FROM TAB TO     mailboxes whose small files follow; a Maildir ends in a slash
//! end
//! ```
//!
//! Whoever opens the folders next and finds it does the steps that are not done yet. A part whose
//! old name is still, or again, there while the new one is taken is left alone: a delivery may have
//! made the old folder anew.
//!
//! The inbox keeps its name; its messages move (RFC 9051 section 6.3.6). They are copied durably, under
//! the inbox's locks, before they are removed from it: killed in between, they are in both places.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, RenameFlags, openat, renameat2};
use nix::sys::stat::Mode;
use nix::unistd::fsync;

use super::error::Error;
use super::index_files::IndexFiles;
use super::layout::{Layout, Located};
use super::name::{BELOW, Name};
use super::root::{self, Thing};
use super::small::{self, LOCK, Lock};
use super::{Folders, foreign};
use crate::mailbox::moment::moment;
use crate::mailbox::{Mbox, Place, directory, names_maildir};

const FIRST_LINE: &str = "hikyaku-folders 1";
const LAST_LINE: &str = "end";

/// What a rename has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Renaming {
    name: (Name, Name),
    parts: Vec<(PathBuf, PathBuf)>,
    mailboxes: Vec<(PathBuf, PathBuf)>,
}

impl Renaming {
    fn text(&self) -> Option<String> {
        let (from, to) = &self.name;
        let mut lines = vec![FIRST_LINE.to_owned(), format!("name {from}\t{to}")];
        let mut line = |word: &str, (from, to): &(PathBuf, PathBuf)| {
            lines.push(format!("{word} {}\t{}", from.to_str()?, to.to_str()?));
            Some(())
        };
        for part in &self.parts {
            line("part", part)?;
        }
        for mailbox in &self.mailboxes {
            line("mailbox", mailbox)?;
        }
        lines.push(format!("{LAST_LINE}\n"));
        Some(lines.join("\n"))
    }

    /// What is not whole was never begun.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
        let mut lines = text.split('\n');
        if lines.next() != Some(FIRST_LINE) || lines.next_back() != Some(LAST_LINE) {
            return None;
        }
        let (from, to) = lines.next()?.strip_prefix("name ")?.split_once('\t')?;
        let name = (Name::parse(from).ok()?, Name::parse(to).ok()?);
        let mut renaming = Self { name, parts: Vec::new(), mailboxes: Vec::new() };
        for line in lines {
            let (word, pair) = line.split_once(' ')?;
            let (from, to) = pair.split_once('\t')?;
            let pair = (PathBuf::from(from), PathBuf::from(to));
            match word {
                "part" => renaming.parts.push(pair),
                "mailbox" => renaming.mailboxes.push(pair),
                _ => return None,
            }
        }
        Some(renaming)
    }
}

fn is_free(to: &Name, new: &Located) -> Result<(), Error> {
    if new.stands() {
        return Err(Error::AlreadyExists(to.clone()));
    }
    if new.foreign { Err(foreign(to)) } else { Ok(()) }
}

impl Folders {
    /// Gives a folder another name, with all that is below it; what is missing above the new name is
    /// made. The messages of the inbox move, and it stays, empty.
    pub fn rename(&self, from: &Name, to: &Name) -> Result<(), Error> {
        let lock = self.lock()?;
        if to.is_inbox() {
            return Err(Error::AlreadyExists(to.clone()));
        }
        let new = self.locate(to)?;
        if from.is_inbox() {
            is_free(to, &new)?;
            return self.move_inbox(to);
        }
        let old = self.locate(from)?;
        if !old.stands() {
            let error = if old.foreign { foreign(from) } else { Error::NonExistent(from.clone()) };
            return Err(error);
        }
        is_free(to, &new)?;
        if to.is_below(from) {
            return Err(Error::Cannot(format!("{from} can't be moved into itself")));
        }
        let renaming = self.plan(from, to, &old)?;
        if !renaming.parts.iter().all(|(_, to)| self.is_nothing(to)) {
            return Err(foreign(to));
        }
        // Nothing that was interrupted is to be looked for under an old name.
        for (path, _) in &renaming.mailboxes {
            self.exclusively(path, || Ok(()))?;
        }
        if let Some((_, part)) = renaming.parts.first() {
            self.make_above(part)?;
        }
        self.forget_new_names(&renaming)?;
        self.keep(&lock, &renaming)?;
        if let Err(error) = self.move_parts(&renaming) {
            self.move_back(&lock, &renaming);
            return Err(error);
        }
        // It has another name now. What can't be done yet is done by whoever comes next.
        let _ = self.finish(&lock, &renaming);
        Ok(())
    }

    /// What is known of mailboxes that had the new names before is none of those that get them.
    fn forget_new_names(&self, renaming: &Renaming) -> Result<(), Error> {
        let mut files = IndexFiles::read(&self.inbox.index, self.inbox.owner)?;
        for (_, to) in &renaming.mailboxes {
            files.remove(&self.root.path.join(to))?;
        }
        Ok(())
    }

    fn is_nothing(&self, path: &Path) -> bool {
        matches!(self.root.look(path), Ok(Thing::Nothing))
    }

    fn plan(&self, from: &Name, to: &Name, old: &Located) -> Result<Renaming, Error> {
        let tree = self.tree()?;
        if tree.more {
            return Err(Error::Limit("there are too many folders".into()));
        }
        let path = self.layout.path(&self.root, to)?;
        let mut parts: Vec<(PathBuf, PathBuf)> = Vec::new();
        if let Some((mailbox, _)) = &old.mailbox {
            parts.push((mailbox.clone(), path.clone()));
        }
        match self.layout {
            Layout::Files => parts.extend(old.below.iter().map(|place| {
                let name = place.as_os_str().as_encoded_bytes();
                let mut new = path.clone().into_os_string();
                if name.ends_with(BELOW.as_bytes()) {
                    new.push(BELOW);
                }
                (place.clone(), new.into())
            })),
            Layout::Maildirs => {
                for (name, mailbox) in &tree.folders {
                    if let (Some((mailbox, _)), true) = (mailbox, name.is_below(from))
                        && let Some(moved) = name.moved(from, to)
                    {
                        parts.push((mailbox.clone(), self.layout.path(&self.root, &moved)?));
                    }
                }
            }
        }
        let twice = parts
            .iter()
            .any(|(from, to)| parts.iter().any(|(other, target)| other != from && target == to));
        if twice {
            let text = format!("{from} stands in two places: their names would become one");
            return Err(Error::Cannot(text));
        }
        let mut mailboxes = Vec::new();
        for (name, mailbox) in &tree.folders {
            let Some(moved) = name.moved(from, to) else {
                continue;
            };
            if Name::parse(moved.as_str()).is_err() {
                return Err(Error::Limit(format!("the name of {name} would be too long")));
            }
            let Some((path, thing)) = mailbox else {
                continue;
            };
            let under =
                parts.iter().find_map(|(from, to)| Some((to, path.strip_prefix(from).ok()?)));
            if let Some((to, rest)) = under {
                let mut new = if rest == Path::new("") { to.clone() } else { to.join(rest) };
                let mut old = path.clone();
                if *thing == Thing::Maildir {
                    new.push("");
                    old.push("");
                }
                mailboxes.push((old, new));
            }
        }
        Ok(Renaming { name: (from.clone(), to.clone()), parts, mailboxes })
    }

    /// Whether a rename was interrupted. Where the file can't be looked at, we have left none.
    pub(super) fn is_pending(&self) -> bool {
        matches!(self.small.look(LOCK), Ok(Some(found)) if found.size > 0)
    }

    /// Finishes a rename that was interrupted. Where that fails, it is tried again until another
    /// rename takes its place: each message has one name or the other.
    pub(super) fn recover(&self, lock: &Lock) -> Result<(), Error> {
        let bytes = small::read(&lock.file);
        let bytes = bytes.map_err(|error| self.failed(LOCK, "can't be read", error))?;
        if bytes.is_empty() {
            return Ok(());
        }
        let Some(renaming) = Renaming::parse(&bytes) else {
            return self.clear(lock);
        };
        self.move_parts(&renaming)?;
        self.finish(lock, &renaming)
    }

    fn keep(&self, lock: &Lock, renaming: &Renaming) -> Result<(), Error> {
        let fail = |error| self.failed(LOCK, "can't be written", error);
        let text = renaming.text().ok_or_else(|| fail(io::ErrorKind::InvalidFilename.into()))?;
        moment();
        let kept = lock
            .file
            .set_len(0)
            .and_then(|()| lock.file.write_all_at(text.as_bytes(), 0))
            .and_then(|()| lock.file.sync_all());
        if kept.is_err() {
            let _ = lock.file.set_len(0);
        }
        kept.map_err(fail)?;
        Ok(self.small.sync()?)
    }

    fn clear(&self, lock: &Lock) -> Result<(), Error> {
        moment();
        // Synced: one that came back after a power cut would rename what is called so by then.
        let cleared = lock.file.set_len(0).and_then(|()| lock.file.sync_all());
        cleared.map_err(|error| self.failed(LOCK, "can't be written", error))
    }

    /// Gives what has the old names the new ones, as far as that is not done yet.
    fn move_parts(&self, renaming: &Renaming) -> Result<(), Error> {
        for (from, to) in &renaming.parts {
            if !self.is_nothing(from) && self.is_nothing(to) {
                self.root.rename(from, to)?;
            }
        }
        Ok(())
    }

    /// Undoes that, where a part of it could not be done.
    fn move_back(&self, lock: &Lock, renaming: &Renaming) {
        let mut all = true;
        for (from, to) in renaming.parts.iter().rev() {
            if !self.is_nothing(to) && self.is_nothing(from) {
                all &= self.root.rename(to, from).is_ok();
            }
        }
        if all {
            let _ = self.clear(lock);
        }
    }

    /// Does what else there is to do.
    fn finish(&self, lock: &Lock, renaming: &Renaming) -> Result<(), Error> {
        self.take_along(&renaming.mailboxes)?;
        let (from, to) = &renaming.name;
        self.move_uses(lock, from, Some(to))?;
        self.clear(lock)
    }

    /// Gives mailboxes' small files the new names.
    fn take_along(&self, mailboxes: &[(PathBuf, PathBuf)]) -> Result<(), Error> {
        let mut files = IndexFiles::read(&self.inbox.index, self.inbox.owner)?;
        for (from, to) in mailboxes {
            let (old, new) = (self.root.path.join(from), self.root.path.join(to));
            if !files.has(&old) || !self.is_nothing(from) || self.is_nothing(to) {
                continue;
            }
            // Whoever is at work has opened it by the old name, and may still need them by that.
            let moved = self.exclusively(to, || files.rename(&old, &new));
            if let Err(Error::InUse(_)) = moved {
                files.rename(&old, &new)?;
            } else {
                moved?;
            }
        }
        files.sync()
    }

    /// Runs `action` under the locks of a mailbox, as far as it has some.
    fn exclusively(
        &self,
        mailbox: &Path,
        action: impl FnOnce() -> Result<(), Error>,
    ) -> Result<(), Error> {
        if names_maildir(mailbox) {
            return action();
        }
        let place = self.place_at(mailbox, Thing::Mbox);
        Mbox::new(place).exclusively(|_| action())?.unwrap_or(Ok(()))
    }

    fn move_inbox(&self, to: &Name) -> Result<(), Error> {
        let path = self.layout.path(&self.root, to)?;
        self.make_above(&path)?;
        let from_maildir =
            names_maildir(&self.inbox.path) || crate::mailbox::maildir::is_at(&self.inbox.path);
        if from_maildir {
            return self.move_maildir(&path);
        }
        if self.layout == Layout::Maildirs {
            let text =
                "the inbox is an mbox, and folders are Maildirs: its messages can't be moved";
            return Err(Error::Cannot(text.into()));
        }
        let moved =
            Mbox::new(self.inbox.clone()).exclusively(|inbox| self.move_file(inbox, &path))?;
        // No inbox is an empty one.
        moved.unwrap_or_else(|| self.root.make_file(&path).map(drop))
    }

    /// The inbox is locked.
    fn move_file(&self, mut inbox: &File, to: &Path) -> Result<(), Error> {
        let fail = |error| Error::io(self.inbox.path.display(), "be copied", &error);
        let hidden = self.root.hidden()?;
        let mut file = self.root.make_file(&hidden)?;
        moment();
        let copied = inbox
            .seek(SeekFrom::Start(0))
            .and_then(|_| io::copy(&mut inbox, &mut file))
            .and_then(|copied| match inbox.metadata()?.len() {
                length if length == copied => file.sync_all(),
                // Whoever wrote has not asked for a lock.
                _ => Err(io::Error::other("it was changed meanwhile")),
            });
        if let Err(error) = copied {
            let _ = self.root.remove_file(&hidden);
            return Err(fail(error));
        }
        self.copy_index(&self.place_at(to, Thing::Mbox))?;
        self.root.rename(&hidden, to)?;
        moment();
        inbox.set_len(0).and_then(|()| inbox.sync_all()).map_err(fail)
    }

    /// Each message moves at once from one Maildir to the other.
    fn move_maildir(&self, to: &Path) -> Result<(), Error> {
        let fail = |error: &io::Error| Error::io(self.inbox.path.display(), "be moved", error);
        self.copy_index(&self.place_at(to, Thing::Maildir))?;
        self.root.make_maildir(to, self.layout == Layout::Maildirs)?;
        let Ok(inbox) = directory::open_directory(&self.inbox.path) else {
            return Ok(());
        };
        for part in ["new", "cur"] {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let from = match openat(&inbox, part, flags, Mode::empty()) {
                Ok(from) => from,
                Err(nix::Error::ENOENT) => continue,
                Err(error) => return Err(fail(&error.into())),
            };
            let Some(target) = self.root.dir(&to.join(part))? else {
                return Err(fail(&io::ErrorKind::NotFound.into()));
            };
            for name in root::names(&from).map_err(|error| fail(&error))? {
                moment();
                let name = name.as_os_str();
                match renameat2(&from, name, &target, name, RenameFlags::empty()) {
                    // A reader gives messages other names.
                    Ok(()) | Err(nix::Error::ENOENT) => {}
                    Err(error) => return Err(fail(&error.into())),
                }
            }
            fsync(&target).and_then(|()| fsync(&from)).map_err(|error| fail(&error.into()))?;
        }
        Ok(())
    }

    /// The messages keep their UIDs in their new folder.
    fn copy_index(&self, to: &Place) -> Result<(), Error> {
        let mut files = IndexFiles::read(&to.index, to.owner)?;
        files.remove(&to.path)?;
        let mut files = IndexFiles::read(&to.index, to.owner)?;
        files.copy(&self.inbox.path, &to.path)?;
        files.sync()
    }
}
