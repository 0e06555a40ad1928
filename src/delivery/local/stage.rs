//! From a message as it arrives, in pieces of any size, to its stored form.
//!
//! Line ends become LF; fields that are ours to write go ([`fields`]), and so does the mark that a
//! sender's mailbox left (`From ` or `>From ` in the first lines); `^>*From ` in the body gets one
//! more `>`. A line that is no field ends the header, as if a blank line stood before it. Beyond
//! 256 KiB the message lies in a file without a name.

use std::fs::File;
use std::io::Write;
use std::time::SystemTime;

use crate::delivery::Failure;
use crate::mailbox::StoredMessage;
use crate::mailbox::mbox::quote::{FROM, Found, Matcher};
use crate::mailbox::mbox::{fields, from_line};

/// So much stays in memory.
const MEMORY: usize = 256 * 1024;

/// The beginning of a header line that is looked at: names and addresses are shorter.
const HOLD: usize = 1024;

/// With more Delivered-To fields than this a message runs in circles.
const MOST_DELIVERIES: usize = 100;

/// What only the envelope knows.
#[derive(Clone, Copy, Debug)]
pub struct Envelope<'a> {
    /// The reverse-path, without angle brackets; empty for the null sender.
    pub sender: &'a [u8],
    /// The address that is delivered to.
    pub recipient: &'a [u8],
    /// The time of delivery.
    pub at: SystemTime,
}

/// A message on its way into a mailbox.
#[derive(Debug)]
pub struct Stager {
    part: Part,
    /// The beginning of a header line that is not known yet.
    held: Vec<u8>,
    /// The beginning of a body line that is not known yet.
    matcher: Option<Matcher>,
    /// The body's current line has begun.
    open: bool,
    /// A CR has come, and what follows it has not.
    cr: bool,
    quoted: bool,
    delivered_to: Vec<Vec<u8>>,
    body_length: u64,
    received: u64,
    limit: u64,
    buffer: Vec<u8>,
    spool: Option<(File, u64)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// At the beginning of the first line.
    First,
    /// At the beginning of a header line; what became of the field before it.
    HeaderLine { kept: bool },
    /// Within a header line.
    Field { kept: bool, first: bool },
    /// In the body.
    Body,
}

impl Stager {
    /// For a message of at most so many bytes, counted with CRLF line ends.
    pub fn new(limit: u64) -> Self {
        Self {
            part: Part::First,
            held: Vec::new(),
            matcher: None,
            open: false,
            cr: false,
            quoted: false,
            delivered_to: Vec::new(),
            body_length: 0,
            received: 0,
            limit,
            buffer: Vec::new(),
            spool: None,
        }
    }

