//! SEARCH: whether a message is one that is searched for (RFC 9051 section 6.4.4).
//!
//! What is cheap is asked first: flags, numbers and dates, then the header, then the text. The text
//! of a message is read once for all that is searched in it, and decoded: its transfer encoding, its
//! charset, and what differs but in case or width ([`fold`]).

use std::ops::Range;

use encoding_rs::{CoderResult, Encoding, ISO_2022_JP, UTF_8, WINDOWS_1252};
use jiff::civil::Date;

use super::view::system_flag;
use crate::imap::command::{Flag, Key, Moment, Relation, Search, SequenceSet};
use crate::mailbox::store::{Message, Store, keyword};
use crate::mailbox::uids::{Uid, UidSet};
use crate::mailbox::{Error, Structures};
use crate::message::date;
use crate::message::structure::{Content, Part, Structure};
use crate::message::transfer::Decoder;
use crate::sys::clock;
use crate::text::fold::fold;

/// So much of a header is looked at.
const MOST_HEADER: u64 = 1024 * 1024;

/// So much text is searched at once.
const PIECE: usize = 32 * 1024;

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
    needles: Vec<Needle>,
}

#[derive(Debug)]
struct Needle {
    folded: String,
    /// In the header, too.
    header: bool,
}

#[derive(Debug)]
enum Node {
    All,
    Numbers(UidSet),
    Uids(UidSet),
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
    Or(Box<[Self; 2]>),
    And(Vec<Self>),
}

impl Node {
    /// What it costs to ask.
    fn cost(&self) -> u8 {
        match self {
            Self::Text(_) => 2,
            Self::Field(..) | Self::Sent(..) => 1,
            Self::Not(one) => one.cost(),
            Self::Or(both) => both.iter().map(Self::cost).max().unwrap_or(0),
            Self::And(all) => all.iter().map(Self::cost).max().unwrap_or(0),
            _ => 0,
        }
    }
}

/// Makes a search ready.
pub fn prepare(search: &Search, context: &Context<'_>) -> Result<Program, BadCharset> {
    let charset = match &search.charset {
        None => UTF_8,
        Some(name) => Encoding::for_label(name).ok_or(BadCharset)?,
    };
    let mut making = Making { context, charset, needles: Vec::new() };
    let root = making.all(&search.keys);
    Ok(Program { root, needles: making.needles })
}

struct Making<'a> {
    context: &'a Context<'a>,
    charset: &'static Encoding,
    needles: Vec<Needle>,
}

impl Making<'_> {
    fn all(&mut self, keys: &[Key]) -> Node {
        let mut nodes: Vec<Node> = keys.iter().map(|key| self.node(key)).collect();
        nodes.sort_by_key(Node::cost);
        Node::And(nodes)
    }

    fn folded(&self, text: &[u8]) -> String {
        fold(&self.charset.decode_without_bom_handling(text).0)
    }

    fn text(&mut self, text: &[u8], header: bool) -> Node {
        let folded = self.folded(text);
        if folded.is_empty() {
            return Node::All;
        }
        self.needles.push(Needle { folded, header });
        Node::Text(self.needles.len().saturating_sub(1))
    }

    fn node(&mut self, key: &Key) -> Node {
        let saved = |set: &SequenceSet| *set == SequenceSet::Saved;
        match key {
            Key::All => Node::All,
            Key::Numbers(set) | Key::Uids(set) if saved(set) => {
                Node::Uids(self.context.saved.clone())
            }
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
            Key::Or(one, other) => {
                let mut both = [self.node(one), self.node(other)];
                both.sort_by_key(Node::cost);
                Node::Or(Box::new(both))
            }
            Key::And(keys) => self.all(keys),
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

/// A message that is looked at.
struct Candidate<'a> {
    program: &'a Program,
    store: &'a mut dyn Store,
    structures: &'a mut Structures,
    message: Message,
    number: u32,
    recent: bool,
    header: Option<Vec<Field>>,
    /// Which needles are in it.
    texts: Option<Vec<bool>>,
}

/// A field of a header: its name, and what it says.
type Field = (Vec<u8>, Vec<u8>);

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
        let Some(message) = store.message(uid).copied() else {
            return Ok(false);
        };
        let mut candidate = Candidate {
            program: self,
            store,
            structures,
            message,
            number,
            recent,
            header: None,
            texts: None,
        };
        match candidate.is(&self.root) {
            Err(Error::Changed) => Ok(false),
            result => result,
        }
    }
}

