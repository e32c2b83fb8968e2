//! What `make torture` compares with: that it sees a difference where there is one.

use std::fs;

use krb_tests::{
    torture::check::{Has, Volume, compare, unrest},
    world::{World, wait_for},
};

type Story = Result<(), Box<dyn std::error::Error>>;

const SERVICE: &str = "HTTP/web.tsfoo.svc.cluster.local";

#[tokio::test(flavor = "multi_thread")]
async fn what_the_kdc_the_store_and_a_keytab_do_not_agree_on_is_found() -> Story {
    let world = World::with_nodes(&["node-a"])?;
    world.pods.service("tsfoo", "web")?;
    let (node, pod) = (&world.nodes[0], &world.pod("web-0", "node-a")?);
    let operator = world.operator().await?;
    let volumes = [Volume { node, pod, has: Has::Lease }];
    let waits = unrest(&operator, &volumes).await?.expect("a lease that is not there");
    assert!(waits.starts_with("web-0: Lease"), "{waits}");
    assert_eq!(compare(&world, &volumes).await?.lost, ["web-0 has no live lease"]);

    assert!(node.mount(pod)?.is_success());
    let found = compare(&world, &volumes).await?;
    assert_eq!((unrest(&operator, &volumes).await?, found.lost.len()), (None, 0), "{found:?}");
    assert!(found.differences.is_empty(), "{found:?}");

    let place = node.inside(&node.target(pod).display().to_string());
    let whole = fs::read(place.join("keytabs/tsfoo"))?;
    fs::write(place.join("keytabs/tsfoo"), &whole[..whole.len() - 1])?;
    assert_eq!(compare(&world, &volumes).await?.lost, ["web-0 has no keytab"]);
    fs::write(place.join("keytabs/tsfoo"), &whole[..2])?;
    let [other] = &compare(&world, &volumes).await?.differences[..] else { panic!("one") };
    assert!(other.ends_with("name different principals"), "{other}");
    fs::write(place.join("keytabs/tsfoo"), &whole)?;

    world.realm.kadmin_local(&["setstr", SERVICE, "nothing", "changes"])?;
    assert!(compare(&world, &volumes).await?.differences.is_empty());
    world.realm.kadmin_local(&["cpw", "-randkey", SERVICE])?;
    let found = compare(&world, &volumes).await?.differences;
    let [key, number] = &found[..] else { panic!("{found:?}") };
    assert!(key.contains("is not the KDC's") && key.ends_with("[Some(2), Some(3)]"), "{key}");
    assert!(number.contains("the KDC Some((3, "), "{number}");

    assert!(node.unmount(pod)?.is_success());
    let released = tokio::runtime::Handle::current();
    let gone = [Volume { node, pod, has: Has::Nothing }];
    wait_for("its lease to go", || {
        let asked = tokio::task::block_in_place(|| released.block_on(unrest(&operator, &gone)));
        asked.ok()?.is_none().then_some(())
    })?;
    Ok(())
}
