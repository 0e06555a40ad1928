//! The worker's side: what the courier was given, and what it has answered for.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use super::super::fate::Fate;
use super::super::runner::SPARE;
use super::record::{Job, MAX, MAX_RECIPIENTS, Order, Report};
use crate::queue::{Entry, Outcome};
use crate::sys::channel::Channel;
use crate::sys::{fd, process};

/// A recipient's fate: entry (by the runner's number for it), recipient, fate.
pub type Answer = (u64, usize, Fate);

/// A running courier.
#[derive(Debug)]
pub struct Courier {
    channel: Channel,
    /// What its channel did not take yet.
    unsent: VecDeque<Job>,
    /// Each job's entry, and the recipients without an answer.
    jobs: BTreeMap<u64, (u64, Vec<usize>)>,
    next: u64,
    /// How many jobs it may have at once: each costs it a descriptor, and it needs others for its
    /// connections.
    room: usize,
    stop: bool,
}

impl Courier {
    /// Takes over a fresh courier's channel.
    pub fn new(channel: Channel) -> io::Result<Self> {
        fd::set_nonblocking(&channel, true)?;
        // Its limit is ours.
        let room = process::max_descriptors().saturating_sub(SPARE).div_euclid(2).max(1);
        let (unsent, jobs) = (VecDeque::new(), BTreeMap::new());
        Ok(Self { channel, unsent, jobs, next: 0, room, stop: false })
    }

    /// Gives it a message for recipients of one destination.
    pub fn give(&mut self, number: u64, entry: &Entry, recipients: &[usize]) {
        for recipients in recipients.chunks(MAX_RECIPIENTS) {
            let recipients = recipients.to_vec();
            self.jobs.insert(self.next, (number, recipients.clone()));
            self.unsent.push_back(Job { number: self.next, id: entry.id().clone(), recipients });
            self.next += 1;
        }
    }

    /// Lets it give back what it has not begun.
    pub fn stop(&mut self) {
        self.stop = true;
    }

    /// For poll(2).
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.channel.as_fd()
    }

    /// Whether it has something to be told that its channel did not take yet.
    pub fn wants_to_write(&self) -> bool {
        self.stop || (!self.unsent.is_empty() && self.has_room())
    }

    fn has_room(&self) -> bool {
        self.jobs.len() - self.unsent.len() < self.room
    }

    /// Does what can be done without waiting; `entry` finds a job's entry. An error means that the
    /// courier is gone; then [`Courier::unanswered`] tells what it leaves.
    pub fn pump<'e>(
        &mut self,
        entry: impl Fn(u64) -> Option<&'e Entry>,
        answers: &mut Vec<Answer>,
    ) -> io::Result<()> {
        // What it still has said counts, whether or not it hears us.
        let sent = self.send(entry, answers);
        self.receive(answers).and(sent)
    }

    fn send<'e>(
        &mut self,
        entry: impl Fn(u64) -> Option<&'e Entry>,
        answers: &mut Vec<Answer>,
    ) -> io::Result<()> {
        while self.has_room()
            && let Some(job) = self.unsent.front()
        {
            let number = job.number;
            let found = self.jobs.get(&number).and_then(|(number, _)| entry(*number));
            let file = found.ok_or_else(|| io::ErrorKind::NotFound.into()).and_then(Entry::share);
            let record = Order::Deliver(job.clone()).encode();
            let sent = file.and_then(|file| self.channel.send_with(&record, &[file.as_fd()]));
            if let Err(error) = sent {
                match error.kind() {
                    io::ErrorKind::WouldBlock => return Ok(()),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                        return Err(error);
                    }
                    // No descriptors, here or (ETOOMANYREFS) on their way: this message waits.
                    _ => {
                        let text = format!("the queue file can't be handed on: {error}");
                        let fate = Fate::untried("4.3.0", text);
                        answers.extend(self.jobs.remove(&number).into_iter().flat_map(all(fate)));
                    }
                }
            }
            self.unsent.pop_front();
        }
        if self.stop {
            match self.channel.send(&Order::Stop.encode()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => {
                    self.stop = false;
                    return done;
                }
            }
        }
        Ok(())
    }

    fn receive(&mut self, answers: &mut Vec<Answer>) -> io::Result<()> {
        let mut record = [0; MAX];
        loop {
            let length = match self.channel.receive(&mut record) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // It ended before it had read all of ours; what it said stands behind this.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => continue,
                Err(error) => return Err(error),
            };
            let report = record.get(..length).and_then(Report::parse);
            let Report { job, recipient, fate } =
                report.ok_or_else(|| io::Error::other("a report without sense"))?;
            // It answers once for each recipient that it was given, and for nobody else.
            if self.unsent.front().is_some_and(|unsent| unsent.number <= job) {
                continue;
            }
            let Some((number, recipients)) = self.jobs.get_mut(&job) else { continue };
            let Some(at) = recipients.iter().position(|other| *other == recipient) else {
                continue;
            };
            recipients.swap_remove(at);
            answers.push((*number, recipient, fate));
            if recipients.is_empty() {
                self.jobs.remove(&job);
            }
        }
    }

    /// What has no answer, when the courier is gone.
    pub fn unanswered(self, why: &io::Error) -> Vec<Answer> {
        let text = format!("the delivery to other hosts broke off: {why}");
        let fate = Fate::ours(Outcome::Deferred, "4.3.0", text);
        self.jobs.into_values().flat_map(all(fate)).collect()
    }
}

/// The same fate for all recipients of a job.
fn all(fate: Fate) -> impl Fn((u64, Vec<usize>)) -> Vec<Answer> {
    move |(entry, recipients)| {
        recipients.into_iter().map(|recipient| (entry, recipient, fate.clone())).collect()
    }
}
