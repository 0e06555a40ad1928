//! A file of any content as an index: it is refused, or used; and what was read of it reads the same
//! when it is written again. The checksums are made right before, as hikyaku-index(5) has them: what
//! stands behind a wrong one is not looked at.

use std::fs;
use std::path::PathBuf;

use hikyaku::mailbox::index::{Change, Directory, ENDING, Index, Opened, State};
use hikyaku::mailbox::store::{Flags, Marking, Marks};
use xxhash_rust::xxh3::xxh3_64_with_seed;

const HEADER: usize = 144;
const MESSAGE: usize = 96;
/// Messages of a page, and bytes of what stands of it in the table.
const PAGE: usize = 256;
const ROW: usize = 64;

struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    /// With this file as the index.
    fn new(content: &[u8]) -> Self {
        // In memory: there are many fsyncs.
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let home = Self { dir };
        home.directory().make().unwrap();
        fs::write(home.path(), content).unwrap();
        home
    }

    fn directory(&self) -> Directory {
        let index = self.dir.path().join("index");
        Directory::new(&index, &self.dir.path().join("box"), nix::unistd::geteuid())
    }

    fn path(&self) -> PathBuf {
        self.directory().path_of(ENDING)
    }

    fn open(&self) -> (Index, Opened) {
        Index::open(self.directory()).unwrap()
    }

    fn state(&self) -> State {
        let (index, opened) = self.open();
        assert_eq!(opened, Opened::Loaded);
        index.state().clone()
    }
}

pub fn check(input: &[u8]) {
    check_file(input);
    if let Some(file) = sealed(input) {
        check_file(&file);
    }
}

fn check_file(file: &[u8]) {
    let home = Home::new(file);
    let (mut index, opened) = home.open();
    assert_eq!(opened == Opened::Missing, file.is_empty());
    if opened != Opened::Loaded {
        // Whatever it is, a new one can be put in its place.
        index.lock().unwrap().replace(State::new(1, 1)).unwrap();
        assert_eq!(home.state(), State::new(1, 1));
        return;
    }
    assert!(!index.refresh().unwrap());
    if index.state().messages.all().is_err() {
        // Messages that nobody had asked for yet: it is made anew without them.
        assert!(index.refresh().is_err());
        let mut locked = index.lock().unwrap();
        assert!(matches!(locked.opened(), Opened::Damaged(_)));
        let state = locked.state().clone();
        locked.replace(state.clone()).unwrap();
        assert_eq!(home.state(), state);
        return;
    }
    let state = index.state().clone();
    assert_eq!(state.uid_validity, number(file, 16));
    check_use(&state);
    // In the journal, and in a snapshot.
    let mut locked = index.lock().unwrap();
    let change = Change::Mark {
        uids: (1..=u32::MAX).into(),
        marking: Marking::Remove,
        by: Marks { flags: Flags::SEEN, keywords: 0 },
        modseq: state.next_modseq(),
    };
    let mut wanted = state.clone();
    wanted.apply(change.clone()).unwrap();
    locked.commit(vec![change], false).unwrap();
    assert_eq!(locked.state(), &wanted);
    assert_eq!(home.state(), wanted);
    locked.replace(state.clone()).unwrap();
    assert_eq!(home.state(), state);
}

/// What is asked of a state has an answer.
fn check_use(state: &State) {
    let status = state.status();
    assert_eq!(status.messages, state.messages.len());
    let messages = state.messages.all().unwrap();
    assert!(messages.is_sorted_by(|a, b| a.uid < b.uid));
    assert!(messages.iter().all(|message| message.uid < status.uid_next));
    assert!(messages.iter().map(|message| message.uid).eq(state.messages.uids().iter()));
    assert!(state.changes_since(status.highest_modseq).unwrap().changed.is_empty());
    let all = state.changes_since(0).unwrap();
    assert!(messages.iter().all(|message| !all.vanished.contains(message.uid)));
    for message in messages {
        assert!(u128::from(message.marks.keywords) < 1 << state.keywords.len());
    }
}

