//! The server's side of a session, and its states:
//!
//! ```text
//! Greeted ── EHLO/HELO ──► Ready ── MAIL ──► Open ── RCPT ──► Open (with recipients)
//!                            ▲                                     │ DATA
//!                            └──────── final dot, RSET, EHLO ──────┴──► Text
//! ```
//!
//! The driver calls [`Session::step`] with what it has read and obeys the action that comes back;
//! replies gather in [`Session::output`], which it sends whenever it has to wait for input.

mod auth;
mod commands;

use super::command::{Chunk, Extensions};
use super::xclient::{Claim, Known};
use super::{Body, Recipient, Reply, Transaction};
use crate::message::Address;
use crate::message::header::HopCounter;
use crate::sasl::{Exchange, Mechanism, Question};
use crate::text::data::{Decoder, LineEnds, Piece};
use crate::text::line::{Line, LineReader};

pub use auth::Login;

/// The longest command line, its end included (RFC 5321 section 4.5.3.1.4 asks for 512, and
/// extensions for more).
const MAX_LINE: usize = 2048;
/// So many Received fields mean a loop (RFC 5321 section 6.3).
const MAX_HOPS: usize = 100;

/// Which of the two protocols is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    /// RFC 5321.
    Smtp,
    /// RFC 2033.
    Lmtp,
}

/// What a session may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a message's text, with CRLF line ends.
    pub message_size: u64,
    /// Recipients of a message.
    pub recipients: usize,
    /// Commands refused before the session ends.
    pub errors: usize,
}

/// What the driver shall do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<'a> {
    /// Send the output, then read more.
    Read,
    /// Answer with [`Session::recipient`].
    CheckRecipient(Address),
    /// Get ready for TLS; answer with [`Session::start_tls`].
    StartTls,
    /// Ask whoever knows the accounts; answer with [`Session::authenticate`].
    Authenticate(Mechanism, Question),
    /// Look somebody up; answer with [`Session::looked_up`].
    LookUp(LookUp),
    /// The client speaks for another one; answer with [`Session::claimed`].
    Claim(Claim),
    /// Make room for a message; answer with [`Session::opened`].
    Open,
    /// Keep this text of the message.
    Store(&'a [u8]),
    /// The text is whole: make it last, then answer with [`Session::stored`].
    Commit,
    /// Throw the text away.
    Discard,
    /// Send the output, then end the session.
    Close,
}

/// What policy says of a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is taken.
    Accept,
    /// It is not, and this is said.
    Refuse(Reply),
}

/// Whom a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LookUp {
    /// Is there somebody at this address? (VRFY)
    Verify(Address),
    /// Who is in this list? (EXPN)
    Expand(Address),
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Commands,
    LookingUp(LookUp),
    Claiming(Claim),
    CheckingRecipient(Recipient),
    StartingTls,
    /// The client's response is awaited.
    Challenged(Box<Exchange>),
    /// The answer to a question is.
    Asking(Box<Exchange>, Question),
    /// For DATA, or for the first chunk of BDAT.
    Opening(Option<Chunk>),
    Text,
    /// So many bytes of a chunk are left.
    Chunk(Chunk),
    /// So many bytes of a chunk that is not wanted are left; then this is said, if anything.
    Skip(u64, Option<Reply>),
    Committing,
    Closing,
}

/// Whether the session is encrypted (RFC 3207).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tls {
    Unknown,
    Offered,
    On,
}

/// One session.
#[derive(Debug)]
pub struct Session {
    dialect: Dialect,
    /// What is announced beside what all sessions have, and therefore taken.
    extensions: Extensions,
    hostname: String,
    origin: String,
    limits: Limits,
    /// Whether input that comes before its turn ends the session.
    strict: bool,
    tls: Tls,
    /// How clients may log in, if at all.
    login: Option<Login>,
    /// Who has.
    user: Option<String>,
    failures: u32,
    /// Whether VRFY and EXPN are answered.
    vrfy: bool,
    expn: bool,
    state: State,
    lines: LineReader,
    output: Vec<u8>,
    helo: Option<String>,
    extended: bool,
    transaction: Option<Transaction>,
    errors: usize,
    decoder: Decoder,
    /// For chunks of a text that has lines.
    line_ends: Option<LineEnds>,
    hops: HopCounter,
    size: u64,
    /// What is said at its end of a text that is not kept.
    refusal: Option<Reply>,
    /// Chunks of BDAT have begun a text.
    begun: bool,
    /// That text was given up.
    abandoned: bool,
}

