use super::{Action, MAX_BAD_COMMANDS, Session};
use crate::imap::command::{Command, Tagged};

/// What comes of this input in pieces of so many bytes; messages are taken.
fn actions(input: &[u8], piece: usize) -> Vec<Action> {
    let mut session = Session::new(b"");
    let mut actions: Vec<Action> = Vec::new();
    for piece in input.chunks(piece) {
        session.push(piece);
        while let Some(action) = session.next() {
            match (actions.last_mut(), action) {
                (Some(Action::Chunk(all)), Action::Chunk(more)) => all.extend_from_slice(&more),
                (_, Action::Append(to)) => {
                    session.take_message(to.mailbox != "no");
                    actions.push(Action::Append(to));
                }
                (_, Action::Run(Tagged { tag, command: Command::Idle })) => {
                    session.idle(&tag);
                    actions.push(Action::Run(Tagged { tag, command: Command::Idle }));
                }
                (_, action) => actions.push(action),
            }
        }
    }
    actions
}

fn shown(input: &str) -> Vec<String> {
    let whole = actions(input.as_bytes(), usize::MAX);
    for piece in [1, 2, 3, 7] {
        assert_eq!(actions(input.as_bytes(), piece), whole, "in pieces of {piece}: {input}");
    }
    let show = |action: &Action| match action {
        Action::Send(bytes) | Action::Chunk(bytes) => {
            String::from_utf8_lossy(bytes).trim_end().to_owned()
        }
        Action::Run(tagged) => format!("run {}", tagged.tag),
        Action::Append(to) => format!("append {} {}", to.tag, to.mailbox),
        Action::Appended(done) => format!("appended {done}"),
        Action::Done(tag) => format!("done {tag}"),
        Action::Close => "close".into(),
    };
    whole.iter().map(show).collect()
}

#[test]
fn commands_are_run_one_after_the_other() {
    assert_eq!(shown("a NOOP\r\nb SELECT {5}\r\nINBOX\r\n"), ["run a", "+ go on", "run b"]);
    assert_eq!(shown("a SELECT {5+}\r\nINBOX\r\nb NOOP\r\n"), ["run a", "run b"]);
    assert_eq!(shown("a NONSENSE\r\nb NOOP\r\n"), ["a BAD unknown command", "run b"]);
}

#[test]
fn a_message_is_streamed_or_refused() {
    assert_eq!(
        shown("a APPEND box (\\Seen) {3}\r\nabc\r\nb NOOP\r\n"),
        ["append a box", "+ go on", "abc", "appended true", "run b"]
    );
    assert_eq!(shown("a APPEND no {3+}\r\nabc\r\nb NOOP\r\n"), ["append a no", "run b"]);
    assert_eq!(shown("a APPEND no {3}\r\nb NOOP\r\n"), ["append a no", "run b"]);
    assert_eq!(
        shown("a APPEND box {3+}\r\nabc x\r\nb NOOP\r\n"),
        [
            "append a box",
            "abc",
            "a BAD the end of the command is wanted",
            "appended false",
            "run b"
        ]
    );
    // MULTIAPPEND is not there.
    assert_eq!(
        shown("a APPEND box {1+}\r\nx {1+}\r\ny\r\nb NOOP\r\n"),
        ["append a box", "x", "a BAD the end of the command is wanted", "appended false", "run b"]
    );
}

#[test]
fn idle_ends_with_done_and_nothing_else() {
    assert_eq!(shown("a IDLE\r\nDONE\r\nb NOOP\r\n"), ["run a", "done a", "run b"]);
    assert_eq!(shown("a IDLE\r\nb NOOP\r\nc NOOP\r\n"), ["run a", "a BAD DONE is wanted", "run c"]);
}

#[test]
fn what_is_too_long_is_passed_over() {
    let long = format!("a SELECT {{200000+}}\r\n{}\r\nb NOOP\r\n", "x".repeat(200_000));
    assert_eq!(shown(&long), ["a BAD a shorter literal is wanted", "run b"]);
    let long = format!("a SELECT {}\r\nb NOOP\r\n", "x".repeat(100_000));
    assert_eq!(shown(&long), ["a BAD a shorter command is wanted", "run b"]);
}

#[test]
fn nobody_talks_nonsense_for_ever() {
    let answers = shown(&"a NONSENSE\r\n".repeat(30));
    assert_eq!(answers.len(), MAX_BAD_COMMANDS as usize + 2);
    assert_eq!(answers.last().unwrap(), "close");
}
