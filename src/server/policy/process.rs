//! The process that answers: lines come in from the monitors, questions on the lines.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet, spawn_local};

use super::greylist::Greylist;
use super::rules::{self, Mail, Rules, Welcome};
use super::{MAX_ANSWER, MAX_QUESTION, PATIENCE, Question, Status, Told, Trust};
use crate::config::Config;
use crate::message::Address;
use crate::message::address::Alphabet;
use crate::net::dns::{Resolver, ports};
use crate::route::mx::Missing;
use crate::route::{self, Tables, Verdict};
use crate::server::Peer;
use crate::smtp::Reply;
use crate::sys::channel::{AsyncChannel, Channel};
use crate::sys::jail::Jail;
use crate::sys::{Account, privilege, process, signal};

/// Questions that the name servers are asked at once; more wait for a place.
const MAX_LOOKUPS: usize = 128;

const NAME: &std::ffi::CStr = c"hikyaku-policy";

/// What it knows.
struct Knowledge {
    rules: Rules,
    accounts: RefCell<Accounts>,
    resolver: Resolver,
    places: Semaphore,
}

/// Answers until nobody can ask any more.
pub fn run(config: &Config, account: Option<&Account>, lines: Channel) -> io::Result<()> {
    signal::unblock_all()?;
    // What ps(1) calls it.
    nix::sys::prctl::set_name(NAME)?;
    process::close_others(&[std::os::fd::AsFd::as_fd(&lines)])?;
    // A descriptor for each session.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    // Opened with all our rights, and read without: what can be told of them is told at the start
    // of the program.
    let greylist = &config.greylist;
    let rules = Rules {
        config: config.clone(),
        tables: Tables::now(config),
        greylist: Some(greylist)
            .filter(|greylist| greylist.is_on())
            .and_then(|greylist| Greylist::open(&config.paths.queue, greylist).ok()),
    };
    if let Some(account) = account {
        privilege::become_account(account)?;
    }
    let knowledge = Rc::new(Knowledge {
        rules,
        accounts: RefCell::default(),
        resolver: Resolver::new(&config.dns)?,
        places: Semaphore::new(MAX_LOOKUPS),
    });
    Jail::for_callers(&ports(&config.dns))?.enter(account, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(knowledge, lines))
}

async fn serve(knowledge: Rc<Knowledge>, lines: Channel) -> io::Result<()> {
    let lines = AsyncChannel::new(lines)?;
    let mut sessions = JoinSet::new();
    let mut record = vec![0; MAX_QUESTION];
    loop {
        let (length, line) = tokio::select! {
            received = lines.receive_with(&mut record) => received?,
            // So that those that have ended take no room.
            Some(_) = sessions.join_next() => continue,
        };
        let Some((kind, text)) = record.get(..length).and_then(<[u8]>::split_first) else {
            break;
        };
        let client = <[u8; 16]>::try_from(text).ok().filter(|_| *kind == Told::Session as u8);
        if let (Some(client), Some(line)) = (client, line) {
            let client = IpAddr::from(client).to_canonical();
            let knowledge = Rc::clone(&knowledge);
            sessions.spawn_local(async move {
                // A session that has gone asks no more.
                let _ = Client::new(knowledge, client).attend(line.into()).await;
            });
        } else if *kind == Told::Account as u8 {
            knowledge.accounts.borrow_mut().learn(&String::from_utf8_lossy(text));
        }
    }
    while sessions.join_next().await.is_some() {}
    Ok(())
}

/// An answer that is on its way.
type Pending = JoinHandle<(Status, String)>;

/// What is known of a session's client. What depends on others is asked for as soon as it has
/// come, and once.
struct Client {
    knowledge: Rc<Knowledge>,
    address: IpAddr,
    name: Answer,
    listed: Answer,
}

enum Answer {
    Pending(Pending),
    Known(Status, String),
}

impl Client {
    fn new(knowledge: Rc<Knowledge>, address: IpAddr) -> Self {
        let peer = Peer::at(Some(address));
        let known = |name: &str| Answer::Known(Status::Found, name.to_owned());
        let mut name = peer.local_name().map(known);
        if name.is_none() {
            let knowledge = Rc::clone(&knowledge);
            let found = async move { knowledge.within_patience(knowledge.name(address)).await };
            name = Some(Answer::Pending(spawn_local(found)));
        }
        let mut listed = None;
        let smtp = &knowledge.rules.config.smtp;
        if !smtp.dnsbl.is_empty() && !smtp.may_relay(address) {
            let lists = Rc::clone(&knowledge);
            let asked = Rc::clone(&knowledge);
            let found = async move { asked.within_patience(lists.listed(address)).await };
            listed = Some(Answer::Pending(spawn_local(found)));
        }
        let none = || Answer::Known(Status::None, String::new());
        let (name, listed) = (name.unwrap_or_else(none), listed.unwrap_or_else(none));
        Self { knowledge, address, name, listed }
    }

