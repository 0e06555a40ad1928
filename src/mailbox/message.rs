//! A message on its way into a mailbox, whole before any mailbox is touched.
//!
//! [`Staged`] is what arrived, in the one form that every mailbox's form is made of; a
//! [`NewMessage`] is it with what only its delivery knows. What an mbox or a Maildir makes of it,
//! they say themselves.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::SystemTime;

/// How much of the part in a file is in memory at once.
const CHUNK: u64 = 64 * 1024;

/// A message as it arrived: header, blank line, body, line ends LF, the last line ended; without
/// fields that only a mailbox has. Made by [`super::Stager`].
///
/// What is large lies in a file without a name.
#[derive(Debug, Default)]
pub struct Staged {
    /// The beginning, with its length.
    pub(super) spool: Option<(File, u64)>,
    /// NULs of that.
    pub(super) spooled_nuls: u64,
    /// The rest.
    pub(super) memory: Vec<u8>,
    /// Bytes of the header, its blank line included.
    pub(super) header: u64,
    /// Lines.
    pub(super) lines: u64,
    /// Those of them that end with CRLF.
    pub(super) crlf_lines: u64,
    /// Lines of the body that begin `^>*From `.
    pub(super) from_lines: u64,
    /// The value of Message-ID, unfolded; its beginning, if it is very long.
    pub(super) message_id: Option<Vec<u8>>,
    /// The values of Delivered-To.
    pub(super) delivered_to: Vec<Vec<u8>>,
}

impl Staged {
    /// Its length in bytes.
    pub fn length(&self) -> u64 {
        let spooled = self.spool.as_ref().map_or(0, |(_, length)| *length);
        spooled.saturating_add(self.memory.len() as u64)
    }

    /// Its length with CRLF line ends.
    pub fn network_length(&self) -> u64 {
        self.length().saturating_add(self.lines.saturating_sub(self.crlf_lines))
    }

    /// How many NULs are in it.
    pub fn nuls(&self) -> u64 {
        self.spooled_nuls.saturating_add(memchr::memchr_iter(0, &self.memory).count() as u64)
    }

    /// The value of Message-ID.
    pub fn message_id(&self) -> Option<&[u8]> {
        self.message_id.as_deref()
    }

    /// Whether its header says that it was delivered to somebody that `is_same` knows, or too
    /// often.
    pub fn was_delivered_to(&self, is_same: impl Fn(&[u8]) -> bool) -> bool {
        self.delivered_to.len() > super::stage::MOST_DELIVERIES
            || self.delivered_to.iter().any(|address| is_same(address))
    }

    /// The beginning of the header, without its blank line; at most so many bytes.
    pub fn header(&self, most: usize) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.header.saturating_sub(1)).unwrap_or(most).min(most);
        let mut header = vec![0; length];
        match &self.spool {
            Some((file, _)) => file.read_exact_at(&mut header, 0)?,
            None => header.clone_from_slice(self.memory.get(..length).unwrap_or_default()),
        }
        Ok(header)
    }

    /// Gives the bytes in their order to `sink`, in large pieces.
    pub fn each(&self, sink: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        if let Some((file, length)) = &self.spool {
            let mut buffer = Vec::new();
            let mut at = 0;
            while at < *length {
                let n = CHUNK.min(length.saturating_sub(at));
                buffer.resize(usize::try_from(n).unwrap_or(0), 0);
                file.read_exact_at(&mut buffer, at)?;
                sink(&buffer)?;
                at = at.saturating_add(n);
            }
        }
        if self.memory.is_empty() { Ok(()) } else { sink(&self.memory) }
    }
}

/// A message for one mailbox.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// The reverse-path, without angle brackets; empty for the null sender.
    pub sender: Vec<u8>,
    /// When it arrives.
    pub at: SystemTime,
    /// Header fields that its delivery puts on top, line ends LF.
    pub trace: Vec<u8>,
    /// What arrived.
    pub text: Rc<Staged>,
}

impl NewMessage {
    /// With `Return-Path` (RFC 5321 section 4.4) and `Delivered-To` (RFC 9228) on top.
    pub fn delivered(sender: &[u8], recipient: &[u8], at: SystemTime, text: Rc<Staged>) -> Self {
        let clean = |b: &u8| if b.is_ascii_control() { b'?' } else { *b };
        let mut trace = b"Return-Path: <".to_vec();
        trace.extend(sender.iter().map(clean));
        trace.extend_from_slice(b">\nDelivered-To: ");
        trace.extend(recipient.iter().map(clean));
        trace.push(b'\n');
        Self { sender: sender.to_vec(), at, trace, text }
    }

    /// The length in bytes of trace and text.
    pub fn length(&self) -> u64 {
        self.text.length().saturating_add(self.trace.len() as u64)
    }
}
