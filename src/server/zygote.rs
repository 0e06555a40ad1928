//! A process that is locked up already, and forks the session of each client that it is handed.
//!
//! Walls, certificates and keys cost more than a fork: they are made once, and each session is born
//! with them. What a zygote was made of it does not look at again; when that changes, its parent
//! makes another one. It reads no byte of any client, and ends when its parent drops it; its
//! sessions live on.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};

use nix::unistd::Pid;

use super::listener::Client;
use crate::sys::channel::Channel;
use crate::sys::{Exit, jail, process, signal};

/// The longest word with which a zygote begins, in bytes.
const MAX_WORD: usize = 4096;

/// What a zygote's word begins with: it is ready, and what is behind that was left out; or it is
/// not, and why.
const READY: u8 = b'+';
const FAILED: u8 = b'-';

/// A client, as its session has it.
pub struct Arrival {
    /// The client.
    pub client: Client,
    /// The session's line to its parent.
    pub line: Channel,
    /// Its line to whom else it asks.
    pub policy: Option<Channel>,
}

/// The parent's side.
pub struct Zygote {
    pid: Pid,
    orders: Channel,
}

impl Zygote {
    /// Starts one, and waits until it is ready. `prepare` locks it up, keeping the channel, and
    /// makes what all sessions have; what it had to leave out is told. `session` runs in each
    /// session's process, `failed` where that can't be forked.
    pub fn start<T>(
        prepare: impl FnOnce(&Channel) -> io::Result<(T, Vec<String>)>,
        session: impl Fn(&T, Arrival) -> Exit,
        failed: impl Fn(&Arrival, &io::Error),
    ) -> io::Result<(Self, Vec<String>)> {
        let (orders, theirs) = Channel::pair()?;
        let mut theirs = Some(theirs);
        let pid = process::fork(|| {
            let Some(theirs) = theirs.take() else { return Exit::OsErr };
            match begin(&theirs, prepare) {
                Ok(kit) => breed(theirs, |arrival| session(&kit, arrival), failed),
                Err(error) => {
                    let _ = say(&theirs, FAILED, &[error.to_string()]);
                    Exit::OsErr
                }
            }
        })?;
        drop(theirs);
        let mut word = [0; MAX_WORD];
        let length = orders.receive(&mut word)?;
        let word = String::from_utf8_lossy(word.get(..length).unwrap_or_default()).into_owned();
        match word.as_bytes().first() {
            Some(&READY) => {
                let left_out = word.get(1..).unwrap_or_default().lines().map(str::to_owned);
                Ok((Self { pid, orders }, left_out.collect()))
            }
            Some(_) => Err(io::Error::other(word.get(1..).unwrap_or_default().to_owned())),
            None => Err(io::Error::other("the process that makes sessions ended at once")),
        }
    }

    /// Whether this child is it.
    pub fn is(&self, child: Pid) -> bool {
        self.pid == child
    }

    /// Hands a client over.
    pub fn hand(&self, arrival: &Arrival) -> io::Result<()> {
        let mut fds = vec![arrival.client.socket.as_fd(), arrival.line.as_fd()];
        fds.extend(arrival.policy.as_ref().map(AsFd::as_fd));
        self.orders.send_with(&encode(&arrival.client).ok_or(io::ErrorKind::InvalidInput)?, &fds)
    }
}

fn say(parent: &Channel, what: u8, lines: &[String]) -> io::Result<()> {
    let mut word = vec![what];
    word.extend_from_slice(lines.join("\n").as_bytes());
    word.truncate(MAX_WORD);
    parent.send(&word)
}

fn begin<T>(
    orders: &Channel,
    prepare: impl FnOnce(&Channel) -> io::Result<(T, Vec<String>)>,
) -> io::Result<T> {
    signal::unblock_all()?;
    // Nobody waits for the sessions: their parent hears of their end by their lines.
    signal::forget_children()?;
    let (kit, left_out) = prepare(orders)?;
    say(orders, READY, &left_out)?;
    Ok(kit)
}

/// Forks until the parent is gone.
fn breed(
    orders: Channel,
    session: impl Fn(Arrival) -> Exit,
    failed: impl Fn(&Arrival, &io::Error),
) -> Exit {
    let mut orders = Some(orders);
    loop {
        let mut record = Record::default();
        let (length, [client, line, policy]) =
            match orders.as_ref().map(|orders| orders.receive_all(&mut record)) {
                None | Some(Ok((0, _))) => return Exit::Ok,
                Some(Ok(received)) => received,
                Some(Err(_)) => return Exit::OsErr,
            };
        let client = client.and_then(|client| decode(record.get(..length)?, client));
        // A descriptor for which there was no room is missing; the client's end closes.
        let (Some(client), Some(line)) = (client, line) else {
            continue;
        };
        let mut arrival =
            Some(Arrival { client, line: line.into(), policy: policy.map(Channel::from) });
        let forked = process::fork(|| {
            // Other clients are none of its business.
            orders = None;
            match (jail::forbid_children(), arrival.take()) {
                (Ok(()), Some(arrival)) => session(arrival),
                _ => Exit::OsErr,
            }
        });
        if let (Err(error), Some(arrival)) = (forked, &arrival) {
            failed(arrival, &error);
        }
    }
}

/// A client's service, whether it has an address, and that address, an IPv4 one as IPv6.
type Record = [u8; 18];

fn encode(client: &Client) -> Option<Record> {
    let mut record = Record::default();
    let [service, has_address, address @ ..] = &mut record;
    *service = u8::try_from(client.service).ok()?;
    if let Some(from) = client.from {
        *has_address = 1;
        *address = match from {
            IpAddr::V4(from) => from.to_ipv6_mapped().octets(),
            IpAddr::V6(from) => from.octets(),
        };
    }
    Some(record)
}

fn decode(record: &[u8], socket: OwnedFd) -> Option<Client> {
    let [service, has_address, address @ ..] = Record::try_from(record).ok()?;
    let from = (has_address == 1).then(|| IpAddr::from(address).to_canonical());
    Some(Client { socket, from, service: service.into() })
}
