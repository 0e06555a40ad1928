//! One `local-deliver --lmtp` and the messages that go through it, without ever waiting for it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use crate::lmtp::{Client, Event};
use crate::queue::Entry;
use crate::smtp::client::Message;
use crate::smtp::reply::Answer;
use crate::sys::fd;

/// Text is read from the queue in pieces of this size.
const CHUNK: usize = 64 * 1024;

/// So many messages are given to an agent before the first has its outcome.
const WINDOW: usize = 64;

/// A recipient of an entry that is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Job {
    /// The entry, by the runner's number for it.
    pub entry: u64,
    /// Which of its recipients.
    pub recipient: usize,
}

/// A running delivery agent.
#[derive(Debug)]
pub struct Agent {
    /// The user that it is for.
    pub name: String,
    socket: OwnedFd,
    client: Client,
    /// What waits for it.
    jobs: VecDeque<Job>,
    /// What it was given, in the order of the outcomes to come.
    given: VecDeque<Job>,
    /// The last of those, while its text is being sent, and how far.
    sending: Option<(Job, u64)>,
    /// Bytes of the output that were sent.
    sent: usize,
    output: Vec<u8>,
    /// Since when it has been at what it is at.
    since: Instant,
}

/// What happened.
#[derive(Debug)]
pub enum Report {
    /// A job has its answer.
    Answered(Job, Answer),
    /// The agent is gone; its jobs are to be tried later.
    Gone(String),
}

impl Agent {
    /// Takes over a fresh agent's socket.
    pub fn new(name: &str, socket: OwnedFd, hostname: &str) -> io::Result<Self> {
        fd::set_nonblocking(&socket, true)?;
        Ok(Self {
            name: name.to_owned(),
            socket,
            client: Client::new(hostname),
            jobs: VecDeque::new(),
            given: VecDeque::new(),
            sending: None,
            sent: 0,
            output: Vec::new(),
            since: Instant::now(),
        })
    }

    /// Whether there is nothing for it to do.
    pub fn is_idle(&self) -> bool {
        self.given.is_empty() && self.jobs.is_empty()
    }

    /// Gives it something to do.
    pub fn give(&mut self, job: Job) {
        if self.is_idle() {
            self.since = Instant::now();
        }
        self.jobs.push_back(job);
    }

    /// Takes back what it has not begun.
    pub fn take_waiting(&mut self) -> VecDeque<Job> {
        std::mem::take(&mut self.jobs)
    }

    /// How much is left of the time that it may take for one message, its start included.
    pub fn left(&self, patience: Duration) -> Duration {
        patience.saturating_sub(self.since.elapsed())
    }

    /// The jobs without an outcome: for when it is gone.
    pub fn unfinished(self) -> impl Iterator<Item = Job> {
        self.given.into_iter().chain(self.jobs)
    }

    /// For poll(2).
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Whether it has output that its socket did not take yet.
    pub fn wants_to_write(&self) -> bool {
        self.sent < self.output.len()
    }

    /// Does what can be done without waiting; `entry` finds a job's entry.
    pub fn pump<'e>(&mut self, entry: impl Fn(u64) -> Option<&'e Entry>) -> Vec<Report> {
        let mut reports = Vec::new();
        match self.work(&entry, &mut reports) {
            Ok(()) => {}
            Err(error) => reports.push(Report::Gone(error.to_string())),
        }
        reports
    }

    fn work<'e>(
        &mut self,
        entry: &impl Fn(u64) -> Option<&'e Entry>,
        reports: &mut Vec<Report>,
    ) -> io::Result<()> {
        loop {
            if !self.flush()? {
                return Ok(());
            }
            if self.send_text(entry)? || self.start(entry) {
                continue;
            }
            match self.client.event() {
                Some(Event::Ready) => {}
                Some(Event::Outcome(answer)) => {
                    self.since = Instant::now();
                    reports.extend(self.given.pop_front().map(|job| Report::Answered(job, answer)));
                }
                Some(Event::Broken(said)) => {
                    return Err(io::Error::other(format!("local-deliver said: {said}")));
                }
                None if !self.client.output().is_empty() => {}
                None if self.read()? => {}
                None => return Ok(()),
            }
        }
    }

    /// Sends what is to be sent; false where the socket is full.
    fn flush(&mut self) -> io::Result<bool> {
        if self.sent == self.output.len() {
            self.output.clear();
            self.sent = 0;
            self.output.append(self.client.output());
        }
        while let Some(rest) = self.output.get(self.sent..).filter(|rest| !rest.is_empty()) {
            match nix::unistd::write(&self.socket, rest) {
                Ok(count) => self.sent += count,
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return Ok(false),
                // It may have said why before it went.
                Err(nix::Error::EPIPE) => return Err(gone()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Reads the next piece of the text into the output; false where there is none to send.
    fn send_text<'e>(&mut self, entry: &impl Fn(u64) -> Option<&'e Entry>) -> io::Result<bool> {
        let Some((job, offset)) = &mut self.sending else {
            return Ok(false);
        };
        let Some(entry) = entry(job.entry) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let start = self.output.len();
        let left = usize::try_from(entry.size().saturating_sub(*offset)).unwrap_or(usize::MAX);
        self.output.resize(start + left.min(CHUNK), 0);
        let room = self.output.get_mut(start..).unwrap_or_default();
        let count = entry.read_content(*offset, room)?;
        self.output.truncate(start + count);
        *offset += count as u64;
        if *offset >= entry.size() {
            self.sending = None;
        }
        Ok(true)
    }

    /// Starts the next job where one can be started.
    fn start<'e>(&mut self, entry: &impl Fn(u64) -> Option<&'e Entry>) -> bool {
        if !self.client.is_ready() || self.given.len() >= WINDOW {
            return false;
        }
        let Some(job) = self.jobs.pop_front() else {
            return false;
        };
        let Some(entry) = entry(job.entry) else {
            return true;
        };
        let envelope = &entry.envelope;
        let Some(recipient) = envelope.recipients.get(job.recipient) else {
            return true;
        };
        self.client.start(&Message {
            sender: envelope.sender.as_ref(),
            recipients: &[recipient],
            body: envelope.body,
            utf8: envelope.utf8,
            ret: envelope.ret,
            envelope_id: envelope.envelope_id.as_ref(),
            size: entry.size(),
        });
        self.output.append(self.client.output());
        self.given.push_back(job);
        self.sending = Some((job, 0));
        true
    }

    /// Reads what there is; false where there is nothing.
    fn read(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        loop {
            match nix::unistd::read(&self.socket, &mut buffer) {
                Ok(0) | Err(nix::Error::ECONNRESET) => return Err(gone()),
                Ok(count) => {
                    self.client.push(buffer.get(..count).unwrap_or_default());
                    return Ok(true);
                }
                Err(nix::Error::EINTR) => {}
                Err(nix::Error::EAGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

fn gone() -> io::Error {
    io::Error::other("local-deliver ended unexpectedly")
}
