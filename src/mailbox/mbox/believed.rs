//! Which of the UIDs that stand in an mbox can be believed.
//!
//! An `X-UID` counts only after an `X-IMAPbase` of the first message, only if it is larger than all
//! before it, and not far above the UIDLAST that the base names: anything else is what a stranger
//! wrote, or is left of a mailbox where the message stood before.

use super::own::{ImapBase, Own};
use crate::mailbox::uids::Uid;

/// A UIDLAST above this is a lie, too: it would leave no UIDs for mail to come.
const MOST_LAST: Uid = Uid::MAX - 1_000_000;

/// So far above UIDLAST a UID may be. A live Dovecot writes the UIDs of the messages that it moves, and
/// UIDLAST only when it closes the mailbox. A stranger can't use up many UIDs by so small a lie.
const AHEAD: Uid = 1000;

/// Looks at the messages of a mailbox in their order, c-client's pseudo message with them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Believed {
    /// UIDVALIDITY and UIDLAST, where there is a base.
    base: Option<(u32, Uid)>,
    highest: Uid,
    started: bool,
}

impl Believed {
    /// For a mailbox that is looked at from its first message on.
    pub fn new() -> Self {
        Self::default()
    }

    /// For the rest of a mailbox: what its first message says, and the largest UID before.
    pub fn after(base: Option<&ImapBase>, highest: Uid) -> Self {
        Self { base: base.and_then(numbers), highest, started: true }
    }

    /// The next message: its UID, if it can be believed.
    pub fn uid(&mut self, own: &Own) -> Option<Uid> {
        if !std::mem::replace(&mut self.started, true) {
            self.base = own.base.as_ref().and_then(numbers);
        }
        let (_, last) = self.base?;
        let uid = own.uid.filter(|uid| *uid > self.highest && *uid - last.min(*uid) <= AHEAD)?;
        self.highest = uid;
        Some(uid)
    }

    /// UIDVALIDITY and UIDLAST as the first message has them, if it has.
    pub fn base(&self) -> Option<(u32, Uid)> {
        self.base
    }
}

fn numbers(base: &ImapBase) -> Option<(u32, Uid)> {
    (base.uid_last <= MOST_LAST).then_some((base.uid_validity, base.uid_last))
}

#[cfg(test)]
mod tests {
    use super::{AHEAD, Believed, ImapBase, MOST_LAST, Own};

    fn believed(base: Option<u32>, uids: &[u32]) -> Vec<Option<u32>> {
        let base = base.map(|uid_last| ImapBase { uid_validity: 7, uid_last, keywords: vec![] });
        let mut believed = Believed::new();
        let own = |(at, uid): (usize, &u32)| Own {
            uid: Some(*uid).filter(|uid| *uid > 0),
            base: base.clone().filter(|_| at == 0),
            ..Own::default()
        };
        uids.iter().enumerate().map(own).map(|own| believed.uid(&own)).collect()
    }

    #[test]
    fn a_uid_counts_behind_a_base_where_it_grows_not_far_above_the_last() {
        let all = [Some(1), Some(3), None, None, Some(4), None, Some(9), Some(10)];
        assert_eq!(believed(Some(9), &[1, 3, 3, 2, 4, 0, 9, 10]), all);
        assert_eq!(believed(Some(9), &[9 + AHEAD + 1, 9 + AHEAD]), [None, Some(9 + AHEAD)]);
        assert_eq!(believed(None, &[1, 2]), [None, None]);
        assert_eq!(believed(Some(0), &[AHEAD + 1, 2]), [None, Some(2)]);
        assert_eq!(believed(Some(MOST_LAST), &[MOST_LAST]), [Some(MOST_LAST)]);
        assert_eq!(believed(Some(MOST_LAST + 1), &[1]), [None]);
    }

    #[test]
    fn a_base_in_a_later_message_is_none() {
        let base = Some(ImapBase { uid_validity: 7, uid_last: 9, keywords: vec![] });
        let mut believed = Believed::new();
        assert_eq!(believed.uid(&Own::default()), None);
        assert_eq!(believed.uid(&Own { uid: Some(2), base, ..Own::default() }), None);
        assert_eq!(believed.base(), None);
    }

    #[test]
    fn behind_what_is_known_it_goes_on() {
        let base = ImapBase { uid_validity: 7, uid_last: 9, keywords: vec![] };
        let mut believed = Believed::after(Some(&base), 5);
        let mut uid = |uid| believed.uid(&Own { uid: Some(uid), ..Own::default() });
        assert_eq!([uid(5), uid(6), uid(6)], [None, Some(6), None]);
    }
}
