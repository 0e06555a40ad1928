//! Changes killed at any step, and with the power cut at any moment; journals that lie.

use std::cell::RefCell;
use std::fs;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::time::Duration;

use super::plan::{Edit, Plan};
use super::*;
use crate::config::LockKind;
use crate::mailbox::Place;
use crate::mailbox::mbox::Mbox;
use crate::mailbox::moment::killed_at;

/// What happens to a file.
#[derive(Clone, Debug)]
pub enum What {
    Write(u64, Vec<u8>),
    Size(u64),
    Sync,
}

thread_local! {
    static NOTES: RefCell<Option<Vec<(u64, What)>>> = const { RefCell::new(None) };
}

/// Keeps what happens to a file, with its inode, if somebody wants to know.
pub fn note(file: &File, what: What) {
    NOTES.with_borrow_mut(|notes| {
        if let Some(notes) = notes {
            notes.push((file.metadata().unwrap().ino(), what));
        }
    });
}

/// A mailbox in a directory of its own.
struct Home {
    dir: tempfile::TempDir,
    index: Directory,
}

impl Home {
    fn new(content: &[u8]) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        fs::write(dir.path().join("box"), content).unwrap();
        let owner = nix::unistd::geteuid();
        let index = Directory::new(&dir.path().join("index"), &dir.path().join("box"), owner);
        index.make().unwrap();
        Self { dir, index }
    }

    fn inbox(&self) -> PathBuf {
        self.dir.path().join("box")
    }

    fn open(&self) -> Opened {
        let place = Place {
            path: self.inbox(),
            index: self.index.path.clone(),
            owner: nix::unistd::geteuid(),
            locks: vec![LockKind::Fcntl],
            libexec: "/nonexistent".into(),
            lock_timeout: Duration::from_millis(200),
            quota: 0,
        };
        Mbox::new(place).lock(crate::sys::lock::Kind::Exclusive, false).unwrap().unwrap()
    }

    fn edit(&self, edits: &[Edit]) -> Result<(), Error> {
        edit(&mut self.open(), &self.index, edits)
    }

    /// Finishes what is under way; the warnings.
    fn recover(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        recover(&mut self.open(), &self.index, &mut warnings).unwrap();
        warnings
    }

    fn content(&self) -> Vec<u8> {
        fs::read(self.inbox()).unwrap()
    }

    fn append(&self, bytes: &[u8]) {
        use std::io::Write;
        let mut file = fs::OpenOptions::new().append(true).open(self.inbox()).unwrap();
        file.write_all(bytes).unwrap();
    }
}

/// Numbers that look random, the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963);
        (self.0 >> 33) % most.max(1)
    }

    fn bytes(&mut self, length: u64) -> Vec<u8> {
        (0..length).map(|_| b'a' + u8::try_from(self.below(26)).unwrap()).collect()
    }

    /// Edits that one pass can do, of a file so large.
    fn edits(&mut self, size: u64) -> Vec<Edit> {
        let (mut edits, mut at, mut saved) = (Vec::new(), 0, 0);
        let (far, long) = ([50, 500, 9000][self.index(3)], [20, 300, 6000][self.index(3)]);
        let room = self.below(4);
        loop {
            let start = at + self.below(far);
            let end = start + self.below(long);
            if end > size || edits.len() > 40 {
                return edits;
            }
            saved += end - start;
            let length = match (room, self.below(3)) {
                (0, _) | (_, 0) => 0,
                // All that there is, which is when nothing moves any more.
                (3, 1) => saved,
                _ => self.below(saved + 1),
            };
            saved -= length;
            edits.push(Edit { start, end, with: self.bytes(length) });
            at = end;
        }
    }

    fn index(&mut self, most: usize) -> usize {
        usize::try_from(self.below(most as u64)).unwrap()
    }
}

fn cut_out(start: u64, end: u64, with: &[u8]) -> Edit {
    Edit { start, end, with: with.to_vec() }
}

/// The same, done slowly.
fn edited(content: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut new = content.to_vec();
    for edit in edits.iter().rev() {
        let range = usize::try_from(edit.start).unwrap()..usize::try_from(edit.end).unwrap();
        new.splice(range, edit.with.iter().copied());
    }
    new
}

