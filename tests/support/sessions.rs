//! A program that has a session with an mbox, for tests that kill it, or let its calls fail: the
//! test itself, run again. After each step it says what it was told of the mailbox.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, UNIX_EPOCH};

use hikyaku::config::LockKind;
use hikyaku::mailbox::store::{Arrival, Flags, Marking};
use hikyaku::mailbox::{Error, MboxStore, NewMessage, Place, Stager, Store, UidSet};

/// Where the mailbox of the program is.
const DIRECTORY: &str = "HIKYAKU_SESSION";
const STEPS: &str = "HIKYAKU_SESSION_STEPS";

/// Begins a line of what was told.
const TOLD: &str = "told ";

/// What a session was told: UIDVALIDITY, UIDNEXT, the messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub uid_validity: u32,
    pub uid_next: u32,
    pub messages: BTreeMap<u32, Shown>,
}

/// A message: a sum of its text, and its marks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shown {
    pub text: u64,
    pub marks: BTreeSet<String>,
}

pub fn inbox(directory: &Path) -> PathBuf {
    directory.join("box")
}

pub fn index(directory: &Path) -> PathBuf {
    directory.join("index")
}

pub fn open(directory: &Path) -> Result<MboxStore, Error> {
    MboxStore::open(Place {
        path: inbox(directory),
        index: index(directory),
        owner: nix::unistd::geteuid(),
        locks: vec![LockKind::Fcntl],
        libexec: "/nonexistent".into(),
        lock_timeout: Duration::from_secs(10),
        quota: 0,
    })
}

pub fn told(store: &mut MboxStore) -> Result<Told, Error> {
    let (status, names) = (store.status(), store.keywords().to_vec());
    let mut messages = BTreeMap::new();
    for message in store.messages().unwrap() {
        let mut text = Vec::new();
        store.read(message.uid, 0..u64::MAX, &mut |bytes| {
            text.extend_from_slice(bytes);
            Ok(())
        })?;
        let names = names.iter().enumerate();
        let mut marks: BTreeSet<String> = names
            .filter(|(at, _)| message.marks.keywords >> at & 1 == 1)
            .map(|(_, name)| name.clone())
            .collect();
        marks.insert(format!("flags:{}", message.marks.flags.bits()));
        messages.insert(message.uid, Shown { text: sum(&text), marks });
    }
    Ok(Told { uid_validity: status.uid_validity, uid_next: status.uid_next, messages })
}

