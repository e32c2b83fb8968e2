//! Golden bytes. Real tools read the file in the real-realm tests.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::krb5::key::Enctype;

#[test]
fn a_ccache_has_exactly_these_bytes() {
    let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    let credential = Credential {
        client: "tsfoo@R".parse().unwrap(),
        server: "krbtgt/R@R".parse().unwrap(),
        session_key: Key::new(Enctype::Aes128Sha1, Secret::new(vec![0xaa; 16])).unwrap(),
        authtime: at(1),
        starttime: at(2),
        endtime: at(u64::from(u32::MAX) + 9),
        renew_till: None,
        flags: 0x0060_0000,
        ticket: vec![0x61, 0],
    };
    #[rustfmt::skip]
    let client = [
        0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1, b'R', 0, 0, 0, 5, b't', b's', b'f', b'o', b'o',
    ];
    #[rustfmt::skip]
    let rest = [
        0, 0, 0, 2, 0, 0, 0, 2, 0, 0, 0, 1, b'R',
        0, 0, 0, 6, b'k', b'r', b'b', b't', b'g', b't', 0, 0, 0, 1, b'R',
        0, 17, 0, 0, 0, 16, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa,
        0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa,
        0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0,
        0,
        0, 0x60, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 2, 0x61, 0,
        0, 0, 0, 0,
    ];
    let expected = [&[5, 4, 0, 0][..], &client, &client, &rest].concat();
    assert_eq!(write(&credential.client, &[&credential]).expose(), expected);
}
