//! The runner: takes what is due from the queue and gives it to delivery agents, many at once.
//!
//! It is the worker of mta-queue: the queue's owner, without any other rights. What becomes of an
//! entry that it has taken is [`Flight`]'s to say.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::agent::{Agent, Job, Report};
use super::fate::Fate;
use super::flight::Flight;
use super::launcher::{self, Launched};
use super::remote::Courier;
use super::schedule;
use crate::config::Config;
use crate::queue::spool::Error;
use crate::queue::{Id, Inlet, Outcome, Place, Spool, Wake, pickup};
use crate::route::{self, Route};
use crate::smtp::reply::{Answer, Meaning};
use crate::sys::channel::Channel;
use crate::sys::signal::Signals;
use crate::sys::{Log, clock, process};

/// Delivery agents at once; each is a process.
const MAX_AGENTS: usize = 16;
/// How long a delivery agent may take for one message. It runs as its user, who can stop it.
pub const PATIENCE: Duration = Duration::from_mins(10);
/// What comes within this time is taken together, so that a burst of mail is delivered in batches
/// and not one by one.
pub const GATHER: Duration = Duration::from_millis(25);
/// A run that waits for more ends after this time all the same.
const MAX_LINGER: Duration = Duration::from_secs(10);
/// Messages in hand at once, at most. Each costs a descriptor here and another in the courier.
const MAX_FLIGHTS: usize = 2048;
/// Descriptors that are left for other things.
const SPARE: usize = 64;
/// What the system keeps from being opened is tried again after so many seconds.
const PAUSE: u64 = 300;

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
    /// Where it is said that there is something new.
    pub wake: &'a Wake,
    /// How long a delivery agent may take for one message; [`PATIENCE`].
    pub patience: Duration,
    /// How long a run waits for more when all is done: a delivery agent is kept that long.
    pub linger: Duration,
}

/// One run.
struct Run<'a> {
    runner: &'a Runner<'a>,
    flights: BTreeMap<u64, Flight>,
    next: u64,
    agents: Vec<Agent>,
    /// Jobs of users that have no agent yet.
    waiting: VecDeque<(String, Job)>,
    /// Who speaks to other hosts, once something is for them.
    courier: Option<Courier>,
    /// There could be none.
    no_courier: bool,
    /// Entries that had their turn in this run. One that was put off may have another when it is
    /// due again: while there is always something new, a run has no end.
    tried: HashSet<Id>,
    /// Whether everything is due, once.
    flush: bool,
    /// Somebody has said that there is something new.
    woken: bool,
    /// When it was last looked for something new.
    looked: Instant,
    started: Instant,
    stopped: bool,
    /// And the courier knows.
    courier_stops: bool,
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
    /// One run over what is due, or with `flush` over everything; and over what comes meanwhile.
    pub fn run(&self, flush: bool) -> io::Result<Ended> {
        let mut run = Run {
            runner: self,
            flights: BTreeMap::new(),
            next: 0,
            agents: Vec::new(),
            waiting: VecDeque::new(),
            courier: None,
            no_courier: false,
            tried: HashSet::new(),
            flush,
            woken: false,
            looked: Instant::now(),
            started: Instant::now(),
            stopped: false,
            courier_stops: false,
        };
        let most = max_flights();
        let mut due = run.look()?;
        let mut taken = false;
        loop {
            if due.is_empty() && run.woken && run.until_look().is_zero() {
                // One delivery that hangs shall not hold up what comes behind it.
                due = run.look_for_new()?;
            }
            while run.flights.len() < most && !run.stopped {
                let Some(place) = due.pop_front() else { break };
                taken |= run.take(&place)?;
            }
            run.hire()?;
            if run.stopped && run.flights.is_empty() {
                return Ok(Ended::Stopped);
            }
            if run.flights.is_empty() {
                if std::mem::take(&mut taken) {
                    due = run.look()?;
                } else if run.linger()? {
                    std::thread::sleep(run.until_look());
                    due = run.look_for_new()?;
                } else {
                    return Ok(if run.stopped { Ended::Stopped } else { Ended::Done });
                }
            } else {
                run.wait()?;
            }
        }
    }

    /// Whether a waiting entry is to be tried. A time further off than any wait can only come from
    /// a clock that was wrong then.
    fn is_due(&self, due: u64, now: u64) -> bool {
        due <= now || due > now.saturating_add(schedule::longest(&self.config.queue).max(PAUSE))
    }

    fn pick_up(&self) {
        let max = self.config.smtp.max_message_size;
        let name = &self.config.hostname;
        for problem in pickup::run(&self.spool, &self.inlet, name, max) {
            let file = problem.file.display();
            self.log.error(&format!("{file}: {}", problem.what));
        }
    }
}

