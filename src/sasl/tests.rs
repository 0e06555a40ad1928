//! The RFCs' own exchanges, and what hostile clients say.

use std::num::NonZeroU32;

use super::scram::{Binding, Hash, Keys};
use super::{Answer, Exchange, Facts, Failure, Mechanism, Proof, Question, Secret, Step};
use base64ct::{Base64, Encoding};

fn facts() -> Facts {
    Facts {
        bindings: vec![Binding { name: "tls-exporter", data: b"this connection".to_vec() }],
        identity: Some("hunt".into()),
        scram: Hash::ALL.into(),
    }
}

fn challenge(text: &str) -> Step {
    Step::Challenge(text.into())
}

fn password(user: &str, password: &str) -> Step {
    Step::Ask(Question::Password { user: user.into(), password: Secret(password.into()) })
}

fn keys(hash: Hash, salt: &str, password: &str) -> Keys {
    let salt = Base64::decode_vec(salt).unwrap();
    Keys::derive(hash, NonZeroU32::new(4096).unwrap(), &salt, password.as_bytes())
}

/// An exchange of the user `user` up to the server's first message.
fn challenged(
    mechanism: Mechanism,
    facts: Facts,
    first: &str,
    keys: &Keys,
    ours: &str,
) -> (Exchange, String) {
    let mut exchange = Exchange::new(mechanism, facts);
    let step = exchange.begin(Some(first.as_bytes()));
    let asked = Step::Ask(Question::Salt { user: "user".into(), hash: keys.hash });
    assert_eq!(step, asked, "{first}");
    match exchange.answer(Answer::Salt(keys.salt(ours.into()))) {
        Step::Challenge(text) => (exchange, String::from_utf8(text).unwrap()),
        other => panic!("{other:?}"),
    }
}

fn proof_of(step: Step) -> Proof {
    match step {
        Step::Ask(Question::Proof(proof)) => proof,
        other => panic!("{other:?}"),
    }
}

#[test]
fn plain_takes_one_message() {
    // The examples of RFC 4616 section 4.
    let mut exchange = Exchange::new(Mechanism::Plain, facts());
    assert_eq!(
        exchange.begin(Some(b"\0tim\0tanstaaftanstaaf")),
        password("tim", "tanstaaftanstaaf")
    );
    assert_eq!(exchange.answer(Answer::Accepted), Step::Accepted("tim".into()));
    let mut exchange = Exchange::new(Mechanism::Plain, facts());
    assert_eq!(exchange.begin(None), challenge(""));
    assert_eq!(exchange.respond(b"tim\0tim\0x"), password("tim", "x"));
    assert_eq!(exchange.answer(Answer::Refused), Step::Failed(Failure::Refused));
    let long = format!("\0{}\0x", "u".repeat(256));
    let longer = format!("\0tim\0{}", "x".repeat(257));
    for message in [
        "",
        "\0",
        "\0\0",
        "tim",
        "\0tim",
        "\0tim\0",
        "\0\0x",
        "\0tim\0x\0",
        "\0tim\0x\n",
        "\0t\u{7}m\0x",
        &long,
        &longer,
    ] {
        let step = Exchange::new(Mechanism::Plain, facts()).begin(Some(message.as_bytes()));
        assert_eq!(step, Step::Failed(Failure::Malformed), "{message:?}");
    }
    let nobodys = format!("\0{}\0x", "u".repeat(255));
    for message in ["Ursel\0Kurt\0xipj3plmq", &nobodys] {
        let step = Exchange::new(Mechanism::Plain, facts()).begin(Some(message.as_bytes()));
        assert_eq!(step, Step::Failed(Failure::Refused), "{message:?}");
    }
    let latin = Exchange::new(Mechanism::Plain, facts()).begin(Some(b"\0\xe4\0x"));
    assert_eq!(latin, Step::Failed(Failure::Malformed));
}

