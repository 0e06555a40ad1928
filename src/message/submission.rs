//! A message that a program on this host or a user's client hands in: its header is completed, and
//! may name its recipients (RFC 5322 section 3.6, RFC 6409 section 8).

use std::fmt::Write as _;

use mailparse::MailHeader;

use super::address::Alphabet;
use super::{Address, list};

/// Where a header ends, and where the body behind it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderEnd {
    /// The first byte of the header, behind the lines of other programs' mailboxes.
    pub start: usize,
    /// The first byte that is not the header's.
    pub header: usize,
    /// The first byte of the body.
    pub body: usize,
}

/// How far a header was looked through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Scan {
    top: usize,
    start: usize,
}

/// Finds the end of the header: a blank line, or the first line that can't be one of a header.
/// `From user date` lines above it, as mailboxes and uucp have them, are no part of the message
/// (sendmail and Postfix take them off, too).
/// `None` where it may be behind `text`, of which `complete` says whether it is the whole message.
/// Lines end with CRLF here.
pub fn header_end(text: &[u8], complete: bool) -> Option<HeaderEnd> {
    Scan::default().header_end(text, complete)
}

impl Scan {
    /// As [`header_end`], of a text that has grown since the last call.
    pub fn header_end(&mut self, text: &[u8], complete: bool) -> Option<HeaderEnd> {
        let Self { mut top, mut start } = *self;
        let from = start;
        for newline in memchr::memchr_iter(b'\n', text.get(from..).unwrap_or_default()) {
            let newline = from + newline;
            let line = text.get(start..=newline).unwrap_or_default();
            if start == top && (line.starts_with(b"From ") || line.starts_with(b">From ")) {
                top = newline + 1;
                start = top;
                continue;
            }
            if line == b"\r\n" {
                return Some(HeaderEnd { start: top, header: start, body: newline + 1 });
            }
            if !is_header_line(line, start == top) {
                return Some(HeaderEnd { start: top, header: start, body: start });
            }
            start = newline + 1;
        }
        *self = Self { top, start };
        complete.then_some(HeaderEnd { start: top, header: start, body: start })
    }
}

/// Whom a header names as its authors, and as the one who sent it (RFC 5322 section 3.6.2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authors {
    /// Of From; empty without one.
    pub from: Vec<Address>,
    /// Of Sender; `None` without one, empty where it can't be understood.
    pub sender: Option<Vec<Address>>,
}

/// The authors of a header. Addresses without a domain are in `origin`. An error says what can't be
/// understood; so are two fields From, of which each reader would believe another one.
pub fn authors(header: &[u8], origin: &str) -> Result<Authors, String> {
    let fields = fields(header)?;
    let list =
        |field: &MailHeader<'_>| list::addresses_in(field.get_value_raw(), origin, Alphabet::Utf8);
    let from = match named(&fields, "From").as_slice() {
        [] => Vec::new(),
        [from] => list(from).map_err(|error| format!("field From: {error}"))?,
        _ => return Err("there is more than one field From".into()),
    };
    let sender = match named(&fields, "Sender").as_slice() {
        [] => None,
        [sender] => Some(list(sender).unwrap_or_default()),
        _ => Some(Vec::new()),
    };
    Ok(Authors { from, sender })
}

/// `field-name ":"`, or a folded line, which can't be the first (RFC 5322 section 2.2).
fn is_header_line(line: &[u8], first: bool) -> bool {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return !first;
    }
    let name = memchr::memchr(b':', line).and_then(|colon| line.get(..colon)).unwrap_or_default();
    let name = name.trim_ascii_end();
    !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
}

/// The recipients that a header names: those of To, Cc and Bcc, or, where the message was resent,
/// of the Resent fields. Addresses without a domain are in `origin`.
pub fn recipients(header: &[u8], origin: &str) -> Result<Vec<Address>, String> {
    let fields = fields(header)?;
    let resent = ["Resent-To", "Resent-Cc", "Resent-Bcc"];
    let is_resent = resent.iter().any(|name| !named(&fields, name).is_empty());
    let mut recipients = Vec::new();
    for name in if is_resent { resent } else { ["To", "Cc", "Bcc"] } {
        for field in named(&fields, name) {
            let found = list::addresses(field.get_value_raw(), origin);
            recipients.extend(found.map_err(|error| format!("field {name}: {error}"))?);
        }
    }
    Ok(recipients)
}

