//! What we write into a mailbox's own fields in place, Dovecot and mutt read, and the other way round.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use hikyaku::mailbox::mbox::{Believed, Found, ImapBase, Scanner, Wanted, write_back};
use hikyaku::mailbox::store::Flags;
use support::dovecot::{self, Imap};
use support::site::Site;
use support::{mutt, need};

/// Five messages that we delivered.
fn delivered() -> Site {
    let site = Site::new();
    for n in 1..=5 {
        let message = format!("From: a@b.org\nSubject: number {n}\n\nThis is text {n}.\n");
        site.local_deliver("hunt", "a@b.org", message.as_bytes()).expect(0);
    }
    site
}

fn scan(content: &[u8]) -> Vec<Found> {
    Scanner::new(content, content.len() as u64).map(Result::unwrap).collect()
}

fn found(site: &Site) -> Vec<Found> {
    scan(&fs::read(site.inbox("hunt")).unwrap())
}

/// Writes what is wanted into message `n`, which has room.
fn write(content: &mut [u8], n: usize, wanted: &Wanted<'_>) {
    let extent = scan(content)[n].extent;
    let place = |n: u64| usize::try_from(n).unwrap();
    let start = place(extent.header_start());
    let header = &content[start..place(extent.body_start())];
    if let Some(edit) = write_back(header, wanted).unwrap() {
        let at = start + edit.at;
        content[at..at + edit.bytes.len()].copy_from_slice(&edit.bytes);
    }
}

/// The file with other content, in place; it shows that it was changed.
fn put(inbox: &Path, content: &[u8]) {
    fs::write(inbox, content).unwrap();
    let file = fs::File::options().write(true).open(inbox).unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(5)).unwrap();
}

fn marks<'a>(flags: Flags, keywords: &'a [&'a str]) -> Wanted<'a> {
    Wanted { marks: Some((flags, keywords)), ..Wanted::default() }
}

/// Every flag and a keyword that only a message names.
const ALL: Flags = Flags::ALL;
const WORK: [&str; 2] = ["$Forwarded", "work"];

/// Writes UIDs and marks into each message.
fn mark_all(site: &Site) {
    let inbox = site.inbox("hunt");
    let mut content = fs::read(&inbox).unwrap();
    let before = scan(&content);
    let base = ImapBase {
        uid_validity: 1_764_000_000,
        uid_last: 50,
        keywords: vec!["$Forwarded".into(), "work".into()],
    };
    let uid = |uid| Wanted { uid: Some(uid), ..Wanted::default() };
    write(&mut content, 0, &Wanted { base: Some(&base), ..marks(Flags::SEEN, &[]) });
    for n in 0..5_usize {
        write(&mut content, n, &uid(10 * (1 + u32::try_from(n).unwrap())));
    }
    write(&mut content, 1, &marks(Flags::FLAGGED, &WORK));
    write(&mut content, 2, &marks(Flags::SEEN | Flags::ANSWERED, &["work"]));
    write(&mut content, 3, &marks(ALL, &[]));
    let after = scan(&content);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(
            (before.extent, before.size, before.digest),
            (after.extent, after.size, after.digest)
        );
    }
    let mut believed = Believed::new();
    let uids: Vec<_> = after.iter().map(|found| believed.uid(&found.own)).collect();
    assert_eq!(uids, [Some(10), Some(20), Some(30), Some(40), Some(50)]);
    put(&inbox, &content);
}

/// What Dovecot says: UID and flags of each message, without `\Recent`.
fn by_dovecot(imap: &mut Imap) -> Vec<(u32, Vec<String>)> {
    let said = |mut message: dovecot::Fetched| {
        message.flags.retain(|flag| !flag.is_empty() && flag != "\\Recent");
        message.flags.sort();
        (message.uid, message.flags)
    };
    imap.fetch("1:*").unwrap().into_iter().map(said).collect()
}

fn flags_of<const N: usize>(flags: [&str; N]) -> Vec<String> {
    flags.into_iter().map(str::to_owned).collect()
}

