//! Commands of IMAP's clients as another parser reads them, imap-codec, where both know the command.
//!
//! Not among the checks of `cargo test`: the suite is built without imap-codec.

use hikyaku::imap::command::{Command, Dialect, Error, FetchItem, parse};

use imap_codec::CommandCodec;
use imap_codec::decode::Decoder;

pub fn check(input: &[u8]) {
    // The first command, if it is one of printable characters, of both parsers' size.
    let Some(end) = memchr::memmem::rfind(input, b"\r\n") else {
        return;
    };
    let text = &input[..end];
    let is_plain = |byte: &u8| matches!(byte, b' '..=b'~' | b'\r' | b'\n');
    if text.len() > 1000 || !text.iter().all(is_plain) || is_known_to_differ(text) {
        return;
    }
    let ours = parse(text, Dialect::default());
    let whole = &input[..end + 2];
    let theirs = match CommandCodec::default().decode(whole) {
        Ok((rest, command)) if rest.is_empty() => Some(command),
        // There is more than one command.
        Ok(_) => return,
        Err(_) => None,
    };
    match (ours, theirs) {
        (Ok(ours), Some(theirs)) => assert_eq!(ours.tag, theirs.tag.as_ref()),
        (Err(_), None) => {}
        // They know fewer of the extensions.
        (Ok(ours), None) => assert!(is_ours(&ours.command), "{ours:?}"),
        (Err(ours), Some(theirs)) => {
            let is_limit = matches!(ours.error, Error::Name | Error::TooMany(_));
            // They know extensions that are not parsed here, and APPEND with its message.
            let is_theirs = ours.error == Error::Unknown
                || [
                    "a system flag that there is",
                    "an item of STATUS",
                    "a selection option of LIST",
                    "a return option of LIST",
                    "a parameter of SELECT",
                    "a modifier of FETCH",
                    "an item of FETCH",
                    "a search key",
                    "a shorter field",
                ]
                .iter()
                .any(|what| ours.error == Error::Wanted(what));
            assert!(is_limit || is_theirs, "{:?}: {theirs:?}", ours.error);
        }
    }
}

/// What the grammar decides, and they decide otherwise: zeros that begin a number, lists that are
/// empty, a space that ends one or the command (a quirk of ours), base64 that is none.
fn is_known_to_differ(text: &[u8]) -> bool {
    let pair = |one: &[u8]| matches!(one, [b'0', b'0'..=b'9'] | b"()" | b" )" | b" \r");
    let upper = text.to_ascii_uppercase();
    let count = |word: &[u8]| memchr::memmem::find_iter(&upper, word).count();
    text.windows(2).any(pair)
        // They take fewer keys within each other.
        || count(b"NOT") + count(b"OR") + count(b"(") > 7
        || text.ends_with(b" ")
        || text.contains(&b'$')
        || count(b"AUTHENTICATE") > 0
}

fn is_ours(command: &Command) -> bool {
    match command {
        Command::Namespace | Command::StartTls => true,
        Command::Search { search, .. } => {
            search.returns.is_some()
                || search.charset.is_some()
                || format!("{:?}", search.keys).contains("ModSeq")
        }
        Command::List(list) => list.select.is_some(),
        Command::Create(_, uses) => !uses.is_empty(),
        Command::Select(_, with) | Command::Examine(_, with) => {
            with.condstore || with.resync.is_some()
        }
        Command::Fetch { fetch, .. } => {
            fetch.changed_since.is_some() || fetch.items.contains(&FetchItem::ModSeq)
        }
        Command::Store { store, .. } => store.unchanged_since.is_some(),
        _ => false,
    }
}