fn fields(header: &[u8]) -> Result<Vec<MailHeader<'_>>, String> {
    mailparse::parse_headers(header).map(|(fields, _)| fields).map_err(|error| error.to_string())
}

/// The fields of a name. A blank before the colon is no part of it (RFC 5322 section 4.5).
fn named<'a, 'b>(fields: &'b [MailHeader<'a>], name: &str) -> Vec<&'b MailHeader<'a>> {
    let is = |field: &&MailHeader<'_>| field.get_key_ref().trim_end().eq_ignore_ascii_case(name);
    fields.iter().filter(is).collect()
}

/// What a header gets that has none.
#[derive(Clone, Debug)]
pub struct Missing<'a> {
    /// Who sends it.
    pub sender: &'a Address,
    /// The sender's full name; may be empty.
    pub full_name: &'a str,
    /// The date, as RFC 5322 writes it.
    pub date: &'a str,
    /// A message id, without its brackets.
    pub message_id: &'a str,
    /// Who is to stand in Sender, whatever stands there.
    pub submitter: Option<&'a Address>,
}

/// The header without Bcc, with its submitter, and with From, Date and Message-ID where they were missing.
pub fn complete(header: &[u8], missing: &Missing<'_>) -> Result<Vec<u8>, String> {
    let present = |name: &str| fields(header).map(|fields| !named(&fields, name).is_empty());
    let mut complete = Vec::with_capacity(header.len() + 200);
    let mut dropping = false;
    for line in header.split_inclusive(|byte| *byte == b'\n') {
        if !matches!(line.first(), Some(b' ' | b'\t')) {
            dropping = is_field(line, &["Bcc", "Resent-Bcc"])
                || missing.submitter.is_some() && is_field(line, &["Sender"]);
        }
        if !dropping {
            complete.extend_from_slice(line);
        }
    }
    if !present("From")? {
        let from = match display_name(missing.full_name) {
            Some(name) => format!("From: {name} <{}>\r\n", missing.sender),
            None => format!("From: {}\r\n", missing.sender),
        };
        complete.extend_from_slice(from.as_bytes());
    }
    if let Some(submitter) = missing.submitter {
        complete.extend_from_slice(format!("Sender: {submitter}\r\n").as_bytes());
    }
    if !present("Date")? {
        complete.extend_from_slice(format!("Date: {}\r\n", missing.date).as_bytes());
    }
    if !present("Message-ID")? {
        complete.extend_from_slice(format!("Message-ID: <{}>\r\n", missing.message_id).as_bytes());
    }
    Ok(complete)
}

