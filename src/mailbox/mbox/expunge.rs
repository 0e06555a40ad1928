//! Messages are removed from an mbox: all of them by one compaction, which a killed process's
//! successor finishes.

use super::compaction::Compaction;
use super::identity::Identity;
use super::store::MboxStore;
use super::{Opened, listing, redo};
use crate::mailbox::Error;
use crate::mailbox::index::Change;
use crate::mailbox::store::{Extent, Message, Store};
use crate::mailbox::uids::UidSet;

/// Bytes of a file, ascending and apart.
type Ranges = Vec<(u64, u64)>;

impl MboxStore {
    /// Removes messages for good; those that it removed.
    pub(super) fn remove(&mut self, uids: &UidSet) -> Result<UidSet, Error> {
        let Some(mut opened) = self.lock_current(false)? else {
            return Ok(UidSet::new());
        };
        // The one that comes to stand first is written to, also where not all was looked at.
        let mut order = self.state().messages.in_file_order()?;
        let first = order.iter().find(|message| !uids.contains(message.uid)).map(|m| m.uid);
        let is_meant = |m: &&Message| uids.contains(m.uid) || Some(m.uid) == first;
        let meant = order.iter().filter(is_meant).copied().collect();
        if !self.verify(&mut opened, meant)? {
            order = self.state().messages.in_file_order()?;
        }
        self.same()?;
        let uids = self.uids().and(uids);
        if uids.is_empty() {
            return Ok(uids);
        }
        let (ranges, longer) = self.removal(&opened, &order, &uids)?;
        let compaction = Compaction::new(&opened, self.state(), &order, &uids, &ranges)
            .map_err(|error| self.fail("be read", error))?;
        self.doom(&uids)?;
        let directory = self.mbox.directory();
        redo::edit(&mut opened, &directory, &compaction.edits)?;
        let base = opened.stamp(Identity::is_verified(&self.state().base))?;
        let mut locked = self.index.lock()?;
        let modseq = locked.state().next_modseq();
        let mut changes = vec![Change::Expunge { uids: uids.clone(), modseq }];
        changes.append(&mut compaction.changes(locked.state(), &longer)?);
        changes.push(Change::Base(base));
        locked.commit(changes, true)?;
        Ok(uids)
    }

    /// Says in the index which ones are being removed: whoever finds the file without them need not
    /// guess which of two that are the same is gone.
    fn doom(&mut self, uids: &UidSet) -> Result<(), Error> {
        let doomed = |message: Message| {
            let extent = Extent { doomed: true, ..message.extent };
            Change::Placed { uid: message.uid, extent }
        };
        let mut locked = self.index.lock()?;
        let doomed = locked.state().messages.within(uids).map(|message| message.map(doomed));
        let changes = doomed.collect::<Result<_, _>>()?;
        locked.commit(changes, false)
    }

    /// The ranges of these messages, and the messages whose blank line a byte of them becomes.
    fn removal(
        &self,
        opened: &Opened,
        order: &[Message],
        uids: &UidSet,
    ) -> Result<(Ranges, UidSet), Error> {
        let ranges: Ranges = order
            .iter()
            .filter(|message| uids.contains(message.uid))
            .map(|message| (message.extent.start, message.extent.end()))
            .collect();
        let wanted = listing::removable(&opened.file, opened.identity, ranges)
            .map_err(|error| self.fail("be read", error))?;
        let mut longer = Vec::new();
        for (start, end) in &wanted {
            let whole = end.saturating_add(1);
            let left = order.partition_point(|message| message.extent.end() < whole);
            let left = order
                .get(left)
                .is_some_and(|last| last.extent.end() == whole && uids.contains(last.uid));
            let at = order.partition_point(|message| message.extent.start < *start);
            if left && let Some(before) = at.checked_sub(1).and_then(|at| order.get(at)) {
                longer.push(before.uid);
            }
        }
        longer.sort_unstable();
        Ok((wanted, longer.into_iter().collect()))
    }
}
