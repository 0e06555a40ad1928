//! The journal while a change is under way: its steps, each in a record that proves itself.

use std::fs::File;
use std::io;

use xxhash_rust::xxh3::Xxh3Default;

use super::super::record;
use super::super::window::read_full;
use super::plan::{ANCHOR, Plan, hash_at};
use super::{BLOCK, PIECE, RECORD, disk, hash};

const CUT: [u8; 8] = *b"hkredoc2";
const SLOT: [u8; 8] = *b"hkredos2";

/// How far the change has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    pub serial: u64,
    /// From here on the old file is needed.
    pub source: u64,
    /// Everything before this is as it will be, but for the chunk that the step may have.
    pub dest: u64,
    /// [`Plan::ahead_of`] `dest`.
    pub ahead: u64,
    pub kind: StepKind,
}

impl Step {
    /// All before `dest` is written, or stands in the journal.
    pub fn at(plan: &Plan, mailbox: &File, serial: u64, dest: u64) -> io::Result<Self> {
        let (source, ahead) = (plan.source(dest), plan.ahead_of(mailbox, dest)?);
        Ok(Self { serial, source, dest, ahead, kind: StepKind::Start })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepKind {
    /// Nothing has been written.
    Start,
    /// The chunk in this slot, so long, ends at `dest`; with a length of 0 there is none.
    Chunk { slot: u64, length: u64 },
    /// The file is to be cut at `dest`; `source` was its size, so many bytes have this hash.
    Cut { length: u64, sum: u64 },
}

/// A journal and its plan.
#[derive(Debug)]
pub struct Journal {
    pub file: File,
    pub plan: Plan,
}

impl Journal {
    /// The newest step that the journal holds whole.
    pub fn newest(&self) -> io::Result<Step> {
        let plan = &self.plan;
        let start = plan.first();
        let mut newest = Step {
            serial: 0,
            source: start,
            dest: start,
            ahead: plan.ahead,
            kind: StepKind::Start,
        };
        let mut head = [0; RECORD];
        read_full(&self.file, &mut head, plan.cut_at())?;
        if let Some([serial, source, dest, length, sum]) = record::read(CUT, &head)
            && source >= plan.size
            && plan.new_size(source) == dest
            && length <= ANCHOR
            && serial > newest.serial
        {
            // At the end of the file nothing is.
            let ahead = hash(&[]);
            newest = Step { serial, source, dest, ahead, kind: StepKind::Cut { length, sum } };
        }
        for slot in [0, 1] {
            let mut head = [0; RECORD];
            read_full(&self.file, &mut head, plan.slot_at(slot))?;
            let Some([serial, source, dest, ahead, length, sum]) = record::read(SLOT, &head) else {
                continue;
            };
            let fits = dest.checked_sub(length).is_some_and(|from| from >= plan.first())
                && length <= plan.chunk
                && plan.source(dest) == source;
            if fits && serial > newest.serial && hash(&self.chunk(slot, length)?) == sum {
                let kind = StepKind::Chunk { slot, length };
                newest = Step { serial, source, dest, ahead, kind };
            }
        }
        Ok(newest)
    }

    /// The chunk in a slot, or as much of it as there is.
    pub fn chunk(&self, slot: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length.min(self.plan.chunk)).unwrap_or(0)];
        let read = read_full(&self.file, &mut bytes, self.place(slot))?;
        bytes.truncate(read);
        Ok(bytes)
    }

    /// Where the chunk of a slot stands.
    fn place(&self, slot: u64) -> u64 {
        self.plan.slot_at(slot).saturating_add(BLOCK)
    }

    /// Fills `chunk` with what the new file has from `dest` on, and puts it into the slot of the
    /// step with this serial number. Its hash.
    pub fn take(
        &self,
        mailbox: &File,
        dest: u64,
        serial: u64,
        chunk: &mut [u8],
    ) -> io::Result<u64> {
        let (mut from, mut at) = (dest, self.place(serial % 2));
        let mut sum = Xxh3Default::new();
        for piece in chunk.chunks_mut(PIECE) {
            self.plan.fill(mailbox, from, piece)?;
            sum.update(piece);
            disk::send(&self.file, piece, at)?;
            from = from.saturating_add(piece.len() as u64);
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(sum.digest())
    }

    /// Makes the step durable, with the chunk of so many bytes that is in its slot.
    pub fn keep(&self, step: &Step, length: u64, sum: u64) -> io::Result<()> {
        let fields = [step.serial, step.source, step.dest, step.ahead, length, sum];
        let at = self.plan.slot_at(step.serial % 2);
        disk::write(&self.file, &record::write::<RECORD>(SLOT, &fields), at)?;
        disk::sync(&self.file)
    }

    /// Makes the last step durable: the file is to be cut, or stays as large as it is.
    pub fn keep_cut(&self, mailbox: &File, step: &Step) -> io::Result<()> {
        let length = step.source.saturating_sub(step.dest).min(ANCHOR);
        let sum = hash_at(mailbox, step.dest, length)?;
        let fields = [step.serial, step.source, step.dest, length, sum];
        disk::write(&self.file, &record::write::<RECORD>(CUT, &fields), self.plan.cut_at())?;
        disk::sync(&self.file)
    }
}
