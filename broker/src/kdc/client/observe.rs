//! Which key each KDC uses: for a service by a ticket to it, for a role account by whether its
//! newest key is accepted.

use std::{pin::Pin, sync::Arc, time::Duration};

use krb_proto::{Kvno, Principal};
use tokio::task::JoinSet;

use super::{
    RealmClient, Shared,
    address::{Address, CachedTgt},
    errors::Failure,
};
use crate::{
    kdc::{AccountKeys, KdcError, Observation, Unsaid, gate::Class},
    krb5::{
        ccache::Credential,
        exchange::{TgsAnswer, TgsAsk, TicketOptions, tgs_exchange},
    },
};

/// How long the observer's TGTs are asked for.
pub(super) const TGT_LIFE: Duration = Duration::from_secs(3_600);
/// How long other tickets are asked for: nobody uses them.
const TICKET_LIFE: Duration = Duration::from_secs(300);

/// The work of asking one KDC.
type Asking<T> = Pin<Box<dyn Future<Output = T> + Send>>;

impl RealmClient {
    /// Asks all KDCs at once, each by its index; answers in their order.
    pub(super) async fn ask_each<T: Send + 'static>(
        &self,
        ask: impl Fn(Arc<Shared>, Class, usize) -> Asking<T>,
    ) -> Vec<T> {
        let mut asked = JoinSet::new();
        for index in 0..self.shared.addresses.len() {
            let asking = ask(self.shared.clone(), self.class, index);
            asked.spawn(async move { (index, asking.await) });
        }
        let mut seen = asked.join_all().await;
        seen.sort_by_key(|(index, _)| *index);
        seen.into_iter().map(|(_, answer)| answer).collect()
    }

    pub(super) async fn observe_service(&self, service: &Principal) -> Vec<Observation> {
        self.ask_each(|shared, class, index| {
            let service = service.clone();
            Box::pin(async move { shared.observe(class, &shared.addresses[index], &service).await })
        })
        .await
    }

    pub(super) async fn observe_newest(&self, account: &AccountKeys) -> Vec<Observation> {
        self.ask_each(|shared, class, index| {
            let account = account.clone();
            Box::pin(async move { shared.accepts(class, &shared.addresses[index], &account).await })
        })
        .await
    }
}

impl Shared {
    async fn observe(&self, class: Class, at: &Address, service: &Principal) -> Observation {
        let kvno = match self.ticket_for(class, at, service).await {
            Ok(answer) => {
                let kvno = answer.ticket_key.kvno;
                kvno.map(Some).ok_or_else(|| Unsaid::Unclear("its ticket tells no kvno".to_owned()))
            }
            Err(failure) if failure.is_unknown(service) => Ok(None),
            Err(failure) => Err(failure.unsaid()),
        };
        Observation { kdc: at.name.clone(), kvno }
    }

    /// Whether the KDC accepts the account's newest key. It is asked once with that key alone:
    /// each wrong one counts towards a lockout.
    async fn accepts(&self, class: Class, at: &Address, account: &AccountKeys) -> Observation {
        let newest = account.keysets.iter().max_by_key(|keyset| keyset.kvno);
        let kvno = match newest {
            None => Err(Unsaid::NotAsked("the account has no key to ask with".to_owned())),
            Some(newest) => {
                let (client, keysets) = (account.client.clone(), vec![newest.clone()]);
                let only_newest = AccountKeys { client, keysets };
                match self.ask_as(class, at, &only_newest, TICKET_LIFE).await {
                    Ok(_) => Ok(Some(newest.kvno)),
                    Err(Failure { error: KdcError::KeyRejected { .. }, .. }) => {
                        Ok(Some(the_one_before(account, newest.kvno)))
                    }
                    Err(failure) if failure.is_unknown(&account.client) => Ok(None),
                    Err(failure) => Err(failure.unsaid()),
                }
            }
        };
        Observation { kdc: at.name.clone(), kvno }
    }

    /// A ticket for `service`; asked once more with a new TGT where the KDC answers with an error
    /// of no certain meaning: MIT says only KRB_ERR_GENERIC of a TGT whose key is gone.
    pub(super) async fn ticket_for(
        &self,
        class: Class,
        at: &Address,
        service: &Principal,
    ) -> Result<TgsAnswer, Failure> {
        let tgt = self.observer_tgt(class, at).await?;
        match self.ticket_by(class, at, service, &tgt).await {
            Err(Failure { unclear: true, .. }) => {
                *at.observer.lock().await = None;
                let tgt = self.observer_tgt(class, at).await?;
                self.ticket_by(class, at, service, &tgt).await
            }
            result => result,
        }
    }

    async fn ticket_by(
        &self,
        class: Class,
        at: &Address,
        service: &Principal,
        tgt: &Credential,
    ) -> Result<TgsAnswer, Failure> {
        let options = TicketOptions::default();
        let ask = TgsAsk { tgt, server: service, life: TICKET_LIFE, options };
        let passage = self.passage(class, at, service).await?;
        let result = tgs_exchange(&passage, &ask, &self.env()).await;
        let result = result.map_err(|error| Failure::of(error, &at.name, service));
        self.note(at, result.as_ref().map(|answer| answer.offset));
        result
    }

    /// The observer's TGT from this KDC, a new one after half of its life.
    async fn observer_tgt(&self, class: Class, at: &Address) -> Result<Credential, Failure> {
        // held while it is fetched: whoever asks at the same time gets the same one
        let mut cached = at.observer.lock().await;
        let now = self.clock.now();
        if let Some(tgt) = cached.as_ref().filter(|tgt| now.boot < tgt.until) {
            return Ok(tgt.credential.clone());
        }
        let observer = &self.settings.observer;
        let credential = self.as_exchange(class, at, observer, TGT_LIFE).await?.credential;
        let life = credential.endtime.duration_since(now.wall).unwrap_or_default();
        let until = now.boot + life / 2;
        *cached = Some(CachedTgt { credential: credential.clone(), until });
        Ok(credential)
    }
}

/// The number that a KDC presumably has which does not accept `newest`: the account's next lower.
fn the_one_before(account: &AccountKeys, newest: Kvno) -> Kvno {
    let lower = account.keysets.iter().map(|keyset| keyset.kvno).filter(|kvno| *kvno < newest);
    lower.max().unwrap_or(Kvno(newest.0.saturating_sub(1)))
}
