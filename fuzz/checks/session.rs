//! A session with a client that sends anything, against a client's own count of what it is owed:
//! one reply a command, one for a text (by LMTP one a recipient), and the text that was sent.
//!
//! The first line of an input is no client's: each of its letters sets something up. `l` LMTP, `s`
//! strict, `t` TLS is offered, `e` it has begun, `v` VRFY and EXPN, `x` XCLIENT, `a` logins, `r` they
//! are required, `p` and allowed without TLS, `b` big limits, `n` not every answer is yes.

use hikyaku::sasl::scram::Hash;
use hikyaku::sasl::{Answer, Binding, Facts, Keys, Question};
use hikyaku::smtp::command::{self, Chunk, Command, Extensions};
use hikyaku::smtp::reply::is_enhanced;
use hikyaku::smtp::{
    Action, Body, Dialect, Limits, Login, LookUp, Reply, Session, Transaction, Verdict,
};

use crate::dice::Dice;
use crate::text;

/// Ends a session.
const TOO_EARLY: &str = "503 5.5.0 Error: improper command pipelining: wait for the reply\r\n";
/// The longest line of a command.
const MAX_LINE: usize = 2048;

pub fn check(input: &[u8]) {
    let at = memchr::memchr(b'\n', input).unwrap_or(input.len());
    let (setup, bytes) = input.split_at(at);
    let setup = Setup { letters: setup, seed: input };
    let bytes = bytes.get(1..).unwrap_or_default();

    let patient = Patient::serve(&setup, bytes);
    check_impatient(&setup, [bytes].into_iter(), &patient);
    let mut dice = Dice::of(input);
    let most = [1, 2, 10, 5000][dice.below(4)];
    // Or else no strict session gets far.
    let by_lines = dice.below(2) == 0;
    let mut rest = bytes;
    let pieces = std::iter::from_fn(|| {
        let length = rest.len().min(1 + dice.below(most));
        let line = memchr::memchr(b'\n', rest).filter(|_| by_lines).map(|at| at + 1);
        let (piece, behind) = rest.split_at(line.map_or(length, |line| line.min(length)));
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    });
    check_impatient(&setup, pieces, &patient);
}

/// Where the reads are cut makes no difference, but to a client that must wait and does not.
fn check_impatient<'a>(setup: &Setup, pieces: impl Iterator<Item = &'a [u8]>, patient: &Served) {
    let mut served = Served::new(setup);
    served.take(b"");
    for piece in pieces {
        served.take(piece);
    }
    let (now, wanted) = (utf8(&served.said), utf8(&patient.said));
    match now.strip_suffix(TOO_EARLY) {
        Some(now) if served.is_over => {
            assert!(wanted.starts_with(now), "{now}\nis not how this begins:\n{wanted}");
            assert!(patient.messages.starts_with(&served.messages));
        }
        _ => {
            assert_eq!(now, wanted);
            assert!(patient.messages == served.messages && patient.is_over == served.is_over);
        }
    }
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// What a session is like.
struct Setup<'a> {
    letters: &'a [u8],
    /// Of the answers.
    seed: &'a [u8],
}

impl Setup<'_> {
    fn has(&self, letter: u8) -> bool {
        self.letters.contains(&letter)
    }

    fn is_lmtp(&self) -> bool {
        self.has(b'l')
    }

    fn has_chunks(&self) -> bool {
        self.has(b's') || self.is_lmtp()
    }

    fn limits(&self) -> Limits {
        if self.has(b'b') {
            Limits { message_size: 3000, recipients: 10, errors: 30 }
        } else {
            Limits { message_size: 40, recipients: 2, errors: 5 }
        }
    }

    fn session(&self) -> Session {
        let dialect = if self.is_lmtp() { Dialect::Lmtp } else { Dialect::Smtp };
        let strict = self.has(b's');
        let mut session = Session::new(dialect, "h.example", "o.example", self.limits(), strict);
        session.offer_lookups(self.has(b'v'), self.has(b'v'));
        if self.has(b'x') {
            session.offer_xclient();
        }
        if self.has(b'a') && !self.is_lmtp() {
            session.offer_login(Login {
                without_tls: self.has(b'p'),
                required: self.has(b'r'),
                facts: Facts { scram: vec![Hash::Sha1, Hash::Sha256], ..Facts::default() },
            });
        }
        if self.has(b'e') {
            let data = b"connection".to_vec();
            session.begin_encrypted(vec![Binding { name: "tls-exporter", data }], None);
        } else if self.has(b't') {
            session.offer_tls();
        }
        session
    }
}

