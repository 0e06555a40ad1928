//! The messages that clients are given: of every kind, each known by its Message-ID.

use super::support::store::in_maildir;

/// What the messages of [`letter`] look like, in turn.
const KINDS: [(&str, &[u8]); 6] = [
    ("", b"Hello.\n"),
    ("", b"From here\n\nFrom x@example.org Mon Jun 21 03:15:20 2004\n>From there\n.\n..\n"),
    (
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"=_b\"\n",
        b"A preamble.\n--=_b\nContent-Type: text/plain; charset=utf-8\n\
          Content-Transfer-Encoding: quoted-printable\n\nCaf=C3=A9 au lait\n--=_b\n\
          Content-Type: image/png; name=dot.png\nContent-Transfer-Encoding: base64\n\
          Content-Disposition: attachment; filename=dot.png\n\niVBORw0KGgo=\n--=_b--\n",
    ),
    ("", b""),
    (
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=ISO-2022-JP\n",
        b"\x1b$B$3$s$K$A$O!#\x1b(B\n",
    ),
    (
        "MIME-Version: 1.0\nContent-Type: text/plain; charset=iso-8859-1\n\
         Content-Transfer-Encoding: 8bit\n",
        b"Gr\xfc\xdfe\n\n\n\nFrom the end\n\n",
    ),
];

/// The message of this number, with LF line ends.
pub fn letter(number: usize) -> Vec<u8> {
    let (fields, body) = KINDS[number % KINDS.len()];
    let header = format!(
        "From: Sender {number} <s{number}@example.net>\nTo: hunt@smkwlab.net\n\
         Subject: letter {number}\nDate: Mon, 21 Jun 2004 03:15:{:02} +0900\n\
         Message-ID: <{number}@example.net>\n{fields}\n",
        number % 60
    );
    [header.as_bytes(), body].concat()
}

/// How it is told apart from the others.
pub fn id(number: usize) -> String {
    format!("<{number}@example.net>")
}

/// The same message when it has been delivered.
pub fn delivered(number: usize) -> Vec<u8> {
    in_maildir(&letter(number))
}

/// What a message's only Message-ID is.
#[track_caller]
pub fn id_of(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let header = text.split("\n\n").next().unwrap();
    let ids = header.lines().filter_map(|line| line.strip_prefix("Message-ID: "));
    let ids: Vec<&str> = ids.collect();
    assert_eq!(ids.len(), 1, "{text}");
    ids[0].to_owned()
}

/// With LF line ends.
pub fn lines(message: &[u8]) -> Vec<u8> {
    message.iter().copied().filter(|byte| *byte != b'\r').collect()
}

/// With CRLF line ends.
pub fn crlf(message: &[u8]) -> Vec<u8> {
    let lines = message.split_inclusive(|byte| *byte == b'\n');
    let ended = lines.map(|line| match line.strip_suffix(b"\n") {
        Some(line) => [line, b"\r\n"].concat(),
        None => line.to_vec(),
    });
    ended.collect::<Vec<_>>().concat()
}
