//! The mbox reader against a second, slow reading of hikyaku-mbox(5), on files of any content.

use std::collections::HashSet;
use std::fs;
use std::ops::Range;
use std::rc::Rc;
use std::time::UNIX_EPOCH;

use hikyaku::mailbox::mbox::{Found, ImapBase, Scanner, Wanted, fields, from_line, write_back};
use hikyaku::mailbox::store::Message as Stored;
use hikyaku::mailbox::store::{Arrival, Flags, MOST_KEYWORDS, Marking, unique_ids};
use hikyaku::mailbox::{Error, MboxStore, NewMessage, Stager, Store, UidSet};
use xxhash_rust::xxh3::xxh3_128;

use crate::dice::Dice;
use crate::home::{Home, in_order, read};

/// So much of a file is looked at around a place where a message may begin.
const LOOK: usize = 2 * from_line::LONGEST;

/// A field's name is not longer, with the blanks before its colon.
const LONGEST_NAME: usize = 998;

/// Listing.
pub fn check_listing(input: &[u8]) {
    let file = grown(input);
    let found = messages(&file);
    check_places(&file, &found);
    check_scanning(&file, &found);
    check_write_back(&file, &mut Dice::of(input));
    let home = Home::new(&file);
    check_store(&mut home.open(), list(&found), &file);
    check_unchanged(&home.content(), &file);
}

/// That a store has these messages.
fn check_store(store: &mut MboxStore, listed: &[Message], file: &[u8]) {
    let messages = in_order(store);
    let alike = |(now, wanted): (&Stored, &Message)| {
        now.digest == wanted.digest.to_be_bytes()
            && now.size == wanted.shown.len() as u64
            && now.header as usize == header_end(&wanted.shown)
            && now.extent.start == wanted.place.start as u64
            && now.extent.end() == wanted.place.end as u64
    };
    if messages.len() != listed.len() || !messages.iter().zip(listed).all(alike) {
        all_same(&read_all(store), &shown(listed), file);
        panic!("read as it is, and listed as {messages:?}: {}", text(file));
    }
    check_uids(store);
}

/// UIDs ascend, and every message has a name of its own.
fn check_uids(store: &MboxStore) {
    let messages = store.messages().unwrap();
    assert!(messages.is_sorted_by(|a, b| a.uid < b.uid));
    let last = messages.last().map_or(0, |message| message.uid);
    assert!(messages.iter().all(|message| message.uid > 0) && last < store.status().uid_next);
    let unique: HashSet<String> = unique_ids(&messages).into_iter().collect();
    assert_eq!(unique.len(), messages.len());
}

/// That a session has written no more than its own fields, where they have room.
fn check_unchanged(now: &[u8], file: &[u8]) {
    assert_eq!(now.len(), file.len());
    let has_room =
        |name: &[u8]| file.windows(name.len()).any(|window| window.eq_ignore_ascii_case(name));
    if [&b"X-Keywords"[..], b"X-UID", b"X-IMAPbase"].into_iter().any(has_room) {
        same(&plain(now), &plain(file), file);
    } else {
        same(now, file, file);
    }
}

/// A file without the lines in which sessions write.
fn plain(file: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let mut at = 0;
    for message in messages(file) {
        let header = line_end(file, message.place.start);
        plain.extend_from_slice(&file[at..header]);
        let mut own = false;
        for line in file[header..message.body.start].split_inclusive(|byte| *byte == b'\n') {
            if !line.starts_with(b" ") && !line.starts_with(b"\t") {
                let is = |own: &&str| name(line).is_some_and(|name| name.eq_ignore_ascii_case(own));
                own = ["Status", "X-Status", "X-Keywords", "X-UID", "X-IMAPbase"].iter().any(is);
            }
            if !own {
                plain.extend_from_slice(line);
            }
        }
        at = message.body.start;
    }
    plain.extend_from_slice(&file[at..]);
    plain
}