#[test]
fn random_edits_give_what_they_say_whether_killed_or_not() {
    let mut dice = Dice(7);
    for round in 0..800 {
        let size = dice.below([100, 5000, 60_000][round % 3]);
        let content = dice.bytes(size);
        let edits = dice.edits(size);
        let wanted = edited(&content, &edits);
        let home = Home::new(&content);
        home.edit(&edits).unwrap();
        assert!(home.content() == wanted, "round {round}: {size} {edits:?}");
        assert!(!is_pending(&home.index).unwrap());
        let length = dice.below(3) * dice.below(9000);
        let more = [&b"From "[..], &dice.bytes(length)].concat();
        for _ in 0..4 {
            let home = Home::new(&content);
            let killed = killed_at(u32::try_from(dice.below(60)).unwrap(), || {
                home.edit(&edits).unwrap();
            });
            let begun = is_pending(&home.index).unwrap();
            home.append(&more);
            killed_at(u32::try_from(dice.below(60)).unwrap(), || drop(home.recover()));
            assert!(home.recover().is_empty());
            let undone = killed && !begun && home.content() == [&content[..], &more].concat();
            let done = home.content() == [&wanted[..], &more].concat();
            assert!(undone || done, "round {round}: {size} {edits:?}");
        }
    }
}

#[test]
fn what_inserts_more_than_was_removed_before_it_is_refused_and_nothing_is_changed() {
    let home = Home::new(b"0123456789");
    let refused = [
        vec![cut_out(2, 4, b"abc")],
        vec![cut_out(3, 3, b"a")],
        vec![cut_out(0, 2, b"a"), cut_out(4, 4, b"ab"), cut_out(5, 9, b"")],
        vec![cut_out(4, 6, b""), cut_out(5, 7, b"")],
        vec![cut_out(4, 6, b""), cut_out(1, 2, b"")],
        vec![cut_out(4, 11, b"")],
        vec![cut_out(4, 3, b"")],
    ];
    for edits in refused {
        let failed = home.edit(&edits);
        assert!(matches!(failed, Err(Error::Io { .. })), "{edits:?}: {failed:?}");
        assert_eq!(home.content(), b"0123456789");
        assert!(!is_pending(&home.index).unwrap());
    }
    let said = home.edit(&[cut_out(2, 4, b"abc")]).unwrap_err().to_string();
    assert!(said.contains("more would be inserted than was removed before it"), "{said}");
    home.edit(&[cut_out(3, 3, b"")]).unwrap();
    assert_eq!(home.content(), b"0123456789");
    home.edit(&[cut_out(0, 2, b"a"), cut_out(4, 4, b"b"), cut_out(8, 10, b"zz")]).unwrap();
    assert_eq!(home.content(), b"a23b4567zz");
}

#[test]
fn what_stays_where_it_is_is_neither_read_nor_written() {
    let content = Dice(1).bytes(100_000);
    let edits = [cut_out(500, 504, b"four"), cut_out(90_000, 90_010, b"0123456789")];
    let home = Home::new(&content);
    NOTES.set(Some(Vec::new()));
    home.edit(&edits).unwrap();
    let ino = fs::metadata(home.inbox()).unwrap().ino();
    let written = NOTES.take().unwrap().into_iter().filter_map(|(file, what)| match what {
        What::Write(at, bytes) if file == ino => Some((at, bytes)),
        What::Size(_) => panic!("the file was cut"),
        _ => None,
    });
    let written: Vec<_> = written.collect();
    assert_eq!(written, [(500, b"four".to_vec()), (90_000, b"0123456789".to_vec())]);
    assert_eq!(home.content(), edited(&content, &edits));
}

/// What a disk may hold of a file: what is durable, and what may be.
#[derive(Clone)]
struct OnDisk {
    durable: Vec<u8>,
    pending: Vec<What>,
}

fn apply(bytes: &mut Vec<u8>, what: &What) {
    match what {
        What::Write(at, new) => {
            let (at, end) =
                (usize::try_from(*at).unwrap(), usize::try_from(*at).unwrap() + new.len());
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[at..end].copy_from_slice(new);
        }
        What::Size(size) => bytes.resize(usize::try_from(*size).unwrap(), 0),
        What::Sync => {}
    }
}

