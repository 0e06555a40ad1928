//! A client of IMAP that reads each answer whole, by its grammar, and believes none of it: what it
//! says of a mailbox is for [`view`] to judge.

pub mod view;

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// So much of what was said is kept for the message of a test that fails.
const TRACE: usize = 80;

/// What answers are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// An atom, a number, a flag, the name of an item with its section.
    Word(String),
    /// A quoted string or a literal.
    Text(Vec<u8>),
    Nil,
    List(Vec<Value>),
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    /// `* 3 EXISTS`
    Number(u32, String),
    /// `* 3 FETCH (…)`
    Fetch(u32, Vec<(String, Value)>),
    /// `* OK …`, `* BYE …`
    Status(String, String),
    /// Any other without a tag.
    Data(String, Vec<Value>),
    /// `+ …`
    Go,
    /// The last one to a command: its tag, how it went, and the rest.
    End(String, String, String),
}

impl Value {
    /// What it says, in bytes; none where it is NIL.
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Word(word) => word.as_bytes(),
            Self::Text(text) => text,
            Self::Nil => b"",
            Self::List(_) => panic!("a list is no string: {self:?}"),
        }
    }

    #[track_caller]
    pub fn number(&self) -> u64 {
        let text = String::from_utf8_lossy(self.bytes());
        text.parse().unwrap_or_else(|_| panic!("no number: {self:?}"))
    }

    #[track_caller]
    pub fn list(&self) -> &[Value] {
        match self {
            Self::List(values) => values,
            other => panic!("no list: {other:?}"),
        }
    }

    /// The words of a list.
    #[track_caller]
    pub fn words(&self) -> Vec<String> {
        let text = |value: &Value| String::from_utf8_lossy(value.bytes()).into_owned();
        self.list().iter().map(text).collect()
    }
}

/// A connection.
pub struct Imap {
    stream: TcpStream,
    buffer: Vec<u8>,
    used: usize,
    tags: u32,
    trace: VecDeque<String>,
}

impl fmt::Display for Imap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.trace.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl Imap {
    #[track_caller]
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        let (buffer, trace) = (Vec::new(), VecDeque::new());
        let mut imap = Self { stream, buffer, used: 0, tags: 0, trace };
        let greeting = imap.hear();
        assert!(matches!(&greeting, Ok(Said::Status(word, _)) if word == "OK"), "{greeting:?}");
        imap
    }

    /// One that is logged in.
    #[track_caller]
    pub fn log_in(address: SocketAddr, user: &str, password: &str) -> Self {
        let mut imap = Self::connect(address);
        imap.must(&format!("LOGIN {user} \"{password}\""));
        imap
    }

    /// The same connection, for who sends while this one hears.
    pub fn another_end(&self) -> TcpStream {
        self.stream.try_clone().unwrap()
    }

    /// Where it comes from.
    pub fn address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }

    pub fn note(&mut self, who: &str, bytes: &[u8]) {
        if self.trace.len() >= TRACE {
            self.trace.pop_front();
        }
        let shown = bytes.get(..600).unwrap_or(bytes).escape_ascii();
        self.trace.push_back(format!("{who}: {shown}"));
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.note("C", bytes);
        self.stream.write_all(bytes)
    }

    /// Sends a command; its tag.
    pub fn begin(&mut self, command: &str) -> io::Result<String> {
        self.tags += 1;
        let tag = format!("t{}", self.tags);
        self.send(format!("{tag} {command}\r\n").as_bytes())?;
        Ok(tag)
    }

    /// The next answer; an error where the connection has ended.
    pub fn hear(&mut self) -> io::Result<Said> {
        self.hear_within(PATIENCE)
    }

    /// The same, `TimedOut` where there is none for so long.
    pub fn hear_within(&mut self, limit: Duration) -> io::Result<Said> {
        let deadline = Instant::now() + limit;
        let mut end = self.line_end(0, deadline)?;
        while let Some(length) = literal(&self.waiting()[..end]) {
            while self.waiting().len() < end + length {
                self.fill(deadline)?;
            }
            end = self.line_end(end + length, deadline)?;
        }
        let whole = self.waiting()[..end].to_vec();
        self.used += end;
        self.note("S", &whole);
        let line = whole.strip_suffix(b"\r\n").unwrap_or_else(|| panic!("a bare LF:\n{self}"));
        Ok(said(line).unwrap_or_else(|| panic!("what is that?\n{self}")))
    }

    fn waiting(&self) -> &[u8] {
        &self.buffer[self.used..]
    }

    /// Where the line ends that goes on at `from`.
    fn line_end(&mut self, mut from: usize, deadline: Instant) -> io::Result<usize> {
        loop {
            if let Some(at) = self.waiting()[from..].iter().position(|byte| *byte == b'\n') {
                return Ok(from + at + 1);
            }
            from = self.waiting().len();
            self.fill(deadline)?;
        }
    }

    fn fill(&mut self, deadline: Instant) -> io::Result<()> {
        self.buffer.drain(..self.used);
        self.used = 0;
        let left = deadline.saturating_duration_since(Instant::now());
        self.stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        let mut chunk = vec![0; 64 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(length) => {
                self.buffer.extend_from_slice(&chunk[..length]);
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(io::ErrorKind::TimedOut.into())
            }
            Err(error) => Err(error),
        }
    }

    /// Whether something has come within this time.
    pub fn has_input_within(&mut self, limit: Duration) -> bool {
        if !self.waiting().is_empty() {
            return true;
        }
        self.stream.set_read_timeout(Some(limit.max(Duration::from_millis(1)))).unwrap();
        self.stream.peek(&mut [0]).is_ok_and(|length| length > 0)
    }

    /// What is said to a command, with its end.
    pub fn ask(&mut self, command: &str) -> io::Result<Vec<Said>> {
        let tag = self.begin(command)?;
        self.hear_all(&tag)
    }

    /// All up to the end of the answer to this tag.
    pub fn hear_all(&mut self, tag: &str) -> io::Result<Vec<Said>> {
        let mut all = Vec::new();
        loop {
            let one = self.hear()?;
            let is_last = matches!(&one, Said::End(of, ..) if of == tag) || one == Said::Go;
            all.push(one);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// The same for a command that must end well.
    #[track_caller]
    pub fn must(&mut self, command: &str) -> Vec<Said> {
        let all = self.ask(command).unwrap_or_else(|error| panic!("{command}: {error}\n{self}"));
        let ends = matches!(all.last(), Some(Said::End(_, how, _)) if how == "OK");
        assert!(ends, "{command}: {:?}", all.last());
        all
    }

    /// A command whose last part is a literal that has to be waited with.
    pub fn ask_with(&mut self, command: &str, literal: &[u8]) -> io::Result<Vec<Said>> {
        let mut all = self.ask(&format!("{command} {{{}}}", literal.len()))?;
        if all.last() != Some(&Said::Go) {
            return Ok(all);
        }
        all.pop();
        self.send(&[literal, b"\r\n"].concat())?;
        let tag = format!("t{}", self.tags);
        all.extend(self.hear_all(&tag)?);
        Ok(all)
    }
}

/// The length of the literal that is announced at the end of a line.
fn literal(line: &[u8]) -> Option<usize> {
    let line = line.strip_suffix(b"}\r\n")?;
    let digits = line.rsplit(|byte| *byte == b'{').next()?;
    let digits = std::str::from_utf8(digits).ok()?;
    digits.parse().ok().filter(|_| line.len() > digits.len())
}

fn said(line: &[u8]) -> Option<Said> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let split = |bytes: &[u8]| -> (String, Vec<u8>) {
        let end = bytes.iter().position(|byte| *byte == b' ').unwrap_or(bytes.len());
        (text(&bytes[..end]), bytes.get(end + 1..).unwrap_or_default().to_vec())
    };
    let (tag, rest) = split(line);
    if tag == "+" {
        return Some(Said::Go);
    }
    let (first, more) = split(&rest);
    let is_status = matches!(first.as_str(), "OK" | "NO" | "BAD" | "BYE" | "PREAUTH");
    if tag != "*" {
        return is_status.then(|| Said::End(tag, first, text(&more)));
    }
    if is_status {
        return Some(Said::Status(first, text(&more)));
    }
    let Ok(number) = first.parse() else {
        return Some(Said::Data(first, values(&more)?));
    };
    let (word, more) = split(&more);
    if word != "FETCH" {
        return more.is_empty().then_some(Said::Number(number, word));
    }
    let values = values(&more)?;
    let [Value::List(items)] = &values[..] else {
        return None;
    };
    let pairs = items.chunks_exact(2).map(|pair| match &pair[0] {
        Value::Word(name) => Some((name.clone(), pair[1].clone())),
        _ => None,
    });
    let pairs: Option<Vec<_>> = pairs.collect();
    pairs.filter(|pairs| pairs.len() * 2 == items.len()).map(|pairs| Said::Fetch(number, pairs))
}

