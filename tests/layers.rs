//! The floors of the house: `src/lib.rs` lists the rooms, and a room uses only rooms above it.
//!
//! Rooms that stand together, without an empty line between them, are one floor; they don't use
//! each other. A room's own folder is free.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn src() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every Rust file below `directory`.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The lines of a file with their numbers, without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(at, line)| (at + 1, line.split("//").next().unwrap_or(line)))
}

/// The rooms of `lib.rs`, each with its floor.
fn floors() -> BTreeMap<String, usize> {
    let text = fs::read_to_string(src().join("lib.rs")).unwrap();
    let mut floor = 0;
    let mut rooms = BTreeMap::new();
    for line in text.lines() {
        if line.trim().is_empty() {
            floor += 1;
        }
        if let Some(name) = line.strip_prefix("pub mod ") {
            rooms.insert(name.trim_end_matches(';').to_owned(), floor);
        }
    }
    rooms
}

/// The words of `text`, as Rust identifiers are divided.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
}

/// The first names after each `crate::`: one, or those of a `{…}` list.
fn crate_names(code: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let before = code.get(..at).and_then(|text| text.chars().next_back());
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = code.get(at + "crate::".len()..).unwrap_or_default();
        let Some(list) = rest.strip_prefix('{') else {
            names.extend(words(rest).next());
            continue;
        };
        let mut depth = 0_usize;
        let mut at_name = true;
        for (at, c) in list.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => at_name = true,
                c if at_name && depth == 0 && !c.is_whitespace() => {
                    names.extend(words(list.get(at..).unwrap_or_default()).next());
                    at_name = false;
                }
                _ => {}
            }
        }
    }
    names
}

/// The room that a file of `src/` belongs to; none for `lib.rs` and the binaries.
fn room_of(file: &Path) -> Option<String> {
    let first = file.strip_prefix(src()).ok()?.components().next()?;
    let name = first.as_os_str().to_str()?;
    (name != "lib.rs" && name != "bin").then(|| name.trim_end_matches(".rs").to_owned())
}

#[test]
fn a_room_uses_only_rooms_above_it() {
    let floors = floors();
    assert!(floors.len() > 10, "lib.rs was not understood: {floors:?}");
    let mut wrong = Vec::new();
    for file in files(&src()) {
        let Some(room) = room_of(&file) else { continue };
        let Some(own) = floors.get(&room) else {
            wrong.push(format!("{}: {room} is no room of lib.rs", file.display()));
            continue;
        };
        let text = fs::read_to_string(&file).unwrap();
        // Joined, so that a list over several lines is one list.
        let all: Vec<&str> = code(&text).map(|(_, line)| line).collect();
        for name in crate_names(&all.join("\n")) {
            match floors.get(name) {
                Some(floor) if name == room || floor < own => {}
                Some(_) => wrong.push(format!("{}: {room} uses {name}", file.display())),
                None => wrong.push(format!("{}: crate::{name} is no room", file.display())),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_room_is_left_by_crate_paths_only() {
    // `super::` in a room's mod.rs is the crate: there it would pass by the test above.
    let floors = floors();
    let mut wrong = Vec::new();
    for room in floors.keys() {
        let folder = src().join(room);
        let Ok(text) = fs::read_to_string(folder.join("mod.rs")) else {
            continue;
        };
        for (number, line) in code(&text) {
            for (at, _) in line.match_indices("super::") {
                let rest = line.get(at + "super::".len()..).unwrap_or_default();
                let name = words(rest).next().unwrap_or_default();
                let own = folder.join(name).is_dir() || folder.join(format!("{name}.rs")).exists();
                if floors.contains_key(name) && !own {
                    wrong.push(format!("src/{room}/mod.rs:{number}: super::{name}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn unsafe_code_stands_in_sys_only() {
    let mut wrong = Vec::new();
    for file in files(&src()) {
        if room_of(&file).as_deref() == Some("sys") {
            continue;
        }
        let text = fs::read_to_string(&file).unwrap();
        for (number, line) in code(&text) {
            if words(line).any(|word| word == "unsafe" || word == "unsafe_code") {
                wrong.push(format!("{}:{number}: {}", file.display(), line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_module_is_a_drawer_for_everything() {
    let mut wrong = Vec::new();
    for file in files(&src()) {
        for part in file.strip_prefix(src()).unwrap() {
            let name = part.to_str().unwrap().trim_end_matches(".rs");
            if ["common", "helpers", "misc", "types", "util", "utils"].contains(&name) {
                wrong.push(file.display().to_string());
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn lists_of_crate_paths_are_understood() {
    assert_eq!(crate_names("use crate::sys::{Exit, fd};"), ["sys"]);
    assert_eq!(
        crate_names("use crate::{\n    config::{self, Config},\n    sys, text::line,\n};"),
        ["config", "sys", "text"]
    );
    assert_eq!(crate_names("pub(crate) fn x(y: crate::smtp::Reply)"), ["smtp"]);
    assert!(crate_names("mycrate::smtp").is_empty());
}
