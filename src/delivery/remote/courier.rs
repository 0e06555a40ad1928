//! The courier process: takes jobs from the worker and reports what became of them.
//!
//! One thread, one tokio runtime; a task for each connection. It has no rights and no file but
//! those that it is handed.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc};

use super::super::fate::Fate;
use super::super::runner::MAX_DESCRIPTORS;
use super::connection::Caller;
use super::destination::{Destination, Parcel};
use super::record::{Job, MAX, Order, Report};
use crate::config::Config;
use crate::net::dns::{self, Resolver};
use crate::net::tls;
use crate::queue::{Entry, Id, spool};
use crate::smtp::client::Credentials;
use crate::sys::channel::{AsyncChannel, Channel};
use crate::sys::jail::Jail;
use crate::sys::{Log, process};

/// Hosts that are being called at once, for each delivery at once: a host that is dead keeps no
/// living one waiting.
const DIALING: usize = 4;
/// How long the connections have for taking their leave.
const LEAVE: Duration = Duration::from_secs(2);
/// The port where TLS begins before the first word (RFC 8314 section 7.3).
const SUBMISSIONS: u16 = 465;
/// Destinations that are remembered without a use.
const MAX_REMEMBERED: usize = 1000;

/// What all destinations share.
pub struct Office {
    /// The configuration.
    pub config: Config,
    /// Who is asked for hosts.
    pub resolver: Resolver,
    tls: tls::client::Client,
    credentials: Option<Credentials>,
    /// Calls that may be made at once.
    dialing: Semaphore,
    /// Deliveries at once.
    pub talking: Semaphore,
    /// The worker has gone: connections take their leave.
    pub closing: Cell<bool>,
    /// Nothing new is begun.
    stopped: Cell<bool>,
    /// Recipients whose fate the worker waits for.
    owed: Cell<usize>,
    reports: mpsc::UnboundedSender<Report>,
    /// Messages of which a job is in hand: each is read once, whatever its destinations are.
    entries: RefCell<HashMap<Id, Weak<Entry>>>,
    destinations: RefCell<HashMap<String, Rc<Destination>>>,
}

/// Runs the courier until the worker has gone. The caller is a fresh process that has become
/// somebody without rights; `credentials` is the text of the file with the smarthost's password.
/// The log is for what goes wrong until it is locked up; after that it would be a way out.
pub fn run(
    config: &Config,
    credentials: Option<&[u8]>,
    worker: Channel,
    log: Log,
) -> io::Result<()> {
    let (reports, outbox) = mpsc::unbounded_channel();
    let opened = Office::open(config, credentials, reports).and_then(|office| {
        let mut ports = dns::ports(&config.dns);
        ports.push(config.delivery.port);
        ports.extend(config.delivery.smarthost.get().map(|(_, port)| port));
        Jail::for_callers(&ports)?.enter(None, None)?;
        Ok(office)
    });
    let office = match opened {
        Ok(office) => office,
        Err(error) => {
            log.error(&format!("delivery to other hosts: {error}"));
            return Err(error);
        }
    };
    drop(log);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tasks = tokio::task::LocalSet::new();
    tasks.block_on(&runtime, async {
        let worker = AsyncChannel::new(worker)?;
        tokio::select! {
            done = office.take_orders(&worker) => done?,
            done = send_reports(&worker, outbox) => return done,
        }
        office.closing.set(true);
        for destination in office.destinations.borrow().values() {
            destination.wake();
        }
        Ok(())
    })?;
    // A worker that was killed writes nothing down any more. Whatever was sent from now on would be
    // sent a second time by the next one.
    if office.owed.get() > 0 {
        return Ok(());
    }
    // What is still being said gets a moment; a host that does not listen gets no more.
    runtime.block_on(async { tokio::time::timeout(LEAVE, tasks).await }).ok();
    Ok(())
}

impl Office {
    /// Reads what there is to be read, as long as files can be opened.
    fn open(
        config: &Config,
        credentials: Option<&[u8]>,
        reports: mpsc::UnboundedSender<Report>,
    ) -> io::Result<Rc<Self>> {
        process::raise_max_descriptors(MAX_DESCRIPTORS)?;
        let permits = |count: usize| Semaphore::new(count.min(Semaphore::MAX_PERMITS));
        let deliveries = config.delivery.concurrency;
        Ok(Rc::new(Self {
            config: config.clone(),
            resolver: Resolver::new(&config.dns)?,
            tls: tls::client::Client::load().map_err(io::Error::other)?,
            credentials: credentials.map(parse_credentials).transpose()?,
            dialing: permits(deliveries.saturating_mul(DIALING)),
            talking: permits(deliveries),
            closing: Cell::new(false),
            stopped: Cell::new(false),
            owed: Cell::new(0),
            reports,
            entries: RefCell::default(),
            destinations: RefCell::default(),
        }))
    }

    /// Whether nothing new is begun any more.
    pub fn is_stopping(&self) -> bool {
        self.stopped.get() || self.closing.get()
    }

