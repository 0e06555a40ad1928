//! Replies: a code, an enhanced status code (RFC 2034, RFC 3463), and text.

use std::fmt;

/// One reply of the server, of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<&'static str>,
    text: String,
}

impl Reply {
    /// A reply such as `250 2.1.0 Ok`. Line ends and other control characters in the text, which
    /// may quote the client, become `?`.
    pub fn new(code: u16, enhanced: &'static str, text: impl Into<String>) -> Self {
        Self {
            code,
            enhanced: Some(enhanced),
            text: printable(&text.into()),
        }
    }

    /// A reply without enhanced code: the greeting, and those to HELO and EHLO.
    pub fn plain(code: u16, text: impl Into<String>) -> Self {
        Self {
            code,
            enhanced: None,
            text: printable(&text.into()),
        }
    }

    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }

    /// Whether it says no.
    pub fn is_refusal(&self) -> bool {
        self.code >= 400
    }
}

impl fmt::Display for Reply {
    /// Without the line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = self.enhanced {
            write!(f, " {enhanced}")?;
        }
        write!(f, " {}", self.text)
    }
}

/// Text that may quote a stranger, as one line of at most 400 printable characters.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| {
            if c == ' ' || c.is_ascii_graphic() {
                c
            } else {
                '?'
            }
        })
        .take(400)
        .collect()
}
