//! The listening parent: accepts, counts, forks. It reads no byte of any client.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Connection;
use super::policy::Keeper;
use super::spawner::Spawner;
use crate::net::activation::Socket;
use crate::net::limits::Connections;
use crate::net::tls::identity::Identity;
use crate::sys::signal::Signals;
use crate::sys::{Exit, Log, fd, process};

/// A client that has come, and what its session has from the listener.
pub struct Visit<'a> {
    /// The client.
    pub connection: Connection,
    /// What is spoken.
    pub service: &'a str,
    /// Certificate and key, where TLS is offered.
    pub identity: Option<&'a Identity>,
    /// Opens lines to the process that the session asks.
    pub policy: Option<Keeper>,
}

/// A listening parent.
pub struct Listener<'a> {
    /// The sockets, each with the service word that is spoken there.
    pub sockets: Vec<(Socket, String)>,
    /// How many sessions.
    pub connections: Connections,
    /// What a client is told that is one too many.
    pub busy: &'a [u8],
    /// Certificate and key, where TLS is offered; kept as fresh as the files are.
    pub identity: Option<Identity>,
    /// Keeps the process that sessions ask, where they ask anybody.
    pub policy: Option<Keeper>,
    /// Starts runners, where that is this process's work.
    pub spawner: Option<Spawner>,
    /// The log.
    pub log: &'a Log,
}

impl Listener<'_> {
    /// Serves until SIGTERM or SIGINT; sessions that are open then live on. `session` runs in a
    /// process of its own for each client.
    pub fn serve(mut self, session: impl Fn(Visit<'_>) -> Exit) -> io::Result<Exit> {
        let signals = Signals::take(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD])?;
        for (socket, _) in &self.sockets {
            socket.set_nonblocking(true)?;
        }
        // Once for all the children.
        crate::sys::clock::zone();
        let mut sessions: Vec<(Pid, IpAddr)> = Vec::new();
        loop {
            let ready = self.wait(&signals)?;
            while let Some(signal) = signals.next() {
                if signal != Signal::SIGCHLD {
                    return Ok(Exit::Ok);
                }
            }
            self.reap(&mut sessions);
            for index in ready {
                // A few at a time, so that one busy socket does not keep the others waiting.
                for _ in 0..16 {
                    let Some((socket, _)) = self.sockets.get(index) else {
                        break;
                    };
                    match socket.accept() {
                        Ok((client, address)) => {
                            sessions.extend(self.admit(index, client, address, &session));
                        }
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                        Err(error) if is_of_one_client(&error) => {}
                        Err(error) => {
                            // No descriptors or no memory: the clients wait in the backlog.
                            self.log.error(&format!("accept: {error}"));
                            std::thread::sleep(Duration::from_millis(100));
                            break;
                        }
                    }
                }
            }
        }
    }

    /// Waits for clients, signals or the FIFO; returns the sockets that have clients.
    fn wait(&mut self, signals: &Signals) -> io::Result<Vec<usize>> {
        let spawner = self.spawner.as_mut();
        let timeout = spawner.and_then(|spawner| spawner.tend(self.log));
        // Rounded up, or else the last millisecond is spent in turning round.
        let timeout = timeout.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(self.sockets.len() + 2);
        fds.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
        for (socket, _) in &self.sockets {
            fds.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        }
        let mut woken = false;
        let fifo = self.spawner.as_ref().and_then(Spawner::descriptor);
        let has_fifo = fifo.is_some();
        fds.extend(fifo.map(|fifo| PollFd::new(fifo, PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
        if has_fifo {
            woken = fds.last().is_some_and(is_ready);
        }
        let sockets = fds.iter().skip(1).take(self.sockets.len());
        let ready = sockets.enumerate().filter(|(_, fd)| is_ready(fd)).map(|(i, _)| i).collect();
        if woken && let Some(spawner) = &mut self.spawner {
            spawner.woken();
        }
        Ok(ready)
    }

    fn reap(&mut self, sessions: &mut Vec<(Pid, IpAddr)>) {
        while let Some((pid, how)) = process::reap() {
            if self.spawner.as_mut().is_some_and(|spawner| spawner.ended(pid, how)) {
                continue;
            }
            if self.policy.as_mut().is_some_and(|policy| policy.ended(pid, how, self.log)) {
                continue;
            }
            if let Some(index) = sessions.iter().position(|(session, _)| *session == pid) {
                let (_, address) = sessions.swap_remove(index);
                self.connections.leave(address);
            }
        }
    }

    fn admit(
        &mut self,
        index: usize,
        client: OwnedFd,
        from: Option<IpAddr>,
        session: &impl Fn(Visit<'_>) -> Exit,
    ) -> Option<(Pid, IpAddr)> {
        let address = from.unwrap_or(IpAddr::from(Ipv4Addr::LOCALHOST));
        if !self.connections.enter(address) {
            self.log.warning(&format!("too many connections, client=[{address}] turned away"));
            turn_away(&client, self.busy);
            return None;
        }
        if let Some(Err(error)) = self.identity.as_mut().map(Identity::refresh) {
            self.log.error(&error.to_string());
        }
        if let Some(policy) = &mut self.policy {
            let identity = &mut self.identity;
            policy.tend(self.log, || identity.iter_mut().for_each(Identity::forget));
        }
        let mut client = Some(client);
        let forked = process::fork(|| {
            let (_, service) = self.sockets.swap_remove(index);
            // The port is the parent's: a session that outlives it must not hold it.
            self.sockets.clear();
            self.spawner = None;
            if crate::sys::signal::unblock_all().is_err() {
                return Exit::OsErr;
            }
            match client.take().map(|client| Connection::accepted(client, from)) {
                Some(Ok(connection)) => {
                    let (identity, policy) = (self.identity.as_ref(), self.policy.take());
                    session(Visit { connection, service: &service, identity, policy })
                }
                _ => Exit::OsErr,
            }
        });
        match forked {
            Ok(pid) => Some((pid, address)),
            Err(error) => {
                self.log.error(&format!("can't fork a session: {error}"));
                self.connections.leave(address);
                if let Some(client) = &client {
                    turn_away(client, self.busy);
                }
                None
            }
        }
    }
}

/// Says why there is no session, where the client takes it at once.
fn turn_away(client: &OwnedFd, why: &[u8]) {
    let _ = fd::set_nonblocking(client, true);
    let _ = nix::unistd::write(client, why);
}

/// Errors of accept(2) that are about the client that it would have been.
fn is_of_one_client(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::Interrupted
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}
