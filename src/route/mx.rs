//! Which hosts take a domain's mail (RFC 5321 section 5.1, RFC 7505); pure over what DNS said.

use std::fmt;

/// What a name server said when it gave no records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// There is no such name (NXDOMAIN).
    Name,
    /// The name has no records of this type.
    Records,
    /// It did not say: it is dead, or broken, or refuses. Nothing follows from that.
    Trouble(String),
}

/// Why no host can be called for a domain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unroutable {
    /// There is no such domain.
    NoDomain(String),
    /// The domain takes no mail (a null MX).
    NullMx(String),
    /// Its best exchange is this host, which does not know it as its own.
    Loop(String),
    /// None of its exchanges has an address.
    NoAddress(String),
    /// DNS did not say.
    Trouble {
        /// Which name was asked for.
        name: String,
        /// What happened.
        why: String,
    },
}

impl Unroutable {
    /// The enhanced status code (RFC 3463, RFC 7505 section 4.2).
    pub fn code(&self) -> &'static str {
        match self {
            Self::NoDomain(_) => "5.1.2",
            Self::NullMx(_) => "5.1.10",
            Self::Loop(_) => "5.4.6",
            Self::NoAddress(_) => "5.4.4",
            Self::Trouble { .. } => "4.4.3",
        }
    }

    /// Whether another try may help: only trouble with DNS passes by itself.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Trouble { .. })
    }
}

impl fmt::Display for Unroutable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDomain(name) => write!(f, "there is no domain {name}"),
            Self::NullMx(name) => write!(f, "{name} takes no mail (null MX)"),
            Self::Loop(name) => {
                write!(f, "mail for {name} leads back to this host, which is not told to take it")
            }
            Self::NoAddress(name) => write!(f, "no mail exchange of {name} has an address"),
            Self::Trouble { name, why } => write!(f, "name service error for {name}: {why}"),
        }
    }
}

/// The hosts to call for `domain`, the best first, from what its MX query brought: preferences and
/// host names. Equals come in the order that `pick` makes: it chooses one of so many.
///
/// Without MX records the domain is its own exchange. Where `own`, this host's name, is in the
/// list, only exchanges that are better than us are called, or else the mail would go in circles.
pub fn exchanges(
    domain: &str,
    own: &str,
    answer: Result<Vec<(u16, String)>, Missing>,
    mut pick: impl FnMut(usize) -> usize,
) -> Result<Vec<String>, Unroutable> {
    let mut records = match answer {
        Ok(records) => records,
        Err(Missing::Records) => return Ok(vec![domain.to_owned()]),
        Err(Missing::Name) => return Err(Unroutable::NoDomain(domain.to_owned())),
        Err(Missing::Trouble(why)) => {
            return Err(Unroutable::Trouble { name: domain.to_owned(), why });
        }
    };
    for (_, host) in &mut records {
        host.truncate(host.trim_end_matches('.').len());
    }
    let is_null = |host: &String| host.is_empty();
    if records.iter().any(|(_, host)| is_null(host)) {
        // A null MX beside others is an error of theirs; the others count.
        records.retain(|(_, host)| !is_null(host));
        if records.is_empty() {
            return Err(Unroutable::NullMx(domain.to_owned()));
        }
    }
    let ours = records.iter().filter(|(_, host)| host.eq_ignore_ascii_case(own));
    if let Some(limit) = ours.map(|(preference, _)| *preference).min() {
        records.retain(|(preference, _)| *preference < limit);
        if records.is_empty() {
            return Err(Unroutable::Loop(domain.to_owned()));
        }
    }
    for end in (1..records.len()).rev() {
        records.swap(end, pick(end + 1).min(end));
    }
    records.sort_by_key(|(preference, _)| *preference);
    Ok(records.into_iter().map(|(_, host)| host).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &str = "hawks.qgpop.net";

    fn list(records: &[(u16, &str)]) -> Result<Vec<String>, Unroutable> {
        let records = records.iter().map(|(number, host)| (*number, (*host).to_owned())).collect();
        exchanges("smkwlab.net", OWN, Ok(records), |_| 0)
    }

    #[test]
    fn the_lowest_preference_comes_first() {
        let hosts = list(&[(20, "b."), (5, "c."), (10, "mx.smkwlab.net.")]).unwrap();
        assert_eq!(hosts, ["c", "mx.smkwlab.net", "b"]);
    }

    #[test]
    fn equals_come_in_every_order_and_stay_before_the_worse() {
        let records = [(1, "a"), (1, "b"), (1, "c"), (2, "z")];
        let mut orders = std::collections::BTreeSet::new();
        for choice in 0..6 {
            let records = records.iter().map(|(n, h)| (*n, (*h).to_owned())).collect();
            let (mut digits, mut bases) = (choice, Vec::new());
            let hosts = exchanges("d", OWN, Ok(records), |count| {
                bases.push(count);
                let digit = digits % count;
                digits /= count;
                digit
            });
            let hosts = hosts.unwrap();
            assert_eq!(hosts.last().map(String::as_str), Some("z"));
            orders.insert(hosts);
        }
        assert!(orders.len() > 3, "{orders:?}");
    }

    #[test]
    fn without_mx_records_the_domain_is_its_own_exchange() {
        let none = |missing| exchanges("smkwlab.net", OWN, Err(missing), |_| 0);
        assert_eq!(none(Missing::Records).unwrap(), ["smkwlab.net"]);
        let gone = none(Missing::Name).unwrap_err();
        assert_eq!((gone.code(), gone.is_temporary()), ("5.1.2", false));
        let trouble = none(Missing::Trouble("SERVFAIL".into())).unwrap_err();
        assert_eq!((trouble.code(), trouble.is_temporary()), ("4.4.3", true));
        assert_eq!(trouble.to_string(), "name service error for smkwlab.net: SERVFAIL");
    }

    #[test]
    fn a_null_mx_takes_no_mail() {
        assert_eq!(list(&[(0, ".")]), Err(Unroutable::NullMx("smkwlab.net".into())));
        assert_eq!(list(&[(0, "."), (9, "mx.")]).unwrap(), ["mx"]);
    }

    #[test]
    fn nobody_is_called_who_is_not_better_than_us() {
        let records = [(10, "a"), (20, "HAWKS.qgpop.net."), (20, "b"), (30, "c")];
        assert_eq!(list(&records).unwrap(), ["a"]);
        assert_eq!(list(&[(5, "hawks.qgpop.net"), (9, "x")]).unwrap_err().code(), "5.4.6");
    }
}
