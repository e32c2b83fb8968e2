//! `kubectl`, as the cluster's administrator.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use serde_json::Value;

use super::{ClusterError, command::Run, wait};

/// How long a call may take.
const CALL: Duration = Duration::from_secs(60);
/// How long a pod may take to start or to go.
const POD: Duration = Duration::from_secs(150);

/// Calls of `kubectl` with one kubeconfig.
#[derive(Clone, Debug)]
pub struct Kubectl {
    kubeconfig: PathBuf,
    limit: Duration,
    user: Option<String>,
}

impl Kubectl {
    pub(crate) fn new(kubeconfig: PathBuf) -> Self {
        Self { kubeconfig, limit: CALL, user: None }
    }

    /// The same for a call that waits.
    pub fn patient(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// The same as another user, without groups.
    pub fn acting_as(self, user: &str) -> Self {
        Self { user: Some(user.to_owned()), ..self }
    }

    fn call<A: AsRef<str>>(&self, arguments: &[A]) -> Run {
        let arguments = arguments.iter().map(AsRef::as_ref);
        let run = Run::new("kubectl").arg("--kubeconfig").arg(&self.kubeconfig);
        let user = self.user.iter().flat_map(|user| ["--as", user]);
        run.args(user).args(arguments).limit(self.limit)
    }

    /// Runs it; what it printed.
    ///
    /// # Errors
    /// When it ends with anything but 0.
    pub fn run<A: AsRef<str>>(&self, arguments: &[A]) -> Result<String, ClusterError> {
        self.call(arguments).run()
    }

    /// Applies a manifest.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn apply(&self, manifest: &str) -> Result<(), ClusterError> {
        let failed = |error| ClusterError::new("writing a manifest", error);
        let file = tempfile::NamedTempFile::new().map_err(failed)?;
        fs::write(file.path(), manifest).map_err(failed)?;
        self.call(&["apply", "-f"]).arg(file.path()).run().map(drop)
    }

    /// Sends an object to a path of the API as it is: with `create`, POST; with `replace`, PUT. What
    /// the API server answered.
    ///
    /// # Errors
    /// When the API server refuses it.
    pub fn raw(&self, verb: &str, path: &str, object: &Value) -> Result<String, ClusterError> {
        let failed = |error| ClusterError::new("writing an object", error);
        let file = tempfile::NamedTempFile::new().map_err(failed)?;
        fs::write(file.path(), object.to_string()).map_err(failed)?;
        self.call(&[verb, "--raw", path, "-f"]).arg(file.path()).run()
    }

    /// One object as JSON, `None` when there is none of that name.
    ///
    /// # Errors
    /// When the API server can't be asked.
    pub fn get(
        &self,
        namespace: &str,
        kind: &str,
        name: &str,
    ) -> Result<Option<Value>, ClusterError> {
        let asked = ["-n", namespace, "get", kind, name, "--ignore-not-found", "-o", "json"];
        let text = self.run(&asked)?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        let parsed = serde_json::from_str(&text);
        parsed.map(Some).map_err(|error| ClusterError::new(format!("reading {kind} {name}"), error))
    }

    /// All objects of a kind in a namespace that `more` arguments of `kubectl get` leave, as JSON.
    ///
    /// # Errors
    /// When the API server can't be asked.
    pub fn list(
        &self,
        namespace: &str,
        kind: &str,
        more: &[&str],
    ) -> Result<Vec<Value>, ClusterError> {
        let asked = [&["-n", namespace, "get", kind, "-o", "json"], more].concat();
        let mut parsed: Value = serde_json::from_str(&self.run(&asked)?)
            .map_err(|error| ClusterError::new(format!("reading {kind}"), error))?;
        match parsed["items"].take() {
            Value::Array(items) => Ok(items),
            _ => Ok(Vec::new()),
        }
    }

    /// Waits until a namespace has its default service account: before, it takes no pod.
    ///
    /// # Errors
    /// When it does not come.
    pub fn wait_service_account(&self, namespace: &str) -> Result<(), ClusterError> {
        wait::until(&format!("the default service account of {namespace}"), POD, || {
            Ok(self.get(namespace, "serviceaccount", "default")?.map(drop))
        })
    }

    /// Writes all objects of these kinds, of all namespaces, as one YAML list. The file appears
    /// whole.
    ///
    /// # Errors
    /// When the API server can't be asked, or the file can't be written.
    pub fn write_all(&self, kinds: &str, file: &Path) -> Result<(), ClusterError> {
        let text = self.run(&["get", kinds, "--all-namespaces", "-o", "yaml"])?;
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let half = file.with_file_name(format!(".{name}"));
        fs::write(&half, text)
            .and_then(|()| fs::rename(&half, file))
            .map_err(|error| ClusterError::new(format!("writing {}", file.display()), error))
    }

    /// Waits until every container of a pod is ready.
    ///
    /// # Errors
    /// When it takes too long: with what `kubectl describe` says.
    pub fn wait_ready(&self, namespace: &str, pod: &str) -> Result<(), ClusterError> {
        let ready = |object: Value| {
            let conditions = object["status"]["conditions"].as_array()?.clone();
            let is_ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
            conditions.iter().any(is_ready).then_some(())
        };
        let outcome = wait::until(&format!("pod {namespace}/{pod} to be ready"), POD, || {
            Ok(self.get(namespace, "pod", pod)?.and_then(ready))
        });
        outcome.map_err(|error| self.described(error, namespace, pod))
    }

    /// Waits until a line of what `kubectl describe` says of a pod contains `text`; that line.
    ///
    /// # Errors
    /// When none does in time: with all that it says.
    pub fn wait_described(
        &self,
        namespace: &str,
        pod: &str,
        text: &str,
    ) -> Result<String, ClusterError> {
        let outcome = wait::until(&format!("`{text}` in the description of {pod}"), POD, || {
            let said = self.run(&["-n", namespace, "describe", "pod", pod])?;
            Ok(said.lines().find(|line| line.contains(text)).map(str::to_owned))
        });
        outcome.map_err(|error| self.described(error, namespace, pod))
    }

    /// Runs a shell command in a pod's container; what it printed.
    ///
    /// # Errors
    /// When it ends with anything but 0: with what it said.
    pub fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        script: &str,
    ) -> Result<String, ClusterError> {
        self.run(&["-n", namespace, "exec", pod, "-c", container, "--", "sh", "-c", script])
    }

    /// Deletes a pod without waiting for it to go.
    ///
    /// # Errors
    /// When the API server refuses.
    pub fn delete_pod(&self, namespace: &str, pod: &str) -> Result<(), ClusterError> {
        self.run(&["-n", namespace, "delete", "pod", pod, "--wait=false"]).map(drop)
    }

    /// Waits until a pod is no longer in the API: up to a minute after its volumes are unmounted.
    ///
    /// # Errors
    /// When it takes too long.
    pub fn wait_gone(&self, namespace: &str, pod: &str) -> Result<(), ClusterError> {
        wait::until(&format!("pod {namespace}/{pod} to go"), POD, || {
            Ok(self.get(namespace, "pod", pod)?.is_none().then_some(()))
        })
    }

    fn described(&self, error: ClusterError, namespace: &str, pod: &str) -> ClusterError {
        let said = self.run(&["-n", namespace, "describe", "pod", pod]);
        let said = said.unwrap_or_else(|error| error.to_string());
        ClusterError { detail: format!("{}\n{said}", error.detail), ..error }
    }
}
