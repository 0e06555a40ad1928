//! Tables of rules: `tests/transcripts/PROTOCOL/RULES.md`, which says of each rule what shows it.
//!
//! The rows have four cells: the section, the rule, in backquotes the transcripts and test functions
//! (`suite::function`) that show it, and what a reference server does otherwise, and why.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// A row.
struct Row {
    line: String,
    shown_by: Vec<String>,
    otherwise: String,
}

fn rows(table: &str) -> Vec<Row> {
    let cells = |line: &str| -> Option<Vec<String>> {
        let inside = line.strip_prefix("| ")?.strip_suffix('|')?;
        Some(inside.split(" | ").map(|cell| cell.trim().to_owned()).collect())
    };
    let all = table.lines().filter_map(|line| cells(line).map(|cells| (line, cells)));
    all.filter(|(_, cells)| cells[0] != "section" && !cells[0].starts_with("---"))
        .map(|(line, cells)| {
            let [_, _, shown_by, otherwise] = cells.as_slice() else {
                panic!("RULES.md: four cells are wanted: {line}");
            };
            let names = shown_by.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            Row { line: line.to_owned(), shown_by: names, otherwise: otherwise.clone() }
        })
        .collect()
}

/// Whether every transcript is in the table, and everything in the table is there; and whether it
/// tells where the reference server differs, as `differs` says by a transcript's name and text.
pub fn check_rules(protocol: &str, reference: &str, differs: &dyn Fn(&str, &str) -> bool) {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let directory = tests.join("transcripts").join(protocol);
    let mut transcripts = BTreeMap::new();
    for entry in fs::read_dir(&directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        if path.extension().is_some_and(|extension| extension == "txt") {
            let text = fs::read_to_string(&path).unwrap();
            let differs = differs(&name, &text);
            transcripts.insert(name, differs);
        }
    }
    let rows = rows(&fs::read_to_string(directory.join("RULES.md")).unwrap());
    let mut wrong = Vec::new();
    for row in &rows {
        if row.shown_by.is_empty() {
            wrong.push(format!("nothing shows {}", row.line));
        }
        for name in &row.shown_by {
            let is_there = match name.split_once("::") {
                None => transcripts.contains_key(name),
                Some((suite, function)) => fs::read_to_string(tests.join(format!("{suite}.rs")))
                    .is_ok_and(|text| text.contains(&format!("#[test]\nfn {function}()"))),
            };
            if !is_there {
                wrong.push(format!("there is no {name}"));
            }
        }
        let differs = row.shown_by.iter().any(|name| transcripts.get(name) == Some(&true));
        if !row.otherwise.is_empty() && !differs {
            wrong.push(format!("no transcript says that {reference} differs: {}", row.line));
        }
    }
    for (name, differs) in &transcripts {
        let mut naming = rows.iter().filter(|row| row.shown_by.contains(name)).peekable();
        if naming.peek().is_none() {
            wrong.push(format!("{name} is not in the table"));
        } else if *differs && naming.all(|row| row.otherwise.is_empty()) {
            wrong.push(format!("that {reference} differs in {name} is not in the table"));
        }
    }
    assert!(wrong.is_empty(), "RULES.md:\n{}", wrong.join("\n"));
}