/// As many messages at once as there are descriptors for.
fn max_flights() -> usize {
    process::max_descriptors().saturating_sub(SPARE).div_euclid(3).clamp(1, MAX_FLIGHTS)
}

impl Run<'_> {
    /// What is to be tried now and had no turn yet.
    fn look(&self) -> io::Result<VecDeque<Place>> {
        let runner = self.runner;
        runner.pick_up();
        let now = clock::seconds();
        let mut places = runner.spool.list()?;
        places.retain(|place| match place {
            _ if self.tried.contains(place.id()) => false,
            Place::Work(_) | Place::Incoming(_) => true,
            Place::Deferred(due, _) => self.flush || runner.is_due(*due, now),
            Place::Hold(_) | Place::Drop(_) => false,
        });
        Ok(places.into())
    }

    /// What came meanwhile; cheap, however much waits.
    fn look_for_new(&mut self) -> io::Result<VecDeque<Place>> {
        self.woken = false;
        self.looked = Instant::now();
        self.runner.pick_up();
        let mut places = self.runner.spool.new_entries()?;
        places.retain(|place| !self.tried.contains(place.id()));
        Ok(places.into())
    }

    /// How long it is too early to look for something new.
    fn until_look(&self) -> Duration {
        GATHER.saturating_sub(self.looked.elapsed())
    }

    /// All is done: waits a moment for more. False where none came, or a signal, or the run has
    /// lasted so long that it is time to look for what is due.
    fn linger(&mut self) -> io::Result<bool> {
        let Runner { signals, wake, linger, .. } = self.runner;
        if self.woken || linger.is_zero() || self.started.elapsed() > MAX_LINGER {
            return Ok(self.woken);
        }
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(wake.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = PollTimeout::try_from(linger.as_millis()).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.hear(fds.get(1).and_then(PollFd::any) == Some(true));
        Ok(self.woken && !self.stopped)
    }

    /// Takes what the FIFO and the signals said.
    fn hear(&mut self, woken: bool) {
        if woken {
            self.runner.wake.drain();
            self.woken = true;
        }
        while self.runner.signals.next().is_some() {
            self.stopped = true;
        }
    }

    /// Takes an entry and routes its recipients; false where that can't be now.
    fn take(&mut self, place: &Place) -> io::Result<bool> {
        let Runner { spool, log, config, .. } = self.runner;
        // Whatever is wrong, incoming/ must not keep it: a path unit would start us for ever.
        let entry = match spool.claim(place) {
            Ok(entry) => entry,
            Err(Error::Taken) => return Ok(false),
            Err(Error::Io(error)) => {
                log.error(&format!("{}: {error}; tried again later", place.id()));
                if let Err(error) = spool.postpone(place, clock::seconds() + PAUSE) {
                    log.error(&format!("{}: can't be put off: {error}", place.id()));
                }
                self.tried.insert(place.id().clone());
                return Ok(false);
            }
            Err(Error::Damaged(what)) => {
                log.error(&format!("{}: {what}; moved to corrupt/", place.id()));
                if let Err(error) = spool.set_aside(place) {
                    log.error(&format!("{}: can't be moved to corrupt/: {error}", place.id()));
                }
                self.tried.insert(place.id().clone());
                return Ok(false);
            }
        };
        self.tried.insert(place.id().clone());
        let number = self.next;
        self.next += 1;
        let pending = entry.pending();
        let mut flight = Flight::new(entry);
        let mut local: Vec<(usize, String)> = Vec::new();
        let mut remote: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for recipient in pending {
            let Some(address) = flight.entry.envelope.recipients.get(recipient) else {
                continue;
            };
            match route::route(config, address) {
                Route::Local(name) => {
                    let known = local.iter().find(|(_, other)| other.eq_ignore_ascii_case(name));
                    match known {
                        Some((first, _)) => flight.join(recipient, *first),
                        None => local.push((recipient, name.to_owned())),
                    }
                }
                // With a smarthost, all have the same destination.
                Route::Remote(_) if config.delivery.smarthost.get().is_some() => {
                    remote.entry(String::new()).or_default().push(recipient);
                }
                Route::Remote(domain) => {
                    remote.entry(domain.to_ascii_lowercase()).or_default().push(recipient);
                }
            }
        }
        for (recipient, name) in local {
            let entry = number;
            self.waiting.push_back((name, Job { entry, recipient }));
        }
        for recipients in remote.into_values() {
            if let Some(courier) = self.courier()? {
                courier.give(number, &flight.entry, &recipients);
            } else {
                let text = "delivery to other hosts is not available now";
                for recipient in recipients {
                    let fate = Fate::ours(Outcome::Deferred, "4.3.0", text);
                    flight.settle(self.runner, recipient, fate);
                }
            }
        }
        self.fly(number, flight);
        Ok(true)
    }

    /// The courier; `None` where there can be none in this run.
    fn courier(&mut self) -> io::Result<Option<&mut Courier>> {
        if self.courier.is_none() && !self.no_courier {
            self.courier = launcher::request_courier(self.runner.launcher)?;
            self.no_courier = self.courier.is_none();
        }
        Ok(self.courier.as_mut())
    }

    /// Lets the courier go on, and takes its answers.
    fn pump_courier(&mut self) {
        let Some(courier) = &mut self.courier else {
            return;
        };
        if self.stopped && !std::mem::replace(&mut self.courier_stops, true) {
            courier.stop();
        }
        let mut answers = Vec::new();
        let flights = &self.flights;
        let entry = |number| flights.get(&number).map(|flight: &Flight| &flight.entry);
        if let Err(error) = courier.pump(entry, &mut answers) {
            self.runner.log.error(&format!("delivery to other hosts broke off: {error}"));
            answers.extend(
                self.courier.take().map(|gone| gone.unanswered(&error)).unwrap_or_default(),
            );
        }
        for (entry, recipient, fate) in answers {
            self.answer(Job { entry, recipient }, fate);
        }
    }

    /// Gives waiting jobs to their users' agents; starts agents while there is room.
    fn hire(&mut self) -> io::Result<()> {
        let mut later = VecDeque::new();
        while let Some((name, job)) = self.waiting.pop_front() {
            if let Some(agent) = self.agents.iter_mut().find(|agent| agent.name == name) {
                agent.give(job);
                continue;
            }
            if self.agents.len() >= MAX_AGENTS {
                later.push_back((name, job));
                continue;
            }
            match launcher::request(self.runner.launcher, &name)? {
                Launched::Started(socket) => {
                    let mut agent = Agent::new(&name, socket, &self.runner.config.hostname)?;
                    agent.give(job);
                    self.agents.push(agent);
                }
                // Its mail is never refused (RFC 5321 section 4.5.1); it waits for the operator.
                Launched::NoUser if name.eq_ignore_ascii_case("postmaster") => {
                    let text = "there is no account postmaster to take this; make one";
                    self.answer(job, Fate::local(Outcome::Deferred, "4.3.5", text));
                }
                Launched::NoUser => {
                    let text = "there is no such user here";
                    self.answer(job, Fate::local(Outcome::Failed, "5.1.1", text));
                }
                Launched::Unavailable => {
                    let text = "local delivery is not available now";
                    self.answer(job, Fate::local(Outcome::Deferred, "4.3.0", text));
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
        self.pump_courier();
        // A recipient done stays done, whatever becomes of the others.
        for flight in self.flights.values_mut() {
            flight.record_done(self.runner.log);
        }
        Ok(())
    }

    /// Waits until an agent, a signal or the FIFO has something to say, or an agent had its time.
    fn wait(&mut self) -> io::Result<()> {
        let waiting_only = self.agents.iter().all(Agent::is_idle) && !self.waiting.is_empty();
        if waiting_only || self.flights.is_empty() {
            return Ok(());
        }
        let Runner { signals, wake, patience, .. } = self.runner;
        let mut fds = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            // One byte is enough: what follows it is found by the same look.
            PollFd::new(
                wake.as_fd(),
                if self.woken { PollFlags::empty() } else { PollFlags::POLLIN },
            ),
        ];
        for agent in &self.agents {
            let mut events = PollFlags::POLLIN;
            events.set(PollFlags::POLLOUT, agent.wants_to_write());
            fds.push(PollFd::new(agent.descriptor(), events));
        }
        if let Some(courier) = &self.courier {
            let mut events = PollFlags::POLLIN;
            events.set(PollFlags::POLLOUT, courier.wants_to_write());
            fds.push(PollFd::new(courier.descriptor(), events));
        }
        let busy = self.agents.iter().filter(|agent| !agent.is_idle());
        let look = self.woken.then(|| self.until_look());
        let timeout = busy.map(|agent| agent.left(*patience)).chain(look).min();
        let timeout = timeout.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.hear(fds.get(1).and_then(PollFd::any) == Some(true));
        Ok(())
    }

    /// Lets an agent go on; false where it is gone and its jobs are put off.
    fn pump(&mut self, index: usize) -> bool {
        let Self { agents, flights, .. } = self;
        let Some(agent) = agents.get_mut(index) else {
            return true;
        };
        let mut reports = agent.pump(|number| flights.get(&number).map(|flight| &flight.entry));
        if reports.is_empty() && !agent.is_idle() && agent.left(self.runner.patience).is_zero() {
            reports.push(Report::Gone("local-deliver does not answer".into()));
        }
        for report in reports {
            match report {
                Report::Answered(job, answer) => {
                    self.judge(job, &answer);
                    // What keeps one message from a mailbox keeps the next: they wait together.
                    if !answer.is_positive() && !answer.is_permanent() {
                        let agent = self.agents.get_mut(index);
                        let jobs = agent.map(Agent::take_waiting);
                        for job in jobs.into_iter().flatten() {
                            self.judge(job, &answer);
                        }
                    }
                }
                Report::Gone(why) => {
                    for job in self.agents.swap_remove(index).unfinished() {
                        self.answer(job, Fate::local(Outcome::Deferred, "4.3.0", why.clone()));
                    }
                    return false;
                }
            }
        }
        true
    }

    fn judge(&mut self, job: Job, answer: &Answer) {
        let outcome = match answer.meaning() {
            Meaning::Done => Outcome::Done,
            Meaning::Never => Outcome::Failed,
            Meaning::GoOn | Meaning::Later | Meaning::Nothing => Outcome::Deferred,
        };
        self.answer(job, Fate::local(outcome, &answer.enhanced(), answer.text()));
    }

    fn answer(&mut self, job: Job, fate: Fate) {
        let Some(mut flight) = self.flights.remove(&job.entry) else {
            return;
        };
        flight.settle(self.runner, job.recipient, fate);
        self.fly(job.entry, flight);
    }

    /// Goes on with an entry, or ends its turn where every recipient has an answer.
    fn fly(&mut self, number: u64, flight: Flight) {
        if !flight.is_settled() {
            self.flights.insert(number, flight);
            return;
        }
        let id = flight.entry.id().clone();
        if flight.finish(self.runner) && !self.flush {
            self.tried.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
