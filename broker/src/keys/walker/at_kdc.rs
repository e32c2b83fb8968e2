//! The steps of a walk that are taken at the KDC: making a principal, setting its key, and
//! seeing that every KDC uses it.
//!
//! A key is set only on a principal that the broker made, under a number that it stored
//! before; whatever else is found at the KDC is left alone.

use std::{sync::atomic::Ordering, time::Duration};

use krb_proto::{Kvno, Principal};

use super::{LOOK_AGAIN, Took, Turn, WalkError, Walker};
use crate::{
    audit::{Actor, Event, Record},
    kdc::{AccountKeys, Attributes, KdcError, Observation},
    keys::{
        ManagedPrincipal,
        propagation::Setting,
        standing::{Off, Standing},
        walk::{Burnt, Step},
    },
    krb5::key::Keyset,
    ledger::Ledger,
};

/// What the KDCs may have had of a principal before its key was set.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Before {
    /// No key: nobody can have a ticket to it.
    NoKey,
    /// A key, maybe.
    MaybeKey,
}

impl Walker {
    /// Sets the key at the KDC and sees that every KDC uses it.
    pub(super) async fn set(
        &self,
        principal: &Principal,
        kvno: Kvno,
        turn: &mut Turn,
    ) -> Result<Took, WalkError> {
        let Some((held, attributes, first, comes_back)) = self.0.book.read(|ledger| {
            let managed = ledger.principal(principal)?;
            let held = managed.keysets.get(&kvno)?;
            let (first, standing) = (managed.current().is_none(), managed.standing);
            let comes_back = standing != Standing::InUse;
            Some((held.clone(), managed.attributes.clone(), first, comes_back))
        }) else {
            return Ok(Took::Step);
        };
        turn.off = None; // whatever was done then is undone now
        if turn.set.as_ref().is_none_or(|setting| setting.kvno != kvno) {
            match self.set_at_kdc(principal, &held.keyset, &attributes, first, turn).await {
                Ok(before) => {
                    let now = self.0.book.now().boot;
                    let only = first && !comes_back && before == Before::NoKey;
                    turn.set = Some(match only {
                        true => Setting::only_key(kvno, now),
                        false => Setting::new(kvno, now, &held.lagging),
                    });
                }
                Err(WalkError::Kdc { source: KdcError::KvnoInTheWay { found, .. }, .. }) => {
                    return self.give_way(principal, kvno, found).await;
                }
                Err(error) => return Err(error),
            }
        }
        // The first key of a principal without one was verified at kadmin; nobody can have
        // tickets under another. Where there was one, a KDC that lags may use what it had.
        if let Some(setting) = turn.set.as_mut().filter(|setting| setting.may_lag()) {
            let kdc = self.0.kdc.for_class(self.class(principal));
            let seen = if attributes.is_role_account() {
                let keysets = vec![held.keyset];
                kdc.observe_account(&AccountKeys { client: principal.clone(), keysets }).await
            } else {
                kdc.observe(principal).await
            };
            if let Some(pause) = self.wait_for(principal, Some(kvno), setting, &seen).await? {
                return Ok(Took::Nothing(pause));
            }
            let line = Record::new(Event::KeyObserved, Actor::Broker)
                .detail("every KDC that answers uses it");
            self.record(principal, line, kvno, |_, _, _| {}).await?;
        }
        turn.pushed.1.clear();
        let recorded = self.record_current(principal, kvno).await?;
        if first && recorded {
            // Whoever had it before it was switched off has no key of it since.
            self.push_all(principal).await?;
        }
        Ok(if recorded { Took::Step } else { Took::Nothing(LOOK_AGAIN.1) })
    }

