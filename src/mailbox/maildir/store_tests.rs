//! A Maildir that neighbours use at the same time: they rename, remove and deliver as they do.

use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::MaildirStore;
use crate::mailbox::moment::killed_at;
use crate::mailbox::store::{Arrival, Flags, Marking, Store};
use crate::mailbox::store_tests::{place, read};
use crate::mailbox::uids::UidSet;
use crate::mailbox::{Error, Maildir, NewMessage, Stager};

struct Host {
    directory: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        let host = Self { directory: tempfile::tempdir().unwrap() };
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(host.path(part)).unwrap();
        }
        host
    }

    fn open(&self) -> MaildirStore {
        MaildirStore::open(place(self.directory.path(), "Maildir/")).unwrap()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("Maildir").join(name)
    }

    fn deliver(&self, body: &str) {
        let mut maildir = Maildir::new(place(self.directory.path(), "Maildir/"));
        maildir.append(&[message(body)]).unwrap();
    }

    /// The names in a part, sorted.
    fn names(&self, part: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(part)).unwrap();
        let mut names: Vec<String> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }
}

fn message(body: &str) -> NewMessage {
    let mut stager = Stager::new(1_000_000);
    stager.push(format!("Subject: x\r\n\r\n{body}\r\n").as_bytes()).unwrap();
    let text = Rc::new(stager.finish().unwrap());
    let at = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    NewMessage { sender: Vec::new(), at, trace: Vec::new(), text }
}

fn arrival(body: &str, flags: Flags, keywords: &[&str]) -> Arrival {
    let keywords = keywords.iter().map(|keyword| (*keyword).to_owned()).collect();
    Arrival { message: message(body), flags, keywords }
}

/// UIDs, flags and keywords of all messages.
fn shown(store: &MaildirStore) -> Vec<(u32, Flags, Vec<&str>)> {
    let message = |message: &crate::mailbox::store::Message| {
        let names = store.keywords().iter().enumerate();
        let has = names.filter(|(bit, _)| message.marks.keywords & (1 << bit) != 0);
        (message.uid, message.marks.flags, has.map(|(_, name)| name.as_str()).collect())
    };
    store.messages().unwrap().iter().map(message).collect()
}

fn one(uid: u32) -> UidSet {
    UidSet::from(uid..=uid)
}

fn mark(store: &mut MaildirStore, uid: u32, marking: Marking, flags: Flags, keywords: &[&str]) {
    let keywords: Vec<String> = keywords.iter().map(|keyword| (*keyword).to_owned()).collect();
    assert!(store.mark(&one(uid), marking, flags, &keywords, None).unwrap().is_empty());
}

const TEXT: &str = "A: 1\n\nx\n";

#[test]
fn what_neighbours_do_is_seen_at_the_next_look() {
    let host = Host::new();
    let mut store = host.open();
    host.write("new/2.b", TEXT);
    host.write("new/1.a", TEXT);
    host.write("cur/3.c:2,FRX", TEXT);
    store.sync().unwrap();
    let none = Flags::default();
    let flagged = Flags::FLAGGED | Flags::ANSWERED;
    assert_eq!(shown(&store), [(1, none, vec![]), (2, none, vec![]), (3, flagged, vec![])]);
    let first = store.status();
    host.rename("new/1.a", "cur/1.a:2,S");
    host.rename("cur/3.c:2,FRX", "cur/3.c:2,PX");
    fs::remove_file(host.path("new/2.b")).unwrap();
    host.write("new/0.late", TEXT);
    store.sync().unwrap();
    assert_eq!(
        shown(&store),
        [(1, Flags::SEEN, vec![]), (3, none, vec!["$Forwarded"]), (4, none, vec![])]
    );
    let changes = store.changes_since(first.highest_modseq).unwrap();
    assert_eq!((changes.changed, changes.vanished), (vec![1, 3, 4], one(2)));
    // Each of them shows even if it comes right behind a look.
    for n in 0..20 {
        let letters = if n % 2 == 0 { ["", "S"] } else { ["S", ""] };
        host.rename(&format!("cur/1.a:2,{}", letters[1]), &format!("cur/1.a:2,{}", letters[0]));
        store.sync().unwrap();
        assert_eq!(store.message(1).unwrap().unwrap().marks.flags.has(Flags::SEEN), n % 2 == 1);
    }
}

