//! Mailboxes at which many sessions of IMAP work at once, and what has to hold for what they are told.
//!
//! Each message has a number that stands in it, from which its text follows. What may become of it
//! follows from the number, too ([`Class`]), and so does the one session that sets and takes off those
//! flags of it that are [`OWNED`], and therefore knows them.

mod quiet;
pub mod session;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};

use super::Dice;
use super::imap::{Imap, Value};
use super::run::{Server, run};
use super::site::Site;
use super::store::{Form, USER};

/// Flags that only the owner of a message sets and takes off.
pub const OWNED: [&str; 5] = ["\\flagged", "\\draft", "k1", "k2", "$label3"];

/// Flags that everybody does so with.
pub const SHARED: [&str; 3] = ["\\answered", "\\seen", "shared"];

/// Mailboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Folder {
    Inbox,
    Archive,
    /// One that is made, renamed and deleted, and whose messages may go at any time.
    Side,
}

impl Folder {
    /// Its names.
    pub fn names(self) -> &'static [&'static str] {
        match self {
            Self::Inbox => &["INBOX"],
            Self::Archive => &["Archive"],
            Self::Side => &["Side", "Above/Side"],
        }
    }

    fn stays(self) -> bool {
        self != Self::Side
    }
}

/// What may become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// It is moved, and so is always in one place.
    Single,
    /// It is copied and moved, and never deleted.
    Copied,
    /// Anything.
    Doomed,
}

impl Class {
    pub fn of(token: u32) -> Self {
        match token % 4 {
            0 => Self::Single,
            1 => Self::Copied,
            _ => Self::Doomed,
        }
    }
}

/// How often there may be such a message in mailboxes that stay, all who were ever there counted.
#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    possible: usize,
    /// It was acknowledged.
    certain: bool,
}

/// A message in a mailbox.
#[derive(Clone, Debug)]
struct One {
    token: u32,
    /// What was told of it, which never changes.
    facts: BTreeMap<String, Value>,
    /// Which session was told that it is `\Recent`.
    recent_to: Option<u64>,
    /// Somebody was told that it is there.
    is_certain: bool,
    /// Somebody may have removed it.
    may_go: bool,
    /// It was gone when all was quiet.
    is_gone: bool,
    /// All of it was read.
    is_read: bool,
    /// Its flags that are [`OWNED`], where its owner knows them.
    owned: Option<BTreeSet<String>>,
}

/// A mailbox: its UIDVALIDITY goes with it.
type Key = (Folder, u32);

#[derive(Debug, Default)]
struct Mailbox {
    messages: BTreeMap<u32, One>,
    /// UIDNEXT when all was quiet.
    uid_next: u32,
}

#[derive(Debug, Default)]
struct Model {
    sent: BTreeMap<u32, Sent>,
    mailboxes: BTreeMap<Key, Mailbox>,
    /// The UIDVALIDITY of mailboxes that stay.
    validity: BTreeMap<Folder, u32>,
}

impl Model {
    /// A UID is that of this message, now and for ever.
    fn see(&mut self, key: Key, uid: u32, token: u32) -> Result<&mut One, String> {
        if key.0.stays() {
            let validity = *self.validity.entry(key.0).or_insert(key.1);
            if validity != key.1 {
                return Err(format!("{key:?}: UIDVALIDITY was {validity}"));
            }
        }
        if !self.sent.contains_key(&token) {
            return Err(format!("nobody has sent message {token}"));
        }
        let mailbox = self.mailboxes.entry(key).or_default();
        let uid_next = mailbox.uid_next;
        if uid < uid_next && !mailbox.messages.contains_key(&uid) {
            return Err(format!("{key:?}: UID {uid} is new, and UIDNEXT was {uid_next} before"));
        }
        let one = mailbox.messages.entry(uid).or_insert_with(|| One {
            token,
            facts: BTreeMap::new(),
            recent_to: None,
            is_certain: false,
            may_go: false,
            is_gone: false,
            is_read: false,
            owned: None,
        });
        if one.token != token {
            return Err(format!("{key:?}: UID {uid} is {token}, and was {}", one.token));
        }
        if one.is_gone {
            return Err(format!("{key:?}: UID {uid}, message {token}, is there again"));
        }
        Ok(one)
    }

    fn one(&mut self, key: Key, uid: u32) -> Option<&mut One> {
        self.mailboxes.get_mut(&key)?.messages.get_mut(&uid)
    }

    fn token(&self, key: Key, uid: u32) -> Option<u32> {
        Some(self.mailboxes.get(&key)?.messages.get(&uid)?.token)
    }

    /// There may be so many more of a message.
    fn may_come(&mut self, token: u32, folder: Folder) {
        if folder.stays() {
            self.sent.entry(token).or_default().possible += 1;
        }
    }
}

