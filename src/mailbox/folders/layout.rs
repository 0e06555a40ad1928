//! Where folders stand below the directory of folders, in either layout.
//!
//! *Files*: folder `a` is the mbox `a`, or the Maildir `a/`; what stands below it is in the directory
//! `a.sbd/`, so that a folder may have messages and folders. A plain directory `a/`, which other
//! programs made, has folders and no messages.
//!
//! *Maildir++*: the directory is a Maildir itself, and folder `a/b` is its subdirectory `.a.b/`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use super::error::Error;
use super::name::{BELOW, MOST_WORDS, Name, disk_word, disk_words};
use super::root::{Root, Thing};
use crate::text::utf7;

/// So many folders are listed.
pub const MOST_FOLDERS: usize = 10_000;

/// So many directories are looked into for what one folder has below it: its `.sbd`, one that others
/// made, each in two spellings, and that at each step down.
const MOST_PLACES: usize = 16;

/// A name in Maildir++ is one name on the disk.
const MOST_IN_A_NAME: usize = 200;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    Files,
    Maildirs,
}

/// Where a folder is.
#[derive(Debug, Default)]
pub(super) struct Located {
    /// Its messages.
    pub mailbox: Option<(PathBuf, Thing)>,
    /// The directories of what is below it.
    pub below: Vec<PathBuf>,
    /// Something stands there that is no folder.
    pub foreign: bool,
}

impl Located {
    /// Whether there is such a folder, with messages or without.
    pub fn stands(&self) -> bool {
        self.mailbox.is_some() || !self.below.is_empty()
    }
}

/// All folders but the inbox, each with its messages if it can have some.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub folders: BTreeMap<Name, Option<(PathBuf, Thing)>>,
    /// There are more.
    pub more: bool,
}

impl Tree {
    /// False when there are too many.
    fn put(&mut self, name: Name, mailbox: Option<(PathBuf, Thing)>) -> bool {
        if self.folders.len() >= MOST_FOLDERS && !self.folders.contains_key(&name) {
            self.more = true;
            return false;
        }
        let known = self.folders.entry(name).or_default();
        if known.is_none() {
            *known = mailbox;
        }
        true
    }
}

impl Layout {
    /// Finds a folder that is not the inbox.
    pub fn locate(self, root: &Root, name: &Name) -> Result<Located, Error> {
        match self {
            Self::Files => locate_file(root, name),
            Self::Maildirs => locate_maildir(root, name),
        }
    }

    /// Finds all folders.
    pub fn tree(self, root: &Root) -> Result<Tree, Error> {
        match self {
            Self::Files => tree_of_files(root),
            Self::Maildirs => tree_of_maildirs(root),
        }
    }

    /// The path that the messages of a folder would get which has none yet. The directories on the
    /// way may be missing.
    pub fn path(self, root: &Root, name: &Name) -> Result<PathBuf, Error> {
        match self {
            Self::Files => {
                let last = name.words().next_back().unwrap_or_default();
                Ok(home(root, name)?.join(disk_word(last)))
            }
            Self::Maildirs => {
                if name.as_str().contains('.') {
                    let text = "a dot parts Maildir++ folders, as a slash does";
                    return Err(Error::Cannot(format!("folder {:?}: {text}", name.as_str())));
                }
                let path = dotted(name, disk_word);
                if path.len() > MOST_IN_A_NAME {
                    let text = format!("folder {:?}: the name is too long", name.as_str());
                    return Err(Error::Limit(text));
                }
                Ok(path.into())
            }
        }
    }
}

fn locate_file(root: &Root, name: &Name) -> Result<Located, Error> {
    let mut located = Located { below: vec![PathBuf::new()], ..Located::default() };
    for word in name.words() {
        located = look_below(root, &located.below, word)?;
    }
    Ok(located)
}

/// What `word` is in these directories.
fn look_below(root: &Root, places: &[PathBuf], word: &str) -> Result<Located, Error> {
    let mut located = Located::default();
    for place in places {
        let Some(dir) = root.dir(place)? else {
            continue;
        };
        for disk in disk_words(word) {
            let below = format!("{disk}{BELOW}");
            if root.look_in(&dir, place, OsStr::new(&below)) == Thing::Directory {
                located.below.push(place.join(below));
            }
            match root.look_in(&dir, place, OsStr::new(&disk)) {
                Thing::Directory => located.below.push(place.join(disk)),
                thing @ (Thing::Mbox | Thing::Maildir) => {
                    located.mailbox.get_or_insert_with(|| (place.join(disk), thing));
                }
                Thing::Foreign => located.foreign = true,
                Thing::Nothing => {}
            }
        }
    }
    located.below.truncate(MOST_PLACES);
    Ok(located)
}

