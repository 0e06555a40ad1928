//! Servers: one process a session, and what it says and hears.

pub mod pop3;
pub mod record;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use nix::sys::socket::{MsgFlags, send};

use crate::sys::fd;

/// A client, by a socket or by two pipes.
#[derive(Debug)]
pub struct Connection {
    input: OwnedFd,
    output: OwnedFd,
}

impl Connection {
    /// A client that speaks by `input` and listens to `output`.
    pub fn new(input: OwnedFd, output: OwnedFd) -> Self {
        Self { input, output }
    }

    /// Receives what there is; 0 when the client has ended. `TimedOut` when it says nothing for so
    /// long.
    pub fn receive(&mut self, buffer: &mut [u8], milliseconds: u32) -> io::Result<usize> {
        loop {
            if !fd::wait_readable(&self.input, milliseconds)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            match nix::unistd::read(&self.input, buffer) {
                Err(nix::Error::EINTR | nix::Error::EAGAIN) => {}
                read => return Ok(read?),
            }
        }
    }

    /// Sends all of it. `TimedOut` when the client takes nothing for so long.
    pub fn send(&mut self, mut bytes: &[u8], milliseconds: u32) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while !bytes.is_empty() {
            if !fd::wait_writable(&self.output, milliseconds)? {
                return Err(io::ErrorKind::TimedOut.into());
            }
            let sent = match send(self.output.as_fd().as_raw_fd(), bytes, flags) {
                Err(nix::Error::ENOTSOCK) => nix::unistd::write(&self.output, bytes),
                sent => sent,
            };
            match sent {
                Ok(sent) => bytes = bytes.get(sent..).unwrap_or_default(),
                Err(nix::Error::EINTR | nix::Error::EAGAIN) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Where a client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its address; `None` for a pipe or a terminal.
    pub address: Option<IpAddr>,
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.address {
            Some(address) => address.to_canonical().fmt(f),
            None => f.write_str("local"),
        }
    }
}
