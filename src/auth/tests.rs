//! Known answers of mkpasswd(1) (libxcrypt), crypt(3) of glibc and doveadm-pw(1).

use std::io::Write;
use std::path::Path;

use nix::unistd::{Gid, Uid};

use super::hash::Hash;
use super::{Identity, Scope, Verdict, authenticate, find_account, is_name, served, users_file};
use crate::config::{Config, Source};
use crate::sys::Account;

const PASSWORD: &[u8] = b"Watts?Watt?";

const YESCRYPT: &str = "$y$j9T$aMw3QAzuGkoMr5Fqd4N1y.$QTN2celPyCj6c2gZ8F16ERAVwZKT0MuvQXzq5Su8989";
const SHA512: &str = "$6$bB5dXtQhl.7hDLM1$ou7fvYT5T9gBJmjGAPkwZNiShVsERRpCqmvvrJpN1osMOHgxwx7JxMNDl\
                      p1jKAeluW2Thj.7DETn5MI/1R2Yd/";
const BCRYPT: &str = "$2b$05$XDDKZqaAGeZhcXIZ9OSUZOHsGK2xOjWB6y14319zZz7Hz3LEnZlD.";
const ARGON2: &str = "$argon2id$v=19$m=65536,t=3,p=1$1FSlA/e5kfVsmLw74JMaAg$MGb5J5UuXx0cvi5SM11qzC8\
                      lvLrgK6QZpZGA/gJZJQc";

#[test]
fn hashes_of_other_tools_know_their_password_and_no_other() {
    for field in [
        YESCRYPT.to_owned(),
        SHA512.to_owned(),
        format!("{{SHA512-CRYPT}}{SHA512}"),
        "{CRYPT}$6$rounds=20000$ByBl72HA.9SupILl$ubT4dFAY6ElTyh0BKlKaBBbUSlg5R7N3lpNSXJMRVvvQ4EsNLa\
         q0QKkayk3mDOMhQcqeG6j42HOiZRuGm2I8u/"
            .to_owned(),
        "$6$SoBDAumgTYAsiHT9$.ycZYJnflxuwHP4cWqG2CMcU0lvyu5SvUEZD6azNPTlGITtFMIlbmPkn.8NcxW/TxqrS5j\
         0FgoyyV5/UPz5151"
            .to_owned(),
        "$5$5T7oa40Iw50vihlk$hCRFYZESzc9sUXvC5wIWeBPxQ68yD8fiCw6KR0QKLm9".to_owned(),
        BCRYPT.to_owned(),
        "$2a$05$pGzILhwNk0YSVJfzdnj2SOMkj0prNlJG7JLBKLW1CbFEDHsOQwuz2".to_owned(),
        "{BLF-CRYPT}$2y$05$9w.ubpsSYN8nvK.eihWRQe581DJCs0PRJa2gIQBLA8CVTYk3raKdO".to_owned(),
        format!("{{ARGON2ID}}{ARGON2}"),
        "{PLAIN}Watts?Watt?".to_owned(),
    ] {
        let hash = Hash::parse(&field).unwrap();
        assert!(hash.verify(PASSWORD), "{field}");
        assert!(!hash.verify(b"Watts?Watt"), "{field}");
        assert!(!hash.verify(b""), "{field}");
    }
    let spaces = "$y$j9T$XQnFlAaH1LxCmQWxYk0V1.$ML19rqJQmPThEmUsmMgktFLTQ44D7DJVABSTtOdY6C9";
    assert!(Hash::parse(spaces).unwrap().verify("naïve pass word".as_bytes()));
}

#[test]
fn verifying_against_the_stand_in_does_the_whole_work() {
    use yescrypt::password_hash::Error;
    use yescrypt::{PasswordVerifier, Yescrypt};

    let Hash::Yescrypt(text) = Hash::stand_in() else {
        panic!("not yescrypt");
    };
    assert!(Hash::parse(&text).is_ok());
    let verified = Yescrypt::default().verify_password(PASSWORD, text.as_str());
    assert_eq!(verified, Err(Error::PasswordInvalid), "and not an early error");
}

