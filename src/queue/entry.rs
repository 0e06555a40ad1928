//! What a queue file says (hikyaku-queue(5)), as bytes and as values; pure.
//!
//! ```text
//! hikyaku-queue 1 ENVLENGTH ENVCRC CONTENTLENGTH CONTENTCRC      60 bytes, hexadecimal numbers
//! arrived 1087755320                                             the envelope: key, space, value
//! sender <toshi@tenbin.org>
//! recipient <example@smkwlab.net>
//! notify SUCCESS,FAILURE
//! (content, with CRLF line ends)
//! CRC 1087755620 0 deferred 4.2.0 mailbox is locked              the history, appended
//! ```
//!
//! A value can't hold a line end: addresses are parsed ones, and texts are escaped. Our own files
//! are re-validated when they are read, like any other input.

use std::fmt::Write as _;

use crate::message::Address;
use crate::message::address::Alphabet;
use crate::smtp::dsn::{EnvelopeId, Notify, OriginalRecipient, Ret};
use crate::smtp::{Body, Recipient};

/// Length of the first line, its line end included.
pub const HEAD: usize = 60;
/// The longest envelope that is read.
pub const MAX_ENVELOPE: usize = 4 << 20;
/// The longest history that is read.
pub const MAX_HISTORY: usize = 16 << 20;
/// The longest text of a history line.
const MAX_TEXT: usize = 1000;

/// The first line: lengths and checksums of the parts that do not change any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Bytes of the envelope.
    pub envelope_length: u32,
    /// CRC-32 of the envelope.
    pub envelope_crc: u32,
    /// Bytes of the content.
    pub content_length: u64,
    /// CRC-32 of the content.
    pub content_crc: u32,
}

impl Head {
    /// The line.
    pub fn encode(&self) -> String {
        format!(
            "hikyaku-queue 1 {:08x} {:08x} {:016x} {:08x}\n",
            self.envelope_length, self.envelope_crc, self.content_length, self.content_crc
        )
    }

    /// Reads the line back; `None` where it is anything else than `encode` would write.
    pub fn parse(line: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(line).ok()?;
        let mut words = text.strip_prefix("hikyaku-queue 1 ")?.strip_suffix('\n')?.split(' ');
        let mut number = || u64::from_str_radix(words.next()?, 16).ok();
        let head = Self {
            envelope_length: number()?.try_into().ok()?,
            envelope_crc: number()?.try_into().ok()?,
            content_length: number()?,
            content_crc: number()?.try_into().ok()?,
        };
        (head.encode() == text).then_some(head)
    }
}

/// How a message came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// By SMTP; its Received field is in the content.
    Smtp,
    /// By sendmail, from this user id; pickup adds the Received field.
    User(u32),
    /// Made here: a bounce.
    Local,
    /// Made here of a message for this address, which stands for others: none of the recipients is
    /// an alias any more.
    Alias(Address),
    /// Likewise, for the commands and files that its recipients stand for.
    Programs,
}

/// Who sends what to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// Seconds since 1970.
    pub arrived: u64,
    /// How it came in.
    pub origin: Origin,
    /// The reverse-path; `None` is the null path.
    pub sender: Option<Address>,
    /// `BODY`: what the content may be made of.
    pub body: Body,
    /// `SMTPUTF8` (RFC 6531): only who knows it may be given the message.
    pub utf8: bool,
    /// `RET` (RFC 3461).
    pub ret: Option<Ret>,
    /// `ENVID` (RFC 3461).
    pub envelope_id: Option<EnvelopeId>,
    /// The forward-paths.
    pub recipients: Vec<Recipient>,
}

impl Envelope {
    /// The recipient, where there is just one: more must not be told of each other.
    pub fn only_recipient(&self) -> Option<&Address> {
        match self.recipients.as_slice() {
            [one] => Some(&one.address),
            _ => None,
        }
    }