impl Candidate<'_> {
    fn is(&mut self, node: &Node) -> Result<bool, Error> {
        Ok(match node {
            Node::All => true,
            Node::Numbers(set) => set.contains(self.number),
            Node::Uids(set) => set.contains(self.message.uid),
            Node::Has(flag) => self.has(flag),
            Node::Recent => self.recent,
            Node::Arrived(relation, date) => {
                let time = jiff::Timestamp::from_second(self.message.date).unwrap_or_default();
                let day = clock::zone().to_datetime(time).date();
                stands(day, *relation, *date)
            }
            Node::Sent(relation, date) => {
                let header = self.header()?;
                let sent = header.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"Date"));
                let sent = sent.and_then(|(_, value)| date::parse(value));
                sent.is_some_and(|sent| stands(sent.day, *relation, *date))
            }
            Node::Larger(size) => self.message.size > *size,
            Node::Smaller(size) => self.message.size < *size,
            Node::ModSeq(modseq) => self.message.modseq >= *modseq,
            Node::Field(name, needle) => self
                .header()?
                .iter()
                .filter(|(other, _)| other.eq_ignore_ascii_case(name))
                .any(|(_, value)| needle.is_empty() || fold(&decoded(value)).contains(needle)),
            Node::Text(at) => {
                if self.texts.is_none() {
                    self.texts = Some(self.look()?);
                }
                self.texts.as_ref().and_then(|found| found.get(*at)).copied().unwrap_or(false)
            }
            Node::Not(node) => !self.is(node)?,
            Node::Or(both) => {
                let [one, other] = &**both;
                self.is(one)? || self.is(other)?
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

    fn has(&self, flag: &Flag) -> bool {
        let marks = self.message.marks;
        match system_flag(flag) {
            Some(flag) => marks.flags.has(flag),
            None => keyword(self.store.keywords(), flag.as_str())
                .is_some_and(|bit| marks.keywords & bit != 0),
        }
    }

    fn header(&mut self) -> Result<&[Field], Error> {
        if self.header.is_none() {
            let end = u64::from(self.message.header).min(MOST_HEADER);
            let mut text = Vec::new();
            self.store.read(self.message.uid, 0..end, &mut |octets| {
                text.extend_from_slice(octets);
                Ok(())
            })?;
            self.header = Some(fields(&text));
        }
        Ok(self.header.as_deref().unwrap_or_default())
    }

    /// Looks for all needles.
    fn look(&mut self) -> Result<Vec<bool>, Error> {
        let structure = self.structures.of(self.store, self.message.uid)?;
        let mut hunt = Hunt::new(&self.program.needles);
        self.message_text(&structure, true, &mut hunt)?;
        Ok(hunt.found)
    }

    /// The header of a message, and its texts.
    fn message_text(
        &mut self,
        message: &Structure,
        outermost: bool,
        hunt: &mut Hunt<'_>,
    ) -> Result<(), Error> {
        let header = message.root.header();
        let end = header.end.min(header.start.saturating_add(MOST_HEADER));
        let mut text = Vec::new();
        self.store.read(self.message.uid, header.start..end, &mut |octets| {
            text.extend_from_slice(octets);
            Ok(())
        })?;
        for (name, value) in fields(&text) {
            hunt.push(&String::from_utf8_lossy(&name), outermost);
            hunt.push(": ", outermost);
            hunt.push(&decoded(&value), outermost);
            hunt.push("\n", outermost);
        }
        hunt.finish(outermost);
        self.part_text(&message.root, hunt)
    }

    fn part_text(&mut self, part: &Part, hunt: &mut Hunt<'_>) -> Result<(), Error> {
        if hunt.is_over() {
            return Ok(());
        }
        match &part.content {
            Content::Multipart(parts) => {
                for part in parts {
                    self.part_text(part, hunt)?;
                }
                Ok(())
            }
            Content::Message(message) => self.message_text(message, false, hunt),
            Content::Text => self.leaf(part, part.text(), hunt),
            Content::Other => Ok(()),
        }
    }

    fn leaf(&mut self, part: &Part, range: Range<u64>, hunt: &mut Hunt<'_>) -> Result<(), Error> {
        let Some(mut decoder) = Decoder::of(part.encoding.as_deref()) else {
            return Ok(());
        };
        let charset = part.parameters.iter().find(|p| p.name.eq_ignore_ascii_case(b"charset"));
        let charset = charset.map(|charset| charset.value.as_slice());
        let mut text = Decoding::new(charset);
        self.store.read(self.message.uid, range, &mut |octets| {
            decoder.push(octets, &mut |octets| text.push(octets, false, hunt));
            Ok(())
        })?;
        decoder.finish(&mut |octets| text.push(octets, false, hunt));
        text.push(b"", true, hunt);
        hunt.finish(false);
        Ok(())
    }
}

fn stands(day: Date, relation: Relation, date: Date) -> bool {
    match relation {
        Relation::Before => day < date,
        Relation::On => day == date,
        Relation::Since => day >= date,
    }
}

/// A charset that is taken off as the octets come.
struct Decoding(encoding_rs::Decoder);

impl Decoding {
    /// Where none is named it is UTF-8, as all that is ASCII is, too.
    fn new(name: Option<&[u8]>) -> Self {
        let named = name.filter(|name| !name.eq_ignore_ascii_case(b"us-ascii"));
        let charset = named.map_or(UTF_8, |name| Encoding::for_label(name).unwrap_or(WINDOWS_1252));
        Self(charset.new_decoder_without_bom_handling())
    }

    fn push(&mut self, mut octets: &[u8], last: bool, hunt: &mut Hunt<'_>) {
        let mut text = String::with_capacity(PIECE);
        loop {
            text.clear();
            let (result, read, _) = self.0.decode_to_string(octets, &mut text, last);
            hunt.push(&text, false);
            octets = octets.get(read..).unwrap_or_default();
            if result == CoderResult::InputEmpty {
                return;
            }
        }
    }
}

/// A search for several needles in one text.
struct Hunt<'a> {
    needles: &'a [Needle],
    found: Vec<bool>,
    /// What was not searched yet, and before it what may be the beginning of a needle.
    text: String,
    /// So many bytes of that are kept from one piece to the next.
    keep: usize,
}

