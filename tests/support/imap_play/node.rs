//! What IMAP answers are made of.

use std::fmt::Write;

/// A part of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Node {
    /// A word, with the brackets that belong to it.
    Word(String),
    /// A quoted string or a literal.
    Text(String),
    /// A literal8.
    Binary(String),
    List(Vec<Node>),
    /// What stands in brackets behind OK, NO, BAD, BYE, PREAUTH.
    Code(Vec<Node>),
}

/// A response: its parts, and the words for people at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    pub nodes: Vec<Node>,
    pub words: Option<String>,
}

pub const CONDITIONS: [&str; 5] = ["OK", "NO", "BAD", "BYE", "PREAUTH"];

impl Response {
    /// Reads one. What stands in literals comes with LF for CRLF, `strict` where a server said it.
    pub fn read(text: &str, strict: bool) -> Result<Self, String> {
        // A bracket in a tag is one like any other character.
        let (first, rest) = text.split_once(' ').unwrap_or((text, ""));
        let mut reader = Reader { rest, strict };
        let mut nodes = vec![Node::Word(first.to_owned())];
        if first == "+" {
            return Ok(Self {
                nodes,
                words: Some(rest.to_owned()).filter(|rest| !rest.is_empty()),
            });
        }
        loop {
            let node = reader.node(&[])?;
            let is_condition = nodes.len() == 1
                && matches!(&node, Node::Word(word) if CONDITIONS.contains(&word.as_str()));
            nodes.push(node);
            if reader.rest.is_empty() {
                break;
            }
            reader.space()?;
            if is_condition && reader.rest.starts_with('[') {
                reader.rest = &reader.rest[1..];
                nodes.push(Node::Code(reader.nodes(']')?));
                reader.rest = reader.rest.strip_prefix(' ').unwrap_or(reader.rest);
            }
            if is_condition {
                let words = reader.rest.to_owned();
                return Ok(Self { nodes, words: Some(words).filter(|words| !words.is_empty()) });
            }
        }
        Ok(Self { nodes, words: None })
    }

    /// The word at this place.
    pub fn word(&self, at: usize) -> &str {
        match self.nodes.get(at) {
            Some(Node::Word(word)) => word,
            _ => "",
        }
    }

    /// What is untagged: its kind, and its number where it has one.
    pub fn kind(&self) -> (&str, Option<u32>) {
        match self.word(1).parse() {
            Ok(number) => (self.word(2), Some(number)),
            Err(_) => (self.word(1), None),
        }
    }

    /// The code of a condition.
    pub fn code(&self) -> Option<&[Node]> {
        match self.nodes.get(2) {
            Some(Node::Code(code)) => Some(code),
            _ => None,
        }
    }

    /// The items of a FETCH.
    pub fn items(&self) -> Vec<(&Node, &Node)> {
        match self.nodes.get(3) {
            Some(Node::List(list)) => {
                list.chunks_exact(2).map(|pair| (&pair[0], &pair[1])).collect()
            }
            _ => Vec::new(),
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    strict: bool,
}

impl Reader<'_> {
    fn space(&mut self) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(' ').ok_or(format!("no space at {:?}", self.rest))?;
        Ok(())
    }

