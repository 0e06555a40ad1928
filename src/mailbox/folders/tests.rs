//! Folders on a real file system, in hostile ones, and with every change killed at every step.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{Entry, Error, Folders, Name, SpecialUse, Wanted};
use crate::config::LockKind;
use crate::mailbox::Place;
use crate::mailbox::index::stem;
use crate::mailbox::moment::killed_at;

/// A user's mail in a directory of its own.
struct Home {
    _dir: tempfile::TempDir,
    path: PathBuf,
    root: PathBuf,
    inbox: PathBuf,
}

const MAIL: &str = "From a@b.org Mon Nov 23 12:42:04 2026\nSubject: x\n\nb\n\n";

impl Home {
    fn of(root: &str, inbox: &str) -> Self {
        let dir = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
        let path = dir.path().to_owned();
        Self { root: path.join(root), inbox: path.join(inbox), path, _dir: dir }
    }

    /// mbox files.
    fn files() -> Self {
        Self::of("mail", "inbox")
    }

    /// Maildir++.
    fn maildirs() -> Self {
        let home = Self::of("Maildir/", "Maildir/");
        home.maildir("Maildir");
        home
    }

    /// The files there, with the message that each holds.
    fn with(files: &[&str]) -> Self {
        let home = Self::files();
        for name in files {
            home.write(&format!("mail/{name}"), &message(name));
        }
        home
    }

    fn open(&self) -> Folders {
        let inbox = Place {
            path: self.inbox.clone(),
            index: self.path.join("mail/.index"),
            owner: nix::unistd::geteuid(),
            locks: vec![LockKind::Fcntl, LockKind::Flock, LockKind::Dotlock],
            libexec: "/nonexistent".into(),
            lock_timeout: Duration::from_millis(200),
            quota: 0,
        };
        Folders::open(&self.root, inbox)
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path.join(name)).unwrap()
    }

    fn has(&self, name: &str) -> bool {
        fs::symlink_metadata(self.path.join(name)).is_ok()
    }

    fn maildir(&self, name: &str) {
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(self.path.join(name).join(part)).unwrap();
        }
    }

    /// Gives a mailbox an index that says where it was made.
    fn index(&self, folder: &str) {
        let place = self.open().place(&name(folder)).unwrap();
        let stem = stem(&place.path).into_string().unwrap();
        self.write(&format!("mail/.index/{stem}.index"), folder);
    }

    /// What a folder's index says.
    fn index_of(&self, folder: &str) -> Option<String> {
        let place = self.open().place(&name(folder)).unwrap();
        let stem = stem(&place.path).into_string().unwrap();
        fs::read_to_string(self.path.join(format!("mail/.index/{stem}.index"))).ok()
    }

    fn indexes(&self) -> usize {
        let entries = fs::read_dir(self.path.join("mail/.index")).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(crate::mailbox::index::ENDING)).count()
    }

    fn small_path(&self, ending: &str) -> String {
        format!("mail/.index/{}{ending}", stem(&self.root).into_string().unwrap())
    }

    fn small(&self, ending: &str) -> String {
        self.read(&self.small_path(ending))
    }

    fn write_small(&self, ending: &str, content: &str) {
        self.write(&self.small_path(ending), content);
    }

    /// Names, with `-` behind those without messages.
    fn names(&self) -> Vec<String> {
        let listing = self.open().list("", "*").unwrap();
        assert!(!listing.more);
        let shown =
            |entry: Entry| format!("{}{}", entry.name, if entry.no_select { "-" } else { "" });
        listing.entries.into_iter().map(shown).collect()
    }

    /// Subjects of all messages in all folders, which tells where each was written.
    fn mail(&self) -> Vec<(String, String)> {
        let folders = self.open();
        let mut all = Vec::new();
        for entry in folders.list("", "*").unwrap().entries {
            if entry.no_select {
                continue;
            }
            let place = folders.place(&entry.name).unwrap();
            let content = fs::read_to_string(&place.path).unwrap_or_default();
            let subjects = content.lines().filter_map(|line| line.strip_prefix("Subject: "));
            all.extend(subjects.map(|subject| (entry.name.to_string(), subject.to_owned())));
        }
        all
    }

    /// What is left behind under names that nobody sees.
    fn leftovers(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.root).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with("..")).collect()
    }
}

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn message(subject: &str) -> String {
    MAIL.replace(": x", &format!(": {subject}"))
}

