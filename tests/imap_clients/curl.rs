//! curl: URLs of mailboxes, messages, parts and searches (RFC 5092), and whatever is said with -X.

use std::fs;

use super::host::{Host, NAME, PASSWORD, client, flags, has, same};
use super::letters::{crlf, delivered};
use super::support::need;
use super::support::run::{Ran, run};
use super::support::store::{FORMS, USER};

/// The schemes of curl's, each with its port.
fn schemes(host: &Host) -> [(&'static str, u16); 2] {
    [("imap", host.port()), ("imaps", host.tls_port())]
}

fn curl(host: &Host, (scheme, port): (&str, u16), path: &str, more: &[&str]) -> Ran {
    let mut command = client("curl", host.site.path());
    command.args(["-sS", "--ssl-reqd", "--cacert", &host.certificate()]);
    command.args(["-u", &format!("{USER}:{PASSWORD}")]).args(more);
    run(command.arg(format!("{scheme}://{NAME}:{port}/{path}")), b"")
}

#[test]
fn a_url_names_a_message_a_part_or_what_is_searched() {
    if !need("curl") {
        return;
    }
    for form in FORMS {
        let host = Host::new(form);
        host.deliver(0..7);
        let mut other = host.session();
        other.ok("CREATE Archive/2025");
        other.append("Archive/2025", "", &delivered(9));
        other.ok("SELECT INBOX");
        let validity = other.ok("STATUS INBOX (UIDVALIDITY)");
        let validity = validity.split_once("UIDVALIDITY ").unwrap().1.split_once(')').unwrap().0;
        for scheme in schemes(&host) {
            let said = |path: &str| curl(&host, scheme, path, &[]).expect(0).stdout;
            for number in 0..7 {
                let wanted = crlf(&delivered(number));
                same(&said(&format!("INBOX;UID={}", number + 1)), &wanted);
                same(&said(&format!("INBOX;MAILINDEX={}", number + 1)), &wanted);
            }
            same(&said("Archive%2F2025;UID=1"), &crlf(&delivered(9)));
            same(&said(&format!("INBOX;UIDVALIDITY={validity}/;UID=1")), &crlf(&delivered(0)));
            same(&said("INBOX/;UID=3/;SECTION=1"), b"Caf=C3=A9 au lait");
            same(
                &said("INBOX/;UID=3/;SECTION=2.MIME"),
                b"Content-Type: image/png; name=dot.png\r\n\
                Content-Transfer-Encoding: base64\r\n\
                Content-Disposition: attachment; filename=dot.png\r\n\r\n",
            );
            let subject = "INBOX/;UID=3/;SECTION=HEADER.FIELDS%20(SUBJECT)";
            same(&said(subject), b"Subject: letter 2\r\n\r\n");
            same(&said("INBOX?SUBJECT%20%22letter%206%22"), b"* SEARCH 7\r\n");
            same(&said("INBOX?NOT%20FROM%20s0@%20BODY%20lait"), b"* SEARCH 3\r\n");
            same(&said("INBOX?BODY%20nowhere"), b"* SEARCH\r\n");
            let list = String::from_utf8(said("")).unwrap();
            for name in ["INBOX", "Archive", "Archive/2025"] {
                assert!(list.contains(&format!("\"/\" {name}\r\n")), "{list}");
            }
            // 78: there is no such thing; 67: who is it?
            for (path, code) in [
                ("INBOX;UID=99", 78),
                ("INBOX;MAILINDEX=99", 78),
                ("INBOX;UIDVALIDITY=1/;UID=1", 78),
                ("Nowhere;UID=1", 67),
            ] {
                let ran = curl(&host, scheme, path, &[]);
                assert_eq!(ran.code(), Some(code), "{path}: {ran}");
            }
            curl(&host, scheme, "INBOX;UID=1", &["-u", "hunt:wrong"]).expect(67);
        }
        other.log_out();
    }
}

#[test]
fn it_appends_marks_moves_and_deletes_while_others_do() {
    if !need("curl") {
        return;
    }
    for form in FORMS {
        let host = Host::new(form);
        host.deliver(0..6);
        let file = host.site.path().join("letter");
        let mut other = host.session();
        other.ok("SELECT INBOX");
        for (round, scheme) in schemes(&host).into_iter().enumerate() {
            let says = |folder: &str, command: &str| {
                curl(&host, scheme, folder, &["-X", command]).expect(0).text()
            };
            let (archive, number) = (format!("Archive{round}"), 20 + round);
            says("", &format!("CREATE {archive}"));
            assert_eq!(says("", &format!("LIST \"\" {archive}")).lines().count(), 1);
            fs::write(&file, crlf(&delivered(number))).unwrap();
            curl(&host, scheme, &archive, &["-T", file.to_str().unwrap()]).expect(0);
            host.deliver([10 + round]);
            other.expunge(round);
            let uid = |number: usize| number + 1;
            let (marked, moved) = (uid(2 + round), uid(4 + round));
            let told = says("INBOX", &format!("UID STORE {marked} +FLAGS (\\Flagged \\Seen)"));
            assert!(told.contains(&format!("UID {marked} FLAGS (\\Flagged \\Seen")), "{told}");
            assert!(says("INBOX", &format!("UID MOVE {moved} {archive}")).contains("EXPUNGE"));
            let status = says("", &format!("STATUS {archive} (MESSAGES UNSEEN)"));
            // APPEND by curl marks what it appends as seen.
            assert_eq!(status, format!("* STATUS {archive} (MESSAGES 2 UNSEEN 1)\r\n"));
            let found = host.folder(&archive);
            has(&found, [4 + round, number]);
            assert_eq!(flags(&found, number), "\\Seen");
        }
        let inbox = host.folder("INBOX");
        has(&inbox, [2, 3, 10, 11]);
        let marks = [2, 3, 10, 11].map(|number| flags(&inbox, number));
        assert_eq!(marks, ["\\Flagged \\Seen", "\\Flagged \\Seen", "", ""]);
        other.log_out();
        host.ends_well();
    }
}
