use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::{Destination, Expansion, Lookups, resolve};
use crate::config::Config;
use crate::message::Address;
use crate::route::table::Value;

/// Tables in memory.
#[derive(Default)]
struct Tables {
    aliases: BTreeMap<String, String>,
    virtual_users: BTreeMap<String, String>,
    files: BTreeMap<PathBuf, String>,
    accounts: Vec<&'static str>,
}

fn value(text: &str) -> Value {
    Value { text: text.as_bytes().to_vec(), file: "table".into(), line: 7 }
}

impl Lookups for Tables {
    fn alias(&self, name: &str) -> Result<Option<Value>, String> {
        Ok(self.aliases.get(name).map(|text| value(text)))
    }

    fn virtual_user(&self, key: &str) -> Result<Option<Value>, String> {
        Ok(self.virtual_users.get(key).map(|text| value(text)))
    }

    fn include(&self, file: &Path, _: bool) -> Result<Vec<u8>, String> {
        let text = self.files.get(file).map(|text| text.clone().into_bytes());
        text.ok_or_else(|| format!("{}: is missing", file.display()))
    }

    fn has_account(&self, local: &str) -> Result<bool, String> {
        Ok(self.accounts.contains(&local))
    }
}

fn pairs(lines: &[(&str, &str)]) -> BTreeMap<String, String> {
    lines.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn aliases(lines: &[(&str, &str)]) -> Tables {
    Tables { aliases: pairs(lines), ..Tables::default() }
}

fn ask(tables: &Tables, address: &str) -> Result<Destination, String> {
    let config = Config { hostname: "here".into(), ..Config::default() };
    resolve(&config, tables, &Address::parse(address.as_bytes()).unwrap())
}

fn expand(tables: &Tables, address: &str) -> Expansion {
    match ask(tables, address).unwrap() {
        Destination::Expanded(expansion) => expansion,
        other => panic!("{address}: {other:?}"),
    }
}

/// All members, with the owner of their group in front where there is one.
fn members(tables: &Tables, address: &str) -> Vec<String> {
    let mut all = Vec::new();
    for group in expand(tables, address).groups {
        let owner = group.owner.map(|owner| format!("{owner}:")).unwrap_or_default();
        all.extend(group.members.iter().map(|member| format!("{owner}{member}")));
    }
    all
}

#[test]
fn what_no_table_knows_is_an_account_or_elsewhere() {
    let tables = aliases(&[]);
    assert_eq!(ask(&tables, "a@here"), Ok(Destination::Account));
    assert_eq!(ask(&tables, "a@there"), Ok(Destination::Remote));
    assert_eq!(ask(&tables, "postmaster@HERE"), Ok(Destination::Account));
}

#[test]
fn an_alias_is_found_with_its_extension_first() {
    let tables = aliases(&[("a", "x"), ("a+b", "y")]);
    assert_eq!(members(&tables, "A+B@here"), ["y@here"]);
    assert_eq!(members(&tables, "a+c@here"), ["x@here"], "which is not carried on");
}

#[test]
fn each_member_is_named_once_and_a_backslash_ends_the_way() {
    let tables = aliases(&[("a", "b, c, b, \\c"), ("b", "c, d@there"), ("c", "e, D@there")]);
    assert_eq!(members(&tables, "a@here"), ["e@here", "D@there", "d@there", "c@here"]);
}

#[test]
fn a_name_met_inside_itself_is_the_account_or_nobody() {
    let mut tables = aliases(&[("a", "a, b"), ("b", "a, c")]);
    assert_eq!(members(&tables, "a@here"), ["c@here"]);
    tables.accounts.push("a");
    assert_eq!(members(&tables, "a@here"), ["a@here", "c@here"]);
    let tables = aliases(&[("a", "b"), ("b", "c"), ("c", "b")]);
    let error = ask(&tables, "a@here").unwrap_err();
    assert!(error.contains("b -> c -> b"), "{error}");
}

#[test]
fn a_virtual_user_met_inside_itself_is_nobody_where_the_domain_is_virtual() {
    let lines = [
        ("v.org", "-"),
        ("a@v.org", "b@v.org"),
        ("b@v.org", "a@v.org"),
        ("c@v.org", "c@v.org, x"),
        ("d@here", "d@here, x"),
        ("e@there", "e@there, x"),
    ];
    let tables = Tables { virtual_users: pairs(&lines), ..Tables::default() };
    let error = ask(&tables, "a@v.org").unwrap_err();
    assert!(error.contains("a@v.org -> b@v.org -> a@v.org"), "{error}");
    assert_eq!(members(&tables, "c@v.org"), ["x@here"]);
    assert_eq!(members(&tables, "d@here"), ["d@here", "x@here"]);
    assert_eq!(members(&tables, "e@there"), ["e@there", "x@here"]);
}

#[test]
fn a_list_with_an_owner_has_its_own_sender() {
    let lines = [("l", "x, m, \"|c\""), ("owner-l", "o"), ("m", "y"), ("owner-m", "p"), ("n", "l")];
    let tables = aliases(&lines);
    assert_eq!(members(&tables, "l@here"), ["owner-l@here:x@here", "owner-m@here:y@here"]);
    let owner = expand(&tables, "n@here").program_owner.map(|owner| owner.to_string());
    assert_eq!(owner.as_deref(), Some("owner-l@here"));
    assert_eq!(members(&tables, "owner-l@here"), ["o@here"]);
}

#[test]
fn commands_and_files_are_for_aliases_and_not_for_included_files() {
    let mut tables =
        aliases(&[("a", "|c d, /f, /dev/null"), ("n", "/dev/null"), ("i", ":include:/i")]);
    let Expansion { groups, commands, files, .. } = expand(&tables, "a@here");
    assert!(groups.is_empty());
    assert_eq!((commands, files), (vec!["c d".to_owned()], vec![PathBuf::from("/f")]));
    assert_eq!(members(&tables, "n@here"), [""; 0], "dropped");
    assert!(ask(&tables, "i@here").unwrap_err().contains("/i: is missing"));
    tables.files = [("/i".into(), "x # y\n:include:/i\n".into())].into();
    assert_eq!(members(&tables, "i@here"), ["x@here"]);
    for bad in ["x\n|c", "/f", "x, :include:/j"] {
        tables.files = [("/i".into(), bad.into()), ("/j".into(), "/f".into())].into();
        assert!(ask(&tables, "i@here").unwrap_err().contains("addresses only"), "{bad}");
    }
}

#[test]
fn what_is_wrong_names_file_and_line() {
    let tables = aliases(&[("a", "x,\n |"), ("e", " # nothing")]);
    assert!(ask(&tables, "a@here").unwrap_err().starts_with("table:8: "));
    assert!(ask(&tables, "e@here").unwrap_err().starts_with("table:7: "));
}

#[test]
fn depth_and_members_have_limits() {
    let chain: Vec<(String, String)> =
        (0..30).map(|n| (format!("a{n}"), format!("a{}", n + 1))).collect();
    let tables = Tables { aliases: chain.into_iter().collect(), ..Tables::default() };
    assert!(ask(&tables, "a0@here").unwrap_err().contains("too deeply"));
    assert_eq!(members(&tables, "a25@here"), ["a30@here"]);
    let many = |from: usize| {
        (from..from + 6000).map(|n| format!("u{n}@there")).collect::<Vec<_>>().join(",")
    };
    let tables = aliases(&[("a", "b, c"), ("b", &many(0)), ("c", &many(6000))]);
    assert!(ask(&tables, "a@here").unwrap_err().contains("more than 10000"));
}

#[test]
fn virtual_users_come_first_and_catch_all_last() {
    let mut tables = aliases(&[("hunt", "toshi"), ("postmaster", "pm")]);
    tables.virtual_users = pairs(&[
        ("v", "-"),
        ("a@v", "hunt, far@there"),
        ("a+z@v", "z"),
        ("w", "-"),
        ("@w", "bob"),
        ("x", "-"),
        ("@x", "@here"),
        ("self@here", "self, y"),
        ("bad@v", "|c"),
    ]);
    assert_eq!(members(&tables, "A@V"), ["toshi@here", "far@there"]);
    assert_eq!(members(&tables, "a+q@v"), ["toshi@here", "far+q@there"]);
    assert_eq!(members(&tables, "a+z@v"), ["z@here"]);
    assert_eq!(ask(&tables, "b@v"), Ok(Destination::Unknown));
    assert_eq!(members(&tables, "any+q@w"), ["bob@here"]);
    assert_eq!(members(&tables, "c+q@x"), ["c+q@here"]);
    assert_eq!(members(&tables, "self@here"), ["self@here", "y@here"]);
    assert_eq!(members(&tables, "postmaster@v"), ["pm@here"]);
    assert!(ask(&tables, "bad@v").unwrap_err().contains("addresses only"));
    assert_eq!(members(&tables, "MAILER-DAEMON@here"), ["pm@here"]);
    // An extension that makes the name too long is no broken queue file.
    let long = format!("a+{}@v", "q".repeat(250));
    tables.virtual_users.insert("a@v".into(), "abcdefgh@there".into());
    assert!(ask(&tables, &long).unwrap_err().contains("too long"));
}
