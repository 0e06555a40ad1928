//! Records between the processes of one program.
//!
//! A socket pair that keeps record boundaries: what one side sends as one record arrives as one
//! record, with a few descriptors beside it. A reader that gives a fixed-size buffer never
//! parses more than it asked for; a longer record is an error, not a rest to be read later.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::fd;

/// The most descriptors beside a record.
pub const MAX_DESCRIPTORS: usize = 3;

/// How often, and after which pauses, a descriptor is handed on that the system refuses for now.
const MAX_TRIES: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(2);

/// The descriptors that came beside a record.
pub type Descriptors = [Option<OwnedFd>; MAX_DESCRIPTORS];

/// One end of a channel.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Channel {
    /// One end that was received.
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Channel {
    /// A new channel's two ends, close-on-exec.
    pub fn pair() -> io::Result<(Self, Self)> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Self(a), Self(b)))
    }

    /// Sends one record. A reader that has gone is `EPIPE`, never a signal.
    pub fn send(&self, record: &[u8]) -> io::Result<()> {
        self.send_with(record, &[])
    }

    /// Sends one record and copies of descriptors, [`MAX_DESCRIPTORS`] at most.
    pub fn send_with(&self, record: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mut numbers = [0; MAX_DESCRIPTORS];
        let numbers = numbers.get_mut(..fds.len()).ok_or(io::ErrorKind::InvalidInput)?;
        for (number, fd) in numbers.iter_mut().zip(fds) {
            *number = fd.as_raw_fd();
        }
        let mut tries = 0;
        let control = (!fds.is_empty()).then_some([ControlMessage::ScmRights(numbers)]);
        loop {
            match sendmsg::<()>(
                self.0.as_raw_fd(),
                &[IoSlice::new(record)],
                control.as_ref().map_or(&[], |control| control.as_slice()),
                MsgFlags::MSG_NOSIGNAL,
                None,
            ) {
                Ok(_) => return Ok(()),
                Err(nix::Error::EINTR) => {}
                // This user's processes have handed each other more descriptors than they have
                // taken (unix(7)): in a moment they will have.
                Err(nix::Error::ETOOMANYREFS) if tries < MAX_TRIES => {
                    tries += 1;
                    std::thread::sleep(PAUSE);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives one record into `buffer`; 0 when the other side has gone.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(self.receive_with(buffer)?.0)
    }

    /// Receives one record and the descriptor beside it, if there is one; none, too, where this
    /// process can't have more of them.
    pub fn receive_with(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
        let (length, [first, ..]) = self.receive_all(buffer)?;
        Ok((length, first))
    }

    /// Receives one record and the descriptors beside it, in their order.
    #[allow(unsafe_code, reason = "a received descriptor has no other way into an OwnedFd")]
    pub fn receive_all(&self, buffer: &mut [u8]) -> io::Result<(usize, Descriptors)> {
        let mut space = nix::cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let mut parts = [IoSliceMut::new(buffer)];
        let message = loop {
            match recvmsg::<()>(
                self.0.as_raw_fd(),
                &mut parts,
                Some(&mut space),
                MsgFlags::MSG_CMSG_CLOEXEC,
            ) {
                Ok(message) => break message,
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        };
        let mut received = Descriptors::default();
        let mut places = received.iter_mut();
        // An error means that the kernel had to leave something out.
        for control in message.cmsgs().into_iter().flatten() {
            if let ControlMessageOwned::ScmRights(numbers) = control {
                for number in numbers {
                    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
                    let fd = unsafe { OwnedFd::from_raw_fd(number) };
                    if let Some(place) = places.next() {
                        *place = Some(fd);
                    }
                }
            }
        }
        if message.flags.contains(MsgFlags::MSG_TRUNC) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "record is too long"));
        }
        Ok((message.bytes, received))
    }
}

/// A channel's end in a process that waits for many things at once, by tokio.
pub struct AsyncChannel(AsyncFd<Channel>);

impl AsyncChannel {
    /// To be made within a runtime. Only what comes wakes it: room for what goes nearly always is.
    pub fn new(channel: Channel) -> io::Result<Self> {
        fd::set_nonblocking(&channel, true)?;
        register(channel, Interest::READABLE).map(Self)
    }

    /// As [`Channel::send`]; waits for room.
    pub async fn send(&self, record: &[u8]) -> io::Result<()> {
        match self.0.get_ref().send(record) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            sent => return sent,
        }
        let full = Channel(self.0.as_fd().try_clone_to_owned()?);
        let room = register(full, Interest::WRITABLE)?;
        room.async_io(Interest::WRITABLE, |channel| channel.send(record)).await
    }

    /// As [`Channel::receive_with`].
    pub async fn receive_with(&self, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
        self.0.async_io(Interest::READABLE, |channel| channel.receive_with(buffer)).await
    }
}

#[allow(unsafe_code, reason = "tokio trusts the descriptor that it is told")]
fn register(channel: Channel, interest: Interest) -> io::Result<AsyncFd<Channel>> {
    // SAFETY: a channel owns its descriptor, which is the same one as long as it lives.
    unsafe { AsyncFd::register_with_interest(channel, interest) }.map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::{AsFd, OwnedFd};
    use std::os::unix::fs::FileExt;

    use super::Channel;

    #[test]
    fn a_record_arrives_whole_and_a_longer_one_than_asked_for_is_an_error() {
        let (a, b) = Channel::pair().unwrap();
        a.send(b"one").unwrap();
        a.send(b"four").unwrap();
        let mut buffer = [0; 3];
        assert_eq!(b.receive(&mut buffer).unwrap(), 3);
        assert!(b.receive(&mut buffer).is_err());
        drop(a);
        assert_eq!(b.receive(&mut buffer).unwrap(), 0);
    }

    #[test]
    fn descriptors_arrive_in_their_order() {
        let (a, b) = Channel::pair().unwrap();
        let files: Vec<File> = (0..3_u8)
            .map(|number| {
                let mut file = tempfile::tempfile().unwrap();
                file.write_all(&[number]).unwrap();
                file
            })
            .collect();
        let fds: Vec<_> = files.iter().map(AsFd::as_fd).collect();
        a.send_with(b"three", &fds).unwrap();
        a.send_with(b"one", &fds[2..]).unwrap();
        assert!(a.send_with(b"four", &[fds[0]; 4]).is_err());
        let number = |fd: &Option<OwnedFd>| {
            let mut byte = [9];
            File::from(fd.as_ref().unwrap().try_clone().unwrap())
                .read_exact_at(&mut byte, 0)
                .unwrap();
            byte[0]
        };
        let mut buffer = [0; 8];
        let (length, three) = b.receive_all(&mut buffer).unwrap();
        assert_eq!((length, three.each_ref().map(number)), (5, [0, 1, 2]));
        let (length, one) = b.receive_with(&mut buffer).unwrap();
        assert_eq!((length, number(&one)), (3, 2));
    }
}