    /// The lines.
    pub fn encode(&self) -> String {
        let mut text = format!("arrived {}\n", self.arrived);
        // Writing to a String can't fail.
        let _ = match &self.origin {
            Origin::Smtp => writeln!(text, "origin smtp"),
            Origin::Local => writeln!(text, "origin local"),
            Origin::User(uid) => writeln!(text, "origin user {uid}"),
            Origin::Alias(list) => writeln!(text, "origin alias <{list}>"),
            Origin::Programs => writeln!(text, "origin programs"),
        };
        let _ = writeln!(text, "sender <{}>", Path(self.sender.as_ref()));
        match self.body {
            Body::SevenBit => {}
            Body::EightBitMime => text.push_str("body 8bitmime\n"),
            Body::BinaryMime => text.push_str("body binarymime\n"),
        }
        if self.utf8 {
            text.push_str("smtputf8 yes\n");
        }
        if let Some(ret) = self.ret {
            let _ = writeln!(text, "ret {ret}");
        }
        if let Some(id) = &self.envelope_id {
            let _ = writeln!(text, "envid {id}");
        }
        for Recipient { address, notify, original } in &self.recipients {
            let _ = writeln!(text, "recipient <{address}>");
            if let Some(notify) = notify {
                let _ = writeln!(text, "notify {notify}");
            }
            if let Some(original) = original {
                let _ = writeln!(text, "orcpt {original}");
            }
        }
        text
    }

    /// Reads the lines back; `None` where they make no envelope.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
        let (mut arrived, mut origin, mut sender) = (None, None, None);
        let (mut body, mut utf8) = (Body::SevenBit, false);
        let (mut ret, mut envelope_id) = (None, None);
        let mut recipients: Vec<Recipient> = Vec::new();
        let address = |path: &str| Address::parse_in(path.as_bytes(), Alphabet::Utf8).ok();
        for line in text.split('\n') {
            let (key, value) = line.split_once(' ')?;
            let path = || value.strip_prefix('<')?.strip_suffix('>');
            match key {
                "arrived" => arrived = Some(value.parse().ok()?),
                "origin" => {
                    origin = Some(match value.split_once(' ') {
                        Some(("user", uid)) => Origin::User(uid.parse().ok()?),
                        Some(("alias", list)) => {
                            let list = list.strip_prefix('<')?.strip_suffix('>')?;
                            Origin::Alias(Address::parse(list.as_bytes()).ok()?)
                        }
                        None if value == "smtp" => Origin::Smtp,
                        None if value == "local" => Origin::Local,
                        None if value == "programs" => Origin::Programs,
                        _ => return None,
                    });
                }
                "sender" => {
                    sender = Some(match path()? {
                        "" => None,
                        path => Some(address(path)?),
                    });
                }
                "body" if value == "8bitmime" => body = Body::EightBitMime,
                "body" if value == "binarymime" => body = Body::BinaryMime,
                "smtputf8" if value == "yes" => utf8 = true,
                "ret" => ret = Some(Ret::parse(value.as_bytes())?),
                "envid" => envelope_id = Some(EnvelopeId::parse(value.as_bytes())?),
                "recipient" => recipients.push(address(path()?)?.into()),
                "notify" => {
                    recipients.last_mut()?.notify = Some(Notify::parse(value.as_bytes())?);
                }
                "orcpt" => {
                    let original = OriginalRecipient::parse(value.as_bytes(), Alphabet::Ascii)?;
                    recipients.last_mut()?.original = Some(original);
                }
                _ => return None,
            }
        }
        let sender: Option<Address> = sender?;
        let mut addresses = recipients.iter().map(|to| &to.address).chain(&sender);
        if recipients.is_empty() || !(utf8 || addresses.all(Address::is_ascii)) {
            return None;
        }
        Some(Self {
            arrived: arrived?,
            origin: origin?,
            sender,
            body,
            utf8,
            ret,
            envelope_id,
            recipients,
        })
    }
}

/// An address as a path's inside, empty for the null path.
pub struct Path<'a>(pub Option<&'a Address>);

impl std::fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |address| address.fmt(f))
    }
}

/// What happened to a recipient.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It has the message.
    Done,
    /// It never will; the sender was told.
    Failed,
    /// Not this time.
    Deferred,
    /// Its sender was told that it still waits.
    Warned,
}