#[test]
fn a_message_stays_in_new_until_a_session_has_seen_or_marked_it() {
    let host = Host::new();
    let mut store = host.open();
    for body in ["1", "2", "3"] {
        host.deliver(body);
    }
    store.sync().unwrap();
    assert_eq!((host.names("new").len(), store.status().recent), (3, 3));
    mark(&mut store, 2, Marking::Add, Flags::SEEN, &[]);
    assert_eq!(host.names("new").len(), 2);
    assert!(host.names("cur")[0].ends_with(":2,S"));
    assert_eq!(store.claim_recent().unwrap(), 0);
    assert_eq!((host.names("new").len(), host.names("cur").len()), (0, 3));
    assert!(host.names("cur").iter().all(|name| name.contains(":2,")));
    store.sync().unwrap();
    assert_eq!(store.status().recent, 0);
    host.deliver("4");
    assert_eq!(store.claim_recent().unwrap(), 3);
    assert!(host.names("new").is_empty());
}

#[test]
fn a_mark_keeps_what_a_neighbour_marked_in_the_meantime_and_letters_that_it_does_not_know() {
    let host = Host::new();
    host.write("cur/1.a:2,X", TEXT);
    let mut store = host.open();
    host.rename("cur/1.a:2,X", "cur/1.a:2,RX");
    mark(&mut store, 1, Marking::Add, Flags::SEEN, &[]);
    assert_eq!(host.names("cur"), ["1.a:2,RSX"]);
    store.sync().unwrap();
    assert_eq!(shown(&store), [(1, Flags::SEEN | Flags::ANSWERED, vec![])]);
    mark(&mut store, 1, Marking::Replace, Flags::DELETED, &[]);
    assert_eq!(host.names("cur"), ["1.a:2,TX"]);
    mark(&mut store, 1, Marking::Remove, Flags::DELETED, &[]);
    assert_eq!(host.names("cur"), ["1.a:2,X"]);
}

#[test]
fn keywords_are_letters_that_dovecot_knows_and_the_27th_is_in_the_index() {
    let host = Host::new();
    host.write("cur/1.a:2,Sb", TEXT);
    host.write("dovecot-keywords", "0 $Junk\n1 Work\n");
    let mut store = host.open();
    assert_eq!(shown(&store), [(1, Flags::SEEN, vec!["Work"])]);
    mark(&mut store, 1, Marking::Add, Flags::default(), &["home", "WORK"]);
    assert_eq!(host.names("cur"), ["1.a:2,Sbc"]);
    let file = host.path("dovecot-keywords");
    assert_eq!(fs::read_to_string(&file).unwrap(), "0 $Junk\n1 Work\n2 home\n");
    // Dovecot's turn.
    host.write("dovecot-keywords", "0 $Junk\n1 Work\n2 home\n3 far\n");
    host.rename("cur/1.a:2,Sbc", "cur/1.a:2,Sbd");
    store.sync().unwrap();
    assert_eq!(shown(&store), [(1, Flags::SEEN, vec!["Work", "far"])]);
    for n in 4..30 {
        mark(&mut store, 1, Marking::Add, Flags::default(), &[&format!("k{n}")]);
    }
    assert_eq!(host.names("cur")[0].len(), "1.a:2,Sb".len() + 23);
    store.sync().unwrap();
    let store = host.open();
    let keywords = &shown(&store)[0].2;
    assert_eq!((keywords.len(), keywords.last()), (28, Some(&"k29")));
}

