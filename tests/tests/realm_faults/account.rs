//! Role accounts whose keys are missing, wrong, open to others, or refused.

use std::{fs, os::unix::fs::PermissionsExt as _};

use krb_tests::{realm::Options, world::broker::Settings};

use super::{KEYTAB, Story, TICKET, asking, fails, impatient, works};

#[tokio::test(flavor = "multi_thread")]
async fn a_keytab_that_can_not_be_used_is_told_apart_and_read_again() -> Story {
    let world = impatient(Options::default(), Settings::default())?;
    let place = world.dir().join("accounts/tsfoo.keytab");
    let good = fs::read(&place)?;
    let pod = asking(&world, "pod", TICKET)?;
    let write = |bytes: &[u8], mode: u32| {
        fs::write(&place, bytes)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(mode))
    };

    fs::remove_file(&place)?;
    let text = fails(&world, &pod, "ACCOUNT_KEY_MISSING")?;
    assert!(!text.contains('/'), "tells no path: {text}");
    for (bytes, mode) in [
        (good.as_slice(), 0o644),
        (good.as_slice(), 0o604),
        (b"", 0o600),
        (b"\x05\x02\xff\xff\xff\xff", 0o600),
        (&good[..good.len() / 2], 0o600),
    ] {
        write(bytes, mode)?;
        let answer = fails(&world, &pod, "ACCOUNT_KEY_MISSING");
        // Half a keytab may well hold a whole key.
        if bytes.len() != good.len() / 2 {
            assert_eq!(answer?, text, "mode {mode:o}, {} bytes", bytes.len());
        }
    }
    // A service is no account's business: it needs no account's key.
    works(&world, &asking(&world, "keytab", KEYTAB)?)?;
    write(&good, 0o600)?;
    works(&world, &pod)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_was_changed_at_the_kdc_is_rejected_until_the_new_one_is_handed_over() -> Story {
    let world = impatient(Options::default(), Settings::default())?;
    let place = world.dir().join("accounts/tsfoo.keytab");
    let newer = world.dir().join("newer.keytab");
    world.realm.ktadd("tsfoo", &newer)?;
    let pod = asking(&world, "pod", TICKET)?;
    fails(&world, &pod, "ACCOUNT_KEY_REJECTED")?;
    let asked = world.realm.kdc_requests().as_requests;
    assert!(asked <= 6, "a wrong key is not tried until the account is locked: {asked} requests");
    fs::copy(&newer, &place)?;
    works(&world, &pod)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disabled_or_expired_account_gets_no_ticket() -> Story {
    let world = impatient(Options::default(), Settings::default())?;
    let pod = asking(&world, "pod", TICKET)?;
    for (spoil, mend) in [
        (["-allow_tix", "tsfoo"], ["+allow_tix", "tsfoo"]),
        (["-expire yesterday", "tsfoo"], ["-expire never", "tsfoo"]),
    ] {
        let modify = |how: [&str; 2]| {
            let words = how.iter().flat_map(|words| words.split(' '));
            world.realm.kadmin_local(&["modprinc"].into_iter().chain(words).collect::<Vec<_>>())
        };
        modify(spoil)?;
        fails(&world, &pod, "ACCOUNT_DISABLED")?;
        modify(mend)?;
    }
    works(&world, &pod)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_that_the_kdc_does_not_know_gets_no_ticket() -> Story {
    let world = impatient(Options::default(), Settings::default())?;
    world.realm.kadmin_local(&["delprinc", "-force", "tsfoo"])?;
    let pod = asking(&world, "pod", TICKET)?;
    fails(&world, &pod, "KDC_FAILED")?;
    world.realm.add_role_account("tsfoo")?;
    Ok(())
}