/// A session, its driver, and what came of it.
struct Served<'a> {
    setup: &'a Setup<'a>,
    session: Session,
    dice: Dice,
    /// All replies.
    said: Vec<u8>,
    /// The text of the message that is being received.
    open: Option<Vec<u8>>,
    messages: Vec<(Transaction, Vec<u8>)>,
    is_encrypted: bool,
    is_over: bool,
}

impl<'a> Served<'a> {
    fn new(setup: &'a Setup) -> Self {
        Self {
            setup,
            session: setup.session(),
            dice: Dice::of(setup.seed),
            said: Vec::new(),
            open: None,
            messages: Vec::new(),
            is_encrypted: setup.has(b'e'),
            is_over: false,
        }
    }

    /// Whether the answer to what comes next is yes.
    fn yes(&mut self) -> bool {
        !self.setup.has(b'n') || self.dice.below(4) > 0
    }

    fn check_login(&self) {
        let is_required = self.setup.has(b'a') && self.setup.has(b'r') && !self.setup.is_lmtp();
        assert!(!is_required || self.session.user().is_some(), "nobody has logged in");
    }

    /// Obeys until all of a read is taken.
    fn take(&mut self, mut input: &[u8]) {
        let limits = self.setup.limits();
        // Each byte can lead to so many actions at most.
        let mut left = 8 * input.len() + 16;
        loop {
            left -= 1;
            assert!(left > 0, "the session does not wait for input");
            let action = self.session.step(&mut input);
            match action {
                Action::Read => {
                    assert!(input.is_empty() && !self.is_over);
                    break;
                }
                Action::Close => {
                    self.is_over = true;
                    break;
                }
                Action::CheckRecipient(_) => {
                    self.check_login();
                    assert!(self.open.is_none());
                    let denied = || Reply::new(450, "4.7.1", "Not now");
                    let verdict =
                        if self.yes() { Verdict::Accept } else { Verdict::Refuse(denied()) };
                    self.session.recipient(verdict);
                }
                Action::StartTls => {
                    assert!(self.setup.has(b't') && !self.is_encrypted);
                    self.is_encrypted = self.yes();
                    let trouble = || Reply::new(454, "4.7.0", "TLS not available");
                    self.session.start_tls(self.is_encrypted.then_some(()).ok_or_else(trouble));
                    assert!(!self.is_encrypted || self.session.helo().is_empty());
                }
                Action::Authenticate(_, question) => {
                    assert!(self.setup.has(b'a') && (self.is_encrypted || self.setup.has(b'p')));
                    let answer = self.answer(question);
                    self.session.authenticate(answer);
                }
                Action::LookUp(what) => {
                    self.check_login();
                    let lines = ["<a@here.example>", "<b@here.example>"];
                    let lines = lines.map(|line| Reply::new(250, "2.1.5", line));
                    let count = if matches!(what, LookUp::Expand(_)) { 2 } else { 1 };
                    let nobody = || Reply::new(550, "5.1.1", "Nobody");
                    let found = if self.yes() { Ok(&lines[..count]) } else { Err(nobody()) };
                    self.session.looked_up(found);
                }
                Action::Claim(_) => {
                    assert!(self.setup.has(b'x') && self.session.transaction().is_none());
                    self.session.claimed();
                }
                Action::Open => {
                    self.check_login();
                    assert!(self.open.is_none());
                    let count = self.session.transaction().unwrap().recipients.len();
                    assert!((1..=limits.recipients).contains(&count));
                    let is_open = self.yes();
                    self.open = is_open.then(Vec::new);
                    let full = || Reply::new(452, "4.3.1", "No room");
                    self.session.opened(is_open.then_some(()).ok_or_else(full));
                }
                Action::Store(piece) => {
                    let text = self.open.as_mut().unwrap();
                    text.extend_from_slice(piece);
                    assert!(!piece.is_empty() && text.len() as u64 <= limits.message_size);
                    assert_eq!(self.session.size(), text.len() as u64);
                }
                // Also where nothing was begun.
                Action::Discard => self.open = None,
                Action::Commit => self.commit(),
            }
        }
        self.said.append(self.session.output());
        assert!(self.session.errors() <= limits.errors);
    }