/// What is found is the same in windows of any size, and as large as what clients get.
fn check_scanning(file: &[u8], found: &[Message]) {
    let all = scan(file, 256 * 1024);
    for window in [0, 20_000] {
        assert!(scan(file, window) == all, "in a window of {window}: {}", text(file));
    }
    let sizes = |one: &Found| usize::try_from(one.size).unwrap();
    assert!(all.iter().map(sizes).eq(found.iter().map(|message| message.shown.len())));
    let headers = |one: &Found| usize::try_from(one.header).unwrap();
    assert!(all.iter().map(headers).eq(found.iter().map(|message| header_end(&message.shown))));
}

fn scan(file: &[u8], window: usize) -> Vec<Found> {
    Scanner::with_window(file, file.len() as u64, window).map(Result::unwrap).collect()
}

/// What is written into the mailbox's own fields is found there, and nothing else has changed.
fn check_write_back(file: &[u8], dice: &mut Dice) {
    let before = scan(file, 0);
    let mut now = file.to_vec();
    let mut written = Vec::new();
    for found in &before {
        let place = |n: u64| usize::try_from(n).unwrap();
        let (start, end) = (place(found.extent.header_start()), place(found.extent.body_start()));
        let keywords = [&[][..], &["a"], &["$Junk", "work"]][dice.below(3)];
        let flags = Flags::of_bits(u8::try_from(dice.below(32)).unwrap());
        let base = ImapBase { uid_validity: 7, uid_last: 9, keywords: vec!["a".into()] };
        let wanted = Wanted {
            marks: (dice.below(4) > 0).then_some((flags, keywords)),
            uid: (dice.below(3) > 0).then(|| 1 + u32::try_from(dice.below(100_000)).unwrap()),
            base: (dice.below(4) == 0).then_some(&base),
        };
        let mut own = found.own.clone();
        if let Ok(edit) = write_back(&file[start..end], &wanted) {
            if let Some(edit) = edit {
                let at = start + edit.at;
                assert!(at + edit.bytes.len() <= end);
                now[at..at + edit.bytes.len()].copy_from_slice(&edit.bytes);
            }
            if let Some((flags, keywords)) = wanted.marks {
                own.flags = flags;
                own.keywords = keywords.iter().map(ToString::to_string).collect();
            }
            own.uid = wanted.uid.or(own.uid);
            own.base = wanted.base.cloned().or(own.base);
        }
        own.keywords.sort();
        written.push(own);
    }
    let after = scan(&now, 0);
    assert_eq!(after.len(), before.len(), "{} in {}", text(&now), text(file));
    for ((mut after, before), own) in after.into_iter().zip(before).zip(written) {
        after.own.keywords.sort();
        let found = (after.own.flags, &after.own.keywords, after.own.uid, &after.own.base);
        assert_eq!(found, (own.flags, &own.keywords, own.uid, &own.base), "in {}", text(file));
        assert!(Found { own: before.own.clone(), ..after } == before, "in {}", text(file));
    }
}

/// Reading, and that this changes nothing.
pub fn check_reading(input: &[u8]) {
    let file = grown(input);
    let home = Home::new(&file);
    let mut store = home.open();
    let opened = home.content();
    let mut dice = Dice::of(input);
    for (stored, message) in in_order(&store).iter().zip(list(&messages(&file))) {
        let shown = read(&mut store, stored);
        same(&shown, &message.shown, &file);
        check_shown(&shown);
        // In parts, forwards and backwards.
        for _ in 0..4 {
            let start = dice.below(shown.len() + 2);
            let end = start + dice.below(shown.len() + 2);
            let part = &shown[start.min(shown.len())..end.min(shown.len())];
            same(&read_part(&mut store, stored, start..end), part, &file);
        }
    }
    store.sync().unwrap();
    assert!(home.content() == opened);
    assert_eq!(without_room(&home.open()), without_room(&store));
    assert!(store.take_warnings().is_empty());
}

fn read_part(store: &mut MboxStore, message: &Stored, range: Range<usize>) -> Vec<u8> {
    let mut part = Vec::new();
    let mut sink = |bytes: &[u8]| {
        part.extend_from_slice(bytes);
        Ok(())
    };
    store.read(message.uid, range.start as u64..range.end as u64, &mut sink).unwrap();
    part
}

