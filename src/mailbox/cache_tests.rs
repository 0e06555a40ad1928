//! A cache gives back what was put into it, or nothing.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use tempfile::NamedTempFile;

use super::*;
use crate::message::structure::Parser;

fn structure(subject: &str) -> Structure {
    let mut parser = Parser::default();
    parser.push(format!("Subject: {subject}\r\n\r\nhello\r\n").as_bytes());
    parser.finish()
}

fn open(file: &NamedTempFile) -> Cache {
    let file = File::options().read(true).write(true).open(file.path()).unwrap();
    Cache::open(Some(file))
}

fn size(file: &NamedTempFile) -> u64 {
    file.path().metadata().unwrap().len()
}

fn digest(uid: Uid) -> [u8; 16] {
    [u8::try_from(uid % 251).unwrap(); 16]
}

/// Puts messages in whose subjects are their numbers.
fn fill(cache: &mut Cache, uids: impl IntoIterator<Item = Uid>) {
    for uid in uids {
        cache.put(uid, &digest(uid), &structure(&uid.to_string()));
    }
}

/// Those of these that are known, all of which must be right.
fn known(cache: &mut Cache, uids: impl IntoIterator<Item = Uid>) -> Vec<Uid> {
    let is_known = |uid: &Uid| match cache.get(*uid, &digest(*uid)) {
        Some(found) => {
            assert_eq!(found, structure(&uid.to_string()));
            true
        }
        None => false,
    };
    uids.into_iter().filter(is_known).collect()
}

#[test]
fn what_was_put_is_found_by_uid_and_digest_now_and_later() {
    let file = NamedTempFile::new().unwrap();
    let mut cache = open(&file);
    fill(&mut cache, [7, 3]);
    for cache in [&mut cache, &mut open(&file)] {
        assert_eq!(known(cache, [3, 5, 7]), [3, 7]);
        assert_eq!(cache.get(3, &digest(4)), None);
    }
}

#[test]
fn the_last_one_of_a_message_counts() {
    let file = NamedTempFile::new().unwrap();
    let mut cache = open(&file);
    cache.put(3, &digest(4), &structure("other"));
    fill(&mut cache, [3]);
    for cache in [&mut cache, &mut open(&file)] {
        assert_eq!(known(cache, [3]), [3]);
    }
}

#[test]
fn what_another_process_puts_is_found() {
    let file = NamedTempFile::new().unwrap();
    let (mut one, mut two) = (open(&file), open(&file));
    fill(&mut one, [1]);
    assert_eq!(known(&mut two, [1, 2]), [1]);
    fill(&mut two, [2]);
    fill(&mut one, [3]);
    assert_eq!(known(&mut one, 1..=3), [1, 2, 3]);
    assert_eq!(known(&mut two, 1..=3), [1, 2, 3]);
}

#[test]
fn frames_larger_than_a_window_are_passed_over() {
    let file = NamedTempFile::new().unwrap();
    let mut cache = open(&file);
    let large = structure(&"x".repeat(3 * WINDOW));
    cache.put(1, &digest(1), &large);
    fill(&mut cache, 2..2000);
    let mut cache = open(&file);
    assert_eq!(known(&mut cache, 2..2000).len(), 1998);
    assert_eq!(cache.get(1, &digest(1)), Some(large));
}

#[test]
fn a_file_of_any_size_is_cut_at_what_is_torn() {
    let whole = NamedTempFile::new().unwrap();
    fill(&mut open(&whole), 1..=3);
    let octets = std::fs::read(whole.path()).unwrap();
    for cut in 0..octets.len() {
        let mut file = NamedTempFile::new().unwrap();
        file.write_all(&octets[..cut]).unwrap();
        let mut cache = open(&file);
        let before = known(&mut cache, 1..=3);
        assert!(before.len() < 3, "cut at {cut}");
        fill(&mut cache, [4]);
        for cache in [&mut cache, &mut open(&file)] {
            assert_eq!(known(cache, 1..=4), [&before[..], &[4]].concat(), "cut at {cut}");
        }
    }
}

