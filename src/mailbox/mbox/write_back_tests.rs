use super::super::own::{self, ImapBase, Own};
use super::{BASE, NoRoom, Wanted, shown, write_back, write_back_at};
use crate::mailbox::store::Flags;

/// The header with what is written.
fn written(header: &str, wanted: &Wanted<'_>) -> Result<String, NoRoom> {
    let mut new = header.as_bytes().to_vec();
    if let Some(edit) = write_back(header.as_bytes(), wanted)? {
        new[edit.at..edit.at + edit.bytes.len()].copy_from_slice(&edit.bytes);
    }
    assert_eq!(new.len(), header.len());
    assert_eq!(write_back(&new, wanted), Ok(None));
    Ok(String::from_utf8(new).unwrap())
}

fn flags<'a>(flags: Flags, keywords: &'a [&'a str]) -> Wanted<'a> {
    Wanted { marks: Some((flags, keywords)), ..Wanted::default() }
}

const NONE: Flags = Flags::SEEN;

/// As [`super::super::form`] writes it.
fn ours(keywords: usize) -> String {
    format!(
        "A: 1\nContent-Length: 2\nStatus:{blank:10}\nX-Status:{blank:10}\nX-Keywords:{blank:keywords$}\nB: 2\n\n",
        blank = ""
    )
}

#[test]
fn flags_and_keywords_go_into_the_blanks_of_our_fields_and_out_again() {
    let header = ours(90);
    let all = flags(Flags::ALL, &["$Forwarded", "work"]);
    let full = written(&header, &all).unwrap();
    assert!(
        full.contains("\nStatus: RO       \nX-Status: AFTD     \nX-Keywords: $Forwarded work ")
    );
    let some = written(&full, &flags(Flags::FLAGGED, &["work"])).unwrap();
    assert!(some.contains("\nStatus: O        \nX-Status: F        \nX-Keywords: work  "));
    let none = written(&some, &flags(NONE & !Flags::SEEN, &[])).unwrap();
    assert_eq!(
        none,
        header.replace("Status:  ", "Status: O").replace("X-Status: O", "X-Status:  ")
    );
}

#[test]
fn what_stands_there_already_is_not_written() {
    let said = "Status: R\nX-Keywords: a b\n\n";
    assert_eq!(write_back(said.as_bytes(), &flags(Flags::SEEN, &["b", "a"])), Ok(None));
    assert_eq!(write_back(b"A: 1\n\n", &flags(Flags::default(), &[])), Ok(None));
    assert_eq!(write_back(b"", &Wanted::default()), Ok(None));
}

#[test]
fn a_uid_and_a_base_are_made_of_the_room_of_the_keywords() {
    let base = ImapBase { uid_validity: 1_764_000_000, uid_last: 7, keywords: vec!["a".into()] };
    let wanted = Wanted { uid: Some(7), base: Some(&base), ..Wanted::default() };
    let full = written(&ours(90), &wanted).unwrap();
    assert_eq!(
        full,
        ours(90 - 9 - 36)
            .replace("X-Keywords", "X-IMAPbase: 1764000000 0000000007 a\nX-UID: 7\nX-Keywords")
    );
    // And once more, with the number that is larger now.
    let base = ImapBase { uid_last: 12345, keywords: vec!["a".into(), "b".into()], ..base };
    let wanted = Wanted { uid: Some(12345), base: Some(&base), ..Wanted::default() };
    let again = written(&full, &wanted).unwrap();
    assert_eq!(
        again,
        ours(90 - 13 - 38).replace(
            "X-Keywords",
            "X-IMAPbase: 1764000000 0000012345 a b\nX-UID: 12345\nX-Keywords"
        )
    );
}

#[test]
fn a_base_stands_before_the_uid_or_nowhere() {
    let base = ImapBase { uid_validity: 1_764_000_000, uid_last: 7, keywords: vec![] };
    let wanted = Wanted { base: Some(&base), ..Wanted::default() };
    let with = |uid: &str| ours(90).replace("X-Keywords", &format!("{uid}X-Keywords"));
    let made = written(&with("X-UID: 3\n"), &wanted).unwrap();
    let lines = "X-IMAPbase: 1764000000 0000000007\nX-UID: 3\n";
    assert_eq!(made, ours(90 - 34).replace("X-Keywords", &format!("{lines}X-Keywords")));
    let behind = ours(90).replace("B: 2\n", "B: 2\nX-UID: 3\n");
    assert!(written(&behind, &wanted).unwrap().find(BASE) < behind.find("X-UID"));
    let before = ours(90).replace("A: 1\n", "X-UID: 3\nA: 1\n");
    assert_eq!(written(&before, &wanted), Err(NoRoom));
    // Wherever a block of the disk ends.
    let header = with("X-UID: 3\n");
    for start in 0..4096 {
        if let Ok(edit) = write_back_at(header.as_bytes(), start, &wanted) {
            let edit = edit.unwrap();
            let mut new = header.clone().into_bytes();
            new[edit.at..edit.at + edit.bytes.len()].copy_from_slice(&edit.bytes);
            let new = String::from_utf8(new).unwrap();
            assert!(new.find(BASE).unwrap() < new.find("X-UID").unwrap(), "{start}");
        }
    }
}

#[test]
fn where_the_blanks_of_the_keywords_do_not_do_the_others_go() {
    let header = "Status:          \nX-Keywords: a \nX-UID:     1\n\n";
    let wanted = Wanted { uid: Some(12_345_678), ..flags(Flags::FLAGGED, &["a"]) };
    let new = written(header, &wanted);
    assert_eq!(new, Err(NoRoom));
    let wanted = flags(Flags::default(), &["abcdefgh"]);
    assert_eq!(
        written(header, &wanted).unwrap(),
        "Status:\nX-Keywords: abcdefgh        \nX-UID: 1\n\n"
    );
}

#[test]
fn a_field_elsewhere_is_written_where_it_stands_or_gives_its_letters_away() {
    let header = format!("Status: O\nA: 1\nX-Keywords:{:30}\nX-UID: 3\nB: 2\n\n", "");
    let new = written(&header, &flags(Flags::SEEN | Flags::FLAGGED, &[])).unwrap();
    assert_eq!(
        new,
        format!("Status:RO\nA: 1\nX-Status: F\nX-Keywords:{:18}\nX-UID: 3\nB: 2\n\n", "")
    );
    let header = format!("X-Status:A\nA: 1\nX-Keywords:{:30}\n\n", "");
    let new = written(&header, &flags(Flags::ANSWERED | Flags::DELETED, &[])).unwrap();
    assert_eq!(new, format!("X-Status: \nA: 1\nX-Status: AD\nX-Keywords:{:17}\n\n", ""));
}

#[test]
fn letters_and_words_that_nobody_knows_stay() {
    let header = "Status: UN    \nX-Keywords: (x) a    \nStatus: R\n\n";
    let new = written(header, &flags(Flags::SEEN | Flags::DELETED, &["b"]));
    assert_eq!(new, Err(NoRoom));
    let new = written(header, &flags(Flags::default(), &["b"])).unwrap();
    assert_eq!(new, "Status: OUN   \nX-Keywords: b (x)    \nStatus:  \n\n");
}

#[test]
fn crlf_stays_crlf() {
    let header = ours(90).replace('\n', "\r\n");
    let wanted = Wanted { uid: Some(1), ..flags(Flags::ALL, &["a"]) };
    let new = written(&header, &wanted).unwrap();
    assert!(new.contains("\r\nX-UID: 1\r\nX-Keywords: a "));
    assert_eq!(new.matches('\n').count(), new.matches("\r\n").count());
}

#[test]
fn no_room_is_no_room() {
    let uid = Wanted { uid: Some(10), ..Wanted::default() };
    for header in [
        "A: 1\n\n",
        "X-UID:\n 9\n\n",
        "X-UID:1\nA: 1\nX-Keywords:                            \n\n",
        "X-Keywords:        \n\n",
        "X-Keywords:            \n a\n\n",
        "X-Keywords:                            ",
    ] {
        assert_eq!(written(header, &uid), Err(NoRoom), "{header}");
    }
    let some = flags(Flags::ANSWERED, &[]);
    for header in ["A: 1\n\n", "X-Status:\n  \n\n", "X-Status:\n\n"] {
        assert_eq!(written(header, &some), Err(NoRoom), "{header}");
    }
    for keyword in ["a b", "", "a\n", "\u{fc}", "(", &"x".repeat(90)] {
        let new = written(&ours(70), &flags(Flags::default(), &[keyword]));
        assert_eq!(new, Err(NoRoom), "{keyword}");
    }
}

/// Headers of odd own fields, from a seed: what is written is read back, or was not possible, and
/// where the scanner says that there is room it is.
#[test]
fn what_is_written_is_read_back_and_room_that_is_seen_is_there() {
    let mut seed = 11_u64;
    let mut dice = move |most: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(seed >> 33).unwrap() % most
    };
    let names = ["Status", "X-Status", "X-Keywords", "X-UID", "X-IMAPbase", "Subject", "x-status"];
    let values = ["", "R", "RO", "AF", "TDx", "a", "a b c", "17", "7 0000000009", "7 9 a b", "NRO"];
    let (mut possible, mut with_room) = (0, 0);
    for _ in 0..20_000 {
        let mut header = String::new();
        for _ in 0..dice(7) {
            let (name, value) = (names[dice(names.len())], values[dice(values.len())]);
            let end = ["\n", "\n", "\n", "\n", "\r\n", "\n a\n"][dice(6)];
            let (front, behind) = (" ".repeat(dice(3)), " ".repeat([0, 3, 40][dice(3)]));
            header.extend([name, ":", &front, value, &behind, end]);
        }
        header.push_str(["\n", "\r\n", ""][dice(3)]);
        let before = own::read(header.as_bytes());
        let keywords = [&[][..], &["a"], &["b", "a"], &["$Junk", "c"]][dice(4)];
        let base = ImapBase { uid_validity: 7, uid_last: 900, keywords: vec!["a".into()] };
        let wanted = Wanted {
            marks: (dice(3) > 0).then(|| (Flags::of_bits(dice(32).try_into().unwrap()), keywords)),
            uid: (dice(3) > 0).then(|| 1 + u32::try_from(dice(1000)).unwrap()),
            base: (dice(4) == 0).then_some(&base),
        };
        if let Ok(new) = written(&header, &wanted) {
            possible += 1;
            let own = own::read(new.as_bytes());
            let (flags, keywords) = wanted.marks.unwrap_or((own.flags, &[]));
            assert_eq!(own.flags, flags, "{header:?} {new:?}");
            if wanted.marks.is_some() {
                assert_eq!(own.keywords.len(), keywords.len());
            } else {
                assert_eq!(own.keywords, before.keywords);
            }
            assert_eq!(own.uid, wanted.uid.or(before.uid));
            assert_eq!(own.base, wanted.base.cloned().or(before.base.clone()));
            assert_eq!(others(&new), others(&header));
        }
        with_room += usize::from(before.room.flags) + usize::from(before.room.uid);
        check_room(&header, &before);
    }
    assert!(possible > 3000 && with_room > 3000, "{possible} {with_room}");
}

