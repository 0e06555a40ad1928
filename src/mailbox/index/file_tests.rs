//! The index file: killed at every step, torn and flipped at every place, used by many at once.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;

use super::{ENDING, Index, NEW, Opened};
use crate::mailbox::Error;
use crate::mailbox::index::{Change, Directory, State};
use crate::mailbox::moment::killed_at;
use crate::mailbox::store::{Extent, Flags, Marking, Marks, Message};
use crate::mailbox::uids::UidSet;

/// An index directory of its own.
pub(in crate::mailbox::index) struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new() -> Self {
        // In memory: there are thousands of fsyncs.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        Self { dir: dir.unwrap() }
    }

    /// With an index of this state.
    pub fn with(state: &State) -> Self {
        let home = Self::new();
        home.open().0.lock().unwrap().replace(state.clone()).unwrap();
        home
    }

    fn directory(&self) -> Directory {
        let path = self.dir.path().join("mail/.index");
        Directory::new(&path, &self.dir.path().join("box"), nix::unistd::geteuid())
    }

    pub fn open(&self) -> (Index, Opened) {
        Index::open(self.directory()).unwrap()
    }

    fn state(&self) -> State {
        let (index, opened) = self.open();
        assert_eq!(opened, Opened::Loaded);
        index.state().clone()
    }

    pub fn path(&self) -> PathBuf {
        self.directory().path_of(ENDING)
    }

    fn bytes(&self) -> Vec<u8> {
        fs::read(self.path()).unwrap()
    }
}

fn message(uid: u32, modseq: u64) -> Message {
    let extent = Extent {
        start: u64::from(uid) * 100,
        length: 90,
        from_line: 30,
        header: 40,
        gap: 1,
        stored: Marks {
            flags: Flags::of_bits(uid.to_le_bytes()[0] / 3),
            keywords: u64::from(uid % 5),
        },
        quoted: uid.is_multiple_of(2),
        unwritten: uid.is_multiple_of(3),
        named: uid.is_multiple_of(7),
        doomed: uid.is_multiple_of(11),
        no_room: uid.is_multiple_of(5),
    };
    Message {
        uid,
        header: 10,
        marks: Marks { flags: Flags::of_bits(uid.to_le_bytes()[0]), keywords: 0 },
        modseq,
        size: 95,
        date: -i64::from(uid),
        digest: (u128::from(uid) << 64 | 7).to_le_bytes(),
        extent,
    }
}

/// One of each kind of change that can follow on a state.
fn changes(state: &State) -> Vec<Change> {
    let (next, modseq) = (state.uid_next, state.next_modseq());
    let by = Marks { flags: Flags::SEEN, keywords: 1 << state.keywords.len() };
    vec![
        Change::Keyword(format!("$Label{}", state.keywords.len())),
        Change::New(message(next, modseq)),
        Change::New(message(next + 1, modseq)),
        Change::New(message(next + 3, modseq)),
        Change::Mark { uids: (1..=next).into(), marking: Marking::Add, by, modseq },
        Change::Expunge { uids: [next + 1].into_iter().collect(), modseq: modseq + 1 },
        Change::Edited(vec![(50, 60, 0), (70, 75, 3)]),
        Change::Placed { uid: next, extent: Extent { start: 7, ..Extent::default() } },
        Change::Written((next..=next + 9).into()),
        Change::Recent(next),
        Change::UidNext(next + 10),
        Change::Base([1, 2, 3, 4, 5, 6, 7, u64::MAX - u64::from(next)]),
    ]
}

fn after(state: &State, changes: &[Change]) -> State {
    let mut state = state.clone();
    for change in changes {
        state.apply(change.clone()).unwrap();
    }
    state
}

fn some_state() -> State {
    let empty = State::new(77, 1000);
    after(&empty, &changes(&empty))
}

#[test]
fn what_is_committed_is_there_for_others_and_for_who_comes_later() {
    let home = Home::new();
    let (mut one, opened) = home.open();
    assert_eq!(opened, Opened::Missing);
    assert!(!home.directory().path.exists(), "nothing is made by looking");
    let (mut other, _) = home.open();
    assert!(!other.refresh().unwrap());
    one.lock().unwrap().replace(some_state()).unwrap();
    assert!(other.refresh().unwrap());
    assert_eq!(other.state(), &some_state());
    for round in 0..50 {
        let (writer, reader) =
            if round % 2 == 0 { (&mut one, &mut other) } else { (&mut other, &mut one) };
        let mut locked = writer.lock().unwrap();
        assert_eq!(locked.opened(), Opened::Loaded);
        let changes = changes(locked.state());
        let wanted = after(locked.state(), &changes);
        locked.commit(changes, round % 3 == 0).unwrap();
        assert_eq!(locked.state(), &wanted);
        drop(locked);
        assert!(reader.refresh().unwrap() && !reader.refresh().unwrap());
        assert!(!writer.refresh().unwrap());
        assert_eq!(reader.state(), &wanted);
        assert_eq!(home.state(), wanted);
    }
}

