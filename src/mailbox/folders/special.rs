//! What folders are for (RFC 6154).
//!
//! What a client said with CREATE stands in the file `NAME.special-use`, a line for each: the attribute,
//! a tab, the name. A use that has no line there belongs to the folder that is usually called so.

use super::Folders;
use super::error::Error;
use super::layout::Tree;
use super::name::Name;
use super::small::Lock;

/// What a folder is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SpecialUse {
    /// `\All`: every message there is.
    All,
    /// `\Archive`
    Archive,
    /// `\Drafts`
    Drafts,
    /// `\Flagged`: every flagged message.
    Flagged,
    /// `\Junk`
    Junk,
    /// `\Sent`
    Sent,
    /// `\Trash`
    Trash,
}

impl SpecialUse {
    const ALL: [Self; 7] = [
        Self::All,
        Self::Archive,
        Self::Drafts,
        Self::Flagged,
        Self::Junk,
        Self::Sent,
        Self::Trash,
    ];

    /// The attribute's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "\\All",
            Self::Archive => "\\Archive",
            Self::Drafts => "\\Drafts",
            Self::Flagged => "\\Flagged",
            Self::Junk => "\\Junk",
            Self::Sent => "\\Sent",
            Self::Trash => "\\Trash",
        }
    }

    /// The attribute of this name, in any case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str().eq_ignore_ascii_case(text))
    }

    /// What such a folder is usually called: by the standard, Thunderbird, Apple, Outlook, alpine and
    /// mutt, the likeliest first.
    fn usual_names(self) -> &'static [&'static str] {
        match self {
            Self::All | Self::Flagged => &[],
            Self::Archive => &["Archive", "Archives"],
            Self::Drafts => &["Drafts", "Draft", "postponed-msgs", "postponed"],
            Self::Junk => &["Junk", "Spam", "Junk E-mail", "Junk Email", "Bulk Mail"],
            Self::Sent => &["Sent", "Sent Messages", "Sent Items", "Sent Mail", "sent-mail"],
            Self::Trash => &["Trash", "Deleted Messages", "Deleted Items", "Deleted"],
        }
    }
}

impl Folders {
    /// Which folders are for what.
    pub(super) fn uses(&self, tree: &Tree) -> Vec<(SpecialUse, Name)> {
        let said = uses_in(&self.read_uses());
        let mut uses: Vec<(SpecialUse, Name)> =
            said.into_iter().filter(|(_, name)| tree.folders.contains_key(name)).collect();
        for one in SpecialUse::ALL {
            if uses.iter().any(|(said, _)| *said == one) {
                continue;
            }
            let called = |usual: &&str| {
                let mut folders = tree.folders.iter();
                folders.find(|(name, mailbox)| {
                    mailbox.is_some() && name.as_str().eq_ignore_ascii_case(usual)
                })
            };
            if let Some((name, _)) = one.usual_names().iter().find_map(called) {
                uses.push((one, name.clone()));
            }
        }
        uses
    }

    /// Keeps what a folder is for.
    pub(super) fn set_uses(
        &self,
        lock: &Lock,
        of: &Name,
        uses: &[SpecialUse],
    ) -> Result<(), Error> {
        if uses.is_empty() {
            return Ok(());
        }
        if let Some(one) = uses.iter().find(|one| one.usual_names().is_empty()) {
            let text = format!("no folder can be {}: there are no such views here", one.as_str());
            return Err(Error::UseAttribute(text));
        }
        self.change_uses(lock, |mut known| {
            known.retain(|(_, name)| name != of);
            known.extend(uses.iter().map(|one| (*one, of.clone())));
            known
        })
    }

    /// A folder is gone, or has another name, with all below it.
    pub(super) fn move_uses(
        &self,
        lock: &Lock,
        from: &Name,
        to: Option<&Name>,
    ) -> Result<(), Error> {
        self.change_uses(lock, |known| {
            let moved = known.into_iter().filter_map(|(one, name)| match to {
                Some(to) => Some((one, name.moved(from, to).unwrap_or(name))),
                None => (name != *from).then_some((one, name)),
            });
            moved.collect()
        })
    }

    fn change_uses(
        &self,
        lock: &Lock,
        change: impl FnOnce(Vec<(SpecialUse, Name)>) -> Vec<(SpecialUse, Name)>,
    ) -> Result<(), Error> {
        let known = uses_in(&self.read_uses());
        let changed = change(known.clone());
        if changed == known {
            return Ok(());
        }
        let line = |(one, name): &(SpecialUse, Name)| format!("{}\t{name}\n", one.as_str());
        let text: String = changed.iter().map(line).collect();
        self.replace_uses(lock, text.as_bytes())
    }
}

fn uses_in(bytes: &[u8]) -> Vec<(SpecialUse, Name)> {
    let lines = bytes.split(|b| *b == b'\n').filter_map(|line| str::from_utf8(line).ok());
    let pairs = lines.filter_map(|line| {
        let (one, name) = line.split_once('\t')?;
        Some((SpecialUse::parse(one)?, Name::parse(name).ok()?))
    });
    pairs.collect()
}
