//! A realm that is not as the broker needs it to be.

use krb_tests::{
    realm::Options,
    world::{TSFOO, World, broker::Settings},
};

use super::Story;

/// Starts a broker in such a realm; what it says when it ends, which it does by itself.
fn refused(options: Options) -> Result<String, Box<dyn std::error::Error>> {
    // It may end before it is seen to listen, or after.
    match World::build(&[], &[TSFOO], options, Settings::default()) {
        Ok(mut world) => Ok(world.broker.ended()?),
        Err(error) => Ok(error.to_string()),
    }
}

fn wide() -> Options {
    let acl = Some(vec!["krb-broker/admin@TEST.EXAMPLE.COM *".to_owned()]);
    Options { acl, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_policy_that_keeps_keys_the_broker_does_not_run() -> Story {
    for (minlife, word) in [
        (None, "policy krb-broker"),
        (Some("1d".to_owned()), "minlife of 1 days"),
        (Some("3649d".to_owned()), "minlife of 3649 days"),
    ] {
        let said = refused(Options { policy_minlife: minlife.clone(), ..Options::default() })?;
        assert!(said.contains(word), "{minlife:?}: {said}");
        assert!(said.contains("krb-broker acl"), "says what to do: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn with_rights_that_are_too_wide_the_broker_runs_only_if_that_is_wanted() -> Story {
    let said = refused(wide())?;
    assert!(said.contains("too wide") && said.contains("allow_wide_rights"), "{said}");
    let mut settings = Settings::default();
    settings.realm += "allow_wide_rights = true\n";
    let world = World::build(&["node-a"], &[TSFOO], wide(), settings)?;
    world.pods.service("tsfoo", "web")?;
    world.serves_on("good", "node-a").await?;
    assert!(world.broker.log().contains("too wide, and that is allowed"), "{}", world.broker.log());
    Ok(())
}
