//! The master key, the keytabs, the store.

use std::{fs, os::unix::fs::PermissionsExt as _};

use super::{Story, refuses, runs, stopped};

#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_that_can_not_be_trusted_is_refused() -> Story {
    let mut world = stopped()?;
    let key = world.memory().join("master.key");
    let good = fs::read(&key)?;
    let mode = |mode: u32| fs::set_permissions(&key, fs::Permissions::from_mode(mode));

    fs::remove_file(&key)?;
    refuses(&mut world, &["master key", "does not exist"])?;
    let short = &good[..32];
    let long = [good.as_slice(), b"00"].concat();
    let letters = "g".repeat(64);
    for bad in [b"".as_slice(), short, &long, letters.as_bytes()] {
        fs::write(&key, bad)?;
        mode(0o600)?;
        refuses(&mut world, &["master key", "64 hexadecimal digits"])?;
    }
    fs::write(&key, &good)?;
    for open in [0o644, 0o640, 0o660, 0o700] {
        mode(open)?;
        refuses(&mut world, &["master key", "mode"])?;
    }
    mode(0o600)?;
    runs(&mut world, "good").await?;

    let other: Vec<u8> = good.iter().map(|b| if *b == b'0' { b'1' } else { *b }).collect();
    fs::write(&key, other)?;
    let said = refuses(&mut world, &["the store"])?;
    assert!(said.contains("another key") || said.contains("master key"), "{said}");
    fs::write(&key, &good)?;
    runs(&mut world, "again").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_master_key_beside_what_it_opens_is_refused() -> Story {
    let mut world = stopped()?;
    let good = world.memory().join("master.key").display().to_string();
    for (place, words) in [("store/key", "lies in the store"), ("key", "same volume")] {
        let place = world.dir().join(place);
        fs::copy(&good, &place)?;
        fs::set_permissions(&place, fs::Permissions::from_mode(0o600))?;
        let place = place.display().to_string();
        world.broker.reconfigure(&good, &place)?;
        refuses(&mut world, &["master key", words])?;
        world.broker.reconfigure(&place, &good)?;
        fs::remove_file(&place)?;
    }
    runs(&mut world, "good").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_keytab_or_tls_key_that_can_not_be_used_is_refused() -> Story {
    let mut world = stopped()?;
    let keytab = world.realm.admin_keytab();
    let good = fs::read(&keytab)?;
    let mode = |mode: u32| fs::set_permissions(&keytab, fs::Permissions::from_mode(mode));
    mode(0o644)?;
    refuses(&mut world, &["admin keytab", "open to others"])?;
    mode(0o600)?;
    fs::write(&keytab, "no keytab")?;
    refuses(&mut world, &["admin keytab", "can't be read"])?;
    fs::copy(world.dir().join("accounts/tsfoo.keytab"), &keytab)?;
    refuses(&mut world, &["admin keytab", "no usable key"])?;
    fs::remove_file(&keytab)?;
    refuses(&mut world, &["admin keytab", "can't be read"])?;
    fs::write(&keytab, good)?;
    mode(0o600)?;

    let key = world.pki.files("broker").key;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644))?;
    refuses(&mut world, &["broker.key", "others can read it"])?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600))?;
    runs(&mut world, "good").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn two_brokers_do_not_share_a_store() -> Story {
    let mut world = stopped()?;
    world.broker.restart()?;
    let text = fs::read_to_string(world.broker.config())?;
    let address = world.broker.address().to_string();
    let second = world.dir().join("second.toml");
    let run = format!("{:?}", world.dir().join("run"));
    let other_run = format!("{:?}", world.dir().join("second-run"));
    fs::write(&second, text.replacen(&address, "127.0.0.1:0", 1).replacen(&run, &other_run, 1))?;
    let refused = world.broker.run(&["serve", "--config", &second.display().to_string()]);
    let said = refused.expect_err("the store is in use").to_string();
    assert!(said.contains("the store") && said.contains("another"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    world.serves_on("good", "node-a").await?;
    Ok(())
}
