//! Follows the objects of one kind: a list in pages, then a watch, for as long as the broker runs.
//!
//! The loop is our own and not `kube::runtime::watcher`, which tells nobody of bookmarks nor of
//! whether it is connected: a view that nobody has confirmed gives no authority.
//!
//! A watch that breaks is resumed where it was. Before that the store is looked at: one that has
//! gone back, or is another one, knows nothing of that place, and an API server may then keep
//! such a watch waiting for ever. Then, and when the place is too old (410), there is a new list.

use std::{sync::Arc, time::Duration};

use futures::TryStreamExt;
use kube::{
    Client,
    core::{
        Request, WatchEvent,
        params::{GetParams, ListParams, WatchParams},
    },
};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::view::Told;
use crate::clock::Clock;

/// How many objects a page has. Each may be a megabyte or so, and a page is held as a whole.
const PAGE: u32 = 100;
/// How long the API server keeps a watch, in seconds; just under the client's own limit.
const WATCH: u32 = 290;
/// The waits between attempts: from the first, doubling, to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(8);

/// How long an answer may take, a page of a list too.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a watch may be quiet: the API server marks the place each minute or so. A connection
/// that nobody is at the other end of looks the same.
const QUIET: Duration = Duration::from_secs(100);

/// Follows one kind.
pub struct Watching {
    client: Client,
    clock: Arc<dyn Clock>,
    told: Arc<dyn Told>,
    request: Request,
    wait: Duration,
}

/// A place in the history of a store.
#[derive(Clone, Debug)]
struct Place {
    /// Which store: the uid of its namespace kube-system, which lives as long as the cluster.
    store: Option<String>,
    version: String,
}

/// Why a watch can't be resumed.
enum Over {
    /// Its place is forgotten, or is of another store.
    Lost,
    /// It must be tried again.
    Broken(kube::Error),
}

impl From<kube::Error> for Over {
    fn from(error: kube::Error) -> Self {
        match &error {
            kube::Error::Api(status) if status.code == 410 => Self::Lost,
            _ => Self::Broken(error),
        }
    }
}

impl Watching {
    /// Follows what `told` names. Nothing is asked yet.
    pub fn new(client: Client, clock: Arc<dyn Clock>, told: Arc<dyn Told>) -> Self {
        let request = Request::new(told.path());
        Self { client, clock, told, request, wait: FIRST_WAIT }
    }

    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        stop.run_until_cancelled(self.follow()).await;
    }

    async fn follow(&mut self) {
        loop {
            let place = match self.list().await {
                Ok(place) => place,
                Err(error) => {
                    self.pause(&error, "can't be listed").await;
                    continue;
                }
            };
            self.wait = FIRST_WAIT;
            self.watch_from(place).await;
            tracing::info!(path = self.told.path(), "listed anew: the watch has lost its place");
        }
    }

    /// Lists all objects, page by page.
    async fn list(&self) -> Result<Place, kube::Error> {
        let began = self.clock.now();
        self.told.begin_list();
        let store = self.store().await?;
        let mut page = ListParams::default().limit(PAGE);
        loop {
            let request = self.request.list(&page).map_err(kube::Error::BuildRequest)?;
            let said: Value = self.answer(request).await?;
            let now = self.clock.now();
            for object in said["items"].as_array().into_iter().flatten() {
                self.told.put(object, now);
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let version = text(&said["metadata"]["resourceVersion"]);
            let next = text(&said["metadata"]["continue"]);
            if next.is_empty() {
                self.told.end_list(began);
                return Ok(Place { store, version });
            }
            page = ListParams::default().limit(PAGE).continue_token(&next);
        }
    }

    /// Watches from a place on, and resumes, until the place is lost.
    async fn watch_from(&mut self, mut place: Place) {
        loop {
            let outcome = self.watch(&mut place).await;
            self.told.lost();
            match outcome {
                Ok(()) => tokio::time::sleep(FIRST_WAIT).await, // it ended in its own time
                Err(Over::Lost) => return,
                Err(Over::Broken(error)) => self.pause(&error, "can't be watched").await,
            }
            loop {
                match self.is_still_there(&place).await {
                    Ok(true) => break,
                    Ok(false) => return,
                    Err(error) => self.pause(&error, "can't be watched").await,
                }
            }
        }
    }

    /// One watch, until it ends.
    async fn watch(&mut self, place: &mut Place) -> Result<(), Over> {
        let params = WatchParams::default().timeout(WATCH);
        let request = self.request.watch(&params, &place.version);
        let request = request.map_err(kube::Error::BuildRequest)?;
        let events = within(ANSWER, self.client.request_events::<Value>(request)).await?;
        let mut events = std::pin::pin!(events);
        self.told.connected();
        while let Some(event) = within(QUIET, events.try_next()).await? {
            let now = self.clock.now();
            let version = match &event {
                WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                    self.told.put(object, now);
                    object["metadata"]["resourceVersion"].as_str()
                }
                WatchEvent::Deleted(object) => {
                    self.told.remove(object, now);
                    object["metadata"]["resourceVersion"].as_str()
                }
                WatchEvent::Bookmark(mark) => Some(mark.metadata.resource_version.as_str()),
                WatchEvent::Error(status) => {
                    return Err(kube::Error::Api(status.clone()).into());
                }
            };
            if let Some(version) = version {
                version.clone_into(&mut place.version);
            }
            self.told.heard(now);
            self.wait = FIRST_WAIT;
        }
        Ok(())
    }

    /// Whether the store is the one that the place is in, and has come as far.
    async fn is_still_there(&self, place: &Place) -> Result<bool, kube::Error> {
        if self.store().await? != place.store {
            tracing::error!(
                path = self.told.path(),
                "STORE: the API server answers from another store than before"
            );
            return Ok(false);
        }
        let first = self.request.list(&ListParams::default().limit(1));
        let said: Value = self.answer(first.map_err(kube::Error::BuildRequest)?).await?;
        let number = |version: &str| version.parse::<u64>().ok();
        let now = said["metadata"]["resourceVersion"].as_str().and_then(number);
        let ours = number(&place.version);
        let gone_back = now.zip(ours).is_none_or(|(now, ours)| now < ours);
        if gone_back {
            tracing::error!(
                path = self.told.path(),
                "STORE: the API server's store has gone back to an earlier time"
            );
        }
        Ok(!gone_back)
    }

    /// Which store the API server answers from.
    async fn store(&self) -> Result<Option<String>, kube::Error> {
        let request = Request::new("/api/v1/namespaces").get("kube-system", &GetParams::default());
        let request = request.map_err(kube::Error::BuildRequest)?;
        match self.answer(request).await {
            Ok(object) => Ok(object["metadata"]["uid"].as_str().map(str::to_owned)),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn answer(&self, request: http::Request<Vec<u8>>) -> Result<Value, kube::Error> {
        within(ANSWER, self.client.request(request)).await
    }

    /// Says why it pauses, and pauses.
    async fn pause(&mut self, error: &kube::Error, what: &str) {
        let path = self.told.path();
        let error = super::client::described(error);
        tracing::warn!(path, error, "the objects {what} now; trying again");
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(LONGEST_WAIT);
    }
}

/// Waits so long at most.
async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, kube::Error> {
    let late = |_| kube::Error::Service(format!("nothing came for {} s", limit.as_secs()).into());
    tokio::time::timeout(limit, work).await.map_err(late)?
}