#[test]
fn files_are_folders_and_so_are_the_directories_of_three_programs() {
    let home = Home::with(&[
        "a",
        "a.sbd/b",
        "a.sbd/b.sbd/c",
        "lists/rust",
        "x.sbd/y",
        "Entw&APw-rfe/Gr\u{fc}n",
    ]);
    home.maildir("mail/dir");
    home.write("mail/dir.sbd/below", MAIL);
    home.write("mail/INBOX/x", MAIL);
    assert_eq!(
        home.names(),
        [
            "INBOX",
            "Entw\u{fc}rfe-",
            "Entw\u{fc}rfe/Gr\u{fc}n",
            "INBOX/x",
            "a",
            "a/b",
            "a/b/c",
            "dir",
            "dir/below",
            "lists-",
            "lists/rust",
            "x-",
            "x/y"
        ]
    );
    let folders = home.open();
    let path = |text: &str| {
        let path = folders.place(&name(text)).unwrap().path;
        path.to_str().unwrap().split_once("/mail/").unwrap().1.to_owned()
    };
    assert_eq!(path("a/b/c"), "a.sbd/b.sbd/c");
    assert_eq!(path("lists/rust"), "lists/rust");
    assert_eq!(path("dir"), "dir/");
    assert_eq!(path("inbox/x"), "INBOX/x");
    assert_eq!(path("Entw\u{fc}rfe/Gr\u{fc}n"), "Entw&APw-rfe/Gr\u{fc}n");
    assert_eq!(folders.place(&name("inbox")).unwrap().path, home.inbox);
    assert!(matches!(folders.place(&name("lists")), Err(Error::Cannot(_))));
    assert!(matches!(folders.place(&name("a/x")), Err(Error::NonExistent(_))));
    let entries = folders.list("a/", "%").unwrap().entries;
    assert!(matches!(&*entries, [b] if b.name.as_str() == "a/b" && b.has_children && !b.no_select));
    let children: Vec<bool> =
        folders.list("", "%").unwrap().entries.iter().map(|entry| entry.has_children).collect();
    assert_eq!(children, [true, true, true, true, true, true]);
}

#[test]
fn a_missing_directory_has_only_the_inbox_and_is_made_when_it_is_needed() {
    let home = Home::files();
    assert_eq!(home.names(), ["INBOX"]);
    assert!(!home.root.exists());
    home.open().create(&name("a/b"), &[]).unwrap();
    assert_eq!(home.names(), ["INBOX", "a-", "a/b"]);
    assert_eq!(fs::metadata(&home.root).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(
        fs::metadata(home.root.join("a.sbd/b")).unwrap().permissions().mode() & 0o777,
        0o600
    );
}

#[test]
fn what_is_not_the_users_plain_file_or_directory_is_no_folder() {
    let home = Home::with(&[
        "a",
        "a.lock",
        "Inbox",
        "a.msf",
        ".hidden",
        ".dir/x",
        "..x",
        "a.index",
        "bad\u{1}",
        "bad\nname",
        ".folders",
    ]);
    let root = &home.root;
    symlink("/etc", root.join("etc")).unwrap();
    symlink("/etc", root.join("etc.sbd")).unwrap();
    symlink("/etc/passwd", root.join("passwd")).unwrap();
    symlink("a", root.join("alias")).unwrap();
    symlink(".", root.join("loop")).unwrap();
    nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    fs::write(root.join("one"), MAIL).unwrap();
    fs::hard_link(root.join("one"), root.join("two")).unwrap();
    fs::create_dir(root.join("open")).unwrap();
    fs::set_permissions(root.join("open"), fs::Permissions::from_mode(0o777)).unwrap();
    fs::write(root.join("open/x"), MAIL).unwrap();
    let not_utf8 = std::os::unix::ffi::OsStrExt::from_bytes(b"caf\xe9");
    fs::write(root.join::<&std::ffi::OsStr>(not_utf8), MAIL).unwrap();
    let socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
    // In the directory of folders because the configuration says so.
    home.write("mail/.index/a-0123456789abcdef.index", "");
    assert_eq!(home.names(), ["INBOX", "a"]);
    let folders = home.open();
    for text in ["etc/passwd", "loop/a", "loop/loop/a", "open/x", "fifo/x"] {
        assert!(matches!(folders.place(&name(text)), Err(Error::NonExistent(_))), "{text}");
        assert!(folders.delete(&name(text)).is_err(), "{text}");
    }
    for text in ["etc", "passwd", "alias", "fifo", "one", "two", "open", "socket"] {
        let name = name(text);
        assert!(matches!(folders.place(&name), Err(Error::NoPermission(_))), "{text}");
        assert!(matches!(folders.create(&name, &[]), Err(Error::NoPermission(_))), "{text}");
        assert!(matches!(folders.delete(&name), Err(Error::NoPermission(_))), "{text}");
        assert!(
            matches!(folders.rename(&name, &self::name("new")), Err(Error::NoPermission(_))),
            "{text}"
        );
        assert!(
            matches!(folders.rename(&self::name("a"), &name), Err(Error::NoPermission(_))),
            "{text}"
        );
        assert!(folders.place_of_delivery(&Wanted { name, slash: false }).is_err(), "{text}");
    }
    for text in ["open/new", "etc/new", "fifo/new", "loop/new"] {
        assert!(
            folders.rename(&name("a"), &name(text)).is_err() || !home.has(&format!("mail/{text}")),
            "{text}"
        );
    }
    assert!(!Path::new("/etc/new").exists());
    drop(socket);
    assert!(Path::new("/etc/passwd").exists());
}

#[test]
fn a_directory_of_somebody_else_is_not_used() {
    let home = Home::with(&["a"]);
    fs::set_permissions(&home.root, fs::Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(home.open().list("", "*"), Err(Error::NoPermission(_))));
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped in part: only root gives files away");
        return;
    }
    fs::set_permissions(&home.root, fs::Permissions::from_mode(0o700)).unwrap();
    home.write("mail/theirs", MAIL);
    home.write("mail/theirs.sbd/x", MAIL);
    for path in ["theirs", "theirs.sbd"] {
        std::os::unix::fs::chown(home.root.join(path), Some(12345), None).unwrap();
    }
    assert_eq!(home.names(), ["INBOX", "a"]);
    assert!(matches!(home.open().place(&name("theirs/x")), Err(Error::NonExistent(_))));
    std::os::unix::fs::chown(&home.root, Some(12345), None).unwrap();
    assert!(matches!(home.open().list("", "*"), Err(Error::NoPermission(_))));
}

