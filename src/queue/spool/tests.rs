use super::*;
use crate::message::Address;
use crate::queue::{Envelope, Event, Origin, Outcome, pickup};
use crate::smtp::Body;

fn spool() -> (tempfile::TempDir, Spool) {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::new(directory.path());
    spool.prepare().unwrap();
    (directory, spool)
}

fn envelope() -> Envelope {
    Envelope {
        arrived: 1,
        origin: Origin::Smtp,
        sender: None,
        body: Body::SevenBit,
        utf8: false,
        ret: None,
        envelope_id: None,
        recipients: [&b"a@b"[..], b"c@d"].map(|to| Address::parse(to).unwrap().into()).to_vec(),
    }
}

fn enqueue(inlet: &Inlet, pieces: &[&[u8]]) -> Id {
    let mut draft = inlet.create(Id::new().unwrap(), &envelope()).unwrap();
    for piece in pieces {
        draft.write(piece).unwrap();
    }
    draft.commit().unwrap()
}

fn content(entry: &Entry) -> Vec<u8> {
    let mut all = vec![0; usize::try_from(entry.size()).unwrap()];
    let mut offset = 0;
    while offset < all.len() {
        offset += entry.read_content(offset as u64, &mut all[offset..]).unwrap();
    }
    all
}

#[test]
fn what_goes_in_comes_out_whatever_its_size() {
    let (_directory, spool) = spool();
    let inlet = spool.incoming().unwrap();
    let large = vec![b'x'; 1_000_000];
    let cases: [&[&[u8]]; 5] = [
        &[],
        &[b"a"],
        &[b"one\r\n", b"two\r\n"],
        &[b"a", &large, b"b"],
        &[&large[..100_000], &large[..100_000]],
    ];
    for pieces in cases {
        let id = enqueue(&inlet, pieces);
        let place = Place::Incoming(id);
        assert_eq!(spool.list().unwrap(), std::slice::from_ref(&place));
        let entry = spool.claim(&place).unwrap();
        assert_eq!(content(&entry), pieces.concat());
        assert_eq!(entry.envelope, envelope());
        spool.remove(&entry).unwrap();
        assert_eq!(spool.list().unwrap(), []);
    }
}

#[test]
fn a_draft_that_is_not_committed_leaves_nothing() {
    let (directory, spool) = spool();
    let inlet = spool.incoming().unwrap();
    let mut draft = inlet.create(Id::new().unwrap(), &envelope()).unwrap();
    draft.write(b"text").unwrap();
    drop(draft);
    assert_eq!(fs::read_dir(directory.path().join("incoming")).unwrap().count(), 0);
}

#[test]
fn an_entry_has_one_runner() {
    let (_directory, spool) = spool();
    let place = Place::Incoming(enqueue(&spool.incoming().unwrap(), &[b"x"]));
    let entry = spool.claim(&place).unwrap();
    assert!(matches!(spool.claim(&place), Err(Error::Taken)));
    assert!(matches!(spool.claim(entry.place()), Err(Error::Taken)));
    let work = entry.place().clone();
    drop(entry);
    spool.claim(&work).unwrap();
}

#[test]
fn history_survives_a_torn_line_and_a_restart() {
    let (directory, spool) = spool();
    let place = Place::Incoming(enqueue(&spool.incoming().unwrap(), &[b"x"]));
    let event = |recipient, outcome| Event {
        time: 2,
        recipient,
        outcome,
        code: "4.0.0".into(),
        text: "later".into(),
    };
    let mut entry = spool.claim(&place).unwrap();
    entry.record(&[event(0, Outcome::Deferred), event(1, Outcome::Done)]).unwrap();
    spool.defer(&mut entry, 77).unwrap();
    let waiting = entry.place().clone();
    drop(entry);
    assert_eq!(spool.next_due().unwrap(), Some(77));
    let path = directory.path().join(waiting.path());
    let mut bytes = fs::read(&path).unwrap();
    bytes.extend_from_slice(b"12345678 5 0 do");
    fs::write(&path, bytes).unwrap();
    let mut entry = spool.claim(&waiting).unwrap();
    assert_eq!(entry.pending(), [0]);
    assert_eq!(entry.attempts(0), 1);
    entry.record(&[event(0, Outcome::Failed)]).unwrap();
    let work = entry.place().clone();
    drop(entry);
    let entry = spool.claim(&work).unwrap();
    assert_eq!((entry.pending().len(), entry.history.len()), (0, 3));
}

