//! LMTP for all users: the three kinds of processes of a session.
//!
//! ```text
//! monitor (root: looks accounts up, forks; reads records of bounded size)
//!   ├─ session child (no rights: speaks LMTP, writes each text into a file without a name)
//!   └─ agent, one a user (is the user: reads that file, delivers)
//! ```
//!
//! A text is in one file that the session child writes and agents may only read. A job for an agent
//! is a record that the monitor passes on, of which it reads the name of the user; so is the answer,
//! of which it reads nothing. An agent stays until the session ends, for the next message.

use std::collections::{HashMap, VecDeque};
use std::fmt::Write;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Desk, Gone, converse, log_failure, reply};
use crate::config::Config;
use crate::delivery::Failure;
use crate::delivery::local::{self, Agent, Envelope, Receipt, Wish};
use crate::message::Address;
use crate::route::{self, Route};
use crate::server::Connection;
use crate::smtp::{Reply, Verdict};
use crate::sys::channel::Channel;
use crate::sys::jail::Jail;
use crate::sys::log::Level;
use crate::sys::process::Ended;
use crate::sys::signal::Hold;
use crate::sys::{Account, Exit, Log, clock, fd, process};

/// The longest record.
const MAX: usize = 4096;

/// Jobs that are under way at once in a session.
const WINDOW: usize = 32;

/// Agents that stay: so many users can get mail in turn without a new process for each message.
const MAX_AGENTS: usize = 128;

/// So long may an agent be at one job.
const PATIENCE: Duration = Duration::from_mins(10);

/// So many accounts are remembered in a session.
const MAX_ACCOUNTS: usize = 10_000;

/// What the session child wants of its monitor: one byte, then text.
mod ask {
    /// Whether there is a user of this local-part; answered by one byte.
    pub const USER: u8 = b'u';
    /// A file for texts; answered by one byte, with the file.
    pub const SPOOL: u8 = b's';
    /// A delivery: lines with the local-part, then what is for the agent. Answered, when it is done,
    /// by a line with the number of the job, counted from 0, and the agent's answer.
    pub const DELIVER: u8 = b'd';
    /// A line for the log.
    pub const LOG: u8 = b'l';
}

const YES: u8 = b'y';
const NO: u8 = b'n';

/// What every session of a server shares.
pub struct Server<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The log.
    pub log: &'a Log,
    /// The cell of the session children.
    pub jail: Jail,
    /// Whom session children become, with root.
    pub stranger: Option<Account>,
    /// Where messages go.
    pub wish: Wish,
}

impl Server<'_> {
    /// One session: forks the child that speaks, and is its monitor.
    pub fn session(&self, mut connection: Connection) -> Exit {
        let (monitor, child_end) = match Channel::pair() {
            Ok(pair) => pair,
            Err(error) => return self.fail(&format!("can't make a channel: {error}")),
        };
        // Read, at the latest, before anybody loses sight of /etc/localtime.
        clock::zone();
        let forked = process::fork(|| match self.lock_up(&connection, &child_end) {
            Ok(()) => {
                let mut desk = Counter::new(self.config, &child_end);
                converse(self.config, &mut connection, &mut desk)
            }
            Err(error) => {
                let _ =
                    send_line(&child_end, ask::LOG, &format!("can't lock a session up: {error}"));
                Exit::OsErr
            }
        });
        let child = match forked {
            Ok(child) => child,
            Err(error) => return self.fail(&format!("can't fork: {error}")),
        };
        drop(child_end);
        // The client is the child's: when that ends, the client must see it.
        drop(connection);
        // Where it was 0 and 1, no channel may take their place: agents keep those open.
        if let Err(error) = fd::ensure_standard() {
            return self.fail(&format!("can't open /dev/null: {error}"));
        }
        let mut monitor = Monitor {
            server: self,
            channel: monitor,
            child,
            ended: None,
            spool: None,
            agents: Vec::new(),
            jobs: 0,
            accounts: HashMap::new(),
        };
        if let Err(error) = monitor.run() {
            return self.fail(&format!("monitor: {error}"));
        }
        match monitor.ended.map_or_else(|| process::wait(child), Ok) {
            Ok(Ended::Exited(_)) => Exit::Ok,
            Ok(how) => self.fail(&format!("an LMTP session ended by {how:?}")),
            Err(error) => self.fail(&format!("wait: {error}")),
        }
    }

    fn fail(&self, what: &str) -> Exit {
        self.log.error(what);
        Exit::OsErr
    }

    /// The child gives everything up but the client and the channel.
    fn lock_up(&self, connection: &Connection, channel: &Channel) -> io::Result<()> {
        let mut keep: Vec<BorrowedFd<'_>> = connection.descriptors().into();
        keep.push(channel.as_fd());
        keep.extend(self.jail.descriptor());
        process::close_others(&keep)?;
        self.jail.enter(self.stranger.as_ref(), None)
    }
}

