//! Whether each KDC uses the key that the broker holds: its ticket is opened with it.

use krb_proto::Principal;

use super::{RealmClient, Shared, address::Address};
use crate::{
    kdc::{Checked, Finding, gate::Class},
    krb5::{
        crypto::{self, Usage},
        key::{Enctype, Keyset},
        messages::{self, EncryptedPart},
    },
};

impl RealmClient {
    pub(super) async fn check_service(&self, service: &Principal, keyset: &Keyset) -> Vec<Checked> {
        self.ask_each(|shared, class, index| {
            let (service, keyset) = (service.clone(), keyset.clone());
            Box::pin(async move {
                let at = &shared.addresses[index];
                let finding = shared.check(class, at, &service, &keyset).await;
                Checked { kdc: at.name.clone(), finding }
            })
        })
        .await
    }
}

impl Shared {
    async fn check(
        &self,
        class: Class,
        at: &Address,
        service: &Principal,
        keyset: &Keyset,
    ) -> Finding {
        let answer = match self.ticket_for(class, at, service).await {
            Ok(answer) => answer,
            Err(failure) if failure.is_unknown(service) => return Finding::Unknown,
            Err(failure) => return Finding::Unsaid(failure.error.to_string()),
        };
        match messages::parse_ticket_part(&answer.credential.ticket) {
            Ok(part) => judge(&part, keyset),
            Err(malformed) => Finding::Unsaid(malformed.to_string()),
        }
    }
}

/// What the closed part of a ticket says of the key that is held.
fn judge(part: &EncryptedPart, keyset: &Keyset) -> Finding {
    let key = Enctype::from_number(part.enctype)
        .and_then(|enctype| keyset.keys.iter().find(|key| key.enctype() == enctype));
    let opens = || key.is_some_and(|key| crypto::decrypt(key, Usage::TICKET, &part.cipher).is_ok());
    match part.kvno {
        Some(kvno) if kvno < keyset.kvno => Finding::Older(kvno),
        Some(kvno) if kvno > keyset.kvno => Finding::Foreign(kvno),
        _ if opens() => Finding::Same,
        Some(kvno) => Finding::Foreign(kvno),
        None => Finding::Unsaid("its ticket tells no kvno and opens with no held key".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use krb_proto::Kvno;

    use super::*;
    use crate::clock::SystemEntropy;

    fn held(kvno: u32) -> Keyset {
        let enctypes = [Enctype::Aes256Sha1];
        Keyset::random(Kvno(kvno), &enctypes, &SystemEntropy, SystemTime::UNIX_EPOCH)
    }

    fn ticket(kvno: Option<u32>, with: &Keyset) -> EncryptedPart {
        let key = &with.keys[0];
        EncryptedPart {
            enctype: key.enctype().number(),
            kvno: kvno.map(Kvno),
            cipher: crypto::encrypt(key, Usage::TICKET, b"a ticket", &SystemEntropy),
        }
    }

    #[test]
    fn only_a_ticket_of_the_held_number_that_opens_is_the_same_key() {
        let ours = held(3);
        assert_eq!(judge(&ticket(Some(3), &ours), &ours), Finding::Same);
        assert_eq!(judge(&ticket(None, &ours), &ours), Finding::Same);
        assert_eq!(judge(&ticket(Some(3), &held(3)), &ours), Finding::Foreign(Kvno(3)));
        assert_eq!(judge(&ticket(Some(4), &held(4)), &ours), Finding::Foreign(Kvno(4)));
        assert_eq!(judge(&ticket(Some(2), &held(2)), &ours), Finding::Older(Kvno(2)));
        assert!(matches!(judge(&ticket(None, &held(3)), &ours), Finding::Unsaid(_)));
    }

    #[test]
    fn a_key_of_an_enctype_that_was_never_made_is_foreign() {
        let ours = held(3);
        let part = EncryptedPart { enctype: 23, ..ticket(Some(3), &ours) };
        assert_eq!(judge(&part, &ours), Finding::Foreign(Kvno(3)));
    }

    #[test]
    fn a_ticket_that_was_made_for_another_use_of_the_key_does_not_open() {
        let ours = held(3);
        let key = &ours.keys[0];
        let cipher = crypto::encrypt(key, Usage::AS_REP, b"a ticket", &SystemEntropy);
        let part = EncryptedPart { cipher, ..ticket(Some(3), &ours) };
        assert_eq!(judge(&part, &ours), Finding::Foreign(Kvno(3)));
    }
}
