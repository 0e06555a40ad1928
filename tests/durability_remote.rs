//! Mail to other hosts when mta-queue is killed, or the power cut, at any moment: no message is
//! lost, and one comes twice only where nobody could know that it had come.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::fs;
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use support::entry;
use support::exchange::{Act, Exchange, Script, Step, Turn};
use support::kill::{Attempt, age_locks, kill_at_each};
use support::need;
use support::peer::Peer;
use support::powercut::Recorder;
use support::run::{Server, run};
use support::site::{QUEUE, Site};

/// Who sends, and is at home here.
const SENDER: &str = "alice@smkwlab.net";
/// Is accepted.
const WELCOME: &str = "welcome@far.test";
/// Is put off at RCPT, until the exchange is at ease.
const LATE: &str = "late@far.test";
/// Does not exist.
const WRONG: &str = "wrong@far.test";
/// Is accepted, but a message for it is put off at its end, until the exchange is at ease.
const FULL: &str = "full@far.test";

fn message() -> Vec<u8> {
    let mut text = b"From: alice@smkwlab.net\nSubject: durable\n\n.\n..\nFrom here on\n".to_vec();
    for number in 0..150 {
        text.extend_from_slice(format!("line {number} of the text that must last\n").as_bytes());
    }
    text
}

/// The message as it must arrive, behind the fields that we put on top.
fn sent() -> Vec<u8> {
    String::from_utf8_lossy(&message()).replace('\n', "\r\n").into_bytes()
}

type Interruption = (Step, Box<dyn FnOnce() + Send>);

/// A host whose mail for elsewhere goes to one exchange.
struct Outside {
    site: Site,
    exchange: Exchange,
    /// Whether the exchange is at ease.
    at_ease: Arc<AtomicBool>,
    /// What the exchange does once, when it comes to this step.
    interruption: Arc<Mutex<Option<Interruption>>>,
}