fn read_all(store: &mut MboxStore) -> Vec<Vec<u8>> {
    in_order(store).iter().map(|message| read(store, message)).collect()
}

/// Appending, marking, and removing so many choices of messages.
pub fn check_changing(input: &[u8], choices: usize) {
    let file = grown(input);
    let found = messages(&file);
    check_appending(&file, &found, false);
    check_appending(&file, &found, true);
    let mut dice = Dice::of(input);
    for _ in 0..choices {
        check_marking(&file, &found, &mut dice);
        check_removing(&file, &found, &mut dice);
    }
}

fn check_appending(file: &[u8], found: &[Message], in_session: bool) {
    let home = Home::new(file);
    let mut wanted = shown(list(found));
    let mut stager = Stager::new(u64::MAX);
    stager.push(b"Subject: new\n\n\nFrom a\n\n>From b\n.\n\n").unwrap();
    let message = NewMessage {
        sender: b"s@b.org".to_vec(),
        at: UNIX_EPOCH,
        trace: Vec::new(),
        text: Rc::new(stager.finish().unwrap()),
    };
    let mut store = home.open();
    if in_session {
        let arrival = Arrival { message, flags: Flags::SEEN, keywords: vec!["new".into()] };
        let uids = store.append(&[arrival]).unwrap();
        let last = *store.messages().unwrap().last().unwrap();
        assert_eq!((&uids[..], last.marks.flags), (&[last.uid][..], Flags::SEEN));
        assert!(last.marks.keywords.is_power_of_two() || store.keywords().len() == MOST_KEYWORDS);
    } else {
        home.mbox().append(&[message]).unwrap();
    }
    let content = home.content();
    let (before, behind) = content.split_at_checked(file.len()).unwrap();
    check_unchanged(before, file);
    let behind = behind.trim_ascii();
    assert!(behind.starts_with(&from_line::write(b"s@b.org", UNIX_EPOCH)));
    let body = b"\nSubject: new\n\n\n>From a\n\n>>From b\n.";
    assert!(plain(behind).ends_with(body), "{}", text(behind));
    assert!(content.ends_with(b"\n.\n\n\n"));
    wanted.push(b"Subject: new\r\n\r\n\r\nFrom a\r\n\r\n>From b\r\n.\r\n\r\n".to_vec());
    // A Content-Length that reached past the end of the file may reach what has come.
    if found.last().is_none_or(|last| !last.overreaches()) {
        store.sync().unwrap();
        all_same(&read_all(&mut store), &wanted, file);
        check_reopening(&home, &mut store, file);
        all_same(&home.read_all(), &wanted, file);
    }
    assert!(store.take_warnings().is_empty());
}

/// Nobody knows the UIDs but the file.
fn lose_index(home: &Home) {
    fs::remove_dir_all(&home.place.index).unwrap();
}

/// UIDs and marks of messages, as they stand in the file.
fn marks(store: &MboxStore) -> Vec<(u32, Flags, Vec<String>)> {
    let names = |message: &Stored| {
        let names = store.keywords().iter().enumerate();
        let names = names.filter(|(at, _)| message.marks.keywords >> at & 1 == 1);
        let mut names: Vec<_> = names.map(|(_, name)| name.to_ascii_lowercase()).collect();
        names.sort();
        names
    };
    let messages = in_order(store);
    messages.iter().map(|one| (one.uid, one.marks.flags, names(one))).collect()
}

/// The messages but for where there is room: that is found out when something is to be written.
fn without_room(store: &MboxStore) -> Vec<Stored> {
    let mut messages = store.messages().unwrap();
    for message in &mut messages {
        message.extent.no_room = false;
    }
    messages
}