/// FNV-1a: one message is told from another.
pub fn sum(text: &[u8]) -> u64 {
    text.iter().fold(0xcbf2_9ce4_8422_2325, |sum, byte| {
        (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

impl Told {
    fn write(&self) -> String {
        let mut line = format!("{TOLD}{} {}", self.uid_validity, self.uid_next);
        for (uid, shown) in &self.messages {
            let marks: Vec<&str> = shown.marks.iter().map(String::as_str).collect();
            line += &[" ", &uid.to_string(), "=", &shown.text.to_string(), "="].concat();
            line += &marks.join(",");
        }
        line + "\n"
    }

    /// What a program was told, step by step.
    pub fn all(said: &[u8]) -> Vec<Self> {
        let said = String::from_utf8_lossy(said);
        let whole = said.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        whole.filter_map(|line| Self::read(line.split_once(TOLD)?.1.trim_end())).collect()
    }

    fn read(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let mut number = || words.next()?.parse().ok();
        let (uid_validity, uid_next) = (number()?, number()?);
        let mut messages = BTreeMap::new();
        for word in words {
            let parts: Vec<&str> = word.split('=').collect();
            let marks = parts[2].split(',').map(str::to_owned).collect();
            messages.insert(parts[0].parse().ok()?, Shown { text: parts[1].parse().ok()?, marks });
        }
        Some(Self { uid_validity, uid_next, messages })
    }

    pub fn texts(&self) -> Vec<u64> {
        let mut texts: Vec<u64> = self.messages.values().map(|shown| shown.text).collect();
        texts.sort_unstable();
        texts
    }
}

pub fn arrival(subject: &str, size: usize) -> Arrival {
    let mut stager = Stager::new(u64::MAX);
    let text = format!("Subject: {subject}\n\n{}\n", "a line\n".repeat(size / 7));
    stager.push(text.as_bytes()).unwrap();
    let text = Rc::new(stager.finish().unwrap());
    Arrival {
        message: NewMessage::delivered(b"a@b.org", b"c@d.org", UNIX_EPOCH, text),
        flags: Flags::SEEN,
        keywords: vec!["new".into()],
    }
}

/// A message with room, as our deliveries write it.
fn ours(subject: &str, room: usize, body: &str) -> String {
    format!(
        "From a@b.org Thu Jan  1 00:00:00 1970\nSubject: {subject}\nStatus:{:10}\n\
         X-Status:{:10}\nX-Keywords:{:room$}\n\n{body}\n\n",
        "", "", ""
    )
}

/// A mailbox with room in each message; a block ends within the first.
pub fn fill_with_room(directory: &Path) {
    let content = ours("a", 150, &"a\n".repeat(2100)) + &ours("c", 90, "c") + &ours("c", 90, "c");
    fs::write(inbox(directory), content).unwrap();
}

/// A mailbox with room and without, with two that are the same, and with one whose fields go over
/// the end of a block.
pub fn fill(directory: &Path) {
    let foreign = |subject: &str| {
        format!("From x Thu Jan  1 00:00:00 1970\nSubject: {subject}\nStatus: RO\n\n{subject}\n\n")
    };
    let mut content = ours("a", 150, "a") + &foreign("b");
    content += &(ours("c", 90, "c") + &ours("c", 90, "c") + &ours("d", 90, &"d\n".repeat(2500)));
    // The block ends within the names, or in the blanks, of its fields.
    for within in [4, 30] {
        let head = ours("e", 0, "").find("X-Keywords").unwrap() + within;
        let (begin, end) = (ours("x", 90, "").len(), (content.len() / 4096 + 1) * 4096);
        content += &ours("x", 90, &"x".repeat(end - content.len() - begin - head));
        assert_eq!((content.len() + head) % 4096, 0);
        content += &ours("e", 90, "e");
    }
    fs::write(inbox(directory), content).unwrap();
}

/// The program: the test of this name, which does nothing when nobody asks for it.
pub fn program(test: &str, directory: &Path, steps: &[&str]) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", test, "--test-threads=1", "--nocapture"])
        .env(DIRECTORY, directory)
        .env(STEPS, steps.join(" "));
    command
}

/// Does what the environment says.
pub fn be_the_program() {
    let (Some(directory), Ok(steps)) = (std::env::var_os(DIRECTORY), std::env::var(STEPS)) else {
        return;
    };
    let mut store = match open(Path::new(&directory)) {
        Ok(store) => store,
        Err(error) => return say(&format!("failed {error}\n")),
    };
    say_what_is_told(&mut store);
    let mut warnings = Vec::new();
    for name in steps.split(' ').filter(|step| !step.is_empty()) {
        if let Err(error) = step(&mut store, name) {
            say(&format!("failed {name}: {error}\n"));
        }
        say_what_is_told(&mut store);
        warnings.extend(store.take_warnings());
    }
    for warning in warnings {
        say(&format!("warning {warning}\n"));
    }
}

fn say_what_is_told(store: &mut MboxStore) {
    // What has failed may have been finished since.
    let told = told(store).or_else(|_| {
        store.sync()?;
        told(store)
    });
    if let Err(error) = &told {
        say(&format!("can't be read: {error}\n"));
    }
    say(&told.unwrap_or_default().write());
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes()).unwrap();
    out.flush().unwrap();
}

/// `mark:1,3:FLAGS:WORD`, `append:SIZE`, `expunge:1,2`, `checkpoint`, `claim`, `sync`.
fn step(store: &mut MboxStore, step: &str) -> Result<(), Error> {
    let parts: Vec<&str> = step.split(':').collect();
    let uids = |part: &str| part.split(',').map(|uid| uid.parse().unwrap()).collect::<UidSet>();
    match parts[0] {
        "mark" => {
            let (flags, words) = (Flags::of_bits(parts[2].parse().unwrap()), [parts[3].to_owned()]);
            store.mark(&uids(parts[1]), Marking::Add, flags, &words, None).map(drop)
        }
        "append" => {
            let size = parts[1].parse().unwrap();
            store.append(&[arrival("y", size), arrival("z", size)]).map(drop)
        }
        "expunge" => store.expunge(&uids(parts[1])).map(drop),
        "checkpoint" => store.checkpoint(),
        "claim" => store.claim_recent().map(drop),
        "sync" => store.sync(),
        other => panic!("no step {other}"),
    }
}
