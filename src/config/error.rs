//! What is wrong with a configuration, and where: `file:line:column: what`.

use std::fmt;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Config;

/// An error in a configuration file, in the operator's words.
#[derive(Debug, PartialEq, Eq)]
pub struct Error {
    file: PathBuf,
    position: Option<(usize, usize)>,
    what: String,
    passing: bool,
}

impl std::error::Error for Error {}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some((line, column)) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        write!(f, " {}", self.what)
    }
}

impl Error {
    pub(super) fn at(file: &Path, text: &str, span: Option<Range<usize>>, what: &str) -> Self {
        let position = span.map(|span| {
            let before = text.get(..span.start).unwrap_or(text);
            let line_start = before.rfind('\n').map_or(0, |at| at + 1);
            let column = before.get(line_start..).map_or(0, |line| line.chars().count());
            (before.matches('\n').count() + 1, column + 1)
        });
        // One line: toml's own messages may have several.
        let what = what.lines().collect::<Vec<_>>().join(", ");
        Self { file: file.to_owned(), position, what, passing: false }
    }

    pub(super) fn unreadable(file: &Path, error: &io::Error) -> Self {
        // The operator's to mend; anything else (no descriptors, a broken disk) is no word on what
        // stands in the file.
        let mistaken = matches!(
            error.kind(),
            io::ErrorKind::NotFound
                | io::ErrorKind::NotADirectory
                | io::ErrorKind::IsADirectory
                | io::ErrorKind::PermissionDenied
        );
        let what = format!("can't be read: {error}");
        Self { file: file.to_owned(), position: None, what, passing: !mistaken }
    }

    /// Whether it may be gone at the next try, as nothing is known to be wrong with the file.
    pub fn may_pass(&self) -> bool {
        self.passing
    }
}

/// Refuses a key that does not exist, and names the nearest that does.
pub(super) fn check_keys(file: &Path, text: &str, document: &DeTable<'_>) -> Result<(), Error> {
    let known = toml::Table::try_from(Config::default())
        .map_err(|error| Error::at(file, text, None, &error.to_string()))?;
    check_table(file, text, document, &known, "")
}

fn check_table(
    file: &Path,
    text: &str,
    document: &DeTable<'_>,
    known: &toml::Table,
    section: &str,
) -> Result<(), Error> {
    for (key, value) in document {
        let name: &str = key.get_ref();
        let Some(default) = known.get(name) else {
            let place = if section.is_empty() { String::new() } else { format!(" in [{section}]") };
            let what = if let Some(near) = nearest(name, known.keys().map(String::as_str)) {
                format!("unknown key {name:?}{place}; did you mean {near:?}?")
            } else {
                let keys: Vec<&str> = known.keys().map(String::as_str).collect();
                format!("unknown key {name:?}{place}; known are {}", keys.join(", "))
            };
            return Err(Error::at(file, text, Some(key.span()), &what));
        };
        if let (DeValue::Table(inner), toml::Value::Table(known)) = (value.get_ref(), default) {
            let section =
                if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
            check_table(file, text, inner, known, &section)?;
        }
    }
    Ok(())
}

/// Where the value of a key stands; of its nearest table where the key itself is not written.
pub(super) fn span_of(document: &DeTable<'_>, path: &[&str]) -> Option<Range<usize>> {
    let (first, rest) = path.split_first()?;
    let value: &Spanned<DeValue<'_>> =
        document.iter().find(|(key, _)| key.get_ref() == first).map(|(_, value)| value)?;
    match value.get_ref() {
        DeValue::Table(inner) if !rest.is_empty() => {
            span_of(inner, rest).or_else(|| Some(value.span()))
        }
        _ => Some(value.span()),
    }
}

/// The known name that is not far away, by edit distance.
fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (distance(name, candidate), candidate))
        .filter(|(distance, candidate)| {
            *distance <= 2.max(candidate.len() / 3) && *distance < candidate.len()
        })
        .min()
        .map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, a row at a time.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        let mut left = i + 1;
        let mut next = vec![left];
        for (y, above) in b.bytes().zip(row.iter().skip(1)) {
            let replaced = diagonal + usize::from(x != y);
            left = replaced.min(left + 1).min(above + 1);
            diagonal = *above;
            next.push(left);
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}
