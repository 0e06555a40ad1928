//! What an operator asks of a mailbox: what it is like, whether all is well, an index made anew.

use std::path::PathBuf;

use super::index::{Directory, ENDING, Index, Opened};
use super::store::{Extent, Status, Store};
use super::uids::Uid;
use super::{Error, MaildirStore, Mbox, MboxStore, Place, maildir, names_maildir};

/// Is told how much of how much has been looked at.
pub type Tell<'a> = &'a mut dyn FnMut(u64, u64);

/// An open mailbox, for an operator.
#[derive(Debug)]
pub enum Inspected {
    /// One file.
    Mbox(Box<MboxStore>),
    /// A directory with a file for each message.
    Maildir(Box<MaildirStore>),
}

/// What a mailbox is like.
#[derive(Clone, Debug)]
pub struct Stats {
    /// Its numbers.
    pub status: Status,
    /// Its keywords.
    pub keywords: Vec<String>,
    /// The index, and its bytes; `None` where there can't be one.
    pub index: Option<(PathBuf, u64)>,
    /// How many messages have marks that only the index has.
    pub marks_in_index: usize,
    /// How many messages have UIDs that only the index has.
    pub uids_in_index: usize,
}

/// What was found in a mailbox.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// What was mended on the way, as by any program that opens the mailbox.
    pub mended: Vec<String>,
    /// What is wrong.
    pub faults: Vec<String>,
    /// How many messages there are.
    pub messages: usize,
}

/// Looks at a mailbox and all that belongs to it.
pub fn check(place: Place, tell: Tell<'_>) -> Result<Findings, Error> {
    let mut findings = Findings::default();
    let is_maildir = is_maildir(&place);
    let (index, opened) = Index::open(Directory::new(&place.index, &place.path, place.owner))?;
    let index = index.path();
    let shown = index.display();
    match opened {
        Opened::Loaded => {}
        Opened::Missing => findings.mended.push(format!("{shown} was missing, and was made")),
        // UIDs and marks may be others now.
        Opened::Damaged(why) => {
            findings.faults.push(format!("{shown} was damaged ({why}), and was made anew"));
        }
    }
    if !is_maildir {
        let (pending, set_aside) = Mbox::left_over(&place)?;
        findings
            .mended
            .extend(pending.map(|what| format!("{what} had been interrupted, and was finished")));
        if set_aside {
            let bad = Directory::new(&place.index, &place.path, place.owner).path_of(".redo.bad");
            findings.faults.push(format!(
                "{} is a journal of an interrupted removal that did not fit the mailbox; see whether \
                 messages are there twice, and remove it",
                bad.display()
            ));
        }
    }
    let mut inspected = Inspected::open(place)?;
    // Of a damaged index it has been said.
    let before = findings.faults.len();
    let found = match &mut inspected {
        Inspected::Mbox(store) => store.faults(tell)?,
        Inspected::Maildir(store) => store.faults(tell)?,
    };
    findings.faults.extend(found);
    let warnings = inspected.store_mut().take_warnings();
    if before == 0 {
        findings.faults.extend(warnings);
    }
    findings.messages = inspected.store().status().messages;
    Ok(findings)
}

impl Inspected {
    /// Opens the mailbox at this place.
    pub fn open(place: Place) -> Result<Self, Error> {
        if is_maildir(&place) {
            Ok(Self::Maildir(Box::new(MaildirStore::open(place)?)))
        } else {
            Ok(Self::Mbox(Box::new(MboxStore::open(place)?)))
        }
    }

    fn index(&self) -> &Index {
        match self {
            Self::Mbox(store) => store.index(),
            Self::Maildir(store) => store.index(),
        }
    }

    fn store(&self) -> &dyn Store {
        match self {
            Self::Mbox(store) => store.as_ref(),
            Self::Maildir(store) => store.as_ref(),
        }
    }

    fn store_mut(&mut self) -> &mut dyn Store {
        match self {
            Self::Mbox(store) => store.as_mut(),
            Self::Maildir(store) => store.as_mut(),
        }
    }

    /// What it is called.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Mbox(_) => "mbox",
            Self::Maildir(_) => "Maildir",
        }
    }

    /// What it is like.
    pub fn stats(&self) -> Result<Stats, Error> {
        let (store, index) = (self.store(), self.index());
        let size = index.directory().look(ENDING)?.map_or(0, |found| found.size);
        let (status, messages) = (store.status(), store.messages()?);
        let count = |is: fn(&Extent) -> bool| messages.iter().filter(|m| is(&m.extent)).count();
        let (marks_in_index, uids_in_index) = match self {
            Self::Mbox(_) => (count(|at| at.unwritten), count(|at| !at.named)),
            // A mark is made in the file's name.
            Self::Maildir(_) => (0, status.messages),
        };
        Ok(Stats {
            status,
            keywords: store.keywords().to_vec(),
            index: index.is_kept().then(|| (index.path(), size)),
            marks_in_index,
            uids_in_index,
        })
    }

    /// Makes the index anew from the mailbox.
    pub fn rebuild(&mut self, tell: Tell<'_>) -> Result<(), Error> {
        match self {
            Self::Mbox(store) => store.rebuild(tell),
            Self::Maildir(store) => store.rebuild(),
        }
    }

    /// What the operator should know of what was found, since the last call.
    pub fn take_warnings(&mut self) -> Vec<String> {
        self.store_mut().take_warnings()
    }
}

fn is_maildir(place: &Place) -> bool {
    names_maildir(&place.path) || maildir::is_at(&place.path)
}

/// How many there are, and the first of them.
pub(super) fn first_of(mut uids: impl Iterator<Item = Uid>) -> Option<(usize, Uid)> {
    let first = uids.next()?;
    Some((uids.count().saturating_add(1), first))
}

#[cfg(test)]
#[path = "inspect_tests.rs"]
mod tests;
