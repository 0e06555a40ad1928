//! Messages that prove by themselves that they are whole: who wrote one and which one it is stands
//! in its subject, and what its body has to be follows from that.

use std::fmt;
use std::io::Write;

use super::Dice;

/// Who puts messages into a mailbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Agent {
    LocalDeliver,
    Procmail,
    Maildrop,
    DovecotLda,
    Postfix,
}

const AGENTS: [(Agent, &str); 5] = [
    (Agent::LocalDeliver, "local"),
    (Agent::Procmail, "procmail"),
    (Agent::Maildrop, "maildrop"),
    (Agent::DovecotLda, "lda"),
    (Agent::Postfix, "postfix"),
];

impl Agent {
    fn name(self) -> &'static str {
        AGENTS.iter().find(|(agent, _)| *agent == self).unwrap().1
    }

    /// A body as it stands in the file.
    fn stored(self, body: &[u8]) -> Vec<u8> {
        if self == Self::DovecotLda && body.is_empty() {
            return b"\n".to_vec();
        }
        let is_quoted = |line: &[u8]| match self {
            Self::DovecotLda => false,
            Self::Procmail | Self::Postfix => line.starts_with(b"From "),
            Self::LocalDeliver | Self::Maildrop => {
                let quotes = line.iter().take_while(|b| **b == b'>').count();
                line[quotes..].starts_with(b"From ")
            }
        };
        let mut all = Vec::with_capacity(body.len() + 100);
        for line in body.split_inclusive(|b| *b == b'\n') {
            if is_quoted(line) {
                all.push(b'>');
            }
            all.extend_from_slice(line);
        }
        all
    }
}

/// How a message is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum View {
    /// As it stands in the file, or a neighbour gives it.
    Stored,
    /// As our own servers give it to clients.
    Ours,
}

/// What shall become of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fate {
    /// It stays.
    Keep,
    /// An IMAP client may expunge it.
    Expunge,
    /// mutt may save it elsewhere.
    Move,
    /// A POP3 client may delete it.
    Delete,
}

impl Fate {
    /// The word in its subject.
    pub fn word(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::Expunge => "expunge",
            Self::Move => "move",
            Self::Delete => "delete",
        }
    }
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Letter {
    pub agent: Agent,
    /// Which one of the agent's processes that run side by side.
    pub writer: usize,
    /// Which one of the writer's.
    pub number: usize,
}

impl fmt::Display for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (agent, fate) = (self.agent.name(), self.fate().word());
        write!(f, "{agent}-{}-{}-{fate}", self.writer, self.number)
    }
}

impl Letter {
    /// The message that has this subject.
    fn with_subject(subject: &str) -> Option<Self> {
        let mut words = subject.split('-');
        let name = words.next()?;
        let (agent, _) = AGENTS.into_iter().find(|(_, agent)| *agent == name)?;
        let letter = Self {
            agent,
            writer: words.next()?.parse().ok()?,
            number: words.next()?.parse().ok()?,
        };
        (letter.to_string() == subject).then_some(letter)
    }

    pub fn fate(&self) -> Fate {
        match self.number % 10 {
            3 => Fate::Expunge,
            5 => Fate::Move,
            7 => Fate::Delete,
            _ => Fate::Keep,
        }
    }

    /// Who sends it.
    pub fn sender(&self) -> String {
        format!("{}{}@example.org", self.agent.name(), self.writer)
    }

    /// The fields that it has when it is sent, and when it is read.
    fn header(&self) -> String {
        format!(
            "From: {}\nTo: hunt@smkwlab.net\nSubject: {self}\n\
             Date: Mon, 21 Jun 2004 03:15:20 +0900\nMessage-ID: <{self}@example.org>\n",
            self.sender()
        )
    }

    /// The body as it is sent: none, or up to 100 KB of what is hard in an mbox, with a last line
    /// that is not blank. (A blank one some take for what stands between two messages.)
    pub fn body(&self) -> Vec<u8> {
        let seed = self.agent as usize * 1_000_000 + self.writer * 100_000 + self.number;
        let mut dice = Dice::new(u64::try_from(seed).unwrap() + 1);
        let mut body = Vec::new();
        let most = match dice.below(40) {
            0..=3 => return body,
            4 => 100_000,
            5..=10 => 10_000,
            _ => 1_000,
        };
        let length = dice.below(most);
        while body.len() < length {
            match dice.below(12) {
                0 => body.extend_from_slice(b"From the beginning of a line\n"),
                1 => body.extend_from_slice(b"\n\n"),
                2 => body.extend_from_slice(
                    b"\nFrom x@example.org Mon Jun 21 03:15:20 2004\nSubject: no other one\n\n",
                ),
                3 => body.extend_from_slice(b">From here\n>>From there\n"),
                4 => body.extend_from_slice(b".\n..\nContent-Length: 7\nStatus: RO\n"),
                5 => {
                    let bytes = (0..dice.below(80)).map(|_| dice.next().to_be_bytes()[0] | 0x80);
                    body.extend(bytes.collect::<Vec<_>>());
                    body.push(b'\n');
                }
                6 if dice.below(4) == 0 => {
                    let line = "a long line ".repeat(dice.below(400));
                    body.extend_from_slice(line.as_bytes());
                    body.extend_from_slice(b"ends\n");
                }
                _ => writeln!(body, "{:x}", dice.next()).unwrap(),
            }
        }
        writeln!(body, "This was {self}.").unwrap();
        body
    }

    /// All of it as it is sent.
    pub fn message(&self) -> Vec<u8> {
        [self.header().as_bytes(), b"\n", &self.body()].concat()
    }

    /// Which message this is, as it stands in a file or is given to a client: proven to be whole,
    /// with whatever other fields; why not, where it is none. Only who knows our files takes our
    /// quoting off; everybody else's stays.
    pub fn prove(message: &[u8], view: View) -> Result<Self, String> {
        let torn = |why: &str| {
            let start = &message[..message.len().min(400)];
            Err(format!("{why}: {}", start.escape_ascii()))
        };
        // Where there is no text, Dovecot takes the blank line for what stands between messages.
        let blank = message.windows(2).position(|two| two == b"\n\n").map(|at| at + 1);
        let end = blank.unwrap_or(message.len());
        let header = String::from_utf8_lossy(&message[..end]);
        let subject = header.lines().find_map(|line| line.strip_prefix("Subject: "));
        let Some(letter) = subject.and_then(Self::with_subject) else {
            return torn("no subject");
        };
        for field in letter.header().lines() {
            if header.lines().filter(|line| *line == field).count() != 1 {
                return torn(&format!("not once {field}"));
            }
        }
        let mut expected = letter.body();
        if view == View::Stored || letter.agent != Agent::LocalDeliver {
            expected = letter.agent.stored(&expected);
        }
        let body = message.get(end + 1..).unwrap_or_default();
        if body == expected {
            return Ok(letter);
        }
        let same = body.iter().zip(&expected).take_while(|(a, b)| a == b).count();
        let found = &body[same..body.len().min(same + 200)];
        torn(&format!(
            "{letter}: {} bytes of body, not {}; from {same} on {}",
            body.len(),
            expected.len(),
            found.escape_ascii()
        ))
    }
}
