//! The records between the worker and the courier; pure.
//!
//! A job goes with a descriptor of its queue file; a report names a job and one of its recipients.
//! Both are lines of text of bounded length. What the courier says is checked like a stranger's
//! word: it speaks to strangers.

use super::super::fate::{Fate, Remote};
use super::super::report::Action;
use crate::queue::{Id, Outcome};
use crate::text::line;

/// Recipients of one job: what every server takes at least (RFC 5321 section 4.5.3.1.8).
pub const MAX_RECIPIENTS: usize = 100;
/// The longest record.
pub const MAX: usize = 4096;
/// The longest field of a report.
const MAX_FIELD: usize = 900;

/// A message for recipients of one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// Which job, among all of a courier's.
    pub number: u64,
    /// The message's queue id.
    pub id: Id,
    /// Which of its recipients, [`MAX_RECIPIENTS`] at most.
    pub recipients: Vec<usize>,
}

/// What the worker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Here is something to deliver.
    Deliver(Job),
    /// Begin nothing new: what was not begun is given back.
    Stop,
}

impl Order {
    /// The record.
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Stop => b"stop".to_vec(),
            Self::Deliver(Job { number, id, recipients }) => {
                let recipients: Vec<String> = recipients.iter().map(usize::to_string).collect();
                format!("job {number} {id} {}", recipients.join(" ")).into_bytes()
            }
        }
    }

    /// Reads it back.
    pub fn parse(record: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(record).ok()?;
        let Some(job) = text.strip_prefix("job ") else {
            return (text == "stop").then_some(Self::Stop);
        };
        let mut words = job.split(' ');
        let number = words.next()?.parse().ok()?;
        let id = Id::parse(words.next()?)?;
        let recipients: Option<Vec<usize>> = words.map(|word| word.parse().ok()).collect();
        let recipients = recipients?;
        let fits = (1..=MAX_RECIPIENTS).contains(&recipients.len());
        fits.then_some(Self::Deliver(Job { number, id, recipients }))
    }
}

/// What became of one recipient of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The job's number.
    pub job: u64,
    /// Which of the message's recipients.
    pub recipient: usize,
    /// Its fate.
    pub fate: Fate,
}

impl Report {
    /// The record: numbers, outcome and code; then relay, TLS, host, reply and text, a line each.
    pub fn encode(&self) -> Vec<u8> {
        let Fate { outcome, code, text, untried, receipt, relay, tls, remote } = &self.fate;
        let outcome = match outcome {
            _ if *untried => "untried",
            // Nothing but a message that has arrived can be reported there.
            Outcome::Done if receipt.is_none() => "passed",
            Outcome::Done => "done",
            Outcome::Failed => "failed",
            Outcome::Deferred | Outcome::Warned => "deferred",
        };
        let (host, reply) = match remote {
            Some(Remote { host, reply }) => (host.as_str(), reply.as_str()),
            None => ("", ""),
        };
        let mut record = format!("{} {} {outcome} {code}", self.job, self.recipient);
        for field in [relay, tls, host, reply, text] {
            record.push('\n');
            record.push_str(&printable(field));
        }
        record.into_bytes()
    }

    /// Reads it back.
    pub fn parse(record: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(record).ok()?;
        let mut lines = text.split('\n');
        let mut words = lines.next()?.split(' ');
        let job = words.next()?.parse().ok()?;
        let recipient = words.next()?.parse().ok()?;
        let word = words.next()?;
        let outcome = match word {
            "done" | "passed" => Outcome::Done,
            "failed" => Outcome::Failed,
            "deferred" | "untried" => Outcome::Deferred,
            _ => return None,
        };
        let code = words.next().filter(|code| fits(code, outcome))?.to_owned();
        let mut field = || lines.next().map(printable);
        let (relay, tls, host, reply, text) = (field()?, field()?, field()?, field()?, field()?);
        let remote = (!host.is_empty()).then_some(Remote { host, reply });
        let untried = word == "untried";
        let receipt = (word != "passed").then_some(Action::Relayed);
        let fate = Fate { outcome, code, text, untried, receipt, relay, tls, remote };
        Some(Self { job, recipient, fate })
    }
}

/// A stranger's words as one line of bounded length.
fn printable(text: &str) -> String {
    line::printable(text).take(MAX_FIELD).collect()
}

/// Whether it is an enhanced status code (RFC 3463) of the outcome's class.
fn fits(code: &str, outcome: Outcome) -> bool {
    let class = match outcome {
        Outcome::Done => '2',
        Outcome::Failed => '5',
        Outcome::Deferred | Outcome::Warned => '4',
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    code.len() <= 11
        && code.starts_with(class)
        && code.split('.').count() == 3
        && code.split('.').all(|part| !part.is_empty() && digits(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_read_back_the_same() {
        let recipients: Vec<usize> = (0..MAX_RECIPIENTS).map(|n| 900_000 + n).collect();
        let job = Job { number: u64::MAX, id: Id::new().unwrap(), recipients };
        for order in [Order::Deliver(job), Order::Stop] {
            let record = order.encode();
            assert!(record.len() <= MAX);
            assert_eq!(Order::parse(&record), Some(order));
        }
        for bad in ["", "job", "job 1", "job 1 x 0", "stop it"] {
            assert_eq!(Order::parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn reports_read_back_the_same_and_a_stranger_adds_no_line() {
        let remote = Remote { host: "mx.smkwlab.net".into(), reply: "550 5.1.1 no".into() };
        let fate = Fate {
            outcome: Outcome::Failed,
            code: "5.1.1".into(),
            text: "no\nsuch user".into(),
            untried: false,
            receipt: Some(Action::Relayed),
            relay: "mx.smkwlab.net[127.0.0.4]:25".into(),
            tls: "TLSv1.3".into(),
            remote: Some(remote),
        };
        let mut report = Report { job: 7, recipient: 3, fate };
        let read = Report::parse(&report.encode()).unwrap();
        report.fate.text = "no?such user".into();
        assert_eq!(read, report);
        report.fate.text = "x".repeat(10_000);
        report.fate.relay = "x".repeat(10_000);
        report.fate.remote = None;
        assert!(report.encode().len() <= MAX);
        assert!(Report::parse(&report.encode()).is_some());
        assert_eq!(Report::parse(b"1 2 done 2.0.0"), None);
        for code in ["5.0.0", "2.0", "2.0.x", "2.0.0\r", "2..0", ""] {
            let record = format!("1 2 done {code}\n\n\n\n\n");
            assert_eq!(Report::parse(record.as_bytes()), None, "{code:?}");
        }
        assert!(Report::parse(b"1 2 done 2.0.0\na\nb\nc\nd\ne").is_some());
        let untried = Fate::untried("4.3.2", "x");
        let passed = Fate { receipt: None, ..Fate::ours(Outcome::Done, "2.0.0", "x") };
        for fate in [untried, passed] {
            let report = Report { job: 1, recipient: 2, fate };
            assert_eq!(Report::parse(&report.encode()), Some(report));
        }
    }
}
