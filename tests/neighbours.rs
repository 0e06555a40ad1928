//! Mailboxes that pass between us and programs that we did not write: mutt, s-nail, Dovecot,
//! procmail, maildrop, Postfix, Python.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use support::mta::{Kind, Mta};
use support::peer::Peer;
use support::run::run;
use support::site::Site;
use support::{dovecot, find, mutt, need, need_account, wait_until};

/// What each message is, as it arrives, and its body as neighbours read it, which don't take our
/// quoting off.
const MESSAGES: [(&str, &[u8], &[u8]); 8] = [
    ("plain", b"Subject: plain\n\nhello\n", b"hello\n"),
    (
        "from",
        b"Subject: from\n\nFrom here on\n\nFrom a@b.org Mon Jun 21 03:15:20 2004\n>From x\n",
        b">From here on\n\n>From a@b.org Mon Jun 21 03:15:20 2004\n>>From x\n",
    ),
    ("eight", b"Subject: eight\n\nGr\xfc\xdfe \xe2\x82\xac\n", b"Gr\xfc\xdfe \xe2\x82\xac\n"),
    ("nul", b"Subject: nul\n\na\0b\n", b"a\0b\n"),
    ("crlf", b"Subject: crlf\r\n\r\none\r\n\r\ntwo\r\n", b"one\n\ntwo\n"),
    ("open", b"Subject: open\n\nno last line end", b"no last line end\n"),
    ("empty", b"Subject: empty\n\n", b""),
    ("blank", b"Subject: blank\n\n\n\n", b"\n\n"),
];

/// Senders that would make a `From_` line hard to know.
const SENDERS: [&str; 5] = [
    "a@b.org",
    "",
    "\"a \\\" b\"@b.org",
    "gr\u{fc}n@b.org",
    "\"x Thu Jan  1 00:00:00 1970\"@b.org",
];

/// A site whose users may run the delivery themselves, with an empty mailbox.
fn empty() -> Site {
    let site = Site::new();
    let users = fs::Permissions::from_mode(0o644);
    fs::set_permissions(site.path().join("users"), users).unwrap();
    site.fill("hunt", b"");
    site
}

/// A mailbox that our delivery wrote.
fn delivered() -> Site {
    let site = empty();
    for (number, (_, message, _)) in MESSAGES.iter().enumerate() {
        let sender = SENDERS[number % SENDERS.len()];
        site.local_deliver("hunt", sender, message).expect(0);
    }
    site.local_deliver("hunt", "a@b.org", b"no header at all\n").expect(0);
    site
}

/// Subjects and bodies of what [`delivered`] wrote.
fn expected() -> Vec<(String, Vec<u8>)> {
    let with_subject = MESSAGES.map(|(subject, _, body)| (subject.to_owned(), body.to_vec()));
    let mut all = with_subject.to_vec();
    all.push((String::new(), b"no header at all\n".to_vec()));
    all
}

/// Subject and body of a message as it stands in a file, or as POP3 gives it.
fn parts(message: &[u8]) -> (String, Vec<u8>) {
    let end = message.windows(2).position(|two| two == b"\n\n").unwrap();
    let header = String::from_utf8_lossy(&message[..end]);
    let mut lines = header.lines();
    let subject = lines.find_map(|line| line.strip_prefix("Subject: "));
    (subject.unwrap_or_default().to_owned(), message[end + 2..].to_vec())
}

/// Runs `doveadm` as `hunt`.
fn doveadm(site: &Site, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    dovecot::doveadm(site, "hunt", arguments, input)
}

/// What Dovecot reads: subjects and bodies, with LF line ends.
fn by_dovecot(site: &Site) -> Vec<(String, Vec<u8>)> {
    let what = ["fetch", "uid text", "mailbox", "INBOX", "ALL"];
    let out = replace(&doveadm(site, &what, b""), b"\r\n", b"\n");
    split(&out, b"uid: ")
        .iter()
        .skip(1)
        .map(|record| record.strip_suffix(b"\x0c\n").unwrap_or(record))
        .map(|record| parts(split(record, b"\ntext:\n")[1]))
        .collect()
}

