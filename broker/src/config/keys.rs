//! `[keys]`: how often keys are replaced, and what becomes of principals that nobody uses.

use std::time::Duration;

use serde::Deserialize;

use super::{check::Checker, raw};
use crate::keys::{
    schedule::{Pattern, Schedule},
    upkeep::IdleTimes,
    walk::WalkTimes,
};

/// How keys live.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KeysConfig {
    /// When they are replaced in their own time.
    pub schedule: Schedule,
    /// How long principals may be without a holder.
    pub idle: IdleTimes,
    /// In which time every principal is compared with the KDCs once.
    pub compare_within: Duration,
}

/// The section as it is written.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Raw {
    pub rekey_min_interval: Option<String>,
    pub holder_deadline: Option<String>,
    #[serde(default)]
    pub rotate: Vec<Rotate>,
    pub idle_after: Option<String>,
    pub pod_idle_after: Option<String>,
    pub compare_within: Option<String>,
}

/// One rule of `rotate`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotate {
    pub principals: String,
    pub every: String,
}

const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

impl Checker<'_> {
    pub(super) fn keys(&mut self, raw: &Raw) -> KeysConfig {
        let mut span = |field, text: &Option<String>, default| {
            self.span(&format!("keys.{field}"), text.as_deref(), default)
        };
        KeysConfig {
            idle: IdleTimes {
                disable: span("idle_after", &raw.idle_after, 7 * DAY),
                delete: span("pod_idle_after", &raw.pod_idle_after, HOUR),
            },
            compare_within: span("compare_within", &raw.compare_within, DAY),
            schedule: Schedule(raw.rotate.iter().filter_map(|rule| self.rotate(rule)).collect()),
        }
    }

    fn rotate(&mut self, rule: &Rotate) -> Option<(Pattern, Duration)> {
        let pattern = self.parse("keys.rotate.principals", &rule.principals)?;
        Some((pattern, self.span("keys.rotate.every", Some(&rule.every), DAY)))
    }

    pub(super) fn walk(&mut self, raw: &raw::Realm, keys: &Raw) -> WalkTimes {
        let default = WalkTimes::default();
        let mut span = |field: &str, text: &Option<String>, default| {
            self.span(field, text.as_deref(), default)
        };
        WalkTimes {
            acknowledge_within: span(
                "realm.acknowledge_within",
                &raw.acknowledge_within,
                default.acknowledge_within,
            ),
            holder_deadline: span(
                "keys.holder_deadline",
                &keys.holder_deadline,
                default.holder_deadline,
            ),
            rekey_min_interval: span(
                "keys.rekey_min_interval",
                &keys.rekey_min_interval,
                default.rekey_min_interval,
            ),
            kdc_propagation: span(
                "realm.kdc_propagation",
                &raw.kdc_propagation,
                default.kdc_propagation,
            ),
            clock_skew: span("realm.clock_skew", &raw.clock_skew, default.clock_skew),
        }
    }
}