#[test]
fn the_inbox_and_the_indexes_are_no_folders_where_they_stand_among_them() {
    let home = Home::of("mail", "mail/hunt");
    home.write("mail/hunt", MAIL);
    home.write("mail/other", MAIL);
    home.write("mail/index/x", "");
    let place = home.open().place(&Name::inbox()).unwrap();
    let folders = Folders::open(&home.root, Place { index: home.root.join("index"), ..place });
    let names: Vec<Name> =
        folders.list("", "*").unwrap().entries.into_iter().map(|e| e.name).collect();
    assert_eq!(names, [Name::inbox(), name("other")]);
    assert!(matches!(folders.place(&name("hunt")), Err(Error::NoPermission(_))));
    assert!(folders.place(&name("index/x")).is_err());
    assert!(folders.create(&name("index"), &[]).is_err());
}

#[test]
fn folders_are_made_once_with_what_is_above_them() {
    let home = Home::with(&["file", "lists/rust"]);
    let folders = home.open();
    folders.create(&name("a/b/c"), &[]).unwrap();
    folders.create(&name("a"), &[]).unwrap();
    folders.create(&name("file/below"), &[]).unwrap();
    folders.create(&name("lists/c"), &[]).unwrap();
    folders.create(&name("R&-D/Gr\u{fc}n"), &[]).unwrap();
    folders.create_place(&name("place")).unwrap();
    assert!(
        home.has("mail/file.sbd/below")
            && home.has("mail/lists/c")
            && home.has("mail/a.sbd/b.sbd/c")
    );
    assert!(home.has("mail/R&--D.sbd/Gr\u{fc}n"));
    for text in ["INBOX", "a", "a/b/c", "lists", "file"] {
        assert!(matches!(folders.create(&name(text), &[]), Err(Error::AlreadyExists(_))), "{text}");
    }
    for text in ["INBOX", "a", "a/b", "place"] {
        assert!(
            matches!(folders.create_place(&name(text)), Err(Error::AlreadyExists(_))),
            "{text}"
        );
    }
    // A place becomes a folder with messages.
    folders.create(&name("place"), &[]).unwrap();
    folders.create(&name("place/x"), &[]).unwrap();
    folders.create(&name("inbox/x"), &[]).unwrap();
    assert_eq!(
        home.names(),
        [
            "INBOX",
            "INBOX/x",
            "R&-D-",
            "R&-D/Gr\u{fc}n",
            "a",
            "a/b-",
            "a/b/c",
            "file",
            "file/below",
            "lists-",
            "lists/c",
            "lists/rust",
            "place",
            "place/x"
        ]
    );
    assert_eq!(home.read("mail/file"), message("file"));
}

#[test]
fn what_is_removed_takes_its_index_along_and_leaves_what_is_below() {
    let home = Home::with(&["a", "a.sbd/b", "c"]);
    for folder in ["a", "a/b", "c"] {
        home.index(folder);
    }
    let folders = home.open();
    assert!(matches!(folders.delete(&name("inbox")), Err(Error::Cannot(_))));
    assert!(matches!(folders.delete(&name("none")), Err(Error::NonExistent(_))));
    folders.delete(&name("a")).unwrap();
    assert_eq!(
        (home.names(), home.indexes()),
        (vec!["INBOX".into(), "a-".into(), "a/b".into(), "c".into()], 2)
    );
    assert!(matches!(folders.delete(&name("a")), Err(Error::HasChildren(_))));
    folders.delete(&name("a/b")).unwrap();
    folders.delete(&name("a")).unwrap();
    folders.delete(&name("c")).unwrap();
    assert_eq!((home.names(), home.indexes()), (vec!["INBOX".to_owned()], 0));
    // One with nothing but another program's files is not cleared away.
    home.write("mail/d/.imap/x", "");
    assert!(matches!(folders.delete(&name("d")), Err(Error::Cannot(_))));
    assert!(home.has("mail/d/.imap/x"));
    home.maildir("mail/dir");
    home.write("mail/dir/cur/1", "");
    home.index("dir");
    folders.delete(&name("dir")).unwrap();
    assert!(!home.has("mail/dir") && home.indexes() == 0 && home.leftovers().is_empty());
}