/// The directory that a folder belongs into.
fn home(root: &Root, name: &Name) -> Result<PathBuf, Error> {
    let mut places = vec![PathBuf::new()];
    let above = name.words().count().saturating_sub(1);
    for word in name.words().take(above) {
        let below = look_below(root, &places, word)?.below;
        let first = places.into_iter().next().unwrap_or_default();
        places = if below.is_empty() { vec![first.join(disk_word(word) + BELOW)] } else { below };
    }
    Ok(places.into_iter().next().unwrap_or_default())
}

fn tree_of_files(root: &Root) -> Result<Tree, Error> {
    let mut tree = Tree::default();
    let mut waiting: Vec<(PathBuf, Option<Name>, usize)> = vec![(PathBuf::new(), None, 1)];
    while let Some((place, above, depth)) = waiting.pop() {
        let (dir, names) = match root.names(&place) {
            Ok(Some(found)) => found,
            Err(error) if above.is_none() => return Err(error),
            // It has vanished, or may not be read.
            _ => continue,
        };
        for disk in names {
            let Some(text) = disk.to_str().filter(|text| !text.starts_with('.')) else {
                continue;
            };
            let (word, is_below) = match text.strip_suffix(BELOW) {
                Some(word) => (word, true),
                None => (text, false),
            };
            let Some(name) = Name::on_disk(above.as_ref(), word) else {
                continue;
            };
            let path = place.join(&disk);
            let within = match (root.look_in(&dir, &place, &disk), is_below) {
                // A file of this name stands in the inbox's shade.
                (Thing::Mbox | Thing::Maildir, false) if name.is_inbox() => true,
                (thing @ (Thing::Mbox | Thing::Maildir), false) => {
                    tree.put(name, Some((path, thing)))
                }
                (Thing::Directory, _) => {
                    let within = name.is_inbox() || tree.put(name.clone(), None);
                    if depth < MOST_WORDS {
                        waiting.push((path, Some(name), depth.saturating_add(1)));
                    }
                    within
                }
                _ => true,
            };
            if !within {
                return Ok(tree);
            }
        }
    }
    Ok(tree)
}

/// `.a.b`
fn dotted(name: &Name, write: impl Fn(&str) -> String) -> String {
    name.words().fold(String::new(), |path, word| format!("{path}.{}", write(word)))
}

/// The folder whose directory is called so.
fn undotted(disk: &OsStr) -> Option<Name> {
    let words = disk.to_str()?.strip_prefix('.')?.split('.');
    let mut name = None;
    for word in words {
        name = Some(Name::on_disk(name.as_ref(), word)?);
    }
    name.filter(|name| !name.is_inbox())
}

fn locate_maildir(root: &Root, name: &Name) -> Result<Located, Error> {
    let mut located = Located::default();
    if name.as_str().contains('.') {
        return Ok(located);
    }
    let Some((dir, names)) = root.names(Path::new(""))? else {
        return Ok(located);
    };
    for disk in [dotted(name, disk_word), dotted(name, utf7::encode)] {
        match root.look_in(&dir, Path::new(""), OsStr::new(&disk)) {
            Thing::Maildir => {
                located.mailbox.get_or_insert_with(|| (disk.into(), Thing::Maildir));
            }
            Thing::Nothing => {}
            _ => located.foreign = true,
        }
    }
    let below = names.into_iter().filter(|disk| {
        undotted(disk).is_some_and(|found| found.is_below(name))
            && root.look_in(&dir, Path::new(""), disk) == Thing::Maildir
    });
    located.below = below.map(PathBuf::from).collect();
    Ok(located)
}

fn tree_of_maildirs(root: &Root) -> Result<Tree, Error> {
    let mut tree = Tree::default();
    let Some((dir, names)) = root.names(Path::new(""))? else {
        return Ok(tree);
    };
    for disk in names {
        let Some(name) = undotted(&disk) else {
            continue;
        };
        if root.look_in(&dir, Path::new(""), &disk) != Thing::Maildir {
            continue;
        }
        let mut above = name.parent();
        while let Some(parent) = above.filter(|parent| !parent.is_inbox()) {
            above = parent.parent();
            if !tree.put(parent, None) {
                return Ok(tree);
            }
        }
        if !tree.put(name, Some((disk.into(), Thing::Maildir))) {
            return Ok(tree);
        }
    }
    Ok(tree)
}
