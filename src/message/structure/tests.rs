//! What is limited, how parts are numbered, and what holds for every message.

use super::*;

fn parse(message: &[u8]) -> Structure {
    let mut parser = Parser::default();
    parser.push(message);
    parser.finish()
}

fn crlf(text: &str) -> Vec<u8> {
    text.replace('\n', "\r\n").into_bytes()
}

/// RFC 9051 section 6.4.5.1, with a body for each number.
fn sample() -> Vec<u8> {
    crlf(
        "Subject: whole\nContent-Type: multipart/mixed; boundary=a\n\npreamble\n\
         --a\n\none\n\
         --a\nContent-Type: application/octet-stream\n\ntwo\n\
         --a\nContent-Type: message/rfc822\n\nSubject: three\nContent-Type: multipart/mixed; \
         boundary=b\n\n--b\n\nthree.one\n--b\nContent-Type: image/gif\n\nthree.two\n--b--\n\n\
         --a\nContent-Type: multipart/mixed; boundary=c\nContent-ID: <4>\n\n\
         --c\nContent-Type: image/gif\n\nfour.one\n\
         --c\nContent-Type: message/rfc822\n\nSubject: four.two\nContent-Type: multipart/alternative;\
         \n boundary=d\n\n--d\n\nfour.two.one\n--d\nContent-Type: text/richtext\n\nfour.two.two\n\
         --d--\n\n--c--\n\n--a--\n",
    )
}

fn octets(message: &[u8], range: Range<u64>) -> String {
    let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
    String::from_utf8(message[range].to_vec()).unwrap()
}

#[test]
fn parts_have_the_numbers_and_the_octets_of_the_rfc() {
    let message = sample();
    let structure = parse(&message);
    let text = |numbers: &[u32]| octets(&message, structure.part(numbers).unwrap().text());
    assert_eq!(text(&[1]), "one");
    assert_eq!(text(&[2]), "two");
    assert_eq!(text(&[3, 1]), "three.one");
    assert_eq!(text(&[3, 2]), "three.two");
    assert_eq!(text(&[4, 1]), "four.one");
    assert_eq!(text(&[4, 2, 1]), "four.two.one");
    assert_eq!(text(&[4, 2, 2]), "four.two.two");
    assert!(text(&[4]).starts_with("--c\r\n") && text(&[4]).ends_with("--c--\r\n"));
    assert_eq!(
        octets(&message, structure.root.text()),
        octets(&message, structure.root.body..message.len() as u64)
    );
    let header = |numbers: &[u32]| octets(&message, structure.part(numbers).unwrap().header());
    assert_eq!(header(&[1]), "\r\n");
    assert_eq!(header(&[4, 1]), "Content-Type: image/gif\r\n\r\n");
    assert!(header(&[4]).ends_with("Content-ID: <4>\r\n\r\n"));
    let inner = &structure.part(&[4, 2]).unwrap().message().unwrap().root;
    assert!(octets(&message, inner.header()).starts_with("Subject: four.two\r\n"));
    assert!(octets(&message, inner.text()).starts_with("--d\r\n"));
    for missing in [&[0][..], &[5], &[1, 1], &[3, 3], &[4, 2, 0], &[4, 1, 1], &[u32::MAX]] {
        assert_eq!(structure.part(missing), None, "{missing:?}");
    }
    assert_eq!(structure.part(&[]), Some(&structure.root));
}

#[test]
fn a_message_without_parts_is_its_part_one() {
    let structure = parse(b"Subject: x\r\n\r\nhello\r\n");
    assert_eq!(structure.part(&[1]), Some(&structure.root));
    assert_eq!(structure.part(&[2]), None);
    assert_eq!(structure.part(&[1, 1]), None);
    let message = parse(b"Content-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nhello\r\n");
    assert_eq!(message.part(&[1, 1]).unwrap().lines, 1);
}

#[test]
fn pieces_of_any_size_give_the_same() {
    let message = sample();
    let whole = parse(&message);
    for length in 1..60 {
        let mut parser = Parser::default();
        message.chunks(length).for_each(|piece| parser.push(piece));
        assert_eq!(parser.finish(), whole, "pieces of {length}");
    }
    for cut in 0..message.len() {
        let mut parser = Parser::default();
        parser.push(&message[..cut]);
        parser.push(&message[cut..]);
        assert_eq!(parser.finish(), whole, "cut at {cut}");
    }
}

