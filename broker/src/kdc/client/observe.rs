//! Which kvno each KDC uses for a service.

use std::{sync::Arc, time::Duration};

use krb_proto::{Kvno, Principal};
use tokio::task::JoinSet;

use super::{
    RealmClient, Shared,
    address::{Address, CachedTgt},
    errors::Failure,
};
use crate::{
    kdc::{KdcError, Observation, gate::Class},
    krb5::{
        ccache::Credential,
        exchange::{TgsAsk, TicketOptions, tgs_exchange},
    },
};

/// How long the observer's TGTs are asked for.
const TGT_LIFE: Duration = Duration::from_secs(3_600);
/// How long the service tickets are asked for: nobody uses them.
const TICKET_LIFE: Duration = Duration::from_secs(300);
impl RealmClient {
    /// Asks all KDCs at once; answers in their order.
    pub(super) async fn observe_each(&self, service: &Principal) -> Vec<Observation> {
        let mut asked = JoinSet::new();
        for index in 0..self.shared.addresses.len() {
            let (shared, class) = (self.shared.clone(), self.class);
            let service = service.clone();
            asked.spawn(async move { (index, shared.observe(class, index, &service).await) });
        }
        let mut seen = asked.join_all().await;
        seen.sort_by_key(|(index, _)| *index);
        seen.into_iter().map(|(_, observation)| observation).collect()
    }
}

impl Shared {
    async fn observe(
        self: Arc<Self>,
        class: Class,
        index: usize,
        service: &Principal,
    ) -> Observation {
        let at = &self.addresses[index];
        let kvno = match self.kvno(class, at, service).await {
            Ok(kvno) => kvno.map(Some).ok_or_else(|| "its ticket tells no kvno".to_owned()),
            Err(Failure { error: KdcError::Unknown { principal }, .. })
                if principal == *service =>
            {
                Ok(None)
            }
            Err(failure) => Err(failure.error.to_string()),
        };
        Observation { kdc: at.name.clone(), kvno }
    }

    /// The kvno of a ticket for `service`; once more with a new TGT where the KDC answers with an
    /// error of no certain meaning: MIT says only KRB_ERR_GENERIC of a TGT whose key is gone.
    async fn kvno(
        &self,
        class: Class,
        at: &Address,
        service: &Principal,
    ) -> Result<Option<Kvno>, Failure> {
        let tgt = self.observer_tgt(class, at).await?;
        match self.kvno_by(class, at, service, &tgt).await {
            Err(Failure { unclear: true, .. }) => {
                *at.observer.lock().await = None;
                let tgt = self.observer_tgt(class, at).await?;
                self.kvno_by(class, at, service, &tgt).await
            }
            result => result,
        }
    }

    async fn kvno_by(
        &self,
        class: Class,
        at: &Address,
        service: &Principal,
        tgt: &Credential,
    ) -> Result<Option<Kvno>, Failure> {
        let options = TicketOptions::default();
        let ask = TgsAsk { tgt, server: service, life: TICKET_LIFE, options };
        let passage = self.passage(class, at, service).await?;
        let result = tgs_exchange(&passage, &ask, &self.env()).await;
        let result = result.map_err(|error| Failure::of(error, &at.name, service));
        self.note(at, result.as_ref().map(|answer| answer.offset));
        Ok(result?.ticket_key.kvno)
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
