//! One destination (a domain, or the smarthost): what waits for it, and its connections.
//!
//! A destination begins with one connection; more are opened once that one has shown that the
//! destination lives, and while something waits that no connection is free for. When no host can
//! be reached, everything that waits has its answer, and so has what comes within the next minute.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::super::fate::Fate;
use super::connection::{Connection, Trouble};
use super::courier::{self, Office};
use super::hosts::{Host, Hosts};
use crate::queue::{Entry, Outcome};
use crate::route::mx::Unroutable;

/// How long an idle connection is kept for more.
const IDLE: Duration = Duration::from_secs(1);
/// Connections in a row that a host may lose without taking a message.
const MAX_LOSSES: usize = 3;
/// How long a destination that could not be reached is not tried again.
const REST: Duration = Duration::from_mins(1);

/// A message for recipients of one destination.
pub struct Parcel {
    /// The job's number.
    pub job: u64,
    /// The message.
    pub entry: Rc<Entry>,
    /// Recipients without an answer.
    pub recipients: Vec<usize>,
    /// Whether a connection was lost under it before.
    pub retried: bool,
}

/// How a host was of no use.
enum Loss {
    /// It could not be spoken to.
    Call(Fate),
    /// The connection was lost while it was spoken to.
    Talk {
        /// What is to be said of it.
        fate: Fate,
        /// Whether it had taken a message before.
        took: bool,
    },
}

/// A destination.
pub struct Destination {
    /// The domain; empty for the smarthost.
    domain: String,
    waiting: RefCell<VecDeque<Parcel>>,
    /// Tasks that call, or hold a connection.
    tasks: Cell<usize>,
    /// Connections that stand.
    open: Cell<usize>,
    /// Of those, the ones that wait for something to do.
    idle: Cell<usize>,
    news: Notify,
    /// Why it can't be reached, and since when.
    down: RefCell<Option<(Instant, Fate)>>,
}

impl Destination {
    /// With nothing to do.
    pub fn new(domain: &str) -> Self {
        Self {
            domain: domain.to_owned(),
            waiting: RefCell::default(),
            tasks: Cell::new(0),
            open: Cell::new(0),
            idle: Cell::new(0),
            news: Notify::new(),
            down: RefCell::new(None),
        }
    }

    /// Whether it can be forgotten.
    pub fn is_idle(&self) -> bool {
        let down = self.down.borrow();
        let rests = down.as_ref().is_some_and(|(since, _)| since.elapsed() < REST);
        self.tasks.get() == 0 && self.waiting.borrow().is_empty() && !rests
    }

    /// Takes something to deliver.
    pub fn take(self: &Rc<Self>, office: &Rc<Office>, parcel: Parcel) {
        let down = self.down.borrow().clone();
        if let Some((since, fate)) = down
            && since.elapsed() < REST
        {
            return office.report(&parcel, &fate);
        }
        self.waiting.borrow_mut().push_back(parcel);
        self.news.notify_one();
        self.grow(office);
    }

    /// Gives back what was not begun, with this answer.
    pub fn give_up(&self, office: &Office, fate: &Fate) {
        let waiting = std::mem::take(&mut *self.waiting.borrow_mut());
        for parcel in waiting {
            office.report(&parcel, fate);
        }
    }

    /// As [`Destination::give_up`], and so for what comes soon.
    fn rest(&self, office: &Office, fate: Fate) {
        self.give_up(office, &fate);
        if fate.untried {
            return;
        }
        self.down.replace(Some((Instant::now(), fate)));
    }

    /// Starts another connection where one is needed.
    fn grow(self: &Rc<Self>, office: &Rc<Office>) {
        let wanted = self.waiting.borrow().len() > self.idle.get();
        let most = office.config.delivery.concurrency_per_domain;
        let lives = self.open.get() > 0 || self.tasks.get() == 0;
        if wanted && lives && self.tasks.get() < most {
            self.tasks.set(self.tasks.get() + 1);
            let (destination, office) = (Rc::clone(self), Rc::clone(office));
            tokio::task::spawn_local(async move {
                destination.work(&office).await;
                destination.tasks.set(destination.tasks.get() - 1);
                if destination.tasks.get() == 0 {
                    // What came while the last connection took its leave.
                    destination.grow(&office);
                }
            });
        }
    }

