//! The inputs that fuzzing starts with, and those that it found something with, through the checks
//! of the fuzz targets (`make fuzz`), without a fuzzer.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking, and say with which input"
)]

use std::fs;
use std::path::Path;

#[path = "../fuzz/checks/addresses.rs"]
mod addresses;
#[path = "../fuzz/checks/aliases.rs"]
mod aliases;
#[path = "../fuzz/checks/cache.rs"]
mod cache;
#[path = "../fuzz/checks/command.rs"]
mod command;
#[path = "../fuzz/checks/data.rs"]
mod data;
#[path = "../fuzz/checks/dice.rs"]
mod dice;
#[path = "../fuzz/checks/forward.rs"]
mod forward;
#[path = "../fuzz/checks/header.rs"]
mod header;
#[path = "../fuzz/checks/home.rs"]
mod home;
#[path = "../fuzz/checks/imap_command.rs"]
mod imap_command;
#[path = "../fuzz/checks/imap_session.rs"]
mod imap_session;
#[path = "../fuzz/checks/index.rs"]
mod index;
#[path = "../fuzz/checks/mbox.rs"]
mod mbox;
#[path = "support/imap_play/node.rs"]
mod node;
#[path = "../fuzz/checks/proxy.rs"]
mod proxy;
#[path = "../fuzz/checks/search.rs"]
mod search;
#[path = "../fuzz/checks/session.rs"]
mod session;
#[path = "../fuzz/checks/structure.rs"]
mod structure;
#[path = "../fuzz/checks/text.rs"]
mod text;
#[path = "support/imap_play/told.rs"]
mod told;

fn replay(target: &str, check: impl Fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs: Vec<_> =
        fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    assert!(!inputs.is_empty());
    for input in inputs {
        println!("{}", input.display());
        check(&fs::read(input).unwrap());
    }
}

#[test]
fn an_address_is_read_back_as_it_is_printed() {
    replay("addresses", addresses::check);
}

#[test]
fn a_table_reads_as_its_manual_page_says_with_an_index_and_without() {
    replay("aliases", aliases::check);
}

#[test]
fn a_cache_of_any_content_gives_what_stands_whole_in_it_and_takes_in_more() {
    replay("cache", cache::check);
}

#[test]
fn a_command_reads_the_same_when_it_is_written_again() {
    replay("command", command::check);
}

#[test]
fn the_text_of_a_message_ends_where_it_ends_and_is_what_was_sent() {
    replay("data", data::check);
}

#[test]
fn a_forward_file_is_understood_or_its_line_is_named() {
    replay("forward", forward::check);
}

#[test]
fn a_message_is_one_in_the_mailbox_and_comes_back_as_it_was() {
    replay("header", header::check);
}

#[test]
fn an_imap_command_reads_the_same_when_it_is_written_again_and_ends_where_it_ends() {
    replay("imap_command", imap_command::check);
}

#[test]
fn an_imap_client_is_told_what_may_be_told_and_each_command_is_answered_once() {
    replay("imap_session", imap_session::check);
}

#[test]
fn an_index_of_any_content_is_used_or_refused_and_reads_the_same_when_it_is_written_again() {
    replay("index", index::check);
}

#[test]
fn an_mbox_of_any_content_reads_as_its_manual_page_says() {
    replay("mbox", |input| {
        mbox::check_listing(input);
        mbox::check_reading(input);
    });
}

#[test]
fn an_mbox_of_any_content_keeps_its_messages_when_others_come_and_go() {
    replay("mbox", |input| mbox::check_changing(input, 16));
}

#[test]
fn an_mbox_of_any_content_goes_through_a_life_with_sessions_and_neighbours() {
    replay("mbox", |input| mbox::check_life(input, 40));
}

#[test]
fn a_proxy_header_names_who_was_written_and_takes_its_own_bytes() {
    replay("proxy", proxy::check);
}

#[test]
fn what_is_searched_says_the_same_in_whatever_pieces_it_comes() {
    replay("search", search::check);
}

#[test]
fn a_session_owes_its_client_so_many_replies_and_stores_what_was_sent() {
    replay("session", session::check);
}

#[test]
fn the_structure_of_any_message_is_bounded_and_its_parts_lie_within_each_other() {
    replay("structure", structure::check);
}
