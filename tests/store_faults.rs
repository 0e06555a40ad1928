//! A session with an mbox where something is wrong: disks that are full, calls that fail, an index
//! or a mailbox that is taken away under it, others at the same time. Nothing is lost, nothing is
//! seen that is not so, and what is refused leaves all as it was.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use hikyaku::mailbox::Store;
use hikyaku::mailbox::store::{Flags, Marking};
use support::disk::{Disk, with_small_files};
use support::kill::{Attempt, at_each};
use support::run::{Ran, run, spawn};
use support::sessions::{self, Shown, Told, arrival, fill};
use support::site::behind;
use support::{Dice, need, need_root, note};

/// As `store::fill` has it.
const MESSAGES: usize = 9;

#[test]
fn a_session_for_the_other_tests() {
    sessions::be_the_program();
}

fn program(directory: &Path, steps: &[&str]) -> Command {
    sessions::program("a_session_for_the_other_tests", directory, steps)
}

fn memory() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// What a session does where everything may fail.
const STEPS: [&str; 7] = [
    "mark:1,4:4:work",
    "append:9000",
    "checkpoint",
    "expunge:1,5",
    "mark:2:1:last",
    "claim",
    "sync",
];

/// What was told at the end of each step, and whether the step failed.
fn steps(ran: &Ran) -> Vec<(Told, bool)> {
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let (mut steps, mut failed) = (Vec::new(), false);
    for line in text.split_inclusive('\n') {
        failed |= line.contains("failed ");
        if let Some(told) = Told::all(line.as_bytes()).pop() {
            steps.push((told, std::mem::take(&mut failed)));
        }
    }
    steps
}

/// The UIDs that a step names.
fn meant(step: &str) -> impl Iterator<Item = u32> {
    let uids = step.split(':').nth(1).unwrap_or_default();
    uids.split(',').filter_map(|uid| uid.parse().ok())
}

/// Each step did what it says, or nothing; and all that was told is what the next session finds.
fn holds(ran: &Ran, look: impl Fn() -> Result<Told, String>) -> Result<(), String> {
    let steps = steps(ran);
    let Some((last, _)) = steps.last() else {
        // It could not be opened, and the mailbox is as it was.
        return same_texts(&look()?, &undisturbed());
    };
    for (at, pair) in steps.windows(2).enumerate() {
        let [(before, _), (after, failed)] = pair else {
            continue;
        };
        if *before == Told::default() || *after == Told::default() {
            continue;
        }
        let step = STEPS[at];
        let (was, is) = (before.messages.len(), after.messages.len());
        let wanted = match (step.split(':').next().unwrap(), failed) {
            // Where its journal stands, the next look finishes it.
            ("expunge", true) if is + 2 == was => is,
            ("append", false) => was + 2,
            // Where no index can be kept UIDs may have changed: those that are there go.
            ("expunge", false) => {
                was - meant(step).filter(|u| before.messages.contains_key(u)).count()
            }
            _ => was,
        };
        if is != wanted {
            return Err(format!("{step} failed: {failed}; {was} messages became {is}"));
        }
        for (uid, shown) in &after.messages {
            let was = before.messages.get(uid);
            if after.uid_validity == before.uid_validity
                && was.is_some_and(|was| was.text != shown.text)
            {
                return Err(format!("{step}: UID {uid} is another message"));
            }
            let marks = was.is_none_or(|was| was.marks == shown.marks);
            if !marks && (*failed || !step.starts_with("mark")) {
                return Err(format!("{step} failed: {failed}; UID {uid} was {was:?}: {shown:?}"));
            }
        }
    }
    let found = look()?;
    same_texts(&found, last)?;
    // Without an index, marks are lost for which the mailbox has no room.
    let is_kept = !ran.text().contains("goes on without an index");
    if !is_kept
        || steps.iter().any(|(_, failed)| *failed)
        || found.uid_validity != last.uid_validity
    {
        return Ok(());
    }
    for (uid, shown) in &last.messages {
        if found.messages.get(uid) != Some(shown) {
            return Err(format!("UID {uid} is {:?}, not {shown:?}", found.messages.get(uid)));
        }
    }
    Ok(())
}

