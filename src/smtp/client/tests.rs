//! Rules of the client, each as a transcript; and what no server may make it do.

mod hostile;
mod stage;

use stage::{credentials, play, play_whole, play_with_credentials, start};

use super::*;

/// A server that knows everything, up to the first `Ready`; then `rest`.
fn full(rest: &str) -> String {
    let hello = "
        S: 220 mx.x ESMTP
        C: EHLO Here
        S: 250-mx.x at your service
        S: 250-Pipelining
        S: 250-size 1000
        S: 250 8bitmime
        E: Ready
    ";
    format!("{hello}{rest}")
}

/// A server that knows nothing but SMTP.
fn plain(rest: &str) -> String {
    format!("S: 220 mx.x\nC: EHLO Here\nS: 250 mx.x\nE: Ready\n{rest}")
}

/// A server that has these extensions.
fn with(extensions: &[&str], rest: &str) -> String {
    let lines: Vec<String> = extensions.iter().map(|word| format!("S: 250-{word}\n")).collect();
    format!(
        "S: 220 mx.x\nC: EHLO Here\nS: 250-mx.x\n{}S: 250 HELP\nE: Ready\n{rest}",
        lines.concat()
    )
}

#[test]
fn what_the_sender_asked_for_is_passed_on_where_it_is_understood() {
    let rest = "
        D: mail 1 dsn
        C: MAIL FROM:<s@here> RET=FULL ENVID=QQ+20
        C: RCPT TO:<r0@x> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+2Bb@c
        C: DATA
    ";
    play(Tls::Never, &with(&["PIPELINING", "DSN"], rest));
    let rest = "D: mail 1 dsn\nC: MAIL FROM:<s@here>\nC: RCPT TO:<r0@x>\nC: DATA";
    play(Tls::Never, &with(&["PIPELINING"], rest));
}

#[test]
fn a_message_with_utf8_goes_to_servers_with_smtputf8_only() {
    let rest = "D: mail 1 utf8 8bit\nC: MAIL FROM:<s@here> BODY=8BITMIME SMTPUTF8";
    play(Tls::Never, &with(&["SMTPUTF8", "8BITMIME"], rest));
    let rest = "
        D: mail 2 utf8 8bit
        E: 0: 553 5.6.7 the message needs SMTPUTF8, which the server does not offer
        E: 1: 553 5.6.7 the message needs SMTPUTF8, which the server does not offer
        E: Ready
        D: mail 1
        C: MAIL FROM:<s@here>
    ";
    play(Tls::Never, &with(&["8BITMIME"], rest));
}

#[test]
fn a_text_without_lines_goes_as_a_chunk_to_those_who_were_accepted_or_not_at_all() {
    let all = ["PIPELINING", "CHUNKING", "BINARYMIME"];
    let rest = "
        D: mail 2 binary
        C: MAIL FROM:<s@here> BODY=BINARYMIME
        C: RCPT TO:<r0@x>
        C: RCPT TO:<r1@x>
        S: 250 Ok
        S: 550 5.1.1 no
        S: 250 Ok
        E: 0: 550 5.1.1 no
        C: BDAT 5 LAST
        E: SendText
        D: text .ab
        C: .ab
        L: 1
        D: end
        L: 1 in doubt
        P: 600
        S: 250 2.0.0 queued
        E: 1: 250 2.0.0 queued
        E: Ready
        D: mail 1
        C: MAIL FROM:<s@here>
        C: RCPT TO:<r0@x>
        C: DATA
    ";
    play(Tls::Never, &with(&all, rest));
    // Nobody takes it: no byte is sent.
    let rest = "
        D: mail 1 binary
        C: MAIL FROM:<s@here> BODY=BINARYMIME
        C: RCPT TO:<r0@x>
        S: 250 Ok
        S: 550 5.1.1 no
        E: 0: 550 5.1.1 no
        E: Ready
        D: mail 1
        C: RSET
    ";
    play(
        Tls::Never,
        &with(&all, &format!("{rest}\nC: MAIL FROM:<s@here>\nC: RCPT TO:<r0@x>\nC: DATA")),
    );
    for lacking in [&["CHUNKING", "8BITMIME"][..], &["BINARYMIME", "8BITMIME"], &[]] {
        let rest = "
            D: mail 1 binary
            E: 0: 554 5.6.3 the message needs BINARYMIME, which the server does not offer
            E: Ready
        ";
        play(Tls::Never, &with(lacking, rest));
    }
}

