//! From the raw file to the checked one.

use std::{collections::BTreeSet, fmt::Display, num::NonZeroU32, str::FromStr, time::Duration};

use krb_proto::{Namespace, Principal, Realm, text};

use super::{Config, GateConfig, PodsConfig, RealmConfig, StoreConfig, raw};
use crate::{
    api::roles::RoleRoots,
    audit::{self, files::Retention},
    entitlement::{problems::Problems, rules::Rules},
    kdc::gate::Caps,
    keys::walk::WalkTimes,
    krb5::key::Enctype,
    kubernetes::client::Settings,
    session::{self, Times, brake},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Notes problems of one file.
pub(super) struct Checker<'a> {
    name: &'a str,
    problems: Problems,
}

/// The checked configuration, or all that is wrong with it.
pub fn check(name: &str, raw: raw::Raw) -> Result<Config, Problems> {
    let mut c = Checker::new(name);
    if !text::is_dns_label(&raw.cluster) {
        c.add("cluster", "is not a DNS label: 1 to 63 of a-z 0-9 -");
    }
    let listen = c.parse("listen", &raw.listen);
    let times = c.times(&raw.sessions);
    let walk = c.walk(&raw.realm, &raw.keys);
    let keys = c.keys(&raw.keys);
    let session_rules = session::Rules {
        times,
        agent_fault_is_loss: raw.sessions.agent_fault_is_loss,
        brake: c.brake(&raw.sessions.brake, times.silent_after),
    };
    let issue_within =
        c.span("leases.issue_within", raw.leases.issue_within.as_deref(), 30 * SECOND);
    let keep_ended = c.span("leases.keep_ended", raw.leases.keep_ended.as_deref(), HOUR);
    let every = raw.entitlements.reload_every.as_deref();
    let entitlements_every = c.span("entitlements.reload_every", every, 10 * SECOND);
    let gone_after = raw.pods.gone_after.as_deref();
    let pods_gone_after = c.span("pods.gone_after", gone_after, MINUTE);
    let pods = c.pods(raw.pods, raw.kubernetes.is_some());
    let gate = c.gate(&raw.gate);
    let node_tokens = c.node_tokens(raw.node_tokens.as_ref(), raw.kubernetes.is_some());
    let roles = c.roles(&raw.tls, raw.node_tokens.is_some());
    let entitlements = raw.entitlements.dir.clone();
    let rules = c.rules(&raw.realm.name, raw.entitlements);
    let realm = c.realm(raw.realm, walk);
    let store = c.store(raw.store);
    let audit = c.audit(raw.audit);
    match (listen, rules, realm, pods) {
        (Some(listen), Some(rules), Some(realm), Some(pods)) if c.problems.is_empty() => {
            Ok(Config {
                cluster: raw.cluster.into(),
                listen,
                run_dir: raw.run_dir,
                certificate: raw.tls.certificate,
                key: raw.tls.key,
                roles,
                realm,
                keys,
                gate,
                entitlements,
                entitlements_every,
                rules,
                pods,
                pods_gone_after,
                node_tokens,
                kubernetes: raw.kubernetes.map(|raw| Settings { kubeconfig: raw.kubeconfig }),
                store,
                audit,
                times,
                session_rules,
                issue_within,
                keep_ended,
                allow_swap: raw.allow_swap,
            })
        }
        _ => Err(c.problems),
    }
}

impl<'a> Checker<'a> {
    pub(super) fn new(name: &'a str) -> Self {
        Self { name, problems: Problems::default() }
    }

    /// What was wrong, or what is right.
    pub(super) fn finish<T>(self, checked: Option<T>) -> Result<T, Problems> {
        match checked {
            Some(checked) if self.problems.is_empty() => Ok(checked),
            _ => Err(self.problems),
        }
    }

    pub(super) fn add(&mut self, field: &str, message: impl Display) {
        self.problems.add(self.name, field, message);
    }

    pub(super) fn parse<T: FromStr<Err: Display>>(&mut self, field: &str, text: &str) -> Option<T> {
        text.parse().map_err(|error: T::Err| self.add(field, error)).ok()
    }

    fn parse_all<T: FromStr<Err: Display>>(&mut self, field: &str, texts: &[String]) -> Vec<T> {
        texts.iter().filter_map(|text| self.parse(field, text)).collect()
    }

    /// A span such as `10s`, `4h`, `1m 30s`, `30d` or `500ms`; never zero.
    pub(super) fn span(&mut self, field: &str, text: Option<&str>, default: Duration) -> Duration {
        let Some(text) = text else { return default };
        let days = jiff::SpanRelativeTo::days_are_24_hours();
        let parsed = text.parse::<jiff::Span>().ok().and_then(|s| s.to_duration(days).ok());
        let span = parsed.and_then(|s| Duration::try_from(s).ok());
        match span.filter(|span| !span.is_zero()) {
            Some(span) => span,
            None => {
                self.add(
                    field,
                    format!("{text:?} is not a time span such as 10s, 4h, 30d or 500ms"),
                );
                default
            }
        }
    }

