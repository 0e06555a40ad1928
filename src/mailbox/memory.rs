//! A mailbox without files: for tests of what stands on a [`Store`], and to say what a store is.
//!
//! All handles that come of one [`Memory::new`] are on the same mailbox.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::UNIX_EPOCH;

use xxhash_rust::xxh3::xxh3_128;

use super::crlf::{Crlf, Measure};
use super::index::{Change, State, Trouble};
use super::store::{
    Arrival, Changes, Extent, Flags, Marking, Marks, Message, Status, Store, Version,
};
use super::uids::{Uid, UidSet};
use super::{Error, NewMessage};

/// A handle on a mailbox in memory.
#[derive(Debug)]
pub struct Memory {
    mailbox: Rc<RefCell<Mailbox>>,
    /// What this handle shows.
    view: State,
}

#[derive(Debug)]
struct Mailbox {
    state: State,
    /// As clients get them.
    texts: BTreeMap<Uid, Rc<[u8]>>,
}

impl Memory {
    /// A new mailbox, empty.
    pub fn new(uid_validity: u32) -> Self {
        let state = State::new(uid_validity, 1);
        let mailbox = Mailbox { state: state.clone(), texts: BTreeMap::new() };
        Self { mailbox: Rc::new(RefCell::new(mailbox)), view: state }
    }

    /// One more handle on the same mailbox.
    #[must_use]
    pub fn another(&self) -> Self {
        let view = self.mailbox.borrow().state.clone();
        Self { mailbox: Rc::clone(&self.mailbox), view }
    }

    fn apply(&mut self, changes: Vec<Change>) -> Result<(), Error> {
        let mut mailbox = self.mailbox.borrow_mut();
        for change in changes {
            mailbox.state.apply(change).map_err(|trouble| failed(&trouble))?;
        }
        self.view = mailbox.state.clone();
        Ok(())
    }
}

fn failed(trouble: &Trouble) -> Error {
    Error::Index { path: PathBuf::from("memory"), why: trouble.to_string(), source: None }
}

/// The message as clients get it.
fn text(message: &NewMessage) -> io::Result<Vec<u8>> {
    let (mut crlf, mut text) = (Crlf::default(), Vec::new());
    crlf.push(&message.trace, &mut text);
    message.text.each(&mut |bytes| {
        crlf.push(bytes, &mut text);
        Ok(())
    })?;
    Ok(text)
}

impl Store for Memory {
    fn sync(&mut self) -> Result<(), Error> {
        self.view = self.mailbox.borrow().state.clone();
        Ok(())
    }

    fn status(&self) -> Status {
        self.view.status()
    }

    fn version(&self) -> Version {
        self.view.version()
    }

    fn uids(&self) -> &UidSet {
        self.view.messages.uids()
    }

    fn messages(&self) -> Result<Vec<Message>, Error> {
        self.view.messages.all()
    }

    fn message(&self, uid: Uid) -> Result<Option<Message>, Error> {
        self.view.messages.get(uid)
    }

    fn keywords(&self) -> &[String] {
        &self.view.keywords
    }

    fn read(
        &mut self,
        uid: Uid,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        let text = self.mailbox.borrow().texts.get(&uid).map(Rc::clone).ok_or(Error::Changed)?;
        let at = |offset| usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        match text.get(at(range.start)..at(range.end)) {
            None | Some([]) => Ok(()),
            Some(piece) => sink(piece).map_err(Error::Sink),
        }
    }

    fn append(&mut self, arrivals: &[Arrival]) -> Result<Vec<Uid>, Error> {
        let texts = arrivals.iter().map(|arrival| text(&arrival.message));
        let texts = texts.collect::<io::Result<Vec<_>>>().map_err(Error::Sink)?;
        let mailbox = self.mailbox.borrow();
        let uids = mailbox.state.new_uids(arrivals.len()).ok_or(Error::TooMany(arrivals.len()))?;
        let mut changes = Vec::new();
        let names = arrivals.iter().flat_map(|arrival| &arrival.keywords).map(String::as_str);
        mailbox.state.make_keywords(names, &mut changes);
        let modseq = mailbox.state.next_modseq();
        drop(mailbox);
        self.apply(changes)?;
        let mut changes = Vec::new();
        for ((uid, arrival), text) in uids.clone().zip(arrivals).zip(&texts) {
            let names = arrival.keywords.iter().map(String::as_str);
            let keywords = self.view.make_keywords(names, &mut Vec::new());
            let mut measure = Measure::default();
            measure.push(text);
            let header = measure.header().unwrap_or(measure.size());
            let date = arrival.message.at.duration_since(UNIX_EPOCH).map_or(0, |at| at.as_secs());
            changes.push(Change::New(Message {
                uid,
                header: u32::try_from(header).unwrap_or(u32::MAX),
                marks: Marks { flags: arrival.flags, keywords },
                modseq,
                size: measure.size(),
                date: i64::try_from(date).unwrap_or(0),
                digest: xxh3_128(text).to_be_bytes(),
                extent: Extent::default(),
            }));
        }
        let texts = uids.clone().zip(texts.into_iter().map(Rc::from));
        self.mailbox.borrow_mut().texts.extend(texts);
        self.apply(changes)?;
        Ok(uids.collect())
    }

    fn mark(
        &mut self,
        uids: &UidSet,
        marking: Marking,
        flags: Flags,
        keywords: &[String],
        unchanged_since: Option<u64>,
    ) -> Result<UidSet, Error> {
        self.sync()?;
        let plan = self.view.plan_mark(uids, marking, flags, keywords, unchanged_since)?;
        let refused = plan.refused.clone();
        self.apply(plan.changes(marking, self.view.next_modseq()))?;
        Ok(refused)
    }

    fn expunge(&mut self, uids: &UidSet) -> Result<UidSet, Error> {
        self.sync()?;
        let gone = self.view.messages.uids().and(uids);
        if !gone.is_empty() {
            self.mailbox.borrow_mut().texts.retain(|uid, _| !gone.contains(*uid));
            let modseq = self.view.next_modseq();
            self.apply(vec![Change::Expunge { uids: gone.clone(), modseq }])?;
        }
        Ok(gone)
    }

    fn changes_since(&self, modseq: u64) -> Result<Changes, Error> {
        self.view.changes_since(modseq)
    }

    fn claim_recent(&mut self) -> Result<Uid, Error> {
        self.sync()?;
        let before = self.view.recent;
        self.apply(vec![Change::Recent(self.view.uid_next.saturating_sub(1))])?;
        Ok(before)
    }

    fn watch(&mut self) -> Result<Option<BorrowedFd<'_>>, Error> {
        Ok(None)
    }

    fn checkpoint(&mut self) -> Result<(), Error> {
        Ok(())
    }

    fn take_warnings(&mut self) -> Vec<String> {
        Vec::new()
    }
}
