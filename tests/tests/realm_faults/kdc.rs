//! KDCs that are away or do not answer.

use krb_tests::{
    realm::Options,
    world::{TSFOO, World, broker::Settings, pause},
};

use super::{Story, TICKET, asking, fails, impatient, works};

const SOON: std::time::Duration = std::time::Duration::from_millis(700);

#[tokio::test(flavor = "multi_thread")]
async fn without_a_kdc_there_is_no_ticket_and_with_it_there_is_one() -> Story {
    let mut world = impatient(Options::default(), Settings::default())?;
    let pod = asking(&world, "waits", TICKET)?;
    world.realm.stop_kdc();
    let text = fails(&world, &pod, "KDC_UNAVAILABLE")?;
    assert!(!text.contains("127."), "tells no address: {text}");
    assert_eq!(fails(&world, &pod, "KDC_UNAVAILABLE")?, text, "says the same twice");
    world.realm.start_kdc()?;
    works(&world, &pod)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mount_waits_for_a_kdc_that_comes_back() -> Story {
    let mut world = World::build(&["node-a"], &[TSFOO], Options::default(), Settings::default())?;
    let pod = asking(&world, "waits", TICKET)?;
    world.realm.stop_kdc();
    let World { nodes, realm, .. } = &mut world;
    let answer = std::thread::scope(|scope| {
        let mount = scope.spawn(|| nodes[0].mount(&pod));
        pause(SOON);
        realm.start_kdc().expect("the KDC listens again");
        mount.join().expect("the mount returns")
    })?;
    assert!(answer.is_success(), "{answer:?}");
    assert!(!world.broker.audited("lease.denied").is_empty(), "it was not there at first");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kdc_that_does_not_answer_is_as_good_as_none() -> Story {
    let settings = Settings { leases: "issue_within = \"3s\"\n".to_owned(), ..Settings::default() };
    let world = impatient(Options::default(), settings)?;
    let pod = asking(&world, "waits", TICKET)?;
    world.realm.pause_kdc();
    fails(&world, &pod, "KDC_UNAVAILABLE")?;
    world.realm.resume_kdc();
    works(&world, &pod)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_kdc_serves_while_the_first_is_away() -> Story {
    let options = Options { kdcs: 2, ..Options::default() };
    let mut world = impatient(options, Settings::default())?;
    world.realm.propagate()?;
    world.realm.stop_kdc_at(0);
    works(&world, &asking(&world, "second", TICKET)?)?;
    Ok(())
}
