//! Our own store and all neighbours on one mbox at once: nothing is lost, torn or doubled, and a UID
//! always means the same message.
//!
//! `HIKYAKU_SHARED_SECONDS=300` lets them work for longer.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use std::time::Duration;

use support::shared::{Actor, Shared};
use support::{mutt, need};

/// How long they work at it.
fn time() -> Duration {
    let seconds = std::env::var("HIKYAKU_SHARED_SECONDS").ok();
    Duration::from_secs(seconds.map_or(8, |seconds| seconds.parse().unwrap()))
}

/// Who delivers, and who works by our programs and handles.
fn actors(shared: &Shared) -> Vec<Actor<'_>> {
    let mut actors: Vec<Actor<'_>> = (0..10).map(|writer| shared.local_deliver(writer)).collect();
    actors.extend([
        shared.procmail(0),
        shared.procmail(1),
        shared.popd(),
        shared.appender(20),
        shared.session(0),
        shared.session(1),
    ]);
    actors
}

#[test]
fn our_store_dovecot_and_mutt_work_on_one_mailbox_while_mail_comes() {
    if !(need("procmail") && need("doveadm") && mutt::possible_as_user()) {
        return;
    }
    let shared = Shared::lasting(time());
    let mut actors = actors(&shared);
    actors.extend([shared.imap(), shared.mutt()]);
    shared.by(actors);
    shared.look_by_store();
    shared.look();
}

/// Among programs that only deliver and remove no keyword may be lost either. (mutt and Dovecot write
/// what they knew before.)
#[test]
fn our_store_loses_no_keyword_while_mail_comes_and_goes() {
    if !need("procmail") {
        return;
    }
    let shared = Shared::lasting(time());
    shared.by(actors(&shared));
    shared.look_by_store();
    shared.look();
}
