//! What neighbours did to a Maildir, as changes of its index.
//!
//! The names of the files are the truth: a message whose file is gone is gone, one whose name says
//! other marks has those, and a file that the index does not know is a new message.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::folder::{Digest, Entry, Folder};
use super::keywords::Letters;
use super::name;
use super::text::{self, Measured};
use crate::mailbox::Error;
use crate::mailbox::index::{Change, Locked, State};
use crate::mailbox::store::{Extent, Flags, Marking, Marks, Message};
use crate::mailbox::uids::{Uid, UidSet};

/// Lists the files, and puts into the index what it does not know. `warnings` gets what the
/// operator should know.
pub(super) fn reconcile(
    folder: &mut Folder,
    locked: &mut Locked<'_>,
    warnings: &mut Vec<String>,
) -> Result<(), Error> {
    let (base, is_settled) = folder.look()?;
    let before = locked.state().messages.all()?;
    folder.list(before.iter().map(|message| &message.digest))?;
    read_keywords(folder, locked)?;
    let state = locked.state();
    let letters = folder.keywords.letters(state);
    let mut changes = known(state, &before, folder, &letters);
    let new = new(state, &before, folder, &letters, warnings)?;
    let any_new = !new.is_empty();
    changes.extend(new);
    // Where a later change might not show, all is listed again.
    if is_settled && base != state.base {
        changes.push(Change::Base(base));
    }
    // UIDs are durable before anybody learns them.
    if changes.is_empty() { Ok(()) } else { locked.commit(changes, any_new) }
}

/// Makes keywords of letters that the index has no keywords for.
fn read_keywords(folder: &mut Folder, locked: &mut Locked<'_>) -> Result<(), Error> {
    let root = &folder.parts.root;
    let refreshed = folder.keywords.refresh(root);
    refreshed.map_err(|error| folder.fail("be read", error))?;
    let mut used: Vec<u8> = Vec::new();
    for entry in folder.files().values() {
        let letters = name::letters(&entry.name).0.iter();
        used.extend(letters.filter(|letter| letter.is_ascii_lowercase() || **letter == b'P'));
        if used.len() > 1000 {
            used.sort_unstable();
            used.dedup();
        }
    }
    used.sort_unstable();
    used.dedup();
    let mut changes = Vec::new();
    locked.state().make_keywords(folder.keywords.named(&used), &mut changes);
    if changes.is_empty() { Ok(()) } else { locked.commit(changes, false) }
}

/// Takes over keywords that have no letter from the index that was there before. The keywords are
/// the same.
pub(super) fn keep_keywords(
    folder: &Folder,
    locked: &mut Locked<'_>,
    old: &State,
) -> Result<(), Error> {
    let lettered = folder.keywords.letters(locked.state()).mask;
    let old = old.messages.iter().filter_map(Result::ok);
    let old = old.map(|message| (message.digest, message.marks.keywords));
    let old: HashMap<Digest, u64> = old.filter(|(_, bits)| bits & !lettered != 0).collect();
    let modseq = locked.state().next_modseq();
    let mut changes = Vec::new();
    for message in locked.state().messages.iter() {
        let message = message?;
        if let Some(keywords) = old.get(&message.digest) {
            let by = Marks { flags: Flags::default(), keywords: keywords & !lettered };
            let uids = UidSet::from(message.uid..=message.uid);
            changes.push(Change::Mark { uids, marking: Marking::Add, by, modseq });
        }
    }
    if changes.is_empty() { Ok(()) } else { locked.commit(changes, true) }
}

/// What became of the messages that the index knows.
fn known(state: &State, messages: &[Message], folder: &Folder, letters: &Letters) -> Vec<Change> {
    let modseq = state.next_modseq();
    let mut gone = UidSet::new();
    let mut marked: BTreeMap<(u8, u64), UidSet> = BTreeMap::new();
    for message in messages {
        match folder.files().get(&message.digest) {
            None => gone.insert(message.uid),
            // Nobody has said anything of it yet.
            Some(entry) if entry.is_new => {}
            Some(entry) => {
                let marks = letters.joined(letters.marks(&entry.name), message.marks);
                if marks != message.marks {
                    let same = marked.entry((marks.flags.bits(), marks.keywords)).or_default();
                    same.insert(message.uid);
                }
            }
        }
    }
    let mut changes = Vec::new();
    if !gone.is_empty() {
        changes.push(Change::Expunge { uids: gone, modseq });
    }
    for ((flags, keywords), uids) in marked {
        let by = Marks { flags: Flags::of_bits(flags), keywords };
        changes.push(Change::Mark { uids, marking: Marking::Replace, by, modseq });
    }
    changes
}

/// The messages that the index does not know, in the order in which they came.
fn new(
    state: &State,
    messages: &[Message],
    folder: &mut Folder,
    letters: &Letters,
    warnings: &mut Vec<String>,
) -> Result<Vec<Change>, Error> {
    let known: HashSet<&Digest> = messages.iter().map(|message| &message.digest).collect();
    let unknown = folder.files().iter().filter(|(digest, _)| !known.contains(digest));
    let mut unknown: Vec<(&Digest, &Entry)> = unknown.collect();
    unknown.sort_by_key(|(_, entry)| name::order(&entry.name));
    let (mut changes, mut unusable) = (Vec::new(), Vec::new());
    let mut uids = state.new_uids(unknown.len()).ok_or(Error::TooMany(unknown.len()))?;
    let modseq = state.next_modseq();
    for (digest, entry) in unknown {
        match measure(folder, entry, warnings)? {
            Some(measured) => {
                let marks = letters.marks(&entry.name);
                let Some(uid) = uids.next() else { break };
                changes.push(Change::New(measured.message(uid, marks, modseq, *digest)));
            }
            None => unusable.push(*digest),
        }
    }
    for digest in unusable {
        folder.forget(&digest);
    }
    Ok(changes)
}

/// None where the file is gone again, or is no message.
fn measure(
    folder: &Folder,
    entry: &Entry,
    warnings: &mut Vec<String>,
) -> Result<Option<Measured>, Error> {
    let file = match text::open(entry.part(&folder.parts), &entry.name) {
        Ok(file) => file,
        Err(nix::Error::ENOENT | nix::Error::ELOOP | nix::Error::ENXIO) => return Ok(None),
        Err(nix::Error::EACCES) => {
            let name = String::from_utf8_lossy(&entry.name);
            warnings.push(format!(
                "{}: {} can't be read, and is left out",
                folder.place.path.display(),
                name.escape_default()
            ));
            return Ok(None);
        }
        Err(error) => return Err(folder.fail("be read", error)),
    };
    text::measure(&file, &entry.name).map_err(|error| folder.fail("be read", error))
}

impl Measured {
    /// The message that it is of.
    pub fn message(self, uid: Uid, marks: Marks, modseq: u64, digest: Digest) -> Message {
        let Self { size, header, date } = self;
        Message { uid, header, marks, modseq, size, date, digest, extent: Extent::default() }
    }
}
