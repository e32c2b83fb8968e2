//! Whose tickets a pod may have: its own account's, and those of accounts that list it.

use krb_proto::{Principal, reason::Reason};

use super::{
    Denial, GrantedTicket, Login,
    account::RoleAccount,
    ask::{Ask, TicketsAsk},
    load::Entitlements,
    rules::Rules,
};

/// The tickets of the ask, ascending, no two alike.
pub(crate) fn granted(
    entitlements: &Entitlements,
    rules: &Rules,
    account: &RoleAccount,
    ask: &Ask,
) -> Result<Vec<GrantedTicket>, Denial> {
    let own = std::slice::from_ref(&account.login);
    let logins = match &ask.tickets {
        TicketsAsk::None => &[],
        TicketsAsk::Own => own,
        TicketsAsk::Of(logins) => logins.as_slice(),
    };
    let mut tickets = logins
        .iter()
        .map(|login| {
            may_have(entitlements, account, login)?;
            ticket(rules, login)
        })
        .collect::<Result<Vec<_>, _>>()?;
    tickets.sort();
    tickets.dedup();
    Ok(tickets)
}

/// The same words whether the other account exists or not.
fn may_have(
    entitlements: &Entitlements,
    account: &RoleAccount,
    login: &Login,
) -> Result<(), Denial> {
    let lists_us = |other: &RoleAccount| other.tickets_for.contains(&account.login);
    if *login == account.login || entitlements.account(login).is_some_and(|other| lists_us(other)) {
        return Ok(());
    }
    Err(Denial::with_rule(
        Reason::TicketNotEntitled,
        format!("{} may not have tickets of {login}", account.login),
        format!("there is no {login} that lists {} in tickets_for", account.login),
    ))
}

fn ticket(rules: &Rules, login: &Login) -> Result<GrantedTicket, Denial> {
    let client = Principal::new(&[login.as_str()], &rules.realm)
        .map_err(|why| Denial::malformed(format!("prestashtkt: {login} {why}")))?;
    Ok(GrantedTicket { login: login.clone(), client })
}
