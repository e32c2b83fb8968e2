//! The AGPL stays below the broker.
//!
//! `cargo deny` says the same with more detail, but is not there on every machine; this asks
//! cargo itself for the dependency tree and needs nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// What is given away under Apache-2.0 alone.
const PERMISSIVE: [&str; 3] = ["krb-proto", "krb-node-agent", "krb-flexvolume"];

/// One package: its name and licence, and the ids of what it is built with.
struct Package {
    name: String,
    licence: String,
    built_with: Vec<String>,
}

#[test]
fn nothing_that_a_node_runs_is_built_with_an_agpl_crate() {
    let packages = packages();
    for root in PERMISSIVE {
        let tainted: Vec<_> = built_with(&packages, root)
            .into_iter()
            .filter(|package| is_copyleft(&package.licence))
            .map(|package| format!("{} ({})", package.name, package.licence))
            .collect();
        assert!(tainted.is_empty(), "{root} is built with {}", tainted.join(", "));
    }
}

#[test]
fn the_broker_is_agpl_because_of_the_kerberos_messages() {
    let packages = packages();
    let tree = built_with(&packages, "krb-broker");
    // if this fails, so would the test above to notice anything
    assert!(tree.iter().any(|package| package.name == "kerberos_asn1"), "the walk misses crates");
    assert!(is_copyleft(&tree[0].licence), "krb-broker must say that it is AGPL");
}

/// Whether a licence expression leaves no choice but the (A/L)GPL.
fn is_copyleft(expression: &str) -> bool {
    let permissive = |choice: &str| !choice.contains("GPL");
    !expression.is_empty() && !expression.split(" OR ").any(permissive)
}

/// `root` and everything that it is compiled from or built with, `root` first. Test-only
/// dependencies are left out: they are not given away.
fn built_with<'a>(packages: &'a BTreeMap<String, Package>, root: &str) -> Vec<&'a Package> {
    let is_root = |(_, package): &(&String, &Package)| package.name == root;
    let (root_id, _) = packages.iter().find(is_root).expect("a member of the workspace");
    let mut seen = BTreeSet::from([root_id.clone()]);
    let mut queue = vec![root_id.clone()];
    let mut found = Vec::new();
    while let Some(id) = queue.pop() {
        let package = &packages[&id];
        found.push(package);
        queue.extend(package.built_with.iter().filter(|id| seen.insert((*id).clone())).cloned());
    }
    found
}

/// All packages of the workspace's dependency tree on Linux, by cargo's id.
fn packages() -> BTreeMap<String, Package> {
    let metadata = metadata();
    let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
    let edges: BTreeMap<&str, Vec<String>> =
        nodes.iter().map(|node| (text(&node["id"]), edges(node))).collect();
    let listed = metadata["packages"].as_array().expect("packages");
    listed
        .iter()
        .map(|package| {
            let id = text(&package["id"]);
            let described = Package {
                name: text(&package["name"]).to_owned(),
                licence: package["license"].as_str().unwrap_or_default().to_owned(),
                built_with: edges.get(id).cloned().unwrap_or_default(),
            };
            (id.to_owned(), described)
        })
        .collect()
}

/// Ids of a node's normal and build dependencies.
fn edges(node: &Value) -> Vec<String> {
    let deps = node["deps"].as_array().expect("deps");
    let shipped = |dep: &&Value| {
        let kinds = dep["dep_kinds"].as_array().expect("dep_kinds");
        kinds.iter().any(|kind| kind["kind"] != "dev")
    };
    deps.iter().filter(shipped).map(|dep| text(&dep["pkg"]).to_owned()).collect()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked", "--all-features"])
        .args(["--filter-platform", "x86_64-unknown-linux-gnu"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a string")
}
