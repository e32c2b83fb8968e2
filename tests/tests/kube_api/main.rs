//! The broker's view of a cluster, held against a real API server.
//!
//! Where its binaries are not to be had, each test says `kube_api: NOT RUN` and passes.

#![allow(missing_docs, reason = "names and sentences say it")]

mod admission;
mod away;
mod events;
mod field;
mod guards;
mod identity;
mod pods;

use krb_tests::kube_api::KubeApi;

#[test]
fn an_api_server_starts_stops_and_forgets() {
    let Some(mut api) = KubeApi::start().expect("an API server") else { return };
    let kubectl = api.kubectl().clone();
    kubectl.run(&["create", "namespace", "one"]).expect("create");
    api.stop();
    kubectl.run(&["get", "--raw", "/readyz"]).expect_err("nobody listens");
    api.start_again().expect("it starts again");
    assert!(kubectl.get("default", "namespace", "one").expect("get").is_some());
    kubectl.run(&["delete", "namespace", "one", "--wait=false"]).expect("delete");
    api.finalize("one").expect("it may go");
    assert!(kubectl.get("default", "namespace", "one").expect("get").is_none());
}
