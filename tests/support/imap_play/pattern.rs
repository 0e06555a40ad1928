//! Whether an answer is what a transcript says.
//!
//! In a pattern `...` stands for anything: within a word, as a word, or in a list for any others.
//! `<name>` is a word that is remembered, and from then on that word; `<name+>` a larger number.
//! `\Flag?` may be missing.
//! The order of flags, of attributes and of the items of FETCH, STATUS and ESEARCH says nothing.

use std::collections::BTreeMap;

use super::super::transcript;
use super::node::{CONDITIONS, Node, Response};

/// The words that a transcript has remembered.
pub type Kept = BTreeMap<String, String>;

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
                response.words.as_ref().is_some_and(|said| transcript::matches(words, said))
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
        Some((last, rest)) if *last == more && rest.len().is_multiple_of(2) => (rest, true),
        _ => (pattern, false),
    };
    let are_pairs = pattern.len().is_multiple_of(2) && nodes.len().is_multiple_of(2);
    if !are_pairs || !open && pattern.len() != nodes.len() {
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
    transcript::matches(wanted, found)
}
