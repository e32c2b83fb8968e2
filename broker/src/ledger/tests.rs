use std::time::{Duration, SystemTime};

use krb_proto::{Generation, reason::Reason};
use proptest::prelude::*;

use super::*;
use crate::{
    clock::{Clock, SeededEntropy, TestClock},
    entitlement::{AccountMode, Grant, GrantedPrincipal, GrantedTicket, Limits, Sharing},
    keys::{Phase, walk::Step},
    krb5::key::{Enctype, Keyset},
    lease::{Exposure, Holder, LeaseState},
    ledger::{query::LeaseFilter, sessions::Change},
    session::{
        Cause, Rules, Times, Witness,
        attach::{Attach, Hello},
    },
    store::seal::{MasterKey, Sealer},
};

mod revoking;
mod versions;

const SKEW: Duration = Duration::from_secs(300);
const SECOND: Duration = Duration::from_secs(1);
const MAX_LIFE: Duration = Duration::from_secs(3600);

struct World {
    ledger: Ledger,
    clock: TestClock,
    streams: u64,
    leases: u8,
}

fn node(n: u8) -> NodeName {
    format!("node-{n}").parse().unwrap()
}

fn principal(n: u8) -> Principal {
    format!("HTTP/web-{n}.tsfoo.svc.cluster.local@EXAMPLE.COM").parse().unwrap()
}

fn grant(account: &str, services: &[u8], ticket: bool) -> Grant {
    let login: Login = account.parse().unwrap();
    let client = format!("{account}@EXAMPLE.COM").parse().unwrap();
    Grant {
        account: login.clone(),
        uid: 1234,
        gid: 1111,
        keytab_gid: None,
        principals: services
            .iter()
            .map(|n| GrantedPrincipal {
                principal: principal(*n),
                client: false,
                shared: false,
                of_pod: false,
            })
            .collect(),
        tickets: ticket
            .then_some(GrantedTicket {
                login,
                client,
                mode: AccountMode::Managed,
                sharing: Sharing::Node,
            })
            .into_iter()
            .collect(),
        limits: Limits { leases: 50, principals: 3, new_principals_per_hour: 3, weight: 1 },
    }
}

impl World {
    fn new() -> Self {
        let (clock, ledger) = (TestClock::default(), Ledger::new("test".into()));
        Self { ledger, clock, streams: 0, leases: 0 }
    }

    fn wall(&self) -> SystemTime {
        self.clock.now().wall
    }

    fn attach(&mut self, n: u8, generation: Option<Generation>) -> Attach {
        self.streams += 1;
        let hello = Hello {
            boot_id: "boot".into(),
            instance: "one".into(),
            generation,
            key: None,
            node_uid: None,
        };
        self.ledger.attach(&node(n), &hello, StreamId(self.streams), self.clock.now())
    }

    fn generation(&self, n: u8) -> Generation {
        self.ledger.session(&node(n)).map_or(Generation(1), |session| session.generation)
    }

    fn holder(&self, n: u8, pod: u8) -> Holder {
        let pod = krb_proto::PodRef {
            cluster: "test".into(),
            namespace: "tsfoo".parse().unwrap(),
            name: format!("web-{pod}").parse().unwrap(),
            uid: format!("uid-{pod}").parse().unwrap(),
        };
        Holder { node: node(n), pod, volume: "krb-credentials".parse().unwrap() }
    }

    /// Takes up, makes current and delivers what the grant names.
    fn issue(&mut self, n: u8, pod: u8, grant: &Grant) -> Result<LeaseId, Denial> {
        self.leases += 1;
        let (id, now) = (LeaseId::from_random([self.leases; 16]), self.wall());
        let (holder, generation) = (self.holder(n, pod), self.generation(n));
        let admitted = self.ledger.admit(id, holder, generation, grant, now)?;
        self.ledger.take_up(grant, MAX_LIFE, now);
        self.ledger.take_up_accounts(grant, MAX_LIFE, now);
        for granted in &grant.principals {
            self.make_current(&granted.principal);
        }
        for ticket in &grant.tickets {
            self.ledger.ticket_leaves(&ticket.login, now + MAX_LIFE);
        }
        self.ledger.deliver(&admitted.lease).unwrap();
        Ok(admitted.lease)
    }

