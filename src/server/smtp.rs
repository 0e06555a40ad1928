//! smtpd's sessions.
//!
//! A session's monitor (root, or the account that runs everything; `monitor`) answers questions of
//! bounded size: is there such a user, write this line into the log, and those of a login
//! (`super::login`).
//! The session child, jailed, speaks to the client (`talk`), and asks [`super::policy`] what depends
//! on others. One session alone is two processes ([`Server::session`]); those of a listener are made
//! by a zygote and answered by the listener as far as that goes ([`Host`], [`super::parent`]).

mod admission;
mod incoming;
mod lines;
mod monitor;
mod talk;

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::unistd::Pid;

use super::ask::Ask;
use super::listener::{Client, turn_away};
use super::parent::{self, Heard};
use super::policy::{Keeper, Line};
use super::zygote::Arrival;
use super::{Connection, Peer, login};
use crate::config::Config;
use crate::net::tls::identity::Identity;
use crate::queue::{Inlet, Wake};
use crate::sasl::Facts;
use crate::sasl::scram::Hash;
use crate::smtp::Login;
use crate::sys::channel::Channel;
use crate::sys::jail::Jail;
use crate::sys::process::Ended;
use crate::sys::{Account, Exit, Log, clock, process};
use monitor::Monitor;
use talk::{Kit, Talk};

/// What is spoken on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Mail comes in, from everybody (port 25).
    Smtp,
    /// Users hand their mail in, under TLS and after a login (RFC 6409, port 587).
    Submission,
    /// Likewise, with TLS from the first byte on (RFC 8314 section 3.3, port 465).
    Submissions,
}

impl Service {
    /// All, by the word of `--service`.
    pub const WORDS: [&'static str; 3] = ["smtp", "submission", "submissions"];

    /// By its word.
    pub fn by_word(word: &str) -> Self {
        match word {
            "submission" => Self::Submission,
            "submissions" => Self::Submissions,
            _ => Self::Smtp,
        }
    }
}

/// What every session of a server shares.
pub struct Server<'a> {
    /// The configuration.
    pub config: &'a Config,
    /// The log.
    pub log: &'a Log,
    /// Where messages enter.
    pub inlet: Inlet,
    /// Who is told of them.
    pub wake: Option<Wake>,
    /// The cell of the session children.
    pub jail: Jail,
    /// Whether somebody can tell who is here. With sendmail there is no policy process, and its caller
    /// may not look accounts up; what is handed in to nobody comes back.
    pub knows_users: bool,
    /// The queue's owner, whom session children become, with root.
    pub owner: Option<Account>,
}

/// The monitor's answer to [`Ask::User`].
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    No = 0,
    Yes = 1,
    Unknown = 2,
}

/// What a client is called whose name nobody vouches for.
const UNKNOWN: &str = "unknown";

impl Server<'_> {
    /// One session, alone: forks the child that speaks, and is its monitor.
    pub fn session(
        &self,
        connection: Connection,
        service: Service,
        identity: Option<&Identity>,
        policy: Option<&Keeper>,
    ) -> Exit {
        let mut connection = Some(connection);
        let peer = connection.as_ref().and_then(|connection| connection.peer.address);
        let refuse = |connection: &mut Option<Connection>, what: &str| {
            if let Some(client) = connection {
                self.turn_away(client, service);
            }
            self.log.error(what);
            Exit::OsErr
        };
        let (monitor, session) = match Channel::pair() {
            Ok(pair) => pair,
            Err(error) => {
                return refuse(&mut connection, &format!("can't make a channel: {error}"));
            }
        };
        let line = policy.and_then(|keeper| keeper.open(Peer::at(peer).address_or_local()));
        let mut line = line.unwrap_or_default();
        let forked = process::fork(|| {
            let Some(mut connection) = connection.take() else {
                return Exit::OsErr;
            };
            let scram = login::scram(self.config, self.log);
            let keep = connection.descriptors().into_iter().chain([session.as_fd()]);
            let keep: Vec<BorrowedFd<'_>> = keep.chain(line.descriptor()).collect();
            if let Err(error) = self.lock_up(&keep) {
                let _ = Ask::Error.say(&session, format!("can't lock a session up: {error}"));
                self.turn_away(&mut connection, service);
                return Exit::OsErr;
            }
            let (kit, left_out) = Kit::new(self, identity, scram);
            for what in left_out {
                let _ = Ask::Error.say(&session, what);
            }
            Talk::new(self, connection, &kit, std::mem::take(&mut line), &session).run(service)
        });
        let child = match forked {
            Ok(child) => child,
            Err(error) => return refuse(&mut connection, &format!("can't fork: {error}")),
        };
        // All are the child's: when that ends, the client must see it.
        drop((session, connection, line));
        let exit = Monitor::new(self, peer).stay(&monitor, &[], policy);
        match process::wait(child) {
            Ok(_) => exit,
            Err(error) => {
                self.log.error(&format!("wait: {error}"));
                Exit::OsErr
            }
        }
    }

    /// How clients of a service may log in, if at all.
    fn login(&self, service: Service, scram: &[Hash]) -> Option<Login> {
        let required = service != Service::Smtp;
        (required || self.config.smtp.auth).then(|| Login {
            without_tls: self.config.auth.plaintext_without_tls,
            required,
            facts: Facts { scram: scram.to_vec(), ..Facts::default() },
        })
    }

    /// Tells a client that there can be no session now. Under TLS from the first byte on there is no
    /// way to say so.
    fn turn_away(&self, client: &mut Connection, service: Service) {
        if service != Service::Submissions {
            let _ = client.send(busy(&self.config.hostname).as_bytes(), 0);
        }
    }

    /// Gives everything up but these descriptors, the wake FIFO and incoming/.
    fn lock_up(&self, keep: &[BorrowedFd<'_>]) -> io::Result<()> {
        // Before it loses sight of /etc/localtime.
        clock::zone();
        let mut keep = keep.to_vec();
        keep.extend(self.wake.as_ref().map(AsFd::as_fd));
        keep.extend(self.jail.descriptor());
        keep.extend(self.inlet.descriptors());
        process::close_others(&keep)?;
        self.jail.enter(self.owner.as_ref(), Some(self.inlet.grant()))
    }
}

