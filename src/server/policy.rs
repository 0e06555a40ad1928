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
mod line;
pub mod process;
mod rules;

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::unistd::Pid;

pub use line::Line;

use crate::config::Config;
use crate::message::Address;
use crate::route::index::{Stamp, path_of};
use crate::smtp::Reply;
use crate::sys::channel::Channel;
use crate::sys::process::Ended;
use crate::sys::{Account, Exit, Log, fd};

/// How long a lookup may take that depends on others; what is not known by then is unknown. An
/// answer has two of them to wait for at most: of what the client is, and of what it calls itself.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a session waits for room, where more lines are on their way to the process than it has
/// taken yet.
const ROOM: Duration = Duration::from_secs(5);

/// A process that died is not followed by another one sooner after its own start.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the name servers stand that no configuration names.
const SETTINGS: &str = "/etc/resolv.conf";

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
