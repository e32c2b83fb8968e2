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
            let other = may_have(entitlements, account, login)?;
            ticket(rules, other)
        })
        .collect::<Result<Vec<_>, _>>()?;
    tickets.sort();
    tickets.dedup();
    Ok(tickets)
}

/// The account of that login. The same words whether it exists or not.
fn may_have<'a>(
    entitlements: &'a Entitlements,
    account: &'a RoleAccount,
    login: &Login,
) -> Result<&'a RoleAccount, Denial> {
    if *login == account.login {
        return Ok(account);
    }
    let lists_us = |other: &&RoleAccount| other.tickets_for.contains(&account.login);
    let other = entitlements.account(login).map(AsRef::as_ref);
    if let Some(other) = other.filter(lists_us) {
        return Ok(other);
    }
    Err(Denial::with_rule(
        Reason::TicketNotEntitled,
        format!("{} may not have tickets of {login}", account.login),
        format!("there is no {login} that lists {} in tickets_for", account.login),
    ))
}

/// The terms of an account's tickets.
pub(crate) fn ticket(rules: &Rules, account: &RoleAccount) -> Result<GrantedTicket, Denial> {
    let RoleAccount { login, mode, sharing, .. } = account;
    let client = Principal::new(&[login.as_str()], &rules.realm)
        .map_err(|why| Denial::malformed(format!("prestashtkt: {login} {why}")))?;
    Ok(GrantedTicket { login: login.clone(), client, mode: *mode, sharing: *sharing })
}