#[test]
fn a_folder_moves_with_all_below_it_and_keeps_its_indexes() {
    let home = Home::with(&["a", "a.sbd/b", "a.sbd/b.sbd/c", "ab", "plain/x"]);
    home.maildir("mail/a.sbd/dir");
    for folder in ["a", "a/b", "a/b/c", "a/dir", "ab", "plain/x"] {
        home.index(folder);
    }
    let folders = home.open();
    let fails = |from: &str, to: &str| folders.rename(&name(from), &name(to)).unwrap_err();
    assert!(matches!(fails("none", "x"), Error::NonExistent(_)));
    assert!(matches!(fails("a", "ab"), Error::AlreadyExists(_)));
    assert!(matches!(fails("a", "a"), Error::AlreadyExists(_)));
    assert!(matches!(fails("a", "plain"), Error::AlreadyExists(_)));
    assert!(matches!(fails("a", "inbox"), Error::AlreadyExists(_)));
    assert!(matches!(fails("a", "a/b/x"), Error::Cannot(_)));
    let deep = ["w"; 49].join("/");
    assert!(matches!(fails("a", &deep), Error::Limit(_)));
    folders.rename(&name("a"), &name("x/y")).unwrap();
    folders.rename(&name("plain"), &name("lists")).unwrap();
    assert_eq!(
        home.names(),
        ["INBOX", "ab", "lists-", "lists/x", "x-", "x/y", "x/y/b", "x/y/b/c", "x/y/dir"]
    );
    assert!(home.has("mail/lists/x"));
    for (folder, was) in [
        ("x/y", "a"),
        ("x/y/b", "a/b"),
        ("x/y/b/c", "a/b/c"),
        ("x/y/dir", "a/dir"),
        ("ab", "ab"),
        ("lists/x", "plain/x"),
    ] {
        assert_eq!(home.index_of(folder).as_deref(), Some(was));
    }
    assert_eq!(home.indexes(), 6);
    assert_eq!(home.read("mail/x.sbd/y"), message("a"));
    assert_eq!(home.small(".folders"), "");
}

#[test]
fn the_inbox_stays_and_its_messages_move() {
    let home = Home::files();
    home.write("inbox", &(message("1") + &message("2")));
    home.write("mail/x", MAIL);
    let inbox = stem(&home.inbox).into_string().unwrap();
    home.write(&format!("mail/.index/{inbox}.index"), "uids");
    let folders = home.open();
    assert!(matches!(folders.rename(&Name::inbox(), &name("x")), Err(Error::AlreadyExists(_))));
    folders.rename(&Name::inbox(), &name("old/mail")).unwrap();
    assert_eq!(home.read("inbox"), "");
    assert_eq!(home.read("mail/old.sbd/mail"), message("1") + &message("2"));
    assert_eq!(home.index_of("old/mail").as_deref(), Some("uids"));
    assert_eq!(home.index_of("INBOX").as_deref(), Some("uids"));
    // One that is missing is empty.
    fs::remove_file(&home.inbox).unwrap();
    folders.rename(&Name::inbox(), &name("none")).unwrap();
    assert_eq!(home.read("mail/none"), "");
    assert!(home.leftovers().is_empty());
}

#[test]
fn a_locked_mailbox_is_in_use() {
    let home = Home::with(&["a", "a.sbd/b"]);
    home.write("inbox", MAIL);
    let folders = home.open();
    for (folder, locked) in [("a", "mail/a"), ("a", "mail/a.sbd/b"), ("INBOX", "inbox")] {
        let dotlock = format!("{locked}.lock");
        home.write(&dotlock, "1\n");
        let renamed = folders.rename(&name(folder), &name("new"));
        assert!(matches!(renamed, Err(Error::InUse(_))), "{renamed:?}");
        fs::remove_file(home.path.join(dotlock)).unwrap();
    }
    home.write("mail/a.lock", "1\n");
    assert!(matches!(folders.delete(&name("a")), Err(Error::InUse(_))));
    assert_eq!(home.names(), ["INBOX", "a", "a/b"]);
    assert_eq!(home.mail().len(), 3);
    // And so are the folders as a whole.
    let lock = folders.lock().unwrap();
    assert!(matches!(folders.create(&name("b"), &[]), Err(Error::InUse(_))));
    drop(lock);
    folders.create(&name("b"), &[]).unwrap();
}