    /// What stands up to a bracket, which is taken, too.
    fn nodes(&mut self, end: char) -> Result<Vec<Node>, String> {
        let mut nodes = Vec::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix(end) {
                self.rest = rest;
                return Ok(nodes);
            }
            if !nodes.is_empty() {
                // Lists of addresses follow each other without a space, and so do parts.
                let is_list = matches!(nodes.last(), Some(Node::List(_)));
                if !(is_list && self.rest.starts_with('(')) {
                    self.space()?;
                }
            }
            let node = self.node(&[end])?;
            nodes.push(node);
        }
    }

    fn node(&mut self, ends: &[char]) -> Result<Node, String> {
        if let Some(rest) = self.rest.strip_prefix('(') {
            self.rest = rest;
            return self.nodes(')').map(Node::List);
        }
        if let Some(rest) = self.rest.strip_prefix('"') {
            self.rest = rest;
            return self.quoted().map(Node::Text);
        }
        let binary = self.rest.starts_with("~{");
        if binary || self.rest.starts_with('{') {
            let text = self.literal(usize::from(binary) + 1)?;
            return Ok(if binary { Node::Binary(text) } else { Node::Text(text) });
        }
        self.word(ends).map(Node::Word)
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Ok(text);
                }
                '\\' => match chars.next() {
                    Some((_, c @ ('"' | '\\'))) => text.push(c),
                    _ => return Err("a backslash in quotes".into()),
                },
                '\n' => return Err("a line end in quotes".into()),
                c => text.push(c),
            }
        }
        Err("a quote stays open".into())
    }

    fn literal(&mut self, from: usize) -> Result<String, String> {
        let (size, rest) = self.rest[from..].split_once('}').ok_or("a brace stays open")?;
        if size == "..." {
            self.rest = rest;
            return Ok(size.to_owned());
        }
        let size: usize = size.parse().map_err(|_| format!("no size: {size}"))?;
        let rest = rest.strip_prefix('\n').ok_or("no line end behind a literal's size")?;
        let (mut at, mut octets) = (0, 0);
        while octets < size {
            let piece = &rest[at..];
            let c = piece.chars().next().ok_or(format!("a literal of {size} has {octets}"))?;
            let is_octet = piece.len() > 3
                && piece.starts_with("\\x")
                && piece[2..4].chars().all(|c| c.is_ascii_hexdigit());
            let (length, more) = match c {
                '\n' => (1, 2),
                _ if is_octet => (4, 1),
                c => (c.len_utf8(), c.len_utf8()),
            };
            (at, octets) = (at + length, octets + more);
        }
        let (text, rest) = rest.split_at(at);
        self.rest = rest;
        if octets == size {
            Ok(text.to_owned())
        } else {
            Err(format!("a literal of {size} octets has {octets}"))
        }
    }

    fn word(&mut self, ends: &[char]) -> Result<String, String> {
        let mut depth = 0;
        // Any other word may have one bracket alone.
        let has_section = ["BODY", "BINARY"].iter().any(|item| self.rest.starts_with(item));
        let end = self.rest.char_indices().find(|(_, c)| {
            match c {
                '[' if has_section => depth += 1,
                ']' if depth > 0 => {
                    depth -= 1;
                    return false;
                }
                _ => {}
            }
            depth == 0 && (matches!(c, ' ' | ')' | '\n' | '"') || ends.contains(c))
        });
        let (word, rest) = self.rest.split_at(end.map_or(self.rest.len(), |(at, _)| at));
        self.rest = rest;
        if word.is_empty() || self.strict && word.contains(|c: char| c.is_control()) {
            return Err(format!("a word is wanted at {rest:?}"));
        }
        Ok(word.to_owned())
    }
}

/// The size of the literal that a line announces.
pub fn size_of_literal(line: &str) -> Option<usize> {
    let digits = line.strip_suffix('}')?.rsplit_once('{')?.1;
    let digits = digits.strip_suffix('+').unwrap_or(digits);
    digits.parse().ok().filter(|_| digits.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Octets as a transcript has them: LF for CRLF, and `\xNN` for what is no character.
pub fn show(octets: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in octets.utf8_chunks() {
        let mut chars = chunk.valid().chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\r' if chars.peek() == Some(&'\n') => {
                    chars.next();
                    shown.push('\n');
                }
                c if c.is_control() && c != '\t' => {
                    write!(shown, "\\x{:02x}", u32::from(c)).unwrap();
                }
                c => shown.push(c),
            }
        }
        for byte in chunk.invalid() {
            write!(shown, "\\x{byte:02x}").unwrap();
        }
    }
    shown
}