#[test]
fn an_envelope_is_pipelined_and_each_recipient_has_its_outcome() {
    let script = full(
        "
        D: mail 3 8bit
        C: MAIL FROM:<s@here> SIZE=5 BODY=8BITMIME
        C: RCPT TO:<r0@x>
        C: RCPT TO:<r1@x>
        C: RCPT TO:<r2@x>
        C: DATA
        S: 250 2.1.0 Ok
        S: 250 2.1.5 Ok
        S: 550-5.1.1 no such
        S: 550 5.1.1 user
        S: 250 2.1.5 Ok
        S: 354 go ahead
        E: 1: 550 5.1.1 no such 5.1.1 user
        E: SendText
        D: text .hi
        C: ..hi
        L: 0 2
        D: end
        C: .
        L: 0 2 in doubt
        S: 250 2.0.0 queued
        E: 0: 250 2.0.0 queued
        E: 2: 250 2.0.0 queued
        E: Ready
        L:
        D: mail 1 null
        C: MAIL FROM:<> SIZE=5
        C: RCPT TO:<r0@x>
        C: DATA
        S: 250 ok
        S: 251 will forward
        S: 354 go
        E: SendText
        D: end
        C: .
        S: 451 4.3.0 disk
        E: 0: 451 4.3.0 disk
        E: Ready
        D: quit
        C: QUIT
        S: 221 bye
        E: Closed
        ",
    );
    play(Tls::Opportunistic, &script);
}

#[test]
fn without_pipelining_each_command_waits_and_no_parameter_is_sent() {
    let script = "
        S: 220-mx.x
        S: 220 hello
        C: EHLO Here
        S: 502 what
        C: HELO Here
        S: 250 mx.x
        E: Ready
        D: mail 2 8bit
        C: MAIL FROM:<s@here>
        S: 250 ok
        C: RCPT TO:<r0@x>
        S: 450 4.2.0 greylisted
        E: 0: 450 4.2.0 greylisted
        C: RCPT TO:<r1@x>
        S: 250 ok
        C: DATA
        S: 354 go
        E: SendText
        D: end
        C: .
        S: 250 ok
        E: 1: 250 ok
        E: Ready
    ";
    play(Tls::Opportunistic, script);
}

#[test]
fn more_recipients_than_the_window_are_sent_as_replies_come() {
    let mut client = Client::new("here", Tls::Never, None);
    client.push(b"220 x\r\n250-x\r\n250 PIPELINING\r\n");
    assert_eq!(client.event(), Some(Event::Ready));
    client.output().clear();
    start(&mut client, 250, 0, &[]);
    let mut replies = 0;
    let mut commands = 0;
    loop {
        let sent = String::from_utf8(std::mem::take(client.output())).unwrap();
        commands += sent.lines().count();
        assert!(commands - replies <= WINDOW);
        match client.event() {
            None if replies < 251 => client.push(b"250 ok\r\n"),
            None => client.push(b"354 go\r\n"),
            event => break assert_eq!(event, Some(Event::SendText)),
        }
        replies += 1;
    }
    assert_eq!((replies, commands), (252, 252));
    assert_eq!(client.unanswered().count(), 250);
}

