//! A message as it arrives, in any pieces, against a second reading of hikyaku-mbox(5): it is one
//! message in the mailbox, a client gets it back, and nothing of a stranger's counts as ours.

use std::rc::Rc;
use std::time::SystemTime;

use hikyaku::mailbox::mbox::fields;
use hikyaku::mailbox::{NewMessage, Stager};

use crate::dice::Dice;
use crate::home::Home;

const SENDER: &[u8] = b"s@b.org";
const RECIPIENT: &[u8] = b"u@c.org";

/// The one place that knows how a message gets into a mailbox.
fn deliver<'a>(home: &Home, pieces: impl Iterator<Item = &'a [u8]>) {
    let mut stager = Stager::new(1 << 30);
    for piece in pieces {
        stager.push(piece).unwrap();
    }
    let text = Rc::new(stager.finish().unwrap());
    let message = NewMessage::delivered(SENDER, RECIPIENT, SystemTime::UNIX_EPOCH, text);
    let growth = home.mbox().append(&[message]).unwrap();
    assert_eq!(growth.after, home.content().len() as u64);
}

pub fn check(input: &[u8]) {
    let home = Home::new(b"");
    deliver(&home, std::iter::once(input));
    let stored = home.content();
    check_pieces(input, &stored);
    let lines = lines(input);
    let arrived = Arrived::of(&lines);
    check_stored(&stored);
    let shown = home.read_all();
    assert_eq!(shown.len(), 1);
    assert_eq!(text(&shown.concat()), text(&arrived.shown()));
}

/// Where the cuts are makes no difference.
fn check_pieces(input: &[u8], stored: &[u8]) {
    let mut dice = Dice::of(input);
    let most = [1, 2, 100, 2000][dice.below(4)];
    let mut rest = input;
    let pieces = std::iter::from_fn(|| {
        let (piece, behind) = rest.split_at(rest.len().min(dice.below(most + 1)));
        let ended = rest.is_empty();
        rest = behind;
        (!ended).then_some(piece)
    });
    let home = Home::new(b"");
    deliver(&home, pieces);
    assert_eq!(text(&home.content()), text(stored));
}

/// The fields that are ours are there once and right; no line can be taken for a `From_` line.
fn check_stored(stored: &[u8]) {
    let text = String::from_utf8_lossy(stored);
    let end = stored.windows(2).position(|two| two == b"\n\n").unwrap();
    let (header, body) = (&stored[..=end], &stored[end + 2..]);
    let body = body.strip_suffix(b"\n").unwrap();
    let mut lines = header.split_inclusive(|byte| *byte == b'\n');
    assert!(lines.next().unwrap().starts_with(b"From s@b.org Thu Jan  1 "), "{text}");
    let quoted = body.split(|byte| *byte == b'\n').any(is_quoted);
    let length = format!("Content-Length: {}\n", body.len());
    let mut ours = vec![b"Return-Path: <s@b.org>\n", &b"Delivered-To: u@c.org\n"[..]];
    ours.push(length.as_bytes());
    if quoted {
        ours.push(b"X-Mbox-Quoted: yes\n");
    }
    let room = ["Status", "X-Status", "X-Keywords"].map(|field| {
        let width = if field == "X-Keywords" { 150 } else { 10 };
        format!("{field}:{:width$}\n", "")
    });
    ours.extend(room.iter().map(String::as_bytes));
    for wanted in ours {
        assert_eq!(lines.next(), Some(wanted), "{text}");
    }
    for line in lines {
        let folded = line.starts_with(b" ") || line.starts_with(b"\t");
        let colon = line.iter().position(|byte| *byte == b':');
        let name = line[..colon.unwrap_or(0)].trim_ascii_end();
        assert!(folded || !fields::is_hidden(name), "{text}");
        assert!(!line.starts_with(b"From "), "{text}");
    }
    assert!(!body.split(|byte| *byte == b'\n').any(|line| line.starts_with(b"From ")), "{text}");
    assert!(body.is_empty() || body.ends_with(b"\n"), "{text}");
}

/// `^>+From `.
fn is_quoted(line: &[u8]) -> bool {
    let text = line.trim_ascii_start();
    let quotes = text.iter().take_while(|byte| **byte == b'>').count();
    text.len() == line.len() && quotes > 0 && line[quotes..].starts_with(b"From ")
}

/// The lines without their ends, which are CRLF or LF; what stands behind the last end is one, too.
fn lines(input: &[u8]) -> Vec<&[u8]> {
    let mut lines: Vec<&[u8]> = input.split(|byte| *byte == b'\n').collect();
    let last = lines.pop().unwrap_or_default();
    for line in &mut lines {
        *line = line.strip_suffix(b"\r").unwrap_or(line);
    }
    if !last.is_empty() {
        lines.push(last);
    }
    lines
}

/// A message divided as hikyaku-mbox(5) says.
struct Arrived<'a> {
    /// The header lines that stay.
    header: Vec<&'a [u8]>,
    body: &'a [&'a [u8]],
}

impl<'a> Arrived<'a> {
    fn of(lines: &'a [&'a [u8]]) -> Self {
        let mark = |line: &&&[u8]| line.starts_with(b"From ") || line.starts_with(b">From ");
        let mut rest = lines.get(lines.iter().take_while(mark).count()..).unwrap_or_default();
        let mut header = Vec::new();
        let mut kept = None;
        while let Some((line, behind)) = rest.split_first() {
            let folded = matches!(line.first(), Some(b' ' | b'\t')) && kept.is_some();
            if !folded {
                let Some(name) = fields::name(line).filter(|_| !line.starts_with(b"From ")) else {
                    break;
                };
                let is_path = name.eq_ignore_ascii_case(b"Return-Path");
                kept = Some(!fields::is_hidden(name) && !is_path);
            }
            if kept == Some(true) {
                header.push(*line);
            }
            rest = behind;
        }
        if let Some((first, behind)) = rest.split_first()
            && first.is_empty()
        {
            rest = behind;
        }
        Self { header, body: rest }
    }

    /// As a client gets it. A CR before a line end goes with it: it was no line end on the wire, and
    /// is half of one in a file.
    fn shown(&self) -> Vec<u8> {
        let ours: [&[u8]; 2] = [b"Return-Path: <s@b.org>", b"Delivered-To: u@c.org"];
        let blank: [&[u8]; 1] = [b""];
        let all = ours.iter().chain(&self.header).chain(&blank).chain(self.body);
        let mut shown = Vec::new();
        for line in all {
            shown.extend_from_slice(line.strip_suffix(b"\r").unwrap_or(line));
            shown.extend_from_slice(b"\r\n");
        }
        shown
    }
}

fn text(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
