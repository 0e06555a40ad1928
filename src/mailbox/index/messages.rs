//! The messages that an index knows, in pages: one that nobody asks for is not read.
//!
//! A page stands in the file until a message of it changes; then it is in memory, up to the next
//! snapshot. What is asked most is known of all pages: how many messages there are, their UIDs, how
//! many are not seen. Of those that stand in the file the one that was read last is kept.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::PathBuf;
use std::rc::Rc;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::Damaged;
use super::codec::{MESSAGE, Reader};
use super::journal::read_full;
use crate::mailbox::Error;
use crate::mailbox::store::{Flags, Message};
use crate::mailbox::uids::{Uid, UidSet, place_of};

/// Messages of a full page.
pub const PAGE: usize = 256;

/// What is known of the messages of a page together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The smallest UID.
    pub first: Uid,
    /// The largest.
    pub last: Uid,
    /// How many messages there are.
    pub count: u32,
    /// How many are not `\Seen`.
    pub unseen: u32,
    /// The UID of the first of these; 0 where there is none.
    pub first_unseen: Uid,
    /// How many are `\Deleted`.
    pub deleted: u32,
    /// How many have marks that can be written into the mailbox, and are not.
    pub to_write: u32,
    /// Of how many the mailbox itself has not the UID.
    pub unnamed: u32,
    /// The largest MODSEQ.
    pub modseq: u64,
    /// Where the one begins that stands last in the file.
    pub start: u64,
    /// The octets of all.
    pub size: u64,
}

impl Summary {
    /// Of these messages.
    pub fn of(messages: &[Message]) -> Self {
        let mut all = Self::default();
        for message in messages {
            all.add(message);
        }
        all
    }

    fn add(&mut self, message: &Message) {
        let is_unseen = !message.marks.flags.has(Flags::SEEN);
        let extent = &message.extent;
        self.join(&Self {
            first: message.uid,
            last: message.uid,
            count: 1,
            unseen: is_unseen.into(),
            first_unseen: if is_unseen { message.uid } else { 0 },
            deleted: message.marks.flags.has(Flags::DELETED).into(),
            to_write: (extent.unwritten && !extent.no_room).into(),
            unnamed: (!extent.named).into(),
            modseq: message.modseq,
            start: extent.start,
            size: message.size,
        });
    }

    /// Takes in what is known of messages with larger UIDs.
    fn join(&mut self, other: &Self) {
        if self.count == 0 {
            self.first = other.first;
        }
        if self.first_unseen == 0 {
            self.first_unseen = other.first_unseen;
        }
        self.last = other.last;
        self.count = self.count.saturating_add(other.count);
        self.unseen = self.unseen.saturating_add(other.unseen);
        self.deleted = self.deleted.saturating_add(other.deleted);
        self.to_write = self.to_write.saturating_add(other.to_write);
        self.unnamed = self.unnamed.saturating_add(other.unnamed);
        self.modseq = self.modseq.max(other.modseq);
        self.start = self.start.max(other.start);
        self.size = self.size.saturating_add(other.size);
    }
}

/// A page of messages.
#[derive(Clone, Debug)]
pub struct Page {
    /// What is known of them.
    pub summary: Summary,
    /// Where they are.
    pub held: Held,
}

/// Where the messages of a page are.
#[derive(Clone, Debug)]
pub enum Held {
    /// In the file: from where, and the checksum.
    Stored {
        /// The offset.
        at: u64,
        /// Of its bytes.
        sum: u64,
    },
    /// In memory.
    Here(Vec<Message>),
}

/// The file that pages stand in.
#[derive(Debug)]
pub struct Source {
    /// It; nobody writes where the pages are.
    pub file: Rc<File>,
    /// What it is called.
    pub path: PathBuf,
    /// What the checksums are seeded with.
    pub seed: u64,
    /// The bits of keywords that have a name.
    pub keywords: u64,
}

/// The messages of a mailbox.
#[derive(Clone, Debug, Default)]
pub struct Messages {
    uids: UidSet,
    count: usize,
    pages: Vec<Page>,
    source: Option<Rc<Source>>,
    /// The page that was read last, by where it stands; none that is changed.
    last: RefCell<Option<(u64, Rc<Vec<Message>>)>>,
    /// The place of the page that was asked for last.
    near: Cell<usize>,
    damaged: Cell<Option<Damaged>>,
}

/// A page that can be looked at.
enum Shown<'a> {
    Here(&'a [Message]),
    Read(Rc<Vec<Message>>),
}

impl Deref for Shown<'_> {
    type Target = [Message];

    fn deref(&self) -> &[Message] {
        match self {
            Self::Here(messages) => messages,
            Self::Read(messages) => messages,
        }
    }
}

impl Messages {
    /// Those of pages, most of which stand in `source`; `uids` are theirs.
    pub fn stored(uids: UidSet, pages: Vec<Page>, source: Source) -> Self {
        let count = count(&pages);
        let source = Some(Rc::new(source));
        Self { uids, count, pages, source, ..Self::default() }
    }