#[test]
fn ehlo_refused_for_good_is_followed_by_helo_and_refused_for_now_is_not() {
    for code in [500, 502, 504, 550, 554] {
        play(Tls::Never, &format!("S: 220 x\nC: EHLO Here\nS: {code} x\nC: HELO Here"));
    }
    play(Tls::Never, "S: 220 x\nC: EHLO Here\nS: 450 x\nE: Refused 450 x\nC: QUIT");
    play(Tls::Never, "S: 220 x\nC: EHLO Here\nS: 421 x\nE: Refused 421 x");
    let both = "S: 220 x\nC: EHLO Here\nS: 502 x\nC: HELO Here\nS: 550 no\nE: Refused 550 no";
    play(Tls::Never, &format!("{both}\nC: QUIT"));
}

#[test]
fn a_server_that_is_closed_is_refused() {
    play(Tls::Never, "P: 300\nS: 554 closed\nE: Refused 554 closed\nC: QUIT");
    play(Tls::Never, "S: 421-4.3.2 not\nS: 421 now\nE: Refused 421 4.3.2 not now");
}

#[test]
fn what_the_reply_to_helo_says_is_no_extension() {
    let script = "S: 220 x\nC: EHLO Here\nS: 500 x\nC: HELO Here\nS: 250-x\nS: 250 PIPELINING
        E: Ready\nD: mail 1\nC: MAIL FROM:<s@here>";
    play(Tls::Never, script);
}

#[test]
fn a_message_above_the_limit_is_refused_without_being_sent() {
    let script = full(
        "
        D: mail 2 size=1001
        E: 0: 552 5.3.4 the message has 1001 bytes, the server takes 1000
        E: 1: 552 5.3.4 the message has 1001 bytes, the server takes 1000
        E: Ready
        D: mail 1 size=1000
        C: MAIL FROM:<s@here> SIZE=1000
        C: RCPT TO:<r0@x>
        C: DATA
        ",
    );
    play(Tls::Never, &script);
    for no_limit in ["SIZE", "SIZE 0", "SIZE x", "SIZE 99999999999999999999999"] {
        let hello = format!("S: 220 x\nC: EHLO Here\nS: 250-x\nS: 250 {no_limit}\nE: Ready\n");
        let mail = "D: mail 1 size=18446744073709551615
            C: MAIL FROM:<s@here> SIZE=18446744073709551615";
        play(Tls::Never, &(hello + mail));
    }
}

#[test]
fn mail_refused_is_the_outcome_of_all_and_the_next_message_begins_with_rset() {
    let script = full(
        "
        D: mail 2
        C: MAIL FROM:<s@here> SIZE=5
        C: RCPT TO:<r0@x>
        C: RCPT TO:<r1@x>
        C: DATA
        S: 550 5.7.1 go away
        S: 503 need MAIL
        S: 250 what
        S: 503 need MAIL
        E: 0: 550 5.7.1 go away
        E: 1: 550 5.7.1 go away
        E: Ready
        D: mail 1
        C: RSET
        C: MAIL FROM:<s@here> SIZE=5
        C: RCPT TO:<r0@x>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 250 ok
        S: 354 ok
        E: SendText
        ",
    );
    play(Tls::Never, &script);
    // One at a time, nothing more is said.
    let rest = "D: mail 2\nC: MAIL FROM:<s@here>\nS: 451 no\nE: 0: 451 no\nE: 1: 451 no\nE: Ready";
    play(Tls::Never, &plain(rest));
}

#[test]
fn a_354_for_nobody_is_answered_by_an_empty_text_that_delivers_nothing() {
    let script = full(
        "
        D: mail 2
        C: MAIL FROM:<s@here> SIZE=5
        C: RCPT TO:<r0@x>
        C: RCPT TO:<r1@x>
        C: DATA
        S: 250 ok
        S: 550 5.1.1 no
        S: 550 5.1.1 no
        E: 0: 550 5.1.1 no
        E: 1: 550 5.1.1 no
        S: 354 go
        C: .
        L:
        S: 250 2.0.0 queued
        E: Ready
        D: mail 1
        C: MAIL FROM:<s@here> SIZE=5
        C: RCPT TO:<r0@x>
        C: DATA
        S: 550 5.7.1 no
        S: 250 ok
        S: 354 go
        E: 0: 550 5.7.1 no
        C: .
        S: 250 2.0.0 queued
        E: Ready
        ",
    );
    play(Tls::Never, &script);
}

