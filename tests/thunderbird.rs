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
        let servers = [imapd, smtpd, other];
        let (_pair, _servers) = (pair, servers);
        Self { site, authority, desk, directory, _pair, _servers, imaps, submission, imap }
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

    /// Hunt's other program, which has selected a mailbox.
    fn other(&self, mailbox: &str) -> Peer {
        let mut peer = Peer::connect(self.imap);
        peer.line();
        assert!(peer.imap("a LOGIN hunt Watts?Watt?").contains("a OK "));
        assert!(peer.imap(&format!("b SELECT {mailbox}")).contains("b OK "));
        peer
    }

    /// Waits until a search of the other program's finds as many as that.
    #[track_caller]
    fn wait_for(&self, mailbox: &str, count: usize, criteria: &str) {
        let mut peer = self.other(mailbox);
        let wanted = format!("COUNT {count}\n");
        wait_until(&format!("{count} of {criteria} in {mailbox}"), || {
            let said = peer.imap(&format!("c UID SEARCH RETURN (COUNT) {criteria}"));
            assert!(said.contains("c OK "), "{said}");
            said.contains(&wanted).then_some(())
        });
    }
}

#[test]
fn a_day_with_thunderbird() {
    if !Office::possible() {
        return;
    }
    let office = Office::new();
    let mut other = office.other("INBOX");
    assert!(other.imap("c CREATE Lists/rust").contains("c OK "));
    assert!(other.imap("d SUBSCRIBE Lists/rust").contains("d OK "));
    assert!(other.imap("e COPY 1 Lists/rust").contains("e OK "));

    let mut thunderbird = office.thunderbird(false);
    thunderbird.does(&format!("trust({})", quoted(&office.authority)));
    thunderbird.does("remember('hunt', 'Watts?Watt?')");
    thunderbird.does("openInbox()");
    it_shows_folders_and_messages(&mut thunderbird);
    it_finds_what_is_encoded(&mut thunderbird);
    new_mail_appears_by_itself(&office, &mut thunderbird);
    nothing_was_refused(&thunderbird);
    thunderbird.quit();
}

fn it_shows_folders_and_messages(thunderbird: &mut Thunderbird) {
    thunderbird.does("lists('INBOX', ['plain', '日本語'])");
    thunderbird.does("read('INBOX', 'plain', 'One.')");
    let attached = thunderbird.does("read('INBOX', '日本語', '下川さん')");
    assert_eq!(attached, "numbers");
    let folders = thunderbird.does("folders()");
    assert_eq!(folders, "INBOX\nLists\nLists/rust\nTrash");
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

/// Not one of its commands was answered NO or BAD.
fn nothing_was_refused(thunderbird: &Thunderbird) {
    let said = thunderbird.said();
    let refused = said.iter().find(|line| {
        let words: Vec<&str> = line.split(' ').collect();
        matches!(words[..], [_, "S:", _, "NO" | "BAD", ..])
    });
    assert_eq!(refused, None, "{}", said.join("\n"));
}
