//! The runner: takes what is due from the queue and gives it to delivery agents, many at once.
//!
//! It is the worker of mta-queue: the queue's owner, without any other rights. What becomes of an
//! entry that it has taken is [`Flight`]'s to say.

mod expand;
mod waiting;

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::io;
use std::time::{Duration, Instant};

use super::agent::{Agent, Job, Report};
use super::fate::Fate;
use super::flight::Flight;
use super::launcher::{self, Launched};
use super::remote::Courier;
use super::schedule;
use crate::config::Config;
use crate::message::Address;
use crate::queue::spool::Error;
use crate::queue::{Id, Inlet, Origin, Outcome, Place, Spool, Wake, pickup};
use crate::route::{self, Route, Tables};
use crate::smtp::Recipient;
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
/// Descriptors that a runner and its courier ask for.
pub const MAX_DESCRIPTORS: u64 = 16_384;
/// Messages in hand at once, at most. Each costs a descriptor here and another in the courier.
const MAX_FLIGHTS: usize = 4096;
/// The agent for the commands and files of aliases; no account has such a name.
const PROGRAMS: &str = "/";
/// Descriptors that are left for other things.
pub const SPARE: usize = 64;
/// What becomes due while something is in hand is looked for so often.
const LOOK_AGAIN: Duration = Duration::from_mins(1);
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
    /// Aliases and virtual users.
    tables: Tables,
    flights: BTreeMap<u64, Flight>,
    next: u64,
    agents: Vec<Agent>,
    /// Jobs of users that have no agent yet.
    waiting: VecDeque<(String, Job)>,
    /// Who speaks to other hosts, once something is for them.
    courier: Option<Courier>,
    /// There could be none.
    no_courier: bool,
    /// The entries that it has something of.
    sent_on: HashSet<u64>,
    /// What is for other hosts only, and has to wait until there are fewer of those.
    parked: VecDeque<Place>,
    /// Entries that had their turn in this run. One that was put off may have another when it is
    /// due again: while there is always something new, a run has no end.
    tried: HashSet<Id>,
    /// Whether everything is due, once.
    flush: bool,
    /// Somebody has said that there is something new.
    woken: bool,
    /// When it was last looked for something new.
    looked: Instant,
    /// When it was last looked for everything that is due.
    looked_at_all: Instant,
    started: Instant,
    stopped: bool,
    /// And the courier knows.
    courier_stops: bool,
    /// At the last look drop/ had something that can't be brought in now.
    left_in_drop: bool,
    /// An entry can neither be tried now nor be put elsewhere.
    left_in_incoming: bool,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All that was due was tried.
    Done,
    /// So it was, but incoming/ or drop/ could not be emptied: who starts a runner where there is
    /// something in them must not start the next one at once.
    Left,
    /// A signal stopped it.
    Stopped,
}

impl Runner<'_> {
    /// One run over what is due, or with `flush` over everything; and over what comes meanwhile.
    pub fn run(&self, flush: bool) -> io::Result<Ended> {
        let mut run = Run {
            runner: self,
            tables: Tables::of(self.config),
            flights: BTreeMap::new(),
            next: 0,
            agents: Vec::new(),
            waiting: VecDeque::new(),
            courier: None,
            no_courier: false,
            sent_on: HashSet::new(),
            parked: VecDeque::new(),
            tried: HashSet::new(),
            flush,
            woken: false,
            looked: Instant::now(),
            looked_at_all: Instant::now(),
            started: Instant::now(),
            stopped: false,
            courier_stops: false,
            left_in_drop: false,
            left_in_incoming: false,
        };
        let most = max_flights();
        let most_remote = (most / 2).max(1);
        let mut due = run.look()?;
        let mut taken = false;
        loop {
            if due.is_empty() && run.woken && run.until_look().is_zero() {
                // One delivery that hangs shall not hold up what comes behind it.
                due = run.look_for_new()?;
            } else if due.is_empty() && run.until_look_at_all().is_zero() {
                // Nor what becomes due meanwhile.
                due = run.look()?;
            }
            while run.flights.len() < most && !run.stopped {
                let Some(place) = run.next_place(&mut due, most_remote) else { break };
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
                    return Ok(match (run.stopped, run.left_in_drop || run.left_in_incoming) {
                        (true, _) => Ended::Stopped,
                        (false, true) => Ended::Left,
                        (false, false) => Ended::Done,
                    });
                }
            } else if run.flights.len() >= most || !run.can_take(&due, most_remote) {
                run.wait(due.is_empty())?;
            }
        }
    }

    /// Whether a waiting entry is to be tried. A time further off than any wait can only come from
    /// a clock that was wrong then.
    fn is_due(&self, due: u64, now: u64) -> bool {
        due <= now || due > now.saturating_add(schedule::longest(&self.config.queue).max(PAUSE))
    }

    /// Brings in what sendmail wrote; true where something of it has to stay there.
    fn pick_up(&self) -> bool {
        let max = self.config.smtp.max_message_size;
        let name = &self.config.hostname;
        let mut left = false;
        for problem in pickup::run(&self.spool, &self.inlet, name, max) {
            let file = problem.file.display();
            self.log.error(&format!("{file}: {}", problem.what));
            left |= self.spool.root().join(&problem.file).symlink_metadata().is_ok();
        }
        left
    }
}