impl Session {
    /// A session that greets in the name of `hostname`; addresses without a domain are in
    /// `origin`. `strict` is for clients of the network:
    /// input sent before its turn, other than pipelined commands, ends the session (RFC 2920,
    /// CVE-2023-51764); a pipe may bring a whole session at once.
    pub fn new(
        dialect: Dialect,
        hostname: &str,
        origin: &str,
        limits: Limits,
        strict: bool,
    ) -> Self {
        // On a pipe or a terminal line ends are this host's, so that nobody's count would be right.
        let chunking = strict || dialect == Dialect::Lmtp;
        let mut session = Self {
            dialect,
            extensions: Extensions { chunking, binarymime: chunking, ..Extensions::default() },
            hostname: hostname.to_owned(),
            origin: origin.to_owned(),
            limits,
            strict,
            tls: Tls::Unknown,
            login: None,
            user: None,
            failures: 0,
            vrfy: false,
            expn: false,
            state: State::Commands,
            lines: LineReader::new(MAX_LINE),
            output: Vec::new(),
            helo: None,
            extended: false,
            transaction: None,
            errors: 0,
            decoder: Decoder::default(),
            line_ends: None,
            hops: HopCounter::default(),
            size: 0,
            refusal: None,
            begun: false,
            abandoned: false,
        };
        session.greeting();
        session
    }

    fn greeting(&mut self) {
        let word = if self.dialect == Dialect::Lmtp { "LMTP" } else { "ESMTP" };
        self.reply(&Reply::plain(220, format!("{} {word} Hikyaku", self.hostname)));
    }

    /// Answers VRFY and EXPN.
    pub fn offer_lookups(&mut self, vrfy: bool, expn: bool) {
        (self.vrfy, self.expn) = (vrfy, expn);
    }

    /// Lets the client say that it speaks for another one.
    pub fn offer_xclient(&mut self) {
        self.extensions.xclient = true;
    }

    /// Offers STARTTLS, for a driver that can begin TLS.
    pub fn offer_tls(&mut self) {
        self.tls = Tls::Offered;
    }

    /// Replies to be sent; the driver takes them out.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// What the client called itself.
    pub fn helo(&self) -> &str {
        self.helo.as_deref().unwrap_or_default()
    }

