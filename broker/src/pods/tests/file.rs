use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use krb_proto::{PodRef, PodUid};
use proptest::prelude::*;

use super::{AROUND, pod_text};
use crate::{
    clock::TestClock,
    pods::{Pod, PodSource, Sighting, directory::Directory, file::FilePods},
};

const SECOND: Duration = Duration::from_secs(1);

/// A directory that holds the pod `web-0` and what is around it.
struct World {
    directory: tempfile::TempDir,
    clock: Arc<TestClock>,
    pods: FilePods,
}

fn named(uid: &PodUid) -> PodRef {
    let (namespace, name) = ("tsfoo".parse().unwrap(), "web-0".parse().unwrap());
    PodRef { cluster: "prod-1".into(), namespace, name, uid: uid.clone() }
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = Arc::new(TestClock::default());
        fs::create_dir(directory.path().join("objects")).unwrap();
        let objects = directory.path().join("objects");
        let pods = FilePods::new(&objects, "c1".into(), clock.clone());
        let world = Self { directory, clock, pods };
        world.write("around.yaml", AROUND);
        world.write("web-0.yaml", &pod_text("web-0", "uid-0", ""));
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("objects").join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    async fn look(&self, uid: &str) -> Sighting {
        self.pods.look(&uid.parse().unwrap(), None).await.unwrap()
    }

    async fn here(&self) -> Pod {
        match self.look("uid-0").await {
            Sighting::Here(pod) => *pod,
            other => panic!("{other:?}"),
        }
    }

    async fn gone(&self, uid: &str) -> bool {
        let uid: PodUid = uid.parse().unwrap();
        self.pods.gone(&[named(&uid)]).await.unwrap() == [uid]
    }
}

#[tokio::test]
async fn a_pod_is_seen_with_its_services_its_namespace_and_its_nodes_labels() {
    let world = World::new();
    let pod = world.here().await;
    assert_eq!(pod.services, ["both", "web"]);
    assert_eq!(pod.namespace_uid, "ns-1");
    assert_eq!(pod.node_labels["zone"], "secure");
    assert_eq!(pod.pod.to_string(), "tsfoo/web-0");
    assert!(!pod.finished);
    let uid = world.pods.namespace_uid(&"tsfoo".parse().unwrap()).await.unwrap();
    assert_eq!(uid.as_deref(), Some("ns-1"));
}

#[tokio::test]
async fn every_look_sees_the_directory_as_it_is_then() {
    let world = World::new();
    assert_eq!(world.here().await.node.as_str(), "node-a");
    // The same length, and likely the same tick of the clock.
    for node in ["node-b", "node-c", "node-a"] {
        let text = pod_text("web-0", "uid-0", "").replace("node-a", node);
        world.write("web-0.yaml", &text);
        assert_eq!(world.here().await.node.as_str(), node);
    }
}

#[tokio::test]
async fn a_pod_that_is_away_is_missing_for_a_minute_and_then_gone() {
    let world = World::new();
    world.here().await;
    world.remove("web-0.yaml");
    assert_eq!(world.look("uid-0").await, Sighting::Missing);
    world.clock.advance(59 * SECOND);
    assert_eq!(world.look("uid-0").await, Sighting::Missing);
    assert!(!world.gone("uid-0").await);
    world.clock.advance(SECOND);
    assert_eq!(world.look("uid-0").await, Sighting::Gone);
    assert!(world.gone("uid-0").await);

    assert_eq!(world.look("stranger").await, Sighting::Missing, "never seen: a minute as well");
    world.clock.advance(60 * SECOND);
    assert!(world.gone("stranger").await);
}

#[tokio::test]
async fn a_pod_that_comes_back_in_between_starts_its_minute_anew() {
    let world = World::new();
    world.here().await;
    world.remove("web-0.yaml");
    assert_eq!(world.look("uid-0").await, Sighting::Missing);
    world.clock.advance(40 * SECOND);
    world.write("web-0.yaml", &pod_text("web-0", "uid-0", ""));
    world.here().await;
    world.remove("web-0.yaml");
    world.look("uid-0").await;
    world.clock.advance(40 * SECOND);
    assert_eq!(world.look("uid-0").await, Sighting::Missing);
}

#[tokio::test]
async fn a_pod_whose_name_has_another_uid_is_gone_at_once() {
    let world = World::new();
    world.here().await;
    world.write("web-0.yaml", &pod_text("web-0", "uid-1", ""));
    assert_eq!(world.look("uid-0").await, Sighting::Gone);
    assert!(matches!(world.look("uid-1").await, Sighting::Here(_)));
}

