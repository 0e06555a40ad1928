use std::io::Write;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::*;
use crate::message::Address;
use crate::queue::{Envelope, Origin};
use crate::smtp::Body;
use crate::sys::log::Target;

/// One run over one message, whose delivery agent says `said` and then nothing; where the entry is
/// afterwards, and what is known of its recipient.
fn run_with_an_agent_that_says(said: &str) -> (Place, Vec<Outcome>) {
    let directory = tempfile::tempdir().unwrap();
    let spool = Spool::new(directory.path());
    spool.prepare().unwrap();
    let inlet = spool.incoming().unwrap();
    let envelope = Envelope {
        arrived: clock::seconds(),
        origin: Origin::Smtp,
        sender: None,
        body: Body::SevenBit,
        utf8: false,
        ret: None,
        envelope_id: None,
        recipients: vec![Address::parse(b"toshi@here").unwrap().into()],
    };
    let draft = inlet.create(Id::new().unwrap(), &envelope).unwrap();
    draft.commit().unwrap();
    let (ours, theirs) = Channel::pair().unwrap();
    let said = said.to_owned();
    let launcher = std::thread::spawn(move || {
        let (agent, handed) = UnixStream::pair().unwrap();
        let length = theirs.receive(&mut [0; 255]).unwrap();
        assert_eq!(length, "atoshi".len());
        let handed = OwnedFd::from(handed);
        theirs.send_with(b"s", &[handed.as_fd()]).unwrap();
        drop(handed);
        (&agent).write_all(said.as_bytes()).unwrap();
        // Until the runner has closed its side.
        let _ = io::copy(&mut &agent, &mut io::sink());
    });
    let config = Config { hostname: "here".into(), ..Config::default() };
    let wake = Wake::open(directory.path()).unwrap();
    let runner = Runner {
        config: &config,
        log: &Log::open("test", Target::Stderr),
        spool,
        inlet,
        launcher: &ours,
        signals: &Signals::take(&[]).unwrap(),
        wake: &wake,
        patience: Duration::from_millis(200),
        linger: Duration::ZERO,
    };
    assert_eq!(runner.run(false).unwrap(), Ended::Done);
    launcher.join().unwrap();
    let place = runner.spool.list().unwrap().remove(0);
    let entry = runner.spool.open(&place).unwrap();
    let outcomes = entry.history.iter().map(|event| event.outcome);
    (place, outcomes.collect())
}

#[test]
fn a_delivery_agent_that_hangs_anywhere_costs_a_while_and_no_message() {
    let whole = "220 here\r\n250 here\r\n250 Ok\r\n250 Ok\r\n354 go\r\n";
    for said in ["", "220 here\r\n250 he", whole] {
        let (place, outcomes) = run_with_an_agent_that_says(said);
        assert!(matches!(place, Place::Deferred(..)), "{said:?}: {place:?}");
        assert_eq!(outcomes, [Outcome::Deferred], "{said:?}");
    }
}

#[test]
fn an_answer_that_promises_nothing_is_no_delivery() {
    let said = "220 here\r\n250 here\r\n250 Ok\r\n250 Ok\r\n354 go\r\n354 more\r\n";
    let (place, outcomes) = run_with_an_agent_that_says(said);
    assert!(matches!(place, Place::Deferred(..)), "{place:?}");
    assert_eq!(outcomes, [Outcome::Deferred]);
}