#[test]
fn a_process_killed_at_any_step_leaves_what_was_or_what_was_to_be() {
    let before = some_state();
    let batch = changes(&before);
    let wanted = after(&before, &batch);
    for kind in 0..4 {
        let mut outcomes = [0; 2];
        let mut n = 0;
        loop {
            let home = Home::with(&before);
            if kind == 1 {
                // A torn frame stands behind.
                let file = OpenOptions::new().write(true).open(home.path()).unwrap();
                file.write_all_at(b"torn", file.metadata().unwrap().len()).unwrap();
            }
            let killed = killed_at(n, || {
                let mut index = home.open().0;
                if kind == 2 {
                    index.room = 0;
                }
                let mut locked = index.lock().unwrap();
                match kind {
                    3 => locked.replace(wanted.clone()).unwrap(),
                    _ => locked.commit(batch.clone(), true).unwrap(),
                }
            });
            let found = home.state();
            assert!(found == before || found == wanted, "step {n}");
            outcomes[usize::from(found == wanted)] += 1;
            let (mut index, _) = home.open();
            let mut locked = index.lock().unwrap();
            let more = changes(locked.state());
            locked.commit(more.clone(), true).unwrap();
            assert_eq!(home.state(), after(&found, &more));
            if !killed {
                assert_eq!(found, wanted);
                break;
            }
            n += 1;
        }
        assert!(n >= 2 && outcomes[0] >= 1 && outcomes[1] >= 2, "{kind}: {n} {outcomes:?}");
    }
}

#[test]
fn the_first_index_killed_at_any_step_is_missing_or_complete() {
    let mut n = 0;
    loop {
        let home = Home::new();
        let killed = killed_at(n, || {
            home.open().0.lock().unwrap().replace(some_state()).unwrap();
        });
        let (mut index, opened) = home.open();
        match opened {
            Opened::Missing => assert!(killed),
            Opened::Loaded => assert_eq!(index.state(), &some_state()),
            Opened::Damaged(_) => panic!("{opened:?}"),
        }
        index.lock().unwrap().replace(some_state()).unwrap();
        assert_eq!(home.state(), some_state());
        assert!(!home.directory().path_of(NEW).exists());
        if !killed {
            break;
        }
        n += 1;
    }
    assert!(n > 5);
}

/// An index with a snapshot and three frames, and the states behind each.
fn grown() -> (Home, Vec<(usize, State)>) {
    let mut state = some_state();
    let home = Home::with(&state);
    let mut states = vec![(home.bytes().len(), state.clone())];
    let (mut index, _) = home.open();
    for _ in 0..3 {
        let batch = changes(&state);
        state = after(&state, &batch);
        index.lock().unwrap().commit(batch, false).unwrap();
        states.push((home.bytes().len(), state.clone()));
    }
    (home, states)
}

#[test]
fn a_file_cut_anywhere_has_the_frames_that_are_whole() {
    let (home, states) = grown();
    let bytes = home.bytes();
    for length in 0..=bytes.len() {
        fs::write(home.path(), &bytes[..length]).unwrap();
        let (mut index, opened) = home.open();
        let Some((_, state)) = states.iter().rfind(|(end, _)| *end <= length) else {
            let wanted = if length == 0 { opened == Opened::Missing } else { is_damage(opened) };
            assert!(wanted, "{length}: {opened:?}");
            continue;
        };
        assert_eq!((opened, index.state()), (Opened::Loaded, state), "{length}");
        index.lock().unwrap().commit(changes(state), false).unwrap();
        assert_eq!(home.state(), after(state, &changes(state)), "{length}");
    }
}

#[test]
fn where_a_power_cut_left_zeros_a_frame_is_none() {
    let (home, states) = grown();
    let bytes = home.bytes();
    for pair in states.windows(2) {
        let ((start, before), (end, after)) = (&pair[0], &pair[1]);
        assert!(start.is_multiple_of(16));
        for zeros in (*start..=bytes.len()).step_by(16) {
            let mut cut = bytes.clone();
            cut[*start..zeros].fill(0);
            fs::write(home.path(), &cut).unwrap();
            let (mut index, opened) = home.open();
            assert_eq!(opened, Opened::Loaded);
            if zeros > *start {
                assert_eq!(index.state(), before);
                assert!(!index.refresh().unwrap());
                let batch = changes(before);
                index.lock().unwrap().commit(batch, false).unwrap();
                assert_eq!(&home.state(), after);
                assert_eq!(home.bytes(), bytes[..*end]);
            }
        }
    }
}