    fn answer(&mut self, question: Question) -> Answer {
        let is_yes = self.yes();
        match question {
            _ if self.setup.has(b'n') && self.dice.below(10) == 0 => Answer::Unavailable,
            Question::Salt { user, hash } => {
                Answer::Salt(Keys::stand_in(b"x", &user, hash, None).salt("ours".into()))
            }
            Question::Proof(_) if is_yes => Answer::Signature(vec![0; 32]),
            Question::Password { .. } | Question::Proven(true) if is_yes => Answer::Accepted,
            Question::Password { .. } | Question::Proof(_) | Question::Proven(_) => Answer::Refused,
        }
    }

    fn commit(&mut self) {
        let text = self.open.take().unwrap();
        let transaction = self.session.transaction().unwrap().clone();
        if transaction.body != Body::BinaryMime {
            assert_eq!(text, text::cleaned(&text), "{}", text.escape_ascii());
        }
        let count = if self.setup.is_lmtp() { transaction.recipients.len() } else { 1 };
        let replies: Vec<Reply> = (0..count)
            .map(|_| {
                let (stored, not) = ((250, "2.0.0", "Stored"), (451, "4.3.0", "Not stored"));
                let (code, enhanced, text) = if self.yes() { stored } else { not };
                Reply::new(code, enhanced, text)
            })
            .collect();
        self.session.stored(&replies);
        self.messages.push((transaction, text));
    }
}

/// What the client sends next.
enum Turn {
    Command,
    /// To a challenge.
    Response,
    /// Of DATA.
    Text,
}

/// A client that waits for each reply, and knows how many it has to get.
struct Patient<'a> {
    served: Served<'a>,
    /// So much of what was said is read.
    read: usize,
    /// RCPTs of this transaction that were taken.
    recipients: usize,
    body: Body,
    /// Of this transaction.
    chunks: Vec<u8>,
}