/// What mutt reads: the messages as they stand in the file.
fn by_mutt(site: &Site) -> Vec<(String, Vec<u8>)> {
    let out = site.home("hunt").join("piped");
    let _ = fs::remove_file(&out);
    let pipe = format!("cat >> {0}; echo =====END >> {0}", out.display());
    let keys = format!("<tag-pattern>~A<enter><tag-prefix><pipe-message>{pipe}<enter><exit>");
    mutt::press_as(site, "hunt", &site.inbox("hunt"), "set read_only=yes", &keys);
    let piped = fs::read(&out).unwrap();
    let mut messages = split(&piped, b"=====END\n");
    messages.pop();
    messages.iter().map(|message| parts(message)).collect()
}

fn hex(bytes: &[u8]) -> String {
    let digits: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}

fn replace(text: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    split(text, from).join(to)
}

fn split<'a>(mut text: &'a [u8], at: &[u8]) -> Vec<&'a [u8]> {
    let mut all = Vec::new();
    while let Some(found) = text.windows(at.len()).position(|window| window == at) {
        all.push(&text[..found]);
        text = &text[found + at.len()..];
    }
    all.push(text);
    all
}

/// A POP3 session of `hunt`.
fn pop(site: &Site) -> (support::run::Server, Peer, usize) {
    let (server, mut peer) = site.session("popd");
    peer.line();
    peer.pop("USER hunt");
    let answer = peer.pop("PASS Watts?Watt?");
    assert!(answer.starts_with("+OK"), "{answer}");
    let count = peer.pop("STAT");
    let count = count.split(' ').nth(1).unwrap().parse().unwrap();
    (server, peer, count)
}

/// What popd reads.
fn by_popd(site: &Site) -> Vec<(String, Vec<u8>)> {
    raw_by_popd(site).iter().map(|raw| parts(raw)).collect()
}

fn raw_by_popd(site: &Site) -> Vec<Vec<u8>> {
    let (_server, mut peer, count) = pop(site);
    let messages = (1..=count).map(|number| {
        let answer = peer.pop(&format!("RETR {number}"));
        assert!(answer.starts_with("+OK"), "{answer}");
        peer.pop_body()
    });
    let messages = messages.collect();
    assert!(peer.pop("QUIT").starts_with("+OK"));
    messages
}

fn subjects(messages: &[(String, Vec<u8>)]) -> Vec<&str> {
    messages.iter().map(|(subject, _)| subject.as_str()).collect()
}

fn dele(peer: &mut Peer, number: usize) {
    assert!(peer.pop(&format!("DELE {number}")).starts_with("+OK"));
}

#[test]
fn what_we_deliver_dovecot_reads() {
    if !need("doveadm") {
        return;
    }
    let site = delivered();
    assert_eq!(by_dovecot(&site), expected());
}

#[test]
fn what_we_deliver_mutt_reads() {
    if !mutt::possible_as_user() {
        return;
    }
    let site = delivered();
    assert_eq!(by_mutt(&site), expected());
}

#[test]
fn what_we_deliver_s_nail_lists_without_complaint() {
    if !need("s-nail") {
        return;
    }
    let site = delivered();
    let mut command = Command::new(find("s-nail").unwrap());
    command.args(["-n", "-R", "-H", "-f"]).arg(site.inbox("hunt"));
    // It runs for nobody who has no name in passwd(5), as our users there have none.
    let ran = run(&mut command, b"").expect(0);
    assert_eq!(ran.stderr, "");
    let text = ran.text();
    assert_eq!(text.lines().count(), expected().len(), "{text}");
    for ((subject, _), line) in expected().iter().zip(text.lines()) {
        assert!(line.contains(subject.as_str()), "{line}");
    }
}

