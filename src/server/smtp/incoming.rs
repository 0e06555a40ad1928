//! A message on its way into the queue. One of a user who has logged in is looked at as a
//! submission (RFC 6409): its header is held back until it is whole, has to be the user's own, and
//! is completed.

use std::io;

use crate::message::submission::{Authors, HeaderEnd, Missing, Scan, authors, complete};
use crate::message::{Address, date};
use crate::queue::{Draft, Id};
use crate::smtp::Reply;
use crate::sys::clock;

/// The longest header of a submission, in bytes.
const MAX_HEADER: usize = 1 << 20;

/// The most authors of a message whose addresses are looked up.
const MAX_AUTHORS: usize = 20;

/// What keeps a message from the queue.
pub(super) enum Trouble {
    /// It can't be written.
    Io(io::Error),
    /// It is not as it must be, and this is said.
    Refused(Reply),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Whose message it is.
pub(super) struct Submitter<'a> {
    /// The name by which the user has logged in.
    pub user: &'a str,
    /// An address of the user: the envelope's sender, which was looked at, or else of the name.
    pub address: Option<Address>,
    /// The domain of addresses without one.
    pub origin: &'a str,
    /// This host.
    pub hostname: &'a str,
    /// Whether an address is the user's; an error says why that can't be told now.
    pub is_owner: &'a mut dyn FnMut(&Address) -> Result<bool, String>,
}

/// A message that is coming in.
pub(super) struct Incoming<'a> {
    draft: Draft<'a>,
    /// The beginning of a submission, until its header is whole.
    head: Option<(Vec<u8>, Scan)>,
}

impl<'a> Incoming<'a> {
    /// Nothing has come yet, but what is in the draft.
    pub(super) fn new(draft: Draft<'a>, is_submission: bool) -> Self {
        Self { draft, head: is_submission.then(Default::default) }
    }

    /// Takes a piece of the text.
    pub(super) fn write(
        &mut self,
        text: &[u8],
        submitter: &mut Submitter<'_>,
    ) -> Result<(), Trouble> {
        let Some((head, scan)) = &mut self.head else {
            return Ok(self.draft.write(text)?);
        };
        head.extend_from_slice(text);
        match scan.header_end(head, false) {
            Some(end) => self.begin(end, submitter),
            None if head.len() > MAX_HEADER => {
                Err(Trouble::Refused(Reply::new(552, "5.3.4", "Error: the header is too long")))
            }
            None => Ok(()),
        }
    }

    /// The text is whole: makes it last.
    pub(super) fn commit(mut self, submitter: &mut Submitter<'_>) -> Result<Id, Trouble> {
        if let Some((head, scan)) = &mut self.head
            && let Some(end) = scan.header_end(head, true)
        {
            self.begin(end, submitter)?;
        }
        Ok(self.draft.commit()?)
    }

    /// The header is whole.
    fn begin(&mut self, end: HeaderEnd, submitter: &mut Submitter<'_>) -> Result<(), Trouble> {
        let Some((head, _)) = self.head.take() else {
            return Ok(());
        };
        let header = head.get(end.start..end.header).unwrap_or_default();
        let header = submission(header, self.draft.id(), submitter).map_err(Trouble::Refused)?;
        self.draft.write(&header)?;
        self.draft.write(b"\r\n")?;
        Ok(self.draft.write(head.get(end.body..).unwrap_or_default())?)
    }
}

/// The header as it goes on, or why the message does not.
fn submission(header: &[u8], id: &Id, submitter: &mut Submitter<'_>) -> Result<Vec<u8>, Reply> {
    let refused = |what: String| Reply::new(550, "5.6.0", format!("Error: {what}"));
    let Authors { from, sender } = authors(header, submitter.origin).map_err(refused)?;
    let mut own = |address: &Address| {
        (submitter.is_owner)(address)
            .map_err(|_| Reply::new(451, "4.3.0", format!("<{address}>: Temporary lookup failure")))
    };
    let mut author = None;
    for address in from.iter().take(MAX_AUTHORS) {
        if own(address)? {
            author = Some(address.clone());
            break;
        }
    }
    if let (None, Some(first)) = (&author, from.first()) {
        let text = format!("From: <{first}> is no address of user {}", submitter.user);
        return Err(Reply::new(550, "5.7.1", text));
    }
    let is_named = match sender.as_deref() {
        // Several authors need one who has sent it (RFC 5322 section 3.6.2).
        None => from.len() <= 1,
        Some([one]) => own(one)?,
        Some(_) => false,
    };
    let Some(address) = author.or_else(|| submitter.address.clone()) else {
        return Err(refused("field From is missing".into()));
    };
    let missing = Missing {
        sender: &address,
        full_name: "",
        date: &date::rfc5322(&clock::now()),
        message_id: &format!("{id}@{}", submitter.hostname),
        submitter: Some(&address).filter(|_| !is_named),
    };
    complete(header, &missing).map_err(refused)
}
