//! What a run waits for: agents, the courier, signals, and the FIFO's word of something new.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::agent::Agent;
use super::{GATHER, LOOK_AGAIN, MAX_LINGER, Run, Runner};

impl Run<'_> {
    /// How long it is too early to look for something new.
    pub(super) fn until_look(&self) -> Duration {
        GATHER.saturating_sub(self.looked.elapsed())
    }

    /// How long until it is time to look for everything that is due.
    pub(super) fn until_look_at_all(&self) -> Duration {
        LOOK_AGAIN.saturating_sub(self.looked_at_all.elapsed())
    }

    /// All is done: waits a moment for more. False where none came, or a signal, or the run has
    /// lasted so long that it is time to look for what is due.
    pub(super) fn linger(&mut self) -> io::Result<bool> {
        let Runner { signals, wake, linger, .. } = self.runner;
        if self.woken || linger.is_zero() || self.started.elapsed() > MAX_LINGER {
            return Ok(self.woken);
        }
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(wake.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = PollTimeout::try_from(linger.as_millis()).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.hear(fds.get(1).and_then(PollFd::any) == Some(true));
        Ok(self.woken && !self.stopped)
    }

    /// Takes what the FIFO and the signals said.
    fn hear(&mut self, woken: bool) {
        if woken {
            self.runner.wake.drain();
            self.woken = true;
        }
        while self.runner.signals.next().is_some() {
            self.stopped = true;
        }
    }

    /// Waits until an agent, a signal or the FIFO has something to say, or an agent had its time; and
    /// where nothing is left to be taken, until it is time to look for more.
    pub(super) fn wait(&mut self, nothing_left: bool) -> io::Result<()> {
        let waiting_only = self.agents.iter().all(Agent::is_idle) && !self.waiting.is_empty();
        if waiting_only || self.flights.is_empty() {
            return Ok(());
        }
        let Runner { signals, wake, patience, .. } = self.runner;
        let mut fds = vec![
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            // One byte is enough: what follows it is found by the same look.
            PollFd::new(
                wake.as_fd(),
                if self.woken { PollFlags::empty() } else { PollFlags::POLLIN },
            ),
        ];
        for agent in &self.agents {
            let mut events = PollFlags::POLLIN;
            events.set(PollFlags::POLLOUT, agent.wants_to_write());
            fds.push(PollFd::new(agent.descriptor(), events));
        }
        if let Some(courier) = &self.courier {
            let mut events = PollFlags::POLLIN;
            events.set(PollFlags::POLLOUT, courier.wants_to_write());
            fds.push(PollFd::new(courier.descriptor(), events));
        }
        let busy = self.agents.iter().filter(|agent| !agent.is_idle());
        let new = self.woken.then(|| self.until_look());
        let look = new.into_iter().chain([self.until_look_at_all()]).filter(|_| nothing_left);
        let timeout = busy.map(|agent| agent.left(*patience)).chain(look).min();
        let timeout = timeout.map_or(PollTimeout::NONE, |left| {
            PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX)
        });
        match poll(&mut fds, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.hear(fds.get(1).and_then(PollFd::any) == Some(true));
        Ok(())
    }
}
