//! Commands of IMAP's clients: the same from pieces of any cut, within their limits, read back as
//! they are written; and what a stranger hears before login is whole lines, whatever the cut.

use std::fmt::Write;

use hikyaku::imap::command::{
    AppendTo, Command, Dialect, Fetch, FetchItem, Flag, Key, List, MAX_DEPTH, MAX_FLAGS, MAX_KEYS,
    MAX_PATTERNS, MAX_RANGES, Moment, Parameters, Partial, Relation, ReturnOption, Search,
    SelectOption, SequenceSet, StatusItem, Store, StoreAction, append, append_more, parse,
    parse_before_login,
};
use hikyaku::imap::input::{Event, Limits, Reader};
use hikyaku::imap::login::{Action, Session};
use hikyaku::imap::reply;
use hikyaku::sasl::{self, Answer, Question, Secret, Terms, Tls};

use base64ct::{Base64, Encoding};

use crate::dice::Dice;

const DIALECTS: [Dialect; 2] = [Dialect { utf8: false }, Dialect { utf8: true }];

pub fn check(input: &[u8]) {
    let mut dice = Dice::of(input);
    let most = [1, 2, 10, 100, 2000][dice.below(5)];
    let limits = [Limits::BEFORE_LOGIN, Limits::AFTER_LOGIN, Limits { text: 60, literals: 20 }]
        [dice.below(3)];
    let told = read(limits, std::iter::once(input));
    assert_eq!(read(limits, pieces(input, most, &mut dice)), told);
    for text in told.iter().filter_map(Told::text).chain([input]) {
        check_text(text);
    }
    check_login(input, most, &mut dice);
}

fn pieces<'a>(input: &'a [u8], most: usize, dice: &mut Dice) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = input;
    std::iter::from_fn(move || {
        let (piece, behind) = rest.split_at(rest.len().min(dice.below(most + 1)));
        let ended = rest.is_empty();
        rest = behind;
        (!ended).then_some(piece)
    })
}

/// What came of the input, octets of one literal together.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Command(Vec<u8>),
    TooLong(Option<String>),
    /// What stood before it, and what became of it.
    Literal(Vec<u8>, &'static str),
    Streamed(Vec<u8>),
    Amid(bool),
}

impl Told {
    fn text(&self) -> Option<&[u8]> {
        match self {
            Self::Command(text) | Self::Literal(text, _) => Some(text),
            _ => None,
        }
    }
}

fn read<'a>(limits: Limits, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Told> {
    let mut reader = Reader::new(limits);
    let mut told = Vec::new();
    for mut rest in pieces {
        loop {
            match reader.take(&mut rest) {
                Event::More => break,
                Event::Command(text) => told.push(Told::Command(text)),
                Event::TooLong(tag) => told.push(Told::TooLong(tag)),
                Event::Chunk(octets) => match told.last_mut() {
                    Some(Told::Streamed(all)) => all.extend_from_slice(octets),
                    _ => told.push(Told::Streamed(octets.to_vec())),
                },
                Event::End => {}
                Event::Literal(literal) => {
                    let text = reader.text().to_vec();
                    assert!(text.ends_with(b"}\r\n"));
                    let fate = match append(&text, DIALECTS[0]) {
                        Some(Ok(to)) => {
                            assert_eq!(to.message.size, literal.size);
                            assert_eq!(to.message.binary, literal.binary);
                            reader.stream();
                            "streamed"
                        }
                        _ if reader.fits() && literal.size % 5 != 4 => {
                            reader.keep();
                            "kept"
                        }
                        _ => {
                            reader.refuse();
                            "refused"
                        }
                    };
                    told.push(Told::Literal(text, fate));
                }
            }
            // An announcement's line end may be one more than was sent.
            let literals = text_limit(&told);
            assert!(reader.text().len() <= limits.text + limits.literals + literals);
        }
        assert!(rest.is_empty());
    }
    told.push(Told::Amid(reader.is_amid_command()));
    told
}

fn text_limit(told: &[Told]) -> usize {
    2 * told.iter().filter(|one| matches!(one, Told::Literal(..))).count() + 2
}