fn undisturbed() -> Told {
    let directory = memory();
    fill(directory.path());
    look(directory.path()).unwrap()
}

fn same_texts(found: &Told, told: &Told) -> Result<(), String> {
    if found.texts() == told.texts() {
        return Ok(());
    }
    Err(format!(
        "{} messages: {found:?}, not {}: {told:?}",
        found.texts().len(),
        told.texts().len()
    ))
}

fn look(directory: &Path) -> Result<Told, String> {
    drop(sessions::open(directory).map_err(|error| error.to_string())?);
    let mut store = sessions::open(directory).map_err(|error| error.to_string())?;
    sessions::told(&mut store).map_err(|error| error.to_string())
}

#[test]
fn an_error_of_any_call_leaves_what_the_session_says() {
    if !need("strace") {
        return;
    }
    let calls = [
        "openat",
        "pwrite64",
        "ftruncate",
        "fallocate",
        "fsync",
        "fdatasync",
        "renameat",
        "unlinkat",
        "mkdirat",
        "flock",
        "utimensat",
        "fsetxattr",
        "fremovexattr",
        "sync_file_range",
    ];
    for error in ["error=ENOSPC", "error=EIO"] {
        at_each("a session", error, &calls, |attempt: &Attempt| {
            let directory = memory();
            fill(directory.path());
            let ran = run(&mut attempt.wrap(&program(directory.path(), &STEPS)), b"");
            let loaders = ran.stderr.contains("shared libraries");
            if ran.code() != Some(0) && !loaders {
                return Err(ran.to_string());
            }
            holds(&ran, || look(directory.path())).map_err(|what| format!("{what}\n{}", ran.text()))
        });
    }
}

#[test]
fn a_disk_that_gets_full_anywhere_leaves_all_as_it_was_and_mail_can_be_read() {
    if !need_root() || !need("unshare") || !need("nsenter") {
        return;
    }
    let directory = memory();
    // Both on it, or the index alone.
    for at in ["", "index"] {
        let (mut failed, mut read) = (0, 0);
        let place = directory.path().join(at);
        fs::create_dir_all(&place).unwrap();
        let disk = Disk::at(&place, "size=1m,mode=700");
        for pages in (0..16).chain([40, 80, 120]) {
            let seen = disk.seen(directory.path());
            let index = seen.join("index");
            for entry in fs::read_dir(&index).into_iter().flatten() {
                let _ = fs::remove_file(entry.unwrap().path());
            }
            disk.make_room();
            fill(&seen);
            disk.leave(pages);
            let ran = run(&mut disk.command(&program(directory.path(), &STEPS)), b"").expect(0);
            let steps = steps(&ran);
            let (first, _) = steps.first().unwrap_or_else(|| panic!("{pages} pages: {ran}"));
            read += usize::from(first.messages.len() == MESSAGES);
            failed += usize::from(steps.iter().any(|(_, failed)| *failed));
            disk.make_room();
            let look = || {
                let ran = run(&mut disk.command(&program(directory.path(), &["sync"])), b"");
                Told::all(&ran.stdout).pop().ok_or_else(|| ran.to_string())
            };
            holds(&ran, look).unwrap_or_else(|what| panic!("{at}, {pages} pages: {what}\n{ran}"));
        }
        assert_eq!(read, 19, "mail can be read on a disk that is full");
        assert!((1..19).contains(&failed), "{failed} of 19 failed");
    }
}

#[test]
fn a_limit_on_files_leaves_all_as_it_was() {
    for blocks in [0, 1, 8, 40, 48, 56, 64, 80, 200] {
        let directory = memory();
        fill(directory.path());
        // As our programs have it: an error, not a signal.
        let ignoring = ["sh", "-c", "trap '' XFSZ && exec \"$@\"", "sh"];
        let command = behind(&ignoring, &program(directory.path(), &STEPS));
        // What it says is a pipe, which has no size.
        let ran = run(&mut with_small_files(blocks, &command), b"").expect(0);
        holds(&ran, || look(directory.path()))
            .unwrap_or_else(|what| panic!("{blocks}: {what}\n{ran}"));
    }
}

