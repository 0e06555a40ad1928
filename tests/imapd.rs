//! imapd after login: what its clients ask for, and what they are told.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use support::need;
use support::peer::Peer;
use support::run::{Server, run};
use support::site::Site;

const SPOOL: &str = "From s@example.net Thu Jan  1 10:00:00 2026\n\
    From: Sender <s@example.net>\nTo: alice@example.org\nSubject: first\nDate: Thu, 1 Jan 2026 10:00:00 +0000\n\
    Message-ID: <1@example.net>\n\nOne.\n\n\
    From s@example.net Fri Jan  2 10:00:00 2026\n\
    From: Sender <s@example.net>\nTo: alice@example.org\nSubject: =?ISO-2022-JP?B?GyRCMjxAbhsoQg==?=\n\
    Message-ID: <2@example.net>\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n\
    --b\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: quoted-printable\n\n\
    Caf=C3=A9 au lait\n--b\nContent-Type: application/octet-stream\nContent-Transfer-Encoding: base64\n\n\
    AAECAwQ=\n--b--\n\n";

/// A host with mail for hunt.
fn host() -> (Site, Server, SocketAddr) {
    let site = Site::new();
    site.fill("hunt", SPOOL.as_bytes());
    let (server, address) = site.serve("imapd");
    (site, server, address)
}

fn login(address: SocketAddr) -> Peer {
    let mut peer = Peer::connect(address);
    assert!(peer.line().starts_with("* OK "));
    let said = ask(&mut peer, "in LOGIN hunt Watts?Watt?");
    assert!(said.contains("in OK "), "{said}");
    peer
}

fn select(address: SocketAddr) -> Peer {
    let mut peer = login(address);
    let said = ask(&mut peer, "s SELECT INBOX");
    assert!(said.contains("s OK [READ-WRITE]"), "{said}");
    peer
}

#[track_caller]
fn says(peer: &mut Peer, command: &str, wanted: &[&str]) -> String {
    let said = ask(peer, command);
    for wanted in wanted {
        assert!(said.contains(wanted), "{command}: no {wanted:?} in\n{said}");
    }
    said
}

/// `tag command {n}`, and then the message.
#[track_caller]
fn append(peer: &mut Peer, command: &str, message: &str) -> String {
    let message = message.replace('\n', "\r\n");
    let said = ask(peer, &format!("{command} {{{}}}", message.len()));
    if !said.starts_with('+') {
        return said;
    }
    peer.send(format!("{message}\r\n"));
    answer(peer, command)
}

fn ask(peer: &mut Peer, command: &str) -> String {
    peer.send(format!("{command}\r\n"));
    answer(peer, command)
}

/// What is said up to the end of the answer to this command, or until its client is to go on.
fn answer(peer: &mut Peer, command: &str) -> String {
    let tag = format!("{} ", command.split(' ').next().unwrap());
    let mut said = String::new();
    let is_last = |line: &str| line.starts_with(&tag) || line.starts_with("+ ");
    while !said.lines().last().is_some_and(is_last) {
        said.push_str(&peer.line());
        said.push('\n');
    }
    said
}

#[test]
fn a_mailbox_is_selected_with_all_that_clients_want_to_know() {
    let (_site, _server, address) = host();
    let mut peer = login(address);
    let said = says(
        &mut peer,
        "a SELECT INBOX",
        &[
            "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)",
            "* 2 EXISTS",
            "* 2 RECENT",
            "* OK [UNSEEN 1]",
            "* OK [UIDVALIDITY ",
            "* OK [UIDNEXT 3]",
            "* OK [PERMANENTFLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft \\*)]",
            "a OK [READ-WRITE]",
        ],
    );
    assert!(!said.contains("CLOSED"));
    says(&mut peer, "b EXAMINE INBOX", &["* OK [CLOSED]", "* 0 RECENT", "b OK [READ-ONLY]"]);
    says(&mut peer, "c STORE 1 +FLAGS (\\Seen)", &["c NO"]);
    says(&mut peer, "d SELECT nowhere", &["* OK [CLOSED]", "d NO [NONEXISTENT]"]);
    says(&mut peer, "e FETCH 1 FLAGS", &["e BAD"]);
    says(
        &mut peer,
        "f STATUS INBOX (MESSAGES UNSEEN UIDNEXT SIZE DELETED RECENT)",
        &["* STATUS INBOX (MESSAGES 2 UNSEEN 2 UIDNEXT 3 SIZE ", "DELETED 0 RECENT 0)"],
    );
    says(&mut peer, "g ENABLE IMAP4rev2", &["* ENABLED IMAP4rev2"]);
    let said = says(&mut peer, "h SELECT INBOX", &["* LIST () \"/\" INBOX", "h OK"]);
    assert!(!said.contains("RECENT"), "{said}");
    says(&mut peer, "i LOGOUT", &["* BYE", "i OK"]);
}

