//! The mailbox's own fields, written where they stand: no byte of the file moves.

use std::io;

use super::Opened;
use crate::mailbox::index::{Change, Claims, State};
use crate::mailbox::uids::UidSet;

/// Gives new messages their UIDs in the file, where there is room.
pub fn name(_opened: &Opened, _changes: &mut [Change], _claims: Option<Claims>) -> io::Result<()> {
    Ok(())
}

/// The same for all messages of a mailbox whose index is made anew.
pub fn name_all(_opened: &Opened, _state: &mut State) -> io::Result<()> {
    Ok(())
}

/// What the first message says of the mailbox goes to the next one before it is removed.
pub fn keep_base(_opened: &Opened, _state: &State, _removed: &UidSet) -> io::Result<()> {
    Ok(())
}

/// Writes the marks that only the index has, and returns what the index is to know.
pub fn write_marks(_opened: &Opened, _state: &State) -> io::Result<Vec<Change>> {
    Ok(Vec::new())
}
