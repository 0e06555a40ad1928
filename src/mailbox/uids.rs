//! Sets of UIDs, kept as ranges: `1:*` of a mailbox of any size is one of them.

use std::ops::RangeInclusive;

/// What a message is called for as long as its mailbox is called by the same UIDVALIDITY. Never 0
/// (RFC 9051 section 2.3.1.1).
pub type Uid = u32;

/// Where `uid` is in a list that ascends by its UIDs. Between two UIDs there are no more than numbers:
/// where few are missing it is looked at few, however long the list is.
pub fn place_of<T>(list: &[T], uid: Uid, uid_of: impl Fn(&T) -> Uid) -> Option<usize> {
    let before = usize::try_from(uid.checked_sub(uid_of(list.first()?))?).ok()?;
    let behind = usize::try_from(uid_of(list.last()?).checked_sub(uid)?).ok()?;
    let last = list.len().saturating_sub(1);
    let first = last.saturating_sub(behind);
    let possible = list.get(first..=before.min(last))?;
    let at = possible.binary_search_by_key(&uid, uid_of).ok()?;
    Some(first.saturating_add(at))
}

/// A set of UIDs: ascending ranges that don't touch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UidSet(Vec<RangeInclusive<Uid>>);

impl UidSet {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `uid` is in it.
    pub fn contains(&self, uid: Uid) -> bool {
        let at = self.0.partition_point(|range| *range.end() < uid);
        self.0.get(at).is_some_and(|range| range.contains(&uid))
    }

    /// How many UIDs are in it.
    pub fn len(&self) -> u64 {
        self.0.iter().fold(0, |sum, range| {
            sum.saturating_add(u64::from(range.end() - range.start()).saturating_add(1))
        })
    }

    /// The ranges, ascending.
    pub fn ranges(&self) -> &[RangeInclusive<Uid>] {
        &self.0
    }

    /// The UIDs, ascending.
    pub fn iter(&self) -> impl Iterator<Item = Uid> + '_ {
        self.0.iter().flat_map(Clone::clone)
    }

    /// The largest in it.
    pub fn last(&self) -> Option<Uid> {
        self.0.last().map(|range| *range.end())
    }

    /// Whether any of these are in it.
    pub fn meets(&self, uids: &RangeInclusive<Uid>) -> bool {
        let at = self.0.partition_point(|range| range.end() < uids.start());
        self.0.get(at).is_some_and(|range| range.start() <= uids.end())
    }

    /// Those that are larger than `uid`.
    #[must_use]
    pub fn above(&self, uid: Uid) -> Self {
        uid.checked_add(1).map_or_else(Self::new, |first| self.and(&Self::from(first..=Uid::MAX)))
    }

    /// Those that are in both.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        let mut both = Vec::new();
        let mut ours = self.reaching(other.0.first()).iter().peekable();
        let mut theirs = other.reaching(self.0.first()).iter().peekable();
        while let (Some(our), Some(their)) = (ours.peek(), theirs.peek()) {
            let (start, end) = (our.start().max(their.start()), our.end().min(their.end()));
            if start <= end {
                both.push(*start..=*end);
            }
            let is_ours_done = our.end() <= their.end();
            let _ = if is_ours_done { ours.next() } else { theirs.next() };
        }
        Self(both)
    }

    /// The ranges but for those that end before this one.
    fn reaching(&self, first: Option<&RangeInclusive<Uid>>) -> &[RangeInclusive<Uid>] {
        let before = |range: &RangeInclusive<Uid>| first.is_some_and(|f| range.end() < f.start());
        self.0.get(self.0.partition_point(before)..).unwrap_or_default()
    }

    /// Those that are not in `other`.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        let mut others = other.0.iter().peekable();
        for range in &self.0 {
            let mut start = *range.start();
            let mut is_left = true;
            while let Some(other) = others.peek().filter(|other| other.start() <= range.end()) {
                if *other.end() >= start {
                    if *other.start() > start {
                        left.push(start..=other.start().saturating_sub(1));
                    }
                    is_left = other.end() < range.end();
                    start = other.end().saturating_add(1);
                }
                if !is_left {
                    // It may reach into the next.
                    break;
                }
                others.next();
            }
            if is_left {
                left.push(start..=*range.end());
            }
        }
        Self(left)
    }

    /// Puts one more in. Costs little where it is the largest.
    pub fn insert(&mut self, uid: Uid) {
        match self.0.last_mut() {
            Some(last) if last.end().checked_add(1) == Some(uid) => *last = *last.start()..=uid,
            _ => self.insert_range(uid..=uid),
        }
    }

    /// Puts a range in; an empty one is nothing.
    pub fn insert_range(&mut self, range: RangeInclusive<Uid>) {
        let (mut start, mut end) = range.into_inner();
        if start > end {
            return;
        }
        // Those that overlap or touch it become one with it.
        let from = self.0.partition_point(|other| other.end().saturating_add(1) < start);
        let to = self.0.partition_point(|other| *other.start() <= end.saturating_add(1));
        if let (Some(first), Some(last)) = (self.0.get(from), self.0.get(to.wrapping_sub(1)))
            && from < to
        {
            start = start.min(*first.start());
            end = end.max(*last.end());
        }
        self.0.splice(from..to.max(from), [start..=end]);
    }
}