/// What all sessions share.
pub struct Stress {
    pub site: Site,
    pub server: Server,
    pub address: SocketAddr,
    /// How many sessions there are.
    pub sessions: usize,
    model: Mutex<Model>,
    tokens: AtomicU32,
    selects: AtomicU64,
    commands: AtomicU64,
}

impl Stress {
    pub fn new(form: Form, sessions: usize) -> Self {
        let plan = match form {
            Form::Mbox => form.plan(),
            Form::Maildir => form.plan().set("paths", "folders", "\"%h/Maildir/\""),
        };
        let site = plan.set("imap", "max_connections_per_ip", "200").build();
        form.fill(&form.inbox(&site));
        if form == Form::Mbox {
            site.fill(USER, b"");
        } else {
            std::fs::remove_file(form.inbox(&site).join("cur/1087787720.1.example:2,S")).unwrap();
        }
        let (server, address) = site.serve("imapd");
        let mut first = Imap::log_in(address, USER, "Watts?Watt?");
        first.must("CREATE Archive");
        first.must("CREATE Above");
        first.must("LOGOUT");
        Self {
            site,
            server,
            address,
            sessions,
            model: Mutex::default(),
            tokens: AtomicU32::new(1),
            selects: AtomicU64::new(1),
            commands: AtomicU64::new(0),
        }
    }

    fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn log_in(&self) -> Imap {
        Imap::log_in(self.address, USER, "Watts?Watt?")
    }

    /// A message that nobody has sent yet.
    fn new_token(&self) -> u32 {
        let token = self.tokens.fetch_add(1, Ordering::Relaxed);
        self.model().sent.insert(token, Sent::default());
        token
    }

    /// Delivers a message.
    pub fn deliver(&self) {
        let token = self.new_token();
        self.model().may_come(token, Folder::Inbox);
        let mut command = self.site.local_deliver_command(USER, "sender@example.org");
        run(&mut command, &text(token)).expect(0);
        self.model().sent.entry(token).or_default().certain = true;
    }

    /// What there was to do, for the reader of the test's output.
    pub fn tell(&self, what: &str) {
        let model = self.model();
        let messages = model.mailboxes.values().map(|mailbox| mailbox.messages.len());
        super::note(&format!(
            "{what}: {} commands, {} messages sent, {} UIDs in {} mailboxes",
            self.commands.load(Ordering::Relaxed),
            model.sent.len(),
            messages.sum::<usize>(),
            model.mailboxes.len()
        ));
    }
}

/// A message, with LF line ends.
pub fn text(token: u32) -> Vec<u8> {
    let mut dice = Dice::new(u64::from(token) + 1);
    let lines = match dice.below(40) {
        0 => 5000,
        1..=3 => 300,
        _ => dice.below(30),
    };
    let mut body = String::new();
    for line in 0..lines {
        match dice.below(12) {
            0 => body.push_str("From the beginning of a line\n"),
            1 => body.push_str(">From there\n.\n"),
            2 => body.push('\n'),
            _ => writeln!(body, "{line}: {:x} of {token}", dice.next()).unwrap(),
        }
    }
    let mut text = format!(
        "From: \"Sender {token}\" <sender{token}@example.org>\nTo: hunt@smkwlab.net\n\
         Subject: message {token}\nDate: Mon, 21 Jun 2004 03:15:20 +0900\n\
         Message-ID: <{token}@stress.example>\nX-Token: {token}\n"
    );
    if token.is_multiple_of(3) {
        text.push_str("MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"b b\"\n\n");
        write!(text, "--b b\nContent-Type: text/plain; charset=utf-8\n\n{body}\n").unwrap();
        text.push_str("--b b\nContent-Type: application/octet-stream; name=x\n");
        text.push_str("Content-Transfer-Encoding: base64\n\nAAECAwQ=\n--b b--\n");
    } else {
        write!(text, "\n{body}This was message {token}.\n").unwrap();
    }
    text.into_bytes()
}

/// The same with CRLF.
pub fn sent_text(token: u32) -> Vec<u8> {
    String::from_utf8(text(token)).unwrap().replace('\n', "\r\n").into_bytes()
}

/// Whether this is all of a message, as it was sent or delivered.
fn is_whole(token: u32, found: &[u8]) -> bool {
    let Some(mut before) = found.strip_suffix(&sent_text(token)[..]) else {
        return false;
    };
    for field in ["Return-Path: <sender@example.org>\r\n", "Delivered-To: hunt@smkwlab.net\r\n"] {
        before = before.strip_prefix(field.as_bytes()).unwrap_or(before);
    }
    before.is_empty()
}