#[test]
fn an_empty_password_is_never_right() {
    // mkpasswd -m bcrypt ''
    let empty =
        Hash::parse("$2b$05$bpSqtyGV2FT54VXnLUURVer47NB.rewD3/aO.ILAfgSkzGx2SnaFe").unwrap();
    assert!(!empty.verify(b""));
    assert!(!Hash::parse("{PLAIN}").unwrap().verify(b""));
    assert!(!Hash::parse("").unwrap().verify(b""));
}

#[test]
fn a_locked_hash_refuses_every_password() {
    for field in
        ["", "!", "*", "!!", &format!("!{SHA512}"), "{CRYPT}", "{SHA512-CRYPT}*", "{PLAIN}"]
    {
        let hash = Hash::parse(field).unwrap();
        assert!(matches!(hash, Hash::Locked), "{field}");
        assert!(!hash.verify(PASSWORD));
        assert!(!hash.verify(field.as_bytes()));
    }
}

#[test]
fn a_hash_that_would_take_minutes_is_an_error() {
    for field in [
        "$6$rounds=999999999$salt$ubT4dFAY6ElTyh0BKlKaBBbUSlg5R7N3lpNSXJMRVvvQ4EsNLaq0QKkayk3mDOMhQ\
         cqeG6j42HOiZRuGm2I8u/",
        "$2b$31$XDDKZqaAGeZhcXIZ9OSUZOHsGK2xOjWB6y14319zZz7Hz3LEnZlD.",
        "$argon2id$v=19$m=1048576,t=4,p=1$xaJuOlJQnVZBh5mKA3sAZg$ghwc7JyBPTJrPlOUV6AleXwBgqhTBInfm/O\
         BQA+BA2A",
        "$argon2id$v=19$m=65536,t=99999,p=1$1FSlA/e5kfVsmLw74JMaAg$MGb5J5UuXx0cvi5SM11qzC8lvLrgK6QZp\
         ZGA/gJZJQc",
        "$y$jMT$aMw3QAzuGkoMr5Fqd4N1y.$QTN2celPyCj6c2gZ8F16ERAVwZKT0MuvQXzq5Su8989",
    ] {
        let error = Hash::parse(field).unwrap_err();
        assert!(error.contains("costs too much"), "{field}: {error}");
    }
}

#[test]
fn a_damaged_hash_is_an_error_that_does_not_tell_the_hash() {
    for field in [
        "$y$j9T$aMw3QAzuGkoMr5Fqd4N1y.$",
        "$y$j9T$aMw3QAzuGkoMr5Fqd4N1y.",
        "$y$j9T$aMw3QAzuGkoMr5Fqd4N1y.$QTN2celPyCj6c2gZ",
        "$y$$$",
        "$y$jzzzzzzzzzzzz$aMw3QAzuGkoMr5Fqd4N1y.$QTN2celPyCj6c2gZ8F16ERAVwZKT0MuvQXzq5Su8989",
        "$6$salt",
        "$6$salt$",
        "$6$rounds=1$salt$x",
        "$2b$05$XDDKZqaAGeZhcXIZ9OSUZ",
        "$2b$05",
        "$argon2id$v=19$m=65536,t=3,p=1",
        "$argon2id$",
        "$argon2i$v=19$m=65536,t=3,p=1$1FSlA/e5kfVsmLw74JMaAg$MGb5J5UuXx0cvi5SM11qzC8lvLrgK6Q",
        "$1$abcdefgh$irWbblnpmw.5z7wgBnprh0",
        "plainsecret",
        "{MD5}plainsecret",
        "{BLF-CRYPT}$6$bB5dXtQhl.7hDLM1$plainsecret",
        "$6$salt$naïve",
    ] {
        let error = Hash::parse(field).unwrap_err();
        assert!(!error.contains("secret") && !error.contains("QTN2"), "{error}");
    }
}