    /// Calls one host after the other until one takes what waits.
    async fn work(self: &Rc<Self>, office: &Rc<Office>) {
        let reason = match self.try_hosts(office).await {
            Ok(None) => return,
            Ok(Some(fate)) => fate,
            Err(unroutable) => {
                let outcome =
                    if unroutable.is_temporary() { Outcome::Deferred } else { Outcome::Failed };
                Fate::ours(outcome, unroutable.code(), unroutable.to_string())
            }
        };
        // Another connection that stands will take what waits.
        if self.open.get() == 0 {
            self.rest(office, reason);
        }
    }

    /// `None` where there is nothing more to do, else why the last host was of no use.
    async fn try_hosts(self: &Rc<Self>, office: &Rc<Office>) -> Result<Option<Fate>, Unroutable> {
        let mut hosts = Hosts::of(&office.config, &office.resolver, &self.domain).await?;
        let mut last = None;
        while let Some(host) = hosts.next().await? {
            let is_first = last.is_none();
            let mut losses = 0;
            loop {
                if self.waiting.borrow().is_empty() {
                    return Ok(None);
                }
                match self.use_host(office, &host).await {
                    Ok(()) => return Ok(None),
                    Err(Loss::Call(mut fate)) => {
                        // That the best exchange is this host is a mistake; that a worse one is, is
                        // what backup exchanges are for.
                        let ours = fate.outcome == Outcome::Failed;
                        if ours && !is_first {
                            fate.outcome = Outcome::Deferred;
                            fate.code = "4.4.6".into();
                        }
                        last = Some(fate);
                        if ours {
                            return Ok(last);
                        }
                        break;
                    }
                    // The message's fault, perhaps: the others get their chance.
                    Err(Loss::Talk { fate, took }) => {
                        losses = if took { 0 } else { losses + 1 };
                        last = Some(fate);
                        if losses >= MAX_LOSSES {
                            break;
                        }
                    }
                }
            }
        }
        Ok(last)
    }

    /// Calls a host and gives it what waits.
    async fn use_host(self: &Rc<Self>, office: &Rc<Office>, host: &Host) -> Result<(), Loss> {
        let called = Connection::open(host, &office.caller()).await;
        let mut connection = called.map_err(|trouble| Loss::Call(trouble.fate))?;
        self.open.set(self.open.get() + 1);
        self.down.replace(None);
        let done = self.converse(office, &mut connection).await;
        self.open.set(self.open.get() - 1);
        if done.is_ok() {
            connection.quit().await;
        }
        done
    }

    async fn converse(
        self: &Rc<Self>,
        office: &Rc<Office>,
        connection: &mut Connection,
    ) -> Result<(), Loss> {
        let mut took = false;
        while let Some(mut parcel) = self.next(office).await {
            let sent = {
                let _permit = office.talking.acquire().await;
                if office.is_stopping() {
                    office.report(&parcel, &courier::stopping());
                    return Ok(());
                }
                let Parcel { job, entry, recipients, .. } = &parcel;
                let mut left = recipients.clone();
                let sent = connection.deliver(entry, recipients, |recipient, fate| {
                    left.retain(|other| *other != recipient);
                    office.answer(*job, recipient, fate);
                });
                let sent = sent.await;
                parcel.recipients = left;
                sent
            };
            match sent {
                Ok(()) => {
                    took = true;
                    self.grow(office);
                }
                Err(Trouble { fate, unsure }) => {
                    // Once more, by another connection; never where the message may have arrived.
                    if unsure || parcel.retried {
                        office.report(&parcel, &fate);
                    } else if !parcel.recipients.is_empty() {
                        parcel.retried = true;
                        self.waiting.borrow_mut().push_front(parcel);
                    }
                    return Err(Loss::Talk { fate, took });
                }
            }
        }
        Ok(())
    }

    /// The next thing to do; `None` when nothing came for a while.
    async fn next(&self, office: &Office) -> Option<Parcel> {
        loop {
            if office.closing.get() {
                return None;
            }
            let parcel = self.waiting.borrow_mut().pop_front();
            if parcel.is_some() {
                return parcel;
            }
            self.idle.set(self.idle.get() + 1);
            let woken = timeout(IDLE, self.news.notified()).await;
            self.idle.set(self.idle.get() - 1);
            if woken.is_err() {
                return self.waiting.borrow_mut().pop_front();
            }
        }
    }

    /// Wakes idle connections, so that they see that the office closes.
    pub fn wake(&self) {
        self.news.notify_waiters();
    }
}