    fn make_current(&mut self, principal: &Principal) {
        if self.ledger.principal(principal).unwrap().is_ready() {
            return;
        }
        self.rotate(principal);
    }

    fn rotate(&mut self, principal: &Principal) {
        let now = self.wall();
        let kvno = self.ledger.principal(principal).unwrap().next_kvno().unwrap();
        let entropy = SeededEntropy::new(u64::from(kvno.0));
        let keyset = Keyset::random(kvno, &[Enctype::Aes256Sha1], &entropy, now);
        self.ledger.add_keyset(principal, keyset, now).unwrap();
        let activate = Step::Activate { kvno, without: Vec::new() };
        self.ledger.take_step(principal, &activate, now);
        self.ledger.became_current(principal, kvno, now);
    }

    fn prune(&mut self, n: u8, kvno: Kvno, exposed_until: SystemTime) {
        let now = self.wall();
        self.ledger.take_step(&principal(n), &Step::Prune { kvno, exposed_until }, now);
    }

    fn state(&self, id: &LeaseId) -> LeaseState {
        self.ledger.lease(id).unwrap().state
    }

    fn exposure(&self, id: &LeaseId) -> Exposure {
        self.ledger.exposure(self.ledger.lease(id).unwrap(), SKEW)
    }

    /// The ledger that a restart would read back.
    fn reopened(&mut self, store: &mut BTreeMap<Vec<u8>, Vec<u8>>) -> Ledger {
        let master = MasterKey::random(&SeededEntropy::new(7));
        let sealer = Sealer::new(&master, Arc::new(SeededEntropy::new(8)));
        let round = self.ledger.take_round(&sealer);
        store.extend(round.puts);
        round.deletes.iter().for_each(|key| drop(store.remove(key)));
        let records: Vec<_> = store.iter().map(|(k, v)| (k.clone(), v.clone())).collect();
        record::read("test".into(), &records, &sealer, self.clock.now()).unwrap()
    }
}

use crate::entitlement::Denial;

#[test]
fn the_same_holder_gets_the_same_lease_and_another_one_once_its_grant_has_changed() {
    let mut world = World::new();
    world.attach(1, None);
    let first = world.issue(1, 1, &grant("tsfoo", &[1], true)).unwrap();
    assert_eq!(world.issue(1, 1, &grant("tsfoo", &[1], true)).unwrap(), first);
    let second = world.issue(1, 1, &grant("tsfoo", &[1, 2], true)).unwrap();
    assert_ne!(second, first);
    assert_eq!(world.state(&first), LeaseState::Released);
    assert_eq!(world.exposure(&first), Exposure::Open, "its key is still current");
}

#[test]
fn a_lost_node_s_leases_are_revoked_once_every_key_it_had_is_replaced() {
    let mut world = World::new();
    world.attach(1, None);
    let both = world.issue(1, 1, &grant("tsfoo", &[1, 2], false)).unwrap();
    let ticket = world.issue(1, 2, &grant("tsfoo", &[], true)).unwrap();
    let loss = world.ledger.lose(&node(1), &Cause::Silence, world.wall()).unwrap();
    assert_eq!(loss.principals.len(), 2);
    assert_eq!(loss.revoked, [ticket], "a ticket can't be called back: nothing to wait for");
    let refused_from = world.wall() + MAX_LIFE + SKEW + SECOND;
    assert_eq!(world.exposure(&ticket), Exposure::Until(refused_from), "whole seconds count");

    world.rotate(&principal(1));
    assert!(world.ledger.finish_revoking(&principal(1)).is_empty(), "one key is still in use");
    assert_eq!(world.state(&both), LeaseState::Revoking);
    world.rotate(&principal(2));
    assert_eq!(world.ledger.finish_revoking(&principal(2)), [both]);
    assert_eq!(world.state(&both), LeaseState::Revoked);
    assert_eq!(world.exposure(&both), Exposure::Open, "the old keys are still in keytabs");

    let end = world.wall() + MAX_LIFE;
    world.prune(1, Kvno(2), end);
    assert_eq!(world.exposure(&both), Exposure::Open);
    world.prune(2, Kvno(2), end + SKEW);
    assert_eq!(world.exposure(&both), Exposure::Until(end + SKEW), "the later of both");
}

