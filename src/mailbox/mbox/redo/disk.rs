//! What reaches the disk, and when it is sure to be there: a test can keep a list of it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::mailbox::moment::moment;
use crate::sys::fd;

/// Writes; when that is durable is open.
pub fn write(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    moment();
    #[cfg(test)]
    super::tests::note(file, super::tests::What::Write(at, bytes.to_vec()));
    file.write_all_at(bytes, at)
}

/// Writes, and has the disk begin with it.
pub fn send(file: &File, bytes: &[u8], at: u64) -> io::Result<()> {
    write(file, bytes, at)?;
    fd::begin_sync(file, at, bytes.len() as u64)
}

/// On return all that was written is durable.
pub fn sync(file: &File) -> io::Result<()> {
    moment();
    file.sync_data()?;
    #[cfg(test)]
    super::tests::note(file, super::tests::What::Sync);
    Ok(())
}

/// Cuts the file, durably.
pub fn cut(file: &File, size: u64) -> io::Result<()> {
    moment();
    #[cfg(test)]
    super::tests::note(file, super::tests::What::Size(size));
    file.set_len(size)?;
    sync(file)
}
