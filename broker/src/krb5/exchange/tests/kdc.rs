//! A KDC that checks what it is sent as a real one does.

use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use super::*;
use crate::krb5::crypto::{self, Usage};
use crate::krb5::key::Key;
use crate::krb5::messages::EncryptedPart;
use crate::krb5::messages::testing::{self, Inside, SeenRequest};

/// The number of the server's key in every ticket.
pub(super) const TICKET_KVNO: Kvno = Kvno(5);

/// Changes the inside of a reply.
pub(super) type Forger = fn(&mut Inside);

pub(super) struct ScriptedKdc {
    /// The client's keys, as the KDC has them.
    pub(super) keyset: Keyset,
    pub(super) requires_preauth: bool,
    /// Takes any timestamp for a good one: it does not know the client's key.
    pub(super) credulous: bool,
    /// Seconds that its clock is ahead of the client's.
    pub(super) ahead: u64,
    /// Answers everything with this error.
    pub(super) always: Option<i32>,
    /// What it does to the inside of its replies.
    pub(super) forger: Option<Forger>,
    /// The client and the server that its replies name outside.
    pub(super) outside: (Principal, Option<Principal>),
    pub(super) now: SystemTime,
    pub(super) seen: Arc<Mutex<Vec<SeenRequest>>>,
    pub(super) failures: Arc<Mutex<usize>>,
    pub(super) session_key: Key,
}

impl ScriptedKdc {
    pub(super) fn of(world: &World, keyset: Keyset) -> Self {
        Self {
            keyset,
            requires_preauth: true,
            credulous: false,
            ahead: 0,
            always: None,
            forger: None,
            outside: (client(), None),
            now: world.clock.now().wall,
            seen: Arc::default(),
            failures: Arc::default(),
            session_key: Key::random(Enctype::Aes256Sha1, &SeededEntropy::new(3)),
        }
    }

    pub(super) fn seen(&self) -> std::sync::MutexGuard<'_, Vec<SeenRequest>> {
        self.seen.lock().unwrap()
    }

    pub(super) fn failures(&self) -> usize {
        *self.failures.lock().unwrap()
    }

    fn now(&self) -> SystemTime {
        self.now + Duration::from_secs(self.ahead)
    }

    fn error(&self, code: i32) -> Vec<u8> {
        let offered: Vec<i32> = self.keyset.keys.iter().map(|key| key.enctype().number()).collect();
        testing::krb_error(code, self.now(), Some(testing::hints(&offered, b"cookie")))
    }

    fn is_skewed(&self, theirs: SystemTime) -> bool {
        ClockOffset::between(theirs, self.now()).0.abs() > 300
    }

    fn answer_as(&self, request: &SeenRequest) -> Vec<u8> {
        let usable = |key: &&Key| request.enctypes.contains(&key.enctype().number());
        let Some(key) = self.keyset.keys.iter().find(usable) else { return self.error(14) };
        let mut flags = flags::INITIAL;
        if let Some(sealed) = request.padata(PaData::ENC_TIMESTAMP) {
            let (enctype, cipher) = testing::read_encrypted(sealed);
            let used = self.keyset.keys.iter().find(|key| key.enctype().number() == enctype);
            let opened = used.map(|key| crypto::decrypt(key, Usage::PA_ENC_TIMESTAMP, &cipher));
            match opened {
                Some(Ok(opened)) if self.is_skewed(testing::read_timestamp(opened.expose())) => {
                    return self.error(37);
                }
                Some(Ok(_)) => {}
                _ if self.credulous => {}
                _ => {
                    *self.failures.lock().unwrap() += 1;
                    return self.error(24);
                }
            }
            flags |= flags::PRE_AUTHENT;
        } else if self.requires_preauth {
            return self.error(25);
        }
        self.reply(11, request, key, Some(self.keyset.kvno), Usage::AS_REP, flags)
    }

    fn answer_tgs(&self, request: &SeenRequest) -> Vec<u8> {
        let sealed = testing::read_ap_req(request.padata(PaData::TGS_REQ).unwrap());
        let usage = Usage::TGS_REQ_AUTHENTICATOR;
        let opened = crypto::decrypt(&self.session_key, usage, &sealed).unwrap();
        let (ctime, subkey, sum) = testing::read_authenticator(&opened);
        let usage = Usage::TGS_REQ_CHECKSUM;
        assert_eq!(sum, crypto::checksum(&self.session_key, usage, &request.body).bytes);
        if self.is_skewed(ctime) {
            return self.error(37);
        }
        self.reply(13, request, &subkey, None, Usage::TGS_REP_SUBKEY, flags::PRE_AUTHENT)
    }

    fn reply(
        &self,
        msg_type: i32,
        request: &SeenRequest,
        key: &Key,
        kvno: Option<Kvno>,
        usage: Usage,
        flags: u32,
    ) -> Vec<u8> {
        let server: Principal = request.server.to_string().parse().unwrap();
        let mut inside = Inside {
            session_key: self.session_key.clone(),
            server: server.clone(),
            nonce: request.nonce,
            flags,
            authtime: self.now(),
            starttime: Some(self.now()),
            endtime: request.till,
        };
        if let Some(forger) = self.forger {
            forger(&mut inside);
        }
        let cipher = crypto::encrypt(key, usage, &inside.build(26), &SeededEntropy::new(5));
        let part = EncryptedPart { enctype: key.enctype().number(), kvno, cipher };
        let (client, outside) = &self.outside;
        let outside = outside.as_ref().unwrap_or(&server);
        testing::reply(msg_type, client, outside, TICKET_KVNO, part)
    }
}

#[async_trait]
impl Asks for ScriptedKdc {
    async fn ask(&self, request: &[u8]) -> Result<Vec<u8>, TransportError> {
        let seen = testing::read_request(request);
        let reply = match (self.always, request[0]) {
            (Some(code), _) => self.error(code),
            (None, 0x6a) => self.answer_as(&seen),
            (None, _) => self.answer_tgs(&seen),
        };
        self.seen.lock().unwrap().push(seen);
        Ok(reply)
    }
}
