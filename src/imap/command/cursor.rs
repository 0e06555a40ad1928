//! What the rules of commands are made of (RFC 9051 section 9): atoms, strings, numbers, lists.

use std::ops::RangeInclusive;

use super::Error;
use crate::text::utf7;

/// The longest tag: it is repeated to the client.
const MAX_TAG: usize = 255;
/// The longest atom.
const MAX_ATOM: usize = 255;

/// A place in a command.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a> {
    rest: &'a [u8],
    /// Names of mailboxes are UTF-8.
    utf8: bool,
}

impl<'a> Cursor<'a> {
    pub(super) fn new(rest: &'a [u8], utf8: bool) -> Self {
        Self { rest, utf8 }
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// Passes over a byte, if it is this one.
    pub(super) fn eat(&mut self, byte: u8) -> bool {
        let rest = self.rest.strip_prefix(&[byte]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Passes over a byte, whatever it is.
    pub(super) fn take_one(&mut self) {
        self.rest = self.rest.get(1..).unwrap_or_default();
    }

    pub(super) fn expect(&mut self, byte: u8, wanted: &'static str) -> Result<(), Error> {
        if self.eat(byte) { Ok(()) } else { Err(Error::Wanted(wanted)) }
    }

    /// `SP`
    pub(super) fn sp(&mut self) -> Result<(), Error> {
        self.expect(b' ', "a space and an argument")
    }

    /// Passes over these bytes, in any letter case, if they are what comes.
    pub(super) fn eat_word(&mut self, word: &str) -> bool {
        let found = self.rest.get(..word.len());
        let is_it = found.is_some_and(|found| found.eq_ignore_ascii_case(word.as_bytes()));
        if is_it {
            self.rest = self.rest.get(word.len()..).unwrap_or_default();
        }
        is_it
    }

    /// The end of the command. Quirk: spaces may stand before it.
    pub(super) fn end(mut self) -> Result<(), Error> {
        while self.eat(b' ') {}
        if self.rest.is_empty() { Ok(()) } else { Err(Error::Wanted("the end of the command")) }
    }

    /// What is left, when it is nothing to be read any further.
    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    pub(super) fn take_while(&mut self, is: impl Fn(u8) -> bool) -> &'a [u8] {
        let all = self.rest;
        let length = all.iter().position(|byte| !is(*byte)).unwrap_or(all.len());
        let (taken, rest) = all.split_at(length);
        self.rest = rest;
        taken
    }

    /// `tag = 1*<any ASTRING-CHAR except "+">`
    pub(super) fn tag(&mut self) -> Option<String> {
        let tag = self.take_while(|byte| is_astring_char(byte) && byte != b'+');
        let fits = (1..=MAX_TAG).contains(&tag.len());
        text(tag).filter(|_| fits)
    }

    /// A word that the protocol knows: letters, digits, and what stands between them in names of
    /// commands and items. In upper case.
    pub(super) fn word(&mut self) -> String {
        let is = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
        text(self.take_while(is)).unwrap_or_default().to_ascii_uppercase()
    }

    /// `atom = 1*ATOM-CHAR`
    pub(super) fn atom(&mut self) -> Result<String, Error> {
        let atom = self.take_while(is_atom_char);
        let fits = (1..=MAX_ATOM).contains(&atom.len());
        text(atom).filter(|_| fits).ok_or(Error::Wanted("an atom"))
    }

    /// `astring = 1*ASTRING-CHAR / string`
    pub(super) fn astring(&mut self) -> Result<Vec<u8>, Error> {
        match self.take_while(is_astring_char) {
            [] => self.string(),
            atom => Ok(atom.to_vec()),
        }
    }

    /// `nstring = string / nil`
    pub(super) fn nstring(&mut self) -> Result<Option<Vec<u8>>, Error> {
        if self.eat_word("NIL") { Ok(None) } else { self.string().map(Some) }
    }

    /// `string = quoted / literal`
    pub(super) fn string(&mut self) -> Result<Vec<u8>, Error> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{') => self.literal(),
            _ => Err(Error::Wanted("a string")),
        }
    }

    /// ```text
    /// quoted       = DQUOTE *QUOTED-CHAR DQUOTE
    /// QUOTED-CHAR  = <any TEXT-CHAR except quoted-specials> / "\" quoted-specials / UTF8-2 / …
    /// ```
    ///
    /// Quirk: any octet above 127 is taken; passwords are sent so.
    fn quoted(&mut self) -> Result<Vec<u8>, Error> {
        const WANTED: Error = Error::Wanted("a quoted string");
        let mut text = Vec::new();
        self.expect(b'"', "a quoted string")?;
        loop {
            text.extend_from_slice(
                self.take_while(|byte| !matches!(byte, b'"' | b'\\' | b'\r' | b'\n' | 0)),
            );
            let (first, rest) = self.rest.split_first().ok_or(WANTED)?;
            self.rest = rest;
            match first {
                b'"' => return Ok(text),
                b'\\' => match self.peek() {
                    Some(byte @ (b'"' | b'\\')) => {
                        self.eat(byte);
                        text.push(byte);
                    }
                    _ => return Err(WANTED),
                },
                _ => return Err(WANTED),
            }
        }
    }

    /// `literal = "{" number64 ["+"] "}" CRLF *CHAR8`
    fn literal(&mut self) -> Result<Vec<u8>, Error> {
        let size = self.announcement()?;
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        let octets = self.rest.get(..size).ok_or(Error::More)?;
        self.rest = self.rest.get(size..).unwrap_or_default();
        if octets.contains(&0) {
            return Err(Error::Wanted("a literal without NUL"));
        }
        Ok(octets.to_vec())
    }

    /// `"{" number64 ["+"] "}" CRLF`
    pub(super) fn announcement(&mut self) -> Result<u64, Error> {
        const WANTED: &str = "a literal";
        self.expect(b'{', WANTED)?;
        let size = self.number64()?;
        self.eat(b'+');
        self.expect(b'}', WANTED)?;
        self.expect(b'\r', WANTED)?;
        self.expect(b'\n', WANTED)?;
        Ok(size)
    }

    /// `number64 = 1*DIGIT ; (0 <= n <= 9,223,372,036,854,775,807)`
    pub(super) fn number64(&mut self) -> Result<u64, Error> {
        let digits = self.take_while(|byte| byte.is_ascii_digit());
        let number = text(digits).and_then(|digits| digits.parse::<i64>().ok());
        number.and_then(|number| number.try_into().ok()).ok_or(Error::Wanted("a number"))
    }

    /// `nz-number = digit-nz *DIGIT ; (0 < n <= 4,294,967,295)`
    pub(super) fn nz_number(&mut self) -> Result<u32, Error> {
        const WANTED: Error = Error::Wanted("a number that is not 0");
        if self.peek() == Some(b'0') {
            return Err(WANTED);
        }
        self.number64().ok().and_then(|number| number.try_into().ok()).ok_or(WANTED)
    }

    /// So many digits.
    pub(super) fn digits(&mut self, how_many: RangeInclusive<usize>) -> Option<u16> {
        let digits = self.take_while(|byte| byte.is_ascii_digit());
        let fits = how_many.contains(&digits.len());
        text(digits).filter(|_| fits)?.parse().ok()
    }

    /// `mailbox = "INBOX" / astring`: modified UTF-7, or UTF-8 where the client has said so.
    pub(super) fn mailbox(&mut self) -> Result<String, Error> {
        let name = self.astring()?;
        let name = self.name(name)?;
        Ok(if name.eq_ignore_ascii_case("INBOX") { "INBOX".into() } else { name })
    }

    /// `list-mailbox = 1*list-char / string`: a name with wildcards.
    pub(super) fn list_mailbox(&mut self) -> Result<String, Error> {
        let is_list_char = |byte| is_astring_char(byte) || matches!(byte, b'*' | b'%');
        let pattern = match self.take_while(is_list_char) {
            [] => self.string()?,
            pattern => pattern.to_vec(),
        };
        self.name(pattern)
    }

    fn name(&self, name: Vec<u8>) -> Result<String, Error> {
        let name = String::from_utf8(name).map_err(|_| Error::Name)?;
        if self.utf8 {
            return if name.contains(char::is_control) { Err(Error::Name) } else { Ok(name) };
        }
        utf7::decode(&name).ok_or(Error::Name)
    }

    /// `"(" item *(SP item) ")"` with at most so many items; `what` they are. None at all are for
    /// the caller to judge.
    pub(super) fn list<T>(
        &mut self,
        most: usize,
        what: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut items = Vec::new();
        self.expect(b'(', "a list in parentheses")?;
        if self.eat(b')') {
            return Ok(items);
        }
        loop {
            if items.len() >= most {
                return Err(Error::TooMany(what));
            }
            items.push(item(self)?);
            if self.eat(b')') {
                return Ok(items);
            }
            self.expect(b' ', "a space or the end of a list")?;
        }
    }

    /// Such a list of one item or more.
    pub(super) fn full_list<T>(
        &mut self,
        most: usize,
        what: &'static str,
        item: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let items = self.list(most, what, item)?;
        if items.is_empty() { Err(Error::Wanted("a list that is not empty")) } else { Ok(items) }
    }
}

/// What is ASCII, as text.
fn text(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

/// ```text
/// ATOM-CHAR     = <any CHAR except atom-specials>
/// atom-specials = "(" / ")" / "{" / SP / CTL / list-wildcards / quoted-specials / resp-specials
/// ```
pub(in crate::imap) fn is_atom_char(byte: u8) -> bool {
    byte.is_ascii_graphic()
        && !matches!(byte, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
}

/// `ASTRING-CHAR = ATOM-CHAR / resp-specials`
pub(in crate::imap) fn is_astring_char(byte: u8) -> bool {
    is_atom_char(byte) || byte == b']'
}