fn send_line(channel: &Channel, kind: u8, text: &str) -> io::Result<()> {
    let mut record = vec![kind];
    record.extend(text.bytes().take(MAX - 1));
    channel.send(&record)
}

/// The session child's desk.
struct Counter<'a> {
    config: &'a Config,
    monitor: &'a Channel,
    spool: Option<File>,
    /// What is not written yet.
    buffer: Vec<u8>,
    written: u64,
    /// Why the text can't be kept.
    broken: Option<Failure>,
    /// Jobs that were given to the monitor, and the replies that have come.
    given: usize,
    replies: Vec<Option<Reply>>,
}

impl<'a> Counter<'a> {
    fn new(config: &'a Config, monitor: &'a Channel) -> Self {
        Self {
            config,
            monitor,
            spool: None,
            buffer: Vec::new(),
            written: 0,
            broken: None,
            given: 0,
            replies: Vec::new(),
        }
    }

    fn flush(&mut self) {
        let Some(spool) = &self.spool else {
            return;
        };
        if let Err(error) = spool.write_all_at(&self.buffer, self.written) {
            let text = format!("the message can't be kept: {error}");
            self.broken = Some(Failure::temporary("4.3.1", text));
        }
        self.written = self.written.saturating_add(self.buffer.len() as u64);
        self.buffer.clear();
    }

    /// Takes one answer of the monitor.
    fn answer(&mut self) -> Result<(), Gone> {
        let mut record = [0; MAX];
        let length = self.monitor.receive(&mut record).map_err(|_| Gone)?;
        let text = std::str::from_utf8(record.get(..length).unwrap_or_default());
        let (number, reply) = text.map_err(|_| Gone)?.split_once('\n').ok_or(Gone)?;
        let (code, text) = reply.split_once(' ').ok_or(Gone)?;
        let reply = Reply::plain(code.parse().map_err(|_| Gone)?, text);
        let number: usize = number.parse().map_err(|_| Gone)?;
        *self.replies.get_mut(number).ok_or(Gone)? = Some(reply);
        Ok(())
    }

    fn waiting(&self) -> usize {
        self.given.saturating_sub(self.replies.iter().flatten().count())
    }
}

impl Desk for Counter<'_> {
    fn check(&mut self, address: &Address) -> Result<Verdict, Gone> {
        let unknown =
            || Reply::new(550, "5.1.1", format!("<{address}>: there is no such user here"));
        let Route::Local(local) = route::route(self.config, address) else {
            return Ok(Verdict::Refuse(unknown()));
        };
        send_line(self.monitor, ask::USER, local).map_err(|_| Gone)?;
        let mut answer = [0];
        match self.monitor.receive(&mut answer).map_err(|_| Gone)? {
            1 if answer == [YES] => Ok(Verdict::Accept),
            1 if answer == [NO] => Ok(Verdict::Refuse(unknown())),
            1 => {
                let text = format!("<{address}>: Temporary lookup failure");
                Ok(Verdict::Refuse(Reply::new(451, "4.3.0", text)))
            }
            _ => Err(Gone),
        }
    }

    fn open(&mut self) -> Result<(), Gone> {
        self.buffer.clear();
        self.written = 0;
        self.broken = None;
        if let Some(spool) = &self.spool {
            if spool.set_len(0).is_err() {
                self.spool = None;
            } else {
                return Ok(());
            }
        }
        send_line(self.monitor, ask::SPOOL, "").map_err(|_| Gone)?;
        let (length, file) = self.monitor.receive_with(&mut [0]).map_err(|_| Gone)?;
        if length == 0 {
            return Err(Gone);
        }
        self.spool = file.map(File::from);
        if self.spool.is_none() {
            self.broken = Some(Failure::temporary("4.3.1", "the message can't be kept now"));
        }
        Ok(())
    }

    fn store(&mut self, piece: &[u8]) {
        self.buffer.extend_from_slice(piece);
        if self.buffer.len() >= 64 * 1024 {
            self.flush();
        }
    }

    fn discard(&mut self) {
        self.buffer.clear();
    }

    /// The jobs are given out at once, as many as may be under way, and waited for: the file is
    /// needed for the next message.
    fn commit(&mut self, envelopes: Vec<Envelope>) -> Result<(), Gone> {
        self.flush();
        if let Some(failure) = &self.broken {
            let reply = reply(&Err(failure.clone()));
            self.given += envelopes.len();
            self.replies.extend(envelopes.iter().map(|_| Some(reply.clone())));
            return Ok(());
        }
        for Envelope { sender, recipient, receipt, .. } in envelopes {
            let local = recipient.rsplit_once('@').map_or("", |(local, _)| local);
            let (number, size) = (self.given, self.written);
            let mut job = format!("{local}\n{number}\n{size}\n{sender}\n{recipient}");
            if let Some(Receipt { envelope_id, original }) = receipt {
                let (id, original) =
                    (envelope_id.unwrap_or_default(), original.unwrap_or_default());
                let _ = write!(job, "\n{id}\n{original}");
            }
            send_line(self.monitor, ask::DELIVER, &job).map_err(|_| Gone)?;
            self.given += 1;
            self.replies.push(None);
            while self.waiting() >= WINDOW {
                self.answer()?;
            }
        }
        while self.waiting() > 0 {
            self.answer()?;
        }
        Ok(())
    }

    fn deliver(&mut self) -> Result<Vec<Reply>, Gone> {
        self.given = 0;
        Ok(self.replies.drain(..).flatten().collect())
    }
}