/// Runs an action on folders made anew each time, killed at each of its steps, and looks at what is
/// left then.
fn killed(make: impl Fn() -> Home, action: impl Fn(&Folders), look: impl Fn(&Home, bool)) {
    for n in 0.. {
        let home = make();
        let folders = home.open();
        let killed = killed_at(n, || action(&folders));
        drop(folders);
        look(&home, killed);
        if !killed {
            assert!(n > 3, "{n} steps");
            return;
        }
    }
}

#[test]
fn a_rename_killed_at_any_step_is_finished_or_was_never_begun() {
    let make = || {
        let home = Home::with(&["a", "a.sbd/b", "a.sbd/b.sbd/c", "other"]);
        for folder in ["a", "a/b", "a/b/c", "other"] {
            home.index(folder);
        }
        home.write_small(".special-use", "\\Archive\ta/b\n");
        home
    };
    let rename = |folders: &Folders| folders.rename(&name("a"), &name("x/y")).unwrap();
    let before = ["a", "a/b", "a/b/c", "other"].map(String::from);
    let after = ["x/y", "x/y/b", "x/y/b/c", "other"].map(String::from);
    let outcomes = std::cell::RefCell::new(BTreeSet::new());
    killed(make, rename, |home, killed| {
        // To begin with, before anybody mends: no message is missing or double.
        let raw = ["a", "x.sbd/y"].iter().filter(|path| home.root.join(path).exists()).count();
        assert_eq!(raw, 1);
        let mail: BTreeSet<_> = home.mail().into_iter().map(|(folder, _)| folder).collect();
        let renamed = mail == BTreeSet::from(after.clone());
        assert!(renamed || mail == BTreeSet::from(before.clone()), "{mail:?}");
        assert!(renamed || killed);
        outcomes.borrow_mut().insert(renamed);
        let names = if renamed { &after } else { &before };
        for (folder, was) in names.iter().zip(&before) {
            assert_eq!(home.index_of(folder).as_deref(), Some(was.as_str()), "{folder}");
        }
        let folders = home.open();
        let uses = folders.list("", "*").unwrap().entries;
        let archive = uses.iter().find(|entry| entry.uses == [SpecialUse::Archive]).unwrap();
        assert_eq!(archive.name, name(if renamed { "x/y/b" } else { "a/b" }));
        // And another change finds nothing left.
        folders.create(&name("new"), &[]).unwrap();
        assert!(home.leftovers().is_empty());
        assert_eq!(home.small(".folders"), "");
    });
    assert_eq!(outcomes.take(), BTreeSet::from([false, true]));
}

#[test]
fn a_delivery_into_the_old_name_of_a_killed_rename_is_kept() {
    for n in 0.. {
        let home = Home::with(&["a", "a.sbd/b"]);
        home.index("a");
        let folders = home.open();
        let killed = killed_at(n, || folders.rename(&name("a"), &name("x")).unwrap());
        let delivered = !home.has("mail/a");
        if delivered {
            home.write("mail/a", &message("new"));
        }
        let mut subjects: Vec<String> =
            home.mail().into_iter().map(|(_, subject)| subject).collect();
        subjects.sort();
        assert_eq!(
            subjects,
            if delivered { &["a", "a.sbd/b", "new"][..] } else { &["a", "a.sbd/b"] }
        );
        assert_eq!(home.small(".folders"), "");
        if !killed {
            break;
        }
    }
}

#[test]
fn a_move_of_the_inbox_killed_at_any_step_loses_no_message() {
    let make = || {
        let home = Home::files();
        home.write("inbox", &(message("1") + &message("2")));
        home
    };
    let rename = |folders: &Folders| folders.rename(&Name::inbox(), &name("old")).unwrap();
    killed(make, rename, |home, killed| {
        let all = message("1") + &message("2");
        let places =
            [home.read("inbox"), fs::read_to_string(home.root.join("old")).unwrap_or_default()];
        assert!(places.iter().all(|content| content.is_empty() || *content == all), "{places:?}");
        assert!(places.contains(&all));
        assert!(killed || places[0].is_empty());
        let folders = home.open();
        folders.create(&name("new"), &[]).unwrap();
        assert!(home.leftovers().is_empty());
    });
}

#[test]
fn other_changes_killed_at_any_step_are_done_or_not() {
    let make = || {
        let home = Home::with(&["a", "a.sbd/b"]);
        home.maildir("mail/dir");
        home.write("mail/dir/cur/1", MAIL);
        for folder in ["a", "dir"] {
            home.index(folder);
        }
        home.write("mail/.subscriptions", "a\n");
        home
    };
    let change = |folders: &Folders| {
        folders.delete(&name("a")).unwrap();
        folders.delete(&name("dir")).unwrap();
        folders.create(&name("x/y"), &[SpecialUse::Sent]).unwrap();
        folders.subscribe(&name("x/y")).unwrap();
        folders.unsubscribe(&name("a")).unwrap();
    };
    killed(make, change, |home, _| {
        let folders = home.open();
        let subscriptions = folders.subscriptions().unwrap();
        let possible = [vec![name("a")], vec![name("a"), name("x/y")], vec![name("x/y")]];
        assert!(possible.contains(&subscriptions), "{subscriptions:?}");
        for entry in folders.list("", "*").unwrap().entries {
            assert_eq!(!entry.uses.is_empty(), entry.name == name("x/y"));
        }
        // It is done again by whoever asked, and ends like one that was not killed.
        for folder in ["a", "dir"] {
            if folders.place(&name(folder)).is_ok() {
                folders.delete(&name(folder)).unwrap();
            }
        }
        if folders.place(&name("x/y")).is_err() {
            folders.create(&name("x/y"), &[SpecialUse::Sent]).unwrap();
        }
        folders.subscribe(&name("last")).unwrap();
        assert_eq!(home.names(), ["INBOX", "a-", "a/b", "x-", "x/y"]);
        assert!(home.leftovers().is_empty());
    });
}

