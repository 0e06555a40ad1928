//! Where the messages of an mbox begin and end.
//!
//! A message begins at the start of the file or behind a blank line with a [`from_line`]; without
//! the blank line where a header field follows. (procmail writes none behind a message that came
//! without its last line end. To take what follows for its text would delete it with it.)
//! Content-Length is believed only where a `From_` line or the end of the file follows the bytes
//! that it counts (Dovecot does not quote and relies on it); else its end is looked for.

use std::collections::HashMap;
use std::fs::File;
use std::io;

use memchr::memmem::Finder;
use sha2::{Digest, Sha256};

use super::error::Error;
use super::identity::Identity;
use super::present::Presenter;
use super::window::Window;
use super::{fields, from_line};

/// More messages than this are not listed: a hostile file must not cost all memory.
const MOST: usize = 1_000_000;

/// What is looked at around a place where a message may begin.
const LOOK: usize = 2 * from_line::LONGEST;

/// One message of an mbox: where its parts stand, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Its `From_` line.
    pub(super) start: u64,
    /// Its header.
    pub(super) header: u64,
    /// Its body.
    pub(super) body: u64,
    /// The end of its body, before the blank line that ends the message.
    pub(super) body_end: u64,
    /// The next message, or the end of the file.
    pub(super) end: u64,
    /// Octets as a client gets them.
    pub(super) size: u64,
    /// SHA-256 of what a client gets: fields that other programs change in place don't count.
    pub(super) digest: [u8; 32],
    /// Which one it is of the messages that are the same.
    pub(super) occurrence: u32,
    /// We quoted it.
    pub(super) quoted: bool,
    /// It is c-client's pseudo message, which is nobody's mail.
    internal: bool,
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

    /// A name for message `n` that stays the same in every session: 32 hexadecimal digits of its
    /// digest (RFC 1939's unique-id). Identical messages are told apart by their order.
    pub fn unique_id(&self, n: usize) -> Option<String> {
        let message = self.messages.get(n)?;
        let mut digest = message.digest;
        if message.occurrence > 0 {
            let mut hash = Sha256::new();
            hash.update(digest);
            hash.update(message.occurrence.to_le_bytes());
            digest = hash.finalize().into();
        }
        Some(digest.iter().take(16).fold(String::new(), |mut id, b| {
            for digit in [b >> 4, b & 15] {
                id.extend(char::from_digit(digit.into(), 16));
            }
            id
        }))
    }
}

/// Lists the messages of a file.
pub(super) fn scan(file: &File, identity: Identity) -> Result<Snapshot, Error> {
    let mut window = Window::new(file, identity.size);
    let mut seen: HashMap<[u8; 32], u32> = HashMap::new();
    let mut messages = Vec::new();
    let first = first(&mut window).map_err(Error::reading)?;
    let mut at = first;
    while let Some(mut message) = message(&mut window, at).map_err(Error::reading)? {
        at = message.end;
        // c-client's is the first message or none.
        if message.internal && message.start == first {
            continue;
        }
        let count = seen.entry(message.digest).or_insert(0);
        message.occurrence = *count;
        *count = count.saturating_add(1);
        if messages.len() >= MOST {
            return Err(Error::TooMany(MOST));
        }
        messages.push(message);
    }
    Ok(Snapshot { messages, identity: Some(identity) })
}

/// The message that begins exactly at `at`, if one does.
pub(super) fn message_at(window: &mut Window<'_>, at: u64) -> io::Result<Option<Message>> {
    let before = at.min(3);
    let from = at.saturating_sub(before);
    let behind = window.peek(from, usize::try_from(before).unwrap_or(0))?;
    let behind = behind.to_vec();
    if !is_boundary(&behind, from == 0, window.view(at, LOOK)?) {
        return Ok(None);
    }
    message(window, at)
}