    fn times(&mut self, raw: &raw::Sessions) -> Times {
        let default = Times::default();
        let mut span = |field, text: &Option<String>, default| {
            self.span(&format!("sessions.{field}"), text.as_deref(), default)
        };
        let times = Times {
            heartbeat: span("heartbeat", &raw.heartbeat, default.heartbeat),
            silent_after: span("silent_after", &raw.silent_after, default.silent_after),
            lost_after: span("lost_after", &raw.lost_after, default.lost_after),
            lease_ttl: span("lease_ttl", &raw.lease_ttl, default.lease_ttl),
            unclaimed_after: span("unclaimed_after", &raw.unclaimed_after, default.unclaimed_after),
        };
        if times.heartbeat * 2 > times.silent_after {
            self.add("sessions.heartbeat", "is more than half of silent_after");
        }
        if times.lease_ttl < times.silent_after + times.lost_after {
            self.add("sessions.lease_ttl", "is less than silent_after and lost_after together");
        }
        times
    }

    fn brake(&mut self, raw: &raw::Brake, settle: Duration) -> brake::Limits {
        let default = brake::Limits::default();
        let share =
            raw.share.as_deref().and_then(|share| self.parse("sessions.brake.share", share));
        let window = self.span("sessions.brake.window", raw.window.as_deref(), default.window);
        if window > HOUR {
            self.add("sessions.brake.window", "is more than the hour that the most is taken of");
        }
        let passes_per_hour = raw.passes_per_hour.unwrap_or(default.passes_per_hour);
        if passes_per_hour > 3600 {
            self.add("sessions.brake.passes_per_hour", "is more than 3600");
        }
        brake::Limits {
            share: share.unwrap_or(default.share),
            sessions: raw.sessions.unwrap_or(default.sessions),
            pods: raw.pods.unwrap_or(default.pods),
            window,
            passes_per_hour,
            settle,
        }
    }

    fn pods(&mut self, raw: raw::Pods, has_api: bool) -> Option<PodsConfig> {
        match (raw.source.as_str(), raw.dir) {
            ("file", Some(dir)) => return Some(PodsConfig::File { dir, nodes: raw.nodes_dir }),
            ("file", None) => self.add("pods.dir", "is missing: the source `file` needs it"),
            ("kubernetes", dir) => {
                for (field, path) in [("pods.dir", dir), ("pods.nodes_dir", raw.nodes_dir)] {
                    if path.is_some() {
                        self.add(field, "is not read: the source is `kubernetes`");
                    }
                }
                if has_api {
                    return Some(PodsConfig::Kubernetes);
                }
                self.add("kubernetes", "is missing: the source of pods is `kubernetes`");
            }
            _ => self.add("pods.source", "is neither `file` nor `kubernetes`"),
        }
        None
    }

    fn gate(&mut self, raw: &raw::Gate) -> GateConfig {
        let mut cap = |field: &str, number: Option<u32>, default: u32| {
            let number = number.unwrap_or(default);
            NonZeroU32::new(number).unwrap_or_else(|| {
                self.add(field, "a cap of 0 would let nothing pass");
                NonZeroU32::MIN
            })
        };
        let mut caps = |lane: &str, raw: &raw::Lane, (per_second, in_flight): (u32, u32)| Caps {
            per_second: cap(&format!("gate.{lane}.per_second"), raw.per_second, per_second),
            in_flight: cap(&format!("gate.{lane}.in_flight"), raw.in_flight, in_flight),
        };
        GateConfig {
            kdc: caps("kdc", &raw.kdc, (500, 16)),
            kadmin: caps("kadmin", &raw.kadmin, (100, 2)),
        }
    }

    fn roles(&mut self, raw: &raw::Tls, node_tokens: bool) -> RoleRoots {
        if raw.node_ca.is_none() && !node_tokens {
            self.add("tls.node_ca", "is missing, and so is `node_tokens`: no node could call");
        }
        let namespaces = raw.viewer_namespaces.iter().map(|(viewer, names)| {
            let field = format!("tls.viewer_namespaces.{viewer}");
            let namespaces: BTreeSet<Namespace> =
                self.parse_all(&field, names).into_iter().collect();
            (viewer.clone(), namespaces)
        });
        RoleRoots {
            node: raw.node_ca.clone(),
            node_tokens,
            operator: raw.operator_ca.clone(),
            viewer: raw.viewer_ca.clone(),
            viewer_namespaces: namespaces.collect(),
        }
    }