/// The monitor's side.
struct Monitor<'a> {
    server: &'a Server<'a>,
    channel: Channel,
    /// The session child, and how it has ended.
    child: Pid,
    ended: Option<Ended>,
    /// The file for texts, for the agents, who may only read it.
    spool: Option<File>,
    agents: Vec<Busy>,
    jobs: u64,
    /// Accounts by the local-parts that led to them in this session.
    accounts: HashMap<String, Account>,
}

/// An agent, and what it is at.
struct Busy {
    /// The name of its account.
    name: String,
    process: Pid,
    channel: Channel,
    /// Numbers of its jobs, as the session child counts them.
    jobs: VecDeque<String>,
    since: Instant,
    used: u64,
    /// It has been waited for: its number may be another process's by now.
    ended: bool,
}

impl Drop for Busy {
    fn drop(&mut self) {
        // Without its channel it ends; one that hangs would be waited for in vain.
        if !self.ended && !self.jobs.is_empty() {
            let _ = kill(self.process, Signal::SIGKILL);
        }
    }
}

impl Monitor<'_> {
    /// Serves until the session child is gone.
    fn run(&mut self) -> io::Result<()> {
        loop {
            let (child, ready) = self.wait()?;
            // From behind, so that the numbers of those before stay the same.
            for index in ready.into_iter().rev() {
                if !self.relay(index)? {
                    self.bury(index, "the delivery ended unexpectedly")?;
                }
            }
            let mut index = self.agents.len();
            while index > 0 {
                index -= 1;
                let hangs =
                    |agent: &Busy| !agent.jobs.is_empty() && agent.since.elapsed() > PATIENCE;
                if self.agents.get(index).is_some_and(hangs) {
                    self.bury(index, "the delivery took too long")?;
                }
            }
            while let Some((process, how)) = process::reap() {
                if process == self.child {
                    self.ended = Some(how);
                }
                for agent in self.agents.iter_mut().filter(|agent| agent.process == process) {
                    agent.ended = true;
                }
            }
            if child && !self.serve()? {
                return Ok(());
            }
        }
    }

    /// Waits for the session child and the agents: whether the child has asked something, and which
    /// agents have answered.
    fn wait(&self) -> io::Result<(bool, Vec<usize>)> {
        let mut fds = vec![PollFd::new(self.channel.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.agents.iter().map(|a| PollFd::new(a.channel.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::from(10_000_u16)) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        let agents = fds.iter().skip(1).enumerate().filter(|(_, fd)| is_ready(fd));
        Ok((fds.first().is_some_and(is_ready), agents.map(|(index, _)| index).collect()))
    }

    /// Obeys the session child once; false when it has gone.
    fn serve(&mut self) -> io::Result<bool> {
        let mut record = [0; MAX];
        let length = self.channel.receive(&mut record)?;
        let Some((kind, text)) = record.get(..length).and_then(<[u8]>::split_first) else {
            return Ok(false);
        };
        match *kind {
            ask::USER => {
                let answer = match self.account(&String::from_utf8_lossy(text)) {
                    Ok(Some(_)) => YES,
                    Ok(None) => NO,
                    Err(_) => b'?',
                };
                self.channel.send(&[answer])?;
            }
            ask::SPOOL => match self.make_spool() {
                Ok(file) => self.channel.send_with(&[YES], &[file.as_fd()])?,
                Err(error) => {
                    let directory = std::env::temp_dir();
                    let directory = directory.display();
                    self.server
                        .log
                        .error(&format!("no file for a message in {directory}: {error}"));
                    self.channel.send(&[NO])?;
                }
            },
            ask::DELIVER => {
                let text = String::from_utf8_lossy(text);
                let mut lines = text.splitn(3, '\n');
                if let (Some(name), Some(job), Some(rest)) =
                    (lines.next(), lines.next(), lines.next())
                {
                    self.give(name, job, rest)?;
                }
            }
            _ => self.server.log.line(Level::Error, &String::from_utf8_lossy(text)),
        }
        Ok(true)
    }

    /// A file without a name that the session child may write, and agents may read.
    fn make_spool(&mut self) -> io::Result<File> {
        let file = tempfile::tempfile()?;
        // Another open file of the same inode, for reading only.
        self.spool = Some(File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))?);
        Ok(file)
    }

    fn give(&mut self, name: &str, job: &str, rest: &str) -> io::Result<()> {
        let (Ok(index), Some(spool)) = (self.agent(name), &self.spool) else {
            return self.answer(job, &lost("no delivery agent can be started now"));
        };
        let Some(agent) = self.agents.get_mut(index) else {
            return Ok(());
        };
        self.jobs += 1;
        agent.used = self.jobs;
        if agent.jobs.is_empty() {
            agent.since = Instant::now();
        }
        agent.jobs.push_back(job.to_owned());
        match agent.channel.send_with(rest.as_bytes(), &[spool.as_fd()]) {
            Ok(()) => Ok(()),
            Err(_) => self.bury(index, "the delivery ended unexpectedly"),
        }
    }

    fn account(&mut self, local: &str) -> io::Result<Option<Account>> {
        if let Some(account) = self.accounts.get(local) {
            return Ok(Some(account.clone()));
        }
        let found = route::account(self.server.config, local);
        if let Err(error) = &found {
            self.server.log.error(&format!("looking up user {local:?}: {error}"));
        }
        let found = found?;
        if let Some(account) = &found
            && self.accounts.len() < MAX_ACCOUNTS
        {
            self.accounts.insert(local.to_owned(), account.clone());
        }
        Ok(found)
    }

    /// The user's agent: the one that is there, or a new one.
    fn agent(&mut self, local: &str) -> io::Result<usize> {
        // It was there when the recipient was accepted.
        let account = self.account(local)?.ok_or(io::ErrorKind::NotFound)?;
        if let Some(index) = self.agents.iter().position(|agent| agent.name == account.name) {
            return Ok(index);
        }
        if self.agents.len() >= MAX_AGENTS {
            let idle = self.agents.iter().enumerate().filter(|(_, agent)| agent.jobs.is_empty());
            let oldest = idle.min_by_key(|(_, agent)| agent.used).map(|(index, _)| index);
            self.agents.swap_remove(oldest.ok_or(io::ErrorKind::WouldBlock)?);
        }
        let (channel, theirs) = Channel::pair()?;
        let forked = process::fork(|| self.be_agent(&account, &theirs));
        if let Err(error) = &forked {
            self.server.log.error(&format!("can't fork a delivery agent: {error}"));
        }
        let process = forked?;
        self.agents.push(Busy {
            name: account.name,
            process,
            channel,
            jobs: VecDeque::new(),
            since: Instant::now(),
            used: 0,
            ended: false,
        });
        Ok(self.agents.len() - 1)
    }

    fn be_agent(&self, account: &Account, channel: &Channel) -> Exit {
        let Server { config, wish, .. } = self.server;
        let ready =
            process::leave_terminal().and_then(|()| process::close_others(&[channel.as_fd()]));
        let log = Log::open("local-deliver", config.log.into());
        if let Err(error) = ready {
            log.error(&format!("an agent can't begin: {error}"));
            return Exit::OsErr;
        }
        let agent = local::become_recipient(config, account)
            .and_then(|()| Agent::new(config, account, wish.clone()));
        AgentLoop { config, account, log: &log, agent }.run(channel)
    }

    /// Passes an agent's answer on; false where the agent has gone.
    fn relay(&mut self, index: usize) -> io::Result<bool> {
        let Some(agent) = self.agents.get_mut(index) else {
            return Ok(true);
        };
        let mut record = [0; MAX - 16];
        let length = agent.channel.receive(&mut record).unwrap_or(0);
        // Its jobs stay with it: whoever buries it answers them. An answer that nobody has asked for is
        // the end of it, too.
        if length == 0 || agent.jobs.is_empty() {
            return Ok(false);
        }
        let job = agent.jobs.pop_front().unwrap_or_default();
        agent.since = Instant::now();
        let record = record.get(..length).unwrap_or_default();
        self.answer(&job, record)?;
        Ok(true)
    }

    fn answer(&self, job: &str, answer: &[u8]) -> io::Result<()> {
        self.channel.send(&[job.as_bytes(), b"\n", answer].concat())
    }

    /// An agent is given up: its jobs are to be tried later.
    fn bury(&mut self, index: usize, why: &str) -> io::Result<()> {
        let agent = self.agents.swap_remove(index);
        for job in &agent.jobs {
            self.server.log.error(&format!("agent of {:?}: {why}", agent.name));
            self.answer(job, &lost(why))?;
        }
        Ok(())
    }
}

