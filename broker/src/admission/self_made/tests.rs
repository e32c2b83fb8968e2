use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::authority::{Authorities, Authority};

const HOUR: Duration = Duration::from_secs(3600);
const LIFE: Duration = Duration::from_secs(30 * 3600);

fn at(hours: u32) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_800_000_000) + hours * HOUR
}

fn made(hours: u32) -> Authority {
    Authority::new(at(hours), LIFE).unwrap()
}

#[test]
fn a_ca_is_made_where_there_is_none_and_again_in_the_last_third() {
    let none = Authorities::default();
    assert!(none.wants_new(at(0), LIFE));
    assert_eq!(none.bundle(at(0)), "");
    let one = none.with(made(0), at(0));
    assert!(!one.wants_new(at(19), LIFE));
    assert!(one.wants_new(at(20), LIFE));
}

#[test]
fn both_are_believed_while_one_takes_the_place_of_the_other() {
    let both = Authorities::default().with(made(0), at(0)).with(made(20), at(20));
    assert_eq!(both.bundle(at(29)).matches("BEGIN CERTIFICATE").count(), 2);
    assert_eq!(both.bundle(at(30)).matches("BEGIN CERTIFICATE").count(), 1, "the first is over");
    let (old, new) = (made(0).id(), made(20).id());
    let signer = |hours, settled: &[u64]| {
        both.signer(at(hours), |id| settled.contains(&id)).map(Authority::id)
    };
    assert_eq!(signer(20, &[]), Some(old), "nothing is known: what was believed for long");
    assert_eq!(signer(20, &[old]), Some(old));
    assert_eq!(signer(21, &[old, new]), Some(new));
    assert_eq!(signer(30, &[]), Some(new), "the old one's time is over");
    assert_eq!(signer(50, &[]), None);
    let third = both.with(made(40), at(40));
    assert_eq!(third.entries().len(), 4, "the first is no longer kept");
}

#[test]
fn what_is_stored_is_read_again_and_what_is_broken_is_not_taken_for_absent() {
    let both = Authorities::default().with(made(0), at(0)).with(made(20), at(20));
    let mut entries = both.entries();
    entries.insert("note".to_owned(), b"passed over".to_vec());
    assert_eq!(Authorities::read(&entries).unwrap(), both);
    let id = made(0).id();
    for (entry, text) in [("crt", b"x".to_vec()), ("key", b"x".to_vec()), ("key", Vec::new())] {
        let mut broken = entries.clone();
        broken.insert(format!("{id}.{entry}"), text);
        assert!(Authorities::read(&broken).is_err());
    }
    entries.remove(&format!("{id}.key"));
    assert!(Authorities::read(&entries).is_err());
    let other = Authorities::default().with(made(5), at(5)).entries();
    let (_, key) = other.into_iter().find(|(name, _)| name.ends_with(".key")).unwrap();
    let mut mixed = both.entries();
    mixed.insert(format!("{id}.key"), key);
    assert!(Authorities::read(&mixed).is_err(), "a key that is not its");
}
