//! A session of Dovecot's that stays, and our programs on the same mbox: it numbers messages in its
//! index alone, and takes every UID in the file for its own. One that is another's makes it forget
//! flags, number messages anew, and tear the file where it is just removing some.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::path::PathBuf;

use support::dovecot::{self, Imap};
use support::need;
use support::run::run;
use support::site::Site;

const USER: &str = "hunt";

/// A mailbox.
struct Shared {
    site: Site,
    configuration: PathBuf,
}

/// A mailbox, and a session of Dovecot's that has it open.
struct Alive {
    shared: Shared,
    imap: Imap,
}

impl Shared {
    /// With one message, of which Dovecot itself has written the UID.
    fn new() -> Self {
        let site = Site::new();
        site.fill(USER, b"");
        let configuration = dovecot::configuration(&site, USER);
        let shared = Self { site, configuration };
        shared.deliver_by_dovecot("a");
        assert_eq!(shared.uids_in_file(), [("a".into(), Some(1))]);
        shared
    }

    /// Begins a session of Dovecot's.
    fn open(self) -> Alive {
        let imap = Imap::open(&self.site, USER, &self.configuration).unwrap();
        Alive { shared: self, imap }
    }

    /// Mail that comes by our delivery agent.
    fn deliver(&self, name: &str) {
        let mut command = self.site.local_deliver_command(USER, "a@example.org");
        run(&mut command, message(name).as_bytes()).expect(0);
    }

    fn deliver_by_dovecot(&self, name: &str) {
        let mut lda = dovecot::lda(&self.site, USER, "a@example.org", &self.configuration);
        run(&mut lda, message(name).as_bytes()).expect(0);
    }

    /// Somebody reads his mail by POP3, and deletes these messages.
    fn pop(&self, deleted: &[u32]) {
        self.pop_and(deleted, || ());
    }

    /// The same, and something else before he ends.
    fn pop_and(&self, deleted: &[u32], meanwhile: impl FnOnce()) {
        let (server, mut peer) = self.site.session("popd");
        peer.line();
        peer.pop("USER hunt");
        assert!(peer.pop("PASS Watts?Watt?").starts_with("+OK"));
        for number in deleted {
            assert!(peer.pop(&format!("DELE {number}")).starts_with("+OK"));
        }
        meanwhile();
        assert!(peer.pop("QUIT").starts_with("+OK"));
        server.join();
    }

    /// The UIDs that stand in the file.
    fn uids_in_file(&self) -> Vec<(String, Option<u32>)> {
        let text = fs::read_to_string(self.site.inbox(USER)).unwrap();
        let messages = text.split("\nThis is ").collect::<Vec<_>>();
        let (_, messages) = messages.split_last().unwrap();
        let uid = |text: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix("X-UID:"));
            line.map(|uid| uid.trim().parse().unwrap())
        };
        messages.iter().map(|text| (name(text), uid(text))).collect()
    }
}

impl Alive {
    /// Mail that comes by our delivery agent, and the session takes note of it.
    fn deliver_seen(&mut self, names: &[&str]) {
        for name in names {
            self.shared.deliver(name);
            self.imap.command("NOOP").unwrap();
        }
    }

    fn store(&mut self, uid: u32, flag: &str) {
        self.imap.command(&format!("UID STORE {uid} +FLAGS ({flag})")).unwrap();
    }

    fn expunge(&mut self, uid: u32) {
        self.store(uid, "\\Deleted");
        self.imap.command("EXPUNGE").unwrap();
    }

    /// What the session has: names, UIDs and flags.
    fn shown(&mut self) -> Vec<(String, u32, Vec<String>)> {
        self.imap.command("NOOP").unwrap();
        let fetched = self.imap.fetch("1:*").unwrap().into_iter();
        let each = fetched.map(|fetched| {
            let mut flags = fetched.flags;
            flags.retain(|flag| flag != "\\Recent" && !flag.is_empty());
            (name(&String::from_utf8(fetched.message).unwrap()), fetched.uid, flags)
        });
        each.collect()
    }

