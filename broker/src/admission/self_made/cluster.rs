//! The three objects of the API that a self-made certificate needs, each by its one name.

use std::collections::BTreeMap;

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, ObjectMeta, PostParams},
};
use serde_json::{Value, json};

use crate::config::admission::SelfMade;

/// The API server did not do what was asked.
#[derive(Debug, thiserror::Error)]
#[error("{doing}")]
pub struct ClusterError {
    doing: String,
    source: Box<kube::Error>,
}

impl ClusterError {
    /// Whether someone else wrote first.
    pub fn is_conflict(&self) -> bool {
        matches!(&*self.source, kube::Error::Api(s) if s.is_conflict() || s.is_already_exists())
    }
}

/// The way to the objects.
pub struct Cluster {
    secrets: Api<Secret>,
    secret: String,
    configurations: [(Api<DynamicObject>, String); 2],
}

/// The Secret as it was read.
pub struct StoredSecret {
    /// What it holds; nothing where it is not there.
    pub entries: BTreeMap<String, Vec<u8>>,
    object: Option<Secret>,
}

/// A webhook configuration as it was read.
pub struct Configuration {
    which: usize,
    object: DynamicObject,
}

impl Cluster {
    /// The way to the objects of these names.
    pub fn new(client: Client, settings: &SelfMade) -> Self {
        let api = |kind: &str| {
            let resource = ApiResource {
                group: "admissionregistration.k8s.io".to_owned(),
                version: "v1".to_owned(),
                api_version: "admissionregistration.k8s.io/v1".to_owned(),
                kind: kind.to_owned(),
                plural: format!("{}s", kind.to_ascii_lowercase()),
            };
            Api::all_with(client.clone(), &resource)
        };
        Self {
            secrets: Api::namespaced(client.clone(), &settings.namespace),
            secret: settings.secret.clone(),
            configurations: [
                (api("MutatingWebhookConfiguration"), settings.mutating.clone()),
                (api("ValidatingWebhookConfiguration"), settings.validating.clone()),
            ],
        }
    }

    /// Both configurations as they are now.
    ///
    /// # Errors
    /// When one is not there, or can't be read.
    pub async fn configurations(&self) -> Result<Vec<Configuration>, ClusterError> {
        let mut read = Vec::new();
        for (which, (api, name)) in self.configurations.iter().enumerate() {
            let failed = failed(format!("reading the webhook configuration {name}"));
            let object = api.get(name).await.map_err(failed)?;
            read.push(Configuration { which, object });
        }
        Ok(read)
    }

    /// The Secret as it is now.
    ///
    /// # Errors
    /// When it can't be read.
    pub async fn secret(&self) -> Result<StoredSecret, ClusterError> {
        let read = self.secrets.get_opt(&self.secret).await;
        let object = read.map_err(failed(format!("reading the Secret {}", self.secret)))?;
        let data = object.as_ref().and_then(|object| object.data.clone()).unwrap_or_default();
        let entries = data.into_iter().map(|(name, bytes)| (name, bytes.0)).collect();
        Ok(StoredSecret { entries, object })
    }

    /// Puts `entries` in the place of what `read` holds, if nobody else wrote since.
    ///
    /// # Errors
    /// When somebody did, or it can't be written.
    pub async fn write_secret(
        &self,
        read: &StoredSecret,
        entries: BTreeMap<String, Vec<u8>>,
    ) -> Result<(), ClusterError> {
        let data = entries.into_iter().map(|(name, bytes)| (name, ByteString(bytes))).collect();
        let params = PostParams::default();
        let written = match read.object.clone() {
            Some(object) => {
                let object = Secret { data: Some(data), ..object };
                self.secrets.replace(&self.secret, &params, &object).await
            }
            None => {
                let name = Some(self.secret.clone());
                let metadata = ObjectMeta { name, ..ObjectMeta::default() };
                let object = Secret { metadata, data: Some(data), ..Secret::default() };
                self.secrets.create(&params, &object).await
            }
        };
        written.map(drop).map_err(failed(format!("writing the Secret {}", self.secret)))
    }

    /// Makes every webhook of a configuration believe these CAs, PEM, if nobody else wrote
    /// since it was read.
    ///
    /// # Errors
    /// When somebody did, or it can't be written.
    pub async fn trust(&self, read: Configuration, bundle: &str) -> Result<(), ClusterError> {
        let Configuration { which, mut object } = read;
        if !set_bundle(&mut object.data, bundle) {
            return Ok(());
        }
        let (api, name) = &self.configurations[which];
        let written = api.replace(name, &PostParams::default(), &object).await;
        written.map(drop).map_err(failed(format!("writing the webhook configuration {name}")))
    }
}

/// Sets `caBundle` of every webhook; whether that changes anything.
fn set_bundle(configuration: &mut Value, bundle: &str) -> bool {
    let bundle = json!(ByteString(bundle.as_bytes().to_vec()));
    let mut changed = false;
    let webhooks = configuration["webhooks"].as_array_mut();
    for webhook in webhooks.into_iter().flatten() {
        let client = webhook.get_mut("clientConfig").and_then(Value::as_object_mut);
        let Some(client) = client else { continue };
        changed |= client.insert("caBundle".to_owned(), bundle.clone()).as_ref() != Some(&bundle);
    }
    changed
}

fn failed(doing: String) -> impl FnOnce(kube::Error) -> ClusterError {
    move |source| ClusterError { doing, source: Box::new(source) }
}
