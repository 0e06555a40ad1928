//! What clients are called: a process that asks DNS, and those who ask it.
//!
//! A listening parent forks it when the first client of another host comes, as an account without
//! rights and in a cell, for DNS speaks to strangers; it is the only process of a server with a
//! tokio runtime. A session's monitor sends it the client's address with one end of a new channel
//! beside it, and gets the name back there, or nothing. It ends when the listener has gone and
//! everybody who asked has an answer.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use nix::unistd::Pid;
use tokio::sync::Semaphore;

use crate::config;
use crate::message::address::{self, Alphabet};
use crate::net::dns::Resolver;
use crate::sys::channel::{AsyncChannel, Channel};
use crate::sys::jail::Jail;
use crate::sys::process::Ended;
use crate::sys::{Account, Exit, Log, fd, privilege, process, signal};

/// How long a name may take. Who has none by then is unknown.
const PATIENCE: Duration = Duration::from_secs(5);

/// A process that died is not followed by another one sooner after its own start.
const PAUSE: Duration = Duration::from_secs(1);

/// Where the name servers stand that no configuration names.
const SETTINGS: &str = "/etc/resolv.conf";

/// Questions that are asked at once; more wait for a place.
const MAX_QUESTIONS: usize = 128;

/// The longest name, in bytes (RFC 1035 section 3.1).
const MAX_NAME: usize = 255;

/// A question: an IPv6 address, or an IPv4 address as one.
type Record = [u8; 16];

/// What the process runs that answers, until nobody can ask any more: [`run`]. By its address, so
/// that programs that want no names have nothing of DNS in them.
pub type Run = fn(&config::Dns, Option<&Account>, Channel) -> io::Result<()>;

/// The listening parent's side.
pub struct Names {
    dns: config::Dns,
    run: Run,
    account: Option<Account>,
    running: Option<(Pid, Channel)>,
    /// When [`SETTINGS`], as the running process has read them, were written.
    settings: Option<SystemTime>,
    /// When the next one may be started.
    next: Instant,
}

impl Names {
    /// Nothing is started yet. With root the process becomes `account`.
    pub fn new(dns: &config::Dns, account: Option<Account>, run: Run) -> Self {
        let (running, settings) = (None, None);
        Self { dns: dns.clone(), run, account, running, settings, next: Instant::now() }
    }

    /// Makes sure that somebody answers, and has read the settings as they are. `forget` runs in a new process: what is the parent's
    /// secret is none of its business.
    pub fn tend(&mut self, log: &Log, forget: impl FnOnce()) {
        let changed = fs::metadata(SETTINGS).and_then(|found| found.modified()).ok();
        let is_current = !self.dns.servers.is_empty() || self.settings == changed;
        if (self.running.is_some() && is_current) || Instant::now() < self.next {
            return;
        }
        // An older one, which nobody can ask any more, ends when it has answered.
        self.running = None;
        self.settings = changed;
        self.next = Instant::now() + PAUSE;
        match self.start(log, forget) {
            Ok(running) => self.running = Some(running),
            Err(error) => log.error(&format!("can't start the resolver: {error}")),
        }
    }

    fn start(&self, log: &Log, forget: impl FnOnce()) -> io::Result<(Pid, Channel)> {
        let (ours, theirs) = Channel::pair()?;
        // A monitor that asks never waits for room.
        fd::set_nonblocking(&ours, true)?;
        let child = process::fork(|| {
            forget();
            match (self.run)(&self.dns, self.account.as_ref(), theirs) {
                Ok(()) => Exit::Ok,
                Err(error) => {
                    log.error(&format!("resolver: {error}"));
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
        log.warning(&format!("the resolver ended by {how:?}; the next client starts it again"));
        true
    }

    /// Asks for the name of a client; the answer comes later. `None` where nobody answers.
    pub fn ask(&self, client: IpAddr) -> Option<Question> {
        let (_, resolver) = self.running.as_ref()?;
        let (ours, theirs) = Channel::pair().ok()?;
        let record: Record = match client {
            IpAddr::V4(client) => client.to_ipv6_mapped().octets(),
            IpAddr::V6(client) => client.octets(),
        };
        resolver.send_with(&record, Some(theirs.as_fd())).ok()?;
        Some(Question { answer: ours, deadline: Instant::now() + PATIENCE })
    }
}

/// The process that answers.
pub fn run(dns: &config::Dns, account: Option<&Account>, askers: Channel) -> io::Result<()> {
    signal::unblock_all()?;
    process::close_others(&[askers.as_fd()])?;
    if let Some(account) = account {
        privilege::become_account(account)?;
    }
    let resolver = Rc::new(Resolver::new(dns)?);
    Jail::for_callers(&crate::net::dns::ports(dns))?.enter(account, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(resolver, askers))
}

/// A question that has been asked.
pub struct Question {
    answer: Channel,
    deadline: Instant,
}

impl Question {
    /// Waits for the answer: a name that leads back to the client's address.
    pub fn answer(self) -> Option<String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let milliseconds = u32::try_from(left.as_millis()).unwrap_or(u32::MAX);
        if !fd::wait_readable(&self.answer, milliseconds).ok()? {
            return None;
        }
        let mut name = [0; MAX_NAME];
        let length = self.answer.receive(&mut name).ok()?;
        host_name(name.get(..length)?)
    }
}

/// A name as it may stand in a header field and in the log. The process that found it speaks to
/// strangers, so it is looked at again. A name of digits would look like an address.
fn host_name(name: &[u8]) -> Option<String> {
    let name = address::domain(name, Alphabet::Ascii).ok().filter(|name| !name.starts_with('['))?;
    let last = name.rsplit('.').next()?;
    last.bytes().any(|byte| byte.is_ascii_alphabetic()).then_some(name)
}

async fn serve(resolver: Rc<Resolver>, askers: Channel) -> io::Result<()> {
    let askers = AsyncChannel::new(askers)?;
    let places = Arc::new(Semaphore::new(MAX_QUESTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.map_err(io::Error::other)?;
        let mut record: Record = [0; 16];
        let (length, asker) = askers.receive_with(&mut record).await?;
        if length == 0 {
            break;
        }
        if let Some(asker) = asker.filter(|_| length == record.len()) {
            let resolver = Rc::clone(&resolver);
            tokio::task::spawn_local(async move {
                // Without an answer the other end closes, and that is one.
                let _ = answer(&resolver, record, asker.into()).await;
                drop(place);
            });
        }
    }
    // All places are free again when the last one has its answer.
    let all = u32::try_from(MAX_QUESTIONS).map_err(io::Error::other)?;
    places.acquire_many(all).await.map(drop).map_err(io::Error::other)
}

async fn answer(resolver: &Resolver, record: Record, asker: Channel) -> io::Result<()> {
    let asker = AsyncChannel::new(asker)?;
    let client = IpAddr::from(record).to_canonical();
    let mut nothing = [0];
    tokio::select! {
        name = tokio::time::timeout(PATIENCE, resolver.name_of(client)) => match name {
            Ok(Some(name)) => asker.send(name.as_bytes()).await,
            _ => Ok(()),
        },
        // Nobody is there any more to hear it.
        gone = asker.receive_with(&mut nothing) => gone.map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::host_name;

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
}