/// The answer of an agent that gave none.
fn lost(why: &str) -> Vec<u8> {
    reply(&Err(Failure::temporary("4.3.0", why))).to_string().into_bytes()
}

/// A process that is a user, and delivers until its monitor has nothing more.
struct AgentLoop<'a> {
    config: &'a Config,
    account: &'a Account,
    log: &'a Log,
    agent: Result<Agent<'a>, Failure>,
}

impl AgentLoop<'_> {
    fn run(mut self, monitor: &Channel) -> Exit {
        let mut record = [0; MAX];
        loop {
            let (length, spool) = match monitor.receive_with(&mut record) {
                Ok((0, _)) => return Exit::Ok,
                Ok((length, spool)) => (length, spool.map(File::from)),
                Err(_) => return Exit::OsErr,
            };
            let text = String::from_utf8_lossy(record.get(..length).unwrap_or_default());
            // What was delivered is said before a signal may end us.
            let _hold = Hold::begin();
            let fate = self.deliver(&text, spool);
            if let Ok(agent) = &mut self.agent {
                for warning in agent.take_warnings() {
                    self.log.warning(&warning);
                }
            }
            if monitor.send(reply(&fate).to_string().as_bytes()).is_err() {
                return Exit::OsErr;
            }
        }
    }

    fn deliver(&mut self, job: &str, spool: Option<File>) -> Result<local::Delivered, Failure> {
        let unreadable = || Failure::temporary("4.3.0", "the job can't be read");
        let mut lines = job.split('\n').map(str::to_owned);
        let mut line = || lines.next().ok_or_else(unreadable);
        let size: u64 = line()?.parse().map_err(|_| unreadable())?;
        let (sender, recipient) = (line()?, line()?);
        let receipt = lines.next().map(|envelope_id| Receipt {
            envelope_id: Some(envelope_id).filter(|id| !id.is_empty()),
            original: lines.next().filter(|original| !original.is_empty()),
        });
        let local = recipient.rsplit_once('@').map_or("", |(local, _)| local);
        let extension = route::extension(self.config, &self.account.name, local);
        let extension = extension.unwrap_or_default().to_owned();
        let delivered = match &mut self.agent {
            Err(failure) => Err(failure.clone()),
            Ok(agent) => {
                let spool = spool.ok_or_else(unreadable)?;
                let mut stager = agent.stage();
                copy(&spool, size, &mut |piece| Ok(stager.push(piece)?))?;
                let text = Rc::new(stager.finish()?);
                let recipient = recipient.clone();
                let envelope = Envelope { sender, recipient, extension, receipt };
                agent.deliver(text, envelope)
            }
        };
        match &delivered {
            Ok(done) => self.log.info(&format!(
                "to=<{recipient}> status=delivered size={} {}",
                done.size, done.how
            )),
            Err(failure) => log_failure(self.log, &recipient, failure),
        }
        delivered
    }
}

fn copy(
    file: &File,
    size: u64,
    sink: &mut dyn FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut buffer = vec![0; usize::try_from(size.min(64 * 1024)).unwrap_or(0)];
    let mut at = 0;
    while at < size {
        let left = usize::try_from(size.saturating_sub(at)).unwrap_or(usize::MAX);
        let most = left.min(buffer.len());
        match file.read_at(buffer.get_mut(..most).unwrap_or_default(), at) {
            Ok(0) => return Err(Failure::temporary("4.3.0", "the message is cut off")),
            Ok(n) => {
                sink(buffer.get(..n).unwrap_or_default())?;
                at = at.saturating_add(n as u64);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                let text = format!("the message can't be read: {error}");
                return Err(Failure::temporary("4.3.0", text));
            }
        }
    }
    Ok(())
}