fn check_text(text: &[u8]) {
    for dialect in DIALECTS {
        match parse(text, dialect) {
            Ok(tagged) => {
                check_command(&tagged.command);
                let line = written(&tagged.tag, &tagged.command, dialect.utf8);
                assert_eq!(parse(&line, dialect), Ok(tagged), "{}", line.escape_ascii());
            }
            Err(failure) => {
                let mut out = Vec::new();
                reply::failure(&failure, &mut out);
                assert_eq!(lines(&out), 1);
            }
        }
        if let Some(Ok(to)) = append(text, dialect) {
            let line = append_line(&to, dialect.utf8);
            assert_eq!(append(&line, dialect), Some(Ok(to)), "{}", line.escape_ascii());
        }
    }
    let _ = append_more(text);
    // Before login fewer are known, and those mean the same.
    if let Ok(tagged) = parse_before_login(text) {
        assert_eq!(parse(text, DIALECTS[0]), Ok(tagged));
    }
}

/// How many whole lines these are.
fn lines(out: &[u8]) -> usize {
    assert!(out.ends_with(b"\r\n") && out.is_ascii(), "{}", out.escape_ascii());
    let ends = out.windows(2).filter(|two| two == b"\r\n").count();
    assert!(!out.contains(&0));
    assert_eq!(out.iter().filter(|byte| b"\r\n".contains(byte)).count(), 2 * ends);
    ends
}

/// What is made of a command is bounded.
fn check_command(command: &Command) {
    match command {
        Command::Search { search, .. } => {
            let mut keys = 0;
            search.keys.iter().for_each(|key| check_key(key, 1, &mut keys));
            assert!(keys <= MAX_KEYS);
        }
        Command::Fetch { fetch: Fetch { set, .. }, .. } | Command::Copy { set, .. } => {
            if let SequenceSet::Ranges(ranges) = set {
                assert!((1..=MAX_RANGES).contains(&ranges.len()));
            }
            assert!(set.ranges(7).all(|range| !range.is_empty()));
        }
        Command::Store { store, .. } => assert!(store.flags.len() <= MAX_FLAGS),
        Command::List(list) => assert!((1..=MAX_PATTERNS).contains(&list.patterns.len())),
        _ => {}
    }
}

fn check_key(key: &Key, depth: usize, keys: &mut usize) {
    // An OR between each.
    assert!(depth <= 2 * MAX_DEPTH + 2);
    *keys += 1;
    match key {
        Key::Not(one) => check_key(one, depth + 1, keys),
        Key::Or(all) => {
            assert!(all.len() > 1 && !all.iter().any(|key| matches!(key, Key::Or(_))));
            *keys += all.len() - 2;
            for key in all {
                check_key(key, depth + 1, keys);
            }
        }
        Key::And(all) => all.iter().for_each(|key| check_key(key, depth + 1, keys)),
        _ => {}
    }
}

/// A line of APPEND that says the same.
fn append_line(to: &AppendTo, utf8: bool) -> Vec<u8> {
    let mut out = format!("{} APPEND ", to.tag).into_bytes();
    reply::mailbox(&to.mailbox, utf8, &mut out);
    out.push(b' ');
    flag_list(&to.message.flags, &mut out);
    out.push(b' ');
    if let Some(date) = to.message.date {
        reply::date_time(date.at, date.zone, &mut out);
        out.push(b' ');
    }
    if to.message.binary {
        reply::literal8(to.message.size, &mut out);
    } else {
        reply::literal(to.message.size, &mut out);
    }
    out
}

/// A line that says the same.
fn written(tag: &str, command: &Command, utf8: bool) -> Vec<u8> {
    let mut out = format!("{tag} ").into_bytes();
    let (name, arguments) = arguments(command, utf8);
    out.extend_from_slice(name.as_bytes());
    for argument in arguments {
        out.push(b' ');
        out.extend_from_slice(&argument);
    }
    out
}

