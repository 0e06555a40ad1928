//! SMTP, the client's side; pure: one connection, many messages.
//!
//! The driver sends what [`Client::output`] holds and [`Client::push`]es what it reads; after each
//! call it obeys [`Client::event`] until that says nothing. It goes on reading while it sends: what
//! a server says too early is found only so.
//!
//! ```text
//! greeting -> EHLO (HELO) [-> STARTTLS -> handshake -> EHLO] [-> AUTH] -> Ready
//! Ready    -> [RSET] MAIL RCPT... DATA [-> SendText -> text -> final dot] -> Ready
//!          -> [RSET] MAIL RCPT... [-> BDAT -> SendText -> text] -> Ready          (BINARYMIME)
//! ```
//!
//! Each command stands in a queue until its reply comes, and replies are matched in this order and
//! no other. A reply that nothing waits for ends the connection, as from there on no reply could be
//! trusted to belong to its command.

mod message;
mod opening;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

pub use message::Message;
pub use opening::{Credentials, Tls};

use super::Body;
use super::reply::{Answer, AnswerReader, Meaning};
use crate::text::dot::Stuffer;

/// The most commands that wait for their replies (RFC 2920): few enough that their replies fit the
/// buffers between the hosts, so that neither side waits for the other to read.
const WINDOW: usize = 100;

/// What the driver shall know, or do.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The TLS handshake is to be made now, then [`Client::tls_started`] called. Where it fails,
    /// nothing is left but another connection, in clear ([`Tls::Never`]) where that will do.
    StartTls,
    /// A message can be started, or the connection ended with [`Client::quit`].
    Ready,
    /// The text is to be given to [`Client::text`], then [`Client::end_text`] called.
    SendText,
    /// What became of a recipient, by its place in [`Message::recipients`]: delivered
    /// ([`Answer::is_positive`]), refused for good ([`Answer::is_permanent`]), or for now. At most
    /// one comes for each recipient; all are there before the next [`Event::Ready`].
    Outcome {
        /// Counted from 0.
        recipient: usize,
        /// The reply that decided: to RCPT, or to MAIL, DATA or the text for all that were left.
        answer: Answer,
    },
    /// The end: the server does not serve us, or not any more (421), or it can't do what we must
    /// have. Even for good (5yz) it says nothing of a recipient, who may be served by another host
    /// or later. Output that is left is sent before the connection is closed.
    Refused(Answer),
    /// The end, as with [`Event::Refused`]: the server goes by our own name, so mail would go round
    /// in circles.
    Ourselves,
    /// The end: what the server said is not SMTP.
    Broken(String),
    /// The end that [`Client::quit`] asked for.
    Closed,
}

/// What a reply is awaited for.
#[derive(PartialEq, Eq)]
enum Step {
    Greeting,
    Ehlo,
    Helo,
    StartTls,
    /// With what is still to be said, the last first.
    Auth(Vec<String>),
    Reset,
    Mail,
    Rcpt(usize),
    Data,
    /// The final dot, or the end of the only chunk.
    Dot,
    Quit,
}

enum Phase {
    /// Commands wait for replies.
    Busy,
    /// Nothing is under way.
    Ready,
    /// The driver makes the TLS handshake.
    Handshake,
    /// The driver gives the text: as lines that end with a dot, or (`None`) as a chunk.
    Text(Option<Stuffer>),
    /// Nothing is said or heard any more.
    Over,
}

/// A client's connection.
pub struct Client {
    hostname: String,
    tls: Tls,
    credentials: Option<Credentials>,
    /// A server that goes by our own name is no loop.
    may_be_ours: bool,
    /// Nobody between us and the server can listen.
    secure: bool,
    /// The reply to EHLO; none where only HELO was understood.
    offer: Option<Answer>,
    reader: AnswerReader,
    input: Vec<u8>,
    output: Vec<u8>,
    phase: Phase,
    /// Commands that are not sent yet.
    unsent: VecDeque<(Step, String)>,
    awaited: VecDeque<Step>,
    /// Recipients of the message that have had no outcome.
    open: BTreeSet<usize>,
    /// The outcome of all of them.
    verdict: Option<Answer>,
    in_doubt: bool,
    /// A transaction was begun that no text has ended.
    begun: bool,
    /// The size of a text that is to go as a chunk, as soon as it is known who takes it.
    chunk: Option<u64>,
    /// What to tell the driver when all that was read is understood: not before, as more input
    /// can make it untrue.
    due: Option<Event>,
}