fn user(uid: u32) -> Identity {
    Identity { uid: Uid::from_raw(uid), gid: Gid::from_raw(uid) }
}

fn lines(text: &str, own: Identity) -> Vec<Result<users_file::Entry, users_file::Error>> {
    users_file::parse(Path::new("users"), text.as_bytes(), own)
}

#[test]
fn a_line_has_the_fields_of_a_passwd_file_and_later_ones_may_be_missing() {
    let text =
        "# comment\n\nhunt:{PLAIN}x:1001:1002:Hunt:/home/hunt:/bin/sh:extra=1\nshort:{PLAIN}y\r\n";
    let parsed: Vec<_> = lines(text, user(1000)).into_iter().map(Result::unwrap).collect();
    assert_eq!(parsed.len(), 2);
    let hunt = &parsed[0].account;
    assert_eq!((hunt.name.as_str(), hunt.uid.as_raw(), hunt.gid.as_raw()), ("hunt", 1001, 1002));
    assert_eq!(
        (hunt.home.as_path(), hunt.shell.as_path()),
        (Path::new("/home/hunt"), Path::new("/bin/sh"))
    );
    let short = &parsed[1];
    assert_eq!((short.account.uid.as_raw(), short.account.gid.as_raw()), (1000, 1000));
    assert_eq!(short.account.home, Path::new("/nonexistent"));
    assert!(short.hash.verify(b"y"));
}

#[test]
fn a_damaged_line_concerns_only_its_user() {
    let text = "a:{PLAIN}x\nb:{NONSENSE}x\nc:{PLAIN}x:many\n/d:{PLAIN}x\ne:{PLAIN}x\nb:{PLAIN}x\n";
    let errors: Vec<String> = lines(text, user(1000))
        .into_iter()
        .filter_map(Result::err)
        .map(|error| error.to_string())
        .collect();
    assert_eq!(errors.len(), 3);
    assert!(errors[0].starts_with("users:2: password scheme {NONSENSE}"), "{errors:?}");
    assert_eq!(errors[1], "users:3: \"many\" is no uid");
    let find = |name| users_file::find(lines(text, user(1000)), name);
    assert!(find("a").unwrap().is_ok());
    assert!(find("b").unwrap().is_err(), "the first line of a name counts");
    assert!(find("e").unwrap().is_ok());
    assert!(find("nobody").is_none());
    let latin = users_file::parse(Path::new("users"), b"a:{PLAIN}\xe4\nb:{PLAIN}x\n", user(1000));
    assert!(latin[0].is_err() && latin[1].is_ok());
}

#[test]
fn as_root_a_line_without_ids_is_an_error() {
    let parsed = lines(
        "a:{PLAIN}x\nb:{PLAIN}x:1000\nc:{PLAIN}x:1000:1000\nd:{PLAIN}x:4294967295:1\n",
        user(0),
    );
    assert!(parsed[0].is_err() && parsed[1].is_err() && parsed[2].is_ok() && parsed[3].is_err());
}

#[test]
fn with_root_low_uids_are_not_served_and_without_it_only_our_own_is() {
    let config = Config::default();
    let account = |uid| Account {
        name: "a".into(),
        uid: Uid::from_raw(uid),
        gid: Gid::from_raw(7),
        home: "/".into(),
        shell: "/".into(),
    };
    assert!(served(&config, account(0), user(0)).is_none());
    assert!(served(&config, account(999), user(0)).is_none());
    assert_eq!(served(&config, account(1000), user(0)).unwrap().gid.as_raw(), 7);
    assert!(served(&config, account(1000), user(1001)).is_none());
    assert_eq!(served(&config, account(1001), user(1001)).unwrap().gid.as_raw(), 1001);
    let mut everyone = Config::default();
    everyone.users.min_uid = 0;
    assert!(served(&everyone, account(0), user(0)).is_none(), "uid 0 never");
}