/// The input with right checksums, and lengths that fit.
fn sealed(input: &[u8]) -> Option<Vec<u8>> {
    let mut file = input.to_vec();
    let left = file.len().checked_sub(HEADER)?;
    file[..8].copy_from_slice(b"hkindex3");
    let generation = long(&file, 8);
    let names = usize::try_from(long(&file, 112)).unwrap().min(left);
    let wanted = number(&file, 44) as usize;
    let fits =
        |messages: &usize| messages.div_ceil(PAGE) * ROW + messages * MESSAGE <= left - names;
    let messages = (0..=wanted.min(left / MESSAGE)).rev().find(fits).unwrap_or(0);
    let table = HEADER + names;
    let pages = table + messages.div_ceil(PAGE) * ROW;
    let end = pages + messages * MESSAGE;
    put(&mut file, 44, &u32::try_from(messages).unwrap().to_le_bytes());
    put(&mut file, 112, &(names as u64).to_le_bytes());
    let names_sum = xxh3_64_with_seed(&file[HEADER..table], generation);
    put(&mut file, 120, &names_sum.to_le_bytes());
    for (number, first) in (0..messages).step_by(PAGE).enumerate() {
        let page = pages + first * MESSAGE..pages + (first + PAGE).min(messages) * MESSAGE;
        let mut row = summary(&file[page.clone()]);
        row.extend(xxh3_64_with_seed(&file[page], generation).to_le_bytes());
        put(&mut file, table + number * ROW, &row);
    }
    let table_sum = xxh3_64_with_seed(&file[table..pages], generation);
    put(&mut file, 128, &table_sum.to_le_bytes());
    let mut seed = xxh3_64_with_seed(&file[..136], generation);
    put(&mut file, 136, &seed.to_le_bytes());

    let mut at = end;
    while file.len() - at >= 16 {
        let left = (file.len() - at - 16) / 16 * 16;
        let length = (number(&file, at) as usize).next_multiple_of(16).min(left);
        let length_bytes = u32::try_from(length).unwrap().to_le_bytes();
        let length_sum = xxh3_64_with_seed(&length_bytes, seed).to_le_bytes();
        let sum = xxh3_64_with_seed(&file[at + 16..at + 16 + length], seed);
        put(&mut file, at, &length_bytes);
        put(&mut file, at + 4, &length_sum[..4]);
        put(&mut file, at + 8, &sum.to_le_bytes());
        at += 16 + length;
        seed = sum;
    }
    Some(file)
}

/// What a page has to say of its messages.
fn summary(page: &[u8]) -> Vec<u8> {
    let messages: Vec<&[u8]> = page.chunks(MESSAGE).collect();
    let uid = |message: &&[u8]| number(message, 0);
    let unseen: Vec<u32> = messages.iter().filter(|m| m[86] & 1 == 0).map(uid).collect();
    let count = |is: fn(&&&[u8]) -> bool| messages.iter().filter(is).count();
    let numbers = [
        messages.first().map_or(0, uid),
        messages.last().map_or(0, uid),
        u32::try_from(messages.len()).unwrap(),
        u32::try_from(unseen.len()).unwrap(),
        unseen.first().copied().unwrap_or(0),
        u32::try_from(count(|m| m[86] & 8 != 0)).unwrap(),
        u32::try_from(count(|m| m[85] & 6 == 2)).unwrap(),
        u32::try_from(count(|m| m[85] & 8 == 0)).unwrap(),
    ];
    let mut row: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    for at in [8, 48] {
        let largest = messages.iter().map(|message| long(message, at)).max().unwrap_or(0);
        row.extend(largest.to_le_bytes());
    }
    let sizes = messages.iter().map(|message| long(message, 16));
    row.extend(sizes.fold(0_u64, u64::saturating_add).to_le_bytes());
    row
}

fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    file[at..at + bytes.len()].copy_from_slice(bytes);
}

fn number(file: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(file[at..at + 4].try_into().unwrap())
}

fn long(file: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(file[at..at + 8].try_into().unwrap())
}
