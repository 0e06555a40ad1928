//! Mailboxes at which a delivery is watched: the mail that was there before must stand there byte
//! for byte, and behind it nothing but whole messages.
//!
//! What our delivery makes of a message is told here once more, by somebody who shares nothing with
//! it.

use std::fmt::Write;
use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::is_root;
use super::site::{Plan, Site};

/// Whom all these messages are from, and to.
pub const SENDER: &str = "a@example.org";
pub const USER: &str = "hunt";

/// The two kinds of mailboxes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Mbox,
    Maildir,
}

pub const FORMS: [Form; 2] = [Form::Mbox, Form::Maildir];

/// Who runs `local-deliver`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// The user whose mailbox it is.
    User,
    /// Root, who becomes that user.
    Root,
}

/// The callers that there can be here.
pub fn callers() -> &'static [Who] {
    if is_root() { &[Who::User, Who::Root] } else { &[Who::User] }
}

/// A message of about so many bytes, with lines that need care on the way.
pub fn message(number: usize, size: usize) -> Vec<u8> {
    let mut text = format!("From: {SENDER}\nSubject: {number}\n\n.\nFrom here on\n").into_bytes();
    for line in 0.. {
        if text.len() >= size {
            break;
        }
        text.extend_from_slice(format!("line {line} of message {number}, to the end\n").as_bytes());
    }
    text
}

/// An mbox that was there before, with what neighbours write.
pub fn older() -> Vec<u8> {
    b"From someone@example.org Mon Jun 21 03:15:20 2004\n\
      From: someone@example.org\nSubject: older\nStatus: RO\n\nAn older message.\n\n"
        .to_vec()
}

const OLDER_NAME: &str = "cur/1087787720.1.example:2,S";
const OLDER_FILE: &[u8] = b"Subject: older\n\nAn older message.\n";

impl Form {
    /// Says in the configuration that the users' inboxes are of this kind.
    pub fn plan(self) -> Plan {
        match self {
            Self::Mbox => Site::plan().in_memory(),
            Self::Maildir => Site::plan().in_memory().set("paths", "inbox", "\"%h/Maildir/\""),
        }
    }

    /// A site whose user has an inbox of this kind, with older mail.
    pub fn site(self) -> Site {
        let site = self.plan().build();
        self.fill(&self.inbox(&site));
        site
    }

    /// The inbox.
    pub fn inbox(self, site: &Site) -> PathBuf {
        match self {
            Self::Mbox => site.inbox(USER),
            Self::Maildir => site.home(USER).join("Maildir"),
        }
    }

    /// Makes a mailbox that has the older mail and nothing else.
    pub fn fill(self, path: &Path) {
        match self {
            Self::Mbox => {
                fs::write(path, older()).unwrap();
                give(path, 0o600);
            }
            Self::Maildir => {
                let _ = fs::remove_dir_all(path);
                directory(path);
                for part in ["tmp", "new", "cur"] {
                    directory(&path.join(part));
                }
                fs::write(path.join(OLDER_NAME), OLDER_FILE).unwrap();
                give(&path.join(OLDER_NAME), 0o600);
            }
        }
    }

    /// Which of these messages stand in a mailbox behind the older mail; they must be whole.
    pub fn found(self, path: &Path, messages: &[&[u8]]) -> Result<Vec<usize>, String> {
        match self {
            Self::Mbox => in_file(path, &older(), messages),
            Self::Maildir => {
                let old = fs::read(path.join(OLDER_NAME)).unwrap_or_default();
                if old != OLDER_FILE {
                    return Err(format!("the older message is {}", old.escape_ascii()));
                }
                in_directories(path, messages)
            }
        }
    }

    /// That a message stands in a mailbox so many times, and nothing is left beside it: for a
    /// delivery that could still act.
    pub fn has(self, path: &Path, message: &[u8], times: usize) -> Result<(), String> {
        let found = self.found(path, &[message])?;
        let left = match self {
            Self::Mbox => path.with_extension("lock").exists(),
            Self::Maildir => fs::read_dir(path.join("tmp")).is_ok_and(|tmp| tmp.count() > 0),
        };
        if left {
            return Err("a lock or a temporary file is left".into());
        }
        if found.len() == times {
            return Ok(());
        }
        Err(format!("the message is there {} times ({times} is right)", found.len()))
    }
}

/// `local-deliver` for the user.
pub fn local_deliver(site: &Site) -> Command {
    let mut command = site.command("local-deliver");
    command.args(["-f", SENDER, "-d", USER]);
    command
}

impl Who {
    /// Lets a command run as this caller.
    pub fn run_by(self, site: &Site, command: &mut Command) {
        if self == Self::User {
            site.become_user(command, USER);
        }
    }
}

