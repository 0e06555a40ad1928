//! The manual says what the programs do: every flag and every key, both ways.
//!
//! The pages are read as mdoc source. In a program's page the tags of OPTIONS are its flags; in
//! hikyaku.toml(5) the tags below a `[section]` are its keys with their defaults.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use hikyaku::config::{Config, PREFIX, SYSCONFDIR};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    let path = root().join("man").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Every program's command line, with the flags that clap adds itself.
fn commands() -> Vec<clap::Command> {
    let mut commands = hikyaku::program::commands();
    for command in &mut commands {
        command.build();
    }
    commands
}

/// A program's flags as a page writes them: `x` and `-long`.
fn flags(command: &clap::Command) -> BTreeSet<String> {
    let mut flags = BTreeSet::new();
    for argument in command.get_arguments() {
        flags.extend(argument.get_short().map(String::from));
        let aliases = argument.get_all_short_aliases().unwrap_or_default();
        flags.extend(aliases.into_iter().map(String::from));
        flags.extend(argument.get_long().map(|long| format!("-{long}")));
        let aliases = argument.get_all_aliases().unwrap_or_default();
        flags.extend(aliases.into_iter().map(|long| format!("-{long}")));
    }
    flags
}

/// The same of its subcommands, at any depth.
fn flags_below(command: &clap::Command) -> BTreeSet<String> {
    command.get_subcommands().flat_map(|sub| &flags(sub) | &flags_below(sub)).collect()
}

/// The lines of one `.Sh` section.
fn section<'a>(page: &'a str, name: &str) -> Vec<&'a str> {
    page.lines()
        .skip_while(|line| line.strip_prefix(".Sh ") != Some(name))
        .skip(1)
        .take_while(|line| !line.starts_with(".Sh "))
        .collect()
}

/// The flags that a line of mdoc names: the words after each `Fl`.
fn flags_of(line: &str) -> Vec<String> {
    let mut found = Vec::new();
    if !line.starts_with('.') {
        return found;
    }
    let mut is_flag = false;
    for word in line.trim_start_matches('.').split_whitespace() {
        if word == "Fl" {
            is_flag = true;
        } else if is_flag && matches!(word, "," | "." | ")" | ";" | ":" | "|") {
            // A delimiter inside the macro's arguments.
        } else if is_flag && word.starts_with(|c: char| c.is_ascii_uppercase()) && word.len() == 2 {
            is_flag = false;
        } else if is_flag && word.starts_with('-') {
            found.push(word.to_owned());
        } else if is_flag {
            // One letter, or several that stand together.
            found.extend(word.chars().map(String::from));
        }
    }
    found
}

/// What is documented of a program: the tags of OPTIONS.
fn documented(page: &str) -> BTreeSet<String> {
    section(page, "OPTIONS")
        .into_iter()
        .filter(|line| line.starts_with(".It "))
        .flat_map(flags_of)
        .collect()
}

#[test]
fn every_binary_has_a_command_line_and_a_page() {
    let commands = commands();
    let named: BTreeSet<&str> = commands.iter().map(clap::Command::get_name).collect();
    let binaries: BTreeSet<String> = fs::read_dir(root().join("src/bin"))
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            path.file_stem().unwrap().to_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(named, binaries.iter().map(String::as_str).collect());
    for name in named {
        assert!(page(&format!("{name}.8")).contains(&format!("\n.Nm {name}\n")));
    }
}

#[test]
fn a_page_lists_exactly_the_flags_that_the_program_takes() {
    for command in commands() {
        let name = command.get_name();
        assert_eq!(
            documented(&page(&format!("{name}.8"))),
            flags(&command),
            "left: OPTIONS of man/{name}.8; right: {name}'s command line"
        );
    }
}

#[test]
fn a_page_has_the_flags_of_subcommands() {
    for command in commands() {
        let name = command.get_name();
        let page = page(&format!("{name}.8"));
        let there: BTreeSet<String> = page.lines().flat_map(flags_of).collect();
        for flag in flags_below(&command) {
            assert!(there.contains(&flag), "man/{name}.8: -{flag}");
        }
    }
}

#[test]
fn a_synopsis_names_only_flags_that_the_program_takes() {
    for command in commands() {
        let name = command.get_name();
        let known = flags(&command);
        for flag in section(&page(&format!("{name}.8")), "SYNOPSIS").into_iter().flat_map(flags_of)
        {
            assert!(known.contains(&flag), "man/{name}.8 SYNOPSIS: -{flag}");
        }
    }
}

#[test]
fn no_page_mentions_a_flag_that_no_program_takes() {
    let all = |command| &flags(command) | &flags_below(command);
    let known: BTreeSet<String> = commands().iter().flat_map(all).collect();
    for entry in fs::read_dir(root().join("man")).unwrap() {
        let path = entry.unwrap().path();
        for line in fs::read_to_string(&path).unwrap().lines() {
            for flag in flags_of(line) {
                assert!(known.contains(&flag), "{}: {line}", path.display());
            }
        }
    }
}

