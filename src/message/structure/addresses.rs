//! Lists of addresses as ENVELOPE has them (RFC 5322 section 3.4, and what the world sends).
//!
//! Nothing is refused here, and nothing is understood of an address: these are words for a person
//! to see. Where mail goes is decided elsewhere, by one stricter parser.

use super::Address;
use super::fields::spend;
use super::lexer::{Lexer, is_space};

/// Appends the addresses of a list.
///
/// ```text
/// address-list = (address *("," address)) / obs-addr-list
/// address      = mailbox / group
/// group        = display-name ":" [group-list] ";"
/// ```
///
/// Named quirks: items may be empty (obs-addr-list), a phrase may have dots (obs-phrase) and at
/// signs, a bracket and a quote may be left open, a group may be left open, a comment behind an
/// address that has no name is its name, an address may lack its domain.
pub(super) fn address_list(value: &[u8], list: &mut Vec<Address>, limit: &mut usize) {
    let mut lexer = Lexer::new(value);
    let mut in_group = false;
    let mut add = |address| {
        let room = spend(limit);
        if room {
            list.push(address);
        }
        room
    };
    loop {
        let words = Words::of(&mut lexer, false);
        let stop = lexer.next();
        let room = match stop {
            Some(b':') if !in_group => {
                in_group = true;
                add(Address { mailbox: Some(words.phrase), ..Address::default() })
            }
            Some(b'<') => add(angle_address(&mut lexer, words)),
            Some(b'@') => add(bare_address(&mut lexer, words)),
            _ if !words.any => true,
            _ => add(words.without_domain()),
        };
        if !room {
            return;
        }
        let ended = matches!(stop, None | Some(b';'));
        if ended && in_group {
            in_group = false;
            add(Address::default());
        }
        if stop.is_none() {
            return;
        }
    }
}

/// `name-addr`, behind its opening bracket.
fn angle_address(lexer: &mut Lexer, words: Words) -> Address {
    let mut address = Address { name: words.any.then_some(words.phrase), ..Address::default() };
    while lexer.eat(b'<') {}
    let mut local = Words::of(lexer, true);
    if !local.any && lexer.peek() == Some(b'@') {
        let route = route(lexer);
        if lexer.eat(b':') {
            address.route = Some(route);
            local = Words::of(lexer, true);
        } else {
            // Not a route, but an address without a local part.
            address.host = Some(route.get(1..).unwrap_or_default().to_vec());
        }
    }
    address.mailbox = Some(local.joined);
    if lexer.eat(b'@') {
        address.host = Some(domain(lexer).0);
    }
    address.host.get_or_insert_default();
    // Whatever else stands within or behind the brackets.
    lexer.take_while(|byte| !b">,".contains(&byte));
    lexer.eat(b'>');
    let (_, comment) = lexer.skip();
    if address.name.is_none() {
        address.name = comment;
    }
    behind(lexer);
    address
}

/// `addr-spec`, behind its at sign. Where brackets follow, it was a name.
fn bare_address(lexer: &mut Lexer, words: Words) -> Address {
    let (host, comment) = domain(lexer);
    if lexer.peek() == Some(b'<') {
        lexer.next();
        let mut name = words.phrase;
        name.push(b'@');
        name.extend_from_slice(&host);
        return angle_address(lexer, Words { any: true, phrase: name, ..Words::default() });
    }
    behind(lexer);
    Address {
        name: comment.or(words.comment),
        mailbox: Some(words.joined),
        host: Some(host),
        route: None,
    }
}

/// Passes over what stands between an address and the end of its item.
fn behind(lexer: &mut Lexer) {
    loop {
        lexer.skip();
        match lexer.peek() {
            None | Some(b',' | b';') => return,
            Some(b'"') => {
                lexer.quoted();
            }
            Some(_) => {
                lexer.next();
            }
        }
    }
}

/// `obs-route = "@" domain *("," "@" domain)`, without its colon.
fn route(lexer: &mut Lexer) -> Vec<u8> {
    let mut route = Vec::new();
    loop {
        lexer.skip();
        match lexer.peek() {
            Some(byte @ (b'@' | b',')) => {
                lexer.next();
                route.push(byte);
            }
            Some(b':' | b'>' | b';' | b'<') | None => return route,
            Some(_) => {
                let before = lexer.rest().len();
                route.extend_from_slice(&domain(lexer).0);
                if lexer.rest().len() == before {
                    return route;
                }
            }
        }
    }
}

/// `domain`, and the comment behind it.
fn domain(lexer: &mut Lexer) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut domain = Vec::new();
    loop {
        let (_, comment) = lexer.skip();
        if lexer.peek() == Some(b'[') {
            domain.extend_from_slice(lexer.take_while(|byte| byte != b']'));
            domain.extend(lexer.next());
            continue;
        }
        let before = domain.len();
        let joined = domain.is_empty() || domain.ends_with(b".") || lexer.peek() == Some(b'.');
        if joined {
            domain
                .extend_from_slice(lexer.take_while(|b| !is_space(b) && !is_stop(b) && b != b'('));
        }
        if domain.len() == before {
            return (domain, comment);
        }
    }
}

/// Where words end.
fn is_stop(byte: u8) -> bool {
    b"<>@,;:\"[]".contains(&byte)
}

/// The words before something that is none.
#[derive(Default)]
struct Words {
    any: bool,
    /// With one space between them.
    phrase: Vec<u8>,
    /// Without.
    joined: Vec<u8>,
    comment: Option<Vec<u8>>,
}

impl Words {
    /// Those that come next, `within` brackets or outside.
    fn of(lexer: &mut Lexer, within: bool) -> Self {
        let mut words = Self::default();
        loop {
            let (space, comment) = lexer.skip();
            words.comment = comment.or(words.comment);
            let word = match lexer.peek() {
                Some(b'"') => lexer.quoted(),
                // Brackets that close nothing are like letters.
                Some(b'>') if within => return words,
                Some(byte @ (b'>' | b'[' | b']')) => {
                    lexer.next();
                    vec![byte]
                }
                _ => lexer.take_while(|b| !is_space(b) && !is_stop(b) && b != b'(').to_vec(),
            };
            if word.is_empty()
                && matches!(lexer.peek(), None | Some(b'<' | b'@' | b',' | b';' | b':'))
            {
                return words;
            }
            if space && words.any {
                words.phrase.push(b' ');
            }
            words.any = true;
            words.phrase.extend_from_slice(&word);
            words.joined.extend_from_slice(&word);
        }
    }

    /// `root`, or only a name.
    fn without_domain(self) -> Address {
        let host = Some(Vec::new());
        Address { name: self.comment, mailbox: Some(self.phrase), host, route: None }
    }
}
