//! Whether the KDCs have what the broker holds.
//!
//! A key that somebody changed behind the broker's back opens nothing that the holders have, and
//! is in hands that nobody knows: it is treated as a compromise. kadmin's word on the number
//! is authenticated; a ticket is not on its way, so that a key of the same number is believed to
//! be another only when it was seen twice.

use std::{sync::Arc, time::Duration};

use krb_proto::{Kvno, Principal};

use super::{due::Kind, walker::Walker};
use crate::{
    audit::{Actor, Event, Record},
    kdc::{AccountKeys, Checked, Finding, Kdc, KdcError, KeyAdmin, gate::Class},
    krb5::key::Keyset,
    ledger::book::Book,
    store::committer::CommitError,
};

/// Compares what the broker holds with what the realm has.
#[derive(Clone)]
pub struct Comparer {
    /// The ledger.
    pub book: Book,
    /// The realm's administration.
    pub admin: Arc<dyn KeyAdmin>,
    /// Its KDCs.
    pub kdc: Arc<dyn Kdc>,
    /// Replaces keys.
    pub walker: Walker,
}

/// What a comparison found.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Compared {
    /// What kadmin and each KDC have, each in a sentence.
    pub findings: Vec<(String, String)>,
    /// A key that the broker did not set.
    pub drift: Option<String>,
}

/// Why nothing was compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// It is not the broker's.
    #[error("{principal} is not the broker's")]
    Unknown {
        /// Whom.
        principal: Principal,
    },
    /// Its key is being replaced, was a moment ago, or it has none: what the KDCs have says
    /// nothing then.
    #[error("the key of {principal} is on its way; compare again when it has settled")]
    Unsettled {
        /// Whose.
        principal: Principal,
    },
    /// What was found can't be recorded.
    #[error("recording what was found of {principal}")]
    Store {
        /// Of whom.
        principal: Principal,
        /// Why.
        source: CommitError,
    },
}

impl Comparer {
    /// Compares one principal, and asks for a new key where somebody else has set one.
    ///
    /// # Errors
    /// When there is nothing to compare.
    pub async fn compare(&self, principal: &Principal) -> Result<Compared, CompareError> {
        let keyset = self.settled(principal)?;
        let mut compared = self.ask(principal, &keyset).await;
        if compared.drift.is_some() {
            compared = self.ask(principal, &keyset).await; // once more: a packet may have lied
        }
        // A walk that began meanwhile has changed what is right.
        if self.settled(principal)?.kvno != keyset.kvno {
            return Err(CompareError::Unsettled { principal: principal.clone() });
        }
        if let Some(drift) = &compared.drift {
            self.record(principal, keyset.kvno, drift).await?;
        }
        Ok(compared)
    }

    /// The Current keyset, where every KDC should have it by now.
    fn settled(&self, principal: &Principal) -> Result<Keyset, CompareError> {
        let now = self.book.now().wall;
        let propagation = self.walker.rules().times.kdc_propagation;
        self.book.read(|ledger| {
            let unknown = || CompareError::Unknown { principal: principal.clone() };
            let managed = ledger.principal(principal).ok_or_else(unknown)?;
            let settled = managed.current().filter(|held| {
                let age = now.duration_since(held.since).unwrap_or_default();
                managed.is_ready() && managed.under_way().is_none() && age >= propagation
            });
            let unsettled = || CompareError::Unsettled { principal: principal.clone() };
            settled.map(|held| held.keyset.clone()).ok_or_else(unsettled)
        })
    }

    async fn ask(&self, principal: &Principal, keyset: &Keyset) -> Compared {
        let mut compared = Compared::default();
        let admin = self.admin.for_class(Class::Housekeeping);
        let at_kadmin = admin.inspect(principal).await;
        let (said, drift) =
            at_kadmin_says(at_kadmin.map(|state| state.map(|s| s.kvno)), keyset.kvno);
        compared.findings.push(("kadmin".to_owned(), said.clone()));
        compared.drift = drift.then_some(said);
        for checked in self.each_kdc(principal, keyset).await {
            let said = kdc_says(&checked.finding, keyset.kvno);
            if matches!(checked.finding, Finding::Foreign(_)) {
                compared.drift.get_or_insert_with(|| format!("{}: {said}", checked.kdc));
            }
            compared.findings.push((checked.kdc, said));
        }
        compared
    }