#[test]
fn what_is_fetched_is_the_message_and_its_parts() {
    let (_site, _server, address) = host();
    let mut peer = select(address);
    says(
        &mut peer,
        "a FETCH 1:* (UID FLAGS RFC822.SIZE INTERNALDATE)",
        &[
            "* 1 FETCH (UID 1 FLAGS (\\Recent) RFC822.SIZE 144 INTERNALDATE \" 1-Jan-2026",
            "* 2 FETCH (UID 2 ",
        ],
    );
    says(
        &mut peer,
        "b FETCH 1 BODY.PEEK[HEADER.FIELDS (SUBJECT)]",
        &["* 1 FETCH (BODY[HEADER.FIELDS (SUBJECT)] {18}", "Subject: first\n\n)"],
    );
    says(&mut peer, "c FETCH 1 BODY.PEEK[TEXT]<1.2>", &["BODY[TEXT]<1> {2}\nne)"]);
    says(&mut peer, "d FETCH 1 BODY.PEEK[TEXT]<100.2>", &["BODY[TEXT]<100> \"\")"]);
    says(&mut peer, "e FETCH 2 BODY.PEEK[1]", &["BODY[1] {17}\nCaf=C3=A9 au lait)"]);
    says(
        &mut peer,
        "f FETCH 2 (BINARY.SIZE[1] BINARY.SIZE[2])",
        &["BINARY.SIZE[1] 13", "BINARY.SIZE[2] 5"],
    );
    says(&mut peer, "g FETCH 2 BINARY.PEEK[1]", &["BINARY[1] {13}\nCafé au lait)"]);
    says(&mut peer, "h FETCH 2 BINARY.PEEK[2]", &["BINARY[2] ~{5}\n"]);
    says(&mut peer, "i FETCH 2 BODY.PEEK[3]", &["BODY[3] NIL)"]);
    says(&mut peer, "j FETCH 2 BODY.PEEK[2.MIME]", &["base64\n\n)"]);
    says(&mut peer, "k FETCH 1 ENVELOPE", &["ENVELOPE (\"Thu, 1 Jan 2026", "\"<1@example.net>\")"]);
    says(&mut peer, "l FETCH 2 BODYSTRUCTURE", &["\"mixed\" (\"boundary\" \"b\")"]);
    // Only now is it seen.
    says(&mut peer, "m FETCH 1 BODY[]", &["BODY[] {144}", "FLAGS (\\Seen \\Recent)", "m OK"]);
    says(&mut peer, "n UID FETCH 1 FLAGS", &["* 1 FETCH (UID 1 FLAGS (\\Seen \\Recent))"]);
    says(&mut peer, "o FETCH 3 FLAGS", &["o BAD"]);
    assert_eq!(ask(&mut peer, "p UID FETCH 7 FLAGS"), "p OK fetched\n");
}

