//! What a queue file says (hikyaku-queue(5)), as bytes and as values; pure.
//!
//! ```text
//! hikyaku-queue 1 ENVLENGTH ENVCRC CONTENTLENGTH CONTENTCRC      60 bytes, hexadecimal numbers
//! arrived 1087755320                                             the envelope: key, space, value
//! sender <toshi@tenbin.org>
//! recipient <example@smkwlab.net>
//! (content, with CRLF line ends)
//! CRC 1087755620 0 deferred 4.2.0 mailbox is locked              the history, appended
//! ```
//!
//! A value can't hold a line end: addresses are parsed ones, and texts are escaped. Our own files
//! are re-validated when they are read, like any other input.

use std::fmt::Write as _;

use crate::message::Address;

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
    /// The client said `BODY=8BITMIME`.
    pub eight_bit: bool,
    /// The forward-paths.
    pub recipients: Vec<Address>,
}

impl Envelope {
    /// The recipient, where there is just one: more must not be told of each other.
    pub fn only_recipient(&self) -> Option<&Address> {
        match self.recipients.as_slice() {
            [one] => Some(one),
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
        if self.eight_bit {
            text.push_str("body 8bitmime\n");
        }
        for recipient in &self.recipients {
            let _ = writeln!(text, "recipient <{recipient}>");
        }
        text
    }

    /// Reads the lines back; `None` where they make no envelope.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
        let (mut arrived, mut origin, mut sender) = (None, None, None);
        let (mut eight_bit, mut recipients) = (false, Vec::new());
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
                        path => Some(Address::parse(path.as_bytes()).ok()?),
                    });
                }
                "body" if value == "8bitmime" => eight_bit = true,
                "recipient" => recipients.push(Address::parse(path()?.as_bytes()).ok()?),
                _ => return None,
            }
        }
        if recipients.is_empty() {
            return None;
        }
        Some(Self { arrived: arrived?, origin: origin?, sender: sender?, eight_bit, recipients })
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
            eight_bit: true,
            recipients: vec![
                Address::parse(b"a@b").unwrap(),
                Address::parse(b"\"c \\\" d\"@[127.0.0.1]").unwrap(),
            ],
        }
    }

    #[test]
    fn an_envelope_reads_back_the_same() {
        let sent = Envelope { sender: Some(Address::parse(b"x@y").unwrap()), ..envelope() };
        let list = Origin::Alias(Address::parse(b"\"a list\"@b").unwrap());
        let expanded = [list, Origin::Programs].map(|origin| Envelope { origin, ..envelope() });
        for envelope in [envelope(), sent].into_iter().chain(expanded) {
            assert_eq!(Envelope::parse(envelope.encode().as_bytes()), Some(envelope));
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