#[test]
fn a_name_that_could_lead_elsewhere_is_no_name() {
    for name in ["hunt", "a.b", "a-b", "下川", "user@example.org"] {
        assert!(is_name(name), "{name}");
    }
    let long = "x".repeat(65);
    for name in ["", ".", "..", "../etc", "a/b", "-a", "a\0", "a\n", "a\u{85}", "a:b", &long] {
        assert!(!is_name(name), "{name:?}");
    }
}

fn file_config(text: &str) -> (Config, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(text.as_bytes()).unwrap();
    let mut config = Config::default();
    config.users.source = Source::File;
    config.users.min_uid = 1;
    config.users.file = file.path().to_owned();
    (config, file)
}

#[test]
fn a_name_and_its_password_are_accepted_and_nothing_else_is() {
    let own = Identity::own();
    let uid = if own.uid.is_root() { 1234 } else { own.uid.as_raw() };
    let (config, _file) = file_config(&format!(
        "hunt:{{PLAIN}}Watts?Watt?:{uid}:{uid}::/home/hunt\nsha:{SHA512}:{uid}:{uid}\nlocked:!:{uid}:{uid}\n\
         root:{{PLAIN}}Watts?Watt?:0:0\nbroken:{{X}}y:{uid}:{uid}\n"
    ));
    let verdict = |name: &str, password: &[u8]| authenticate(&config, Scope::Pop, name, password);
    match verdict("hunt", PASSWORD) {
        Verdict::Accepted(account) => assert_eq!(account.name, "hunt"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(verdict("sha", PASSWORD), Verdict::Accepted(_)));
    for (name, password) in [
        ("hunt", &b"watts?watt?"[..]),
        ("hunt", b""),
        ("HUNT", PASSWORD),
        ("nobody", PASSWORD),
        ("", PASSWORD),
        ("locked", PASSWORD),
        ("locked", b"!"),
        ("root", PASSWORD),
    ] {
        assert!(matches!(verdict(name, password), Verdict::Refused), "{name}");
    }
    assert!(matches!(verdict("broken", b"y"), Verdict::Unavailable(_)));
    assert!(find_account(&config, "hunt").unwrap().is_some());
    assert!(find_account(&config, "root").unwrap().is_none());
    assert!(find_account(&config, "nobody").unwrap().is_none());
    assert!(find_account(&config, "broken").is_err(), "a damaged line is not an unknown user");
}

#[test]
fn a_users_file_that_is_missing_or_no_file_is_unavailable() {
    let (mut config, file) = file_config("");
    config.users.file = file.path().with_extension("missing");
    assert!(matches!(authenticate(&config, Scope::Pop, "a", b"b"), Verdict::Unavailable(_)));
    config.users.file = "/dev/null".into();
    match authenticate(&config, Scope::Pop, "a", b"b") {
        Verdict::Unavailable(why) => assert!(why.contains("not a regular file"), "{why}"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn new_fields_are_right_for_their_password_only() {
    use super::hash::Scheme;
    use crate::sasl::scram::Hash::{Sha1, Sha256};
    for scheme in [Scheme::Yescrypt, Scheme::Scram(Sha256), Scheme::Scram(Sha1), Scheme::Ssha256] {
        let field = scheme.field(PASSWORD).unwrap();
        assert_ne!(field, scheme.field(PASSWORD).unwrap(), "salted");
        assert!(!field.contains(':'));
        let hash = Hash::parse(&field).unwrap();
        assert!(hash.verify(PASSWORD) && !hash.verify(b"Watts?Watt") && !hash.verify(b""));
    }
}

#[test]
fn scram_keys_are_read_as_dovecot_writes_them() {
    // doveadm pw -s SCRAM-SHA-256 -p pencil -r 4096, with the salt of RFC 7677.
    let field = "{SCRAM-SHA-256}4096,W22ZaJ0SNY7soEsUEjb6gQ==,\
                 WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=,\
                 wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
    assert!(Hash::parse(field).unwrap().verify(b"pencil"));
    assert!(!Hash::parse(field).unwrap().verify(b"Pencil"));
    for field in ["{SCRAM-SHA-256}4096,x", "{SSHA256}eA==", "{SSHA256}!"] {
        assert!(Hash::parse(field).is_err(), "{field}");
    }
}

#[test]
fn an_app_password_is_right_in_its_scope_and_not_for_a_locked_account() {
    let own = Identity::own();
    let uid = if own.uid.is_root() { 1234 } else { own.uid.as_raw() };
    let (mut config, _file) =
        file_config(&format!("hunt:{{PLAIN}}own:{uid}:{uid}\nlocked:!:{uid}:{uid}\n"));
    let mut apps = tempfile::NamedTempFile::new().unwrap();
    apps.write_all(b"hunt:phone:smtp::{PLAIN}app\nlocked:phone:smtp::{PLAIN}app\n").unwrap();
    config.users.app_passwords = apps.path().to_owned();
    let is_right = |scope, name: &str, password: &[u8]| {
        matches!(authenticate(&config, scope, name, password), Verdict::Accepted(_))
    };
    assert!(is_right(Scope::Smtp, "hunt", b"app") && is_right(Scope::Smtp, "hunt", b"own"));
    assert!(!is_right(Scope::Pop, "hunt", b"app") && is_right(Scope::Pop, "hunt", b"own"));
    assert!(!is_right(Scope::Smtp, "locked", b"app"));
    assert!(!is_right(Scope::Smtp, "nobody", b"app"));
}

/// What takes time are the hashes, so that they are counted: a clock would say the same less surely.
#[test]
fn an_unknown_name_a_wrong_password_and_a_locked_account_cost_the_same() {
    let own = Identity::own();
    let uid = if own.uid.is_root() { 1234 } else { own.uid.as_raw() };
    let cost = |config: &Config, name: &str| {
        super::hash::COMPUTED.take();
        assert!(matches!(authenticate(config, Scope::Smtp, name, b"wrong"), Verdict::Refused));
        super::hash::COMPUTED.take()
    };
    let (mut config, _file) = file_config(&format!(
        "hunt:{YESCRYPT}:{uid}:{uid}\nbob:{YESCRYPT}:{uid}:{uid}\nlocked:!{YESCRYPT}:{uid}:{uid}\n\
         empty::{uid}:{uid}\nroot:{YESCRYPT}:0:0\n"
    ));
    for name in ["hunt", "bob", "nobody", "", "../x", "locked", "empty", "root"] {
        assert_eq!(cost(&config, name), ["Yescrypt"], "{name:?}");
    }
    // App passwords are looked at besides: they are drawn by lot, and cost next to nothing.
    let mut apps = tempfile::NamedTempFile::new().unwrap();
    let app = super::hash::Scheme::Ssha256.field(b"app").unwrap();
    writeln!(apps, "hunt:phone:smtp::{app}\nhunt:old:pop:2001-01-01:{app}").unwrap();
    config.users.app_passwords = apps.path().to_owned();
    assert_eq!(cost(&config, "hunt"), ["Ssha256", "Ssha256", "Yescrypt"]);
    // Of several kinds an unknown name has one, and always the same.
    let (config, _file) =
        file_config(&format!("hunt:{YESCRYPT}:{uid}:{uid}\nbob:{SHA512}:{uid}:{uid}\n"));
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let costs = names.map(|name| cost(&config, name));
    assert_eq!(costs, names.map(|name| cost(&config, name)));
    assert!(costs.iter().all(|cost| cost.len() == 1), "{costs:?}");
    assert!(costs.iter().any(|cost| *cost == ["Yescrypt"]), "{costs:?}");
    assert!(costs.iter().any(|cost| *cost == ["ShaCrypt"]), "{costs:?}");
    // And where nobody has a password, the one that stands in.
    let (config, _file) = file_config(&format!("locked:!:{uid}:{uid}\n"));
    assert_eq!([cost(&config, "locked"), cost(&config, "nobody")], [["Yescrypt"], ["Yescrypt"]]);
}