#[tokio::test]
async fn pods_of_a_file_that_cant_be_read_are_missing_for_however_long_and_never_gone() {
    let world = World::new();
    world.here().await;
    let text = pod_text("web-0", "uid-0", "");
    world.write("web-0.yaml", &format!("{}\n  bad: [", &text[..text.len() / 2]));
    for _ in 0..5 {
        assert_eq!(world.look("uid-0").await, Sighting::Missing);
        world.clock.advance(60 * SECOND);
        assert!(!world.gone("uid-0").await);
    }
    world.write("web-0.yaml", "");
    assert_eq!(world.look("uid-0").await, Sighting::Missing, "its minute begins now");
    world.clock.advance(60 * SECOND);
    assert_eq!(world.look("uid-0").await, Sighting::Gone);
}

#[tokio::test]
async fn nothing_is_gone_while_a_file_was_never_readable() {
    let world = World::new();
    world.write("new.yaml", "a: [");
    assert_eq!(world.look("uid-9").await, Sighting::Missing);
    world.clock.advance(600 * SECOND);
    assert_eq!(world.look("uid-9").await, Sighting::Missing, "it may be in that file");
    world.here().await;
}

#[tokio::test]
async fn a_minute_in_which_a_file_was_unreadable_does_not_count() {
    let world = World::new();
    assert_eq!(world.look("uid-9").await, Sighting::Missing);
    world.clock.advance(30 * SECOND);
    world.write("new.yaml", "a: [");
    world.here().await;
    world.write("new.yaml", "");
    world.here().await;
    world.clock.advance(40 * SECOND);
    assert_eq!(world.look("uid-9").await, Sighting::Missing, "it may have been in that file");
}

#[tokio::test]
async fn a_directory_that_is_away_makes_pods_unavailable_and_not_gone() {
    let world = World::new();
    world.here().await;
    let (objects, aside) =
        (world.directory.path().join("objects"), world.directory.path().join("aside"));
    fs::rename(&objects, &aside).unwrap();
    let uid: PodUid = "uid-0".parse().unwrap();
    assert!(world.pods.look(&uid, None).await.is_err());
    assert!(world.pods.gone(&[named(&uid)]).await.is_err());
    fs::rename(&aside, &objects).unwrap();
    world.here().await;
}

#[tokio::test]
async fn a_finished_pod_stays_finished_and_is_gone_after_a_minute() {
    let world = World::new();
    let text = pod_text("web-0", "uid-0", "");
    for phase in ["Succeeded", "Failed"] {
        world.write("web-0.yaml", &text.replace("Running", phase));
        assert!(world.here().await.finished, "{phase}");
    }
    world.write("web-0.yaml", &text);
    assert!(world.here().await.finished, "a status that is edited back gives nothing back");
    assert!(!world.gone("uid-0").await);
    world.clock.advance(60 * SECOND);
    assert!(world.gone("uid-0").await);
}

#[tokio::test]
async fn a_pod_is_finished_from_its_deletion_timestamp_on_which_has_the_grace_in_it() {
    let world = World::new();
    // The test clock stands at 2023-11-14T22:13:20Z.
    let deletion =
        "  deletionTimestamp: \"2023-11-14T22:13:50Z\"\n  deletionGracePeriodSeconds: 30\n";
    let text = pod_text("web-0", "uid-0", "").replace("  labels:", &format!("{deletion}  labels:"));
    world.write("web-0.yaml", &text);
    assert!(!world.here().await.finished);
    world.clock.advance(29 * SECOND);
    assert!(!world.here().await.finished);
    world.clock.advance(SECOND);
    assert!(world.here().await.finished);
}

#[tokio::test]
async fn what_two_objects_claim_gives_no_authority() {
    let world = World::new();
    world.write("twin.yaml", &pod_text("web-1", "uid-0", ""));
    assert!(
        matches!(world.look("uid-0").await, Sighting::Unstamped { what } if what.contains("uid"))
    );
    world.write("twin.yaml", &pod_text("web-0", "uid-1", ""));
    assert!(
        matches!(world.look("uid-0").await, Sighting::Unstamped { what } if what.contains("name"))
    );
    assert!(!world.gone("uid-0").await);
    world.write(
        "twin.yaml",
        "{apiVersion: v1, kind: Namespace, metadata: {name: tsfoo, uid: ns-2}}",
    );
    assert!(
        matches!(world.look("uid-0").await, Sighting::Unstamped { what } if what.contains("Namespace"))
    );
    world.remove("twin.yaml");
    world.here().await;
}

