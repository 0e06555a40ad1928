//! Servers that say at random what a server may say, and what none may.

use super::stage::{credentials, start};
use crate::smtp::client::{Client, Event, Tls};
use crate::smtp::reply::Answer;

/// xorshift64*
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33;
        usize::try_from(number).unwrap() % limit
    }
}

/// What a server says in turn, one entry for each time that the client waits.
const SESSIONS: [&[&str]; 4] = [
    &[
        "220 x\r\n",
        "250-x\r\n250-PIPELINING\r\n250-SIZE 100\r\n250 8BITMIME\r\n",
        "250 ok\r\n250 ok\r\n550 no\r\n250 ok\r\n354 go\r\n",
        "250 queued\r\n",
        "250 ok\r\n550 no\r\n550 no\r\n550 no\r\n354 go\r\n",
        "250 queued\r\n",
        "550 no\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n",
        "250 queued\r\n",
        "221 bye\r\n",
    ],
    &[
        "220 x\r\n",
        "500 what\r\n",
        "250 x\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "450 later\r\n",
        "250 ok\r\n",
        "354 go\r\n",
        "250 queued\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "250 ok\r\n",
        "354 go\r\n",
        "554 no\r\n",
    ],
    &[
        "220 x\r\n",
        "250-x\r\n250-PIPELINING\r\n250 STARTTLS\r\n",
        "220 go\r\n",
        "250-x\r\n250-PIPELINING\r\n250 AUTH LOGIN\r\n",
        "334 \r\n",
        "334 \r\n",
        "235 ok\r\n",
        "250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n",
        "250 queued\r\n",
        "250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n421 bye\r\n",
    ],
    &[
        "220 x\r\n",
        "250-x\r\n250 PIPELINING\r\n",
        "250 ok\r\n452 no\r\n550 no\r\n550 no\r\n503 no\r\n",
        "250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n",
        "250 queued\r\n",
        "221 bye\r\n",
    ],
];

fn mutate(session: &[&str], chance: &mut Chance) -> Vec<Vec<u8>> {
    let mut turns: Vec<Vec<u8>> = session.iter().map(|turn| turn.as_bytes().to_vec()).collect();
    for _ in 0..chance.below(4) {
        let at = chance.below(turns.len());
        let other = turns[chance.below(turns.len())].clone();
        let turn = &mut turns[at];
        let place = chance.below(turn.len() + 1);
        match chance.below(8) {
            0 => turn.extend_from_slice(&other),
            1 => *turn = other,
            2 => turn.truncate(place),
            3 => turn.insert(place, u8::try_from(chance.below(256)).unwrap()),
            // Another code, often one that means something.
            4 => {
                let codes = ["250", "354", "421", "450", "550", "220", "334", "999", "2 0", "100"];
                let code = codes[chance.below(codes.len())];
                let line = turn[..place].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
                let end = (line + 3).min(turn.len());
                turn.splice(line..end, code.bytes());
            }
            5 => drop(turns.remove(at)),
            6 => turns.insert(at, other),
            _ => drop(turn.splice(place..place, other)),
        }
        if turns.is_empty() {
            break;
        }
    }
    turns
}

/// The codes of whole replies in order, read with other eyes than the client's.
fn codes(said: &[u8]) -> Vec<u16> {
    let lines = said.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    let last = lines.filter(|line| line.get(3) != Some(&b'-'));
    last.map(|line| {
        let code = line.get(..3).and_then(|code| std::str::from_utf8(code).ok());
        code.and_then(|code| code.parse().ok()).unwrap_or(0)
    })
    .collect()
}

const RECIPIENTS: usize = 3;
const MESSAGES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Rcpt(usize, usize),
    Dot(usize),
    Other,
}

/// What the client asked for, in order, and what it told of which message.
#[derive(Default)]
struct Log {
    asked: Vec<Asked>,
    outcomes: Vec<(usize, usize, Answer)>,
    texts: usize,
    finished: bool,
}