/// As many messages at once as there are descriptors for.
fn max_flights() -> usize {
    process::max_descriptors().saturating_sub(SPARE).div_euclid(3).clamp(1, MAX_FLIGHTS)
}

impl Run<'_> {
    /// What is to be tried now and had no turn yet.
    fn look(&mut self) -> io::Result<VecDeque<Place>> {
        let runner = self.runner;
        self.looked_at_all = Instant::now();
        self.left_in_drop = runner.pick_up();
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
        self.left_in_drop = self.runner.pick_up();
        let mut places = self.runner.spool.new_entries()?;
        places.retain(|place| !self.tried.contains(place.id()));
        Ok(places.into())
    }

    /// Whether [`Run::next_place`] has something. It is asked again before waiting: the last answers
    /// made room, and those that are left may say nothing for a long time.
    fn can_take(&self, due: &VecDeque<Place>, most: usize) -> bool {
        let parked = self.sent_on.len() < most && !self.parked.is_empty();
        !self.stopped && (parked || !due.is_empty())
    }

    /// The next entry to take. With `most` entries under way to other hosts, what is only for
    /// others waits aside: slow hosts must not keep this host's own mail from its users.
    fn next_place(&mut self, due: &mut VecDeque<Place>, most: usize) -> Option<Place> {
        if self.sent_on.len() < most {
            return self.parked.pop_front().or_else(|| due.pop_front());
        }
        while let Some(place) = due.pop_front() {
            if !self.is_for_others_only(&place) {
                return Some(place);
            }
            self.tried.insert(place.id().clone());
            self.parked.push_back(place);
        }
        None
    }

    fn is_for_others_only(&self, place: &Place) -> bool {
        let Runner { spool, config, .. } = self.runner;
        spool.open(place).is_ok_and(|entry| {
            let is_remote = |to: &Recipient| {
                matches!(route::route(config, &to.address), Route::Remote(_))
                    && !self.tables.is_virtual_domain(to.address.domain())
            };
            entry.envelope.recipients.iter().all(is_remote)
        })
    }

    /// Takes an entry and routes its recipients; false where that can't be now.
    fn take(&mut self, place: &Place) -> io::Result<bool> {
        let Runner { spool, log, .. } = self.runner;
        // Whatever is wrong, incoming/ must not keep it: a path unit would start us for ever.
        let entry = match spool.claim(place) {
            Ok(entry) => entry,
            Err(Error::Taken) => return Ok(false),
            Err(Error::Io(error)) => {
                log.error(&format!("{}: {error}; tried again later", place.id()));
                if let Err(error) = spool.postpone(place, clock::seconds() + PAUSE) {
                    log.error(&format!("{}: can't be put off: {error}", place.id()));
                    self.left_in_incoming = true;
                }
                self.tried.insert(place.id().clone());
                return Ok(false);
            }
            Err(Error::Damaged(what)) => {
                log.error(&format!("{}: {what}; moved to corrupt/", place.id()));
                if let Err(error) = spool.set_aside(place) {
                    log.error(&format!("{}: can't be moved to corrupt/: {error}", place.id()));
                    self.left_in_incoming = true;
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
            let Some(to) = flight.entry.envelope.recipients.get(recipient).cloned() else {
                continue;
            };
            if flight.entry.envelope.origin == Origin::Programs {
                let entry = number;
                self.waiting.push_back((PROGRAMS.into(), Job { entry, recipient }));
            } else if let Some(fate) = self.follow(&flight, &to) {
                flight.settle(self.runner, recipient, fate);
            } else {
                self.sort(&mut flight, recipient, &to.address, &mut local, &mut remote);
            }
        }
        for (recipient, name) in local {
            let entry = number;
            self.waiting.push_back((name, Job { entry, recipient }));
        }
        for recipients in remote.into_values() {
            if let Some(courier) = self.courier()? {
                courier.give(number, &flight.entry, &recipients);
                self.sent_on.insert(number);
            } else {
                let text = "delivery to other hosts is not available now";
                for recipient in recipients {
                    flight.settle(self.runner, recipient, Fate::untried("4.3.0", text));
                }
            }
        }
        self.fly(number, flight);
        Ok(true)
    }

    /// Puts a recipient to those of the same mailbox or the same destination.
    fn sort(
        &self,
        flight: &mut Flight,
        recipient: usize,
        address: &Address,
        local: &mut Vec<(usize, String)>,
        remote: &mut BTreeMap<String, Vec<usize>>,
    ) {
        let config = self.runner.config;
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
            let launched = if name == PROGRAMS {
                launcher::request_programs(self.runner.launcher)?
            } else {
                launcher::request(self.runner.launcher, &name)?
            };
            match launched {
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
        self.sent_on.remove(&number);
        let id = flight.entry.id().clone();
        if flight.finish(self.runner) && !self.flush {
            self.tried.remove(&id);
        }
    }
}

#[cfg(test)]
mod tests;