#[test]
fn every_subcommand_is_in_its_page() {
    for command in commands() {
        let page = page(&format!("{}.8", command.get_name()));
        for subcommand in command.get_subcommands() {
            let tag = format!("\n.It Cm {}", subcommand.get_name());
            assert!(page.contains(&tag), "{} {subcommand}", command.get_name());
        }
    }
}

#[test]
fn help_names_every_visible_flag() {
    for mut command in commands() {
        let help = command.render_long_help().to_string();
        for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
            let short = argument.get_short().map(|c| format!("-{c}"));
            let long = argument.get_long().map(|long| format!("--{long}"));
            for flag in short.into_iter().chain(long) {
                assert!(help.contains(&flag), "{} {flag}", command.get_name());
            }
        }
    }
}

#[test]
fn help_fits_a_screen() {
    for mut command in commands() {
        let help = command.render_help().to_string();
        let lines: usize = help.lines().map(|line| line.chars().count().div_ceil(80).max(1)).sum();
        let name = command.get_name();
        assert!(lines <= 24, "{name}: {lines} lines of 80 columns\n{help}");
    }
}

#[test]
fn every_page_has_the_sections_it_needs() {
    let always = ["NAME", "DESCRIPTION", "SEE ALSO"];
    let program = [
        "SYNOPSIS",
        "OPTIONS",
        "EXIT STATUS",
        "FILES",
        "EXAMPLES",
        "STANDARDS",
        "SECURITY CONSIDERATIONS",
    ];
    let format = ["FILES", "EXAMPLES", "SECURITY CONSIDERATIONS"];
    let mut pages = 0;
    for entry in fs::read_dir(root().join("man")).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        let more: &[&str] = match path.extension().and_then(|e| e.to_str()) {
            Some("8") => &program,
            Some("5") => &format,
            Some("7") => &["FILES", "EXAMPLES", "STANDARDS", "SECURITY CONSIDERATIONS"],
            other => panic!("{}: section {other:?}", path.display()),
        };
        for name in always.iter().chain(more) {
            assert!(!section(&text, name).is_empty(), "{}: no section {name}", path.display());
        }
        pages += 1;
    }
    assert!(pages >= 11, "only {pages} pages");
}

#[test]
fn every_cross_reference_to_one_of_ours_leads_to_a_page() {
    let exists = |name: &str, section: &str| {
        Path::new(&root()).join("man").join(format!("{name}.{section}")).exists()
    };
    for entry in fs::read_dir(root().join("man")).unwrap() {
        let path = entry.unwrap().path();
        for line in fs::read_to_string(&path).unwrap().lines() {
            let mut words = line.split_whitespace();
            if words.next() != Some(".Xr") {
                continue;
            }
            let (name, section) = (words.next().unwrap(), words.next().unwrap());
            let ours = name.starts_with("hikyaku")
                || commands().iter().any(|command| command.get_name() == name);
            assert!(!ours || exists(name, section), "{}: {line}", path.display());
        }
    }
}

/// The keys of a table as `section.key`, each with its default as TOML writes it.
fn defaults(table: &toml::Table, section: &str, found: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let name = if section.is_empty() { key.clone() } else { format!("{section}.{key}") };
        match value.as_table() {
            Some(inner) => defaults(inner, &name, found),
            None => drop(found.insert(name, value.to_string())),
        }
    }
}

#[test]
fn hikyaku_toml_5_lists_every_key_with_its_default() {
    let page = page("hikyaku.toml.5")
        .replace("/usr/local/etc/", &format!("{SYSCONFDIR}/"))
        .replace("/usr/local/libexec/", &format!("{PREFIX}/libexec/"))
        .replace("/usr/local/sbin/", &format!("{PREFIX}/sbin/"));
    let mut listed = BTreeMap::new();
    let mut table = String::new();
    for line in page.lines() {
        if let Some(name) = line.strip_prefix(".Ss ") {
            table = match name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
                Some(name) => format!("{name}."),
                None => String::new(),
            };
        }
        let Some(item) = line.strip_prefix(".It Va ") else {
            continue;
        };
        let (key, value) = item.split_once(" No = ").unwrap_or((item, ""));
        listed.insert(format!("{table}{key}"), value.replace("\\(dq", "\""));
    }
    let mut code = BTreeMap::new();
    let table = toml::Table::try_from(Config::default()).unwrap();
    defaults(&table, "", &mut code);
    // The one default that no page can know.
    code.insert("hostname".into(), "gethostname".into());
    assert_eq!(listed, code, "left: man/hikyaku.toml.5; right: Config::default()");
}