#[test]
fn only_files_that_changed_or_changed_lately_are_read_again() {
    let world = World::new();
    let mut directory = Directory::new(&world.path(""));
    let cluster: Arc<str> = "c1".into();
    let changed = fs::metadata(world.path("web-0.yaml")).unwrap().modified().unwrap();
    let (lately, later) = (changed + SECOND, changed + 10 * SECOND);
    assert!(directory.refresh(&cluster, lately).unwrap());
    assert!(directory.refresh(&cluster, later).unwrap(), "a change could have hidden in the tick");
    assert_eq!(directory.reads, 4);
    assert!(!directory.refresh(&cluster, later).unwrap());
    assert_eq!(directory.reads, 4);
    world.write("web-0.yaml", &pod_text("web-0", "uid-9", ""));
    assert!(directory.refresh(&cluster, later).unwrap());
    assert_eq!(directory.reads, 5);
    world.remove("web-0.yaml");
    assert!(directory.refresh(&cluster, later).unwrap(), "a file less is a change");
    assert_eq!(directory.reads, 5);
}

#[tokio::test]
async fn lists_many_documents_and_json_are_read_and_hidden_files_are_not() {
    let world = World::new();
    world.remove("web-0.yaml");
    let list = "apiVersion: v1\nkind: PodList\nitems: []\n---\n";
    world.write("all.yml", &format!("{list}{}", pod_text("web-0", "uid-0", "")));
    world.write(".all.yml.tmp", "a: [");
    world.write("README.md", "a: [");
    world.write("n.json", r#"{"apiVersion":"v1","kind":"Node","metadata":{"name":"node-z"}}"#);
    world.here().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn looks_at_once_all_see_what_was_there_before_they_began() {
    let world = Arc::new(World::new());
    for round in 0..20 {
        let uid = format!("uid-{round}");
        world.write("web-0.yaml", &pod_text("web-0", &uid, ""));
        let looks: Vec<_> = (0..8)
            .map(|_| {
                let (world, uid) = (world.clone(), uid.clone());
                tokio::spawn(async move { world.look(&uid).await })
            })
            .collect();
        for look in looks {
            assert!(matches!(look.await.unwrap(), Sighting::Here(_)), "round {round}");
        }
    }
}

/// What can happen to the directory.
#[derive(Clone, Copy, Debug)]
enum Event {
    Written,
    Removed,
    Broken,
    OtherBroken,
    OtherMended,
    Wait(u8),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        1 => Just(Event::Written),
        2 => Just(Event::Removed),
        1 => Just(Event::Broken),
        1 => Just(Event::OtherBroken),
        1 => Just(Event::OtherMended),
        4 => (1..50_u8).prop_map(Event::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn in_no_order_of_events_is_a_pod_gone_before_it_was_surely_away_for_a_minute(
        events in prop::collection::vec(event(), 1..25),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let world = World::new();
            world.here().await;
            let (mut there, mut broken, mut away) = (true, false, 0);
            let (mut unseen, mut other_was_read) = (false, false);
            for event in events {
                match event {
                    Event::Written => world.write("web-0.yaml", &pod_text("web-0", "uid-0", "")),
                    Event::Removed if there || broken => world.remove("web-0.yaml"),
                    Event::Broken => world.write("web-0.yaml", "a: ["),
                    Event::OtherBroken => world.write("other.yaml", "a: ["),
                    Event::OtherMended => world.write("other.yaml", ""),
                    Event::Wait(seconds) => world.clock.advance(u32::from(seconds) * SECOND),
                    Event::Removed => {}
                }
                match event {
                    Event::Written => (there, broken) = (true, false),
                    Event::Removed => (there, broken) = (false, false),
                    Event::Broken => (there, broken) = (false, true),
                    // A file that was never read may have any pod.
                    Event::OtherBroken => unseen = !other_was_read,
                    Event::OtherMended => (unseen, other_was_read) = (false, true),
                    Event::Wait(seconds) if !(there || broken || unseen) => away += u32::from(seconds),
                    Event::Wait(_) => {}
                }
                if there || broken || unseen {
                    away = 0;
                }
                match world.look("uid-0").await {
                    Sighting::Here(_) => assert!(there),
                    Sighting::Gone => assert!(!there && away >= 60, "{away}"),
                    Sighting::Missing => assert!(!there && away < 60, "{away}"),
                    other => panic!("{other:?}"),
                }
            }
        });
    }
}