#[test]
fn without_its_index_a_maildir_tells_the_same_under_other_uids() {
    let host = Host::new();
    let mut store = host.open();
    let bodies = ["1", "From x\r\r\n2\n\n", "3"];
    let arrivals = [
        arrival(bodies[0], Flags::SEEN, &["work", "$Forwarded"]),
        arrival(bodies[1], Flags::DRAFT, &[]),
        arrival(bodies[2], Flags::default(), &[]),
    ];
    assert_eq!(store.append(&arrivals).unwrap(), [1, 2, 3]);
    store.expunge(&one(3)).unwrap();
    host.deliver(bodies[1]);
    store.sync().unwrap();
    let before: Vec<_> = (store.messages().unwrap().iter())
        .map(|m| (m.marks.flags, m.size, m.header, m.digest))
        .collect();
    let status = store.status();
    let index = store.index.path();
    for damage in [None, Some(&b"nonsense"[..])] {
        match damage {
            None => fs::remove_file(&index).unwrap(),
            Some(bytes) => fs::write(&index, bytes).unwrap(),
        }
        let mut other = host.open();
        let after: Vec<_> = (other.messages().unwrap().iter())
            .map(|m| (m.marks.flags, m.size, m.header, m.digest))
            .collect();
        assert_eq!(after, before);
        assert_eq!(shown(&other)[0].2.len(), 2);
        for (n, message) in other.messages().unwrap().into_iter().enumerate() {
            let text = read(&mut other, message.uid, 0..u64::MAX);
            assert_eq!(text.len() as u64, message.size, "message {n}");
        }
        assert_ne!(other.status().uid_validity, status.uid_validity);
        assert!(other.status().highest_modseq > status.highest_modseq);
        assert_eq!(other.take_warnings().len(), usize::from(damage.is_some()));
        assert!(matches!(store.sync(), Err(Error::Refused { .. })));
        // Its UIDs are those of other messages.
        let taken = store.read(2, 0..u64::MAX, &mut |_| Ok(()));
        assert!(matches!(taken, Err(Error::Changed)), "{taken:?}");
        assert!(store.expunge(&one(2)).is_err());
        assert!(store.mark(&one(2), Marking::Add, Flags::SEEN, &[], None).is_err());
        assert!(store.append(&[arrival("x", Flags::SEEN, &[])]).is_err());
        assert_eq!(host.names("cur").len() + host.names("new").len(), 3);
    }
}

#[test]
fn a_message_is_read_under_whatever_name_and_one_that_is_gone_is_not() {
    let host = Host::new();
    host.write("cur/1.a:2,", "A: 1\n\nabc\n");
    host.write("cur/2.b:2,", TEXT);
    let mut store = host.open();
    host.rename("cur/1.a:2,", "cur/1.a:2,S");
    assert_eq!(read(&mut store, 1, 6..11), b"\r\nabc");
    fs::remove_file(host.path("cur/2.b:2,")).unwrap();
    assert!(matches!(store.read(2, 0..9, &mut |_| Ok(())), Err(Error::Changed)));
    assert_eq!(store.expunge(&UidSet::from(1..=2)).unwrap(), one(1));
    store.sync().unwrap();
    assert!(store.messages().unwrap().is_empty() && host.names("cur").is_empty());
}

#[test]
fn a_size_in_a_name_that_can_not_be_is_counted_and_a_wrong_one_ends_the_reading() {
    let host = Host::new();
    host.write("cur/1.a,W=9999:2,", TEXT);
    host.write("cur/2.b,W=11:2,", TEXT);
    host.write("cur/3.c,W=12:2,", TEXT);
    let mut store = host.open();
    let sizes: Vec<u64> = store.messages().unwrap().iter().map(|message| message.size).collect();
    assert_eq!(sizes, [11, 11, 12]);
    assert_eq!(read(&mut store, 2, 0..99), b"A: 1\r\n\r\nx\r\n");
    assert!(matches!(store.read(3, 0..99, &mut |_| Ok(())), Err(Error::Changed)));
}

