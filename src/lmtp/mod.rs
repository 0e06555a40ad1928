//! LMTP (RFC 2033), the client's side; pure. (The server's side is [`crate::smtp::Session`] in its
//! LMTP dialect.)
//!
//! One connection carries many messages, each for one recipient. The driver sends
//! [`Client::output`], pushes what it reads, and obeys [`Client::next`].

use crate::message::Address;
use crate::smtp::reply::{Answer, AnswerReader};

/// What the driver shall do, or know.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// A message can be started with [`Client::start`].
    Ready,
    /// Send the message's text, dots doubled, and its final dot; then call [`Client::sent`].
    SendText,
    /// What became of the message.
    Outcome(Answer),
    /// The server does not speak LMTP, or not any more.
    Broken(String),
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Greeting,
    Hello,
    Ready,
    /// Replies still to come: those to RSET, MAIL, RCPT and DATA.
    Envelope {
        left: usize,
        skip: usize,
        refusal: Option<Answer>,
    },
    /// The text is being sent, or its reply is awaited.
    Text,
    Broken,
}

/// A client's connection.
#[derive(Debug)]
pub struct Client {
    hostname: String,
    state: State,
    reader: AnswerReader,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Whether the server may hold the rest of an envelope.
    unclean: bool,
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
            unclean: false,
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

    /// Whether a message can be started.
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready
    }

    /// Sends an envelope: MAIL, RCPT and DATA at once (RFC 2033 section 5 asks every server for
    /// PIPELINING).
    pub fn start(&mut self, sender: Option<&Address>, recipient: &Address, eight_bit: bool) {
        let skip = usize::from(std::mem::take(&mut self.unclean));
        if skip > 0 {
            self.output.extend_from_slice(b"RSET\r\n");
        }
        let sender = sender.map(Address::to_string).unwrap_or_default();
        let body = if eight_bit { " BODY=8BITMIME" } else { "" };
        let commands = format!("MAIL FROM:<{sender}>{body}\r\nRCPT TO:<{recipient}>\r\nDATA\r\n");
        self.output.extend_from_slice(commands.as_bytes());
        self.state = State::Envelope {
            left: 3 + skip,
            skip,
            refusal: None,
        };
    }

    /// The final dot was sent.
    pub fn sent(&mut self) {
        self.state = State::Text;
    }

    /// What follows from what was read.
    pub fn next(&mut self) -> Option<Event> {
        loop {
            let mut rest = self.input.as_slice();
            let taken = self.reader.take(&mut rest);
            let used = self.input.len() - rest.len();
            self.input.drain(..used);
            let answer = match taken {
                Ok(Some(answer)) => answer,
                Ok(None) => return None,
                Err(no) => return Some(self.broken(&no.0)),
            };
            if let Some(event) = self.answer(answer) {
                return Some(event);
            }
        }
    }

    fn broken(&mut self, said: &str) -> Event {
        self.state = State::Broken;
        Event::Broken(said.to_owned())
    }

    fn answer(&mut self, answer: Answer) -> Option<Event> {
        match &mut self.state {
            State::Greeting if answer.code == 220 => {
                self.output
                    .extend_from_slice(format!("LHLO {}\r\n", self.hostname).as_bytes());
                self.state = State::Hello;
                None
            }
            State::Hello if answer.code == 250 => {
                self.state = State::Ready;
                Some(Event::Ready)
            }
            State::Envelope {
                left,
                skip,
                refusal,
            } => {
                *left -= 1;
                let reset = std::mem::take(skip) > 0;
                if !reset && !answer.is_positive() && refusal.is_none() {
                    *refusal = Some(answer.clone());
                }
                if *left > 0 {
                    return None;
                }
                match refusal.take() {
                    None if answer.code == 354 => Some(Event::SendText),
                    None => Some(self.broken(&answer.to_string())),
                    // It refuses a part of the envelope and wants the text all the same.
                    Some(_) if answer.code == 354 => Some(self.broken(&answer.to_string())),
                    Some(refusal) => {
                        self.unclean = true;
                        self.state = State::Ready;
                        Some(Event::Outcome(refusal))
                    }
                }
            }
            State::Text => {
                self.state = State::Ready;
                Some(Event::Outcome(answer))
            }
            _ => Some(self.broken(&answer.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text.as_bytes()).unwrap()
    }

    fn ready() -> Client {
        let mut client = Client::new("here");
        client.push(b"220 here LMTP\r\n");
        assert_eq!(client.next(), None);
        assert_eq!(std::mem::take(client.output()), b"LHLO here\r\n");
        client.push(b"250-here\r\n250 PIPELINING\r\n");
        assert_eq!(client.next(), Some(Event::Ready));
        client
    }

    #[test]
    fn messages_follow_each_other_on_one_connection() {
        let mut client = ready();
        for _ in 0..2 {
            client.start(None, &address("a@b"), true);
            let envelope = b"MAIL FROM:<> BODY=8BITMIME\r\nRCPT TO:<a@b>\r\nDATA\r\n";
            assert_eq!(std::mem::take(client.output()), envelope);
            client.push(b"250 2.1.0 Ok\r\n250 2.1.5 Ok\r\n35");
            assert_eq!(client.next(), None);
            client.push(b"4 go\r\n");
            assert_eq!(client.next(), Some(Event::SendText));
            client.sent();
            client.push(b"250 2.0.0 done\r\n");
            assert!(matches!(client.next(), Some(Event::Outcome(answer)) if answer.code == 250));
            assert!(client.is_ready());
        }
    }

    #[test]
    fn a_refused_recipient_is_the_outcome_and_the_envelope_is_reset() {
        let mut client = ready();
        client.start(None, &address("a@b"), false);
        client.output().clear();
        client.push(b"250 Ok\r\n550 5.1.1 no\r\n554 no valid recipients\r\n");
        let Some(Event::Outcome(answer)) = client.next() else {
            panic!("no outcome")
        };
        assert_eq!(answer.enhanced(), "5.1.1");
        client.start(None, &address("a@b"), false);
        assert!(client.output().starts_with(b"RSET\r\nMAIL"));
        client.push(b"250 Ok\r\n250 Ok\r\n250 Ok\r\n354 go\r\n");
        assert_eq!(client.next(), Some(Event::SendText));
    }

    #[test]
    fn a_server_that_talks_out_of_turn_is_broken() {
        let mut client = ready();
        client.push(b"250 what\r\n");
        assert!(matches!(client.next(), Some(Event::Broken(_))));
        let mut client = Client::new("here");
        client.push(b"no reply\r\n");
        assert!(matches!(client.next(), Some(Event::Broken(_))));
    }
}