#[test]
fn nobody_left_ends_the_message_before_data_and_the_next_begins_with_rset() {
    let script = plain(
        "
        D: mail 1
        C: MAIL FROM:<s@here>
        S: 250 ok
        C: RCPT TO:<r0@x>
        S: 550 no
        E: 0: 550 no
        E: Ready
        D: mail 1
        C: RSET
        S: 250 ok
        C: MAIL FROM:<s@here>
        S: 250 ok
        C: RCPT TO:<r0@x>
        S: 250 ok
        C: DATA
        S: 452 4.3.1 full
        E: 0: 452 4.3.1 full
        E: Ready
        D: mail 1
        C: RSET
        S: 500 what
        E: Refused 500 what
        C: QUIT
        L: 0
        ",
    );
    play(Tls::Never, &script);
}

#[test]
fn one_recipient_too_many_is_for_later_but_a_full_mailbox_is_not() {
    for (said, told) in [
        ("552 too many recipients", "452 too many recipients"),
        ("552 5.5.3 too many", "452 5.5.3 too many"),
        ("552 5.2.2 over quota", "552 5.2.2 over quota"),
    ] {
        let rest = "D: mail 1\nC: MAIL FROM:<s@here>\nS: 250 ok\nC: RCPT TO:<r0@x>\n";
        play(Tls::Never, &plain(&format!("{rest}S: {said}\nE: 0: {told}\nE: Ready")));
    }
}

#[test]
fn a_message_for_nobody_is_nothing() {
    play(Tls::Never, &plain("D: mail 0\nE: Ready"));
}

#[test]
fn going_away_leaves_the_recipients_without_outcome_to_the_driver() {
    let begun = full(
        "
        D: mail 3
        C: MAIL FROM:<s@here> SIZE=5
        C: RCPT TO:<r0@x>
        C: RCPT TO:<r1@x>
        C: RCPT TO:<r2@x>
        C: DATA
        S: 250 ok
        S: 250 ok
        S: 550 no
        E: 1: 550 no
        ",
    );
    let accepted = format!("{begun}S: 250 ok\nS: 354 go\nE: SendText\n");
    play(Tls::Never, &format!("{begun}S: 421 bye\nE: Refused 421 bye\nL: 0 2"));
    play(Tls::Never, &format!("{accepted}S: 421 bye\nE: Refused 421 bye\nL: 0 2\nD: end\nL: 0 2"));
    // In reply to the text it is an answer.
    let sent = format!("{accepted}D: end\nC: .\nL: 0 2 in doubt\n");
    let answered = "S: 421 bye\nE: 0: 421 bye\nE: 2: 421 bye\nE: Refused 421 bye\nL:";
    play(Tls::Never, &format!("{sent}{answered}"));
    play(Tls::Never, &format!("{sent}S: 999 x\nE: Broken(\"999 x\")\nL: 0 2 in doubt"));
    play(Tls::Never, &full("S: 421 idle\nE: Refused 421 idle"));
    // It was sent before the message was started.
    let late = "D: mail 1\nC: MAIL FROM:<s@here>\nS: 421 idle\nE: Refused 421 idle\nL: 0";
    play(Tls::Never, &plain(late));
}

