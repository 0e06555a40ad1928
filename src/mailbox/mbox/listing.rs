//! What stands in an mbox, all of it or from somewhere on, read under its locks.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::believed::Believed;
use super::identity::{self, Identity};
use super::in_place::First;
use super::scan::{self, Scanner, after_blank_line};
use super::window::{Source, Window};
use super::{Mbox, Opened};
use crate::mailbox::Error;
use crate::mailbox::index::{Claims, Found};
use crate::mailbox::store::Extent;

/// The line ends before a message.
const LOOK: usize = 16;

/// The messages of an mbox as it was at one moment.
#[derive(Debug)]
pub(super) struct Listing {
    /// Where the first of them stands; `None` where it is the first of the file.
    pub from: Option<u64>,
    pub found: Vec<Found>,
    /// What the file says of UIDs.
    pub claims: Option<Claims>,
    /// The first message of the file.
    pub first: Option<First>,
    /// Something came behind while it was read: what others changed before that would not show.
    pub grew: bool,
    /// How the file looked.
    pub identity: Identity,
    believed: Believed,
}

impl Listing {
    /// Reads a file whose locks are held.
    pub fn under(opened: &Opened, last: Option<scan::Found>) -> Result<Self, Error> {
        Self::under_telling(opened, last, &mut |_| ())
    }

    /// The same, and tells how far it is.
    pub fn under_telling(
        opened: &Opened,
        last: Option<scan::Found>,
        tell: &mut dyn FnMut(u64),
    ) -> Result<Self, Error> {
        Self::read(&opened.file, opened.identity, last, tell)
    }

    /// Reads a file with its locks for one read after the other. `None` where it was changed
    /// meanwhile, but for what came behind, or is not there any more.
    pub fn by_reads(
        mbox: &mut Mbox,
        last: Option<scan::Found>,
        tell: &mut dyn FnMut(u64),
    ) -> Result<Option<Self>, Error> {
        let Some(mut opened) = mbox.lock_for_reading()? else {
            return Ok(None);
        };
        if !opened.identity.settled {
            // Soon it will show whether it is changed while it is read.
            drop(opened);
            std::thread::sleep(identity::TICK);
            opened = match mbox.lock_for_reading()? {
                Some(opened) => opened,
                None => return Ok(None),
            };
        }
        let identity = opened.identity;
        if let Some(last) = &last {
            // It was looked at under other locks.
            let mut scanner = Scanner::new(&opened.file, identity.size);
            let there = scanner.message_at(last.extent.start).map_err(Error::reading)?;
            if there.as_ref() != Some(last) {
                return Ok(None);
            }
        }
        drop(opened);
        let path = mbox.place.path.clone();
        let mut failed = None;
        let source = Reads { mbox, identity, failed: &mut failed };
        let listing = Self::read(source, identity, last, tell);
        match (listing, failed) {
            (_, Some(Failed::Changed)) => Ok(None),
            (_, Some(Failed::Error(error))) => Err(error),
            (Err(error), None) => Err(error.at(&path)),
            (Ok(listing), None) => Ok(Some(listing)),
        }
    }

    /// All of it, or what stands behind a message that is known, and that one.
    fn read(
        mut source: impl Source,
        identity: Identity,
        last: Option<scan::Found>,
        tell: &mut dyn FnMut(u64),
    ) -> Result<Self, Error> {
        let mut listing = Self {
            from: last.as_ref().map(|last| last.extent.start),
            found: Vec::new(),
            claims: None,
            first: None,
            grew: false,
            identity,
            believed: Believed::default(),
        };
        let Some(last) = last else {
            listing.take(Scanner::new(source, identity.size), true, tell)?;
            return Ok(listing);
        };
        // What the file says of itself, it says at its beginning: no more is read of that.
        let look = |buffer: &mut [u8], at: u64| source.read_at(buffer, at);
        let mut beginning = Scanner::with_window(look, identity.size, 0);
        if let Some(first) = beginning.first_header().map_err(Error::reading)? {
            listing.hear(&first);
        }
        drop(beginning);
        let mut scanner = Scanner::new(source, identity.size);
        scanner.go_to(last.end());
        let uid = listing.believed.uid(&last.own);
        listing.found.push(known(last, uid));
        listing.take(scanner, false, tell)?;
        Ok(listing)
    }