impl Outside {
    /// With a message from [`SENDER`] in the queue for each of these lists of recipients.
    fn new(messages: &[&[&str]]) -> Self {
        let at_ease = Arc::<AtomicBool>::default();
        let now = Arc::clone(&at_ease);
        let interruption = Arc::<Mutex<Option<Interruption>>>::default();
        let planned = Arc::clone(&interruption);
        let rule = move |turn: &Turn<'_>| {
            let interruption = planned.lock().unwrap().take_if(|(step, _)| *step == turn.step);
            if let Some((_, interrupt)) = interruption {
                interrupt();
                // What is left of it has time for doing more than it should.
                return Act::After(Duration::from_millis(200), Box::new(Act::Polite));
            }
            let busy = !now.load(Ordering::SeqCst);
            let for_full = turn.recipients.iter().any(|to| to == FULL);
            match turn.step {
                Step::Rcpt if turn.line.contains(WRONG) => Act::reply("550 5.1.1 nobody here"),
                Step::Rcpt if turn.line.contains(LATE) && busy => Act::reply("451 4.2.0 later"),
                Step::End if for_full && busy => Act::reply("452 4.3.1 no room now"),
                _ => Act::Polite,
            }
        };
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let exchange = Exchange::start(listener, Script::polite().rule(rule));
        let host = format!("\"[127.0.0.1]:{}\"", exchange.address().port());
        let site = Site::plan().in_memory().set("delivery", "smarthost", &host).build();
        let (server, mut peer) = site.session("smtpd");
        peer.greet();
        for to in messages {
            accept(&mut peer, to);
        }
        peer.command("QUIT");
        drop(peer);
        server.join();
        Self { site, exchange, at_ease, interruption }
    }

    /// Runs the program; at this step the exchange does `end` to it.
    fn run_until(&self, step: Step, end: fn(Pid)) -> ExitStatus {
        let mut command = self.mta_queue();
        let mut interruption = self.interruption.lock().unwrap();
        let server = Server::start(command.stdin(Stdio::null()).stdout(Stdio::null()));
        let pid = Pid::from_raw(server.pid());
        *interruption = Some((step, Box::new(move || end(pid))));
        drop(interruption);
        server.join().0
    }

    /// The program that is killed. It knows no certificate authorities: reading a hundred files
    /// of theirs would be most of the calls that it makes.
    fn mta_queue(&self) -> Command {
        let mut command = self.site.command("mta-queue");
        command.env("SSL_CERT_FILE", "/dev/null").env_remove("SSL_CERT_DIR");
        command
    }

    /// Whether the queue's files say that this recipient needs nothing more.
    fn is_settled(&self, recipient: &str) -> bool {
        let entries = QUEUE.into_iter().flat_map(|directory| {
            let names = self.site.queued_in(directory).into_iter();
            names.map(move |name| self.site.queue().join(directory).join(name))
        });
        entries.map(|path| entry::read(&path).unwrap()).all(|entry| entry.is_settled(recipient))
    }

    /// How often the message reached this recipient, or how it is damaged.
    fn copies(&self, recipient: &str) -> Result<usize, String> {
        let messages = self.exchange.messages();
        let whole = sent();
        if let Some(torn) = messages.iter().find(|message| !message.text.ends_with(&whole)) {
            return Err(format!("a torn message: {}", torn.text.escape_ascii()));
        }
        Ok(messages
            .iter()
            .flat_map(|message| &message.recipients)
            .filter(|to| *to == recipient)
            .count())
    }

    /// Runs the queue until it is empty, with the exchange at ease.
    fn finish(&self) -> Result<(), String> {
        self.at_ease.store(true, Ordering::SeqCst);
        let mut last = None;
        // A report of what could not be delivered is a message of its own.
        for _ in 0..3 {
            age_locks(&self.site);
            let ran = self.site.mta_queue(&["--flush"]);
            if ran.code() != Some(0) {
                return Err(format!("the next run: {ran}"));
            }
            if self.site.queued().is_empty() {
                return Ok(());
            }
            last = Some(ran);
        }
        Err(format!("{:?} is left: {last:?}", self.site.queued()))
    }

    /// How many reports the sender has that name who does not exist.
    fn reports(&self) -> usize {
        let messages = self.site.messages("alice");
        messages.iter().filter(|message| message.text().contains(WRONG)).count()
    }

    /// The same, where the sender's mailbox has nothing else.
    fn nothing_but_reports(&self) -> Result<usize, String> {
        let (reports, all) = (self.reports(), self.site.messages("alice"));
        if reports == all.len() { Ok(reports) } else { Err(format!("the sender has {all:?}")) }
    }
}

/// Hands smtpd a message that it must take.
fn accept(peer: &mut Peer, to: &[&str]) {
    let reply = peer.mail(SENDER, to, &message());
    assert!(reply.starts_with("250 2.0.0 "), "{reply}");
}

fn expect(what: &str, count: usize, right: &RangeInclusive<usize>) -> Result<(), String> {
    if right.contains(&count) { Ok(()) } else { Err(format!("{what}: {count}, not {right:?}")) }
}

/// Once, or twice where it may have happened without having been written down.
fn at_most_twice(settled: bool) -> RangeInclusive<usize> {
    1..=if settled { 1 } else { 2 }
}

#[test]
fn mta_queue_killed_anywhere_sends_with_the_next_run() {
    if !need("strace") {
        return;
    }
    kill_at_each("mta-queue, sending", &["close", "fcntl"], |attempt: &Attempt| {
        let host = Outside::new(&[&[WELCOME, "second@far.test"], &["third@far.test"]]);
        let ran = run(&mut attempt.wrap(&host.mta_queue()), b"");
        if attempt.is_whole() && !host.site.queued().is_empty() {
            return Err(format!("it did not send: {ran}"));
        }
        let all = [WELCOME, "second@far.test", "third@far.test"];
        let settled = all.map(|to| host.is_settled(to));
        host.finish()?;
        for (to, settled) in all.into_iter().zip(settled) {
            let right = if attempt.is_whole() { 1..=1 } else { at_most_twice(settled) };
            expect(to, host.copies(to)?, &right)?;
        }
        expect("reports", host.nothing_but_reports()?, &(0..=0))
    });
}