#[test]
fn dovecot_reads_the_uids_and_flags_that_we_wrote_and_we_read_its_own() {
    if !need("doveadm") {
        return;
    }
    let site = delivered();
    mark_all(&site);
    let size = fs::metadata(site.inbox("hunt")).unwrap().len();
    let configuration = dovecot::configuration(&site, "hunt");
    let mut imap = Imap::open(&site, "hunt", &configuration).unwrap();
    let all = ["\\Answered", "\\Deleted", "\\Draft", "\\Flagged", "\\Seen"];
    assert_eq!(
        by_dovecot(&mut imap),
        [
            (10, flags_of(["\\Seen"])),
            (20, flags_of(["$Forwarded", "\\Flagged", "work"])),
            (30, flags_of(["\\Answered", "\\Seen", "work"])),
            (40, flags_of(all)),
            (50, flags_of([])),
        ]
    );
    let status = imap.command("STATUS INBOX (UIDVALIDITY UIDNEXT)").unwrap();
    assert_eq!(status[0].number("UIDVALIDITY"), Some(1_764_000_000));
    assert_eq!(status[0].number("UIDNEXT"), Some(51));
    // It writes, and moves nothing.
    imap.command("UID STORE 20 FLAGS (\\Seen \\Draft $Forwarded)").unwrap();
    imap.command("UID STORE 50 FLAGS (\\Answered own)").unwrap();
    imap.log_out();
    assert_eq!(fs::metadata(site.inbox("hunt")).unwrap().len(), size);
    let now = found(&site);
    assert_eq!(now[1].own.flags, Flags::SEEN | Flags::DRAFT);
    assert_eq!(now[1].own.keywords, ["$Forwarded"]);
    assert_eq!(now[4].own.flags, Flags::ANSWERED);
    assert_eq!(now[4].own.keywords, ["own"]);
    let mut believed = Believed::new();
    let uids: Vec<_> = now.iter().map(|found| believed.uid(&found.own)).collect();
    assert_eq!(uids, [Some(10), Some(20), Some(30), Some(40), Some(50)]);
    assert_eq!(believed.base(), Some((1_764_000_000, 50)));
    // What it left of the room is room for us, and it reads that, too.
    let inbox = site.inbox("hunt");
    let mut content = fs::read(&inbox).unwrap();
    write(&mut content, 1, &marks(ALL, &["work"]));
    write(&mut content, 4, &marks(Flags::FLAGGED, &[]));
    let base = now[0].own.base.clone().unwrap();
    let base = ImapBase { uid_last: 70, ..base };
    write(&mut content, 0, &Wanted { base: Some(&base), ..marks(Flags::FLAGGED, &["own"]) });
    put(&inbox, &content);
    let mut imap = Imap::open(&site, "hunt", &configuration).unwrap();
    assert_eq!(
        by_dovecot(&mut imap),
        [
            (10, flags_of(["\\Flagged", "own"])),
            (20, flags_of(["\\Answered", "\\Deleted", "\\Draft", "\\Flagged", "\\Seen", "work"])),
            (30, flags_of(["\\Answered", "\\Seen", "work"])),
            (40, flags_of(all)),
            (50, flags_of(["\\Flagged"])),
        ]
    );
    imap.log_out();
}

/// The numbers of the messages that match a pattern of mutt's.
fn by_mutt(site: &Site, pattern: &str) -> String {
    let out = site.home("hunt").join("matched");
    let _ = fs::remove_file(&out);
    let keys = format!(
        "<tag-pattern>{pattern}<enter><tag-prefix-cond><pipe-message>cat >>{}<enter><end-cond><exit>",
        out.display()
    );
    mutt::press_as(site, "hunt", &site.inbox("hunt"), "set read_only=yes", &keys);
    let text = fs::read(&out).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let numbers = text.lines().filter_map(|line| line.strip_prefix("Subject: number "));
    numbers.collect::<Vec<_>>().join(" ")
}

#[test]
fn mutt_reads_the_flags_that_we_wrote_and_we_read_its_own() {
    if !mutt::possible_as_user() {
        return;
    }
    let site = delivered();
    mark_all(&site);
    assert_eq!(by_mutt(&site, "~F"), "2 4");
    assert_eq!(by_mutt(&site, "~Q"), "3 4");
    assert_eq!(by_mutt(&site, "~R"), "1 3 4");
    assert_eq!(by_mutt(&site, "~N"), "2 5");
    assert_eq!(by_mutt(&site, "~D"), "4");
    // What is deleted it removes.
    let inbox = site.inbox("hunt");
    let mut content = fs::read(&inbox).unwrap();
    write(&mut content, 3, &marks(ALL & !Flags::DELETED, &[]));
    put(&inbox, &content);
    let before = found(&site);
    let keys = "<tag-pattern>~s number.[15]<enter><tag-prefix><flag-message><sync-mailbox><exit>";
    mutt::press_as(&site, "hunt", &site.inbox("hunt"), "", keys);
    let now = found(&site);
    assert_eq!(now.len(), 5);
    assert!(before.iter().zip(&now).all(|(before, now)| before.digest == now.digest));
    assert!(now[0].own.flags.has(Flags::FLAGGED) && now[4].own.flags.has(Flags::FLAGGED));
    assert_eq!(now[1].own.keywords, WORK);
    // What it leaves of the room is room for us, and it reads that, too.
    let mut content = fs::read(&inbox).unwrap();
    for (n, flags) in [(0, Flags::ANSWERED), (1, ALL), (4, Flags::SEEN | Flags::FLAGGED)] {
        write(&mut content, n, &marks(flags, &["work"]));
    }
    put(&inbox, &content);
    assert_eq!(by_mutt(&site, "~F"), "2 4 5");
    assert_eq!(by_mutt(&site, "~Q"), "1 2 3 4");
    assert_eq!(by_mutt(&site, "~R"), "2 3 4 5");
}
