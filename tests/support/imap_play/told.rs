//! What a client was told of its mailbox, and what it may be told next (RFC 9051 section 7).

use std::collections::BTreeSet;

use super::node::{CONDITIONS, Node, Response};

/// A command that is not answered yet.
#[derive(Clone, Debug)]
struct Asked {
    tag: String,
    /// `FETCH`, `UID FETCH`.
    verb: String,
}

/// What was told.
#[derive(Default)]
pub struct Told {
    asked: Vec<Asked>,
    mailbox: Option<Mailbox>,
    rev2: bool,
    /// The line that is sent next ends an IDLE.
    idles: bool,
}

#[derive(Default)]
struct Mailbox {
    /// It is being selected.
    opening: bool,
    uids: Vec<Option<u32>>,
    exists: bool,
    recent: Option<u32>,
    flags: Option<BTreeSet<String>>,
    codes: BTreeSet<String>,
    listed: bool,
    uid_next: u32,
}

/// Commands behind which numbers may not change.
const NUMBERED: [&str; 3] = ["FETCH", "STORE", "SEARCH"];

impl Told {
    /// The client has sent a command.
    pub fn asks(&mut self, line: &str) {
        let mut words = line.split(' ').map(str::to_ascii_uppercase);
        let tag = line.split(' ').next().unwrap_or_default().to_owned();
        let verb = words.nth(1).unwrap_or_default();
        let verb =
            if verb == "UID" { format!("UID {}", words.next().unwrap_or_default()) } else { verb };
        let amid = self.asked.last().map(|asked| asked.verb.as_str());
        if std::mem::take(&mut self.idles) || amid == Some("AUTHENTICATE") {
            // DONE, or what is wrong there.
            return;
        }
        self.idles = verb == "IDLE";
        self.asked.push(Asked { tag, verb });
    }

    /// How many messages it was told of, where it has a mailbox.
    pub fn messages(&self) -> Option<usize> {
        self.mailbox.as_ref().map(|mailbox| mailbox.uids.len())
    }

    fn count(&self) -> u32 {
        self.mailbox.as_ref().map_or(0, |mailbox| u32::try_from(mailbox.uids.len()).unwrap())
    }

    /// Whether these words are a tag that is waited for.
    pub fn awaits(&self, tag: &str) -> bool {
        self.asked.iter().any(|asked| asked.tag == tag)
    }

