//! A session's side: its line to the process.

use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use super::{Found, MAX_ANSWER, MAX_QUESTION, Mail, PATIENCE, Question, Status, Verdict, record};
use crate::message::Address;
use crate::message::address::{self, Alphabet};
use crate::smtp::Reply;
use crate::smtp::xclient::Known;
use crate::sys::channel::Channel;
use crate::sys::fd;

/// So much longer than the process the session waits, so that it is the process that gives up.
const GRACE: Duration = Duration::from_secs(1);

/// How long a session remembers what was taken last: of many messages to one recipient it asks once a
/// second.
const REMEMBERED: Duration = Duration::from_secs(1);

/// A session's line to the process. The process speaks to strangers: what it answers is looked at
/// again. One that does not answer in time is not asked any more.
#[derive(Default)]
pub struct Line {
    channel: Option<Channel>,
    /// The mail that it said was taken last, and when.
    taken: Option<(String, Instant)>,
}

impl Line {
    /// The line whose end this is.
    pub fn of(channel: Option<Channel>) -> Self {
        Self { channel, taken: None }
    }

    /// Its end, to be handed to another process.
    pub fn into_channel(self) -> Option<Channel> {
        self.channel
    }

    /// The descriptor, for a child that keeps nothing else.
    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.channel.as_ref().map(AsFd::as_fd)
    }

    /// The client is somebody else than it was, by this name where that is not DNS's to say.
    pub fn client(&mut self, client: IpAddr, name: Option<&Known<String>>) {
        let name = match name {
            None => "",
            Some(Known::Not) => "-",
            Some(Known::As(name)) => name,
        };
        let told = [&[Question::Client as u8][..], &record(client), name.as_bytes()].concat();
        self.channel = self.channel.take().filter(|channel| channel.send(&told).is_ok());
        self.taken = None;
    }

    /// The client's name: one that leads back to its address. `None` where it has none, or that
    /// can't be told.
    pub fn name(&mut self) -> Option<String> {
        match self.ask(Question::Name, "")? {
            (Status::Found, name) => host_name(&name),
            _ => None,
        }
    }

    /// Whether the client may send this. An error says why that can't be told now.
    pub fn recipient(&mut self, mail: &Mail<'_>) -> Result<Verdict, String> {
        let mail = mail.encode();
        if let Some((taken, when)) = &self.taken
            && *taken == mail
            && when.elapsed() < REMEMBERED
        {
            return Ok(Verdict::Accept);
        }
        match self.ask(Question::Recipient, &mail) {
            Some((Status::Found, _)) => {
                self.taken = Some((mail, Instant::now()));
                Ok(Verdict::Accept)
            }
            Some((Status::Account, _)) => Ok(Verdict::Account),
            Some((Status::Refused, text)) => refusal(&text).map(Verdict::Refuse),
            Some((_, what)) => Err(String::from_utf8_lossy(&what).into_owned()),
            None => Err(silent()),
        }
    }

    /// Who is at an address. An error says why that can't be told now.
    pub fn verify(&mut self, address: &Address) -> Result<Found, String> {
        self.find(Question::Verify, address)
    }

    /// Who is in the list at an address; one step deep.
    pub fn expand(&mut self, address: &Address) -> Result<Found, String> {
        self.find(Question::Expand, address)
    }

    fn find(&mut self, question: Question, address: &Address) -> Result<Found, String> {
        let (status, text) = self.ask(question, &address.to_string()).ok_or_else(silent)?;
        let text = || String::from_utf8_lossy(&text).into_owned();
        Ok(match (status, question) {
            (Status::Found, Question::Expand) => Found::Members(members(&text())?),
            (Status::Found, _) => Found::Known,
            (Status::Account, Question::Verify) => Found::Account,
            (Status::None, Question::Verify) => Found::Elsewhere,
            (Status::Refused, _) => Found::Refused(refusal(text().as_bytes())?),
            (Status::Unknown, _) => return Err(text()),
            _ => return Err("the policy process answers another question".into()),
        })
    }

    /// What is said to a client that has to come again with this. Where that can't be told, it has
    /// not.
    pub fn greylisted(&mut self, mail: &Mail<'_>) -> Option<Reply> {
        match self.ask(Question::Greylist, &mail.encode())? {
            (Status::Refused, text) => refusal(&text).ok(),
            _ => None,
        }
    }

    /// Whether mail for this address reaches this user. An error says why that can't be told now.
    pub fn is_owner(&mut self, user: &str, address: &Address) -> Result<bool, String> {
        match self.ask(Question::Owner, &format!("{user}\0{address}")) {
            Some((Status::Found, _)) => Ok(true),
            Some((Status::None, _)) => Ok(false),
            Some((_, what)) => Err(String::from_utf8_lossy(&what).into_owned()),
            None => Err(silent()),
        }
    }

    fn ask(&mut self, question: Question, text: &str) -> Option<(Status, Vec<u8>)> {
        let answer = self.channel.as_ref().and_then(|channel| answer(channel, question, text));
        if answer.is_none() {
            // A late answer would be taken for that to the next question.
            self.channel = None;
        }
        answer
    }
}

