//! Plays a written conversation of IMAP: `tests/transcripts/imap/*.txt`.
//!
//! ```text
//! # The rule that is shown, and the section of the RFC that it is from.   (line 1)
//! # site: tls              the host that is needed; without this line the usual one
//! # state: selected        in which each client begins: connected, login, selected (usual)
//! # inbox: one two         what is in the inbox: tests/transcripts/imap/one.eml, … (usual: none)
//! # dovecot: why           in the head: this server is not asked, and why
//! C: a FETCH 1 (FLAGS)     sent with CRLF; lines that follow each other go out in one write
//! C!: a\0\x80\r\n          sent as it is, as in the other transcripts
//! S: * 1 FETCH (FLAGS ())  one response. Those before a tagged one are all that come, in any order;
//!                          of EXPUNGE it counts which messages go. A condition without a code has
//!                          none, `OK ...` any
//! S| second line           what stands behind a literal's size
//! S: <closed>              the server ends the connection; `<silence>`: nothing more is said
//! C2: b NOOP               another client of the same user; S2: what it is told
//! # dovecot: * OK -- why   below an S line: what this server says instead; `<nothing>` is nothing
//! # dovecot+: * OK -- why  what it says besides
//! # dovecot: <end> -- why  it goes on otherwise: the rest is not played
//! # maildir: * OK -- why   what ours says over Maildirs
//! X: tls                   shakes hands for TLS; `reset`: the connection is dropped by a reset
//! ```
//!
//! Patterns are those of `pattern`. What was remembered as `<name>` may stand in C lines, too.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::ClientConnection;

use super::super::peer::Peer;
use super::super::transcript::unescape;
use super::client::{Client, Said};
use super::node::Response;
use super::pattern::{Kept, matches};

/// How long nothing must come for `<silence>`.
const SILENCE: Duration = Duration::from_millis(250);

/// What a transcript needs from who serves it.
pub trait Host {
    /// `ours`, which has mboxes, `maildir`, or `dovecot`.
    fn name(&self) -> &'static str;
    /// The address to call for a kind of site, and a user there whose inbox has these messages and
    /// who has no other mail. Nobody had this user before.
    fn user(&mut self, site: &str, inbox: &[Vec<u8>]) -> (SocketAddr, String);
    /// The client's side of TLS with that host.
    fn tls(&self) -> ClientConnection;
    /// Whether this is said of an extension that ours has not, by itself.
    fn adds(&self, _response: &Response) -> bool {
        false
    }
}

/// The password of all users.
pub const PASSWORD: &str = "Watts?Watt?";

/// A conversation, read from its file.
pub struct Transcript {
    pub name: String,
    site: String,
    state: String,
    inbox: Vec<String>,
    /// Reference servers that are not asked.
    skipped: Vec<String>,
    steps: Vec<Step>,
}

struct Step {
    line: usize,
    client: usize,
    what: What,
}

enum What {
    Send(Vec<u8>),
    Expect(Expected),
    Act(String),
}

struct Expected {
    pattern: String,
    /// What others say instead, and besides.
    instead: Vec<(String, String)>,
    besides: Vec<(String, String)>,
}

impl Transcript {
    /// Whether this reference server is not asked, or says something else.
    pub fn differs(&self, who: &str) -> bool {
        let says = |step: &Step| match &step.what {
            What::Expect(expected) => {
                expected.instead.iter().chain(&expected.besides).any(|(other, _)| other == who)
            }
            What::Send(_) | What::Act(_) => false,
        };
        self.skipped.iter().any(|other| other == who) || self.steps.iter().any(says)
    }
}

