//! `PrincipalService`: the principals whose keys are the broker's.

use std::sync::Arc;

use krb_proto::{
    NodeName, Principal,
    reason::Reason,
    timestamp,
    v1::{self, principal_service_server::PrincipalService},
};
use tonic::{Code, Request, Response, Status};

use super::{
    authorize::caller,
    errors::{invalid, status},
    revocation::{begins_at, reason},
};
use crate::{
    audit::{self, Event, Record},
    entitlement::{AccountMode, Login, policy::Policy},
    kdc::{Attributes, KeyAdmin},
    keys::{
        Held, ManagedPrincipal,
        drift::{CompareError, Comparer},
        due::Kind,
        standing::{Off, Standing},
        walker::Walker,
    },
    ledger::{Ledger, book::Book},
};

/// The most principals of a page, and how many there are where nothing is said.
const PAGE: (u32, u32) = (1_000, 100);

/// Serves operators.
#[derive(Clone)]
pub struct PrincipalApi {
    /// The ledger.
    pub book: Book,
    /// Replaces keys.
    pub walker: Walker,
    /// Compares keys.
    pub comparer: Comparer,
    /// The realm's administration.
    pub admin: Arc<dyn KeyAdmin>,
    /// The accounts there are.
    pub policy: Arc<Policy>,
    /// The longest life of the tickets of a service.
    pub service_max_life: std::time::Duration,
    /// The longest life of the tickets of a role account.
    pub ticket_life: std::time::Duration,
    /// The policy that the broker's principals carry.
    pub kadm_policy: String,
}

#[tonic::async_trait]
impl PrincipalService for PrincipalApi {
    async fn list_principals(
        &self,
        request: Request<v1::ListPrincipalsRequest>,
    ) -> Result<Response<v1::ListPrincipalsResponse>, Status> {
        let asked = request.into_inner();
        let filter = Filter::of(&asked)?;
        let size = if asked.page_size == 0 { PAGE.1 } else { asked.page_size.min(PAGE.0) } as usize;
        let reply = self.book.read(|ledger| {
            let mut fits: Vec<&ManagedPrincipal> =
                ledger.principals().filter(|known| self.fits(ledger, known, &filter)).collect();
            fits.sort_by(|a, b| a.principal.cmp(&b.principal));
            let more = fits.len() > size;
            fits.truncate(size);
            let last = fits.last().filter(|_| more);
            v1::ListPrincipalsResponse {
                next_page_token: last.map(|known| known.principal.to_string()).unwrap_or_default(),
                principals: fits.into_iter().map(|known| self.written(ledger, known)).collect(),
            }
        });
        Ok(Response::new(reply))
    }

    async fn get_principal(
        &self,
        request: Request<v1::GetPrincipalRequest>,
    ) -> Result<Response<v1::Principal>, Status> {
        let principal = name(&request.into_inner().principal)?;
        self.look(&principal).map(Response::new)
    }

    async fn rotate_principal(
        &self,
        request: Request<v1::RotatePrincipalRequest>,
    ) -> Result<Response<v1::RotatePrincipalResponse>, Status> {
        let by = caller(&request)?.actor();
        let asked = request.into_inner();
        let principal = name(&asked.principal)?;
        let kind = match v1::RotationKind::try_from(asked.kind) {
            Ok(v1::RotationKind::Unspecified | v1::RotationKind::Overlap) => Kind::Scheduled,
            Ok(v1::RotationKind::Emergency) => Kind::Emergency,
            Err(_) => return Err(invalid("kind", "is no kind of rotation")),
        };
        let why = reason(&asked.reason, false)?;
        let rules = self.walker.rules();
        let reply = self
            .book
            .commit_if(|ledger, lines, now| {
                let known = ledger.principal(&principal)?;
                let current = known.current().filter(|_| known.is_ready())?.keyset.kvno;
                let begins = known.begins(kind, now.wall, &rules.times);
                ledger.ask_rekey(&principal, kind);
                let line = Record::new(Event::KeyAsked, by).principal(&principal);
                lines.push(line.detail(&format!("{}: {why}", kind.name())));
                let begins_at = Some(timestamp(begins_at(begins, now)));
                Some(v1::RotatePrincipalResponse { current_kvno: current.0, begins_at })
            })
            .await?;
        self.walker.kick(&principal);
        match reply {
            Some(reply) => Ok(Response::new(reply)),
            None => Err(self.no_key(&principal)),
        }
    }