#[test]
fn a_journal_that_is_torn_was_never_begun() {
    let home = Home::with(&["a"]);
    home.index("a");
    let whole = "hikyaku-folders 1\nname a\tx\npart a\tx\nmailbox a\tx\nend\n";
    for length in 1..whole.len() {
        home.write_small(".folders", &whole[..length]);
        assert_eq!(home.names(), ["INBOX", "a"]);
        assert_eq!(home.small(".folders"), "");
    }
    // Paths that lead outside do nothing.
    symlink("..", home.root.join("link")).unwrap();
    for path in ["../inbox", "link/inbox", "/etc/passwd", "a/../../inbox", "."] {
        home.write("inbox", MAIL);
        home.write_small(
            ".folders",
            &format!("hikyaku-folders 1\nname a\tx\npart {path}\tx\nend\n"),
        );
        home.open();
        assert!(home.has("inbox") && !home.has("mail/x"), "{path}");
    }
    home.write_small(".folders", whole);
    assert_eq!(home.names(), ["INBOX", "x"]);
    assert_eq!(home.index_of("x").as_deref(), Some("a"));
}

#[test]
fn who_asks_for_a_folder_amid_its_rename_finds_its_index() {
    let home = Home::with(&["a"]);
    home.index("a");
    let folders = home.open();
    let journal = "hikyaku-folders 1\nname a\tb\npart a\tb\nmailbox a\tb\nend\n";
    home.write_small(".folders", journal);
    fs::rename(home.root.join("a"), home.root.join("b")).unwrap();
    let place = folders.place(&name("b")).unwrap();
    let stem = stem(&place.path).into_string().unwrap();
    assert_eq!(home.read(&format!("mail/.index/{stem}.index")), "a");
    assert!(matches!(folders.place(&name("a")), Err(Error::NonExistent(_))));
}

#[test]
fn a_rename_that_could_be_done_in_part_only_is_not_begun() {
    let home = Home::with(&["a", "a.sbd/b"]);
    home.index("a");
    // Something that is no folder has the name that the second part would get.
    home.write("mail/x.sbd", "");
    let renamed = home.open().rename(&name("a"), &name("x"));
    assert!(renamed.is_err(), "{renamed:?}");
    assert_eq!(home.names(), ["INBOX", "a", "a/b"]);
    assert_eq!(home.small(".folders"), "");
    assert_eq!(home.index_of("a").as_deref(), Some("a"));
    assert!(home.has("mail/a.sbd/b") && !home.has("mail/x"));
}

#[test]
fn maildir_subfolders_are_folders_in_the_same_way() {
    let home = Home::maildirs();
    let folders = home.open();
    assert_eq!(home.names(), ["INBOX"]);
    folders.create(&name("a/b/c"), &[]).unwrap();
    folders.create(&name("a"), &[]).unwrap();
    folders.create_place(&name("place")).unwrap();
    folders.create(&name("inbox/x"), &[]).unwrap();
    assert!(home.has("Maildir/.a.b.c/maildirfolder") && home.has("Maildir/.a/cur"));
    home.maildir("Maildir/.Entw&APw-rfe");
    home.maildir("Maildir/..x");
    home.maildir("Maildir/.a..b");
    fs::create_dir(home.root.join(".empty")).unwrap();
    symlink(home.root.join(".a"), home.root.join(".link")).unwrap();
    let all = ["INBOX", "Entw\u{fc}rfe", "INBOX/x", "a", "a/b-", "a/b/c", "place"];
    assert_eq!(home.names(), all);
    for text in ["a.b", "a/b.c"] {
        assert!(matches!(folders.create(&name(text), &[]), Err(Error::Cannot(_))));
        assert!(matches!(folders.place(&name(text)), Err(Error::NonExistent(_))));
    }
    for text in ["a", "a/b/c", "inbox"] {
        assert!(matches!(folders.create(&name(text), &[]), Err(Error::AlreadyExists(_))), "{text}");
    }
    home.index("a/b/c");
    home.write("Maildir/.a.b.c/cur/1", MAIL);
    folders.rename(&name("a/b"), &name("x")).unwrap();
    assert_eq!(home.read("Maildir/.x.c/cur/1"), MAIL);
    assert_eq!(home.index_of("x/c").as_deref(), Some("a/b/c"));
    assert!(matches!(folders.delete(&name("x")), Err(Error::HasChildren(_))));
    folders.delete(&name("x/c")).unwrap();
    folders.delete(&name("place")).unwrap();
    assert_eq!(home.names(), ["INBOX", "Entw\u{fc}rfe", "INBOX/x", "a"]);
    assert_eq!((home.indexes(), home.leftovers()), (0, vec!["..x".to_owned()]));
    // The messages of the inbox move one by one.
    home.write("Maildir/cur/2:2,S", MAIL);
    home.write("Maildir/new/3", MAIL);
    folders.rename(&Name::inbox(), &name("old")).unwrap();
    assert!(home.has("Maildir/.old/cur/2:2,S") && home.has("Maildir/.old/new/3"));
    assert!(home.has("Maildir/cur") && !home.has("Maildir/cur/2:2,S"));
    folders.subscribe(&name("a/b")).unwrap();
    assert_eq!(home.read("Maildir/subscriptions"), "a.b\n");
}