/// Reads a transcript. What can't be understood is a mistake of its writer, and ends the test.
pub fn parse(name: &str, text: &str) -> Transcript {
    let mut transcript = Transcript {
        name: name.to_owned(),
        site: "usual".to_owned(),
        state: "selected".to_owned(),
        inbox: Vec::new(),
        skipped: Vec::new(),
        steps: Vec::new(),
    };
    let first = text.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("# ") && first.contains("RFC "),
        "{name}: line 1 states the rule and where it is from"
    );
    for (line, text) in (1..).zip(text.lines()) {
        let bad = |what: &str| -> ! { panic!("{name}:{line}: {what}: {text}") };
        let (key, rest) = text.split_once(' ').unwrap_or((text, ""));
        let client = key.trim_start_matches(['C', 'S']).trim_end_matches([':', '|', '!']);
        let client = if client.is_empty() { Some(1) } else { client.parse().ok() };
        let mut step = |client, what| transcript.steps.push(Step { line, client, what });
        match (key.chars().next(), key.ends_with('|'), key.ends_with("!:"), client) {
            (None, ..) => {}
            (Some('C'), false, raw, Some(client)) => {
                let bytes = if raw {
                    unescape(rest).unwrap_or_else(|what| bad(&what))
                } else {
                    format!("{rest}\r\n").into_bytes()
                };
                step(client, What::Send(bytes));
            }
            (Some('S'), false, false, Some(client)) => {
                let pattern = rest.to_owned();
                let expected = Expected { pattern, instead: Vec::new(), besides: Vec::new() };
                step(client, What::Expect(expected));
            }
            (Some('S'), true, false, Some(_)) => {
                match transcript.steps.last_mut().map(|step| &mut step.what) {
                    Some(What::Expect(expected)) => {
                        let pattern = match expected.besides.last_mut() {
                            Some((_, besides)) => besides,
                            None => match expected.instead.last_mut() {
                                Some((_, instead)) => instead,
                                None => &mut expected.pattern,
                            },
                        };
                        pattern.push('\n');
                        pattern.push_str(rest);
                    }
                    _ => bad("stands below an S line"),
                }
            }
            (Some('X'), ..) => {
                let client = transcript.steps.last().map_or(1, |step| step.client);
                transcript.steps.push(Step { line, client, what: What::Act(rest.to_owned()) });
            }
            (Some('#'), ..) => comment(&mut transcript, rest).unwrap_or_else(|what| bad(what)),
            _ => bad("a line begins with C:, C!:, S:, S|, X: or #"),
        }
    }
    transcript
}

fn comment(transcript: &mut Transcript, text: &str) -> Result<(), &'static str> {
    let (key, value) = text.split_once(": ").unwrap_or((text, ""));
    let value = value.trim();
    match key {
        "site" => value.clone_into(&mut transcript.site),
        "state" => value.clone_into(&mut transcript.state),
        "inbox" => transcript.inbox = value.split(' ').map(str::to_owned).collect(),
        "ours" | "maildir" | "dovecot" | "ours+" | "maildir+" | "dovecot+" => {
            let who = key.trim_end_matches('+').to_owned();
            match transcript.steps.last_mut().map(|step| &mut step.what) {
                None if value.is_empty() => return Err("a reason is wanted"),
                None => transcript.skipped.push(who),
                Some(What::Expect(expected)) => {
                    let (pattern, _) =
                        value.split_once(" -- ").ok_or("PATTERN -- REASON is wanted")?;
                    let list = if key.ends_with('+') {
                        &mut expected.besides
                    } else {
                        &mut expected.instead
                    };
                    list.push((who, pattern.trim().to_owned()));
                }
                Some(_) => return Err("stands below an S line, or in the head"),
            }
        }
        _ => {}
    }
    Ok(())
}

/// The directory of the transcripts.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts/imap")
}

/// Plays all transcripts, and fails with all that went wrong.
pub fn play_all(host: &mut dyn Host) {
    let mut files: Vec<PathBuf> = fs::read_dir(directory())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    let only = std::env::var("TRANSCRIPT").unwrap_or_default();
    let mut failures = String::new();
    let (mut played, mut failed) = (0, 0);
    for file in &files {
        let name = file.file_stem().unwrap().to_string_lossy();
        if !name.contains(&only) {
            continue;
        }
        let transcript = parse(&name, &fs::read_to_string(file).unwrap());
        if transcript.skipped.iter().any(|who| who == host.name()) {
            continue;
        }
        played += 1;
        if let Err(what) = play(&transcript, host) {
            failed += 1;
            writeln!(failures, "\n{what}").unwrap();
        }
    }
    super::super::note(&format!(
        "{played} of {} imap transcripts played against {}, {failed} failed",
        files.len(),
        host.name()
    ));
    assert!(failures.is_empty(), "{failures}");
}

/// A conversation that is being played.
struct Play<'a> {
    transcript: &'a Transcript,
    host: &'a mut dyn Host,
    address: SocketAddr,
    user: String,
    clients: Vec<Option<Client>>,
    kept: Kept,
}

