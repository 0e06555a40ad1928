//! Where a session reads in a message: what is asked for in parts costs each byte once.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::present::Presenter;
use crate::mailbox::index::Base;
use crate::mailbox::store::Message;
use crate::mailbox::uids::Uid;

/// How much of a message is read under one lock.
const CHUNK: u64 = 256 * 1024;

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
    /// How the file looked when the message was known to stand where the index says.
    base: Option<Base>,
}

impl Cursor {
    /// At the beginning of a message.
    pub fn new(message: &Message) -> Self {
        Self {
            message: *message,
            presenter: Presenter::new(message.extent.quoted, None),
            taken: 0,
            at: 0,
            out: Vec::new(),
            given: 0,
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

    /// Reads on, where the message stands now; false at its end.
    pub fn fill(&mut self, file: &File, message: &Message) -> io::Result<bool> {
        if !self.is_of(message) {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (old, new) = (self.message.extent, message.extent);
        self.message = *message;
        if (old.header, old.length) != (new.header, new.length) {
            // Its own fields were written anew: what clients see is the same, from its beginning.
            let at = self.at;
            *self = Self { base: self.base, ..Self::new(message) };
            while self.at < at {
                if !self.skip_to(at) && !self.fill(file, message)? {
                    return Ok(false);
                }
            }
            if self.given < self.out.len() {
                return Ok(true);
            }
        }
        if !self.presenter.wants_more() {
            return Ok(false);
        }
        self.out.clear();
        self.given = 0;
        let left = new.length.saturating_sub(self.taken).min(CHUNK);
        if left == 0 {
            self.presenter.finish(&mut self.out);
            return Ok(!self.out.is_empty());
        }
        let mut stored = vec![0; usize::try_from(left).unwrap_or(0)];
        let text = new.start.saturating_add(u64::from(new.from_line));
        file.read_exact_at(&mut stored, text.saturating_add(self.taken))?;
        self.presenter.push(&stored, &mut self.out);
        self.taken = self.taken.saturating_add(left);
        Ok(true)
    }
}