#[test]
fn login_asks_twice() {
    let mut exchange = Exchange::new(Mechanism::Login, facts());
    assert_eq!(exchange.begin(None), challenge("Username:"));
    assert_eq!(exchange.respond(b"tim"), challenge("Password:"));
    assert_eq!(exchange.respond(b"x"), password("tim", "x"));
    assert_eq!(exchange.answer(Answer::Unavailable), Step::Failed(Failure::Unavailable));
    let mut exchange = Exchange::new(Mechanism::Login, facts());
    assert_eq!(exchange.begin(Some(b"tim")), challenge("Password:"));
    assert_eq!(exchange.respond(b""), Step::Failed(Failure::Malformed));
    assert_eq!(exchange.respond(b"x"), Step::Failed(Failure::Malformed), "it is over");
}

#[test]
fn external_takes_what_is_known_and_no_other_name() {
    for (response, is_own) in [("", true), ("hunt", true), ("root", false), ("hunt\0", false)] {
        let mut exchange = Exchange::new(Mechanism::External, facts());
        assert_eq!(exchange.begin(None), challenge(""));
        assert_eq!(exchange.respond(response.as_bytes()), Step::Ask(Question::Proven(is_own)));
        let (answer, wanted) = if is_own {
            (Answer::Accepted, Step::Accepted("hunt".into()))
        } else {
            (Answer::Refused, Step::Failed(Failure::Refused))
        };
        assert_eq!(exchange.answer(answer), wanted);
    }
    assert!(!Facts::default().allow(Mechanism::External));
    let step = Exchange::new(Mechanism::External, Facts::default()).begin(Some(b"hunt"));
    assert_eq!(step, Step::Failed(Failure::Refused));
}

#[test]
fn scram_is_as_in_the_examples_of_the_rfcs() {
    // RFC 5802 section 5, RFC 7677 section 3.
    for (mechanism, hash, salt, theirs, ours, proof, signature) in [
        (
            Mechanism::ScramSha1,
            Hash::Sha1,
            "QSXCR+Q6sek8bf92",
            "fyko+d2lbbFgONRv9qkxdawL",
            "3rfcNHYJY1ZVvWVs7j",
            "v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
            "rmF9pqV8S7suAoZWja4dJRkFsKQ=",
        ),
        (
            Mechanism::ScramSha256,
            Hash::Sha256,
            "W22ZaJ0SNY7soEsUEjb6gQ==",
            "rOprNGfwEbeRWgbNEkqO",
            "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0",
            "dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
            "6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=",
        ),
    ] {
        let keys = keys(hash, salt, "pencil");
        assert!(keys.verify(b"pencil") && !keys.verify(b"Pencil"));
        assert_eq!(Keys::parse(hash, &keys.to_string()), Ok(keys.clone()));
        let first = format!("n,,n=user,r={theirs}");
        let (mut exchange, said) = challenged(mechanism, facts(), &first, &keys, ours);
        assert_eq!(said, format!("r={theirs}{ours},s={salt},i=4096"));
        let mut other = exchange.clone();
        let last = format!("c=biws,r={theirs}{ours},p={proof}");
        let shown = proof_of(exchange.respond(last.as_bytes()));
        let signed = keys.check(&shown, ours).unwrap();
        assert_eq!(keys.check(&shown, "another"), None, "it is for this exchange");
        assert_eq!(keys.check(&shown, ""), None);
        assert_eq!(
            exchange.answer(Answer::Signature(signed)),
            challenge(&format!("v={signature}"))
        );
        assert_eq!(exchange.respond(b""), Step::Accepted("user".into()));

        // The same proof for another nonce, or another binding, or one that is cut short.
        for last in [
            format!("c=biws,r={theirs}{ours}x,p={proof}"),
            format!("c=eSws,r={theirs}{ours},p={proof}"),
            format!("c=biws,r={theirs}{ours},p="),
            format!("c=biws,r={theirs}{ours},p=dHzb"),
        ] {
            let mut exchange = other.clone();
            match exchange.respond(last.as_bytes()) {
                Step::Ask(Question::Proof(proof)) => assert_eq!(keys.check(&proof, ours), None),
                step => {
                    assert_eq!(step, Step::Ask(Question::Proven(false)));
                    // Whatever is answered.
                    let signed = Answer::Signature(vec![0; 32]);
                    assert_eq!(exchange.answer(signed), Step::Failed(Failure::Refused));
                }
            }
            let mut exchange = other.clone();
            exchange.respond(last.as_bytes());
            assert_eq!(exchange.answer(Answer::Accepted), Step::Failed(Failure::Refused));
        }
        assert_eq!(other.respond(b"c=biws,r=x"), Step::Failed(Failure::Malformed));
    }
}

