//! The broker's view of a cluster, held against a real API server.
//!
//! Where its binaries are not to be had, each test says `kube_api: NOT RUN` and passes.

mod admission;

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
    api.compact().expect("compaction");
    api.start_empty().expect("it starts with nothing");
    assert!(kubectl.get("default", "namespace", "one").expect("get").is_none());
}
