//! A session's changes to an mbox are there when they are acknowledged, whatever kills the session
//! or the machine: each message, each UID, each mark.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use support::kill::{Attempt, age_locks, kill_at_each};
use support::need;
use support::powercut::Recorder;
use support::run::run;
use support::sessions::{self, Told, fill, fill_with_room};
use support::site::Site;

/// The second of the two that are the same stays; the first of all, which has X-IMAPbase, goes.
const STEPS: [&str; 9] = [
    "mark:1,2:1:work",
    "mark:3:8:gone",
    "append:100",
    "mark:2,4,6,9:4:later",
    "checkpoint",
    "mark:4,5:2:last",
    "expunge:1",
    "expunge:3",
    "claim",
];

#[test]
fn a_session_for_the_other_tests() {
    sessions::be_the_program();
}

fn program(directory: &Path) -> std::process::Command {
    sessions::program("a_session_for_the_other_tests", directory, &STEPS)
}

/// Whether the mailbox is as was told last, or as it was to be next. Marks may be as they were at
/// step `synced` or later.
fn follows(found: &Told, all: &[Told], at: usize, synced: usize) -> Result<(), String> {
    let (now, next) = (&all[at], all.get(at + 1).unwrap_or(&all[at]));
    if found.uid_validity != now.uid_validity || found.uid_next < now.uid_next {
        return Err(format!("the mailbox is another one: {found:?}"));
    }
    for (uid, shown) in &now.messages {
        let Some(here) = found.messages.get(uid) else {
            if next.messages.contains_key(uid) {
                return Err(format!("UID {uid} is gone"));
            }
            continue;
        };
        let later = all[synced..=at].iter().chain([next]).filter_map(|told| told.messages.get(uid));
        let may_be: Vec<&BTreeSet<String>> = later.map(|shown| &shown.marks).collect();
        if here.text != shown.text || !may_be.contains(&&here.marks) {
            return Err(format!("UID {uid} is {here:?}, not one of {may_be:?}"));
        }
    }
    let texts = next.texts();
    for (uid, shown) in &found.messages {
        let known = now.messages.contains_key(uid);
        if !known && (*uid < now.uid_next || !texts.contains(&shown.text)) {
            return Err(format!("UID {uid} came from nowhere: {shown:?}"));
        }
    }
    let come = found.messages.keys().filter(|uid| !now.messages.contains_key(uid)).count();
    let coming = next.messages.keys().filter(|uid| !now.messages.contains_key(uid)).count();
    if come != 0 && come != coming {
        return Err(format!("{come} of {coming} came"));
    }
    Ok(())
}

fn look(directory: &Path) -> Result<Told, String> {
    // The second one looks at all of what has grown.
    drop(sessions::open(directory).map_err(|error| error.to_string())?);
    let mut store = sessions::open(directory).map_err(|error| error.to_string())?;
    let found = sessions::told(&mut store).map_err(|error| error.to_string())?;
    Ok(found)
}

/// What the next session finds, also where the index is lost on top.
fn check(directory: &Path, all: &[Told], said: usize, synced: usize) -> Result<(), String> {
    let found = look(directory)?;
    if said == 0 {
        // Nobody was told of a UID yet.
        if found.texts() != all[0].texts() {
            return Err(format!("the messages are others: {found:?}"));
        }
    } else {
        follows(&found, all, said - 1, synced)?;
    }
    for entry in fs::read_dir(sessions::index(directory)).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|ending| ending == "index") {
            fs::remove_file(path).unwrap();
        }
    }
    let anew = look(directory)?;
    if anew.texts() != found.texts() {
        return Err(format!("without the index the messages are others: {anew:?}"));
    }
    if anew.uid_validity == found.uid_validity {
        let other = |(uid, shown): &(&u32, &sessions::Shown)| {
            let told = all.iter().take(said).rev().find_map(|told| told.messages.get(uid));
            told.or_else(|| found.messages.get(uid)).is_some_and(|told| told.text != shown.text)
        };
        if let Some((uid, _)) = anew.messages.iter().find(other) {
            return Err(format!("without the index UID {uid} is another message's"));
        }
    }
    Ok(())
}

/// What the program is told where nothing happens to it.
fn undisturbed() -> Vec<Told> {
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    fill(directory.path());
    let ran = run(&mut program(directory.path()), b"").expect(0);
    let all = Told::all(&ran.stdout);
    assert_eq!(all.len(), STEPS.len() + 1, "{ran}");
    all
}

/// The UIDVALIDITY differs from run to run.
fn in_the_year_of(all: &[Told], said: &[Told]) -> Vec<Told> {
    let uid_validity = said.first().map_or(0, |told| told.uid_validity);
    all.iter().map(|told| Told { uid_validity, ..told.clone() }).collect()
}

