//! The names of a mailbox's keywords, and the bits that stand for them.

use super::Change;
use crate::mailbox::store::{MOST_KEYWORDS, is_keyword, keyword, keyword_bit};

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
            let known = keyword(self.known.iter().chain(&self.more), name);
            bits | known.unwrap_or_else(|| self.add(name, emit))
        })
    }

    fn add(&mut self, name: &str, emit: &mut dyn FnMut(Change)) -> u64 {
        let at = self.known.len().saturating_add(self.more.len());
        if at >= MOST_KEYWORDS || !is_keyword(name) {
            return 0;
        }
        self.more.push(name.to_owned());
        emit(Change::Keyword(name.to_owned()));
        keyword_bit(at)
    }
}
