//! A message of an mbox is read: a piece at a time, each under the read locks, and looked at first
//! whether it is still the message that was meant.

use std::io;
use std::ops::Range;

use super::cursor::Cursor;
use super::identity::Identity;
use super::store::{MboxStore, TRIES};
use crate::mailbox::Error;
use crate::mailbox::store::Store;
use crate::mailbox::uids::Uid;

impl MboxStore {
    /// Gives octets of a message to `sink`, as [`Store::read`] says.
    pub(super) fn give(
        &mut self,
        uid: Uid,
        range: Range<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        let message = self.known(uid)?;
        let end = range.end.min(message.size);
        let mut cursor = match self.cursor.take() {
            Some(cursor) if cursor.is_of(&message) && cursor.at() <= range.start => cursor,
            other => Cursor::new(&message, other),
        };
        while cursor.at() < end {
            if cursor.skip_to(range.start) {
                sink(cursor.take(end)).map_err(Error::Sink)?;
            } else if !self.fill(&mut cursor, end)? {
                break;
            }
        }
        self.cursor = Some(cursor);
        Ok(())
    }

    /// Reads on in a message, of which so much is wanted; false at its end.
    fn fill(&mut self, cursor: &mut Cursor, end: u64) -> Result<bool, Error> {
        let message = self.known(cursor.uid())?;
        let base = self.state().base;
        let is_known = Identity::is_verified(&base) || cursor.knows(&base);
        if cursor.follow(&message)
            && is_known
            && let Some(bytes) = self.ahead.get(&base, &message.extent, &cursor.next(end))
        {
            return Ok(cursor.push(bytes));
        }
        for _ in 0..TRIES {
            let opened = self.mbox.lock_for_reading()?.ok_or(Error::Changed)?;
            self.refresh()?;
            if self.describes(Some(&opened.identity)) {
                let uid = cursor.uid();
                if !cursor.knows(&self.state().base) {
                    let meant = self.message(uid)?.into_iter().collect();
                    if !self.stand(&opened, meant)? {
                        drop(opened);
                        self.catch_up(true)?;
                        continue;
                    }
                    cursor.know(self.state().base);
                }
                let message = self.known(uid)?;
                if !cursor.follow(&message) {
                    return Err(Error::Changed);
                }
                let (base, next) = (self.state().base, cursor.next(end));
                // It may have been read ahead, when it was not known yet to be of this message.
                if let Some(bytes) = self.ahead.get(&base, &message.extent, &next) {
                    return Ok(cursor.push(bytes));
                }
                return match self.ahead.read(&opened.file, &base, &message.extent, &next) {
                    Ok(bytes) => Ok(cursor.push(bytes)),
                    Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Changed),
                    Err(error) => Err(self.fail("be read", error)),
                };
            }
            drop(opened);
            self.sync()?;
        }
        Err(Error::Changed)
    }
}