    /// Their UIDs.
    pub fn uids(&self) -> &UidSet {
        &self.uids
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// What is known of all of them.
    pub fn summary(&self) -> Summary {
        let mut all = Summary::default();
        self.pages.iter().for_each(|page| all.join(&page.summary));
        all
    }

    /// The pages.
    pub fn pages(&self) -> &[Page] {
        &self.pages
    }

    /// How many pages are in memory, all of which have to be made anew of a journal by who opens it.
    pub fn pages_here(&self) -> usize {
        self.pages.iter().filter(|page| matches!(page.held, Held::Here(_))).count()
    }

    /// What was found to be wrong with a page that was read.
    pub fn damaged(&self) -> Option<Damaged> {
        self.damaged.get()
    }

    /// Message `uid`, if it is there.
    pub fn get(&self, uid: Uid) -> Result<Option<Message>, Error> {
        let Some(page) = self.page_of(uid) else {
            return Ok(None);
        };
        let messages = self.read(page)?;
        let at = place_of(&messages, uid, |message| message.uid);
        Ok(at.and_then(|at| messages.get(at)).copied())
    }

    fn page_of(&self, uid: Uid) -> Option<&Page> {
        let is_there = |page: &&Page| (page.summary.first..=page.summary.last).contains(&uid);
        // Nearly always it is the same one as before.
        let near = self.pages.get(self.near.get()).filter(is_there);
        near.or_else(|| {
            let at = self.pages.partition_point(|page| page.summary.last < uid);
            self.near.set(at);
            self.pages.get(at).filter(is_there)
        })
    }

    /// The one with the largest UID.
    pub fn last(&self) -> Result<Option<Message>, Error> {
        self.uids.last().map_or(Ok(None), |last| self.get(last))
    }

    /// All of them at once.
    pub fn all(&self) -> Result<Vec<Message>, Error> {
        let mut all = Vec::with_capacity(self.len());
        for page in &self.pages {
            all.extend_from_slice(&self.read(page)?);
        }
        Ok(all)
    }

    /// All of them, as they stand in the file.
    pub fn in_file_order(&self) -> Result<Vec<Message>, Error> {
        let mut all = self.all()?;
        all.sort_by_key(|message| message.extent.start);
        Ok(all)
    }

    /// All of them, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Result<Message, Error>> {
        self.on_pages(|_| true)
    }

