//! SEARCH: whether a message is one that is searched for (RFC 9051 section 6.4.4).
//!
//! What is cheap is asked first: flags, numbers and dates, then the header, then the text. The text
//! of a message is read once for all that is searched in it, and decoded: its transfer encoding, its
//! charset, and what differs but in case or width ([`fold`]).

mod candidate;
mod header;
mod needles;

use jiff::civil::Date;

use crate::imap::command::{Flag, Key, Moment, Relation, Search, SequenceSet};
use crate::mailbox::store::Store;
use crate::mailbox::uids::{Uid, UidSet};
use crate::mailbox::{Error, Structures};
use crate::text::charset;
use crate::text::fold::fold;
use candidate::Candidate;
use needles::Needles;

/// The charsets that are named to a client whose own is unknown; there are more.
pub const CHARSETS: [&str; 6] =
    ["US-ASCII", "UTF-8", "ISO-8859-1", "ISO-2022-JP", "Shift_JIS", "EUC-JP"];

/// The charset of a search is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadCharset;

/// What numbers in a search refer to.
pub struct Context<'a> {
    /// The largest number of a message.
    pub largest_number: u32,
    /// The largest UID of one.
    pub largest_uid: Uid,
    /// What the last search has saved.
    pub saved: &'a UidSet,
}

/// A search that is made ready.
#[derive(Debug)]
pub struct Program {
    root: Node,
    /// What is searched in texts; the nodes have their places.
    needles: Needles,
    /// What `$` is.
    saved: UidSet,
}

/// What is asked of a message; strings are folded.
#[derive(Debug)]
enum Node {
    All,
    Numbers(UidSet),
    Uids(UidSet),
    Saved,
    Has(Flag),
    Recent,
    Arrived(Relation, Date),
    Sent(Relation, Date),
    Larger(u64),
    Smaller(u64),
    ModSeq(u64),
    Field(Vec<u8>, String),
    /// The needle at this place.
    Text(usize),
    Not(Box<Self>),
    Or(Vec<Self>),
    And(Vec<Self>),
}

impl Node {
    /// What it costs to ask: 1 reads the header, 2 the text.
    fn cost(&self) -> u8 {
        match self {
            Self::Text(_) => 2,
            Self::Field(..) | Self::Sent(..) => 1,
            Self::Not(one) => one.cost(),
            Self::Or(all) | Self::And(all) => all.iter().map(Self::cost).max().unwrap_or(0),
            _ => 0,
        }
    }
}

/// Makes a search ready.
pub fn prepare(search: &Search, context: &Context<'_>) -> Result<Program, BadCharset> {
    let charset = search.charset.as_deref();
    if charset.is_some_and(|name| charset::named(name).is_none()) {
        return Err(BadCharset);
    }
    let mut making = Making { context, charset, needles: Needles::default() };
    let root = Node::And(making.nodes(&search.keys));
    Ok(Program { root, needles: making.needles, saved: context.saved.clone() })
}

struct Making<'a> {
    context: &'a Context<'a>,
    charset: Option<&'a [u8]>,
    needles: Needles,
}

