//! The structures of a mailbox's messages in a file, so that nobody has to read a message again to
//! tell of its envelope and its parts.
//!
//! ```text
//! file  = magic version generation *frame
//! frame = uid length digest sum-of-body sum-of-head body
//! ```
//!
//! Numbers are little-endian, of 4, 4 and 8 octets in the first line, of 4, 4, 16, 8 and 8 in the
//! second; sums are xxh3-64. Of several frames with one UID the last one counts, and only together
//! with the message's digest.
//!
//! Nothing depends on the file. It may be deleted or cut at any time, what is damaged is as missing,
//! and who can't write it does without. Writers hold flock for an append, and give up where somebody
//! else has it. Readers hold nothing: sums tell them what is no frame any more, and a new generation
//! that all of it stands elsewhere.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use xxhash_rust::xxh3::xxh3_64;

use super::uids::Uid;
use crate::message::structure::{Structure, decode, encode};
use crate::sys::lock::{self, Kind};

const MAGIC: [u8; 4] = *b"hkmc";
/// Another one for each change of what [`encode`] writes.
const VERSION: u32 = 1;
const HEADER: u64 = 16;
const HEAD: u64 = 40;
/// The longest body that is written or believed.
const MAX_BODY: u32 = 32 << 20;
/// How much is read at once, when frames are asked for one behind the other.
const AHEAD: usize = 16 << 10;
/// How much is read at once, when only heads are wanted.
const WINDOW: usize = 64 << 10;
/// So much that nobody needs is no reason to write the file anew.
const SLACK: u64 = 64 << 10;

/// A mailbox's structures.
#[derive(Debug, Default)]
pub struct Cache {
    /// None where there can't be one.
    file: Option<Arc<File>>,
    /// That of the file when it was read; 0 where none was.
    generation: u64,
    /// So far it was read.
    end: u64,
    frames: BTreeMap<Uid, Frame>,
    /// Octets of the file, and where they stand.
    ahead: Vec<u8>,
    ahead_at: u64,
    /// Behind the frame that was asked for last.
    next: u64,
}

/// Where a frame is.
#[derive(Clone, Copy, Debug)]
struct Frame {
    at: u64,
    body: u32,
}

impl Frame {
    fn length(self) -> u64 {
        HEAD + u64::from(self.body)
    }
}

/// The head of a frame.
struct Head {
    uid: Uid,
    body: u32,
    digest: [u8; 16],
    sum: u64,
}

impl Head {
    fn octets(&self) -> Vec<u8> {
        let mut octets = Vec::new();
        octets.extend_from_slice(&self.uid.to_le_bytes());
        octets.extend_from_slice(&self.body.to_le_bytes());
        octets.extend_from_slice(&self.digest);
        octets.extend_from_slice(&self.sum.to_le_bytes());
        let sum = xxh3_64(&octets);
        octets.extend_from_slice(&sum.to_le_bytes());
        octets
    }

    fn of(octets: &[u8]) -> Option<Self> {
        let (summed, rest) = octets.split_at_checked(32)?;
        let (sum, _) = rest.split_first_chunk()?;
        if u64::from_le_bytes(*sum) != xxh3_64(summed) {
            return None;
        }
        let (uid, rest) = summed.split_first_chunk()?;
        let (body, rest) = rest.split_first_chunk()?;
        let (digest, rest) = rest.split_first_chunk()?;
        let (sum, _) = rest.split_first_chunk()?;
        let body = u32::from_le_bytes(*body);
        let (uid, sum) = (u32::from_le_bytes(*uid), u64::from_le_bytes(*sum));
        (body <= MAX_BODY).then_some(Self { uid, body, digest: *digest, sum })
    }
}

impl Cache {
    /// The cache in this file, which is open for reading and writing; without one nothing is kept.
    pub fn open(file: Option<File>) -> Self {
        Self { file: file.map(Arc::new), ..Self::default() }
    }

    /// The structure of a message, if it is known.
    pub fn get(&mut self, uid: Uid, digest: &[u8; 16]) -> Option<Structure> {
        // A second time where the file was written anew behind our back.
        for _ in 0..2 {
            if !self.frames.contains_key(&uid) {
                self.catch_up().ok()?;
            }
            let frame = *self.frames.get(&uid)?;
            if let Some(structure) = self.read(uid, digest, frame) {
                return Some(structure);
            }
            self.frames.remove(&uid);
        }
        None
    }

    fn read(&mut self, uid: Uid, digest: &[u8; 16], frame: Frame) -> Option<Structure> {
        let octets = self.octets(frame)?;
        let head = Head::of(octets)?;
        let body = octets.get(usize::try_from(HEAD).ok()?..)?;
        let is_it = (head.uid, head.body, &head.digest) == (uid, frame.body, digest);
        (is_it && head.sum == xxh3_64(body)).then(|| decode(body))?
    }

    /// The octets of a frame; some may be of a frame that stood there before.
    fn octets(&mut self, frame: Frame) -> Option<&[u8]> {
        let length = usize::try_from(frame.length()).ok()?;
        let from = |at: u64| usize::try_from(frame.at.checked_sub(at)?).ok();
        let there = from(self.ahead_at).map(|from| self.ahead.len().saturating_sub(from));
        if there.is_none_or(|there| there < length) {
            // Who asks for one behind the other gets some at once.
            let known = usize::try_from(self.end.saturating_sub(frame.at)).unwrap_or(AHEAD);
            let most = if frame.at == self.next { AHEAD.min(known) } else { 0 };
            self.ahead.clear();
            self.ahead.resize(length.max(most), 0);
            let read = self.file.as_ref()?.read_at(&mut self.ahead, frame.at);
            self.ahead.truncate(read.unwrap_or(0));
            self.ahead_at = frame.at;
        }
        self.next = frame.at.saturating_add(frame.length());
        let from = from(self.ahead_at)?;
        self.ahead.get(from..from.checked_add(length)?)
    }

