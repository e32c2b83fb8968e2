//! What tenants write: pods and what makes pods, with annotations and nothing of volumes.

use krb_tests::world::Account;
use serde_json::{Map, Value, json};

/// What pods call our driver.
pub const DRIVER: &str = "krb-broker/credentials";

/// What makes the pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Nothing: it is applied itself.
    Pod,
    /// A Deployment.
    Deployment,
    /// A StatefulSet.
    StatefulSet,
    /// A Job: its pods end.
    Job,
}

impl Kind {
    /// Its name in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pod => "Pod",
            Self::Deployment => "Deployment",
            Self::StatefulSet => "StatefulSet",
            Self::Job => "Job",
        }
    }
}

/// A manifest in the making. A pod of its tenant's account with the container `main` that sleeps,
/// the label `app: web`, and no ask.
#[derive(Clone, Debug)]
pub struct Workload {
    kind: Kind,
    tenant: Account,
    name: String,
    replicas: u32,
    annotations: Map<String, Value>,
    labels: Map<String, Value>,
    spec: Map<String, Value>,
    main: Map<String, Value>,
}

/// A container that runs a shell command in the image of Kerberos tools.
fn container(name: &str, image: &str, script: &str) -> Map<String, Value> {
    let object = json!({
        "name": name,
        "image": image,
        "imagePullPolicy": "Never",
        "command": ["sh", "-c", script],
    });
    object.as_object().cloned().unwrap_or_default()
}

impl Workload {
    /// One of this kind.
    pub fn new(kind: Kind, tenant: &Account, name: &str, image: &str) -> Self {
        let spec = json!({
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "securityContext": {"runAsUser": tenant.uid, "runAsGroup": tenant.uid + 1},
            // a pod of a Job that fails says why once, not again and again
            "restartPolicy": if kind == Kind::Job { "Never" } else { "Always" },
        });
        let labels = json!({"app": "web", "workload": name});
        Self {
            kind,
            tenant: tenant.clone(),
            name: name.to_owned(),
            replicas: 1,
            annotations: Map::new(),
            labels: labels.as_object().cloned().unwrap_or_default(),
            spec: spec.as_object().cloned().unwrap_or_default(),
            main: container("main", image, "exec sleep 100000"),
        }
    }

    /// Asks for the keytab of a service, or of several, separated by commas.
    pub fn services(self, services: &str) -> Self {
        self.annotation("ts/services", services)
    }

    /// Asks for a ticket of the account.
    pub fn ticket(self) -> Self {
        self.annotation("ts/prestashtkt", "true")
    }

    /// Adds an annotation.
    pub fn annotation(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.into());
        self
    }

    /// Sets a label of the pod.
    pub fn label(mut self, name: &str, value: &str) -> Self {
        self.labels.insert(name.to_owned(), value.into());
        self
    }

    /// Binds its pods to a node, without the scheduler.
    pub fn on(self, node: &str) -> Self {
        self.set("nodeName", node.into())
    }

    /// How many pods, of what makes pods.
    pub fn replicas(mut self, replicas: u32) -> Self {
        self.replicas = replicas;
        self
    }

    /// What `main` runs in a shell.
    pub fn script(mut self, script: &str) -> Self {
        self.main.insert("command".to_owned(), json!(["sh", "-c", script]));
        self
    }

    /// A second container beside `main`, with the same image.
    pub fn beside(self, name: &str, script: &str) -> Self {
        self.add("containers", name, script)
    }

    /// An init container, with the same image.
    pub fn init(self, name: &str, script: &str) -> Self {
        self.add("initContainers", name, script)
    }

    /// An emptyDir in `main`, as a measure for what a volume costs.
    pub fn empty_dir(mut self) -> Self {
        self.main.insert("volumeMounts".to_owned(), json!([{"name": "e", "mountPath": "/e"}]));
        self.set("volumes", json!([{"name": "e", "emptyDir": {}}]))
    }

    /// A volume of our driver in `main` that its owner wrote by hand, with these options.
    pub fn volume(self, name: &str, options: &Value) -> Self {
        let source = json!({"driver": DRIVER, "options": options});
        let mount = json!([{"name": name, "mountPath": format!("/{name}")}]);
        let volumes = json!([{"name": name, "flexVolume": source}]);
        self.set("volumes", volumes).container("main", "volumeMounts", mount)
    }

    /// Sets a field of one of its containers.
    pub fn container(mut self, name: &str, field: &str, value: Value) -> Self {
        let lists = ["containers", "initContainers"];
        let others = self.spec.iter_mut().filter(|(list, _)| lists.contains(&list.as_str()));
        let mut others = others.filter_map(|(_, list)| list.as_array_mut()).flatten();
        if name == "main" {
            self.main.insert(field.to_owned(), value);
        } else if let Some(container) = others.find(|container| container["name"] == name) {
            container[field] = value;
        }
        self
    }

    /// Sets a field of the pod's spec.
    pub fn set(mut self, field: &str, value: Value) -> Self {
        self.spec.insert(field.to_owned(), value);
        self
    }

    /// Its namespace.
    pub fn namespace(&self) -> &'static str {
        self.tenant.login
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whose it is.
    pub fn tenant(&self) -> &Account {
        &self.tenant
    }

    /// What `kubectl` calls its kind.
    pub fn kind(&self) -> &'static str {
        self.kind.name()
    }

    /// How many pods it makes.
    pub fn count(&self) -> usize {
        self.replicas as usize
    }

    /// The selector of its pods.
    pub fn selector(&self) -> String {
        format!("workload={}", self.name)
    }

    /// What `kubectl apply` is given.
    pub fn manifest(&self) -> String {
        let metadata = json!({"name": self.name, "namespace": self.namespace()});
        let pod = json!({"labels": self.labels, "annotations": self.annotations});
        let (version, metadata, spec) = match self.kind {
            Kind::Pod => {
                let mut metadata = metadata;
                metadata["labels"] = pod["labels"].clone();
                metadata["annotations"] = pod["annotations"].clone();
                ("v1", metadata, self.pod_spec())
            }
            Kind::Job => ("batch/v1", metadata, self.of_pods(&pod, &json!({"backoffLimit": 0}))),
            Kind::Deployment | Kind::StatefulSet => {
                let more = json!({
                    "replicas": self.replicas,
                    "selector": {"matchLabels": {"workload": self.name}},
                });
                let mut spec = self.of_pods(&pod, &more);
                if self.kind == Kind::StatefulSet {
                    spec["serviceName"] = self.labels["app"].clone();
                }
                ("apps/v1", metadata, spec)
            }
        };
        let kind = self.kind.name();
        json!({"apiVersion": version, "kind": kind, "metadata": metadata, "spec": spec}).to_string()
    }

    fn of_pods(&self, metadata: &Value, more: &Value) -> Value {
        let mut spec = more.clone();
        spec["template"] = json!({"metadata": metadata, "spec": self.pod_spec()});
        spec
    }

    fn pod_spec(&self) -> Value {
        let mut spec = Value::Object(self.spec.clone());
        let mut containers = vec![Value::Object(self.main.clone())];
        containers.extend(
            self.spec.get("containers").and_then(Value::as_array).cloned().unwrap_or_default(),
        );
        spec["containers"] = containers.into();
        spec
    }

    fn add(mut self, list: &str, name: &str, script: &str) -> Self {
        let image = self.main["image"].as_str().unwrap_or_default().to_owned();
        let added = Value::Object(container(name, &image, script));
        if let Some(list) = self.spec.entry(list).or_insert_with(|| json!([])).as_array_mut() {
            list.push(added);
        }
        self
    }
}