#[test]
fn a_principal_belongs_to_the_first_account_that_gets_it() {
    let mut world = World::new();
    world.attach(1, None);
    world.issue(1, 1, &grant("tsfoo", &[1], false)).unwrap();
    let denial = world.issue(1, 2, &grant("tsbar", &[1], false)).unwrap_err();
    assert_eq!(denial.reason, Reason::PrincipalTaken);
    assert!(!denial.message.contains("belongs to tsfoo"), "names a tenant: {}", denial.message);
}

#[test]
fn limits_are_kept_and_a_refusal_changes_nothing() {
    let mut world = World::new();
    world.attach(1, None);
    world.issue(1, 1, &grant("tsfoo", &[1, 2, 3], false)).unwrap();
    world.ledger.take_touched();
    let denial = world.issue(1, 2, &grant("tsfoo", &[4], false)).unwrap_err();
    assert_eq!(denial.reason, Reason::LimitReached);
    assert!(world.ledger.take_touched().is_empty());
    for pod in 10..59 {
        world.issue(1, pod, &grant("tsfoo", &[1], false)).unwrap();
    }
    let denial = world.issue(1, 60, &grant("tsfoo", &[1], false)).unwrap_err();
    assert_eq!(denial.reason, Reason::LimitReached);
}

#[test]
fn a_node_that_leaves_empty_handed_is_no_loss_and_one_that_died_is() {
    let (mut world, times) = (World::new(), Times::default());
    world.attach(1, None);
    world.attach(2, None);
    let lease = world.issue(1, 1, &grant("tsfoo", &[1], false)).unwrap();
    world.issue(2, 2, &grant("tsfoo", &[1], false)).unwrap();
    assert!(!world.ledger.goodbye_empty(&node(1), StreamId(1)), "it has a keytab");
    world.ledger.release(&lease, "released by its node", world.wall());
    assert!(world.ledger.goodbye_empty(&node(1), StreamId(1)));

    world.clock.advance(times.silent_after + times.lost_after);
    let changes =
        world.ledger.judge_all(world.clock.now(), &|_| Witness::NotApplicable, &Rules::default());
    let lost: Vec<_> = changes
        .iter()
        .filter_map(|change| match change {
            Change::Lost(loss) => Some(loss.node.clone()),
            _ => None,
        })
        .collect();
    assert_eq!(lost, [node(2)]);
}

