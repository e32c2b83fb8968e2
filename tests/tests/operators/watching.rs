//! `WatchLeases`: ordered, durable, resumable.

use std::time::Duration;

use krb_proto::v1::{LeaseChange, LeaseState, WatchLeasesRequest};
use krb_tests::world::{api::reason, see::lease_in};
use tonic::Streaming;

use super::{Story, two_holders};

async fn next(changes: &mut Streaming<LeaseChange>) -> Result<LeaseChange, tonic::Status> {
    let waited = tokio::time::timeout(Duration::from_secs(30), changes.message()).await;
    let told = waited.map_err(|_| tonic::Status::deadline_exceeded("nothing was told"))?;
    told?.ok_or_else(|| tonic::Status::aborted("the stream has ended"))
}

fn state(change: &LeaseChange) -> LeaseState {
    change.lease.as_ref().map_or(LeaseState::Unspecified, |lease| lease.state())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_sees_what_there_is_and_then_every_change_in_order() -> Story {
    let (mut world, one, two) = two_holders()?;
    let api = world.operator().await?;
    let watch = |resume_token: String| {
        let request = WatchLeasesRequest { resume_token, ..WatchLeasesRequest::default() };
        let mut leases = api.leases();
        async move { leases.watch_leases(request).await }
    };
    let mut changes = watch(String::new()).await?.into_inner();
    let listed = [next(&mut changes).await?, next(&mut changes).await?];
    assert!(listed.iter().all(|change| state(change) == LeaseState::Active), "{listed:?}");
    let end = next(&mut changes).await?;
    assert!(end.listed && end.lease.is_none() && !end.resume_token.is_empty(), "{end:?}");

    assert!(world.node("node-a").unmount(&one)?.is_success());
    let released = next(&mut changes).await?;
    assert_eq!(state(&released), LeaseState::Released);
    world.node("node-b").kill_agent();
    let seen = [next(&mut changes).await?, next(&mut changes).await?];
    let states: Vec<_> = seen.iter().map(state).collect();
    assert_eq!(states, [LeaseState::Revoking, LeaseState::Revoked]);

    // from the middle: the same again, and nothing before
    let mut again = watch(released.resume_token).await?.into_inner();
    for expected in &seen {
        assert_eq!(next(&mut again).await?.resume_token, expected.resume_token);
    }
    lease_in(&api, &two.uid, LeaseState::Revoked).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_a_broker_before_its_restart_says_that_it_is_lost() -> Story {
    let (mut world, _, _) = two_holders()?;
    let api = world.operator().await?;
    let mut changes = api.leases().watch_leases(WatchLeasesRequest::default()).await?.into_inner();
    let token = loop {
        let change = next(&mut changes).await?;
        if change.listed {
            break change.resume_token;
        }
    };
    world.broker.kill();
    world.broker.restart()?;
    let api = world.operator().await?;
    for (resume_token, expected) in [(token, "RESUME_LOST"), ("x".to_owned(), "INVALID_ARGUMENT")] {
        let request = WatchLeasesRequest { resume_token, ..WatchLeasesRequest::default() };
        let status = api.leases().watch_leases(request).await.expect_err("it is not kept");
        assert_eq!(reason(&status), expected, "{status:?}");
    }
    Ok(())
}