#[test]
fn what_is_searched_is_found_in_any_charset() {
    let (_site, _server, address) = host();
    let mut peer = select(address);
    for (program, found) in [
        ("ALL", "1 2"),
        ("SUBJECT first", "1"),
        ("SUBJECT FIRST UNSEEN", "1"),
        ("NOT SUBJECT first", "2"),
        ("FROM sender@", ""),
        ("FROM \"Sender <s@\"", "1 2"),
        ("BODY \"au lait\"", "2"),
        ("TEXT <2@example.net>", "2"),
        ("BODY <2@example.net>", ""),
        ("OR SUBJECT first BODY lait", "1 2"),
        ("SENTON 1-Jan-2026", "1"),
        ("SINCE 2-Jan-2026", "2"),
        ("BEFORE 2-Jan-2026", "1"),
        ("LARGER 200", "2"),
        ("HEADER Message-ID \"\"", "1 2"),
        ("2:*", "2"),
        ("UID 1 RECENT", "1"),
        ("ANSWERED", ""),
        ("KEYWORD nothing", ""),
    ] {
        let wanted = format!("* SEARCH{}{found}\n", if found.is_empty() { "" } else { " " });
        says(&mut peer, &format!("a SEARCH {program}"), &[&wanted, "a OK"]);
    }
    let said = append_text(&mut peer, "b SEARCH CHARSET UTF-8 SUBJECT", "下川".as_bytes());
    assert!(said.contains("* SEARCH 2\n"), "{said}");
    let said = append_text(&mut peer, "c SEARCH CHARSET UTF-8 BODY", "CAFÉ".as_bytes());
    assert!(said.contains("* SEARCH 2\n"), "{said}");
    let said = append_text(&mut peer, "d SEARCH CHARSET ISO-2022-JP SUBJECT", b"\x1b$B2<@n\x1b(B");
    assert!(said.contains("* SEARCH 2\n"), "{said}");
    says(&mut peer, "e SEARCH CHARSET nonsense ALL", &["e NO [BADCHARSET ("]);
    says(
        &mut peer,
        "f SEARCH RETURN (MIN MAX COUNT ALL) ALL",
        &["* ESEARCH (TAG \"f\") MIN 1 MAX 2 COUNT 2 ALL 1:2\n"],
    );
    says(&mut peer, "g UID SEARCH RETURN (SAVE) SUBJECT first", &["g OK"]);
    says(&mut peer, "h FETCH $ UID", &["* 1 FETCH (UID 1)\nh OK"]);
}

/// A command whose last word is a literal.
fn append_text(peer: &mut Peer, command: &str, text: &[u8]) -> String {
    let said = ask(peer, &format!("{command} {{{}}}", text.len()));
    assert!(said.starts_with('+'), "{said}");
    peer.send([text, b"\r\n"].concat());
    answer(peer, command)
}

#[test]
fn flags_are_stored_and_told_to_others() {
    let (site, _server, address) = host();
    let (mut one, mut two) = (select(address), select(address));
    says(
        &mut one,
        "a STORE 1 +FLAGS (\\Flagged work)",
        &[
            "* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft work)",
            "* 1 FETCH (FLAGS (\\Flagged work \\Recent))",
            "a OK",
        ],
    );
    says(&mut two, "a NOOP", &["Draft work)", "* 1 FETCH (FLAGS (\\Flagged work))", "a OK"]);
    assert_eq!(ask(&mut one, "b STORE 1 -FLAGS.SILENT (\\Flagged)"), "b OK stored\n");
    assert_eq!(ask(&mut one, "c NOOP"), "c OK done\n");
    says(&mut two, "b UID STORE 2 FLAGS (\\Deleted)", &["* 2 FETCH (UID 2 FLAGS (\\Deleted))"]);
    // The other one's numbers hold until it asks for something that may change them.
    says(&mut two, "c EXPUNGE", &["* 2 EXPUNGE", "c OK"]);
    says(&mut one, "d FETCH 2 BODY.PEEK[]", &["d NO [EXPUNGEISSUED]"]);
    says(&mut one, "e NOOP", &["* 2 EXPUNGE\n", "e OK"]);
    says(&mut one, "f CLOSE", &["f OK"]);
    assert_eq!(ask(&mut two, "d LOGOUT"), "* BYE bye\nd OK logged out\n");
    ask(&mut one, "g LOGOUT");
    assert_eq!(site.messages("hunt").len(), 1);
}

