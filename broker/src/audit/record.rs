//! One event and its line.
//!
//! A line is one JSON object with its fields in a fixed order, absent ones left out. Names
//! and numbers have types of their own; free text is cut and cleaned on its way in, so that
//! no text from outside can end a line, hide a field or grow without bound.

use std::{fmt, time::SystemTime};

use krb_proto::{
    Generation, Kvno, LeaseId, Namespace, NodeName, PodRef, PodUid, Principal, VolumeName,
    reason::Reason,
};
use serde::Serialize;

use super::{
    chain::{ChainKey, Head, Mac},
    event::{Actor, Event, Exposure, Outcome},
};
use crate::{entitlement::Login, krb5::key::Enctype};

/// The format of the lines.
const VERSION: u8 = 1;

/// The longest free text of a field, in characters; what is cut ends in `...`.
pub const MAX_TEXT: usize = 1_024;

/// The most kvnos or enctypes that a line names.
const MAX_LIST: usize = 64;

/// One event, as its writer knows it. The log adds `seq` and `time`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Record {
    event: Event,
    #[serde(serialize_with = "as_text")]
    actor: Actor,
    outcome: Outcome,
    #[serde(flatten)]
    fields: Box<Fields>,
}

/// The fields that an event may have, in the order of the line.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    node: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pod_uid: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    volume: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    kvnos: Vec<u32>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    enctypes: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endtime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exposed_until: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    happened: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    first: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    previous: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
}

/// What makes a denial equal to another of its actor: reason, rule, pod and volume.
pub(super) type Likeness = (Option<&'static str>, Option<String>, Option<String>, Option<String>);

impl Record {
    /// An event with its usual outcome.
    pub fn new(event: Event, actor: Actor) -> Self {
        Self { event, actor, outcome: event.usual_outcome(), fields: Box::default() }
    }

    /// What happened.
    pub fn event(&self) -> Event {
        self.event
    }

    /// How it ended, where that is not the usual.
    #[must_use]
    pub fn outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// The stable reason of a denial or failure.
    #[must_use]
    pub fn reason(self, reason: Reason) -> Self {
        self.with(|fields| fields.reason = Some(reason.as_str()))
    }

    /// The rule that granted, or the one that was missing, in full.
    #[must_use]
    pub fn rule(self, rule: &str) -> Self {
        self.with(|fields| fields.rule = Some(cleaned(rule)))
    }

    /// The lease.
    #[must_use]
    pub fn lease(self, lease: LeaseId) -> Self {
        self.with(|fields| fields.lease = Some(lease.to_string()))
    }

    /// The cluster, where no pod says it.
    #[must_use]
    pub fn cluster(self, cluster: &str) -> Self {
        self.with(|fields| fields.cluster = Some(cleaned(cluster)))
    }

    /// The node that holds, asked or is spoken of.
    #[must_use]
    pub fn node(self, node: &NodeName) -> Self {
        self.with(|fields| fields.node = Some(node.to_string()))
    }

    /// The node's generation.
    #[must_use]
    pub fn generation(self, generation: Generation) -> Self {
        self.with(|fields| fields.generation = Some(generation.0))
    }

    /// The namespace, where no pod says it.
    #[must_use]
    pub fn namespace(self, namespace: &Namespace) -> Self {
        self.with(|fields| fields.namespace = Some(namespace.to_string()))
    }

    /// The pod: its cluster, namespace, name and uid.
    #[must_use]
    pub fn pod(self, pod: &PodRef) -> Self {
        self.with(|fields| {
            fields.cluster = Some(cleaned(&pod.cluster));
            fields.namespace = Some(pod.namespace.to_string());
            fields.pod = Some(pod.name.to_string());
            fields.pod_uid = Some(pod.uid.to_string());
        })
    }

    /// The pod's uid, where no more is known of it.
    #[must_use]
    pub fn pod_uid(self, uid: &PodUid) -> Self {
        self.with(|fields| fields.pod_uid = Some(uid.to_string()))
    }

    /// The pod's volume.
    #[must_use]
    pub fn volume(self, volume: &VolumeName) -> Self {
        self.with(|fields| fields.volume = Some(volume.to_string()))
    }

    /// The role account that the pod runs as.
    #[must_use]
    pub fn account(self, account: &Login) -> Self {
        self.with(|fields| fields.account = Some(account.to_string()))
    }

    /// The principal whose key or ticket it is.
    #[must_use]
    pub fn principal(self, principal: &Principal) -> Self {
        self.with(|fields| fields.principal = Some(principal.to_string()))
    }

    /// The numbers of its keys.
    #[must_use]
    pub fn kvnos(self, kvnos: impl IntoIterator<Item = Kvno>) -> Self {
        self.with(|fields| fields.kvnos = kvnos.into_iter().take(MAX_LIST).map(|k| k.0).collect())
    }

    /// Their enctypes.
    #[must_use]
    pub fn enctypes(self, enctypes: impl IntoIterator<Item = Enctype>) -> Self {
        let names = enctypes.into_iter().take(MAX_LIST).map(Enctype::name).collect();
        self.with(|fields| fields.enctypes = names)
    }

    /// The ticket's end.
    #[must_use]
    pub fn endtime(self, endtime: SystemTime) -> Self {
        self.with(|fields| fields.endtime = Some(time(endtime)))
    }

    /// Until when what was handed out can be misused.
    #[must_use]
    pub fn exposed_until(self, exposure: Exposure) -> Self {
        let text = match exposure {
            Exposure::Open => "open".to_owned(),
            Exposure::Until(end) => time(end),
        };
        self.with(|fields| fields.exposed_until = Some(text))
    }

    /// Anything else that an auditor would ask, in a sentence.
    #[must_use]
    pub fn detail(self, detail: &str) -> Self {
        self.with(|fields| fields.detail = (!detail.is_empty()).then(|| cleaned(detail)))
    }

    /// When it happened, where its line is written later.
    #[must_use]
    pub(crate) fn happened(self, at: SystemTime) -> Self {
        self.with(|fields| fields.happened = fields.happened.take().or_else(|| Some(time(at))))
    }

    /// That the line stands for so many events, the first and last of them then.
    #[must_use]
    pub(super) fn merged(self, count: u64, first: SystemTime, last: SystemTime) -> Self {
        self.with(|fields| {
            fields.count = Some(count);
            fields.first = Some(time(first));
            fields.last = Some(time(last));
        })
    }

    /// That it begins a file: where the file before ended, and under which key both are.
    #[must_use]
    pub(super) fn begins_after(self, previous: Head, key: &ChainKey) -> Self {
        self.with(|fields| {
            fields.previous = Some(previous.to_string());
            fields.key = Some(key.id().to_string());
        })
    }

    /// Who made it happen.
    pub(super) fn actor(&self) -> &Actor {
        &self.actor
    }

    /// What makes it equal to another of its actor.
    pub(super) fn likeness(&self) -> Likeness {
        let fields = &self.fields;
        (fields.reason, fields.rule.clone(), fields.pod_uid.clone(), fields.volume.clone())
    }

    fn with(mut self, set: impl FnOnce(&mut Fields)) -> Self {
        set(&mut self.fields);
        self
    }

    /// Its line, with the newline, and the line's MAC.
    pub(super) fn line(
        &self,
        seq: u64,
        now: SystemTime,
        key: &ChainKey,
        previous: Mac,
    ) -> (String, Mac) {
        let line = Line { v: VERSION, seq, time: time(now), record: self };
        let text = serde_json::to_string(&line).expect("a record is text and numbers");
        key.seal(previous, &text)
    }
}

#[derive(Serialize)]
struct Line<'a> {
    v: u8,
    seq: u64,
    time: String,
    #[serde(flatten)]
    record: &'a Record,
}

