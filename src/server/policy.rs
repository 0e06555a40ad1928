//! Who may do what: a process that answers the session children's questions.
//!
//! It knows the tables (aliases, virtual users, access), the name servers and the greylist; of
//! accounts it knows those that monitors have looked up a moment ago, of passwords nothing. A
//! listening parent forks it when the first client comes, as an account without rights and in a cell,
//! for it speaks to name servers; it is the only process of a server with a tokio runtime. The parent
//! sends it the client's address with one end of a new channel beside it ([`Keeper::open`]), and the
//! session child asks on the other end ([`Line`]). What it has opened when it started (tables,
//! resolv.conf) it does not open again: when that, or the users file, changes, the parent starts
//! another one for the sessions to come. It ends when nobody can ask it any more.

pub mod greylist;
pub mod process;
mod rules;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use crate::config::Config;
use crate::message::Address;
use crate::message::address::{self, Alphabet};
use crate::route::index::{Stamp, path_of};
use crate::smtp::Reply;
use crate::smtp::xclient::Known;
use crate::sys::channel::Channel;
use crate::sys::process::Ended;
use crate::sys::{Account, Exit, Log, fd};

/// How long a lookup may take that depends on others; what is not known by then is unknown. An
/// answer has two of them to wait for at most: of what the client is, and of what it calls itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a session waits for room, where more lines are on their way to the process than it has
/// taken yet.
const ROOM: Duration = Duration::from_secs(5);

/// So much longer the session waits, so that it is the process that gives up.
const GRACE: Duration = Duration::from_secs(1);

/// A process that died is not followed by another one sooner after its own start.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the name servers stand that no configuration names.
const SETTINGS: &str = "/etc/resolv.conf";

/// How long a session remembers what was taken last: of many messages to one recipient it asks once a
/// second.
const REMEMBERED: Duration = Duration::from_secs(1);

/// The longest answer, in bytes: a status and a text.
const MAX_ANSWER: usize = 4096;

/// The longest question, and the longest that the parent tells, in bytes: its kind and a text.
const MAX_QUESTION: usize = 2048;

/// An IPv6 address, or an IPv4 address as one.
type Record = [u8; 16];

/// What the parent and its monitors tell: one byte, and what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Told {
    /// A session has begun, of the client at the address behind this byte: its line stands beside it.
    Session = b's',
    /// There is an account of the name behind this byte.
    Account = b'a',
}

/// What a session asks: one byte, and what belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Question {
    /// What is the client called?
    Name = b'n',
    /// May it send to this recipient? Behind this byte stands [`Mail`].
    Recipient = b'r',
    /// Has it to come again with it, and when? Likewise.
    Greylist = b'g',
    /// Does mail for this address reach this user? Behind this byte stand user, NUL and address.
    Owner = b'o',
    /// Is there somebody at the address behind this byte?
    Verify = b'v',
    /// Who are the members of the list at the address behind this byte?
    Expand = b'e',
    /// No question: the client is at the address behind this byte. Its name stands behind that, or
    /// a dash for none, where that is not DNS's to say.
    Client = b'c',
}

/// The first byte of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    /// The text behind it is the answer; to a question about mail: it is taken.
    Found = b'+',
    /// There is none.
    None = b'-',
    /// It can't be told now.
    Unknown = b'?',
    /// The mail is taken if there is an account for the recipient's local-part.
    Account = b'a',
    /// The mail is not taken, and the text is the reply.
    Refused = b'x',
}

impl Status {
    const ALL: [Self; 5] = [Self::Found, Self::None, Self::Unknown, Self::Account, Self::Refused];
}

/// A message to a recipient, as far as is known of it at RCPT.
#[derive(Clone, Copy, Debug)]
pub struct Mail<'a> {
    /// What the client calls itself.
    pub helo: &'a str,
    /// The envelope's sender; `None` is the null reverse-path.
    pub sender: Option<&'a Address>,
    /// The recipient.
    pub recipient: &'a Address,
    /// What is known of the client.
    pub trust: Trust,
}

/// What is known of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Trust {
    /// Nothing.
    Stranger = b'-',
    /// It is in a network of ours.
    Network = b'+',
    /// It has logged in.
    User = b'u',
}

impl Mail<'_> {
    /// `trust NUL helo NUL sender NUL recipient`: no part can have a NUL.
    fn encode(&self) -> String {
        let sender = self.sender.map(ToString::to_string).unwrap_or_default();
        let trust = char::from(self.trust as u8);
        format!("{trust}\0{}\0{sender}\0{}", self.helo, self.recipient)
    }
}

