//! System calls as strace(1) writes them down, read back.
//!
//! Strings are asked for in hexadecimal (`-xx`), so that nothing in them can look like syntax, and
//! every descriptor with what it leads to (`-y`).

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// What strace saw, in the order of completion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Call(Call),
    /// A process ended with this status.
    Exit(u32, i32),
    /// A process was killed.
    Killed(u32, String),
}

/// One system call that has returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub pid: u32,
    pub name: String,
    pub arguments: Vec<String>,
    /// What it returned: a number, for descriptors with their file.
    pub result: String,
}

/// A descriptor and what `-y` knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// -100 is AT_FDCWD.
    pub number: i32,
    pub file: String,
}

impl Call {
    /// The number that it returned; `None` where it failed.
    pub fn value(&self) -> Option<i64> {
        let number = self.result.split(['<', ' ']).next()?;
        number.parse().ok().filter(|value| *value >= 0)
    }

    pub fn failed(&self) -> bool {
        self.value().is_none()
    }

    pub fn argument(&self, at: usize) -> &str {
        self.arguments.get(at).map_or("", String::as_str)
    }

    /// A number, decimal or octal or hexadecimal as strace writes it.
    pub fn number(&self, at: usize) -> i64 {
        let text = self.argument(at);
        let parsed = if let Some(hex) = text.strip_prefix("0x") {
            i64::from_str_radix(hex, 16).ok()
        } else if text.len() > 1 && text.starts_with('0') {
            i64::from_str_radix(text, 8).ok()
        } else {
            text.parse().ok()
        };
        parsed.unwrap_or_else(|| panic!("argument {at} is no number: {self:?}"))
    }

    pub fn has_flag(&self, at: usize, flag: &str) -> bool {
        self.argument(at).split('|').any(|word| word == flag)
    }

    pub fn bytes(&self, at: usize) -> Vec<u8> {
        string(self.argument(at)).unwrap_or_else(|| panic!("argument {at} is no string: {self:?}"))
    }

    pub fn text(&self, at: usize) -> String {
        String::from_utf8_lossy(&self.bytes(at)).into_owned()
    }

    pub fn descriptor(&self, at: usize) -> Descriptor {
        descriptor(self.argument(at))
    }

    /// The descriptor that it returned.
    pub fn returned(&self) -> Descriptor {
        descriptor(&self.result)
    }

    /// The bytes of an array of `iov_base` strings, or of the whole of a `msghdr`.
    pub fn vector(&self, at: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut rest = self.argument(at);
        while let Some((_, after)) = rest.split_once("iov_base=") {
            let end = after.find(", iov_len").unwrap_or(after.len());
            bytes.extend(string(&after[..end]).unwrap_or_default());
            rest = &after[end..];
        }
        bytes
    }

    /// What it wrote to a descriptor, and to which: any of write(2) and its relatives.
    pub fn written(&self) -> Option<(Descriptor, Vec<u8>)> {
        let length = usize::try_from(self.value()?).ok()?;
        let mut bytes = match self.name.as_str() {
            "write" | "pwrite64" | "sendto" => self.bytes(1),
            "writev" | "pwritev" | "pwritev2" | "sendmsg" => self.vector(1),
            _ => return None,
        };
        bytes.truncate(length);
        Some((self.descriptor(0), bytes))
    }
}

/// Bytes of `"\x61…"`.
fn string(text: &str) -> Option<Vec<u8>> {
    let text = text.strip_prefix('"')?;
    assert!(!text.ends_with("..."), "strace cut a string: use a larger -s");
    let text = text.strip_suffix('"')?;
    Some(unhex(text))
}

