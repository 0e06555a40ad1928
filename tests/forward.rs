//! `.forward`, through the whole path: what a user's file makes of a message that mta-queue brings,
//! and of one that local-deliver is given by hand.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;
use std::time::Instant;

use support::run::{Ran, run};
use support::site::Site;
use support::{is_root, report, skip};

const NONE: [&str; 0] = [];
const TEMPFAIL: i32 = 75;

/// A site whose users can send mail on, and whose commands have little time.
fn site() -> Site {
    let site = Site::plan().set("delivery", "command_time_limit", "\"2s\"").build();
    site.let_users_send();
    site
}

/// Writes a file in a user's home directory.
fn write(site: &Site, user: &str, name: &str, text: &str) {
    let path = site.home(user).join(name);
    fs::write(&path, text).unwrap();
    give(&path, user, 0o600);
}

fn give(path: &Path, user: &str, mode: u32) {
    if is_root() {
        let account = Site::account(user);
        chown(path, Some(account.uid), Some(account.gid)).unwrap();
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// local-deliver with these arguments, as an MTA calls it; the caller is the user without root.
fn deliver(site: &Site, arguments: &[&str], message: &str) -> Ran {
    let mut command = site.command("local-deliver");
    command.args(["-f", "toshi@smkwlab.net"]).args(arguments);
    run(&mut command, message.as_bytes())
}

/// Runs the queue until it is empty.
#[track_caller]
fn run_queue(site: &Site) {
    for _ in 0..10 {
        site.mta_queue(&["--flush"]);
        if site.queued() == NONE {
            return;
        }
    }
    panic!("the queue does not become empty: {:?}", site.queued());
}

fn subjects(site: &Site, user: &str) -> Vec<String> {
    let messages = site.messages(user);
    messages.iter().map(|m| m.field("Subject").unwrap_or_default().to_owned()).collect()
}

/// The names of the files in a directory.
fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

const MESSAGE: &str = "From: toshi@smkwlab.net\nSubject: on\n\nFrom here\n.\nend\n";

#[test]
fn a_copy_is_kept_and_one_goes_on_with_the_sender_that_it_had() {
    let site = site();
    write(&site, "hunt", ".forward", "# both\n\\hunt, alice@smkwlab.net\nbob,alice\n");
    site.submit("toshi@tenbin.org", &["hunt@smkwlab.net"], MESSAGE);
    run_queue(&site);
    for user in ["hunt", "alice", "bob"] {
        let messages = site.messages(user);
        assert_eq!(messages.len(), 1, "{user}");
        assert_eq!(messages[0].field("Return-Path"), Some("<toshi@tenbin.org>"));
        assert_eq!(messages[0].text(), "From here\n.\nend\n");
        // A name without a domain is of this host.
        let delivered = match user {
            "hunt" => vec!["hunt@smkwlab.net"],
            "bob" => vec!["bob@mx.smkwlab.net", "hunt@smkwlab.net"],
            _ => vec!["alice@smkwlab.net", "hunt@smkwlab.net"],
        };
        assert_eq!(messages[0].fields("Delivered-To"), delivered);
    }
}

#[test]
fn a_command_gets_the_message_and_harmless_words_about_it() {
    let site = site();
    let forward = "\"|cat >got; env | sort >env; pwd >>env; umask >>env\"\n";
    write(&site, "hunt", ".forward", forward);
    let sender = "x';touch$IFS'evil@b.org";
    let mut command = site.command("local-deliver");
    command.args(["-f", sender, "-d", "hunt", "-a", "li$(touch evil)st"]);
    run(&mut command, MESSAGE.as_bytes()).expect(0);
    let home = site.home("hunt");
    let got = fs::read_to_string(home.join("got")).unwrap();
    let (from, rest) = got.split_once('\n').unwrap();
    assert!(from.starts_with("From x';touch$IFS'evil@b.org "), "{from}");
    let to = "hunt+li$(touch evil)st@smkwlab.net";
    assert_eq!(rest, format!("Return-Path: <{sender}>\nDelivered-To: {to}\n{MESSAGE}"));
    let env = fs::read_to_string(home.join("env")).unwrap();
    let lines: Vec<&str> = env.lines().filter(|line| !line.starts_with("TMPDIR=")).collect();
    assert_eq!(
        lines,
        [
            "DOMAIN=smkwlab.net",
            "EXTENSION=li__touch_evil_st",
            &format!("HOME={}", home.display()),
            "LOCAL=hunt+li__touch_evil_st",
            "LOGNAME=hunt",
            "PATH=/usr/local/bin:/usr/bin:/bin",
            &format!("PWD={}", home.display()),
            "RECIPIENT=hunt+li__touch_evil_st@smkwlab.net",
            "SENDER=x__touch_IFS_evil@b.org",
            // A virtual user has none.
            "SHELL=/usr/sbin/nologin",
            "TZ=Asia/Tokyo",
            "USER=hunt",
            &home.display().to_string(),
            "0077",
        ]
    );
    assert!(!home.join("evil").exists());
    assert_eq!(site.spool("hunt"), b"");
}

#[test]
fn a_command_that_fails_for_good_goes_back_with_what_it_said() {
    let site = site();
    write(&site, "hunt", ".forward", "\"|echo this list is closed; echo sorry >&2; exit 67\"\n");
    site.submit("toshi@smkwlab.net", &["hunt@smkwlab.net"], MESSAGE);
    run_queue(&site);
    let [bounce] = &site.messages("toshi")[..] else { panic!("{:?}", subjects(&site, "toshi")) };
    let report = report::of_message(bounce);
    assert_eq!((report.action.as_str(), report.status.as_str()), ("failed", "5.1.1"));
    assert!(report.words.contains("status 67: this list is closed / sorry"), "{}", report.words);
    assert_eq!(site.spool("hunt"), b"");
}

#[test]
fn a_command_that_asks_for_another_try_gets_it() {
    let site = site();
    let forward = "\"|test -e ready || exit 75; cat >got\"\n\\hunt\n";
    write(&site, "hunt", ".forward", forward);
    site.submit("toshi@smkwlab.net", &["hunt@smkwlab.net"], MESSAGE);
    site.mta_queue(&NONE).expect(0);
    assert_eq!(site.queued_in("deferred").len(), 1);
    assert_eq!(site.spool("hunt"), b"", "the command comes first, and nothing was done twice");
    write(&site, "hunt", "ready", "");
    run_queue(&site);
    assert_eq!(subjects(&site, "hunt"), ["on"]);
    assert!(site.home("hunt").join("got").exists());
}

#[test]
fn a_command_that_takes_too_long_is_killed_with_what_it_started() {
    let site = site();
    write(&site, "hunt", ".forward", "\"|sleep 71 & echo $! >pid; sleep 72\"\n");
    let started = Instant::now();
    let ran = deliver(&site, &["hunt"], MESSAGE).expect(TEMPFAIL);
    assert!(ran.stderr.contains("did not end within 2 s"), "{ran}");
    assert!(started.elapsed().as_secs() < 20);
    let pid = fs::read_to_string(site.home("hunt").join("pid")).unwrap();
    let status = format!("/proc/{}/stat", pid.trim());
    support::wait_until("the end of what it started", || {
        let stat = fs::read_to_string(&status).unwrap_or_default();
        (stat.is_empty() || stat.contains(") Z ")).then_some(())
    });
}

#[test]
fn an_extension_has_a_file_of_its_own_or_else_the_common_one() {
    let site = site();
    write(&site, "hunt", ".forward", "alice\n");
    write(&site, "hunt", ".forward+lists", "bob\n");
    write(&site, "hunt", ".forward+none", "\n# nothing\n");
    for to in ["hunt", "hunt+lists", "hunt+other", "Hunt+none", "hunt+a/../lists"] {
        let message = format!("Subject: {to}\n\nx\n");
        site.submit("toshi@smkwlab.net", &[&format!("{to}@smkwlab.net")], message);
        run_queue(&site);
    }
    assert_eq!(subjects(&site, "alice"), ["hunt", "hunt+other", "hunt+a/../lists"]);
    assert_eq!(subjects(&site, "bob"), ["hunt+lists"]);
    assert_eq!(subjects(&site, "hunt"), ["Hunt+none"], "an empty file forwards nothing");
    let found = &site.messages("hunt")[0];
    assert_eq!(found.field("Delivered-To"), Some("Hunt+none@smkwlab.net"));
}

#[test]
fn mail_that_would_run_in_a_circle_ends_at_a_kept_copy_or_goes_back() {
    let site = site();
    write(&site, "hunt", ".forward", "alice\n");
    write(&site, "alice", ".forward", "hunt\n");
    site.submit("toshi@smkwlab.net", &["hunt@smkwlab.net"], MESSAGE);
    run_queue(&site);
    let [bounce] = &site.messages("toshi")[..] else { panic!("{:?}", subjects(&site, "toshi")) };
    assert_eq!(report::of_message(bounce).status, "5.4.6");
    assert_eq!((site.spool("hunt"), site.spool("alice")), (vec![], vec![]));
    write(&site, "alice", ".forward", "\\alice, hunt\n");
    site.submit("toshi@smkwlab.net", &["hunt@smkwlab.net"], MESSAGE);
    run_queue(&site);
    assert_eq!(subjects(&site, "alice"), ["on"]);
    // hunt keeps none, and the second time that is a circle.
    assert_eq!(site.messages("toshi").len(), 2);
    site.submit("toshi@smkwlab.net", &["alice@smkwlab.net"], MESSAGE);
    run_queue(&site);
    assert_eq!(subjects(&site, "alice"), ["on", "on", "on"], "sent, and come back");
    assert_eq!(site.messages("toshi").len(), 2);
}

#[test]
fn mail_that_was_delivered_before_is_delivered_again_where_nobody_sends_it_on() {
    let site = site();
    let message = format!("Delivered-To: hunt@smkwlab.net\n{MESSAGE}");
    deliver(&site, &["hunt"], &message).expect(0);
    write(&site, "hunt", ".forward", "\\hunt\n");
    deliver(&site, &["hunt"], &message).expect(0);
    assert_eq!(subjects(&site, "hunt"), ["on", "on"]);
}

#[test]
fn a_file_that_others_may_write_or_own_is_not_obeyed_and_the_mail_waits() {
    let site = site();
    let forward = "\"|touch done\"\n";
    let path = site.home("hunt").join(".forward");
    let refused = |said: &str| {
        let ran = deliver(&site, &["hunt"], MESSAGE).expect(TEMPFAIL);
        assert!(ran.stderr.contains(said), "{said}: {ran}");
        assert!(ran.stderr.contains("/home/hunt/.forward"), "{ran}");
        assert!(!site.home("hunt").join("done").exists() && site.spool("hunt").is_empty());
    };
    write(&site, "hunt", ".forward", forward);
    for mode in [0o620, 0o602, 0o666, 0o777] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        refused("chmod go-w");
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
    refused("can't be opened");
    if is_root() {
        for owner in [0, Site::account("alice").uid] {
            chown(&path, Some(owner), None).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            refused(&format!("belongs to uid {owner}"));
        }
    } else {
        skip("needs root to give a file away");
    }
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    refused("is not a regular file");
    fs::remove_dir(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    give(&path, "hunt", 0o600);
    refused("is not a regular file");
    fs::remove_file(&path).unwrap();
    write(&site, "hunt", ".forward", &"a@b.org\n".repeat(9000));
    refused("longer than 65536 bytes");
    // A link of the user's to a file of the user's is the user's business.
    write(&site, "hunt", "dotfile", forward);
    fs::remove_file(&path).unwrap();
    symlink("dotfile", &path).unwrap();
    deliver(&site, &["hunt"], MESSAGE).expect(0);
    assert!(site.home("hunt").join("done").exists());
}

#[test]
fn what_can_not_be_understood_names_its_line_and_the_mail_waits() {
    let site = site();
    for (forward, said) in [
        ("alice\n\"|unclosed\n", ".forward:2: a quote is not closed"),
        ("a b@c d\n", ".forward:1: "),
        ("ok\n\n~/mail/x\n", ".forward:3: ~/mail/x: a path from the root is wanted"),
        (":include:list\n", ".forward:1: "),
        ("|\n", ".forward:1: there is no command"),
        (":include:/no/such/list\n", "/no/such/list does not exist"),
    ] {
        write(&site, "hunt", ".forward", forward);
        let ran = deliver(&site, &["hunt"], MESSAGE).expect(TEMPFAIL);
        assert!(ran.stderr.contains(said), "{said}: {ran}");
    }
    assert_eq!(site.queued(), NONE);
    assert_eq!(site.spool("hunt"), b"");
}

#[test]
fn files_include_files_and_each_entry_counts_once() {
    let site = site();
    let home = site.home("hunt").display().to_string();
    write(
        &site,
        "hunt",
        ".forward",
        &format!("alice, :include:{home}/one\n\":include:{home}/two\"\n"),
    );
    write(&site, "hunt", "one", &format!("alice\nbob, :include:{home}/two\n"));
    // Round and round.
    write(&site, "hunt", "two", &format!(":include:{home}/one\n{home}/kept\n\"|echo x >>ran\"\n"));
    deliver(&site, &["hunt"], MESSAGE).expect(0);
    run_queue(&site);
    assert_eq!((site.messages("alice").len(), site.messages("bob").len()), (1, 1));
    assert_eq!(fs::read_to_string(site.home("hunt").join("ran")).unwrap(), "x\n");
    let kept = fs::read(site.home("hunt").join("kept")).unwrap();
    assert_eq!(support::mbox::parse(&kept).len(), 1);
    let chain = |n: u32| format!(":include:{home}/c{n}\n");
    (0..20).for_each(|n| write(&site, "hunt", &format!("c{n}"), &chain(n + 1)));
    write(&site, "hunt", ".forward", &chain(0));
    let ran = deliver(&site, &["hunt"], MESSAGE).expect(TEMPFAIL);
    assert!(ran.stderr.contains("too deeply"), "{ran}");
    write(&site, "hunt", ".forward", &format!(":include:{home}/one\n"));
    fs::set_permissions(site.home("hunt").join("two"), fs::Permissions::from_mode(0o666)).unwrap();
    let ran = deliver(&site, &["hunt"], MESSAGE).expect(TEMPFAIL);
    assert!(ran.stderr.contains("/two may be written by others"), "{ran}");
}

#[test]
fn a_path_is_a_mailbox_of_either_kind_and_dev_null_is_none() {
    let site = site();
    let home = site.home("hunt").display().to_string();
    let forward = format!("{home}/box\n{home}/Maildir/\n/dev/null\n");
    write(&site, "hunt", ".forward", &forward);
    for _ in 0..2 {
        deliver(&site, &["hunt"], MESSAGE).expect(0);
    }
    let stored = fs::read(site.home("hunt").join("box")).unwrap();
    let messages = support::mbox::parse(&stored);
    assert_eq!(messages.len(), 2);
    assert_eq!(messages[1].body, b">From here\n.\nend\n");
    let new = site.home("hunt").join("Maildir/new");
    assert_eq!(names(&new).len(), 2);
    for name in names(&new) {
        let text = fs::read_to_string(new.join(&name)).unwrap();
        let head = "Return-Path: <toshi@smkwlab.net>\nDelivered-To: hunt@smkwlab.net\n";
        assert_eq!(text, format!("{head}{MESSAGE}"), "no mbox, no quoting");
        let crlf = text.len() + text.lines().count();
        assert!(name.ends_with(&format!(",S={},W={crlf}", text.len())), "{name}");
    }
    write(&site, "hunt", ".forward", "/dev/null\n");
    let ran = deliver(&site, &["hunt"], MESSAGE).expect(0);
    assert!(ran.stderr.contains("discarded"), "{ran}");
    assert_eq!(site.spool("hunt"), b"");
    // Somebody else's file is none of the user's mailboxes.
    write(&site, "hunt", ".forward", "/etc/passwd\n");
    deliver(&site, &["hunt"], MESSAGE).expect(TEMPFAIL);
}

#[test]
fn what_would_be_done_is_said_and_not_done() {
    let site = site();
    write(&site, "hunt", ".forward", "\\hunt, \"|touch done\", toshi@tenbin.org\n");
    let ran = deliver(&site, &["-n", "-a", "x", "hunt"], MESSAGE).expect(0);
    let inbox = site.inbox("hunt");
    let said = format!(
        "<hunt+x@smkwlab.net>, {} bytes: command \"touch done\", mailbox {}, \
         forward <toshi@tenbin.org>\n",
        MESSAGE.len(),
        inbox.display()
    );
    assert_eq!(ran.text(), said);
    let ran = deliver(&site, &["-n", "--no-forward", "hunt"], "").expect(0);
    assert!(ran.text().ends_with(&format!("mailbox {}\n", inbox.display())), "{ran}");
    let ran = deliver(&site, &["-n", "-m", "lists/x", "hunt"], "").expect(0);
    let folder = site.home("hunt").join("mail/lists.sbd/x");
    assert!(ran.text().ends_with(&format!("mailbox {}\n", folder.display())), "{ran}");
    assert_eq!(names(&site.home("hunt")), [".forward"]);
    assert_eq!((site.queued(), site.spool("hunt")), (vec![], vec![]));
}

#[test]
fn no_forward_and_a_folder_leave_the_file_aside() {
    let site = site();
    write(&site, "hunt", ".forward", "\"|touch done\"\n");
    deliver(&site, &["--no-forward", "hunt"], MESSAGE).expect(0);
    deliver(&site, &["-v", "-m", "lists/rust", "hunt"], MESSAGE).expect(0);
    assert_eq!(subjects(&site, "hunt"), ["on"]);
    let folder = fs::read(site.home("hunt").join("mail/lists.sbd/rust")).unwrap();
    assert_eq!(support::mbox::parse(&folder).len(), 1);
    assert!(!site.home("hunt").join("done").exists());
}

#[test]
fn what_can_not_be_sent_on_waits_and_what_is_refused_goes_back() {
    let site = site();
    let text = fs::read_to_string(site.configuration()).unwrap();
    let with = |command: &str| {
        let start = text.find("sendmail = [").unwrap();
        let end = start + text[start..].find(']').unwrap() + 1;
        let key = format!("sendmail = [\"/bin/sh\", \"-c\", {command:?}, \"sh\"]");
        fs::write(site.configuration(), format!("{}{key}{}", &text[..start], &text[end..]))
            .unwrap();
    };
    write(&site, "hunt", ".forward", "toshi@tenbin.org, a@b.org\n");
    with("echo \"$@\" >args; cat >text");
    run(site.command("local-deliver").args(["-f", "", "hunt"]), MESSAGE.as_bytes()).expect(0);
    let home = site.home("hunt");
    let arguments = fs::read_to_string(home.join("args")).unwrap();
    assert_eq!(arguments, "-i -f<> -- toshi@tenbin.org a@b.org\n");
    let sent = fs::read_to_string(home.join("text")).unwrap();
    assert_eq!(sent, format!("Delivered-To: hunt@smkwlab.net\n{MESSAGE}"));
    for (status, ours) in [(75, 75), (71, 75), (65, 65), (69, 69)] {
        with(&format!("echo no; exit {status}"));
        let ran = deliver(&site, &["hunt"], MESSAGE).expect(ours);
        assert!(ran.stderr.contains(&format!("failed with status {status}: no")), "{ran}");
        deliver(&site, &["-t", "hunt"], MESSAGE).expect(TEMPFAIL);
    }
    let missing = text.replace("/sendmail\"", "/no-sendmail\"");
    fs::write(site.configuration(), missing).unwrap();
    let ran = deliver(&site, &["hunt"], MESSAGE).expect(TEMPFAIL);
    assert!(ran.stderr.contains("can't be run: No such file"), "{ran}");
}
