//! The field of the stories: all that an operator installs, the realm outside it, and tenants.

use std::{cell::Cell, error::Error, path::PathBuf, time::Duration};

use krb_tests::{
    cluster::{Cluster, NODES, ServiceProxy, wait},
    realm::Realm,
    world::Account,
};
use serde_json::{Value, json};

use crate::{
    images::Images,
    install::{self, Installed},
    outside::Outside,
    pod::Pod,
    story::Told,
    tenant,
    workload::{Kind, Workload},
};

/// How long a workload may take until all its pods are ready.
const READY: Duration = Duration::from_secs(240);

/// Everything that a pod needs around it.
pub struct Field<'a> {
    /// The cluster.
    pub cluster: &'a Cluster,
    // dropped in this order: the broker before the realm
    /// What was installed.
    pub installed: Installed,
    /// What is run of it, and what pods run.
    pub images: Images,
    outside: Outside,
    /// What makes Services' addresses work.
    pub proxy: ServiceProxy,
    counter: Cell<u32>,
}

impl<'a> Field<'a> {
    /// Sets it up.
    pub fn prepare(cluster: &'a Cluster) -> Result<Self, Box<dyn Error>> {
        let proxy = ServiceProxy::keep(cluster, &NODES);
        let outside = Outside::prepare(cluster)?;
        let images = Images::load(cluster)?;
        tenant::prepare(&cluster.kubectl())?;
        let installed = Installed::on(cluster, &outside, &images)?;
        Ok(Self { cluster, installed, images, outside, proxy, counter: Cell::new(0) })
    }

    /// The realm.
    pub fn realm(&self) -> &Realm {
        &self.outside.realm
    }

    /// A workload of a tenant in the making. Its name is `name` and a number of its own, so that
    /// stories don't meet each other's.
    pub fn workload(&self, kind: Kind, tenant: &Account, name: &str) -> Workload {
        let number = self.counter.replace(self.counter.get() + 1);
        Workload::new(kind, tenant, &format!("{name}-{number}"), &self.images.tools.reference())
    }