impl Client {
    /// A connection on which nothing was said yet. `hostname` is our own name, for EHLO.
    pub fn new(hostname: &str, tls: Tls, credentials: Option<Credentials>) -> Self {
        Self {
            hostname: hostname.to_owned(),
            tls,
            credentials,
            may_be_ours: false,
            secure: tls == Tls::Unneeded,
            offer: None,
            reader: AnswerReader::default(),
            input: Vec::new(),
            output: Vec::new(),
            phase: Phase::Busy,
            unsent: VecDeque::new(),
            awaited: VecDeque::from([Step::Greeting]),
            open: BTreeSet::new(),
            verdict: None,
            in_doubt: false,
            begun: false,
            chunk: None,
            due: None,
        }
    }

    /// Takes a server that goes by our own name for no loop: the operator has named it, such as a
    /// filter on this host.
    pub fn expect_own_name(&mut self) {
        self.may_be_ours = true;
    }

    /// What is to be sent; the driver takes it out.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// What was read.
    pub fn push(&mut self, bytes: &[u8]) {
        match self.phase {
            Phase::Over => {}
            Phase::Handshake if !bytes.is_empty() => self.injected(),
            _ => self.input.extend_from_slice(bytes),
        }
    }

    /// How long to wait for what is awaited now: for a reply, or while the text is sent, for a
    /// piece of it to go (RFC 5321 section 4.5.3.2).
    pub fn patience(&self) -> Duration {
        match (&self.phase, self.awaited.front()) {
            (Phase::Text(_), _) => Duration::from_mins(3),
            (_, Some(Step::Data)) => Duration::from_mins(2),
            (_, Some(Step::Dot)) => Duration::from_mins(10),
            // All is done; it is only polite to wait.
            (_, Some(Step::Quit)) => Duration::from_secs(10),
            _ => Duration::from_mins(5),
        }
    }

    /// The recipients of the message that have had no outcome. After the end they are for another
    /// host, or for later.
    pub fn unanswered(&self) -> impl Iterator<Item = usize> {
        self.open.iter().copied()
    }

    /// Whether the final dot was sent for [`Client::unanswered`] and no reply came: the server may
    /// have taken the message, or not.
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// The handshake was made: whatever was said before is forgotten (RFC 3207 section 4.2).
    pub fn tls_started(&mut self) {
        if matches!(self.phase, Phase::Handshake) {
            self.phase = Phase::Busy;
            self.secure = true;
            self.offer = None;
            self.say(Step::Ehlo, format!("EHLO {}", self.hostname));
        }
    }

    /// Starts a message, after [`Event::Ready`].
    pub fn start(&mut self, message: &Message<'_>) {
        if !matches!(self.phase, Phase::Ready) {
            return;
        }
        self.phase = Phase::Busy;
        self.open = (0..message.recipients.len()).collect();
        // No number, or 0, is no limit (RFC 1870 section 3).
        let limit = self.arguments("SIZE").next().and_then(|limit| limit.parse().ok());
        let limit = limit.unwrap_or(0);
        if limit > 0 && message.size > limit {
            let size = message.size;
            let text = format!("5.3.4 the message has {size} bytes, the server takes {limit}");
            self.verdict = Some(Answer::new(552, &text));
            return;
        }
        if let Some(misfit) = message.misfit(|keyword| self.offers(keyword)) {
            self.verdict = Some(misfit);
            return;
        }
        if message.recipients.is_empty() {
            return;
        }
        if std::mem::replace(&mut self.begun, true) {
            self.queue(Step::Reset, "RSET".into());
        }
        let mail = message.mail(|keyword| self.offers(keyword));
        self.queue(Step::Mail, mail);
        for (number, recipient) in message.recipients.iter().enumerate() {
            let rcpt = Message::rcpt(recipient, |keyword| self.offers(keyword));
            self.queue(Step::Rcpt(number), rcpt);
        }
        if message.body == Body::BinaryMime {
            self.chunk = Some(message.size);
            self.flush();
        } else {
            self.say(Step::Data, "DATA".into());
        }
    }