fn arguments(command: &Command, utf8: bool) -> (&'static str, Vec<Vec<u8>>) {
    let name = |name: &String| made(|out| reply::mailbox(name, utf8, out));
    let uid = |uid: &bool, with: &'static str, without| if *uid { with } else { without };
    match command {
        Command::Capability => ("CAPABILITY", vec![]),
        Command::Noop => ("NOOP", vec![]),
        Command::Logout => ("LOGOUT", vec![]),
        Command::StartTls => ("STARTTLS", vec![]),
        Command::Namespace => ("NAMESPACE", vec![]),
        Command::Idle => ("IDLE", vec![]),
        Command::Check => ("CHECK", vec![]),
        Command::Close => ("CLOSE", vec![]),
        Command::Unselect => ("UNSELECT", vec![]),
        Command::Id(pairs) => {
            let pair = |(field, value): &(Vec<u8>, Option<Vec<u8>>)| {
                made(|out| {
                    reply::string(field, out);
                    out.push(b' ');
                    reply::nstring(value.as_deref(), out);
                })
            };
            ("ID", vec![list(pairs.iter().map(pair))])
        }
        Command::Login { user, password: Secret(password) } => {
            ("LOGIN", vec![astring(user), astring(password)])
        }
        Command::Authenticate { mechanism, initial } => {
            let mut arguments = vec![mechanism.clone().into_bytes()];
            arguments.extend(initial.as_ref().map(|Secret(bytes)| match bytes.as_slice() {
                [] => b"=".to_vec(),
                bytes => Base64::encode_string(bytes).into_bytes(),
            }));
            ("AUTHENTICATE", arguments)
        }
        Command::Enable(names) => {
            ("ENABLE", names.iter().map(|name| name.clone().into()).collect())
        }
        Command::Select(mailbox, with) => ("SELECT", parameters(name(mailbox), with)),
        Command::Examine(mailbox, with) => ("EXAMINE", parameters(name(mailbox), with)),
        Command::Create(mailbox, uses) => {
            let uses = format!("(USE ({}))", uses.join(" ")).into_bytes();
            ("CREATE", vec![name(mailbox), uses])
        }
        Command::Delete(mailbox) => ("DELETE", vec![name(mailbox)]),
        Command::Rename { from, to } => ("RENAME", vec![name(from), name(to)]),
        Command::Subscribe(mailbox) => ("SUBSCRIBE", vec![name(mailbox)]),
        Command::Unsubscribe(mailbox) => ("UNSUBSCRIBE", vec![name(mailbox)]),
        Command::List(list) => ("LIST", list_arguments(list, utf8)),
        Command::Lsub { reference, pattern } => {
            ("LSUB", vec![name(reference), self::pattern(pattern, utf8)])
        }
        Command::Status(mailbox, items) => ("STATUS", vec![name(mailbox), status_items(items)]),
        Command::Expunge(None) => ("EXPUNGE", vec![]),
        Command::Expunge(Some(set)) => ("UID EXPUNGE", vec![set.to_string().into()]),
        Command::Search { uid: u, search } => {
            (uid(u, "UID SEARCH", "SEARCH"), search_arguments(search))
        }
        Command::Fetch { uid: u, fetch } => (uid(u, "UID FETCH", "FETCH"), fetch_arguments(fetch)),
        Command::Store { uid: u, store } => (uid(u, "UID STORE", "STORE"), store_arguments(store)),
        Command::Copy { uid: u, set, mailbox } => {
            (uid(u, "UID COPY", "COPY"), vec![set.to_string().into(), name(mailbox)])
        }
        Command::Move { uid: u, set, mailbox } => {
            (uid(u, "UID MOVE", "MOVE"), vec![set.to_string().into(), name(mailbox)])
        }
    }
}

fn made(write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut out = Vec::new();
    write(&mut out);
    out
}

fn astring(text: &[u8]) -> Vec<u8> {
    made(|out| reply::astring(text, out))
}

fn list(items: impl IntoIterator<Item = Vec<u8>>) -> Vec<u8> {
    let items: Vec<_> = items.into_iter().collect();
    [b"(", &items.join(&b' ')[..], b")"].concat()
}

fn flag_list(flags: &[Flag], out: &mut Vec<u8>) {
    assert!(flags.iter().all(|flag| reply::is_flag(flag.as_str())));
    reply::flags(flags.iter().map(Flag::as_str), out);
}

/// A pattern is written like a name: in strings wildcards are wildcards, too.
fn pattern(pattern: &str, utf8: bool) -> Vec<u8> {
    made(|out| reply::mailbox(pattern, utf8, out))
}

fn parameters(name: Vec<u8>, Parameters { condstore, resync }: &Parameters) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    if *condstore {
        all.push(b"CONDSTORE".to_vec());
    }
    if let Some(resync) = resync {
        let mut text = format!("QRESYNC ({} {}", resync.uid_validity, resync.modseq);
        if let Some(known) = &resync.known {
            let _ = write!(text, " {known}");
        }
        if let Some((numbers, uids)) = &resync.matches {
            let _ = write!(text, " ({numbers} {uids})");
        }
        all.push((text + ")").into_bytes());
    }
    if all.is_empty() { vec![name] } else { vec![name, list(all)] }
}