/// Plays one conversation.
fn play(transcript: &Transcript, host: &mut dyn Host) -> Result<(), String> {
    let read = |name: &String| {
        let text = fs::read_to_string(directory().join(format!("{name}.eml"))).unwrap();
        text.into_bytes()
    };
    let inbox: Vec<Vec<u8>> = transcript.inbox.iter().map(read).collect();
    let (address, user) = host.user(&transcript.site, &inbox);
    let clients = (0..10).map(|_| None).collect();
    let mut play = Play { transcript, host, address, user, clients, kept: Kept::new() };
    let steps = &transcript.steps;
    let mut at = 0;
    while let Some(step) = steps.get(at) {
        let (done, last) = match &step.what {
            What::Act(action) => (play.act(step.client, action), at),
            What::Send(_) => {
                let is_more = |other: &&Step| {
                    other.client == step.client && matches!(other.what, What::Send(_))
                };
                let lines: Vec<&Step> = steps[at..].iter().take_while(is_more).collect();
                let last = at + lines.len() - 1;
                (play.send(step.client, &lines), last)
            }
            What::Expect(_) => {
                let wanted = segment(&steps[at..], play.host.name());
                let last = at + wanted.len() - 1;
                let heard = play.expect(step.client, &steps[at..=last]);
                if matches!(heard, Ok(false)) {
                    return Ok(());
                }
                (heard.map(drop), last)
            }
        };
        if let Err(what) = done {
            let mut text = format!("{}.txt:{}: {what}", transcript.name, step.line);
            for (number, client) in play.clients.iter().enumerate() {
                if let Some(client) = client {
                    write!(text, "\n-- client {number}\n{}", client.peer.dialogue()).unwrap();
                }
            }
            return Err(text);
        }
        at = last + 1;
    }
    Ok(())
}

/// What this host says where the transcript has this line.
fn said<'a>(expected: &'a Expected, who: &str) -> Vec<&'a str> {
    let is_who = |(other, _): &&(String, String)| other == who;
    let instead = expected.instead.iter().find(is_who);
    let first = instead.map_or(expected.pattern.as_str(), |(_, pattern)| pattern);
    let besides = expected.besides.iter().filter(is_who).map(|(_, pattern)| pattern.as_str());
    std::iter::once(first).filter(|pattern| *pattern != "<nothing>").chain(besides).collect()
}

/// Whether nothing comes behind it that belongs to it.
fn is_last(pattern: &str) -> bool {
    !pattern.starts_with("* ") || pattern.starts_with("* BYE")
}

/// The S lines of one client, up to the one that ends an answer.
fn segment<'a>(steps: &'a [Step], who: &str) -> Vec<&'a Expected> {
    let mut segment = Vec::new();
    for step in steps {
        match &step.what {
            What::Expect(expected) if step.client == steps[0].client => {
                segment.push(expected);
                if said(expected, who).last().is_some_and(|pattern| is_last(pattern)) {
                    break;
                }
            }
            _ => break,
        }
    }
    segment
}

