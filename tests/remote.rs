//! Where mail for other hosts goes: by MX, by address, to the smarthost; and what becomes of it
//! where DNS says that it can't go anywhere, or says nothing.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests and their helpers fail by panicking"
)]

mod support;

use support::dns::Trouble;
use support::exchange::{Act, Script, Step};
use support::network::Network;
use support::report::{self, Report};
use support::run::Ran;
use support::site::{HOST, Site};

const NONE: [&str; 0] = [];
const SENDER: &str = "toshi@smkwlab.net";
const TEXT: &str = "Subject: far\n\nHello.\n";

fn polite() -> Script {
    Script::polite()
}

/// One run; the log.
#[track_caller]
fn run(site: &Site) -> Ran {
    site.mta_queue(&["--flush"]).expect(0)
}

/// One run, after which nothing waits.
#[track_caller]
fn run_to_the_end(site: &Site) -> Ran {
    let ran = run(site);
    assert_eq!(site.queued(), NONE, "{ran}");
    ran
}

/// One run, after which the one message waits, for a reason with this code.
#[track_caller]
fn run_and_wait(site: &Site, code: &str) -> Ran {
    let ran = run(site);
    assert_eq!(site.queued_in("deferred").len(), 1, "{:?} {ran}", site.queued());
    assert_eq!(site.queued().len(), 1, "{ran}");
    assert!(ran.stderr.contains(&format!("dsn={code}, status=deferred")), "{ran}");
    assert_eq!(site.messages("toshi").len(), 0, "{ran}");
    ran
}

/// One run, after which the message is back at its sender; what the report says.
#[track_caller]
fn run_and_bounce(site: &Site) -> Report {
    let ran = run_to_the_end(site);
    let messages = site.messages("toshi");
    assert_eq!(messages.len(), 1, "{ran}");
    let report = report::of_message(&messages[0]);
    assert_eq!(report.action, "failed", "{ran}");
    report
}

#[test]
fn the_exchange_with_the_lowest_preference_gets_the_mail() {
    let network = Network::new();
    network.dns.set("there.test MX 20 worse.there.test");
    network.dns.set("there.test MX 5 best.there.test");
    network.dns.set("worse.there.test A 127.0.0.4");
    network.dns.set("best.there.test A 127.0.0.5");
    let (worse, best) = (network.exchange(4, polite()), network.exchange(5, polite()));
    let site = network.plan().build();
    let id = site.submit(SENDER, &["User.Name@There.TEST"], TEXT);
    let ran = run_to_the_end(&site);
    let message = best.only_message();
    assert_eq!(message.sender, SENDER);
    assert_eq!(message.recipients, ["User.Name@There.TEST"]);
    assert!(message.text.ends_with(b"Subject: far\r\n\r\nHello.\r\n"));
    assert_eq!(worse.sessions().len(), 0);
    assert_eq!(best.complaints(), NONE);
    let relay = format!("relay=best.there.test[127.0.0.5]:{}, ", network.port());
    for part in [id.as_str(), relay.as_str(), "dsn=2.0.0, status=sent (250 2.0.0 Ok: queued as T0"]
    {
        assert!(ran.stderr.contains(part), "{part:?} in {ran}");
    }
    let session = &best.sessions()[0];
    assert_eq!(session.commands[0], format!("EHLO {HOST}"));
    assert_eq!(session.commands.last().unwrap(), "QUIT");
}

#[test]
fn where_the_best_exchange_is_dead_the_next_one_gets_the_mail() {
    let network = Network::new();
    for (preference, host) in [(5, 3), (7, 4), (9, 5), (11, 6), (13, 7)] {
        network.dns.set(&format!("there.test MX {preference} mx{host}.there.test"));
    }
    // 3 refuses connections, and 4 has no address at all.
    network.dns.set("mx3.there.test A 127.0.0.3");
    network.dns.set("mx5.there.test A 127.0.0.5");
    network.dns.set("mx6.there.test A 127.0.0.6");
    network.dns.set("mx7.there.test A 127.0.0.7");
    let busy = Act::Last("421 4.3.2 Too busy".into());
    let busy = network.exchange(5, polite().at(Step::Connect, busy));
    let (good, unneeded) = (network.exchange(6, polite()), network.exchange(7, polite()));
    let site = network.plan().build();
    site.submit(SENDER, &["a@there.test"], TEXT);
    run_to_the_end(&site);
    good.only_message();
    assert_eq!(busy.sessions().len(), 1);
    assert_eq!(unneeded.sessions().len(), 0);
}