    /// That it still has these messages with these UIDs and flags, also when it has looked at all of
    /// the file, and the next one, too.
    #[track_caller]
    fn holds(mut self, wanted: &[(&str, u32, &[&str])]) {
        let wanted: Vec<(String, u32, Vec<String>)> = wanted
            .iter()
            .map(|(name, uid, flags)| {
                let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
                ((*name).to_owned(), *uid, flags)
            })
            .collect();
        assert_eq!(self.shown(), wanted);
        // It looks at all of the file.
        self.imap.command("CHECK").unwrap();
        assert_eq!(self.shown(), wanted);
        self.imap.log_out();
        let mut next = self.shared.open();
        assert_eq!(next.shown(), wanted);
        // It has written its UIDs by now, and we have nothing to say against them.
        next.shared.pop(&[]);
        let uids: Vec<(String, Option<u32>)> =
            wanted.iter().map(|(name, uid, _)| (name.clone(), Some(*uid))).collect();
        assert_eq!(next.shared.uids_in_file(), uids);
        assert_eq!(next.shown(), wanted);
    }
}

/// A message; without a UID Dovecot knows it by its Message-ID.
fn message(name: &str) -> String {
    format!("Subject: {name}\nMessage-ID: <{name}@example.org>\n\nThis is {name}.\n")
}

fn name(text: &str) -> String {
    text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap().to_owned()
}

#[test]
fn a_uid_above_the_last_that_the_mailbox_names_is_believed_where_dovecot_wrote_it() {
    if !need("doveadm") {
        return;
    }
    let mut alive = Shared::new().open();
    alive.deliver_seen(&["b", "c"]);
    alive.expunge(2);
    assert_eq!(alive.shared.uids_in_file()[1], ("c".into(), Some(3)));
    alive.store(3, "\\Flagged");
    alive.shared.pop(&[]);
    alive.holds(&[("a", 1, &[]), ("c", 3, &["\\Flagged"])]);
}

#[test]
fn where_dovecot_may_have_given_a_uid_to_what_is_gone_none_is_written() {
    if !need("doveadm") {
        return;
    }
    let mut alive = Shared::new().open();
    alive.deliver_seen(&["b"]);
    alive.expunge(2);
    alive.deliver_seen(&["c"]);
    alive.store(3, "\\Flagged");
    alive.shared.pop(&[]);
    alive.holds(&[("a", 1, &[]), ("c", 3, &["\\Flagged"])]);
}

/// Who has given the messages their UIDs before one is removed.
#[derive(Clone, Copy, Debug, PartialEq)]
enum By {
    /// Dovecot, in its index alone.
    Session,
    /// We, in the file.
    Us,
    /// Dovecot, where it delivers: its messages have no room.
    Lda,
}

#[test]
fn what_we_remove_leaves_dovecot_the_uids_of_the_others() {
    if !need("doveadm") {
        return;
    }
    for by in [By::Session, By::Us, By::Lda] {
        for removed in [1, 2, 3] {
            let shared = Shared::new();
            let mut alive = match by {
                By::Session => {
                    let mut alive = shared.open();
                    alive.deliver_seen(&["b", "c"]);
                    alive
                }
                By::Us => {
                    shared.deliver("b");
                    shared.deliver("c");
                    shared.pop(&[]);
                    shared.open()
                }
                By::Lda => {
                    shared.deliver_by_dovecot("b");
                    shared.deliver_by_dovecot("c");
                    shared.open()
                }
            };
            let in_file = (by != By::Session).then_some(3);
            assert_eq!(alive.shared.uids_in_file()[2], ("c".into(), in_file));
            let mut wanted: Vec<(&str, u32, &[&str])> = vec![
                ("a", 1, &["\\Seen"]),
                ("b", 2, &["\\Flagged"]),
                ("c", 3, &["\\Answered"]),
                ("d", 4, &[]),
            ];
            for (_, uid, flags) in &wanted[..3] {
                alive.store(*uid, flags[0]);
            }
            // It has only grown since it was looked at.
            alive.shared.pop_and(&[removed], || alive.shared.deliver_by_dovecot("d"));
            wanted.remove(removed as usize - 1);
            alive.holds(&wanted);
        }
    }
}