    async fn attend(mut self, line: Channel) -> io::Result<()> {
        let line = AsyncChannel::new(line)?;
        let mut question = vec![0; MAX_QUESTION];
        loop {
            let (length, _) = line.receive_with(&mut question).await?;
            let Some((kind, text)) = question.get(..length).and_then(<[u8]>::split_first) else {
                break;
            };
            if *kind == Question::Client as u8 {
                let Some((client, name)) = text.split_first_chunk::<16>() else {
                    break;
                };
                let client = IpAddr::from(*client).to_canonical();
                self = Self::new(Rc::clone(&self.knowledge), client);
                match String::from_utf8_lossy(name).as_ref() {
                    "" => {}
                    "-" => self.name = Answer::Known(Status::None, String::new()),
                    name => self.name = Answer::Known(Status::Found, name.to_owned()),
                }
                continue;
            }
            let Some((status, text)) = self.answer(*kind, &String::from_utf8_lossy(text)).await
            else {
                break;
            };
            let mut record = vec![status as u8];
            record.extend(text.bytes().take(MAX_ANSWER - 1));
            line.send(&record).await?;
        }
        Ok(())
    }

    /// `None`: this is no question.
    async fn answer(&mut self, kind: u8, text: &str) -> Option<(Status, String)> {
        let knowledge = Rc::clone(&self.knowledge);
        let rules = &knowledge.rules;
        let refused = |reply: Reply| (Status::Refused, reply.to_string());
        let nothing = |status| (status, String::new());
        Some(match kind {
            _ if kind == Question::Name as u8 => {
                let (status, name) = self.name.wait().await;
                (status, name.to_owned())
            }
            _ if kind == Question::Recipient as u8 => {
                let mail = parse(text)?;
                match self.admit(&mail).await {
                    Ok(Ok(status)) => nothing(status),
                    Ok(Err(reply)) => refused(reply),
                    Err(what) => (Status::Unknown, what),
                }
            }
            _ if kind == Question::Greylist as u8 => {
                let mail = parse(text)?;
                let spared = match rules.access(&self.client().await, &mail) {
                    Ok(Ok(welcome)) => welcome == Welcome::Always,
                    Ok(Err(_)) | Err(_) => false,
                };
                let reply = if spared { None } else { rules.greylist(self.address, &mail) };
                reply.map_or_else(|| nothing(Status::Found), refused)
            }
            _ if kind == Question::Verify as u8 => {
                let address = Address::parse_in(text.as_bytes(), Alphabet::Utf8).ok()?;
                match route::verify(&rules.config, &rules.tables, &address) {
                    Ok(Verdict::Known) => nothing(Status::Found),
                    Ok(Verdict::Account) => nothing(knowledge.account(address.local())),
                    Ok(Verdict::Relay | Verdict::Foreign) => nothing(Status::None),
                    Ok(Verdict::Unknown) => refused(Reply::unknown_user(&address)),
                    Err(what) => (Status::Unknown, what),
                }
            }
            _ if kind == Question::Expand as u8 => {
                let address = Address::parse_in(text.as_bytes(), Alphabet::Utf8).ok()?;
                match rules.members(&address) {
                    Ok(Ok(members)) if members.len() < MAX_ANSWER => (Status::Found, members),
                    Ok(Ok(_)) => {
                        refused(Reply::new(452, "4.5.3", "Error: the list is too long to be shown"))
                    }
                    Ok(Err(reply)) => refused(reply),
                    Err(what) => (Status::Unknown, what),
                }
            }
            _ if kind == Question::Owner as u8 => {
                let (user, address) = text.split_once('\0')?;
                let address = Address::parse_in(address.as_bytes(), Alphabet::Utf8).ok()?;
                match rules.is_owner(user, &address) {
                    Ok(true) => nothing(Status::Found),
                    Ok(false) => nothing(Status::None),
                    Err(what) => (Status::Unknown, what),
                }
            }
            _ => return None,
        })
    }

