//! The queue's directories, as the runner and the queue's tool see them.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid};

use super::file::{open_entry, take};
use super::{Entry, Id, Inlet};
use crate::sys::{Account, fd, privilege};

/// Where an entry stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A runner has it, or had it when it was killed.
    Work(Id),
    /// New.
    Incoming(Id),
    /// Waits until this time.
    Deferred(u64, Id),
    /// Waits for the operator.
    Hold(Id),
    /// From sendmail; pickup brings it in.
    Drop(Id),
}

impl Place {
    /// Its id.
    pub fn id(&self) -> &Id {
        match self {
            Self::Work(id)
            | Self::Incoming(id)
            | Self::Deferred(_, id)
            | Self::Hold(id)
            | Self::Drop(id) => id,
        }
    }

    fn path(&self) -> PathBuf {
        match self {
            Self::Work(id) => Path::new("work").join(id.as_str()),
            Self::Incoming(id) => Path::new("incoming").join(id.as_str()),
            Self::Deferred(due, id) => Path::new("deferred").join(format!("{due:010}.{id}")),
            Self::Hold(id) => Path::new("hold").join(id.as_str()),
            Self::Drop(id) => Path::new("drop").join(id.as_str()),
        }
    }
}

/// The queue's directory.
#[derive(Clone, Debug)]
pub struct Spool {
    root: PathBuf,
}

/// Why an entry can't be taken.
#[derive(Debug)]
pub enum Error {
    /// Another runner has it, or it is gone.
    Taken,
    /// It is damaged, or no entry at all.
    Damaged(&'static str),
    /// The system said no.
    Io(io::Error),
}

impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Taken,
            _ => Self::Io(error),
        }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Taken => f.write_str("another runner has it"),
            Self::Damaged(what) => f.write_str(what),
            Self::Io(error) => error.fmt(f),
        }
    }
}

/// The directories and their modes.
pub const DIRECTORIES: [(&str, u32); 6] = [
    ("incoming", 0o700),
    ("drop", 0o1730),
    ("work", 0o700),
    ("deferred", 0o700),
    ("hold", 0o700),
    ("corrupt", 0o700),
];