#[test]
fn a_reply_that_nothing_waits_for_breaks_the_connection() {
    play(Tls::Never, &full("S: 250 extra\nE: Broken(\"250 extra\")"));
    let envelope = "D: mail 1\nC: MAIL FROM:<s@here> SIZE=5\nC: RCPT TO:<r0@x>\nC: DATA\n";
    let early = "S: 250 ok\nS: 250 ok\nS: 354 go\nS: 250 taken\nE: Broken(\"250 taken\")\nL: 0";
    play_whole(Tls::Never, &full(&format!("{envelope}{early}")));
    let early =
        "S: 250 ok\nS: 250 ok\nS: 354 go\nE: SendText\nS: 250 taken\nE: Broken(\"250 taken\")";
    play(Tls::Never, &full(&format!("{envelope}{early}\nL: 0")));
    play_whole(
        Tls::Never,
        "S: 220 x\nS: 250 x\nS: 250 extra\nE: Broken(\"250 extra\")\nC: EHLO Here",
    );
}

#[test]
fn a_reply_that_is_not_one_to_its_command_breaks_the_connection() {
    let hello = "S: 220 x\nC: EHLO Here\n";
    let rcpt = plain("D: mail 1\nC: MAIL FROM:<s@here>\nS: 250 ok\nC: RCPT TO:<r0@x>\n");
    let data = format!("{rcpt}S: 250 ok\nC: DATA\n");
    let text = format!("{data}S: 354 go\nE: SendText\nD: end\nC: .\n");
    for (before, code) in [
        ("", "354"),
        ("", "120"),
        (hello, "354"),
        (hello, "999"),
        (hello, "000"),
        (&rcpt, "354"),
        (&rcpt, "199"),
        (&data, "250"),
        (&data, "350"),
        (&text, "354"),
        (&text, "600"),
    ] {
        play(Tls::Never, &format!("{before}S: {code} x\nE: Broken(\"{code} x\")"));
    }
    play(Tls::Never, "S: SSH-2.0-x\nE: Broken(\"SSH-2.0-x\")");
    play(Tls::Never, "S: 2\u{b2}0 x\nE: Broken(\"2?0 x\")");
}

#[test]
fn a_reply_line_without_end_is_not_waited_out() {
    let mut client = Client::new("Here", Tls::Never, None);
    client.push(&[b'2'; 5000]);
    assert!(matches!(client.event(), Some(Event::Broken(_))));
    assert_eq!(client.event(), None);
}

#[test]
fn starttls_is_begun_where_offered_and_everything_is_learned_again() {
    let script = "
        S: 220 x
        C: EHLO Here
        S: 250-x
        S: 250-PIPELINING
        S: 250-SIZE 1
        S: 250 StartTLS
        C: STARTTLS
        S: 220 go
        E: StartTls
        D: tls
        C: EHLO Here
    ";
    let extended = "S: 250-x\nS: 250 STARTTLS\nE: Ready\n";
    let plain = "S: 502 what\nC: HELO Here\nS: 250 x\nE: Ready\n";
    for (tls, hello) in [(Tls::Opportunistic, extended), (Tls::Required, plain)] {
        play(tls, &format!("{script}{hello}D: mail 1\nC: MAIL FROM:<s@here>"));
    }
    for tls in [Tls::Never, Tls::Unneeded] {
        play(tls, "S: 220 x\nC: EHLO Here\nS: 250-x\nS: 250 STARTTLS\nE: Ready");
    }
}

#[test]
fn anything_behind_the_reply_to_starttls_is_an_attack() {
    let hello = "S: 220 x\nC: EHLO Here\nS: 250-x\nS: 250 STARTTLS\nC: STARTTLS\nS: 220 go\n";
    let broken = "E: Broken(\"more than the reply to STARTTLS\")";
    for injected in ["250 x", "421 x", ""] {
        play_whole(Tls::Opportunistic, &format!("{hello}S: {injected}\n{broken}"));
    }
    play(Tls::Opportunistic, &format!("{hello}E: StartTls\nS: 250 x\n{broken}\nD: tls"));
    // Not even a whole line.
    let mut client = Client::new("here", Tls::Required, None);
    client.push(b"220 x\r\n250-x\r\n250 STARTTLS\r\n220 go\r\n2");
    assert!(matches!(client.event(), Some(Event::Broken(_))));
    client.tls_started();
    assert_eq!(client.event(), None);
    assert_eq!(client.output(), b"EHLO here\r\nSTARTTLS\r\n");
}

