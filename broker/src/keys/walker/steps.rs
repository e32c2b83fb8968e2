//! The steps of a walk as they are taken and recorded. Each is stored before it is done, with
//! its line in the audit log, and only if it is still the one to take.

use std::time::SystemTime;

use krb_proto::{Kvno, LeaseId, Principal};

use super::{LOOK_AGAIN, Took, Turn, WalkError, Walker};
use crate::{
    audit::{self, Actor, Event, Record},
    kdc::KdcError,
    keys::{
        KVNO_ALERT,
        due::Kind,
        walk::{Burnt, Step},
    },
    krb5::key::Keyset,
    ledger::{Ledger, book::Lines},
};

impl Walker {
    pub(super) async fn take_step(
        &self,
        principal: &Principal,
        turn: &mut Turn,
    ) -> Result<Took, WalkError> {
        let now = self.0.book.now().wall;
        let (step, recovery) = self.0.book.read(|ledger| {
            let recovery = ledger.recovery().map(str::to_owned);
            (ledger.next_step(principal, now, &self.0.rules), recovery)
        });
        if let (Some(why), true) = (recovery, step != Step::Rest) {
            self.waits(principal, format!("recovery: {why}"));
            return Ok(Took::Nothing(LOOK_AGAIN.1));
        }
        match step.clone() {
            Step::Rest => return Ok(Took::Rest),
            Step::Wait { until, what } => return self.wait(principal, turn, until, what).await,
            Step::Make => self.make(principal, &step, turn).await?,
            Step::Set(kvno) => return self.set(principal, kvno, turn).await,
            Step::SwitchOff(how) => return self.switch_off(principal, how, turn).await,
            _ => self.record_step(principal, &step).await?,
        }
        Ok(Took::Step)
    }

    /// Makes the next keyset, above every number that the store or the KDC ever used.
    pub(super) async fn make(
        &self,
        principal: &Principal,
        step: &Step,
        turn: &mut Turn,
    ) -> Result<(), WalkError> {
        let kdc = |source| WalkError::Kdc { principal: principal.clone(), source };
        let at_kdc = self.admin(principal).inspect(principal).await.map_err(kdc)?;
        let found = at_kdc.as_ref().and_then(|state| state.kvno);
        if let Some(found) = found {
            // It is somebody else's, or ours of a store that is gone: an operator must say.
            if !self.0.book.read(|ledger| ledger.principal(principal).is_some_and(|p| p.ours)) {
                return Err(kdc(KdcError::NotRecorded { principal: principal.clone() }));
            }
            self.0.book.note(|ledger, _| ledger.seen_at_kdc(principal, found));
        }
        let next = self.0.book.read(|ledger| ledger.principal(principal).map(|p| p.next_kvno()));
        let Some(next) = next else { return Ok(()) };
        let kvno =
            next.map_err(|source| WalkError::Numbers { principal: principal.clone(), source })?;
        if kvno > KVNO_ALERT {
            tracing::warn!(%principal, %kvno, "readers with 8-bit key numbers take it for another");
        }
        let made_at = self.0.book.now().wall;
        let keyset = Keyset::random(kvno, &self.0.enctypes, &*self.0.entropy, made_at);
        turn.made = Some((kvno, at_kdc.is_some()));
        let rules = &self.0.rules;
        self.0
            .book
            .commit_essential_if(|ledger, lines, now| {
                let kind = ledger.due(principal, now.wall, rules);
                let still = ledger.next_step(principal, now.wall, rules).is_same(step);
                still.then(|| {
                    let line = Record::new(Event::KeyMade, Actor::Broker)
                        .principal(principal)
                        .kvnos([kvno])
                        .enctypes(self.0.enctypes.clone());
                    lines.push(line.detail(kind.map_or("first", Kind::name)));
                    // used meanwhile: the next step makes another
                    let _ = ledger.add_keyset(principal, keyset, now.wall);
                })
            })
            .await
            .map(drop)
            .map_err(|source| WalkError::Store { principal: principal.clone(), source })
    }