impl FromIterator<Uid> for UidSet {
    fn from_iter<I: IntoIterator<Item = Uid>>(uids: I) -> Self {
        let mut set = Self::new();
        for uid in uids {
            set.insert(uid);
        }
        set
    }
}

impl From<RangeInclusive<Uid>> for UidSet {
    fn from(range: RangeInclusive<Uid>) -> Self {
        let mut set = Self::new();
        set.insert_range(range);
        set
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{UidSet, place_of};

    #[test]
    fn a_uid_is_found_wherever_some_are_missing() {
        for list in [&[][..], &[7], &[1, 2, 3], &[3, 4, 9, 10, 11, 90], &[1, 5, u32::MAX]] {
            for uid in (0..100).chain([u32::MAX - 1, u32::MAX]) {
                let place = list.iter().position(|other| *other == uid);
                assert_eq!(place_of(list, uid, |uid| *uid), place, "{uid} in {list:?}");
            }
        }
    }

    #[test]
    fn a_set_is_the_same_in_whatever_order_it_was_filled() {
        let mut seed = 7_u32;
        let mut dice = move |most: u32| {
            seed = seed.wrapping_mul(1_103_515_245).wrapping_add(12345);
            (seed >> 8) % most
        };
        for _ in 0..300 {
            let mut set = UidSet::new();
            let mut model = BTreeSet::new();
            for _ in 0..dice(30) {
                let start = dice(60) + 1;
                let end = start + dice(6);
                set.insert_range(start..=end);
                model.extend(start..=end);
            }
            assert!(set.iter().eq(model.iter().copied()), "{set:?}");
            assert_eq!(set.len(), model.len() as u64);
            let apart = set.ranges().windows(2).all(|pair| *pair[0].end() + 1 < *pair[1].start());
            assert!(apart, "{set:?}");
            for uid in 0..70 {
                assert_eq!(set.contains(uid), model.contains(&uid));
                let range = uid..=uid + dice(5);
                assert_eq!(set.meets(&range), range.into_iter().any(|uid| model.contains(&uid)));
            }
            assert_eq!(set.last(), model.last().copied());
            let others: BTreeSet<u32> = (0..dice(40)).map(|_| dice(70) + 1).collect();
            let other: UidSet = others.iter().copied().collect();
            let both: UidSet = model.intersection(&others).copied().collect();
            assert_eq!(set.and(&other), both, "{set:?} {other:?}");
            let left: UidSet = model.difference(&others).copied().collect();
            assert_eq!(set.minus(&other), left, "{set:?} {other:?}");
        }
    }

    #[test]
    fn the_largest_uids_are_uids_like_others() {
        let mut set: UidSet = (u32::MAX - 1..=u32::MAX).into();
        set.insert(1);
        set.insert(u32::MAX - 2);
        assert_eq!(set.len(), 4);
        assert!(set.contains(u32::MAX) && !set.contains(2));
        assert_eq!(set.above(1), (u32::MAX - 2..=u32::MAX).into());
        assert_eq!(set.above(u32::MAX - 1), (u32::MAX..=u32::MAX).into());
        assert!(set.above(u32::MAX).is_empty());
        let all = UidSet::from(1..=u32::MAX);
        assert_eq!(all.minus(&set), (2..=u32::MAX - 3).into());
        assert_eq!(all.and(&set), set);
        assert!(set.minus(&all).is_empty());
    }
}
