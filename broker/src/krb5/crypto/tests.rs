//! The RFCs' own vectors, and what must not decrypt.

use krb_proto::Secret;
use proptest::prelude::*;

use super::*;
use crate::clock::SeededEntropy;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

fn key(enctype: Enctype, contents: &str) -> Key {
    Key::new(enctype, Secret::new(unhex(contents))).unwrap()
}

fn password_key(enctype: Enctype, password: &str, salt: &[u8], iterations: u32) -> String {
    let password = Secret::new(password.as_bytes().to_vec());
    let key = string_to_key(enctype, &password, salt, Some(&iterations.to_be_bytes())).unwrap();
    hex(key.contents().expose())
}

/// RFC 3962 appendix B.
#[test]
fn passwords_give_the_keys_of_rfc_3962() {
    let athena = b"ATHENA.MIT.EDUraeburn";
    for (iterations, short, long) in [
        (
            1,
            "42263c6e89f4fc28b8df68ee09799f15",
            "fe697b52bc0d3ce14432ba036a92e65bbb52280990a2fa27883998d72af30161",
        ),
        (
            1200,
            "4c01cd46d632d01e6dbe230a01ed642a",
            "55a6ac740ad17b4846941051e1e8b0a7548d93b0ab30a8bc3ff16280382b8c2a",
        ),
    ] {
        assert_eq!(password_key(Enctype::Aes128Sha1, "password", athena, iterations), short);
        assert_eq!(password_key(Enctype::Aes256Sha1, "password", athena, iterations), long);
    }
    let clef = "\u{1d11e}";
    assert_eq!(
        password_key(Enctype::Aes256Sha1, clef, b"EXAMPLE.COMpianist", 50),
        "4b6d9839f84406df1f09cc166db4b83c571848b784a3d6bdc346589a3e393f9e"
    );
}

/// RFC 8009 appendix A.
#[test]
fn passwords_give_the_keys_of_rfc_8009() {
    let salt =
        [unhex("10df9dd783e5bc8acea1730e74355f61"), b"ATHENA.MIT.EDUraeburn".to_vec()].concat();
    assert_eq!(
        password_key(Enctype::Aes128Sha256, "password", &salt, 32_768),
        "089bca48b105ea6ea77ca5d2f39dc5e7"
    );
    assert_eq!(
        password_key(Enctype::Aes256Sha384, "password", &salt, 32_768),
        "45bd806dbf6a833a9cffc1c94589a222367a79bc21c413718906e9f578a78467"
    );
}

#[test]
fn a_kdc_cannot_make_the_broker_count_for_ever() {
    let password = Secret::new(b"password".to_vec());
    let key = |params: &[u8]| string_to_key(Enctype::Aes256Sha1, &password, b"", Some(params));
    for iterations in [0, MAX_ITERATIONS + 1, u32::MAX] {
        let error = PasswordError::Iterations { iterations };
        assert_eq!(key(&iterations.to_be_bytes()), Err(error));
    }
    assert_eq!(key(&[0, 0, 1]), Err(PasswordError::Params { length: 3 }));
}