/// A UID that leads nowhere is passed over, whether the client knows it yet or not (RFC 9051 section
/// 6.4.9); and who wants no answer to STORE hears of no trouble (RFC 2180 section 4.2.1).
#[test]
fn what_others_have_removed_is_passed_over() {
    let (_site, _server, address) = host();
    let (mut one, mut two) = (select(address), select(address));
    says(&mut two, "a STORE 1 +FLAGS.SILENT (\\Deleted)", &["a OK"]);
    says(&mut two, "b EXPUNGE", &["* 1 EXPUNGE", "b OK"]);
    says(&mut one, "a STORE 1:2 +FLAGS.SILENT (\\Seen)", &["a OK"]);
    says(
        &mut one,
        "b STORE 1:2 +FLAGS (\\Seen)",
        &["* 2 FETCH (FLAGS (\\Seen", "b NO [EXPUNGEISSUED]"],
    );
    let said = says(&mut one, "c UID STORE 1:2 +FLAGS (\\Seen)", &["* 1 EXPUNGE\n", "c OK"]);
    assert!(said.contains("* 2 FETCH (UID 2 FLAGS (\\Seen"), "{said}");
    let mut three = select(address);
    says(&mut two, "c STORE 1 +FLAGS.SILENT (\\Deleted)", &["c OK"]);
    says(&mut two, "d EXPUNGE", &["* 1 EXPUNGE", "d OK"]);
    says(&mut three, "a UID FETCH 1:* BODY.PEEK[]", &["* 1 EXPUNGE\n", "a OK"]);
}

#[test]
fn messages_come_by_append_copy_and_move() {
    let (site, _server, address) = host();
    let mut peer = select(address);
    let said = append(&mut peer, "a APPEND nowhere", "Subject: x\n\nx\n");
    assert!(said.contains("a NO [TRYCREATE]"), "{said}");
    says(&mut peer, "b CREATE Lists/rust", &["b OK"]);
    let message = "Return-Path: <s@example.net>\nSubject: x\n\nFrom x\n";
    let said = append(
        &mut peer,
        "c APPEND Lists/rust (\\Seen later) \" 2-Feb-2024 03:04:05 +0900\"",
        message,
    );
    assert!(said.contains("c OK [APPENDUID "), "{said}");
    says(&mut peer, "d COPY 1:2 Lists/rust", &["d OK [COPYUID ", " 1:2 2:3]"]);
    says(&mut peer, "e MOVE 1 Lists/rust", &["* OK [COPYUID ", " 1 4]", "* 1 EXPUNGE", "e OK"]);
    says(&mut peer, "f SELECT Lists/rust", &["* 4 EXISTS"]);
    says(
        &mut peer,
        "g FETCH 1 (FLAGS INTERNALDATE BODY.PEEK[])",
        &[
            "FLAGS (\\Seen later \\Recent)",
            "INTERNALDATE \" 2-Feb-2024 03:04:05 +0900\"",
            "Return-Path: <s@example.net>\nSubject: x\n\nFrom x\n)",
        ],
    );
    says(&mut peer, "h FETCH 3 BODY.PEEK[1]", &["Caf=C3=A9 au lait"]);
    says(&mut peer, "i COPY 9 INBOX", &["i BAD"]);
    says(&mut peer, "j UID COPY 9 INBOX", &["j OK"]);
    let said = append(&mut peer, "k APPEND INBOX", "Subject: y\n\ny\n");
    assert!(said.contains("k OK"), "{said}");
    assert_eq!(site.messages("hunt").len(), 2);
    // To the mailbox that is selected.
    let said = append(&mut peer, "l APPEND Lists/rust", "Subject: y\n\ny\n");
    assert!(said.contains("* 5 EXISTS\n"), "{said}");
}

