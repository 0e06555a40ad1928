//! A reader of queue files that shares nothing with the one that is tested; hikyaku-queue(5) is
//! what both were written from.

use std::fs;
use std::path::Path;

/// One message of the queue, whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub sender: String,
    pub recipients: Vec<String>,
    /// All envelope lines.
    pub envelope: Vec<(String, String)>,
    /// With CRLF line ends.
    pub content: Vec<u8>,
    /// The history as it stands, one line each, torn ones too.
    pub history: Vec<String>,
}

impl Entry {
    /// Whether the history says that nothing more is to be done for this recipient, or the message
    /// is not for this recipient at all.
    pub fn is_settled(&self, recipient: &str) -> bool {
        let Some(number) = self.recipients.iter().position(|to| to == recipient) else {
            return true;
        };
        let number = number.to_string();
        // A line that is torn, and all behind it, counts as not written.
        let whole = self.history.iter().map_while(|line| {
            let (check, rest) = line.split_once(' ')?;
            (check == format!("{:08x}", crc32fast::hash(rest.as_bytes()))).then_some(rest)
        });
        whole
            .map(|line| line.split(' ').collect::<Vec<_>>())
            .any(|words| matches!(words[..], [_, of, "done" | "failed", ..] if of == number))
    }
}

/// Reads a queue file, or says in which way it is not whole.
pub fn read(path: &Path) -> Result<Entry, String> {
    let bytes = fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    parse(&bytes).map_err(|what| format!("{}: {what}", path.display()))
}

pub fn parse(bytes: &[u8]) -> Result<Entry, String> {
    let (head, rest) = bytes.split_at_checked(60).ok_or("shorter than its first line")?;
    let head = std::str::from_utf8(head).map_err(|error| error.to_string())?;
    let words: Vec<&str> = head.trim_end_matches('\n').split(' ').collect();
    let ["hikyaku-queue", "1", length, check, content_length, content_check] = words[..] else {
        return Err(format!("the first line is {head:?}"));
    };
    let number = |text: &str| {
        usize::from_str_radix(text, 16).map_err(|error| format!("{text:?} is no number: {error}"))
    };
    let (envelope, rest) =
        rest.split_at_checked(number(length)?).ok_or("the envelope is cut off")?;
    let (content, history) =
        rest.split_at_checked(number(content_length)?).ok_or("the content is cut off")?;
    for (what, bytes, check) in [("envelope", envelope, check), ("content", content, content_check)]
    {
        let sum = crc32fast::hash(bytes);
        if format!("{sum:08x}") != check {
            return Err(format!("the checksum of the {what} is {sum:08x}, not {check}"));
        }
    }
    let envelope: Vec<(String, String)> = String::from_utf8_lossy(envelope)
        .lines()
        .map(|line| {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            (key.to_owned(), value.to_owned())
        })
        .collect();
    let values = |wanted: &str| -> Vec<String> {
        let lines = envelope.iter().filter(|(key, _)| key == wanted);
        lines.map(|(_, value)| value.trim_matches(['<', '>']).to_owned()).collect()
    };
    Ok(Entry {
        sender: values("sender").concat(),
        recipients: values("recipient"),
        content: content.to_vec(),
        history: String::from_utf8_lossy(history).lines().map(str::to_owned).collect(),
        envelope,
    })
}