    /// Begins the chunk that a text without lines goes as (RFC 3030 section 2).
    fn start_chunk(&mut self, size: u64) {
        self.output.extend_from_slice(format!("BDAT {size} LAST\r\n").as_bytes());
        self.phase = Phase::Text(None);
        self.due = Some(Event::SendText);
    }

    /// A piece of the text, with CRLF line ends but for BINARYMIME, after [`Event::SendText`]. A
    /// driver that can't go on closes the connection: without the final dot, or all of the bytes
    /// that were announced, nothing is delivered.
    pub fn text(&mut self, piece: &[u8]) {
        match &mut self.phase {
            Phase::Text(Some(stuffer)) => stuffer.push(piece, &mut self.output),
            Phase::Text(None) => self.output.extend_from_slice(piece),
            _ => {}
        }
    }

    /// The text is whole; adds the final dot, where there is one.
    pub fn end_text(&mut self) {
        match std::mem::replace(&mut self.phase, Phase::Busy) {
            Phase::Text(stuffer) => {
                if let Some(stuffer) = stuffer {
                    stuffer.finish(&mut self.output);
                }
                self.awaited.push_back(Step::Dot);
                self.in_doubt = true;
            }
            other => self.phase = other,
        }
    }

    /// Ends the connection; [`Event::Closed`] follows. It can do so politely only after
    /// [`Event::Ready`].
    pub fn quit(&mut self) {
        if matches!(self.phase, Phase::Ready) {
            self.phase = Phase::Busy;
            self.say(Step::Quit, "QUIT".into());
        } else {
            self.end(Event::Closed);
        }
    }

    /// What follows from what was read.
    pub fn event(&mut self) -> Option<Event> {
        loop {
            if let Some(answer) = self.verdict.take()
                && let Some(recipient) = self.open.pop_first()
            {
                self.verdict = Some(answer.clone());
                return Some(Event::Outcome { recipient, answer });
            }
            if matches!(self.phase, Phase::Busy) && self.awaited.is_empty() {
                let size = self.chunk.take().filter(|_| !self.open.is_empty());
                if let Some(size) = size {
                    self.start_chunk(size);
                    continue;
                }
                self.phase = Phase::Ready;
                self.due = Some(Event::Ready);
            }
            if matches!(self.phase, Phase::Over) {
                return self.due.take();
            }
            let mut rest = self.input.as_slice();
            let taken = self.reader.take(&mut rest);
            let used = self.input.len() - rest.len();
            self.input.drain(..used);
            match taken {
                Ok(Some(answer)) => {
                    let outcome = self.answer(answer);
                    self.flush();
                    if outcome.is_some() {
                        return outcome;
                    }
                }
                Ok(None) => return self.due.take(),
                Err(no) => self.end(Event::Broken(no.0)),
            }
        }
    }