#[test]
fn folders_are_made_listed_renamed_and_deleted() {
    let (_site, _server, address) = host();
    let mut peer = login(address);
    says(&mut peer, "a LIST \"\" \"\"", &["* LIST (\\Noselect) \"/\" \"\"\n"]);
    says(&mut peer, "b CREATE Archive/2025", &["b OK"]);
    says(&mut peer, "c CREATE Sent (USE (\\Sent))", &["c OK"]);
    says(&mut peer, "d CREATE Sent", &["d NO [ALREADYEXISTS]"]);
    says(
        &mut peer,
        "e LIST \"\" *",
        &[
            "* LIST (\\HasNoChildren) \"/\" INBOX\n",
            "\\HasChildren) \"/\" Archive\n",
            "* LIST (\\HasNoChildren) \"/\" Archive/2025\n",
            "* LIST (\\HasNoChildren \\Sent) \"/\" Sent\n",
        ],
    );
    let said = says(&mut peer, "f LIST \"\" %", &["Archive\n"]);
    assert!(!said.contains("2025"), "{said}");
    says(&mut peer, "g SUBSCRIBE Archive/2025", &["g OK"]);
    says(&mut peer, "h LSUB \"\" %", &["* LSUB (\\Noselect) \"/\" Archive\n"]);
    says(&mut peer, "i LIST (SUBSCRIBED) \"\" *", &["\\Subscribed) \"/\" Archive/2025\n"]);
    says(
        &mut peer,
        "j LIST (SUBSCRIBED RECURSIVEMATCH) \"\" %",
        &["\"/\" Archive (\"CHILDINFO\" (\"SUBSCRIBED\"))\n"],
    );
    says(
        &mut peer,
        "k LIST \"\" Sent RETURN (STATUS (MESSAGES))",
        &["* STATUS Sent (MESSAGES 0)\n"],
    );
    says(&mut peer, "l RENAME Archive Alt", &["l OK"]);
    says(&mut peer, "m LIST \"\" Alt*", &["\"/\" Alt\n", "\"/\" Alt/2025\n"]);
    says(&mut peer, "n SELECT Alt/2025", &["n OK"]);
    says(&mut peer, "o DELETE Alt/2025", &["o NO [INUSE]"]);
    says(&mut peer, "p UNSELECT", &["p OK"]);
    says(&mut peer, "q DELETE Alt/2025", &["q OK"]);
    says(&mut peer, "r DELETE Alt/2025", &["r NO [NONEXISTENT]"]);
    says(&mut peer, "s DELETE INBOX", &["s NO [CANNOT]"]);
    says(&mut peer, "t CREATE ../x", &["t NO [CANNOT]"]);
    says(&mut peer, "u CREATE B&APw-cher", &["u OK"]);
    says(&mut peer, "v LIST \"\" B*", &["B&APw-cher\n"]);
    says(&mut peer, "w NAMESPACE", &["* NAMESPACE ((\"\" \"/\")) NIL NIL\n"]);
}

#[test]
fn names_of_folders_are_told_as_the_client_writes_them() {
    let (_site, _server, address) = host();
    let mut peer = login(address);
    says(&mut peer, "a CREATE B&APw-cher", &["a OK"]);
    let command = "b CREATE B&APw-cher";
    says(&mut peer, command, &["b NO [ALREADYEXISTS] there is a folder B&APw-cher already\n"]);
    says(
        &mut peer,
        "c SELECT R&-D/&U,BTFw-",
        &["c NO [NONEXISTENT] there is no folder R&-D/&U,BTFw-\n"],
    );
    says(
        &mut peer,
        "d CREATE &AOQ-.lock",
        &["d NO [CANNOT] \"&AOQ-.lock\" is no name of a folder"],
    );
    says(&mut peer, "e ENABLE IMAP4rev2", &["e OK"]);
    let command = "f CREATE \"B\u{fc}cher\"";
    says(&mut peer, command, &["f NO [ALREADYEXISTS] there is a folder B\u{fc}cher already\n"]);
    let command = "g SELECT \"R&D/\u{53f0}\u{5317}\"";
    says(&mut peer, command, &["g NO [NONEXISTENT] there is no folder R&D/\u{53f0}\u{5317}\n"]);
}

#[test]
fn an_idle_client_hears_of_mail_and_of_what_others_do() {
    let (site, _server, address) = host();
    let (mut idle, mut other) = (select(address), select(address));
    assert!(ask(&mut idle, "a IDLE").starts_with('+'));
    let begun = Instant::now();
    site.local_deliver("hunt", "x@example.net", b"Subject: new\n\nnew\n").expect(0);
    assert_eq!(idle.line(), "* 3 EXISTS");
    assert!(begun.elapsed() < Duration::from_secs(1));
    assert!(idle.line().ends_with("RECENT"));
    ask(&mut other, "b STORE 1 +FLAGS (\\Answered)");
    assert_eq!(idle.line(), "* 1 FETCH (FLAGS (\\Answered \\Recent))");
    ask(&mut other, "c STORE 1 +FLAGS.SILENT (\\Deleted)");
    assert_eq!(idle.line(), "* 1 FETCH (FLAGS (\\Answered \\Deleted \\Recent))");
    ask(&mut other, "d EXPUNGE");
    assert_eq!(idle.line(), "* 1 EXPUNGE");
    assert_eq!(idle.line(), "* 2 RECENT");
    idle.send("DONE\r\n");
    assert_eq!(idle.line(), "a OK that was it");
}