    /// How long to wait for the KDCs that lag; `None` when none does. Which ones were seen to is
    /// stored with the keyset `kvno`: a restart of the broker must not forget it.
    async fn wait_for(
        &self,
        principal: &Principal,
        kvno: Option<Kvno>,
        setting: &mut Setting,
        seen: &[Observation],
    ) -> Result<Option<Duration>, WalkError> {
        let now = self.0.book.now().boot;
        let (lags, pause) = setting.lags(seen, now, self.times().kdc_propagation);
        if let Some(kvno) = kvno {
            let lagging = setting.lagging();
            let stored = |ledger: &Ledger| {
                let held = ledger.principal(principal).and_then(|known| known.keysets.get(&kvno));
                held.is_none_or(|held| held.lagging == lagging)
            };
            if !self.0.book.read(stored) {
                self.0
                    .book
                    .commit_essential(|ledger, _, _| ledger.set_lagging(principal, kvno, &lagging))
                    .await
                    .map_err(|source| WalkError::Store { principal: principal.clone(), source })?;
            }
        }
        if lags.is_empty() {
            return Ok(None);
        }
        self.waits(principal, lags.join(", "));
        Ok(Some(pause.clamp(LOOK_AGAIN.0, LOOK_AGAIN.1)))
    }

    /// Sets the key at kadmin, after making the principal where there is none. Tells what was
    /// there before.
    async fn set_at_kdc(
        &self,
        principal: &Principal,
        keyset: &Keyset,
        attributes: &Attributes,
        first: bool,
        turn: &mut Turn,
    ) -> Result<Before, WalkError> {
        let failed = |source| WalkError::Kdc { principal: principal.clone(), source };
        self.realm_must_be_checked(principal)?;
        let admin = self.admin(principal);
        let (ours, standing) = self.0.book.read(|ledger| {
            let managed = ledger.principal(principal);
            managed.map_or((false, Standing::InUse), |known| (known.ours, known.standing))
        });
        let (exists, before) = self.found_at_kdc(principal, keyset.kvno, first, turn).await?;
        if !exists {
            self.create(principal, keyset.kvno, attributes, "").await?;
            turn.made = Some((keyset.kvno, true));
        }
        let before = match admin.activate(principal, keyset, attributes).await {
            Ok(()) => before,
            // It was there, or is in the store as made by the broker: an administrator deleted it.
            Err(KdcError::Unknown { .. }) if exists && ours => {
                tracing::warn!(%principal, "it was deleted at the KDC, and is made again");
                let why = "it was deleted at the KDC by somebody else";
                self.create(principal, keyset.kvno, attributes, why).await?;
                admin.activate(principal, keyset, attributes).await.map_err(failed)?;
                Before::MaybeKey
            }
            Err(source) => return Err(failed(source)),
        };
        // Not before: until now the KDC had a key that nobody is to use any more.
        if exists && standing != Standing::InUse {
            admin.set_disabled(principal, false).await.map_err(failed)?;
        }
        Ok(before)
    }

    /// Whether the KDC has the principal, and whether it may have had a key of it.
    async fn found_at_kdc(
        &self,
        principal: &Principal,
        kvno: Kvno,
        first: bool,
        turn: &Turn,
    ) -> Result<(bool, Before), WalkError> {
        let ours = |ledger: &Ledger| ledger.principal(principal).is_some_and(|known| known.ours);
        let ours = self.0.book.read(ours);
        // One that is the broker's, without a key of the broker's, was adopted: what is gone
        // from kadmin now may still be at a KDC that lags.
        let absent = (false, if ours { Before::MaybeKey } else { Before::NoKey });
        match turn.made {
            Some((made, false)) if made == kvno => return Ok(absent),
            _ if !first => return Ok((true, Before::MaybeKey)),
            _ => {}
        }
        // Read from the store: a crash may have come before, in or after the setting.
        let failed = |source| WalkError::Kdc { principal: principal.clone(), source };
        match self.admin(principal).inspect(principal).await.map_err(failed)? {
            None => Ok(absent),
            Some(state) if state.kvno.is_none() => Ok((true, Before::NoKey)),
            Some(state) if ours || state.kvno == Some(kvno) => Ok((true, Before::MaybeKey)),
            Some(_) => Err(failed(KdcError::NotRecorded { principal: principal.clone() })),
        }
    }

