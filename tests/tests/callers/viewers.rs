//! What viewers see, and requests that are malformed.

use krb_proto::v1;
use krb_tests::world::{
    api::{Api, reason},
    pki::Subject,
    pods::Pod,
};

use super::{Story, world};

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_bound_to_namespaces_sees_nothing_of_the_others() -> Story {
    let world = world(&["node-a"])?;
    let asked = [("ts/services", "HTTP"), ("ts/prestashtkt", "true")];
    let others = world.pod("foo-0", "node-a")?;
    let own = world.apply(&Pod::new("bar-0", "tsbar", 61_300, "node-a").annotated(&asked))?;
    for pod in [&others, &own] {
        let answer = world.nodes[0].mount(pod)?;
        assert!(answer.is_success(), "{answer:?}");
    }
    let operator = world.operator().await?;
    let hidden = operator.lease_of(&others.uid).await?.expect("a lease").lease_id;
    let shown = operator.lease_of(&own.uid).await?.expect("a lease").lease_id;

    // victor is bound to tsbar by the configuration.
    let victor = Api::connect(world.broker.address(), &world.pki, "viewer").await?;
    let all = victor.list(v1::ListLeasesRequest::default()).await?;
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!(all[0].lease_id, shown);
    for request in [
        v1::ListLeasesRequest { namespace: "tsfoo".into(), ..Default::default() },
        v1::ListLeasesRequest { pod_uid: others.uid.clone(), ..Default::default() },
        v1::ListLeasesRequest { principal: "tsfoo@TEST.EXAMPLE.COM".into(), ..Default::default() },
    ] {
        assert_eq!(victor.list(request.clone()).await?, [], "{request:?}");
    }
    let get = |id: &str| v1::GetLeaseRequest { lease_id: id.to_owned() };
    assert_eq!(victor.leases().get_lease(get(&shown)).await?.into_inner().lease_id, shown);
    let refused = victor.leases().get_lease(get(&hidden)).await.expect_err("is not shown");
    let absent = victor.leases().get_lease(get(&absent(&hidden))).await.expect_err("is not there");
    assert_eq!(reason(&refused), "NOT_FOUND");
    assert_eq!(refused.message(), absent.message(), "says not even that it is there");

    world.pki.issue("viewer", "vera", &Subject::client("vera"))?;
    let vera = Api::connect(world.broker.address(), &world.pki, "vera").await?;
    assert_eq!(vera.list(v1::ListLeasesRequest::default()).await?.len(), 2, "vera is not bound");
    Ok(())
}

/// The id with another last character.
fn absent(id: &str) -> String {
    let last = if id.ends_with('0') { '1' } else { '0' };
    format!("{}{last}", &id[..id.len() - 1])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_is_an_invalid_argument() -> Story {
    let world = world(&["node-a"])?;
    let operator = world.operator().await?;
    let long = "a".repeat(10_000);
    for text in ["x", "../..", "a\u{0}b", " ", &long] {
        let empty = v1::ListLeasesRequest::default;
        let mut requests = vec![
            v1::ListLeasesRequest { page_token: text.to_owned(), ..empty() },
            v1::ListLeasesRequest { principal: text.to_owned(), ..empty() },
        ];
        if text != "x" {
            requests.push(v1::ListLeasesRequest { node: text.to_owned(), ..empty() });
            requests.push(v1::ListLeasesRequest { namespace: text.to_owned(), ..empty() });
            requests.push(v1::ListLeasesRequest { pod_uid: text.to_owned(), ..empty() });
        }
        for request in requests {
            let refused = operator.leases().list_leases(request.clone()).await;
            let refused = refused.err().unwrap_or_else(|| panic!("accepted {request:?}"));
            assert_eq!(reason(&refused), "INVALID_ARGUMENT", "{refused:?}");
            assert!(refused.message().len() < 500, "repeats what it was sent");
        }
        let request = v1::GetLeaseRequest { lease_id: text.to_owned() };
        let refused = operator.leases().get_lease(request).await.expect_err("no lease id");
        assert_eq!(reason(&refused), "INVALID_ARGUMENT");
    }
    for state in [-1, 0, 7, i32::MAX] {
        let request = v1::ListLeasesRequest { states: vec![state], ..Default::default() };
        let refused = operator.leases().list_leases(request).await.expect_err("no state");
        assert_eq!(reason(&refused), "INVALID_ARGUMENT", "{state}");
    }
    let request = v1::ListLeasesRequest { page_size: u32::MAX, ..Default::default() };
    operator.leases().list_leases(request).await?;
    world.serves_on("good", "node-a").await?;
    Ok(())
}
