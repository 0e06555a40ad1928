//! The listening parent: accepts, counts, and has sessions begun. It reads no byte of any client.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::Connection;
use super::spawner::Spawner;
use crate::net::activation::Socket;
use crate::net::limits::Connections;
use crate::sys::process::Ended;
use crate::sys::signal::Signals;
use crate::sys::{Exit, Log, fd, process};

/// What sessions want is looked at this often at most: their log lines come in crowds, and each would
/// cost as much as a few together.
const PAUSE: Duration = Duration::from_millis(1);

/// A client that has come.
pub struct Client {
    /// Its socket.
    pub socket: OwnedFd,
    /// Where it came from; `None` for a socket that is no internet one.
    pub from: Option<IpAddr>,
    /// The number of the service, among [`Listener::sockets`], that it came for.
    pub service: usize,
}

impl Client {
    /// What it counts as.
    pub fn address(&self) -> IpAddr {
        self.from.unwrap_or(IpAddr::from(Ipv4Addr::LOCALHOST))
    }
}

/// A client that can have no session, and why.
pub type Refused = (Option<Client>, io::Error);

/// How sessions are begun, each in a process of its own, and what they need of the listener.
pub trait Sessions {
    /// Begins one; a client that can have none comes back. `forget` closes, in a forked process,
    /// what is the listener's alone: a session that outlives it must not hold its port.
    fn begin(&mut self, client: Client, forget: &mut dyn FnMut()) -> Result<(), Refused>;

    /// Ready when a session wants something.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Does what they want.
    fn attend(&mut self, _forget: &mut dyn FnMut()) {}

    /// A child of this process has ended.
    fn ended(&mut self, child: Pid, how: Ended);

    /// The next session that is over, by its client's address.
    fn over(&mut self) -> Option<IpAddr>;