#[test]
fn a_damaged_octet_costs_messages_and_tells_no_lies() {
    let whole = NamedTempFile::new().unwrap();
    fill(&mut open(&whole), 1..=3);
    let octets = std::fs::read(whole.path()).unwrap();
    for at in 0..octets.len() {
        let file = NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &octets).unwrap();
        file.as_file().write_all_at(&[octets[at] ^ 0x55], at as u64).unwrap();
        let mut cache = open(&file);
        let found = known(&mut cache, 1..=3).len();
        // Any generation but 0 is one.
        assert!(found < 3 || (8..16).contains(&at), "damaged at {at}");
        fill(&mut cache, 1..=3);
        assert_eq!(known(&mut open(&file), 1..=3), [1, 2, 3], "damaged at {at}");
    }
}

#[test]
fn a_file_that_is_none_is_emptied() {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(&vec![b'x'; 100_000]).unwrap();
    let mut cache = open(&file);
    assert_eq!(known(&mut cache, [1]), []);
    fill(&mut cache, [1]);
    assert_eq!(known(&mut open(&file), [1]), [1]);
    assert!(size(&file) < 1000);
}

#[test]
fn the_file_shrinks_when_most_messages_are_gone() {
    let file = NamedTempFile::new().unwrap();
    let (mut cache, mut other) = (open(&file), open(&file));
    fill(&mut cache, 1..=3000);
    assert_eq!(known(&mut other, 1..=3000).len(), 3000);
    let before = size(&file);
    cache.keep_only(|uid| uid > 1000);
    assert_eq!(size(&file), before, "it was not twice as large as need be");
    cache.keep_only(|uid| uid % 10 == 0);
    assert!(size(&file) <= before / 14);
    let wanted: Vec<_> = (101..=300).map(|n| n * 10).collect();
    // One that knew the file before, too.
    for cache in [&mut cache, &mut other, &mut open(&file)] {
        assert_eq!(known(cache, 1..=3000), wanted);
    }
    fill(&mut other, [5]);
    assert_eq!(known(&mut cache, 1..=10), [5]);
}

#[test]
fn nothing_is_written_while_another_one_writes() {
    let file = NamedTempFile::new().unwrap();
    let mut cache = open(&file);
    fill(&mut cache, [1]);
    let other = File::open(file.path()).unwrap();
    lock::flock(&other).unwrap();
    fill(&mut cache, [2]);
    lock::unlock_flock(&other).unwrap();
    assert_eq!(known(&mut cache, [1, 2]), [1]);
    fill(&mut cache, [2]);
    assert_eq!(known(&mut cache, [1, 2]), [1, 2]);
}

#[test]
fn without_a_file_nothing_is_kept() {
    let file = NamedTempFile::new().unwrap();
    let read_only = Cache::open(Some(File::open(file.path()).unwrap()));
    for mut cache in [Cache::default(), read_only] {
        fill(&mut cache, [1]);
        cache.keep_only(|_| true);
        assert_eq!(known(&mut cache, [1]), []);
    }
}

#[test]
fn what_was_read_ahead_is_forgotten_when_the_file_is_written_anew() {
    let file = NamedTempFile::new().unwrap();
    let (mut one, mut two) = (open(&file), open(&file));
    fill(&mut one, 1..=3000);
    // Without the first one, which is where it was.
    let wanted: Vec<Uid> = (11..=3000).step_by(10).collect();
    for cache in [&mut one, &mut two] {
        assert_eq!(known(cache, 1..=20).len(), 20);
    }
    let before = size(&file);
    one.keep_only(|uid| uid % 10 == 1);
    assert!(size(&file) < before);
    for cache in [&mut one, &mut two] {
        assert_eq!(known(cache, wanted.clone()), wanted);
    }
}
