//! Every check of a reply, with a KDC that breaks exactly that rule.

use super::kdc::{Forger, ScriptedKdc};
use super::*;

/// Why the client does not believe a reply that a KDC forged so.
async fn refused(change: impl FnOnce(&mut ScriptedKdc)) -> CheckError {
    let world = World::with(vec![keyset(2, &BOTH)]);
    let mut kdc = ScriptedKdc::of(&world, keyset(2, &BOTH));
    change(&mut kdc);
    match world.ask(&kdc, None).await {
        Err(ExchangeError::Check { source, .. }) => source,
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("the forged reply was believed"),
    }
}

async fn refused_inside(forger: Forger) -> CheckError {
    refused(|kdc| kdc.forger = Some(forger)).await
}

#[tokio::test]
async fn a_ticket_for_somebody_else_is_refused() {
    let other: Principal = "TSFOO@R".parse().unwrap();
    let error = refused(|kdc| kdc.outside.0 = other).await;
    assert!(matches!(error, CheckError::Client { .. }), "{error}");
    let other: Principal = "krbtgt/EVIL@R".parse().unwrap();
    let error = refused(|kdc| kdc.outside.1 = Some(other)).await;
    assert!(matches!(error, CheckError::TicketServer { .. }), "{error}");
    let error = refused_inside(|inside| inside.server = "krbtgt/EVIL@R".parse().unwrap()).await;
    assert!(matches!(error, CheckError::Server { .. }), "{error}");
}

#[tokio::test]
async fn an_answer_to_another_request_is_refused() {
    let error = refused_inside(|inside| inside.nonce ^= 1).await;
    assert!(matches!(error, CheckError::Nonce { .. }), "{error}");
}

#[tokio::test]
async fn times_that_were_not_asked_for_are_refused() {
    let error = refused_inside(|inside| inside.endtime += Duration::from_secs(1)).await;
    assert!(matches!(error, CheckError::Endtime { .. }), "{error}");
    let error = refused_inside(|inside| inside.endtime = inside.authtime).await;
    assert!(matches!(error, CheckError::Ended { .. }), "{error}");
    let error = refused_inside(|inside| inside.authtime -= Duration::from_secs(301)).await;
    assert!(matches!(error, CheckError::Authtime { .. }), "{error}");
    let later = |inside: &mut crate::krb5::messages::testing::Inside| {
        inside.starttime = inside.starttime.map(|start| start + Duration::from_secs(301));
    };
    let error = refused_inside(later).await;
    assert!(matches!(error, CheckError::Starttime { .. }), "{error}");
}

#[tokio::test]
async fn flags_that_were_not_asked_for_are_refused_and_those_that_must_be_are_missed() {
    let forgers: [Forger; 8] = [
        |inside| inside.flags |= flags::FORWARDABLE,
        |inside| inside.flags |= flags::FORWARDED,
        |inside| inside.flags |= flags::PROXIABLE,
        |inside| inside.flags |= flags::PROXY,
        |inside| inside.flags |= flags::MAY_POSTDATE,
        |inside| inside.flags |= flags::POSTDATED,
        |inside| inside.flags |= flags::INVALID,
        |inside| inside.flags |= flags::RENEWABLE,
    ];
    for forger in forgers {
        let error = refused_inside(forger).await;
        assert!(matches!(error, CheckError::UnaskedFlags { .. }), "{error}");
    }
    let error = refused_inside(|inside| inside.flags &= !flags::PRE_AUTHENT).await;
    assert!(matches!(error, CheckError::MissingFlags { .. }), "{error}");
}

#[tokio::test]
async fn a_session_key_that_was_not_asked_for_is_refused() {
    let error = refused_inside(|inside| {
        let entropy = SeededEntropy::new(8);
        inside.session_key = Key::random(Enctype::Aes256Sha384, &entropy);
    })
    .await;
    assert!(matches!(error, CheckError::SessionKey { came: 20, .. }), "{error}");
}

#[tokio::test]
async fn a_reply_that_somebody_else_encrypted_is_refused() {
    let error = refused(|kdc| {
        kdc.keyset = keyset(7, &BOTH);
        kdc.credulous = true;
    })
    .await;
    assert!(matches!(error, CheckError::Undecryptable { .. }), "{error}");
}