    async fn each_kdc(&self, principal: &Principal, keyset: &Keyset) -> Vec<Checked> {
        let kdc = self.kdc.for_class(Class::Housekeeping);
        let role = self.book.read(|ledger| {
            ledger.principal(principal).is_some_and(|known| known.attributes.is_role_account())
        });
        if !role {
            return kdc.check(principal, keyset).await;
        }
        let account = AccountKeys { client: principal.clone(), keysets: vec![keyset.clone()] };
        let seen = kdc.observe_account(&account).await;
        seen.into_iter()
            .map(|seen| {
                let finding = match seen.kvno {
                    Ok(Some(kvno)) if kvno >= keyset.kvno => Finding::Same,
                    Ok(Some(kvno)) => Finding::Older(kvno),
                    Ok(None) => Finding::Unknown,
                    Err(why) => Finding::Unsaid(why.to_string()),
                };
                Checked { kdc: seen.kdc, finding }
            })
            .collect()
    }

    async fn record(
        &self,
        principal: &Principal,
        held: Kvno,
        drift: &str,
    ) -> Result<(), CompareError> {
        tracing::error!(%principal, drift, "a key was changed behind the broker's back");
        let found = self.admin.inspect(principal).await.ok().flatten().and_then(|s| s.kvno);
        self.book
            .commit_essential(|ledger, lines, _| {
                if let Some(found) = found.filter(|found| *found > held) {
                    ledger.seen_at_kdc(principal, found);
                }
                ledger.ask_rekey(principal, Kind::Emergency);
                let line = Record::new(Event::KeyDrift, Actor::Broker).principal(principal);
                lines.push(line.kvnos([held]).detail(drift));
            })
            .await
            .map_err(|source| CompareError::Store { principal: principal.clone(), source })?;
        self.walker.kick(principal);
        Ok(())
    }

    /// Compares one principal after the other, each once in `within`. Returns when told to.
    pub async fn run(self, within: Duration, stop: tokio_util::sync::CancellationToken) {
        let mut last: Option<Principal> = None;
        loop {
            let (next, count) = self.book.read(|ledger| {
                let mut names: Vec<&Principal> =
                    ledger.principals().map(|p| &p.principal).collect();
                names.sort();
                let after = |name: &&&Principal| last.as_ref().is_none_or(|last| **name > last);
                let next = names.iter().find(after).or(names.first());
                (next.map(|name| (*name).clone()), names.len())
            });
            let pause = within / u32::try_from(count.max(1)).unwrap_or(u32::MAX);
            let pause = pause.max(Duration::from_millis(100));
            if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
            if let Some(principal) = next {
                if let Err(error) = self.compare(&principal).await {
                    tracing::debug!(%error, "not compared");
                }
                last = Some(principal);
            }
        }
    }
}

/// kadmin's word, and whether it speaks of a key that the broker did not set.
fn at_kadmin_says(state: Result<Option<Option<Kvno>>, KdcError>, held: Kvno) -> (String, bool) {
    match state {
        Ok(Some(Some(found))) if found == held => {
            (format!("has kvno {held}, as the broker"), false)
        }
        Ok(Some(Some(found))) => (format!("has kvno {found} where the broker has {held}"), true),
        Ok(Some(None)) => ("has no key for it".to_owned(), true),
        Ok(None) => ("does not know it".to_owned(), true),
        Err(error) => (format!("does not say: {error}"), false),
    }
}

fn kdc_says(finding: &Finding, held: Kvno) -> String {
    match finding {
        Finding::Same => format!("uses kvno {held}, and the key is the broker's"),
        Finding::Older(kvno) => format!("still uses kvno {kvno}: it lags"),
        Finding::Foreign(kvno) if *kvno == held => {
            format!("uses another key under the number {held}")
        }
        Finding::Foreign(kvno) => format!("uses kvno {kvno}, which the broker did not set"),
        Finding::Unknown => "issues no tickets for it".to_owned(),
        Finding::Unsaid(why) => format!("does not say: {why}"),
    }
}