#[test]
fn mta_queue_killed_anywhere_defers_and_reports_with_the_next_run() {
    if !need("strace") {
        return;
    }
    kill_at_each("mta-queue, refused", &["close", "fcntl"], |attempt: &Attempt| {
        let host = Outside::new(&[&[WELCOME, LATE, WRONG], &[FULL]]);
        let ran = run(&mut attempt.wrap(&host.mta_queue()), b"");
        let settled = |to| host.is_settled(to);
        let (welcome, wrong) = (settled(WELCOME), settled(WRONG));
        // Of the report in turn it may not have been written down that it was delivered.
        let report = settled(SENDER);
        if attempt.is_whole() {
            let found = (welcome, wrong, settled(LATE), settled(FULL));
            if found != (true, true, false, false) {
                return Err(format!("{found:?}: {ran}"));
            }
        }
        host.finish()?;
        expect("welcome", host.copies(WELCOME)?, &at_most_twice(welcome))?;
        expect("late", host.copies(LATE)?, &(1..=1))?;
        expect("full", host.copies(FULL)?, &(1..=1))?;
        expect("wrong", host.copies(WRONG)?, &(0..=0))?;
        expect("reports", host.nothing_but_reports()?, &at_most_twice(wrong && report))
    });
}

/// Three messages, of which the program is stopped in the first one; what must be true then, and
/// after the next run.
fn stopped_at_each_step(end: fn(Pid), right: fn(ExitStatus) -> bool) {
    for step in [Step::Connect, Step::Ehlo, Step::Mail, Step::Rcpt, Step::Data, Step::End] {
        let all = [WELCOME, "second@far.test", "third@far.test"];
        let host = Outside::new(&[&all[..1], &all[1..2], &all[2..]]);
        let status = host.run_until(step, end);
        assert!(right(status), "{step:?}: {status}");
        host.finish().unwrap();
        host.exchange.wait_until_idle();
        let copies: Vec<usize> = all.iter().map(|to| host.copies(to).unwrap()).collect();
        // Only of the one whose text was there it can't be known whether it came.
        let most = if step == Step::End { 4 } else { 3 };
        let sum = copies.iter().sum::<usize>();
        assert!(sum <= most && copies.iter().all(|count| *count >= 1), "{step:?}: {copies:?}");
    }
}

#[test]
fn what_a_dead_runner_had_not_sent_whole_is_sent_by_the_next_one_alone() {
    let end = |pid| killpg(pid, Signal::SIGKILL).unwrap();
    stopped_at_each_step(end, |status| status.signal() == Some(Signal::SIGKILL as i32));
}

#[test]
fn what_a_dead_courier_had_not_sent_whole_is_sent_by_another_one_alone() {
    // The worker is the first child, and has none itself.
    let end = |pid| kill(*children(pid).last().unwrap(), Signal::SIGKILL).unwrap();
    stopped_at_each_step(end, |status| status.success());
}

/// The children of a process, the oldest first.
fn children(pid: Pid) -> Vec<Pid> {
    let list = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    list.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect()
}

#[test]
fn a_power_cut_in_mta_queue_loses_no_message_to_another_host() {
    if !need("strace") || !support::need_root() {
        return;
    }
    let host = Outside::new(&[&[WELCOME, LATE, WRONG]]);
    let recorder = Recorder::new(host.site.path()).owned_by(Site::owner);
    let ran = run(&mut recorder.wrap(&host.mta_queue()), b"").expect(0);
    assert!(host.is_settled(WELCOME) && !host.is_settled(LATE), "{ran}");
    let socket = recorder.speaker(b"MAIL FROM:");
    let report = recorder.finish(&socket).replay(&mut |moment| {
        // What was sent whole may have come; before that, it can't have.
        let sent = moment.said.windows(5).any(|end| end == b"\r\n.\r\n");
        let before = [host.copies(WELCOME)?, host.copies(LATE)?];
        host.finish()?;
        let right = if sent { 0..=1 } else { 1..=1 };
        expect("welcome", host.copies(WELCOME)? - before[0], &right)?;
        expect("late", host.copies(LATE)? - before[1], &(1..=1))?;
        expect("wrong", host.copies(WRONG)?, &(0..=0))?;
        // A report that was being delivered may be torn; a whole one comes then.
        expect("reports", host.reports(), &(1..=2))
    });
    report.expect_none("mta-queue, sending");
    assert!(report.states > 10, "the model saw nothing");
}
