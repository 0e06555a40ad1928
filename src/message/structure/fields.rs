//! The fields of a header that a structure is made of: gathered as the lines go by, then read.

use super::addresses::address_list;
use super::lexer::Lexer;
use super::{Disposition, Envelope, MAX_ADDRESSES, MAX_FIELDS, MAX_PARAMETERS, Parameter, Part};

/// The most octets of one field.
pub(super) const MAX_FIELD: usize = 1 << 20;

/// What a field takes beside its octets: there may be many that are empty.
const FIELD_COST: usize = 64;

/// What may still be kept of a message.
#[derive(Debug)]
pub(super) struct Budget {
    pub octets: usize,
    pub addresses: usize,
    pub parameters: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { octets: MAX_FIELDS, addresses: MAX_ADDRESSES, parameters: MAX_PARAMETERS }
    }
}

/// Takes one from a budget, if there is one left.
pub(super) fn spend(left: &mut usize) -> bool {
    let Some(less) = left.checked_sub(1) else {
        return false;
    };
    *left = less;
    true
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Date,
    Subject,
    From,
    Sender,
    ReplyTo,
    To,
    Cc,
    Bcc,
    InReplyTo,
    MessageId,
    Type,
    Id,
    Description,
    Encoding,
    Md5,
    Disposition,
    Language,
    Location,
}

const OF_MESSAGES: [(&[u8], Name); 10] = [
    (b"date", Name::Date),
    (b"subject", Name::Subject),
    (b"from", Name::From),
    (b"sender", Name::Sender),
    (b"reply-to", Name::ReplyTo),
    (b"to", Name::To),
    (b"cc", Name::Cc),
    (b"bcc", Name::Bcc),
    (b"in-reply-to", Name::InReplyTo),
    (b"message-id", Name::MessageId),
];

const OF_PARTS: [(&[u8], Name); 8] = [
    (b"content-type", Name::Type),
    (b"content-id", Name::Id),
    (b"content-description", Name::Description),
    (b"content-transfer-encoding", Name::Encoding),
    (b"content-md5", Name::Md5),
    (b"content-disposition", Name::Disposition),
    (b"content-language", Name::Language),
    (b"content-location", Name::Location),
];

/// The fields of one header.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// The header is that of a message.
    of_message: bool,
    kept: Vec<(Name, Vec<u8>)>,
    /// The last line belongs to the last field that was kept.
    within: bool,
}

impl Fields {
    pub fn new(of_message: bool) -> Self {
        Self { of_message, ..Self::default() }
    }

    /// A line of the header, without its end.
    pub fn push(&mut self, line: &[u8], budget: &mut Budget) {
        let text = if matches!(line.first(), Some(b' ' | b'\t')) {
            line
        } else {
            self.within = false;
            let Some(colon) = memchr::memchr(b':', line) else { return };
            let (name, value) = line.split_at(colon);
            let Some(name) = self.name(name.trim_ascii_end()) else { return };
            let Some(left) = budget.octets.checked_sub(FIELD_COST) else { return };
            budget.octets = left;
            self.kept.push((name, Vec::new()));
            self.within = true;
            value.get(1..).unwrap_or_default()
        };
        if self.within
            && let Some((_, kept)) = self.kept.last_mut()
        {
            let room = budget.octets.min(MAX_FIELD.saturating_sub(kept.len()));
            let text = text.get(..room).unwrap_or(text);
            kept.extend_from_slice(text);
            budget.octets -= text.len();
        }
    }

    /// The name of a field that counts.
    fn name(&self, name: &[u8]) -> Option<Name> {
        let of_messages = if self.of_message { &OF_MESSAGES[..] } else { &[] };
        let mut all = of_messages.iter().chain(&OF_PARTS);
        all.find(|(wanted, _)| wanted.eq_ignore_ascii_case(name)).map(|(_, name)| *name)
    }

    /// The envelope that they say.
    pub fn envelope(&self, budget: &mut Budget) -> Envelope {
        let mut envelope = Envelope::default();
        for (name, value) in &self.kept {
            let list = match name {
                Name::From => &mut envelope.from,
                Name::Sender => &mut envelope.sender,
                Name::ReplyTo => &mut envelope.reply_to,
                Name::To => &mut envelope.to,
                Name::Cc => &mut envelope.cc,
                Name::Bcc => &mut envelope.bcc,
                _ => continue,
            };
            // Several fields are as one: so nobody is shown another author than somebody else.
            address_list(value, list, &mut budget.addresses);
        }
        envelope.date = self.text(Name::Date);
        envelope.subject = self.text(Name::Subject);
        envelope.in_reply_to = self.text(Name::InReplyTo);
        envelope.message_id = self.text(Name::MessageId);
        envelope
    }

    /// What they say of the part.
    pub fn part(&self, budget: &mut Budget) -> Part {
        let limit = &mut budget.parameters;
        let mut part = Part {
            id: self.text(Name::Id),
            description: self.text(Name::Description),
            encoding: self.first(Name::Encoding).and_then(encoding),
            md5: self.text(Name::Md5),
            disposition: self.first(Name::Disposition).and_then(|v| disposition(v, limit)),
            location: self.text(Name::Location),
            ..Part::default()
        };
        if let Some(value) = self.first(Name::Language) {
            part.languages = languages(value, limit);
        }
        if let Some(value) = self.first(Name::Type) {
            content_type(value, &mut part, limit);
        }
        part
    }

    fn first(&self, wanted: Name) -> Option<&[u8]> {
        self.kept.iter().find(|(name, _)| *name == wanted).map(|(_, value)| value.as_slice())
    }

    fn text(&self, wanted: Name) -> Option<Vec<u8>> {
        self.first(wanted).map(|value| value.trim_ascii_start().to_vec())
    }
}