    /// Makes the principal, without a key; it is the broker's from then on.
    async fn create(
        &self,
        principal: &Principal,
        kvno: Kvno,
        attributes: &Attributes,
        why: &str,
    ) -> Result<(), WalkError> {
        let failed = |source| WalkError::Kdc { principal: principal.clone(), source };
        self.admin(principal).create(principal, attributes).await.map_err(failed)?;
        let line = Record::new(Event::KeyCreated, Actor::Broker).detail(why);
        self.record(principal, line, kvno, |ledger, _, _| ledger.is_ours_now(principal)).await
    }

    /// Switches the principal off at the KDC and sees that no KDC issues tickets to it; leases
    /// that waited for that are Revoked. A role account takes no tickets: kadmin's word counts.
    pub(super) async fn switch_off(
        &self,
        principal: &Principal,
        how: Off,
        turn: &mut Turn,
    ) -> Result<Took, WalkError> {
        let failed = |source| WalkError::Kdc { principal: principal.clone(), source };
        let (made, takes_tickets, current) = self.0.book.read(|ledger| {
            let managed = ledger.principal(principal).filter(|known| known.ours);
            let is_service = |p: &ManagedPrincipal| !p.attributes.is_role_account();
            let current = managed.and_then(ManagedPrincipal::current).cloned();
            (managed.is_some(), managed.is_some_and(is_service), current)
        });
        if made && turn.off.as_ref().is_none_or(|(done, _)| *done != how) {
            self.realm_must_be_checked(principal)?;
            let admin = self.admin(principal);
            let done = match how {
                Off::Disabled => admin.set_disabled(principal, true).await,
                Off::Deleted => admin.delete(principal).await,
            };
            match done {
                Ok(()) | Err(KdcError::Unknown { .. }) => {} // one that is not there is off
                Err(source) => return Err(failed(source)),
            }
            let lagging = current.as_ref().map(|held| held.lagging.clone()).unwrap_or_default();
            turn.off = Some((how, Setting::switched_off(self.0.book.now().boot, &lagging)));
        }
        if let Some((_, off)) = turn.off.as_mut().filter(|_| takes_tickets) {
            let seen = self.0.kdc.for_class(self.class(principal)).observe(principal).await;
            let kvno = current.map(|held| held.keyset.kvno);
            if let Some(pause) = self.wait_for(principal, kvno, off, &seen).await? {
                return Ok(Took::Nothing(pause));
            }
        }
        let rules = &self.0.rules;
        self.0
            .book
            .commit_essential_if(|ledger, lines, now| {
                // A pod may have come meanwhile: what was done is undone by its way back.
                let still = ledger.next_step(principal, now.wall, rules) == Step::SwitchOff(how);
                still.then(|| {
                    ledger.went_off(principal, how, now.wall);
                    let line = Record::new(Event::PrincipalOff, Actor::Broker);
                    lines.push(line.principal(principal).detail(how.name()));
                    super::steps::finish_revoking(ledger, lines, principal);
                })
            })
            .await
            .map_err(|source| WalkError::Store { principal: principal.clone(), source })?;
        turn.off = None;
        Ok(Took::Step)
    }

    fn realm_must_be_checked(&self, principal: &Principal) -> Result<(), WalkError> {
        if self.0.realm_checked.load(Ordering::SeqCst) {
            return Ok(());
        }
        let source = KdcError::Unavailable {
            server: "kadmin".to_owned(),
            principal: principal.clone(),
            detail: "the broker's rights and its policy have not been checked yet".to_owned(),
        };
        Err(WalkError::Kdc { principal: principal.clone(), source })
    }

    /// The KDC has a number that is not below ours: ours is burnt, the next is above both.
    async fn give_way(
        &self,
        principal: &Principal,
        kvno: Kvno,
        found: Kvno,
    ) -> Result<Took, WalkError> {
        tracing::warn!(%principal, %kvno, %found, "the KDC's key was changed by somebody else");
        let line = Record::new(Event::KeyBurnt, Actor::Broker)
            .detail(&format!("the KDC has kvno {found}, set by somebody else"));
        self.record(principal, line, kvno, |ledger, _, now| {
            ledger.seen_at_kdc(principal, found);
            ledger.take_step(principal, &Step::Burn { kvno, why: Burnt::InTheWay }, now);
        })
        .await?;
        self.push_all(principal).await?;
        Ok(Took::Step)
    }
}
