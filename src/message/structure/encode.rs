//! A structure as octets, for a cache, and back from octets that may be anything.
//!
//! Numbers are LEB128. Texts are a length and octets, lists a length and items; what may be missing
//! has its length plus one, and 0 where it is missing. Places are told by their distance from the one
//! before.

use super::{
    Address, Content, Disposition, Envelope, MAX_ADDRESSES, MAX_DEPTH, MAX_PARAMETERS, MAX_PARTS,
    Parameter, Part, Structure,
};

/// The octets of a structure.
pub fn encode(structure: &Structure) -> Vec<u8> {
    let mut out = Vec::new();
    put_structure(structure, 0, &mut out);
    out
}

/// The structure of these octets; `None` where they are none that [`encode`] could have made.
pub fn decode(octets: &[u8]) -> Option<Structure> {
    let mut reader = Reader {
        rest: octets,
        // One that is not looked into, and one within a message that a delimiter has cut off.
        parts: MAX_PARTS + 2,
        addresses: MAX_ADDRESSES,
        parameters: MAX_PARAMETERS,
    };
    let structure = reader.structure(0, 0).ok()?;
    reader.rest.is_empty().then_some(structure)
}

fn put(mut number: u64, out: &mut Vec<u8>) {
    loop {
        let low = u8::try_from(number & 0x7f).unwrap_or_default();
        number >>= 7;
        if number == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

fn put_text(text: &[u8], out: &mut Vec<u8>) {
    put(text.len() as u64, out);
    out.extend_from_slice(text);
}

fn put_optional(text: Option<&[u8]>, out: &mut Vec<u8>) {
    put(text.map_or(0, |text| text.len() as u64 + 1), out);
    out.extend_from_slice(text.unwrap_or_default());
}

fn put_structure(structure: &Structure, from: u64, out: &mut Vec<u8>) {
    let envelope = &structure.envelope;
    for text in [&envelope.date, &envelope.subject, &envelope.in_reply_to, &envelope.message_id] {
        put_optional(text.as_deref(), out);
    }
    for list in [
        &envelope.from,
        &envelope.sender,
        &envelope.reply_to,
        &envelope.to,
        &envelope.cc,
        &envelope.bcc,
    ] {
        put(list.len() as u64, out);
        for address in list {
            for text in [&address.name, &address.route, &address.mailbox, &address.host] {
                put_optional(text.as_deref(), out);
            }
        }
    }
    put_part(&structure.root, from, out);
}

fn put_parameters(parameters: &[Parameter], out: &mut Vec<u8>) {
    put(parameters.len() as u64, out);
    for parameter in parameters {
        put_text(&parameter.name, out);
        put_text(&parameter.value, out);
    }
}

fn put_part(part: &Part, from: u64, out: &mut Vec<u8>) {
    put_text(&part.kind, out);
    put_text(&part.subtype, out);
    put_parameters(&part.parameters, out);
    for text in [&part.id, &part.description, &part.encoding, &part.md5, &part.location] {
        put_optional(text.as_deref(), out);
    }
    put_optional(part.disposition.as_ref().map(|it| it.value.as_slice()), out);
    if let Some(disposition) = &part.disposition {
        put_parameters(&disposition.parameters, out);
    }
    put(part.languages.len() as u64, out);
    for language in &part.languages {
        put_text(language, out);
    }
    put(part.start.saturating_sub(from), out);
    put(part.body.saturating_sub(part.start), out);
    put(part.end.saturating_sub(part.body), out);
    put(part.lines, out);
    match &part.content {
        Content::Text => put(0, out),
        Content::Other => put(1, out),
        Content::Message(message) => {
            put(2, out);
            put_structure(message, part.body, out);
        }
        Content::Multipart(parts) => {
            put(3 + parts.len() as u64, out);
            let mut from = part.body;
            for child in parts {
                put_part(child, from, out);
                from = child.end;
            }
        }
    }
}

/// Why octets are no structure.
struct Damaged;

type Read<T> = Result<T, Damaged>;

/// Octets that are being read, and what they may still contain.
struct Reader<'a> {
    rest: &'a [u8],
    parts: usize,
    addresses: usize,
    parameters: usize,
}

impl Reader<'_> {
    fn number(&mut self) -> Read<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.rest.split_first().ok_or(Damaged)?;
            self.rest = rest;
            let low = u64::from(byte & 0x7f);
            let shifted = low << shift;
            // One way to write a number: no octets that say nothing, none that are lost.
            if shifted >> shift != low || (*byte == 0 && shift > 0) {
                return Err(Damaged);
            }
            number |= shifted;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Damaged)
    }

    fn octets(&mut self, length: u64) -> Read<Vec<u8>> {
        let length = usize::try_from(length).map_err(|_| Damaged)?;
        let (text, rest) = self.rest.split_at_checked(length).ok_or(Damaged)?;
        self.rest = rest;
        Ok(text.to_vec())
    }

    fn text(&mut self) -> Read<Vec<u8>> {
        let length = self.number()?;
        self.octets(length)
    }

    fn optional(&mut self) -> Read<Option<Vec<u8>>> {
        match self.number()?.checked_sub(1) {
            Some(length) => self.octets(length).map(Some),
            None => Ok(None),
        }
    }

    fn structure(&mut self, depth: usize, from: u64) -> Read<Structure> {
        let mut envelope = Envelope {
            date: self.optional()?,
            subject: self.optional()?,
            in_reply_to: self.optional()?,
            message_id: self.optional()?,
            ..Envelope::default()
        };
        for list in [
            &mut envelope.from,
            &mut envelope.sender,
            &mut envelope.reply_to,
            &mut envelope.to,
            &mut envelope.cc,
            &mut envelope.bcc,
        ] {
            for _ in 0..self.number()? {
                self.addresses = self.addresses.checked_sub(1).ok_or(Damaged)?;
                list.push(Address {
                    name: self.optional()?,
                    route: self.optional()?,
                    mailbox: self.optional()?,
                    host: self.optional()?,
                });
            }
        }
        Ok(Structure { envelope, root: self.part(depth, from)? })
    }

    fn parameters(&mut self) -> Read<Vec<Parameter>> {
        let mut parameters = Vec::new();
        for _ in 0..self.number()? {
            self.parameters = self.parameters.checked_sub(1).ok_or(Damaged)?;
            parameters.push(Parameter { name: self.text()?, value: self.text()? });
        }
        Ok(parameters)
    }

    fn part(&mut self, depth: usize, from: u64) -> Read<Part> {
        if depth >= MAX_DEPTH {
            return Err(Damaged);
        }
        self.parts = self.parts.checked_sub(1).ok_or(Damaged)?;
        let mut part = Part {
            kind: self.text()?,
            subtype: self.text()?,
            parameters: self.parameters()?,
            id: self.optional()?,
            description: self.optional()?,
            encoding: self.optional()?,
            md5: self.optional()?,
            location: self.optional()?,
            ..Part::default()
        };
        if let Some(value) = self.optional()? {
            part.disposition = Some(Disposition { value, parameters: self.parameters()? });
        }
        for _ in 0..self.number()? {
            self.parameters = self.parameters.checked_sub(1).ok_or(Damaged)?;
            part.languages.push(self.text()?);
        }
        part.start = from.checked_add(self.number()?).ok_or(Damaged)?;
        part.body = part.start.checked_add(self.number()?).ok_or(Damaged)?;
        part.end = part.body.checked_add(self.number()?).ok_or(Damaged)?;
        part.lines = self.number()?;
        part.content = match self.number()? {
            0 => Content::Text,
            1 => Content::Other,
            2 => {
                let message = self.structure(depth + 1, part.body)?;
                if message.root.end > part.end {
                    return Err(Damaged);
                }
                Content::Message(Box::new(message))
            }
            more => {
                let (mut parts, mut from) = (Vec::new(), part.body);
                for _ in 0..more - 3 {
                    let child = self.part(depth + 1, from)?;
                    from = child.end;
                    parts.push(child);
                }
                if from > part.end {
                    return Err(Damaged);
                }
                Content::Multipart(parts)
            }
        };
        Ok(part)
    }
}
