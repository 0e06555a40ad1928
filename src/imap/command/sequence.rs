//! Sets of messages, by numbers or UIDs.

use std::fmt;
use std::ops::RangeInclusive;

use super::Error;
use super::cursor::Cursor;

/// So many ranges a set may have.
pub const MAX_RANGES: usize = 10_000;

/// `seq-number = nz-number / "*"`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Number {
    /// This one.
    Is(u32),
    /// `*`: the largest that there is.
    Largest,
}

impl Number {
    fn resolve(self, largest: u32) -> u32 {
        match self {
            Self::Is(number) => number,
            Self::Largest => largest,
        }
    }
}

/// Which messages a client means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SequenceSet {
    /// `seq-number` or `seq-range`, at least one, in the client's order and with its first number
    /// first.
    Ranges(Vec<(Number, Number)>),
    /// `$`: what the last search has saved (RFC 9051 section 6.4.4.1).
    Saved,
}

impl SequenceSet {
    /// The ranges, where `*` is `largest`: each with its smaller number first, in the client's order,
    /// and perhaps more than once; none of what was saved.
    pub fn ranges(&self, largest: u32) -> impl Iterator<Item = RangeInclusive<u32>> + '_ {
        let ranges = match self {
            Self::Ranges(ranges) => ranges.as_slice(),
            Self::Saved => &[],
        };
        ranges.iter().map(move |(first, last)| {
            let (first, last) = (first.resolve(largest), last.resolve(largest));
            first.min(last)..=first.max(last)
        })
    }
}

impl fmt::Display for Number {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(number) => number.fmt(f),
            Self::Largest => f.write_str("*"),
        }
    }
}

impl fmt::Display for SequenceSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Ranges(ranges) = self else {
            return f.write_str("$");
        };
        for (n, (first, last)) in ranges.iter().enumerate() {
            let comma = if n == 0 { "" } else { "," };
            if first == last {
                write!(f, "{comma}{first}")?;
            } else {
                write!(f, "{comma}{first}:{last}")?;
            }
        }
        Ok(())
    }
}

/// ```text
/// sequence-set = (seq-number / seq-range) ["," sequence-set] / seq-last-command
/// seq-range    = seq-number ":" seq-number
/// seq-last-command = "$"
/// ```
pub(super) fn sequence_set(cursor: &mut Cursor) -> Result<SequenceSet, Error> {
    if cursor.eat(b'$') {
        return Ok(SequenceSet::Saved);
    }
    let mut ranges = Vec::new();
    loop {
        if ranges.len() >= MAX_RANGES {
            return Err(Error::TooMany("ranges in a set"));
        }
        let first = seq_number(cursor)?;
        let last = if cursor.eat(b':') { seq_number(cursor)? } else { first };
        ranges.push((first, last));
        if !cursor.eat(b',') {
            return Ok(SequenceSet::Ranges(ranges));
        }
    }
}

/// Whether a set of messages can begin so.
pub(super) fn begins_set(byte: Option<u8>) -> bool {
    matches!(byte, Some(b'0'..=b'9' | b'*' | b'$'))
}

fn seq_number(cursor: &mut Cursor) -> Result<Number, Error> {
    if cursor.eat(b'*') {
        return Ok(Number::Largest);
    }
    cursor.nz_number().map(Number::Is).map_err(|_| Error::Wanted("a set of messages"))
}