#[test]
fn a_session_whose_maildir_has_another_name_does_nothing_to_the_one_that_has_its_name() {
    let host = Host::new();
    let mut before = host.open();
    before.append(&[arrival("a", Flags::default(), &[])]).unwrap();
    fs::rename(host.path(""), host.directory.path().join("other")).unwrap();
    let is_gone = |result: Result<(), Error>| matches!(result, Err(Error::Io { .. }));
    assert!(is_gone(before.sync()));
    let mut now = host.open();
    now.append(&[arrival("b", Flags::FLAGGED, &["new"])]).unwrap();
    let known = shown(&now).into_iter().map(|(uid, ..)| uid).collect::<Vec<_>>();
    assert!(is_gone(before.sync()));
    assert!(is_gone(before.append(&[arrival("c", Flags::default(), &[])]).map(drop)));
    assert!(is_gone(before.mark(&one(1), Marking::Add, Flags::SEEN, &[], None).map(drop)));
    assert!(is_gone(before.expunge(&one(1)).map(drop)));
    assert!(is_gone(before.claim_recent().map(drop)));
    now.sync().unwrap();
    assert_eq!(shown(&now), [(known[0], Flags::FLAGGED, vec!["new"])]);
    assert_eq!(host.names("cur").len() + host.names("new").len(), 1);
}

