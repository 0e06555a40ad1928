//! What a delivery may find wrong: disks that are full, places that are not what they should be,
//! limits, and input that no mail program would send. After each the mailbox is the old one, or the
//! old one with the whole message behind it, byte for byte.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use support::disk::{Disk, with_small_files};
use support::kill::{Attempt, at_each, without_attributes};
use support::run::{Ran, finish, run, spawn};
use support::site::{Site, behind};
use support::store::{self, FORMS, Form, USER, Who, callers, directory, give, message};
use support::{is_root, need, need_root};

/// Ten pages, so that a disk can be full anywhere in it.
const SIZE: usize = 40_000;

/// More than stays in memory.
const LARGE: usize = 300_000;

fn ids() -> String {
    let account = Site::account(USER);
    format!("mode=700,uid={},gid={}", account.uid, account.gid)
}

/// Whether small disks can be made here.
fn disks() -> bool {
    need_root() && need("unshare") && need("nsenter")
}

/// Delivers with so many pages free on a disk, for each of these numbers: 75 and nothing, or 0 and
/// the whole message. Some must fail, and the last must not.
fn with_free_pages(
    disk: &Disk,
    pages: impl IntoIterator<Item = u64>,
    deliver: impl Fn() -> Ran,
    has: impl Fn(usize) -> Result<(), String>,
    clean: impl Fn(),
) {
    let mut refused = 0;
    let mut last = None;
    for pages in pages {
        disk.leave(pages);
        let ran = deliver();
        let code = ran.code();
        assert!(matches!(code, Some(0 | 75)), "{pages} pages: {ran}");
        has(usize::from(code == Some(0))).unwrap_or_else(|what| panic!("{pages} pages: {what}"));
        if code == Some(75) {
            assert!(ran.stderr.contains("o space left"), "{ran}");
            refused += 1;
        }
        last = code;
        // The kernel may count the pages of a file a moment longer than it is there.
        disk.make_room();
        clean();
    }
    assert_eq!(last, Some(0), "with the most pages it is delivered");
    assert!(refused > 0, "no disk was full");
}

#[test]
fn a_disk_that_gets_full_anywhere_in_an_mbox_leaves_it_as_it_was() {
    if !disks() {
        return;
    }
    for (size, pages) in [(SIZE, 0..14), (LARGE, 60..90)] {
        let site = Form::Mbox.plan().build();
        let disk = Disk::at(&site.path().join("mail"), "size=1m,mode=1777");
        let inbox = disk.seen(&site.inbox(USER));
        Form::Mbox.fill(&inbox);
        let text = message(1, size);
        with_free_pages(
            &disk,
            pages,
            || run(&mut disk.command(&store::local_deliver(&site)), &text),
            |times| Form::Mbox.has(&inbox, &text, times),
            || Form::Mbox.fill(&inbox),
        );
    }
}

#[test]
fn a_disk_that_gets_full_anywhere_in_a_maildir_leaves_it_as_it_was() {
    if !disks() {
        return;
    }
    for (size, pages) in [(SIZE, 0..12), (LARGE, 60..80)] {
        let site = Form::Maildir.plan().build();
        let disk = Disk::at(&site.home(USER), &format!("size=1m,{}", ids()));
        let maildir = disk.seen(&Form::Maildir.inbox(&site));
        Form::Maildir.fill(&maildir);
        let text = message(1, size);
        with_free_pages(
            &disk,
            pages,
            || run(&mut disk.command(&store::local_deliver(&site)), &text),
            |times| Form::Maildir.has(&maildir, &text, times),
            || Form::Maildir.fill(&maildir),
        );
    }
}

#[test]
fn a_disk_that_gets_full_in_a_file_of_a_forward_leaves_that_as_it_was() {
    if !disks() {
        return;
    }
    for form in FORMS {
        let site = Form::Mbox.site();
        let place = site.home(USER).join("archive");
        directory(&place);
        let disk = Disk::at(&place, &format!("size=1m,{}", ids()));
        let file = place.join("2004");
        store::forward(&site, &format!("{}\n", file.display()));
        form.fill(&disk.seen(&file));
        let text = message(1, SIZE);
        with_free_pages(
            &disk,
            0..14,
            || run(&mut disk.command(&store::local_deliver(&site)), &text),
            |times| form.has(&disk.seen(&file), &text, times),
            || form.fill(&disk.seen(&file)),
        );
        Form::Mbox.has(&site.inbox(USER), &text, 0).unwrap();
    }
}

