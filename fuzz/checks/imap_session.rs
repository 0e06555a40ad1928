//! Sessions of IMAP users with clients that say anything: two on one inbox, each held to what it was
//! told before. A command is answered once, and whole; what comes before is what may come there.
//!
//! Each line of the input is a command, or a part of one behind a literal, with the line end that
//! is missing there. The clients know what they say: octets of literals follow, as many as were
//! announced, taken from the input. A line that begins with `>` is the second client's.

use std::cell::RefCell;
use std::path::Path;

use hikyaku::mailbox::folders::Folders;
use hikyaku::mailbox::{Place, Store};
use hikyaku::server::imap::out::Out;
use hikyaku::server::imap::user::{LoggedIn, User};

use crate::dice::Dice;
use crate::home::Home;
use crate::node::{CONDITIONS, Response, show, size_of_literal};
use crate::told::Told;

/// The largest message that is taken.
const LARGEST: u64 = 10_000;
/// The largest literal that the clients bring.
const MOST: usize = 20_000;
/// So many commands are said.
const COMMANDS: usize = 60;

const INBOX: &[u8] = b"From a@b.org Mon Nov 23 12:42:04 2026\nSubject: one\n\nOne.\n\n\
    From a@b.org Mon Nov 23 12:42:05 2026\nSubject: two\nContent-Type: multipart/mixed; boundary=b\n\n\
    --b\n\npart\n--b\nContent-Transfer-Encoding: base64\n\nAAEC\n--b--\n\n\
    From a@b.org Mon Nov 23 12:42:06 2026\nSubject: three\nStatus: RO\n\nThree.\n\n";

pub fn check(input: &[u8]) {
    let home = Home::new(INBOX);
    let root = home.place.path.with_file_name("mail");
    let said = [RefCell::new(Vec::new()), RefCell::new(Vec::new())];
    let mut dice = Dice::of(input);
    let mut sinks = said.each_ref().map(|said| {
        move |bytes: &[u8]| {
            said.borrow_mut().extend_from_slice(bytes);
            Ok(())
        }
    });
    let [one, two] = &mut sinks;
    let mut clients = [
        Client::new(&root, &home.place, &said[0], one),
        Client::new(&root, &home.place, &said[1], two),
    ];
    let mut rest = input;
    for _ in 0..COMMANDS {
        if rest.is_empty() {
            break;
        }
        let is_second = rest.strip_prefix(b">");
        rest = is_second.unwrap_or(rest);
        clients[usize::from(is_second.is_some())].say(&mut rest, &mut dice);
    }
    for client in &mut clients {
        client.say(&mut b"end NOOP\n".as_slice(), &mut dice);
    }
    // Nobody has said that there are more or fewer than there are.
    let counts = clients.map(|client| client.inbox());
    let there = home.open().messages().unwrap().len();
    for count in counts.into_iter().flatten() {
        assert_eq!(count, there);
    }
}

struct Client<'a> {
    user: User<'a>,
    said: &'a RefCell<Vec<u8>>,
    told: Told,
    is_over: bool,
    /// The inbox is selected.
    has_inbox: bool,
}

impl<'a> Client<'a> {
    fn new(
        root: &Path,
        inbox: &Place,
        said: &'a RefCell<Vec<u8>>,
        sink: &'a mut dyn FnMut(&[u8]) -> std::io::Result<()>,
    ) -> Self {
        let folders = Folders::open(root, inbox.clone());
        let login = LoggedIn { tag: "in".into(), leftover: Vec::new() };
        let user = User::new(folders, Out::new(sink), &login, LARGEST);
        let mut told = Told::default();
        told.asks("in LOGIN");
        let mut client = Self { user, said, told, is_over: false, has_inbox: false };
        client.push(b"");
        client.hear();
        client
    }

    /// How many messages it knows, if it has the inbox.
    fn inbox(&self) -> Option<usize> {
        let knows = self.has_inbox && !self.is_over;
        self.told.messages().filter(|_| knows)
    }

    fn push(&mut self, bytes: &[u8]) {
        self.user.push(bytes);
        self.is_over |= self.user.obey().is_err();
    }

    /// Says a command, and hears its answer.
    fn say(&mut self, rest: &mut &[u8], dice: &mut Dice) {
        let parts = take_command(rest);
        if self.is_over {
            return;
        }
        let first = parts.first().cloned().unwrap_or_default();
        let end = memchr::memmem::find(&first, b"\r\n").unwrap_or(first.len());
        let first = String::from_utf8_lossy(&first[..end]).into_owned();
        self.told.asks(&first);
        let tag = first.split(' ').next().unwrap_or_default();
        for (at, part) in parts.iter().enumerate() {
            let mut left = part.as_slice();
            while !left.is_empty() && !self.is_over {
                let (piece, behind) = left.split_at(left.len().min(1 + dice.below(200)));
                self.push(piece);
                left = behind;
            }
            let heard = self.hear();
            if self.is_over {
                return;
            }
            match heard.as_slice() {
                [Last::GoOn, Last::Tagged(said, how)] | [Last::Tagged(said, how)] => {
                    assert_eq!(said, tag, "{first}");
                    assert!(!self.told.awaits(tag), "{first}");
                    return self.note(&first, how);
                }
                [Last::Bad] => return,
                [Last::GoOn] if at + 1 < parts.len() => {}
                [Last::GoOn] => return self.end_idle(rest, tag),
                _ => panic!("{first}: {heard:?}"),
            }
        }
    }

