//! Old and strange mbox files in a session: all is read, marked, written back, one message removed,
//! one put behind; and whatever else stands in the file stays, byte for byte.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use hikyaku::config::LockKind;
use hikyaku::mailbox::store::{Arrival, Flags, Marking, Message, Store};
use hikyaku::mailbox::{MboxStore, NewMessage, Place, Stager, UidSet};

const FROM: &str = "From a@b.org Thu Jan  1 00:00:00 1970\n";

struct Home {
    dir: tempfile::TempDir,
}

impl Home {
    fn new(file: &[u8]) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        fs::write(dir.path().join("box"), file).unwrap();
        Self { dir }
    }

    fn inbox(&self) -> PathBuf {
        self.dir.path().join("box")
    }

    fn content(&self) -> Vec<u8> {
        fs::read(self.inbox()).unwrap()
    }

    fn open(&self) -> MboxStore {
        MboxStore::open(Place {
            path: self.inbox(),
            index: self.dir.path().join("index"),
            owner: nix::unistd::geteuid(),
            locks: vec![LockKind::Fcntl, LockKind::Dotlock],
            libexec: "/nonexistent".into(),
            lock_timeout: Duration::from_secs(1),
            quota: 0,
        })
        .unwrap()
    }
}

/// As they stand in the file.
fn in_order(store: &MboxStore) -> Vec<Message> {
    let mut messages = store.messages().unwrap();
    messages.sort_by_key(|message| message.extent.start);
    messages
}

fn read(store: &mut MboxStore, uid: u32) -> Vec<u8> {
    let mut text = Vec::new();
    let mut sink = |bytes: &[u8]| {
        text.extend_from_slice(bytes);
        Ok(())
    };
    store.read(uid, 0..u64::MAX, &mut sink).unwrap();
    text
}

fn all(store: &mut MboxStore) -> Vec<Vec<u8>> {
    in_order(store).iter().map(|message| read(store, message.uid)).collect()
}

fn arrival() -> Arrival {
    let mut stager = Stager::new(u64::MAX);
    stager.push(b"Subject: new\n\nnew\n").unwrap();
    let text = Rc::new(stager.finish().unwrap());
    let (sender, trace) = (b"a@b.org".to_vec(), Vec::new());
    let message = NewMessage { sender, at: UNIX_EPOCH, trace, text };
    Arrival { message, flags: Flags::default(), keywords: Vec::new() }
}

const NEW: &[u8] = b"Subject: new\r\n\r\nnew\r\n";

fn text(bytes: &[u8]) -> String {
    bytes[..bytes.len().min(500)].escape_ascii().to_string()
}

fn same(now: &[Vec<u8>], wanted: &[Vec<u8>], when: &str) {
    for (n, (now, wanted)) in now.iter().zip(wanted).enumerate() {
        assert!(now == wanted, "{when}, message {n}: {}", text(now));
    }
    assert_eq!(now.len(), wanted.len(), "{when}");
}

/// A file without the lines in which sessions write: what moves gets them where it had none.
fn plain_lines(file: &[u8]) -> Vec<u8> {
    let own = ["Status:", "X-Status:", "X-Keywords:", "X-UID:", "X-IMAPbase:"];
    let lines = file.split_inclusive(|byte| *byte == b'\n');
    let lines = lines.filter(|line| !own.iter().any(|own| line.starts_with(own.as_bytes())));
    lines.collect::<Vec<_>>().concat()
}

