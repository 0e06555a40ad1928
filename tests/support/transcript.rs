//! Plays a written conversation with a server: `tests/transcripts/PROTOCOL/*.txt`.
//!
//! ```text
//! # The rule that is shown, and the section of the RFC that it is from.   (line 1)
//! # site: small            the host that is needed; without this line the usual one
//! # mailbox: 3             POP3: so many messages are in the mailbox (default 2)
//! # postfix: why           in the head: this server is not asked, and why
//! C: EHLO client.example   sent with CRLF; lines that follow each other go out in one write
//! C!: a\0\x80\r{300*b}\n   sent as it is, after \r \n \t \0 \\ \xNN and {COUNT*TEXT}, where \# is the number
//! S: 250-mx...             one line: `...` stands for anything, `[- ]` for one of the two, and
//!                          ` | ` divides patterns of which one must match
//! S: 250*                  a whole reply of many lines (POP3: `+OK*` up to the lone dot)
//! S: 250* SIZE ...         one that has this among its lines (written without the code)
//! S*100: 250 ...           the same, so many times
//! S: <closed>              the server ends the connection
//! S: <gone>                the same; what comes before that, as an alert of TLS, is no reply
//! S: <silence>             nothing is answered to what was sent
//! # postfix: 502 ... -- why      below an S line: what this server says instead
//! S: ... <keep>            as before, and remember the last word; `<kept>` is that word again
//! X: tls                   shakes hands for TLS
//! X: half-close            nothing more is sent
//! X: connect               this connection is dropped, and another one is made (`reset`: by a reset)
//! X: second                another connection beside this one; `first` goes back to it
//! ```
//!
//! The same file is played against ours and against a reference server
//! (`MAIL_UNDER_TEST=postfix` or `dovecot`): a rule that the reference does not keep is a rule to
//! think about again.

use std::fmt::Write;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::ClientConnection;

use super::peer::{Heard, Peer};

/// How long nothing must come for `<silence>`.
const SILENCE: Duration = Duration::from_millis(250);

/// A conversation, read from its file.
pub struct Transcript {
    pub name: String,
    /// The hosts it wants: `# site:`.
    pub site: String,
    /// The number of messages in the mailbox: `# mailbox:`.
    pub mailbox: usize,
    /// Reference servers that are not asked, with the reason.
    pub skipped: Vec<(String, String)>,
    steps: Vec<Step>,
}

struct Step {
    line: usize,
    what: What,
}

enum What {
    Send(Vec<u8>),
    Expect {
        pattern: String,
        times: usize,
        /// What a reference server says instead.
        instead: Vec<(String, String)>,
    },
    Act(String),
}

impl Transcript {
    /// Whether this reference server is not asked, or says something else.
    pub fn differs(&self, who: &str) -> bool {
        let is_who = |(other, _): &(String, String)| other == who;
        let differs = |step: &Step| match &step.what {
            What::Expect { instead, .. } => instead.iter().any(is_who),
            What::Send(_) | What::Act(_) => false,
        };
        self.skipped.iter().any(is_who) || self.steps.iter().any(differs)
    }
}

/// What a transcript needs from who serves it.
pub trait Host {
    /// `ours`, `postfix` or `dovecot`.
    fn name(&self) -> &'static str;
    /// The address to call for a kind of site; the mailbox holds so many messages.
    fn address(&mut self, site: &str, mailbox: usize) -> SocketAddr;
    /// Called between two connections of one transcript.
    fn between(&mut self) {}
    /// The client's side of TLS with that host.
    fn tls(&self) -> ClientConnection {
        panic!("{} speaks no TLS", self.name());
    }
    /// Called with each line of a reply: what is wrong with it, whatever the transcript says.
    fn heard(&mut self, _line: &str) -> Result<(), String> {
        Ok(())
    }
}

/// Plays all transcripts of a directory, and fails with all that went wrong.
pub fn play_all(protocol: &str, host: &mut dyn Host) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/transcripts");
    let mut files: Vec<PathBuf> = fs::read_dir(directory.join(protocol))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no transcripts in {protocol}");
    let only = std::env::var("TRANSCRIPT").unwrap_or_default();
    let mut failures = String::new();
    let (mut played, mut failed) = (0, 0);
    for file in &files {
        let name = file.file_stem().unwrap().to_string_lossy();
        if !name.contains(&only) {
            continue;
        }
        let text = fs::read_to_string(file).unwrap();
        let transcript = parse(&format!("{protocol}/{name}.txt"), &text);
        if transcript.skipped.iter().any(|(who, _)| who == host.name()) {
            continue;
        }
        played += 1;
        if let Err(what) = play(&transcript, host) {
            failed += 1;
            writeln!(failures, "\n{what}").unwrap();
        }
    }
    super::note(&format!(
        "{played} of {} {protocol} transcripts played against {}, {failed} failed",
        files.len(),
        host.name()
    ));
    assert!(failures.is_empty(), "{failures}");
}