fn is_damage(opened: Opened) -> bool {
    matches!(opened, Opened::Damaged(_))
}

#[test]
fn a_bit_that_is_flipped_anywhere_is_found() {
    let (home, _) = grown();
    let bytes = home.bytes();
    let (mut tailing, _) = home.open();
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1 << bit;
            fs::write(home.path(), &flipped).unwrap();
            let (_, opened) = home.open();
            assert!(is_damage(opened), "byte {at} bit {bit}: {opened:?}");
        }
    }
    fs::write(home.path(), &bytes).unwrap();
    assert!(!tailing.refresh().unwrap());
}

#[test]
fn a_damaged_index_is_told_of_and_can_be_replaced() {
    let (home, states) = grown();
    let bytes = home.bytes();
    fs::write(home.path(), &bytes[..states[1].0]).unwrap();
    let (mut index, opened) = home.open();
    assert_eq!(opened, Opened::Loaded);
    let mut flipped = bytes.clone();
    flipped[states[2].0 - 1] ^= 1;
    fs::write(home.path(), &flipped).unwrap();
    for _ in 0..2 {
        let said = index.refresh().unwrap_err();
        assert!(matches!(said, Error::Damaged { .. }), "{said}");
        assert_eq!(index.state(), &states[1].1, "what is known stays");
    }
    let mut locked = index.lock().unwrap();
    assert!(is_damage(locked.opened()));
    let said = locked.commit(changes(&states[1].1), false).unwrap_err();
    assert!(matches!(said, Error::Damaged { .. }), "{said}");
    locked.replace(states[3].1.clone()).unwrap();
    drop(locked);
    assert_eq!(home.state(), states[3].1);
    fs::remove_file(home.path()).unwrap();
    assert!(matches!(index.refresh(), Err(Error::Damaged { .. })));
    let mut locked = index.lock().unwrap();
    assert_eq!(locked.opened(), Opened::Missing);
    locked.replace(states[2].1.clone()).unwrap();
    drop(locked);
    assert_eq!(home.state(), states[2].1);
    fs::remove_dir_all(&home.directory().path).unwrap();
    let mut locked = index.lock().unwrap();
    assert!(locked.is_kept());
    locked.replace(states[1].1.clone()).unwrap();
    assert_eq!(home.state(), states[1].1);
}

#[test]
fn what_a_commit_can_not_apply_is_not_written() {
    let home = Home::with(&some_state());
    let bytes = home.bytes();
    let (mut index, _) = home.open();
    let mut locked = index.lock().unwrap();
    let mut batch = changes(&some_state());
    batch.push(Change::New(message(1, 5000)));
    assert!(locked.commit(batch, true).is_err());
    assert_eq!(locked.state(), &some_state());
    assert_eq!(home.bytes(), bytes);
    let mut wrong = some_state();
    wrong.uid_next = 1;
    assert!(locked.replace(wrong).is_err());
    locked.commit(changes(&some_state()), true).unwrap();
}

#[test]
fn a_long_journal_becomes_a_snapshot_and_handles_go_on_with_it() {
    let home = Home::with(&some_state());
    let (mut one, mut other) = (home.open().0, home.open().0);
    let mut replaced = 0;
    let mut generation = one.generation;
    for round in 0..4000_u32 {
        let index = if round % 3 == 0 { &mut one } else { &mut other };
        let mut locked = index.lock().unwrap();
        let (uid, modseq) = (locked.state().uid_next, locked.state().next_modseq());
        locked.commit(vec![Change::New(message(uid, modseq))], false).unwrap();
        drop(locked);
        replaced += u32::from(index.generation != generation);
        generation = index.generation;
    }
    assert_eq!(replaced, 1);
    assert!(other.refresh().unwrap());
    assert_eq!(other.state(), &home.state());
    assert_eq!(other.state().messages.len(), 4002);
    // Too much for the journal at once.
    let mut locked = other.lock().unwrap();
    let (uid, modseq) = (locked.state().uid_next, locked.state().next_modseq());
    let many = (uid..uid + 5000).map(|uid| Change::New(message(uid, modseq))).collect();
    locked.commit(many, false).unwrap();
    drop(locked);
    assert_eq!(other.generation, generation + 1);
    assert_eq!(home.state().messages.len(), 9002);
    let mut locked = one.lock().unwrap();
    assert_eq!(locked.state().messages.len(), 9002);
    let uids: UidSet = (1..=9000).into();
    let modseq = locked.state().next_modseq();
    locked.commit(vec![Change::Expunge { uids, modseq }], false).unwrap();
    assert_eq!(locked.state(), &home.state());
}

