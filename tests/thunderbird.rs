//! Debian's Thunderbird as a person uses it, beside imapd and smtpd: without a screen, but with its
//! own window, folder list, reader and IMAP engine.
//!
//! As root it runs on a host that reaches nobody but itself; without root, its settings alone keep it
//! off the network.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

#[path = "thunderbird/marionette.rs"]
mod marionette;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use marionette::{Thunderbird, quoted};
use support::lan::Host;
use support::peer::Peer;
use support::run::Server;
use support::site::Site;
use support::tls::Pair;
use support::transcript::matches;
use support::{is_root, need, wait_until};

/// Two that lie there when it comes for the first time: what is to be found is in no byte of them.
const SPOOL: &[u8] = b"From s@example.net Thu Jan  1 10:00:00 2026\n\
    From: Sender <s@example.net>\nTo: hunt@smkwlab.net\nSubject: plain\n\
    Date: Thu, 1 Jan 2026 10:00:00 +0000\nMessage-ID: <1@example.net>\n\nOne.\n\n\
    From s@example.net Fri Jan  2 10:00:00 2026\n\
    From: =?ISO-2022-JP?B?GyRCMjxAbhsoQg==?= <s@example.net>\nTo: hunt@smkwlab.net\n\
    Subject: =?ISO-2022-JP?B?GyRCRnxLXDhsGyhC?=\nDate: Fri, 2 Jan 2026 10:00:00 +0000\n\
    Message-ID: <2@example.net>\nMIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=b\n\n\
    --b\nContent-Type: text/plain; charset=ISO-2022-JP\n\n\x1b$B2<@n$5$s\x1b(B\n--b\n\
    Content-Type: application/octet-stream; name=numbers\n\
    Content-Disposition: attachment; filename=numbers\n\
    Content-Transfer-Encoding: base64\n\nAAECAwQ=\n--b--\n\n";

const NEW: &[u8] = b"From: x@example.net\nSubject: new\nMessage-ID: <3@example.net>\n\nNew.\n";

/// A site with all that a mail program for people needs, and the desk where it runs.
struct Office {
    site: Site,
    authority: String,
    /// Where it runs, as root.
    desk: Option<Host>,
    directory: PathBuf,
    _pair: Pair,
    _servers: [Server; 3],
    imaps: SocketAddr,
    submission: SocketAddr,
    /// In the clear, for what others do.
    imap: SocketAddr,
}

impl Office {
    fn possible() -> bool {
        need("thunderbird") && (!is_root() || Host::possible_alone())
    }

    fn new() -> Self {
        let (pair, authority) = Pair::issued("localhost");
        let plan = Site::plan().set("smtp", "auth", "true");
        let site = pair.plan_for("imap.tls", pair.plan(plan)).build();
        site.fill("hunt", SPOOL);
        let directory = site.path().join("desk");
        std::fs::create_dir(&directory).unwrap();
        let desk = is_root().then(|| Host::alone(&directory));
        let listen = || match &desk {
            Some(desk) => desk.listen(),
            None => TcpListener::bind("127.0.0.1:0").unwrap(),
        };
        let serve = |name, word| {
            let listener = listen();
            let address = listener.local_addr().unwrap();
            (site.serve_word_on(name, word, listener), address)
        };
        let (imapd, imaps) = serve("imapd", "imaps");
        let (smtpd, submission) = serve("smtpd", "submission");
        let (other, imap) = site.serve("imapd");
        Self {
            site,
            authority,
            desk,
            directory,
            imaps,
            submission,
            imap,
            _pair: pair,
            _servers: [imapd, smtpd, other],
        }
    }