#[test]
fn any_changed_or_missing_byte_is_noticed() {
    let (directory, spool) = spool();
    let place = Place::Incoming(enqueue(&spool.incoming().unwrap(), &[b"content"]));
    let path = directory.path().join(place.path());
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(spool.claim(&place), Err(Error::Damaged(_))), "byte {at}");
        fs::write(&path, &whole[..at]).unwrap();
        assert!(matches!(spool.claim(&place), Err(Error::Damaged(_))), "cut at {at}");
    }
    spool.set_aside(&place).unwrap();
    assert_eq!(spool.names("corrupt").unwrap(), [place.id().to_string()]);
}

#[test]
fn what_is_no_plain_file_is_not_opened() {
    let (directory, spool) = spool();
    let place = Place::Incoming(Id::new().unwrap());
    let path = directory.path().join(place.path());
    std::os::unix::fs::symlink("/etc/passwd", &path).unwrap();
    assert!(matches!(spool.claim(&place), Err(Error::Damaged(_))));
    fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, Mode::S_IRWXU).unwrap();
    assert!(matches!(spool.claim(&place), Err(Error::Damaged(_))));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(matches!(spool.claim(&place), Err(Error::Damaged(_))));
}

#[test]
fn pickup_copies_what_sendmail_wrote_and_adds_its_owner() {
    let (_directory, spool) = spool();
    enqueue(&spool.drop_box().unwrap(), &[b"Subject: x\r\n\r\nbody\r\n"]);
    let problems = pickup::run(&spool, &spool.incoming().unwrap(), "mx.here", 1000);
    assert!(problems.is_empty());
    assert_eq!(spool.names("drop").unwrap().len(), 0);
    let places = spool.list().unwrap();
    let entry = spool.claim(&places[0]).unwrap();
    let text = String::from_utf8(content(&entry)).unwrap();
    let uid = nix::unistd::geteuid();
    let wanted =
        format!("Received: (from userid {uid})\r\n\tby mx.here (Hikyaku) id {}; ", entry.id());
    assert!(text.starts_with(&wanted), "{text}");
    assert!(text.ends_with("\r\nSubject: x\r\n\r\nbody\r\n"));
    assert_eq!(entry.envelope.origin, Origin::User(uid.as_raw()));
}

#[test]
fn pickup_sets_aside_what_is_no_message() {
    let (directory, spool) = spool();
    for name in ["junk", "0123456789ABCDE"] {
        fs::write(directory.path().join("drop").join(name), "junk").unwrap();
    }
    enqueue(&spool.drop_box().unwrap(), &[&[b'x'; 2000]]);
    let problems = pickup::run(&spool, &spool.incoming().unwrap(), "h", 1000);
    assert_eq!(problems.len(), 3);
    assert_eq!(spool.names("drop").unwrap().len(), 0);
    assert_eq!(spool.names("corrupt").unwrap().len(), 3);
    assert_eq!(spool.list().unwrap(), []);
}

#[test]
fn a_history_that_grows_for_ever_stays_readable_and_knows_what_was_done() {
    let (_directory, spool) = spool();
    let place = Place::Incoming(enqueue(&spool.incoming().unwrap(), &[b"x"]));
    let mut entry = spool.claim(&place).unwrap();
    let event = |outcome| Event {
        time: 2,
        recipient: 1,
        outcome,
        code: "4.0.0".into(),
        text: "x".repeat(1000),
    };
    let many = vec![event(Outcome::Deferred); 10_000];
    for _ in 0..3 {
        entry.record(&many).unwrap();
    }
    entry.record(&[event(Outcome::Done)]).unwrap();
    let work = entry.place().clone();
    drop(entry);
    assert_eq!(spool.claim(&work).unwrap().pending(), [0]);
}

#[test]
fn a_name_that_is_no_entry_is_never_due() {
    let (directory, spool) = spool();
    fs::write(directory.path().join("deferred/0000000001.junk"), "x").unwrap();
    assert_eq!(spool.next_due().unwrap(), None);
}
