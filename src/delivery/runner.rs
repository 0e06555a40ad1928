//! The runner: takes what is due from the queue and gives it to delivery agents, many at once.
//!
//! It is the worker of mta-queue: the queue's owner, without any other rights. For each recipient
//! it ends in one of three ways: done, deferred, or failed, which is told to the sender first. Only
//! then is that recorded, and only when nothing is left is the entry removed; killed in between, a
//! message is delivered, or reported, once more.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::agent::{Agent, Job, Report};
use super::bounce::{self, Action, Failed};
use super::launcher::{self, Launched};
use super::schedule::{self, Next};
use crate::config::Config;
use crate::queue::entry::Path;
use crate::queue::spool::Error;
use crate::queue::{Entry, Event, Id, Inlet, Outcome, Place, Spool, pickup};
use crate::route::{self, Route};
use crate::smtp::reply::Answer;
use crate::sys::Log;
use crate::sys::channel::Channel;
use crate::sys::signal::Signals;

/// Delivery agents at once; each is a process.
const MAX_AGENTS: usize = 16;

/// A runner of the queue.
pub struct Runner<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The log.
    pub log: &'a Log,
    /// The queue.
    pub spool: Spool,
    /// Where bounces and what pickup brings in enter.
    pub inlet: Inlet,
    /// Who starts delivery agents.
    pub launcher: &'a Channel,
    /// Signals that stop the runner after what is in flight.
    pub signals: &'a Signals,
}

/// An entry whose recipients are being delivered to.
struct Flight {
    entry: Entry,
    /// Recipients without an answer.
    open: usize,
    /// Answers that are not recorded yet.
    news: Vec<Event>,
    /// Whether something was put off.
    deferred: bool,
    /// Recipients that mean the same mailbox as another one, which gets the one copy.
    same: Vec<(usize, usize)>,
}

/// One run.
struct Run<'a> {
    runner: &'a Runner<'a>,
    flights: BTreeMap<u64, Flight>,
    next: u64,
    agents: Vec<Agent>,
    /// Jobs of users that have no agent yet.
    waiting: VecDeque<(String, Job)>,
    /// Entries that had their turn: whatever happens to them, it is over for this run.
    tried: HashSet<Id>,
    stopped: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All that was due was tried.
    Done,
    /// A signal stopped it.
    Stopped,
}

impl Runner<'_> {
    /// One run over what is due, or with `flush` over everything.
    pub fn run(&self, mut flush: bool) -> io::Result<Ended> {
        let mut run = Run {
            runner: self,
            flights: BTreeMap::new(),
            next: 0,
            agents: Vec::new(),
            waiting: VecDeque::new(),
            tried: HashSet::new(),
            stopped: false,
        };
        loop {
            self.pick_up()?;
            let now = now();
            let due: VecDeque<Place> = self
                .spool
                .list()?
                .into_iter()
                .filter(|place| !run.tried.contains(place.id()))
                .filter(|place| match place {
                    Place::Work(_) | Place::Incoming(_) => true,
                    Place::Deferred(due, _) => flush || *due <= now,
                    Place::Hold(_) | Place::Drop(_) => false,
                })
                .collect();
            let tried = run.deliver(due)?;
            if run.stopped {
                return Ok(Ended::Stopped);
            }
            // What was put off in this run is not tried again in it; what came new is.
            flush = false;
            if tried == 0 {
                return Ok(Ended::Done);
            }
        }
    }

    fn pick_up(&self) -> io::Result<()> {
        let max = self.config.smtp.max_message_size;
        let name = &self.config.hostname;
        for problem in pickup::run(&self.spool, &self.inlet, name, max)? {
            self.log.error(&format!(
                "{}: {}; moved to corrupt/",
                problem.file.display(),
                problem.what
            ));
        }
        Ok(())
    }
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