#[test]
fn many_at_once_lose_nothing() {
    const THREADS: u32 = 4;
    const ROUNDS: u32 = 150;
    let home = Home::with(&some_state());
    let first = some_state().messages.len();
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let directory = home.directory();
            scope.spawn(move || {
                let (mut index, opened) = Index::open(directory).unwrap();
                assert_eq!(opened, Opened::Loaded);
                for round in 0..ROUNDS {
                    if (round + thread).is_multiple_of(3) {
                        index.refresh().unwrap();
                    }
                    if round.is_multiple_of(40) {
                        index.room = 0;
                    }
                    let mut locked = index.lock().unwrap();
                    let (uid, modseq) = (locked.state().uid_next, locked.state().next_modseq());
                    locked.commit(vec![Change::New(message(uid, modseq))], false).unwrap();
                }
            });
        }
    });
    assert_eq!(home.state().messages.len(), first + (THREADS * ROUNDS) as usize);
}

#[test]
fn where_there_is_no_place_for_an_index_it_works_without() {
    let home = Home::new();
    fs::write(home.dir.path().join("mail"), "a file").unwrap();
    let (mut index, opened) = home.open();
    assert_eq!((opened, index.is_kept()), (Opened::Missing, true));
    let mut locked = index.lock().unwrap();
    assert!(!locked.is_kept());
    locked.replace(some_state()).unwrap();
    let batch = changes(&some_state());
    let mut wrong = batch.clone();
    wrong.push(Change::UidNext(1));
    wrong.push(Change::New(message(1, 5000)));
    assert!(locked.commit(wrong, true).is_err());
    assert_eq!(locked.state(), &some_state());
    locked.commit(batch.clone(), true).unwrap();
    drop(locked);
    assert!(!index.refresh().unwrap());
    assert_eq!(index.state(), &after(&some_state(), &batch));
}

#[test]
fn a_uid_validity_is_never_given_twice() {
    let home = Home::new();
    let mut given = vec![home.directory().new_uid_validity()];
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let directory = home.directory();
                scope.spawn(move || {
                    (0..25).map(|_| directory.new_uid_validity()).collect::<Vec<_>>()
                })
            })
            .collect();
        given.extend(threads.into_iter().flat_map(|thread| thread.join().unwrap()));
    });
    given.sort_unstable();
    assert!(given.windows(2).all(|pair| pair[0] < pair[1]), "{given:?}");
    let last = fs::read_to_string(home.directory().path.join("uidvalidity")).unwrap();
    assert_eq!(last, format!("{:010}\n", given[100]));
    for garbage in ["", "no number", "99999999999999\n"] {
        fs::write(home.directory().path.join("uidvalidity"), garbage).unwrap();
        assert!(home.directory().new_uid_validity() >= given[0], "{garbage}");
    }
}

#[test]
fn a_failed_write_leaves_what_was() {
    let home = Home::with(&some_state());
    let bytes = home.bytes();
    let batch = changes(&some_state());
    let (mut index, _) = home.open();
    // A file that may only be read stands for a disk that is full.
    index.file = Some(Rc::new(fs::File::open(home.path()).unwrap()));
    let mut locked = index.lock().unwrap();
    assert!(locked.commit(batch.clone(), true).is_err());
    assert_eq!((locked.opened(), locked.state()), (Opened::Loaded, &some_state()));
    drop(locked);
    assert_eq!(home.bytes(), bytes);

    // No next file can be made.
    let new = home.directory().path_of(NEW);
    fs::create_dir(&new).unwrap();
    let (mut index, _) = home.open();
    index.room = 0;
    let mut locked = index.lock().unwrap();
    assert!(locked.replace(State::new(1, 1)).is_err());
    assert_eq!((locked.state(), home.state()), (&some_state(), some_state()));
    locked.commit(batch.clone(), true).unwrap();
    assert_eq!(locked.state(), &home.state());
    assert_eq!(home.state(), after(&some_state(), &batch), "the journal goes on without");
    // What is too much for the journal is refused, as a whole.
    let before = home.state();
    let many = vec![Change::Edited(vec![(1 << 40, 1 << 40, 0); 5_000_000])];
    assert!(locked.commit(many, false).is_err());
    assert_eq!((locked.state(), home.state()), (&before, before.clone()));
    drop(locked);
    fs::remove_dir(&new).unwrap();
    index.room = 0;
    index.lock().unwrap().commit(changes(&before), false).unwrap();
    assert_eq!(home.state(), after(&before, &changes(&before)));
    assert_eq!(index.journal, index.known.end);
}
