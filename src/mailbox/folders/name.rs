//! Names of folders, as the protocol has them and as the disk has them.
//!
//! A [`Name`] is words between slashes. Whatever could lead out of the directory of folders, or to a
//! file there that is none, is no name: a `Name` can be joined to a path without another look.

use std::fmt;

use crate::text::utf7;

/// So many bytes a name may have.
const MOST_BYTES: usize = 1000;
/// So many bytes a word may have, on the disk: endings of ours and of others are put behind it.
const MOST_IN_A_WORD: usize = 200;
/// So many words a name may have.
pub const MOST_WORDS: usize = 50;

/// The directory with the folders below a folder ends so, as Thunderbird has it.
pub(super) const BELOW: &str = ".sbd";

/// What belongs to a mailbox and is none: directories of folders below it, dot locks, Thunderbird's
/// summaries, our small files where `[paths] index` is the directory of folders.
const ENDINGS: [&str; 15] = [
    BELOW,
    ".lock",
    ".msf",
    ".index",
    ".index.new",
    ".redo",
    ".redo.new",
    ".redo.bad",
    ".append",
    ".delivered",
    ".cache",
    ".cache.new",
    ".folders",
    ".special-use",
    ".special-use.new",
];

/// Files of ours that bear no mailbox's name, likewise.
const OURS: [&str; 2] = ["duplicates", "uidvalidity"];

/// The name of a folder. `INBOX`, in any case, is the inbox; as the first of several words it is
/// one like another, but always written so.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split('/');
        let inbox = |word: &str| word.eq_ignore_ascii_case("INBOX");
        let sound = words.clone().all(is_word)
            && words.clone().count() <= MOST_WORDS
            && text.len() <= MOST_BYTES;
        if !sound {
            return Err(format!(
                "{text:?} is no name of a folder: words between slashes are wanted, none of \
                 which is empty, begins with a dot, has control characters or ends as files do that \
                 belong to a mailbox (.lock, .sbd …)"
            ));
        }
        match words.next() {
            Some(word) if inbox(word) => {
                let rest = text.get(word.len()..).unwrap_or_default();
                Ok(Self(format!("INBOX{rest}")))
            }
            _ => Ok(Self(text.to_owned())),
        }
    }

    /// The inbox.
    pub fn inbox() -> Self {
        Self("INBOX".into())
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the inbox.
    pub fn is_inbox(&self) -> bool {
        self.0 == "INBOX"
    }

    /// Its words.
    pub fn words(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.0.split('/')
    }

    /// The folder above it.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }

    /// Whether it stands somewhere below `other`.
    pub fn is_below(&self, other: &Self) -> bool {
        self.0.strip_prefix(&other.0).is_some_and(|rest| rest.starts_with('/'))
    }

    /// Its name when `from`, which it is or stands below, is called `to`.
    pub(super) fn moved(&self, from: &Self, to: &Self) -> Option<Self> {
        let rest = self.0.strip_prefix(&from.0)?;
        (rest.is_empty() || rest.starts_with('/')).then(|| Self(format!("{}{rest}", to.0)))
    }

    /// The folder below `parent` (below all of them: `None`) that the disk calls so.
    pub(super) fn on_disk(parent: Option<&Self>, word: &str) -> Option<Self> {
        let word = word_of(word);
        let text = match parent {
            Some(Self(parent)) => format!("{parent}/{word}"),
            None => word,
        };
        // Another case of INBOX would be the name of something else.
        Self::parse(&text).ok().filter(|Self(name)| *name == text)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A name as somebody gives it who may write a slash behind it: to local-deliver that is a Maildir, to
/// CREATE (RFC 9051 section 6.3.4) a place for other folders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The name.
    pub name: Name,
    /// There was a slash behind it.
    pub slash: bool,
}

impl Wanted {
    /// Checks a name.
    pub fn parse(text: &str) -> Result<Self, String> {
        let name = text.strip_suffix('/').unwrap_or(text);
        Ok(Self { name: Name::parse(name)?, slash: name.len() < text.len() })
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.name, if self.slash { "/" } else { "" })
    }
}

fn is_word(word: &str) -> bool {
    (1..=MOST_IN_A_WORD).contains(&disk_word(word).len())
        && !word.starts_with('.')
        && !word.contains(|c: char| c.is_control())
        && !ENDINGS.iter().any(|ending| word.ends_with(ending))
        && !OURS.contains(&word)
}

/// The word that the disk's one means: as it is, or decoded where it is modified UTF-7, which Dovecot
/// writes.
fn word_of(disk: &str) -> String {
    let decoded = if disk.contains('&') { utf7::decode(disk) } else { None };
    decoded.unwrap_or_else(|| disk.to_owned())
}

/// How we write a word to the disk: as it is, but where that would be read as modified UTF-7.
pub(super) fn disk_word(word: &str) -> String {
    if word.contains('&') && utf7::decode(word).is_some() {
        return utf7::encode(word);
    }
    word.to_owned()
}

