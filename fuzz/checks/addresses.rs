//! No text makes an address that would not be read back as it is printed.

use hikyaku::message::address::{self, Address, Alphabet, MAX_DOMAIN, MAX_LOCAL_PART};
use hikyaku::message::list;

const ORIGIN: &str = "here.example";

pub fn check(input: &[u8]) {
    check_path(input);
    check_list(input);
}

fn check_path(input: &[u8]) {
    let Ok((mailbox, rest)) = address::path(input, Alphabet::Ascii) else {
        return;
    };
    assert!(input.ends_with(rest));
    let Some(mailbox) = mailbox else {
        assert!(input.trim_ascii_start().starts_with(b"<"));
        return;
    };
    let address = mailbox.clone().or_domain(ORIGIN);
    check_address(&address);
    // Whatever had the domain has it again; the parameters stay what they are.
    let again = [b"<", address.to_string().as_bytes(), b">", rest].concat();
    let parameters = if rest.is_empty() || rest.starts_with(b" ") { rest } else { return };
    let (same, left) = address::path(&again, Alphabet::Ascii).unwrap();
    assert_eq!(same.unwrap().or_domain("other.example"), address);
    assert_eq!(left, parameters);
}

fn check_list(input: &[u8]) {
    let Ok(found) = list::addresses(input, ORIGIN) else {
        return;
    };
    for address in &found {
        check_address(address);
    }
    let printed: Vec<String> = found.iter().map(ToString::to_string).collect();
    for printed in [printed.join(", "), format!("<{}>", printed.join(">, \"x\" <"))] {
        let printed = if found.is_empty() { String::new() } else { printed };
        assert_eq!(list::addresses(printed.as_bytes(), "other.example").unwrap(), found);
    }
}

fn check_address(address: &Address) {
    assert!(!address.local().is_empty() && address.local().len() <= MAX_LOCAL_PART);
    assert!(!address.domain().is_empty() && address.domain().len() <= MAX_DOMAIN);
    let printed = address.to_string();
    // It is written into headers, queue files and commands as it is.
    assert!(printed.bytes().all(|byte| (b' '..=b'~').contains(&byte)), "{printed:?}");
    assert_eq!(Address::parse(printed.as_bytes()).as_ref(), Ok(address));
}
