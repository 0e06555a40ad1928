//! Folders come and go.

use std::path::{Path, PathBuf};

use super::error::Error;
use super::index_files::IndexFiles;
use super::layout::{Layout, Located};
use super::name::{BELOW, Name};
use super::root::Thing;
use super::special::SpecialUse;
use super::{Folders, MOST_FOLDERS, foreign};
use crate::mailbox::Mbox;

impl Folders {
    /// Makes a folder, and what is missing above it (RFC 9051 section 6.3.4), for these uses
    /// (RFC 6154).
    pub fn create(&self, name: &Name, uses: &[SpecialUse]) -> Result<(), Error> {
        let lock = self.lock()?;
        let located = self.vacant(name)?;
        if located.mailbox.is_some() || !self.may_become_mailbox(name, &located)? {
            return Err(Error::AlreadyExists(name.clone()));
        }
        let path = self.layout.path(&self.root, name)?;
        // First: on a name that leads to nothing they are harmless.
        self.set_uses(&lock, name, uses)?;
        self.make_above(&path)?;
        match self.kind(false) {
            Thing::Mbox => self.root.make_file(&path).map(drop),
            _ => self.root.make_maildir(&path, true),
        }
    }

    /// Makes a place for other folders, which has no messages. In Maildir++ there is none: every
    /// folder has messages.
    pub fn create_place(&self, name: &Name) -> Result<(), Error> {
        if self.layout == Layout::Maildirs {
            return self.create(name, &[]);
        }
        let _lock = self.lock()?;
        if self.vacant(name)?.stands() {
            return Err(Error::AlreadyExists(name.clone()));
        }
        let mut path = self.layout.path(&self.root, name)?.into_os_string();
        path.push(BELOW);
        let path = PathBuf::from(path);
        self.make_above(&path)?;
        self.root.make_dir(&path)
    }

    /// What stands at a name that is to be given to a folder.
    fn vacant(&self, name: &Name) -> Result<Located, Error> {
        if name.is_inbox() {
            return Err(Error::AlreadyExists(name.clone()));
        }
        let located = self.locate(name)?;
        if located.foreign {
            return Err(foreign(name));
        }
        let tree = self.tree()?;
        if tree.more || tree.folders.len() >= MOST_FOLDERS {
            return Err(Error::Limit(format!("there are {MOST_FOLDERS} folders already")));
        }
        Ok(located)
    }

    /// Whether a folder without messages may get some: not where a directory of another program's
    /// has the very name.
    fn may_become_mailbox(&self, name: &Name, located: &Located) -> Result<bool, Error> {
        let path = self.layout.path(&self.root, name)?;
        Ok(!located.below.contains(&path))
    }

    /// Makes the directories that a path needs.
    pub(super) fn make_above(&self, path: &Path) -> Result<(), Error> {
        self.missing_above(path)?.iter().try_for_each(|missing| self.root.make_dir(missing))
    }

    /// The directories that a path needs and that are missing.
    pub(super) fn missing_above(&self, path: &Path) -> Result<Vec<PathBuf>, Error> {
        let above = path.parent().unwrap_or(Path::new(""));
        let (mut at, mut missing) = (PathBuf::new(), Vec::new());
        for step in above {
            at.push(step);
            match self.root.look(&at)? {
                Thing::Directory => {}
                Thing::Nothing => missing.push(at.clone()),
                _ => {
                    let path = self.root.path.join(&at);
                    let text = format!("{} is no directory of the user's", path.display());
                    return Err(Error::NoPermission(text));
                }
            }
        }
        Ok(missing)
    }

    /// Removes a folder with its messages. Where there are folders below it these and its name stay
    /// (RFC 9051 section 6.3.5).
    pub fn delete(&self, name: &Name) -> Result<(), Error> {
        if name.is_inbox() {
            return Err(Error::Cannot("the inbox can't be removed".into()));
        }
        let lock = self.lock()?;
        let located = self.locate(name)?;
        if !located.stands() {
            let error =
                if located.foreign { foreign(name) } else { Error::NonExistent(name.clone()) };
            return Err(error);
        }
        let has_messages = located.mailbox.is_some();
        if let Some((path, thing)) = &located.mailbox {
            self.delete_mailbox(name, path, *thing)?;
        }
        if self.layout == Layout::Files {
            let mut left = false;
            for place in &located.below {
                left |= !self.root.remove_dir(place)?;
            }
            if left && !has_messages {
                return Err(self.occupied(name));
            }
        } else if !has_messages {
            return Err(Error::HasChildren(name.clone()));
        }
        self.move_uses(&lock, name, None)
    }

    fn delete_mailbox(&self, name: &Name, path: &Path, thing: Thing) -> Result<(), Error> {
        let place = self.place_at(path, thing);
        // An index that stays tells of messages that are gone; its UIDs are not given out again.
        let forget = || -> Result<(), Error> {
            let mut files = IndexFiles::read(&place.index, place.owner)?;
            files.remove(&place.path)?;
            files.sync()
        };
        if thing == Thing::Maildir {
            self.root.remove_maildir(path)?;
            let _ = forget();
            return Ok(());
        }
        let removed = Mbox::new(place.clone()).exclusively(|_| {
            self.root.remove_file(path)?;
            let _ = forget();
            Ok(())
        })?;
        removed.unwrap_or_else(|| Err(Error::NonExistent(name.clone())))
    }

    /// Why the directories of a folder without messages can't be removed.
    fn occupied(&self, name: &Name) -> Error {
        match self.tree() {
            Ok(tree) if !tree.folders.keys().any(|other| other.is_below(name)) => {
                Error::Cannot(format!("the directory of {name} has files that are no folders"))
            }
            _ => Error::HasChildren(name.clone()),
        }
    }
}