impl Outcome {
    /// Whether nothing is left to be done for the recipient.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Failed)
    }
}

/// One line of history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// Seconds since 1970.
    pub time: u64,
    /// Which of the envelope's recipients.
    pub recipient: usize,
    /// What happened.
    pub outcome: Outcome,
    /// Enhanced status code (RFC 3463).
    pub code: String,
    /// In words.
    pub text: String,
}

impl Event {
    /// The line, with its checksum in front.
    pub fn encode(&self) -> String {
        let outcome = match self.outcome {
            Outcome::Done => "done",
            Outcome::Failed => "failed",
            Outcome::Deferred => "deferred",
            Outcome::Warned => "warned",
        };
        let text: String = crate::sys::log::escape(&self.text).chars().take(MAX_TEXT).collect();
        let code: String = self.code.chars().filter(|c| c.is_ascii_digit() || *c == '.').collect();
        let line = format!("{} {} {outcome} {code} {text}", self.time, self.recipient);
        format!("{:08x} {line}\n", crc32fast::hash(line.as_bytes()))
    }

    fn parse(line: &str) -> Option<Self> {
        let (crc, line) = line.split_once(' ')?;
        if u32::from_str_radix(crc, 16).ok()? != crc32fast::hash(line.as_bytes()) {
            return None;
        }
        let mut words = line.splitn(5, ' ');
        let mut word = || words.next();
        Some(Self {
            time: word()?.parse().ok()?,
            recipient: word()?.parse().ok()?,
            outcome: match word()? {
                "done" => Outcome::Done,
                "failed" => Outcome::Failed,
                "deferred" => Outcome::Deferred,
                "warned" => Outcome::Warned,
                _ => return None,
            },
            code: word()?.to_owned(),
            text: word()?.to_owned(),
        })
    }
}

