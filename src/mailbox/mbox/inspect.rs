//! What an operator asks of an mbox: whether its index is right, and a new one.

use super::intent::Intent;
use super::listing::Listing;
use super::store::{MboxStore, TRIES};
use super::{Mbox, redo};
use crate::mailbox::index::{Found, Index};
use crate::mailbox::inspect::{Tell, first_of};
use crate::mailbox::store::{Message, Store};
use crate::mailbox::{Error, Place};
use crate::sys::lock::Kind;

impl Mbox {
    /// What a killed process left to be finished, in words, as it is before anybody opens the
    /// mailbox; and whether a journal was set aside.
    pub(in crate::mailbox) fn left_over(
        place: &Place,
    ) -> Result<(Option<&'static str>, bool), Error> {
        let mut mbox = Self::new(place.clone());
        let directory = mbox.directory();
        let Some(opened) = mbox.lock(Kind::Shared, false)? else {
            return Ok((None, false));
        };
        let pending = if redo::is_pending(&directory)? {
            Some("a removal")
        } else {
            Intent::read(&opened, &directory)?.map(|_| "an append")
        };
        Ok((pending, redo::is_set_aside(&directory)?))
    }
}

impl MboxStore {
    pub(in crate::mailbox) fn index(&self) -> &Index {
        &self.index
    }

    /// What is wrong with the file, or with what the index says of it. All of the file is read.
    pub(in crate::mailbox) fn faults(&mut self, tell: Tell<'_>) -> Result<Vec<String>, Error> {
        for _ in 0..TRIES {
            self.sync()?;
            let Some(now) = self.mbox.look()? else {
                return Ok(Vec::new());
            };
            let mut tell = |at| tell(at, now.size);
            let Some(listing) = Listing::by_reads(&mut self.mbox, None, &mut tell)? else {
                continue;
            };
            self.refresh()?;
            if self.describes(Some(&listing.identity)) {
                return self.compare(&listing);
            }
        }
        let Some(opened) = self.lock_current(false)? else {
            return Ok(Vec::new());
        };
        let size = opened.identity.size;
        let listing = Listing::under_telling(&opened, None, &mut |at| tell(at, size));
        self.compare(&listing.map_err(|error| self.at_path(error))?)
    }

    fn compare(&self, listing: &Listing) -> Result<Vec<String>, Error> {
        let mut faults = Vec::new();
        let before = match &listing.first {
            Some(first) => first.extent.start,
            None => listing.identity.size,
        };
        if before > 0 {
            faults.push(format!(
                "{before} bytes before the first From_ line belong to no message, and no client \
                 sees them; look at the beginning of the file with an editor"
            ));
        }
        let ours = self.state().messages.in_file_order()?;
        let (there, known) = (listing.found.len(), ours.len());
        if there != known {
            faults.push(format!("the mailbox has {there} messages, and its index has {known}"));
        }
        let wrong = ours.iter().zip(&listing.found).filter(|(message, found)| !is(message, found));
        faults.extend(first_of(wrong.map(|(message, _)| message.uid)).map(|(count, uid)| {
            format!(
                "the index is wrong about {count} of {known} messages; the first has the UID {uid}"
            )
        }));
        Ok(faults)
    }

    /// Makes the index anew, of nothing but the file; only marks that the file has not got yet are
    /// taken from the old one. The write locks are held all the time.
    pub(in crate::mailbox) fn rebuild(&mut self, tell: Tell<'_>) -> Result<(), Error> {
        let directory = self.mbox.directory();
        let Some(mut opened) = self.mbox.lock_for_writing(&directory, false)? else {
            return self.forget_all();
        };
        self.refresh()?;
        let size = opened.identity.size;
        let listing = Listing::under_telling(&opened, None, &mut |at| tell(at, size));
        let listing = listing.map_err(|error| self.at_path(error))?;
        self.take_in_anew(&mut opened, listing)?;
        drop(opened);
        self.checkpoint()
    }
}

/// Whether a message is as the index has it.
fn is(message: &Message, found: &Found) -> bool {
    message.extent.is_at(&found.extent)
        && (message.digest, message.size, message.header)
            == (found.digest, found.size, found.header)
        && message.extent.stored.flags == found.flags
        && (!message.extent.named || found.uid == Some(message.uid))
}