#[test]
fn starttls_refused_or_not_offered_goes_on_in_clear_only_where_tls_is_not_required() {
    let offered = "S: 220 x\nC: EHLO Here\nS: 250-x\nS: 250 STARTTLS\nC: STARTTLS\n";
    let absent = "S: 220 x\nC: EHLO Here\nS: 250 x\n";
    let wanted = "E: Refused 454 4.7.4 the server does not start TLS, which is required here
        C: QUIT";
    for script in [
        format!("{offered}S: 454 4.7.0 not now\n"),
        format!("{offered}S: 502 what\n"),
        absent.to_owned(),
    ] {
        play(Tls::Opportunistic, &format!("{script}E: Ready"));
        play(Tls::Required, &format!("{script}{wanted}"));
    }
    play(Tls::Opportunistic, &format!("{offered}S: 421 bye\nE: Refused 421 bye"));
    play(Tls::Opportunistic, &format!("{offered}S: 250 ok\nE: Broken(\"250 ok\")"));
}

#[test]
fn credentials_are_said_by_the_best_mechanism_that_is_offered() {
    // base64 of NUL taro NUL secret; of taro; of secret.
    let plain = "S: 220 x\nC: EHLO Here\nS: 250-x\nS: 250 auth cram-md5 login plain
        C: AUTH PLAIN AHRhcm8Ac2VjcmV0\n";
    let login = "S: 220 x\nC: EHLO Here\nS: 250-x\nS: 250 AUTH LOGIN
        C: AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: dGFybw==\nS: 334 UGFzc3dvcmQ6\nC: c2VjcmV0\n";
    for script in [plain, login] {
        play_with_credentials(Tls::Unneeded, &format!("{script}S: 235 welcome\nE: Ready"));
        let refused = format!("{script}S: 535 5.7.8 no\nE: Refused 535 5.7.8 no\nC: QUIT");
        play_with_credentials(Tls::Unneeded, &refused);
        let endless = format!("{script}S: 334 more\nE: Broken(\"334 more\")");
        play_with_credentials(Tls::Unneeded, &endless);
    }
    let none = "S: 220 x\nC: EHLO Here\nS: 250-x\nS: 250 AUTH GSSAPI
        E: Refused 454 4.7.4 the server offers neither AUTH PLAIN nor AUTH LOGIN\nC: QUIT";
    play_with_credentials(Tls::Unneeded, none);
}

#[test]
fn credentials_are_never_said_in_clear() {
    let hello = "S: 220 x\nC: EHLO Here\nS: 250-x\nS: 250-AUTH PLAIN\nS: 250 STARTTLS\n";
    let refused = "E: Refused 454 4.7.4 the link is not under TLS, and only there we log in
        C: QUIT";
    play_with_credentials(Tls::Never, &format!("{hello}{refused}"));
    let clear = format!("{hello}C: STARTTLS\nS: 454 no\n{refused}");
    play_with_credentials(Tls::Opportunistic, &clear);
    let safe = "C: STARTTLS\nS: 220 go\nE: StartTls\nD: tls\nC: EHLO Here\nS: 250-x
        S: 250 AUTH PLAIN\nC: AUTH PLAIN AHRhcm8Ac2VjcmV0\nS: 235 ok\nE: Ready";
    for tls in [Tls::Opportunistic, Tls::Required] {
        play_with_credentials(tls, &format!("{hello}{safe}"));
    }
    assert!(!format!("{:?}", credentials()).contains("secret"));
}

