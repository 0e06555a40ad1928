//! A user's folders: what they are called, where they are, and how they come and go.
//!
//! [`Folders`] is the directory `[paths] folders` with the inbox. A [`Name`] is the protocol's; what it
//! leads to on the disk says `layout`, and `man/hikyaku-folders.5` tells it to people. Whoever changes
//! something holds a lock on the file `NAME.folders`, which also says what a rename that is under way has
//! still to do (`rename`). Nothing is remembered between two calls: other programs make and remove
//! folders, too.

mod change;
mod error;
mod index_files;
mod layout;
mod name;
mod pattern;
mod rename;
mod root;
mod small;
mod special;
mod subscriptions;

use std::collections::HashSet;
use std::path::Path;

use super::index::Directory;
use super::{Place, names_maildir};

pub use error::Error;
pub use layout::MOST_FOLDERS;
pub use name::{MOST_WORDS, Name, Wanted};
pub use pattern::matches;
pub use special::SpecialUse;

use layout::{Layout, Located, Tree};
use root::{Root, Thing};

/// The folders of a user.
#[derive(Debug)]
pub struct Folders {
    root: Root,
    layout: Layout,
    inbox: Place,
    /// The small files of the folders as a whole.
    small: Directory,
}

/// One folder, as LIST tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: Name,
    /// It has no messages, and can't be selected (`\Noselect`).
    pub no_select: bool,
    /// There are folders below it (`\HasChildren`, or else `\HasNoChildren`).
    pub has_children: bool,
    /// The user has subscribed to it.
    pub subscribed: bool,
    /// What it is for (RFC 6154).
    pub uses: Vec<SpecialUse>,
}

/// What LIST finds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The folders: the inbox first, then by their names.
    pub entries: Vec<Entry>,
    /// There are more than [`MOST_FOLDERS`], which are not looked at.
    pub more: bool,
}

impl Folders {
    /// The folders below `root`: `[paths] folders`, in Maildir++ where it ends in a slash. They are
    /// shared, owned and indexed as the inbox is. A rename that was interrupted is finished.
    pub fn open(root: &Path, inbox: Place) -> Self {
        let layout = if names_maildir(root) { Layout::Maildirs } else { Layout::Files };
        let reserved = [inbox.path.clone(), inbox.index.clone()];
        let small = Directory::new(&inbox.index, root, inbox.owner);
        let folders = Self { root: Root::new(root, inbox.owner, reserved), layout, inbox, small };
        if folders.is_pending() {
            // Where somebody is at work, they do it.
            let _ = folders.lock();
        }
        folders
    }

    /// The folders that a pattern means, behind a reference (RFC 9051 section 6.3.9). Folders above
    /// those that have messages are among them.
    pub fn list(&self, reference: &str, pattern: &str) -> Result<Listing, Error> {
        let pattern = format!("{reference}{pattern}");
        let tree = self.tree()?;
        let subscribed: HashSet<Name> = self.subscriptions()?.into_iter().collect();
        let uses = self.uses(&tree);
        let inbox = Name::inbox();
        let parents: HashSet<Name> = tree.folders.keys().filter_map(Name::parent).collect();
        let all = std::iter::once((&inbox, true));
        let all = all.chain(tree.folders.iter().map(|(name, mailbox)| (name, mailbox.is_some())));
        let entries =
            all.filter(|(name, _)| matches(&pattern, name.as_str())).map(|(name, select)| Entry {
                name: name.clone(),
                no_select: !select,
                has_children: parents.contains(name),
                subscribed: subscribed.contains(name),
                uses: uses.iter().filter(|(_, of)| of == name).map(|(one, _)| *one).collect(),
            });
        Ok(Listing { entries: entries.collect(), more: tree.more })
    }

    /// Where a folder's messages are, for opening it.
    pub fn place(&self, name: &Name) -> Result<Place, Error> {
        if name.is_inbox() {
            return Ok(self.inbox.clone());
        }
        let mut located = self.locate(name)?;
        if self.is_pending() {
            // What has its new name already gets its index at the end.
            let _ = self.lock();
            located = self.locate(name)?;
        }
        match located.mailbox {
            Some((path, thing)) => Ok(self.place_at(&path, thing)),
            None if located.stands() => Err(Error::Cannot(format!("{name} has no messages"))),
            None if located.foreign => Err(foreign(name)),
            None => Err(Error::NonExistent(name.clone())),
        }
    }

    /// Where a folder's messages are, or would be: a delivery makes the folder. One with a slash
    /// behind it would be a Maildir. The directories on the way may be missing.
    pub fn place_of_delivery(&self, wanted: &Wanted) -> Result<Place, Error> {
        let name = &wanted.name;
        if name.is_inbox() {
            return Ok(self.inbox.clone());
        }
        let located = self.locate(name)?;
        if let Some((path, thing)) = located.mailbox {
            return Ok(self.place_at(&path, thing));
        }
        if located.foreign {
            return Err(foreign(name));
        }
        let path = self.layout.path(&self.root, name)?;
        self.missing_above(&path)?;
        Ok(self.place_at(&path, self.kind(wanted.slash)))
    }

    /// What a new folder is.
    fn kind(&self, maildir: bool) -> Thing {
        match (self.layout, maildir) {
            (Layout::Files, false) => Thing::Mbox,
            _ => Thing::Maildir,
        }
    }

    fn place_at(&self, relative: &Path, thing: Thing) -> Place {
        let mut path = self.root.path.join(relative);
        if thing == Thing::Maildir {
            // With a slash at its end, as a Maildir is written.
            path.push("");
        }
        Place { path, ..self.inbox.clone() }
    }

    fn locate(&self, name: &Name) -> Result<Located, Error> {
        self.layout.locate(&self.root, name)
    }

    fn tree(&self) -> Result<Tree, Error> {
        self.layout.tree(&self.root)
    }
}

/// As good as forbidden: it may be anything.
fn foreign(name: &Name) -> Error {
    Error::NoPermission(format!(
        "what stands at {name} is no folder: a link, a special file, a file with two names, or \
         somebody else's"
    ))
}

#[cfg(test)]
mod tests;
