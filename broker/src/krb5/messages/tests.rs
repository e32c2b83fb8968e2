//! Stories of the fence. Real replies are in the fuzzer's corpus.

use std::time::{Duration, UNIX_EPOCH};

use krb_proto::{Kvno, Principal, Secret};
use proptest::prelude::*;

use super::*;
use crate::clock::SeededEntropy;
use crate::krb5::key::{Enctype, Key};

fn inside() -> testing::Inside {
    let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    testing::Inside {
        session_key: Key::random(Enctype::Aes256Sha1, &SeededEntropy::new(1)),
        server: "krbtgt/R@R".parse().unwrap(),
        nonce: 7,
        flags: 0x0060_0000,
        authtime: at,
        starttime: Some(at),
        endtime: at + Duration::from_secs(60),
    }
}

fn as_rep() -> Vec<u8> {
    let client: Principal = "tsfoo@R".parse().unwrap();
    let server: Principal = "krbtgt/R@R".parse().unwrap();
    let part = EncryptedPart { enctype: 18, kvno: Some(Kvno(3)), cipher: vec![1; 60] };
    testing::reply(11, &client, &server, Kvno(2), part)
}

fn samples() -> Vec<Vec<u8>> {
    let stime = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let hints = testing::hints(&[20, 18], b"MIT");
    vec![
        as_rep(),
        inside().build(25),
        inside().build(26),
        testing::krb_error(25, stime, Some(hints.clone())),
        hints,
    ]
}

/// Every parser there is; whether one of them took the bytes.
fn parse_all(bytes: &[u8]) -> bool {
    let taken = [
        parse_as_rep(bytes).map(|_| ()),
        parse_tgs_rep(bytes).map(|_| ()),
        parse_krb_error(bytes).map(|_| ()),
        parse_method_data(bytes).map(|_| ()),
        parse_etype_info2(bytes).map(|_| ()),
        parse_enc_kdc_reply_part(&Secret::new(bytes.to_vec())).map(|_| ()),
    ];
    for result in &taken {
        assert!(
            !matches!(result, Err(Malformed { why: Fault::Panicked, .. })),
            "the structure check let {bytes:02x?} through to a panic"
        );
    }
    taken.iter().any(Result::is_ok)
}

#[test]
fn both_tags_of_the_encrypted_part_are_read_alike() {
    for tag in [25, 26] {
        let part = parse_enc_kdc_reply_part(&Secret::new(inside().build(tag))).unwrap();
        assert_eq!((part.nonce, part.flags), (7, 0x0060_0000));
        assert!(part.server.is(&inside().server));
        assert_eq!(part.endtime, inside().endtime);
    }
}

#[test]
fn a_reply_keeps_its_ticket_as_it_came_and_tells_its_kvno() {
    let bytes = as_rep();
    let reply = parse_as_rep(&bytes).unwrap();
    assert_eq!(reply.ticket.kvno, Some(Kvno(2)));
    assert_eq!(reply.enc_part.kvno, Some(Kvno(3)));
    assert!(bytes.windows(reply.ticket.der.len()).any(|window| window == reply.ticket.der));
    assert!(parse_tgs_rep(&bytes).is_err(), "an AS-REP is no TGS-REP");
}

#[test]
fn names_are_compared_by_their_letters_and_never_by_their_type() {
    let name = |kind: i32, text: &str| {
        Name::new("R".to_owned(), kerberos_asn1::PrincipalName::new(kind, text.to_owned()))
    };
    let tsfoo: Principal = "tsfoo@R".parse().unwrap();
    assert!(name(1, "tsfoo").is(&tsfoo) && name(10, "tsfoo").is(&tsfoo));
    assert!(!name(1, "TSFOO").is(&tsfoo) && !name(1, "tsfoo/x").is(&tsfoo));
    assert!(!name(1, "tsfoo").is(&"tsfoo@r".parse().unwrap()));
}

#[test]
fn what_follows_a_message_is_not_ignored() {
    for mut bytes in samples() {
        assert!(parse_all(&bytes));
        bytes.push(0);
        assert!(!parse_all(&bytes), "{bytes:02x?}");
    }
}

#[test]
fn a_nameless_error_and_a_time_that_is_none_do_not_panic() {
    let error = testing::krb_error(6, UNIX_EPOCH + Duration::from_secs(1_700_000_000), None);
    let at = error.windows(8).position(|window| window == b"20231114").unwrap();
    let mut forged = error.clone();
    forged[at..at + 8].copy_from_slice(b"20231399");
    assert_eq!(parse_krb_error(&forged).unwrap_err().why, Fault::Structure(der::Broken::Time));
    assert_eq!(parse_krb_error(&error).unwrap().code, 6);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        parse_all(&bytes);
    }

    #[test]
    fn no_change_to_a_message_panics(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let samples = samples();
        let mut bytes = which.get(&samples).clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        parse_all(&bytes);
        parse_all(&bytes[..cut.index(bytes.len())]);
    }
}