#[test]
fn what_is_no_message_is_left_alone() {
    let host = Host::new();
    let mut store = host.open();
    fs::create_dir(host.path("cur/sub")).unwrap();
    host.write("cur/.hidden", TEXT);
    std::os::unix::fs::symlink("/etc/passwd", host.path("new/link")).unwrap();
    nix::unistd::mkfifo(&host.path("cur/fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    host.write("new/1.a", "");
    store.sync().unwrap();
    assert_eq!(store.messages().unwrap().len(), 1);
    assert_eq!(store.messages().unwrap()[0].size, 0);
    assert!(read(&mut store, 1, 0..9).is_empty());
}

#[test]
fn an_append_that_has_no_room_leaves_nothing() {
    let host = Host::new();
    let mut place = place(host.directory.path(), "Maildir/");
    place.quota = 100;
    let mut store = MaildirStore::open(place).unwrap();
    let small = [arrival("1", Flags::SEEN, &["new"])];
    store.append(&small).unwrap();
    let names = host.names("cur");
    let both = [arrival("2", Flags::SEEN, &[]), arrival(&"x".repeat(99), Flags::SEEN, &[])];
    assert!(matches!(store.append(&both), Err(Error::OverQuota { .. })));
    assert_eq!((host.names("cur"), host.names("tmp").len()), (names.clone(), 0));
    let torn = Some((tempfile::tempfile().unwrap(), 9));
    let torn = crate::mailbox::Staged { spool: torn, ..Default::default() };
    let torn = NewMessage { text: Rc::new(torn), ..message("") };
    let torn = Arrival { message: torn, flags: Flags::SEEN, keywords: Vec::new() };
    let mut store = host.open();
    assert!(store.append(&[small[0].clone(), torn]).is_err());
    assert_eq!((host.names("cur"), host.names("tmp").len()), (names, 0));
    assert_eq!(store.status().uid_next, 2);
}

fn is_readable(store: &mut MaildirStore) -> bool {
    let fd = store.watch().unwrap().unwrap();
    let mut fds = [PollFd::new(fd.as_fd(), PollFlags::POLLIN)];
    poll(&mut fds, PollTimeout::ZERO).unwrap() == 1
}

#[test]
fn a_watch_tells_of_deliveries_of_neighbours_and_of_other_handles_and_becomes_quiet() {
    let host = Host::new();
    let (mut store, mut other) = (host.open(), host.open());
    host.write("cur/1.a:2,", TEXT);
    let quiet = |store: &mut MaildirStore| {
        for _ in 0..20 {
            sleep(Duration::from_millis(11));
            store.sync().unwrap();
            if !is_readable(store) {
                return true;
            }
        }
        false
    };
    assert!(quiet(&mut store));
    // What is settled need not be listed again.
    assert_eq!(store.folder.look().unwrap().0, store.index.state().base);
    let actions: [&mut dyn FnMut(); 4] = [
        &mut || host.deliver("x"),
        &mut || host.rename("cur/1.a:2,", "cur/1.a:2,S"),
        &mut || mark(&mut other, 1, Marking::Add, Flags::FLAGGED, &[]),
        &mut || drop(fs::remove_file(host.path("cur/1.a:2,FS"))),
    ];
    for action in actions {
        assert!(!is_readable(&mut store));
        action();
        assert!(is_readable(&mut store));
        assert!(quiet(&mut store));
    }
    assert_eq!(store.messages().unwrap().len(), 1);
}

#[test]
fn where_there_can_be_no_index_a_session_does_without() {
    let host = Host::new();
    fs::write(host.directory.path().join("index"), "no directory").unwrap();
    let mut store = host.open();
    assert_eq!(store.append(&[arrival("1", Flags::SEEN, &["work"])]).unwrap(), [1]);
    store.sync().unwrap();
    mark(&mut store, 1, Marking::Remove, Flags::SEEN, &[]);
    assert_eq!(shown(&store), [(1, Flags::default(), vec!["work"])]);
    assert!(Path::new(&host.path("cur")).join(&host.names("cur")[0]).exists());
    assert_eq!(shown(&host.open()), [(1, Flags::default(), vec!["work"])]);
}

fn new(body: &str) -> Arrival {
    arrival(body, Flags::SEEN, &["far"])
}

/// What is done while it may be killed.
type Action = fn(&mut MaildirStore);

#[test]
fn an_operation_that_is_killed_anywhere_has_done_each_message_or_not() {
    let actions: [(Action, u32); 5] = [
        (|store| drop(store.append(&["n", "n"].map(new)).unwrap()), 8),
        (|store| mark(store, 1, Marking::Replace, Flags::DRAFT, &["far"]), 5),
        (|store| drop(store.expunge(&UidSet::from(1..=2)).unwrap()), 4),
        (|store| assert_eq!(store.claim_recent().unwrap(), 0), 2),
        (|store| store.sync().unwrap(), 1),
    ];
    for (at, (action, least)) in actions.into_iter().enumerate() {
        let is_expunge = at == 2;
        for n in 0.. {
            let host = Host::new();
            let mut store = host.open();
            let arrivals = ["a", "b"].map(|body| arrival(body, Flags::SEEN, &["near"]));
            store.append(&arrivals).unwrap();
            host.deliver("c");
            let was_killed = killed_at(n, || action(&mut store));
            let before = store.index.state().uid_next;
            drop(store);
            let mut store = host.open();
            let mut texts = Vec::new();
            for (uid, flags, keywords) in shown(&store) {
                let text = String::from_utf8(read_again(&host, uid)).unwrap();
                let body = text.rsplit("\r\n").nth(1).unwrap().to_owned();
                let may_be = match body.as_str() {
                    "a" => {
                        (1, &["near"][..]) == (flags.bits(), &keywords) || {
                            (16, &["far"][..]) == (flags.bits(), &keywords)
                        }
                    }
                    "b" => (1, &["near"][..]) == (flags.bits(), &keywords),
                    "c" => (0, &[][..]) == (flags.bits(), &keywords),
                    _ => (1, &["far"][..]) == (flags.bits(), &keywords),
                };
                assert!(may_be, "killed at {n}: {body} {flags:?} {keywords:?}");
                texts.push(body);
            }
            let kept: &[&str] = if is_expunge { &["c"] } else { &["a", "b", "c"] };
            for body in kept {
                assert!(texts.iter().any(|text| text == body), "killed at {n}: {body} is lost");
            }
            // Whatever was left, the mailbox goes on.
            let next = store.append(&[arrival("z", Flags::SEEN, &["farther"])]).unwrap()[0];
            assert!(next >= before);
            mark(&mut store, next, Marking::Add, Flags::DRAFT, &["far"]);
            store.sync().unwrap();
            assert_eq!(store.messages().unwrap().len(), texts.len() + 1);
            if !was_killed {
                assert!(n >= least, "only {n} moments");
                break;
            }
        }
    }
}

fn read_again(host: &Host, uid: u32) -> Vec<u8> {
    read(&mut host.open(), uid, 0..u64::MAX)
}

#[test]
fn many_at_once_lose_nothing() {
    let host = Host::new();
    host.open();
    let working = AtomicU32::new(3);
    std::thread::scope(|scope| {
        let working = &working;
        for worker in 0..3_u32 {
            let host = &host;
            scope.spawn(move || {
                let mut store = host.open();
                for n in 0..25 {
                    let body = format!("{worker} {n}");
                    let both =
                        [arrival(&body, Flags::default(), &["k"]), arrival("x", Flags::SEEN, &[])];
                    let uids = store.append(&both).unwrap();
                    mark(&mut store, uids[0], Marking::Add, Flags::FLAGGED, &[]);
                    assert_eq!(store.expunge(&one(uids[1])).unwrap(), one(uids[1]));
                    store.sync().unwrap();
                }
                working.fetch_sub(1, Ordering::Relaxed);
            });
        }
        // One who answers messages by renaming them.
        scope.spawn(|| {
            while working.load(Ordering::Relaxed) > 0 {
                sleep(Duration::from_millis(5));
                for name in host.names("cur") {
                    let (base, letters) = name.split_once(":2,").unwrap();
                    if letters.contains('R') {
                        continue;
                    }
                    let mut letters: Vec<char> = letters.chars().chain(['R']).collect();
                    letters.sort_unstable();
                    let to = format!("{base}:2,{}", letters.into_iter().collect::<String>());
                    let _ = fs::rename(host.path("cur").join(&name), host.path("cur").join(to));
                }
            }
        });
    });
    let mut store = host.open();
    let mut bodies = Vec::new();
    for (uid, flags, keywords) in shown(&host.open()) {
        assert!(flags.has(Flags::FLAGGED) && keywords == ["k"], "{uid}: {flags:?} {keywords:?}");
        bodies.push(read(&mut store, uid, 14..u64::MAX));
    }
    bodies.sort();
    bodies.dedup();
    assert_eq!((bodies.len(), store.status().messages, store.status().uid_next), (75, 75, 151));
    let names = host.names("cur");
    let mut answered = 0;
    for message in store.messages().unwrap() {
        let name = names.iter().find(|name| super::name::digest(name.as_bytes()) == message.digest);
        let is_answered = name.unwrap().rsplit_once(":2,").unwrap().1.contains('R');
        answered += u32::from(is_answered);
        assert_eq!(message.marks.flags.has(Flags::ANSWERED), is_answered);
    }
    assert!(answered > 0);
}

#[test]
fn where_nothing_has_changed_the_files_are_not_listed() {
    let host = Host::new();
    host.deliver("one");
    host.open().claim_recent().unwrap();
    sleep(Duration::from_millis(30));
    // That is seen once the directories have been at rest for a while.
    host.open();
    let mut store = host.open();
    assert_eq!(store.claim_recent().unwrap(), 1);
    assert!(!store.folder.is_listed());
    assert_eq!(store.messages().unwrap().len(), 1);
    host.deliver("two");
    assert_eq!(store.claim_recent().unwrap(), 1);
    assert!(host.names("new").is_empty() && host.names("cur").len() == 2);
}
