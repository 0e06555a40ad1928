//! The sessions of a listening parent: made by a zygote, each with a line to the parent.
//!
//! The parent writes itself what they log. With the first question a session gets a monitor of its
//! own, forked from the parent, so that no lookup and no password of one session holds up the others.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::Pid;

use super::ask::{Ask, MAX};
use super::listener::{Client, Refused, Sessions};
use super::zygote::{Arrival, Zygote};
use crate::net::tls::identity::{Identity, State};
use crate::route::index::Stamp;
use crate::sys::channel::Channel;
use crate::sys::process::Ended;
use crate::sys::{Exit, Log, fd, process, signal};

/// Lines that are asked for at once.
const TURN: usize = 64;

/// What the sessions of a server are.
pub trait Host {
    /// What they are born with.
    type Kit;
    /// What their parent knows of one.
    type Monitor;

    /// The log.
    fn log(&self) -> &Log;
    /// The users file, of which a kit may know something.
    fn users(&self) -> &Path;
    /// Locks the calling process up, but for `orders`, and makes what all sessions have. What had to
    /// be left out is told.
    fn prepare(
        &self,
        orders: &Channel,
        identity: Option<&Identity>,
    ) -> io::Result<(Self::Kit, Vec<String>)>;
    /// A session, in a process of its own.
    fn run(&self, kit: &Self::Kit, arrival: Arrival) -> Exit;
    /// A client can have no session.
    fn turn_away(&self, arrival: &Arrival);

    /// A session begins.
    fn monitor(&self, from: Option<IpAddr>) -> Self::Monitor;
    /// Takes note of what a session says.
    fn hear(&self, monitor: &mut Self::Monitor, record: &[u8]) -> Heard;
    /// A session has gone.
    fn gone(&self, monitor: &Self::Monitor);
    /// Answers a session until it is over, in a process of its own; `first` was heard already.
    fn stay(&self, monitor: Self::Monitor, line: Channel, first: &[u8]) -> Exit;

    /// A session's line to another process.
    fn second_line(&self, _address: IpAddr) -> Option<Channel> {
        None
    }
    /// Sees to it that other processes are there; `forget` overwrites secrets, in each.
    fn tend(&mut self, _forget: &mut dyn FnMut()) {}
    /// A child of this process, which was none of the sessions', has ended.
    fn ended(&mut self, _child: Pid, _how: Ended) {}
}

/// What a record of a session asks for.
pub enum Heard {
    /// Nothing more.
    Nothing,
    /// An answer.
    Question,
    /// It is none that a session of ours sends.
    Nonsense,
}

/// The sessions.
pub struct Parent<H: Host> {
    host: H,
    identity: Option<Identity>,
    zygote: Option<Zygote>,
    /// What the zygote was made of.
    made_of: MadeOf,
    /// `None` in children.
    epoll: Option<Epoll>,
    lines: HashMap<u64, Session<H::Monitor>>,
    next: u64,
    /// Sessions that have a monitor.
    monitored: HashMap<Pid, IpAddr>,
    over: Vec<IpAddr>,
}

/// What changes with a file that a zygote has read: the state of certificates, keys and tickets, and
/// the users file.
type MadeOf = (Option<State>, Option<Stamp>);

/// A session that is answered here.
struct Session<M> {
    line: Channel,
    monitor: M,
    address: IpAddr,
}