fn is_field(line: &[u8], names: &[&str]) -> bool {
    let name = memchr::memchr(b':', line).and_then(|colon| line.get(..colon)).unwrap_or_default();
    let name = name.trim_ascii_end();
    names.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// A full name as `phrase` (RFC 5322 section 3.2.5), quoted or encoded where it must be.
fn display_name(name: &str) -> Option<String> {
    let name: String = name.chars().filter(|c| !c.is_control()).take(200).collect();
    let name = name.trim();
    if name.is_empty() {
        return None;
    }
    if !name.is_ascii() {
        // RFC 2047, the Q encoding, in words of at most 75 characters.
        let mut words = Vec::new();
        let mut word = String::new();
        for c in name.chars() {
            let mut encoded = String::new();
            for byte in c.encode_utf8(&mut [0; 4]).bytes() {
                if byte.is_ascii_alphanumeric() {
                    encoded.push(char::from(byte));
                } else {
                    let _ = write!(encoded, "={byte:02X}");
                }
            }
            if word.len() + encoded.len() > 60 {
                words.push(std::mem::take(&mut word));
            }
            word += &encoded;
        }
        words.push(word);
        let words: Vec<String> = words.iter().map(|word| format!("=?UTF-8?Q?{word}?=")).collect();
        return Some(words.join("\r\n "));
    }
    if name.bytes().all(|b| b.is_ascii_alphanumeric() || b" '-".contains(&b)) {
        return Some(name.to_owned());
    }
    Some(format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> Option<(usize, usize)> {
        header_end(text.as_bytes(), true).map(|end| (end.header, end.body))
    }

    #[test]
    fn a_header_ends_at_a_blank_line_or_at_a_line_that_is_no_field() {
        assert_eq!(split("A: b\r\n c\r\n\r\nbody\r\n"), Some((10, 12)));
        assert_eq!(split("A: b\r\nbody\r\n"), Some((6, 6)));
        assert_eq!(split("body: or not\r\n"), Some((14, 14)));
        assert_eq!(split("no field\r\n"), Some((0, 0)));
        assert_eq!(split(" folded\r\n"), Some((0, 0)));
        assert_eq!(split(""), Some((0, 0)));
        assert_eq!(header_end(b"A: b\r\nB", false), None);
    }

    #[test]
    fn recipients_are_found_among_names_comments_and_groups() {
        let header = b"To: Toshi <toshi@a.b>, plain, \"Q, R\" <q@c>\r\nCc: staff: x@d, y@e;\r\n\
            bcc: z@f\r\n (folded)\r\n";
        let found: Vec<String> =
            recipients(header, "here").unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["toshi@a.b", "plain@here", "q@c", "x@d", "y@e", "z@f"]);
        let resent = b"To: a@b\r\nResent-To: c@d\r\n";
        assert_eq!(recipients(resent, "here").unwrap()[0].to_string(), "c@d");
        assert!(recipients(b"To: a b@c d\r\n", "here").is_err());
        assert!(recipients("To: \u{e9}@c\r\n".as_bytes(), "here").is_err());
    }

    #[test]
    fn missing_fields_are_added_and_bcc_goes() {
        let sender = Address::parse(b"t@h").unwrap();
        let missing = Missing {
            sender: &sender,
            full_name: "T. S",
            date: "D",
            message_id: "i@h",
            submitter: None,
        };
        let done = complete(b"Bcc: x\r\n y\r\nSubject: s\r\n", &missing).unwrap();
        let wanted = "Subject: s\r\nFrom: \"T. S\" <t@h>\r\nDate: D\r\nMessage-ID: <i@h>\r\n";
        assert_eq!(String::from_utf8(done).unwrap(), wanted);
        let missing = Missing { submitter: Some(&sender), ..missing };
        let done =
            complete(b"Sender: x\r\n y\r\nFrom: a\r\nDate: D\r\nMessage-ID: i\r\n", &missing);
        let wanted = "From: a\r\nDate: D\r\nMessage-ID: i\r\nSender: t@h\r\n";
        assert_eq!(String::from_utf8(done.unwrap()).unwrap(), wanted);
        let missing = Missing { submitter: None, ..missing };
        let whole = b"from: a\r\ndate: b\r\nmessage-id: c\r\n";
        assert_eq!(complete(whole, &missing).unwrap(), whole);
    }

    #[test]
    fn authors_are_those_of_the_one_from_and_a_sender_is_one() {
        let found = |header: &str| authors(header.as_bytes(), "here");
        let said =
            |list: &[Address]| -> Vec<String> { list.iter().map(ToString::to_string).collect() };
        let two = found("From: A <a@b>,\r\n \"c, d\" <c@d>\r\nSender: x@y\r\n").unwrap();
        assert_eq!(said(&two.from), ["a@b", "c@d"]);
        assert_eq!(said(&two.sender.unwrap()), ["x@y"]);
        assert_eq!(said(&found("from: \u{e9}@b\r\n").unwrap().from), ["\u{e9}@b"]);
        assert_eq!(found("Subject: x\r\n"), Ok(Authors::default()));
        assert_eq!(found("Sender: a@b\r\nSender: c@d\r\n").unwrap().sender, Some(Vec::new()));
        assert!(found("From: a@b\r\nFrom: c@d\r\n").is_err());
        assert!(found("From: a@b\r\nFROM : c@d\r\n").is_err());
        assert!(found("From: a b@c d\r\n").is_err());
    }

    #[test]
    fn a_scan_goes_on_where_it_was() {
        let text = b"From x\r\nA: b\r\n c\r\n\r\nbody\r\n";
        let mut scan = Scan::default();
        let found = (0..=text.len()).find_map(|end| scan.header_end(&text[..end], false));
        assert_eq!(found, header_end(text, true));
    }

    #[test]
    fn a_full_name_can_not_break_the_header() {
        assert_eq!(display_name("a\r\nX: y").unwrap(), "\"aX: y\"");
        assert_eq!(display_name("下川").unwrap(), "=?UTF-8?Q?=E4=B8=8B=E5=B7=9D?=");
        assert_eq!(display_name(" \n"), None);
    }
}