/// That the index has it all, and the file what there is room for.
fn check_reopening(home: &Home, store: &mut MboxStore, file: &[u8]) {
    let known = home.open();
    assert_eq!(without_room(&known), without_room(store));
    assert_eq!(known.keywords(), store.keywords());
    assert_eq!(known.status(), store.status());
    store.checkpoint().unwrap();
    let content = home.content();
    let known = home.open();
    assert_eq!(marks(&known), marks(store));
    drop(known);
    lose_index(home);
    let found = home.open();
    let (before, after) = (marks(store), marks(&found));
    assert_eq!(before.len(), after.len(), "{}", text(file));
    let crowded = store.keywords().len() == MOST_KEYWORDS;
    let messages = in_order(store);
    for (stored, (before, after)) in messages.iter().zip(before.iter().zip(&after)) {
        if !stored.extent.unwritten {
            assert_eq!(before.1, after.1, "flags in {}", text(file));
            assert!(crowded || before.2 == after.2, "{before:?}, {after:?} in {}", text(file));
        }
    }
    // The file's own UIDs are believed as they ascend in it, where its first message still had room
    // for the UIDVALIDITY.
    // (A new one is of the same second.)
    let said = format!("X-IMAPbase: {} ", found.status().uid_validity);
    let same = store.status().uid_validity == found.status().uid_validity
        && memchr::memmem::find(&content, said.as_bytes()).is_some();
    let named = messages.iter().all(|stored| stored.extent.named);
    if same && named && messages.is_sorted_by_key(|message| message.uid) {
        assert!(before.iter().zip(&after).all(|(a, b)| a.0 == b.0), "UIDs in {}", text(file));
    }
    check_uids(&found);
    assert_eq!(home.content().len(), content.len());
    *store = found;
}

fn check_marking(file: &[u8], found: &[Message], dice: &mut Dice) {
    let home = Home::new(file);
    let mut store = home.open();
    for _ in 0..3 {
        let before = marks(&store);
        let uids: UidSet = store.uids().iter().filter(|_| dice.below(2) == 0).collect();
        let marking = [Marking::Add, Marking::Remove, Marking::Replace][dice.below(3)];
        let flags = Flags::of_bits(u8::try_from(dice.below(32)).unwrap());
        let keywords = [vec![], vec!["a".to_owned()], vec!["$Junk".into(), "work".into()]];
        let keywords = &keywords[dice.below(3)];
        store.mark(&uids, marking, flags, keywords, None).unwrap();
        for ((uid, before, _), (_, after, names)) in before.iter().zip(marks(&store)) {
            let wanted = match marking {
                _ if !uids.contains(*uid) => *before,
                Marking::Add => *before | flags,
                Marking::Remove => *before & !flags,
                Marking::Replace => flags,
            };
            assert_eq!(after, wanted);
            let has = |name: &String| names.contains(&name.to_ascii_lowercase());
            if uids.contains(*uid) && store.keywords().len() < MOST_KEYWORDS {
                let removed = marking == Marking::Remove;
                assert!(keywords.iter().all(|name| has(name) != removed));
            }
        }
        if dice.below(2) == 0 {
            store.checkpoint().unwrap();
        }
    }
    check_reopening(&home, &mut store, file);
    check_store(&mut store, list(found), file);
    assert_eq!(home.content().len(), file.len());
    same(&plain(&home.content()), &plain(file), file);
    all_same(&read_all(&mut store), &shown(list(found)), file);
    assert!(store.take_warnings().is_empty());
}

