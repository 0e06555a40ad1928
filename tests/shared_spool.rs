//! One mailbox that we and our neighbours write and read at once, each with the locks that Debian
//! gives it: nothing is lost, doubled or torn, and nobody ever reads half a message.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use support::mta::{Kind, Mta};
use support::shared::{Actor, Shared};
use support::{mutt, need, need_account};

#[test]
fn procmail_and_we_deliver_into_one_mailbox_at_once() {
    if !need("procmail") {
        return;
    }
    let shared = Shared::new();
    let mut actors: Vec<Actor<'_>> = (0..3).map(|writer| shared.procmail(writer)).collect();
    actors.extend((0..2).map(|writer| shared.local_deliver(writer)));
    actors.extend([shared.lmtp(2), shared.popd()]);
    shared.by(actors);
    shared.look();
}

#[test]
fn maildrop_and_we_deliver_into_one_mailbox_at_once() {
    if !(need("maildrop") && need_account()) {
        return;
    }
    let shared = Shared::new();
    let mut actors: Vec<Actor<'_>> = (0..3).map(|writer| shared.maildrop(writer)).collect();
    actors.extend((0..2).map(|writer| shared.local_deliver(writer)));
    actors.extend([shared.lmtp(2), shared.popd()]);
    shared.by(actors);
    shared.look();
}

#[test]
fn dovecot_delivers_flags_and_expunges_while_we_deliver() {
    if !need("doveadm") {
        return;
    }
    let shared = Shared::new();
    let mut actors: Vec<Actor<'_>> = (0..2).map(|writer| shared.lda(writer)).collect();
    actors.extend((3..7).map(|writer| shared.local_deliver(writer)));
    actors.extend([shared.lmtp(2), shared.imap(), shared.popd()]);
    shared.by(actors);
    shared.look();
}

#[test]
fn mutt_flags_and_moves_messages_while_we_deliver() {
    if !mutt::possible_as_user() {
        return;
    }
    let shared = Shared::new();
    let mut actors: Vec<Actor<'_>> = (0..2).map(|writer| shared.local_deliver(writer)).collect();
    actors.extend([shared.lmtp(2), shared.mutt(), shared.popd()]);
    shared.by(actors);
    shared.look();
}

#[test]
fn postfix_and_we_deliver_into_one_mailbox_at_once() {
    if !Kind::Postfix.need() {
        return;
    }
    let shared = Shared::new();
    let mta = Mta::start_local(&shared.site);
    let mut actors: Vec<Actor<'_>> = (0..3).map(|writer| shared.postfix(&mta, writer)).collect();
    actors.extend((0..2).map(|writer| shared.local_deliver(writer)));
    actors.extend([shared.lmtp(2), shared.popd()]);
    shared.by(actors);
    shared.look();
}

#[test]
fn all_of_them_share_one_mailbox_at_once() {
    if !(need("procmail") && need("doveadm") && mutt::possible_as_user() && Kind::Postfix.need()) {
        return;
    }
    let shared = Shared::new();
    let mta = Mta::start_local(&shared.site);
    let actors = vec![
        shared.procmail(0),
        shared.procmail(1),
        shared.lda(0),
        shared.postfix(&mta, 0),
        shared.postfix(&mta, 1),
        shared.local_deliver(0),
        shared.lmtp(1),
        shared.imap(),
        shared.mutt(),
        shared.popd(),
    ];
    shared.by(actors);
    shared.look();
}
