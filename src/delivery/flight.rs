//! One entry under delivery: what is known of its recipients, and what follows from that.
//!
//! A recipient ends in one of three ways: done, deferred, or failed, which is told to the sender
//! first. Only then is that recorded, and only when nothing is left is the entry removed; killed in
//! between, a message is delivered, or reported, once more.

use std::collections::BTreeMap;
use std::io;

use super::fate::{Fate, Remote};
use super::report::{self, Action, Recipient, Report};
use super::runner::Runner;
use super::schedule::{self, Next};
use crate::queue::entry::Path;
use crate::queue::{Entry, Envelope, Event, Origin, Outcome};
use crate::smtp::dsn::{EnvelopeId, Ret};
use crate::smtp::{self, Body};
use crate::sys::{Log, clock};

/// What was put off without a try is looked at again after so many seconds.
const UNTRIED: u64 = 60;

/// An entry whose recipients are being delivered to.
pub struct Flight {
    /// The entry.
    pub entry: Entry,
    /// Recipients without an answer.
    open: usize,
    /// Answers that are not recorded yet.
    news: Vec<Event>,
    /// Whether something was put off.
    deferred: bool,
    /// Whether something was put off without a try.
    untried: bool,
    /// A delivery could not be recorded.
    unrecorded: bool,
    /// Recipients that mean the same mailbox as another one, which gets the one copy.
    same: Vec<(usize, usize)>,
    /// What other hosts said of recipients, for the report.
    remotes: BTreeMap<usize, Remote>,
}

impl Flight {
    /// With every pending recipient to be answered for.
    pub fn new(entry: Entry) -> Self {
        Self {
            open: entry.pending().len(),
            entry,
            news: Vec::new(),
            deferred: false,
            untried: false,
            unrecorded: false,
            same: Vec::new(),
            remotes: BTreeMap::new(),
        }
    }

    /// What becomes of `first` becomes of this recipient, too.
    pub fn join(&mut self, recipient: usize, first: usize) {
        self.same.push((recipient, first));
    }

    /// Whether every recipient has an answer.
    pub fn is_settled(&self) -> bool {
        self.open == 0
    }

    /// Notes the fate of a recipient and of those that mean the same mailbox, and logs it.
    pub fn settle(&mut self, runner: &Runner<'_>, recipient: usize, fate: Fate) {
        let same = self.same.iter().filter(|(_, first)| *first == recipient);
        let others: Vec<usize> = same.map(|(other, _)| *other).collect();
        for other in others {
            // Only the one copy's receipt is the delivery agent's to give.
            self.settle_one(
                runner,
                other,
                Fate { receipt: Some(Action::Delivered), ..fate.clone() },
            );
        }
        self.settle_one(runner, recipient, fate);
    }

    fn settle_one(&mut self, runner: &Runner<'_>, recipient: usize, mut fate: Fate) {
        self.open = self.open.saturating_sub(1);
        let (entry, time) = (&self.entry, clock::seconds());
        let envelope = &entry.envelope;
        let attempts = entry.attempts(recipient) + 1;
        let queue = &runner.config.queue;
        if fate.outcome == Outcome::Deferred
            && !fate.untried
            && schedule::next(queue, envelope.arrived, attempts, time) == Next::Expire
        {
            fate.outcome = Outcome::Failed;
            fate.code = "5.4.7".into();
            fate.text = format!("given up after {}: {}", queue.expire_after, fate.text);
        }
        let status = match fate.outcome {
            Outcome::Done => "sent",
            Outcome::Deferred => "deferred",
            Outcome::Failed => "bounced",
            Outcome::Warned => "waiting",
        };
        self.deferred |= fate.outcome == Outcome::Deferred;
        let tls = if fate.tls.is_empty() { String::new() } else { format!(" tls={},", fate.tls) };
        runner.log.info(&format!(
            "{}: to=<{}>, from=<{}>, relay={},{tls} delay={}, dsn={}, status={status} ({})",
            entry.id(),
            Path(envelope.recipients.get(recipient).map(|to| &to.address)),
            Path(envelope.sender.as_ref()),
            fate.relay,
            time.saturating_sub(envelope.arrived),
            fate.code,
            fate.text,
        ));
        if fate.untried {
            self.untried = true;
            return;
        }
        let Fate { outcome, code, text, remote, receipt, .. } = fate;
        if let Some(remote) = remote {
            self.remotes.insert(recipient, remote);
        }
        let event = Event { time, recipient, outcome, code, text };
        if outcome == Outcome::Done
            && let Some(action) = receipt
        {
            self.tell_of_success(runner, action, &event);
        }
        self.news.push(event);
    }

