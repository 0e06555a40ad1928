//! Transcripts, and how they are played.

use std::collections::VecDeque;

use crate::message::Address;
use crate::message::address::Alphabet;
use crate::smtp::client::{Client, Credentials, Event, Message, Tls};
use crate::smtp::dsn::{EnvelopeId, Notify, OriginalRecipient, Ret};
use crate::smtp::{Body, Recipient};

/// Plays a transcript, with the server's bytes cut at every position. A line begins with
///
/// - `S:` what the server sends (lines in a row are sent together),
/// - `C:` a line that the client must have sent,
/// - `E:` what the client must tell its driver,
/// - `D:` what the driver does: `mail RECIPIENTS [size=N] [8bit] [binary] [utf8] [dsn] [null]`, `text
///   LINE`, `end`, `tls`, `quit`,
/// - `L:` recipients that are left, and whether their fate is in doubt,
/// - `P:` the client's patience in seconds.
///
/// Each line that the client sent, and each event, must stand in the transcript before the server
/// speaks again.
pub fn play(tls: Tls, script: &str) {
    play_as(tls, None, script);
}

/// The same where it matters that the server's bytes come together.
pub fn play_whole(tls: Tls, script: &str) {
    Stage::new(tls, None).run(script, 0);
}

/// With [`credentials`].
pub fn play_with_credentials(tls: Tls, script: &str) {
    play_as(tls, Some(&credentials()), script);
}

fn play_as(tls: Tls, credentials: Option<&Credentials>, script: &str) {
    let mut cut = 0;
    while Stage::new(tls, credentials).run(script, cut) > cut {
        cut += 1;
    }
}

struct Stage {
    client: Client,
    sent: VecDeque<String>,
    seen: VecDeque<String>,
}

pub fn credentials() -> Credentials {
    Credentials { user: "taro".into(), password: "secret".into() }
}

fn address(text: &str) -> Address {
    Address::parse(text.as_bytes()).unwrap()
}

fn told(event: Event) -> String {
    match event {
        Event::Outcome { recipient, answer } => format!("{recipient}: {answer}"),
        Event::Refused(answer) => format!("Refused {answer}"),
        event => format!("{event:?}"),
    }
}

/// Starts a message of which the words say what it has.
pub fn start(client: &mut Client, recipients: usize, size: u64, words: &[&str]) {
    let has = |word| words.contains(&word);
    let sender = address("s@here");
    let recipient = |n| {
        let mut recipient = Recipient::from(address(&format!("r{n}@x")));
        if has("dsn") {
            recipient.notify = Notify::parse(b"SUCCESS,FAILURE");
            recipient.original = OriginalRecipient::parse(b"rfc822;a+2Bb@c", Alphabet::Ascii);
        }
        recipient
    };
    let recipients: Vec<Recipient> = (0..recipients).map(recipient).collect();
    let recipients: Vec<&Recipient> = recipients.iter().collect();
    let id = EnvelopeId::parse(b"QQ+20").unwrap();
    client.start(&Message {
        sender: (!has("null")).then_some(&sender),
        recipients: &recipients,
        body: match (has("8bit"), has("binary")) {
            (_, true) => Body::BinaryMime,
            (true, _) => Body::EightBitMime,
            _ => Body::SevenBit,
        },
        utf8: has("utf8"),
        ret: has("dsn").then_some(Ret::Full),
        envelope_id: has("dsn").then_some(&id),
        size,
    });
}

impl Stage {
    fn new(tls: Tls, credentials: Option<&Credentials>) -> Self {
        let client = Client::new("Here", tls, credentials.cloned());
        Self { client, sent: VecDeque::new(), seen: VecDeque::new() }
    }

    fn collect(&mut self) {
        self.seen.extend(std::iter::from_fn(|| self.client.event()).map(told));
        let sent = String::from_utf8(std::mem::take(self.client.output())).unwrap();
        assert!(sent.is_empty() || sent.ends_with("\r\n"), "{sent:?}");
        self.sent.extend(sent.split_terminator("\r\n").map(str::to_owned));
    }

    fn check_nothing_left(&self, before: &str) {
        assert!(self.sent.is_empty(), "before {before}: sent {:?}", self.sent);
        assert!(self.seen.is_empty(), "before {before}: told {:?}", self.seen);
    }

    /// Plays with the server's bytes cut there; how many were the most that came together.
    fn run(&mut self, script: &str, cut: usize) -> usize {
        let mut longest = 0;
        let mut server = String::new();
        let lines = script.lines().map(str::trim).filter(|line| !line.is_empty());
        for line in lines.chain(["end"]) {
            if let Some(said) = line.strip_prefix("S:") {
                self.check_nothing_left(line);
                server.push_str(said.trim_start());
                server.push_str("\r\n");
                continue;
            }
            let said = std::mem::take(&mut server);
            longest = longest.max(said.len());
            let (first, second) = said.as_bytes().split_at(cut.min(said.len()));
            for part in [first, second] {
                self.client.push(part);
                self.collect();
            }
            match line.split_once(' ').unwrap_or((line, "")) {
                ("C:", wanted) => assert_eq!(self.sent.pop_front().as_deref(), Some(wanted)),
                ("E:", wanted) => assert_eq!(self.seen.pop_front().as_deref(), Some(wanted)),
                ("L:", wanted) => {
                    let left: Vec<_> = self.client.unanswered().map(|n| n.to_string()).collect();
                    let doubt = if self.client.is_in_doubt() { " in doubt" } else { "" };
                    assert_eq!(left.join(" ") + doubt, wanted);
                }
                ("P:", wanted) => {
                    assert_eq!(self.client.patience().as_secs().to_string(), wanted);
                }
                ("D:", action) => {
                    self.check_nothing_left(line);
                    self.act(action);
                    self.collect();
                }
                _ => self.check_nothing_left(line),
            }
        }
        longest
    }

    fn act(&mut self, action: &str) {
        let words: Vec<&str> = action.split(' ').collect();
        match words[0] {
            "mail" => {
                let size = words.iter().find_map(|word| word.strip_prefix("size="));
                let size = size.map_or(5, |size| size.parse().unwrap());
                let recipients = words[1].parse().unwrap();
                start(&mut self.client, recipients, size, &words);
            }
            "text" => self.client.text(format!("{}\r\n", &action[5..]).as_bytes()),
            "end" => self.client.end_text(),
            "tls" => self.client.tls_started(),
            "quit" => self.client.quit(),
            other => panic!("{other}"),
        }
    }
}
