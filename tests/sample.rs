//! The sample configuration is the code's: the same keys, the same defaults.
//!
//! Operators copy `etc/hikyaku.toml`. A key that it lacks is a key that nobody finds.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use hikyaku::config::{self, Config, PREFIX, SYSCONFDIR};

/// The sample as this build sees it: its paths are those of an unstamped build.
fn sample() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("etc/hikyaku.toml");
    fs::read_to_string(path)
        .unwrap()
        .replace("/usr/local/etc/", &format!("{SYSCONFDIR}/"))
        .replace("/usr/local/libexec/", &format!("{PREFIX}/libexec/"))
        .replace("/usr/local/sbin/", &format!("{PREFIX}/sbin/"))
}

/// `#key = value` becomes `key = value`; prose has a space after its comment sign.
fn uncommented() -> String {
    let mut text = String::new();
    for line in sample().lines() {
        let bare = line
            .strip_prefix('#')
            .filter(|rest| rest.starts_with(|c: char| c.is_ascii_lowercase()));
        text.push_str(bare.unwrap_or(line));
        text.push('\n');
    }
    text
}

fn keys(table: &toml::Table, section: &str, found: &mut BTreeSet<String>) {
    for (key, value) in table {
        let name = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
        match value.as_table() {
            Some(inner) => keys(inner, &name, found),
            None => drop(found.insert(name)),
        }
    }
}

#[test]
fn the_sample_as_it_stands_changes_nothing() {
    assert_eq!(config::parse(Path::new("etc/hikyaku.toml"), &sample()).unwrap(), Config::default());
}

#[test]
fn the_sample_names_every_key_and_no_other() {
    let mut in_sample = BTreeSet::new();
    let table: toml::Table = uncommented().parse().unwrap();
    keys(&table, "", &mut in_sample);
    let mut in_code = BTreeSet::new();
    let table = toml::Table::try_from(Config::default()).unwrap();
    keys(&table, "", &mut in_code);
    assert_eq!(in_sample, in_code);
}

#[test]
fn the_sample_shows_the_defaults() {
    let shown = config::parse(Path::new("etc/hikyaku.toml"), &uncommented()).unwrap();
    let default = Config {
        // The one default that no file can know.
        hostname: shown.hostname.clone(),
        ..Config::default()
    };
    assert_eq!(shown, default);
}
