//! Pods, Services and Namespaces as files, stamped as an API server would stamp them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::{Value, json};

use super::{WorldError, make_dir, programs::program, write};

/// The directory of objects that the broker reads.
pub struct Pods {
    dir: PathBuf,
}

/// A pod: what its owner wrote, or what came of it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its uid, which no other pod of this process has.
    pub uid: String,
    /// The object.
    pub object: Value,
}

impl Pod {
    /// The name of the volume that `inject` adds.
    pub const VOLUME: &'static str = "krb-credentials";

    /// A pod of one container that runs as `uid`, labelled `app: web`, bound to `node`.
    pub fn new(name: &str, namespace: &str, uid: u32, node: &str) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let pod_uid = format!("{number:08x}-0000-4000-8000-{:012x}", std::process::id());
        let object = json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "uid": pod_uid,
                "labels": {"app": "web"},
                "annotations": {},
            },
            "spec": {
                "nodeName": node,
                "serviceAccountName": "default",
                "securityContext": {"runAsUser": uid, "runAsGroup": uid + 1},
                "containers": [{"name": "main", "image": "web:1", "command": ["serve"]}],
            },
            "status": {"phase": "Pending"},
        });
        Self { name: name.to_owned(), namespace: namespace.to_owned(), uid: pod_uid, object }
    }

    /// The same pod with these annotations.
    pub fn annotated(mut self, annotations: &[(&str, &str)]) -> Self {
        for (name, value) in annotations {
            self.object["metadata"]["annotations"][*name] = json!(value);
        }
        self
    }

    /// The same pod after `change`.
    pub fn changed(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.object);
        self
    }

    /// What `krb-broker inject` makes of it.
    pub fn injected(&self, entitlements: &Path, realm: &str) -> Result<Self, WorldError> {
        let mut command = Command::new(program("krb-broker")?);
        command.arg("inject").arg("--entitlements").arg(entitlements).args(["--realm", realm, "-"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            std::io::Write::write_all(&mut stdin, self.object.to_string().as_bytes())?;
        }
        let output = child.wait_with_output()?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(WorldError::new("krb-broker inject", said));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let mut documents = krb_broker::yaml::documents(&text)
            .map_err(|e| WorldError::new("reading what inject printed", e))?;
        let object = documents
            .pop()
            .ok_or_else(|| WorldError::new("reading what inject printed", "there is no object"))?;
        Ok(Self { object, ..self.clone() })
    }

    /// The environment that its first container is given.
    pub fn environment(&self) -> Vec<(String, String)> {
        let variables = self.object["spec"]["containers"][0]["env"].as_array();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let one = |variable: &Value| (text(&variable["name"]), text(&variable["value"]));
        variables.into_iter().flatten().map(one).collect()
    }

    /// The volume mounts of its first container: the path, and the part of the volume.
    pub fn mounts(&self) -> Vec<(String, String, bool)> {
        let mounts = self.object["spec"]["containers"][0]["volumeMounts"].as_array();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let one = |mount: &Value| {
            let read_only = mount["readOnly"].as_bool().unwrap_or(false);
            (text(&mount["mountPath"]), text(&mount["subPath"]), read_only)
        };
        mounts.into_iter().flatten().map(one).collect()
    }
}

impl Pods {
    /// An empty directory.
    pub fn new(dir: &Path) -> Result<Self, WorldError> {
        let dir = dir.join("pods");
        make_dir(&dir)?;
        Ok(Self { dir })
    }

    /// Makes the object known, or changes it.
    pub fn apply(&self, pod: &Pod) -> Result<(), WorldError> {
        self.put(&format!("pod-{}-{}", pod.namespace, pod.name), &pod.object)
    }

    /// Removes the object.
    pub fn delete(&self, pod: &Pod) -> Result<(), WorldError> {
        fs::remove_file(self.dir.join(format!("pod-{}-{}.yaml", pod.namespace, pod.name)))?;
        Ok(())
    }

    /// A namespace with this uid.
    pub fn namespace(&self, name: &str, uid: &str) -> Result<(), WorldError> {
        let object = json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "uid": uid},
            "status": {"phase": "Active"},
        });
        self.put(&format!("namespace-{name}"), &object)
    }

    /// A Service that selects the pods labelled `app: web`.
    pub fn service(&self, namespace: &str, name: &str) -> Result<(), WorldError> {
        let object = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace, "uid": format!("svc-{name}")},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]},
        });
        self.put(&format!("service-{namespace}-{name}"), &object)
    }

    /// Any object, in a file of this name.
    pub fn put(&self, name: &str, object: &Value) -> Result<(), WorldError> {
        let text = krb_broker::yaml::text(std::slice::from_ref(object))
            .map_err(|e| WorldError::new("writing an object", e))?;
        write(&self.dir.join(format!("{name}.yaml")), &text)
    }

    /// The directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