/// Reads a transcript. What can't be understood is a mistake of its writer, and ends the test.
pub fn parse(name: &str, text: &str) -> Transcript {
    let mut transcript = Transcript {
        name: name.to_owned(),
        site: "usual".to_owned(),
        mailbox: 2,
        skipped: Vec::new(),
        steps: Vec::new(),
    };
    let first = text.lines().next().unwrap_or_default();
    assert!(
        first.starts_with("# ") && (first.contains("RFC ") || first.contains("Lecture")),
        "{name}: line 1 states the rule and where it is from"
    );
    for (line, text) in (1..).zip(text.lines()) {
        let bad = |what: &str| -> ! { panic!("{name}:{line}: {what}: {text}") };
        let mut step = |what| transcript.steps.push(Step { line, what });
        if let Some(text) = text.strip_prefix("C: ").or((text == "C:").then_some("")) {
            step(What::Send(format!("{text}\r\n").into_bytes()));
        } else if let Some(text) = text.strip_prefix("C!: ") {
            step(What::Send(unescape(text).unwrap_or_else(|what| bad(&what))));
        } else if let Some(pattern) = text.strip_prefix("S: ") {
            step(What::Expect { pattern: pattern.to_owned(), times: 1, instead: Vec::new() });
        } else if let Some((times, pattern)) =
            text.strip_prefix("S*").and_then(|rest| rest.split_once(": "))
        {
            step(What::Expect {
                pattern: pattern.to_owned(),
                times: times.parse().unwrap_or_else(|_| bad("no count")),
                instead: Vec::new(),
            });
        } else if let Some(action) = text.strip_prefix("X: ") {
            step(What::Act(action.to_owned()));
        } else if let Some(comment) = text.strip_prefix('#') {
            let (key, value) = comment.split_once(':').unwrap_or((comment, ""));
            let (key, value) = (key.trim(), value.trim());
            match key {
                "site" => value.clone_into(&mut transcript.site),
                "mailbox" => {
                    transcript.mailbox = value.parse().unwrap_or_else(|_| bad("no count"));
                }
                "ours" | "postfix" | "dovecot" => {
                    if value.is_empty() {
                        bad("a reason is wanted");
                    }
                    match transcript.steps.last_mut().map(|step| &mut step.what) {
                        None => transcript.skipped.push((key.to_owned(), value.to_owned())),
                        Some(What::Expect { instead, .. }) => match value.split_once(" -- ") {
                            Some((pattern, _)) => {
                                instead.push((key.to_owned(), pattern.trim().to_owned()));
                            }
                            None => bad("PATTERN -- REASON is wanted"),
                        },
                        Some(_) => bad("stands below an S line, or in the head"),
                    }
                }
                _ => {}
            }
        } else if !text.trim().is_empty() {
            bad("a line begins with C:, C!:, S:, S*N:, X: or #");
        }
    }
    transcript
}

/// Bytes of a `C!:` line.
pub fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '\\' => {
                let escape = rest.chars().next().ok_or("nothing after \\")?;
                rest = &rest[escape.len_utf8()..];
                bytes.push(match escape {
                    'r' => b'\r',
                    'n' => b'\n',
                    't' => b'\t',
                    '0' => 0,
                    '\\' => b'\\',
                    'x' => {
                        let (digits, after) = rest.split_at_checked(2).ok_or("\\xNN")?;
                        rest = after;
                        u8::from_str_radix(digits, 16).map_err(|error| error.to_string())?
                    }
                    other => return Err(format!("\\{other} is nothing")),
                });
            }
            '{' => match repeated(rest) {
                Some((count, piece, after)) => {
                    for number in 1..=count {
                        bytes.extend(unescape(&piece.replace("\\#", &number.to_string()))?);
                    }
                    rest = after;
                }
                None => bytes.push(b'{'),
            },
            c => bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Ok(bytes)
}

/// `COUNT*TEXT}` and what follows.
fn repeated(text: &str) -> Option<(usize, &str, &str)> {
    let (count, rest) = text.split_once('*')?;
    let (piece, after) = rest.split_once('}')?;
    Some((count.parse().ok()?, piece, after))
}