/// `Content-Type = type "/" subtype *(";" parameter)` (RFC 2045 section 5.1). What can't be read so
/// far has no parameters.
fn content_type(value: &[u8], part: &mut Part, limit: &mut usize) {
    let mut lexer = Lexer::new(value);
    lexer.skip();
    part.kind = lexer.token().to_vec();
    lexer.skip();
    if !lexer.eat(b'/') {
        return;
    }
    lexer.skip();
    part.subtype = lexer.token().to_vec();
    lexer.skip();
    if matches!(lexer.peek(), None | Some(b';')) {
        part.parameters = parameters(lexer, limit);
    }
}

/// `mechanism`; `None` where something else stands behind it, too.
fn encoding(value: &[u8]) -> Option<Vec<u8>> {
    let mut lexer = Lexer::new(value);
    lexer.skip();
    let token = lexer.token();
    lexer.skip();
    (!token.is_empty() && lexer.peek().is_none()).then(|| token.to_vec())
}

/// `disposition-type *(";" parameter)` (RFC 2183 section 2).
fn disposition(value: &[u8], limit: &mut usize) -> Option<Disposition> {
    let mut lexer = Lexer::new(value);
    lexer.skip();
    let value = lexer.token().to_vec();
    lexer.skip();
    (!value.is_empty()).then(|| Disposition { value, parameters: parameters(lexer, limit) })
}

/// `1#Language-tag` (RFC 3282 section 2).
fn languages(value: &[u8], limit: &mut usize) -> Vec<Vec<u8>> {
    let mut lexer = Lexer::new(value);
    let mut found = Vec::new();
    loop {
        lexer.skip();
        let tag = lexer.token();
        if tag.is_empty() {
            if lexer.next().is_none() {
                return found;
            }
        } else if spend(limit) {
            found.push(tag.to_vec());
        } else {
            return found;
        }
    }
}

/// `*(";" attribute "=" value)` (RFC 2045 section 5.1). What is none is passed over, up to the next
/// semicolon; a value that should be quoted and is not ends at white space.
fn parameters(mut lexer: Lexer, limit: &mut usize) -> Vec<Parameter> {
    let (mut found, mut pieces) = (Vec::new(), Vec::new());
    loop {
        lexer.skip();
        if !lexer.eat(b';') {
            match lexer.next() {
                Some(_) => continue,
                None => break,
            }
        }
        lexer.skip();
        let name = lexer.token();
        lexer.skip();
        if name.is_empty() || !lexer.eat(b'=') {
            continue;
        }
        lexer.skip();
        let value = match lexer.peek() {
            Some(b'"') => lexer.quoted(),
            _ => lexer.take_while(|byte| !b"; \t\r\n(".contains(&byte)).to_vec(),
        };
        if !spend(limit) {
            break;
        }
        match Piece::of(name) {
            Some(piece) => pieces.push((piece, value)),
            None => found.push(Parameter { name: name.to_vec(), value }),
        }
    }
    join(pieces, &mut found);
    found
}

/// One of the pieces into which a parameter is divided: `name*number` or `name*number*` (RFC 2231
/// sections 3 and 4.1).
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Piece {
    /// In lower case.
    name: Vec<u8>,
    number: u32,
    /// With octets in hex.
    extended: bool,
}

impl Piece {
    fn of(name: &[u8]) -> Option<Self> {
        let extended = name.ends_with(b"*");
        let name = name.strip_suffix(b"*").unwrap_or(name);
        let star = memchr::memrchr(b'*', name)?;
        let (name, digits) = name.split_at(star);
        let digits = std::str::from_utf8(digits.get(1..)?).ok()?;
        let is_number = digits.len() < 10 && digits.bytes().all(|b| b.is_ascii_digit());
        let number = is_number.then(|| digits.parse().ok())??;
        (!name.is_empty()).then(|| Self { name: name.to_ascii_lowercase(), number, extended })
    }
}

/// Puts together what belongs together; pieces behind a gap stay as they are.
fn join(mut pieces: Vec<(Piece, Vec<u8>)>, found: &mut Vec<Parameter>) {
    pieces.sort();
    for group in pieces.chunk_by(|(a, _), (b, _)| a.name == b.name) {
        let in_order = |(n, (piece, _)): &(usize, &(Piece, _))| {
            usize::try_from(piece.number).is_ok_and(|number| number == *n)
        };
        let whole = group.iter().enumerate().take_while(in_order).count();
        let (together, alone) = group.split_at(whole);
        if let Some((first, _)) = together.first() {
            let extended = together.iter().any(|(piece, _)| piece.extended);
            let mut parameter = Parameter { name: first.name.clone(), value: Vec::new() };
            if extended {
                parameter.name.push(b'*');
                // It begins with charset and language, if nowhere else.
                if !first.extended {
                    parameter.value.extend_from_slice(b"''");
                }
            }
            for (piece, value) in together {
                if extended && !piece.extended {
                    escape(value, &mut parameter.value);
                } else {
                    parameter.value.extend_from_slice(value);
                }
            }
            found.push(parameter);
        }
        for (piece, value) in alone {
            let mut name = piece.name.clone();
            name.extend_from_slice(format!("*{}", piece.number).as_bytes());
            name.extend(piece.extended.then_some(b'*'));
            found.push(Parameter { name, value: value.clone() });
        }
    }
}

/// Writes a value as one that has octets in hex (`ext-octet`).
fn escape(value: &[u8], out: &mut Vec<u8>) {
    for byte in value {
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`{|}~".contains(byte) {
            out.push(*byte);
        } else {
            out.extend_from_slice(format!("%{byte:02x}").as_bytes());
        }
    }
}