#[test]
fn what_we_deliver_python_reads() {
    const READ: &str = "import mailbox, sys\n\
        for m in mailbox.mbox(sys.argv[1], create=False):\n\
        \x20   print(m['subject'] or '', m.get_payload(decode=True).hex(), sep=':')";
    if !need("python3") {
        return;
    }
    let site = delivered();
    let mut command = Command::new("python3");
    command.args(["-c", READ]).arg(site.inbox("hunt"));
    let ran = run(&mut command, b"").expect(0);
    let expected: Vec<String> =
        expected().iter().map(|(subject, body)| format!("{subject}:{}", hex(body))).collect();
    assert_eq!(ran.text().lines().collect::<Vec<_>>(), expected);
}

#[test]
fn what_dovecot_stores_popd_shows_without_its_fields() {
    if !need("doveadm") {
        return;
    }
    let site = empty();
    let first =
        b"Subject: one\nTo: hunt\n\nx\n\nFrom a@b.org Mon Jun 21 03:15:20 2004\nB: 1\n\ny\n";
    let second = b"Subject: two\n\nno last line end";
    for message in [&first[..], second] {
        doveadm(&site, &["save", "-m", "INBOX"], message);
    }
    doveadm(&site, &["flags", "add", "\\Seen \\Answered", "mailbox", "INBOX", "ALL"], b"");
    doveadm(&site, &["flags", "add", "keyword", "mailbox", "INBOX", "1"], b"");
    let stored = String::from_utf8(site.spool("hunt")).unwrap();
    assert!(stored.contains("X-UID: 1\n") && stored.contains("\nFrom a@b.org "), "{stored}");
    let two = [&second[..], b"\n"].concat();
    assert_eq!(raw_by_popd(&site), [first.to_vec(), two]);
}

#[test]
fn what_procmail_and_mutt_store_popd_reads() {
    if !(need("procmail") && mutt::possible_as_user()) {
        return;
    }
    let site = empty();
    let rc = site.path().join("procmailrc");
    let inbox = site.inbox("hunt").display().to_string();
    fs::write(&rc, format!("DEFAULT={inbox}\nLOGFILE=/dev/null\n")).unwrap();
    let procmail = |message: &[u8]| {
        let mut command = Command::new(find("procmail").unwrap());
        command.args(["-f", "p@b.org", "-m"]).arg(&rc);
        site.become_user(&mut command, "hunt");
        run(&mut command, message).expect(0);
    };
    let own = site.home("hunt").join("own");
    fs::write(&own, "From a@b.org Mon Jun 21 03:15:20 2004\nSubject: mutt\n\nx\n>From y\n\n")
        .unwrap();
    let save = format!("<save-message>{inbox}<enter><exit>");
    procmail(b"Subject: one\n\nbody\n\nFrom here on\n");
    procmail(b"Subject: two\nContent-Length: 9\n\nx\n\nFrom a@b.org Mon Jun 21 03:15:20 2004\ny\n");
    // procmail writes no blank line behind this one, and mutt none before its own.
    procmail(b"Subject: three\n\nno last line end");
    mutt::press_as(&site, "hunt", &own, "set read_only=yes", &save);
    procmail(b"Subject: four\n\nlast\n");
    let found = by_popd(&site);
    assert_eq!(subjects(&found), ["one", "two", "three", "mutt", "four"]);
    assert_eq!(found[0].1, b"body\n\n>From here on\n");
    assert_eq!(found[1].1, b"x\n\nFrom a@b.org Mon Jun 21 03:15:20 2004\ny\n");
    assert_eq!(found[2].1, b"no last line end\n");
    assert_eq!(found[3].1, b"x\n>From y\n");
    assert_eq!(found[4].1, b"last\n");
}