/// What may be removed of these messages (sorted, apart) so that what stands behind them does not
/// become text of what stands before: where a blank line is missing there, their last line end stays
/// and makes it.
pub(super) fn removable(
    file: &File,
    identity: Identity,
    ranges: Vec<(u64, u64)>,
) -> io::Result<Vec<(u64, u64)>> {
    let mut window = Window::new(file, identity.size);
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

/// Where the first message begins: blank lines and garbage before it are nobody's.
fn first(window: &mut Window<'_>) -> io::Result<u64> {
    if from_line::begins(window.view(0, LOOK)?) {
        return Ok(0);
    }
    Ok(to_boundary(window, 0, &mut |_| {})?.1)
}

fn message(window: &mut Window<'_>, start: u64) -> io::Result<Option<Message>> {
    let view = window.view(start, LOOK)?;
    if !from_line::begins(view) {
        return Ok(None);
    }
    let line = memchr::memchr(b'\n', view).map_or(view.len(), |at| at + 1);
    let header = start.saturating_add(count(line));
    let facts = Facts::of_header(window, header)?;
    let mut client = Client::new(facts.quoted);
    client.copy(window, header, facts.body)?;
    let (body_end, end) = match facts
        .content_length
        .map(|length| counted(window, facts.body, length))
        .transpose()?
        .flatten()
    {
        Some((body_end, end)) => {
            client.copy(window, facts.body, body_end)?;
            (body_end, end)
        }
        None => to_boundary(window, facts.body, &mut |bytes| client.take(bytes))?,
    };
    let (size, digest) = client.finish();
    Ok(Some(Message {
        start,
        header,
        body: facts.body,
        body_end,
        end,
        size,
        digest,
        occurrence: 0,
        quoted: facts.quoted,
        internal: facts.imap && facts.dont_delete,
    }))
}

/// What a header tells the scanner.
#[derive(Default)]
struct Facts {
    body: u64,
    content_length: Option<u64>,
    quoted: bool,
    imap: bool,
    dont_delete: bool,
}

impl Facts {
    fn of_header(window: &mut Window<'_>, header: u64) -> io::Result<Self> {
        let mut facts = Self::default();
        let mut at = header;
        let mut within_line = false;
        loop {
            let view = window.view(at, LOOK)?;
            if view.is_empty() {
                break;
            }
            // What a field says does not depend on how much more the window holds.
            let view = view.get(..LOOK).unwrap_or(view);
            let end = memchr::memchr(b'\n', view).map(|end| end + 1);
            let line = view.get(..end.unwrap_or(view.len())).unwrap_or_default();
            at = at.saturating_add(count(line.len()));
            if !within_line {
                // A CR alone is the last byte of the file: half of the blank line.
                if matches!(line, b"\n" | b"\r\n" | b"\r") {
                    break;
                }
                facts.field(line);
            }
            within_line = end.is_none();
        }
        facts.body = at;
        Ok(facts)
    }

    fn field(&mut self, line: &[u8]) {
        let Some(name) = fields::name(line) else {
            return;
        };
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("Content-Length") && self.content_length.is_none() {
            self.content_length = decimal(fields::value(line));
        } else if is(fields::QUOTED) {
            self.quoted = true;
        } else if is("X-IMAP") {
            self.imap = true;
        } else if is("Subject") {
            self.dont_delete = fields::value(line).starts_with(b"DON'T DELETE THIS MESSAGE");
        }
    }
}

fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |n, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b.wrapping_sub(b'0')))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

/// The end of the body and of the message by Content-Length, if what follows bears it out.
fn counted(window: &mut Window<'_>, body: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    let Some(body_end) = body.checked_add(length).filter(|end| *end <= window.end()) else {
        return Ok(None);
    };
    // A body may lack its last line end: then one must follow. Blank lines may follow in any case.
    let last = match length {
        0 => None,
        _ => window.peek(body_end.saturating_sub(1), 1)?.first().copied(),
    };
    let view = window.peek(body_end, LOOK)?;
    let gap = view.iter().take_while(|b| matches!(b, b'\n' | b'\r')).count();
    let ended = matches!(last, None | Some(b'\n')) || gap > 0 || view.is_empty();
    let cr = view.get(..gap).is_some_and(|line_ends| line_ends.ends_with(b"\r"));
    let at_end = gap == view.len() && gap < LOOK;
    let end = body_end.saturating_add(count(gap));
    // The whole line is looked at, as by whoever reads on from there: were it none for them, all
    // that stands behind would not be listed.
    let followed = !cr && from_line::begins(window.peek(end, LOOK)?);
    Ok((ended && (at_end || followed)).then_some((body_end, end)))
}

