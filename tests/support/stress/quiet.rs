//! What holds when nobody does anything: all sessions know the same, and it is what there is.

use std::collections::{BTreeMap, BTreeSet};

use super::super::imap::view::{Line, View};
use super::super::imap::{Imap, Said, Value};
use super::super::wait_until;
use super::session::{Failed, Session};
use super::{Class, Folder, Key, OWNED, Stress, is_whole};

/// A mailbox as a session finds it that knows nothing of before.
struct Found {
    key: Key,
    messages: BTreeMap<u32, Fetched>,
    status: Vec<String>,
    uid_next: u32,
}

struct Fetched {
    token: u32,
    flags: BTreeSet<String>,
    items: Vec<(String, Value)>,
}

impl Stress {
    /// Looks at everything, when all sessions have stopped. `all`: at all texts, not only new ones.
    #[track_caller]
    pub fn look(&self, sessions: &mut [Session<'_>], all: bool) {
        // Those whose clients have gone may not have heard of it yet.
        wait_until("the sessions of clients that have gone to end", || {
            (self.server.monitors().len() == sessions.len()).then_some(())
        });
        for session in &mut *sessions {
            match session.settle() {
                Ok(()) => {}
                Err(Failed::Wrong(why)) => session.fail(&why),
                Err(Failed::Gone(error)) => {
                    let is_side = session.selected.as_ref().is_some_and(|it| !it.key.0.stays());
                    assert!(is_side, "{error}\n{}", session.imap);
                    session.selected = None;
                    session.imap = self.log_in();
                }
            }
        }
        let mut judge = self.log_in();
        let mut found = Vec::new();
        for folder in [Folder::Inbox, Folder::Archive, Folder::Side] {
            for name in folder.names() {
                found.extend(self.find(&mut judge, folder, name, all));
            }
        }
        judge.must("LOGOUT");
        for one in &found {
            for session in &*sessions {
                agrees(session, one);
            }
            self.remember(one);
        }
        self.count(&found);
    }

    /// All that is in a mailbox; none where there is no such folder.
    fn find(&self, judge: &mut Imap, folder: Folder, name: &str, all: bool) -> Option<Found> {
        let items = "(MESSAGES UIDNEXT UIDVALIDITY UNSEEN SIZE DELETED)";
        let status = judge.ask(&format!("STATUS {name} {items}")).unwrap();
        let status = status.iter().find_map(|said| match said {
            Said::Data(word, values) if word == "STATUS" => Some(values[1].words()),
            _ => None,
        });
        let Some(status) = status else {
            assert!(!folder.stays(), "{name}\n{judge}");
            return None;
        };
        let view = View::selected(&judge.must(&format!("EXAMINE {name}"))).unwrap();
        let key = (folder, view.uid_validity);
        let items = "UID FLAGS RFC822.SIZE INTERNALDATE ENVELOPE BODYSTRUCTURE \
                     BODY.PEEK[HEADER.FIELDS (X-TOKEN)]";
        let mut messages = BTreeMap::new();
        for said in judge.must(&format!("UID FETCH 1:* ({items})")) {
            if let Said::Fetch(_, items) = said {
                let (uid, fetched) = fetched(items);
                assert!(messages.insert(uid, fetched).is_none(), "UID {uid} twice in {name}");
            }
        }
        assert_eq!(messages.len(), view.lines.len(), "{name}\n{judge}");
        let model = self.model();
        let is_read = |uid: &u32| {
            let mailbox = model.mailboxes.get(&key);
            mailbox.and_then(|it| it.messages.get(uid)).is_some_and(|one| one.is_read)
        };
        let unread: Vec<u32> =
            messages.keys().copied().filter(|uid| all || !is_read(uid)).collect();
        drop(model);
        for uids in unread.chunks(50) {
            let set = super::super::imap::view::set(uids.iter().copied());
            for said in judge.must(&format!("UID FETCH {set} (UID BODY.PEEK[])")) {
                let Said::Fetch(_, items) = said else { continue };
                let value = |name: &str| &items.iter().find(|(of, _)| of == name).unwrap().1;
                let uid = u32::try_from(value("UID").number()).unwrap();
                let (text, one) = (value("BODY[]").bytes(), &messages[&uid]);
                assert!(is_whole(one.token, text), "{name} {uid}: {}", text.escape_ascii());
                assert_eq!(text.len() as u64, one.item("RFC822.SIZE").number(), "{name} {uid}");
            }
        }
        Some(Found { key, messages, status, uid_next: view.uid_next })
    }

    /// Holds what is there to what was known, and knows it from now on.
    fn remember(&self, found: &Found) {
        let key = found.key;
        let mut model = self.model();
        for (uid, fetched) in &found.messages {
            let one = model.see(key, *uid, fetched.token);
            let one = one.unwrap_or_else(|why| panic!("{why}"));
            (one.is_certain, one.is_read) = (true, true);
            one.may_go |= fetched.flags.contains("\\deleted");
            for (name, value) in &fetched.items {
                if ["UID", "FLAGS"].contains(&&**name) {
                    continue;
                }
                let before = one.facts.entry(name.clone()).or_insert_with(|| value.clone());
                assert_eq!(before, value, "{key:?}: {name} of UID {uid}");
            }
            let owned: BTreeSet<String> =
                fetched.flags.iter().filter(|flag| OWNED.contains(&&***flag)).cloned().collect();
            let known = one.owned.get_or_insert_with(|| owned.clone());
            assert_eq!(*known, owned, "{key:?}: what UID {uid} ({}) is marked with", one.token);
        }
        let mailbox = model.mailboxes.entry(key).or_default();
        assert!(found.uid_next >= mailbox.uid_next, "{key:?}: UIDNEXT");
        mailbox.uid_next = found.uid_next;
        for (uid, one) in &mut mailbox.messages {
            if found.messages.contains_key(uid) {
                continue;
            }
            let may_go = one.may_go || !one.is_certain || !key.0.stays();
            assert!(may_go, "{key:?}: UID {uid}, message {}, is lost", one.token);
            one.is_gone = true;
        }
        let sum = |value: &dyn Fn(&Fetched) -> u64| found.messages.values().map(value).sum::<u64>();
        let lacks = |flag: &str| sum(&|one| u64::from(!one.flags.contains(flag)));
        let wanted = [
            ("MESSAGES", found.messages.len() as u64),
            ("UIDNEXT", found.uid_next.into()),
            ("UIDVALIDITY", key.1.into()),
            ("UNSEEN", lacks("\\seen")),
            ("SIZE", sum(&|one| one.item("RFC822.SIZE").number())),
            ("DELETED", found.messages.len() as u64 - lacks("\\deleted")),
        ];
        let wanted = wanted.map(|(name, value)| [name.to_owned(), value.to_string()]);
        assert_eq!(found.status, wanted.concat(), "{key:?}");
        let last = found.messages.keys().next_back().copied().unwrap_or(0);
        assert!(found.uid_next > last, "{key:?}: UIDNEXT {} behind {last}", found.uid_next);
    }

    /// How often each message is there.
    fn count(&self, found: &[Found]) {
        let mut there: BTreeMap<u32, usize> = BTreeMap::new();
        for one in found.iter().filter(|one| one.key.0.stays()) {
            for fetched in one.messages.values() {
                *there.entry(fetched.token).or_default() += 1;
            }
        }
        let model = self.model();
        let mut ever: BTreeMap<u32, usize> = BTreeMap::new();
        for ((folder, _), mailbox) in &model.mailboxes {
            for one in mailbox.messages.values().filter(|_| folder.stays()) {
                *ever.entry(one.token).or_default() += 1;
            }
        }
        for (token, sent) in &model.sent {
            let now = there.get(token).copied().unwrap_or(0);
            let ever = ever.get(token).copied().unwrap_or(0);
            assert!(ever <= sent.possible, "message {token} came {ever} times: {sent:?}");
            match Class::of(*token) {
                Class::Single if sent.certain => {
                    assert_eq!(now, 1, "message {token} is to be in one place");
                }
                Class::Single => assert!(now <= 1, "message {token} is there {now} times"),
                Class::Copied if sent.certain => assert!(now > 0, "message {token} is lost"),
                Class::Copied | Class::Doomed => {}
            }
        }
    }
}

impl Fetched {
    fn item(&self, name: &str) -> &Value {
        &self.items.iter().find(|(of, _)| of == name).unwrap().1
    }
}

fn fetched(items: Vec<(String, Value)>) -> (u32, Fetched) {
    let mut fetched = Fetched { token: 0, flags: BTreeSet::new(), items };
    let text = fetched.items.iter().find(|(name, _)| name.starts_with("BODY[HEADER.FIELDS"));
    let text = String::from_utf8_lossy(text.unwrap().1.bytes()).into_owned();
    fetched.token = text.trim().strip_prefix("X-Token: ").unwrap().parse().unwrap();
    fetched.flags = super::super::imap::view::flags(fetched.item("FLAGS"));
    fetched.flags.remove("\\recent");
    (u32::try_from(fetched.item("UID").number()).unwrap(), fetched)
}

/// That a session knows what is there, if it has this mailbox selected.
fn agrees(session: &Session<'_>, found: &Found) {
    let Some(selected) = session.selected.as_ref().filter(|it| it.key == found.key) else {
        return;
    };
    let view = &selected.view;
    let uids: Vec<u32> = found.messages.keys().copied().collect();
    if view.uids() != uids {
        session.fail(&format!("it knows {:?}, and there are {uids:?}", view.uids()));
    }
    for Line { uid, flags, .. } in &view.lines {
        let there = &found.messages[&uid.unwrap()].flags;
        if flags.as_ref() != Some(there) {
            session.fail(&format!("{uid:?} has {there:?}, and it knows {flags:?}"));
        }
    }
}