#[test]
fn a_session_killed_anywhere_loses_nothing_that_was_acknowledged() {
    if !need("strace") {
        return;
    }
    let all = undisturbed();
    let skip = ["read", "poll", "recvfrom", "close", "open", "clone", "clone3", "exit_group"];
    kill_at_each("a session", &skip, |attempt: &Attempt| {
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        fill(directory.path());
        let ran = run(&mut attempt.wrap(&program(directory.path())), b"");
        let said = Told::all(&ran.stdout);
        if attempt.is_whole() && said.len() != all.len() {
            return Err(ran.to_string());
        }
        let all = in_the_year_of(&all, &said);
        let synced = said.len().saturating_sub(1);
        check(directory.path(), &all, said.len(), synced)
    });
}

#[test]
fn a_power_cut_loses_no_message_no_uid_and_no_mark_that_was_synced() {
    if !need("strace") {
        return;
    }
    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    fill(&root);
    let recorder = Recorder::new(&root);
    run(&mut recorder.wrap(&program(&root)), b"").expect(0);
    let speaker = recorder.speaker(b"told ");
    let all = undisturbed();
    let report = recorder.finish(&speaker).replay(&mut |moment| {
        let said = Told::all(moment.said);
        let all = in_the_year_of(&all, &said);
        // The steps behind which the index is synced: all but the marks, and the last one.
        let is_synced =
            |at: &usize| *at == 0 || !STEPS[*at - 1].starts_with(['m', 'c']) || *at == 5;
        let synced = (0..said.len()).rev().find(is_synced).unwrap_or(0);
        check(&root, &all, said.len(), synced)
    });
    report.expect_none("a session");
    assert!(report.states > 100, "the model saw nothing");
}

/// The index is never synced here: the file has the UIDs and the UIDLAST, in two blocks of the disk.
/// Messages go over the ends of blocks: what was not acknowledged yet is whole or gone.
#[test]
fn a_power_cut_loses_no_uid_of_an_append_that_synced_no_more_than_the_mailbox() {
    if !need("strace") {
        return;
    }
    let steps = ["append:100", "append:5000", "mark:1,4:1:work", "append:9000", "append:100"];
    let program =
        |directory: &Path| sessions::program("a_session_for_the_other_tests", directory, &steps);
    let quiet = tempfile::tempdir_in("/dev/shm").unwrap();
    fill_with_room(quiet.path());
    let all = Told::all(&run(&mut program(quiet.path()), b"").expect(0).stdout);
    assert_eq!(all.len(), steps.len() + 1);

    let directory = tempfile::tempdir_in("/dev/shm").unwrap();
    let root = directory.path().join("root");
    fs::create_dir(&root).unwrap();
    fill_with_room(&root);
    let recorder = Recorder::new(&root);
    run(&mut recorder.wrap(&program(&root)), b"").expect(0);
    let speaker = recorder.speaker(b"told ");
    let report = recorder.finish(&speaker).replay(&mut |moment| {
        let said = Told::all(moment.said);
        let all = in_the_year_of(&all, &said);
        check(&root, &all, said.len(), 0)
    });
    report.expect_none("a session that appends");
    assert!(report.states > 50, "the model saw nothing");
}

#[test]
fn popd_killed_anywhere_gives_no_uid_to_two_messages() {
    if !need("strace") {
        return;
    }
    let skip = ["poll", "ppoll", "recvfrom", "sendto", "close", "open", "socket", "connect"];
    kill_at_each("popd", &skip, |attempt: &Attempt| {
        let site = Site::plan().in_memory().build();
        let directory = tempfile::tempdir_in("/dev/shm").unwrap();
        fill(directory.path());
        site.fill("hunt", &fs::read(sessions::inbox(directory.path())).unwrap());
        let (server, mut peer) = Site::session_of(attempt.wrap(&site.command("popd")));
        let words = ["", "USER hunt", "PASS Watts?Watt?", "DELE 1", "DELE 3", "DELE 7", "QUIT"];
        let deleted = words.iter().all(|word| {
            let said = if word.is_empty() { peer.line() } else { peer.pop(word) };
            said.starts_with("+OK")
        });
        drop(peer);
        server.join();
        if attempt.is_whole() && !deleted {
            return Err("QUIT was not answered".into());
        }
        age_locks(&site);
        let mut subjects: Vec<String> = Vec::new();
        for message in site.fetched("hunt") {
            let text = String::from_utf8_lossy(&message).into_owned();
            if text.matches("Subject: ").count() != 1 || !text.is_ascii() {
                return Err(format!("a message is torn: {text}"));
            }
            subjects.push(text.split("Subject: ").nth(1).unwrap()[..1].to_owned());
        }
        subjects.sort();
        match subjects.concat().as_str() {
            "bcdexx" | "abccdeexx" => {}
            other => return Err(format!("the messages are {other}, deleted: {deleted}")),
        }
        if deleted && subjects.len() != 6 {
            return Err("what QUIT was answered to is there again".into());
        }
        let spool = String::from_utf8(site.spool("hunt")).unwrap();
        let uids: Vec<&str> = spool.lines().filter_map(|l| l.strip_prefix("X-UID:")).collect();
        let each: BTreeSet<&str> = uids.iter().map(|uid| uid.trim()).collect();
        if each.len() != uids.len() || subjects.len() > 6 && !spool.contains("X-IMAPbase: ") {
            return Err(format!("UIDs are {uids:?}"));
        }
        Ok(())
    });
}