    async fn admit(&mut self, mail: &Mail) -> Result<Result<Status, Reply>, String> {
        let knowledge = Rc::clone(&self.knowledge);
        let rules = &knowledge.rules;
        let verdict = match rules.known(mail)? {
            Ok(verdict) => verdict,
            Err(reply) => return Ok(Err(reply)),
        };
        let client = self.client().await;
        match rules.access(&client, mail)? {
            Ok(Welcome::Neutral) if mail.trust == Trust::Stranger => {
                let asked = rules.stranger(&client, mail, &knowledge.resolver);
                if let Some(reply) = asked.await {
                    return Ok(Err(reply));
                }
            }
            Ok(_) => {}
            Err(reply) => return Ok(Err(reply)),
        }
        let to = &mail.recipient;
        Ok(match verdict {
            Verdict::Account => Ok(knowledge.account(to.local())),
            Verdict::Unknown => Err(Reply::unknown_user(to)),
            Verdict::Known | Verdict::Relay | Verdict::Foreign => Ok(Status::Found),
        })
    }

    /// The client, with all that the rules ask of it.
    async fn client(&mut self) -> rules::Client {
        let config = &self.knowledge.rules.config;
        // Nobody waits for a name that no rule asks for.
        let asked =
            config.smtp.require_client_name || self.knowledge.rules.tables.access.is_there();
        let name = match if asked { self.name.wait().await } else { (Status::None, "") } {
            (Status::Found, name) => Ok(Some(name.to_owned())),
            (Status::None, _) => Ok(None),
            _ => Err(()),
        };
        let listed = match self.listed.wait().await {
            (Status::Found, text) => Some(text.to_owned()),
            _ => None,
        };
        rules::Client { address: self.address, name, listed }
    }
}

/// What [`super::Mail`] writes.
fn parse(text: &str) -> Option<Mail> {
    let mut fields = text.split('\0');
    let first = fields.next()?;
    let mut known = [Trust::Stranger, Trust::Network, Trust::User].into_iter();
    let trust = known.find(|trust| first.as_bytes() == [*trust as u8])?;
    let helo = fields.next()?.to_owned();
    let address = |text: &str| Address::parse_in(text.as_bytes(), Alphabet::Utf8).ok();
    let sender = match fields.next()? {
        "" => None,
        sender => Some(address(sender)?),
    };
    Some(Mail { helo, sender, recipient: address(fields.next()?)?, trust })
}

impl Drop for Client {
    fn drop(&mut self) {
        for answer in [&self.name, &self.listed] {
            if let Answer::Pending(pending) = answer {
                pending.abort();
            }
        }
    }
}

impl Answer {
    async fn wait(&mut self) -> (Status, &str) {
        if let Self::Pending(pending) = self {
            let (status, text) = pending.await.unwrap_or((Status::Unknown, String::new()));
            *self = Self::Known(status, text);
        }
        match self {
            Self::Known(status, text) => (*status, text),
            Self::Pending(_) => (Status::Unknown, ""),
        }
    }
}

impl Knowledge {
    /// Whether there is this account, or that is to be looked up.
    fn account(&self, name: &str) -> Status {
        if self.accounts.borrow().are_there(name) { Status::Found } else { Status::Account }
    }

    async fn within_patience(
        &self,
        answer: impl Future<Output = (Status, String)>,
    ) -> (Status, String) {
        let asked = async {
            let _place = self.places.acquire().await;
            answer.await
        };
        let unknown = |_| (Status::Unknown, String::new());
        tokio::time::timeout(PATIENCE, asked).await.unwrap_or_else(unknown)
    }

    async fn name(&self, address: IpAddr) -> (Status, String) {
        match self.resolver.name_of(address).await {
            Some(name) => (Status::Found, name),
            None => (Status::None, String::new()),
        }
    }

    /// A list that has the client, of all that are asked at once.
    async fn listed(self: Rc<Self>, address: IpAddr) -> (Status, String) {
        let mut asked = JoinSet::new();
        for list in self.rules.config.smtp.dnsbl.clone() {
            let knowledge = Rc::clone(&self);
            asked.spawn_local(async move {
                let said = knowledge.resolver.listed(address, &list).await;
                said.map(|text| format!("{list}; {text}"))
            });
        }
        let mut status = Status::None;
        while let Some(said) = asked.join_next().await {
            match said {
                Ok(Ok(text)) => return (Status::Found, text),
                Ok(Err(Missing::Name | Missing::Records)) => {}
                Ok(Err(_)) | Err(_) => status = Status::Unknown,
            }
        }
        (status, String::new())
    }
}

/// Accounts that were there a moment ago.
#[derive(Default)]
struct Accounts(HashMap<String, Instant>);

impl Accounts {
    /// So long it is believed that one is still there.
    const MOMENT: Duration = Duration::from_secs(10);

    /// So many are remembered.
    const MOST: usize = 4096;

    fn are_there(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(|known| known.elapsed() < Self::MOMENT)
    }

    fn learn(&mut self, name: &str) {
        if self.0.len() >= Self::MOST {
            self.0.clear();
        }
        self.0.insert(name.to_owned(), Instant::now());
    }
}