#[test]
fn where_the_first_address_of_an_exchange_is_dead_its_next_one_is_called() {
    let network = Network::new();
    network.dns.set("there.test MX 5 mx.there.test");
    for address in ["AAAA ::1", "A 127.0.0.3", "A 127.0.0.4"] {
        network.dns.set(&format!("mx.there.test {address}"));
    }
    let exchange = network.exchange(4, polite());
    let site = network.plan().build();
    site.submit(SENDER, &["a@there.test"], TEXT);
    run_to_the_end(&site);
    exchange.only_message();
}

#[test]
fn equal_exchanges_share_the_mail() {
    let network = Network::new();
    network.dns.set("there.test MX 10 one.there.test");
    network.dns.set("there.test MX 10 two.there.test");
    network.dns.set("one.there.test A 127.0.0.3");
    network.dns.set("two.there.test A 127.0.0.4");
    let (one, two) = (network.exchange(3, polite()), network.exchange(4, polite()));
    let site = network.plan().in_memory().build();
    for sent in 1..=40 {
        site.submit(SENDER, &["a@there.test"], TEXT);
        run_to_the_end(&site);
        assert_eq!(one.count() + two.count(), sent);
        if one.count() > 0 && two.count() > 0 {
            return;
        }
    }
    panic!("{} of {} to one of two equals", one.count(), one.count() + two.count());
}

#[test]
fn a_domain_without_mx_is_its_own_exchange() {
    let network = Network::new();
    network.dns.set("there.test A 127.0.0.3");
    network.dns.set("alias.test CNAME there.test");
    let exchange = network.exchange(3, polite());
    let site = network.plan().build();
    site.submit(SENDER, &["a@there.test"], TEXT);
    site.submit(SENDER, &["a@alias.test"], TEXT);
    run_to_the_end(&site);
    assert_eq!(exchange.count(), 2);
    assert!(network.dns.asked("there.test", "MX") > 0);
}

#[test]
fn a_domain_with_a_null_mx_takes_no_mail() {
    let network = Network::new();
    network.dns.set("there.test MX 0 .");
    network.dns.set("there.test A 127.0.0.3");
    let exchange = network.exchange(3, polite());
    let site = network.plan().build();
    site.submit(SENDER, &["a@there.test"], TEXT);
    let report = run_and_bounce(&site);
    assert_eq!((report.status.as_str(), report.recipient.as_str()), ("5.1.10", "a@there.test"));
    assert_eq!(exchange.sessions().len(), 0);
}

#[test]
fn an_address_literal_is_called_without_asking_dns() {
    let network = Network::new();
    let exchange = network.exchange(5, polite());
    let site = network.plan().build();
    site.submit(SENDER, &["a@[127.0.0.5]"], TEXT);
    run_to_the_end(&site);
    assert_eq!(exchange.only_message().recipients, ["a@[127.0.0.5]"]);
    assert_eq!(network.dns.asked_at_all(), 0);
}

#[test]
fn a_domain_that_does_not_exist_brings_the_mail_back() {
    let network = Network::new();
    let site = network.plan().build();
    site.submit(SENDER, &["a@nowhere.test"], TEXT);
    let report = run_and_bounce(&site);
    assert_eq!(report.status, "5.1.2");
    assert!(report.words.contains("nowhere.test"), "{report:?}");
}

#[test]
fn a_domain_whose_hosts_have_no_address_brings_the_mail_back() {
    for records in [
        vec!["there.test TXT nothing-else"],
        vec!["there.test MX 10 nowhere.test"],
        vec!["there.test MX 10 bare.test", "bare.test TXT x", "there.test MX 20 nowhere.test"],
    ] {
        let network = Network::new();
        for record in &records {
            network.dns.set(record);
        }
        let site = network.plan().build();
        site.submit(SENDER, &["a@there.test"], TEXT);
        assert_eq!(run_and_bounce(&site).status, "5.4.4", "{records:?}");
    }
}

