//! Many sessions of imapd that do anything at once, while mail comes, held to a model of the
//! mailboxes.
//!
//! `HIKYAKU_STRESS_SECONDS=60` lets them work for longer, `HIKYAKU_STRESS_SEED=7` chooses what they
//! do. (When they do it nobody can say.)

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::time::{Duration, Instant};

use support::Dice;
use support::store::Form;
use support::stress::Stress;
use support::stress::session::Session;

/// How many sessions there are.
const SESSIONS: usize = 8;

/// So many commands each of them says between two looks at everything.
const ROUND: usize = 40;

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |value| value.parse().unwrap())
}

/// They all do something, and then it is looked what has become of it.
fn work(form: Form) {
    let (seed, seconds) = (number("HIKYAKU_STRESS_SEED", 1), number("HIKYAKU_STRESS_SECONDS", 6));
    support::note(&format!("{form:?}: HIKYAKU_STRESS_SEED={seed}"));
    let stress = Stress::new(form, SESSIONS);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut sessions: Vec<Session> =
        (0..SESSIONS).map(|n| Session::new(&stress, n, seed)).collect();
    let mut dice = Dice::new(seed);
    loop {
        std::thread::scope(|scope| {
            for session in &mut sessions {
                scope.spawn(|| (0..ROUND).for_each(|_| session.step()));
            }
            for _ in 0..dice.below(10) {
                stress.deliver();
            }
        });
        let is_over = Instant::now() >= until;
        stress.look(&mut sessions, is_over);
        if is_over {
            break;
        }
    }
    stress.tell(&format!("{form:?}"));
    let log = stress.server.log();
    assert!(!log.contains("panicked"), "{log}");
    for line in log.lines().filter(|line| !line.contains("Login: ") && !line.contains("Disconn")) {
        support::note(line);
    }
}

#[test]
fn many_sessions_of_an_mbox_know_the_same_and_lose_nothing() {
    work(Form::Mbox);
}

#[test]
fn many_sessions_of_a_maildir_know_the_same_and_lose_nothing() {
    work(Form::Maildir);
}
