//! The child that speaks to a client who has not logged in, from its cell.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::{Dialogue, Kit, Server, Step};
use crate::sasl::{Binding, Facts, Terms, Tls};
use crate::server::ask::Ask;
use crate::server::record::HandOver;
use crate::server::{Connection, login};
use crate::sys::Exit;
use crate::sys::channel::Channel;

/// So long, in milliseconds, may a client take nothing of what it asked for.
const STUCK: u32 = 60_000;

/// So long, in milliseconds, a handshake may last.
const HANDSHAKE: u32 = 60_000;

/// So much is read at once.
const READ: usize = 4 * 1024;

/// The child's conversation.
pub(super) struct Talk<'a> {
    server: &'a Server<'a>,
    client: Connection,
    kit: &'a Kit,
    monitor: Channel,
    /// What the client hears, collected so that many short replies are one packet.
    out: Vec<u8>,
    /// When the client will have been silent for too long. Commands count, not bytes: they may not
    /// trickle in for ever.
    deadline: Instant,
}

impl<'a> Talk<'a> {
    /// With one client.
    pub(super) fn new(
        server: &'a Server<'a>,
        client: Connection,
        kit: &'a Kit,
        monitor: Channel,
    ) -> Self {
        Self { server, client, kit, monitor, out: Vec::new(), deadline: Instant::now() }
    }

    /// Talks until the client has gone or is handed over. `encrypted`: with TLS from the first byte
    /// on.
    pub(super) fn run(mut self, encrypted: bool) -> Exit {
        match self.converse(encrypted) {
            Ok(Some(handed)) => match self.hand_over(&handed) {
                Ok(()) => Exit::Ok,
                Err(_) => Exit::IoErr,
            },
            Ok(None) => {
                self.client.finish();
                self.end(Exit::Ok)
            }
            Err(_) => self.end(Exit::IoErr),
        }
    }

    fn end(&self, exit: Exit) -> Exit {
        let _ = Ask::End.say(&self.monitor, "");
        exit
    }

    fn active(&mut self) {
        self.deadline = Instant::now() + self.server.protocol.silence;
    }

    fn left(&self) -> u32 {
        let left = self.deadline.saturating_duration_since(Instant::now());
        u32::try_from(left.as_millis()).unwrap_or(u32::MAX)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.client.send(&self.out, STUCK)?;
        self.out.clear();
        Ok(())
    }

    /// The client, where a load balancer stands before it.
    fn learn_client(&mut self) -> io::Result<()> {
        let proxy = self.client.peer.address.filter(|from| self.server.section().is_proxy(*from));
        let Some(balancer) = proxy else { return Ok(()) };
        match self.client.client_behind() {
            Ok(None) => {}
            Ok(Some(client)) => {
                self.client.peer.address = Some(client);
                Ask::Client.say(&self.monitor, client.to_string())?;
            }
            Err(what) => {
                let section = self.server.protocol.words[0];
                let hint = format!("it is among [{section}] proxies");
                Ask::Error
                    .say(&self.monitor, format!("load balancer [{balancer}] {what}; {hint}"))?;
                return Err(io::ErrorKind::InvalidData.into());
            }
        }
        Ok(())
    }

    /// Shakes hands; what names the connection.
    fn start_tls(&mut self) -> io::Result<Vec<Binding>> {
        // What is wrong with the files is in the log.
        let settings = self.kit.settings.as_ref().ok_or(io::ErrorKind::Unsupported)?;
        if let Err(error) = self.client.start_tls(Arc::clone(&settings.config), HANDSHAKE) {
            let peer = self.client.peer;
            let line = format!("Disconnected: rip={peer}, TLS handshake failed: {error}");
            Ask::Warning.say(&self.monitor, line)?;
            return Err(error);
        }
        if let Some((version, _)) = self.client.tls_agreed() {
            Ask::Tls.say(&self.monitor, version)?;
        }
        Ok(settings.bindings(self.client.tls_exported()))
    }

    /// The login, or `None` where there was none.
    fn converse(&mut self, encrypted: bool) -> io::Result<Option<HandOver>> {
        self.learn_client()?;
        let config = self.server.config;
        let mut terms = Terms {
            hostname: config.hostname.clone(),
            tls: Tls::Unknown,
            // Not that of a load balancer on this host.
            plaintext_allowed: config.auth.plaintext_without_tls || self.client.peer.is_loopback(),
            sasl: Facts { scram: self.kit.scram.clone(), ..Facts::default() },
        };
        if encrypted {
            terms.encrypted(self.start_tls()?, None);
        } else if self.kit.offers_tls && self.client.is_remote() {
            // Not to a pipe or a terminal, where there is nobody to listen in.
            terms.tls = Tls::Offered;
        }
        let mut dialogue = (self.server.protocol.begin)(terms);
        let mut buffer = [0; READ];
        self.active();
        loop {
            while let Some(step) = dialogue.next() {
                match step {
                    Step::Send(bytes) => self.out.extend_from_slice(&bytes),
                    Step::StartTls => self.begin_tls(dialogue.as_mut())?,
                    Step::Ask(mechanism, question) => {
                        self.flush()?;
                        dialogue.answer(login::ask(&self.monitor, mechanism, question)?);
                    }
                    Step::LoggedIn { tag, leftover } => {
                        self.flush()?;
                        let relays = self.client.tls_agreed().is_some();
                        return Ok(Some(HandOver { relays, tag, leftover }));
                    }
                    Step::Close => return self.flush().map(|()| None),
                }
                self.active();
            }
            self.flush()?;
            let patience = self.left();
            match self.client.receive(&mut buffer, patience)? {
                0 => return Ok(None),
                length => dialogue.push(buffer.get(..length).unwrap_or_default()),
            }
        }
    }

    fn begin_tls(&mut self, dialogue: &mut dyn Dialogue) -> io::Result<()> {
        if self.client.has_input() {
            // It was not meant for TLS, which the client does not know to be ready.
            let mut first = [0];
            let length = self.client.receive(&mut first, 0)?;
            dialogue.push(first.get(..length).unwrap_or_default());
            return Ok(());
        }
        self.flush()?;
        let bindings = self.start_tls()?;
        dialogue.encrypted(bindings);
        Ok(())
    }

    /// Hands the client to its session, or stays between the two.
    fn hand_over(mut self, handed: &HandOver) -> io::Result<()> {
        let record = handed.encode().ok_or_else(login::misfit)?;
        let record = [&[Ask::HandOver as u8], &record[..]].concat();
        if !handed.relays {
            let descriptors = self.client.descriptors();
            return self.monitor.send_with(&record, &descriptors);
        }
        self.monitor.send(&record)?;
        let (_, session) = self.monitor.receive_with(&mut [0])?;
        let session = session.ok_or_else(login::misfit)?;
        drop(self.monitor);
        self.client.relay(&session)
    }
}