fn answer(channel: &Channel, question: Question, text: &str) -> Option<(Status, Vec<u8>)> {
    let asked = [&[question as u8], text.as_bytes()].concat();
    if asked.len() > MAX_QUESTION {
        return None;
    }
    channel.send(&asked).ok()?;
    let patience = u32::try_from((2 * PATIENCE + GRACE).as_millis()).unwrap_or(u32::MAX);
    if !fd::wait_readable(channel, patience).ok()? {
        return None;
    }
    let mut record = [0; MAX_ANSWER];
    let length = channel.receive(&mut record).ok()?;
    let (status, text) = record.get(..length)?.split_first()?;
    let status = Status::ALL.into_iter().find(|known| *known as u8 == *status)?;
    Some((status, text.to_vec()))
}

fn silent() -> String {
    "the policy process does not answer".into()
}

/// The process's reply, if it is one that refuses.
fn refusal(text: &[u8]) -> Result<Reply, String> {
    let text = String::from_utf8_lossy(text);
    Reply::parse_refusal(&text).ok_or_else(|| "the policy process does not refuse rightly".into())
}

/// The process's list, a member a line. An empty one would be no reply at all.
fn members(text: &str) -> Result<Vec<String>, String> {
    let members: Vec<String> = text.lines().map(ToOwned::to_owned).collect();
    if members.is_empty() || members.iter().any(String::is_empty) {
        return Err("the policy process names no members".into());
    }
    Ok(members)
}

