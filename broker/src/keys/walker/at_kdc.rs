//! The steps of a walk that are taken at the KDC: making a principal, setting its key, and
//! seeing that every KDC uses it.
//!
//! A key is set only on a principal that the broker made, under a number that it stored
//! before; whatever else is found at the KDC is left alone.

use std::sync::atomic::Ordering;

use krb_proto::{Kvno, Principal};

use super::{LOOK_AGAIN, Took, Turn, WalkError, Walker};
use crate::{
    audit::{Actor, Event, Record},
    kdc::{AccountKeys, Attributes, KdcError},
    keys::{
        ManagedPrincipal,
        propagation::Setting,
        standing::{Off, Standing},
        walk::{Burnt, Step},
    },
    krb5::key::Keyset,
};

impl Walker {
    /// Sets the key at the KDC and sees that every KDC uses it.
    pub(super) async fn set(
        &self,
        principal: &Principal,
        kvno: Kvno,
        turn: &mut Turn,
    ) -> Result<Took, WalkError> {
        let Some((keyset, attributes, first, comes_back)) = self.0.book.read(|ledger| {
            let managed = ledger.principal(principal)?;
            let held = managed.keysets.get(&kvno)?;
            let (first, standing) = (managed.current().is_none(), managed.standing);
            let comes_back = standing != Standing::InUse;
            Some((held.keyset.clone(), managed.attributes.clone(), first, comes_back))
        }) else {
            return Ok(Took::Step);
        };
        turn.off = None; // whatever was done then is undone now
        if turn.set.as_ref().is_none_or(|setting| setting.kvno != kvno) {
            match self.set_at_kdc(principal, &keyset, &attributes, first, turn).await {
                Ok(()) => turn.set = Some(Setting::new(kvno, self.0.book.now().boot)),
                Err(WalkError::Kdc { source: KdcError::KvnoInTheWay { found, .. }, .. }) => {
                    return self.give_way(principal, kvno, found).await;
                }
                Err(error) => return Err(error),
            }
        }
        // A first key was verified at kadmin; nobody can have tickets under another. One of a
        // principal that comes back is not the first: a KDC that lags may use what it had.
        if !first || comes_back {
            let kdc = self.0.kdc.for_class(self.class(principal));
            let seen = if attributes.is_role_account() {
                let keysets = vec![keyset];
                kdc.observe_account(&AccountKeys { client: principal.clone(), keysets }).await
            } else {
                kdc.observe(principal).await
            };
            let now = self.0.book.now().boot;
            let propagation = self.times().kdc_propagation;
            let lags = turn.set.as_mut().map(|setting| setting.lags(&seen, now, propagation));
            if let Some((lags, pause)) = lags.filter(|(lags, _)| !lags.is_empty()) {
                self.waits(principal, lags.join(", "));
                return Ok(Took::Nothing(pause.clamp(LOOK_AGAIN.0, LOOK_AGAIN.1)));
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

    /// Sets the key at kadmin, after making the principal where it is new.
    async fn set_at_kdc(
        &self,
        principal: &Principal,
        keyset: &Keyset,
        attributes: &Attributes,
        first: bool,
        turn: &mut Turn,
    ) -> Result<(), WalkError> {
        let failed = |source| WalkError::Kdc { principal: principal.clone(), source };
        self.realm_must_be_checked(principal)?;
        let admin = self.admin(principal);
        let (ours, standing) = self.0.book.read(|ledger| {
            let managed = ledger.principal(principal);
            managed.map_or((false, Standing::InUse), |known| (known.ours, known.standing))
        });
        let exists = match turn.made {
            Some((made, exists)) if made == keyset.kvno => exists,
            // Read from the store: a crash may have come before, in or after the setting.
            _ if first => match admin.inspect(principal).await.map_err(failed)? {
                None => false,
                Some(state) if ours || state.kvno.is_none_or(|found| found == keyset.kvno) => true,
                Some(_) => {
                    return Err(failed(KdcError::NotRecorded { principal: principal.clone() }));
                }
            },
            _ => true,
        };
        if !exists {
            admin.create(principal, attributes).await.map_err(failed)?;
            turn.made = Some((keyset.kvno, true));
            let line = Record::new(Event::KeyCreated, Actor::Broker);
            self.record(principal, line, keyset.kvno, |ledger, _, _| {
                ledger.is_ours_now(principal);
            })
            .await?;
        }
        admin.activate(principal, keyset, attributes).await.map_err(failed)?;
        // Not before: until now the KDC had a key that nobody is to use any more.
        if exists && standing != Standing::InUse {
            admin.set_disabled(principal, false).await.map_err(failed)?;
        }
        Ok(())
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
        let (made, takes_tickets) = self.0.book.read(|ledger| {
            let managed = ledger.principal(principal).filter(|known| known.ours);
            let is_service = |p: &ManagedPrincipal| !p.attributes.is_role_account();
            (managed.is_some(), managed.is_some_and(is_service))
        });
        if made && turn.off.as_ref().is_none_or(|(done, _)| *done != how) {
            self.realm_must_be_checked(principal)?;
            let admin = self.admin(principal);
            match how {
                Off::Disabled => admin.set_disabled(principal, true).await,
                Off::Deleted => admin.delete(principal).await,
            }
            .map_err(failed)?;
            turn.off = Some((how, Setting::switched_off(self.0.book.now().boot)));
        }
        if takes_tickets {
            let seen = self.0.kdc.for_class(self.class(principal)).observe(principal).await;
            let (now, propagation) = (self.0.book.now().boot, self.times().kdc_propagation);
            let lags = turn.off.as_mut().map(|(_, off)| off.lags(&seen, now, propagation));
            if let Some((lags, pause)) = lags.filter(|(lags, _)| !lags.is_empty()) {
                self.waits(principal, lags.join(", "));
                return Ok(Took::Nothing(pause.clamp(LOOK_AGAIN.0, LOOK_AGAIN.1)));
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