impl Play<'_> {
    /// The client of this number, brought to where the transcript begins.
    fn client(&mut self, number: usize) -> Result<&mut Client, String> {
        if self.clients[number].is_none() {
            let mut client = Client::new(Peer::connect(self.address));
            if self.transcript.state != "connected" {
                let login = format!(". LOGIN {} {PASSWORD}", self.user);
                say(&mut client, None)?;
                say(&mut client, Some(&login))?;
            }
            if self.transcript.state == "selected" {
                say(&mut client, Some(". SELECT INBOX"))?;
            }
            self.clients[number] = Some(client);
        }
        Ok(self.clients[number].as_mut().unwrap())
    }

    fn act(&mut self, number: usize, action: &str) -> Result<(), String> {
        match action {
            "tls" => {
                let tls = self.host.tls();
                let client = self.client(number)?;
                client.peer.start_tls(tls).map_err(|error| format!("no handshake: {error}"))
            }
            "reset" => {
                if let Some(client) = self.clients[number].take() {
                    client.peer.reset();
                }
                Ok(())
            }
            _ => Err(format!("no action {action:?}")),
        }
    }

    fn send(&mut self, number: usize, lines: &[&Step]) -> Result<(), String> {
        let mut bytes = Vec::new();
        for step in lines {
            if let What::Send(more) = &step.what {
                bytes.extend_from_slice(more);
            }
        }
        let user = self.user.clone();
        let kept = self.kept.clone();
        let client = self.client(number)?;
        if let Ok(mut text) = String::from_utf8(bytes.clone()) {
            for (name, word) in kept.iter().chain([(&"user".to_owned(), &user)]) {
                text = text.replace(&format!("<{name}>"), word);
            }
            bytes = text.into_bytes();
        }
        client.send(&bytes);
        Ok(())
    }

    /// Hears what these lines stand for; false where the rest is not for this host.
    fn expect(&mut self, number: usize, steps: &[Step]) -> Result<bool, String> {
        let who = self.host.name();
        let mut wanted: Vec<&str> = Vec::new();
        for step in steps {
            if let What::Expect(expected) = &step.what {
                wanted.extend(said(expected, who));
            }
        }
        self.client(number)?;
        let ends = wanted.last().is_some_and(|pattern| is_last(pattern));
        let mut heard: Vec<(Response, String)> = Vec::new();
        loop {
            let last = wanted.last().copied().unwrap_or_default();
            if last == "<end>" {
                return Ok(false);
            }
            if !ends && heard.len() >= wanted.len() {
                break;
            }
            let client = self.clients[number].as_mut().unwrap();
            let limit = (last == "<silence>").then_some(SILENCE);
            match client.hear(limit)? {
                Said::Silence if limit.is_some() => {
                    wanted.pop();
                    break;
                }
                Said::Closed if last == "<closed>" => {
                    wanted.pop();
                    break;
                }
                Said::Response(response, text) => {
                    let is_end = is_last(&text);
                    heard.push((response, text));
                    if is_end && last != "<closed>" {
                        break;
                    }
                }
                other => return Err(format!("expected {wanted:#?}, heard {heard:#?} {other:?}")),
            }
        }
        self.compare(&wanted, heard).map(|()| true)
    }

    /// Holds what was heard against what is wanted.
    fn compare(&mut self, wanted: &[&str], heard: Vec<(Response, String)>) -> Result<(), String> {
        let mut left = heard;
        let mut missing = Vec::new();
        // Those that say more exactly what is meant look first.
        let mut patterns: Vec<&str> = wanted.to_vec();
        patterns.sort_by_key(|pattern| pattern.matches("...").count());
        let same_gone =
            gone(wanted) == gone(&left.iter().map(|(_, text)| text.as_str()).collect::<Vec<_>>());
        if same_gone {
            patterns.retain(|line| !is_expunge(line));
            left.retain(|(_, line)| !is_expunge(line));
        }
        let mut kept = std::mem::take(&mut self.kept);
        for pattern in patterns {
            let alternatives: Vec<Response> = pattern
                .split(" | ")
                .map(|one| Response::read(one, false))
                .collect::<Result<_, _>>()
                .map_err(|what| format!("the transcript: {what}"))?;
            let at = left.iter().position(|(response, _)| {
                alternatives.iter().any(|one| matches(one, response, &mut kept))
            });
            match at {
                Some(at) => drop(left.remove(at)),
                None => missing.push(pattern),
            }
        }
        self.kept = kept;
        left.retain(|(response, _)| !self.host.adds(response));
        if missing.is_empty() && left.is_empty() {
            return Ok(());
        }
        let mut text = String::new();
        for pattern in missing {
            writeln!(text, "\n    missing  {pattern}").unwrap();
        }
        for (_, line) in left {
            writeln!(text, "\n    unasked  {line}").unwrap();
        }
        Err(text)
    }
}

fn is_expunge(line: &str) -> bool {
    line.ends_with(" EXPUNGE")
}

/// Which messages these lines tell the end of, by the numbers that they had before.
fn gone(lines: &[&str]) -> BTreeSet<usize> {
    let mut left: Vec<usize> = (1..10_000).collect();
    let number = |line: &&str| line.split(' ').nth(1).and_then(|number| number.parse().ok());
    let expunged = lines.iter().filter(|line| is_expunge(line));
    expunged.filter_map(number).map(|number: usize| left.remove(number - 1)).collect()
}

/// Says what every transcript begins with.
fn say(client: &mut Client, command: Option<&str>) -> Result<(), String> {
    if let Some(command) = command {
        client.send(format!("{command}\r\n").as_bytes());
    }
    loop {
        match client.hear(None)? {
            Said::Response(response, text) => match (response.word(0), command) {
                ("*", None) => return Ok(()),
                (".", Some(_)) if response.word(1) == "OK" => return Ok(()),
                (".", _) => return Err(text),
                _ => {}
            },
            other => return Err(format!("{command:?}: {other:?}")),
        }
    }
}
