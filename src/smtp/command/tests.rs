use super::*;

const ALL: Extensions = Extensions { chunking: true, binarymime: true, auth: true, xclient: true };

fn plain(line: &[u8]) -> Result<Command, Reply> {
    parse(line, Extensions::default())
}

fn mail_parameters(line: &str) -> MailParameters {
    match parse(line.as_bytes(), ALL) {
        Ok(Command::Mail { parameters, .. }) => parameters,
        other => panic!("{line}: {other:?}"),
    }
}

fn rcpt_parameters(line: &str) -> RcptParameters {
    match parse(line.as_bytes(), ALL) {
        Ok(Command::Rcpt { parameters, .. }) => parameters,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn commands_are_taken_in_any_letter_case() {
    for (line, wanted) in [
        ("noop x y", Command::Noop),
        ("QuIt ", Command::Quit),
        ("ehlo  a.b", Command::Ehlo("a.b".into())),
        ("HELP me", Command::Help),
        ("bdat 5 last", Command::Bdat(Chunk { size: 5, last: true })),
        ("BDAT 0", Command::Bdat(Chunk { size: 0, last: false })),
    ] {
        assert_eq!(plain(line.as_bytes()), Ok(wanted));
    }
    let Ok(Command::Mail { from: Some(from), parameters }) =
        plain(b"mail from: <a@b> size=10 body=8bitmime")
    else {
        panic!("no MAIL");
    };
    assert_eq!(from.or_domain("x").to_string(), "a@b");
    let wanted = MailParameters { size: Some(10), body: Body::EightBitMime, ..Default::default() };
    assert_eq!(parameters, wanted);
}

#[test]
fn bad_lines_get_the_code_of_their_kind() {
    for (line, code) in [
        (&b""[..], 500),
        (b"FOO", 500),
        (b"NO\0OP", 500),
        (b"HELO", 501),
        (b"HELO a b", 501),
        (b"MAIL", 501),
        (b"MAIL FROM", 501),
        (b"MAIL TO:<a@b>", 501),
        (b"MAIL FROM:<a@b", 501),
        (b"MAIL FROM:<a@b> SIZE=x", 501),
        (b"MAIL FROM:<a@b> FOO=1", 555),
        (b"MAIL FROM:<a@b> BODY=BINARYMIME", 501),
        (b"RCPT TO:<>", 501),
        (b"RCPT TO:<a@b> SIZE=1", 555),
        (b"RCPT TO:a b c", 555),
        (b"DATA x", 501),
        (b"STARTTLS x", 501),
        (b"VRFY", 501),
        (b"BDAT", 501),
        (b"BDAT -1", 501),
        (b"BDAT 1 FIRST", 501),
        (b"BDAT 1 LAST x", 501),
    ] {
        let reply = plain(line).unwrap_err();
        assert_eq!(reply.code(), code, "{:?}", line.escape_ascii().to_string());
    }
}

#[test]
fn parameters_of_other_extensions_are_unknown() {
    for line in ["MAIL FROM:<a@b> FOO=<>", "RCPT TO:<a@b> AUTH=<>", "MAIL FROM:<a@b> NOTIFY=NEVER"]
    {
        assert_eq!(parse(line.as_bytes(), ALL).unwrap_err().code(), 555, "{line}");
    }
    assert_eq!(plain(b"MAIL FROM:<a@b> AUTH=<>").unwrap_err().code(), 555);
}

#[test]
fn the_parameters_of_dsn_are_read() {
    // The examples of RFC 3461, section 10.
    let parameters = mail_parameters("MAIL FROM:<Alice@Example.ORG> RET=HDRS ENVID=QQ314159");
    assert_eq!(parameters.ret, Some(Ret::Headers));
    assert_eq!(parameters.envelope_id.unwrap().as_str(), "QQ314159");
    let parameters =
        rcpt_parameters("RCPT TO:<Bob@Example.COM> NOTIFY=SUCCESS ORCPT=rfc822;Bob@Example.COM");
    assert_eq!(parameters.notify, Some(Notify { success: true, ..Notify::default() }));
    assert_eq!(parameters.original.unwrap().address(), "Bob@Example.COM");
    let parameters =
        rcpt_parameters("RCPT TO:<Carol@Ivory.EDU> NOTIFY=FAILURE ORCPT=rfc822;Carol@Ivory.EDU");
    assert_eq!(parameters.notify, Some(Notify { failure: true, ..Notify::default() }));
    let parameters = rcpt_parameters("rcpt to:<Fred@Bombs.AF.MIL> notify=never");
    assert_eq!(parameters, RcptParameters { notify: Some(Notify::default()), original: None });
    assert_eq!(rcpt_parameters("RCPT TO:<a@b>"), RcptParameters::default());
    assert_eq!(mail_parameters("MAIL FROM:<>"), MailParameters::default());
}

#[test]
fn auth_and_its_parameter_are_read() {
    let auth = |mechanism: &str, initial: Option<&[u8]>| {
        let initial = initial.map(|bytes| Secret(bytes.to_vec()));
        Ok(Command::Auth { mechanism: mechanism.into(), initial })
    };
    assert_eq!(plain(b"auth plain"), auth("plain", None));
    assert_eq!(plain(b"AUTH X ="), auth("X", Some(b"")));
    assert_eq!(plain(b"AUTH X AGE="), auth("X", Some(b"\0a")));
    for line in ["AUTH", "AUTH PLAIN AGE", "AUTH PLAIN AGF=", "AUTH PLAIN A=== x", "AUTH P = x"] {
        assert_eq!(plain(line.as_bytes()).unwrap_err().code(), 501, "{line}");
    }
    // The examples of RFC 4954 section 5.
    for line in ["MAIL FROM:<e=mc2@example.com> AUTH=e+3Dmc2@example.com", "MAIL FROM:<> AUTH=<>"] {
        assert_eq!(mail_parameters(line), MailParameters::default(), "{line}");
    }
    let long = format!("MAIL FROM:<a@b> AUTH={}", "x".repeat(501));
    for line in ["MAIL FROM:<a@b> AUTH=a+0Ab", "MAIL FROM:<a@b> AUTH=", &long] {
        assert_eq!(parse(line.as_bytes(), ALL).unwrap_err().code(), 501, "{line}");
    }
}

#[test]
fn who_is_asked_for_may_stand_before_smtputf8() {
    let asked = |text: &str| {
        asked_for(text.as_bytes()).map(|mailbox| mailbox.or_domain("here").to_string())
    };
    for text in ["a", "<a@here>", "a SMTPUTF8", "a@here  smtputf8"] {
        assert_eq!(asked(text), Ok("a@here".into()), "{text}");
    }
    assert_eq!(asked("SMTPUTF8"), Ok("SMTPUTF8@here".into()));
    for text in ["a b", "a SMTPUTF8 SMTPUTF8", "a SMTPUTF8=1", " SMTPUTF8"] {
        assert_eq!(asked(text).unwrap_err().code(), 501, "{text}");
    }
}

#[test]
fn the_parameter_of_smtputf8_is_read() {
    let parameters = mail_parameters("MAIL FROM:<jos\u{e9}@b> BODY=8BITMIME smtputf8 SIZE=5");
    assert!(parameters.utf8 && parameters.body == Body::EightBitMime);
    assert_eq!(mail_parameters("MAIL FROM:<> BODY=BinaryMime").body, Body::BinaryMime);
    let line = "RCPT TO:<a@\u{e9}.example> ORCPT=utf-8;a@\u{e9}.example";
    assert_eq!(rcpt_parameters(line).original.unwrap().address(), "a@\u{e9}.example");
}

#[test]
fn bad_and_repeated_parameters_are_refused() {
    for line in [
        "MAIL FROM:<a@b> SMTPUTF8=1",
        "MAIL FROM:<a@b> SMTPUTF8=",
        "MAIL FROM:<a@b> RET",
        "MAIL FROM:<a@b> RET=SOME",
        "MAIL FROM:<a@b> ENVID",
        "MAIL FROM:<a@b> ENVID=",
        "MAIL FROM:<a@b> ENVID=a+0Ab",
        "MAIL FROM:<a@b> ENVID=a+00b",
        "MAIL FROM:<a@b> ENVID=a=b",
        "MAIL FROM:<a@b> BODY=BINARY",
        "RCPT TO:<a@b> NOTIFY",
        "RCPT TO:<a@b> NOTIFY=NEVER,DELAY",
        "RCPT TO:<a@b> ORCPT=a@b",
        "RCPT TO:<a@b> ORCPT=rfc822;a+0D+0Ab",
        "MAIL FROM:<a@b> SMTPUTF8 SMTPUTF8",
        "MAIL FROM:<a@b> RET=FULL ret=FULL",
        "MAIL FROM:<a@b> ENVID=a ENVID=b",
        "MAIL FROM:<a@b> SIZE=1 SIZE=1",
        "MAIL FROM:<a@b> BODY=7BIT BODY=8BITMIME",
        "RCPT TO:<a@b> NOTIFY=NEVER NOTIFY=DELAY",
        "RCPT TO:<a@b> ORCPT=rfc822;a ORCPT=rfc822;a",
    ] {
        assert_eq!(parse(line.as_bytes(), ALL).unwrap_err().code(), 501, "{line}");
    }
}