    /// Keeps the structure of a message.
    pub fn put(&mut self, uid: Uid, digest: &[u8; 16], structure: &Structure) {
        let body = encode(structure);
        let Some(length) = u32::try_from(body.len()).ok().filter(|length| *length <= MAX_BODY)
        else {
            return;
        };
        let head = Head { uid, body: length, digest: *digest, sum: xxh3_64(&body) };
        let octets = [head.octets(), body].concat();
        // Without it everything works, only slower.
        let _ = self.locked(|cache, file| {
            cache.ready(file)?;
            file.write_all_at(&octets, cache.end)?;
            cache.frames.insert(uid, Frame { at: cache.end, body: length });
            cache.end += octets.len() as u64;
            Ok(())
        });
    }

    /// Forgets the messages that are not wanted any more. The file is written anew where it is more
    /// than twice as large as it need be.
    pub fn keep_only(&mut self, wanted: impl Fn(Uid) -> bool) {
        if self.catch_up().is_err() {
            return;
        }
        self.frames.retain(|uid, _| wanted(*uid));
        let needed: u64 = self.frames.values().map(|frame| frame.length()).sum();
        if self.end > HEADER + 2 * needed + SLACK {
            let _ = self.locked(|cache, file| {
                cache.catch_up()?;
                cache.frames.retain(|uid, _| wanted(*uid));
                cache.compact(file)
            });
        }
    }

    /// Does something while nobody else writes; nothing where somebody does.
    fn locked(&mut self, work: impl FnOnce(&mut Self, &File) -> io::Result<()>) -> io::Result<()> {
        let Some(file) = self.file.clone() else {
            return Ok(());
        };
        if !lock::try_flock(&file, Kind::Exclusive)? {
            return Ok(());
        }
        let worked = work(self, &file);
        lock::unlock_flock(&file).and(worked)
    }

    /// Reads the heads of what is new in the file; all of them where it is another one.
    fn catch_up(&mut self) -> io::Result<()> {
        let Some(file) = &self.file else {
            return Ok(());
        };
        let size = file.metadata()?.len();
        let generation = generation(file);
        if generation != Some(self.generation) || size < self.end {
            self.frames.clear();
            self.ahead.clear();
            self.end = HEADER;
            self.generation = generation.unwrap_or_default();
        }
        if generation.is_none() {
            return Ok(());
        }
        let mut window = Vec::new();
        let mut window_at = self.end;
        while self.end < size {
            let skip = usize::try_from(self.end - window_at).unwrap_or(usize::MAX);
            let mut head = window.get(skip..).and_then(Head::of);
            if head.is_none() {
                // It is cut off there, or damaged.
                let length = (size - self.end).min(WINDOW as u64);
                window.resize(usize::try_from(length).unwrap_or(WINDOW), 0);
                window_at = self.end;
                file.read_exact_at(&mut window, window_at)?;
                head = Head::of(&window);
            }
            let Some(head) = head else { break };
            let frame = Frame { at: self.end, body: head.body };
            if frame.length() > size - self.end {
                break;
            }
            self.frames.insert(head.uid, frame);
            self.end += frame.length();
        }
        Ok(())
    }

    /// Makes the file one that can be appended to at `end`.
    fn ready(&mut self, file: &File) -> io::Result<()> {
        self.catch_up()?;
        if self.generation == 0 {
            self.begin(file)?;
            self.end = HEADER;
        }
        // What is torn or damaged goes, with all behind it.
        if file.metadata()?.len() > self.end { file.set_len(self.end) } else { Ok(()) }
    }

    /// Writes a header that nobody knows yet.
    fn begin(&mut self, file: &File) -> io::Result<()> {
        self.ahead.clear();
        let mut octets = [0; 8];
        getrandom::fill(&mut octets).map_err(|error| io::Error::other(error.to_string()))?;
        self.generation = u64::from_le_bytes(octets).max(1);
        let mut header = MAGIC.to_vec();
        header.extend_from_slice(&VERSION.to_le_bytes());
        header.extend_from_slice(&self.generation.to_le_bytes());
        file.write_all_at(&header, 0)
    }

    /// Moves what is kept to the front of the file. Ended on the way, it leaves frames that are
    /// good, and then one that is none.
    fn compact(&mut self, file: &File) -> io::Result<()> {
        self.begin(file)?;
        let mut kept: Vec<_> = std::mem::take(&mut self.frames).into_iter().collect();
        kept.sort_by_key(|(_, frame)| frame.at);
        self.end = HEADER;
        for (uid, frame) in kept {
            let length = usize::try_from(frame.length()).map_err(io::Error::other)?;
            let mut octets = vec![0; length];
            file.read_exact_at(&mut octets, frame.at)?;
            file.write_all_at(&octets, self.end)?;
            self.frames.insert(uid, Frame { at: self.end, ..frame });
            self.end += frame.length();
        }
        file.set_len(self.end)
    }
}

/// The generation of a file of ours.
fn generation(file: &File) -> Option<u64> {
    let mut header = [0; 16];
    file.read_exact_at(&mut header, 0).ok()?;
    let rest = header.strip_prefix(&MAGIC)?.strip_prefix(&VERSION.to_le_bytes())?;
    let (generation, _) = rest.split_first_chunk()?;
    Some(u64::from_le_bytes(*generation)).filter(|generation| *generation != 0)
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
