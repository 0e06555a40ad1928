//! `mailctl mailbox`: what an operator is told of users' mailboxes, and an index made anew.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use support::need_root;
use support::run::{Ran, run};
use support::site::Site;
use support::store::{FORMS, Form, USER, message};

/// Runs `mailctl mailbox`, as root where there is root.
fn mailbox(site: &Site, arguments: &[&str]) -> Ran {
    run(site.command("mailctl").arg("mailbox").args(arguments), b"")
}

/// The lines of `stats`.
#[track_caller]
fn stats(site: &Site, folder: &[&str]) -> BTreeMap<String, String> {
    let ran = mailbox(site, &[&["stats", USER], folder].concat()).expect(0);
    let text = ran.text();
    let pairs =
        text.lines().map(|line| line.split_once(": ").unwrap_or((line.trim_end_matches(':'), "")));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn deliver(site: &Site, count: usize) {
    for number in 0..count {
        site.local_deliver(USER, "a@example.org", &message(number, 300)).expect(0);
    }
}

fn index(site: &Site) -> PathBuf {
    PathBuf::from(&stats(site, &[])["index"])
}

/// Spoils the first message's entry.
fn spoil(index: &PathBuf) {
    let mut bytes = fs::read(index).unwrap();
    bytes[180] ^= 1;
    fs::write(index, bytes).unwrap();
}

#[test]
fn stats_tell_what_a_mailbox_is_like() {
    for form in FORMS {
        let site = form.plan().build();
        deliver(&site, 3);
        let stats = stats(&site, &[]);
        // Before others look, who may have something to add.
        let found = fs::metadata(&stats["index"]).unwrap();
        assert_eq!(stats["bytes of the index"], found.len().to_string());
        let path = form.inbox(&site).display().to_string();
        assert_eq!(stats["mailbox"].trim_end_matches('/'), path);
        let (kind, alone) = match form {
            Form::Mbox => ("mbox", "0"),
            Form::Maildir => ("Maildir", "3"),
        };
        for (name, value) in [
            ("kind", kind),
            ("messages", "3"),
            ("unseen", "3"),
            ("recent", "3"),
            ("deleted", "0"),
            ("UIDNEXT", "4"),
            ("keywords", ""),
            ("messages with marks in the index only", "0"),
            ("messages with UIDs in the index only", alone),
        ] {
            assert_eq!(stats[name], value, "{name}");
        }
        let fetched: usize = site
            .fetched(USER)
            .iter()
            .map(|text| text.len() + text.split(|byte| *byte == b'\n').count() - 1)
            .sum();
        assert_eq!(stats["octets"], fetched.to_string());
        // Whoever runs it: the files are the user's.
        assert_eq!(found.uid(), Site::account(USER).uid);
    }
}

#[test]
fn a_folder_may_be_named() {
    let site = Site::plan().in_memory().build();
    let mut command = site.command_as("local-deliver", USER);
    command.args(["-f", "a@example.org", "-m", "lists/rust", "-d", USER]);
    run(&mut command, &message(1, 100)).expect(0);
    let stats = stats(&site, &["lists/rust"]);
    assert_eq!((stats["messages"].as_str(), stats["kind"].as_str()), ("1", "mbox"));
    let ran = mailbox(&site, &["check", USER, "lists/rust"]).expect(0);
    assert!(ran.text().ends_with("lists.sbd/rust is sound: 1 message.\n"), "{ran}");
    for (folder, status, why) in [
        ("lists/c", 66, "there is no folder lists/c"),
        ("lists", 66, "lists has no messages"),
        ("../x", 64, "is no name of a folder"),
    ] {
        let ran = mailbox(&site, &["stats", USER, folder]);
        assert_eq!(ran.code(), Some(status), "{ran}");
        assert!(ran.stderr.contains(why), "{ran}");
    }
}

#[test]
fn a_check_says_that_all_is_well_and_changes_nothing() {
    for form in FORMS {
        let site = form.plan().build();
        deliver(&site, 2);
        // Of what has just been changed nobody can say that it will not change unseen.
        std::thread::sleep(std::time::Duration::from_millis(30));
        let index = index(&site);
        let before = fs::read(&index).unwrap();
        let ran = mailbox(&site, &["check", USER]).expect(0);
        assert!(ran.text().ends_with(" is sound: 2 messages.\n"), "{ran}");
        assert_eq!(ran.stderr, "");
        assert_eq!(fs::read(&index).unwrap(), before);
        fs::remove_file(&index).unwrap();
        let ran = mailbox(&site, &["check", USER]).expect(0);
        assert!(ran.text().contains(".index was missing, and was made"), "{ran}");
    }
}

#[test]
fn a_check_says_what_is_wrong() {
    for form in FORMS {
        let site = form.plan().build();
        deliver(&site, 2);
        spoil(&index(&site));
        let ran = mailbox(&site, &["check", USER]).expect(65);
        assert!(ran.stderr.contains("was damaged (") && ran.text().is_empty(), "{ran}");
        mailbox(&site, &["check", USER]).expect(0);
    }
    let site = Site::plan().in_memory().build();
    deliver(&site, 1);
    let bad = index(&site).with_extension("redo.bad");
    fs::write(&bad, "").unwrap();
    let account = Site::account(USER);
    std::os::unix::fs::chown(&bad, Some(account.uid), Some(account.gid)).unwrap();
    let ran = mailbox(&site, &["check", USER]).expect(65);
    assert!(ran.stderr.contains("that did not fit the mailbox"), "{ran}");
    fs::remove_file(bad).unwrap();
    site.fill(USER, &[b"garbage\n\n", &site.spool(USER)[..]].concat());
    let ran = mailbox(&site, &["check", USER]).expect(65);
    assert!(ran.stderr.contains("9 bytes before the first From_ line"), "{ran}");
}

#[test]
fn a_rebuild_keeps_the_uids_that_a_mailbox_has() {
    let site = Site::plan().in_memory().build();
    deliver(&site, 3);
    let before = stats(&site, &[]);
    spoil(&PathBuf::from(&before["index"]));
    let ran = mailbox(&site, &["rebuild", USER]).expect(0);
    assert!(ran.text().contains("the index was made anew, 3 messages."), "{ran}");
    assert!(!ran.text().contains("UIDVALIDITY"), "{ran}");
    let after = stats(&site, &[]);
    for name in ["UIDVALIDITY", "UIDNEXT", "messages", "octets"] {
        assert_eq!(before[name], after[name], "{name}");
    }
    let number = |stats: &BTreeMap<String, String>| stats["HIGHESTMODSEQ"].parse::<u64>().unwrap();
    assert!(number(&after) > number(&before));
    mailbox(&site, &["check", USER]).expect(0);
}

#[test]
fn a_rebuild_says_where_the_uids_are_others_now() {
    let maildir = Form::Maildir.plan().build();
    deliver(&maildir, 2);
    let foreign = Site::plan().in_memory().build();
    foreign.fill(USER, b"From a@b.org Mon Jun 21 03:15:20 2004\nSubject: x\n\nNo room.\n\n");
    for site in [maildir, foreign] {
        let before = stats(&site, &[]);
        let ran = mailbox(&site, &["rebuild", USER]).expect(0);
        let after = stats(&site, &[]);
        let (was, is) = (&before["UIDVALIDITY"], &after["UIDVALIDITY"]);
        assert_ne!(was, is);
        assert!(ran.text().contains(&format!("UIDVALIDITY was {was} and is {is}:")), "{ran}");
        assert_eq!(before["messages"], after["messages"]);
        mailbox(&site, &["check", USER]).expect(0);
    }
}

#[test]
fn a_mailbox_that_others_keep_locked_is_left_alone() {
    let site = Site::plan().in_memory().set("mailbox", "locks", "[\"dotlock\"]").build();
    deliver(&site, 1);
    fs::write(site.path().join("mail/hunt.lock"), "0").unwrap();
    let mut command = site.command("mailctl");
    command.args(["mailbox", "rebuild", USER]);
    // It waits for half a minute; SIGTERM ends the waiting at once.
    let mut child = support::run::spawn(&mut command);
    std::thread::sleep(std::time::Duration::from_millis(300));
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    let status = support::run::wait(&mut child, support::PATIENCE).unwrap();
    assert!(!status.success());
    fs::remove_file(site.path().join("mail/hunt.lock")).unwrap();
    mailbox(&site, &["check", USER]).expect(0);
}

#[test]
fn nobody_but_root_looks_at_other_users_mailboxes() {
    if !need_root() {
        return;
    }
    let site = Site::plan().in_memory().build();
    deliver(&site, 1);
    let own = |user: &str, whose: &str| {
        let mut command = site.command_as("mailctl", user);
        run(command.args(["mailbox", "stats", whose]), b"")
    };
    own(USER, USER).expect(0);
    let ran = own("alice", USER);
    assert!(ran.code() != Some(0) && !ran.text().contains("messages"), "{ran}");
    for (user, status) in [("nobody-here", 67), ("root", 67)] {
        let ran = mailbox(&site, &["stats", user]);
        assert_eq!(ran.code(), Some(status), "{ran}");
    }
}