#[test]
fn pages_follow_one_another_and_a_bound_viewer_sees_only_its_own() {
    let mut world = World::new();
    world.attach(1, None);
    for pod in 1..=7 {
        world.issue(1, pod, &grant("tsfoo", &[1], false)).unwrap();
    }
    for filter in [
        LeaseFilter::default(),
        LeaseFilter { node: Some(node(1)), ..LeaseFilter::default() },
        LeaseFilter { principal: Some(principal(1)), ..LeaseFilter::default() },
    ] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = world.ledger.list(&filter, after, 3);
            seen.extend(page.leases.iter().map(|lease| lease.id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(seen.len(), 7, "{filter:?}");
        assert!(seen.is_sorted());
    }
    let visible = Some(["tsbar".parse().unwrap()].into());
    let other = LeaseFilter { visible, ..LeaseFilter::default() };
    assert!(world.ledger.list(&other, None, 10).leases.is_empty());
}

#[test]
fn a_namespace_that_was_made_anew_waits_for_an_operator() {
    let mut world = World::new();
    let namespace: Namespace = "tsfoo".parse().unwrap();
    assert!(world.ledger.pin(&namespace, "one", world.clock.now().wall));
    assert!(world.ledger.check_pin(&namespace, "one").is_ok());
    assert_eq!(world.ledger.check_pin(&namespace, "two").unwrap_err().uid, "one");
    world.ledger.accept_namespace(&namespace, "two", "operator:olga", world.clock.now().wall);
    assert!(world.ledger.check_pin(&namespace, "two").is_ok());
}

#[test]
fn a_lease_that_ends_after_a_key_of_it_was_pruned_is_exposed_as_long_as_that_key() {
    let mut world = World::new();
    world.attach(1, None);
    let lease = world.issue(1, 1, &grant("tsfoo", &[1], false)).unwrap();
    world.rotate(&principal(1));
    world.rotate(&principal(1));
    let until = world.wall() + MAX_LIFE;
    world.prune(1, Kvno(2), until);
    let now = world.wall();
    assert!(world.ledger.release(&lease, "its pod is gone", now));
    assert_eq!(world.exposure(&lease), Exposure::Until(until));
}

#[test]
fn an_acknowledgement_says_nothing_of_a_key_that_leaves_after_it() {
    let mut world = World::new();
    world.attach(1, None);
    let lease = world.issue(1, 1, &grant("tsfoo", &[1], false)).unwrap();
    let kvnos: BTreeMap<_, _> = [(principal(1), BTreeSet::from([Kvno(2)]))].into();
    world.ledger.acknowledge(&lease, Acknowledged { stream: StreamId(world.streams), kvnos });
    world.ledger.deliver(&lease).unwrap();
    assert!(world.ledger.holders(&principal(1))[0].has.is_some(), "it was told nothing new");
    world.rotate(&principal(1));
    world.ledger.deliver(&lease).unwrap();
    assert_eq!(world.ledger.holders(&principal(1))[0].has, None, "it may have kvno 3 now");
}

#[test]
fn ended_leases_are_forgotten_in_time_and_one_that_is_revoked_never_before_its_exposure_ends() {
    let mut world = World::new();
    world.attach(1, None);
    let keep = Duration::from_secs(60);
    let released = world.issue(1, 1, &grant("tsfoo", &[1], false)).unwrap();
    let revoked = world.issue(1, 2, &grant("tsfoo", &[1], false)).unwrap();
    world.ledger.release(&released, "x", world.wall());
    world.ledger.lose(&node(1), &Cause::Silence, world.wall());
    world.rotate(&principal(1));
    world.ledger.finish_revoking(&principal(1));
    world.clock.advance(keep * 2);
    world.ledger.forget_ended(keep, SKEW, world.wall());
    assert!(world.ledger.lease(&released).is_none());
    assert!(world.ledger.lease(&revoked).is_some(), "its exposure is open");
    world.prune(1, Kvno(2), world.wall());
    world.clock.advance(keep * 2);
    world.ledger.forget_ended(keep, SKEW, world.wall());
    assert!(world.ledger.lease(&revoked).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens: one live lease a holder, none on a fenced generation, and a restart
    /// reads back exactly what there was.
    #[test]
    fn no_order_of_events_breaks_the_ledger_and_a_restart_reads_it_back(
        events in proptest::collection::vec((0_u8..8, 1_u8..4, 1_u8..6), 0..60)
    ) {
        let (mut world, times) = (World::new(), Times::default());
        let mut store = BTreeMap::new();
        let mut ids = Vec::new();
        for (event, n, pod) in events {
            match event {
                0 => { world.attach(n, None); }
                1 | 2 => {
                    if world.ledger.check_session(&node(n), world.generation(n)).is_ok() {
                        let services: Vec<u8> = (1..=(pod % 3)).collect();
                        ids.extend(world.issue(n, pod, &grant("tsfoo", &services, pod > 2)).ok());
                    }
                }
                3 => { world.ledger.lose(&node(n), &Cause::Silence, world.clock.now().wall); }
                4 => if let Some(id) = ids.get(usize::from(pod)) {
                    world.ledger.release(id, "x", world.clock.now().wall);
                },
                5 => if world.ledger.principal(&principal(n)).is_some() {
                    world.rotate(&principal(n));
                    world.ledger.finish_revoking(&principal(n));
                },
                6 => {
                    world.clock.advance(times.silent_after);
                    world.ledger.judge_all(world.clock.now(), &|_| Witness::NotApplicable, &Rules::default());
                }
                _ => if let Some(managed) = world.ledger.principal(&principal(n)) {
                    let retiring = managed.keysets.values().find(|h| h.phase == Phase::Retiring);
                    if let Some(kvno) = retiring.map(|held| held.keyset.kvno) {
                        let now = world.clock.now().wall;
                        world.prune(n, kvno, now);
                    }
                },
            }
            let mut holders = BTreeSet::new();
            for lease in world.ledger.leases().filter(|lease| lease.is_live()) {
                prop_assert!(holders.insert(lease.holder.key()), "two live leases of one holder");
                let recipient = (lease.holder.node.clone(), lease.generation);
                prop_assert!(!world.ledger.is_fenced(&recipient), "live on a fenced generation");
            }
        }
        let read = world.reopened(&mut store);
        let old: Vec<_> = world.ledger.leases().collect();
        let new: Vec<_> = read.leases().collect();
        prop_assert_eq!(old, new);
        prop_assert_eq!(&world.ledger.by_holder, &read.by_holder);
        prop_assert_eq!(&world.ledger.accounts, &read.accounts);
        for known in world.ledger.principals() {
            let again = read.principal(&known.principal).unwrap();
            prop_assert_eq!(known.high_water, again.high_water);
            prop_assert_eq!(&known.pruned, &again.pruned);
            prop_assert_eq!(known.keysets.len(), again.keysets.len());
            for (kvno, held) in &known.keysets {
                let same = &again.keysets[kvno];
                prop_assert_eq!(&held.keyset.keys, &same.keyset.keys);
                prop_assert_eq!((held.phase, held.since), (same.phase, same.since));
                prop_assert_eq!(&held.delivered_to, &same.delivered_to);
            }
        }
        for session in world.ledger.sessions() {
            prop_assert_eq!(session.generation, read.session(&session.node).unwrap().generation);
        }
    }
}

#[test]
fn a_restart_reads_a_managed_account_s_principal_back_as_a_role_account() {
    let mut world = World::new();
    world.attach(1, None);
    world.issue(1, 1, &grant("tsfoo", &[1], true)).unwrap();
    let reopened = world.reopened(&mut BTreeMap::new());
    for name in ["tsfoo@EXAMPLE.COM".parse().unwrap(), principal(1)] {
        let before = &world.ledger.principal(&name).unwrap().attributes;
        assert_eq!(before.is_role_account(), name.components().len() == 1);
        assert_eq!(&reopened.principal(&name).unwrap().attributes, before);
    }
}

#[test]
fn a_restart_remembers_which_kdcs_were_seen_to_lag() {
    let (mut world, mut store) = (World::new(), BTreeMap::new());
    world.attach(1, None);
    world.issue(1, 1, &grant("tsfoo", &[1], true)).unwrap();
    world.reopened(&mut store);
    let kvno = world.ledger.principal(&principal(1)).unwrap().current().unwrap().keyset.kvno;
    let lagging = ["kdc2:88".to_owned()].into();
    assert!(world.ledger.set_lagging(&principal(1), kvno, &lagging));
    assert!(!world.ledger.set_lagging(&principal(1), kvno, &lagging), "it is known");
    let after = world.reopened(&mut store);
    assert_eq!(after.principal(&principal(1)).unwrap().keysets[&kvno].lagging, lagging);
}