#[test]
fn an_index_directory_that_is_not_right_harms_no_mail() {
    type Spoil = fn(&Path);
    let spoilt: [(&str, Spoil); 5] = [
        ("missing", |_| ()),
        ("a file", |path| fs::write(path, "a file").unwrap()),
        ("for all", |path| {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }),
        ("another's", |path| {
            fs::create_dir(path).unwrap();
            if support::is_root() {
                chown(path, Some(65_534), None).unwrap();
            }
        }),
        ("read-only", |path| {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o500)).unwrap();
        }),
    ];
    for (what, spoil) in spoilt {
        let directory = memory();
        fill(directory.path());
        let before = fs::read(sessions::inbox(directory.path())).unwrap();
        spoil(&sessions::index(directory.path()));
        match sessions::open(directory.path()) {
            Ok(mut store) => {
                let told = sessions::told(&mut store).unwrap();
                assert_eq!(told.messages.len(), MESSAGES, "{what}");
            }
            Err(error) => {
                assert!(["for all", "another's"].contains(&what), "{what}: {error}");
                assert_eq!(fs::read(sessions::inbox(directory.path())).unwrap(), before, "{what}");
            }
        }
    }
}

#[test]
fn a_mailbox_that_is_removed_replaced_or_cut_under_a_session_is_seen_as_it_is() {
    for what in ["removed", "replaced", "cut", "emptied", "written over"] {
        let directory = memory();
        fill(directory.path());
        let inbox = sessions::inbox(directory.path());
        let mut store = sessions::open(directory.path()).unwrap();
        let known = sessions::told(&mut store).unwrap();
        let all = (1..=9).into();
        store.mark(&all, Marking::Add, Flags::FLAGGED, &[], None).unwrap();
        let content = fs::read(&inbox).unwrap();
        let cut = content.len() / 2;
        let other = b"From x Thu Jan  1 00:00:00 1970\nSubject: other\n\nother\n\n";
        match what {
            "removed" => fs::remove_file(&inbox).unwrap(),
            "replaced" => {
                fs::write(inbox.with_extension("new"), &content).unwrap();
                fs::rename(inbox.with_extension("new"), &inbox).unwrap();
            }
            "cut" => {
                fs::File::options().write(true).open(&inbox).unwrap().set_len(cut as u64).unwrap();
            }
            "emptied" => fs::write(&inbox, "").unwrap(),
            _ => fs::write(&inbox, other).unwrap(),
        }
        // What it reads before it looks is what it was, or refused.
        for (uid, shown) in &known.messages {
            let mut text = Vec::new();
            let read = store.read(*uid, 0..u64::MAX, &mut |bytes| {
                text.extend_from_slice(bytes);
                Ok(())
            });
            assert!(read.is_err() || sessions::sum(&text) == shown.text, "{what}: UID {uid}");
        }
        store.sync().unwrap();
        let now = sessions::told(&mut store).unwrap();
        for (uid, shown) in &now.messages {
            let was = known.messages.get(uid);
            // The one that was cut is a new one.
            assert!(was.is_none_or(|was| was.text == shown.text), "{what}: UID {uid}");
        }
        let count = now.messages.len();
        let wanted = match what {
            "replaced" => count == MESSAGES,
            "cut" => (4..MESSAGES).contains(&count),
            "written over" => count == 1,
            _ => count == 0,
        };
        assert!(wanted, "{what}: {count} messages");
        let kept = now.messages.iter().filter(|(uid, _)| known.messages.contains_key(uid));
        assert!(kept.into_iter().all(|(_, shown)| is_flagged(shown)), "{what}: {now:?}");
        assert_eq!(store.append(&[arrival("new", 10)]).unwrap().len(), 1, "{what}: {now:?}");
        let last = sessions::told(&mut store).unwrap();
        assert!(last.messages.keys().next_back().unwrap() >= &known.uid_next, "{what}");
        assert_eq!(look(directory.path()).unwrap(), last, "{what}");
    }
}