#[test]
fn no_exchange_is_called_that_is_not_better_than_this_host() {
    let network = Network::new();
    network.dns.set("there.test MX 10 better.there.test");
    network.dns.set(&format!("there.test MX 20 {}", HOST.to_ascii_uppercase()));
    network.dns.set("there.test MX 20 equal.there.test");
    network.dns.set("there.test MX 30 worse.there.test");
    network.dns.set(&format!("{HOST} A 127.0.0.6"));
    network.dns.set("better.there.test A 127.0.0.3");
    network.dns.set("equal.there.test A 127.0.0.4");
    network.dns.set("worse.there.test A 127.0.0.5");
    let others = [4, 5, 6].map(|host| network.exchange(host, polite()));
    let site = network.plan().build();
    site.submit(SENDER, &["a@there.test"], TEXT);
    run_and_wait(&site, "4.4.1");
    let better = network.exchange(3, polite());
    run_to_the_end(&site);
    better.only_message();
    assert!(others.iter().all(|other| other.sessions().is_empty()));
}

#[test]
fn mail_that_leads_back_to_this_host_is_returned() {
    let network = Network::new();
    network.dns.set(&format!("there.test MX 10 {HOST}"));
    network.dns.set("there.test MX 20 spare.there.test");
    network.dns.set("spare.there.test A 127.0.0.4");
    network.dns.set(&format!("{HOST} A 127.0.0.3"));
    let exchanges = [3, 4].map(|host| network.exchange(host, polite()));
    let site = network.plan().build();
    site.submit(SENDER, &["a@there.test"], TEXT);
    assert_eq!(run_and_bounce(&site).status, "5.4.6");
    assert!(exchanges.iter().all(|exchange| exchange.sessions().is_empty()));
}

#[test]
fn a_server_that_has_our_name_is_ourselves() {
    // A name in DNS that leads to our own server does not show before we hear ourselves.
    for greets in [true, false] {
        let network = Network::new();
        network.dns.set("there.test A 127.0.0.3");
        let script = if greets {
            polite().name(HOST)
        } else {
            polite().at(Step::Ehlo, Act::reply(&format!("250-{HOST} at your service\n250 SIZE")))
        };
        let exchange = network.exchange(3, script);
        let site = network.plan().build();
        site.submit(SENDER, &["a@there.test"], TEXT);
        assert_eq!(run_and_bounce(&site).status, "5.4.6");
        assert_eq!(exchange.attempts().len(), 0);
    }
}

/// Whatever is wrong with DNS, the mail waits, however often it is tried; and is delivered when all
/// is well again.
fn waits_while(trouble: Trouble, name: Option<&str>) {
    let network = Network::new();
    network.dns.set("there.test MX 10 mx.there.test");
    network.dns.set("mx.there.test A 127.0.0.3");
    let exchange = network.exchange(3, polite());
    match name {
        Some(name) => network.dns.fail(name, trouble),
        None => network.dns.fail_everywhere(trouble),
    }
    let site = network.plan().build();
    site.submit(SENDER, &["a@there.test"], TEXT);
    let runs = if matches!(trouble, Trouble::ServFail | Trouble::Refused) { 3 } else { 1 };
    for _ in 0..runs {
        run_and_wait(&site, "4.4.3");
    }
    assert_eq!(exchange.sessions().len(), 0);
    network.dns.mend();
    run_to_the_end(&site);
    exchange.only_message();
}

#[test]
fn mail_waits_while_the_name_server_fails() {
    waits_while(Trouble::ServFail, None);
}

#[test]
fn mail_waits_while_the_name_server_refuses() {
    waits_while(Trouble::Refused, None);
}

#[test]
fn mail_waits_while_the_name_server_is_silent() {
    waits_while(Trouble::Silent, None);
}

#[test]
fn mail_waits_while_the_name_server_talks_rubbish() {
    waits_while(Trouble::Garbage, None);
}

#[test]
fn mail_waits_while_the_address_of_its_exchange_is_not_had() {
    waits_while(Trouble::ServFail, Some("mx.there.test"));
}

