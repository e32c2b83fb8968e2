//! A thousand pods of one account start at once: what the KDC is asked for them.

use tokio::task::JoinSet;

use super::{Budget, Failure, Report, node_client::NodeClient, scene, stopwatch::Stopwatch};

/// Pods.
const PODS: usize = 1_000;
/// Issues under way at once.
const AT_ONCE: usize = 32;

/// Issues to all pods, and counts at the KDC.
pub async fn measure() -> Result<Report, Failure> {
    let world = scene::world(false)?;
    let pods = scene::pods(&world, "crowd", PODS, &[("ts/prestashtkt", "true")])?;
    let node = NodeClient::attach(&world, 2).await?;
    let before = world.realm.kdc_requests();
    let watch = Stopwatch::start();
    let mut tasks: JoinSet<Result<bool, Failure>> = JoinSet::new();
    let mut with_ticket = 0;
    for (number, pod) in pods.iter().enumerate() {
        if tasks.len() >= AT_ONCE {
            with_ticket += usize::from(ended(&mut tasks).await?);
        }
        let (mut client, request) = (node.channel(number), node.request(&pod.uid));
        tasks.spawn(async move {
            let issued = client.issue(request).await?.into_inner();
            Ok(issued.material.is_some_and(|material| !material.tickets.is_empty()))
        });
    }
    while !tasks.is_empty() {
        with_ticket += usize::from(ended(&mut tasks).await?);
    }
    let took = watch.elapsed();
    if with_ticket != PODS {
        return Err(format!("{with_ticket} of {PODS} pods got a ticket").into());
    }
    let after = world.realm.kdc_requests();
    let (asked, tgs) = (after.total() - before.total(), after.tgs_requests - before.tgs_requests);
    let lines = vec![format!(
        "{PODS} pods of one account in {:.2} s: {} AS and {tgs} TGS requests at the KDC",
        took.as_secs_f64(),
        asked - tgs
    )];
    let budget = Budget {
        name: "kdc-requests-of-1000-pods",
        met: asked <= 2,
        figure: asked.to_string(),
        budget: "2".to_owned(),
        rival: "kinit -kt in each pod 2000".to_owned(),
    };
    Ok(Report { lines, budgets: vec![budget] })
}

/// Waits for one of the tasks.
async fn ended(tasks: &mut JoinSet<Result<bool, Failure>>) -> Result<bool, Failure> {
    tasks.join_next().await.ok_or("no issue is under way")??
}
