//! The sessions of a listening parent: made by a zygote, each with a line to the parent.
//!
//! The parent writes itself what they log. With the first question a session gets a monitor of its
//! own, forked from the parent, so that no lookup and no password of one session holds up the others.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::unistd::Pid;

use super::monitor::{Heard, Monitor};
use super::talk::{Kit, Talk};
use super::{Ask, MAX, Server, Service, ask};
use crate::net::tls::identity::{Identity, State};
use crate::route::index::Stamp;
use crate::server::Connection;
use crate::server::listener::{Client, Refused, Sessions, turn_away};
use crate::server::policy::{Keeper, Line};
use crate::server::zygote::{Arrival, Zygote};
use crate::sys::channel::Channel;
use crate::sys::process::Ended;
use crate::sys::{Exit, fd, process, signal};

/// Lines that are asked for at once.
const TURN: usize = 64;

/// The sessions.
pub struct Parent<'a> {
    server: &'a Server<'a>,
    services: Vec<Service>,
    identity: Option<Identity>,
    policy: Keeper,
    zygote: Option<Zygote>,
    /// What the zygote was made of.
    made_of: MadeOf,
    epoll: Epoll,
    lines: HashMap<u64, Session<'a>>,
    next: u64,
    /// Sessions that have a monitor.
    monitored: HashMap<Pid, IpAddr>,
    over: Vec<IpAddr>,
}

/// What changes with a file that a zygote has read: the state of certificates, keys and tickets, and
/// the users file.
type MadeOf = (Option<State>, Option<Stamp>);

/// A session that is answered here.
struct Session<'a> {
    line: Channel,
    monitor: Monitor<'a>,
    address: IpAddr,
}

impl<'a> Parent<'a> {
    /// Makes the zygote; what it had to leave out is told. `services` are those of the listening
    /// sockets, in their order.
    pub fn new(
        server: &'a Server<'a>,
        services: Vec<Service>,
        identity: Option<Identity>,
        policy: Keeper,
    ) -> io::Result<(Self, Vec<String>)> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut parent = Self {
            server,
            services,
            identity,
            policy,
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
        let (server, services, identity) = (self.server, &self.services, self.identity.as_ref());
        let prepare = |orders: &Channel| {
            let scram = super::scram(server);
            server.lock_up(&[orders.as_fd()])?;
            Ok(Kit::new(server, identity, scram))
        };
        let session = |kit: &Kit, arrival: Arrival| {
            let Arrival { client: Client { socket, from, service }, line, policy } = arrival;
            let Some(service) = services.get(service) else { return Exit::OsErr };
            let connection = Connection::accepted(socket, from);
            Talk::new(server, connection, kit, Line::of(policy), &line).run(*service)
        };
        let failed = |arrival: &Arrival, error: &io::Error| {
            let _ = ask(&arrival.line, Ask::Error, format!("can't fork a session: {error}"));
            let _ = ask(&arrival.line, Ask::End, "");
            if services.get(arrival.client.service) != Some(&Service::Submissions) {
                turn_away(&arrival.client.socket, super::busy(&server.config.hostname).as_bytes());
            }
        };
        let (zygote, left_out) = Zygote::start(prepare, session, failed)?;
        self.zygote = Some(zygote);
        Ok(left_out)
    }

    fn is_made_of(&self) -> MadeOf {
        let users = self.server.config.users.file.metadata();
        let users = users.ok().map(|found| Stamp::of(&found));
        (self.identity.as_ref().map(Identity::state), users)
    }

    /// Sees to it that what sessions need is there, and is of today.
    fn tend(&mut self) {
        let log = self.server.log;
        if let Some(Err(error)) = self.identity.as_mut().map(Identity::refresh) {
            log.error(&error.to_string());
        }
        let identity = &mut self.identity;
        self.policy.tend(log, || identity.iter_mut().for_each(Identity::forget));
        if self.zygote.is_some() && self.made_of == self.is_made_of() {
            return;
        }
        match self.make_zygote() {
            Ok(left_out) => left_out.iter().for_each(|what| log.error(what)),
            // The one that was there goes on.
            Err(error) => log.error(&format!("can't prepare sessions: {error}")),
        }
    }

    /// Hands a client to the zygote; the session's line.
    fn hand(&mut self, client: Client) -> Result<Channel, Refused> {
        let (ours, line) = match Channel::pair() {
            Ok(pair) => pair,
            Err(error) => return Err((Some(client), error)),
        };
        let policy = self.policy.open(client.address()).and_then(Line::into_channel);
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
            session.monitor.end();
            self.part(number);
            return false;
        }
        match session.monitor.hear(record) {
            Some(Heard::Nothing) => return true,
            Some(_) => self.fork_monitor(number, record, forget),
            None => self.part(number),
        }
        false
    }

    fn part(&mut self, number: u64) {
        if let Some(session) = self.forget_line(number) {
            self.over.push(session.address);
        }
    }

    fn forget_line(&mut self, number: u64) -> Option<Session<'a>> {
        let session = self.lines.remove(&number)?;
        // By hand: a monitor that is being forked may have a copy of it.
        let _ = self.epoll.delete(&session.line);
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
            let Some(Session { line, monitor, .. }) = session.take() else {
                return Exit::OsErr;
            };
            let ready = signal::unblock_all().and_then(|()| fd::set_nonblocking(&line, false));
            match ready {
                Ok(()) => monitor.stay(&line, record, Some(&self.policy)),
                Err(_) => Exit::OsErr,
            }
        });
        match forked {
            Ok(monitor) => {
                self.monitored.insert(monitor, address);
            }
            Err(error) => {
                self.server.log.error(&format!("can't fork a monitor: {error}"));
                self.over.push(address);
            }
        }
    }
}

impl Sessions for Parent<'_> {
    fn begin(&mut self, client: Client, _: &mut dyn FnMut()) -> Result<(), Refused> {
        self.tend();
        let (address, from) = (client.address(), client.from);
        let line = self.hand(client)?;
        let number = self.next;
        self.next += 1;
        self.epoll
            .add(&line, EpollEvent::new(EpollFlags::EPOLLIN, number))
            .map_err(|error| (None, error.into()))?;
        let monitor = Monitor::new(self.server, from);
        self.lines.insert(number, Session { line, monitor, address });
        Ok(())
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.epoll.0.as_fd())
    }

    fn attend(&mut self, forget: &mut dyn FnMut()) {
        let mut events = [EpollEvent::empty(); TURN];
        // Each line is looked at once.
        for _ in 0..=self.lines.len() / TURN {
            let count = self.epoll.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
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
            self.server.log.error(&format!("the process that makes sessions ended by {how:?}"));
            self.zygote = None;
        } else {
            self.policy.ended(child, how, self.server.log);
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
                let descriptor = PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN);
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