fn others(header: &str) -> Vec<&str> {
    header.split_inclusive('\n').filter(|line| line.starts_with("Subject")).collect()
}

fn check_room(header: &str, before: &Own) {
    let keywords: Vec<&str> = before.keywords.iter().map(String::as_str).collect();
    if before.room.flags {
        for marks in [Flags::ALL, Flags::SEEN, Flags::default()] {
            assert!(written(header, &flags(marks, &keywords)).is_ok(), "{header:?}");
        }
    }
    if before.room.uid {
        let uid = Wanted { uid: Some(u32::MAX), ..Wanted::default() };
        assert!(written(header, &uid).is_ok(), "{header:?}");
    }
    if before.room.keywords > 1 && before.keywords.is_empty() {
        let word = "k".repeat(usize::try_from(before.room.keywords).unwrap() - 1);
        let words = [word.as_str()];
        let marks = flags(before.flags, &words).marks;
        assert!(written(header, &Wanted { marks, ..Wanted::default() }).is_ok(), "{header:?}");
    }
}

#[test]
fn whatever_block_ends_in_an_edit_no_half_of_it_is_seen() {
    let header = format!(
        "Subject: a\nStatus:{:10}\nX-Status:{:10}\nX-Keywords: work{:120}\nTo: b\n\n",
        "", "", ""
    );
    let base = ImapBase { uid_validity: 1_234_567_890, uid_last: 17, keywords: Vec::new() };
    let wants = [
        Wanted { uid: Some(123), ..Wanted::default() },
        Wanted { base: Some(&base), ..Wanted::default() },
        Wanted { marks: Some((Flags::ALL, &["work"])), ..Wanted::default() },
    ];
    for wanted in wants {
        for end in 1..header.len() {
            // A block ends so many bytes behind the beginning of the header.
            let edit = write_back_at(header.as_bytes(), 8192 - end as u64, &wanted);
            let edit = edit.unwrap().unwrap();
            let mut new = header.clone().into_bytes();
            new[edit.at..edit.at + edit.bytes.len()].copy_from_slice(&edit.bytes);
            for halves in
                [[&new[..end], &header.as_bytes()[end..]], [&header.as_bytes()[..end], &new[end..]]]
            {
                let torn = halves.concat();
                let text = String::from_utf8_lossy(&torn).into_owned();
                assert_eq!(shown(&torn), b"Subject: a\r\nTo: b\r\n\r\n", "{end}: {text}");
                let own = own::read(&torn);
                assert!([None, wanted.uid].contains(&own.uid), "{end}: {text}");
                assert!([None, wanted.base].contains(&own.base.as_ref()), "{end}: {text}");
                assert!(own.keywords.iter().all(|word| word == "work"), "{end}: {text}");
            }
        }
    }
}
