//! Replies: a code, an enhanced status code (RFC 2034, RFC 3463), and text.

use std::borrow::Cow;
use std::fmt;

use crate::message::Address;
use crate::text::line::{self, Line, LineReader};

/// One reply of the server, of one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    code: u16,
    enhanced: Option<Cow<'static, str>>,
    text: String,
}

impl Reply {
    /// A reply such as `250 2.1.0 Ok`. Line ends and other control characters in the text, which
    /// may quote the client, become `?`.
    pub fn new(code: u16, enhanced: impl Into<Cow<'static, str>>, text: impl Into<String>) -> Self {
        Self { code, enhanced: Some(enhanced.into()), text: printable(&text.into()) }
    }

    /// A reply without enhanced code: the greeting, and those to HELO and EHLO.
    pub fn plain(code: u16, text: impl Into<String>) -> Self {
        Self { code, enhanced: None, text: printable(&text.into()) }
    }

    /// To a recipient whom nobody here is.
    pub fn unknown_user(recipient: &Address) -> Self {
        let text = format!("<{recipient}>: Recipient address rejected: User unknown");
        Self::new(550, "5.1.1", text)
    }

    /// The same, with whom it is about before its text.
    #[must_use]
    pub fn about(mut self, who: &str) -> Self {
        self.text = printable(&format!("{who}: {}", self.text));
        self
    }

    /// A refusal as [`fmt::Display`] writes it: `4xx` or `5xx`, an enhanced code of the same class,
    /// and a text.
    pub fn parse_refusal(text: &str) -> Option<Self> {
        let (code, rest) = text.split_once(' ')?;
        let (enhanced, text) = rest.split_once(' ')?;
        let is_code = |code: &str| code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit());
        let class = code.chars().next().filter(|class| is_code(code) && "45".contains(*class))?;
        if !is_enhanced(enhanced, class) {
            return None;
        }
        Some(Self::new(code.parse().ok()?, enhanced.to_owned(), text))
    }

    /// The three digits.
    pub fn code(&self) -> u16 {
        self.code
    }
}

impl fmt::Display for Reply {
    /// Without the line end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(enhanced) = &self.enhanced {
            write!(f, " {enhanced}")?;
        }
        write!(f, " {}", self.text)
    }
}

/// `status-code = class "." subject "." detail`, of this class (RFC 3463 section 2).
pub fn is_enhanced(text: &str, class: char) -> bool {
    let mut parts = text.split('.');
    let is_number =
        |part: &str| (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
    parts.next().is_some_and(|first| first.chars().eq([class]))
        && parts.clone().count() == 2
        && parts.all(is_number)
}

/// Text that may quote a stranger, as one line of at most 400 printable characters.
fn printable(text: &str) -> String {
    line::printable(text).take(400).collect()
}

/// A reply as a client reads it: possibly of several lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The three digits.
    pub code: u16,
    /// The lines behind the digits, made printable.
    pub lines: Vec<String>,
}

/// What the first digit of a reply says (RFC 5321 section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// 2yz: it is done.
    Done,
    /// 3yz: the client shall go on.
    GoOn,
    /// 4yz: not now; trying again may help.
    Later,
    /// 5yz: not ever.
    Never,
    /// There are no such replies.
    Nothing,
}

impl Answer {
    /// What this host says in the server's place, in one line.
    pub fn new(code: u16, text: &str) -> Self {
        Self { code, lines: vec![printable(text)] }
    }

    /// The text without its codes.
    pub fn text(&self) -> String {
        let text = self.lines.join(" ");
        let code = self.enhanced();
        match text.strip_prefix(code.as_str()) {
            Some(rest) => rest.trim_start().to_owned(),
            None => text,
        }
    }

    /// The words behind an extension's keyword, where this is a reply to EHLO or LHLO that offers
    /// it.
    ///
    /// ```text
    /// ehlo-line = ehlo-keyword *( SP ehlo-param )    ; RFC 5321 section 4.1.1.1
    /// ```
    pub fn arguments(&self, keyword: &str) -> Option<impl Iterator<Item = &str>> {
        self.lines.iter().skip(1).find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            words.next().filter(|word| word.eq_ignore_ascii_case(keyword)).map(|_| words)
        })
    }

    /// Whether it is a reply to EHLO or LHLO that offers this extension.
    pub fn offers(&self, keyword: &str) -> bool {
        self.arguments(keyword).is_some()
    }

    /// What the digits mean: the one place that knows.
    pub fn meaning(&self) -> Meaning {
        match self.code / 100 {
            2 => Meaning::Done,
            3 => Meaning::GoOn,
            4 => Meaning::Later,
            5 => Meaning::Never,
            _ => Meaning::Nothing,
        }
    }

    /// Whether it says that what was asked for is done.
    pub fn is_positive(&self) -> bool {
        self.meaning() == Meaning::Done
    }

    /// Whether it says no for good.
    pub fn is_permanent(&self) -> bool {
        self.meaning() == Meaning::Never
    }

    /// The enhanced status code in front of the text (RFC 2034), where there is one that fits the
    /// digits; else the general one of its class.
    pub fn enhanced(&self) -> String {
        let class = self.code / 100;
        let first = self.lines.first().map_or("", String::as_str);
        let word = first.split(' ').next().unwrap_or_default();
        let mut parts = word.split('.');
        let fits = parts.next() == Some(class.to_string().as_str())
            && parts.clone().count() == 2
            && parts.all(|part| {
                (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
            });
        if fits { word.to_owned() } else { format!("{class}.0.0") }
    }
}