#[test]
fn trouble_with_one_exchange_leaves_the_others() {
    let network = Network::new();
    network.dns.set("there.test MX 10 mx.there.test");
    network.dns.set("there.test MX 20 spare.there.test");
    network.dns.set("mx.there.test A 127.0.0.3");
    network.dns.set("spare.there.test A 127.0.0.4");
    network.dns.fail("mx.there.test", Trouble::ServFail);
    let exchange = network.exchange(4, polite());
    let site = network.plan().build();
    site.submit(SENDER, &["a@there.test"], TEXT);
    run_to_the_end(&site);
    exchange.only_message();
}

#[test]
fn where_dns_says_nothing_of_one_exchange_the_mail_waits_whatever_the_others_are() {
    let network = Network::new();
    network.dns.set("there.test MX 10 mx.there.test");
    network.dns.set("there.test MX 20 nowhere.test");
    network.dns.fail("mx.there.test", Trouble::ServFail);
    let site = network.plan().build();
    site.submit(SENDER, &["a@there.test"], TEXT);
    run_and_wait(&site, "4.4.3");
}

#[test]
fn a_long_list_of_exchanges_is_had_by_tcp() {
    let network = Network::new();
    network.dns.set("there.test MX 1 mx.there.test");
    network.dns.set("mx.there.test A 127.0.0.3");
    for number in 0..60 {
        network.dns.set(&format!("there.test MX 9 a-rather-long-name-{number}.there.test"));
    }
    network.dns.fail("mx.there.test", Trouble::Truncated);
    let exchange = network.exchange(3, polite());
    let site = network.plan().build();
    site.submit(SENDER, &["a@there.test"], TEXT);
    run_to_the_end(&site);
    exchange.only_message();
}

#[test]
fn a_smarthost_takes_all_mail_for_elsewhere_and_dns_is_not_asked_for_it() {
    for named in [false, true] {
        let network = Network::new();
        network.dns.set("there.test MX 10 mx.there.test");
        network.dns.set("mx.there.test A 127.0.0.3");
        network.dns.set("smart.test MX 10 mx.there.test");
        network.dns.set("smart.test A 127.0.0.9");
        let (other, smarthost) = (network.exchange(3, polite()), network.exchange(9, polite()));
        let host = if named { "smart.test" } else { "[127.0.0.9]" };
        let site = network
            .plan()
            .set("delivery", "smarthost", &format!("\"{host}:{}\"", network.port()))
            // It is not what MX hosts are called on.
            .set("delivery", "port", "9")
            .build();
        let to = ["a@there.test", "b@nowhere.test", "c@[127.0.0.3]", "hunt@smkwlab.net"];
        site.submit(SENDER, &to, TEXT);
        run_to_the_end(&site);
        let mut recipients: Vec<String> =
            smarthost.messages().into_iter().flat_map(|message| message.recipients).collect();
        recipients.sort();
        assert_eq!(recipients, &to[..3]);
        assert_eq!(other.sessions().len(), 0);
        assert_eq!(site.messages("hunt").len(), 1);
        for name in ["there.test", "smart.test", "nowhere.test"] {
            assert_eq!(network.dns.asked(name, "MX"), 0);
        }
    }
}

#[test]
fn a_dead_smarthost_lets_all_mail_wait() {
    let network = Network::new();
    network.dns.fail("smart.test", Trouble::ServFail);
    for host in ["[127.0.0.9]", "smart.test", "gone.test"] {
        let smarthost = format!("\"{host}:{}\"", network.port());
        let site = network.plan().set("delivery", "smarthost", &smarthost).build();
        site.submit(SENDER, &["a@there.test"], TEXT);
        let ran = run(&site);
        // A smarthost is what the operator wrote: its absence is no fact about the recipient.
        assert_eq!(site.queued_in("deferred").len(), 1, "{host}: {ran}");
        assert_eq!(site.messages("toshi").len(), 0, "{ran}");
    }
}