fn check_removing(file: &[u8], found: &[Message], dice: &mut Dice) {
    let home = Home::new(file);
    let mut store = home.open();
    let listed = list(found);
    let removed: Vec<bool> = listed.iter().map(|_| dice.below(2) == 0).collect();
    let chosen = in_order(&store).into_iter().zip(&removed).filter(|(_, removed)| **removed);
    let chosen: UidSet = chosen.map(|(message, _)| message.uid).collect();
    let uids: Vec<u32> = in_order(&store).iter().map(|message| message.uid).collect();
    let uids: Vec<u32> = uids.into_iter().filter(|uid| !chosen.contains(*uid)).collect();
    assert_eq!(store.expunge(&chosen).unwrap(), chosen);
    let mut wanted = file[..listed.first().map_or(file.len(), |m| m.place.start)].to_vec();
    for (n, message) in listed.iter().enumerate().filter(|(n, _)| !removed[*n]) {
        // What is no text of another message must not become it: a blank line is left before it.
        let parted = wanted.is_empty() || blank_line_before(&wanted, wanted.len(), 0) > 0;
        if n > 0 && removed[n - 1] && !parted {
            wanted.push(b'\n');
        }
        wanted.extend_from_slice(&file[message.place.clone()]);
    }
    let content = home.content();
    // Where there was no room fields may have been inserted, no more than was removed.
    assert!(content.len() <= file.len());
    if content.len() == wanted.len() {
        check_unchanged(&content, &wanted);
    } else {
        same(&plain(&content), &plain(&wanted), file);
    }
    let kept: Vec<Vec<u8>> =
        (0..listed.len()).filter(|n| !removed[*n]).map(|n| listed[n].shown.clone()).collect();
    all_same(&read_all(&mut store), &kept, file);
    assert!(in_order(&store).iter().map(|message| message.uid).eq(uids));
    let now = messages(&content);
    // See `overreaches`. And c-client's message counts as such at the beginning only.
    let steady = found.iter().chain(&now).all(|m| !m.overreaches() && !m.internal);
    if steady {
        all_same(&shown(list(&now)), &kept, file);
        check_store(&mut store, list(&now), file);
        check_reopening(&home, &mut store, file);
    } else {
        lose_index(&home);
    }
    all_same(&home.read_all(), &shown(list(&now)), &content);
    assert!(store.take_warnings().is_empty());
}