    /// Ends an IDLE, or says something else there.
    fn end_idle(&mut self, rest: &mut &[u8], tag: &str) {
        let mut line = take_line(rest);
        while announced(&line).is_some() {
            line.pop();
        }
        self.told.asks(&String::from_utf8_lossy(&line));
        line.extend_from_slice(b"\r\n");
        self.push(&line);
        let heard = self.hear();
        let is_answer = matches!(heard.as_slice(), [Last::Tagged(said, _)] if said == tag);
        assert!(self.is_over || is_answer, "{heard:?}");
    }

    /// Whether the inbox is the mailbox that it has.
    fn note(&mut self, command: &str, how: &str) {
        let command = command.to_ascii_uppercase();
        let mut words = command.split(' ').skip(1);
        if matches!(words.next(), Some("SELECT" | "EXAMINE" | "CLOSE" | "UNSELECT")) && how != "BAD"
        {
            self.has_inbox = how == "OK" && words.eq(["INBOX"]);
        }
    }

    /// Takes what was said apart, and holds it against what was told.
    fn hear(&mut self) -> Vec<Last> {
        let said = std::mem::take(&mut *self.said.borrow_mut());
        let mut rest = said.as_slice();
        let mut heard = Vec::new();
        while !rest.is_empty() {
            let text = take_response(&mut rest);
            let response =
                Response::read(&text, true).unwrap_or_else(|what| panic!("{what}: {text}"));
            self.told.hears(&response).unwrap_or_else(|what| panic!("{what}: {text}"));
            match response.word(0) {
                "+" => heard.push(Last::GoOn),
                "*" if response.word(1) == "BAD" => heard.push(Last::Bad),
                "*" => {}
                tag => heard.push(Last::Tagged(tag.to_owned(), response.word(1).to_owned())),
            }
        }
        heard
    }
}

/// What ends an answer, or a part of one.
#[derive(Debug)]
enum Last {
    /// Its tag, and how it went.
    Tagged(String, String),
    /// To what has no tag.
    Bad,
    GoOn,
}

/// One response, as a transcript has it.
fn take_response(rest: &mut &[u8]) -> String {
    let mut text = String::new();
    loop {
        let end = memchr::memmem::find(rest, b"\r\n").unwrap();
        text.push_str(&show(&rest[..end]));
        *rest = &rest[end + 2..];
        let is_data = text.starts_with("* ")
            && !text.split(' ').nth(1).is_some_and(|word| CONDITIONS.contains(&word));
        let Some(size) = size_of_literal(&text).filter(|_| is_data) else {
            return text;
        };
        let (octets, behind) = rest.split_at(size);
        assert!(text.ends_with(&format!("~{{{size}}}")) || !octets.contains(&0));
        text.push('\n');
        text.push_str(&show(octets));
        *rest = behind;
    }
}

/// A line of the input, without its end.
fn take_line(rest: &mut &[u8]) -> Vec<u8> {
    let end = memchr::memchr(b'\n', rest).unwrap_or(rest.len());
    let line = rest[..end].to_vec();
    *rest = rest.get(end + 1..).unwrap_or_default();
    line
}

/// A command with its literals, in parts: behind each but the last one the client waits.
fn take_command(rest: &mut &[u8]) -> Vec<Vec<u8>> {
    let mut parts = vec![Vec::new()];
    loop {
        let mut line = take_line(rest);
        while announced(&line).is_some_and(|(size, _)| size > MOST) {
            line.pop();
        }
        let part = parts.last_mut().unwrap();
        part.extend_from_slice(&line);
        part.extend_from_slice(b"\r\n");
        let Some((size, waits)) = announced(&line) else {
            return parts;
        };
        if waits {
            parts.push(Vec::new());
        }
        let (octets, behind) = rest.split_at(size.min(rest.len()));
        *rest = behind;
        let part = parts.last_mut().unwrap();
        part.extend_from_slice(octets);
        part.resize(part.len() + size - octets.len(), b'x');
    }
}

/// The literal that a line announces, and whether the client waits then.
fn announced(line: &[u8]) -> Option<(usize, bool)> {
    let text = String::from_utf8_lossy(line);
    Some((size_of_literal(&text)?, !text.ends_with("+}")))
}
