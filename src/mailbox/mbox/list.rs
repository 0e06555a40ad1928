//! The messages of a mailbox, listed for a session.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use xxhash_rust::xxh3::xxh3_128;

use super::error::Error;
use super::identity::Identity;
use super::scan::{Found, Scanner, after_blank_line};
use super::window::Window;
use crate::mailbox::store::Extent;

/// The line ends before a message.
const LOOK: usize = 16;

/// One message of an mbox: where it stands, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub(super) extent: Extent,
    /// Octets as a client gets them.
    pub(super) size: u64,
    /// What it is known again by.
    pub(super) digest: [u8; 16],
    /// Which one it is of the messages that are the same.
    pub(super) occurrence: u32,
}

impl From<Found> for Message {
    fn from(found: Found) -> Self {
        let Found { extent, size, digest, .. } = found;
        Self { extent, size, digest, occurrence: 0 }
    }
}

/// The messages of a mailbox as it was at one moment.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub(super) messages: Vec<Message>,
    pub(super) identity: Option<Identity>,
}

impl Snapshot {
    /// How many messages there are.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The octets of message `n` (counted from 0), exactly as [`super::Mbox::read`] gives them.
    pub fn size(&self, n: usize) -> Option<u64> {
        self.messages.get(n).map(|message| message.size)
    }

    /// A name for message `n` that stays the same in every session: the 32 hexadecimal digits of its
    /// digest (RFC 1939's unique-id). Identical messages are told apart by their order.
    pub fn unique_id(&self, n: usize) -> Option<String> {
        let message = self.messages.get(n)?;
        let mut digest = u128::from_be_bytes(message.digest);
        if message.occurrence > 0 {
            let mut bytes = message.digest.to_vec();
            bytes.extend(message.occurrence.to_le_bytes());
            digest = xxh3_128(&bytes);
        }
        Some(format!("{digest:032x}"))
    }
}

/// Lists the messages of a file.
pub(super) fn list(file: &File, identity: Identity) -> Result<Snapshot, Error> {
    let mut seen: HashMap<[u8; 16], u32> = HashMap::new();
    let mut messages = Vec::new();
    for found in Scanner::new(file, identity.size) {
        let found = found?;
        if found.internal {
            continue;
        }
        let mut message = Message::from(found);
        let count = seen.entry(message.digest).or_insert(0);
        message.occurrence = *count;
        *count = count.saturating_add(1);
        messages.push(message);
    }
    Ok(Snapshot { messages, identity: Some(identity) })
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
