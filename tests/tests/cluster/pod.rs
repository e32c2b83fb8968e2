//! A tenant's pod on the cluster, as the stories use it.

use std::{error::Error, time::Duration};

use krb_tests::{
    cluster::{Cluster, Node, wait},
    world::{Account, node::DRIVER_DIR},
};
use serde_json::Value;

use crate::{field::Field, story::Told, tenant};

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
    /// Its address, empty while it has none.
    pub address: String,
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
            address: text(&object["status"]["podIP"]),
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

    /// Runs a shell command in its container `main`; what it printed.
    pub fn run(&self, script: &str) -> Result<String, Box<dyn Error>> {
        self.run_in("main", script)
    }

    /// Runs a shell command in one of its containers; what it printed.
    pub fn run_in(&self, container: &str, script: &str) -> Result<String, Box<dyn Error>> {
        Ok(self.cluster().kubectl().exec(self.namespace(), &self.name, container, script)?)
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
        let hello = format!("gss-client -port 4444 {} HTTP@{host} 'hello, world'", server.address);
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

    /// The highest kvno that its lease gave it of its first principal.
    pub fn held_kvno(&self) -> Result<u64, Box<dyn Error>> {
        let lease = self.lease()?;
        let kvnos = lease["keytab"][0]["kvnos"].as_array().cloned().unwrap_or_default();
        let highest = kvnos.iter().filter_map(Value::as_u64).max();
        Ok(highest.ok_or_else(|| format!("a lease without kvnos: {lease}"))?)
    }

    /// Waits for a line in `kubectl describe` that contains `text`; that line.
    pub fn wait_described(&self, text: &str) -> Result<String, Box<dyn Error>> {
        Ok(self.cluster().kubectl().wait_described(self.namespace(), &self.name, text)?)
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