fn is_flagged(shown: &Shown) -> bool {
    let bits = shown.marks.iter().find_map(|mark| mark.strip_prefix("flags:"));
    bits.unwrap().parse::<u8>().unwrap() & Flags::FLAGGED.bits() != 0
}

#[test]
fn sessions_at_the_same_time_of_which_one_after_the_other_is_killed_lose_nothing() {
    let directory = memory();
    let path = directory.path();
    fill(path);
    let mut dice = Dice::new(4);
    let mut store = sessions::open(path).unwrap();
    let first = sessions::told(&mut store).unwrap();
    // Everything that we were told was appended, by its UID, and what we marked.
    let mut ours: BTreeMap<u32, u64> =
        first.messages.iter().map(|(uid, shown)| (*uid, shown.text)).collect();
    let mut marked: BTreeMap<u32, bool> = BTreeMap::new();
    let mut gone: BTreeSet<u32> = BTreeSet::new();
    let (started, mut rounds, mut killed) = (Instant::now(), 0, 0);
    while rounds < 40 && started.elapsed() < Duration::from_secs(20) {
        rounds += 1;
        // Others append, mark (other flags), write back, and remove what they have appended.
        let others: Vec<_> = (0..2)
            .map(|_| {
                let steps: Vec<&str> = (0..40).map(|_| OTHERS[dice.below(OTHERS.len())]).collect();
                spawn(program(path, &steps).stdout(Stdio::null()).stderr(Stdio::null()))
            })
            .collect();
        for turn in 0..6 {
            let subject = format!("ours-{rounds}-{turn}");
            let uid = store.append(&[arrival(&subject, dice.below(3000))]).unwrap()[0];
            assert!(!ours.contains_key(&uid) && !gone.contains(&uid), "UID {uid} again");
            let now = sessions::told(&mut store).unwrap();
            ours.insert(uid, now.messages[&uid].text);
            let some = *ours.keys().nth(dice.below(ours.len())).unwrap();
            let set = dice.below(2) == 0;
            let how = if set { Marking::Add } else { Marking::Remove };
            store.mark(&(some..=some).into(), how, Flags::FLAGGED, &[], None).unwrap();
            marked.insert(some, set);
            if turn % 3 == 0 {
                let some = *ours.keys().nth(dice.below(ours.len())).unwrap();
                assert_eq!(store.expunge(&(some..=some).into()).unwrap().len(), 1);
                ours.remove(&some);
                marked.remove(&some);
                gone.insert(some);
            }
            if turn == 4 {
                store.checkpoint().unwrap();
            }
        }
        std::thread::sleep(Duration::from_millis(dice.below(20) as u64));
        for mut child in others {
            let ended = child.try_wait().unwrap().is_some();
            killed += usize::from(!ended);
            let _ = child.kill();
            child.wait().unwrap();
        }
        store.sync().unwrap();
        let now = sessions::told(&mut store).unwrap();
        assert_eq!(now.uid_validity, first.uid_validity);
        for (uid, text) in &ours {
            let found = now.messages.get(uid).unwrap_or_else(|| panic!("UID {uid} is gone"));
            assert_eq!(found.text, *text, "round {rounds}: UID {uid}");
            if let Some(set) = marked.get(uid) {
                assert_eq!(is_flagged(found), *set, "round {rounds}: UID {uid}");
            }
        }
        assert!(now.messages.keys().all(|uid| !gone.contains(uid)));
        assert!(store.take_warnings().is_empty());
    }
    note(&format!("{rounds} rounds, {killed} sessions killed"));
    assert!(rounds > 3 && killed > 3, "{rounds} rounds, {killed} killed");
    let now = sessions::told(&mut store).unwrap();
    drop(store);
    same_texts(&look(path).unwrap(), &now).unwrap();
}

/// What the others do; the UIDs that they remove are nobody's.
const OTHERS: [&str; 6] = [
    "append:50",
    "mark:1,2,3,4,5,6,7,8,9,10,11,12:1:other",
    "checkpoint",
    "expunge:4000000",
    "claim",
    "sync",
];
