use std::path::Path;

use super::*;

fn error(text: &str) -> String {
    parse(Path::new("hikyaku.toml"), text).unwrap_err().to_string()
}

#[test]
fn an_empty_file_is_the_default() {
    assert_eq!(parse(Path::new("x"), "").unwrap(), Config::default());
}

#[test]
fn the_default_written_out_reads_back_the_same() {
    let text = toml::to_string(&Config::default()).unwrap();
    assert_eq!(parse(Path::new("x"), &text).unwrap(), Config::default());
}

#[test]
fn an_unknown_key_names_its_place_and_the_nearest_known_one() {
    assert_eq!(
        error("hostname = \"a.b\"\n\n[smtp]\n  max_recipient = 5\n"),
        "hikyaku.toml:4:3: unknown key \"max_recipient\" in [smtp]; did you mean \"max_recipients\"?"
    );
    assert_eq!(error("[smpt]\n"), "hikyaku.toml:1:2: unknown key \"smpt\"; did you mean \"smtp\"?");
    assert!(error("[dns]\nzzz = 1\n").ends_with("unknown key \"zzz\" in [dns]; known are servers"));
}

#[test]
fn a_wrong_type_names_its_place() {
    let text = error("[smtp]\nmax_recipients = \"many\"\n");
    assert!(text.starts_with("hikyaku.toml:2:18: "), "{text}");
    assert!(error("log = \"nowhere\"").starts_with("hikyaku.toml:1:7: "));
    assert!(error("[smtp").starts_with("hikyaku.toml:1:"));
}

#[test]
fn an_impossible_value_names_its_place_and_what_is_wanted() {
    assert!(error("[queue]\nretry = [\"5x\"]").starts_with("hikyaku.toml:2:"));
    assert_eq!(
        error("[queue]\nretry = []"),
        "hikyaku.toml:2:9: one wait at least, none of them 0, is wanted"
    );
    assert!(error("[paths]\nvirtual = \"v\"").starts_with("hikyaku.toml:2:11: an absolute"));
    assert!(
        error("[delivery]\nalias_user = \"root\"").starts_with("hikyaku.toml:2:14: an account")
    );
    assert_eq!(
        error("hostname = \"a.b\"\nrelay_domains = [\"A.b\"]"),
        "hikyaku.toml:2:17: \"A.b\" is a local domain"
    );
    assert_eq!(error("[delivery]\nport = 0"), "hikyaku.toml:2:8: must be 1 or more");
    assert!(error("hostname = \"a b\"").starts_with("hikyaku.toml:1:12: a host name"));
    assert!(error("[paths]\ninbox = \"%q\"").starts_with("hikyaku.toml:2:9: after %"));
    assert!(error("[smtp]\nrelay_networks = [\"1.2.3.4/33\"]").contains("is wanted"));
    assert!(error("[smtp.tls]\nkey = \"/k\"").contains("together"));
    assert!(error("[auth]\npam_service = \"../x\"").contains("a file in /etc/pam.d"));
    let virtual_users = "[users]\nsource = \"file\"\n[auth]\npam_service = \"hikyaku\"";
    assert!(error(virtual_users).contains("it is for [users] source"));
    let pam = parse(Path::new("x"), "[auth]\npam_service = \"hikyaku\"");
    assert_eq!(pam.is_ok(), cfg!(feature = "pam"));
    if let Err(error) = pam {
        assert!(error.to_string().contains("PAM is not in this build"), "{error}");
    }
    let alone = error("[smtp.tls]\nclient_certificates = \"/c\"");
    assert!(alone.contains("certificate and key are wanted"), "{alone}");
    assert_eq!(
        error("[smtp.tls]\ncertificate = \"/c\"\nkey = \"k\""),
        "hikyaku.toml:3:7: an absolute path is wanted"
    );
}

#[test]
fn a_user_name_never_leads_out_of_its_place() {
    let home = Path::new("/home/a");
    assert_eq!(expand("/var/mail/%u", "a", "d", home), Some("/var/mail/a".into()));
    assert_eq!(expand("%h/mail/%%", "a", "d", home), Some("/home/a/mail/%".into()));
    for bad in ["", ".", "..", "a/b", "/etc/passwd", "a\0b"] {
        assert_eq!(expand("/var/mail/%u", bad, "d", home), None);
    }
}

#[test]
fn a_network_holds_its_addresses_only() {
    let network = Network::try_from("192.0.2.0/24".to_owned()).unwrap();
    assert!(network.contains("192.0.2.255".parse().unwrap()));
    assert!(network.contains("::ffff:192.0.2.1".parse().unwrap()));
    assert!(!network.contains("192.0.3.0".parse().unwrap()));
    assert!(!network.contains("::1".parse().unwrap()));
    let all = Network::try_from("0.0.0.0/0".to_owned()).unwrap();
    assert!(all.contains("255.255.255.255".parse().unwrap()));
    assert!(!all.contains("::1".parse().unwrap()));
}

#[test]
fn an_interval_is_a_number_with_a_unit() {
    for (text, seconds) in [("90s", 90), ("5m", 300), ("4h", 14_400), ("5d", 432_000)] {
        assert_eq!(Interval::try_from(text.to_owned()).unwrap().seconds(), seconds);
        assert_eq!(Interval::try_from(text.to_owned()).unwrap().to_string(), text);
    }
    assert!(Interval::try_from("-5m".to_owned()).is_err());
    assert!(Interval::try_from("soon".to_owned()).is_err());
}

#[test]
fn a_smarthost_is_a_name_or_an_address_with_a_port() {
    for (text, wanted) in [
        ("", ""),
        ("mail.example.org", "mail.example.org:25"),
        ("Mail.example.org:587", "mail.example.org:587"),
        ("[mail.example.org]:587", "mail.example.org:587"),
        ("[1.2.3.4]:25", "[1.2.3.4]:25"),
        ("1.2.3.4", "[1.2.3.4]:25"),
        ("[::1]:2525", "[::1]:2525"),
        ("[IPv6:::1]", "[::1]:25"),
    ] {
        let smarthost = Smarthost::try_from(text.to_owned()).unwrap();
        assert_eq!(String::from(smarthost), wanted, "{text}");
    }
    for text in ["a b", "[1.2.3.4", "host:", "host:0", "host:99999", "[a]b", "::1", "[]:25", ":25"]
    {
        assert!(Smarthost::try_from(text.to_owned()).is_err(), "{text}");
    }
    assert!(
        error("[delivery]\nsmarthost = \"a b\"\n").starts_with("hikyaku.toml:2:13: a host like ")
    );
}
