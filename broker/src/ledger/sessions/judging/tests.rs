//! Many nodes at once, in virtual time.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use krb_proto::{Generation, LeaseId, PodRef, Principal};

use super::*;
use crate::{
    clock::{Clock, SeededEntropy, TestClock},
    entitlement::{Grant, GrantedPrincipal, Limits as AccountLimits},
    keys::walk::Step,
    krb5::key::{Enctype, Keyset},
    lease::{Holder, LeaseState},
    ledger::{record, sessions::NotServed},
    session::{
        Alert, KeyHash, StreamId, Times,
        attach::{Attach, Hello},
        witness::{FakeCluster, Witnesses},
    },
    store::seal::{MasterKey, Sealer},
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Nodes with a pod each, beating every ten seconds.
struct Cluster {
    ledger: Ledger,
    clock: TestClock,
    rules: Rules,
    /// Those that are cut off.
    cut: BTreeSet<u8>,
    size: u8,
    changes: Vec<Change>,
    witnesses: Option<FakeCluster>,
}

fn node(n: u8) -> NodeName {
    format!("node-{n}").parse().unwrap()
}

fn principal() -> Principal {
    "HTTP/web.tsfoo.svc.cluster.local@EXAMPLE.COM".parse().unwrap()
}

fn pod(n: u8) -> PodRef {
    PodRef {
        cluster: "test".into(),
        namespace: "tsfoo".parse().unwrap(),
        name: format!("web-{n}").parse().unwrap(),
        uid: format!("uid-{n}").parse().unwrap(),
    }
}

fn grant() -> Grant {
    let granted =
        GrantedPrincipal { principal: principal(), client: false, shared: false, of_pod: false };
    Grant {
        account: "tsfoo".parse().unwrap(),
        uid: 1,
        gid: 1,
        keytab_gid: None,
        principals: vec![granted],
        tickets: Vec::new(),
        limits: AccountLimits { leases: 500, principals: 9, new_principals_per_hour: 9, weight: 1 },
    }
}

fn hello(generation: Option<Generation>) -> Hello {
    Hello { boot_id: "boot".into(), instance: "one".into(), generation, key: None, node_uid: None }
}

impl Cluster {
    fn of(size: u8) -> Self {
        let (ledger, clock) = (Ledger::new("test".into()), TestClock::default());
        let mut cluster = Self {
            ledger,
            clock,
            rules: Rules::default(),
            cut: BTreeSet::new(),
            size,
            changes: Vec::new(),
            witnesses: None,
        };
        for n in 1..=size {
            cluster.attach(n);
            cluster.issue(n);
        }
        cluster
    }

    fn attach(&mut self, n: u8) -> Attach {
        self.ledger.attach(&node(n), &hello(None), StreamId(n.into()), self.clock.now())
    }

    fn issue(&mut self, n: u8) {
        let now = self.clock.now().wall;
        let generation = self.ledger.session(&node(n)).unwrap().generation;
        let holder = Holder { node: node(n), pod: pod(n), volume: "v".parse().unwrap() };
        let id = LeaseId::from_random([n; 16]);
        let lease = self.ledger.admit(id, holder, generation, &grant(), now).unwrap().lease;
        self.ledger.take_up(&grant(), MINUTE, now);
        if !self.ledger.principal(&principal()).unwrap().is_ready() {
            let keyset = Keyset::random(
                krb_proto::Kvno(2),
                &[Enctype::Aes256Sha1],
                &SeededEntropy::new(1),
                now,
            );
            self.ledger.add_keyset(&principal(), keyset, now).unwrap();
            let kvno = krb_proto::Kvno(2);
            let activate = Step::Activate { kvno, without: Vec::new() };
            self.ledger.take_step(&principal(), &activate, now);
            self.ledger.became_current(&principal(), krb_proto::Kvno(2), now);
        }
        self.ledger.deliver(&lease).unwrap();
    }

    fn cut(&mut self, nodes: impl IntoIterator<Item = u8>) {
        self.cut.extend(nodes);
    }

    /// Lets time pass; each node beats in its own second of ten.
    fn pass(&mut self, span: Duration) {
        for _ in 0..span.as_secs() {
            self.clock.advance(SECOND);
            self.tick();
        }
    }

    fn tick(&mut self) {
        let now = self.clock.now();
        for n in 1..=self.size {
            let turn = now.boot.0.as_secs() % 10 == u64::from(n % 10);
            if turn && !self.cut.contains(&n) {
                let stream = StreamId(n.into());
                let _ = self.ledger.heard(&node(n), stream, now, &self.rules.times);
            }
        }
        let witness = |node: &NodeName| match &self.witnesses {
            Some(cluster) => cluster.of(node, now),
            None => Witness::NotApplicable,
        };
        self.changes.extend(self.ledger.judge_all(now, &witness, &self.rules));
    }

    fn lost(&self) -> Vec<NodeName> {
        let lost = self.changes.iter().filter_map(|change| match change {
            Change::Lost(loss) => Some(loss.node.clone()),
            _ => None,
        });
        lost.collect()
    }

    fn count(&self, fits: impl Fn(&Change) -> bool) -> usize {
        self.changes.iter().filter(|change| fits(change)).count()
    }

    fn serves(&self, n: u8) -> Result<(), NotServed> {
        let generation = self.ledger.session(&node(n)).unwrap().generation;
        self.ledger.check_session(&node(n), generation)
    }
}

const UNTIL_LOST: Duration = Duration::from_secs(360); // silence, and the last heartbeat

#[test]
fn sixty_percent_of_fifty_nodes_cut_at_once_lose_nothing_and_say_it_loudly() {
    let mut cluster = Cluster::of(50);
    cluster.pass(MINUTE);
    cluster.cut(1..=30);
    cluster.pass(UNTIL_LOST + 10 * MINUTE);
    assert_eq!(cluster.lost(), [], "not even the first third");
    assert_eq!(cluster.count(|change| matches!(change, Change::BrakeOn(_))), 1, "said once");
    assert!(cluster.ledger.leases().all(|lease| lease.state == LeaseState::Active));
    assert_eq!(cluster.serves(1), Err(NotServed::Braked));
    assert_eq!(cluster.serves(31), Ok(()));

    cluster.cut.clear(); // whatever it was, it is over
    cluster.pass(MINUTE);
    assert_eq!((cluster.lost().len(), cluster.ledger.braked()), (0, None));
    assert_eq!(cluster.count(|change| *change == Change::BrakeOff), 1);
    assert_eq!(cluster.serves(1), Ok(()));
}

#[test]
fn while_the_brake_is_on_two_an_hour_are_lost_the_longest_silent_first() {
    let mut cluster = Cluster::of(50);
    cluster.cut([7]);
    cluster.pass(MINUTE);
    cluster.cut(1..=30);
    cluster.pass(UNTIL_LOST + 61 * MINUTE);
    let lost = cluster.lost();
    assert_eq!((lost.len(), &lost[0]), (2, &node(7)));
}

#[test]
fn an_operator_s_word_passes_the_brake() {
    let mut cluster = Cluster::of(50);
    cluster.cut(1..=30);
    cluster.pass(UNTIL_LOST);
    let evicted = Cause::Evicted { by: "operator:olga".into() };
    let loss = cluster.ledger.lose(&node(9), &evicted, cluster.clock.now().wall).unwrap();
    assert_eq!(loss.principals, [principal()]);

    let released = cluster.ledger.release_brake(Some(&[node(1), node(40)]));
    assert_eq!(released.nodes, [node(1)], "the other one is not silent");
    cluster.pass(SECOND);
    assert_eq!(cluster.lost(), [node(1)]);
    let released = cluster.ledger.release_brake(None);
    assert_eq!(released.nodes.len(), 28);
    cluster.pass(SECOND);
    assert_eq!(cluster.lost().len(), 29);
    cluster.pass(MINUTE);
    assert_eq!(cluster.ledger.braked(), None, "what an operator did does not count");
}

#[test]
fn three_of_nine_are_lost_and_one_that_is_evicted_meanwhile_is_fenced_at_once() {
    let mut cluster = Cluster::of(9);
    cluster.pass(MINUTE);
    cluster.cut(1..=3);
    cluster.pass(MINUTE);
    let evicted = Cause::Evicted { by: "operator:olga".into() };
    let now = cluster.clock.now();
    cluster.ledger.lose(&node(2), &evicted, now.wall).unwrap();
    assert!(cluster.ledger.is_fenced(&(node(2), Generation(1))));
    let lease = cluster.ledger.lease(&LeaseId::from_random([2; 16])).unwrap();
    assert_eq!(lease.state, LeaseState::Revoking);
    assert_eq!(lease.reason, "its node was evicted by operator:olga");
    cluster.pass(UNTIL_LOST);
    assert_eq!(cluster.lost(), [node(1), node(3)], "2 of 9 are no catastrophe");
}

#[test]
fn lease_ttl_ends_what_the_brake_holds() {
    let mut cluster = Cluster::of(9);
    let limits = Limits { passes_per_hour: 0, ..Limits::default() };
    cluster.rules.brake = limits;
    cluster.rules.times = Times { lease_ttl: 30 * MINUTE, ..Times::default() };
    cluster.ledger.set_brake(limits, cluster.clock.now());
    cluster.cut(1..=9);
    cluster.pass(29 * MINUTE);
    assert_eq!(cluster.lost(), []);
    cluster.pass(MINUTE);
    assert_eq!(cluster.lost().len(), 9);
    let cause = cluster.ledger.session(&node(1)).unwrap().last_loss.clone().unwrap().cause;
    assert_eq!(cause, Cause::LeaseTtl);
}

#[test]
fn a_ready_node_with_a_silent_agent_is_an_alert_and_a_dead_one_is_lost() {
    let mut cluster = Cluster::of(12);
    let witnesses = FakeCluster::default();
    (1..=12).for_each(|n| witnesses.set_ready(&node(n), n != 2));
    cluster.witnesses = Some(witnesses);
    cluster.cut([1, 2]);
    cluster.pass(UNTIL_LOST);
    assert_eq!(cluster.lost(), [node(2)]);
    let alert = Change::Alert(node(1), Alert::AgentFault);
    assert_eq!(cluster.count(|change| *change == alert), 1, "once, when it begins");
    cluster.cut.remove(&1);
    cluster.pass(10 * SECOND);
    assert!(cluster.ledger.session(&node(1)).unwrap().alerts.is_empty());

    cluster.cut([3]);
    cluster.witnesses.as_ref().unwrap().delete(&node(3));
    cluster.witnesses.as_ref().unwrap().delete(&node(4));
    cluster.pass(50 * SECOND);
    assert_eq!(cluster.lost(), [node(2), node(3)], "a deleted one need not be waited for");
    assert_eq!(cluster.serves(4), Ok(()), "but one that beats stays");
}

#[test]
fn with_no_fresh_witness_a_silent_node_stays_silent_loudly() {
    let mut cluster = Cluster::of(3);
    let witnesses = FakeCluster::default();
    (1..=3).for_each(|n| witnesses.set_ready(&node(n), false));
    witnesses.fail(cluster.clock.now());
    cluster.witnesses = Some(witnesses);
    cluster.cut([1]);
    cluster.pass(60 * MINUTE);
    assert_eq!(cluster.lost(), []);
    let alert = Change::Alert(node(1), Alert::Unwitnessed);
    assert_eq!(cluster.count(|change| *change == alert), 1);
    cluster.witnesses.as_ref().unwrap().heal();
    cluster.pass(SECOND);
    assert_eq!(cluster.lost(), [node(1)]);
}

#[test]
fn while_the_clock_is_in_doubt_nobody_is_lost_and_nothing_is_issued() {
    let mut cluster = Cluster::of(3);
    cluster.ledger.set_clock_fault(Some("it jumped".to_owned()));
    cluster.cut([1]);
    cluster.clock.step_wall(86_400 * 30);
    cluster.pass(UNTIL_LOST);
    assert_eq!(cluster.lost(), []);
    assert_eq!(cluster.serves(2), Ok(()), "acknowledgements still count");
    let issue = cluster.ledger.check_issue(&node(2), Generation(1));
    assert_eq!(issue, Err(NotServed::ClockFault));
    let (pass, _) = cluster.ledger.weigh_gone(vec![pod(2).uid], cluster.clock.now());
    assert_eq!(pass, []);
    cluster.ledger.set_clock_fault(None);
    cluster.clock.step_wall(-86_400 * 30);
    cluster.pass(SECOND);
    assert_eq!(cluster.lost(), [node(1)]);
}

#[test]
fn pods_that_all_vanish_at_once_are_held_until_an_operator_or_the_source_says_otherwise() {
    let mut cluster = Cluster::of(60);
    let all: Vec<PodUid> = (1..=60).map(|n| pod(n).uid).collect();
    let now = cluster.clock.now();
    let (pass, turn) = cluster.ledger.weigh_gone(all.clone(), now);
    assert!(pass.is_empty() && matches!(turn, Some(Change::BrakeOn(_))), "{turn:?}");
    assert_eq!(cluster.ledger.held_pods(), 60);
    assert_eq!(cluster.ledger.release_brake(None).pods, 60);
    let (pass, _) = cluster.ledger.weigh_gone(all, now);
    assert_eq!(pass.len(), 60);
}

#[test]
fn a_restart_forgets_neither_bans_nor_what_was_lost_lately() {
    let mut cluster = Cluster::of(9);
    cluster.cut(1..=3);
    cluster.pass(UNTIL_LOST);
    assert_eq!(cluster.lost().len(), 3);
    cluster.ledger.ban(&node(8), "operator:olga", "stolen", cluster.clock.now().wall);

    let master = MasterKey::random(&SeededEntropy::new(7));
    let sealer = Sealer::new(&master, Arc::new(SeededEntropy::new(8)));
    let records: BTreeMap<_, _> = cluster.ledger.take_round(&sealer).puts.into_iter().collect();
    let records: Vec<_> = records.into_iter().collect();
    let now = cluster.clock.now();
    let read = record::read("test".into(), &records, &sealer, now).unwrap();
    assert_eq!(read.bans(), cluster.ledger.bans());
    cluster.ledger = read;
    cluster.ledger.set_brake(Limits::default(), now);
    for n in 4..=9 {
        if n != 8 {
            assert!(matches!(cluster.attach(n), Attach::Welcome { .. }));
        }
    }
    assert_eq!(cluster.attach(8), Attach::Banned);
    cluster.cut([4, 8]);
    cluster.pass(UNTIL_LOST);
    assert_eq!(cluster.lost().len(), 3, "5 of 9 within ten minutes are too many");
}

#[test]
fn a_ban_is_by_name_and_by_key_and_ends_only_by_an_operator() {
    let mut cluster = Cluster::of(2);
    let (stolen, other) = (Some(KeyHash([7; 32])), Some(KeyHash([9; 32])));
    let attach = |cluster: &mut Cluster, n: u8, key| {
        let hello = Hello { key, ..hello(None) };
        cluster.ledger.attach(&node(n), &hello, StreamId(100), cluster.clock.now())
    };
    attach(&mut cluster, 1, stolen);
    let now = cluster.clock.now().wall;
    cluster.ledger.ban(&node(1), "operator:olga", "stolen", now);
    assert_eq!(cluster.serves(1), Err(NotServed::Banned));
    assert_eq!(attach(&mut cluster, 1, other), Attach::Banned, "by its name");
    assert_eq!(attach(&mut cluster, 3, stolen), Attach::Banned, "by its key");
    assert_eq!(attach(&mut cluster, 3, other), Attach::Banned, "by a key that it came with since");
    assert!(matches!(attach(&mut cluster, 3, None), Attach::Welcome { .. }));

    cluster.ledger.ban(&node(200), "operator:olga", "never seen", now);
    assert_eq!(attach(&mut cluster, 200, None), Attach::Banned);
    assert!(cluster.ledger.unban(&node(1)).is_some());
    assert!(matches!(attach(&mut cluster, 1, stolen), Attach::Welcome { .. }));
    assert_eq!(cluster.ledger.unban(&node(1)), None);
}

#[test]
fn when_all_node_objects_are_deleted_the_first_one_to_fall_silent_is_not_lost_alone() {
    let mut cluster = Cluster::of(9);
    let objects = FakeCluster::default();
    (1..=9).for_each(|n| objects.set_ready(&node(n), true));
    cluster.witnesses = Some(objects);
    cluster.pass(MINUTE);
    let objects = cluster.witnesses.as_ref().unwrap();
    (1..=9).for_each(|n| objects.delete(&node(n)));
    cluster.cut([1]);
    cluster.pass(2 * MINUTE);
    assert_eq!(cluster.lost(), [], "eight others have no Node object either");
    cluster.cut(2..=9);
    cluster.pass(10 * MINUTE);
    assert!(cluster.lost().len() <= 2, "two an hour pass the brake: {:?}", cluster.lost());
    assert!(cluster.ledger.braked().is_some());
}

fn of_another_object(n: u8) -> Hello {
    Hello { node_uid: Some(format!("second-{n}")), ..hello(None) }
}

/// Each node attaches with the uid of its first Node object.
fn with_uids(size: u8) -> Cluster {
    let mut cluster = Cluster::of(size);
    for n in 1..=size {
        let hello = Hello { node_uid: Some(format!("first-{n}")), ..hello(None) };
        let (stream, now) = (StreamId(n.into()), cluster.clock.now());
        assert!(matches!(
            cluster.ledger.attach(&node(n), &hello, stream, now),
            Attach::Welcome { .. }
        ));
    }
    cluster.pass(MINUTE);
    cluster
}

#[test]
fn a_name_that_now_belongs_to_another_node_object_loses_what_the_first_one_held() {
    let mut cluster = with_uids(9);
    let mut hello_again = |n: u8| {
        let now = cluster.clock.now();
        let answer = cluster.ledger.attach(&node(n), &of_another_object(n), StreamId(100), now);
        cluster.tick();
        answer
    };
    assert_eq!(hello_again(1), Attach::Replaces { first: true });
    assert_eq!(hello_again(1), Attach::Welcome { generation: Generation(2) });
    assert_eq!(cluster.lost(), [node(1)]);
    let loss = cluster.ledger.session(&node(1)).unwrap().last_loss.clone().unwrap();
    assert_eq!(loss.cause, Cause::NodeDeleted);
}

#[test]
fn the_brake_holds_when_every_node_object_was_made_anew() {
    let mut cluster = with_uids(9);
    for n in 1..=9 {
        let now = cluster.clock.now();
        let answer = cluster.ledger.attach(&node(n), &of_another_object(n), StreamId(100), now);
        assert_eq!(answer, Attach::Replaces { first: true });
        assert_eq!(cluster.serves(n), Err(NotServed::Replaced));
    }
    cluster.tick();
    assert_eq!(cluster.lost(), [], "the first round is judged together");
    cluster.ledger.release_brake(Some(&[node(3)]));
    cluster.tick();
    assert_eq!(cluster.lost(), [node(3)], "an operator lets one pass");
}