/// What is found at an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Somebody.
    Known,
    /// An account, if there is one for the local-part.
    Account,
    /// It is not of this host.
    Elsewhere,
    /// A list of these.
    Members(Vec<String>),
    /// Nobody, or this is said.
    Refused(Reply),
}

/// What policy says of a message to a recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is taken.
    Accept,
    /// It is taken if there is an account for the recipient's local-part.
    Account,
    /// It is not taken, and this is said.
    Refuse(Reply),
}

/// What the process runs until nobody can ask any more: [`process::run`]. By its address, so that
/// programs that ask nothing have nothing of DNS in them.
pub type Run = fn(&Config, Option<&Account>, Channel) -> io::Result<()>;

/// The listening parent's side: keeps a process running.
pub struct Keeper {
    config: Config,
    run: Run,
    account: Option<Account>,
    running: Option<(Pid, Channel)>,
    /// The files of which the process knows something, and which they were when it started.
    files: Vec<(PathBuf, Option<Stamp>)>,
    /// When the next one may be started.
    next: Instant,
}

impl Keeper {
    /// Nothing is started yet. With root the process becomes `account`.
    pub fn new(config: &Config, account: Option<Account>, run: Run) -> Self {
        let tables = [&config.paths.aliases, &config.paths.virtual_users, &config.paths.access];
        let mut files: Vec<(PathBuf, Option<Stamp>)> = tables
            .into_iter()
            .flat_map(|path| [path.clone(), path_of(path)])
            .map(|p| (p, None))
            .collect();
        if config.dns.servers.is_empty() {
            files.push((PathBuf::from(SETTINGS), None));
        }
        // It does not open this one, but must not go on to believe in who was deleted.
        files.push((config.users.file.clone(), None));
        let config = config.clone();
        Self { config, run, account, running: None, files, next: Instant::now() }
    }

    /// Makes sure that somebody answers, and has read the files as they are. `forget` runs in a
    /// new process: what is the parent's secret is none of its business.
    pub fn tend(&mut self, log: &Log, forget: impl FnOnce()) {
        let is_current = self.files.iter().all(|(path, known)| *known == stamp(path));
        if (self.running.is_some() && is_current) || Instant::now() < self.next {
            return;
        }
        // An older one, which no new session can ask, ends with its sessions.
        self.running = None;
        for (path, known) in &mut self.files {
            *known = stamp(path);
        }
        self.next = Instant::now() + PAUSE;
        match self.start(log, forget) {
            Ok(running) => self.running = Some(running),
            Err(error) => log.error(&format!("can't start the policy process: {error}")),
        }
    }

    fn start(&self, log: &Log, forget: impl FnOnce()) -> io::Result<(Pid, Channel)> {
        let (ours, theirs) = Channel::pair()?;
        // A monitor that opens a line does not wait for ever for room.
        fd::set_nonblocking(&ours, true)?;
        let child = crate::sys::process::fork(|| {
            forget();
            match (self.run)(&self.config, self.account.as_ref(), theirs) {
                Ok(()) => Exit::Ok,
                Err(error) => {
                    log.error(&format!("policy process: {error}"));
                    Exit::OsErr
                }
            }
        })?;
        Ok((child, ours))
    }

    /// A child has ended; true where it was this one.
    pub fn ended(&mut self, child: Pid, how: Ended, log: &Log) -> bool {
        if self.running.as_ref().is_none_or(|(pid, _)| *pid != child) {
            return false;
        }
        self.running = None;
        log.warning(&format!(
            "the policy process ended by {how:?}; the next client starts it again"
        ));
        true
    }

    /// Opens a line for a session with this client. `None` where nobody answers.
    pub fn open(&self, client: IpAddr) -> Option<Line> {
        let (_, process) = self.running.as_ref()?;
        let (ours, theirs) = Channel::pair().ok()?;
        let told = [&[Told::Session as u8][..], &record(client)].concat();
        let end = Instant::now() + ROOM;
        loop {
            match process.send_with(&told, &[theirs.as_fd()]) {
                Ok(()) => return Some(Line::of(Some(ours))),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return None,
            }
            let left = end.saturating_duration_since(Instant::now()).as_millis();
            if !fd::wait_writable(process, u32::try_from(left).ok()?).ok()? {
                return None;
            }
        }
    }

    /// An account was looked up, and is there: for a moment that need not be asked again. Where
    /// there is no room that is learned another time.
    pub fn learned(&self, account: &str) {
        if let Some((_, process)) = &self.running {
            let _ = process.send(&[&[Told::Account as u8], account.as_bytes()].concat());
        }
    }
}