    /// Whether nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.received == 0
    }

    /// Takes the next bytes, with LF or CRLF line ends.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), Failure> {
        self.received = (self.received).saturating_add(bytes.len() as u64);
        if self.cr && !bytes.is_empty() {
            self.cr = false;
            match bytes.strip_prefix(b"\n") {
                Some(rest) => {
                    bytes = rest;
                    self.piece(b"\n")?;
                }
                None => self.piece(b"\r")?,
            }
        }
        while !bytes.is_empty() {
            let end = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |at| at + 1);
            let (line, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
            bytes = rest;
            if let Some(content) = line.strip_suffix(b"\r\n") {
                self.piece(content)?;
                self.piece(b"\n")?;
            } else if let Some(content) = line.strip_suffix(b"\r") {
                self.cr = true;
                self.piece(content)?;
            } else {
                // A bare LF will be CRLF again.
                self.received += u64::from(line.ends_with(b"\n"));
                self.piece(line)?;
            }
        }
        if self.received > self.limit {
            let limit = self.limit;
            let text = format!("the message is larger than {limit} bytes");
            return Err(Failure::permanent("5.3.4", text));
        }
        Ok(())
    }

    /// All has arrived: the message as it will be stored.
    pub fn finish(mut self, envelope: &Envelope<'_>) -> Result<StoredMessage, Failure> {
        if std::mem::take(&mut self.cr) {
            self.piece(b"\r")?;
        }
        if !self.held.is_empty() || matches!(self.part, Part::Field { .. }) {
            self.piece(b"\n")?;
        }
        if self.part != Part::Body {
            self.out(b"\n")?;
        }
        if self.open || self.matcher.is_some() {
            self.piece(b"\n")?;
        }
        self.check_loop(envelope.recipient)?;
        let head = self.head(envelope);
        let Self { buffer, spool, .. } = self;
        StoredMessage::new(head, spool, buffer)
            .ok_or_else(|| Failure::temporary("4.3.0", "the staged message is not whole"))
    }

    fn head(&self, envelope: &Envelope<'_>) -> Vec<u8> {
        let clean = |text: &[u8]| -> Vec<u8> {
            let clean = |b: &u8| if b.is_ascii_control() { b'?' } else { *b };
            text.iter().map(clean).collect()
        };
        let mut head = from_line::write(envelope.sender, envelope.at);
        head.extend_from_slice(b"Return-Path: <");
        head.extend(clean(envelope.sender));
        head.extend_from_slice(b">\nDelivered-To: ");
        head.extend(clean(envelope.recipient));
        let length = self.body_length;
        head.extend_from_slice(format!("\nContent-Length: {length}\n").as_bytes());
        if self.quoted {
            head.extend_from_slice(format!("{}: yes\n", fields::QUOTED).as_bytes());
        }
        head
    }

    fn check_loop(&self, recipient: &[u8]) -> Result<(), Failure> {
        let again = |address: &Vec<u8>| address.eq_ignore_ascii_case(recipient);
        if self.delivered_to.len() > MOST_DELIVERIES || self.delivered_to.iter().any(again) {
            let recipient = String::from_utf8_lossy(recipient);
            let text = format!("mail loop: it was delivered to {recipient} before");
            return Err(Failure::permanent("5.4.6", text));
        }
        Ok(())
    }

    /// A piece of one line; its end, a LF, may be the last byte.
    fn piece(&mut self, piece: &[u8]) -> Result<(), Failure> {
        match self.part {
            Part::Field { kept, first } => self.field(piece, kept, first),
            Part::Body => self.body(piece),
            Part::First | Part::HeaderLine { .. } => {
                self.held.extend_from_slice(piece);
                if self.held.ends_with(b"\n") || self.held.len() >= HOLD {
                    let line = std::mem::take(&mut self.held);
                    return self.decide(&line);
                }
                Ok(())
            }
        }
    }

    /// The beginning of a header line tells what becomes of it.
    fn decide(&mut self, line: &[u8]) -> Result<(), Failure> {
        if line == b"\n" {
            self.part = Part::Body;
            return self.out(b"\n");
        }
        let first = self.part == Part::First;
        if first && (line.starts_with(b"From ") || line.starts_with(b">From ")) {
            return self.field(line, false, true);
        }
        if let (Part::HeaderLine { kept }, Some(b' ' | b'\t')) = (self.part, line.first()) {
            return self.field(line, kept, false);
        }
        let Some(name) = fields::name(line) else {
            self.part = Part::Body;
            self.out(b"\n")?;
            return self.body(line);
        };
        if name.eq_ignore_ascii_case(b"Delivered-To") && self.delivered_to.len() <= MOST_DELIVERIES
        {
            self.delivered_to.push(fields::value(line).to_vec());
        }
        let ours = fields::is_hidden(name) || name.eq_ignore_ascii_case(b"Return-Path");
        self.field(line, !ours, false)
    }

    fn field(&mut self, piece: &[u8], kept: bool, first: bool) -> Result<(), Failure> {
        if kept {
            self.out(piece)?;
        }
        self.part = match (piece.ends_with(b"\n"), first) {
            (true, true) => Part::First,
            (true, false) => Part::HeaderLine { kept },
            (false, first) => Part::Field { kept, first },
        };
        Ok(())
    }

    fn body(&mut self, piece: &[u8]) -> Result<(), Failure> {
        let begins = !self.open && self.matcher.is_none();
        if begins && matches!(piece.first(), Some(b'>' | b'F')) {
            self.matcher = Some(Matcher::default());
        }
        let Some(mut matcher) = self.matcher.take() else {
            return self.body_rest(piece);
        };
        let (quotes, found, rest) = matcher.feed(piece);
        self.body_out(piece.get(..quotes).unwrap_or_default())?;
        match found {
            Found::More => {
                self.matcher = Some(matcher);
                return Ok(());
            }
            Found::From => {
                self.quoted = true;
                // One `>` is like the other: which of them is the new one does not matter.
                self.body_out(b">")?;
                self.body_out(FROM)?;
            }
            Found::Other(taken) => self.body_out(FROM.get(..taken).unwrap_or_default())?,
        }
        self.open = true;
        self.body_rest(rest)
    }

    fn body_rest(&mut self, piece: &[u8]) -> Result<(), Failure> {
        if let Some(last) = piece.last() {
            self.open = *last != b'\n';
        }
        self.body_out(piece)
    }

    fn body_out(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.body_length = self.body_length.saturating_add(bytes.len() as u64);
        self.out(bytes)
    }

    fn out(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() < MEMORY {
            return Ok(());
        }
        let fail = |error: std::io::Error| {
            let text = format!("the message can't be spooled to a temporary file: {error}");
            Failure::temporary("4.3.1", text)
        };
        let (mut file, length) = match self.spool.take() {
            Some(spool) => spool,
            None => (tempfile::tempfile().map_err(fail)?, 0),
        };
        file.write_all(&self.buffer).map_err(fail)?;
        let length = length.saturating_add(self.buffer.len() as u64);
        self.spool = Some((file, length));
        self.buffer.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::{Envelope, Stager};
    use crate::delivery::Failure;

    fn stage(input: &[u8], step: usize) -> Result<String, Failure> {
        let mut stager = Stager::new(10_000_000);
        for piece in input.chunks(step) {
            stager.push(piece)?;
        }
        let message = stager.finish(&Envelope {
            sender: b"s@b.org",
            recipient: b"u@c.org",
            at: SystemTime::UNIX_EPOCH,
        })?;
        let mut stored = Vec::new();
        let mut take = |bytes: &[u8]| {
            stored.extend_from_slice(bytes);
            Ok(())
        };
        message.each(&mut take).unwrap();
        assert_eq!(message.length(), Some(stored.len() as u64));
        Ok(String::from_utf8(stored).unwrap())
    }

    fn check(input: &[u8], fields: &str, length: usize, rest: &str) {
        for step in 1..=input.len().max(1) {
            let stored = stage(input, step).unwrap();
            let (from, stored) = stored.split_once('\n').unwrap();
            assert!(from.starts_with("From s@b.org Thu Jan  1 "), "{from}");
            let head = format!(
                "Return-Path: <s@b.org>\nDelivered-To: u@c.org\nContent-Length: {length}\n{fields}"
            );
            assert_eq!(stored, format!("{head}{rest}"), "in pieces of {step}");
        }
    }

    #[test]
    fn line_ends_become_lf_and_a_missing_last_one_is_added() {
        check(b"A: 1\r\n\r\nx\r\ny\rz\r\r\n\xc3\xa4", "", 10, "A: 1\n\nx\ny\rz\r\n\u{e4}\n");
        check(b"A: 1", "", 0, "A: 1\n\n");
        check(b"A: 1\r\n\r\nx\r", "", 3, "A: 1\n\nx\r\n");
    }

    #[test]
    fn from_lines_in_the_body_are_quoted_once_more_and_marked() {
        check(
            b"A: 1\n\nFrom a\n>From b\n>>\nFrom\n From c\nFro",
            "X-Mbox-Quoted: yes\n",
            37,
            "A: 1\n\n>From a\n>>From b\n>>\nFrom\n From c\nFro\n",
        );
    }

    #[test]
    fn state_fields_of_a_stranger_go_with_their_folded_lines() {
        check(
            b"Return-Path: <x>\nStatus: RO\n more\nA: 1\n folded\nX-UID: 7\n\
              content-length: 9\nX-Mbox-Quoted: yes\nLines: 3\nB: 2\n\nStatus: body\n",
            "",
            13,
            "A: 1\n folded\nB: 2\n\nStatus: body\n",
        );
    }

    #[test]
    fn the_mark_of_another_mailbox_goes() {
        check(b"From x@y Thu Jan  1 00:00:00 1970\n>From z\nA: 1\n\nx\n", "", 2, "A: 1\n\nx\n");
    }

    #[test]
    fn a_line_that_is_no_field_ends_the_header() {
        check(b"hello\nA: 1\n", "", 11, "\nhello\nA: 1\n");
        check(b"A: 1\nFrom here\n", "X-Mbox-Quoted: yes\n", 11, "A: 1\n\n>From here\n");
        check(b" x: 1\n", "", 6, "\n x: 1\n");
        check(b"\nx\n", "", 2, "\nx\n");
    }

    #[test]
    fn a_message_that_was_here_before_is_a_loop() {
        let failure = stage(b"delivered-to:  U@C.org \n\nx\n", 5).unwrap_err();
        assert_eq!(failure.code(), "5.4.6");
        assert!(stage(b"Delivered-To: other@c.org\n\nx\n", 5).is_ok());
    }

    #[test]
    fn a_long_line_and_a_large_message_come_through_whole() {
        let mut input = b"A: ".to_vec();
        input.resize(5000, b'a');
        input.extend_from_slice(b"\n\n");
        for n in 0..20_000 {
            input.extend_from_slice(format!("From line {n} of many\n").as_bytes());
        }
        let stored = stage(&input, 777).unwrap();
        let text = String::from_utf8(input).unwrap();
        let (header, body) = text.split_once("\n\n").unwrap();
        let body = body.replace("From ", ">From ");
        assert!(stored.ends_with(&format!("{header}\n\n{body}")));
        assert!(stored.contains(&format!("\nContent-Length: {}\n", body.len())));
    }

    #[test]
    fn the_limit_counts_line_ends_as_two() {
        let mut stager = Stager::new(8);
        stager.push(b"a: 1\n\r").unwrap();
        stager.push(b"\n").unwrap();
        assert_eq!(stager.push(b"x").unwrap_err().code(), "5.3.4");
    }
}
