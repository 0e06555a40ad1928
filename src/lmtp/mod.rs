//! LMTP (RFC 2033), the client's side; pure. (The server's side is [`crate::smtp::Session`] in its
//! LMTP dialect.)
//!
//! One connection carries many messages, each for one recipient, without waiting for the replies
//! in between: texts go as BDAT chunks (RFC 3030), so that an agent that is given many messages can
//! make them last together. The driver sends [`Client::output`] and each message's text behind it,
//! pushes what it reads, and obeys [`Client::event`].

use std::collections::VecDeque;

use crate::smtp::client::Message;
use crate::smtp::reply::{Answer, AnswerReader};

/// What the driver shall know.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// Messages can be started with [`Client::start`].
    Ready,
    /// What became of the first message that has no outcome yet.
    Outcome(Answer),
    /// The server does not speak LMTP with CHUNKING, or not any more.
    Broken(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Greeting,
    Hello,
    Ready,
    Broken,
}

/// The replies of a message: those to RSET, MAIL, RCPT and BDAT; without the last one where the
/// recipient was refused (RFC 2033 section 4.3).
const REPLIES: u8 = 4;

/// A message whose replies are still to come.
#[derive(Debug)]
struct Pending {
    left: u8,
    refusal: Option<Answer>,
}

/// A client's connection.
#[derive(Debug)]
pub struct Client {
    hostname: String,
    state: State,
    reader: AnswerReader,
    input: Vec<u8>,
    output: Vec<u8>,
    pending: VecDeque<Pending>,
}

impl Client {
    /// A connection on which nothing was said yet.
    pub fn new(hostname: &str) -> Self {
        Self {
            hostname: hostname.to_owned(),
            state: State::Greeting,
            reader: AnswerReader::default(),
            input: Vec::new(),
            output: Vec::new(),
            pending: VecDeque::new(),
        }
    }

    /// What is to be sent; the driver takes it out.
    pub fn output(&mut self) -> &mut Vec<u8> {
        &mut self.output
    }

    /// What was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// Whether messages can be started.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Says the envelope of a message for one recipient and the size of its text, which the driver
    /// sends next. A server that lacks what the message needs refuses its parameters.
    pub fn start(&mut self, message: &Message<'_>) {
        let all = |keyword: &str| keyword != "SIZE";
        let size = message.size;
        // RSET: the message before may have been refused half-way.
        let mut commands = format!("RSET\r\n{}\r\n", message.mail(all));
        for recipient in message.recipients.iter().take(1) {
            commands.push_str(&Message::rcpt(recipient, all));
            commands.push_str("\r\n");
        }
        self.output.extend_from_slice(format!("{commands}BDAT {size} LAST\r\n").as_bytes());
        self.pending.push_back(Pending { left: REPLIES, refusal: None });
    }

    /// What follows from what was read.
    pub fn event(&mut self) -> Option<Event> {
        loop {
            let mut rest = self.input.as_slice();
            let taken = self.reader.take(&mut rest);
            let used = self.input.len() - rest.len();
            self.input.drain(..used);
            let event = match taken {
                Ok(Some(answer)) => self.answer(answer),
                Ok(None) => return None,
                Err(no) => Some(self.broken(&no.0)),
            };
            if event.is_some() {
                return event;
            }
        }
    }

    fn broken(&mut self, said: &str) -> Event {
        self.state = State::Broken;
        Event::Broken(said.to_owned())
    }

