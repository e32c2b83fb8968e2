//! A tenant's pod on the cluster, as the stories use it.

use std::{error::Error, time::Duration};

use krb_tests::{
    cluster::{Cluster, Node, wait},
    world::{Account, node::DRIVER_DIR},
};
use serde_json::Value;

use crate::{field::Field, story::Told, tenant};

/// How long kubelet may take to see a new pod.
const CALLED: Duration = Duration::from_secs(60);
/// How long the broker may take to hear that a pod is gone.
const RELEASE: Duration = Duration::from_secs(60);

/// A pod that exists in the API.
#[derive(Clone)]
pub struct Pod<'a> {
    field: &'a Field<'a>,
    tenant: Account,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// The node that it is bound to; empty while it is bound to none.
    pub node: String,
}

impl<'a> Pod<'a> {
    /// What the API says of a pod.
    pub fn of(
        field: &'a Field<'a>,
        tenant: &Account,
        object: &Value,
    ) -> Result<Self, Box<dyn Error>> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let uid = text(&object["metadata"]["uid"]);
        if uid.is_empty() {
            return Err(format!("a pod without a uid: {object}").into());
        }
        Ok(Self {
            field,
            tenant: tenant.clone(),
            name: text(&object["metadata"]["name"]),
            uid,
            node: text(&object["spec"]["nodeName"]),
        })
    }

    fn cluster(&self) -> &Cluster {
        self.field.cluster
    }

    /// Its namespace.
    pub fn namespace(&self) -> &'static str {
        self.tenant.login
    }

    /// The machine that it runs on.
    pub fn node(&self) -> Node<'_> {
        self.cluster().node(&self.node)
    }

    /// Where kubelet has its volumes of our driver.
    pub fn volumes(&self) -> String {
        format!("/var/lib/kubelet/pods/{}/volumes/{DRIVER_DIR}", self.uid)
    }

    /// The pod as the API has it now.
    pub fn object(&self) -> Result<Value, Box<dyn Error>> {
        let object = self.cluster().kubectl().get(self.namespace(), "pod", &self.name)?;
        Ok(object.ok_or_else(|| format!("no pod {}", self.name))?)
    }

    /// Its keytab as it lies on its machine, in base64. Works while the API server does not.
    pub fn keytab_on_node(&self) -> Result<String, Box<dyn Error>> {
        let file = format!("{}/*/keytabs/{}", self.volumes(), self.tenant.login);
        Ok(self.node().exec(&format!("test -s {file} && base64 {file}"))?)
    }

    /// Sees that its machine has no file for it.
    pub fn has_no_files(&self) -> Told {
        let find = format!("find {} -type f 2>/dev/null | head", self.volumes());
        let files = self.node().exec(&find)?;
        if files.is_empty() { Ok(()) } else { Err(format!("{} has {files}", self.name).into()) }
    }

    /// Runs a shell command in its container `main`; what it printed.
    pub fn run(&self, script: &str) -> Result<String, Box<dyn Error>> {
        self.run_in("main", script)
    }

    /// Runs a shell command in one of its containers; what it printed.
    pub fn run_in(&self, container: &str, script: &str) -> Result<String, Box<dyn Error>> {
        Ok(self.cluster().kubectl().exec(self.namespace(), &self.name, container, script)?)
    }

    /// The address that it has now; it has another one after a reboot of its machine.
    fn address(&self) -> Result<String, Box<dyn Error>> {
        Ok(wait::until(&format!("the address of {}", self.name), CALLED, || {
            let object = self.cluster().kubectl().get(self.namespace(), "pod", &self.name)?;
            let address = object.and_then(|pod| pod["status"]["podIP"].as_str().map(str::to_owned));
            Ok(address.filter(|address| !address.is_empty()))
        })?)
    }

    /// What its container `main` printed.
    pub fn logs(&self) -> Result<String, Box<dyn Error>> {
        let logs = ["-n", self.namespace(), "logs", &self.name, "-c", "main"];
        Ok(self.cluster().kubectl().run(&logs)?)
    }

    /// A client in one of its containers and a server in another (or the same) pod of the tenant
    /// shake hands with the C library: the server says who came.
    pub fn authenticates_to(&self, container: &str, server: &Pod<'_>) -> Told {
        let host = tenant::host(&server.tenant);
        let serve = format!(
            "rm -f /tmp/gss.*; gss-server -port 4444 -once -logfile /tmp/gss.log HTTP@{host} \
             >/tmp/gss.out 2>&1 & sleep 1"
        );
        server.run(&serve)?;
        let address = server.address()?;
        let hello = format!("gss-client -port 4444 {address} HTTP@{host} 'hello, world'");
        let said = self.run_in(container, &hello)?;
        let served = server.run("cat /tmp/gss.log /tmp/gss.out")?;
        let client = format!("{}@{}", self.tenant.login, self.field.realm().name());
        if served.contains(&client) {
            return Ok(());
        }
        Err(format!("{client} did not come to {}: {said}\n{served}", server.name).into())
    }

    /// It is both ends of a handshake.
    pub fn authenticates(&self) -> Told {
        self.authenticates_to("main", self)
    }

    /// Its lease.
    pub fn lease(&self) -> Result<Value, Box<dyn Error>> {
        self.field.lease_of(self)
    }

    /// Waits until the lease is in this state.
    pub fn wait_lease(&self, state: &str, limit: Duration) -> Result<Value, Box<dyn Error>> {
        let mut seen = Value::Null;
        let outcome = wait::until(&format!("{state} for {}", self.name), limit, || {
            seen = self.lease().unwrap_or_else(|error| Value::String(error.to_string()));
            Ok((seen["state"] == state).then_some(()))
        });
        outcome.map_err(|error| format!("{error}; last seen: {seen}"))?;
        Ok(seen)
    }

    /// Waits for a line in `kubectl describe` that contains `text`; that line.
    pub fn wait_described(&self, text: &str) -> Result<String, Box<dyn Error>> {
        Ok(self.cluster().kubectl().wait_described(self.namespace(), &self.name, text)?)
    }

    /// Takes it out of the API at once, whatever its machine does.
    pub fn delete_by_force(&self) -> Told {
        let delete = ["-n", self.namespace(), "delete", "pod", &self.name, "--wait=false"];
        let by_force = ["--force", "--grace-period=0"];
        Ok(self.cluster().kubectl().run(&[&delete[..], &by_force].concat()).map(drop)?)
    }

    /// Waits until kubelet has called the driver for it.
    pub fn wait_called(&self) -> Told {
        let called = format!("ls -d {}/*", self.volumes());
        Ok(wait::until("kubelet to call the driver", CALLED, || {
            Ok(self.node().exec(&called).is_ok().then_some(()))
        })?)
    }

    /// Deletes it, and sees that the node has nothing left of it.
    pub fn delete(&self) -> Told {
        self.cluster().kubectl().delete_pod(self.namespace(), &self.name)?;
        Ok(self.node().wait_unmounted(&self.volumes())?)
    }

    /// Deletes it, and sees that the broker has nothing left of it either.
    pub fn end(&self) -> Told {
        self.delete()?;
        self.wait_lease("LEASE_STATE_RELEASED", RELEASE).map(drop)
    }
}