fn as_text<S: serde::Serializer>(value: &impl fmt::Display, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&cleaned(&value.to_string()))
}

/// RFC 3339 in UTC with microseconds; a time outside the years 1 to 9999 as its nearer end.
fn time(at: SystemTime) -> String {
    let stamp = jiff::Timestamp::try_from(at).unwrap_or(if at < SystemTime::UNIX_EPOCH {
        jiff::Timestamp::MIN
    } else {
        jiff::Timestamp::MAX
    });
    format!("{stamp:.6}")
}

/// The text, cut to [`MAX_TEXT`] characters, with U+FFFD for whatever ends a line, is not
/// shown, or turns the direction of writing.
fn cleaned(text: &str) -> String {
    let unfit = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
            || matches!(c, '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    let mut cleaned: String =
        text.chars().take(MAX_TEXT).map(|c| if unfit(c) { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(MAX_TEXT).is_some() {
        cleaned.push_str("...");
    }
    cleaned
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use krb_proto::Secret;
    use proptest::prelude::*;

    use super::*;
    use crate::store::seal::MasterKey;

    fn at(micros: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_micros(micros)
    }

    fn pod() -> PodRef {
        PodRef {
            cluster: "blue".into(),
            namespace: "tsfoo".parse().unwrap(),
            name: "web-0".parse().unwrap(),
            uid: "6f1c".parse().unwrap(),
        }
    }

    /// The line as the log has it after no other.
    fn line(record: &Record, seq: u64, now: SystemTime) -> String {
        record.line(seq, now, &ChainKey::new(&master()), Mac::default()).0
    }

    fn master() -> MasterKey {
        MasterKey::new(Secret::new((0..32).collect())).unwrap()
    }

    /// A record with every field set that its writer sets.
    fn full() -> Record {
        let node: NodeName = "node-a".parse().unwrap();
        Record::new(Event::LeaseGranted, Actor::Node(node.clone()))
            .reason(Reason::Fenced)
            .rule("services of tsfoo")
            .lease(LeaseId::from_random([0xab; 16]))
            .node(&node)
            .generation(Generation(3))
            .pod(&pod())
            .volume(&"krb".parse().unwrap())
            .account(&"tsfoo".parse().unwrap())
            .principal(&"HTTP/web.tsfoo.svc.cluster.local@EXAMPLE.COM".parse().unwrap())
            .kvnos([Kvno(2), Kvno(3)])
            .enctypes([Enctype::Aes256Sha1, Enctype::Aes128Sha1])
            .endtime(at(1_700_000_000_000_001))
            .exposed_until(Exposure::Until(at(1_700_000_300_000_000)))
            .detail("first mount")
    }

    #[test]
    fn the_line_of_a_full_record_is_fixed() {
        assert_eq!(
            line(&full(), 7, at(1_700_000_000_123_456)),
            concat!(
                r#"{"v":1,"seq":7,"time":"2023-11-14T22:13:20.123456Z","event":"lease.granted","#,
                r#""actor":"node:node-a","outcome":"granted","reason":"FENCED","#,
                r#""rule":"services of tsfoo","lease":"abababababababababababababababab","#,
                r#""cluster":"blue","node":"node-a","generation":3,"namespace":"tsfoo","#,
                r#""pod":"web-0","pod_uid":"6f1c","volume":"krb","account":"tsfoo","#,
                r#""principal":"HTTP/web.tsfoo.svc.cluster.local@EXAMPLE.COM","kvnos":[2,3],"#,
                r#""enctypes":["aes256-cts-hmac-sha1-96","aes128-cts-hmac-sha1-96"],"#,
                r#""endtime":"2023-11-14T22:13:20.000001Z","#,
                r#""exposed_until":"2023-11-14T22:18:20.000000Z","detail":"first mount","#,
                r#""mac":"ee8392ac7e220ea5ebf9526cdd310df9"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn the_manual_shows_a_line_as_it_is_and_names_every_event() {
        let manual = include_str!("../../../docs/audit.md");
        let mut record = full();
        record.fields.reason = None;
        record.fields.endtime = None;
        record.fields.detail = None;
        record.fields.enctypes.truncate(1);
        let line = line(&record.exposed_until(Exposure::Open), 7, at(1_700_000_000_123_456));
        assert!(manual.contains(&line), "{line}");
        for event in Event::ALL {
            assert!(manual.contains(&format!("`{event}`")), "{event}");
        }
    }

    #[test]
    fn a_bare_record_has_only_what_every_line_has() {
        assert_eq!(
            line(&Record::new(Event::BrokerStarted, Actor::Broker), 1, at(0)),
            concat!(
                r#"{"v":1,"seq":1,"time":"1970-01-01T00:00:00.000000Z","#,
                r#""event":"broker.started","actor":"broker","outcome":"done","#,
                r#""mac":"02bd8855d649177ab0c151037966ede3"}"#,
                "\n"
            )
        );
    }

    #[test]
    fn an_open_exposure_says_so() {
        let record = Record::new(Event::LeaseGranted, Actor::Broker).exposed_until(Exposure::Open);
        assert!(line(&record, 1, at(0)).contains(r#""exposed_until":"open""#));
    }

    #[test]
    fn text_from_outside_can_neither_end_a_line_nor_hide_a_field() {
        let record = Record::new(Event::CallDenied, Actor::Unknown("a\n{\"v\":1}\u{202e}".into()))
            .detail(&"\u{7f}\r\n\0\"\\".repeat(1_000));
        let line = line(&record, 1, at(0));
        assert_eq!(line.matches('\n').count(), 1);
        assert!(!line.contains('\u{202e}') && !line.contains('\u{7f}'));
        let read: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["actor"], "unknown:a\u{fffd}{\"v\":1}\u{fffd}");
        assert_eq!(read["detail"].as_str().unwrap().chars().count(), MAX_TEXT + 3);
    }

    proptest! {
        #[test]
        fn any_text_gives_one_line_that_reads_back(text in ".{0,80}|\\PC{0,2000}") {
            let record = Record::new(Event::KeyFailed, Actor::Operator(text.clone()));
            let line = line(&record.rule(&text).detail(&text), u64::MAX, at(u64::MAX / 4));
            prop_assert_eq!(line.matches('\n').count(), 1);
            prop_assert!(line.len() < 20_000);
            let read: serde_json::Value = serde_json::from_str(&line).unwrap();
            prop_assert_eq!(read["seq"].as_u64(), Some(u64::MAX));
        }
    }
}
