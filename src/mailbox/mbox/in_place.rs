//! The mailbox's own fields, written where they stand: no byte of the file moves.
//!
//! The write locks are held. UIDs are written before anybody sees them, marks when there is time;
//! where a header has no room for them the index alone has them.

use std::io;
use std::os::unix::fs::FileExt;

use super::Opened;
use super::identity::Identity;
use super::own::{self, ImapBase};
use super::write_back::{NoRoom, Wanted, write_back_at};
use crate::mailbox::index::{Change, State};
use crate::mailbox::moment::moment;
use crate::mailbox::store::{Extent, Message};
use crate::mailbox::uids::{Uid, UidSet};

/// In a longer header nothing is written.
const LONGEST: u32 = 1024 * 1024;

/// The first message of a file, and what it says of all.
#[derive(Clone, Debug)]
pub struct First {
    pub extent: Extent,
    pub base: Option<ImapBase>,
    /// It is c-client's pseudo message, in which we don't write.
    pub internal: bool,
}

/// Gives messages their UIDs in the file, where there is room: those that have none there yet.
///
/// A UID counts only up to the UIDLAST that stands in the first message, so that is written first.
/// None is written behind a message without one, the first of which stands at `unnamed_at` if it is
/// not among these: Dovecot gives new UIDs to all that stand behind such a message.
pub fn name<'a>(
    opened: &Opened,
    first: Option<&First>,
    (uid_validity, uid_last): (u32, Uid),
    unnamed_at: Option<u64>,
    messages: impl Iterator<Item = &'a mut Message>,
) -> io::Result<()> {
    let mut unnamed: Vec<&mut Message> = messages.filter(|message| !message.extent.named).collect();
    unnamed.sort_by_key(|message| message.extent.start);
    let mut unnamed = unnamed.into_iter().peekable();
    let Some(first) = first.filter(|first| !first.internal) else {
        return Ok(());
    };
    // A later message may have become the first, with what was so when its X-IMAPbase was written.
    let is_late = first.base.as_ref().is_some_and(|base| base.uid_last < uid_last);
    if unnamed.peek().is_none() && !is_late {
        return Ok(());
    }
    let keywords = first.base.as_ref().map(|base| base.keywords.clone()).unwrap_or_default();
    let base = ImapBase { uid_validity, uid_last, keywords };
    let wanted = Wanted { base: Some(&base), ..Wanted::default() };
    // Its own UID comes with it, so that the disk gets both or none.
    let own = unnamed.next_if(|message| message.extent.start == first.extent.start);
    let both = Wanted { uid: own.as_ref().map(|message| message.uid), ..wanted };
    if write(opened, &first.extent, &both)?.is_ok() {
        if let Some(own) = own {
            own.extent.named = true;
        }
    } else if write(opened, &first.extent, &wanted)?.is_err() || own.is_some() {
        return Ok(());
    }
    let limit = unnamed_at.unwrap_or(u64::MAX);
    for message in unnamed.take_while(|message| message.extent.start < limit) {
        let wanted = Wanted { uid: Some(message.uid), ..Wanted::default() };
        let has_room = !message.extent.no_room;
        message.extent.named = has_room && write(opened, &message.extent, &wanted)?.is_ok();
        if !message.extent.named {
            break;
        }
    }
    Ok(())
}

/// Says in the first message that UIDs up to `uid_last` are given, of which messages that are
/// appended will have theirs from the beginning. False, and nothing is written, where there is no
/// room, or where those UIDs would not count, as for [`name`].
pub fn announce(opened: &Opened, state: &State, uid_last: Uid) -> io::Result<bool> {
    let first = state.messages.first().filter(|first| first.extent.start == 0);
    let Some(first) = first.filter(|_| Identity::is_verified(&state.base)) else {
        return Ok(false);
    };
    if state.messages.iter().any(|message| !message.extent.named) {
        return Ok(false);
    }
    let base = header(opened, &first.extent)?.and_then(|header| own::read(&header).base);
    let is_ours = |base: &ImapBase| {
        base.uid_validity == state.uid_validity && base.uid_last < state.uid_next.min(uid_last)
    };
    let Some(base) = base.filter(is_ours) else {
        return Ok(false);
    };
    let base = ImapBase { uid_last, ..base };
    let wanted = Wanted { base: Some(&base), ..Wanted::default() };
    Ok(write(opened, &first.extent, &wanted)?.is_ok())
}

/// Writes the marks that only the index has, and returns what the index is to know.
pub fn write_marks(opened: &Opened, state: &State) -> io::Result<Vec<Change>> {
    let (mut changes, mut done) = (Vec::new(), UidSet::new());
    let unwritten = |message: &&Message| message.extent.unwritten && !message.extent.no_room;
    for message in state.messages.iter().filter(unwritten) {
        let names = state.names(message.marks.keywords);
        let flags = message.marks.flags;
        let wanted = |marks| Wanted { marks: Some(marks), ..Wanted::default() };
        if write(opened, &message.extent, &wanted((flags, &names)))?.is_ok() {
            done.insert(message.uid);
            continue;
        }
        let mut extent = Extent { no_room: true, ..message.extent };
        // Flags are short.
        if let Some(header) = header(opened, &message.extent)? {
            let keywords = own::read(&header).keywords;
            let keywords: Vec<&str> = keywords.iter().map(String::as_str).collect();
            if write(opened, &message.extent, &wanted((flags, &keywords)))?.is_ok() {
                extent.stored.flags = flags;
            }
        }
        changes.push(Change::Placed { uid: message.uid, extent });
    }
    if !done.is_empty() {
        changes.push(Change::Written(done));
    }
    Ok(changes)
}

fn write(opened: &Opened, extent: &Extent, wanted: &Wanted<'_>) -> io::Result<Result<(), NoRoom>> {
    let Some(header) = header(opened, extent)? else {
        return Ok(Err(NoRoom));
    };
    Ok(match write_back_at(&header, extent.header_start(), wanted) {
        Ok(Some(edit)) => {
            moment();
            opened.file.write_all_at(&edit.bytes, extent.header_start() + edit.at as u64)?;
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(no_room) => Err(no_room),
    })
}

/// A header, with its blank line; `None` where it is too long.
pub fn header(opened: &Opened, extent: &Extent) -> io::Result<Option<Vec<u8>>> {
    if extent.header > LONGEST {
        return Ok(None);
    }
    let mut header = vec![0; extent.header as usize];
    opened.file.read_exact_at(&mut header, extent.header_start())?;
    Ok(Some(header))
}
