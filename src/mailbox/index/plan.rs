//! What an operation means for an index: the changes that it consists of, before they are applied.
//!
//! Every kind of mailbox works this out in the same way, under its lock.

use super::names::Names;
use super::{Change, State};
use crate::mailbox::Error;
use crate::mailbox::store::{Flags, Marking, Marks, keyword};
use crate::mailbox::uids::{Uid, UidSet};

/// A change of marks, worked out.
#[derive(Debug, Default)]
pub struct MarkPlan {
    /// The keywords that it makes.
    pub keywords: Vec<Change>,
    /// What is added, removed or put.
    pub by: Marks,
    /// The messages that get other marks, with those, ascending.
    pub marked: Vec<(Uid, Marks)>,
    /// The messages that were left alone because they changed in the meantime.
    pub refused: UidSet,
}

impl MarkPlan {
    /// The whole of it; nothing where no message gets other marks.
    pub fn changes(self, marking: Marking, modseq: u64) -> Vec<Change> {
        if self.marked.is_empty() {
            return Vec::new();
        }
        let uids = self.marked.iter().map(|(uid, _)| *uid).collect();
        let mut changes = self.keywords;
        changes.push(Change::Mark { uids, marking, by: self.by, modseq });
        changes
    }
}

impl State {
    /// The bit of a keyword.
    pub fn keyword(&self, name: &str) -> Option<u64> {
        keyword(&self.keywords, name)
    }

    /// The bits of these keywords; those that the mailbox has not yet are put into `changes`.
    pub fn make_keywords<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str>,
        changes: &mut Vec<Change>,
    ) -> u64 {
        Names::new(&self.keywords).bits(names, &mut |change| changes.push(change))
    }

    /// Works out what [`crate::mailbox::Store::mark`] is asked.
    pub fn plan_mark(
        &self,
        uids: &UidSet,
        marking: Marking,
        flags: Flags,
        keywords: &[String],
        unchanged_since: Option<u64>,
    ) -> Result<MarkPlan, Error> {
        let mut plan = MarkPlan::default();
        let names = keywords.iter().map(String::as_str);
        let keywords = if marking == Marking::Remove {
            names.filter_map(|name| self.keyword(name)).fold(0, |bits, bit| bits | bit)
        } else {
            self.make_keywords(names, &mut plan.keywords)
        };
        plan.by = Marks { flags, keywords };
        for message in self.messages.within(uids) {
            let message = message?;
            if unchanged_since.is_some_and(|modseq| message.modseq > modseq) {
                plan.refused.insert(message.uid);
                continue;
            }
            let marks = marking.of(message.marks, plan.by);
            if marks != message.marks {
                plan.marked.push((message.uid, marks));
            }
        }
        Ok(plan)
    }

    /// The UIDs of so many new messages; none where the mailbox has used up all UIDs.
    pub fn new_uids(&self, count: usize) -> Option<std::ops::Range<Uid>> {
        let end = self.uid_next.checked_add(Uid::try_from(count).ok()?)?;
        Some(self.uid_next..end)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Change, State};
    use crate::mailbox::store::{Extent, Flags, Marking, Marks, Message};
    use crate::mailbox::uids::UidSet;

    fn state() -> State {
        let mut state = State::new(1, 10);
        for uid in 1..=4 {
            let message = Message {
                uid,
                header: 0,
                marks: Marks::default(),
                modseq: 10 + u64::from(uid),
                size: 0,
                date: 0,
                digest: [0; 16],
                extent: Extent::default(),
            };
            state.apply(Change::New(message)).unwrap();
        }
        state
    }

    #[test]
    fn a_keyword_is_made_once_and_not_more_than_there_may_be() {
        let mut state = state();
        for n in 0..62 {
            state.apply(Change::Keyword(format!("k{n}"))).unwrap();
        }
        let mut changes = Vec::new();
        let bits =
            state.make_keywords(["K1", "new", "NEW", "a b", "newer", "one-too-many"], &mut changes);
        assert_eq!(bits, 2 | 1 << 62 | 1 << 63);
        assert_eq!(changes, [Change::Keyword("new".into()), Change::Keyword("newer".into())]);
    }

    #[test]
    fn who_changed_in_the_meantime_is_left_alone_and_what_changes_nothing_is_no_change() {
        let mut state = state();
        let all = UidSet::from(1..=u32::MAX);
        let keywords = ["a".to_owned()];
        let plan = state.plan_mark(&all, Marking::Add, Flags::SEEN, &keywords, Some(12)).unwrap();
        assert_eq!(plan.refused, UidSet::from(3..=4));
        let marks = Marks { flags: Flags::SEEN, keywords: 1 };
        assert_eq!(plan.marked, [(1, marks), (2, marks)]);
        for change in plan.changes(Marking::Add, state.next_modseq()) {
            state.apply(change).unwrap();
        }
        assert_eq!(state.changes_since(14).unwrap().changed, [1, 2]);
        let two = UidSet::from(1..=2);
        let again = state.plan_mark(&two, Marking::Add, Flags::SEEN, &keywords, None).unwrap();
        assert!(again.marked.is_empty() && again.refused.is_empty());
        assert!(again.changes(Marking::Add, 99).is_empty());
        let none = state
            .plan_mark(&(9..=9).into(), Marking::Add, Flags::SEEN, &["b".into()], None)
            .unwrap();
        assert!(
            none.changes(Marking::Add, 99).is_empty(),
            "a keyword that nobody gets is not made"
        );
    }
}
