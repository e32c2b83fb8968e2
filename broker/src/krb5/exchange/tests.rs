//! Stories of the exchanges, with a KDC that reads what it is sent.

mod kdc;
mod replies;

use std::time::Duration;

use krb_proto::{Kvno, Principal};

use super::*;
use crate::clock::{SeededEntropy, TestClock};
use crate::krb5::key::{Enctype, Keyset};
use crate::krb5::messages::PaData;
use kdc::ScriptedKdc;

const HOUR: Duration = Duration::from_secs(3_600);

fn client() -> Principal {
    "tsfoo@R".parse().unwrap()
}

fn krbtgt() -> Principal {
    "krbtgt/R@R".parse().unwrap()
}

fn keyset(kvno: u32, enctypes: &[Enctype]) -> Keyset {
    let entropy = SeededEntropy::new(u64::from(kvno));
    Keyset::random(Kvno(kvno), enctypes, &entropy, std::time::UNIX_EPOCH)
}

/// A client with some keysets, its clock, and what it asks.
struct World {
    clock: TestClock,
    entropy: SeededEntropy,
    keysets: Vec<Keyset>,
}

impl World {
    fn with(keysets: Vec<Keyset>) -> Self {
        Self { clock: TestClock::default(), entropy: SeededEntropy::new(99), keysets }
    }

    fn env(&self) -> Env<'_> {
        let clock_skew = Duration::from_secs(300);
        Env { clock: &self.clock, entropy: &self.entropy, clock_skew }
    }

    async fn ask(
        &self,
        kdc: &ScriptedKdc,
        learnt: Option<Learnt>,
    ) -> Result<AsAnswer, ExchangeError> {
        let ask = AsAsk {
            client: &client(),
            server: &krbtgt(),
            keysets: &self.keysets,
            learnt,
            life: HOUR,
            options: TicketOptions::default(),
        };
        as_exchange(kdc, &ask, &self.env()).await
    }
}

const BOTH: [Enctype; 2] = [Enctype::Aes256Sha1, Enctype::Aes128Sha1];

#[tokio::test]
async fn the_first_exchange_asks_for_hints_and_the_next_takes_one_request() {
    let world = World::with(vec![keyset(2, &BOTH)]);
    let kdc = ScriptedKdc::of(&world, keyset(2, &BOTH));
    let first = world.ask(&kdc, None).await.unwrap();
    assert_eq!(first.learnt, Learnt { enctype: Enctype::Aes256Sha1, kvno: Kvno(2) });
    assert_eq!(kdc.seen().len(), 2);
    assert!(kdc.seen()[0].padata(PaData::ENC_TIMESTAMP).is_none());
    assert_eq!(kdc.seen()[1].padata(PaData::FX_COOKIE), Some(&b"cookie"[..]));

    world.ask(&kdc, Some(first.learnt)).await.unwrap();
    assert_eq!(kdc.seen().len(), 3);
    assert_eq!(kdc.seen()[2].options, 0, "nothing special is asked for by default");
}

#[tokio::test]
async fn a_kdc_that_needs_no_preauthentication_gets_it_all_the_same() {
    let world = World::with(vec![keyset(2, &BOTH)]);
    let kdc = ScriptedKdc { requires_preauth: false, ..ScriptedKdc::of(&world, keyset(2, &BOTH)) };
    let answer = world.ask(&kdc, None).await.unwrap();
    assert_ne!(answer.credential.flags & flags::PRE_AUTHENT, 0);
    assert!(kdc.seen()[1].padata(PaData::ENC_TIMESTAMP).is_some());
}

#[tokio::test]
async fn a_rejected_key_is_followed_by_one_other_keyset_and_no_more() {
    let all = vec![keyset(4, &BOTH), keyset(3, &BOTH), keyset(2, &BOTH)];
    let world = World::with(all);
    let kdc = ScriptedKdc::of(&world, keyset(3, &BOTH));
    let answer = world.ask(&kdc, None).await.unwrap();
    assert_eq!(answer.learnt.kvno, Kvno(3));

    let kdc = ScriptedKdc::of(&world, keyset(2, &BOTH));
    let error = world.ask(&kdc, None).await.unwrap_err();
    let ExchangeError::KeyRejected { tried, .. } = error else { panic!("{error}") };
    assert_eq!(tried, [Kvno(4), Kvno(3)]);
    assert_eq!(kdc.failures(), 2, "a third failure could lock the account");
}

#[tokio::test]
async fn what_was_learnt_is_tried_before_a_newer_key() {
    let world = World::with(vec![keyset(4, &BOTH), keyset(3, &BOTH)]);
    let kdc = ScriptedKdc::of(&world, keyset(3, &BOTH));
    let learnt = Learnt { enctype: Enctype::Aes256Sha1, kvno: Kvno(3) };
    world.ask(&kdc, Some(learnt)).await.unwrap();
    assert_eq!((kdc.seen().len(), kdc.failures()), (1, 0));
}