    /// A response has come: what is wrong with it.
    pub fn hears(&mut self, response: &Response) -> Result<(), String> {
        let verb = self.asked.first().map(|asked| asked.verb.clone()).unwrap_or_default();
        let opens = matches!(verb.as_str(), "SELECT" | "EXAMINE");
        let (kind, number) = response.kind();
        if CONDITIONS.contains(&kind) && response.words.is_none() {
            return Err("no text behind a condition".into());
        }
        match response.word(0) {
            "+" => return Ok(()),
            "*" => {}
            tag => return self.answered(tag, response),
        }
        if kind == "BAD" && self.asked.first().is_some_and(|asked| !is_tag(&asked.tag)) {
            self.asked.remove(0);
            self.idles = false;
            return Ok(());
        }
        let closed = response.code().is_some_and(|code| code == [Node::Word("CLOSED".into())]);
        if closed {
            if !opens {
                return Err("CLOSED without a SELECT".into());
            }
            self.mailbox = None;
            return Ok(());
        }
        if opens && !self.mailbox.as_ref().is_some_and(|mailbox| mailbox.opening) {
            self.mailbox = Some(Mailbox { opening: true, ..Mailbox::default() });
        }
        let count = self.count();
        match (kind, number) {
            ("EXISTS", Some(number)) => {
                let mailbox = self.mailbox.as_mut().ok_or("EXISTS of no mailbox")?;
                if number < count {
                    return Err(format!("{number} EXISTS, but {count} were told of"));
                }
                mailbox.exists = true;
                mailbox.uids.resize(usize::try_from(number).unwrap(), None);
            }
            ("RECENT", Some(number)) => {
                let rev2 = self.rev2;
                let mailbox = self.mailbox.as_mut().ok_or("RECENT of no mailbox")?;
                if rev2 {
                    return Err("RECENT to who speaks IMAP4rev2".into());
                }
                mailbox.recent = Some(number);
            }
            ("EXPUNGE", Some(number)) => {
                if NUMBERED.contains(&verb.as_str()) || verb.is_empty() {
                    return Err(format!("EXPUNGE may not be told within {verb:?}"));
                }
                let mailbox = self.mailbox.as_mut().ok_or("EXPUNGE of no mailbox")?;
                if number == 0 || number > count {
                    return Err(format!("{number} EXPUNGE of {count}"));
                }
                mailbox.uids.remove(usize::try_from(number).unwrap() - 1);
            }
            ("FETCH", Some(number)) => {
                if number == 0 || number > count {
                    return Err(format!("FETCH of {number}, of {count}"));
                }
                self.fetched(number, response, verb.starts_with("UID "))?;
            }
            ("SEARCH", None) if verb == "SEARCH" => {
                let numbers = response.nodes.iter().skip(2).filter_map(|node| match node {
                    Node::Word(word) => word.parse::<u32>().ok(),
                    _ => None,
                });
                if let Some(wrong) = numbers.into_iter().find(|n| *n == 0 || *n > count) {
                    return Err(format!("SEARCH has found {wrong}, of {count}"));
                }
            }
            ("FLAGS", None) => {
                let Some(Node::List(list)) = response.nodes.get(2) else {
                    return Err("FLAGS without a list".into());
                };
                let flags = list.iter().filter_map(word).collect();
                if let Some(mailbox) = &mut self.mailbox {
                    mailbox.flags = Some(flags);
                }
            }
            ("LIST", None) => {
                if let Some(mailbox) = &mut self.mailbox {
                    mailbox.listed = true;
                }
            }
            ("ENABLED", None) => {
                self.rev2 |= response.nodes.contains(&Node::Word("IMAP4rev2".into()));
            }
            ("OK", None) => {
                if let (Some(code), Some(mailbox)) = (response.code(), &mut self.mailbox) {
                    let name = code.first().and_then(word).unwrap_or_default();
                    if name == "UIDNEXT" {
                        let next = code.get(1).and_then(word).unwrap_or_default();
                        mailbox.uid_next = next.parse().map_err(|_| "no UIDNEXT")?;
                    }
                    mailbox.codes.insert(name);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn fetched(&mut self, number: u32, response: &Response, by_uid: bool) -> Result<(), String> {
        let mailbox = self.mailbox.as_mut().ok_or("FETCH of no mailbox")?;
        let at = usize::try_from(number).unwrap() - 1;
        let items = response.items();
        if items.is_empty() {
            return Err("FETCH of nothing".into());
        }
        let mut has_uid = false;
        for (name, value) in items {
            match (name, value) {
                (Node::Word(name), Node::Word(value)) if name == "UID" => {
                    let uid: u32 = value.parse().map_err(|_| "no UID")?;
                    has_uid = true;
                    if mailbox.uids[at].is_some_and(|known| known != uid) {
                        return Err(format!("{number} has another UID: {uid}"));
                    }
                    let below = mailbox.uids[..at].iter().flatten().all(|other| *other < uid);
                    let above = mailbox.uids[at + 1..].iter().flatten().all(|other| *other > uid);
                    if uid == 0 || !below || !above {
                        return Err(format!("UIDs do not ascend: {uid}"));
                    }
                    mailbox.uids[at] = Some(uid);
                }
                (Node::Word(name), Node::List(flags)) if name == "FLAGS" => {
                    let known = mailbox.flags.as_ref().ok_or("flags before FLAGS")?;
                    for flag in flags.iter().filter_map(word) {
                        if flag == "\\RECENT" && self.rev2 {
                            return Err("\\Recent to who speaks IMAP4rev2".into());
                        }
                        if flag != "\\RECENT" && !known.contains(&flag) {
                            return Err(format!("{flag} was not in FLAGS"));
                        }
                    }
                }
                _ => {}
            }
        }
        if by_uid && !has_uid {
            return Err("an answer to a command of UIDs without a UID".into());
        }
        Ok(())
    }

    fn answered(&mut self, tag: &str, response: &Response) -> Result<(), String> {
        let Some(at) = self.asked.iter().position(|asked| asked.tag == tag) else {
            return Err(format!("no command has the tag {tag}, or it was answered before"));
        };
        let (verb, ok) = (self.asked.remove(at).verb, response.word(1) == "OK");
        self.idles &= verb != "IDLE";
        match verb.as_str() {
            "SELECT" | "EXAMINE" if ok => {
                let rev2 = self.rev2;
                let mailbox = self.mailbox.as_mut().ok_or("SELECT without a mailbox")?;
                mailbox.opening = false;
                let code = |code: &str| mailbox.codes.contains(code);
                let told = mailbox.exists
                    && mailbox.flags.is_some()
                    && ["UIDVALIDITY", "UIDNEXT", "PERMANENTFLAGS"].into_iter().all(code)
                    && mailbox.recent.is_some() != rev2
                    && (!rev2 || mailbox.listed);
                if !told {
                    return Err("SELECT does not tell all that it has to".into());
                }
                let word = response.code().and_then(|code| code.first()).and_then(word);
                let wanted = if verb == "SELECT" { "READ-WRITE" } else { "READ-ONLY" };
                if word.as_deref() != Some(wanted) {
                    return Err(format!("{verb} ends without {wanted}"));
                }
            }
            "SELECT" | "EXAMINE" if self.mailbox.as_ref().is_some_and(|m| m.opening) => {
                self.mailbox = None;
            }
            // A SELECT that fails leaves what was selected; one that is none leaves it alone.
            "SELECT" | "EXAMINE" if response.word(1) == "NO" => self.mailbox = None,
            "CLOSE" | "UNSELECT" if ok => self.mailbox = None,
            _ => {}
        }
        if let Some(mailbox) = &self.mailbox {
            let count = self.count();
            if mailbox.recent.is_some_and(|recent| recent > count) && verb == "NOOP" {
                return Err("more are recent than there are".into());
            }
        }
        Ok(())
    }
}

/// Whether an answer may begin with it.
fn is_tag(tag: &str) -> bool {
    let is_char = |byte: u8| byte.is_ascii_graphic() && !b"(){%*\"\\+".contains(&byte);
    (1..=255).contains(&tag.len()) && tag.bytes().all(is_char)
}

/// A word, in capitals.
fn word(node: &Node) -> Option<String> {
    match node {
        Node::Word(word) => Some(word.to_ascii_uppercase()),
        _ => None,
    }
}
