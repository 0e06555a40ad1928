use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use super::super::index::{self, compile};
use super::{Syntax, Table, key, lines};

fn find(path: &Path, wanted: &str) -> Option<(usize, String)> {
    let found = Table::new(path, Syntax::Aliases).find(wanted).unwrap()?;
    Some((found.line, String::from_utf8_lossy(&found.text).trim().to_owned()))
}

#[test]
fn a_line_goes_on_behind_a_blank_and_over_comments() {
    let text = b"# c\n\na: b,\n  c\n# between\n\n\td\n# behind\ne: f";
    let found: Vec<_> = lines(text).map(|line| (line.number, line.offset, line.text)).collect();
    assert_eq!(
        found,
        [(3, 5, &b"a: b,\n  c\n# between\n\n\td\n"[..]), (9, text.len() - 4, b"e: f")]
    );
    assert_eq!(lines(b"").count() + lines(b" \n#").count(), 0);
}

#[test]
fn keys_have_no_letter_case_and_no_quotes() {
    for (line, wanted) in
        [("Root: x", "root"), ("\"a: B\" : x", "a: b"), ("a.b:x", "a.b"), ("\"a\\\"b\":x", "a\"b")]
    {
        assert_eq!(key(Syntax::Aliases, line.as_bytes()).unwrap().0, wanted);
    }
    for line in ["x", "a b: c", ": x", " a: b", "a@b: c", "\"a: b", "\u{e9}: a"] {
        assert!(key(Syntax::Aliases, line.as_bytes()).is_err(), "{line}");
    }
    for (line, wanted) in
        [("A@B.c x", "a@b.c"), ("@B.c\tx", "@b.c"), ("B.c", "b.c"), ("\"a b\"@c d", "a b@c")]
    {
        assert_eq!(key(Syntax::Virtual, line.as_bytes()).unwrap().0, wanted);
    }
    for line in ["a@ x", "@ x", "a..b x", " a@b c"] {
        assert!(key(Syntax::Virtual, line.as_bytes()).is_err(), "{line}");
    }
}

#[test]
fn the_index_finds_what_the_file_says_and_never_more() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("aliases");
    let text = "a: 1\nB:\n 2,\n 3\na: again\n\"c d\": 4";
    fs::write(&path, text).unwrap();
    let keys = ["a", "b", "c d", "e"];
    let all = || keys.map(|key| find(&path, key));
    let plain = all();
    assert_eq!(plain[0], Some((1, "1".into())), "the first line of a name counts");
    assert_eq!(plain[3], None);
    let summary = compile(&path, Syntax::Aliases, "here").unwrap();
    assert_eq!((summary.count, summary.errors.len(), summary.warnings.len()), (4, 0, 1));
    assert_eq!(all(), plain);
    // No damage to the index changes an answer.
    let index = index::path_of(&path);
    let whole = fs::read(&index).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        fs::write(&index, &bytes).unwrap();
        assert_eq!(all(), plain, "byte {at}");
        fs::write(&index, &whole[..at]).unwrap();
        assert_eq!(all(), plain, "cut at {at}");
    }
    // Nor does an index of another text.
    fs::write(&index, &whole).unwrap();
    fs::write(&path, "e: 5\n").unwrap();
    assert_eq!(all(), [None, None, None, Some((1, "5".into()))]);
}

#[test]
fn a_table_that_stays_open_sees_changes() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("aliases");
    let table = Table::new(&path, Syntax::Aliases);
    assert_eq!(table.find("a").unwrap(), None, "no file, no alias");
    fs::write(&path, "a: 1\n").unwrap();
    assert!(table.find("a").unwrap().is_some());
    compile(&path, Syntax::Aliases, "here").unwrap();
    assert!(table.find("a").unwrap().is_some());
    fs::write(&path, "bb: 1\n").unwrap();
    assert_eq!(table.find("a").unwrap(), None);
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(table.find("a").is_err());
}

#[test]
fn a_wrong_line_is_told_and_leaves_the_index_as_it_was() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("aliases");
    fs::write(&path, "a: b\nno colon\nc:\nd: x,\n \"|y\n").unwrap();
    let summary = compile(&path, Syntax::Aliases, "here").unwrap();
    let starts: Vec<String> = [2, 3, 5].map(|line| format!("{}:{line}: ", path.display())).to_vec();
    assert_eq!(summary.errors.len(), 3, "{:?}", summary.errors);
    assert!(summary.errors.iter().zip(&starts).all(|(error, start)| error.starts_with(start)));
    assert!(!index::path_of(&path).exists());
}

#[test]
fn a_hundred_thousand_names_are_looked_up_as_fast_as_ten() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("aliases");
    let mut text = String::new();
    for number in 0..100_000 {
        writeln!(text, "name{number}: somebody{number}@elsewhere.example, another").unwrap();
    }
    fs::write(&path, &text).unwrap();
    let time = |table: &Table, count: u32| {
        let started = Instant::now();
        for number in 0..count {
            assert!(table.find(&format!("name{}", 99_999 - number)).unwrap().is_some());
            assert!(table.find(&format!("none{number}")).unwrap().is_none());
        }
        started.elapsed() / (2 * count)
    };
    let table = Table::new(&path, Syntax::Aliases);
    let plain = time(&table, 2);
    compile(&path, Syntax::Aliases, "here").unwrap();
    let indexed = time(&table, 500);
    // Shown with --nocapture.
    let _ = writeln!(std::io::stderr(), "a lookup: {plain:?} without, {indexed:?} with the index");
    assert!(indexed * 10 < plain && indexed < Duration::from_millis(20), "{indexed:?} {plain:?}");
}

/// Bytes that tables are made of, at random: nothing panics, and the index agrees with the file.
#[test]
fn no_text_makes_a_parser_panic() {
    let pieces: [&[u8]; 16] = [
        b"a",
        b":",
        b" ",
        b"\n",
        b"\"",
        b"\\",
        b"#",
        b",",
        b"@",
        b"|",
        b"/x",
        b":include:",
        b"\t",
        b"\xff",
        b"\0",
        b"b.c",
    ];
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("table");
    let mut state = 1_u64;
    for round in 0..3000 {
        let mut text = Vec::new();
        for _ in 0..round % 40 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let at = usize::try_from(state >> 60).unwrap();
            text.extend_from_slice(pieces[at]);
        }
        for syntax in [Syntax::Aliases, Syntax::Virtual] {
            for line in lines(&text) {
                assert_eq!(&text[line.offset..line.offset + line.text.len()], line.text);
                let _ = key(syntax, line.text);
            }
            let _ = super::targets(&text, "here", "local");
        }
        if round % 100 == 99 {
            fs::write(&path, &text).unwrap();
            let plain = find(&path, "a");
            let _ = compile(&path, Syntax::Aliases, "here").unwrap();
            assert_eq!(find(&path, "a"), plain);
        }
    }
}