/// From a line's start on, finds where the next message begins; gives `sink` what is before the
/// blank line in front of it. Returns the end of that, and where the next message begins.
fn to_boundary(
    window: &mut Window<'_>,
    start: u64,
    sink: &mut dyn FnMut(&[u8]),
) -> io::Result<(u64, u64)> {
    let finder = Finder::new(b"\nFrom ");
    let mut at = start;
    loop {
        let last_read = window.end();
        let view = window.view(at, LOOK.saturating_mul(2))?;
        let seen = at.saturating_add(count(view.len()));
        let at_end = seen >= last_read || view.len() < LOOK;
        let fresh = at == start;
        let limit = if at_end { view.len() } else { view.len().saturating_sub(LOOK) };
        let own_line = (fresh && view.starts_with(b"From ")).then_some(0);
        let found = own_line
            .into_iter()
            .chain(finder.find_iter(view).map(|newline| newline + 1))
            .take_while(|candidate| *candidate < limit)
            .find(|candidate| {
                let (before, line) = view.split_at_checked(*candidate).unwrap_or_default();
                is_boundary(before, fresh, line)
            });
        let place = |offset: usize| at.saturating_add(count(offset));
        if let Some(next) = found {
            let before = view.get(..next).unwrap_or_default();
            let content = without_blank_line(before, fresh);
            sink(content);
            return Ok((place(content.len()), place(next)));
        }
        if at_end {
            let content = without_blank_line(view, fresh);
            sink(content);
            return Ok((place(content.len()), seen));
        }
        // Enough is left for the blank line before the next candidate to be seen again.
        let done = limit.saturating_sub(4);
        sink(view.get(..done).unwrap_or_default());
        at = place(done);
    }
}

/// Whether a message begins where `before` ends and `line` begins.
fn is_boundary(before: &[u8], from_line_start: bool, line: &[u8]) -> bool {
    let header_follows = || {
        // No more than whoever looks at this message alone can see.
        let line = line.get(..LOOK).unwrap_or(line);
        let next = memchr::memchr(b'\n', line).and_then(|end| line.get(end + 1..));
        next.and_then(|next| next.split(|b| *b == b'\n').next())
            .is_some_and(|next| fields::name(next).is_some())
    };
    from_line::begins(line)
        && (after_blank_line(before, from_line_start)
            || (before.ends_with(b"\n") && header_follows()))
}

/// Whether a line that begins behind these bytes stands behind a blank line (or at the start).
fn after_blank_line(before: &[u8], from_line_start: bool) -> bool {
    before.ends_with(b"\n\n")
        || before.ends_with(b"\n\r\n")
        || (from_line_start && matches!(before, b"" | b"\n" | b"\r\n"))
}

fn without_blank_line(content: &[u8], from_line_start: bool) -> &[u8] {
    let blank = if content.ends_with(b"\n\n") || (from_line_start && content == b"\n") {
        1
    } else if content.ends_with(b"\n\r\n") || (from_line_start && content == b"\r\n") {
        2
    } else {
        0
    };
    content.get(..content.len().saturating_sub(blank)).unwrap_or_default()
}

fn count(bytes: usize) -> u64 {
    u64::try_from(bytes).unwrap_or(u64::MAX)
}

/// Counts and digests what a client would get.
struct Client {
    presenter: Presenter,
    out: Vec<u8>,
    size: u64,
    hash: Sha256,
}

impl Client {
    fn new(quoted: bool) -> Self {
        Self {
            presenter: Presenter::new(quoted, None),
            out: Vec::new(),
            size: 0,
            hash: Sha256::new(),
        }
    }

    fn copy(&mut self, window: &mut Window<'_>, mut from: u64, to: u64) -> io::Result<()> {
        while from < to {
            let view = window.view(from, 1)?;
            if view.is_empty() {
                break;
            }
            let left = usize::try_from(to.saturating_sub(from)).unwrap_or(usize::MAX);
            let bytes = view.get(..left).unwrap_or(view);
            let length = count(bytes.len());
            self.take(bytes);
            from = from.saturating_add(length);
        }
        Ok(())
    }

    fn take(&mut self, bytes: &[u8]) {
        self.presenter.push(bytes, &mut self.out);
        self.flush();
    }

    fn flush(&mut self) {
        self.size = self.size.saturating_add(count(self.out.len()));
        self.hash.update(&self.out);
        self.out.clear();
    }

    fn finish(mut self) -> (u64, [u8; 32]) {
        self.presenter.finish(&mut self.out);
        self.flush();
        (self.size, self.hash.finalize().into())
    }
}

#[cfg(test)]
mod tests;
