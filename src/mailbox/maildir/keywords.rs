//! The names of keywords that are small letters in file names: `dovecot-keywords`, lines of a
//! number (0 is `a`) and a name.
//!
//! The file is Dovecot's, and is written as Dovecot does: a new one is made as
//! `dovecot-keywords.lock`, which keeps others out, and gets the name. A keyword that has no letter
//! (there are 26, and somebody may be writing just now) is in the index only.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

use nix::fcntl::{OFlag, openat, renameat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};

use super::name::{self, FLAGS};
use crate::mailbox::index::State;
use crate::mailbox::moment::moment;
use crate::mailbox::store::is_keyword;
use crate::mailbox::store::{Flags, Marks};

const FILE: &str = "dovecot-keywords";
const LOCK: &str = "dovecot-keywords.lock";

/// A file that is larger is none of Dovecot's.
const MOST_BYTES: u64 = 64 * 1024;

/// The keyword that has a letter everywhere: `P`, passed.
const FORWARDED: &str = "$Forwarded";

/// Which letter is which keyword.
#[derive(Debug, Default)]
pub(super) struct Keywords {
    names: [Option<String>; 26],
    /// The file as it was read: inode, seconds and nanoseconds of its change.
    read: Option<(u64, i64, i64)>,
}

impl Keywords {
    /// Reads the file if it is another one than before.
    pub fn refresh(&mut self, root: &OwnedFd) -> io::Result<()> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(root, FILE, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(nix::Error::ENOENT) => {
                *self = Self::default();
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let found = file.metadata()?;
        let found = found.is_file().then(|| (found.ino(), found.ctime(), found.ctime_nsec()));
        if found.is_some() && found == self.read {
            return Ok(());
        }
        let mut text = Vec::new();
        if found.is_some() {
            file.take(MOST_BYTES).read_to_end(&mut text)?;
        }
        *self = Self { names: Self::parse(&text), read: found };
        Ok(())
    }

    fn parse(text: &[u8]) -> [Option<String>; 26] {
        let mut names: [Option<String>; 26] = Default::default();
        for line in text.split(|byte| *byte == b'\n') {
            let Some((number, name)) =
                str::from_utf8(line).ok().and_then(|line| line.split_once(' '))
            else {
                continue;
            };
            let known = names.iter().flatten().any(|other| other.eq_ignore_ascii_case(name));
            if let Ok(number) = number.parse::<usize>()
                && let Some(place) = names.get_mut(number)
                && is_keyword(name)
                && !known
            {
                *place = Some(name.to_owned());
            }
        }
        names
    }

    /// Gives letters to those of these keywords that have none, as far as can be.
    pub fn add<'a>(
        &mut self,
        root: &OwnedFd,
        wanted: impl Iterator<Item = &'a str>,
    ) -> io::Result<()> {
        let lacks = |names: &[Option<String>; 26], name: &str| {
            !names.iter().flatten().any(|other| other.eq_ignore_ascii_case(name))
        };
        let wanted: Vec<&str> = wanted.filter(|name| lacks(&self.names, name)).collect();
        if wanted.is_empty() || self.names.iter().all(Option::is_some) {
            return Ok(());
        }
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        moment();
        let mut file = match openat(root, LOCK, flags, Mode::S_IRUSR | Mode::S_IWUSR) {
            Ok(file) => File::from(file),
            Err(nix::Error::EEXIST) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let written = self.refresh(root).and_then(|()| {
            let mut names = self.names.clone();
            for name in wanted {
                if lacks(&names, name)
                    && let Some(free) = names.iter_mut().find(|place| place.is_none())
                {
                    *free = Some(name.to_owned());
                }
            }
            let mut text = Vec::new();
            for (number, name) in names.iter().enumerate() {
                if let Some(name) = name {
                    writeln!(text, "{number} {name}")?;
                }
            }
            moment();
            file.write_all(&text)?;
            file.sync_all()?;
            moment();
            renameat(root, LOCK, root, FILE)?;
            fsync(root)?;
            self.names = names;
            self.read = None;
            Ok(())
        });
        if written.is_err() {
            let _ = unlinkat(root, LOCK, UnlinkatFlags::NoRemoveDir);
        }
        written
    }

    /// The keywords that letters of these stand for.
    pub fn named<'a>(&'a self, letters: &'a [u8]) -> impl Iterator<Item = &'a str> {
        letters.iter().filter_map(|letter| match letter {
            b'P' => Some(FORWARDED),
            b'a'..=b'z' => self.names.get(usize::from(letter - b'a'))?.as_deref(),
            _ => None,
        })
    }

    /// What letters mean in a mailbox with these keywords.
    pub fn letters(&self, state: &State) -> Letters {
        let bit = |name: &str| state.keyword(name).unwrap_or(0);
        let mut keywords: Vec<(u8, u64)> = vec![(b'P', bit(FORWARDED))];
        for (letter, name) in (b'a'..=b'z').zip(&self.names) {
            keywords.push((letter, name.as_deref().map_or(0, bit)));
        }
        keywords.retain(|(_, bit)| *bit != 0);
        let mask = keywords.iter().fold(0, |mask, (_, bit)| mask | bit);
        Letters { keywords, mask }
    }
}

/// What the letters of a Maildir's names mean to the index.
#[derive(Debug)]
pub(super) struct Letters {
    keywords: Vec<(u8, u64)>,
    /// The keywords that names can tell of.
    pub mask: u64,
}

impl Letters {
    /// What a name says.
    pub fn marks(&self, name: &[u8]) -> Marks {
        let mut marks = Marks::default();
        for letter in name::letters(name).0 {
            for (_, flag) in FLAGS.iter().filter(|(other, _)| other == letter) {
                marks.flags = marks.flags | *flag;
            }
            for (_, bit) in self.keywords.iter().filter(|(other, _)| other == letter) {
                marks.keywords |= bit;
            }
        }
        marks
    }

