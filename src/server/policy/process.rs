//! The process that answers: lines come in from the monitors, questions on the lines.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet, spawn_local};

use super::{MAX_ANSWER, PATIENCE, Question, Record, Status};
use crate::config::{self, Config};
use crate::net::dns::{Resolver, ports};
use crate::route::mx::Missing;
use crate::server::Peer;
use crate::sys::channel::{AsyncChannel, Channel};
use crate::sys::jail::Jail;
use crate::sys::{Account, privilege, process, signal};

/// Questions that the name servers are asked at once; more wait for a place.
const MAX_LOOKUPS: usize = 128;

const NAME: &std::ffi::CStr = c"hikyaku-policy";

/// What it knows.
struct Knowledge {
    resolver: Resolver,
    /// Which lists the clients are looked up in, and which clients are not.
    smtp: config::Smtp,
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
    if let Some(account) = account {
        privilege::become_account(account)?;
    }
    let knowledge = Rc::new(Knowledge {
        resolver: Resolver::new(&config.dns)?,
        smtp: config.smtp.clone(),
        places: Semaphore::new(MAX_LOOKUPS),
    });
    Jail::for_callers(&ports(&config.dns))?.enter(account, None)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, serve(knowledge, lines))
}

async fn serve(knowledge: Rc<Knowledge>, lines: Channel) -> io::Result<()> {
    let lines = AsyncChannel::new(lines)?;
    let mut sessions = JoinSet::new();
    loop {
        let mut record: Record = [0; 16];
        let (length, line) = tokio::select! {
            received = lines.receive_with(&mut record) => received?,
            // So that those that have ended take no room.
            Some(_) = sessions.join_next() => continue,
        };
        if length == 0 {
            break;
        }
        if let Some(line) = line.filter(|_| length == record.len()) {
            let client = IpAddr::from(record).to_canonical();
            let knowledge = Rc::clone(&knowledge);
            sessions.spawn_local(async move {
                // A session that has gone asks no more.
                let _ = Client::new(knowledge, client).attend(line.into()).await;
            });
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
    name: Answer,
    listed: Answer,
}

enum Answer {
    Pending(Pending),
    Known(Status, String),
}

impl Client {
    fn new(knowledge: Rc<Knowledge>, address: IpAddr) -> Self {
        let none = || Answer::Known(Status::None, String::new());
        let peer = Peer { address: Some(address) };
        let (mut name, mut listed) = (none(), none());
        if peer.local_name().is_none() {
            let knowledge = Rc::clone(&knowledge);
            let found = async move { knowledge.within_patience(knowledge.name(address)).await };
            name = Answer::Pending(spawn_local(found));
        }
        if !knowledge.smtp.dnsbl.is_empty() && !knowledge.smtp.may_relay(address) {
            let lists = Rc::clone(&knowledge);
            let asked = Rc::clone(&knowledge);
            let found = async move { asked.within_patience(lists.listed(address)).await };
            listed = Answer::Pending(spawn_local(found));
        }
        Self { knowledge, name, listed }
    }

    async fn attend(mut self, line: Channel) -> io::Result<()> {
        let line = AsyncChannel::new(line)?;
        loop {
            let mut question = [0; 1 + size_of::<Record>()];
            let (length, _) = line.receive_with(&mut question).await?;
            let answer = match question.get(..length).unwrap_or_default() {
                [kind] if *kind == Question::Name as u8 => &mut self.name,
                [kind] if *kind == Question::Listed as u8 => &mut self.listed,
                [kind, client @ ..] if *kind == Question::Client as u8 => {
                    let Ok(client) = Record::try_from(client) else {
                        break;
                    };
                    let client = IpAddr::from(client).to_canonical();
                    self = Self::new(Rc::clone(&self.knowledge), client);
                    continue;
                }
                _ => break,
            };
            let (status, text) = answer.wait().await;
            let mut record = vec![status as u8];
            record.extend(text.bytes().take(MAX_ANSWER - 1));
            line.send(&record).await?;
        }
        Ok(())
    }
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
        for list in self.smtp.dnsbl.clone() {
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