#[test]
fn a_report_to_a_remote_sender_is_sent_with_the_null_sender() {
    let network = Network::new();
    network.dns.set("away.test A 127.0.0.3");
    let exchange = network.exchange(3, polite());
    let site = network.plan().build();
    site.submit("somebody@away.test", &["a@nowhere.test"], TEXT);
    run_to_the_end(&site);
    let message = exchange.only_message();
    assert_eq!(message.sender, "");
    assert_eq!(message.recipients, ["somebody@away.test"]);
    let text = String::from_utf8(message.text.clone()).unwrap().replace("\r\n", "\n");
    let (_, body) = text.split_once("\n\n").unwrap();
    let report = report::read(&message.field("Content-Type").unwrap(), body);
    assert_eq!((report.recipient.as_str(), report.status.as_str()), ("a@nowhere.test", "5.1.2"));
}

#[test]
fn a_report_that_can_not_be_delivered_is_never_reported() {
    let network = Network::new();
    let site = network.plan().build();
    site.submit("somebody@gone.test", &["a@nowhere.test"], TEXT);
    run_to_the_end(&site);
    for account in Site::accounts() {
        assert_eq!(site.messages(account.name).len(), 0, "{}", account.name);
    }
}

#[test]
fn a_remote_sender_is_warned_once_and_then_told_that_the_message_expired() {
    let network = Network::new();
    network.dns.set("away.test A 127.0.0.3");
    network.dns.set("dead.test A 127.0.0.4");
    let exchange = network.exchange(3, polite());
    let site = network
        .plan()
        .set("queue", "retry", "[\"1s\"]")
        .set("queue", "warn_after", "\"1s\"")
        .set("queue", "expire_after", "\"4s\"")
        .build();
    site.submit("somebody@away.test", &["a@dead.test"], TEXT);
    support::wait_until("the message to expire", || {
        site.mta_queue(&NONE).expect(0);
        std::thread::sleep(std::time::Duration::from_millis(200));
        site.queued().is_empty().then_some(())
    });
    let reports: Vec<Report> = exchange
        .messages()
        .iter()
        .map(|message| {
            let text = String::from_utf8_lossy(&message.text).replace("\r\n", "\n");
            let (_, body) = text.split_once("\n\n").unwrap();
            report::read(&message.field("Content-Type").unwrap(), body)
        })
        .collect();
    let actions: Vec<&str> = reports.iter().map(|report| report.action.as_str()).collect();
    assert_eq!(actions, ["delayed", "failed"], "{reports:?}");
    assert_eq!(reports[0].status, "4.4.1");
    assert!(reports[1].status.contains(".4."), "{reports:?}");
    assert!(reports.iter().all(|report| report.recipient == "a@dead.test"));
}

#[test]
fn mail_that_could_not_be_delivered_is_tried_again_when_it_is_due() {
    let network = Network::new();
    network.dns.set("there.test A 127.0.0.3");
    let site = network.plan().set("queue", "retry", "[\"1s\"]").build();
    site.submit(SENDER, &["a@there.test"], TEXT);
    site.mta_queue(&NONE).expect(0);
    assert_eq!(site.queued_in("deferred").len(), 1);
    let exchange = network.exchange(3, polite());
    support::wait_until("the next attempt", || {
        site.mta_queue(&NONE).expect(0);
        (exchange.count() == 1).then_some(())
    });
    assert_eq!(site.queued(), NONE);
}

#[test]
fn each_domain_of_a_message_gets_one_copy_with_its_own_recipients() {
    let network = Network::new();
    for domain in ["one.test", "two.test"] {
        network.dns.set(&format!("{domain} MX 10 mx.{domain}"));
    }
    network.dns.set("mx.one.test A 127.0.0.3");
    network.dns.set("mx.two.test A 127.0.0.4");
    let (one, two) = (network.exchange(3, polite()), network.exchange(4, polite()));
    let site = network.plan().build();
    let to = ["a@one.test", "a@two.test", "b@ONE.test", "hunt@smkwlab.net", "c@one.test"];
    site.submit(SENDER, &to, TEXT);
    run_to_the_end(&site);
    let mut recipients = one.only_message().recipients;
    recipients.sort();
    assert_eq!(recipients, ["a@one.test", "b@ONE.test", "c@one.test"]);
    let message = two.only_message();
    assert_eq!(message.recipients, ["a@two.test"]);
    let text = String::from_utf8_lossy(&message.text).into_owned();
    for other in &to {
        assert!(!text.contains(other), "{other} is told to others: {text}");
    }
    assert_eq!(site.messages("hunt").len(), 1);
}
