//! Who may do what: a process that answers the session children's questions.
//!
//! A listening parent forks it when the first client comes, as an account without rights and in a
//! cell, for it speaks to name servers; it is the only process of a server with a tokio runtime. A
//! session's monitor sends it the client's address with one end of a new channel beside it
//! ([`Keeper::open`]), and the session child asks on the other end ([`Line`]). What it has read
//! when it started (resolv.conf) it does not read again: when that changes, the parent starts
//! another one for the sessions to come. It ends when nobody can ask it any more.

pub mod process;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::Pid;

use crate::config::Config;
use crate::message::address::{self, Alphabet};
use crate::sys::channel::Channel;
use crate::sys::process::Ended;
use crate::sys::{Account, Exit, Log, fd};

/// How long an answer may take that depends on others; what is not known by then is unknown.
const PATIENCE: Duration = Duration::from_secs(5);

/// So much longer the session waits, so that it is the process that gives up.
const GRACE: Duration = Duration::from_secs(1);

/// A process that died is not followed by another one sooner after its own start.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the name servers stand that no configuration names.
const SETTINGS: &str = "/etc/resolv.conf";

/// The longest answer, in bytes: a status and a text.
const MAX_ANSWER: usize = 512;

/// An IPv6 address, or an IPv4 address as one.
type Record = [u8; 16];

/// What a session asks; one byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Question {
    /// What is the client called?
    Name = b'n',
    /// Which of `[smtp] dnsbl` lists it?
    Listed = b'l',
    /// No question: the client is at the address behind this byte.
    Client = b'c',
}

/// The first byte of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Status {
    /// The text behind it is the answer.
    Found = b'+',
    /// There is none.
    None = b'-',
    /// It can't be told now.
    Unknown = b'?',
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
    /// The files that the process reads when it starts, and when they were written then.
    files: Vec<(PathBuf, Option<SystemTime>)>,
    /// When the next one may be started.
    next: Instant,
}

impl Keeper {
    /// Nothing is started yet. With root the process becomes `account`.
    pub fn new(config: &Config, account: Option<Account>, run: Run) -> Self {
        let mut files = Vec::new();
        if config.dns.servers.is_empty() {
            files.push((PathBuf::from(SETTINGS), None));
        }
        let config = config.clone();
        Self { config, run, account, running: None, files, next: Instant::now() }
    }

    /// Makes sure that somebody answers, and has read the files as they are. `forget` runs in a
    /// new process: what is the parent's secret is none of its business.
    pub fn tend(&mut self, log: &Log, forget: impl FnOnce()) {
        let is_current = self.files.iter().all(|(path, written)| *written == written_at(path));
        if (self.running.is_some() && is_current) || Instant::now() < self.next {
            return;
        }
        // An older one, which no new session can ask, ends with its sessions.
        self.running = None;
        for (path, written) in &mut self.files {
            *written = written_at(path);
        }
        self.next = Instant::now() + PAUSE;
        match self.start(log, forget) {
            Ok(running) => self.running = Some(running),
            Err(error) => log.error(&format!("can't start the policy process: {error}")),
        }
    }

    fn start(&self, log: &Log, forget: impl FnOnce()) -> io::Result<(Pid, Channel)> {
        let (ours, theirs) = Channel::pair()?;
        // A monitor that opens a line never waits for room.
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
        process.send_with(&record(client), Some(theirs.as_fd())).ok()?;
        Some(Line { channel: Some(ours) })
    }
}

fn record(client: IpAddr) -> Record {
    match client {
        IpAddr::V4(client) => client.to_ipv6_mapped().octets(),
        IpAddr::V6(client) => client.octets(),
    }
}

fn written_at(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).and_then(|found| found.modified()).ok()
}

/// A session's line to the process. The process speaks to strangers: what it answers is looked at
/// again. One that does not answer in time is not asked any more.
#[derive(Default)]
pub struct Line {
    channel: Option<Channel>,
}

impl Line {
    /// The descriptor, for a child that keeps nothing else.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(AsFd::as_fd)
    }

    /// The client is somebody else than it was.
    pub fn client(&mut self, client: IpAddr) {
        let told = [&[Question::Client as u8][..], &record(client)].concat();
        self.channel = self.channel.take().filter(|channel| channel.send(&told).is_ok());
    }

    /// The client's name: one that leads back to its address. `None` where it has none, or that
    /// can't be told.
    pub fn name(&mut self) -> Option<String> {
        match self.ask(Question::Name)? {
            (Status::Found, name) => host_name(&name),
            _ => None,
        }
    }

    /// The list of unwelcome clients in which this one is, and what it says of it. `None` where it
    /// is in none, or that can't be told.
    pub fn listed(&mut self) -> Option<String> {
        match self.ask(Question::Listed)? {
            (Status::Found, text) => Some(printable(&text)),
            _ => None,
        }
    }

    fn ask(&mut self, question: Question) -> Option<(Status, Vec<u8>)> {
        let answer = self.channel.as_ref().and_then(|channel| answer(channel, question));
        if answer.is_none() {
            // A late answer would be taken for that to the next question.
            self.channel = None;
        }
        answer
    }
}

fn answer(channel: &Channel, question: Question) -> Option<(Status, Vec<u8>)> {
    channel.send(&[question as u8]).ok()?;
    let patience = u32::try_from((PATIENCE + GRACE).as_millis()).unwrap_or(u32::MAX);
    if !fd::wait_readable(channel, patience).ok()? {
        return None;
    }
    let mut record = [0; MAX_ANSWER];
    let length = channel.receive(&mut record).ok()?;
    let (status, text) = record.get(..length)?.split_first()?;
    let status = [Status::Found, Status::None, Status::Unknown]
        .into_iter()
        .find(|known| *known as u8 == *status)?;
    Some((status, text.to_vec()))
}

/// A name as it may stand in a header field and in the log. A name of digits would look like an
/// address.
fn host_name(name: &[u8]) -> Option<String> {
    let name = address::domain(name, Alphabet::Ascii).ok().filter(|name| !name.starts_with('['))?;
    let last = name.rsplit('.').next()?;
    last.bytes().any(|byte| byte.is_ascii_alphabetic()).then_some(name)
}

/// Text of somebody's as it may stand in a reply.
fn printable(text: &[u8]) -> String {
    let visible = |byte: &u8| if matches!(byte, b' '..=b'~') { char::from(*byte) } else { '?' };
    text.iter().map(visible).collect()
}

#[cfg(test)]
mod tests {
    use super::{host_name, printable};

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
    fn a_text_breaks_no_reply() {
        assert_eq!(
            printable(b"see https://bl.example/?a\r\n250 ok\0\xff"),
            "see https://bl.example/?a??250 ok??"
        );
    }
}