/// What a client with the password says last.
fn last(keys: &Keys, password: &str, first_bare: &str, challenge: &str, binding: &[u8]) -> String {
    use ring::{digest, hmac, pbkdf2};
    let mut salted = [0; 32];
    let iterations = NonZeroU32::new(keys.iterations).unwrap();
    pbkdf2::derive(
        pbkdf2::PBKDF2_HMAC_SHA256,
        iterations,
        &keys.salt,
        password.as_bytes(),
        &mut salted,
    );
    let hmac = |key: &[u8], data: &[u8]| {
        hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), data).as_ref().to_vec()
    };
    let client = hmac(&salted, b"Client Key");
    let stored = digest::digest(&digest::SHA256, &client);
    let nonce = challenge.split(',').next().unwrap();
    let bare = format!("c={},{nonce}", Base64::encode_string(binding));
    let signature = hmac(stored.as_ref(), format!("{first_bare},{challenge},{bare}").as_bytes());
    let proof: Vec<u8> = client.iter().zip(signature).map(|(a, b)| a ^ b).collect();
    format!("{bare},p={}", Base64::encode_string(&proof))
}

#[test]
fn plus_is_bound_to_the_connection() {
    let keys = keys(Hash::Sha256, "W22ZaJ0SNY7soEsUEjb6gQ==", "pencil");
    let mechanism = Mechanism::ScramSha256Plus;
    for (data, is_ours) in [("this connection", true), ("another one", false)] {
        let first = "p=tls-exporter,,n=user,r=abc";
        let (mut exchange, said) = challenged(mechanism, facts(), first, &keys, "def");
        let binding = format!("p=tls-exporter,,{data}");
        let last = last(&keys, "pencil", "n=user,r=abc", &said, binding.as_bytes());
        match exchange.respond(last.as_bytes()) {
            Step::Ask(Question::Proof(proof)) => {
                assert!(is_ours && keys.check(&proof, "def").is_some());
            }
            step => assert!(!is_ours && step == Step::Ask(Question::Proven(false))),
        }
    }
    // A binding that is not known, none at all, and somebody in between who has hidden PLUS.
    for (mechanism, first) in [
        (mechanism, "p=tls-unique,,n=user,r=abc"),
        (mechanism, "n,,n=user,r=abc"),
        (Mechanism::ScramSha256, "y,,n=user,r=abc"),
        (Mechanism::ScramSha256, "p=tls-exporter,,n=user,r=abc"),
    ] {
        let step = Exchange::new(mechanism, facts()).begin(Some(first.as_bytes()));
        assert_eq!(step, Step::Failed(Failure::Malformed), "{first}");
    }
    let facts = Facts { bindings: Vec::new(), ..facts() };
    assert!(!facts.allow(mechanism));
    challenged(Mechanism::ScramSha256, facts, "y,,n=user,r=abc", &keys, "def");
}

#[test]
fn the_first_message_of_scram_has_one_form() {
    let long = format!("n,,n=user,r={}", "x".repeat(257));
    for first in [
        "",
        "n",
        "n,",
        "n,,",
        "n,,n=user",
        "n,,n=user,r=",
        "n,,m=x,n=user,r=abc",
        "n,,r=abc,n=user",
        "n,,n=,r=abc",
        "n,,n=us=er,r=abc",
        "n,,n=user=,r=abc",
        "n,,n=user,r=\u{e9}",
        "x,,n=user,r=abc",
        "n,user,n=user,r=abc",
        "n,,n=us\ner,r=abc",
        &long,
    ] {
        let step = Exchange::new(Mechanism::ScramSha256, facts()).begin(Some(first.as_bytes()));
        assert_eq!(step, Step::Failed(Failure::Malformed), "{first}");
    }
    let nobodys = format!("n,,n={},r=abc", "u".repeat(65));
    for first in ["n,a=other,n=user,r=abc", &nobodys] {
        let step = Exchange::new(Mechanism::ScramSha256, facts()).begin(Some(first.as_bytes()));
        assert_eq!(step, Step::Failed(Failure::Refused), "{first}");
    }
    let first = b"n,a=a=2Cb=3D,n=a=2Cb=3D,r=abc,x=more";
    let step = Exchange::new(Mechanism::ScramSha256, facts()).begin(Some(first));
    let asked = Question::Salt { user: "a,b=".into(), hash: Hash::Sha256 };
    assert_eq!(step, Step::Ask(asked));
}