    pub(super) fn rules(&mut self, realm: &str, raw: raw::Entitlements) -> Option<Rules> {
        let realm: Realm = realm.parse().ok()?; // `realm` reports it
        let domain = raw.cluster_domain.as_deref().unwrap_or("cluster.local");
        let mut rules = Rules::new(realm, self.parse("entitlements.cluster_domain", domain)?);
        if let Some(driver) = raw.driver {
            match driver.split_once('/') {
                Some((vendor, name)) if text::is_path_part(vendor) && text::is_path_part(name) => {}
                _ => self.add("entitlements.driver", "is not vendor/driver"),
            }
            rules.driver = driver;
        }
        if let Some(prefix) = raw.annotation_prefix {
            if !text::is_dns_name(&prefix) {
                self.add("entitlements.annotation_prefix", "is not a DNS name");
            }
            rules.annotation_prefix = prefix;
        }
        let wide = self.parse_all("entitlements.realm_wide_services", &raw.realm_wide_services);
        rules.realm_wide_services = wide.into_iter().collect();
        rules.acl_services = raw
            .acl_services
            .map(|names| self.parse_all("entitlements.acl_services", &names).into_iter().collect());
        Some(rules)
    }

    fn realm(&mut self, raw: raw::Realm, walk: WalkTimes) -> Option<RealmConfig> {
        let name: Realm = self.parse("realm.name", &raw.name)?;
        let default = format!("krb-broker/admin@{name}");
        let admin = raw.admin_principal.unwrap_or(default);
        let admin_principal: Principal = self.parse("realm.admin_principal", &admin)?;
        if raw.kdcs.is_empty() {
            self.add("realm.kdcs", "names no KDC");
        }
        let kdcs = raw.kdcs.iter().map(|kdc| ("realm.kdcs", kdc));
        for (field, address) in kdcs.chain([("realm.kadmin", &raw.kadmin)]) {
            if !is_address(address) {
                self.add(field, format!("{address:?} is not host:port"));
            }
        }
        let kadmin_threads = raw.kadmin_threads.unwrap_or(2);
        if !(1..=8).contains(&kadmin_threads) {
            self.add("realm.kadmin_threads", "is not 1 to 8");
        }
        let enctypes = match raw.enctypes {
            Some(names) => self.parse_all("realm.enctypes", &names),
            None => Enctype::ALL.to_vec(),
        };
        if enctypes.is_empty() {
            self.add("realm.enctypes", "names no enctype");
        }
        let life = raw.service_max_life.as_deref();
        let service_max_life = self.span("realm.service_max_life", life, 4 * HOUR);
        let ticket_life = self.span("realm.ticket_life", raw.ticket_life.as_deref(), 4 * HOUR);
        let every = raw.look_at_accounts_every.as_deref();
        let look_at_accounts_every = self.span("realm.look_at_accounts_every", every, HOUR);
        Some(RealmConfig {
            name,
            kdcs: raw.kdcs,
            kadmin: raw.kadmin,
            admin_principal,
            admin_keytab: raw.admin_keytab,
            library: raw.library,
            kadmin_threads,
            policy: raw.policy.unwrap_or_else(|| "krb-broker".to_owned()),
            allowed_reserved: raw.allowed_reserved,
            accounts: raw.accounts,
            enctypes,
            service_max_life,
            ticket_life,
            look_at_accounts_every,
            walk,
            allow_wide_rights: raw.allow_wide_rights,
        })
    }

    fn store(&mut self, raw: raw::Store) -> StoreConfig {
        let every = raw.snapshot_every.as_deref();
        let cache_mib = raw.cache_mib.unwrap_or(64);
        if !(1..=65_536).contains(&cache_mib) {
            self.add("store.cache_mib", "is not 1 to 65536");
        }
        StoreConfig {
            snapshot_every: self.span("store.snapshot_every", every, 10 * MINUTE),
            dir: raw.dir,
            master_key: raw.master_key,
            allow_same_volume: raw.allow_same_volume,
            cache_bytes: cache_mib.saturating_mul(1024 * 1024),
            mark_file: raw.mark_file,
        }
    }

    fn audit(&mut self, raw: raw::Audit) -> audit::file::Settings {
        let mib = raw.max_size_mib.unwrap_or(64);
        if !(1..=1_048_576).contains(&mib) {
            self.add("audit.max_size_mib", "is not 1 to 1048576");
        }
        let days = raw.keep_days.filter(|days| *days > 0);
        if days.is_some_and(|days| days > 36_500) {
            self.add("audit.keep_days", "is more than 36500");
        }
        audit::file::Settings {
            path: raw.file,
            max_bytes: mib.saturating_mul(1024 * 1024),
            keep: Retention {
                files: raw.keep_files.filter(|files| *files > 0),
                age: days.map(|days| Duration::from_secs(days.min(36_500) * 24 * 3600)),
            },
        }
    }
}

fn is_address(text: &str) -> bool {
    let port = |port: &str| port.parse::<u16>().is_ok_and(|port| port != 0);
    let host = |host: &str| !host.is_empty() && !host.contains(char::is_whitespace);
    text.rsplit_once(':').is_some_and(|(h, p)| host(h) && port(p))
}