/// RFC 8009 appendix A: sample encryptions, usage 2, with their confounders.
#[test]
fn messages_encrypt_as_rfc_8009_says() {
    let short = key(Enctype::Aes128Sha256, "3705d96080c17728a0e800eab6e0d23c");
    let long = key(
        Enctype::Aes256Sha384,
        "6d404d37faf79f9df0d33568d320669800eb4836472ea8a026d16b7182460c52",
    );
    for (key, confounder, plaintext, ciphertext) in [
        (
            &short,
            "7e5895eaf2672435bad817f545a37148",
            "",
            "ef85fb890bb8472f4dab20394dca781dad877eda39d50c870c0d5a0a8e48c718",
        ),
        (
            &short,
            "7bca285e2fd4130fb55b1a5c83bc5b24",
            "000102030405",
            "84d7f30754ed987bab0bf3506beb09cfb55402cef7e6877ce99e247e52d16ed4421dfdf8976c",
        ),
        (
            &short,
            "56ab21713ff62c0a1457200f6fa9948f",
            "000102030405060708090a0b0c0d0e0f",
            "3517d640f50ddc8ad3628722b3569d2ae07493fa8263254080ea65c1008e8fc2\
             95fb4852e7d83e1e7c48c37eebe6b0d3",
        ),
        (
            &long,
            "f764e9fa15c276478b2c7d0c4e5f58e4",
            "",
            "41f53fa5bfe7026d91faf9be959195a058707273a96a40f0a01960621ac612748b9bbfbe7eb4ce3c",
        ),
        (
            &long,
            "b80d3251c1f6471494256ffe712d0b9a",
            "000102030405",
            "4ed7b37c2bcac8f74f23c1cf07e62bc7b75fb3f637b9f559c7f664f69eab7b60\
             92237526ea0d1f61cb20d69d10f2",
        ),
    ] {
        let confounder = unhex(confounder).try_into().unwrap();
        let plaintext = unhex(plaintext);
        let encrypted = encrypt_with(key, Usage::other(2), &plaintext, confounder);
        assert_eq!(hex(&encrypted), hex(&unhex(ciphertext)));
        assert_eq!(decrypt(key, Usage::other(2), &encrypted).unwrap().expose(), plaintext);
    }
}

/// RFC 8009 appendix A: sample checksums, usage 2.
#[test]
fn checksums_are_those_of_rfc_8009() {
    let data = unhex("000102030405060708090a0b0c0d0e0f1011121314");
    let short = key(Enctype::Aes128Sha256, "3705d96080c17728a0e800eab6e0d23c");
    let long = key(
        Enctype::Aes256Sha384,
        "6d404d37faf79f9df0d33568d320669800eb4836472ea8a026d16b7182460c52",
    );
    let sum = checksum(&short, Usage::other(2), &data);
    assert_eq!((sum.number, hex(&sum.bytes)), (19, "d78367186643d67b411cba9139fc1dee".to_owned()));
    let sum = checksum(&long, Usage::other(2), &data);
    let expected = "45ee791567eefca37f4ac1e0222de80d43c3bfa06699672a";
    assert_eq!((sum.number, hex(&sum.bytes)), (20, expected.to_owned()));
}

fn enctypes() -> impl Strategy<Value = Enctype> {
    prop::sample::select(Enctype::ALL.to_vec())
}

proptest! {
    #[test]
    fn what_is_encrypted_decrypts_with_its_key_and_usage_alone(
        enctype in enctypes(),
        plaintext in prop::collection::vec(any::<u8>(), 0..100),
        seed in any::<u64>(),
        flip in any::<prop::sample::Index>(),
    ) {
        let entropy = SeededEntropy::new(seed);
        let (key, other) = (Key::random(enctype, &entropy), Key::random(enctype, &entropy));
        let mut encrypted = encrypt(&key, Usage::AS_REP, &plaintext, &entropy);

        let decrypted = decrypt(&key, Usage::AS_REP, &encrypted).unwrap();
        prop_assert_eq!(decrypted.expose(), plaintext);
        prop_assert!(decrypt(&key, Usage::TGS_REP_SUBKEY, &encrypted).is_err());
        prop_assert!(decrypt(&other, Usage::AS_REP, &encrypted).is_err());

        let bit = flip.index(encrypted.len() * 8);
        encrypted[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(decrypt(&key, Usage::AS_REP, &encrypted).is_err());
    }

    #[test]
    fn no_ciphertext_panics(
        enctype in enctypes(),
        ciphertext in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let key = Key::random(enctype, &SeededEntropy::new(1));
        prop_assert!(decrypt(&key, Usage::AS_REP, &ciphertext).is_err());
    }
}
