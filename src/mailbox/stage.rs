//! From a message as it arrives, in pieces of any size, to one that any mailbox can take.
//!
//! Line ends become LF; fields that are a mailbox's to write go ([`fields`]), and so does the mark
//! that a sender's mailbox left (`From ` or `>From ` in the first lines). A line that is no field
//! ends the header, as if a blank line stood before it. Beyond 256 KiB the message lies in a file
//! without a name.

use std::fmt;
use std::io::{self, Write};

use super::mbox::fields;
use super::mbox::quote::Quoter;
use super::message::Staged;

/// So much stays in memory.
const MEMORY: usize = 256 * 1024;

/// The beginning of a header line that is looked at: names and addresses are shorter.
const HOLD: usize = 1024;

/// With more Delivered-To fields than this a message runs in circles.
pub(super) const MOST_DELIVERIES: usize = 100;

/// Why a message can't be staged.
#[derive(Debug)]
pub enum StageError {
    /// It is larger than this.
    TooLarge(u64),
    /// The file that it waits in can't be written.
    Spool(io::Error),
}

impl fmt::Display for StageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooLarge(limit) => write!(f, "the message is larger than {limit} bytes"),
            Self::Spool(error) => {
                let directory = std::env::temp_dir();
                write!(f, "the message can't be kept in {}: {error}", directory.display())
            }
        }
    }
}

impl std::error::Error for StageError {}