    async fn adopt_principal(
        &self,
        request: Request<v1::AdoptPrincipalRequest>,
    ) -> Result<Response<v1::Principal>, Status> {
        let by = caller(&request)?.actor();
        let asked = request.into_inner();
        let principal = name(&asked.principal)?;
        let account: Login = asked.account.parse().map_err(|e| invalid("account", e))?;
        let attributes = self.attributes_to_be(&principal, &account)?;
        self.must_be_adoptable(&principal).await?;
        let adopted = self
            .book
            .commit_if(|ledger, lines, now| {
                let adopted =
                    ledger.adopt(&principal, &account, asked.shared, attributes, now.wall);
                adopted.then(|| {
                    let line = Record::new(Event::PrincipalAdopted, by).principal(&principal);
                    lines.push(line.account(&account));
                })
            })
            .await?;
        if adopted.is_none() {
            let message = format!("{principal} is the broker's already, or another account's");
            return Err(status(Code::AlreadyExists, Reason::PrincipalTaken, message));
        }
        self.look(&principal).map(Response::new)
    }

    async fn compare_principal(
        &self,
        request: Request<v1::ComparePrincipalRequest>,
    ) -> Result<Response<v1::ComparePrincipalResponse>, Status> {
        let principal = name(&request.into_inner().principal)?;
        let compared = self.comparer.compare(&principal).await.map_err(|error| match error {
            CompareError::Unknown { .. } => unknown(),
            CompareError::Unsettled { .. } => {
                status(Code::FailedPrecondition, Reason::KeysNotReady, error.to_string())
            }
            CompareError::Store { source, .. } => source.into(),
        })?;
        let kdc = |(kdc, finding)| v1::ComparedKdc { kdc, finding };
        Ok(Response::new(v1::ComparePrincipalResponse {
            drift: compared.drift.is_some(),
            kdcs: compared.findings.into_iter().map(kdc).collect(),
        }))
    }

    async fn enable_principal(
        &self,
        request: Request<v1::EnablePrincipalRequest>,
    ) -> Result<Response<v1::Principal>, Status> {
        let by = caller(&request)?.actor();
        let principal = name(&request.into_inner().principal)?;
        self.book
            .commit_if(|ledger, lines, _| {
                ledger.principal(&principal)?.switched_off.as_ref()?;
                ledger.switch_on(&principal);
                let line = Record::new(Event::PrincipalSwitched, by).principal(&principal);
                lines.push(line.detail("on"));
                Some(())
            })
            .await?;
        self.walker.kick(&principal);
        self.look(&principal).map(Response::new)
    }
}

/// What a principal must be to be listed.
struct Filter {
    account: Option<Login>,
    contains: String,
    node: Option<NodeName>,
    walking: bool,
    after: Option<Principal>,
}

impl Filter {
    fn of(asked: &v1::ListPrincipalsRequest) -> Result<Self, Status> {
        Ok(Self {
            account: super::lease::optional("account", &asked.account)?,
            contains: asked.contains.clone(),
            node: super::lease::optional("node", &asked.node)?,
            walking: asked.walking,
            after: super::lease::optional("page_token", &asked.page_token)?,
        })
    }
}

impl PrincipalApi {
    fn fits(&self, ledger: &Ledger, known: &ManagedPrincipal, filter: &Filter) -> bool {
        let now = self.book.now().wall;
        let walks = || ledger.due(&known.principal, now, self.walker.rules()).is_some();
        filter.after.as_ref().is_none_or(|after| known.principal > *after)
            && filter.account.as_ref().is_none_or(|account| known.owner == *account)
            && (filter.contains.is_empty()
                || known.principal.to_string().contains(&filter.contains))
            && filter.node.as_ref().is_none_or(|n| ledger.given_to(&known.principal, n).is_some())
            && (!filter.walking || known.under_way().is_some() || walks())
    }

    fn look(&self, principal: &Principal) -> Result<v1::Principal, Status> {
        let found = self
            .book
            .read(|ledger| ledger.principal(principal).map(|known| self.written(ledger, known)));
        found.ok_or_else(unknown)
    }

