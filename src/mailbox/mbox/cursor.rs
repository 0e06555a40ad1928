//! Where a session reads in a message: what is asked for in parts costs each byte once.

use std::ops::Range;

use super::present::Presenter;
use crate::mailbox::index::Base;
use crate::mailbox::store::Message;
use crate::mailbox::uids::Uid;

/// How much of a message is read under one lock.
pub(super) const CHUNK: u64 = 256 * 1024;

/// A place in a message, as clients see it and as it is stored.
#[derive(Debug)]
pub(super) struct Cursor {
    message: Message,
    presenter: Presenter,
    /// Bytes behind its `From_` line that the presenter has taken.
    taken: u64,
    /// Octets as clients see them before `out`.
    at: u64,
    /// Octets that were not given out yet, behind `given` of them.
    out: Vec<u8>,
    given: usize,
    /// So much was given out before the message was begun anew.
    given_out: u64,
    /// How the file looked when the message was known to stand where the index says.
    base: Option<Base>,
}

impl Cursor {
    /// At the beginning of a message, with the room that another one has left.
    pub fn new(message: &Message, before: Option<Self>) -> Self {
        let mut out = before.map(|before| before.out).unwrap_or_default();
        out.clear();
        Self {
            message: *message,
            presenter: Presenter::new(message.extent.quoted, None),
            taken: 0,
            at: 0,
            out,
            given: 0,
            given_out: 0,
            base: None,
        }
    }

    /// Whether it is known that in a file that looks like this the message stands where the index
    /// says.
    pub fn knows(&self, base: &Base) -> bool {
        self.base.as_ref() == Some(base)
    }

    /// Says so.
    pub fn know(&mut self, base: Base) {
        self.base = Some(base);
    }

    /// The message.
    pub fn uid(&self) -> Uid {
        self.message.uid
    }

    /// Whether it is in this message, stored as it was.
    pub fn is_of(&self, message: &Message) -> bool {
        (self.message.uid, self.message.digest) == (message.uid, message.digest)
    }

    /// The octets before it.
    pub fn at(&self) -> u64 {
        self.at
    }

    /// Goes on to octet `to` as far as was read; false where no octets are left to be taken.
    pub fn skip_to(&mut self, to: u64) -> bool {
        let to = to.max(self.given_out);
        let skipped = usize::try_from(to.saturating_sub(self.at)).unwrap_or(usize::MAX);
        self.advance(skipped);
        self.given < self.out.len()
    }

    /// The octets that were read, up to `end` of the message.
    pub fn take(&mut self, end: u64) -> &[u8] {
        let from = self.given;
        self.advance(usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX));
        self.out.get(from..self.given).unwrap_or_default()
    }

    fn advance(&mut self, octets: usize) {
        let octets = octets.min(self.out.len().saturating_sub(self.given));
        self.given = self.given.saturating_add(octets);
        self.at = self.at.saturating_add(octets as u64);
    }

    /// Goes on where the message stands now; false where it is another one.
    pub fn follow(&mut self, message: &Message) -> bool {
        if !self.is_of(message) {
            return false;
        }
        let (old, new) = (self.message.extent, message.extent);
        self.message = *message;
        if (old.header, old.length) != (new.header, new.length) {
            // Its own fields were written anew: what clients see is the same, from its beginning.
            *self = Self {
                given_out: self.given_out.max(self.at),
                base: self.base,
                ..Self::new(message, None)
            };
        }
        true
    }

    /// What of the file comes next for who wants the message up to `end`: of a header that is wanted
    /// alone nothing of the body. Nothing at the end of the message.
    pub fn next(&self, end: u64) -> Range<u64> {
        let extent = self.message.extent;
        let at = extent.header_start().saturating_add(self.taken);
        let body = extent.header_start().saturating_add(extent.header.into());
        let is_enough = end <= self.message.header.into() && at < body;
        let last = if is_enough { body } else { extent.body_end() };
        at..last.min(at.saturating_add(CHUNK)).max(at)
    }

    /// Takes what stands there; false where nothing more comes.
    pub fn push(&mut self, stored: &[u8]) -> bool {
        if !self.presenter.wants_more() {
            return false;
        }
        self.out.clear();
        self.given = 0;
        if stored.is_empty() {
            self.presenter.finish(&mut self.out);
            return !self.out.is_empty();
        }
        self.presenter.push(stored, &mut self.out);
        self.taken = self.taken.saturating_add(stored.len() as u64);
        true
    }
}
