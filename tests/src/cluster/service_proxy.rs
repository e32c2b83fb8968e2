//! A stand-in for kube-proxy, which the cluster has not: Services' addresses lead to their pods.
//!
//! A thread looks at all Services and Endpoints each second and, where they changed, writes one
//! chain of `nat` rules into the network namespace of each node, of the control plane (the API
//! server calls webhooks by their Services) and of the servers. Pods' packets pass their node's
//! namespace, so that the rules there are theirs too. All is masqueraded: a pod that reaches itself
//! by its Service would else answer itself directly.
//!
//! It knows ClusterIP and TCP, nothing of session affinity or node ports. While the API server is
//! away the rules stay as they are, as kube-proxy's do.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use serde_json::Value;

use super::{Cluster, ClusterError, Kubectl, server_net, wait};

/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(700);
/// The chain that all rules are in.
const CHAIN: &str = "KC-SERVICES";

/// Keeps Services reachable until it is dropped; the rules stay.
#[derive(Debug)]
pub struct ServiceProxy {
    stop: Arc<AtomicBool>,
    held: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl ServiceProxy {
    /// Starts it for a cluster with these nodes.
    pub fn keep(cluster: &Cluster, nodes: &[&str]) -> Self {
        let kubectl = cluster.kubectl();
        let mut places: Vec<String> = nodes.iter().map(|node| format!("kc-{node}")).collect();
        places.extend(["kc-cp".to_owned(), server_net::NAME.to_owned()]);
        let [stop, held] = [false; 2].map(|is| Arc::new(AtomicBool::new(is)));
        let thread = std::thread::spawn({
            let (stop, held) = (stop.clone(), held.clone());
            move || keep_until(&stop, &held, &kubectl, &places)
        });
        Self { stop, held, thread: Some(thread) }
    }

    /// From now on the rules stay as they are, whatever the API server says; or follow it again.
    pub fn hold(&self, held: bool) {
        self.held.store(held, Ordering::Relaxed);
    }
}

impl Drop for ServiceProxy {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn keep_until(stop: &AtomicBool, held: &AtomicBool, kubectl: &Kubectl, places: &[String]) {
    let mut written: BTreeMap<&String, String> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        let rules = if held.load(Ordering::Relaxed) { None } else { look(kubectl).ok() };
        if let Some(rules) = rules.filter(|_| !held.load(Ordering::Relaxed)) {
            for place in places {
                if written.get(place) != Some(&rules) && write(place, &rules).is_ok() {
                    written.insert(place, rules.clone());
                }
            }
        }
        wait::pause(PAUSE);
    }
}

/// The rules for the Services as they are now.
fn look(kubectl: &Kubectl) -> Result<String, ClusterError> {
    let asked =
        ["get", "services,endpoints", "--all-namespaces", "-o", "json", "--request-timeout=10s"];
    let objects: Value = serde_json::from_str(&kubectl.run(&asked)?)
        .map_err(|error| ClusterError::new("reading Services", error))?;
    let none = Vec::new();
    let objects = objects["items"].as_array().unwrap_or(&none);
    let of_kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let endpoints: BTreeMap<_, _> =
        of_kind("Endpoints").map(|object| (key(object), object)).collect();
    let services = of_kind("Service");
    Ok(services.filter_map(|service| Some(rules(service, endpoints.get(&key(service))?))).collect())
}

fn key(object: &Value) -> (String, String) {
    let field = |name: &str| object["metadata"][name].as_str().unwrap_or_default().to_owned();
    (field("namespace"), field("name"))
}

/// The rules of one Service: each of its ports to each of its ready endpoints by turns.
fn rules(service: &Value, endpoints: &Value) -> String {
    let Some(address) = service["spec"]["clusterIP"].as_str().filter(|ip| ip.contains('.')) else {
        return String::new();
    };
    let none = Vec::new();
    let ports = service["spec"]["ports"].as_array().unwrap_or(&none);
    let mut text = String::new();
    for port in ports.iter().filter(|port| port["protocol"] == "TCP") {
        let behind = behind(endpoints, &port["name"]);
        for (index, target) in behind.iter().enumerate() {
            let share = match behind.len() - index {
                1 => String::new(),
                left => format!("-m statistic --mode nth --every {left} --packet 0 "),
            };
            let port = &port["port"];
            text += &format!(
                "-A {CHAIN} -d {address}/32 -p tcp --dport {port} {share}\
                 -j DNAT --to-destination {target}\n"
            );
        }
    }
    text
}

/// What is behind a Service's port of that name (null where it has only one), `address:port`.
fn behind(endpoints: &Value, name: &Value) -> Vec<String> {
    let none = Vec::new();
    let subsets = endpoints["subsets"].as_array().unwrap_or(&none);
    let of_subset = |subset: &Value| -> Vec<String> {
        let ports = subset["ports"].as_array().cloned().unwrap_or_default();
        let Some(port) = ports.into_iter().find(|port| port["name"] == *name) else {
            return Vec::new();
        };
        let addresses = subset["addresses"].as_array().cloned().unwrap_or_default();
        let ips = addresses.iter().filter_map(|address| address["ip"].as_str());
        ips.map(|ip| format!("{ip}:{}", port["port"])).collect()
    };
    let mut all: Vec<_> = subsets.iter().flat_map(of_subset).collect();
    all.sort();
    all
}

/// Writes the chain anew in one namespace, at once, and leads packets into it.
fn write(place: &str, rules: &str) -> Result<(), ClusterError> {
    let chain = format!("*nat\n:{CHAIN} - [0:0]\n-F {CHAIN}\n{rules}COMMIT\n");
    inside(place, &["iptables-restore", "--noflush", "--wait"], &chain)?;
    for (from, rule) in [
        ("PREROUTING", vec!["-j", CHAIN]),
        ("OUTPUT", vec!["-j", CHAIN]),
        ("POSTROUTING", vec!["-m", "conntrack", "--ctstate", "DNAT", "-j", "MASQUERADE"]),
    ] {
        let call =
            |action| [vec!["iptables", "--wait", "-t", "nat", action, from], rule.clone()].concat();
        if inside(place, &call("-C"), "").is_err() {
            inside(place, &call("-I"), "")?;
        }
    }
    Ok(())
}

/// Runs a program in a network namespace, with this on its standard input.
fn inside(place: &str, command: &[&str], input: &str) -> Result<(), ClusterError> {
    let tried = || format!("running {} in {place}", command.join(" "));
    let failed = |error: std::io::Error| ClusterError::new(tried(), error);
    let mut child = Command::new("nsenter")
        .arg(format!("--net=/run/netns/{place}"))
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // one that ends early says why itself
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    Err(ClusterError::new(tried(), String::from_utf8_lossy(&output.stderr)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_port_of_a_service_leads_to_its_ready_pods_by_turns() {
        let service = json!({"spec": {"clusterIP": "10.96.0.7", "ports": [
            {"name": "grpc", "port": 8443, "protocol": "TCP"},
            {"name": "dns", "port": 53, "protocol": "UDP"},
        ]}});
        let endpoints = json!({"subsets": [{
            "addresses": [{"ip": "10.200.2.9"}, {"ip": "10.200.1.4"}],
            "notReadyAddresses": [{"ip": "10.200.1.5"}],
            "ports": [{"name": "grpc", "port": 9443}],
        }]});
        let rules = rules(&service, &endpoints);
        let rules: Vec<_> = rules.lines().collect();
        let [first, second] = rules[..] else { panic!("{rules:?}") };
        assert!(first.contains("-d 10.96.0.7/32 -p tcp --dport 8443"), "{first}");
        assert!(first.contains("--every 2 ") && first.ends_with("10.200.1.4:9443"), "{first}");
        assert!(!second.contains("statistic") && second.ends_with("10.200.2.9:9443"), "{second}");
    }

    #[test]
    fn a_headless_service_has_no_rule() {
        let service =
            json!({"spec": {"clusterIP": "None", "ports": [{"port": 80, "protocol": "TCP"}]}});
        assert_eq!(rules(&service, &json!({})), "");
    }
}
