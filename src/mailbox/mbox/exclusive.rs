//! The mailbox as a whole, for those who give it another name, take it away, or move all of it.

use std::fs::File;

use super::{Error, Mbox};

impl Mbox {
    /// Runs `action` with the file while all its locks are held, and nothing is left of what was
    /// interrupted; `None` where there is no mailbox.
    pub(in crate::mailbox) fn exclusively<T>(
        &mut self,
        action: impl FnOnce(&File) -> T,
    ) -> Result<Option<T>, Error> {
        let directory = self.directory();
        let opened = self.lock_for_writing(&directory, false)?;
        Ok(opened.map(|opened| action(&opened.file)))
    }
}