/// A file is `junk`, and what each message is there and for a client.
fn go_through(junk: &[u8], messages: &[(Vec<u8>, Vec<u8>)]) {
    for removed in 0..messages.len().clamp(1, 4) {
        let pieces = || messages.iter().map(|(stored, _)| &stored[..]);
        let file: Vec<u8> = std::iter::once(junk).chain(pieces()).collect::<Vec<_>>().concat();
        let mut wanted: Vec<Vec<u8>> = messages.iter().map(|(_, shown)| shown.clone()).collect();
        let home = Home::new(&file);
        let mut store = home.open();
        same(&all(&mut store), &wanted, "opened");
        let uids: Vec<u32> = in_order(&store).iter().map(|message| message.uid).collect();

        let every = UidSet::from(1..=u32::MAX);
        store.mark(&every, Marking::Add, Flags::FLAGGED, &["a".into()], None).unwrap();
        store.checkpoint().unwrap();
        // No header has room for it.
        assert!(home.content() == file);
        let mut store = home.open();
        same(&all(&mut store), &wanted, "marked");
        assert!(in_order(&store).iter().map(|message| message.uid).eq(uids.iter().copied()));
        assert!(store.messages().unwrap().iter().all(|m| m.marks.flags.has(Flags::FLAGGED)));
        assert!(store.messages().unwrap().iter().all(|m| m.marks.keywords == 1));

        let mut left = file.clone();
        if let Some(uid) = uids.get(removed) {
            assert_eq!(store.expunge(&UidSet::from(*uid..=*uid)).unwrap().len(), 1);
            wanted.remove(removed);
            let before = pieces().take(removed).collect::<Vec<_>>().concat();
            let before = [junk, &before].concat();
            let behind = pieces().skip(removed + 1).collect::<Vec<_>>().concat();
            let parted = before.is_empty()
                || before.ends_with(b"\n\n")
                || before.ends_with(b"\n\r\n")
                || behind.is_empty();
            left = [&before[..], if parted { b"" } else { b"\n" }, &behind].concat();
            let now = home.content();
            assert!(
                now.len() <= file.len() && plain_lines(&now) == plain_lines(&left),
                "{}",
                text(&now)
            );
            left = now;
            same(&all(&mut store), &wanted, "one removed");
        }

        store.append(&[arrival()]).unwrap();
        wanted.push(NEW.to_vec());
        assert!(home.content().starts_with(&left));
        same(&all(&mut store), &wanted, "one put behind");
        fs::remove_dir_all(home.dir.path().join("index")).unwrap();
        same(&all(&mut home.open()), &wanted, "without the index");
        assert!(store.take_warnings().is_empty());
    }
}

fn crlf(text: &str) -> Vec<u8> {
    text.replace("\r\n", "\n").replace('\n', "\r\n").into_bytes()
}

/// A message with a blank line behind it.
fn plain(rest: &str) -> (Vec<u8>, Vec<u8>) {
    (format!("{FROM}{rest}\n").into_bytes(), crlf(rest))
}

#[test]
fn an_empty_file_and_files_without_a_message() {
    for junk in ["", "\n", "\r\n", "junk", "junk\n\njunk", "From nobody\n\n", "\0\0\0\n"] {
        go_through(junk.as_bytes(), &[]);
    }
    go_through(b"junk\n\n", &[plain("Subject: a\n\na\n"), plain("Subject: b\n\nb\n")]);
}

#[test]
fn messages_without_a_blank_line_before_the_next_one() {
    let glued = |rest: &str| (format!("{FROM}{rest}").into_bytes(), crlf(rest));
    go_through(b"", &[glued("A: a\n\na\n"), glued("A: b\n\nb\n"), glued("A: c\n\nc\n")]);
    go_through(b"", &[plain("A: a\n\na\n"), glued("A: b\n\nb\n"), plain("A: c\n\nc\n")]);
}

#[test]
fn a_file_with_the_line_ends_of_the_network() {
    let stored = |rest: &str| (crlf(&format!("{FROM}{rest}\n")), crlf(rest));
    go_through(b"", &[stored("A: a\n\na\n"), stored("A: b\n\nb\n\nb\n"), stored("A: c\n\n")]);
    go_through(b"", &[plain("A: a\n\na\n"), stored("A: b\n\nb\n"), plain("A: c\n\nc\n")]);
}

#[test]
fn a_file_that_ends_within_a_line_a_header_or_a_from_line() {
    for rest in ["A: c\n\nc", "A: c\n\nc\r", "A: c\n\nc\n\r", "A: c\n", "A: c", ""] {
        let mut shown = crlf(rest.trim_end_matches('\r'));
        let blank_line = if rest == "A: c" { "\r\n\r\n" } else { "\r\n" };
        shown.extend_from_slice(blank_line.as_bytes());
        let last = (format!("{FROM}{rest}").into_bytes(), shown);
        go_through(b"", &[plain("A: a\n\na\n"), plain("A: b\n\nb\n"), last]);
    }
}