/// How the disk may have a word: as we write it, then as Dovecot does.
pub(super) fn disk_words(word: &str) -> Vec<String> {
    let mut all = vec![disk_word(word), utf7::encode(word)];
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use super::{ENDINGS, Name, Wanted, disk_word, disk_words, word_of};

    #[test]
    fn names_are_words_between_slashes() {
        for name in [
            "a",
            "a/b",
            "a b/c&d",
            "Entw\u{fc}rfe",
            "a.b",
            "INBOX/x",
            "a/inbox",
            "\u{2026}",
            "a\\b",
            "~",
            "-",
        ] {
            assert_eq!(Name::parse(name).unwrap().as_str(), name);
        }
        assert!(Name::parse("iNbOx").unwrap().is_inbox());
        assert_eq!(Name::parse("inbox/Inbox").unwrap().as_str(), "INBOX/Inbox");
        assert_eq!(Name::parse("INBOXES").unwrap().as_str(), "INBOXES");
        let long = "x".repeat(201);
        let deep = "a/".repeat(50) + "a";
        let many = std::array::from_fn::<_, 6, _>(|_| "x".repeat(199)).join("/");
        for name in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "../a",
            "a/..",
            "a/../b",
            ".index",
            "a/.b",
            "a\nb",
            "a\0",
            "a\u{7f}",
            "a\u{85}",
            "a.sbd",
            "a.sbd/b",
            "a.lock",
            "a/b.lock",
            "Inbox.msf",
            "a.index",
            "box-0123456789abcdef.redo.bad",
            "uidvalidity",
            &long,
            &deep,
            &many,
        ] {
            assert!(Name::parse(name).is_err(), "{name:?}");
        }
        assert!(Name::parse(&deep[2..]).is_ok());
        let wanted = Wanted::parse("a/b/").unwrap();
        assert!(wanted.slash && wanted.name.as_str() == "a/b" && wanted.to_string() == "a/b/");
        assert!(!Wanted::parse("a/b").unwrap().slash && Wanted::parse("a//").is_err());
    }

    #[test]
    fn families_are_known_by_whole_words() {
        let name = |text| Name::parse(text).unwrap();
        assert!(name("a/b/c").is_below(&name("a")) && !name("ab").is_below(&name("a")));
        assert!(!name("a").is_below(&name("a")));
        assert_eq!(name("a/b").parent(), Some(name("a")));
        assert_eq!(name("a").parent(), None);
        assert_eq!(name("a/b").moved(&name("a"), &name("x/y")), Some(name("x/y/b")));
        assert_eq!(name("ab").moved(&name("a"), &name("x")), None);
    }

    #[test]
    fn dovecots_names_are_read_and_others_stand_as_they_are() {
        for (disk, word) in [
            ("Entw&APw-rfe", "Entw\u{fc}rfe"),
            ("R&-D", "R&D"),
            ("R&D", "R&D"),
            ("Entw\u{fc}rfe", "Entw\u{fc}rfe"),
            ("a&b-c", "a&b-c"),
        ] {
            assert_eq!(word_of(disk), word);
            assert!(disk_words(word).iter().any(|known| known == disk), "{disk}");
        }
        assert_eq!(disk_word("R&-D"), "R&--D");
        // A word that says so: in hiding.
        assert_eq!(Name::on_disk(None, "&AAo-"), None);
        assert_eq!(Name::on_disk(None, "Inbox"), None);
        assert!(Name::on_disk(None, "INBOX").unwrap().is_inbox());
    }

    #[test]
    fn no_name_leads_outside_and_every_word_is_read_back_from_the_disk() {
        let mut seed = 7_u64;
        let mut next = |below: usize| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from(seed >> 33).unwrap() % below
        };
        let parts = [
            "/", "/", ".", "..", "a", "b", "&", "-", "&APw-", "&AC8-", "&AC4ALg-", "\u{fc}", "\0",
            "\n", ".sbd", ".lock", "INBOX", "inbox", "~", "\\", " ", "x.y", "%", "*", "\"",
        ];
        let mut sound = 0;
        for _ in 0..200_000 {
            let text: String = (0..next(7)).map(|_| parts[next(parts.len())]).collect();
            let Ok(name) = Name::parse(&text) else {
                continue;
            };
            sound += 1;
            assert!(name.as_str().eq_ignore_ascii_case(&text) || text == name.as_str());
            for word in name.words() {
                assert_eq!(word_of(&disk_word(word)), word);
                for disk in disk_words(word) {
                    let path = Path::new(&disk);
                    let mut components = path.components();
                    assert!(
                        matches!(components.next(), Some(Component::Normal(all)) if all == path),
                        "{disk:?}"
                    );
                    assert!(!disk.starts_with('.') && !disk.contains(['\0', '\n']), "{disk:?}");
                    assert!(!ENDINGS.iter().any(|ending| disk.ends_with(ending)), "{disk:?}");
                    assert_eq!(word_of(&disk), word);
                }
            }
        }
        assert!(sound > 10_000);
    }
}
