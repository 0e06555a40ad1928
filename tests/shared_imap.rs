//! Clients of our imapd and all neighbours on one mbox at once: nothing is lost, torn or doubled, and
//! a UID always means the same message.
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

use std::net::SocketAddr;
use std::time::Duration;

use support::run::Server;
use support::shared::{Actor, Shared};
use support::{mutt, need, wait_until};

/// How long they work at it.
fn time() -> Duration {
    let seconds = std::env::var("HIKYAKU_SHARED_SECONDS").ok();
    Duration::from_secs(seconds.map_or(8, |seconds| seconds.parse().unwrap()))
}

/// Who only delivers.
fn deliver(shared: &Shared) -> Vec<Actor<'_>> {
    let mut actors: Vec<Actor<'_>> = (0..6).map(|writer| shared.local_deliver(writer)).collect();
    actors.extend([shared.procmail(0), shared.procmail(1)]);
    actors
}

/// Looks at all that is there, when nobody is at work any more.
fn look(shared: &Shared, server: &Server, address: SocketAddr, keywords: bool) {
    shared.look_by_imapd(address, keywords);
    wait_until("the sessions to end", || server.monitors().is_empty().then_some(()));
    shared.look();
    assert!(!server.log().contains("panicked"));
}

#[test]
fn our_imapd_dovecot_and_mutt_work_on_one_mailbox_while_mail_comes() {
    if !(need("procmail") && need("doveadm") && mutt::possible_as_user()) {
        return;
    }
    let shared = Shared::lasting(time());
    let (server, address) = shared.site.serve("imapd");
    let mut actors = deliver(&shared);
    actors.extend((0..3).map(|number| shared.imapd(address, number)));
    actors.extend([shared.popd(), shared.imap(), shared.mutt()]);
    shared.by(actors);
    look(&shared, &server, address, false);
}

/// Without mutt, which could not bear it, clients wait by IDLE as well, and no mark of Dovecot's is lost.
#[test]
fn our_imapd_and_dovecot_work_on_one_mailbox_while_clients_wait() {
    if !(need("procmail") && need("doveadm")) {
        return;
    }
    let shared = Shared::lasting(time());
    shared.part();
    let (server, address) = shared.site.serve("imapd");
    let mut actors = deliver(&shared);
    actors.extend((0..3).map(|number| shared.imapd(address, number)));
    actors.extend((0..2).map(|_| shared.idler(address)));
    actors.extend([shared.popd(), shared.imap(), shared.lda(0)]);
    shared.by(actors);
    look(&shared, &server, address, false);
}

/// Among programs that only deliver and remove no keyword may be lost either. (mutt and Dovecot write
/// what they knew before.)
#[test]
fn our_imapd_loses_no_keyword_while_mail_comes_and_goes() {
    if !need("procmail") {
        return;
    }
    let shared = Shared::lasting(time());
    let (server, address) = shared.site.serve("imapd");
    let mut actors = deliver(&shared);
    actors.extend((0..4).map(|number| shared.imapd(address, number)));
    actors.extend([shared.popd(), shared.idler(address), shared.lmtp(9)]);
    shared.by(actors);
    look(&shared, &server, address, true);
}
