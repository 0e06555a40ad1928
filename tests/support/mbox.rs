//! A reader of mbox files that shares nothing with the one that is tested.
//!
//! It is as strict as our own files allow: `From ` after an empty line (or at the start) begins a
//! message. Content-Length is not believed, so that a line that should have been quoted shows.

/// One message of an mbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The `From ` line, without its line end.
    pub from_line: String,
    /// Header fields, names as written, continuation lines joined by `\n`.
    pub header: Vec<(String, String)>,
    /// The body as stored, without the empty line that ends the message.
    pub body: Vec<u8>,
}

impl Message {
    /// The first field of this name.
    pub fn field(&self, name: &str) -> Option<&str> {
        let mut fields = self.header.iter();
        fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// All fields of this name, first one first.
    pub fn fields(&self, name: &str) -> Vec<&str> {
        let fields = self.header.iter();
        fields
            .filter(|(field, _)| field.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect()
    }

    /// The body with `>From ` quoting taken off.
    pub fn text(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        body.split_inclusive('\n')
            .map(|line| {
                let quoted = line.trim_start_matches('>').starts_with("From ");
                line.strip_prefix('>').filter(|_| quoted).unwrap_or(line)
            })
            .collect()
    }
}

/// Splits an mbox into its messages; what stands before the first `From ` is a message, too, with
/// an empty From_ line, so that rubbish is never overlooked.
pub fn parse(mbox: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    let mut current: Vec<&[u8]> = Vec::new();
    let mut after_empty = true;
    for line in mbox.split_inclusive(|b| *b == b'\n') {
        if after_empty && line.starts_with(b"From ") && !current.is_empty() {
            messages.push(message(&current));
            current.clear();
        }
        after_empty = line == b"\n" || line == b"\r\n";
        current.push(line);
    }
    if !current.is_empty() {
        messages.push(message(&current));
    }
    messages
}

/// Splits an mbox that several programs have written: a Content-Length is believed where a
/// `From ` line or the end of the file follows what it counts, for not all of them quote. Messages
/// as they stand, without their `From ` line and without the blank line behind them.
pub fn split(mbox: &[u8]) -> Result<Vec<&[u8]>, String> {
    let mut messages = Vec::new();
    let mut rest = mbox;
    while !rest.is_empty() {
        let here = || format!("at {}", mbox.len() - rest.len());
        if !rest.starts_with(b"From ") {
            return Err(format!("{}: no From_ line: {}", here(), start(rest)));
        }
        let line = find(rest, b"\n").ok_or_else(here)? + 1;
        // The line end before the blank one counts: there may be no field at all.
        let header = find(&rest[line - 1..], b"\n\n").ok_or_else(here)? + line + 1;
        let counted = String::from_utf8_lossy(&rest[line..header])
            .lines()
            .find_map(|field| field.strip_prefix("Content-Length:")?.trim().parse().ok())
            .map(|length: usize| header + length)
            .filter(|end| {
                let next = rest.get(*end..);
                next.is_some_and(|next| next == b"\n" || next.starts_with(b"\nFrom "))
            });
        let end = counted.unwrap_or_else(|| {
            let next = find(&rest[header - 2..], b"\n\nFrom ").map(|at| header - 1 + at);
            next.unwrap_or_else(|| rest.strip_suffix(b"\n").unwrap_or(rest).len())
        });
        // A message without text whose writer ends it with no line more than its header's.
        let end = end.max(header);
        messages.push(&rest[line..end]);
        rest = rest.get(end..).unwrap_or_default();
        rest = rest.strip_prefix(b"\n").unwrap_or(rest);
    }
    Ok(messages)
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|window| window == what)
}

fn start(text: &[u8]) -> String {
    text[..text.len().min(200)].escape_ascii().to_string()
}

fn message(lines: &[&[u8]]) -> Message {
    let text = |line: &[u8]| String::from_utf8_lossy(line).trim_end().to_owned();
    let (from_line, rest) = match lines.split_first() {
        Some((first, rest)) if first.starts_with(b"From ") => (text(first), rest),
        _ => (String::new(), lines),
    };
    let mut header: Vec<(String, String)> = Vec::new();
    let mut body = Vec::new();
    let mut lines = rest.iter();
    for line in lines.by_ref() {
        if *line == b"\n" || *line == b"\r\n" {
            break;
        }
        let line = text(line);
        if let (true, Some((_, value))) = (line.starts_with([' ', '\t']), header.last_mut()) {
            value.push('\n');
            value.push_str(&line);
        } else {
            let (name, value) = line.split_once(':').unwrap_or((&line, ""));
            header.push((name.to_owned(), value.trim_start().to_owned()));
        }
    }
    for line in lines {
        body.extend_from_slice(line);
    }
    // The empty line between two messages belongs to neither.
    if body.ends_with(b"\n\n") || body == b"\n" {
        body.pop();
    }
    Message { from_line, header, body }
}
