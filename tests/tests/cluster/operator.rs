//! The broker's API as an operator uses it, with a stock gRPC client.

use std::{
    error::Error,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use krb_tests::world::pki::Pki;
use serde_json::{Value, json};

use crate::programs;

/// An operator: an address, the name that the broker's certificate must have, and certificates.
#[derive(Clone, Debug)]
pub struct Operator {
    /// The broker.
    pub address: SocketAddr,
    /// The name in its certificate.
    pub server_name: String,
    files: [PathBuf; 3],
}

impl Operator {
    /// The operator of the stories' certificates.
    pub fn new(address: SocketAddr, server_name: &str, pki: &Pki) -> Self {
        let own = pki.files("operator");
        let files = [pki.ca("broker"), own.certificate, own.key];
        Self { address, server_name: server_name.to_owned(), files }
    }

    /// PEM file of the CA that signed the broker's certificate.
    pub fn ca(&self) -> &Path {
        &self.files[0]
    }

    /// Calls a method, `krb.broker.v1.LeaseService/ListLeases`; its reply.
    pub fn call(&self, method: &str, request: &Value) -> Result<Value, Box<dyn Error>> {
        let reply = self.client(&["call", method, &request.to_string()])?;
        Ok(serde_json::from_str(&reply)?)
    }

    /// All leases that fit the request.
    pub fn leases(&self, request: &Value) -> Result<Vec<Value>, Box<dyn Error>> {
        let mut request = request.clone();
        request["pageSize"] = json!(1000);
        let mut leases = Vec::new();
        loop {
            let reply = self.call("krb.broker.v1.LeaseService/ListLeases", &request)?;
            leases.extend(reply["leases"].as_array().cloned().unwrap_or_default());
            match reply["nextPageToken"].as_str() {
                Some(token) if !token.is_empty() => request["pageToken"] = token.into(),
                _ => return Ok(leases),
            }
        }
    }

    /// What `leases.py` prints for these arguments.
    fn client(&self, arguments: &[&str]) -> Result<String, Box<dyn Error>> {
        let [ca, certificate, key] = &self.files;
        let mut command = Command::new(programs::python());
        command.arg(programs::repository().join("tests/python/leases.py"));
        command.args(["--address", &self.address.to_string(), "--server-name", &self.server_name]);
        command.arg("--ca").arg(ca).arg("--cert").arg(certificate).arg("--key").arg(key);
        let output = command.args(arguments).stdin(Stdio::null()).output()?;
        if output.status.success() {
            return Ok(String::from_utf8(output.stdout)?);
        }
        Err(format!("leases.py: {}", String::from_utf8_lossy(&output.stderr)).into())
    }
}
