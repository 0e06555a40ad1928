//! `.forward` files of any content.

use std::fmt::Write;

use hikyaku::route::forward::{self, Entry};

const ORIGIN: &str = "here.example";

/// What is understood can be written as one quoted entry a line, and is understood the same then.
pub fn check(input: &[u8]) {
    let entries = match forward::parse(input, ORIGIN) {
        Ok(entries) => entries,
        Err(error) => {
            let lines = input.split(|byte| *byte == b'\n').count();
            assert!((1..=lines).contains(&error.line) && !error.what.is_empty());
            return;
        }
    };
    let mut written = String::new();
    for entry in &entries {
        check_entry(entry);
        let special = match entry {
            Entry::Address(address) => {
                let _ = writeln!(written, "<{address}>");
                continue;
            }
            Entry::Mailbox(address) => format!("\\<{address}>"),
            Entry::File(file) => file.display().to_string(),
            Entry::Command(command) => format!("|{command}"),
            Entry::Include(file) => format!(":include:{}", file.display()),
        };
        let escaped = special.replace('\\', "\\\\").replace('"', "\\\"");
        let _ = writeln!(written, "\"{escaped}\"");
    }
    assert_eq!(forward::parse(written.as_bytes(), ORIGIN).as_ref(), Ok(&entries), "{written}");
}

fn check_entry(entry: &Entry) {
    match entry {
        Entry::Address(address) | Entry::Mailbox(address) => assert!(address.is_ascii()),
        Entry::File(file) | Entry::Include(file) => assert!(file.is_absolute()),
        Entry::Command(command) => {
            assert!(!command.trim().is_empty());
            assert!(!command.contains(|c: char| c.is_control() && c != '\t'));
        }
    }
}