/// Messages for a neighbour that stores them with a `>` before `From `.
const LETTERS: [(&str, &[u8], &[u8]); 4] = [
    ("one", b"Subject: one\n\nbody\n\nFrom here on\n", b"body\n\n>From here on\n"),
    (
        "two",
        b"Subject: two\n\nx\n\nFrom a@b.org Mon Jun 21 03:15:20 2004\nB: 1\n\ny\n",
        b"x\n\n>From a@b.org Mon Jun 21 03:15:20 2004\nB: 1\n\ny\n",
    ),
    ("three", b"Subject: three\n\nGr\xfc\xdfe\n\n\nend\n", b"Gr\xfc\xdfe\n\n\nend\n"),
    ("four", b"Subject: four\n\n", b""),
];

/// Subjects and bodies of [`LETTERS`] as they are stored.
fn letters() -> Vec<(String, Vec<u8>)> {
    LETTERS.iter().map(|(subject, _, body)| ((*subject).to_owned(), body.to_vec())).collect()
}

#[test]
fn what_maildrop_stores_popd_reads_and_dovecot_too() {
    if !(need("maildrop") && need_account() && need("doveadm")) {
        return;
    }
    let site = empty();
    let filter = site.path().join("mailfilter");
    fs::write(&filter, format!("to {}\n", site.inbox("hunt").display())).unwrap();
    fs::set_permissions(&filter, fs::Permissions::from_mode(0o600)).unwrap();
    for (_, message, _) in LETTERS {
        let mut command = Command::new(find("maildrop").unwrap());
        // It runs for nobody who has no name in passwd(5), as our users there have none.
        command.args(["-f", "m@b.org"]).arg(&filter).env("HOME", site.path());
        run(&mut command, message).expect(0);
        site.local_deliver("hunt", "a@b.org", b"Subject: ours\n\nFrom me\n").expect(0);
    }
    let found = by_popd(&site);
    let (ours, theirs): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|(subject, _)| subject == "ours");
    assert_eq!(theirs, letters());
    assert_eq!(ours, vec![("ours".to_owned(), b"From me\n".to_vec()); LETTERS.len()]);
    assert_eq!(by_dovecot(&site).len(), 2 * LETTERS.len());
}

#[test]
fn what_postfix_stores_popd_reads() {
    if !Kind::Postfix.need() {
        return;
    }
    let site = empty();
    let mta = Mta::start_local(&site);
    for (_, message, _) in LETTERS {
        mta.deliver("p@b.org", "hunt@smkwlab.net", message);
        site.local_deliver("hunt", "a@b.org", b"Subject: ours\n\nFrom me\n").expect(0);
    }
    let found = by_popd(&site);
    let (ours, theirs): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|(subject, _)| subject == "ours");
    assert_eq!(theirs, letters());
    assert_eq!(ours, vec![("ours".to_owned(), b"From me\n".to_vec()); LETTERS.len()]);
}

/// What [`delivered`] was given, as popd shows it again.
fn originals() -> Vec<(String, Vec<u8>)> {
    let mut all = expected();
    all[1].1 = parts(MESSAGES[1].1).1;
    all
}

#[test]
fn what_python_adds_removes_and_flags_popd_reads() {
    // It quotes like most, and puts a new file in the old one's place.
    const WRITE: &str = "import mailbox, sys\n\
        box = mailbox.mbox(sys.argv[1], create=False)\n\
        box.lock()\n\
        del box[0]\n\
        flagged = box[2]\n\
        flagged.set_flags('RF')\n\
        box[2] = flagged\n\
        for text in sys.argv[2:]: box.add(bytes.fromhex(text))\n\
        box.flush()\n\
        box.unlock()";
    if !need("python3") {
        return;
    }
    let site = delivered();
    // The first one in PATH may be of no use to others.
    let debian = Path::new("/usr/bin/python3");
    let python = Some(debian.to_owned()).filter(|path| path.is_file()).or_else(|| find("python3"));
    let mut command = Command::new(python.unwrap());
    command.args(["-c", WRITE]).arg(site.inbox("hunt"));
    command.args(LETTERS.map(|(_, message, _)| hex(message)));
    site.become_user(&mut command, "hunt");
    run(&mut command, b"").expect(0);
    let stored = String::from_utf8_lossy(&site.spool("hunt")).into_owned();
    assert!(stored.contains("\nX-Status: F\n"), "{stored}");
    let mut left = originals();
    left.remove(0);
    left.extend(letters());
    assert_eq!(by_popd(&site), left);
    site.local_deliver("hunt", "a@b.org", b"Subject: ours\n\nFrom me\n").expect(0);
    assert_eq!(by_popd(&site).len(), left.len() + 1);
}

