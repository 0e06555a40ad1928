//! The words that structured fields are made of (RFC 5322 section 3.2, RFC 2045 section 5.1), taken
//! from text that may be anything.

/// A field's value that is being read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lexer<'a> {
    rest: &'a [u8],
}

impl<'a> Lexer<'a> {
    pub fn new(value: &'a [u8]) -> Self {
        Self { rest: value }
    }

    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    pub fn next(&mut self) -> Option<u8> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*first)
    }

    /// Takes `byte`, if it comes next.
    pub fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.next();
        }
        found
    }

    /// Takes what comes as long as `wanted` is true of it.
    pub fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let length = self.rest.iter().take_while(|byte| wanted(**byte)).count();
        let (taken, rest) = self.rest.split_at(length);
        self.rest = rest;
        taken
    }

    /// Takes white space and comments; says whether there was any, and gives the last comment.
    pub fn skip(&mut self) -> (bool, Option<Vec<u8>>) {
        let (mut any, mut comment) = (false, None);
        loop {
            any |= !self.take_while(is_space).is_empty();
            if self.peek() != Some(b'(') {
                return (any, comment);
            }
            any = true;
            comment = Some(self.comment());
        }
    }

    /// `comment`, without the outer parentheses. One that is not closed goes to the end.
    fn comment(&mut self) -> Vec<u8> {
        let (mut text, mut depth) = (Vec::new(), 0_usize);
        while let Some(byte) = self.next() {
            match byte {
                b'(' if depth == 0 => {
                    depth = 1;
                    continue;
                }
                b'(' => depth += 1,
                b')' if depth == 1 => break,
                b')' => depth -= 1,
                b'\\' => {
                    text.extend(self.next());
                    continue;
                }
                _ => {}
            }
            text.push(byte);
        }
        text
    }

    /// `quoted-string`, whose quote comes next, without its quotes and backslashes. One that is not
    /// closed goes to the end.
    pub fn quoted(&mut self) -> Vec<u8> {
        self.next();
        let mut text = Vec::new();
        while let Some(byte) = self.next() {
            match byte {
                b'"' => break,
                b'\\' => text.extend(self.next()),
                _ => text.push(byte),
            }
        }
        text
    }

    /// `token` of RFC 2045, which here may have octets beyond ASCII; may be empty.
    pub fn token(&mut self) -> &'a [u8] {
        self.take_while(is_token)
    }
}

pub(super) fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn is_token(byte: u8) -> bool {
    byte > b' ' && byte != 0x7f && !b"()<>@,;:\\\"/[]?=".contains(&byte)
}