    /// What a reply means to the command that it answers.
    fn answer(&mut self, answer: Answer) -> Option<Event> {
        let step = self.awaited.pop_front();
        match (step, answer.meaning()) {
            (Some(Step::Quit), _) => self.end(Event::Closed),
            (step, _) if answer.code == 421 => {
                // To the text it is an answer like any other; elsewhere it answers nothing.
                if step == Some(Step::Dot) {
                    self.in_doubt = false;
                    self.verdict = Some(answer.clone());
                }
                self.end(Event::Refused(answer));
            }
            (Some(Step::Greeting), Meaning::Done) => {
                self.say(Step::Ehlo, format!("EHLO {}", self.hostname));
            }
            // A server from before 1995, or one that plays it (RFC 5321 section 3.2).
            (Some(Step::Ehlo), Meaning::Never) => {
                self.say(Step::Helo, format!("HELO {}", self.hostname));
            }
            (Some(Step::Ehlo), Meaning::Done) => {
                self.offer = Some(answer.clone());
                self.hello(&answer);
            }
            (Some(Step::Helo), Meaning::Done) => self.hello(&answer),
            (Some(Step::StartTls), _) if answer.code == 220 => {
                if self.input.is_empty() {
                    self.phase = Phase::Handshake;
                    self.due = Some(Event::StartTls);
                } else {
                    self.injected();
                }
            }
            (Some(Step::StartTls), Meaning::Later | Meaning::Never) => self.authenticate(),
            (Some(Step::Auth(mut left)), Meaning::GoOn) => match left.pop() {
                Some(response) => self.say(Step::Auth(left), response),
                None => self.end(Event::Broken(answer.to_string())),
            },
            (Some(Step::Auth(_) | Step::Reset | Step::Mail | Step::Rcpt(_)), Meaning::Done) => {}
            (Some(Step::Mail | Step::Data), Meaning::Later | Meaning::Never) => {
                self.unsent.clear();
                self.verdict = Some(answer);
            }
            (Some(Step::Rcpt(recipient)), Meaning::Later | Meaning::Never) => {
                // Without an outcome still, unless MAIL was refused.
                if self.open.remove(&recipient) {
                    if self.open.is_empty() {
                        self.unsent.clear();
                    }
                    return Some(Event::Outcome { recipient, answer: too_many(answer) });
                }
            }
            (Some(Step::Data), Meaning::GoOn) if self.open.is_empty() => {
                // Sent along with recipients that were all refused: an empty text, for nobody
                // (RFC 2920 section 3.1).
                self.output.extend_from_slice(b".\r\n");
                self.awaited.push_back(Step::Dot);
            }
            (Some(Step::Data), _) if answer.code == 354 => {
                self.phase = Phase::Text(Some(Stuffer::default()));
                self.due = Some(Event::SendText);
            }
            // It does not want the text, and says so before its end.
            (None, Meaning::Later | Meaning::Never) if matches!(self.phase, Phase::Text(_)) => {
                self.verdict = Some(answer.clone());
                self.end(Event::Refused(answer));
            }
            (Some(Step::Dot), Meaning::Done | Meaning::Later | Meaning::Never) => {
                self.begun = false;
                self.in_doubt = false;
                self.verdict = Some(answer);
            }
            (Some(_), Meaning::Later | Meaning::Never) => self.leave(Event::Refused(answer)),
            _ => self.end(Event::Broken(answer.to_string())),
        }
        None
    }

    /// Whether the server has announced an extension.
    pub fn offers(&self, keyword: &str) -> bool {
        self.offer.as_ref().is_some_and(|offer| offer.offers(keyword))
    }

    fn arguments(&self, keyword: &str) -> impl Iterator<Item = &str> {
        self.offer.iter().filter_map(move |offer| offer.arguments(keyword)).flatten()
    }

    fn queue(&mut self, step: Step, line: String) {
        self.unsent.push_back((step, line));
    }

    fn say(&mut self, step: Step, line: String) {
        self.queue(step, line);
        self.flush();
    }

    /// Sends what may be sent before more replies have come.
    fn flush(&mut self) {
        let window = if self.offers("PIPELINING") { WINDOW } else { 1 };
        while self.awaited.len() < window
            && let Some((step, line)) = self.unsent.pop_front()
        {
            self.output.extend_from_slice(line.as_bytes());
            self.output.extend_from_slice(b"\r\n");
            self.awaited.push_back(step);
        }
    }

    /// Ends the connection as RFC 5321 section 4.1.1.10 wants it, but for the wait for a reply.
    fn leave(&mut self, event: Event) {
        self.end(event);
        self.output.extend_from_slice(b"QUIT\r\n");
    }

    /// What follows the reply to STARTTLS in clear would be taken for words under TLS.
    fn injected(&mut self) {
        self.end(Event::Broken("more than the reply to STARTTLS".into()));
    }

    fn end(&mut self, event: Event) {
        self.phase = Phase::Over;
        self.input.clear();
        self.unsent.clear();
        self.due = Some(event);
    }
}

/// A refused recipient's reply: 552 for one too many is what RFC 821 wrote by mistake for 452 (RFC
/// 5321 section 4.5.3.1.10). With a code that tells of another reason, it is meant.
fn too_many(answer: Answer) -> Answer {
    let vague = matches!(answer.enhanced().as_str(), "5.0.0" | "5.5.3");
    if answer.code == 552 && vague { Answer { code: 452, ..answer } } else { answer }
}

#[cfg(test)]
mod tests;
