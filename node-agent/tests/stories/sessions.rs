//! Pushes, wipes, fences, and a broker that goes and comes.

use std::time::Duration;

use krb_proto::v1::goodbye::Reason;

use crate::{
    broker::{BEAT, material},
    node::Node,
    story,
};

const ALL: [&str; 4] = ["conf/krb5.conf", "conf/lease.json", "keytabs/tsfoo", "tickets/tsfoo"];

story! {
    async fn a_push_is_acknowledged_once_the_pod_reads_the_new_files() {
        let node = Node::attached().await;
        let place = node.filled("uid-1").await;
        let lease = node.lease(&place);
        node.broker.push(lease, 7, material("keytab-2-3", &[2, 3], "ccache-2"));
        node.until("the push is acknowledged", |n| !n.broker.state().acknowledged.is_empty()).await;
        assert_eq!(node.pods.read(&place, "keytabs/tsfoo").unwrap(), "keytab-2-3");
        assert_eq!(node.pods.read(&place, "tickets/tsfoo").unwrap(), "ccache-2");
        assert_eq!(node.pods.stat(&place, "keytabs/tsfoo"), (0o400, 1234, 1111));
        let acknowledged = node.broker.state().acknowledged[0].clone();
        assert_eq!((acknowledged.push_id, acknowledged.generation), (7, 1));
        assert_eq!(acknowledged.principals[0].kvnos, [2, 3]);
        assert_eq!(acknowledged.keytab_digest, material("keytab-2-3", &[], "").keytab.unwrap().digest);
    }
}

story! {
    async fn what_is_no_longer_granted_is_unlinked() {
        let node = Node::attached().await;
        let place = node.filled("uid-1").await;
        let only_ticket = krb_proto::v1::Material { keytab: None, ..material("", &[], "ccache-2") };
        node.broker.push(node.lease(&place), 1, only_ticket);
        node.until("the push is acknowledged", |n| !n.broker.state().acknowledged.is_empty()).await;
        assert_eq!(node.pods.files(&place), ["conf/krb5.conf", "conf/lease.json", "tickets/tsfoo"]);
        assert!(node.broker.state().acknowledged[0].keytab_digest.is_empty());
    }
}

story! {
    async fn what_can_not_be_written_is_not_acknowledged() {
        let node = Node::attached().await;
        let place = node.filled("uid-1").await;
        let other = node.filled("uid-2").await;
        let lease = node.lease(&place);
        node.pods.unmount(&place);
        node.broker.push(lease, 1, material("keytab-3", &[3], "ccache-2"));
        node.broker.push(node.lease(&other), 2, material("keytab-3", &[3], "ccache-2"));
        node.until("the other is acknowledged", |n| !n.broker.state().acknowledged.is_empty()).await;
        assert_eq!(node.broker.state().acknowledged[0].push_id, 2);
        let released = format!("release {lease}");
        node.until("the lease of what was taken off without a word goes back", |n| {
            n.broker.state().log.contains(&released)
        })
        .await;
    }
}

story! {
    async fn a_push_that_overtakes_the_answer_to_its_issue_is_what_stays() {
        let node = Node::attached().await;
        node.broker.state().slow = Duration::from_secs(5);
        let place = node.pods.mount("uid-1");
        let pushed = async {
            node.until("the lease exists", |n| !n.broker.state().live.is_empty()).await;
            node.broker.push(node.lease(&place), 9, material("keytab-2-3", &[2, 3], "ccache-2"));
        };
        let (failure, ()) = tokio::join!(node.fill(&place), pushed);
        assert_eq!(failure, "");
        node.until("the push is acknowledged", |n| !n.broker.state().acknowledged.is_empty()).await;
        assert_eq!(node.pods.read(&place, "keytabs/tsfoo").unwrap(), "keytab-2-3");
    }
}

story! {
    async fn an_older_answer_never_replaces_a_newer_push() {
        let node = Node::attached().await;
        let place = node.filled("uid-1").await;
        node.broker.state().slow = Duration::from_secs(5); // kubelet was restarted and asks again
        let pushed = async {
            node.until("it is asked again", |n| n.broker.state().issues.len() == 2).await;
            node.broker.push(node.lease(&place), 9, material("keytab-2-3", &[2, 3], "ccache-2"));
            node.until("it is acknowledged", |n| !n.broker.state().acknowledged.is_empty()).await;
        };
        let (failure, ()) = tokio::join!(node.fill(&place), pushed);
        assert_eq!(failure, "");
        // The fake broker grants the old keytab again; what counts is that it was asked after the push.
        assert_eq!(node.broker.state().issues.len(), 3, "the answer under way was thrown away");
    }
}