/// The values that stand in a text.
fn values(mut rest: &[u8]) -> Option<Vec<Value>> {
    let values = list(&mut rest)?;
    rest.is_empty().then_some(values)
}

/// Values up to a closing parenthesis, or the end.
fn list(rest: &mut &[u8]) -> Option<Vec<Value>> {
    let mut all = Vec::new();
    loop {
        match rest.first() {
            None | Some(b')') => return Some(all),
            Some(b' ') if !all.is_empty() => *rest = &rest[1..],
            // Between the lists of a BODYSTRUCTURE there is nothing.
            Some(b'(') => {}
            Some(_) if all.is_empty() => {}
            Some(_) => return None,
        }
        all.push(value(rest)?);
    }
}

fn value(rest: &mut &[u8]) -> Option<Value> {
    match rest.first()? {
        b'(' => {
            *rest = &rest[1..];
            let values = list(rest)?;
            *rest = rest.strip_prefix(b")")?;
            Some(Value::List(values))
        }
        b'"' => {
            let mut text = Vec::new();
            let mut bytes = rest[1..].iter().enumerate();
            loop {
                match bytes.next()? {
                    (at, b'"') => {
                        *rest = &rest[at + 2..];
                        return Some(Value::Text(text));
                    }
                    (_, b'\\') => text.push(*bytes.next()?.1),
                    (_, byte) => text.push(*byte),
                }
            }
        }
        b'~' | b'{' => {
            let end = rest.iter().position(|byte| *byte == b'\n')? + 1;
            let length = literal(&rest[..end])?;
            let text = rest.get(end..end + length)?.to_vec();
            *rest = &rest[end + length..];
            Some(Value::Text(text))
        }
        _ => {
            // A section may have anything between its brackets.
            let mut depth = 0_u32;
            let is_end = |byte: &u8| match byte {
                b'[' => {
                    depth += 1;
                    false
                }
                b']' => {
                    depth = depth.saturating_sub(1);
                    false
                }
                b' ' | b'(' | b')' => depth == 0,
                _ => false,
            };
            let end = rest.iter().position(is_end).unwrap_or(rest.len());
            let word = String::from_utf8(rest[..end].to_vec()).ok()?;
            *rest = &rest[end..];
            match word.as_str() {
                "" => None,
                "NIL" => Some(Value::Nil),
                _ => Some(Value::Word(word)),
            }
        }
    }
}
