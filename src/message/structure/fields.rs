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
        let is_folded = matches!(line.first(), Some(b' ' | b'\t'));
        let text = if is_folded {
            line.trim_ascii_start()
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
            // A fold is one blank, and so is a CR, which no text that is told has.
            if is_folded {
                kept.truncate(kept.trim_ascii_end().len());
                kept.push(b' ');
            }
            kept.extend(text.iter().map(|byte| if *byte == b'\r' { b' ' } else { *byte }));
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
        envelope.date = self.last_text(Name::Date);
        envelope.subject = self.last_text(Name::Subject);
        envelope.in_reply_to = self.last_text(Name::InReplyTo);
        envelope.message_id = self.last_text(Name::MessageId);
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
        self.first(wanted).map(|value| value.trim_ascii().to_vec())
    }

    /// Of several the last, as Dovecot has it.
    fn last_text(&self, wanted: Name) -> Option<Vec<u8>> {
        let last = self.kept.iter().rfind(|(name, _)| *name == wanted);
        last.map(|(_, value)| value.trim_ascii().to_vec())
    }
}

/// `Content-Type = type "/" subtype *(";" parameter)` (RFC 2045 section 5.1). What can't be read
/// counts as missing (section 5.2).
fn content_type(value: &[u8], part: &mut Part, limit: &mut usize) {
    let mut lexer = Lexer::new(value);
    lexer.skip();
    let kind = lexer.token();
    lexer.skip();
    let slash = lexer.eat(b'/');
    lexer.skip();
    let subtype = lexer.token();
    if kind.is_empty() || !slash || subtype.is_empty() {
        return;
    }
    part.kind = kind.to_vec();
    part.subtype = subtype.to_vec();
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
            Some(piece) => pieces.push(Piece { value, ..piece }),
            None => found.push(Parameter { name: name.to_vec(), value }),
        }
    }
    join(pieces, &mut found);
    found
}

/// One of the pieces into which a parameter is divided: `name*number` or `name*number*` (RFC 2231
/// sections 3 and 4.1).
struct Piece<'a> {
    name: &'a [u8],
    number: usize,
    /// With octets in hex.
    extended: bool,
    value: Vec<u8>,
}

impl<'a> Piece<'a> {
    fn of(name: &'a [u8]) -> Option<Self> {
        let extended = name.ends_with(b"*");
        let name = name.strip_suffix(b"*").unwrap_or(name);
        let (name, digits) = name.split_at_checked(memchr::memrchr(b'*', name)?)?;
        let digits = std::str::from_utf8(digits.get(1..)?).ok()?;
        let is_number = digits.len() < 10 && digits.bytes().all(|b| b.is_ascii_digit());
        let number = is_number.then(|| digits.parse().ok())??;
        (!name.is_empty()).then_some(Self { name, number, extended, value: Vec::new() })
    }

    fn key(&self) -> (Vec<u8>, usize, bool) {
        (self.name.to_ascii_lowercase(), self.number, self.extended)
    }
}

/// Puts together what belongs together; where a piece is missing, all stay as they are.
fn join(mut pieces: Vec<Piece>, found: &mut Vec<Parameter>) {
    pieces.sort_by_cached_key(Piece::key);
    for group in pieces.chunk_by(|a, b| a.name.eq_ignore_ascii_case(b.name)) {
        let Some(first) = group.first() else { continue };
        if group.iter().enumerate().any(|(n, piece)| piece.number != n) {
            found.extend(group.iter().map(|piece| {
                let mut name = piece.name.to_vec();
                name.extend_from_slice(format!("*{}", piece.number).as_bytes());
                name.extend(piece.extended.then_some(b'*'));
                Parameter { name, value: piece.value.clone() }
            }));
            continue;
        }
        let mut parameter = Parameter { name: first.name.to_vec(), value: Vec::new() };
        let extended = group.iter().any(|piece| piece.extended);
        if extended {
            parameter.name.push(b'*');
            // It begins with charset and language, if nowhere else.
            parameter.value.extend_from_slice(if first.extended { b"" } else { b"''" });
        }
        for piece in group {
            if extended && !piece.extended {
                escape(&piece.value, &mut parameter.value);
            } else {
                parameter.value.extend_from_slice(&piece.value);
            }
        }
        found.push(parameter);
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