impl OnDisk {
    fn new(durable: Vec<u8>) -> Self {
        Self { durable, pending: Vec::new() }
    }

    fn happens(&mut self, what: What) {
        match what {
            What::Sync => {
                for what in self.pending.drain(..) {
                    apply(&mut self.durable, &what);
                }
            }
            // Each block by itself.
            What::Write(mut at, mut bytes) => {
                while !bytes.is_empty() {
                    let left = usize::try_from(BLOCK - at % BLOCK).unwrap().min(bytes.len());
                    let rest = bytes.split_off(left);
                    self.pending.push(What::Write(at, std::mem::replace(&mut bytes, rest)));
                    at += left as u64;
                }
            }
            size @ What::Size(_) => self.pending.push(size),
        }
    }

    fn state(&self, reached: &mut dyn FnMut(usize) -> bool) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for (n, what) in self.pending.iter().enumerate() {
            if reached(n) {
                apply(&mut bytes, what);
            }
        }
        bytes
    }
}

/// Cuts the power at each moment of a change, and looks whether it is finished from what is on the
/// disk then; once more with the power cut in the recovery.
fn cut_the_power(content: &[u8], edits: &[Edit], more: &[u8], dice: &mut Dice) -> usize {
    let home = Home::new(content);
    let wanted = [&edited(content, edits)[..], more].concat();
    // The journal as it gets its name.
    let mut n = 0;
    while !is_pending(&home.index).unwrap() {
        fs::write(home.inbox(), content).unwrap();
        assert!(killed_at(n, || home.edit(edits).unwrap()));
        n += 1;
    }
    assert!(home.content() == content);
    home.append(more);
    let disks = [OnDisk::new(home.content()), OnDisk::new(journal_bytes(&home))];
    replay(&home, &disks, &wanted, 1, dice)
}

