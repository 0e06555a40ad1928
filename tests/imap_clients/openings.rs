//! What clients that can't be run here ask for first, and what they are told, word for word: the
//! conversations in `openings/`.
//!
//! ```text
//! # Who speaks so.
//! C: a SELECT INBOX         sent with CRLF
//! S: * 3 EXISTS             one line: `...` stands for anything, `<V>` for the UIDVALIDITY
//! X: tls                    shakes hands for TLS
//! X: deliver 6              the letter of this number is delivered
//! X: other STORE 1 ...      another session says this of the inbox, and hears OK
//! ```

use std::fs;
use std::path::Path;

use super::host::Host;
use super::letters::{crlf, delivered};
use super::support::peer::Peer;
use super::support::store::FORMS;
use super::support::tls::VERSIONS;
use super::support::transcript::matches;

#[test]
fn clients_are_told_word_for_word_what_they_ask_for_first() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/imap_clients/openings");
    let only = std::env::var("OPENING").unwrap_or_default();
    let mut paths: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    for path in paths.iter().filter(|path| path.to_str().unwrap().contains(&only)) {
        for form in FORMS {
            let host = Host::new(form);
            let validity = fill(&host);
            play(&host, path, &validity);
            host.ends_well();
        }
    }
}

/// Three messages of one day, and folders; the UIDVALIDITY.
fn fill(host: &Host) -> String {
    let mut other = host.session();
    for folder in ["Drafts (USE (\\Drafts))", "Sent (USE (\\Sent))", "Trash (USE (\\Trash))"] {
        other.ok(&format!("CREATE {folder}"));
    }
    other.ok("CREATE Archive/2025");
    for folder in ["INBOX", "Drafts", "Sent", "Trash"] {
        other.ok(&format!("SUBSCRIBE {folder}"));
    }
    for number in 0..3 {
        let date = format!("2{number}-Jun-2004 03:15:20 +0900");
        let flags = ["\\Seen", "", "\\Flagged"][number];
        let message = crlf(&delivered(number));
        let command = format!("a APPEND INBOX ({flags}) \"{date}\" {{{}+}}\r\n", message.len());
        other.peer.send([command.as_bytes(), &message, b"\r\n"].concat());
        assert!(other.peer.line().starts_with("a OK"));
    }
    // Whoever comes next finds nothing new.
    other.ok("SELECT INBOX");
    let status = other.ok("STATUS INBOX (UIDVALIDITY)");
    other.log_out();
    status.split_once("UIDVALIDITY ").unwrap().1.split_once(')').unwrap().0.to_owned()
}

fn play(host: &Host, path: &Path, validity: &str) {
    let text = fs::read_to_string(path).unwrap();
    let mut peer = Peer::connect(host.address());
    let mut other = host.session();
    other.ok("SELECT INBOX");
    for (number, line) in (1..).zip(text.lines()) {
        let here = format!("{}:{number}", path.display());
        if let Some(command) = line.strip_prefix("C: ") {
            peer.send(format!("{command}\r\n"));
        } else if let Some(wanted) = line.strip_prefix("S: ").or((line == "S:").then_some("")) {
            let heard = peer.line();
            let wanted = wanted.replace("<V>", validity);
            assert!(
                matches(&wanted, &heard),
                "{here}: {wanted:?}, not {heard:?}\n{}",
                peer.dialogue()
            );
        } else if line == "X: tls" {
            peer.start_tls(host.pair.client(VERSIONS)).unwrap();
        } else if let Some(letter) = line.strip_prefix("X: deliver ") {
            host.deliver([letter.parse().unwrap()]);
        } else if let Some(command) = line.strip_prefix("X: other ") {
            other.ok(command);
        } else {
            assert!(line.is_empty() || line.starts_with('#'), "{here}: {line}");
        }
    }
    assert_eq!(peer.rest(), "", "{}: what is said behind the end", path.display());
    other.log_out();
}