/// A name as it may stand in a header field and in the log. A name of digits would look like an
/// address.
fn host_name(name: &[u8]) -> Option<String> {
    let name = address::domain(name, Alphabet::Ascii).ok().filter(|name| !name.starts_with('['))?;
    let last = name.rsplit('.').next()?;
    last.bytes().any(|byte| byte.is_ascii_alphabetic()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::super::Trust;
    use super::{Found, Line, Mail, REMEMBERED, Verdict, host_name, refusal};
    use crate::message::Address;
    use crate::sys::channel::Channel;
    use crate::sys::fd;

    /// A line to a process that answers this to each of two questions.
    fn line(answer: &[u8]) -> (Line, Channel) {
        let (ours, theirs) = Channel::pair().unwrap();
        theirs.send(answer).unwrap();
        theirs.send(answer).unwrap();
        (Line::of(Some(ours)), theirs)
    }

    #[test]
    fn a_name_that_could_be_taken_for_something_else_is_none() {
        for good in ["hawks.qgpop.net", "localhost", "a_b.x1", "1.2.3.4.x", "xn--a.example"] {
            assert_eq!(host_name(good.as_bytes()).as_deref(), Some(good));
        }
        let long = [b"a.".repeat(127), b"bc".to_vec()].concat();
        for bad in [
            &b""[..],
            b".",
            b"192.0.2.1",
            b"1.2",
            b"[192.0.2.1]",
            b"a b",
            b"a\r\nb",
            b"a\0",
            b"(a)",
            b"a.b;c",
            b"a..b",
            b"-a.b",
            b"\xc3\xa9.example",
            &long,
        ] {
            assert_eq!(host_name(bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn what_is_no_list_of_members_is_an_error_and_no_list() {
        let list = Address::parse(b"list@here").unwrap();
        let expand = |answer: &[u8]| line(answer).0.expand(&list);
        let members = vec!["<a@here>".to_owned(), "a program".to_owned()];
        assert_eq!(expand(b"+<a@here>\na program"), Ok(Found::Members(members)));
        assert!(matches!(expand(b"x550 5.1.1 no"), Ok(Found::Refused(_))));
        for answer in
            [&b""[..], b"+", b"+\n", b"+<a@here>\n\n<b@here>", b"a", b"-", b"x", b"?", b"!"]
        {
            assert!(expand(answer).is_err(), "{}", answer.escape_ascii());
        }
        assert!(Line::default().expand(&list).is_err());
        // Somebody is somebody, whatever else is said of him.
        for (answer, found) in
            [(&b"+"[..], Found::Known), (b"a", Found::Account), (b"-x", Found::Elsewhere)]
        {
            assert_eq!(line(answer).0.verify(&list), Ok(found));
        }
        let (mut line, process) = line(b"+");
        drop(process);
        assert!(line.expand(&list).is_err(), "nobody is there");
        assert!(line.verify(&list).is_err());
    }

    #[test]
    fn what_was_taken_is_asked_about_once_a_second() {
        let (ours, theirs) = Channel::pair().unwrap();
        let mut line = Line::of(Some(ours));
        let mut buffer = [0; super::MAX_QUESTION];
        let addresses = ["a@here", "b@here"].map(|text| Address::parse(text.as_bytes()).unwrap());
        // The answer is there before it is asked for; it is left over where nothing is asked.
        let mut is_asked = |line: &mut Line, answer: &[u8], recipient: usize| {
            let recipient = &addresses[recipient];
            let mail = Mail { helo: "x", sender: None, recipient, trust: Trust::Stranger };
            theirs.send(answer).unwrap();
            assert_eq!(line.recipient(&mail).unwrap() == Verdict::Accept, answer == b"+");
            let asked = fd::wait_readable(&theirs, 0).unwrap();
            let from = if asked { &theirs } else { line.channel.as_ref().unwrap() };
            from.receive(&mut buffer).unwrap();
            asked
        };
        assert!(is_asked(&mut line, b"+", 0));
        assert!(!is_asked(&mut line, b"+", 0));
        assert!(is_asked(&mut line, b"+", 1), "another recipient");
        assert!(is_asked(&mut line, b"x550 5.1.1 no", 0), "it is the last one that counts");
        assert!(is_asked(&mut line, b"x550 5.1.1 no", 0), "a refusal is not remembered");
        assert!(!is_asked(&mut line, b"+", 1));
        std::thread::sleep(REMEMBERED);
        assert!(is_asked(&mut line, b"+", 1), "a second later");
        line.client([192, 0, 2, 1].into(), None);
        theirs.receive(&mut [0; super::MAX_QUESTION]).unwrap();
        assert!(is_asked(&mut line, b"+", 1), "another client");
    }

    #[test]
    fn what_is_no_refusal_is_not_said() {
        let said = |text: &[u8]| refusal(text).map(|reply| reply.to_string());
        assert_eq!(said(b"550 5.7.1 no\r\n250 ok").unwrap(), "550 5.7.1 no??250 ok");
        for bad in ["250 2.0.0 ok", "550 4.7.1 no", "550 no", "5x0 5.7.1 no", "", "550 5.7.1"] {
            assert!(said(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
