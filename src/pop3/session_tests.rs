//! Transcripts of the TRANSACTION and UPDATE states; the numbers are those of RFC 1939's examples.

use super::{Action, Message, Session};

fn maildrop() -> Session {
    let message = |size, unique_id: &str| Message { size, unique_id: unique_id.into() };
    let mut session = Session::new(vec![
        message(120, "whqtswO00WBw418f9t5JxYwZ"),
        message(200, "QhdPYR:00WBw1Ph7x7"),
    ]);
    let greeting = b"+OK maildrop has 2 messages (320 octets)\r\n".to_vec();
    assert_eq!(session.next(), Some(Action::Send(greeting)));
    assert_eq!(session.next(), None);
    session
}

/// Says something and hears all that is sent; other actions are shown in angle brackets.
fn say(session: &mut Session, text: &str) -> String {
    session.push(text.as_bytes());
    let show = |action| match action {
        Action::Send(bytes) => String::from_utf8(bytes).unwrap(),
        Action::SendMessage { reply, index, body_lines } => {
            let reply = String::from_utf8(reply).unwrap();
            format!("{reply}<message {index} {body_lines:?}>")
        }
        Action::Expunge(indexes) => format!("<expunge {indexes:?}>"),
        Action::Close => "<close>".into(),
    };
    session.map(show).collect()
}

#[test]
fn the_lecture_reads_and_deletes_its_mail() {
    let mut session = maildrop();
    assert_eq!(say(&mut session, "stat\r\n"), "+OK 2 320\r\n");
    assert_eq!(say(&mut session, "retr 1\r\n"), "+OK 120 octets\r\n<message 0 None>");
    assert_eq!(say(&mut session, "dele 1\r\n"), "+OK message 1 deleted\r\n");
    assert_eq!(say(&mut session, "quit\r\n"), "<expunge [0]>");
    assert_eq!(say(&mut session, "stat\r\n"), "", "quit is not answered before it is done");
    session.expunged(true);
    assert_eq!(say(&mut session, ""), "+OK bye\r\n<close>");
    assert_eq!(say(&mut session, "stat\r\n"), "");
}

#[test]
fn without_a_deletion_quit_changes_nothing() {
    assert_eq!(say(&mut maildrop(), "QUIT\r\n"), "+OK bye\r\n<close>");
    assert_eq!(say(&mut maildrop(), "DELE 1\r\nRSET\r\nQUIT\r\n").matches("expunge").count(), 0);
}

#[test]
fn a_failed_update_is_told() {
    let mut session = maildrop();
    assert!(say(&mut session, "DELE 1\r\nDELE 2\r\nQUIT\r\n").ends_with("<expunge [0, 1]>"));
    session.expunged(false);
    let heard = say(&mut session, "");
    assert_eq!(heard, "-ERR [SYS/TEMP] some deleted messages not removed\r\n<close>");
}

#[test]
fn listings_leave_deleted_messages_out() {
    let mut session = maildrop();
    assert_eq!(
        say(&mut session, "LIST\r\n"),
        "+OK 2 messages (320 octets)\r\n1 120\r\n2 200\r\n.\r\n"
    );
    assert_eq!(say(&mut session, "LIST 2\r\n"), "+OK 2 200\r\n");
    assert_eq!(say(&mut session, "UIDL 2\r\n"), "+OK 2 QhdPYR:00WBw1Ph7x7\r\n");
    say(&mut session, "DELE 1\r\n");
    assert_eq!(say(&mut session, "STAT\r\n"), "+OK 1 200\r\n");
    assert_eq!(
        say(&mut session, "UIDL\r\n"),
        "+OK 1 message (200 octets)\r\n2 QhdPYR:00WBw1Ph7x7\r\n.\r\n"
    );
    assert_eq!(say(&mut session, "LIST 1\r\n"), "-ERR message 1 is deleted\r\n");
    assert_eq!(say(&mut session, "RETR 1\r\n"), "-ERR message 1 is deleted\r\n");
    assert_eq!(say(&mut session, "DELE 1\r\n"), "-ERR message 1 is deleted\r\n");
    assert_eq!(say(&mut session, "RSET\r\n"), "+OK maildrop has 2 messages (320 octets)\r\n");
    assert_eq!(say(&mut session, "STAT\r\n"), "+OK 2 320\r\n");
}

#[test]
fn numbers_that_no_message_has_are_refused() {
    let mut session = maildrop();
    for number in ["0", "3", "99999999999999999999"] {
        for command in ["RETR", "DELE", "LIST", "UIDL"] {
            let heard = say(&mut session, &format!("{command} {number}\r\n"));
            assert_eq!(heard, "-ERR no such message, the maildrop has 2\r\n");
        }
    }
}

#[test]
fn top_gives_the_header_and_so_many_lines() {
    let mut session = maildrop();
    assert_eq!(say(&mut session, "TOP 1 0\r\n"), "+OK\r\n<message 0 Some(0)>");
    assert_eq!(say(&mut session, "TOP 2 10\r\n"), "+OK\r\n<message 1 Some(10)>");
    assert_eq!(say(&mut session, "TOP 1\r\n"), "-ERR usage: TOP message lines\r\n");
}

#[test]
fn pipelined_commands_are_answered_in_order() {
    let mut session = maildrop();
    assert_eq!(
        say(&mut session, "RETR 1\r\nDELE 1\r\nNOOP\r\nFOO\r\nQUIT\r\nSTAT\r\n"),
        "+OK 120 octets\r\n<message 0 None>+OK message 1 deleted\r\n+OK\r\n-ERR unknown command\r\n\
         <expunge [0]>"
    );
}

#[test]
fn an_unreadable_message_is_told_before_the_next_command_is_obeyed() {
    let mut session = maildrop();
    session.push(b"RETR 1\r\nNOOP\r\n");
    assert!(matches!(session.next(), Some(Action::SendMessage { .. })));
    session.unreadable();
    assert_eq!(say(&mut session, ""), "-ERR [SYS/TEMP] the message can't be read now\r\n+OK\r\n");
}

#[test]
fn an_empty_maildrop_is_a_maildrop() {
    let mut session = Session::new(Vec::new());
    assert_eq!(
        say(&mut session, "STAT\r\nLIST\r\nUIDL\r\nRETR 1\r\nQUIT\r\n"),
        "+OK maildrop has 0 messages (0 octets)\r\n+OK 0 0\r\n+OK 0 messages (0 octets)\r\n.\r\n\
         +OK 0 messages (0 octets)\r\n.\r\n-ERR no such message, the maildrop has 0\r\n\
         +OK bye\r\n<close>"
    );
}

#[test]
fn nobody_logs_in_twice() {
    assert_eq!(say(&mut maildrop(), "USER hunt\r\n"), "-ERR already logged in\r\n");
    assert!(say(&mut maildrop(), "CAPA\r\n").contains("\r\nUSER\r\n"));
}