    /// Nobody behind us will tell the sender: we do, where that is wanted (RFC 3461 section 5.2.2).
    /// Where it can't be done, it is no reason to deliver the message again.
    fn tell_of_success(&self, runner: &Runner<'_>, action: Action, event: &Event) {
        if !self.who(event).is_some_and(smtp::Recipient::wants_success) {
            return;
        }
        // Where the mailbox is, is nobody's business.
        let text = if action == Action::Delivered { "delivered" } else { &event.text };
        let event = Event { text: text.to_owned(), ..event.clone() };
        if let Err(error) = self.report(runner, action, &[event]) {
            runner.log.error(&format!(
                "{}: can't make the report to the sender: {error}",
                self.entry.id()
            ));
        }
    }

    fn who(&self, event: &Event) -> Option<&smtp::Recipient> {
        self.entry.envelope.recipients.get(event.recipient)
    }

    /// Records who has the message while others are still waited for.
    pub fn record_done(&mut self, log: &Log) {
        let done = self.news_of(Outcome::Done);
        if done.is_empty() || self.unrecorded {
            return;
        }
        match self.entry.record(&done) {
            Ok(()) => self.news.retain(|event| event.outcome != Outcome::Done),
            // Tried once more at the end.
            Err(error) => {
                self.unrecorded = true;
                log.error(&format!(
                    "{}: can't record a delivery (it may be repeated): {error}",
                    self.entry.id()
                ));
            }
        }
    }

    fn news_of(&self, outcome: Outcome) -> Vec<Event> {
        let of = |event: &&Event| event.outcome == outcome;
        self.news.iter().filter(of).cloned().collect()
    }

    /// Every recipient has an answer: report, record, and put off or remove. False where it could
    /// be neither.
    pub fn finish(mut self, runner: &Runner<'_>) -> bool {
        let Runner { log, spool, config, .. } = runner;
        let id = self.entry.id().clone();
        let mut failed = self.news_of(Outcome::Failed);
        failed.retain(|event| self.who(event).is_some_and(smtp::Recipient::wants_failure));
        if !failed.is_empty()
            && let Err(error) = self.report(runner, Action::Failed, &failed)
        {
            // Nobody knows yet that they failed: they are tried again rather than forgotten.
            log.error(&format!("{id}: can't make the report to the sender: {error}"));
            for event in &mut self.news {
                if event.outcome == Outcome::Failed {
                    event.outcome = Outcome::Deferred;
                    self.deferred = true;
                }
            }
        }
        if !self.deferred {
            match spool.remove(&self.entry) {
                Ok(()) => {
                    log.info(&format!("{id}: removed"));
                    return true;
                }
                Err(error) => log.error(&format!("{id}: can't be removed: {error}")),
            }
        }
        self.warn(runner);
        let entry = &mut self.entry;
        if let Err(error) = entry.record(&self.news) {
            log.error(&format!("{id}: can't record what happened: {error}"));
        }
        let now = clock::seconds();
        let due = self
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
            .chain(self.untried.then_some(now + UNTRIED))
            .min()
            .unwrap_or(now + 300);
        if let Err(error) = spool.defer(entry, due.max(now + 1)) {
            log.error(&format!("{id}: can't be put off: {error}"));
            return false;
        }
        true
    }

