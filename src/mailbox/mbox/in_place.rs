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
use crate::mailbox::index::{Change, Found, State};
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

/// The UIDs that stand in a file and can be believed, each with where its message stands.
#[derive(Debug)]
pub struct Standing(Vec<(u64, Uid)>);

impl Standing {
    /// Those of messages that were found, in their order.
    pub fn of(found: &[Found]) -> Self {
        let uid = |found: &Found| found.uid.map(|uid| (found.extent.start, uid));
        Self(found.iter().filter_map(uid).collect())
    }

    /// Whether a message that stands there has one.
    fn has(&self, start: u64) -> bool {
        self.0.binary_search_by_key(&start, |(start, _)| *start).is_ok()
    }

    /// Whether they would all still ascend with the one of this message.
    fn takes(&self, message: &Message) -> bool {
        let at = self.0.partition_point(|(start, _)| *start < message.extent.start);
        let (before, behind) = self.0.split_at_checked(at).unwrap_or_default();
        before.last().is_none_or(|(_, uid)| *uid < message.uid)
            && behind.first().is_none_or(|(_, uid)| message.uid < *uid)
    }
}

/// Gives messages their UIDs in the file, where there is room, and says which it gave: these are
/// those that have none there yet, as they stand.
///
/// A UID counts only up to the UIDLAST that stands in the first message, so that is written first.
/// It counts only where they ascend, so none is written that would not, or that would keep those
/// behind it from counting: a live Dovecot then gives new ones to all of these, forgets their flags,
/// and tears the file where it is just removing messages.
/// None is written behind a message without one, the first of which stands at `unnamed_at` if it is
/// not among these: Dovecot gives new UIDs to all that stand behind such a message.
/// And none while another program has the file open: it may have given others.
pub fn name(
    opened: &Opened,
    first: Option<&First>,
    (uid_validity, uid_last): (u32, Uid),
    standing: &Standing,
    unnamed_at: Option<u64>,
    unnamed: impl Iterator<Item = Message>,
) -> io::Result<UidSet> {
    let mut named = UidSet::new();
    // What another program has given stays as it is there.
    let mut unnamed = unnamed.filter(|message| !standing.has(message.extent.start)).peekable();
    let Some(first) = first.filter(|first| !first.internal) else {
        return Ok(named);
    };
    // A later message may have become the first, with what was so when its X-IMAPbase was written.
    let is_late = first.base.as_ref().is_some_and(|base| base.uid_last < uid_last);
    if unnamed.peek().is_none() && !is_late {
        return Ok(named);
    }
    let keywords = first.base.as_ref().map(|base| base.keywords.clone()).unwrap_or_default();
    let base = ImapBase { uid_validity, uid_last, keywords };
    let wanted = Wanted { base: Some(&base), ..Wanted::default() };
    if !opened.is_alone() {
        if is_late {
            let _ = write(opened, &first.extent, &wanted)?;
        }
        return Ok(named);
    }
    // Its own UID comes with it, so that the disk gets both or none.
    let own = unnamed.next_if(|message| message.extent.start == first.extent.start);
    let own_fits = own.as_ref().is_none_or(|message| standing.takes(message));
    let both = Wanted { uid: own.as_ref().map(|message| message.uid), ..wanted };
    if own_fits && write(opened, &first.extent, &both)?.is_ok() {
        if let Some(own) = own {
            named.insert(own.uid);
        }
    } else if write(opened, &first.extent, &wanted)?.is_err() || own.is_some() {
        return Ok(named);
    }
    let limit = unnamed_at.unwrap_or(u64::MAX);
    for message in unnamed.take_while(|message| message.extent.start < limit) {
        let wanted = Wanted { uid: Some(message.uid), ..Wanted::default() };
        let fits = standing.takes(&message) && !message.extent.no_room;
        if !fits || write(opened, &message.extent, &wanted)?.is_err() {
            break;
        }
        named.insert(message.uid);
    }
    Ok(named)
}

/// Says in the first message that UIDs up to `uid_last` are given, of which messages that are
/// appended will have theirs from the beginning. False, and nothing is written, where there is no
/// room, or where those UIDs would not count or be other ones, as for [`name`].
pub fn announce(
    opened: &Opened,
    state: &State,
    first: &Message,
    uid_last: Uid,
) -> io::Result<bool> {
    let is_whole = Identity::is_verified(&state.base) && state.messages.summary().unnamed == 0;
    if first.extent.start != 0 || !is_whole || !opened.is_alone() {
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

/// Writes the marks of these messages, which only the index has, and returns what the index is to
/// know.
pub fn write_marks(
    opened: &Opened,
    state: &State,
    messages: &[Message],
) -> io::Result<Vec<Change>> {
    let (mut changes, mut done) = (Vec::new(), UidSet::new());
    for message in messages {
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
