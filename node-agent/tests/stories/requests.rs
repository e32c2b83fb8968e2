//! What the driver asks, and what it is told.

use std::time::Duration;

use krb_proto::driver::{Call, Fill, Forget};
use tokio::{io::AsyncWriteExt as _, net::UnixStream, time::Instant};
use tonic::Code;

use crate::{broker::refusal, node::Node, story};

story! {
    async fn a_mount_has_the_files_of_the_design_when_the_driver_is_answered() {
        let node = Node::attached().await;
        let place = node.filled("uid-1").await;
        for (file, stat) in [
            ("tickets", (0o755, 0, 0)),
            ("tickets/tsfoo", (0o600, 1234, 1111)),
            ("keytabs/tsfoo", (0o400, 1234, 1111)),
            ("conf/krb5.conf", (0o644, 0, 0)),
            ("conf/lease.json", (0o644, 0, 0)),
            ("rcache", (0o700, 1234, 1111)),
        ] {
            assert_eq!(node.pods.stat(&place, file), stat, "{file}");
        }
        assert_eq!(node.pods.read(&place, "tickets/@DEFAULT/tsfoo").unwrap(), "ccache-1");
        node.pods.unmount(&place); // would fail with EBUSY if a descriptor were open
    }
}

story! {
    async fn what_passes_by_itself_is_waited_for() {
        let node = Node::attached().await;
        let wait = Duration::from_secs(7);
        node.broker.state().refusals.extend([
            refusal(Code::Unavailable, "the KDC does not answer", "KDC_UNAVAILABLE", None),
            refusal(Code::FailedPrecondition, "attach first", "NOT_ATTACHED", None),
            refusal(Code::ResourceExhausted, "too many", "GATE_FULL", Some(wait)),
        ]);
        let before = Instant::now();
        node.filled("uid-1").await;
        assert_eq!(node.broker.state().issues.len(), 4);
        assert!(before.elapsed() >= wait && before.elapsed() < wait * 2, "{:?}", before.elapsed());
    }
}

story! {
    async fn a_denial_is_told_at_once_in_the_brokers_words() {
        let node = Node::attached().await;
        let denied = refusal(Code::PermissionDenied, "not\nyours", "SERVICE_NOT_ENTITLED", None);
        node.broker.state().refusals.push_back(denied);
        let place = node.pods.mount("uid-1");
        assert_eq!(node.fill(&place).await, "not yours (SERVICE_NOT_ENTITLED)");
        assert_eq!(node.broker.state().issues.len(), 1);
        assert!(node.pods.files(&place).is_empty());
    }
}

story! {
    async fn a_broker_that_stays_away_is_told_before_the_driver_gives_up() {
        let node = Node::attached().await;
        node.broker.go_away();
        let place = node.pods.mount("uid-1");
        let before = Instant::now();
        assert_eq!(node.fill(&place).await, krb_node_agent::refusal::BROKER_AWAY);
        assert!(before.elapsed() <= Duration::from_secs(91), "{:?}", before.elapsed());
        assert!(before.elapsed() >= Duration::from_secs(80), "{:?}", before.elapsed());
    }
}

story! {
    async fn a_broker_that_comes_back_in_time_is_waited_for() {
        let node = Node::attached().await;
        node.broker.go_away();
        let place = node.pods.mount("uid-1");
        let back = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            node.broker.come_back();
        };
        let (failure, ()) = tokio::join!(node.fill(&place), back);
        assert_eq!(failure, "");
    }
}

story! {
    async fn a_volume_taken_off_is_released_also_when_the_broker_is_away() {
        let node = Node::attached().await;
        let place = node.filled("uid-1").await;
        node.broker.go_away();
        node.pods.unmount(&place);
        let before = Instant::now();
        assert_eq!(node.forget(&place).await, "");
        assert!(before.elapsed() < Duration::from_secs(1), "the driver does not wait");
        node.broker.come_back();
        node.until("it is released", |n| n.broker.state().log.contains(&"release 1".into())).await;
    }
}

story! {
    async fn a_release_is_told_before_the_same_volume_is_asked_for_again() {
        let node = Node::attached().await;
        let place = node.filled("uid-1").await;
        node.broker.go_away();
        node.forget(&place).await;
        let back = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            node.broker.come_back();
        };
        let (failure, ()) = tokio::join!(node.fill(&place), back);
        assert_eq!(failure, "");
        assert_eq!(node.broker.state().log.last().unwrap(), "issue 2", "no lease that ends");
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(!node.broker.state().live.is_empty(), "and none that was ended after");
    }
}

