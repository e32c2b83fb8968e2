//! What a volume asks for: the options of its spec, and the annotations they come from.
//!
//! An ask that can't be read whole is refused whole. An option that is not known is not
//! passed over, nor is one that is known and does not exist yet.

use std::{collections::BTreeMap, str::FromStr};

use krb_proto::{Realm, reason::Reason, text::shown};

use super::{
    Denial, Login,
    service::{HostName, ServiceName},
};

/// The longest value of an option, in bytes.
pub const MAX_VALUE: usize = 4096;

/// The most entries of a list.
pub const MAX_ITEMS: usize = 64;

/// The options, each of which is an annotation too.
pub const OPTIONS: [&str; 8] = [
    "services",
    "prestashtkt",
    "externalclusters",
    "userprefixedhostname",
    "runasusername",
    "certs",
    "krblocal",
    "token",
];

/// Options that come later: asking for them is denied.
const NOT_YET: [&str; 3] = ["certs", "krblocal", "token"];

/// What a volume asks for. It asks for something.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Ask {
    /// Services of the keytab, no two alike.
    pub services: Vec<ServiceAsk>,
    /// Tickets.
    pub tickets: TicketsAsk,
    /// Logical hosts that the bare services are meant on too.
    pub logical_hosts: Vec<HostName>,
    /// Whether the bare services are meant on `<user>.<host>` too.
    pub user_prefixed: bool,
    /// Who the pod says it runs as: compared, never believed.
    pub run_as_user_name: Option<Login>,
}

/// A service that is asked for.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum ServiceAsk {
    /// `HTTP`: on every host name of the pod.
    Bare(ServiceName),
    /// `HTTP/web.example.com[@REALM]`: on this host alone.
    At(ServiceName, HostName, Option<Realm>),
}

/// Whose tickets are asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub enum TicketsAsk {
    /// Nobody's.
    #[default]
    None,
    /// The account's that the pod runs as.
    Own,
    /// These accounts', no two alike.
    Of(Vec<Login>),
}

impl Ask {
    /// Reads the options of a volume.
    ///
    /// # Errors
    /// `AskMalformed`, `NotSupported`, `AskEmpty`.
    pub fn from_options(options: &BTreeMap<String, String>) -> Result<Self, Denial> {
        for (key, value) in options {
            check_option(key, value)?;
        }
        let value = |key: &str| options.get(key).map(String::as_str);
        let ask = Self {
            services: value("services").map(services).transpose()?.unwrap_or_default(),
            tickets: value("prestashtkt").map(tickets).transpose()?.unwrap_or_default(),
            logical_hosts: value("externalclusters").map(hosts).transpose()?.unwrap_or_default(),
            user_prefixed: value("userprefixedhostname").map(flag).transpose()?.unwrap_or(false),
            run_as_user_name: value("runasusername").map(login).transpose()?,
        };
        ask.check()
    }

    fn check(self) -> Result<Self, Denial> {
        let bare = self.services.iter().any(|service| matches!(service, ServiceAsk::Bare(_)));
        if self.services.is_empty() && self.tickets == TicketsAsk::None {
            return Err(Denial::new(
                Reason::AskEmpty,
                "the volume asks for nothing: set services or prestashtkt",
            ));
        }
        if !bare && (!self.logical_hosts.is_empty() || self.user_prefixed) {
            return Err(Denial::malformed(
                "externalclusters and userprefixedhostname need a service without a host in services",
            ));
        }
        Ok(self)
    }

    /// The options that say this, each value written in one way only.
    pub fn to_options(&self) -> BTreeMap<String, String> {
        let mut options = BTreeMap::new();
        let mut set = |key: &str, value: String| drop(options.insert(key.to_owned(), value));
        if !self.services.is_empty() {
            set("services", join(&self.services));
        }
        match &self.tickets {
            TicketsAsk::None => {}
            TicketsAsk::Own => set("prestashtkt", "true".to_owned()),
            TicketsAsk::Of(logins) => set("prestashtkt", join(logins)),
        }
        if !self.logical_hosts.is_empty() {
            set("externalclusters", join(&self.logical_hosts));
        }
        if self.user_prefixed {
            set("userprefixedhostname", "true".to_owned());
        }
        if let Some(login) = &self.run_as_user_name {
            set("runasusername", login.to_string());
        }
        options
    }
}