    /// A pod of [`tenant::TSFOO`] that asks for HTTP and a ticket, started on this node.
    pub fn web(&self, name: &str, node: &str) -> Result<Pod<'_>, Box<dyn Error>> {
        let pod = self.workload(Kind::Pod, &tenant::TSFOO, name);
        let mut pods = self.start(&pod.services("HTTP").ticket().on(node))?;
        pods.pop().ok_or_else(|| "no pod was made".into())
    }

    /// Waits until the webhook answers again. An API server that was away takes every node for dead
    /// for a moment, and its pods out of their Services.
    pub fn settle(&self) -> Told {
        Ok(wait::until("the webhook to answer", READY, || Ok(self.try_webhook().ok()))?)
    }

    /// Applies a pod of an opted-in namespace without making it.
    pub fn try_webhook(&self) -> Told {
        let probe = tempfile::NamedTempFile::new()?;
        let pod = self.workload(Kind::Pod, &tenant::TSFOO, "probe").services("HTTP");
        std::fs::write(probe.path(), pod.manifest())?;
        let file = probe.path().display().to_string();
        let tried = ["apply", "--dry-run=server", "-f", &file];
        Ok(self.cluster.kubectl().run(&tried).map(drop)?)
    }

    /// Applies a workload as its owner wrote it; the webhook adds the volume, where it is asked.
    pub fn apply(&self, workload: &Workload) -> Told {
        Ok(self.cluster.kubectl().apply(&workload.manifest())?)
    }

    /// The manifest of a workload with the volume that it asks for, as `krb-broker inject` makes it.
    pub fn injected(&self, workload: &Workload) -> Result<String, Box<dyn Error>> {
        self.installed.inject(&workload.manifest())
    }

    /// The only pod of a workload, whatever it does, once it exists.
    pub fn pod_of(&self, workload: &Workload) -> Result<Pod<'_>, Box<dyn Error>> {
        let what = format!("the pod of {}", workload.name());
        let object = wait::until(&what, READY, || Ok(self.objects_of(workload)?.pop()))?;
        Pod::of(self, workload.tenant(), &object)
    }

    /// Applies a workload and waits until as many pods are ready as it makes.
    pub fn start(&self, workload: &Workload) -> Result<Vec<Pod<'_>>, Box<dyn Error>> {
        self.apply(workload)?;
        self.wait_ready(workload, READY)?;
        self.pods_of(workload)
    }

    /// Waits until as many pods of a workload are ready as it makes.
    pub fn wait_ready(&self, workload: &Workload, limit: Duration) -> Told {
        let what = format!("{} pods of {} to be ready", workload.count(), workload.name());
        let mut ready = 0;
        let outcome = wait::until(&what, limit, || {
            ready = self.objects_of(workload)?.iter().filter(is_ready).count();
            Ok((ready >= workload.count()).then_some(()))
        });
        let Err(error) = outcome else { return Ok(()) };
        let events = ["-n", workload.namespace(), "get", "events", "--field-selector=type=Warning"];
        let said = self.cluster.kubectl().run(&events)?;
        let last: Vec<_> = said.lines().rev().take(20).collect();
        Err(format!("{error}: {ready} are\n{}", last.join("\n")).into())
    }

    /// The pods of a workload, whatever they do.
    pub fn pods_of(&self, workload: &Workload) -> Result<Vec<Pod<'_>>, Box<dyn Error>> {
        let objects = self.objects_of(workload)?;
        objects.iter().map(|object| Pod::of(self, workload.tenant(), object)).collect()
    }

    fn objects_of(
        &self,
        workload: &Workload,
    ) -> Result<Vec<Value>, krb_tests::cluster::ClusterError> {
        let selector = workload.selector();
        self.cluster.kubectl().list(workload.namespace(), "pods", &["-l", &selector])
    }

    /// Deletes a workload; its pods go by themselves.
    pub fn delete(&self, workload: &Workload) -> Told {
        let delete = ["-n", workload.namespace(), "delete", workload.kind(), workload.name()];
        Ok(self.cluster.kubectl().run(&[&delete[..], &["--wait=false"]].concat()).map(drop)?)
    }

    /// The leases that fit a `ListLeasesRequest`.
    pub fn leases(&self, request: &Value) -> Result<Vec<Value>, Box<dyn Error>> {
        self.installed.operator.leases(request)
    }

    /// The newest lease of a pod.
    pub fn lease_of(&self, pod: &Pod<'_>) -> Result<Value, Box<dyn Error>> {
        let mut leases = self.leases(&json!({ "podUid": pod.uid }))?;
        leases.sort_by_key(|lease| lease["acquiredAt"].as_str().unwrap_or_default().to_owned());
        leases.pop().ok_or_else(|| format!("{} has no lease", pod.name).into())
    }

    /// The pods of a workload that are ready on this node.
    pub fn ready_on(
        &self,
        workload: &Workload,
        node: &str,
    ) -> Result<Vec<Pod<'_>>, Box<dyn Error>> {
        let mut objects = self.objects_of(workload)?;
        objects.retain(|object| is_ready(&object) && object["spec"]["nodeName"] == node);
        objects.iter().map(|object| Pod::of(self, workload.tenant(), object)).collect()
    }

    /// What the broker says of a node.
    pub fn session(&self, node: &str) -> Result<Value, Box<dyn Error>> {
        let reply =
            self.installed.operator.call("krb.broker.v1.NodeAdminService/ListNodes", &json!({}))?;
        let nodes = reply["nodes"].as_array().cloned().unwrap_or_default();
        let found = nodes.into_iter().find(|known| known["name"] == node);
        found.ok_or_else(|| format!("the broker knows no {node}: {reply}").into())
    }

    /// How often the broker has given a node up, and one.
    pub fn generation(&self, node: &str) -> Result<u64, Box<dyn Error>> {
        let session = self.session(node)?;
        let generation = session["generation"].as_str().and_then(|text| text.parse().ok());
        generation.ok_or_else(|| format!("a node without a generation: {session}").into())
    }

    /// How the broker says that it is.
    pub fn status(&self) -> Result<Value, Box<dyn Error>> {
        self.installed.operator.call("krb.broker.v1.StatusService/GetStatus", &json!({}))
    }

    /// The keytab of a role account that the realm's administrator handed over.
    pub fn account_keytab(&self, login: &str) -> PathBuf {
        self.outside.dir.join(format!("accounts/{login}.keytab"))
    }

    /// The highest kvno that the KDC has of a principal.
    pub fn kdc_kvno(&self, principal: &str) -> Result<u64, Box<dyn Error>> {
        let shown = self.realm().kadmin_local(&["getprinc", principal])?;
        let kvnos = shown.lines().filter_map(|line| line.strip_prefix("Key: vno "));
        let kvnos = kvnos.filter_map(|line| line.split([',', ' ']).next()?.parse().ok());
        kvnos.max().ok_or_else(|| format!("{principal} has no key:\n{shown}").into())
    }

    /// The audit records of an event, oldest first.
    pub fn audited(&self, event: &str) -> Vec<Value> {
        let log = self.installed.audit();
        let lines = log.lines().filter_map(|line| serde_json::from_str(line).ok());
        lines.filter(|line: &Value| line["event"] == event).collect()
    }

    /// What a part said last: `krb-broker`, `krb-broker-admission` or `krb-node-agent`.
    pub fn log(&self, part: &str) -> String {
        install::log(self.cluster, part)
    }
}

fn is_ready(object: &&Value) -> bool {
    let conditions = object["status"]["conditions"].as_array();
    let is_ready = |c: &Value| c["type"] == "Ready" && c["status"] == "True";
    conditions.is_some_and(|conditions| conditions.iter().any(is_ready))
}
