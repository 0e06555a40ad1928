//! What holds for every program that keeps Maildirs here like the folders there, both ways.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::host::{Host, Messages, flags, has, tree};
use super::letters::{delivered, id, id_of, lines};

/// Maildirs here, and who makes them like the folders there.
pub struct Mirror<'a> {
    pub host: &'a Host,
    /// Folder `a/b` is the Maildir `a/b` below this.
    pub near: &'a Path,
    pub sync: &'a (dyn Fn() + Sync),
    /// What is marked as deleted here is removed on both sides, not marked on both.
    pub expunges: bool,
}

const LETTERS: [(char, &str); 5] = [
    ('D', "\\Draft"),
    ('F', "\\Flagged"),
    ('R', "\\Answered"),
    ('S', "\\Seen"),
    ('T', "\\Deleted"),
];

impl Mirror<'_> {
    /// The files of a Maildir.
    fn files(&self, folder: &str) -> Vec<PathBuf> {
        let parts = ["new", "cur"].map(|part| self.near.join(folder).join(part));
        let entries = parts.iter().flat_map(|part| fs::read_dir(part).into_iter().flatten());
        entries.map(|entry| entry.unwrap().path()).collect()
    }

    /// The messages of a Maildir.
    #[track_caller]
    fn here(&self, folder: &str) -> Messages {
        let mut all = Messages::new();
        for path in self.files(folder) {
            let text = lines(&fs::read(&path).unwrap());
            let name = path.file_name().unwrap().to_str().unwrap();
            let marks = name.split_once(":2,").map_or("", |(_, marks)| marks);
            let flag = |mark| LETTERS.iter().find(|(letter, _)| *letter == mark);
            let flags = marks.chars().filter_map(flag).map(|(_, flag)| (*flag).to_owned());
            let id = id_of(&text);
            let old = all.insert(id.clone(), (flags.collect(), text));
            assert!(old.is_none(), "{folder} has {id} twice");
        }
        all
    }

    /// The file of a message here.
    #[track_caller]
    fn file(&self, folder: &str, number: usize) -> PathBuf {
        let mut files = self.files(folder).into_iter();
        files.find(|path| id_of(&fs::read(path).unwrap()) == id(number)).unwrap()
    }

    fn remove(&self, folder: &str, number: usize) {
        fs::remove_file(self.file(folder, number)).unwrap();
    }

    /// Gives a message here other marks.
    #[track_caller]
    fn mark(&self, folder: &str, number: usize, marks: &str) {
        let file = self.file(folder, number);
        let name = file.file_name().unwrap().to_str().unwrap();
        let name = name.split(":2,").next().unwrap();
        let to = self.near.join(folder).join("cur").join(format!("{name}:2,{marks}"));
        fs::rename(file, to).unwrap();
    }

    /// Puts a message into a folder here, which need not be there before.
    fn add(&self, folder: &str, number: usize, marks: &str) {
        for part in ["tmp", "new", "cur"] {
            fs::create_dir_all(self.near.join(folder).join(part)).unwrap();
        }
        let name = format!("cur/1087787720.{number}.here:2,{marks}");
        fs::write(self.near.join(folder).join(name), delivered(number)).unwrap();
    }

    /// That a folder has the same messages with the same flags on both sides.
    #[track_caller]
    fn is_same(&self, folder: &str) -> Messages {
        let (here, there) = (self.here(folder), self.host.folder(&format!("\"{folder}\"")));
        let marks = |all: &Messages| -> BTreeMap<String, BTreeSet<String>> {
            all.iter().map(|(id, (flags, _))| (id.clone(), flags.clone())).collect()
        };
        assert_eq!(marks(&here), marks(&there), "{folder}: here, and there");
        for (id, (_, text)) in &here {
            super::host::same(&own(text), &own(&there[id].1));
        }
        there
    }

    /// Changes on both sides, before and while they are made the same.
    pub fn both_ways(&self) {
        let Self { host, sync, .. } = self;
        host.deliver(0..12);
        let mut other = host.session();
        other.ok("CREATE Archive/2025");
        other.ok("SUBSCRIBE Archive/2025");
        other.append("Archive/2025", "\\Seen \\Answered", &delivered(100));
        other.ok("SELECT INBOX");
        other.of("STORE", 1, "+FLAGS.SILENT (\\Flagged \\Seen)");
        sync();
        has(&self.is_same("INBOX"), 0..12);
        has(&self.is_same("Archive/2025"), [100]);

        // Before.
        host.deliver(12..14);
        other.of("STORE", 2, "+FLAGS.SILENT (\\Answered)");
        other.of("STORE", 1, "-FLAGS.SILENT (\\Flagged)");
        other.expunge(3);
        other.of("MOVE", 4, "Archive/2025");
        other.ok("CREATE R&-D");
        other.append("R&-D", "\\Draft", &delivered(101));
        self.mark("INBOX", 0, "S");
        self.mark("INBOX", 1, "FRS");
        self.mark("INBOX", 8, "T");
        self.remove("INBOX", 5);
        self.add("INBOX", 20, "FS");
        self.add("INBOX", 21, "");
        self.add("From", 102, "");
        self.add("From/here", 103, "RS");
        // While. What comes between two looks of the client's is for the next time.
        let is_over = AtomicBool::new(false);
        let meanwhile = thread::scope(|scope| {
            let meddler = scope.spawn(|| {
                let mut number = 30;
                while number < 34 || !is_over.load(Ordering::Relaxed) && number < 60 {
                    host.deliver([number]);
                    match number % 3 {
                        0 => drop(other.of("STORE", number, "+FLAGS (\\Flagged)")),
                        1 => other.expunge(number),
                        _ => {}
                    }
                    number += 1;
                }
                number
            });
            sync();
            is_over.store(true, Ordering::Relaxed);
            meddler.join().unwrap()
        });
        other.expunge(6);
        sync();
        sync();
        let arrived = (30..meanwhile).filter(|number| number % 3 != 1);
        let inbox = self.is_same("INBOX");
        let wanted = [0, 1, 2, 7, 9, 10, 11, 12, 13, 20, 21].into_iter().chain(arrived);
        let marked = (!self.expunges).then_some(8);
        let wanted = wanted.chain(marked);
        has(&without_additions(&inbox), wanted);
        for (number, wanted) in [
            (0, "\\Seen"),
            (1, "\\Answered \\Seen"),
            (2, "\\Answered"),
            (7, ""),
            (20, "\\Flagged \\Seen"),
            (21, ""),
            (30, "\\Flagged"),
            (32, ""),
        ] {
            assert_eq!(flags(&inbox, number), wanted, "{number}");
        }
        if let Some(number) = marked {
            assert_eq!(flags(&inbox, number), "\\Deleted");
        }
        let archive = self.is_same("Archive/2025");
        has(&without_additions(&archive), [4, 100]);
        assert_eq!(flags(&archive, 100), "\\Answered \\Seen");
        has(&without_additions(&self.is_same("From")), [102]);
        assert_eq!(flags(&self.is_same("From/here"), 103), "\\Answered \\Seen");
        let folder = self.host.folder("R&-D");
        assert_eq!(flags(&folder, 101), "\\Draft");
        other.log_out();
        self.has_nothing_to_do();
    }

    /// That another time nothing is changed, on either side.
    #[track_caller]
    fn has_nothing_to_do(&self) {
        let before = (self.host.bytes(), maildirs(self.near));
        (self.sync)();
        assert!(before.0 == self.host.bytes(), "the mailboxes were changed");
        assert!(before.1 == maildirs(self.near), "the Maildirs were changed");
    }
}

/// The messages of Maildirs, without what their keeper notes beside them.
fn maildirs(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = tree(path);
    let is_message = |path: &Path| {
        path.components().any(|part| part.as_os_str() == "cur" || part.as_os_str() == "new")
    };
    all.retain(|path, _| is_message(path));
    all
}

/// A message without the fields by which a client finds again what it has sent.
fn own(text: &[u8]) -> Vec<u8> {
    let text = lines(text);
    let is_addition =
        |line: &&[u8]| line.starts_with(b"X-TUID: ") || line.starts_with(b"X-OfflineIMAP: ");
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| !is_addition(line)).collect::<Vec<_>>().concat()
}

fn without_additions(all: &Messages) -> Messages {
    let one = |(id, (flags, text)): (&String, &(BTreeSet<String>, Vec<u8>))| {
        (id.clone(), (flags.clone(), own(text)))
    };
    all.iter().map(one).collect()
}