fn status_items(items: &[StatusItem]) -> Vec<u8> {
    list(items.iter().map(|item| item.as_str().into()))
}

fn list_arguments(list: &List, utf8: bool) -> Vec<Vec<u8>> {
    let List { select, reference, patterns, returns } = list;
    let patterns = patterns.iter().map(|one| pattern(one, utf8));
    let mut all = Vec::new();
    if let Some(options) = select {
        let word = |option: &SelectOption| match option {
            SelectOption::Subscribed => b"SUBSCRIBED".to_vec(),
            SelectOption::Remote => b"REMOTE".to_vec(),
            SelectOption::RecursiveMatch => b"RECURSIVEMATCH".to_vec(),
            SelectOption::SpecialUse => b"SPECIAL-USE".to_vec(),
        };
        all.push(self::list(options.iter().map(word)));
    }
    all.push(made(|out| reply::mailbox(reference, utf8, out)));
    match select {
        Some(_) => all.push(self::list(patterns)),
        None => all.extend(patterns),
    }
    if !returns.is_empty() {
        let word = |option: &ReturnOption| match option {
            ReturnOption::Subscribed => b"SUBSCRIBED".to_vec(),
            ReturnOption::Children => b"CHILDREN".to_vec(),
            ReturnOption::SpecialUse => b"SPECIAL-USE".to_vec(),
            ReturnOption::Status(items) => [b"STATUS ", &status_items(items)[..]].concat(),
        };
        all.push(b"RETURN".to_vec());
        all.push(self::list(returns.iter().map(word)));
    }
    all
}

fn search_arguments(search: &Search) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    if let Some(returns) = &search.returns {
        all.push(b"RETURN".to_vec());
        all.push(list(returns.iter().map(|one| format!("{one:?}").into())));
    }
    if let Some(charset) = &search.charset {
        all.push(b"CHARSET".to_vec());
        all.push(astring(charset));
    }
    all.extend(search.keys.iter().map(key));
    all
}

fn key(key: &Key) -> Vec<u8> {
    let flag = |prefix: &str, flag: &Flag| match flag {
        Flag::Keyword(keyword) => format!("{prefix}KEYWORD {keyword}").into_bytes(),
        flag => format!("{prefix}{}", flag.as_str().trim_start_matches('\\')).into_bytes(),
    };
    match key {
        Key::All => "ALL".into(),
        Key::Numbers(set) => set.to_string().into(),
        Key::Uids(set) => format!("UID {set}").into(),
        Key::Has(one) => flag("", one),
        Key::HasNot(one) => flag("UN", one),
        Key::Recent => "RECENT".into(),
        Key::Old => "OLD".into(),
        Key::New => "NEW".into(),
        Key::Header { field, text } => {
            [b"HEADER ", &astring(field)[..], b" ", &astring(text)].concat()
        }
        Key::Body(text) => [b"BODY ", &astring(text)[..]].concat(),
        Key::Text(text) => [b"TEXT ", &astring(text)[..]].concat(),
        Key::Date(moment, relation, date) => {
            let sent = if *moment == Moment::Sent { "SENT" } else { "" };
            let relation = match relation {
                Relation::Before => "BEFORE",
                Relation::On => "ON",
                Relation::Since => "SINCE",
            };
            format!("{sent}{relation} {}", date.strftime("%d-%b-%Y")).into()
        }
        Key::Larger(size) => format!("LARGER {size}").into(),
        Key::Smaller(size) => format!("SMALLER {size}").into(),
        Key::ModSeq(modseq) => format!("MODSEQ {modseq}").into(),
        Key::Not(one) => [b"NOT ", &self::key(one)[..]].concat(),
        Key::Or(all) => {
            let keys: Vec<Vec<u8>> = all.iter().map(self::key).collect();
            [b"OR ".repeat(all.len() - 1), keys.join(&b' ')].concat()
        }
        Key::And(all) => list(all.iter().map(self::key)),
    }
}

fn fetch_arguments(fetch: &Fetch) -> Vec<Vec<u8>> {
    let Fetch { set, items, changed_since, vanished } = fetch;
    let mut all = vec![set.to_string().into(), list(items.iter().map(item))];
    if let Some(modseq) = changed_since {
        let vanished = if *vanished { " VANISHED" } else { "" };
        all.push(format!("(CHANGEDSINCE {modseq}{vanished})").into());
    }
    all
}