impl<'a> Patient<'a> {
    fn serve(setup: &'a Setup, mut input: &[u8]) -> Served<'a> {
        let served = Served::new(setup);
        let body = Body::default();
        let mut client = Self { served, read: 0, recipients: 0, body, chunks: Vec::new() };
        assert_eq!(client.send(b""), [220]);
        let mut turn = Turn::Command;
        while !client.served.is_over && !input.is_empty() {
            turn = match turn {
                Turn::Command => client.command(&mut input),
                Turn::Response => client.response(&mut input),
                Turn::Text => client.text(&mut input),
            };
        }
        client.served
    }

    /// The codes of the replies to this, without that of a session's end.
    fn send(&mut self, bytes: &[u8]) -> Vec<u16> {
        self.served.take(bytes);
        let mut codes = codes(&self.served.said[self.read..]);
        self.read = self.served.said.len();
        if self.served.is_over && codes.len() > 1 && codes.last() == Some(&421) {
            codes.pop();
        }
        codes
    }

    fn command(&mut self, input: &mut &[u8]) -> Turn {
        let line = line(input);
        if !line.ends_with(b"\n") {
            assert_eq!(self.send(line), []);
            return Turn::Command;
        }
        let command = understood(line);
        if let Some(Command::Bdat(chunk)) = command
            && self.served.setup.has_chunks()
        {
            self.chunk(line, input, chunk);
            return Turn::Command;
        }
        let [code] = self.send(line)[..] else {
            panic!("more or less than one reply to {}", line.escape_ascii());
        };
        let is_meant = command.as_ref().is_none_or(|command| replies_to(command).contains(&code));
        assert!(is_meant || is_refusal_of_all(code), "{code} to {}", line.escape_ascii());
        match (command, code) {
            (Some(Command::Mail { parameters, .. }), 250) => self.body = parameters.body,
            (Some(Command::Rcpt { .. }), 250) => self.recipients += 1,
            (Some(Command::Data), 354) => return Turn::Text,
            (Some(Command::Auth { .. }), 334) => return Turn::Response,
            (_, 300..=399) => panic!("{code} to {}", line.escape_ascii()),
            // The message can't be begun.
            (Some(Command::Data), 452)
            | (Some(Command::Ehlo(_) | Command::Helo(_) | Command::Lhlo(_) | Command::Rset), 250)
            | (Some(Command::StartTls | Command::Xclient(_)), 220) => self.forget(),
            _ => {}
        }
        Turn::Command
    }

    fn response(&mut self, input: &mut &[u8]) -> Turn {
        let line = line(input);
        match self.send(line)[..] {
            [334] => Turn::Response,
            [] if !line.ends_with(b"\n") => Turn::Response,
            [235 | 454 | 500 | 501 | 535] => Turn::Command,
            ref other => panic!("{other:?} to {}", line.escape_ascii()),
        }
    }

    fn text(&mut self, input: &mut &[u8]) -> Turn {
        let Some((wanted, length)) = text::decoded(input) else {
            assert_eq!(self.send(std::mem::take(input)), []);
            return Turn::Text;
        };
        let (bytes, behind) = input.split_at(length);
        *input = behind;
        let before = self.served.messages.len();
        let codes = self.send(bytes);
        self.outcome(&codes, before, &wanted);
        Turn::Command
    }

    /// Its bytes are never commands, whatever is said to it.
    fn chunk(&mut self, line: &[u8], input: &mut &[u8], chunk: Chunk) {
        let before = self.served.messages.len();
        let mut codes = self.send(line);
        let size = usize::try_from(chunk.size).unwrap_or(usize::MAX);
        let (bytes, behind) = input.split_at(size.min(input.len()));
        *input = behind;
        if size > 0 {
            assert_eq!(codes, [], "before the chunk");
            codes = self.send(bytes);
        }
        if bytes.len() < size {
            assert_eq!(codes, [], "before the end of the chunk");
            return;
        }
        if self.recipients > 0 {
            self.chunks.extend_from_slice(bytes);
        }
        if !chunk.last {
            assert!(matches!(codes[..], [250 | 400..600]), "{codes:?}");
            return;
        }
        let wanted = match self.body {
            Body::BinaryMime => self.chunks.clone(),
            Body::SevenBit | Body::EightBitMime => text::cleaned(&self.chunks),
        };
        self.outcome(&codes, before, &wanted);
    }

    /// A text is stored as it is wanted to be, or it is refused in one way.
    fn outcome(&mut self, codes: &[u16], before: usize, wanted: &[u8]) {
        let owed = if self.served.setup.is_lmtp() { self.recipients } else { 1 };
        assert_eq!(codes.len(), owed);
        let limit = self.served.setup.limits().message_size;
        match &self.served.messages[before..] {
            [(transaction, stored)] => {
                assert_eq!(stored.escape_ascii().to_string(), wanted.escape_ascii().to_string());
                assert!((1..=self.recipients).contains(&transaction.recipients.len()));
                assert_eq!(transaction.body, self.body);
            }
            [] => {
                assert!(codes.iter().all(|code| *code >= 400 && *code == codes[0]), "{codes:?}");
                let may_be_refused = self.recipients == 0
                    || self.served.setup.has(b'n')
                    || wanted.len() as u64 > limit
                    || hops(wanted) > 100;
                assert!(may_be_refused, "{}", wanted.escape_ascii());
            }
            more => panic!("{} messages", more.len()),
        }
        if self.recipients > 0 {
            self.forget();
        }
    }

    fn forget(&mut self) {
        self.recipients = 0;
        self.body = Body::default();
        self.chunks.clear();
    }
}

/// A line with its end, or what there is of it.
fn line<'a>(input: &mut &'a [u8]) -> &'a [u8] {
    let length = memchr::memchr(b'\n', input).map_or(input.len(), |at| at + 1);
    let (line, behind) = input.split_at(length);
    *input = behind;
    line
}

