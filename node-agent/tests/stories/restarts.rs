//! An agent that starts again, with what it finds.

use std::{fs, time::Duration};

use crate::{broker::material, node::Node, story};

story! {
    async fn a_restart_goes_on_where_it_ended() {
        let mut node = Node::attached().await;
        let place = node.filled("uid-1").await;
        node.broker.push(node.lease(&place), 1, material("keytab-2-3", &[2, 3], "ccache-2"));
        node.until("it is acknowledged", |n| !n.broker.state().acknowledged.is_empty()).await;
        node.kill().await;
        node.start();
        node.until("it attaches", |n| n.broker.state().hellos.len() == 2).await;
        let hello = node.broker.state().hellos[1].clone();
        assert_eq!(hello.generation, Some(1));
        assert_eq!(hello.inventory[0].principals[0].kvnos, [2, 3]);
        assert_ne!(hello.instance, node.broker.state().hellos[0].instance);
        assert_eq!(node.pods.read(&place, "keytabs/tsfoo").unwrap(), "keytab-2-3");
    }
}

story! {
    async fn a_release_that_was_not_told_is_told_after_a_restart() {
        let mut node = Node::attached().await;
        let place = node.filled("uid-1").await;
        node.broker.go_away();
        node.pods.unmount(&place);
        node.forget(&place).await;
        node.stop().await;
        node.broker.come_back();
        node.start();
        node.until("it is released", |n| n.broker.state().log.contains(&"release 1".into())).await;
    }
}

story! {
    async fn a_volume_taken_off_while_the_agent_was_away_is_released() {
        let mut node = Node::attached().await;
        let place = node.filled("uid-1").await;
        node.stop().await;
        node.pods.unmount(&place);
        node.start();
        node.until("it is released", |n| n.broker.state().log.contains(&"release 1".into())).await;
    }
}

story! {
    async fn without_a_readable_journal_volumes_are_emptied_and_asked_for_anew() {
        let mut node = Node::attached().await;
        let place = node.filled("uid-1").await;
        node.stop().await;
        node.broker.go_away();
        fs::write(node.pods.run_dir().join("journal.json"), b"{").unwrap();
        node.start();
        assert!(node.pods.files(&place).is_empty(), "nothing unknown is left on a volume");
        node.broker.come_back();
        node.until("it attaches", |n| n.broker.state().hellos.len() == 2).await;
        assert_eq!(node.broker.state().hellos[1].generation, None);
        node.until("it is filled", |n| n.pods.read(&place, "keytabs/tsfoo").is_some()).await;
    }
}

story! {
    async fn an_agent_that_sleeps_past_the_end_wipes_before_it_says_anything() {
        let mut node = Node::attached().await;
        let place = node.filled("uid-1").await;
        node.stop().await;
        node.broker.go_away();
        tokio::time::sleep(Duration::from_secs(3700)).await;
        node.start();
        assert!(node.pods.files(&place).is_empty());
    }
}

story! {
    async fn the_journal_holds_no_material() {
        let node = Node::attached().await;
        node.filled("uid-1").await;
        let journal = fs::read_to_string(node.pods.run_dir().join("journal.json")).unwrap();
        assert!(journal.contains("uid-1"));
        assert!(!journal.contains("keytab-2") && !journal.contains("ccache"), "{journal}");
    }
}