    /// Takes orders until the worker has gone.
    async fn take_orders(self: &Rc<Self>, worker: &AsyncChannel) -> io::Result<()> {
        let mut record = [0; MAX];
        loop {
            let (length, file) = worker.receive_with(&mut record).await?;
            if length == 0 {
                return Ok(());
            }
            let order = record.get(..length).and_then(Order::parse);
            if let Some(Order::Deliver(job)) = &order {
                self.owed.set(self.owed.get() + job.recipients.len());
            }
            match (order, file) {
                (Some(Order::Deliver(job)), Some(file)) => self.take(job, file),
                (Some(Order::Deliver(job)), None) => self.refuse(job, "too many open files"),
                (Some(Order::Stop), None) => self.stop(),
                _ => return Err(io::Error::other("a record without sense")),
            }
        }
    }

    fn take(self: &Rc<Self>, job: Job, file: OwnedFd) {
        let entry = match self.entry(&job.id, file) {
            Ok(entry) => entry,
            Err(error) => return self.refuse(job, &format!("{error:?}")),
        };
        let Job { number, recipients, .. } = &job;
        let known = entry.envelope.recipients.len();
        if recipients.iter().any(|recipient| *recipient >= known) {
            return self.refuse(job, "it has fewer recipients");
        }
        let first = recipients.first().and_then(|first| entry.envelope.recipients.get(*first));
        let domain = match first {
            Some(first) if self.config.delivery.smarthost.get().is_none() => {
                first.address.domain().to_ascii_lowercase()
            }
            _ => String::new(),
        };
        let parcel = Parcel { job: *number, entry, recipients: job.recipients, retried: false };
        if self.stopped.get() {
            return self.report(&parcel, &stopping());
        }
        let destination = self.destination(&domain);
        destination.take(self, parcel);
    }

    fn entry(&self, id: &Id, file: OwnedFd) -> Result<Rc<Entry>, spool::Error> {
        let mut entries = self.entries.borrow_mut();
        if let Some(entry) = entries.get(id).and_then(Weak::upgrade) {
            return Ok(entry);
        }
        if entries.len() > MAX_REMEMBERED {
            entries.retain(|_, entry| entry.strong_count() > 0);
        }
        let entry = Rc::new(Entry::shared(file, id.clone())?);
        entries.insert(id.clone(), Rc::downgrade(&entry));
        Ok(entry)
    }

    /// Gives back a job whose file is not there to be read.
    fn refuse(&self, job: Job, why: &str) {
        let text = format!("the queue file can't be read: {why}");
        let fate = Fate::untried("4.3.0", text);
        for recipient in job.recipients {
            self.answer(job.number, recipient, fate.clone());
        }
    }

    fn destination(&self, domain: &str) -> Rc<Destination> {
        let mut all = self.destinations.borrow_mut();
        if all.len() > MAX_REMEMBERED {
            all.retain(|_, destination| !destination.is_idle());
        }
        let new = || Rc::new(Destination::new(domain));
        Rc::clone(all.entry(domain.to_owned()).or_insert_with(new))
    }

    /// Gives back what was not begun; what is being sent goes on.
    fn stop(&self) {
        self.stopped.set(true);
        for destination in self.destinations.borrow().values() {
            destination.give_up(self, &stopping());
        }
    }

    /// Reports one recipient's fate.
    pub fn answer(&self, job: u64, recipient: usize, fate: Fate) {
        self.owed.set(self.owed.get().saturating_sub(1));
        // Without a receiver the worker has gone, and nobody wants to know.
        let _ = self.reports.send(Report { job, recipient, fate });
    }

    /// Reports the same fate of all recipients of a parcel that have none.
    pub fn report(&self, parcel: &Parcel, fate: &Fate) {
        for recipient in &parcel.recipients {
            self.answer(parcel.job, *recipient, fate.clone());
        }
    }

    /// How we introduce ourselves.
    pub fn caller(&self) -> Caller<'_> {
        let smarthost = self.config.delivery.smarthost.get();
        Caller {
            hostname: &self.config.hostname,
            dialing: &self.dialing,
            tls: &self.tls,
            credentials: self.credentials.as_ref(),
            to_smarthost: smarthost.is_some(),
            implicit_tls: smarthost.is_some_and(|(_, port)| port == SUBMISSIONS),
        }
    }
}

/// What becomes of mail that was not begun when the runner is told to stop.
pub fn stopping() -> Fate {
    Fate::untried("4.3.2", "the runner stops")
}

async fn send_reports(
    worker: &AsyncChannel,
    mut outbox: mpsc::UnboundedReceiver<Report>,
) -> io::Result<()> {
    while let Some(report) = outbox.recv().await {
        let record = report.encode();
        worker.send(&record).await?;
    }
    Ok(())
}

/// `user:password`, one line.
fn parse_credentials(text: &[u8]) -> io::Result<Credentials> {
    let broken = || io::Error::other("[delivery] credentials: one line user:password is wanted");
    let text = std::str::from_utf8(text).map_err(|_| broken())?;
    let line = text.strip_suffix('\n').unwrap_or(text);
    match line.split_once(':') {
        Some((user, password)) if !user.is_empty() && !line.contains(['\n', '\r', '\0']) => {
            Ok(Credentials { user: user.to_owned(), password: password.to_owned() })
        }
        _ => Err(broken()),
    }
}