/// The options that these annotations set: those that are ours, without the prefix.
///
/// # Errors
/// `AskMalformed` when `prestashtkt` and its other spelling `prestashtxt` differ.
pub fn options_of<'a>(
    prefix: &str,
    annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
) -> Result<BTreeMap<String, String>, Denial> {
    let mut options = BTreeMap::new();
    for (key, value) in annotations {
        let Some(key) = key.strip_prefix(prefix).and_then(|key| key.strip_prefix('/')) else {
            continue;
        };
        let key = if key == "prestashtxt" { "prestashtkt" } else { key };
        if !OPTIONS.contains(&key) {
            continue;
        }
        let earlier = options.insert(key.to_owned(), value.to_owned());
        if earlier.is_some_and(|earlier| earlier != value) {
            return Err(Denial::malformed(format!(
                "{prefix}/prestashtkt and {prefix}/prestashtxt differ: leave one out"
            )));
        }
    }
    Ok(options)
}

fn check_option(key: &str, value: &str) -> Result<(), Denial> {
    if !OPTIONS.contains(&key) {
        return Err(Denial::malformed(format!("{:?} is not an option of this volume", shown(key))));
    }
    if value.len() > MAX_VALUE {
        return Err(Denial::malformed(format!("{key} is longer than {MAX_VALUE} bytes")));
    }
    if NOT_YET.contains(&key) && value != "false" {
        return Err(Denial::new(
            Reason::NotSupported,
            format!("{key} is not supported yet: leave it out"),
        ));
    }
    Ok(())
}

fn services(value: &str) -> Result<Vec<ServiceAsk>, Denial> {
    list("services", value, |item| item.parse::<ServiceAsk>().map_err(|why| why.0))
}

fn hosts(value: &str) -> Result<Vec<HostName>, Denial> {
    let host = |item: &str| item.to_ascii_lowercase().parse::<HostName>();
    list("externalclusters", value, |item| host(item).map_err(|why| why.to_string()))
}

fn tickets(value: &str) -> Result<TicketsAsk, Denial> {
    match value.trim() {
        "true" => return Ok(TicketsAsk::Own),
        "false" => return Ok(TicketsAsk::None),
        _ => {}
    }
    let login = |item: &str| {
        if ["true", "false"].iter().any(|word| word.eq_ignore_ascii_case(item)) {
            return Err("is not an account: true and false stand alone, in lower case".to_owned());
        }
        item.parse::<Login>().map_err(|why| why.to_string())
    };
    list("prestashtkt", value, login).map(TicketsAsk::Of)
}

fn flag(value: &str) -> Result<bool, Denial> {
    match value.trim() {
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(Denial::malformed(format!(
            "userprefixedhostname: {:?} is neither true nor false",
            shown(other)
        ))),
    }
}

fn login(value: &str) -> Result<Login, Denial> {
    let login = value.trim();
    login
        .parse()
        .map_err(|why| Denial::malformed(format!("runasusername: {:?} {why}", shown(login))))
}

/// The entries of a list, divided by commas, trimmed, none empty and no two alike.
fn list<T: PartialEq>(
    option: &str,
    value: &str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Denial> {
    let mut parsed = Vec::new();
    for item in value.split(',').map(str::trim) {
        let wrong = |why: &str| Denial::malformed(format!("{option}: {:?} {why}", shown(item)));
        if item.is_empty() {
            return Err(Denial::malformed(format!("{option} has an empty entry")));
        }
        let entry = parse(item).map_err(|why| wrong(&why))?;
        if parsed.contains(&entry) {
            return Err(wrong("is there twice"));
        }
        if parsed.len() == MAX_ITEMS {
            return Err(Denial::malformed(format!("{option} has more than {MAX_ITEMS} entries")));
        }
        parsed.push(entry);
    }
    Ok(parsed)
}

fn join<T: ToString>(entries: &[T]) -> String {
    entries.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// The text asks for no service; why, to be read after the text.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidServiceAsk(String);

impl FromStr for ServiceAsk {
    type Err = InvalidServiceAsk;

    fn from_str(item: &str) -> Result<Self, InvalidServiceAsk> {
        let wrong = |why: &dyn ToString| InvalidServiceAsk(why.to_string());
        let Some((service, rest)) = item.split_once('/') else {
            return item.parse().map(Self::Bare).map_err(|why| wrong(&why));
        };
        let service = service.parse().map_err(|why| wrong(&why))?;
        let (host, realm) = match rest.split_once('@') {
            Some((host, realm)) => (host, Some(realm.parse().map_err(|why| wrong(&why))?)),
            None => (rest, None),
        };
        let host = host.to_ascii_lowercase().parse().map_err(|why| wrong(&why))?;
        Ok(Self::At(service, host, realm))
    }
}

impl std::fmt::Display for ServiceAsk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bare(service) => service.fmt(f),
            Self::At(service, host, None) => write!(f, "{service}/{host}"),
            Self::At(service, host, Some(realm)) => write!(f, "{service}/{host}@{realm}"),
        }
    }
}