/// A session does something, or a neighbour does, again and again: what is read are always the
/// messages that must be there, under the UIDs that they had.
pub fn check_life(input: &[u8], steps: usize) {
    let file = grown(input);
    let home = Home::new(&file);
    let mut dice = Dice::of(input);
    let mut store = home.open();
    let mut wanted = shown(list(&messages(&file)));
    for step in 0..steps {
        let before = home.content();
        let found = messages(&before);
        // See `overreaches`. And c-client's message counts as such at the beginning only.
        if found.iter().any(|message| message.overreaches() || message.internal) {
            return;
        }
        let uids: Vec<u32> = in_order(&store).iter().map(|message| message.uid).collect();
        let mut validity = store.status().uid_validity;
        let mut gone = Vec::new();
        let (mut added, mut moved, mut lost) = (false, false, false);
        let some: UidSet = uids.iter().copied().filter(|_| dice.below(3) == 0).collect();
        let new = format!("Subject: {step}\n\n{step}\n");
        let delivered = format!("From a@b.org Thu Jan  1 00:00:00 1970\n{new}\n");
        let choice = dice.below(8);
        match choice {
            0 => {
                let flags = Flags::of_bits(u8::try_from(dice.below(32)).unwrap());
                let keywords = [["a", "b"][dice.below(2)].to_owned()];
                store.mark(&some, Marking::Add, flags, &keywords, None).unwrap();
            }
            1 => store.checkpoint().unwrap(),
            2 => {
                // Without it, the file's own UIDs or new ones are as good.
                lost = dice.below(2) == 0;
                if lost {
                    lose_index(&home);
                }
                store = home.open();
                lost |= store.status().uid_validity != validity;
                validity = store.status().uid_validity;
            }
            3 => {
                let mut stager = Stager::new(u64::MAX);
                stager.push(new.as_bytes()).unwrap();
                let text = Rc::new(stager.finish().unwrap());
                let (sender, trace) = (b"a@b.org".to_vec(), Vec::new());
                let message = NewMessage { sender, at: UNIX_EPOCH, trace, text };
                let (flags, keywords) = (Flags::FLAGGED, vec!["a".into()]);
                store.append(&[Arrival { message, flags, keywords }]).unwrap();
                added = true;
            }
            4 => {
                assert_eq!(store.expunge(&some).unwrap(), some);
                gone = some.iter().collect();
            }
            // A neighbour puts a message behind all others, as it should.
            5 => {
                let parted = before.is_empty() || blank_line_before(&before, before.len(), 0) > 0;
                let parting: &[u8] = match before.last() {
                    _ if parted => b"",
                    Some(b'\n') => b"\n",
                    _ => b"\n\n",
                };
                let now = [&before, parting, delivered.as_bytes()].concat();
                fs::write(&home.place.path, now).unwrap();
                added = true;
            }
            // A neighbour moves the last one to the front.
            6 if found.len() > 1 && found[0].place.start == 0 => {
                let last = found.last().unwrap().place.clone();
                if blank_line_before(&before, before.len(), 0) > 0 {
                    let now = [&before[last.clone()], &before[..last.start]].concat();
                    if shown(&messages(&now)).iter().skip(1).eq(&wanted[..wanted.len() - 1]) {
                        fs::write(&home.place.path, now).unwrap();
                        moved = true;
                    }
                }
            }
            // A neighbour removes the first one.
            7 if found.len() > 1 => {
                let now = &before[found[1].place.start..];
                if shown(&messages(now)) == wanted[1..] {
                    fs::write(&home.place.path, now).unwrap();
                    gone.push(uids[0]);
                }
            }
            _ => {}
        }
        let mut place = 0..;
        wanted.retain(|_| !gone.contains(&uids[place.next().unwrap()]));
        let mut uids = uids;
        uids.retain(|uid| !gone.contains(uid));
        if moved {
            wanted.rotate_right(1);
            uids.rotate_right(1);
        }
        if added {
            wanted.push(new.replace('\n', "\r\n").into_bytes());
        }
        store.sync().unwrap();
        if store.status().uid_validity != validity {
            // Another message is the first, and says another UIDVALIDITY: this handle's UIDs mean no
            // message any more.
            for uid in store.uids().clone().iter() {
                let given = store.read(uid, 0..u64::MAX, &mut |_| Ok(()));
                assert!(matches!(given, Err(Error::Changed)), "{given:?} in {}", text(&before));
            }
            assert!(store.take_warnings().is_empty());
            store = home.open();
            lost = true;
        }
        all_same(&read_all(&mut store), &wanted, &before);
        check_uids(&store);
        // Of messages that are the same a neighbour may have meant any.
        let mut digests = HashSet::new();
        if !lost && found.iter().all(|message| digests.insert(message.digest)) {
            let mut now: Vec<u32> = in_order(&store).iter().map(|message| message.uid).collect();
            now.truncate(uids.len());
            assert_eq!(now, uids, "choice {choice} in {}", text(&before));
        }
    }
    assert!(store.take_warnings().is_empty());
}

/// Small inputs make files larger than what is looked at at once. In one that begins with 0x1a a
/// byte from 0x1a to 0x1d and a byte N behind it stand for N times a line of 64 bytes, 32 bytes of a
/// line, 32 empty lines, 32 spaces.
fn grown(input: &[u8]) -> Vec<u8> {
    let Some(input) = input.strip_prefix(b"\x1a") else {
        return input.to_vec();
    };
    let line = [&[b'x'; 63][..], b"\n"].concat();
    let mut file = Vec::new();
    let mut bytes = input.iter();
    while let Some(byte) = bytes.next() {
        let filler = match byte {
            0x1a => &line[..],
            0x1b => &[b'y'; 32],
            0x1c => &[b'\n'; 32],
            0x1d => &[b' '; 32],
            _ => {
                file.push(*byte);
                continue;
            }
        };
        let times = bytes.next().copied().unwrap_or(1);
        file.extend(filler.repeat(usize::from(times)));
    }
    file
}

/// A message as the reference finds it.
struct Message {
    /// With its `From_` line and the blank line that ends it.
    place: Range<usize>,
    body: Range<usize>,
    /// What a client gets.
    shown: Vec<u8>,
    /// Of the header as clients get it and the body as stored, its last line ended.
    digest: u128,
    content_length: Option<u64>,
    /// c-client's pseudo message, where it is the first.
    internal: bool,
}