impl fmt::Display for Answer {
    /// The digits and all text, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03} {}", self.code, self.lines.join(" "))
    }
}

/// Collects replies from reads of any size; memory is bounded.
#[derive(Debug)]
pub struct AnswerReader {
    reader: LineReader,
    lines: Vec<String>,
}

/// What a server said is no reply.
#[derive(Debug, PartialEq, Eq)]
pub struct NoReply(pub String);

/// The most lines of one reply.
const MAX_LINES: usize = 100;

impl Default for AnswerReader {
    fn default() -> Self {
        Self { reader: LineReader::new(2048), lines: Vec::new() }
    }
}

impl AnswerReader {
    /// Takes the next whole reply from the input; `None` when it is used up before.
    ///
    /// ```text
    /// Reply-line = *( Reply-code "-" [ textstring ] CRLF ) Reply-code [ SP textstring ] CRLF
    /// ```
    ///
    /// (RFC 5321 section 4.2)
    pub fn take(&mut self, input: &mut &[u8]) -> Result<Option<Answer>, NoReply> {
        loop {
            if input.is_empty() {
                return Ok(None);
            }
            let line = match self.reader.take(input) {
                // Not when it ends: it may have no end.
                Line::More if !self.reader.is_too_long() => return Ok(None),
                Line::More | Line::TooLong => {
                    return Err(NoReply("a reply line that is too long".into()));
                }
                Line::Whole(line) => line,
            };
            let text = printable(&String::from_utf8_lossy(&line));
            let code = text.get(..3).filter(|code| code.bytes().all(|b| b.is_ascii_digit()));
            let Some(code) = code.and_then(|code| code.parse().ok()) else {
                return Err(NoReply(text));
            };
            self.lines.push(text.get(4..).unwrap_or_default().to_owned());
            match text.as_bytes().get(3) {
                Some(b'-') if self.lines.len() < MAX_LINES => {}
                Some(b' ') | None => {
                    return Ok(Some(Answer { code, lines: std::mem::take(&mut self.lines) }));
                }
                _ => return Err(NoReply(text)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Answer, AnswerReader, Meaning, NoReply, Reply};

    #[test]
    fn a_reply_that_quotes_a_client_is_still_one_line() {
        let reply = Reply::new(501, "5.5.2", "bad\r\n250 ok\u{e9}");
        assert_eq!(reply.to_string(), "501 5.5.2 bad??250 ok?");
    }

    #[test]
    fn replies_are_read_from_reads_of_any_size() {
        let input = b"250-a\r\n250 b\r\n550 5.1.1 no\r\n250\r\n";
        for cut in 1..input.len() {
            let (mut reader, mut answers) = (AnswerReader::default(), Vec::new());
            for mut part in input.chunks(cut) {
                while let Some(answer) = reader.take(&mut part).unwrap() {
                    answers.push(answer);
                }
            }
            assert_eq!(answers.len(), 3);
            assert_eq!(answers[0], Answer { code: 250, lines: vec!["a".into(), "b".into()] });
            assert_eq!((answers[1].enhanced(), answers[1].is_permanent()), ("5.1.1".into(), true));
            assert_eq!(answers[2].enhanced(), "2.0.0");
        }
    }

    #[test]
    fn extensions_are_found_in_any_letter_case_but_not_in_the_first_line() {
        let lines = ["SIZE 5 hello", "size 10", "PIPELINING", "Auth LOGIN PLAIN"];
        let answer = Answer { code: 250, lines: lines.map(str::to_owned).to_vec() };
        let words = |keyword| answer.arguments(keyword).map(Iterator::collect::<Vec<_>>);
        assert_eq!(words("SIZE"), Some(vec!["10"]));
        assert_eq!(words("pipelining"), Some(vec![]));
        assert_eq!(words("AUTH"), Some(vec!["LOGIN", "PLAIN"]));
        assert_eq!((words("STARTTLS"), answer.offers("Size")), (None, true));
    }

    #[test]
    fn only_2yz_says_that_it_is_done() {
        let meaning = |code| Answer::new(code, "").meaning();
        assert_eq!((meaning(200), meaning(299)), (Meaning::Done, Meaning::Done));
        assert_eq!((meaning(354), meaning(450)), (Meaning::GoOn, Meaning::Later));
        assert_eq!((meaning(199), meaning(600)), (Meaning::Nothing, Meaning::Nothing));
        assert!(Answer::new(550, "").is_permanent() && !Answer::new(354, "").is_positive());
    }

    #[test]
    fn what_is_no_reply_is_refused() {
        let (endless, long) = ([b'2'; 5000], [&[b'2'; 5000][..], b"\n"].concat());
        for bad in [&b"hello\r\n"[..], b"25\r\n", b"250_x\r\n", &long, &endless] {
            assert!(matches!(AnswerReader::default().take(&mut &bad[..]), Err(NoReply(_))));
        }
        let many = b"250-x\r\n".repeat(1000);
        assert!(AnswerReader::default().take(&mut &many[..]).is_err());
    }
}