impl<'a> Hunt<'a> {
    fn new(needles: &'a [Needle]) -> Self {
        let longest = needles.iter().map(|needle| needle.folded.len()).max().unwrap_or(0);
        // What is folded may have been longer.
        let keep = longest.saturating_mul(4).saturating_add(64);
        Self { needles, found: vec![false; needles.len()], text: String::new(), keep }
    }

    fn is_over(&self) -> bool {
        self.found.iter().all(|found| *found)
    }

    fn push(&mut self, text: &str, outermost: bool) {
        self.text.push_str(text);
        if self.text.len() > PIECE.max(self.keep.saturating_mul(2)) {
            self.search(outermost);
            let mut from = self.text.len().saturating_sub(self.keep);
            while !self.text.is_char_boundary(from) {
                from = from.saturating_sub(1);
            }
            self.text.drain(..from);
        }
    }

    /// The text is over; what comes is another one. `outermost`: it was the header of the message.
    fn finish(&mut self, outermost: bool) {
        self.search(outermost);
        self.text.clear();
    }

    fn search(&mut self, outermost: bool) {
        let folded = fold(&self.text);
        for (needle, found) in self.needles.iter().zip(&mut self.found) {
            if !*found && (needle.header || !outermost) {
                *found =
                    memchr::memmem::find(folded.as_bytes(), needle.folded.as_bytes()).is_some();
            }
        }
    }
}

/// The fields of a header, unfolded.
fn fields(header: &[u8]) -> Vec<Field> {
    let mut fields: Vec<Field> = Vec::new();
    for line in header.split(|octet| *octet == b'\n') {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        if let Some(b' ' | b'\t') = line.first() {
            if let Some((_, value)) = fields.last_mut() {
                value.extend_from_slice(line);
            }
        } else if let Some(colon) = memchr::memchr(b':', line) {
            let (name, value) = line.split_at(colon);
            let value = value.get(1..).unwrap_or_default().trim_ascii();
            fields.push((name.trim_ascii_end().to_vec(), value.to_vec()));
        }
    }
    fields
}

/// What a field says: its encoded words (RFC 2047) decoded, and octets outside ASCII taken for what
/// they most likely are.
fn decoded(value: &[u8]) -> String {
    let text = if value.contains(&0x1b) {
        ISO_2022_JP.decode_without_bom_handling(value).0
    } else if let Ok(text) = str::from_utf8(value) {
        text.into()
    } else {
        WINDOWS_1252.decode_without_bom_handling(value).0
    };
    if memchr::memmem::find(text.as_bytes(), b"=?").is_none() {
        return text.into_owned();
    }
    let field = ["X: ", &text].concat();
    match mailparse::parse_header(field.as_bytes()) {
        Ok((header, _)) => header.get_value_utf8().unwrap_or_else(|_| text.into_owned()),
        Err(_) => text.into_owned(),
    }
}