/// Reads the history: its events, and the length of its valid part. What follows is a line that
/// was torn when its writer died, and counts as not written.
pub fn history(bytes: &[u8]) -> (Vec<Event>, usize) {
    let (mut events, mut valid) = (Vec::new(), 0);
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        let event = std::str::from_utf8(line)
            .ok()
            .and_then(|line| line.strip_suffix('\n'))
            .and_then(Event::parse);
        let Some(event) = event else { break };
        events.push(event);
        valid += line.len();
    }
    (events, valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            arrived: 1_087_755_320,
            origin: Origin::User(1000),
            sender: None,
            body: Body::EightBitMime,
            utf8: false,
            ret: None,
            envelope_id: None,
            recipients: vec![
                Address::parse(b"a@b").unwrap().into(),
                Address::parse(b"\"c \\\" d\"@[127.0.0.1]").unwrap().into(),
            ],
        }
    }

    #[test]
    fn an_envelope_reads_back_the_same() {
        let sent = Envelope { sender: Some(Address::parse(b"x@y").unwrap()), ..envelope() };
        let list = Origin::Alias(Address::parse(b"\"a list\"@b").unwrap());
        let expanded = [list, Origin::Programs].map(|origin| Envelope { origin, ..envelope() });
        for envelope in [envelope(), sent, asking()].into_iter().chain(expanded) {
            assert_eq!(Envelope::parse(envelope.encode().as_bytes()), Some(envelope));
        }
    }

    /// With everything that an envelope can ask for.
    fn asking() -> Envelope {
        let utf8 = |text: &str| Address::parse_in(text.as_bytes(), Alphabet::Utf8).unwrap();
        let original = |text: &str| OriginalRecipient::parse(text.as_bytes(), Alphabet::Utf8);
        Envelope {
            sender: Some(utf8("jos\u{e9}@caf\u{e9}.example")),
            body: Body::BinaryMime,
            utf8: true,
            ret: Some(Ret::Headers),
            envelope_id: EnvelopeId::parse(b"a+20+2B+3Db"),
            recipients: vec![
                Recipient {
                    address: utf8("\u{e9}@b"),
                    notify: Notify::parse(b"NEVER"),
                    original: original("utf-8;\u{e9}\\x{5C}@b"),
                },
                utf8("c@d").into(),
                Recipient {
                    address: utf8("e@f"),
                    notify: Notify::parse(b"SUCCESS,DELAY"),
                    original: original("rfc822;a+20b+2B@c"),
                },
            ],
            ..envelope()
        }
    }

    #[test]
    fn what_was_asked_for_stands_in_lines_of_its_own() {
        let text = asking().encode();
        let wanted = "body binarymime\nsmtputf8 yes\nret HDRS\nenvid a+20+2B+3Db\n\
                      recipient <\u{e9}@b>\nnotify NEVER\norcpt utf-8;\\x{E9}\\x{5C}@b\n\
                      recipient <c@d>\nrecipient <e@f>\nnotify SUCCESS,DELAY\n\
                      orcpt rfc822;a+20b+2B@c\n";
        assert!(text.ends_with(wanted), "{text}");
        // An older file has none of them, and is what it was.
        let old = "arrived 1\norigin smtp\nsender <a@b>\nbody 8bitmime\nrecipient <c@d>\n";
        assert_eq!(Envelope::parse(old.as_bytes()).unwrap().encode(), old);
    }

    #[test]
    fn what_nobody_may_ask_for_makes_no_envelope() {
        let start = "arrived 1\norigin smtp\nsender <a@b>\n";
        for lines in [
            "recipient <\u{e9}@d>\n",
            "smtputf8 no\nrecipient <c@d>\n",
            "notify NEVER\nrecipient <c@d>\n",
            "recipient <c@d>\nnotify SOMETIMES\n",
            "recipient <c@d>\norcpt rfc822;a+0Ab\n",
            "recipient <c@d>\norcpt c@d\n",
            "envid a+0D+0Ab\nrecipient <c@d>\n",
            "envid a b\nrecipient <c@d>\n",
            "ret BODY\nrecipient <c@d>\n",
            "body 9bit\nrecipient <c@d>\n",
        ] {
            assert_eq!(Envelope::parse(format!("{start}{lines}").as_bytes()), None, "{lines}");
        }
    }

    #[test]
    fn a_damaged_envelope_is_no_envelope() {
        let text = envelope().encode();
        for cut in 0..text.len() {
            if !text[..cut].ends_with(">\n") {
                assert_eq!(Envelope::parse(&text.as_bytes()[..cut]), None, "{}", &text[..cut]);
            }
        }
        assert_eq!(Envelope::parse(b"arrived 1\norigin smtp\nsender <>\n"), None);
        assert_eq!(
            Envelope::parse(b"arrived 1\norigin smtp\nsender <a\0@b>\nrecipient <a@b>\n"),
            None
        );
    }

    #[test]
    fn a_head_is_what_we_write_or_nothing() {
        let head =
            Head { envelope_length: 1, envelope_crc: 2, content_length: 3, content_crc: u32::MAX };
        let line = head.encode();
        assert_eq!(line.len(), HEAD);
        assert_eq!(Head::parse(line.as_bytes()), Some(head));
        assert_eq!(Head::parse(line.replace("ffffffff", "FFFFFFFF").as_bytes()), None);
        assert_eq!(Head::parse(line.replace(" 1 ", " 2 ").as_bytes()), None);
        assert_eq!(Head::parse(b""), None);
    }

    #[test]
    fn a_torn_line_of_history_is_no_line() {
        let event = Event {
            time: 5,
            recipient: 1,
            outcome: Outcome::Deferred,
            code: "4.2.0".into(),
            text: "it said:\r\n250 ok".into(),
        };
        let line = event.encode();
        assert_eq!(line.matches('\n').count(), 1);
        let twice = format!("{line}{line}");
        for cut in 0..line.len() {
            let (events, valid) = history(&twice.as_bytes()[..line.len() + cut]);
            assert_eq!((events.len(), valid), (1, line.len()));
        }
        assert_eq!(history(twice.as_bytes()).1, twice.len());
        assert_eq!(history(twice.as_bytes()).0[0].text, "it said:\\r\\n250 ok");
    }
}