impl<H: Host> Parent<H> {
    /// Makes the zygote; what it had to leave out is told.
    pub fn new(host: H, identity: Option<Identity>) -> io::Result<(Self, Vec<String>)> {
        let epoll = Some(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
        let mut parent = Self {
            host,
            identity,
            zygote: None,
            made_of: MadeOf::default(),
            epoll,
            lines: HashMap::new(),
            next: 0,
            monitored: HashMap::new(),
            over: Vec::new(),
        };
        let left_out = parent.make_zygote()?;
        Ok((parent, left_out))
    }

    fn make_zygote(&mut self) -> io::Result<Vec<String>> {
        self.made_of = self.is_made_of();
        let (host, identity) = (&self.host, self.identity.as_ref());
        let prepare = |orders: &Channel| host.prepare(orders, identity);
        let session = |kit: &H::Kit, arrival: Arrival| host.run(kit, arrival);
        let failed = |arrival: &Arrival, error: &io::Error| {
            let _ = Ask::Error.say(&arrival.line, format!("can't fork a session: {error}"));
            let _ = Ask::End.say(&arrival.line, "");
            host.turn_away(arrival);
        };
        let (zygote, left_out) = Zygote::start(prepare, session, failed)?;
        self.zygote = Some(zygote);
        Ok(left_out)
    }

    fn is_made_of(&self) -> MadeOf {
        let users = self.host.users().metadata();
        let users = users.ok().map(|found| Stamp::of(&found));
        (self.identity.as_ref().map(Identity::state), users)
    }

    /// Sees to it that what sessions need is there, and is of today.
    fn tend(&mut self) {
        if let Some(Err(error)) = self.identity.as_mut().map(Identity::refresh) {
            self.host.log().error(&error.to_string());
        }
        let identity = &mut self.identity;
        self.host.tend(&mut || identity.iter_mut().for_each(Identity::forget));
        if self.zygote.is_some() && self.made_of == self.is_made_of() {
            return;
        }
        match self.make_zygote() {
            Ok(left_out) => left_out.iter().for_each(|what| self.host.log().error(what)),
            // The one that was there goes on.
            Err(error) => self.host.log().error(&format!("can't prepare sessions: {error}")),
        }
    }

    /// Hands a client to the zygote; the session's line.
    fn hand(&mut self, client: Client) -> Result<Channel, Refused> {
        let (ours, line) = match Channel::pair() {
            Ok(pair) => pair,
            Err(error) => return Err((Some(client), error)),
        };
        let policy = self.host.second_line(client.address());
        let arrival = Arrival { client, line, policy };
        let mut handed = Err(io::ErrorKind::BrokenPipe.into());
        // One that has died is followed by another one.
        for _ in 0..2 {
            if self.zygote.is_none() {
                self.tend();
            }
            handed = self
                .zygote
                .as_ref()
                .map_or(Err(io::ErrorKind::NotConnected.into()), |zygote| zygote.hand(&arrival));
            if handed.is_ok() {
                break;
            }
            self.zygote = None;
        }
        let listens = handed.and_then(|()| fd::set_nonblocking(&ours, true));
        listens.map(|()| ours).map_err(|error| (Some(arrival.client), error))
    }

    /// Hears one record of a session; whether there may be more of them.
    fn listen_to(&mut self, number: u64, forget: &mut dyn FnMut()) -> bool {
        let Some(session) = self.lines.get_mut(&number) else { return false };
        let mut buffer = [0; MAX + 1];
        let record = match session.line.receive(&mut buffer) {
            Ok(length) => buffer.get(..length).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(_) => &[],
        };
        if record.is_empty() {
            self.host.gone(&session.monitor);
            self.part(number);
            return false;
        }
        match self.host.hear(&mut session.monitor, record) {
            Heard::Nothing => return true,
            Heard::Question => self.fork_monitor(number, record, forget),
            Heard::Nonsense => self.part(number),
        }
        false
    }

    fn part(&mut self, number: u64) {
        if let Some(session) = self.forget_line(number) {
            self.over.push(session.address);
        }
    }

    fn forget_line(&mut self, number: u64) -> Option<Session<H::Monitor>> {
        let session = self.lines.remove(&number)?;
        // By hand: a monitor that is being forked may have a copy of it.
        if let Some(epoll) = &self.epoll {
            let _ = epoll.delete(&session.line);
        }
        Some(session)
    }

    /// From here on a session is answered by a process of its own.
    fn fork_monitor(&mut self, number: u64, record: &[u8], forget: &mut dyn FnMut()) {
        let Some(session) = self.forget_line(number) else { return };
        let address = session.address;
        let mut session = Some(session);
        let forked = process::fork(|| {
            forget();
            self.zygote = None;
            self.lines.clear();
            // Who holds it can change what the parent hears.
            self.epoll = None;
            // A monitor may become a user, who must not find them in its memory.
            self.identity.iter_mut().for_each(Identity::forget);
            let Some(Session { line, monitor, .. }) = session.take() else {
                return Exit::OsErr;
            };
            let ready = signal::unblock_all().and_then(|()| fd::set_nonblocking(&line, false));
            match ready {
                Ok(()) => self.host.stay(monitor, line, record),
                Err(_) => Exit::OsErr,
            }
        });
        match forked {
            Ok(monitor) => {
                self.monitored.insert(monitor, address);
            }
            Err(error) => {
                self.host.log().error(&format!("can't fork a monitor: {error}"));
                self.over.push(address);
            }
        }
    }
}

impl<H: Host> Sessions for Parent<H> {
    fn begin(&mut self, client: Client, _: &mut dyn FnMut()) -> Result<(), Refused> {
        self.tend();
        let (address, from) = (client.address(), client.from);
        let line = self.hand(client)?;
        let number = self.next;
        self.next += 1;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number);
        let added = self.epoll.as_ref().map_or(Ok(()), |epoll| epoll.add(&line, event));
        added.map_err(|error| (None, error.into()))?;
        let monitor = self.host.monitor(from);
        self.lines.insert(number, Session { line, monitor, address });
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.epoll.as_ref()?.0.as_fd())
    }

    fn attend(&mut self, forget: &mut dyn FnMut()) {
        let mut events = [EpollEvent::empty(); TURN];
        // Each line is looked at once.
        for _ in 0..=self.lines.len() / TURN {
            let Some(epoll) = &self.epoll else { return };
            let count = epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
            for event in events.iter().take(count) {
                // Of a session that is over, all that it said is there, and its place free.
                let is_over = event.events().contains(EpollFlags::EPOLLHUP);
                while self.listen_to(event.data(), forget) && is_over {}
            }
            if count < TURN {
                break;
            }
        }
    }

    fn ended(&mut self, child: Pid, how: Ended) {
        if let Some(address) = self.monitored.remove(&child) {
            self.over.push(address);
        } else if self.zygote.as_ref().is_some_and(|zygote| zygote.is(child)) {
            self.host.log().error(&format!("the process that makes sessions ended by {how:?}"));
            self.zygote = None;
        } else {
            self.host.ended(child, how);
        }
    }

    fn over(&mut self) -> Option<IpAddr> {
        self.over.pop()
    }

    /// A process stays that answers the sessions until the last one is over.
    fn leave(&mut self) -> io::Result<()> {
        self.zygote = None;
        if self.lines.is_empty() {
            return Ok(());
        }
        process::fork(|| {
            if signal::unblock_all().is_err() {
                return Exit::OsErr;
            }
            while !self.lines.is_empty() {
                let Some(epoll) = &self.epoll else { return Exit::OsErr };
                let descriptor = PollFd::new(epoll.0.as_fd(), PollFlags::POLLIN);
                match poll(&mut [descriptor], PollTimeout::NONE) {
                    Ok(_) | Err(nix::Error::EINTR) => {}
                    Err(_) => return Exit::OsErr,
                }
                self.attend(&mut || {});
                while process::reap().is_some() {}
            }
            Exit::Ok
        })?;
        Ok(())
    }
}