    /// The account that the client has logged in to.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The word for Received's `with` (RFC 3848, which has none for HELO under TLS; RFC 6531 section
    /// 4.3).
    pub fn protocol(&self) -> &'static str {
        let utf8 = self.transaction.as_ref().is_some_and(|transaction| transaction.utf8);
        match (self.dialect, self.extended) {
            (Dialect::Lmtp, _) if utf8 => "UTF8LMTP",
            (Dialect::Lmtp, _) => "LMTP",
            (Dialect::Smtp, true) => match (self.tls == Tls::On, self.user.is_some(), utf8) {
                (false, false, false) => "ESMTP",
                (false, false, true) => "UTF8SMTP",
                (false, true, false) => "ESMTPA",
                (false, true, true) => "UTF8SMTPA",
                (true, false, false) => "ESMTPS",
                (true, false, true) => "UTF8SMTPS",
                (true, true, false) => "ESMTPSA",
                (true, true, true) => "UTF8SMTPSA",
            },
            (Dialect::Smtp, false) => "SMTP",
        }
    }

    /// The message that is being received; its recipients are those accepted so far.
    pub fn transaction(&self) -> Option<&Transaction> {
        self.transaction.as_ref()
    }

    /// Commands that were refused.
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Bytes of the text that were stored.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Ends the session from our side: a timeout, a signal, a limit.
    pub fn hang_up(&mut self, reply: &Reply) {
        self.reply(reply);
        self.state = State::Closing;
    }

    /// Takes what it can from the input and says what to do.
    pub fn step<'a>(&mut self, input: &mut &'a [u8]) -> Action<'a> {
        loop {
            if std::mem::take(&mut self.abandoned) {
                return Action::Discard;
            }
            match &self.state {
                State::Commands => match self.lines.take(input) {
                    Line::More => return Action::Read,
                    Line::TooLong => self.refuse(&Reply::new(500, "5.5.2", "Error: line too long")),
                    Line::Whole(line) => self.command(&line, !input.is_empty()),
                },
                State::CheckingRecipient(recipient) => {
                    return Action::CheckRecipient(recipient.address.clone());
                }
                State::LookingUp(what) => return Action::LookUp(what.clone()),
                State::Claiming(claim) => return Action::Claim(claim.clone()),
                State::StartingTls => return Action::StartTls,
                State::Challenged(_) => match self.lines.take(input) {
                    Line::More => return Action::Read,
                    Line::TooLong => self.response_too_long(),
                    Line::Whole(line) => self.response(&line, !input.is_empty()),
                },
                State::Asking(exchange, question) => {
                    return Action::Authenticate(exchange.mechanism(), question.clone());
                }
                State::Opening(_) => return Action::Open,
                State::Text => match self.decoder.next(input) {
                    Piece::More => return Action::Read,
                    Piece::End => self.state = State::Committing,
                    Piece::Text(text) => {
                        if let Some(action) = self.text(text) {
                            return action;
                        }
                    }
                },
                State::Chunk(chunk) if chunk.size == 0 => {
                    if chunk.last {
                        self.begun = false;
                        self.state = State::Committing;
                        let end = self.line_ends.take().map_or(&[] as &[u8], LineEnds::finish);
                        if let Some(action) = self.text(end) {
                            return action;
                        }
                    } else {
                        self.state = State::Commands;
                        let more = || Reply::new(250, "2.0.0", "Ok, more");
                        let reply = self.refusal.clone().unwrap_or_else(more);
                        self.reply(&reply);
                    }
                }
                State::Chunk(_) | State::Skip(1.., _) if input.is_empty() => return Action::Read,
                State::Chunk(chunk) => {
                    let chunk = *chunk;
                    let all = *input;
                    let (mut text, _) = split(input, chunk.size);
                    let length = text.len();
                    let piece = match &mut self.line_ends {
                        Some(ends) => ends.next(&mut text),
                        None => std::mem::take(&mut text),
                    };
                    let taken = length - text.len();
                    *input = all.get(taken..).unwrap_or_default();
                    let size = chunk.size.saturating_sub(taken as u64);
                    self.state = State::Chunk(Chunk { size, ..chunk });
                    if let Some(action) = self.text(piece) {
                        return action;
                    }
                }
                State::Skip(0, reply) => {
                    let reply = reply.clone();
                    self.state = State::Commands;
                    if let Some(reply) = reply {
                        self.refuse(&reply);
                    }
                }
                State::Skip(size, reply) => {
                    let reply = reply.clone();
                    let (_, left) = split(input, *size);
                    self.state = State::Skip(left, reply);
                }
                State::Committing => {
                    // What has a refusal by now was thrown away when it got it.
                    let is_gone = self.refusal.is_some();
                    let loops = self.hops.hops() > MAX_HOPS;
                    let too_many = || Reply::new(554, "5.4.6", "Error: too many hops");
                    let refusal = self.refusal.take().or_else(|| loops.then(too_many));
                    let Some(refusal) = refusal else {
                        return Action::Commit;
                    };
                    for _ in 0..self.replies_after_text() {
                        self.reply(&refusal);
                    }
                    self.reset();
                    if !is_gone {
                        return Action::Discard;
                    }
                }
                State::Closing => return Action::Close,
            }
        }
    }

    /// The answer to [`Action::LookUp`]: a refusal, or lines of one code.
    pub fn looked_up(&mut self, answer: Result<&[Reply], Reply>) {
        self.state = State::Commands;
        match answer {
            Ok(lines) => self.reply_lines(lines),
            Err(reply) => self.refuse(&reply),
        }
    }

    /// The answer to [`Action::Claim`]: the session begins anew, as that of another client.
    pub fn claimed(&mut self) {
        let State::Claiming(claim) = std::mem::replace(&mut self.state, State::Commands) else {
            return;
        };
        self.reset();
        self.helo = claim.helo.and_then(Known::value);
        self.extended = claim.extended.unwrap_or(true);
        // The certificate is not that client's.
        self.bind(Vec::new(), None);
        if let Some(login) = claim.login {
            self.user = login.value();
        }
        self.greeting();
    }

    /// The answer to [`Action::CheckRecipient`].
    pub fn recipient(&mut self, verdict: Verdict) {
        let checked = std::mem::replace(&mut self.state, State::Commands);
        let State::CheckingRecipient(recipient) = checked else {
            return;
        };
        match verdict {
            Verdict::Refuse(reply) => self.refuse(&reply),
            Verdict::Accept => {
                if let Some(transaction) = &mut self.transaction {
                    // LMTP answers for each RCPT, SMTP for the message: only there once is enough.
                    let mut others = transaction.recipients.iter();
                    let known = others.any(|other| other.address.is_same(&recipient.address));
                    if !known || self.dialect == Dialect::Lmtp {
                        transaction.recipients.push(recipient);
                    }
                }
                self.reply(&Reply::new(250, "2.1.5", "Ok"));
            }
        }
    }

    /// The answer to [`Action::StartTls`]: `Err` is said, and the session goes on without.
    ///
    /// After `Ok` the driver sends the output as it is and shakes hands; a session whose handshake
    /// fails is at its end. Whatever the client said in the clear is forgotten (RFC 3207 section
    /// 4.2), but not how often it was refused.
    pub fn start_tls(&mut self, result: Result<(), Reply>) {
        if self.state != State::StartingTls {
            return;
        }
        self.state = State::Commands;
        if let Err(reply) = result {
            return self.refuse(&reply);
        }
        self.reset();
        self.helo = None;
        self.extended = false;
        self.user = None;
        self.tls = Tls::On;
        self.reply(&Reply::new(220, "2.0.0", "Ready to start TLS"));
    }

    /// The answer to [`Action::Open`]: the message is not taken after `Err`, which is said.
    ///
    /// In the place of 354 it is said once (RFC 2033 section 4.2 counts replies to the final dot
    /// only). To chunks it is said as an outcome is: once to each, and to the last one as often as
    /// there are recipients (section 4.3).
    pub fn opened(&mut self, result: Result<(), Reply>) {
        let State::Opening(chunk) = std::mem::replace(&mut self.state, State::Commands) else {
            return;
        };
        let is_binary =
            self.transaction.as_ref().is_some_and(|message| message.body == Body::BinaryMime);
        self.decoder = Decoder::default();
        self.line_ends = (!is_binary).then(LineEnds::default);
        self.hops = HopCounter::default();
        self.size = 0;
        self.refusal = None;
        match (chunk, result) {
            (None, Ok(())) => {
                self.state = State::Text;
                self.reply(&Reply::plain(354, "End data with <CR><LF>.<CR><LF>"));
            }
            (None, Err(reply)) => {
                self.reset();
                self.reply(&reply);
            }
            (Some(chunk), result) => {
                self.refusal = result.err();
                self.begun = true;
                self.state = State::Chunk(chunk);
            }
        }
    }

    /// The answer to [`Action::Commit`]: one reply for the message; in LMTP one for each recipient.
    pub fn stored(&mut self, replies: &[Reply]) {
        for reply in replies {
            self.reply(reply);
        }
        self.reset();
    }

    /// Whether what comes next belongs to a message's text.
    pub fn is_amid_text(&self) -> bool {
        matches!(self.state, State::Text | State::Chunk(_) | State::Skip(..))
    }

    /// A piece of the message's text.
    fn text<'a>(&mut self, text: &'a [u8]) -> Option<Action<'a>> {
        if self.refusal.is_some() || text.is_empty() {
            return None;
        }
        self.hops.push(text);
        self.size = self.size.saturating_add(text.len() as u64);
        if self.size <= self.limits.message_size {
            return Some(Action::Store(text));
        }
        self.refusal = Some(too_big());
        Some(Action::Discard)
    }

    /// One; in LMTP one for each RCPT that was accepted (RFC 2033 sections 4.2 and 4.3).
    fn replies_after_text(&self) -> usize {
        match (self.dialect, &self.transaction) {
            (Dialect::Lmtp, Some(transaction)) => transaction.recipients.len(),
            _ => 1,
        }
    }

    fn reset(&mut self) {
        self.abandoned = std::mem::take(&mut self.begun);
        self.refusal = None;
        self.transaction = None;
        self.state = State::Commands;
    }

    fn reply(&mut self, reply: &Reply) {
        self.output.extend_from_slice(reply.to_string().as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    /// Replies of one code as one of several lines.
    fn reply_lines(&mut self, replies: &[Reply]) {
        for (number, reply) in replies.iter().enumerate() {
            let mut line = reply.to_string();
            if number + 1 < replies.len() {
                line.replace_range(3..4, "-");
            }
            self.output.extend_from_slice(format!("{line}\r\n").as_bytes());
        }
    }

    fn lines(&mut self, code: u16, lines: &[String]) {
        for (number, line) in lines.iter().enumerate() {
            let separator = if number + 1 < lines.len() { '-' } else { ' ' };
            self.output.extend_from_slice(format!("{code}{separator}{line}\r\n").as_bytes());
        }
    }

    /// Says no; too many times no ends the session.
    fn refuse(&mut self, reply: &Reply) {
        self.reply(reply);
        self.errors += 1;
        if self.errors >= self.limits.errors {
            self.hang_up(&Reply::new(421, "4.7.0", "Error: too many errors"));
        }
    }
}

/// To a message past the limit (RFC 1870 section 6.3).
fn too_big() -> Reply {
    Reply::new(552, "5.3.4", "Error: message file too big")
}

/// Takes at most `size` bytes off the input; how many are left to be taken.
fn split<'a>(input: &mut &'a [u8], size: u64) -> (&'a [u8], u64) {
    let length = usize::try_from(size).unwrap_or(usize::MAX).min(input.len());
    let (taken, rest) = input.split_at(length);
    *input = rest;
    (taken, size.saturating_sub(length as u64))
}

#[cfg(test)]
mod tests;