/// smtpd, where it listens: its services are those of the listening sockets, in their order.
pub struct Host<'a> {
    /// What the sessions share.
    pub server: &'a Server<'a>,
    /// What is spoken on each socket.
    pub services: Vec<Service>,
    /// Who is asked about what depends on others.
    pub policy: Keeper,
}

impl<'a> parent::Host for Host<'a> {
    type Kit = Kit;
    type Monitor = Monitor<'a>;

    fn log(&self) -> &Log {
        self.server.log
    }

    fn users(&self) -> &Path {
        &self.server.config.users.file
    }

    fn prepare(
        &self,
        orders: &Channel,
        identity: Option<&Identity>,
    ) -> io::Result<(Kit, Vec<String>)> {
        let scram = login::scram(self.server.config, self.server.log);
        // What the processor can do for checksums and searches is asked once, not by each session.
        let _ = crc32fast::hash(&[]);
        let _ = (memchr::memchr(0, &[]), memchr::memchr2(0, 0, &[]), memchr::memrchr(0, &[]));
        self.server.lock_up(&[orders.as_fd()])?;
        Ok(Kit::new(self.server, identity, scram))
    }

    fn run(&self, kit: &Kit, arrival: Arrival) -> Exit {
        let Arrival { client: Client { socket, from, service }, line, policy } = arrival;
        let Some(service) = self.services.get(service) else { return Exit::OsErr };
        let connection = Connection::accepted(socket, from);
        Talk::new(self.server, connection, kit, Line::of(policy), &line).run(*service)
    }

    fn turn_away(&self, arrival: &Arrival) {
        if self.services.get(arrival.client.service) != Some(&Service::Submissions) {
            turn_away(&arrival.client.socket, busy(&self.server.config.hostname).as_bytes());
        }
    }

    fn monitor(&self, from: Option<IpAddr>) -> Monitor<'a> {
        Monitor::new(self.server, from)
    }

    fn hear(&self, monitor: &mut Monitor<'a>, record: &[u8]) -> Heard {
        match monitor.hear(record) {
            Some(monitor::Heard::Nothing) => Heard::Nothing,
            Some(_) => Heard::Question,
            None => Heard::Nonsense,
        }
    }

    fn gone(&self, monitor: &Monitor<'a>) {
        monitor.end();
    }

    fn stay(&self, monitor: Monitor<'a>, line: Channel, first: &[u8]) -> Exit {
        monitor.stay(&line, first, Some(&self.policy))
    }

    fn second_line(&self, address: IpAddr) -> Option<Channel> {
        self.policy.open(address).and_then(Line::into_channel)
    }

    fn tend(&mut self, forget: &mut dyn FnMut()) {
        self.policy.tend(self.server.log, forget);
    }

    fn ended(&mut self, child: Pid, how: Ended) {
        self.policy.ended(child, how, self.server.log);
    }
}

/// Turns a client away when there are too many.
pub fn busy(hostname: &str) -> String {
    format!("421 4.3.2 {hostname} Error: too many connections\r\n")
}