    /// The KDCs use the key: leases that waited for it are revoked in the same round.
    pub(super) async fn record_current(
        &self,
        principal: &Principal,
        kvno: Kvno,
    ) -> Result<(), WalkError> {
        let line = Record::new(Event::KeyCurrent, Actor::Broker);
        self.record(principal, line, kvno, |ledger, lines, now| {
            let retired = ledger.became_current(principal, kvno, now);
            if !retired.is_empty() {
                let line = Record::new(Event::KeyRetiring, Actor::Broker);
                lines.push(line.principal(principal).kvnos(retired));
            }
            finish_revoking(ledger, lines, principal);
        })
        .await
    }

    /// Records a step that is nothing but a record, if it is still the one to take: a holder
    /// that came or a node that was lost since it was chosen may have made it another.
    pub(super) async fn record_step(
        &self,
        principal: &Principal,
        step: &Step,
    ) -> Result<(), WalkError> {
        let rules = &self.0.rules;
        let taken = self
            .0
            .book
            .commit_essential_if(|ledger, lines, now| {
                let still = ledger.next_step(principal, now.wall, rules).is_same(step);
                (still && ledger.take_step(principal, step, now.wall))
                    .then(|| lines.extend(line_of(step).map(|line| line.principal(principal))))
            })
            .await
            .map_err(|source| WalkError::Store { principal: principal.clone(), source })?;
        if let (Some(()), Step::Burn { why, .. }) = (taken, step) {
            if *why == Burnt::GivenUp {
                tracing::error!(%principal, "a replacement is given up: holders do not answer");
            }
            self.push_all(principal).await?;
        }
        Ok(())
    }

    pub(super) async fn record(
        &self,
        principal: &Principal,
        line: Record,
        kvno: Kvno,
        change: impl FnOnce(&mut Ledger, &mut Lines, SystemTime),
    ) -> Result<(), WalkError> {
        self.0
            .book
            .commit_essential(|ledger, lines, now| {
                lines.push(line.principal(principal).kvnos([kvno]));
                change(ledger, lines, now.wall);
            })
            .await
            .map_err(|source| WalkError::Store { principal: principal.clone(), source })
    }
}

/// The audit line of a step that is nothing but a record.
fn line_of(step: &Step) -> Option<Record> {
    let of = |event, kvno: &Kvno| Record::new(event, Actor::Broker).kvnos([*kvno]);
    Some(match step {
        Step::Distribute(kvno) => of(Event::KeyDistributing, kvno),
        Step::Overdue { kvno, without, .. } => {
            of(Event::KeyOverdue, kvno).detail(&missing(without))
        }
        Step::Activate { kvno, without } => {
            of(Event::KeyActivating, kvno).detail(&missing(without))
        }
        Step::Burn { kvno, why } => of(Event::KeyBurnt, kvno).detail(&why.to_string()),
        Step::Drop(kvno) => of(Event::KeyDropping, kvno),
        Step::Prune { kvno, exposed_until } => {
            of(Event::KeyPruned, kvno).exposed_until(audit::Exposure::Until(*exposed_until))
        }
        Step::Leave(how) => Record::new(Event::PrincipalLeaving, Actor::Broker).detail(how.name()),
        Step::Return => Record::new(Event::PrincipalReturning, Actor::Broker),
        _ => return None,
    })
}

fn missing(leases: &[LeaseId]) -> String {
    let names: Vec<String> = leases.iter().map(ToString::to_string).collect();
    if names.is_empty() {
        String::new()
    } else {
        format!("not acknowledged by {}", names.join(" "))
    }
}

/// Leases that waited for this principal are Revoked now.
pub(super) fn finish_revoking(ledger: &mut Ledger, lines: &mut Lines, principal: &Principal) {
    for id in ledger.finish_revoking(principal) {
        if let Some(lease) = ledger.lease(&id) {
            lines.push(audit::of_lease(Event::LeaseRevoked, Actor::Broker, lease));
        }
    }
}
