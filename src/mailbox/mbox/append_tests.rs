//! What is left of an append when the disk lacks some of it, and what neighbours did behind that.

use std::fs;
use std::os::unix::fs::FileExt;

use crate::mailbox::mbox::tests::{Home, message, plain, shown, stored};
use crate::mailbox::moment::{killed_at, without_attributes};
use crate::mailbox::store::Store;

const BLOCK: usize = 4096;

/// A mailbox of this size.
fn mailbox(size: usize) -> String {
    let other = stored(&["old"], 1000).len() - 1000;
    let mailbox = stored(&["old"], size - other);
    assert_eq!(mailbox.len(), size);
    mailbox
}

/// A mailbox to which these bodies were appended, as a power cut leaves it that came before the
/// intent was cleared.
fn appended(before: &str, bodies: &[String]) -> Home {
    let messages: Vec<_> = bodies.iter().map(|body| message("new", body)).collect();
    let append = |home: &Home| {
        home.open().append(&messages).unwrap();
    };
    let steps =
        (1..100).find(|n| !killed_at(*n, || append(&Home::new(before.as_bytes())))).unwrap();
    let home = Home::new(before.as_bytes());
    assert!(killed_at(steps - 1, || append(&home)));
    home
}

/// Takes what was appended behind `old` from the disk, in these blocks. Whether it had any.
fn lose(home: &Home, old: usize, lost: impl Fn(usize) -> bool) -> bool {
    let mut bytes = fs::read(&home.inbox).unwrap();
    let whole = bytes.clone();
    for (at, byte) in bytes.iter_mut().enumerate().skip(old) {
        if lost(at / BLOCK - old / BLOCK) {
            *byte = 0;
        }
    }
    fs::write(&home.inbox, &bytes).unwrap();
    bytes != whole
}

/// Blocks end before, within, and behind each of the separator, the `From_` line, the header, the
/// blank lines at the end.
fn sizes(body: usize) -> Vec<usize> {
    let length = stored(&["new"], body).len() - "new".len();
    let places = [0, 1, 2, 3, 20, 40, 60, 200, length - 3, length - 2, length - 1, length];
    places.map(|place| 2 * BLOCK - place % BLOCK).to_vec()
}

#[test]
fn an_append_of_which_the_disk_lacks_any_blocks_is_undone_as_a_whole() {
    for (body, count) in [(300, 1), (5000, 1), (9000, 1), (3000, 2)] {
        for size in sizes(body) {
            for lines in [2, 1, 0] {
                lack_blocks(&mailbox(size)[..size - (2 - lines)], body, count);
            }
        }
    }
    without_attributes(|| lack_blocks(&mailbox(8000), 9000, 1));
}

fn lack_blocks(before: &str, body: usize, count: usize) {
    let bodies = vec!["x".repeat(body) + "\n"; count];
    let blocks = (body + 1000) * count / BLOCK + 1;
    for lost in 0..1 << blocks {
        for neighbour in [None, Some(""), Some("\n")] {
            let home = appended(before, &bodies);
            let whole = home.content();
            let torn = lose(&home, before.len(), |block| lost >> block & 1 == 1);
            let mail = neighbour.map(|ends| ends.to_owned() + &stored(&["neighbour"], 3));
            let mail = mail.unwrap_or_default();
            home.neighbour(mail.as_bytes());
            // It is mended in several steps.
            killed_at(lost, || drop(home.session()));
            let mut mailbox = home.session();
            let place = format!("{} {body} {count} {lost:b} {neighbour:?}", before.len());
            let content = home.content();
            assert!(!content.contains('\0'), "{place}");
            let found = plain(&content);
            // Nothing but a line end may have been missing, and is mended.
            let is_whole = found == plain(&(whole + &mail));
            let rest = found.strip_prefix(&plain(before)).unwrap();
            let is_undone =
                ["", "\n", "\n\n"].iter().any(|ends| rest == plain(&(ends.to_string() + &mail)));
            assert!(is_whole || torn && is_undone, "{place}: {rest}");
            let new = if is_whole { count } else { 0 };
            let wanted = 1 + usize::from(neighbour.is_some()) + new;
            assert_eq!(shown(&mut mailbox).len(), wanted, "{place}");
            assert_eq!(mailbox.take_warnings(), [""; 0], "{place}");
        }
    }
}

#[test]
fn nuls_of_a_message_are_no_loss() {
    let before = &mailbox(BLOCK + 100);
    let bodies = ["\0".repeat(3 * BLOCK) + "x\n"];
    for lost in 0..16 {
        let home = appended(before, &bodies);
        let whole = home.content();
        let torn = lose(&home, before.len(), |block| lost >> block & 1 == 1);
        drop(home.session());
        assert_eq!(torn, lost & 0b1001 != 0);
        assert_eq!(plain(&home.content()), plain(if torn { before } else { &whole }));
    }
}

#[test]
fn mail_of_a_neighbour_in_the_place_of_a_lost_append_stays_whatever_it_has() {
    let before = &mailbox(BLOCK);
    let mail = stored(&["neighbour"], 10).replace("xxx", "\0\0\0");
    for length in [0, 100, mail.len() - 1, mail.len(), mail.len() + 1, 5000] {
        let home = appended(before, &["x".repeat(length) + "\n"]);
        fs::OpenOptions::new()
            .write(true)
            .open(&home.inbox)
            .unwrap()
            .set_len(BLOCK as u64)
            .unwrap();
        home.neighbour(mail.as_bytes());
        drop(home.session());
        assert_eq!(plain(&home.content()), plain(&(before.clone() + &mail)));
    }
}

#[test]
fn what_a_neighbour_writes_into_the_fields_of_a_message_does_not_make_it_torn_or_whole() {
    let before = &mailbox(BLOCK);
    for torn in [false, true] {
        let home = appended(before, &["x".repeat(5000) + "\n"]);
        let at = home.content().rfind("Status:    ").unwrap() + "Status: ".len();
        let file = fs::OpenOptions::new().write(true).open(&home.inbox).unwrap();
        file.write_all_at(b"RO", at as u64).unwrap();
        let content = home.content();
        if torn {
            assert!(lose(&home, BLOCK, |block| block == 1));
        }
        assert_eq!(shown(&mut home.session()).len(), if torn { 1 } else { 2 });
        assert_eq!(plain(&home.content()), plain(if torn { before } else { &content }));
        assert_eq!(home.content().contains("Status: RO"), !torn);
    }
}

#[test]
fn a_torn_message_that_a_neighbour_moved_is_left_with_what_stands_behind_it() {
    let before = &mailbox(BLOCK);
    for (from, to) in [("Status:    ", "Status: "), ("Status:    ", "Status: RO    ")] {
        for mail in [String::new(), stored(&["neighbour"], 3), stored(&["neighbour"], 9000)] {
            let home = appended(before, &["x".repeat(9000) + "\n"]);
            lose(&home, BLOCK, |block| block == 1);
            let content = home.content();
            let (old, new) = content.split_at(BLOCK);
            let content = old.to_owned() + &new.replacen(from, to, 1) + &mail;
            fs::write(&home.inbox, &content).unwrap();
            let mut mailbox = home.session();
            assert_eq!(plain(&home.content()), plain(&content));
            assert_eq!(mailbox.take_warnings().len(), 1);
        }
    }
}