/// Runs s-nail on a mailbox. It runs for nobody who has no name in passwd(5), as our users there
/// have none.
fn s_nail(site: &Site, mailbox: &Path, commands: &str) {
    let mut command = Command::new(find("s-nail").unwrap());
    command.args(["-:/", "-S", "hold", "-S", "keep", "-f"]).arg(mailbox);
    command.env("HOME", site.path());
    run(&mut command, commands.as_bytes()).expect(0);
}

#[test]
fn what_s_nail_copies_removes_and_marks_popd_reads() {
    if !(need("s-nail") && need_account()) {
        return;
    }
    let site = delivered();
    let own = site.path().join("own");
    let mut mbox = Vec::new();
    for (_, message, body) in LETTERS {
        let header = message.split(|b| *b == b'\n').next().unwrap();
        mbox.extend_from_slice(b"From a@b.org Mon Jun 21 03:15:20 2004\n");
        mbox.extend_from_slice(&[header, b"\n\n", body, b"\n"].concat());
    }
    fs::write(&own, mbox).unwrap();
    let inbox = site.inbox("hunt");
    s_nail(&site, &own, &format!("copy * {}\nexit\n", inbox.display()));
    let mut left = originals();
    left.extend(letters());
    assert_eq!(by_popd(&site), left);
    // It writes the mailbox anew, without Content-Length.
    s_nail(&site, &inbox, "delete 1 3\nflag 4\nquit\n");
    let stored = String::from_utf8_lossy(&site.spool("hunt")).into_owned();
    assert!(stored.contains("\nX-Status: F\n"), "{stored}");
    left.remove(2);
    left.remove(0);
    assert_eq!(by_popd(&site), left);
    site.local_deliver("hunt", "a@b.org", b"Subject: ours\n\nFrom me\n").expect(0);
    assert_eq!(by_popd(&site).len(), left.len() + 1);
}

#[test]
fn what_popd_leaves_the_neighbours_read() {
    if !(need("doveadm") && mutt::possible_as_user()) {
        return;
    }
    let site = delivered();
    by_dovecot(&site);
    let (_server, mut peer, count) = pop(&site);
    assert_eq!(count, expected().len());
    for number in [1, 2, 4, 9] {
        dele(&mut peer, number);
    }
    assert!(peer.pop("QUIT").starts_with("+OK"));
    let mut left = expected();
    for index in [8, 3, 1, 0] {
        left.remove(index);
    }
    assert_eq!(by_popd(&site), left);
    assert_eq!(by_mutt(&site), left);
    assert_eq!(by_dovecot(&site), left);
}

#[test]
fn flags_that_change_between_login_and_quit_make_popd_lose_no_other_message() {
    if !(need("doveadm") && mutt::possible_as_user()) {
        return;
    }
    let site = delivered();
    let inbox = site.inbox("hunt");
    let (_server, mut peer, _) = pop(&site);
    for number in [2, 3, 5] {
        dele(&mut peer, number);
    }
    // Dovecot writes its fields into all of them; mutt flags the first, and removes the third and
    // the fourth.
    doveadm(&site, &["flags", "add", "\\Seen key", "mailbox", "INBOX", "ALL"], b"");
    let keys = "<first-entry><flag-message>3<enter><delete-message>4<enter><delete-message>\
                <sync-mailbox><exit>";
    mutt::press_as(&site, "hunt", &inbox, "", keys);
    assert_eq!(
        subjects(&by_dovecot(&site)),
        ["plain", "from", "crlf", "open", "empty", "blank", ""]
    );
    let answer = peer.pop("RETR 7");
    assert!(answer.starts_with("+OK"), "{answer}");
    assert_eq!(parts(&peer.pop_body()).0, "empty");
    assert!(peer.pop("RETR 4").starts_with("-ERR"));
    let answer = peer.pop("QUIT");
    assert!(answer.starts_with("+OK"), "what is gone is gone: {answer}");
    let left = ["plain", "open", "empty", "blank", ""];
    assert_eq!(subjects(&by_popd(&site)), left);
    assert_eq!(subjects(&by_dovecot(&site)), left);
    assert_eq!(subjects(&by_mutt(&site)), left);
}