fn record(client: IpAddr) -> Record {
    match client {
        IpAddr::V4(client) => client.to_ipv6_mapped().octets(),
        IpAddr::V6(client) => client.octets(),
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    path.metadata().ok().map(|found| Stamp::of(&found))
}

/// A session's line to the process. The process speaks to strangers: what it answers is looked at
/// again. One that does not answer in time is not asked any more.
#[derive(Default)]
pub struct Line {
    channel: Option<Channel>,
    /// The mail that it said was taken last, and when.
    taken: Option<(String, Instant)>,
}

impl Line {
    /// The line whose end this is.
    pub fn of(channel: Option<Channel>) -> Self {
        Self { channel, taken: None }
    }

    /// Its end, to be handed to another process.
    pub fn into_channel(self) -> Option<Channel> {
        self.channel
    }

    /// The descriptor, for a child that keeps nothing else.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(AsFd::as_fd)
    }

    /// The client is somebody else than it was, by this name where that is not DNS's to say.
    pub fn client(&mut self, client: IpAddr, name: Option<&Known<String>>) {
        let name = match name {
            None => "",
            Some(Known::Not) => "-",
            Some(Known::As(name)) => name,
        };
        let told = [&[Question::Client as u8][..], &record(client), name.as_bytes()].concat();
        self.channel = self.channel.take().filter(|channel| channel.send(&told).is_ok());
        self.taken = None;
    }

    /// The client's name: one that leads back to its address. `None` where it has none, or that
    /// can't be told.
    pub fn name(&mut self) -> Option<String> {
        match self.ask(Question::Name, "")? {
            (Status::Found, name) => host_name(&name),
            _ => None,
        }
    }

    /// Whether the client may send this. An error says why that can't be told now.
    pub fn recipient(&mut self, mail: &Mail<'_>) -> Result<Verdict, String> {
        let mail = mail.encode();
        if let Some((taken, when)) = &self.taken
            && *taken == mail
            && when.elapsed() < REMEMBERED
        {
            return Ok(Verdict::Accept);
        }
        match self.ask(Question::Recipient, &mail) {
            Some((Status::Found, _)) => {
                self.taken = Some((mail, Instant::now()));
                Ok(Verdict::Accept)
            }
            Some((Status::Account, _)) => Ok(Verdict::Account),
            Some((Status::Refused, text)) => refusal(&text).map(Verdict::Refuse),
            Some((_, what)) => Err(String::from_utf8_lossy(&what).into_owned()),
            None => Err(silent()),
        }
    }

    /// Who is at an address. An error says why that can't be told now.
    pub fn verify(&mut self, address: &Address) -> Result<Found, String> {
        self.find(Question::Verify, address)
    }

    /// Who is in the list at an address; one step deep.
    pub fn expand(&mut self, address: &Address) -> Result<Found, String> {
        self.find(Question::Expand, address)
    }

    fn find(&mut self, question: Question, address: &Address) -> Result<Found, String> {
        let (status, text) = self.ask(question, &address.to_string()).ok_or_else(silent)?;
        let text = || String::from_utf8_lossy(&text).into_owned();
        Ok(match (status, question) {
            (Status::Found, Question::Expand) => Found::Members(members(&text())?),
            (Status::Found, _) => Found::Known,
            (Status::Account, Question::Verify) => Found::Account,
            (Status::None, Question::Verify) => Found::Elsewhere,
            (Status::Refused, _) => Found::Refused(refusal(text().as_bytes())?),
            (Status::Unknown, _) => return Err(text()),
            _ => return Err("the policy process answers another question".into()),
        })
    }

    /// What is said to a client that has to come again with this. Where that can't be told, it has
    /// not.
    pub fn greylisted(&mut self, mail: &Mail<'_>) -> Option<Reply> {
        match self.ask(Question::Greylist, &mail.encode())? {
            (Status::Refused, text) => refusal(&text).ok(),
            _ => None,
        }
    }

    /// Whether mail for this address reaches this user. An error says why that can't be told now.
    pub fn is_owner(&mut self, user: &str, address: &Address) -> Result<bool, String> {
        match self.ask(Question::Owner, &format!("{user}\0{address}")) {
            Some((Status::Found, _)) => Ok(true),
            Some((Status::None, _)) => Ok(false),
            Some((_, what)) => Err(String::from_utf8_lossy(&what).into_owned()),
            None => Err(silent()),
        }
    }

    fn ask(&mut self, question: Question, text: &str) -> Option<(Status, Vec<u8>)> {
        let answer = self.channel.as_ref().and_then(|channel| answer(channel, question, text));
        if answer.is_none() {
            // A late answer would be taken for that to the next question.
            self.channel = None;
        }
        answer
    }
}