story! {
    async fn a_revoked_lease_is_wiped_and_not_asked_for_again() {
        let node = Node::attached().await;
        let (place, other) = (node.filled("uid-1").await, node.filled("uid-2").await);
        node.broker.wipe(node.lease(&place), "REVOKED");
        node.until("the volume is empty", |n| n.pods.files(&place).is_empty()).await;
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!(node.broker.state().issues.len(), 2);
        assert_eq!(node.pods.files(&other), ALL);
        assert!(node.pods.stat(&place, "tickets").0 == 0o755, "the directories stay");
    }
}

story! {
    async fn a_lease_that_the_broker_has_lost_is_issued_again() {
        let node = Node::attached().await;
        let place = node.filled("uid-1").await;
        let lost = node.lease(&place);
        node.broker.wipe(lost, "UNKNOWN_LEASE");
        node.until("it is issued again", |n| n.broker.state().issues.len() == 2).await;
        node.until("it is filled again", |n| n.pods.files(&place) == ALL).await;
        assert_ne!(node.lease(&place), lost);
    }
}

story! {
    async fn a_fenced_node_wipes_all_and_its_pods_are_served_anew() {
        let node = Node::attached().await;
        let places = [node.filled("uid-1").await, node.filled("uid-2").await];
        node.broker.state().refusals.extend((0..2).map(|_| {
            let wait = Some(Duration::from_secs(10));
            crate::broker::refusal(tonic::Code::Unavailable, "x", "KDC_UNAVAILABLE", wait)
        }));
        node.broker.fence();
        for place in &places {
            node.until("it is wiped", |n| n.pods.files(place).is_empty()).await;
        }
        node.until("it says Hello anew", |n| n.broker.state().hellos.len() == 2).await;
        let hello = node.broker.state().hellos[1].clone();
        assert_eq!((hello.generation, hello.inventory.len()), (None, 0));
        for place in &places {
            node.until("it is filled again", |n| n.pods.files(place) == ALL).await;
        }
        assert!(node.broker.state().issues.iter().skip(2).all(|issue| issue.generation == 2));
    }
}

story! {
    async fn a_fence_while_an_answer_is_under_way_leaves_nothing_of_it() {
        let node = Node::attached().await;
        node.broker.state().slow = Duration::from_secs(5);
        let place = node.pods.mount("uid-1");
        let fenced = async {
            node.until("it is asked", |n| n.broker.state().issues.len() == 1).await;
            node.broker.fence();
        };
        let (failure, ()) = tokio::join!(node.fill(&place), fenced);
        assert_eq!(failure, "");
        let issues = node.broker.state().issues.clone();
        assert_eq!(issues.last().unwrap().generation, 2);
        assert_eq!(node.pods.files(&place), ALL);
    }
}

story! {
    async fn files_stay_while_the_broker_is_away_and_it_is_told_of_them_when_it_is_back() {
        let node = Node::attached().await;
        let place = node.filled("uid-1").await;
        node.broker.go_away();
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert_eq!(node.pods.files(&place), ALL);
        node.broker.come_back();
        let soon = Duration::from_secs(6);
        node.within(soon, "it attaches", |n| n.broker.state().hellos.len() == 2).await;
        let hello = node.broker.state().hellos[1].clone();
        assert_eq!(hello.generation, Some(1));
        assert_eq!(hello.inventory[0].lease_id, node.lease(&place).to_string());
        assert_eq!(hello.inventory[0].principals[0].kvnos, [2]);
        assert_eq!(node.broker.state().issues.len(), 1);
    }
}

story! {
    async fn a_broker_that_falls_silent_is_called_anew() {
        let node = Node::attached().await;
        node.broker.state().mute = true;
        let bound = BEAT * 4 + Duration::from_secs(2);
        node.within(bound, "it attaches anew", |n| n.broker.state().hellos.len() == 2).await;
    }
}

story! {
    async fn heartbeats_keep_the_material_and_their_end_ends_it() {
        let node = Node::attached().await;
        let place = node.filled("uid-1").await;
        tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
        assert_eq!(node.pods.files(&place), ALL, "replies moved the end");
        let before = tokio::time::Instant::now();
        node.broker.go_away();
        node.until("it is wiped", |n| n.pods.files(&place).is_empty()).await;
        let (least, most) = (Duration::from_secs(3600) - BEAT, Duration::from_secs(3602));
        assert!((least..most).contains(&before.elapsed()), "{:?}", before.elapsed());
        node.broker.come_back();
        node.until("it is filled again", |n| n.pods.files(&place) == ALL).await;
    }
}

story! {
    async fn who_holds_something_comes_back_and_who_holds_nothing_leaves() {
        let mut node = Node::attached().await;
        node.stop().await;
        node.start();
        node.until("it is back", |n| n.broker.state().hellos.len() == 2).await;
        let place = node.filled("uid-1").await;
        let before = tokio::time::Instant::now();
        node.stop().await;
        assert!(before.elapsed() < Duration::from_millis(200));
        assert_eq!(node.broker.state().goodbyes, [Reason::Empty, Reason::Restarting]);
        assert_eq!(node.pods.files(&place), ALL);
    }
}