impl Spool {
    /// The queue below `root`, which must be there; nothing is looked at yet.
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned() }
    }

    /// The directory itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The account that the queue runs as: its directory's owner. With root, root itself is refused;
    /// without, it must be us.
    pub fn owner(&self) -> io::Result<Account> {
        let metadata = fs::symlink_metadata(&self.root)?;
        let (uid, gid) = (Uid::from_raw(metadata.uid()), Gid::from_raw(metadata.gid()));
        let complain = |what: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, what));
        if !metadata.is_dir() {
            return complain("is no directory");
        }
        match (privilege::is_root(), uid) {
            (true, uid) if uid.is_root() => {
                complain("must be owned by the account that the queue runs as, not by root")
            }
            (true, _) if gid.as_raw() == 0 => {
                complain("must belong to a group of its own, not to root's: chgrp it")
            }
            (false, uid) if uid != nix::unistd::geteuid() => {
                complain("belongs to another user: run this as root, or as its owner")
            }
            _ => Ok(Account {
                name: "queue".into(),
                uid,
                gid,
                home: self.root.clone(),
                shell: PathBuf::from("/bin/false"),
            }),
        }
    }

    /// Makes what is missing of the directories, as the queue's owner.
    pub fn prepare(&self) -> io::Result<()> {
        for (name, mode) in DIRECTORIES {
            let path = self.root.join(name);
            match fs::create_dir(&path) {
                Ok(()) => fs::set_permissions(&path, fs::Permissions::from_mode(mode))?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        let wake = self.root.join("wake");
        match nix::unistd::mkfifo(&wake, Mode::from_bits_truncate(0o620)) {
            Ok(()) => fs::set_permissions(&wake, fs::Permissions::from_mode(0o620)),
            Err(nix::Error::EEXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The way in for servers and for the runner itself.
    pub fn incoming(&self) -> io::Result<Inlet> {
        Inlet::open(&self.root.join("incoming"), 0o600)
    }

    /// The way in for sendmail; readable for the queue's group, which drop/'s files have.
    pub fn drop_box(&self) -> io::Result<Inlet> {
        Inlet::open(&self.root.join("drop"), 0o640)
    }

    /// All entries, those of interrupted runs first, then the new, then the waiting by due time.
    pub fn list(&self) -> io::Result<Vec<Place>> {
        type Kind = fn(Id) -> Place;
        let mut places = Vec::new();
        let kinds: [(&str, Kind); 4] = [
            ("work", Place::Work),
            ("incoming", Place::Incoming),
            ("hold", Place::Hold),
            ("drop", Place::Drop),
        ];
        for (directory, kind) in kinds {
            places.extend(self.names(directory)?.iter().filter_map(|id| Id::parse(id)).map(kind));
        }
        places.extend(self.deferred()?);
        places.sort();
        Ok(places)
    }

    /// The new entries.
    pub fn new_entries(&self) -> io::Result<Vec<Place>> {
        let names = self.names("incoming")?;
        let ids = names.iter().filter_map(|name| Id::parse(name));
        Ok(ids.map(Place::Incoming).collect())
    }

    /// File names in one of the directories.
    pub fn names(&self, directory: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.root.join(directory))? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    /// When the next waiting entry is due: the names tell, no file is opened.
    pub fn next_due(&self) -> io::Result<Option<u64>> {
        let due = |place| match place {
            Place::Deferred(due, _) => Some(due),
            _ => None,
        };
        Ok(self.deferred()?.into_iter().filter_map(due).min())
    }

    fn deferred(&self) -> io::Result<Vec<Place>> {
        let names = self.names("deferred")?;
        let places = names.iter().filter_map(|name| {
            let (due, id) = name.split_once('.')?;
            Some(Place::Deferred(due.parse().ok()?, Id::parse(id)?))
        });
        Ok(places.collect())
    }

    /// Opens an entry for a look.
    pub fn open(&self, place: &Place) -> Result<Entry, Error> {
        Entry::read(open_entry(&self.root.join(place.path()), false)?, place.clone())
    }

    /// Takes an entry for delivery: locks it and moves it to work/. A damaged one goes to corrupt/.
    pub fn claim(&self, place: &Place) -> Result<Entry, Error> {
        let path = self.root.join(place.path());
        let entry = open_entry(&path, true).and_then(|file| {
            take(&file, &path)?;
            Entry::read(file, place.clone())
        });
        match entry {
            Ok(mut entry) => {
                entry.verify()?;
                self.rename(&mut entry, Place::Work(place.id().clone()))?;
                Ok(entry)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts an entry off until `due`.
    pub fn defer(&self, entry: &mut Entry, due: u64) -> Result<(), Error> {
        let id = entry.place.id().clone();
        self.rename(entry, Place::Deferred(due, id))
    }

    /// Puts off what can't be opened now: by its name alone, whatever is in it. Work that a killed
    /// runner left stays where it is.
    pub fn postpone(&self, place: &Place, due: u64) -> io::Result<()> {
        match place {
            Place::Incoming(id) | Place::Deferred(_, id) => {
                self.rename_file(place, &Place::Deferred(due, id.clone()))
            }
            _ => Ok(()),
        }
    }

    /// Removes an entry whose every recipient is done or was returned.
    pub fn remove(&self, entry: &Entry) -> io::Result<()> {
        fs::remove_file(self.root.join(entry.place.path()))
    }

    /// Keeps a damaged file, or one that is not ours, for the operator.
    pub fn set_aside(&self, place: &Place) -> io::Result<()> {
        self.set_aside_file(&place.path())
    }

    /// As [`Spool::set_aside`], for any file below the root.
    pub fn set_aside_file(&self, path: &Path) -> io::Result<()> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        for number in 0..1000_u32 {
            let name = if number == 0 { name.clone() } else { format!("{name}.{number}") };
            let to = self.root.join("corrupt").join(name);
            let from = self.root.join(path);
            match fd::rename_new(nix::fcntl::AT_FDCWD, &from, &to) {
                Err(nix::Error::EEXIST) => {}
                done => return Ok(done?),
            }
        }
        Err(nix::Error::EEXIST.into())
    }

    fn rename(&self, entry: &mut Entry, to: Place) -> Result<(), Error> {
        if entry.place == to {
            return Ok(());
        }
        self.rename_file(&entry.place, &to)?;
        entry.place = to;
        Ok(())
    }

    fn rename_file(&self, from: &Place, to: &Place) -> io::Result<()> {
        let (from, to) = (self.root.join(from.path()), self.root.join(to.path()));
        Ok(fd::rename_new(nix::fcntl::AT_FDCWD, &from, &to)?)
    }
}

#[cfg(test)]
mod tests;
