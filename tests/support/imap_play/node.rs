//! What IMAP answers are made of, and whether one is what a pattern says.
//!
//! In a pattern `...` stands for anything: within a word, as a word, or in a list for any others.
//! `<name>` is a word that is remembered, and from then on that word; `<name+>` a larger number.
//! `\Flag?` may be missing.
//! The order of flags, of attributes and of the items of FETCH, STATUS and ESEARCH says nothing.

use std::collections::BTreeMap;

/// The words that a transcript has remembered.
pub type Kept = BTreeMap<String, String>;

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
        let mut reader = Reader { rest: text, strict };
        let mut nodes = Vec::new();
        loop {
            let node = reader.node(&[])?;
            let is_condition = nodes.len() == 1
                && matches!(&node, Node::Word(word) if CONDITIONS.contains(&word.as_str()));
            let goes_on = nodes.is_empty() && node == Node::Word("+".into());
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
            if is_condition || goes_on {
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
        let end = self.rest.char_indices().find(|(_, c)| {
            match c {
                '[' => depth += 1,
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

/// Whether a response is what the pattern says; what it remembers is `kept`.
pub fn matches(pattern: &Response, response: &Response, kept: &mut Kept) -> bool {
    let mut new = kept.clone();
    let (kind, _) = response.kind();
    let is_condition = CONDITIONS.contains(&kind);
    let found = if is_condition && pattern.words.as_deref() == Some("...") {
        // Whatever the code.
        let length = pattern.nodes.len();
        length <= response.nodes.len() && all(&pattern.nodes, &response.nodes[..length], &mut new)
    } else {
        let nodes = match kind {
            "STATUS" if response.nodes.len() == 4 => pairs_at(3, pattern, response, &mut new),
            "FETCH" => pairs_at(3, pattern, response, &mut new),
            "LIST" | "LSUB" => {
                pattern.nodes.len() == response.nodes.len()
                    && pattern.nodes.len() > 4
                    && attributes(&pattern.nodes[2], &response.nodes[2], &mut new)
                    && all(&pattern.nodes[..2], &response.nodes[..2], &mut new)
                    && all(&pattern.nodes[3..], &response.nodes[3..], &mut new)
            }
            "CAPABILITY" | "ENABLED" => set(&pattern.nodes, &response.nodes, &mut new),
            "ESEARCH" => esearch(pattern, response, &mut new),
            _ => all(&pattern.nodes, &response.nodes, &mut new),
        };
        nodes
            && pattern.words.as_ref().is_none_or(|words| {
                response
                    .words
                    .as_ref()
                    .is_some_and(|said| super::super::transcript::matches(words, said))
            })
    };
    if found {
        *kept = new;
    }
    found
}

/// Flags and attributes, in any order.
fn attributes(pattern: &Node, node: &Node, kept: &mut Kept) -> bool {
    match (pattern, node) {
        (Node::List(pattern), Node::List(nodes)) => set(pattern, nodes, kept),
        _ => one(pattern, node, kept),
    }
}

/// What stands before a list, and the list's names and values in any order.
fn pairs_at(at: usize, pattern: &Response, response: &Response, kept: &mut Kept) -> bool {
    let (Some((before, [Node::List(wanted)])), Some((said, [Node::List(found)]))) =
        (pattern.nodes.split_at_checked(at), response.nodes.split_at_checked(at))
    else {
        return all(&pattern.nodes, &response.nodes, kept);
    };
    all(before, said, kept) && pairs(wanted, found, kept)
}

fn pairs(pattern: &[Node], nodes: &[Node], kept: &mut Kept) -> bool {
    let more = Node::Word("...".into());
    let (pattern, open) = match pattern.split_last() {
        Some((last, rest)) if *last == more && rest.len() % 2 == 0 => (rest, true),
        _ => (pattern, false),
    };
    if pattern.len() % 2 != 0 || nodes.len() % 2 != 0 || !open && pattern.len() != nodes.len() {
        return false;
    }
    let mut left: Vec<&[Node]> = nodes.chunks(2).collect();
    pattern.chunks(2).all(|wanted| {
        let at = left.iter().position(|found| {
            one(&wanted[0], &found[0], kept)
                && if wanted[0] == Node::Word("FLAGS".into()) {
                    attributes(&wanted[1], &found[1], kept)
                } else {
                    one(&wanted[1], &found[1], kept)
                }
        });
        at.map(|at| left.swap_remove(at)).is_some()
    })
}

/// `ESEARCH`, perhaps a tag, perhaps UID, and then pairs.
fn esearch(pattern: &Response, response: &Response, kept: &mut Kept) -> bool {
    let head = |nodes: &[Node]| {
        let is_head = |node: &Node| matches!(node, Node::List(_)) || *node == word("UID");
        2 + nodes.iter().skip(2).take_while(|node| is_head(node)).count()
    };
    let (wanted, data) = pattern.nodes.split_at(head(&pattern.nodes).min(pattern.nodes.len()));
    let (said, found) = response.nodes.split_at(head(&response.nodes).min(response.nodes.len()));
    all(wanted, said, kept) && pairs(data, found, kept)
}

fn word(text: &str) -> Node {
    Node::Word(text.to_owned())
}

/// In any order; `...` are any others.
fn set(pattern: &[Node], nodes: &[Node], kept: &mut Kept) -> bool {
    let more = word("...");
    let open = pattern.contains(&more);
    let mut left: Vec<&Node> = nodes.iter().collect();
    let found = pattern.iter().filter(|wanted| **wanted != more).all(|wanted| {
        let (wanted, optional) = match wanted {
            Node::Word(word) if word.ends_with('?') => {
                (&self::word(word.trim_end_matches('?')), true)
            }
            wanted => (wanted, false),
        };
        let at = left.iter().position(|found| one(wanted, found, kept));
        at.map(|at| left.swap_remove(at)).is_some() || optional
    });
    found && (open || left.is_empty())
}

/// In this order; `...` are any number of others.
fn all(pattern: &[Node], nodes: &[Node], kept: &mut Kept) -> bool {
    match (pattern.split_first(), nodes.split_first()) {
        (None, None) => true,
        (Some((Node::Word(any), rest)), _) if any == "..." => {
            (0..=nodes.len()).any(|skipped| all(rest, &nodes[skipped..], kept))
        }
        (Some((wanted, pattern)), Some((found, nodes))) => {
            // The flags of a mailbox.
            let is_flags = matches!(wanted, Node::Word(word)
                if word == "FLAGS" || word == "PERMANENTFLAGS" || word == "BADCHARSET");
            if let (true, [list, pattern @ ..], [flags, nodes @ ..]) = (is_flags, pattern, nodes) {
                return one(wanted, found, kept)
                    && attributes(list, flags, kept)
                    && all(pattern, nodes, kept);
            }
            if matches!(wanted, Node::Word(word) if word == "CAPABILITY") && wanted == found {
                return set(pattern, nodes, kept);
            }
            one(wanted, found, kept) && all(pattern, nodes, kept)
        }
        _ => false,
    }
}

fn one(pattern: &Node, node: &Node, kept: &mut Kept) -> bool {
    match (pattern, node) {
        (Node::Word(any), _) if any == "..." => true,
        // What is an atom may be quoted.
        (Node::Word(wanted), Node::Word(found) | Node::Text(found) | Node::Binary(found)) => {
            fits(wanted, found, kept)
        }
        (Node::Text(wanted), Node::Word(found)) => wanted == found && found != "NIL",
        // What could be a literal may be a literal8.
        (Node::Text(wanted) | Node::Binary(wanted), Node::Binary(found))
        | (Node::Text(wanted), Node::Text(found)) => fits(wanted, found, kept),
        (Node::List(wanted), Node::List(found)) | (Node::Code(wanted), Node::Code(found)) => {
            all(wanted, found, kept)
        }
        _ => false,
    }
}

/// Whether a word is what is wanted.
fn fits(wanted: &str, found: &str, kept: &mut Kept) -> bool {
    if let Some(name) = wanted.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
        if let Some(name) = name.strip_suffix('+') {
            let number = |text: &str| text.parse::<u64>().ok();
            let before = kept.get(name).and_then(|kept| number(kept));
            return before.is_some() && number(found) > before;
        }
        if name.chars().all(char::is_alphabetic) {
            return kept.entry(name.to_owned()).or_insert_with(|| found.to_owned()) == found;
        }
    }
    if wanted.starts_with('\\') {
        return wanted.eq_ignore_ascii_case(found);
    }
    super::super::transcript::matches(wanted, found)
}