impl Message {
    /// Its Content-Length is wrong, but may become right when something else stands behind it.
    fn overreaches(&self) -> bool {
        let room = (self.place.end - self.body.start) as u64;
        self.content_length.is_some_and(|length| length > room)
    }
}

/// Those that clients are shown.
fn list(found: &[Message]) -> &[Message] {
    match found.split_first() {
        Some((first, rest)) if first.internal => rest,
        _ => found,
    }
}

fn shown(listed: &[Message]) -> Vec<Vec<u8>> {
    listed.iter().map(|message| message.shown.clone()).collect()
}

/// One stands behind the other, from the first to the end of the file.
fn check_places(file: &[u8], found: &[Message]) {
    for pair in found.windows(2) {
        assert_eq!(pair[0].place.end, pair[1].place.start);
    }
    for message in found {
        assert!(message.place.start < message.body.start || message.body.is_empty());
        assert!(message.body.start <= message.body.end && message.body.end <= message.place.end);
        assert!(file[message.body.end..message.place.end].iter().all(|b| b"\r\n".contains(b)));
    }
    assert!(found.last().is_none_or(|last| last.place.end == file.len()));
}

fn messages(file: &[u8]) -> Vec<Message> {
    let mut found = Vec::new();
    let mut next = line_starts(file, 0).find(|at| begins(file, *at));
    while let Some(start) = next.filter(|at| *at < file.len()) {
        let message = message(file, start);
        next = Some(message.place.end);
        found.push(message);
    }
    found
}

fn message(file: &[u8], start: usize) -> Message {
    let mut body = line_end(file, start);
    let (mut lines, mut ended) = (Vec::new(), false);
    while body < file.len() && !ended {
        let end = line_end(file, body);
        let line = &file[body..end];
        ended = matches!(line, b"\n" | b"\r\n" | b"\r");
        if !ended {
            lines.push(line);
        }
        body = end;
    }
    let values = |wanted: &str| -> Vec<&[u8]> {
        let is = |line: &&&[u8]| name(line).is_some_and(|name| name.eq_ignore_ascii_case(wanted));
        lines.iter().filter(is).map(|line| fields::value(&line[..line.len().min(LOOK)])).collect()
    };
    let content_length = values("Content-Length").into_iter().find_map(decimal);
    let counted = content_length.and_then(|length| counted(file, body, length));
    let (body_end, end) = counted.unwrap_or_else(|| {
        let next = line_starts(file, body).find(|at| begins(file, *at)).unwrap_or(file.len());
        (next - blank_line_before(file, next, body), next)
    });
    let quoted = !values("X-Mbox-Quoted").is_empty();
    let internal = !values("X-IMAP").is_empty()
        && values("Subject").last().is_some_and(|v| v.starts_with(b"DON'T DELETE THIS MESSAGE"));
    let mut shown = Vec::new();
    let mut hidden = false;
    for line in lines {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            hidden = name(line).is_some_and(|name| fields::is_hidden(name.as_bytes()));
        }
        if !hidden {
            show(line, &mut shown);
        }
    }
    shown.extend_from_slice(b"\r\n");
    let mut hashed = [&shown[..], &file[body..body_end]].concat();
    if body < body_end && file[body_end - 1] != b'\n' {
        hashed.push(b'\n');
    }
    let digest = xxh3_128(&hashed);
    for line in file[body..body_end].split_inclusive(|byte| *byte == b'\n') {
        show(if quoted { unquoted(line) } else { line }, &mut shown);
    }
    Message { place: start..end, body: body..body_end, shown, digest, content_length, internal }
}

/// The places where lines begin, from the one at `from` on.
fn line_starts(file: &[u8], from: usize) -> impl Iterator<Item = usize> {
    let behind = memchr::memchr_iter(b'\n', &file[from..]).map(move |at| from + at + 1);
    std::iter::once(from).chain(behind)
}

fn line_end(file: &[u8], start: usize) -> usize {
    memchr::memchr(b'\n', &file[start..]).map_or(file.len(), |at| start + at + 1)
}

