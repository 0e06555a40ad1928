//! Each way to write something, in pieces of every size.

use super::{Decoder, MAX_UNDECIDED};

fn decode(encoding: &str, pieces: &mut dyn Iterator<Item = &[u8]>) -> Vec<u8> {
    let mut decoder = Decoder::of(Some(encoding.as_bytes())).unwrap();
    let mut out = Vec::new();
    for piece in pieces {
        decoder.push(piece, &mut |octets| {
            assert!(!octets.is_empty());
            out.extend_from_slice(octets);
        });
    }
    decoder.finish(&mut |octets| out.extend_from_slice(octets));
    out
}

fn check(encoding: &str, encoded: &[u8], plain: &[u8]) {
    for size in 1..=encoded.len().max(1) {
        let decoded = decode(encoding, &mut encoded.chunks(size));
        let (decoded, plain) = (decoded.escape_ascii(), plain.escape_ascii());
        let encoded = encoded.escape_ascii();
        assert_eq!(decoded.to_string(), plain.to_string(), "{encoded} by {size}");
    }
}

#[test]
fn an_encoding_is_known_by_its_name_in_either_case() {
    for name in ["7bit", "8BIT", "binary", " Base64 ", "Quoted-Printable", ""] {
        assert!(Decoder::of(Some(name.as_bytes())).is_some(), "{name}");
    }
    for name in ["x-uuencode", "8 bit", "base-64", "base64x"] {
        assert!(Decoder::of(Some(name.as_bytes())).is_none(), "{name}");
    }
    for name in ["7bit", "8bit", "binary"] {
        check(name, b"a=41\r\n \0\xff", b"a=41\r\n \0\xff");
    }
    assert!(matches!(Decoder::of(None), Some(Decoder::Identity)));
}

#[test]
fn base64_is_what_its_digits_say() {
    for (encoded, plain) in [
        // RFC 4648 section 10.
        ("", ""),
        ("Zg==", "f"),
        ("Zm8=", "fo"),
        ("Zm9v", "foo"),
        ("Zm9vYg==", "foob"),
        ("Zm9vYmE=", "fooba"),
        ("Zm9vYmFy", "foobar"),
        // In lines, wherever they are broken.
        ("Zm9v\r\nYmFy\r\n", "foobar"),
        ("Zm9vY\r\n mF\r\n\ty\r\n", "foobar"),
        // Broken: without padding, with other characters, cut within a group.
        ("Zm9vYg", "foob"),
        ("Zm9vYmE", "fooba"),
        ("Zm9vY", "foo"),
        ("Zm!9*v-Ym\u{e4}Fy", "foobar"),
        ("=Zm9v=", "foo"),
        ("Zm9vYmFy\r\n====", "foobar"),
        // Put together from parts.
        ("Zm9vYg==\r\nYmFy", "foobbar"),
        ("Zm9vYg=YmFy", "foobbar"),
    ] {
        check("base64", encoded.as_bytes(), plain.as_bytes());
    }
    check("base64", b"AP/+/w==", b"\0\xff\xfe\xff");
    check("base64", b"++//", b"\xfb\xef\xff");
}

#[test]
fn quoted_printable_is_what_its_lines_say() {
    for (encoded, plain) in [
        ("", ""),
        ("a=3Db=3d=C3=a4", "a=b=\u{e4}"),
        ("one\r\ntwo\r\n", "one\r\ntwo\r\n"),
        ("one\ntwo\n", "one\ntwo\n"),
        // Soft line breaks, with what was put behind them.
        ("one=\r\n two=\ntwo", "one twotwo"),
        ("one= \t\r\ntwo", "onetwo"),
        ("one =\r\ntwo", "one two"),
        ("one=", "one"),
        ("one= \r\n", "one"),
        ("one=  ", "one"),
        ("one=\r", "one"),
        // Blanks at the end of a line are none, unless they are written.
        ("one \t\r\ntwo=20\r\nthree =20 \r\n", "one\r\ntwo \r\nthree  \r\n"),
        (" \r\n\t \r\n", "\r\n\r\n"),
        ("one  ", "one"),
        ("a b  c\td", "a b  c\td"),
        // What escapes nothing stands for itself.
        ("a=b c", "a=b c"),
        ("a=xy", "a=xy"),
        ("a=4", "a=4"),
        ("a=4=41", "a=4A"),
        ("a==41", "a=A"),
        ("a= b", "a= b"),
        ("a=\rb", "a=\rb"),
        ("a=\r=41", "a=\rA"),
        ("1+1=2\r\n", "1+1=2\r\n"),
        // A bare CR is one.
        ("a\rb\r\r\nc\r", "a\rb\r\r\nc\r"),
        ("a \r \nb", "a \r\nb"),
    ] {
        check("quoted-printable", encoded.as_bytes(), plain.as_bytes());
    }
    check("quoted-printable", b"\xe4\0=00", b"\xe4\0\0");
}

#[test]
fn blanks_without_end_are_not_kept() {
    let mut decoder = Decoder::of(Some(b"quoted-printable")).unwrap();
    let mut length = 0;
    for _ in 0..100 {
        decoder.push(&[b' '; 4096], &mut |octets| length += octets.len());
    }
    assert!(length + 2 * MAX_UNDECIDED > 100 * 4096, "{length}");
    for start in ["", "="] {
        let blanks = " ".repeat(3 * MAX_UNDECIDED);
        let text = format!("a{start}{blanks}\r\nb");
        let whole = decode("quoted-printable", &mut [text.as_bytes()].into_iter());
        for size in [1, 2, 1000, MAX_UNDECIDED, MAX_UNDECIDED + 1, MAX_UNDECIDED + 2] {
            let pieces = decode("quoted-printable", &mut text.as_bytes().chunks(size));
            assert!(pieces == whole, "by {size}");
        }
    }
}