/// A message that is arriving.
#[derive(Debug)]
pub struct Stager {
    part: Part,
    /// The beginning of a header line that is not known yet.
    held: Vec<u8>,
    /// Looks for lines of the body that an mbox must quote.
    quoter: Quoter,
    /// The body's current line has begun.
    open: bool,
    /// A CR has come, and what follows it has not.
    cr: bool,
    /// The field that is arriving is Message-ID.
    in_message_id: bool,
    /// The last byte of what was kept.
    last: u8,
    received: u64,
    limit: u64,
    /// Return-Path is kept: the message comes from a mailbox.
    whole: bool,
    staged: Staged,
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
            quoter: Quoter::default(),
            open: false,
            cr: false,
            in_message_id: false,
            last: 0,
            received: 0,
            limit,
            whole: false,
            staged: Staged::default(),
        }
    }

    /// For one that comes from a mailbox, or goes into one by a client's own hand: it has been
    /// delivered before.
    pub fn of_mailbox(limit: u64) -> Self {
        Self { whole: true, ..Self::new(limit) }
    }

    /// Whether nothing has arrived.
    pub fn is_empty(&self) -> bool {
        self.received == 0
    }

    /// Takes the next bytes, with LF or CRLF line ends.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), StageError> {
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
        if self.received > self.limit { Err(StageError::TooLarge(self.limit)) } else { Ok(()) }
    }

    /// All has arrived.
    pub fn finish(mut self) -> Result<Staged, StageError> {
        if std::mem::take(&mut self.cr) {
            self.piece(b"\r")?;
        }
        if !self.held.is_empty() || matches!(self.part, Part::Field { .. }) {
            self.piece(b"\n")?;
        }
        if self.part != Part::Body {
            self.end_header()?;
        }
        if self.open {
            self.piece(b"\n")?;
        }
        self.staged.from_lines = self.quoter.quoted();
        Ok(self.staged)
    }

    /// A piece of one line; its end, a LF, may be the last byte.
    fn piece(&mut self, piece: &[u8]) -> Result<(), StageError> {
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
    fn decide(&mut self, line: &[u8]) -> Result<(), StageError> {
        if line == b"\n" {
            return self.end_header();
        }
        let first = self.part == Part::First;
        if first && (line.starts_with(b"From ") || line.starts_with(b">From ")) {
            return self.field(line, false, true);
        }
        if let (Part::HeaderLine { kept }, Some(b' ' | b'\t')) = (self.part, line.first()) {
            if self.in_message_id {
                self.message_id(line.trim_ascii());
            }
            return self.field(line, kept, false);
        }
        // `From : x`, too, would begin a message to others who read the mbox.
        let is_from = line.starts_with(b"From ");
        let Some(name) = fields::name(line).filter(|_| !is_from) else {
            self.end_header()?;
            return self.body(line);
        };
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("Delivered-To") && self.staged.delivered_to.len() <= MOST_DELIVERIES {
            self.staged.delivered_to.push(fields::value(line).to_vec());
        }
        // The first one counts.
        self.in_message_id = is("Message-ID") && self.staged.message_id.is_none();
        if self.in_message_id {
            self.message_id(fields::value(line));
        }
        let ours = fields::is_hidden(name) || (is("Return-Path") && !self.whole);
        self.field(line, !ours, false)
    }

    fn message_id(&mut self, part: &[u8]) {
        let id = self.staged.message_id.get_or_insert_default();
        id.extend(part.iter().take(HOLD.saturating_sub(id.len())));
    }

    /// The blank line.
    fn end_header(&mut self) -> Result<(), StageError> {
        self.part = Part::Body;
        self.out(b"\n")?;
        self.staged.header = self.staged.length();
        Ok(())
    }

    fn field(&mut self, piece: &[u8], kept: bool, first: bool) -> Result<(), StageError> {
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

    fn body(&mut self, piece: &[u8]) -> Result<(), StageError> {
        self.quoter.push(piece, &mut |_| {});
        if let Some(last) = piece.last() {
            self.open = *last != b'\n';
        }
        self.out(piece)
    }

    fn out(&mut self, bytes: &[u8]) -> Result<(), StageError> {
        let Staged { memory, spool, spooled_nuls, lines, crlf_lines, .. } = &mut self.staged;
        if let Some(content) = bytes.strip_suffix(b"\n") {
            *lines += 1;
            // One of two CRs stays before its LF.
            let last = content.last().copied().unwrap_or(self.last);
            *crlf_lines += u64::from(last == b'\r');
        }
        self.last = bytes.last().copied().unwrap_or(self.last);
        memory.extend_from_slice(bytes);
        if memory.len() < MEMORY {
            return Ok(());
        }
        let (mut file, length) = match spool.take() {
            Some(spool) => spool,
            None => (tempfile::tempfile().map_err(StageError::Spool)?, 0),
        };
        file.write_all(memory).map_err(StageError::Spool)?;
        *spool = Some((file, length.saturating_add(memory.len() as u64)));
        *spooled_nuls += memchr::memchr_iter(0, memory).count() as u64;
        memory.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{StageError, Stager};
    use crate::mailbox::Staged;

    fn stage(input: &[u8], step: usize) -> Staged {
        let mut stager = Stager::new(10_000_000);
        for piece in input.chunks(step) {
            stager.push(piece).unwrap();
        }
        stager.finish().unwrap()
    }

    fn text(staged: &Staged) -> String {
        let mut text = Vec::new();
        let mut take = |bytes: &[u8]| {
            text.extend_from_slice(bytes);
            Ok(())
        };
        staged.each(&mut take).unwrap();
        assert_eq!(staged.length(), text.len() as u64);
        assert_eq!(staged.lines, memchr::memchr_iter(b'\n', &text).count() as u64);
        assert_eq!(staged.nuls(), memchr::memchr_iter(0, &text).count() as u64);
        let crlf = memchr::memmem::find_iter(&text, b"\r\n").count() as u64;
        assert_eq!(staged.network_length(), staged.length() + staged.lines - crlf);
        String::from_utf8(text).unwrap()
    }

    fn check(input: &[u8], from_lines: u64, header: &str, body: &str) {
        for step in 1..=input.len().max(1) {
            let staged = stage(input, step);
            assert_eq!(text(&staged), format!("{header}\n{body}"), "in pieces of {step}");
            assert_eq!(staged.header, header.len() as u64 + 1);
            assert_eq!(staged.from_lines, from_lines);
        }
    }

    #[test]
    fn line_ends_become_lf_and_a_missing_last_one_is_added() {
        check(b"A: 1\r\n\r\nx\r\ny\rz\r\r\n\xc3\xa4", 0, "A: 1\n", "x\ny\rz\r\n\u{e4}\n");
        check(b"A: 1", 0, "A: 1\n", "");
        check(b"A: 1\r\n\r\nx\r", 0, "A: 1\n", "x\r\n");
    }

    #[test]
    fn lines_of_the_body_that_an_mbox_must_quote_are_counted() {
        let body = "From a\n>From b\n>>\nFrom\n From c\nFro\n";
        check(format!("A: 1\n\n{body}").as_bytes(), 2, "A: 1\n", body);
    }

    #[test]
    fn state_fields_of_a_stranger_go_with_their_folded_lines() {
        check(
            b"Return-Path: <x>\nStatus: RO\n more\nA: 1\n folded\nX-UID: 7\n\
              content-length: 9\nX-Mbox-Quoted: yes\nLines: 3\nB: 2\n\nStatus: body\n",
            0,
            "A: 1\n folded\nB: 2\n",
            "Status: body\n",
        );
    }

    #[test]
    fn the_mark_of_another_mailbox_goes() {
        check(b"From x@y Thu Jan  1 00:00:00 1970\n>From z\nA: 1\n\nx\n", 0, "A: 1\n", "x\n");
    }

    #[test]
    fn a_line_that_is_no_field_ends_the_header() {
        check(b"hello\nA: 1\n", 0, "", "hello\nA: 1\n");
        check(b"A: 1\nFrom here\n", 1, "A: 1\n", "From here\n");
        check(b"A: 1\nFrom : x\nB: 2\n", 1, "A: 1\n", "From : x\nB: 2\n");
        check(b" x: 1\n", 0, "", " x: 1\n");
        check(b"\nx\n", 0, "", "x\n");
    }

    #[test]
    fn what_the_delivery_must_know_of_the_header_is_kept() {
        let input = b"Message-ID: <a@b>\nDelivered-To: U@c\nmessage-id: <2@b>\n\
                      delivered-to: v@c\n\nMessage-ID: <3@b>\n";
        let folded = b"Subject: s\nMessage-Id:\r\n\t<a@b>\r\nX: y\r\n z\r\n\r\n";
        for step in 1..input.len() {
            let staged = stage(input, step);
            assert_eq!(staged.message_id(), Some(&b"<a@b>"[..]));
            assert_eq!(staged.delivered_to, [b"U@c".to_vec(), b"v@c".to_vec()]);
            assert!(staged.was_delivered_to(|other| other.eq_ignore_ascii_case(b"u@C")));
            assert!(!staged.was_delivered_to(|other| other == b"w@c"));
            assert_eq!(stage(folded, step).message_id(), Some(&b"<a@b>"[..]));
        }
        let circles = b"Delivered-To: x@y\n".repeat(101);
        assert!(stage(&circles, 1000).was_delivered_to(|_| false));
    }

    #[test]
    fn a_long_line_and_a_large_message_come_through_whole() {
        let mut input = b"A: ".to_vec();
        input.resize(5000, b'a');
        input.extend_from_slice(b"\n\n");
        for n in 0..20_000 {
            input.extend_from_slice(format!("From line {n} of\0many\n").as_bytes());
        }
        let staged = stage(&input, 777);
        assert_eq!(text(&staged), String::from_utf8(input).unwrap());
        assert_eq!(staged.from_lines, 20_000);
    }

    #[test]
    fn the_limit_counts_line_ends_as_two() {
        let mut stager = Stager::new(8);
        stager.push(b"a: 1\n\r").unwrap();
        stager.push(b"\n").unwrap();
        assert!(matches!(stager.push(b"x"), Err(StageError::TooLarge(8))));
    }
}
