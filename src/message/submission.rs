//! A message that a program on this host hands in: its header is completed, and may name its
//! recipients (RFC 5322 section 3.6, RFC 6409 section 8).

use std::fmt::Write as _;

use mailparse::{MailHeader, MailHeaderMap};

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

/// Finds the end of the header: a blank line, or the first line that can't be one of a header.
/// `From user date` lines above it, as mailboxes and uucp have them, are no part of the message
/// (sendmail and Postfix take them off, too).
/// `None` where it may be behind `text`, of which `complete` says whether it is the whole message.
/// Lines end with CRLF here.
pub fn header_end(text: &[u8], complete: bool) -> Option<HeaderEnd> {
    let (mut top, mut start) = (0, 0);
    for newline in memchr::memchr_iter(b'\n', text) {
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
    complete.then_some(HeaderEnd { start: top, header: start, body: start })
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
    let is_resent = resent.iter().any(|name| fields.get_first_header(name).is_some());
    let mut recipients = Vec::new();
    for name in if is_resent { resent } else { ["To", "Cc", "Bcc"] } {
        for field in fields.get_all_headers(name) {
            let found = list::addresses(field.get_value_raw(), origin);
            recipients.extend(found.map_err(|error| format!("field {name}: {error}"))?);
        }
    }
    Ok(recipients)
}

fn fields(header: &[u8]) -> Result<Vec<MailHeader<'_>>, String> {
    mailparse::parse_headers(header).map(|(fields, _)| fields).map_err(|error| error.to_string())
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
}

/// The header without Bcc, and with From, Date and Message-ID where they were missing.
pub fn complete(header: &[u8], missing: &Missing<'_>) -> Result<Vec<u8>, String> {
    let present = |name: &str| fields(header).map(|fields| fields.get_first_header(name).is_some());
    let mut complete = Vec::with_capacity(header.len() + 200);
    let mut dropping = false;
    for line in header.split_inclusive(|byte| *byte == b'\n') {
        if !matches!(line.first(), Some(b' ' | b'\t')) {
            dropping = is_bcc(line);
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
    if !present("Date")? {
        complete.extend_from_slice(format!("Date: {}\r\n", missing.date).as_bytes());
    }
    if !present("Message-ID")? {
        complete.extend_from_slice(format!("Message-ID: <{}>\r\n", missing.message_id).as_bytes());
    }
    Ok(complete)
}

fn is_bcc(line: &[u8]) -> bool {
    let name = memchr::memchr(b':', line).and_then(|colon| line.get(..colon)).unwrap_or_default();
    let name = name.trim_ascii_end();
    name.eq_ignore_ascii_case(b"Bcc") || name.eq_ignore_ascii_case(b"Resent-Bcc")
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
        let missing = Missing { sender: &sender, full_name: "T. S", date: "D", message_id: "i@h" };
        let done = complete(b"Bcc: x\r\n y\r\nSubject: s\r\n", &missing).unwrap();
        let wanted = "Subject: s\r\nFrom: \"T. S\" <t@h>\r\nDate: D\r\nMessage-ID: <i@h>\r\n";
        assert_eq!(String::from_utf8(done).unwrap(), wanted);
        let whole = b"from: a\r\ndate: b\r\nmessage-id: c\r\n";
        assert_eq!(complete(whole, &missing).unwrap(), whole);
    }

    #[test]
    fn a_full_name_can_not_break_the_header() {
        assert_eq!(display_name("a\r\nX: y").unwrap(), "\"aX: y\"");
        assert_eq!(display_name("下川").unwrap(), "=?UTF-8?Q?=E4=B8=8B=E5=B7=9D?=");
        assert_eq!(display_name(" \n"), None);
    }
}