    /// Hunt comes to work.
    fn thunderbird(&self, asks_at_once: bool) -> Thunderbird {
        let text = |text: &str| format!("{text:?}");
        let settings = [
            ("mail.accountmanager.accounts", text("account1")),
            ("mail.accountmanager.defaultaccount", text("account1")),
            ("mail.account.account1.server", text("server1")),
            ("mail.account.account1.identities", text("id1")),
            ("mail.server.server1.type", text("imap")),
            ("mail.server.server1.name", text("Mail")),
            ("mail.server.server1.hostname", text("localhost")),
            ("mail.server.server1.port", self.imaps.port().to_string()),
            ("mail.server.server1.userName", text("hunt")),
            // TLS from the first byte on; a password.
            ("mail.server.server1.socketType", "3".into()),
            ("mail.server.server1.authMethod", "3".into()),
            ("mail.server.server1.directory-rel", text("[ProfD]ImapMail/localhost")),
            ("mail.server.server1.login_at_startup", asks_at_once.to_string()),
            // What is new it hears by IDLE, or not at all.
            ("mail.server.server1.check_new_mail", "false".into()),
            ("mail.identity.id1.fullName", text("Hunt")),
            ("mail.identity.id1.useremail", text("hunt@smkwlab.net")),
            ("mail.identity.id1.smtpServer", text("smtp1")),
            ("mail.identity.id1.valid", "true".into()),
            ("mail.identity.id1.fcc_folder", text("imap://hunt@localhost/Sent")),
            ("mail.identity.id1.draft_folder", text("imap://hunt@localhost/Drafts")),
            ("mail.smtpservers", text("smtp1")),
            ("mail.smtpserver.smtp1.hostname", text("localhost")),
            ("mail.smtpserver.smtp1.port", self.submission.port().to_string()),
            ("mail.smtpserver.smtp1.username", text("hunt")),
            // STARTTLS, and not without it.
            ("mail.smtpserver.smtp1.try_ssl", "2".into()),
            ("mail.smtpserver.smtp1.authMethod", "3".into()),
        ];
        Thunderbird::start(&self.directory, &settings, self.desk.as_ref())
    }

    /// Hunt's other program.
    fn other(&self) -> Peer {
        let mut peer = Peer::connect(self.imap);
        peer.line();
        done(&mut peer, "LOGIN hunt Watts?Watt?");
        peer
    }

    /// Waits until the other program finds as many as that.
    #[track_caller]
    fn wait_for(&self, mailbox: &str, count: usize, criteria: &str) {
        let mut peer = self.other();
        let wanted = format!("COUNT {count}\n");
        wait_until(&format!("{count} of {criteria} in {mailbox}"), || {
            let selected = peer.imap(&format!("a EXAMINE {mailbox}")).contains("a OK ");
            let found = peer.imap(&format!("b UID SEARCH RETURN (COUNT) {criteria}"));
            (selected && found.contains(&wanted)).then_some(())
        });
    }
}

/// Has the other program do something that must succeed.
#[track_caller]
fn done(peer: &mut Peer, command: &str) {
    let said = peer.imap(&format!("a {command}"));
    assert!(said.contains("a OK "), "{command}: {said}");
}

/// Plays what it said once, with what it was told, a line each; `...` stands for anything.
#[track_caller]
fn play(address: SocketAddr, conversation: &str) {
    let mut peer = Peer::connect(address);
    for line in conversation.lines() {
        let said_by = |side| line.strip_prefix(side).map(str::trim_start);
        if let Some(command) = said_by("C:") {
            peer.send(format!("{command}\r\n"));
        } else if let Some(wanted) = said_by("S:") {
            let said = peer.line().trim_start().to_owned();
            assert!(matches(wanted, &said), "{wanted:?}: {}", peer.dialogue());
        }
    }
}

#[test]
fn what_it_says_first_is_answered_as_it_expects() {
    let site = Site::new();
    site.fill("hunt", SPOOL);
    let (_server, address) = site.serve("imapd");
    play(address, include_str!("thunderbird/folders.txt"));
    play(address, include_str!("thunderbird/inbox.txt"));
}