#[test]
fn bytes_of_every_kind() {
    let bytes: Vec<u8> = (0..=255).filter(|byte| !b"\r\n".contains(byte)).collect();
    let stored = [FROM.as_bytes(), b"Subject: ", &bytes, b"\n\n", &bytes, b"\n\n"].concat();
    let shown = [b"Subject: ", &bytes[..], b"\r\n\r\n", &bytes, b"\r\n"].concat();
    let zeros = vec![0; 70_000];
    let nul = (
        [FROM.as_bytes(), b"\n", &zeros, b"\n\n"].concat(),
        [b"\r\n", &zeros[..], b"\r\n"].concat(),
    );
    go_through(b"", &[plain("A: a\n\na\n"), (stored, shown), nul, plain("A: b\n\nb\n")]);
}

#[test]
fn a_length_that_is_wrong_and_one_that_is_right() {
    let with = |length: &str, rest: &str| {
        let (_, shown) = plain(rest);
        (format!("{FROM}Content-Length: {length}\n{rest}\n").into_bytes(), shown)
    };
    let quoting = format!("A: b\n\nb\n\n{FROM}A: x\n\nx\n");
    let right = quoting.len() - "A: b\n\n".len();
    go_through(
        b"",
        &[
            with("1", "A: a\n\na\na\na\n"),
            with(&right.to_string(), &quoting),
            with("4294967296", "A: c\n\nc\n"),
            with("18446744073709551616", "A: d\n\nd\n"),
            with("-1", "A: e\n\ne\n"),
            with("0", "A: f\n\nf\n"),
        ],
    );
}

#[test]
fn a_pseudo_message_stays_and_is_nobodys() {
    let pseudo = format!(
        "{FROM}Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA\n\
         X-IMAP: 1764000000 0000000012\nStatus: RO\n\nThis text is part of the internal format.\n\n"
    );
    go_through(pseudo.as_bytes(), &[plain("A: a\n\na\n"), plain("A: b\n\nb\n")]);
    let home = Home::new(&[pseudo.as_bytes(), &plain("A: a\n\na\n").0].concat());
    let store = home.open();
    assert_eq!(store.status().uid_validity, 1_764_000_000);
    assert_eq!(store.messages().unwrap()[0].uid, 13);
}

#[test]
fn uids_that_lie() {
    let uid = |uid: &str, base: &str, name: &str| {
        let rest = format!("A: {name}\n\n{name}\n");
        let (_, shown) = plain(&rest);
        (format!("{FROM}{base}X-UID: {uid}\n{rest}\n").into_bytes(), shown)
    };
    let base = "X-IMAPbase: 7 0000000009\n";
    // Which of them are believed: those that ascend up to 9.
    for (uids, base, believed) in [
        (["3", "3", "4"], base, [Some(3), None, Some(4)]),
        (["9", "8", "10"], base, [Some(9), None, None]),
        (["0", "4294967295", "4294967296"], base, [None; 3]),
        (["x", "-1", "5 "], base, [None, None, Some(5)]),
        (["1", "2", "3"], "", [None; 3]),
        (["1", "2", "3"], "X-IMAPbase: 0 9\n", [None; 3]),
        (["1", "2", "3"], "X-IMAPbase: 7 4294967295\n", [None; 3]),
    ] {
        let first = uid(uids[0], base, "a");
        let file = [first.0, uid(uids[1], "", "b").0, uid(uids[2], "", "c").0].concat();
        let home = Home::new(&file);
        let mut store = home.open();
        let found = in_order(&store);
        for (message, believed) in found.iter().zip(believed) {
            match believed {
                Some(uid) => assert_eq!(message.uid, uid, "{uids:?} {base:?}"),
                None if base.contains(" 0000000009") => assert!(message.uid > 9, "{uids:?}"),
                None => assert!(message.uid < 1000, "{uids:?} {base:?}"),
            }
        }
        let mut known: Vec<u32> = found.iter().map(|message| message.uid).collect();
        let texts = all(&mut store);
        assert_eq!(home.content().len(), file.len());
        // They stay, whoever looks.
        assert_eq!(home.open().messages().unwrap(), store.messages().unwrap());
        store.expunge(&UidSet::from(known[0]..=known[0])).unwrap();
        let new = store.append(&[arrival()]).unwrap();
        known.splice(..1, []);
        known.extend(new);
        let mut again = home.open();
        assert!(in_order(&again).iter().map(|message| message.uid).eq(known));
        same(&all(&mut again), &[&texts[1..], &[NEW.to_vec()]].concat(), "reopened");
    }
}

