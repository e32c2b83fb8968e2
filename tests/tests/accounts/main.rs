//! Role accounts: those whose keys the broker makes, those that were handed over, and who
//! shares their tickets.

mod handed_over;
mod managed;
mod sharing;

use krb_tests::{
    realm::Options,
    world::{Account, World, WorldError, broker::Settings, pods::Pod},
};

type Story = Result<(), Box<dyn std::error::Error>>;

/// A world with this one account.
fn world(
    nodes: &[&str],
    account: &Account,
    options: Options,
    more_of_realm: &str,
) -> Result<World, WorldError> {
    let mut settings = Settings::default();
    settings.realm += more_of_realm;
    World::build(nodes, std::slice::from_ref(account), options, settings)
}

/// A known pod of the account on `node` that asks for its ticket.
fn pod(world: &World, account: &Account, name: &str, node: &str) -> Result<Pod, WorldError> {
    let asked = [("ts/prestashtkt", "true")];
    world.apply(&Pod::new(name, account.login, account.uid, node).annotated(&asked))
}

/// The same, mounted; its ticket file.
fn mounted(
    world: &World,
    account: &Account,
    name: &str,
    node: &str,
) -> Result<(Pod, Vec<u8>), WorldError> {
    let pod = pod(world, account, name, node)?;
    let wrong = |what: String| WorldError::new(format!("mounting {name}"), what);
    let on = world.nodes.iter().find(|known| known.name() == node);
    let on = on.ok_or_else(|| wrong(format!("there is no {node}")))?;
    let answer = on.mount(&pod)?;
    if !answer.is_success() {
        return Err(wrong(format!("{answer:?}\n{}", world.broker.log())));
    }
    let ticket = on.read(&pod, &format!("tickets/{}", account.login));
    Ok((pod, ticket.ok_or_else(|| wrong("there is no ticket".to_owned()))?))
}

/// The details of the audit lines of this event.
fn details(world: &World, event: &str) -> Vec<String> {
    let lines = world.broker.audited(event).into_iter();
    lines.map(|line| line["detail"].as_str().unwrap_or_default().to_owned()).collect()
}