    fn take<S: Source>(
        &mut self,
        scanner: Scanner<S>,
        mut first: bool,
        tell: &mut dyn FnMut(u64),
    ) -> Result<(), Error> {
        for found in scanner {
            let found = found?;
            tell(found.end());
            if std::mem::take(&mut first) {
                self.hear(&found);
            }
            if !found.internal {
                let uid = self.believed.uid(&found.own);
                self.found.push(known(found, uid));
            }
        }
        Ok(())
    }

    /// What the first message says of the whole.
    fn hear(&mut self, first: &scan::Found) {
        self.believed = Believed::after(first.own.base.as_ref(), 0);
        let claims = |(uid_validity, uid_last)| Claims { uid_validity, uid_last };
        self.claims = self.believed.base().map(claims);
        let (extent, base, internal) = (first.extent, first.own.base.clone(), first.internal);
        self.first = Some(First { extent, base, internal });
    }

    /// Reads on, now that the write locks are held; false where it is another file now.
    pub fn go_on_under(&mut self, opened: &Opened) -> Result<bool, Error> {
        if self.identity.unchanged(&opened.identity) {
            return Ok(true);
        }
        let base = self.identity.base(false);
        let Some(last) = self.found.pop().filter(|_| opened.identity.has_grown_from(&base)) else {
            return Ok(false);
        };
        let mut scanner = Scanner::new(&opened.file, opened.identity.size);
        let there = scanner.message_at(last.extent.start).map_err(Error::reading)?;
        let Some(there) = there.filter(|there| there.digest == last.digest) else {
            return Ok(false);
        };
        scanner.go_to(there.end());
        self.found.push(Found { extent: there.extent, ..last });
        self.identity = opened.identity;
        self.grew = true;
        self.take(scanner, false, &mut |_| ()).map(|()| true)
    }
}

fn known(found: scan::Found, uid: Option<u32>) -> Found {
    let no_room = !found.own.room.flags && !found.own.room.uid;
    Found {
        digest: found.digest,
        extent: Extent { no_room, ..found.extent },
        size: found.size,
        header: u32::try_from(found.header).unwrap_or(u32::MAX),
        date: found.date,
        flags: found.own.flags,
        keywords: found.own.keywords,
        old: found.own.old,
        uid,
    }
}

/// Reads of a file, each under the locks.
struct Reads<'a> {
    mbox: &'a mut Mbox,
    identity: Identity,
    failed: &'a mut Option<Failed>,
}

enum Failed {
    Changed,
    Error(Error),
}

impl Reads<'_> {
    fn locked(&mut self) -> Result<Opened, Failed> {
        let opened = self.mbox.lock_for_reading().map_err(Failed::Error)?;
        let opened = opened.ok_or(Failed::Changed)?;
        let grown = opened.identity.has_grown_from(&self.identity.base(false));
        if !grown && !self.identity.looks_like(&opened.identity) {
            return Err(Failed::Changed);
        }
        Ok(opened)
    }
}

impl Source for Reads<'_> {
    fn read_at(&mut self, buffer: &mut [u8], at: u64) -> io::Result<usize> {
        match self.locked() {
            Ok(opened) => opened.file.read_at(buffer, at),
            Err(failed) => {
                *self.failed = Some(failed);
                Err(io::ErrorKind::Other.into())
            }
        }
    }
}

/// What may be removed of these messages (sorted, apart) so that what stands behind them does not
/// become text of what stands before: where a blank line is missing there, their last line end stays
/// and makes it.
pub(super) fn removable(
    file: &File,
    identity: Identity,
    ranges: Vec<(u64, u64)>,
) -> io::Result<Vec<(u64, u64)>> {
    let mut window = Window::new(file, identity.size, LOOK);
    let mut joined: Vec<(u64, u64)> = Vec::new();
    for (start, end) in ranges {
        match joined.last_mut() {
            Some((_, last)) if *last == start => *last = end,
            _ => joined.push((start, end)),
        }
    }
    for (start, end) in &mut joined {
        let from = start.saturating_sub(3);
        let length = usize::try_from(start.saturating_sub(from)).unwrap_or(0);
        if *end < identity.size && !after_blank_line(window.peek(from, length)?, from == 0) {
            *end = end.saturating_sub(1);
        }
    }
    Ok(joined)
}