#[test]
fn a_session_that_deletes_nothing_leaves_the_file_alone() {
    let site = delivered();
    // The first one puts UIDs into the room that is left for them.
    let length = fs::metadata(site.inbox("hunt")).unwrap().len();
    by_popd(&site);
    let before = fs::metadata(site.inbox("hunt")).unwrap();
    let found = by_popd(&site);
    assert_eq!(subjects(&found), subjects(&expected()));
    let after = fs::metadata(site.inbox("hunt")).unwrap();
    assert_eq!(before.modified().unwrap(), after.modified().unwrap());
    assert_eq!((length, length), (before.len(), after.len()));
}

#[test]
fn a_stale_lock_of_procmail_is_taken_and_a_young_one_is_respected() {
    let site = delivered();
    let lock = site.path().join("mail/hunt.lock");
    fs::write(&lock, "0").unwrap();
    let mut command = site.local_deliver_command("hunt", "a@b.org");
    std::thread::scope(|scope| {
        let delivery = scope.spawn(|| run(&mut command, b"Subject: late\n\nx\n"));
        std::thread::sleep(std::time::Duration::from_millis(500));
        assert_eq!(site.messages("hunt").len(), expected().len());
        // It grows old.
        let then = std::time::SystemTime::now() - std::time::Duration::from_secs(301);
        let times = fs::FileTimes::new().set_modified(then);
        fs::File::options().write(true).open(&lock).unwrap().set_times(times).unwrap();
        if support::is_root() {
            // In a sticky directory only its owner removes it.
            let uid = Site::account("hunt").uid;
            std::os::unix::fs::chown(&lock, Some(uid), None).unwrap();
        }
        delivery.join().unwrap().expect(0);
    });
    assert_eq!(site.messages("hunt").len(), expected().len() + 1);
    assert!(!lock.exists());
}

#[test]
fn a_delivery_waits_while_dovecot_has_the_mailbox() {
    if !need("doveadm") {
        return;
    }
    let site = empty();
    // Dovecot rewrites the mailbox again and again while we deliver.
    std::thread::scope(|scope| {
        let delivery = scope.spawn(|| {
            for number in 0..20 {
                let message = format!("Subject: {number}\n\nbody\n");
                let delivered = wait_until("a delivery", || {
                    let ran = site.local_deliver("hunt", "a@b.org", message.as_bytes());
                    (ran.code() != Some(75)).then_some(ran)
                });
                delivered.expect(0);
            }
        });
        let mut round = 0;
        while !delivery.is_finished() {
            let what = if round % 2 == 0 { "add" } else { "remove" };
            doveadm(&site, &["flags", what, "\\Seen", "mailbox", "INBOX", "ALL"], b"");
            doveadm(&site, &["save", "-m", "INBOX"], b"Subject: d\n\nFrom me\n");
            round += 1;
        }
        delivery.join().unwrap();
        let found = by_popd(&site);
        let ours: Vec<_> = found.iter().filter(|(subject, _)| subject != "d").collect();
        assert_eq!(ours.len(), 20);
        assert!(ours.iter().all(|(_, body)| body == b"body\n"), "{ours:?}");
        assert_eq!(found.len(), 20 + round);
    });
}