#[tokio::test]
async fn a_kdc_with_another_time_is_asked_once_more_with_its_own() {
    let world = World::with(vec![keyset(2, &BOTH)]);
    let kdc = ScriptedKdc { ahead: 4_000, ..ScriptedKdc::of(&world, keyset(2, &BOTH)) };
    let answer = world.ask(&kdc, None).await.unwrap();
    assert_eq!(answer.offset, ClockOffset(4_000));
    assert_eq!(kdc.seen().len(), 3);

    let confused = ScriptedKdc { always: Some(37), ..kdc };
    let error = world.ask(&confused, Some(answer.learnt)).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Skew { .. }), "{error}");
    assert_eq!(confused.seen().len(), 5, "two more than the three before");
}

#[tokio::test]
async fn an_account_is_not_talked_down_to_a_weaker_enctype() {
    let world = World::with(vec![keyset(2, &BOTH)]);
    let mut weaker = keyset(2, &BOTH);
    weaker.keys.remove(0);
    let weak = ScriptedKdc::of(&world, weaker);
    let learnt = Learnt { enctype: Enctype::Aes256Sha1, kvno: Kvno(2) };
    let forged = ScriptedKdc { always: Some(25), ..weak };
    let error = world.ask(&forged, Some(learnt)).await.unwrap_err();
    assert!(matches!(error, ExchangeError::Downgrade { .. }), "{error}");
    let named = forged.seen()[0].enctypes.clone();
    assert_eq!(named, [18, 17], "which the session key has is for the realm's own keys to say");

    let answer = world.ask(&ScriptedKdc { always: None, ..forged }, None).await.unwrap();
    assert_eq!(answer.learnt.enctype, Enctype::Aes128Sha1, "unless nothing better is known");
}

#[tokio::test]
async fn what_was_learnt_of_keys_that_are_gone_binds_nobody() {
    let mut weaker = keyset(3, &BOTH);
    weaker.keys.remove(0);
    let world = World::with(vec![weaker.clone()]);
    let session_key = Key::random(Enctype::Aes128Sha1, &SeededEntropy::new(4));
    let kdc = ScriptedKdc { session_key, ..ScriptedKdc::of(&world, weaker) };
    let learnt = Learnt { enctype: Enctype::Aes256Sha1, kvno: Kvno(2) };
    assert_eq!(world.ask(&kdc, Some(learnt)).await.unwrap().learnt.kvno, Kvno(3));
}

#[tokio::test]
async fn an_account_without_keys_asks_nobody() {
    let world = World::with(Vec::new());
    let kdc = ScriptedKdc::of(&world, keyset(2, &BOTH));
    let error = world.ask(&kdc, None).await.unwrap_err();
    assert!(matches!(error, ExchangeError::NoKey { .. }) && kdc.seen().is_empty(), "{error}");
}

#[tokio::test]
async fn no_answer_of_a_kdc_makes_an_exchange_go_on_for_ever() {
    for code in 0..70 {
        let world = World::with(vec![keyset(3, &BOTH), keyset(2, &BOTH)]);
        let kdc = ScriptedKdc { always: Some(code), ..ScriptedKdc::of(&world, keyset(9, &BOTH)) };
        world.ask(&kdc, None).await.unwrap_err();
        assert!(kdc.seen().len() <= MAX_REQUESTS, "{code}: {}", kdc.seen().len());
    }
}

#[tokio::test]
async fn errors_say_what_the_account_needs() {
    let world = World::with(vec![keyset(2, &BOTH)]);
    let answer = async |code| {
        let kdc = ScriptedKdc { always: Some(code), ..ScriptedKdc::of(&world, keyset(2, &BOTH)) };
        world.ask(&kdc, None).await.unwrap_err()
    };
    assert!(matches!(answer(6).await, ExchangeError::UnknownClient { .. }));
    assert!(matches!(answer(7).await, ExchangeError::UnknownServer { .. }));
    for code in [1, 12, 18, 23] {
        assert!(matches!(answer(code).await, ExchangeError::Refused { code: c, .. } if c == code));
    }
    assert!(matches!(answer(60).await, ExchangeError::Kdc { code: 60, .. }));
}

#[tokio::test]
async fn a_service_ticket_tells_the_kvno_of_its_server() {
    let world = World::with(vec![keyset(2, &BOTH)]);
    let kdc = ScriptedKdc::of(&world, keyset(2, &BOTH));
    let tgt = world.ask(&kdc, None).await.unwrap().credential;
    let server: Principal = "HTTP/web@R".parse().unwrap();
    let options = TicketOptions::default();
    let ask = TgsAsk { tgt: &tgt, server: &server, life: HOUR, options };
    let answer = tgs_exchange(&kdc, &ask, &world.env()).await.unwrap();
    assert_eq!(answer.ticket_key.kvno, Some(kdc::TICKET_KVNO));
    assert_eq!(answer.credential.server, server);

    let repeating = ScriptedKdc { always: Some(34), ..kdc };
    let before = repeating.seen().len();
    tgs_exchange(&repeating, &ask, &world.env()).await.unwrap_err();
    let seen = repeating.seen();
    assert_eq!(seen.len(), before + 2, "a replay is retried once");
    let authenticator = |at: usize| seen[at].padata(PaData::TGS_REQ).unwrap().to_vec();
    assert_ne!(authenticator(before), authenticator(before + 1));
}