#[test]
fn headers_of_megabytes() {
    let one_line = format!("A: {}\n\na\n", "x".repeat(3_000_000));
    let lines = format!("{}\nb\n", "A: b\n".repeat(400_000));
    let folded = format!("A: {}\n\nc\n", " x\n".repeat(500_000).trim());
    let blanks = format!("{}: x\n\nd\n", " ".repeat(2_000_000));
    go_through(b"", &[plain(&one_line), plain(&lines), plain(&folded), plain(&blanks)]);
    // The mailbox's own fields in them have room, and nothing is written there.
    let room = format!("X-Keywords:{}\n{lines}", " ".repeat(100));
    let home = Home::new(&plain(&room).0);
    let mut store = home.open();
    store.mark(&UidSet::from(1..=1), Marking::Add, Flags::SEEN, &[], None).unwrap();
    store.checkpoint().unwrap();
    assert!(home.content() == plain(&room).0);
    let mut again = home.open();
    assert_eq!(again.messages().unwrap()[0].marks.flags, Flags::SEEN);
    same(&all(&mut again), &[crlf(&lines)], "reopened");
}

#[test]
fn a_hundred_thousand_empty_messages() {
    const MANY: usize = 100_000;
    let one = format!("{FROM}\n");
    let home = Home::new(one.repeat(MANY).as_bytes());
    let mut store = home.open();
    assert_eq!(store.status().messages, MANY);
    assert_eq!(store.status().size, 2 * MANY as u64);
    let every = UidSet::from(1..=u32::MAX);
    store.mark(&every, Marking::Add, Flags::SEEN, &["a".into()], None).unwrap();
    store.checkpoint().unwrap();
    let first = store.messages().unwrap()[0].uid;
    let middle = first + u32::try_from(MANY / 2).unwrap();
    assert_eq!(store.expunge(&UidSet::from(middle..=middle)).unwrap().len(), 1);
    assert_eq!(home.content(), one.repeat(MANY - 1).as_bytes());
    store.append(&[arrival()]).unwrap();
    let mut again = home.open();
    assert_eq!(again.messages().unwrap(), store.messages().unwrap());
    let status = again.status();
    assert_eq!((status.messages, status.unseen), (MANY, 1));
    let last = again.messages().unwrap()[MANY - 1].uid;
    assert_eq!(read(&mut again, last), NEW);
    assert_eq!(read(&mut again, middle + 1), b"\r\n");
    assert!(again.message(middle).unwrap().is_none());
}

/// Three messages, the second of which reaches beyond all that 31 bits can count.
#[test]
fn a_file_of_more_than_two_gigabytes() {
    let dir = tempfile::tempdir().unwrap();
    let disk = nix::sys::statvfs::statvfs(dir.path()).unwrap();
    let (large, room) = (1_u64 << 31, disk.blocks_available() * disk.fragment_size());
    if room < 100 << 20 {
        eprintln!("skipped: no room in {}", dir.path().display());
        return;
    }
    let home = Home { dir };
    let (first, last) = (plain("A: a\n\na\n"), plain("A: c\n\nc\n"));
    let file = File::create(home.inbox()).unwrap();
    file.write_all_at(&[&first.0[..], FROM.as_bytes(), b"A: b\n\n"].concat(), 0).unwrap();
    file.write_all_at(b"\n\n", large).unwrap();
    file.write_all_at(&last.0, large + 2).unwrap();
    if file.metadata().unwrap().blocks() > 1000 {
        eprintln!("skipped: the disk knows no holes");
        return;
    }

    let mut store = home.open();
    let sizes =
        |store: &MboxStore| store.messages().unwrap().iter().map(|m| m.size).collect::<Vec<_>>();
    let found = sizes(&store);
    assert_eq!((found.len(), found[0], found[2]), (3, 11, 11));
    assert!(found[1] > large - 200 && found[1] < large);
    assert_eq!(read(&mut store, 3), last.1);
    let every = UidSet::from(1..=u32::MAX);
    store.mark(&every, Marking::Add, Flags::SEEN, &[], None).unwrap();
    store.checkpoint().unwrap();
    // It goes where it needs no 2 GiB of journal: behind what is removed stands little.
    store.expunge(&UidSet::from(2..=2)).unwrap();
    assert!(plain_lines(&home.content()) == [first.0, last.0].concat());
    store.append(&[arrival()]).unwrap();
    same(&all(&mut home.open()), &[first.1, last.1, NEW.to_vec()], "reopened");
}
