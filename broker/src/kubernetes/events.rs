//! Notices as core/v1 Events on their pods.
//!
//! One task writes them, one at a time: an Event is created for the first of its kind, and then its
//! count and time are patched. Whatever the API server answers, nobody waits for it; failures are
//! told to the log once a minute.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use k8s_openapi::{
    api::core::v1::{Event, EventSource, ObjectReference},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Boottime, Clock},
    notices::{
        About, Notice, Notices,
        merge::{Merge, Next, Outcome, Write},
    },
};

/// Who reports.
const COMPONENT: &str = "krb-broker";
/// How long one write may take.
const WITHIN: Duration = Duration::from_secs(5);
/// How often what was lost is told to the log.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// Writes Events.
pub struct Events {
    client: Client,
    clock: Arc<dyn Clock>,
    merge: Mutex<Merge>,
    woken: Notify,
}

/// What went wrong since the log was last told.
#[derive(Debug, Default)]
struct Trouble {
    failed: u64,
    last: String,
    told: Option<Boottime>,
}

impl Events {
    /// Writes by this client, which may create and patch events, once [`Self::run`] runs.
    pub fn new(client: Client, clock: Arc<dyn Clock>) -> Self {
        Self { client, clock, merge: Mutex::default(), woken: Notify::new() }
    }

    /// Writes what is told until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut trouble = Trouble::default();
        while !stop.is_cancelled() {
            let next = self.merge().next(self.clock.now());
            match next {
                Next::Write(due) => {
                    let written = tokio::time::timeout(WITHIN, self.write(&due));
                    let Some(written) = stop.run_until_cancelled(written).await else { return };
                    let late = |_| Err("the API server takes too long".to_owned());
                    let outcome = written.unwrap_or_else(late).unwrap_or_else(|why| {
                        (trouble.failed, trouble.last) = (trouble.failed + 1, why);
                        Outcome::Failed
                    });
                    self.merge().done(&due, outcome);
                }
                Next::After(wait) => {
                    stop.run_until_cancelled(tokio::time::sleep(wait)).await;
                }
                Next::Nothing => {
                    let woken = tokio::time::timeout(TELL_EVERY, self.woken.notified());
                    let _told_or_not = stop.run_until_cancelled(woken).await;
                }
            }
            self.tell_log(&mut trouble);
        }
    }

    fn tell_log(&self, trouble: &mut Trouble) {
        let now = self.clock.now().boot;
        if trouble.told.is_some_and(|told| now.since(told) < TELL_EVERY) {
            return;
        }
        let (dropped, failed) = (self.merge().take_dropped(), std::mem::take(&mut trouble.failed));
        if dropped > 0 || failed > 0 {
            trouble.told = Some(now);
            let error = std::mem::take(&mut trouble.last);
            tracing::warn!(dropped, failed, error, "owners of pods were not told of everything");
        }
    }

    async fn write(&self, due: &Write) -> Result<Outcome, String> {
        let namespace = due.notice.pod.namespace.as_str();
        let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let patch = || {
            let last = Time::from(stamp(due.last));
            let counted = json!({"count": due.count, "lastTimestamp": last});
            Patch::Merge(counted)
        };
        let params = PatchParams::default();
        if due.again {
            return match events.patch(&due.name, &params, &patch()).await {
                Ok(_) => Ok(Outcome::Written),
                Err(kube::Error::Api(status)) if status.code == 404 => Ok(Outcome::Gone),
                Err(error) => Err(crate::audit::chain(&error)),
            };
        }
        match events.create(&PostParams::default(), &event(due)).await {
            Ok(_) => Ok(Outcome::Written),
            // the answer to an earlier attempt was lost
            Err(kube::Error::Api(status)) if status.code == 409 => {
                let patched = events.patch(&due.name, &params, &patch()).await;
                patched.map(|_| Outcome::Written).map_err(|error| crate::audit::chain(&error))
            }
            Err(error) => Err(crate::audit::chain(&error)),
        }
    }

    fn merge(&self) -> MutexGuard<'_, Merge> {
        self.merge.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Notices for Events {
    fn tell(&self, notice: Notice) {
        self.merge().take(notice, self.clock.now());
        self.woken.notify_one();
    }
}

fn stamp(at: SystemTime) -> jiff::Timestamp {
    jiff::Timestamp::try_from(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH)
}

/// The Event as it is first written. Its namespace is that of its pod: the API server insists.
fn event(due: &Write) -> Event {
    let (pod, about) = (&due.notice.pod, due.notice.about);
    let kind = if about == About::Delayed { "Normal" } else { "Warning" };
    Event {
        metadata: ObjectMeta {
            name: Some(due.name.clone()),
            namespace: Some(pod.namespace.to_string()),
            ..ObjectMeta::default()
        },
        involved_object: ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            namespace: Some(pod.namespace.to_string()),
            name: Some(pod.name.to_string()),
            uid: Some(pod.uid.to_string()),
            ..ObjectReference::default()
        },
        reason: Some(about.reason().to_owned()),
        message: Some(due.notice.text.clone()),
        type_: Some(kind.to_owned()),
        count: i32::try_from(due.count).ok(),
        first_timestamp: Some(Time::from(stamp(due.first))),
        last_timestamp: Some(Time::from(stamp(due.last))),
        source: Some(EventSource { component: Some(COMPONENT.to_owned()), host: None }),
        reporting_component: Some(COMPONENT.to_owned()),
        ..Event::default()
    }
}