    /// Those of `uids`, ascending.
    pub fn within<'a>(
        &'a self,
        uids: &'a UidSet,
    ) -> impl Iterator<Item = Result<Message, Error>> + 'a {
        let all = self.on_pages(|page| uids.meets(&(page.first..=page.last)));
        all.filter(|message| message.as_ref().map_or(true, |message| uids.contains(message.uid)))
    }

    /// Those of the pages that are meant, ascending.
    pub fn on_pages<'a>(
        &'a self,
        is_meant: impl Fn(&Summary) -> bool + 'a,
    ) -> impl Iterator<Item = Result<Message, Error>> + 'a {
        let meant = self.pages.iter().filter(move |page| is_meant(&page.summary));
        meant.flat_map(|page| {
            let (messages, error) = match self.read(page) {
                Ok(messages) => (messages, None),
                Err(error) => (Shown::Here(&[]), Some(Err(error))),
            };
            let each = (0..messages.len()).map_while(move |at| messages.get(at).copied().map(Ok));
            each.chain(error)
        })
    }

    /// Puts one with a larger UID behind.
    pub fn push(&mut self, message: Message) {
        self.uids.insert(message.uid);
        self.count = self.count.saturating_add(1);
        if let Some(Page { summary, held: Held::Here(messages) }) = self.pages.last_mut()
            && messages.len() < PAGE
        {
            summary.add(&message);
            messages.push(message);
        } else {
            let summary = Summary::of(&[message]);
            self.pages.push(Page { summary, held: Held::Here(vec![message]) });
        }
    }

    /// Does something to those of `uids`.
    pub fn change(
        &mut self,
        uids: &UidSet,
        mut action: impl FnMut(&mut Message),
    ) -> Result<(), Error> {
        self.change_pages(
            |page| uids.meets(&(page.first..=page.last)),
            |message| {
                if uids.contains(message.uid) {
                    action(message);
                }
            },
        )
    }

    /// Does something to all of the pages that are meant. UIDs stay as they are.
    pub fn change_pages(
        &mut self,
        is_meant: impl Fn(&Summary) -> bool,
        mut action: impl FnMut(&mut Message),
    ) -> Result<(), Error> {
        for at in 0..self.pages.len() {
            if self.pages.get(at).is_some_and(|page| is_meant(&page.summary))
                && let Some((summary, messages)) = self.take(at)?
            {
                messages.iter_mut().for_each(&mut action);
                *summary = Summary::of(messages);
            }
        }
        Ok(())
    }

    /// Removes those of `uids`, and says which were there.
    pub fn remove(&mut self, uids: &UidSet) -> Result<UidSet, Error> {
        let gone = self.uids.and(uids);
        for at in 0..self.pages.len() {
            let Some(Summary { first, last, count, .. }) =
                self.pages.get(at).map(|page| page.summary)
            else {
                break;
            };
            let here = UidSet::from(first..=last).and(&gone);
            if here.is_empty() {
                continue;
            }
            if here.len() == u64::from(count) {
                // Nobody need look at them.
                self.last.take();
                if let Some(page) = self.pages.get_mut(at) {
                    *page = Page { summary: Summary::default(), held: Held::Here(Vec::new()) };
                }
            } else if let Some((summary, messages)) = self.take(at)? {
                messages.retain(|message| !here.contains(message.uid));
                *summary = Summary::of(messages);
            }
        }
        self.pages.retain(|page| page.summary.count > 0);
        self.count = count(&self.pages);
        self.uids = self.uids.minus(&gone);
        Ok(gone)
    }

    /// Removes all whose pages can't be read.
    pub fn remove_unreadable(&mut self) {
        self.last.take();
        let mut pages = std::mem::take(&mut self.pages);
        pages.retain(|page| self.read(page).is_ok());
        let mut uids = UidSet::new();
        for page in &pages {
            let here = UidSet::from(page.summary.first..=page.summary.last).and(&self.uids);
            here.ranges().iter().for_each(|range| uids.insert_range(range.clone()));
        }
        (self.count, self.pages, self.uids) = (count(&pages), pages, uids);
    }

    /// A page's messages in memory, to be changed.
    fn take(&mut self, at: usize) -> Result<Option<(&mut Summary, &mut Vec<Message>)>, Error> {
        let read = match self.pages.get(at).map(|page| self.read(page)) {
            Some(Ok(Shown::Read(messages))) => Some(messages),
            Some(Err(error)) => return Err(error),
            _ => None,
        };
        let Some(page) = self.pages.get_mut(at) else {
            return Ok(None);
        };
        if let Some(messages) = read {
            self.last.take();
            page.held = Held::Here(Rc::unwrap_or_clone(messages));
        }
        Ok(match &mut page.held {
            Held::Here(messages) => Some((&mut page.summary, messages)),
            Held::Stored { .. } => None,
        })
    }

    fn read<'a>(&self, page: &'a Page) -> Result<Shown<'a>, Error> {
        let (at, sum) = match &page.held {
            Held::Here(messages) => return Ok(Shown::Here(messages)),
            Held::Stored { at, sum } => (*at, *sum),
        };
        let mut last = self.last.borrow_mut();
        if let Some((_, messages)) = last.as_ref().filter(|(of, _)| *of == at) {
            return Ok(Shown::Read(Rc::clone(messages)));
        }
        let Some(source) = &self.source else {
            return Ok(Shown::Here(&[]));
        };
        let mut bytes = vec![0; (page.summary.count as usize).saturating_mul(MESSAGE)];
        let read = read_full(&source.file, &mut bytes, at).map_err(|error| source.fails(error))?;
        let is_whole = read == bytes.len() && xxh3_64_with_seed(&bytes, source.seed) == sum;
        let messages = if is_whole {
            self.messages_of(&bytes, page, source.keywords)
        } else {
            Err(Damaged("the checksum of its messages is wrong"))
        };
        let messages = Rc::new(messages.map_err(|damaged| {
            self.damaged.set(Some(damaged));
            Error::Damaged { path: source.path.clone(), why: damaged.0 }
        })?);
        *last = Some((at, Rc::clone(&messages)));
        Ok(Shown::Read(messages))
    }

    fn messages_of(
        &self,
        bytes: &[u8],
        page: &Page,
        keywords: u64,
    ) -> Result<Vec<Message>, Damaged> {
        let mut reader = Reader(bytes);
        let mut messages = Vec::with_capacity(bytes.len() / MESSAGE);
        while !reader.0.is_empty() {
            let message = reader.message()?;
            if message.marks.keywords & !keywords != 0 {
                return Err(Damaged("a message has a keyword without a name"));
            }
            messages.push(message);
        }
        let uids = UidSet::from(page.summary.first..=page.summary.last);
        let are_known = self.uids.and(&uids).iter().eq(messages.iter().map(|message| message.uid));
        if !are_known || Summary::of(&messages) != page.summary {
            return Err(Damaged("its messages are not what it says of them"));
        }
        Ok(messages)
    }
}

fn count(pages: &[Page]) -> usize {
    pages.iter().fold(0, |sum, page| sum.saturating_add(page.summary.count as usize))
}

impl Source {
    fn fails(&self, error: io::Error) -> Error {
        Error::Index { path: self.path.clone(), why: "can't be read".into(), source: Some(error) }
    }
}

impl PartialEq for Messages {
    fn eq(&self, other: &Self) -> bool {
        self.uids == other.uids && self.all().ok() == other.all().ok()
    }
}

impl Eq for Messages {}

#[cfg(test)]
#[path = "messages_tests.rs"]
mod tests;
