//! kadmind away, slow, or of another mind.

use krb_tests::{realm::Options, world::broker::Settings};

use super::{KEYTAB, Story, asking, fails, impatient, works};

const HERE: &str = "HTTP/web.tsfoo.svc.cluster.local";

#[tokio::test(flavor = "multi_thread")]
async fn without_kadmind_no_new_key_is_made_and_held_ones_are_given_out() -> Story {
    let mut world = impatient(Options::default(), Settings::default())?;
    let (pod, other) = (asking(&world, "first", KEYTAB)?, asking(&world, "other", KEYTAB)?);
    world.realm.stop_kadmind();
    let text = fails(&world, &pod, "KADMIN_UNAVAILABLE")?;
    assert!(!text.contains("127."), "tells no address: {text}");
    assert_eq!(fails(&world, &pod, "KADMIN_UNAVAILABLE")?, text, "says the same twice");
    world.realm.start_kadmind()?;
    works(&world, &pod)?;
    world.realm.start_kadmind()?; // handles to the one before are dead for good
    let nfs = asking(&world, "nfs", &[("ts/services", "nfs")])?;
    works(&world, &nfs)?;
    world.realm.stop_kadmind();
    works(&world, &other)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kadmind_that_does_not_answer_is_as_good_as_none() -> Story {
    let settings = Settings { leases: "issue_within = \"3s\"\n".to_owned(), ..Settings::default() };
    let world = impatient(Options::default(), settings)?;
    let pod = asking(&world, "waits", KEYTAB)?;
    world.realm.pause_kadmind();
    fails(&world, &pod, "KADMIN_UNAVAILABLE")?;
    world.realm.resume_kadmind();
    works(&world, &pod)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_somebody_else_made_is_left_alone() -> Story {
    let world = impatient(Options::default(), Settings::default())?;
    world.realm.kadmin_local(&["addprinc", "-randkey", HERE])?;
    let before = world.realm.kadmin_local(&["getprinc", HERE])?;
    let pod = asking(&world, "taken", KEYTAB)?;
    fails(&world, &pod, "PRINCIPAL_NOT_MANAGED")?;
    assert_eq!(world.realm.kadmin_local(&["getprinc", HERE])?, before, "nothing was changed");
    world.realm.kadmin_local(&["delprinc", HERE])?;
    works(&world, &pod)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_in_kadmins_acl_can_not_be_made() -> Story {
    let world = impatient(Options::default(), Settings::default())?;
    // The realm's ACL has no line for ftp.
    let pod = asking(&world, "ftp", &[("ts/services", "ftp")])?;
    fails(&world, &pod, "KADMIN_DENIED")?;
    works(&world, &asking(&world, "http", KEYTAB)?)?;
    Ok(())
}