#[test]
fn a_day_with_thunderbird() {
    if !Office::possible() {
        return;
    }
    let office = Office::new();
    let mut other = office.other();
    done(&mut other, "SELECT INBOX");
    done(&mut other, "CREATE Lists/rust");
    done(&mut other, "SUBSCRIBE Lists/rust");
    done(&mut other, "COPY 1 Lists/rust");

    let mut thunderbird = office.thunderbird(false);
    thunderbird.does(&format!("trust({})", quoted(&office.authority)));
    thunderbird.does("remember('hunt', 'Watts?Watt?')");
    thunderbird.does("openInbox()");
    it_shows_folders_and_messages(&mut thunderbird);
    it_finds_what_is_encoded(&mut thunderbird);
    new_mail_appears_by_itself(&office, &mut thunderbird);
    marks_arrive_at_the_server(&office, &mut thunderbird);
    folders_and_what_is_put_into_them_arrive_there(&office, &mut thunderbird);
    what_is_written_is_sent_and_kept(&office, &mut thunderbird);
    what_others_do_is_seen(&office, &mut thunderbird);
    nothing_was_refused(&thunderbird);
    thunderbird.quit();
    what_was_done_in_its_absence_is_seen_at_once(&office);
}

fn it_shows_folders_and_messages(thunderbird: &mut Thunderbird) {
    thunderbird.does("lists('INBOX', ['plain', '日本語'])");
    thunderbird.does("read('INBOX', 'plain', 'One.')");
    thunderbird.does("read('INBOX', '日本語', '下川さん', ['numbers'])");
    thunderbird.does("folders('INBOX Lists Lists/rust Trash')");
    thunderbird.does("open('Lists/rust')");
    thunderbird.does("lists('Lists/rust', ['plain'])");
    thunderbird.does("read('Lists/rust', 'plain', 'One.')");
    thunderbird.does("open('INBOX')");
}

fn it_finds_what_is_encoded(thunderbird: &mut Thunderbird) {
    for (attribute, text, found) in [
        ("Body", "下川", "0\n日本語"),
        ("Subject", "日本", "0\n日本語"),
        ("Sender", "下川", "0\n日本語"),
        ("Body", "one", "0\nplain"),
        ("Subject", "nothing of that", "0"),
    ] {
        let search = format!("search('INBOX', '{attribute}', '{text}')");
        assert_eq!(thunderbird.does(&search), found, "{search}");
    }
}

fn new_mail_appears_by_itself(office: &Office, thunderbird: &mut Thunderbird) {
    wait_until("Thunderbird to be idle", || thunderbird.is_idle().then_some(()));
    office.site.local_deliver("hunt", "x@example.net", NEW).expect(0);
    thunderbird.does("lists('INBOX', ['plain', '日本語', 'new'])");
}

fn marks_arrive_at_the_server(office: &Office, thunderbird: &mut Thunderbird) {
    // What was read is marked so already.
    office.wait_for("INBOX", 2, "SEEN");
    thunderbird.does("mark('INBOX', 'new')");
    office.wait_for("INBOX", 1, "SUBJECT new SEEN FLAGGED KEYWORD $label1 KEYWORD later");
    thunderbird.does("unmark('INBOX', 'new')");
    office.wait_for("INBOX", 1, "SUBJECT new UNSEEN UNFLAGGED UNKEYWORD $label1 KEYWORD later");
}