fn answer(channel: &Channel, question: Question, text: &str) -> Option<(Status, Vec<u8>)> {
    let asked = [&[question as u8], text.as_bytes()].concat();
    if asked.len() > MAX_QUESTION {
        return None;
    }
    channel.send(&asked).ok()?;
    let patience = u32::try_from((2 * PATIENCE + GRACE).as_millis()).unwrap_or(u32::MAX);
    if !fd::wait_readable(channel, patience).ok()? {
        return None;
    }
    let mut record = [0; MAX_ANSWER];
    let length = channel.receive(&mut record).ok()?;
    let (status, text) = record.get(..length)?.split_first()?;
    let status = Status::ALL.into_iter().find(|known| *known as u8 == *status)?;
    Some((status, text.to_vec()))
}

fn silent() -> String {
    "the policy process does not answer".into()
}

/// The process's reply, if it is one that refuses.
fn refusal(text: &[u8]) -> Result<Reply, String> {
    let text = String::from_utf8_lossy(text);
    Reply::parse_refusal(&text).ok_or_else(|| "the policy process does not refuse rightly".into())
}

/// The process's list, a member a line. An empty one would be no reply at all.
fn members(text: &str) -> Result<Vec<String>, String> {
    let members: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
    if members.is_empty() || members.iter().any(String::is_empty) {
        return Err("the policy process names no members".into());
    }
    Ok(members)
}

/// A name as it may stand in a header field and in the log. A name of digits would look like an
/// address.
fn host_name(name: &[u8]) -> Option<String> {
    let name = address::domain(name, Alphabet::Ascii).ok().filter(|name| !name.starts_with('['))?;
    let last = name.rsplit('.').next()?;
    last.bytes().any(|byte| byte.is_ascii_alphabetic()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::{Found, Line, host_name, refusal};
    use crate::message::Address;
    use crate::sys::channel::Channel;

    /// A line to a process that answers this to each of two questions.
    fn line(answer: &[u8]) -> (Line, Channel) {
        let (ours, theirs) = Channel::pair().unwrap();
        theirs.send(answer).unwrap();
        theirs.send(answer).unwrap();
        (Line::of(Some(ours)), theirs)
    }

    #[test]
    fn a_name_that_could_be_taken_for_something_else_is_none() {
        for good in ["hawks.qgpop.net", "localhost", "a_b.x1", "1.2.3.4.x", "xn--a.example"] {
            assert_eq!(host_name(good.as_bytes()).as_deref(), Some(good));
        }
        let long = [b"a.".repeat(127), b"bc".to_vec()].concat();
        for bad in [
            &b""[..],
            b".",
            b"192.0.2.1",
            b"1.2",
            b"[192.0.2.1]",
            b"a b",
            b"a\r\nb",
            b"a\0",
            b"(a)",
            b"a.b;c",
            b"a..b",
            b"-a.b",
            b"\xc3\xa9.example",
            &long,
        ] {
            assert_eq!(host_name(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_list_of_members_is_an_error_and_no_list() {
        let list = Address::parse(b"list@here").unwrap();
        let expand = |answer: &[u8]| line(answer).0.expand(&list);
        let members = vec!["<a@here>".to_owned(), "a program".to_owned()];
        assert_eq!(expand(b"+<a@here>\na program"), Ok(Found::Members(members)));
        assert!(matches!(expand(b"x550 5.1.1 no"), Ok(Found::Refused(_))));
        for answer in
            [&b""[..], b"+", b"+\n", b"+<a@here>\n\n<b@here>", b"a", b"-", b"x", b"?", b"!"]
        {
            assert!(expand(answer).is_err(), "{}", answer.escape_ascii());
        }
        assert!(Line::default().expand(&list).is_err());
        // Somebody is somebody, whatever else is said of him.
        for (answer, found) in
            [(&b"+"[..], Found::Known), (b"a", Found::Account), (b"-x", Found::Elsewhere)]
        {
            assert_eq!(line(answer).0.verify(&list), Ok(found));
        }
        let (mut line, process) = line(b"+");
        drop(process);
        assert!(line.expand(&list).is_err(), "nobody is there");
        assert!(line.verify(&list).is_err());
    }

    #[test]
    fn what_is_no_refusal_is_not_said() {
        let said = |text: &[u8]| refusal(text).map(|reply| reply.to_string());
        assert_eq!(said(b"550 5.7.1 no\r\n250 ok").unwrap(), "550 5.7.1 no??250 ok");
        for bad in ["250 2.0.0 ok", "550 4.7.1 no", "550 no", "5x0 5.7.1 no", "", "550 5.7.1"] {
            assert!(said(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
