//! From drop/ into incoming/.
//!
//! What stands in drop/ belongs to the user who called sendmail, who may still have the file open
//! and change it: it is checked and copied, never moved. Killed between the copy and the removal,
//! the message is copied again: it is sent twice, never lost.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::file::{open_entry, take};
use super::spool::Error;
use super::{Entry, Envelope, Id, Inlet, Origin, Place, Spool};
use crate::message::received::{From, Received};
use crate::sys::{clock, lock};

/// A file that did not come in, and why.
#[derive(Debug)]
pub struct Problem {
    /// Below the queue's directory.
    pub file: PathBuf,
    /// What is wrong with it, and where it is now.
    pub what: String,
}

/// Brings everything in drop/ in, and removes what dead writers left in incoming/. Returns what
/// could not be brought in: damaged files are set aside, others wait for the next run. No file keeps
/// the others, or the run, from going on: a full disk is made empty by deliveries.
pub fn run(spool: &Spool, inlet: &Inlet, hostname: &str, max_size: u64) -> Vec<Problem> {
    let mut problems = Vec::new();
    for directory in ["drop", "incoming"] {
        let names = spool.names(directory).unwrap_or_else(|error| {
            problems.push(Problem { file: directory.into(), what: error.to_string() });
            Vec::new()
        });
        for name in names {
            let file = Path::new(directory).join(&name);
            if name.starts_with('.') {
                remove_dead_draft(&spool.root().join(&file));
                continue;
            }
            let done = match Id::parse(&name) {
                None => Err(Error::Damaged("has a name that is no queue id")),
                Some(_) if directory == "incoming" => continue,
                Some(id) => bring_in(spool, inlet, &file, id, hostname, max_size),
            };
            let what = match done {
                Ok(()) | Err(Error::Taken) => continue,
                // Its owner has cut it off since it was verified.
                Err(Error::Io(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    set_aside(spool, &file, "is cut off")
                }
                Err(Error::Io(error)) => format!("{error}; it waits there"),
                Err(Error::Damaged(what)) => set_aside(spool, &file, what),
            };
            problems.push(Problem { file, what });
        }
    }
    problems
}

fn set_aside(spool: &Spool, file: &Path, what: &str) -> String {
    match spool.set_aside_file(file) {
        Ok(()) => format!("{what}; moved to corrupt/"),
        Err(error) => format!("{what}; can't be moved to corrupt/: {error}"),
    }
}

fn bring_in(
    spool: &Spool,
    inlet: &Inlet,
    file: &Path,
    id: Id,
    hostname: &str,
    max_size: u64,
) -> Result<(), Error> {
    let path = spool.root().join(file);
    let opened = open_entry(&path, false)?;
    take(&opened, &path)?;
    let entry = Entry::read(opened, Place::Incoming(id))?;
    if entry.size() > max_size {
        return Err(Error::Damaged("is larger than max_message_size"));
    }
    entry.verify()?;
    let uid = entry.owner()?;
    let arrived = clock::seconds();
    let envelope = Envelope { origin: Origin::User(uid), arrived, ..entry.envelope.clone() };
    let mut draft = inlet.create(Id::new()?, &envelope)?;
    let received = Received {
        from: From::User(uid),
        by: hostname,
        with: None,
        id: draft.id().as_str(),
        recipient: envelope.only_recipient(),
        time: &clock::now(),
    };
    let field = received.field();
    draft.write(field.as_bytes())?;
    // Its owner may have changed the text since it was verified: only whole lines with CRLF, as
    // the rest of the queue expects them, are copied.
    let mut buffer = vec![0; 128 * 1024];
    let (mut offset, mut last) = (0, b'\n');
    loop {
        let count = entry.read_content(offset, &mut buffer)?;
        let text = buffer.get(..count).unwrap_or_default();
        if text.is_empty() {
            break;
        }
        if !has_clean_line_ends(last, text) {
            return Err(Error::Damaged("has line ends other than CRLF"));
        }
        last = text.last().copied().unwrap_or(last);
        draft.write(text)?;
        offset += count as u64;
    }
    if last == b'\r' {
        return Err(Error::Damaged("has line ends other than CRLF"));
    }
    draft.commit()?;
    fs::remove_file(&path)?;
    Ok(())
}

/// Whether every CR in `text` is followed by LF and every LF preceded by CR; `last` is the byte
/// before it (LF at the start), and a CR at the very end is judged with the next text.
fn has_clean_line_ends(last: u8, text: &[u8]) -> bool {
    let mut before = last;
    if before == b'\r' && text.first() != Some(&b'\n') {
        return false;
    }
    for at in memchr::memchr2_iter(b'\r', b'\n', text) {
        let clean = match text.get(at) {
            Some(b'\n') => {
                let previous =
                    if at == 0 { before } else { text.get(at - 1).copied().unwrap_or(0) };
                previous == b'\r'
            }
            _ => matches!(text.get(at + 1), Some(b'\n') | None),
        };
        if !clean {
            return false;
        }
        before = 0;
    }
    true
}

/// A draft that has a name is held by its writer's lock; without it the writer is dead.
fn remove_dead_draft(path: &Path) {
    let dead = open_entry(path, false)
        .is_ok_and(|file| lock::try_flock(&file, lock::Kind::Exclusive).unwrap_or(false));
    if dead {
        let _ = fs::remove_file(path);
    }
}