fn item(item: &FetchItem) -> Vec<u8> {
    let end = |partial: &Option<Partial>| {
        partial.map_or(String::new(), |part| format!("<{}.{}>", part.start, part.length))
    };
    let peek = |peek: &bool| if *peek { ".PEEK" } else { "" };
    let word = match item {
        FetchItem::Envelope => "ENVELOPE",
        FetchItem::Flags => "FLAGS",
        FetchItem::InternalDate => "INTERNALDATE",
        FetchItem::Size => "RFC822.SIZE",
        FetchItem::Uid => "UID",
        FetchItem::ModSeq => "MODSEQ",
        FetchItem::Body => "BODY",
        FetchItem::BodyStructure => "BODYSTRUCTURE",
        FetchItem::Rfc822 => "RFC822",
        FetchItem::Rfc822Header => "RFC822.HEADER",
        FetchItem::Rfc822Text => "RFC822.TEXT",
        FetchItem::Section { peek: p, section, partial } => {
            let section = made(|out| reply::section(section, out));
            let begin = format!("BODY{}[", peek(p));
            return [begin.as_bytes(), &section, b"]", end(partial).as_bytes()].concat();
        }
        FetchItem::Binary { peek: p, part, partial } => {
            return format!("BINARY{}[{}]{}", peek(p), part_text(part), end(partial)).into();
        }
        FetchItem::BinarySize(part) => return format!("BINARY.SIZE[{}]", part_text(part)).into(),
    };
    word.into()
}

fn part_text(part: &[u32]) -> String {
    part.iter().map(u32::to_string).collect::<Vec<_>>().join(".")
}

fn store_arguments(store: &Store) -> Vec<Vec<u8>> {
    let Store { set, action, silent, flags, unchanged_since } = store;
    let mut all = vec![set.to_string().into()];
    all.extend(unchanged_since.map(|modseq| format!("(UNCHANGEDSINCE {modseq})").into_bytes()));
    let sign = match action {
        StoreAction::Replace => "",
        StoreAction::Add => "+",
        StoreAction::Remove => "-",
    };
    all.push(format!("{sign}FLAGS{}", if *silent { ".SILENT" } else { "" }).into());
    all.push(made(|out| flag_list(flags, out)));
    all
}

/// A stranger says the input, at once and in pieces.
fn check_login(input: &[u8], most: usize, dice: &mut Dice) {
    // More is too much at once.
    if input.len() > 8 * 1024 {
        return;
    }
    let at_once = talk(Tls::Unknown, std::iter::once(input));
    assert_eq!(talk(Tls::Unknown, pieces(input, most, dice)), at_once);
    talk(Tls::Offered, pieces(input, most, dice));
    talk(Tls::On, std::iter::once(input));
}

/// What was heard, and how it ended.
fn talk<'a>(tls: Tls, pieces: impl Iterator<Item = &'a [u8]>) -> (String, Option<Action>) {
    let mut session = Session::new(Terms {
        hostname: "mx.example.org".into(),
        tls,
        plaintext_allowed: tls == Tls::Unknown,
        sasl: sasl::Facts::default(),
    });
    let (mut heard, mut end): (String, Option<Action>) = (String::new(), None);
    for piece in std::iter::once(&b""[..]).chain(pieces) {
        // What comes behind the login is not the session's.
        if let Some(Action::LoggedIn { leftover, .. }) = &mut end {
            leftover.extend_from_slice(piece);
        }
        session.push(piece);
        while let Some(action) = session.next() {
            match action {
                Action::Send(bytes) => {
                    assert!(lines(&bytes) > 0);
                    heard += std::str::from_utf8(&bytes).unwrap();
                }
                Action::Authenticate(_, question) => session.answer(answer(&question)),
                Action::StartTls => session.encrypted(Vec::new(), None),
                Action::LoggedIn { .. } | Action::Close(_) => {
                    assert!(end.is_none());
                    end = Some(action);
                }
            }
        }
    }
    (heard, end)
}

/// Every other password is right.
fn answer(question: &Question) -> Answer {
    match question {
        Question::Password { password: Secret(password), .. } if password.len() % 2 == 0 => {
            Answer::Accepted
        }
        Question::Proven(true) => Answer::Accepted,
        _ => Answer::Refused,
    }
}