/// A command that fits a line.
fn understood(line: &[u8]) -> Option<Command> {
    const ALL: Extensions =
        Extensions { chunking: true, binarymime: true, auth: true, xclient: true };
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let text = text.strip_suffix(b"\r").unwrap_or(text);
    command::parse(text, ALL).ok().filter(|_| line.len() <= MAX_LINE)
}

/// What may be said to a command (RFC 5321 section 4.3.2, and the extensions'), beside what may be to
/// any.
fn replies_to(command: &Command) -> &'static [u16] {
    match command {
        Command::Ehlo(_) | Command::Helo(_) | Command::Lhlo(_) | Command::Rset | Command::Noop => {
            &[250]
        }
        Command::Mail { .. } => &[250, 503, 552, 553, 555],
        Command::Rcpt { .. } => &[250, 450, 452, 503, 553, 555],
        Command::Data => &[354, 452, 503, 554],
        // Where there are none: else they are followed by their chunks.
        Command::Bdat(_) => &[],
        Command::StartTls => &[220, 454, 502, 503],
        Command::Auth { .. } => &[235, 334, 454, 503, 504, 535, 538],
        Command::Vrfy(_) => &[250, 252, 550],
        Command::Expn(_) => &[250, 550],
        Command::Xclient(_) => &[220, 503],
        Command::Help => &[214],
        Command::Quit => &[221],
    }
}

/// Of a line that is no command here, is wrong, or needs a login before it.
fn is_refusal_of_all(code: u16) -> bool {
    matches!(code, 500 | 501 | 530)
}

/// More than there are, perhaps.
fn hops(text: &[u8]) -> usize {
    memchr::memmem::find_iter(&text.to_ascii_lowercase(), b"received:").count()
}

/// The codes of whole replies, each of which is one.
fn codes(said: &[u8]) -> Vec<u16> {
    let (mut codes, mut begun) = (Vec::new(), None);
    for line in utf8(said).split_inclusive('\n') {
        let line = line.strip_suffix("\r\n").unwrap();
        assert!(line.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{line:?}");
        let code: u16 = line[..3].parse().unwrap();
        assert!((200..600).contains(&code) && begun.is_none_or(|begun| begun == code), "{line}");
        // RFC 5321 section 4.5.3.1.5, and RFC 4954 section 4.
        assert!(line.len() <= if code == 334 { 12_286 } else { 510 }, "{line}");
        let word = line[4..].split(' ').next().unwrap();
        assert!(code < 400 || is_enhanced(word, line.chars().next().unwrap()), "{line}");
        begun = match line.as_bytes()[3] {
            b'-' => Some(code),
            b' ' => None,
            _ => panic!("{line}"),
        };
        if begun.is_none() {
            codes.push(code);
        }
    }
    assert!(begun.is_none(), "a reply without an end");
    codes
}