impl Making<'_> {
    /// What costs least comes first.
    fn nodes(&mut self, keys: &[Key]) -> Vec<Node> {
        let mut nodes: Vec<Node> = keys.iter().map(|key| self.node(key)).collect();
        nodes.sort_by_cached_key(Node::cost);
        nodes
    }

    fn folded(&self, text: &[u8]) -> String {
        fold(&charset::text(self.charset, text))
    }

    fn text(&mut self, text: &[u8], header: bool) -> Node {
        let folded = self.folded(text);
        if folded.is_empty() {
            return Node::All;
        }
        Node::Text(self.needles.add(&folded, header))
    }

    fn node(&mut self, key: &Key) -> Node {
        let saved = |set: &SequenceSet| *set == SequenceSet::Saved;
        match key {
            Key::All => Node::All,
            Key::Numbers(set) | Key::Uids(set) if saved(set) => Node::Saved,
            Key::Numbers(set) => Node::Numbers(resolved(set, self.context.largest_number)),
            Key::Uids(set) => Node::Uids(resolved(set, self.context.largest_uid)),
            Key::Has(flag) => Node::Has(flag.clone()),
            Key::HasNot(flag) => Node::Not(Box::new(Node::Has(flag.clone()))),
            Key::Recent => Node::Recent,
            Key::Old => Node::Not(Box::new(Node::Recent)),
            Key::New => {
                let seen = Node::Has(Flag::Seen);
                Node::And(vec![Node::Recent, Node::Not(Box::new(seen))])
            }
            Key::Header { field, text } => Node::Field(field.clone(), self.folded(text)),
            Key::Body(text) => self.text(text, false),
            Key::Text(text) => self.text(text, true),
            Key::Date(Moment::Arrived, relation, date) => Node::Arrived(*relation, *date),
            Key::Date(Moment::Sent, relation, date) => Node::Sent(*relation, *date),
            Key::Larger(size) => Node::Larger(*size),
            Key::Smaller(size) => Node::Smaller(*size),
            Key::ModSeq(modseq) => Node::ModSeq(*modseq),
            Key::Not(key) => Node::Not(Box::new(self.node(key))),
            Key::Or(keys) => Node::Or(self.nodes(keys)),
            Key::And(keys) => Node::And(self.nodes(keys)),
        }
    }
}

fn resolved(set: &SequenceSet, largest: u32) -> UidSet {
    let mut all = UidSet::new();
    for range in set.ranges(largest) {
        all.insert_range(range);
    }
    all
}

impl Program {
    /// Whether message `number` of a mailbox, which has this UID, is one that is searched for; one
    /// that is gone is not.
    pub fn matches(
        &self,
        store: &mut dyn Store,
        structures: &mut Structures,
        number: u32,
        uid: Uid,
        recent: bool,
    ) -> Result<bool, Error> {
        let Some(message) = store.message(uid)? else {
            return Ok(false);
        };
        let mut asked = Asked {
            message: Candidate::new(&self.needles, store, structures, message),
            saved: &self.saved,
            number,
            recent,
        };
        match asked.is(&self.root) {
            Err(Error::Changed) => Ok(false),
            result => result,
        }
    }
}

/// A message that is asked for all of a program.
struct Asked<'a> {
    message: Candidate<'a>,
    saved: &'a UidSet,
    number: u32,
    recent: bool,
}

impl Asked<'_> {
    fn is(&mut self, node: &Node) -> Result<bool, Error> {
        let message = &mut self.message;
        Ok(match node {
            Node::All => true,
            Node::Numbers(set) => set.contains(self.number),
            Node::Uids(set) => set.contains(message.known.uid),
            Node::Saved => self.saved.contains(message.known.uid),
            Node::Has(flag) => message.has(flag),
            Node::Recent => self.recent,
            Node::Arrived(relation, date) => stands(message.arrived(), *relation, *date),
            Node::Sent(relation, date) => {
                message.sent()?.is_some_and(|day| stands(day, *relation, *date))
            }
            Node::Larger(size) => message.known.size > *size,
            Node::Smaller(size) => message.known.size < *size,
            Node::ModSeq(modseq) => message.known.modseq >= *modseq,
            Node::Field(name, text) => message.has_field(name, text)?,
            Node::Text(at) => message.has_text(*at)?,
            Node::Not(node) => !self.is(node)?,
            Node::Or(all) => {
                for node in all {
                    if self.is(node)? {
                        return Ok(true);
                    }
                }
                false
            }
            Node::And(all) => {
                for node in all {
                    if !self.is(node)? {
                        return Ok(false);
                    }
                }
                true
            }
        })
    }
}

fn stands(day: Date, relation: Relation, date: Date) -> bool {
    match relation {
        Relation::Before => day < date,
        Relation::On => day == date,
        Relation::Since => day >= date,
    }
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