    fn answer(&mut self, answer: Answer) -> Option<Event> {
        match self.state {
            State::Greeting if answer.code == 220 => {
                self.output.extend_from_slice(format!("LHLO {}\r\n", self.hostname).as_bytes());
                self.state = State::Hello;
                None
            }
            State::Hello if answer.code == 250 && answer.offers("CHUNKING") => {
                self.state = State::Ready;
                Some(Event::Ready)
            }
            State::Ready if answer.code != 421 => {
                let Some(message) = self.pending.front_mut() else {
                    return Some(self.broken(&answer.to_string()));
                };
                let is_reset = message.left == REPLIES;
                message.left -= 1;
                if !is_reset && !answer.is_positive() && message.refusal.is_none() {
                    message.refusal = Some(answer.clone());
                }
                let is_refused_recipient = message.left == 1 && !answer.is_positive();
                if message.left > 0 && !is_refused_recipient {
                    return None;
                }
                let refusal = self.pending.pop_front().and_then(|message| message.refusal);
                Some(Event::Outcome(refusal.unwrap_or(answer)))
            }
            _ => Some(self.broken(&answer.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Address;
    use crate::smtp::dsn::{EnvelopeId, Notify, Ret};
    use crate::smtp::{Body, Recipient};

    fn recipient(text: &str) -> Recipient {
        Address::parse(text.as_bytes()).unwrap().into()
    }

    fn message<'a>(recipients: &'a [&'a Recipient], size: u64) -> Message<'a> {
        Message {
            sender: None,
            recipients,
            body: Body::EightBitMime,
            utf8: false,
            ret: None,
            envelope_id: None,
            size,
        }
    }

    #[test]
    fn what_the_sender_asked_for_is_said() {
        let mut client = ready();
        let to = Recipient { notify: Notify::parse(b"SUCCESS"), ..recipient("a@b") };
        let id = EnvelopeId::parse(b"QQ+2B").unwrap();
        client.start(&Message {
            body: Body::BinaryMime,
            utf8: true,
            ret: Some(Ret::Full),
            envelope_id: Some(&id),
            ..message(&[&to], 3)
        });
        let wanted = "RSET\r\nMAIL FROM:<> BODY=BINARYMIME SMTPUTF8 RET=FULL ENVID=QQ+2B\r\n\
                      RCPT TO:<a@b> NOTIFY=SUCCESS\r\nBDAT 3 LAST\r\n";
        assert_eq!(String::from_utf8_lossy(client.output()), wanted);
    }

    fn ready() -> Client {
        let mut client = Client::new("here");
        client.push(b"220 here LMTP\r\n");
        assert_eq!(client.event(), None);
        assert_eq!(std::mem::take(client.output()), b"LHLO here\r\n");
        client.push(b"250-here\r\n250-PIPELINING\r\n250 CHUNKING\r\n");
        assert_eq!(client.event(), Some(Event::Ready));
        client
    }

    #[test]
    fn messages_go_without_waiting_and_outcomes_come_in_their_order() {
        let mut client = ready();
        for size in [5, 7] {
            client.start(&message(&[&recipient("a@b")], size));
            let wanted = format!(
                "RSET\r\nMAIL FROM:<> BODY=8BITMIME\r\nRCPT TO:<a@b>\r\nBDAT {size} LAST\r\n"
            );
            assert_eq!(std::mem::take(client.output()), wanted.as_bytes());
        }
        client.push(b"250 Ok\r\n250 Ok\r\n550 5.1.1 no\r\n250 Ok\r\n25");
        let Some(Event::Outcome(answer)) = client.event() else { panic!("no outcome") };
        assert_eq!(answer.enhanced(), "5.1.1");
        assert_eq!(client.event(), None);
        client.push(b"0 Ok\r\n250 Ok\r\n250 2.0.0 done\r\n");
        let Some(Event::Outcome(answer)) = client.event() else { panic!("no outcome") };
        assert_eq!((answer.code, answer.text().as_str()), (250, "done"));
    }

    #[test]
    fn a_server_that_talks_out_of_turn_or_lacks_chunking_is_broken() {
        for said in [&b"250 what\r\n"[..], b"421 4.3.2 going\r\n"] {
            let mut client = ready();
            client.push(said);
            assert!(matches!(client.event(), Some(Event::Broken(_))));
        }
        for said in [&b"no reply\r\n"[..], b"220 x\r\n250 x\r\n", b"421 x\r\n"] {
            let mut client = Client::new("here");
            client.push(said);
            assert!(matches!(client.event(), Some(Event::Broken(_))));
        }
    }
}