story! {
    async fn a_volume_gone_before_its_answer_came_is_released() {
        let node = Node::attached().await;
        node.broker.state().slow = Duration::from_secs(5);
        let place = node.pods.mount("uid-1");
        let driver = async {
            let mut stream =
                UnixStream::connect(node.pods.run_dir().join("agent.sock")).await.unwrap();
            let request = krb_proto::driver::Request { call: Some(node.fill_call(&place)) };
            stream.write_all(&krb_proto::driver::frame(&request)).await.unwrap();
            node.until("it is asked", |n| n.broker.state().issues.len() == 1).await;
        };
        driver.await; // dies
        node.pods.unmount(&place);
        node.forget(&place).await;
        node.until("it is released", |n| n.broker.state().log.contains(&"release 1".into())).await;
        tokio::time::sleep(Duration::from_secs(200)).await;
        assert!(node.broker.state().live.is_empty());
        assert_eq!(node.broker.state().issues.len(), 1, "nobody waits for it any more");
    }
}

story! {
    async fn a_volume_too_small_says_so_and_is_released() {
        let node = Node::attached().await;
        let place = node.pods.mount_sized("uid-1", "size=256k,nr_inodes=7,mode=0755");
        let failure = node.fill(&place).await;
        assert_eq!(failure, "the volume is too small for its credentials (VOLUME_FULL)");
        assert!(node.pods.files(&place).is_empty());
        node.until("it is released", |n| n.broker.state().live.is_empty()).await;
    }
}

story! {
    async fn a_plain_directory_gets_nothing() {
        let node = Node::attached().await;
        let place = krb_node_agent::place::Place::new("uid-1", "krb").unwrap();
        std::fs::create_dir_all(node.pods.target(&place).join("tickets")).unwrap();
        assert_eq!(node.fill(&place).await, "the volume is not mounted (VOLUME_NOT_MOUNTED)");
        assert!(node.pods.files(&place).is_empty());
        node.until("it is released", |n| n.broker.state().live.is_empty()).await;
    }
}

story! {
    async fn what_the_driver_says_must_agree() {
        let node = Node::attached().await;
        let (a, b) = (node.pods.mount("uid-1"), node.pods.mount("uid-2"));
        let Call::Fill(mut mixed) = node.fill_call(&a) else { unreachable!() };
        mixed.pod_uid = b.pod.to_string();
        let elsewhere = Fill { target: "/etc".to_owned(), ..mixed.clone() };
        let forget = Forget { target: "/etc".to_owned() };
        for call in [Call::Fill(mixed), Call::Fill(elsewhere), Call::Forget(forget)] {
            let failure = node.call(call).await;
            assert!(failure.ends_with("(INVALID_ARGUMENT)"), "{failure}");
        }
        assert!(node.broker.state().issues.is_empty());
    }
}

story! {
    async fn callers_that_say_nothing_do_not_keep_others_waiting_for_long() {
        let node = Node::attached().await;
        let socket = node.pods.run_dir().join("agent.sock");
        let mut idle = Vec::new();
        for _ in 0..20 {
            let mut stream = UnixStream::connect(&socket).await.unwrap();
            stream.write_all(&[0, 0]).await.unwrap();
            idle.push(stream);
        }
        let before = Instant::now();
        node.filled("uid-1").await;
        assert!(before.elapsed() < Duration::from_secs(20), "{:?}", before.elapsed());
    }
}

story! {
    async fn nobody_but_root_is_answered() {
        use std::{io::Read as _, os::unix::fs::PermissionsExt as _};
        let node = Node::attached().await;
        // Opened wide, so that only the kernel's word on the caller is left.
        let socket = node.pods.run_dir().join("agent.sock");
        for path in [socket.as_path(), &node.pods.run_dir(), node.pods.run_dir().parent().unwrap()] {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
        }
        let place = node.pods.mount("uid-1");
        let request = krb_proto::driver::Request { call: Some(node.fill_call(&place)) };
        let asked = tokio::task::spawn_blocking(move || {
            let nobody = rustix::thread::Uid::from_raw(65534);
            // This thread only; it ends with the call.
            std::thread::spawn(move || {
                rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
                let mut stream = std::os::unix::net::UnixStream::connect(socket).unwrap();
                let _refused = krb_proto::driver::write_frame(&mut stream, &request);
                let mut reply = Vec::new();
                let _reset = stream.read_to_end(&mut reply);
                reply
            })
            .join()
            .unwrap()
        });
        assert!(asked.await.unwrap().is_empty());
        assert!(node.broker.state().issues.is_empty());
    }
}