    /// The listener ends; sessions live on.
    fn leave(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Sessions that are forked, one for each client.
pub struct Forked<F> {
    session: F,
    open: Vec<(Pid, IpAddr)>,
    over: Vec<IpAddr>,
}

impl<F: Fn(Connection) -> Exit> Forked<F> {
    /// `session` is run in each.
    pub fn new(session: F) -> Self {
        Self { session, open: Vec::new(), over: Vec::new() }
    }
}

impl<F: Fn(Connection) -> Exit> Sessions for Forked<F> {
    fn begin(&mut self, client: Client, forget: &mut dyn FnMut()) -> Result<(), Refused> {
        let address = client.address();
        let mut client = Some(client);
        let forked = process::fork(|| {
            forget();
            if crate::sys::signal::unblock_all().is_err() {
                return Exit::OsErr;
            }
            let Some(client) = client.take() else { return Exit::OsErr };
            (self.session)(Connection::accepted(client.socket, client.from))
        });
        self.open.push((forked.map_err(|error| (client, error))?, address));
        Ok(())
    }

    fn ended(&mut self, child: Pid, _: Ended) {
        if let Some(index) = self.open.iter().position(|(session, _)| *session == child) {
            self.over.push(self.open.swap_remove(index).1);
        }
    }

    fn over(&mut self) -> Option<IpAddr> {
        self.over.pop()
    }
}

/// A listening parent.
pub struct Listener<'a> {
    /// The sockets, each with the service word that is spoken there.
    pub sockets: Vec<(Socket, String)>,
    /// How many sessions.
    pub connections: Connections,
    /// What a client is told that is one too many.
    pub busy: &'a [u8],
    /// Starts runners, where that is this process's work.
    pub spawner: Option<Spawner>,
    /// The log.
    pub log: &'a Log,
}

impl Listener<'_> {
    /// Serves until SIGTERM or SIGINT; sessions that are open then live on.
    pub fn serve(mut self, mut sessions: impl Sessions) -> io::Result<Exit> {
        let signals = Signals::take(&[Signal::SIGTERM, Signal::SIGINT, Signal::SIGCHLD])?;
        for (socket, _) in &self.sockets {
            socket.prepare()?;
        }
        // Once for all the children.
        crate::sys::clock::zone();
        let mut pause_ends = None;
        loop {
            let pause =
                pause_ends.map(|end: Instant| end.saturating_duration_since(Instant::now()));
            let pause = pause.filter(|left| !left.is_zero());
            let watched = sessions.descriptor().filter(|_| pause.is_none());
            let ready = self.wait(&signals, watched, pause)?;
            while ready.signals
                && let Some(signal) = signals.next()
            {
                if signal != Signal::SIGCHLD {
                    self.forget();
                    sessions.leave()?;
                    return Ok(Exit::Ok);
                }
                self.reap(&mut sessions);
            }
            if ready.sessions {
                sessions.attend(&mut || self.forget());
                pause_ends = Some(Instant::now() + PAUSE);
            }
            self.free_places(&mut sessions);
            for index in ready.sockets {
                // A few at a time, so that one busy socket does not keep the others waiting.
                for _ in 0..16 {
                    let Some((socket, _)) = self.sockets.get(index) else {
                        break;
                    };
                    match socket.accept() {
                        Ok((socket, from)) => {
                            self.admit(Client { socket, from, service: index }, &mut sessions);
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

    /// Gives up, in a child, what is the listener's alone.
    fn forget(&mut self) {
        self.sockets.clear();
        self.spawner = None;
    }

    /// Waits for clients, signals, sessions or the FIFO, as long as what is left of a pause at most.
    fn wait(
        &mut self,
        signals: &Signals,
        sessions: Option<BorrowedFd<'_>>,
        pause: Option<Duration>,
    ) -> io::Result<Ready> {
        let spawner = self.spawner.as_mut();
        let timeout = spawner.and_then(|spawner| spawner.tend(self.log));
        let timeout = timeout.into_iter().chain(pause).min();
        // Rounded up, or else the last millisecond is spent in turning round.
        let timeout = timeout.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        let mut fds: Vec<PollFd<'_>> = Vec::with_capacity(self.sockets.len() + 3);
        fds.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
        for (socket, _) in &self.sockets {
            fds.push(PollFd::new(socket.as_fd(), PollFlags::POLLIN));
        }
        let fifo = self.spawner.as_ref().and_then(Spawner::descriptor);
        let (fifo_at, sessions_at) = (fds.len(), fds.len() + usize::from(fifo.is_some()));
        fds.extend(fifo.into_iter().chain(sessions).map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_ready = |at: usize| {
            let events = fds.get(at).and_then(PollFd::revents);
            events.is_some_and(|events| !events.is_empty())
        };
        let ready = Ready {
            signals: is_ready(0),
            sockets: (0..self.sockets.len()).filter(|index| is_ready(index + 1)).collect(),
            sessions: is_ready(sessions_at),
        };
        if fifo_at < sessions_at
            && is_ready(fifo_at)
            && let Some(spawner) = &mut self.spawner
        {
            spawner.woken();
        }
        Ok(ready)
    }

    fn reap(&mut self, sessions: &mut impl Sessions) {
        while let Some((pid, how)) = process::reap() {
            if !self.spawner.as_mut().is_some_and(|spawner| spawner.ended(pid, how)) {
                sessions.ended(pid, how);
            }
        }
    }

    fn free_places(&mut self, sessions: &mut impl Sessions) {
        while let Some(address) = sessions.over() {
            self.connections.leave(address);
        }
    }

    fn admit(&mut self, client: Client, sessions: &mut impl Sessions) {
        let address = client.address();
        let mut client = Some(client);
        if !self.connections.enter(address) {
            // A place may be free since a moment ago.
            self.reap(sessions);
            sessions.attend(&mut || {
                self.forget();
                client = None;
            });
            self.free_places(sessions);
            if !self.connections.enter(address) {
                self.log.warning(&format!("too many connections, client=[{address}] turned away"));
                if let Some(client) = client {
                    turn_away(&client.socket, self.busy);
                }
                return;
            }
        }
        let Some(client) = client else { return };
        if let Err((client, error)) = sessions.begin(client, &mut || self.forget()) {
            self.log.error(&format!("can't fork a session: {error}"));
            self.connections.leave(address);
            if let Some(client) = client {
                turn_away(&client.socket, self.busy);
            }
        }
    }
}

/// What is ready.
struct Ready {
    signals: bool,
    sockets: Vec<usize>,
    sessions: bool,
}

/// Says why there is no session, where the client takes it at once.
pub fn turn_away(client: &OwnedFd, why: &[u8]) {
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