#[test]
fn an_unknown_name_has_keys_that_stay_the_same_and_that_nobody_knows() {
    let known = keys(Hash::Sha256, "W22ZaJ0SNY7soEsUEjb6gQ==", "pencil");
    let stand_in = |secret: &[u8], name| Keys::stand_in(secret, name, Hash::Sha256, Some(&known));
    let keys = stand_in(b"secret", "nobody");
    assert_eq!(keys, stand_in(b"secret", "nobody"));
    assert_ne!(keys.salt, stand_in(b"secret", "somebody").salt);
    assert_ne!(keys.salt, stand_in(b"other", "nobody").salt);
    assert_eq!((keys.salt.len(), keys.iterations), (known.salt.len(), known.iterations));
    assert!(Keys::parse(Hash::Sha256, &keys.to_string()).is_ok());
    let sha1 = Keys::stand_in(b"secret", "nobody", Hash::Sha1, None);
    assert!(Keys::parse(Hash::Sha1, &sha1.to_string()).is_ok());
}

#[test]
fn damaged_keys_are_an_error_that_does_not_tell_them() {
    let good = keys(Hash::Sha256, "W22ZaJ0SNY7soEsUEjb6gQ==", "pencil").to_string();
    let cut = &good[..good.len() - 4];
    for text in [
        "",
        "4096",
        &good[1..],
        cut,
        &format!("{good},"),
        &good.replace("4096", "+4096"),
        &good.replace("4096", "99999999"),
        &good.replace("W22Z", "W2"),
        &good.replace('=', ""),
    ] {
        let error = Keys::parse(Hash::Sha256, text).unwrap_err();
        assert!(!error.contains("W22Z"), "{error}");
    }
    assert!(Keys::parse(Hash::Sha1, &good).is_err());
}

/// No bytes, in no order, make a mechanism panic or accept anybody: nobody says yes here.
#[test]
fn no_bytes_lead_to_a_panic_or_to_success() {
    let mut seed = 1_u64;
    let mut draw = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % below
    };
    let words: [&[u8]; 16] = [
        b"n,,",
        b"n=",
        b"r=",
        b"c=",
        b"p=",
        b",",
        b"=2C",
        b"biws",
        b"a",
        b"\0",
        b"\xff",
        b"y,,",
        b"p=tls-exporter,,",
        b"user",
        b"==",
        b"\xc3\xa9",
    ];
    let keys = keys(Hash::Sha256, "W22ZaJ0SNY7soEsUEjb6gQ==", "pencil");
    for _ in 0..20_000 {
        let mechanism = Mechanism::ALL[1 + draw(5)];
        let mut exchange = Exchange::new(mechanism, facts());
        let mut step = exchange.begin(None);
        for _ in 0..6 {
            step = match step {
                Step::Challenge(_) => {
                    let count = draw(12);
                    let response: Vec<u8> =
                        (0..count).flat_map(|_| words[draw(words.len())].to_vec()).collect();
                    exchange.respond(&response)
                }
                Step::Ask(Question::Salt { .. }) => {
                    exchange.answer(Answer::Salt(keys.salt("ours".into())))
                }
                Step::Ask(Question::Proven(is_right)) => {
                    assert!(!is_right);
                    exchange.answer(Answer::Refused)
                }
                Step::Ask(Question::Proof(proof)) => {
                    assert_eq!(keys.check(&proof, "ours"), None);
                    exchange.answer(Answer::Refused)
                }
                Step::Ask(Question::Password { .. }) => exchange.answer(Answer::Refused),
                Step::Accepted(user) => panic!("{user} by {mechanism:?}"),
                Step::Failed(_) => break,
            };
        }
    }
    let long = Exchange::new(Mechanism::Plain, facts()).begin(Some(&[b'x'; 1501]));
    assert_eq!(long, Step::Failed(Failure::Malformed));
}