#[test]
fn a_server_that_goes_by_our_name_is_ourselves() {
    play(
        Tls::Never,
        "S: 220 here\nC: EHLO Here\nS: 250-hERE hello\nS: 250 x\nE: Ourselves\nC: QUIT",
    );
    let helo = "S: 220 x\nC: EHLO Here\nS: 500 x\nC: HELO Here\nS: 250 here\nE: Ourselves\nC: QUIT";
    play(Tls::Never, helo);
    play(Tls::Never, "S: 220 here\nC: EHLO Here\nS: 250 here.x\nE: Ready");
}

#[test]
fn patience_is_that_of_the_standard() {
    let script = plain(
        "
        D: mail 1
        C: MAIL FROM:<s@here>
        P: 300
        S: 250 ok
        C: RCPT TO:<r0@x>
        P: 300
        S: 250 ok
        C: DATA
        P: 120
        S: 354 go
        E: SendText
        P: 180
        D: end
        C: .
        P: 600
        S: 250 ok
        E: 0: 250 ok
        E: Ready
        D: quit
        C: QUIT
        P: 10
        S: 500 what
        E: Closed
        ",
    );
    play(Tls::Never, &script);
}

#[test]
fn what_comes_out_of_turn_from_the_driver_is_ignored_and_quitting_early_ends() {
    play(Tls::Never, "D: mail 1\nD: end\nD: tls\nS: 220 x\nC: EHLO Here\nD: quit\nE: Closed");
    play(Tls::Never, "S: 554 x\nE: Refused 554 x\nC: QUIT\nS: 221 bye\nS: 250 x");
}

#[test]
fn text_has_its_last_line_end_whatever_the_driver_gave() {
    let mut client = Client::new("here", Tls::Never, None);
    client.push(b"220 x\r\n250-x\r\n250 PIPELINING\r\n");
    assert_eq!(client.event(), Some(Event::Ready));
    start(&mut client, 1, 0, &[]);
    client.push(b"250 x\r\n250 x\r\n354 x\r\n");
    assert_eq!(client.event(), Some(Event::SendText));
    client.output().clear();
    for piece in [&b"a\r\n"[..], b".b\r", b"\n.", b"c"] {
        client.text(piece);
    }
    client.end_text();
    assert_eq!(client.output(), b"a\r\n..b\r\n..c\r\n.\r\n");
}

#[test]
fn memory_is_bounded_whatever_the_server_says() {
    let (line, many) = (vec![b'2'; 1 << 20], b"250-x\r\n".repeat(100_000));
    for hostile in [&line[..], &many, b"\n".repeat(100_000).as_slice()] {
        let mut client = Client::new("here", Tls::Never, None);
        for piece in [b"220 x\r\n", hostile, hostile] {
            client.push(piece);
            while client.event().is_some() {}
            assert!(client.input.is_empty());
            assert!(client.output.len() < 100);
        }
    }
}

#[test]
fn our_own_name_is_no_loop_where_it_is_expected() {
    let mut client = Client::new("here", Tls::Never, None);
    client.expect_own_name();
    client.push(b"220 x\r\n250 Here\r\n");
    assert_eq!(client.event(), Some(Event::Ready));
}

#[test]
fn a_text_that_is_refused_before_its_end_is_refused() {
    let mut client = Client::new("here", Tls::Never, None);
    client.push(b"220 x\r\n250-x\r\n250 PIPELINING\r\n");
    assert_eq!(client.event(), Some(Event::Ready));
    start(&mut client, 2, 0, &[]);
    client.push(b"250 x\r\n250 x\r\n250 x\r\n354 x\r\n");
    assert_eq!(client.event(), Some(Event::SendText));
    client.text(b"a\r\n");
    client.push(b"554 5.7.1 spam\r\n");
    for recipient in 0..2 {
        let answer = Answer::new(554, "5.7.1 spam");
        assert_eq!(client.event(), Some(Event::Outcome { recipient, answer }));
    }
    assert!(matches!(client.event(), Some(Event::Refused(_))));
    assert!(!client.is_in_doubt());
}
