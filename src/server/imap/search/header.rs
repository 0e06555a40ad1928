//! The header of a message, or of a part of one, as it is searched: of the fields that nobody asks for
//! no more is made than a place.

use std::borrow::Cow;
use std::ops::Range;

use super::needles::Hunt;
use crate::message::encoded_word;
use crate::text::fold::fold;

/// More fields than this few headers have.
const MANY: usize = 32;

/// A header.
pub struct Header {
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// A field of a header; what is none has no name.
struct Field {
    name: Range<usize>,
    /// With the line ends within it.
    value: Range<usize>,
    /// What it says, folded, once that was asked for.
    folded: Option<String>,
}

impl Header {
    /// Finds its fields.
    pub fn new(text: Vec<u8>) -> Self {
        let mut fields: Vec<Field> = Vec::with_capacity(MANY);
        let mut rest = 0..0;
        while let Some(line) = text.get(rest.end..).filter(|line| !line.is_empty()) {
            let length = memchr::memchr(b'\n', line).map_or(line.len(), |at| at.saturating_add(1));
            let line = line.get(..length).unwrap_or_default();
            rest = rest.end..rest.end.saturating_add(length);
            let is_more = matches!(line.first(), Some(b' ' | b'\t'));
            if is_more && let Some(field) = fields.last_mut() {
                field.value.end = rest.end;
                continue;
            }
            let colon = memchr::memchr(b':', line).filter(|_| !is_more);
            let colon = colon.map(|colon| rest.start.saturating_add(colon));
            let value = colon.map_or(rest.start, |colon| colon.saturating_add(1))..rest.end;
            let name = rest.start..colon.unwrap_or(rest.start);
            if !name.is_empty() || !line.trim_ascii().is_empty() {
                fields.push(Field { name, value, folded: None });
            }
        }
        Self { text, fields }
    }

    /// What the first field of this name says, unfolded.
    pub fn first(&self, name: &[u8]) -> Option<Cow<'_, [u8]>> {
        let field = self.fields.iter().find(|field| field.is(name, &self.text))?;
        Some(field.unfolded(&self.text))
    }

    /// Whether a field of this name has the text, which is folded.
    pub fn has(&mut self, name: &[u8], text: &str) -> bool {
        let header = &self.text;
        let mut fields = self.fields.iter_mut().filter(|field| field.is(name, header));
        fields.any(|field| text.is_empty() || field.folded(header).contains(text))
    }

    /// Looks in all of it.
    pub fn search(&self, hunt: &mut Hunt<'_>) {
        hunt.begin(true);
        for field in &self.fields {
            let name = field.name(&self.text);
            if !name.is_empty() {
                hunt.push(&String::from_utf8_lossy(name));
                hunt.push(": ");
            }
            hunt.push(&encoded_word::decode(&field.unfolded(&self.text)));
            hunt.push("\n");
        }
        hunt.end();
    }
}

impl Field {
    fn name<'a>(&self, header: &'a [u8]) -> &'a [u8] {
        header.get(self.name.clone()).unwrap_or_default().trim_ascii_end()
    }

    fn is(&self, name: &[u8], header: &[u8]) -> bool {
        self.name.len() >= name.len().max(1) && self.name(header).eq_ignore_ascii_case(name)
    }

    /// Where it was folded there is one blank.
    fn unfolded<'a>(&self, header: &'a [u8]) -> Cow<'a, [u8]> {
        let value = header.get(self.value.clone()).unwrap_or_default().trim_ascii();
        if memchr::memchr(b'\n', value).is_none() {
            return value.into();
        }
        let mut unfolded: Vec<u8> = Vec::with_capacity(value.len());
        for line in value.split(|octet| *octet == b'\n').map(<[u8]>::trim_ascii) {
            if !unfolded.is_empty() && !line.is_empty() {
                unfolded.push(b' ');
            }
            unfolded.extend_from_slice(line);
        }
        unfolded.into()
    }

    fn folded(&mut self, header: &[u8]) -> &str {
        if self.folded.is_none() {
            self.folded = Some(fold(&encoded_word::decode(&self.unfolded(header))));
        }
        self.folded.as_deref().unwrap_or_default()
    }
}