    /// Tells the sender once that the message still waits, when it has waited for long.
    fn warn(&mut self, runner: &Runner<'_>) {
        let Envelope { arrived, sender, .. } = &self.entry.envelope;
        let after = runner.config.queue.warn_after.seconds();
        let mut history = self.entry.history.iter();
        let told = history.any(|event| event.outcome == Outcome::Warned);
        if told || clock::seconds() < arrived.saturating_add(after) {
            return;
        }
        let mut waiting = self.news_of(Outcome::Deferred);
        waiting.retain(|event| self.who(event).is_some_and(smtp::Recipient::wants_delay));
        if sender.is_none() || waiting.is_empty() {
            return;
        }
        match self.report(runner, Action::Delayed, &waiting) {
            Ok(()) => {
                for event in &mut waiting {
                    event.outcome = Outcome::Warned;
                }
                self.news.append(&mut waiting);
            }
            // The next attempt tells.
            Err(error) => runner.log.error(&format!(
                "{}: can't make the report to the sender: {error}",
                self.entry.id()
            )),
        }
    }

    /// Tells the sender, durably, before anything of it is recorded.
    fn report(&self, runner: &Runner<'_>, action: Action, failed: &[Event]) -> io::Result<()> {
        let Runner { log, config, inlet, .. } = runner;
        let entry = &self.entry;
        let Some(sender) = &entry.envelope.sender else {
            log.warning(&format!("{}: a report can't be delivered; dropped", entry.id()));
            return Ok(());
        };
        // The sender wrote to the list, and may not know its members.
        let list = match &entry.envelope.origin {
            Origin::Alias(list) => format!(" (expanded from <{list}>)"),
            _ => String::new(),
        };
        let recipients: Vec<Recipient> = failed
            .iter()
            .filter_map(|event| {
                let who = self.who(event)?;
                let original = who.original.as_ref();
                Some(Recipient {
                    address: who.address.clone(),
                    original: original.map(|to| format!("{};{}", to.kind(), to.address())),
                    code: event.code.clone(),
                    text: format!("{}{list}", event.text),
                    remote: self.remotes.get(&event.recipient).cloned(),
                })
            })
            .collect();
        // RET speaks of failures only (RFC 3461 section 4.3), and what is no text is not sent back.
        let envelope = &entry.envelope;
        let whole = action == Action::Failed
            && envelope.ret == Some(Ret::Full)
            && envelope.body != Body::BinaryMime
            && entry.size() <= report::MAX_WHOLE as u64;
        let most = if whole { report::MAX_WHOLE } else { report::MAX_HEADER };
        let text = self.start_of_text(most)?;
        let report = Report {
            hostname: &config.hostname,
            id: Some(entry.id()),
            envelope_id: envelope.envelope_id.as_ref().map(EnvelopeId::as_str),
            sender,
            arrived: entry.envelope.arrived,
            action,
            recipients: &recipients,
            text: &text,
            whole,
        };
        let id = report.enqueue(inlet)?;
        let what = match action {
            Action::Failed => "failure",
            Action::Delayed => "delay",
            Action::Delivered | Action::Relayed | Action::Expanded => "delivery",
        };
        log.info(&format!("{}: sender told of the {what}: {id}", entry.id()));
        Ok(())
    }

    /// The message's text, or its first so many bytes.
    fn start_of_text(&self, most: usize) -> io::Result<Vec<u8>> {
        let size = usize::try_from(self.entry.size()).unwrap_or(usize::MAX);
        let mut text = vec![0; most.min(size)];
        let mut length = 0;
        while let Some(room) = text.get_mut(length..).filter(|room| !room.is_empty()) {
            match self.entry.read_content(length as u64, room)? {
                0 => break,
                count => length += count,
            }
        }
        text.truncate(length);
        Ok(text)
    }
}