    /// The name that says this. What letters of others mean, stays.
    pub fn name(&self, name: &[u8], marks: Marks) -> Vec<u8> {
        let is_ours = |letter: u8| {
            FLAGS.iter().any(|(other, _)| *other == letter)
                || self.keywords.iter().any(|(other, _)| *other == letter)
        };
        let kept = name::letters(name).0.iter().copied().filter(|letter| !is_ours(*letter));
        let flags = FLAGS.iter().filter(|(_, flag)| marks.flags.has(*flag)).map(|(l, _)| *l);
        let keywords = self.keywords.iter().filter(|(_, bit)| marks.keywords & bit != 0);
        name::with_letters(name, kept.chain(flags).chain(keywords.map(|(letter, _)| *letter)))
    }

    /// What a message is marked with whose name says `named`, and the index `known`.
    pub fn joined(&self, named: Marks, known: Marks) -> Marks {
        let flags: Flags = named.flags;
        Marks { flags, keywords: named.keywords | (known.keywords & !self.mask) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::Keywords;
    use crate::mailbox::index::{Change, State};
    use crate::mailbox::store::{Flags, Marks};

    #[test]
    fn letters_are_shared_with_dovecot_and_a_name_keeps_what_it_means_to_others() {
        let place = tempfile::tempdir().unwrap();
        let root = crate::mailbox::directory::open_directory(place.path()).unwrap();
        let file = place.path().join("dovecot-keywords");
        fs::write(&file, "0 work\n2 $Junk\n1 WORK\n99 x\nnonsense\n3 a(b\n").unwrap();
        let mut keywords = Keywords::default();
        keywords.refresh(&root).unwrap();
        assert!(keywords.named(b"FPabcd").eq(["$Forwarded", "work", "$Junk"]));
        keywords.add(&root, ["$junk", "new", "New"].into_iter()).unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "0 work\n1 new\n2 $Junk\n");
        let mut state = State::new(1, 1);
        for name in ["none", "New", "$forwarded"] {
            state.apply(Change::Keyword(name.into())).unwrap();
        }
        let letters = keywords.letters(&state);
        let marks = letters.marks(b"1.x:2,PSab");
        assert_eq!(marks, Marks { flags: Flags::SEEN, keywords: 6 });
        let other = Marks { flags: Flags::DRAFT, keywords: 1 | 2 };
        assert_eq!(letters.name(b"1.x:2,PSXaz", other), b"1.x:2,DXabz");
        assert_eq!(letters.joined(marks, other).keywords, 7);
        // Somebody else is at it.
        fs::write(place.path().join("dovecot-keywords.lock"), "").unwrap();
        keywords.add(&root, ["newer"].into_iter()).unwrap();
        assert!(keywords.named(b"d").next().is_none());
        fs::write(&file, "3 newer\n").unwrap();
        keywords.refresh(&root).unwrap();
        assert!(keywords.named(b"ad").eq(["newer"]));
    }
}