#[test]
fn a_session_that_is_asked_to_end_leaves_its_marks_in_the_mailbox() {
    let (site, server, address) = host();
    // What we deliver has room for them.
    site.local_deliver("hunt", "x@example.net", b"Subject: new\n\nnew\n").expect(0);
    let mut peer = select(address);
    says(&mut peer, "a STORE 3 +FLAGS (\\Flagged)", &["a OK"]);
    let spool = String::from_utf8(site.spool("hunt")).unwrap();
    assert!(!spool.contains("X-Status: F"), "{spool}");
    assert!(ask(&mut peer, "b IDLE").starts_with('+'));
    for session in server.monitors() {
        kill(Pid::from_raw(session), Signal::SIGTERM).unwrap();
    }
    assert!(peer.line().starts_with("* BYE "));
    server.wait_for_log("end=asked to end");
    let spool = String::from_utf8(site.spool("hunt")).unwrap();
    assert!(spool.contains("X-Status: F"), "{spool}");
}

#[test]
fn clients_that_we_did_not_write_get_along_with_it() {
    let (site, _server, address) = host();
    let port = address.port();
    if need("curl") {
        let url = format!("imap://127.0.0.1:{port}/INBOX;UID=1");
        let ran = run(Command::new("curl").args(["-s", "-u", "hunt:Watts?Watt?", &url]), b"");
        assert!(ran.expect(0).text().contains("Subject: first"));
    }
    if need("python3") {
        let script = format!(
            "import imaplib\nm = imaplib.IMAP4('127.0.0.1', {port})\nm.login('hunt', 'Watts?Watt?')\n\
             assert m.select()[1] == [b'2']\n\
             assert m.search(None, 'SUBJECT', 'first')[1] == [b'1']\n\
             assert m.fetch('1', '(RFC822)')[1][0][1].endswith(b'One.\\r\\n')\n\
             assert m.append('INBOX', '', None, b'Subject: z\\r\\n\\r\\nz\\r\\n')[0] == 'OK'\n\
             assert m.noop()[0] == 'OK'\nassert m.logout()[0] == 'BYE'\n"
        );
        run(Command::new("python3").args(["-c", &script]), b"").expect(0);
    }
    if need("mbsync") {
        let here = site.path().join("mbsync");
        fs::create_dir(&here).unwrap();
        let text = format!(
            "IMAPAccount a\nHost 127.0.0.1\nPort {port}\nUser hunt\nPass Watts?Watt?\nSSLType None\n\
             AuthMechs LOGIN\n\nIMAPStore far\nAccount a\n\nMaildirStore near\nPath {here}/mail/\n\
             Inbox {here}/mail/INBOX\nSubFolders Verbatim\n\nChannel c\nFar :far:\nNear :near:\n\
             Patterns *\nCreate Both\nExpunge Both\nSyncState *\n",
            here = here.display()
        );
        fs::create_dir(here.join("mail")).unwrap();
        fs::write(here.join("rc"), text).unwrap();
        let sync = || {
            let rc = here.join("rc");
            let ran = run(Command::new("mbsync").arg("-c").arg(rc).args(["-V", "-a"]), b"");
            ran.expect(0)
        };
        sync();
        let files = |part: &str| fs::read_dir(here.join("mail/INBOX").join(part)).unwrap();
        let new: Vec<_> = files("new").collect();
        let there = site.messages("hunt").len();
        assert_eq!(new.len() + files("cur").count(), there);
        // A message that is new there, and a flag, come to us.
        fs::write(here.join("mail/INBOX/new/1.x.y"), "Subject: ours\n\nours\n").unwrap();
        let first = new[0].as_ref().unwrap().path();
        let name = first.file_name().unwrap().to_str().unwrap().split(":2,").next().unwrap();
        fs::rename(&first, here.join("mail/INBOX/cur").join(format!("{name}:2,FS"))).unwrap();
        sync();
        assert_eq!(site.messages("hunt").len(), there + 1);
        let mut peer = select(address);
        says(&mut peer, "a SEARCH RETURN (COUNT) FLAGGED SEEN", &["COUNT 1\n"]);
        ask(&mut peer, "b LOGOUT");
        let before = site.spool("hunt");
        sync();
        assert_eq!(site.spool("hunt").len(), before.len());
    }
}