#[test]
fn subscriptions_are_kept_as_dovecot_reads_and_writes_them() {
    let home = Home::files();
    let folders = home.open();
    assert!(folders.subscriptions().unwrap().is_empty());
    for text in ["a/b", "inbox", "Gr\u{fc}n", "a/b", "R&-D"] {
        folders.subscribe(&name(text)).unwrap();
    }
    assert_eq!(home.read("mail/.subscriptions"), "a/b\nINBOX\nGr\u{fc}n\nR&--D\n");
    folders.unsubscribe(&name("INBOX")).unwrap();
    folders.unsubscribe(&name("none")).unwrap();
    assert_eq!(folders.subscriptions().unwrap(), [name("a/b"), name("Gr\u{fc}n"), name("R&-D")]);
    // The second version, with lines that are none of ours, and no line end.
    home.write("mail/.subscriptions", "V\t2\n\nEntw&APw-rfe\ty\n#news.x\t.\nINBOX\tx");
    assert_eq!(folders.subscriptions().unwrap(), [name("Entw\u{fc}rfe/y"), name("INBOX/x")]);
    folders.subscribe(&name("c/d")).unwrap();
    folders.unsubscribe(&name("Entw\u{fc}rfe/y")).unwrap();
    assert_eq!(home.read("mail/.subscriptions"), "V\t2\n\n#news.x\t.\nINBOX\tx\nc\td\n");
    folders.create(&name("c/d"), &[]).unwrap();
    let entries = folders.list("", "*").unwrap().entries;
    let subscribed: Vec<&str> =
        entries.iter().filter(|entry| entry.subscribed).map(|entry| entry.name.as_str()).collect();
    assert_eq!(subscribed, ["c/d"]);
    // Dovecot is at work.
    home.write("mail/.subscriptions.lock", "1\n");
    assert!(matches!(folders.subscribe(&name("e")), Err(Error::InUse(_))));
}

#[test]
fn folders_are_for_what_they_are_called_or_what_a_client_said() {
    let home = Home::with(&["sent", "Sent Items", "Trash", "Junk.sbd/x", "deep.sbd/Drafts"]);
    let folders = home.open();
    let uses = || -> Vec<String> {
        let entries = folders.list("", "*").unwrap().entries;
        let of = |entry: &Entry| {
            let of = entry.uses.iter().map(|one| format!("{} {}", entry.name, one.as_str()));
            of.collect::<Vec<_>>()
        };
        entries.iter().flat_map(of).collect()
    };
    assert_eq!(uses(), ["Trash \\Trash", "sent \\Sent"]);
    folders.create(&name("Gesendet"), &[SpecialUse::Sent]).unwrap();
    assert_eq!(uses(), ["Gesendet \\Sent", "Trash \\Trash"]);
    for one in [SpecialUse::All, SpecialUse::Flagged] {
        let made = folders.create(&name("x"), &[one]);
        assert!(matches!(made, Err(Error::UseAttribute(_))));
        assert!(!home.has("mail/x"));
    }
    folders.rename(&name("Gesendet"), &name("Post/Gesendet")).unwrap();
    assert_eq!(uses(), ["Post/Gesendet \\Sent", "Trash \\Trash"]);
    folders.delete(&name("Post/Gesendet")).unwrap();
    assert_eq!(uses(), ["Trash \\Trash", "sent \\Sent"]);
    assert_eq!(SpecialUse::parse("\\junk"), Some(SpecialUse::Junk));
    assert_eq!(SpecialUse::parse("\\Noselect"), None);
}

