//! What is handed over to our delivery agent by programs that are not ours.

use std::fs;

use super::mbox;
use super::mta::Kind;
use super::site::{Plan, Site};

/// A quota in which there is room for little.
pub const QUOTA: &str = "65536";

/// A mailbox that leaves as good as none of it.
pub fn nearly_full() -> String {
    let text = "x".repeat(65_400);
    format!("From a@b.org Mon Jun 21 03:15:20 2004\n\n{text}\n\n")
}

/// A site of which another mail system is in charge, with the log of an installed one: nothing of
/// that is on standard error.
pub fn plan(kind: Kind) -> Plan {
    let domain = kind.domain();
    let domains = [domain, &format!("mx.{domain}")];
    Site::plan().named(domain, &domains).set("", "log", "\"syslog\"")
}

/// A message that has all its fields, so that nobody adds one.
pub fn message(subject: &str, text: &[u8]) -> Vec<u8> {
    let header = format!(
        "From: toshi@example.org\nTo: hunt@example.org\nSubject: {subject}\n\
         Date: Mon, 21 Jun 2004 03:15:20 +0900\nMessage-ID: <{subject}@example.org>\n\n"
    );
    [header.as_bytes(), text].concat()
}

/// What is hard on the way and in an mbox: dots, 8 bits, From_ lines, no text, a long line, some MB.
pub fn hard() -> Vec<Vec<u8>> {
    vec![
        message("dots", b".\n..\n.a dot\n...\n\n.\n"),
        message("eight", b"Gr\xfc\xdfe \xe3\x81\x93\xe3\x82\x93 \xff\n"),
        message("from", b"From here on\n\nFrom a@b.org Mon Jun 21 03:15:20 2004\n>From x\n\n\n"),
        message("empty", b""),
        message("long", &[&[b'x'; 998][..], b"\n", &[b'y'; 997], b"\n"].concat()),
        message("large", &b"a line of many, with nothing of interest in it\n".repeat(80_000)),
    ]
}

impl Site {
    /// The one message of a user with this subject.
    #[track_caller]
    pub fn with_subject(&self, user: &str, subject: &str) -> mbox::Message {
        let mut messages = self.messages(user);
        messages.retain(|message| message.field("Subject") == Some(subject));
        assert_eq!(messages.len(), 1, "{subject} for {user}");
        messages.remove(0)
    }

    /// Gives a user a `.forward`, in which `PIPED` is a file for a command to write to.
    pub fn forward(&self, user: &str, entries: &str) {
        let piped = self.home(user).join("piped");
        self.write_home(user, ".forward", &entries.replace("PIPED", piped.to_str().unwrap()));
    }

    /// How many messages of [`hard`] or [`message`] a command has written there.
    pub fn piped(&self, user: &str) -> usize {
        let text = fs::read(self.home(user).join("piped")).unwrap_or_default();
        String::from_utf8_lossy(&text).matches("\nSubject: ").count()
    }
}
