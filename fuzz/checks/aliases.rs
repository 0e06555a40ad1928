//! Tables of any content (aliases, virtual users, access) against a second, slow reading of
//! hikyaku-aliases(5): with an index and without, and with one that is damaged. What an alias leads
//! to is followed, too.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use hikyaku::config::Config;
use hikyaku::message::Address;
use hikyaku::route::index::{compile, path_of};
use hikyaku::route::resolve::{Destination, Lookups, resolve};
use hikyaku::route::table::{Syntax, Table, Value, key, lines, targets};
use hikyaku::route::{MAX_MEMBERS, forward};

use crate::dice::Dice;

const ORIGIN: &str = "here.example";

pub fn check(input: &[u8]) {
    for syntax in [Syntax::Aliases, Syntax::Virtual, Syntax::Access] {
        let slow = read(input);
        let fast: Vec<(usize, Vec<u8>)> =
            lines(input).map(|line| (line.number, line.text.to_vec())).collect();
        assert_eq!(fast, slow);
        for line in lines(input) {
            assert_eq!(input.get(line.offset..line.offset + line.text.len()), Some(line.text));
        }
        check_lookups(input, syntax, &slow);
    }
    check_ways(input);
}

/// The lines that say something, each with its number and with those that go on with it: a line that
/// begins with a blank does, whatever says nothing in between.
fn read(text: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut found: Vec<(usize, Vec<u8>)> = Vec::new();
    let mut between = Vec::new();
    for (number, line) in (1..).zip(text.split_inclusive(|byte| *byte == b'\n')) {
        let first = line.iter().find(|byte| !byte.is_ascii_whitespace());
        if matches!(first, None | Some(b'#')) {
            between.extend_from_slice(line);
            continue;
        }
        match found.last_mut() {
            Some((_, last)) if line[0] == b' ' || line[0] == b'\t' => {
                last.append(&mut between);
                last.extend_from_slice(line);
            }
            _ => found.push((number, line.to_vec())),
        }
        between.clear();
    }
    found
}

/// The first line of a key, and what stands behind it.
fn slow_find(slow: &[(usize, Vec<u8>)], syntax: Syntax, wanted: &str) -> Option<(usize, Vec<u8>)> {
    slow.iter().find_map(|(number, line)| {
        let (found, start) = key(syntax, line).ok()?;
        (found == wanted).then(|| (*number, line[start..].to_vec()))
    })
}

fn check_lookups(input: &[u8], syntax: Syntax, slow: &[(usize, Vec<u8>)]) {
    let mut keys = vec!["a".to_owned(), "a@b.example".to_owned(), "to:a".to_owned()];
    for (_, line) in slow {
        let Ok((name, start)) = key(syntax, line) else {
            continue;
        };
        assert!(start <= line.len() && !name.bytes().any(|byte| byte.is_ascii_uppercase()));
        if syntax == Syntax::Aliases {
            // Quoted, it is the same name.
            let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
            let again = key(syntax, format!("\"{quoted}\":").as_bytes());
            assert_eq!(again.map(|(name, _)| name), Ok(name.clone()));
        }
        keys.push(name);
    }
    keys.truncate(40);
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let path = directory.path().join("table");
    fs::write(&path, input).unwrap();
    // A file that was written just now would be waited for.
    let before = SystemTime::now() - Duration::from_mins(1);
    File::options().write(true).open(&path).unwrap().set_modified(before).unwrap();
    let check_all = || {
        let table = Table::new(&path, syntax);
        for key in &keys {
            let found = table.find(key).unwrap().map(|value| (value.line, value.text));
            assert_eq!(found, slow_find(slow, syntax, key), "{key}");
        }
    };
    check_all();
    let summary = compile(&path, syntax, ORIGIN).unwrap();
    assert_eq!(path_of(&path).exists(), summary.errors.is_empty());
    if !summary.errors.is_empty() {
        return;
    }
    check_all();
    let mut index = fs::read(path_of(&path)).unwrap();
    let mut dice = Dice::of(input);
    let at = dice.below(index.len());
    index[at] ^= 1 << dice.below(8);
    index.truncate(index.len() - dice.below(2) * dice.below(50));
    fs::write(path_of(&path), index).unwrap();
    check_all();
}

/// The table as aliases and as virtual users, and as each file that one of them includes.
struct Text<'a> {
    slow: Vec<(usize, Vec<u8>)>,
    input: &'a [u8],
}

impl Text<'_> {
    fn find(&self, syntax: Syntax, wanted: &str) -> Option<Value> {
        let (line, text) = slow_find(&self.slow, syntax, wanted)?;
        Some(Value { text, file: "table".into(), line })
    }
}

impl Lookups for Text<'_> {
    fn alias(&self, name: &str) -> Result<Option<Value>, String> {
        Ok(self.find(Syntax::Aliases, name))
    }

    fn virtual_user(&self, key: &str) -> Result<Option<Value>, String> {
        Ok(self.find(Syntax::Virtual, key))
    }

    fn include(&self, _: &Path, _: bool) -> Result<Vec<u8>, String> {
        Ok(self.input.to_vec())
    }

    fn has_account(&self, local: &str) -> Result<bool, String> {
        Ok(local.starts_with('h'))
    }
}

/// Wherever an address leads, it ends: with members of whom none is named twice.
fn check_ways(input: &[u8]) {
    let text = Text { slow: read(input), input };
    let config = Config { hostname: ORIGIN.into(), ..Config::default() };
    let mut addresses = vec![Address::new("a", ORIGIN).unwrap()];
    for (_, line) in &text.slow {
        if let Ok((name, _)) = key(Syntax::Aliases, line) {
            addresses.extend(Address::new(&name, ORIGIN));
        }
        if let Ok((name, start)) = key(Syntax::Virtual, line) {
            let (local, domain) = name.rsplit_once('@').unwrap_or(("a", &name));
            addresses.extend(Address::new(if local.is_empty() { "a" } else { local }, domain));
            let _ = targets(&line[start..], ORIGIN, local);
        }
        let _ = forward::parse(line, ORIGIN);
    }
    for address in addresses.iter().take(20) {
        let Ok(Destination::Expanded(expansion)) = resolve(&config, &text, address) else {
            continue;
        };
        let members: Vec<&Address> =
            expansion.groups.iter().flat_map(|group| &group.members).collect();
        assert!(members.len() <= MAX_MEMBERS);
        for (number, member) in members.iter().enumerate() {
            assert!(!members[..number].iter().any(|other| other.is_same(member)), "{member}");
        }
        assert!(expansion.groups.iter().all(|group| !group.members.is_empty()));
        assert!(expansion.files.iter().all(|file| file.is_absolute()));
        assert!(expansion.commands.iter().all(|command| !command.trim().is_empty()));
    }
}