#[test]
fn without_room_for_the_journal_nothing_is_written() {
    if !disks() || !need("strace") {
        return;
    }
    let text = message(1, SIZE);
    let site = Form::Mbox.site();
    let inbox = site.inbox(USER);
    let mail = site.home(USER).join("mail");
    directory(&mail);
    let disk = Disk::at(&mail, &format!("size=1m,{}", ids()));
    with_free_pages(
        &disk,
        0..2,
        || run(&mut disk.command(&without_attributes(&store::local_deliver(&site))), &text),
        |times| Form::Mbox.has(&inbox, &text, times),
        || Form::Mbox.fill(&inbox),
    );
    // No more files: the directory, or the journal in it, can't be made.
    for inodes in 1..=3 {
        let site = Form::Mbox.site();
        let mail = site.home(USER).join("mail");
        directory(&mail);
        let disk = Disk::at(&mail, &format!("nr_inodes={inodes},{}", ids()));
        let command = without_attributes(&store::local_deliver(&site));
        let ran = run(&mut disk.command(&command), &text);
        let copies = usize::from(inodes == 3);
        assert_eq!(ran.code(), Some(if copies == 1 { 0 } else { 75 }), "{inodes}: {ran}");
        Form::Mbox.has(&site.inbox(USER), &text, copies).unwrap();
    }
}

