//! Golden bytes, and keytabs as others write them.

use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;

use super::*;
use crate::clock::SeededEntropy;

fn entry(principal: &str, kvno: u32, enctype: Enctype, fill: u8) -> KeytabEntry {
    KeytabEntry {
        principal: principal.parse().unwrap(),
        timestamp: UNIX_EPOCH + Duration::from_secs(0x6000_0000),
        kvno: Kvno(kvno),
        key: Key::new(enctype, Secret::new(vec![fill; enctype.key_len()])).unwrap(),
    }
}

/// The layout that MIT's kadmin ktadd writes, byte for byte.
#[test]
fn a_keytab_has_exactly_these_bytes() {
    let file = write(&[entry("HTTP/web@R", 0x0102, Enctype::Aes128Sha1, 0xaa)]).unwrap();
    #[rustfmt::skip]
    let expected = [
        5, 2,
        0, 0, 0, 49,
        0, 2,
        0, 1, b'R',
        0, 4, b'H', b'T', b'T', b'P',
        0, 3, b'w', b'e', b'b',
        0, 0, 0, 1,
        0x60, 0, 0, 0,
        2,
        0, 17,
        0, 16, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa,
        0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa, 0xaa,
        0, 0, 1, 2,
    ];
    assert_eq!(file.expose(), expected);
}

#[test]
fn entries_are_ascending_by_kvno_whatever_their_order() {
    let mut entries = vec![
        entry("b@R", 3, Enctype::Aes256Sha1, 1),
        entry("a@R", 3, Enctype::Aes128Sha1, 2),
        entry("a@R", 3, Enctype::Aes256Sha384, 3),
        entry("a@R", 2, Enctype::Aes256Sha1, 4),
    ];
    let one = write(&entries).unwrap();
    entries.reverse();
    assert_eq!(write(&entries).unwrap(), one);
    let order: Vec<u8> =
        read(one.expose()).unwrap().entries.iter().map(|e| e.key.contents().expose()[0]).collect();
    assert_eq!(order, [4, 3, 2, 1], "kvno, then principal, then the strongest enctype first");
}

#[test]
fn numbers_that_a_reader_could_mistake_are_not_written() {
    let with = |kvnos: &[u32]| {
        let entry = |kvno: &u32| entry("a@R", *kvno, Enctype::Aes256Sha1, 1);
        write(&kvnos.iter().map(entry).collect::<Vec<_>>())
    };
    assert!(matches!(with(&[0]), Err(UnfitEntries::KvnoZero { .. })));
    assert!(matches!(with(&[2, 258]), Err(UnfitEntries::KvnosAlike { .. })));
    assert!(with(&[2, 3, 257]).is_ok());
    let other =
        [entry("a@R", 2, Enctype::Aes256Sha1, 1), entry("b@R", 258, Enctype::Aes256Sha1, 1)];
    assert!(write(&other).is_ok(), "two principals may");
}

#[test]
fn holes_are_passed_over_and_useless_entries_are_named() {
    let good = entry("a@R", 2, Enctype::Aes256Sha1, 1);
    let mut file = write(std::slice::from_ref(&good)).unwrap().expose().to_vec();
    let body = file[6..].to_vec();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    file.extend((-3i32).to_be_bytes().iter().chain(&[9, 9, 9])); // a hole
    let at = body.len() - (4 + 32 + 2 + 2); // its enctype
    for enctype in [23, 1] {
        let mut unknown = body.clone();
        unknown[at + 1] = enctype;
        file.extend(length.iter().chain(&unknown));
    }
    let keytab = read(&file).unwrap();
    assert_eq!(keytab.entries, [good]);
    let enctypes: Vec<u16> = keytab.skipped.iter().map(|skipped| skipped.enctype).collect();
    assert_eq!(enctypes, [23, 1]);
}

#[test]
fn an_old_entry_without_the_long_number_has_the_short_one() {
    let file = write(&[entry("a@R", 7, Enctype::Aes128Sha1, 1)]).unwrap().expose().to_vec();
    let mut short = file[..file.len() - 4].to_vec();
    let length = u32::try_from(short.len() - 6).unwrap();
    short[2..6].copy_from_slice(&length.to_be_bytes());
    assert_eq!(read(&short).unwrap().entries[0].kvno, Kvno(7));
}

#[test]
fn what_is_cut_or_no_keytab_is_refused() {
    let file = write(&[entry("a@R", 7, Enctype::Aes128Sha1, 1)]).unwrap().expose().to_vec();
    assert_eq!(read(&file[..file.len() - 1]), Err(KeytabError::Cut { at: 2 }));
    assert_eq!(read(&file[..4]), Err(KeytabError::Cut { at: 2 }));
    assert_eq!(read(&[5, 1, 0, 0]), Err(KeytabError::Version));
    assert_eq!(read(&[]), Err(KeytabError::Version));
    assert_eq!(read(&[5, 2]), Ok(Keytab::default()));
}

#[test]
fn keysets_come_back_by_number_with_the_strongest_key_first() {
    let entries = [
        entry("a@R", 3, Enctype::Aes128Sha1, 1),
        entry("a@R", 2, Enctype::Aes256Sha1, 2),
        entry("a@R", 3, Enctype::Aes256Sha1, 3),
        entry("b@R", 9, Enctype::Aes256Sha1, 4),
    ];
    let sets = keysets(&entries, &"a@R".parse().unwrap());
    let shape: Vec<_> = sets
        .iter()
        .map(|set| (set.kvno.0, set.keys.iter().map(Key::enctype).collect::<Vec<_>>()))
        .collect();
    let both = vec![Enctype::Aes256Sha1, Enctype::Aes128Sha1];
    assert_eq!(shape, [(2, vec![Enctype::Aes256Sha1]), (3, both)]);
}

proptest! {
    #[test]
    fn no_bytes_panic_and_what_is_written_reads_back(
        noise in prop::collection::vec(any::<u8>(), 0..200),
        kvnos in prop::collection::btree_set(1u32..200, 1..5),
        seed in any::<u64>(),
    ) {
        let _ = read(&[&VERSION[..], &noise].concat());
        let entropy = SeededEntropy::new(seed);
        let principal: Principal = "HTTP/web.example.com@EXAMPLE.COM".parse().unwrap();
        let sets: Vec<Keyset> = kvnos
            .iter()
            .map(|kvno| Keyset::random(Kvno(*kvno), &Enctype::ALL, &entropy, UNIX_EPOCH))
            .collect();
        let entries: Vec<_> =
            sets.iter().flat_map(|set| KeytabEntry::of_keyset(&principal, set)).collect();
        let keytab = read(write(&entries).unwrap().expose()).unwrap();
        prop_assert_eq!(keysets(&keytab.entries, &principal), sets);
    }
}