#[test]
fn a_delivery_learns_where_a_folder_is_or_would_be() {
    let home = Home::with(&["a", "lists/rust"]);
    home.maildir("mail/dir");
    let folders = home.open();
    let path = |text: &str| {
        let place = folders.place_of_delivery(&Wanted::parse(text).unwrap()).unwrap();
        let path = place.path.to_str().unwrap();
        path.strip_prefix(home.path.to_str().unwrap()).unwrap().trim_start_matches('/').to_owned()
    };
    for (text, expected) in [
        ("a", "mail/a"),
        ("a/", "mail/a"),
        ("dir", "mail/dir/"),
        ("new", "mail/new"),
        ("new/", "mail/new/"),
        ("lists/c", "mail/lists/c"),
        ("a/b/c", "mail/a.sbd/b.sbd/c"),
        ("inbox", "inbox"),
    ] {
        assert_eq!(path(text), expected, "{text}");
    }
    assert!(!home.has("mail/a.sbd"));
    symlink("/tmp", home.root.join("a.sbd")).unwrap();
    let outside = folders.place_of_delivery(&Wanted::parse("a/b").unwrap());
    assert!(matches!(outside, Err(Error::NoPermission(_))), "{outside:?}");
}

#[test]
fn a_tree_that_is_too_large_is_listed_in_part() {
    let home = Home::files();
    fs::create_dir(&home.root).unwrap();
    for n in 0..=super::MOST_FOLDERS {
        fs::write(home.root.join(format!("f{n}")), "").unwrap();
    }
    let listing = home.open().list("", "*").unwrap();
    assert!(listing.more && listing.entries.len() == super::MOST_FOLDERS + 1);
    assert!(matches!(home.open().create(&name("x"), &[]), Err(Error::Limit(_))));
    // A deep one, too.
    let home = Home::files();
    fs::create_dir_all(home.root.join("d/".repeat(200))).unwrap();
    assert_eq!(home.names().len(), 51);
}

#[test]
fn no_name_leads_outside_of_the_folders() {
    let home = Home::of("deep/mail", "inbox");
    home.write("secret", MAIL);
    home.write("deep/secret", MAIL);
    home.write("mail/.index/x", "");
    fs::create_dir_all(&home.root).unwrap();
    symlink("..", home.root.join("up")).unwrap();
    symlink("..", home.root.join("up.sbd")).unwrap();
    let mut seed = 11_u64;
    let mut next = |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let parts = [
        "a", "b", "/", "/", "/", ".", "..", "up", "secret", "&AC4ALg-", "&AC8-", "INBOX", ".sbd",
        "\0", "deep",
    ];
    let folders = home.open();
    let outside = || -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for at in [&home.path, &home.path.join("deep")] {
            let entries = fs::read_dir(at).unwrap();
            all.extend(entries.map(|entry| entry.unwrap().path().display().to_string()));
        }
        all
    };
    let before = outside();
    let mut done = 0;
    for _ in 0..3000 {
        let mut text = || (0..=next(5)).map(|_| parts[next(parts.len())]).collect::<String>();
        let (Ok(one), Ok(two)) = (Name::parse(&text()), Name::parse(&text())) else {
            continue;
        };
        let results = [
            folders.create(&one, &[]).is_ok(),
            folders.rename(&one, &two).is_ok(),
            folders.delete(&two).is_ok(),
            folders.subscribe(&one).is_ok(),
        ];
        done += results.into_iter().filter(|ok| *ok).count();
        if let Ok(place) = folders.place(&two) {
            let real = fs::canonicalize(&place.path).unwrap_or_else(|_| home.inbox.clone());
            assert!(real.starts_with(&home.root) || two.is_inbox(), "{real:?}");
        }
        assert_eq!(folders.place(&Name::inbox()).unwrap().path, home.inbox);
    }
    assert!(done > 300, "{done}");
    assert_eq!(outside(), before);
    assert_eq!((home.read("secret"), home.read("deep/secret")), (MAIL.to_owned(), MAIL.to_owned()));
    assert!(home.leftovers().is_empty());
}

#[test]
fn a_folder_that_is_made_can_be_delivered_into() {
    let home = Home::files();
    let folders = home.open();
    folders.create(&name("a/b"), &[]).unwrap();
    let mailbox = crate::mailbox::open(folders.place(&name("a/b")).unwrap()).unwrap();
    assert!(mailbox.messages().unwrap().is_empty());
}

#[test]
fn a_maildirs_uids_move_with_it_and_go_with_it() {
    for home in [Home::files(), Home::maildirs()] {
        home.maildir(if home.root.ends_with("mail") { "mail/a" } else { "Maildir/.a" });
        let folders = home.open();
        let version = |folder: &str| {
            crate::mailbox::open(folders.place(&name(folder)).unwrap()).unwrap().version()
        };
        let before = version("a").uid_validity;
        folders.rename(&name("a"), &name("b")).unwrap();
        assert_eq!(version("b").uid_validity, before);
        assert_eq!(home.indexes(), 1);
        folders.delete(&name("b")).unwrap();
        assert_eq!(home.indexes(), 0);
    }
}