fn folders_and_what_is_put_into_them_arrive_there(office: &Office, thunderbird: &mut Thunderbird) {
    thunderbird.does("create('下川 & co')");
    thunderbird.does("copy('INBOX', 'plain', '下川 & co', false)");
    thunderbird.does("copy('INBOX', 'new', '下川 & co', true)");
    let there = "\"&Tgtd3Q- &- co\"";
    office.wait_for(there, 2, "ALL");
    office.wait_for(there, 1, "SUBJECT new KEYWORD later");
    office.wait_for("INBOX", 0, "SUBJECT new");
    thunderbird.does("open('下川 & co')");
    thunderbird.does("lists('下川 & co', ['plain', 'new'])");
    thunderbird.does("remove('下川 & co', 'plain', false)");
    office.wait_for("Trash", 1, "SUBJECT plain");
    thunderbird.does("remove('下川 & co', 'new', true)");
    office.wait_for(there, 0, "ALL");
    thunderbird.does("rename('下川 & co', 'friends')");
    office.wait_for("friends", 0, "ALL");
    thunderbird.does("create('gone')");
    thunderbird.does("copy('INBOX', 'plain', 'gone', false)");
    thunderbird.does("throwAway('gone')");
    office.wait_for("Trash/gone", 1, "SUBJECT plain");
    thunderbird.does("emptyTrash()");
    office.wait_for("Trash", 0, "ALL");
    thunderbird.does("folders('INBOX Lists Lists/rust Trash friends')");
    let said = office.other().imap("a LIST \"\" Trash/*");
    assert!(said.starts_with("a OK "), "{said}");
    thunderbird.does("open('INBOX')");
}

fn what_is_written_is_sent_and_kept(office: &Office, thunderbird: &mut Thunderbird) {
    thunderbird.does("write('hunt@smkwlab.net', '返事', '本文です。', false)");
    office.wait_for("Sent", 1, "SEEN");
    let none: [&str; 0] = [];
    office.site.mta_queue(&none).expect(0);
    thunderbird.does("lists('INBOX', ['plain', '日本語', '返事'])");
    thunderbird.does("read('INBOX', '返事', '本文です。')");
    thunderbird.does("write('hunt@smkwlab.net', 'later', 'Not yet.', true)");
    office.wait_for("Drafts", 1, "DRAFT");
}

fn what_others_do_is_seen(office: &Office, thunderbird: &mut Thunderbird) {
    wait_until("Thunderbird to be idle", || thunderbird.is_idle().then_some(()));
    let mut other = office.other();
    done(&mut other, "SELECT INBOX");
    done(&mut other, "STORE 1 +FLAGS (\\Flagged \\Answered $label2)");
    thunderbird.does("marked('INBOX', 'plain', 'read flagged replied $label2')");
    done(&mut other, "STORE 2 +FLAGS (\\Deleted)");
    done(&mut other, "EXPUNGE");
    thunderbird.does("lists('INBOX', ['plain', '返事'])");
}

fn what_was_done_in_its_absence_is_seen_at_once(office: &Office) {
    let mut other = office.other();
    done(&mut other, "SELECT INBOX");
    done(&mut other, "STORE 1 -FLAGS (\\Flagged \\Seen)");
    done(&mut other, "STORE 2 +FLAGS (\\Deleted)");
    done(&mut other, "EXPUNGE");
    done(&mut other, "CREATE away");
    done(&mut other, "SUBSCRIBE away");
    done(&mut other, "DELETE friends");
    done(&mut other, "UNSUBSCRIBE friends");
    office.site.local_deliver("hunt", "x@example.net", NEW).expect(0);
    let mut thunderbird = office.thunderbird(true);
    thunderbird.does("lists('INBOX', ['plain', 'new'])");
    thunderbird.does("marked('INBOX', 'plain', 'replied $label2')");
    let folders = "Drafts INBOX Lists Lists/rust Sent Trash away";
    thunderbird.does(&format!("folders('{folders}')"));
    nothing_was_refused(&thunderbird);
    thunderbird.quit();
}

/// Not one of its commands was answered BAD, or NO but for this: what it is about to synchronize it
/// asks for by the old name when the folder has been renamed.
#[track_caller]
fn nothing_was_refused(thunderbird: &Thunderbird) {
    let said = thunderbird.said();
    let refused = said.iter().find(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        matches!(words[..], [_, "S:", _, "NO" | "BAD", why, ..] if why != "[NONEXISTENT]")
    });
    assert_eq!(refused, None, "{}", said.join("\n"));
}
