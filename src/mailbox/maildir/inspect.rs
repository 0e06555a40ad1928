//! What an operator asks of a Maildir: whether its index is right, and a new one.

use super::folder::Looks;
use super::store::MaildirStore;
use super::text;
use crate::mailbox::Error;
use crate::mailbox::index::Index;
use crate::mailbox::inspect::{Tell, first_of};
use crate::mailbox::store::Store;

impl MaildirStore {
    pub(in crate::mailbox) fn index(&self) -> &Index {
        &self.index
    }

    /// What is wrong with what the index says of the files. All of them are read.
    pub(in crate::mailbox) fn faults(&mut self, tell: Tell<'_>) -> Result<Vec<String>, Error> {
        self.sync()?;
        let messages = self.index.state().messages.all()?;
        let all = messages.len() as u64;
        let mut wrong = Vec::new();
        for (at, message) in (1..).zip(&messages) {
            let file =
                self.folder.with(&message.digest, &mut Looks::default(), |parts, entry| {
                    text::open(entry.part(parts), &entry.name)
                })?;
            // Who removed it meanwhile may do so.
            let Some(file) = file else { continue };
            // Without its name, which tells the size.
            let measured = text::measure(&file, b"");
            let measured = measured.map_err(|error| self.folder.fail("be read", error))?;
            if measured.is_none_or(|now| (now.size, now.header) != (message.size, message.header)) {
                wrong.push(message.uid);
            }
            tell(at, all);
        }
        let wrong = first_of(wrong.into_iter()).map(|(count, uid)| {
            format!(
                "{count} of {all} messages have not the size that the index or the name of their file tells; \
                 the first has the UID {uid}"
            )
        });
        Ok(wrong.into_iter().collect())
    }

    /// Makes the index anew. A Maildir has no UIDs of its own: all messages get new ones.
    pub(in crate::mailbox) fn rebuild(&mut self) -> Result<(), Error> {
        self.uid_validity = 0;
        self.lock_with(true).map(drop)
    }
}
