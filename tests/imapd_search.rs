//! imapd's SEARCH, by the server itself: Japanese mail is found whatever it is written in, and
//! whatever the client writes in.

#![allow(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use base64ct::{Base64, Encoding};
use hikyaku::text::charset;
use hikyaku::text::fold::fold;
use support::peer::Peer;
use support::site::Site;

/// What all messages say: 下川 as the lecture's mail has it, letters of both widths, and kana.
const TEXT: &str = "これはテストのメイルです。下川 ＡＢＣ Straße\nガ\n";

const CHARSETS: [&str; 4] = ["ISO-2022-JP", "Shift_JIS", "EUC-JP", "UTF-8"];

fn octets(charset: &str, text: &str) -> Vec<u8> {
    charset::named(charset.as_bytes()).unwrap().encode(text).0.into_owned()
}

fn quoted_printable(octets: &[u8]) -> Vec<u8> {
    octets.chunks(20).fold(Vec::new(), |mut text, line| {
        text.extend(line.iter().flat_map(|octet| format!("={octet:02X}").into_bytes()));
        text.extend_from_slice(b"=\n");
        text
    })
}

fn base64(octets: &[u8]) -> Vec<u8> {
    let text = Base64::encode_string(octets);
    text.as_bytes().chunks(60).collect::<Vec<_>>().join(&b'\n')
}

/// `=?charset?…?=`
fn encoded_word(charset: &str, text: &str, is_base64: bool) -> Vec<u8> {
    let octets = octets(charset, text);
    let word = if is_base64 {
        format!("=?{charset}?B?{}?=", Base64::encode_string(&octets))
    } else {
        let quoted: Vec<String> = octets.iter().map(|octet| format!("={octet:02X}")).collect();
        let quoted = quoted.concat();
        format!("=?{charset}?q?{quoted}?=")
    };
    word.into_bytes()
}

/// A mailbox of one message for each charset and encoding of the text, with its Subject in another
/// form, and what each is.
fn messages() -> (Vec<u8>, Vec<String>) {
    let (mut spool, mut names) = (Vec::new(), Vec::new());
    for charset in CHARSETS {
        // Not every charset has the letter ß.
        let text = if charset == "UTF-8" { TEXT.into() } else { TEXT.replace("ß", "ss") };
        let plain = octets(charset, &text);
        let bodies = [
            ("8bit", plain.clone()),
            ("quoted-printable", quoted_printable(&plain)),
            ("base64", base64(&plain)),
        ];
        for (number, (encoding, body)) in bodies.into_iter().enumerate() {
            for part in [false, true] {
                let subject = match number {
                    // What is no UTF-8 and has no escapes can't be told from other octets.
                    0 if matches!(charset, "ISO-2022-JP" | "UTF-8") => octets(charset, "下川先生"),
                    1 => encoded_word(charset, "下川先生", false),
                    _ => encoded_word(charset, "下川先生", true),
                };
                spool.extend_from_slice(b"From s@example.net Thu Jan  1 10:00:00 2026\n");
                spool
                    .extend_from_slice(b"From: Toshihiko SHIMOKAWA <toshi@example.net>\nSubject: ");
                spool.extend_from_slice(&subject);
                spool.push(b'\n');
                let fields = format!(
                    "Content-Type: text/plain; charset={charset}\n\
                     Content-Transfer-Encoding: {encoding}\n\n"
                );
                if part {
                    spool.extend_from_slice(b"Content-Type: multipart/mixed; boundary=b\n\n--b\n");
                }
                spool.extend_from_slice(fields.as_bytes());
                spool.extend_from_slice(&body);
                spool.extend_from_slice(if part { b"\n--b--\n\n" } else { b"\n\n" });
                names.push(format!("{charset}, {encoding}, in a part: {part}"));
            }
        }
    }
    (spool, names)
}

fn answer(peer: &mut Peer) -> String {
    let mut said = String::new();
    loop {
        let line = peer.line();
        said += &line;
        said.push('\n');
        if line.starts_with("a ") || line.starts_with("+ ") {
            return said;
        }
    }
}

fn ask(peer: &mut Peer, command: &str) -> String {
    peer.send(format!("a {command}\r\n"));
    answer(peer)
}

/// What is found, by a string that is sent as a literal.
fn find(peer: &mut Peer, search: &str, text: &[u8]) -> Vec<usize> {
    let said = ask(peer, &format!("SEARCH {search} {{{}}}", text.len()));
    assert!(said.starts_with("+ "), "{said}");
    peer.send([text, b"\r\n"].concat());
    let said = answer(peer);
    let found = said.strip_prefix("* SEARCH").and_then(|said| said.lines().next());
    let found = found.unwrap_or_else(|| panic!("{search}: {said}"));
    found.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

#[test]
fn japanese_mail_is_found_whatever_it_is_written_in() {
    let (spool, names) = messages();
    let site = Site::new();
    site.fill("hunt", &spool);
    let (_server, address) = site.serve("imapd");
    let mut peer = Peer::connect(address);
    peer.line();
    assert!(ask(&mut peer, "LOGIN hunt Watts?Watt?").contains("a OK"));
    assert!(ask(&mut peer, "SELECT INBOX").contains(&format!("* {} EXISTS", names.len())));
    // The first time the structures of messages are not known yet.
    for _ in 0..2 {
        for (key, text) in [
            ("BODY", "下川"),
            ("TEXT", "下川"),
            ("TEXT", "下川先生"),
            ("SUBJECT", "下川"),
            ("HEADER subject", "川先"),
            ("FROM", "shimokawa"),
            ("FROM", "ＳＨＩＭＯＫＡＷＡ"),
            ("BODY", "テスト"),
            ("BODY", "ﾃｽﾄ"),
            ("BODY", "abc"),
            ("BODY", "ａＢｃ"),
            ("BODY", "STRASSE"),
            ("BODY", "straße"),
            ("BODY", "ｶﾞ"),
            ("BODY", "カ\u{3099}"),
        ] {
            for charset in CHARSETS {
                let sent = octets(charset, text);
                // What a charset has not, its encoder writes in another way.
                if fold(&charset::text(Some(charset.as_bytes()), &sent)) != fold(text) {
                    continue;
                }
                let found = find(&mut peer, &format!("CHARSET {charset} {key}"), &sent);
                let missed: Vec<&String> =
                    (1..).zip(&names).filter(|(n, _)| !found.contains(n)).map(|(_, n)| n).collect();
                assert!(missed.is_empty(), "{key} {text} in {charset}: {missed:#?}");
            }
        }
        for (key, text) in
            [("BODY", "先生"), ("SUBJECT", "テスト"), ("TEXT", "川下"), ("TEXT", "ﾄｽﾃ")]
        {
            let found = find(&mut peer, &format!("CHARSET UTF-8 {key}"), text.as_bytes());
            assert!(found.is_empty(), "{key} {text}: {found:?}");
        }
    }
}