#[test]
fn a_structure_is_read_back_as_it_was_and_nothing_else_is_read() {
    let message = sample();
    for cut in 0..message.len() {
        let structure = parse(&message[..cut]);
        assert_eq!(decode(&encode(&structure)), Some(structure), "cut at {cut}");
    }
    let structure = parse(&message);
    let octets = encode(&structure);
    for cut in 0..octets.len() {
        assert_eq!(decode(&octets[..cut]), None);
    }
    assert_eq!(decode(&[&octets[..], &[0]].concat()), None);
}

#[test]
fn octets_that_are_damaged_are_bounded_when_they_are_read() {
    let octets = encode(&parse(&sample()));
    for at in 0..octets.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut octets = octets.clone();
            octets[at] = value;
            if let Some(structure) = decode(&octets) {
                assert_eq!(encode(&structure), octets);
            }
        }
    }
}

/// How deep the parts lie.
fn depth(structure: &Structure) -> usize {
    fn of(part: &Part) -> usize {
        1 + match &part.content {
            Content::Multipart(parts) => parts.iter().map(of).max().unwrap_or(0),
            Content::Message(message) => of(&message.root),
            _ => 0,
        }
    }
    of(&structure.root)
}

#[test]
fn parts_within_parts_end_at_the_limit_with_one_that_is_opaque() {
    let part = |n| format!("Content-Type: multipart/mixed; boundary=b{n}x\n\n--b{n}x\n");
    let message = crlf(&(0..1000).map(part).collect::<String>());
    let structure = parse(&message);
    assert_eq!(depth(&structure), MAX_DEPTH);
    let last = structure.part(&[1; MAX_DEPTH - 1]).unwrap();
    assert_eq!((&last.kind[..], &last.content), (&b"application"[..], &Content::Other));
    assert_eq!(last.end, message.len() as u64);
    let messages = parse(&crlf(&"Content-Type: message/rfc822\n\n".repeat(1000)));
    assert_eq!(depth(&messages), MAX_DEPTH);
    assert_eq!(decode(&encode(&messages)), Some(messages));
}

#[test]
fn parts_beside_parts_end_at_the_limit_with_one_that_is_opaque() {
    let mut message = crlf("Content-Type: multipart/mixed; boundary=b\n\n");
    message.extend(crlf(&"--b\n\nx\n".repeat(MAX_PARTS + 100)));
    let structure = parse(&message);
    let Content::Multipart(parts) = &structure.root.content else {
        panic!("{:?}", structure.root.content);
    };
    assert_eq!(parts.len(), MAX_PARTS - 1);
    let last = parts.last().unwrap();
    assert_eq!(&last.subtype, b"octet-stream");
    assert_eq!((last.start, last.end), (last.body, message.len() as u64));
    assert!(octets(&message, last.text()).starts_with("\r\nx\r\n--b\r\n"));
    assert_eq!(decode(&encode(&structure)), Some(structure));
}

#[test]
fn what_is_kept_of_fields_is_bounded() {
    // More fields, a longer one, more addresses and more parameters than are kept.
    let mut parser = Parser::default();
    let line = [&b"Subject: "[..], &vec![b'x'; 99_990], b"\r\n"].concat();
    (0..300).for_each(|_| parser.push(&line));
    let structure = parser.finish();
    assert!(encode(&structure).len() < 100_100);
    let mut parser = Parser::default();
    parser.push(b"Subject: ");
    (0..300).for_each(|_| parser.push(&vec![b'x'; 99_990]));
    let structure = parser.finish();
    assert!(structure.envelope.subject.unwrap().len() <= fields::MAX_FIELD);
    let structure = parse(&[&b"To: "[..], &b"a,".repeat(100_000), b"\r\n\r\n"].concat());
    assert_eq!(structure.envelope.to.len(), MAX_ADDRESSES);
    let type_ = [&b"Content-Type: a/b"[..], &b";a=b".repeat(100_000), b"\r\n\r\n"].concat();
    let structure = parse(&type_);
    assert_eq!(structure.root.parameters.len(), MAX_PARAMETERS);
    assert_eq!(decode(&encode(&structure)), Some(structure));
    let empty = parse(&b"To:\r\n".repeat(1_000_000));
    assert_eq!(empty.envelope.to, []);
}

#[test]
fn the_line_ends_of_a_body_are_counted_without_that_of_the_delimiter() {
    let structure = parse(&sample());
    assert_eq!(structure.part(&[1]).unwrap().lines, 0);
    assert_eq!(structure.part(&[4, 2, 2]).unwrap().lines, 0);
    let three = structure.part(&[3]).unwrap();
    assert_eq!((three.lines, three.message().unwrap().root.lines), (11, 8));
    let message = sample();
    let all = memchr::memchr_iter(b'\n', &message).count() as u64;
    assert_eq!(structure.root.lines, all - 3);
}
