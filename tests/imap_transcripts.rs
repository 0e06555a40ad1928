//! IMAP as the RFCs have it: each rule is a conversation in `tests/transcripts/imap/`, and a line of
//! `RULES.md` there.
//!
//! `TRANSCRIPT=store cargo test --test imap_transcripts` plays those whose name has `store` in it,
//! and `MAIL_UNDER_TEST=dovecot` asks Dovecot only.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use support::imap_play::play::{parse, play_all};
use support::imap_play::served::{Dovecot, Ours};
use support::rules::check_rules;
use support::{need, need_root};

fn asked(who: &str) -> bool {
    std::env::var("MAIL_UNDER_TEST").map_or(true, |wanted| wanted == who)
}

#[test]
fn our_imapd_keeps_the_rules_over_mboxes() {
    if asked("ours") {
        play_all(&mut Ours::new(false));
    }
}

#[test]
fn our_imapd_keeps_the_rules_over_maildirs() {
    if asked("ours") {
        play_all(&mut Ours::new(true));
    }
}

#[test]
fn dovecot_keeps_the_same_rules() {
    if asked("dovecot") && need("dovecot") && need_root() {
        play_all(&mut Dovecot::start());
    }
}

#[test]
fn the_table_of_rules_names_every_transcript_and_nothing_that_is_not_there() {
    let differs = |name: &str, text: &str| parse(name, text).differs("dovecot");
    check_rules("imap", "Dovecot", &differs);
}