/// `\x61\x62` as bytes; other characters stand for themselves.
fn unhex(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len() / 4);
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let digits = after.strip_prefix(b"x").and_then(|after| after.get(..2));
        let byte = digits
            .filter(|_| *first == b'\\')
            .and_then(|digits| std::str::from_utf8(digits).ok())
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let Some(byte) = byte {
            bytes.push(byte);
            rest = &after[3..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    bytes
}

/// `3<\x2f…>` or `AT_FDCWD<…>`.
fn descriptor(text: &str) -> Descriptor {
    let (number, file) = text.split_once('<').unwrap_or((text, ""));
    let file = file.rsplit_once('>').map_or(file, |(file, _)| file);
    Descriptor {
        number: if number == "AT_FDCWD" { -100 } else { number.trim().parse().unwrap_or(-1) },
        file: String::from_utf8_lossy(&unhex(file)).into_owned(),
    }
}

/// A file for strace to write, in a directory in which a user of a site may make it: strace runs
/// as the user whose program it watches.
pub fn output() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o777)).unwrap();
    let file = directory.path().join("trace");
    (directory, file)
}

/// The arguments for strace that write down these calls of a command and its children.
pub fn arguments(output: &Path, calls: &[&str]) -> Vec<OsString> {
    let mut arguments: Vec<OsString> =
        ["strace", "-f", "-y", "-xx", "-s", "10000000", "-o"].map(OsString::from).to_vec();
    arguments.push(output.into());
    arguments.push("-e".into());
    // A kernel or a libc need not have all of them.
    arguments.push(format!("trace=?{}", calls.join(",?")).into());
    arguments
}

/// Reads what strace wrote.
pub fn parse(text: &str) -> Vec<Event> {
    let mut events = Vec::new();
    let mut unfinished: HashMap<u32, String> = HashMap::new();
    for line in text.lines() {
        let Some((pid, rest)) = line.split_once(' ') else {
            continue;
        };
        let Ok(pid) = pid.parse() else {
            continue;
        };
        let rest = rest.trim_start();
        if let Some(end) = rest.strip_prefix("+++ exited with ") {
            let status = end.trim_end_matches(" +++").parse().unwrap_or(-1);
            events.push(Event::Exit(pid, status));
        } else if let Some(end) = rest.strip_prefix("+++ killed by ") {
            let signal = end.split(' ').next().unwrap_or_default();
            events.push(Event::Killed(pid, signal.to_owned()));
        } else if let Some(start) = rest.strip_suffix("<unfinished ...>") {
            unfinished.insert(pid, start.to_owned());
        } else if let Some(resumed) = rest.strip_prefix("<... ") {
            let (_, end) = resumed.split_once(" resumed>").unwrap_or_default();
            let start = unfinished.remove(&pid).unwrap_or_default();
            events.extend(call(pid, &format!("{start}{end}")).map(Event::Call));
        } else {
            events.extend(call(pid, rest).map(Event::Call));
        }
    }
    events
}

/// `name(arguments) = result`.
fn call(pid: u32, text: &str) -> Option<Call> {
    let (before, result) = text.rsplit_once(") = ").or_else(|| {
        // Short calls are filled up with spaces in front of the `=`.
        let (before, result) = text.rsplit_once(" = ")?;
        Some((before.trim_end().strip_suffix(')')?, result))
    })?;
    let (name, arguments) = before.split_once('(')?;
    Some(Call {
        pid,
        name: name.to_owned(),
        arguments: split(arguments),
        result: result.to_owned(),
    })
}

/// Splits at the commas that stand in nothing else.
fn split(text: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut depth = 0_u32;
    let mut quoted = false;
    let mut current = String::new();
    for c in text.chars() {
        match c {
            '"' => quoted = !quoted,
            '[' | '{' | '(' if !quoted => depth += 1,
            ']' | '}' | ')' if !quoted => depth = depth.saturating_sub(1),
            ',' if !quoted && depth == 0 => {
                arguments.push(std::mem::take(&mut current).trim().to_owned());
                continue;
            }
            _ => {}
        }
        current.push(c);
    }
    if !current.trim().is_empty() {
        arguments.push(current.trim().to_owned());
    }
    arguments
}

/// Only the calls.
pub fn calls(events: &[Event]) -> impl Iterator<Item = &Call> {
    events.iter().filter_map(|event| match event {
        Event::Call(call) => Some(call),
        _ => None,
    })
}