impl Run<'_> {
    /// Tries these entries; returns how many could be taken.
    fn deliver(&mut self, mut due: VecDeque<Place>) -> io::Result<usize> {
        let most = self.runner.config.delivery.concurrency;
        let mut taken = 0;
        loop {
            while self.flights.len() < most && !self.stopped {
                let Some(place) = due.pop_front() else { break };
                taken += usize::from(self.take(&place));
            }
            self.hire()?;
            if self.flights.is_empty() && (due.is_empty() || self.stopped) {
                // Agents are kept for the next entries of this run only.
                self.agents.clear();
                return Ok(taken);
            }
            self.wait()?;
        }
    }

    /// Takes an entry and routes its recipients; false where another runner has it.
    fn take(&mut self, place: &Place) -> bool {
        let Runner {
            spool, log, config, ..
        } = self.runner;
        let entry = match spool.claim(place) {
            Ok(entry) => entry,
            Err(Error::Taken) => return false,
            Err(error) => {
                // Whatever it is, incoming/ must not keep it: a path unit would start us for ever.
                log.error(&format!("{}: {error}; moved to corrupt/", place.id()));
                if let Err(error) = spool.set_aside(place) {
                    log.error(&format!(
                        "{}: can't be moved to corrupt/: {error}",
                        place.id()
                    ));
                }
                return false;
            }
        };
        self.tried.insert(place.id().clone());
        let number = self.next;
        self.next += 1;
        let pending = entry.pending();
        let mut flight = Flight {
            entry,
            open: pending.len(),
            news: Vec::new(),
            deferred: false,
            same: Vec::new(),
        };
        let mut local: Vec<(usize, String)> = Vec::new();
        let mut refused = Vec::new();
        for recipient in pending {
            let Some(address) = flight.entry.envelope.recipients.get(recipient) else {
                continue;
            };
            match route::route(config, address) {
                Route::Local(name) => {
                    let known = local
                        .iter()
                        .find(|(_, other)| other.eq_ignore_ascii_case(name));
                    match known {
                        Some((first, _)) => flight.same.push((recipient, *first)),
                        None => local.push((recipient, name.to_owned())),
                    }
                }
                Route::Remote(domain) => refused.push((
                    recipient,
                    format!("mail for {domain} waits: this version delivers on this host only"),
                )),
            }
        }
        for (recipient, name) in local {
            self.waiting.push_back((
                name,
                Job {
                    entry: number,
                    recipient,
                },
            ));
        }
        for (recipient, text) in refused {
            flight.open -= 1;
            self.settle(&mut flight, recipient, Outcome::Deferred, "4.4.3", &text);
        }
        if flight.open == 0 {
            self.finish(flight);
        } else {
            self.flights.insert(number, flight);
        }
        true
    }

    /// Gives waiting jobs to their users' agents; starts agents while there is room.
    fn hire(&mut self) -> io::Result<()> {
        let mut later = VecDeque::new();
        while let Some((name, job)) = self.waiting.pop_front() {
            if let Some(agent) = self.agents.iter_mut().find(|agent| agent.name == name) {
                agent.jobs.push_back(job);
                continue;
            }
            if self.agents.len() >= MAX_AGENTS {
                later.push_back((name, job));
                continue;
            }
            match launcher::request(self.runner.launcher, &name)? {
                Launched::Started(socket) => {
                    let mut agent = Agent::new(&name, socket, &self.runner.config.hostname)?;
                    agent.jobs.push_back(job);
                    self.agents.push(agent);
                }
                // Its mail is never refused (RFC 5321 section 4.5.1); it waits for the operator.
                Launched::NoUser if name.eq_ignore_ascii_case("postmaster") => {
                    let text = "there is no account postmaster to take this; make one";
                    self.answer(job, Outcome::Deferred, "4.3.5", text);
                }
                Launched::NoUser => {
                    self.answer(job, Outcome::Failed, "5.1.1", "there is no such user here");
                }
                Launched::Unavailable => {
                    let text = "local delivery is not available now";
                    self.answer(job, Outcome::Deferred, "4.3.0", text);
                }
            }
        }
        self.waiting = later;
        if !self.waiting.is_empty() {
            // Room for others: an idle agent goes home.
            self.agents.retain(|agent| !agent.is_idle());
        }
        let mut index = 0;
        while index < self.agents.len() {
            if self.pump(index) {
                index += 1;
            }
        }
        self.record();
        Ok(())
    }

    /// Waits until an agent or a signal has something to say.
    fn wait(&mut self) -> io::Result<()> {
        let waiting_only = self.agents.iter().all(Agent::is_idle) && !self.waiting.is_empty();
        if waiting_only || self.flights.is_empty() {
            return Ok(());
        }
        let signals = self.runner.signals;
        let mut fds = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        for agent in &self.agents {
            let mut events = PollFlags::POLLIN;
            events.set(PollFlags::POLLOUT, agent.wants_to_write());
            fds.push(PollFd::new(agent.descriptor(), events));
        }
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        while signals.next().is_some() {
            self.stopped = true;
        }
        Ok(())
    }

    /// Lets an agent go on; false where it is gone and its jobs are put off.
    fn pump(&mut self, index: usize) -> bool {
        let Self {
            agents, flights, ..
        } = self;
        let Some(agent) = agents.get_mut(index) else {
            return true;
        };
        let reports = agent.pump(|number| flights.get(&number).map(|flight| &flight.entry));
        for report in reports {
            match report {
                Report::Answered(job, answer) => {
                    self.judge(job, &answer);
                    // What keeps one message from a mailbox keeps the next: they wait together.
                    if !answer.is_positive() && !answer.is_permanent() {
                        let agent = self.agents.get_mut(index);
                        let jobs = agent.map(|agent| std::mem::take(&mut agent.jobs));
                        for job in jobs.into_iter().flatten() {
                            self.judge(job, &answer);
                        }
                    }
                }
                Report::Gone(why) => {
                    for job in self.agents.swap_remove(index).unfinished() {
                        self.answer(job, Outcome::Deferred, "4.3.0", &why);
                    }
                    return false;
                }
            }
        }
        true
    }

    fn judge(&mut self, job: Job, answer: &Answer) {
        let outcome = match answer {
            answer if answer.is_positive() => Outcome::Done,
            answer if answer.is_permanent() => Outcome::Failed,
            _ => Outcome::Deferred,
        };
        self.answer(job, outcome, &answer.enhanced(), &answer.text());
    }

    fn answer(&mut self, job: Job, outcome: Outcome, code: &str, text: &str) {
        let Some(mut flight) = self.flights.remove(&job.entry) else {
            return;
        };
        let same = flight
            .same
            .iter()
            .filter(|(_, first)| *first == job.recipient);
        let others: Vec<usize> = same.map(|(other, _)| *other).collect();
        for recipient in std::iter::once(job.recipient).chain(others) {
            flight.open -= 1;
            self.settle(&mut flight, recipient, outcome, code, text);
        }
        if flight.open == 0 {
            self.finish(flight);
        } else {
            self.flights.insert(job.entry, flight);
        }
    }

    /// Notes a recipient's fate, and logs it.
    fn settle(
        &self,
        flight: &mut Flight,
        recipient: usize,
        outcome: Outcome,
        code: &str,
        text: &str,
    ) {
        let (entry, time) = (&flight.entry, now());
        let envelope = &entry.envelope;
        let (mut outcome, mut code, mut text) = (outcome, code, text.to_owned());
        let attempts = entry.attempts(recipient) + 1;
        let queue = &self.runner.config.queue;
        if outcome == Outcome::Deferred
            && schedule::next(queue, envelope.arrived, attempts, time) == Next::Expire
        {
            outcome = Outcome::Failed;
            code = "5.4.7";
            text = format!("given up after {}: {text}", queue.expire_after);
        }
        let status = match outcome {
            Outcome::Done => "sent",
            Outcome::Deferred => "deferred",
            Outcome::Failed => "bounced",
            Outcome::Warned => "waiting",
        };
        flight.deferred |= outcome == Outcome::Deferred;
        let to = envelope.recipients.get(recipient);
        let relay = match to.map(|to| route::route(self.runner.config, to)) {
            Some(Route::Local(_)) => "local",
            _ => "none",
        };
        self.runner.log.info(&format!(
            "{}: to=<{}>, from=<{}>, relay={}, delay={}, dsn={code}, status={status} ({text})",
            entry.id(),
            Path(to),
            Path(envelope.sender.as_ref()),
            relay,
            time.saturating_sub(envelope.arrived),
        ));
        flight.news.push(Event {
            time,
            recipient,
            outcome,
            code: code.to_owned(),
            text,
        });
    }

    /// Records what is known of entries that go on: a recipient done stays done.
    fn record(&mut self) {
        let Runner { log, .. } = self.runner;
        for flight in self.flights.values_mut() {
            let done: Vec<Event> = flight
                .news
                .iter()
                .filter(|event| event.outcome == Outcome::Done)
                .cloned()
                .collect();
            if done.is_empty() {
                continue;
            }
            match flight.entry.record(&done) {
                Ok(()) => flight.news.retain(|event| event.outcome != Outcome::Done),
                Err(error) => log.error(&format!(
                    "{}: can't record a delivery (it may be repeated): {error}",
                    flight.entry.id()
                )),
            }
        }
    }

    /// Every recipient has an answer: report, record, and put off or remove.
    fn finish(&self, mut flight: Flight) {
        let Runner {
            log, spool, config, ..
        } = self.runner;
        let id = flight.entry.id().clone();
        let failed: Vec<Event> = flight
            .news
            .iter()
            .filter(|event| event.outcome == Outcome::Failed)
            .cloned()
            .collect();
        if !failed.is_empty()
            && let Err(error) = self.report(&flight.entry, Action::Failed, &failed)
        {
            // Nobody knows yet that they failed: they are tried again rather than forgotten.
            log.error(&format!(
                "{id}: can't make the report to the sender: {error}"
            ));
            for event in &mut flight.news {
                if event.outcome == Outcome::Failed {
                    event.outcome = Outcome::Deferred;
                    flight.deferred = true;
                }
            }
        }
        if !flight.deferred {
            match spool.remove(&flight.entry) {
                Ok(()) => return log.info(&format!("{id}: removed")),
                Err(error) => log.error(&format!("{id}: can't be removed: {error}")),
            }
        }
        self.warn(&mut flight);
        let entry = &mut flight.entry;
        if let Err(error) = entry.record(&flight.news) {
            log.error(&format!("{id}: can't record what happened: {error}"));
        }
        let now = now();
        let due = flight
            .news
            .iter()
            .filter(|event| event.outcome == Outcome::Deferred)
            .filter_map(|event| {
                let attempts = entry.attempts(event.recipient);
                match schedule::next(&config.queue, entry.envelope.arrived, attempts, now) {
                    Next::Retry(due) => Some(due),
                    Next::Expire => None,
                }
            })
            .min()
            .unwrap_or(now + 300);
        if let Err(error) = spool.defer(entry, due) {
            log.error(&format!("{id}: can't be put off: {error}"));
        }
    }

    /// Tells the sender once that the message still waits, when it has waited for long.
    fn warn(&self, flight: &mut Flight) {
        let entry = &flight.entry;
        let time = now();
        let after = self.runner.config.queue.warn_after.seconds();
        let told = entry
            .history
            .iter()
            .any(|event| event.outcome == Outcome::Warned);
        if told || time < entry.envelope.arrived.saturating_add(after) {
            return;
        }
        let mut waiting: Vec<Event> = flight
            .news
            .iter()
            .filter(|event| event.outcome == Outcome::Deferred)
            .cloned()
            .collect();
        if entry.envelope.sender.is_none() || waiting.is_empty() {
            return;
        }
        match self.report(entry, Action::Delayed, &waiting) {
            Ok(()) => {
                for event in &mut waiting {
                    event.outcome = Outcome::Warned;
                }
                flight.news.extend(waiting);
            }
            // The next attempt tells.
            Err(error) => self.runner.log.error(&format!(
                "{}: can't make the report to the sender: {error}",
                entry.id()
            )),
        }
    }

    /// Tells the sender, durably, before anything of it is recorded.
    fn report(&self, entry: &Entry, action: Action, failed: &[Event]) -> io::Result<()> {
        let Runner {
            log, config, inlet, ..
        } = self.runner;
        let Some(sender) = &entry.envelope.sender else {
            log.warning(&format!(
                "{}: a report can't be delivered; dropped",
                entry.id()
            ));
            return Ok(());
        };
        let recipients = &entry.envelope.recipients;
        let failed: Vec<Failed> = failed
            .iter()
            .filter_map(|event| {
                Some(Failed {
                    recipient: recipients.get(event.recipient)?.clone(),
                    code: event.code.clone(),
                    text: event.text.clone(),
                })
            })
            .collect();
        let mut text = vec![0; bounce::MAX_HEADER];
        let length = entry.read_content(0, &mut text)?;
        text.truncate(length);
        let report = bounce::Report {
            hostname: &config.hostname,
            id: entry.id(),
            sender,
            arrived: entry.envelope.arrived,
            action,
            failed: &failed,
            text: &text,
        };
        let id = report.enqueue(inlet)?;
        let what = match action {
            Action::Failed => "failure",
            Action::Delayed => "delay",
        };
        log.info(&format!("{}: sender told of the {what}: {id}", entry.id()));
        Ok(())
    }
}
