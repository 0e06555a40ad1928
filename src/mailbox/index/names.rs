//! The names of a mailbox's keywords, and the bits that stand for them.

use super::Change;
use crate::mailbox::store::{MOST_KEYWORDS, is_keyword};

/// The names, those that come along included.
pub(super) struct Names<'a> {
    known: &'a [String],
    more: Vec<String>,
}

impl<'a> Names<'a> {
    /// Of a mailbox that has these.
    pub fn new(known: &'a [String]) -> Self {
        Self { known, more: Vec::new() }
    }

    /// The bits of these keywords; `emit` gets those that the mailbox has not yet. What can be no
    /// name is left out, and what comes when there are as many as there may be: in the mailbox
    /// itself it stays, where others see it.
    pub fn bits<'b>(
        &mut self,
        names: impl IntoIterator<Item = &'b str>,
        emit: &mut dyn FnMut(Change),
    ) -> u64 {
        names.into_iter().fold(0, |bits, name| {
            let at = self.position(name).or_else(|| self.add(name, emit));
            bits | at.map_or(0, bit)
        })
    }

    fn position(&self, name: &str) -> Option<usize> {
        position(self.known.iter().chain(&self.more), name)
    }

    fn add(&mut self, name: &str, emit: &mut dyn FnMut(Change)) -> Option<usize> {
        let at = self.known.len().saturating_add(self.more.len());
        if at >= MOST_KEYWORDS || !is_keyword(name) {
            return None;
        }
        self.more.push(name.to_owned());
        emit(Change::Keyword(name.to_owned()));
        Some(at)
    }
}

/// Where a name is among these. They are the same in either case (RFC 9051 section 2.3.2).
pub(super) fn position<'a>(
    mut names: impl Iterator<Item = &'a String>,
    name: &str,
) -> Option<usize> {
    names.position(|other| other.eq_ignore_ascii_case(name))
}

/// The bit of the keyword at a place.
pub(super) fn bit(at: usize) -> u64 {
    u32::try_from(at).ok().and_then(|at| 1_u64.checked_shl(at)).unwrap_or(0)
}
