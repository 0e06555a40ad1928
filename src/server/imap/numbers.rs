//! The numbers of a selected mailbox's messages: from 1 on, as their UIDs ascend.

use std::ops::RangeInclusive;

use crate::mailbox::uids::{Uid, UidSet};

/// Messages by their numbers. Rows of UIDs of which none is missing cost as much as one.
#[derive(Debug)]
pub struct Numbers {
    uids: UidSet,
    /// The number of the first of each range.
    first: Vec<u32>,
    count: u32,
}

impl Numbers {
    /// Of messages with these UIDs.
    pub fn new(uids: UidSet) -> Self {
        let mut next = 1_u32;
        let numbered = uids.ranges().iter().map(|range| {
            let first = next;
            next = next.saturating_add(range.end() - range.start()).saturating_add(1);
            first
        });
        let first = numbered.collect();
        Self { uids, first, count: next - 1 }
    }

    /// Their UIDs.
    pub fn uids(&self) -> &UidSet {
        &self.uids
    }

    /// How many there are; the largest number.
    pub fn count(&self) -> u32 {
        self.count
    }

    /// The number of a message.
    pub fn number(&self, uid: Uid) -> Option<u32> {
        self.with_uids(uid..=uid).next().map(|(number, _)| number)
    }

    /// Those with numbers in this range, with them, ascending.
    pub fn numbered(&self, range: RangeInclusive<u32>) -> impl Iterator<Item = (u32, Uid)> {
        let (from, to) = range.into_inner();
        let at = self.first.partition_point(|first| *first <= from).saturating_sub(1);
        let rows = self.rows(at).take_while(move |(first, _)| *first <= to);
        rows.flat_map(move |(first, uids)| {
            let last = first.saturating_add(uids.end() - uids.start());
            (from.max(first)..=to.min(last)).map(move |n| (n, uids.start() + (n - first)))
        })
    }

    /// Those with UIDs in this range, with their numbers, ascending.
    pub fn with_uids(&self, range: RangeInclusive<Uid>) -> impl Iterator<Item = (u32, Uid)> {
        let (from, to) = range.into_inner();
        let at = self.uids.ranges().partition_point(|uids| *uids.end() < from);
        let rows = self.rows(at).take_while(move |(_, uids)| *uids.start() <= to);
        rows.flat_map(move |(first, uids)| {
            let (start, end) = (from.max(*uids.start()), to.min(*uids.end()));
            (start..=end).map(move |uid| (first + (uid - uids.start()), uid))
        })
    }

    fn rows(&self, from: usize) -> impl Iterator<Item = (u32, &RangeInclusive<Uid>)> {
        self.first.iter().copied().zip(self.uids.ranges()).skip(from)
    }
}

#[cfg(test)]
mod tests {
    use super::Numbers;

    #[test]
    fn numbers_and_uids_are_found_by_each_other_wherever_some_are_missing() {
        let most = u32::MAX;
        for uids in [&[][..], &[1, 2, 3], &[2, 3, 7, 9, 10, 11, 40], &[most - 4, most - 1, most]] {
            let numbers = Numbers::new(uids.iter().copied().collect());
            assert_eq!(numbers.count() as usize, uids.len());
            let all: Vec<(u32, u32)> = (1..).zip(uids.iter().copied()).collect();
            let ends = (0..50).chain(most - 9..=most);
            for (from, to) in ends.clone().flat_map(|from| ends.clone().map(move |to| (from, to))) {
                let within = |n: u32| (from..=to).contains(&n);
                let meant = all.iter().copied().filter(|(number, _)| within(*number));
                assert!(numbers.numbered(from..=to).eq(meant), "{from} {to} {uids:?}");
                let meant = all.iter().copied().filter(|(_, uid)| within(*uid));
                assert!(numbers.with_uids(from..=to).eq(meant), "{from} {to} {uids:?}");
            }
            assert!(all.iter().all(|(number, uid)| numbers.number(*uid) == Some(*number)));
            assert_eq!(numbers.number(30), None);
        }
    }
}
