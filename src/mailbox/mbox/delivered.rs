//! What our own deliveries say of a mailbox that has an index: nobody else changed it meanwhile.
//!
//! A delivery does not read the index, which may be large. It leaves `NAME.delivered`: how the file
//! looked before, and how it looks behind. Where deliveries follow on each other the first look
//! stays. Who then finds the file as it looked behind, and has an index of how it looked before, need
//! not look at more than what is new. Nothing is synced: a record that is not of this file proves
//! nothing, and all of the file is looked at once more.

use std::os::unix::fs::FileExt;

use super::identity::Identity;
use super::window::read_full;
use super::{Opened, record};
use crate::mailbox::Error;
use crate::mailbox::index::{Base, Directory, ENDING as INDEX};

const ENDING: &str = ".delivered";
const MAGIC: [u8; 8] = *b"hkdelvd1";

/// Magic, how it looked before and behind, sum.
const RECORD: usize = 8 + 2 * 8 * 8 + 4;

/// How the file looked before deliveries and behind them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delivered {
    before: Base,
    behind: Base,
}

impl Delivered {
    /// What was left.
    pub fn read(directory: &Directory) -> Result<Option<Self>, Error> {
        let Some(file) = directory.file(ENDING, false)? else {
            return Ok(None);
        };
        let mut bytes = [0; RECORD];
        let read = read_full(&file, &mut bytes, 0)
            .map_err(|error| directory.error(ENDING, "can't be read", Some(error)))?;
        let fields = bytes.get(..read).and_then(|bytes| record::read::<16>(MAGIC, bytes));
        Ok(fields.and_then(|fields| {
            let (before, behind) = fields.split_first_chunk::<8>()?;
            Some(Self { before: *before, behind: *behind.first_chunk()? })
        }))
    }

    /// Whether deliveries alone made the file that an index knows what it is now.
    pub fn explains(&self, known: &Base, now: &Identity) -> bool {
        Identity::is_same(known, &self.before) && now.is_of(&self.behind)
    }

    /// Leaves word of a delivery to a mailbox that looked so, and is locked. Without it nothing is
    /// lost but time.
    pub fn keep(opened: &mut Opened, before: &Identity, directory: &Directory) {
        let _ = Self::try_to_keep(opened, before, directory);
    }

    fn try_to_keep(
        opened: &mut Opened,
        before: &Identity,
        directory: &Directory,
    ) -> Result<(), Error> {
        if !directory.has(INDEX)? {
            return Ok(());
        }
        let fail = |error| directory.error(ENDING, "can't be written", Some(error));
        let first = match Self::read(directory)? {
            Some(last) if before.is_of(&last.behind) => last.before,
            _ => before.base(true),
        };
        // As it is now: that it was read before this mail came is not to be said of it.
        let written = Identity::of(&opened.file).map_err(fail)?;
        opened.identity = written.stamp(&opened.file).map_err(fail)?;
        let fields = [first, opened.identity.base(true)].concat();
        if let Some(file) = directory.file(ENDING, true)? {
            file.write_all_at(&record::write::<RECORD>(MAGIC, &fields), 0).map_err(fail)?;
        }
        Ok(())
    }
}
