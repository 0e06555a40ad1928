//! Stand-in until the mbox store is merged: no locks, no journal, whole file in memory.
#![allow(missing_docs, reason = "stand-in")]

use std::fmt;
use std::fs;
use std::io;
use std::path::PathBuf;

pub struct Mbox {
    pub path: PathBuf,
}

pub struct Snapshot {
    messages: Vec<Vec<u8>>,
}

#[derive(Debug)]
pub struct Error(io::Error);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Mbox {
    fn messages(&self) -> Result<Vec<String>, Error> {
        let text = fs::read(&self.path).map_err(Error)?;
        let text = String::from_utf8_lossy(&text);
        let text = format!("\n{}", text.strip_suffix('\n').unwrap_or(&text));
        Ok(text.split("\nFrom ").skip(1).map(str::to_owned).collect())
    }

    pub fn scan(&mut self) -> Result<Snapshot, Error> {
        let messages = self.messages()?;
        let content = |text: &String| {
            let text = text.split_once('\n').map_or("", |(_, content)| content);
            text.replace('\n', "\r\n").into_bytes()
        };
        Ok(Snapshot {
            messages: messages.iter().map(content).collect(),
        })
    }

    pub fn read(
        &mut self,
        snapshot: &Snapshot,
        n: usize,
        body_lines: Option<u64>,
        sink: &mut dyn FnMut(&[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        let missing = || Error(io::ErrorKind::NotFound.into());
        let message = snapshot.messages.get(n).ok_or_else(missing)?;
        let now = self.scan()?.messages;
        if now.get(n) != Some(message) {
            return Err(missing());
        }
        let (mut body, mut left) = (false, body_lines.unwrap_or(u64::MAX));
        for line in message.split_inclusive(|byte| *byte == b'\n') {
            if body && left == 0 {
                break;
            }
            left -= u64::from(body);
            body |= line == b"\r\n";
            sink(line).map_err(Error)?;
        }
        Ok(())
    }

    pub fn expunge(&mut self, _: &Snapshot, messages: &[usize]) -> Result<usize, Error> {
        let all = self.messages()?;
        let kept: String = all
            .iter()
            .enumerate()
            .filter(|(n, _)| !messages.contains(n))
            .map(|(_, text)| format!("From {text}\n"))
            .collect();
        fs::write(&self.path, kept).map_err(Error)?;
        Ok(messages.len())
    }
}

impl Snapshot {
    #[allow(clippy::len_without_is_empty, reason = "stand-in")]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn size(&self, n: usize) -> u64 {
        self.messages
            .get(n)
            .map_or(0, |message| message.len() as u64)
    }

    pub fn unique_id(&self, n: usize) -> String {
        format!(
            "{:08x}",
            self.messages.get(n).map_or(0, |m| crc32fast::hash(m))
        )
    }
}