fn journal_bytes(home: &Home) -> Vec<u8> {
    let journal = home.index.file(ENDING, false).unwrap().unwrap();
    let mut bytes = vec![0; usize::try_from(journal.metadata().unwrap().len()).unwrap()];
    journal.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

/// Goes on from what is on the disks.
fn replay(home: &Home, disks: &[OnDisk; 2], wanted: &[u8], again: usize, dice: &mut Dice) -> usize {
    put_back(home, &[disks[0].durable.clone(), disks[1].durable.clone()]);
    let ino = fs::metadata(home.inbox()).unwrap().ino();
    NOTES.set(Some(Vec::new()));
    let warnings = home.recover();
    let notes = NOTES.take().unwrap();
    assert!(warnings.is_empty() && home.content() == wanted, "not even without a power cut");
    let mut disks = disks.clone();
    let mut states = 0;
    for (file, what) in notes {
        disks[usize::from(file != ino)].happens(what);
        let count = disks[0].pending.len() + disks[1].pending.len();
        for choice in 0..(2 * count + 8) {
            let mut n = 0;
            let mut reached = |_: usize| {
                n += 1;
                match choice {
                    0 => true,
                    1 => false,
                    one if one < count + 2 => n == one - 1,
                    but if but < 2 * count + 2 => n != but - count - 1,
                    _ => dice.below(2) == 0,
                }
            };
            let found = [disks[0].state(&mut reached), disks[1].state(&mut reached)];
            states += 1;
            if again > 0 && dice.below(250) == 0 {
                let disks = found.map(OnDisk::new);
                states += replay(home, &disks, wanted, again - 1, dice);
                continue;
            }
            put_back(home, &found);
            assert!(home.recover().is_empty(), "the journal was set aside");
            assert!(home.content() == wanted, "something is lost");
        }
    }
    states
}

fn put_back(home: &Home, [inbox, journal]: &[Vec<u8>; 2]) {
    fs::write(home.inbox(), inbox).unwrap();
    let file = home.index.file(ENDING, true).unwrap().unwrap();
    file.set_len(0).unwrap();
    file.write_all_at(journal, 0).unwrap();
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing() {
    let mut dice = Dice(3);
    let content = dice.bytes(22_000);
    let seven = b"seven!!".repeat(100);
    let changes = [
        // All near; all far; from near to far and back; used up in the middle; of the same size.
        vec![cut_out(100, 300, b"")],
        vec![cut_out(100, 6000, b"")],
        vec![cut_out(1000, 1600, &seven[..50]), cut_out(9000, 12_000, &seven[..500])],
        vec![cut_out(50, 5000, b"x"), cut_out(9000, 9000, &vec![b'y'; 4800])],
        vec![
            cut_out(10, 700, b""),
            cut_out(8000, 8000, &seven[..690]),
            cut_out(15_000, 17_000, b""),
        ],
        vec![cut_out(10, 710, &seven), cut_out(15_000, 19_000, &vec![b'z'; 4000])],
    ];
    let mut states = 0;
    for edits in changes {
        for more in [&b""[..], b"From neighbour", &vec![b'n'; 5000]] {
            states += cut_the_power(&content, &edits, more, &mut dice);
        }
    }
    assert!(states > 2000, "{states}");
}

#[test]
fn a_journal_that_is_damaged_anywhere_does_no_harm() {
    let content = Dice(2).bytes(12_000);
    let edits = [cut_out(100, 400, b"some"), cut_out(5000, 5100, &[b'i'; 300])];
    let wanted = edited(&content, &edits);
    let home = Home::new(&content);
    for n in [6, 12, 17, 21, 40] {
        let _ = home.index.remove(ENDING);
        fs::write(home.inbox(), &content).unwrap();
        killed_at(n, || home.edit(&edits).unwrap());
        if !is_pending(&home.index).unwrap() {
            continue;
        }
        let half = [home.content(), journal_bytes(&home)];
        for at in 0..half[1].len() {
            // All of what is looked at, and some of the rest.
            if at % 4096 > 420 && at % 61 != 0 {
                continue;
            }
            let mut damaged = half.clone();
            damaged[1][at] ^= 0x41;
            put_back(&home, &damaged);
            let warnings = home.recover();
            // It is the step before, which is no harm, or the journal is not believed.
            let left = home.content() == half[0];
            let goes_on = home.content() == wanted;
            assert!(left && warnings.len() == 1 || goes_on && warnings.is_empty(), "{n} {at}");
            let _ = home.index.remove(BAD);
        }
        for length in (0..half[1].len()).step_by(97) {
            put_back(&home, &[half[0].clone(), half[1][..length].to_vec()]);
            let warnings = home.recover();
            let (left, goes_on) = (home.content() == half[0], home.content() == wanted);
            assert!(left && warnings.len() == 1 || goes_on && warnings.is_empty(), "{n} {length}");
            let _ = home.index.remove(BAD);
        }
    }
}

#[test]
fn a_plan_is_read_as_it_was_written_and_no_longer_than_its_journal() {
    let home = Home::new(b"");
    let edits = [cut_out(5, 20, b"abc"), cut_out(30, 31, b"")];
    let plan = Plan::new(7, 100, &edits).unwrap().unwrap();
    let file = home.index.file(NEW, true).unwrap().unwrap();
    plan.write(&file).unwrap();
    assert_eq!(Plan::read(&file).unwrap(), Some(plan));
    file.set_len(BLOCK + 50).unwrap();
    assert_eq!(Plan::read(&file).unwrap(), None);
}

#[test]
fn what_is_appended_to_a_file_that_should_have_been_cut_moves_down_though_we_are_killed_again() {
    let (content, more) = (Dice(4).bytes(9000), Dice(5).bytes(5000));
    let edits = [cut_out(100, 3100, b"")];
    let wanted = edited(&content, &edits);
    for n in 0..60 {
        for again in 0..40 {
            let home = Home::new(&content);
            killed_at(n, || home.edit(&edits).unwrap());
            let begun = is_pending(&home.index).unwrap() || home.content() == wanted;
            home.append(&more);
            killed_at(again, || drop(home.recover()));
            assert!(home.recover().is_empty());
            let before = if begun { &wanted } else { &content };
            assert!(home.content() == [&before[..], &more].concat(), "{n} {again}");
        }
    }
}