/// Whether a message begins with this line: at the start of the file, behind a blank line, or
/// where a header field follows.
fn begins(file: &[u8], at: usize) -> bool {
    let next = line_end(file, at);
    let field = || name(&file[next..line_end(file, next).min(at + LOOK).max(next)]).is_some();
    from_line::begins(&file[at..])
        && (at == 0 || blank_line_before(file, at, 0) > 0 || (file[at - 1] == b'\n' && field()))
}

/// The length of the blank line that ends at `at` and does not begin before `from`, where lines
/// begin.
fn blank_line_before(file: &[u8], at: usize, from: usize) -> usize {
    let before = &file[from..at];
    [&b"\n"[..], b"\r\n"]
        .into_iter()
        .find(|end| before.strip_suffix(*end).is_some_and(|b| b.is_empty() || b.ends_with(b"\n")))
        .map_or(0, <[u8]>::len)
}

/// The name of a field.
fn name(line: &[u8]) -> Option<&str> {
    let colon = memchr::memchr(b':', line).filter(|at| *at < LONGEST_NAME)?;
    let name = std::str::from_utf8(&line[..colon]).ok()?.trim_ascii_end();
    (!name.is_empty() && name.bytes().all(|byte| byte.is_ascii_graphic())).then_some(name)
}

fn decimal(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// The ends of body and message where Content-Length is right: line ends may follow, then a
/// message or the end of the file.
fn counted(file: &[u8], body: usize, length: u64) -> Option<(usize, usize)> {
    let body_end = usize::try_from(length).ok()?.checked_add(body)?;
    let behind = file.get(body_end..)?;
    let gap = behind.iter().take_while(|byte| b"\r\n".contains(byte)).count();
    let ended = length == 0 || file[body_end - 1] == b'\n' || gap > 0 || behind.is_empty();
    let next = body_end + gap;
    let good = if next == file.len() {
        behind.len() < LOOK
    } else {
        gap <= LOOK && file[next - 1] != b'\r' && from_line::begins(&file[next..])
    };
    (ended && good).then_some((body_end, next))
}

fn unquoted(line: &[u8]) -> &[u8] {
    let quotes = line.iter().take_while(|byte| **byte == b'>').count();
    if quotes > 0 && line[quotes..].starts_with(b"From ") { &line[1..] } else { line }
}

/// A line with CRLF at its end.
fn show(line: &[u8], shown: &mut Vec<u8>) {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    shown.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
    shown.extend_from_slice(b"\r\n");
}

fn header_end(shown: &[u8]) -> usize {
    if shown.starts_with(b"\r\n") {
        return 2;
    }
    shown.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4
}

/// Lines end with CRLF, no field of the mailbox is there.
fn check_shown(shown: &[u8]) {
    assert!(shown.ends_with(b"\r\n"));
    for line in shown.split_inclusive(|byte| *byte == b'\n') {
        assert!(line.ends_with(b"\r\n"));
    }
    for line in shown[..header_end(shown)].split(|byte| *byte == b'\n') {
        assert!(!fields::name(line).is_some_and(fields::is_hidden), "{}", text(shown));
    }
}

fn text(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    if text.len() > 3000 { format!("{} bytes", bytes.len()) } else { text }
}

/// That both are the same; else where they part.
fn same(now: &[u8], wanted: &[u8], file: &[u8]) {
    if now == wanted {
        return;
    }
    let alike = now.iter().zip(wanted).take_while(|(a, b)| a == b).count();
    let around = |bytes: &[u8]| {
        let end = bytes.len().min(alike + 100);
        bytes[alike.saturating_sub(100).min(end)..end].escape_ascii().to_string()
    };
    panic!("at {alike}:\n  {}\nis not\n  {}\nin {}", around(now), around(wanted), text(file));
}

fn all_same(now: &[Vec<u8>], wanted: &[Vec<u8>], file: &[u8]) {
    for (now, wanted) in now.iter().zip(wanted) {
        same(now, wanted, file);
    }
    assert_eq!(now.len(), wanted.len(), "messages in {}", text(file));
}