/// Makes a directory of the user's.
pub fn directory(path: &Path) {
    let _ = fs::create_dir(path);
    give(path, 0o700);
}

/// Makes something the user's, with this mode.
pub fn give(path: &Path, mode: u32) {
    if is_root() {
        let account = Site::account(USER);
        chown(path, Some(account.uid), Some(account.gid)).unwrap();
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Writes the user's `.forward`.
pub fn forward(site: &Site, text: &str) {
    let path = site.home(USER).join(".forward");
    fs::write(&path, text).unwrap();
    give(&path, 0o600);
}

/// The fields that every delivery puts on top.
fn trace() -> String {
    format!("Return-Path: <{SENDER}>\nDelivered-To: {USER}@smkwlab.net\n")
}

/// A message as its file in a Maildir has it.
pub fn in_maildir(message: &[u8]) -> Vec<u8> {
    [trace().as_bytes(), message].concat()
}

/// A message as an mbox has it, behind its From_ line; the first one has more room for keywords.
pub fn in_mbox(message: &[u8], first: bool) -> Vec<u8> {
    let end = match message.strip_prefix(b"\n") {
        Some(_) => 0,
        None => message.windows(2).position(|two| two == b"\n\n").unwrap() + 1,
    };
    let (header, rest) = message.split_at(end);
    let mut body = Vec::new();
    let mut quoted = false;
    for line in rest[1..].split_inclusive(|byte| *byte == b'\n') {
        let bare = line.iter().position(|byte| *byte != b'>').unwrap_or(line.len());
        if line[bare..].starts_with(b"From ") {
            quoted = true;
            body.push(b'>');
        }
        body.extend_from_slice(line);
    }
    let mut stored = trace();
    writeln!(stored, "Content-Length: {}", body.len()).unwrap();
    if quoted {
        stored.push_str("X-Mbox-Quoted: yes\n");
    }
    let room = if first { 150 } else { 90 };
    for (field, width) in [("Status", 10), ("X-Status", 10), ("X-Keywords", room)] {
        writeln!(stored, "{field}:{:width$}", "").unwrap();
    }
    [stored.as_bytes(), header, b"\n", &body, b"\n"].concat()
}

/// What is left behind a From_ line for mail of [`SENDER`].
pub fn behind_from_line(text: &[u8]) -> Option<&[u8]> {
    let rest = text.strip_prefix(format!("From {SENDER} ").as_bytes())?;
    // As ctime(3) has it: 24 characters.
    (rest.get(24) == Some(&b'\n')).then(|| &rest[25..])
}

/// Which of these messages stand in an mbox, in their order there, behind what was there before.
pub fn in_file(path: &Path, before: &[u8], messages: &[&[u8]]) -> Result<Vec<usize>, String> {
    let now = fs::read(path).unwrap_or_default();
    let shown = |text: &[u8]| {
        let start = text.len().min(300);
        format!("{} bytes: {}", text.len(), text[..start].escape_ascii())
    };
    let mut rest = now
        .strip_prefix(before)
        .ok_or_else(|| format!("what was there before was changed: {}", shown(&now)))?;
    let mut found = Vec::new();
    while !rest.is_empty() {
        let first = before.is_empty() && found.is_empty();
        let next = behind_from_line(rest).and_then(|text| {
            let stored = messages.iter().map(|message| in_mbox(message, first));
            let mut stored = stored.enumerate();
            stored.find_map(|(number, stored)| Some((number, text.strip_prefix(&stored[..])?)))
        });
        let Some((number, behind)) = next else {
            return Err(format!("no whole message: {}", shown(rest)));
        };
        found.push(number);
        rest = behind;
    }
    Ok(found)
}

/// Which of these messages stand in `new` of a Maildir, each with its true size in its name.
pub fn in_directories(path: &Path, messages: &[&[u8]]) -> Result<Vec<usize>, String> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(path.join("new")) else {
        return Ok(found);
    };
    for entry in entries {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let text = fs::read(&path).unwrap();
        // A line that ends in CRLF as it is gets no second CR.
        let bare = |at: &usize| text[*at] == b'\n' && (*at == 0 || text[*at - 1] != b'\r');
        let bare = (0..text.len()).filter(bare).count();
        let sizes = format!(",S={},W={}", text.len(), text.len() + bare);
        let number = messages.iter().position(|message| in_maildir(message) == text);
        match number {
            Some(number) if name.ends_with(&sizes) => found.push(number),
            Some(_) => return Err(format!("{name} has not {sizes}")),
            None => return Err(format!("new/{name} is torn: {} bytes", text.len())),
        }
    }
    Ok(found)
}
