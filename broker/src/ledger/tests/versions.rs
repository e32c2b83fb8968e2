//! What the versions before wrote, and what the first ones will read of ours.

use std::fmt::Write as _;

use super::*;

/// All records of a ledger as the first version with walks and bans wrote them: `key value` in
/// hexadecimal. A version that changes the format adds a file of its own and keeps this one.
const FIRST: &str = include_str!("records-1.txt");
/// What they said.
const FIRST_SAID: &str = include_str!("records-1.said.txt");

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.chars().map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn sealer() -> Sealer {
    let master = MasterKey::random(&SeededEntropy::new(7));
    Sealer::new(&master, Arc::new(SeededEntropy::new(8)))
}

fn records(text: &str) -> Vec<(Vec<u8>, Vec<u8>)> {
    let record = |line: &str| line.split_once(' ').map(|(k, v)| (from_hex(k), from_hex(v)));
    text.lines().filter_map(record).collect()
}

/// The ledger in words: what a later version must still make of it.
fn said(ledger: &Ledger) -> String {
    let mut said = String::new();
    for lease in ledger.leases.values() {
        let (pod, end) = (&lease.holder.pod, lease.end.as_ref());
        let kvnos = end.map(|end| &end.kvnos);
        let names: Vec<_> = lease.principals.iter().map(ToString::to_string).collect();
        let tickets: Vec<_> = lease.tickets.iter().map(|t| (&t.login, t.mode, t.sharing)).collect();
        let (id, node, volume) = (lease.id, &lease.holder.node, &lease.holder.volume);
        let (state, reason) = (lease.state, &lease.reason);
        writeln!(
            said,
            "lease {id} {pod} {} {node} {volume} {state:?} {reason:?} {names:?} {tickets:?} {kvnos:?}",
            pod.uid
        )
        .unwrap();
    }
    for session in ledger.sessions() {
        let Session { node, generation, state, boot_id, key, last_loss, .. } = session;
        writeln!(said, "session {node} {generation} {state:?} {boot_id} {key:?} {last_loss:?}")
            .unwrap();
    }
    for (name, managed) in &ledger.principals {
        writeln!(said, "principal {name} {} {:?}", managed.owner, managed.high_water).unwrap();
        for (kvno, held) in &managed.keysets {
            write!(said, "principal {name} ").unwrap();
            let digest = held.keyset.keys.iter().map(|key| key.contents().expose().to_vec());
            let given = &held.delivered_to;
            let bytes: Vec<_> = digest.collect();
            writeln!(said, "{kvno:?} {:?} {bytes:?} {given:?}", held.phase).unwrap();
        }
    }
    for (namespace, pin) in &ledger.pins {
        writeln!(said, "namespace {namespace} {} {:?}", pin.uid, pin.accepted_by).unwrap();
    }
    for (node, ban) in &ledger.bans {
        writeln!(said, "ban {node} {} {}", ban.by, ban.reason).unwrap();
    }
    let mut lines: Vec<_> = said.lines().collect(); // maps come in any order
    lines.sort_unstable();
    lines.join("\n") + "\n"
}

#[test]
fn records_of_the_version_before_say_what_they_said() {
    let now = TestClock::default().now();
    let ledger = record::read("test".into(), &records(FIRST), &sealer(), now).unwrap();
    assert_eq!(said(&ledger), FIRST_SAID);
}

#[test]
fn what_a_later_version_adds_to_a_record_is_passed_over() {
    let now = TestClock::default().now();
    let mut later = records(FIRST);
    for (key, value) in &mut later {
        if !matches!(key.first(), Some(b'D' | b'R')) {
            value.extend([0xc2, 0x3e, 3, b'n', b'e', b'w']); // field 1000, a text
        }
    }
    let ledger = record::read("test".into(), &later, &sealer(), now).unwrap();
    assert_eq!(said(&ledger), FIRST_SAID);
}
