//! A file of any content as a cache of structures: what stands whole in it is found, the rest is as
//! missing, and it takes in what is put there. The sums are made right before: what stands behind a
//! wrong one is not looked at.

use std::collections::BTreeMap;
use std::io::Write;

use hikyaku::mailbox::cache::Cache;
use hikyaku::message::structure::{Parser, Structure, decode};
use xxhash_rust::xxh3::xxh3_64;

use crate::dice::Dice;

const MAGIC: &[u8] = b"hkmc\x01\0\0\0";
const HEADER: usize = 16;
const HEAD: usize = 40;

type Known = BTreeMap<u32, ([u8; 16], Option<Structure>)>;

pub fn check(input: &[u8]) {
    check_file(input, &mut Dice::of(input));
    check_file(&sealed(input), &mut Dice::of(input));
}

fn check_file(bytes: &[u8], dice: &mut Dice) {
    let mut file = tempfile::tempfile_in("/dev/shm").or_else(|_| tempfile::tempfile()).unwrap();
    file.write_all(bytes).unwrap();
    let open = || Cache::open(Some(file.try_clone().unwrap()));
    let mut known = read(bytes);
    let mut cache = open();
    same(&mut cache, &known);

    let other = structure(b"Subject: other\r\n\r\nx\r\n");
    for _ in 0..dice.below(4) {
        let some: Vec<u32> = known.keys().copied().chain([7, u32::MAX]).collect();
        let uid = some[dice.below(some.len())];
        let digest = [u8::try_from(dice.below(256)).unwrap(); 16];
        // A message with the same digest has the same structure.
        if bytes.windows(digest.len()).any(|window| window == digest) {
            continue;
        }
        // By a handle of its own, as another process would.
        let mut writer = open();
        writer.put(uid, &digest, &other);
        known.insert(uid, (digest, Some(other.clone())));
        if dice.below(2) == 0 {
            let gone = dice.below(3);
            writer.keep_only(|uid| uid as usize % 3 != gone);
            known.retain(|uid, _| *uid as usize % 3 != gone);
        }
        same(&mut writer, &known);
        same(&mut cache, &known);
    }
    same(&mut open(), &known);
    let mut cache = open();
    for (uid, (mut digest, _)) in known {
        digest[dice.below(16)] ^= 1;
        assert_eq!(cache.get(uid, &digest), None);
    }
}

/// That these are found, whatever else is.
fn same(cache: &mut Cache, known: &Known) {
    for (uid, (digest, structure)) in known {
        assert_eq!(cache.get(*uid, digest), *structure, "UID {uid}");
    }
}

fn structure(message: &[u8]) -> Structure {
    let mut parser = Parser::default();
    parser.push(message);
    parser.finish()
}

fn number(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(..4)?.try_into().ok()?))
}

/// What stands in a file, up to where it is none.
fn read(bytes: &[u8]) -> Known {
    let mut known = Known::new();
    if !bytes.starts_with(MAGIC) || bytes.len() < HEADER || bytes[8..HEADER] == [0; 8] {
        return known;
    }
    let mut rest = &bytes[HEADER..];
    while let Some((head, behind)) = rest.split_at_checked(HEAD) {
        let length = number(&head[4..]).unwrap() as usize;
        if head[32..] != xxh3_64(&head[..32]).to_le_bytes() || length > behind.len() {
            break;
        }
        let body = &behind[..length];
        let is_whole = head[24..32] == xxh3_64(body).to_le_bytes();
        let structure = if is_whole { decode(body) } else { None };
        known.insert(number(head).unwrap(), (head[8..24].try_into().unwrap(), structure));
        rest = &behind[length..];
    }
    known
}

/// The same as a file of ours, of frames with right sums.
fn sealed(input: &[u8]) -> Vec<u8> {
    let mut file = [MAGIC, &[1; 8]].concat();
    let mut rest = input.get(HEADER..).unwrap_or_default();
    while let Some((head, behind)) = rest.split_at_checked(HEAD) {
        let mut head = head.to_vec();
        let length = (number(&head[4..]).unwrap() as usize).min(behind.len());
        let (body, after) = behind.split_at(length);
        head[4..8].copy_from_slice(&u32::try_from(length).unwrap().to_le_bytes());
        head[24..32].copy_from_slice(&xxh3_64(body).to_le_bytes());
        let sum = xxh3_64(&head[..32]);
        head[32..].copy_from_slice(&sum.to_le_bytes());
        file.extend_from_slice(&head);
        file.extend_from_slice(body);
        rest = after;
    }
    file.extend_from_slice(rest);
    file
}