    fn written(&self, ledger: &Ledger, known: &ManagedPrincipal) -> v1::Principal {
        let (now, rules) = (self.book.now().wall, self.walker.rules());
        let name = &known.principal;
        let due = ledger.due(name, now, rules);
        let pruned = known.pruned.iter().map(|(kvno, until)| v1::PrunedKey {
            kvno: kvno.0,
            exposed_until: Some(timestamp(*until)),
        });
        v1::Principal {
            principal: name.to_string(),
            account: known.owner.to_string(),
            shared: known.shared,
            of_pod: known.of_pod,
            role_account: known.attributes.is_role_account(),
            standing: standing(known.standing),
            switched_off_by: known
                .switched_off
                .as_ref()
                .and_then(|off| off.by.clone())
                .unwrap_or_default(),
            keysets: known.keysets.values().map(|held| keyset(ledger, held)).collect(),
            lease_ids: ledger.active_with(name).iter().map(ToString::to_string).collect(),
            high_water: known.high_water.0,
            due: due.map(Kind::name).unwrap_or_default().to_owned(),
            waits_for: ledger.waiting(name).unwrap_or_default().to_owned(),
            scheduled_at: rules.schedule.at(known).map(timestamp),
            replaced_at: known.replaced_at.map(timestamp),
            pruned: pruned.collect(),
        }
    }

    /// Why a principal without a key in use is not rotated.
    fn no_key(&self, principal: &Principal) -> Status {
        if self.book.read(|ledger| ledger.principal(principal).is_none()) {
            return unknown();
        }
        let message = format!("{principal} has no key in use: its next pod makes one");
        status(Code::FailedPrecondition, Reason::KeysNotReady, message)
    }

    /// An administrator has put it under the broker's policy, which only kadmin can say.
    /// How an adopted principal is to be: a role account's own is no service.
    fn attributes_to_be(
        &self,
        principal: &Principal,
        account: &Login,
    ) -> Result<Attributes, Status> {
        let Some(client) = self.policy.may_be_clients(account) else {
            return Err(invalid("account", "is no account of the entitlements"));
        };
        let accounts = self.policy.accounts();
        let Some(own) = accounts.into_iter().find(|own| own.client == *principal) else {
            return Ok(Attributes::service(self.service_max_life, client));
        };
        if own.login != *account {
            return Err(invalid("account", "is another than the one that is called so"));
        }
        match own.mode {
            AccountMode::Managed => Ok(Attributes::role_account(self.ticket_life)),
            AccountMode::Keytab => Err(invalid(
                "principal",
                "is a role account whose keytab was handed over: set role_account: managed first",
            )),
        }
    }

    async fn must_be_adoptable(&self, principal: &Principal) -> Result<(), Status> {
        let state = self.admin.inspect(principal).await.map_err(|error| {
            tracing::warn!(%principal, error = audit::chain(&error), "not adopted");
            let message = format!("kadmin does not say how {principal} is: {error}");
            status(Code::Unavailable, Reason::KadminUnavailable, message)
        })?;
        let not_managed =
            |message| Err(status(Code::FailedPrecondition, Reason::PrincipalNotManaged, message));
        match state {
            None => not_managed(format!("{principal} is unknown at kadmin")),
            Some(state) if state.policy.as_ref() != Some(&self.kadm_policy) => {
                not_managed(format!("{principal} does not carry the policy {}", self.kadm_policy))
            }
            Some(_) => Ok(()),
        }
    }
}

fn keyset(ledger: &Ledger, held: &Held) -> v1::Keyset {
    let recipient = |recipient: &crate::keys::Recipient| v1::KeyRecipient {
        node: recipient.0.to_string(),
        generation: recipient.1.0,
        fenced: ledger.is_fenced(recipient),
    };
    v1::Keyset {
        kvno: held.keyset.kvno.0,
        phase: format!("{:?}", held.phase),
        since: Some(timestamp(held.since)),
        made_at: Some(timestamp(held.keyset.made_at)),
        retired_at: held.retired_at.map(timestamp),
        enctypes: held.keyset.keys.iter().map(|key| key.enctype().to_string()).collect(),
        delivered_to: held.delivered_to.iter().map(recipient).collect(),
    }
}

fn standing(standing: Standing) -> String {
    match standing {
        Standing::InUse => "in_use".to_owned(),
        Standing::Leaving(Off::Disabled) => "being disabled".to_owned(),
        Standing::Leaving(Off::Deleted) => "being deleted".to_owned(),
        Standing::Off(how) => how.name().to_owned(),
    }
}

fn name(text: &str) -> Result<Principal, Status> {
    text.parse().map_err(|e| invalid("principal", e))
}

fn unknown() -> Status {
    status(Code::NotFound, Reason::NotFound, "the broker has no such principal".to_owned())
}
