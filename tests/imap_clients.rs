//! Mail programs as people use them, at imapd and popd: they fetch, mark, move and delete while mail
//! is delivered and others do the same, and nothing is lost, doubled or marked wrong on either side.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

#[path = "imap_clients/alpine.rs"]
mod alpine;
#[path = "imap_clients/curl.rs"]
mod curl;
#[path = "imap_clients/fetchers.rs"]
mod fetchers;
#[path = "imap_clients/host.rs"]
mod host;
#[path = "imap_clients/imapfilter.rs"]
mod imapfilter;
#[path = "imap_clients/letters.rs"]
mod letters;
#[path = "imap_clients/mbsync.rs"]
mod mbsync;
#[path = "imap_clients/mirror.rs"]
mod mirror;
#[path = "imap_clients/mutt.rs"]
mod mutt;
#[path = "imap_clients/offlineimap.rs"]
mod offlineimap;
#[path = "imap_clients/openings.rs"]
mod openings;
#[path = "imap_clients/python.rs"]
mod python;
#[path = "imap_clients/work.rs"]
mod work;