/// Plays one conversation.
pub fn play(transcript: &Transcript, host: &mut dyn Host) -> Result<(), String> {
    let address = host.address(&transcript.site, transcript.mailbox);
    let mut peer = Peer::connect(address);
    let mut other: Option<Peer> = None;
    // What was said on a connection that is gone.
    let mut before = String::new();
    // The word that `<keep>` remembered.
    let mut kept = String::new();
    let mut output: Vec<u8> = Vec::new();
    for (at, step) in transcript.steps.iter().enumerate() {
        let result = match &step.what {
            What::Send(bytes) => {
                output.extend_from_slice(bytes);
                let more = transcript.steps.get(at + 1);
                if !more.is_some_and(|next| matches!(next.what, What::Send(_))) {
                    // A server that has hung up is found out by the next S line.
                    peer.send(std::mem::take(&mut output));
                }
                Ok(())
            }
            What::Expect { pattern, times, instead } => {
                let mut told = instead.iter().filter(|(who, _)| who == host.name());
                let pattern = told.next().map_or(pattern, |(_, pattern)| pattern);
                (0..*times).try_for_each(|_| expect(&mut peer, host, pattern, &mut kept))
            }
            What::Act(action) => match action.as_str() {
                "connect" | "reset" => {
                    before.push_str(peer.dialogue());
                    before.push_str("-- the next connection\n");
                    if action == "reset" {
                        peer.reset();
                    } else {
                        drop(peer);
                    }
                    host.between();
                    peer = Peer::connect(address);
                    Ok(())
                }
                "second" => {
                    other = Some(std::mem::replace(&mut peer, Peer::connect(address)));
                    Ok(())
                }
                "first" => {
                    peer = other.take().unwrap();
                    Ok(())
                }
                "tls" => {
                    let ended = |error| format!("no handshake: {error}");
                    peer.start_tls(host.tls()).map_err(ended)
                }
                "half-close" => {
                    peer.half_close();
                    Ok(())
                }
                _ => Err(format!("no action {action:?}")),
            },
        };
        if let Err(what) = result {
            return Err(format!(
                "{}:{}: {what}\n{before}{}",
                transcript.name,
                step.line,
                peer.dialogue()
            ));
        }
    }
    Ok(())
}

/// Hears what one S line stands for.
fn expect(
    peer: &mut Peer,
    host: &mut dyn Host,
    pattern: &str,
    kept: &mut String,
) -> Result<(), String> {
    if pattern == "<silence>" {
        return match peer.hear_within(SILENCE) {
            Heard::Silence => Ok(()),
            other => Err(format!("expected silence, heard {other:?}")),
        };
    }
    if pattern == "<closed>" {
        return match peer.hear() {
            Heard::Closed(rest) if rest.is_empty() => Ok(()),
            other => Err(format!("expected the end, heard {other:?}")),
        };
    }
    if pattern == "<gone>" {
        return loop {
            match peer.hear() {
                Heard::Closed(rest) if !is_reply(&rest) => break Ok(()),
                Heard::Line(line) if !is_reply(&line) => {}
                other => break Err(format!("expected the end, heard {other:?}")),
            }
        };
    }
    let mut line = hear_line(peer, host, pattern)?;
    let Some((start, member)) = pattern.split_once('*') else {
        if let Some(wanted) = pattern.strip_suffix("<keep>") {
            line.rsplit(' ').next().unwrap_or_default().clone_into(kept);
            return check(wanted.trim_end(), &line);
        }
        return check(&pattern.replace("<kept>", kept), &line);
    };
    let member = member.trim();
    // A reply of many lines.
    let mut seen = member.is_empty();
    if start.starts_with('+') {
        check(&format!("{start}..."), &line)?;
        loop {
            line = hear_line(peer, host, pattern)?;
            if line == "." {
                break;
            }
            seen |= matches(member, &line);
        }
    } else {
        loop {
            check(&format!("{start}[- ]..."), &line)?;
            let (_, text) = line.split_at_checked(start.len() + 1).unwrap_or_default();
            seen |= matches(member, text);
            if line.as_bytes().get(start.len()) == Some(&b' ') {
                break;
            }
            line = hear_line(peer, host, pattern)?;
        }
    }
    if seen { Ok(()) } else { Err(format!("no line {member:?} in the reply")) }
}

/// Whether it begins as an SMTP reply does.
fn is_reply(bytes: &[u8]) -> bool {
    bytes.len() >= 3 && bytes.iter().take(3).all(u8::is_ascii_digit)
}

fn hear_line(peer: &mut Peer, host: &mut dyn Host, pattern: &str) -> Result<String, String> {
    match peer.hear() {
        Heard::Line(line) if peer.bare_lf => Err(format!("ends in a bare LF: {line:?}")),
        Heard::Line(line) => {
            let line = String::from_utf8_lossy(&line).into_owned();
            host.heard(&line).map(|()| line)
        }
        other => Err(format!("expected {pattern:?}, heard {other:?}")),
    }
}

fn check(pattern: &str, line: &str) -> Result<(), String> {
    if pattern.split(" | ").any(|pattern| matches(pattern, line)) {
        Ok(())
    } else {
        Err(format!("expected {pattern:?}, heard {line:?}"))
    }
}

/// Whether a line is what a pattern says: `...` for anything, `[- ]` for one of the two.
pub fn matches(pattern: &str, line: &str) -> bool {
    if let Some((before, after)) = pattern.split_once("[- ]")
        && !before.contains("...")
    {
        return line
            .strip_prefix(before)
            .and_then(|rest| rest.strip_prefix(['-', ' ']))
            .is_some_and(|rest| matches(after, rest));
    }
    let mut pieces = pattern.split("...");
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else {
        return false;
    };
    let mut pieces = pieces.peekable();
    if pieces.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(piece) = pieces.next() {
        if pieces.peek().is_none() {
            return rest.ends_with(piece);
        }
        match rest.split_once(piece) {
            Some((_, after)) => rest = after,
            None => return false,
        }
    }
    true
}