#[test]
fn without_room_for_the_waiting_message_nothing_is_delivered() {
    if !disks() {
        return;
    }
    // In memory it needs no room, except for a command, or several recipients.
    for (size, recipients, forward, pages) in [
        (LARGE, &[USER][..], "", 55..80),
        (LARGE, &[USER, "toshi"], "", 65..160),
        (SIZE, &[USER], "|exec cat > /dev/null\n\\hunt\n", 0..12),
    ] {
        let site = Form::Mbox.site();
        let waiting = site.path().join("waiting");
        fs::create_dir(&waiting).unwrap();
        let disk = Disk::at(&waiting, "size=1m,mode=1777");
        if !forward.is_empty() {
            store::forward(&site, forward);
        }
        let text = message(1, size);
        let inbox = site.inbox(USER);
        with_free_pages(
            &disk,
            pages.step_by(if recipients.len() > 1 { 7 } else { 1 }),
            || {
                let mut command = site.command("local-deliver");
                command.args(["-f", store::SENDER]).args(recipients).env("TMPDIR", &waiting);
                run(&mut disk.command(&command), &text)
            },
            |times| {
                if recipients.len() > 1 && times == 0 {
                    // One that has it is told with the other's failure: it gets a second copy.
                    return match Form::Mbox.found(&inbox, &[&text])?.len() {
                        0 | 1 => Ok(()),
                        more => Err(format!("{more} copies")),
                    };
                }
                Form::Mbox.has(&inbox, &text, times)
            },
            || {
                Form::Mbox.fill(&inbox);
                let _ = fs::remove_file(site.inbox("toshi"));
            },
        );
        let left: Vec<_> = fs::read_dir(disk.seen(&waiting)).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

#[test]
fn a_limit_on_files_leaves_a_maildir_or_a_file_of_a_forward_as_it_was() {
    for form in FORMS {
        for (size, blocks) in [(SIZE, [0, 1, 8, 60]), (LARGE, [0, 8, 100, 560])] {
            let site = Form::Mbox.site();
            let file = site.home(USER).join("archive");
            form.fill(&file);
            store::forward(&site, &format!("{}\n", file.display()));
            let text = message(1, size);
            for blocks in blocks {
                let mut command = with_small_files(blocks, &store::local_deliver(&site));
                Who::User.run_by(&site, &mut command);
                run(&mut command, &text).expect(75);
                form.has(&file, &text, 0).unwrap();
            }
            let mut command = store::local_deliver(&site);
            Who::User.run_by(&site, &mut command);
            run(&mut command, &text).expect(0);
            form.has(&file, &text, 1).unwrap();
        }
    }
}

/// The calls that may fail where something is written.
const FAILING: [&str; 24] = [
    "open",
    "openat",
    "read",
    "pread64",
    "write",
    "pwrite64",
    "ftruncate",
    "fsync",
    "fdatasync",
    "linkat",
    "renameat",
    "renameat2",
    "mkdir",
    "mkdirat",
    "fchmod",
    "flock",
    "fstat",
    "newfstatat",
    "statx",
    "getdents64",
    "utimensat",
    "fgetxattr",
    "fsetxattr",
    "fremovexattr",
];

/// Whether the loader failed, before there was anything of ours.
fn is_the_loaders(ran: &Ran) -> bool {
    ran.code() == Some(127) && ran.stderr.contains("shared libraries")
}

#[test]
fn an_error_of_any_call_leaves_the_mailbox_as_the_exit_status_says() {
    if !need("strace") {
        return;
    }
    for form in FORMS {
        for (error, who) in [
            ("error=ENOSPC", Who::User),
            ("error=EDQUOT", Who::User),
            ("error=EIO", Who::User),
            ("error=EIO", Who::Root),
        ] {
            if !callers().contains(&who) {
                continue;
            }
            let name = format!("local-deliver into a {form:?}, by {who:?}");
            at_each(&name, error, &FAILING, |attempt: &Attempt| {
                let site = form.site();
                let mut command = attempt.wrap(&store::local_deliver(&site));
                who.run_by(&site, &mut command);
                let ran = run(&mut command, &message(1, SIZE));
                let copies = match ran.code() {
                    Some(0) => 1,
                    // [mailbox] over_quota: whoever is over it is told so.
                    Some(73) if error == "error=EDQUOT" => 0,
                    // A part of reading the message, and of anything else.
                    Some(71 | 74 | 75) => 0,
                    _ if is_the_loaders(&ran) => 0,
                    _ => return Err(ran.to_string()),
                };
                // Where it can't look at its lock any more, it leaves it for the next one.
                let found = form.found(&form.inbox(&site), &[&message(1, SIZE)])?;
                if found.len() != copies {
                    return Err(format!("{} copies: {ran}", found.len()));
                }
                let mut command = store::local_deliver(&site);
                Who::User.run_by(&site, &mut command);
                run(&mut command, &message(1, SIZE)).expect(0);
                form.has(&form.inbox(&site), &message(1, SIZE), copies + 1)
            });
        }
    }
}

#[test]
fn an_answer_that_nobody_can_write_down_is_status_74() {
    let site = Form::Mbox.site();
    let mut command = store::local_deliver(&site);
    command.arg("-n");
    Who::User.run_by(&site, &mut command);
    let full = File::options().write(true).open("/dev/full").unwrap();
    let child = spawn(command.stdin(Stdio::null()).stdout(full).stderr(Stdio::piped()));
    let ran = finish(&command, child);
    assert_eq!(ran.code(), Some(74), "{ran}");
    assert!(ran.stderr.contains("can't be written"), "{ran}");
    Form::Mbox.has(&site.inbox(USER), b"\n", 0).unwrap();
}

#[test]
fn a_device_is_no_mailbox() {
    for who in callers() {
        for (inbox, forward) in [("/dev/full", None), ("%h/x", Some("/dev/full\n"))] {
            let site = Site::plan().set("paths", "inbox", &format!("{inbox:?}")).build();
            forward.inspect(|text| store::forward(&site, text));
            let mut command = store::local_deliver(&site);
            who.run_by(&site, &mut command);
            let ran = run(&mut command, &message(1, SIZE)).expect(75);
            assert!(ran.stderr.contains("is not a regular file"), "{ran}");
        }
    }
}

/// All that stands in a site's mailboxes and homes, but the journals: kind, mode, owner, contents.
fn listing(site: &Site) -> BTreeMap<PathBuf, (u32, u32, Vec<u8>)> {
    fn below(path: &Path, found: &mut BTreeMap<PathBuf, (u32, u32, Vec<u8>)>) {
        let Ok(metadata) = fs::symlink_metadata(path) else {
            return;
        };
        let contents = match metadata.file_type() {
            kind if kind.is_file() => fs::read(path).unwrap_or_default(),
            kind if kind.is_symlink() => {
                fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()
            }
            _ => Vec::new(),
        };
        found.insert(path.to_owned(), (metadata.mode(), metadata.uid(), contents));
        if metadata.is_dir() && path.file_name().is_some_and(|name| name != ".index") {
            for entry in fs::read_dir(path).into_iter().flatten() {
                below(&entry.unwrap().path(), found);
            }
        }
    }
    let mut found = BTreeMap::new();
    for part in ["mail", "home"] {
        below(&site.path().join(part), &mut found);
    }
    // The directory of the journals may be made, and nothing else.
    found.retain(|path, _| !path.ends_with("mail/.index") && !path.ends_with("hunt/mail"));
    found
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn away(path: &Path) -> PathBuf {
    PathBuf::from(format!("{}.away", path.display()))
}

fn hide(path: &Path) {
    fs::rename(path, away(path)).unwrap();
}

fn restore(path: &Path) {
    let _ = fs::remove_dir(path);
    let _ = fs::remove_file(path);
    fs::rename(away(path), path).unwrap();
}

/// What is wrong with a path, by name; false where it can't be made so.
fn spoil(path: &Path, how: &str) -> bool {
    let owned = is_root();
    match how {
        "unwritable" => mode(path, 0o555),
        "unreadable" => mode(path, 0),
        "mode 0444" => mode(path, 0o444),
        "world-writable" => mode(path, 0o777),
        "missing" => {
            hide(path);
            // Nobody but root makes homes.
            mode(path.parent().unwrap(), 0o555);
        }
        "somebody else's" if owned => chown(path, Some(0), Some(0)).unwrap(),
        "a file" => {
            hide(path);
            fs::write(path, b"a file\n").unwrap();
            give(path, 0o600);
        }
        "a directory" => {
            hide(path);
            directory(path);
        }
        "a symbolic link" => {
            hide(path);
            symlink(away(path), path).unwrap();
        }
        "a dangling link" => {
            hide(path);
            symlink(path.with_extension("nowhere"), path).unwrap();
        }
        "a hard link" => fs::hard_link(path, away(path)).unwrap(),
        "a FIFO" => {
            hide(path);
            nix::unistd::mkfifo(path, nix::sys::stat::Mode::S_IRWXU).unwrap();
            give(path, 0o600);
        }
        "a device" if owned => {
            use nix::sys::stat::{Mode, SFlag, makedev, mknod};
            hide(path);
            mknod(path, SFlag::S_IFCHR, Mode::S_IRWXU, makedev(1, 3)).unwrap();
            give(path, 0o600);
        }
        _ => return false,
    }
    true
}

/// Makes good what was spoiled.
fn mend(path: &Path, how: &str, before: &fs::Metadata) {
    if how == "missing" {
        mode(path.parent().unwrap(), 0o755);
    }
    match how {
        "a hard link" => fs::remove_file(away(path)).unwrap(),
        "unwritable" | "unreadable" | "mode 0444" | "world-writable" | "somebody else's" => {}
        _ => restore(path),
    }
    if is_root() {
        chown(path, Some(before.uid()), Some(before.gid())).unwrap();
    }
    mode(path, before.mode() & 0o7777);
}

/// That with each of these things wrong the mail waits and nothing is changed, and that it is
/// delivered when that is mended.
fn waits_where(form: Form, wrong: &[(&str, &[&str])]) {
    let text = message(1, 500);
    for (place, hows) in wrong {
        for how in *hows {
            for who in callers() {
                let site = form.site();
                let mail = site.home(USER).join("mail");
                directory(&mail);
                directory(&mail.join(".index"));
                let path = site.path().join(place.replace('~', "home/hunt"));
                let before = fs::symlink_metadata(&path).unwrap();
                if !spoil(&path, how) {
                    continue;
                }
                let listed = listing(&site);
                let deliver = || {
                    let mut command = store::local_deliver(&site);
                    who.run_by(&site, &mut command);
                    run(&mut command, &text)
                };
                let what = format!("{place} is {how}, by {who:?}");
                let ran = deliver();
                assert_eq!(ran.code(), Some(75), "{what}: {ran}");
                assert!(ran.stderr.contains("status=deferred 4."), "{what}: {ran}");
                let now = listing(&site);
                assert!(now == listed, "{what}: {:?} is not {:?}", now.keys(), listed.keys());
                mend(&path, how, &before);
                let ran = deliver();
                assert_eq!(ran.code(), Some(0), "{what}, and mended: {ran}");
                form.has(&form.inbox(&site), &text, 1).unwrap_or_else(|wrong| panic!("{wrong}"));
            }
        }
    }
}

#[test]
fn mail_waits_where_the_mbox_or_its_surroundings_are_not_right() {
    waits_where(
        Form::Mbox,
        &[
            (
                "mail/hunt",
                &[
                    "mode 0444",
                    "unreadable",
                    "a directory",
                    "a symbolic link",
                    "a dangling link",
                    "a hard link",
                    "a FIFO",
                    "a device",
                    "somebody else's",
                ],
            ),
            ("mail", &["unwritable", "missing", "world-writable", "a file", "a dangling link"]),
            ("~", &["unreadable"]),
            // There may be journals in it, and nobody else may have written them.
            ("~/mail/.index", &["unreadable", "world-writable", "somebody else's"]),
        ],
    );
}

#[test]
fn an_mbox_takes_mail_where_there_is_no_place_for_journals_nor_a_home() {
    let text = message(1, 500);
    for (place, hows) in [
        ("home/hunt", &["missing", "a file"][..]),
        ("home/hunt/mail/.index", &["unwritable", "a file", "a FIFO", "a dangling link"]),
    ] {
        for (how, who) in hows.iter().flat_map(|how| callers().iter().map(move |who| (how, who))) {
            let site = Form::Mbox.site();
            let mail = site.home(USER).join("mail");
            directory(&mail);
            directory(&mail.join(".index"));
            let path = site.path().join(place);
            let before = fs::symlink_metadata(&path).unwrap();
            if !spoil(&path, how) {
                continue;
            }
            let deliver = |mut command: Command| {
                who.run_by(&site, &mut command);
                run(&mut command, &text)
            };
            let what = format!("{place} is {how}, by {who:?}");
            if need("strace") {
                // The intent could be kept nowhere.
                let ran = deliver(without_attributes(&store::local_deliver(&site)));
                assert_eq!(ran.code(), Some(75), "{what}: {ran}");
                assert!(ran.stderr.contains("[paths] index"), "{what}: {ran}");
                Form::Mbox.has(&site.inbox(USER), &text, 0).unwrap();
            }
            let ran = deliver(store::local_deliver(&site));
            assert_eq!(ran.code(), Some(0), "{what}: {ran}");
            Form::Mbox.has(&site.inbox(USER), &text, 1).unwrap();
            mend(&path, how, &before);
        }
    }
}

#[test]
fn mail_waits_where_the_maildir_is_not_right() {
    waits_where(
        Form::Maildir,
        &[
            ("~/Maildir", &["unreadable", "world-writable", "a file", "a FIFO"]),
            ("~/Maildir", &["somebody else's", "a dangling link"]),
            ("~/Maildir/new", &["unwritable", "a symbolic link", "a dangling link", "a file"]),
            ("~/Maildir/new", &["world-writable", "somebody else's", "unreadable"]),
            ("~/Maildir/tmp", &["unwritable", "a symbolic link", "somebody else's", "a FIFO"]),
            ("~/Maildir/cur", &["a file", "a symbolic link", "world-writable"]),
            ("~", &["unreadable"]),
        ],
    );
}

/// Strange input, and what of it stands in a mailbox, without what the delivery puts on top.
fn strange() -> Vec<(&'static str, Vec<u8>, Vec<u8>)> {
    let same = |name, text: &[u8]| (name, text.to_vec(), text.to_vec());
    let long = "x".repeat(10_000_000);
    let fields = "X-Field: one of the many of a header without any end\n".repeat(320_000);
    assert!(fields.len() > 16_000_000);
    vec![
        ("no body", b"Subject: a\n".into(), b"Subject: a\n\n".into()),
        ("no line end", b"Subject: a".into(), b"Subject: a\n\n".into()),
        ("no last line end", b"Subject: a\n\nb".into(), b"Subject: a\n\nb\n".into()),
        ("no header", b"hello\n".into(), b"\nhello\n".into()),
        ("a line end", b"\n".into(), b"\n".into()),
        ("a NUL", b"\0".into(), b"\n\0\n".into()),
        same("NULs", b"Subject: a\0b\n\n\0x\0\n\0\0\n"),
        ("lone CRs", b"A: 1\n\nx\ry\r\rz\r".into(), b"A: 1\n\nx\ry\r\rz\r\n".into()),
        ("CRLF", b"A: 1\r\n\r\nx\r\n\r\n".into(), b"A: 1\n\nx\n\n".into()),
        (
            "a From_ line",
            b"From x@y Thu Jan  1 00:00:00 1970\n>From z\nA: 1\n\nFrom b\n".into(),
            b"A: 1\n\nFrom b\n".into(),
        ),
        ("nothing but a From_ line", b"From x@y".into(), b"\n".into()),
        same("every byte", &[b"A: 1\n\n".to_vec(), (11..=255).collect(), vec![b'\n']].concat()),
        same("a long field", format!("A: {long}\n\nb\n").as_bytes()),
        ("a long line", format!("{long}\nb\n").into(), format!("\n{long}\nb\n").into()),
        ("a long From_ line", format!("From {long}\nA: 1\n\nb\n").into(), b"A: 1\n\nb\n".into()),
        same("a long header", format!("{fields}\nb\n").as_bytes()),
    ]
}

#[test]
fn strange_messages_stand_whole_in_every_mailbox() {
    for form in FORMS {
        let site = form.site();
        let inbox = form.inbox(&site);
        for (name, input, stored) in strange() {
            let mut command = store::local_deliver(&site);
            Who::User.run_by(&site, &mut command);
            let ran = run(&mut command, &input);
            assert_eq!(ran.code(), Some(0), "{name}: {ran}");
            form.has(&inbox, &stored, 1).unwrap_or_else(|what| panic!("{name}: {what}"));
            form.fill(&inbox);
        }
    }
}

#[test]
fn a_message_without_a_byte_is_none() {
    for form in FORMS {
        for who in callers() {
            let site = form.site();
            let mut command = store::local_deliver(&site);
            who.run_by(&site, &mut command);
            let ran = run(&mut command, b"").expect(65);
            assert!(ran.stderr.contains("no message"), "{ran}");
            form.has(&form.inbox(&site), b"\n", 0).unwrap();
        }
    }
}

#[test]
fn a_message_without_an_end_is_refused_at_the_limit() {
    let mut endless = vec![
        "cat /dev/zero",
        "yes 'X-Field: and another one'",
        "yes ''",
        "{ printf 'A: 1\\n'; yes ' folded'; }",
        "{ printf 'From '; cat /dev/zero; }",
        "{ printf 'Subject: '; cat /dev/zero; }",
        "yes 'Delivered-To: a@example.org'",
        "yes 'Return-Path: <a@example.org>'",
        "{ printf 'A: 1\\n\\n'; yes 'From a body'; }",
    ];
    // Written by nobody who would hear of its end, too.
    endless.push("{ trap '' PIPE; yes 'A: 1'; }");
    let site = Form::Mbox.plan().set("smtp", "max_message_size", "1000000").build();
    Form::Mbox.fill(&site.inbox(USER));
    for who in callers() {
        for writer in &endless {
            for several in [false, true] {
                let mut command = store::local_deliver(&site);
                if several {
                    // Another address of the same user's.
                    command.arg("hunt+more");
                }
                let script = format!("{writer} 2>/dev/null | exec \"$@\"");
                let mut command = behind(&["sh", "-c", &script, "sh"], &command);
                who.run_by(&site, &mut command);
                let began = Instant::now();
                let ran = run(&mut command, b"");
                assert_eq!(ran.code(), Some(65), "{writer}: {ran}");
                assert!(ran.stderr.contains("larger than 1000000 bytes"), "{writer}: {ran}");
                assert!(began.elapsed() < Duration::from_secs(20), "{writer}");
                Form::Mbox.has(&site.inbox(USER), b"\n", 0).unwrap();
            }
        }
    }
}

#[test]
fn input_that_can_not_be_read_is_status_74() {
    for form in FORMS {
        for who in callers() {
            for several in [false, true] {
                let site = form.site();
                let mut command = store::local_deliver(&site);
                if several {
                    command.arg("hunt+more");
                }
                who.run_by(&site, &mut command);
                command.stdin(File::open("/").unwrap());
                let child = spawn(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
                let ran = finish(&command, child);
                assert_eq!(ran.code(), Some(74), "{ran}");
                form.has(&form.inbox(&site), b"\n", 0).unwrap();
            }
        }
    }
}

/// Nobody can tell a writer who died from one who was done: callers who may die give a file, or
/// speak LMTP.
#[test]
fn a_pipe_whose_writer_dies_is_an_ordinary_end() {
    let site = Form::Mbox.site();
    let script = r#"sh -c 'printf "A: 1\n\nhalf a li"; kill -9 $$' | exec "$@""#;
    let mut command = behind(&["sh", "-c", script, "sh"], &store::local_deliver(&site));
    Who::User.run_by(&site, &mut command);
    run(&mut command, b"").expect(0);
    Form::Mbox.has(&site.inbox(USER), b"A: 1\n\nhalf a li\n", 1).unwrap();
}

/// A command with fewer of something than it would like.
fn limited(limit: &str, command: &Command) -> Command {
    behind(&["prlimit", limit], command)
}

#[test]
fn without_descriptors_nothing_is_half_done() {
    if !need("prlimit") {
        return;
    }
    let text = message(1, LARGE);
    for form in FORMS {
        for who in callers() {
            // Not a redirection: dash wants the number 10 for that.
            for forward in ["", "|true\n\\hunt\n"] {
                let mut delivered = 0;
                for most in 3..=16 {
                    let site = form.site();
                    if !forward.is_empty() {
                        store::forward(&site, forward);
                    }
                    let limit = format!("--nofile={most}:{most}");
                    let mut command = limited(&limit, &store::local_deliver(&site));
                    who.run_by(&site, &mut command);
                    let ran = run(&mut command, &text);
                    let copies = match ran.code() {
                        Some(0) => 1,
                        Some(71 | 75) => 0,
                        _ if is_the_loaders(&ran) => 0,
                        _ => panic!("{most} descriptors, {form:?}, {who:?}, {forward:?}: {ran}"),
                    };
                    delivered += copies;
                    let has = form.has(&form.inbox(&site), &text, copies);
                    has.unwrap_or_else(|what| panic!("{most} descriptors: {what}"));
                }
                assert!(delivered > 0, "no limit is large enough");
            }
        }
    }
}

#[test]
fn without_processes_a_command_waits() {
    if !need("prlimit") {
        return;
    }
    let site = Form::Mbox.site();
    store::forward(&site, "|exec cat > /dev/null\n\\hunt\n");
    let text = message(1, SIZE);
    let mut command = limited("--nproc=0:0", &store::local_deliver(&site));
    Who::User.run_by(&site, &mut command);
    let ran = run(&mut command, &text).expect(75);
    assert!(ran.stderr.contains("can't be run"), "{ran}");
    Form::Mbox.has(&site.inbox(USER), &text, 0).unwrap();
    store::forward(&site, "\\hunt\n");
    let mut command = limited("--nproc=0:0", &store::local_deliver(&site));
    Who::User.run_by(&site, &mut command);
    run(&mut command, &text).expect(0);
    Form::Mbox.has(&site.inbox(USER), &text, 1).unwrap();
}

#[test]
fn without_a_fork_root_delivers_nothing() {
    if !need_root() || !need("strace") {
        return;
    }
    let site = Form::Mbox.site();
    let text = message(1, SIZE);
    let strace = ["strace", "-f", "-o", "/dev/null", "-e", "inject=clone,clone3:error=EAGAIN"];
    // For one recipient none is needed.
    let mut command = behind(&strace, &store::local_deliver(&site));
    let ran = run(command.arg("toshi"), &text).expect(75);
    assert!(ran.stderr.contains("status=deferred"), "{ran}");
    Form::Mbox.has(&site.inbox(USER), &text, 0).unwrap();
    assert_eq!(site.spool("toshi"), b"");
}
