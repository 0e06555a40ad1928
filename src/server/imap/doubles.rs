//! What tests of IMAP make mailboxes of.

use std::io;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use crate::config::LockKind;
use crate::mailbox::store::{Arrival, Changes, Flags, Marking, Message, Status, Store, Version};
use crate::mailbox::uids::{Uid, UidSet};
use crate::mailbox::{Error, NewMessage, Place, Stager};

/// A mailbox below a directory.
pub fn place(home: &Path) -> Place {
    Place {
        path: home.join("box"),
        index: home.join("index"),
        owner: nix::unistd::geteuid(),
        locks: vec![LockKind::Fcntl],
        libexec: "/nonexistent".into(),
        lock_timeout: Duration::from_secs(1),
        quota: 0,
    }
}

/// A message that came so many seconds after 1970.
pub fn arrival(text: impl AsRef<[u8]>, at: u64) -> Arrival {
    let mut stager = Stager::of_mailbox(u64::MAX);
    stager.push(text.as_ref()).unwrap();
    let text = Rc::new(stager.finish().unwrap());
    let at = UNIX_EPOCH + Duration::from_secs(at);
    let message = NewMessage { sender: Vec::new(), at, trace: Vec::new(), text };
    Arrival { message, flags: Flags::default(), keywords: Vec::new() }
}

/// What reads of a mailbox go through.
pub trait Reader {
    /// As [`Store::read`], of `store`.
    fn read(
        &mut self,
        store: &mut dyn Store,
        uid: Uid,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error>;
}

/// A mailbox that is read through something.
pub struct Through<R> {
    pub inner: Box<dyn Store>,
    pub reader: R,
}

impl<R: Reader> Store for Through<R> {
    fn sync(&mut self) -> Result<(), Error> {
        self.inner.sync()
    }
    fn status(&self) -> Status {
        self.inner.status()
    }
    fn version(&self) -> Version {
        self.inner.version()
    }
    fn uids(&self) -> &UidSet {
        self.inner.uids()
    }
    fn messages(&self) -> Result<Vec<Message>, Error> {
        self.inner.messages()
    }
    fn message(&self, uid: Uid) -> Result<Option<Message>, Error> {
        self.inner.message(uid)
    }
    fn keywords(&self) -> &[String] {
        self.inner.keywords()
    }
    fn read(
        &mut self,
        uid: Uid,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        self.reader.read(self.inner.as_mut(), uid, range, sink)
    }
    fn append(&mut self, arrivals: &[Arrival]) -> Result<Vec<Uid>, Error> {
        self.inner.append(arrivals)
    }
    fn mark(
        &mut self,
        uids: &UidSet,
        marking: Marking,
        flags: Flags,
        keywords: &[String],
        unchanged_since: Option<u64>,
    ) -> Result<UidSet, Error> {
        self.inner.mark(uids, marking, flags, keywords, unchanged_since)
    }
    fn expunge(&mut self, uids: &UidSet) -> Result<UidSet, Error> {
        self.inner.expunge(uids)
    }
    fn changes_since(&self, modseq: u64) -> Result<Changes, Error> {
        self.inner.changes_since(modseq)
    }
    fn claim_recent(&mut self) -> Result<Uid, Error> {
        self.inner.claim_recent()
    }
    fn watch(&mut self) -> Result<Option<BorrowedFd<'_>>, Error> {
        self.inner.watch()
    }
    fn checkpoint(&mut self) -> Result<(), Error> {
        self.inner.checkpoint()
    }
    fn take_warnings(&mut self) -> Vec<String> {
        self.inner.take_warnings()
    }
}