/// Drives a client through a server's turns, each cut in two.
fn drive(turns: &[Vec<u8>], chance: &mut Chance) -> Log {
    let mut client = Client::new("here", Tls::Opportunistic, None);
    if turns.iter().any(|turn| turn.windows(4).any(|part| part == b"AUTH")) {
        client.credentials = Some(credentials());
    }
    let mut log = Log { asked: vec![Asked::Other], ..Log::default() };
    let mut message = None;
    for turn in turns {
        let cut = chance.below(turn.len() + 1);
        for part in [&turn[..cut], &turn[cut..]] {
            client.push(part);
            loop {
                let event = client.event();
                note(&mut client, message.unwrap_or(0), &mut log.asked);
                let Some(event) = event else { break };
                match event {
                    Event::StartTls => client.tls_started(),
                    Event::Ready => {
                        assert_eq!(client.unanswered().count(), 0);
                        let next = message.map_or(0, |last| last + 1);
                        message = Some(next);
                        if next < MESSAGES {
                            start(&mut client, RECIPIENTS, 5, &["8bit"]);
                        } else {
                            client.quit();
                        }
                    }
                    Event::SendText => {
                        assert_ne!(client.unanswered().count(), 0);
                        log.texts += 1;
                        client.text(b"RCPT TO:<r0@x>\r\n");
                        note(&mut client, 0, &mut Vec::new());
                        client.end_text();
                    }
                    Event::Outcome { recipient, answer } => {
                        log.outcomes.push((message.unwrap(), recipient, answer));
                    }
                    Event::Refused(_) | Event::Ourselves | Event::Broken(_) | Event::Closed => {
                        log.finished = true;
                    }
                }
                assert!(!log.finished || client.event().is_none());
                note(&mut client, message.unwrap_or(0), &mut log.asked);
            }
            assert!(client.input.is_empty());
        }
    }
    // Nobody is forgotten: without an outcome means unanswered.
    if let Some(message) = message.filter(|message| *message < MESSAGES) {
        let told = log.outcomes.iter().filter(|(of, ..)| *of == message).count();
        assert_eq!(told + client.unanswered().count(), RECIPIENTS);
    }
    log
}

/// Takes the client's commands out of its output.
fn note(client: &mut Client, message: usize, asked: &mut Vec<Asked>) {
    let sent = String::from_utf8(std::mem::take(client.output())).unwrap();
    asked.extend(sent.split_terminator("\r\n").map(|line| {
        let recipient = line.strip_prefix("RCPT TO:<r").and_then(|rest| rest.strip_suffix("@x>"));
        match recipient {
            Some(number) => Asked::Rcpt(message, number.parse().unwrap()),
            None if line == "." => Asked::Dot(message),
            None => Asked::Other,
        }
    }));
}

#[test]
fn no_server_makes_the_client_believe_in_a_delivery_that_was_not_promised() {
    let mut chance = Chance(0x5EED);
    let (mut delivered, mut refused, mut texts, mut finished) = (0, 0, 0, 0);
    for round in 0..10_000 {
        let turns = mutate(SESSIONS[round % SESSIONS.len()], &mut chance);
        let log = drive(&turns, &mut chance);
        let codes = codes(&turns.concat());
        let promised = |wanted: Asked| {
            let at = log.asked.iter().position(|asked| *asked == wanted);
            at.and_then(|at| codes.get(at)).is_some_and(|code| (200..300).contains(code))
        };
        for (at, (message, recipient, answer)) in log.outcomes.iter().enumerate() {
            let same =
                |other: &(usize, usize, Answer)| (other.0, other.1) == (*message, *recipient);
            assert!(!log.outcomes[..at].iter().any(same), "two outcomes: {turns:?}");
            if answer.is_positive() {
                let rcpt = promised(Asked::Rcpt(*message, *recipient));
                assert!(rcpt && promised(Asked::Dot(*message)), "{:?}", turns.concat());
                delivered += 1;
            } else {
                refused += 1;
            }
        }
        texts += log.texts;
        finished += usize::from(log.finished);
    }
    // It was worth the while: all ways were gone many times.
    for times in [delivered, refused, texts, finished] {
        assert!(times > 1_000, "{delivered} {refused} {texts} {finished}");
    }
}
